"""Self-checks of the book's exercises.

A notebook asks, the reader writes ``answer = ...`` and calls ``check("03-1", answer)``. The right
answer is computed from the bundled data when it is asked for, so it cannot drift from the code.
Each exercise is a function in the module of its part of the book. It yields the answers people
give, by name; ``words.md`` holds what is said to each.

Taught in: every notebook.
Needs: words.md, the modules of the parts, and whatever those compute with.

>>> check("03-1", ...)
Not attempted yet: replace the dots with your answer, then run the cell again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import import_module
from numbers import Integral, Number
from pathlib import Path

import numpy as np

_EXERCISES: dict[str, Exercise] = {}
#: First chapter of each part of the book, which has a module of its own.
_PARTS = ("01", "04", "08", "10", "13", "16", "19", "21")


@dataclass(frozen=True)
class _Feedback:
    """What :func:`check` says: ``"not attempted"``, ``"right"`` or ``"wrong"``, and words."""

    status: str
    message: str

    def __repr__(self) -> str:
        """Show the message after a mark."""
        mark = {"right": "Right. ", "wrong": "Not yet. "}.get(self.status, "")
        return mark + self.message

    def _repr_html_(self) -> str:
        colour = {"right": "#0072B2", "wrong": "#D55E00"}.get(self.status, "#888888")
        style = f"border-left:4px solid {colour};padding:.3em .8em;margin:.3em 0"
        return f'<div style="{style}">{escape(repr(self))}</div>'


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    `answers` yields names and answers: first ``"right"`` with the right one, which is a number, a
    string, names or an array, then known mistakes; `words` are what is said to each. `tolerance` is
    relative. `probe` turns what the reader hands in into something to compare: for an exercise that
    asks for a function, it calls it on a fixed input.
    """

    answers: Callable[[], Iterator[tuple[str, object]]]
    words: Mapping[str, str]
    tolerance: float = 1e-3
    probe: Callable[[object], object] | None = None

    def judge(self, answer: object) -> _Feedback:
        """Compare an answer with the known ones, the right one first, then look for a slip."""
        if answer is ...:
            text = "Not attempted yet: replace the dots with your answer, then run the cell again."
            return _Feedback("not attempted", text)
        if self.probe is not None:
            try:
                answer = self.probe(answer)
            except Exception as error:
                return _Feedback("wrong", f"Your answer could not be used: {error!r}.")
        known = self.answers()
        _, right = next(known)
        if (unlike := _kind_problem(answer, right)) is not None:
            return _Feedback("wrong", unlike)
        if _same(answer, right, self.tolerance):
            return _Feedback("right", self.words["right"])
        for name, wrong in known:
            if _kind_problem(answer, wrong) is None and _same(answer, wrong, self.tolerance):
                return _Feedback("wrong", self.words[name])
        not_it = "That is not it. Read the question again, then open the solution."
        return _Feedback("wrong", _slip(answer, right, self.tolerance) or not_it)


def exercise(number: str, **options) -> Callable[[Callable], Callable]:
    """Make an exercise, such as ``"03-1"``, of the function below, which yields its answers.

    `options` are `tolerance` and `probe` of :class:`Exercise`.
    """

    def keep(answers: Callable) -> Callable:
        _EXERCISES[number] = Exercise(answers, _words()[number], **options)
        return answers

    return keep


@cache
def _words() -> dict[str, dict[str, str]]:
    """Read what is said: by the number of the exercise, then by the name of the answer."""
    text = Path(__file__).with_name("words.md").read_text(encoding="utf-8")
    parts = (part.partition("\n") for part in re.split(r"^## ", text, flags=re.MULTILINE))
    return {
        number: dict(re.findall(r"^- ([^:]+): (.+)$", said, re.MULTILINE))
        for number, _, said in parts
    }


def check(exercise_id: str, answer: object) -> _Feedback:
    """Compare an answer with the right one and say something helpful, which the notebook shows.

    `exercise_id` is chapter and number, such as ``"03-1"``; one that does not exist is a KeyError.
    `answer` is ``...`` where there is none yet. The `status` of what is returned is ``"not
    attempted"``, ``"right"`` or ``"wrong"``.
    """
    if part := max((first for first in _PARTS if first <= str(exercise_id)), default=""):
        import_module(f"{__name__}.from_chapter_{part}")
    if exercise_id not in _EXERCISES:
        raise KeyError(f"no exercise {exercise_id!r}; expected chapter and number, such as '03-1'")
    return _EXERCISES[exercise_id].judge(answer)


def _slip(answer: object, right: object, tolerance: float) -> str | None:
    """Say what keeps a number from being the right one: its digits, its scale, a last step."""
    if _kind(right) != "a number" or not np.isfinite(float(answer)):
        return None
    answer, whole, right = float(answer), isinstance(right, Integral), float(right)
    written = f"{answer:.10f}".rstrip("0")
    digits, significant = len(written.partition(".")[2]), written.replace(".", "").strip("-0")
    if len(significant) > 1 and answer == round(right, digits):
        return "That is the right number, rounded. Answer with the expression, not with its digits."
    if 0 <= right <= 1 and _same(answer / 100, right, tolerance):
        return "The right number, in per cent. Answer with a share, between 0 and 1."
    if _same(answer * 100, right, tolerance):
        return "The right number, a hundred times too small: the question asks for another scale."
    if _same(-answer, right, tolerance):
        return "The sign is turned round: subtract the other way."
    if not whole and _same(1 - answer, right, tolerance):
        return "That is the other part of the whole. The question is for 1 minus that."
    if not whole and _same(answer * right, 1.0, tolerance):
        return "That is the ratio the other way round."
    if not whole and _same(answer, right**2, tolerance):
        return "That is the square of the answer. Take the root."
    return None


def _kind(value: object) -> str:
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, Number | np.number) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, Iterable) and not isinstance(value, Mapping):
        try:
            array = np.asarray(list(value) if isinstance(value, set | frozenset) else value)
        except ValueError:
            return "a list of unequal parts"
        if array.ndim == 0:  # something that NumPy cannot take apart, such as a generator
            return f"a {type(value).__name__}"
        return "names" if array.dtype.kind in "OUST" or array.dtype.name == "str" else "an array"
    return f"a {type(value).__name__}"


def _kind_problem(answer: object, solution: object) -> str | None:
    got, want = _kind(answer), _kind(solution)
    if got != want:
        return f"Expected {want}, got {got}."
    if want == "an array" and np.shape(answer) != np.shape(solution):
        return f"Expected an array of shape {np.shape(solution)}, got {np.shape(answer)}."
    return None


def _same(answer: object, solution: object, tolerance: float) -> bool:
    kind = _kind(solution)
    if kind == "True or False":
        return bool(answer) == bool(solution)
    if kind == "a string":
        return str(answer).strip().lower() == str(solution).strip().lower()
    if kind == "names":
        return {str(name) for name in answer} == {str(name) for name in solution}
    return bool(np.allclose(answer, solution, rtol=tolerance, atol=1e-12, equal_nan=True))
