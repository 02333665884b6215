"""The words that go: CONTRIBUTING.md lists them, and nothing that readers meet has one."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT

_WHAT = "cells?|guides?|genes?|rows?|columns?|values|lines|numbers?|one|results?|points?"
_ONE = "target|cell|gene|guide|perturbation|group|context|knock-?out|metric|split|row|column|day"
#: A row of the table in CONTRIBUTING.md, and the pattern that finds it and leaves good uses alone.
WORDS = {
    "beside": r"\bbeside\b",
    "stands, stands for": r"\bstands?\b(?!-in|[- ]alone|\sout\b)",
    "deal, dealt": r"(?<!great )(?<!good )\b(deals?|dealt|dealing)\b(?!\swith\b)",
    "mend": r"\bmend(s|ed|ing|able)?\b",
    "sure, surely": r"(?<!make )(?<!makes )(?<!made )\bsure(ly|r)?\b",
    "asked for": r"(?<!not )\basked (for|about)\b|\b(is|are|was|be) asked\b(?! (to|whether)\b)",
    "cells a target": rf"(\b({_WHAT})|[\d%])(?-i: a )({_ONE})\b",
    "above, below the baseline": r"\b(above|below) the ((mean|official) )?baseline",
    "split-half ceiling, half against half": r"\bsplit-half ceiling|\bhalf against half\b",
    "hardly": r"\bhardly\b",
    "whoever": r"\bwhoever\b",
    "for want of, of late, the way of": r"\b(for want of|of late|the way of)\b",
}
#: Good uses that the patterns take for bad ones.
GOOD = [
    "refused, mended",  # two attributes of a problem, as numpydoc lists them
]
#: Files that are being rewritten. The list gets shorter, never longer.
NOT_YET = []


def of_code(source: str, *, comments: str) -> str:
    """Return the text in strings that are no mere names, and in comments that match."""
    found = re.findall(rf"(?:^|\s){comments}(?=\s)(.*)", source, flags=re.MULTILINE)
    for node in ast.walk(ast.parse(source)):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        text = [part.value if isinstance(part, ast.Constant) else "{}" for part in parts]
        if isinstance(node, ast.JoinedStr | ast.Constant) and " " in "".join(map(str, text)):
            found.append(re.sub(r":\w+:`[^`]*`|``[^`]*``", "", "".join(map(str, text))))
    return " ¶ ".join(found)


def of_markdown(text: str) -> str:
    """Return the text without code and addresses; of code that runs or is copied, its text."""

    def keep(fence: re.Match) -> str:
        if not re.match(r"python|\{code-cell\}", fence[1]):
            return fence[2] if fence[1].startswith("{") else ""
        head = re.match(r"---.*?^---$|(:[^\n]*\n)*", fence[2], flags=re.MULTILINE | re.DOTALL)[0]
        return head + of_code(fence[2][len(head) :], comments="#")

    text = re.sub(r"^```(\S*)[^\n]*\n(.*?)^```$", keep, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`|\]\([^)]*\)|https?://\S+", "", text)


def prose(path: Path) -> str:
    """Return what readers see of a file."""
    if path.suffix == ".py":
        return of_code(path.read_text(encoding="utf-8"), comments="#:")
    if path.suffix == ".md":
        return of_markdown(path.read_text(encoding="utf-8").partition("| goes |")[0])
    seen = []
    for cell in nbformat.read(path, as_version=4).cells:
        code = cell.cell_type == "code"
        seen.append(of_code(cell.source, comments="#") if code else of_markdown(cell.source))
        seen.append(cell.metadata.get("mystnb", {}).get("image", {}).get("alt", ""))
    return "\n\n".join(seen)


def found(path: Path) -> list[str]:
    """Return each bad use with the words around it."""
    text = re.sub(r"\s+", " ", prose(path))
    text = re.sub("|".join(GOOD), "", text)
    hits = [hit for pattern in WORDS.values() for hit in re.finditer(pattern, text, re.IGNORECASE)]
    return [text[max(0, hit.start() - 40) : hit.end() + 30] for hit in hits]


READ = ["README.md", "CONTRIBUTING.md", "book/*.md", "notebooks/*.ipynb"]
READ += ["vcc_helpers/**/*.md", "vcc_helpers/**/*.py"]
FILES = sorted(path.relative_to(ROOT).as_posix() for name in READ for path in ROOT.glob(name))


@pytest.mark.parametrize("name", FILES)
def test_no_word_that_goes(name, request):
    if name in NOT_YET:
        request.applymarker(pytest.mark.xfail(reason="it is being rewritten"))
    assert not found(ROOT / name)


def test_the_table_lists_the_words_that_are_looked_for():
    lines = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("| goes |")[2]
    rows = [line.split("|") for line in lines.partition("\n\n")[0].splitlines()[2:]]
    assert [row[1].strip() for row in rows] == list(WORDS) and all(row[2].strip() for row in rows)
    assert set(NOT_YET) <= set(FILES)


@pytest.mark.parametrize(("text", "bad"), [
    ("Two cells a target beside a mean that\nstands for half", 3), ("a cell", 0),
    ("The method stands out, a stand-in, and deals with it", 0), ("Make sure; a great deal", 0),
    ("`mended` is code, and [so](beside.md)", 0), ("Mend it.", 1),
    ("the cells that are asked\nfor; not asked for", 1), ("He was asked whether it is above 0.", 0),
    ("```python\nsure = 'is it sure'  # for want of\n```", 2), ("```sh\nbeside\n```", 0),
    ("```{code-cell}\n:tags: [x]\nbeside = 'beside'\n```\n```{note}\nDeal again.\n```", 1),
    ("one gene a cell, 400 cells a\ntarget; it gives each a target", 2),
])  # fmt: skip
def test_good_uses_are_let_pass(text, bad, tmp_path):
    (tmp_path / "page.md").write_text(text, encoding="utf-8")
    assert len(found(tmp_path / "page.md")) == bad


def test_strings_are_read_in_one_piece_and_names_of_code_are_not(tmp_path):
    code = 'x = ("30 cells "\n "a target", f"{n} cells a {word}", "mend", "see :func:`mend` it")'
    (tmp_path / "code.py").write_text(code + "\n#: Stands here.\n# dealt\n", encoding="utf-8")
    assert len(found(tmp_path / "code.py")) == 2
