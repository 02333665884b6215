"""What the README promises: its picture, its note, and its way to the official files, step by step.

The official files are 31 GB. Small simulated ones stand in for them here: a server on this machine
gives them under the official names, and the command takes their checksums for the right ones.
"""

import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from zipfile import ZipFile

import matplotlib.pyplot as plt
import numpy as np
import publish_as
import pytest
import readme_picture
import set_repository
from conftest import ROOT, served

from vcc_helpers import datasets
from vcc_helpers.datasets import _official, _open

README = (ROOT / "README.md").read_text(encoding="utf-8")
OFFICIAL_FILES = README[README.index("## The official files") : README.index("## Only the")]
OFFICIAL = _official.OFFICIAL


def test_the_note_is_there_exactly_as_long_as_the_addresses_lead_nowhere():
    unpublished = set_repository.read_repository(ROOT) == set_repository.PLACEHOLDER
    found = publish_as.NOTE.findall(README)
    assert len(found) == unpublished
    assert all("make publish-as OWNER/NAME" in note for note in found)
    assert "not published" not in publish_as.NOTE.sub("", README)


def test_the_picture_is_the_books_own_small_and_described(tmp_path):
    alt, name = re.search(r"!\[([^\]]+)\]\((book/_static/[^)]+)\)", README).groups()
    assert ROOT / name == readme_picture.PICTURE and len(alt) > 100
    assert readme_picture.PICTURE.stat().st_size < 100_000
    readme_picture.draw(tmp_path / "again.png")
    stored, again = (plt.imread(p) for p in (readme_picture.PICTURE, tmp_path / "again.png"))
    assert stored.shape == again.shape
    differs = (np.abs(stored - again) > 0.1).any(axis=-1).mean()
    assert differs < 0.001, "run python scripts/readme_picture.py"


def test_the_table_names_the_gigabytes():
    row = re.compile(r"^\| .+ \| ([\d.]+) GB \| (\d+) min \|$", re.MULTILINE)
    rows, files = row.findall(OFFICIAL_FILES), ("train", "validation", "support_set")
    for (size, minutes), what in zip(rows, files, strict=True):
        n_bytes = OFFICIAL[what].n_bytes
        assert size == f"{n_bytes / 1e9:.1f}"
        assert int(minutes) == round(8 * n_bytes / 100e6 / 60)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Small simulated files under the official names, and a server that gives them."""
    folder = tmp_path_factory.mktemp("server")
    names = ("hepg2", "jurkat", "k562", "rpe1", "k562_gwps")
    size = {"n_genes": 60, "n_targets": (4, 2, 3), "cells_per_target": 12, "n_controls": 40}
    world = datasets.make_h1_like(contexts=("H1", *names), cache=False, **size)
    with ZipFile(folder / "competition_support_set.zip", "w") as archive:
        for name in names:
            world.contexts[name].write_h5ad(folder / f"{name}.h5")
            archive.write(folder / f"{name}.h5", f"competition_support_set/{name}.h5")
    for part in ("train", "validation"):
        world.cells(part).copy().write_h5ad(folder / OFFICIAL[part].name)
    with served(folder) as address:
        yield folder, f"{address}/"


def commands(folder, server):
    """A folder of programs: our command with the small files for the official ones, and no make."""
    files, address = server
    official = {}
    for what in ("train", "validation", "support_set"):
        path = files / OFFICIAL[what].name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        official[what] = (path.name, path.stat().st_size, digest, address)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, function = next(iter(project["scripts"].values())).split(":")
    folder.mkdir()
    (folder / "command.py").write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        f"from {module} import {function} as run\n"
        "from vcc_helpers.datasets import _official\n"
        f"for what, words in {official!r}.items():\n"
        "    _official.OFFICIAL[what] = _official.OfficialFile(*words)\n"
        "sys.exit(run())\n"
    )
    words = shlex.join([sys.executable, str(folder / "command.py")])
    (folder / "vcc-helpers").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (folder / "make").write_text("#!/bin/sh\n")
    for program in folder.iterdir():
        program.chmod(0o755)
    return folder


OPENS = """
import vcc_helpers as vcc
world = vcc.datasets.open_world()
assert sorted(world.files) == ["train", "validation"], world.files
assert world.sources == ["HepG2", "Jurkat", "K562", "RPE1"], world.sources
assert vcc.datasets.open_world(sources=False).files
"""


def steps(language):
    """The lines of a block of code, without their remarks."""
    block = re.search(rf"^```{language}\n((?:!|make).*?)^```", OFFICIAL_FILES, re.M | re.S)[1]
    return [re.sub(r"\s+#.*", "", line) for line in block.splitlines()]


def test_the_steps_on_colab_are_those_on_your_own_machine():
    environment = {"%env VCC_DATA=/content/data/h1": 'export VCC_DATA="$PWD/data/h1"'}
    colab = [environment.get(line, line.removeprefix("!")) for line in steps("")]
    first, *own, last = steps("sh")
    assert own == colab and first.startswith("make setup") and last == "make lab"


@pytest.mark.skipif(os.name != "posix", reason="the steps are for a shell")
@pytest.mark.skipif(not shutil.which("unzip"), reason="no unzip on this machine")
def test_the_steps_to_the_official_files_work_as_they_are(server, tmp_path):
    """Line by line, in a shell, in the cloned folder; then a notebook's folder opens the files."""
    folder, block = tmp_path / "cloned", "\n".join(steps("sh"))
    (folder / "notebooks").mkdir(parents=True)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    path = f"{commands(tmp_path / 'bin', server)}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if k != "VCC_DATA"} | {"PATH": path}
    last = f"cd notebooks\n{shlex.join(['env', f'PYTHONPATH={ROOT}', sys.executable, '-c', OPENS])}"
    done = subprocess.run(
        ["bash", "-euc", f"{block}\n{last}"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ignored = subprocess.run(["git", "check-ignore", "data/h1/x"], cwd=ROOT, capture_output=True)
    assert ignored.returncode == 0


@pytest.mark.skipif(os.name != "posix", reason="the steps are for a shell")
def test_the_page_on_the_whole_file_works_line_by_line_and_names_the_files(server, tmp_path):
    """With a folder for /content, and one in it for the Drive."""
    page = (ROOT / "book/whole_file.md").read_text(encoding="utf-8")
    assert [name for name in _open.FILE_NAMES.values() if f"| `{name}`" not in page] == []
    (content := tmp_path / "content").mkdir()
    lines = "".join(re.findall(r"^```\n(!.*?)^```", page, re.M | re.S)).replace("!", "")
    lines = re.sub("^%env ", "export ", lines, flags=re.M).replace("/content", str(content))
    path = f"{commands(tmp_path / 'bin', server)}{os.pathsep}{os.environ['PATH']}"
    env = {k: v for k, v in os.environ.items() if k != "VCC_DATA"} | {"PATH": path}
    opens = "import vcc_helpers as v; print(*v.datasets.open_world().files, sep='+')"
    last = shlex.join(["env", f"PYTHONPATH={ROOT}", sys.executable, "-c", opens])
    done = subprocess.run(
        ["bash", "-euc", lines + last], cwd=content, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("train+validation\n")
    kept = sorted(path.name for path in (content / "drive/MyDrive/h1").iterdir())
    assert kept == ["adata_Training.h5ad", "adata_Validation.h5ad"]
