"""Notebooks in environments like Colab's: nothing that is preinstalled is replaced, and all runs.

The versions are those of Colab's published lists (August 2026) and of its older runtime; of Dask,
which Colab brings without `distributed`, any. The notebooks are those of a fork that was published
as the README says: the first cell runs as it is, and git finds the fork on this machine.
With VCC_COLAB=all every notebook runs in both, which is done every week; else the one that needs a
cluster, in the newer one.
"""

import os
import sys

import fork
import pytest
import run_in_colab
from conftest import ROOT, another_python

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


NAMES = list(ENVIRONMENTS) if ALL else ["of August 2026"]
GROUPED = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in NAMES]


@pytest.fixture(scope="module", params=GROUPED)
def colab(request, tmp_path_factory):
    """The Python of an environment with what Colab brings, which is told, and a reader's fork."""
    folder, (version, packages) = tmp_path_factory.mktemp("colab"), ENVIRONMENTS[request.param]
    python = another_python(folder / "venv", [version], packages)
    (site := folder / f"venv/lib/python{version}/site-packages/google/colab").mkdir(parents=True)
    (site / "__init__.py").touch()
    before = run_in_colab.installed(python)
    assert "distributed" not in before and "dask" in before
    return python, before, fork.make_fork(folder / "fork")


@pytest.mark.parametrize("name", CHOSEN)
def test_a_notebook_runs_says_only_that_it_is_ready_and_replaces_nothing(name, colab):
    python, before, root = colab
    elsewhere = fork.instead_of_github(f"file://{root}")
    done = run_in_colab.run(root / "notebooks" / name, python, **elsewhere)
    assert run_in_colab.problems(done) == []
    after = run_in_colab.installed(python)
    assert run_in_colab.replaced(before, after) == []
    assert {"anndata", "scanpy", "vcc-helpers"} <= set(after)
    if name.startswith("12"):
        outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
        assert "2 worker processes" in "".join(output.get("text", "") for output in outputs)
