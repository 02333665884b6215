"""Exercises of notebooks/06_knn_baseline: neighbours, leakage, features."""

from functools import cache

import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from vcc_helpers.evaluation import evaluate, repeated
from vcc_helpers.features import source_effects
from vcc_helpers.intervals import interval
from vcc_helpers.models import knn_baseline

from . import Answers, exercise
from ._data import bulk, folds, sources, targets


@cache
def _held_out(k: int, *days: int) -> pd.Series:
    model = knn_baseline(source_effects(sources(*days)), k)
    return interval(repeated({"kNN": model}, bulk(5), folds()))["mean"]["kNN"]


@cache
def _in_sample(k: int) -> pd.Series:
    model = knn_baseline(source_effects(sources()), k).fit(bulk(5))
    return evaluate(model.predict(targets()), bulk(5)).mean()


@exercise("06-1")
def _nearest_neighbour() -> Answers:
    """Find the target most similar to PRDM14."""
    table = source_effects(sources())
    similar = pd.Series(cosine_similarity(table, table.loc[["PRDM14"]]).ravel(), table.index)
    similar = similar.sort_values(ascending=False)
    yield "right", similar.index[1]
    yield "itself", "PRDM14"
    yield "last", similar.index[-1]
    yield "second", similar.index[2]


@exercise("06-2")
def _asked_what_it_saw() -> Answers:
    """PDS of one neighbour on the targets it was fitted on."""
    yield "right", _in_sample(1)["pds"]
    yield "held out", _held_out(1)["pds"]
    yield "five", _in_sample(5)["pds"]


@exercise("06-3")
def _day_4_alone() -> Answers:
    """MAE of kNN with the features of day 4 alone."""
    yield "right", _held_out(3, 4)["mae"]
    yield "all days", _held_out(3)["mae"]
    yield "PDS", _held_out(3, 4)["pds"]
    yield "five", _held_out(5, 4)["mae"]
