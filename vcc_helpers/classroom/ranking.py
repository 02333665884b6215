"""A leaderboard of one's own: score cards ranked per metric, overall, with their doubt, as a page.

Taught in: notebooks/19_choose_and_compare_models and notebooks/21_run_your_own_leaderboard.

>>> import vcc_helpers as vcc
>>> half, other = vcc.scoring.split_half(vcc.datasets.load_h1_sample())
>>> baseline = vcc.score(vcc.scoring.official_baseline(half), other)
>>> board = rank({"repeat": vcc.score(half, other), "mean": baseline}, baseline)
>>> board[["place", "below baseline"]].to_dict(orient="list")
{'place': [1, 2], 'below baseline': ['mae', '']}
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from .. import metrics
from ..scoring.card import ScoreCard

#: Share of repetitions of the contest, with other perturbations, that an interval should hold.
_LEVEL = 0.95


def rank(cards: Mapping[str, ScoreCard], baseline: ScoreCard) -> pd.DataFrame:
    """Rank entries that were scored against the same truth.

    Parameters
    ----------
    cards
        Name of each entry, and its score card, all of one preset.
    baseline
        The card of the official mean baseline against that truth. A ValueError says that there is
        no entry, or one of another preset, other perturbations or other metrics.

    Returns
    -------
    DataFrame
        Index entry, best overall score first; columns

        - *place*: by overall score; equal scores share the better place;
        - *overall*: 0 to 100; of several contexts the mean over them, and *overall of A* and so on
          for each;
        - one per metric: its mean over perturbations, then over contexts;
        - *mean rank*: over all metrics, equal values sharing their mean rank; the Generalist's
          criterion where the cards have the seven metrics. Less is better, 1 is best;
        - *below baseline*: metrics on which the entry is worse than the baseline, a text;
        - *qualified place*: by overall score among those that are below on none; NaN for others.

    Notes
    -----
    A value that does not exist counts as the worst of its metric. For thresholds the paper of the
    challenge (Roohani et al., Cell 2025) names a minimum on every metric; the baseline's own value
    is taken here.
    """
    _check(cards, baseline)
    means = pd.DataFrame({name: card.summary for name, card in cards.items()}).T
    overall = pd.Series({name: card.overall(baseline) for name, card in cards.items()})
    each = _of_contexts(cards, baseline)
    worse = _loss(means).gt(_loss(baseline.summary.to_frame().T).iloc[0]) | means.isna()
    board = means.assign(overall=overall, place=_places(-overall)).join(each)
    board["mean rank"] = _loss(means).rank(na_option="bottom").mean(axis=1)
    board["below baseline"] = [", ".join(row.index[row]) for _, row in worse.iterrows()]
    board["qualified place"] = _places(-overall[~worse.any(axis=1)])
    last = ["mean rank", "below baseline", "qualified place"]
    order = ["place", "overall", *each, *means.columns, *last]
    return board[order].sort_values("place", kind="stable").rename_axis("entry")


def _of_contexts(cards: Mapping[str, ScoreCard], baseline: ScoreCard) -> pd.DataFrame:
    """Overall score of each entry in each context, a column per context where there are several."""
    parts = {
        f"overall of {name}": {entry: cards[entry].contexts[name].overall(base) for entry in cards}
        for name, base in baseline.contexts.items()
    }
    return pd.DataFrame(parts, index=list(cards))


def doubt(
    cards: Mapping[str, ScoreCard], baseline: ScoreCard, *, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Say which places of a leaderboard are really different.

    `cards` and `baseline` are as for :func:`rank`; `n_boot` is the number of bootstrap samples.

    Returns
    -------
    DataFrame
        Index entry, best overall score first; columns overall, low, high (its bootstrap interval,
        of 95 %), best place, worst place (the interval of its place), and *beats next*: the share
        of samples in which it has a higher overall score than the entry below it, ties counting
        half; NaN for the last. Near 0.5 nobody knows who is better; above 0.975 the order is sure
        by the usual rule.

    Notes
    -----
    Perturbations are drawn with replacement, the same ones for all entries and the baseline: what
    makes a perturbation hard for everybody drops out of the comparison. Of several contexts those
    of each are drawn by themselves; the contexts are not drawn, so that other cell lines are not in
    the intervals. The DES of a perturbation
    depends on the others of its file through the pooled false discovery rate, and PDS is a rank
    among them; both are taken as they are. The squared error of 2026 is one number of the whole
    panel, so its doubt is not in the intervals; and the two ends of its scale, baseline and
    replicate, are taken as given, as that contest gives them.
    """
    _check(cards, baseline)
    overall = pd.Series({name: card.overall(baseline) for name, card in cards.items()})
    order = overall.sort_values(ascending=False, kind="stable").index
    rng, bases = np.random.default_rng(seed), baseline.contexts
    parts = {context: {n: cards[n].contexts[context] for n in order} for context in bases}
    parts, bases = (parts, bases) if bases else ({"": {n: cards[n] for n in order}}, {"": baseline})
    draws = [_drawn_overall(parts[n], base, n_boot, rng) for n, base in bases.items()]
    drawn = np.mean(draws, axis=0)
    places = stats.rankdata(-drawn, method="min", axis=1)
    ends = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    table = pd.DataFrame({"overall": overall[order]})
    table["low"], table["high"] = np.quantile(drawn, ends, axis=0)
    best, worst = np.quantile(places, ends, axis=0, method="nearest").astype(int)
    table["best place"], table["worst place"] = best, worst
    gap = drawn[:, :-1] - drawn[:, 1:]
    table["beats next"] = np.append(((gap > 0) + 0.5 * (gap == 0)).mean(axis=0), np.nan)
    return table.rename_axis("entry")


def _drawn_overall(cards, baseline: ScoreCard, n_boot: int, rng: np.random.Generator) -> np.ndarray:
    """Overall score of each entry in each bootstrap sample, ``(n_boot, n_entries)``."""
    names = baseline.per_perturbation.index
    rows = rng.integers(len(names), size=(n_boot, len(names)))
    shares, (best, limits) = [], baseline.scale
    measured_once = best is not metrics.BEST  # both ends of a scale up to a replicate are given
    for metric in limits:
        of = {name: card.counted.loc[names, metric] for name, card in cards.items()}
        mean = np.stack([_means(of[name].to_numpy()[rows]) for name in cards], axis=1)
        base = _means(baseline.counted[metric].to_numpy()[rows])[:, None]
        zero = baseline.summary[metric] if measured_once else base
        share = metrics.scaled(mean, zero, best[metric], limits[metric])
        shares.append(np.where(np.isnan(base), np.nan, share))  # nothing drawn has that metric
    return 100 * np.nanmean(shares, axis=0)


def _means(samples: np.ndarray) -> np.ndarray:
    """Mean of each row over the values that there are."""
    n = (~np.isnan(samples)).sum(axis=1)
    return np.divide(np.nansum(samples, axis=1), n, out=np.full(len(n), np.nan), where=n > 0)


def _loss(means: pd.DataFrame) -> pd.DataFrame:
    """Turn every metric so that less is better."""
    return means * [1 if metrics.BEST[name] == 0 else -1 for name in means]


def _places(loss: pd.Series) -> pd.Series:
    return loss.rank(method="min").astype(int)


def _check(cards: Mapping[str, ScoreCard], baseline: ScoreCard) -> None:
    if not cards:
        raise ValueError("no entry: expected at least one score card")
    for name, card in cards.items():
        mine, theirs = card.per_perturbation, baseline.per_perturbation
        same = set(mine.index) == set(theirs.index) and list(mine) == list(theirs)
        if card.preset != baseline.preset or not same:
            raise ValueError(
                f"entry {name!r} is of preset {card.preset!r} with {len(mine)} perturbations and "
                f"metrics {', '.join(mine)}; the baseline of {baseline.preset!r} with "
                f"{len(theirs)} and {', '.join(theirs)}: score all against the same truth"
            )
