"""Which targets a model may learn from, and which it is asked about.

Taught in: notebooks/07_few_shot_adaptation.
Needs no sibling module.

>>> few_shot_split(["A", "B", "C", "D"], n_support=1, seed=0)
FewShotSplit(support=['C'], query=['A', 'B', 'D'])
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np


class FewShotSplit(NamedTuple):
    """Targets of a new context: measured ones to learn from, and the others.

    Attributes
    ----------
    support
        Targets whose effects in the new context a model may see, sorted.
    query
        Targets that it must predict, sorted; none of them in `support`.
    """

    support: list[str]
    query: list[str]


def few_shot_split(targets: Iterable[str], *, n_support: int, seed: int = 0) -> FewShotSplit:
    """Draw the support set at random.

    Parameters
    ----------
    targets
        Names of perturbations; repeats count once.
    n_support
        Size of the support set, 0 (zero-shot) to one less than the number of targets.
    seed
        Seed of the draw. With the same seed a larger support set contains the smaller one, so
        a learning curve changes one thing at a time.

    Returns
    -------
    FewShotSplit
        Support and query targets, each sorted.

    Raises
    ------
    ValueError
        `n_support` leaves nothing to predict, or is negative.

    Notes
    -----
    Taught in: notebooks/07_few_shot_adaptation.
    """
    names = sorted(set(targets))
    if not 0 <= n_support < len(names):
        raise ValueError(
            f"n_support={n_support} of {len(names)} targets; expected 0 to {len(names) - 1}, "
            "so that at least one target is left to predict"
        )
    order = np.random.default_rng(seed).permutation(len(names))
    support = [names[i] for i in order[:n_support]]
    return FewShotSplit(sorted(support), sorted(set(names) - set(support)))
