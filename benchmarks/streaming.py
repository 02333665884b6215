"""Time and memory of work on files larger than memory, beside merely reading them.

    python benchmarks/streaming.py --source adata_Training.h5ad --memory 4GB
    python benchmarks/streaming.py --size panel

Without --source the cells are simulated, in the official format. Each step runs in a process of
its own, after the file was dropped from the system's cache; its peak memory is the process's.
Steps that need the whole matrix in memory are left out where it does not fit.
Writes benchmarks/results/streaming.json, which holds one entry for each number of cells.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import anndata
import h5py
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
RESULT = ROOT / "benchmarks" / "results" / "streaming.json"
#: Bytes that scipy, anndata and scanpy hold at their peak for an entry of a float32 CSR matrix.
IN_MEMORY = 24


def read(path, memory):
    """Read every value and gene number once, 8 million at a time, and throw them away."""
    with h5py.File(path) as file:
        data, indices = file["X"]["data"], file["X"]["indices"]
        for start in range(0, len(data), 2**23):
            data[start : start + 2**23], indices[start : start + 2**23]


def pseudobulk(path, memory):
    from vcc_helpers import pseudobulk

    return pseudobulk(path)


def sort(path, memory):
    from vcc_helpers.stream import sort_cells

    sort_cells(path, sorted_name(path), memory=memory)


def in_memory(path, memory):
    import scanpy as sc

    from vcc_helpers import pseudobulk

    cells = anndata.read_h5ad(path)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    return pseudobulk(cells)


def aggregate(path, memory):
    import scanpy as sc

    cells = anndata.read_h5ad(path)
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    found = sc.get.aggregate(cells, "target_gene", "mean")
    found.X = found.layers["mean"]
    return found[np.argsort(found.obs_names)]


def sorted_name(path):
    return Path(path).with_suffix(".sorted.h5ad")


STEPS = {  # name: function, whether on the sorted file, whether the matrix must fit the memory
    "read": (read, False, False),
    "pseudobulk": (pseudobulk, False, False),
    "sort": (sort, False, False),
    "read, sorted": (read, True, False),
    "pseudobulk, sorted": (pseudobulk, True, False),
    "in memory: scanpy lognorm, pseudobulk": (in_memory, False, True),
    "in memory: scanpy lognorm, get.aggregate": (aggregate, False, True),
}


def run_step(name, source, memory, folder):
    """Run one step in this process and print its time, peak memory and result's file."""
    function, of_sorted, _ = STEPS[name]
    path = sorted_name(source) if of_sorted else source
    start = time.perf_counter()
    bulk = function(path, memory)
    seconds = time.perf_counter() - start
    if bulk is not None:
        np.save(Path(folder) / f"{name}.npy", np.asarray(bulk.X, dtype=np.float64))
    print(json.dumps({"seconds": round(seconds, 2), "peak_gb": round(peak_memory() / 1e9, 3)}))


def peak_memory():
    """Return the most memory that this process held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the parent's peak into getrusage
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget(path):
    """Drop a file from the system's cache, so that every step reads it from the disk."""
    if hasattr(os, "posix_fadvise") and Path(path).exists():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(source, memory, n_entries):
    room = psutil.virtual_memory().available
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (_, of_sorted, in_memory) in STEPS.items():
            if in_memory and n_entries * IN_MEMORY > room:
                print(f"{name}: left out, needs about {n_entries * IN_MEMORY / 1e9:.0f} GB")
                continue
            forget(sorted_name(source) if of_sorted else source)
            command = [sys.executable, __file__, "--step", name, "--source", str(source)]
            command += ["--memory", memory, "--folder", folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, found[name], flush=True)
        means = {file.stem: np.load(file) for file in Path(folder).glob("*.npy")}
    first = means["pseudobulk"]
    gaps = {name: float(np.abs(mean - first).max()) for name, mean in means.items()}
    return found, {name: gap for name, gap in gaps.items() if name != "pseudobulk"}


def describe(source):
    with h5py.File(source) as file:
        shape, n = file["X"].attrs["shape"].tolist(), len(file["X"]["data"])
        simulated = "simulated" in file.get("uns", {})
    return {
        "cells": shape[0],
        "genes": shape[1],
        "entries": n,
        "file_gb": round(Path(source).stat().st_size / 1e9, 3),
        "simulated": simulated,
    }


def keep(result):
    """Put the result beside those of other sizes."""
    results = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    results[f"{result['source']['cells']} cells"] = result
    RESULT.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def table(result):
    floor = {name: result["steps"][name]["seconds"] for name in ("read", "read, sorted")}
    lines = [f"{'step':44}{'seconds':>9}{'x reading':>11}{'peak GB':>9}"]
    for name, step in result["steps"].items():
        times = step["seconds"] / floor["read, sorted" if "sorted" in name else "read"]
        lines.append(f"{name:44}{step['seconds']:9.1f}{times:11.1f}{step['peak_gb']:9.2f}")
    return "\n".join(lines)


def parsed():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", help="an .h5ad in CSR; by default one is simulated")
    parser.add_argument("--size", default="panel", help="of the simulated cells: panel or h1")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--folder", help="for the simulated file and its sorted copy")
    parser.add_argument("--keep", action="store_true", help="keep the sorted copy")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    options = parsed()
    if options.step:
        run_step(options.step, options.source, options.memory, options.folder)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = options.source
        if not source:
            from vcc_helpers.datasets import write_h1_like

            source = write_h1_like(Path(folder) / "cells.h5ad", size=options.size)
        result = {"source": describe(source), "memory": options.memory}
        try:
            steps, gaps = measure(source, options.memory, result["source"]["entries"])
            result["sorted_gb"] = round(sorted_name(source).stat().st_size / 1e9, 3)
        finally:
            if not options.keep:
                sorted_name(source).unlink(missing_ok=True)
    result |= {"steps": steps, "largest_difference": gaps}
    result["versions"] = {p: version(p) for p in ("numpy", "scipy", "h5py", "anndata", "scanpy")}
    result["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    keep(result)
    print(table(result))
    print("largest difference:", gaps)
    if max(gaps.values()) > 1e-6:
        sys.exit("results differ by more than 1e-6")


if __name__ == "__main__":
    main()
