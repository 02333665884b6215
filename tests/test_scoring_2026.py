"""The rules of 2026: what is refused, whose controls count, and the scale of the overall score."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from vcc_helpers import classroom, cli, datasets, metrics, presets, scoring
from vcc_helpers.scoring import ScoreCard, score
from vcc_helpers.scoring.anchors import ANCHORS
from vcc_helpers.scoring.card import REPLICATE
from vcc_helpers.stream import contrast

RULES = "vcc2026"


@pytest.fixture(scope="module")
def sample():
    return datasets.load_h1_sample()


@pytest.fixture(scope="module")
def halves(sample):
    return scoring.split_half(sample)


@pytest.fixture(scope="module")
def card(halves):
    return score(*halves, RULES)


def changed(cells, change):
    cells = cells.copy()
    cells.X = cells.X.astype(np.float64)
    change(cells)
    return cells


def test_own_controls_are_not_looked_at(halves, card):
    pred, real = halves
    without = pred[pred.obs["target_gene"] != "non-targeting"]
    other = changed(
        pred, lambda c: c.X.__setitem__((c.obs["target_gene"] == "non-targeting").to_numpy(), 7)
    )
    for cells in (without, other):
        assert score(cells, real, RULES).per_perturbation.equals(card.per_perturbation)
    with pytest.raises(ValueError, match="no control cells"):
        score(without, real)


@pytest.mark.parametrize("scale", [1.0001, 0.5])
def test_fractions_are_refused(halves, scale):
    pred, real = halves
    bad = changed(pred, lambda c: c.X.__imul__(scale))
    for pair, name in (((bad, real), "pred"), ((pred, bad), "real")):
        with pytest.raises(ValueError, match=f"{name}: values have fractions.*raw counts"):
            score(*pair, RULES)


def test_fractions_below_the_tolerance_pass(halves, card):
    pred, real = halves
    near = changed(pred, lambda c: c.X.data.__iadd__(1e-9))
    found = score(near, real, RULES).summary
    np.testing.assert_allclose(found, card.summary, atol=0.05)


def test_negative_counts_and_huge_cells_are_refused(halves):
    pred, real = halves
    for value, words in ((-1.0, "negative values"), (2e6, "expected at most 1,000,000 a cell")):
        bad = changed(pred, lambda c, v=value: c.X.data.__setitem__(0, v))
        with pytest.raises(ValueError, match=f"pred: .*{words}"):
            score(bad, real, RULES)


def test_labels_that_are_no_genes_are_refused(halves):
    pair = [half.copy() for half in halves]
    for cells in pair:
        names = cells.obs["target_gene"].astype(str)
        cells.obs["target_gene"] = names.where(names == "non-targeting", names + "-1")
    with pytest.raises(ValueError, match="none of the 5 perturbations is named after a gene"):
        score(*pair, RULES)


def test_a_panel_of_targets_only_is_refused(halves):
    names = halves[0].obs["target_gene"].unique()
    pair = [half[:, half.var_names.isin(names)] for half in halves]
    with pytest.raises(ValueError, match="real: each of the 1 genes is a target"):
        score(*pair, RULES)


@pytest.mark.parametrize("how", ["memory", "path", "sorted", "float64", "cache", "zarr"])
def test_every_path_gives_the_same_bits(sample, halves, card, how, tmp_path):
    pred, real = halves
    kw = {}
    if how == "memory":
        kw = {"memory": "500MB", "threads": 1}
    if how in ("path", "cache"):
        files = [tmp_path / name for name in ("pred.h5ad", "real.h5ad")]
        for cells, file in zip(halves, files, strict=True):
            cells.to_memory().write_h5ad(file)
        pred, real = files
        kw = {"cache": tmp_path / "kept"} if how == "cache" else {}
    if how == "zarr":
        pred.to_memory().write_zarr(tmp_path / "pred.zarr")
        pred = tmp_path / "pred.zarr"
    if how == "sorted":
        order = np.argsort(pred.obs["target_gene"].astype(str), kind="stable")
        pred = pred[order]
    if how == "float64":
        real = changed(real, lambda c: None)
    for _ in range(2 if how == "cache" else 1):
        found = score(pred, real, RULES, **kw)
        assert found.per_perturbation.equals(card.per_perturbation)


def test_the_family_of_a_rate_is_the_records_choice(sample):
    """Pooled over a file or taken for each perturbation, in either season."""
    for rules in (presets.VCC2025, presets.VCC2026):
        file, each = (
            scoring.digest(sample, replace(rules, fdr_family=family)).de
            for family in ("file", "perturbation")
        )
        tested = ~np.isnan(each.log2_fold_change[0])
        for row in range(len(each.p_value)):
            alone = false_discovery_control(each.p_value[row, tested])
            np.testing.assert_allclose(each.fdr[row, tested], alone, rtol=1e-6)
        assert (file.fdr != each.fdr).any()


def test_controls_of_another_file_need_its_genes_and_a_scale(halves):
    pred, real = halves
    with pytest.raises(ValueError, match="need counts on both sides and one scale"):
        contrast(pred, controls=real)
    with pytest.raises(ValueError, match="controls: other genes than cells"):
        contrast(pred, controls=real[:, real.var_names[::-1]], rules=presets.VCC2026)
    assert contrast(pred, controls=real, rules=presets.VCC2026).p_value.shape == (5, 1000)


def test_a_cache_keeps_seasons_apart(halves, card, tmp_path):
    for rules in ("vcc2025", RULES, "vcc2025"):
        found = score(*halves, rules, cache=tmp_path).per_perturbation
        assert found.equals(score(*halves, rules).per_perturbation)


def test_baseline_is_0_and_a_replicate_100(sample, tmp_path):
    base, repeats = scoring.baseline(sample, RULES), scoring.replicates(sample)
    assert base.overall(base) == 0
    assert len(repeats) == 5
    mean = repeats.mean()
    assert metrics.overall(mean, base.summary, *base.scale) == pytest.approx(100)
    perfect = score(sample, sample, RULES)
    assert perfect.overall(base) > 100
    with pytest.raises(ValueError, match="scored without; make it with scoring.baseline"):
        perfect.overall(perfect)
    base.to_json(tmp_path / "base.json")
    assert perfect.overall(ScoreCard.from_json(tmp_path / "base.json")) == perfect.overall(base)


def test_baseline_of_2025_is_the_official_one(sample):
    theirs = score(scoring.official_baseline(sample), sample)
    assert scoring.baseline(sample).per_perturbation.equals(theirs.per_perturbation)


def test_a_leaderboard_of_2026(sample, halves):
    base = scoring.baseline(sample, RULES)
    cards = {"itself": score(sample, sample, RULES), "half": score(halves[0], sample, RULES)}
    ranked = classroom.rank(cards, base)
    assert ranked.index.tolist() == ["itself", "half"]
    assert ranked.loc["itself", "overall"] == cards["itself"].overall(base)
    doubts = classroom.doubt(cards, base, n_boot=200)
    assert (doubts["low"] < doubts["high"]).all()  # finite, too
    assert "half" in classroom.board(cards, base, n_boot=50)


def test_the_ends_of_a_measured_scale_are_not_drawn_anew(sample):
    """An entry that is equally good everywhere has no doubt, however the baseline varies."""
    base = scoring.baseline(sample, RULES)
    even = base.per_perturbation.assign(**base.anchors.loc[REPLICATE].to_dict())
    found = classroom.doubt({"even": ScoreCard(RULES, even)}, base, n_boot=50)
    np.testing.assert_allclose(found.loc["even", ["overall", "low", "high"]].astype(float), 100)


def test_a_replicate_no_better_than_the_mean_makes_no_scale(sample):
    base = scoring.baseline(sample, RULES)
    worse = base.anchors.assign(lfc_nmae=base.summary["lfc_nmae"] + 0.1)
    with pytest.raises(ValueError, match="no scale: .* on lfc_nmae .* against"):
        base.overall(ScoreCard(base.preset, base.per_perturbation, {}, worse))


def test_the_scale_holds_each_metric_within_its_limits():
    limits = presets.VCC2026.limits
    worst = metrics.scaled(50.0, 1.0, 0.4, limits["lfc_nmae"])
    assert worst == -6
    assert metrics.scaled(-3.0, 0.99, 0.03, limits["mse_normalized"]) == 1
    assert metrics.scaled(2.0, 0.99, 0.03, limits["mse_normalized"]) == 0
    assert metrics.scaled(np.nan, 0.99, 0.03, limits["mse_normalized"]) == 0
    # without a limit, no value counts as 0
    assert metrics.scaled(np.nan, 0.5, 0.8, limits["direction_fidelity"]) == pytest.approx(
        -0.5 / 0.3
    )
    assert metrics.scaled(np.nan, 0.5, 0.8, limits["direction_fidelity"]) == metrics.scaled(
        0.0, 0.5, 0.8, limits["direction_fidelity"]
    )


def test_anchors_of_2026(sample):
    beside = scoring.anchors(sample, RULES, n_halvings=2)
    assert beside.index.tolist() == [n for n in ANCHORS if n != "their means, resampled"]
    real, drawn = beside.loc["real cells"], beside.loc["their means, drawn"]
    assert real[["pds_cosine", "direction_reach", "significant_jaccard"]].eq(1).all()
    assert beside.loc["their means, replicated", "significant_jaccard"] < 0.2 < drawn.iloc[4]
    np.testing.assert_array_equal(
        beside.loc["half against half"], scoring.replicates(sample, n_splits=2).mean()
    )


def test_a_season_is_nothing_but_its_record():
    """No other module compares with a season's name or record."""
    for file in sorted(Path(presets.__file__).parent.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                assert "vcc20" not in text.lower(), f"{file.name}: {text}"


def test_the_command_scores_and_scales(sample, halves, tmp_path, capsys):
    files = [str(tmp_path / name) for name in ("pred.h5ad", "real.h5ad")]
    for cells, file in zip((halves[0], sample), files, strict=True):
        cells.to_memory().write_h5ad(file)
    base = scoring.baseline(sample, RULES)
    base.to_json(tmp_path / "base.json")
    extra = ["--preset", RULES, "--baseline", str(tmp_path / "base.json")]
    assert cli.main(["score", *files, *extra, "--json", str(tmp_path / "card.json")]) == 0
    card = ScoreCard.from_json(tmp_path / "card.json")
    expected = card.overall(base)
    assert f"overall {expected:.2f}, baseline 0, replicate 100" in capsys.readouterr().out
