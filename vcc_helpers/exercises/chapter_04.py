"""Exercises of notebooks/04_mean_baseline: noise, the mean against no change, chance.

Needs: datasets, effects, metrics, models, scoring; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("04-3", 12 / 23).status
'right'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import metrics, models, scoring
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.effects import effects, pseudobulk

from . import Exercise, Hint


@cache
def _bulk() -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == 5])


def _effect() -> anndata.AnnData:
    return effects(_bulk())


def _n_cells(target: str) -> int:
    return _bulk().obs["n_cells"][target]


def _floor(target: str) -> float:
    row = _bulk()[target]
    error = np.sqrt(row.layers["variance"] / _n_cells(target))
    return np.sqrt(2 / np.pi) * error.mean()


@cache
def _mae(name: str) -> pd.Series:
    targets = _effect().obs_names
    if name == "mean, target seen":
        pred = models.mean_baseline().fit(_bulk()).predict(targets)
    else:
        model = {"mean": models.mean_baseline, "no change": models.no_change}[name]()
        pred = models.cross_predict(model, _bulk(), n_splits=len(targets))
    return scoring.compare_pseudobulk(pred, _bulk())["mae"]


def _n_won(name: str) -> int:
    return int((_mae(name) < _mae("no change")).sum())


def _pds_of_nothing(*, leave_out: bool) -> float:
    delta = _effect()
    own = delta.var_names.get_indexer(delta.obs_names) if leave_out else np.full(delta.n_obs, -1)
    return metrics.pds(np.zeros(delta.shape), delta.X, own).mean()


EXERCISES = {
    "04-1": Exercise(
        solution=lambda: _floor("MYC") * np.sqrt(_n_cells("MYC") / _n_cells("ID1")),
        right="Ten times the cells, a third of the noise. That is why the last bit of precision "
        "is so expensive.",
        hints=(
            Hint(
                lambda: _floor("MYC") * _n_cells("MYC") / _n_cells("ID1"),
                "You let the noise fall in proportion to the number of cells. It falls with the "
                "square root.",
            ),
            Hint(
                lambda: _floor("MYC") * np.sqrt(_n_cells("ID1") / _n_cells("MYC")),
                "That is larger than it is now. More cells make a mean more exact.",
            ),
            Hint(
                lambda: _floor("ID1"),
                "That is the floor of ID1. Its genes vary differently between cells; keep the "
                "variance of MYC and change the number of cells only.",
            ),
        ),
    ),
    "04-2": Exercise(
        solution=lambda: _n_won("mean"),
        right="Fewer than half! It wins on average, because where it wins it wins by more.",
        hints=(
            Hint(
                lambda: len(_mae("mean")) - _n_won("mean"),
                "That is how often no change is the better one. Lower MAE is better.",
            ),
            Hint(
                lambda: _n_won("mean, target seen"),
                "That is the mean with the target in it, which has seen the answer. Use the "
                "held-out predictions, as in `cards`.",
            ),
        ),
    ),
    "04-3": Exercise(
        solution=lambda: _pds_of_nothing(leave_out=False),
        right="Chance, to the last digit. What no change scored above it came from leaving out "
        "the target's own gene.",
        hints=(
            Hint(
                lambda: _pds_of_nothing(leave_out=True),
                "That is the score with each target's own gene left out. Fill own_gene with -1.",
            ),
            Hint(
                lambda: 0.5,
                "Nearly. The best rank counts 1 and the worst 1/N, so the middle lies a little "
                "above one half. Compute it.",
            ),
        ),
    ),
}
