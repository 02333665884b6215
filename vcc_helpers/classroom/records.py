"""The first score of each file of a class, kept with its card, whatever is released later.

A record is a score card with a few words more: which file it is of, which truth, which version. A
damaged one is moved aside, to a name that ends in ``.damaged``, and counts as none.

Taught in: notebooks/21_run_your_own_leaderboard.

>>> import tempfile
>>> import pandas as pd
>>> table = pd.DataFrame({"pds": [0.5]}, index=pd.Index(["A"], name="target_gene"))
>>> card = ScoreCard("vcc2025", table)
>>> kept = {"truth": "t", "version": 1, "baseline": card}
>>> Records(folder := Path(tempfile.mkdtemp()), **kept).keep("ada_2026-03-01", "f", card)
>>> Records(folder, **kept).first["ada_2026-03-01"].file
'f'
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..scoring.card import ScoreCard
from ..stream.write import write_whole

#: What reading a damaged file raises.
_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)


class _Record(NamedTuple):
    """Checksum of the file that was scored, its card, and the version that scored it."""

    file: str
    card: ScoreCard
    version: int


class Records:
    """What a folder keeps of one truth, by ``<team>_<day>``.

    `truth` is the checksum of the truth, `version` that of today's scoring. `damaged` are the names
    of records that could not be read, now or in an earlier run.
    """

    def __init__(self, folder: Path, *, truth: str, version: int, baseline: ScoreCard):
        self.folder, self.truth, self.version, self.baseline = folder, truth, version, baseline
        self.first: dict[str, _Record] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*_*.json")):
            try:
                self._read(path)
            except _DAMAGED:
                with suppress(OSError):
                    path.replace(path.with_name(f"{path.name}.damaged"))
        self.damaged = [path.name.split(".")[0] for path in sorted(folder.glob("*.damaged"))]
        self._slow = folder / "slow.json"

    def _read(self, path: Path) -> None:
        card, of = ScoreCard.from_json(path), json.loads(path.read_text(encoding="utf-8"))["first"]
        if (of["truth"], card.preset) != (self.truth, self.baseline.preset):
            return  # of another contest
        mine, ours = card.per_perturbation, self.baseline.per_perturbation
        if set(mine.index) != set(ours.index) or list(mine) != list(ours):
            raise ValueError("other perturbations or metrics than the baseline's")
        self.first[path.stem] = _Record(str(of["file"]), card, of["version"])

    def card_of(self, file: str) -> ScoreCard | None:
        """Return the card of a file that was scored by today's version, under any name."""
        found = (r.card for r in self.first.values() if (r.file, r.version) == (file, self.version))
        return next(found, None)

    def keep(self, name: str, file: str, card: ScoreCard) -> None:
        """Keep the card of a file."""
        first = self.first.get(name)
        if first is None or first.version != self.version:
            self.first[name] = _Record(file, card, self.version)
            of = {"file": file, "truth": self.truth, "version": self.version}
            text = json.dumps(card.to_dict() | {"first": of}, indent=1) + "\n"
            write_whole(self.folder / f"{name}.json", text)

    def was_slow(self, file: str, seconds: float) -> bool:
        """Say whether a file took longer than so many seconds once, and need not be tried again."""
        return self._seconds().get(self._key(file), 0) >= seconds

    def keep_slow(self, file: str, seconds: float) -> None:
        """Note that a file took longer than so many seconds."""
        write_whole(self._slow, json.dumps(self._seconds() | {self._key(file): seconds}) + "\n")

    def _key(self, file: str) -> str:
        return f"{file} {self.truth} {self.baseline.preset} {self.version}"

    def _seconds(self) -> dict[str, float]:
        try:
            found = json.loads(self._slow.read_text(encoding="utf-8"))
            return {str(key): float(value) for key, value in found.items()}
        except _DAMAGED:  # it costs the time once more
            return {}
