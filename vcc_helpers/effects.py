"""From cells to effects: log-normalise, average over cells, subtract the control.

The pseudobulk (one mean and one variance per perturbation) is what the rest of the package
trades in: models learn from one and predict one, metrics compare two.

Taught in: notebooks/02_from_counts_to_effects.
Needs: cells.py, kernels.py, storage.py.

>>> from vcc_helpers.datasets import load_h1_sample
>>> bulk = pseudobulk(load_h1_sample())
>>> effects(bulk).obs_names.tolist()
['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X']
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from .cells import (
    CONTROL,
    PERTURBATION_KEY,
    ValueSummary,
    inspect_values,
    labels_of,
    open_cells,
    row_blocks,
    some_of,
)

#: Counts below this are looked up in a table.
SMALL_COUNTS = 128
#: Rows whose entries fit the processor's cache.
ROWS_IN_CACHE = 32


def lognorm(cells: anndata.AnnData, *, target_sum: float | None = None):
    r"""Log-normalise counts: scale each cell to the same total, then take log1p.

    Parameters
    ----------
    cells
        Counts, shape ``(n_cells, n_genes)``. Never changed.
    target_sum
        The total that every cell is scaled to, in counts. By default the median of the cells'
        own totals, empty cells left out.

    Returns
    -------
    csr_matrix or ndarray
        Shape ``(n_cells, n_genes)``, float32 (float64 where the counts are), sparse where the
        input is. An empty cell stays empty. Values that are log-normalised already come back
        unchanged.

    Raises
    ------
    ValueError
        Values are NaN, infinite, negative, or of mixed scale.

    Notes
    -----
    .. math:: y_{cg} = \log\left(1 + x_{cg} \frac{s}{\sum_h x_{ch}}\right)

    Equal, bit for bit, to scanpy's ``normalize_total`` followed by ``log1p``; with one exception:
    scanpy 1.11 counts empty cells in the median of a sparse file, though not of a dense one.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    return stack_blocks(list(lognorm_blocks(cells, target_sum=target_sum)))


def stack_blocks(
    blocks: list[tuple[int, sparse.csr_matrix | np.ndarray]],
) -> sparse.csr_matrix | np.ndarray:
    """Put blocks of rows back together.

    Parameters
    ----------
    blocks
        First row and values of each block, as :func:`lognorm_blocks` yields them.

    Returns
    -------
    csr_matrix or ndarray
        Shape ``(n_cells, n_genes)``.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    values = [block for _, block in blocks]
    return sparse.vstack(values, format="csr") if sparse.issparse(values[0]) else np.vstack(values)


def lognorm_blocks(
    cells: anndata.AnnData,
    *,
    target_sum: float | None = None,
    name: str = "cells",
    progress: bool = False,
) -> Iterator[tuple[int, sparse.csr_matrix | np.ndarray]]:
    """Yield :func:`lognorm` of `cells` a block of rows at a time.

    Parameters
    ----------
    cells
        Counts or log-normalised values, shape ``(n_cells, n_genes)``.
    target_sum
        As for :func:`lognorm`; ignored for values that are log-normalised already.
    name
        What error messages call this file.
    progress
        Show a progress bar while the scale is found.

    Yields
    ------
    start : int
        Row of the block's first cell.
    block : csr_matrix or ndarray
        Shape ``(block_rows, n_genes)``, lognorm.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    scaling = Scaling.of(inspect_values(cells, name=name, progress=progress), target_sum)
    for start, block in row_blocks(cells):
        yield start, scaling.apply(block, slice(start, start + block.shape[0]))


class Scaling(NamedTuple):
    """How the cells of a file are log-normalised.

    Attributes
    ----------
    library_size
        Sum of each cell's counts, ``(n_cells,)``, float64; None when the values are lognorm.
    target_sum
        The total that every cell is scaled to, in counts.
    """

    library_size: np.ndarray | None
    target_sum: float = 1.0

    @classmethod
    def of(cls, summary: ValueSummary, target_sum: float | None = None) -> Scaling:
        """Make it from what :func:`~vcc_helpers.cells.inspect_values` found.

        Parameters
        ----------
        summary
            Scale and library sizes.
        target_sum
            As for :func:`lognorm`.
        """
        if summary.scale == "lognorm":
            return cls(None)
        size = summary.library_size
        if target_sum is None:
            target_sum = np.median(size[size > 0]) if (size > 0).any() else 1.0
        return cls(size, float(target_sum))

    def apply(self, block, rows):
        """Log-normalise some cells.

        Parameters
        ----------
        block
            Values as stored, ``(n, n_genes)``, floating.
        rows
            Which cells these are, a slice or numbers.

        Returns
        -------
        csr_matrix or ndarray
            lognorm, in the block's precision; `block` itself if it is lognorm already.
        """
        if self.library_size is None:
            return block
        if sparse.issparse(block):
            values = self.apply_to_entries(block.data, block.indptr, rows, dtype=block.dtype)
            return sparse.csr_matrix((values, block.indices, block.indptr), shape=block.shape)
        return np.log1p(block / self.divisor(rows, block.dtype)[:, None])

    def divisor(self, rows, dtype: np.dtype) -> np.ndarray:
        """Return what the counts of some cells are divided by before the logarithm.

        Parameters
        ----------
        rows
            Which cells, a slice or numbers.
        dtype
            float32 or float64.

        Returns
        -------
        ndarray
            Library size over target sum, ``(n,)``, of `dtype`; 1 for a cell without counts.
        """
        # Each step in the matrix's own precision, so that equal counts of equally deep cells
        # stay exactly equal: the rank-sum test sees ties where scanpy's values have them.
        factor = self.library_size[rows].astype(dtype) / dtype.type(self.target_sum)
        factor[factor == 0] = 1
        return factor

    def apply_to_entries(self, counts, indptr, rows, *, dtype: np.dtype) -> np.ndarray:
        """Log-normalise the entries of some rows of a CSR matrix.

        Small counts are looked up, one table a cell: many times as fast as to compute each anew.

        Parameters
        ----------
        counts, indptr
            The entries, of any type, and where each row begins and ends.
        rows
            Which cells these are, a slice or numbers.
        dtype
            float32 or float64.

        Returns
        -------
        ndarray
            As long as `counts`, of `dtype`.
        """
        from . import kernels  # compiled code; half a second that imports need not pay

        if self.library_size is None:
            return counts.astype(dtype, copy=False)
        factor, values = self.divisor(rows, dtype), np.empty(len(counts), dtype)
        for start in range(0, len(factor), ROWS_IN_CACHE):
            divisor = factor[start : start + ROWS_IN_CACHE, None]
            table = np.log1p(np.arange(SMALL_COUNTS, dtype=dtype) / divisor)
            kernels.look_up(counts, indptr[start : start + len(table) + 1], table, values)
        other = np.flatnonzero(values < 0)
        row = np.searchsorted(indptr, other, side="right") - 1
        values[other] = np.log1p(counts[other].astype(dtype) / factor[row])
        return values


def pseudobulk(
    cells: anndata.AnnData | str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    target_sum: float | None = None,
    progress: bool = False,
    name: str = "cells",
) -> anndata.AnnData:
    r"""Average the log-normalised cells of each perturbation.

    Parameters
    ----------
    cells
        Counts or log-normalised values, shape ``(n_cells, n_genes)``; dense, CSR, CSC, a view,
        backed, or the path of an ``.h5ad``. Read in two passes, a block of rows at a time.
    perturbation_key
        The column of ``cells.obs`` to group by.
    target_sum
        As for :func:`lognorm`.
    progress
        Show a progress bar for each pass.
    name
        What error messages call this file.

    Returns
    -------
    AnnData
        Shape ``(n_groups, n_genes)``, rows sorted by name, the control among them. ``X`` is the
        mean lognorm value, float32 (float64 where the input is); ``layers["variance"]`` the
        unbiased variance between cells, NaN for a group of one cell; ``obs["n_cells"]`` the
        group's size. A label that no cell bears makes no row.

    Raises
    ------
    KeyError
        ``cells.obs`` has no column `perturbation_key`.
    ValueError
        A cell has no label; values are NaN, infinite, negative, or of mixed scale.

    Notes
    -----
    .. math:: \bar y_{pg} = \frac{1}{n_p} \sum_{c \in p} y_{cg}

    Sums are float64. The mean is rounded to the data's precision at the end, as cell-eval
    0.6.6 does.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    cells = open_cells(cells)
    labels = labels_of(cells, perturbation_key)
    blocks = lognorm_blocks(cells, target_sum=target_sum, name=name, progress=progress)
    return pseudobulk_of_blocks(blocks, labels, cells.var, progress=progress)


def pseudobulk_of_blocks(
    blocks: Iterable[tuple[int, sparse.csr_matrix | np.ndarray]],
    labels: pd.Index,
    var: pd.DataFrame,
    *,
    progress: bool = False,
) -> anndata.AnnData:
    """Do :func:`pseudobulk` on values that are log-normalised already, block by block.

    Parameters
    ----------
    blocks
        First row and values of each block, as :func:`lognorm_blocks` yields them.
    labels
        Group of each cell, shape ``(n_cells,)``.
    var
        Genes, index of length ``n_genes``.
    progress
        Show a progress bar.

    Returns
    -------
    AnnData
        As :func:`pseudobulk`.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    codes, groups = pd.factorize(labels, sort=True)
    total, square = np.zeros((2, len(groups), len(var)))
    with tqdm(total=len(labels), unit=" cells", desc="average", disable=not progress) as bar:
        for start, block in blocks:
            _add_groups(block, codes[start : start + block.shape[0]], total, square)
            bar.update(block.shape[0])
    n_cells = np.bincount(codes, minlength=len(groups))
    mean, variance = moments(total, square, n_cells[:, None])
    return anndata.AnnData(
        mean.astype(block.dtype),
        obs=pd.DataFrame({"n_cells": n_cells}, index=pd.Index(groups).astype(str)),
        var=var.copy(),
        layers={"variance": variance.astype(block.dtype)},
    )


def moments(total: np.ndarray, square: np.ndarray, n_cells) -> tuple[np.ndarray, np.ndarray]:
    """Turn sums over cells into mean and unbiased variance.

    Parameters
    ----------
    total, square
        Sum of the values, and of their squares, any shape, float64.
    n_cells
        How many values each is the sum of.

    Returns
    -------
    tuple of ndarray
        Mean and variance, float64; the variance of one cell is NaN.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    mean = total / n_cells
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, np.maximum(square - n_cells * mean**2, 0) / (n_cells - 1)


def jackknife(
    counts: np.ndarray,
    size: float,
    left_out: Iterable[tuple[np.ndarray, np.ndarray, float]],
    n_cells: int,
    *,
    target_sum: float,
) -> np.ndarray:
    r"""Estimate how far a group's summed profile is off by chance: leave out one cell at a time.

    Parameters
    ----------
    counts
        Sum of the group's counts, ``(n_genes,)``, float64.
    size
        Its total over all genes, more than `counts` where these are some of the genes only.
    left_out
        Of each cell the genes it has counts of, these counts, and its library size.
    n_cells
        Number of cells.
    target_sum
        The total that the profile is scaled to.

    Returns
    -------
    ndarray
        Variance of the profile ``log1p(target_sum * counts / size)``, ``(n_genes,)``, float64; 0
        for fewer than two cells.

    Notes
    -----
    .. math:: C_g = \frac{n - 1}{n} \sum_i (v_{ig} - \bar v_g)^2, \qquad
              v_{ig} = \log\left(1 + T \frac{P_g - y_{ig}}{S - s_i}\right)

    where P are the sums and S their total, y the counts of cell i and s their total. Without a cell
    every gene of the profile moves, also those it has no counts of. Cells count in their order, so
    that the bits do not hang on how they are stored. Source: cell-eval2 0.20.0,
    ``jackknife_correction``.

    Taught in: notebooks/15_score_by_the_rules_of_2026.
    """
    if n_cells < 2 or size <= 0:
        return np.zeros_like(counts)
    profile = np.log1p(target_sum * counts / size)
    total, square = np.zeros_like(counts), np.zeros_like(counts)
    for genes, values, cell_size in left_out:
        rest = counts.copy()
        rest[genes] -= values
        if size > cell_size:
            rest *= target_sum / (size - cell_size)
        off = np.log1p(rest, out=rest) - profile
        total += off
        square += off * off
    return (n_cells - 1) / n_cells * (square - total**2 / n_cells)


def _add_groups(block, codes: np.ndarray, total: np.ndarray, square: np.ndarray) -> None:
    """Add each cell to its group's sums; one after the other, so that blocks leave no trace."""
    from . import kernels

    rows = block if sparse.issparse(block) else sparse.csr_matrix(block)
    kernels.add_rows(rows.data, rows.indices, rows.indptr, codes, total, square)


def effects(bulk: anndata.AnnData, *, control: str = CONTROL) -> anndata.AnnData:
    r"""Subtract the control's pseudobulk from every perturbation's.

    Parameters
    ----------
    bulk
        Pseudobulk, shape ``(n_groups, n_genes)``, mean lognorm, control included.
    control
        Name of the control's row.

    Returns
    -------
    AnnData
        Shape ``(n_perts, n_genes)``: the rows of `bulk` without the control; ``X`` is the effect,
        :math:`\Delta_{pg} = \bar y_{pg} - \bar y_{0g}`, a difference of mean lognorm values
        (about the natural logarithm of the fold change for well expressed genes).

    Raises
    ------
    KeyError
        `bulk` has no row named `control`.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    control_mean = control_row(bulk, control)
    kept = bulk.obs_names != control
    return anndata.AnnData(
        bulk.X[kept] - control_mean, obs=bulk.obs.loc[kept].copy(), var=bulk.var.copy()
    )


def control_row(bulk: anndata.AnnData, control: str = CONTROL) -> np.ndarray:
    """Return the control's mean lognorm expression, shape ``(n_genes,)``.

    Parameters
    ----------
    bulk
        Pseudobulk, shape ``(n_groups, n_genes)``.
    control
        Name of the control's row.

    Raises
    ------
    KeyError
        `bulk` has no row named `control`.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    if control not in bulk.obs_names:
        raise KeyError(
            f"the pseudobulk has no control row {control!r}; its rows are {some_of(bulk.obs_names)}"
        )
    return np.asarray(bulk[control].X).ravel()


def effect_strength(bulk: anndata.AnnData, *, control: str = CONTROL) -> pd.DataFrame:
    r"""Measure how large each effect is, and how much of that the sampling of cells explains.

    Parameters
    ----------
    bulk
        Pseudobulk with ``layers["variance"]`` and ``obs["n_cells"]``, shape
        ``(n_groups, n_genes)``.
    control
        Name of the control's row.

    Returns
    -------
    DataFrame
        Index target_gene; ``n_cells``; ``norm``, the L2 norm of the effect over genes; ``noise``,
        the norm that sampling alone would give; ``norm_denoised``,
        :math:`\sqrt{\max(0, \mathrm{norm}^2 - \mathrm{noise}^2)}`. A norm of about the noise
        means: with this many cells, nothing was seen. `noise` and `norm_denoised` are NaN
        where the perturbation or the control has one cell only.

    Raises
    ------
    KeyError
        `bulk` has no row named `control`.

    Notes
    -----
    :math:`\mathrm{noise}_p^2 = \sum_g (s^2_{pg} / n_p + s^2_{0g} / n_0)`.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    delta = effects(bulk, control=control)
    spread = pd.Series(bulk.layers["variance"].sum(axis=1, dtype=np.float64), bulk.obs_names)
    noise2 = spread / bulk.obs["n_cells"]
    noise2 = noise2[delta.obs_names] + noise2[control]
    norm2 = (delta.X.astype(np.float64) ** 2).sum(axis=1)
    return pd.DataFrame(
        {
            "n_cells": delta.obs["n_cells"],
            "norm": np.sqrt(norm2),
            "noise": np.sqrt(noise2),
            "norm_denoised": np.sqrt(np.maximum(norm2 - noise2, 0)),
        },
        index=delta.obs_names.rename("target_gene"),
    )


def knockdown(bulk: anndata.AnnData, *, control: str = CONTROL) -> pd.Series:
    """Return how much of each target's own expression is left.

    Parameters
    ----------
    bulk
        Pseudobulk, shape ``(n_groups, n_genes)``, mean lognorm.
    control
        Name of the control's row.

    Returns
    -------
    Series
        Index target_gene; the ratio of ``expm1`` of the mean lognorm values, perturbed over
        control. 0.05 means that one twentieth is left; 1, that nothing was silenced. NaN where
        the target is not among the genes or is silent in the control.

    Raises
    ------
    KeyError
        `bulk` has no row named `control`.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    base = control_row(bulk, control)
    targets = bulk.obs_names[bulk.obs_names != control]
    left = pd.Series(np.nan, index=targets.rename("target_gene"), name="expression_left")
    column = bulk.var_names.get_indexer(targets)
    rows = bulk.obs_names.get_indexer(targets)
    usable = (column >= 0) & (base[column] > 0)
    own = bulk.X[rows[usable], column[usable]]
    left[usable] = np.expm1(own) / np.expm1(base[column[usable]])
    return left
