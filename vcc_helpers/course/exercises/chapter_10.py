"""Exercises of notebooks/10_bring_your_own_screen: logarithms, contexts, gene names.

Needs: datasets, effects.py, scoring.py; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("10-1", 10).status
'right'
"""

from functools import cache

import anndata

from vcc_helpers.bulk import effects
from vcc_helpers.datasets import load_hipsc_screen
from vcc_helpers.evaluation import evaluate
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _day(number: int) -> anndata.AnnData:
    screen = load_hipsc_screen()
    return pseudobulk(screen[screen.obs["day"] == number])


def _carried_over(day: int, metric: str = "mae", *, means: bool = False) -> float:
    """Mean score on day 5 of the effects, or the means, of another day."""
    real, source = _day(5), _day(day)
    pred = real.copy()
    moved = source if means else effects(source)
    for row, target in enumerate(real.obs_names):
        if target != "non-targeting":
            base = 0 if means else real["non-targeting"].X
            pred.X[row] = base + moved[target].X
    return float(evaluate(pred, real)[metric].mean())


EXERCISES = {
    "10-1": Exercise(
        solution=lambda: 10,
        right="And since it came out whole, it was a count, not a scaled value.",
        tolerance=0,
        hints=(
            Hint(
                lambda: 11,
                "That is exp(value). log1p adds 1 before the logarithm, so take 1 off again.",
            ),
            Hint(
                lambda: round(2**2.3979 - 1),
                "That is for the logarithm to base 2. log1p is the natural one.",
            ),
            Hint(lambda: round(10**2.3979 - 1), "That is for the decimal logarithm."),
        ),
    ),
    "10-2": Exercise(
        solution=lambda: _carried_over(2),
        right="Much worse than day 4: three days earlier, the cells had hardly begun to answer.",
        hints=(
            Hint(lambda: _carried_over(4), "That is day 4 again. Change the source to day 2."),
            Hint(
                lambda: _carried_over(2, means=True),
                "You carried the mean expression over, not the effect. Subtract the controls of "
                "day 2, then add those of day 5.",
            ),
            Hint(lambda: _carried_over(2, "pds"), "That is PDS. The question is for the MAE."),
        ),
    ),
    "10-3": Exercise(
        solution=lambda: 1,
        right="One new name, no column lost: you decide what to do with it.",
        tolerance=0,
        hints=(
            Hint(
                lambda: 0,
                "Look again: the second of the two equal names must have got another one. Did you "
                "read with duplicates='rename'?",
            ),
            Hint(
                lambda: len(load_hipsc_screen().var_names) - 1,
                "Those are the genes that *are* in screen.var_names.",
            ),
        ),
    ),
}
