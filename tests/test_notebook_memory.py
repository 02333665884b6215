"""The limit of memory for notebooks is held: a greedy toy fails, a modest one passes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import notebook_memory
import pytest
from nbformat.v4 import new_code_cell, new_notebook

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


def run(folder, source, *options):
    notebook = new_notebook(cells=[new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "toy.ipynb")
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "toy.ipynb", "-p", "notebook_memory",
         "-p", "no:cacheprovider", "-p", "no:zarr", "-p", "no:fast_array_utils",
         *options],
        cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )  # fmt: skip


@pytest.mark.parametrize("greedy", [False, True])
def test_a_notebook_over_the_limit_fails(greedy, tmp_path):
    # given back at once: only the peak shows it
    source = "block = bytearray(400_000_000); del block" if greedy else "1 + 1"
    options = ("--notebook-memory", "350MB", "--notebook-memory-json", "peaks.json")
    done = run(tmp_path, source, *options)
    assert done.returncode == int(greedy), done.stdout
    assert bool(re.search(r"toy.ipynb needed 0\.[45]", done.stdout)) == greedy
    peak = json.loads((tmp_path / "peaks.json").read_text())["toy.ipynb"]["peak_bytes"]
    assert (4e8 < peak < 7e8) if greedy else (1e7 < peak < 3.5e8)


def test_what_a_notebook_starts_counts_too(tmp_path):
    child = "import time; block = bytearray(400_000_000); time.sleep(1)"
    source = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    done = run(tmp_path, source, "--notebook-memory", "350MB")
    assert done.returncode == 1 and "toy.ipynb needed" in done.stdout


def test_without_a_limit_the_peak_is_only_told(tmp_path):
    done = run(tmp_path, "1 + 1")
    assert done.returncode == 0 and "memory of notebooks" in done.stdout


def test_sizes_are_read():
    assert notebook_memory.parse_size("2GB") == 2_000_000_000
    assert notebook_memory.parse_size("1.5 mb") == 1_500_000
    for wrong in ("2", "GB", "two GB", "-1GB"):
        with pytest.raises(ValueError, match="expected a size such as"):
            notebook_memory.parse_size(wrong)
