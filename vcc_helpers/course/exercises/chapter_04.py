"""Exercises of notebooks/04_mean_baseline: noise, the mean against no change, chance, own gene."""

import numpy as np
import pandas as pd

from vcc_helpers import evaluation, intervals, metrics, models
from vcc_helpers.splits import k_fold

from . import exercise
from ._data import bulk, effect, folds, scores, targets


def _floor(target: str) -> float:
    row = bulk(5)[target]
    return np.sqrt(2 / np.pi) * np.sqrt(row.layers["variance"] / row.obs["n_cells"].item()).mean()


def _mae_when_seen(model: models.EffectModel) -> pd.Series:
    return evaluation.evaluate(model.fit(bulk(5)).predict(targets()), bulk(5))["mae"]


def _pds_of_nothing(own_gene: np.ndarray) -> float:
    return metrics.pds(np.zeros(effect(5).shape), effect(5).X, own_gene).mean()


@exercise("04-1")
def _noise_of_more_cells():
    ratio = bulk(5).obs["n_cells"]["MYC"] / bulk(5).obs["n_cells"]["ID1"]
    yield "right", _floor("MYC") * np.sqrt(ratio)
    yield "in proportion", _floor("MYC") * ratio
    yield "larger", _floor("MYC") / np.sqrt(ratio)
    yield "floor of ID1", _floor("ID1")


@exercise("04-2")
def _how_often_the_mean_wins():
    both = {"no change": models.no_change(), "mean": models.mean_baseline()}
    table = evaluation.repeated(both, bulk(5), folds())
    won = intervals.compare(table, "no change").loc[("mean", "mae"), "won"]
    yield "right", won
    yield "lost", 1 - won
    yield "number", round(won * 23)
    alone = k_fold(targets(), n_splits=len(targets()))
    held_out = evaluation.cross_predict(models.mean_baseline(), bulk(5), alone)
    wanted = evaluation.calibration(held_out, bulk(5)).per_perturbation["slope"]
    yield "wants more", (wanted > 1).mean()
    seen, nothing = map(_mae_when_seen, (models.mean_baseline(), models.no_change()))
    yield "seen", (seen < nothing).mean()


@exercise("04-3")
def _pds_of_no_change():
    yield "right", _pds_of_nothing(np.full(len(targets()), -1))
    yield "left out", _pds_of_nothing(bulk(5).var_names.get_indexer(targets()))
    yield "half", 0.5


@exercise("04-4")
def _pearson_of_one_gene():
    nothing = models.no_change()
    named = {
        "right": models.KnockedDown(nothing),
        "mean silenced": models.crispr_mean(),
        "mean": models.mean_baseline(),
        "no change": nothing,
    }
    yield from scores(named).loc["pearson", list(named)].items()
