"""Exercises of notebooks/18_score_another_model: the wrong table, another logarithm, fallbacks.

Needs: datasets and scoring; exercises/__init__.py. 18-1 is judged by a file that the notebook makes
itself, so its solution computes the same.

>>> from vcc_helpers import check
>>> check("18-3", 7).status
'right'
"""

from functools import cache

import numpy as np

from vcc_helpers import adapt, datasets, emit, scoring
from vcc_helpers.bulk import effects
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint


@cache
def _world():
    world = datasets.make_h1_like(seed=0)
    return world, world.cells("train").copy(), world.cells("validation").copy()


@cache
def _means():
    """Return the pseudobulk that the notebook predicts."""
    world, known, _ = _world()
    sources = {name: effects(pseudobulk(world.contexts[name])) for name in world.sources}
    return adapt.ContextGain(sources).fit(pseudobulk(known)).predict(world.split["validation"])


@cache
def _prediction():
    """Return its cells."""
    world, known, real = _world()
    validation, predicted = world.split["validation"], _means()
    return emit.resample_and_shift(
        predicted,
        controls=known[known.obs["target_gene"] == "non-targeting"].copy(),
        n_cells=real.obs["target_gene"].astype(str).value_counts()[validation],
        target_sum=np.median(np.ravel(known.X.sum(axis=1))),
    )


@cache
def _score(part: str, metric: str) -> float:
    """Score the prediction, or the control cells that State's layout has in X."""
    cells = _prediction()
    if part == "X":
        is_control = cells.obs["target_gene"].to_numpy() == "non-targeting"
        source = np.arange(cells.n_obs)
        controls = np.flatnonzero(is_control)
        source[~is_control] = np.random.default_rng(0).choice(controls, (~is_control).sum())
        cells = cells.copy()
        cells.X = cells.X[source]
    return float(scoring.score(cells, _world()[2]).summary[metric])


EXERCISES = {
    "18-1": Exercise(
        solution=lambda: _score("X", "des"),
        right="Next to nothing is found: these are control cells under other names. And still a "
        "number comes out.",
        hints=(
            Hint(lambda: _score("obsm", "des"), "That is the DES of `state`. Leave layer= out."),
            Hint(lambda: _score("X", "pds"), "That is PDS. The question is DES."),
            Hint(lambda: _score("X", "mae"), "That is MAE. The question is DES."),
        ),
    ),
    "18-2": Exercise(
        solution=lambda: float(_means().X.max() * (1 / np.log(2) - 1)),
        right="Every value is 1.44 times too large, and nothing in the table says so. Times "
        "log(2), nothing but rounding is left.",
        hints=(
            Hint(
                lambda: 1 / np.log(2),
                "That is the factor. How far apart are the values?",
            ),
            Hint(
                lambda: float(_means().X.mean() * (1 / np.log(2) - 1)),
                "That is the mean distance. The question is the largest.",
            ),
            Hint(
                lambda: float(_means().X.max() / np.log(2)),
                "That is the largest value. Take the difference from `table`.",
            ),
        ),
    ),
    "18-3": Exercise(
        solution=lambda: 7,
        right="Seven targets have exactly the controls' mean. No error told you so.",
        hints=(
            Hint(lambda: 4, "Those are the first four. There are more further down."),
            Hint(lambda: 8, "Controls themselves do not count: leave their own row out."),
            Hint(lambda: 50, "That is the number of all targets."),
        ),
    ),
}
