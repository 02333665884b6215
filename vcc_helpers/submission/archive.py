"""Files from strangers, and the ``.vcc`` archive that the challenge takes.

A ``.vcc`` is a tar archive of two files: the cells, ``pred.h5ad.zst``, packed with Zstandard, and a
watermark that says which tool made it; of 2026 ``meta.json``, and the cells. :func:`pack` writes
one; :func:`opened` reads one, or an ``.h5ad``, after it has made sure that nothing in it leads
outside or unpacks without end.

Taught in: notebooks/18_from_means_to_cells.

>>> import tempfile
>>> from vcc_helpers.datasets import load_h1_sample
>>> folder = Path(tempfile.mkdtemp())
>>> load_h1_sample()[:5].write_h5ad(folder / "five.h5ad")
>>> with opened(pack(folder / "five.h5ad", folder / "five.vcc")) as inner:
...     print(h5py.File(inner)["X"].attrs["shape"])
[   5 1000]
"""

from __future__ import annotations

import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py

from ..stream import _unpack as packed_cells
from ..stream._unpack import CELLS, STEP, check_size, zstandard
from ..stream.blocks import unreadable
from ..stream.guard import check_hdf5
from ..stream.open import no_hdf5, parse_memory
from ..stream.write import check_writable, replacing

#: The file that comes first in an archive of 2026, as vcc-cli 0.3.0 names it.
_META = "meta.json"
#: The watermark, as cell-eval 0.6.6 writes it, and the level of the program zstd, which it calls.
_WATERMARK, _WORDS, _LEVEL = "watermark.txt", b"vcc-prep", 3


def pack(h5ad: str | Path, path: str | Path, *, meta: Mapping | None = None) -> Path:
    """Pack an ``.h5ad`` into a ``.vcc``, whole or not at all, and return the path of that.

    The same cells give the same bytes, whatever the number of cores: no date, no name of a user.
    The layout is that of ``cell-eval prep`` (cell-eval 0.6.6), which calls the programs ``zstd``
    and ``tar``; with `meta`, what heads an archive of 2026, that of ``vcc prep`` (vcc-cli 0.3.0).
    An OSError says that a file is not there or cannot be written.
    """
    check_writable(path, inputs=[h5ad])
    members = {CELLS: None, _WATERMARK: _WORDS}
    if meta is not None:
        members = {_META: json.dumps(meta, sort_keys=True).encode(), CELLS: None}
    with replacing(path) as part, open(part, "wb") as tar:
        for name, text in members.items():
            start = tar.tell()
            tar.seek(tarfile.BLOCKSIZE, os.SEEK_CUR)  # for the header, which tells the size
            size = tar.write(text) if text else _compress(Path(h5ad), tar)
            tar.seek(start)
            info = tarfile.TarInfo(name)  # of 1970, and nobody's
            info.size = size
            tar.write(info.tobuf(tarfile.GNU_FORMAT))
            tar.seek(-(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE, os.SEEK_CUR)
        end = tar.tell() + 2 * tarfile.BLOCKSIZE
        tar.truncate(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE)
    return Path(path)


def _compress(source: Path, out: BinaryIO) -> int:
    """Append a file, packed, to an open one, and return how many bytes that takes."""
    zstd, start = zstandard(), out.tell()
    options = {"compression_level": _LEVEL, "checksum_flag": 1, "nb_workers": os.cpu_count() or 1}
    named = {getattr(zstd.CompressionParameter, name): value for name, value in options.items()}
    compressor = zstd.ZstdCompressor(options=named)
    compressor.set_pledged_input_size(source.stat().st_size)
    with open(source, "rb") as file:
        while block := file.read(STEP):
            out.write(compressor.compress(block))
        out.write(compressor.flush())
    return out.tell() - start


@contextmanager
def opened(path: str | Path, *, size_limit: int | float | str = "2GB") -> Iterator[Path]:
    """Yield the ``.h5ad`` of a submission, once nothing in it leads outside.

    Parameters
    ----------
    path
        An ``.h5ad``, or a ``.vcc``.
    size_limit
        Most bytes for the file, for what it unpacks to, and for the arrays it declares.

    Yields
    ------
    Path
        A copy in a temporary folder, so that what is read is what was checked.

    Raises
    ------
    ValueError
        The file is too large, damaged, or refers to other files.

    Notes
    -----
    An HDF5 file can show the content of another one as its own, through an external link, a
    virtual dataset, external storage or a reference to something without a name. A prediction could
    so show the truth; :func:`~vcc_helpers.stream.guard.check_hdf5` lists what is refused. Names in
    the archive are read and never used: what is unpacked lies under a name of ours.
    """
    path, limit = Path(path), parse_memory(size_limit)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise ValueError(f"{path.name} is no plain file; expected an .h5ad or a .vcc")
    with tempfile.TemporaryDirectory(prefix="vcc_") as scratch:
        inner = Path(scratch) / "cells.h5ad"
        if path.suffix == ".vcc":
            check_size(path.stat().st_size, limit, "the file")
            packed_cells.unpack(path, inner, limit=limit)
        else:
            _copy(path, inner, limit)
        if problem := no_hdf5(inner):
            raise ValueError(f"not an HDF5 file: {problem}")
        try:
            with h5py.File(inner) as file:
                size = check_hdf5(file)
        except (OSError, RuntimeError, KeyError) as error:
            raise unreadable(path, error) from error
        check_size(size, limit, "its arrays")
        yield inner


def _copy(path: Path, inner: Path, limit: int) -> None:
    with open(path, "rb") as file, open(inner, "wb") as out:
        check_size(os.fstat(file.fileno()).st_size, limit, "the file")
        while block := file.read(STEP):
            out.write(block)
            check_size(out.tell(), limit, "the file")


def unpack(path: str | Path, out: str | Path, *, size_limit: int | float | str = "32GB") -> Path:
    """Unpack the cells of a ``.vcc`` to an ``.h5ad``, whole or not at all, and return its path.

    A ValueError says that it is no such archive, that it is damaged or cut short, or that more
    bytes come out than `size_limit`.
    """
    check_writable(out, inputs=[path])
    return packed_cells.unpack(path, out, limit=parse_memory(size_limit))
