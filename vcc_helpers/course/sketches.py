"""Drawings of ideas; the numbers in them are made up.

Each is drawn on new axes, which are returned.

Taught in: notebooks/01_load_h1_cells, notebooks/02_measure_effects,
notebooks/05_compute_the_metrics and notebooks/16_gains_between_contexts.

>>> ax = few_shot_split()
>>> ax.get_title()
'What is known, and what is to be predicted'
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import FancyArrowPatch, Rectangle

from ..plot import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY

_PALE = "#E8E8E8"


def _sheet(width: float, height: float, title: str) -> Axes:
    """Return axes without an axis, one unit a tenth of an inch."""
    ax = plt.subplots(figsize=(width / 10, height / 10), layout="constrained")[1]
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.set_axis_off()
    ax.set_title(title)
    return ax


def _ink() -> str:
    """Return the colour of text: dark on a light ground, light on a dark one."""
    return plt.rcParams["text.color"]


def _box(ax: Axes, x: float, y: float, w: float, h: float, colour: str, text: str = "", **kw):
    look = {"facecolor": colour, "edgecolor": ax.get_facecolor(), "linewidth": 1.2}
    ax.add_patch(Rectangle((x, y), w, h, **look))
    if text:
        dark = np.dot(to_rgb(colour), (0.3, 0.6, 0.1)) < 0.4  # what the eye takes for brightness
        look = {"color": "white" if dark else "black", "fontsize": 9}
        ax.text(x + w / 2, y + h / 2, text, ha="center", va="center", **look | kw)


def _arrow(ax: Axes, begin: tuple[float, float], end: tuple[float, float], colour: str = ""):
    look = {"arrowstyle": "-|>", "mutation_scale": 12, "color": colour or _ink(), "linewidth": 1.2}
    ax.add_patch(FancyArrowPatch(begin, end, shrinkA=0, shrinkB=0, **look))


def _heat(ax: Axes, x: float, y: float, effects: np.ndarray, size: float = 1.7):
    """Draw effects as a heat map with its upper left corner at x, y; orange is up, purple down."""
    for row, values in enumerate(effects):
        for column, value in enumerate(values):
            shade = plt.cm.PuOr_r(0.5 + 0.5 * value) if np.isfinite(value) else _PALE
            _box(ax, x + size * column, y - size * (row + 1), size, size, shade)


def challenge() -> Axes:
    """Draw the task of both seasons: known effects, those to be predicted, and the scores."""
    ax = _sheet(88, 25, "Some genes were silenced. What would silencing others do?")
    rng = np.random.default_rng(3)
    real = np.tanh(rng.normal(size=(9, 2)) @ rng.normal(size=(2, 9)) + rng.normal(0, 0.3, (9, 9)))
    known, kept = real[:5], real[5:]
    guess = np.clip(0.6 * kept + rng.normal(0, 0.25, kept.shape), -1, 1)
    look = {"va": "center", "fontsize": 9}
    _heat(ax, 23.5, 21, known)
    ax.text(31.1, 22, "effect on every gene", ha="center", fontsize=9)
    _heat(ax, 23.5, 9, np.full(kept.shape, np.nan))
    ax.text(31.1, 5.6, "?", ha="center", va="center", color="black", fontsize=16)
    for y, word, first, second in (
        (16.8, "measured", "150 genes of H1", "in other lines only"),
        (5.6, "to predict", "150 others of H1", "300, in three new lines"),
    ):
        ax.text(0, y + 1.9, word, fontweight="bold", **look)
        ax.text(
            0, y + 0.6, f"2025: {first}\n2026: {second}", linespacing=1.5, **look | {"va": "top"}
        )
    _box(ax, 45, 3.8, 10, 3.6, BLUE, "your model", fontweight="bold")
    _arrow(ax, (39.8, 15), (47, 8.2))
    _arrow(ax, (39.8, 5.6), (44, 5.6))
    _arrow(ax, (55.7, 5.6), (58.6, 5.6))
    _heat(ax, 59.5, 9, guess)
    ax.text(67.1, 0.4, "predicted", ha="center", fontsize=9)
    _heat(ax, 59.5, 20, kept)
    ax.text(67.1, 21, "measured, but kept back", ha="center", fontsize=9)
    for y, question in ((14, "the right genes?"), (11, "its own effect?"), (8, "the right size?")):
        ax.text(78, y, question, va="center", fontsize=9)
    _arrow(ax, (75.3, 16.5), (77.4, 14.5))
    _arrow(ax, (75.3, 5.6), (77.4, 7.5))
    return ax


def pseudobulk() -> Axes:
    """Draw how many cells of one perturbation become one row, and a difference an effect."""
    ax = _sheet(72, 30, "Cells become means, means become effects")
    rng = np.random.default_rng(0)
    groups = [("control", GREY, 4), ("silenced A", BLUE, 3), ("silenced B", ORANGE, 3)]
    base, change = rng.uniform(0.2, 0.7, 5), {1: (0, -0.35), 2: (3, 0.3)}
    y = 26.0
    means = []
    for number, (name, colour, n) in enumerate(groups):
        mean = base.copy()
        if number in change:
            gene, step = change[number]
            mean[gene] = np.clip(mean[gene] + step, 0.03, 1)
        means.append(mean)
        top = y
        for _ in range(n):
            y -= 2.2
            for gene, level in enumerate(np.clip(mean + rng.normal(0, 0.15, 5), 0.02, 1)):
                _box(ax, 9 + 2.2 * gene, y, 2.2, 2.2, plt.cm.Greys(0.75 * level))
        ax.text(8, (top + y) / 2, name, ha="right", va="center", fontsize=9)
        middle = (top + y) / 2
        _arrow(ax, (21.5, middle), (28, middle), colour)
        for gene, level in enumerate(mean):
            _box(ax, 29 + 2.2 * gene, middle - 1.1, 2.2, 2.2, plt.cm.Greys(0.75 * level))
        if number:
            _arrow(ax, (41.5, middle), (49, middle), colour)
            for gene, gap in enumerate(mean - means[0]):
                shade = plt.cm.PuOr(0.5 - 1.1 * gap)
                _box(ax, 50 + 2.2 * gene, middle - 1.1, 2.2, 2.2, shade)
            ax.text(45.2, middle + 1.3, "less control", ha="center", fontsize=8)
        y -= 0.8
    for x, text in ((14.5, "cells × genes"), (34.5, "one mean each"), (55.5, "effects")):
        ax.text(x, 27, text, ha="center", fontsize=9)
    return ax


def few_shot_split() -> Axes:
    """Draw which effects a few-shot model may see, and which it must predict."""
    ax = _sheet(72, 27, "What is known, and what is to be predicted")
    n_targets, n_support = 12, 4
    for row, name in enumerate(("day 2", "day 3", "day 4")):
        y = 20 - 3.6 * row
        ax.text(11, y + 1.5, name, ha="right", va="center", fontsize=9)
        for column in range(n_targets):
            _box(ax, 12 + 4 * column, y, 4, 3, SKY)
    ax.text(61, 17.9, "sources:\nknown elsewhere", va="center", fontsize=9)
    y = 5.5
    ax.text(11, y + 1.5, "day 5", ha="right", va="center", fontsize=9, fontweight="bold")
    for column in range(n_targets):
        known = column < n_support
        _box(ax, 12 + 4 * column, y, 4, 3, GREEN if known else _PALE, "" if known else "?")
    middle = 12 + 2 * n_support
    ax.text(middle, 3.6, "support: known", ha="center", fontsize=9)
    middle = 12 + 2 * (n_targets + n_support)
    ax.text(middle, 3.6, "query: predict these", ha="center", fontsize=9)
    ax.text(61, 7, "the new context", va="center", fontsize=9)
    ax.text(36, 24.2, "silenced genes", ha="center", fontsize=9)
    return ax


def pds() -> Axes:
    """Draw PDS as a ranking: how many real effects lie nearer to a prediction than its own."""
    ax = _sheet(72, 32, "PDS: how many real effects are nearer than the right one?")
    prediction = np.array([20.0, 15.0])
    real = {"B": (24, 21), "A": (12.5, 21.5), "C": (30, 10), "D": (10, 6), "E": (33, 25)}
    order = sorted(real, key=lambda name: np.hypot(*(prediction - real[name])))
    for place, name in enumerate(order, 1):
        colour = GREEN if name == "A" else GREY
        x, y = real[name]
        ax.plot([prediction[0], x], [prediction[1], y], ":", color=colour, linewidth=1.2)
        ax.plot(x, y, "o", color=colour, markersize=9)
        weight = "bold" if name == "A" else "normal"
        ax.text(x + 1.2, y + 0.6, name, fontsize=10, fontweight=weight)
        line = f"{place}.  {name}" + ("   its own" if name == "A" else "")
        ax.text(47, 25 - 3.4 * place, line, fontsize=10, fontweight=weight)
    ax.plot(*prediction, "*", color=ORANGE, markersize=17)
    ax.text(prediction[0] + 3.2, prediction[1] - 0.2, "prediction for A", fontsize=10)
    ax.text(47, 25.5, "nearest real effects", fontsize=9)
    rank = order.index("A")
    ax.text(
        47, 2.2, f"{rank} of {len(real)} are nearer:  PDS = 1 - {rank}/{len(real)}", fontsize=10
    )
    return ax


def des() -> Axes:
    """Draw DES: of the genes that really changed, how many does the prediction name?"""
    ax = _sheet(72, 25, "DES: of the genes that changed, how many are named?")
    genes = list("abcdefghij")
    real, named = set("abdgh"), ["b", "d", "c", "g", "j", "a", "e"]
    ax.text(13, 18.5, "really significant", ha="right", va="center", fontsize=9)
    for column, gene in enumerate(genes):
        _box(ax, 14 + 4 * column, 17, 4, 3, GREEN if gene in real else _PALE, gene)
    ax.text(13, 10.5, "called by the prediction,\nstrongest first", ha="right", va="center",
            fontsize=9)  # fmt: skip
    kept = len(real)
    for column, gene in enumerate(named):
        inside = column < kept
        colour = (GREEN if gene in real else ORANGE) if inside else _PALE
        _box(ax, 14 + 4 * column, 9, 4, 3, colour, gene)
    ax.plot([14 + 4 * kept] * 2, [8, 13], "--", color=_ink(), linewidth=1.2)
    ax.text(14 + 4 * kept + 0.6, 13.4, f"too many: the first {kept} count", fontsize=9)
    right = sum(gene in real for gene in named[:kept])
    ax.text(14, 4, f"{right} of {kept} are right:  DES = {right}/{kept}", fontsize=10)
    return ax


def passes() -> Axes:
    """Draw how a file larger than memory is read: a block at a time, and sums are kept."""
    ax = _sheet(72, 25, "A file larger than memory, a block at a time")
    colours = (BLUE, ORANGE, GREY, PURPLE)
    pattern = [0, 2, 1, 3, 2, 0, 1, 3, 1, 2, 0, 3, 3, 1, 2, 0]
    for number, group in enumerate(pattern):
        _box(ax, 3 + 2.6 * number, 16, 2.6, 4, colours[group])
    ax.text(3, 21.6, "cells on disk, in any order", fontsize=9)
    ax.add_patch(Rectangle((13.2, 15.4), 10.8, 5.2, fill=False, edgecolor=_ink(), linewidth=1.8))
    ax.text(18.6, 13, "one block in memory", ha="center", fontsize=9)
    _arrow(ax, (24.6, 18), (28.5, 18))
    _arrow(ax, (18.6, 12.2), (18.6, 8.4))
    for row, (colour, name) in enumerate(zip(colours, ("A", "B", "control", "C"), strict=True)):
        _box(ax, 6 + 6.2 * row, 4, 5.6, 3.6, colour, name, fontsize=8)
    ax.text(32, 5.8, "a sum for each perturbation:\nas large as the answer, not as the file",
            va="center", fontsize=9)  # fmt: skip
    return ax
