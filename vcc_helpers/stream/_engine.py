"""The rank-sum test of every gene of many perturbations, by compiled loops in threads.

A gene's values in one perturbation are ranked among its values in the controls. Many of both are
0, so only the others are sorted: the controls' once, and those of many perturbations together, each
value with its perturbation's number, in one call of NumPy. A walk along the two sorted lists, side
by side, then counts for every perturbation what is smaller and what is tied. So the work grows with
the number of values, whatever the number of perturbations. :mod:`~vcc_helpers.ranks` has the same
test in plain NumPy.

Taught in: notebooks/10_rank_every_gene.

>>> import pandas
>>> labels = pandas.Index(["SOX2", "SOX2", "non-targeting", "non-targeting"])
>>> rank_sum(np.array([[3.0], [1.0], [0.0], [1.0]]), labels, control="non-targeting").statistic
array([[3.5]])
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from ..ranks import p_values
from .blocks import Threads, sound

#: Genes in a tile; many, since a tile asks each cell for its entries, but each thread has its own.
TILE_GENES = 256
#: Pairs of value and group that the processor's second cache holds.
_PAIRS = 2**16
#: Threads beyond which more are of no use on any machine.
_MOST_THREADS = 1024


class _RankSum(NamedTuple):
    groups: pd.Index
    statistic: np.ndarray
    p_value: np.ndarray


class Controls(NamedTuple):
    """The non-zeros of control cells: gene after gene, sorted, an infinity behind each gene's.

    `indptr` says where each gene begins in `values`, and the last one ends, ``(n_genes + 1,)``,
    int64; `ties` is the sum of t**3 - t over the runs of t equal ones, ``(n_genes,)``, float64.
    """

    values: np.ndarray
    indptr: np.ndarray
    ties: np.ndarray
    n_cells: int


class _Picked(NamedTuple):
    """Some rows of a CSR matrix, without a copy: where in `data` each one starts and ends."""

    data: np.ndarray
    indices: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    shape: tuple[int, int]


def _values(block) -> np.ndarray:
    return block if isinstance(block, np.ndarray) else block.data


def _pick(block, rows: np.ndarray | slice = slice(None)) -> np.ndarray | _Picked:
    """Pick rows, all by default, of a block, or of rows picked before."""
    if isinstance(block, np.ndarray):
        return block[rows]
    if not isinstance(block, _Picked):
        pointer = block.indptr[:-1], block.indptr[1:]
        block = _Picked(block.data, block.indices, *pointer, block.shape)
    starts, ends = block.starts[rows], block.ends[rows]
    return block._replace(starts=starts, ends=ends, shape=(len(starts), block.shape[1]))


def rank_sum(
    matrix: np.ndarray | sparse.spmatrix,
    labels: pd.Index,
    *,
    control: str,
    threads: int | None = None,
) -> _RankSum:
    """Test every gene of every group against the control cells.

    `matrix` is ``(n_cells, n_genes)``, dense, CSR or CSC, which is copied; counts or lognorm, or
    any other values that are 0 or more and finite, since only ranks count. `labels` are the group
    of each cell, ``(n_cells,)``, str. Returned are the names of all groups but the control, sorted;
    Mann-Whitney U, 0 to n_1 n_2; and the two-sided p-value, 0 to 1, both ``(n_groups, n_genes)``,
    float64. A ValueError says that no cell is labelled `control`, or every cell is; that there is
    not a label a cell; or that a value is negative, infinite, NaN or complex.

    The test has continuity and tie correction and a normal approximation; it is exact for a gene
    without ties when either group has 8 cells or fewer: the defaults of
    ``scipy.stats.mannwhitneyu``, whose p-values these equal to 1e-12 of their size. A gene with the
    same value in all cells has p = 1.
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
    matrix, n_parts = _in_rows(matrix), 8 * n_threads(threads)
    codes = groups.get_indexer(labels)  # -1: control
    cells = (np.flatnonzero(codes == code) for code in range(-1, len(groups)))
    others, *blocks = (_pick(matrix, rows) for rows in cells)
    u, ties = np.empty((2, len(groups), matrix.shape[1]))
    n_cells = np.bincount(codes[codes >= 0])
    ends = np.concatenate([[0], np.cumsum(n_cells)])

    def rank(genes: slice) -> None:
        u[:, genes], ties[:, genes] = rank_groups(blocks, ends, controls, genes, reach=reach)

    with Threads(n_threads(threads)) as pool:
        values = _values(matrix)
        reach = span((values[part] for part in cut(len(values), n_parts)), run=pool.map)
        controls = sort_controls([others], threads=threads)
        list(pool.map(rank, cut(matrix.shape[1], n_parts)))
    return _RankSum(groups, u, p_values(u, ties, n_cells[:, None], controls.n_cells))


def n_threads(threads: int | None) -> int:
    """Return the number of threads to use."""
    return min(threads or os.cpu_count() or 1, _MOST_THREADS)


def cut(n: int, n_parts: int) -> list[slice]:
    """Cut a length into stretches that are about equal, none of them empty."""
    edges = np.unique(np.linspace(0, n, min(n_parts, n) + 1).astype(int))
    return [slice(int(i), int(j)) for i, j in pairwise(edges)]


def _in_rows(matrix) -> np.ndarray | sparse.csr_matrix:
    """Bring a matrix to rows of floating numbers, one entry a place."""
    if sparse.issparse(matrix):
        matrix = sparse.csr_matrix(sound(matrix) if matrix.format in ("csr", "csc") else matrix)
    else:
        matrix = np.asarray(matrix)
    if matrix.dtype.kind == "c":
        raise ValueError(f"values of type {matrix.dtype} have no order; give counts or lognorm")
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float64)
    if not getattr(matrix, "has_canonical_format", True):
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def span(blocks: Iterable, run: Callable = map) -> tuple[float, float]:
    """Return the smallest and the largest non-zero value of some blocks; `run` maps over them.

    A ValueError says that one is negative, infinite or NaN.
    """
    values = [array for array in map(_values, blocks) if array.size]
    if not values:
        return 0.0, 0.0
    low, high = (f(list(run(f, values))) for f in (np.min, np.max))
    _refuse_beyond_fence(low, high)
    if low == 0:
        low = min(run(lambda x: np.min(x, where=x > 0, initial=np.inf), values))
    return min(low, high), high


def _refuse_beyond_fence(low: float, high: float) -> None:
    """Raise if values reach further than the walk may go; NaN is above every end."""
    if not (low >= 0 and high < np.inf):
        raise ValueError(
            f"values to rank must be 0 or more and finite; they reach from {low} to {high}; give "
            "counts or lognorm"
        )


def tiles(
    blocks: Sequence[sparse.csr_matrix | np.ndarray],
    genes: slice,
    width: int = TILE_GENES,
    columns: Sequence[np.ndarray] | None = None,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Turn cells x genes on its side, a few genes at a time.

    `blocks` are some cells each, ``(n_cells, n_genes)``: dense, or CSR with the genes of each cell
    in rising order. Of the `genes`, ``slice(first, stop)``, a part of at most `width` is yielded,
    also a slice, with its values in all cells, ``(<= width, n_cells)``, of the blocks' type: block
    after block, or each block's cells in their `columns`. To be used, and changed, before the next:
    all tiles share their memory.
    """
    from . import _kernels  # compiled code; half a second that imports need not pay

    ends = np.cumsum([0] + [block.shape[0] for block in blocks])
    # rows whose distance is a power of two would fight for the same places of the cache
    room = np.empty((min(width, genes.stop - genes.start), ends[-1] | 31), _values(blocks[0]).dtype)
    place = np.empty(ends[-1], np.int64)
    parts = [slice(*at) for at in pairwise(ends)]
    columns = columns or [np.arange(*at) for at in pairwise(ends)]
    pieces = list(zip(map(_pick, blocks), (place[cells] for cells in parts), columns, strict=True))
    for block, at, _ in pieces:
        if isinstance(block, _Picked):
            _kernels.seek(block.indices, block.starts, block.ends, genes.start, at)
    for first in range(genes.start, genes.stop, width):
        part = slice(first, min(first + width, genes.stop))
        tile = room[: part.stop - first]
        tile.fill(0)
        for block, at, cells in pieces:
            if isinstance(block, _Picked):
                entries = block.data, block.indices, at, block.ends
                _kernels.fill_tile(*entries, first, cells, tile)
            else:
                tile[:, cells] = block[:, part].T
        yield part, tile[:, : ends[-1]]


def sort_controls(
    blocks: Sequence,
    *,
    columns: Sequence[np.ndarray] | None = None,
    threads: int | None = None,
    look: Callable | None = None,
) -> Controls:
    """Sort each gene's values in the control cells, for any number of :func:`rank_groups`.

    `look` is called with each ``(part, tile)`` of :func:`tiles`, which `columns` are for.
    """
    from . import _kernels

    def count(block) -> np.ndarray:
        if isinstance(block, np.ndarray):
            return np.count_nonzero(block, axis=0)
        found = np.zeros(block.shape[1], np.int64)
        _kernels.count(block.data, block.indices, block.starts, block.ends, found)
        return found

    def keep(genes: slice) -> None:
        for part, tile in tiles(blocks, genes, columns=columns):
            if look is not None:
                look(part, tile)
            places = indptr[part.start : part.stop + 1]
            _kernels.squeeze(tile, places, values)
            for i, j in pairwise(places):
                values[i:j].sort()
            first, last = values[places[:-1]], values[places[1:] - 1]
            if (first < 0).any() or (last != np.inf).any():  # NaN is sorted behind the fence
                _refuse_beyond_fence(first.min(), last.max())
            _kernels.tie(values, places, ties[part])

    n_cells, n_genes = sum(block.shape[0] for block in blocks), blocks[0].shape[1]
    parts = (_pick(b, rows) for b in blocks for rows in cut(b.shape[0], n_threads(threads)))
    with Threads(n_threads(threads)) as pool:
        n_values = sum(pool.map(count, parts))
        indptr = np.concatenate([[0], np.cumsum(n_values + 1)])
        values, ties = np.empty(indptr[-1], _values(blocks[0]).dtype), np.empty(n_genes)
        list(pool.map(keep, cut(n_genes, n_threads(threads))))
    return Controls(values, indptr, ties, n_cells)


def rank_groups(
    blocks: Sequence,
    ends: np.ndarray,
    controls: Controls,
    genes: slice,
    *,
    reach: tuple[float, float],
    columns: Sequence[np.ndarray] | None = None,
    look: Callable[[slice, np.ndarray], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Rank each gene's values in each of several groups among those of the controls.

    `blocks` and `columns` are as for :func:`tiles`; `ends` says where each group's cells begin in a
    tile, and the last one's end, ``(n_groups + 1,)``. `reach` is what :func:`span` says of all
    blocks; `look` is called with the genes of a tile, and the tile. Returned are Mann-Whitney U of
    each group, and the sum of t**3 - t over all runs of t equal values of group and controls, zeros
    counted in, ``(n_groups, n_genes_of_slice)``, float64.
    """
    from . import _kernels

    dtype = _values(blocks[0]).dtype
    low, shift, packed = _packing(*reach, len(ends) - 1, dtype)
    # the bits of a positive number, read as a whole one, have the order of the numbers
    known = controls.values.view(f"u{dtype.itemsize}")
    u, ties = np.zeros((2, genes.stop - genes.start, len(ends) - 1))
    n_values = np.empty(u.shape, np.int64)
    most = 1 << int(shift)  # groups that go together
    pairs = np.empty(max(_PAIRS, ends[-1]), packed)

    def rank(bits: np.ndarray, ends: np.ndarray, indptr: np.ndarray, n_values, *found) -> None:
        step = max(1, _PAIRS // max(1, ends[-1]))
        room = pairs[: step * ends[-1]].reshape(step, ends[-1])
        for some in (slice(i, i + step) for i in range(0, len(bits), step)):
            _kernels.pair(bits[some], ends, low, shift, room, n_values[some])
            filled = n_values[some].sum(axis=1)
            for row, n in zip(room, filled, strict=False):
                row[:n].sort()
            against = known, indptr[some.start : some.stop + 1], controls.n_cells
            _kernels.walk(room, filled, low, shift, *against, *(f[some] for f in found))

    for part, tile in tiles(blocks, genes, columns=columns):
        if look is not None:
            look(part, tile)
        here = slice(part.start - genes.start, part.stop - genes.start)
        indptr, bits = controls.indptr[part.start : part.stop + 1], tile.view(known.dtype)
        for first in range(0, len(ends) - 1, most):
            mine = ends[first : first + most + 1]
            found = (x[here, first : first + most] for x in (n_values, u, ties))
            rank(bits[:, mine[0] : mine[-1]], mine - mine[0], indptr, *found)
    zeros = np.diff(ends) - n_values
    zero_controls = controls.n_cells - (np.diff(controls.indptr[genes.start : genes.stop + 1]) - 1)
    run = (zeros + zero_controls[:, None]).astype(np.float64)
    u += 0.5 * zeros * zero_controls[:, None]
    ties += run**3 - run + controls.ties[genes, None]
    return u.T, ties.T


def _packing(low: float, high: float, n_groups: int, dtype: np.dtype) -> tuple:
    """Say how a value and a group make one whole number, the smaller the faster to sort.

    Logarithms of counts reach over few powers of two, so 32 bits hold most of them together with
    the numbers of dozens of groups; and 64 bits most float64 with hundreds. Where not all groups
    have room, their numbers take what there is.
    """
    first, last = (int(np.array(x, dtype).view(f"u{dtype.itemsize}")) for x in (low, high))
    free, shift = 64 - (last - first).bit_length(), int(n_groups - 1).bit_length()
    packed = np.uint32 if free - 32 >= shift else np.uint64
    return np.uint64(first), np.uint64(min(free, shift)), packed
