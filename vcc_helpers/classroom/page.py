"""A leaderboard as a page: ranks and their doubt in one table, names of entries as plain text.

Taught in: notebooks/21_run_your_own_leaderboard.

>>> print(page("<p>no entry yet</p>", title="Leaderboard").splitlines()[0])
<!doctype html>
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

import numpy as np

from .. import metrics
from ..scoring.card import ScoreCard
from .ranking import _LEVEL, _loss, doubt, rank

# Grey lines on the surrounding page's own colours, readable on light and on dark.
_STYLE = """
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
.vcc-board tbody tr.not-clear{border-bottom:2px dotted #808080}
.vcc-board tbody tr:last-child{border-bottom:2px solid #808080}
.vcc-board small{display:block;font-size:.8em;font-weight:400}
.vcc-board :is(p,li){font-size:.9rem;max-width:46rem;overflow-wrap:anywhere}
""".strip()


def board(
    cards: Mapping[str, ScoreCard],
    baseline: ScoreCard,
    *,
    title: str = "Leaderboard",
    not_scored: Mapping[str, str] | None = None,
) -> str:
    """Write :func:`~.classroom.rank` and :func:`~.classroom.doubt` as HTML, in one table.

    It is a fragment with its own style, for a notebook or a page: no scripts, and nothing to load.
    Without any card it says so. `title` is the caption of the table; `not_scored` the name of each
    submission that has no score, and why, which are listed below. Names and reasons are untrusted
    and appear as text, never as markup.

    Under an entry whose lead over the next is not clear (beats next below 0.975) the line is
    dotted, and the column *ahead of the next* says *not clear*. Colours are the surrounding page's,
    so the table follows its light or dark scheme.
    """
    parts = [f"<style>{_STYLE}</style>", '<div class="vcc-board">']
    if cards:
        names = list(baseline.per_perturbation)
        contexts = list(baseline.contexts)
        rows = _rows(rank(cards, baseline), doubt(cards, baseline), names, contexts)
        parts += _table(rows, baseline, names, title)
        parts.append(
            f"<p>Intervals hold {100 * _LEVEL:.0f} % of the results when the "
            f"{len(baseline.per_perturbation)} perturbations are drawn anew, with replacement"
            f"{', those of each context by themselves' if baseline.contexts else ''}. "
            "<em>Not clear</em>, with a dotted line: this place and the next may be one. "
            "▼: here the entry is worse than the official baseline.</p>"
        )
    else:
        parts.append(f"<p>{_text(title)}: no entry has a score yet.</p>")
    if not_scored:
        told = (f"{_text(name)}: not scored: {_text(why)}" for name, why in not_scored.items())
        items = "".join(f"<li>{one}</li>" for one in told)
        parts += ["<p><strong>Not scored</strong></p>", f"<ul>{items}</ul>"]
    return "\n".join([*parts, "</div>"])


def _rows(ranked, doubts, names: list[str], contexts: list[str]) -> list[str]:
    """Return one table row per entry."""
    ranks = _loss(ranked[names]).rank(method="min", na_option="bottom").astype(int)
    rows = []
    for entry, row in ranked.iterrows():
        ends = doubts.loc[entry]
        lead, best, worst = ends["beats next"], int(ends["best place"]), int(ends["worst place"])
        below = [name for name in row["below baseline"].split(", ") if name]
        kind = "clear" if not lead < (1 + _LEVEL) / 2 else "not clear"
        cells = [
            _cell(row["place"], f"{best} to {worst}" if best < worst else f"{best} only"),
            _entry(entry, len(below)),
            _cell(f"{row['overall']:.1f}", f"{ends['low']:.1f} to {ends['high']:.1f}"),
            *(_cell(f"{row[f'overall of {name}']:.1f}") for name in contexts),
            _cell("last") if np.isnan(lead) else _cell(kind, f"{int(100 * lead)} %"),
            _cell(f"{row['mean rank']:.2f}"),
        ]
        for name in names:
            place = f"rank {ranks.loc[entry, name]}{' ▼' if name in below else ''}"
            cells.append(_cell(_number(row[name]), place))
        rows.append(f'<tr class="{kind.replace(" ", "-")}">{"".join(cells)}</tr>')
    return rows


def _table(rows: list[str], baseline: ScoreCard, names: list[str], title: str) -> list[str]:
    def head(words: str, small: str = "") -> str:
        words = _text(words).replace("_", "_<wbr>")
        return f'<th scope="col">{words}<small>{small}</small></th>'

    heads = [
        head("place", "its interval"),
        head("entry"),
        head("overall", "its interval"),
        *(head(f"overall of {name}", "context") for name in baseline.contexts),
        head("ahead of the next", "in repeats"),
        head("mean rank", "less is better"),
        *(head(n, f"{'less' if metrics.BEST[n] == 0 else 'more'} is better") for n in names),
    ]
    own = _cell(f"{baseline.overall(baseline):.1f}") + (2 + len(baseline.contexts)) * _cell("")
    values = "".join(_cell(_number(value)) for value in baseline.summary)
    foot = f'<tr>{_cell("")}<th scope="row">the official baseline</th>{own}{values}</tr>'
    return [
        f'<div class="scroll" role="region" aria-label="{_text(title)}" tabindex="0"><table>',
        f"<caption>{_text(title)}</caption>",
        f"<thead><tr>{''.join(heads)}</tr></thead>",
        f"<tbody>{''.join(rows)}</tbody>",
        f"<tfoot>{foot}</tfoot></table></div>",
    ]


def _entry(name: object, n_below: int) -> str:
    on = f"{n_below} metric{'' if n_below == 1 else 's'}"
    flag = f"<small>▼ worse than the baseline on {on}</small>" if n_below else ""
    return f'<th scope="row">{_text(name)}{flag}</th>'


def _cell(value: object, small: str = "") -> str:
    return f"<td>{_text(value)}{f'<small>{_text(small)}</small>' if small else ''}</td>"


def _number(value: float) -> str:
    return "none" if np.isnan(value) else f"{value:.3f}"


def _text(value: object) -> str:
    # what cannot be printed could turn the direction of a line, or break it
    shown = "".join(c if c.isprintable() else "\ufffd" for c in str(value))
    return escape(shown, quote=True)


def page(fragment: str, *, title: str) -> str:
    """Return a whole HTML page around a board; it follows the reader's light or dark scheme."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # nothing on this page may run or load, whatever stands in a team's name
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>:root{{color-scheme:light dark}}"
        "body{font:1rem/1.5 system-ui,sans-serif;margin:1rem;background:Canvas;color:CanvasText}"
        f"</style>\n</head>\n<body>\n<main>\n{fragment}\n</main>\n</body>\n</html>\n"
    )
