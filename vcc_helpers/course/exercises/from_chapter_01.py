"""Exercises of chapters 1 to 6."""

from collections.abc import Iterable
from functools import cache

import numpy as np
import pandas as pd

from vcc_helpers import adapt, metrics
from vcc_helpers.bulk import CONTROL, effects
from vcc_helpers.counts import lognorm
from vcc_helpers.datasets import open_world
from vcc_helpers.splits import FewShotSplit, few_shot_split
from vcc_helpers.stream import pseudobulk

from . import exercise
from ._data import BASELINE, WINNER, bulk, effect, h1, targets


def _is(target: str) -> np.ndarray:
    return (h1().obs["target_gene"] == target).to_numpy()


@exercise("01-1")
def _depth_of_the_controls():
    depth, control = np.ravel(h1().X.sum(axis=1)), _is("non-targeting")
    yield "right", np.median(depth[control])
    yield "all cells", np.median(depth)
    yield "mean", depth[control].mean()
    yield "genes", np.median(np.ravel(h1()[control].X.sum(axis=0)))


@exercise("01-2")
def _counts_that_are_left():
    own, mine = h1()[:, "TMSB4X"].to_df()["TMSB4X"], _is("TMSB4X")
    control = own[_is("non-targeting")]
    pairs = own[mine].groupby(h1().obs["guide_id"].astype(str)[mine])
    left = pairs.mean()
    yield "right", left.max() / control.mean()
    yield "strong", left.min() / control.mean()
    yield "both", own[mine].mean() / control.mean()
    yield "medians", pairs.median()[left.idxmax()] / control.median()
    yield "all others", left.max() / own[~mine].mean()


def _effect(target: str, gene: str) -> float:
    return float(effects(pseudobulk(h1()))[target, gene].X.item())


@exercise("02-1", tolerance=1e-4)
def _mean_of_logs():
    med12 = (h1().obs["target_gene"] == "MED12").to_numpy()
    counts, logs = (
        x[med12][:, h1().var_names.get_loc("VIM")].toarray() for x in (h1().X, lognorm(h1()))
    )
    yield "right", logs.mean()
    yield "log of mean", np.log1p(np.expm1(logs).mean())
    yield "unscaled", np.log1p(counts).mean()
    yield "counts", counts.mean()
    yield "effect", _effect("MED12", "VIM")


def _share_rising(*, scaled: bool) -> pd.Series:
    cells = h1().copy()
    if not scaled:
        cells.X = cells.X.log1p()
    return (effects(pseudobulk(cells)).to_df() > 0).mean(axis=1)


@exercise("02-2")
def _effect_of_depth():
    depth = pd.Series(np.ravel(h1().X.sum(axis=1))).groupby(h1().obs["target_gene"].to_numpy())
    yield "right", _share_rising(scaled=False).idxmax()
    yield "deepest", depth.median().drop("non-targeting").idxmax()
    yield "scaled", _share_rising(scaled=True).idxmax()
    yield "falls", "TMSB4X"


@cache
def _parts() -> dict[str, list[str]]:
    return open_world().split


def _fault_of_splits(splits: FewShotSplit | Iterable[FewShotSplit]) -> str:
    """Return what makes a choice on these splits unfair, or that it is "fair"."""
    splits = [splits] if hasattr(splits, "support") else list(splits)
    used = [(set(split.support), set(split.query)) for split in splits]
    names = set().union(*(part for pair in used for part in pair))
    if not used or not all(support and query for support, query in used):
        return "nothing"
    if names & set(_parts()["validation"]):
        return "peeks"
    if names - set(_parts()["train"]):
        return "unknown"
    return "seen" if any(support & query for support, query in used) else "fair"


@exercise("03-2", probe=_fault_of_splits)
def _a_fair_choice():
    yield "right", "fair"
    for fault in ("peeks", "seen", "unknown", "nothing"):
        yield fault, fault


def _gain_of_day_4(support: list[str], **options: float) -> float:
    model = adapt.ContextGain({"day 4": effect(4)}, **options)
    return float(model.fit(bulk(5)[[CONTROL, *support]]).gain_["day 4"])


@exercise("04-2")
def _gain_from_five_targets():
    five = few_shot_split(targets(), n_support=5, seed=0).support
    yield "right", _gain_of_day_4(five)
    yield "least squares", _gain_of_day_4(five, shrinkage=0.0)
    yield "all", _gain_of_day_4(list(targets()))
    yield "zero-shot", _gain_of_day_4([])


@exercise("05-1")
def _the_same_for_all():
    n = 5
    yield "right", metrics.pds_chance(n)
    yield "half", 0.5
    yield "last", 1 / n
    yield "first", 1.0
    yield "none", 0.0
    yield "shifted", np.mean([1 - rank / n for rank in range(1, n + 1)])


@exercise("05-2", tolerance=5e-3)
def _score_of_the_winner():
    des, pds = ((WINNER[name] - BASELINE[name]) / (1 - BASELINE[name]) for name in ("des", "pds"))
    yield "right", metrics.overall(WINNER, BASELINE)
    yield "not cut", 100 * np.mean([des, pds, 1 - WINNER["mae"] / BASELINE["mae"]])
    yield "without MAE", 100 * np.mean([des, pds])
    yield "plain mean", 100 * (WINNER["des"] + WINNER["pds"]) / 3


_ROOM, _N_TARGETS = 200_000 - 38_176, 100


@exercise("06-1", tolerance=1e-6)
def _cells_per_target():
    yield "right", _ROOM // _N_TARGETS
    yield "no controls", 200_000 // _N_TARGETS
    yield "not whole", _ROOM / _N_TARGETS
    yield "rounded up", _ROOM // _N_TARGETS + 1
    yield "101", _ROOM // (_N_TARGETS + 1)
