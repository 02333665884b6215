"""Exercises of chapter 21."""

import tempfile
from pathlib import Path

from vcc_helpers import adapt
from vcc_helpers.datasets import write_bundle
from vcc_helpers.stream import pseudobulk

from . import exercise


@exercise("21-1")
def _largest_part():
    with tempfile.TemporaryDirectory() as room:
        sources = (write_bundle(Path(room) / "bundle") / "sources").iterdir()
        parts = adapt.decompose({path.stem: pseudobulk(path) for path in sources})
    yield "right", parts.drop("noise").idxmax()
    yield "days", "conserved"
    yield "least", "line"
    yield "same for all", "global"


@exercise("21-2")
def _weight_of_three():
    k, agreement = 3, 0.2
    yield "right", k * agreement / (1 + (k - 1) * agreement)
    yield "of one", agreement
    yield "sum", k * agreement
    yield "without k", agreement / (1 + (k - 1) * agreement)
