"""What exercises of many chapters compute with: the bundled cells, and the split of the book."""

from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, emit
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.datasets import load_h1_sample, load_hipsc_screen
from vcc_helpers.evaluation import repeated
from vcc_helpers.intervals import interval
from vcc_helpers.splits import FewShotSplit, few_shot_split, k_fold
from vcc_helpers.stream import pseudobulk

h1 = cache(load_h1_sample)
#: Means of the best entry of 2025, and of that contest's mean baseline.
WINNER = {"des": 0.349, "pds": 0.872, "mae": 1.03}
BASELINE = {"des": 0.095, "pds": 0.508, "mae": 0.026}


@cache
def day(number: int) -> anndata.AnnData:
    """Return the cells of one day of the hiPSC screen."""
    screen = load_hipsc_screen()
    return screen[screen.obs["day"] == number].copy()


@cache
def bulk(number: int) -> anndata.AnnData:
    return pseudobulk(day(number))


@cache
def effect(number: int) -> anndata.AnnData:
    return effects(bulk(number))


def sources(*days: int) -> dict[str, anndata.AnnData]:
    """Return the effects of some days, by default of 2, 3 and 4, by name."""
    return {f"day {number}": effect(number) for number in days or (2, 3, 4)}


def precision() -> dict[str, float]:
    """Return the weights by precision of days 2, 3 and 4."""
    return adapt.precision({f"day {number}": bulk(number) for number in (2, 3, 4)})


def targets() -> pd.Index:
    """Return the 23 silenced genes."""
    return effect(5).obs_names


def folds(n_splits: int = 4) -> list[FewShotSplit]:
    """Return the folds of the targets, drawn five times."""
    return [s for seed in range(5) for s in k_fold(targets(), n_splits=n_splits, seed=seed)]


def scores(models: Mapping[str, object]) -> pd.DataFrame:
    """Return the means over the folds, metric by model."""
    return interval(repeated(models, bulk(5), folds()))["mean"].unstack("model")


class Deal(NamedTuple):
    """Day 5 as a contest: 10 targets known, 13 to be predicted, and what an emitter needs."""

    known: anndata.AnnData
    real: anndata.AnnData
    recipe: dict[str, object]

    @property
    def query(self) -> list[str]:
        return self.recipe["n_cells"].index.tolist()


@cache
def deal(seed: int = 0) -> Deal:
    split = few_shot_split(targets(), n_support=10, seed=seed)
    labels = day(5).obs["target_gene"].astype(str)
    known, real = (day(5)[labels.isin([CONTROL, *names]).to_numpy()].copy() for names in split)
    return Deal(known, real, recipe(known, labels.value_counts()[split.query]))


def recipe(known: anndata.AnnData, n_cells: pd.Series) -> dict[str, object]:
    """Return what an emitter needs: controls, numbers of cells, and their depth."""
    return {
        "controls": known[known.obs["target_gene"] == CONTROL].copy(),
        "n_cells": n_cells,
        "target_sum": float(np.median(np.ravel(known.X.sum(axis=1)))),
    }


@cache
def predicted(seed: int = 0) -> anndata.AnnData:
    """Return the means that the gains of the three days predict of that split."""
    known, _, _ = deal(seed)
    return adapt.ContextGain(sources()).fit(pseudobulk(known)).predict(deal(seed).query)


@cache
def honest(seed: int = 1) -> tuple[anndata.AnnData, anndata.AnnData]:
    """Return that prediction as cells of counts, and the truth."""
    cells = emit.negative_binomial(predicted(seed), **deal(seed).recipe, seed=seed)
    return cells, deal(seed).real
