"""Exercises of notebooks/15_score_by_the_rules_of_2026: genes left out, calls, a scale."""

from functools import cache

import numpy as np

from vcc_helpers import metrics, scoring
from vcc_helpers.bulk import CONTROL
from vcc_helpers.presets import VCC2026

from . import exercise
from ._data import honest


@cache
def _discrimination(*, left_out: bool) -> float:
    pred, real = honest()
    truth = scoring.digest(real, VCC2026).bulk
    guess = scoring.digest(pred, VCC2026, controls=real).bulk
    names, base = truth.obs_names.drop(CONTROL), truth[CONTROL].X
    own = truth.var_names.get_indexer(names) if left_out else np.full(len(names), -1)
    return float(metrics.pds_cosine(guess[names].X - base, truth[names].X - base, own).mean())


@exercise("15-1")
def _genes_left_out():
    yield "right", _discrimination(left_out=False) - _discrimination(left_out=True)
    yield "without exclusion", _discrimination(left_out=False)
    yield "from chance", _discrimination(left_out=False) - 0.5


@exercise("15-2")
def _jaccard():
    yield "right", 15 / 40
    yield "precision", 15 / 20
    yield "coverage", 20 / 40
    yield "sum", 15 / 60


@exercise("15-3")
def _scaled_error():
    yield "right", (0.98 - 0.3) / (0.98 - 0.04)
    yield "from 0", 1 - 0.3 / 0.98
    yield "distance", 0.98 - 0.3
    yield "turned", (0.3 - 0.04) / (0.98 - 0.04)
