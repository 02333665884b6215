"""Machines fail: after each fault a file is the old one or the new one, and it is said what to do.

Each command runs in a process of its own, which may be killed. After the fault the same command
runs again without one, and must finish with the right result and leave nothing else behind.

All commands write by the same few functions, so not every pair of command and fault runs here:
benchmarks/faults.py runs them all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import uuid
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pytest
from bad_cases import GENES, good_cells
from conftest import KEY

from vcc_helpers.submission import archive

if sys.platform == "win32":
    pytest.skip("signals and limits are those of POSIX systems", allow_module_level=True)

import fault_driver  # noqa: E402
from fault_driver import FAULTS  # noqa: E402

DRIVER = Path(__file__).with_name("fault_driver.py")
OLD = b"what was there before"


@dataclass(frozen=True)
class Command:
    """A command that writes: its words, with the folder's place open, and what it writes."""

    words: tuple[str, ...]
    outputs: tuple[str, ...]


COMMANDS = {
    "score": Command(
        ("score", "{0}/pred.h5ad", "{0}/real.h5ad", "--json", "{0}/c.json", "--csv", "{0}/t.csv"),
        ("c.json", "t.csv"),
    ),
    "score --cache": Command(
        ("score", "{0}/pred.h5ad", "{0}/real.h5ad", "--cache", "{0}/kept", "--json", "{0}/c.json"),
        ("c.json",),
    ),
    "check --fix": Command(
        ("check", "{0}/turned.h5ad", "--genes", "{0}/genes.csv", "--fix", "{0}/m.h5ad"),
        ("m.h5ad",),
    ),
    "prep": Command(
        ("prep", "{0}/pred.h5ad", "--genes", "{0}/genes.csv", "-o", "{0}/o.vcc"), ("o.vcc",)
    ),
    "sort": Command(("sort", "{0}/pred.h5ad", "{0}/s.h5ad"), ("s.h5ad",)),
    "pseudobulk": Command(("pseudobulk", "{0}/pred.h5ad", "{0}/b.h5ad"), ("b.h5ad",)),
    "simulate": Command(("simulate", "{0}/w.h5ad"), ("w.h5ad",)),
}
#: What a command leaves on purpose: for the next score of the same truth; to go on from.
KEPT = {"score --cache": {"kept"}}
HALF_WAY = {"sort": {"s.h5ad.sorting"}}
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
        patch.setenv("PYTHONPATH", str(DRIVER.parent))
        forkserver.ensure_running()


class Done(NamedTuple):
    """How a process ended, and what it said."""

    returncode: int
    stderr: bytes


def run(fault: str, command: Command, folder: Path, env: dict | None = None) -> Done:
    words = [word.replace("{0}", str(folder)) for word in command.words]
    said = folder.parent / f"said-{uuid.uuid4().hex}"
    process = SERVER.Process(target=fault_driver.main, args=(fault, words, str(said), env or {}))
    process.start()
    process.join(300)
    done = Done(process.exitcode, said.read_bytes())
    said.unlink()
    return done


def content(path: Path):
    """Return what a file says, whatever its bytes."""
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
    """What each command writes when all goes well."""
    found = {}
    for name, command in COMMANDS.items():
        folder = tmp_path_factory.mktemp("well") / "files"
        inputs(folder)
        done = run("none", command, folder)
        assert done.returncode == 0, done.stderr
        found[name] = {out: content(folder / out) for out in command.outputs}
    return found


def assert_finishes(command, name, folder, expected):
    """Assert that the next run ends well, with the right result and nothing beside it."""
    done = run("none", command, folder)
    assert done.returncode == 0, done.stderr
    for out in command.outputs:
        assert content(folder / out) == expected[name][out]
    assert left_over(folder, command) == KEPT.get(name, set())


def assert_said_well(done):
    text = done.stderr.decode()
    assert "Traceback" not in text, text
    assert text.strip(), "nothing was said"
    assert all(line.startswith("vcc-helpers: ") for line in text.splitlines()), text
    return text


STATUS = {
    "killed while reading": -9,
    "killed at the last step": -9,
    "Ctrl-C while reading": 130,
    "Ctrl-C at the last step": 130,
    "terminated while reading": -15,
}
SAID = {
    "Ctrl-C": "stopped; no output was changed",
    "no room for files": "File too large; free some space|disk of",
    "disk full": "No space left|disk of",
    "memory runs out": "not enough memory (Unable to allocate 9.3 GiB); no output was changed",
    "input shortened": "was changed while it was read|cannot be read",
}
STRIKES = [fault for fault in FAULTS if fault not in ("none", "no rights in the folder")]


def some_pairs() -> list[tuple[str, str]]:
    """Every fault with sort, which keeps a journal; and with two of the other commands in turn."""
    others = [name for name in COMMANDS if name not in ("sort", "simulate")]
    turns = [(others[i % len(others)], fault) for i, fault in enumerate([*STRIKES, *STRIKES])]
    journal = [("sort", fault) for fault in STRIKES]
    return [*journal, ("simulate", "killed at the last step"), *turns]


@pytest.mark.parametrize(("name", "fault"), some_pairs())
def test_a_file_is_old_or_new(name, fault, tmp_path, expected):
    command, folder = COMMANDS[name], tmp_path / "files"
    inputs(folder)
    for out in command.outputs:
        (folder / out).write_bytes(OLD)
    done = run(fault, command, folder)
    assert done.returncode == STATUS.get(fault, 1), done.stderr
    state = {out: (folder / out).read_bytes() == OLD for out in command.outputs}
    if name == "score" and "last step" in fault:
        state.pop("t.csv")  # two files get their names one after the other
    assert all(state.values()), state
    if done.returncode >= 0:
        text = assert_said_well(done)
        words = next(words for begin, words in SAID.items() if fault.startswith(begin))
        assert any(choice in text for choice in words.split("|")), text
        allowed = KEPT.get(name, set()) | HALF_WAY.get(name, set())
        assert left_over(folder, command) <= allowed
    if fault == "input shortened while read":
        inputs(folder)
    assert_finishes(command, name, folder, expected)


@pytest.mark.parametrize("name", ["score", "sort", "prep"])
def test_a_folder_without_rights(name, tmp_path, expected):
    if os.getuid():
        pytest.skip("only root can lose its rights")
    command, folder = COMMANDS[name], tmp_path / "files"
    inputs(folder)
    for place in (tmp_path, folder, *tmp_path.parents[:3]):
        place.chmod(0o755)
    if not all(os.stat(p).st_mode & 0o005 for p in tmp_path.parents):
        pytest.skip("nobody cannot reach the folder of the test")
    done = run("no rights in the folder", command, folder)
    text = assert_said_well(done)
    assert done.returncode == 1
    assert "no permission to write in" in text, text
    assert not any((folder / out).exists() for out in command.outputs)
    assert_finishes(command, name, folder, expected)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be(name, tmp_path):
    command, folder = COMMANDS[name], tmp_path / "files"
    inputs(folder)
    for out in command.outputs:
        (folder / out).mkdir()
    done = run("none", command, folder)
    assert done.returncode == 1
    assert "it is a folder; name a file in it" in assert_said_well(done)
    words = [word.replace(f"{{0}}/{command.outputs[0]}", "{0}/no/x") for word in command.words]
    done = run("none", Command(tuple(words), ()), folder)
    assert done.returncode == 1
    assert "there is no folder" in assert_said_well(done)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "simulate"])
def test_an_input_that_is_not_there(name, tmp_path):
    command, folder = COMMANDS[name], tmp_path / "files"
    folder.mkdir()
    done = run("none", command, folder)
    assert done.returncode == 1
    assert "no such file" in assert_said_well(done)
    assert not any((folder / out).exists() for out in command.outputs)


@pytest.mark.parametrize("name", ["score --cache", "sort", "prep"])
def test_two_runs_at_once(name, tmp_path, expected):
    command, folder, done = COMMANDS[name], tmp_path / "files", []
    inputs(folder)
    both = [
        threading.Thread(target=lambda: done.append(run("none", command, folder))) for _ in range(2)
    ]
    for one in both:
        one.start()
    for one in both:
        one.join()
    status = sorted(one.returncode for one in done)
    assert status in ([0, 0], [0, 1]), [one.stderr for one in done]
    for one in done:
        if one.returncode:
            assert "wait for it to end" in assert_said_well(one)
    for out in command.outputs:
        assert content(folder / out) == expected[name][out]


NAMES = ["a 'b' \"c\" Zellen-übung-細胞\nline %s {0} $HOME", "x" * 200]
PLAIN = {"LC_ALL": "C", "LANG": "", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize("place", NAMES, ids=["odd", "long"])
@pytest.mark.parametrize("name", ["score", "check --fix", "prep", "sort"])
def test_awkward_places(name, place, tmp_path, expected):
    command, folder = COMMANDS[name], tmp_path / place
    inputs(folder)
    done = run("none", command, folder)
    assert done.returncode == 0, done.stderr
    for out in command.outputs:
        assert content(folder / out) == expected[name][out]


@pytest.mark.parametrize("utf8", ["", "0"])
def test_an_awkward_place_in_an_awkward_locale(utf8, tmp_path, expected):
    """Python makes the best of the locale C; if that is forbidden, too, a name may be too much."""
    command, folder = COMMANDS["prep"], tmp_path / "Zellen-übung-細胞"
    inputs(folder)
    words = [word.replace("{0}", str(folder)) for word in command.words]
    env = {**os.environ, **PLAIN, **({"PYTHONUTF8": utf8} if utf8 else {})}
    line = [sys.executable, str(DRIVER), "none", *words]
    done = subprocess.run(line, capture_output=True, env=env, cwd=tmp_path)
    assert b"Traceback" not in done.stderr
    if utf8 and done.returncode:
        assert done.returncode == 1
        assert b"PYTHONUTF8=1" in done.stderr
        assert not (folder / "o.vcc").exists()
    else:
        assert done.returncode == 0, done.stderr
        assert content(folder / "o.vcc") == expected["prep"]["o.vcc"]


def test_labels_that_the_locale_cannot_write(tmp_path):
    cells = good_cells()
    cells.obs[KEY] = cells.obs[KEY].astype(str).replace({"G1": "Gen-Ü-細胞"})
    cells.write_h5ad(tmp_path / "pred.h5ad")
    (tmp_path / "counts.csv").write_text("target_gene,n_cells\nG0,3\n")
    words = ["check", "pred.h5ad", "--counts", "counts.csv"]
    line = [sys.executable, str(DRIVER), "none", *words]
    done = subprocess.run(line, capture_output=True, env={**os.environ, **PLAIN}, cwd=tmp_path)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert b"3 targets were not asked for" in done.stderr


@pytest.mark.parametrize("name", ["score", "check --fix", "sort"])
def test_without_home_and_temporary_folder(name, tmp_path, expected):
    command, folder = COMMANDS[name], tmp_path / "files"
    inputs(folder)
    nowhere = str(tmp_path / "nowhere")
    done = run("none", command, folder, {"HOME": nowhere, "TMPDIR": nowhere})
    assert done.returncode == 0, done.stderr
    for out in command.outputs:
        assert content(folder / out) == expected[name][out]


def test_a_reader_that_stops_listening(tmp_path, expected):
    """`vcc-helpers score ... | head -1` ends quietly, and the files are written."""
    command, folder = COMMANDS["score"], tmp_path / "files"
    inputs(folder)
    words = [word.format(folder) for word in command.words]
    read, write = os.pipe()
    os.close(read)
    line = [sys.executable, str(DRIVER), "none", *words]
    done = subprocess.run(line, stdout=write, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(write)
    assert b"Traceback" not in done.stderr and b"Exception ignored" not in done.stderr
    assert done.stderr == b""
    for out in command.outputs:
        assert content(folder / out) == expected["score"][out]


def test_a_disk_that_is_really_full(tmp_path):
    """On a file system of a few kilobytes, where root may make one."""
    folder, small = tmp_path / "files", tmp_path / "small"
    inputs(folder)
    small.mkdir()
    if os.getuid() or shutil.which("unshare") is None:
        pytest.skip("only root can make a small file system")
    lines = {}
    for name, command in COMMANDS.items():
        lines[name] = [word.format(folder) for word in command.words]
        for out in command.outputs:
            lines[name] = [w.replace(str(folder / out), str(small / out)) for w in lines[name]]
    lines.pop("score --cache")  # its small card still fits
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
        allowed = {"sort": ["s.h5ad.sorting"], "score": ["c.json"]}
        assert left in ([], allowed.get(name)), (name, left)


def test_what_a_killed_process_left_is_removed_by_the_next_only(tmp_path):
    """Parts of living processes, of other files and of other machines stay."""
    from vcc_helpers.stream import write

    machine, gone = write._machine(), subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = {
        "orphan": f".out.{machine}-{gone.pid}-00000000.part.json",
        "alive": f".out.{machine}-{os.getpid()}-00000000.part.json",
        "other file": f".outer.{machine}-{gone.pid}-00000000.part.json",
        "other machine": f".out.ffffff-{gone.pid}-00000000.part.json",
        "not ours": ".out.part.json",
    }
    for name in names.values():
        (tmp_path / name).touch()
    write.write_whole(tmp_path / "out.json", "new")
    left = {path.name for path in tmp_path.iterdir()} - {"out.json"}
    assert left == set(names.values()) - {names["orphan"]}
