"""Score cells of several contexts: each against its own truth, then the mean over contexts.

By the rules of 2026 a prediction holds three cell lines in one file. Each is scored as if it were
alone, with its own controls, baseline and replicate, and the board shows the unweighted mean.

Taught in: notebooks/15_score_by_the_rules_of_2026.

>>> import numpy as np
>>> table = pd.DataFrame({"mae": [0.25]}, index=pd.Index(["A"], name="target_gene"))
>>> cards = ContextCards({name: ScoreCard("vcc2025", table * n) for n, name in enumerate("AB")})
>>> cards.summary["mae"].to_dict()
{'A': 0.0, 'B': 0.25, 'mean': 0.125}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from ..bulk import some_of
from ..presets import Preset, get_preset
from ..stream.open import labels_of, open_cells
from .card import ScoreCard
from .score import baseline, score


@dataclass(frozen=True)
class ContextCards:
    """A score card for each context.

    Attributes
    ----------
    cards
        Name of each context, and its card.
    """

    cards: Mapping[str, ScoreCard]

    @property
    def summary(self) -> pd.DataFrame:
        """Mean of each metric, a row a context; the last row, ``"mean"``, is their plain mean."""
        table = pd.DataFrame({name: card.summary for name, card in self.cards.items()}).T
        mean = table.mean().to_frame("mean").T  # a context may have that name, too
        return pd.concat([table, mean]).rename_axis("context")

    def overall(self, baselines: ContextCards) -> float:
        """Return the leaderboard's number: the unweighted mean of the contexts' overall scores.

        `baselines` is what :func:`baseline_contexts` returns of the same truth; a ValueError says
        that it is of other contexts.
        """
        if set(self.cards) != set(baselines.cards):
            raise ValueError(
                f"the baselines are of the contexts {some_of(baselines.cards)}, these cards of "
                f"{some_of(self.cards)}: score both against the same truth"
            )
        found = [card.overall(baselines.cards[name]) for name, card in self.cards.items()]
        return fsum(found) / len(found)


def score_contexts(
    pred: anndata.AnnData | str | Path,
    real: anndata.AnnData | str | Path,
    preset: str | Preset = "vcc2026",
    **settings,
) -> ContextCards:
    """Score each context of a prediction against the same context of the truth.

    Parameters
    ----------
    pred, real, preset
        As for :func:`score`; the column of ``obs`` that the rules name, ``context`` in 2026, says
        which cell is of which context.
    settings
        All else that :func:`score` takes.

    Returns
    -------
    ContextCards
        One card a context, contexts sorted.

    Raises
    ------
    ValueError
        A file has no such column, a cell has no context, the two do not have the same contexts, or
        a context cannot be scored.
    """
    rules = get_preset(preset)
    parts, truth = _by_context(pred, rules, "pred"), _by_context(real, rules, "real")
    if missing := sorted(truth.keys() - parts):
        raise ValueError(f"pred: no cell of the contexts {some_of(missing)}; predict them")
    if unknown := sorted(parts.keys() - truth):
        raise ValueError(
            f"pred: the contexts {some_of(unknown)} are not in real, which has {some_of(truth)}; "
            "was the file made for another phase?"
        )
    return _for_each(truth, lambda name: score(parts[name], truth[name], rules, **settings))


def baseline_contexts(
    real: anndata.AnnData | str | Path, preset: str | Preset = "vcc2026", **settings
) -> ContextCards:
    """Score the official baseline of each context; arguments as for :func:`score_contexts`."""
    truth, rules = _by_context(real, get_preset(preset), "real"), get_preset(preset)
    return _for_each(truth, lambda name: baseline(truth[name], rules, **settings))


def _by_context(cells, rules: Preset, name: str) -> dict[str, anndata.AnnData]:
    cells, key = open_cells(cells), rules.context_key or "context"
    if key not in cells.obs:
        raise ValueError(
            f"{name}: obs has no column {key!r}, which says of which context a cell is; it has "
            f"{some_of(cells.obs.columns)}"
        )
    contexts = labels_of(cells, key)
    return {context: cells[np.asarray(contexts == context)] for context in sorted(set(contexts))}


def _for_each(truth: Mapping, function) -> ContextCards:
    cards = {}
    for name in truth:
        try:
            cards[name] = function(name)
        except ValueError as error:
            raise ValueError(f"context {name}: {error}") from error
    return ContextCards(cards)
