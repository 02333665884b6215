"""The challenge's official files: fetched, resumed when cut, checked before they get their name.

The file grows under the name ``....part``. Only when all bytes are there and their sha256 is the
published one does it take its final name, in one step.

Taught in: notebooks/01_load_the_h1_data.

>>> import tempfile
>>> fetch_h1("sample", folder=tempfile.mkdtemp()).name
'h1_sample.h5ad'
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from tqdm.auto import tqdm

from ..stream.write import _lock, full_disk_explained, no_link, replacing
from ._bundled import H1_FILE
from ._official import OFFICIAL, OfficialFile
from ._world import SPLIT_NAMES

BLOCK = 1 << 20
#: Attempts in a row that may bring no new byte; seconds until a silent connection counts as broken,
#: and before the second attempt, doubled each time.
ATTEMPTS, TIMEOUT, PAUSE, LONGEST_PAUSE = 6, 60.0, 1.0, 60.0
#: Answers that may be better a moment later; any other refusal is final.
PASSING = {408, 416, 425, 429, 500, 502, 503, 504}


class _Broken(Exception):
    """The connection or the answer is no good now; another attempt may be better."""


def fetch_h1(
    what: str,
    *,
    cells_per_target: int | None = None,
    controls: int = 2000,
    genes: Sequence[str] | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    base_url: str | None = None,
    progress: bool = True,
) -> Path:
    """Fetch one official file of the challenge, or a panel of its cells, unless it is there.

    Parameters
    ----------
    what
        ``"train"`` (15.5 GB), ``"validation"`` (6.9 GB) or ``"test"`` (12.0 GB), the cells;
        ``"train_counts"``, ``"validation_counts"`` or ``"test_counts"``, the small tables of
        targets, cells per target and median depth; ``"gene_names"``, the 18,080 gene symbols in
        order; ``"support_set"`` (8.7 GB), a zip archive with cells of other contexts, see
        :func:`read_contexts`; or ``"sample"``, the 600 real cells that come with the package, as
        ``h1_sample.h5ad``, without the network.
    cells_per_target
        Fetch a *panel* of ``"train"``, ``"validation"`` or ``"test"``: at most so many cells of
        each target, drawn at random. Only these cells travel: with 60 cells and 2,000 controls
        about 0.8 of the 15.5 GB.
    controls, seed
        Of a panel: the most control cells, and the seed of the draw.
    genes
        Of a panel: the genes to keep, in this order; all by default.
    folder
        Where to; made when it is not there. By default the folder that the environment variable
        ``VCC_DATA`` names, else ``data/h1``, or ``data/h1-panel`` for a panel.
    base_url
        Address of a copy of the official folder.
    progress
        Say beforehand what it takes, and show progress bars.

    Returns
    -------
    Path
        The file, complete; its sha256 is the published one. A panel has the name of the official
        file; its counts are uint16 (uint32 where one is larger), its cells are sorted by target,
        obs ``source_row`` is the cell's row in the official file, and ``uns["panel"]`` holds the
        address, its size and version (``etag``), and how the cells were drawn.

    Raises
    ------
    KeyError
        There is no such official file.
    FileExistsError
        Another file has the official name, simulated or damaged; it is left as it is.
    BlockingIOError
        Another run is fetching the same file into the same folder.
    ConnectionError
        The server refuses the file, or six attempts in a row brought no new byte, each after a
        longer pause; a minute without one ends an attempt.
    ValueError
        All bytes arrived, but they are not those that were published; they are removed.
    OSError
        The folder cannot be written to, or the disk has too little room.

    Notes
    -----
    Stopped with Ctrl-C, killed or cut, the next run goes on where this one stopped. A file that was
    checked is not read again as long as its size and its time of change stay the same; a small
    hidden file next to it remembers them.

    A panel's bytes cannot be held against the published sha256. What is checked: the size of the
    official file and its version with every answer, and that each cell's values are counts of
    genes in rising order.

    Source of the files: Virtual Cell Challenge 2025, Arc Institute; CC0 1.0.
    """
    if folder is None:
        named = os.environ.get("VCC_DATA", "")
        usual = "data/h1" if cells_per_target is None else "data/h1-panel"
        folder = named if named not in ("", "simulated") else usual
    folder = Path(folder).expanduser()
    if what == "sample":
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "h1_sample.h5ad"
        with as_file(files(__package__) / "data" / H1_FILE) as source, replacing(target) as part:
            shutil.copyfile(source, part)
        return target
    if what not in OFFICIAL:
        names = ", ".join(map(repr, ("sample", *OFFICIAL)))
        raise KeyError(f"there is no official file {what!r}; choose one of {names}")
    official, target = OFFICIAL[what], folder / OFFICIAL[what].name
    url = (base_url.rstrip("/") + "/" if base_url else official.base) + official.path
    wanted = _Wanted(official, url, target, progress)
    if cells_per_target is not None:
        if what not in SPLIT_NAMES:
            raise ValueError(f"no panel of {what!r}; expected one of {', '.join(SPLIT_NAMES)}")
        how = {"cells_per_target": cells_per_target, "controls": controls, "seed": seed}
        from ._panel import fetch_panel
        from ._simulate import _check_whole

        for name, number in how.items():
            _check_whole(name, number, at_least=name != "seed")
        return fetch_panel(wanted, how, genes=genes, known=base_url is None)
    if not target.exists():
        with wanted.alone():
            if not target.exists():  # else another run ended between the look and the lock
                wanted.fetch()
    return wanted.checked()


@dataclass
class _Wanted:
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
        text = f"{official.name} takes {_size(needed)} more in {target.parent}, {_size(free)} free"
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
            except _Broken as error:
                in_vain = 0 if self.here > furthest else in_vain + 1
                furthest = max(furthest, self.here)
                if in_vain >= ATTEMPTS:
                    raise ConnectionError(
                        f"{self.url}: {error}; given up after {in_vain} attempts that brought "
                        f"nothing new. {_size(self.here)} of {_size(n_bytes)} are here and kept: "
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
                        raise _Broken(text) from error
                    if not block:
                        raise _Broken(f"the server ended at {file.tell():,} of {n_bytes:,} bytes")
                    file.write(block)
                    bar.update(len(block))
            file.flush()
            os.fsync(file.fileno())

    def ask(self, start: int) -> http.client.HTTPResponse:
        headers = {"User-Agent": "vcc-helpers"} | ({"Range": f"bytes={start}-"} if start else {})
        request = urllib.request.Request(self.url, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                self.part.unlink(missing_ok=True)  # from the first byte, then
            text = f"the server answers {error.code} {error.reason}"
            if error.code in PASSING:
                raise _Broken(text) from error
            raise ConnectionError(
                f"{self.url}: {text}; the file may have moved: look it up on "
                "https://virtualcellchallenge.org, and name its new folder with base_url="
            ) from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise _Broken(f"no connection ({reason or type(error).__name__})") from error


def _size(n_bytes: int) -> str:
    return tqdm.format_sizeof(n_bytes, "B")


def _begin_of(response: http.client.HTTPResponse, start: int, n_bytes: int) -> int:
    """Return where in the file the answer's bytes begin, if it is the file that is expected."""
    span, _, total = response.headers.get("Content-Range", "").rpartition("/")
    if response.status != http.client.PARTIAL_CONTENT:  # the whole file: it knows no ranges
        start, total = 0, response.headers.get("Content-Length", "")
    elif span.partition("-")[0].split() != ["bytes", str(start)]:
        raise _Broken(f"the server sent another part ({span}) than the one from {start:,} on")
    if total.isdecimal() and int(total) != n_bytes:
        raise _Broken(
            f"the server announces {int(total):,} bytes, expected {n_bytes:,} (another file, or "
            "the page of a login or a proxy?)"
        )
    return start
