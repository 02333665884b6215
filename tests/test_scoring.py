"""Score cards: the same whatever the storage, whole on disk, and what stands beside them."""

import sys
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, STORAGES, dense_of, make_cells, stored

from vcc_helpers import ScoreCard, evaluation, lognorm, metrics, presets, pseudobulk, score, scoring
from vcc_helpers.scoring.anchors import ANCHORS
from vcc_helpers.scoring.card import SHOWN
from vcc_helpers.stream.write import write_whole


@pytest.fixture(scope="module")
def pair():
    return make_cells(1), make_cells(0)


@pytest.fixture(scope="module")
def card(pair):
    return score(*pair, threads=1)


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_scores_the_same_to_the_last_bit(storage, pair, card, tmp_path):
    folders = [tmp_path / "pred", tmp_path / "real"]
    for folder in folders:
        folder.mkdir()
    pred, real = (stored(x, storage, at) for x, at in zip(pair, folders, strict=True))
    pd.testing.assert_frame_equal(
        score(pred, real, threads=1).per_perturbation, card.per_perturbation, check_exact=True
    )
    assert 0 < card.summary["des"] < 1 and card.summary["mae"] > 0


def test_paths_score_as_cells_do(pair, card, tmp_path):
    for name, cells in zip(("pred", "real"), pair, strict=True):
        cells.write_h5ad(tmp_path / f"{name}.h5ad")
    found = score(tmp_path / "pred.h5ad", str(tmp_path / "real.h5ad"), threads=1)
    pd.testing.assert_frame_equal(found.per_perturbation, card.per_perturbation)


def test_the_callers_cells_are_never_changed(any_storage, snapshot):
    take, same = snapshot
    if any_storage.isbacked:
        pytest.skip("opened read only")
    before = take(any_storage)
    score(any_storage, any_storage, threads=1)
    same(any_storage, before)


def test_counts_and_their_log_values_score_alike(pair, card):
    logged = [anndata.AnnData(lognorm(x), obs=x.obs, var=x.var) for x in pair]
    for found in (score(*logged), score(pair[0], logged[1])):
        pd.testing.assert_frame_equal(found.per_perturbation, card.per_perturbation)


def test_the_truth_is_a_perfect_prediction(pair):
    found = score(pair[1], pair[1], threads=1)
    assert found.summary.to_dict() == {"des": 1, "pds": 1, "mae": 0}


def test_names_of_column_and_control_can_be_others(pair, card):
    others = []
    for cells in pair:
        cells = cells.copy()
        cells.obs["gene"] = cells.obs.pop(KEY).astype(str).replace({CONTROL: "ctrl"})
        others.append(cells)
    found = score(*others, perturbation_key="gene", control="ctrl", threads=1)
    pd.testing.assert_frame_equal(found.per_perturbation, card.per_perturbation)
    assert found.settings["control"] == "ctrl"


def test_labels_that_look_like_numbers_and_columns_of_numbers(pair):
    number = {"G0": 10, "G1": 9, "G2": 100, "no gene": 1, CONTROL: 0}
    pair = [cells.copy() for cells in pair]
    for cells in pair:
        cells.obs[KEY] = [number[x] for x in cells.obs[KEY]]
    found = score(*pair, control="0", threads=1)
    assert found.per_perturbation.index.tolist() == ["1", "10", "100", "9"]
    assert score(pair[1], pair[1], control="0").summary["pds"] == 1


def test_the_card_survives_its_file(card, tmp_path):
    card.to_json(tmp_path / "card.json")
    back = ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_frame_equal(back.per_perturbation, card.per_perturbation, check_exact=True)
    assert (back.preset, dict(back.settings)) == (card.preset, dict(card.settings))
    assert back.to_dict() == card.to_dict()
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]


def test_the_summary_is_the_mean(card):
    pd.testing.assert_series_equal(
        card.summary, card.per_perturbation.mean(), check_names=False, rtol=1e-12
    )
    assert card.per_perturbation.index.name == "target_gene"
    assert list(card.per_perturbation) == list(presets.VCC2025.metrics)


def test_the_card_shows_itself(card):
    assert "ScoreCard vcc2025, 4 perturbations" in repr(card)
    assert f"{card.summary['pds']:.4f}" in repr(card)
    html = card._repr_html_()
    assert "<table" in html and all(name in html for name in card.per_perturbation.index)


def test_a_long_card_shows_both_ends_of_its_perturbations(card):
    n = 2 * SHOWN + 1
    names = pd.Index([f"T{i:02}" for i in range(n)], name="target_gene")
    values = pd.DataFrame({"pds": np.linspace(0, 1, n)[::-1]}, index=names)
    html = ScoreCard("vcc2025", values, {})._repr_html_()
    assert [name for name in names if f"<th>{name}</th>" not in html] == [f"T{SHOWN:02}"]
    assert f"from each end of {n}: per_perturbation has all" in html


def test_overall_is_the_formula(pair, card):
    base = score(scoring.official_baseline(pair[1]), pair[1], threads=1)
    assert card.overall(base) == metrics.overall(card.summary, base.summary)
    assert base.overall(base) == 0
    assert score(pair[1], pair[1]).overall(base) == pytest.approx(100)


def test_a_baseline_of_another_truth_is_refused(card):
    other = ScoreCard("vcc2025", card.per_perturbation.iloc[1:], {})
    with pytest.raises(ValueError, match="score both against the same truth"):
        card.overall(other)
    with pytest.raises(ValueError, match="preset 'other'"):
        card.overall(ScoreCard("other", card.per_perturbation, {}))


@pytest.mark.parametrize(
    "text",
    [
        "no json",
        "[]",
        "{}",
        '{"preset": "vcc2025", "per_perturbation": [1], "settings": {}}',
        '{"preset": "vcc2025", "per_perturbation": {"A": {"des": "x"}}, "settings": {}}',
    ],
)
def test_a_file_that_is_no_card_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="x.json is not a score card .* vcc-helpers score --json"):
        ScoreCard.from_json(tmp_path / "x.json")


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch, card):
    path = tmp_path / "card.json"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        card.to_json(path)
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("nowhere/x.json", FileNotFoundError, "there is no folder .*nowhere; make it"),
        ("", IsADirectoryError, "it is a folder; name a file in it"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(name, error, words, tmp_path):
    with pytest.raises(error, match=words):
        write_whole(tmp_path / name, "text")
    assert not any(tmp_path.iterdir())


def test_evaluate_equals_the_card(pair, card):
    bulk = [pseudobulk(cells) for cells in pair]
    found = evaluation.evaluate(*bulk)
    expected = card.per_perturbation[["pds", "mae"]]
    pd.testing.assert_frame_equal(found[["pds", "mae"]], expected, rtol=1e-6)
    order = [4, 2, 0, 3, 1]
    shuffled = evaluation.evaluate(bulk[0][order], bulk[1])
    pd.testing.assert_frame_equal(shuffled, found)


def test_evaluate_refuses_what_does_not_match(bulk):
    with pytest.raises(KeyError, match="no row for 'G1'"):
        evaluation.evaluate(bulk[bulk.obs_names != "G1"], bulk)
    with pytest.raises(KeyError, match="no control row"):
        evaluation.evaluate(bulk[bulk.obs_names != CONTROL], bulk)
    with pytest.raises(ValueError, match="same genes in the same order"):
        evaluation.evaluate(bulk[:, ::-1], bulk)


def test_split_half_deals_every_cell_once(cells):
    first, second = scoring.split_half(cells, seed=3)
    assert sorted([*first.obs_names, *second.obs_names]) == sorted(cells.obs_names)
    sizes = [half.obs[KEY].value_counts().sort_index() for half in (first, second)]
    assert (sizes[0] - sizes[1]).isin([0, 1]).all()
    again = scoring.split_half(cells, seed=3)[0]
    assert again.obs_names.tolist() == first.obs_names.tolist()
    assert scoring.split_half(cells, seed=4)[0].obs_names.tolist() != first.obs_names.tolist()


def test_split_half_needs_two_cells():
    with pytest.raises(ValueError, match="'G0' has one cell only"):
        scoring.split_half(make_cells(n_cells=(1, 5, 5, 5, 9)))


def test_the_ceiling_is_a_half_scored_against_the_other(cells):
    first, second = scoring.split_half(cells, seed=5)
    found = scoring.split_half_ceiling(cells, seed=5, threads=1)
    pd.testing.assert_frame_equal(
        found.per_perturbation, score(first, second).per_perturbation, check_exact=True
    )


def test_the_official_baseline(cells, bulk):
    baseline = scoring.official_baseline(cells)
    sizes = cells.obs[KEY].value_counts()
    assert baseline.shape == cells.shape
    assert baseline.obs[KEY].value_counts().to_dict() == sizes.to_dict()
    made = dense_of(baseline[baseline.obs[KEY] != CONTROL].X)
    # the control's row counts as one more group
    np.testing.assert_allclose(made, np.tile(bulk.X.mean(axis=0), (len(made), 1)), rtol=1e-6)
    control = dense_of(baseline[baseline.obs[KEY] == CONTROL].X)
    np.testing.assert_array_equal(control, lognorm(cells)[(cells.obs[KEY] == CONTROL).to_numpy()])


def test_the_official_baseline_for_other_targets(any_storage):
    baseline = scoring.official_baseline(any_storage, n_cells={"NEW": 3, "G1": 2})
    made = baseline.obs[KEY].value_counts().to_dict()
    assert made == {"NEW": 3, "G1": 2, CONTROL: 60}


def test_the_official_baseline_needs_sound_cells(cells):
    with pytest.raises(ValueError, match="no control cells"):
        scoring.official_baseline(cells, control="ctrl")


def test_presets():
    assert presets.get_preset(presets.VCC2025) is presets.VCC2025
    with pytest.raises(KeyError, match="no preset 'vcc1999'; there is 'vcc2025'"):
        presets.get_preset("vcc1999")
    with pytest.raises(AttributeError):
        presets.VCC2025.fdr = 1


def test_the_seven_hold_the_three_and_survive_the_file(pair, tmp_path):
    seven, three = score(*pair, "vcc2025-generalist"), score(*pair)
    assert tuple(seven.per_perturbation) == presets.GENERALIST.metrics
    pd.testing.assert_frame_equal(
        seven.per_perturbation[["des", "pds", "mae"]], three.per_perturbation
    )
    assert seven.overall(seven) == three.overall(three)
    seven.to_json(tmp_path / "card.json")
    text = (tmp_path / "card.json").read_text()
    assert "NaN" not in text
    back = scoring.ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_frame_equal(back.per_perturbation, seven.per_perturbation)
    pd.testing.assert_series_equal(back.summary, seven.summary)


def test_a_mean_is_over_the_perturbations_that_have_a_value():
    table = pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [np.nan] * 3}, index=["x", "y", "z"])
    card = scoring.ScoreCard("vcc2025", table)
    assert card.summary["a"] == 2 and np.isnan(card.summary["b"])
    assert card.to_dict()["summary"] == {"a": 2.0, "b": None}


# --- what stands beside a score ------------------------------------------------------------------


def test_anchors_are_what_their_names_say(cells):
    beside = scoring.anchors(cells, n_halvings=3, seed=1)
    expected = [name for name in ANCHORS if name != "their means, drawn"]  # 2026's
    assert beside.index.tolist() == expected
    assert list(beside) == ["des", "pds", "mae"]
    truth = scoring.digest(cells)
    significant = truth.de.significant
    assert beside.loc["chance", "pds"] == metrics.pds_chance(len(significant))
    assert beside.loc["chance", "des"] == significant.mean() and np.isnan(
        beside.loc["chance", "mae"]
    )
    halves = [scoring.split_half_ceiling(cells, seed=s).summary for s in (1, 2, 3)]
    np.testing.assert_allclose(beside.loc["half against half"], pd.DataFrame(halves).mean())
    np.testing.assert_allclose(beside.loc["half against half, sd"], pd.DataFrame(halves).std())
    baseline = score(scoring.official_baseline(cells), cells)
    np.testing.assert_allclose(beside.loc["mean of these"], baseline.summary)
    perfect = beside.loc["real cells"]
    assert perfect["des"] == significant.any(axis=1).mean() and perfect["mae"] == 0
    assert (beside.loc[["real cells", "their means, replicated"], "pds"] == 1).all()


def test_perfect_means_replicated_lose_des_and_no_mean(cells):
    beside = scoring.anchors(cells, n_halvings=2)
    copies, drawn = (beside.loc[f"their means, {way}"] for way in ("replicated", "resampled"))
    assert copies["mae"] < 1e-6 < drawn["mae"] and drawn["pds"] > 0.5
    assert copies["des"] < beside.loc["real cells", "des"]


def test_a_random_list_hits_what_chance_says():
    """DES of genes called at random, as many as are real, over many draws."""
    rng = np.random.default_rng(0)
    real = rng.random((6, 50)) < rng.random((6, 1))
    found = [
        metrics.des(np.ones_like(real), rng.normal(size=real.shape), real).mean()
        for _ in range(2000)
    ]
    assert np.mean(found) == pytest.approx(real.mean(), abs=4 * np.std(found) / np.sqrt(2000))


def test_a_card_shows_and_keeps_its_anchors(pair, card, tmp_path):
    found = score(*pair, ceiling=True)
    pd.testing.assert_frame_equal(found.per_perturbation, card.per_perturbation)
    pd.testing.assert_frame_equal(found.anchors, scoring.anchors(pair[1]))
    assert card.anchors is None and "half against half" in repr(found)
    assert "half against half" in found._repr_html_() and "anchors" not in card.to_dict()
    found.to_json(tmp_path / "card.json")
    back = ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_frame_equal(back.anchors, found.anchors)
    assert repr(back) == repr(found) and "NaN" not in (tmp_path / "card.json").read_text()


def test_anchors_that_do_not_fit_the_memory_are_left_out(cells, monkeypatch):
    anchors = sys.modules["vcc_helpers.scoring.anchors"]
    monkeypatch.setattr(anchors, "_dense_bytes", lambda cells: 5e9)
    beside = scoring.anchors(cells, n_halvings=2, memory="4GB")
    assert beside.index.tolist() == [
        "chance", "half against half", "half against half, sd", "real cells",
    ]  # fmt: skip
