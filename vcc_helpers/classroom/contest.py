"""A leaderboard for a class: a folder of files becomes a page, and the truth stays hidden.

Files come from strangers: they are read as data, looked at before they are opened, and each in a
process of its own, so that whatever one does stops no other. What is published holds means only,
never values per perturbation.

In all that follows `folder` holds a folder for each team with files ``<YYYY-MM-DD>.h5ad`` or
``.vcc``, and a NotADirectoryError says that it is none; `today` is the last day that a name may
say, by default the latest that it is anywhere on earth; `size_limit` is that of
:func:`~vcc_helpers.submission.archive.opened`; `seconds` and `memory` are the most that reading one
file may take; `baseline` is the card of the official baseline.

Taught in: notebooks/21_run_your_own_leaderboard.

>>> change_problems(["A submissions/ada/2026-03-01.h5ad"], today=date(2026, 3, 1))
[]
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd

from .. import scoring
from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..presets import SCORING_VERSION, get_preset
from ..scoring.card import ScoreCard
from ..scoring.contexts import each, sides
from ..splits import few_shot_split
from ..stream.blocks import read_rows
from ..stream.contexts import has_several
from ..stream.open import check_cells, labels_of, open_cells
from ..stream.write import check_apart, write_cells, write_whole
from .apart import plain, processes, stand_in
from .page import board, page
from .records import Records

_TEAM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]+")  # other letters may become these when they are made small
_CHANGED = "the file changed after it was scored; its first score counts"
_DAMAGED = "its record is damaged, so it counts as the file is now; see *.damaged in the records"
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.(?:h5ad|vcc)")
#: What a library says of a file may repeat any text of it.
_SAID = re.compile(r"(?<=cannot be read as an \.h5ad) \(.*", re.DOTALL)
_QUOTED = re.compile(r"""(?<!\w)b?(?:'(?:\\.|[^'\\])*(?:'|$)|"(?:\\.|[^"\\])*(?:"|$))""")
#: Files and folders of `out` that :func:`publish` may replace.
_PUBLISHED = {"board.html", "cards"}


@dataclass(frozen=True)
class Entry:
    """One file of one team; the day is that of its name."""

    team: str
    day: date
    path: Path

    @property
    def name(self) -> str:
        """What boards and messages call it."""
        return f"{self.team}, {self.day}"

    @property
    def stem(self) -> str:
        """What files about it are called."""
        return f"{self.team}_{self.day}"


class _Folder(NamedTuple):
    entries: list[Entry]
    refused: dict[str, str]


class Scored(NamedTuple):
    """Full cards, not for publication; and names without a score, or with a remark, and why."""

    cards: dict[Entry, ScoreCard]
    refused: dict[str, str]


def prepare(
    cells: anndata.AnnData | str | Path,
    *,
    public: str | Path,
    private: str | Path,
    n_known: int,
    preset: str = "vcc2025",
    seed: int = 0,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
) -> None:
    """Split a screen into what a class gets and what the teacher keeps.

    A ValueError says that one folder holds the other, or `private` lies in a git repository, that
    there are no controls, or no target to know or to hold out.

    Parameters
    ----------
    cells
        Real or simulated cells with controls, ``(n_cells, n_genes)``; held in memory.
    public, private
        Folders to write to. The class gets ``train.h5ad`` (known perturbations and all controls),
        ``genes.csv``, ``targets.csv`` (each held-out target and its number of cells, of several
        contexts in each) and ``rules.txt`` (the name of the preset), the teacher ``truth.h5ad``
        (held-out perturbations and all controls) and ``baseline.json`` (the official baseline's
        card). The files use the contest's words.
    n_known, seed
        How many perturbations the class may see, and the seed of the split.
    preset, perturbation_key, control
        As for :func:`~vcc_helpers.scoring.score`.
    """
    public, private = _apart(public, private)
    written = [public / name for name in ("train.h5ad", "genes.csv", "targets.csv", "rules.txt")]
    for path in (*written, private / "truth.h5ad", private / "baseline.json"):
        check_apart(path, [cells])
    cells = open_cells(cells)
    check_cells(cells, perturbation_key=perturbation_key, control=control)
    labels = labels_of(cells, perturbation_key)
    targets = labels.unique().drop(control, errors="ignore")
    if not 0 < n_known < len(targets):
        raise ValueError(
            f"{n_known} of {len(targets)} targets known; expected 1 to {len(targets) - 1}, so that "
            "the class can learn and something is left to predict"
        )
    split = few_shot_split(targets, n_support=n_known, seed=seed)
    key = get_preset(preset).context_key
    columns = [key, PERTURBATION_KEY] if has_several(cells, key) else [PERTURBATION_KEY]
    words = labels.where(labels != control, CONTROL)
    words = cells.obs.assign(**{PERTURBATION_KEY: words})[columns]
    known, truth = (_part(cells, labels.isin([control, *names]), words) for names in split)
    asked = truth.obs[truth.obs[PERTURBATION_KEY] != CONTROL]
    n_cells = asked.groupby(columns, observed=True).size().rename("n_cells")
    if get_preset(preset).counts_only:  # the mean of the truth itself, and a replicate with it
        card = scoring.baseline(truth, preset)
        card.overall(card)  # or there is no scale, and no board
    else:
        card = scoring.score(scoring.official_baseline(known, n_cells=n_cells), truth, preset)
    for folder, name, part in ((public, "train", known), (private, "truth", truth)):
        folder.mkdir(parents=True, exist_ok=True)
        write_cells(folder / f"{name}.h5ad", part)
    write_whole(public / "genes.csv", truth.var_names.to_series(name="gene").to_csv(index=False))
    write_whole(public / "targets.csv", n_cells.to_csv())
    write_whole(public / "rules.txt", f"{card.preset}\n")
    card.to_json(private / "baseline.json")


def _part(cells, chosen: np.ndarray, words: pd.DataFrame) -> anndata.AnnData:
    """Return some cells, labelled with the contest's own words."""
    rows = np.flatnonzero(chosen)
    var = pd.DataFrame(index=cells.var_names)
    return anndata.AnnData(read_rows(cells, rows), obs=words.iloc[rows].copy(), var=var)


def _apart(public: str | Path, private: str | Path) -> tuple[Path, Path]:
    public, private = Path(public).resolve(), Path(private).resolve()
    if public == private or public in private.parents or private in public.parents:
        raise ValueError(
            f"the public folder {public} and the private one {private} hold each other: "
            "name two that lie apart"
        )
    if any((folder / ".git").exists() for folder in (private, *private.parents)):
        raise ValueError(
            f"the private folder {private} lies in a git repository, so the truth could be "
            "committed: name a folder outside"
        )
    return public, private


def read_folder(folder: str | Path, *, today: date | None = None) -> _Folder:
    """Find the submissions in a folder; ``README.md`` and hidden files are passed over.

    Returned are `entries`, one a team and day, sorted, and `refused`: of each other file or folder
    its name, and why. Of two files of one team and day the first by name counts. A link is refused,
    whatever it leads to: in a repository it could name the truth. In the names that are refused,
    what cannot be printed is written as an escape.
    """
    today, folder = today or (datetime.now(UTC) + timedelta(hours=14)).date(), Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder {folder}: expected one with a folder for each team")
    entries, refused = {}, {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "README.md":
            continue
        if why := _team_problem(path):
            refused[plain(path.name)] = why
            continue
        for file in sorted(p for p in path.iterdir() if not p.name.startswith(".")):
            name = f"{path.name}/{file.name}"
            day, why = _day_of(file, today)
            first = entries.get((path.name, day))
            if why is None and first is not None:
                why = f"a second file of {day}; one per day counts, and that is {first.path.name}"
            if why:
                refused[plain(name)] = why
            else:
                entries[path.name, day] = Entry(path.name, day, file)
    return _Folder([entries[key] for key in sorted(entries)], refused)


def _team_problem(path: Path) -> str | None:
    if path.is_symlink():
        return "a link; expected a team's own folder"
    if not path.is_dir():
        return "not in a team's folder; expected <team>/<YYYY-MM-DD>.h5ad"
    if not _TEAM.fullmatch(path.name):
        words = "small letters, digits and hyphens, 32 at most, the first no hyphen"
        return f"no name for a team; expected {words}"
    return None


def _day_of(path: Path, today: date) -> tuple[date | None, str | None]:
    """Return the day that a file's name says, and what is wrong with the file."""
    if path.is_symlink() or not path.is_file():
        return None, "a link or a folder; expected a file"
    match = _FILE.fullmatch(path.name)
    try:
        day = date.fromisoformat(match[1])
    except (TypeError, ValueError):  # another name, or no day of the calendar
        return None, "expected a name such as 2026-03-01.h5ad or 2026-03-01.vcc"
    return day, f"its name says {day}, which is not yet; today is {today}" if day > today else None


def read_teams(path: str | Path) -> dict[str, str]:
    """Read which account belongs to which team.

    The file is a CSV with the columns ``account`` and ``team``, a line an account; a team may have
    several. Returned are accounts in small letters, as GitHub takes no note of case, and teams. A
    ValueError says what is wrong with a line.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
    found = {}
    for number, line in enumerate(lines, start=2):
        account, team = ((line.get(name) or "").strip() for name in ("account", "team"))
        known = _ACCOUNT.fullmatch(account)
        account = account.lower()
        if not (known and _TEAM.fullmatch(team)) or found.get(account, team) != team:
            raise ValueError(
                f"{path}, line {number}: account {account!r}, team {team!r}; expected the columns "
                "account and team, a team's name of small letters, digits and hyphens, and no "
                "account in two teams"
            )
        found[account] = team
    return found


def changes_of(text: str | Iterable[str]) -> list[tuple[str, str]]:
    """Return letter and path of each changed file.

    `text` is the output of ``git diff --name-status --no-renames -z``, or lines with a letter, a
    tab and a path.
    """
    text = text if isinstance(text, str) else "\n".join(text)
    if "\0" not in text:
        pairs = (re.split(r"[\t ]", line, maxsplit=1) for line in text.splitlines() if line.strip())
        return [(pair[0], "".join(pair[1:])) for pair in pairs]
    fields = iter(text.split("\0"))
    return list(zip(fields, fields, strict=False))  # the last one is empty


def change_problems(
    lines: str | Iterable[str],
    *,
    account: str | None = None,
    teams: Mapping[str, str] | None = None,
    today: date | None = None,
) -> list[str]:
    """List what a proposed change does besides handing in one file of today for one's own team.

    `lines` are as for :func:`changes_of`; `account` is who proposes it, `teams` the team of each
    account as of :func:`read_teams`: without, nobody looks whose file it is. `today` is by default
    today; a day before or after passes, as time zones differ.

    The list is empty when the change adds or fixes exactly one submission. A change of anything
    else may be good, but a person must read it.
    """
    today, found, mine = today or datetime.now(UTC).date(), [], None
    changes = changes_of(lines)
    if len(changes) != 1:
        found.append(f"{len(changes)} files changed; expected one, the submission of today")
    if teams is not None:
        mine = teams.get(account.lower()) if _ACCOUNT.fullmatch(account or "") else None
        if mine is None:
            found.append(
                f"the account {account or ''!r} is in no team; ask for a line in teams.csv"
            )
    for letter, path in changes:
        folder, team, name = path.split("/") if path.count("/") == 2 else ("", "", "")
        match = _FILE.fullmatch(name)
        if letter not in {"A", "M"}:
            found.append(f"{path!r} is removed or renamed; a submission adds a file")
        elif not (folder == "submissions" and match and _TEAM.fullmatch(team)):
            found.append(
                f"{path!r} is no submission; expected submissions/<team>/<YYYY-MM-DD>.h5ad"
            )
        elif mine is not None and team != mine:
            found.append(f"{path!r} is in another team's folder; {account!r} belongs to {mine!r}")
        elif match.group(1) not in {str(today + timedelta(days=n)) for n in (-1, 0, 1)}:
            found.append(f"{path!r} is not of today, {today}; name the file after the day")
    return found


def check_folder(
    folder: str | Path,
    task: str | Path,
    *,
    only: Collection[str] | None = None,
    today: date | None = None,
    size_limit: int | float | str = "2GB",
    seconds: float = 600,
    memory: int | float | str = "4GB",
) -> dict[str, str]:
    """Check every submission, or those of some teams, against the public task, without the truth.

    `task` is the public folder that :func:`prepare` wrote; a FileNotFoundError says that it is not.
    Returned are the name of each submission that cannot be scored, and why: empty when all can.
    """
    task = Path(task).resolve()
    stand_in(task)
    entries, refused = read_folder(folder, today=today)
    if only is not None:
        entries = [entry for entry in entries if entry.team in only]
        refused = {name: why for name, why in refused.items() if name.split("/")[0] in only}
    limits = {"seconds": seconds, "memory": memory, "size_limit": size_limit}
    with processes() as run:
        for entry in entries:
            if why := run("check", path=entry.path.resolve(), task_folder=task, **limits):
                refused[entry.name] = why
    return refused


def score_folder(
    folder: str | Path,
    truth: str | Path,
    *,
    baseline: ScoreCard,
    cache: str | Path,
    today: date | None = None,
    size_limit: int | float | str = "2GB",
    seconds: float = 600,
    memory: int | float | str = "4GB",
) -> Scored:
    """Score every submission of a folder, none twice.

    Parameters
    ----------
    truth
        Real cells, the path of a file that the teams cannot read. What is wrong with it is an
        error, and no team's fault.
    cache
        Private folder for what is finished. In ``records`` there is a file for each score, with
        its card and the checksum of the file that has it: keep these. All else is computed anew
        where it is missing.

    Notes
    -----
    A file that changes after it was scored is not scored again: its first score counts, whatever
    version of this package comes in between; one that is as it was is scored again by a version
    that counts otherwise. A file that could not be scored may be fixed under the same name. One
    that took too long is not tried again with as little time. A record that is damaged counts as
    none, and is told.
    """
    truth, cache = Path(truth), Path(cache)
    entries, refused = read_folder(folder, today=today)
    # the truth's faults are the teacher's to fix, and no team's
    check_cells(open_cells(truth), name="truth")
    if parts := sides(truth, rules=baseline.preset):
        each(partial(check_cells, name="truth"), *parts)
    kept = {"truth": _hash(truth), "version": SCORING_VERSION, "baseline": baseline}
    cards, records = {}, Records(cache / "records", **kept)
    refused |= {plain(name.replace("_", ", ")): _DAMAGED for name in records.damaged}
    limits = {"seconds": seconds, "memory": memory, "size_limit": size_limit}
    halves = (cache / "halves").resolve()
    job = limits | {"truth": truth.resolve(), "preset": baseline.preset, "cache": halves}
    with processes() as run:
        for entry in entries:
            try:
                content = _hash(entry.path)
            except OSError as error:
                refused[entry.name] = plain(f"cannot be read ({error.strerror})")
                continue
            first, card, why = records.first.get(entry.stem), records.card_of(content), ""
            if first and first.file != content:
                card, why = first.card, _CHANGED
            elif card is None and records.was_slow(content, seconds):
                why = f"it took longer than {seconds:g} seconds, and was stopped"
            elif card is None:
                begin = time.monotonic()
                card, why = _score_apart(run, entry.path, **job)
                if why and time.monotonic() - begin >= seconds:
                    records.keep_slow(content, seconds)
            if why:
                refused[entry.name] = why
            else:
                records.keep(entry.stem, content, card)
            if card or first:
                cards[entry] = card or first.card
    return Scored(cards, refused)


def _score_apart(run: Callable[..., str], path: Path, **job) -> tuple[ScoreCard | None, str]:
    """Score one file in another process; return its card, or why there is none."""
    with tempfile.TemporaryDirectory(prefix="vcc_") as scratch:
        out = Path(scratch) / "card.json"
        if why := run("score", path=path.resolve(), out=out, **job):
            return None, why
        try:
            return ScoreCard.from_json(out), ""
        except ValueError:
            return None, "a metric of it is not finite"


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def newest(cards: Mapping[Entry, ScoreCard]) -> dict[str, ScoreCard]:
    """Return the latest entry of each team, by name.

    The latest and not the best: the best of many entries is good partly because it was lucky.
    """
    last = {entry.team: entry for entry in sorted(cards, key=lambda entry: entry.day)}
    return {last[team].name: cards[last[team]] for team in sorted(last)}


def publish(
    scored: Scored, out: str | Path, *, baseline: ScoreCard, title: str = "Leaderboard"
) -> None:
    """Write ``board.html`` and one file a scored entry, all of them or none.

    Published are means over perturbations, rounded: values per perturbation, or many digits, would
    let a team find the answer by changing its file a little at a time. Of a reason why a file has
    no score, what it quotes is left out, unless it names a perturbation of the contest: a file can
    have it from anywhere. The folder `out` is replaced if an earlier call wrote it; a ValueError
    says that it holds other things.
    """
    out = Path(out).resolve()
    _check_replaceable(out)
    labels = baseline.per_perturbation.index.to_frame().to_numpy().ravel()
    known = {"X", "obs", "var", PERTURBATION_KEY, *labels}
    reasons = {name: _without_quotes(why, known) for name, why in scored.refused.items()}
    html = board(newest(scored.cards), baseline, title=title, not_scored=reasons)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        (new / "cards").mkdir(parents=True)
        (new / "board.html").write_text(page(html, title=title), encoding="utf-8")
        for entry, card in scored.cards.items():
            text = json.dumps(_public(entry, card, baseline), indent=1) + "\n"
            (new / "cards" / f"{entry.stem}.json").write_text(text, encoding="utf-8")
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def _without_quotes(why: str, known: Collection[str]) -> str:
    """Leave out what is between quotation marks, as repr writes them, and is not known."""
    why = _SAID.sub("", why)
    return _QUOTED.sub(lambda found: found[0] if found[0][1:-1] in known else "'...'", why)


def _check_replaceable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the leaderboard")
    inside = [*out.iterdir(), *(out / "cards").glob("*")] if out.exists() else []
    others = sorted(path.name for path in inside if not _is_published(path))
    if others:
        raise ValueError(
            f"{out} holds {some_of(others)}, which would be lost: name a folder of its own for the "
            "leaderboard"
        )


def _is_published(path: Path) -> bool:
    """Tell whether :func:`publish` writes such a file or folder."""
    if path.name in _PUBLISHED:
        return path.is_dir() == (path.name == "cards")
    team, _, day = path.stem.partition("_")
    named = _TEAM.fullmatch(team) and _FILE.fullmatch(f"{day}.h5ad")
    return bool(path.parent.name == "cards" and path.suffix == ".json" and named)


def _public(entry: Entry, card: ScoreCard, baseline: ScoreCard) -> dict:
    means = {name: None if np.isnan(v) else round(v, 3) for name, v in card.summary.items()}
    bases = baseline.contexts
    parts = {name: round(part.overall(bases[name]), 1) for name, part in card.contexts.items()}
    return {
        "team": entry.team,
        "day": str(entry.day),
        "preset": card.preset,
        "n_perturbations": len(card.per_perturbation),
        "overall": round(card.overall(baseline), 1),
        "summary": means,
    } | ({"overall_of_contexts": parts} if parts else {})
