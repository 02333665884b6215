"""The Wilcoxon rank-sum (Mann-Whitney) test in plain NumPy, as the chapter teaches it.

Taught in: notebooks/10_rank_every_gene.
Needs no sibling module.

>>> u, p_value = mann_whitney(np.array([[3.0], [1.0]]), np.array([[0.0], [1.0]]))
>>> u.tolist()
[3.5]
"""

from __future__ import annotations

from functools import lru_cache
from math import comb

import numpy as np

#: With this many cells or fewer in a group, and no ties, the p-value is exact (scipy's rule).
_EXACT_LIMIT = 8


def mann_whitney(values: np.ndarray, controls: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Test every gene: are its values in some cells higher, or lower, than in the controls?

    Of two groups, ``(n_1, n_genes)`` and ``(n_2, n_genes)``, returned are the Mann-Whitney U of the
    first, ``(n_genes,)``: in how many of all pairs its value is the larger one, a tie counting
    half, 0 to n_1 n_2; and the two-sided p-value, ``(n_genes,)``, from :func:`p_values`.
    """
    from scipy.stats import rankdata

    n_1, n_2 = len(values), len(controls)
    both = np.vstack([values, controls])
    u = rankdata(both, axis=0)[:n_1].sum(axis=0) - n_1 * (n_1 + 1) / 2
    runs = (np.unique(gene, return_counts=True)[1].astype(np.float64) for gene in both.T)
    ties = np.array([(t**3 - t).sum() for t in runs])
    return u, p_values(u, ties, n_1, n_2)


def p_values(
    u: np.ndarray, ties: np.ndarray, n_1, n_2, *, exact: bool = True, use_continuity: bool = True
) -> np.ndarray:
    r"""Turn U into two-sided p-values.

    .. math:: z = \frac{\max(U, n_1 n_2 - U) - n_1 n_2 / 2 - 1/2}{\sqrt{\frac{n_1 n_2}{12} \left(
              n + 1 - \frac{\sum t^3 - t}{n (n - 1)}\right)}}, \qquad p = 2 \Phi(-z)

    with :math:`n = n_1 + n_2`. `u` is the Mann-Whitney U of the first group, ``(n_groups,
    n_genes)``, `ties` the sum of t**3 - t over runs of t equal values, `n_1` and `n_2` the cells of
    the two groups, numbers or arrays that fit `u`. `use_continuity` takes off the half; `exact`
    counts the orders where there is no tie and a group of 8 cells or fewer, as SciPy does. p is
    float64, 0 to 1; 1 where all values are equal.
    """
    from scipy.special import ndtr

    n_1, n_2 = (np.broadcast_to(np.asarray(n, np.float64), u.shape) for n in (n_1, n_2))
    n = n_1 + n_2
    larger = np.maximum(u, n_1 * n_2 - u)
    with np.errstate(divide="ignore", invalid="ignore"):
        sd = np.sqrt(n_1 * n_2 / 12 * ((n + 1) - ties / (n * (n - 1))))
        p = 2 * ndtr(-(larger - n_1 * n_2 / 2 - 0.5 * use_continuity) / sd)
    p = np.nan_to_num(np.clip(p, 0, 1), nan=1.0)
    few = exact & (ties == 0) & (np.minimum(n_1, n_2) <= _EXACT_LIMIT)
    for a, b in sorted(set(zip(n_1[few], n_2[few], strict=True))):
        here = few & (n_1 == a) & (n_2 == b)
        below = np.minimum(u[here], a * b - u[here]).astype(int)
        p[here] = np.minimum(2 * _share_at_most(int(min(a, b)), int(max(a, b)))[below], 1)
    return p


@lru_cache
def _share_at_most(n_1: int, n_2: int) -> np.ndarray:
    """Return the share of all orders in which U is at most 0, 1, ..., n_1 n_2 // 2.

    The number of orders for each U are the coefficients of the Gaussian binomial, the product of
    (1 - q^(n_2 + i)) / (1 - q^i) over i up to n_1: exact, in whole numbers of any size.
    """
    orders = np.zeros(n_1 * n_2 // 2 + 1, dtype=object)
    orders[0] = 1
    for i in range(1, n_1 + 1):
        orders[n_2 + i :] = orders[n_2 + i :] - orders[: max(len(orders) - n_2 - i, 0)]
        for first in range(i):
            orders[first::i] = np.cumsum(orders[first::i])
    return np.cumsum(orders.astype(np.float64) / comb(n_1 + n_2, n_1))
