"""Every exercise tells not attempted, right and each known wrong answer apart."""

import json
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import check
from vcc_helpers.course import exercises
from vcc_helpers.course.exercises import Exercise, Hint

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = sorted(Path(exercises.__file__).parent.glob("chapter_*.py"))
FOUND = {
    exercise_id: (path.stem, exercise)
    for path in CHAPTERS
    for exercise_id, exercise in import_module(
        f"vcc_helpers.course.exercises.{path.stem}"
    ).EXERCISES.items()
}
HINTS = [(name, i) for name, (_, exercise) in FOUND.items() for i in range(len(exercise.hints))]


@pytest.fixture
def compared(monkeypatch):
    """Make `check` compare what it is given, also where an exercise asks for a function."""

    def hand_in(exercise_id, answer):
        bare = replace(FOUND[exercise_id][1], probe=None)
        monkeypatch.setattr(exercises, "get_exercise", lambda _: bare)
        return check(exercise_id, answer)

    return hand_in


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_number_names_the_chapter(exercise_id):
    chapter, exercise = FOUND[exercise_id]
    assert re.fullmatch(r"\d\d-[1-9]", exercise_id)
    assert chapter == f"chapter_{exercise_id[:2]}"
    assert exercises.get_exercise(exercise_id) is exercise


@pytest.mark.parametrize("exercise_id", FOUND)
def test_a_stub_is_not_attempted(exercise_id):
    said = check(exercise_id, ...)
    assert said.status == "not attempted" and "replace the dots" in said.message


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_solution_is_right(exercise_id, compared):
    exercise = FOUND[exercise_id][1]
    said = compared(exercise_id, exercise.solution())
    assert said.status == "right" and said.message == exercise.right
    assert len(exercise.right.split()) >= 4


@pytest.mark.parametrize(("exercise_id", "number"), HINTS)
def test_each_known_wrong_answer_gets_its_own_hint(exercise_id, number, compared):
    hint = FOUND[exercise_id][1].hints[number]
    said = compared(exercise_id, hint.wrong())
    assert said.status == "wrong" and said.message == hint.say


@pytest.mark.parametrize("exercise_id", FOUND)
def test_there_are_hints_and_none_praises(exercise_id):
    exercise = FOUND[exercise_id][1]
    assert exercise.hints
    assert exercise.right not in {hint.say for hint in exercise.hints}


@pytest.mark.parametrize("exercise_id", FOUND)
def test_an_answer_of_another_kind_is_told_so(exercise_id):
    said = check(exercise_id, {"no": "answer"})
    assert said.status == "wrong"
    if FOUND[exercise_id][1].probe is None:
        assert re.fullmatch(r"Expected .*, got a dict\.", said.message)
    else:
        assert "could not be used" in said.message


@pytest.mark.parametrize("exercise_id", FOUND)
def test_answers_do_not_drift(exercise_id, compared):
    """Asked twice, the same: no hidden chance."""
    solution = FOUND[exercise_id][1].solution
    first, second = solution(), solution()
    assert exercises._same(first, second, 1e-9)


def notebook_ids():
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        found[path.stem[:2]] = re.findall(r'check\("([^"]+)"', code)
    return found


def test_notebooks_ask_every_exercise_once_and_no_other():
    for chapter, asked in notebook_ids().items():
        ours = [name for name in FOUND if name.startswith(f"{chapter}-")]
        assert sorted(asked) == sorted(ours), f"notebook {chapter}"
    assert {name[:2] for name in FOUND} == set(notebook_ids())


@pytest.mark.parametrize("exercise_id", ["99-1", "01-99", "", "nonsense", 1, None])
def test_an_exercise_that_does_not_exist(exercise_id):
    with pytest.raises(KeyError, match="no exercise .* expected chapter and number"):
        check(exercise_id, 1)


def toy(solution, **kw):
    hints = (Hint(lambda: -1.0, "the sign"), Hint(lambda: 2.0, "the half"))
    return Exercise(lambda: solution, "well done", **({"hints": hints} | kw))


def ask(monkeypatch, exercise, answer):
    monkeypatch.setattr(exercises, "get_exercise", lambda _: exercise)
    return check("00-1", answer)


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (1.0, 1.0005),
        (1, np.float32(1)),
        (1.0, np.array(1)),
        (0, 0.0),
        (np.nan, np.nan),
        (True, np.True_),
        ("SOX2", " sox2 "),
        (["A", "B"], {"B", "A"}),
        (["A", "B"], pd.Index(["B", "A"])),
        (["A"], pd.Series(["A"])),
        (np.ones(3), [1, 1, 1.0001]),
        ([1, 2], pd.Series([1, 2])),
        (np.eye(2), pd.DataFrame(np.eye(2))),
        ([True, False], np.array([True, False])),
    ],
)
def test_right_in_any_dress(solution, answer, monkeypatch):
    assert ask(monkeypatch, toy(solution), answer).status == "right"


@pytest.mark.parametrize(
    ("solution", "answer", "message"),
    [
        (1.0, "1", "Expected a number, got a string."),
        (1.0, True, "Expected a number, got True or False."),
        (1.0, [1.0], "Expected a number, got an array."),
        (1.0, None, "Expected a number, got a NoneType."),
        ("A", ["A"], "Expected a string, got names."),
        (["A"], [1], "Expected names, got an array."),
        (np.ones(3), np.ones((3, 1)), "Expected an array of shape (3,), got (3, 1)."),
        (np.ones(3), {"a": 1}, "Expected an array, got a dict."),
        (np.ones((2, 2)), sparse.csr_matrix(np.ones((2, 2))), "Expected an array, got a csr"),
        (np.ones(3), (x for x in "abc"), "Expected an array, got a generator."),
    ],
)
def test_another_kind_is_told_so(solution, answer, message, monkeypatch):
    said = ask(monkeypatch, toy(solution), answer)
    assert said.status == "wrong" and said.message.startswith(message)


@pytest.mark.parametrize(
    ("answer", "message"), [(-1, "the sign"), (2.0, "the half"), (7, "That is not it.")]
)
def test_wrong_answers(answer, message, monkeypatch):
    said = ask(monkeypatch, toy(1.0), answer)
    assert said.status == "wrong" and said.message.startswith(message)


def test_the_tolerance_is_relative(monkeypatch):
    assert ask(monkeypatch, toy(1000.0, tolerance=0.01), 1009).status == "right"
    assert ask(monkeypatch, toy(1000.0, tolerance=0.01), 1011).status == "wrong"


def test_a_probe_calls_what_is_handed_in(monkeypatch):
    asks_for_a_function = toy(4.0, probe=lambda f: f(2.0))
    assert ask(monkeypatch, asks_for_a_function, lambda x: x**2).status == "right"
    assert ask(monkeypatch, asks_for_a_function, lambda x: -x / 2).message == "the sign"
    said = ask(monkeypatch, asks_for_a_function, 4.0)
    assert said.status == "wrong" and "could not be used: TypeError" in said.message


def test_ragged_lists_are_wrong_and_no_error(monkeypatch):
    assert ask(monkeypatch, toy(np.ones(2)), [[1], [1, 2]]).status == "wrong"


def test_feedback_shows_itself_and_escapes():
    said = exercises.Feedback("wrong", "a < b")
    assert repr(said) == "Not yet. a < b"
    assert "a &lt; b" in said._repr_html_() and "#D55E00" in said._repr_html_()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (0.46, "rounded"),
        (0.4603, "rounded"),
        (0.47, "not it"),
        (0.5, "not it"),  # one digit is a guess
        (46.0312, "per cent"),
        (0.00460312, "another scale"),
        (float("nan"), "not it"),
    ],
)
def test_a_slip_in_digits_or_scale_is_named(answer, words, monkeypatch):
    exercise = Exercise(solution=lambda: 0.460312, right="Just so, and no more.", tolerance=1e-6)
    monkeypatch.setattr(exercises, "get_exercise", lambda _: exercise)
    said = check("00-1", answer)
    assert said.status == "wrong" and words in said.message


def test_only_a_share_can_be_answered_in_per_cent(monkeypatch):
    exercise = Exercise(solution=lambda: 3.25, right="Just so, and no more.")
    monkeypatch.setattr(exercises, "get_exercise", lambda _: exercise)
    assert "not it" in check("00-1", 325.0).message
