"""Notebooks in environments like Colab's: nothing that is preinstalled is replaced, and all runs.

The versions are those of Colab's published lists (August 2026) and of its older runtime; of Dask,
which Colab brings without `distributed`, any. The notebooks are those of a fork that was published
as the README says: the first cell runs as it is, and git finds the fork on this machine.
With VCC_COLAB=all every notebook runs in both, which is done every week; else the one that needs a
cluster, in the newer one.
"""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import fork
import numpy as np
import pytest
import run_in_colab
from conftest import ROOT, another_python
from test_notebooks import panel_cells

NOTEBOOKS = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
ALL = os.environ.get("VCC_COLAB") == "all"
CHOSEN = NOTEBOOKS if ALL else ["11_scale_out.ipynb"]
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


PANEL = ["03_predict_with_baselines.ipynb", "12_mean_and_median.ipynb"]


@pytest.mark.parametrize("name", PANEL)
def test_a_core_chapter_runs_on_a_panel_without_other_lines(name, colab, tmp_path):
    python, _, root = colab
    elsewhere = fork.instead_of_github(f"file://{root}")
    folder = str(panel_cells(tmp_path))
    done = run_in_colab.run(root / "notebooks" / name, python, VCC_DATA=folder, **elsewhere)
    assert run_in_colab.problems(done) == []
    outputs = [output for cell in done.cells for output in cell.get("outputs", ())]
    text = "".join(output.get("text", "") for output in outputs)
    assert "H1, validation" in text and "no other contexts" in text


# A page's numbers do not depend on the day or on the Python that computed them.
RUNNER = Path(__file__).with_name("cell_runner.py")
OTHERS = [v for v in ("3.12", "3.13") if not sys.version.startswith(v)]
NEEDED = (
    *("numpy", "scipy", "pandas", "anndata", "h5py", "scikit-learn", "numba", "tqdm"),
    *("backports.zstd", "matplotlib", "ipython"),
)
NOTEBOOK = "17_metrics_by_hand.ipynb"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")
alike = pytest.mark.xdist_group("another Python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@cache
def numbers(python, folder, run=1):
    """Run the notebook with some Python, and return every number that it shows."""
    env = {name: value for name, value in os.environ.items() if name != "VCC_DATA"}
    env |= {"PYTHONHASHSEED": "random", "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [str(python), str(RUNNER), str(ROOT / "notebooks" / NOTEBOOK)],
        capture_output=True, text=True, env=env, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    # neither names of temporary folders, nor what another version of AnnData packs to
    shown = re.sub(r"\S*/\S*|[\d,]+ bytes", "", done.stdout)
    return np.array([float(n) for n in NUMBER.findall(shown)])


@alike
def test_another_python_finds_the_same_numbers(folder):
    """With the versions of the lock."""
    packages = ["--constraint", str(ROOT / "requirements.lock"), *NEEDED]
    other = another_python(folder / "venv", OTHERS, packages)
    ours, theirs = numbers(Path(sys.executable), folder), numbers(other, folder)
    assert len(ours) == len(theirs) > 100
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


@alike
def test_two_runs_find_the_same_numbers_to_the_last_digit(folder):
    first, second = (numbers(Path(sys.executable), folder, run) for run in (1, 2))
    np.testing.assert_array_equal(first, second)
