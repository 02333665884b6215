"""How a matrix lies on disk, and how to walk over its rows with little memory and no waiting.

An ``.h5ad`` holds its matrix dense, or compressed by rows (CSR) or by columns (CSC). Whatever it
is, :func:`stored_blocks` yields rows. The next block is read while the caller works on this one,
and compressed chunks are unpacked in threads; neither changes a value.

Taught in: notebooks/09_work_with_large_files.

>>> import anndata
>>> cells = anndata.AnnData(np.eye(5, 3))
>>> [(start, block.shape) for start, block in stored_blocks(cells, block_rows=2)]
[(0, (2, 3)), (2, (2, 3)), (4, (1, 3))]
"""

from __future__ import annotations

import errno
import math
import os
import zlib
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache
from itertools import pairwise, product, starmap
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

import anndata
import h5py
import numpy as np
from h5py._objects import phil
from scipy import sparse

from ..counts import floating, one_entry_a_place

#: Values in a block of rows, 64 MB of dense float32.
BLOCK_VALUES = 2**24
#: Rows no further apart than this are read together with those between them: between two stretches
#: of a view may lie most of the file.
_ROWS_APART = 16
#: Rows of a view that are read in one go, with those between them.
_ROWS_OF_VIEW = 256


def stored_matrix(cells: anndata.AnnData):
    """Return the matrix, or the handle of one on disk; of a view of a file that of the whole."""
    return cells._adata_ref.X if cells.isbacked and cells.is_view else cells.X


def _on_disk(cells: anndata.AnnData) -> bool:
    """Tell whether the matrix lies in a file, of HDF5 or Zarr."""
    matrix = stored_matrix(cells)
    return not (isinstance(matrix, np.ndarray) or sparse.issparse(matrix))


def is_csr_file(cells: anndata.AnnData) -> bool:
    """Tell whether all rows of a CSR matrix on disk are meant, so that it can be read directly."""
    return not cells.is_view and _on_disk(cells) and getattr(cells.X, "format", None) == "csr"


def at_hand(cells: anndata.AnnData) -> bool:
    """Tell whether some rows can be picked without a copy of the others."""
    return not (cells.is_view or _on_disk(cells) or getattr(cells.X, "format", None) == "csc")


def first_values(cells: anndata.AnnData) -> np.ndarray:
    """Read a few values: of the first rows, or of the first columns of a CSC matrix."""
    matrix = stored_matrix(cells)
    if getattr(matrix, "format", None) == "csc":
        return _stored(matrix, "data")[: 2**18]
    _, block = next(_stored_rows(cells, np.arange(min(16, cells.n_obs))))
    return block.data if sparse.issparse(block) else block


def _rows_in_block(cells: anndata.AnnData) -> int:
    return min(4096, max(1, BLOCK_VALUES // max(cells.n_vars, 1)))


def most_entries(cells: anndata.AnnData) -> np.ndarray:
    """Bound the number of values of each cell that are not zero, without reading them.

    The stored entries of a CSR matrix, else the number of genes, ``(n_cells,)``, int64.
    """
    matrix = stored_matrix(cells)
    if getattr(matrix, "format", None) != "csr":
        return np.full(cells.n_obs, cells.n_vars, dtype=np.int64)
    n_stored = np.diff(_stored(matrix, "indptr")[:]).astype(np.int64)
    if cells.isbacked and cells.is_view:  # then it is the matrix of the whole file
        return n_stored[np.arange(len(n_stored))[cells._oidx]]
    return n_stored


def _stored(matrix, name: str):
    """Return one of the arrays of a sparse matrix in memory or on disk."""
    return getattr(matrix, name) if sparse.issparse(matrix) else matrix.group[name]


def stored_blocks(
    cells: anndata.AnnData,
    *,
    block_rows: int | None = None,
    scratch: Path | None = None,
) -> Iterator[tuple[int, sparse.csr_matrix | np.ndarray]]:
    """Do what :func:`row_blocks` does, in the type that values are stored in.

    `scratch` is the folder for the temporary copy of a CSC matrix on disk, whose rows are scattered
    over the file; it takes 4 bytes more for each entry than the values. Two blocks are held at a
    time; but a view of a CSC file is read as a whole.
    """
    block_rows = block_rows or _rows_in_block(cells)
    starts = range(0, cells.n_obs, block_rows)
    with _explain_damage(cells), _row_reader(cells, scratch) as rows:
        stretches = ((start, min(start + block_rows, cells.n_obs)) for start in starts)
        read = ahead(rows, stretches) if _on_disk(cells) else starmap(rows, stretches)
        for start, block in zip(starts, read, strict=True):
            yield start, one_entry_a_place(block) if sparse.issparse(block) else block


def _stored_rows(
    cells: anndata.AnnData, rows: np.ndarray
) -> Iterator[tuple[np.ndarray, sparse.csr_matrix | np.ndarray]]:
    """Yield some rows, a few at a time, and their values; rows that lie close in one go.

    `rows` is in rising order, ``(n,)``; values are as :func:`stored_blocks` has them.
    """
    n, picked = _rows_in_block(cells), at_hand(cells)
    if picked:
        new = np.arange(1, len(rows)) % n == 0
    else:  # at the latest after a block
        new = (np.diff(rows) > _ROWS_APART) | (np.diff(rows // n) > 0)
    with _explain_damage(cells), _row_reader(cells) as read:
        for part in np.split(rows, np.flatnonzero(new) + 1):
            if picked:
                found = _in_memory(cells.X[part])
            else:
                found = read(part[0], part[-1] + 1)[part - part[0]]
            yield part, one_entry_a_place(found) if sparse.issparse(found) else found


@contextmanager
def _explain_damage(cells: anndata.AnnData) -> Iterator[None]:
    before = _stamp(cells)
    try:
        yield
    except (OSError, RuntimeError, KeyError, zlib.error) as error:  # how damage shows
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EAGAIN):  # not the file's fault
            raise
        raise unreadable(cells.filename, error) from error
    if _stamp(cells) != before:  # HDF5 reads zeros where a file has become shorter
        raise ValueError(
            f"{cells.filename} was changed while it was read; nothing was written; start "
            "again when it is finished"
        )


def _stamp(cells: anndata.AnnData) -> tuple[int, int] | None:
    """Return size and date of the file, where there is one."""
    try:
        found = os.stat(cells.filename) if cells.isbacked else None
    except OSError:  # removed or renamed: what is open can be read to the end
        found = None
    return found and (found.st_size, found.st_mtime_ns)


def unreadable(path: Path | str, error: Exception) -> ValueError:
    """Say that a file is damaged, or not to be had, and what to do."""
    advice = "write it again with AnnData.write_h5ad"
    if "unable to lock file" in str(error) or "already open for write" in str(error):
        advice = (
            "another program has it open to write: close it there, or copy the file; where a disk "
            "knows no locks, set the environment variable HDF5_USE_FILE_LOCKING=FALSE"
        )
    return ValueError(f"{path} cannot be read as an .h5ad ({error}); {advice}")


class Threads(ThreadPoolExecutor):
    """Threads that say in words where the system gives no more of them."""

    def submit(self, *task, **kw):
        """Have a function called in a thread."""
        try:
            return super().submit(*task, **kw)
        except RuntimeError as error:
            if "start new thread" not in str(error):
                raise
            words = "the system gives no more threads; use fewer, or end other programs"
            raise OSError(errno.EAGAIN, words) from error


def ahead(function: Callable, arguments: Iterable[tuple], *, threads: int = 1) -> Iterator:
    """Yield ``function(*a)`` for each of `arguments`, the next ones computed in threads meanwhile.

    Most of the time of `function` should be spent where Python's lock is not held.
    """
    pool, coming = Threads(threads), deque()
    try:
        for a in arguments:
            coming.append(pool.submit(function, *a))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        # Never wait here: who asks for no more may end this while it holds the very lock, such as
        # HDF5's, that a thread waits for.
        pool.shutdown(wait=False, cancel_futures=True)


def sound(matrix, name: str = "X"):
    """Return a CSR or CSC matrix; raise if its pointers lead astray, as no compiled loop checks."""
    n = matrix.shape[matrix.format == "csr"]
    low, high = (int(f(initial=0)) for f in (matrix.indices.min, matrix.indices.max))
    if low < 0 or high >= n or not rises(matrix):
        place = low if low < 0 else high
        raise ValueError(
            f"the sparse matrix {name} is damaged: an entry is at place {place} of {n}, or its row "
            "pointer does not rise; write the file, or make the matrix, again"
        )
    return matrix


def rises(matrix) -> bool:
    """Tell whether the pointer of a CSR or CSC matrix in memory rises, and to no place beyond."""
    pointer, n = matrix.indptr, min(len(matrix.data), len(matrix.indices))
    whole = len(pointer) == matrix.shape[matrix.format == "csc"] + 1
    return bool(whole and pointer[0] == 0 and pointer[-1] <= n and (np.diff(pointer) >= 0).all())


@contextmanager
def _row_reader(cells: anndata.AnnData, scratch: Path | None = None):
    """Give a function that reads rows ``start`` to ``stop`` of the matrix."""
    matrix = stored_matrix(cells)
    layout = getattr(matrix, "format", "dense")
    if sparse.issparse(matrix) and not rises(matrix):  # SciPy would follow it anywhere
        raise ValueError("the sparse matrix X is damaged: its row pointer does not rise")
    if is_csr_file(cells):
        yield _csr_reader(matrix)
    elif layout == "csc" and not cells.is_view:
        with TemporaryFile(dir=scratch) as file:  # without a name: gone however this ends
            yield _csc_reader(matrix, file)
    elif cells.isbacked and cells.is_view and layout != "csc":
        yield _view_reader(cells)
    else:
        matrix = cells.X.tocsr() if layout == "csc" else cells.X
        if isinstance(matrix, h5py.Dataset):
            yield lambda start, stop: _read_stretch(matrix, start, stop)
        else:
            yield lambda start, stop: _in_memory(matrix[start:stop])


def _in_memory(block):
    if hasattr(block, "compute"):  # Dask's, of dense or sparse chunks
        block = block.compute()
    return sound(block.tocsr()) if sparse.issparse(block) else np.asarray(block)


def _view_reader(view: anndata.AnnData):
    """Read rows of a view of a file; asking the view itself for X would read all of it."""
    whole, genes = view._adata_ref, view._vidx
    chosen = np.arange(whole.n_obs)[view._oidx]
    if not (is_csr_file(whole) and (np.diff(chosen) > 0).all()):
        return lambda start, stop: _in_memory(whole[chosen[start:stop], genes].X)
    read = _csr_reader(whole.X)

    def rows(start: int, stop: int) -> sparse.csr_matrix:
        # with the rows between them, which is faster than one by one
        here = chosen[start:stop]
        new = (np.arange(1, len(here)) % _ROWS_OF_VIEW == 0) | (np.diff(here) > _ROWS_APART)
        parts = np.split(here, np.flatnonzero(new) + 1)
        found = [read(part[0], part[-1] + 1)[part - part[0]] for part in parts]
        return sparse.vstack(found, format="csr")[:, genes]

    return rows


def _csr_reader(matrix):
    """Read rows of a CSR matrix on disk, its row pointer held in memory."""
    indptr = matrix.group["indptr"][:].astype(np.int64)
    columns = [matrix.group[name] for name in ("data", "indices")]

    def rows(start: int, stop: int) -> sparse.csr_matrix:
        values, genes = _entries(columns, indptr[start], indptr[stop])
        pointer = indptr[start : stop + 1] - indptr[start]
        pointer = pointer.astype(f"i{max(4, genes.dtype.itemsize)}")
        shape = (stop - start, matrix.shape[1])
        return sound(sparse.csr_matrix((values, genes, pointer), shape=shape))

    return rows


def _entries(columns: list, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Read some values of a sparse matrix and their places."""
    values, places = (_read_stretch(column, low, high) for column in columns)
    return values.astype(np.float32) if is_half(values) else values, places  # for SciPy


def is_half(values) -> bool:
    """Tell whether values are float16, in any order of bytes."""
    return values.dtype.kind == "f" and values.dtype.itemsize == 2


def value_stretches(cells: anndata.AnnData) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield first row, values and row pointer of a CSR file, a block of rows at a time."""
    group, step = cells.X.group, _rows_in_block(cells)
    with _explain_damage(cells):
        indptr = group["indptr"][:].astype(np.int64)
        if (np.diff(indptr) < 0).any() or indptr[-1] > group["data"].shape[0]:
            raise OSError("the row pointer does not rise from 0 to the number of values")
        rows = [indptr[start : start + step + 1] for start in range(0, cells.n_obs, step)]
        stretches = ahead(_read_stretch, ((group["data"], r[0], r[-1]) for r in rows))
        for i, values in enumerate(stretches):
            yield i * step, values, rows[i] - rows[i][0]


def _read_stretch(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    """Read ``dataset[start:stop]``; what takes long is done without Python's or HDF5's lock.

    So chunks packed with gzip are unpacked here, side by side, and values in one piece are read
    from the file itself. An OSError says that the file ends too early, or that a chunk does not
    unpack to a whole one, where HDF5 2.0 would return for the rest what lay in memory before.
    """
    start, stop = int(start), int(stop)
    plain = isinstance(dataset, h5py.Dataset) and dataset.file.mode == "r"
    if not (plain and stop > start and dataset.dtype.kind in "iuf" and dataset.dtype.isnative):
        return dataset[start:stop]
    if (offset := dataset.id.get_offset()) is not None:
        row = math.prod(dataset.shape[1:])
        place, n_values = offset + start * row * dataset.dtype.itemsize, (stop - start) * row
        found = np.fromfile(dataset.file.filename, dataset.dtype, n_values, offset=place)
        if len(found) < n_values:
            raise OSError(
                f"{dataset.name} ends after {start * row + len(found)} of {dataset.size} values"
            )
        return found.reshape(stop - start, *dataset.shape[1:])
    n_filters = dataset.id.get_create_plist().get_nfilters()
    if dataset.compression == "gzip" and n_filters == 1 + bool(dataset.shuffle):
        return _unpack_stretch(dataset, start, stop)
    return dataset[start:stop]


def _unpack_stretch(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    chunk, shuffled = dataset.chunks, bool(dataset.shuffle)
    begins = (start - start % chunk[0],) + (0,) * (dataset.ndim - 1)
    edges = [*map(range, begins, (stop, *dataset.shape[1:]), chunk)]
    shape = [len(edge) * size for edge, size in zip(edges, chunk, strict=True)]
    whole = np.empty(shape, dataset.dtype)

    def unpack(corner: tuple[int, ...]) -> None:
        base = np.subtract(corner, begins)
        place = tuple(map(slice, base, base + chunk))
        with phil:
            written = dataset.id.get_chunk_info_by_coord(corner).byte_offset is not None
            skipped, packed = dataset.id.read_direct_chunk(corner) if written else (0, b"")
        if not written:
            whole[place] = dataset.fillvalue
            return
        size = whole[place].nbytes
        raw = packed if skipped >> shuffled & 1 else _inflate(packed, size)
        if len(raw) != size:
            seen = f"{len(raw)} bytes, not" if len(raw) < size else "more than"
            raise OSError(f"the chunk of {dataset.name} at {corner} unpacks to {seen} {size}")
        in_planes = shuffled and not skipped & 1
        part = _unshuffle(raw, dataset.dtype) if in_planes else np.frombuffer(raw, dataset.dtype)
        whole[place] = part.reshape(chunk)

    corners = list(product(*edges))
    if len(corners) < 4:  # not worth a thread
        list(map(unpack, corners))
    else:
        with Threads(os.cpu_count()) as pool:
            list(pool.map(unpack, corners))
    inside = (slice(start - begins[0], stop - begins[0]), *map(slice, dataset.shape[1:]))
    return whole[inside]


def _inflate(packed: bytes, size: int) -> bytes:
    """Unpack at most one byte more than expected: what lies about its size fills no memory."""
    unpacker = zlib.decompressobj()
    raw = unpacker.decompress(packed, size + 1)
    if len(raw) == size and not unpacker.eof:
        raise OSError("a packed chunk ends before its checksum")
    return raw


def pack_chunk(values: np.ndarray) -> bytes:
    """Do what HDF5's shuffle and gzip filters do to a chunk, in any thread.

    Shuffled: the first bytes of all numbers, then the second bytes, and so on.
    """
    shuffled = values.view(np.uint8).reshape(-1, values.itemsize).T
    return zlib.compress(np.ascontiguousarray(shuffled), 1)


def _unshuffle(raw: bytes, dtype: np.dtype) -> np.ndarray:
    if dtype.itemsize == 1:
        return np.frombuffer(raw, dtype)
    planes = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1)
    numbers = planes[0].astype(f"u{dtype.itemsize}")
    for place in range(1, dtype.itemsize):
        if planes[place].any():  # most upper bytes of counts and of gene numbers are 0
            numbers |= planes[place].astype(numbers.dtype) << numbers.dtype.type(8 * place)
    return numbers.view(dtype)


def _csc_reader(matrix, file: BinaryIO):
    """Copy a CSC matrix, a slab of columns after the other, in stretches of rows, and read those.

    Both have so few columns or rows that all their places fit one block.
    """
    n_rows, n_columns = matrix.shape
    height = max(1, BLOCK_VALUES // max(n_columns, 1))
    indptr = _stored(matrix, "indptr")[:].astype(np.int64)
    columns = [_stored(matrix, name) for name in ("data", "indices")]
    cuts = defaultdict(list)  # of each stretch, where in the file, and how wide
    for left, right in _slabs(indptr):
        entries = _entries(columns, indptr[left], indptr[right])
        pointer = indptr[left : right + 1] - indptr[left]
        slab = sparse.csc_matrix((*entries, pointer), shape=(n_rows, right - left))
        slab = sound(slab).tocsr()
        for top in range(0, n_rows, height):
            part = slab[top : top + height]
            cuts[top].append((file.tell(), part.shape))
            for array in (part.data, part.indices, part.indptr):
                np.save(file, array)

    @lru_cache(maxsize=1)
    def stretch(top: int) -> sparse.csr_matrix:
        parts = []
        for place, shape in cuts[top]:
            file.seek(place)
            parts.append(sparse.csr_matrix(tuple(np.load(file) for _ in range(3)), shape=shape))
        return sparse.hstack(parts, format="csr")

    def rows(start: int, stop: int) -> sparse.csr_matrix:
        tops = range(start - start % height, stop, height)
        parts = [stretch(top)[max(start - top, 0) : stop - top] for top in tops]
        return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")

    return rows


def _slabs(indptr: np.ndarray) -> list[tuple[int, int]]:
    """Cut columns into slabs of at most a block of entries, or of one column."""
    edges = [0]
    while edges[-1] < len(indptr) - 1:
        limit = indptr[edges[-1]] + BLOCK_VALUES
        edges.append(max(edges[-1] + 1, int(np.searchsorted(indptr, limit, side="right")) - 1))
    return list(pairwise(edges))


def row_blocks(
    cells: anndata.AnnData, *, block_rows: int | None = None
) -> Iterator[tuple[int, sparse.csr_matrix | np.ndarray]]:
    """Yield the matrix a few rows at a time: the number of the first row, and the block.

    A block is CSR or an array, ``(<= block_rows, n_genes)``, floating (integers become float32),
    the values as stored, repeated entries of a sparse matrix summed. It is not a copy where none is
    needed: do not write into it. By default `block_rows` are as many as make 16 million values (64
    MB of dense float32), 4096 at most. A ValueError says, too, that an integer is above 2**24,
    where float32 is no longer exact.
    """
    for start, block in stored_blocks(cells, block_rows=block_rows):
        yield start, floating(block, cells.obs_names[start:], cells.var_names)


def in_csr(block: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix:
    """Return rows in CSR; of dense ones several times as fast as SciPy."""
    if sparse.issparse(block):
        return sparse.csr_matrix(block)
    from . import _kernels  # compiled code; half a second that imports need not pay

    block = block.astype(block.dtype.newbyteorder("="), copy=False)
    indptr = np.cumsum([0, *np.count_nonzero(block, axis=1)])
    values, genes = np.empty(indptr[-1] + 1, block.dtype), np.empty(indptr[-1] + 1, np.int32)
    _kernels.squeeze_rows(block, indptr, values, genes)
    return sparse.csr_matrix((values[:-1], genes[:-1], indptr), shape=block.shape)


def read_rows(cells: anndata.AnnData, rows: np.ndarray) -> sparse.csr_matrix | np.ndarray:
    """Read only some rows of the matrix, which must fit the memory, ``(n, n_genes)``.

    `rows` is in rising order, ``(n,)``; `cells` and the values are as :func:`row_blocks` has them.
    """
    blocks = [
        floating(block, cells.obs_names[part], cells.var_names)
        for part, block in _stored_rows(cells, rows)
    ]
    return sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.vstack(blocks)


def part_of(cells: anndata.AnnData, rows: np.ndarray) -> anndata.AnnData:
    """Return a view of some cells, also of a view of a file, which AnnData 0.12 refuses."""
    if not (cells.isbacked and cells.is_view):
        return cells[rows]
    whole = cells._adata_ref
    return whole[np.arange(whole.n_obs)[cells._oidx][rows], cells._vidx]


def take_cells(cells: anndata.AnnData, rows: np.ndarray) -> anndata.AnnData:
    """Copy some cells into memory, ``X`` as :func:`read_rows` has it; no layers and no ``raw``."""
    kept = {"obs": cells.obs.iloc[rows].copy(), "var": cells.var.copy(), "uns": deepcopy(cells.uns)}
    return anndata.AnnData(read_rows(cells, rows), **kept)
