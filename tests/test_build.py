"""The settings of the book hide no failure: a toy book with the same settings."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import execute_pages
import nbformat
import pytest
import set_repository
from conftest import build
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from sphinx.util.matching import get_matching_files
from test_book import ROOT, Page, article, broken

pytestmark = pytest.mark.slow

ADDRESS = set_repository.pages_address(set_repository.read_repository(ROOT))


def toy(root, *cells):
    (root / "book").mkdir(parents=True)
    for name in ["book/_ext", "book/_static"]:
        shutil.copytree(ROOT / name, root / name)
    for name in ["book/references.bib", "_config.yml"]:
        shutil.copy2(ROOT / name, root / name)
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n  - file: notebooks/01_toy\n"
    )
    (root / "book" / "index.md").write_text("# Toy\n\nText.\n")
    (root / "notebooks").mkdir()
    write_notebook(root / "notebooks" / "01_toy.ipynb", *cells)
    return root


def write_notebook(path, *cells):
    notebook = new_notebook(cells=[new_markdown_cell("# Build a toy"), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(notebook, path)


def execute(root):
    """Execute the pages alone, as the build does first, and return what that says."""
    command = [sys.executable, str(ROOT / "scripts/execute_pages.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


OTHERS = [
    ".venv-311/lib/site-packages/a/README.md", "myenv/lib/site-packages/a/docs/index.rst",
    "node_modules/a/README.md", "[old] copy*/book/index.md", "worktrees/one/notebooks/01_toy.ipynb",
    "data/H1/notes.md", "notebooks/node_modules/a/README.md", "notebooks/my own try.ipynb",
    "book/drafts/idea.md", "TODO.md",
]  # fmt: skip


def test_a_good_toy_builds_of_what_was_run_and_pages_of_others_are_none_of_it(
    tmp_path, monkeypatch
):
    links = f"[a]({ADDRESS}book/index.html), [b]({ADDRESS}book/index.html#toy), [c]({ADDRESS})"
    counts = new_code_cell("print(6 * 7)", execution_count=1)
    says = new_code_cell("Markdown(said)", execution_count=2)
    counts.metadata["execution"] = {"iopub.execute_input": "2026-12-01T10:00:00.5Z"}
    counts.outputs = [new_output("stream", text="forty-two")]
    says.outputs = [new_output("display_data", {"text/markdown": "### Title\n\nSee naming.py"})]
    (tmp_path / "ran").mkdir()
    write_notebook(tmp_path / "ran/01_toy.ipynb", counts, says, new_markdown_cell(links))
    cells = new_code_cell("print(6 * 7)"), new_code_cell("Markdown(said)"), new_markdown_cell(links)
    root = toy(tmp_path / "toy", *cells)
    monkeypatch.setenv("VCC_EXECUTED", str(tmp_path / "ran"))
    for name in OTHERS:
        page = root / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            write_notebook(page, new_code_cell("1 / 0"))
        else:
            page.write_text("# Foreign\n\n[nowhere](missing.md)\n")
    done = build(root)
    assert done.returncode == 0, done.stdout[-3000:]
    site = root / "_build" / "html"
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {page for page in pages if not page.startswith("_static/")} == {
        *("index.html", "genindex.html", "search.html", "404.html"),
        *("book/index.html", "notebooks/01_toy.html"),
    }  # fmt: skip
    text = article(site, "notebooks/01_toy")
    assert "forty-two" in text and "<h3" in text
    assert "http://naming.py" not in text  # Markdown as GitHub reads it has this link
    found = Page(site / "notebooks/01_toy.html").links
    assert {"../book/index.html", "../book/index.html#toy", ADDRESS} <= set(found)
    assert f"{ADDRESS}book/index.html" not in found
    assert broken(site) == []


@pytest.mark.parametrize("outputs", [[], [new_output("error", ename="E", evalue="", traceback=[])]])
def test_a_notebook_that_failed_or_never_ran_is_run_by_the_build(outputs, tmp_path):
    write_notebook(tmp_path / "01_toy.ipynb", new_code_cell("1 / 0", outputs=outputs))
    assert not execute_pages.take_outputs(None, Path("01_toy.ipynb"), tmp_path)


def test_a_page_is_executed_and_told(tmp_path):
    told = execute(toy(tmp_path, new_code_cell("print(6 * 7)")))
    assert told.stderr == "     1  notebooks/01_toy.ipynb\n"
    assert told.stdout == "1 pages executed, 0 failed\n"


def test_an_error_fails_and_what_a_page_says_at_the_lowest_level_is_told(tmp_path):
    done = execute(toy(tmp_path, new_code_cell("import os\nos.write(2, b'out of room\\n')\n1 / 0")))
    assert done.returncode == 1
    assert "out of room\n" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout == "0 pages executed, 1 failed\n"


def test_a_warning_a_broken_link_and_a_missing_image_fail(tmp_path):
    links = f"[nowhere](02_missing.ipynb) [nowhere]({ADDRESS}book/missing.html) ![](missing.png)"
    warns = new_code_cell("import warnings\nwarnings.warn('careful')")
    done = build(toy(tmp_path, warns, new_markdown_cell(links)))
    assert done.returncode != 0
    told = [line for line in done.stdout.splitlines() if "WARNING" in line]
    for what in ["stderr", "02_missing.ipynb", f"{ADDRESS}book/missing.html", "missing.png"]:
        assert any(what in line for line in told), (what, told)


def test_folders_of_others_are_not_even_searched(tmp_path, monkeypatch):
    """They may hold a link to themselves, or to all that a cluster stores."""
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    import own_folders

    for name in [*OTHERS, "book/index.md"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    config = SimpleNamespace(exclude_patterns=["_build"])
    own_folders.leave_out_the_rest(SimpleNamespace(srcdir=tmp_path), config)
    found = set(get_matching_files(tmp_path, exclude_patterns=config.exclude_patterns))
    own = {name for name in OTHERS if name.startswith(("book/", "notebooks/"))}
    assert found == own | {"book/index.md", "TODO.md"}
