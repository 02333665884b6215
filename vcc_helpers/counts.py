"""Counts in memory: their scale, logarithms, means and variances, fold changes.

`cells` is a matrix in memory, dense or sparse, ``(n_cells, n_genes)``, or an AnnData with one. It
is never changed. A library size is the sum of a cell's values, ``(n_cells,)``, float64. `name` is
what the messages call the cells.

Taught in: notebooks/02_measure_effects, notebooks/17_metrics_by_hand and
notebooks/25_score_by_the_rules_of_2026.
Needs no sibling module.

>>> counts = np.array([[1.0, 0.0, 3.0], [2.0, 2.0, 0.0]])
>>> scale_of(counts).library_size
array([4., 4.])
>>> np.expm1(lognorm(counts)).round(2).tolist()
[[1.0, 0.0, 3.0], [2.0, 2.0, 0.0]]
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

#: A value counts as fractional above this (the official rule, cell-eval 0.6.6).
FRACTION_TOLERANCE = 1e-3
#: log1p values of single cells stay below this (the official rule, cell-eval 0.6.6).
LOGNORM_LIMIT = 15.0
#: Integers up to this are exact in float32.
EXACT_IN_FLOAT32 = 2**24


class ValueSummary(NamedTuple):
    """What one pass over the values tells: ``"counts"`` or ``"lognorm"``, and library sizes."""

    scale: str
    library_size: np.ndarray


def rows_of(cells) -> sparse.csr_matrix | np.ndarray:
    """Return the values: CSR with one entry a place, or dense; floating; a copy only if needed."""
    matrix = getattr(cells, "X", cells)
    if getattr(cells, "isbacked", False):
        matrix = matrix[:]
    if getattr(matrix, "format", None) in ("csr", "csc"):
        try:
            type(matrix)(matrix).check_format()  # or SciPy's loops would follow any place
        except ValueError as error:
            raise ValueError(f"the sparse matrix is damaged ({error}); make it again") from error
    block = one_entry_a_place(matrix) if sparse.issparse(matrix) else np.asarray(matrix)
    return floating(block, *_names(cells))


def _names(cells) -> tuple:
    return getattr(cells, "obs_names", None), getattr(cells, "var_names", None)


def one_entry_a_place(block) -> sparse.csr_matrix:
    """Return any sparse matrix in CSR, entries of the same place summed."""
    block = sparse.csr_matrix(block)
    if not block.has_canonical_format:  # a logarithm of parts is not the logarithm of their sum
        is_float = np.issubdtype(block.dtype, np.floating)
        block = block.copy() if is_float else block.astype(np.int64)  # uint8: 200 + 100 is no 44
        block.sum_duplicates()
    return block


def floating(block, cells, genes):
    """Return CSR or dense values in float32, or float64 where they are; `cells`, `genes`: names."""
    values = block.data if sparse.issparse(block) else block
    integer = not np.issubdtype(block.dtype, np.floating)
    if integer and block.dtype.itemsize > 2 and (large := values > EXACT_IN_FLOAT32).any():
        cell, gene = _place(block, large, cells, genes)
        raise ValueError(
            f"cell {cell!r}, gene {gene!r}: the integer {values[large][0]} is above "
            f"{EXACT_IN_FLOAT32:,}, where float32 is no longer exact; store X as float64"
        )
    native = block.dtype.newbyteorder("=")
    return block.astype(native if native in (np.float32, np.float64) else np.float32, copy=False)


def _place(block, bad: np.ndarray, cells, genes) -> tuple:
    if sparse.issparse(block):
        entry = int(np.flatnonzero(bad)[0])
        row = int(np.searchsorted(block.indptr, entry, side="right")) - 1
        column = int(block.indices[entry])
    else:
        row, column = (int(i) for i in np.argwhere(bad)[0])
    return (row, column) if cells is None else (cells[row], genes[column])


def refuse_unsound(block, cells, genes, *, name: str = "cells") -> None:
    """Raise a ValueError if a value is NaN, infinite or negative, and name the first."""
    values = block.data if sparse.issparse(block) else block
    infinite = ~np.isfinite(values)
    bad, what = (infinite, "NaN or infinite") if infinite.any() else (values < 0, "negative")
    if bad.any():
        cell, gene = _place(block, bad, cells, genes)
        raise ValueError(
            f"{name}: {what} values, the first in cell {cell!r}, gene {gene!r}; expected counts, "
            "or log1p of scaled counts, which are finite and never negative"
        )


def too_large(library_size: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Tell of each cell whether its sum is more than the values' own type holds, ``(n_cells,)``."""
    with np.errstate(over="ignore"):
        return ~np.isfinite(library_size.astype(dtype))


def refuse_too_large(library_size: np.ndarray, dtype: np.dtype, cells, *, name: str) -> None:
    """Raise a ValueError if a cell is :func:`too_large`, as none can be scaled by such a sum."""
    if (large := too_large(library_size, dtype)).any():
        row = int(np.argmax(large))
        raise ValueError(
            f"{name}: the values of cell {row if cells is None else cells[row]!r} add up to more "
            f"than {dtype} holds; expected counts, or log1p of scaled counts"
        )


def summarize(
    fractional: bool, largest: float, library_size: np.ndarray, *, name: str = "cells"
) -> ValueSummary:
    """Tell the scale from whether a value is fractional; a ValueError if one then reaches 15."""
    if fractional and largest >= LOGNORM_LIMIT:
        raise ValueError(
            f"{name}: values have fractions, so they cannot be counts, but reach "
            f"{largest:.6g}, and log1p values stay below {LOGNORM_LIMIT:g}: counts mixed "
            "with log values, or normalised without the logarithm; give raw counts, or log1p "
            "of scaled counts"
        )
    return ValueSummary("lognorm" if fractional else "counts", library_size)


def scale_of(cells, *, name: str = "cells") -> ValueSummary:
    """Look at every value: are these counts or log-normalised values, and are they sound?

    They are counts when no value has a fractional part above 1e-3, the rule of cell-eval 0.6.6. A
    ValueError says that there is no value; that one is NaN, infinite or negative; that a cell's sum
    is too large for its type; or that there are fractional values and one of 15 or more, as when
    counts and log values are mixed.
    """
    block = rows_of(cells)
    if 0 in block.shape:
        raise ValueError(
            f"{name}: empty, shape {block.shape}; expected at least one cell and one gene"
        )
    refuse_unsound(block, *_names(cells), name=name)
    values = block.data if sparse.issparse(block) else block
    fractional = (values - np.floor(values) > values.dtype.type(FRACTION_TOLERANCE)).any()
    size = sparse.csr_matrix(block) @ np.ones(block.shape[1])  # adds in float64, gene by gene
    refuse_too_large(size, block.dtype, _names(cells)[0], name=name)
    return summarize(bool(fractional), float(values.max(initial=0)), size, name=name)


def lognorm(cells, *, target_sum: float | None = None) -> sparse.csr_matrix | np.ndarray:
    r"""Log-normalise counts: scale each cell to the same total, then take log1p.

    .. math:: y_{cg} = \log\left(1 + x_{cg} \frac{s}{\sum_h x_{ch}}\right)

    `target_sum` is the total s that every cell is scaled to, in counts; by default the median of
    the cells' own totals, empty cells left out. Returned is float32 (float64 where the counts are),
    sparse where the input is. An empty cell stays empty. Values that are log-normalised already
    come back unchanged.

    Equal, bit for bit, to scanpy's ``normalize_total`` and ``log1p``; with one exception: scanpy
    1.11 counts empty cells in the median of a sparse file, though not of a dense one.
    """
    scaling = Scaling.of(scale_of(cells), target_sum)
    return scaling.apply(rows_of(cells), slice(None)).copy()


def stack(blocks: list[sparse.csr_matrix | np.ndarray]) -> sparse.csr_matrix | np.ndarray:
    """Put blocks of rows back together, ``(n_cells, n_genes)``."""
    return sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.vstack(blocks)


class Scaling(NamedTuple):
    """How cells are log-normalised: their library sizes, None for lognorm, and the target sum."""

    library_size: np.ndarray | None
    target_sum: float = 1.0

    @classmethod
    def of(cls, summary: ValueSummary, target_sum: float | None = None) -> Scaling:
        """Make it from what was found; `target_sum` as for :func:`lognorm`."""
        if summary.scale == "lognorm":
            return cls(None)
        size = summary.library_size
        if target_sum is None:
            target_sum = np.median(size[size > 0]) if (size > 0).any() else 1.0
        return cls(size, float(target_sum))

    def apply(self, block, rows):
        """Log-normalise some cells, a block and its rows; lognorm comes back as it is."""
        if self.library_size is None:
            return block
        divisor = self.divisor(rows, block.dtype)
        if sparse.issparse(block):
            values = np.log1p(block.data / np.repeat(divisor, np.diff(block.indptr)))
            return sparse.csr_matrix((values, block.indices, block.indptr), shape=block.shape)
        return np.log1p(block / divisor[:, None])

    def divisor(self, rows, dtype: np.dtype) -> np.ndarray:
        """Return library size over target sum of some cells, ``(n,)``; 1 for one without counts."""
        # Each step in the matrix's own precision, so that equal counts of equally deep cells
        # stay exactly equal: the rank-sum test sees ties where scanpy's values have them.
        factor = self.library_size[rows].astype(dtype) / dtype.type(self.target_sum)
        factor[factor == 0] = 1
        return factor


def moments(total: np.ndarray, square: np.ndarray, n_cells) -> tuple[np.ndarray, np.ndarray]:
    """Turn sums of values and squares into mean and unbiased variance, NaN for one cell."""
    mean = total / n_cells
    with np.errstate(invalid="ignore", divide="ignore"):
        return mean, np.maximum(square - n_cells * mean**2, 0) / (n_cells - 1)


def fold_change(
    target_mean: np.ndarray, control_mean: np.ndarray, *, clip: float = 20.0
) -> np.ndarray:
    """Return the ratio of back-transformed means, ``(n_perts, n_genes)``.

    Means are lognorm, in perturbed cells, ``(n_perts, n_genes)``, and in control cells,
    ``(n_genes,)``. The mean is taken first and ``expm1`` after it, so this is no ratio of
    arithmetic means, as in pdex 0.1.27. The ratio is `clip` where the control's mean is 0, its
    inverse where the perturbation's is, 1 where both are; `clip` limits nothing else. float32, as
    the official table, unless the means are float64 or some mean is 0: then float64. The last digit
    matters, since DES cuts a list that it sorts.
    """
    target, base = np.expm1(target_mean), np.expm1(control_mean)
    silent = (target == 0) | (base == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = target / base
    dtype = np.float64 if silent.any() else ratio.dtype.type
    ratio = np.where(base == 0, clip, ratio.astype(np.float64))
    ratio = np.where(target == 0, 1 / clip, ratio)
    return np.where((base == 0) & (target == 0), 1.0, ratio).astype(dtype)


def log2(ratio: np.ndarray) -> np.ndarray:
    """Return log2 as the official table computes it: in the precision of `ratio`, then float32."""
    logged = np.log(ratio.astype(np.float64)).astype(ratio.dtype)
    return (logged / np.log(2.0).astype(ratio.dtype)).astype(np.float32)
