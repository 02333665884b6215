"""Exercises of notebooks/02_from_counts_to_effects: pseudobulk, effect, noise."""

import numpy as np
import pandas as pd

from vcc_helpers.bulk import effects
from vcc_helpers.counts import lognorm
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import h1

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
