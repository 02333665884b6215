"""Notebooks in environments like Colab's: nothing that is preinstalled is replaced, and all runs.

The versions are those of Colab's published lists (August 2026) and of its older runtime; of Dask,
which Colab brings without `distributed`, any. The notebooks are those of a fork that was published
as the README says: the first cell runs as it is, and git finds the fork on this machine.
With VCC_COLAB=all every notebook runs in both, which is done every week; else the one that needs a
cluster, in the newer one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fork
import pytest
import run_in_colab

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
ALL = os.environ.get("VCC_COLAB") == "all"
CHOSEN = NOTEBOOKS if ALL else ["12_scale_out.ipynb"]
COMMON = ["scikit-learn==1.6.1", "matplotlib==3.10.0", "scipy==1.16.3", "ipykernel", "ipywidgets"]
NEW = "numpy==2.1.3 pandas==2.2.3 h5py==3.16.0 numba==0.61.2 dask==2026.1.1 tqdm".split()
OLD = "numpy==2.0.2 pandas==2.2.2 h5py==3.14.0 numba==0.60.0 dask==2025.5.1 tqdm".split()
ENVIRONMENTS = {"of August 2026": ("3.13", COMMON + NEW), "older": ("3.12", COMMON + OLD)}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the paths are those of POSIX systems"),
]


def run(*words, **kw):
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **kw)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def python_of(version):
    """Return a Python of this version, or skip."""
    found = [shutil.which(f"python{version}")]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for python in filter(None, found):
        if subprocess.run([python, "-c", "import venv"], capture_output=True).returncode == 0:
            return python
    pytest.skip(f"no Python {version} on this machine")


class Colab:
    """An environment with what Colab brings, and a fork for its readers."""

    def __init__(self, folder: Path, version: str, packages: list[str]):
        self.python = folder / "venv/bin/python"
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        run(uv, "venv", "-q", "--seed", "--python", python_of(version), folder / "venv")
        install = [uv, "pip", "install", "-q", "--python", self.python]
        done = subprocess.run([*install, *packages], text=True, capture_output=True)
        if done.returncode:
            pytest.skip(f"the packages cannot be installed here: {done.stderr.strip()[-300:]}")
        site = Path(run(self.python, "-c", "import site; print(site.getsitepackages()[0])").strip())
        (site / "google/colab").mkdir(parents=True)
        (site / "google/colab/__init__.py").touch()
        self.fork = fork.make_fork(folder / "fork")
        self.before = run_in_colab.installed(self.python)
        assert "distributed" not in self.before and "dask" in self.before


NAMES = list(ENVIRONMENTS) if ALL else ["of August 2026"]
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]


@pytest.fixture(scope="module", params=GROUPED)
def colab(request, tmp_path_factory):
    return Colab(tmp_path_factory.mktemp("colab"), *ENVIRONMENTS[request.param])


@pytest.mark.parametrize("name", CHOSEN)
def test_a_notebook_runs_says_only_that_it_is_ready_and_replaces_nothing(name, colab):
    path = colab.fork / "notebooks" / name
    done = run_in_colab.run(path, colab.python, **fork.instead_of_github(f"file://{colab.fork}"))
    assert run_in_colab.problems(done) == []
    after = run_in_colab.installed(colab.python)
    assert run_in_colab.replaced(colab.before, after) == []
    assert {"anndata", "scanpy", "vcc-helpers"} <= set(after)
    if name.startswith("12"):
        text = "".join(output.get("text", "") for cell in done.cells for output in
                       cell.get("outputs", ()))  # fmt: skip
        assert "2 worker processes" in text
