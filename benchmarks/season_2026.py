"""Put every file of tests/season_cases.py before the official tool of 2026 and before ours.

    python benchmarks/season_2026.py --official PYTHON

PYTHON is that of an environment of its own in which vcc-cli 0.3.0 is installed. Writes
benchmarks/results/vcc2026_verdicts.json: each verdict, and how our archives compare with theirs.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import anndata

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
import season_cases  # noqa: E402

from vcc_helpers import submission  # noqa: E402
from vcc_helpers.presets import VCC2026  # noqa: E402
from vcc_helpers.submission import archive  # noqa: E402

CASES = season_cases.CASES | season_cases.FINAL
#: Options of ``vcc prep`` for the limits of a season's record, and for ours.
LIMITS = {
    "cells_a_target": "--cells-per-pert",
    "most_cells": "--max-cell-dim",
    "most_entries": "--max-nnz",
}
OPTIONS = {
    "contexts": "--contexts",
    "context_key": "--context-col",
    "perturbation_key": "--pert-col",
    "genes": "--genes",
    "counts": "--perts",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--official", required=True, metavar="PYTHON")
    python = parser.parse_args().official
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: Path(scratch) / str(i) for i, name in enumerate(CASES)}
        ours = {name: written(name, folder) for name, folder in folders.items()}
        archives = {name: folders[name] / "ours.vcc" for name, said in ours.items() if not said}
        commands = [words(*item) for item in folders.items()]
        answers = official(python, commands, list(archives.values()))
        rows = {}
        for (name, said), theirs in zip(ours.items(), answers["verdicts"], strict=True):
            text = theirs["said"].replace(f"{folders[name]}/", "")
            rows[name] = {"accepted": theirs["accepted"], "said": text, "ours": said}
        of_archives = compared(archives, answers["read"])
    result = {"versions": {"vcc-cli": answers["version"]}, "archives": of_archives, "cases": rows}
    path = ROOT / "benchmarks/results/vcc2026_verdicts.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    other = [name for name, row in rows.items() if row["accepted"] == bool(row["ours"])]
    print(f"{len(rows)} cases, {len(rows) - len(other)} verdicts equal; other: {other}")
    print(of_archives)


def written(name: str, folder: Path) -> str:
    """Write a case's files and pack them; return what is said of what is refused."""
    folder.mkdir(exist_ok=True)
    case = CASES[name]
    path, lists = season_cases.write(case, folder)
    options = {"genes": None, **lists, **case.options, "preset": case.rules}
    try:
        submission.prep(path, folder / "ours.vcc", **options)
    except (ValueError, OSError) as error:
        return str(error).replace(f"{folder}/", "")
    return ""


def words(name: str, folder: Path) -> list[str]:
    """Return the official command for the files in a folder."""
    case, path = CASES[name], folder / "pred.h5ad"
    lists = {"genes": folder / "gene_names.csv", "counts": folder / "pert_counts.csv"}
    named = {OPTIONS[n]: value for n, value in case.options.items()}
    named |= {OPTIONS[n]: file for n, file in lists.items() if file.exists()}
    named |= {option: getattr(case.rules, limit) for limit, option in LIMITS.items()}
    pairs = [str(word) for pair in named.items() for word in pair]
    return ["prep", str(path), "-o", str(folder / "theirs.vcc"), *pairs]


def official(python: str, commands: list, archives: list[Path]) -> dict:
    """Ask the official tool, in its own environment and without its user's settings."""
    jobs = json.dumps({"prep": commands, "read": list(map(str, archives))})
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [python, str(ROOT / "benchmarks/official_2026.py")],
            input=jobs, stdout=subprocess.PIPE, text=True, check=True,
            env=os.environ | {"HOME": home},
        )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def compared(archives: dict[str, Path], read: list[dict]) -> dict:
    """Name the archives that ``vcc submit`` refuses, and those unlike the official ones."""
    found = {"ours": len(archives), "both": 0, "refused by the official reader": []}
    found |= {"other cells": [], "other meta.json": [], "values compared": 0}
    found |= {f"sent in the {phase} phase": 0 for phase in VCC2026.phases}
    found["sent in the wrong phase"] = []
    for (name, path), of_ours in zip(archives.items(), read, strict=True):
        meta = of_ours.get("meta") or {"cli_version": ""}
        same = all(of_ours.get(key) == meta.get(key) is not None for key in ("nnz", "contexts"))
        if of_ours["valid"] is not True or not same:
            found["refused by the official reader"].append(name)
        for phase, contexts in VCC2026.phases.items():
            sent = phase in of_ours.get("phases", ())
            found[f"sent in the {phase} phase"] += sent
            if sent != (set(meta.get("contexts", ())) == set(contexts)):
                found["sent in the wrong phase"].append(name)
        theirs = path.with_name("theirs.vcc")
        if theirs.exists():
            found["both"] += 1
            other = differences(path, theirs)
            found["values compared"] += other.pop("values")
            if any(count for part, count in other.items() if part != "meta.json"):
                found["other cells"].append(name)
            if other["meta.json"]:
                found["other meta.json"].append(name)
    return found


def meta_of(path: Path) -> dict:
    with tarfile.open(path) as tar:
        return json.load(tar.extractfile("meta.json")) | {"cli_version": ""}


def differences(one: Path, other: Path) -> dict[str, int]:
    """Count what differs between two archives, but for the writer's name, and how many values."""
    first, second = (anndata.read_h5ad(archive.unpack(p, f"{p}.h5ad")) for p in (one, other))
    for path in (one, other):
        Path(f"{path}.h5ad").unlink()
    labels = [cells.obs.astype(str) for cells in (first, second)]
    equal = first.X.dtype == second.X.dtype and first.X.nnz == second.X.nnz
    return {
        "values": int(first.X.nnz),
        "X": (first.X != second.X).nnz if equal else first.X.nnz,
        "labels": int(not labels[0].equals(labels[1])),
        "genes": int(not first.var.equals(second.var)),
        "uns": len(first.uns) + len(second.uns),
        "meta.json": int(meta_of(one) != meta_of(other)),
    }


if __name__ == "__main__":
    main()
