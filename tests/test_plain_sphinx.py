"""The way out of Jupyter Book: conf.py makes of _config.yml what Jupyter Book makes of it."""

import importlib
import runpy
import sys

import compare_builds
import pytest
import yaml
from conftest import ROOT

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


PAGE = '<article class="bd-article"><h1>One</h1> <p>Text</p><img alt="A" src="a1.png"></article>'


def test_two_builds_are_compared_by_their_content(tmp_path, capsys):
    """A picture's file may have another name; words, headings and figures may not differ."""
    for site, page in (("a", PAGE), ("b", PAGE.replace("a1.png", "b2.png"))):
        (tmp_path / site).mkdir()
        (tmp_path / site / "one.html").write_text(page)
    sites = str(tmp_path / "a"), str(tmp_path / "b")
    assert compare_builds.main(*sites) == 0
    (tmp_path / "b/one.html").write_text(PAGE.replace("h1>", "h2>").replace("Text", "Word"))
    (tmp_path / "b/two.html").write_text(PAGE)
    assert compare_builds.main(*sites) == 1
    told = capsys.readouterr().out
    for line in ("two.html: only in", "-1 headings: h1 One", "+1 words: Word", "5 differences"):
        assert line in told, told
