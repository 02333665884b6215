"""Exercises of chapters 13 to 15."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import adapt, features, metrics, models, scoring
from vcc_helpers.bulk import effect_strength
from vcc_helpers.course import exploits
from vcc_helpers.evaluation import repeated
from vcc_helpers.intervals import by_stratum, compare, interval
from vcc_helpers.presets import VCC2026
from vcc_helpers.splits import few_shot_split

from . import exercise
from ._data import BASELINE, WINNER, bulk, effect, honest, precision, sources, targets


def _scores(**named: models.EffectModel) -> pd.DataFrame:
    draws = [few_shot_split(targets(), n_support=10, seed=seed) for seed in range(40)]
    return repeated(named, bulk(5), draws)


@exercise("13-1")
def _targets_needed():
    elsewhere = features.source_effects(sources())
    kernel_ridge = models.kernel_ridge(elsewhere, alpha=0.3)
    table = _scores(knn=models.knn_baseline(elsewhere, 3), ridge=kernel_ridge)
    row = compare(table, "knn").loc[("ridge", "pds")]
    factor = ((row["high"] - row["low"]) / 2 / 0.02) ** 2
    yield "right", 23 * factor
    yield "not squared", 23 * np.sqrt(factor)
    yield "from 40", 40 * factor
    yield "factor", factor


@exercise("13-2")
def _lead_of_a_leak():
    x = effect(5).X
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    table = _scores(
        mean=models.mean_baseline(),
        honest=models.ridge(features.source_effects(sources()), alpha=0.1),
        leaky=models.ridge(pd.DataFrame(u[:, :5] * s[:5], index=targets()), alpha=0.1),
    )
    mean = interval(table)["mean"]
    yield "right", mean["leaky", "pds"] - mean["honest", "pds"]
    yield "over the mean", mean["leaky", "pds"] - mean["mean", "pds"]
    yield "MAE", mean["leaky", "mae"] - mean["honest", "mae"]


@exercise("13-3")
def _lead_on_strong_targets():
    """How far the zero-shot mean is ahead of no change."""
    zero_shot = adapt.ContextGain(sources(), prior=precision(), shrinkage=np.inf)
    table = _scores(zero_shot=zero_shot, nothing=models.no_change())
    strata = by_stratum(table, effect_strength(bulk(5))["norm"], n_strata=3)
    mean = interval(strata, by=("model", "stratum", "metric"))["mean"].unstack("stratum")
    lead = mean.loc["zero_shot"] - mean.loc["nothing"]
    yield "right", lead.loc["pds"].iloc[-1]
    yield "weakest", lead.loc["pds"].iloc[0]
    yield "MAE", lead.loc["mae"].iloc[-1]
    yield "middle", lead.loc["pds"].iloc[1]


@cache
def _curve(preset: str, factor: float) -> float:
    pred, real = honest()
    scaled = exploits.scale_effects(pred, factor=factor)
    return scoring.score(scaled, real, preset).overall(scoring.baseline(real, preset))


@exercise("14-1")
def _without_the_floor():
    free = dict.fromkeys(BASELINE, (-np.inf, np.inf))
    yield "right", metrics.overall(WINNER, BASELINE, limits=free)
    yield "with it", metrics.overall(WINNER, BASELINE)
    yield "MAE alone", 100 * (1 - WINNER["mae"] / BASELINE["mae"])


@exercise("14-2")
def _points_for_a_factor():
    yield "right", _curve("vcc2025", 3.0) - _curve("vcc2025", 1.0)
    yield "itself", _curve("vcc2025", 3.0)
    yield "2026", _curve("vcc2026", 3.0) - _curve("vcc2026", 1.0)


@exercise("14-3")
def _two_ranks():
    yield "right", metrics.pds_chance(50) - 0.5
    yield "of 2025", metrics.pds_chance(50)
    yield "13 targets", metrics.pds_chance(13) - 0.5


@exercise("15-1")
def _copied_controls():
    yield "right", "direction_fidelity"
    yield "error", "mse_normalized"
    yield "chance", "pds_cosine"
    yield "shared", "significant_jaccard"
    yield "changes", "lfc_nmae"
    yield "order", "direction_reach"


@exercise("15-2")
def _share_of_three_contexts():
    error = np.array([0.6, 0.9, 1.4])
    share = metrics.scaled(error, 0.99, 0.04, VCC2026.limits["mse_normalized"])
    yield "right", float(share.mean())
    yield "without limits", float(metrics.scaled(error.mean(), 0.99, 0.04))
    yield "sum", float(share.sum())


@exercise("15-3")
def _smallest_error():
    yield "right", 1 - 0.3**2
    yield "length", 0.3
    yield "full length", 2 - 2 * 0.3
    yield "no change", 1.0
