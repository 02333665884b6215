"""Every exercise tells right and wrong answers apart; every exploit pays what the book says."""

import json
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, refuses
from scipy import sparse

from vcc_helpers import check, metrics, score
from vcc_helpers.course import exercises, exploits
from vcc_helpers.course.exercises import _Exercise, _Feedback
from vcc_helpers.course.exercises._data import honest as deal_of
from vcc_helpers.course.exploits import EXPLOITS, gallery

for path in Path(exercises.__file__).parent.glob("from_chapter_*.py"):
    import_module(f"vcc_helpers.course.exercises.{path.stem}")
FOUND = dict(sorted(exercises._EXERCISES.items()))
NOT_IT = "That is not it."


@cache
def answers_of(exercise_id):
    return tuple(FOUND[exercise_id].answers())


def hand_in(exercise_id, answer):
    """Compare as `check` does, but compute once, and call nothing where a function is wanted."""
    whole = FOUND[exercise_id]
    known = _Exercise(lambda: iter(answers_of(exercise_id)), whole.words, whole.tolerance)
    return known.judge(answer)


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_right_answer_and_each_known_wrong_one_are_told_apart(exercise_id):
    words, answers = FOUND[exercise_id].words, answers_of(exercise_id)
    assert answers[0][0] == "right" and len(answers) > 1
    assert set(words) == {name for name, _ in answers}
    assert len(set(words.values())) == len(words) and len(words["right"].split()) >= 4
    for name, answer in answers:
        status = "right" if name == "right" else "wrong"
        assert hand_in(exercise_id, answer) == _Feedback(status, words[name]), name


NUMBERS = [
    float, np.float64, np.float32, np.array, lambda x: [x], lambda x: (x,), lambda x: {x},
    lambda x: np.array([[x]]), lambda x: pd.Series([x], ["a"]), lambda x: pd.Index([x]),
    lambda x: pd.DataFrame({"a": [x]}), lambda x: pd.array([x], dtype="Float64"), Fraction,
    Decimal, complex, lambda x: round(x, 3) if abs(x) > 0.1 else float(f"{x:.3g}"),
]  # fmt: skip
TEXTS = [
    str, np.str_, np.array, str.lower, lambda x: f" {x} ", lambda x: [x], lambda x: pd.Index([x]),
    lambda x: pd.Categorical([x]), lambda x: pd.Series([x]), lambda x: np.array([x], dtype=object),
]  # fmt: skip


def in_any_dress(right):
    """Yield a right answer in the forms that a reader may have it in."""
    if isinstance(right, str):
        yield from (dress(right) for dress in TEXTS)
        return
    if np.ndim(right):
        yield from (dress(right) for dress in (np.array, list, pd.Series, pd.Index, np.float32))
        return
    yield from (dress(float(right)) for dress in NUMBERS)


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_right_answer_is_right_in_any_dress(exercise_id):
    for answer in in_any_dress(answers_of(exercise_id)[0][1]):
        said = hand_in(exercise_id, answer)
        assert said.status == "right", (answer, said)
        assert said.message.startswith(FOUND[exercise_id].words["right"])


@pytest.mark.parametrize("exercise_id", FOUND)
def test_a_stub_is_not_attempted_and_another_kind_is_told_so(exercise_id):
    said = check(exercise_id, ...)
    assert said.status == "not attempted" and "replace the dots" in said.message
    said = check(exercise_id, {"no": "answer"})
    kind = "could not be used" if FOUND[exercise_id].probe else "Expected .*, got a dict"
    assert said.status == "wrong" and re.search(kind, said.message)


@pytest.mark.parametrize(
    "slip", [lambda x: -x, lambda x: 1 / x, lambda x: 1 - x, lambda x: x**2, lambda x: x / 100]
)
def test_a_slip_after_the_right_number_is_named(slip):
    """In the words of the exercise, or in those of all."""
    for exercise_id in FOUND:
        _, right = answers_of(exercise_id)[0]
        if isinstance(right, float | np.floating) and not np.isclose(slip(right), right):
            said = hand_in(exercise_id, slip(right))
            assert said.status == "wrong" and NOT_IT not in said.message, exercise_id


def test_notebooks_ask_every_exercise_once_and_no_other():
    asked = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        asked += (found := re.findall(r'check\("([^"]+)"', code))
        assert {name[:2] for name in found} == {path.name[:2]}
    assert sorted(asked) == list(FOUND)


@pytest.mark.parametrize("exercise_id", ["99-1", "01-99", "", "nonsense", 1, None])
def test_an_exercise_that_does_not_exist(exercise_id):
    refuses("no exercise .* expected chapter and number", check, exercise_id, 1, error=KeyError)


def toy(right, **kw):
    known = [("right", right), ("sign", -1.0), ("half", 2.0)]
    words = {"right": "well done", "sign": "the sign", "half": "the half"}
    return _Exercise(lambda: iter(known), words, **kw)


@pytest.mark.parametrize(("right", "answer"), [
    (1.0, 1.0005), (1.0, np.array(1)), (np.nan, np.nan), (True, np.True_), ("SOX2", " sox2 "),
    (["A", "B"], pd.Index(["B", "A"])), (np.ones(3), [1, 1, 1.0001]),
    ([1, 2], pd.Series([1, 2])), (np.eye(2), pd.DataFrame(np.eye(2))),
])  # fmt: skip
def test_right_in_any_dress(right, answer):
    assert toy(right).judge(answer).status == "right"


@pytest.mark.parametrize(("right", "answer", "message"), [
    (1.0, "1", "Expected a number, got a string."), (["A"], [1], "Expected names, got an ar"),
    (1.0, [1.0, 2.0], "Expected a number, got an array"),
    (1.0, pd.NA, "Expected a number, got a missing"),
    ("A", ["A", "B"], "Expected a string, got na"), (1.0, 1j, "Expected a number, got a complex"),
    (np.ones(3), np.ones((3, 1)), "Expected an array of shape (3,), got (3, 1)."),
    (np.ones((2, 2)), sparse.csr_matrix(np.ones((2, 2))), "Expected an array, got a csr"),
    (np.ones(3), (x for x in "abc"), "Expected an array, got a generator."),
    (np.ones(2), [[1], [1, 2]], "Expected an array, got a list of unequal parts."),
])  # fmt: skip
def test_another_kind_is_told_so(right, answer, message):
    said = toy(right).judge(answer)
    assert said.status == "wrong" and said.message.startswith(message)


def test_the_tolerance_is_relative():
    assert toy(1000.0, tolerance=0.01).judge(1009).status == "right"
    assert toy(1000.0, tolerance=0.01).judge(1011).status == "wrong"


def test_a_probe_calls_what_is_handed_in():
    wants_a_function = toy(4.0, probe=lambda f: f(2.0))
    assert wants_a_function.judge(lambda x: x**2).status == "right"
    assert wants_a_function.judge(lambda x: -x / 2).message == "the sign"
    said = wants_a_function.judge(4.0)
    assert said.status == "wrong" and "could not be used: TypeError" in said.message


def test_feedback_shows_itself_and_escapes():
    said = _Feedback("wrong", "a < b")
    assert repr(said) == "Not yet. a < b"
    assert "a &lt; b" in said._repr_html_() and "#D55E00" in said._repr_html_()


@pytest.mark.parametrize(("right", "answer", "words"), [
    (0.460312, 0.46, "well done (You rounded: it is 0.460312.)"),
    (0.460312, 0.5, "not it"),  # one digit is a guess
    (0.460312, 46.0312, "per cent"), (3.25, 325.0, "not it"),  # no share
    (0.460312, 0.00460312, "another scale"), (0.460312, -0.460312, "sign is wrong"),
    (0.460312, 1 - 0.460312, "other part"), (0.460312, 1 / 0.460312, "inverse"),
    (0.460312, 0.460312**2, "Take the root"), (0.460312, float("nan"), "not it"),
    (7, 49, "not it"), (7, 1 / 7, "not it"),  # of a number of things there is no square
    (1.0, -1.0, "the sign"),  # its own words come first
    (0.5, 0.5000001, "well done"),  # 1 minus itself
    (1.0, 1.0000001, "well done"),  # its own square, and its own inverse
])  # fmt: skip
def test_a_slip_in_digits_scale_or_the_last_step_is_named(right, answer, words):
    assert words in toy(right, tolerance=1e-6).judge(answer).message


@pytest.fixture(scope="module")
def deal():
    return deal_of()


@pytest.fixture(scope="module")
def table(deal):
    honest, real = deal
    known = real[real.obs["target_gene"].isin([*sorted(set(real.obs["target_gene"]))[:6]])].copy()
    return gallery(honest, real, known=known)


@pytest.mark.parametrize("name", ["scale effects", "mix the scales"])
def test_exaggeration_pays_in_2025_and_not_in_2026(table, name):
    old, new = table["vcc2025"], table["vcc2026"]
    assert old.loc[name, "overall"] > old.loc["honest", "overall"] + 1
    assert old.loc[name, "pds"] > old.loc["honest", "pds"] + 0.03
    assert old.loc[name, "mae"] > 1.5 * old.loc["honest", "mae"]  # the price, which is not asked
    if name == "mix the scales":
        assert new.loc[name].isna().all()  # refused
    else:
        assert new.loc[name, "overall"] < new.loc["honest", "overall"] - 5
        assert new.loc[name, "mse_normalized"] > 1


@pytest.mark.parametrize("name", ["replicate the mean", "shrink the variance", "flood with cells"])
def test_calling_more_genes_costs_no_pds_in_2025_and_jaccard_in_2026(table, name):
    old, new = table["vcc2025"], table["vcc2026"]
    assert abs(old.loc[name, "pds"] - old.loc["honest", "pds"]) < 0.02
    assert abs(old.loc[name, "mae"] - old.loc["honest", "mae"]) < 0.002
    assert abs(old.loc[name, "des"] - old.loc["honest", "des"]) > 1e-4  # the file alone decides
    assert new.loc[name, "significant_jaccard"] < 0.5 * new.loc["honest", "significant_jaccard"]


def test_equal_numbers_of_cells_tell_nothing(deal):
    honest, real = deal
    equal = honest[honest.obs.groupby("target_gene", observed=True).cumcount() < 20].copy()
    copied = exploits.copy_by_count(equal, known=real)
    labels = real.obs["target_gene"].astype(str)
    rows = {
        name: {row.tobytes() for row in real.X[(labels == name).to_numpy()].toarray()}
        for name in set(labels)
    }
    made = copied.X[(copied.obs["target_gene"] != "non-targeting").to_numpy()]
    from_one = [name for name, known in rows.items() if {row.tobytes() for row in made} <= known]
    assert len(from_one) == 1  # every target copies the same one


def test_what_else_the_gallery_shows(table, deal):
    old, new = table["vcc2025"], table["vcc2026"]
    assert table.index.tolist() == ["honest", *EXPLOITS]
    # controls decide in 2025 and not in 2026; spikes pay in neither season; ties are worth chance
    assert abs(old.loc["edit the controls", "des"] - old.loc["honest", "des"]) > 0.01
    assert new.loc["edit the controls"].equals(new.loc["honest"])
    for one in (old, new):
        assert one.loc["spike the targets", "overall"] < one.loc["honest", "overall"]
    assert new.loc["win the ties", "pds_cosine"] == 0.5
    assert abs(old.loc["win the ties", "pds"] - metrics.pds_chance(13)) < 0.1
    # what 2026 does not stop by a metric: the gallery says so
    fidelity = new["direction_fidelity"]
    assert fidelity["flood with cells"] > fidelity["honest"]
    assert EXPLOITS["flood with cells"].stopped_by.startswith("no metric")
    card = score(*deal, "vcc2026")
    assert list(new) == [*card.summary.index, "overall"]
    assert new.loc["honest", list(card.summary.index)].tolist() == list(card.summary)


def test_nothing_of_the_callers_changes(deal):
    honest, real = deal
    before = honest.X.copy()
    for name, exploit in EXPLOITS.items():
        extra = {"known": real} if name == "copy by cell count" else {}
        made = exploit.make(honest, **extra)
        assert made is not honest and made.var_names.equals(honest.var_names), name
    assert abs(honest.X - before).max() == 0
    assert abs(exploits.scale_effects(honest, factor=1.0).X - before).max() == 0
    with pytest.raises(ValueError, match="scale='log'; expected 'counts' or 'lognorm'"):
        EXPLOITS["replicate the mean"].make(honest, scale="log")
