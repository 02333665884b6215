"""Exercises of notebooks/15_score_by_the_rules_of_2026: genes left out, calls, a scale."""

from functools import cache

import numpy as np

from vcc_helpers import metrics, scoring
from vcc_helpers.bulk import CONTROL
from vcc_helpers.presets import VCC2026

from . import Answers, exercise
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
def _genes_left_out() -> Answers:
    """Find what PDS loses by leaving out the targets' genes.

    right: A target's own gene is the easiest to predict, and the others' knock-downs are what tells
        them apart. Without these genes only the response is compared.
    without exclusion: That is the mean without exclusion. Subtract the card's.
    from chance: That is the distance to chance. Subtract the card's mean.
    """
    yield "right", _discrimination(left_out=False) - _discrimination(left_out=True)
    yield "without exclusion", _discrimination(left_out=False)
    yield "from chance", _discrimination(left_out=False) - 0.5


@exercise("15-2")
def _jaccard() -> Answers:
    """Significant Jaccard of 15 right ones of 20, with 40 real ones.

    right: Right directions, but half of the genes are missing: 0.75 times one half.
    precision: That is the share of right calls. Genes that are missing count, too: divide by the
        larger of the two numbers.
    coverage: That is the coverage. Times the share of right directions.
    sum: Not the sum: the larger of the two numbers.
    """
    yield "right", 15 / 40
    yield "precision", 15 / 20
    yield "coverage", 20 / 40
    yield "sum", 15 / 60


@exercise("15-3")
def _scaled_error() -> Answers:
    """Place an MSE of 0.3 on the scale from baseline to replicate.

    right: Nearly three quarters of the way from the mean to a repeat of the experiment.
    from 0: That takes a perfect 0 for the 1 of the scale, as 2025 did. Here it is the replicate.
    distance: That is a distance from the baseline. Divide it by the baseline's distance from the
        replicate.
    turned: That is the distance from the replicate. The baseline is the 0.
    """
    yield "right", (0.98 - 0.3) / (0.98 - 0.04)
    yield "from 0", 1 - 0.3 / 0.98
    yield "distance", 0.98 - 0.3
    yield "turned", (0.3 - 0.04) / (0.98 - 0.04)
