"""Machines fail: after each fault a file is the old one or the new one, and it is said what to do.

Each command runs in a process of its own, which may be killed. After the fault the same command
runs again without one, and must finish with the right result and leave nothing else behind.

All commands write by the same few functions, so a dozen pairs of command and fault run here, and
all of them in benchmarks/faults.py.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from multiprocessing import forkserver
from pathlib import Path

import anndata
import numpy as np
import pytest
from bad_cases import GENES, good_cells
from conftest import KEY, ROOT

from vcc_helpers.stream import write
from vcc_helpers.submission import archive

if sys.platform == "win32":
    pytest.skip("signals and limits are those of POSIX systems", allow_module_level=True)

import fault_driver  # noqa: E402

DRIVER = Path(__file__).with_name("fault_driver.py")
OLD = b"what was there before"


#: A command that writes: its words, with the folder's place open, and what it writes.
Command = namedtuple("Command", ["words", "outputs"])
LINES = {
    "score": "score {0}/pred.h5ad {0}/real.h5ad --json {0}/c.json --csv {0}/t.csv",
    "score --cache": "score {0}/pred.h5ad {0}/real.h5ad --cache {0}/kept --json {0}/c.json",
    "check --fix": "check {0}/turned.h5ad --genes {0}/genes.csv --fix {0}/m.h5ad",
    "prep": "prep {0}/pred.h5ad --genes {0}/genes.csv -o {0}/o.vcc",
    "sort": "sort {0}/pred.h5ad {0}/s.h5ad",
    "pseudobulk": "pseudobulk {0}/pred.h5ad {0}/b.h5ad",
    "simulate": "simulate {0}/w.h5ad",
}
OUTPUT = re.compile(r"\{0\}/(\w\.\w+)")  # names of one letter
COMMANDS = {name: Command(line.split(), OUTPUT.findall(line)) for name, line in LINES.items()}
#: What a command leaves on purpose, for the next score of the same truth.
KEPT = {"score --cache": {"kept"}}
INPUTS = {"pred.h5ad", "turned.h5ad", "real.h5ad", "genes.csv"}


def left_over(folder: Path, command: Command) -> set[str]:
    """Return what lies in the folder and is neither an input nor an output of the command."""
    return {path.name for path in folder.iterdir()} - INPUTS - {*command.outputs}


def inputs(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cells = good_cells()
    cells.write_h5ad(folder / "pred.h5ad")
    cells[:, ::-1].copy().write_h5ad(folder / "turned.h5ad")
    cells.X = np.roll(cells.X, 1, axis=0)
    cells.write_h5ad(folder / "real.h5ad")
    (folder / "genes.csv").write_text("\n".join(GENES), encoding="utf-8")


SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["fault_driver"])


@pytest.fixture(scope="module", autouse=True)
def server():
    """Start the process that the others are forked from where it finds what it has to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", f"{DRIVER.parent}{os.pathsep}{ROOT}")
        forkserver.ensure_running()


def run(fault: str, command: Command, folder: Path, env: dict | None = None):
    words = [word.replace("{0}", str(folder)) for word in command.words]
    said = folder.parent / f"said-{uuid.uuid4().hex}"
    process = SERVER.Process(target=fault_driver.main, args=(fault, words, str(said), env or {}))
    process.start()
    process.join(300)
    done = subprocess.CompletedProcess(words, process.exitcode, stderr=said.read_bytes())
    said.unlink()
    return done


def content(path: Path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".vcc":
        with archive.opened(path) as inner:
            return content(inner)
    if path.suffix == ".h5ad":
        cells = anndata.read_h5ad(path)
        values = cells.X.toarray() if hasattr(cells.X, "toarray") else cells.X
        return values.tolist(), cells.obs.to_dict("list"), list(cells.var_names)
    return path.read_text()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Return a function: what a command writes when all goes well."""

    @cache
    def well(name):
        command, folder = COMMANDS[name], tmp_path_factory.mktemp("well") / "files"
        inputs(folder)
        done = run("none", command, folder)
        assert done.returncode == 0, done.stderr
        return {out: content(folder / out) for out in command.outputs}

    return well


def assert_written(name, folder, expected):
    assert {out: content(folder / out) for out in COMMANDS[name].outputs} == expected(name)


def assert_finishes(name, folder, expected, env=None):
    """Assert that the next run ends well, with the right result and nothing beside it."""
    done = run("none", COMMANDS[name], folder, env)
    assert done.returncode == 0, done.stderr
    assert_written(name, folder, expected)
    assert left_over(folder, COMMANDS[name]) == KEPT.get(name, set())


def assert_said_well(done):
    text = done.stderr.decode()
    assert "Traceback" not in text, text
    assert text.strip(), "nothing was said"
    assert all(line.startswith("vcc-helpers: ") for line in text.splitlines()), text
    return text


STOPPED, FULL = "stopped; no output was changed", "(File too large|No space left).*; free some"
PAIRS = [
    ("sort", "killed while reading", -9, ""),
    ("sort", "no room for files", 1, FULL + "|disk of"),
    ("sort", "input shortened while read", 1, "was changed while it was read|cannot be read"),
    ("score", "Ctrl-C while reading", 130, STOPPED),
    ("score", "disk full at the last step", 1, FULL),
    ("score --cache", "killed at the last step", -9, ""),
    ("check --fix", "memory runs out", 1, r"memory \(Unable to allocate 9.3 GiB\); no output"),
    ("prep", "terminated while reading", 143, STOPPED),
    ("pseudobulk", "hung up twice at the last step", 129, STOPPED),
    ("prep", "no room for files", 1, FULL),
    ("pseudobulk", "Ctrl-C at the last step", 130, STOPPED),
]


@pytest.mark.parametrize(("name", "fault", "status", "words"), PAIRS)
def test_a_file_is_old_or_new(name, fault, status, words, tmp_path, expected):
    command, folder = COMMANDS[name], tmp_path / "files"
    inputs(folder)
    for out in command.outputs:
        (folder / out).write_bytes(OLD)
    done = run(fault, command, folder)
    assert done.returncode == status, done.stderr
    state = {out: (folder / out).read_bytes() == OLD for out in command.outputs}
    if name == "score" and "last step" in fault:
        state.pop("t.csv")  # two files get their names one after the other
    assert all(state.values()), state
    left = left_over(folder, command) - KEPT.get(name, set())
    if status >= 0:
        assert re.search(words, assert_said_well(done))
    if status >= 0 or name == "sort":
        assert not left  # scratch data have no name
    assert all(file.startswith(".") and ".part" in file for file in left)
    if fault == "input shortened while read":
        inputs(folder)
    assert_finishes(name, folder, expected)


def test_a_folder_without_rights(tmp_path):
    if os.getuid():
        pytest.skip("only root can lose its rights")
    command, folder = COMMANDS["score"], tmp_path / "files"
    inputs(folder)
    for place in (tmp_path, folder, *tmp_path.parents[:3]):
        place.chmod(0o755)
    if not all(os.stat(p).st_mode & 0o005 for p in tmp_path.parents):
        pytest.skip("nobody cannot reach the folder of the test")
    done = run("no rights in the folder", command, folder)
    assert done.returncode == 1 and "no permission to write in" in assert_said_well(done)
    assert not any((folder / out).exists() for out in command.outputs)


def test_two_runs_at_once(tmp_path, expected):
    name, folder = "score --cache", tmp_path / "files"
    inputs(folder)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: run("none", COMMANDS[name], folder), range(2)))
    assert [one.returncode for one in both] == [0, 0], [one.stderr for one in both]
    assert_written(name, folder, expected)


def test_awkward_places_without_home_and_temporary_folder(tmp_path, expected):
    folder = tmp_path / "a 'b' \"c\" Zellen-übung-細胞\nline %s {0} $HOME" / ("x" * 200)
    inputs(folder)
    nowhere = str(tmp_path / "nowhere")
    assert_finishes("prep", folder, expected, {"HOME": nowhere, "TMPDIR": nowhere})


@pytest.mark.parametrize("utf8", ["", "0"])
def test_a_locale_that_cannot_write_the_names(utf8, tmp_path):
    """Python makes the best of the locale C; if that is forbidden, too, a name may be too much."""
    folder = tmp_path / "Zellen-übung-細胞"
    inputs(folder)
    cells = good_cells()
    cells.obs[KEY] = cells.obs[KEY].astype(str).replace({"G1": "Gen-Ü-細胞"})
    cells.write_h5ad(folder / "pred.h5ad")
    (folder / "counts.csv").write_text("target_gene,n_cells\nG0,3\n")
    plain = {"LC_ALL": "C", "LANG": "", "PYTHONIOENCODING": "ascii"}
    env = {**os.environ, **plain, **({"PYTHONUTF8": utf8} if utf8 else {})}
    line = [sys.executable, "-m", "vcc_helpers", "check", str(folder / "pred.h5ad")]
    line += ["--counts", str(folder / "counts.csv")]
    done = subprocess.run(line, capture_output=True, env=env)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"3 targets were not asked for" in done.stderr or utf8 and b"PYTHONUTF8=1" in done.stderr


def test_a_reader_that_stops_listening(tmp_path, expected):
    """`vcc-helpers score ... | head -1` ends quietly, and the files are written."""
    folder = tmp_path / "files"
    inputs(folder)
    words = [word.format(folder) for word in COMMANDS["score"].words]
    read, end = os.pipe()
    os.close(read)
    line = [sys.executable, "-m", "vcc_helpers", *words]
    done = subprocess.run(line, stdout=end, stderr=subprocess.PIPE)
    os.close(end)
    assert done.stderr == b""
    assert_written("score", folder, expected)


def test_a_disk_that_is_really_full(tmp_path):
    """On a file system of a few kilobytes, where root may make one."""
    folder, small = tmp_path / "files", tmp_path / "small"
    inputs(folder)
    small.mkdir()
    if os.getuid() or shutil.which("unshare") is None:
        pytest.skip("only root can make a small file system")
    lines = {}
    for name in ("score", "sort"):
        place = {word: small if OUTPUT.fullmatch(word) else folder for word in COMMANDS[name].words}
        lines[name] = [word.format(place[word]) for word in COMMANDS[name].words]
    words = ["unshare", "-m", sys.executable, str(DRIVER), "--full-disk", str(small)]
    done = subprocess.run(words, input=json.dumps(lines), capture_output=True, text=True)
    if "mount" in done.stderr:
        pytest.skip("this machine lets nobody mount a file system")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == list(lines)
    for name, (status, said, left) in found.items():
        assert status == 1, (name, said)
        assert said and all(line.startswith("vcc-helpers: ") for line in said.splitlines()), said
        assert left in ([], ["c.json"] if name == "score" else []), (name, left)


def test_what_a_killed_process_left_is_removed_by_the_next_only(tmp_path):
    """Parts that somebody holds, whatever their number, of other files and machines stay."""
    with write.beside(tmp_path / "out.json") as part:  # .out.MACHINE-PROCESS-NUMBER.part.json
        gone = part.name.replace(f"-{os.getpid()}-", "-999999999-")
        held = part.rename(tmp_path / gone)
        others = {gone.replace(".out.", ".outer."), re.sub(r"\w+-", "ffffff-", gone, count=1)}
        others.add(".out.part.json")
        for name in (part.name, *others):
            (tmp_path / name).touch()
        write.write_whole(tmp_path / "out.json", "new")
        assert {path.name for path in tmp_path.iterdir()} == {"out.json", held.name, *others}
    write.write_whole(tmp_path / "out.json", "new")
    assert not held.exists()
