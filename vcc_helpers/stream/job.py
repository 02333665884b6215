"""One file, and what is looked for in it: opened and counted, no value read.

Taught in: notebooks/12_scale_out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY
from ..presets import VCC2025, Preset
from .blocks import most_entries, stored_matrix
from .engine import n_threads
from .open import check_cells, labels_of, open_cells
from .shelf import _pieces_of


class Contrast(NamedTuple):
    """What scoring needs of a file.

    Attributes
    ----------
    groups, genes : Index
        Names of all groups, sorted, the control among them, and of the genes.
    control, n_cells
        The control's name, and the cells of each group, ``(n_groups,)``.
    mean, variance
        Pseudobulk: mean lognorm value and its variance between cells, ``(n_groups, n_genes)``,
        float32 (float64 where the file is). Sums are float64.
    mean_as_summed
        The mean once more, summed in the file's own precision as NumPy sums a row: the last digit
        of a fold change hangs on it.
    p_value
        Two-sided rank-sum p-value of each group but the control, ``(n_groups - 1, n_genes)``,
        float64.
    counts, scaled_mean, sampling
        Of counts, where the rules have a ``bulk_target_sum``, else without a row: their sum, the
        mean of the scaled values before the logarithm, and the sampling variance of
        ``log1p(bulk_target_sum * counts / counts.sum())``, ``(n_groups, n_genes)``, float64.
    """

    groups: pd.Index
    genes: pd.Index
    control: str
    n_cells: np.ndarray
    mean: np.ndarray
    variance: np.ndarray
    mean_as_summed: np.ndarray
    p_value: np.ndarray
    counts: np.ndarray
    scaled_mean: np.ndarray
    sampling: np.ndarray


class _Reference(NamedTuple):
    """Control cells of another file, and which rows they are."""

    cells: anndata.AnnData
    path: Path | None
    rows: np.ndarray


class _Job:
    """One file and what is asked of it.

    `codes` are the group of each cell, -1 for those left out, ``(n_cells,)``; `groups` their names
    and `control` the place of one of them; `n_cells` and `n_values` the cells of each group, and at
    most so many values above zero. `path` is the file where the cells are all of one, `stamp` what
    the files looked like at first, `reference` the controls where they come from another file.
    """

    def __init__(
        self,
        source,
        *,
        perturbation_key: str = PERTURBATION_KEY,
        control: str = CONTROL,
        threads: int | None = None,
        progress: bool = False,
        name: str = "cells",
        rules: Preset = VCC2025,
        controls=None,
    ):
        def opened(source, name: str, control: str | None) -> tuple:
            path = _path_of(source)
            stamp, cells = _stamp(path), open_cells(source)
            check_cells(cells, perturbation_key=perturbation_key, control=control, name=name)
            return stamp, labels_of(cells, perturbation_key), cells, path

        self.name, self.threads = name, n_threads(threads)
        self.progress, self.rules, self.reference = progress, rules, None
        here = None if controls is not None else control
        self.stamp, labels, self.cells, self.path = opened(source, name, here)
        if controls is not None:
            stamp, others, *found = opened(controls, "controls", None)  # no others need be there
            if control not in others:
                words = {"perturbation_key": perturbation_key, "control": control}
                check_cells(found[0], **words, name="controls")
            self.stamp += stamp
            self.reference = _Reference(*found, np.flatnonzero(others == control))
            self._check_reference()
        self.groups = pd.Index(sorted({*labels, control}), dtype=object)
        self.control, self.codes = self.groups.get_loc(control), self.groups.get_indexer(labels)
        if self.reference:
            self.codes[self.codes == self.control] = -1
        kept, n = self.codes >= 0, len(self.groups)
        self.n_cells = np.bincount(self.codes[kept], minlength=n)
        self.n_values = np.bincount(self.codes[kept], most_entries(self.cells)[kept], minlength=n)
        if self.reference:
            rows = self.reference.rows
            self.n_cells[self.control] = len(rows)
            self.n_values[self.control] = most_entries(self.reference.cells)[rows].sum()
        double = stored_matrix(self.cells).dtype.str[1:] == "f8"
        self.dtype = np.dtype(rules.dtype or ("f8" if double else "f4"))

    def _check_reference(self) -> None:
        """Raise unless the controls of another file can be held against these cells."""
        if not np.array_equal(self.reference.cells.var_names, self.cells.var_names):
            raise ValueError(
                f"controls: other genes than {self.name}; expected the same, in one order"
            )
        if self.rules.target_sum is None or not self.rules.counts_only:
            raise ValueError(
                "controls of another file need counts on both sides and one scale for all; "
                f"{self.rules.name} lacks counts_only or a target_sum"
            )

    def pieces(self, code: int) -> Iterator:
        """Take a group's rows from the matrix in memory, or from a file, a few at a time."""
        if self.reference and code == self.control:
            return _pieces_of(self.reference.cells, self.reference.rows)
        return _pieces_of(self.cells, np.flatnonzero(self.codes == code))

    def check_unchanged(self) -> None:
        """Raise if a file is no longer what it was when it was opened."""
        other = _stamp(self.reference.path) if self.reference else ()
        if _stamp(self.path) + other != self.stamp:
            raise ValueError(
                f"{self.name}: {self.path} was changed while it was read; wait until it is "
                "written, and run again"
            )


def _path_of(source: anndata.AnnData | str | Path) -> Path | None:
    if isinstance(source, str | Path):
        return Path(source).resolve()
    if not isinstance(source, anndata.AnnData):  # open_cells will tell
        return None
    return Path(source.filename).resolve() if source.isbacked and not source.is_view else None


def _stamp(path: Path | None) -> tuple:
    """Describe all files of a path, so that a change shows."""
    if path is None or not path.exists():
        return ()
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in files)
