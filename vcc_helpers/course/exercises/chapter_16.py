"""Exercises of notebooks/16_run_your_own_leaderboard: doubt, mean rank, what digits give away.

Needs: adapt, datasets, effects, emit, features, leaderboard, models, scoring, splits;
exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("16-3", 0.1 / (103 * 13)).status
'right'
"""

from functools import cache
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, emit, features, models
from vcc_helpers.bulk import effects
from vcc_helpers.classroom import doubt, rank
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.scoring import ScoreCard, official_baseline, score
from vcc_helpers.splits import few_shot_split
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

CONTROL, PRESET = "non-targeting", "vcc2025-generalist"
SHIFT = 0.1


class _Class(NamedTuple):
    known: anndata.AnnData
    truth: anndata.AnnData
    n_cells: pd.Series


@cache
def _day(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return screen[screen.obs["day"] == day].copy()


@cache
def _dealt() -> _Class:
    cells = _day(5)
    names = cells.obs["target_gene"].astype(str)
    deal = few_shot_split(names[names != CONTROL].unique(), n_support=10, seed=0)
    known, truth = (cells[names.isin([CONTROL, *part]).to_numpy()].copy() for part in deal)
    n_cells = names[names.isin(deal.query)].value_counts().sort_index()
    return _Class(known, truth, n_cells)


def _entries() -> dict[str, anndata.AnnData]:
    known, _, n_cells = _dealt()
    bulks = {f"day {day}": pseudobulk(_day(day)) for day in (2, 3, 4)}
    sources = {name: effects(bulk) for name, bulk in bulks.items()}
    elsewhere, weights = features.source_effects(sources), adapt.precision(bulks)
    parts = features.source_components(sources)
    teams = {
        "mean": models.mean_baseline(),
        "knn": models.knn_baseline(elsewhere, 3),
        "kernel-ridge": models.kernel_ridge(elsewhere, alpha=0.3),
        "zero-shot": adapt.ContextGain(sources, prior=weights, shrinkage=np.inf),
        "residual-ridge": adapt.ResidualRidge(sources, prior=weights, features=parts),
    }
    bulk, targets = pseudobulk(known), n_cells.index
    pred = {team: model.fit(bulk).predict(targets) for team, model in teams.items()}
    recipe = {
        "controls": known[known.obs["target_gene"] == CONTROL].copy(),
        "n_cells": n_cells,
        "target_sum": float(np.median(np.ravel(known.X.sum(axis=1)))),
    }
    entries = {team: emit.resample_and_shift(means, **recipe) for team, means in pred.items()}
    return entries | {"identical-cells": emit.replicate(pred["residual-ridge"], **recipe)}


@cache
def _cards() -> tuple[dict[str, ScoreCard], ScoreCard]:
    known, truth, n_cells = _dealt()
    cards = {team: score(cells, truth, PRESET) for team, cells in _entries().items()}
    return cards, score(official_baseline(known, n_cells=n_cells), truth, PRESET)


@cache
def _beats_next() -> list[float]:
    return doubt(*_cards())["beats next"].tolist()


def _mean_rank() -> pd.Series:
    return rank(*_cards())["mean rank"]


def _moved(divisor: int) -> float:
    return SHIFT / divisor


EXERCISES = {
    "16-1": Exercise(
        solution=lambda: _beats_next()[1],
        right="More often than not, and not surely. In the other repeats an award for the second "
        "place would go to the other team: share it, or measure more targets.",
        hints=(
            Hint(
                lambda: _beats_next()[0],
                "That is the first place against the second. Take the next row.",
            ),
            Hint(
                lambda: _beats_next()[2],
                "That is the third place against the fourth. Take the row before.",
            ),
            Hint(
                lambda: 1 - _beats_next()[1],
                "That is how often the third place comes out ahead. The question turns it round.",
            ),
        ),
    ),
    "16-2": Exercise(
        solution=lambda: int(_mean_rank().rank(method="min")["knn"]),
        right="One place lower: ahead of kernel-ridge by three metrics, behind it over seven. "
        "Which list is right is a matter of what you want to reward, so say it beforehand.",
        hints=(
            Hint(
                lambda: int(rank(*_cards())["place"]["knn"]),
                "That is its place by the overall score. Rank the column `mean rank`.",
            ),
            Hint(
                lambda: float(_mean_rank()["knn"]),
                "That is the mean rank itself. The place is its rank among the teams' mean ranks.",
            ),
        ),
    ),
    "16-3": Exercise(
        solution=lambda: _moved(_dealt().truth.n_vars * len(_dealt().n_cells)),
        right="With all digits published, the sign of that step tells on which side of the truth "
        "the team's value lies. At three digits it drowns.",
        hints=(
            Hint(
                lambda: _moved(_dealt().truth.n_vars),
                "That is the MAE of the one target. The board shows the mean over all of them.",
            ),
            Hint(
                lambda: _moved(len(_dealt().n_cells)),
                "The MAE is a mean over genes, too: divide by their number as well.",
            ),
            Hint(
                lambda: SHIFT,
                "That is the step of one gene of one target. The board shows a mean over all.",
            ),
        ),
    ),
}
