"""Exercises of notebooks/14_measure_what_metrics_reward: a floor, a factor, two ranks.

Needs: adapt, datasets, effects, emit, exploits, metrics, scoring, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("14-1", ...).status
'not attempted'
"""

from functools import cache

import numpy as np

from vcc_helpers import adapt, emit, metrics, scoring, splits
from vcc_helpers.bulk import effects
from vcc_helpers.course import exploits
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

_BASE = {"des": 0.095, "pds": 0.508, "mae": 0.026}
_WINNER = {"des": 0.349, "pds": 0.872, "mae": 1.03}


def _without_floor() -> float:
    free = dict.fromkeys(_BASE, (-np.inf, np.inf))
    return metrics.overall(_WINNER, _BASE, limits=free)


@cache
def _curve(preset: str, factor: float) -> float:
    honest, real = _deal()
    base = scoring.baseline(real, preset)
    return scoring.score(exploits.scale_effects(honest, factor=factor), real, preset).overall(base)


@cache
def _deal(seed: int = 1):
    screen = load_hipsc_screen()
    day = {d: screen[screen.obs["day"] == d] for d in (2, 3, 4, 5)}
    sources = {f"day {d}": effects(pseudobulk(day[d])) for d in (2, 3, 4)}
    fold = splits.few_shot_split(sources["day 4"].obs_names, n_support=10, seed=seed)
    known, real = (
        day[5][day[5].obs["target_gene"].isin(["non-targeting", *names])].copy() for names in fold
    )
    predicted = adapt.ContextGain(sources).fit(pseudobulk(known)).predict(fold.query)
    honest = emit.negative_binomial(
        predicted,
        controls=known[known.obs["target_gene"] == "non-targeting"].copy(),
        n_cells=real.obs["target_gene"].astype(str).value_counts()[fold.query],
        target_sum=np.median(np.ravel(known.X.sum(axis=1))),
        seed=seed,
    )
    return honest, real


EXERCISES = {
    "14-1": Exercise(
        solution=_without_floor,
        right="More than a thousand points below zero. With that rule nobody would have handed in "
        "such a file: the floor made the error free, and so it was spent.",
        hints=(
            Hint(
                lambda: metrics.overall(_WINNER, _BASE),
                "That is the published score, with the floor. Let the scaled values be negative.",
            ),
            Hint(
                lambda: _without_floor() / 100,
                "That is on a scale of 0 to 1. The leaderboard's goes to 100.",
            ),
            Hint(
                lambda: 100 * (1 - _WINNER["mae"] / _BASE["mae"]),
                "That is the scaled MAE alone. The overall score is the mean of three.",
            ),
        ),
    ),
    "14-2": Exercise(
        solution=lambda: _curve("vcc2025", 3.0) - _curve("vcc2025", 1.0),
        right="Points for nothing: the model knows no more than before.",
        hints=(
            Hint(
                lambda: _curve("vcc2025", 1.0) - _curve("vcc2025", 3.0),
                "The sign is turned round: the scaled prediction minus the honest one.",
            ),
            Hint(
                lambda: _curve("vcc2025", 3.0),
                "That is the score itself. Subtract what the honest prediction has.",
            ),
            Hint(
                lambda: _curve("vcc2026", 3.0) - _curve("vcc2026", 1.0),
                "Those are the rules of 2026. The question is about 2025.",
            ),
        ),
    ),
    "14-3": Exercise(
        solution=lambda: metrics.pds_chance(50) - 0.5,
        right="A hundredth. Small, but a baseline of .51 is not one of .50: compare a PDS with "
        "chance for its own number of targets.",
        hints=(
            Hint(
                lambda: 0.5 - metrics.pds_chance(50),
                "The sign is turned round: 2025 minus 2026.",
            ),
            Hint(
                lambda: metrics.pds_chance(50),
                "That is 2025's. Subtract the 0.5 of 2026.",
            ),
            Hint(
                lambda: metrics.pds_chance(13) - 0.5,
                "That is for 13 targets. The question is for 50.",
            ),
        ),
    ),
}
