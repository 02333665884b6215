"""Exercises of chapters 10 to 12."""

from collections.abc import Callable

import numpy as np

from vcc_helpers.bulk import CONTROL
from vcc_helpers.evaluation import evaluate

from . import exercise
from ._data import bulk, effect, targets


def _carried_over(number: int, metric: str = "mae", *, means: bool = False) -> float:
    """Mean score on day 5 of the effects, or the means, of another day."""
    real, pred = bulk(5), bulk(5).copy()
    rows = real.obs_names.get_indexer(targets())
    moved = bulk(number) if means else effect(number)
    pred.X[rows] = moved[targets()].X + (0 if means else real[CONTROL].X)
    return float(evaluate(pred, real)[metric].mean())


@exercise("10-2")
def _carried_from_day_2():
    yield "right", _carried_over(2)
    yield "day 4", _carried_over(4)
    yield "means", _carried_over(2, means=True)
    yield "PDS", _carried_over(2, "pds")


#: Perturbed values, unsorted, and sorted controls: with zeros and ties in and between both.
_PAIRS = (
    (np.array([0.0, 3, 5]), np.array([0.0, 3])),
    (np.array([2.5, 0, 1, 1, 4, 0]), np.array([0.0, 0, 1, 2, 2.5, 2.5, 7])),
    (np.array([9.0]), np.array([1.0, 2, 3])),
)


def _count(equal: float) -> np.ndarray:
    """U of every pair of groups, equal values counted as told."""
    return np.array([(x[:, None] > y).sum() + equal * (x[:, None] == y).sum() for x, y in _PAIRS])


def _called(function: Callable) -> np.ndarray:
    return np.array([float(function(x.copy(), y.copy())) for x, y in _PAIRS])


@exercise("11-1")
def _u_by_hand():
    u = _count(0.5)[0]
    yield "right", u
    yield "higher only", _count(0.0)[0]
    yield "in full", _count(1.0)[0]
    yield "of the controls", 6 - u
    yield "ranks", u + 6


@exercise("11-3")
def _what_ties_take():
    taken = (450**3 - 450) / (500**3 - 500)
    yield "right", np.sqrt(1 - taken)
    yield "share", np.sqrt(1 - 450 / 500)
    yield "taken", np.sqrt(taken)


@exercise("11-4", probe=_called)
def _u_by_search():
    yield "right", _count(0.5)
    yield "nothing", _count(0.0)
    yield "in full", _count(1.0)
    yield "sum", _count(0.5) * 2
    yield "of the controls", np.array([len(x) * len(y) for x, y in _PAIRS]) - _count(0.5)
