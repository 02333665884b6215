"""The score card: one value a perturbation and metric, their means, and what to hold them against.

Taught in: notebooks/08_metrics_by_hand.

>>> table = pd.DataFrame({"pds": [0.5, 1.0]}, index=pd.Index(["A", "B"], name="target_gene"))
>>> ScoreCard("vcc2025", table).summary.to_dict()
{'pds': 0.75}
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
from ..presets import PRESETS, VCC2025
from ..stream.write import write_whole

_SHOWN = 5  # perturbations of each end of a long card in a notebook
#: Most characters of a card, many times what a row for every human gene takes.
_MOST_TEXT = 2**26
#: What a file that is no card raises.
_NO_CARD = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError)
REPLICATE = "half against half"  #: its row among the anchors


@dataclass(frozen=True)
class ScoreCard:
    """The result of scoring one prediction.

    Attributes
    ----------
    preset, settings
        Name of the rules, and what else the numbers depend on besides the data.
    per_perturbation
        Index target_gene, sorted; one column a metric. NaN where a metric has no value for a
        perturbation; a metric of the whole panel has the same number in each row.
    anchors
        What to hold the means against, from :func:`~.scoring.anchors`, where it was asked for.
    missed
        Of a metric the perturbations where the truth has a value and the prediction has none, such
        as a correlation of a prediction without any change: the worst value counts in the mean.
    """

    preset: str
    per_perturbation: pd.DataFrame
    settings: Mapping[str, object] = field(default_factory=dict)
    anchors: pd.DataFrame | None = None
    missed: Mapping[str, list[str]] = field(default_factory=dict)

    @property
    def counted(self) -> pd.DataFrame:
        """Return `per_perturbation` with the worst value for what was `missed`."""
        table = self.per_perturbation.copy()
        for name, rows in self.missed.items():
            table.loc[rows, name] = metrics.WORST[name]
        return table

    @property
    def summary(self) -> pd.Series:
        """Mean of each metric in `counted`, over what is not NaN, index metric, float64."""
        # fsum, so that the order of the perturbations does not show in the last digit
        known = {name: values.dropna() for name, values in self.counted.items()}
        means = {name: fsum(v) / len(v) if len(v) else np.nan for name, v in known.items()}
        return pd.Series(means, name="mean", dtype=np.float64).rename_axis("metric")

    def overall(self, baseline: ScoreCard) -> float:
        """Return the leaderboard's number: 0 is the baseline, 100 the best.

        `baseline` is the card of :func:`~.scoring.baseline` against the same truth; by the rules of
        2026, which take a repeat of the experiment for 100, it keeps the replicate's scores. A
        ValueError says that it was scored by other rules or on other perturbations, or lacks them.
        """
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
            "per_perturbation": _plain(self.per_perturbation),
            "settings": dict(self.settings),
        }
        if self.missed:
            card["missed"] = dict(self.missed)
        return card if self.anchors is None else card | {"anchors": _plain(self.anchors)}

    def to_json(self, path: str | Path) -> None:
        """Write the card to a file, whole or not at all; one that exists is replaced."""
        write_whole(path, json.dumps(self.to_dict(), indent=1) + "\n")

    @classmethod
    def from_json(cls, path: str | Path) -> ScoreCard:
        """Read a card that :meth:`to_json` wrote; a ValueError says that the file is none."""
        try:
            if Path(path).exists() and not Path(path).is_file():
                raise ValueError("it is no plain file")  # a device may never end
            with open(path, encoding="utf-8") as file:
                text = file.read(_MOST_TEXT + 1)
            if len(text) > _MOST_TEXT:
                raise ValueError("it is too large")
            card = json.loads(text)
            table = _table(card["per_perturbation"], "target_gene")
            beside = _table(card["anchors"], "anchor") if "anchors" in card else None
            if not isinstance(card["preset"], str):
                raise TypeError("preset is no text")
            missed = {name: list(rows) for name, rows in dict(card.get("missed", {})).items()}
            if not all(n in table and set(rows) <= {*table.index} for n, rows in missed.items()):
                raise ValueError("missed names what the card does not hold")
            return cls(card["preset"], table, dict(card["settings"]), beside, missed)
        except _NO_CARD as error:
            kind = type(error).__name__  # its own words may repeat the whole file
            raise ValueError(
                f"{path} is not a score card ({kind}: {str(error)[:100]}); expected a file that "
                "vcc-helpers score --json wrote"
            ) from error

    def __repr__(self) -> str:
        """Show the means, and what stands beside them."""
        head = f"ScoreCard {self.preset}, {len(self.per_perturbation)} perturbations (mean)"
        if self.anchors is not None:
            return f"{head}\n{self._beside().to_string(float_format='{:.4f}'.format, na_rep='')}"
        width = max(5, *(len(name) + 1 for name in self.per_perturbation))
        lines = [f"  {name:<{width}}{value:8.4f}" for name, value in self.summary.items()]
        return "\n".join([head, *lines])

    def _beside(self) -> pd.DataFrame:
        mean = self.summary.to_frame().T.set_axis(["this prediction"])
        return pd.concat([mean, self.anchors])  # which leaves out None

    def _repr_html_(self) -> str:
        first = [name for name in self.per_perturbation if name.startswith("pds")][:1]
        rows = self.per_perturbation.sort_values(first) if first else self.per_perturbation
        shown = "each perturbation"
        if len(rows) > 2 * _SHOWN:
            shown = f"{_SHOWN} perturbations from each end of {len(rows)}: per_perturbation has all"
            rows = pd.concat([rows[:_SHOWN], rows[-_SHOWN:]])
        body = pd.concat([self._beside(), rows]).to_html(float_format="{:.3f}".format, na_rep="")
        return f"<p><b>Score card</b>, {self.preset}, mean and {shown}</p>{body}"


def _plain(table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
    return table.astype(object).where(table.notna(), None).to_dict(orient="index")


def _table(rows: Mapping[str, Mapping], name: str) -> pd.DataFrame:
    table = pd.DataFrame.from_dict(dict(rows), orient="index").astype(np.float64).rename_axis(name)
    if (table.abs() > 1e300).any(axis=None):  # such a mean would have no end
        raise ValueError("a number is not finite, or too large")
    return table
