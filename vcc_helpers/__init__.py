"""Helpers of "The Virtual Cell Challenge, hands on".

>>> import vcc_helpers as vcc
>>> bulk = vcc.pseudobulk(vcc.datasets.load_h1_sample())
>>> vcc.effects(bulk).shape
(5, 1000)
"""

from importlib import import_module

from . import (
    archive,
    cells,
    classroom,
    datasets,
    emit,
    exercises,
    features,
    leaderboard,
    metrics,
    presets,
    qc,
    ranksum,
    scoring,
    sorting,
    splits,
    submission,
)
from .de import DETable, de_table
from .effects import effect_strength, effects, knockdown, lognorm, pseudobulk
from .exercises import check
from .qc import qc_table, sample_cells
from .scoring import ScoreCard, score
from .sorting import sort_cells

__version__ = "0.1.0.dev0"

__all__ = [
    "DETable",
    "ScoreCard",
    "adapt",
    "archive",
    "cells",
    "check",
    "classroom",
    "datasets",
    "de_table",
    "effect_strength",
    "effects",
    "emit",
    "evaluation",
    "exercises",
    "exploits",
    "features",
    "knockdown",
    "leaderboard",
    "lognorm",
    "metrics",
    "models",
    "plot",
    "presets",
    "pseudobulk",
    "qc",
    "qc_table",
    "ranksum",
    "sample_cells",
    "score",
    "scoring",
    "sketches",
    "sort_cells",
    "sorting",
    "splits",
    "submission",
]


# scikit-learn and matplotlib take seconds to import, and scoring needs neither
_LAZY = ("adapt", "evaluation", "models", "plot", "sketches")


def __getattr__(name: str):
    if name in _LAZY:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
