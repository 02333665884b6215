"""Tables, score cards, the same whatever the storage, and what they are held against."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, STORAGES, dense_of, make_cells, refuses, stored
from scipy.stats import false_discovery_control

from vcc_helpers import evaluation, lognorm, metrics, presets, pseudobulk, score, scoring
from vcc_helpers.counts import fold_change, log2
from vcc_helpers.datasets import load_h1_sample
from vcc_helpers.scoring import DETable, ScoreCard, de_table
from vcc_helpers.scoring.card import _SHOWN
from vcc_helpers.stream import rank_sum

SEVEN = "vcc2025-generalist"


@pytest.fixture(scope="module")
def pair():
    return make_cells(1), make_cells(0)


@pytest.fixture(scope="module")
def card(pair):
    return score(*pair)


@pytest.fixture(scope="module")
def seven(pair):
    return score(*pair, SEVEN)


@pytest.mark.parametrize("clip", [20, 8])
def test_the_clip_fills_in_where_a_mean_is_zero(clip):
    target = np.log1p([[0, 0, 3, 3, 1000], [0, 2, 0, 3, 1]])
    control = np.log1p([0, 0, 1, 3, 1])
    found, end = log2(fold_change(target, control, clip=clip)), np.log2(clip)
    expected = [[0, 0, np.log2(3), 0, np.log2(1000)], [0, end, -end, 0, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    assert found.dtype == np.float32


def test_significant_means_below_the_threshold_not_at_it():
    below = np.nextafter(np.float32(0.05), np.float32(0))
    fdr = np.array([[below, 0.05, 0.0500001]], np.float32)
    for threshold, called in ((0.05, [True, False, False]), (0.1, [True, True, True])):
        table = DETable(pd.Index(["A"]), pd.Index(list("abc")), fdr, fdr, fdr, fdr, threshold)
        assert table.significant.tolist() == [called]


def test_the_table_is_made_of_its_parts(cells):
    found = de_table(cells)
    values, labels = lognorm(cells), pd.Index(cells.obs[KEY])
    test = rank_sum(values, labels, control=CONTROL)
    assert found.perturbations.tolist() == ["G0", "G1", "G2", "no gene"]
    assert found.genes.tolist() == cells.var_names.tolist()
    np.testing.assert_array_equal(found.p_value, test.p_value)
    fdr = false_discovery_control(test.p_value, axis=None).reshape(test.p_value.shape)
    np.testing.assert_array_equal(found.fdr, fdr.astype(np.float32))
    names = [CONTROL, *found.perturbations]
    means = np.array([values[labels == n].mean(axis=0, dtype=np.float64) for n in names])[:, :-1]
    ratio = np.expm1(means[1:]) / np.expm1(means[0])
    ratio[ratio == 0] = 1 / 20
    np.testing.assert_allclose(found.log2_fold_change[:, :-1], np.log2(ratio), rtol=1e-4, atol=1e-5)
    assert (found.log2_fold_change[:, -1] == 0).all() and (found.p_value[:, -1] == 1).all()
    assert found.significant[0, 0]  # the silenced gene itself
    refuses("no control cells", de_table, cells, control="ctrl")
    refuses("only control cells", de_table, cells[labels == CONTROL])


def same(card, other):
    pd.testing.assert_frame_equal(card.per_perturbation, other.per_perturbation, check_exact=True)


@pytest.mark.parametrize("storage", [*STORAGES, "path", "lognorm", "both lognorm"])
def test_every_storage_scores_the_same_to_the_last_bit(storage, pair, seven, tmp_path, snapshot):
    (take, unchanged), (pred, real) = snapshot, pair
    if storage.endswith("lognorm"):
        pred, logged = (anndata.AnnData(lognorm(x), obs=x.obs, var=x.var) for x in pair)
        real = logged if storage[0] == "b" else real
    elif storage == "path":
        for name, cells in zip(("pred", "real"), pair, strict=True):
            cells.write_h5ad(tmp_path / f"{name}.h5ad")
        pred, real = tmp_path / "pred.h5ad", str(tmp_path / "real.h5ad")
    else:
        pred = stored(pred, storage, tmp_path)
    in_memory = isinstance(pred, anndata.AnnData) and not pred.isbacked
    before = take(pred) if in_memory else None
    same(score(pred, real, SEVEN, threads=1), seven)
    if before:  # the caller's cells are left alone
        unchanged(pred, before)


def test_names_of_column_and_control_can_be_others_and_labels_numbers(pair, card):
    number = {"G0": 10, "G1": 9, "G2": 100, "no gene": 1, CONTROL: 0}
    others = []
    for cells in pair:
        cells = cells.copy()
        cells.obs["gene"] = [number[x] for x in cells.obs.pop(KEY)]
        others.append(cells)
    found = score(*others, perturbation_key="gene", control="0", threads=1)
    assert found.per_perturbation.index.tolist() == ["1", "10", "100", "9"]
    assert found.settings["control"] == "0" and found.settings["perturbation_key"] == "gene"
    assert found.summary["mae"] == pytest.approx(card.summary["mae"], rel=1e-12)


def test_the_summary_is_the_mean_and_the_card_shows_itself(card):
    table = card.per_perturbation
    pd.testing.assert_series_equal(card.summary, table.mean(), check_names=False, rtol=1e-12)
    assert table.index.name == "target_gene" and list(table) == list(presets.VCC2025.metrics)
    assert "ScoreCard vcc2025, 4 perturbations" in repr(card)
    assert f"{card.summary['pds']:.4f}" in repr(card)
    assert all(f"<th>{name}</th>" in card._repr_html_() for name in table.index)
    gaps = ScoreCard("vcc2025", pd.DataFrame({"a": [1.0, np.nan, 3.0], "b": [np.nan] * 3}))
    assert gaps.to_dict()["summary"] == {"a": 2.0, "b": None}  # over those that have a value


def test_a_long_card_shows_both_ends_of_its_perturbations():
    n = 2 * _SHOWN + 1
    names = pd.Index([f"T{i:02}" for i in range(n)], name="target_gene")
    values = pd.DataFrame({"pds": np.linspace(0, 1, n)[::-1]}, index=names)
    html = ScoreCard("vcc2025", values, {})._repr_html_()
    assert [name for name in names if f"<th>{name}</th>" not in html] == [f"T{_SHOWN:02}"]
    assert f"from each end of {n}: per_perturbation has all" in html


def test_overall_is_the_formula(pair, card):
    base = scoring.baseline(pair[1])
    same(base, score(scoring.official_baseline(pair[1]), pair[1]))
    assert card.overall(base) == metrics.overall(card.summary, base.summary)
    assert base.overall(base) == 0
    perfect = score(pair[1], pair[1])
    assert perfect.summary.to_dict() == {"des": 1, "pds": 1, "mae": 0}
    assert perfect.overall(base) == pytest.approx(100)
    for other, words in (
        (ScoreCard("vcc2025", card.per_perturbation.iloc[1:]), "score both against the same truth"),
        (ScoreCard("other", card.per_perturbation), "preset 'other'"),
    ):
        refuses(words, card.overall, other)


def test_the_seven_hold_the_three_and_survive_the_file(seven, card, tmp_path):
    assert list(seven.per_perturbation) == [
        *("des", "pds", "mae"),
        *("deg_count_spearman", "lfc_spearman", "pr_auc", "pearson_delta"),
    ]
    pd.testing.assert_frame_equal(seven.per_perturbation[list(card.summary.index)], card.counted)
    assert seven.overall(seven) == card.overall(card)
    seven.to_json(tmp_path / "card.json")
    assert [p.name for p in tmp_path.iterdir()] == ["card.json"]
    assert "NaN" not in (tmp_path / "card.json").read_text()
    back = ScoreCard.from_json(tmp_path / "card.json")
    same(back, seven)
    assert back.to_dict() == seven.to_dict()


def a_card(table, **more):
    return json.dumps({"preset": "vcc2025", "per_perturbation": table, "settings": {}} | more)


MISSED = ["abc", [1], None, 5, {"pds": ["X"]}, {"x": []}, {"pds": 1}]
NO_CARDS = ["no json", "[]", a_card([1]), a_card({"A": {"des": "x"}})]
NO_CARDS += [a_card({name: {"mae": 1e308} for name in "AB"})]  # whose mean is infinite
NO_CARDS += [a_card({"A": {"pds": 1}}, missed=missed) for missed in MISSED]


@pytest.mark.parametrize("text", NO_CARDS)
def test_a_file_that_is_no_card_is_refused(text, tmp_path):
    (tmp_path / "x.json").write_text(text)
    too_large = "not finite, or too large.*" if "e+308" in text else ""
    words = f"x.json is not a score card .*{too_large}vcc-helpers score --json"
    refuses(words, ScoreCard.from_json, tmp_path / "x.json")


def test_a_card_is_written_where_a_file_can_be(tmp_path, card):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere; make it"):
        card.to_json(tmp_path / "nowhere/x.json")
    refuses("it is a folder; name a file in it", card.to_json, tmp_path, error=IsADirectoryError)


def test_evaluate_equals_the_card_or_refuses(pair, card):
    bulk, real = (pseudobulk(cells) for cells in pair)
    found = evaluation.evaluate(bulk, real)
    expected = card.per_perturbation[["pds", "mae"]]
    pd.testing.assert_frame_equal(found[["pds", "mae"]], expected, rtol=1e-6)
    with pytest.raises(KeyError, match="no row for 'G1'"):
        evaluation.evaluate(bulk[bulk.obs_names != "G1"], real)
    with pytest.raises(KeyError, match="no control row"):
        evaluation.evaluate(bulk[bulk.obs_names != CONTROL], real)
    refuses("same genes in the same order", evaluation.evaluate, bulk[:, ::-1], real)


def test_no_answer_is_the_worst_where_the_truth_has_one(tmp_path):
    """A rank correlation of equal changes is no number; leaving it out of the mean would pay."""
    real = load_h1_sample()
    pred = real.copy()
    pred.X = pred.X.toarray()
    alike = np.flatnonzero(real.obs[KEY].isin(["TET1", CONTROL]))
    pred.X[alike] = pred.X[alike[0]]
    card, known = score(pred, real, SEVEN), score(real, real, SEVEN).per_perturbation.notna()
    for name in ("lfc_spearman", "pearson_delta"):
        values = card.per_perturbation[name]
        lost = values.index[values.isna() & known[name]]
        assert list(lost) == card.missed[name] == ["TET1"]
        assert card.summary[name] == pytest.approx(values[known[name]].fillna(-1).mean())
    card.to_json(tmp_path / "card.json")
    again = ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_series_equal(again.summary, card.summary)


def test_split_half_takes_every_cell_once(cells):
    first, second = scoring.split_half(cells, seed=3)
    assert sorted([*first.obs_names, *second.obs_names]) == sorted(cells.obs_names)
    sizes = [half.obs[KEY].value_counts().sort_index() for half in (first, second)]
    assert (sizes[0] - sizes[1]).isin([0, 1]).all()
    again = scoring.split_half(cells, seed=3)[0]
    assert again.obs_names.tolist() == first.obs_names.tolist()
    assert scoring.split_half(cells, seed=4)[0].obs_names.tolist() != first.obs_names.tolist()
    same(scoring.split_half_ceiling(cells, seed=3), score(first, second))
    with pytest.raises(ValueError, match="a group of one cell has no halves: 'G0'"):
        scoring.split_half(make_cells(n_cells=(1, 5, 5, 5, 9)))


@pytest.mark.parametrize(("preset", "group"), [("vcc2025", "G0"), ("vcc2026", CONTROL)])
def test_a_group_of_one_cell_costs_no_score(preset, group):
    cells = make_cells(1, n_cells=(10, 11, 9, 10, 20))
    rows = np.flatnonzero(cells.obs[KEY] == group)
    cells = cells[np.delete(np.arange(cells.n_obs), rows[1:])].copy()
    words = f"a group of one cell has no halves: '{group}'"
    with pytest.warns(UserWarning) as told:
        card = score(cells, cells, preset, ceiling=True)
    said = [str(warning.message) for warning in told if warning.category is UserWarning]
    assert words in said[0]
    assert not any(issubclass(warning.category, RuntimeWarning) for warning in told)  # NumPy's
    same(card, score(cells, cells, preset))
    if preset == "vcc2025":
        assert not card.anchors.index.str.startswith("half").any()
        assert "real cells" in card.anchors.index
    else:  # from one control cell no counts can be drawn
        assert card.anchors is None and "nothing to hold the score against" in said[-1]
    for repeat in (scoring.replicates, *([scoring.baseline] if preset == "vcc2026" else ())):
        refuses(words, repeat, cells, preset)


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
    refuses("no control cells", scoring.official_baseline, cells, control="ctrl")


@pytest.mark.parametrize("storage", ["csc", "backed csr"])
def test_the_official_baseline_for_other_targets(storage, tmp_path):
    cells = stored(make_cells(), storage, tmp_path)
    baseline = scoring.official_baseline(cells, n_cells={"NEW": 3, "G1": 2})
    made = baseline.obs[KEY].value_counts().to_dict()
    assert made == {"NEW": 3, "G1": 2, CONTROL: 60}


def test_anchors_are_what_their_names_say(pair):
    cells = pair[1]
    beside = scoring.anchors(cells, n_halvings=3, seed=1)
    assert beside.index.tolist() == [
        "chance", "mean of these", "half-data repeat", "half-data repeat, sd",
        "their means, resampled", "their means, replicated", "real cells",
    ]  # fmt: skip
    assert list(beside) == ["des", "pds", "mae"]
    significant = scoring.digest(cells).de.significant
    assert beside.loc["chance", "pds"] == metrics.pds_chance(len(significant))
    assert beside.loc["chance", "des"] == significant.mean()
    assert np.isnan(beside.loc["chance", "mae"])
    halves = [scoring.split_half_ceiling(cells, seed=s).summary for s in (1, 2, 3)]
    np.testing.assert_allclose(beside.loc["half-data repeat"], pd.DataFrame(halves).mean())
    np.testing.assert_allclose(beside.loc["half-data repeat, sd"], pd.DataFrame(halves).std())
    np.testing.assert_allclose(beside.loc["mean of these"], scoring.baseline(cells).summary)
    perfect = beside.loc["real cells"]
    assert perfect["des"] == significant.any(axis=1).mean() and perfect["mae"] == 0
    assert (beside.loc[["real cells", "their means, replicated"], "pds"] == 1).all()
    copies, drawn = (beside.loc[f"their means, {way}"] for way in ("replicated", "resampled"))
    assert copies["mae"] < 1e-6 < drawn["mae"] and drawn["pds"] > 0.5
    assert copies["des"] < perfect["des"]


def test_a_card_shows_and_keeps_its_anchors(pair, card, tmp_path):
    found = score(*pair, ceiling=True)
    same(found, card)
    pd.testing.assert_frame_equal(found.anchors, scoring.anchors(pair[1]))
    assert card.anchors is None and "half-data repeat" in repr(found)
    assert "half-data repeat" in found._repr_html_() and "anchors" not in card.to_dict()
    found.to_json(tmp_path / "card.json")
    back = ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_frame_equal(back.anchors, found.anchors)
    assert repr(back) == repr(found) and "NaN" not in (tmp_path / "card.json").read_text()
