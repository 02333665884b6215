"""Helpers of "The Virtual Cell Challenge, hands on".

>>> import vcc_helpers as vcc
>>> bulk = vcc.pseudobulk(vcc.datasets.load_h1_sample())
>>> vcc.effects(bulk).shape
(5, 1000)
"""

from typing import TYPE_CHECKING

from ._lazy import attach

if TYPE_CHECKING:
    from . import (
        adapt,
        bulk,
        classroom,
        counts,
        course,
        datasets,
        emit,
        evaluation,
        features,
        intervals,
        metrics,
        models,
        names,
        plot,
        presets,
        ranks,
        scoring,
        splits,
        stream,
        submission,
    )
    from .bulk import effect_strength, effects, knockdown
    from .counts import lognorm
    from .course.exercises import check
    from .scoring import DETable, ScoreCard, de_table, score
    from .stream import pseudobulk, qc_table, sample_cells, sort_cells

__version__ = "0.1.0.dev0"

__all__ = [
    "DETable",
    "ScoreCard",
    "adapt",
    "bulk",
    "check",
    "classroom",
    "counts",
    "course",
    "datasets",
    "de_table",
    "effect_strength",
    "effects",
    "emit",
    "evaluation",
    "features",
    "intervals",
    "knockdown",
    "lognorm",
    "metrics",
    "models",
    "names",
    "plot",
    "presets",
    "pseudobulk",
    "qc_table",
    "ranks",
    "sample_cells",
    "score",
    "scoring",
    "sort_cells",
    "splits",
    "stream",
    "submission",
]

# Loaded when first touched: pandas, anndata and scikit-learn take seconds.
__getattr__, __dir__ = attach(
    __name__,
    modules=tuple(__all__),
    names={
        "bulk": ("effect_strength", "effects", "knockdown"),
        "counts": ("lognorm",),
        "course.exercises": ("check",),
        "scoring": ("DETable", "ScoreCard", "de_table", "score"),
        "stream": ("pseudobulk", "qc_table", "sample_cells", "sort_cells"),
    },
)
