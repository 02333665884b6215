"""Files are written whole or not at all.

Every command that writes goes through here, so that whatever happens, what stands under the
final name is the old file or the new one, never a part of it.

Taught in: notebooks/09_first_submission.
Needs no sibling module.

>>> import tempfile
>>> from pathlib import Path
>>> target = Path(tempfile.mkdtemp()) / "hello.txt"
>>> with replacing(target) as part:
...     _ = part.write_text("hello")
>>> target.read_text(), [path.name for path in target.parent.iterdir()]
('hello', ['hello.txt'])
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_writable(path: str | Path) -> None:
    """Raise unless a file can be written there; worth knowing before a long computation.

    Parameters
    ----------
    path
        File that is to be written.

    Raises
    ------
    OSError
        The folder does not exist or cannot be written to, or `path` is a folder.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: there is no folder {path.parent}; make it")
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {path}: it is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"cannot write {path}: no permission to write in {path.parent}")


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; the file takes the name `path` when all went well.

    Parameters
    ----------
    path
        File that is to be written; one that exists is replaced at the end, in one step.

    Yields
    ------
    Path
        Where to write: in the same folder, with the same suffix. Removed if an error ends the
        block.

    Raises
    ------
    OSError
        As :func:`check_writable`.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    path = Path(path)
    check_writable(path)
    part = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_whole(path: str | Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Parameters
    ----------
    path
        File to write; one that exists is replaced.
    text
        What to write, as UTF-8.

    Raises
    ------
    OSError
        As :func:`check_writable`.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
