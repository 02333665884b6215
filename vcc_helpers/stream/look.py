"""Passes over the values of any size: can they be scored, what may be wrong, how deep is each cell?

:func:`inspect_values` says whether values can be scored, and ends at the first that cannot.
:func:`scan` says all that may be wrong with a prediction, so that nothing found ends the pass.
:func:`qc_table` gives figures for each cell, :func:`sample_cells` a sample that fits the memory.

Taught in: notebooks/02_from_counts_to_effects, notebooks/03_quality_and_knockdown and
notebooks/17_check_and_pack.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> inspect_values(cells).scale
'counts'
>>> seen = scan(cells, np.zeros(cells.n_obs, dtype=int))
>>> int(seen.of_cells["fractional"].sum()), int(seen.of_cells["largest"].max())
(0, 1146)
>>> qc_table(cells, columns=["batch"]).columns.tolist()
['depth', 'n_genes', 'batch']
>>> sample_cells(cells, at_most=10).shape
(60, 1000)
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..counts import EXACT_IN_FLOAT32, FRACTION_TOLERANCE, ValueSummary, refuse_unsound, summarize
from .blocks import (
    is_csr_file,
    row_blocks,
    stored_blocks,
    take_cells,
    value_stretches,
)
from .open import _empty_message, labels_of, open_cells

#: A value this near to a whole number may be one, with noise.
NEARLY = 0.01
#: Cells of each block by which the scale of logarithms is judged.
_SAMPLED_ROWS = 64
#: Columns of :attr:`Scan.of_cells`.
_OF_CELLS = [
    *("total", "signature", "filled", "fractional", "nearly_whole", "bad"),
    *("smallest", "largest"),
]
#: What the values may be logarithms to, as log(1 + x).
_BASES = {"e": np.expm1, "2": lambda v: np.exp2(v) - 1, "10": lambda v: 10.0**v - 1}


def inspect_values(
    cells: anndata.AnnData,
    *,
    name: str = "cells",
    progress: bool = False,
    tolerance: float | None = None,
) -> ValueSummary:
    """Read every value once: are these counts or log-normalised values, and are they sound?

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``.
    name
        What the messages call this file.
    progress
        Show a progress bar.
    tolerance
        A value is fractional if it is further from a whole number; 1e-3 by default.

    Returns
    -------
    ValueSummary
        The scale, and the library size of each cell.

    Raises
    ------
    ValueError
        There is no cell or no gene; a value is NaN, infinite or negative; or the file has
        fractional values and one of 15 or more, as when counts and log values are mixed.

    Notes
    -----
    The rule is that of cell-eval 0.6.6: a file is counts when no value has a fractional part
    above 1e-3. It also refuses negative integers and NaN, which that version lets through.

    Of a CSR file whose values are whole, only these are read, not the gene numbers.
    """
    if 0 in cells.shape:
        raise ValueError(_empty_message(cells, name))
    with tqdm(total=cells.n_obs, unit=" cells", desc="inspect", disable=not progress) as bar:
        return _inspect_whole(cells, bar) or _inspect_any(cells, name, bar, tolerance)


def _inspect_whole(cells: anndata.AnnData, bar: tqdm) -> ValueSummary | None:
    """Inspect a CSR file of whole numbers; None for all else, where more must be looked at.

    Repeated entries need no care: sums of whole numbers that are not negative are so too.
    """
    if not is_csr_file(cells):
        return None
    library_size = np.zeros(cells.n_obs)
    for start, values, indptr in value_stretches(cells):
        if not _all_whole(values):
            bar.reset()
            return None
        if len(filled := np.flatnonzero(np.diff(indptr))):
            sums = np.add.reduceat(values, indptr[filled], dtype=np.float64)
            library_size[start + filled] = sums
        bar.update(len(indptr) - 1)
    return ValueSummary("counts", library_size)


def _all_whole(values: np.ndarray) -> bool:
    """Whether all are whole, finite, not negative and exact in float32."""
    if values.size and not (values.min() >= 0 and values.max() <= EXACT_IN_FLOAT32):
        return False
    parts = (values[i : i + 2**16] for i in range(0, len(values), 2**16))  # fit the cache
    exact = not np.issubdtype(values.dtype, np.floating)
    return exact or all((np.floor(part) == part).all() for part in parts)


def _inspect_any(
    cells: anndata.AnnData, name: str, bar: tqdm, tolerance: float | None
) -> ValueSummary:
    inspection = Inspection(cells, name=name, tolerance=tolerance)
    for start, block in row_blocks(cells):
        inspection.add(*inspection.look(start, block))
        bar.update(block.shape[0])
    return inspection.summary()


class Inspection:
    """Does :func:`inspect_values` for a caller that reads the blocks anyway."""

    def __init__(
        self, cells: anndata.AnnData, *, name: str = "cells", tolerance: float | None = None
    ):
        self.cells, self.name = cells, name
        self.tolerance = FRACTION_TOLERANCE if tolerance is None else tolerance
        self.fractional, self.largest = False, 0.0
        self.library_size = np.zeros(cells.n_obs)

    def look(self, start: int, block) -> tuple[float, bool, bool]:
        """Look at one block, in any thread, and note the library sizes of its cells.

        Returns the largest value, whether one is fractional, and whether all are whole.
        """
        from . import kernels  # compiled code; half a second that imports need not pay

        is_sparse = sparse.issparse(block)
        values = block.data if is_sparse else np.ascontiguousarray(block).ravel()
        indptr = block.indptr if is_sparse else np.arange(block.shape[0] + 1) * block.shape[1]
        sums = self.library_size[start : start + block.shape[0]]
        tolerance = values.dtype.type(self.tolerance)
        low, high, fractional, whole, nan = kernels.look_over(values, indptr, tolerance, sums)
        if nan or low < 0 or high == np.inf:
            names = self.cells.obs_names[start:], self.cells.var_names
            refuse_unsound(block, *names, name=self.name)
        return high, fractional, whole

    def add(self, largest: float, fractional: bool, whole: bool) -> None:
        """Take in what :meth:`look` found."""
        self.largest, self.fractional = max(self.largest, largest), self.fractional or fractional

    def summary(self) -> ValueSummary:
        """Return what was found, if it has one scale."""
        return summarize(self.fractional, self.largest, self.library_size, name=self.name)


@dataclass
class Scan:
    """What :func:`scan` saw.

    Attributes
    ----------
    of_cells
        Index row number; columns: ``total``, ``signature`` (equal cells have equal ones),
        ``filled``, ``fractional``, ``nearly_whole`` and ``bad`` (how many values are not zero,
        have a fraction, lie within 0.01 of a whole number, are negative or not finite),
        ``smallest``, ``largest`` (of the stored values that are finite).
    group_total
        Sum over the cells of each group, ``(n_groups, n_genes)``; the last row is of the cells
        without a group.
    n_stored
        Values in the file, stored zeros among them.
    bad
        Kind of bad value (``"NaN"``, ``"infinite"``, ``"negative"``), and row and column of the
        first.
    unlogged
        Base of a logarithm, and of a few cells of each block the sum over the genes of what the
        values would be logarithms to.
    """

    of_cells: pd.DataFrame
    group_total: np.ndarray
    n_stored: int
    bad: dict[str, tuple[int, int]]
    unlogged: dict[str, np.ndarray]


def scan(
    cells: anndata.AnnData,
    groups: np.ndarray,
    *,
    tolerance: float | None = None,
    progress: bool = False,
) -> Scan:
    """Look at every value once, of any numbers, whatever is found.

    `groups` is the number of each cell's group, from 0; -1 for none, ``(n_cells,)``.
    """
    from . import kernels  # compiled code; half a second that imports need not pay

    weights = np.random.default_rng(0).random(cells.n_vars)
    limits = FRACTION_TOLERANCE if tolerance is None else tolerance, NEARLY
    group_total = np.zeros((int(groups.max(initial=-1)) + 2, cells.n_vars))
    table = np.zeros((cells.n_obs, len(_OF_CELLS)))
    n_stored, bad, unlogged = 0, {}, defaultdict(list)
    with tqdm(total=cells.n_obs, unit=" cells", desc="check", disable=not progress) as bar:
        for start, block in stored_blocks(cells):
            n_stored += block.nnz if sparse.issparse(block) else block.size
            block, rows = as_csr(block), slice(start, start + block.shape[0])
            parts = block.data, block.indices, block.indptr
            kernels.survey(*parts, groups[rows], weights, *limits, table[rows], group_total)
            if table[rows, _OF_CELLS.index("bad")].any():
                _note_bad(bad, block, start)
            _undo_logarithms(unlogged, block[:_SAMPLED_ROWS])
            bar.update(block.shape[0])
    of_cells = pd.DataFrame(table, columns=_OF_CELLS)
    return Scan(of_cells, group_total, n_stored, bad, {b: np.array(v) for b, v in unlogged.items()})


def as_csr(block: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix:
    """Return a block of rows in CSR, in float32 or float64, whichever holds it exactly."""
    return sparse.csr_matrix(block.astype(float_type(block.dtype), copy=False))


def float_type(dtype: np.dtype) -> np.dtype:
    """Return float32, or float64 where that is needed to hold the values exactly."""
    wide = dtype.itemsize > (4 if dtype.kind == "f" else 2)
    return np.dtype(np.float64 if wide else np.float32)


def _note_bad(bad: dict, block: sparse.csr_matrix, first_row: int) -> None:
    v = block.data
    kinds = {"NaN": np.isnan(v), "infinite": np.isinf(v), "negative": np.isfinite(v) & (v < 0)}
    for kind, places in kinds.items():
        if kind not in bad and places.any():
            entry = int(np.flatnonzero(places)[0])
            row = int(np.searchsorted(block.indptr, entry, side="right")) - 1
            bad[kind] = (first_row + row, int(block.indices[entry]))


def _undo_logarithms(unlogged: dict, few: sparse.csr_matrix) -> None:
    for base, undo in _BASES.items():
        with np.errstate(over="ignore", invalid="ignore"):
            values = undo(few.data.astype(np.float64))
        undone = sparse.csr_matrix((values, few.indices, few.indptr), shape=few.shape)
        unlogged[base].extend(undone @ np.ones(few.shape[1]))


def qc_table(
    cells: anndata.AnnData | str | Path,
    *,
    columns: Sequence[str] = (),
) -> pd.DataFrame:
    """Measure each cell: how many molecules were counted, of how many genes.

    Parameters
    ----------
    cells
        Counts, shape ``(n_cells, n_genes)``, or the path of an ``.h5ad``. Read once, a block of
        rows at a time.
    columns
        Columns of ``obs`` to put beside the figures, such as the batch.

    Returns
    -------
    DataFrame
        Index: cell names. ``depth``, the sum of the cell's counts, float64; ``n_genes``, the
        number of genes with a count above 0; and `columns`.

    Raises
    ------
    KeyError
        ``obs`` lacks one of `columns`.

    Notes
    -----
    Log-normalised values have no depth; give counts.
    """
    cells = open_cells(cells)
    if missing := [name for name in columns if name not in cells.obs]:
        raise KeyError(f"obs has no column {some_of(missing)}; it has {some_of(cells.obs.columns)}")
    depth, n_genes = np.empty(cells.n_obs), np.empty(cells.n_obs, dtype=np.int64)
    for start, block in row_blocks(cells):
        rows = slice(start, start + block.shape[0])
        depth[rows] = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        n_genes[rows] = np.asarray((block > 0).sum(axis=1)).ravel()
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

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``, or the path of an ``.h5ad``. Only the rows drawn are read.
    at_most
        Cells of each perturbation; all of one that has fewer.
    controls
        Cells of the control; by default `at_most`, too.
    seed
        Another seed draws other cells.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.

    Returns
    -------
    AnnData
        In memory, ``(n_drawn, n_genes)``, rows in the order of `cells`, ``X`` floating, with
        ``obs``, ``var`` and ``uns``.

    Raises
    ------
    KeyError
        ``obs`` has no column `perturbation_key`.
    ValueError
        A cell has no label; `at_most` or `controls` is negative, or nothing is drawn.

    Notes
    -----
    The draw within a perturbation depends on its name, its number of cells and the seed alone: a
    file and its sorted copy give the same cells, and other perturbations make no difference.
    """
    cells = open_cells(cells)
    controls = at_most if controls is None else controls
    if min(at_most, controls) < 0 or max(at_most, controls) < 1:
        raise ValueError(f"expected some cells to draw, got at_most={at_most}, controls={controls}")
    members = pd.Series(range(cells.n_obs)).groupby(labels_of(cells, perturbation_key)).indices
    drawn = [
        _draw(rows, controls if name == control else at_most, name, seed)
        for name, rows in members.items()
    ]
    rows = np.sort(np.concatenate(drawn))
    return take_cells(cells, rows)


def _draw(rows: np.ndarray, n: int, name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rows if len(rows) <= n else rng.choice(rows, n, replace=False)
