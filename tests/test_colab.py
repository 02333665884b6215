"""Notebooks in environments like Colab's: nothing that is preinstalled is replaced, and all runs.

The versions are those of Colab's published lists (August 2026) and of its older runtime. What a
reader's first cell fetches from the repository comes from this copy of it. With VCC_COLAB=all every
notebook runs in both; else two of them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
CHOSEN = ["01_load_the_h1_data.ipynb", "09_first_submission.ipynb"]
CHOSEN = NOTEBOOKS if os.environ.get("VCC_COLAB") == "all" else CHOSEN
COMMON = {"scikit-learn": "1.6.1", "matplotlib": "3.10.0"}
ENVIRONMENTS = {
    "of August 2026": (
        "3.13",
        COMMON
        | {"numpy": "2.1.3", "scipy": "1.16.3", "pandas": "2.2.3"}
        | {"h5py": "3.16.0", "numba": "0.61.2"},
    ),
    "older": (
        "3.12",
        COMMON
        | {"numpy": "2.0.2", "scipy": "1.16.3", "pandas": "2.2.2"}
        | {"h5py": "3.14.0", "numba": "0.60.0"},
    ),
}

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
    """An environment, the kernel that runs in it, and what was installed at the start."""

    def __init__(self, folder: Path, version: str, packages: dict[str, str]):
        python = python_of(version)
        self.python, self.packages = folder / "venv/bin/python", packages
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        run(uv, "venv", "-q", "--seed", "--python", python, folder / "venv")
        pins = [f"{name}=={number}" for name, number in packages.items()]
        install = [uv, "pip", "install", "-q", "--python", self.python]
        done = subprocess.run([*install, *pins, "ipykernel", "ipywidgets", "tqdm"], text=True,
                              capture_output=True)  # fmt: skip
        if done.returncode:
            pytest.skip(f"the packages cannot be installed here: {done.stderr.strip()[-300:]}")
        site = Path(run(self.python, "-c", "import site; print(site.getsitepackages()[0])").strip())
        (site / "google/colab").mkdir(parents=True)
        (site / "google/colab/__init__.py").touch()
        (site / "as_colab.pth").write_text("import google.colab\n")  # loaded before all, as there
        kernel = folder / "jupyter/kernels/colab"
        kernel.mkdir(parents=True)
        words = [str(self.python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": words, "display_name": "Colab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        self.jupyter = folder / "jupyter"
        self.source = folder / "project"
        for name in ("vcc_helpers", "pyproject.toml", "README.md", "LICENSE"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            self.source.mkdir(exist_ok=True)
            copy(ROOT / name, self.source / name)
        self.before = self.installed()

    def installed(self) -> dict[str, str]:
        found = json.loads(run(self.python, "-m", "pip", "list", "--format", "json"))
        return {one["name"]: one["version"] for one in found}


GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ENVIRONMENTS]


@pytest.fixture(scope="module", params=GROUPED)
def colab(request, tmp_path_factory):
    return Colab(tmp_path_factory.mktemp("colab"), *ENVIRONMENTS[request.param])


@pytest.mark.parametrize("name", CHOSEN)
def test_a_notebook_runs_and_replaces_nothing(name, colab, tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PATH", str(colab.jupyter))
    monkeypatch.delenv("VCC_DATA", raising=False)
    for leak in ("PYTHONPATH", "VIRTUAL_ENV"):
        monkeypatch.delenv(leak, raising=False)
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    address = next(word for word in first.source.split() if word.startswith("git+https"))
    first.source = first.source.replace(address, str(colab.source))
    folder = tmp_path / "content"
    folder.mkdir()
    client = NotebookClient(
        notebook, timeout=600, kernel_name="colab", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    assert (folder / "constraints.txt").exists(), "the first cell did not see Colab"
    after = colab.installed()
    assert {name: after.get(name) for name in colab.before} == colab.before
    assert {"anndata", "scanpy", "vcc-helpers"} <= set(after)
