"""Figures that a reader moves: a slider through computed results, and a prediction among effects.

Each is a piece of HTML that a notebook shows and a page keeps. Its script loads nothing and sends
nothing; without scripts a still figure remains.

Taught in: notebooks/16_gains_between_contexts, notebooks/17_metrics_by_hand and
notebooks/20_measure_what_metrics_reward.

>>> scores = pd.DataFrame({"PDS": [0.5, 0.7], "MAE": [0.02, 0.05]}, pd.Index([1, 2], name="factor"))
>>> curves(scores, at=2)
A figure to explore: PDS, MAE over factor 1 to 2; at 2: PDS 0.7, MAE 0.05
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from ..metrics import pds

_HERE = Path(__file__)
_STYLE = _HERE.with_name("explore.css").read_text(encoding="utf-8").strip()
_SCRIPT = _HERE.with_name("explore.js").read_text(encoding="utf-8").strip()
#: Of a panel, in pixels: its size, and what is left free at the left, top, right and bottom.
_SIZE, _FREE = (300, 150), (46, 10, 12, 22)


@dataclass(frozen=True)
class _Figure:
    words: str
    html: str

    def __repr__(self) -> str:
        return self.words

    def _repr_html_(self) -> str:
        return f"<style>{_STYLE}</style>{self.html}<script>{_SCRIPT}</script>"


def curves(table: pd.DataFrame, *, at: object) -> _Figure:
    """Draw results against a setting; a slider moves through the settings and tells the values.

    Parameters
    ----------
    table
        A row per setting, in order; its index is named after the setting. Each column is a panel.
        With two levels of columns the first is the panel, the second a curve in it, which the
        reader can switch off.
    at
        The setting that is shown first, of the index; another is a KeyError.
    """
    start, name = table.index.get_loc(at), str(table.index.name)
    columns = [(c if isinstance(c, tuple) else (c, "")) for c in table.columns]
    panels = list(dict.fromkeys(panel for panel, _ in columns))
    kinds = list(dict.fromkeys(kind for _, kind in columns))
    x = np.linspace(_FREE[0], _SIZE[0] - _FREE[2], len(table))
    ticks = [f"{value:g}" if np.isreal(value) else str(value) for value in table.index]
    drawn, shown = [], []
    for panel in panels:
        values = table.loc[:, [c == panel for c, _ in columns]].to_numpy(np.float64)
        low, high = np.nanmin(values), np.nanmax(values)
        y = _FREE[1] + (high - values) / ((high - low) or 1) * (_SIZE[1] - _FREE[1] - _FREE[3])
        parts, told = [], []
        for kind, heights, numbers in zip(
            [kind for c, kind in columns if c == panel], y.T, values.T, strict=True
        ):
            there = ~np.isnan(heights)  # a value that is missing has no point
            points = " ".join(
                f"{a:.1f},{b:.1f}" for a, b in zip(x[there], heights[there], strict=True)
            )
            heights = np.where(there, heights.round(1), -20)
            data = [*zip(x.round(1), heights, map(_told, numbers), strict=True)]
            data = escape(json.dumps(data))
            look = f'class="series c{kinds.index(kind)}" data-kind="{escape(kind)}"'
            parts.append(
                f'<g {look} data-points="{data}"><polyline points="{points}"/>'
                f'<circle cx="{x[start]:.1f}" cy="{heights[start]:.1f}" r="4"/></g>'
            )
            value = f"<output>{_told(numbers[start])}</output>"
            told.append(f"<span {look}>{escape(kind)} {value}</span>")
        shown.append(f"{panel} {', '.join(_told(v) for v in values[start])}")
        right, bottom = _SIZE[0] - _FREE[2], _SIZE[1] - 6
        drawn.append(
            f'<div class="panel"><p><b>{escape(panel)}</b> {" ".join(told)}</p>'
            f'<svg viewBox="0 0 {_SIZE[0]} {_SIZE[1]}" aria-hidden="true">'
            f'<line class="at" x1="{x[start]:.1f}" x2="{x[start]:.1f}" y1="0" y2="{bottom - 14}"/>'
            f'{"".join(parts)}<text x="40" y="14">{_told(high)}</text>'
            f'<text x="40" y="{bottom - 12}">{_told(low)}</text>'
            f'<text class="left" x="{x[0]:.1f}" y="{bottom}">{escape(ticks[0])}</text>'
            f'<text x="{right}" y="{bottom}">{escape(ticks[-1])}</text></svg></div>'
        )
    words = f"{', '.join(panels)} over {name} {ticks[0]} to {ticks[-1]}; at {ticks[start]}: "
    words += ", ".join(shown)
    kept = escape(json.dumps({"name": name, "ticks": ticks, "at": int(start), "kinds": kinds}))
    html = f'<figure class="vcc-explore" data-curves="{kept}">'
    html += f'<div class="panels">{"".join(drawn)}</div><figcaption>{escape(name)}: '
    html += f"<output>{escape(ticks[start])}</output></figcaption></figure>"
    return _Figure(f"A figure to explore: {words}", html)


def prediction(effects: pd.DataFrame, target: str, at: tuple[float, float]) -> _Figure:
    """Draw a prediction for one target among real effects; the reader moves it and watches PDS.

    `effects` has a row per target and a column for each of two genes, neither of them a target. The
    distance is L1, in these two genes; the rank and the PDS of `target` follow from it, as in
    :func:`vcc_helpers.metrics.pds`. The prediction begins `at` these two effects.
    """
    real = effects.to_numpy(np.float64)
    reach = 1.15 * np.abs(np.vstack([real, at])).max()
    names, (across, up) = list(map(str, effects.index)), map(str, effects.columns)
    mine = names.index(target)
    given = np.repeat(np.array(at, dtype=np.float64)[None], len(names), axis=0)
    none = np.full(len(names), -1)
    score = float(pds(given, real, none)[mine])
    distance = np.abs(real - np.array(at)).sum(axis=1)

    def place(effect: np.ndarray) -> tuple[float, float]:
        return 150 + 150 * effect[0] / reach, 150 - 150 * effect[1] / reach

    points, taken = [], []
    for name, effect in zip(names, real, strict=True):
        (a, b), own = place(effect), " own" if name == target else ""
        low = b + 4  # of the name, which goes below others that are there
        while any(abs(a - x) < 50 and abs(low - y) < 11 for x, y in taken):
            low += 11
        taken.append((a, low))
        points.append(
            f'<g class="real{own}"><circle cx="{a:.1f}" cy="{b:.1f}" r="4"/>'
            f'<text class="left" x="{a + 6:.1f}" y="{low:.1f}">{escape(name)}</text></g>'
        )
    a, b = place(np.array(at))
    order = np.argsort(distance, kind="stable")
    rows = "".join(
        f'<tr><th scope="row">{escape(names[i])}</th><td>{distance[i]:.3f}</td></tr>' for i in order
    )
    kept = {"names": names, "real": real.round(6).tolist(), "own": mine, "reach": float(reach)}
    kept |= {"at": [float(v) for v in at]}
    html = (
        f'<figure class="vcc-explore" data-prediction="{escape(json.dumps(kept))}"><div '
        f'class="panels"><div class="panel"><svg viewBox="0 0 300 300" role="img" aria-label='
        f'"Effects on {escape(across)} and {escape(up)}">'
        '<path class="axes" d="M0 150H300M150 0V300"/>'
        f'{"".join(points)}<path class="pred" d="M{a:.1f} {b:.1f}m-6 0h12m-6 -6v12"/>'
        f'<text x="296" y="145">{escape(across)}</text>'
        f'<text class="left" x="154" y="12">{escape(up)}</text></svg></div><table><thead><tr>'
        '<th scope="col">target</th><th scope="col">distance</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div><figcaption>PDS of {escape(target)}: "
        f"<output>{score:.3f}</output></figcaption></figure>"
    )
    return _Figure(f"A figure to explore: a prediction for {target}, PDS {score:.3f}", html)


def _told(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3g}"
