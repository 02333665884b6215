"""What a group of cells comes to, gene by gene: sums, ranks among the controls, sampling variance.

Groups are done in batches, one stretch of genes after the other.

Taught in: notebooks/11_scale_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..counts import Scaling, ValueSummary, moments
from ..ranks import p_values
from ._engine import Controls, cut, rank_groups, sort_controls, span
from ._shelf import Rows, _genes_of
from .blocks import Threads, ahead
from .plan import Contrast, Needs, _Job
from .pseudobulk import log_entries


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
        from . import _kernels

        n_cells, size, square = 0, 0.0, np.zeros((1, len(self.counts)))
        for here, kept in (_share(scaling, *piece, genes) for piece in pieces()):
            self.counts[:] += np.bincount(kept.indices, kept.data, minlength=len(self.counts))
            each = np.repeat(here.divisor(slice(None), np.dtype("f8")), np.diff(kept.indptr))
            group = np.zeros(kept.shape[0], np.int64)
            entries = kept.data / each, kept.indices, kept.indptr
            _kernels.add_rows(*entries, group, self.scaled[None], square)
            n_cells, size = n_cells + kept.shape[0], size + here.library_size.sum()
        if total:
            shares = (_share(scaling, *piece, genes) for piece in pieces())
            self.sampling[:] = _jackknife(self.counts, size, shares, n_cells, target_sum=total)

    def add_up(self, part: slice, tile: np.ndarray) -> None:
        """Sum the cells, in their order; twice, once in the precision of the data."""
        from . import _kernels

        _kernels.add_in_order(tile, self.total[part], self.square[part])
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


def _scaling(job: _Job, found: ValueSummary) -> Scaling:
    """Refuse what the rules do not allow, and find the scale."""
    rules, size = job.rules, found.library_size
    if rules.counts_only and found.scale != "counts":
        raise ValueError(
            f"{job.name}: values have fractions; expected raw counts, whole and never negative: "
            "leave out normalisation and logarithm, or draw counts with emit.negative_binomial"
        )
    if rules.counts_only and (size > rules.most_counts).any():
        first = int(np.flatnonzero(size > rules.most_counts)[0])
        raise ValueError(
            f"{job.name}: cell {job.cells.obs_names[first]!r} has {size[first]:,.0f} counts; "
            f"expected at most {rules.most_counts:,.0f} a cell; scale its counts down"
        )
    return Scaling.of(found, rules.target_sum)


def _spread(job: _Job, plan: Needs, rank: Callable) -> Contrast:
    """Go through one stretch of genes after the other, and batch by batch through the groups.

    ``rank(genes, batches)`` yields each batch, and first the control by itself, with its sums.
    """
    n_genes, result = job.cells.n_vars, _empty_result(job)
    bar = tqdm(
        total=job.cells.n_obs * n_genes, unit=" values", unit_scale=True,
        desc=f"rank {job.name}", disable=not job.progress,
    )  # fmt: skip
    with bar:
        for first in range(0, n_genes, plan.genes):
            genes = slice(first, min(first + plan.genes, n_genes))
            # a cluster has tasks to cancel
            with closing(rank(genes, _batches(job, plan))) as ranked:
                for batch, found in ranked:
                    for code, sums in zip(batch, found, strict=True):
                        _settle(result, job, code, genes, sums)
                        bar.update(int(job.n_cells[code]) * (genes.stop - genes.start))
    return result


def _batches(job: _Job, plan: Needs) -> list[list[int]]:
    """Divide the groups, all but the control, into batches as full as the plan allows."""
    batches, room = [], 0
    for code in np.delete(np.arange(len(job.groups)), job.control).tolist():
        if not batches or job.n_values[code] > room:
            batches.append([])
            room = plan.batch
        batches[-1].append(code)
        room -= job.n_values[code]
    return batches


def _empty_result(job: _Job) -> Contrast:
    shape = len(job.groups), job.cells.n_vars
    tables = (np.empty(shape, job.dtype) for _ in range(3))
    p_value = np.empty((shape[0] - 1, shape[1]))
    of_counts = np.empty((3, shape[0] if job.rules.bulk_target_sum else 0, shape[1]))
    genes, control = pd.Index(job.cells.var_names, dtype=object), job.groups[job.control]
    return Contrast(job.groups, genes, control, job.n_cells, *tables, p_value, *of_counts)


def _settle(result: Contrast, job: _Job, code: int, genes: slice, sums: _Sums) -> None:
    """Turn one group's sums into its part of the result."""
    n = result.n_cells[code]
    result.mean[code, genes], result.variance[code, genes] = moments(sums.total, sums.square, n)
    result.mean_as_summed[code, genes] = sums.mean
    if job.rules.bulk_target_sum:
        result.counts[code, genes], result.sampling[code, genes] = sums.counts, sums.sampling
        result.scaled_mean[code, genes] = sums.scaled / n
    if code != job.control:
        row = code - (code > job.control)
        n_controls = result.n_cells[job.control]
        how = {"exact": job.rules.exact, "use_continuity": job.rules.use_continuity}
        result.p_value[row, genes] = p_values(sums.u, sums.ties, n, n_controls, **how)
