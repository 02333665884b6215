"""Exercises of notebooks/07_few_shot_adaptation: zero-shot, gains, least squares."""

from collections.abc import Iterable
from functools import cache

import pandas as pd

from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import CONTROL
from vcc_helpers.evaluation import evaluate

from . import exercise
from ._data import bulk, effect, precision, sources, targets


def _fit(support: Iterable[str], *days: int, **kw) -> ContextGain:
    return ContextGain(sources(*days), **kw).fit(bulk(5)[[CONTROL, *support]])


@cache
def _scores(*days: int, support: tuple[str, ...] = ()) -> pd.Series:
    return evaluate(_fit(support, *days).predict(targets()), bulk(5)).mean()


def _gain4(support: Iterable[str], *days: int, **kw) -> float:
    return float(_fit(support, *days, **kw).gain_["day 4"])


@exercise("07-1")
def _without_day_2():
    yield "right", _scores(3, 4)["mae"]
    yield "all days", _scores()["mae"]
    yield "PDS", _scores(3, 4)["pds"]
    yield "seen", _scores(3, 4, support=tuple(targets()))["mae"]
    yield "day 4", _scores(4)["mae"]


@exercise("07-2")
def _without_pou5f1():
    others = targets().drop("POU5F1")
    yield "right", _gain4(others)
    yield "with it", _gain4(targets())
    yield "it alone", _gain4(["POU5F1"])
    yield "by precision", _gain4(others, prior=precision())
    yield "not shrunk", _gain4(others, shrinkage=0.0)


@exercise("07-3")
def _least_squares():
    x, y = effect(4).X, effect(5).X
    yield "right", float((x * y).sum() / (x**2).sum())
    yield "shrunk", _gain4(targets(), 4)
    yield "other way", float((x * y).sum() / (y**2).sum())
    yield "mean of slopes", float(((x * y).sum(axis=1) / (x**2).sum(axis=1)).mean())
    yield "three days", _gain4(targets(), shrinkage=0.0)
