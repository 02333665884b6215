"""The rank-sum test of every gene of many perturbations, by compiled loops in threads.

A gene's values in one perturbation are ranked among its values in the controls. Many of both are
0, so only the others are sorted: the controls' once, and those of many perturbations together, each
value with its perturbation's number, in one call of NumPy. A walk along the two sorted lists, side
by side, then counts for every perturbation what is smaller and what is tied. So the work grows with
the number of values, whatever the number of perturbations. :mod:`~vcc_helpers.ranks` has the same
test in plain NumPy.

Taught in: notebooks/11_rank_every_gene.

>>> import pandas
>>> labels = pandas.Index(["SOX2", "SOX2", "non-targeting", "non-targeting"])
>>> rank_sum(np.array([[3.0], [1.0], [0.0], [1.0]]), labels, control="non-targeting").statistic
array([[3.5]])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from ..ranks import p_values
from .blocks import Threads, sound

#: Genes in a tile; many, since a tile asks each cell for its entries, but not too many to fill a
#: strip of it in the processor's second cache.
TILE_GENES = 256
#: Pairs of value and group that the processor's second cache holds.
PAIRS = 2**16
#: Threads beyond which more are of no use on any machine.
_MOST_THREADS = 1024


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
    """The control cells as :func:`rank_groups` wants them: each gene's non-zeros, sorted.

    Attributes
    ----------
    values
        Gene after gene, an infinity behind each gene's.
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


class _Picked(NamedTuple):
    """Some rows of a CSR matrix, without a copy of their entries.

    Each row begins and ends in `data` where `starts` and `ends` say; its genes are in rising order.
    """

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self.data.dtype

    @classmethod
    def of(cls, block, rows: np.ndarray | slice = slice(None)) -> _Picked:
        """Pick rows, all by default, of a CSR matrix, of its arrays, or of rows picked before."""
        if isinstance(block, cls):
            starts, ends = block.starts[rows], block.ends[rows]
        else:
            starts, ends = block.indptr[:-1][rows], block.indptr[1:][rows]
        return cls(block.data, block.indices, starts, ends, (len(starts), block.shape[1]))


def rank_sum(
    matrix: np.ndarray | sparse.spmatrix,
    labels: pd.Index,
    *,
    control: str,
    threads: int | None = None,
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

    Returns
    -------
    RankSum
        Groups (control left out), U and two-sided p.

    Raises
    ------
    ValueError
        No cell is labelled `control`, or every cell is; there is not a label a cell; or a value is
        negative, infinite, NaN or complex.

    Notes
    -----
    Two-sided, with continuity and tie correction, normal approximation; exact for a gene without
    ties when either group has 8 cells or fewer: the defaults of ``scipy.stats.mannwhitneyu``,
    whose p-values these equal to 1e-12 of their size. A gene with the same value in all cells has
    p = 1. A matrix in CSC is copied to CSR.
    """
    labels = pd.Index(labels).astype(str)
    groups = pd.Index(sorted(set(labels) - {control}), dtype=object)
    if control not in labels or groups.empty:
        raise ValueError(
            f"a test needs cells labelled {control!r} and others; there are {len(labels)} cells "
            f"of {len(groups)} other groups"
        )
    if np.shape(matrix)[:1] != (len(labels),) or np.ndim(matrix) != 2:
        raise ValueError(f"{len(labels)} labels for cells x genes of shape {np.shape(matrix)}")
    matrix, reach = _checked(matrix, n_threads(threads))
    codes = groups.get_indexer(labels)  # -1: control
    pick = matrix.__getitem__ if isinstance(matrix, np.ndarray) else partial(_Picked.of, matrix)
    others, *blocks = ([pick(np.flatnonzero(codes == code))] for code in range(-1, len(groups)))
    controls = sort_controls(others, threads=threads)
    u, ties = np.empty((2, len(groups), matrix.shape[1]))

    def rank(genes: slice) -> None:
        u[:, genes], ties[:, genes] = rank_groups(blocks, controls, genes, reach=reach)

    parts = cut(matrix.shape[1], 8 * n_threads(threads))
    with Threads(n_threads(threads)) as pool:
        list(pool.map(rank, parts))
    n_cells = np.bincount(codes[codes >= 0])
    return RankSum(groups, u, p_values(u, ties, n_cells[:, None], controls.n_cells))


def n_threads(threads: int | None) -> int:
    """Return the number of threads to use."""
    return min(threads or os.cpu_count() or 1, _MOST_THREADS)


def cut(n_genes: int, n_parts: int) -> list[slice]:
    """Cut genes into stretches of about equal length, none of them empty."""
    edges = np.unique(np.linspace(0, n_genes, min(n_parts, n_genes) + 1).astype(int))
    return [slice(int(i), int(j)) for i, j in pairwise(edges)]


def _checked(matrix, threads: int) -> tuple:
    """Bring a matrix to rows of floating numbers, one entry a place, and find its :func:`span`."""
    if sparse.issparse(matrix):
        by_rows_or_columns = getattr(matrix, "format", None) in ("csr", "csc")
        matrix = sparse.csr_matrix(sound(matrix) if by_rows_or_columns else matrix)
    else:
        matrix = np.asarray(matrix)
    if matrix.dtype.kind == "c":
        raise ValueError(f"values of type {matrix.dtype} have no order; give counts or lognorm")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float64)
    with Threads(threads) as pool:
        canonical = pool.submit(getattr, matrix, "has_canonical_format", True)
        values = matrix.data if sparse.issparse(matrix) else matrix
        parts = [values[part] for part in cut(len(values), 8 * threads)]
        low, high = (
            (list(pool.map(f, parts)) for f in (np.min, np.max)) if values.size else [[0]] * 2
        )
        low, high = np.min(low), np.max(high)
    _refuse_beyond_fence(low, high)
    if not canonical.result():
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix, (low, high) if canonical.result() and low > 0 else span([matrix])


def _refuse_beyond_fence(low: float, high: float) -> None:
    """Raise if values reach further than the walk may go; NaN is above every end."""
    if not (low >= 0 and high < np.inf):
        raise ValueError(
            f"values to rank must be 0 or more and finite; they reach from {low} to {high}; give "
            "counts or lognorm"
        )


def tiles(
    blocks: Sequence[sparse.csr_matrix | np.ndarray], genes: slice, width: int = TILE_GENES
) -> Iterator[tuple[slice, np.ndarray]]:
    """Turn cells x genes on its side, a few genes at a time.

    Parameters
    ----------
    blocks
        Some cells each, ``(n_cells, n_genes)``, dense, or the arrays of a CSR matrix with the
        genes of each cell in rising order, or some rows :class:`_Picked` of one.
    genes
        Which genes, ``slice(first, stop)``.
    width
        Genes in a tile.

    Yields
    ------
    part : slice
        The genes of this tile.
    tile : ndarray
        Their values in all cells, block after block, ``(<= width, n_cells)``, of the blocks' type.
        To be used, and changed, before the next one is asked for: all share their memory.
    """
    from . import kernels  # compiled code; half a second that imports need not pay

    ends = np.cumsum([0] + [block.shape[0] for block in blocks])
    # rows whose distance is a power of two would fight for the same places of the cache
    room = np.empty((min(width, genes.stop - genes.start), ends[-1] | 31), blocks[0].dtype)
    place = np.empty(ends[-1], np.int64)
    blocks = [block if isinstance(block, np.ndarray) else _Picked.of(block) for block in blocks]
    pieces = [(block, slice(i, j)) for block, (i, j) in zip(blocks, pairwise(ends), strict=True)]
    for block, cells in pieces:
        if isinstance(block, _Picked):
            kernels.seek(block.indices, block.starts, block.ends, genes.start, place[cells])
    for first in range(genes.start, genes.stop, width):
        part = slice(first, min(first + width, genes.stop))
        tile = room[: part.stop - first]
        for block, cells in pieces:
            if isinstance(block, _Picked):
                entries = block.data, block.indices, place[cells], block.ends
                kernels.fill_tile(*entries, first, tile, cells.start)
            else:
                tile[:, cells] = block[:, part].T
        yield part, tile[:, : ends[-1]]


def sort_controls(
    blocks: Sequence[sparse.csr_matrix | np.ndarray], *, threads: int | None = None, look=None
) -> Controls:
    """Sort each gene's values in the control cells, for any number of :func:`rank_groups`.

    `blocks` are as for :func:`tiles`; `look` is called with each ``(part, tile)``.
    """
    from . import kernels

    n_cells, n_genes = sum(block.shape[0] for block in blocks), blocks[0].shape[1]
    with Threads(n_threads(threads)) as pool:
        n_values = sum(pool.map(_count_values, _in_parts(blocks, n_threads(threads))))
        indptr = np.concatenate([[0], np.cumsum(n_values + 1)])
        values, ties = np.empty(indptr[-1], blocks[0].dtype), np.empty(n_genes)

        def keep(genes: slice) -> None:
            for part, tile in tiles(blocks, genes):
                if look is not None:
                    look(part, tile)
                places = indptr[part.start : part.stop + 1]
                kernels.squeeze(tile, places, values)
                for i, j in pairwise(places):
                    values[i:j].sort()
                first, last = values[places[:-1]], values[places[1:] - 1]
                if (first < 0).any() or (last != np.inf).any():  # NaN is sorted behind the fence
                    _refuse_beyond_fence(first.min(), last.max())
                kernels.tie(values, places, ties[part])

        list(pool.map(keep, cut(n_genes, n_threads(threads))))
    return Controls(values, indptr, ties, n_cells)


def _count_values(block) -> np.ndarray:
    from . import kernels

    if isinstance(block, np.ndarray):
        return np.count_nonzero(block, axis=0)
    found = np.zeros(block.shape[1], np.int64)
    kernels.count(*block[:4], found)
    return found


def _in_parts(blocks, n_parts: int) -> Iterator:
    """Cut each block into parts, so that threads can share it."""
    for block in blocks:
        for cells in cut(block.shape[0], n_parts):
            yield block[cells] if isinstance(block, np.ndarray) else _Picked.of(block, cells)


def rank_groups(
    groups: Sequence[Sequence[sparse.csr_matrix | np.ndarray]],
    controls: Controls,
    genes: slice,
    *,
    reach: tuple[float, float],
    look: Callable[[int, slice, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank each gene's values in each of several groups among those of the controls.

    `groups` holds the cells of each, as for :func:`tiles`, and `reach` is what :func:`span` says of
    all of them; `look` is called with the number of a group, the genes of a tile, and the tile.
    Returned are Mann-Whitney U of each group, and the sum of t**3 - t over all runs of t equal
    values of group and controls, zeros counted in, ``(n_groups, n_genes_of_slice)``, float64.
    """
    ends = np.cumsum([0] + [sum(block.shape[0] for block in blocks) for blocks in groups])
    blocks = [block for blocks in groups for block in blocks]
    u, ties = np.empty((2, genes.stop - genes.start, len(groups)))
    packing = _packing(*reach, len(groups), blocks[0].dtype)
    for part, tile in tiles(blocks, genes):
        if look is not None:
            for group, (i, j) in enumerate(pairwise(ends)):
                look(group, part, tile[:, i:j])
        here = slice(part.start - genes.start, part.stop - genes.start)
        numbers = _as_numbers(tile, controls, part)
        _rank_tile(numbers, ends, packing, controls, part, u=u[here], ties=ties[here])
    return u.T, ties.T


def _as_numbers(tile: np.ndarray, controls: Controls, part: slice):
    """Replace values and controls by whole numbers of 32 bits in the same order.

    The bits of a positive float32, read as a whole number, have the order of the float. Of float64
    each gene's values are numbered.
    """
    indptr = controls.indptr[part.start : part.stop + 1]
    if tile.dtype == np.float32:
        return tile.view(np.uint32), controls.values.view(np.uint32), indptr
    fenced = controls.values[indptr[0] : indptr[-1]]
    numbers, known = np.empty(tile.shape, np.uint32), np.empty(len(fenced), np.uint32)
    for row, number, (i, j) in zip(tile, numbers, pairwise(indptr - indptr[0]), strict=True):
        order = np.unique(np.concatenate([[0.0], row, fenced[i:j]]))
        number[:], known[i:j] = (np.searchsorted(order, x) for x in (row, fenced[i:j]))
    return numbers, known, indptr - indptr[0]


def _rank_tile(numbers, ends, packing, controls: Controls, part: slice, *, u, ties) -> None:
    """Fill U and ties of the genes of one tile, ``(n_genes_of_tile, n_groups)``."""
    from . import kernels

    tile, fenced, indptr = numbers
    n_values = np.empty(u.shape, np.int64)
    step = max(1, PAIRS // ends[-1])
    low, shift, dtype = packing
    pairs = np.empty((step, ends[-1]), dtype)
    u[:], ties[:] = 0, 0
    for first in range(0, len(tile), step):
        some = slice(first, min(first + step, len(tile)))
        kernels.pair(tile[some], ends, low, shift, pairs, n_values[some])
        filled = n_values[some].sum(axis=1)
        for row, n in zip(pairs, filled, strict=False):
            row[:n].sort()
        known = indptr[first : some.stop + 1]
        which = pairs, filled, low, shift, fenced, known, controls.n_cells
        kernels.walk(*which, u[some], ties[some])
    zeros = np.diff(ends) - n_values
    zero_controls = (controls.n_cells - (np.diff(indptr) - 1))[:, None]
    u += 0.5 * zeros * zero_controls
    ties += _cubes(zeros + zero_controls) + controls.ties[part][:, None]


def span(blocks: Iterable[sparse.csr_matrix | np.ndarray]) -> tuple[float, float]:
    """Return the smallest and the largest non-zero value of some blocks.

    A ValueError says that one is negative, infinite or NaN.
    """
    low, high = np.inf, 0.0
    for block in blocks:
        values = block if isinstance(block, np.ndarray) else block.data
        if not values.size:
            continue
        least, most = values.min(), values.max()  # NaN, if one value is
        _refuse_beyond_fence(least, most)
        if least == 0:
            least = np.min(values, where=values > 0, initial=np.inf)
        low, high = min(low, least), max(high, most)
    return min(low, high), high


def _packing(low: float, high: float, n_groups: int, dtype: np.dtype) -> tuple:
    """Say how a value and a group make one whole number, the smaller the faster to sort.

    Logarithms of counts reach over few powers of two, so 32 bits hold most of them together with
    the numbers of dozens of groups.
    """
    shift = int(n_groups - 1).bit_length()
    if dtype != np.float32:
        return np.uint64(0), np.uint64(shift), np.uint64
    first, last = (int(np.float32(value).view(np.uint32)) for value in (low, high))
    small = (last - first + 1) << shift <= 2**32
    return np.uint64(first), np.uint64(shift), np.uint32 if small else np.uint64


def _cubes(run: np.ndarray) -> np.ndarray:
    run = run.astype(np.float64)
    return run**3 - run
