"""One submission at a time, in a process of its own: what ends it, or never ends, stops no other.

The process gets a bound of memory and of time, and no variable of the environment that could hold a
secret. It answers with a line; whatever happens to it becomes the reason why an entry has no score.

Importing takes longer than most files: so one process imports, opens nothing, and is forked for
each file. Where there is no fork (Windows) it reads the files itself, without bounds, and is
started anew when one ends it.

Taught in: notebooks/21_run_your_own_leaderboard.

>>> with processes() as run:
...     run("check", path="none.h5ad", task_folder=".", size_limit="1GB", seconds=60, memory="1GB")
'no such file: none.h5ad'
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from ..bulk import CONTROL, PERTURBATION_KEY
from ..presets import Preset, get_preset
from ..stream.open import parse_memory

#: Memory that Python and the libraries take in addition to the cells.
_LIBRARIES = "2GB"
_SECRET = re.compile("token|secret|pass|key|credential", re.IGNORECASE)
_ENDED = "reading it ended the process"
#: The longest reason, in characters.
_LONGEST = 600


@contextmanager
def processes() -> Iterator[Callable[..., str]]:
    """Give a function that does one of the tasks below in another process.

    Its argument is ``"check"`` or ``"score"``; `seconds` and `memory` are the most that it may
    take, all else are options of the task. It returns why the task failed, or an empty text.
    """
    environment = {k: v for k, v in os.environ.items() if not _SECRET.search(k)}
    places = [str(Path(__file__).parents[2]), *sys.path]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    server = None

    def run(task: str, **options) -> str:
        nonlocal server
        if server is None or server.poll() is not None:
            server = _start(environment | {"TMPDIR": scratch})
        try:
            print(json.dumps({"task": task, **options}, default=str), file=server.stdin, flush=True)
            return json.loads(server.stdout.readline())
        except (OSError, ValueError):  # it is no more
            _end(server)
            return _ENDED

    with tempfile.TemporaryDirectory(prefix="vcc_", ignore_cleanup_errors=True) as scratch:
        try:
            yield run
        finally:
            if server is not None:
                _end(server)


def _start(environment: dict[str, str]) -> subprocess.Popen:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    command = [sys.executable, "-P", "-W", "ignore", "-m", __name__]  # nothing of the folder
    return subprocess.Popen(command, text=True, env=environment, start_new_session=True, **pipes)


def _end(server: subprocess.Popen) -> None:
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # with what it has forked
    server.kill()
    server.wait()
    server.stdout.close()
    with suppress(OSError):  # what it never read
        server.stdin.close()


def plain(text: str) -> str:
    """Return words that are safe to print or publish: one line, no paths, no control characters."""
    text = re.sub(r"(?:/[^\s/:]+)+/", "", "; ".join(line.strip() for line in text.splitlines()))
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."


def stand_in(task: Path) -> anndata.AnnData:
    """Return empty cells, one of each perturbation and context, with the genes of the task."""
    for name in ("genes.csv", "targets.csv"):
        if not (task / name).is_file():
            raise FileNotFoundError(f"no {name} in {task}; name the public folder of the class")
    genes = pd.read_csv(task / "genes.csv", dtype=str, keep_default_na=False)["gene"]
    asked = pd.read_csv(task / "targets.csv", dtype=str, keep_default_na=False)
    asked = asked.drop(columns="n_cells", errors="ignore")
    obs = pd.concat([asked.assign(**{PERTURBATION_KEY: CONTROL}).drop_duplicates(), asked])
    obs.index = [f"cell {i}" for i in range(len(obs))]
    empty = sparse.csr_matrix((len(obs), len(genes)), dtype=np.float32)
    return anndata.AnnData(empty, obs=obs, var=pd.DataFrame(index=pd.Index(genes.tolist())))


def _rules_of(task: Path) -> Preset:
    """Return the rules that a task names; those of 2025 where it names none."""
    named = task / "rules.txt"
    return get_preset(named.read_text(encoding="utf-8").strip() if named.is_file() else "vcc2025")


def _check(*, path: str, task_folder: str, size_limit) -> None:
    from ..scoring.contexts import each, sides
    from ..stream.look import inspect_values
    from ..stream.open import check_cells, check_same, open_cells
    from ..submission.archive import opened

    task, rules = Path(task_folder), _rules_of(Path(task_folder))
    without = CONTROL if rules.real_controls else None  # which the scorer then brings

    def check_one(real: anndata.AnnData, pred: anndata.AnnData) -> None:
        check_cells(pred, name="pred", control=None if without else CONTROL)
        check_same(pred, real, besides=without)

    with opened(path, size_limit=size_limit) as inner:
        pred, real = open_cells(inner), stand_in(task)
        if parts := sides(real, pred, rules=rules):
            each(check_one, *parts)
        else:
            check_one(real, pred)
        found = inspect_values(pred, name="pred", tolerance=rules.tolerance)
        if rules.counts_only and found.scale != "counts":
            raise ValueError(
                f"pred: values have fractions; the rules of {rules.name} want raw counts: draw "
                "them, for instance with emit.negative_binomial"
            )


def _score(*, path: str, truth: str, preset: str, cache: str, out: str, size_limit, memory) -> None:
    from .. import scoring
    from ..submission.archive import opened

    with opened(path, size_limit=size_limit) as inner:
        scoring.score(inner, truth, preset, memory=memory, cache=cache).to_json(out)


def _do(job: dict) -> str:
    """Do a task in this process; return why it failed."""
    task, memory = job.pop("task"), job.pop("memory")
    if task == "score":
        job["memory"] = memory
    try:
        {"check": _check, "score": _score}[task](**job)
    except Exception as error:  # a stranger's file can break anything below
        known = isinstance(error, ValueError | KeyError | OSError) and error.args
        return plain(str(error.args[0]) if known else f"cannot be read ({type(error).__name__})")
    return ""


def _do_in_a_fork(job: dict) -> str:
    """Do a task in a process of its own, within its bounds; return why it failed."""
    import resource

    seconds = job.pop("seconds")
    answer, end = os.pipe()
    with tempfile.TemporaryDirectory() as tempfile.tempdir:  # what is left there is removed
        if (child := os.fork()) == 0:
            try:
                most = parse_memory(job["memory"]) + parse_memory(_LIBRARIES)
                resource.setrlimit(resource.RLIMIT_DATA, (most, most))
                os.write(end, _do(job).encode("utf-8", "replace") or b"\0")
            finally:
                os._exit(0)
        os.close(end)
        in_time = select.select([answer], [], [], seconds)[0]
        if not in_time:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with open(answer, "rb") as file:
            said = file.read().decode()
    tempfile.tempdir = None
    if not in_time:
        return f"it took longer than {seconds:g} seconds, and was stopped"
    if status < 0:
        return f"{_ENDED} ({signal.Signals(-status).name})"
    return said.strip("\0") if said else _ENDED


def _main() -> None:
    from ..scoring import score  # noqa: F401  what each task would import
    from ..stream import _kernels  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    do = _do_in_a_fork if hasattr(os, "fork") else _do
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    _main()
