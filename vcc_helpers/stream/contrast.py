"""Every perturbation against the controls, in one reading of a file and a bounded memory.

Blocks of rows are read once, checked, and put on a :class:`~._shelf.Shelf`. Then the library sizes
are known, and one perturbation after the other is taken down, log-normalised, averaged and ranked
against the controls, which are sorted once. No perturbation knows of another: threads or processes
of a cluster come to the same bits.

Taught in: notebooks/11_rank_every_gene and notebooks/12_scale_out.

>>> from vcc_helpers.datasets import load_h1_sample
>>> found = contrast(load_h1_sample())
>>> found.groups.tolist(), found.p_value.shape
(['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X', 'non-targeting'], (5, 1000))
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY
from ..counts import Scaling
from ..presets import VCC2025, Preset
from . import _keep
from ._shelf import Shelf
from .blocks import ahead, at_hand, row_blocks
from .cluster import _on_cluster
from .look import Inspection
from .open import parse_memory
from .plan import Contrast, Needs, _Job, _plan
from .sums import _control_sums, _group_sums, _scaling, _spread


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
    rules: Preset = VCC2025,
    controls: anndata.AnnData | str | Path | None = None,
) -> Contrast:
    """Average every perturbation, and test every gene of it against the controls.

    A file is read once, its rows in any order. The result has the same bits whatever the storage,
    order of groups, memory, threads and client. With little memory, scratch data lie in the
    system's folder for them (``TMPDIR``), which is emptied at the end.

    Parameters
    ----------
    cache
        A folder to keep the result in, under a name made from the content of the cells, so that
        what is found there is never out of date.
    client
        A ``dask.distributed.Client`` whose workers see the same files, and share the perturbations.
        A file is then read in two passes; one that is sorted by perturbation reads far faster.
        `memory` holds for each worker. Cells that are not rows of a file are a ValueError.
    rules
        How the values are looked at, by a season.
    controls
        Cells, or a file, over the same genes, whose controls take the place of those of `cells`,
        which may then lack them. Both must be counts, scaled to one `target_sum`.
    """
    labels = {"perturbation_key": perturbation_key, "control": control, "controls": controls}
    job = _Job(cells, **labels, threads=threads, progress=progress, name=name, rules=rules)
    kept = _keep.place_of(job, cache) if cache else None
    found = _keep.load(kept) if kept else None
    if found is None:
        plan = _plan(job, parse_memory(memory), client=client)
        if progress:
            scratch = f" and {plan.scratch / 1e9:.1f} GB of scratch disk" if plan.scratch else ""
            tqdm.write(
                f"{name}: {job.cells.n_obs:,} cells x {job.cells.n_vars:,} genes will take about "
                f"{plan.memory / 1e9:.1f} GB of memory{scratch}"
            )
        found = _on_shelf(job, plan) if client is None else _on_cluster(job, plan, client, cache)
        if kept:
            _keep.save(kept, found)
    return found


def _on_shelf(job: _Job, plan: Needs) -> Contrast:
    def source(code: int) -> Iterator:
        elsewhere = at_hand(job.cells) or (job.reference and code == job.control)
        return job.pieces(code) if elsewhere else shelf.pieces(code)

    def rank(genes: slice, batches: list[list[int]]) -> Iterator:
        controls, sums = _control_sums(partial(source, job.control), scaling, genes, job)
        yield [job.control], [sums]
        total = job.rules.bulk_target_sum
        for batch in batches:
            sources = [partial(source, code) for code in batch]
            yield batch, _group_sums(sources, scaling, genes, controls, total, job.threads)

    with tempfile.TemporaryDirectory(prefix="vcc_") as folder:
        if plan.scratch > (free := shutil.disk_usage(folder).free):
            raise OSError(
                f"about {plan.scratch / 1e9:.1f} GB of scratch disk are needed in "
                f"{Path(folder).parent} and {free / 1e9:.1f} GB are free; free some, name another "
                "folder with TMPDIR, or allow more memory"
            )
        path = Path(folder) / "shelf" if plan.scratch else None
        with closing(Shelf(job.cells.n_vars, path)) as shelf:
            scaling = _read(job, plan, shelf)
            return _spread(job, plan, rank)


def _read(job: _Job, plan: Needs, shelf: Shelf) -> Scaling:
    """Read the file once: check it, find its scale, and shelve the cells that are not at hand."""
    inspection = Inspection(job.cells, name=job.name, tolerance=job.rules.tolerance)
    picked = at_hand(job.cells)

    def look(start: int, block) -> tuple:
        largest, _, whole = found = inspection.look(start, block)
        if picked:
            return start, block.shape[0], found, None
        rows = sparse.csr_matrix(block)
        small = np.min_scalar_type(int(largest)) if whole and largest < 2**32 else rows.dtype
        packed = shelf.pack(rows, job.codes[start : start + rows.shape[0]], small)
        return start, rows.shape[0], found, packed

    how = {"unit": " cells", "desc": f"read {job.name}", "disable": not job.progress}
    blocks = row_blocks(job.cells, block_rows=plan.block_rows)
    with (
        tqdm(total=job.cells.n_obs, **how) as bar,
        closing(ahead(look, blocks, threads=job.threads)) as looked_at,
    ):
        for start, n, found, packed in looked_at:
            inspection.add(*found)
            if packed:
                shelf.add(start, *packed)
            bar.update(n)
    job.check_unchanged()
    return _scaling(job, inspection.summary())
