"""Exercises of notebooks/01_load_the_h1_data: depth, storage, knock-down."""

import numpy as np

from . import exercise
from ._data import h1


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
def _when_csr_is_smaller():
    yield "right", 2 / (2 + 4)
    yield "4 bytes", 1 / 2
    yield "values only", 1.0
    yield "dense in 4 bytes", 2 / 3
    yield "row numbers", 2 / (2 + 4 + 4)


@exercise("01-3")
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
