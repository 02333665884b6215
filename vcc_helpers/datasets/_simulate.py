"""A simulated world of knock-downs: several cell contexts, three hundred targets, no real gene.

The bundled real files are too small to show a 150/50/100 split or several cell lines.
This module draws such data step by step in plain NumPy: basal expression, gene programmes,
knock-down effects, cells.
Every number that shapes it is a named constant below, beside the real figure it follows.
All genes are called ``SIM...``: nothing here is a measurement.

Taught in: notebooks/02_from_counts_to_effects.

>>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1", "K562"), n_controls=50)
>>> world.contexts["H1"].n_vars, len(world.split["train"])
(60, 4)
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from tqdm import tqdm

from ..cells import CONTROL
from ._world import SPLIT_NAMES, World

# Counts per cell of the real H1 screen: median 53,912 over 18,080 genes.
DEPTH_PER_GENE = 53_912 / 18_080
# Log-normal spread of depth: 5 % of H1 cells lie below 29,431 and 5 % above 93,741 counts.
DEPTH_LOG_SD = 0.34
BATCH_LOG_SD = 0.10
# Mean counts of H1's genes in control cells at these cumulative shares: a third is all but off,
# a few dominate.
BASAL_SHARE = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
BASAL_COUNTS = (1e-5, 5e-4, 0.0076, 0.06, 0.28, 0.76, 1.6, 2.7, 4.6, 8.4, 13, 30, 87, 430)
# How far a gene's log expression in another context lies from the first. Assumed.
CONTEXT_LOG_SD = 0.8
# Negative binomial overdispersion: the median of 6,986 H1 genes is .17.
DISPERSION = 0.15

# Size of an effect, as L2 norm over 18,080 genes: median 4.2, quartiles 2.7 and 7.5 once the
# sampling noise is taken off. Part of the spread belongs to the target, part to the context.
EFFECT_NORM = 4.2
EFFECT_GENES = 18_080
TARGET_SIZE_LOG_SD = 0.60
CONTEXT_SIZE_LOG_SD = 0.45
# Shares of an effect's squared norm. The first two are the same in every context, so their sum
# is about the cosine of one target's noise-free effects in two contexts. Real lines show .12 to
# .145 with noise on both sides; so do these, where the noise-free cosine is about .3.
COMMON_SHARE = 0.03
SHARED_SHARE = 0.26
REWIRED_SHARE = 0.43
OWN_SHARE = 0.28
N_PROGRAMMES = 40
# How far the programmes a target moves are given by the programmes its own gene belongs to.
MEMBERSHIP_SHARE = 0.3
# A factor of e^3 = 20 is as good as off, and keeps a rare draw from taking the whole library.
MAX_LOG_FOLD_CHANGE = 3.0

# Own-gene expression left: median 5 %; 11 of the 300 real targets keep more than 40 %.
RESIDUAL_MEDIAN = 0.05
RESIDUAL_LOG_SD = 0.5
POOR_KNOCKDOWN_SHARE = 0.04
POOR_RESIDUAL = (0.4, 0.9)
# Cells per target, quartiles 590 / 1,045 / 1,742 in the real screen.
GROUP_LOG_SD = 0.8
MIN_CELLS = 12
# Share of the first context's targets that each other context has measured. Assumed.
COVERAGE = 0.9
CELLS_PER_BLOCK = 512


class _Biology(NamedTuple):
    """What all contexts share."""

    genes: np.ndarray  # (n_genes,), object, names
    log_basal: np.ndarray  # (n_genes,), float64, log of the mean count in the first context
    targets: np.ndarray  # (n_targets,), int, which gene each target is
    programmes: np.ndarray  # (N_PROGRAMMES, n_genes), float64, rows of norm 1
    common: np.ndarray  # (n_genes,), float64, the response all knock-downs share
    common_gain: np.ndarray  # (n_targets,), float64, about 1: how much of it a target shows
    scores: np.ndarray  # (n_targets, N_PROGRAMMES), float64, what a target does in any context
    log_size: np.ndarray  # (n_targets,), float64, 0 for a target of median effect


def make_h1_like(
    *,
    seed: int = 0,
    n_genes: int = 1500,
    n_targets: tuple[int, int, int] = (150, 50, 100),
    contexts: Sequence[str] = ("H1", "K562", "RPE1", "HepG2"),
    cells_per_target: int = 30,
    n_controls: int = 1000,
    n_batches: int = 6,
    effect_scale: float = 2.0,
    progress: bool = False,
) -> World:
    """Draw a simulated world that resembles the H1 screen in its figures, not in its genes.

    Parameters
    ----------
    seed
        Seed of the one generator that draws everything. The same seed and the same NumPy give
        the same world, bit for bit.
    n_genes
        Number of genes. Depth and effect sizes scale with it, so that counts per gene and
        effect per gene stay those of the real 18,080 genes.
    n_targets
        Number of train, validation and test targets.
    contexts
        Names of the cell contexts. The first has every target; each other one lacks one target
        in ten, a different one each time. The names are labels: nothing is taken from the cell
        lines called so.
    cells_per_target
        Median number of cells a target, at least 12. The numbers are log-normal, cut at 12.
    n_controls
        Number of non-targeting cells in each context.
    n_batches
        Number of batches. They differ in depth only.
    effect_scale
        Factor on the size of every effect. 1 gives the sizes measured in H1. The default of 2
        makes up for a part of the cells that a small world lacks: with 30 cells a target, where
        H1 has 1,045, effects of their real size drown in sampling noise.
    progress
        Show a progress bar, one step a context.

    Returns
    -------
    World
        Its contexts, split and noise-free effects.

    Raises
    ------
    ValueError
        If a size is not a whole number or too small, if there are more targets than genes, if
        a context is named twice or none is named, or if the scale is not a positive number.

    Notes
    -----
    With ``effect_scale=1`` and 400 cells a target, the first context's mean baseline has an MAE
    of about .03 and 4 % of the genes are differentially expressed in the median target, as in
    H1; with the default 30 cells sampling noise more than doubles that MAE.

    Cells are in random order, as in the real files: rows of one target do not stand together.
    The first context is the same whatever other contexts are asked for.

    Taught in: notebooks/02_from_counts_to_effects.

    Examples
    --------
    >>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1",), n_controls=50)
    >>> world.truth["H1"].shape
    (9, 60)
    >>> bool(world.contexts["H1"].uns["simulated"])
    True
    """
    names = _check_contexts(contexts)
    n_train, n_validation, n_test = _check_targets(n_targets, n_genes)
    _check_whole("seed", seed, at_least=0)
    _check_whole("cells_per_target", cells_per_target, at_least=MIN_CELLS)
    _check_whole("n_controls", n_controls, at_least=MIN_CELLS)
    _check_whole("n_batches", n_batches, at_least=1)
    _check_scale(effect_scale)

    rng = np.random.default_rng(seed)
    biology = _draw_biology(n_genes, n_train + n_validation + n_test, rng)
    coverage = np.full(len(names), COVERAGE)
    coverage[0] = 1.0
    cells, truth = {}, {}
    for name, share in zip(tqdm(names, disable=not progress), coverage, strict=True):
        log_basal = biology.log_basal
        if cells:
            log_basal = log_basal + rng.normal(0, CONTEXT_LOG_SD, n_genes)
        n_cells = _draw_group_sizes(biology.targets.size, cells_per_target, share, rng)
        changes, residual = _draw_log_fold_changes(biology, log_basal, effect_scale, rng)
        fractions = _fractions(log_basal, changes)
        group_sizes = np.append(n_cells, n_controls)
        cells[name] = _draw_cells(name, fractions, group_sizes, n_batches, biology, rng)
        truth[name] = _as_truth(_noise_free_effects(fractions), n_cells, residual, biology)
        _label_as_simulated(cells[name], truth[name], seed=seed, context=name)
    split = _split(biology.genes[biology.targets], (n_train, n_validation, n_test))
    return World(contexts=cells, split=split, truth=truth, seed=int(seed))


def _check_whole(name: str, value: int, *, at_least: int) -> None:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")


def _check_scale(effect_scale: float) -> None:
    is_number = isinstance(effect_scale, numbers.Real) and not isinstance(effect_scale, bool)
    if not is_number or not 0 < effect_scale < np.inf:
        raise ValueError(f"effect_scale must be a positive number, got {effect_scale!r}")


def _check_targets(n_targets: tuple[int, int, int], n_genes: int) -> tuple[int, int, int]:
    _check_whole("n_genes", n_genes, at_least=1)
    if not isinstance(n_targets, Sequence) or len(n_targets) != len(SPLIT_NAMES):
        raise ValueError(
            "n_targets must be three numbers (train, validation, test), such as (150, 50, 100); "
            f"got {n_targets!r}"
        )
    for part, number in zip(SPLIT_NAMES, n_targets, strict=True):
        _check_whole(f"the {part} part of n_targets", number, at_least=1)
    if sum(n_targets) > n_genes:
        raise ValueError(
            f"n_targets {tuple(n_targets)} make {sum(n_targets)} targets, but n_genes is "
            f"{n_genes} and each target is one of the genes; ask for fewer targets or more genes"
        )
    return tuple(n_targets)


def _check_contexts(contexts: Sequence[str]) -> list[str]:
    if isinstance(contexts, str) or not isinstance(contexts, Sequence) or not contexts:
        raise ValueError(f'contexts must be a list of names, such as ["H1"]; got {contexts!r}')
    for name in contexts:
        if not isinstance(name, str) or not name:
            raise ValueError(f"each context must be named by a non-empty string, got {name!r}")
    repeated = sorted({name for name in contexts if list(contexts).count(name) > 1})
    if repeated:
        raise ValueError(f"each context can be named only once, but {repeated} are repeated")
    return list(contexts)


def _label_as_simulated(*parts: AnnData, seed: int, context: str) -> None:
    note = f"SIMULATED by make_h1_like(seed={seed}, ...), context {context}; not real cells"
    for part in parts:
        part.uns.update(simulated=True, context=context, note=note)


def _gene_names(n_genes: int) -> np.ndarray:
    """Name the genes SIM0001, SIM0002, ...: with these zeros no gene symbol looks like it."""
    width = max(4, len(str(n_genes)))
    return np.array([f"SIM{number:0{width}d}" for number in range(1, n_genes + 1)], dtype=object)


def _unit_rows(matrix: np.ndarray) -> np.ndarray:
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def _draw_scores(n_targets: int, rng: np.random.Generator) -> np.ndarray:
    """Draw scores on programmes of which a few are large: Laplace values squared, sign kept."""
    values = rng.laplace(size=(n_targets, N_PROGRAMMES))
    return _unit_rows(values * np.abs(values))


def _draw_biology(n_genes: int, n_targets: int, rng: np.random.Generator) -> _Biology:
    """Draw all that does not depend on the context: expression, targets, programmes."""
    # Evenly spaced shares in random order: the distribution is the same for every seed.
    shares = (rng.permutation(n_genes) + 0.5) / n_genes
    log_basal = np.interp(shares, BASAL_SHARE, np.log(BASAL_COUNTS))
    # A gene that is off cannot be knocked down: targets come from the higher half.
    expressed = np.argsort(-log_basal, kind="stable")[: max(n_targets, n_genes // 2)]
    targets = rng.choice(expressed, n_targets, replace=False)
    programmes = _unit_rows(rng.laplace(size=(N_PROGRAMMES, n_genes)))
    membership = _unit_rows(programmes[:, targets].T)
    other = _draw_scores(n_targets, rng)
    return _Biology(
        genes=_gene_names(n_genes),
        log_basal=log_basal,
        targets=targets,
        programmes=programmes,
        common=rng.laplace(size=n_genes),
        common_gain=rng.normal(1, 1, n_targets),
        scores=np.sqrt(MEMBERSHIP_SHARE) * membership + np.sqrt(1 - MEMBERSHIP_SHARE) * other,
        log_size=rng.normal(0, TARGET_SIZE_LOG_SD, n_targets),
    )


def _draw_group_sizes(
    n_targets: int, median: int, coverage: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw the number of cells of each target, (n_targets,), int; 0 where not covered."""
    sizes = np.rint(median * np.exp(rng.normal(0, GROUP_LOG_SD, n_targets))).astype(int)
    sizes = np.maximum(sizes, MIN_CELLS)
    n_missing = n_targets - round(coverage * n_targets)
    sizes[rng.choice(n_targets, n_missing, replace=False)] = 0
    return sizes


def _draw_log_fold_changes(
    biology: _Biology, log_basal: np.ndarray, effect_scale: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw what each knock-down does in one context.

    Parameters
    ----------
    biology
        What all contexts share.
    log_basal
        (n_genes,), float64, log of the mean count in this context.
    effect_scale
        Factor on every change but a target's own.
    rng
        The generator to draw from.

    Returns
    -------
    changes : numpy.ndarray
        (n_targets, n_genes), float64, natural-log fold change of the mean count.
    residual : numpy.ndarray
        (n_targets,), float64, own-gene expression left, 0 to 1.

    Notes
    -----
    A change is the sum of four parts: the response common to all knock-downs, the target's
    programmes shared by all contexts, its programmes in this context alone, and a part of its
    own. Each is scaled to its share of the squared norm in lognorm space, where a log fold
    change shows with the slope of log(1 + m) at the gene's mean count m, which is m / (1 + m).
    """
    n_targets = biology.targets.size
    slope = 1 / (1 + np.exp(-log_basal))
    shared = biology.scores @ biology.programmes
    rewired = _draw_scores(n_targets, rng) @ biology.programmes
    own = rng.laplace(size=(n_targets, log_basal.size))
    changes = np.outer(
        np.sqrt(COMMON_SHARE) * biology.common_gain,
        biology.common / np.linalg.norm(biology.common * slope),
    )
    for share, part in ((SHARED_SHARE, shared), (REWIRED_SHARE, rewired), (OWN_SHARE, own)):
        changes += np.sqrt(share) * part / np.linalg.norm(part * slope, axis=1, keepdims=True)
    log_size = biology.log_size + rng.normal(0, CONTEXT_SIZE_LOG_SD, n_targets)
    norm = effect_scale * EFFECT_NORM * np.sqrt(log_basal.size / EFFECT_GENES) * np.exp(log_size)
    changes = np.clip(changes * norm[:, None], -MAX_LOG_FOLD_CHANGE, MAX_LOG_FOLD_CHANGE)
    residual = _draw_residual(n_targets, rng)
    changes[np.arange(n_targets), biology.targets] = np.log(residual)
    return changes, residual


def _draw_residual(n_targets: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the share of own-gene expression left, (n_targets,): about 5 %, a few poor ones."""
    residual = RESIDUAL_MEDIAN * np.exp(rng.normal(0, RESIDUAL_LOG_SD, n_targets))
    poor = rng.random(n_targets) < POOR_KNOCKDOWN_SHARE
    return np.where(poor, rng.uniform(*POOR_RESIDUAL, n_targets), residual)


def _fractions(log_basal: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """Share of each gene in a cell's counts, (n_targets + 1, n_genes); the last row is control.

    Rows sum to 1: a cell that makes more of one gene has fewer counts left for the others.
    """
    control = np.zeros_like(changes[:1])
    expression = np.exp(log_basal + np.concatenate([changes, control]))
    return expression / expression.sum(axis=1, keepdims=True)


def _draw_depth(
    n_cells: int, n_batches: int, n_genes: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw each cell's batch, int from 0, and depth, the expected number of its counts."""
    batch = rng.integers(n_batches, size=n_cells)
    batch_shift = rng.normal(0, BATCH_LOG_SD, n_batches)
    log_depth = batch_shift[batch] + rng.normal(0, DEPTH_LOG_SD, n_cells)
    return batch, DEPTH_PER_GENE * n_genes * np.exp(log_depth)


def _draw_counts(
    fractions: np.ndarray, group: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> sparse.csr_matrix:
    """Draw negative binomial counts, (n_cells, n_genes), CSR, float32, a block at a time.

    A Poisson draw whose mean is multiplied by a gamma variable of mean 1 and variance
    ``DISPERSION`` is negative binomial, with variance ``mean + DISPERSION * mean ** 2``.
    """
    blocks = []
    for start in range(0, group.size, CELLS_PER_BLOCK):
        rows = slice(start, start + CELLS_PER_BLOCK)
        mean = depth[rows, None] * fractions[group[rows]]
        mean *= DISPERSION * rng.standard_gamma(1 / DISPERSION, mean.shape, dtype=np.float32)
        blocks.append(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)))
    return sparse.vstack(blocks, format="csr")


def _draw_cells(
    context: str,
    fractions: np.ndarray,
    group_sizes: np.ndarray,
    n_batches: int,
    biology: _Biology,
    rng: np.random.Generator,
) -> AnnData:
    """Draw the cells of one context, in random order, with the columns of the real files."""
    labels = np.append(biology.genes[biology.targets], CONTROL)
    group = rng.permutation(np.repeat(np.arange(labels.size), group_sizes))
    batch, depth = _draw_depth(group.size, n_batches, biology.genes.size, rng)
    counts = _draw_counts(fractions, group, depth, rng)
    batch_names = [f"sim_{number:02d}" for number in range(1, n_batches + 1)]
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical(labels[group]),
            "batch": pd.Categorical.from_codes(batch, categories=batch_names),
        },
        index=[f"{context}_{number:06d}" for number in range(1, group.size + 1)],
    )
    return AnnData(counts, obs=obs, var=_gene_table(biology))


def _noise_free_effects(fractions: np.ndarray) -> np.ndarray:
    """Effects that infinitely many cells would show, (n_targets, n_genes), float64, lognorm."""
    smallest = np.log(fractions.min())
    # Expected lognorm depends on a gene's fraction alone, and smoothly: a table will do.
    log_grid = np.linspace(smallest, np.log(fractions.max()), 1000)
    table = _expected_lognorm(np.exp(log_grid) * DEPTH_PER_GENE * fractions.shape[1])
    means = np.interp(np.log(fractions), log_grid, table)
    return means[:-1] - means[-1]


def _expected_lognorm(mean_counts: np.ndarray) -> np.ndarray:
    r"""Mean of log(1 + count / s) over cells, s being a cell's depth in units of the median.

    Parameters
    ----------
    mean_counts
        (n,), float64, mean counts of a gene in a cell of median depth.

    Returns
    -------
    numpy.ndarray
        (n,), float64, lognorm.

    Notes
    -----
    For x >= 0, :math:`\log(1 + x) = \int_0^\infty (1 - e^{-tx}) e^{-t} / t \, dt`, so the mean
    of the logarithm needs only the mean of :math:`e^{-tx}`. For a negative binomial count of
    mean m and dispersion d that is :math:`(1 + d m (1 - e^{-t}))^{-1/d}`. The integral runs over
    log t by the trapezoidal rule, depth over the nodes of Gauss and Hermite.
    """
    log_t, step = np.linspace(-25, 5, 301, retstep=True)
    t = np.exp(log_t)[:, None]
    nodes, weights = np.polynomial.hermite_e.hermegauss(7)
    total = np.zeros(mean_counts.size)
    spread = np.hypot(DEPTH_LOG_SD, BATCH_LOG_SD)
    for depth, weight in zip(np.exp(spread * nodes), weights / weights.sum(), strict=True):
        chance = DISPERSION * depth * mean_counts * -np.expm1(-t / depth)
        missing = -np.expm1(-np.log1p(chance) / DISPERSION)
        total += weight * step * (missing * np.exp(-t)).sum(axis=0)
    return total


def _as_truth(
    effects: np.ndarray, n_cells: np.ndarray, residual: np.ndarray, biology: _Biology
) -> AnnData:
    """Wrap the effects of the covered targets as an AnnData, rows sorted by name."""
    names = biology.genes[biology.targets]
    rows = np.argsort(names, kind="stable")
    rows = rows[n_cells[rows] > 0]
    obs = pd.DataFrame(
        {"n_cells": n_cells[rows], "residual": residual[rows]},
        index=pd.Index(names[rows], name="target_gene"),
    )
    return AnnData(effects[rows].astype(np.float32), obs=obs, var=_gene_table(biology))


def _gene_table(biology: _Biology) -> pd.DataFrame:
    is_target = np.isin(np.arange(biology.genes.size), biology.targets)
    return pd.DataFrame({"is_target": is_target}, index=biology.genes)


def _split(names: np.ndarray, n_targets: tuple[int, int, int]) -> dict[str, list[str]]:
    """Cut the targets, which are in random order, into the three parts."""
    parts = np.split(names, np.cumsum(n_targets)[:-1])
    return {key: sorted(part.tolist()) for key, part in zip(SPLIT_NAMES, parts, strict=True)}
