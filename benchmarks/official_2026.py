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
from vcc import vccfile
from vcc.cli import cli


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
    """Read an archive as ``vcc submit`` does before it sends one."""
    try:
        vccfile.validate_vcc(path)
    except vccfile.InvalidVccError as error:
        return {"valid": str(error)}
    return {
        "valid": True,
        "meta": vccfile.read_vcc_meta(path),
        "contexts": vccfile.contexts_from_vcc(path),
        "nnz": vccfile.nnz_from_vcc(path),
    }


if __name__ == "__main__":
    main()
