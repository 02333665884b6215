"""The Wilcoxon rank-sum (Mann-Whitney) test of every gene, and the false discovery rate.

The test itself is illico's, a library that does nothing else and is exact; this module adds
what the challenge's rules add: exact p-values for tiny groups, and p = 1 where there is no
answer.

Taught in: notebooks/08_metrics_by_hand.
Needs no sibling module.

>>> import numpy
>>> benjamini_hochberg(numpy.array([0.01, 0.02, 0.5])).round(3)
array([0.03, 0.03, 0.5 ])
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import NamedTuple
from unittest import mock

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

#: With this many cells or fewer in a group, and no ties, the p-value is exact (scipy's rule).
EXACT_LIMIT = 8


class RankSum(NamedTuple):
    """Result of :func:`rank_sum`, rows as in ``groups``.

    Attributes
    ----------
    groups
        Names of the groups tested, sorted, shape ``(n_groups,)``.
    statistic
        Mann-Whitney U of the group, shape ``(n_groups, n_genes)``, float64, 0 to n_1 n_2.
    p_value
        Two-sided p-value, same shape, float64, 0 to 1.
    """

    groups: pd.Index
    statistic: np.ndarray
    p_value: np.ndarray


def rank_sum(
    matrix: np.ndarray | sparse.spmatrix,
    labels: pd.Index,
    *,
    control: str,
    threads: int | None = None,
    progress: bool = False,
) -> RankSum:
    """Test every gene of every group against the control cells.

    Parameters
    ----------
    matrix
        Shape ``(n_cells, n_genes)``, dense, CSR or CSC; any scale and number type, since only
        ranks count.
    labels
        Group of each cell, shape ``(n_cells,)``, str.
    control
        The label of control cells.
    threads
        Number of threads; all cores by default.
    progress
        Show a progress bar.

    Returns
    -------
    RankSum
        Groups (control left out), U and two-sided p.

    Raises
    ------
    ValueError
        No cell is labelled `control`, or every cell is.

    Notes
    -----
    Two-sided, with continuity and tie correction, normal approximation; exact for a gene without
    ties when either group has 8 cells or fewer: the defaults of ``scipy.stats.mannwhitneyu``.
    A gene with the same value in all cells has p = 1.

    Taught in: notebooks/08_metrics_by_hand.
    """
    from illico import asymptotic_wilcoxon  # compiled code; half a second that imports need not pay

    labels = pd.Index(labels).astype(str)
    groups = pd.Index(sorted(set(labels) - {control}), dtype=object)
    if control not in labels or groups.empty:
        raise ValueError(
            f"a test needs cells labelled {control!r} and others; there are {len(labels)} cells "
            f"of {len(groups)} other groups"
        )
    matrix = _columns(matrix)
    # "g" keeps labels that look like numbers from being read as numbers.
    obs = pd.DataFrame(
        {"group": ("g" + labels).to_numpy()}, index=np.arange(len(labels)).astype(str)
    )
    with _quiet(not progress):
        table = asymptotic_wilcoxon(
            anndata.AnnData(matrix, obs=obs),
            is_log1p=True,
            group_keys="group",
            reference=f"g{control}",
            n_threads=threads or os.cpu_count() or 1,
        )
    by_gene = matrix.shape[1]  # the table is sorted by group, then gene; the control has rows too
    order = table.index.get_level_values("pert")[::by_gene].get_indexer("g" + groups)
    statistic = table["statistic"].to_numpy().reshape(-1, by_gene)[order]
    p_value = np.nan_to_num(table["p_value"].to_numpy().reshape(-1, by_gene)[order], nan=1.0)
    size = labels.value_counts()
    # U exactly in the middle: scipy's continuity correction ends at p = 1, illico's below it
    p_value[statistic == (size[groups].to_numpy() * size[control] / 2)[:, None]] = 1.0
    _replace_by_exact(p_value, matrix, labels, groups, control)
    return RankSum(groups, statistic, p_value)


def _columns(matrix) -> sparse.csc_matrix | np.ndarray:
    """Bring the matrix to what illico reads: float32 or float64, each zero left out of a CSC.

    It takes every stored entry for a value above zero, so stored zeros would be ranked apart.
    """
    matrix = sparse.csc_matrix(matrix) if sparse.issparse(matrix) else np.asarray(matrix)
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float64)
    if sparse.issparse(matrix) and not (matrix.has_canonical_format and matrix.data.all()):
        matrix = matrix.copy()
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
    return matrix


def _replace_by_exact(p_value, matrix, labels, groups, control) -> None:
    """Overwrite in place the p-values of untied genes in groups of 8 cells or fewer."""
    from scipy.stats import mannwhitneyu

    is_control = np.asarray(labels == control)
    for row, group in enumerate(groups):
        is_group = np.asarray(labels == group)
        if min(is_group.sum(), is_control.sum()) > EXACT_LIMIT:
            continue
        x, y = (_dense(matrix[np.flatnonzero(m)]) for m in (is_group, is_control))
        both = np.sort(np.vstack([x, y]), axis=0)
        untied = np.flatnonzero((np.diff(both, axis=0) > 0).all(axis=0))
        if len(untied):
            exact = mannwhitneyu(x[:, untied], y[:, untied], method="exact", axis=0)
            p_value[row, untied] = exact.pvalue


def _dense(matrix) -> np.ndarray:
    return (matrix.toarray() if sparse.issparse(matrix) else matrix).astype(np.float64)


@contextmanager
def _quiet(silent: bool):
    """Keep illico's log lines and progress bar off the page; it has no switch for either."""
    from loguru import logger

    module = sys.modules["illico.asymptotic_wilcoxon"]
    logger.disable("illico")
    try:
        with mock.patch.object(module, "tqdm", lambda **kw: tqdm(**kw, disable=silent)):
            yield
    finally:
        logger.enable("illico")


def benjamini_hochberg(p_value: np.ndarray) -> np.ndarray:
    """Turn p-values into false discovery rates, pooled over the whole array.

    Parameters
    ----------
    p_value
        Any shape, 0 to 1, no NaN.

    Returns
    -------
    ndarray
        Same shape, float64: the smallest false discovery rate at which that test is called.

    Notes
    -----
    Benjamini and Hochberg 1995. Pooling matters: with vcc2025 all perturbations and genes of a
    file are one family, so a strong perturbation makes a weak one's genes easier to call.

    Taught in: notebooks/08_metrics_by_hand.
    """
    from scipy.stats import false_discovery_control  # a second that imports need not pay

    return false_discovery_control(p_value.ravel(), method="bh").reshape(p_value.shape)
