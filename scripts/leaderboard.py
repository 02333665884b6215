"""A leaderboard for a class: split a screen, check what students hand in, score it, write the page.

    python scripts/leaderboard.py prepare CELLS.h5ad --public DIR --private DIR --known N
    python scripts/leaderboard.py check SUBMISSIONS --task DIR [--changes FILE --account NAME]
    python scripts/leaderboard.py score SUBMISSIONS --out DIR [--truth FILE] [--cache DIR]

SUBMISSIONS holds <team>/<YYYY-MM-DD>.h5ad or .vcc. The truth is named by --truth or by the
environment variable VCC_TRUTH; baseline.json is expected beside it, as prepare writes it. Who
proposes the changes is named by --account or by VCC_ACCOUNT, and may hand in for the team that
teams.csv of the task has for that account.
Exit status 0 done, 1 something is not acceptable, 2 the command line is wrong. A submission that
cannot be scored gets a line on the page, and does not stop the others.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from vcc_helpers import classroom
from vcc_helpers.classroom.contest import changes_of
from vcc_helpers.presets import PRESETS
from vcc_helpers.scoring import ScoreCard

TRUTH, ACCOUNT = "VCC_TRUTH", "VCC_ACCOUNT"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, KeyError, OSError) as error:
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        print(
            "\n".join(f"leaderboard: {_plain(line)}" for line in str(text).splitlines()),
            file=sys.stderr,
        )
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    prepare = commands.add_parser("prepare", help="split a screen into public and private files")
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
    check.add_argument("--changes", metavar="FILE", help="output of git diff --name-status -z")
    check.add_argument("--account", metavar="NAME", help=f"whose they are (environment: {ACCOUNT})")
    score = commands.add_parser("score", help="score submissions, write the page")
    score.set_defaults(run=_score)
    score.add_argument("--out", required=True, metavar="DIR", help="folder for the page")
    score.add_argument("--truth", metavar="FILE", help=f"real cells (environment: {TRUTH})")
    score.add_argument("--cache", metavar="DIR", help="private folder (scored, beside the truth)")
    score.add_argument("--title", default="Leaderboard", metavar="TEXT")
    for command in (check, score):
        command.add_argument("submissions", metavar="SUBMISSIONS")
        command.add_argument("--size-limit", default="2GB", metavar="SIZE", help="(%(default)s)")
        command.add_argument("--memory", default="4GB", metavar="SIZE", help="(%(default)s)")
        words = "most time for a file (%(default)s)"
        command.add_argument("--seconds", default=600, type=float, metavar="N", help=words)
    return parser


def _prepare(options: argparse.Namespace) -> int:
    kw = {"n_known": options.known, "preset": options.preset, "seed": options.seed}
    classroom.prepare(options.cells, public=options.public, private=options.private, **kw)
    print(f"for the class: {options.public}\nkeep to yourself: {options.private}")
    return 0


def _check(options: argparse.Namespace) -> int:
    found, kw = [], _limits(options)
    if options.changes:
        text = Path(options.changes).read_bytes().decode("utf-8", "backslashreplace")
        changes = text if "\0" in text else text.splitlines()
        found += classroom.change_problems(
            changes, account=_account(options), teams=_teams(options)
        )
        # another team's broken file is no fault of this change
        kw["only"] = {path.split("/")[1] for _, path in changes_of(text) if "/" in path}
    if not found:  # else nobody need read the files
        found = _lines(classroom.check_folder(options.submissions, options.task, **kw))
    print("\n".join(f"leaderboard: {line}" for line in found) or "all can be scored")
    return 1 if found else 0


def _account(options: argparse.Namespace) -> str:
    return options.account or os.environ.get(ACCOUNT, "")


def _teams(options: argparse.Namespace) -> dict[str, str]:
    path = Path(options.task) / "teams.csv"
    return classroom.read_teams(path) if path.exists() else {}


def _limits(options: argparse.Namespace) -> dict:
    return {name: getattr(options, name) for name in ("size_limit", "memory", "seconds")}


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
    kw = {"baseline": baseline, "cache": cache}
    scored = classroom.score_folder(options.submissions, truth, **kw, **_limits(options))
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


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)[:2000]


def _lines(refused: dict[str, str]) -> list[str]:
    # repr, so that a name with a line break stays on its line
    return [f"{name!r}: {why}" for name, why in refused.items()]


if __name__ == "__main__":
    sys.exit(main())
