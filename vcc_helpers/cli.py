"""The ``vcc-helpers`` command: thin over the functions of the package.

Only what the options need is imported here; each command imports what it runs.

Taught in: notebooks/09_first_submission.

>>> main(["score", "missing.h5ad", "also_missing.h5ad"])
1
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from . import __version__
from .datasets._official import OFFICIAL
from .presets import PRESETS

#: As in :mod:`~vcc_helpers.bulk`, which takes a second to import.
CONTROL, PERTURBATION_KEY = "non-targeting", "target_gene"

DONE, UNACCEPTABLE, INTERRUPTED = 0, 1, 130
MORE_MEMORY = (
    "no output was changed; give a smaller --memory where the command has it, or close what else "
    "runs on this machine"
)

SCORE_EXAMPLES = """examples:
  vcc-helpers score prediction.h5ad truth.h5ad
  vcc-helpers score prediction.h5ad truth.h5ad --json card.json --csv table.csv
  vcc-helpers score prediction.h5ad truth.h5ad --baseline baseline.json --ceiling
  vcc-helpers score prediction.h5ad truth.h5ad --memory 2GB --cache scored

With --cache, the next prediction finds the truth's half done. What is kept is known by the content
of the files: it is never out of date.

A baseline file is the card of the official mean baseline against the same truth, as
vcc_helpers.scoring.baseline(TRUTH, PRESET).to_json("baseline.json") writes it; with vcc2026 it
holds a replicate's scores, too.
"""
CHECK_EXAMPLES = """examples:
  vcc-helpers check prediction.h5ad --genes gene_names.csv --counts pert_counts_Validation.csv
  vcc-helpers check prediction.h5ad --genes gene_names.csv --fix mended.h5ad
  vcc-helpers check prediction.h5ad --preset vcc2026

Every problem is told at once, a line each; remarks do not keep a file from being handed in. --fix
writes a file only if all can be mended without changing a prediction, and says what it changed.
"""
PREP_EXAMPLES = """examples:
  vcc-helpers prep prediction.h5ad --genes gene_names.csv -o prediction.vcc

The file equals that of cell-eval prep, value for value; the programs tar and zstd are not needed.
"""
SORT_EXAMPLES = """examples:
  vcc-helpers sort adata_Training.h5ad training_sorted.h5ad
  vcc-helpers sort screen.h5ad sorted.h5ad --perturbation-key gene --memory 2GB

The sorted file holds the same cells and exactly the same counts, in the smallest integer type,
compressed.
"""
PSEUDOBULK_EXAMPLES = """examples:
  vcc-helpers pseudobulk training_sorted.h5ad bulk.h5ad
  vcc-helpers pseudobulk adata_Training.h5ad by_batch.h5ad --perturbation-key batch
"""
FETCH_EXAMPLES = """examples:
  vcc-helpers fetch sample
  vcc-helpers fetch train

The official files hold 15.5, 6.9 and 12.0 GB. Interrupted? The same command again goes on where
it stopped. export VCC_DATA="$PWD/data/h1" then turns the book's notebooks to these files.
"""
SIMULATE_EXAMPLES = """examples:
  vcc-helpers simulate small.h5ad
  vcc-helpers simulate adata_Training.h5ad --size h1

Everything in these files is SIMULATED, and the files say so.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        Words after ``vcc-helpers``; those of the process by default.

    Returns
    -------
    int
        0 done; 1 the data is not acceptable, one line a problem on standard error; 130 stopped
        with Ctrl-C; a wrong command line exits with 2.
    """
    if hasattr(sys.stdout, "reconfigure"):  # no name is too strange to be printed somehow
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options.run(options)
            sys.stdout.flush()
        except BrokenPipeError:  # who reads our lines has seen enough; all files are written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (ValueError, KeyError, OSError) as error:
            _say(_words_of(error))
            return UNACCEPTABLE
        except MemoryError as error:
            _say(f"not enough memory ({error or 'an array did not fit'}); {MORE_MEMORY}")
            return UNACCEPTABLE
        except KeyboardInterrupt:
            _say("stopped; no output was changed")
            return INTERRUPTED
    return DONE


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


def _show_warning(message: Warning, category: type[Warning], *_, **__) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):  # those are for developers
        _say(f"warning: {message}")


def _say(text: object) -> None:
    for line in str(text).splitlines():
        print(f"vcc-helpers: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vcc-helpers",
        description="Score predictions of the Virtual Cell Challenge, and handle its files.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    files = (_add_sort, _add_pseudobulk, _add_fetch, _add_simulate)
    for add in (_add_score, _add_check, _add_prep, *files):
        add(commands)
    return parser


def _add(commands, name: str, run, help_text: str, examples: str) -> argparse.ArgumentParser:
    command = commands.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_key(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--perturbation-key",
        default=PERTURBATION_KEY,
        metavar="COLUMN",
        help="column of obs that names the perturbation (%(default)s)",
    )


def _add_score(commands) -> None:
    about = "score predicted cells against real ones, as the leaderboard does"
    score = _add(commands, "score", _score, about, SCORE_EXAMPLES)
    score.add_argument("pred", metavar="PRED", help="predicted cells, an .h5ad with controls")
    score.add_argument("real", metavar="REAL", help="real cells, an .h5ad with controls")
    score.add_argument(
        "--preset", default="vcc2025", choices=sorted(PRESETS), help="the rules (%(default)s)"
    )
    _add_key(score)
    _add_control(score)
    score.add_argument("--baseline", metavar="BASE.json", help="card of the official baseline")
    score.add_argument(
        "--ceiling",
        action="store_true",
        help="beside it the mean, one half of REAL against the other, and perfect predictions",
    )
    score.add_argument("--json", metavar="OUT.json", help="write the card to a file")
    score.add_argument("--csv", metavar="OUT.csv", help="write one row a perturbation to a file")
    score.add_argument("--threads", type=_positive, metavar="N", help="threads (all cores)")
    score.add_argument(
        "--memory", default="4GB", metavar="SIZE", help="memory to stay within (%(default)s)"
    )
    score.add_argument("--cache", metavar="DIR", help="folder to keep each file's results in")


def _add_check(commands) -> None:
    about = "find all that keeps a prediction from being accepted, and mend what is safe"
    check = _add(commands, "check", _check, about, CHECK_EXAMPLES)
    check.add_argument("pred", metavar="PRED", help="predicted cells, an .h5ad")
    check.add_argument("--genes", metavar="CSV", help="the genes in their official order")
    check.add_argument("--counts", metavar="CSV", help="target_gene and n_cells of what is asked")
    check.add_argument(
        "--preset", default="vcc2025", choices=sorted(PRESETS), help="the rules (%(default)s)"
    )
    _add_key(check)
    _add_control(check)
    check.add_argument("--fix", metavar="OUT.h5ad", help="write a mended file")


def _add_prep(commands) -> None:
    about = "write the .vcc file that is uploaded"
    prep = _add(commands, "prep", _prep, about, PREP_EXAMPLES)
    prep.add_argument("pred", metavar="PRED", help="predicted cells, an .h5ad with controls")
    prep.add_argument(
        "--genes", metavar="CSV", required=True, help="the genes in their official order"
    )
    prep.add_argument("-o", "--out", metavar="OUT.vcc", required=True, help="file to write")
    _add_key(prep)
    _add_control(prep)
    prep.add_argument(
        "--keep-counts", action="store_true", help="store counts as counts, not as lognorm"
    )


def _add_control(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--control", default=CONTROL, metavar="LABEL", help="label of control cells (%(default)s)"
    )


def _add_sort(commands) -> None:
    about = "write the cells grouped by perturbation, counts kept exactly"
    sort = _add(commands, "sort", _sort, about, SORT_EXAMPLES)
    sort.add_argument("source", metavar="IN.h5ad", help="cells in any order")
    sort.add_argument("out", metavar="OUT.h5ad", help="file to write")
    _add_key(sort)
    sort.add_argument(
        "--memory", default="4GB", metavar="SIZE", help="memory to stay within (%(default)s)"
    )


def _add_pseudobulk(commands) -> None:
    about = "write mean and variance of the log-normalised cells of each perturbation"
    bulk = _add(commands, "pseudobulk", _pseudobulk, about, PSEUDOBULK_EXAMPLES)
    bulk.add_argument("source", metavar="IN.h5ad", help="counts or log-normalised cells")
    bulk.add_argument("out", metavar="OUT.h5ad", help="file to write")
    _add_key(bulk)


def _add_fetch(commands) -> None:
    about = "download official files: resumed when cut, checked when complete"
    fetch = _add(commands, "fetch", _fetch, about, FETCH_EXAMPLES)
    fetch.add_argument(
        "what",
        choices=("sample", *OFFICIAL),
        metavar="WHAT",
        help="train, validation, test: the cells; sample: 600 real cells that come with the "
        f"package; or {', '.join(name for name in OFFICIAL if '_' in name)}",
    )
    fetch.add_argument("--folder", metavar="DIR", help="where to (VCC_DATA, else data/h1)")


def _add_simulate(commands) -> None:
    about = "write simulated cells in the official format"
    simulate = _add(commands, "simulate", _simulate, about, SIMULATE_EXAMPLES)
    simulate.add_argument("out", metavar="OUT.h5ad", help="file to write")
    simulate.add_argument(
        "--size",
        default="small",
        choices=("small", "h1"),
        help="small: seconds; h1: 221,273 cells x 18,080 genes, 15.5 GB (%(default)s)",
    )
    simulate.add_argument(
        "--seed", type=_whole, default=0, metavar="N", help="which world (%(default)s)"
    )


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of 0 or more, got {text!r}")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def _score(options: argparse.Namespace) -> None:
    from . import scoring
    from .stream.write import check_writable, write_whole

    # first what can fail at once: it should not cost the wait for a score
    for path in filter(None, (options.json, options.csv)):
        check_writable(path)
    baseline = scoring.ScoreCard.from_json(options.baseline) if options.baseline else None
    rules = {
        "preset": options.preset,
        "perturbation_key": options.perturbation_key,
        "control": options.control,
        "threads": options.threads,
        "memory": options.memory,
        "cache": options.cache,
    }
    kw = {"progress": _watched(), "ceiling": options.ceiling}
    card = scoring.score(options.pred, options.real, **rules, **kw)
    lines = [repr(card)]
    if not options.ceiling:
        lines.append(f"  chance  {_chance(card)}")
    elif "their means, replicated" not in card.anchors.index:
        lines.append("  (mean and perfect predictions left out: more --memory would hold them)")
    if baseline is not None:
        perfect = PRESETS[card.preset].top == "perfect"
        scale = " of 100, baseline 0" if perfect else ", baseline 0, replicate 100"
        lines.append(f"  overall {card.overall(baseline):.2f}{scale}")
    if options.json:
        card.to_json(options.json)
    if options.csv:
        write_whole(options.csv, card.per_perturbation.to_csv())
    print("\n".join(lines))


def _chance(card) -> str:
    from .metrics import pds_chance

    if "pds" in card.per_perturbation:
        return f"pds {pds_chance(len(card.per_perturbation)):.4f}"
    return "pds_cosine 0.5000"


def _check(options: argparse.Namespace) -> None:
    from . import submission

    rules = {
        "genes": options.genes,
        "counts": options.counts,
        "preset": options.preset,
        "perturbation_key": options.perturbation_key,
        "control": options.control,
        "progress": _watched(),
    }
    if options.fix:
        _say_mended(submission.mend(options.pred, options.fix, **rules))
        print(f"{options.fix}  {_size(Path(options.fix))}")
        return
    report = submission.check(options.pred, **rules)
    lines = [f"{p} (--fix: {p.mended})" if p.mended else str(p) for p in report.problems]
    if not report.ok:
        raise ValueError("\n".join(lines))
    _say("\n".join(lines))
    print(f"{report.summary}: can be handed in")


def _prep(options: argparse.Namespace) -> None:
    from . import submission

    report = submission.prep(
        options.pred,
        options.out,
        genes=options.genes,
        perturbation_key=options.perturbation_key,
        control=options.control,
        keep_counts=options.keep_counts,
        progress=_watched(),
    )
    _say_mended(report)
    print(f"{options.out}  {_size(Path(options.out))}")


def _say_mended(report) -> None:
    for problem in report.problems:
        _say(f"mended, {problem.mended}: {problem}" if problem.mended else problem)


def _sort(options: argparse.Namespace) -> None:
    from .stream import sort_cells

    path = sort_cells(
        options.source,
        options.out,
        perturbation_key=options.perturbation_key,
        memory=options.memory,
        progress=_watched(),
    )
    print(f"{path}  {_size(path)}")


def _pseudobulk(options: argparse.Namespace) -> None:
    from .stream import pseudobulk, write_cells
    from .stream.write import check_writable

    check_writable(options.out)
    key = options.perturbation_key
    bulk = pseudobulk(options.source, perturbation_key=key, progress=_watched(), name="cells")
    write_cells(options.out, bulk)
    print(f"{options.out}  {bulk.n_obs} groups x {bulk.n_vars} genes")


def _fetch(options: argparse.Namespace) -> None:
    from . import datasets

    path = datasets.fetch_h1(options.what, folder=options.folder, progress=_watched())
    print(f"{path}  {_size(path)}")


def _simulate(options: argparse.Namespace) -> None:
    from . import datasets

    path = datasets.write_h1_like(
        options.out, size=options.size, seed=options.seed, progress=_watched()
    )
    print(f"{path}  {_size(path)}  SIMULATED")


def _watched() -> bool:
    """Whether somebody looks at the progress bars."""
    return sys.stderr.isatty()


def _size(path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
