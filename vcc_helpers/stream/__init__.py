"""Cells of any size: opened, looked at, averaged, tested and sorted, a block of rows at a time.

What a reader types is here; every module says what it does. The functions share their words.
Cells, whatever a function calls them, are an AnnData, ``(n_cells, n_genes)``, counts or lognorm:
dense, CSR or CSC, a view, or open on disk. Where a path will do, it is that of an ``.h5ad``, a
``.vcc`` or a ``.zarr``, and the cells need not fit the memory.

perturbation_key, control
    The column of ``obs`` that names each cell's perturbation, and the label of control cells in it.
memory
    Most memory to use, in bytes or as text such as ``"4GB"``; cells in memory are not counted.
threads, progress, name
    Number of threads, all cores by default; whether to show progress bars; what messages call the
    cells.

A KeyError says that ``obs`` lacks a column; a ValueError, that a cell has no label, that values are
NaN, infinite, negative or of mixed scale, that `memory` is too small, or that a file is damaged or
was changed while it was read; an OSError, that there is no such file or folder, that it cannot be
written to, or that the disk is full.
"""

from ._engine import rank_sum, tiles
from .blocks import read_rows, row_blocks
from .contexts import by_context
from .contrast import contrast
from .covariance import control_covariance
from .look import inspect_values, qc_table, sample_cells
from .open import check_cells, check_same, open_cells, problems
from .plan import Contrast, needs
from .pseudobulk import lognorm_blocks, pseudobulk
from .sort import sort_cells
from .write import write_cells

__all__ = [
    "Contrast",
    "by_context",
    "check_cells",
    "check_same",
    "contrast",
    "control_covariance",
    "inspect_values",
    "lognorm_blocks",
    "needs",
    "open_cells",
    "problems",
    "pseudobulk",
    "qc_table",
    "rank_sum",
    "read_rows",
    "row_blocks",
    "sample_cells",
    "sort_cells",
    "tiles",
    "write_cells",
]
