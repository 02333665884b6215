"""Exercises of notebooks/16_run_your_own_leaderboard: doubt, mean rank, what digits give away."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import adapt, emit, features, models
from vcc_helpers.classroom import doubt, rank
from vcc_helpers.scoring import ScoreCard, official_baseline, score
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import deal, precision, sources

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


@cache
def _beats_next() -> list[float]:
    return doubt(*_cards())["beats next"].tolist()


def _board() -> pd.DataFrame:
    return rank(*_cards())


@exercise("16-1")
def _second_place():
    yield "right", _beats_next()[1]
    yield "first", _beats_next()[0]
    yield "third", _beats_next()[2]


@exercise("16-2")
def _place_by_mean_rank():
    yield "right", int(_board()["mean rank"].rank(method="min")["knn"])
    yield "overall", int(_board()["place"]["knn"])
    yield "mean rank", float(_board()["mean rank"]["knn"])


@exercise("16-3")
def _one_step():
    n_genes, n_targets = deal().real.n_vars, len(deal().query)
    yield "right", _SHIFT / (n_genes * n_targets)
    yield "of the target", _SHIFT / n_genes
    yield "of the gene", _SHIFT / n_targets
    yield "itself", _SHIFT
