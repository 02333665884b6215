"""What a group of cells comes to, gene by gene: sums, ranks among the controls, sampling variance.

Taught in: notebooks/12_scale_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from ..counts import Scaling
from .blocks import Threads, ahead
from .engine import Controls, cut, rank_groups, sort_controls, span
from .job import _Job
from .pseudobulk import log_entries
from .shelf import Rows, _genes_of


def _share(scaling: Scaling | float, rows: np.ndarray, piece, genes: slice) -> tuple[Scaling, Rows]:
    """Find the scale of the rows of a piece, and keep some of its genes.

    `scaling` is that of the file, or the total to scale to where it was not looked at before.
    """
    if isinstance(scaling, Scaling):
        size = scaling.library_size
        here = scaling._replace(library_size=None if size is None else size[rows])
    else:
        total = np.concatenate([[0.0], np.cumsum(piece.data, dtype=np.float64)])
        here = Scaling(total[piece.indptr[1:]] - total[piece.indptr[:-1]], scaling)
    return here, _genes_of(piece, genes)


def _collect(pieces, scaling, genes: slice, dtype: np.dtype, *, threads: int = 1) -> list[Rows]:
    """Log-normalise a group piece by piece, and keep some of its genes."""

    def logged(rows: np.ndarray, piece) -> Rows:
        here, kept = _share(scaling, rows, piece, genes)
        number = np.uint16 if piece.shape[1] <= 2**16 else np.int32
        values = log_entries(here, kept.data, kept.indptr, slice(None), dtype=dtype)
        return Rows(values, kept.indices.astype(number, copy=False), kept.indptr, kept.shape)

    with closing(ahead(logged, pieces, threads=threads)) as done:
        return list(done)


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

        n_cells, size, square = 0, 0.0, np.zeros((1, len(self.counts)))
        for here, kept in (_share(scaling, *piece, genes) for piece in pieces()):
            self.counts[:] += np.bincount(kept.indices, kept.data, minlength=len(self.counts))
            each = np.repeat(here.divisor(slice(None), np.dtype("f8")), np.diff(kept.indptr))
            group = np.zeros(kept.shape[0], np.int64)
            entries = kept.data / each, kept.indices, kept.indptr
            kernels.add_rows(*entries, group, self.scaled[None], square)
            n_cells, size = n_cells + kept.shape[0], size + here.library_size.sum()
        if total:
            shares = (_share(scaling, *piece, genes) for piece in pieces())
            self.sampling[:] = _jackknife(self.counts, size, shares, n_cells, target_sum=total)

    def add_up(self, part: slice, tile: np.ndarray) -> None:
        """Sum the cells, in their order; twice, once in the precision of the data."""
        from . import kernels

        kernels.add_in_order(tile, self.total[part], self.square[part])
        tile.mean(axis=1, out=self.mean[part])


def _control_sums(
    pieces: Callable[[], Iterator], scaling: Scaling, genes: slice, job: _Job
) -> tuple[Controls, _Sums]:
    scaling = job.rules.target_sum if job.reference else scaling
    blocks = _collect(pieces(), scaling, genes, job.dtype, threads=job.threads)
    sums = _Sums.empty(genes.stop - genes.start, job.dtype)
    if total := job.rules.bulk_target_sum:
        sums.count(pieces, scaling, genes, total)
    return sort_controls(blocks, threads=job.threads, look=sums.add_up), sums


def _group_sums(
    sources: list, scaling, genes: slice, controls: Controls, total: float | None, threads: int
) -> list[_Sums]:
    """Do what there is to do for a few groups; `sources` gives the pieces of each."""
    n_genes, dtype = genes.stop - genes.start, controls.values.dtype

    def count(mine: _Sums, pieces: Callable[[], Iterator]) -> None:
        mine.count(pieces, scaling, genes, total)

    def add_up(group: int, part: slice, tile: np.ndarray) -> None:
        sums[group].add_up(part, tile)

    def rank(part: slice) -> None:
        found = rank_groups(groups, controls, part, reach=reach, look=add_up)
        for mine, u, ties in zip(sums, *found, strict=True):
            mine.u[part], mine.ties[part] = u, ties

    with Threads(threads) as pool:
        groups = list(pool.map(lambda pieces: _collect(pieces(), scaling, genes, dtype), sources))
        sums = [_Sums.empty(n_genes, dtype) for _ in groups]
        if total:
            list(pool.map(count, sums, sources))
        reach = span(chain.from_iterable(groups))
        list(pool.map(rank, cut(n_genes, 4 * threads)))
    return sums


def _jackknife(
    counts: np.ndarray, size: float, shares: Iterable, n_cells: int, *, target_sum: float
) -> np.ndarray:
    r"""Estimate how far a group's summed profile is off by chance: leave out one cell at a time.

    `counts` is the sum of its counts, ``(n_genes,)``, and `size` that over all genes; `shares` has
    some cells each. Returned is the variance of the profile, ``log1p(target_sum * counts / size)``,
    ``(n_genes,)``; 0 with less than two cells.

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
    for here, kept in shares:
        for (i, j), cell_size in zip(pairwise(kept.indptr), here.library_size, strict=True):
            rest = counts.copy()
            rest[kept.indices[i:j]] -= kept.data[i:j]
            if size > cell_size:
                rest *= target_sum / (size - cell_size)
            off = np.log1p(rest, out=rest) - profile
            total += off
            square += off * off
    return (n_cells - 1) / n_cells * (square - total**2 / n_cells)
