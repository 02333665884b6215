"""Exercises of chapters 17 to 20."""

from collections.abc import Callable
from functools import cache

import anndata
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from vcc_helpers import (
    adapt,
    features,
    metrics,
    models,
    scoring,
    submission,
)
from vcc_helpers.adapt import ContextGain
from vcc_helpers.bulk import CONTROL, effect_strength
from vcc_helpers.counts import lognorm
from vcc_helpers.course import exploits
from vcc_helpers.emit import replicate, resample_and_shift
from vcc_helpers.evaluation import repeated
from vcc_helpers.intervals import by_stratum, compare, interval
from vcc_helpers.metrics import overall
from vcc_helpers.scoring import ScoreCard, official_baseline, score, split_half
from vcc_helpers.splits import few_shot_split
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import (
    BASELINE,
    WINNER,
    bulk,
    deal,
    effect,
    h1,
    honest,
    precision,
    predicted,
    sources,
    targets,
)


@cache
def _means() -> tuple[pd.DataFrame, pd.DataFrame]:
    pred, real = split_half(h1(), seed=0)
    return pseudobulk(pred).to_df(), pseudobulk(real).to_df()


@exercise("17-1")
def _half_the_effect():
    pred, real = _means()
    effect = pred.loc["MED12"] - pred.loc[CONTROL]
    none = pred.loc[CONTROL] - real.loc["MED12"]
    half = none + effect / 2
    yield "right", half.abs().mean()
    yield "full", (none + effect).abs().mean()
    yield "none", none.abs().mean()
    yield "half the mean", (pred / 2 - real).loc["MED12"].abs().mean()
    yield "signed", half.mean()
    yield "signed", -half.mean()
    yield "squares", np.sqrt((half**2).mean())
    yield "other controls", (half + real.loc[CONTROL] - pred.loc[CONTROL]).abs().mean()


def _rank(*, own_gene: bool) -> int:
    pred, real = (mean.drop(CONTROL) - mean.loc[CONTROL] for mean in _means())
    difference = (real - pred.loc["TMSB4X"]).abs()
    if not own_gene:
        difference = difference.drop(columns="TMSB4X")
    distance = difference.sum(axis=1)
    return int((distance < distance["TMSB4X"]).sum())


@exercise("17-2")
def _with_the_own_gene():
    yield "right", 1 - _rank(own_gene=True) / 5
    yield "without it", 1 - _rank(own_gene=False) / 5
    yield "rank", _rank(own_gene=True)
    yield "from 1", 1 - (_rank(own_gene=True) + 1) / 5


_P_VALUES = np.array([0.001, 0.008, 0.016, 0.019, 0.024, 0.028, 0.041, 0.20, 0.45, 0.90])


@exercise("17-3")
def _genes_called():
    n = len(_P_VALUES)
    below = _P_VALUES <= 0.05 * np.arange(1, n + 1) / n
    yield "right", int((false_discovery_control(_P_VALUES) < 0.05).sum())
    yield "uncorrected", int((_P_VALUES < 0.05).sum())
    yield "Bonferroni", int((_P_VALUES < 0.05 / n).sum())
    yield "first above", int(np.argmin(below))
    yield "below own", int(below.sum())


@exercise("17-4", tolerance=5e-3)
def _score_with_a_smaller_error():
    yield "right", overall(WINNER | {"mae": BASELINE["mae"] / 2}, BASELINE)
    yield "as it was", overall(WINNER, BASELINE)
    yield "perfect", overall(WINNER | {"mae": 0.0}, BASELINE)


def _controls() -> anndata.AnnData:
    known = deal().known.copy()
    known.X = lognorm(known)
    return known[known.obs["target_gene"] == CONTROL]


@cache
def _stretched(
    factor: float, emitter: Callable = replicate, *, of_means: bool = False
) -> ScoreCard:
    pred, n_cells = predicted().copy(), deal().recipe["n_cells"]
    base = np.zeros((1, pred.n_vars)) if of_means else pred[CONTROL].X.copy()
    pred.X = np.maximum(base + factor * (pred.X - base), 0).astype(np.float32)
    return score(emitter(pred, controls=_controls(), n_cells=n_cells), deal().real)


@exercise("18-1")
def _tripled_effects():
    known, real, recipe = deal()
    baseline = score(official_baseline(known, n_cells=recipe["n_cells"]), real)
    yield "right", _stretched(3).overall(baseline)
    yield "as predicted", _stretched(1).overall(baseline)
    yield "means", _stretched(3, of_means=True).overall(baseline)
    yield "shifted", _stretched(3, resample_and_shift).overall(baseline)
    yield "PDS", _stretched(3).summary["pds"]


def _spread(undo: Callable, *, controls: bool = True) -> float:
    cells = resample_and_shift(predicted(), **deal().recipe)
    cells = cells[cells.obs["target_gene"] == CONTROL] if controls else cells
    totals = undo(cells.X.toarray().astype(float) / np.log(2)).sum(axis=1)
    return float(totals.std() / totals.mean())


@exercise("18-2", tolerance=5e-3)
def _wrong_base():
    yield "right", _spread(np.expm1)
    yield "logs", _spread(lambda v: v)
    yield "all cells", _spread(np.expm1, controls=False)
    yield "exp", _spread(np.exp)


def _kept(limit: int) -> pd.Series:
    sizes = deal().recipe["n_cells"].copy()
    sizes[CONTROL] = deal().recipe["controls"].n_obs
    kept = submission.thin(sizes, limit=limit)
    return kept.where(kept < sizes)


@exercise("18-3")
def _cells_after_thinning():
    yield "right", int(_kept(500).min())
    yield "larger", int(_kept(500).max())
    yield "800", int(_kept(800).min())


@cache
def _repaired(*, by_position: bool = False) -> ScoreCard:
    known, real, _ = deal()
    model = ContextGain({"day 4": effect(4)}).fit(pseudobulk(known)[[CONTROL]])
    cells = replicate(model.predict(deal().query), controls=_controls(), n_cells=50)
    if by_position:
        cells = cells[:, ::-1].copy()
        cells.var_names = real.var_names
    return score(cells, real)


@exercise("18-4")
def _repaired_file():
    yield "right", _repaired().summary["pds"]
    yield "renamed", _repaired(by_position=True).summary["pds"]
    yield "DES", _repaired().summary["des"]


def _scores(**named: models.EffectModel) -> pd.DataFrame:
    draws = [few_shot_split(targets(), n_support=10, seed=seed) for seed in range(40)]
    return repeated(named, bulk(5), draws)


@exercise("19-1", tolerance=0.03)  # the page prints two digits of the half-width
def _targets_needed():
    elsewhere = features.source_effects(sources())
    kernel_ridge = models.kernel_ridge(elsewhere, alpha=0.3)
    table = _scores(knn=models.knn_baseline(elsewhere, 3), ridge=kernel_ridge)
    row = compare(table, "knn").loc[("ridge", "pds")]
    factor = ((row["high"] - row["low"]) / 2 / 0.02) ** 2
    yield "right", 23 * factor
    yield "not squared", 23 * np.sqrt(factor)
    yield "from 40", 40 * factor
    yield "factor", factor


@exercise("19-2")
def _lead_of_a_leak():
    x = effect(5).X
    u, s, _ = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    table = _scores(
        mean=models.mean_baseline(),
        honest=models.ridge(features.source_effects(sources()), alpha=0.1),
        leaky=models.ridge(pd.DataFrame(u[:, :5] * s[:5], index=targets()), alpha=0.1),
    )
    mean = interval(table)["mean"]
    yield "right", mean["leaky", "pds"] - mean["honest", "pds"]
    yield "over the mean", mean["leaky", "pds"] - mean["mean", "pds"]
    yield "MAE", mean["leaky", "mae"] - mean["honest", "mae"]


@exercise("19-3")
def _lead_on_strong_targets():
    """How far the zero-shot mean is ahead of no change."""
    zero_shot = adapt.ContextGain(sources(), prior=precision(), shrinkage=np.inf)
    table = _scores(zero_shot=zero_shot, nothing=models.no_change())
    strata = by_stratum(table, effect_strength(bulk(5))["norm"], n_strata=3)
    mean = interval(strata, by=("model", "stratum", "metric"))["mean"].unstack("stratum")
    lead = mean.loc["zero_shot"] - mean.loc["nothing"]
    yield "right", lead.loc["pds"].iloc[-1]
    yield "weakest", lead.loc["pds"].iloc[0]
    yield "MAE", lead.loc["mae"].iloc[-1]
    yield "middle", lead.loc["pds"].iloc[1]


@exercise("20-1")
def _without_the_floor():
    free = dict.fromkeys(BASELINE, (-np.inf, np.inf))
    yield "right", metrics.overall(WINNER, BASELINE, limits=free)
    yield "with it", metrics.overall(WINNER, BASELINE)
    yield "MAE alone", 100 * (1 - WINNER["mae"] / BASELINE["mae"])


@cache
def _curve(preset: str, factor: float) -> float:
    pred, real = honest()
    scaled = exploits.scale_effects(pred, factor=factor)
    return scoring.score(scaled, real, preset).overall(scoring.baseline(real, preset))


@exercise("20-2")
def _points_for_a_factor():
    yield "right", _curve("vcc2025", 3.0) - _curve("vcc2025", 1.0)
    yield "itself", _curve("vcc2025", 3.0)
    yield "2026", _curve("vcc2026", 3.0) - _curve("vcc2026", 1.0)


@exercise("20-3")
def _two_ranks():
    yield "right", metrics.pds_chance(50) - 0.5
    yield "of 2025", metrics.pds_chance(50)
    yield "13 targets", metrics.pds_chance(13) - 0.5
