"""Files from strangers, and the ``.vcc`` archive that the challenge takes.

A ``.vcc`` is a tar archive of two files: the cells, ``pred.h5ad.zst``, packed with Zstandard, and a
watermark that says which tool made it. :func:`pack` writes one; :func:`opened` reads one, or an
``.h5ad``, after it has made sure that nothing in it leads outside or unpacks without end.

Taught in: notebooks/17_check_and_pack.

>>> import tempfile
>>> from vcc_helpers.datasets import load_h1_sample
>>> folder = Path(tempfile.mkdtemp())
>>> load_h1_sample()[:5].write_h5ad(folder / "five.h5ad")
>>> with opened(pack(folder / "five.h5ad", folder / "five.vcc")) as inner:
...     print(h5py.File(inner)["X"].attrs["shape"])
[   5 1000]
"""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

import h5py

from ..stream.blocks import unreadable
from ..stream.open import check_tree, parse_memory
from ..stream.write import beside, check_writable, replacing

#: The names in the archive and the watermark, as cell-eval 0.6.6 writes them.
_CELLS, _WATERMARK, _WORDS = "pred.h5ad.zst", "watermark.txt", b"vcc-prep"
#: Members of an archive that are looked at.
_MOST_MEMBERS = 64
#: Zstandard frames that are unpacked; programs write one, or one for some megabytes.
_MOST_FRAMES = 10_000
#: The level of the program zstd, which the official tool calls.
_LEVEL = 3
_STEP = 2**20


def _zstd():
    """Return the standard library's module of Python 3.14, or its backport."""
    try:
        return import_module("compression.zstd")
    except ImportError:
        return import_module("backports.zstd")


def pack(h5ad: str | Path, path: str | Path) -> Path:
    """Pack an ``.h5ad`` into a ``.vcc``, whole or not at all, and return the path of that.

    The same cells give the same bytes, whatever the number of cores: no date, no name of a user.
    The layout is that of ``cell-eval prep`` (cell-eval 0.6.6), which calls the programs ``zstd``
    and ``tar``. An OSError says that a file is not there or cannot be written.
    """
    check_writable(path, inputs=[h5ad])
    with replacing(path) as part, beside(path, ".zst") as packed:
        _compress(Path(h5ad), packed)
        with tarfile.open(part, "w", format=tarfile.GNU_FORMAT) as archive:
            with open(packed, "rb") as file:
                archive.addfile(_member(_CELLS, packed.stat().st_size), file)
            archive.addfile(_member(_WATERMARK, len(_WORDS)), io.BytesIO(_WORDS))
    return Path(path)


def _compress(source: Path, packed: Path) -> None:
    zstd = _zstd()
    parameter = zstd.CompressionParameter
    options = {
        parameter.compression_level: _LEVEL,
        parameter.checksum_flag: 1,
        parameter.nb_workers: os.cpu_count() or 1,
    }
    compressor = zstd.ZstdCompressor(options=options)
    compressor.set_pledged_input_size(source.stat().st_size)
    with open(source, "rb") as file, open(packed, "wb") as out:
        while block := file.read(_STEP):
            out.write(compressor.compress(block))
        out.write(compressor.flush())


def _member(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)  # of 1970, and nobody's
    info.size = size
    return info


@contextmanager
def opened(path: str | Path, *, size_limit: int | float | str = "2GB") -> Iterator[Path]:
    """Yield the ``.h5ad`` of a submission, once nothing in it leads outside.

    Parameters
    ----------
    path
        An ``.h5ad``, or a ``.vcc``, which is unpacked to a temporary folder beside nothing else.
    size_limit
        Most bytes for the file, for what it unpacks to, and for the arrays it declares.

    Yields
    ------
    Path
        A file of plain data.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is too large, damaged, or refers to other files.

    Notes
    -----
    An HDF5 file can show the content of another one as its own, through an external link, a
    virtual dataset or external storage. A prediction could so show the truth. Names in the archive
    are read and never used: what is unpacked lies under a name of ours.
    """
    path, limit = Path(path), parse_memory(size_limit)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    _check_size(path.stat().st_size, limit, "the file")
    with tempfile.TemporaryDirectory(prefix="vcc_") as scratch:
        inner = path
        if path.suffix == ".vcc":
            inner = Path(scratch) / "cells.h5ad"
            unpack(path, inner, size_limit=limit)
        if not h5py.is_hdf5(inner):
            raise ValueError("not an HDF5 file; write it with AnnData.write_h5ad")
        _check_plain(inner, limit)
        yield inner


def unpack(path: str | Path, out: str | Path, *, size_limit: int | float | str = "32GB") -> Path:
    """Unpack the cells of a ``.vcc`` to an ``.h5ad``, whole or not at all, and return its path.

    A ValueError says that it is no such archive, that it is damaged or cut short, or that more
    bytes come out than `size_limit`.
    """
    limit = parse_memory(size_limit)
    check_writable(out, inputs=[path])
    with open(path, "rb") as archive, replacing(out) as part:
        offset, size = _packed_cells(archive)
        archive.seek(offset)
        with open(part, "wb") as file:
            for block in _unzstd(archive, size):
                file.write(block)
                _check_size(file.tell(), limit, "unpacked so far")  # a few kB can hold terabytes
    return Path(out)


def _packed_cells(archive: BinaryIO) -> tuple[int, int]:
    """Return where in the archive the cells lie: first byte and number of bytes."""
    found = [place for name, *place in _members(archive) if name.endswith(".h5ad.zst")]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} files .h5ad.zst in the archive; expected one, {_CELLS}; make it "
            "anew with vcc-helpers prep"
        )
    return tuple(found[0])


def _members(archive: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """List name, first byte and size of the plain files of a tar archive from its headers alone.

    tarfile would do more than is wanted here: follow links, and read a header of any length.
    """
    length, offset = os.fstat(archive.fileno()).st_size, 0
    for _ in range(_MOST_MEMBERS):
        archive.seek(offset)
        header = archive.read(tarfile.BLOCKSIZE)
        if header.strip(b"\0") == b"" and (offset or header):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.HeaderError as error:
            raise ValueError(
                f"no readable .vcc archive ({error} at byte {offset}); make it anew with "
                "vcc-helpers prep"
            ) from error
        offset += tarfile.BLOCKSIZE
        if info.size < 0 or offset + info.size > length:
            raise ValueError(
                f"the archive is cut short: {info.name!r} should hold {info.size} bytes, "
                f"{max(length - offset, 0)} are there; copy it again, or make it anew"
            )
        if info.isreg() and not Path(info.name).name.startswith("._"):  # those are macOS's own
            yield info.name, offset, info.size
        offset += -(-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    raise ValueError(f"more than {_MOST_MEMBERS} files in the archive; expected two; make it anew")


def _unzstd(archive: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield what the next `size` bytes unpack to, which may be several frames, a step at a time.

    zstd.open would not return from a million empty frames.
    """
    zstd, frames = _zstd(), 1
    decompressor, block = zstd.ZstdDecompressor(), b""
    try:
        while size or block or not decompressor.needs_input:
            if not block and decompressor.needs_input:
                block = archive.read(min(_STEP // 8, size))  # what is left is copied at each frame
                size -= len(block)
            yield decompressor.decompress(block, _STEP)
            block = decompressor.unused_data
            if decompressor.eof and (block or size):
                decompressor, frames = zstd.ZstdDecompressor(), frames + 1
            elif decompressor.eof:
                return
            if frames > _MOST_FRAMES:
                raise ValueError(
                    f"the archive's {_CELLS} has more than {_MOST_FRAMES:,} frames; make it anew"
                )
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the archive's {_CELLS} is damaged ({error}); make it anew") from error
    raise ValueError(f"the archive's {_CELLS} ends too early; make it anew")


def _check_size(size: int, limit: int, what: str) -> None:
    if size > limit:
        raise ValueError(f"{what}: {size / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} allowed")


def _check_plain(path: Path, limit: int) -> None:
    """Raise unless an HDF5 file holds nothing but data of its own, of a bearable size."""
    total = 0
    try:
        with h5py.File(path, "r") as file:
            check_tree(file)
            waiting = [file["/"]]
            while waiting:
                for item in _plain_items(waiting.pop()):
                    if isinstance(item, h5py.Group):
                        waiting.append(item)
                    elif isinstance(item, h5py.Dataset) and item.size:
                        total += item.size * item.dtype.itemsize
    except (OSError, RuntimeError, KeyError) as error:
        raise unreadable(path, error) from error
    _check_size(total, limit, "its arrays")


def _plain_items(group: h5py.Group) -> Iterator[h5py.HLObject]:
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"{group.name}: {name!r} is a link; expected plain data")
        item = group[name]
        if isinstance(item, h5py.Dataset) and (item.is_virtual or item.external):
            raise ValueError(f"{item.name} shows another file; expected plain data")
        yield item
