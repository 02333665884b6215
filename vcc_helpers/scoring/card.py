"""The score card: one value a perturbation and metric, their means, and what to hold them against.

By the rules of 2026 a prediction holds several contexts in one file. Each is scored as if it were
alone, and the card of the file holds the tables of all of them; the board shows the unweighted mean
over contexts.

Taught in: notebooks/05_compute_the_metrics, notebooks/17_metrics_by_hand and
notebooks/25_score_by_the_rules_of_2026.

>>> table = pd.DataFrame({"pds": [0.5, 1.0]}, index=pd.Index(["A", "B"], name="target_gene"))
>>> ScoreCard("vcc2025", table).summary.to_dict()
{'pds': 0.75}
>>> both = together({"K562": ScoreCard("vcc2025", table), "H1": ScoreCard("vcc2025", table / 3)})
>>> both.summary.to_dict(), list(both.contexts)
({'pds': 0.5}, ['K562', 'H1'])
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path

import numpy as np
import pandas as pd

from .. import metrics
from ..bulk import some_of
from ..presets import PRESETS, VCC2025
from ..stream.write import write_whole

_SHOWN = 5  # perturbations of each end of a long card in a notebook
#: Most characters of a card, many times what a row for every human gene takes.
_MOST_TEXT = 2**26
#: What a file that is no card raises.
_NO_CARD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
REPLICATE = "half-data repeat"  #: its row among the anchors


@dataclass(frozen=True)
class ScoreCard:
    """The result of scoring one prediction.

    Attributes
    ----------
    preset, settings
        Name of the rules, and what else the numbers depend on besides the data.
    per_perturbation
        Index target_gene, sorted, of several contexts (context, target_gene); a column per metric.
        NaN where a metric has no value for a perturbation; a metric of the whole panel has the same
        number in each row.
    anchors
        What to hold the means against, from :func:`~.scoring.anchors`, where it was wanted.
    missed
        Of a metric the perturbations where the truth has a value and the prediction has none, such
        as a correlation of a prediction without any change: the worst value counts in the mean.
    contexts
        The card of each context, where there are several, of which the above is put together.
    """

    preset: str
    per_perturbation: pd.DataFrame
    settings: Mapping[str, object] = field(default_factory=dict)
    anchors: pd.DataFrame | None = None
    missed: Mapping[str, list] = field(default_factory=dict)
    contexts: Mapping[str, ScoreCard] = field(default_factory=dict)

    @property
    def counted(self) -> pd.DataFrame:
        """Return `per_perturbation` with the worst value for what was `missed`."""
        table = self.per_perturbation.copy()
        for name, rows in self.missed.items():
            table.loc[rows, name] = metrics.WORST[name]
        return table

    @property
    def summary(self) -> pd.Series:
        """Mean of each metric in `counted`, over what is not NaN, index metric, float64.

        Of several contexts it is the mean of their means, NaN where one of them has none.
        """
        # fsum, so that the order of the perturbations does not show in the last digit
        if parts := self.contexts:
            known = pd.DataFrame([card.summary for card in parts.values()])
        else:
            known = {name: values.dropna() for name, values in self.counted.items()}
        means = {name: fsum(v) / len(v) if len(v) else np.nan for name, v in known.items()}
        return pd.Series(means, name="mean", dtype=np.float64).rename_axis("metric")

    def overall(self, baseline: ScoreCard) -> float:
        """Return the leaderboard's number: 0 is the baseline, 100 the best; the mean over contexts.

        `baseline` is the card of :func:`~.scoring.baseline` against the same truth; by the rules of
        2026, which take a repeat of the experiment for 100, it keeps the replicate's scores. A
        ValueError says that it was scored by other rules or on other perturbations or contexts, or
        lacks them.
        """
        parts, bases = self.contexts, baseline.contexts
        if set(parts) != set(bases):
            raise ValueError(
                f"the baseline is of the contexts {some_of(bases)}, this card of "
                f"{some_of(parts)}: score both against the same truth"
            )
        if parts:
            return fsum(card.overall(bases[name]) for name, card in parts.items()) / len(parts)
        mine, theirs = self.per_perturbation.index, baseline.per_perturbation.index
        if baseline.preset != self.preset or set(mine) != set(theirs):
            raise ValueError(
                f"the baseline is of preset {baseline.preset!r} with {len(theirs)} perturbations, "
                f"this card of {self.preset!r} with {len(mine)}: score both against the same truth"
            )
        return metrics.overall(self.summary, baseline.summary, *baseline.scale)

    @property
    def scale(self) -> tuple[Mapping[str, float], Mapping[str, tuple[float, float]]]:
        """What is 1 where this card is 0, for each metric, and the limits of the scaled values."""
        rules = PRESETS.get(self.preset, VCC2025)
        if rules.top == "perfect":
            return metrics.BEST, rules.limits
        if self.anchors is None or REPLICATE not in self.anchors.index:
            raise ValueError(
                f"the overall score of {rules.name} takes a repeat of the experiment for 100, and "
                "this baseline was scored without; make it with "
                f"scoring.baseline(real, {rules.name!r})"
            )
        top, mean = self.anchors.loc[REPLICATE], self.summary
        gain = {n: (top[n] - mean[n]) * (1 if metrics.BEST[n] else -1) for n in rules.limits}
        if bad := [name for name, by in gain.items() if not by > 0]:
            ends = ", ".join(f"{n} {top[n]:.3g} against {mean[n]:.3g}" for n in bad)
            raise ValueError(
                f"no scale: a repeat of the experiment is no better than the mean on {ends}; the "
                "truth needs more cells, or more perturbations with an effect"
            )
        return top, rules.limits

    def to_dict(self) -> dict:
        """Return the card as the JSON file has it; a value that there is not is None."""
        card = {
            "preset": self.preset,
            "n_perturbations": len(self.per_perturbation),
            "summary": _plain(self.summary.to_frame().T)["mean"],
        }
        if parts := self.contexts:
            return card | {"contexts": {name: one.to_dict() for name, one in parts.items()}}
        card["per_perturbation"] = _plain(self.per_perturbation)
        card["settings"] = dict(self.settings)
        if self.missed:
            card["missed"] = dict(self.missed)
        return card if self.anchors is None else card | {"anchors": _plain(self.anchors)}

    def to_json(self, path: str | Path) -> None:
        """Write the card to a file, whole or not at all; one that exists is replaced."""
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @staticmethod
    def from_json(path: str | Path) -> ScoreCard:
        """Read a card that :meth:`to_json` wrote; a ValueError says that the file is none."""
        try:
            if Path(path).exists() and not Path(path).is_file():
                raise ValueError("it is no plain file")  # a device may never end
            with open(path, encoding="utf-8") as file:
                text = file.read(_MOST_TEXT + 1)
            if len(text) > _MOST_TEXT:
                raise ValueError("it is too large")
            card = json.loads(text)
            if "contexts" in card:
                return together({name: _read(part) for name, part in card["contexts"].items()})
            return _read(card)
        except _NO_CARD as error:
            kind = type(error).__name__  # its own words may repeat the whole file
            raise ValueError(
                f"{path} is not a score card ({kind}: {str(error)[:100]}); expected a file that "
                "vcc-helpers score --json wrote"
            ) from error

    def __repr__(self) -> str:
        """Show the means, and what they are to be held against."""
        n, parts = len(self.per_perturbation), self.contexts
        head = f"ScoreCard {self.preset}, {n} perturbations (mean)"
        if parts:
            head = f"ScoreCard {self.preset}, {n} perturbations in {len(parts)} contexts (means)"
        if parts or self.anchors is not None:
            return f"{head}\n{self._beside().to_string(float_format='{:.4f}'.format, na_rep='')}"
        width = max(5, *(len(name) + 1 for name in self.per_perturbation))
        lines = [f"  {name:<{width}}{value:8.4f}" for name, value in self.summary.items()]
        return "\n".join([head, *lines])

    def _beside(self) -> pd.DataFrame:
        mean, parts = self.summary.to_frame().T.set_axis(["this prediction"]), self.contexts
        if not parts:
            return pd.concat([mean, self.anchors])  # which leaves out None
        tables = {name: card._beside() for name, card in parts.items()}
        rows = [t.set_axis([n, *(f"{n}: {row}" for row in t.index[1:])]) for n, t in tables.items()]
        return pd.concat([*rows, mean.set_axis(["mean over contexts"])])

    def _repr_html_(self) -> str:
        first = [name for name in self.per_perturbation if name.startswith("pds")][:1]
        rows = self.per_perturbation.sort_values(first) if first else self.per_perturbation
        shown = "each perturbation"
        if self.contexts:
            shown, rows = "each context: contexts has their cards", None
        elif len(rows) > 2 * _SHOWN:
            shown = f"{_SHOWN} perturbations from each end of {len(rows)}: per_perturbation has all"
            rows = pd.concat([rows[:_SHOWN], rows[-_SHOWN:]])
        body = pd.concat([self._beside(), rows]).to_html(float_format="{:.3f}".format, na_rep="")
        return f"<p><b>Score card</b>, {self.preset}, mean and {shown}</p>{body}"


def together(cards: Mapping[str, ScoreCard]) -> ScoreCard:
    """Put the cards of several contexts, of one preset, into one; that of one is returned."""
    first, *others = cards.values()
    rules = first.preset, *first.per_perturbation
    if any((card.preset, *card.per_perturbation) != rules for card in others):
        raise ValueError("the contexts were scored by different rules")
    if not others:
        return first
    tables = {name: card.per_perturbation for name, card in cards.items()}
    beside = {name: card.anchors for name, card in cards.items() if card.anchors is not None}
    missed = {}
    for name, card in cards.items():
        for metric, rows in card.missed.items():
            missed.setdefault(metric, []).extend((name, target) for target in rows)
    table = pd.concat(tables, names=["context", "target_gene"])
    anchors = pd.concat(beside, names=["context", "anchor"]) if beside else None
    return ScoreCard(first.preset, table, first.settings, anchors, missed, cards)


def _read(card: Mapping) -> ScoreCard:
    """Read what :meth:`ScoreCard.to_dict` gives of one context."""
    table = _table(card["per_perturbation"], "target_gene")
    beside = _table(card["anchors"], "anchor") if "anchors" in card else None
    if not isinstance(card["preset"], str):
        raise TypeError("preset is no text")
    missed = {name: list(rows) for name, rows in dict(card.get("missed", {})).items()}
    if not all(n in table and set(rows) <= {*table.index} for n, rows in missed.items()):
        raise ValueError("missed names what the card does not hold")
    return ScoreCard(card["preset"], table, dict(card["settings"]), beside, missed)


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return table.astype(object).where(table.notna(), None).to_dict(orient="index")


def _table(rows: Mapping[str, Mapping], name: str) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(dict(rows), orient="index").astype(np.float64).rename_axis(name)
    if (table.abs() > 1e300).any(axis=None):  # such a mean would have no end
        raise ValueError("a number is not finite, or too large")
    return table
