"""Several contexts in one file: which cells are of which, and each context by itself.

Taught in: notebooks/25_score_by_the_rules_of_2026.

>>> from vcc_helpers.datasets import load_h1_sample
>>> cells = load_h1_sample()
>>> cells.obs["context"] = ["A", "B"] * 300
>>> {name: part.n_obs for name, part in by_context(cells).items()}
{'A': 300, 'B': 300}
"""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np

from ..bulk import some_of
from .blocks import part_of
from .open import labels_of, open_cells

#: The column of ``obs`` that names each cell's context.
CONTEXT_KEY = "context"


def by_context(
    cells: anndata.AnnData | str | Path, context_key: str = CONTEXT_KEY, *, name: str = "cells"
) -> dict[str, anndata.AnnData]:
    """Return the cells of each context, names sorted: views, for which no value is read.

    A ValueError says that ``obs`` has no column `context_key`, or that a cell has no context;
    `name` is what it calls these cells.
    """
    cells = open_cells(cells)
    if context_key not in cells.obs:
        raise ValueError(
            f"{name}: obs has no column {context_key!r}, which says of which context a cell is; it "
            f"has {some_of(cells.obs.columns)}; rename one, or name it with context_key= or "
            "--context-key (a prediction and the truth need the same)"
        )
    labels = labels_of(cells, context_key)
    names = sorted(labels.unique())
    return {each: part_of(cells, np.flatnonzero(labels == each)) for each in names}


def has_several(cells: anndata.AnnData, context_key: str | None = CONTEXT_KEY) -> bool:
    """Tell whether the cells are of several contexts, by a column that they may lack."""
    return context_key in cells.obs and cells.obs[context_key].nunique(dropna=False) > 1
