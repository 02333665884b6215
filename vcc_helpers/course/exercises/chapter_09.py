"""Exercises of notebooks/09_first_submission: effect size, file size, a broken file."""

from collections.abc import Callable
from functools import cache

import anndata
import numpy as np

from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import CONTROL
from vcc_helpers.counts import lognorm
from vcc_helpers.emit import replicate, resample_and_shift
from vcc_helpers.scoring import ScoreCard, official_baseline, score
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import deal, effect, predicted

_ROOM, _N_TARGETS = 200_000 - 38_176, 100


def _controls() -> anndata.AnnData:
    known = deal().known.copy()
    known.X = lognorm(known)
    return known[known.obs["target_gene"] == CONTROL]


@cache
def _stretched(
    factor: float, emitter: Callable = replicate, *, of_means: bool = False
) -> ScoreCard:
    pred, n_cells = predicted().copy(), deal().recipe["n_cells"]
    base = np.zeros((1, pred.n_vars)) if of_means else pred[CONTROL].X.copy()
    pred.X = np.maximum(base + factor * (pred.X - base), 0).astype(np.float32)
    return score(emitter(pred, controls=_controls(), n_cells=n_cells), deal().real)


@cache
def _repaired(*, by_position: bool = False) -> ScoreCard:
    known, real, _ = deal()
    model = ContextGain({"day 4": effect(4)}).fit(pseudobulk(known)[[CONTROL]])
    cells = replicate(model.predict(deal().query), controls=_controls(), n_cells=50)
    if by_position:
        cells = cells[:, ::-1].copy()
        cells.var_names = real.var_names
    return score(cells, real)


@exercise("09-1")
def _tripled_effects():
    known, real, recipe = deal()
    baseline = score(official_baseline(known, n_cells=recipe["n_cells"]), real)
    yield "right", _stretched(3).overall(baseline)
    yield "as predicted", _stretched(1).overall(baseline)
    yield "means", _stretched(3, of_means=True).overall(baseline)
    yield "shifted", _stretched(3, resample_and_shift).overall(baseline)
    yield "PDS", _stretched(3).summary["pds"]


@exercise("09-2", tolerance=1e-6)
def _cells_for_a_target():
    yield "right", _ROOM // _N_TARGETS
    yield "no controls", 200_000 // _N_TARGETS
    yield "not whole", _ROOM / _N_TARGETS
    yield "rounded up", _ROOM // _N_TARGETS + 1
    yield "101", _ROOM // (_N_TARGETS + 1)


@exercise("09-3")
def _repaired_file():
    yield "right", _repaired().summary["pds"]
    yield "renamed", _repaired(by_position=True).summary["pds"]
    yield "DES", _repaired().summary["des"]
