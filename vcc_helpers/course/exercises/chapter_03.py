"""Exercises of notebooks/03_quality_and_knockdown: batches, zeros, noise, selection.

Needs: datasets, effects.py; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("03-2", 10).status
'right'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers.counts import lognorm
from vcc_helpers.datasets import load_hipsc_screen

from . import Exercise, Hint

N_BATCHES, N_CELLS = 48, 600
#: Noise of the mean of so many random controls of the official training file, as the chapter
#: quotes it from a public profile of that file.
LAST_POINT, LAST_NOISE, FIRST_POINT, FIRST_NOISE = 2560, 0.423, 40, 3.374
ASKED_NOISE = 0.30
TARGET, CONTROL = "POU5F1", "non-targeting"


@cache
def _day5() -> anndata.AnnData:
    screen = load_hipsc_screen()
    return screen[screen.obs["day"] == 5].copy()


def _share_zero(*, day: int | None = 5, perturbed: bool = False) -> pd.Series:
    """Share of cells without a count of each target's own gene, in controls or its own cells."""
    screen = load_hipsc_screen()
    cells = screen if day is None else screen[screen.obs["day"] == day]
    label = cells.obs["target_gene"].astype(str)
    names = sorted(set(label) - {CONTROL})
    counts = cells[:, names].to_df()
    return pd.Series(
        {name: (counts.loc[label == (name if perturbed else CONTROL), name] == 0).mean()
         for name in names}
    )  # fmt: skip


@cache
def _controls() -> tuple[pd.DataFrame, pd.Series]:
    """Return the lognorm values of the day-5 controls, all other genes and the target's own."""
    values = pd.DataFrame(lognorm(_day5()).toarray(), _day5().obs_names, _day5().var_names)
    values = values[(_day5().obs["target_gene"] == CONTROL).to_numpy()]
    return values.drop(columns=TARGET), values[TARGET]


def _noise_of_half(*, subtract: bool = True, both: bool = False) -> float:
    others, own = _controls()
    n, n_all = int((own <= own.median()).sum()), len(own)
    factor = 1 / n + (1 / n_all if both else -1 / n_all if subtract else 0)
    return float(np.sqrt(others.var().sum() * factor))


def _selected_shift() -> float:
    others, own = _controls()
    return float(np.linalg.norm(others[own <= own.median()].mean() - others.mean()))


EXERCISES = {
    "03-1": Exercise(
        solution=lambda: (N_BATCHES - 1) / (N_CELLS - 1),
        right="The shuffled labels of the 48 batches gave just that. Against it, the share that "
        "the real batches account for is about twice as large.",
        hints=(
            Hint(
                lambda: 0.0,
                "Groups without any meaning still have different means, by chance, and the more "
                "groups there are the more of the variance these account for.",
            ),
            Hint(
                lambda: N_BATCHES / N_CELLS,
                "Nearly. 48 means take up 47 degrees of freedom, and 600 cells have 599.",
            ),
            Hint(
                lambda: 1 / N_BATCHES,
                "That is the share of the cells in one batch. The question is for the variance "
                "that the means of all 48 account for.",
            ),
            Hint(
                lambda: 2 / (N_CELLS - 1),
                "That is for the three groups of batches: k is 48 here.",
            ),
        ),
    ),
    "03-2": Exercise(
        solution=lambda: int((_share_zero() > 0.5).sum()),
        right="Nearly half of the targets. For these a single cell cannot be judged by its own "
        "gene, whatever it shows.",
        tolerance=1e-9,
        hints=(
            Hint(
                lambda: int((_share_zero(perturbed=True) > 0.5).sum()),
                "You counted in the perturbed cells, or took a mean count below 1 as the mark. The "
                "question is for controls, more than half of which show no count.",
            ),
            Hint(
                lambda: int((_share_zero() < 0.5).sum()),
                "These are the others: the targets that most control cells do show.",
            ),
            Hint(
                lambda: float((_share_zero() > 0.5).mean()),
                "That is the share of targets. The question is for their number.",
            ),
        ),
    ),
    "03-3": Exercise(
        solution=lambda: LAST_POINT * (LAST_NOISE / ASKED_NOISE) ** 2,
        right="About five thousand: more than any target of the training set has. Weak effects "
        "stay in the noise, whatever the model.",
        tolerance=0.02,
        hints=(
            Hint(
                lambda: LAST_POINT * LAST_NOISE / ASKED_NOISE,
                "You let the number grow in proportion to the noise. Noise falls with the root of "
                "the number, so the number grows with the square of the ratio.",
            ),
            Hint(
                lambda: LAST_POINT * np.sqrt(LAST_NOISE / ASKED_NOISE),
                "You took the root of the ratio. The noise falls with the root of the number of "
                "cells; solved for the number, that is a square.",
            ),
            Hint(
                lambda: LAST_POINT * (ASKED_NOISE / LAST_NOISE) ** 2,
                "That is fewer cells than 2,560, and less noise needs more: turn the ratio over.",
            ),
            Hint(
                lambda: FIRST_POINT * FIRST_NOISE / ASKED_NOISE,
                "You started from 40 cells, which is fine, but let the number grow in proportion. "
                "It grows with the square of the ratio.",
            ),
        ),
    ),
    "03-4": Exercise(
        solution=_noise_of_half,
        right="The selected controls lie further away than that: choosing cells by their own gene "
        "made an effect where nothing was done.",
        hints=(
            Hint(
                lambda: _noise_of_half(subtract=False),
                "You took the noise of the half alone. Its cells are part of the origin as well, "
                "so subtract 1/n0.",
            ),
            Hint(
                lambda: _noise_of_half(both=True),
                "You added the two terms, as for two separate groups. Here one group is part of "
                "the other, and the second term is subtracted.",
            ),
            Hint(
                lambda: _noise_of_half() ** 2,
                "That is the square of the noise. Take the root.",
            ),
            Hint(
                _selected_shift,
                "That is the distance of the selected half itself. The question is how far a "
                "random half would be.",
            ),
        ),
    ),
}
