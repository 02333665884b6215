"""Files with several contexts: what holds for cells must hold for each context by itself.

Taught in: notebooks/25_score_by_the_rules_of_2026.

>>> import numpy as np
>>> import pandas as pd
>>> obs = pd.DataFrame({"line": ["A", "B", "A"]}, index=["c1", "c2", "c3"])
>>> [parts] = sides(anndata.AnnData(np.ones((3, 2)), obs), rules="vcc2025", context_key="line")
>>> each(lambda part: part.n_obs, parts)
{'A': 2, 'B': 1}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import anndata

from ..bulk import some_of
from ..presets import Preset, get_preset
from ..stream.contexts import by_context, has_several
from ..stream.open import labels_of, open_cells


def sides(
    real, pred=None, *, rules: str | Preset, context_key: str | None = None
) -> list[dict[str, anndata.AnnData]]:
    """Return the cells of each context, of the real side and of the predicted one if it is given.

    The list is empty where all are of one context, and no column is named. A ValueError says that
    cells do not tell their context, or that the two sides have not the same.
    """
    key = context_key or get_preset(rules).context_key
    cells = {n: open_cells(c) for n, c in {"real": real, "pred": pred}.items() if c is not None}
    if not (context_key or any(has_several(side, key) for side in cells.values())):
        if key is None and (mixed := [name for name, side in cells.items() if has_several(side)]):
            warnings.warn(
                f"{' and '.join(mixed)}: several contexts in obs['context'], which these rules "
                "score as one; name the rules of 2026, or context_key= (--context-key)",
                stacklevel=3,
            )
        return []
    truth, *others = found = [by_context(side, key, name=name) for name, side in cells.items()]
    for parts in others:
        if missing := sorted(truth.keys() - parts):
            there = f"there are those of {some_of(parts)}; predict all, named as in real"
            raise ValueError(f"pred: no cell of the contexts {some_of(missing)}; {there}")
        if unknown := sorted(parts.keys() - truth):
            raise ValueError(
                f"pred: the contexts {some_of(unknown)} are not in real, which has "
                f"{some_of(truth)}; was the file made for another phase?"
            )
    return found


def each(function: Callable, *parts: Mapping[str, anndata.AnnData]) -> dict[str, object]:
    """Call a function with the cells of each context; what is wrong is told with its name."""
    found = {}
    for name in parts[0]:
        try:
            found[name] = function(*(_at_hand(side[name]) for side in parts))
        except ValueError as error:
            raise ValueError(f"context {name}: {error}") from error
    return found


def _at_hand(part: anndata.AnnData) -> anndata.AnnData:
    """Copy what is in memory: of a view, AnnData would copy the values at every look."""
    return part if part.isbacked else anndata.AnnData(part.X, part.obs.copy(), part.var.copy())


def controls_of(
    controls, real: anndata.AnnData, context_key: str | None
) -> anndata.AnnData | str | Path:
    """Return the controls of the context that `real` is of.

    They are cells, a file, or cells by name of the context; a ValueError says that none are of it.
    """
    if not isinstance(controls, Mapping):
        cells = open_cells(controls)
        if not has_several(cells, context_key):
            return controls
        controls = by_context(cells, context_key, name="controls")
    of = [*labels_of(real, context_key).unique()] if context_key in real.obs else [*controls]
    if len(of) != 1 or of[0] not in controls:
        raise ValueError(
            f"controls: there are those of the contexts {some_of(controls)}, and real is of "
            f"{some_of(of) if context_key in real.obs else 'one that it does not name'}; give "
            "those of its context"
        )
    return controls[of[0]]
