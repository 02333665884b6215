"""On which scale a prediction's values are: told by undoing what people do to counts.

Two things survive the right inverse only. The values of a cell are whole multiples of its smallest
one, as counts are, whatever they were scaled by. And the values of every cell add up to the same,
as scaled counts do. Values that a model made may show neither; then nothing is said.

Taught in: notebooks/17_check_and_pack.

>>> counts = np.random.default_rng(0).poisson(2, (50, 200))
>>> name_scale(np.sqrt(counts))
'square roots'
>>> name_scale(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4))
'natural logarithms'
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy import sparse

#: What may have been done to counts, and how it is undone; the first is what is expected.
UNDO = {
    "natural logarithms": np.expm1,
    "logarithms to base 2": lambda x: np.exp2(x) - 1,
    "logarithms to base 10": lambda x: np.power(10.0, x) - 1,
    "logarithms of logarithms": lambda x: np.expm1(np.expm1(x)),
    "no logarithms": lambda x: x,
    "square roots": np.square,
}
#: Sums that vary less than this, relative to their mean, are one total.
_ONE_TOTAL = 2e-3
#: Another inverse must fit the sums so many times better than the expected one.
_BETTER = 20
#: No logarithms of counts are all this small.
_SMALL = 0.1
#: A multiple may be off by this, and this share of a file's must be whole.
_OFF, _SHARE = 0.02, 0.95
#: The smallest value of a cell is so many counts, scaled, in deep cells; so many cells tell enough.
_PARTS, _MOST_CELLS = np.arange(1, 25), 100


def name_scale(rows: np.ndarray | sparse.spmatrix) -> str | None:
    """Name what was done to counts, a key of :data:`UNDO`; None if nothing tells.

    Parameters
    ----------
    rows
        Values of some cells, ``(n, n_genes)``, finite and not negative.
    """
    rows = sparse.csr_matrix(np.asarray(rows, np.float64) if isinstance(rows, np.ndarray) else rows)
    rows = rows.astype(np.float64)
    rows.eliminate_zeros()
    if not rows.nnz:
        return None
    expected = next(iter(UNDO))
    spread = {name: _spread(totals(rows, name)) for name in UNDO}
    best = min(spread, key=spread.get)
    if spread[best] < _ONE_TOTAL:
        return best if _BETTER * spread[best] < spread[expected] else expected
    # values so small that a logarithm would change nothing were not made by one
    names = ["no logarithms"] if rows.data.max() < _SMALL else UNDO
    whole = {name: _whole_share(_undone(rows, name)) for name in names}
    best = max(whole, key=whole.get)
    return best if whole[best] >= _SHARE else None


def totals(rows: sparse.csr_matrix, scale: str) -> np.ndarray:
    """Add up each cell's values after undoing `scale`, ``(n,)``."""
    return np.asarray(_undone(rows, scale).sum(axis=1)).ravel()


def _undone(rows: sparse.csr_matrix, scale: str) -> sparse.csr_matrix:
    with np.errstate(over="ignore"):
        values = UNDO[scale](rows.data.astype(np.float64))
    return sparse.csr_matrix((values, rows.indices, rows.indptr), rows.shape)


def _spread(sums: np.ndarray) -> float:
    """Tell how much sums vary, relative to their mean; infinite if nothing can be told."""
    sums = sums[sums > 0]
    known = len(sums) > 1 and sums.max() < 1e150
    return float(sums.std() / sums.mean()) if known else np.inf


def _whole_share(rows: sparse.csr_matrix) -> float:
    """Share of the values that are whole multiples of one value of their cell.

    That is the smallest one, or a part of it. Only up to fifty multiples are looked at, for the
    digits of larger ones tell nothing; a cell needs four different ones.
    """
    shares = []
    for start, stop in pairwise(rows.indptr[: _MOST_CELLS + 1]):
        values = np.unique(rows.data[start:stop])
        values = values[np.isfinite(values) & (values > 0)]
        multiples = np.outer(_PARTS, values / values.min(initial=np.inf))
        told = (multiples > 1.5) & (multiples < 50)
        whole = told & (np.abs(multiples - np.rint(multiples)) < _OFF)
        enough = told.sum(axis=1) >= 4
        if enough.any():
            shares.append((whole.sum(axis=1) / np.maximum(told.sum(axis=1), 1))[enough].max())
    return float(np.mean(shares)) if shares else 0.0
