"""Exercises of notebooks/10_bring_your_own_screen: logarithms, contexts, gene names."""

from vcc_helpers.bulk import CONTROL
from vcc_helpers.evaluation import evaluate

from . import exercise
from ._data import bulk, day, effect, targets


def _carried_over(number: int, metric: str = "mae", *, means: bool = False) -> float:
    """Mean score on day 5 of the effects, or the means, of another day."""
    real, pred = bulk(5), bulk(5).copy()
    rows = real.obs_names.get_indexer(targets())
    moved = bulk(number) if means else effect(number)
    pred.X[rows] = moved[targets()].X + (0 if means else real[CONTROL].X)
    return float(evaluate(pred, real)[metric].mean())


@exercise("10-1", tolerance=0)
def _count_of_a_log():
    yield "right", 10
    yield "exp", 11
    yield "base 2", round(2**2.3979 - 1)
    yield "base 10", round(10**2.3979 - 1)


@exercise("10-2")
def _carried_from_day_2():
    yield "right", _carried_over(2)
    yield "day 4", _carried_over(4)
    yield "means", _carried_over(2, means=True)
    yield "PDS", _carried_over(2, "pds")


@exercise("10-3", tolerance=0)
def _new_names():
    yield "right", 1
    yield "none", 0
    yield "others", day(5).n_vars - 1
