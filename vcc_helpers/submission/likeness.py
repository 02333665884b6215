"""Which cells are alike: predictions of contexts next to each other and to the real controls.

Each limit was measured on simulated cells of six lines, 18,533 genes at a depth of 20,000, drawn by
the recipe of :func:`~vcc_helpers.datasets.open_world`; the page on calibration says how real it is.

Taught in: notebooks/06_check_and_pack and notebooks/18_from_means_to_cells.

>>> distance(np.array([1.0, 1.0]), np.array([2.0, 2.0]))
0.0
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from ..stream.look import scan

#: Contexts whose mean cells are no further apart are one. Measured: two draws of one prediction
#: .045 apart with 48 cells, .007 with 2,400; two lines at least .32.
SAME = 0.05
#: Cells so many times as deep as the controls, or as shallow. Measured, by the rules of 2026: of a
#: weak target 4 genes are called at the controls' depth, 65 at 1.25 times it, 2,500 at 1.5 times.
DEPTH = 1.25
#: Share of a target's cells that may repeat others. Measured: in eight targets without effect 1
#: gene is called where none does, 3 at a tenth, 29 at a fifth, 3,008 at a half.
REPEATED = 0.1
#: What is taken of a look at cells: depth and mark.
COLUMNS = ["total", "signature"]


class Side(NamedTuple):
    """Depth and mark of each cell of a context, equal for equal cells, and the sum of all."""

    depth: np.ndarray
    mark: np.ndarray
    total: np.ndarray


def side_of(controls: anndata.AnnData, genes: pd.Index) -> Side | None:
    """Look at control cells, in the order of these genes; None if they have others."""
    names = controls.var_names.astype(str)
    if len(names) != len(genes) or not names.is_unique or set(names) != set(genes):
        return None
    cells = controls if names.equals(genes) else controls[:, names.get_indexer(genes)]
    seen = scan(cells, np.zeros(cells.n_obs, int))
    return Side(*seen.of_cells[COLUMNS].to_numpy().T, seen.group_total[0])


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of two sums of cells, as log1p of counts in 10,000."""
    one, other = (np.log1p(1e4 * x / max(x.sum(), 1)) for x in (one, other))
    return float(np.sqrt(np.mean((one - other) ** 2)))


def alike(sides: Mapping[str, Side]) -> list[str]:
    """Name pairs of contexts whose mean cells are the same but for chance."""
    pairs = combinations(sides, 2)
    near = [pair for pair in pairs if distance(*(sides[c].total for c in pair)) <= SAME]
    return [f"{one} and {other}" for one, other in near]


def nearest(sides: Mapping[str, Side], controls: Mapping[str, Side]) -> dict[str, str]:
    """Return the context whose controls are nearest, of those contexts where it is another one.

    Measured: .016 at most to a context's own controls, .32 at least to another's.
    """
    found = {}
    for context in sides.keys() & controls:
        gap = {c: distance(sides[context].total, real.total) for c, real in controls.items()}
        if (near := min(gap, key=gap.get)) != context and gap[near] < gap[context]:
            found[context] = near
    return dict(sorted(found.items()))


def other_depth(sides: Mapping[str, Side], controls: Mapping[str, Side]) -> list[str]:
    """Name contexts whose cells are deeper or shallower than the controls."""
    found = []
    for context in sorted(sides.keys() & controls):
        here, real = (np.median(side[context].depth) for side in (sides, controls))
        if not 1 / DEPTH <= here / max(real, 1) <= DEPTH:
            found.append(f"{context}: {here:,.0f}, controls {real:,.0f}")
    return found


def in_several(sides: Mapping[str, Side]) -> np.ndarray:
    """Return the marks that cells of more than one context have."""
    marks = [np.unique(side.mark) for side in sides.values()] or [np.zeros(0)]
    found, times = np.unique(np.concatenate(marks), return_counts=True)
    return found[times > 1]


def repeated(mark: pd.Series) -> float:
    """Share of the cells that repeat an earlier one; empty cells are passed over."""
    mark = mark[mark != 0]
    return 1 - mark.nunique() / max(len(mark), 1)
