"""Exercises of notebooks/14_measure_what_metrics_reward: a floor, a factor, two ranks."""

from functools import cache

import numpy as np

from vcc_helpers import metrics, scoring
from vcc_helpers.course import exploits

from . import exercise
from ._data import BASELINE, WINNER, honest


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
