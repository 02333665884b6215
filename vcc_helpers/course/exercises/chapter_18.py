"""Exercises of notebooks/18_score_another_model: the wrong table, another logarithm, fallbacks."""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, datasets, emit, scoring
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import recipe


@cache
def _world() -> tuple[datasets.World, anndata.AnnData, anndata.AnnData]:
    world = datasets.make_h1_like(seed=0)
    return world, world.cells("train").copy(), world.cells("validation").copy()


@cache
def _means() -> anndata.AnnData:
    """Return the pseudobulk that the notebook predicts."""
    world, known, _ = _world()
    sources = {name: effects(pseudobulk(world.contexts[name])) for name in world.sources}
    return adapt.ContextGain(sources).fit(pseudobulk(known)).predict(world.split["validation"])


@cache
def _summary(part: str) -> pd.Series:
    """Score the prediction, or the control cells that State's layout has in X."""
    world, known, real = _world()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[world.split["validation"]]
    cells = emit.resample_and_shift(_means(), **recipe(known, n_cells))
    if part == "X":
        is_control = cells.obs["target_gene"].to_numpy() == CONTROL
        source, controls = np.arange(cells.n_obs), np.flatnonzero(is_control)
        source[~is_control] = np.random.default_rng(0).choice(controls, (~is_control).sum())
        cells.X = cells.X[source]
    return scoring.score(cells, real).summary


@exercise("18-1")
def _the_wrong_table():
    yield "right", _summary("X")["des"]
    yield "obsm", _summary("obsm")["des"]
    yield "PDS", _summary("X")["pds"]
    yield "MAE", _summary("X")["mae"]


@exercise("18-2")
def _another_logarithm():
    yield "right", float(_means().X.max() * (1 / np.log(2) - 1))
    yield "factor", 1 / np.log(2)
    yield "mean", float(_means().X.mean() * (1 / np.log(2) - 1))
    yield "value", float(_means().X.max() / np.log(2))


@exercise("18-3")
def _fallbacks():
    yield "right", 7
    yield "first", 4
    yield "with controls", 8
    yield "all", 50
