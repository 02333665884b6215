"""What a contrast will take, so that it stays within a memory: worked out before a value is read.

Taught in: notebooks/12_scale_out.

>>> from vcc_helpers.datasets import load_h1_sample
>>> needs(load_h1_sample(), memory="2GB").scratch
0
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np

from .blocks import BLOCK_VALUES, at_hand, first_values
from .engine import TILE_GENES
from .job import _Job
from .open import parse_memory

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
    shelved = 0 if client or at_hand(job.cells) else load.shelved
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
        # bytes of all cells on the shelf; the first ones tell whether values have fractions
        first = first_values(cells)
        with np.errstate(invalid="ignore"):  # NaN is told of later, in words
            value = self.itemsize if (np.floor(first) != first).any() else 2
        self.shelved = int(self.values) * (self.number + value)

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
