"""Exercises of notebooks/02_from_counts_to_effects: pseudobulk, effect, noise."""

import numpy as np
import pandas as pd

from vcc_helpers.bulk import effects
from vcc_helpers.counts import lognorm
from vcc_helpers.stream import pseudobulk

from . import Answers, exercise
from ._data import h1

N_TARGET, N_CONTROL = 1045, 38176


def _effect(target: str, gene: str) -> float:
    return float(effects(pseudobulk(h1()))[target, gene].X.item())


def _share_rising(*, scaled: bool) -> pd.Series:
    cells = h1().copy()
    if not scaled:
        cells.X = cells.X.log1p()
    return (effects(pseudobulk(cells)).to_df() > 0).mean(axis=1)


def _noise(n_target: float, n_control: float) -> float:
    bulk = pseudobulk(h1())
    variance = pd.Series(bulk.layers["variance"].sum(axis=1), bulk.obs_names)
    return float(np.sqrt(variance["SRC"] / n_target + variance["non-targeting"] / n_control))


@exercise("02-1", tolerance=1e-4)
def _mean_of_logs() -> Answers:
    """One entry of the pseudobulk, by hand.

    right: This is one entry of the pseudobulk: bulk['MED12', 'VIM'].
    log of mean: You averaged first and took the logarithm afterwards. The pseudobulk is the mean of
        the logs, which is smaller.
    unscaled: These are logs of unscaled counts: the depth of each cell is still in them.
    counts: That is the mean of the raw counts. Scale, take the logarithm, then average.
    effect: That is the effect: the controls are subtracted already. The question is for the mean
        itself.
    """
    med12 = (h1().obs["target_gene"] == "MED12").to_numpy()
    counts, logs = (
        x[med12][:, h1().var_names.get_loc("VIM")].toarray() for x in (h1().X, lognorm(h1()))
    )
    yield "right", logs.mean()
    yield "log of mean", np.log1p(np.expm1(logs).mean())
    yield "unscaled", np.log1p(counts).mean()
    yield "counts", counts.mean()
    yield "effect", _effect("MED12", "VIM")


@exercise("02-2")
def _log2_fold_change() -> Answers:
    """Turn an effect into a log2 fold change.

    right: On the log scale that is a bit more than half-way to a doubling.
    natural: That is the effect itself, a natural logarithm. One doubling is log(2) = 0.69 on that
        scale, and 1 on the log2 scale.
    fold change: That is the fold change. Take its log2.
    undone: You read the effect as a log2 and undid it. The effect is a natural logarithm, and the
        question is for a log2.
    times: Divide by log(2) instead of multiplying: a doubling, log(2), must become 1.
    log twice: The effect is a logarithm already. Undo the natural one first, then take log2.
    """
    effect = _effect("MED12", "TAGLN")
    yield "right", effect / np.log(2)
    yield "natural", effect
    yield "fold change", np.exp(effect)
    yield "undone", 2**effect
    yield "times", effect * np.log(2)
    yield "log twice", np.log2(effect)


@exercise("02-3")
def _effect_of_depth() -> Answers:
    """Find the target whose genes seem to rise without scaling.

    right: Nearly every gene seems to rise, although scaling shows no effect beyond noise. That is
        depth, not biology.
    deepest: Its cells have the highest median depth, and it comes a close second. Compute the share
        of genes above zero for each target.
    scaled: That is the answer with scaling. Replace the counts by their log1p, without scaling,
        before you call vcc.pseudobulk.
    falls: For that target most genes seem to go down: its cells are shallower than the controls.
    """
    depth = pd.Series(np.ravel(h1().X.sum(axis=1))).groupby(h1().obs["target_gene"].to_numpy())
    yield "right", _share_rising(scaled=False).idxmax()
    yield "deepest", depth.median().drop("non-targeting").idxmax()
    yield "scaled", _share_rising(scaled=True).idxmax()
    yield "falls", "TMSB4X"


@exercise("02-4")
def _noise_of_an_effect() -> Answers:
    """Noise of an effect with as many cells as in the official file.

    right: Less than a quarter of what it is with 100 cells in each group, and nearly all of it from
        the target's own cells.
    100 controls: You left the controls at 100 cells. Then they make most of the noise: more cells
        of the target alone hardly help.
    equal: You gave both groups 1,045 cells. The controls have 38,176.
    target alone: Nearly. That is the noise of the target's cells alone; the controls add theirs,
        little as it is.
    100 each: That is the noise with 100 cells in each group, as in our sample.
    in proportion: You scaled the noise in proportion to the number of cells. It falls with the root
        of the number only, and each group has its own.
    """
    yield "right", _noise(N_TARGET, N_CONTROL)
    yield "100 controls", _noise(N_TARGET, 100)
    yield "equal", _noise(N_TARGET, N_TARGET)
    yield "target alone", _noise(N_TARGET, np.inf)
    yield "100 each", _noise(100, 100)
    yield "in proportion", _noise(100, 100) * 100 / N_TARGET
