"""A leaderboard as a page: ranks and their doubt in one table, names of entries as plain text.

Taught in: notebooks/21_run_your_own_leaderboard.

>>> print(page("<p>no entry yet</p>", title="Leaderboard").splitlines()[0])
<!doctype html>
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import metrics
from ..scoring.card import ScoreCard
from .ranking import _LEVEL, _loss, doubt, rank

_HERE = Path(__file__)
_STYLE = _HERE.with_name("board.css").read_text(encoding="utf-8").strip()
#: The only script of the page: its policy names it by its hash. Without it the board is complete.
_SCRIPT = _HERE.with_name("board.js").read_text(encoding="utf-8").strip()


def board(
    cards: Mapping[str, ScoreCard],
    baseline: ScoreCard,
    *,
    title: str = "Leaderboard",
    not_scored: Mapping[str, str] | None = None,
) -> str:
    """Write :func:`~.classroom.rank` and :func:`~.classroom.doubt` as HTML, in one table.

    It is a fragment with its own style, for a notebook or a page, with nothing to load. A script
    sorts it by the column whose head is clicked; all else works without scripts. More than three
    metrics are behind a switch, and on a phone each entry is a card. Without any card it says so.
    `title` is the caption of the table; `not_scored` the name of each submission that has no score,
    and why, which are listed below. Names and reasons are untrusted and appear as text, never as
    markup.

    Under an entry whose lead over the next is not clear (beats next below 0.975) the line is
    dotted, and the column *ahead of the next* says *not clear*. Colours are the surrounding page's,
    so the table follows its light or dark scheme.
    """
    parts = [f"<style>{_STYLE}</style>", '<div class="vcc-board">']
    if cards:
        names = list(baseline.per_perturbation)
        contexts = list(baseline.contexts)
        heads = _heads(names, contexts)
        rows = _rows(rank(cards, baseline), doubt(cards, baseline), baseline, heads)
        parts += _table(rows, baseline, heads, title)
        parts.append(
            f"<p>Intervals hold {100 * _LEVEL:.0f} % of the results when the "
            f"{len(baseline.per_perturbation)} perturbations are drawn anew, with replacement"
            f"{', those of each context by themselves' if baseline.contexts else ''}. "
            "The grey tick is the official baseline. <em>Not clear</em>, with a dotted line: this "
            "place and the next may be one. ▼: here the entry is worse than the baseline.</p>"
            f"<script>{_SCRIPT}</script>"
        )
    else:
        parts.append(f"<p>{_text(title)}: no entry has a score yet.</p>")
    if not_scored:
        told = (f"{_text(name)}: not scored: {_text(why)}" for name, why in not_scored.items())
        items = "".join(f"<li>{one}</li>" for one in told)
        parts += ["<p><strong>Not scored</strong></p>", f"<ul>{items}</ul>"]
    return "\n".join([*parts, "</div>"])


class _Head(NamedTuple):
    """A column: its name, a note, what is better, and whether it is a metric."""

    name: str
    note: str = ""
    best: str = "more"
    kind: str = ""


def _heads(names: list[str], contexts: list[str]) -> list[_Head]:
    better = {name: "less" if metrics.BEST[name] == 0 else "more" for name in names}
    return [
        _Head("place", "its interval", "less"),
        _Head("entry", best="less"),
        _Head("overall", "its interval"),
        *(_Head(f"overall of {name}", "context") for name in contexts),
        _Head("ahead of the next", "in repeats"),
        _Head("mean rank", "less is better", "less"),
        *(_Head(name, f"{better[name]} is better", better[name], "metric") for name in names),
    ]


def _rows(ranked, doubts, baseline: ScoreCard, heads: list[_Head]) -> list[str]:
    """Return one table row per entry."""
    names, contexts = list(baseline.per_perturbation), list(baseline.contexts)
    ranks = _loss(ranked[names]).rank(method="min", na_option="bottom").astype(int)
    zero = baseline.overall(baseline)
    ends = min(zero, doubts["low"].min()), max(zero, doubts["high"].max())
    rows = []
    for entry, row in ranked.iterrows():
        found = doubts.loc[entry]
        lead, best, worst = found["beats next"], int(found["best place"]), int(found["worst place"])
        worse = [name for name in row["below baseline"].split(", ") if name]
        kind = "clear" if not lead < (1 + _LEVEL) / 2 else "not clear"
        overall = f"{row['overall']:.1f}", f"{found['low']:.1f} to {found['high']:.1f}"
        values = [
            (row["place"], f"{best} to {worst}" if best < worst else f"{best} only"),
            (*overall, _bar(zero, found["low"], row["overall"], found["high"], ends)),
            *((f"{row[f'overall of {name}']:.1f}",) for name in contexts),
            ("last",) if np.isnan(lead) else (kind, f"{int(100 * lead)} %"),
            (f"{row['mean rank']:.2f}",),
        ]
        for name in names:
            place = f"rank {ranks.loc[entry, name]}{' ▼' if name in worse else ''}"
            values.append((_number(row[name]), place))
        cells = [_cell(head, *value) for head, value in zip(_no_entry(heads), values, strict=True)]
        cells.insert(1, _entry(entry, len(worse)))
        rows.append(f'<tr class="{kind.replace(" ", "-")}">{"".join(cells)}</tr>')
    return rows


def _bar(zero: float, low: float, value: float, high: float, ends: tuple[float, float]) -> str:
    """Draw an interval on the scale that all entries share, 100 pixels wide."""
    span = (ends[1] - ends[0]) or 1.0
    zero, low, value, high = (f"{100 * (x - ends[0]) / span:.1f}" for x in (zero, low, value, high))
    return (
        '<svg width="100" height="8" aria-hidden="true">'
        f'<path d="M{zero} 0v8"/><path d="M{low} 4H{high}"/><circle cx="{value}" cy="4" r="2.5"/>'
        "</svg>"
    )


def _no_entry(heads: list[_Head]) -> list[_Head]:
    return [head for head in heads if head.name != "entry"]


def _table(rows: list[str], baseline: ScoreCard, heads: list[_Head], title: str) -> list[str]:
    def written(head: _Head) -> str:
        words = _text(head.name).replace("_", "_<wbr>")
        kind = f' class="{head.kind}"' if head.kind else ""
        small = f"<small>{_text(head.note)}</small>"
        return f'<th scope="col"{kind} data-best="{head.best}">{words}{small}</th>'

    own = {"overall": f"{baseline.overall(baseline):.1f}"}
    own |= {name: _number(value) for name, value in baseline.summary.items()}
    cells = [_cell(head, own.get(head.name, "")) for head in _no_entry(heads)]
    cells.insert(1, '<th scope="row">the official baseline</th>')
    chosen = " checked" if len(baseline.summary) <= 3 else ""
    return [
        f'<label><input type="checkbox"{chosen}> Show every metric</label>',
        f'<div class="scroll" role="region" aria-label="{_text(title)}" tabindex="0"><table>',
        f"<caption>{_text(title)}</caption>",
        f"<thead><tr>{''.join(map(written, heads))}</tr></thead>",
        f"<tbody>{''.join(rows)}</tbody>",
        f"<tfoot><tr>{''.join(cells)}</tr></tfoot></table></div>",
    ]


def _entry(name: object, n_worse: int) -> str:
    several = "" if n_worse == 1 else "s"
    flag = f"<small>▼ worse than the baseline on {n_worse} metric{several}</small>"
    return f'<th scope="row">{_text(name)}{flag if n_worse else ""}</th>'


def _cell(head: _Head, value: object, small: str = "", drawing: str = "") -> str:
    small = f"<small>{_text(small)}</small>" if small else ""
    kind = f' class="{head.kind}"' if head.kind else ""
    return f'<td{kind} data-name="{_text(head.name)}">{_text(value)}{small}{drawing}</td>'


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


def _text(value: object) -> str:
    # what cannot be printed could turn the direction of a line, or break it
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return escape(shown, quote=True)


def page(fragment: str, *, title: str) -> str:
    """Return a whole HTML page around a board; it follows the reader's light or dark scheme."""
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # nothing else on this page may run or load, whatever is in a team's name
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}'\">\n"
        f"<title>{escape(title)}</title>\n<style>:root{{color-scheme:light dark}}"
        "body{font:1rem/1.5 system-ui,sans-serif;margin:1rem;background:Canvas;color:CanvasText}"
        f"</style>\n</head>\n<body>\n<main>\n{fragment}\n</main>\n</body>\n</html>\n"
    )
