"""Exercises of notebooks/07_few_shot_adaptation: zero-shot, gains, least squares.

Needs: datasets, effects, adapt, scoring; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("07-3", ...).status
'not attempted'
"""

from collections.abc import Iterable
from functools import cache

import anndata
import pandas as pd

from vcc_helpers.adapt import ContextGain, precision
from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.evaluation import evaluate
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

CONTROL = "non-targeting"


@cache
def _bulk(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == day])


def _targets() -> list[str]:
    return effects(_bulk(5)).obs_names.tolist()


def _fit(
    support: Iterable[str], days=(2, 3, 4), *, shrinkage: float = 1.0, by_precision: bool = False
) -> ContextGain:
    sources = {f"day {day}": effects(_bulk(day)) for day in days}
    prior = precision({f"day {day}": _bulk(day) for day in days}) if by_precision else None
    model = ContextGain(sources, shrinkage=shrinkage, prior=prior)
    return model.fit(_bulk(5)[[CONTROL, *support]])


@cache
def _zero_shot(*days: int) -> pd.Series:
    return evaluate(_fit([], days).predict(_targets()), _bulk(5)).mean()


def _gain4(support: Iterable[str], **kw) -> float:
    return float(_fit(support, **kw).gain_["day 4"])


def _without_pou5f1() -> list[str]:
    return [target for target in _targets() if target != "POU5F1"]


def _slope() -> float:
    x, y = effects(_bulk(4)).X, effects(_bulk(5)).X
    return float((x * y).sum() / (x**2).sum())


def _mean_of_slopes() -> float:
    x, y = effects(_bulk(4)).X, effects(_bulk(5)).X
    return float(((x * y).sum(axis=1) / (x**2).sum(axis=1)).mean())


def _slope_the_other_way() -> float:
    x, y = effects(_bulk(4)).X, effects(_bulk(5)).X
    return float((x * y).sum() / (y**2).sum())


EXERCISES = {
    "07-1": Exercise(
        solution=lambda: _zero_shot(3, 4)["mae"],
        right="Lower than the mean of three days. Leaving out a noisy, distant source is a form of "
        "adaptation that needs no example of day 5, only the knowledge that day 4 comes after 3.",
        hints=(
            Hint(
                lambda: _zero_shot(2, 3, 4)["mae"],
                "That is the mean of all three days. Pass a dictionary without day 2.",
            ),
            Hint(
                lambda: _zero_shot(3, 4)["pds"],
                "That is the mean PDS. The question is about MAE.",
            ),
            Hint(
                lambda: evaluate(_fit(_targets(), (3, 4)).predict(_targets()), _bulk(5))[
                    "mae"
                ].mean(),
                "That model has seen all of day 5, its answers included. Zero-shot fits on the "
                "controls alone: `new[['non-targeting']]`.",
            ),
            Hint(
                lambda: _zero_shot(4)["mae"],
                "That is day 4 alone. Keep day 3 as well.",
            ),
        ),
    ),
    "07-2": Exercise(
        solution=lambda: _gain4(_without_pou5f1()),
        right="One target of 23 raised the gain of day 4 by more than a quarter. Squared errors "
        "listen to the loudest target; look for it before you believe a fitted number.",
        hints=(
            Hint(
                lambda: _gain4(_targets()),
                "That is with POU5F1 in the support set. Leave it out.",
            ),
            Hint(
                lambda: _gain4(["POU5F1"]),
                "That is with POU5F1 alone. Leave it out, and keep the other 22.",
            ),
            Hint(
                lambda: _gain4(_without_pou5f1(), by_precision=True),
                "That starts from the weights by precision. Start from the plain mean, as "
                "`fitted_gains` does.",
            ),
            Hint(
                lambda: _gain4(_without_pou5f1(), shrinkage=0.0),
                "That is without shrinkage. Use the default.",
            ),
        ),
    ),
    "07-3": Exercise(
        solution=_slope,
        right="Below 1, though day 5's effects are no smaller than day 4's. Noise in the predictor "
        "pulls a fitted slope towards 0: part of what day 4 shows is not there to be repeated.",
        hints=(
            Hint(
                lambda: _gain4(_targets(), days=(4,), shrinkage=1.0),
                "That is shrunk a little towards 1. Use shrinkage=0, or the formula.",
            ),
            Hint(
                _slope_the_other_way,
                "That predicts day 4 from day 5. Divide by the squares of day 4.",
            ),
            Hint(
                _mean_of_slopes,
                "That is the mean of a slope for each target. One sum over all targets and genes, "
                "divided by another, gives the loud ones more to say.",
            ),
            Hint(
                lambda: _gain4(_targets(), shrinkage=0.0),
                "That is day 4's gain beside days 2 and 3. Give the model day 4 as its only "
                "source.",
            ),
        ),
    ),
}
