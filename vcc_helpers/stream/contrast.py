"""Every perturbation against the controls, in one reading of a file and a bounded memory.

Blocks of rows are read once, checked, and put on a :class:`~._shelf.Shelf`. Then the library sizes
are known, and one perturbation after the other is taken down, log-normalised, averaged and ranked
against the controls, which are sorted once. No perturbation knows of another: threads or processes
of a cluster come to the same bits.

Taught in: notebooks/10_rank_every_gene and notebooks/11_scale_out.

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
from pathlib import Path

import anndata
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY
from ..counts import Scaling
from ..presets import VCC2025, Preset
from . import _keep
from ._shelf import Shelf
from .blocks import at_hand, row_blocks
from .cluster import _on_cluster
from .look import Inspection
from .open import parse_memory
from .plan import Contrast, Needs, _Job, _plan
from .sums import _batch_of, _control_sums, _group_sums, _lent, _scaling, _spread, _take_in


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
    def rank(genes: slice, batches: list[slice]) -> Iterator:
        controls, sums = _control_sums(job, scaling, lent, genes, source)
        yield slice(job.control, job.control + 1), sums
        for codes in batches:
            batch = _batch_of(job, scaling, codes, genes, source)
            yield codes, _group_sums(batch, controls, job.threads)

    with tempfile.TemporaryDirectory(prefix="vcc_") as folder:
        if plan.scratch > (free := shutil.disk_usage(folder).free):
            raise OSError(
                f"about {plan.scratch / 1e9:.1f} GB of scratch disk are needed in "
                f"{Path(folder).parent} and {free / 1e9:.1f} GB are free; free some, name another "
                "folder with TMPDIR, or allow more memory"
            )
        path = Path(folder) / "shelf" if plan.scratch else None
        with closing(Shelf(job.cells.n_vars, path)) as shelf:
            source = job.pieces if at_hand(job.cells) else shelf.pieces
            scaling = _read(job, plan, shelf)
            lent = _lent(job, shelf)
            return _spread(job, plan, rank)


def _read(job: _Job, plan: Needs, shelf: Shelf) -> Scaling:
    """Read the file once: check it, find its scale, and shelve the cells that are not at hand."""
    inspection = Inspection(job.cells, name=job.name, tolerance=job.rules.tolerance)
    blocks = row_blocks(job.cells, block_rows=plan.block_rows)
    _take_in(job, blocks, inspection, job.codes, None if at_hand(job.cells) else shelf)
    job.check_unchanged()
    return _scaling(job, inspection.summary())
