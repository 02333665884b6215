"""A leaderboard: ranks by hand, thresholds, ties, places really different, and its page."""

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from vcc_helpers import ScoreCard, classroom
from vcc_helpers.classroom.page import page
from vcc_helpers.scoring.card import together

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
SEVEN = card(0.1, 0.5, 0.04, pr_auc=0.3, lfc_spearman=0.2)
THREE = {"bold": card(0.3, 0.9, 1.0), "quiet": card(0.1, 0.5, 0.02), "even": card(0.2, 0.7, 0.036)}


def test_places_and_ranks_by_hand():
    board = classroom.rank(THREE, BASE)
    assert board.index.tolist() == ["bold", "even", "quiet"]
    assert board["place"].tolist() == [1, 2, 3]
    want = [100 * (0.2 / 0.9 + 0.8) / 3, 100 * (0.1 / 0.9 + 0.4 + 0.1) / 3, 100 * 0.5 / 3]
    np.testing.assert_allclose(board["overall"], want)
    np.testing.assert_allclose(board["mean rank"], [(1 + 1 + 3) / 3, 2, (3 + 3 + 1) / 3])
    assert board["below baseline"].tolist() == ["mae", "", ""]
    np.testing.assert_array_equal(board["qualified place"], [np.nan, 1, 2])


def test_equal_entries_share_a_place():
    cards = {"a": card(0.2, 0.7, 0.04), "b": card(0.2, 0.7, 0.04), "c": BASE}
    board = classroom.rank(cards, BASE)
    assert board["place"].to_dict() == {"a": 1, "b": 1, "c": 3}
    assert board["mean rank"].tolist() == [5 / 3, 5 / 3, 8 / 3]
    found = classroom.doubt(cards, BASE)
    assert found["beats next"].iloc[0] == 0.5


def test_seven_metrics_count_in_the_mean_rank_and_a_missing_value_is_worst():
    more = {"pr_auc": 0.3, "lfc_spearman": 0.2}
    seven = {"a": card(0.2, 0.7, 0.04, **more), "b": card(0.1, 0.5, 0.04, **more)}
    base = card(0.1, 0.5, 0.04, **more)
    seven["a"].per_perturbation["lfc_spearman"] = np.nan
    board = classroom.rank(seven, base)
    assert board.loc["a", "mean rank"] == (1 + 1 + 1.5 + 1.5 + 2) / 5
    assert board.loc["a", "below baseline"] == "lfc_spearman"


def test_a_steady_lead_is_clear_however_hard_the_perturbations_are():
    rng = np.random.default_rng(0)
    hard = rng.normal(0, 0.2, len(NAMES))
    cards = {"ahead": card(0.35, 0.75, 0.03), "behind": card(0.3, 0.7, 0.03)}
    for each in cards.values():
        each.per_perturbation["pds"] += hard  # the same for all
    found = classroom.doubt(cards, BASE)
    assert found.index[0] == "ahead" and found["beats next"].iloc[0] == 1
    assert found.loc["ahead", ["best place", "worst place"]].tolist() == [1, 1]
    assert found.loc["ahead", "low"] < found.loc["behind", "high"]  # the intervals overlap


def test_what_an_entry_does_not_answer_counts_as_the_worst_in_every_draw():
    open_, worst = card(0.2, 0.7, 0.03), card(0.2, 0.7, 0.03)
    open_.per_perturbation.loc[NAMES[::2], "pds"] = np.nan
    worst.per_perturbation.loc[NAMES[::2], "pds"] = 0.0
    open_ = replace(open_, missed={"pds": NAMES[::2]})
    found, expected = (classroom.doubt({"a": c}, BASE)["low"].item() for c in (open_, worst))
    assert found == expected < classroom.doubt({"a": card(0.2, 0.7, 0.03)}, BASE)["low"].item()


def _overall_of(entry, draw):
    """The overall score when these perturbations are drawn."""
    tables = [c.per_perturbation.iloc[draw].set_axis(NAMES) for c in (entry, BASE)]
    mine, base = (ScoreCard("vcc2025", table) for table in tables)
    return mine.overall(base)


def test_the_interval_is_a_bootstrap_of_the_overall_score():
    cards = {"a": card(0.2, 0.7, 0.03, spread=0.1, seed=4)}
    found = classroom.doubt(cards, BASE, n_boot=300, seed=7)
    rng = np.random.default_rng(7)
    rows = rng.integers(len(NAMES), size=(300, len(NAMES)))
    by_hand = [_overall_of(cards["a"], draw) for draw in rows]
    np.testing.assert_allclose(found[["low", "high"]].iloc[0], np.quantile(by_hand, [0.025, 0.975]))


def test_several_contexts_are_ranked_by_their_mean_and_drawn_each_by_itself():
    base = together({"A": BASE, "B": BASE})
    parts = {"A": card(0.2, 0.7, 0.03, spread=0.1, seed=4), "B": card(0.4, 0.8, 0.02, seed=5)}
    cards = {"both": together(parts), "one": together({"A": BASE, "B": parts["B"]})}
    board, found = classroom.rank(cards, base), classroom.doubt(cards, base, n_boot=300, seed=7)
    each = [parts[name].overall(BASE) for name in "AB"]
    assert board.loc["both", ["overall of A", "overall of B"]].tolist() == each
    np.testing.assert_allclose(board["overall"], [np.mean(each), each[1] / 2])
    rows = Table(classroom.board(cards, base)).rows
    assert rows[0][3:5] == ["overall of A context", "overall of B context"]
    assert rows[1][3:5] == [f"{value:.1f}" for value in each] and {*map(len, rows)} == {10}
    rng = np.random.default_rng(7)
    draws = [rng.integers(len(NAMES), size=(300, len(NAMES))) for _ in "AB"]
    by_hand = [
        np.mean([_overall_of(parts[name], draw) for name, draw in zip("AB", pair, strict=True)])
        for pair in zip(*draws, strict=True)
    ]
    expected = np.quantile(by_hand, [0.025, 0.975])
    np.testing.assert_allclose(found.loc["both", ["low", "high"]].astype(float), expected)


@pytest.mark.parametrize(("cards", "says"), [
    ({}, "no entry"),
    ({"x": card(0.1, 0.5, 0.1, names=NAMES[:9])}, "entry 'x' is of preset 'vcc2025' with 9"),
    ({"x": card(0.1, 0.5, 0.1, preset="other")}, "preset 'other'"),
    ({"x": card(0.1, 0.5, 0.1, pr_auc=0.1)}, "metrics des, pds, mae, pr_auc"),
])  # fmt: skip
def test_what_cannot_be_ranked(cards, says):
    for function in (classroom.rank, classroom.doubt):
        with pytest.raises(ValueError, match=says):
            function(cards, BASE)


class Table(HTMLParser):
    """The rows of a table as text, the tags with their attributes, and whether all were closed."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.tags, self.open = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")
        if tag not in {"wbr", "input"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += f" {data}" if "small" in self.open else data


def test_the_board_shows_what_rank_and_doubt_found_and_can_be_read_aloud():
    html = classroom.board(THREE, BASE, title="Class of spring")
    table = Table(html)
    assert table.open == []
    assert table.rows[0][:5] == [
        "place its interval", "entry", "overall its interval", "ahead of the next in repeats",
        "mean rank less is better",
    ]  # fmt: skip
    assert table.rows[0][5:] == ["des more is better", "pds more is better", "mae less is better"]
    overall = 100 * (0.2 / 0.9 + 0.8) / 3
    assert table.rows[1] == [
        "1 1 only", "bold ▼ worse than the baseline on 1 metric", f"{overall:.1f} 34.1 to 34.1",
        "clear 100 %", "1.67", "0.300 rank 1", "0.900 rank 1", "1.000 rank 3 ▼",
    ]  # fmt: skip
    assert [row[1] for row in table.rows[2:]] == ["even", "quiet", "the official baseline"]
    assert table.rows[3][3] == "last"
    assert table.rows[-1][5:] == ["0.100", "0.500", "0.040"]
    assert all(len(row) == 8 for row in table.rows)
    tags = table.tags
    assert "<caption>Class of spring</caption>" in html
    heads = [attributes.get("scope") for tag, attributes in tags if tag == "th"]
    assert heads.count("col") == 8 and heads.count("row") == 4 and len(heads) == 12
    region = {"role": "region", "aria-label": "Class of spring", "tabindex": "0"}
    assert {"class": "scroll"} | region in [attributes for _, attributes in tags]
    assert not {"img", "link", "iframe"} & {tag for tag, _ in tags}
    assert [tag for tag, _ in tags].count("script") == 1
    assert not re.search(r"url\(|@import|https?:|\bon\w+=", html)
    lines = re.findall(r'<path d="M(\S+) 4H(\S+)"/><circle cx="(\S+)"', html)
    assert lines == [("100.0",) * 3, ("59.8",) * 3, ("48.9",) * 3]  # no spread: ends at the dot


@pytest.mark.parametrize(("cards", "shown"), [(THREE, True), ({"a": SEVEN}, False)])
def test_more_than_three_metrics_are_behind_a_switch(cards, shown):
    base = SEVEN if "a" in cards else BASE
    tags = Table(classroom.board(cards, base)).tags
    assert [("checked" in attributes) for tag, attributes in tags if tag == "input"] == [shown]
    metrics = [tag for tag, attributes in tags if attributes.get("class") == "metric"]
    assert metrics.count("th") == base.per_perturbation.shape[1]


def test_only_the_script_of_the_board_may_run_on_its_page():
    html = page(classroom.board(THREE, BASE), title="x")
    (script,) = re.findall("<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in html


def test_names_and_reasons_are_text_and_never_markup():
    bad = "<script>alert(1)</script>\" onmouseover='x' & \u202eabc\nnew"
    html = classroom.board({bad: THREE["bold"]}, BASE, title=bad, not_scored={bad: bad})
    table = Table(html)
    assert "b" not in {tag for tag, _ in table.tags}
    drawn = {"svg", "path", "circle", "input"}
    known = {"class", "scope", "role", "aria-label", "tabindex", "data-name", "data-best"}
    assert all(set(attributes) <= known for tag, attributes in table.tags if tag not in drawn)
    assert html.count("<script") == 1
    assert "\u202e" not in html and "abc\nnew" not in html
    assert html.count("&lt;script&gt;") == 5  # label, caption, entry, name and reason


def test_places_that_are_not_really_different_are_marked():
    cards = {
        "first": card(0.5, 0.95, 0.01, spread=0.1, seed=1),
        "second": card(0.3, 0.8, 0.03, spread=0.1, seed=2),
        "third": card(0.3, 0.8, 0.03, spread=0.1, seed=3),
    }
    html = classroom.board(cards, BASE)
    assert re.findall(r'<tr class="([\w-]+)"', html) == ["clear", "not-clear", "clear"]
    rows = Table(html).rows
    assert rows[2][0] == "2 2 to 3" and rows[2][3].startswith("not clear")


def test_equal_entries_and_a_value_that_does_not_exist():
    cards = {"a": card(0.2, 0.7, 0.04), "b": card(0.2, 0.7, 0.04)}
    cards["b"].per_perturbation["des"] = np.nan
    rows = Table(classroom.board(cards, BASE)).rows
    assert rows[2][5] == "none rank 2 ▼"
    rows = Table(classroom.board({"a": BASE, "b": BASE}, BASE)).rows
    assert [row[0] for row in rows[1:3]] == ["1 1 only", "1 1 only"]
    assert rows[1][3] == "not clear 50 %"


def test_a_board_of_nobody_says_so_and_lists_why():
    html = classroom.board({}, BASE, not_scored={"team": "the genes differ"})
    assert "no entry has a score yet" in html and "<table" not in html
    assert "<li>team: not scored: the genes differ</li>" in html
