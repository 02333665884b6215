"""Exercises of notebooks/04_mean_baseline: noise, the mean against no change, chance, own gene.

Needs: datasets, effects, evaluation, metrics, models, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("04-3", 12 / 23).status
'right'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import evaluation, intervals, metrics, models
from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk

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
def _table() -> pd.DataFrame:
    """Return the models of the chapter, scored as there: four folds, dealt five times."""
    asked = {
        "no change": models.no_change(),
        "mean": models.mean_baseline(),
        "mean, own gene silenced": models.crispr_mean(),
        "own gene only": models.KnockedDown(models.no_change()),
    }
    targets = _effect().obs_names
    folds = [split for seed in range(5) for split in k_fold(targets, n_splits=4, seed=seed)]
    return evaluation.repeated(asked, _bulk(), folds)


def _pearson(name: str) -> float:
    return intervals.interval(_table()).loc[(name, "pearson"), "mean"]


def _won() -> float:
    return intervals.compare(_table(), "no change").loc[("mean", "mae"), "won"]


def _wants_more() -> float:
    folds = k_fold(_effect().obs_names, n_splits=_effect().n_obs)
    held_out = evaluation.cross_predict(models.mean_baseline(), _bulk(), folds)
    return (evaluation.calibration(held_out, _bulk()).per_perturbation["slope"] > 1).mean()


def _won_when_seen() -> float:
    targets = _effect().obs_names
    seen, nothing = (
        evaluation.evaluate(model.fit(_bulk()).predict(targets), _bulk())["mae"]
        for model in (models.mean_baseline(), models.no_change())
    )
    return (seen < nothing).mean()


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
        solution=_won,
        right="Fewer than half! It does not lose on average, because where it wins it wins by "
        "more.",
        hints=(
            Hint(
                lambda: 1 - _won(),
                "That is how often no change is the better one. Lower MAE is better.",
            ),
            Hint(
                lambda: round(_won() * 23),
                "That is the number of targets. The question is for the share.",
            ),
            Hint(
                _wants_more,
                "That is the share of targets that want more of the mean, a factor above 1. Less "
                "than the best size can still be better than nothing; compare the two MAEs.",
            ),
            Hint(
                _won_when_seen,
                "That is the mean with the target in it, which has seen the answer. Use the "
                "held-out predictions, as in `table`.",
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
    "04-4": Exercise(
        solution=lambda: _pearson("own gene only"),
        right="One gene, nothing said of the other 102, and it does not even matter how much of it "
        "is left. Leave the own gene out before you believe a correlation.",
        hints=(
            Hint(
                lambda: _pearson("mean, own gene silenced"),
                "That is the mean with its own gene silenced. Put no change into KnockedDown.",
            ),
            Hint(
                lambda: _pearson("mean"),
                "That is the plain mean. Start from no change instead, and silence the own gene.",
            ),
            Hint(
                lambda: _pearson("no change"),
                "That is no change itself: no direction, so no correlation. Silence the own gene "
                "in it with KnockedDown.",
            ),
        ),
    ),
}
