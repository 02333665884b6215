"""Exercises of notebooks/11_rank_every_gene: U by hand, steps of a walk, ties, a search."""

from collections.abc import Callable

import numpy as np

from . import exercise

_N_TARGETS, _N_CELLS, _N_CONTROLS = 100, 100, 10_000
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


@exercise("11-2")
def _steps_of_a_walk():
    separate, one_walk = _N_TARGETS * (_N_CELLS + _N_CONTROLS), _N_TARGETS * _N_CELLS + _N_CONTROLS
    yield "right", separate / one_walk
    yield "no controls", separate / (_N_TARGETS * _N_CELLS)
    yield "100", _N_TARGETS
    yield "one walk", one_walk


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
