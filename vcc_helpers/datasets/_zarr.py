"""A Zarr store at an address: each part of an array is a file on the server, or some bytes of one.

Zarr itself reads it, and asks for several parts at once; none travels twice while it is in use.

Taught in: notebooks/09_work_with_large_files.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from math import prod
from urllib.parse import urlsplit

import numpy as np
import requests
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, default_buffer_prototype

from ..stream.blocks import Threads
from ..stream.guard import _ZARR_WORDS, _check_words
from ._remote import THREADS, Absent, Server

#: Parts that are kept until so many others have come: neighbouring cells share them.
_HELD = 4 * THREADS
#: Bytes of a part that a server may send; those of AnnData have some millions.
_LARGEST = 2**30


class FarStore(Store):
    """What Zarr reads; the store must have its metadata in one place, as AnnData writes them."""

    supports_listing = supports_writes = supports_deletes = False

    def __init__(self, url: str):
        super().__init__(read_only=True)
        self.url, self.size, self.etag = url, 0, ""
        self.server, self.pool, self.coming = Server(), Threads(THREADS), OrderedDict()

    def __eq__(self, other: object) -> bool:
        return self is other

    def open(self) -> zarr.Group:
        """Open it; where all its metadata are in one file, this file's checksum is its version."""
        for version in (3, 2):
            with suppress(FileNotFoundError):
                group = zarr.open_group(self, mode="r", zarr_format=version)
                if group.metadata.consolidated_metadata is not None:
                    return group
        raise ConnectionError(
            f"{self.url}: the server has no zarr.json or .zmetadata there with the metadata of all "
            "parts; check the address, or make one with zarr.consolidate_metadata"
        )

    def close(self) -> None:
        """End the connections."""
        self.pool.shutdown(wait=False, cancel_futures=True)
        self.server.session.close()
        super().close()

    def most(self, arrays: Sequence[zarr.Array], ends: np.ndarray) -> tuple[int, int]:
        """Return how many parts hold some stretches of arrays, and their size before packing."""
        number = size = 0
        for array in arrays:
            height, *widths = array.chunks
            rows = {i for a, b in ends.tolist() for i in range(a // height, -(-b // height))}
            across = prod(-(-n // w) for n, w in zip(array.shape[1:], widths, strict=True))
            number += len(rows) * across
            size += len(rows) * across * prod(array.chunks) * array.dtype.itemsize
        return number, size

    def bring(self, key: str, span: ByteRequest | None) -> bytes | None:
        """Fetch a file or some bytes of it; None if the server has none: Zarr leaves out zeros."""
        parts = urlsplit(self.url)
        url = parts._replace(path=f"{parts.path.rstrip('/')}/{key}").geturl()
        match span:
            case RangeByteRequest(start, stop):
                asked = f"{start}-{stop - 1}"
            case SuffixByteRequest(n):
                asked = f"-{n}"
            case _:
                asked = ""

        def fits(answer) -> int | None:
            if asked and answer.status_code == requests.codes.ok:
                raise ConnectionError(
                    f"{url}: the server sends only whole files, not parts of them"
                )
            length = answer.headers.get("Content-Length", "")
            if not length.isdecimal() or int(length) > _LARGEST:
                raise ConnectionError(
                    f"{url}: the server would send {length or 'an unknown number of'} bytes; "
                    f"expected a part of a Zarr store, of at most {_LARGEST:,}"
                )
            return int(length) or None

        try:
            found = self.server.ask(url, asked, fits)
        except Absent:
            if key.startswith("X/data/"):  # the values of CSR, none of which is 0
                raise
            return None
        if key.rpartition("/")[2] in _ZARR_WORDS:
            _check_words(url, json.loads(found))
            if key in ("zarr.json", ".zmetadata"):
                self.etag = f"sha256 {hashlib.sha256(found).hexdigest()}"
        return found

    async def get(self, key: str, prototype=None, byte_range=None) -> Buffer | None:
        """Return a part; one that is on its way already is waited for."""
        asked, loop = (key, byte_range), asyncio.get_running_loop()
        if asked not in self.coming:
            self.coming[asked] = loop.run_in_executor(self.pool, self.bring, *asked)
            if len(self.coming) > _HELD:
                self.coming.popitem(last=False)
        if (found := await self.coming[asked]) is None:
            return None
        return (prototype or default_buffer_prototype()).buffer.from_bytes(found)

    async def get_partial_values(self, prototype, key_ranges) -> list[Buffer | None]:
        """Return several parts."""
        return await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges))

    async def exists(self, key: str) -> bool:
        """Return whether the server has a file."""
        return await self.get(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        """Refuse: nothing is written."""
        raise NotImplementedError

    delete = set

    async def list(self, *_) -> AsyncIterator[str]:
        """Yield nothing: a server of files has no list of them."""
        return
        yield

    list_prefix = list_dir = list
