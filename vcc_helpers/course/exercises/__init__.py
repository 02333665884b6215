"""Self-checks of the book's exercises.

A notebook asks, the reader writes ``answer = ...`` and calls ``check("03-1", answer)``. The right
answer is computed from the bundled data when it is asked for, so it cannot drift from the code.

Taught in: every notebook.
Needs: its own chapter modules, and whatever those compute with.

>>> check("03-1", ...)
Not attempted yet: replace the dots with your answer, then run the cell again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from importlib import import_module
from numbers import Number

import numpy as np


@dataclass(frozen=True)
class Hint:
    """A wrong answer that people give, and what helps them on.

    Attributes
    ----------
    wrong
        Computes that answer.
    say
        One or two sentences: what it really answers, and where to look.
    """

    wrong: Callable[[], object]
    say: str


@dataclass(frozen=True)
class Exercise:
    """One exercise.

    Attributes
    ----------
    solution
        Computes the right answer: a number, a string, names, or an array.
    right
        What a reader learns from having it right.
    hints
        Known wrong answers.
    tolerance
        Relative tolerance for numbers.
    probe
        Turns what the reader hands in into something to compare; for an exercise that asks for a
        function, call it here on a fixed input. By default the answer itself.
    """

    solution: Callable[[], object]
    right: str
    hints: tuple[Hint, ...] = ()
    tolerance: float = 1e-3
    probe: Callable[[object], object] | None = None


@dataclass(frozen=True)
class Feedback:
    """What :func:`check` says.

    Attributes
    ----------
    status
        ``"not attempted"``, ``"right"`` or ``"wrong"``.
    message
        Words for the reader.
    """

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


def get_exercise(exercise_id: str) -> Exercise:
    """Return an exercise by its number.

    Parameters
    ----------
    exercise_id
        Chapter and number, such as ``"03-1"``.

    Raises
    ------
    KeyError
        There is no such exercise.
    """
    chapter = str(exercise_id).partition("-")[0]
    try:
        found = import_module(f"{__name__}.chapter_{chapter}").EXERCISES
        return found[exercise_id]
    except (ModuleNotFoundError, KeyError):
        raise KeyError(
            f"no exercise {exercise_id!r}; expected chapter and number, such as '03-1'"
        ) from None


def check(exercise_id: str, answer: object) -> Feedback:
    """Compare an answer with the right one and say something helpful.

    Parameters
    ----------
    exercise_id
        Chapter and number, such as ``"03-1"``.
    answer
        The reader's answer; ``...`` where there is none yet.

    Returns
    -------
    Feedback
        Shown by the notebook.

    Raises
    ------
    KeyError
        There is no such exercise.
    """
    exercise = get_exercise(exercise_id)
    if answer is ...:
        text = "Not attempted yet: replace the dots with your answer, then run the cell again."
        return Feedback("not attempted", text)
    if exercise.probe is not None:
        try:
            answer = exercise.probe(answer)
        except Exception as error:
            return Feedback("wrong", f"Your answer could not be used: {error!r}.")
    solution = exercise.solution()
    if (unlike := _kind_problem(answer, solution)) is not None:
        return Feedback("wrong", unlike)
    if _same(answer, solution, exercise.tolerance):
        return Feedback("right", exercise.right)
    for hint in exercise.hints:
        wrong = hint.wrong()
        if _kind_problem(answer, wrong) is None and _same(answer, wrong, exercise.tolerance):
            return Feedback("wrong", hint.say)
    if (slip := _slip(answer, solution, exercise.tolerance)) is not None:
        return Feedback("wrong", slip)
    return Feedback("wrong", "That is not it. Read the question again, then open the solution.")


def _slip(answer: object, solution: object, tolerance: float) -> str | None:
    """Say what keeps the right number from being right: its digits, or its scale."""
    if _kind(solution) != "a number" or not np.isfinite(float(answer)):
        return None
    written = f"{float(answer):.10f}".rstrip("0")
    digits, significant = len(written.partition(".")[2]), written.replace(".", "").strip("-0")
    if len(significant) > 1 and float(answer) == round(float(solution), digits):
        return "That is the right number, rounded. Answer with the expression, not with its digits."
    if 0 <= solution <= 1 and _same(float(answer) / 100, solution, tolerance):
        return "The right number, in per cent. Answer with a share, between 0 and 1."
    if _same(float(answer) * 100, solution, tolerance):
        return "The right number, a hundred times too small: the question asks for another scale."
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
