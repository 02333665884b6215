"""Score predicted cells as the leaderboards do, and what to hold a score against."""

from .card import ScoreCard
from .digest import DETable, Digest, compare, de_table, digest
from .score import (
    anchors,
    baseline,
    halves,
    measure_cells,
    official_baseline,
    replicates,
    score,
    split_half,
    split_half_ceiling,
)

__all__ = [
    "DETable",
    "Digest",
    "ScoreCard",
    "anchors",
    "baseline",
    "compare",
    "de_table",
    "digest",
    "halves",
    "measure_cells",
    "official_baseline",
    "replicates",
    "score",
    "split_half",
    "split_half_ceiling",
]
