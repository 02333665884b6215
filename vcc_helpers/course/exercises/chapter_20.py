"""Exercises of notebooks/20_build_your_own_model: a model, a packed file, a board.

Needs: adapt, archive, classroom, datasets, effects, emit, evaluation, features, leaderboard,
models, scoring, splits, submission; exercises/__init__.py.

>>> from vcc_helpers import bulk, check, models
>>> check("20-1", models.mean_baseline()).status
'wrong'
"""

import tempfile
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, bulk, classroom, emit, evaluation, intervals, models
from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.features import source_effects
from vcc_helpers.scoring import ScoreCard, score
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk
from vcc_helpers.submission import archive
from vcc_helpers.submission import check as preflight

from . import Exercise, Hint


@cache
def _days() -> dict[str, anndata.AnnData]:
    screen = load_hipsc_screen()
    return {f"day {d}": pseudobulk(screen[screen.obs["day"] == d]) for d in (2, 3, 4)}


def _better_than_the_mean(model) -> str:
    """Say on which metrics a model beats the mean baseline, over five deals of what is known."""
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise TypeError("a model has fit(bulk) and predict(targets)")
    bulk = pseudobulk(_contest()[0])
    targets = bulk.obs_names.drop("non-targeting")
    splits = [s for seed in range(5) for s in k_fold(targets, n_splits=3, seed=seed)]
    both = {"yours": model, "mean": models.mean_baseline()}
    gap = intervals.compare(evaluation.repeated(both, bulk, splits), "mean")["difference"]
    better = {"MAE": gap["yours", "mae"] < -1e-9, "PDS": gap["yours", "pds"] > 1e-9}
    return " and ".join(name for name, won in better.items() if won) or "neither"


@cache
def _contest() -> tuple[anndata.AnnData, pd.Series, pd.DataFrame]:
    """Return the known cells, how many are asked of each target, and the board."""
    screen = load_hipsc_screen()
    with tempfile.TemporaryDirectory() as room:
        public, private = Path(room) / "public", Path(room) / "private"
        classroom.prepare(
            screen[screen.obs["day"] == 5], public=public, private=private, n_known=13
        )
        known = anndata.read_h5ad(public / "train.h5ad")
        n_cells = pd.read_csv(public / "targets.csv", index_col="target_gene")["n_cells"]
        baseline = ScoreCard.from_json(private / "baseline.json")
        cards = {
            name: score(_cells(model, known, n_cells), private / "truth.h5ad")
            for name, model in _entries().items()
        }
    return known, n_cells, classroom.rank(cards, baseline)


def _entries() -> dict:
    weights = adapt.precision(_days())
    sources = {name: effects(bulk) for name, bulk in _days().items()}
    average = sum(weights[name] * effect.to_df() for name, effect in sources.items())
    return {
        "mean": models.mean_baseline(),
        "neighbours": models.knn_baseline(source_effects(sources), 3),
        "zero-shot": adapt.ContextGain(sources, prior=weights, shrinkage=np.inf),
        "sketch": _Sketch(average),
        "residual ridge": adapt.ResidualRidge(sources, prior=weights),
    }


class _Sketch(models.BulkModel):
    """The model of the chapter."""

    def __init__(self, source):
        self.source = source

    def fit(self, bulk, y=None):
        self.bulk_, effect = bulk, effects(bulk).to_df()
        self.here_, self.there_ = effect.mean(), self.source.loc[effect.index].mean()
        own = self.source.loc[effect.index] - self.there_
        self.gain_ = (own * (effect - self.here_)).to_numpy().sum() / (own**2).to_numpy().sum()
        return self

    def predict(self, targets):
        own = self.source.loc[list(targets)] - self.there_
        effect = (self.here_ + self.gain_ * own).to_numpy()
        control = np.asarray(self.bulk_["non-targeting"].X, dtype=np.float64).ravel()
        return bulk.bulk_of_effects(effect, pd.Index(targets), control, self.bulk_.var)


def _cells(model, known: anndata.AnnData, n_cells: pd.Series) -> anndata.AnnData:
    return emit.resample_and_shift(
        model.fit(pseudobulk(known)).predict(n_cells.index),
        controls=known[known.obs["target_gene"] == "non-targeting"].copy(),
        n_cells=n_cells,
        target_sum=float(np.median(np.ravel(known.X.sum(axis=1)))),
    )


def _accepted(path) -> str:
    """Say whether a file would be accepted."""
    path = Path(path)
    if path.suffix != ".vcc":
        return "not packed"
    known, n_cells, _ = _contest()
    with archive.opened(path) as inner:
        report = preflight(inner, genes=list(known.var_names), counts=n_cells)
    return "accepted" if report.ok else "refused"


def _below() -> pd.Series:
    return _contest()[2]["below baseline"]


EXERCISES = {
    "20-1": Exercise(
        solution=lambda: "MAE and PDS",
        probe=_better_than_the_mean,
        right="Your model beats the mean in MAE and in PDS, on deals it never saw.",
        hints=(
            Hint(
                lambda: "PDS",
                "It tells targets apart, but its errors are larger than the mean's: it is too "
                "bold, or noisy. Pull it towards the mean effect, for example with a gain.",
            ),
            Hint(
                lambda: "MAE",
                "Its errors are small, but it does not tell targets apart better than the mean "
                "does. It needs to know something of each target: effects from other days.",
            ),
            Hint(
                lambda: "neither",
                "It beats the mean in neither. Start from the mean effect, and add each target's "
                "own part from the other days.",
            ),
        ),
    ),
    "20-2": Exercise(
        solution=lambda: "accepted",
        probe=_accepted,
        right="The file is whole, in order, and has the cells that were asked for.",
        hints=(
            Hint(
                lambda: "not packed",
                "That is not a .vcc. Pack it with submission.prep(cells, path, genes=genes).",
            ),
            Hint(
                lambda: "refused",
                "The file can be opened, but not handed in. Ask "
                "submission.check(cells, genes=genes, counts=n_cells) what is wrong.",
            ),
        ),
    ),
    "20-3": Exercise(
        solution=lambda: int((_below() != "").sum()),
        right="All of them have an overall score of 0 or more: a metric below the baseline counts "
        "as 0, however far below it is.",
        hints=(
            Hint(
                lambda: int(_below().str.contains("des").sum()),
                "That counts those below on DES. Any metric counts.",
            ),
            Hint(
                lambda: int((_below() == "").sum()),
                "That counts those that are below on none. The question asks for the others.",
            ),
        ),
    ),
}
