"""Differential expression: which genes does each perturbation change, and how much?

Taught in: notebooks/08_metrics_by_hand and notebooks/15_score_by_the_rules_of_2026.

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
from scipy.stats import false_discovery_control

from ..bulk import CONTROL, PERTURBATION_KEY
from ..counts import fold_change, log2
from ..presets import VCC2025, Preset
from ..stream.contrast import contrast
from ..stream.job import Contrast


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
        Benjamini-Hochberg over all of `p_value` at once, same shape, float32; by the rules of 2026
        over each perturbation's tests, float64, and 1 for a gene that is not tested.
    fold_change
        Ratio of ``expm1`` of mean lognorm values, perturbed over control, same shape, float32; 20
        or 1/20 where one of the two means is 0, and 1 where both are. By the rules of 2026 of mean
        scaled counts, float64.
    log2_fold_change
        Its log2, taken before rounding to float32, same shape; NaN for a gene that is not tested.
    threshold
        A gene is significant where `fdr` is below this.
    """

    perturbations: pd.Index
    genes: pd.Index
    p_value: np.ndarray
    fdr: np.ndarray
    fold_change: np.ndarray
    log2_fold_change: np.ndarray
    threshold: float = 0.05

    @property
    def significant(self) -> np.ndarray:
        """Which genes are called, ``(n_perts, n_genes)``, bool."""
        return self.fdr < self.fdr.dtype.type(self.threshold)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per perturbation and gene: target_gene, gene, p_value, fdr, and so on."""
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
    memory: int | float | str = "4GB",
    threads: int | None = None,
) -> DETable:
    """Test every gene of every perturbation against the control cells, as pdex 0.1.27 does.

    Parameters
    ----------
    cells, perturbation_key, control, memory, threads
        As for :func:`~vcc_helpers.stream.contrast`.

    Returns
    -------
    DETable
        Perturbations sorted by name.

    Raises
    ------
    ValueError
        Labels, gene names or values are unusable; every problem is listed.
    """
    question = {"perturbation_key": perturbation_key, "control": control}
    return de_of_contrast(contrast(cells, memory=memory, threads=threads, **question), VCC2025)


def de_of_contrast(found: Contrast, rules: Preset) -> DETable:
    """Make the table from what :func:`~vcc_helpers.stream.contrast` found.

    By the rules of 2026 the controls alone choose the genes, those with more than `least_cpm`, so
    that which genes are tested tells nothing about the answer; the others have a p-value and a rate
    of 1, and NaN for a fold change. Source: cell-eval2 0.20.0, ``compute_de`` with the back end
    ``scanpy``.
    """
    is_control = found.groups == found.control
    names = found.groups[~is_control], found.genes
    if rules.pseudocount is None:
        mean = found.mean_as_summed
        ratio = fold_change(mean[~is_control], mean[is_control][0], clip=rules.fold_change_clip)
        rate = _rates(found.p_value, rules.fdr_family).astype(np.float32)
        changes = ratio.astype(np.float32), log2(ratio)
        return DETable(*names, found.p_value, rate, *changes, threshold=rules.fdr)
    cpm, base = found.scaled_mean[~is_control], found.scaled_mean[is_control][0]
    tested = base > rules.least_cpm
    p_value = np.where(tested, found.p_value, 1.0)
    rate = np.ones_like(p_value)
    rate[:, tested] = _rates(p_value[:, tested], rules.fdr_family)
    ratio = (cpm + rules.pseudocount) / (base + rules.pseudocount)
    ratio = np.where(tested, ratio, np.nan)
    return DETable(*names, p_value, rate, ratio, np.log2(ratio), threshold=rules.fdr)


def _rates(p_value: np.ndarray, family: str) -> np.ndarray:
    if family == "file":
        return false_discovery_control(p_value, axis=None).reshape(p_value.shape)
    return false_discovery_control(p_value, axis=1)
