"""Where the seconds of a score go: by function of the package, and as one size of the work grows.

    python benchmarks/where.py pred.h5ad real.h5ad
    python benchmarks/where.py pred.h5ad real.h5ad --curves

Seconds are the processor's, of all threads, which say more than a clock on a machine that others
use too. Each case runs once before, so that its code is compiled. A function's seconds are without
those of other functions of the package that it calls, but with those of NumPy and of compiled code.
Next to them, measured in the same process, is what each part cannot do without: the floor.

Writes its part of benchmarks/results/speed.json. Needs Python 3.12.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import anndata  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from scipy import sparse  # noqa: E402

from vcc_helpers.scoring import anchors, de_table, score  # noqa: E402

PACKAGE = f"vcc_helpers{os.sep}"
#: How functions are put together for the page: the first word that is in the function's name.
PARTS = {
    "read the files": ("blocks.py", "open.py", "guard.py"),
    "check every value": ("look.py",),
    "put rows on the shelf and take them down": ("_shelf.py",),
    "logarithms": ("log_entries", "log_block", "counts.py"),
    "lay genes out": ("tiles",),
    "pair, sort and walk": ("rank_groups", "sort_controls", "span"),
    "means": ("_adder",),
    "jackknife": ("_jackknife",),
    "make cells": ("emit.py", "_scaled_controls", "_perfect_means"),
    "p-values and rates": ("ranks.py", "_rates", "_table_of"),
    "metrics": ("metrics.py", "digest.py", "bulk.py", "card.py"),
}


class Seconds:
    """Adds up each function's own processor seconds, in whatever thread it runs."""

    def __init__(self):
        self.own, self.local = Counter(), threading.local()

    def __enter__(self):
        watch, event = sys.monitoring, sys.monitoring.events
        watch.use_tool_id(watch.PROFILER_ID, "where")
        calls = dict.fromkeys((event.PY_START, event.PY_RESUME, event.PY_THROW), self.enter)
        calls |= dict.fromkeys((event.PY_RETURN, event.PY_YIELD, event.PY_UNWIND), self.leave)
        for kind, call in calls.items():
            watch.register_callback(watch.PROFILER_ID, kind, call)
        watch.set_events(watch.PROFILER_ID, sum(calls))
        self.total, self.wall = -time.process_time(), -time.perf_counter()
        return self

    def __exit__(self, *error):
        sys.monitoring.set_events(sys.monitoring.PROFILER_ID, 0)
        sys.monitoring.free_tool_id(sys.monitoring.PROFILER_ID)
        self.total, self.wall = self.total + time.process_time(), self.wall + time.perf_counter()

    def settle(self):
        """Give the time since the last event to the function that was running in this thread."""
        now, stack = time.thread_time(), self.local.__dict__.setdefault("stack", [])
        if stack:
            self.own[stack[-1]] += now - self.local.since
        self.local.since = now
        return stack

    def enter(self, code, *_):
        if PACKAGE in code.co_filename:
            self.settle().append(f"{Path(code.co_filename).name} {code.co_qualname}")

    def leave(self, code, *_):
        if PACKAGE in code.co_filename and (stack := self.settle()):
            stack.pop()

    def parts(self):
        """Return seconds by part, the largest functions first, and what is in none."""
        found, largest = Counter(), {}
        for name, seconds in self.own.most_common():
            part = next((p for p, words in PARTS.items() if any(w in name for w in words)), "rest")
            found[part] += seconds
            largest.setdefault(part, name.replace(".<locals>", "").replace(".py ", "."))
        found["rest"] += self.total - sum(self.own.values())
        return {p: {"seconds": round(s, 3), "largest": largest[p]} for p, s in found.most_common()}


def spent(call, *args, **how):
    """Return the processor seconds of a call, the median of three."""
    found = []
    for _ in range(3):
        start = time.process_time()
        call(*args, **how)
        found.append(time.process_time() - start)
    return round(statistics.median(found), 3)


def floors(*pair):
    """Measure what the parts cannot do without, on both files."""
    from peers.step import read_anndata, read_raw

    cells = [anndata.read_h5ad(path) for path in pair]
    columns = [sparse.csc_matrix(part.X) for part in cells]

    def sort():
        for matrix in columns:
            values = matrix.data.copy()  # or it would be sorted already the next time
            for first, stop in pairwise(matrix.indptr):
                values[first:stop].sort()

    return {
        "read raw": spent(read_raw, pair),
        "read anndata": spent(read_anndata, pair),
        "look at every value once": spent(lambda: [part.X.data.max() for part in cells]),
        "sort the values of each gene": spent(sort),
        "bring rows to columns, SciPy": spent(lambda: [sparse.csc_matrix(c.X) for c in cells]),
    }


def annotated(matrix, labels, **columns):
    """Return cells with names and labels."""
    names = [[f"{of}{i}" for i in range(n)] for of, n in zip("cG", matrix.shape, strict=True)]
    obs = pd.DataFrame({"target_gene": labels} | columns, names[0]).astype("category")
    return anndata.AnnData(matrix, obs, pd.DataFrame(index=names[1]))


def small_groups(folder, n=6000, genes=500):
    """Write two cells of each of many perturbations, and controls."""
    rng = np.random.default_rng(0)
    labels = rng.permutation([*np.repeat([f"P{i}" for i in range(n)], 2), *["non-targeting"] * 500])
    rates = rng.gamma(0.5, 2, genes) * rng.lognormal(0, 0.4, (len(labels), 1))
    cells = annotated(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)), labels)
    cells.write_h5ad(folder / "small.h5ad")
    return folder / "small.h5ad"


def start(folder):
    """Measure a score of two small files from the command on, and what it loads."""
    rng, paths = np.random.default_rng(0), [str(folder / f"{name}.h5ad") for name in "ab"]
    labels = np.repeat(["G1", "non-targeting"], 100)
    for path in paths:
        annotated(sparse.csr_matrix(rng.poisson(1, (200, 50)).astype("f4")), labels).write_h5ad(
            path
        )
    steps = {
        "Python": ["-c", ""],
        "import anndata": ["-c", "import anndata"],
        "import vcc_helpers.scoring": ["-c", "import vcc_helpers.scoring"],
        "and the compiled loops": ["-c", "import vcc_helpers.scoring, vcc_helpers.stream._kernels"],
        "score of two small files": ["-m", "vcc_helpers", "score", *paths],
    }
    found = {}
    for name, words in steps.items():
        runs = []
        for _ in range(4):  # the first one fills caches
            before = os.times()
            run = {"cwd": ROOT, "check": True, "stdout": subprocess.DEVNULL}
            subprocess.run([sys.executable, *words], **run)
            after = os.times()
            runs.append(sum(after[2:4]) - sum(before[2:4]))
        found[name] = round(statistics.median(runs[1:]), 3)
    return found


def where(options):
    """Profile each case."""
    pair = options.pred, options.real
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        many = small_groups(folder)
        cases = {
            "vcc2025": lambda: score(*pair, threads=1),
            "vcc2026": lambda: score(*pair, "vcc2026", threads=1),
            "anchors of 2025": lambda: anchors(options.real, threads=1),
            "anchors of 2026": lambda: anchors(options.real, "vcc2026", threads=1),
            "six thousand perturbations of two cells": lambda: de_table(many, threads=1),
        }
        found = {}
        for name, case in cases.items():
            case()
            with Seconds() as seconds:
                case()
            found[name] = {"seconds": round(seconds.total, 3), "parts": seconds.parts()}
            print(name, found[name]["seconds"], flush=True)
        found = {"cases": found, "floors": floors(*pair), "start": start(folder)}
    cells = anndata.read_h5ad(options.real, backed="r")
    n_cells, n_genes = cells.shape
    work = {"cells": n_cells, "genes": n_genes, "entries": cells.X.group["data"].shape[0]}
    return found | {"work": work}


def drawn(seed, n_targets=50, per=60, n_controls=1000, genes=2000, depth=2000, contexts=1):
    """Draw cells of a simple kind."""
    rng = np.random.default_rng(seed)
    share = np.random.default_rng(1).gamma(0.4, 1.0, genes)
    names = [*(f"G{i}" for i in range(n_targets)), "non-targeting"]
    labels = np.tile(np.repeat(names, [per] * n_targets + [n_controls]), contexts)
    order, rows = rng.permutation(len(labels)), []
    for part in np.array_split(order, max(1, len(order) // 500)):
        size = rng.lognormal(np.log(depth), 0.4, (len(part), 1))
        rates = rng.gamma(2, 0.5, (len(part), genes)) * share / share.sum() * size
        rows.append(sparse.csr_matrix(rng.poisson(rates).astype(np.float32)))
    context = np.repeat([f"context {i}" for i in range(contexts)], len(labels) // contexts)
    return annotated(sparse.vstack(rows, format="csr"), labels[order], context=context[order])


GROWN = {
    "entries": ("depth", (500, 2000, 8000)),
    "genes": ("genes", (500, 2000, 4000)),
    "perturbations": ("n_targets", (12, 50, 100)),
    "cells a perturbation": ("per", (15, 60, 120)),
    "contexts": ("contexts", (1, 2)),
}


def curves():
    """Measure scores, by both rules, and reading, as one size grows."""
    from peers.step import read_anndata, read_raw

    points = []
    for size, (name, values) in GROWN.items():
        for value in values:
            with tempfile.TemporaryDirectory() as folder:
                pair = [str(Path(folder) / f"{side}.h5ad") for side in ("pred", "real")]
                cells = [drawn(seed, **{name: value}) for seed in (1, 2)]
                entries = sum(part.X.nnz for part in cells)
                for part, path in zip(cells, pair, strict=True):
                    part.write_h5ad(path)
                key = "context" if name == "contexts" else None
                how = {"threads": 1, "context_key": key}
                point = {"size": size, "value": value, "entries": entries}
                for rules in ("vcc2025", "vcc2026"):
                    point[rules] = spent(score, *pair, rules, **how)
                point["read anndata"] = spent(read_anndata, pair)
                point["read raw"] = spent(read_raw, pair)
                points.append(point)
                print(points[-1], flush=True)
    return points


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pred", type=Path)
    parser.add_argument("real", type=Path)
    parser.add_argument("--curves", action="store_true", help="of files that are drawn")
    options = parser.parse_args()
    from speed import keep, machine

    if options.curves:
        keep({"curves": {"points": curves(), "machine": machine()}})
    else:
        keep({"where": where(options) | {"machine": machine()}})


if __name__ == "__main__":
    main()
