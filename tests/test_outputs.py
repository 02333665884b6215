"""What a command writes is no input of it, nothing but a file, and nothing of others is removed."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import make_cells, refuses

from vcc_helpers import ScoreCard, score
from vcc_helpers.cli import main
from vcc_helpers.datasets import read_screen
from vcc_helpers.features import embedding
from vcc_helpers.stream import sort_cells, write, write_cells
from vcc_helpers.submission import archive

if sys.platform == "win32":
    pytest.skip("links and signals are those of POSIX systems", allow_module_level=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    cells = make_cells(1)
    cells.X[:, -1] = 1
    cells.write_h5ad(folder / "pred.h5ad")
    cells.write_h5ad(folder / "real.h5ad")
    cells.write_zarr(folder / "cells.zarr")
    (folder / "genes.csv").write_text("\n".join(cells.var_names))
    n_cells = cells.obs["target_gene"].value_counts().drop("non-targeting")
    n_cells.rename_axis("target_gene").rename("n_cells").to_csv(folder / "counts.csv")
    score(cells, cells).to_json(folder / "base.json")
    archive.pack(folder / "pred.h5ad", folder / "pred.vcc")
    return folder


@pytest.fixture
def files(made, tmp_path, monkeypatch):
    """Inputs of all commands, and other names for them, in the folder that we are in."""
    folder = Path(shutil.copytree(made, tmp_path / "files"))
    (folder / "link.h5ad").symlink_to("pred.h5ad")
    os.link(folder / "pred.h5ad", folder / "hard.h5ad")
    (tmp_path / "way").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(folder)
        listening.bind("socket")
    (folder / "circle").symlink_to("circle")
    return folder


def state(folder):
    """Content of every file; what else there is, by its kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        found[str(path)] = path.read_bytes() if kind == stat.S_IFREG else kind
    return found


PYTHON = [sys.executable, "-W", "ignore"]
INPUT, TWICE = "is read by the same command and would be lost", "is the same file; name two"
REFUSED = [
    ("score pred.h5ad real.h5ad --csv ../way/real.h5ad", INPUT),
    ("score link.h5ad real.h5ad --json pred.h5ad", INPUT),
    ("score pred.h5ad real.h5ad --json hard.h5ad", INPUT),
    ("score pred.h5ad real.h5ad --baseline base.json --json ./base.json", INPUT),
    ("score cells.zarr real.h5ad --json cells.zarr/new.json", INPUT),
    ("score cells.zarr real.h5ad --cache cells.zarr/X", INPUT),
    ("score pred.h5ad real.h5ad --json new --csv ../way/new", TWICE),
    ("score pred.h5ad real.h5ad --json new --cache ./new", TWICE),  # it would be a folder
    ("prep pred.h5ad --genes genes.csv -o link.h5ad", INPUT),
    ("prep pred.h5ad --genes genes.csv -o genes.csv", INPUT),
    ("check pred.h5ad --genes genes.csv --fix pred.h5ad", INPUT),
    ("check pred.h5ad --genes genes.csv --counts counts.csv --fix counts.csv", INPUT),
    ("pseudobulk pred.h5ad pred.h5ad", INPUT),
    ("sort link.h5ad pred.h5ad", INPUT),
    ("score pred.h5ad real.h5ad --json pipe", "it is a pipe; name a file"),
    ("pseudobulk pred.h5ad socket", "it is a socket"),
    ("sort pred.h5ad /dev/null", "it is a device"),
    ("simulate circle", "it is a link in a circle"),
    ("simulate cells.zarr", "it is a folder"),
    ("prep pred.h5ad --genes genes.csv -o new\0", "a name holds no NUL"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED)
def test_a_command_writes_over_nothing_that_it_reads(words, said, files, capsys):
    before = state(files)
    assert main(words.split(" ")) == 1
    out, err = capsys.readouterr()
    assert out == "" and said in err and len(err.splitlines()) == 1
    assert err.startswith("vcc-helpers: cannot write ") or "\0" in words
    assert state(files) == before


def test_neither_does_the_library(files):
    before, backed = state(files), anndata.read_h5ad("pred.h5ad", backed="r")
    for write_it in (
        lambda: sort_cells(backed, "hard.h5ad"),
        lambda: write_cells("pred.h5ad", backed),
        lambda: archive.pack("pred.h5ad", "link.h5ad"),
        lambda: archive.unpack("pred.vcc", "../way/pred.vcc"),
    ):
        refuses(INPUT, write_it)
    backed.file.close()
    assert state(files) == before


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "there.json").symlink_to("other/card.json")
    for text in ("new", "newer"):  # at first it leads to nothing yet
        write.write_whole(tmp_path / "there.json", text)
        assert (tmp_path / "other" / "card.json").read_text() == text
    assert (tmp_path / "there.json").is_symlink()
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["card.json"]


def test_parts_follow_no_link(tmp_path, monkeypatch):
    path, secret = tmp_path / "out.json", tmp_path / "secret"
    secret.write_text("mine")
    names = iter([UUID("a" * 32), UUID("a" * 32), UUID("b" * 32)])
    monkeypatch.setattr("uuid.uuid4", lambda: next(names))
    with write.beside(path) as taken:
        name = taken.name
    (tmp_path / name).symlink_to(secret)
    with write.beside(path) as part:  # the first name is a link: another is taken
        part.write_text("scratch")
        assert part.name == name.replace("a" * 12, "b" * 12)
    assert secret.read_text() == "mine" and (tmp_path / name).is_symlink()


def test_labels_are_no_formulas_and_come_back(tmp_path, capsys):
    labels = ["=1+1", "+x", "-x", "@x", "'x", "a\rb", "a\nb", 'a"b', "a,b", "5'x"]
    cells = make_cells(n_cells=(4, 4, 4, 4, 32))
    cells.obs["target_gene"] = np.repeat([*labels, "non-targeting", "non-targeting"], 4)
    cells.write_h5ad(tmp_path / "c.h5ad")
    line = f"score {tmp_path}/c.h5ad {tmp_path}/c.h5ad --csv {tmp_path}/t.csv"
    many = ["--threads", "9" * 18]  # of which no more are made than help
    assert main([*line.split(), "--json", str(tmp_path / "c.json"), *many]) == 0
    capsys.readouterr()
    table = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    shown = table["target_gene"].tolist()
    assert not [name for name in shown if name.startswith(("=", "+", "-", "@"))]
    assert sorted(name.removeprefix("'") for name in shown) == sorted(labels)
    card = ScoreCard.from_json(tmp_path / "c.json")
    assert card.per_perturbation.index.tolist() == sorted(labels)
    assert table["mae"].dtype == float


def baseline(value, preset=b'"vcc2025"'):
    table = b'"per_perturbation": {"A": {"mae": %s}}' % value
    return b'{"preset": %s, "settings": {}, %s}' % (preset, table)


BASELINES = [
    *(os.urandom(300_000), b"[" * 10**5, baseline(b"1", preset=b"[]")),
    *(baseline(b"1e999"), baseline(b"1" * 400), baseline(b'"%s"' % (b"x" * 10**6))),
]


def test_a_baseline_that_is_none_is_told_in_few_words(files, capsys):
    """One without an end is not read."""
    Path("large").write_bytes(b" " * (2**26 + 1))
    for i, text in enumerate(BASELINES):
        Path(f"{i}.json").write_bytes(text)
    for path in (*files.glob("*.json"), "large", "pipe", "cells.zarr", "/dev/zero"):
        if path != files / "base.json":
            assert main(["score", "pred.h5ad", "real.h5ad", "--baseline", str(path)]) == 1
            err = capsys.readouterr().err
            assert f"{path} is not a score card" in err and len(err.splitlines()) == 1
            assert len(err) < 400 + len(str(path))


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path, capsys):
    for name in ("pipe", "matrix.mtx", "table.csv"):
        os.mkfifo(tmp_path / name)
    for words in (["check", str(tmp_path / "pipe")], ["pseudobulk", str(tmp_path / "pipe"), "out"]):
        assert main(words) == 1
        assert "no plain file but a pipe" in capsys.readouterr().err
    for path in (tmp_path, tmp_path / "table.csv"):
        with pytest.raises(FileNotFoundError):
            read_screen(path)
    refuses("no plain file", embedding, tmp_path / "table.csv")


def test_a_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["check", "a.h5ad"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_messages_are_short_and_move_no_cursor(tmp_path, capsys):
    for name in ("a\x1b[2Jb\nc\x07.h5ad", "x" * 3000, "\u202eabc"):
        assert main(["sort", str(tmp_path / name), str(tmp_path / "out.h5ad")]) == 1
        err = capsys.readouterr().err
        assert len(err.splitlines()) == 1 and len(err) <= 2001, err
        assert err.removesuffix("\n").isprintable()
    with pytest.raises(SystemExit):
        main(["sort", "a", "b", "\x1b[2J" + "x" * 10**5])
    err = capsys.readouterr().err
    assert "\x1b" not in err and len(err) < 3000
    with pytest.raises(SystemExit):
        main(["score", "a", "b", "--threads", "1" + "0" * 5000])
    assert len(capsys.readouterr().err) < 2000


@pytest.mark.parametrize(("redirected", "said"), [
    (">&-", "standard output or standard error is closed"),
    ("2>&-", "standard output or standard error is closed"),
    (">/dev/full", "cannot write to standard output: No space left on device"),
    (">&- 2>&-", ""),
    ("2>/dev/full", ""),
])  # fmt: skip
def test_a_stream_that_is_closed_or_full(redirected, said, files):
    missing = " missing.h5ad" if "2>/dev" in redirected else ""
    words = f"sort{missing} x.h5ad" if missing else "fetch sample --folder ."
    line = f"exec {' '.join(PYTHON)} -m vcc_helpers {words} {redirected}"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and said in told and bool(said) == bool(told)
    assert "Traceback" not in told and "Exception ignored" not in told
