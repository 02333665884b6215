"""Exercises of notebooks/17_check_and_pack: the base of a logarithm, thinning, silent copies."""

from collections.abc import Callable
from functools import cache

import anndata
import numpy as np
import pandas as pd

from vcc_helpers import emit, submission
from vcc_helpers.bulk import CONTROL

from . import exercise
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
def _spread_of_the_sums():
    yield "right", _spread(np.expm1)
    yield "base 2", _spread(lambda v: np.exp2(v) - 1)
    yield "logs", _spread(lambda v: v)
    yield "exp", _spread(np.exp)


@exercise("17-2")
def _cells_after_thinning():
    yield "right", int(_kept(500).min())
    yield "larger", int(_kept(500).max())
    yield "800", int(_kept(800).min())


@exercise("17-3")
def _silent_copies():
    yield "right", 5
    yield "copies", 2
    yield "mean", 3
    yield "all", 13
