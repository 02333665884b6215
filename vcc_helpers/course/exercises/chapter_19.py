"""Exercises of notebooks/19_reach_a_wanted_state: who is nearest, the mean, the clock, the sum."""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, evaluation, metrics, models
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.features import source_effects
from vcc_helpers.scoring import split_half
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import bulk, day, effect, folds, precision, sources, targets


@cache
def _inverse() -> np.ndarray:
    """Inverse scores of the zero-shot prediction, ``(n_targets,)``."""
    model = adapt.ContextGain(sources(), prior=precision()).fit(bulk(5)[[CONTROL]])
    pred, own = effects(model.predict(targets()))[targets()], bulk(5).var_names
    return metrics.pds_cosine(effect(5).X, pred.X, own.get_indexer(targets()))


@cache
def _ridge(*, centred: bool) -> pd.Series:
    def measure(pred, real):
        names = pred.obs_names.drop(CONTROL)
        a, b = (effects(x)[names].X for x in (pred, real))
        own = pred.var_names.get_indexer(names)
        a = a - a.mean(axis=0) if centred else a
        forward, inverse = metrics.pds_cosine(a, b, own), metrics.pds_cosine(b, a, own)
        return pd.DataFrame({"forward": forward, "inverse": inverse}, index=names)

    model = {"ridge": models.ridge(source_effects(sources()))}
    table = evaluation.repeated(model, bulk(5), folds(2), measure=measure)
    return table.groupby("metric")["value"].mean()


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def _others() -> np.ndarray:
    return ~bulk(5).var_names.isin(targets())


def _towards(effect: anndata.AnnData, control: anndata.AnnData) -> pd.Series:
    """How far knock-outs point back to day 4, seen from these controls."""
    back, here = (np.asarray(b[CONTROL].X, np.float64)[:, _others()] for b in (bulk(4), control))
    return pd.Series(_cosine(effect[targets()].X[:, _others()], back - here).ravel(), targets())


@cache
def _apart() -> pd.Series:
    found = []
    for seed in range(5):
        a, b = (pseudobulk(half) for half in split_half(day(5), seed=seed))
        found.append(_towards(effects(a), b))
    return pd.concat(found).groupby(level=0).mean()


@cache
def _imitated() -> pd.Series:
    """Promised and kept cosine with each effect of the best other gene."""
    halves = split_half(day(5), seed=0)
    seen, unseen = (effects(pseudobulk(h)).to_df().loc[targets(), _others()] for h in halves)
    rows = []
    for target in targets():
        rest = seen.drop(target)
        like = _cosine(rest, seen.loc[[target]]).ravel()
        kept = _cosine(rest.iloc[[like.argmax()]], unseen.loc[[target]])[0, 0]
        rows.append({"promised": like.max(), "kept": kept})
    return pd.DataFrame(rows).mean()


@exercise("19-1")
def _very_nearest():
    yield "right", int((_inverse() == 1).sum())
    yield "second too", int((_inverse() > 0.95).sum())
    yield "share", float((_inverse() == 1).mean())


@exercise("19-2")
def _without_the_mean():
    centred, before = _ridge(centred=True), _ridge(centred=False)
    yield "right", centred["forward"]
    yield "as it was", before["forward"]
    yield "inverse", centred["inverse"]
    yield "inverse as it was", before["inverse"]
    yield "both", centred.mean()


@exercise("19-3")
def _clock_of_other_controls():
    yield "right", _apart().idxmax()
    yield "shared", _towards(effect(5), bulk(5)).idxmax()
    yield "least", _apart().idxmin()


@exercise("19-4")
def _promise_kept():
    yield "right", _imitated()["kept"] / _imitated()["promised"]
    yield "kept", _imitated()["kept"]
