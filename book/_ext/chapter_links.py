"""Sphinx extension: in the reference, "Taught in: notebooks/12_mean_and_median" leads there."""

import re

CHAPTER = re.compile(r"(?:notebooks/)?((\d\d)_[a-z0-9_]+)")


def link_chapters(app, what, name, obj, options, lines):
    """Turn each chapter's file name into a link with its number."""
    here = False
    for i, line in enumerate(lines):
        here = line.strip().startswith("Taught in:") or (here and bool(line.strip()))
        if here:
            lines[i] = CHAPTER.sub(_link, line)


def _link(found):
    return f":doc:`chapter {int(found[2])} </notebooks/{found[1]}>`"


def setup(app):
    """Register before napoleon takes the docstring apart."""
    app.connect("autodoc-process-docstring", link_chapters, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
