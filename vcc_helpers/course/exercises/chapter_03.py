"""Exercises of notebooks/03_quality_and_knockdown: batches, zeros, noise, selection."""

import numpy as np
import pandas as pd

from vcc_helpers.bulk import CONTROL
from vcc_helpers.counts import lognorm

from . import Answers, exercise
from ._data import day, targets

N_BATCHES, N_CELLS = 48, 600
#: Noise of the mean of so many random controls of the official training file, as the chapter
#: quotes it from a public profile of that file.
LAST_POINT, LAST_NOISE, FIRST_POINT, FIRST_NOISE = 2560, 0.423, 40, 3.374
ASKED_NOISE = 0.30


def _rarely_seen(*, perturbed: bool = False) -> pd.Series:
    """Say of each target if most controls, or most of its own cells, show no count of it."""
    label, zero = day(5).obs["target_gene"].astype(str), day(5)[:, targets()].to_df() == 0
    names = {name: name if perturbed else CONTROL for name in targets()}
    return pd.Series({name: zero.loc[label == of, name].mean() for name, of in names.items()}) > 0.5


@exercise("03-1")
def _share_by_chance() -> Answers:
    """Share of the variance that batches without meaning account for.

    right: The shuffled labels of the 48 batches gave just that. Against it, the share that the real
        batches account for is about twice as large.
    none: Groups without any meaning still have different means, by chance, and the more groups
        there are the more of the variance these account for.
    nearly: Nearly. 48 means take up 47 degrees of freedom, and 600 cells have 599.
    one batch: That is the share of the cells in one batch. The question is for the variance that
        the means of all 48 account for.
    three groups: That is for the three groups of batches: k is 48 here.
    """
    yield "right", (N_BATCHES - 1) / (N_CELLS - 1)
    yield "none", 0.0
    yield "nearly", N_BATCHES / N_CELLS
    yield "one batch", 1 / N_BATCHES
    yield "three groups", 2 / (N_CELLS - 1)


@exercise("03-2", tolerance=1e-9)
def _targets_rarely_seen() -> Answers:
    """Count the targets that most control cells show no count of.

    right: Nearly half of the targets. For these a single cell cannot be judged by its own gene,
        whatever it shows.
    perturbed: You counted in the perturbed cells, or took a mean count below 1 as the mark. The
        question is for controls, more than half of which show no count.
    others: These are the others: the targets that most control cells do show.
    share: That is the share of targets. The question is for their number.
    """
    yield "right", int(_rarely_seen().sum())
    yield "perturbed", int(_rarely_seen(perturbed=True).sum())
    yield "others", int((~_rarely_seen()).sum())
    yield "share", float(_rarely_seen().mean())


@exercise("03-3", tolerance=0.02)
def _cells_needed() -> Answers:
    """Find how many cells a given noise takes.

    right: About five thousand: more than any target of the training set has. Weak effects stay in
        the noise, whatever the model.
    in proportion: You let the number grow in proportion to the noise. Noise falls with the root of
        the number, so the number grows with the square of the ratio.
    root: You took the root of the ratio. The noise falls with the root of the number of cells;
        solved for the number, that is a square.
    fewer: That is fewer cells than 2,560, and less noise needs more: turn the ratio over.
    from 40: You started from 40 cells, which is fine, but let the number grow in proportion. It
        grows with the square of the ratio.
    """
    yield "right", LAST_POINT * (LAST_NOISE / ASKED_NOISE) ** 2
    yield "in proportion", LAST_POINT * LAST_NOISE / ASKED_NOISE
    yield "root", LAST_POINT * np.sqrt(LAST_NOISE / ASKED_NOISE)
    yield "fewer", LAST_POINT * (ASKED_NOISE / LAST_NOISE) ** 2
    yield "from 40", FIRST_POINT * FIRST_NOISE / ASKED_NOISE


@exercise("03-4")
def _noise_of_a_half() -> Answers:
    """How far the mean of a random half lies from that of all.

    right: The selected controls lie further away than that: choosing cells by their own gene made
        an effect where nothing was done.
    half alone: You took the noise of the half alone. Its cells are part of the origin as well, so
        subtract 1/n0.
    added: You added the two terms, as for two separate groups. Here one group is part of the other,
        and the second term is subtracted.
    selected: That is the distance of the selected half itself. The question is how far a random
        half would be.
    """
    values = pd.DataFrame(lognorm(day(5)).toarray(), columns=day(5).var_names)
    values = values[(day(5).obs["target_gene"] == CONTROL).to_numpy()]
    own, others = values["POU5F1"], values.drop(columns="POU5F1")
    half, variance = own <= own.median(), others.var().sum()
    yield "right", np.sqrt(variance * (1 / half.sum() - 1 / len(own)))
    yield "half alone", np.sqrt(variance / half.sum())
    yield "added", np.sqrt(variance * (1 / half.sum() + 1 / len(own)))
    yield "selected", float(np.linalg.norm(others[half].mean() - others.mean()))
