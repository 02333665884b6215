"""Sort a file's cells by perturbation, whatever its size, within a memory bound.

The official files list cells in the order they were measured. Sorted, each perturbation is one
stretch of rows, which can be read alone; with counts in their smallest type, and compressed, the
file is several times smaller too.

How: one pass over the file appends each row, in compact form, to one of a few bucket files. A
bucket is a stretch of the output that fits the memory. A second pass loads a bucket at a time,
puts its rows in order and writes them.

Taught in: notebooks/02_from_counts_to_effects.

>>> import tempfile
>>> from pathlib import Path
>>> from vcc_helpers.datasets import load_h1_sample
>>> path = sort_cells(load_h1_sample(), Path(tempfile.mkdtemp()) / "sorted.h5ad")
>>> anndata.read_h5ad(path).obs["target_gene"].unique().tolist()
['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X', 'non-targeting']
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from ..bulk import PERTURBATION_KEY
from .blocks import (
    BLOCK_VALUES,
    most_entries,
    pack_chunk,
    stored_blocks,
    stored_matrix,
    stored_rows,
)
from .open import labels_of, open_cells, parse_memory
from .write import FULL, check_writable, hdf5, write_anndata

try:
    import fcntl
except ImportError:  # Windows: two runs at once are then not kept apart
    fcntl = None
#: What Python and the libraries take before any cell is read, in bytes.
LIBRARIES = 300 * 10**6
#: The least room for cells beside that.
LEAST_ROOM = 64 * 10**6
#: Entries in a compressed chunk of the output, 1 MB of gene numbers, which HDF5 caches by default.
CHUNK = 2**18
#: In front of all that is written to the working folder; a change of layout changes it.
_LAYOUT = 1


class _Plan(NamedTuple):
    """Source row of each output row, first output row of each bucket, rows read at a time."""

    order: np.ndarray
    edges: np.ndarray
    block_rows: int


def sort_cells(
    source: anndata.AnnData | str | Path,
    path: str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    memory: int | float | str = "4GB",
    progress: bool = False,
) -> Path:
    """Write a file whose rows are grouped by perturbation; the counts stay exactly the same.

    Parameters
    ----------
    source
        Cells in any order of rows, ``(n_cells, n_genes)``, dense, CSR or CSC, or the path of an
        ``.h5ad``. A file is read a block of rows at a time, and never changed.
    path
        The ``.h5ad`` to write. One that exists is replaced at the end, in one step.
    perturbation_key
        The column of ``obs`` to group by.
    memory
        Most memory to use, in bytes or as text such as ``"4GB"``; a source that is in memory
        already does not count.
    progress
        Say how much disk is needed, and show progress bars.

    Returns
    -------
    Path
        `path`. Groups are in the order of their names, as :func:`~vcc_helpers.pseudobulk` has
        them; within a group, the order of the source is kept. ``X`` is CSR, in the smallest of
        uint8, uint16 and uint32 that holds every value when all are whole and not negative, else
        in the source's type; compressed with shuffle and gzip, which every reader of ``.h5ad``
        knows. Zeros that are stored are dropped; repeated entries are summed.

    Raises
    ------
    KeyError
        ``obs`` has no column `perturbation_key`.
    ValueError
        A cell has no label; `path` is the source; there is no cell or no gene; `memory` is too
        small; or the source was changed while it was read.
    OSError
        The folder is missing or cannot be written to, the disk is too small, or another process
        is sorting to the same path.

    Warns
    -----
    UserWarning
        The source has layers or ``raw``; they are not carried over. All else is: ``obs``,
        ``var``, ``uns``, ``obsm``, ``varm``, ``obsp`` and ``varp``, which are held in memory.

    Notes
    -----
    Work in progress lies in the folder ``<path>.sorting``, which is removed at the end. After an
    interruption, or when the disk ran full, the same call goes on where it stopped, if source and
    settings are the same; else it starts anew.
    """
    path = Path(path)
    check_writable(path)
    cells = open_cells(source)
    try:
        _check_source(cells, path)
        plan = _plan(cells, labels_of(cells, perturbation_key), parse_memory(memory))
        _warn_of_losses(cells)
        _sort(cells, path, plan, progress)
    finally:
        if cells is not source:
            cells.file.close()
    return path


def _sort(cells: anndata.AnnData, path: Path, plan: _Plan, progress: bool) -> None:
    identity = _identity(cells, plan)
    with _working_folder(path) as folder:
        with _full_disk_explained(folder):
            journal = _read_journal(folder, identity)
        if not journal:
            _check_disk(cells, plan, folder, progress)
        with _full_disk_explained(folder):
            try:
                journal += _fill_buckets(cells, plan, folder, journal, progress)
                _write_sorted(cells, plan, folder, journal, progress)
            except ValueError:
                if _identity(cells, plan) != identity:  # what is done is of no use
                    shutil.rmtree(folder)
                raise
            _finish(folder, path, changed=_identity(cells, plan) != identity)


def _finish(folder: Path, path: Path, *, changed: bool) -> None:
    """Give the output its name; or, if the source was changed, start anew the next time."""
    if not changed:
        os.replace(folder / "sorted.h5ad", path)
    shutil.rmtree(folder)
    if changed:
        raise ValueError(
            "the source was changed while it was read; nothing was written; sort again"
        )


def _check_source(cells: anndata.AnnData, path: Path) -> None:
    if 0 in cells.shape:
        raise ValueError(
            f"nothing to sort: shape {cells.shape}; expected a cell and a gene at least"
        )
    if cells.isbacked and path.exists() and os.path.samefile(cells.filename, path):
        raise ValueError(f"{path} is the file to be sorted; name another file to write")


def _warn_of_losses(cells: anndata.AnnData) -> None:
    layers = [name for name in cells.layers if name is not None]  # anndata 0.13 counts X as one
    lost = [f"layers[{name!r}]" for name in layers] + ["raw"] * (cells.raw is not None)
    if lost:
        warnings.warn(f"not carried over to the sorted file: {', '.join(lost)}", stacklevel=3)


def _plan(cells: anndata.AnnData, labels: pd.Index, memory: int) -> _Plan:
    codes, _ = pd.factorize(labels, sort=True)
    order = np.argsort(codes, kind="stable")
    fixed, room = _fixed_memory(cells), max(LEAST_ROOM, 64 * cells.n_vars)
    if memory < fixed + room:
        raise ValueError(
            f"memory of {memory / 1e6:.0f} MB is too small to sort these {cells.n_obs} cells x "
            f"{cells.n_vars} genes; give at least '{-(-(fixed + room) // 10**6)}MB'"
        )
    room = memory - fixed
    # a bucket is held as it arrives and in order; a block as read, as CSR and in order
    bucket = room // (2 * stored_matrix(cells).dtype.itemsize + 12)
    block_rows = min(BLOCK_VALUES, room // 64) // cells.n_vars
    return _Plan(order, _cut(most_entries(cells)[order], bucket), min(4096, max(1, block_rows)))


def _fixed_memory(cells: anndata.AnnData) -> int:
    """Estimate what is held whatever the number of buckets: libraries, labels, row numbers."""
    return LIBRARIES + 3 * int(cells.obs.memory_usage(deep=True).sum()) + 64 * cells.n_obs


def _cut(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Cut rows into stretches whose sizes add up to at most `limit`, or of one row."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    edges = [0]
    while edges[-1] < len(sizes):
        end = int(np.searchsorted(total, total[edges[-1]] + limit, side="right")) - 1
        edges.append(max(edges[-1] + 1, end))
    return np.array(edges)


def _identity(cells: anndata.AnnData, plan: _Plan) -> dict:
    """Describe source and settings: what is on disk from another identity is of no use.

    Cells in memory and views have no name by which a later run could know them again.
    """
    file = os.stat(cells.filename) if cells.isbacked else None
    return {
        "layout": _LAYOUT,
        "source": str(Path(cells.filename).resolve()) if file and not cells.is_view else None,
        "size": file.st_size if file else 0,
        "changed": file.st_mtime_ns if file else 0,
        "shape": list(cells.shape),
        "type": str(stored_matrix(cells).dtype),
        "order": zlib.crc32(plan.order.tobytes()),
        "edges": plan.edges.tolist(),
        "block_rows": plan.block_rows,
    }


@contextmanager
def _working_folder(path: Path) -> Iterator[Path]:
    """Make the folder beside `path` and hold its lock, which ends with the process."""
    folder = path.with_name(path.name + ".sorting")
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock.fileno()).st_ino != os.stat(folder / "lock").st_ino:
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise BlockingIOError(
                errno.EAGAIN, f"another process is sorting to {path}; wait for it to end"
            ) from None
        yield folder


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL and "No space left" not in str(error):
            raise
        raise OSError(
            errno.ENOSPC,
            f"the disk of {folder} is full; free some space and call again: what is done is kept",
        ) from error


def _read_journal(folder: Path, identity: dict) -> list[dict]:
    """Return what earlier runs have done for good, one entry a block; forget the rest."""
    lines = list(_whole_lines(folder / "journal"))
    sizes = lines[-1].get("sizes", {}) if lines else {}
    known = lines and lines[0] == identity and identity["source"]
    if known and not _shorter(folder, sizes):
        for file in folder.iterdir():
            if file.name in sizes:
                os.truncate(file, sizes[file.name])
            elif file.name not in ("lock", "journal"):  # begun, but no block of it was finished
                file.unlink()
    else:
        for file in folder.iterdir():
            if file.name != "lock":
                file.unlink()
        lines = [identity]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "journal").write_text(text)
    return lines[1:]


def _whole_lines(file: Path) -> Iterator[dict]:
    for line in file.read_bytes().splitlines(keepends=True) if file.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:  # the last may have been cut
            return


def _shorter(folder: Path, sizes: dict) -> bool:
    files = [(folder / name, size) for name, size in sizes.items()]
    return any(not file.exists() or file.stat().st_size < size for file, size in files)


def _check_disk(cells: anndata.AnnData, plan: _Plan, folder: Path, progress: bool) -> None:
    scratch, final = _disk_needed(cells, plan)
    free = shutil.disk_usage(folder).free
    words = (
        f"sorting needs about {(scratch + final) / 1e9:.1f} GB of disk in {folder.parent}, "
        f"{final / 1e9:.1f} GB of it for good; {free / 1e9:.1f} GB are free"
    )
    if scratch + final > free:
        shutil.rmtree(folder)
        raise OSError(errno.ENOSPC, words)
    if progress:
        tqdm.write(words)


def _disk_needed(cells: anndata.AnnData, plan: _Plan) -> tuple[int, int]:
    """Estimate the bytes of all buckets, and of the output, from the first rows."""
    most, matrix = most_entries(cells), stored_matrix(cells)
    if getattr(matrix, "format", None) == "csc":  # read twice over: as rows, and in buckets
        n = matrix.nnz if sparse.issparse(matrix) else len(matrix.group["data"])
        return 2 * n * (matrix.dtype.itemsize + 4), n * (matrix.dtype.itemsize + 4)
    _, block = next(stored_rows(cells, np.arange(min(plan.block_rows, 64, cells.n_obs))))
    part = _without_zeros(block)
    values, genes = _compact(part.data), part.indices.astype(_gene_type(cells.n_vars))
    packed = len(pack_chunk(values)) + len(pack_chunk(part.indices.astype(np.int32)))
    scale = 1.1 * most.sum() / max(1, most[: part.shape[0]].sum())
    return int(scale * (values.nbytes + genes.nbytes)), int(scale * packed)


def _fill_buckets(
    cells: anndata.AnnData, plan: _Plan, folder: Path, journal: list[dict], progress: bool
) -> list[dict]:
    """Append every row to its bucket; a line of the journal tells that a block is done."""
    position = np.empty(cells.n_obs, dtype=np.int64)
    position[plan.order] = np.arange(cells.n_obs)
    bucket_of = np.searchsorted(plan.edges, position, side="right") - 1
    first, done = len(journal) * plan.block_rows, []
    sizes = dict(journal[-1]["sizes"]) if journal else {}
    blocks = stored_blocks(cells, block_rows=plan.block_rows, first_row=first, scratch=folder)
    bar = tqdm(
        total=cells.n_obs, initial=min(first, cells.n_obs), unit=" cells", desc="collect",
        disable=not progress,
    )  # fmt: skip
    with bar, (folder / "journal").open("a") as lines:
        for start, block in blocks if first < cells.n_obs else ():
            rows = slice(start, start + block.shape[0])
            entry = _append_block(block, position[rows], bucket_of[rows], folder, sizes, cells)
            done.append(entry)
            lines.write(json.dumps(entry) + "\n")
            lines.flush()
            bar.update(block.shape[0])
    return done


def _append_block(block, position, bucket_of, folder: Path, sizes: dict, cells) -> dict:
    block = _without_zeros(block)
    lengths = np.diff(block.indptr).astype(np.int32)
    order = np.argsort(position)
    block = block[order]
    values, genes = _compact(block.data), block.indices.astype(_gene_type(cells.n_vars))
    buckets, first = np.unique(bucket_of[order], return_index=True)
    ends = block.indptr[[*first, len(order)]]
    for bucket, (low, high) in zip(buckets, pairwise(ends), strict=True):
        _append(folder, f"bucket_{bucket}", [values[low:high], genes[low:high]], sizes)
    _append(folder, "lengths", [lengths], sizes)
    return {"type": values.dtype.str, "sizes": dict(sizes)}


def _append(folder: Path, name: str, arrays: list[np.ndarray], sizes: dict) -> None:
    with (folder / name).open("ab") as file:
        for array in arrays:
            file.write(np.ascontiguousarray(array))  # unlike tofile, tells of a full disk
    sizes[name] = sizes.get(name, 0) + sum(array.nbytes for array in arrays)


def _without_zeros(block) -> sparse.csr_matrix:
    matrix = sparse.csr_matrix(block)
    if (matrix.data == 0).any():
        matrix = matrix.copy() if matrix is block else matrix
        matrix.eliminate_zeros()
    return matrix


def _compact(values: np.ndarray) -> np.ndarray:
    """Return whole numbers that are not negative in the smallest unsigned type, else `values`."""
    if values.dtype == bool or not values.size:
        return values.astype(np.uint8)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 2**32):  # NaN compares as false
        return values
    small = values.astype(np.min_scalar_type(int(np.ceil(high))))
    return small if (small == values).all() else values


def _gene_type(n_genes: int) -> type:
    return np.uint16 if n_genes <= 2**16 else np.int32


class _Buckets(NamedTuple):
    """The bucket files, entries of each source row, type of each block's values and of all."""

    folder: Path
    plan: _Plan
    lengths: np.ndarray
    types: list[np.dtype]
    dtype: np.dtype
    n_genes: int


def _load_bucket(buckets: _Buckets, bucket: int) -> sparse.csr_matrix:
    """Read a bucket, in which rows lie block after block, and put its rows in order."""
    plan = buckets.plan
    rows = plan.order[slice(*plan.edges[bucket : bucket + 2])]
    arrival = np.argsort(rows // plan.block_rows, kind="stable")
    rows = rows[arrival]
    indptr = np.concatenate([[0], np.cumsum(buckets.lengths[rows], dtype=np.int64)])
    values, genes = np.empty(indptr[-1], buckets.dtype), np.empty(indptr[-1], np.int32)
    blocks = rows // plan.block_rows
    starts = np.flatnonzero(np.diff(blocks, prepend=-1))
    with (buckets.folder / f"bucket_{bucket}").open("rb") as file:
        for start, stop in pairwise([*starts, len(rows)]):
            part = slice(indptr[start], indptr[stop])
            n = part.stop - part.start
            values[part] = np.fromfile(file, buckets.types[blocks[start]], n)
            genes[part] = np.fromfile(file, _gene_type(buckets.n_genes), n)
    shape = (len(rows), buckets.n_genes)
    return sparse.csr_matrix((values, genes, indptr), shape=shape)[np.argsort(arrival)]


class _ChunkWriter:
    """Appends arrays to a compressed dataset; the chunks are compressed in threads."""

    def __init__(self, dataset: h5py.Dataset, pool: ThreadPoolExecutor):
        self.dataset, self.pool = dataset, pool
        self.size = dataset.chunks[0]
        self.written = 0
        self.rest = np.empty(0, dataset.dtype)

    def add(self, array: np.ndarray) -> None:
        """Write as many whole chunks as there are; keep the rest for the next call."""
        first = np.concatenate([self.rest, array[: self.size - len(self.rest)]])
        array = array[len(first) - len(self.rest) :]
        if len(first) < self.size:
            self.rest = first
            return
        whole = len(array) - len(array) % self.size
        self._write([first])
        for start in range(0, whole, 64 * self.size):  # so few packed chunks are held at a time
            stop = min(start + 64 * self.size, whole)
            self._write([array[i : i + self.size] for i in range(start, stop, self.size)])
        self.rest = array[whole:].copy()

    def close(self) -> None:
        """Write the rest; HDF5 wants the last chunk whole too, and never shows its end."""
        if len(self.rest):
            self._write([np.pad(self.rest, (0, self.size - len(self.rest)))])

    def _write(self, chunks: list[np.ndarray]) -> None:
        for packed in self.pool.map(pack_chunk, chunks):
            self.dataset.id.write_direct_chunk((self.written,), packed)
            self.written += self.size


def _write_sorted(
    cells: anndata.AnnData, plan: _Plan, folder: Path, journal: list[dict], progress: bool
) -> None:
    """Write the output file, a bucket at a time."""
    types = [np.dtype(entry["type"]) for entry in journal]
    unsigned = all(kind.kind == "u" and kind.itemsize <= 4 for kind in types)
    dtype = max(types, key=lambda kind: kind.itemsize) if unsigned else stored_matrix(cells).dtype
    lengths = np.fromfile(folder / "lengths", dtype=np.int32)
    buckets = _Buckets(folder, plan, lengths, types, dtype, cells.n_vars)
    part = folder / "sorted.h5ad"
    bar = tqdm(total=cells.n_obs, unit=" cells", desc="write", disable=not progress)
    with hdf5(part) as (file, check), bar, ThreadPoolExecutor(os.cpu_count()) as pool:
        write_anndata(file, _annotations(cells, plan.order))
        writers = [_ChunkWriter(d, pool) for d in _make_matrix(file, buckets)]
        for bucket, (low, high) in enumerate(pairwise(plan.edges)):
            matrix = _load_bucket(buckets, bucket)
            writers[0].add(matrix.data)
            writers[1].add(matrix.indices)
            del matrix  # before the next is loaded
            check()
            bar.update(high - low)
        for writer in writers:
            writer.close()


def _make_matrix(file: h5py.File, buckets: _Buckets) -> list[h5py.Dataset]:
    """Lay out an empty CSR matrix as .h5ad has it; return its data and indices."""
    indptr = np.concatenate([[0], np.cumsum(buckets.lengths[buckets.plan.order], dtype=np.int64)])
    n = int(indptr[-1])
    if "X" in file:
        del file["X"]
    group = file.create_group("X")
    group.attrs["encoding-type"], group.attrs["encoding-version"] = "csr_matrix", "0.1.0"
    group.attrs["shape"] = (len(buckets.lengths), buckets.n_genes)
    pointer = np.int32 if n <= np.iinfo(np.int32).max else np.int64
    group["indptr"] = indptr.astype(pointer)
    packed = {"chunks": (min(CHUNK, max(n, 1)),), "maxshape": (None,), "shuffle": True}
    return [
        group.create_dataset(name, (n,), dtype, compression="gzip", compression_opts=1, **packed)
        for name, dtype in (("data", buckets.dtype), ("indices", pointer))
    ]


def _annotations(cells: anndata.AnnData, order: np.ndarray) -> anndata.AnnData:
    """Return all but the matrices that are as large as X, in the new order."""
    parts = {name: dict(getattr(cells, name)) for name in ("obsm", "varm", "obsp", "varp")}
    names = pd.DataFrame(index=cells.obs_names)
    found = anndata.AnnData(obs=names, var=cells.var, uns=dict(cells.uns), **parts)[order].copy()
    found.obs = cells.obs.iloc[order]  # by itself, so that categories without a cell stay
    return found
