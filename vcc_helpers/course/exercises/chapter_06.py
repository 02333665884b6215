"""Exercises of notebooks/06_knn_baseline: neighbours, leakage, features.

Needs: datasets, effects, evaluation, features, models, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("06-2", 1.0).status
'right'
"""

from functools import cache

import anndata
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.evaluation import evaluate, repeated
from vcc_helpers.features import source_effects
from vcc_helpers.intervals import interval
from vcc_helpers.models import knn_baseline
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _bulk(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == day])


@cache
def _features(*days: int) -> pd.DataFrame:
    return source_effects({f"day {day}": effects(_bulk(day)) for day in days})


def _neighbours(target: str, *days: int) -> pd.Series:
    table = _features(*days)
    similar = cosine_similarity(table, table.loc[[target]]).ravel()
    return pd.Series(similar, table.index).sort_values(ascending=False)


@cache
def _held_out(k: int, *days: int) -> pd.Series:
    bulk = _bulk(5)
    targets = effects(bulk).obs_names
    folds = [fold for seed in range(5) for fold in k_fold(targets, n_splits=4, seed=seed)]
    table = repeated({"kNN": knn_baseline(_features(*days), k)}, bulk, folds)
    return interval(table)["mean"]["kNN"]


@cache
def _in_sample(k: int) -> pd.Series:
    bulk = _bulk(5)
    pred = knn_baseline(_features(2, 3, 4), k).fit(bulk).predict(effects(bulk).obs_names)
    return evaluate(pred, bulk).mean()


EXERCISES = {
    "06-1": Exercise(
        solution=lambda: _neighbours("PRDM14", 2, 3, 4).index[1],
        right="In mouse stem cells, Prdm14 works through Mtgr1, a protein of the ETO family "
        "(Nady et al. 2015). RUNX1T1 is of that family too. Whether it does the same in these "
        "cells, a similarity alone cannot say.",
        hints=(
            Hint(
                lambda: "PRDM14",
                "Every target is most similar to itself. Drop it before you look for the maximum.",
            ),
            Hint(
                lambda: _neighbours("PRDM14", 2, 3, 4).index[-1],
                "That is the least similar target. A cosine similarity is large for near "
                "neighbours; a distance would be small.",
            ),
            Hint(
                lambda: _neighbours("PRDM14", 2, 3, 4).index[2],
                "That is the second neighbour. One target is nearer still.",
            ),
        ),
    ),
    "06-2": Exercise(
        solution=lambda: _in_sample(1)["pds"],
        right="A perfect score from a model that knows nothing new. When a result looks too good, "
        "look for the answer among the inputs.",
        hints=(
            Hint(
                lambda: _held_out(1, 2, 3, 4)["pds"],
                "That is the honest value, over the folds. Here the model is fitted on all 23 and "
                "asked about the same 23.",
            ),
            Hint(
                lambda: _in_sample(5)["pds"],
                "That is with five neighbours, the default. Ask for n_neighbors=1.",
            ),
        ),
    ),
    "06-3": Exercise(
        solution=lambda: _held_out(3, 4)["mae"],
        right="Worse than with three days: three noisy portraits of a target beat one, even though "
        "day 4 is the nearest in time.",
        hints=(
            Hint(
                lambda: _held_out(3, 2, 3, 4)["mae"],
                "That is with all three days. Select day 4 from the feature table first.",
            ),
            Hint(
                lambda: _held_out(3, 4)["pds"],
                "That is the mean PDS. The question is about MAE.",
            ),
            Hint(
                lambda: _held_out(5, 4)["mae"],
                "That is with five neighbours. Ask for three.",
            ),
        ),
    ),
}
