"""Self-checks of the book's exercises.

A notebook asks, the reader writes ``answer = ...`` and calls ``check("07-1", answer)``. The right
answer is computed from the bundled data when it is needed, so it cannot drift from the code.
Each exercise is a function in the module of its part of the book. It yields the answers people
give, by name; ``words.md`` holds what is said to each. Answers that need no data are numbers there.

Taught in: every notebook.
Needs: words.md, the modules of the parts, and whatever those compute with.

>>> check("07-1", ...)
Not attempted yet: replace the dots with your answer, then run the cell again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from html import escape
from importlib import import_module
from itertools import product
from numbers import Integral, Number
from pathlib import Path

import numpy as np
import pandas as pd

_NOT_IT = "That is not it. Read the question again, then open the solution."
_EXERCISES: dict[str, _Exercise] = {}
#: What is said: by the number of the exercise, then by the name of the answer.
_WORDS: dict[str, dict[str, str]] = {}
#: A line of ``words.md``: the name of an answer, its number if it has one, and the words.
_LINE = re.compile(r"^- ([^:=]+?)(?: = (\S+))?: (.+)$", re.MULTILINE)
#: First chapter of each part of the book, which has a module of its own.
_PARTS = ("01", "07", "12", "17", "21", "25")


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
class _Exercise:
    """One exercise.

    `answers` yields names and answers: first ``"right"`` with the right one, which is a number, a
    string, names or an array, then known mistakes; ``"right"`` may come again, for another answer
    that is right too. `words` are what is said to each. `tolerance` is relative. `probe` turns what
    the reader hands in into something to compare: for an exercise that asks for a function, it
    calls it on a fixed input.
    """

    answers: Callable[[], Iterator[tuple[str, object]]]
    words: Mapping[str, str]
    tolerance: float = 1e-3
    probe: Callable[[object], object] | None = None

    def judge(self, answer: object) -> _Feedback:
        """Compare an answer with the known ones, then look for a slip."""
        if answer is ...:
            text = "Not attempted yet: replace the dots with your answer, then run the cell again."
            return _Feedback("not attempted", text)
        if self.probe is not None:
            try:
                answer = self.probe(answer)
            except Exception as error:
                return _Feedback("wrong", f"Your answer could not be used: {error!r}.")
        known = list(self.answers())
        right = known[0][1]
        answer = _unwrapped(answer, right)
        if (unlike := _kind_problem(answer, right)) is not None:
            return _Feedback("wrong", unlike)
        for name, one in sorted(known, key=lambda pair: pair[0] != "right"):
            if _kind_problem(answer, one) is None and _same(answer, one, self.tolerance):
                return _Feedback("right" if name == "right" else "wrong", self.words[name])
        return _slip(answer, right, self) or _Feedback("wrong", _NOT_IT)


def exercise(number: str, **options) -> Callable[[Callable], Callable]:
    """Make an exercise, such as ``"07-1"``, of the function below, which yields its answers.

    `options` are `tolerance` and `probe` of :class:`_Exercise`.
    """

    def keep(answers: Callable) -> Callable:
        _EXERCISES[number] = _Exercise(answers, _WORDS[number], **options)
        return answers

    return keep


def check(exercise_id: str, answer: object) -> _Feedback:
    """Compare an answer with the right one and say something helpful, which the notebook shows.

    `exercise_id` is chapter and number, such as ``"07-1"``; one that does not exist is a KeyError.
    `answer` is ``...`` where there is none yet. The `status` of what is returned is ``"not
    attempted"``, ``"right"`` or ``"wrong"``.
    """
    return find(exercise_id).judge(answer)


def find(exercise_id: str) -> _Exercise:
    """Return an exercise, for :func:`check` and for the boxes on the book's pages."""
    if part := max((first for first in _PARTS if first <= str(exercise_id)), default=""):
        import_module(f"{__name__}.from_chapter_{part}")
    if exercise_id not in _EXERCISES:
        raise KeyError(f"no exercise {exercise_id!r}; expected chapter and number, such as '07-1'")
    return _EXERCISES[exercise_id]


def _slip(answer: object, right: object, exercise: _Exercise) -> _Feedback | None:
    """Judge a number by what keeps it from the right one: its digits, its scale, a last step."""
    if _kind(right) != "a number" or not np.isfinite(float(answer)):
        return None
    answer, whole, right = float(answer), isinstance(right, Integral), float(right)
    written = f"{answer:.10f}".rstrip("0")
    digits, significant = len(written.partition(".")[2]), written.replace(".", "").strip("-0")
    # 0.46 is rounded, and so is 0.02 if the answer is 0.0213; 0.5 is a guess
    near = min(0.500001 * 10.0**-digits, 0.1 * abs(right))
    if not whole and len(significant) > (digits < 2) and abs(answer - right) <= near:
        words = f"{exercise.words['right']} (You rounded: it is {right:.6g}.)"
        return _Feedback("right", words)
    same = partial(_same, tolerance=exercise.tolerance)
    said = None
    if 0 <= right <= 1 and same(answer / 100, right):
        said = "The right number, in per cent. Answer with a share, between 0 and 1."
    elif same(answer * 100, right):
        said = "The right number, a hundred times too small: the question asks for another scale."
    elif same(-answer, right):
        said = "The sign is wrong: subtract the other way round."
    elif whole:
        return None
    elif same(1 - answer, right):
        said = "That is the other part of the whole. The question is for 1 minus that."
    elif same(answer * right, 1.0):
        said = "That is the inverse of the ratio."
    elif same(answer, right**2):
        said = "That is the square of the answer. Take the root."
    return _Feedback("wrong", said) if said else None


def _unwrapped(answer: object, right: object) -> object:
    """Take a single value out of what holds it: an array, a Series, an Index, a list of one."""
    if _kind(right) not in ("a number", "a string", "True or False"):
        return answer
    for _ in range(3):  # a table of one entry, say, in a list
        if isinstance(answer, str | bytes | Number | Mapping) or answer is None:
            break
        try:
            held = list(answer) if isinstance(answer, set | frozenset) else answer
            flat = np.asarray(held, dtype=object).ravel()
        except (TypeError, ValueError):
            break
        if flat.size != 1 or flat[0] is answer:
            break
        answer = flat[0]
    if isinstance(answer, Decimal | Fraction):
        return float(answer)
    return answer.real if isinstance(answer, complex) and answer.imag == 0 else answer


def _kind(value: object) -> str:
    if value is None or value is pd.NA or value is pd.NaT or value is np.ma.masked:
        return "a missing value"
    if isinstance(value, bool | np.bool_):
        return "True or False"
    if isinstance(value, complex | np.complexfloating):
        return "a complex number"
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
        if array.dtype.kind == "O" and all(isinstance(value, Number) for value in array.ravel()):
            return "an array"  # fractions, or what pandas holds with a mask
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
    answer = np.asarray(answer, dtype=np.float64)
    return bool(np.allclose(answer, solution, rtol=tolerance, atol=1e-12, equal_nan=True))


def _read_words() -> None:
    text = Path(__file__).with_name("words.md").read_text(encoding="utf-8")
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        number, _, lines = part.partition("\n")
        said = _LINE.findall(lines)
        _WORDS[number] = {name: words for name, _, words in said}
        fixed = {name: value for name, value, _ in said if value}
        if fixed.get("right", "").isalpha():
            _EXERCISES[number] = _quiz(fixed["right"], _WORDS[number])
        elif fixed:
            answers = [(name, _number(value)) for name, value in fixed.items()]
            _EXERCISES[number] = _Exercise(partial(iter, answers), _WORDS[number])


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(Fraction(text))


def _quiz(right: str, words: dict[str, str]) -> _Exercise:
    """Make an exercise of several questions, a letter each, that says which of them are wrong."""
    answers, said = [("right", right)], {"right": words["right"]}
    for letters in map("".join, product("abc", repeat=len(right))):
        wrong = [str(i + 1) for i, letter in enumerate(letters) if letter != right[i]]
        if name := " ".join(wrong):
            answers.append((name, letters))
            said[name] = " ".join(f"Question {i}: {words[i]}" for i in wrong)
    return _Exercise(partial(iter, answers), said)


_read_words()
