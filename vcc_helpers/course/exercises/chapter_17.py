"""Exercises of notebooks/17_check_and_pack: the base of a logarithm, thinning, silent copies.

Needs: adapt, datasets, effects, emit, splits and submission; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("17-3", 5).status
'right'
"""

from functools import cache

import numpy as np

from vcc_helpers import adapt, datasets, emit, splits, submission
from vcc_helpers.bulk import effects
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _prediction():
    """Return what the notebook predicts, as cells made by resampling."""
    screen = datasets.load_hipsc_screen()
    day = {d: screen[screen.obs["day"] == d] for d in (2, 3, 4, 5)}
    sources = {f"day {d}": effects(pseudobulk(day[d])) for d in (2, 3, 4)}
    support, query = splits.few_shot_split(sources["day 4"].obs_names, n_support=10, seed=0)
    labels = day[5].obs["target_gene"].astype(str)
    known = day[5][labels.isin(["non-targeting", *support])].copy()
    predicted = adapt.ContextGain(sources).fit(pseudobulk(known)).predict(query)
    return emit.resample_and_shift(
        predicted,
        controls=known[known.obs["target_gene"] == "non-targeting"].copy(),
        n_cells=labels.value_counts()[query],
        target_sum=np.median(np.ravel(known.X.sum(axis=1))),
    )


def _spread(undo) -> float:
    cells = _prediction()
    logs = cells[cells.obs["target_gene"] == "non-targeting"].X.toarray().astype(float)
    totals = undo(logs).sum(axis=1)
    return float(totals.std() / totals.mean())


def _kept(limit: int):
    sizes = _prediction().obs["target_gene"].astype(str).value_counts()
    kept = submission.thin(sizes, limit=limit)
    return sizes, kept


def _cut() -> int:
    sizes, kept = _kept(500)
    return int(kept[kept < sizes].min())


EXERCISES = {
    "17-1": Exercise(
        solution=lambda: _spread(np.expm1),
        right="Next to nothing: each cell adds up to the same. With another base the sums differ, "
        "and that is how the check tells the bases apart.",
        hints=(
            Hint(
                lambda: _spread(lambda v: np.exp2(v) - 1),
                "That undoes a logarithm to base 2. The natural one is undone by exp.",
            ),
            Hint(
                lambda: _spread(lambda v: v),
                "These are the sums of the logarithms. Undo them first: exp(v) - 1.",
            ),
            Hint(
                lambda: _spread(np.exp),
                "Almost: log1p is log(1 + x), so take 1 off again, or use np.expm1.",
            ),
        ),
    ),
    "17-2": Exercise(
        solution=_cut,
        right="With 500 cells for 14 labels every group is cut to the same number.",
        hints=(
            Hint(
                lambda: int(_kept(500)[1].max()),
                "That is the larger of the two numbers: one cell was left over here and there.",
            ),
            Hint(
                lambda: int(_kept(800)[1].min()),
                "That is for 800 cells. Ask for limit=500.",
            ),
        ),
    ),
    "17-3": Exercise(
        solution=lambda: 5,
        right="Two targets are copies of control cells, three are their mean: five predictions of "
        "no change. A model that falls back in silence looks like this.",
        hints=(
            Hint(
                lambda: 2, "These are the copies of control cells. Others are the controls' mean."
            ),
            Hint(lambda: 3, "These have the controls' mean. Others are copies of control cells."),
            Hint(
                lambda: 13,
                "That is the number of all targets. Read which remarks speak of no change.",
            ),
        ),
    ),
}
