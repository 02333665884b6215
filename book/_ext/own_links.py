"""Sphinx extension: a notebook's link to this book's published address stays inside the book.

Notebooks name pages by their whole address, so that the links work on Colab, too. In the built book
they become relative: they work offline, on a fork, and before anything is published.
"""

from docutils import nodes
from sphinx.util import logging

logger = logging.getLogger(__name__)


def link_inside(app, doctree, docname):
    """Make links to our own pages relative; a page that does not exist is a warning."""
    base = app.config.html_baseurl
    if app.builder.format != "html" or not base:
        return
    for link in doctree.findall(nodes.reference):
        address, hash_, anchor = link.get("refuri", "").partition("#")
        if not (address.startswith(base) and address.endswith(".html")):
            continue
        page = address.removeprefix(base).removesuffix(".html")
        if page not in app.env.found_docs:
            logger.warning("no page of this book: %s", address, location=link)
            continue
        link["refuri"] = app.builder.get_relative_uri(docname, page) + hash_ + anchor
        link["internal"] = True


def setup(app):
    """Register before the words of the glossary are linked."""
    app.connect("doctree-resolved", link_inside, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
