"""Exercises of notebooks/09_first_submission: effect size, file size, a broken file.

Needs: adapt, datasets, effects, emit, scoring, splits; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("09-2", 1618).status
'right'
"""

from functools import cache
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import effects
from vcc_helpers.counts import lognorm
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.emit import replicate, resample_and_shift
from vcc_helpers.scoring import ScoreCard, official_baseline, score
from vcc_helpers.splits import few_shot_split
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

CONTROL = "non-targeting"
LIMIT, N_CONTROLS, N_TARGETS = 200_000, 38_176, 100


class _Task(NamedTuple):
    known: anndata.AnnData
    real: anndata.AnnData
    controls: anndata.AnnData
    n_cells: pd.Series
    query: list[str]


def _day(day: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return screen[screen.obs["day"] == day]


@cache
def _source(day: int) -> anndata.AnnData:
    return effects(pseudobulk(_day(day)))


def _part(names: list[str]) -> anndata.AnnData:
    cells = _day(5)
    return cells[cells.obs["target_gene"].isin([CONTROL, *names])].copy()


@cache
def _task() -> _Task:
    support, query = few_shot_split(_source(4).obs_names, n_support=10, seed=0)
    known, real = _part(support), _part(query)
    controls = known.copy()
    controls.X = lognorm(known)
    controls = controls[controls.obs["target_gene"] == CONTROL]
    n_cells = real.obs["target_gene"].astype(str).value_counts()[query]
    return _Task(known, real, controls, n_cells, query)


@cache
def _predicted() -> anndata.AnnData:
    sources = {f"day {day}": _source(day) for day in (2, 3, 4)}
    return ContextGain(sources).fit(pseudobulk(_task().known)).predict(_task().query)


@cache
def _baseline() -> ScoreCard:
    task = _task()
    return score(official_baseline(task.known, n_cells=task.n_cells), task.real)


@cache
def _stretched(factor: float, *, emitter=replicate, of_means: bool = False) -> ScoreCard:
    task, pred = _task(), _predicted().copy()
    base = np.zeros((1, pred.n_vars)) if of_means else pred[CONTROL].X.copy()
    pred.X = np.maximum(base + factor * (pred.X - base), 0).astype(np.float32)
    return score(emitter(pred, controls=task.controls, n_cells=task.n_cells), task.real)


@cache
def _mended(*, by_position: bool = False) -> ScoreCard:
    task = _task()
    model = ContextGain({"day 4": _source(4)}).fit(pseudobulk(task.known)[[CONTROL]])
    cells = replicate(model.predict(task.query), controls=task.controls, n_cells=50)
    if by_position:
        cells = cells[:, ::-1].copy()
        cells.var_names = task.real.var_names
    return score(cells, task.real)


EXERCISES = {
    "09-1": Exercise(
        solution=lambda: _stretched(3).overall(_baseline()),
        right="MAE is far above the baseline's, and the overall score has lost a few points only: "
        "PDS gains, and the share for MAE cannot fall below 0. Many entries of 2025 gave MAE up "
        "for that reason.",
        hints=(
            Hint(
                lambda: _stretched(1).overall(_baseline()),
                "That is the score of the effects as they were predicted. Triple them.",
            ),
            Hint(
                lambda: _stretched(3, of_means=True).overall(_baseline()),
                "You tripled the mean expression. Triple the difference to the control row, and "
                "add the control row again.",
            ),
            Hint(
                lambda: _stretched(3, emitter=resample_and_shift).overall(_baseline()),
                "That is with emit.resample_and_shift. Use emit.replicate.",
            ),
            Hint(
                lambda: _stretched(3).summary["pds"],
                "That is the mean PDS. The question is for card.overall(baseline_card).",
            ),
        ),
    ),
    "09-2": Exercise(
        solution=lambda: (LIMIT - N_CONTROLS) // N_TARGETS,
        right="More than the median of 1,045 cells that a training target has.",
        tolerance=1e-6,
        hints=(
            Hint(lambda: LIMIT // N_TARGETS, "The controls are cells of the file, too."),
            Hint(
                lambda: (LIMIT - N_CONTROLS) / N_TARGETS,
                "There are no parts of cells: round down.",
            ),
            Hint(
                lambda: (LIMIT - N_CONTROLS) // N_TARGETS + 1,
                "Rounded up, the file has more cells than allowed. Round down.",
            ),
            Hint(
                lambda: (LIMIT - N_CONTROLS) // (N_TARGETS + 1),
                "The controls are taken off already; share the rest among 100 targets, not 101.",
            ),
        ),
    ),
    "09-3": Exercise(
        solution=lambda: _mended().summary["pds"],
        right="Well above chance: the file was sound, only its labels were not.",
        hints=(
            Hint(
                lambda: _mended(by_position=True).summary["pds"],
                "You gave the columns new names instead of a new order, so every value now "
                "belongs to a wrong gene. No check can see that. Use broken[:, truth.var_names].",
            ),
            Hint(
                lambda: _mended().summary["des"],
                "That is the mean DES. The question is for PDS.",
            ),
        ),
    ),
}
