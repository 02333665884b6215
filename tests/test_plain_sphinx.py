"""The way out of Jupyter Book: conf.py makes of _config.yml what Jupyter Book makes of it."""

import importlib
import runpy
import sys
from pathlib import Path

import compare_builds
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
#: Extensions of Jupyter Book for what this book does not have: live code, comments, a PDF.
NOT_OURS = {
    "jupyter_book", "sphinx_jupyterbook_latex", "sphinx_thebe", "sphinx_comments",
    "sphinx.ext.intersphinx",
}  # fmt: skip
#: Settings that only Jupyter Book makes; Sphinx's own defaults do as well.
DEFAULTS = {
    "comments_config", "exclude_patterns", "external_toc_exclude_missing", "latex_engine",
    "myst_url_schemes", "nb_execution_cache_path", "nb_execution_excludepatterns",
    "nb_execution_in_temp", "pygments_style", "suppress_warnings", "use_jupyterbook_latex",
    "use_multitoc_numbering",
}  # fmt: skip


def book():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


@pytest.fixture
def conf(monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    return runpy.run_path(str(ROOT / "conf.py"))


def test_plain_sphinx_has_the_settings_of_jupyter_book(conf):
    config = pytest.importorskip("jupyter_book.config")
    told = {"external_toc_path": "book/_toc.yml", "latex_individualpages": False}
    theirs, _ = config.get_final_config(
        user_yaml=ROOT / "_config.yml", cli_config=told, sourcedir=ROOT
    )
    ours = conf["settings"](book())
    assert sorted(ours.pop("extensions")) == sorted(set(theirs.pop("extensions")) - NOT_OURS)
    theme, their_theme = ours.pop("html_theme_options"), theirs.pop("html_theme_options")
    buttons, their_buttons = theme.pop("launch_buttons"), their_theme.pop("launch_buttons")
    assert buttons == {name: value for name, value in their_buttons.items() if value}
    assert theme == {name: their_theme[name] for name in theme}
    left = {name: value for name, value in their_theme.items() if value and name not in theme}
    assert set(left) == {"analytics"}
    assert ours == {name: value for name, value in theirs.items() if name not in DEFAULTS}


def test_sphinx_reads_those_settings_and_no_other(conf):
    expected = conf["settings"](book())
    assert {name: conf[name] for name in expected} == expected
    assert str(ROOT / "book/_ext") in sys.path
    with pytest.raises(KeyError, match="execute run_in_temp"):
        conf["settings"]({**book(), "execute": {"run_in_temp": True}})


def test_pages_are_the_same_on_every_python_and_sphinx(monkeypatch):
    nodes = pytest.importorskip("docutils.nodes")
    monkeypatch.syspath_prepend(ROOT / "book" / "_ext")
    mend_pages = importlib.import_module("mend_pages")
    context = {"body": "<em>pathlib._local.Path</em>"}
    mend_pages.mend(None, "book/api/classroom", "page.html", context, None)
    assert context["body"] == "<em>pathlib.Path</em>"
    page = nodes.container("", nodes.rubric("", "Title", level=3), nodes.rubric("", "No heading"))
    mend_pages.keep_levels(None, page, "book/catalogue")
    assert [node.get("heading-level") for node in page] == [3, None]


PAGE = (
    '<h1>Elsewhere</h1><article class="bd-article"><h1>One</h1>\n<p>Text of a <b>pa</b>ge.'
    '<img alt="A plot" src="a1.png"></p><div class="cell_output">42</div><table></table>'
    '<a href="b.html">there</a><div class="highlight"><pre>x = 1</pre></div>'
    "<script>let a = 1</script></article><p>Footer</p>"
)


def compared(tmp_path, capsys, *changes):
    page = PAGE
    for old, new in changes:
        page = page.replace(old, new)
    for site, text in (("a", PAGE), ("b", page)):
        (tmp_path / site / "_static").mkdir(parents=True)
        (tmp_path / site / "one.html").write_text(text)
    (tmp_path / "b/_static/template.html").write_text(PAGE)
    status = compare_builds.main(str(tmp_path / "a"), str(tmp_path / "b"))
    return status, capsys.readouterr().out.replace(str(tmp_path), "").splitlines()


def test_two_builds_with_the_same_content_do_not_differ(tmp_path, capsys):
    changes = ("a1.png", "b2.png"), ("<b>pa</b>ge", "p<i>age</i>"), ("Elsewhere", ""), ("let a", "")
    assert compared(tmp_path, capsys, *changes) == (0, ["1 pages, 0 differences"])


def test_what_differs_is_named(tmp_path, capsys):
    changes = [
        ("<h1>One</h1>", "<h2>One</h2>"), ("Text", "Word"), ('alt="A plot"', 'alt="None"'),
        ("cell_output", ""), ("<table></table>", ""), ("b.html", "c.html"), ("highlight", ""),
    ]  # fmt: skip
    said = [
        "-1 headings: h1 One", "+1 headings: h2 One", "-1 words: Text", "+1 words: Word",
        "-1 figures: A plot", "+1 figures: None", "-1 outputs: an output", "-1 code: a block",
        "-1 tables: a table", "-1 links: b.html", "+1 links: c.html",
    ]  # fmt: skip
    (tmp_path / "b").mkdir()
    (tmp_path / "b/two.html").write_text(PAGE)
    status, lines = compared(tmp_path, capsys, *changes)
    assert status == 1
    assert lines == ["two.html: only in /b", *(f"one.html: {line}" for line in said),
                     "1 pages, 12 differences"]  # fmt: skip
