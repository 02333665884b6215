"""Settings for plain Sphinx: the way out of Jupyter Book 1.x, which holds Sphinx at version 7.

`make book-sphinx` uses them; Jupyter Book never reads this file. `_config.yml` is still the one
place of settings. Its words are translated here as Jupyter Book 1.x translates them, and a test
compares the two. A word that is not known here is an error.
"""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent
#: What Jupyter Book adds unasked, without its own extensions for live code, comments and LaTeX.
EXTENSIONS = [
    "sphinx_togglebutton",
    "sphinx_copybutton",
    "myst_nb",
    "sphinx_external_toc",
    "sphinx_design",
    "sphinx_book_theme",
    "sphinxcontrib.bibtex",
    "sphinx_multitoc_numbering",
]
ALWAYS = {
    "external_toc_path": "book/_toc.yml",
    "html_sourcelink_suffix": "",
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {"search_bar_text": "Search this book..."},
    "numfig": True,
}
#: Sphinx's names for the words of _config.yml; "theme:" is an option of the theme.
NAMES = {
    "title": "html_title",
    "author": "author",
    "copyright": "copyright",
    "logo": "html_logo",
    "execute execute_notebooks": "nb_execution_mode",
    "execute timeout": "nb_execution_timeout",
    "execute allow_errors": "nb_execution_allow_errors",
    "execute raise_on_error": "nb_execution_raise_on_error",
    "execute stderr_output": "nb_output_stderr",
    "parse myst_enable_extensions": "myst_enable_extensions",
    "html favicon": "html_favicon",
    "html baseurl": "html_baseurl",
    "html use_repository_button": "theme:use_repository_button",
    "html use_issues_button": "theme:use_issues_button",
    "html home_page_in_navbar": "theme:home_page_in_toc",
    "repository url": "theme:repository_url",
    "repository path_to_book": "theme:path_to_docs",
    "repository branch": "theme:repository_branch",
    "launch_buttons": "theme:launch_buttons",
    "bibtex_bibfiles": "bibtex_bibfiles",
}


def words(book: dict):
    """Yield each word of _config.yml, such as "execute timeout", and its value."""
    for part, value in book.items():
        if isinstance(value, dict) and part not in NAMES:
            yield from ((f"{part} {word}", inner) for word, inner in value.items())
        else:
            yield part, value


def settings(book: dict) -> dict:
    """Return Sphinx's settings for the settings of Jupyter Book."""
    own = book.pop("sphinx")
    theme = dict(ALWAYS["html_theme_options"])
    found = {**ALWAYS, "html_theme_options": theme}
    for word, value in words(book):
        name = NAMES[word]
        (theme if name.startswith("theme:") else found)[name.removeprefix("theme:")] = value
    theme.update(own["config"].pop("html_theme_options"))
    found["extensions"] = [*EXTENSIONS, *own["extra_extensions"], *own["local_extensions"]]
    return {**found, **own["config"]}


BOOK = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
sys.path += sorted({str(ROOT / folder) for folder in BOOK["sphinx"]["local_extensions"].values()})
globals().update(settings(BOOK))
