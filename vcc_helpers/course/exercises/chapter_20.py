"""Exercises of notebooks/20_build_your_own_model: a model, a packed file, a board."""

import tempfile
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import adapt, classroom, emit, evaluation, intervals, models
from vcc_helpers.bulk import CONTROL, bulk_of_effects, effects
from vcc_helpers.features import source_effects
from vcc_helpers.scoring import ScoreCard, score
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk
from vcc_helpers.submission import archive
from vcc_helpers.submission import check as preflight

from . import exercise
from ._data import day, precision, recipe, sources


def _better_than_the_mean(model) -> str:
    """Say on which metrics a model beats the mean baseline, over five draws of what is known."""
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise TypeError("a model has fit(bulk) and predict(targets)")
    bulk = pseudobulk(_contest()[0])
    targets = bulk.obs_names.drop(CONTROL)
    splits = [s for seed in range(5) for s in k_fold(targets, n_splits=3, seed=seed)]
    both = {"yours": model, "mean": models.mean_baseline()}
    gap = intervals.compare(evaluation.repeated(both, bulk, splits), "mean")["difference"]
    better = {"MAE": gap["yours", "mae"] < -1e-9, "PDS": gap["yours", "pds"] > 1e-9}
    return " and ".join(name for name, won in better.items() if won) or "neither"


@cache
def _contest() -> tuple[anndata.AnnData, pd.Series, pd.DataFrame]:
    """Return the known cells, how many are to be predicted of each target, and the board."""
    with tempfile.TemporaryDirectory() as room:
        public, private = Path(room) / "public", Path(room) / "private"
        classroom.prepare(day(5), public=public, private=private, n_known=13)
        known = anndata.read_h5ad(public / "train.h5ad")
        n_cells = pd.read_csv(public / "targets.csv", index_col="target_gene")["n_cells"]
        baseline = ScoreCard.from_json(private / "baseline.json")
        cards, bulk = {}, pseudobulk(known)
        for name, model in _entries().items():
            means = model.fit(bulk).predict(n_cells.index)
            cells = emit.resample_and_shift(means, **recipe(known, n_cells))
            cards[name] = score(cells, private / "truth.h5ad")
    return known, n_cells, classroom.rank(cards, baseline)


def _entries() -> dict:
    weights = precision()
    average = sum(weights[name] * effect.to_df() for name, effect in sources().items())
    return {
        "mean": models.mean_baseline(),
        "neighbours": models.knn_baseline(source_effects(sources()), 3),
        "zero-shot": adapt.ContextGain(sources(), prior=weights, shrinkage=np.inf),
        "sketch": _Sketch(average),
        "residual ridge": adapt.ResidualRidge(sources(), prior=weights),
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
        control = np.asarray(self.bulk_[CONTROL].X, dtype=np.float64).ravel()
        return bulk_of_effects(effect, pd.Index(targets), control, self.bulk_.var)


def _accepted(path) -> str:
    """Say whether a file would be accepted."""
    path = Path(path)
    if path.suffix != ".vcc":
        return "not packed"
    known, n_cells, _ = _contest()
    with archive.opened(path) as inner:
        report = preflight(inner, genes=list(known.var_names), counts=n_cells)
    return "accepted" if report.ok else "refused"


@exercise("20-1", probe=_better_than_the_mean)
def _your_model():
    yield "right", "MAE and PDS"
    yield "PDS", "PDS"
    yield "MAE", "MAE"
    yield "neither", "neither"


@exercise("20-2", probe=_accepted)
def _your_file():
    yield "right", "accepted"
    yield "not packed", "not packed"
    yield "refused", "refused"


@exercise("20-3")
def _below_the_baseline():
    below = _contest()[2]["below baseline"]
    yield "right", int((below != "").sum())
    yield "DES", int(below.str.contains("des").sum())
    yield "none", int((below == "").sum())
