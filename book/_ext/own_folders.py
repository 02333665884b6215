"""Sphinx extension: walk through the book's own folders only.

`include_patterns` says what a page is, but Sphinx looks for pages in every folder, and follows
links. An environment, a copy of the repository or a link to a disk of data would be searched.
"""

import re
from pathlib import Path

OWN = {"book", "notebooks"}


def leave_out_the_rest(app, config):
    """Exclude all else that is there; a pattern's special signs match any sign."""
    others = {path.name for path in Path(app.srcdir).iterdir() if path.is_dir()} - OWN
    patterns = [re.sub(r"[*?[]", "?", name) for name in sorted(others)]
    config.exclude_patterns = [*config.exclude_patterns, *patterns]


def setup(app):
    """Register for when the settings are read."""
    app.connect("config-inited", leave_out_the_rest)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
