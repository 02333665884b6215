"""Exercises of notebooks/08_metrics_by_hand: MAE, PDS, false discovery rate, overall scores."""

from functools import cache

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from vcc_helpers.bulk import CONTROL
from vcc_helpers.metrics import overall
from vcc_helpers.scoring import split_half
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import BASELINE, WINNER, h1

_P_VALUES = np.array([0.001, 0.008, 0.016, 0.019, 0.024, 0.028, 0.041, 0.20, 0.45, 0.90])


@cache
def _means() -> tuple[pd.DataFrame, pd.DataFrame]:
    pred, real = split_half(h1(), seed=0)
    return pseudobulk(pred).to_df(), pseudobulk(real).to_df()


def _rank(*, own_gene: bool) -> int:
    pred, real = (mean.drop(CONTROL) - mean.loc[CONTROL] for mean in _means())
    difference = (real - pred.loc["TMSB4X"]).abs()
    if not own_gene:
        difference = difference.drop(columns="TMSB4X")
    distance = difference.sum(axis=1)
    return int((distance < distance["TMSB4X"]).sum())


@exercise("08-1")
def _half_the_effect():
    pred, real = _means()
    effect = pred.loc["MED12"] - pred.loc[CONTROL]
    none = pred.loc[CONTROL] - real.loc["MED12"]
    half = none + effect / 2
    yield "right", half.abs().mean()
    yield "full", (none + effect).abs().mean()
    yield "none", none.abs().mean()
    yield "half the mean", (pred / 2 - real).loc["MED12"].abs().mean()
    yield "signed", half.mean()
    yield "signed", -half.mean()
    yield "squares", np.sqrt((half**2).mean())
    yield "other controls", (half + real.loc[CONTROL] - pred.loc[CONTROL]).abs().mean()


@exercise("08-2")
def _with_the_own_gene():
    yield "right", 1 - _rank(own_gene=True) / 5
    yield "without it", 1 - _rank(own_gene=False) / 5
    yield "rank", _rank(own_gene=True)
    yield "from 1", 1 - (_rank(own_gene=True) + 1) / 5


@exercise("08-3")
def _genes_called():
    n = len(_P_VALUES)
    below = _P_VALUES <= 0.05 * np.arange(1, n + 1) / n
    yield "right", int((false_discovery_control(_P_VALUES) < 0.05).sum())
    yield "uncorrected", int((_P_VALUES < 0.05).sum())
    yield "Bonferroni", int((_P_VALUES < 0.05 / n).sum())
    yield "first above", int(np.argmin(below))
    yield "below own", int(below.sum())


@exercise("08-4", tolerance=5e-3)
def _score_of_the_winner():
    des, pds = ((WINNER[name] - BASELINE[name]) / (1 - BASELINE[name]) for name in ("des", "pds"))
    yield "right", overall(WINNER, BASELINE)
    yield "not cut", 100 * np.mean([des, pds, 1 - WINNER["mae"] / BASELINE["mae"]])
    yield "without MAE", 100 * np.mean([des, pds])
    yield "plain mean", 100 * (WINNER["des"] + WINNER["pds"]) / 3


@exercise("08-5", tolerance=5e-3)
def _score_with_a_smaller_error():
    yield "right", overall(WINNER | {"mae": BASELINE["mae"] / 2}, BASELINE)
    yield "as it was", overall(WINNER, BASELINE)
    yield "perfect", overall(WINNER | {"mae": 0.0}, BASELINE)
