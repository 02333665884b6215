"""Exercises of notebooks/13_choose_and_compare_models: intervals, a leak, strata.

Needs: adapt, datasets, effects, evaluation, features, models, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("13-1", ...).status
'not attempted'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, features, models
from vcc_helpers.bulk import effect_strength, effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.evaluation import repeated
from vcc_helpers.intervals import by_stratum, compare, interval
from vcc_helpers.splits import few_shot_split
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _bulk(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == day])


@cache
def _sources() -> dict[str, anndata.AnnData]:
    return {f"day {day}": effects(_bulk(day)) for day in (2, 3, 4)}


def _scores(**named) -> pd.DataFrame:
    targets = effects(_bulk(5)).obs_names
    draws = [few_shot_split(targets, n_support=10, seed=seed) for seed in range(40)]
    return repeated(named, _bulk(5), draws)


@cache
def _half_width() -> float:
    elsewhere = features.source_effects(_sources())
    table = _scores(knn=models.knn_baseline(elsewhere, 3), ridge=_kernel_ridge(elsewhere))
    row = compare(table, "knn").loc[("ridge", "pds")]
    return (row["high"] - row["low"]) / 2


def _kernel_ridge(elsewhere: pd.DataFrame) -> models.EffectModel:
    return models.kernel_ridge(elsewhere, alpha=0.3)


@cache
def _leak() -> pd.DataFrame:
    effect = effects(_bulk(5))
    u, s, _ = np.linalg.svd(effect.X - effect.X.mean(axis=0), full_matrices=False)
    leaky = pd.DataFrame(u[:, :5] * s[:5], index=effect.obs_names)
    honest = features.source_effects(_sources())
    table = _scores(
        mean=models.mean_baseline(),
        honest=models.ridge(honest, alpha=0.1),
        leaky=models.ridge(leaky, alpha=0.1),
    )
    return interval(table)["mean"].unstack("metric")


@cache
def _by_strength() -> pd.DataFrame:
    weights = adapt.precision({f"day {day}": _bulk(day) for day in (2, 3, 4)})
    zero_shot = adapt.ContextGain(_sources(), prior=weights, shrinkage=np.inf)
    table = _scores(zero_shot=zero_shot, nothing=models.no_change())
    strata = by_stratum(table, effect_strength(_bulk(5))["norm"], n_strata=3)
    return interval(strata, by=("model", "stratum", "metric"))["mean"].unstack("stratum")


def _ahead(stratum: int, metric: str = "pds") -> float:
    column = _by_strength().iloc[:, stratum]
    return float(column["zero_shot", metric] - column["nothing", metric])


EXERCISES = {
    "13-1": Exercise(
        solution=lambda: 23 * (_half_width() / 0.02) ** 2,
        right="Several times the targets of this screen. Two models that know the same of a target "
        "differ by little; the challenge's 50 validation targets would leave this pair open.",
        hints=(
            Hint(
                lambda: 23 * _half_width() / 0.02,
                "A half-width shrinks with the root of the number of targets: square the ratio.",
            ),
            Hint(
                lambda: 40 * (_half_width() / 0.02) ** 2,
                "That starts from 40, the number of splits. The interval is over 23 targets.",
            ),
            Hint(
                lambda: (_half_width() / 0.02) ** 2,
                "That is by which factor there must be more targets. Multiply by 23.",
            ),
        ),
    ),
    "13-2": Exercise(
        solution=lambda: _leak()["pds"]["leaky"] - _leak()["pds"]["honest"],
        right="That much from a table that looks like any other. Ask of every feature: could it "
        "have been made before the experiment that it is to predict?",
        hints=(
            Hint(
                lambda: _leak()["pds"]["leaky"] - _leak()["pds"]["mean"],
                "That is the lead over the mean. Compare with ridge on days 2 to 4.",
            ),
            Hint(
                lambda: _leak()["mae"]["leaky"] - _leak()["mae"]["honest"],
                "That is the difference in MAE. The question is about PDS.",
            ),
            Hint(
                lambda: _leak()["pds"]["honest"] - _leak()["pds"]["leaky"],
                "The sign is turned round: leaky minus honest.",
            ),
        ),
    ),
    "13-3": Exercise(
        solution=lambda: _ahead(-1),
        right="More than on the weak ones, where predicting nothing is already near every effect. "
        "A single mean over both would tell you neither.",
        hints=(
            Hint(
                lambda: _ahead(0),
                "That is the third with the weakest effects. The strata are ordered: take the "
                "last column.",
            ),
            Hint(
                lambda: _ahead(-1, "mae"),
                "That is the difference in MAE. The question is about PDS.",
            ),
            Hint(
                lambda: _ahead(1),
                "That is the third in the middle. Take the last column.",
            ),
        ),
    ),
}
