"""Exercises of notebooks/05_linear_baseline: loadings, W by hand, day 2, covariance.

Needs: datasets, effects, evaluation, features, models, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("05-1", "NANOG").status
'wrong'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import evaluation, intervals, models
from vcc_helpers.bulk import effects, silenced
from vcc_helpers.counts import lognorm
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.features import GeneLoadings, source_effects
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _bulk(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == day])


def _without(target: str) -> anndata.AnnData:
    bulk = _bulk(5)
    return effects(bulk[bulk.obs_names != target])


def _most_alike(how: str, n_components: int = 10) -> str:
    train = _without("NANOG")
    table = GeneLoadings(n_components)(train)
    own = table.loc["NANOG"]
    if how == "product":
        alike = table @ own
    elif how == "raw":
        alike = train.to_df().corr()["NANOG"]
    else:
        alike = (table @ own) / np.linalg.norm(table, axis=1)
    return alike.drop("NANOG").idxmax()


def _norm_of_w(
    n_components: int = 5,
    ridge: float = 1.0,
    *,
    held_out: str = "POU5F1",
    centre: bool = True,
    right_ridge: bool = True,
) -> float:
    train = _without(held_out)
    y = train.X.astype(np.float64)
    table = GeneLoadings(n_components)(train)
    g, p = table.to_numpy(), table.loc[train.obs_names].to_numpy()
    y = y - y.mean(axis=0) if centre else y
    eye = ridge * np.eye(n_components)
    left = np.linalg.solve(p.T @ p + eye, p.T @ y) @ g
    return np.linalg.norm(np.linalg.solve(g.T @ g + eye, left.T) if right_ridge else left)


@cache
def _scores(day: int) -> pd.DataFrame:
    """Return ridge on the effects of a day, scored as in the chapter: four folds, five times."""
    table = source_effects({"source": effects(_bulk(day))})
    targets = effects(_bulk(5)).obs_names
    folds = [split for seed in range(5) for split in k_fold(targets, n_splits=4, seed=seed)]
    return intervals.interval(
        evaluation.repeated({"ridge": models.ridge(table)}, _bulk(5), folds)
    )["mean"]["ridge"]


@cache
def _alone(day: int) -> float:
    """Return the PDS of leave-one-out, all targets ranked together."""
    table = source_effects({"source": effects(_bulk(day))})
    targets = effects(_bulk(5)).obs_names
    folds = k_fold(targets, n_splits=len(targets))
    pred = evaluation.cross_predict(models.ridge(table), _bulk(5), folds)
    return evaluation.evaluate(pred, _bulk(5))["pds"].mean()


@cache
def _controls() -> pd.DataFrame:
    screen = load_hipsc_screen()
    controls = screen[(screen.obs["day"] == 5) & (screen.obs["target_gene"] == "non-targeting")]
    return pd.DataFrame(lognorm(controls.copy()).toarray(), columns=controls.var_names)


def _response(of: str, on: str, *, over: str | None = None, share: float = 0.05) -> float:
    """Linear response of one gene to silencing another, over the variance of the gene `over`."""
    sigma, mean = _controls()[[of, on]].cov(), _controls()[of].mean()
    return sigma.loc[on, of] * (silenced(mean, share) - mean) / sigma.loc[over or of, over or of]


EXERCISES = {
    "05-1": Exercise(
        solution=lambda: _most_alike("cosine"),
        right="With more components the picture is finer than on the plane of the figure.",
        hints=(
            Hint(
                lambda: "NANOG",
                "Every gene is most like itself. Leave NANOG out.",
            ),
            Hint(
                lambda: _most_alike("cosine", n_components=2),
                "That is the nearest direction in the first two components. Use all ten.",
            ),
            Hint(
                lambda: _most_alike("product"),
                "You took products without dividing by the lengths, so genes that move a lot win. "
                "Divide each row by its length first.",
            ),
            Hint(
                lambda: _most_alike("raw"),
                "That is the highest correlation of the measured effects. Compare the loadings.",
            ),
        ),
    ),
    "05-2": Exercise(
        solution=_norm_of_w,
        right="You have just solved the whole model by hand.",
        hints=(
            Hint(
                lambda: _norm_of_w(held_out="nothing"),
                "POU5F1 was still among the training targets, so the model has seen the answer. "
                "Drop its row before anything is computed.",
            ),
            Hint(
                lambda: _norm_of_w(held_out="NANOG"),
                "You still hold out NANOG. The question is for POU5F1.",
            ),
            Hint(
                lambda: _norm_of_w(centre=False),
                "You did not take off the mean b. The regression is on Y - b.",
            ),
            Hint(
                lambda: _norm_of_w(right_ridge=False),
                "The last factor is missing: solve with the matrix of G on the right, too.",
            ),
            Hint(
                lambda: _norm_of_w(ridge=0.1),
                "That is for a penalty of 0.1. The question is for 1.",
            ),
            Hint(
                lambda: _norm_of_w(10),
                "That is for 10 components. The question is for 5.",
            ),
        ),
    ),
    "05-3": Exercise(
        solution=lambda: _scores(2)["pds"],
        right="Above the mean, and far below day 4. On day 2 there are fewer cells, and the "
        "effects have had less time to unfold; both may count.",
        hints=(
            Hint(
                lambda: _scores(4)["pds"],
                "That is the score with the features of day 4. Build the table from bulks[2].",
            ),
            Hint(
                lambda: _alone(2),
                "That is leave-one-out, with all 23 ranked together. Use the same splits, so that "
                "it compares with the table.",
            ),
            Hint(
                lambda: _scores(2)["mae"],
                "That is the MAE. The question is for the PDS.",
            ),
        ),
    ),
    "05-4": Exercise(
        solution=lambda: _response("NANOG", "UTF1"),
        right="Two genes that fluctuate together, and a push to one of them: that is all the "
        "model knows.",
        hints=(
            Hint(
                lambda: _response("UTF1", "NANOG"),
                "That is the effect of silencing UTF1 on NANOG. The push is to NANOG.",
            ),
            Hint(
                lambda: _response("NANOG", "UTF1", over="UTF1"),
                "You divided by the variance of UTF1. Divide by that of the gene that is silenced.",
            ),
            Hint(
                lambda: -_response("NANOG", "UTF1"),
                "The size is right, the sign is not: silencing takes expression away, so the "
                "knock-down is negative.",
            ),
            Hint(
                lambda: _controls()["UTF1"].cov(_controls()["NANOG"]),
                "That is the covariance alone. It still has to be multiplied by the input.",
            ),
            Hint(
                lambda: _controls()["UTF1"].cov(_controls()["NANOG"]) / _controls()["NANOG"].var(),
                "That is the slope, what a push of 1 would do. Multiply it by the push: `delta`.",
            ),
            Hint(
                lambda: _response("NANOG", "UTF1") * _controls()["NANOG"].var(),
                "You did not divide by the variance of the gene that is pushed.",
            ),
        ),
    ),
}
