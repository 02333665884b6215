"""One submission at a time, in a process of its own: what ends it, or never ends, stops no other.

The process gets a bound of memory and of time, and no variable of the environment that could hold a
secret. It answers with a line; whatever happens to it becomes the reason why an entry has no score.

Taught in: notebooks/16_run_your_own_leaderboard.

>>> truth = {"truth": "truth.h5ad", "preset": "vcc2025", "cache": "scored", "out": "card.json"}
>>> run_apart("score", seconds=60, path="mine.h5ad", size_limit="1GB", **truth)
'no such file: mine.h5ad'
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from ..stream.open import parse_memory

#: Memory that Python and the libraries take beside the cells.
_LIBRARIES = "2GB"
_SECRET = re.compile("token|secret|pass|key|credential", re.IGNORECASE)
_HERE = Path(__file__).parents[2]
#: The longest reason, in characters.
_LONGEST = 600


def run_apart(task: str, *, seconds: float, memory: int | float | str = "4GB", **options) -> str:
    """Do one of the tasks below in another process.

    Parameters
    ----------
    task
        ``"check"`` or ``"score"``.
    seconds
        Time after which the process is ended.
    memory
        Most memory for the cells.
    **options
        Of the task: text and numbers.

    Returns
    -------
    str
        Why it failed; empty if it did not.
    """
    environment = {k: v for k, v in os.environ.items() if not _SECRET.search(k)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_HERE), *sys.path]))
    job = json.dumps({"task": task, "memory": memory, **options}, default=str)
    command = [sys.executable, "-W", "ignore", "-m", __name__]
    try:
        done = subprocess.run(
            command, input=job, capture_output=True, text=True, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {seconds:g} seconds, and was stopped"
    if done.returncode < 0:
        return f"reading it ended the process ({signal.Signals(-done.returncode).name})"
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        return "reading it ended the process"
    return plain(json.loads(lines[-1]))


def plain(text: str) -> str:
    """Return words that are safe to print or publish: one line, no paths, no control characters."""
    text = re.sub(r"(?:/[^\s/:]+)+/", "", "; ".join(line.strip() for line in text.splitlines()))
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def _check(*, path: str, task_folder: str, size_limit) -> None:
    from ..stream.look import inspect_values
    from ..stream.open import check_cells, check_same, open_cells
    from ..submission.archive import opened
    from .contest import stand_in

    with opened(path, size_limit=size_limit) as inner:
        pred = open_cells(inner)
        check_cells(pred, name="pred")
        check_same(pred, stand_in(Path(task_folder)))
        inspect_values(pred, name="pred")


def _score(*, path: str, truth: str, preset: str, cache: str, out: str, size_limit, memory) -> None:
    from .. import scoring
    from ..submission.archive import opened

    with opened(path, size_limit=size_limit) as inner:
        scoring.score(inner, truth, preset, memory=memory, cache=cache).to_json(out)


def _main() -> None:
    job = json.loads(sys.stdin.read())
    task, memory = job.pop("task"), job.pop("memory")
    try:
        import resource

        most = parse_memory(memory) + parse_memory(_LIBRARIES)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    except ImportError:  # Windows: no bound of memory
        pass
    if task == "score":
        job["memory"] = memory
    try:
        {"check": _check, "score": _score}[task](**job)
        why = ""
    except Exception as error:  # a stranger's file can break anything below
        known = isinstance(error, ValueError | KeyError | OSError) and error.args
        why = str(error.args[0]) if known else f"cannot be read ({type(error).__name__})"
    print(json.dumps(why))


if __name__ == "__main__":
    _main()
