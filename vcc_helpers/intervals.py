"""Means over perturbations with their intervals, and paired comparisons of models.

Everything here takes the long table of :mod:`~vcc_helpers.evaluation`: a row for each model, split,
target and metric, reference rows added where wanted. Summaries have a row for each group of the
columns `by` (for a learning curve with ``"n_support"`` among them), in the table's order. A value
that is NaN, or a second one for the same split and target, is a ValueError.

Taught in: notebooks/12_mean_and_median and notebooks/19_choose_and_compare_models.
Needs: bulk.py, metrics.py.

>>> names = ["model", "split", "target_gene", "metric", "value"]
>>> rows = [(m, 0, t, "pds", v) for m, t, v in [("mean", "A", 0.5), ("mean", "B", 0.5)]]
>>> rows += [("kNN", 0, "A", "pds", 0.7), ("kNN", 0, "B", "pds", 0.8)]
>>> compare(pd.DataFrame(rows, columns=names), "mean").round(3).loc[("kNN", "pds"), "difference"]
np.float64(0.25)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from . import metrics
from .bulk import some_of

#: Names of the reference rows.
CHANCE, CEILING, FLOOR = "chance", "half-data repeat", "perfect model"


def interval(table: pd.DataFrame, *, by: Sequence[str] = ("model", "metric")) -> pd.DataFrame:
    """Return means over perturbations, with 95 % bootstrap confidence intervals.

    Columns are mean, low, high and n_targets. Of many repetitions of the experiment, with other
    targets, 95 in 100 such intervals should hold the mean. It is the percentile bootstrap over
    targets. A target's values from several splits are averaged first: they are repeated
    measurements of one perturbation, and taken for independent they make intervals too short.

    The interval is about *which targets were tested*. It does not hold the luck of the support
    set beyond what averaging over splits leaves, and values of PDS, each a rank among the same
    targets, depend a little on each other. With fewer than about twenty targets take it as a
    lower bound of the doubt.
    """
    by = list(by)
    _check_values(table, by)
    rows = {}
    for key, part in table.groupby(by, sort=False, observed=True):
        values = part.groupby("target_gene")["value"].mean().to_numpy()
        rows[key] = [values.mean(), *_bootstrap(values), len(values)]
    return _summary(rows, by, ["mean", "low", "high", "n_targets"])


def _bootstrap(values: np.ndarray) -> np.ndarray:
    """Return the ends of the mean's interval; equal numbers of values get equal draws."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    return np.quantile(values[drawn].mean(axis=1), [(1 - 0.95) / 2, (1 + 0.95) / 2])


def _summary(rows: Mapping[tuple, list], by: list[str], columns: list[str]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(list(rows), names=by)
    found = pd.DataFrame(list(rows.values()), index=index, columns=columns)
    return found.astype({"n_targets": int})


def _check_values(table: pd.DataFrame, by: list[str]) -> None:
    if len(bad := table[table["value"].isna()]):
        names = (bad["model"] + " " + bad["metric"]).unique()
        raise ValueError(f"values are NaN, of {some_of(names)}")
    keys = [*by, "split", "target_gene"]
    if table.duplicated(keys).any():
        more = [c for c in table.columns if c not in [*keys, "value"]]
        raise ValueError(
            f"several values for one split and target; by={by} lacks a column, perhaps one of "
            f"{more}"
        )


def compare(
    table: pd.DataFrame, reference: str, *, by: Sequence[str] = ("model", "metric")
) -> pd.DataFrame:
    """Compare every model with one of them, on the same targets of the same splits.

    A `reference` that is none of the models is a KeyError, a model that shares no target and split
    with it a ValueError; ``"model"`` is among `by`. Columns are difference (mean of the model's
    value minus the reference's), low, high, won (share of targets on which the model is better; a
    tie counts half) and n_targets. Two models fail on the same hard targets. Taking differences
    target by target removes what they share: a difference can be clear although the intervals of
    the two means overlap. To compare support sizes of one learning curve, make the size part of the
    name: ``table.assign(model=table["model"] + ", " + table["n_support"].astype(str))``.
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
        values = part.set_index(keys)["value"]
        gap = (values - base.reindex(values.index)).dropna()
        metric = part["metric"].iloc[0]
        if gap.empty and metric in set(table.loc[table["model"] == reference, "metric"]):
            raise ValueError(f"{key} and {reference!r} share no target of the same split")
        if not gap.empty:
            values = gap.groupby("target_gene").mean().to_numpy()
            better = -values if metrics.BEST.get(metric, 1.0) == 0 else values
            won = ((better > 0) + 0.5 * (better == 0)).mean()
            rows[key] = [values.mean(), *_bootstrap(values), won, len(values)]
    return _summary(rows, by, ["difference", "low", "high", "won", "n_targets"])


def with_intervals(summary: pd.DataFrame, *, digits: int | Mapping[str, int] = 3) -> pd.DataFrame:
    """Lay a summary out for reading: models down, metrics across, each with its interval.

    `summary` comes from :func:`interval` or :func:`compare`, with ``"metric"`` in its index;
    `digits` after the point is one number, or one for each metric, and 3 for those not named. Text
    is such as ``".577 [.517, .632]"``, with a sign where it is a difference, and empty where a
    model lacks the metric.
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

    `of` is a number for each target, index target_gene: ``effect_strength(bulk)["norm"]``, or
    ``["n_cells"]``; a target without one is a KeyError. There are `n_strata` groups of about equal
    size (quantiles), fewer where many numbers are equal. Returned is a copy of `table` with a
    column stratum, an ordered category named by the least and the largest number in it. Give
    ``by=("model", "metric", "stratum")`` to :func:`interval` or :func:`compare`. The values stay as
    they are: PDS still ranks among all targets of the split.
    """
    targets = pd.Index(sorted(table["target_gene"].unique()))
    if len(missing := targets.difference(of.dropna().index)):
        raise KeyError(f"`of` has no number for {some_of(missing)}")
    numbers = of[targets].astype(float)
    strata = pd.qcut(numbers, n_strata, duplicates="drop").cat.remove_unused_categories()
    ends = numbers.groupby(strata, observed=True).agg(["min", "max"])
    names = [f"{low:.3g} to {high:.3g}" for low, high in ends.itertuples(index=False)]
    return table.assign(stratum=table["target_gene"].map(strata.cat.rename_categories(names)))
