"""A file reduced to what scoring needs of it, and the metrics of two such digests.

Taught in: notebooks/08_metrics_by_hand.

>>> from vcc_helpers.datasets import load_h1_sample
>>> truth = digest(load_h1_sample())
>>> compare(truth, truth).mean().to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from .. import metrics
from ..bulk import CONTROL, PERTURBATION_KEY, Pair, paired
from ..evaluation import OF_MEANS
from ..presets import Preset, get_preset
from ..stream.contrast import contrast
from ..stream.open import check_same, labels_of, open_cells, problems
from .card import ScoreCard
from .de import DETable, de_of_contrast


class Digest(NamedTuple):
    """What scoring needs of a file: its pseudobulk, and its differential expression.

    Attributes
    ----------
    bulk
        Pseudobulk, ``(1 + n_perts, n_genes)``, mean lognorm; by the rules of 2026 log1p of scaled
        sums of counts, and ``obs["sampling"]`` holds the sampling variance, summed over genes.
    de
        Differential expression of each perturbation against the file's own controls; in 2026
        against the real ones.
    """

    bulk: anndata.AnnData
    de: DETable


def _check_pair(pred, real, perturbation_key: str, control: str, rules: Preset) -> None:
    key = {"perturbation_key": perturbation_key}
    found = problems(pred, name="pred", **key, control=None if rules.real_controls else control)
    found += problems(real, name="real", **key, control=control)
    if found:
        raise ValueError("\n".join(found))
    check_same(pred, real, **key, besides=control if rules.real_controls else None)
    targets = labels_of(real, perturbation_key).unique()
    if rules.leave_out_own_gene and not targets.isin(real.var_names).any():
        raise ValueError(
            f"real: none of the {len(targets) - 1} perturbations is named after a gene, the first "
            f"is {min(targets[targets != control])!r}, the first gene {real.var_names[0]!r}; "
            f"{rules.name} leaves the silenced genes out: label cells by gene symbol"
        )
    if rules.leave_out_own_gene and real.var_names.isin(targets).all():
        raise ValueError(
            f"real: each of the {real.n_vars} genes is a target, and {rules.name} leaves the genes "
            "of all targets out, so that none is left to compare; give cells with more genes"
        )


def digest(
    cells: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2025",
    **settings,
) -> Digest:
    """Reduce counts or lognorm, ``(n_cells, n_genes)``, or a file, to what scoring needs.

    `settings` are those of :func:`~vcc_helpers.stream.contrast`.
    """
    rules = get_preset(preset)
    found = contrast(cells, rules=rules, **settings)
    de = de_of_contrast(found, rules)
    names = pd.Index(found.groups.astype(str))
    obs, var = pd.DataFrame({"n_cells": found.n_cells}, names), pd.DataFrame(index=found.genes)
    if not rules.bulk_target_sum:
        layers = {"variance": found.variance}
        return Digest(anndata.AnnData(found.mean, obs, var, layers=layers), de)
    size = found.counts.sum(axis=1, keepdims=True)
    profile = np.log1p(rules.bulk_target_sum / np.where(size > 0, size, 1) * found.counts)
    obs["sampling"] = np.maximum(found.sampling.sum(axis=1), 0)
    return Digest(anndata.AnnData(profile, obs, var), de)


@dataclass(frozen=True)
class _Sides:
    """Two digests, over the same genes and perturbations."""

    pred: Digest
    real: Digest
    control: str

    @cached_property
    def means(self) -> Pair:
        """The pseudobulks, row i of every array the same perturbation."""
        return paired(self.pred.bulk, self.real.bulk, control=self.control)

    @property
    def calls(self) -> tuple[metrics.Calls, metrics.Calls]:
        """Predicted and real calls, without each perturbation's own gene."""
        return self._calls(self.pred.de), self._calls(self.real.de)

    def _calls(self, table: DETable) -> metrics.Calls:
        called, own = table.significant.copy(), self.means.own_gene
        has = np.flatnonzero(own >= 0)
        called[has, own[has]] = False
        return metrics.Calls(called, table.log2_fold_change, table.p_value, table.fdr)

    def sampled(self, side: Digest, names: Sequence[str] | None = None) -> metrics.Sampled:
        """Return profiles of the perturbations, or of some groups, with their variance."""
        place = side.bulk.obs_names.get_indexer(self.means.names if names is None else names)
        return metrics.Sampled(side.bulk.X[place], side.bulk.obs["sampling"].to_numpy()[place])


def _of_means(measure: Callable[[Pair], np.ndarray]) -> Callable[[_Sides], np.ndarray]:
    return lambda s: measure(s.means)


#: How each metric is computed from two files; one number a perturbation, or one for all of them.
_MEASURES: Mapping[str, Callable[[_Sides], np.ndarray | float]] = {
    **{name: _of_means(measure) for name, measure in OF_MEANS.items()},
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
    "mse_normalized": lambda s: metrics.mse_normalized(
        s.sampled(s.pred),
        s.sampled(s.real),
        control=s.sampled(s.real, [s.control]),
        own_gene=s.means.own_gene,
    ),
    "direction_fidelity": lambda s: metrics.direction_fidelity(*s.calls),
    "direction_reach": lambda s: metrics.direction_reach(
        *s.calls, s.real.bulk.var_names.to_numpy()
    ),
    "significant_jaccard": lambda s: metrics.significant_jaccard(*(c.significant for c in s.calls)),
    "lfc_nmae": lambda s: metrics.lfc_nmae(
        s.pred.de.log2_fold_change, s.real.de.log2_fold_change, s.calls[1].significant
    ),
}


def compare(
    pred: Digest, real: Digest, preset: str | Preset = "vcc2025", *, control: str = CONTROL
) -> pd.DataFrame:
    """Compute every metric of a preset from two digests, over the same genes and perturbations.

    Returns
    -------
    DataFrame
        As a score card's `per_perturbation`.
    """
    sides = _Sides(pred, real, control)
    columns = {name: _MEASURES[name](sides) for name in get_preset(preset).metrics}
    return pd.DataFrame(columns, index=sides.means.names, dtype=np.float64)


def counted(
    table: pd.DataFrame, real: Digest, preset: str | Preset, *, control: str
) -> pd.DataFrame:
    """Put the worst value where a table of :func:`compare` has none and the truth itself has one.

    So that nobody gains by giving no answer. A metric that has no value at all keeps none; boards
    take that for the worst.
    """
    gaps = tuple(name for name in table if table[name].isna().any() and table[name].notna().any())
    if not gaps:
        return table
    rules = replace(get_preset(preset), metrics=gaps)
    known = compare(real, real, rules, control=control).notna()
    worst = {name: table[name].mask(table[name].isna() & known[name], metrics.WORST[name])
             for name in gaps}  # fmt: skip
    return table.assign(**worst)


def _score(
    pred,
    real,
    rules: Preset,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
    **settings,
) -> ScoreCard:
    """Do :func:`~.scoring.score`, without what a score is held against."""
    _check_pair(open_cells(pred), open_cells(real), perturbation_key, control, rules)
    question = {"perturbation_key": perturbation_key, "control": control}
    means = question | settings
    controls = real if rules.real_controls else None
    found = digest(pred, rules, name="pred", controls=controls, **means)
    truth = digest(real, rules, name="real", **means)
    table = compare(found, truth, rules, control=control)
    lost = table.isna() & counted(table, truth, rules, control=control).notna()
    missed = {name: list(table.index[lost[name]]) for name in table if lost[name].any()}
    return ScoreCard(rules.name, table, question | {"source": rules.source}, missed=missed)
