"""Sphinx extension: mend what others write into every page.

Live code (thebe) is not offered, but its scripts come with the theme, twice, and a browser
complains of the second. Docutils gives a list of citations a role that its children do not fill.
The button that opens the pages below another one in the contents has no name, only an arrow.
MyST-Parser calls the level of a heading that code writes "level"; Sphinx looks for another word.
Sphinx 7 gives pathlib.Path the name of the module in which Python 3.13 keeps it.
"""

from functools import partial

from docutils import nodes

NAMED = '<summary aria-label="Show the pages below">'


def mend(app, pagename, templatename, context, doctree):
    """Leave out scripts that nothing uses, and a role that does not hold."""
    used = [script for script in context.get("script_files", []) if "thebe" not in _words(script)]
    context["script_files"] = used
    if body := context.get("body"):
        body = body.replace('role="list" class="citation-list"', 'class="citation-list"')
        context["body"] = body.replace("pathlib._local.", "pathlib.")
    if contents := context.get("generate_toctree_html"):
        context["generate_toctree_html"] = partial(_named, contents)


def keep_levels(app, doctree, docname):
    """Let headings that code writes be headings."""
    for node in doctree.findall(nodes.rubric):
        if "level" in node:
            node["heading-level"] = node["level"]


def _named(contents, kind, **kw):
    found = contents(kind, **kw)
    return found if kind == "raw" or found is None else str(found).replace("<summary>", NAMED)


def _words(script) -> str:
    inside = getattr(script, "attributes", {}).get("body") or ""
    return f"{getattr(script, 'filename', script)} {inside}".lower()


def setup(app):
    """Register after all that add scripts."""
    app.connect("html-page-context", mend, priority=950)
    app.connect("doctree-resolved", keep_levels)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
