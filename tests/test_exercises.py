"""Every exercise tells not attempted, right and each known wrong answer apart."""

import json
import re
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from scipy import sparse

from vcc_helpers import check
from vcc_helpers.course import exercises
from vcc_helpers.course.exercises import Exercise, _Feedback

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
    known = Exercise(lambda: iter(answers_of(exercise_id)), whole.words, whole.tolerance)
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
    with pytest.raises(KeyError, match="no exercise .* expected chapter and number"):
        check(exercise_id, 1)


def toy(right, **kw):
    known = [("right", right), ("sign", -1.0), ("half", 2.0)]
    words = {"right": "well done", "sign": "the sign", "half": "the half"}
    return Exercise(lambda: iter(known), words, **kw)


@pytest.mark.parametrize(
    ("right", "answer"),
    [
        (1.0, 1.0005), (1.0, np.array(1)), (np.nan, np.nan), (True, np.True_), ("SOX2", " sox2 "),
        (["A", "B"], pd.Index(["B", "A"])), (np.ones(3), [1, 1, 1.0001]),
        ([1, 2], pd.Series([1, 2])), (np.eye(2), pd.DataFrame(np.eye(2))),
    ],
)  # fmt: skip
def test_right_in_any_dress(right, answer):
    assert toy(right).judge(answer).status == "right"


@pytest.mark.parametrize(
    ("right", "answer", "message"),
    [
        (1.0, "1", "Expected a number, got a string."), (["A"], [1], "Expected names, got an ar"),
        (1.0, [1.0], "Expected a number, got an array"), ("A", ["A"], "Expected a string, got na"),
        (np.ones(3), np.ones((3, 1)), "Expected an array of shape (3,), got (3, 1)."),
        (np.ones((2, 2)), sparse.csr_matrix(np.ones((2, 2))), "Expected an array, got a csr"),
        (np.ones(3), (x for x in "abc"), "Expected an array, got a generator."),
        (np.ones(2), [[1], [1, 2]], "Expected an array, got a list of unequal parts."),
    ],
)  # fmt: skip
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


@pytest.mark.parametrize(
    ("right", "answer", "words"),
    [
        (0.460312, 0.46, "rounded"), (0.460312, 0.5, "not it"),  # one digit is a guess
        (0.460312, 46.0312, "per cent"), (3.25, 325.0, "not it"),  # no share
        (0.460312, 0.00460312, "another scale"), (0.460312, -0.460312, "sign"),
        (0.460312, 1 - 0.460312, "other part"), (0.460312, 1 / 0.460312, "other way round"),
        (0.460312, 0.460312**2, "Take the root"), (0.460312, float("nan"), "not it"),
        (7, 49, "not it"), (7, 1 / 7, "not it"),  # of a number of things there is no square
        (1.0, -1.0, "the sign"),  # its own words come first
        (0.5, 0.5000001, "well done"),  # 1 minus itself
        (1.0, 1.0000001, "well done"),  # its own square, and the other way round
    ],
)  # fmt: skip
def test_a_slip_in_digits_scale_or_the_last_step_is_named(right, answer, words):
    assert words in toy(right, tolerance=1e-6).judge(answer).message
