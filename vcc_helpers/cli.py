"""The ``vcc-helpers`` command: a table of subcommands, thin over the functions of the package.

Only what the options need is imported here; each command imports what it runs.

Taught in: notebooks/06_check_and_pack and notebooks/18_from_means_to_cells.

>>> main(["score", "missing.h5ad", "also_missing.h5ad"])
1
"""

from __future__ import annotations

import argparse
import csv as tables
import os
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

from . import __version__
from .datasets._official import OFFICIAL
from .presets import PRESETS

#: As in :mod:`~vcc_helpers.bulk`, which takes a second to import.
_CONTROL, _KEY = "non-targeting", "target_gene"
#: What a spreadsheet's formula may begin with, and the mark of text.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")
#: The longest message, in characters of a line and in lines.
_LONGEST, _MOST_LINES = 2000, 200


class _Stopped(KeyboardInterrupt):
    """What the signals SIGTERM and SIGHUP become, to end as Ctrl-C does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with the words after ``vcc-helpers``; those of the process by default.

    Returns
    -------
    int
        0 done; 1 the data is not acceptable, one line a problem on standard error; 130 stopped
        with Ctrl-C, 143 by SIGTERM, 129 by SIGHUP; a wrong command line exits with 2.
    """
    if sys.stdout is None or sys.stderr is None:  # then the next file would get their number
        _say("standard output or standard error is closed; open both, for example with >/dev/null")
        return 1
    if hasattr(sys.stdout, "reconfigure"):  # no name is too strange to be printed somehow
        sys.stdout.reconfigure(errors="backslashreplace")
    options = vars(_parser().parse_args(arguments))
    run = options.pop("run")
    with warnings.catch_warnings(), _signals_as_interrupts():
        warnings.showwarning = _show_warning
        try:
            _print(run(**options, progress=sys.stderr.isatty()))
        except (ValueError, KeyError, OSError) as error:
            _say(_without_line_breaks(_as_typed(str(_words_of(error)), options), options))
            return 1
        except MemoryError as error:
            _say(
                f"not enough memory ({error or 'an array did not fit'}); no output was changed; "
                "give a smaller --memory where the command has it, or close what else runs on this "
                "machine"
            )
            return 1
        except KeyboardInterrupt as error:
            _say("stopped; no output was changed")
            return 128 + (error.args[0] if isinstance(error, _Stopped) else signal.SIGINT)
    return 0


@contextmanager
def _signals_as_interrupts() -> Iterator[None]:
    """Let the signals that end a process end it as Ctrl-C does: files that are begun are removed.

    One that somebody ignores (nohup) or handles already stays as it is.
    """
    in_main = threading.current_thread() is threading.main_thread()
    numbers = [signal.SIGTERM, signal.SIGHUP] if in_main and os.name == "posix" else []
    numbers = [number for number in numbers if signal.getsignal(number) == signal.SIG_DFL]

    def stop(number: int, _) -> None:
        for each in numbers:  # the second must not disturb the tidying up
            signal.signal(each, signal.SIG_IGN)
        raise _Stopped(number)

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _words_of(error: Exception) -> object:
    """Return the text of an error without what Python puts around it."""
    if isinstance(error, KeyError) and error.args:
        return error.args[0]
    if isinstance(error, UnicodeEncodeError):
        return (
            f"a name holds {error.object[error.start]!r}, which this machine's locale cannot write "
            f"({error.encoding}); set the environment variable PYTHONUTF8=1, or choose plain names"
        )
    ours = isinstance(error, OSError) and error.filename is None
    return error.strerror if ours and error.strerror else error


def _as_typed(text: str, options: Mapping[str, object]) -> str:
    """Call parameters as the command line does: --folder for folder=."""
    for name in options:
        if (option := f"--{name.replace('_', '-')}") not in text:
            text = re.sub(rf"(?<![\w?&(]){name}=(?=[\s;,]|\.?$)", option, text)
            text = re.sub(rf"(?<![\w?&(]){name}=(?=\d)", f"{option} ", text)
    return text


def _without_line_breaks(text: str, options: Mapping[str, object]) -> str:
    """Write the names in the options, where they hold line breaks, on one line."""
    try:
        here = os.getcwd()
    except OSError:  # somebody has removed it
        here = ""
    for value in (*options.values(), here):
        for name in str(value).split("/"):
            if "\n" in name:
                text = text.replace(name, _plain(name))
    return text


def _plain(text: object) -> str:
    """Write what would move the cursor of a terminal, or change its colours, as an escape."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))


def _show_warning(message: Warning, category: type[Warning], *_, **__) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):  # those are for developers
        _say(f"warning: {message}")


def _say(text: object) -> None:
    """Print a message on standard error, a line for each of its lines."""
    lines = [line for line in str(text).split("\n") if line]
    if (left := len(lines) - _MOST_LINES) > 0:
        lines[_MOST_LINES:] = [f"and {left} lines more"]
    for line in lines:
        line = f"vcc-helpers: {_plain(line[:_LONGEST])}"
        line = line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."
        try:
            print(line, file=sys.stderr or sys.stdout, flush=True)
        except OSError:  # a full disk: the exit status must do
            _silence(sys.stderr)


def _print(text: str) -> None:
    """Print the result on standard output."""
    try:
        print("\n".join(map(_plain, text.split("\n"))), flush=True)
    except BrokenPipeError:  # who reads our lines has seen enough; all files are written
        _silence(sys.stdout)
    except OSError as error:
        _silence(sys.stdout)
        raise OSError(f"cannot write to standard output: {error.strerror}") from error


def _silence(stream: TextIO) -> None:
    """Let a stream that nothing can be written to lead nowhere, or Python fails when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _size(path: str | Path) -> str:
    files = Path(path).iterdir() if Path(path).is_dir() else [Path(path)]
    return f"{_plain(path)}  {sum(file.stat().st_size for file in files) / 1e6:,.1f} MB"


# What each command does: writes its files, and returns what is printed


def _score(pred, real, *, bundle, baseline, ceiling, json, csv, **asked) -> str:
    from . import scoring
    from .metrics import pds_chance
    from .stream.write import check_apart, check_writable, write_whole

    # first what can fail at once: it should not cost the wait for a score
    inputs = pred, real, baseline, bundle
    for path, other in ((json, csv), (csv, json)):
        if path:
            check_writable(path, inputs=inputs, outputs=[other, asked["cache"]])
    if asked["cache"]:
        check_apart(asked["cache"], inputs)
    baseline = scoring.ScoreCard.from_json(baseline) if baseline else None
    controls = _open_bundle(bundle, asked).controls if bundle else None
    card = scoring.score(pred, real, ceiling=ceiling, controls=controls, **asked)
    lines, parts = [repr(card)], card.contexts
    if not ceiling:
        by_rank = "pds" in card.per_perturbation
        sizes = [len(part.per_perturbation) for part in parts.values() or [card]]
        chance = sum(map(pds_chance, sizes)) / len(sizes)
        lines.append(f"  chance  pds {chance:.4f}" if by_rank else "  chance  pds_cosine 0.5000")
    elif card.anchors is not None and "their means, replicated" not in lines[0]:
        lines.append("  (mean and perfect predictions left out: more --memory would hold them)")
    if baseline is not None:
        perfect = PRESETS[card.preset].top == "perfect"
        scale = " of 100, baseline 0" if perfect else ", baseline 0, replicate 100"
        overall, bases = card.overall(baseline), baseline.contexts
        for name, part in parts.items():
            lines.append(f"  overall of {name} {part.overall(bases[name]):.2f}")
        lines.append(f"  overall {overall:.2f}{scale}")
    if json:
        card.to_json(json)
    if csv:
        write_whole(csv, _for_spreadsheets(card.per_perturbation))
    return "\n".join(lines)


def _open_bundle(bundle, asked):
    from .datasets import read_bundle

    if PRESETS[asked["preset"]].context_key:
        return read_bundle(bundle)
    raise ValueError(
        f"a bundle is of a season with contexts, and the rules of {asked['preset']} know none; "
        "name the season's with --preset, such as vcc2026"
    )


def _for_spreadsheets(table) -> str:
    """Write a table as CSV; an apostrophe before a label keeps it from being a formula.

    One that begins with an apostrophe gets another, so that each is what it was without the first.
    """
    labels = table.index.to_frame(index=False).map(
        lambda label: "'" * str(label).startswith(_FORMULA) + str(label)
    )
    kept = labels.join(table.reset_index(drop=True))
    returns = labels.apply(lambda column: column.str.contains("\r")).any(axis=None)
    quoted = tables.QUOTE_NONNUMERIC if returns else tables.QUOTE_MINIMAL
    return kept.to_csv(index=False, quoting=quoted)


def _asked_in(bundle, asked) -> dict:
    """Take what is wanted from a bundle, but for lists that are named."""
    if not bundle:
        return asked
    found = _open_bundle(bundle, asked)
    lists = {"genes": "gene_names.csv", "counts": "pert_counts.csv"}
    taken = {name: asked[name] or found.folder / file for name, file in lists.items()}
    return asked | taken | {"controls": found.controls}


def _check(pred, *, fix, bundle, **asked) -> str:
    from . import submission

    asked = _asked_in(bundle, asked)
    if fix:
        _say_mended(submission.mend(pred, fix, **asked))
        return _size(fix)
    report = submission.check(pred, **asked)
    lines = [f"{p} (--fix: {p.mended})" if p.mended else str(p) for p in report.problems]
    if not report.ok:
        raise ValueError("\n".join(lines))
    _say("\n".join(lines))
    return f"{report.summary}: can be handed in"


def _prep(pred, *, out, bundle, **asked) -> str:
    from . import submission

    if not (asked["genes"] or bundle):
        usage = "vcc-helpers prep (-g CSV | --bundle BUNDLE) ... PRED -o OUT.vcc"
        _Parser("vcc-helpers prep", usage).error("name the genes with -g/--genes, or a --bundle")
    asked = _asked_in(bundle, asked)
    _say_mended(submission.prep(pred, out, **asked))
    return _size(out)


def _say_mended(report) -> None:
    for problem in report.problems:
        _say(f"fixed, {problem.mended}: {problem}" if problem.mended else problem)


def _sort(source, out, **asked) -> str:
    from .stream import sort_cells

    return _size(sort_cells(source, out, **asked))


def _pseudobulk(source, out, **asked) -> str:
    from . import stream
    from .stream.write import check_writable

    check_writable(out, inputs=[source])
    bulk = stream.pseudobulk(source, **asked)
    stream.write_cells(out, bulk)
    return f"{_plain(out)}  {bulk.n_obs} groups x {bulk.n_vars} genes"


def _fetch(what, verify_panel, **asked) -> str:
    from . import datasets

    if not verify_panel:
        return _size(datasets.fetch_h1(what, **asked))
    from .datasets._fetch import folder_of
    from .datasets._panel import verify_panel as held_against

    if what != "train":
        raise ValueError("the published figures are of the training cells: fetch train")
    if asked["cells_per_target"] is not None:
        datasets.fetch_h1(what, **asked)
    path = folder_of(asked["folder"], panel=True) / OFFICIAL[what].name
    return held_against(path).to_string()


def _simulate(out, season, **asked) -> str:
    from . import datasets

    if season == "2026":
        return f"{_plain(datasets.write_bundle(out, **asked))}  SIMULATED"
    return f"{_size(datasets.write_h1_like(out, **asked))}  SIMULATED"


# The command line


def _whole(text: str, least: int = 0) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < least:
        raise argparse.ArgumentTypeError(
            f"expected a whole number of {least} or more, got {text[:40]!r}"
        )
    return int(text)


class _Command(NamedTuple):
    """A row of the table; an option that is needed has a ! behind it."""

    run: Callable[..., str]
    options: str
    about: str
    more: str


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(_plain(message)[:_LONGEST])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="vcc-helpers",
        description="Score predictions of the Virtual Cell Challenge, and handle its files.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for name, command in _COMMANDS.items():
        added = commands.add_parser(
            name,
            help=command.about,
            description=f"{command.about[0].upper()}{command.about[1:]}.",
            epilog=command.more,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=command.run)
        for option in command.options.split():
            words = option.removesuffix("!")
            required = {} if words == option else {"required": True}
            added.add_argument(*words.split("/"), **_OPTIONS[words], **required)
    return parser


_OPTIONS = {
    "pred": {"metavar": "PRED", "help": "predicted cells, an .h5ad"},
    "real": {"metavar": "REAL", "help": "real cells, an .h5ad with controls"},
    "source": {"metavar": "IN.h5ad", "help": "cells in any order, an .h5ad"},
    "out": {"metavar": "OUT.h5ad", "help": "file to write"},
    "what": {"metavar": "WHAT", "choices": ("sample", *OFFICIAL),
        "help": "train, validation, test: the cells; sample: 600 real cells that come with the "
        f"package; or {', '.join(name for name in OFFICIAL if '_' in name)}"},
    "-o/--out": {"metavar": "OUT.vcc", "help": "file to write"},
    "--preset": {"default": "vcc2025", "choices": sorted(PRESETS),
        "help": "the rules (%(default)s)"},
    "-g/--genes": {"metavar": "CSV", "help": "the genes in their official order"},
    "--counts": {"metavar": "CSV", "help": "target_gene and n_cells to be predicted"},
    "--contexts": {"metavar": "A,B,C",
        "help": "contexts to be predicted (those of manifest.json next to the lists)"},
    "--bundle": {"metavar": "BUNDLE",
        "help": "the season's controls, a zip or folder: its lists, and controls to compare with"},
    "--context-key": {"metavar": "COLUMN",
        "help": "column of obs that names the context (context by the rules of 2026)"},
    "--perturbation-key": {"default": _KEY, "metavar": "COLUMN",
        "help": "column of obs that names the perturbation (%(default)s)"},
    "--control": {"default": _CONTROL, "metavar": "LABEL",
        "help": "label of control cells (%(default)s)"},
    "--baseline": {"metavar": "BASE.json", "help": "card of the official baseline"},
    "--ceiling": {"action": "store_true",
        "help": "show the mean, one half of REAL against the other, and perfect predictions, too"},
    "--json": {"metavar": "OUT.json", "help": "write the card to a file"},
    "--csv": {"metavar": "OUT.csv",
        "help": "write one row per perturbation to a file; an apostrophe is put before names that "
        "a spreadsheet would take for formulas"},
    "--threads": {"type": partial(_whole, least=1), "metavar": "N", "help": "threads (all cores)"},
    "--memory": {"default": "4GB", "metavar": "SIZE",
        "help": "memory to stay within (%(default)s)"},
    "--cache": {"metavar": "DIR", "help": "folder to keep each file's results in"},
    "--fix": {"metavar": "OUT.h5ad", "help": "write a fixed file"},
    "--keep-counts": {"action": "store_true", "help": "store counts as counts, not as lognorm"},
    "--folder": {"metavar": "DIR", "help": "where to (VCC_DATA, else data/h1)"},
    "--season": {"default": "2025", "choices": ("2025", "2026"),
        "help": "2025: one file; 2026: a folder, as the official bundle (%(default)s)"},
    "--size": {"default": "small", "choices": ("small", "h1", "full"),
        "help": "small: seconds; of 2025 h1: 221,273 cells x 18,080 genes, 15.5 GB; of 2026 full: "
        "18,533 genes, 300 targets, 400 cells, 28 GB (%(default)s)"},
    "--seed": {"type": _whole, "default": 0, "metavar": "N",
        "help": "seed of the random numbers (%(default)s)"},
    "--cells-per-target": {"type": partial(_whole, least=1), "metavar": "N",
        "help": "fetch a panel, so many cells of each target"},
    "--controls": {"type": partial(_whole, least=1), "default": 2000, "metavar": "N",
        "help": "control cells of a panel (%(default)s)"},
    "--verify-panel": {"action": "store_true",
        "help": "compare the panel of the training cells with published figures"},
}  # fmt: skip

_COMMANDS = {
    "score": _Command(_score,
        "pred real --preset --perturbation-key --context-key --control --bundle --baseline "
        "--ceiling --json --csv --threads --memory --cache",
        "score predicted cells against real ones, as the leaderboard does",
        """examples:
  vcc-helpers score prediction.h5ad truth.h5ad
  vcc-helpers score prediction.h5ad truth.h5ad --json card.json --csv table.csv
  vcc-helpers score prediction.h5ad truth.h5ad --baseline baseline.json --ceiling
  vcc-helpers score prediction.h5ad truth.h5ad --memory 2GB --cache scored
  vcc-helpers score prediction.vcc truth.h5ad --preset vcc2026 --bundle vcc_2026_controls.zip

With --cache, the next prediction finds the truth's half done. What is kept is known by the content
of the files: it is never out of date.

A baseline file is the card of the official mean baseline against the same truth, as
vcc_helpers.scoring.baseline(TRUTH, PRESET).to_json("baseline.json") writes it; with vcc2026 it
holds a replicate's scores, too.

With vcc2026 a file may hold several contexts. Each is scored as if it were alone, and the overall
score is the plain mean over contexts. --bundle gives the controls where REAL has none; --ceiling
and a baseline need them in REAL, whose controls they split with the cells.
"""),
    "check": _Command(_check,
        "pred -g/--genes --counts --contexts --bundle --preset --perturbation-key --context-key "
        "--control --fix",
        "find all that keeps a prediction from being accepted, and fix what is safe",
        """examples:
  vcc-helpers check prediction.h5ad --genes gene_names.csv --counts pert_counts_Validation.csv
  vcc-helpers check prediction.h5ad --genes gene_names.csv --fix fixed.h5ad
  vcc-helpers check prediction.h5ad --preset vcc2026 -g gene_names.csv --counts pert_counts.csv
  vcc-helpers check prediction.h5ad --preset vcc2026 --bundle vcc_2026_controls.zip

Every problem is told at once, a line each; remarks do not keep a file from being handed in. --fix
writes a file only if all can be fixed without changing a prediction, and says what it changed.
"""),
    "prep": _Command(_prep,
        "pred -g/--genes --counts --contexts --bundle -o/--out! --preset --perturbation-key "
        "--context-key --control --keep-counts",
        "write the .vcc file that is uploaded",
        """examples:
  vcc-helpers prep prediction.h5ad --genes gene_names.csv -o prediction.vcc
  vcc-helpers prep prediction.h5ad --bundle vcc_2026_controls.zip --preset vcc2026 -o prediction.vcc

The file equals that of cell-eval prep, value for value, and with vcc2026 that of the season's own
vcc prep; the programs tar and zstd are not needed.
"""),
    "sort": _Command(_sort, "source out --perturbation-key --memory",
        "write the cells grouped by perturbation, counts kept exactly",
        """examples:
  vcc-helpers sort adata_Training.h5ad training_sorted.h5ad
  vcc-helpers sort screen.h5ad sorted.h5ad --perturbation-key gene --memory 2GB

The sorted file holds the same cells and exactly the same counts, in the smallest integer type,
compressed.
"""),
    "pseudobulk": _Command(_pseudobulk, "source out --perturbation-key --context-key",
        "write mean and variance of the log-normalised cells of each perturbation",
        """examples:
  vcc-helpers pseudobulk training_sorted.h5ad bulk.h5ad
  vcc-helpers pseudobulk adata_Training.h5ad by_batch.h5ad --perturbation-key batch
  vcc-helpers pseudobulk controls.h5ad bulk.h5ad --context-key context
"""),
    "fetch": _Command(_fetch,
        "what --cells-per-target --controls --seed --folder --verify-panel",
        "download official files, or some of their cells: resumed when cut, checked",
        """examples:
  vcc-helpers fetch sample
  vcc-helpers fetch train
  vcc-helpers fetch train --cells-per-target 60
  vcc-helpers fetch support_set --cells-per-target 60

The last two fetch panels: 60 cells of each target and 2,000 controls, about 0.8 GB of H1, and the
same of four other lines.
The official files hold 15.5, 6.9 and 12.0 GB. Interrupted? The same command again goes on where
it stopped. export VCC_DATA="$PWD/data/h1" then turns the book's notebooks to these files.
"""),
    "simulate": _Command(_simulate, "out --season --size --seed",
        "write simulated cells in the official format",
        """examples:
  vcc-helpers simulate small.h5ad
  vcc-helpers simulate adata_Training.h5ad --size h1
  vcc-helpers simulate bundle --season 2026

Everything in these files is SIMULATED, and the files say so. Of 2026, the folder holds the controls
of three lines and the lists, a truth to score against, and screens of other lines in sources/.
"""),
}  # fmt: skip
