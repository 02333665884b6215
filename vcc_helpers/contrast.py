"""Every perturbation against the controls, in one reading of a file and a bounded memory.

The way of the data: blocks of rows are read once, checked, and put on a :class:`~.shelf.Shelf` by
perturbation. Then the library sizes are known, and one perturbation after the other is taken down,
log-normalised, averaged and ranked against the controls, which are sorted once. No perturbation
knows of another: threads, processes of a cluster, or a run that goes on after an interruption come
to the same bits.

Taught in: notebooks/11_rank_every_gene and notebooks/12_scale_out.
Needs: cells.py, effects.py, files.py, kernels.py, ranksum.py, shelf.py, storage.py.

>>> from vcc_helpers.datasets import load_h1_sample
>>> found = contrast(load_h1_sample())
>>> found.groups.tolist(), found.p_value.shape
(['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X', 'non-targeting'], (5, 1000))
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, contextmanager, suppress
from functools import lru_cache, partial
from itertools import chain, pairwise
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
    Inspection,
    ValueSummary,
    check_cells,
    inspect_values,
    labels_of,
    open_cells,
    parse_memory,
    read_rows,
    row_blocks,
)
from .effects import Scaling, jackknife, moments
from .files import replacing
from .ranksum import (
    TILE_GENES,
    Controls,
    cut,
    n_threads,
    p_values,
    rank_groups,
    sort_controls,
    span,
)
from .shelf import Rows, Shelf
from .storage import (
    BLOCK_VALUES,
    ahead,
    at_hand,
    first_values,
    most_entries,
    stored_blocks,
    stored_matrix,
)

#: What Python and the libraries take before any cell is read, in bytes.
LIBRARIES = 400 * 10**6
#: Bytes that are kept of a file for each perturbation and gene, with the false discovery rate.
RESULT = 100
#: The same for what is kept of counts.
RESULT_OF_COUNTS = 72
#: Genes that are looked at together at the least, when memory is short.
FEWEST_GENES = 64
#: Fewest values that are read at a time; fewer would take more time for each row than for it.
LEAST_BLOCK = 2**18
#: Values that are ranked together at the least, memory permitting.
LEAST_BATCH = 2**25
#: The fields of a :class:`Contrast` that hold names.
NAMES = ("groups", "genes", "control")


class Contrast(NamedTuple):
    """What scoring needs of a file.

    Attributes
    ----------
    groups
        Names of all groups, sorted, the control among them, ``(n_groups,)``.
    genes
        Names of the genes, ``(n_genes,)``.
    control
        The control's name.
    n_cells
        Cells of each group, ``(n_groups,)``.
    mean, variance
        Pseudobulk: mean lognorm value and its variance between cells, ``(n_groups, n_genes)``,
        float32 (float64 where the file is). Sums are float64.
    mean_as_summed
        The mean once more, summed in the file's own precision as NumPy sums a row: the last digit
        of a fold change hangs on it.
    p_value
        Two-sided rank-sum p-value of each group but the control, ``(n_groups - 1, n_genes)``,
        float64.
    counts, scaled_mean, sampling
        Of counts, where :attr:`Question.bulk_target_sum` asks for them, else without a row: their
        sum, the mean of the scaled values before the logarithm, and the sampling variance of
        ``log1p(bulk_target_sum * counts / counts.sum())``, ``(n_groups, n_genes)``, float64; the
        last is 0 for controls of another file.
    """

    groups: pd.Index
    genes: pd.Index
    control: str
    n_cells: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    mean_as_summed: np.ndarray
    p_value: np.ndarray
    counts: np.ndarray
    scaled_mean: np.ndarray
    sampling: np.ndarray


class Question(NamedTuple):
    """How a file is looked at; as the rules of 2025 do, unless told.

    Attributes
    ----------
    target_sum
        The total that each cell is scaled to before the logarithm; None for the median of the
        file.
    dtype
        What is computed in, ``"float64"``; None for the precision of the file.
    counts_only
        Refuse values with fractions.
    tolerance
        A value has a fraction if it is further from a whole number; None for 1e-3.
    most_counts
        Refuse a cell with more counts.
    bulk_target_sum
        Sum the counts of each group, too, and estimate the sampling variance of the logarithm of
        these sums, scaled to this total; None for no.
    exact, use_continuity
        As for :func:`~vcc_helpers.ranksum.p_values`.
    """

    target_sum: float | None = None
    dtype: str | None = None
    counts_only: bool = False
    tolerance: float | None = None
    most_counts: float = np.inf
    bulk_target_sum: float | None = None
    exact: bool = True
    use_continuity: bool = True


class _Reference(NamedTuple):
    """Control cells of another file.

    Attributes
    ----------
    cells, path, rows
        The file's cells, where it is, and which of them are controls.
    n_values
        At most so many of their values are above zero.
    """

    cells: anndata.AnnData
    path: Path | None
    rows: np.ndarray
    n_values: int

    @classmethod
    def of(cls, source, *, perturbation_key, control) -> _Reference:
        cells = open_cells(source)
        check_cells(cells, perturbation_key=perturbation_key, control=control, name="controls")
        rows = np.flatnonzero(labels_of(cells, perturbation_key) == control)
        return cls(cells, _path_of(source), rows, int(most_entries(cells)[rows].sum()))

    def check(self, cells: anndata.AnnData, question: Question, name: str) -> None:
        """Raise unless these controls can be held against those cells."""
        if not np.array_equal(self.cells.var_names, cells.var_names):
            raise ValueError(f"controls: other genes than {name}; expected the same, in one order")
        if question.target_sum is None or not question.counts_only:
            raise ValueError(
                "controls of another file need counts on both sides and one scale for all; give a "
                "question with counts_only and a target_sum"
            )

    def pieces(self) -> Iterator:
        """Take the controls down a few at a time."""
        return _pieces_of(self.cells, self.rows)


class Needs(NamedTuple):
    """What a :func:`contrast` will take.

    Attributes
    ----------
    memory
        Bytes at the peak, the libraries counted in, cells that are in memory already not.
    scratch
        Bytes of scratch disk.
    genes
        Genes that are looked at together; fewer than there are when memory is short, and then the
        scratch file is read several times.
    batch
        Values of the perturbations that are ranked together: about as many as the controls', so
        that to walk along the controls costs no more than the values themselves.
    block_rows
        Rows read at a time.
    """

    memory: int
    scratch: int
    genes: int
    batch: int
    block_rows: int


class _Job(NamedTuple):
    """One file and what is asked of it.

    Attributes
    ----------
    cells, name, path
        The cells, what messages call them, and their file where they are all of one.
    codes, groups, control
        Group of each cell, ``(n_cells,)``; names of the groups; which of them is the control.
    n_cells, n_values
        Cells of each group, and at most so many values above zero, ``(n_groups,)``.
    dtype
        float32 or float64.
    threads
        Number of threads.
    progress
        Whether to show bars.
    stamp
        What the files looked like before anything was read.
    question
        How the values are looked at.
    reference
        Where the controls come from; None for these very cells.
    """

    cells: anndata.AnnData
    name: str
    path: Path | None
    codes: np.ndarray
    groups: pd.Index
    control: int
    n_cells: np.ndarray
    n_values: np.ndarray
    dtype: np.dtype
    threads: int
    progress: bool
    stamp: tuple
    question: Question = Question()
    reference: _Reference | None = None

    @classmethod
    def of(
        cls,
        source,
        *,
        perturbation_key,
        control,
        threads=None,
        progress=False,
        name="cells",
        question=None,
        controls=None,
    ) -> _Job:
        """Open the cells, check labels and gene names, and count; no value is read."""
        stamp = _stamp(_path_of(source))
        cells, question, reference = open_cells(source), question or Question(), None
        keys = {"perturbation_key": perturbation_key}
        check_cells(cells, **keys, control=None if controls is not None else control, name=name)
        labels = labels_of(cells, perturbation_key)
        if controls is not None:
            stamp += _stamp(_path_of(controls))
            reference = _Reference.of(controls, **keys, control=control)
            reference.check(cells, question, name)
        groups = pd.Index(sorted({*labels, control}), dtype=object)
        place, codes = int(groups.get_loc(control)), groups.get_indexer(labels)
        if reference:
            codes[codes == place] = -1
        kept = codes >= 0
        n_cells = np.bincount(codes[kept], minlength=len(groups))
        n_values = np.bincount(codes[kept], most_entries(cells)[kept], minlength=len(groups))
        if reference:
            n_cells[place], n_values[place] = len(reference.rows), reference.n_values
        return cls(
            cells,
            name,
            _path_of(source),
            codes,
            groups,
            place,
            n_cells,
            n_values,
            _precision(cells, question),
            n_threads(threads),
            progress,
            stamp,
            question,
            reference,
        )


def _precision(cells: anndata.AnnData, question: Question) -> np.dtype:
    stored = stored_matrix(cells).dtype
    double = stored.kind == "f" and stored.itemsize == 8
    return np.dtype(question.dtype or (np.float64 if double else np.float32))


def contrast(
    cells: anndata.AnnData | str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    threads: int | None = None,
    cache: str | Path | None = None,
    client=None,
    progress: bool = False,
    name: str = "cells",
    question: Question | None = None,
    controls: anndata.AnnData | str | Path | None = None,
) -> Contrast:
    """Average every perturbation, and test every gene of it against the controls.

    Parameters
    ----------
    cells
        Counts or lognorm, ``(n_cells, n_genes)``; dense, CSR, CSC, a view, backed, or the path of
        an ``.h5ad`` or ``.zarr``. Rows in any order. A file is read once.
    perturbation_key
        The column of ``obs`` to group by.
    control
        The label of control cells.
    memory
        Most memory to use, in bytes or as text such as ``"4GB"``; cells that are in memory already
        do not count. With little memory, scratch data lie in the system's folder for them
        (``TMPDIR``), which is emptied at the end.
    threads
        Number of threads; all cores by default.
    cache
        A folder to keep the result in, under a name made from the content of the cells, so that
        what is found there is never out of date; and each finished perturbation, so that the same
        call goes on where an earlier one was stopped.
    client
        A ``dask.distributed.Client`` whose workers see the same files: perturbations are then
        spread over them. A file is then read in two passes; one that is sorted by perturbation
        reads far faster. `memory` holds for each worker.
    progress
        Say what it will take, and show progress bars.
    name
        What messages call these cells.
    question
        How the values are looked at; as the rules of 2025 do, by default.
    controls
        Cells, or a file, whose controls take the place of those of `cells`, which may then lack
        them; over the same genes. Both must be counts, scaled to one `target_sum`. These rows are
        read twice more.

    Returns
    -------
    Contrast
        The same bits whatever the storage, order of groups, memory, threads and client.

    Raises
    ------
    ValueError
        Labels, gene names or values are unusable; `memory` is too small; the file was changed
        while it was read; or `client` was given with cells that are not a whole file.
    OSError
        The disk is full, or a folder cannot be written to.

    Notes
    -----
    Taught in: notebooks/12_scale_out.
    """
    job = _Job.of(
        cells,
        perturbation_key=perturbation_key,
        control=control,
        threads=threads,
        progress=progress,
        name=name,
        question=question,
        controls=controls,
    )
    keeper = _Keeper(job, cache)
    return keeper.result() or keeper.keep(_contrast(job, parse_memory(memory), keeper, client))


def _path_of(source: anndata.AnnData | str | Path) -> Path | None:
    if isinstance(source, str | Path):
        return Path(source).resolve()
    if not isinstance(source, anndata.AnnData):  # open_cells will tell
        return None
    return Path(source.filename).resolve() if source.isbacked and not source.is_view else None


def needs(
    cells: anndata.AnnData | str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    memory: int | float | str = "4GB",
    threads: int | None = None,
) -> Needs:
    """Tell what a :func:`contrast` would take, without reading the values.

    Parameters
    ----------
    cells, perturbation_key, control, memory, threads
        As for :func:`contrast`.

    Returns
    -------
    Needs
        The fewest passes that fit the memory.

    Raises
    ------
    ValueError
        Nothing fits; says how much would.

    Notes
    -----
    Taught in: notebooks/12_scale_out.
    """
    job = _Job.of(cells, perturbation_key=perturbation_key, control=control, threads=threads)
    return _plan(job, parse_memory(memory))


def _plan(job: _Job, memory: int, *, client=None) -> Needs:
    """Work out how to stay within so many bytes."""
    load = _Load.of(job)
    shelved = 0 if client or at_hand(job.cells) else load.shelved
    if plan := load.plan(load.n_genes, memory - shelved):
        return plan._replace(memory=plan.memory + shelved)
    n_passes = range(1, max(2, load.n_genes // FEWEST_GENES + 1))
    for genes in (-(-load.n_genes // n) for n in n_passes):
        if plan := load.plan(genes, memory):
            return plan._replace(scratch=shelved)
    least = load.peak(genes, load.largest, int(min(load.controls + load.others, LEAST_BLOCK)))
    raise ValueError(
        f"{job.name}: memory of {memory / 1e6:.0f} MB is too small for {job.cells.n_obs:,} cells x "
        f"{load.n_genes:,} genes; give at least '{-(-least // 10**6)}MB'"
    )


class _Load(NamedTuple):
    """What weighs in a job, in numbers of values and cells, or in bytes.

    Attributes
    ----------
    n_genes, threads, itemsize
        Genes, threads, bytes of a logarithm.
    controls, control_cells
        Values and cells of the controls.
    others, largest, per_cell
        Values of all other groups, and of the largest of them, and of one of their cells.
    fixed
        Bytes that nothing changes: libraries, labels, results.
    shelved
        Bytes of all cells on the shelf.
    """

    n_genes: int
    threads: int
    itemsize: int
    controls: float
    control_cells: int
    others: float
    largest: float
    per_cell: float
    fixed: int
    shelved: int

    @classmethod
    def of(cls, job: _Job) -> _Load:
        cells, n_controls = job.cells, int(job.n_cells[job.control])
        others = np.delete(job.n_values, job.control)
        each = RESULT + (RESULT_OF_COUNTS if job.question.bulk_target_sum else 0)
        results = each * len(job.groups) * cells.n_vars
        labels = 64 * cells.n_obs + 3 * int(cells.obs.memory_usage(deep=True).sum())
        number = 2 if cells.n_vars <= 2**16 else 4
        return cls(
            cells.n_vars,
            job.threads,
            job.dtype.itemsize,
            job.n_values[job.control],
            n_controls,
            others.sum(),
            others.max(),
            others.sum() / np.delete(job.n_cells, job.control).sum(),
            LIBRARIES + results + labels,
            int(job.n_values.sum())
            * (number + (job.dtype.itemsize if _has_fractions(cells) else 2)),
        )

    def peak(self, genes: int, batch: float, block: int) -> int:
        """Estimate the most memory: while reading, sorting the controls, or ranking a batch."""
        share, entry = genes / self.n_genes, self.itemsize + (2 if self.n_genes <= 2**16 else 4)
        tile = [
            self.threads * min(TILE_GENES, genes) * n * self.itemsize
            for n in (self.control_cells, batch / max(self.per_cell, 1))
        ]
        reading = 16 * (1 + self.threads) * max(block, self.n_genes)
        sorting = share * self.controls * 2 * entry + tile[0]
        ranking = share * (self.controls * self.itemsize + batch * 1.6 * entry) + 3 * tile[1]
        return int(self.fixed + max(reading, sorting, ranking))

    def plan(self, genes: int, room: int) -> Needs | None:
        """Find the largest batch that fits, but no larger than is of use."""
        free = max(0, room - self.fixed) // 3
        most = int(min(BLOCK_VALUES // 2, self.controls + self.others))
        block = max(min(most, LEAST_BLOCK), min(most, free // (16 * (1 + self.threads))))
        useful = max(self.largest, min(self.others, max(self.controls, LEAST_BATCH)))
        for batch in np.linspace(useful, self.largest, 8):
            if (memory := self.peak(genes, batch, block)) <= room:
                rows = min(4096, max(1, block // self.n_genes))
                return Needs(memory, 0, genes, int(batch), rows)
        return None


def _has_fractions(cells: anndata.AnnData) -> bool:
    """Guess from the first cells whether values are fractional, which takes more bytes."""
    values = first_values(cells)
    return bool((np.floor(values) != values).any())


def _contrast(job: _Job, memory: int, keeper: _Keeper, client) -> Contrast:
    plan = _plan(job, memory, client=client)
    if job.progress:
        scratch = f" and {plan.scratch / 1e9:.1f} GB of scratch disk" if plan.scratch else ""
        tqdm.write(
            f"{job.name}: {job.cells.n_obs:,} cells x {job.cells.n_vars:,} genes will take about "
            f"{plan.memory / 1e9:.1f} GB of memory{scratch}"
        )
    if client is not None:
        return _on_cluster(job, plan, keeper, client)
    with _scratch(plan.scratch) as folder:
        path = folder / "shelf" if plan.scratch else None
        shelf = Shelf(n_genes=job.cells.n_vars, path=path)
        try:
            source, scaling = _read(job, plan, shelf, keeper)
            return _rank(job, plan, keeper, _with_reference(job, source), scaling)
        finally:
            shelf.close()


@contextmanager
def _scratch(n_bytes: int) -> Iterator[Path]:
    """Make a folder that goes away, where so much fits."""
    with tempfile.TemporaryDirectory(prefix="vcc_") as folder:
        if n_bytes > (free := shutil.disk_usage(folder).free):
            raise OSError(
                f"about {n_bytes / 1e9:.1f} GB of scratch disk are needed in {Path(folder).parent} "
                f"and {free / 1e9:.1f} GB are free; free some, name another folder with TMPDIR, or "
                "allow more memory"
            )
        yield Path(folder)


def _read(job: _Job, plan: Needs, shelf: Shelf, keeper: _Keeper):
    """Read the file once: check it, find its scale, and shelve the cells that are wanted."""
    done = [c for c in keeper.finished(plan.genes) if c != job.control]  # all need the controls
    codes = np.where(np.isin(job.codes, done), -1, job.codes)
    inspection = Inspection(job.cells, name=job.name, tolerance=job.question.tolerance)
    picked = at_hand(job.cells)
    bar = tqdm(
        total=job.cells.n_obs, unit=" cells", desc=f"read {job.name}", disable=not job.progress
    )

    def look(start: int, block) -> tuple:
        found = inspection.look(start, block)
        if picked:
            return block.shape[0], found, None
        rows = sparse.csr_matrix(block)
        packed = shelf.pack(rows, codes[start : start + rows.shape[0]], whole=found[-1])
        return rows.shape[0], found, packed

    with bar:
        blocks, start = row_blocks(job.cells, block_rows=plan.block_rows), 0
        with closing(ahead(look, blocks, threads=job.threads)) as looked_at:
            for n, found, packed in looked_at:
                inspection.add(*found)
                if packed:
                    shelf.add(start, *packed)
                start += n
                bar.update(n)
    _check_unchanged(job)
    source = _pieces_at_hand(job) if picked else shelf.pieces
    return source, _scaling(job, inspection.summary())


def _scaling(job: _Job, found: ValueSummary) -> Scaling:
    """Refuse what the question does not allow, and find the scale."""
    question, size = job.question, found.library_size
    if question.counts_only and found.scale != "counts":
        raise ValueError(
            f"{job.name}: values have fractions; expected raw counts, whole and never negative: "
            "leave out normalisation and logarithm, or draw counts with emit.negative_binomial"
        )
    if question.counts_only and (size > question.most_counts).any():
        first = int(np.flatnonzero(size > question.most_counts)[0])
        raise ValueError(
            f"{job.name}: cell {job.cells.obs_names[first]!r} has {size[first]:,.0f} counts; "
            f"expected at most {question.most_counts:,.0f} a cell; scale its counts down"
        )
    return Scaling.of(found, question.target_sum)


def _check_unchanged(job: _Job) -> None:
    other = _stamp(job.reference.path) if job.reference else ()
    if _stamp(job.path) + other != job.stamp:
        raise ValueError(
            f"{job.name}: {job.path} was changed while it was read; wait until it is "
            "written, and run again"
        )


def _stamp(path: Path | None) -> tuple:
    """Describe all files of a path, so that a change shows."""
    if path is None or not path.exists():
        return ()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _pieces_at_hand(job: _Job) -> Callable[[int], Iterator]:
    """Take a group's rows from the matrix in memory, or from a file."""
    return lambda code: _pieces_of(job.cells, np.flatnonzero(job.codes == code))


def _with_reference(job: _Job, source: Callable[[int], Iterator]) -> Callable[[int], Iterator]:
    """Take the controls from elsewhere, where that was asked for."""
    if job.reference is None:
        return source
    return lambda code: job.reference.pieces() if code == job.control else source(code)


def _pieces_of(cells: anndata.AnnData, rows: np.ndarray) -> Iterator:
    """Take some rows a few at a time."""
    n = max(1, BLOCK_VALUES // cells.n_vars)
    for part in (rows[start : start + n] for start in range(0, len(rows), n)):
        yield part, sparse.csr_matrix(read_rows(cells, part))


def _collect(pieces, scaling, genes: slice, dtype, *, threads: int = 1) -> list[Rows]:
    """Log-normalise a group piece by piece, and keep some of its genes.

    `scaling` is that of the file, or a function of a piece where the file was not looked at before.
    """

    def logged(rows: np.ndarray, piece) -> Rows:
        kept = _genes_of(piece, genes)
        number = np.uint16 if piece.shape[1] <= 2**16 else np.int32
        here, rows = _scaling_of(scaling, rows, piece)
        values = here.apply_to_entries(kept.data, kept.indptr, rows, dtype=dtype)
        return Rows(values, kept.indices.astype(number, copy=False), kept.indptr, kept.shape)

    with closing(ahead(logged, pieces, threads=threads)) as done:
        return list(done)


def _scaling_of(scaling, rows: np.ndarray, piece) -> tuple[Scaling, object]:
    """Return the scaling of a piece, and where in it the library sizes of these rows are."""
    return (scaling, rows) if isinstance(scaling, Scaling) else (scaling(piece), slice(None))


def _scaling_by_piece(target_sum: float, piece) -> Scaling:
    total = np.concatenate([[0.0], np.cumsum(piece.data, dtype=np.float64)])
    return Scaling(total[piece.indptr[1:]] - total[piece.indptr[:-1]], target_sum)


def _genes_of(piece, genes: slice) -> Rows:
    """Keep the entries of some genes."""
    from . import kernels

    if genes.stop - genes.start == piece.shape[1]:
        return piece
    ends = np.empty((2, piece.shape[0]), np.int64)
    for gene, place in zip((genes.start, genes.stop), ends, strict=True):
        kernels.seek(piece.indices, piece.indptr[:-1], piece.indptr[1:], gene, place)
    kept = (piece.indices >= genes.start) & (piece.indices < genes.stop)
    indptr = np.concatenate([[0], np.cumsum(ends[1] - ends[0])])
    shape = piece.shape[0], genes.stop - genes.start
    return Rows(piece.data[kept], piece.indices[kept] - genes.start, indptr, shape)


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
            self.sampling[:] = jackknife(self.counts, size, left_out, n_cells, target_sum=total)

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
        scaling = partial(_scaling_by_piece, job.question.target_sum)
    pieces = partial(source, job.control)
    blocks = _collect(pieces(), scaling, genes, job.dtype, threads=job.threads)
    sums = _Sums.empty(genes.stop - genes.start, job.dtype)
    if total := job.question.bulk_target_sum:
        sums.count(pieces, scaling, genes, None if job.reference else total)  # done where they are
    return sort_controls(blocks, threads=job.threads, look=sums.add_up), sums


def _group_sums(
    sources, scaling, genes: slice, controls: Controls, threads: int, total: float | None
) -> list[_Sums]:
    """Do what there is to do for a few groups; `sources` gives the pieces of each."""
    with ThreadPoolExecutor(threads) as pool:
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


def _rank(job: _Job, plan: Needs, keeper: _Keeper, source, scaling: Scaling) -> Contrast:
    def prepare(genes: slice) -> tuple[_Sums, Callable]:
        controls, sums = _control_sums(source, scaling, genes, job)
        total = job.question.bulk_target_sum

        def run(batches: list[list[int]]) -> Iterator:
            for batch in batches:
                sources = [partial(source, code) for code in batch]
                yield batch, _group_sums(sources, scaling, genes, controls, job.threads, total)

        return sums, run

    return _spread(job, plan, keeper, prepare)


def _spread(job: _Job, plan: Needs, keeper: _Keeper, prepare) -> Contrast:
    """Go through one stretch of genes after the other, and batch by batch through the groups."""
    n_genes, result = job.cells.n_vars, _empty_result(job)
    bar = tqdm(
        total=job.cells.n_obs * n_genes, unit=" values", unit_scale=True,
        desc=f"rank {job.name}", disable=not job.progress,
    )  # fmt: skip
    with bar:
        for first in range(0, n_genes, plan.genes):
            genes = slice(first, min(first + plan.genes, n_genes))
            with closing(_results_of(job, plan, genes, keeper, prepare)) as results:
                for code, sums in results:
                    _settle(result, job, code, genes, sums)
                    bar.update(int(job.n_cells[code]) * (genes.stop - genes.start))
    return result


def _results_of(job: _Job, plan: Needs, genes: slice, keeper: _Keeper, prepare) -> Iterator:
    """Yield each group's sums: those that an earlier run kept first, the others as they come."""
    found = {code: keeper.load(code, genes) for code in range(len(job.groups))}
    missing = [code for code, sums in found.items() if sums is None]
    yield from ((code, sums) for code, sums in found.items() if sums is not None)
    if not missing:
        return
    sums, run = prepare(genes)  # the controls are needed whatever is missing
    if job.control in missing:
        missing.remove(job.control)
        yield job.control, keeper.save(job.control, genes, sums)
    with closing(run(_batches(job, plan, missing))) as done:  # on a cluster it has tasks to cancel
        for batch, results in done:
            for code, sums in zip(batch, results, strict=True):
                yield code, keeper.save(code, genes, sums)


def _batches(job: _Job, plan: Needs, codes: list[int]) -> list[list[int]]:
    """Deal the groups into batches, each as full as the plan allows."""
    batches, room = [], 0
    for code in codes:
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
    of_counts = np.empty((3, shape[0] if job.question.bulk_target_sum else 0, shape[1]))
    genes, control = pd.Index(job.cells.var_names, dtype=object), job.groups[job.control]
    return Contrast(job.groups, genes, control, job.n_cells, *tables, p_value, *of_counts)


def _settle(result: Contrast, job: _Job, code: int, genes: slice, sums: _Sums) -> None:
    """Turn one group's sums into its part of the result."""
    n = result.n_cells[code]
    result.mean[code, genes], result.variance[code, genes] = moments(sums.total, sums.square, n)
    result.mean_as_summed[code, genes] = sums.mean
    if job.question.bulk_target_sum:
        result.counts[code, genes], result.sampling[code, genes] = sums.counts, sums.sampling
        result.scaled_mean[code, genes] = sums.scaled / n
    if code != job.control:
        row = code - (code > job.control)
        n_controls = result.n_cells[job.control]
        how = {"exact": job.question.exact, "use_continuity": job.question.use_continuity}
        result.p_value[row, genes] = p_values(sums.u, sums.ties, n, n_controls, **how)


def _on_cluster(job: _Job, plan: Needs, keeper: _Keeper, client) -> Contrast:
    """Do the same with the processes of a Dask cluster, which read the file for themselves."""
    if job.path is None:
        raise ValueError(
            f"{job.name}: workers of a cluster read the file for themselves; give its path"
        )
    found = inspect_values(
        job.cells, name=job.name, progress=job.progress, tolerance=job.question.tolerance
    )
    scaling, source = _scaling(job, found), _with_reference(job, _pieces_at_hand(job))
    with tempfile.TemporaryDirectory(prefix="vcc_", dir=keeper.folder) as folder:
        size = np.zeros(0) if scaling.library_size is None else scaling.library_size
        np.savez(Path(folder) / "scaling", size=size, target=scaling.target_sum)

        def prepare(genes: slice) -> tuple[_Sums, Callable]:
            controls, sums = _control_sums(source, scaling, genes, job)
            _check_unchanged(job)
            for name, array in controls._asdict().items():
                np.save(Path(folder) / f"{genes.start}_{name}", array)

            def run(batches: list[list[int]]) -> Iterator:
                rows = [[np.flatnonzero(job.codes == code) for code in batch] for batch in batches]
                with client.get_executor() as pool:
                    submit = partial(pool.submit, _remote_sums, job.path, folder, genes)
                    total = job.question.bulk_target_sum
                    parts = zip(rows, batches, strict=True)
                    waiting = {submit(part, total): batch for part, batch in parts}
                    try:
                        for future in as_completed(waiting):
                            try:
                                sums = future.result()
                            except FileNotFoundError as error:
                                raise FileNotFoundError(
                                    f"{job.name}: a worker does not see {error.filename}; put the "
                                    "file, and the folder of cache=, where all workers see them"
                                ) from error
                            _check_unchanged(job)  # or what is kept would be of another file
                            yield waiting[future], sums
                    finally:
                        for future in waiting:
                            future.cancel()

            return sums, run

        cores = client.ncores().values() or [1]  # none has come yet
        share = -(-int(job.n_values.sum()) // (4 * sum(cores)))
        batch = min(plan.batch // max(cores), share)  # a worker may do as many as it has cores
        return _spread(job, plan._replace(batch=batch), keeper, prepare)


def _remote_sums(
    path: Path, folder: str, genes: slice, rows: list[np.ndarray], total: float | None
) -> list[_Sums]:
    """Do a batch in a process that shares nothing but files."""
    cells = _opened(path, os.stat(path).st_mtime_ns)
    with np.load(Path(folder) / "scaling.npz") as kept:
        scaling = Scaling(kept["size"] if len(kept["size"]) else None, float(kept["target"]))
    parts = (Path(folder) / f"{genes.start}_{name}.npy" for name in Controls._fields)
    controls = Controls(*(np.load(part, mmap_mode="r") for part in parts))
    controls = controls._replace(n_cells=int(controls.n_cells))
    sources = [partial(_pieces_of, cells, r) for r in rows]
    return _group_sums(sources, scaling, genes, controls, 1, total)


@lru_cache(maxsize=2)
def _opened(path: Path, changed: int) -> anndata.AnnData:
    return open_cells(path)


class _Keeper:
    """Keeps what is finished in a folder, or, without one, nothing.

    The name of what is kept comes from the content of the cells, the question and this code.
    """

    def __init__(self, job: _Job, cache: str | Path | None):
        self.folder, self.job = Path(cache) if cache else None, job
        self.found: dict[int, _Sums] = {}
        if self.folder:
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(f"{self.folder} is no folder; name another to keep in")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path = self.folder / f"contrast-{_content_key(job)}.npz"
            self.parts = self.path.with_suffix(".parts")

    def result(self) -> Contrast | None:
        """Return the whole result, if it is there and sound."""
        kept = _load(self.path, Contrast._fields) if self.folder else None
        if kept is None:
            return None
        groups, genes, control = (json.loads(str(kept.pop(name))) for name in NAMES)
        groups, genes = (pd.Index(names, dtype=object) for names in (groups, genes))
        return Contrast(groups, genes, control, **kept)

    def keep(self, result: Contrast) -> Contrast:
        """Keep the whole result in place of its parts."""
        if self.folder:
            tables = result._asdict()
            for name in NAMES:  # as JSON: an array of objects would have to be pickled
                tables[name] = json.dumps(np.asarray(tables[name]).tolist())
            _save(self.path, tables)
            shutil.rmtree(self.parts, ignore_errors=True)
        return result

    def finished(self, n_genes: int) -> list[int]:
        """Return the groups of which nothing is missing when so many genes are looked at together.

        They are held: who leaves out their cells must not miss them later, when the file is gone.
        """
        if self.folder and n_genes == self.job.cells.n_vars:
            found = {c: self.load(c, slice(0, n_genes)) for c in range(len(self.job.groups))}
            self.found = {code: sums for code, sums in found.items() if sums is not None}
        return list(self.found)

    def load(self, code: int, genes: slice) -> _Sums | None:
        """Return what an earlier run found for a group."""
        if code in self.found:
            return self.found[code]
        kept = _load(self._part(code, genes), _Sums._fields) if self.folder else None
        return _Sums(**kept) if kept else None

    def save(self, code: int, genes: slice, sums: _Sums) -> _Sums:
        """Keep what was found for a group."""
        if self.folder:
            # another process that is done may remove the parts at any moment
            with suppress(FileNotFoundError, FileExistsError):
                self.parts.mkdir(exist_ok=True)
                _save(self._part(code, genes), sums._asdict())
        return sums

    def _part(self, code: int, genes: slice) -> Path:
        return self.parts / f"{code}-{genes.start}-{genes.stop}.npz"


def _save(path: Path, arrays: dict) -> None:
    with replacing(path) as part:
        np.savez(part, **arrays)


def _load(path: Path, names: tuple[str, ...]) -> dict | None:
    """Read what :func:`_save` wrote; None if absent or damaged, as each array's checksum shows."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            if kept.zip.testzip() is None:  # np.load ends with the last value it wants, and may
                return {name: kept[name] for name in names}  # never come to the checksum
    except Exception:  # a damaged archive raises any of a dozen errors
        pass
    return None


def _content_key(job: _Job) -> str:
    """Hash all that the result depends on: cells, labels, question, and this code."""
    found = hashlib.sha256()
    here = Path(__file__).parent
    for name in ("cells", "contrast", "effects", "kernels", "ranksum", "shelf", "storage"):
        found.update((here / f"{name}.py").read_bytes())
    asked = [job.groups.tolist(), job.control, job.cells.var_names.tolist(), *job.question]
    found.update(json.dumps(asked).encode())
    found.update(job.codes.astype(np.int64).tobytes())
    _hash_values(found, job.cells, job.path)
    if job.reference:
        found.update(job.reference.rows.tobytes())
        _hash_values(found, job.reference.cells, job.reference.path)
    return found.hexdigest()[:32]


def _hash_values(found, cells: anndata.AnnData, path: Path | None) -> None:
    if path and path.is_file():
        with path.open("rb") as file:
            while chunk := file.read(2**24):
                found.update(chunk)
        return
    for _, block in stored_blocks(cells):
        rows = sparse.csr_matrix(block)
        for array in (rows.data, rows.indices, rows.indptr):
            found.update(str(array.dtype).encode())
            found.update(np.ascontiguousarray(array))
