"""Exercises of notebooks/08_metrics_by_hand: MAE, PDS, false discovery rate, overall scores.

Needs: datasets, effects, metrics, ranksum, scoring; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("08-3", 6).status
'right'
"""

from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from vcc_helpers.datasets import load_h1_sample
from vcc_helpers.metrics import overall
from vcc_helpers.scoring import split_half
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

CONTROL = "non-targeting"
P_VALUES = np.array([0.001, 0.008, 0.016, 0.019, 0.024, 0.028, 0.041, 0.20, 0.45, 0.90])
WINNER = {"des": 0.349, "pds": 0.872, "mae": 1.03}
BASELINE = {"des": 0.095, "pds": 0.508, "mae": 0.026}


@cache
def _means() -> tuple[pd.DataFrame, pd.DataFrame]:
    pred, real = split_half(load_h1_sample(), seed=0)
    return pseudobulk(pred).to_df(), pseudobulk(real).to_df()


def _difference(share: float, target: str = "MED12") -> pd.Series:
    """Errors of the prediction that adds a share of the measured effect to the controls."""
    pred, real = _means()
    effect = pred.loc[target] - pred.loc[CONTROL]
    return pred.loc[CONTROL] + share * effect - real.loc[target]


def _control_gap() -> pd.Series:
    pred, real = _means()
    return real.loc[CONTROL] - pred.loc[CONTROL]


def _rank(target: str, *, own_gene: bool) -> int:
    pred, real = (mean.drop(CONTROL) - mean.loc[CONTROL] for mean in _means())
    difference = (real - pred.loc[target]).abs()
    if not own_gene:
        difference = difference.drop(columns=target)
    distance = difference.sum(axis=1)
    return int((distance < distance[target]).sum())


def _line() -> np.ndarray:
    return 0.05 * np.arange(1, len(P_VALUES) + 1) / len(P_VALUES)


def _uncut_shares() -> list[float]:
    gains = [(WINNER[name] - BASELINE[name]) / (1 - BASELINE[name]) for name in ("des", "pds")]
    return [*gains, 1 - WINNER["mae"] / BASELINE["mae"]]


def _with_mae(times: float) -> dict[str, float]:
    return WINNER | {"mae": times * BASELINE["mae"]}


EXERCISES = {
    "08-1": Exercise(
        solution=lambda: _difference(0.5).abs().mean(),
        right="Less than the full effect's error, and less than no change at all. Where the data "
        "are noisy, a shrunken effect is the better guess of the mean.",
        hints=(
            Hint(
                lambda: _difference(1.0).abs().mean(),
                "That is with the full effect, as the split-half predicts it. Take half of it.",
            ),
            Hint(
                lambda: _difference(0.0).abs().mean(),
                "That is no change: the control mean alone. Add half of the effect.",
            ),
            Hint(
                lambda: (0.5 * _means()[0] - _means()[1]).loc["MED12"].abs().mean(),
                "You halved the mean expression. The effect is the difference to the controls; "
                "halve only that.",
            ),
            Hint(
                lambda: _difference(0.5).mean(),
                "You averaged signed differences, so genes that are too high cancel genes that "
                "are too low. Take absolute values first.",
            ),
            Hint(
                lambda: -_difference(0.5).mean(),
                "You averaged signed differences, so genes that are too high cancel genes that "
                "are too low. Take absolute values first.",
            ),
            Hint(
                lambda: np.sqrt((_difference(0.5) ** 2).mean()),
                "That is the root mean square error. It weighs large errors more; MAE takes plain "
                "absolute values.",
            ),
            Hint(
                lambda: (_difference(0.5) + _control_gap()).abs().mean(),
                "You added the effect to the controls of the truth. A prediction is made without "
                "the truth: use the row of pred_mean.",
            ),
        ),
    ),
    "08-2": Exercise(
        solution=lambda: 1 - _rank("TMSB4X", own_gene=True) / 5,
        right="The silenced gene alone decides the race. It says that the knock-down worked, and "
        "nothing about the cell's answer, so the rule leaves it out.",
        hints=(
            Hint(
                lambda: 1 - _rank("TMSB4X", own_gene=False) / 5,
                "That is the official value, without the own gene. Pass without_own_gene=False.",
            ),
            Hint(
                lambda: _rank("TMSB4X", own_gene=True),
                "That is the rank, counted from 0. The score is 1 - rank / N.",
            ),
            Hint(
                lambda: 1 - (_rank("TMSB4X", own_gene=True) + 1) / 5,
                "You counted the rank from 1. It is the number of real effects that are nearer "
                "than the right one, so the best rank is 0.",
            ),
        ),
    ),
    "08-3": Exercise(
        solution=lambda: int((false_discovery_control(P_VALUES) < 0.05).sum()),
        right="The third, 0.016, lies above its own line of 0.015. It is called all the same, "
        "because the sixth, 0.028, lies below 0.030.",
        hints=(
            Hint(
                lambda: int((P_VALUES < 0.05).sum()),
                "That is the number of p-values below 0.05, without any correction.",
            ),
            Hint(
                lambda: int((P_VALUES < 0.05 / len(P_VALUES)).sum()),
                "That is Bonferroni's correction: every p-value against 0.05 / 10. The line of "
                "Benjamini and Hochberg rises with the rank.",
            ),
            Hint(
                lambda: int(np.argmin(P_VALUES <= _line())),
                "You stopped at the first p-value above its line. Look for the last one below "
                "its line: all before it are called as well.",
            ),
            Hint(
                lambda: int((P_VALUES <= _line()).sum()),
                "You counted the p-values below their own lines. One that lies above is called "
                "too, when a later one is below.",
            ),
        ),
    ),
    "08-4": Exercise(
        solution=lambda: overall(WINNER, BASELINE),
        right="As announced. A third of the score was given away, and could not be lost twice.",
        tolerance=5e-3,
        hints=(
            Hint(
                lambda: 100 * np.mean(_uncut_shares()),
                "You let the share for MAE go below 0. It is cut there, and only there does this "
                "entry win anything.",
            ),
            Hint(
                lambda: overall(WINNER, BASELINE) / 100,
                "Right, but on a scale from 0 to 1. The leaderboard goes to 100.",
            ),
            Hint(
                lambda: 100 * np.mean(_uncut_shares()[:2]),
                "You left MAE out of the mean. It counts with a share of 0.",
            ),
            Hint(
                lambda: 100 * (WINNER["des"] + WINNER["pds"]) / 3,
                "You averaged the scores themselves. Place each between the baseline and 1 first.",
            ),
        ),
    ),
    "08-5": Exercise(
        solution=lambda: overall(_with_mae(0.5), BASELINE),
        right="Nearly half as much again. A model that keeps the direction and mends the size has "
        "a third of the score to win, and in 2025 nobody at the top took it.",
        tolerance=5e-3,
        hints=(
            Hint(
                lambda: overall(WINNER, BASELINE),
                "That is the score as it was. Put another MAE into the row.",
            ),
            Hint(
                lambda: overall(_with_mae(0.5), BASELINE) / 100,
                "Right, but on a scale from 0 to 1. The leaderboard goes to 100.",
            ),
            Hint(
                lambda: overall(WINNER | {"mae": 0.0}, BASELINE),
                "That is with an MAE of 0, a perfect one. Half of the baseline's is a share of "
                "one half.",
            ),
        ),
    ),
}
