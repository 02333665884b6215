"""From a recipe to cells and to the effects behind them.

Each cell has a generator of its own, seeded by world, context and the cell's number. So a cell
is the same in whichever order, block, thread or file it is drawn.

Taught in: book/calibration.

>>> from vcc_helpers.datasets._recipe import Size, draw_recipe
>>> recipe = draw_recipe(Size(n_genes=60, n_targets=(4, 2, 3), n_controls=50))
>>> roster = draw_roster(recipe, "H1")
>>> draw_counts(recipe, "H1", roster, roster.index[:5]).shape
(5, 60)
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
from scipy import sparse

from ._recipe import (
    BATCH_GENE_LOG_SD,
    BATCH_GROUP_GENE_LOG_SD,
    DEPTH_FLOOR,
    DEPTH_LOG_SD,
    DEPTH_PER_GENE,
    N_CONTROL_GUIDES,
    N_STATES,
    Context,
    Recipe,
)


def draw_roster(recipe: Recipe, context: str) -> pd.DataFrame:
    """List all cells of a context, the controls first, then target after target.

    ``group``, position among the targets, ``n_targets`` for controls; ``batch`` and ``guide``, from
    0; ``depth``, expected number of counts, float64.
    """
    here = recipe.contexts[context]
    rng = np.random.default_rng([recipe.seed, 2, here.key])
    n_targets, n_controls = len(recipe.targets), recipe.size.n_controls
    sizes = np.append(n_controls, here.n_cells)
    group = np.repeat(np.append(n_targets, np.arange(n_targets)), sizes)
    batch = rng.integers(recipe.size.n_batches, size=len(group))
    n_guides = np.append(recipe.n_guides, N_CONTROL_GUIDES)[group]
    guide = (rng.random(len(group)) * n_guides).astype(int)
    depth = np.zeros(len(group))
    while (low := np.flatnonzero(depth < DEPTH_FLOOR)).size:
        noise = rng.normal(0, DEPTH_LOG_SD, low.size)
        depth[low] = here.batch_depth[batch[low]] * np.exp(noise)
    depth *= DEPTH_PER_GENE * recipe.size.n_genes
    return pd.DataFrame({"group": group, "batch": batch, "guide": guide, "depth": depth})


def draw_counts(
    recipe: Recipe, context: str, roster: pd.DataFrame, cells: np.ndarray
) -> sparse.csr_matrix:
    """Draw the counts of some cells of a roster, by index: CSR, ``(n_cells, n_genes)``, float32."""
    here, rows = recipe.contexts[context], roster.loc[cells]
    generators = [np.random.default_rng([recipe.seed, 3, here.key, cell]) for cell in cells]
    rate = _rates(recipe, here, rows, generators)
    counts = np.empty(rate.shape, dtype=np.int32)
    for row, rng in enumerate(generators):
        counts[row] = rng.poisson(rate[row])
    return sparse.csr_matrix(counts.astype(np.float32))


def _rates(recipe: Recipe, here: Context, rows: pd.DataFrame, generators: list) -> np.ndarray:
    """Compute the expected counts of each cell's genes, ``(n_cells, n_genes)``, float32."""
    rate = np.empty((len(rows), len(here.log_basal)), dtype=np.float32)
    state = np.empty((len(rows), N_STATES), dtype=np.float32)
    for row, rng in enumerate(generators):
        state[row] = rng.standard_normal(N_STATES, dtype=np.float32)
        rng.standard_normal(out=rate[row], dtype=np.float32)
    rate *= np.sqrt(recipe.rate_variance).astype(np.float32)
    # half the variance off, so that the mean of the rate stays that of the gene
    variance = recipe.rate_variance + (recipe.states**2).sum(axis=0)
    rate += (here.log_basal - variance / 2).astype(np.float32)
    rate += state @ recipe.states
    rate += here.batch_shift[rows["batch"].to_numpy()]
    for row, (target, guide) in enumerate(rows[["group", "guide"]].to_numpy()):
        if target < len(recipe.targets):
            rate[row] += here.changes[target]
            rate[row, recipe.targets[target]] += np.log(recipe.guide_factor[target, guide])
    np.exp(rate, out=rate)
    total = rate.sum(axis=1, dtype=np.float64)
    rate *= (rows["depth"].to_numpy() / total).astype(np.float32)[:, None]
    return rate


def expected_effects(recipe: Recipe, context: str) -> np.ndarray:
    """Effects that infinitely many cells would show, ``(n_targets, n_genes)``, float32, lognorm.

    Expected lognorm depends on a gene's share of the counts and on the variance of its log rate,
    and smoothly on both: a table is enough. What batches add counts as variance.
    """
    here = recipe.contexts[context]
    batches = BATCH_GENE_LOG_SD**2 + BATCH_GROUP_GENE_LOG_SD**2
    variance = recipe.rate_variance + (recipe.states**2).sum(axis=0) + batches
    control = _expected_means(here.log_basal, variance, recipe.size.n_genes)
    effects = np.empty(here.changes.shape, dtype=np.float32)
    for target, change in enumerate(here.changes):
        expected = _expected_means(here.log_basal + change, variance, recipe.size.n_genes)
        effects[target] = expected - control
    return effects


def _expected_means(log_rate: np.ndarray, variance: np.ndarray, n_genes: int) -> np.ndarray:
    fraction = np.exp(log_rate)
    fraction /= fraction.sum(axis=-1, keepdims=True)
    log_mean = np.log(fraction * DEPTH_PER_GENE * n_genes)
    grid, variances, table = _lognorm_table()
    x = np.clip((log_mean - grid[0]) / (grid[1] - grid[0]), 0, len(grid) - 1.001)
    y = np.clip(variance / variances[1], 0, len(variances) - 1.001)
    i, j = x.astype(int), np.broadcast_to(y.astype(int), x.shape)
    u, v = x - i, y - j
    low = table[j, i] * (1 - u) + table[j, i + 1] * u
    high = table[j + 1, i] * (1 - u) + table[j + 1, i + 1] * u
    return low * (1 - v) + high * v


@cache
def _lognorm_table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    grid, variances = np.linspace(-16, 8, 481), np.linspace(0, 4, 41)
    table = [expected_lognorm(np.exp(grid), variance=variance) for variance in variances]
    return grid, variances, np.array(table)


def expected_lognorm(mean_counts: np.ndarray, *, variance: float) -> np.ndarray:
    r"""Mean of log(1 + count / d) over cells, d being a cell's depth in units of the median.

    `mean_counts` is that at median depth, ``(n,)``, `variance` that of the log rate between cells.
    For x >= 0, :math:`\log(1 + x) = \int_0^\infty (1 - e^{-tx}) e^{-t} / t \, dt`, so the mean of
    the logarithm needs only the mean of :math:`e^{-tx}`. For a Poisson count of rate r that is
    :math:`\exp(-r (1 - e^{-t}))`. The integral runs over log t by the trapezoidal rule, depth and
    rate over the nodes of Gauss and Hermite.
    """
    log_t, step = np.linspace(-22, 5, 109, retstep=True)
    t = np.exp(log_t)[:, None]
    total = np.zeros(len(mean_counts))
    for depth, depth_weight in _lognormal_nodes(DEPTH_LOG_SD, 7):
        reach = -np.expm1(-t / depth) * depth * mean_counts
        for rate, rate_weight in _lognormal_nodes(np.sqrt(variance), 9):
            missing = -np.expm1(-reach * rate * np.exp(-variance / 2))
            total += depth_weight * rate_weight * step * (missing * np.exp(-t)).sum(axis=0)
    return total


def _lognormal_nodes(log_sd: float, number: int) -> list[tuple[float, float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(number)
    return list(zip(np.exp(log_sd * nodes), weights / weights.sum(), strict=True))
