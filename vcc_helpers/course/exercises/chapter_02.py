"""Exercises of notebooks/02_from_counts_to_effects: pseudobulk, effect, noise.

Needs: datasets, effects.py; exercises/__init__.py.

>>> from vcc_helpers import check
>>> check("02-3", "stat1").status
'right'
"""

from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers.bulk import effects
from vcc_helpers.counts import lognorm
from vcc_helpers.datasets import load_h1_sample
from vcc_helpers.stream import pseudobulk

from . import Exercise, Hint

N_TARGET, N_CONTROL = 1045, 38176


@cache
def _cells() -> anndata.AnnData:
    return load_h1_sample()


@cache
def _bulk() -> anndata.AnnData:
    return pseudobulk(_cells())


def _is(target: str) -> np.ndarray:
    return (_cells().obs["target_gene"] == target).to_numpy()


def _vim(values) -> np.ndarray:
    return values[_is("MED12")][:, _cells().var_names.get_loc("VIM")].toarray().ravel()


def _effect(target: str, gene: str) -> float:
    return float(effects(_bulk())[target, gene].X.item())


def _share_rising(*, scaled: bool) -> pd.Series:
    cells = _cells().copy()
    if not scaled:
        cells.X = cells.X.log1p()
    return (effects(pseudobulk(cells)).to_df() > 0).mean(axis=1)


def _deepest() -> str:
    depth = pd.Series(np.asarray(_cells().X.sum(axis=1)).ravel(), _cells().obs_names)
    medians = depth.groupby(_cells().obs["target_gene"].astype(str)).median()
    return medians.drop("non-targeting").idxmax()


def _noise(n_target: int, n_control: int) -> float:
    variance = pd.Series(_bulk().layers["variance"].sum(axis=1), _bulk().obs_names)
    return float(np.sqrt(variance["SRC"] / n_target + variance["non-targeting"] / n_control))


EXERCISES = {
    "02-1": Exercise(
        solution=lambda: _vim(lognorm(_cells())).mean(),
        right="This is one entry of the pseudobulk: bulk['MED12', 'VIM'].",
        tolerance=1e-4,
        hints=(
            Hint(
                lambda: np.log1p(np.expm1(_vim(lognorm(_cells()))).mean()),
                "You averaged first and took the logarithm afterwards. The pseudobulk is the mean "
                "of the logs, which is smaller.",
            ),
            Hint(
                lambda: np.log1p(_vim(_cells().X)).mean(),
                "These are logs of unscaled counts: the depth of each cell is still in them.",
            ),
            Hint(
                lambda: _vim(_cells().X).mean(),
                "That is the mean of the raw counts. Scale, take the logarithm, then average.",
            ),
            Hint(
                lambda: _effect("MED12", "VIM"),
                "That is the effect: the controls are subtracted already. The question is for "
                "the mean itself.",
            ),
        ),
    ),
    "02-2": Exercise(
        solution=lambda: _effect("MED12", "TAGLN") / np.log(2),
        right="On the log scale that is a bit more than half-way to a doubling.",
        hints=(
            Hint(
                lambda: _effect("MED12", "TAGLN"),
                "That is the effect itself, a natural logarithm. One doubling is log(2) = 0.69 "
                "on that scale, and 1 on the log2 scale.",
            ),
            Hint(
                lambda: np.exp(_effect("MED12", "TAGLN")),
                "That is the fold change. Take its log2.",
            ),
            Hint(
                lambda: 2 ** _effect("MED12", "TAGLN"),
                "You read the effect as a log2 and undid it. The effect is a natural logarithm, "
                "and the question is for a log2.",
            ),
            Hint(
                lambda: _effect("MED12", "TAGLN") * np.log(2),
                "Divide by log(2) instead of multiplying: a doubling, log(2), must become 1.",
            ),
            Hint(
                lambda: np.log2(_effect("MED12", "TAGLN")),
                "The effect is a logarithm already. Undo the natural one first, then take log2.",
            ),
        ),
    ),
    "02-3": Exercise(
        solution=lambda: _share_rising(scaled=False).idxmax(),
        right="Nearly every gene seems to rise, although scaling shows no effect beyond noise. "
        "That is depth, not biology.",
        hints=(
            Hint(
                _deepest,
                "Its cells have the highest median depth, and it comes a close second. Compute the "
                "share of genes above zero for each target.",
            ),
            Hint(
                lambda: _share_rising(scaled=True).idxmax(),
                "That is the answer with scaling. Replace the counts by their log1p, without "
                "scaling, before you call vcc.pseudobulk.",
            ),
            Hint(
                lambda: "TMSB4X",
                "For that target most genes seem to go down: its cells are shallower than the "
                "controls.",
            ),
        ),
    ),
    "02-4": Exercise(
        solution=lambda: _noise(N_TARGET, N_CONTROL),
        right="Less than a quarter of what it is with 100 cells in each group, and nearly all of "
        "it from the target's own cells.",
        hints=(
            Hint(
                lambda: _noise(N_TARGET, 100),
                "You left the controls at 100 cells. Then they make most of the noise: more cells "
                "of the target alone hardly help.",
            ),
            Hint(
                lambda: _noise(N_TARGET, N_TARGET),
                "You gave both groups 1,045 cells. The controls have 38,176.",
            ),
            Hint(
                lambda: _noise(N_TARGET, np.inf),
                "Nearly. That is the noise of the target's cells alone; the controls add theirs, "
                "little as it is.",
            ),
            Hint(
                lambda: _noise(N_TARGET, N_CONTROL) ** 2,
                "That is the square of the noise. Take the root.",
            ),
            Hint(
                lambda: _noise(100, 100),
                "That is the noise with 100 cells in each group, as in our sample.",
            ),
            Hint(
                lambda: _noise(100, 100) * 100 / N_TARGET,
                "You scaled the noise in proportion to the number of cells. It falls with the "
                "root of the number only, and each group has its own.",
            ),
        ),
    ),
}
