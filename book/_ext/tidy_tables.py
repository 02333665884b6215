"""Sphinx extension: tables that code shows read well on a page.

A name of the index moves into the first row of the head, where it names its column; a missing
number is a dash; and every table gets a frame, which scrolls where the table is wider: `tables.js`.
"""

import re

from docutils import nodes

TABLE = re.compile(r"<table\b.*?</table>", re.DOTALL)
HEAD = re.compile(r"<thead>(.*?)</thead>", re.DOTALL)
ROW = re.compile(r"<tr\b[^>]*>.*?</tr>", re.DOTALL)
CELL = re.compile(r"(<th\b[^>]*>)(.*?)(</th>)", re.DOTALL)
MISSING = re.compile(r"(<td\b[^>]*>)\s*(?:NaN|nan|None|&lt;NA&gt;|NaT)\s*(</td>)")
BLANK = ("", "&nbsp;")
FRAME = '<div class="table-frame"><div>{}</div></div>'


def tidied(table: str) -> str:
    """Return the HTML of a table of pandas with one head, dashes and a frame."""
    if head := HEAD.search(table):
        table = table.replace(head[1], one_head(head[1]))
    return FRAME.format(MISSING.sub(r"\1–\2", table))


def one_head(head: str) -> str:
    """Write the names of the index, if they have a row of their own, into the row above."""
    rows = ROW.findall(head)
    if len(rows) != 2:
        return head
    above, names = (CELL.findall(row) for row in rows)
    levels = [text.strip() for _, text, _ in names]
    n = next((i for i, text in enumerate(levels) if text in BLANK), len(levels))
    if not n or any(text not in BLANK for text in levels[n:]) or len(above) != len(names):
        return head
    if any(text.strip() not in BLANK for _, text, _ in above[: n - 1]):
        return head
    named = iter([*levels[:n], *(text for _, text, _ in above[n:])])
    return CELL.sub(lambda cell: cell[1] + next(named) + cell[3], rows[0])


def tidy(app, doctree, docname):
    """Tidy every table that code wrote as HTML."""
    for node in doctree.findall(nodes.raw):
        text = node.astext()
        own = 'class="vcc-' in text  # a board, a figure: it has its own look
        if node.get("format") == "html" and "<table" in text and not own:
            text = TABLE.sub(lambda table: tidied(table[0]), text)
            node.children[:] = [nodes.Text(text)]
            node.rawsource = text


def setup(app):
    """Register once the pages are whole."""
    app.connect("doctree-resolved", tidy)
    app.add_js_file("tables.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
