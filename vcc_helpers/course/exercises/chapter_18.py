"""Exercises of notebooks/18_score_another_model: the wrong table, another logarithm, fallbacks."""

from functools import cache

import anndata
import numpy as np

from vcc_helpers import adapt, datasets, emit, scoring
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.stream import pseudobulk

from . import Answers, exercise
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
def _score(part: str, metric: str) -> float:
    """Score the prediction, or the control cells that State's layout has in X."""
    world, known, real = _world()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[world.split["validation"]]
    cells = emit.resample_and_shift(_means(), **recipe(known, n_cells))
    if part == "X":
        is_control = cells.obs["target_gene"].to_numpy() == CONTROL
        source, controls = np.arange(cells.n_obs), np.flatnonzero(is_control)
        source[~is_control] = np.random.default_rng(0).choice(controls, (~is_control).sum())
        cells.X = cells.X[source]
    return float(scoring.score(cells, real).summary[metric])


@exercise("18-1")
def _the_wrong_table() -> Answers:
    """DES of the table in X.

    right: Next to nothing is found: these are control cells under other names. And still a number
        comes out.
    obsm: That is the DES of `state`. Leave layer= out.
    PDS: That is PDS. The question is DES.
    MAE: That is MAE. The question is DES.
    """
    yield "right", _score("X", "des")
    yield "obsm", _score("obsm", "des")
    yield "PDS", _score("X", "pds")
    yield "MAE", _score("X", "mae")


@exercise("18-2")
def _another_logarithm() -> Answers:
    """Largest distance between two logarithms of the means.

    right: Every value is 1.44 times too large, and nothing in the table says so. Times log(2),
        nothing but rounding is left.
    factor: That is the factor. How far apart are the values?
    mean: That is the mean distance. The question is the largest.
    value: That is the largest value. Take the difference from `table`.
    """
    yield "right", float(_means().X.max() * (1 / np.log(2) - 1))
    yield "factor", 1 / np.log(2)
    yield "mean", float(_means().X.mean() * (1 / np.log(2) - 1))
    yield "value", float(_means().X.max() / np.log(2))


@exercise("18-3")
def _fallbacks() -> Answers:
    """Count the targets with the controls' mean.

    right: Seven targets have exactly the controls' mean. No error told you so.
    first: Those are the first four. There are more further down.
    with controls: Controls themselves do not count: leave their own row out.
    all: That is the number of all targets.
    """
    yield "right", 7
    yield "first", 4
    yield "with controls", 8
    yield "all", 50
