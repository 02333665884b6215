"""A leaderboard for a class: deal a screen, check what students hand in, score it, write the page.

    python scripts/leaderboard.py prepare CELLS.h5ad --public DIR --private DIR --known N
    python scripts/leaderboard.py check SUBMISSIONS --task DIR [--changes FILE]
    python scripts/leaderboard.py score SUBMISSIONS --out DIR [--truth FILE] [--cache DIR]

SUBMISSIONS holds <team>/<YYYY-MM-DD>.h5ad or .vcc. The truth is named by --truth or by the
environment variable VCC_TRUTH; baseline.json is expected beside it, as prepare writes it.
Exit status 0 done, 1 something is not acceptable, 2 the command line is wrong. A submission that
cannot be scored gets a line on the page, and does not stop the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vcc_helpers import classroom
from vcc_helpers.presets import PRESETS
from vcc_helpers.scoring import ScoreCard

TRUTH = "VCC_TRUTH"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print("\n".join(f"leaderboard: {line}" for line in str(text).splitlines()), file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="deal a screen into public and private files")
    prepare.set_defaults(run=_prepare)
    prepare.add_argument("cells", metavar="CELLS.h5ad")
    prepare.add_argument("--public", required=True, metavar="DIR", help="what the class gets")
    prepare.add_argument("--private", required=True, metavar="DIR", help="what the teacher keeps")
    prepare.add_argument("--known", required=True, type=int, metavar="N", help="known targets")
    prepare.add_argument("--preset", default="vcc2025", choices=sorted(PRESETS))
    prepare.add_argument("--seed", type=int, default=0, metavar="N")
    check = commands.add_parser("check", help="check submissions without the truth")
    check.set_defaults(run=_check)
    check.add_argument("--task", required=True, metavar="DIR", help="the public folder")
    check.add_argument("--changes", metavar="FILE", help="output of git diff --name-status")
    score = commands.add_parser("score", help="score submissions, write the page")
    score.set_defaults(run=_score)
    score.add_argument("--out", required=True, metavar="DIR", help="folder for the page")
    score.add_argument("--truth", metavar="FILE", help=f"real cells (environment: {TRUTH})")
    score.add_argument("--cache", metavar="DIR", help="private folder (scored, beside the truth)")
    score.add_argument("--title", default="Leaderboard", metavar="TEXT")
    for command in (check, score):
        command.add_argument("submissions", metavar="SUBMISSIONS")
        command.add_argument("--size-limit", default="2GB", metavar="SIZE", help="(%(default)s)")
    return parser


def _prepare(options: argparse.Namespace) -> int:
    kw = {"n_known": options.known, "preset": options.preset, "seed": options.seed}
    classroom.prepare(options.cells, public=options.public, private=options.private, **kw)
    print(f"for the class: {options.public}\nkeep to yourself: {options.private}")
    return 0


def _check(options: argparse.Namespace) -> int:
    found, kw = [], {"size_limit": options.size_limit}
    if options.changes:
        lines = Path(options.changes).read_text(encoding="utf-8").splitlines()
        found += classroom.change_problems(lines)
        # another team's broken file is no fault of this change
        kw["only"] = {line.split("/")[1] for line in lines if line.count("/") > 1}
    found += _lines(classroom.check_folder(options.submissions, options.task, **kw))
    print("\n".join(f"leaderboard: {line}" for line in found) or "all can be scored")
    return 1 if found else 0


def _score(options: argparse.Namespace) -> int:
    truth = _truth(options)
    cache = Path(options.cache) if options.cache else truth.parent / "scored"
    for public in (options.submissions, options.out):
        if Path(public).resolve() in [*truth.resolve().parents, *cache.resolve().parents]:
            raise ValueError(f"the truth or its cache lies in {public}, which others see: move it")
    card = truth.parent / "baseline.json"
    if not card.is_file():
        raise ValueError(f"no {card}: expected the baseline's card beside the truth; run prepare")
    baseline = ScoreCard.from_json(card)
    kw = {"baseline": baseline, "cache": cache, "size_limit": options.size_limit}
    scored = classroom.score_folder(options.submissions, truth, **kw)
    classroom.publish(scored, options.out, baseline=baseline, title=options.title)
    for line in _lines(scored.refused):
        print(f"leaderboard: {line}", file=sys.stderr)
    print(f"{Path(options.out) / 'board.html'}  {len(scored.cards)} entries")
    return 0


def _truth(options: argparse.Namespace) -> Path:
    named = options.truth or os.environ.get(TRUTH)
    if not named:
        raise ValueError(f"no truth: name it with --truth, or in the environment variable {TRUTH}")
    return Path(named)


def _lines(refused: dict[str, str]) -> list[str]:
    # repr, so that a name with a line break stays on its line
    return [f"{name!r}: {why}" for name, why in refused.items()]


if __name__ == "__main__":
    sys.exit(main())
