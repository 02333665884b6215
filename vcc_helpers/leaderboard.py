"""A leaderboard of one's own: score cards ranked per metric, overall, with their doubt, as a page.

Taught in: notebooks/13_choose_and_compare_models and notebooks/16_run_your_own_leaderboard.
Needs: metrics.py, scoring.py and what these need.

>>> import vcc_helpers as vcc
>>> half, other = vcc.scoring.split_half(vcc.datasets.load_h1_sample())
>>> baseline = vcc.score(vcc.scoring.official_baseline(half), other)
>>> board = rank({"repeat": vcc.score(half, other), "mean": baseline}, baseline)
>>> board[["place", "below baseline"]].to_dict(orient="list")
{'place': [1, 2], 'below baseline': ['mae', '']}
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np
import pandas as pd
from scipy import stats

from . import metrics
from .scoring import ScoreCard


def rank(cards: Mapping[str, ScoreCard], baseline: ScoreCard) -> pd.DataFrame:
    """Rank entries that were scored against the same truth.

    Parameters
    ----------
    cards
        Name of each entry, and its score card, all of one preset.
    baseline
        The card of the official mean baseline against that truth.

    Returns
    -------
    DataFrame
        Index entry, best overall score first; columns

        - *place*: by overall score; equal scores share the better place;
        - *overall*: 0 to 100;
        - one a metric: its mean over perturbations;
        - *mean rank*: over all metrics, equal values sharing their mean rank; the Generalist's
          criterion where the cards have the seven metrics. Less is better, 1 is best;
        - *below baseline*: metrics on which the entry is worse than the baseline, a text;
        - *qualified place*: by overall score among those that are below on none; NaN for others.

    Raises
    ------
    ValueError
        There is no entry, or a card is of another preset, other perturbations or other metrics
        than the baseline's.

    Notes
    -----
    A value that does not exist counts as the worst of its metric. For thresholds the paper of the
    challenge (Roohani et al., Cell 2025) names a minimum on every metric; the baseline's own value
    is taken here.

    Taught in: notebooks/13_choose_and_compare_models.
    """
    _check(cards, baseline)
    means = pd.DataFrame({name: card.summary for name, card in cards.items()}).T
    overall = pd.Series({name: card.overall(baseline) for name, card in cards.items()})
    worse = _loss(means).gt(_loss(baseline.summary.to_frame().T).iloc[0]) | means.isna()
    board = means.assign(overall=overall, place=_places(-overall))
    board["mean rank"] = _loss(means).rank(na_option="bottom").mean(axis=1)
    board["below baseline"] = [", ".join(row.index[row]) for _, row in worse.iterrows()]
    board["qualified place"] = _places(-overall[~worse.any(axis=1)])
    last = ["mean rank", "below baseline", "qualified place"]
    order = ["place", "overall", *means.columns, *last]
    return board[order].sort_values("place", kind="stable").rename_axis("entry")


def doubt(
    cards: Mapping[str, ScoreCard],
    baseline: ScoreCard,
    *,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Say which places of a leaderboard are really different.

    Parameters
    ----------
    cards, baseline
        As for :func:`rank`.
    level
        Share of repetitions of the contest, with other perturbations, in which such an interval
        should hold the score.
    n_boot
        Number of bootstrap samples.
    seed
        Seed of the bootstrap.

    Returns
    -------
    DataFrame
        Index entry, best overall score first; columns overall, low, high (its bootstrap interval),
        best place, worst place (the interval of its place), and *beats next*: the share of samples
        in which it has a higher overall score than the entry below it, ties counting half; NaN for
        the last. Near 0.5 nobody knows who is better; above 0.975 the order is sure by the usual
        rule.

    Raises
    ------
    ValueError
        As for :func:`rank`; or `level` is no share between 0 and 1.

    Notes
    -----
    Perturbations are drawn with replacement, the same ones for all entries and the baseline: what
    makes a perturbation hard for everybody drops out of the comparison. The DES of a perturbation
    depends on the others of its file through the pooled false discovery rate, and PDS is a rank
    among them; both are taken as they are. The squared error of 2026 is one number of the whole
    panel, so its doubt is not in the intervals; and the two ends of its scale, baseline and
    replicate, are taken as given, as that contest gives them.

    Taught in: notebooks/13_choose_and_compare_models.
    """
    _check(cards, baseline)
    if not 0 < level < 1:
        raise ValueError(f"level={level}; expected a share between 0 and 1, such as 0.95")
    overall = pd.Series({name: card.overall(baseline) for name, card in cards.items()})
    order = overall.sort_values(ascending=False, kind="stable").index
    drawn = _drawn_overall({name: cards[name] for name in order}, baseline, n_boot, seed)
    places = stats.rankdata(-drawn, method="min", axis=1)
    ends = [(1 - level) / 2, (1 + level) / 2]
    table = pd.DataFrame({"overall": overall[order]})
    table["low"], table["high"] = np.quantile(drawn, ends, axis=0)
    best, worst = np.quantile(places, ends, axis=0, method="nearest").astype(int)
    table["best place"], table["worst place"] = best, worst
    gap = drawn[:, :-1] - drawn[:, 1:]
    table["beats next"] = np.append(((gap > 0) + 0.5 * (gap == 0)).mean(axis=0), np.nan)
    return table.rename_axis("entry")


def board(
    cards: Mapping[str, ScoreCard],
    baseline: ScoreCard,
    *,
    title: str = "Leaderboard",
    not_scored: Mapping[str, str] | None = None,
    level: float = 0.95,
    n_boot: int = 2000,
    seed: int = 0,
) -> str:
    """Write a leaderboard as HTML: :func:`rank` and :func:`doubt` in one table.

    Parameters
    ----------
    cards, baseline
        As for :func:`rank`; without any card the page says so.
    title
        Caption of the table.
    not_scored
        Name of each submission that has no score, and why; listed below the table.
    level, n_boot, seed
        As for :func:`doubt`.

    Returns
    -------
    str
        A fragment of HTML with its own style, for a notebook or a page. It has no scripts and
        loads nothing. Names and reasons are untrusted and appear as text, never as markup.

    Raises
    ------
    ValueError
        As for :func:`rank` and :func:`doubt`.

    Notes
    -----
    Below an entry whose lead over the next is not sure (beats next below ``(1 + level) / 2``) the
    line is dotted, and the column *ahead of the next* says *open*. Colours are the
    surrounding page's, so the table follows its light or dark scheme.

    Taught in: notebooks/16_run_your_own_leaderboard.
    """
    parts = [f"<style>{STYLE}</style>", '<div class="vcc-board">']
    if cards:
        ranked = rank(cards, baseline)
        doubts = doubt(cards, baseline, level=level, n_boot=n_boot, seed=seed)
        names = list(baseline.per_perturbation)
        rows = _rows(ranked, doubts.loc[ranked.index], names, (1 + level) / 2)
        parts += _table(rows, _baseline_row(baseline), names, title)
        parts.append(_how_to_read(len(baseline.per_perturbation), level))
    else:
        parts.append(f"<p>{_text(title)}: no entry has a score yet.</p>")
    parts += _not_scored(not_scored or {})
    return "\n".join([*parts, "</div>"])


# Grey lines on the surrounding page's own colours, readable on light and on dark.
STYLE = """
.vcc-board{color:inherit;line-height:1.4}
.vcc-board .scroll{overflow-x:auto;max-width:100%;margin-bottom:.6rem}
.vcc-board table{border-collapse:collapse;font-size:.9rem;margin:0;background:transparent;
 font-variant-numeric:tabular-nums}
.vcc-board caption{caption-side:top;text-align:left;font-weight:600;font-size:1.1rem;
 padding:.3rem 0;color:inherit}
.vcc-board :is(td,th){padding:.35rem .6rem;text-align:right;vertical-align:top;white-space:nowrap;
 color:inherit;background:transparent;border:0}
.vcc-board :is(th[scope=row],th:nth-child(2)){text-align:left}
.vcc-board th[scope=row]{white-space:normal;min-width:8rem;max-width:16rem;overflow-wrap:anywhere}
.vcc-board thead th{vertical-align:bottom;white-space:normal;border-bottom:2px solid #808080}
.vcc-board tbody tr{border-bottom:1px solid #808080}
.vcc-board tbody tr.open{border-bottom:2px dotted #808080}
.vcc-board tbody tr:last-child{border-bottom:2px solid #808080}
.vcc-board small{display:block;font-size:.8em;font-weight:400}
.vcc-board :is(p,li){font-size:.9rem;max-width:46rem;overflow-wrap:anywhere}
""".strip()


def _rows(ranked, doubts, names: list[str], sure: float) -> list[str]:
    """Return one table row an entry."""
    ranks = _loss(ranked[names]).rank(method="min", na_option="bottom").astype(int)
    rows = []
    for entry, row in ranked.iterrows():
        ends, lead = doubts.loc[entry], doubts.loc[entry, "beats next"]
        below = [name for name in row["below baseline"].split(", ") if name]
        best, worst = int(ends["best place"]), int(ends["worst place"])
        cells = [
            _cell(row["place"], f"{best} to {worst}" if best < worst else f"{best} only"),
            _entry(entry, len(below)),
            _cell(f"{row['overall']:.1f}", f"{ends['low']:.1f} to {ends['high']:.1f}"),
            _lead(lead, sure),
            _cell(f"{row['mean rank']:.2f}"),
        ]
        for name in names:
            place = f"rank {ranks.loc[entry, name]}{' ▼' if name in below else ''}"
            cells.append(_cell(_number(row[name]), place))
        kind = "open" if lead < sure else "sure"
        rows.append(f'<tr class="{kind}">{"".join(cells)}</tr>')
    return rows


def _table(rows: list[str], foot: str, names: list[str], title: str) -> list[str]:
    def head(words: str, small: str = "") -> str:
        words = _text(words).replace("_", "_<wbr>")
        return f'<th scope="col">{words}<small>{small}</small></th>'

    heads = [
        head("place", "its interval"),
        head("entry"),
        head("overall", "its interval"),
        head("ahead of the next", "in repeats"),
        head("mean rank", "less is better"),
        *(head(n, f"{'less' if metrics.BEST[n] == 0 else 'more'} is better") for n in names),
    ]
    return [
        f'<div class="scroll" role="region" aria-label="{_text(title)}" tabindex="0"><table>',
        f"<caption>{_text(title)}</caption>",
        f"<thead><tr>{''.join(heads)}</tr></thead>",
        f"<tbody>{''.join(rows)}</tbody>",
        f"<tfoot>{foot}</tfoot></table></div>",
    ]


def _baseline_row(baseline: ScoreCard) -> str:
    values = "".join(_cell(_number(value)) for value in baseline.summary)
    name = '<th scope="row">the mean baseline</th>'
    own = _cell(f"{baseline.overall(baseline):.1f}")
    return f"<tr>{_cell('')}{name}{own}{_cell('') * 2}{values}</tr>"


def _entry(name: object, n_below: int) -> str:
    several = "" if n_below == 1 else "s"
    flag = f"<small>▼ below the baseline on {n_below} metric{several}</small>" if n_below else ""
    return f'<th scope="row">{_text(name)}{flag}</th>'


def _lead(lead: float, sure: float) -> str:
    if np.isnan(lead):
        return _cell("last")
    return _cell("sure" if lead >= sure else "open", f"{int(100 * lead)} %")


def _how_to_read(n: int, level: float) -> str:
    return (
        f"<p>Intervals hold {100 * level:.0f} % of the results when the {n} perturbations are "
        "drawn anew, with replacement. <em>Open</em>, and a dotted line below: these two places "
        "are not really different. ▼: here the entry is worse than the mean baseline.</p>"
    )


def _not_scored(why: Mapping[str, str]) -> list[str]:
    if not why:
        return []
    items = [f"<li>{_text(name)}: not scored: {_text(reason)}</li>" for name, reason in why.items()]
    return ["<p><strong>Not scored</strong></p>", f"<ul>{''.join(items)}</ul>"]


def _cell(value: object, small: str = "") -> str:
    return f"<td>{_text(value)}{f'<small>{_text(small)}</small>' if small else ''}</td>"


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


def _text(value: object) -> str:
    # what cannot be printed could turn the direction of a line, or break it
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return escape(shown, quote=True)


def _drawn_overall(cards, baseline: ScoreCard, n_boot: int, seed: int) -> np.ndarray:
    """Overall score of each entry in each bootstrap sample, ``(n_boot, n_entries)``."""
    names = baseline.per_perturbation.index
    rows = np.random.default_rng(seed).integers(len(names), size=(n_boot, len(names)))
    shares, (best, limits) = [], baseline.scale
    measured_once = best is not metrics.BEST  # both ends of a scale up to a replicate are given
    for metric in limits:
        of = {name: card.per_perturbation.loc[names, metric] for name, card in cards.items()}
        mean = np.stack([_means(of[name].to_numpy()[rows]) for name in cards], axis=1)
        base = _means(baseline.per_perturbation[metric].to_numpy()[rows])[:, None]
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
