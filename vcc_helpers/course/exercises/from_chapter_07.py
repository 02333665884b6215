"""Exercises of chapters 7 to 11."""

from collections.abc import Callable

import numpy as np
import pandas as pd

from vcc_helpers.bulk import CONTROL
from vcc_helpers.counts import lognorm
from vcc_helpers.evaluation import evaluate
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import (
    bulk,
    day,
    effect,
    h1,
    targets,
)


def _share_by_chance() -> float:
    """Shuffle the labels of the batches as the chapter does."""
    values = np.log(np.ravel(h1().X.sum(axis=1)))
    rng, names = np.random.default_rng(0), h1().obs["batch"].astype(str).to_numpy()
    square = ((values - values.mean()) ** 2).sum()
    shares = []
    for _ in range(100):
        groups = pd.Series(values).groupby(rng.permutation(names))
        shares.append(1 - ((values - groups.transform("mean")) ** 2).sum() / square)
    return np.mean(shares)


@exercise("07-1")
def _share_of_random_groups():
    yield "right", 47 / 599
    yield "right", _share_by_chance()
    yield "none", 0.0
    yield "nearly", 48 / 600
    yield "one batch", 1 / 48
    yield "three groups", 2 / 599


def _rarely_seen(*, perturbed: bool = False) -> pd.Series:
    """Say of each target if most controls, or most of its own cells, show no count of it."""
    label, zero = day(5).obs["target_gene"].astype(str), day(5)[:, targets()].to_df() == 0
    names = {name: name if perturbed else CONTROL for name in targets()}
    return pd.Series({name: zero.loc[label == of, name].mean() for name, of in names.items()}) > 0.5


@exercise("07-2", tolerance=1e-9)
def _targets_rarely_seen():
    yield "right", int(_rarely_seen().sum())
    yield "perturbed", int(_rarely_seen(perturbed=True).sum())
    yield "others", int((~_rarely_seen()).sum())
    yield "share", float(_rarely_seen().mean())


def _noise_of_src(n_target: float, n_control: float) -> float:
    bulk = pseudobulk(h1())
    summed = pd.Series(bulk.layers["variance"].sum(axis=1, dtype=np.float64), bulk.obs_names)
    return np.sqrt(summed["SRC"] / n_target + summed[CONTROL] / n_control)


@exercise("07-3")
def _noise_with_all_cells():
    yield "right", _noise_of_src(1045, 38176)
    yield "100 controls", _noise_of_src(1045, 100)
    yield "equal", _noise_of_src(1045, 1045)
    yield "target alone", _noise_of_src(1045, np.inf)
    yield "100 each", _noise_of_src(100, 100)
    yield "in proportion", _noise_of_src(100, 100) * 100 / 1045


#: Noise of the mean of so many random controls of the official training file, as the chapter
#: quotes it from a public profile of that file.
_LAST_POINT, _LAST_NOISE, _FIRST_POINT, _FIRST_NOISE = 2560, 0.423, 40, 3.374
_WANTED_NOISE = 0.30


@exercise("07-4", tolerance=0.02)
def _cells_needed():
    yield "right", _LAST_POINT * (_LAST_NOISE / _WANTED_NOISE) ** 2
    yield "in proportion", _LAST_POINT * _LAST_NOISE / _WANTED_NOISE
    yield "root", _LAST_POINT * np.sqrt(_LAST_NOISE / _WANTED_NOISE)
    yield "fewer", _LAST_POINT * (_WANTED_NOISE / _LAST_NOISE) ** 2
    yield "from 40", _FIRST_POINT * _FIRST_NOISE / _WANTED_NOISE


@exercise("07-5", tolerance=0.03)  # a simulation is right, too
def _noise_of_a_half():
    values = pd.DataFrame(lognorm(day(5)).toarray(), columns=day(5).var_names)
    values = values[(day(5).obs["target_gene"] == CONTROL).to_numpy()]
    own, others = values["POU5F1"], values.drop(columns="POU5F1")
    half, variance = own <= own.median(), others.var().sum()
    yield "right", np.sqrt(variance * (1 / half.sum() - 1 / len(own)))
    yield "half alone", np.sqrt(variance / half.sum())
    yield "added", np.sqrt(variance * (1 / half.sum() + 1 / len(own)))
    yield "selected", float(np.linalg.norm(others[half].mean() - others.mean()))


def _carried_over(number: int, metric: str = "mae", *, means: bool = False) -> float:
    """Mean score on day 5 of the effects, or the means, of another day."""
    real, pred = bulk(5), bulk(5).copy()
    rows = real.obs_names.get_indexer(targets())
    moved = bulk(number) if means else effect(number)
    pred.X[rows] = moved[targets()].X + (0 if means else real[CONTROL].X)
    return float(evaluate(pred, real)[metric].mean())


@exercise("08-2")
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


@exercise("10-1")
def _u_by_hand():
    u = _count(0.5)[0]
    yield "right", u
    yield "higher only", _count(0.0)[0]
    yield "in full", _count(1.0)[0]
    yield "of the controls", 6 - u
    yield "ranks", u + 6


@exercise("10-3")
def _what_ties_take():
    taken = (450**3 - 450) / (500**3 - 500)
    yield "right", np.sqrt(1 - taken)
    yield "share", np.sqrt(1 - 450 / 500)
    yield "taken", np.sqrt(taken)


def _called(function: Callable) -> np.ndarray:
    found = [np.asarray(function(x.copy(), y.copy()), dtype=float).item() for x, y in _PAIRS]
    return np.array(found)


@exercise("10-4", probe=_called)
def _u_by_search():
    yield "right", _count(0.5)
    yield "nothing", _count(0.0)
    yield "in full", _count(1.0)
    yield "sum", _count(0.5) * 2
    yield "of the controls", np.array([len(x) * len(y) for x, y in _PAIRS]) - _count(0.5)
