"""Exercises of chapters 21 to 24."""

import tempfile
from functools import cache
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import (
    adapt,
    classroom,
    datasets,
    emit,
    evaluation,
    features,
    intervals,
    metrics,
    models,
    scoring,
)
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.classroom import doubt, rank
from vcc_helpers.features import source_effects
from vcc_helpers.scoring import ScoreCard, official_baseline, score, split_half
from vcc_helpers.splits import k_fold
from vcc_helpers.stream import pseudobulk
from vcc_helpers.submission import archive
from vcc_helpers.submission import check as preflight

from . import exercise
from ._data import (
    bulk,
    day,
    deal,
    effect,
    folds,
    precision,
    recipe,
    sources,
    targets,
)

_PRESET, _SHIFT = "vcc2025-generalist", 0.1


@cache
def _cards() -> tuple[dict[str, ScoreCard], ScoreCard]:
    known, truth, recipe = deal()
    elsewhere, weights = features.source_effects(sources()), precision()
    parts = features.source_components(sources())
    teams = {
        "mean": models.mean_baseline(),
        "knn": models.knn_baseline(elsewhere, 3),
        "kernel-ridge": models.kernel_ridge(elsewhere, alpha=0.3),
        "zero-shot": adapt.ContextGain(sources(), prior=weights, shrinkage=np.inf),
        "residual-ridge": adapt.ResidualRidge(sources(), prior=weights, features=parts),
    }
    bulk = pseudobulk(known)
    pred = {team: model.fit(bulk).predict(deal().query) for team, model in teams.items()}
    entries = {team: emit.resample_and_shift(means, **recipe) for team, means in pred.items()}
    entries["identical-cells"] = emit.replicate(pred["residual-ridge"], **recipe)
    baseline = official_baseline(known, n_cells=recipe["n_cells"])
    cards = {team: score(cells, truth, _PRESET) for team, cells in entries.items()}
    return cards, score(baseline, truth, _PRESET)


@exercise("21-1")
def _second_place():
    beats_next = doubt(*_cards())["beats next"].tolist()
    yield "right", beats_next[1]
    yield "first", beats_next[0]
    yield "third", beats_next[2]


@exercise("21-2")
def _place_by_mean_rank():
    board = rank(*_cards())
    yield "right", int(board["mean rank"].rank(method="min")["knn"])
    yield "overall", int(board["place"]["knn"])
    yield "mean rank", float(board["mean rank"]["knn"])


@exercise("21-3")
def _one_step():
    n_genes, n_targets = deal().real.n_vars, len(deal().query)
    yield "right", _SHIFT / (n_genes * n_targets)
    yield "of the target", _SHIFT / n_genes
    yield "of the gene", _SHIFT / n_targets
    yield "itself", _SHIFT


@cache
def _world() -> tuple[anndata.AnnData, ...]:
    """Return known cells and real ones, and the means that the notebook predicts."""
    world = datasets.make_h1_like(seed=0)
    known, real = (world.cells(part).copy() for part in ("train", "validation"))
    sources = {name: effects(pseudobulk(world.contexts[name])) for name in world.sources}
    fitted = adapt.ContextGain(sources).fit(pseudobulk(known))
    return known, real, fitted.predict(world.split["validation"])


@cache
def _summary(part: str) -> pd.Series:
    """Score the prediction, or the control cells that State's layout has in X."""
    known, real, means = _world()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[means.obs_names.drop(CONTROL)]
    cells = emit.resample_and_shift(means, **recipe(known, n_cells))
    if part == "X":
        is_control = cells.obs["target_gene"].to_numpy() == CONTROL
        source, controls = np.arange(cells.n_obs), np.flatnonzero(is_control)
        source[~is_control] = np.random.default_rng(0).choice(controls, (~is_control).sum())
        cells.X = cells.X[source]
    return scoring.score(cells, real).summary


@exercise("22-1")
def _the_wrong_table():
    yield "right", _summary("X")["des"]
    yield "obsm", _summary("obsm")["des"]
    yield "PDS", _summary("X")["pds"]
    yield "MAE", _summary("X")["mae"]


@exercise("22-2")
def _another_logarithm():
    means = _world()[2].X
    yield "right", float(means.max() * (1 / np.log(2) - 1))
    yield "factor", 1 / np.log(2)
    yield "mean", float(means.mean() * (1 / np.log(2) - 1))
    yield "value", float(means.max() / np.log(2))


@exercise("23-1")
def _very_nearest():
    model = adapt.ContextGain(sources(), prior=precision()).fit(bulk(5)[[CONTROL]])
    pred, own = effects(model.predict(targets()))[targets()], bulk(5).var_names
    inverse = metrics.pds_cosine(effect(5).X, pred.X, own.get_indexer(targets()))
    yield "right", int((inverse == 1).sum())
    yield "second too", int((inverse > 0.95).sum())
    yield "share", float((inverse == 1).mean())


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


@exercise("23-2")
def _without_the_mean():
    centred, before = _ridge(centred=True), _ridge(centred=False)
    yield "right", centred["forward"]
    yield "as it was", before["forward"]
    yield "inverse", centred["inverse"]
    yield "inverse as it was", before["inverse"]
    yield "both", centred.mean()


def _cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = (np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return a @ b.T


def _others() -> np.ndarray:
    return ~bulk(5).var_names.isin(targets())


def _towards(effect: anndata.AnnData, control: anndata.AnnData) -> pd.Series:
    """How far knock-outs point back to day 4, seen from these controls."""
    back, here = (np.asarray(b[CONTROL].X, np.float64)[:, _others()] for b in (bulk(4), control))
    return pd.Series(_cosine(effect[targets()].X[:, _others()], back - here).ravel(), targets())


@exercise("23-3")
def _clock_of_other_controls():
    found = []
    for seed in range(5):
        a, b = (pseudobulk(half) for half in split_half(day(5), seed=seed))
        found.append(_towards(effects(a), b))
    apart = pd.concat(found).groupby(level=0).mean()
    yield "right", apart.idxmax()
    yield "shared", _towards(effect(5), bulk(5)).idxmax()
    yield "least", apart.idxmin()


@exercise("23-4")
def _promise_kept():
    halves = split_half(day(5), seed=0)
    seen, unseen = (effects(pseudobulk(h)).to_df().loc[targets(), _others()] for h in halves)
    promised, kept = [], []
    for target in targets():
        rest = seen.drop(target)
        like = _cosine(rest, seen.loc[[target]]).ravel()
        promised.append(like.max())
        kept.append(_cosine(rest.iloc[[like.argmax()]], unseen.loc[[target]])[0, 0])
    yield "right", np.mean(kept) / np.mean(promised)
    yield "kept", np.mean(kept)


class _OneGain(models.BulkModel):
    """The model of the chapter."""

    def __init__(self, source):
        self.source = source

    def _learn(self, targets, effect, bulk):
        source = self.source.loc[targets].to_numpy()
        self.here_, self.there_ = effect.mean(axis=0), source.mean(axis=0)
        here, there = effect - self.here_, source - self.there_
        self.gain_ = (there * here).sum() / (there**2).sum()

    def _effect(self, targets):
        return self.here_ + self.gain_ * (self.source.loc[targets] - self.there_)


def _entries() -> dict:
    weights = precision()
    average = sum(weights[name] * effect.to_df() for name, effect in sources().items())
    return {
        "mean": models.mean_baseline(),
        "neighbours": models.knn_baseline(source_effects(sources()), 3),
        "zero-shot": adapt.ContextGain(sources(), prior=weights, shrinkage=np.inf),
        "one gain": _OneGain(average),
        "residual ridge": adapt.ResidualRidge(sources(), prior=weights),
    }


@cache
def _contest() -> tuple[anndata.AnnData, pd.Series, pd.DataFrame, pd.Series]:
    """Return the known cells, numbers of cells to be predicted, the board, and its baseline."""
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
    return known, n_cells, classroom.rank(cards, baseline), baseline.summary


def _better_than_the_mean(model) -> str:
    """Say on which metrics a model clearly beats the mean baseline, over ten splits of the known.

    An error smaller than the noise of the cells themselves comes from having seen them.
    """
    if not (hasattr(model, "fit") and hasattr(model, "predict")):
        raise TypeError("a model has fit(bulk) and predict(targets)")
    bulk = pseudobulk(_contest()[0])
    targets = bulk.obs_names.drop(CONTROL)
    splits = [s for seed in range(10) for s in k_fold(targets, n_splits=3, seed=seed)]
    table = evaluation.repeated({"yours": model, "mean": models.mean_baseline()}, bulk, splits)
    error = table.query("model == 'yours' and metric == 'mae'")["value"].mean()
    if error < evaluation.floor(table, bulk)["value"].mean():
        return "has seen the answer"
    gap = intervals.compare(table, "mean").loc["yours"]
    better = {"MAE": gap.loc["mae", "high"] < 0, "PDS": gap.loc["pds", "low"] > 0}
    return " and ".join(name for name, won in better.items() if won) or "neither"


@exercise("24-1", probe=_better_than_the_mean)
def _your_model():
    yield "right", "MAE and PDS"
    yield "PDS", "PDS"
    yield "MAE", "MAE"
    yield "neither", "neither"
    yield "seen", "has seen the answer"


def _accepted(path) -> str:
    """Say whether a file would be accepted, with the cells that it should have."""
    path = Path(path)
    if path.suffix != ".vcc":
        return "not packed"
    known, n_cells, *_ = _contest()
    with archive.opened(path) as inner:
        report = preflight(inner, genes=list(known.var_names), counts=n_cells)
        labels = anndata.read_h5ad(inner, backed="r").obs["target_gene"].astype(str)
    if not report.ok:
        return "refused"
    found = labels.value_counts().drop(CONTROL, errors="ignore")
    return "accepted" if found.to_dict() == n_cells.to_dict() else "other numbers of cells"


@exercise("24-2", probe=_accepted)
def _your_file():
    yield "right", "accepted"
    yield "not packed", "not packed"
    yield "refused", "refused"
    yield "numbers", "other numbers of cells"


@exercise("24-3")
def _worse_than_the_baseline():
    board, baseline = _contest()[2:]
    more_is_better = pd.Series({"des": 1, "pds": 1, "mae": -1})
    worse = (baseline - board[list(more_is_better.index)]) * more_is_better
    entries = board.index.to_numpy()
    yield "right", entries[(worse > 0).any(axis=1)]
    yield "DES", entries[worse["des"] > 0]
    yield "better", entries[(worse <= 0).all(axis=1)]
    yield "turned", entries[(worse.assign(mae=-worse["mae"]) > 0).any(axis=1)]
    yield "all turned", entries[(worse < 0).any(axis=1)]
