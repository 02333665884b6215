"""Files on a server, of which only the bytes that are needed travel.

HDF5 and zipfile read them as they read any file: in blocks, more at once when they read on and on.

Taught in: notebooks/09_work_with_large_files.

>>> merged([(0, 10), (5, 20), (10**6, 10**6 + 1)])
[(0, 20), (1000000, 1000001)]
"""

from __future__ import annotations

import io
import re
import struct
import time
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

import h5py
import numpy as np
import requests
import urllib3

from ..stream.blocks import ahead
from ..stream.write import replacing
from ._download import ATTEMPTS, LONGEST_PAUSE, PASSING, PAUSE, TIMEOUT, Broken

#: Requests at once; bytes that reading the file's structure asks for at least; bytes between two
#: pieces that are fetched rather than asked around; bytes of a request for much of a file.
THREADS, BLOCK, NEAR, MUCH = 16, 2**16, 2**12, 2**23
#: Most blocks that one request brings when the structure is read from one end to the other.
_MOST_AHEAD = 32
#: Children of a node of HDF5's tree of chunks.
_CHILDREN = 64


class Blocks(io.RawIOBase):
    """What HDF5 and zipfile read: pieces that were fetched for them, else blocks."""

    def __init__(self, url: str):
        self.url, self.size, self.etag = url, None, None
        self.at, self.next, self.ahead = 0, 1, 1
        self.blocks: dict[int, bytes] = {}
        self.nodes: dict[int, bytes] = {}
        self.hold([], [])

    def open(self) -> h5py.File:
        """Open it as HDF5, without a cache of chunks: it would read whole ones for a row."""
        return h5py.File(self, rdcc_nbytes=0)

    def hold(self, spans: list[tuple[int, int]], pieces: list[bytes]) -> None:
        """Keep pieces, in rising order, until the next ones: what is read soon."""
        self.starts, self.pieces = [start for start, _ in spans], pieces

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def readinto(self, buffer) -> int:
        stop = max(min(self.at + len(buffer), self.size), self.at)
        place = bisect_right(self.starts, self.at) - 1
        if len(self.nodes.get(self.at, b"")) == len(buffer):
            base, found = self.at, self.nodes[self.at]
        elif place >= 0 and stop <= self.starts[place] + len(self.pieces[place]):
            base, found = self.starts[place], memoryview(self.pieces[place])
        else:
            numbers = range(self.at // BLOCK, -(-stop // BLOCK))
            self._load([number for number in numbers if number not in self.blocks])
            base = numbers.start * BLOCK
            found = b"".join(self.blocks[number] for number in numbers)
        buffer[: stop - self.at] = found = bytes(found[self.at - base : stop - base])
        n_bytes, self.at = stop - self.at, stop
        if found[:5] == b"TREE\1" and found[5]:
            self._bring_children(found)
        return n_bytes

    def _bring_children(self, node: bytes) -> None:
        """Bring the nodes that a node of HDF5's tree of chunks names, which lie far apart, at once.

        The format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
        """
        key = (len(node) - 24 - _CHILDREN * 8) // (_CHILDREN + 1)
        n_children = min(int.from_bytes(node[6:8], "little"), _CHILDREN)
        if key not in (24, 32):  # of one dimension, of two
            return
        places = [24 + key + i * (key + 8) for i in range(n_children)]
        starts = [int.from_bytes(node[place : place + 8], "little") for place in places]
        spans = [(start, start + len(node)) for start in starts if start + len(node) <= self.size]
        with closing(ahead(self.bytes, spans, threads=THREADS)) as coming:
            self.nodes |= {start: found for (start, _), found in zip(spans, coming, strict=True)}

    def _load(self, missing: list[int]) -> None:
        if not missing:
            return
        first, last = missing[0], missing[-1]
        self.ahead = min(2 * self.ahead, _MOST_AHEAD) if first == self.next else 1
        self.next = max(last + 1, first + self.ahead)
        found = self.bytes(first * BLOCK, self.next * BLOCK)
        for place in range(0, len(found), BLOCK):
            self.blocks[first + place // BLOCK] = found[place : place + BLOCK]


class Absent(ConnectionError):
    """The server has no such file."""


class Server:
    """Asks a server for bytes; where a later answer may be better, asks again."""

    def __init__(self):
        self.session, self.answered = requests.Session(), False
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        self.session.headers.update({"User-Agent": "vcc-helpers", "Accept-Encoding": "identity"})

    def ask(self, url: str, span: str, fits: Callable[[requests.Response], int | None]) -> bytes:
        """Return the bytes of an answer; `fits` raises, or says how many there must be."""
        attempt = 0
        while True:
            try:
                return self._once(url, span, fits)
            except Broken as error:
                attempt, reason = attempt + 1, error
            if attempt == (ATTEMPTS if self.answered else min(ATTEMPTS, 3)):
                raise ConnectionError(
                    f"{url}: {reason}; given up after {attempt} attempts. The cells that have "
                    "arrived are kept: check the connection and run again, it goes on from there"
                )
            time.sleep(min(PAUSE * 2 ** (attempt - 1), LONGEST_PAUSE))

    def _once(self, url: str, span: str, fits: Callable) -> bytes:
        broken = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
        headers = {"Range": f"bytes={span}"} if span else {}
        try:
            answer = self.session.get(url, headers=headers, timeout=TIMEOUT, stream=True)
        except broken as error:
            cause = getattr(error.args[0] if error.args else error, "reason", error)
            words = str(cause).rpartition("): ")[2] or type(error).__name__
            raise Broken(f"no connection ({words})") from error
        self.answered = True
        with answer:
            if answer.status_code in PASSING:
                raise Broken(f"the server answers {answer.status_code} {answer.reason}")
            if answer.status_code not in (requests.codes.ok, requests.codes.partial_content):
                self._refused(answer)
            if "text/html" in answer.headers.get("Content-Type", ""):
                raise ConnectionError(
                    f"{url}: a web page came in place of the file, such as the login page of a "
                    "network or a proxy; open the address in a browser, log in there, run again"
                )
            n_bytes = fits(answer)
            try:
                found = answer.raw.read(n_bytes)
            except broken as error:
                raise Broken(f"the connection broke ({type(error).__name__})") from error
        if len(found) < (n_bytes or 0):
            raise Broken(f"the server sent {len(found):,} of {n_bytes:,} bytes")
        return found

    def _refused(self, answer: requests.Response) -> None:
        """Say what the server says, such as that a bucket wants an account."""
        words = re.sub(r"<[^>]*>|\s+", " ", answer.raw.read(2**12).decode(errors="replace"))
        raise (Absent if answer.status_code == requests.codes.not_found else ConnectionError)(
            f"{answer.url}: the server answers {answer.status_code} {answer.reason}"
            f"{f' ({words.strip()[:200]})' if words.strip() else ''}; check the address: the file "
            "may have moved, or need an account. If the challenge's files have moved, find their "
            "new folder at https://virtualcellchallenge.org and call fetch_h1(..., base_url=FOLDER)"
        )


class Remote(Blocks):
    """A file on a server; `n_bytes` says how large it must be, where that is known."""

    def __init__(self, url: str, n_bytes: int | None = None):
        super().__init__(url)
        self.server = Server()
        self.blocks[0] = self.bytes(0, BLOCK)
        if n_bytes not in (None, self.size):
            raise ConnectionError(
                f"{url} has {self.size:,} bytes, expected {n_bytes:,}: the published file was "
                "replaced, or a login page or a proxy answers in its place"
            )

    def close(self) -> None:
        self.server.session.close()
        super().close()

    def bytes(self, start: int, stop: int) -> bytes:
        """Return some bytes of the file."""
        fits = partial(self._fits, start, stop)
        return self.server.ask(self.url, f"{start}-{stop - 1}", fits)

    def _fits(self, start: int, stop: int, answer: requests.Response) -> int:
        """Raise unless the answer is the wanted part of the file that answered first."""
        span, _, total = answer.headers.get("Content-Range", "").rpartition("/")
        if answer.status_code == requests.codes.ok:
            raise ConnectionError(
                f"{self.url}: the server sends only the whole file, so some cells cannot be had "
                "alone; fetch the whole one, without cells_per_target="
            )
        if span.partition("-")[0].split() != ["bytes", str(start)] or not total.isdecimal():
            raise Broken(f"the server sent another part ({span}) than the one from {start:,} on")
        seen = int(total), answer.headers.get("ETag", "")
        if self.size is None:
            self.size, self.etag = seen
        elif seen != (self.size, self.etag):
            raise ConnectionError(
                f"{self.url} was replaced by another file while its cells were fetched; run "
                "again: it begins anew"
            )
        return min(stop, self.size) - start


class Member(Blocks):
    """A file that lies in a zip archive on a server, as it is (stored) or packed (deflated)."""

    def __init__(self, archive: Remote, info: ZipInfo):
        super().__init__(f"{archive.url}#{info.filename}")
        if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) or info.flag_bits & 1:
            raise ValueError(f"{self.url} is encrypted, or packed in an unusual way")
        head = archive.bytes(info.header_offset, info.header_offset + 30)
        if head[:4] != b"PK\3\4":
            raise ValueError(f"{self.url} does not begin where the archive says; it is damaged")
        self.start = info.header_offset + 30 + sum(struct.unpack_from("<HH", head, 26))
        self.archive, self.info, self.etag = archive, info, archive.etag
        self.packed, self.size = info.compress_type == ZIP_DEFLATED, info.compress_size

    def bytes(self, start: int, stop: int) -> bytes:
        return self.archive.bytes(self.start + start, self.start + min(stop, self.size))

    def unpack(self, path: Path) -> None:
        """Fetch all of it and unpack it; if that breaks, what has arrived is kept next to it."""
        packed = path.with_suffix(".packed")
        with open(packed, "ab") as file:
            edges = range(file.tell(), self.size, MUCH)
            spans = ((start, start + MUCH) for start in edges)
            with closing(ahead(self.bytes, spans, threads=THREADS)) as coming:
                for piece in coming:
                    file.write(piece)
        crc, unpacker = 0, zlib.decompressobj(-zlib.MAX_WBITS)
        with replacing(path) as place, open(packed, "rb") as source, open(place, "wb") as file:
            try:
                while file.tell() <= self.info.file_size and (piece := source.read(BLOCK)):
                    piece = unpacker.decompress(piece)
                    crc = zlib.crc32(piece, crc)
                    file.write(piece)
            except zlib.error:
                crc = None
            if (file.tell(), crc) != (self.info.file_size, self.info.CRC):
                packed.unlink()
                raise ValueError(
                    f"{self.url}: the bytes that arrived do not unpack to what the archive says; "
                    "they were removed, run again"
                )
        packed.unlink()


class Stored(NamedTuple):
    """Where the values of an HDF5 array lie: chunks, in rows of chunks, each a stretch of bytes."""

    height: int  # rows of a chunk
    width: int  # bytes of a row of a chunk
    packed: bool
    offsets: np.ndarray  # (n_chunks down, n_chunks across), int64
    sizes: np.ndarray

    @classmethod
    def of(cls, array: h5py.Dataset) -> Stored:
        if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or array.file.userblock_size:
            raise ValueError(f"{array.name} is not stored as plain numbers")
        chunk = np.maximum(array.chunks or array.shape, 1)
        grid = [-(-n // side) for n, side in zip(array.shape, chunk, strict=True)]
        offsets, sizes = np.zeros((2, grid[0], *(grid[1:] or [1])), dtype=np.int64)

        def note(found) -> None:
            place = (*np.floor_divide(found.chunk_offset, chunk), 0)[:2]
            offsets[place], sizes[place] = found.byte_offset, found.size

        if array.chunks:
            array.id.chunk_iter(note)
        else:
            offsets[:] = array.id.get_offset() or 0
        if (offsets <= 0).any():  # the file begins at 0, and no array does
            raise ValueError(f"{array.name} has values that were never written")
        width = int(np.prod(chunk[1:])) * array.dtype.itemsize
        packed = array.id.get_create_plist().get_nfilters() > 0
        return cls(int(chunk[0]), width, packed, offsets, sizes)

    def spans(self, start: int, stop: int) -> Iterable[tuple[int, int]]:
        """Yield the bytes, first and behind the last, of some rows; of a packed chunk, all."""
        for number in range(start // self.height, -(-stop // self.height)):
            first = number * self.height
            low, high = max(start - first, 0), min(stop - first, self.height)
            for offset, size in zip(self.offsets[number], self.sizes[number], strict=True):
                if self.packed:
                    yield int(offset), int(offset + size)
                else:
                    yield int(offset) + low * self.width, int(offset) + high * self.width


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Join stretches of bytes that overlap or lie near each other."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1] + NEAR:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found
