"""Exercises of notebooks/15_score_by_the_rules_of_2026: genes left out, calls, a scale.

Needs: datasets, metrics, presets, scoring and chapter_14; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("15-2", 15 / 40).status
'right'
"""

from functools import cache

from vcc_helpers import metrics, scoring
from vcc_helpers.presets import VCC2026

from . import Exercise, Hint
from .chapter_14 import _deal


@cache
def _discrimination(who: str) -> float:
    pred, real = _deal()
    truth = scoring.digest(real, VCC2026).bulk
    guess = scoring.digest(pred, VCC2026, controls=real).bulk
    names = truth.obs_names.drop("non-targeting")
    base = truth["non-targeting"].X
    own = truth.var_names.get_indexer(names)
    if who == "nobody":
        own[:] = -1
    found = metrics.pds_cosine(guess[names].X - base, truth[names].X - base, own)
    return float(found.mean())


def _share(value: float, baseline: float, replicate: float) -> float:
    return metrics.scaled(value, baseline, replicate, VCC2026.limits["mse_normalized"])


EXERCISES = {
    "15-1": Exercise(
        solution=lambda: _discrimination("nobody") - _discrimination("all"),
        right="A target's own gene is the easiest to predict, and the others' knock-downs are what "
        "tells them apart. Without these genes only the response is compared.",
        hints=(
            Hint(
                lambda: _discrimination("nobody"),
                "That is the mean without exclusion. Subtract the card's.",
            ),
            Hint(
                lambda: _discrimination("all") - _discrimination("nobody"),
                "The sign is turned round: without exclusion minus the card's.",
            ),
            Hint(
                lambda: _discrimination("nobody") - 0.5,
                "That is the distance to chance. Subtract the card's mean.",
            ),
        ),
    ),
    "15-2": Exercise(
        solution=lambda: 15 / 40,
        right="Right directions, but half of the genes are missing: 0.75 times one half.",
        hints=(
            Hint(
                lambda: 15 / 20,
                "That is the share of right calls. Genes that are missing count, too: divide by "
                "the larger of the two numbers.",
            ),
            Hint(
                lambda: 20 / 40,
                "That is the coverage. Times the share of right directions.",
            ),
            Hint(
                lambda: 15 / 60,
                "Not the sum: the larger of the two numbers.",
            ),
        ),
    ),
    "15-3": Exercise(
        solution=lambda: _share(0.3, 0.98, 0.04),
        right="Nearly three quarters of the way from the mean to a repeat of the experiment.",
        hints=(
            Hint(
                lambda: 1 - 0.3 / 0.98,
                "That takes a perfect 0 for the 1 of the scale, as 2025 did. Here it is the "
                "replicate.",
            ),
            Hint(
                lambda: 0.98 - 0.3,
                "That is a distance from the baseline. Divide it by the baseline's distance from "
                "the replicate.",
            ),
            Hint(
                lambda: (0.3 - 0.04) / (0.98 - 0.04),
                "That is the distance from the replicate. The baseline is the 0.",
            ),
        ),
    ),
}
