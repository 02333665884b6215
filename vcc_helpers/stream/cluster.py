"""The same batches on the processes of a Dask cluster, which read the file for themselves.

Taught in: notebooks/11_scale_out.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import as_completed
from functools import lru_cache, partial
from pathlib import Path

import anndata
import numpy as np

from ..counts import Scaling
from ._engine import Controls
from ._shelf import Shelf, _pieces_of
from .look import inspect_values
from .open import open_cells
from .plan import Contrast, Needs, _Job
from .sums import _Batch, _control_sums, _group_sums, _lent, _scaling, _spread, _Sums


def _on_cluster(job: _Job, plan: Needs, client, cache: str | Path | None) -> Contrast:
    """Do the same with the processes of a Dask cluster, which share files in the folder `cache`."""
    path, rows_of = _in_file(job)
    how = {"name": job.name, "progress": job.progress, "tolerance": job.rules.tolerance}
    scaling = _scaling(job, inspect_values(job.cells, **how))
    lent = _lent(job, Shelf(job.cells.n_vars))
    with tempfile.TemporaryDirectory(prefix="vcc_", dir=cache) as folder:
        size = np.zeros(0)
        if scaling.library_size is not None:
            size = np.zeros(rows_of.max() + 1)
            size[rows_of] = scaling.library_size
        np.savez(Path(folder) / "scaling", size=size, target=scaling.target_sum)

        def rank(genes: slice, batches: list[slice]) -> Iterator:
            controls, sums = _control_sums(job, scaling, lent, genes, job.pieces)
            job.check_unchanged()
            for name, array in controls._asdict().items():
                np.save(Path(folder) / f"{genes.start}_{name}", array)
            yield slice(job.control, job.control + 1), sums
            with client.get_executor() as pool:
                submit = partial(pool.submit, _remote_sums, path, folder, genes)
                waiting = {}
                for batch in batches:
                    mine = np.flatnonzero((job.codes >= batch.start) & (job.codes < batch.stop))
                    group, n_cells = job.codes[mine] - batch.start, job.n_cells[batch]
                    total = job.rules.bulk_target_sum
                    waiting[submit(rows_of[mine], group, n_cells, total)] = batch
                try:
                    for future in as_completed(waiting):
                        found = _result(future, job)
                        job.check_unchanged()
                        yield waiting[future], found
                finally:
                    for future in waiting:
                        future.cancel()

        cores = client.ncores().values() or [1]  # none has come yet
        share = -(-int(job.n_values.sum()) // (4 * sum(cores)))
        batch = min(plan.batch // max(cores), share)  # a worker may do as many as it has cores
        return _spread(job, plan._replace(batch=batch), rank)


def _in_file(job: _Job) -> tuple[Path, np.ndarray]:
    """Return the file that the cells are of, and their rows in it; a view has some of these."""
    path, rows = job.path, np.arange(job.cells.n_obs)
    if path is None and job.cells.isbacked and job.cells.is_view:
        whole = job.cells._adata_ref
        if whole.var_names.equals(job.cells.var_names):
            path, rows = Path(job.cells.filename), np.arange(whole.n_obs)[job.cells._oidx]
    if path is None:
        raise ValueError(
            f"{job.name}: workers of a cluster read the file for themselves; give its path"
        )
    return path.resolve(), rows


def _result(future, job: _Job) -> _Sums:
    try:
        return future.result()
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{job.name}: a worker does not see {error.filename}; put the file, and the folder of "
            "cache=, where all workers see them"
        ) from error


def _remote_sums(
    path: Path,
    folder: str,
    genes: slice,
    rows: np.ndarray,
    group: np.ndarray,
    n_cells: np.ndarray,
    total: float | None,
) -> _Sums:
    """Do a batch in a process that shares nothing but files."""
    cells = _opened(path, os.stat(path).st_mtime_ns)
    with np.load(Path(folder) / "scaling.npz") as kept:
        scaling = Scaling(kept["size"] if len(kept["size"]) else None, float(kept["target"]))
    parts = (Path(folder) / f"{genes.start}_{name}.npy" for name in Controls._fields)
    controls = Controls(*(np.load(part, mmap_mode="r") for part in parts))
    controls = controls._replace(n_cells=int(controls.n_cells))
    groups = np.zeros(cells.n_obs, np.int64)
    groups[rows] = group
    pieces, dtype = partial(_pieces_of, cells, rows), controls.values.dtype
    batch = _Batch(pieces, groups, n_cells, scaling, genes, dtype, total)
    return _group_sums(batch, controls, threads=1)


@lru_cache(maxsize=2)
def _opened(path: Path, changed: int) -> anndata.AnnData:
    return open_cells(path)
