"""Figures draw the numbers they are given on the axes they are given, and name their units."""

import numpy as np
import pandas as pd
import pytest
from conftest import make_cells

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

from vcc_helpers import de_table, effect_strength, effects, plot, pseudobulk  # noqa: E402


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def bulk():
    return pseudobulk(make_cells())


def every_figure(bulk):
    delta = effects(bulk)
    names = [f"T{i}" for i in range(5)]
    square = pd.DataFrame(np.random.default_rng(0).random((5, 5)), index=names, columns=names)
    curve = pd.DataFrame(np.random.default_rng(1).random((3, 4)), columns=[0, 1, 2, 4])
    return {
        "scores": lambda **kw: plot.scores(
            pd.Series({"mean": 0.6, "kNN": 0.7}), metric="pds", chance=0.5, **kw
        ),
        "effect_heatmap": lambda **kw: plot.effect_heatmap(delta, n_genes=5, **kw),
        "strength": lambda **kw: plot.strength(effect_strength(bulk), **kw),
        "predicted_against_real": lambda **kw: plot.predicted_against_real(
            delta.X[0], delta.X[1], names=delta.var_names, **kw
        ),
        "volcano": lambda **kw: plot.volcano(de_table(make_cells()), "G0", **kw),
        "ranking": lambda **kw: plot.ranking(square, n_shown=3, **kw),
        "learning_curve": lambda **kw: plot.learning_curve({"a": curve}, metric="mae", **kw),
        "similarity": lambda **kw: plot.similarity(square, **kw),
    }


FIGURES = [
    name
    for name, value in vars(plot).items()
    if callable(value) and getattr(value, "__module__", "") == plot.__name__ and name[0] != "_"
]


@pytest.mark.parametrize("name", FIGURES)
def test_it_draws_on_the_given_axes_and_returns_them(name, bulk):
    assert name in every_figure(bulk), "a figure without a test"
    _, ax = plt.subplots()
    assert every_figure(bulk)[name](ax=ax) is ax
    assert ax.has_data()


@pytest.mark.parametrize("name", FIGURES)
def test_it_makes_axes_of_its_own_that_can_be_drawn(name, bulk):
    ax = every_figure(bulk)[name]()
    ax.figure.canvas.draw()
    assert len(plt.get_fignums()) == 1
    if name != "similarity":  # targets on both sides, named by the ticks
        assert ax.get_xlabel()


def test_scores_shows_means_and_their_spread():
    table = pd.DataFrame({"mean": [0.5, 0.7], "kNN": [0.8, 0.8]})
    ax = plot.scores(table, metric="mae", ceiling=0.9, baseline=0.4)
    drawn = ax.containers[0].lines[0].get_xdata(orig=False)
    np.testing.assert_allclose(drawn, [0.6, 0.8])
    assert "lower is better" in ax.get_xlabel()
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [text.split()[-1] for text in legend] == ["0.400", "0.900"]
    assert legend[0].startswith("mean baseline")


def test_the_heatmap_shows_the_genes_that_change_most(bulk):
    delta = effects(bulk)
    ax = plot.effect_heatmap(delta, n_genes=3)
    order = np.argsort(-np.sqrt((delta.X**2).mean(axis=0)))[:3]
    shown = [text.get_text() for text in ax.get_xticklabels()]
    assert shown == delta.var_names[order].tolist()
    np.testing.assert_array_equal(ax.images[0].get_array(), delta.X[:, order])


def test_the_volcano_separates_what_is_called():
    table = de_table(make_cells())
    ax = plot.volcano(table, "G0")
    row = table.perturbations.get_loc("G0")
    sizes = [len(points.get_offsets()) for points in ax.collections]
    assert sizes == [(~table.significant[row]).sum(), table.significant[row].sum()]
    with pytest.raises(KeyError):
        plot.volcano(table, "nobody")


def test_the_ranking_counts_who_is_closer():
    names = ["A", "B"]
    ax = plot.ranking(pd.DataFrame([[2.0, 1.0], [5.0, 1.0]], index=names, columns=names))
    assert [text.get_text() for text in ax.texts] == ["1 closer", "0 closer"]


def test_no_curve_is_dropped():
    curve = pd.DataFrame([[0.1, 0.2]], columns=[0, 1])
    ax = plot.learning_curve({f"model {i}": curve for i in range(7)}, metric="pds")
    assert len(ax.containers) == 7
    looks = {(c.lines[0].get_marker(), c.lines[0].get_color()) for c in ax.containers}
    assert len(looks) == 7
