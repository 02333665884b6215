"""What a group of cells comes to, gene by gene: sums, ranks among the controls, sampling variance.

Groups are done in batches, one stretch of genes after the other.

Taught in: notebooks/11_scale_out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from ..counts import Scaling, ValueSummary, moments
from ..ranks import p_values
from ._engine import Controls, cut, rank_groups, sort_controls, span
from ._shelf import Rows, Shelf, _genes_of, _pieces_of
from .blocks import Threads, ahead, in_csr, part_of
from .look import Inspection
from .plan import Contrast, Needs, _Job
from .pseudobulk import log_entries

#: Values of profiles that are left out of at a time, few enough for the processor's second cache.
_AT_ONCE = 2**17
#: Tests whose p-values are computed at a time.
_TESTS = 2**20


class _Batch(NamedTuple):
    """Some groups of cells, and what is wanted of them.

    `pieces`, called as often as the cells are needed, gives them a few at a time: the numbers of
    rows, those of one group rising, and the rows. `group` is the number, from 0, of each row's
    group, and `n_cells` how many each has, ``(n_groups,)``; `scaling` is that of all rows. `total`
    is what summed counts are scaled to; None where values are averaged.
    """

    pieces: Callable[[], Iterator]
    group: np.ndarray
    n_cells: np.ndarray
    scaling: Scaling
    genes: slice
    dtype: np.dtype
    total: float | None

    @property
    def ends(self) -> np.ndarray:
        """Where each group's cells begin when they are lined up, and the last one's end."""
        return np.cumsum([0, *self.n_cells])

    def taken(self) -> Iterator[tuple[Scaling, Rows, np.ndarray]]:
        """Yield the cells with their scale, and the number of each one's group."""
        for rows, piece in self.pieces():
            size = self.scaling.library_size
            here = self.scaling._replace(library_size=None if size is None else size[rows])
            yield here, _genes_of(piece, self.genes), self.group[rows]


def _batch_of(job: _Job, scaling: Scaling, codes: slice, genes: slice, source: Callable) -> _Batch:
    """Put some groups of a file together; ``source(first, stop)`` gives the cells of some codes."""
    pieces, group = partial(source, codes.start, codes.stop), job.codes - codes.start
    asked = genes, job.dtype, job.rules.bulk_target_sum
    return _Batch(pieces, group, job.n_cells[codes], scaling, *asked)


class _Sums(NamedTuple):
    """What groups come to, ``(n_groups, n_genes)`` each; without a row where it is not asked."""

    total: np.ndarray
    square: np.ndarray
    mean: np.ndarray
    counts: np.ndarray
    scaled: np.ndarray
    sampling: np.ndarray
    u: np.ndarray
    ties: np.ndarray

    @classmethod
    def empty(cls, batch: _Batch) -> _Sums:
        n, n_genes = len(batch.n_cells), batch.genes.stop - batch.genes.start
        asked = [batch.total is None] * 3 + [batch.total is not None] * 3 + [True] * 2
        types = (batch.dtype if name == "mean" else "f8" for name in cls._fields)
        return cls(*(np.zeros((n * a, n_genes), t) for a, t in zip(asked, types, strict=True)))


def _collect(batch: _Batch, sums: _Sums, threads: int) -> tuple[list[Rows], list[np.ndarray]]:
    """Log-normalise the cells, and sum counts; return the rows, and their place when lined up."""
    from . import _kernels

    def logged(here: Scaling, kept, group: np.ndarray) -> tuple:
        number = np.uint16 if kept.shape[1] <= 2**16 else np.int32
        values = log_entries(here, kept.data, kept.indptr, slice(None), dtype=batch.dtype)
        rows = Rows(values, kept.indices.astype(number, copy=False), kept.indptr, kept.shape)
        return here, kept, group, rows

    blocks, columns, free = [], [], batch.ends[:-1]
    with closing(ahead(logged, batch.taken(), threads=threads)) as done:
        for here, kept, group, rows in done:
            blocks.append(rows)
            columns.append(np.empty(len(group), np.int64))
            _kernels.line_up(group, free, columns[-1])
            if batch.total:
                by = here.divisor(slice(None), np.dtype("f8"))
                entries = kept.data, kept.indices, kept.indptr
                _kernels.add_counts(*entries, group, by, sums.counts, sums.scaled)
    return blocks, columns


def _adder(batch: _Batch, sums: _Sums) -> Callable | None:
    """Return what sums each group's cells, in their order; twice, once in the data's precision."""
    from . import _kernels

    ends = batch.ends

    def add_up(part: slice, tile: np.ndarray) -> None:
        _kernels.add_in_order(tile, ends, sums.total[:, part], sums.square[:, part])
        for mean, cells in zip(sums.mean, pairwise(ends), strict=True):
            tile[:, slice(*cells)].mean(axis=1, out=mean[part])

    return None if batch.total else add_up


def _control_sums(
    job: _Job, scaling: Scaling, lent: _Lent | None, genes: slice, source: Callable
) -> tuple[Controls, _Sums]:
    """Sort the controls, the file's own or those of another, and sum them."""
    one = slice(job.control, job.control + 1)
    batch = _batch_of(job, scaling, one, genes, source)
    if lent:
        group = np.zeros(batch.n_cells[0], np.int64)
        batch = batch._replace(pieces=lent.pieces, group=group, scaling=lent.scaling)
    sums = _Sums.empty(batch)
    blocks, columns = _collect(batch, sums, job.threads)
    if batch.total:
        _jackknife(batch, sums, job.threads)
    how = {"columns": columns, "threads": job.threads, "look": _adder(batch, sums)}
    return sort_controls(blocks, **how), sums


def _group_sums(batch: _Batch, controls: Controls, threads: int) -> _Sums:
    """Do what there is to do for some groups."""
    sums, ends = _Sums.empty(batch), batch.ends
    blocks, columns = _collect(batch, sums, threads)
    how = {"reach": span(blocks), "columns": columns, "look": _adder(batch, sums)}

    def rank(part: slice) -> None:
        sums.u[:, part], sums.ties[:, part] = rank_groups(blocks, ends, controls, part, **how)

    with Threads(threads) as pool:
        list(pool.map(rank, cut(sums.u.shape[1], 4 * threads)))
    if batch.total:
        _jackknife(batch, sums, threads)
    return sums


def _jackknife(batch: _Batch, sums: _Sums, threads: int) -> None:
    r"""Estimate how far groups' summed profiles are off by chance: leave out one cell at a time.

    Fills in the variance of a profile, ``log1p(total * counts / counts.sum())``; 0 with less than
    two cells.

    .. math:: C_g = \frac{n - 1}{n} \sum_i (v_{ig} - \bar v_g)^2, \qquad
              v_{ig} = \log\left(1 + T \frac{P_g - y_{ig}}{S - s_i}\right)

    where P are the sums and S their total, y the counts of cell i and s their total. Without a cell
    every gene of the profile moves, also those it has no counts of. Cells count in their order, so
    that the bits do not hang on how they are stored. Source: cell-eval2 0.20.0,
    ``jackknife_correction``.
    """
    from . import _kernels

    counts, n_genes, free = sums.counts, sums.counts.shape[1], batch.ends[:-1]
    size = np.zeros(batch.ends[-1])
    for here, _, group in batch.taken():
        place = np.empty(len(group), np.int64)
        _kernels.line_up(group, free, place)
        size[place] = here.library_size
    size = np.array([size[slice(*cells)].sum() for cells in pairwise(batch.ends)])
    asked = (batch.n_cells > 1) & (size > 0)
    profile = np.log1p(batch.total * counts / np.where(asked, size, 1)[:, None])
    total, square = sums.sampling, np.zeros_like(sums.sampling)

    def strips() -> Iterator[tuple]:
        for here, kept, group in batch.taken():
            rows, step = np.flatnonzero(asked[group]), max(1, _AT_ONCE // n_genes)
            rest = size[group] - here.library_size
            factor = np.divide(batch.total, rest, out=np.ones(len(rest)), where=rest > 0)
            for some in (rows[i : i + step] for i in range(0, len(rows), step)):
                yield kept, some, group[some], factor[some]

    def left(kept, rows: np.ndarray, group: np.ndarray, factor: np.ndarray) -> tuple:
        rest, entries = np.empty((len(rows), n_genes)), (kept.data, kept.indices, kept.indptr)
        _kernels.leave_out(*entries, rows, group, counts, factor, rest)
        return group, np.log1p(rest, out=rest)

    with closing(ahead(left, strips(), threads=threads)) as done:
        for group, rest in done:
            _kernels.add_off(rest, profile, group, total, square)
    n = np.maximum(batch.n_cells, 1)[:, None]
    sums.sampling[:] = (n - 1) / n * (square - total**2 / n)


def _take_in(
    job: _Job, blocks: Iterable, inspection: Inspection, codes: np.ndarray, shelf: Shelf | None
) -> None:
    """Look at blocks of rows, of whose groups `codes` are the numbers, and shelve them."""

    def look(start: int, block) -> tuple:
        largest, _, whole = found = inspection.look(start, block)
        if shelf is None:
            return start, block.shape[0], found, None
        rows = in_csr(block)
        small = np.min_scalar_type(int(largest)) if whole and largest < 2**32 else rows.dtype
        packed = shelf.pack(rows, codes[start : start + rows.shape[0]], small)
        return start, rows.shape[0], found, packed

    how = {"unit": " cells", "desc": f"read {inspection.name}", "disable": not job.progress}
    with (
        tqdm(total=len(codes), **how) as bar,
        closing(ahead(look, blocks, threads=job.threads)) as looked_at,
    ):
        for start, n, found, packed in looked_at:
            inspection.add(*found)
            if packed:
                shelf.add(start, *packed)
            bar.update(n)


class _Lent(NamedTuple):
    """Controls of another file, on the shelf."""

    pieces: Callable[[], Iterator]
    scaling: Scaling


def _lent(job: _Job, shelf: Shelf) -> _Lent | None:
    """Put the controls of another file on the shelf, where the job has some."""
    if job.reference is None:
        return None
    cells, rows = job.reference.cells, job.reference.rows

    def blocks() -> Iterator:
        start = 0
        for part, block in _pieces_of(cells, rows):
            yield start, block
            start += len(part)

    inspection = Inspection(part_of(cells, rows), name="controls", tolerance=job.rules.tolerance)
    _take_in(job, blocks(), inspection, np.full(len(rows), job.control), shelf)
    job.check_unchanged()
    scaling = Scaling(inspection.library_size, job.rules.target_sum)
    return _Lent(partial(shelf.pieces, job.control), scaling)


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

    ``rank(genes, batches)`` yields each batch and its sums, and first the control by itself.
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
                for batch, sums in ranked:
                    _settle(result, job, batch, genes, sums)
                    bar.update(int(job.n_cells[batch].sum()) * (genes.stop - genes.start))
    return result


def _batches(job: _Job, plan: Needs) -> list[slice]:
    """Divide the groups into batches as full as the plan allows, without the control."""
    batches, room = [], 0
    for code in np.delete(np.arange(len(job.groups)), job.control).tolist():
        if not batches or job.n_values[code] > room or code == job.control + 1:
            batches.append(slice(code, code))
            room = plan.batch
        batches[-1] = slice(batches[-1].start, code + 1)
        room -= job.n_values[code]
    return batches


def _empty_result(job: _Job) -> Contrast:
    shape, of_counts = (len(job.groups), job.cells.n_vars), bool(job.rules.bulk_target_sum)
    means = (np.empty((shape[0] * (not of_counts), shape[1]), job.dtype) for _ in range(3))
    sums = np.empty((3, shape[0] * of_counts, shape[1]))
    genes, control = pd.Index(job.cells.var_names, dtype=object), job.groups[job.control]
    p_value = np.empty((shape[0] - 1, shape[1]))
    return Contrast(job.groups, genes, control, job.n_cells, *means, p_value, *sums)


def _settle(result: Contrast, job: _Job, batch: slice, genes: slice, sums: _Sums) -> None:
    """Turn the sums of some groups into their part of the result."""
    n = result.n_cells[batch][:, None]
    if job.rules.bulk_target_sum:
        result.counts[batch, genes], result.sampling[batch, genes] = sums.counts, sums.sampling
        result.scaled_mean[batch, genes] = sums.scaled / n
    else:
        mean, result.variance[batch, genes] = moments(sums.total, sums.square, n)
        result.mean[batch, genes], result.mean_as_summed[batch, genes] = mean, sums.mean
    if batch.start != job.control:
        row = batch.start - (batch.start > job.control)
        n_controls, step = result.n_cells[job.control], max(1, _TESTS // sums.u.shape[1])
        how = {"exact": job.rules.exact, "use_continuity": job.rules.use_continuity}
        for some in (slice(i, i + step) for i in range(0, len(n), step)):
            found = p_values(sums.u[some], sums.ties[some], n[some], n_controls, **how)
            result.p_value[row + some.start : row + some.start + len(found), genes] = found
