"""Sphinx extension: a page lets the reader answer its exercises.

Below each cell that calls `check("03-1", answer)` the page gets a box to type into. The answers
that `check` knows, and what it says to each, are computed while the book is built and travel with
the page, encoded so that nobody reads them by accident; `answers.js` judges as `check` does.
Nothing is sent anywhere. An exercise that asks for code or several names needs the notebook, and
its box says so.
"""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from docutils import nodes

ASKED = re.compile(r'^check\("(\d\d-\d)"', re.MULTILINE)
BOX = (
    '<form class="answer-box" data-exercise="{number}" data-known="{known}">'
    '<label for="answer-{number}">Your answer to {number}</label>'
    '<input id="answer-{number}" name="answer" autocomplete="off" autocapitalize="off" '
    'spellcheck="false"><button type="submit">Check</button>'
    '<output for="answer-{number}" aria-live="polite"></output></form>'
)
CODE = '<p class="answer-box">Exercise {number} is for the notebook: run its cell there.</p>'


def known(number: str) -> dict | None:
    """Return what a page has to know of an exercise, or None where it cannot judge."""
    from vcc_helpers.course import exercises

    exercise = exercises.find(number)
    answers = list(exercise.answers())
    right = answers[0][1]
    text = isinstance(right, str)
    if exercise.probe is not None or not (text or np.ndim(right) == 0):
        return None
    return {
        "text": text,
        "whole": isinstance(right, int) or hasattr(right, "dtype") and right.dtype.kind in "iu",
        "tolerance": exercise.tolerance,
        "answers": [
            [name == "right", one if text else float(one), exercise.words[name]]
            for name, one in answers
        ],
    }


def begin(app, env, docnames):
    """Start to compute the answers of these pages, next to the reading of all pages."""
    numbers = set()
    for name in docnames:
        if (path := Path(env.doc2path(name))).suffix == ".ipynb":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            numbers |= {one for c in cells for one in ASKED.findall("".join(c["source"]))}
    if numbers:
        command = [sys.executable, __file__, *sorted(numbers)]
        app.answers = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def answers(app) -> dict:
    """Return the answers, waiting for them once."""
    if isinstance(found := getattr(app, "answers", {}), subprocess.Popen):
        said, _ = found.communicate()
        if found.returncode:
            raise RuntimeError("the answers of the exercises could not be computed")
        app.answers = found = json.loads(said)
    return found


def put(app, doctree, docname):
    """Put a box in the place of what `check` said to an answer that is not there yet."""
    if app.builder.format != "html":
        return
    for cell in list(doctree.findall(nodes.container)):
        code = next((c for c in cell.children if "cell_input" in c.get("classes", [])), None)
        number = ASKED.search(code.astext()) if code is not None else None
        if number is None:
            continue
        facts = answers(app).get(number[1])
        encoded = base64.b64encode(json.dumps(facts).encode()).decode()
        html = (BOX if facts else CODE).format(number=number[1], known=encoded)
        cell.children[:] = [c for c in cell.children if "cell_output" not in c.get("classes", [])]
        cell.parent.insert(cell.parent.index(cell) + 1, nodes.raw("", html, format="html"))


def setup(app):
    """Compute while pages are read, and put the boxes in when they are written."""
    app.connect("env-before-read-docs", begin)
    app.connect("doctree-resolved", put)
    app.add_js_file("answers.js", loading_method="defer")
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}


if __name__ == "__main__":
    print(json.dumps({number: known(number) for number in sys.argv[1:]}))
