"""Sphinx extension: the first time a page uses a word of the glossary, the word leads there.

Notebooks are plain Markdown, which Colab shows as it is: the links are made when the book is
built. The first sentence of the explanation shows when the pointer rests on the word.
"""

import re

from docutils import nodes
from sphinx import addnodes

GLOSSARY = "book/glossary"
#: Words that mostly mean something else, and words that a page of this book repeats for itself.
LEFT_OUT = {"cache", "chance", "counts", "DES", "MAE", "PDS", "shelf", "tie", "tile", "worker"}
#: Where a word is not running text.
ELSEWHERE = (nodes.reference, nodes.literal, nodes.literal_block, nodes.title, nodes.term)
ELSEWHERE += (nodes.math, addnodes.pending_xref, nodes.raw, nodes.table)


def explained(doctree) -> dict[str, tuple[str, str]]:
    """Return each word of the glossary with its anchor and first sentence."""
    words = {}
    for item in doctree.findall(nodes.definition_list_item):
        text = next(item.findall(nodes.definition)).astext().replace("\n", " ")
        for term in item.findall(nodes.term):
            words[term.astext()] = (term["ids"][0], re.split(r"(?<=[.:?!]) ", text)[0])
    return words


def pattern(words) -> re.Pattern:
    """Match a word, its plural, and either with a capital at the beginning of a sentence."""
    longest = sorted(words, key=len, reverse=True)
    forms = [f"[{word[0].upper()}{word[0]}]{re.escape(word[1:])}" for word in longest]
    return re.compile(rf"(?<![\w-])(?<!uality )({'|'.join(forms)})(s|es)?(?![\w-])")


def in_running_text(text) -> bool:
    """Whether a piece of text stands in a paragraph, outside of links, code and outputs."""
    around, node = [], text.parent
    while node is not None:
        around.append(node)
        node = node.parent
    outputs = any("cell_output" in node.get("classes", ()) for node in around[:-1])
    paragraph = any(isinstance(node, nodes.paragraph) for node in around)
    return paragraph and not outputs and not any(isinstance(node, ELSEWHERE) for node in around)


def link_words(app, doctree, docname):
    """Link the first use of each word on a page; a link that is there already counts."""
    if docname == GLOSSARY or GLOSSARY not in app.env.found_docs:
        return
    words = explained(app.env.get_doctree(GLOSSARY))
    find = pattern(words)
    address = app.builder.get_relative_uri(docname, GLOSSARY)
    left = set(words) - LEFT_OUT
    for link in doctree.findall(nodes.reference):
        if GLOSSARY.rpartition("/")[2] in link.get("refuri", ""):
            left -= {_entry(words, found[1]) for found in find.finditer(link.astext())}
    for text in list(doctree.findall(nodes.Text)):
        if not in_running_text(text):
            continue
        pieces, rest = [], str(text)
        for found in find.finditer(rest):
            word = _entry(words, found[1])
            if word in left:
                left.remove(word)
                pieces.append((found, *words[word]))
        if pieces:
            text.parent.replace(text, _linked(rest, pieces, address))


def _entry(words, seen: str) -> str:
    return seen if seen in words else seen[0].lower() + seen[1:]


def _linked(text: str, pieces, address: str) -> list[nodes.Node]:
    done, at = [], 0
    for found, anchor, sentence in pieces:
        done.append(nodes.Text(text[at : found.start()]))
        kw = {"internal": True, "refuri": f"{address}#{anchor}", "reftitle": sentence}
        link = nodes.reference(found[0], "", nodes.inline("", found[0]), **kw)
        link["classes"].append("glossary-word")
        done.append(link)
        at = found.end()
    return [*done, nodes.Text(text[at:])]


def setup(app):
    """Register for pages whose own links are resolved."""
    app.connect("doctree-resolved", link_words)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
