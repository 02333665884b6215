"""Exercises of chapters 1 to 3."""

import numpy as np
import pandas as pd

from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.counts import lognorm
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import day, h1, targets


def _is(target: str) -> np.ndarray:
    return (h1().obs["target_gene"] == target).to_numpy()


@exercise("01-1")
def _depth_of_the_controls():
    depth, control = np.ravel(h1().X.sum(axis=1)), _is("non-targeting")
    yield "right", np.median(depth[control])
    yield "all cells", np.median(depth)
    yield "mean", depth[control].mean()
    yield "genes", np.median(np.ravel(h1()[control].X.sum(axis=0)))


@exercise("01-3")
def _counts_that_are_left():
    own, mine = h1()[:, "TMSB4X"].to_df()["TMSB4X"], _is("TMSB4X")
    control = own[_is("non-targeting")]
    pairs = own[mine].groupby(h1().obs["guide_id"].astype(str)[mine])
    left = pairs.mean()
    yield "right", left.max() / control.mean()
    yield "strong", left.min() / control.mean()
    yield "both", own[mine].mean() / control.mean()
    yield "medians", pairs.median()[left.idxmax()] / control.median()
    yield "all others", left.max() / own[~mine].mean()


_N_TARGET, _N_CONTROL = 1045, 38176


def _effect(target: str, gene: str) -> float:
    return float(effects(pseudobulk(h1()))[target, gene].X.item())


def _share_rising(*, scaled: bool) -> pd.Series:
    cells = h1().copy()
    if not scaled:
        cells.X = cells.X.log1p()
    return (effects(pseudobulk(cells)).to_df() > 0).mean(axis=1)


def _noise(n_target: float, n_control: float) -> float:
    bulk = pseudobulk(h1())
    variance = pd.Series(bulk.layers["variance"].sum(axis=1), bulk.obs_names)
    return float(np.sqrt(variance["SRC"] / n_target + variance["non-targeting"] / n_control))


@exercise("02-1", tolerance=1e-4)
def _mean_of_logs():
    med12 = (h1().obs["target_gene"] == "MED12").to_numpy()
    counts, logs = (
        x[med12][:, h1().var_names.get_loc("VIM")].toarray() for x in (h1().X, lognorm(h1()))
    )
    yield "right", logs.mean()
    yield "log of mean", np.log1p(np.expm1(logs).mean())
    yield "unscaled", np.log1p(counts).mean()
    yield "counts", counts.mean()
    yield "effect", _effect("MED12", "VIM")


@exercise("02-2")
def _log2_fold_change():
    effect = _effect("MED12", "TAGLN")
    yield "right", effect / np.log(2)
    yield "natural", effect
    yield "fold change", np.exp(effect)
    yield "undone", 2**effect
    yield "times", effect * np.log(2)
    yield "log twice", np.log2(effect)


@exercise("02-3")
def _effect_of_depth():
    depth = pd.Series(np.ravel(h1().X.sum(axis=1))).groupby(h1().obs["target_gene"].to_numpy())
    yield "right", _share_rising(scaled=False).idxmax()
    yield "deepest", depth.median().drop("non-targeting").idxmax()
    yield "scaled", _share_rising(scaled=True).idxmax()
    yield "falls", "TMSB4X"


@exercise("02-4")
def _noise_of_an_effect():
    yield "right", _noise(_N_TARGET, _N_CONTROL)
    yield "100 controls", _noise(_N_TARGET, 100)
    yield "equal", _noise(_N_TARGET, _N_TARGET)
    yield "target alone", _noise(_N_TARGET, np.inf)
    yield "100 each", _noise(100, 100)
    yield "in proportion", _noise(100, 100) * 100 / _N_TARGET


#: Noise of the mean of so many random controls of the official training file, as the chapter
#: quotes it from a public profile of that file.
_LAST_POINT, _LAST_NOISE, _FIRST_POINT, _FIRST_NOISE = 2560, 0.423, 40, 3.374
_ASKED_NOISE = 0.30


def _rarely_seen(*, perturbed: bool = False) -> pd.Series:
    """Say of each target if most controls, or most of its own cells, show no count of it."""
    label, zero = day(5).obs["target_gene"].astype(str), day(5)[:, targets()].to_df() == 0
    names = {name: name if perturbed else CONTROL for name in targets()}
    return pd.Series({name: zero.loc[label == of, name].mean() for name, of in names.items()}) > 0.5


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
