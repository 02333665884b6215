"""Exercises of notebooks/05_linear_baseline: loadings, W by hand, day 2, covariance."""

from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import evaluation, models
from vcc_helpers.bulk import CONTROL, silenced
from vcc_helpers.counts import lognorm
from vcc_helpers.features import GeneLoadings, source_effects
from vcc_helpers.splits import k_fold

from . import exercise
from ._data import bulk, day, effect, scores, sources, targets


def _norm_of_w(
    n_components: int = 5,
    ridge: float = 1.0,
    *,
    held_out: str = "POU5F1",
    centre: bool = True,
    right_ridge: bool = True,
) -> float:
    train = effect(5)[targets() != held_out]
    y = train.X.astype(np.float64)
    table = GeneLoadings(n_components)(train)
    g, p = table.to_numpy(), table.loc[train.obs_names].to_numpy()
    y = y - y.mean(axis=0) if centre else y
    eye = ridge * np.eye(n_components)
    left = np.linalg.solve(p.T @ p + eye, p.T @ y) @ g
    return np.linalg.norm(np.linalg.solve(g.T @ g + eye, left.T) if right_ridge else left)


@cache
def _scores(number: int) -> pd.Series:
    return scores({"": models.ridge(source_effects(sources(number)))})[""]


@exercise("05-1")
def _most_alike():
    train = effect(5)[targets() != "NANOG"]
    tables = {n: GeneLoadings(n)(train) for n in (2, 10)}
    products = {n: (table @ table.loc["NANOG"]).drop("NANOG") for n, table in tables.items()}
    length = np.linalg.norm(tables[10].drop("NANOG"), axis=1)
    yield "right", (products[10] / length).idxmax()
    yield "itself", "NANOG"
    yield "two", (products[2] / np.linalg.norm(tables[2].drop("NANOG"), axis=1)).idxmax()
    yield "products", products[10].idxmax()
    yield "measured", train.to_df().corr()["NANOG"].drop("NANOG").idxmax()


@exercise("05-2")
def _w_by_hand():
    yield "right", _norm_of_w()
    yield "not held out", _norm_of_w(held_out="nothing")
    yield "NANOG", _norm_of_w(held_out="NANOG")
    yield "not centred", _norm_of_w(centre=False)
    yield "left only", _norm_of_w(right_ridge=False)
    yield "penalty", _norm_of_w(ridge=0.1)
    yield "ten", _norm_of_w(10)


@exercise("05-3")
def _features_of_day_2():
    yield "right", _scores(2)["pds"]
    yield "day 4", _scores(4)["pds"]
    ridge = models.ridge(source_effects(sources(2)))
    alone = evaluation.cross_predict(ridge, bulk(5), k_fold(targets(), n_splits=len(targets())))
    yield "leave one out", evaluation.evaluate(alone, bulk(5))["pds"].mean()
    yield "MAE", _scores(2)["mae"]


@exercise("05-4")
def _response_of_utf1():
    controls = day(5)[day(5).obs["target_gene"] == CONTROL].copy()
    logs = pd.DataFrame(lognorm(controls).toarray(), columns=controls.var_names)
    variance, together = logs[["NANOG", "UTF1"]].var(), logs["NANOG"].cov(logs["UTF1"])
    push = silenced(logs.mean(), 0.05) - logs.mean()
    yield "right", together * push["NANOG"] / variance["NANOG"]
    yield "turned", together * push["UTF1"] / variance["UTF1"]
    yield "other variance", together * push["NANOG"] / variance["UTF1"]
    yield "sign", -together * push["NANOG"] / variance["NANOG"]
    yield "covariance", together
    yield "slope", together / variance["NANOG"]
    yield "undivided", together * push["NANOG"]
