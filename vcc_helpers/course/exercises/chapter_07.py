"""Exercises of notebooks/07_few_shot_adaptation: zero-shot, gains, least squares."""

from collections.abc import Iterable
from functools import cache

import pandas as pd

from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import CONTROL
from vcc_helpers.evaluation import compare_pseudobulk

from . import Answers, exercise
from ._data import bulk, effect, precision, sources, targets


def _fit(support: Iterable[str], *days: int, **kw) -> ContextGain:
    return ContextGain(sources(*days), **kw).fit(bulk(5)[[CONTROL, *support]])


@cache
def _scores(*days: int, support: tuple[str, ...] = ()) -> pd.Series:
    return compare_pseudobulk(_fit(support, *days).predict(targets()), bulk(5)).mean()


def _gain4(support: Iterable[str], *days: int, **kw) -> float:
    return float(_fit(support, *days, **kw).gain_["day 4"])


@exercise("07-1")
def _without_day_2() -> Answers:
    """MAE of the zero-shot prediction from days 3 and 4.

    right: Lower than the mean of three days. Leaving out a noisy, distant source is a form of
        adaptation that needs no example of day 5, only the knowledge that day 4 comes after 3.
    all days: That is the mean of all three days. Pass a dictionary without day 2.
    PDS: That is the mean PDS. The question is about MAE.
    seen: That model has seen all of day 5, its answers included. Zero-shot fits on the controls
        alone: `new[['non-targeting']]`.
    day 4: That is day 4 alone. Keep day 3 as well.
    """
    yield "right", _scores(3, 4)["mae"]
    yield "all days", _scores()["mae"]
    yield "PDS", _scores(3, 4)["pds"]
    yield "seen", _scores(3, 4, support=tuple(targets()))["mae"]
    yield "day 4", _scores(4)["mae"]


@exercise("07-2")
def _without_pou5f1() -> Answers:
    """Find the gain of day 4 without POU5F1.

    right: One target of 23 raised the gain of day 4 by more than a quarter. Squared errors listen
        to the loudest target; look for it before you believe a fitted number.
    with it: That is with POU5F1 in the support set. Leave it out.
    it alone: That is with POU5F1 alone. Leave it out, and keep the other 22.
    by precision: That starts from the weights by precision. Start from the plain mean, as
        `fitted_gains` does.
    not shrunk: That is without shrinkage. Use the default.
    """
    others = targets().drop("POU5F1")
    yield "right", _gain4(others)
    yield "with it", _gain4(targets())
    yield "it alone", _gain4(["POU5F1"])
    yield "by precision", _gain4(others, prior=precision())
    yield "not shrunk", _gain4(others, shrinkage=0.0)


@exercise("07-3")
def _least_squares() -> Answers:
    """Slope of day 5 on day 4.

    right: Below 1, though day 5's effects are no smaller than day 4's. Noise in the predictor pulls
        a fitted slope towards 0: part of what day 4 shows is not there to be repeated.
    shrunk: That is shrunk a little towards 1. Use shrinkage=0, or the formula.
    other way: That predicts day 4 from day 5. Divide by the squares of day 4.
    mean of slopes: That is the mean of a slope for each target. One sum over all targets and genes,
        divided by another, gives the loud ones more to say.
    three days: That is day 4's gain beside days 2 and 3. Give the model day 4 as its only source.
    """
    x, y = effect(4).X, effect(5).X
    yield "right", float((x * y).sum() / (x**2).sum())
    yield "shrunk", _gain4(targets(), 4)
    yield "other way", float((x * y).sum() / (y**2).sum())
    yield "mean of slopes", float(((x * y).sum(axis=1) / (x**2).sum(axis=1)).mean())
    yield "three days", _gain4(targets(), shrinkage=0.0)
