"""A leaderboard for a class: a folder of files becomes a page, and the truth stays hidden.

Files come from strangers: they are read as data, looked at before they are opened, and one that is
broken does not stop the others. What is published holds means only, never values per perturbation.

In all that follows `folder` holds a folder for each team with files ``<YYYY-MM-DD>.h5ad`` or
``.vcc``, and a NotADirectoryError says that it is none; `today` is the last day that a name may
say, by default the latest that it is anywhere on earth; `size_limit` is that of
:func:`~vcc_helpers.submission.archive.opened`; `baseline` is the card of the official baseline.

Taught in: notebooks/16_run_your_own_leaderboard.

>>> change_problems(["A submissions/ada/2026-03-01.h5ad"], today=date(2026, 3, 1))
[]
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from .. import scoring
from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..presets import SCORING_VERSION, get_preset
from ..scoring.card import ScoreCard
from ..splits import few_shot_split
from ..stream.blocks import read_rows
from ..stream.look import inspect_values
from ..stream.open import check_cells, check_same, labels_of, open_cells
from ..stream.write import write_cells, write_whole
from ..submission.archive import opened
from .page import board, page

_TEAM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_FILE = re.compile(r"(\d{4}-\d\d-\d\d)\.(?:h5ad|vcc)")
#: Files and folders of `out` that :func:`publish` may replace.
_PUBLISHED = {"board.html", "cards"}


@dataclass(frozen=True)
class Entry:
    """One file of one team: small letters, digits, hyphens; the day is that of the file's name."""

    team: str
    day: date
    path: Path

    @property
    def name(self) -> str:
        """What boards and messages call it."""
        return f"{self.team}, {self.day}"


class Folder(NamedTuple):
    """Entries, one a team and day, sorted; and of each other file or folder its name, and why."""

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

    Parameters
    ----------
    cells
        Real or simulated cells with controls, ``(n_cells, n_genes)``; held in memory.
    public
        Folder to write ``train.h5ad`` (known perturbations and all controls), ``genes.csv`` and
        ``targets.csv`` (each held-out target and its number of cells) to.
    private
        Folder to write ``truth.h5ad`` (held-out perturbations and all controls) and
        ``baseline.json`` (the official baseline's card) to.
    n_known
        How many perturbations the class may see.
    preset, perturbation_key, control
        As for :func:`~vcc_helpers.scoring.score`; the files written use the contest's words.
    seed
        Seed of the split.

    Raises
    ------
    ValueError
        One folder holds the other, or `private` lies in a git repository; there are no controls, or
        no target to know or to hold out.
    """
    public, private = _apart(public, private)
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
    known, truth = (_part(cells, labels, [control, *names], control) for names in split)
    n_cells = labels[labels.isin(split.query)].value_counts().sort_index()
    n_cells = n_cells.rename_axis("target_gene").rename("n_cells")
    if get_preset(preset).counts_only:  # the mean of the truth itself, and a replicate beside it
        card = scoring.baseline(truth, preset)
        _ = card.scale  # or there is none, and no board
    else:
        card = scoring.score(scoring.official_baseline(known, n_cells=n_cells), truth, preset)
    for folder, name, part in ((public, "train", known), (private, "truth", truth)):
        folder.mkdir(parents=True, exist_ok=True)
        write_cells(folder / f"{name}.h5ad", part)
    write_whole(public / "genes.csv", truth.var_names.to_series(name="gene").to_csv(index=False))
    write_whole(public / "targets.csv", n_cells.to_csv())
    card.to_json(private / "baseline.json")


def _part(cells, labels: pd.Index, names: list[str], control: str) -> anndata.AnnData:
    """Return the cells of some perturbations, labelled with the contest's own words."""
    rows = np.flatnonzero(labels.isin(names))
    x = read_rows(cells, rows)
    words = labels[rows].where(labels[rows] != control, CONTROL)
    obs = pd.DataFrame({PERTURBATION_KEY: words}, index=cells.obs_names[rows])
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=cells.var_names))


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


def read_folder(folder: str | Path, *, today: date | None = None) -> Folder:
    """Find the submissions in a folder; ``README.md`` and hidden files are passed over.

    Of two files of one team and day the first by name counts. A link is refused, whatever it leads
    to: in a repository it could name the truth.
    """
    today = today or (datetime.now(UTC) + timedelta(hours=14)).date()
    folder = Path(folder)
    if not folder.is_dir():
        raise NotADirectoryError(f"no folder {folder}: expected one with a folder for each team")
    entries, refused = {}, {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name == "README.md":
            continue
        if why := _team_problem(path):
            refused[path.name] = why
            continue
        for file in sorted(p for p in path.iterdir() if not p.name.startswith(".")):
            name = f"{path.name}/{file.name}"
            day, why = _day_of(file, today)
            first = entries.get((path.name, day))
            if why is None and first is not None:
                why = f"a second file of {day}; one a day counts, and that is {first.path.name}"
            if why:
                refused[name] = why
            else:
                entries[path.name, day] = Entry(path.name, day, file)
    return Folder([entries[key] for key in sorted(entries)], refused)


def _team_problem(path: Path) -> str | None:
    if path.is_symlink():
        return "a link; expected a team's own folder"
    if not path.is_dir():
        return "not in a team's folder; expected <team>/<YYYY-MM-DD>.h5ad"
    if not _TEAM.fullmatch(path.name):
        return (
            "no name for a team; expected small letters, digits and hyphens, 32 at most, the first "
            "no hyphen"
        )
    return None


def _day_of(path: Path, today: date) -> tuple[date | None, str | None]:
    """Return the day that a file's name says, and what is wrong with the file."""
    if path.is_symlink() or not path.is_file():
        return None, "a link or a folder; expected a file"
    match = _FILE.fullmatch(path.name)
    try:
        day = date.fromisoformat(match.group(1)) if match else None
    except ValueError:
        day = None
    if day is None:
        return None, "expected a name such as 2026-03-01.h5ad or 2026-03-01.vcc"
    if day > today:
        return day, f"its name says {day}, which is not yet; today is {today}"
    return day, None


def change_problems(lines: Iterable[str], *, today: date | None = None) -> list[str]:
    """List what a proposed change does besides handing in one file of today.

    Parameters
    ----------
    lines
        Output of ``git diff --name-status``: a letter and a path a line.
    today
        By default today; a day before or after passes, as time zones differ.

    Returns
    -------
    list of str
        Empty when the change adds or mends exactly one submission. A change of anything else may
        be good, but a person must read it.
    """
    today, found = today or datetime.now(UTC).date(), []
    changes = [line.split(maxsplit=1) for line in lines if line.strip()]
    if len(changes) != 1:
        found.append(f"{len(changes)} files changed; expected one, the submission of today")
    for letter, path in changes:
        parts = path.split("/")
        rest = parts[-2:] if path == "/".join(["submissions", *parts[-2:]]) else ["", ""]
        match = _FILE.fullmatch(rest[1])
        if letter not in {"A", "M"}:
            found.append(f"{path!r} is removed or renamed; a submission adds a file")
        elif not (match and _TEAM.fullmatch(rest[0])):
            found.append(
                f"{path!r} is no submission; expected submissions/<team>/<YYYY-MM-DD>.h5ad"
            )
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
) -> dict[str, str]:
    """Check every submission, or those of some teams, against the public task, without the truth.

    `task` is the public folder that :func:`prepare` wrote; a FileNotFoundError says that it is not.
    Returned are the name of each submission that cannot be scored, and why: empty when all can.
    """
    wanted = _stand_in(Path(task))
    entries, refused = read_folder(folder, today=today)
    if only is not None:
        entries = [entry for entry in entries if entry.team in only]
        refused = {name: why for name, why in refused.items() if name.split("/")[0] in only}
    for entry in entries:
        with _told(entry, refused), opened(entry.path, size_limit=size_limit) as path:
            pred = open_cells(path)
            check_cells(pred, name="pred")
            check_same(pred, wanted)
            inspect_values(pred, name="pred")
    return refused


def _stand_in(task: Path) -> anndata.AnnData:
    """Return empty cells, one of each perturbation, with the genes of the task."""
    for name in ("genes.csv", "targets.csv"):
        if not (task / name).is_file():
            raise FileNotFoundError(f"no {name} in {task}; name the public folder of the class")
    genes = pd.read_csv(task / "genes.csv", dtype=str, keep_default_na=False)["gene"]
    targets = pd.read_csv(task / "targets.csv", dtype=str, keep_default_na=False)["target_gene"]
    labels = [CONTROL, *targets]
    obs = pd.DataFrame({PERTURBATION_KEY: labels}, index=[f"cell {i}" for i in range(len(labels))])
    empty = sparse.csr_matrix((len(labels), len(genes)), dtype=np.float32)
    return anndata.AnnData(empty, obs=obs, var=pd.DataFrame(index=pd.Index(genes.tolist())))


@contextmanager
def _told(entry: Entry, refused: dict[str, str]) -> Iterator[None]:
    """Keep an error as the reason why an entry has no score, without the machine's paths."""
    try:
        yield
    except Exception as error:  # a stranger's file can break anything below
        known = isinstance(error, ValueError | KeyError | OSError) and error.args
        text = str(error.args[0]) if known else f"cannot be read ({type(error).__name__})"
        text = re.sub(r"(?:/[^\s/:]+)+/", "", text)
        text = "; ".join(line.strip() for line in text.splitlines())
        refused[entry.name] = text if len(text) <= 600 else f"{text[:600]} ..."


def score_folder(
    folder: str | Path,
    truth: str | Path,
    *,
    baseline: ScoreCard,
    cache: str | Path,
    today: date | None = None,
    size_limit: int | float | str = "2GB",
) -> Scored:
    """Score every submission of a folder, none twice.

    Parameters
    ----------
    folder, baseline, today, size_limit
        As in all of this module; the baseline's preset is the rules.
    truth
        Real cells, the path of a file that the teams cannot read. What is wrong with it is an
        error, and no team's fault.
    cache
        Private folder for what is finished: cards by the content of both files, and which file a
        team's day was scored with. Remove it, and all is computed anew.

    Returns
    -------
    Scored
        Cards, and remarks.

    Notes
    -----
    A file that changes after it was scored is not scored again: its first score stands. A file
    that could not be scored may be mended under the same name.
    """
    truth, cache = Path(truth), Path(cache)
    entries, refused = read_folder(folder, today=today)
    # the truth's faults are the teacher's to mend, and no team's
    check_cells(open_cells(truth), name="truth")
    cache.mkdir(parents=True, exist_ok=True)
    rules = f"{_hash(truth)} {baseline.preset} {SCORING_VERSION}"
    first, cards = _first_files(cache), {}
    for entry in entries:
        content = _hash(entry.path)
        counts = first.get(entry.name, content)
        kept = cache / f"{hashlib.sha256(f'{counts} {rules}'.encode()).hexdigest()}.json"
        if counts != content:
            refused[entry.name] = "the file changed after it was scored; its first score stands"
        elif not kept.exists():
            with _told(entry, refused), opened(entry.path, size_limit=size_limit) as path:
                card = scoring.score(path, truth, baseline.preset, cache=cache / "halves")
                card.to_json(kept)
        if kept.exists():
            cards[entry] = ScoreCard.from_json(kept)
            first[entry.name] = counts
            write_whole(cache / "first_files.json", json.dumps(first, indent=1) + "\n")
    return Scored(cards, refused)


def _first_files(cache: Path) -> dict[str, str]:
    """Return the hash of the file that each team's day was scored with."""
    path = cache / "first_files.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


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
    let a team find the answer by changing its file a little at a time. The folder `out` is
    replaced if an earlier call wrote it; a ValueError says that it holds other things.
    """
    out = Path(out)
    _check_replaceable(out)
    html = board(newest(scored.cards), baseline, title=title, not_scored=scored.refused)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        (new / "cards").mkdir(parents=True)
        (new / "board.html").write_text(page(html, title=title), encoding="utf-8")
        for entry, card in scored.cards.items():
            text = json.dumps(_public(entry, card, baseline), indent=1) + "\n"
            path = new / "cards" / f"{entry.team}_{entry.day}.json"
            path.write_text(text, encoding="utf-8")
        if out.exists():
            out.rename(old)
        try:
            new.rename(out)
        except OSError:
            if old.exists():
                old.rename(out)
            raise


def _check_replaceable(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; name a folder for the leaderboard")
    others = sorted({p.name for p in out.iterdir()} - _PUBLISHED) if out.exists() else []
    if others:
        raise ValueError(
            f"{out} holds {some_of(others)}, which would be lost: name a folder of its own for the "
            "leaderboard"
        )


def _public(entry: Entry, card: ScoreCard, baseline: ScoreCard) -> dict:
    means = {name: None if np.isnan(v) else round(v, 3) for name, v in card.summary.items()}
    return {
        "team": entry.team,
        "day": str(entry.day),
        "preset": card.preset,
        "n_perturbations": len(card.per_perturbation),
        "overall": round(card.overall(baseline), 1),
        "summary": means,
    }
