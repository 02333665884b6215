"""From predicted means back to cells: the challenge scores cells, models predict means.

Taught in: notebooks/09_first_submission.
Needs: cells.py, effects.py.

>>> import vcc_helpers as vcc
>>> cells = vcc.datasets.load_h1_sample()
>>> controls = cells[cells.obs["target_gene"] == "non-targeting"]
>>> replicate(vcc.pseudobulk(cells), controls=controls, n_cells=3).shape
(115, 1000)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from .cells import CONTROL, PERTURBATION_KEY, some_of
from .effects import control_row, lognorm


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

    Parameters
    ----------
    pred
        Predicted pseudobulk, ``(n_groups, n_genes)``, mean lognorm; a control row is ignored.
    controls
        Control cells, counts or lognorm, ``(n_controls, n_genes)``, appended log-normalised.
    n_cells
        Cells to make for each target: one number, or a number for each target.
    target_sum
        The total that control counts are scaled to: that of `pred`'s own scale, which is the
        median library size of the cells its model learnt from. By default the controls' median,
        right only where the two agree. Not used where the controls are lognorm.
    perturbation_key
        The column of ``obs`` to name the perturbation in.
    control
        Label of control cells.

    Returns
    -------
    AnnData
        Shape ``(sum of n_cells + n_controls, n_genes)``, lognorm, in the precision of
        :func:`lognorm` of the controls, sparse where `controls` is. Targets in `pred`'s order,
        then the controls.

    Raises
    ------
    ValueError
        The genes of `controls` differ from `pred`'s, `controls` holds other cells than controls,
        or a number of cells is below 1.
    KeyError
        A target has no number of cells.

    Notes
    -----
    The means are exact, and no cell differs from another: the rank-sum test then calls far more
    genes significant than real cells give, since a mean rarely is the controls' median.

    Taught in: notebooks/09_first_submission.
    """

    def repeat(mean: np.ndarray, size: int, _) -> np.ndarray:
        return np.tile(mean, (size, 1))

    return _emit(pred, controls, n_cells, target_sum, perturbation_key, control, repeat)


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
    """Draw real control cells and add the predicted effect to each.

    Parameters
    ----------
    pred
        Predicted pseudobulk, ``(n_groups, n_genes)``, mean lognorm, with a control row.
    controls
        Control cells, counts or lognorm, ``(n_controls, n_genes)``, drawn from with replacement
        and appended log-normalised.
    n_cells
        Cells to make for each target: one number, or a number for each target.
    target_sum
        The total that control counts are scaled to: that of `pred`'s own scale, which is the
        median library size of the cells its model learnt from. By default the controls' median,
        right only where the two agree. Not used where the controls are lognorm.
    seed
        Seed of the draw.
    perturbation_key
        The column of ``obs`` to name the perturbation in.
    control
        Label of control cells.

    Returns
    -------
    AnnData
        As for :func:`replicate`.

    Raises
    ------
    ValueError
        The genes of `controls` differ from `pred`'s, `controls` holds other cells than controls,
        or a number of cells is below 1.
    KeyError
        A target has no number of cells, or `pred` has no control row.

    Notes
    -----
    The cells vary as control cells do, so the rank-sum test behaves more as it does on real
    ones. Values cannot be negative: what the shift pushes below 0 is set to 0, so the mean of
    a gene that goes down, and is 0 in many cells, falls less than predicted. Up-shifted zeros
    are all equal.

    Taught in: notebooks/09_first_submission.
    """
    rng = np.random.default_rng(seed)
    base = control_row(pred, control)

    def draw(mean: np.ndarray, size: int, cells: sparse.csr_matrix | np.ndarray) -> np.ndarray:
        rows = cells[rng.integers(controls.n_obs, size=size)]
        rows = rows.toarray() if sparse.issparse(rows) else rows
        return np.maximum(rows + (mean - base), 0)

    return _emit(pred, controls, n_cells, target_sum, perturbation_key, control, draw)


def _emit(
    pred: anndata.AnnData,
    controls: anndata.AnnData,
    n_cells: int | Mapping[str, int] | pd.Series,
    target_sum: float | None,
    perturbation_key: str,
    control: str,
    make: Callable[[np.ndarray, int, sparse.csr_matrix | np.ndarray], np.ndarray],
) -> anndata.AnnData:
    if not np.array_equal(pred.var_names, controls.var_names):
        raise ValueError(
            f"pred and controls must have the same genes in the same order; they have "
            f"{pred.n_vars} and {controls.n_vars}; select them with controls[:, pred.var_names]"
        )
    if perturbation_key in controls.obs:
        labels = controls.obs[perturbation_key].astype(str)
        if (labels != control).any():
            raise ValueError(
                f"controls must hold control cells only; {(labels != control).sum()} of "
                f"{len(labels)} are {some_of(labels[labels != control].unique())}; select them "
                f"with cells[cells.obs[{perturbation_key!r}] == {control!r}]"
            )
    targets = pred.obs_names[pred.obs_names != control]
    sizes = _cell_numbers(targets, n_cells)
    tail = lognorm(controls, target_sum=target_sum)
    pack = sparse.csr_matrix if sparse.issparse(tail) else np.asarray
    made = [
        pack(np.asarray(make(pred.X[pred.obs_names.get_loc(name)], size, tail), dtype=tail.dtype))
        for name, size in sizes.items()
    ]
    stack = [*made, tail]
    matrix = sparse.vstack(stack, format="csr") if sparse.issparse(tail) else np.vstack(stack)
    labels = [*np.repeat(sizes.index, sizes), *([control] * controls.n_obs)]
    names = [f"pred_{i}" for i in range(sizes.sum())] + [f"control_{n}" for n in controls.obs_names]
    obs = pd.DataFrame({perturbation_key: pd.Categorical(labels)}, index=names)
    return anndata.AnnData(matrix, obs=obs, var=pred.var.copy())


def _cell_numbers(targets: pd.Index, n_cells: int | Mapping[str, int] | pd.Series) -> pd.Series:
    if np.isscalar(n_cells):
        sizes = pd.Series(int(n_cells), index=targets)
    else:
        given = pd.Series(n_cells)
        missing = targets.difference(given.index)
        if len(missing):
            raise KeyError(f"n_cells has no number of cells for {some_of(missing)}")
        sizes = given[targets].astype(int)
    if (sizes < 1).any():
        raise ValueError(f"n_cells must be 1 or more; {some_of(sizes.index[sizes < 1])} have less")
    return sizes
