"""Exercises of notebooks/11_rank_every_gene: U by hand, steps of a walk, ties, a search.

Needs: NumPy; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("11-1", 4).status
'right'
"""

from collections.abc import Callable

import numpy as np

from . import Exercise, Hint

N_TARGETS, N_CELLS, N_CONTROLS = 100, 100, 10_000
FOR_EACH = N_TARGETS * (N_CELLS + N_CONTROLS)
ONE_WALK = N_TARGETS * N_CELLS + N_CONTROLS
N_BOTH, N_ZEROS = 500, 450
#: Perturbed values, unsorted, and sorted controls: with zeros and ties in and between both.
PAIRS = (
    (np.array([0.0, 3, 5]), np.array([0.0, 3])),
    (np.array([2.5, 0, 1, 1, 4, 0]), np.array([0.0, 0, 1, 2, 2.5, 2.5, 7])),
    (np.array([9.0]), np.array([1.0, 2, 3])),
)


def _count(equal: float) -> list[float]:
    """U of every pair of groups, equal values counted as told."""
    return [float((x[:, None] > y).sum() + equal * (x[:, None] == y).sum()) for x, y in PAIRS]


def _called(function: Callable) -> np.ndarray:
    return np.array([float(function(x.copy(), y.copy())) for x, y in PAIRS])


def _variance_ratio() -> float:
    return 1 - (N_ZEROS**3 - N_ZEROS) / (N_BOTH**3 - N_BOTH)


EXERCISES = {
    "11-1": Exercise(
        solution=lambda: _count(0.5)[0],
        right="Four of six pairs. With so few values, counting pairs is quicker than ranking.",
        hints=(
            Hint(
                lambda: _count(0.0)[0],
                "You counted only the pairs in which the perturbed cell is higher. Two pairs are "
                "equal, and each adds one half.",
            ),
            Hint(
                lambda: _count(1.0)[0],
                "You counted equal pairs in full. Each adds one half.",
            ),
            Hint(
                lambda: len(PAIRS[0][0]) * len(PAIRS[0][1]) - _count(0.5)[0],
                "That is the U of the controls. The two add up to all 6 pairs.",
            ),
            Hint(
                lambda: _count(0.5)[0] + 6,
                "That is the sum of the ranks. Take off the smallest sum that three ranks can "
                "have: 1 + 2 + 3.",
            ),
        ),
    ),
    "11-2": Exercise(
        solution=lambda: FOR_EACH / ONE_WALK,
        right="And with 1,000 targets of 10 cells it would be about 500 times.",
        hints=(
            Hint(
                lambda: FOR_EACH / (N_TARGETS * N_CELLS),
                "You left the controls out of the second count. The one walk passes them too, "
                "once.",
            ),
            Hint(
                lambda: ONE_WALK / FOR_EACH,
                "That is the ratio the other way round: a share that is left.",
            ),
            Hint(
                lambda: N_TARGETS,
                "The controls are passed 100 times less. But the targets' own values are passed "
                "once in either case.",
            ),
            Hint(
                lambda: ONE_WALK,
                "That is the number of steps of the one walk. Divide the other number by it.",
            ),
        ),
    ),
    "11-3": Exercise(
        solution=lambda: np.sqrt(_variance_ratio()),
        right="So the same U lies twice as many standard deviations from the middle.",
        hints=(
            Hint(
                lambda: _variance_ratio(),
                "That is the ratio of the variances. Take the root.",
            ),
            Hint(
                lambda: 1 / np.sqrt(_variance_ratio()),
                "That is the ratio the other way round. Ties make the deviation smaller.",
            ),
            Hint(
                lambda: np.sqrt(1 - N_ZEROS / N_BOTH),
                "You took the share of zeros itself. A run of t counts with t cubed minus t, "
                "against the same of all 500.",
            ),
            Hint(
                lambda: np.sqrt(1 - _variance_ratio()),
                "That is the root of what the ties take away. Subtract it from 1 first.",
            ),
        ),
    ),
    "11-4": Exercise(
        solution=lambda: np.array(_count(0.5)),
        probe=_called,
        right="That is step 2 of this chapter in three lines. It was called on three pairs of "
        "groups, with zeros and ties.",
        hints=(
            Hint(
                lambda: np.array(_count(0.0)),
                "Equal values add nothing in your function. Take the mean of the places on the "
                "left and on the right.",
            ),
            Hint(
                lambda: np.array(_count(1.0)),
                "Equal values count in full in your function. Take the mean of the places on the "
                "left and on the right.",
            ),
            Hint(
                lambda: np.array(_count(0.5)) * 2,
                "Twice too much: take the mean of the two places, not their sum.",
            ),
            Hint(
                lambda: np.array([len(x) * len(y) for x, y in PAIRS]) - np.array(_count(0.5)),
                "Your function counts the pairs in which the control is higher. Look up the "
                "values of x among those of y.",
            ),
        ),
    ),
}
