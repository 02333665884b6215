"""The rules of 2026: what is refused, whose controls count, and the scale of the overall score."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import refuses
from scipy.stats import false_discovery_control

from vcc_helpers import classroom, datasets, metrics, presets, scoring
from vcc_helpers.scoring import ScoreCard, score
from vcc_helpers.scoring.card import REPLICATE
from vcc_helpers.stream import contrast

RULES = "vcc2026"


@pytest.fixture(scope="module")
def sample():
    return datasets.load_h1_sample()


@pytest.fixture(scope="module")
def halves(sample):
    return [half.to_memory() for half in scoring.split_half(sample)]


@pytest.fixture(scope="module")
def card(halves):
    return score(*halves, RULES)


@pytest.fixture(scope="module")
def base(sample):
    return scoring.baseline(sample, RULES)


@pytest.fixture(scope="module")
def perfect(sample):
    return score(sample, sample, RULES)


def changed(cells, change):
    cells = cells.copy()
    cells.X = cells.X.astype(np.float64)
    change(cells)
    return cells


def test_own_controls_are_not_looked_at(halves, card):
    pred, real = halves
    is_control = (pred.obs["target_gene"] == "non-targeting").to_numpy()
    for cells in (pred[~is_control], changed(pred, lambda c: c.X.__setitem__(is_control, 7))):
        assert score(cells, real, RULES).per_perturbation.equals(card.per_perturbation)
    refuses("no control cells", score, pred[~is_control], real)


def test_what_is_no_count_is_refused(halves, card):
    pred, real = halves
    bad = changed(pred, lambda c: c.X.__imul__(1.0001))
    for pair, name in (((bad, real), "pred"), ((pred, bad), "real")):
        refuses(f"{name}: values have fractions.*raw counts", score, *pair, RULES)
    for value, words in ((-1.0, "negative values"), (2e6, "expected at most 1,000,000 a cell")):
        bad = changed(pred, lambda c, v=value: c.X.data.__setitem__(0, v))
        refuses(f"pred: .*{words}", score, bad, real, RULES)
    near = changed(pred, lambda c: c.X.data.__iadd__(1e-9))  # below the tolerance
    np.testing.assert_allclose(score(near, real, RULES).summary, card.summary, atol=0.05)


def test_panels_that_leave_nothing_to_compare_are_refused(halves):
    pair = [half.copy() for half in halves]
    for cells in pair:
        names = cells.obs["target_gene"].astype(str)
        cells.obs["target_gene"] = names.where(names == "non-targeting", names + "-1")
    refuses("none of the 5 perturbations is named after a gene", score, *pair, RULES)
    names = halves[0].obs["target_gene"].unique()
    pair = [half[:, half.var_names.isin(names)] for half in halves]
    refuses("real: each of the 1 genes is a target", score, *pair, RULES)


@pytest.mark.parametrize("how", ["memory", "path", "sorted", "float64", "zarr"])
def test_every_path_gives_the_same_bits(halves, card, how, tmp_path):
    pred, real = halves
    kw = {}
    if how == "memory":
        kw = {"memory": "500MB", "threads": 1}
    elif how == "path":
        pred, real = tmp_path / "pred.h5ad", tmp_path / "real.h5ad"
        halves[0].write_h5ad(pred)
        halves[1].write_h5ad(real)
    elif how == "zarr":
        pred.write_zarr(tmp_path / "pred.zarr")
        pred = tmp_path / "pred.zarr"
    elif how == "sorted":
        pred = pred[np.argsort(pred.obs["target_gene"].astype(str), kind="stable")]
    else:
        real = changed(real, lambda c: None)
    assert score(pred, real, RULES, **kw).per_perturbation.equals(card.per_perturbation)


def test_what_is_kept_is_kept_apart_for_each_season(halves, card, tmp_path):
    pair, kept = [half[:, -40:].copy() for half in halves], {"cache": tmp_path / "kept"}
    first, other = (score(*pair, rules, **kept) for rules in ("vcc2025", RULES))
    for card, rules in ((first, "vcc2025"), (other, RULES)):
        again = score(*pair, rules, **kept)
        assert again.per_perturbation.equals(card.per_perturbation)
        assert again.per_perturbation.equals(score(*pair, rules).per_perturbation)


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


def test_genes_that_the_controls_hardly_show_are_not_tested(sample):
    is_control = (sample.obs["target_gene"] == "non-targeting").to_numpy()
    keep = np.ones(sample.shape)
    keep[is_control, 3] = 0
    cells = sample.copy()
    cells.X = cells.X.multiply(keep).tocsr()
    table = scoring.digest(cells, RULES).de
    assert np.flatnonzero(np.isnan(table.log2_fold_change).all(axis=0)).tolist() == [3]
    assert (table.fdr[:, 3] == 1).all() and (table.p_value[:, 3] == 1).all()


def test_the_silenced_gene_counts_in_no_metric_of_calls(halves):
    pair = [scoring.digest(half, RULES) for half in halves]
    table = pair[1].de
    own = table.perturbations.to_numpy()[:, None] == table.genes.to_numpy()
    calls = [digest.de.significant for digest in pair]
    expected = metrics.significant_jaccard(*(called & ~own for called in calls))
    assert (expected != metrics.significant_jaccard(*calls)).any()
    found = scoring.compare(*pair, RULES)
    np.testing.assert_array_equal(found["significant_jaccard"], expected)


def test_controls_of_another_file_need_its_genes_and_a_scale(halves):
    pred, real = halves
    refuses("need counts on both sides and one scale", contrast, pred, controls=real)
    with pytest.raises(ValueError, match="controls: other genes than cells"):
        contrast(pred, controls=real[:, real.var_names[::-1]], rules=presets.VCC2026)


def test_baseline_is_0_and_a_replicate_100(sample, base, perfect, tmp_path):
    assert base.overall(base) == 0
    replicate = base.anchors.loc[REPLICATE]
    assert metrics.overall(replicate, base.summary, *base.scale) == pytest.approx(100)
    assert perfect.overall(base) > 100
    refuses("scored without; make it with scoring.baseline", perfect.overall, perfect)
    base.to_json(tmp_path / "base.json")
    assert perfect.overall(ScoreCard.from_json(tmp_path / "base.json")) == perfect.overall(base)
    worse = base.anchors.assign(lfc_nmae=base.summary["lfc_nmae"] + 0.1)
    with pytest.raises(ValueError, match="no scale: .* on lfc_nmae .* against"):
        base.overall(ScoreCard(base.preset, base.per_perturbation, {}, worse))


def test_a_leaderboard_of_2026(base, perfect, card):
    cards = {"itself": perfect, "half": ScoreCard(RULES, card.per_perturbation)}
    ranked = classroom.rank(cards, base)
    assert ranked.index.tolist() == ["itself", "half"]
    assert ranked.loc["itself", "overall"] == perfect.overall(base)
    doubts = classroom.doubt(cards, base, n_boot=50)
    assert (doubts["low"] < doubts["high"]).all()  # finite, too
    assert "half" in classroom.board(cards, base)
    # an entry that is equally good everywhere has no doubt, however the baseline varies
    even = base.per_perturbation.assign(**base.anchors.loc[REPLICATE].to_dict())
    found = classroom.doubt({"even": ScoreCard(RULES, even)}, base, n_boot=50)
    np.testing.assert_allclose(found.loc["even", ["overall", "low", "high"]].astype(float), 100)


def test_the_scale_holds_each_metric_within_its_limits():
    limits = presets.VCC2026.limits
    assert metrics.scaled(50.0, 1.0, 0.4, limits["lfc_nmae"]) == -6
    for value, expected in ((-3.0, 1), (2.0, 0), (np.nan, 0)):
        assert metrics.scaled(value, 0.99, 0.03, limits["mse_normalized"]) == expected
    for value in (np.nan, 0.0):  # without a limit, no value counts as 0
        found = metrics.scaled(value, 0.5, 0.8, limits["direction_fidelity"])
        assert found == pytest.approx(-0.5 / 0.3)


def test_anchors_of_2026(sample):
    beside = scoring.anchors(sample, RULES, n_halvings=2)
    assert beside.index.tolist() == [
        *("chance", "mean of these", "half-data repeat", "half-data repeat, sd"),
        *("their means, drawn", "their means, replicated", "real cells"),
    ]
    real, drawn = beside.loc["real cells"], beside.loc["their means, drawn"]
    assert real[["pds_cosine", "direction_reach", "significant_jaccard"]].eq(1).all()
    copies = beside.loc["their means, replicated", "significant_jaccard"]
    assert copies < 0.2 < drawn["significant_jaccard"]
    repeats = scoring.replicates(sample, n_splits=2)
    np.testing.assert_array_equal(beside.loc[REPLICATE], repeats.mean())


def test_a_season_is_nothing_but_its_record():
    """No module compares with a season's name or record."""
    for file in sorted(Path(presets.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare):
                text = ast.unparse(node)
                assert "vcc20" not in text.lower(), f"{file.name}: {text}"
