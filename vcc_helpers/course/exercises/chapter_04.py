"""Exercises of notebooks/04_mean_baseline: noise, the mean against no change, chance, own gene."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import evaluation, intervals, metrics, models
from vcc_helpers.splits import k_fold

from . import Answers, exercise
from ._data import bulk, effect, folds, targets


@cache
def _table() -> pd.DataFrame:
    """Return the models of the chapter, scored as there."""
    asked = {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "mean, own gene silenced": models.crispr_mean(),
        "own gene only": models.KnockedDown(models.no_change()),
    }
    return evaluation.repeated(asked, bulk(5), folds())


def _floor(target: str) -> float:
    row = bulk(5)[target]
    return np.sqrt(2 / np.pi) * np.sqrt(row.layers["variance"] / row.obs["n_cells"].item()).mean()


def _mae_when_seen(model: models.EffectModel) -> pd.Series:
    return evaluation.evaluate(model.fit(bulk(5)).predict(targets()), bulk(5))["mae"]


def _pds_of_nothing(own_gene: np.ndarray) -> float:
    return metrics.pds(np.zeros(effect(5).shape), effect(5).X, own_gene).mean()


@exercise("04-1")
def _noise_of_more_cells() -> Answers:
    """Find the floor of MYC with as many cells as ID1 has."""
    ratio = bulk(5).obs["n_cells"]["MYC"] / bulk(5).obs["n_cells"]["ID1"]
    yield "right", _floor("MYC") * np.sqrt(ratio)
    yield "in proportion", _floor("MYC") * ratio
    yield "larger", _floor("MYC") / np.sqrt(ratio)
    yield "floor of ID1", _floor("ID1")


@exercise("04-2")
def _how_often_the_mean_wins() -> Answers:
    """Share of targets on which the mean is better than no change."""
    won = intervals.compare(_table(), "no change").loc[("mean", "mae"), "won"]
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
def _pds_of_no_change() -> Answers:
    """PDS of no change with the own genes counted."""
    yield "right", _pds_of_nothing(np.full(len(targets()), -1))
    yield "left out", _pds_of_nothing(bulk(5).var_names.get_indexer(targets()))
    yield "half", 0.5


@exercise("04-4")
def _pearson_of_one_gene() -> Answers:
    """Correlation of a prediction that knows the own gene alone."""
    pearson = intervals.interval(_table())["mean"].unstack()["pearson"]
    yield "right", pearson["own gene only"]
    yield "mean silenced", pearson["mean, own gene silenced"]
    yield "mean", pearson["mean"]
    yield "no change", pearson["no change"]
