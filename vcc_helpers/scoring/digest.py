"""A file reduced to what scoring needs of it, and the metrics of two such digests.

Taught in: notebooks/08_metrics_by_hand.

>>> from vcc_helpers.datasets import load_h1_sample
>>> truth = digest(load_h1_sample())
>>> compare(truth, truth).mean().to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from .. import metrics
from ..bulk import CONTROL, PERTURBATION_KEY, paired
from ..evaluation import OF_MEANS
from ..presets import Preset, get_preset
from ..stream.contrast import contrast
from ..stream.open import check_same, labels_of, open_cells, problems
from .card import ScoreCard
from .de import DETable, de_of_contrast, de_of_counts


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
    *,
    name: str = "cells",
    **settings,
) -> Digest:
    """Reduce a file to what scoring needs of it.

    Parameters
    ----------
    cells
        Counts or lognorm, ``(n_cells, n_genes)``, or a path.
    preset
        The rules, by name or as a record.
    name, **settings
        As for :func:`~vcc_helpers.stream.contrast`.
    """
    rules = get_preset(preset)
    found = contrast(cells, name=name, rules=rules, **settings)
    names = pd.Index(found.groups.astype(str))
    obs, var = pd.DataFrame({"n_cells": found.n_cells}, names), pd.DataFrame(index=found.genes)
    call = {"fdr": rules.fdr, "fdr_family": rules.fdr_family}
    if not rules.bulk_target_sum:
        bulk = anndata.AnnData(found.mean, obs, var, layers={"variance": found.variance})
        return Digest(bulk, de_of_contrast(found, clip=rules.fold_change_clip, **call))
    size = found.counts.sum(axis=1, keepdims=True)
    profile = np.log1p(rules.bulk_target_sum / np.where(size > 0, size, 1) * found.counts)
    obs["sampling"] = np.maximum(found.sampling.sum(axis=1), 0)
    call |= {"pseudocount": rules.pseudocount, "least_cpm": rules.least_cpm}
    return Digest(anndata.AnnData(profile, obs, var), de_of_counts(found, **call))


class _Pair(NamedTuple):
    """Two files, side by side: row i of every array is the same perturbation."""

    pred: DETable | None
    real: DETable | None
    names: pd.Index
    pred_mean: np.ndarray
    real_mean: np.ndarray
    pred_effect: np.ndarray
    real_effect: np.ndarray
    own_gene: np.ndarray
    sampled: Mapping[str, metrics.Sampled]
    genes: np.ndarray

    @property
    def calls(self) -> tuple[metrics.Calls, metrics.Calls]:
        """Predicted and real calls, without each perturbation's own gene."""
        return tuple(_calls(table, self.own_gene) for table in (self.pred, self.real))


def _calls(table: DETable, own_gene: np.ndarray) -> metrics.Calls:
    called, has = table.significant.copy(), np.flatnonzero(own_gene >= 0)
    called[has, own_gene[has]] = False
    return metrics.Calls(called, table.log2_fold_change, table.p_value, table.fdr)


#: How each metric is computed from two files; one number a perturbation, or one for all of them.
MEASURES: Mapping[str, Callable[[_Pair], np.ndarray | float]] = {
    "des": lambda p: metrics.des(p.pred.significant, p.pred.log2_fold_change, p.real.significant),
    **OF_MEANS,
    "deg_count_spearman": lambda p: metrics.deg_count_spearman(
        p.pred.significant, p.real.significant
    ),
    "lfc_spearman": lambda p: metrics.lfc_spearman(
        p.pred.fold_change, p.real.fold_change, p.real.significant
    ),
    "pr_auc": lambda p: metrics.pr_auc(p.pred.fdr, p.real.significant),
    "pds_cosine": lambda p: metrics.pds_cosine(p.pred_effect, p.real_effect, p.own_gene),
    "mse_normalized": lambda p: metrics.mse_normalized(
        p.sampled["pred"], p.sampled["real"], control=p.sampled["control"], own_gene=p.own_gene
    ),
    "direction_fidelity": lambda p: metrics.direction_fidelity(*p.calls),
    "direction_reach": lambda p: metrics.direction_reach(*p.calls, p.genes),
    "significant_jaccard": lambda p: metrics.significant_jaccard(*(c.significant for c in p.calls)),
    "lfc_nmae": lambda p: metrics.lfc_nmae(
        p.pred.log2_fold_change, p.real.log2_fold_change, p.calls[1].significant
    ),
}


def compare(
    pred: Digest, real: Digest, preset: str | Preset = "vcc2025", *, control: str = CONTROL
) -> pd.DataFrame:
    """Compute every metric of a preset from two digests, over the same genes and perturbations.

    Returns
    -------
    DataFrame
        Index target_gene, sorted; the preset's metrics as columns. A metric of the whole panel
        (deg_count_spearman, mse_normalized) has the same number in each row.
    """
    pair = _side_by_side(pred.bulk, real.bulk, control)._replace(pred=pred.de, real=real.de)
    columns = {name: MEASURES[name](pair) for name in get_preset(preset).metrics}
    return pd.DataFrame(columns, index=pair.names, dtype=np.float64)


def _side_by_side(pred: anndata.AnnData, real: anndata.AnnData, control: str) -> _Pair:
    pair, sampled = paired(pred, real, control=control), {}
    if "sampling" in real.obs:
        names = pair.names
        rows = {"pred": (pred, names), "real": (real, names), "control": (real, [control])}
        for side, (bulk, some) in rows.items():
            place = bulk.obs_names.get_indexer(some)
            sampled[side] = metrics.Sampled(bulk.X[place], bulk.obs["sampling"].to_numpy()[place])
    return _Pair(None, None, *pair, sampled, real.var_names.to_numpy())


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
    halves = [
        digest(cells, rules, name=name, controls=controls, **question, **settings)
        for name, cells, controls in (
            ("pred", pred, real if rules.real_controls else None),
            ("real", real, None),
        )
    ]
    table = compare(*halves, rules, control=control)
    return ScoreCard(rules.name, table, question | {"source": rules.source})
