"""On which scale a prediction's values are: told by undoing what people do to counts.

Two things survive the right inverse only. The values of a cell are whole multiples of its smallest
one, as counts are, whatever they were scaled by. And the values of every cell add up to the same,
as scaled counts do. Values that a model made may show neither; then nothing is said.

Taught in: notebooks/18_from_means_to_cells.

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

#: The scale that is expected.
LOG1P = "natural logarithms"
#: What may have been done to counts, and how it is undone.
_UNDO = {
    LOG1P: np.expm1,
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
_PARTS, _MOST_CELLS = np.arange(1, 25), 50
#: Sums that were made equal vary so many times less than sums of independent values would. Measured
#: on real H1 and hiPSC cells: 24 times with two digits, 135 in float16, from 350,000 in float32; on
#: a wrong scale, and of predictions, at most 3.
_EQUAL = 10
#: Sums of independent values vary so much, unless the cells are alike; so many cells tell.
_UNLIKE, _FEWEST_CELLS = 3e-4, 10
#: A count varies by its mean, as chance does, and by at least so much of its square. Measured: 0.85
#: to 1.06 of the mean and 0.15 of the square; of rounded logarithms less than 0 of the square.
_CHANCE, _MORE, _FEWEST_GENES = 1.5, 0.05, 50


def name_scale(rows: np.ndarray | sparse.spmatrix) -> str | None:
    """Name what was done to counts, as "square roots"; None if nothing tells.

    `rows` holds values of some cells, ``(n, n_genes)``, finite and not negative.
    """
    rows = _as_float64(rows)
    if not rows.nnz:
        return None
    _, first = np.unique(_sums(_undone(rows, LOG1P)), return_index=True)
    unlike = rows[np.sort(first)]  # equal cells add up to the same on every scale
    spread = {name: _spread(_undone(unlike, name)) for name in _UNDO}
    best = min(spread, key=spread.get)
    if spread[best] < _ONE_TOTAL:
        return best if _BETTER * spread[best] < spread[LOG1P] else LOG1P
    # values so small that a logarithm would change nothing were not made by one
    small = rows.data.max() < _SMALL
    if not small and (size := _rounded_to(rows.data)):
        return "no logarithms" if _vary_as_counts(rows * size) else None
    names = ["no logarithms"] if small else _UNDO
    whole = {name: _whole_share(_undone(rows[:_MOST_CELLS], name)) for name in names}
    best = max(whole, key=whole.get)
    return best if whole[best] >= _SHARE else None


def sums_before_log(
    rows: np.ndarray | sparse.spmatrix, groups: np.ndarray
) -> tuple[np.ndarray, bool]:
    """Add up each cell's values after undoing log1p, ``(n,)``; tell whether to one total.

    That is one of all cells, or one of each group; `groups` is numbers, ``(n,)``. The sums then
    vary far less than those of as many independent values. So equal cells tell nothing, nor do
    means with noise, whose sums are nearly the same by chance.
    """
    undone = _undone(_as_float64(rows), LOG1P)
    kinds = np.zeros(len(groups), int), np.unique(groups, return_inverse=True)[1]
    return _sums(undone), any(_one_total(undone, numbers) for numbers in kinds)


def _one_total(undone: sparse.csr_matrix, groups: np.ndarray) -> bool:
    if len(groups) - len(np.unique(groups)) < _FEWEST_CELLS // 2:  # sums may be alike by chance
        return False
    together, alone = _variances(undone, groups)
    return bool(alone > _UNLIKE**2 and together * _EQUAL**2 < alone)


def _sums(rows: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(rows.sum(axis=1)).ravel()


def _variances(undone: sparse.csr_matrix, groups: np.ndarray) -> tuple[float, float]:
    """Variance of the cells' sums within groups, and what it were if genes were independent.

    Both relative to the squared mean sum of the group, and 0 where nothing is known.
    """
    members = sparse.csr_matrix((np.ones(len(groups)), (groups, np.arange(len(groups)))))
    n_cells, of_cell = np.bincount(groups), _sums(undone)
    mean = members @ of_cell / n_cells
    together = members @ (of_cell - mean[groups]) ** 2
    alone = _sums(members @ undone.power(2)) - _sums((members @ undone).power(2)) / n_cells
    known = (n_cells > 1) & (mean > 0)
    degrees = max((n_cells[known] - 1).sum(), 1)
    together, alone = ((x[known] / mean[known] ** 2).sum() / degrees for x in (together, alone))
    return together, alone


def _as_float64(rows: np.ndarray | sparse.spmatrix) -> sparse.csr_matrix:
    rows = sparse.csr_matrix(rows, dtype=np.float64, copy=True)
    rows.eliminate_zeros()
    return rows


def _undone(rows: sparse.csr_matrix, scale: str) -> sparse.csr_matrix:
    with np.errstate(over="ignore"):
        values = _UNDO[scale](rows.data)
    return sparse.csr_matrix((values, rows.indices, rows.indptr), rows.shape)


def _spread(undone: sparse.csr_matrix) -> float:
    """Tell how much sums vary, relative to their mean; infinite if that tells nothing."""
    n = undone.shape[0]
    if n < _FEWEST_CELLS or not undone.data.max(initial=0) < 1e100:
        return np.inf
    together, alone = _variances(undone, np.zeros(n, int))
    told = alone > max(_UNLIKE, _EQUAL * np.sqrt(together)) ** 2
    return float(np.sqrt(together)) if told else np.inf


def _rounded_to(values: np.ndarray) -> float | None:
    """Return 100 of values that are multiples of 0.01; None of such as have more than 4 digits."""
    for size in 10.0 ** np.arange(1, 5):
        whole = np.rint(values * size)
        if (np.abs(values * size - whole) <= 1e-6 * whole).all():
            return size if np.gcd.reduce(whole.astype(np.int64)) == 1 else None
    return None


def _vary_as_counts(rows: sparse.csr_matrix) -> bool:
    """Tell whether a gene's variance is its mean, as chance has it, and a part of its square."""
    n, (mean, square) = rows.shape[0], (np.asarray(x.mean(axis=0)) for x in (rows, rows.power(2)))
    mean, square = mean[mean > 0], square[mean > 0]
    if n < _FEWEST_CELLS or len(mean) < _FEWEST_GENES:
        return False
    ratio = (square / mean - mean) * n / (n - 1)
    weight = 1 / (1 + mean)
    law = np.column_stack([weight, weight * mean])
    chance, more = np.linalg.lstsq(law, weight * ratio)[0]
    return bool(1 / _CHANCE < chance < _CHANCE and more > _MORE)


def _whole_share(rows: sparse.csr_matrix) -> float:
    """Share of the values that are whole multiples of one value of their cell.

    That is the smallest one, or a part of it. Only up to fifty multiples are looked at, for the
    digits of larger ones tell nothing; a cell needs four different ones.
    """
    shares = []
    for start, stop in pairwise(rows.indptr):
        values = np.unique(rows.data[start:stop])
        values = values[np.isfinite(values) & (values > 0)]
        values = values[values / 50 < values.min(initial=np.inf)]
        multiples = np.outer(_PARTS, values / values.min(initial=np.inf))
        told = (multiples > 1.5) & (multiples < 50)
        whole = told & (np.abs(multiples - np.rint(multiples)) < _OFF)
        enough = told.sum(axis=1) >= 4
        if enough.any():
            shares.append((whole.sum(axis=1) / np.maximum(told.sum(axis=1), 1))[enough].max())
    return float(np.mean(shares)) if shares else 0.0
