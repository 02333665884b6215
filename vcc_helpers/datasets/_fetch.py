"""The challenge's official files: fetched, resumed when cut, checked before they get their name.

The file grows under the name ``....part``. Only when all bytes are there and their sha256 is the
published one does it take its final name, in one step. So a file under its final name is whole,
whatever happened on the way.

Taught in: notebooks/01_load_the_h1_data.

>>> official = OFFICIAL["train"]
>>> official.name, f"{official.n_bytes / 1e9:.1f} GB"
('adata_Training.h5ad', '15.5 GB')
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
from importlib.resources import as_file, files
from pathlib import Path
from typing import BinaryIO, NamedTuple, TextIO

from tqdm.auto import tqdm

from ..stream.write import replacing
from ._bundled import H1_FILE
from ._official import OFFICIAL, OfficialFile

try:
    import fcntl
except ImportError:  # Windows has no such lock; there, two runs at once are not told apart
    fcntl = None

#: Where files go when neither an argument nor VCC_DATA names a folder.
DEFAULT_FOLDER = Path("data") / "h1"
BLOCK = 1 << 20
LONGEST_PAUSE = 60.0
#: Answers that may be better a moment later; any other refusal is final.
PASSING = {408, 425, 429, 500, 502, 503, 504}
#: What the system says when a disk, or one's share of it, is full.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _Patience(NamedTuple):
    attempts: int
    timeout: float
    pause: float


class _Broken(Exception):
    """The connection or the answer is no good now; another attempt may be better."""


def fetch_h1(
    what: str,
    *,
    folder: str | Path | None = None,
    base_url: str | None = None,
    progress: bool = True,
    attempts: int = 6,
    timeout: float = 60.0,
    pause: float = 1.0,
) -> Path:
    """Fetch one official file of the challenge, unless it is there already, and check it.

    Parameters
    ----------
    what
        ``"train"`` (15.5 GB), ``"validation"`` (6.9 GB) or ``"test"`` (12.0 GB), the cells;
        ``"train_counts"``, ``"validation_counts"`` or ``"test_counts"``, the small tables of
        targets, cells per target and median depth; ``"gene_names"``, the 18,080 gene symbols in
        order; ``"support_set"`` (8.7 GB), a zip archive with cells of other contexts, see
        :func:`read_contexts`; or ``"sample"``, the 600 real cells that come with the package, as
        ``h1_sample.h5ad``, without the network.
    folder
        Where to; made when it is not there. By default the folder that the environment variable
        ``VCC_DATA`` names, else ``data/h1``.
    base_url
        Address of a copy of the official folder; the published one by default.
    progress
        Say beforehand what it takes, and show progress bars.
    attempts
        Give up after so many attempts in a row that brought no new bytes.
    timeout
        Seconds without a byte after which a connection counts as broken.
    pause
        Seconds before the second attempt; doubled each time, 60 at most.

    Returns
    -------
    Path
        The file, complete; its sha256 is the published one.

    Raises
    ------
    KeyError
        There is no such official file.
    FileExistsError
        Another file has the official name, simulated or damaged; it is left as it is.
    BlockingIOError
        Another run is fetching the same file into the same folder.
    ConnectionError
        The file could not be had; what has arrived is kept, and the next run goes on from there.
    ValueError
        All bytes arrived, but they are not those that were published; they are removed.
    OSError
        The folder cannot be written to, or the disk has too little room.

    Notes
    -----
    While it grows, the file has the ending ``.part``. Stopped with Ctrl-C, killed or cut, the next
    run goes on where this one stopped. A file that was checked once is not read again as long as
    its size and its time of change stay the same; a small hidden file beside it remembers them.

    Source of the files: Virtual Cell Challenge 2025, Arc Institute; CC0 1.0.
    """
    if what == "sample":
        return _copy_sample(_folder(folder))
    official = _official(what)
    target = _folder(folder) / official.name
    if target.exists():
        return _checked(target, official, progress)
    url = (base_url.rstrip("/") + "/" if base_url else official.base) + official.path
    patience = _Patience(attempts, timeout, pause)
    with _alone(target):
        if not target.exists():  # else another run ended between the look and the lock
            part = _part_of(target)
            _check_room(part, official, progress)
            with _full_disk_explained(part):
                _fill(target, url, official.n_bytes, patience, progress)
            _finish(part, target, official, progress)
    return _checked(target, official, progress)


def _copy_sample(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "h1_sample.h5ad"
    with as_file(files(__package__) / "data" / H1_FILE) as source, replacing(target) as part:
        shutil.copyfile(source, part)
    return target


def _official(what: str) -> OfficialFile:
    if what not in OFFICIAL:
        names = ", ".join(map(repr, ("sample", *OFFICIAL)))
        raise KeyError(f"there is no official file {what!r}; choose one of {names}")
    return OFFICIAL[what]


def _folder(folder: str | Path | None) -> Path:
    if folder is None:
        named = os.environ.get("VCC_DATA", "")
        folder = named if named not in ("", "simulated") else DEFAULT_FOLDER
    return Path(folder).expanduser()


def _part_of(target: Path) -> Path:
    return target.with_name(target.name + ".part")


# One small hidden file beside each: the version that is being fetched, or what was checked; its
# lock tells two runs apart.


def _note_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.fetch")


def _read_note(target: Path) -> dict:
    try:
        return dict(json.loads(_note_of(target).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # absent, or cut short: then nothing is known
        return {}


def _write_note(target: Path, note: dict) -> None:
    _note_of(target).write_text(json.dumps(note), encoding="utf-8")


def _open_note(target: Path) -> TextIO:
    """Make the folder and open the note: whether one may write there shows at once."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return open(_note_of(target), "a", encoding="utf-8")
    except OSError as error:
        text = f"cannot write into {target.parent} ({error.strerror}); name another with folder="
        raise type(error)(error.errno, text) from error


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold a lock that the system itself takes away from a process that dies."""
    with _open_note(target) as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BlockingIOError(
                    f"another run is fetching {target.name} into {target.parent}; wait until it "
                    "has ended, then run again"
                ) from None
            except OSError:  # a file system without locks, such as a mounted network drive
                pass
        yield


# Is it there already?


def _checked(target: Path, official: OfficialFile, progress: bool) -> Path:
    """Return `target` if it is the official file; it is read only if it has changed."""
    if _read_note(target) == _state(target, official.sha256):
        return target
    seen, expected = f"{target.stat().st_size:,} bytes", f"{official.n_bytes:,} bytes"
    if seen == expected:
        seen, expected = (f"sha256 {x}" for x in (_sha256(target, progress), official.sha256))
    if seen != expected:
        raise FileExistsError(
            f"{target} is there, but is not the official file: it has {seen}, expected "
            f"{expected}. It may be simulated, damaged or an older one, and is left as it is; "
            "move it away and run again, or name another folder with folder="
        )
    with suppress(OSError):  # a folder one may only read: then it is read again the next time
        _write_note(target, _state(target, official.sha256))
    return target


def _state(target: Path, sha256: str) -> dict:
    stat = target.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256}


def _sha256(path: Path, progress: bool) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file, _bar(path.stat().st_size, 0, "checking", progress) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _bar(total: int, done: int, what: str, progress: bool) -> tqdm:
    return tqdm(
        total=total, initial=done, unit="B", unit_scale=True, desc=what, disable=not progress
    )


# Before, and after


def _check_room(part: Path, official: OfficialFile, progress: bool) -> None:
    """Say what the download takes, and refuse it if the disk cannot hold it."""
    needed, free = official.n_bytes - _length(part), shutil.disk_usage(part.parent).free
    text = f"{official.name} takes {_size(needed)} more in {part.parent}, {_size(free)} are free"
    if needed > free:
        raise OSError(errno.ENOSPC, f"{text}; make room, or name another folder with folder=")
    if progress:
        print(text, file=sys.stderr)


def _length(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _size(n_bytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes} bytes"


@contextmanager
def _full_disk_explained(part: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise OSError(
            error.errno,
            f"the disk became full while {part} was written; what has arrived is kept: make room "
            "and run again, it goes on from there",
        ) from error


def _finish(part: Path, target: Path, official: OfficialFile, progress: bool) -> None:
    """Give `part` its final name if its bytes are right; else remove it."""
    seen = _sha256(part, progress)
    if seen != official.sha256:
        part.unlink()
        raise ValueError(
            f"{official.name}: the bytes that arrived are not those that were published: sha256 "
            f"{seen}, expected {official.sha256}. They were removed; run again. If it happens "
            "twice, the file at this address was replaced, or something on the way (a proxy, a "
            "login page) changes it"
        )
    os.replace(part, target)
    _write_note(target, _state(target, official.sha256))


# The download itself


def _fill(target: Path, url: str, n_bytes: int, patience: _Patience, progress: bool) -> None:
    """Bring the part to `n_bytes`, by as many connections as it takes."""
    part = _part_of(target)
    furthest, in_vain = _length(part), 0
    while _length(part) != n_bytes:
        try:
            _one_connection(target, url, n_bytes, patience.timeout, progress)
        except _Broken as error:
            in_vain = 0 if _length(part) > furthest else in_vain + 1
            furthest = max(furthest, _length(part))
            if in_vain >= patience.attempts:
                raise ConnectionError(
                    f"{url}: {error}; given up after {in_vain} attempts that brought nothing new. "
                    f"{_size(_length(part))} of {_size(n_bytes)} are here and kept: check the "
                    "connection and run again, it goes on from there"
                ) from error
            time.sleep(min(patience.pause * 2 ** max(in_vain - 1, 0), LONGEST_PAUSE))


def _one_connection(target: Path, url: str, n_bytes: int, timeout: float, progress: bool) -> None:
    part = _part_of(target)
    start = _length(part) if _length(part) < n_bytes else 0
    known = _read_note(target).get("version") if start else None
    with _ask(url, start, known, timeout) as response:
        begin = _begin_of(response, start, known)
        with open(part, "ab") as file:
            file.truncate(begin or 0)
            if begin is None:
                raise _Broken("the server sent another part, or a part of another version")
            _check_announced(response, n_bytes)
            _write_note(target, {"version": _version(response)})
            _pour(response, file, n_bytes, target.name, progress)


def _pour(response, file: BinaryIO, n_bytes: int, name: str, progress: bool) -> None:
    """Append what arrives until the file has `n_bytes`; then the disk has it, too."""
    with _bar(n_bytes, file.tell(), name, progress) as bar:
        while missing := n_bytes - file.tell():
            try:
                block = response.read1(min(BLOCK, missing))
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(f"the connection broke ({error or type(error).__name__})") from error
            if not block:
                raise _Broken(f"the server ended at {file.tell():,} of {n_bytes:,} bytes")
            file.write(block)
            bar.update(len(block))
    file.flush()
    os.fsync(file.fileno())


def _ask(url: str, start: int, known: str | None, timeout: float) -> http.client.HTTPResponse:
    headers = {"User-Agent": "vcc-helpers"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if known:
            headers["If-Range"] = known
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and start:
            return _ask(url, 0, None, timeout)
        if error.code in PASSING:
            raise _Broken(f"the server answers {error.code} {error.reason}") from error
        raise ConnectionError(
            f"{url}: the server answers {error.code} {error.reason}; the file may have moved: look "
            "it up on https://virtualcellchallenge.org, and name its new folder with base_url="
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _Broken(f"no connection ({reason or type(error).__name__})") from error


def _version(response: http.client.HTTPResponse) -> str | None:
    """Return what tells versions of the file apart, in the form that If-Range takes."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return etag
    return response.headers.get("Last-Modified")


def _begin_of(response: http.client.HTTPResponse, start: int, known: str | None) -> int | None:
    """Return where in the file the answer's bytes begin; None if they do not fit what is here."""
    if response.status != http.client.PARTIAL_CONTENT:
        return 0  # the whole file: the server knows no ranges, or it has another version by now
    span = response.headers.get("Content-Range", "").partition("-")[0]
    same = known is None or _version(response) in (known, None)
    return start if span.split() == ["bytes", str(start)] and same else None


def _check_announced(response: http.client.HTTPResponse, n_bytes: int) -> None:
    """Raise if the server announces a file of another size than the published one."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if response.status != http.client.PARTIAL_CONTENT:
        total = response.headers.get("Content-Length", "")
    if total.isdecimal() and int(total) != n_bytes:
        raise _Broken(
            f"the server announces {int(total):,} bytes, expected {n_bytes:,} (another file, or "
            "the page of a login or a proxy?)"
        )
