"""A whole file from a server: resumed when cut, checked before it gets its name.

The file grows under the name ``....part``. Only when all bytes are there and their sha256 is the
published one does it take its final name, in one step.

Taught in: notebooks/09_work_with_large_files.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from ..stream.write import _lock, full_disk_explained, no_link
from ._official import OfficialFile

BLOCK = 1 << 20
#: Attempts in a row that may bring no new byte; seconds until a silent connection counts as broken,
#: and before the second attempt, doubled each time.
ATTEMPTS, TIMEOUT, PAUSE, LONGEST_PAUSE = 6, 60.0, 1.0, 60.0
#: Answers that may be better a moment later; any other refusal is final.
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}


class Broken(Exception):
    """The connection or the answer is no good now; another attempt may be better."""


@dataclass
class Wanted:
    """One official file, where it is, and where it shall be.

    `part` is the file while it grows, `note` a small hidden file: what was checked; its lock tells
    two runs apart.
    """

    official: OfficialFile
    url: str
    target: Path
    progress: bool

    def __post_init__(self):
        self.part = self.target.with_name(f"{self.target.name}.part")
        self.note = self.target.with_name(f".{self.target.name}.fetch")
        self.answered = False  # no network at all shows soon

    @property
    def here(self) -> int:
        """Bytes that have arrived."""
        return self.part.stat().st_size if self.part.exists() else 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold a lock that the system itself takes away from a process that dies."""
        folder = self.target.parent
        try:  # whether one may write there shows at once
            folder.mkdir(parents=True, exist_ok=True)
            file = open(self.note, "a", opener=no_link)
        except OSError as error:
            text = f"cannot write into {folder} ({error.strerror}); name another with folder="
            raise type(error)(error.errno, text) from error
        with file:
            if _lock(file.fileno()) is False:  # None: here two runs at once are not told apart
                raise BlockingIOError(
                    f"another run is fetching {self.target.name} into {folder}; wait until it has "
                    "ended, then run again"
                )
            yield

    def checked(self) -> Path:
        """Return the file if it is the official one; it is read only if it has changed."""
        official, target = self.official, self.target
        size, state = target.stat().st_size, self.state()
        with suppress(OSError, ValueError):  # absent, or cut short
            with open(self.note, encoding="utf-8", opener=no_link) as file:
                if json.load(file) == state:
                    return target
        seen, expected = f"{size:,} bytes", f"{official.n_bytes:,} bytes"
        if seen == expected:
            seen, expected = f"sha256 {self.sha256(target)}", f"sha256 {official.sha256}"
        if seen != expected:
            raise FileExistsError(
                f"{target} is there, but is not the official file: it has {seen}, expected "
                f"{expected}. It may be simulated, damaged or an older one, and is left as it is; "
                "move it away and run again, or name another folder with folder="
            )
        self.remember()
        return target

    def state(self) -> dict:
        """Return what tells that the checked file has not changed."""
        stat, sha256 = self.target.stat(), self.official.sha256
        return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}

    def remember(self) -> None:
        """Note what was checked; in a folder one may only read it is read again the next time."""
        with suppress(OSError), open(self.note, "w", encoding="utf-8", opener=no_link) as file:
            json.dump(self.state(), file)

    def sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        with open(path, "rb") as file, self.bar("checking", path.stat().st_size) as bar:
            while block := file.read(BLOCK):
                digest.update(block)
                bar.update(len(block))
        return digest.hexdigest()

    def bar(self, what: str, total: int, done: int = 0) -> tqdm:
        kind = {"unit": "B", "unit_scale": True, "desc": what, "disable": not self.progress}
        return tqdm(total=total, initial=done, **kind)

    def fetch(self) -> None:
        """Bring the file, and give it its name if its bytes are right; else remove it."""
        official, target = self.official, self.target
        for place in (self.part, target):  # neither is there, or the first is ours
            if place.is_symlink() or place.exists() and not place.is_file():
                raise FileExistsError(f"{place} is in the way, and no file; remove it, run again")
        needed, free = official.n_bytes - self.here, shutil.disk_usage(target.parent).free
        folder = target.parent
        text = f"{official.name} takes {amount(needed)} more in {folder}, {amount(free)} free"
        if needed > free:
            raise OSError(errno.ENOSPC, f"{text}; make room, or name another folder with folder=")
        if self.progress:
            print(text, file=sys.stderr)
        kept = "what has arrived is kept, and the next run goes on from there"
        with full_disk_explained(target.parent, kept):
            self.fill()
        seen = self.sha256(self.part)
        if seen != official.sha256:
            self.part.unlink()
            raise ValueError(
                f"{official.name}: the bytes that arrived are not those that were published: "
                f"sha256 {seen}, expected {official.sha256}. They were removed; run again. If it "
                "happens twice, the file at this address was replaced, or something on the way (a "
                "proxy, a login page) changes it"
            )
        os.replace(self.part, target)
        self.remember()

    def fill(self) -> None:
        """Bring the part to its full length, by as many connections as it takes."""
        n_bytes, furthest, in_vain = self.official.n_bytes, self.here, 0
        while self.here != n_bytes:
            try:
                self.connect()
            except Broken as error:
                in_vain = 0 if self.here > furthest else in_vain + 1
                furthest = max(furthest, self.here)
                if in_vain >= (ATTEMPTS if self.answered else min(ATTEMPTS, 3)):
                    raise ConnectionError(
                        f"{self.url}: {error}; given up after {in_vain} attempts that brought "
                        f"nothing new. {amount(self.here)} of {amount(n_bytes)} are here and kept: "
                        "check the connection and run again, it goes on from there"
                    ) from error
                time.sleep(min(PAUSE * 2 ** max(in_vain - 1, 0), LONGEST_PAUSE))

    def connect(self) -> None:
        """Append what one connection brings; then the disk has it, too."""
        n_bytes = self.official.n_bytes
        start = self.here if self.here < n_bytes else 0
        with self.ask(start) as response, open(self.part, "ab", opener=no_link) as file:
            file.truncate(_begin_of(response, start, n_bytes))
            with self.bar(self.target.name, n_bytes, file.tell()) as bar:
                while missing := n_bytes - file.tell():
                    try:
                        block = response.read1(min(BLOCK, missing))
                    except (OSError, http.client.HTTPException) as error:
                        text = f"the connection broke ({error or type(error).__name__})"
                        raise Broken(text) from error
                    if not block:
                        raise Broken(f"the server ended at {file.tell():,} of {n_bytes:,} bytes")
                    file.write(block)
                    bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())

    def ask(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "vcc-helpers"} | ({"Range": f"bytes={start}-"} if start else {})
        request = urllib.request.Request(self.url, headers=headers)
        try:
            response = urllib.request.urlopen(request, timeout=TIMEOUT)
            self.answered = True
            return response
        except urllib.error.HTTPError as error:
            self.answered = True
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)  # from the first byte, then
            text = f"the server answers {error.code} {error.reason}"
            if error.code in PASSING:
                raise Broken(text) from error
            raise ConnectionError(
                f"{self.url}: {text}; the file may have moved: find its new folder at "
                "https://virtualcellchallenge.org and call fetch_h1(..., base_url=FOLDER)"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise Broken(f"no connection ({reason or type(error).__name__})") from error


def amount(n_bytes: int) -> str:
    return tqdm.format_sizeof(n_bytes, "B")


def _begin_of(response: http.client.HTTPResponse, start: int, n_bytes: int) -> int:
    """Return where in the file the answer's bytes begin, if it is the file that is expected."""
    span, _, total = response.headers.get("Content-Range", "").rpartition("/")
    if response.status != http.client.PARTIAL_CONTENT:  # the whole file: it knows no ranges
        start, total = 0, response.headers.get("Content-Length", "")
    elif span.partition("-")[0].split() != ["bytes", str(start)]:
        raise Broken(f"the server sent another part ({span}) than the one from {start:,} on")
    if total.isdecimal() and int(total) != n_bytes:
        raise Broken(
            f"the server announces {int(total):,} bytes, expected {n_bytes:,} (another file, or "
            "the page of a login or a proxy?)"
        )
    return start
