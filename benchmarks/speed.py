"""Time and memory of scoring, beside every peer and beside merely reading the files.

    python benchmarks/prepare_speed.py
    python benchmarks/speed.py
    python benchmarks/speed.py --growth
    python benchmarks/speed.py --full PRED REAL --memory 6GB

All in one run, one after the other, each in a process of its own, on the same files, which are
in the system's cache. Peak memory is each process's own peak, summed over it and its children.
Each step waits for a quiet moment of the machine, 20 seconds at most; how much of the processors
others took meanwhile is kept. A peer that fails is listed with its error.

Writes benchmarks/results/speed.json; each of the three kinds of run replaces its own part of it.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import distributions
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import psutil

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "speed.json"
STEP = ROOT / "benchmarks" / "peers" / "step.py"
FOLDER = ROOT / "_build" / "peers"
KEY, CONTROL = "target_gene", "non-targeting"

OURS = "vcc"
#: cell-eval uses one thread unless it is told otherwise.
AS_IT_COMES = "cell-eval, as it comes"
#: Distribution of each peer, and its environment.
PEERS = {
    "cell-eval": "cell-eval",
    "cell-eval2": "cell-eval2",
    "illico": "libraries",
    "hpdex": "libraries",
    "pdex": "libraries",
    "scanpy": "libraries",
    "polars": "libraries",
}
#: A step that takes longer than this many seconds is not repeated.
LONG = 60
#: Names of the metrics in the peers' results, and ours.
METRICS = {"overlap_at_N": "des", "discrimination_score_l1": "pds", "mae": "mae"}
#: What is timed while one size of the work grows, and by which factors it is smaller.
GROWING = (OURS, "read anndata", "read raw")
GROWTH_STEPS = (1 / 8, 1 / 4, 1 / 2)
#: With so many times fewer perturbations of the same cells cell-eval is timed, too: it compares
#: each with all controls anew.
FEWER = 5


# What is run: group -> name -> command


def scorers(folder, pred, real, *, out, memory, threads):
    """Commands that compute the three metrics of two files, each leaving them in `out`."""
    pair = ["-ap", pred, "-ar", real]
    cell_eval = [folder / "cell-eval" / "bin" / "cell-eval", "run", *pair, "--profile", "vcc"]
    cell_eval += ["--pert-col", KEY, "--control-pert", CONTROL]
    cell_eval2 = [folder / "cell-eval2" / "bin" / "cell-eval2", "run", *pair, "--profile", "vcc"]
    cell_eval2 += ["--preset", "v1", "--pert-col", KEY, "--control", CONTROL]
    cell_eval2 += ["--input-type", input_type(real), "--set", "device=cpu"]
    cell_eval2 += ["--set", "de.backend=pdex", "--set", f"num_threads={threads}"]
    return {
        "cell-eval": [*cell_eval, "--num-threads", threads, "-o", out / "cell-eval"],
        AS_IT_COMES: [*cell_eval, "-o", out / AS_IT_COMES],
        "cell-eval2": [*cell_eval2, "-o", out / "cell-eval2"],
        OURS: ours(folder, pred, real, out=out, memory=memory, threads=threads),
    }


def ours(folder, pred, real, *, out, memory, threads):
    python = folder / OURS / "bin" / "python"  # with what scoring needs and no more, as the peers
    command = [python, "-m", "vcc_helpers", "score", pred, real, "--memory", memory]
    return [*command, "--threads", threads, "--json", out / "vcc.json"]


def input_type(path):
    return "lognorm" if "lognorm" in Path(path).name else "counts"


def floor(folder, pred, real):
    """What nobody can do without, in the same environment as ours."""
    names = ("read anndata", "read raw", "sort")
    return {name: [folder / OURS / "bin" / "python", STEP, name, pred, real] for name in names}


def calls(folder, steps, *, prefix, out):
    """Calls of libraries on log-normalised cells that are in memory."""
    files = [folder / f"{prefix}lognorm.h5ad", folder / "small_lognorm.h5ad"]
    found = {}
    for name, environment in steps.items():
        python = folder / environment / "bin" / "python" if environment else sys.executable
        found[name] = [python, STEP, name, *files, "--out", out / f"{name}.npz"]
    return found


DE = {
    "illico": "libraries",
    "hpdex": "libraries",
    "pdex": "libraries",
    "scanpy": "libraries",
    "ours, ranks": None,
    "ours, table": None,
}
PSEUDOBULK = {"scanpy mean": "libraries", "polars mean": "libraries", "ours, mean": None}


#: What each group of steps is compared with.
OUR_STEPS = {"end to end": OURS, "DE alone": "ours, ranks", "pseudobulk": "ours, mean"}


def everything(folder, out, *, prefix, memory, threads):
    pred, real = (folder / f"{prefix}{name}.h5ad" for name in ("pred", "real"))
    return {
        "end to end": scorers(folder, pred, real, out=out, memory=memory, threads=threads),
        "floor": floor(folder, pred, real),
        "DE alone": calls(folder, DE, prefix=prefix, out=out),
        "pseudobulk": calls(folder, PSEUDOBULK, prefix=prefix, out=out),
    }


# Running


def measure(groups, *, repeats, threads):
    """Run all, in rounds, so that a busy moment of the machine does not hit one alone."""
    runs = {group: {name: [] for name in commands} for group, commands in groups.items()}
    for number in range(repeats):
        for group, commands in groups.items():
            for name, command in commands.items():
                before = runs[group][name]
                if before and (before[0]["wall"] > LONG or "error" in before[0]):
                    continue
                before.append(run(command, threads=threads))
                print(f"round {number + 1}: {group}: {name}: {before[-1]}", flush=True)
    return {
        group: {name: summary(found) for name, found in names.items()}
        for group, names in runs.items()
    }


def run(command, *, threads, limit=None):
    """Run a command; return its seconds, peak memory, and what it printed as JSON or its error.

    A process that takes more than `limit` bytes is stopped.
    """
    wait_for_quiet()
    with tempfile.TemporaryFile("w+") as log:
        start, before = time.perf_counter(), (busy_seconds(), own_seconds())
        process = psutil.Popen(
            [os.fspath(word) if isinstance(word, Path) else str(word) for word in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=environment(threads),
        )
        peak = watch(process, limit)
        wall = time.perf_counter() - start
        all_busy, cpu = busy_seconds() - before[0], own_seconds() - before[1]
        log.seek(0)
        lines = log.read().strip().splitlines() or [""]
    others = max(0, all_busy - cpu) / wall / os.cpu_count()
    found = {"wall": round(wall, 3), "cpu": round(cpu, 2), "peak_gb": round(peak / 1e9, 3)}
    found["others"] = round(others, 3)
    if limit and peak > limit:
        return found | {"error": f"stopped when it took more than {limit / 1e9:.0f} GB"}
    if process.returncode:
        return found | {"error": f"exit status {process.returncode}: {lines[-1][-300:]}"}
    return found | (json.loads(lines[-1]) if lines[-1].startswith("{") else {})


def wait_for_quiet(most=20, share=20):
    """Wait until less than so many percent of the processors are busy, or for `most` seconds."""
    for _ in range(most):
        if psutil.cpu_percent(interval=1) < share:
            break


def busy_seconds():
    """Seconds that all processors worked for anyone."""
    times = psutil.cpu_times()
    return times.user + times.system + getattr(times, "nice", 0)


def own_seconds():
    """Processor seconds of all processes that this one started and that have ended."""
    times = os.times()
    return times.children_user + times.children_system


def environment(threads):
    """Variables for every process: the same threads for all, and Python's bytecode kept for all."""
    pools = ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    found = os.environ | dict.fromkeys(pools, str(threads))
    found.pop("PYTHONDONTWRITEBYTECODE", None)
    bytecode = os.fspath(ROOT / "_build" / "bytecode")
    return found | {"PYTHONPATH": os.fspath(ROOT), "PYTHONPYCACHEPREFIX": bytecode}


def watch(process, limit):
    """Wait for the end; return the peak memory of the process and its children, summed, bytes."""
    peaks = {}
    while True:
        try:
            tree = [*process.children(recursive=True), process]
            peaks |= {part.pid: max(peaks.get(part.pid, 0), peak_of(part)) for part in tree}
            if limit and sum(peaks.values()) > limit:
                for part in tree:
                    part.kill()
        except psutil.NoSuchProcess:
            pass
        try:
            process.wait(timeout=0.1)
            return sum(peaks.values())
        except psutil.TimeoutExpired:
            continue


def peak_of(process):
    """Return the most memory a process held so far, bytes; where none is kept, what it holds."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return process.memory_info().rss if process.is_running() else 0


def summary(runs):
    """Medians over the runs; what is compared is `seconds`: the call, or else the process.

    `best` is the shortest of them, and `others` the most that others took of the processors.
    """
    failed = [found for found in runs if "error" in found]
    if failed:
        return failed[0]
    numbers = {
        name: round(float(np.median([found[name] for found in runs])), 3)
        for name in runs[0]
        if name != "layout"
    }
    seconds = [found.get("seconds", found["wall"]) for found in runs]
    numbers |= {"seconds": round(float(np.median(seconds)), 3), "best": round(min(seconds), 3)}
    rest = {name: max(found[name] for found in runs) for name in ("peak_gb", "others")}
    rest["runs"] = len(runs)
    return numbers | rest | {k: v for k, v in runs[0].items() if k == "layout"}


# Do the results agree?


def agreement(out):
    """Compare the results of the last run of each."""
    return {"scores": score_gaps(out)} | {
        group: {name: gaps(out, name, OUR_STEPS[group]) for name in steps}
        for group, steps in (("DE alone", DE), ("pseudobulk", PSEUDOBULK))
    }


def gaps(out, name, ours):
    """Largest difference of two matrices; None where a peer left no result."""
    if not (out / f"{name}.npz").exists():
        return None
    theirs, mine = (np.load(out / f"{file}.npz") for file in (name, ours))
    if list(theirs["groups"]) != list(mine["groups"]):
        return {"error": "other groups"}
    gap = np.abs(theirs["values"] - mine["values"])
    size = np.maximum(np.abs(theirs["values"]), np.finfo(float).tiny)
    return {"absolute": float(gap.max()), "relative": float((gap / size).max())}


def score_gaps(out):
    """Largest difference of each metric over the perturbations."""
    mine = pd.DataFrame(json.loads((out / "vcc.json").read_text())["per_perturbation"]).T
    found = {}
    for name in ("cell-eval", "cell-eval2"):
        if (out / name / "results.csv").exists():
            theirs = scores_of(out / name / "results.csv").loc[mine.index]
            found[name] = (theirs - mine[theirs.columns]).abs().max().astype(float).to_dict()
    return found


def scores_of(path):
    """Read a peer's results, wide or long, with our names of the metrics."""
    table = pd.read_csv(path)
    if "metric" in table:
        table = table.pivot(index="perturbation", columns="metric", values="value").reset_index()
    return table.set_index("perturbation")[list(METRICS)].rename(columns=METRICS)


# The three kinds of run


def compare(options):
    """Every peer and ours on the work, and whether the results agree."""
    with tempfile.TemporaryDirectory() as out:
        out, common = Path(out), {"memory": options.memory, "threads": options.threads}
        groups = everything(options.folder, out, prefix="", **common)
        found = measure(groups, repeats=options.repeats, threads=options.threads)
        if "error" in found["end to end"][OURS]:
            sys.exit(f"ours failed: {found['end to end'][OURS]['error']}")
        agree = agreement(out)
    agree["scores, small log-normalised files"] = compare_lognorm(options)
    found = {"work": describe(options.folder / "real.h5ad") | common, **found, "agreement": agree}
    found["ratios"] = ratios(found)
    keep(found | {"versions": versions(options.folder), "machine": machine()})
    print(table(found))


def compare_lognorm(options):
    """Scores of the small files, which all log-normalise alike as they already are."""
    pred, real = (options.folder / f"small_lognorm{end}.h5ad" for end in ("_pred", ""))
    with tempfile.TemporaryDirectory() as out:
        settings = {"memory": options.memory, "threads": options.threads}
        commands = scorers(options.folder, pred, real, out=Path(out), **settings)
        for name in ("cell-eval", "cell-eval2", OURS):
            run(commands[name], threads=options.threads)
        return score_gaps(Path(out))


def ratios(found):
    """How many times as long, and as large, as ours."""
    mine = found["end to end"][OURS]
    shares = {}
    for group, base in (
        ("end to end", OURS),
        ("DE alone", "ours, table"),
        ("pseudobulk", "ours, mean"),
    ):
        base = found[group][base]
        for name, step in found[group].items():
            if "error" not in step and step is not base:
                shares[f"{group}: {name}"] = {
                    "time": round(step["seconds"] / base["seconds"], 2),
                    "memory": round(step["peak_gb"] / base["peak_gb"], 2),
                }
    for name, step in found["floor"].items():
        shares[f"ours over floor: {name}"] = {
            "time": round(mine["wall"] / step["wall"], 2),
            "without start of Python": round(mine["wall"] / step["seconds"], 2),
        }
    return shares


def table(found):
    lines = [f"{'step':34}{'seconds':>9}{'best':>9}{'runs':>6}{'x ours':>8}{'peak GB':>9}"]
    for group in ("end to end", "floor", "DE alone", "pseudobulk"):
        lines.append(group)
        for name, step in found[group].items():
            if "error" in step:
                lines.append(f"  {name:32}{step['error']}")
                continue
            times = found["ratios"].get(f"{group}: {name}", {}).get("time", "")
            numbers = f"{step['seconds']:9.2f}{step['best']:9.2f}{step['runs']:6}"
            lines.append(f"  {name:32}{numbers}{times:>8}{step['peak_gb']:9.2f}")
    lines += [f"{name}: {share}" for name, share in found["ratios"].items() if "floor" in name]
    return "\n".join([*lines, json.dumps(found["agreement"], indent=1)])


def growth(options):
    """Time of scoring, beside reading, as one size of the work grows."""
    points = []
    for size, value, pair in grown(options.folder):
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{name}.h5ad" for name in ("pred", "real")]
            for cells, path in zip(pair, files, strict=True):
                cells.write_h5ad(path)
            entries = sum(cells.X.nnz for cells in pair)
            settings = {"memory": options.memory, "threads": options.threads}
            where = options.folder, *files
            commands = {OURS: ours(*where, out=Path(folder), **settings), **floor(*where)}
            times = {name: best_wall(commands[name], options) for name in GROWING}
            if size == "perturbations" and value < whole_of(options.folder):
                peer = scorers(*where, out=Path(folder), **settings)["cell-eval"]
                times["cell-eval"] = run(peer, threads=options.threads)["wall"]
            points.append({"size": size, "value": value, "entries": entries} | times)
            print(points[-1], flush=True)
    keep({"growth": {"points": points, "slopes": slopes(points), "memory": options.memory}})
    print(pd.DataFrame(points).to_string(), slopes(points), sep="\n")


def whole_of(folder):
    """Return the number of perturbations of the work."""
    return describe(folder / "real.h5ad")["perturbations"]


def best_wall(command, options):
    """Return the seconds of the faster of two runs of a process."""
    found = [run(command, threads=options.threads) for _ in range(2)]
    if errors := [step["error"] for step in found if "error" in step]:
        sys.exit(f"{' '.join(map(str, command))} failed: {errors[0]}")
    return min(step["wall"] for step in found)


def grown(folder):
    """Yield smaller pairs of files made from the work: which size, its value, the two files."""
    whole = [anndata.read_h5ad(folder / f"{name}.h5ad") for name in ("pred", "real")]
    n_cells, n_genes = whole[0].shape
    rng = np.random.default_rng(0)
    genes = rng.permutation(n_genes)
    yield "whole", n_cells, whole
    for share in GROWTH_STEPS:
        yield "cells", int(share * n_cells), [part[: int(share * n_cells)] for part in whole]
        chosen = np.sort(genes[: int(share * n_genes)])
        yield "genes", len(chosen), [part[:, chosen].copy() for part in whole]
        thin = [thinned(part, share, rng) for part in whole]
        yield "density", round(thin[0].X.nnz / n_cells / n_genes, 3), thin
    for times in (1 / FEWER, 2, 4):
        other = [relabelled(part, times) for part in whole]
        yield "perturbations", other[0].obs[KEY].nunique() - 1, other


def thinned(cells, share, rng):
    """Keep each count with a probability: fewer values are above zero."""
    thin = cells.copy()
    thin.X.data = rng.binomial(cells.X.data.astype(int), share**2).astype(np.float32)
    thin.X.eliminate_zeros()
    return thin


def relabelled(cells, times):
    """Call the same cells by more names, or by fewer; the controls keep theirs."""
    other = cells.copy()
    target, names = pd.factorize(other.obs[KEY].astype(str), sort=True)
    part = np.arange(len(target)) % times if times > 1 else 0
    number = (target * max(times, 1) + part) // max(1 / times, 1)
    label = np.where(names[target] == CONTROL, CONTROL, [f"group {int(i)}" for i in number])
    other.obs[KEY] = pd.Categorical(label)
    return other


def slopes(points):
    """Fit seconds = a + b entries; b in nanoseconds, and the share explained.

    To the files of fewer cells, since each gene of each perturbation costs a test besides.
    """
    points = [point for point in points if point["size"] in ("whole", "cells")]
    entries = np.array([point["entries"] for point in points])
    found = {}
    for name in GROWING:
        seconds = np.array([point[name] for point in points])
        slope, start = np.polyfit(entries, seconds, 1)
        left = seconds - start - slope * entries
        found[name] = {
            "ns_per_entry": round(float(slope) * 1e9, 3),
            "start_seconds": round(float(start), 3),
            "r2": round(float(1 - left.var() / seconds.var()), 4),
        }
    return found


def full(options):
    """Files of full size with ours, reading beside it; with --peers, what cell-eval does."""
    pred, real = options.full
    with tempfile.TemporaryDirectory() as out:
        out, threads = Path(out), options.threads
        command = ours(options.folder, pred, real, out=out, memory=options.memory, threads=threads)
        steps = {OURS: run(command, threads=threads)}
        print(steps, flush=True)
        steps["read raw"] = run(floor(options.folder, pred, real)["read raw"], threads=threads)
        card = json.loads((out / "vcc.json").read_text()) if (out / "vcc.json").exists() else {}
        if options.peers:
            common = {"out": out, "memory": options.memory, "threads": threads}
            peers = scorers(options.folder, pred, real, **common)
            room = int(0.9 * psutil.virtual_memory().available)
            for name in ("cell-eval", "cell-eval2"):
                steps[name] = run(peers[name], threads=threads, limit=room)
    files = {name: describe(path) for name, path in (("pred", pred), ("real", real))}
    found = {"files": files, "memory": options.memory, "threads": threads, "steps": steps}
    keep({"full": found | {"summary": card.get("summary"), "machine": machine()}})
    print(json.dumps(found, indent=1))


def try_all(options):
    """Run everything once on the small files; return the number of failures."""
    with tempfile.TemporaryDirectory() as out:
        common = {"prefix": "small_", "memory": options.memory, "threads": options.threads}
        groups = everything(options.folder, Path(out), **common)
        found = measure(groups, repeats=1, threads=options.threads)
    return sum("error" in step for steps in found.values() for step in steps.values())


# What was measured, on what


def describe(path):
    cells = anndata.read_h5ad(path, backed="r")
    n_entries = len(cells.file["X"]["data"])
    return {
        "cells": cells.n_obs,
        "genes": cells.n_vars,
        "perturbations": int(cells.obs[KEY].nunique()) - 1,
        "controls": int((cells.obs[KEY] == CONTROL).sum()),
        "entries": n_entries,
        "density": round(n_entries / cells.n_obs / cells.n_vars, 3),
        "file_gb": round(Path(path).stat().st_size / 1e9, 3),
        "simulated": bool(cells.uns.get("simulated", False)),
    }


def versions(folder):
    found = {}
    mine = dict.fromkeys(("numpy", "scipy", "numba", "anndata"), OURS)
    for name, environment in (mine | PEERS).items():
        places = [str(path) for path in (folder / environment / "lib").glob("*/site-packages")]
        found[name] = next(distributions(name=name, path=places)).version
    return found


def machine():
    cpu = ""
    if (info := Path("/proc/cpuinfo")).exists() and "model name" in (text := info.read_text()):
        cpu = text.split("model name")[1].split("\n")[0].strip("\t :")
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "cpu": cpu or platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }


def keep(part):
    """Put a part of the results beside the others."""
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    RESULT.write_text(json.dumps(results | part, indent=1) + "\n", encoding="utf-8")


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of prepare_speed.py")
    parser.add_argument("--memory", default="1GB", help="for ours (%(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="for all (%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of steps below a minute")
    parser.add_argument("--growth", action="store_true", help="curves of ours and of reading")
    parser.add_argument("--full", nargs=2, type=Path, metavar=("PRED", "REAL"))
    parser.add_argument("--peers", action="store_true", help="with --full: cell-eval, too")
    parser.add_argument("--try", dest="attempt", action="store_true", help="the small files only")
    options = parser.parse_args()
    options.folder = options.folder.absolute()
    return options


def main():
    options = parsed()
    if options.attempt:
        sys.exit(try_all(options))
    elif options.growth:
        growth(options)
    elif options.full:
        options.full = [path.absolute() for path in options.full]
        full(options)
    else:
        compare(options)


if __name__ == "__main__":
    main()
