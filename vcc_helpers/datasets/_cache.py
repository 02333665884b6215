"""Simulated worlds kept on disk: read again in a second, and never trusted blindly.

A stored world is one folder, named after everything that shapes it: sizes, seed, contexts, the
source of the simulation and the version of NumPy. Each of its files has a checksum. What does not
fit, or is damaged or half written, is drawn anew.

Taught in: book/calibration.

>>> folder_of({"seed": 0}) == folder_of({"seed": 0}) != folder_of({"seed": 1})
True
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np

from ..stream.write import write_cells
from ._world import World

#: What decides the cells, and what else decides how a world looks.
DRAWING = ("_recipe.py", "_cells.py")
SOURCES = (*DRAWING, "_simulate.py", "_cache.py")
INDEX = "index.json"


def cache_folder() -> Path:
    """Return where worlds are kept: ``VCC_CACHE``, else the user's cache folder."""
    if named := os.environ.get("VCC_CACHE"):
        return Path(named)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vcc_helpers"


def code(sources: tuple[str, ...]) -> str:
    """Return the checksum of source files beside this one, their docstrings left out."""
    here = Path(__file__).parent
    text = "".join(_undocumented((here / name).read_text(encoding="utf-8")) for name in sources)
    return hashlib.sha256(text.encode()).hexdigest()


def _undocumented(source: str) -> str:
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            text = node.body[0]
            n_lines = text.end_lineno - text.lineno + 1
            lines[text.lineno - 1 : text.end_lineno] = [""] * n_lines
    return "".join(lines)


def folder_of(wanted: dict) -> Path:
    """Return the folder of one world; `wanted` holds all that it is drawn with."""
    # files of a newer anndata or pandas may be unreadable to an older one
    versions = {name: version(name) for name in ("numpy", "anndata", "pandas")}
    key = json.dumps({**wanted, "code": code(SOURCES), "versions": versions}, sort_keys=True)
    return cache_folder() / f"world-{hashlib.sha256(key.encode()).hexdigest()[:20]}"


def load(wanted: dict) -> World | None:
    """Read a stored world; None where there is none, or where a file is not what was written."""
    folder = folder_of(wanted)
    try:
        if json.loads((folder / INDEX).read_text(encoding="utf-8")) != _checksums(folder):
            return None
        split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
        contexts, truth = (
            {name: anndata.read_h5ad(folder / f"{kind}-{i}.h5ad") for i, name in names}
            for kind, names in (
                (kind, list(enumerate(wanted["contexts"]))) for kind in ("cells", "truth")
            )
        )
    except (OSError, ValueError, KeyError):
        return None
    for cells in contexts.values():
        cells.X = cells.X.astype(np.float32)
    return World(contexts=contexts, split=split, truth=truth, seed=wanted["seed"])


def store(wanted: dict, world: World) -> None:
    """Keep a world; where the folder cannot be written, do nothing."""
    folder = folder_of(wanted)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder.parent)
        part = Path(tempfile.mkdtemp(prefix="unfinished-", dir=folder.parent))
    except OSError:
        return
    try:
        _write(part, world)
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been read
        part.replace(folder)
    except OSError:  # a full disk, or another process was quicker: the world is in memory anyway
        pass
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sweep(folder: Path) -> None:
    """Remove what runs that were killed left behind, an hour ago or more."""
    for left in folder.glob("unfinished-*"):
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)


def _write(folder: Path, world: World) -> None:
    for kind, parts in (("cells", world.contexts), ("truth", world.truth)):
        for i, cells in enumerate(parts.values()):
            kept = cells.copy()
            if kind == "cells" and kept.X.data.max(initial=0) < 2**16:
                kept.X = kept.X.astype(np.uint16)  # half the size, the same whole numbers
            write_cells(folder / f"{kind}-{i}.h5ad", kept)
    (folder / "split.json").write_text(json.dumps(world.split), encoding="utf-8")
    (folder / INDEX).write_text(json.dumps(_checksums(folder)), encoding="utf-8")


def _checksums(folder: Path) -> dict[str, str]:
    """Checksum of every file but the index: a changed index fits no folder."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != INDEX}


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
