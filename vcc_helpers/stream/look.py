"""One look at the values of any size: can they be scored, what may be wrong, how deep is each cell?

:func:`inspect_values` ends at the first value that cannot be scored; :func:`scan` notes all that
may be wrong with a prediction.

Taught in: notebooks/09_work_with_large_files, notebooks/07_quality_and_knockdown and
notebooks/06_check_and_pack.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> inspect_values(cells).scale
'counts'
>>> qc_table(cells, columns=["batch"]).columns.tolist()
['depth', 'n_genes', 'batch']
>>> sample_cells(cells, at_most=10).shape
(60, 1000)
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..counts import (
    EXACT_IN_FLOAT32,
    FRACTION_TOLERANCE,
    ValueSummary,
    refuse_too_large,
    refuse_unsound,
    summarize,
    too_large,
)
from .blocks import is_csr_file, row_blocks, stored_blocks, take_cells, value_stretches
from .open import empty_problem, labels_of, open_cells

#: A value this near to a whole number may be one, with noise.
NEARLY = 0.01


class _Looked(NamedTuple):
    """What the values of some cells are like, ``(n_rows,)`` each, float64; see ``_Scan``."""

    total: np.ndarray
    filled: np.ndarray
    fractional: np.ndarray
    nearly_whole: np.ndarray
    bad: np.ndarray
    smallest: np.ndarray
    largest: np.ndarray


def _look(values, indptr, tolerance: float | None) -> tuple[_Looked, bool]:
    """Look at every value of some rows, in any thread; tell, too, whether all are whole."""
    from . import _kernels  # compiled code; half a second that imports need not pay

    tolerance = values.dtype.type(FRACTION_TOLERANCE if tolerance is None else tolerance)
    table = np.zeros((len(indptr) - 1, len(_Looked._fields)))
    whole = _kernels.look_over(values, indptr, np.float64(tolerance), NEARLY, table)
    return _Looked(*table.T), whole


def _rows(block) -> tuple[np.ndarray, np.ndarray]:
    """Return values and row pointer of a block."""
    if sparse.issparse(block):
        return block.data, block.indptr
    return np.ascontiguousarray(block).ravel(), np.arange(block.shape[0] + 1) * block.shape[1]


def inspect_values(
    cells: anndata.AnnData,
    *,
    name: str = "cells",
    progress: bool = False,
    tolerance: float | None = None,
) -> ValueSummary:
    """Read every value once: are these counts or log-normalised values, and are they sound?

    Returned are the scale, and the library size of each cell. A value is fractional if it is
    further than `tolerance` from a whole number, 1e-3 by default. The rule is that of cell-eval
    0.6.6: a file is counts when no value is fractional. It also refuses negative integers and NaN,
    which that version lets through. A ValueError says, too, that there is no cell or no gene; that
    the sum of a cell is too large for its type; or that there are fractional values and one of 15
    or more, as when counts and log values are mixed.
    """
    if 0 in cells.shape:
        raise ValueError(empty_problem(cells, name))
    inspection = Inspection(cells, name=name, tolerance=tolerance)
    with tqdm(total=cells.n_obs, unit=" cells", desc="inspect", disable=not progress) as bar:
        if is_csr_file(cells) and (found := _inspect_whole(cells, bar)):
            return found
        for start, block in row_blocks(cells):
            inspection.add(*inspection.look(start, block))
            bar.update(block.shape[0])
    return inspection.summary()


def _inspect_whole(cells: anndata.AnnData, bar: tqdm) -> ValueSummary | None:
    """Inspect a CSR file of whole numbers by its values alone; None for all else.

    Repeated entries need no care: sums of whole numbers that are not negative are so too.
    """
    library_size = np.zeros(cells.n_obs)
    for start, values, indptr in value_stretches(cells):
        seen, whole = _look(values.astype(float_type(values.dtype), copy=False), indptr, None)
        if not whole or seen.bad.any() or seen.largest.max() > EXACT_IN_FLOAT32:
            bar.reset()
            return None
        library_size[start : start + len(seen.total)] = seen.total
        bar.update(len(seen.total))
    return ValueSummary("counts", library_size)


class Inspection:
    """Does :func:`inspect_values` for a caller that reads the blocks anyway."""

    def __init__(
        self, cells: anndata.AnnData, *, name: str = "cells", tolerance: float | None = None
    ):
        self.cells, self.name, self.tolerance = cells, name, tolerance
        self.fractional, self.largest, self.library_size = False, 0.0, np.zeros(cells.n_obs)

    def look(self, start: int, block) -> tuple[float, bool, bool]:
        """Look at one block, in any thread, and note the library sizes of its cells.

        Returns the largest value, whether one is fractional, and whether all are whole.
        """
        (seen, whole), names = _look(*_rows(block), self.tolerance), self.cells.obs_names[start:]
        if seen.bad.any():
            refuse_unsound(block, names, self.cells.var_names, name=self.name)
        refuse_too_large(seen.total, block.dtype, names, name=self.name)
        self.library_size[start : start + block.shape[0]] = seen.total
        return max(seen.largest.max(), 0), seen.fractional.any(), whole

    def add(self, largest: float, fractional: bool, whole: bool) -> None:
        """Take in what :meth:`look` found."""
        self.largest, self.fractional = max(self.largest, largest), self.fractional or fractional

    def summary(self) -> ValueSummary:
        """Return what was found, if it has one scale."""
        return summarize(bool(self.fractional), self.largest, self.library_size, name=self.name)


class _Scan(NamedTuple):
    """What :func:`scan` saw.

    `of_cells` is a table with a row per cell, by its number: ``total``, ``filled``, ``fractional``,
    ``nearly_whole`` and ``bad`` (how many values are not zero, have a fraction, lie within 0.01 of
    a whole number, are negative or not finite), ``smallest``, ``largest`` (of the finite ones,
    infinite if there is none), ``signature`` (equal cells have equal ones). `group_total` is the
    sum over the cells of each group, ``(n_groups, n_genes)``; the last row is of the cells without
    a group. `n_stored` values are stored in CSR, zeros of a sparse file among them. `bad` has by
    kind (``"NaN"``, ``"infinite"``, ``"negative"``, ``"too large"`` for those of a cell whose sum
    its type cannot hold) row and column of the first.
    """

    of_cells: pd.DataFrame
    group_total: np.ndarray
    n_stored: int
    bad: dict[str, tuple[int, int]]


def scan(
    cells: anndata.AnnData,
    groups: np.ndarray,
    *,
    tolerance: float | None = None,
    single: bool = False,
    progress: bool = False,
) -> _Scan:
    """Look at every value once; `groups` number each cell's group, -1 for none, ``(n_cells,)``.

    `single` says that values are looked at as float32 has them.
    """
    from . import _kernels

    weights = np.random.default_rng(0).random(cells.n_vars)
    table, signature = np.zeros((cells.n_obs, len(_Looked._fields))), np.zeros(cells.n_obs)
    group_total = np.zeros((int(groups.max(initial=-1)) + 2, cells.n_vars))
    n_stored, bad = 0, {}
    with tqdm(total=cells.n_obs, unit=" cells", desc="check", disable=not progress) as bar:
        for start, block in stored_blocks(cells):
            rows = slice(start, start + block.shape[0])
            block = as_csr(block.astype(np.float32, copy=False) if single else block)
            n_stored += block.nnz
            seen, _ = _look(block.data, block.indptr, tolerance)
            table[rows] = np.transpose(seen)
            entries = block.data, block.indices, block.indptr
            _kernels.mark(*entries, groups[rows], weights, signature[rows], group_total)
            large = too_large(seen.total, block.dtype)
            if seen.bad.any() or large.any():
                _note_bad(bad, block, start, large)
            bar.update(block.shape[0])
    of_cells = pd.DataFrame(table, columns=_Looked._fields).assign(signature=signature)
    return _Scan(of_cells, group_total, n_stored, bad)


def as_csr(block: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix:
    """Return a block of rows in CSR, in float32 or float64, whichever holds it exactly."""
    return sparse.csr_matrix(block.astype(float_type(block.dtype), copy=False))


def float_type(dtype: np.dtype) -> np.dtype:
    """Return float32, or float64 where that is needed to hold the values exactly."""
    wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float64 if wide else np.float32)


def _note_bad(bad: dict, block: sparse.csr_matrix, first_row: int, large: np.ndarray) -> None:
    v = block.data
    kinds = {"NaN": np.isnan(v), "infinite": np.isinf(v), "negative": np.isfinite(v) & (v < 0)}
    kinds["too large"] = np.repeat(large, np.diff(block.indptr))
    for kind, places in kinds.items():
        if kind not in bad and places.any():
            entry = int(np.flatnonzero(places)[0])
            row = int(np.searchsorted(block.indptr, entry, side="right")) - 1
            bad[kind] = (first_row + row, int(block.indices[entry]))


def qc_table(
    cells: anndata.AnnData | str | Path,
    *,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Measure each cell: how many molecules were counted, of how many genes.

    `cells` are counts, since log-normalised values have no depth. Returned is a table, index cell
    names: ``depth``, the sum of the cell's counts, float64; ``n_genes``, the number of genes with a
    count above 0; and `columns` of ``obs``, such as the batch.
    """
    cells = open_cells(cells)
    if missing := [name for name in columns if name not in cells.obs]:
        raise KeyError(f"obs has no column {some_of(missing)}; it has {some_of(cells.obs.columns)}")
    depth, n_genes = np.empty(cells.n_obs), np.empty(cells.n_obs, dtype=np.int64)
    for start, block in row_blocks(cells):
        rows = slice(start, start + block.shape[0])
        seen, _ = _look(*_rows(block), None)
        if seen.bad.any():
            refuse_unsound(block, cells.obs_names[rows], cells.var_names)
        depth[rows], n_genes[rows] = seen.total, seen.filled
    beside = {name: cells.obs[name].array for name in columns}
    return pd.DataFrame({"depth": depth, "n_genes": n_genes, **beside}, index=cells.obs_names)


def sample_cells(
    cells: anndata.AnnData | str | Path,
    *,
    at_most: int = 100,
    controls: int | None = None,
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> anndata.AnnData:
    """Draw some cells of each perturbation, to do in memory what needs single cells.

    `at_most` cells of each perturbation are drawn, all of one that has fewer; of the control
    `controls` cells, by default as many. Another `seed` draws other cells. Only the rows drawn are
    read. Returned is an AnnData in memory, ``(n_drawn, n_genes)``, rows in the order of `cells`,
    ``X`` floating, with ``obs``, ``var`` and ``uns``. A ValueError says, too, that a number is
    negative or nothing is drawn.

    The draw within a perturbation depends on its name, its number of cells and the seed alone: a
    file and its sorted copy give the same cells, and other perturbations make no difference.
    """
    cells = open_cells(cells)
    controls = at_most if controls is None else controls
    if min(at_most, controls) < 0 or max(at_most, controls) < 1:
        raise ValueError(f"expected some cells to draw, got at_most={at_most}, controls={controls}")
    members = pd.Series(range(cells.n_obs)).groupby(labels_of(cells, perturbation_key)).indices
    for name, rows in members.items():
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        n = min(len(rows), controls if name == control else at_most)
        members[name] = rows if n == len(rows) else rng.choice(rows, n, replace=False)
    return take_cells(cells, np.sort(np.concatenate([*members.values()])))
