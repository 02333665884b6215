"""Cells of any size: opened, looked at, averaged, tested and sorted, a block of rows at a time.

What a reader types is here; every module says what it does.
"""

from .blocks import read_rows, row_blocks
from .contexts import by_context
from .contrast import contrast
from .covariance import control_covariance
from .engine import rank_sum, tiles
from .job import Contrast
from .look import inspect_values, qc_table, sample_cells
from .open import check_cells, check_same, open_cells, problems
from .plan import needs
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
