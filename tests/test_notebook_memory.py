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


CHILD = "import time; block = bytearray(400_000_000); time.sleep(1)"
SOURCES = {
    "modest": "1 + 1",
    "greedy": "block = bytearray(400_000_000); del block",  # only the peak shows it
    "parent": f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])",
}


def test_a_notebook_over_the_limit_fails_also_by_what_it_starts(tmp_path):
    for name, source in SOURCES.items():
        notebook = new_notebook(cells=[new_code_cell(source)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbmake", "-p", "notebook_memory", "-n", "0",
         "-p", "no:cacheprovider", "-p", "no:zarr", "-p", "no:fast_array_utils",
         "--notebook-memory", "350MB", "--notebook-memory-json", "peaks.json"],
        cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )  # fmt: skip
    assert done.returncode == 1 and "1 passed" in done.stdout and "2 failed" in done.stdout
    assert set(re.findall(r"(\w+).ipynb needed 0\.[45]", done.stdout)) == {"greedy", "parent"}
    peaks = json.loads((tmp_path / "peaks.json").read_text())
    peaks = {name: record["peak_bytes"] for name, record in peaks.items()}
    assert 1e7 < peaks["modest.ipynb"] < 3.5e8
    assert 4e8 < peaks["greedy.ipynb"] < 7e8 and 4e8 < peaks["parent.ipynb"] < 7e8


def test_sizes_are_read():
    assert notebook_memory.parse_size("2GB") == 2_000_000_000
    assert notebook_memory.parse_size("1.5 mb") == 1_500_000
    for wrong in ("2", "GB", "two GB", "-1GB"):
        with pytest.raises(ValueError, match="expected a size such as"):
            notebook_memory.parse_size(wrong)
