"""Exercises of notebooks/03_quality_and_knockdown: batches, zeros, noise, selection."""

import numpy as np
import pandas as pd

from vcc_helpers.bulk import CONTROL
from vcc_helpers.counts import lognorm

from . import exercise
from ._data import day, targets

_N_BATCHES, _N_CELLS = 48, 600
#: Noise of the mean of so many random controls of the official training file, as the chapter
#: quotes it from a public profile of that file.
_LAST_POINT, _LAST_NOISE, _FIRST_POINT, _FIRST_NOISE = 2560, 0.423, 40, 3.374
_ASKED_NOISE = 0.30


def _rarely_seen(*, perturbed: bool = False) -> pd.Series:
    """Say of each target if most controls, or most of its own cells, show no count of it."""
    label, zero = day(5).obs["target_gene"].astype(str), day(5)[:, targets()].to_df() == 0
    names = {name: name if perturbed else CONTROL for name in targets()}
    return pd.Series({name: zero.loc[label == of, name].mean() for name, of in names.items()}) > 0.5


@exercise("03-1")
def _share_by_chance():
    yield "right", (_N_BATCHES - 1) / (_N_CELLS - 1)
    yield "none", 0.0
    yield "nearly", _N_BATCHES / _N_CELLS
    yield "one batch", 1 / _N_BATCHES
    yield "three groups", 2 / (_N_CELLS - 1)


@exercise("03-2", tolerance=1e-9)
def _targets_rarely_seen():
    yield "right", int(_rarely_seen().sum())
    yield "perturbed", int(_rarely_seen(perturbed=True).sum())
    yield "others", int((~_rarely_seen()).sum())
    yield "share", float(_rarely_seen().mean())


@exercise("03-3", tolerance=0.02)
def _cells_needed():
    yield "right", _LAST_POINT * (_LAST_NOISE / _ASKED_NOISE) ** 2
    yield "in proportion", _LAST_POINT * _LAST_NOISE / _ASKED_NOISE
    yield "root", _LAST_POINT * np.sqrt(_LAST_NOISE / _ASKED_NOISE)
    yield "fewer", _LAST_POINT * (_ASKED_NOISE / _LAST_NOISE) ** 2
    yield "from 40", _FIRST_POINT * _FIRST_NOISE / _ASKED_NOISE


@exercise("03-4")
def _noise_of_a_half():
    values = pd.DataFrame(lognorm(day(5)).toarray(), columns=day(5).var_names)
    values = values[(day(5).obs["target_gene"] == CONTROL).to_numpy()]
    own, others = values["POU5F1"], values.drop(columns="POU5F1")
    half, variance = own <= own.median(), others.var().sum()
    yield "right", np.sqrt(variance * (1 / half.sum() - 1 / len(own)))
    yield "half alone", np.sqrt(variance / half.sum())
    yield "added", np.sqrt(variance * (1 / half.sum() + 1 / len(own)))
    yield "selected", float(np.linalg.norm(others[half].mean() - others.mean()))
