"""Measure models honestly: repeated splits, intervals over perturbations, paired comparisons.

One long table holds every value: a row for each model, split, target and metric. Reference rows
(chance, half-data repeat) join it with :func:`pandas.concat`, and every summary takes it. Of two
pseudobulks that are compared, a perturbation that only the prediction has is ignored; a control row
or a perturbation that is missing is a KeyError, other genes are a ValueError.

Taught in: notebooks/03_predict_with_baselines, notebooks/12_mean_and_median,
notebooks/16_gains_between_contexts and notebooks/19_choose_and_compare_models.
Needs: bulk.py, intervals.py, metrics.py, splits.py.

>>> mean = np.array([[0.1, 1.0], [0.7, 1.5]])
>>> names = pd.DataFrame(index=["SOX2", CONTROL]), pd.DataFrame(index=["SOX2", "NANOG"])
>>> real = anndata.AnnData(mean, *names)
>>> evaluate(real, real).round(3).loc["SOX2"].to_dict()
{'pds': 1.0, 'mae': 0.0, 'pearson': 1.0, 'pds_cosine': 1.0}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from . import metrics
from .bulk import CONTROL, FallbackWarning, Pair, control_row, paired, some_of
from .intervals import CEILING, CHANCE, FLOOR
from .splits import FewShotSplit, nested_splits

Measure = Callable[[anndata.AnnData, anndata.AnnData], pd.DataFrame]
#: Metrics that need no cells.
OF_MEANS: Mapping[str, Callable[[Pair], np.ndarray]] = {
    "pds": lambda p: metrics.pds(p.pred_effect, p.real_effect, p.own_gene),
    "mae": lambda p: metrics.mae(p.pred_mean, p.real_mean),
    "pearson_delta": lambda p: metrics.pearson_delta(p.pred_effect, p.real_effect),
    "pds_cosine": lambda p: metrics.pds_cosine(p.pred_effect, p.real_effect, p.own_gene),
}


def evaluate(pred: anndata.AnnData, real: anndata.AnnData) -> pd.DataFrame:
    """Score a predicted pseudobulk against the real one, perturbation by perturbation.

    Columns are pds, mae and pds_cosine, as of :mod:`~vcc_helpers.metrics` (but all effects are
    against their own side's control), and pearson: the correlation over genes of the predicted
    effect with the real one. A predicted effect of zero, as of "no change",
    has none; it counts as 0, so that means over perturbations stay comparable. Chance is no 0 for
    pearson: what all perturbations share is enough to be above it, and the target's own gene
    counts.
    """
    pair = paired(pred, real)
    columns = {name: measure(pair) for name, measure in OF_MEANS.items()}
    table = pd.DataFrame(columns, index=pair.names, dtype=np.float64)
    return table.rename(columns={"pearson_delta": "pearson"}).fillna({"pearson": 0.0})


def repeated(
    models: Mapping[str, object],
    bulk: anndata.AnnData,
    splits: Iterable[FewShotSplit],
    *,
    truth: anndata.AnnData | None = None,
    measure: Measure = evaluate,
    least: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Fit each model to the support set of each split, and score it on the query set.

    Parameters
    ----------
    models
        Name of each model, and the model: anything with ``fit(bulk)`` and ``predict(targets)``. A
        clone is fitted to each split.
    splits
        Support and query sets, as of :func:`~vcc_helpers.splits.k_fold`; those of several seeds
        one after the other for repeated cross-validation. A target on both sides is a ValueError.
    truth
        Pseudobulk with the query targets and a control of its own; by default `bulk`.
    measure
        Function of a predicted and a real pseudobulk; a row per target, a column per metric.
    least
        The smallest support set that a model, by its name, can learn from: it has no rows for
        smaller ones. Others are fitted to all, the control alone included.

    Notes
    -----
    Columns are model, split (number, from 0), n_support, target_gene, metric and value. A model
    gets a fresh copy of the support rows and the control; no query row is within its reach. Each
    split is scored by itself, so PDS ranks among its query targets only, as the contest ranks
    unseen targets. Were the folds ranked together, a prediction would meet the very effects it
    learnt from: one copied from a neighbour lies at distance 0 from it, and can never be nearest
    to its own truth. Of targets that a model predicted by its fallback, one FallbackWarning tells.
    """
    truth = bulk if truth is None else truth
    tables, fell = [], {}
    for number, split in enumerate(splits):
        _check_split(split, bulk, truth)
        real = _rows_of(truth, [CONTROL, *split.query])
        for name, model in models.items():
            if len(split.support) >= (least or {}).get(name, 0):
                pred = _fit_predict(name, model, bulk, split)
                if "fallback" in pred.obs:
                    fell.setdefault(name, set()).update(pred.obs_names[pred.obs["fallback"]])
                where = {"model": name, "split": number, "n_support": len(split.support)}
                tables.append((where, measure(pred, real)))
    if not tables:
        raise ValueError("nothing was measured: expected at least one split and one model")
    if lost := [f"{name!r} of {some_of(sorted(t))}" for name, t in fell.items() if t]:
        what = "some models know nothing of some targets, and a mean was predicted for them"
        warnings.warn(f"{what}: {'; '.join(lost)}", FallbackWarning, stacklevel=2)
    return _long(tables)


def cross_predict(model, bulk: anndata.AnnData, splits: Iterable[FewShotSplit]) -> anndata.AnnData:
    """Predict each split's query targets from its support set, and put the predictions together.

    Of ``k_fold(targets, n_splits=len(targets))`` each target is predicted from all others:
    leave-one-out. Returned is a pseudobulk, in the order of `bulk`. It suits sizes and errors; what
    a PDS of it is worth, :func:`repeated` says.
    """
    mean = {CONTROL: control_row(bulk)}
    for split in splits:
        _check_split(split, bulk, bulk)
        pred = _fit_predict(type(model).__name__, model, bulk, split)
        mean |= {name: pred[name].X.ravel() for name in split.query}
    obs = pd.DataFrame(index=bulk.obs_names[bulk.obs_names.isin(list(mean))])
    values = np.stack([mean[name] for name in obs.index]).astype(np.float32)
    return anndata.AnnData(values, obs=obs, var=pd.DataFrame(index=bulk.var_names))


def _fit_predict(name: str, model, bulk: anndata.AnnData, split: FewShotSplit):
    from sklearn.base import clone  # a second, which who only measures need not wait

    fresh = clone(model, safe=False)
    try:
        fresh.fit(_rows_of(bulk, [CONTROL, *split.support]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)  # obs["fallback"] says the same
            return fresh.predict(list(split.query))
    except Exception as error:
        error.add_note(f"model {name!r}, with {len(split.support)} support targets")
        raise


def _long(tables: list[tuple[Mapping[str, object], pd.DataFrame]]) -> pd.DataFrame:
    """Stack tables with a row per target and a column per metric: a row per value."""
    parts, where = [scores for _, scores in tables], pd.DataFrame([where for where, _ in tables])
    where = where.loc[where.index.repeat([scores.size for scores in parts])]
    return where.reset_index(drop=True).assign(
        target_gene=np.concatenate([np.tile(t.index, t.shape[1]) for t in parts]),
        metric=np.concatenate([np.repeat(t.columns, t.shape[0]) for t in parts]),
        value=np.concatenate([t.to_numpy(np.float64).T.ravel() for t in parts]),
    )


def _check_split(split: FewShotSplit, bulk: anndata.AnnData, truth: anndata.AnnData) -> None:
    if both := set(split.support) & set(split.query):
        raise ValueError(
            f"{some_of(sorted(both))} in the support and in the query set: what a model has seen "
            "it cannot be tested on"
        )
    for side, names, source in (("support", split.support, bulk), ("query", split.query, truth)):
        if missing := sorted({CONTROL, *names} - set(source.obs_names)):
            raise KeyError(
                f"{some_of(missing)} of the {side} set or the control: no such row in the "
                f"pseudobulk, which has {some_of(source.obs_names)}"
            )


def _rows_of(bulk: anndata.AnnData, names: list[str]) -> anndata.AnnData:
    """Copy some rows and leave all behind that may tell of the others (parent, uns, obsp)."""
    part, var = bulk[names], pd.DataFrame(index=bulk.var_names)
    # anndata 0.13 counts X as the layer None
    layers = {name: np.array(values) for name, values in part.layers.items() if name is not None}
    return anndata.AnnData(np.array(part.X), obs=part.obs.copy(), var=var, layers=layers)


def learning_curve(
    models: Mapping[str, object],
    bulk: anndata.AnnData,
    sizes: Sequence[int],
    *,
    n_repeats: int = 10,
    seed: int = 0,
    truth: anndata.AnnData | None = None,
    least: Mapping[str, int] | None = None,
) -> pd.DataFrame:
    """Measure each model with support sets that grow, several times over.

    Support targets are drawn from `bulk`, `n_repeats` times, with seeds `seed`, `seed` + 1, ...;
    `sizes` are those of the support set, 0 being zero-shot. All targets of `truth` are predicted;
    by default those of `bulk` that the largest support set of the draw leaves. Within a draw, whose
    number is split, smaller support sets lie in larger ones: only the size changes. The rest is as
    for :func:`repeated`.
    """
    targets = bulk.obs_names[bulk.obs_names != CONTROL]
    query = None if truth is None else truth.obs_names[truth.obs_names != CONTROL]
    draws = [{"query": query, "seed": seed + number} for number in range(n_repeats)]
    splits = [split for draw in draws for split in nested_splits(targets, sizes, **draw)]
    table = repeated(models, bulk, splits, truth=truth, least=least)
    return table.assign(split=table["split"] // len(sizes))


def chance(table: pd.DataFrame) -> pd.DataFrame:
    """Return rows of a model "chance" for the splits and targets of `table`.

    It is :func:`~vcc_helpers.metrics.pds_chance` of the number of targets that were ranked.
    """
    asked = table[["split", "n_support", "target_gene"]].drop_duplicates()
    ranked = asked.groupby(["split", "n_support"])["target_gene"].transform("size")
    rows = asked.assign(model=CHANCE, metric="pds", value=ranked.map(metrics.pds_chance))
    return rows[table.columns.intersection(rows.columns)].reset_index(drop=True)


def floor(table: pd.DataFrame, bulk: anndata.AnnData) -> pd.DataFrame:
    r"""Return rows of a "perfect model" for the splits and targets of `table`: the least MAE.

    A model that knows each gene's true mean still meets measured means, which the sampling of cells
    scatters around it: :math:`\sqrt{2/\pi} \; s_{pg} / \sqrt{n_p}` is expected of each gene, with
    the variance between cells s² in ``bulk.layers["variance"]`` and their number in
    ``bulk.obs["n_cells"]``.
    """
    least = pd.Series(np.sqrt(2 / np.pi) * _standard_error(bulk).mean(axis=1), bulk.obs_names)
    rows = table[["split", "n_support", "target_gene"]].drop_duplicates(ignore_index=True)
    return rows.assign(model=FLOOR, metric="mae", value=rows["target_gene"].map(least))


class _Dealt(NamedTuple):
    mean: float
    sd: float


def dealt(pred: anndata.AnnData, real: anndata.AnnData) -> _Dealt:
    r"""Return the PDS that these predictions would have if nobody knew which is whose.

    Returned are its ``mean`` and ``sd`` over all ways to give predictions to targets. It is the
    sharpest chance level: it keeps the sizes of all effects, and asks only whether each prediction
    was given to the right target, of two or more. The spread of PDS over targets, mostly because
    weak real effects are near to every prediction, drops out. With :math:`a_{ij}` the PDS of
    prediction i when it is given to target j, and :math:`d_{ij}` what is left of it without row and
    column means, the mean is that of all :math:`a_{ij}`, and the variance that of :math:`\tfrac1n
    \sum_i a_{i\pi(i)}`, :math:`\sum_{ij} d_{ij}^2 / (n^2 (n - 1))`. Source: Hoeffding, Annals of
    Mathematical Statistics 22:558, 1951.
    """
    pair = paired(pred, real)
    if (n := len(pair.names)) < 2:
        raise ValueError(f"{n} perturbation; with fewer than two there is nothing to exchange")
    pred, real = (x.astype(np.float64) for x in (pair.pred_effect, pair.real_effect))
    whole, given = cdist(pred, real, "cityblock"), np.empty((n, n))
    for target, gene in enumerate(pair.own_gene):  # metrics.pds, of all predictions at once
        distance = whole - (np.abs(pred[:, [gene]] - real[:, gene]) if gene >= 0 else 0)
        own = distance[:, [target]]
        rank = (distance < own).sum(axis=1) + (distance == own)[:, :target].sum(axis=1)
        given[:, target] = 1 - rank / n
    rest = given - given.mean(axis=0) - given.mean(axis=1, keepdims=True) + given.mean()
    return _Dealt(float(given.mean()), float(np.sqrt((rest**2).sum() / (n**2 * (n - 1)))))


def ceiling(
    table: pd.DataFrame,
    source: anndata.AnnData | Sequence[tuple[anndata.AnnData, anndata.AnnData]],
    *,
    measure: Measure = evaluate,
) -> pd.DataFrame:
    r"""Return rows of "half-data repeat": half of the real cells as a prediction of the others.

    They are for the splits and targets of `table`, and each metric of `measure`, as for
    :func:`repeated`; a ceiling of DES comes from :func:`~vcc_helpers.scoring.split_half_ceiling`.
    `source` are pairs of pseudobulks of halves of the cells, from :func:`~.scoring.halves`; or,
    where the cells are not at hand, their pseudobulk with ``layers["variance"]`` and
    ``obs["n_cells"]``; a ValueError if a group has one cell only.

    It shows what a repeat of the experiment with half of the cells would score. For PDS hard to
    beat; for MAE no ceiling at all, since half of the cells are noisier than a good model. From a
    pseudobulk the halves are :math:`\bar y \pm d` with :math:`d \sim N(0, s^2 / n)`, gene by gene,
    without noise that genes share; five draws are averaged.
    """
    pairs = source
    if isinstance(source, anndata.AnnData):
        pairs = [_halves_of_bulk(source, seed=number) for number in range(5)]

    @cache
    def mean_scores(names: tuple[str, ...]) -> pd.DataFrame:
        rows = [CONTROL, *names]
        scores = [measure(_rows_of(a, rows), _rows_of(b, rows)) for a, b in pairs]
        return sum(scores) / len(scores)

    tables = []
    for (split, n_support), part in table.groupby(["split", "n_support"]):
        names = tuple(sorted(part["target_gene"].unique()))
        where = {"model": CEILING, "split": split, "n_support": n_support}
        tables.append((where, mean_scores(names)))
    return _long(tables)


def _standard_error(bulk: anndata.AnnData) -> np.ndarray:
    if "variance" not in bulk.layers or "n_cells" not in bulk.obs:
        raise ValueError(
            "no layers['variance'] or no obs['n_cells']; give a pseudobulk with both, or, of "
            "cells, the pairs that scoring.halves(cells) returns"
        )
    if len(lonely := bulk.obs_names[bulk.obs["n_cells"] < 2]):
        raise ValueError(f"{some_of(lonely)} have one cell only; a split needs two in every group")
    return np.sqrt(bulk.layers["variance"] / bulk.obs[["n_cells"]].to_numpy())


def _halves_of_bulk(bulk: anndata.AnnData, *, seed: int) -> list[anndata.AnnData]:
    apart = np.random.default_rng(seed).normal(size=bulk.shape) * _standard_error(bulk)
    n_cells, spread = bulk.obs[["n_cells"]], bulk.layers["variance"]
    names = n_cells // 2, pd.DataFrame(index=bulk.var_names)
    means = [np.maximum(bulk.X + sign * apart, 0) for sign in (1, -1)]
    return [anndata.AnnData(mean, *names, layers={"variance": spread}) for mean in means]


class _Calibration(NamedTuple):
    slope: float
    per_perturbation: pd.DataFrame


def calibration(pred: anndata.AnnData, real: anndata.AnnData) -> _Calibration:
    r"""Compare the sizes of predicted and real effects, given as two pseudobulks.

    .. math:: b = \frac{\sum_p \langle \hat\Delta_p, \Delta_p \rangle}
                       {\sum_p \| \hat\Delta_p \|^2},

    the least-squares line through the origin of real on predicted effects. It asks for the right
    direction too: a prediction of the right size and a wrong direction has ratio 1 and slope 0.
    Noise lengthens real effects, so a noise-free truth has a ratio below 1, yet slope 1. PDS
    rewards exaggeration and MAE timidity: look here before believing either.

    Returned are `slope`, the factor on all predicted effects that would bring them closest to the
    real ones: 1 is calibrated, below 1 means exaggerated, above 1 timid, NaN that nothing is
    predicted; and a table `per_perturbation` of real_norm and pred_norm, L2 norms of the effects
    over genes, ratio, predicted over real, and slope, the same factor for this perturbation alone.
    """
    pair = paired(pred, real)
    mine, truth = (effect.astype(np.float64) for effect in (pair.pred_effect, pair.real_effect))
    together, square = (mine * truth).sum(axis=1), (mine**2).sum(axis=1)
    table = pd.DataFrame(
        {"real_norm": np.linalg.norm(truth, axis=1), "pred_norm": np.sqrt(square)}, pair.names
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        table["ratio"] = table["pred_norm"] / table["real_norm"]
        table["slope"] = together / square
        slope = float(together.sum() / square.sum())
    return _Calibration(slope, table)
