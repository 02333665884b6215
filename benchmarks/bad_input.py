"""Put every bad input of the tests before the official tools and before ours; write what each says.

    python benchmarks/bad_input.py

Needs the oracle extra (cell-eval 0.6.6) and the programs tar and zstd. Each input runs in a process
of its own. Writes benchmarks/results/bad_input.json.
"""

import contextlib
import io
import json
import logging
import multiprocessing
import os
import re
import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import anndata

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
import bad_cases  # noqa: E402
from parity_cases import Case, official  # noqa: E402

from vcc_helpers import cli  # noqa: E402
from vcc_helpers.submission import archive  # noqa: E402

METRICS = ["des", "pds", "mae"]
#: Longest quotation of a message, in letters.
LONGEST = 400


def main() -> None:
    """Run every case, and write the table."""
    if os.environ.get("PYTHONHASHSEED") != "0":  # or theirs list sets in another order each time
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {"PYTHONHASHSEED": "0"})
    rows = []
    for name, case in bad_cases.CASES.items():
        # each side alone, since a broken file can end a process
        row = {"name": name, "what": case.what, "preset": case.preset}
        row |= {"official": _alone(_of_theirs, name)} | _alone(_of_ours, name)
        rows.append(row)
        print(f"{name:<28} {row['official'][:60]:<62} {row['ours'][:60]}", flush=True)
    result = {"versions": {n: version(n) for n in ("cell-eval", "anndata")}, "cases": rows}
    path = ROOT / "benchmarks/results/bad_input.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


def _alone(function, name: str):
    """Run a function in a process of its own; of one that dies, tell how."""
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    process = context.Process(target=_run, args=(function, name, queue))
    process.start()
    process.join(300)
    if process.exitcode == 0:
        return queue.get()
    return f"the interpreter dies (signal {-process.exitcode})"


def _run(function, name: str, queue) -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    case = bad_cases.CASES[name]
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # the programs that theirs calls talk there
        path, options = bad_cases.write(case, Path(folder))
        queue.put(function(path, options, Path(folder)))


def _of_ours(path: Path, options: dict, folder: Path) -> dict:
    ours, exits = _ours(path, options)
    mended = folder / "mended.h5ad"
    _, fixed = _ours(path, options | {"fix": mended})
    state = "mended" if exits and not fixed and mended.exists() else "as before"
    return {"ours": ours, "exit": exits, "state": state, "left": _left(folder)}


def _left(folder: Path) -> int:
    """Count files that nobody asked for."""
    known = {"good.h5ad", "pred.h5ad", "genes.csv", "counts.csv", "mended.h5ad", "theirs.vcc"}
    known |= {"theirs.h5ad"}
    return len([path for path in folder.iterdir() if path.name not in known])


def _ours(path: Path, options: dict) -> tuple[str, int]:
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    text = io.StringIO()
    with contextlib.redirect_stderr(text), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["check", str(path), *words])
    said = text.getvalue().replace("vcc-helpers: ", "").replace(f"{path.parent}/", "").strip()
    return said, status


def _of_theirs(path: Path, options: dict, folder: Path) -> str:
    """Run cell-eval prep, and if it accepts the file its scorer, beside the good prediction."""
    if options["preset"] != "vcc2025":
        return "held against vcc-cli by benchmarks/season_2026.py"
    prepared, refusal = _prepare(path, options, folder)
    if refusal:
        return f"prep refuses: {refusal}"
    try:
        scores = _score(prepared)
    except Exception as error:
        return f"prep accepts; the scorer refuses: {_brief(error)}"
    good = _score(anndata.read_h5ad(folder / "good.h5ad"))
    values = ", ".join(f"{m} {scores[m]:.3f} (good: {good[m]:.3f})" for m in METRICS)
    same = all(abs(scores[m] - good[m]) < 5e-4 for m in METRICS)
    return "accepted, the same scores" if same else f"accepted in silence: {values}"


def _prepare(path: Path, options: dict, folder: Path):
    from cell_eval._cli import _prep

    out = folder / "theirs.vcc"
    parser = _prep.ap.ArgumentParser()
    _prep.parse_args_prep(parser)
    words = ["-i", str(path), "-g", str(options["genes"]), "-o", str(out)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            _prep.run_prep(parser.parse_args([*words, "--expected-gene-dim", "24"]))
        inner = archive.unpack(out, folder / "theirs.h5ad")
        return anndata.read_h5ad(inner), None
    except Exception as error:
        return None, _brief(error)


def _score(cells) -> dict:
    """Return the official means, of a prediction against real cells with other noise."""
    real = bad_cases.good_cells()
    order = bad_cases.np.random.default_rng(5)
    for label in real.obs["target_gene"].unique():
        rows = bad_cases.np.flatnonzero(real.obs["target_gene"] == label)
        real.X[rows] = real.X[order.choice(rows, len(rows))]
    frame = official(Case("", cells, real))
    return {metric: float(frame[metric].mean()) for metric in METRICS}


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    text = re.sub(r"time = [^,]*, |buf = 0x\w+, |\btmp\w+/", "", text)  # of this run alone
    return f"{type(error).__name__}: {text[:LONGEST]}".replace("/tmp/", "")


if __name__ == "__main__":
    main()
