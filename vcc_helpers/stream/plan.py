"""What a contrast asks of a file, and what it will take to stay within a memory; no value is read.

Taught in: notebooks/11_scale_out.

>>> from vcc_helpers.datasets import load_h1_sample
>>> needs(load_h1_sample(), memory="2GB").scratch
0
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY
from ..presets import VCC2025, Preset
from ._engine import TILE_GENES, n_threads
from ._shelf import _pieces_of
from .blocks import BLOCK_VALUES, at_hand, first_values, most_entries, stored_matrix
from .open import check_cells, labels_of, open_cells, parse_memory

#: What Python and the libraries take before any cell is read, in bytes.
_LIBRARIES = 400 * 10**6
#: Bytes that are kept of a file for each perturbation and gene, with the false discovery rate; and
#: of counts besides.
_RESULT, _RESULT_OF_COUNTS = 100, 72
#: Genes that are looked at together at the least, when memory is short.
_FEWEST_GENES = 64
#: Fewest values that are read at a time; fewer would take more time for each row than for it.
_LEAST_BLOCK = 2**18
#: Values that are ranked together at the least, memory permitting.
LEAST_BATCH = 2**25


class Contrast(NamedTuple):
    """What scoring needs of a file; a row per group, a column per gene.

    `groups` are the names of all groups, sorted, the `control` among them, `n_cells` their cells,
    and `genes` the names of the genes. `p_value` is the two-sided rank-sum p-value of each group
    but the control, ``(n_groups - 1, n_genes)``, float64.

    Without a row where the rules have a ``bulk_target_sum``: `mean` and `variance`, the pseudobulk,
    mean lognorm value and its variance between cells, float32 (float64 where the file is), of
    float64 sums; `mean_as_summed`, the mean once more, summed in the file's own precision as NumPy
    sums a row: the last digit of a fold change hangs on it.

    Without a row where they have none: `counts`, their sum; `scaled_mean`, the mean of the scaled
    values before the logarithm; and `sampling`, the sampling variance of ``log1p(bulk_target_sum *
    counts / counts.sum())``, float64.
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


class _Reference(NamedTuple):
    """Control cells of another file, and which rows they are."""

    cells: anndata.AnnData
    path: Path | None
    rows: np.ndarray


class _Job:
    """One file and what is wanted of it: the door, behind which groups are numbers.

    `codes` are the group of each cell, -1 for those left out, ``(n_cells,)``; `groups` their names
    and `control` the place of one of them; `n_cells` and `n_values` the cells of each group, and at
    most so many values above zero. `path` is the file where the cells are all of one, `stamp` what
    the files looked like at first, `reference` the controls where they come from another file.
    """

    def __init__(
        self,
        source,
        *,
        perturbation_key: str = PERTURBATION_KEY,
        control: str = CONTROL,
        threads: int | None = None,
        progress: bool = False,
        name: str = "cells",
        rules: Preset = VCC2025,
        controls=None,
    ):
        def opened(source, name: str, control: str | None) -> tuple:
            path = _path_of(source)
            stamp, cells = _stamp(path), open_cells(source)
            check_cells(cells, perturbation_key=perturbation_key, control=control, name=name)
            return stamp, labels_of(cells, perturbation_key), cells, path

        self.name, self.threads = name, n_threads(threads)
        self.progress, self.rules, self.reference = progress, rules, None
        here = None if controls is not None else control
        self.stamp, labels, self.cells, self.path = opened(source, name, here)
        if controls is not None:
            stamp, others, *found = opened(controls, "controls", None)  # no others need be there
            if control not in others:
                words = {"perturbation_key": perturbation_key, "control": control}
                check_cells(found[0], **words, name="controls")
            self.stamp += stamp
            self.reference = _Reference(*found, np.flatnonzero(others == control))
            self._check_reference()
        self.groups = pd.Index(sorted({*labels, control}), dtype=object)
        self.control, self.codes = self.groups.get_loc(control), self.groups.get_indexer(labels)
        if self.reference:
            self.codes[self.codes == self.control] = -1
        kept, n = self.codes >= 0, len(self.groups)
        self.n_cells = np.bincount(self.codes[kept], minlength=n)
        self.n_values = np.bincount(self.codes[kept], most_entries(self.cells)[kept], minlength=n)
        if self.reference:
            rows = self.reference.rows
            self.n_cells[self.control] = len(rows)
            self.n_values[self.control] = most_entries(self.reference.cells)[rows].sum()
        double = stored_matrix(self.cells).dtype.str[1:] == "f8"
        self.dtype = np.dtype(rules.dtype or ("f8" if double else "f4"))

    def _check_reference(self) -> None:
        """Raise unless the controls of another file can be held against these cells."""
        if not np.array_equal(self.reference.cells.var_names, self.cells.var_names):
            raise ValueError(
                f"controls: other genes than {self.name}; expected the same, in one order"
            )
        if self.rules.target_sum is None or not self.rules.counts_only:
            raise ValueError(
                "controls of another file need counts on both sides and one scale for all; "
                f"{self.rules.name} lacks counts_only or a target_sum"
            )

    def pieces(self, code: int, stop: int) -> Iterator:
        """Take some groups' rows from the matrix in memory, or from a file, a few at a time."""
        return _pieces_of(self.cells, np.flatnonzero((self.codes >= code) & (self.codes < stop)))

    def check_unchanged(self) -> None:
        """Raise if a file is no longer what it was when it was opened."""
        other = _stamp(self.reference.path) if self.reference else ()
        if _stamp(self.path) + other != self.stamp:
            raise ValueError(
                f"{self.name}: {self.path} was changed while it was read; wait until it is "
                "written, and run again"
            )


def _path_of(source: anndata.AnnData | str | Path) -> Path | None:
    if isinstance(source, str | Path):
        return Path(source).resolve()
    if not isinstance(source, anndata.AnnData):  # open_cells will tell
        return None
    return Path(source.filename).resolve() if source.isbacked and not source.is_view else None


def _stamp(path: Path | None) -> tuple:
    """Describe all files of a path, so that a change shows."""
    if path is None or not path.exists():
        return ()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


class Needs(NamedTuple):
    """What a :func:`~.stream.contrast` will take.

    `memory` is in bytes at the peak, the libraries counted in, cells that are in memory already
    not; `scratch` in bytes of disk. `genes` are looked at together; fewer than there are when
    memory is short, and then the scratch file is read several times. `batch` is how many values of
    the perturbations are ranked together: about as many as the controls', so that to walk along the
    controls costs no more than the values themselves. `block_rows` are read at a time.
    """

    memory: int
    scratch: int
    genes: int
    batch: int
    block_rows: int


def needs(
    cells: anndata.AnnData | str | Path, *, memory: int | float | str = "4GB", **asked
) -> Needs:
    """Tell what a :func:`~.stream.contrast` would take; no value is read.

    `asked` are other parameters of it: perturbation_key, control, threads. Returned are the fewest
    passes that fit the memory; a ValueError says how much would.
    """
    return _plan(_Job(cells, **asked), parse_memory(memory))


def _plan(job: _Job, memory: int, *, client=None) -> Needs:
    """Work out how to stay within so many bytes."""
    load = _Load(job)
    lent = job.n_values[job.control] if job.reference else 0
    own = 0 if client or at_hand(job.cells) else job.n_values.sum() - lent
    shelved = int(own + lent) * load.shelved
    if plan := load.plan(load.n_genes, memory - shelved):
        return plan._replace(memory=plan.memory + shelved)
    n_passes = range(1, max(2, load.n_genes // _FEWEST_GENES + 1))
    for genes in (-(-load.n_genes // n) for n in n_passes):
        if plan := load.plan(genes, memory):
            return plan._replace(scratch=shelved)
    least = load.peak(genes, load.largest, int(min(load.values, _LEAST_BLOCK)))
    raise ValueError(
        f"{job.name}: memory of {memory / 1e6:.0f} MB is too small for {job.cells.n_obs:,} cells x "
        f"{load.n_genes:,} genes; give at least '{-(-least // 10**6)}MB'"
    )


class _Load:
    """What weighs in a job, in numbers of values and cells, or in bytes."""

    def __init__(self, job: _Job):
        cells, others = job.cells, np.delete(job.n_values, job.control)
        self.n_genes, self.threads, self.values = cells.n_vars, job.threads, job.n_values.sum()
        # bytes of a logarithm, and of a gene's number
        self.itemsize, self.number = job.dtype.itemsize, 2 if cells.n_vars <= 2**16 else 4
        # values and cells of the controls; values of all other groups, the largest, one cell
        self.controls, self.control_cells = job.n_values[job.control], job.n_cells[job.control]
        self.others, self.largest = others.sum(), others.max()
        self.per_cell = self.others / np.delete(job.n_cells, job.control).sum()
        # bytes that nothing changes: libraries, labels, results
        labels = 64 * cells.n_obs + 3 * int(cells.obs.memory_usage(deep=True).sum())
        each = _RESULT + (_RESULT_OF_COUNTS if job.rules.bulk_target_sum else 0)
        self.fixed = _LIBRARIES + each * len(job.groups) * cells.n_vars + labels
        # bytes of a value on the shelf; the first ones tell whether values have fractions
        first = first_values(cells)
        with np.errstate(invalid="ignore"):  # NaN is told of later, in words
            value = self.itemsize if (np.floor(first) != first).any() else 2
        self.shelved = self.number + value

    def peak(self, genes: int, batch: float, block: int) -> int:
        """Estimate the most memory: while reading, sorting the controls, or ranking a batch."""
        share, entry = genes / self.n_genes, self.itemsize + self.number
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
        most = int(min(BLOCK_VALUES // 2, self.values))
        block = max(min(most, _LEAST_BLOCK), min(most, free // (16 * (1 + self.threads))))
        useful = max(self.largest, min(self.others, max(self.controls, LEAST_BATCH)))
        for batch in np.linspace(useful, self.largest, 8):
            if (memory := self.peak(genes, batch, block)) <= room:
                rows = min(4096, max(1, block // self.n_genes))
                return Needs(memory, 0, genes, int(batch), rows)
        return None
