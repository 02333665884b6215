"""What is finished is kept in a folder, under a name made from the content of the cells.

Taught in: notebooks/12_scale_out.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from ..presets import SCORING_VERSION
from .blocks import stored_blocks
from .job import Contrast, _Job
from .sums import _Sums
from .write import replacing

#: The rules that a contrast depends on; no others are in its key.
_ASKED = (
    "target_sum",
    "dtype",
    "counts_only",
    "tolerance",
    "most_counts",
    "bulk_target_sum",
    "exact",
    "use_continuity",
)
#: The fields of a :class:`~.stream.Contrast` that hold names.
NAMES = ("groups", "genes", "control")


class _Keeper:
    """Keeps what is finished in a folder, or, without one, nothing.

    The name of what is kept comes from the version, the content of the cells and the rules.
    """

    def __init__(self, job: _Job, cache: str | Path | None):
        self.folder, self.job = Path(cache) if cache else None, job
        self.found: dict[int, _Sums] = {}
        if self.folder:
            if self.folder.exists() and not self.folder.is_dir():
                raise NotADirectoryError(f"{self.folder} is no folder; name another to keep in")
            self.folder.mkdir(parents=True, exist_ok=True)
            self.path = self.folder / f"contrast-{_content_key(job)}.npz"
            self.parts = self.path.with_suffix(".parts")

    def result(self) -> Contrast | None:
        """Return the whole result, if it is there and sound."""
        kept = _load(self.path, Contrast._fields) if self.folder else None
        if kept is None:
            return None
        groups, genes, control = (json.loads(str(kept.pop(name))) for name in NAMES)
        groups, genes = (pd.Index(names, dtype=object) for names in (groups, genes))
        return Contrast(groups, genes, control, **kept)

    def keep(self, result: Contrast) -> Contrast:
        """Keep the whole result in place of its parts."""
        if self.folder:
            tables = result._asdict()
            for name in NAMES:  # as JSON: an array of objects would have to be pickled
                tables[name] = json.dumps(np.asarray(tables[name]).tolist())
            _save(self.path, tables)
            shutil.rmtree(self.parts, ignore_errors=True)
        return result

    def finished(self, n_genes: int) -> list[int]:
        """Return the groups of which nothing is missing when so many genes are looked at together.

        They are held: who leaves out their cells must not miss them later, when the file is gone.
        """
        if self.folder and n_genes == self.job.cells.n_vars:
            found = {c: self.load(c, slice(0, n_genes)) for c in range(len(self.job.groups))}
            self.found = {code: sums for code, sums in found.items() if sums is not None}
        return list(self.found)

    def load(self, code: int, genes: slice) -> _Sums | None:
        """Return what an earlier run found for a group."""
        if code in self.found:
            return self.found[code]
        kept = _load(self._part(code, genes), _Sums._fields) if self.folder else None
        return _Sums(**kept) if kept else None

    def save(self, code: int, genes: slice, sums: _Sums) -> _Sums:
        """Keep what was found for a group."""
        if self.folder:
            # another process that is done may remove the parts at any moment
            with suppress(FileNotFoundError, FileExistsError):
                self.parts.mkdir(exist_ok=True)
                _save(self._part(code, genes), sums._asdict())
        return sums

    def _part(self, code: int, genes: slice) -> Path:
        return self.parts / f"{code}-{genes.start}-{genes.stop}.npz"


def _save(path: Path, arrays: dict) -> None:
    with replacing(path) as part:
        np.savez(part, **arrays)


def _load(path: Path, names: tuple[str, ...]) -> dict | None:
    """Read what :func:`_save` wrote; None if absent or damaged, as each array's checksum shows."""
    try:
        with path.open("rb") as file, np.load(file) as kept:
            if kept.zip.testzip() is None:  # np.load ends with the last value it wants, and may
                return {name: kept[name] for name in names}  # never come to the checksum
    except Exception:  # a damaged archive raises any of a dozen errors
        pass
    return None


def _content_key(job: _Job) -> str:
    """Hash all that the result depends on: version, cells, labels and rules."""
    found = hashlib.sha256()
    names = job.groups.tolist(), job.control, job.cells.var_names.tolist()
    asked = [SCORING_VERSION, *names, *(getattr(job.rules, rule) for rule in _ASKED)]
    found.update(json.dumps(asked).encode())
    found.update(job.codes.astype(np.int64).tobytes())
    _hash_values(found, job.cells, job.path)
    if job.reference:
        found.update(job.reference.rows.tobytes())
        _hash_values(found, job.reference.cells, job.reference.path)
    return found.hexdigest()[:32]


def _hash_values(found, cells: anndata.AnnData, path: Path | None) -> None:
    if path and path.is_file():
        with path.open("rb") as file:
            while chunk := file.read(2**24):
                found.update(chunk)
        return
    for _, block in stored_blocks(cells):
        rows = sparse.csr_matrix(block)
        for array in (rows.data, rows.indices, rows.indptr):
            found.update(str(array.dtype).encode())
            found.update(np.ascontiguousarray(array))
