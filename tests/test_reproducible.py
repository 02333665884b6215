"""A page's numbers do not depend on the day or on the Python that computed them."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, another_python

RUNNER = Path(__file__).with_name("cell_runner.py")
OTHERS = [v for v in ("3.12", "3.13") if not sys.version.startswith(v)]
NEEDED = (
    *("numpy", "scipy", "pandas", "anndata", "h5py", "scikit-learn", "numba", "tqdm"),
    *("backports.zstd", "matplotlib", "ipython"),
)
NOTEBOOK = "08_metrics_by_hand.ipynb"
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w])")

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("another Python")]


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


def test_another_python_finds_the_same_numbers(folder):
    """With the versions of the lock."""
    packages = ["--constraint", str(ROOT / "requirements.lock"), *NEEDED]
    other = another_python(folder / "venv", OTHERS, packages)
    ours, theirs = numbers(Path(sys.executable), folder), numbers(other, folder)
    assert len(ours) == len(theirs) > 100
    np.testing.assert_allclose(theirs, ours, rtol=1e-5, atol=1e-6)


def test_two_runs_find_the_same_numbers_to_the_last_digit(folder):
    first, second = (numbers(Path(sys.executable), folder, run) for run in (1, 2))
    np.testing.assert_array_equal(first, second)
