"""The result of a file is kept in a folder, under a name made from the content of the cells.

Taught in: notebooks/11_scale_out.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from ..presets import SCORING_VERSION
from .blocks import stored_blocks
from .plan import Contrast, _Job
from .write import replacing

#: The rules that a contrast depends on; no others are in its key.
_ASKED = (
    *("target_sum", "dtype", "counts_only", "tolerance", "most_counts", "bulk_target_sum"),
    *("exact", "use_continuity"),
)
#: The fields of a :class:`~.stream.Contrast` that hold names.
_NAMES = ("groups", "genes", "control")


def place_of(job: _Job, cache: str | Path) -> Path:
    """Return where in a folder, which is made, the result of a job is kept."""
    folder = Path(cache)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is no folder; name another to keep in")
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"contrast-{_content_key(job)}.npz"


def save(path: Path, result: Contrast) -> None:
    """Keep a result."""
    tables = result._asdict()
    for name in _NAMES:  # as JSON: an array of objects would have to be pickled
        tables[name] = json.dumps(np.asarray(tables[name]).tolist())
    if path.is_symlink():  # the name is ours, and what it leads to is not
        path.unlink()
    with replacing(path) as part:
        np.savez(part, **tables)


def load(path: Path) -> Contrast | None:
    """Read what :func:`save` wrote; None if absent or damaged, as each array's checksum shows."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with path.open("rb") as file, np.load(file) as kept:
            if kept.zip.testzip() is not None:  # np.load ends with the last value it wants, and
                return None  # may never come to the checksum
            tables = {name: kept[name] for name in Contrast._fields}
        groups, genes, control = (json.loads(str(tables.pop(name))) for name in _NAMES)
    except Exception:  # a damaged archive raises any of a dozen errors
        return None
    groups, genes = (pd.Index(names, dtype=object) for names in (groups, genes))
    return Contrast(groups, genes, control, **tables)


def _content_key(job: _Job) -> str:
    """Hash all that the result depends on: version, cells, labels and rules."""
    found = hashlib.sha256()
    names = job.groups.tolist(), job.control, job.cells.var_names.tolist()
    asked = [SCORING_VERSION, *names, *(getattr(job.rules, rule) for rule in _ASKED)]
    found.update(json.dumps(asked).encode())
    found.update(job.codes.astype(np.int64).tobytes())
    found.update(_content_of(job.cells, job.path))
    if job.reference:
        found.update(job.reference.rows.tobytes())
        found.update(_content_of(job.reference.cells, job.reference.path))
    return found.hexdigest()[:32]


def _content_of(cells: anndata.AnnData, path: Path | None) -> bytes:
    if path and path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    found = hashlib.sha256()
    for _, block in stored_blocks(cells):
        rows = sparse.csr_matrix(block)
        for array in (rows.data, rows.indices, rows.indptr):
            found.update(str(array.dtype).encode())
            found.update(np.ascontiguousarray(array))
    return found.digest()
