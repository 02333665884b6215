"""The book as a reader gets it: built from a clean copy, every page whole, no failure hidden."""

import re
import shutil
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import execute_pages
import nbformat
import pytest
import set_repository
import yaml
from conftest import build
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from packaging.requirements import Requirement
from sphinx.util.matching import get_matching_files

ROOT = Path(__file__).resolve().parents[1]
TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"]] + [
    page["file"] for chapter in CHAPTERS for page in [chapter, *chapter.get("sections", [])]
]
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page links to, shows and can be linked at."""

    def __init__(self, path):
        super().__init__()
        self.links, self.images, self.ids, self.sources = [], [], set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.ids.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "img":
            self.images.append(attributes)
        if tag in {"img", "script", "iframe"} and attributes.get("src"):
            self.sources.append(attributes["src"])
        if tag == "link" and attributes.get("href") and attributes.get("rel") != "canonical":
            self.sources.append(attributes["href"])


def inside(address):
    parts = urlsplit(address)
    return not parts.scheme and not parts.netloc


def broken(site):
    """Relative links, images, scripts and anchors of a built site that lead nowhere."""
    pages = {
        path.resolve(): Page(path)
        for path in site.rglob("*.html")
        if "_static" not in path.relative_to(site).parts  # templates of the theme
    }
    found = []
    for path, page in pages.items():
        for address in filter(inside, page.links + page.sources):
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if target.is_dir():
                target /= "index.html"
            if not target.is_file():
                found.append(f"{path.name}: {address}")
            elif parts.fragment and target in pages:
                if unquote(parts.fragment) not in pages[target].ids:
                    found.append(f"{path.name}: no anchor {address}")
    return found


def article(book, page):
    text = (book / f"{page}.html").read_text(encoding="utf-8")
    return text[text.index("<article") : text.index("</article>")]


def test_the_index_leads_to_the_landing_page(book):
    text = (book / "index.html").read_text(encoding="utf-8")
    assert "book/index.html" in text


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_there_with_a_title(book, page):
    assert re.search(r"<h1>.+</h1>", article(book, page), re.DOTALL)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_notebook_shows_outputs_and_a_figure(book, page):
    text = article(book, page)
    assert text.count("cell_output") >= 3
    assert "<img" in text
    assert "Traceback" not in text


def test_no_page_has_broken_links_or_missing_images(book):
    assert broken(book) == []


def test_every_figure_has_words_for_those_who_cannot_see_it(book):
    hashes = re.compile(r"[./_\w]*[0-9a-f]{32,}\.\w+")
    poor = [
        (page, image.get("alt"))
        for page in PAGES
        for image in Page(book / f"{page}.html").images
        if "_images/" in image["src"]  # not the logos of the theme
        and (len(image.get("alt") or "") < 20 or hashes.fullmatch(image["alt"]))
    ]
    assert poor == []


@pytest.mark.parametrize("page", PAGES)
def test_no_markup_is_left_raw(book, page):
    prose = re.sub(r"<(pre|script|code)\b.*?</\1>", "", article(book, page), flags=re.DOTALL)
    words = re.sub(r"<[^>]+>", "", prose)
    assert not re.search(r"\{[a-z:]+\}`|:::|```|\(OWNER|</?details|\| --- \||\| — \|", words)


def test_formulas_need_no_network(book):
    assert (book / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert list((book / "_static" / "mathjax").rglob("*.woff"))
    text = (book / "book" / "challenge.html").read_text(encoding="utf-8")
    assert re.search(r'<script[^>]+src="\.\./_static/mathjax/tex-chtml\.js', text)


def test_notebook_pages_can_be_opened_in_colab(book):
    repository = set_repository.read_repository(ROOT)
    for page in NOTEBOOKS:
        text = (book / f"{page}.html").read_text(encoding="utf-8")
        assert f"research.google.com/github/{repository}/blob/main/{page}.ipynb" in text


def test_the_reference_documents_the_public_functions(book):
    for name in [
        "stream.pseudobulk", "metrics.pds", "scoring.score", "models.mean_baseline",
        "scoring.de_table", "stream.open_cells", "course.exercises.check",
    ]:  # fmt: skip
        page = Page(book / "book" / "api" / f"{name.partition('.')[0]}.html")
        assert f"vcc_helpers.{name}" in page.ids


def test_no_remark_of_the_reference_is_taken_for_a_type(book):
    """Of "#: Bytes a gene: what is kept", napoleon makes a type and its description."""
    pages = [page for page in PAGES if page.startswith("book/api/")]
    assert [page for page in pages if ">Type<span" in article(book, page)] == []


def test_the_status_page_lists_every_notebook_as_run(book):
    text = article(book, "book/status")
    rows = [row for row in re.findall(r"<tr.*?</tr>", text, re.DOTALL) if "notebooks/" in row]
    assert len(rows) == len(NOTEBOOKS)
    assert all("✅" in row for row in rows)


def test_the_page_on_dependencies_lists_every_package(book):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = project["project"]["optional-dependencies"]
    lines = [*project["project"]["dependencies"], *project["dependency-groups"]["sphinx"]]
    lines += [line for name in ("plot", "cluster", "book", "test") for line in extras[name]]
    wanted = {r.name for r in map(Requirement, lines) if not r.marker or r.marker.evaluate()}
    listed = set(re.findall(r"<td[^>]*><p>([\w.-]+)</p></td>", article(book, "book/dependencies")))
    assert wanted - {"vcc-helpers"} <= listed


# --- the settings must not hide a failure: a toy book with the same settings ----------------------


def toy_book(root, cells, others=()):
    """Build a book of two pages; `others` are pages in the tree that are not the book's."""
    (root / "book").mkdir(parents=True)
    for name in ["_ext", "_static", "references.bib"]:
        source = ROOT / "book" / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, root / "book" / name)
    shutil.copy2(ROOT / "_config.yml", root / "_config.yml")
    (root / "book" / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n  - file: notebooks/01_toy\n"
    )
    (root / "book" / "index.md").write_text("# Toy\n\nText.\n")
    notebook = new_notebook(cells=[new_markdown_cell("# Build a toy"), *cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    (root / "notebooks").mkdir()
    nbformat.write(notebook, root / "notebooks" / "01_toy.ipynb")
    for name in others:
        page = root / name
        page.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".ipynb":
            nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), page)
        else:
            page.write_text("# Foreign\n\n[nowhere](missing.md)\n")
    return build(root)


OTHERS = [
    ".venv-311/lib/site-packages/a/README.md",
    "myenv/lib/site-packages/a/docs/index.rst",
    "node_modules/a/README.md",
    "[old] copy*/book/index.md",
    "worktrees/one/notebooks/01_toy.ipynb",
    "data/H1/notes.md",
    "notebooks/node_modules/a/README.md",
    "notebooks/my own try.ipynb",
    "book/drafts/idea.md",
    "TODO.md",
]


def test_pages_of_others_in_the_tree_are_no_pages_of_the_book(tmp_path):
    done = toy_book(tmp_path, [new_code_cell("print(6 * 7)")], others=OTHERS)
    assert done.returncode == 0, done.stdout[-3000:]
    site = tmp_path / "_build" / "html"
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {page for page in pages if not page.startswith("_static/")} == {
        "index.html", "genindex.html", "search.html", "book/index.html", "notebooks/01_toy.html",
    }  # fmt: skip


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


def test_a_good_toy_builds(tmp_path):
    says = "from IPython.display import Markdown\nMarkdown('### Title\\n\\nSee naming.py')"
    done = toy_book(tmp_path, [new_code_cell("print(6 * 7)"), new_code_cell(says)])
    assert done.returncode == 0, done.stdout[-3000:]
    text = article(tmp_path / "_build" / "html", "notebooks/01_toy")
    assert "42" in text and "<h3" in text
    assert "http://naming.py" not in text  # Markdown as GitHub reads it has this link
    assert broken(tmp_path / "_build" / "html") == []


def test_words_of_the_glossary_lead_there(book):
    """Once a page, in running text: not in titles, code or what code prints."""
    link = re.compile(r'<a class="glossary-word[^"]*"[^>]*href="([^"]+)"[^>]*title="([^"]+)"')
    for page in NOTEBOOKS:
        text = article(book, page)
        found = link.findall(text)
        assert len(found) >= 3, page
        assert len({address for address, _ in found}) == len(found), page
        assert all("glossary.html#term-" in address and said for address, said in found)
        parts = re.finditer(r"<(h\d|pre|code|table)\b.*?</\1>", text, re.DOTALL)
        assert not any("glossary-word" in part[0] for part in parts), page
    assert "glossary-word" not in article(book, "book/glossary")


def execute(root):
    """Execute the pages alone, as the build does, and return what that says."""
    command = [sys.executable, str(ROOT / "scripts/execute_pages.py"), str(root)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.parametrize("outputs", [[], [new_output("error", ename="E", evalue="", traceback=[])]])
def test_a_notebook_that_failed_or_never_ran_is_run_by_the_build(outputs, tmp_path):
    notebook = new_notebook(cells=[new_code_cell("1 / 0", outputs=outputs)])
    nbformat.write(notebook, tmp_path / "01_toy.ipynb")
    assert not execute_pages.take_outputs(None, Path("01_toy.ipynb"), tmp_path)


def test_executing_tells_each_page_and_nothing_else(tmp_path):
    toy_book(tmp_path, [new_code_cell("print(6 * 7)")])
    done = execute(tmp_path)
    assert done.stderr == "     1  notebooks/01_toy.ipynb\n"
    assert done.stdout == "1 pages executed, 0 failed\n"


def test_a_notebook_that_was_run_is_not_run_again(tmp_path, monkeypatch):
    monkeypatch.setenv("VCC_EXECUTED", str(tmp_path))
    ran = new_code_cell("print(6 * 7)", execution_count=1)
    ran.outputs = [new_output("stream", text="forty-two")]
    ran.metadata["execution"] = {"iopub.execute_input": "2026-12-01T10:00:00.5Z"}
    notebook = new_notebook(cells=[new_markdown_cell("# Build a toy"), ran])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    notebook.metadata["language_info"] = {"name": "python", "pygments_lexer": "ipython3"}
    nbformat.write(notebook, tmp_path / "01_toy.ipynb")
    done = toy_book(tmp_path / "book", [new_code_cell("print(6 * 7)")])
    assert done.returncode == 0, done.stdout[-3000:]
    assert "forty-two" in article(tmp_path / "book/_build/html", "notebooks/01_toy")


def test_executing_tells_what_a_page_says_at_the_lowest_level(tmp_path):
    toy_book(tmp_path, [new_code_cell("import os\nos.write(2, b'out of room\\n')\n1 / 0")])
    done = execute(tmp_path)
    assert "out of room\n" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    assert done.stdout == "0 pages executed, 1 failed\n"


@pytest.mark.parametrize(
    "cell",
    [
        new_code_cell("1 / 0"),
        new_code_cell("import warnings\nwarnings.warn('careful')"),
        new_markdown_cell("[nowhere](02_missing.ipynb)"),
        new_markdown_cell("![nothing](missing.png)"),
    ],
    ids=["error", "warning", "broken link", "missing image"],
)
def test_a_bad_toy_fails(cell, tmp_path):
    assert toy_book(tmp_path, [cell]).returncode != 0


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="x">A</h1><a href="b.html">b</a><a href="#y">y</a><img src="c.png">'
        '<a href="#x">x</a><a href="https://example.org/z">z</a><a href="mailto:a@b">m</a>'
    )
    assert sorted(broken(tmp_path)) == [
        "a.html: b.html", "a.html: c.png", "a.html: no anchor #y",
    ]  # fmt: skip
