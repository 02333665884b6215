"""Figures draw the numbers they are given on the axes they are given, and name their units."""

import re
from functools import partial

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_cells

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib import rc_params_from_file  # noqa: E402
from matplotlib.colors import rgb_to_hsv, to_hex, to_rgb  # noqa: E402
from matplotlib.text import Text  # noqa: E402

from vcc_helpers import de_table, effect_strength, effects, plot, pseudobulk  # noqa: E402
from vcc_helpers.course import sketches  # noqa: E402
from vcc_helpers.evaluation import _Calibration  # noqa: E402
from vcc_helpers.intervals import interval  # noqa: E402

GROUND = {"light": "#ffffff", "dark": "#121212"}  # of the notebooks; of the book's dark pages


pytestmark = pytest.mark.usefixtures("closed")


@pytest.fixture(scope="module")
def bulk():
    return pseudobulk(make_cells())


def measured(models=("chance", "mean", "kNN", "half-data repeat"), supports=(3,)):
    """Summarise made-up values: model number i has mean i / 10 of targets A to E."""
    spread, parts = 0.02 * np.arange(-2, 3), []
    for i, name in enumerate(models):
        for n in supports:
            where = {"model": name, "split": 0, "n_support": n, "target_gene": list("ABCDE")}
            value = i / 10 + n / 100 + spread * (name != "chance")
            parts.append(pd.DataFrame(where | {"metric": "pds", "value": value}))
    by = ("model", "n_support", "metric") if len(supports) > 1 else ("model", "metric")
    return interval(pd.concat(parts), by=by)


def sizes():
    table = pd.DataFrame({"real_norm": [1.0, 2, 3], "pred_norm": [2.0, 1, 2]}, index=list("ABC"))
    return _Calibration(0.7, table.assign(ratio=table["pred_norm"] / table["real_norm"]))


def every_figure(bulk):
    delta, names = effects(bulk), list("ABCDE")
    square = pd.DataFrame(np.random.default_rng(0).random((5, 5)), index=names, columns=names)
    pair, curve = {"names": delta.var_names}, measured(supports=(0, 2))
    return {
        "scores": partial(plot.scores, pd.Series({"mean": 0.6}), metric="pds", chance=0.5),
        "effect_heatmap": partial(plot.effect_heatmap, delta, n_genes=5),
        "strength": partial(plot.strength, effect_strength(bulk)),
        "predicted_against_real": partial(plot.predicted_against_real, *delta.X[:2], **pair),
        "volcano": partial(plot.volcano, de_table(make_cells()), "G0"),
        "ranking": partial(plot.ranking, square),
        "similarity": partial(plot.similarity, square),
        "model_intervals": partial(plot.model_intervals, measured(), metric="pds"),
        "support_curve": partial(plot.support_curve, curve, metric="pds"),
        "calibration": partial(plot.calibration, sizes()),
    }


def words(texts):
    return [text.get_text().strip() for text in texts]


@pytest.mark.parametrize("name", GROUND)
def test_every_figure_draws_on_the_given_axes_or_its_own_in_the_ink_of_the_style(name, bulk):
    public = {n for n, v in vars(plot).items() if getattr(v, "__module__", "") == plot.__name__}
    figures = every_figure(bulk)
    assert set(figures) == {name for name in public if name[0] != "_"}
    with plt.style.context(f"vcc_helpers.{name}"):
        ground = plt.rcParams["figure.facecolor"]
        for function, draw in figures.items():
            _, ax = plt.subplots()
            assert draw(ax=ax) is ax and ax.has_data()
            before = len(plt.get_fignums())  # other tests of this process may have left some
            ax = draw()
            assert len(plt.get_fignums()) == before + 1
            assert ax.get_xlabel() or function == "similarity"  # targets, named by the ticks
            ax.figure.canvas.draw()
            for text in ax.findobj(Text):
                if text.get_text() and text.get_visible():
                    assert contrast(text.get_color(), ground) >= 4.5, (function, text.get_text())
            plt.close("all")


def test_scores_shows_means_and_their_spread():
    table = pd.DataFrame({"mean": [0.5, 0.7], "kNN": [0.8, 0.8]})
    ax = plot.scores(table, metric="mae", ceiling=0.9, baseline=0.4)
    np.testing.assert_allclose(ax.containers[0].lines[0].get_xdata(orig=False), [0.6, 0.8])
    assert "lower is better" in ax.get_xlabel()
    legend = words(ax.get_legend().get_texts())
    assert legend == ["mean baseline 0.400", "half-data repeat 0.900"]


def test_calibration_tells_small_from_large():
    ax = plot.calibration(sizes())
    small, large = (points.get_offsets() for points in ax.collections)
    assert small.tolist() == [[2, 1], [3, 2]] and large.tolist() == [[1, 2]]
    assert words(ax.texts) == ["right size", "C", "B", "A"] and ax.get_xlim() == ax.get_ylim()
    assert ax.get_legend().get_title().get_text().endswith("0.70")
    nothing = plot.calibration(sizes()._replace(slope=np.nan))
    assert nothing.get_legend().get_title().get_text() == ""


def drawn(container):
    """Return the dots and the ends of the intervals."""
    dots, _, (bars,) = container.lines
    return dots, np.array(bars.get_segments())


def test_models_and_their_references():
    summary = measured()
    ax = plot.model_intervals(summary, metric="pds")
    assert words(ax.get_yticklabels()) == ["mean", "kNN"]
    for bar, name in zip(ax.containers, ("mean", "kNN"), strict=True):
        dots, ends = drawn(bar)
        row = summary.loc[(name, "pds")]
        np.testing.assert_allclose([*dots.get_xdata(), *ends[0, :, 0]], row[:3])
    legend = words(ax.get_legend().get_texts())
    assert legend[:3] == ["chance 0.030", "mean baseline 0.130", "half-data repeat 0.330"]
    paired = summary.rename(columns={"mean": "difference"})
    ax = plot.model_intervals(paired, metric="pds")
    assert ax.get_xlabel().startswith("difference in PDS") and ax.get_legend() is None
    assert list(ax.lines[-1].get_xdata()) == [0, 0]


def test_support_curves_are_named_at_their_ends():
    names = ["chance", *(f"model {i}" for i in range(7))]
    summary = measured(names, supports=(0, 2, 20)).drop(("model 6", 0, "pds"))
    far = summary.index.get_level_values("model") == "model 6"
    summary.loc[far, ["mean", "low", "high"]] += 3  # leaves the others little room
    ax = plot.support_curve(summary, metric="pds")
    assert words(ax.get_xticklabels()) == ["0", "2", "20"]
    looks = [drawn(container) for container in ax.containers]
    assert len({(dots.get_marker(), dots.get_color()) for dots, _ in looks}) == 7
    assert len(looks[6][0].get_xdata()) == 2
    curve = summary.xs("pds", level="metric").loc["model 2"]
    np.testing.assert_allclose(looks[2][0].get_ydata(), curve["mean"])
    np.testing.assert_allclose(looks[2][1][:, :, 1], curve[["low", "high"]])
    assert set(words(ax.texts)) == set(names)
    ax.figure.canvas.draw()
    # of the words alone, without the line to what they name
    boxes = sorted((b.y0, b.y1) for b in (Text.get_window_extent(text) for text in ax.texts))
    assert all(low[1] <= high[0] for low, high in zip(boxes, boxes[1:], strict=False))


def test_the_heatmap_shows_the_genes_that_change_most(bulk):
    delta = effects(bulk)
    ax = plot.effect_heatmap(delta, n_genes=3)
    order = np.argsort(-np.sqrt((delta.X**2).mean(axis=0)))[:3]
    assert words(ax.get_xticklabels()) == delta.var_names[order].tolist()
    np.testing.assert_array_equal(ax.images[0].get_array(), delta.X[:, order])


def test_the_volcano_separates_what_is_called():
    table = de_table(make_cells())
    ax = plot.volcano(table, "G0")
    row = table.perturbations.get_loc("G0")
    sizes = [len(points.get_offsets()) for points in ax.collections]
    assert sizes == [(~table.significant[row]).sum(), table.significant[row].sum()]
    surest = table.genes[np.argsort(table.p_value[row], kind="stable")[:3]]
    assert words(plot.volcano(table, "G0", n_named=3).texts) == surest.tolist()
    with pytest.raises(KeyError):
        plot.volcano(table, "nobody")


def test_the_ranking_counts_who_is_closer():
    table = pd.DataFrame([[2.0, 1.0], [5.0, 1.0]], index=["A", "B"], columns=["A", "B"])
    assert words(plot.ranking(table).texts) == ["1 closer", "0 closer"]


PALETTE = [plot.BLUE, plot.ORANGE, plot.GREEN, plot.PURPLE, plot.SKY, plot.RED]


def settings(name):
    return rc_params_from_file(ROOT / f"vcc_helpers/{name}.mplstyle", use_default_template=False)


def contrast(one, other):
    """By WCAG 2.2: 1 where two colours are equally bright, 21 for black on white."""
    brightness = []
    for colour in (one, other):
        value = np.array(to_rgb(colour))
        linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
        brightness.append(linear @ [0.2126, 0.7152, 0.0722] + 0.05)
    return max(brightness) / min(brightness)


def in_the_dark_book(colour):
    """Do what the book's style sheet does to a figure in the dark: invert, then turn the hue."""
    css = (ROOT / "book/_static/custom.css").read_text(encoding="utf-8")
    share = float(re.search(r"invert\(([\d.]+)\) hue-rotate\(180deg\)", css)[1])
    turned = [[-0.574, 1.430, 0.144], [0.426, 0.430, 0.144], [0.426, 1.430, -0.856]]
    inverted = np.array(to_rgb(colour)) * (1 - 2 * share) + share
    return np.clip(turned @ inverted, 0, 1)


def test_figures_keep_their_hues_in_the_dark_book():
    """The matrix is that of hue-rotate(180deg) in the W3C's Filter Effects Module."""
    assert contrast(in_the_dark_book("white"), GROUND["dark"]) < 1.1
    assert contrast(in_the_dark_book(settings("light")["text.color"]), GROUND["dark"]) >= 7
    for colour in PALETTE:
        shown = in_the_dark_book(colour)
        hue, hue_shown = (rgb_to_hsv(to_rgb(c))[0] for c in (colour, shown))
        assert abs(hue - hue_shown) < 6 / 360, colour
        assert contrast(shown, GROUND["dark"]) >= 3, colour


#: The drawings say what the metrics say, and fit their sheet.
DRAWINGS = ["challenge", "pseudobulk", "few_shot_split", "pds", "des", "passes"]


@pytest.mark.parametrize("style", ["vcc_helpers.light", "vcc_helpers.dark"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_all_words_lie_on_the_sheet_and_apart(name, style):
    with plt.style.context(style):
        ax = getattr(sketches, name)()
    ax.figure.canvas.draw()
    sheet = ax.figure.bbox
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(sheet.x0 <= box.x0 and box.x1 <= sheet.x1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert not one.overlaps(other), words([ax.texts[i], ax.texts[boxes.index(other)]])


def test_the_ranking_of_pds_is_that_of_the_distances():
    ax = sketches.pds()
    points = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    star = next(line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*")
    distance = np.linalg.norm(np.array(points) - star, axis=1)
    assert (np.diff(distance) > 0).all()  # drawn in the order of the list
    ranked = [text for text in words(ax.texts) if text[:1].isdigit() and "." in text[:2]]
    place = next(i for i, text in enumerate(ranked) if "its own" in text)
    assert f"{place} of 5 are nearer:  PDS = 1 - {place}/5" in words(ax.texts)


def test_the_overlap_of_des_is_counted():
    ax = sketches.des()
    green = [p.get_y() for p in ax.patches if to_hex(p.get_facecolor()) == plot.GREEN.lower()]
    real, right = green.count(17), green.count(9)
    assert f"{right} of {real} are right:  DES = {right}/{real}" in words(ax.texts)


def test_a_split_asks_for_what_is_not_known():
    ax = sketches.few_shot_split()
    assert words(ax.texts).count("?") == 8
