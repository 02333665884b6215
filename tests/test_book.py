"""The book as a reader gets it: built from a clean copy, every page whole."""

import re
import tomllib
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import set_repository
import yaml
from conftest import ROOT
from packaging.requirements import Requirement

TOC = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
CHAPTERS = [chapter for part in TOC["parts"] for chapter in part["chapters"]]
PAGES = [TOC["root"]] + [
    page["file"] for chapter in CHAPTERS for page in [chapter, *chapter.get("sections", [])]
]
NOTEBOOKS = [page for page in PAGES if page.startswith("notebooks/")]

#: One process builds the book and looks at it; another one has the other slow tests, then the
#: browser.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("book")]


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


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_there_with_a_title_and_no_markup_left_raw(book, page):
    """Of "#: Bytes a gene: what is kept", napoleon makes a type and its description."""
    text = article(book, page)
    assert re.search(r"<h1>.+</h1>", text, re.DOTALL)
    assert not (page.startswith("book/api/") and ">Type<span" in text)
    prose = re.sub(r"<(pre|script|code)\b.*?</\1>", "", text, flags=re.DOTALL)
    words = re.sub(r"<[^>]+>", "", prose)
    assert not re.search(r"\{[a-z:]+\}`|:::|```|\(OWNER|</?details|\| --- \||\| — \|", words)


@pytest.mark.parametrize("page", NOTEBOOKS)
def test_every_notebook_shows_outputs_and_a_figure_and_leads_to_colab(book, page):
    text, repository = article(book, page), set_repository.read_repository(ROOT)
    assert text.count("cell_output") >= 3
    assert "<img" in text and "Traceback" not in text
    whole = (book / f"{page}.html").read_text(encoding="utf-8")
    assert f"research.google.com/github/{repository}/blob/main/{page}.ipynb" in whole


def test_no_page_has_broken_links_or_missing_images(book):
    assert "book/index.html" in (book / "index.html").read_text(encoding="utf-8")
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


def test_formulas_need_no_network(book):
    assert (book / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert list((book / "_static" / "mathjax").rglob("*.woff"))
    text = (book / "book" / "challenge.html").read_text(encoding="utf-8")
    assert re.search(r'<script[^>]+src="\.\./_static/mathjax/tex-chtml\.js', text)


def test_the_reference_documents_the_public_functions(book):
    for name in [
        "stream.pseudobulk", "metrics.pds", "scoring.score", "models.mean_baseline",
        "scoring.de_table", "stream.open_cells", "course.exercises.check",
    ]:  # fmt: skip
        page = Page(book / "book" / "api" / f"{name.partition('.')[0]}.html")
        assert f"vcc_helpers.{name}" in page.ids


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
