"""The ``vcc`` command: thin over the functions of the package.

Taught in: notebooks/09_first_submission.
Needs: scoring.py and what it needs.

>>> main(["score", "missing.h5ad", "also_missing.h5ad"])
1
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from .cells import CONTROL, PERTURBATION_KEY
from .presets import PRESETS

DONE, UNACCEPTABLE = 0, 1

EXAMPLES = """examples:
  vcc score prediction.h5ad truth.h5ad
  vcc score prediction.h5ad truth.h5ad --json card.json --csv table.csv
  vcc score prediction.h5ad truth.h5ad --baseline baseline.json --ceiling

A baseline file is the card of the official mean baseline against the same truth:
write that baseline with vcc_helpers.scoring.official_baseline, score it with --json.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments
        Words after ``vcc``; those of the process by default.

    Returns
    -------
    int
        0 done; 1 the data is not acceptable, one line a problem on standard error; a wrong
        command line exits with 2.
    """
    options = _parser().parse_args(arguments)
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            options.run(options)
        except (ValueError, KeyError, OSError) as error:
            _say(error.args[0] if isinstance(error, KeyError) and error.args else error)
            return UNACCEPTABLE
    return DONE


def _show_warning(message: Warning, category: type[Warning], *_, **__) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):  # those are for developers
        _say(f"warning: {message}")


def _say(text: object) -> None:
    for line in str(text).splitlines():
        print(f"vcc: {line}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vcc", description="Score predictions of the Virtual Cell Challenge."
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="score predicted cells against real ones",
        description="Score predicted cells against real ones, as the leaderboard does.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    score.add_argument("pred", metavar="PRED", help="predicted cells, an .h5ad with controls")
    score.add_argument("real", metavar="REAL", help="real cells, an .h5ad with controls")
    score.add_argument(
        "--preset", default="vcc2025", choices=sorted(PRESETS), help="the rules (%(default)s)"
    )
    score.add_argument(
        "--perturbation-key",
        default=PERTURBATION_KEY,
        metavar="COLUMN",
        help="column of obs that names the perturbation (%(default)s)",
    )
    score.add_argument(
        "--control", default=CONTROL, metavar="LABEL", help="label of control cells (%(default)s)"
    )
    score.add_argument("--baseline", metavar="BASE.json", help="card of the official baseline")
    score.add_argument(
        "--ceiling", action="store_true", help="score one half of REAL against the other, too"
    )
    score.add_argument("--json", metavar="OUT.json", help="write the card to a file")
    score.add_argument("--csv", metavar="OUT.csv", help="write one row a perturbation to a file")
    score.add_argument("--threads", type=_positive, metavar="N", help="threads (all cores)")
    score.set_defaults(run=_score)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of 1 or more, got {text!r}")
    return int(text)


def _score(options: argparse.Namespace) -> None:
    from . import scoring
    from .metrics import pds_chance

    # first what can fail at once: it should not cost the wait for a score
    for path in filter(None, (options.json, options.csv)):
        scoring.check_writable(path)
    baseline = scoring.ScoreCard.from_json(options.baseline) if options.baseline else None
    rules = {
        "preset": options.preset,
        "perturbation_key": options.perturbation_key,
        "control": options.control,
        "threads": options.threads,
    }
    show_progress = sys.stderr.isatty()
    card = scoring.score(options.pred, options.real, **rules, progress=show_progress)
    lines = [repr(card), f"  chance  pds {pds_chance(len(card.per_perturbation)):.4f}"]
    if options.ceiling:
        real = scoring.open_cells(options.real).to_memory()
        ceiling = scoring.split_half_ceiling(real, **rules).summary
        lines.append("  ceiling " + "  ".join(f"{k} {v:.4f}" for k, v in ceiling.items()))
    if baseline is not None:
        lines.append(f"  overall {card.overall(baseline):.2f} of 100, baseline 0")
    if options.json:
        card.to_json(options.json)
    if options.csv:
        scoring.write_whole(options.csv, card.per_perturbation.to_csv())
    print("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
