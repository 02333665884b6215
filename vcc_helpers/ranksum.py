"""The Wilcoxon rank-sum (Mann-Whitney) test of every gene, and the false discovery rate.

A gene's values in one perturbation are ranked among its values in the controls. Most of both are
0, so only the others are sorted: the controls' once for all perturbations, a perturbation's a tile
of genes at a time, small enough for the processor's cache and in one call of NumPy. A walk along
the two sorted lists, side by side, then counts what is smaller and what is tied.

Taught in: notebooks/11_rank_every_gene.
Needs: kernels.py.

>>> import pandas
>>> labels = pandas.Index(["SOX2", "SOX2", "non-targeting", "non-targeting"])
>>> rank_sum(np.array([[3.0], [1.0], [0.0], [1.0]]), labels, control="non-targeting").statistic
array([[3.5]])
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

#: With this many cells or fewer in a group, and no ties, the p-value is exact (scipy's rule).
EXACT_LIMIT = 8
#: Most genes in a tile, and values when there are many cells.
TILE_GENES, TILE_VALUES = 256, 2**24


class RankSum(NamedTuple):
    """Result of :func:`rank_sum`, rows as in ``groups``.

    Attributes
    ----------
    groups
        Names of the groups tested, sorted, shape ``(n_groups,)``.
    statistic
        Mann-Whitney U of the group, shape ``(n_groups, n_genes)``, float64, 0 to n_1 n_2.
    p_value
        Two-sided p-value, same shape, float64, 0 to 1.
    """

    groups: pd.Index
    statistic: np.ndarray
    p_value: np.ndarray


class Controls(NamedTuple):
    """The control cells as :func:`rank_tile` wants them: each gene's non-zeros, sorted.

    Attributes
    ----------
    values
        Sorted non-zeros, gene after gene, behind each gene a fence of infinities.
    indptr
        Where each gene begins in `values`, and the last one ends, ``(n_genes + 1,)``, int64.
    ties
        Sum of t**3 - t over the runs of t equal non-zeros of each gene, ``(n_genes,)``, float64.
    n_cells
        Number of control cells.
    """

    values: np.ndarray
    indptr: np.ndarray
    ties: np.ndarray
    n_cells: int


def rank_sum(
    matrix: np.ndarray | sparse.spmatrix,
    labels: pd.Index,
    *,
    control: str,
    threads: int | None = None,
    progress: bool = False,
) -> RankSum:
    """Test every gene of every group against the control cells.

    Parameters
    ----------
    matrix
        Shape ``(n_cells, n_genes)``, dense, CSR or CSC; counts or lognorm, or any other values
        that are 0 or more and finite, since only ranks count.
    labels
        Group of each cell, shape ``(n_cells,)``, str.
    control
        The label of control cells.
    threads
        Number of threads; all cores by default.
    progress
        Show a progress bar.

    Returns
    -------
    RankSum
        Groups (control left out), U and two-sided p.

    Raises
    ------
    ValueError
        No cell is labelled `control`, or every cell is; or a value is negative, infinite or NaN.

    Notes
    -----
    Two-sided, with continuity and tie correction, normal approximation; exact for a gene without
    ties when either group has 8 cells or fewer: the defaults of ``scipy.stats.mannwhitneyu``,
    whose p-values these equal to 1e-12 of their size. A gene with the same value in all cells has
    p = 1. A matrix in CSC is copied to CSR.

    Taught in: notebooks/11_rank_every_gene.
    """
    labels = pd.Index(labels).astype(str)
    groups = pd.Index(sorted(set(labels) - {control}), dtype=object)
    if control not in labels or groups.empty:
        raise ValueError(
            f"a test needs cells labelled {control!r} and others; there are {len(labels)} cells "
            f"of {len(groups)} other groups"
        )
    matrix = _rows(matrix)
    u, ties = np.empty((2, len(groups), matrix.shape[1]))
    codes = groups.get_indexer(labels)  # -1: control
    controls = sort_controls(matrix[np.flatnonzero(codes < 0)], threads=threads)

    def test(code: int, genes: slice) -> None:
        block = matrix[np.flatnonzero(codes == code)]
        for part, tile in tiles(block, genes):
            tile.sort(axis=1)
            rank_tile(tile, controls, part, u=u[code, part], ties=ties[code, part])

    n_parts = 1 if len(groups) > 4 * _n_threads(threads) else _n_threads(threads)
    tasks = [(code, genes) for code in range(len(groups)) for genes in _cut(u.shape[1], n_parts)]
    with ThreadPoolExecutor(_n_threads(threads)) as pool:
        done = pool.map(lambda task: test(*task), tasks)
        list(tqdm(done, total=len(tasks), unit=" tests", desc="rank", disable=not progress))
    n_cells = np.bincount(codes[codes >= 0])
    return RankSum(groups, u, p_values(u, ties, n_cells[:, None], controls.n_cells))


def _n_threads(threads: int | None) -> int:
    return threads or os.cpu_count() or 1


def _cut(n_genes: int, n_parts: int) -> list[slice]:
    edges = np.linspace(0, n_genes, n_parts + 1).astype(int)
    return [slice(int(i), int(j)) for i, j in pairwise(edges)]


def _rows(matrix) -> sparse.csr_matrix | np.ndarray:
    """Bring a matrix to rows of floating numbers, one entry a place, and check the values."""
    matrix = sparse.csr_matrix(matrix) if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.issubdtype(matrix.dtype, np.floating):
        matrix = matrix.astype(np.float64)
    if sparse.issparse(matrix) and not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    values = matrix.data if sparse.issparse(matrix) else matrix
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        raise ValueError(
            f"values to rank must be 0 or more and finite; they reach from {values.min()} to "
            f"{values.max()}; give counts or lognorm"
        )
    return matrix


def tiles(block: sparse.csr_matrix | np.ndarray, genes: slice) -> Iterator[tuple]:
    """Turn cells x genes on its side, a few genes at a time.

    Parameters
    ----------
    block
        Cells of one group, ``(n_cells, n_genes)``, dense, or the arrays of a CSR matrix with the
        genes of each cell in rising order.
    genes
        Which genes, ``slice(first, stop)``.

    Yields
    ------
    part : slice
        The genes of this tile.
    tile : ndarray
        Their values, ``(<= 256, n_cells)``, of the block's type. To be used, and changed, before
        the next one is asked for: all share their memory.

    Notes
    -----
    Taught in: notebooks/11_rank_every_gene.
    """
    from . import kernels  # compiled code; half a second that imports need not pay

    n_cells, width = block.shape[0], max(16, min(TILE_GENES, TILE_VALUES // block.shape[0]))
    # rows whose distance is a power of two would fight for the same places of the cache
    room = np.empty((min(width, genes.stop - genes.start), n_cells | 31), block.dtype)
    place = np.empty(n_cells, np.int64)
    if not isinstance(block, np.ndarray):
        kernels.seek(block.indices, block.indptr, genes.start, place)
    for first in range(genes.start, genes.stop, width):
        part = slice(first, min(first + width, genes.stop))
        tile = room[: part.stop - first, :n_cells]
        if isinstance(block, np.ndarray):
            tile[:] = block[:, part].T
        else:
            kernels.fill_tile(block.data, block.indices, block.indptr, place, first, tile)
        yield part, tile


def sort_controls(
    block: sparse.csr_matrix | np.ndarray, *, threads: int | None = None, look=None
) -> Controls:
    """Sort each gene's values in the control cells, for any number of :func:`rank_tile`.

    Parameters
    ----------
    block
        The control cells, ``(n_controls, n_genes)``, as for :func:`tiles`.
    threads
        Number of threads; all cores by default.
    look
        Called with each ``(part, tile)`` before the tile is sorted.

    Returns
    -------
    Controls
        About 4 bytes for every non-zero value of float32.

    Notes
    -----
    Taught in: notebooks/11_rank_every_gene.
    """
    from . import kernels

    indptr = np.concatenate([[0], np.cumsum(_count_values(block) + kernels.FENCE)])
    values, ties = np.empty(indptr[-1], block.dtype), np.empty(block.shape[1])

    def keep(genes: slice) -> None:
        for part, tile in tiles(block, genes):
            if look is not None:
                look(part, tile)
            tile.sort(axis=1)
            kernels.fence(tile, indptr[part.start : part.stop + 1], values, ties[part])

    with ThreadPoolExecutor(_n_threads(threads)) as pool:
        list(pool.map(keep, _cut(block.shape[1], _n_threads(threads))))
    return Controls(values, indptr, ties, block.shape[0])


def _count_values(block, at_once: int = 2**22) -> np.ndarray:
    """Count each gene's non-zeros, a few at a time: NumPy counts with 8 bytes an entry."""
    if isinstance(block, np.ndarray):
        return np.count_nonzero(block, axis=0)
    found = np.zeros(block.shape[1], np.int64)
    for start in range(0, len(block.data), at_once):
        part = slice(start, start + at_once)
        found += np.bincount(block.indices[part][block.data[part] != 0], minlength=len(found))
    return found


def rank_tile(
    tile: np.ndarray, controls: Controls, part: slice, *, u: np.ndarray, ties: np.ndarray
) -> None:
    """Rank each gene's values among those of the controls.

    Parameters
    ----------
    tile
        ``(n_genes_of_part, n_cells)``, each row sorted, 0 or more.
    controls
        The controls, sorted.
    part
        Which of the controls' genes these are.
    u, ties
        Filled: Mann-Whitney U of `tile`, and the sum of t**3 - t over all runs of t equal values
        of both, zeros counted in, ``(n_genes_of_part,)``, float64.

    Notes
    -----
    Taught in: notebooks/11_rank_every_gene.
    """
    from . import kernels

    indptr = controls.indptr[part.start : part.stop + 1]
    kernels.walk(tile, controls.values, indptr, controls.n_cells, u, ties)
    ties += controls.ties[part]


def p_values(u: np.ndarray, ties: np.ndarray, n_1, n_2) -> np.ndarray:
    r"""Turn U into two-sided p-values.

    Parameters
    ----------
    u
        Mann-Whitney U of the first group, ``(n_groups, n_genes)``.
    ties
        Sum of t**3 - t over runs of t equal values, same shape.
    n_1, n_2
        Cells of the two groups; numbers, or arrays that fit `u`.

    Returns
    -------
    ndarray
        Shape of `u`, float64, 0 to 1; 1 where all values are equal.

    Notes
    -----
    .. math:: z = \frac{\max(U, n_1 n_2 - U) - n_1 n_2 / 2 - 1/2}{\sqrt{\frac{n_1 n_2}{12} \left(
              n + 1 - \frac{\sum t^3 - t}{n (n - 1)}\right)}}, \qquad p = 2 \Phi(-z)

    with :math:`n = n_1 + n_2`; exact where there is no tie and a group of 8 cells or fewer.

    Taught in: notebooks/11_rank_every_gene.
    """
    from scipy.special import ndtr

    n_1, n_2 = (np.broadcast_to(np.asarray(n, np.float64), u.shape) for n in (n_1, n_2))
    n = n_1 + n_2
    larger = np.maximum(u, n_1 * n_2 - u)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(n_1 * n_2 / 12 * ((n + 1) - ties / (n * (n - 1))))
        p = 2 * ndtr(-(larger - n_1 * n_2 / 2 - 0.5) / sd)
    p = np.nan_to_num(np.clip(p, 0, 1), nan=1.0)
    exact = (ties == 0) & (np.minimum(n_1, n_2) <= EXACT_LIMIT)
    for a, b in sorted(set(zip(n_1[exact], n_2[exact], strict=True))):
        here = exact & (n_1 == a) & (n_2 == b)
        p[here] = _exact_p(u[here], int(a), int(b))
    return p


def _exact_p(u: np.ndarray, n_1: int, n_2: int) -> np.ndarray:
    """Ask scipy for the exact p of each U, with some ranks that have this U."""
    from scipy.stats import mannwhitneyu

    values, inverse = np.unique(u, return_inverse=True)
    found = np.empty(len(values))
    for i, value in enumerate(values):
        up, rest = divmod(int(value), n_2)  # so many of the first group above all of the second
        rank = np.arange(n_1, dtype=np.float64)
        rank[n_1 - up :] += n_2
        if rest:
            rank[n_1 - up - 1] += rest
        others = np.setdiff1d(np.arange(n_1 + n_2, dtype=np.float64), rank)
        found[i] = mannwhitneyu(rank, others, method="exact").pvalue
    return found[inverse]


def benjamini_hochberg(p_value: np.ndarray) -> np.ndarray:
    """Turn p-values into false discovery rates, pooled over the whole array.

    Parameters
    ----------
    p_value
        Any shape, 0 to 1, no NaN.

    Returns
    -------
    ndarray
        Same shape, float64: the smallest false discovery rate at which that test is called.

    Notes
    -----
    Benjamini and Hochberg 1995. Pooling matters: with vcc2025 all perturbations and genes of a
    file are one family, so a strong perturbation makes a weak one's genes easier to call.

    Taught in: notebooks/08_metrics_by_hand.
    """
    from scipy.stats import false_discovery_control  # a second that imports need not pay

    return false_discovery_control(p_value.ravel(), method="bh").reshape(p_value.shape)
