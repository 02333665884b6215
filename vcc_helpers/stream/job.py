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

from ..presets import VCC2025, Preset
from .blocks import most_entries, stored_matrix
from .engine import n_threads
from .open import check_cells, labels_of, open_cells
from .shelf import _pieces_of


class Contrast(NamedTuple):
    """What scoring needs of a file.

    Attributes
    ----------
    groups
        Names of all groups, sorted, the control among them, ``(n_groups,)``.
    genes
        Names of the genes, ``(n_genes,)``.
    control
        The control's name.
    n_cells
        Cells of each group, ``(n_groups,)``.
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
        Of counts, where the rules have a ``bulk_target_sum``, else without a row: their
        sum, the mean of the scaled values before the logarithm, and the sampling variance of
        ``log1p(bulk_target_sum * counts / counts.sum())``, ``(n_groups, n_genes)``, float64; the
        last is 0 for controls of another file.
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

    @classmethod
    def of(cls, source, *, perturbation_key: str, control: str) -> _Reference:
        cells = open_cells(source)
        check_cells(cells, perturbation_key=perturbation_key, control=control, name="controls")
        rows = np.flatnonzero(labels_of(cells, perturbation_key) == control)
        return cls(cells, _path_of(source), rows)

    def check(self, cells: anndata.AnnData, rules: Preset, name: str) -> None:
        """Raise unless these controls can be held against those cells."""
        if not np.array_equal(self.cells.var_names, cells.var_names):
            raise ValueError(f"controls: other genes than {name}; expected the same, in one order")
        if rules.target_sum is None or not rules.counts_only:
            raise ValueError(
                "controls of another file need counts on both sides and one scale for all; "
                f"{rules.name} lacks counts_only or a target_sum"
            )


class _Job(NamedTuple):
    """One file and what is asked of it.

    `codes` are the group of each cell, -1 for those left out, ``(n_cells,)``; `groups` their names
    and `control` the place of one of them; `n_cells` and `n_values` the cells of each group, and at
    most so many values above zero. `path` is the file where the cells are all of one, `stamp` what
    the files looked like before anything was read, `reference` where the controls come from if not
    from here.
    """

    cells: anndata.AnnData
    name: str
    path: Path | None
    codes: np.ndarray
    groups: pd.Index
    control: int
    n_cells: np.ndarray
    n_values: np.ndarray
    dtype: np.dtype
    threads: int
    progress: bool
    stamp: tuple
    rules: Preset
    reference: _Reference | None

    @classmethod
    def of(
        cls,
        source,
        *,
        perturbation_key: str,
        control: str,
        threads: int | None = None,
        progress: bool = False,
        name: str = "cells",
        rules: Preset = VCC2025,
        controls=None,
    ) -> _Job:
        """Open the cells, check labels and gene names, and count; no value is read."""
        stamp = _stamp(_path_of(source))
        cells, reference = open_cells(source), None
        keys = {"perturbation_key": perturbation_key}
        check_cells(cells, **keys, control=None if controls is not None else control, name=name)
        labels = labels_of(cells, perturbation_key)
        if controls is not None:
            stamp += _stamp(_path_of(controls))
            reference = _Reference.of(controls, **keys, control=control)
            reference.check(cells, rules, name)
        groups = pd.Index(sorted({*labels, control}), dtype=object)
        place, codes = int(groups.get_loc(control)), groups.get_indexer(labels)
        if reference:
            codes[codes == place] = -1
        kept = codes >= 0
        n_cells = np.bincount(codes[kept], minlength=len(groups))
        n_values = np.bincount(codes[kept], most_entries(cells)[kept], minlength=len(groups))
        if reference:
            n_cells[place] = len(reference.rows)
            n_values[place] = most_entries(reference.cells)[reference.rows].sum()
        return cls(
            cells=cells,
            name=name,
            path=_path_of(source),
            codes=codes,
            groups=groups,
            control=place,
            n_cells=n_cells,
            n_values=n_values,
            dtype=_precision(cells, rules),
            threads=n_threads(threads),
            progress=progress,
            stamp=stamp,
            rules=rules,
            reference=reference,
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


def _precision(cells: anndata.AnnData, rules: Preset) -> np.dtype:
    stored = stored_matrix(cells).dtype
    double = stored.kind == "f" and stored.itemsize == 8
    return np.dtype(rules.dtype or (np.float64 if double else np.float32))


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
