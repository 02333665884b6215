"""Exercises of chapters 25 to 26."""

import tempfile
from pathlib import Path

import numpy as np

from vcc_helpers import (
    adapt,
    metrics,
)
from vcc_helpers.datasets import write_bundle
from vcc_helpers.presets import VCC2026
from vcc_helpers.stream import pseudobulk

from . import exercise


@exercise("25-1")
def _copied_controls():
    yield "right", "direction_fidelity"
    yield "error", "mse_normalized"
    yield "chance", "pds_cosine"
    yield "shared", "significant_jaccard"
    yield "changes", "lfc_nmae"
    yield "order", "direction_reach"


@exercise("25-2")
def _share_of_three_contexts():
    error = np.array([0.6, 0.9, 1.4])
    share = metrics.scaled(error, 0.99, 0.04, VCC2026.limits["mse_normalized"])
    yield "right", float(share.mean())
    yield "without limits", float(metrics.scaled(error.mean(), 0.99, 0.04))
    yield "sum", float(share.sum())


@exercise("25-3")
def _smallest_error():
    yield "right", 1 - 0.3**2
    yield "length", 0.3
    yield "full length", 2 - 2 * 0.3
    yield "no change", 1.0


@exercise("26-1")
def _largest_part():
    with tempfile.TemporaryDirectory() as room:
        sources = (write_bundle(Path(room) / "bundle") / "sources").iterdir()
        parts = adapt.decompose({path.stem: pseudobulk(path) for path in sources})
    yield "right", parts.drop("noise").idxmax()
    yield "days", "conserved"
    yield "least", "line"
    yield "same for all", "global"


@exercise("26-2")
def _weight_of_three():
    k, agreement = 3, 0.2
    yield "right", k * agreement / (1 + (k - 1) * agreement)
    yield "of one", agreement
    yield "sum", k * agreement
    yield "without k", agreement / (1 + (k - 1) * agreement)
