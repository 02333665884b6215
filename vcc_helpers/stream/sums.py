"""What a group of cells comes to, gene by gene: sums, ranks among the controls, sampling variance.

Taught in: notebooks/12_scale_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from ..counts import Scaling
from .blocks import Threads, ahead
from .engine import Controls, cut, rank_groups, sort_controls, span
from .job import _Job
from .pseudobulk import log_entries
from .shelf import Rows, _genes_of


def _collect(pieces, scaling, genes: slice, dtype, *, threads: int = 1) -> list[Rows]:
    """Log-normalise a group piece by piece, and keep some of its genes.

    `scaling` is that of the file, or a function of a piece where the file was not looked at before.
    """

    def logged(rows: np.ndarray, piece) -> Rows:
        kept = _genes_of(piece, genes)
        number = np.uint16 if piece.shape[1] <= 2**16 else np.int32
        here, rows = _scaling_of(scaling, rows, piece)
        values = log_entries(here, kept.data, kept.indptr, rows, dtype=dtype)
        return Rows(values, kept.indices.astype(number, copy=False), kept.indptr, kept.shape)

    with closing(ahead(logged, pieces, threads=threads)) as done:
        return list(done)


def _scaling_of(scaling, rows: np.ndarray, piece) -> tuple[Scaling, object]:
    """Return the scaling of a piece, and where in it the library sizes of these rows are."""
    return (scaling, rows) if isinstance(scaling, Scaling) else (scaling(piece), slice(None))


def _scaling_by_piece(target_sum: float, piece) -> Scaling:
    total = np.concatenate([[0.0], np.cumsum(piece.data, dtype=np.float64)])
    return Scaling(total[piece.indptr[1:]] - total[piece.indptr[:-1]], target_sum)


class _Sums(NamedTuple):
    """What one group comes to, gene by gene, ``(n_genes,)`` each."""

    total: np.ndarray
    square: np.ndarray
    mean: np.ndarray
    u: np.ndarray
    ties: np.ndarray
    counts: np.ndarray
    scaled: np.ndarray
    sampling: np.ndarray

    @classmethod
    def empty(cls, n_genes: int, dtype: np.dtype) -> _Sums:
        return cls(*(np.zeros(n_genes, dtype if name == "mean" else "f8") for name in cls._fields))

    def count(
        self, pieces: Callable[[], Iterator], scaling, genes: slice, total: float | None
    ) -> None:
        """Sum counts and scaled values, cell by cell, and estimate their sampling variance.

        That only where there is a total to scale to: it takes most of the time.
        """
        from . import kernels

        n_cells, size, spare = 0, 0.0, np.zeros((2, 1, len(self.counts)))
        for rows, piece in pieces():
            kept, (here, rows) = _genes_of(piece, genes), _scaling_of(scaling, rows, piece)
            self.counts[:] += np.bincount(kept.indices, kept.data, minlength=len(self.counts))
            each = np.repeat(here.divisor(rows, np.dtype("f8")), np.diff(kept.indptr))
            group = np.zeros(kept.shape[0], np.int64)
            kernels.add_rows(kept.data / each, kept.indices, kept.indptr, group, *spare)
            n_cells, size = n_cells + kept.shape[0], size + here.library_size[rows].sum()
        self.scaled[:] = spare[0, 0]
        if total:
            left_out = _left_out(pieces(), scaling, genes)
            self.sampling[:] = _jackknife(self.counts, size, left_out, n_cells, target_sum=total)

    def add_up(self, part: slice, tile: np.ndarray) -> None:
        """Sum the cells, in their order; twice, once in the precision of the data."""
        from . import kernels

        kernels.add_in_order(tile, self.total[part], self.square[part])
        tile.mean(axis=1, out=self.mean[part])


def _left_out(pieces, scaling, genes: slice) -> Iterator:
    """Yield of each cell the genes and counts it has, and its library size."""
    for rows, piece in pieces:
        kept, (here, rows) = _genes_of(piece, genes), _scaling_of(scaling, rows, piece)
        for (i, j), size in zip(pairwise(kept.indptr), here.library_size[rows], strict=True):
            yield kept.indices[i:j], kept.data[i:j], size


def _control_sums(source, scaling, genes: slice, job: _Job) -> tuple[Controls, _Sums]:
    if job.reference:
        scaling = partial(_scaling_by_piece, job.rules.target_sum)
    pieces = partial(source, job.control)
    blocks = _collect(pieces(), scaling, genes, job.dtype, threads=job.threads)
    sums = _Sums.empty(genes.stop - genes.start, job.dtype)
    if total := job.rules.bulk_target_sum:
        sums.count(pieces, scaling, genes, None if job.reference else total)  # done where they are
    return sort_controls(blocks, threads=job.threads, look=sums.add_up), sums


def _group_sums(
    sources, scaling, genes: slice, controls: Controls, threads: int, total: float | None
) -> list[_Sums]:
    """Do what there is to do for a few groups; `sources` gives the pieces of each."""
    with Threads(threads) as pool:
        dtype = controls.values.dtype
        groups = list(pool.map(lambda pieces: _collect(pieces(), scaling, genes, dtype), sources))
        n_genes = genes.stop - genes.start
        sums = [_Sums.empty(n_genes, dtype) for _ in groups]
        if total:
            counted = zip(sums, sources, strict=True)
            list(pool.map(lambda pair: pair[0].count(pair[1], scaling, genes, total), counted))

        def look(group: int, *tile) -> None:
            sums[group].add_up(*tile)

        reach = span(chain.from_iterable(groups))

        def rank(part: slice) -> None:
            found = rank_groups(groups, controls, part, reach=reach, look=look)
            for mine, u, ties in zip(sums, *found, strict=True):
                mine.u[part], mine.ties[part] = u, ties

        list(pool.map(rank, cut(n_genes, 4 * threads)))
    return sums


def _jackknife(
    counts: np.ndarray,
    size: float,
    left_out: Iterable[tuple[np.ndarray, np.ndarray, float]],
    n_cells: int,
    *,
    target_sum: float,
) -> np.ndarray:
    r"""Estimate how far a group's summed profile is off by chance: leave out one cell at a time.

    `counts` is the sum of the group's counts, ``(n_genes,)``, float64, and `size` its total over
    all genes, more than `counts` where these are some of the genes only; `left_out` gives of each
    cell the genes it has counts of, these counts, and its library size. Returned is the variance of
    the profile ``log1p(target_sum * counts / size)``, ``(n_genes,)``; 0 with less than two cells.

    Notes
    -----
    .. math:: C_g = \frac{n - 1}{n} \sum_i (v_{ig} - \bar v_g)^2, \qquad
              v_{ig} = \log\left(1 + T \frac{P_g - y_{ig}}{S - s_i}\right)

    where P are the sums and S their total, y the counts of cell i and s their total. Without a cell
    every gene of the profile moves, also those it has no counts of. Cells count in their order, so
    that the bits do not hang on how they are stored. Source: cell-eval2 0.20.0,
    ``jackknife_correction``.
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
