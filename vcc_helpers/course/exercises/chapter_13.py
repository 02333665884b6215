"""Exercises of notebooks/13_choose_and_compare_models: intervals, a leak, strata."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import adapt, features, models
from vcc_helpers.bulk import effect_strength
from vcc_helpers.evaluation import repeated
from vcc_helpers.intervals import by_stratum, compare, interval
from vcc_helpers.splits import few_shot_split

from . import exercise
from ._data import bulk, effect, precision, sources, targets


def _scores(**named: models.EffectModel) -> pd.DataFrame:
    draws = [few_shot_split(targets(), n_support=10, seed=seed) for seed in range(40)]
    return repeated(named, bulk(5), draws)


@cache
def _half_width() -> float:
    elsewhere = features.source_effects(sources())
    kernel_ridge = models.kernel_ridge(elsewhere, alpha=0.3)
    table = _scores(knn=models.knn_baseline(elsewhere, 3), ridge=kernel_ridge)
    row = compare(table, "knn").loc[("ridge", "pds")]
    return (row["high"] - row["low"]) / 2


@cache
def _leak() -> pd.DataFrame:
    x = effect(5).X
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    leaky = pd.DataFrame(u[:, :5] * s[:5], index=targets())
    table = _scores(
        mean=models.mean_baseline(),
        honest=models.ridge(features.source_effects(sources()), alpha=0.1),
        leaky=models.ridge(leaky, alpha=0.1),
    )
    return interval(table)["mean"].unstack("model")


@cache
def _ahead() -> pd.DataFrame:
    """Lead of the zero-shot mean over no change, metric by stratum."""
    zero_shot = adapt.ContextGain(sources(), prior=precision(), shrinkage=np.inf)
    table = _scores(zero_shot=zero_shot, nothing=models.no_change())
    strata = by_stratum(table, effect_strength(bulk(5))["norm"], n_strata=3)
    means = interval(strata, by=("model", "stratum", "metric"))["mean"].unstack("stratum")
    return means.loc["zero_shot"] - means.loc["nothing"]


@exercise("13-1")
def _targets_needed():
    factor = (_half_width() / 0.02) ** 2
    yield "right", 23 * factor
    yield "not squared", 23 * np.sqrt(factor)
    yield "from 40", 40 * factor
    yield "factor", factor


@exercise("13-2")
def _lead_of_a_leak():
    pds, mae = _leak().loc["pds"], _leak().loc["mae"]
    yield "right", pds["leaky"] - pds["honest"]
    yield "over the mean", pds["leaky"] - pds["mean"]
    yield "MAE", mae["leaky"] - mae["honest"]


@exercise("13-3")
def _lead_on_strong_targets():
    yield "right", _ahead().loc["pds"].iloc[-1]
    yield "weakest", _ahead().loc["pds"].iloc[0]
    yield "MAE", _ahead().loc["mae"].iloc[-1]
    yield "middle", _ahead().loc["pds"].iloc[1]
