"""Exercises of chapters 12 to 16."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd
from sklearn.metrics.pairwise import cosine_similarity

from vcc_helpers import (
    evaluation,
    intervals,
    metrics,
    models,
)
from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import CONTROL, silenced
from vcc_helpers.counts import lognorm
from vcc_helpers.evaluation import evaluate
from vcc_helpers.features import GeneLoadings, source_effects
from vcc_helpers.models import knn_baseline
from vcc_helpers.splits import k_fold

from . import exercise
from ._data import (
    bulk,
    day,
    effect,
    folds,
    precision,
    scores,
    sources,
    targets,
)


def _floor(target: str) -> float:
    row = bulk(5)[target]
    return np.sqrt(2 / np.pi) * np.sqrt(row.layers["variance"] / row.obs["n_cells"].item()).mean()


@exercise("12-1")
def _noise_of_more_cells():
    ratio = bulk(5).obs["n_cells"]["MYC"] / bulk(5).obs["n_cells"]["ID1"]
    yield "right", _floor("MYC") * np.sqrt(ratio)
    yield "in proportion", _floor("MYC") * ratio
    yield "larger", _floor("MYC") / np.sqrt(ratio)
    yield "floor of ID1", _floor("ID1")


def _mae_when_seen(model: models.EffectModel) -> pd.Series:
    return evaluate(model.fit(bulk(5)).predict(targets()), bulk(5))["mae"]


@exercise("12-2")
def _how_often_the_mean_wins():
    both = {"no change": models.no_change(), "mean": models.mean_baseline()}
    table = evaluation.repeated(both, bulk(5), folds())
    won = intervals.compare(table, "no change").loc[("mean", "mae"), "won"]
    yield "right", won
    yield "lost", 1 - won
    yield "number", round(won * 23)
    alone = k_fold(targets(), n_splits=len(targets()))
    held_out = evaluation.cross_predict(models.mean_baseline(), bulk(5), alone)
    wanted = evaluation.calibration(held_out, bulk(5)).per_perturbation["slope"]
    yield "wants more", (wanted > 1).mean()
    seen, nothing = map(_mae_when_seen, (models.mean_baseline(), models.no_change()))
    yield "seen", (seen < nothing).mean()


def _pds_of_nothing(own_gene: np.ndarray) -> float:
    return metrics.pds(np.zeros(effect(5).shape), effect(5).X, own_gene).mean()


@exercise("12-3")
def _pds_of_no_change():
    yield "right", _pds_of_nothing(np.full(len(targets()), -1))
    yield "left out", _pds_of_nothing(bulk(5).var_names.get_indexer(targets()))
    yield "half", 0.5


@exercise("12-4")
def _pearson_of_one_gene():
    nothing = models.no_change()
    named = {
        "right": models.KnockedDown(nothing),
        "mean silenced": models.crispr_mean(),
        "mean": models.mean_baseline(),
        "no change": nothing,
    }
    yield from scores(named).loc["pearson", list(named)].items()


@exercise("13-1")
def _most_alike():
    train = effect(5)[targets() != "NANOG"]
    tables = {n: GeneLoadings(n)(train) for n in (2, 10)}
    products = {n: (table @ table.loc["SOX2"]).drop("SOX2") for n, table in tables.items()}
    lengths = {n: np.linalg.norm(table.drop("SOX2"), axis=1) for n, table in tables.items()}
    apart = pd.Series(np.linalg.norm(tables[10] - tables[10].loc["SOX2"], axis=1), tables[10].index)
    yield "right", (products[10] / lengths[10]).idxmax()
    yield "itself", "SOX2"
    yield "two", (products[2] / lengths[2]).idxmax()
    yield "products", products[10].idxmax()
    yield "distance", apart.drop("SOX2").idxmin()
    yield "measured", train.to_df().corr()["SOX2"].drop("SOX2").idxmax()


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


@exercise("13-2")
def _w_by_hand():
    yield "right", _norm_of_w()
    yield "not held out", _norm_of_w(held_out="nothing")
    yield "NANOG", _norm_of_w(held_out="NANOG")
    yield "not centred", _norm_of_w(centre=False)
    yield "left only", _norm_of_w(right_ridge=False)
    yield "penalty", _norm_of_w(ridge=0.1)
    yield "ten", _norm_of_w(10)


@cache
def _scores(number: int) -> pd.Series:
    return scores({"": models.ridge(source_effects(sources(number)))})[""]


@exercise("14-1")
def _features_of_day_2():
    yield "right", _scores(2)["pds"]
    yield "day 4", _scores(4)["pds"]
    ridge = models.ridge(source_effects(sources(2)))
    alone = evaluation.cross_predict(ridge, bulk(5), k_fold(targets(), n_splits=len(targets())))
    yield "leave one out", evaluate(alone, bulk(5))["pds"].mean()
    yield "MAE", _scores(2)["mae"]


@exercise("14-2")
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


@exercise("15-1")
def _nearest_neighbour():
    table = source_effects(sources())
    similar = pd.Series(cosine_similarity(table, table.loc[["PRDM14"]]).ravel(), table.index)
    similar = similar.sort_values(ascending=False)
    yield "right", similar.index[1]
    yield "itself", "PRDM14"
    yield "last", similar.index[-1]
    yield "second", similar.index[2]


@cache
def _held_out(k: int, *days: int) -> pd.Series:
    return scores({"": knn_baseline(source_effects(sources(*days)), k)})[""]


@cache
def _in_sample(k: int) -> pd.Series:
    model = knn_baseline(source_effects(sources()), k).fit(bulk(5))
    return evaluate(model.predict(targets()), bulk(5)).mean()


@exercise("15-2")
def _asked_what_it_saw():
    yield "right", _in_sample(1)["pds"]
    yield "held out", _held_out(1)["pds"]
    yield "five", _in_sample(5)["pds"]


@exercise("15-3")
def _day_4_alone():
    yield "right", _held_out(3, 4)["mae"]
    yield "all days", _held_out(3)["mae"]
    yield "PDS", _held_out(3, 4)["pds"]
    yield "five", _held_out(5, 4)["mae"]


def _fit(support: Iterable[str], *days: int, **kw) -> ContextGain:
    return ContextGain(sources(*days), **kw).fit(bulk(5)[[CONTROL, *support]])


@cache
def _adapted(*days: int, support: tuple[str, ...] = ()) -> pd.Series:
    return evaluate(_fit(support, *days).predict(targets()), bulk(5)).mean()


@exercise("16-1")
def _without_day_2():
    yield "right", _adapted(3, 4)["mae"]
    yield "all days", _adapted()["mae"]
    yield "PDS", _adapted(3, 4)["pds"]
    yield "seen", _adapted(3, 4, support=tuple(targets()))["mae"]
    yield "day 4", _adapted(4)["mae"]


def _gain4(support: Iterable[str], *days: int, **kw) -> float:
    return float(_fit(support, *days, **kw).gain_["day 4"])


@exercise("16-2")
def _without_pou5f1():
    others = targets().drop("POU5F1")
    yield "right", _gain4(others)
    yield "with it", _gain4(targets())
    yield "it alone", _gain4(["POU5F1"])
    yield "by precision", _gain4(others, prior=precision())
    yield "not shrunk", _gain4(others, shrinkage=0.0)


@exercise("16-3")
def _least_squares():
    x, y = effect(4).X, effect(5).X
    yield "right", float((x * y).sum() / (x**2).sum())
    yield "shrunk", _gain4(targets(), 4)
    yield "other way", float((x * y).sum() / (y**2).sum())
    yield "mean of slopes", float(((x * y).sum(axis=1) / (x**2).sum(axis=1)).mean())
    yield "three days", _gain4(targets(), shrinkage=0.0)
