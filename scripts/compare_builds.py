"""Say in what two builds of the book differ, page by page.

    python scripts/compare_builds.py _build/html _build/sphinx

Compared is what a reader gets inside a page: headings, words, figures by their alternative texts,
outputs, code, tables, and where links lead. Exit status 1 if anything differs.
"""

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

SHOWN = 3
EMPTY = {"img", "br", "hr", "input", "meta", "link", "source", "wbr", "col"}


class Article(HTMLParser):
    """Count what the article of a page holds."""

    def __init__(self, path: Path):
        super().__init__()
        kinds = ["headings", "words", "figures", "outputs", "code", "tables", "links"]
        self.found = {kind: Counter() for kind in kinds}
        self.inside, self.text, self.heading = [], [], 0  # the open tags of the article; its text
        self.feed(path.read_text(encoding="utf-8"))
        self.found["words"].update("".join(self.text).split())

    def handle_starttag(self, tag, attributes):
        """Note figures, outputs, code, tables and links."""
        told = dict(attributes)
        classes = (told.get("class") or "").split()
        if not self.inside and (tag != "article" or "bd-article" not in classes):
            return
        if tag not in EMPTY:
            self.inside.append(tag)
        if re.fullmatch(r"h\d", tag):
            self.heading = len(self.text)
        note = {
            "figures": tag == "img" and told.get("alt"),
            "outputs": "cell_output" in classes and "an output",
            "code": "highlight" in classes and "a block",
            "tables": tag == "table" and "a table",
            "links": tag == "a" and "headerlink" not in classes and told.get("href"),
        }
        for kind, what in note.items():
            if what:
                self.found[kind][what] += 1

    def handle_endtag(self, tag):
        """Go out of a tag, and of those in it that need no end; a heading is complete."""
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass
            if re.fullmatch(r"h\d", tag):
                title = " ".join("".join(self.text[self.heading :]).split())
                self.found["headings"][f"{tag} {title}"] += 1

    def handle_data(self, data):
        """Keep the text, without scripts and styles; highlighting cuts words into pieces."""
        if self.inside and self.inside[-1] not in {"script", "style"}:
            self.text.append(data)


def pages(site: Path) -> set[str]:
    """Return the pages of a built book, without the templates of its theme."""
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    return {name for name in names if not name.startswith("_static/")}


def differences(one: Path, other: Path):
    """Yield a line for each kind of thing in which two builds differ."""
    ours, theirs = pages(one), pages(other)
    for site, more in ((one, ours - theirs), (other, theirs - ours)):
        yield from (f"{name}: only in {site}" for name in sorted(more))
    for name in sorted(ours & theirs):
        a, b = Article(one / name).found, Article(other / name).found
        for kind in a:
            for sign, left in (("-", a[kind] - b[kind]), ("+", b[kind] - a[kind])):
                if left:
                    first = ", ".join(list(left)[:SHOWN])
                    yield f"{name}: {sign}{left.total()} {kind}: {first}"


def main(one: str, other: str) -> int:
    """Print all differences and how many pages there are."""
    found = list(differences(Path(one), Path(other)))
    print("\n".join([*found, f"{len(pages(Path(one)))} pages, {len(found)} differences"]))
    return int(bool(found))


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
