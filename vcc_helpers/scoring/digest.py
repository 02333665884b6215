"""A file reduced to what scoring needs of it, and the metrics of two such digests.

Taught in: notebooks/05_compute_the_metrics, notebooks/17_metrics_by_hand and
notebooks/25_score_by_the_rules_of_2026.

>>> from vcc_helpers.datasets import load_h1_sample
>>> truth = digest(load_h1_sample())
>>> truth.de.significant.shape
(5, 1000)
>>> compare(truth, truth).mean().to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from .. import metrics
from ..bulk import CONTROL, Pair, paired
from ..counts import fold_change, log2
from ..evaluation import OF_MEANS
from ..presets import VCC2025, Preset, get_preset
from ..stream.contrast import contrast
from ..stream.plan import Contrast
from .card import ScoreCard


@dataclass(frozen=True)
class DETable:
    """Differential expression of every perturbation against control.

    Attributes
    ----------
    perturbations, genes
        Names of the rows and columns of the arrays below, control left out.
    p_value, fdr
        Two-sided Wilcoxon rank-sum p-value, ``(n_perts, n_genes)``, float64; Benjamini-Hochberg
        over all of these at once, float32. By the rules of 2026 over each perturbation's tests,
        float64, and 1 for a gene that is not tested.
    fold_change, log2_fold_change
        Ratio of ``expm1`` of mean lognorm values, perturbed over control, float32; 20 or 1/20 where
        one of the two means is 0, and 1 where both are; its log2, taken before rounding. By the
        rules of 2026 of mean scaled counts, float64, and NaN for a gene that is not tested.
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


class Digest(NamedTuple):
    """What scoring needs of a file: its pseudobulk, and its differential expression.

    The pseudobulk is mean lognorm; by the rules of 2026 log1p of scaled sums of counts, and
    ``obs["sampling"]`` holds the sampling variance, summed over genes. The tests are against the
    file's own controls; in 2026 against the real ones.
    """

    bulk: anndata.AnnData
    de: DETable
    control: str = CONTROL


def de_table(cells: anndata.AnnData | str | Path, **settings) -> DETable:
    """Test every gene of every perturbation against the control cells, as pdex 0.1.27 does.

    `settings` are those of :func:`~vcc_helpers.stream.contrast`, such as ``control="ctrl"``; a
    ValueError lists every problem of labels, gene names and values. The perturbations are sorted.
    """
    return _table_of(contrast(cells, **settings), VCC2025)


def _table_of(found: Contrast, rules: Preset) -> DETable:
    # By the rules of 2026 the controls alone choose the genes, so that which are tested tells
    # nothing about the answer: cell-eval2 0.20.0, compute_de with the back end scanpy.
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
    """Return Benjamini and Hochberg's rates of the tests of the whole file, or of each row."""
    from scipy.stats import false_discovery_control  # takes a good part of a second to load

    axis = None if family == "file" else 1
    return false_discovery_control(p_value, axis=axis).reshape(p_value.shape)


def digest(
    cells: anndata.AnnData | str | Path, preset: str | Preset = "vcc2025", **settings
) -> Digest:
    """Reduce counts or lognorm, ``(n_cells, n_genes)``, or a file, to what scoring needs.

    `settings` are those of :func:`~vcc_helpers.stream.contrast`.
    """
    rules = get_preset(preset)
    return digest_of(contrast(cells, rules=rules, **settings), rules)


def digest_of(found: Contrast, rules: Preset) -> Digest:
    """Do what :func:`digest` does when the cells were read."""
    de = _table_of(found, rules)
    names = pd.Index(found.groups.astype(str))
    obs, var = pd.DataFrame({"n_cells": found.n_cells}, names), pd.DataFrame(index=found.genes)
    if not rules.bulk_target_sum:
        layers = {"variance": found.variance}
        return Digest(anndata.AnnData(found.mean, obs, var, layers=layers), de, found.control)
    size = found.counts.sum(axis=1, keepdims=True)
    profile = np.log1p(rules.bulk_target_sum / np.where(size > 0, size, 1) * found.counts)
    obs["sampling"] = np.maximum(found.sampling.sum(axis=1), 0)
    return Digest(anndata.AnnData(profile, obs, var), de, found.control)


def joined(parts: list[Contrast]) -> Contrast:
    """Put contrasts of some perturbations each, with the same controls, into one."""
    first, kept = parts[0], [part.groups != part.control for part in parts]
    others = np.concatenate([part.groups[of] for part, of in zip(parts, kept, strict=True)])
    groups = np.append(others, first.control)
    order, found = np.argsort(groups), {"p_value": np.vstack([part.p_value for part in parts])}
    found["p_value"] = found["p_value"][np.argsort(others)]
    for name in ("n_cells", *(set(Contrast._fields[4:]) - {"p_value"})):
        tables = [getattr(part, name) for part in parts]
        if len(tables[0]):
            rows = [table[of] for table, of in zip(tables, kept, strict=True)]
            found[name] = np.concatenate([*rows, tables[0][~kept[0]]])[order]
    return first._replace(groups=pd.Index(groups[order], dtype=object), **found)


@dataclass(frozen=True)
class _Sides:
    """Two digests, over the same genes and perturbations."""

    pred: Digest
    real: Digest

    @cached_property
    def means(self) -> Pair:
        return paired(self.pred.bulk, self.real.bulk, control=self.real.control)

    @cached_property
    def calls(self) -> list[metrics.Calls]:
        """Predicted and real calls, without each perturbation's own gene."""
        own, found = self.means.own_gene, []
        has = np.flatnonzero(own >= 0)
        for table in (self.pred.de, self.real.de):
            called = table.significant.copy()
            called[has, own[has]] = False
            found.append(metrics.Calls(called, table.log2_fold_change, table.p_value, table.fdr))
        return found

    @property
    def mse_normalized(self) -> float:
        names, pred, real = self.means.names, self.pred.bulk, self.real.bulk
        rows = (pred[names], real[names], real[[self.real.control]])
        *sides, base = (metrics.Sampled(b.X, b.obs["sampling"].to_numpy()) for b in rows)
        return metrics.mse_normalized(*sides, control=base, own_gene=self.means.own_gene)


#: How each metric is computed from two files; one number per perturbation, or one for all of them.
_MEASURES: Mapping[str, Callable[[_Sides], np.ndarray | float]] = {
    **{name: lambda s, of=measure: of(s.means) for name, measure in OF_MEANS.items()},
    "des": lambda s: metrics.des(
        s.pred.de.significant, s.pred.de.log2_fold_change, s.real.de.significant
    ),
    "deg_count_spearman": lambda s: metrics.deg_count_spearman(
        s.pred.de.significant, s.real.de.significant
    ),
    "lfc_spearman": lambda s: metrics.lfc_spearman(
        s.pred.de.fold_change, s.real.de.fold_change, s.real.de.significant
    ),
    "pr_auc": lambda s: metrics.pr_auc(s.pred.de.fdr, s.real.de.significant),
    "pds_cosine": lambda s: metrics.pds_cosine(
        s.means.pred_effect, s.means.real_effect, s.means.own_gene
    ),
    "mse_normalized": lambda s: s.mse_normalized,
    "direction_fidelity": lambda s: metrics.direction_fidelity(*s.calls),
    "direction_reach": lambda s: metrics.direction_reach(
        *s.calls, s.real.bulk.var_names.to_numpy()
    ),
    "significant_jaccard": lambda s: metrics.significant_jaccard(*(c.significant for c in s.calls)),
    "lfc_nmae": lambda s: metrics.lfc_nmae(
        s.pred.de.log2_fold_change, s.real.de.log2_fold_change, s.calls[1].significant
    ),
}


def compare(pred: Digest, real: Digest, preset: str | Preset = "vcc2025") -> pd.DataFrame:
    """Compute every metric of a preset from two digests, over the same genes and perturbations.

    Returned is a table as a score card's `per_perturbation`.
    """
    sides = _Sides(pred, real)
    columns = {name: _MEASURES[name](sides) for name in get_preset(preset).metrics}
    return pd.DataFrame(columns, index=sides.means.names, dtype=np.float64)


def _card(pred: Digest, real: Digest, rules: Preset, **settings) -> ScoreCard:
    """Compare two digests, and note where the prediction has no value and the truth itself has one.

    The worst value counts there, so that nobody gains by giving no answer. A metric that has no
    value at all keeps none; boards take that for the worst.
    """
    table, missed = compare(pred, real, rules), {}
    if gaps := tuple(name for name in table if 0 < table[name].isna().sum() < len(table)):
        known = compare(real, real, replace(rules, metrics=gaps)).notna()
        lost = {name: list(table.index[table[name].isna() & known[name]]) for name in gaps}
        missed = {name: rows for name, rows in lost.items() if rows}
    return ScoreCard(rules.name, table, settings, missed=missed)
