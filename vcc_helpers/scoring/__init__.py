"""Score predicted cells as the leaderboards do, and what to hold a score against.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> score(cells, cells).summary.to_dict()  # two of the five have no significant gene to find
{'des': 0.6, 'pds': 1.0, 'mae': 0.0}
"""

from .anchors import (
    anchors,
    baseline,
    official_baseline,
    replicates,
    split_half,
    split_half_ceiling,
)
from .card import ScoreCard
from .de import DETable, de_table
from .digest import Digest, compare, digest
from .measure import halves, measure_cells
from .score import score

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
