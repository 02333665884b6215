"""Exercises of notebooks/06_knn_baseline: neighbours, leakage, features."""

from functools import cache

import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from vcc_helpers.evaluation import evaluate
from vcc_helpers.features import source_effects
from vcc_helpers.models import knn_baseline

from . import exercise
from ._data import bulk, scores, sources, targets


@cache
def _held_out(k: int, *days: int) -> pd.Series:
    return scores({"": knn_baseline(source_effects(sources(*days)), k)})[""]


@cache
def _in_sample(k: int) -> pd.Series:
    model = knn_baseline(source_effects(sources()), k).fit(bulk(5))
    return evaluate(model.predict(targets()), bulk(5)).mean()


@exercise("06-1")
def _nearest_neighbour():
    table = source_effects(sources())
    similar = pd.Series(cosine_similarity(table, table.loc[["PRDM14"]]).ravel(), table.index)
    similar = similar.sort_values(ascending=False)
    yield "right", similar.index[1]
    yield "itself", "PRDM14"
    yield "last", similar.index[-1]
    yield "second", similar.index[2]


@exercise("06-2")
def _asked_what_it_saw():
    yield "right", _in_sample(1)["pds"]
    yield "held out", _held_out(1)["pds"]
    yield "five", _in_sample(5)["pds"]


@exercise("06-3")
def _day_4_alone():
    yield "right", _held_out(3, 4)["mae"]
    yield "all days", _held_out(3)["mae"]
    yield "PDS", _held_out(3, 4)["pds"]
    yield "five", _held_out(5, 4)["mae"]
