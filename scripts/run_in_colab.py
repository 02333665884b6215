"""Run notebooks as Colab runs them, and say what a reader would stumble over.

    python scripts/run_in_colab.py [NOTEBOOK ...]

Inside the image that Google publishes for Colab, or with another Python that is like Colab's
(tests/test_colab.py builds two). Every notebook runs from its first cell on, in an empty folder.
Exit status 1 if a cell fails or writes to standard error, if the first cell shows anything but that
it is ready, or if a package of the start is another version or gone.

Only what Colab brings is used: nbclient and nbformat.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"ready: vcc_helpers \d+\.\d+\.\d+(\.dev\d+)?\n")
# Colab's own kernel imports google.colab before anything else; that is how notebooks know it.
START = "import google.colab; from ipykernel.kernelapp import launch_new_instance as run; run()"
# What a test or a virtual environment around this program leaves behind.
LEAKS = ("PYTHONPATH", "VIRTUAL_ENV", "VCC_DATA", "PYTEST_CURRENT_TEST", "JUPYTER_PATH")


def installed(python: str | Path) -> dict[str, str]:
    """The version of every package of this Python."""
    words = [str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return {one["name"]: one["version"] for one in json.loads(done.stdout)}


def run(path: Path, python: str | Path, **variables: str) -> nbformat.NotebookNode:
    """The notebook with its outputs, up to and with the first cell that fails."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder) / "jupyter/kernels/colab"
        kernel.mkdir(parents=True)
        argv = [str(python), "-c", START, "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "Colab", "language": "python"}
        (kernel / "kernel.json").write_text(json.dumps(spec))
        content = Path(folder) / "content"
        content.mkdir()
        resources = {"metadata": {"path": str(content)}}
        client = NotebookClient(notebook, timeout=600, kernel_name="colab", resources=resources)
        client.create_kernel_manager().kernel_spec_manager.kernel_dirs.insert(0, str(kernel.parent))
        env = {name: value for name, value in os.environ.items() if name not in LEAKS}
        try:
            # What cells write comes as their output; the rest is the kernel's own talk.
            client.execute(env=env | variables, stderr=subprocess.DEVNULL)
        except CellExecutionError:
            pass  # the error is among the cell's outputs
    return notebook


def problems(notebook: nbformat.NotebookNode) -> list[str]:
    """What a reader would see and should not."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.get("text", "") for output in code[0].outputs]
    found = []
    if len(shown) != 1 or not READY.fullmatch(shown[0]):
        found.append(f"the first cell shows {shown}, not the one line 'ready: ...'")
    for number, cell in enumerate(code):
        for output in cell.outputs:
            if output.output_type == "error":
                found.append(f"code cell {number}: {output.traceback[-1].strip()}")
            elif output.get("name") == "stderr" and not _may_warn(cell):
                found.append(f"code cell {number} writes to standard error: {output.text.strip()}")
    return found


def _may_warn(cell: nbformat.NotebookNode) -> bool:
    """Tell whether a cell warns on purpose, which its text explains."""
    return "remove-stderr" in cell.metadata.get("tags", [])


def replaced(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Packages that were there at the start and are not any more, or in another version."""
    return [
        f"{name} {version} became {after.get(name, 'nothing')}"
        for name, version in before.items()
        if after.get(name) != version
    ]


def main(arguments: list[str]) -> int:
    """Run the notebooks that are named, or all; one line each; return the exit status."""
    paths = [Path(name) for name in arguments] or sorted((ROOT / "notebooks").glob("*.ipynb"))
    before, wrong = installed(sys.executable), 0
    for path in paths:
        start = time.monotonic()
        found = problems(run(path, sys.executable)) + replaced(before, installed(sys.executable))
        print(
            f"{time.monotonic() - start:6.0f} s  {path.name}",
            *found,
            sep="\n          ",
            flush=True,
        )
        wrong += bool(found)
    print(f"{len(paths)} notebooks, {wrong} with problems")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
