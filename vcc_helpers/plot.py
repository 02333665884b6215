"""The book's figures: one function each, which draws on ``ax`` and returns it.

Colours are those of Okabe and Ito, told apart by most colour-blind readers; a marker or a line
style always says the same a second time. ``plt.style.use("vcc_helpers.light")`` gives all figures
the look of the book, ``"vcc_helpers.dark"`` the same on a dark ground. `ax` are the axes to draw
on, new ones by default; `metric` is a name such as ``"pds"``, which labels an axis.

Taught in: every notebook.
Needs no sibling module.

>>> import pandas
>>> ax = scores(pandas.Series({"mean": 0.6, "kNN": 0.7}), metric="pds", chance=0.52)
>>> ax.get_xlabel()
'PDS (higher is better)'
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import ScaledTranslation

if TYPE_CHECKING:
    import anndata

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, GREY = "#56B4E9", "#D55E00", "#7F7F7F"
#: Names of the rows that become lines, for what knows nothing and for a repeat's score.
_CHANCE, _CEILING = "chance", "half-data repeat"
_LABELS = {
    "des": "DES (higher is better)",
    "pds": "PDS (higher is better)",
    "mae": "MAE, log-normalised expression (lower is better)",
    "pearson": "Pearson correlation of effects (higher is better)",
}


def _axes(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    return plt.subplots(figsize=(width, height), layout="constrained")[1] if ax is None else ax


def _name_points(ax: Axes, names, x, y) -> None:
    for name, *point in zip(names, x, y, strict=True):
        ax.annotate(name, point, (4, 3), textcoords="offset points", fontsize=8)


def _beside(ax: Axes, text: str, y: float, size: int) -> None:
    ax.annotate(text, (1.01, y), xycoords=("axes fraction", "data"), va="center", fontsize=size)


def _legend_below(ax: Axes, *, ncols: int) -> None:
    """Draw a legend half an inch below the axes, however low these are."""
    if ax.get_legend_handles_labels()[0]:
        below = ax.transAxes + ScaledTranslation(0, -0.5, ax.figure.dpi_scale_trans)
        spot = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below}
        ax.legend(**spot, ncols=ncols, frameon=False)


def _references(draw, rows: pd.DataFrame, metric: str, baseline: str | None, **look) -> list[tuple]:
    looks = (
        (_CHANCE, "chance", GREY, ":"),
        (baseline, f"{baseline} baseline", ORANGE, "--"),
        (_CEILING, _CEILING, GREEN, "-."),
    )
    lines = [(rows["mean"][row], *rest) for row, *rest in looks if row in rows.index]
    for level, name, colour, style in lines:
        draw(level, color=colour, linestyle=style, label=f"{name} {level:.3f}", **look)
    return [line[:3] for line in lines]


def scores(
    values: pd.Series | pd.DataFrame,
    *,
    metric: str,
    chance: float | None = None,
    ceiling: float | None = None,
    baseline: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Compare models on one metric with chance, ceiling and baseline, vertical lines.

    `values` holds one score a model (Series), or several repeats a model (DataFrame, a column a
    model), drawn as mean and standard deviation.
    """
    ax = _axes(ax, height=1.4 + 0.38 * np.shape(values)[-1])
    table = values if isinstance(values, pd.DataFrame) else values.to_frame().T
    mean, place = table.mean(), np.arange(table.shape[1])[::-1]
    spread = table.std() if len(table) > 1 else None
    ax.errorbar(mean, place, xerr=spread, fmt="o", color=BLUE, markersize=8, capsize=3, zorder=3)
    for y, value in zip(place, mean, strict=True):
        box = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 0.8}
        spot = {"textcoords": "offset points", "ha": "center", "fontsize": 9, "bbox": box}
        ax.annotate(f"{value:.3f}", (value, y), (0, 8), **spot)
    levels = {_CHANCE: chance, "mean": baseline, _CEILING: ceiling}
    rows = pd.Series(levels, dtype=np.float64).dropna().to_frame("mean")
    _references(ax.axvline, rows, metric, "mean")
    ax.set_yticks(place, table.columns)
    ax.set(xlabel=_LABELS.get(metric, metric), ylim=(-0.6, len(place) - 0.3))
    ax.grid(axis="y", alpha=0.25)
    _legend_below(ax, ncols=3)
    return ax


def effect_heatmap(delta: anndata.AnnData, *, n_genes: int = 30, ax: Axes | None = None) -> Axes:
    """Show effects, ``(n_perts, n_genes)``, on the genes of the largest root mean square effect."""
    strongest = np.sqrt((np.asarray(delta.X) ** 2).mean(axis=0)).argsort()[::-1][:n_genes]
    shown = np.sort(strongest) if n_genes >= delta.n_vars else strongest
    values = np.asarray(delta.X)[:, shown]
    ax = _axes(ax, width=2.2 + 0.22 * len(shown), height=1.6 + 0.24 * len(values))
    limit = np.abs(values).max()
    image = ax.imshow(values, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
    ax.set_yticks(np.arange(len(values)), delta.obs_names)
    ax.set_xticks(np.arange(len(shown)), delta.var_names[shown], rotation=90, fontsize=8)
    ax.set(xlabel="gene", ylabel="silenced gene")
    ax.figure.colorbar(image, ax=ax, label="effect (difference of mean lognorm)", shrink=0.9)
    return ax


def strength(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show how large each effect is and what sampling alone gives, from ``effect_strength``."""
    ax = _axes(ax, height=1.4 + 0.26 * len(table))
    ordered = table.sort_values("norm")
    place = np.arange(len(ordered))
    ax.hlines(place, ordered["noise"], ordered["norm"], color=GREY, linewidth=1, alpha=0.6)
    ax.plot(ordered["noise"], place, "|", color=RED, markersize=11, label="sampling noise alone")
    ax.plot(ordered["norm"], place, "o", color=BLUE, label="measured effect")
    ax.set_yticks(place, ordered.index)
    ax.set(xlabel="L2 norm over genes (mean lognorm)", ylabel="silenced gene")
    ax.set_xlim(left=0)
    ax.legend(frameon=False, loc="lower right")
    return ax


def predicted_against_real(
    pred_effect: np.ndarray,
    real_effect: np.ndarray,
    *,
    names: pd.Index | None = None,
    n_named: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Plot one perturbation's predicted effect against its real one, a point per gene.

    Both are ``(n_genes,)``, differences of mean lognorm values. Of the gene `names` the `n_named`
    furthest from no effect are written next to their points.
    """
    ax = _axes(ax, 5.0, 4.6)
    ax.scatter(real_effect, pred_effect, s=14, color=BLUE, alpha=0.6, linewidths=0)
    both = np.concatenate([real_effect, pred_effect])
    ends = [both.min(), both.max()]
    ax.plot(ends, ends, color=GREY, linestyle="--", linewidth=1, label="perfect prediction")
    for line in (ax.axhline, ax.axvline):
        line(0, color=GREY, linewidth=0.6)
    if names is not None:
        far = np.argsort(-np.abs(real_effect))[:n_named]
        _name_points(ax, names[far], real_effect[far], pred_effect[far])
    ax.set(xlabel="real effect (mean lognorm)", ylabel="predicted effect (mean lognorm)")
    ax.legend(frameon=False, loc="upper left")
    return ax


def volcano(table, target: str, *, n_named: int = 8, ax: Axes | None = None) -> Axes:
    """Show the fold changes of one perturbation, `target`, and how significant they are.

    `table` comes from :func:`vcc_helpers.de_table`; the `n_named` most significant genes are named.
    """
    ax = _axes(ax, 5.6, 4.4)
    row = table.perturbations.get_loc(target)
    lfc, p = table.log2_fold_change[row], table.p_value[row]
    height, called = -np.log10(np.maximum(p, 1e-300)), table.significant[row]
    kw = {"s": 16, "linewidths": 0}
    ax.scatter(lfc[~called], height[~called], color=GREY, alpha=0.45, label="not called", **kw)
    ax.scatter(lfc[called], height[called], color=RED, marker="D", label="significant", **kw)
    surest = np.argsort(p, kind="stable")[:n_named]
    surest = surest[called[surest]]
    _name_points(ax, table.genes[surest], lfc[surest], height[surest])
    ax.set(xlabel="log2 fold change", ylabel="-log10 p (rank-sum test)")
    _legend_below(ax, ncols=2)
    return ax


def ranking(distance: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show PDS as a race: for each of the first twelve predictions, how far is each real effect?

    `distance` is ``(n_perts, n_perts)``: row, predicted; column, real; same names.
    """
    rows = distance.iloc[:12]
    ax = _axes(ax, height=1.4 + 0.32 * len(rows))
    for y, (name, values) in enumerate(rows.iterrows()):
        ax.plot(values, np.full(len(values), y), "|", color=GREY, markersize=10, alpha=0.8)
        ax.plot(values[name], y, "D", color=BLUE, markersize=6)
        rank = int((values < values[name]).sum())
        _beside(ax, f"{rank} closer", y, 8)
    ax.plot([], [], "D", color=BLUE, label="its own real effect")
    ax.plot([], [], "|", color=GREY, markersize=10, label="the real effect of another target")
    ax.set_yticks(np.arange(len(rows)), rows.index)
    ax.invert_yaxis()
    ax.set(xlabel="L1 distance from the predicted effect", ylabel="prediction for")
    _legend_below(ax, ncols=2)
    return ax


def similarity(table: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Show how alike targets are: cosines or correlations, ``(n_perts, n_perts)``, -1 to 1."""
    ax = _axes(ax, width=2.8 + 0.2 * len(table), height=1.8 + 0.2 * len(table))
    image = ax.imshow(table, cmap="PuOr_r", vmin=-1, vmax=1)
    ax.set_xticks(range(len(table)), table.columns, rotation=90, fontsize=8)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    ax.figure.colorbar(image, ax=ax, label="cosine similarity", shrink=0.7)
    return ax


def model_intervals(
    summary: pd.DataFrame, *, metric: str, baseline: str = "mean", ax: Axes | None = None
) -> Axes:
    """Compare models on one metric, each a dot with its confidence interval.

    `summary` comes from :func:`vcc_helpers.intervals.compare`: differences, with a line at 0. Or it
    comes from :func:`vcc_helpers.intervals.interval`, index (model, metric): then rows "chance" and
    "half-data repeat" become vertical lines, and so does the model `baseline`; how two models
    differ, these intervals do not show.
    """
    rows = summary.xs(metric, level="metric")
    paired = "difference" in rows
    shown = rows.drop([_CHANCE, _CEILING], errors="ignore")
    ax = _axes(ax, height=1.3 + 0.34 * len(shown))
    sign, digits = "+" if paired else "", 4 if paired and metric == "mae" else 3
    for place, (_, row) in zip(range(len(shown))[::-1], shown.iterrows(), strict=True):
        value = row["difference" if paired else "mean"]
        ends = [[value - row["low"]], [row["high"] - value]]
        ax.errorbar(value, place, xerr=ends, fmt="o", color=BLUE, markersize=8, capsize=3, zorder=3)
        _beside(ax, f"{value:{sign}.{digits}f}", place, 9)
    if paired:
        ax.axvline(0, color=GREY, linewidth=1)
    else:
        _references(ax.axvline, rows, metric, baseline)
    ax.set_yticks(range(len(shown))[::-1], shown.index)
    label = _LABELS.get(metric, metric)
    ax.set(xlabel=f"difference in {label}" if paired else label, ylim=(-0.6, len(shown) - 0.4))
    ax.grid(axis="y", alpha=0.25)
    _legend_below(ax, ncols=2)
    return ax


def support_curve(summary: pd.DataFrame, *, metric: str, ax: Axes | None = None) -> Axes:
    """Show how each model's score grows with the support set, with confidence intervals.

    `summary` comes from :func:`vcc_helpers.intervals.interval` with ``by=("model", "n_support",
    "metric")``. Rows "chance" and "half-data repeat" become horizontal lines. Sizes of the
    support set are ranks on the axis: 0, 1, 2, 5 lie at equal distances.
    """
    ax, rows = _axes(ax, width=7.2), summary.xs(metric, level="metric")
    models = rows.index.unique("model").drop([_CHANCE, _CEILING], errors="ignore")
    sizes = sorted(rows.index.unique("n_support"))
    colours = (BLUE, ORANGE, PURPLE, SKY, RED, plt.rcParams["text.color"])
    looks = zip(cycle("os^DvPX"), cycle(colours), strict=False)
    ends = []
    for number, (name, (marker, colour)) in enumerate(zip(models, looks, strict=False)):
        curve = rows.loc[name].sort_index()
        place = np.searchsorted(sizes, curve.index) + 0.06 * (number - (len(models) - 1) / 2)
        mean, low, high = (curve[part].to_numpy() for part in ("mean", "low", "high"))
        look = {"marker": marker, "color": colour, "capsize": 3, "label": name}
        ax.errorbar(place, mean, [mean - low, high - mean], **look)
        ends.append((mean[-1], name, colour))
    ends += _references(ax.axhline, rows.groupby("model").mean(), metric, None, zorder=0)
    ax.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    ax.set(xlabel="support targets", ylabel=_LABELS.get(metric, metric).replace(" (", "\n("))
    _label_ends(ax, ends)
    return ax


def _label_ends(ax: Axes, ends: list[tuple[float, str, str]]) -> None:
    """Write names at the right edge, at the heights of what they name, moved apart."""
    ends = sorted(ends, key=lambda end: end[0])
    (bottom, top), line = ax.get_ylim(), 13 / (72 * ax.get_position().height)
    step = (top - bottom) * line / ax.figure.get_figheight()
    heights = np.array([end[0] for end in ends])
    for _ in range(100):
        gap = np.diff(heights)
        push = np.maximum(step - gap, 0) / 2
        heights[:-1] -= push
        heights[1:] += push
    for y, (level, name, colour) in zip(heights, ends, strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 1, "relpos": (0, 0.5)}
        where = {"xycoords": ("axes fraction", "data"), "textcoords": ("axes fraction", "data")}
        look = {"va": "center", "fontsize": 9, "arrowprops": line}
        ax.annotate(name, (1, level), (1.04, y), **where, **look)


def calibration(found, *, ax: Axes | None = None) -> Axes:
    """Plot the size of each predicted effect against the real one's, a point per perturbation.

    `found` comes from :func:`vcc_helpers.evaluation.calibration`; the four targets of the largest
    real effects are named.
    """
    ax, table = _axes(ax, 5.2, 4.8), found.per_perturbation
    large = table["ratio"] > 1
    kw = {"s": 30, "linewidths": 0, "alpha": 0.8}
    looks = ((~large, "smaller than the real one", "o", BLUE), (large, "larger", "^", RED))
    for some, name, marker, colour in looks:
        shown, label = table[some], f"{name}: {some.sum()} of {len(table)}"
        look = {"label": label, "marker": marker, "color": colour}
        ax.scatter(shown["real_norm"], shown["pred_norm"], **look, **kw)
    end = 1.2 * table[["real_norm", "pred_norm"]].to_numpy().max()
    ax.plot([0, end], [0, end], color=GREY, linestyle="--", linewidth=1)
    ax.annotate("right size ", (0.7 * end, 0.7 * end), ha="right", va="bottom", fontsize=9)
    largest = table.nlargest(4, "real_norm")
    _name_points(ax, largest.index, largest["real_norm"], largest["pred_norm"])
    ax.set(xlabel="size of the real effect (L2 norm, mean lognorm)", xlim=(0, end))
    ax.set(ylabel="size of the predicted effect", ylim=(0, end))
    known = np.isfinite(found.slope)
    title = f"predicted effects; best factor on them {found.slope:.2f}" if known else None
    ax.legend(frameon=False, loc="upper left", title=title, alignment="left")
    return ax
