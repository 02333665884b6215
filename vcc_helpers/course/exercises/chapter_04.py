"""Exercises of notebooks/04_mean_baseline: noise, the mean against no change, chance, own gene."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import evaluation, intervals, metrics, models

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
    """Find the floor of MYC with as many cells as ID1 has.

    right: Ten times the cells, a third of the noise. That is why the last bit of precision is so
        expensive.
    in proportion: You let the noise fall in proportion to the number of cells. It falls with the
        square root.
    larger: That is larger than it is now. More cells make a mean more exact.
    floor of ID1: That is the floor of ID1. Its genes vary differently between cells; keep the
        variance of MYC and change the number of cells only.
    """
    ratio = bulk(5).obs["n_cells"]["MYC"] / bulk(5).obs["n_cells"]["ID1"]
    yield "right", _floor("MYC") * np.sqrt(ratio)
    yield "in proportion", _floor("MYC") * ratio
    yield "larger", _floor("MYC") / np.sqrt(ratio)
    yield "floor of ID1", _floor("ID1")


@exercise("04-2")
def _how_often_the_mean_wins() -> Answers:
    """Share of targets on which the mean is better than no change.

    right: Fewer than half! It does not lose on average, because where it wins it wins by more.
    lost: That is how often no change is the better one. Lower MAE is better.
    number: That is the number of targets. The question is for the share.
    wants more: That is the share of targets that want more of the mean, a factor above 1. Less than
        the best size can still be better than nothing; compare the two MAEs.
    seen: That is the mean with the target in it, which has seen the answer. Use the held-out
        predictions, as in `table`.
    """
    won = intervals.compare(_table(), "no change").loc[("mean", "mae"), "won"]
    yield "right", won
    yield "lost", 1 - won
    yield "number", round(won * 23)
    held_out = models.cross_predict(models.mean_baseline(), bulk(5), n_splits=len(targets()))
    wanted = evaluation.calibration(held_out, bulk(5)).per_perturbation["slope"]
    yield "wants more", (wanted > 1).mean()
    seen, nothing = map(_mae_when_seen, (models.mean_baseline(), models.no_change()))
    yield "seen", (seen < nothing).mean()


@exercise("04-3")
def _pds_of_no_change() -> Answers:
    """PDS of no change with the own genes counted.

    right: Chance, to the last digit. What no change scored above it came from leaving out the
        target's own gene.
    left out: That is the score with each target's own gene left out. Fill own_gene with -1.
    half: Nearly. The best rank counts 1 and the worst 1/N, so the middle lies a little above one
        half. Compute it.
    """
    yield "right", _pds_of_nothing(np.full(len(targets()), -1))
    yield "left out", _pds_of_nothing(bulk(5).var_names.get_indexer(targets()))
    yield "half", 0.5


@exercise("04-4")
def _pearson_of_one_gene() -> Answers:
    """Correlation of a prediction that knows the own gene alone.

    right: One gene, nothing said of the other 102, and it does not even matter how much of it is
        left. Leave the own gene out before you believe a correlation.
    mean silenced: That is the mean with its own gene silenced. Put no change into KnockedDown.
    mean: That is the plain mean. Start from no change instead, and silence the own gene.
    no change: That is no change itself: no direction, so no correlation. Silence the own gene in it
        with KnockedDown.
    """
    pearson = intervals.interval(_table())["mean"].unstack()["pearson"]
    yield "right", pearson["own gene only"]
    yield "mean silenced", pearson["mean, own gene silenced"]
    yield "mean", pearson["mean"]
    yield "no change", pearson["no change"]
