"""Exercises of notebooks/17_check_and_pack: the base of a logarithm, thinning, silent copies."""

from collections.abc import Callable
from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import emit, submission
from vcc_helpers.bulk import CONTROL

from . import Answers, exercise
from ._data import deal, predicted


@cache
def _cells() -> anndata.AnnData:
    """Return what the notebook predicts, as cells made by resampling."""
    return emit.resample_and_shift(predicted(), **deal().recipe)


def _spread(undo: Callable) -> float:
    logs = _cells()[_cells().obs["target_gene"] == CONTROL].X.toarray().astype(float)
    totals = undo(logs).sum(axis=1)
    return float(totals.std() / totals.mean())


def _kept(limit: int) -> pd.Series:
    sizes = _cells().obs["target_gene"].astype(str).value_counts()
    kept = submission.thin(sizes, limit=limit)
    return kept.where(kept < sizes)


@exercise("17-1")
def _spread_of_the_sums() -> Answers:
    """Spread of the cells' sums, relative to their mean.

    right: Next to nothing: each cell adds up to the same. With another base the sums differ, and
        that is how the check tells the bases apart.
    base 2: That undoes a logarithm to base 2. The natural one is undone by exp.
    logs: These are the sums of the logarithms. Undo them first: exp(v) - 1.
    exp: Almost: log1p is log(1 + x), so take 1 off again, or use np.expm1.
    """
    yield "right", _spread(np.expm1)
    yield "base 2", _spread(lambda v: np.exp2(v) - 1)
    yield "logs", _spread(lambda v: v)
    yield "exp", _spread(np.exp)


@exercise("17-2")
def _cells_after_thinning() -> Answers:
    """Cells that a group is cut to.

    right: With 500 cells for 14 labels every group is cut to the same number.
    larger: That is the larger of the two numbers: one cell was left over here and there.
    800: That is for 800 cells. Ask for limit=500.
    """
    yield "right", int(_kept(500).min())
    yield "larger", int(_kept(500).max())
    yield "800", int(_kept(800).min())


@exercise("17-3")
def _silent_copies() -> Answers:
    """Count the targets without a prediction of their own.

    right: Two targets are copies of control cells, three are their mean: five predictions of no
        change. A model that falls back in silence looks like this.
    copies: These are the copies of control cells. Others are the controls' mean.
    mean: These have the controls' mean. Others are copies of control cells.
    all: That is the number of all targets. Read which remarks speak of no change.
    """
    yield "right", 5
    yield "copies", 2
    yield "mean", 3
    yield "all", 13
