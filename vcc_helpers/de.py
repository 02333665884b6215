"""Differential expression: which genes does each perturbation change, and how much?

Taught in: notebooks/08_metrics_by_hand.
Needs: cells.py, effects.py, ranksum.py.

>>> from vcc_helpers.datasets import load_h1_sample
>>> table = de_table(load_h1_sample())
>>> table.significant.shape
(5, 1000)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from .cells import CONTROL, PERTURBATION_KEY, check_cells, labels_of, open_cells
from .effects import lognorm
from .ranksum import benjamini_hochberg, rank_sum

#: Genes made dense at a time, to average them in the order that the official scorer does.
GENES_AT_ONCE = 256


@dataclass(frozen=True)
class DETable:
    """Differential expression of every perturbation against control.

    Attributes
    ----------
    perturbations, genes
        Names of the rows and columns of the arrays below, control left out.
    p_value
        Two-sided Wilcoxon rank-sum p-value, ``(n_perts, n_genes)``, float64.
    fdr
        Benjamini-Hochberg over all of `p_value` at once, same shape, float32.
    log2_fold_change
        log2 of the ratio of ``expm1`` of mean lognorm values, perturbed over control, same shape,
        float32; at most ``log2(20)`` in size where one of the two means is 0, and 0 where both are.
    threshold
        A gene is significant where `fdr` is below this.
    """

    perturbations: pd.Index
    genes: pd.Index
    p_value: np.ndarray
    fdr: np.ndarray
    log2_fold_change: np.ndarray
    threshold: float = 0.05

    @property
    def significant(self) -> np.ndarray:
        """Which genes are called, ``(n_perts, n_genes)``, bool."""
        return self.fdr < np.float32(self.threshold)

    def to_frame(self) -> pd.DataFrame:
        """Return the table in long form, one row per perturbation and gene.

        Returns
        -------
        DataFrame
            Columns target_gene, gene, p_value, fdr, log2_fold_change, significant.
        """
        columns = ("p_value", "fdr", "log2_fold_change", "significant")
        index = pd.MultiIndex.from_product(
            [self.perturbations, self.genes], names=["target_gene", "gene"]
        )
        values = {name: getattr(self, name).ravel() for name in columns}
        return pd.DataFrame(values, index=index).reset_index()


def de_table(
    cells: anndata.AnnData | str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    fdr: float = 0.05,
    clip: float = 20.0,
    threads: int | None = None,
    progress: bool = False,
) -> DETable:
    """Test every gene of every perturbation against the control cells.

    Parameters
    ----------
    cells
        Counts or log-normalised values, shape ``(n_cells, n_genes)``, or the path of an
        ``.h5ad``. The log-normalised values are held in memory once.
    perturbation_key
        The column of ``cells.obs`` to group by.
    control
        The label of control cells.
    fdr
        A gene is significant below this false discovery rate.
    clip
        As for :func:`log2_fold_change`.
    threads
        Number of threads; all cores by default.
    progress
        Show a progress bar.

    Returns
    -------
    DETable
        Perturbations sorted by name.

    Raises
    ------
    ValueError
        Labels, gene names or values are unusable; every problem is listed.

    Notes
    -----
    The rules are those of pdex 0.1.27 as cell-eval 0.6.6 calls it.

    Taught in: notebooks/08_metrics_by_hand.
    """
    cells = open_cells(cells)
    check_cells(cells, perturbation_key=perturbation_key, control=control)
    labels = labels_of(cells, perturbation_key)
    return de_of_lognorm(
        lognorm(cells),
        labels,
        cells.var_names,
        control=control,
        fdr=fdr,
        clip=clip,
        threads=threads,
        progress=progress,
    )


def de_of_lognorm(
    matrix: sparse.csr_matrix | np.ndarray,
    labels: pd.Index,
    genes: pd.Index,
    *,
    control: str = CONTROL,
    fdr: float = 0.05,
    clip: float = 20.0,
    threads: int | None = None,
    progress: bool = False,
) -> DETable:
    """Do :func:`de_table` on a matrix that is log-normalised already.

    Parameters
    ----------
    matrix
        Shape ``(n_cells, n_genes)``, lognorm.
    labels
        Perturbation of each cell, shape ``(n_cells,)``, str.
    genes
        Gene names, shape ``(n_genes,)``.
    control, fdr, clip, threads, progress
        As for :func:`de_table`.

    Returns
    -------
    DETable
        Perturbations sorted by name.

    Notes
    -----
    Taught in: notebooks/08_metrics_by_hand.
    """
    columns = matrix.tocsc() if sparse.issparse(matrix) else matrix
    test = rank_sum(columns, labels, control=control, threads=threads, progress=progress)
    target_mean, control_mean = _means_in_order(columns, labels, test.groups, control)
    return DETable(
        perturbations=test.groups,
        genes=pd.Index(genes),
        p_value=test.p_value,
        fdr=benjamini_hochberg(test.p_value).astype(np.float32),
        log2_fold_change=log2_fold_change(target_mean, control_mean, clip=clip),
        threshold=fdr,
    )


def _means_in_order(matrix, labels, groups, control) -> tuple[np.ndarray, np.ndarray]:
    """Average each group's cells gene by gene, in the data's precision and the cells' order.

    A sparse product would be faster, but its float32 sums run in another order. The last digit
    decides which of two nearly equal fold changes comes first, and so it decides DES.
    """
    rows = [np.flatnonzero(labels == group) for group in [*groups, control]]
    mean = np.empty((len(rows), matrix.shape[1]), dtype=matrix.dtype)
    for start in range(0, matrix.shape[1], GENES_AT_ONCE):
        block = matrix[:, start : start + GENES_AT_ONCE]
        block = block.toarray() if sparse.issparse(block) else block
        by_gene = np.ascontiguousarray(block.T)
        for i, row in enumerate(rows):
            mean[i, start : start + GENES_AT_ONCE] = by_gene.take(row, axis=1).mean(axis=1)
    return mean[:-1], mean[-1]


def log2_fold_change(
    target_mean: np.ndarray, control_mean: np.ndarray, *, clip: float = 20.0
) -> np.ndarray:
    """Return log2 of the ratio of back-transformed means.

    Parameters
    ----------
    target_mean
        Mean lognorm value in perturbed cells, ``(n_perts, n_genes)``.
    control_mean
        Mean lognorm value in control cells, ``(n_genes,)``.
    clip
        The ratio where the control's mean is 0; its inverse where the perturbation's is.

    Returns
    -------
    ndarray
        ``(n_perts, n_genes)``, float32. 0 where both means are 0.

    Notes
    -----
    The mean is taken first and ``expm1`` after it, so this is no ratio of arithmetic means, as in
    pdex 0.1.27. `clip` fills in for a division by zero and limits nothing else. The precision of
    the logarithm follows the official table's: that is float32 unless the data are float64 or
    some mean of the file is 0. The last digit matters, since DES cuts a list that it sorts.

    Taught in: notebooks/08_metrics_by_hand.
    """
    target, base = np.expm1(target_mean), np.expm1(control_mean)
    silent = (target == 0) | (base == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = target / base
    dtype = np.float64 if silent.any() else ratio.dtype.type
    ratio = np.where(base == 0, clip, ratio.astype(np.float64))
    ratio = np.where(target == 0, 1 / clip, ratio)
    ratio = np.where((base == 0) & (target == 0), 1.0, ratio)
    return (np.log(ratio).astype(dtype) / np.log(2.0).astype(dtype)).astype(np.float32)
