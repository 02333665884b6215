"""Exercises of notebooks/19_reach_a_wanted_state: who is nearest, the mean, the clock, the sum.

Needs: adapt, datasets, effects, evaluation, features, metrics, models, scoring, splits;
exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("19-3", "LIN28A").status
'wrong'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, evaluation, metrics, models
from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.features import source_effects
from vcc_helpers.scoring import split_half
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _cells(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return screen[screen.obs["day"] == day].copy()


@cache
def _bulk(day: int) -> anndata.AnnData:
    return pseudobulk(_cells(day))


@cache
def _sources() -> dict[str, anndata.AnnData]:
    return {f"day {d}": effects(_bulk(d)) for d in (2, 3, 4)}


def _targets() -> pd.Index:
    return effects(_bulk(5)).obs_names


def _others() -> np.ndarray:
    return ~_bulk(5).var_names.isin(_targets())


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """Forward and inverse scores of the zero-shot prediction, ``(n_targets,)`` each."""
    weights = adapt.precision({f"day {d}": _bulk(d) for d in (2, 3, 4)})
    model = adapt.ContextGain(_sources(), prior=weights).fit(_bulk(5)[["non-targeting"]])
    pred, real = effects(model.predict(_targets()))[_targets()].X, effects(_bulk(5)).X
    own = _bulk(5).var_names.get_indexer(_targets())
    return metrics.pds_cosine(pred, real, own), metrics.pds_cosine(real, pred, own)


@cache
def _ridge(centred: bool) -> pd.Series:
    def measure(pred, real):
        names = pred.obs_names.drop("non-targeting")
        a, b = (effects(x)[names].X for x in (pred, real))
        own = pred.var_names.get_indexer(names)
        a = a - a.mean(axis=0) if centred else a
        scores = {
            "forward": metrics.pds_cosine(a, b, own),
            "inverse": metrics.pds_cosine(b, a, own),
        }
        return pd.DataFrame(scores, index=names)

    splits = [s for seed in range(5) for s in k_fold(_targets(), n_splits=2, seed=seed)]
    model = {"ridge": models.ridge(source_effects(_sources()))}
    table = evaluation.repeated(model, _bulk(5), splits, measure=measure)
    return table.groupby("metric")["value"].mean()


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def _control(bulk: anndata.AnnData) -> np.ndarray:
    return np.asarray(bulk["non-targeting"].X, dtype=np.float64).ravel()[_others()]


def _towards(effect: anndata.AnnData, control: anndata.AnnData) -> np.ndarray:
    wish = _control(_bulk(4)) - _control(control)
    return _cosine(effect[_targets()].X[:, _others()], wish[None]).ravel()


@cache
def _clock(how: str) -> pd.Series:
    """How far knock-outs point back to day 4: all cells, or halves, the control shared or not."""
    if how == "all":
        return pd.Series(_towards(effects(_bulk(5)), _bulk(5)), _targets())
    found = []
    for seed in range(5):
        a, b = (pseudobulk(half) for half in split_half(_cells(5), seed=seed))
        found.append(pd.Series(_towards(effects(a), a if how == "shared" else b), _targets()))
    return pd.concat(found).groupby(level=0).mean()


@cache
def _imitated() -> pd.DataFrame:
    """Promised and kept cosine with each effect of the best other gene."""
    halves = split_half(_cells(5), seed=0)
    seen, unseen = (effects(pseudobulk(h)).to_df().loc[_targets(), _others()] for h in halves)
    rows = []
    for target in _targets():
        rest = seen.drop(target)
        like = _cosine(rest, seen.loc[[target]]).ravel()
        kept = _cosine(rest.iloc[[like.argmax()]], unseen.loc[[target]])[0, 0]
        rows.append({"promised": like.max(), "kept": kept})
    return pd.DataFrame(rows).mean()


EXERCISES = {
    "19-1": Exercise(
        solution=lambda: int((_table()[1] == 1).sum()),
        right="Nearly a half, of 23 candidates, and no knock-out of day 5 was ever seen.",
        hints=(
            Hint(
                lambda: int((_table()[1] > 0.95).sum()),
                "That counts those in second place as well. Only 1 is the very nearest.",
            ),
            Hint(
                lambda: float((_table()[1] == 1).mean()),
                "That is the share. The question asks for a number of genes.",
            ),
        ),
    ),
    "19-2": Exercise(
        solution=lambda: _ridge(True)["forward"],
        right="It gains much of what the inverse question had: the mean was in the way.",
        hints=(
            Hint(
                lambda: _ridge(False)["forward"],
                "That is ridge as it was. Take the mean over the candidates off the predictions.",
            ),
            Hint(
                lambda: _ridge(True)["inverse"],
                "That is the inverse score with the mean taken off. The question is forward.",
            ),
            Hint(
                lambda: _ridge(False)["inverse"],
                "That is the inverse score of ridge as it was.",
            ),
            Hint(
                lambda: _ridge(True).mean(),
                "You averaged forward and inverse together. Keep the forward rows.",
            ),
        ),
    ),
    "19-3": Exercise(
        solution=lambda: _clock("apart").idxmax(),
        right="Another gene than before, and a cosine that means little.",
        hints=(
            Hint(
                lambda: _clock("all").idxmax(),
                "That one led while the control was shared. Look in the column `apart`.",
            ),
            Hint(
                lambda: _clock("apart").idxmin(),
                "That one points the other way the most. Ask for the largest cosine.",
            ),
        ),
    ),
    "19-4": Exercise(
        solution=lambda: _imitated()["kept"] / _imitated()["promised"],
        right="More than a half of the promise was noise of the cells it was made on, the control "
        "included.",
        hints=(
            Hint(
                lambda: _imitated()["kept"],
                "That is what is kept. Divide it by what was promised.",
            ),
            Hint(
                lambda: 1 - _imitated()["kept"] / _imitated()["promised"],
                "That is the part that is lost. The question asks for the part that is kept.",
            ),
            Hint(
                lambda: _imitated()["promised"] / _imitated()["kept"],
                "The other way round: kept divided by promised.",
            ),
        ),
    ),
}
