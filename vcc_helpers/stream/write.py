"""Files are written whole or not at all: what has the final name is the old file or the new one.

What is read is never written: :func:`check_writable` decides for all commands.

A file that is not finished has a hidden name with a random part, and its process holds a lock on
it, which the system takes away when the process ends, however it ends. So only what has no owner
any more is removed. The lock of another machine may not show here: the name says which machine's
it is, since when it was last started, and files of others are left alone.

Taught in: notebooks/18_from_means_to_cells and notebooks/06_check_and_pack.

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
import re
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse

try:
    import fcntl
except ImportError:  # Windows: nothing that a killed process left is removed
    fcntl = None

#: What a system calls it when no more can be written (no space, a quota, the largest file).
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check_writable(
    path: str | Path, *, inputs: Iterable[object] = (), outputs: Iterable[str | Path | None] = ()
) -> None:
    """Raise unless a file can be written there and nothing else is lost: worth knowing beforehand.

    A ValueError says that it is one of `inputs`, as the same command reads them, lies in a folder
    that is one, or is another of `outputs`; what lies in memory, such as a list of names, is passed
    over. An OSError says that there is no such folder or no right to write in it, or that something
    else than a file has the name. A link stays, and the file that it leads to is replaced.
    """
    check_apart(path, inputs)
    for other in filter(None, outputs):
        if _same(Path(path), Path(other)):
            raise ValueError(f"cannot write {path} twice: {other} is the same file; name two")
    if kind := _special(Path(path)):
        raise FileExistsError(f"cannot write {path}: it is {kind}; name a file")
    real = _real(path)
    writable = os.access(real.parent, os.W_OK)
    if not real.parent.is_dir():  # looked at last: another process may remove it at any moment
        raise FileNotFoundError(f"cannot write {path}: there is no folder {real.parent}; make it")
    if real.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if not writable:
        raise PermissionError(f"cannot write {path}: no permission to write in {real.parent}")


def check_apart(path: str | Path, inputs: Iterable[object]) -> None:
    """Raise a ValueError if a file or folder to write is an input, or lies in one."""
    places = Path(path), *_real(path).parents
    for source in inputs:
        if isinstance(source, anndata.AnnData):
            source = source.filename
        if isinstance(source, str | Path) and any(_same(p, Path(source)) for p in places):
            raise ValueError(
                f"cannot write {path}: {source} is read by the same command and would be lost; "
                "name another file"
            )


def _real(path: str | Path) -> Path:
    """Return where a path leads; a link in a circle stays what it is."""
    if "\0" in str(path):
        raise ValueError(f"no file can be called {str(path)!r}: a name holds no NUL")
    return Path(os.path.realpath(path))


def _same(one: Path, other: Path) -> bool:
    return _real(one) == _real(other) or one.exists() and other.exists() and one.samefile(other)


def _special(path: Path) -> str | None:
    """Name what is no file and no folder; None for these, and where there is nothing."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return "a link in a circle"
        raise type(error)(f"cannot write {path}: {error.strerror}") from error
    kinds = {stat.S_IFREG: None, stat.S_IFDIR: None}
    kinds |= {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")


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
    """Yield a name as :func:`beside` has it; the file takes the name `path` when all went well."""
    with beside(path) as part:
        yield part
        with open(part, "rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the name without the content
        part.replace(_real(path))


@contextmanager
def beside(path: str | Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield an empty file next to `path` that is needed for a while, and remove it at the end.

    A hidden name in the same folder, of no other process, with the same suffix or another. A
    process that is killed leaves the file; the next one to write `path` removes it.
    """
    check_writable(path)
    path = _real(path)
    _remove_orphans(path)
    with full_disk_explained(path.parent):
        part, held = _new_part(path, path.suffix if suffix is None else suffix)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)
            os.close(held)


def _new_part(path: Path, suffix: str) -> tuple[Path, int]:
    """Make a file that was not there, through no link, and lock it; return its open descriptor."""
    while True:
        mark = f"{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        part = path.with_name(f"{_begin(path)}{mark}.part{suffix}")
        try:
            held = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | _NO_LINK, 0o666)
        except FileExistsError:
            continue
        # one who looks for orphans may have come between
        if _lock(held) is not False and (os.name != "posix" or os.fstat(held).st_nlink):
            return part, held
        os.close(held)


def _begin(path: Path) -> str:
    """Begin the names of a file's parts, short enough for every disk."""
    return f".{os.fsencode(path.stem)[:100].decode('utf-8', 'ignore')}."


#: Flags of a system that has them: follow no link, wait for nobody at a pipe's other end.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def no_link(path: str, flags: int) -> int:
    """Open a file, as the `opener` of :func:`open`, if its name is no link."""
    return os.open(path, flags | _NO_LINK, 0o666)


def _lock(file: int) -> bool | None:
    """Lock an open file: whether this process holds it now; None where there are no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (OSError, AttributeError):  # a disk without locks, as many of a network are; Windows
        return None
    return True


def _machine() -> str:
    """Name this machine since its last start: containers on it share its locks, others do not."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        start = str(uuid.getnode())
    return hashlib.sha256(f"{platform.node()} {start}".encode()).hexdigest()[:10]


def _remove_orphans(path: Path) -> None:
    """Remove parts of this file that a process of this machine left when it was killed."""
    begin = re.escape(f"{_begin(path)}{_machine()}-")
    ours = re.compile(begin + r"\d+-[0-9a-f]{12}\.part.*", re.DOTALL)
    for part in path.parent.iterdir():
        if not ours.fullmatch(part.name):
            continue
        try:
            file = os.open(part, os.O_RDWR | _NO_LINK)
        except OSError:  # a link, somebody else's, or removed this moment
            continue
        try:
            if stat.S_ISREG(os.fstat(file).st_mode) and _lock(file):
                part.unlink(missing_ok=True)
        finally:
            os.close(file)


@contextmanager
def hdf5(path: str | Path) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """Open a new HDF5 file to write to, in such a way that a full disk is an error and no crash.

    Yields the file, and a function that raises if something could not be written, to be called now
    and then. HDF5 does not survive a write that fails: it goes on to fail while the file is closed,
    and ends the interpreter. So it is never told, and the error is raised when the file is closed.
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
        self._try(self._write, data)
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
        self._try(self.raw.truncate, size)
        return size

    def flush(self) -> None:
        self._try(self.raw.flush)

    def _try(self, action: Callable, *words) -> None:
        try:
            if self.error is None:
                action(*words)
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
    *,
    compression: str | None = None,
) -> None:
    """Write an ``.h5ad``, whole or not at all, also where the disk runs full.

    Where X of `cells` is empty, `blocks` are first row and rows of each block of it, in rising
    order, every cell once. An OSError says that the folder is missing or cannot be written to, or
    that the disk is full.
    """
    check_writable(path, inputs=[cells])
    with replacing(path) as part:
        fill_cells(part, cells, blocks, compression)


def fill_cells(
    path: Path,
    cells: anndata.AnnData,
    blocks: Iterable[tuple[int, sparse.csr_matrix]] | None = None,
    compression: str | None = None,
) -> None:
    """Write an ``.h5ad`` under a name that nobody reads yet, as :func:`write_cells` does."""
    with hdf5(path) as (file, check):
        write_anndata(file, cells, compression)
        check()
        if blocks is not None:
            _append_rows(file["X"], blocks, check)


def write_anndata(file: h5py.File, cells: anndata.AnnData, compression: str | None = None) -> None:
    """Write cells to an open, empty file, labels as categories, as ``AnnData.write_h5ad`` does.

    So that AnnData 0.10 reads it, strings are plain ones, and what is None in ``uns`` is left out.
    """
    cells.strings_to_categoricals()
    parts = {name: dict(getattr(cells, name)) for name in ("obsm", "varm", "obsp", "varp")}
    layers = {name: values for name, values in cells.layers.items() if name is not None}
    frames = {"obs": _with_plain_strings(cells.obs), "var": _with_plain_strings(cells.var)}
    parts |= {"layers": layers, "uns": _without_nulls(cells.uns)}
    try:
        with anndata.settings.override(allow_write_nullable_strings=False):
            whole = anndata.AnnData(cells.X, raw=cells.raw, **frames, **parts)
            write_elem(file, "/", whole, dataset_kwargs={"compression": compression})
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each kind of thing that has no place in a file has its own
        raise ValueError(
            f"the cells hold something that an .h5ad cannot ({error}); remove it from uns, obs or "
            "var"
        ) from error
    if cells.raw is None and "raw" in file:
        del file["raw"]  # a mark that there is none, which older readers take for some


def _with_plain_strings(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose strings are Python's; where some are missing, a category."""
    if "_index" in frame:  # AnnData keeps this name for itself
        frame = frame.rename(columns={"_index": "index_"})
    if frame.index.name in frame:
        frame = frame.rename_axis(None)
    text = [name for name, kind in frame.dtypes.items() if isinstance(kind, pd.StringDtype)]
    kinds = {name: "category" if frame[name].hasnans else object for name in text}
    return frame.astype(kinds).set_axis(frame.index.astype(object))


def _without_nulls(values: Mapping) -> dict:
    kept = {name: value for name, value in values.items() if value is not None}
    return {n: _without_nulls(v) if isinstance(v, Mapping) else v for n, v in kept.items()}


def _append_rows(matrix: h5py.Group, blocks: Iterable, check: Callable[[], None]) -> None:
    """Fill an empty CSR matrix, in its types, with blocks as :func:`write_cells` has them."""
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
