"""Files are written whole or not at all.

Every command that writes goes through here, so that whatever happens, what stands under the
final name is the old file or the new one, never a part of it.

Taught in: notebooks/09_first_submission and notebooks/17_check_and_pack.

>>> import tempfile
>>> from pathlib import Path
>>> target = Path(tempfile.mkdtemp()) / "hello.txt"
>>> with replacing(target) as part:
...     _ = part.write_text("hello")
>>> target.read_text(), [path.name for path in target.parent.iterdir()]
('hello', ['hello.txt'])
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

#: What a system calls it when no more can be written (no space, a quota, the largest file).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(path: str | Path) -> None:
    """Raise an OSError unless a file can be written there: worth knowing beforehand."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}; make it")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        if not path.parent.is_dir():  # another process has removed it this moment
            raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}")
        raise PermissionError(f"cannot write {path}: no permission to write in {path.parent}")


@contextmanager
def full_disk_explained(folder: str | Path, kept: str = "") -> Iterator[None]:
    """Say what to do where `folder` can hold no more, and what is `kept` for the next run."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename:
            raise
        raise _full(folder, error, kept) from error


def _full(folder: str | Path, error: OSError, kept: str = "") -> OSError:
    words = f"cannot write in {folder}: {os.strerror(error.errno)}; free some space there, or name "
    return OSError(error.errno, f"{words}another folder, and call again{kept and f'; {kept}'}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a name next to `path` to write to; the file takes the name `path` when all went well.

    In the same folder, with the same suffix; removed if an error ends the block. A process that is
    killed leaves its part; the next one to write the same file removes it.
    """
    with beside(path) as part:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the name without the content
        part.replace(path)


@contextmanager
def beside(path: str | Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a name next to `path` for a file that is needed for a while, and remove it at the end.

    A hidden name in the same folder, of no other process. A process that is killed leaves the file;
    the next one to write `path` removes it.
    """
    path = Path(path)
    check_writable(path)
    _remove_orphans(path)
    mark = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    suffix = path.suffix if suffix is None else suffix
    part = path.with_name(f".{path.stem[:100]}.{mark}.part{suffix}")
    try:
        with full_disk_explained(path.parent):
            yield part
    finally:
        part.unlink(missing_ok=True)


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:6]


def _remove_orphans(path: Path) -> None:
    """Remove parts of this file whose process, of this machine, is no more."""
    if os.name != "posix":  # elsewhere asking for a process can end it
        return
    begin = f".{path.stem[:100]}.{_machine()}-"
    for part in path.parent.iterdir():
        if part.name.startswith(begin) and ".part" in part.name:
            owner = part.name.removeprefix(begin).split("-")[0]
            if owner.isdecimal() and not _is_alive(int(owner)):
                part.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is somebody else's
        pass
    return True


@contextmanager
def hdf5(path: str | Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Open a new HDF5 file to write to, in such a way that a full disk is an error and no crash.

    Yields the file, and a function that raises if something could not be written: to be called now
    and then, so that a long computation ends when the disk is full, and not after it.

    HDF5 does not survive a write that fails: it goes on to fail while the file is closed, and ends
    the interpreter. So it is never told of one, and the error is raised when the file is closed.
    """
    # the inner file is closed first: Python closes what is left open once more, when it is too late
    with open(path, "w+b", buffering=0) as raw, _Patient(raw) as patient:

        def check() -> None:
            if patient.error is not None:
                raise _full(Path(path).parent, patient.error)

        try:
            with h5py.File(patient, "w") as file:
                yield file, check
        except Exception:
            check()  # what HDF5 says of what it did not find again explains nothing
            raise
        check()


class _Patient(io.RawIOBase):
    """A file that remembers the first write that failed, and keeps what is written from then on.

    Of that only what is small is kept: HDF5's own notes, which it reads again before it closes.
    """

    def __init__(self, raw):
        self.raw, self.error, self.kept, self.at = raw, None, {}, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.at = offset if whence == os.SEEK_SET else self.raw.seek(offset, whence)
        return self.at

    def tell(self) -> int:
        return self.at

    def write(self, data) -> int:
        if self.error is None:
            self._try(lambda: self._write(data))
        if self.error is not None and len(data) < 2**20:
            self.kept[self.at] = bytes(data)
        self.at += len(data)
        return len(data)

    def _write(self, data) -> None:
        self.raw.seek(self.at)
        rest = memoryview(data)
        while len(rest):  # a write may take a part only
            rest = rest[self.raw.write(rest) :]

    def readinto(self, buffer) -> int:
        self.raw.seek(self.at)
        found = self.kept.get(self.at) or self.raw.read(len(buffer))
        buffer[:] = found[: len(buffer)].ljust(len(buffer), b"\0")
        self.at += len(buffer)
        return len(buffer)

    def truncate(self, size: int) -> int:
        if self.error is None:
            self._try(lambda: self.raw.truncate(size))
        return size

    def flush(self) -> None:
        if self.error is None:
            self._try(self.raw.flush)

    def _try(self, action) -> None:
        try:
            action()
        except OSError as error:
            self.error = error


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")


def write_cells(
    path: str | Path,
    cells: anndata.AnnData,
    blocks: Iterable[tuple[int, sparse.csr_matrix]] | None = None,
) -> None:
    """Write an ``.h5ad``, whole or not at all, also where the disk runs full.

    One that exists is replaced at the end, in one step. Where X of `cells` is empty, `blocks` are
    first row and rows of each block of it, in rising order, every cell once. An OSError says that
    the folder is missing or cannot be written to, or that the disk is full.
    """
    with replacing(path) as part:
        fill_cells(part, cells, blocks)


def fill_cells(
    path: Path,
    cells: anndata.AnnData,
    blocks: Iterable[tuple[int, sparse.csr_matrix]] | None = None,
) -> None:
    """Write an ``.h5ad`` under a name that nobody reads yet, as :func:`write_cells` does."""
    with hdf5(path) as (file, check):
        write_anndata(file, cells)
        check()
        if blocks is not None:
            _append_rows(file["X"], blocks, check)


def write_anndata(file: h5py.File, cells: anndata.AnnData) -> None:
    """Write cells to an open, empty file, labels as categories, as ``AnnData.write_h5ad`` does."""
    cells.strings_to_categoricals()
    if any(_plain_names(frame) is not frame for frame in (cells.obs, cells.var)):
        cells = cells.copy()
        cells.obs, cells.var = _plain_names(cells.obs), _plain_names(cells.var)
    try:
        write_elem(file, "/", cells)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each kind of thing that has no place in a file has its own
        raise ValueError(
            f"the cells hold something that an .h5ad cannot ({error}); remove it from uns, obs or "
            "var"
        ) from error
    if cells.raw is None and "raw" in file:
        del file["raw"]  # a mark that there is none, which older readers take for some


def _plain_names(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename what AnnData keeps for itself: a column ``_index``, an index named like a column."""
    if "_index" in frame:
        frame = frame.rename(columns={"_index": "index_"})
    return frame.rename_axis(None) if frame.index.name in frame else frame


def _append_rows(matrix: h5py.Group, blocks: Iterable, check: Callable[[], None]) -> None:
    """Fill the empty CSR matrix ``X`` of an open ``.h5ad``, as :func:`write_cells` has blocks.

    The types are those of the empty matrix; row pointers are int64.
    """
    n_cells = matrix["indptr"].shape[0] - 1
    for name in ("data", "indices"):
        dtype = matrix[name].dtype
        del matrix[name]
        matrix.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(2**18,))
    del matrix["indptr"]
    indptr = np.zeros(n_cells + 1, dtype=np.int64)
    for start, block in blocks:
        check()
        stop, filled = start + block.shape[0], indptr[start]
        for name in ("data", "indices"):
            matrix[name].resize((filled + block.nnz,))
            matrix[name][filled:] = getattr(block, name)
        indptr[start + 1 : stop + 1] = filled + block.indptr[1:].astype(np.int64)
    matrix.create_dataset("indptr", data=indptr)
