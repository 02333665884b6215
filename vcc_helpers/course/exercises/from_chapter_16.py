"""Exercises of chapters 16 to 18."""

from collections.abc import Callable
from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, datasets, emit, features, models, scoring, submission
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.classroom import doubt, rank
from vcc_helpers.scoring import ScoreCard, official_baseline, score
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import deal, precision, predicted, recipe, sources

_PRESET, _SHIFT = "vcc2025-generalist", 0.1


@cache
def _cards() -> tuple[dict[str, ScoreCard], ScoreCard]:
    known, truth, recipe = deal()
    elsewhere, weights = features.source_effects(sources()), precision()
    parts = features.source_components(sources())
    teams = {
        "mean": models.mean_baseline(),
        "knn": models.knn_baseline(elsewhere, 3),
        "kernel-ridge": models.kernel_ridge(elsewhere, alpha=0.3),
        "zero-shot": adapt.ContextGain(sources(), prior=weights, shrinkage=np.inf),
        "residual-ridge": adapt.ResidualRidge(sources(), prior=weights, features=parts),
    }
    bulk = pseudobulk(known)
    pred = {team: model.fit(bulk).predict(deal().query) for team, model in teams.items()}
    entries = {team: emit.resample_and_shift(means, **recipe) for team, means in pred.items()}
    entries["identical-cells"] = emit.replicate(pred["residual-ridge"], **recipe)
    baseline = official_baseline(known, n_cells=recipe["n_cells"])
    cards = {team: score(cells, truth, _PRESET) for team, cells in entries.items()}
    return cards, score(baseline, truth, _PRESET)


@exercise("16-1")
def _second_place():
    beats_next = doubt(*_cards())["beats next"].tolist()
    yield "right", beats_next[1]
    yield "first", beats_next[0]
    yield "third", beats_next[2]


@exercise("16-2")
def _place_by_mean_rank():
    board = rank(*_cards())
    yield "right", int(board["mean rank"].rank(method="min")["knn"])
    yield "overall", int(board["place"]["knn"])
    yield "mean rank", float(board["mean rank"]["knn"])


@exercise("16-3")
def _one_step():
    n_genes, n_targets = deal().real.n_vars, len(deal().query)
    yield "right", _SHIFT / (n_genes * n_targets)
    yield "of the target", _SHIFT / n_genes
    yield "of the gene", _SHIFT / n_targets
    yield "itself", _SHIFT


@cache
def _cells() -> anndata.AnnData:
    """Return what the notebook predicts, as cells made by resampling."""
    return emit.resample_and_shift(predicted(), **deal().recipe)


def _spread(undo: Callable) -> float:
    logs = _cells()[_cells().obs["target_gene"] == CONTROL].X.toarray().astype(float)
    totals = undo(logs).sum(axis=1)
    return float(totals.std() / totals.mean())


def _kept(limit: int) -> pd.Series:
    sizes = _cells().obs["target_gene"].astype(str).value_counts()
    kept = submission.thin(sizes, limit=limit)
    return kept.where(kept < sizes)


@exercise("17-1")
def _spread_of_the_sums():
    yield "right", _spread(np.expm1)
    yield "base 2", _spread(lambda v: np.exp2(v) - 1)
    yield "logs", _spread(lambda v: v)
    yield "exp", _spread(np.exp)


@exercise("17-2")
def _cells_after_thinning():
    yield "right", int(_kept(500).min())
    yield "larger", int(_kept(500).max())
    yield "800", int(_kept(800).min())


@cache
def _world() -> tuple[anndata.AnnData, ...]:
    """Return known cells and real ones, and the means that the notebook predicts."""
    world = datasets.make_h1_like(seed=0)
    known, real = (world.cells(part).copy() for part in ("train", "validation"))
    sources = {name: effects(pseudobulk(world.contexts[name])) for name in world.sources}
    fitted = adapt.ContextGain(sources).fit(pseudobulk(known))
    return known, real, fitted.predict(world.split["validation"])


@cache
def _summary(part: str) -> pd.Series:
    """Score the prediction, or the control cells that State's layout has in X."""
    known, real, means = _world()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[means.obs_names.drop(CONTROL)]
    cells = emit.resample_and_shift(means, **recipe(known, n_cells))
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
    means = _world()[2].X
    yield "right", float(means.max() * (1 / np.log(2) - 1))
    yield "factor", 1 / np.log(2)
    yield "mean", float(means.mean() * (1 / np.log(2) - 1))
    yield "value", float(means.max() / np.log(2))
