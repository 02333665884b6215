"""Execute every page of the book, as many at a time as there are cores, for the build to find.

    python scripts/execute_pages.py [FOLDER OF THE BOOK] [--executed FOLDER]

Sphinx would execute one page after the other. Here Jupyter's own cache is filled anew, and the
build takes each page's outputs from it. Exit status 1, with the traceback, if a page fails.
With --executed, notebooks that lie in that folder with their outputs are not executed again: the
tests run them one by one, with a limit of memory, before they build the book.
"""

import argparse
import logging
import os
import shutil
import sys
import threading
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn
from jupyter_cache.executors import load_executor

ROOT = Path(__file__).resolve().parents[1]
CACHE = "_build/.jupyter_cache"  # where jupyter-book looks
DONE, BEGUN = "Execution Successful: ", "Executing: "
# Said by every kernel that listens on a port of this machine, as all do that Jupyter starts.
USUAL = "Kernel is running over TCP without encryption"


def pages_with_code(root: Path) -> list[tuple[Path, str]]:
    """Return each page of the table of contents that has code, and what reads it."""
    toc = yaml.safe_load((root / "book/_toc.yml").read_text(encoding="utf-8"))
    chapters = [entry for part in toc.get("parts", [toc]) for entry in part["chapters"]]
    found = []
    for name in [toc["root"], *(entry["file"] for entry in chapters)]:
        page = root / f"{name}.md"
        if not page.exists():
            found.append((root / f"{name}.ipynb", "nbformat"))
        elif "```{code-cell}" in page.read_text(encoding="utf-8"):
            found.append((page, "myst_nb_md"))
    return found


def reworded(line: str, root: Path, done: list[str]) -> str:
    """Return what to show of a line that a kernel or its executor wrote to standard error."""
    if DONE in line:
        done.append(line.partition(DONE)[2].strip())
        return f"    {len(done):2}  {Path(done[-1]).relative_to(root)}\n"
    return "" if USUAL in line or BEGUN in line else line


@contextmanager
def progress(root: Path):
    """Show on standard error a line a page, and all else that is written there but the usual."""
    sys.stderr.flush()
    kept, (reader, writer) = os.dup(2), os.pipe()
    os.dup2(writer, 2)
    os.close(writer)

    def copy():
        done = []
        with os.fdopen(reader, errors="replace") as lines:
            for line in lines:
                os.write(kept, reworded(line, root, done).encode())

    thread = threading.Thread(target=copy)
    thread.start()
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        thread.join()
        os.close(kept)


def seconds(notebook: nbformat.NotebookNode) -> float:
    """Return how long an executed notebook ran, by the clock of its kernel's messages."""
    told = [cell.metadata.get("execution", {}).values() for cell in notebook.cells]
    moments = [datetime.fromisoformat(time) for times in told for time in times]
    return (max(moments) - min(moments)).total_seconds()


def take_outputs(cache, page: Path, executed: Path | None) -> bool:
    """Take a page's outputs from the same notebook in the folder `executed`, if it is there."""
    path = executed / page.name if executed else None
    if path is None or not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    kinds = {one.output_type for cell in notebook.cells for one in cell.get("outputs", [])}
    if not kinds or "error" in kinds:  # not run, or failed: the build runs it, and tells
        return False
    data = {"execution_seconds": seconds(notebook)}
    # what `notebook_tools.py solve` added for the tests is not of the page
    notebook.cells = [c for c in notebook.cells if "solution" not in c.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the cache knows a page by its cells' metadata, too
    cache.cache_notebook_bundle(CacheBundleIn(notebook, str(page), data=data))
    return True


def main(root: Path, executed: Path | None) -> int:
    """Execute all, and return the exit status."""
    shutil.rmtree(root / CACHE, ignore_errors=True)  # it would not notice a change of the package
    (root / CACHE).parent.mkdir(exist_ok=True)
    cache = get_cache(root / CACHE)
    taken = 0
    for page, reader in pages_with_code(root):
        if take_outputs(cache, page, executed):
            taken += 1
            continue
        cache.add_nb_to_project(str(page), read_data={"name": reader, "type": "plugin"})
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))["execute"]
    for library in ("OMP", "OPENBLAS"):  # a page a core: threads of a page would wait for others
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    logger = logging.getLogger("pages")
    logger.setLevel(logging.INFO)  # without a handler: only the executor asks for the level
    executor = load_executor("local-parallel", cache, logger=logger)
    with progress(root):
        done = executor.run_and_cache(timeout=settings["timeout"])
    for record in cache.list_project_records():
        if record.traceback:
            print(f"{record.uri}\n{record.traceback}", file=sys.stderr)
    if taken:
        print(f"{taken} pages were executed before")
    print(f"{len(done.succeeded)} pages executed, {len(done.excepted + done.errored)} failed")
    return int(bool(done.excepted or done.errored))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--executed", type=Path)
    options = parser.parse_args()
    raise SystemExit(main(options.folder.resolve(), options.executed))
