"""One pass over the values of a prediction, and all that it tells.

:func:`~vcc_helpers.cells.inspect_values` asks whether values can be scored. Here the question is
what may be wrong with them, so that nothing found ends the pass.

Taught in: notebooks/17_check_and_pack.
Needs: cells.py, kernels.py, storage.py.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> seen = scan(cells, np.zeros(cells.n_obs, dtype=int))
>>> int(seen.of_cells["fractional"].sum()), int(seen.of_cells["largest"].max())
(0, 1146)
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from .cells import FRACTION_TOLERANCE
from .storage import stored_blocks

#: A value this near to a whole number may be one, with noise.
NEARLY = 0.01
#: Cells of each block by which the scale of logarithms is judged.
SAMPLED_ROWS = 64
#: Columns of :attr:`Scan.of_cells`.
OF_CELLS = [
    *("total", "signature", "filled", "fractional", "nearly_whole", "bad"),
    *("smallest", "largest"),
]
#: What the values may be logarithms to, as log(1 + x).
BASES = {"e": np.expm1, "2": lambda v: np.exp2(v) - 1, "10": lambda v: 10.0**v - 1}


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
    """Look at every value once.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``, of any numbers; dense, CSR or CSC, in memory or on disk.
    groups
        Number of each cell's group, from 0; -1 for none, ``(n_cells,)``.
    tolerance
        A value is fractional if it is further above a whole number; 1e-3 by default.
    progress
        Show a progress bar.

    Raises
    ------
    ValueError
        The file is damaged.

    Notes
    -----
    Taught in: notebooks/17_check_and_pack.
    """
    from . import kernels  # compiled code; half a second that imports need not pay

    weights = np.random.default_rng(0).random(cells.n_vars)
    limits = FRACTION_TOLERANCE if tolerance is None else tolerance, NEARLY
    group_total = np.zeros((int(groups.max(initial=-1)) + 2, cells.n_vars))
    table = np.zeros((cells.n_obs, len(OF_CELLS)))
    n_stored, bad, unlogged = 0, {}, defaultdict(list)
    with tqdm(total=cells.n_obs, unit=" cells", desc="check", disable=not progress) as bar:
        for start, block in stored_blocks(cells):
            n_stored += block.nnz if sparse.issparse(block) else block.size
            block, rows = as_csr(block), slice(start, start + block.shape[0])
            parts = block.data, block.indices, block.indptr
            kernels.survey(*parts, groups[rows], weights, *limits, table[rows], group_total)
            if table[rows, OF_CELLS.index("bad")].any():
                _note_bad(bad, block, start)
            _undo_logarithms(unlogged, block[:SAMPLED_ROWS])
            bar.update(block.shape[0])
    of_cells = pd.DataFrame(table, columns=OF_CELLS)
    return Scan(of_cells, group_total, n_stored, bad, {b: np.array(v) for b, v in unlogged.items()})


def as_csr(block: sparse.csr_matrix | np.ndarray) -> sparse.csr_matrix:
    """Return a block of rows in CSR, in float32 or float64, whichever holds it exactly.

    Parameters
    ----------
    block
        Shape ``(n, n_genes)``, of any numbers.

    Notes
    -----
    Taught in: notebooks/17_check_and_pack.
    """
    return sparse.csr_matrix(block.astype(float_type(block.dtype), copy=False))


def float_type(dtype: np.dtype) -> np.dtype:
    """Return float32, or float64 where that is needed to hold the values exactly.

    Parameters
    ----------
    dtype
        Any type of real numbers.

    Notes
    -----
    Taught in: notebooks/17_check_and_pack.
    """
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
    for base, undo in BASES.items():
        with np.errstate(over="ignore", invalid="ignore"):
            values = undo(few.data.astype(np.float64))
        undone = sparse.csr_matrix((values, few.indices, few.indptr), shape=few.shape)
        unlogged[base].extend(undone @ np.ones(few.shape[1]))
