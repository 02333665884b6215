"""Measure models honestly: repeated splits, intervals over perturbations, paired comparisons.

One long table holds every value: a row for each model, split, target and metric. Reference rows
(chance, split-half ceiling) join it with :func:`pandas.concat`, and every summary takes it.

Taught in: notebooks/04_mean_baseline and notebooks/13_choose_and_compare_models.
Needs: cells.py, effects.py, emit.py, metrics.py, scoring.py, splits.py and what these need; for
the example models.py.

>>> import vcc_helpers as vcc
>>> screen = vcc.datasets.load_hipsc_screen()
>>> bulk = vcc.pseudobulk(screen[screen.obs["day"] == 5])
>>> models = {"no change": vcc.models.no_change(), "mean": vcc.models.mean_baseline()}
>>> table = repeated(models, bulk, vcc.splits.k_fold(bulk.obs_names.drop("non-targeting")))
>>> compare(table, "no change").round(3).loc[("mean", "mae"), ["difference", "n_targets"]].tolist()
[-0.001, 23.0]
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from sklearn.base import clone
from tqdm import tqdm

from . import emit, metrics
from .cells import CONTROL, PERTURBATION_KEY, inspect_values, labels_of, some_of
from .effects import Scaling, effects, pseudobulk
from .scoring import compare as compare_digests
from .scoring import compare_pseudobulk, digest, split_half
from .splits import FewShotSplit, nested_splits

#: Names of the reference rows.
CHANCE, CEILING = "chance", "split-half ceiling"

Measure = Callable[[anndata.AnnData, anndata.AnnData], pd.DataFrame]


def evaluate(
    pred: anndata.AnnData, real: anndata.AnnData, *, control: str = CONTROL
) -> pd.DataFrame:
    """Score a predicted pseudobulk against the real one, perturbation by perturbation.

    Parameters
    ----------
    pred, real
        Pseudobulk with a control row each, ``(n_groups, n_genes)``, mean lognorm, over the same
        genes; perturbations of `real` that `pred` lacks are an error, others are ignored.
    control
        Name of the control's row.

    Returns
    -------
    DataFrame
        Index target_gene, sorted; columns pds and mae, as of
        :func:`~vcc_helpers.scoring.compare_pseudobulk`, and pearson: the correlation over genes
        of the predicted effect with the real one, -1 to 1, best 1, higher is better.

    Raises
    ------
    KeyError
        A control row or a perturbation is missing.
    ValueError
        The genes differ.

    Notes
    -----
    A predicted effect of zero, as of "no change", has no correlation; it counts as 0, so that
    means over perturbations stay comparable. Chance is no 0 for pearson:
    what all perturbations share is enough to be above it. The target's own gene counts, and its
    knock-down alone lifts the correlation of a weak effect.

    Taught in: notebooks/08_metrics_by_hand.
    """
    table = compare_pseudobulk(pred, real, ("pds", "mae", "pearson_delta"), control=control)
    return table.rename(columns={"pearson_delta": "pearson"}).fillna({"pearson": 0.0})


def _effect_rows(bulk: anndata.AnnData, names: pd.Index, control: str) -> np.ndarray:
    delta = effects(bulk, control=control)
    return np.asarray(delta.X, dtype=np.float64)[delta.obs_names.get_indexer(names)]


def measure_cells(
    cells: anndata.AnnData,
    *,
    emitter: Callable[..., anndata.AnnData] = emit.negative_binomial,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> Measure:
    """Return a measure that turns predictions into cells too, so that there is a DES.

    Parameters
    ----------
    cells
        The real cells, counts, ``(n_cells, n_genes)``: every target that will be asked about,
        and controls. They must have the genes of the predictions.
    emitter
        A function of :mod:`vcc_helpers.emit`; it makes as many cells as there are real ones,
        from the real controls. Set its seed with :func:`functools.partial`.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        The label of control cells.

    Returns
    -------
    callable
        To be given to :func:`repeated` as `measure`: what :func:`evaluate` returns, and a column
        des, scored by the rules of vcc2025.

    Notes
    -----
    Far slower than :func:`evaluate`: it tests every gene of every perturbation.

    Taught in: notebooks/09_first_submission.
    """
    labels = labels_of(cells, perturbation_key)
    kw = {"perturbation_key": perturbation_key, "control": control}
    controls = cells[labels == control].copy()
    scale = Scaling.of(inspect_values(cells)).target_sum

    @cache
    def truth(names: tuple[str, ...]):
        return digest(cells[labels.isin([control, *names])].copy(), **kw)

    def measure(pred: anndata.AnnData, real: anndata.AnnData) -> pd.DataFrame:
        names = tuple(real.obs_names[real.obs_names != control])
        known = truth(names)
        asked = pred[[control, *names]]
        sizes = known.bulk.obs["n_cells"].drop(control)
        made = emitter(asked, controls=controls, n_cells=sizes, target_sum=scale, **kw)
        des = compare_digests(digest(made, **kw), known, control=control)["des"]
        return evaluate(pred, real, control=control).assign(des=des)

    return measure


def repeated(
    models: Mapping[str, object],
    bulk: anndata.AnnData,
    splits: Iterable[FewShotSplit],
    *,
    truth: anndata.AnnData | None = None,
    measure: Measure | None = None,
    least: Mapping[str, int] | None = None,
    control: str = CONTROL,
    progress: bool = False,
) -> pd.DataFrame:
    """Fit each model to the support set of each split, and score it on the query set.

    Parameters
    ----------
    models
        Name of each model, and the model: anything with ``fit(bulk)`` and ``predict(targets)``.
        Cloned for each split, never changed.
    bulk
        Pseudobulk to learn from, ``(n_groups, n_genes)``, control included.
    splits
        Support and query sets, as of :func:`~vcc_helpers.splits.k_fold`; those of several seeds
        one after the other for repeated cross-validation.
    truth
        Pseudobulk with the query targets and a control of its own; by default `bulk`.
    measure
        Function of a predicted and a real pseudobulk that returns a row a target and a column a
        metric; by default :func:`evaluate`.
    least
        The smallest support set that a model can learn from, by its name: it has no rows for
        smaller ones. Models that are not named are fitted to all, the control alone included.
    control
        Name of the control's row.
    progress
        Show a progress bar over splits.

    Returns
    -------
    DataFrame
        Columns model, split (number, from 0), n_support, target_gene, metric, value.

    Raises
    ------
    ValueError
        A split has a target on both sides, or there is no split or no model.
    KeyError
        A target of a split is not in the pseudobulk.

    Notes
    -----
    A model gets a fresh copy of the support rows and the control; no query row is within its
    reach. Each split is scored by itself, so PDS ranks among its query targets only, as the
    contest ranks unseen targets. Were the folds ranked together, a prediction would meet the very
    effects it learnt from: one copied from a neighbour lies at distance 0 from it, and can never
    be nearest to its own truth.

    Taught in: notebooks/04_mean_baseline.
    """
    truth = bulk if truth is None else truth
    measure = partial(evaluate, control=control) if measure is None else measure
    tables = []
    for number, split in enumerate(tqdm(list(splits), unit=" splits", disable=not progress)):
        _check_split(split, bulk, truth, control)
        real = _rows_of(truth, [control, *split.query])
        for name, model in models.items():
            if len(split.support) < (least or {}).get(name, 0):
                continue
            pred = _fit_predict(name, model, _rows_of(bulk, [control, *split.support]), split)
            where = {"model": name, "split": number, "n_support": len(split.support)}
            tables.append((where, measure(pred, real)))
    if not tables:
        raise ValueError("nothing was measured: expected at least one split and one model")
    return _long(tables)


def _fit_predict(name: str, model, support: anndata.AnnData, split: FewShotSplit):
    fresh = clone(model, safe=False)
    try:
        fresh.fit(support)
        return fresh.predict(list(split.query))
    except Exception as error:
        error.add_note(f"model {name!r}, with {len(split.support)} support targets")
        raise


def _long(tables: list[tuple[Mapping[str, object], pd.DataFrame]]) -> pd.DataFrame:
    """Lay tables of a row a target and a column a metric under each other, a row a value."""
    sizes = [scores.size for _, scores in tables]
    columns = {
        name: np.repeat(np.array([where[name] for where, _ in tables]), sizes)
        for name in tables[0][0]
    }
    parts = [scores for _, scores in tables]
    columns["target_gene"] = np.concatenate([np.tile(t.index, t.shape[1]) for t in parts])
    columns["metric"] = np.concatenate([np.repeat(t.columns, t.shape[0]) for t in parts])
    columns["value"] = np.concatenate([t.to_numpy(np.float64).T.ravel() for t in parts])
    return pd.DataFrame(columns)


def _check_split(
    split: FewShotSplit, bulk: anndata.AnnData, truth: anndata.AnnData, control: str
) -> None:
    if both := set(split.support) & set(split.query):
        raise ValueError(
            f"{some_of(sorted(both))} in the support and in the query set: what a model has seen "
            "it cannot be asked"
        )
    for side, names, source in (("support", split.support, bulk), ("query", split.query, truth)):
        if missing := sorted({control, *names} - set(source.obs_names)):
            raise KeyError(
                f"{some_of(missing)} of the {side} set or the control: no such row in the "
                f"pseudobulk, which has {some_of(source.obs_names)}"
            )


def _rows_of(bulk: anndata.AnnData, names: list[str]) -> anndata.AnnData:
    """Copy some rows and leave all behind that may tell of the others (parent, uns, obsp)."""
    part = bulk[names]
    # anndata 0.13 counts X as the layer None
    layers = {name: np.array(values) for name, values in part.layers.items() if name is not None}
    var = pd.DataFrame(index=bulk.var_names)
    return anndata.AnnData(np.array(part.X), obs=part.obs.copy(), var=var, layers=layers)


def learning_curve(
    models: Mapping[str, object],
    bulk: anndata.AnnData,
    sizes: Sequence[int],
    *,
    n_repeats: int = 10,
    seed: int = 0,
    truth: anndata.AnnData | None = None,
    measure: Measure | None = None,
    least: Mapping[str, int] | None = None,
    control: str = CONTROL,
    progress: bool = False,
) -> pd.DataFrame:
    """Measure each model with support sets that grow, several times over.

    Parameters
    ----------
    models, measure, least, control, progress
        As for :func:`repeated`.
    bulk
        Pseudobulk to draw support targets from, ``(n_groups, n_genes)``, control included.
    sizes
        Sizes of the support set; 0 is zero-shot.
    n_repeats
        How many times support sets are drawn, with seeds `seed`, `seed` + 1, ...
    seed
        Seed of the first draw.
    truth
        Pseudobulk whose targets are all predicted, always the same; by default the targets of
        `bulk` that the largest support set of each draw leaves.

    Returns
    -------
    DataFrame
        As of :func:`repeated`; split is the number of the draw. Within a draw the query set is
        one, and smaller support sets lie in larger ones: only the size changes.

    Notes
    -----
    Taught in: notebooks/07_few_shot_adaptation.
    """
    targets = bulk.obs_names[bulk.obs_names != control]
    query = None if truth is None else truth.obs_names[truth.obs_names != control]
    tables = []
    for number in tqdm(range(n_repeats), unit=" draws", disable=not progress):
        splits = nested_splits(targets, sizes, query=query, seed=seed + number)
        kw = {"truth": truth, "measure": measure, "least": least, "control": control}
        tables.append(repeated(models, bulk, splits, **kw).assign(split=number))
    return pd.concat(tables, ignore_index=True)


def chance(table: pd.DataFrame) -> pd.DataFrame:
    """Return reference rows: the PDS that a prediction which knows nothing expects.

    Parameters
    ----------
    table
        From :func:`repeated` or :func:`learning_curve`.

    Returns
    -------
    DataFrame
        Rows for `table`'s splits and targets, model "chance", metric pds:
        :func:`~vcc_helpers.metrics.pds_chance` of the number of targets that were ranked.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    asked = table[["split", "n_support", "target_gene"]].drop_duplicates()
    ranked = asked.groupby(["split", "n_support"])["target_gene"].transform("size")
    rows = asked.assign(model=CHANCE, metric="pds", value=ranked.map(metrics.pds_chance))
    return rows[table.columns.intersection(rows.columns)].reset_index(drop=True)


class Dealt(NamedTuple):
    """PDS of predictions that are dealt to the targets at random.

    Attributes
    ----------
    mean, sd
        Over all ways to deal them, of the mean PDS over targets.
    """

    mean: float
    sd: float


def dealt(pred: anndata.AnnData, real: anndata.AnnData, *, control: str = CONTROL) -> Dealt:
    r"""Return the PDS that these predictions would have if nobody knew which is whose.

    Parameters
    ----------
    pred, real
        As for :func:`evaluate`; two perturbations at least.
    control
        Name of the control's row.

    Returns
    -------
    Dealt
        Mean and standard deviation over all permutations of the predictions.

    Raises
    ------
    KeyError
        A control row or a perturbation is missing.
    ValueError
        There is one perturbation only.

    Notes
    -----
    The sharpest chance level: it keeps the sizes of all effects, and asks only whether each
    prediction was given to the right target. Per-target values of PDS are spread over 0 to 1,
    mostly because weak real effects are near to every prediction, and so an interval over targets
    is wide. That spread drops out here.

    With :math:`a_{ij}` the PDS of prediction i when it is given to target j, and
    :math:`d_{ij}` what is left of it without row and column means, the mean is that of all
    :math:`a_{ij}`, and the variance of :math:`\tfrac1n \sum_i a_{i\pi(i)}` is
    :math:`\sum_{ij} d_{ij}^2 / (n^2 (n - 1))`. Source: Hoeffding, Annals of Mathematical
    Statistics 22:558, 1951.

    Taught in: notebooks/08_metrics_by_hand.
    """
    names = pd.Index(sorted(real.obs_names[real.obs_names != control]))
    if len(names) < 2:
        raise ValueError(f"{len(names)} perturbation; there is nothing to deal with fewer than two")
    if len(missing := names.difference(pred.obs_names)):
        raise KeyError(f"pred has no row for {some_of(missing)}")
    mine, truth = (_effect_rows(bulk, names, control) for bulk in (pred, real))
    own_gene = real.var_names.get_indexer(names)
    alike = (np.broadcast_to(effect, truth.shape) for effect in mine)
    given = np.stack([metrics.pds(effect, truth, own_gene) for effect in alike])
    rest = given - given.mean(axis=0) - given.mean(axis=1, keepdims=True) + given.mean()
    n = len(names)
    return Dealt(float(given.mean()), float(np.sqrt((rest**2).sum() / (n**2 * (n - 1)))))


def ceiling(
    table: pd.DataFrame,
    source: anndata.AnnData,
    *,
    n_halvings: int = 5,
    seed: int = 0,
    measure: Measure | None = None,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> pd.DataFrame:
    r"""Return reference rows: one half of the real cells as a prediction of the other half.

    Parameters
    ----------
    table
        From :func:`repeated` or :func:`learning_curve`: which targets were asked together.
    source
        The real cells, ``(n_cells, n_genes)``; or, where they are not at hand, their pseudobulk
        with ``layers["variance"]`` and ``obs["n_cells"]``, ``(n_groups, n_genes)``.
    n_halvings
        How many times the cells are dealt; the values are averaged.
    seed
        Seed of the deal.
    measure
        As for :func:`repeated`; only what compares two pseudobulks makes sense here. A ceiling of
        DES comes from :func:`~vcc_helpers.scoring.split_half_ceiling`.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    control
        Label of control cells.

    Returns
    -------
    DataFrame
        Rows for `table`'s splits and targets, model "split-half ceiling", each metric of
        `measure`.

    Raises
    ------
    ValueError
        A group has one cell only.

    Notes
    -----
    It shows what a repeat of the experiment with half of the cells would score. For PDS hard to
    beat; for MAE no ceiling at all, since half of the cells are noisier than a good model.

    From a pseudobulk the halves are :math:`\bar y \pm d` with :math:`d \sim N(0, s^2 / n)`,
    which is how far the halves of n cells fall apart, each gene by itself. Noise that genes share
    (a cell's state, its depth) is left out.

    Taught in: notebooks/04_mean_baseline.
    """
    measure = partial(evaluate, control=control) if measure is None else measure
    is_bulk = "variance" in source.layers and "n_cells" in source.obs
    halve = _halves_of_bulk if is_bulk else partial(_halves_of_cells, key=perturbation_key)
    pairs = [halve(source, seed=seed + number) for number in range(n_halvings)]

    @cache
    def mean_scores(names: tuple[str, ...]) -> pd.DataFrame:
        rows = [control, *names]
        scores = [measure(_rows_of(a, rows), _rows_of(b, rows)) for a, b in pairs]
        return sum(scores) / len(scores)

    tables = []
    for (split, n_support), part in table.groupby(["split", "n_support"]):
        names = tuple(sorted(part["target_gene"].unique()))
        where = {"model": CEILING, "split": split, "n_support": n_support}
        tables.append((where, mean_scores(names)))
    return _long(tables)


def _halves_of_cells(cells: anndata.AnnData, *, seed: int, key: str) -> list[anndata.AnnData]:
    halves = split_half(cells, seed=seed, perturbation_key=key)
    return [pseudobulk(half, perturbation_key=key) for half in halves]


def _halves_of_bulk(bulk: anndata.AnnData, *, seed: int) -> list[anndata.AnnData]:
    lonely = bulk.obs_names[bulk.obs["n_cells"] < 2]
    if len(lonely):
        raise ValueError(f"{some_of(lonely)} have one cell only; a split needs two in every group")
    n_cells = bulk.obs["n_cells"].to_numpy()[:, None]
    noise = np.random.default_rng(seed).normal(size=bulk.shape)
    apart = noise * np.sqrt(bulk.layers["variance"] / n_cells)
    obs, var = bulk.obs[["n_cells"]] // 2, pd.DataFrame(index=bulk.var_names)
    return [
        anndata.AnnData(
            np.maximum(bulk.X + sign * apart, 0),
            obs=obs,
            var=var,
            layers={"variance": bulk.layers["variance"]},
        )
        for sign in (1, -1)
    ]


def interval(
    table: pd.DataFrame,
    *,
    by: Sequence[str] = ("model", "metric"),
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Return means over perturbations, with bootstrap confidence intervals.

    Parameters
    ----------
    table
        From :func:`repeated` or :func:`learning_curve`, reference rows added where wanted.
    by
        Columns to group by; for a learning curve with ``"n_support"`` among them.
    level
        Share of repetitions of the experiment, with other targets, in which such an interval
        should hold the mean.
    n_boot
        Number of bootstrap samples.
    seed
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        Index: `by`, in the order of `table`; columns mean, low, high, n_targets.

    Raises
    ------
    ValueError
        A value is NaN, or there are several for one split and target.

    Notes
    -----
    The percentile bootstrap over targets. A target's values from several splits are averaged
    first: they are repeated measurements of one perturbation, and no amount of splits makes more
    perturbations of it. (Taking them for independent gives intervals that are too short.)

    The interval speaks of *which targets were asked*. It does not hold the luck of the support
    set beyond what averaging over splits leaves, and values of PDS, each a rank among the same
    targets, depend a little on each other. With fewer than about twenty targets take it as a
    lower bound of the doubt.

    Taught in: notebooks/04_mean_baseline.
    """
    by = list(by)
    _check_values(table, by)
    rows = {}
    for key, part in table.groupby(by, sort=False, observed=True):
        values = part.groupby("target_gene")["value"].mean().to_numpy()
        rows[key] = [values.mean(), *_bootstrap(values, level, n_boot, seed), len(values)]
    return _summary(rows, by, ["mean", "low", "high", "n_targets"])


def _bootstrap(values: np.ndarray, level: float, n_boot: int, seed: int) -> np.ndarray:
    """Return the ends of the mean's interval; equal numbers of values get equal draws."""
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a share between 0 and 1, such as 0.95")
    drawn = np.random.default_rng(seed).integers(len(values), size=(n_boot, len(values)))
    return np.quantile(values[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])


def _summary(rows: Mapping[tuple, list], by: list[str], columns: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=by)
    found = pd.DataFrame(list(rows.values()), index=index, columns=columns)
    return found.astype({"n_targets": int})


def _check_values(table: pd.DataFrame, by: list[str]) -> None:
    if table["value"].isna().any():
        bad = table[table["value"].isna()]
        raise ValueError(
            f"values are NaN, of {some_of((bad['model'] + ' ' + bad['metric']).unique())}"
        )
    keys = [*by, "split", "target_gene"]
    if table.duplicated(keys).any():
        more = [c for c in table.columns if c not in [*keys, "value"]]
        raise ValueError(
            f"several values for one split and target; by={by} lacks a column, perhaps one of "
            f"{more}"
        )


def compare(
    table: pd.DataFrame,
    reference: str,
    *,
    by: Sequence[str] = ("model", "metric"),
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every model with one of them, on the same targets of the same splits.

    Parameters
    ----------
    table
        From :func:`repeated` or :func:`learning_curve`.
    reference
        Name of the model to compare with.
    by, level, n_boot, seed
        As for :func:`interval`; `by` with ``"model"`` among them.

    Returns
    -------
    DataFrame
        Index: `by`, without the reference; columns difference (mean of the model's value minus
        the reference's), low, high (its bootstrap interval), won (share of targets on which the
        model is better; a tie counts half) and n_targets.

    Raises
    ------
    KeyError
        There is no model of that name.
    ValueError
        A model shares no target and split with the reference, a value is NaN, or there are
        several for one split and target.

    Notes
    -----
    Two models fail on the same hard targets. Taking differences target by target removes what
    they share, so a difference can be sure although the intervals of the two means overlap.

    To compare support sizes of one learning curve, make the size part of the name:
    ``table.assign(model=table["model"] + ", " + table["n_support"].astype(str))``.

    Taught in: notebooks/04_mean_baseline.
    """
    by = list(by)
    if reference not in set(table["model"]):
        names = some_of(table["model"].unique())
        raise KeyError(f"no model {reference!r} to compare with; there are {names}")
    _check_values(table, by)
    keys = [*(name for name in by if name != "model"), "split", "target_gene"]
    base = table[table["model"] == reference].set_index(keys)["value"]
    rows = {}
    others = table[table["model"] != reference]
    for key, part in others.groupby(by, sort=False, observed=True):
        gap = (part.set_index(keys)["value"] - base).dropna()
        metric = part["metric"].iloc[0]
        if gap.empty and metric in set(table.loc[table["model"] == reference, "metric"]):
            raise ValueError(f"{key} and {reference!r} share no target of the same split")
        if not gap.empty:
            values = gap.groupby("target_gene").mean().to_numpy()
            ends = _bootstrap(values, level, n_boot, seed)
            rows[key] = [values.mean(), *ends, _won(values, metric), len(values)]
    return _summary(rows, by, ["difference", "low", "high", "won", "n_targets"])


def _won(gap: np.ndarray, metric: str) -> float:
    better = -gap if metrics.BEST.get(metric, 1.0) == 0 else gap
    return float(((better > 0) + 0.5 * (better == 0)).mean())


def with_intervals(summary: pd.DataFrame, *, digits: int | Mapping[str, int] = 3) -> pd.DataFrame:
    """Lay a summary out for reading: models down, metrics across, each with its interval.

    Parameters
    ----------
    summary
        From :func:`interval` or :func:`compare`, with ``"metric"`` in its index.
    digits
        Digits after the point; or a number for each metric, and 3 for those that are not named.

    Returns
    -------
    DataFrame
        Index: what is left of the summary's, in its order; a column a metric; text such as
        ``".577 [.517, .632]"``, without a 0 before the point so that four fit beside each other,
        with a sign where it is a difference, and nothing where a model lacks the metric.

    Notes
    -----
    Taught in: notebooks/04_mean_baseline.
    """
    sign, value = ("+", "difference") if "difference" in summary else ("", "mean")
    texts = []
    names = summary.index.get_level_values("metric")
    for metric, row in zip(names, summary.itertuples(), strict=True):
        places = digits if isinstance(digits, int) else digits.get(metric, 3)
        numbers = (f"{x:{sign}.{places}f}" for x in (getattr(row, value), row.low, row.high))
        texts.append(re.sub(r"\b0\.", ".", "{} [{}, {}]".format(*numbers)))
    rows = summary.index.droplevel("metric").unique()
    wide = pd.Series(texts, index=summary.index).unstack("metric")
    return wide.loc[rows, names.unique()].fillna("")


def by_stratum(table: pd.DataFrame, of: pd.Series, *, n_strata: int = 3) -> pd.DataFrame:
    """Group the targets by a property, such as the strength of their effect.

    Parameters
    ----------
    table
        From :func:`repeated` or :func:`learning_curve`.
    of
        A number for each target, index target_gene: ``effect_strength(bulk)["norm"]``, or
        ``["n_cells"]``.
    n_strata
        How many groups of about equal size (quantiles); fewer where many numbers are equal.

    Returns
    -------
    DataFrame
        A copy of `table` with a column stratum, an ordered category named by the least and the
        largest number in it. Give ``by=("model", "metric", "stratum")`` to :func:`interval` or
        :func:`compare`.

    Raises
    ------
    KeyError
        A target has no number.

    Notes
    -----
    The values stay as they are: PDS still ranks among all targets of the split.

    Taught in: notebooks/13_choose_and_compare_models.
    """
    targets = pd.Index(sorted(table["target_gene"].unique()))
    if len(missing := targets.difference(of.dropna().index)):
        raise KeyError(f"`of` has no number for {some_of(missing)}")
    numbers = of[targets].astype(float)
    code = pd.qcut(numbers, n_strata, labels=False, duplicates="drop")
    ends = numbers.groupby(code).agg(["min", "max"])
    names = [f"{low:.3g} to {high:.3g}" for low, high in ends.itertuples(index=False)]
    place = table["target_gene"].map(code.map(dict(zip(ends.index, range(len(ends)), strict=True))))
    stratum = pd.Categorical.from_codes(place.to_numpy(), names, ordered=True)
    return table.assign(stratum=stratum)


class Calibration(NamedTuple):
    """Whether predicted effects have the right size.

    Attributes
    ----------
    slope
        The factor on all predicted effects that would bring them closest to the real ones; 1 is
        calibrated, below 1 means exaggerated, above 1 timid. NaN where nothing is predicted.
    per_perturbation
        Index target_gene; real_norm and pred_norm, L2 norms of the effects over genes; ratio,
        predicted over real; slope, the same factor for this perturbation alone.
    """

    slope: float
    per_perturbation: pd.DataFrame


def calibration(
    pred: anndata.AnnData, real: anndata.AnnData, *, control: str = CONTROL
) -> Calibration:
    r"""Compare the sizes of predicted and real effects.

    Parameters
    ----------
    pred, real
        As for :func:`evaluate`.
    control
        Name of the control's row.

    Returns
    -------
    Calibration
        The common slope, and a table.

    Raises
    ------
    KeyError
        A control row or a perturbation is missing.

    Notes
    -----
    .. math:: b = \frac{\sum_p \langle \hat\Delta_p, \Delta_p \rangle}
                       {\sum_p \| \hat\Delta_p \|^2},

    the least-squares line through the origin of real on predicted effects, genes and
    perturbations together. It asks for the right direction too: a prediction of the right size
    and a wrong direction has ratio 1 and slope 0. Noise lengthens real effects, so a noise-free
    truth has a ratio below 1 (see ``norm_denoised`` of
    :func:`~vcc_helpers.effects.effect_strength`), yet slope 1.

    PDS rewards exaggeration and MAE timidity: look here before believing either.

    Taught in: notebooks/13_choose_and_compare_models.
    """
    names = pd.Index(sorted(real.obs_names[real.obs_names != control]), name="target_gene")
    if len(missing := names.difference(pred.obs_names)):
        raise KeyError(f"pred has no row for {some_of(missing)}")
    mine, truth = (_effect_rows(bulk, names, control) for bulk in (pred, real))
    together, square = (mine * truth).sum(axis=1), (mine**2).sum(axis=1)
    table = pd.DataFrame(
        {"real_norm": np.linalg.norm(truth, axis=1), "pred_norm": np.sqrt(square)}, index=names
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        table["ratio"] = table["pred_norm"] / table["real_norm"]
        table["slope"] = together / square
        slope = float(together.sum() / square.sum())
    return Calibration(slope, table)
