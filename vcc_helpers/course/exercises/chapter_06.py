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
    """Find the target most similar to PRDM14.

    right: In mouse stem cells, Prdm14 works through Mtgr1, a protein of the ETO family (Nady et al.
        2015). RUNX1T1 is of that family too. Whether it does the same in these cells, a similarity
        alone cannot say.
    itself: Every target is most similar to itself. Drop it before you look for the maximum.
    last: That is the least similar target. A cosine similarity is large for near neighbours; a
        distance would be small.
    second: That is the second neighbour. One target is nearer still.
    """
    table = source_effects(sources())
    similar = pd.Series(cosine_similarity(table, table.loc[["PRDM14"]]).ravel(), table.index)
    similar = similar.sort_values(ascending=False)
    yield "right", similar.index[1]
    yield "itself", "PRDM14"
    yield "last", similar.index[-1]
    yield "second", similar.index[2]


@exercise("06-2")
def _asked_what_it_saw() -> Answers:
    """PDS of one neighbour on the targets it was fitted on.

    right: A perfect score from a model that knows nothing new. When a result looks too good, look
        for the answer among the inputs.
    held out: That is the honest value, over the folds. Here the model is fitted on all 23 and asked
        about the same 23.
    five: That is with five neighbours, the default. Ask for n_neighbors=1.
    """
    yield "right", _in_sample(1)["pds"]
    yield "held out", _held_out(1)["pds"]
    yield "five", _in_sample(5)["pds"]


@exercise("06-3")
def _day_4_alone() -> Answers:
    """MAE of kNN with the features of day 4 alone.

    right: Worse than with three days: three noisy portraits of a target beat one, even though day 4
        is the nearest in time.
    all days: That is with all three days. Select day 4 from the feature table first.
    PDS: That is the mean PDS. The question is about MAE.
    five: That is with five neighbours. Ask for three.
    """
    yield "right", _held_out(3, 4)["mae"]
    yield "all days", _held_out(3)["mae"]
    yield "PDS", _held_out(3, 4)["pds"]
    yield "five", _held_out(5, 4)["mae"]
