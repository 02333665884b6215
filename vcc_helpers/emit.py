"""From predicted means back to cells: the challenge scores cells, models predict means.

Three ways to make them share their words. `pred` is a predicted pseudobulk, ``(n_groups,
n_genes)``, mean lognorm; `controls` are control cells of the same genes, ``(n_controls, n_genes)``,
which are appended; `n_cells` is how many cells to make for each target, one number or a number for
each. `target_sum` is the total that `pred`'s own scale puts every cell to: the median library size
of the cells its model learnt from. By default it is the controls' median, right only where the two
agree, and not used where the controls are lognorm. `perturbation_key` is the column of ``obs`` to
name the perturbation in, `control` the label of control cells, `seed` that of the draw. The targets
come in `pred`'s order, then the controls: ``(sum of n_cells + n_controls, n_genes)``, sparse where
the controls are. A ValueError says that the genes differ, that `controls` holds other cells or that
a number of cells is below 1; a KeyError, that a target has no number of cells. All cells are held
in memory; ``submission.write`` writes the same ones to a file, a few at a time.

Taught in: notebooks/06_check_and_pack and notebooks/18_from_means_to_cells.
Needs: bulk.py, counts.py.

>>> genes = pd.DataFrame(index=["SOX2", "NANOG"])
>>> controls = anndata.AnnData(np.array([[3.0, 1.0], [2.0, 2.0]]), var=genes)
>>> pred = anndata.AnnData(np.array([[0.1, 1.0]]), pd.DataFrame(index=["SOX2"]), genes)
>>> replicate(pred, controls=controls, n_cells=3).shape
(5, 2)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import wraps

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.interpolate import RectBivariateSpline
from scipy.optimize import brentq

from .bulk import CONTROL, PERTURBATION_KEY, control_row, some_of
from .counts import lognorm, rows_of, scale_of, stack

#: Dispersions outside this range are moved to its ends.
_DISPERSION_RANGE = (1e-4, 10.0)
#: Drawn values held at a time, before they are packed.
_BLOCK_VALUES = 2**22


def _emitter(make: Callable) -> Callable:
    """Let a function that yields cells return them all; its ``blocks`` is what it was.

    That returns the labels of all cells, and an iterator over their values, some at a time.
    """

    @wraps(make)
    def emitter(pred: anndata.AnnData, **asked) -> anndata.AnnData:
        obs, blocks = make(pred, **asked)
        return anndata.AnnData(stack([*blocks]), obs=obs, var=pred.var.copy())

    emitter.blocks = make
    return emitter


@_emitter
def replicate(
    pred: anndata.AnnData,
    *,
    controls: anndata.AnnData,
    n_cells: int | Mapping[str, int] | pd.Series,
    target_sum: float | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Repeat each predicted mean as so many identical cells.

    Returned is lognorm, in the precision of the controls, which may be counts or lognorm; a control
    row of `pred` is ignored. The means are exact, and no cell differs from another: the rank-sum
    test then calls far more genes than in real cells, since a mean rarely is the controls' median.
    """
    sizes, obs = _asked(pred, controls, n_cells, perturbation_key, control)

    def draw(mean: np.ndarray, size: int) -> Iterator[np.ndarray]:
        yield np.tile(mean, (size, 1))

    return obs, _drawn(pred, sizes, draw, [lognorm(controls, target_sum=target_sum)])


@_emitter
def resample_and_shift(
    pred: anndata.AnnData,
    *,
    controls: anndata.AnnData,
    n_cells: int | Mapping[str, int] | pd.Series,
    target_sum: float | None = None,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Draw real control cells, with replacement, and add the predicted effect to each.

    As :func:`replicate`, but `pred` needs a control row, else it is a KeyError. The cells vary as
    control cells do, so the rank-sum test behaves more as it does on real ones. What the shift
    pushes below 0 is set to 0, so the mean of a gene that goes down, and is 0 in many cells, falls
    less than predicted. Up-shifted zeros are all equal.
    """
    rng = np.random.default_rng(seed)
    base = control_row(pred, control)
    sizes, obs = _asked(pred, controls, n_cells, perturbation_key, control)
    tail = lognorm(controls, target_sum=target_sum)

    def draw(mean: np.ndarray, size: int) -> Iterator[np.ndarray]:
        rows = tail[rng.integers(controls.n_obs, size=size)]
        rows = rows.toarray() if sparse.issparse(rows) else rows
        yield np.maximum(rows + (mean - base), 0)

    return obs, _drawn(pred, sizes, draw, [tail])


@_emitter
def negative_binomial(
    pred: anndata.AnnData,
    *,
    controls: anndata.AnnData,
    n_cells: int | Mapping[str, int] | pd.Series,
    dispersion: float | np.ndarray | pd.Series | None = None,
    target_sum: float | None = None,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    r"""Draw counts whose mean log-normalised expression is the predicted one.

    .. math:: x_{cg} \sim \mathrm{NB}(\mu_{cg}, \phi_g), \qquad
              \mu_{cg} = \frac{L_c}{s} r_g, \qquad
              \mathrm{Var}\, x_{cg} = \mu_{cg} + \phi_g \mu_{cg}^2

    The library sizes :math:`L_c` are drawn from those of the controls, raw counts, else it is a
    ValueError. The mean of a logarithm is below the logarithm of the mean, so ``expm1`` of the
    prediction is too low a rate: r solves mean lognorm value = prediction, gene by gene.

    The rates must add up to s: else the total that a cell gets, by which it is normalised, moves
    all its genes together. They do so for one factor on the controls' dispersions, from 1/4 to 4,
    which is looked for; it is large where a mean profile can only come from cells that differ. A
    given `dispersion` is taken as it is: of each gene, ``(n_genes,)``, or one number for all, not
    negative; 0 draws Poisson counts. Genes are drawn independently of each other: real cells differ
    in states, which move many genes at once, and these do not.
    """
    rng = np.random.default_rng(seed)
    sizes, obs = _asked(pred, controls, n_cells, perturbation_key, control)
    library = _library_sizes(controls)
    given = _nb_dispersion(controls) if dispersion is None else dispersion
    filled = library[library > 0]
    scale = float(np.median(filled)) if target_sum is None else float(target_sum)
    solver = _RateSolver(_usable_dispersion(given, pred.n_vars), filled / scale, scale)

    def draw(mean: np.ndarray, size: int) -> Iterator[np.ndarray]:
        phi = solver.stretched(mean) if dispersion is None else solver.phi
        rate, depth = solver.rates(mean, phi), rng.choice(filled, size) / scale
        step = _rows_of_block(pred)
        for start in range(0, size, step):
            mu = depth[start : start + step, None] * rate
            # a Poisson count around a gamma rate: a third quicker than rng.negative_binomial
            yield rng.poisson(rng.standard_gamma(1 / phi, mu.shape) * (phi * mu))

    return obs, _drawn(pred, sizes, draw, map(rows_of, _parts(controls)))


def _nb_dispersion(cells: anndata.AnnData) -> pd.Series:
    r"""Estimate how much more than chance each gene's counts vary between cells of equal depth.

    The method of moments given depth, with the expected count :math:`\mu_{cg} = L_c\, p_g` and
    the gene's share :math:`p_g` of all counts:

    .. math:: \phi_g = \frac{\frac{n}{n-1} \sum_c (x_{cg} - \mu_{cg})^2 - \sum_c x_{cg}
              + k \phi_0}{\sum_c \mu_{cg}^2 + k}

    A gene with few counts says little, and takes the median :math:`\phi_0` of genes with
    :math:`\sum_c \mu_{cg}^2 > k = 10`.
    """
    library, n, k = _library_sizes(cells), cells.n_obs, 10.0
    if n < 2:
        raise ValueError("a dispersion needs two cells at least, got 1")
    total, square, by_depth = np.zeros((3, cells.n_vars))
    step, depths = _rows_of_block(cells), iter(library)
    for values in map(rows_of, _parts(cells)):
        for start in range(0, values.shape[0], step):
            block = sparse.csr_matrix(values[start : start + step], dtype=np.float64)
            total += np.asarray(block.sum(axis=0)).ravel()
            square += np.asarray(block.multiply(block).sum(axis=0)).ravel()
            by_depth += block.T @ np.fromiter(depths, float, block.shape[0])
    share = total / library.sum()
    expected2 = share**2 * (library**2).sum()
    residual2 = square - 2 * share * by_depth + expected2
    excess = n / (n - 1) * residual2 - total
    sure = expected2 > k
    usual = np.median(excess[sure] / expected2[sure]) if sure.any() else _DISPERSION_RANGE[0]
    phi = (excess + k * max(usual, 0)) / (expected2 + k)
    return pd.Series(np.clip(phi, *_DISPERSION_RANGE), index=cells.var_names, name="dispersion")


def _mean_lognorm(rate: np.ndarray, dispersion: np.ndarray, depth: np.ndarray) -> np.ndarray:
    r"""Return the mean of ``log1p(x / depth)`` of negative binomial counts, over all depths.

    `rate` is the mean count of a cell of depth 1. Writing the logarithm as an integral, summed over
    equal steps of log t, leaves the known Laplace transform of the counts inside:

    .. math:: \log(1 + y) = \int_0^\infty \frac{1 - e^{-ty}}{t} e^{-t} dt, \qquad
              \mathrm{E}\, e^{-tx/d} = \bigl(1 + \phi\, r d\, (1 - e^{-t/d})\bigr)^{-1/\phi}
    """
    rate, phi = np.broadcast_arrays(np.asarray(rate, float), np.asarray(dispersion, float))
    u = np.linspace(-32, 4, 145)
    t, total = np.exp(u), np.zeros(rate.shape)
    for d in depth:
        seen = (rate * d)[..., None] * -np.expm1(-t / d)
        nonzero = -np.expm1(-np.log1p(phi[..., None] * seen) / phi[..., None])
        total += nonzero @ np.exp(-t) * (u[1] - u[0])
    return total / len(depth)


class _RateSolver:
    """The inverse of :func:`_mean_lognorm`: Newton's method on a smooth table of it."""

    def __init__(self, phi: np.ndarray, depth: np.ndarray, scale: float):
        self.depth = np.quantile(depth, (np.arange(16) + 0.5) / 16)
        lowest, highest = np.clip([phi.min() / 4, phi.max() * 4], *_DISPERSION_RANGE)
        phis = np.log(np.geomspace(lowest / 1.01, highest * 1.01, 24))
        # no gene can have more than all of a cell's counts
        rates = np.log(np.geomspace(1e-7, scale, 80))
        means = np.log(_mean_lognorm(np.exp(rates), np.exp(phis)[:, None], self.depth))
        self.log_mean = RectBivariateSpline(phis, rates, means)
        wanted = np.linspace(means.min(), means.max(), 160)
        start = np.array([np.interp(wanted, row, rates) for row in means])
        self.log_rate = RectBivariateSpline(phis, wanted, start, kx=1, ky=1)
        self.phi, self.scale, self.ends = phi, scale, rates[[0, -1]]

    def rates(self, mean: np.ndarray, phi: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            wanted, phi = np.log(np.maximum(mean, 0, dtype=np.float64)), np.log(phi)
        seen = np.maximum(wanted, self.log_mean.ev(phi, self.ends[0]))  # of the least rate, or more
        found = self.log_rate.ev(phi, seen)
        for _ in range(2):
            gap = self.log_mean.ev(phi, found) - seen
            found = np.clip(found - gap / self.log_mean.ev(phi, found, dy=1), *self.ends)
        return np.where(wanted > seen - 1e-12, np.exp(found), 0.0)

    def stretched(self, mean: np.ndarray) -> np.ndarray:
        """Return the dispersions, times the factor that makes the rates add up."""

        def excess(log_factor: float) -> float:
            phi = np.clip(self.phi * np.exp(log_factor), *_DISPERSION_RANGE)
            return self.rates(mean, phi).sum() / self.scale - 1

        ends = -np.log(4), np.log(4)
        low, high = (excess(end) for end in ends)
        found = ends[0] if low > 0 else ends[1]
        if low * high < 0:
            found = brentq(excess, *ends, xtol=0.01)
        return np.clip(self.phi * np.exp(found), *_DISPERSION_RANGE)


def _parts(cells: anndata.AnnData) -> Iterator[anndata.AnnData]:
    """Yield all cells; of a file, where rows can be read, views of some at a time."""
    if not cells.isbacked or cells.is_view or getattr(cells.X, "format", "csr") != "csr":
        yield cells
        return
    step = _rows_of_block(cells)
    for start in range(0, max(cells.n_obs, 1), step):
        yield cells[start : start + step]


def _rows_of_block(cells: anndata.AnnData) -> int:
    return max(1, _BLOCK_VALUES // cells.n_vars)


def _library_sizes(cells: anndata.AnnData) -> np.ndarray:
    found = [scale_of(part, name="controls") for part in _parts(cells)]
    library = np.concatenate([part.library_size for part in found])
    if any(part.scale != "counts" for part in found):
        raise ValueError(
            "controls hold log-normalised or other fractional values; counts are drawn from "
            "counts: give the control cells as they were read"
        )
    if not library.any():
        raise ValueError("all control cells are empty; expected some with counts")
    return library


def _usable_dispersion(phi: float | np.ndarray | pd.Series, n_genes: int) -> np.ndarray:
    values = np.asarray(phi, dtype=np.float64)
    if values.shape not in ((), (n_genes,)) or not (values >= 0).all():
        raise ValueError(
            f"dispersion must be one number, or one for each of {n_genes} genes, and not negative; "
            f"got shape {values.shape} and a least value of {values.min() if values.size else None}"
        )
    return np.clip(np.broadcast_to(values, n_genes), *_DISPERSION_RANGE)


def _asked(pred, controls, n_cells, key: str, control: str) -> tuple[pd.Series, pd.DataFrame]:
    """Check the numbers of cells; return them by target, and the labels of all cells to be made."""
    if not np.array_equal(pred.var_names, controls.var_names):
        raise ValueError(
            f"pred and controls must have the same genes in the same order; they have "
            f"{pred.n_vars} and {controls.n_vars}; select them with controls[:, pred.var_names]"
        )
    if key in controls.obs:
        labels = controls.obs[key].astype(str)
        if len(others := labels[labels != control]):
            raise ValueError(
                f"controls must hold control cells only; {len(others)} of "
                f"{len(labels)} are {some_of(others.unique())}; select them "
                f"with cells[cells.obs[{key!r}] == {control!r}]"
            )
    targets = pred.obs_names[pred.obs_names != control]
    given = pd.Series(int(n_cells), targets) if np.isscalar(n_cells) else pd.Series(n_cells)
    if len(missing := targets.difference(given.index)):
        raise KeyError(f"n_cells has no number of cells for {some_of(missing)}")
    sizes = given[targets].astype(int)
    if (sizes < 1).any():
        raise ValueError(f"n_cells must be 1 or more; {some_of(sizes.index[sizes < 1])} have less")
    labels = pd.Categorical([*np.repeat(targets, sizes), *([control] * controls.n_obs)])
    names = [f"pred_{i}" for i in range(sizes.sum())] + [f"control_{n}" for n in controls.obs_names]
    return sizes, pd.DataFrame({key: labels}, index=names)


def _drawn(pred, sizes: pd.Series, draw: Callable, tail: Iterable) -> Iterator:
    """Yield each target's cells, some at a time, and the controls; all in these ones' layout."""
    tail = iter(tail)
    first = next(tail)
    pack = sparse.csr_matrix if sparse.issparse(first) else np.asarray
    for name, size in sizes.items():
        for values in draw(pred.X[pred.obs_names.get_loc(name)], size):
            yield pack(values, dtype=first.dtype)
    yield first
    yield from tail
