"""The cells of a ``.vcc``, the archive that the challenge takes, unpacked within bounds.

A ``.vcc`` is a tar archive of two files: the cells, ``pred.h5ad.zst``, packed with Zstandard, and a
watermark that says which tool made it; of 2026 ``meta.json``, and the cells.
:mod:`~vcc_helpers.submission.archive` writes one.

Taught in: notebooks/18_from_means_to_cells.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from .write import replacing

#: The name of the cells in the archive, as cell-eval 0.6.6 writes it.
CELLS = "pred.h5ad.zst"
#: Members of an archive that are looked at.
_MOST_MEMBERS = 64
#: Zstandard frames that are unpacked; programs write one, or one for some megabytes.
_MOST_FRAMES = 10_000
#: Bytes that are unpacked at a time.
STEP = 2**20


def zstandard():
    """Return the standard library's module of Python 3.14, or its backport."""
    new = sys.version_info >= (3, 14)
    return import_module("compression.zstd" if new else "backports.zstd")


def unpack(path: str | Path, out: str | Path, *, limit: int) -> Path:
    """Do :func:`~vcc_helpers.submission.archive.unpack`, with a limit in bytes."""
    with open(path, "rb") as archive, replacing(out) as part:
        found = [place for name, *place in _members(archive) if name.endswith(".h5ad.zst")]
        if len(found) != 1:
            raise ValueError(
                f"{len(found)} files .h5ad.zst in the archive; expected one, {CELLS}; make it "
                "anew with vcc-helpers prep"
            )
        [(offset, size)] = found
        archive.seek(offset)
        with open(part, "wb") as file:
            for block in _unzstd(archive, size):
                file.write(block)
                check_size(file.tell(), limit, "unpacked so far")  # a few kB can hold terabytes
    return Path(out)


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
    zstd, frames = zstandard(), 1
    decompressor, block = zstd.ZstdDecompressor(), b""
    try:
        while size or block or not decompressor.needs_input:
            if not block and decompressor.needs_input:
                block = archive.read(min(STEP // 8, size))  # what is left is copied at each frame
                size -= len(block)
            yield decompressor.decompress(block, STEP)
            block = decompressor.unused_data
            if decompressor.eof and (block or size):
                decompressor, frames = zstd.ZstdDecompressor(), frames + 1
            elif decompressor.eof:
                return
            if frames > _MOST_FRAMES:
                raise ValueError(
                    f"the archive's {CELLS} has more than {_MOST_FRAMES:,} frames; make it anew"
                )
    except (zstd.ZstdError, EOFError) as error:
        raise ValueError(f"the archive's {CELLS} is damaged ({error}); make it anew") from error
    raise ValueError(f"the archive's {CELLS} ends too early; make it anew")


def check_size(size: int, limit: int, what: str) -> None:
    """Raise a ValueError if there are more bytes of something than allowed."""
    if size > limit:
        raise ValueError(f"{what}: {size / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} allowed")
