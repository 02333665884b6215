"""Put files before vcc-cli, the official tool of 2026, in whose environment this runs.

    PYTHON official_2026.py < jobs.json

A job is the words of a command ``vcc prep``, or the path of an archive to read; for each the answer
is printed. benchmarks/season_2026.py and tests/test_season_2026.py make the jobs.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from click.testing import CliRunner
from vcc import submit, vccfile
from vcc.cli import cli
from vcc.season import Season

PHASES = {"validation": ("A", "B", "C"), "final": ("D", "E", "F")}


def main() -> None:
    jobs = json.load(sys.stdin)
    answers = {
        "version": version("vcc-cli"),
        "verdicts": [verdict(words) for words in jobs["prep"]],
        "read": [read(Path(path)) for path in jobs["read"]],
    }
    print(json.dumps(answers))


def verdict(words: list[str]) -> dict:
    """Tell whether ``vcc prep`` accepts a file, and what it says if not."""
    result = CliRunner().invoke(cli, words)
    accepted = result.exit_code == 0
    said = " ".join(result.output.partition("vcc prep: ")[2].split()) or repr(result.exception)
    return {"accepted": accepted, "said": "" if accepted else said[:300]}


def read(path: Path) -> dict:
    """Read an archive, and check it as ``vcc submit`` does before it sends one."""
    try:
        vccfile.validate_vcc(path)
        submit.check_input(str(path), genes=None)
        _, _, nnz = submit.prepare_input(str(path), genes=None)
    except (vccfile.InvalidVccError, submit.SubmitError) as error:
        return {"valid": str(error)}
    contexts = vccfile.contexts_from_vcc(path)
    return {
        "valid": True,
        "meta": vccfile.read_vcc_meta(path),
        "contexts": contexts,
        "nnz": nnz,
        "phases": [name for name in PHASES if is_taken(contexts, name)],
    }


def is_taken(contexts: tuple[str, ...], phase: str) -> bool:
    """Tell whether ``vcc submit`` would send an archive in a phase of the season."""
    season = Season(phase == "final", PHASES[phase], None, True, None)
    try:
        submit.check_contexts_match(contexts, season, what="This file was prepared")
    except submit.SubmitError:
        return False
    return True


if __name__ == "__main__":
    main()
