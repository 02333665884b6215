"""A leaderboard: ranks by hand, thresholds, ties, and which places are really different."""

import numpy as np
import pandas as pd
import pytest

from vcc_helpers import ScoreCard, leaderboard

NAMES = [f"T{i:03d}" for i in range(60)]


def card(des, pds, mae, *, spread=0.0, seed=0, names=NAMES, preset="vcc2025", **more):
    rng = np.random.default_rng(seed)
    values = {"des": des, "pds": pds, "mae": mae, **more}
    table = pd.DataFrame(
        {name: value + spread * rng.normal(size=len(names)) for name, value in values.items()},
        index=pd.Index(names, name="target_gene"),
    )
    return ScoreCard(preset, table)


BASE = card(0.1, 0.5, 0.04)


def test_places_and_ranks_by_hand():
    cards = {
        "bold": card(0.3, 0.9, 1.0),
        "quiet": card(0.1, 0.5, 0.02),
        "even": card(0.2, 0.7, 0.036),
    }
    board = leaderboard.rank(cards, BASE)
    assert board.index.tolist() == ["bold", "even", "quiet"]
    assert board["place"].tolist() == [1, 2, 3]
    want = [100 * (0.2 / 0.9 + 0.8) / 3, 100 * (0.1 / 0.9 + 0.4 + 0.1) / 3, 100 * 0.5 / 3]
    np.testing.assert_allclose(board["overall"], want)
    np.testing.assert_allclose(board["mean rank"], [(1 + 1 + 3) / 3, 2, (3 + 3 + 1) / 3])
    assert board["below baseline"].tolist() == ["mae", "", ""]
    np.testing.assert_array_equal(board["qualified place"], [np.nan, 1, 2])


def test_equal_entries_share_a_place():
    cards = {"a": card(0.2, 0.7, 0.04), "b": card(0.2, 0.7, 0.04), "c": BASE}
    board = leaderboard.rank(cards, BASE)
    assert board["place"].to_dict() == {"a": 1, "b": 1, "c": 3}
    assert board["mean rank"].to_dict() == {
        "a": (1.5 + 1.5 + 2) / 3,
        "b": (1.5 + 1.5 + 2) / 3,
        "c": 8 / 3,
    }
    found = leaderboard.doubt(cards, BASE)
    assert found["beats next"].iloc[0] == 0.5


def test_seven_metrics_count_in_the_mean_rank_and_a_missing_value_is_worst():
    more = {"pr_auc": 0.3, "lfc_spearman": 0.2}
    seven = {"a": card(0.2, 0.7, 0.04, **more), "b": card(0.1, 0.5, 0.04, **more)}
    base = card(0.1, 0.5, 0.04, **more)
    seven["a"].per_perturbation["lfc_spearman"] = np.nan
    board = leaderboard.rank(seven, base)
    assert board.loc["a", "mean rank"] == (1 + 1 + 1.5 + 1.5 + 2) / 5
    assert board.loc["a", "below baseline"] == "lfc_spearman"


def test_entries_that_differ_by_luck_only_are_seldom_told_apart():
    """Two draws of one distribution: the order is called sure about once in twenty."""
    sure = 0
    for seed in range(0, 120, 2):
        cards = {f"e{s}": card(0.2, 0.7, 0.03, spread=0.1, seed=s) for s in (seed, seed + 1)}
        found = leaderboard.doubt(cards, BASE, n_boot=400)
        assert (found["low"] < found["overall"]).all() and (found["overall"] < found["high"]).all()
        sure += found["beats next"].iloc[0] > 0.975
    assert sure <= 9  # of 60; three expected


def test_a_steady_lead_is_sure_however_hard_the_perturbations_are():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.2, len(NAMES))
    cards = {"ahead": card(0.35, 0.75, 0.03), "behind": card(0.3, 0.7, 0.03)}
    for each in cards.values():
        each.per_perturbation["pds"] += hard  # the same for all
    found = leaderboard.doubt(cards, BASE)
    assert found.index[0] == "ahead" and found["beats next"].iloc[0] == 1
    assert found.loc["ahead", ["best place", "worst place"]].tolist() == [1, 1]
    assert found.loc["ahead", "low"] < found.loc["behind", "high"]  # the intervals overlap


def test_the_interval_is_a_bootstrap_of_the_overall_score():
    cards = {"a": card(0.2, 0.7, 0.03, spread=0.1, seed=4)}
    found = leaderboard.doubt(cards, BASE, n_boot=300, seed=7)
    rng = np.random.default_rng(7)
    rows = rng.integers(len(NAMES), size=(300, len(NAMES)))
    by_hand = []
    for draw in rows:
        pick = [
            ScoreCard("vcc2025", c.per_perturbation.iloc[draw].set_axis(NAMES))
            for c in (cards["a"], BASE)
        ]
        by_hand.append(pick[0].overall(pick[1]))
    np.testing.assert_allclose(found[["low", "high"]].iloc[0], np.quantile(by_hand, [0.025, 0.975]))


@pytest.mark.parametrize(
    ("cards", "says"),
    [
        ({}, "no entry"),
        ({"x": card(0.1, 0.5, 0.1, names=NAMES[:9])}, "entry 'x' is of preset 'vcc2025' with 9"),
        ({"x": card(0.1, 0.5, 0.1, preset="other")}, "preset 'other'"),
        ({"x": card(0.1, 0.5, 0.1, pr_auc=0.1)}, "metrics des, pds, mae, pr_auc"),
    ],
)
def test_what_cannot_be_ranked(cards, says):
    for function in (leaderboard.rank, leaderboard.doubt):
        with pytest.raises(ValueError, match=says):
            function(cards, BASE)
    with pytest.raises(ValueError, match="level=95"):
        leaderboard.doubt({"a": BASE}, BASE, level=95)
