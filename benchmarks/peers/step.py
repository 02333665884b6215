"""One step of the speed benchmark, in whichever environment this Python is.

    python benchmarks/peers/step.py illico lognorm.h5ad small_lognorm.h5ad --out result.npz
    python benchmarks/peers/step.py "read anndata" pred.h5ad real.h5ad

A call on log-normalised cells: brings them into the layout that the library prefers, calls it on
the second, small file (so that its code is imported and compiled), and times the call on the first.
The floor: times the reading of both files. Prints the times as JSON; the result of a call goes to
a file, so that all can be compared.
"""

import argparse
import json
import logging
import os
import sys
import time
from pathlib import Path

import anndata
import numpy as np
from scipy import sparse

CONTROL, KEY = "non-targeting", "target_gene"
N_THREADS = int(os.environ.get("NUMBA_NUM_THREADS", os.cpu_count()))


# Differential expression: log-normalised cells in memory to p-values, (n_perts, n_genes)


def illico(cells):
    from illico import asymptotic_wilcoxon

    table = asymptotic_wilcoxon(
        cells, is_log1p=True, group_keys=KEY, reference=CONTROL, n_threads=N_THREADS
    )
    return lambda: by_row(table.index.get_level_values(0), table["p_value"], cells.n_vars)


def hpdex(cells):
    from hpdex import parallel_differential_expression

    logging.disable()
    table = parallel_differential_expression(
        cells, groupby_key=KEY, reference=CONTROL, threads=N_THREADS, show_progress=False
    )
    return lambda: by_row(table["target"], table["p_value"], cells.n_vars)


def pdex(cells):
    from pdex import pdex as test

    table = test(cells, groupby=KEY, mode="ref", threads=N_THREADS, is_log1p=True)
    return lambda: by_row(table["target"].to_numpy(), table["p_value"].to_numpy(), cells.n_vars)


def scanpy(cells):
    import scanpy as sc

    sc.tl.rank_genes_groups(cells, KEY, reference=CONTROL, method="wilcoxon", tie_correct=True)

    def result():
        found = cells.uns["rank_genes_groups"]
        names = sorted(found["pvals"].dtype.names)
        place = {name: cells.var_names.get_indexer(found["names"][name]) for name in names}
        return names, np.array([found["pvals"][name][place[name].argsort()] for name in names])

    return result


def ours_ranks(cells):
    from vcc_helpers.stream import rank_sum

    labels = cells.obs[KEY].astype(str)
    found = rank_sum(cells.X, labels, control=CONTROL, threads=N_THREADS)
    return lambda: (list(found.groups), found.p_value)


def ours_table(cells):
    from vcc_helpers import de_table

    found = de_table(cells, threads=N_THREADS)
    return lambda: (list(found.perturbations), found.p_value)


def by_row(groups, values, n_genes):
    """Turn a long table, gene after gene of each perturbation, into a matrix sorted by name."""
    names = np.asarray(groups)[::n_genes].astype(str)
    matrix = np.asarray(values, dtype=np.float64).reshape(-1, n_genes)
    rows = [row for row in np.argsort(names) if names[row] != CONTROL]
    return list(names[rows]), matrix[rows]


# Pseudobulk: log-normalised cells in memory to means, (n_perts + 1, n_genes)


def scanpy_mean(cells):
    import scanpy as sc

    found = sc.get.aggregate(cells, KEY, "mean")
    order = np.argsort(found.obs_names)
    return lambda: (list(found.obs_names[order]), found.layers["mean"][order])


def polars_mean(cells):
    import polars as pl

    labels = cells.obs[KEY].astype(str).to_numpy()
    frame = pl.DataFrame(cells.X).with_columns(group=labels)
    found = frame.group_by("group").mean().sort("group")
    return lambda: (found["group"].to_list(), found.drop("group").to_numpy())


def ours_mean(cells):
    from vcc_helpers import pseudobulk

    found = pseudobulk(cells)
    return lambda: (list(found.obs_names), found.X)


# The floor: what nobody can do without


def read_anndata(files):
    return [anndata.read_h5ad(path) for path in files]


def read_raw(files):
    return [read_blocks(path) for path in files]


def read_blocks(path, n_values=2**21):
    """Read every value and gene number once, a block at a time, and throw them away."""
    import h5py

    with h5py.File(path) as file:
        parts = [file["X"][name] for name in ("data", "indices")]
        blocks = [np.empty(n_values, dtype=part.dtype) for part in parts]
        for start in range(0, len(parts[0]), n_values):
            stop = min(start + n_values, len(parts[0]))
            for part, block in zip(parts, blocks, strict=True):
                part.read_direct(block, np.s_[start:stop], np.s_[: stop - start])
    return stop


def sort_values(columns):
    """Sort the values above zero of each gene, on one core."""
    for start, stop in zip(columns.indptr[:-1], columns.indptr[1:], strict=True):
        columns.data[start:stop].sort()


STEPS = {  # name: function, layout
    "illico": (illico, "csc"),
    "hpdex": (hpdex, "csc"),
    "pdex": (pdex, "csr"),
    "scanpy": (scanpy, "csc"),
    "ours, ranks": (ours_ranks, "csr"),
    "ours, table": (ours_table, "csr"),
    "scanpy mean": (scanpy_mean, "csr"),
    "polars mean": (polars_mean, "dense"),
    "ours, mean": (ours_mean, "csr"),
}
FLOOR = {"read anndata": read_anndata, "read raw": read_raw}


def laid_out(cells, layout):
    """Return the cells with their matrix in another layout."""
    if layout == "csc":
        cells.X = sparse.csc_matrix(cells.X)
    elif layout == "dense":
        cells.X = cells.X.toarray()
    return cells


def timed(function, *arguments):
    start = time.perf_counter()
    result = function(*arguments)
    return result, time.perf_counter() - start


def run_call(name, files, layout):
    """Time a library: conversion to its layout, first call on the small file, call."""
    function, preferred = STEPS[name]
    layout = layout or preferred
    small = laid_out(anndata.read_h5ad(files[1]), layout)
    _, first = timed(function, small)
    cells = anndata.read_h5ad(files[0])
    cells, conversion = timed(laid_out, cells, layout)
    result, seconds = timed(function, cells)
    times = {"seconds": seconds, "conversion": conversion, "first": first}
    return {"layout": layout} | times, result()


def run_floor(name, files):
    """Time reading the files, or sorting the values of them, already gene by gene."""
    if name in FLOOR:
        return {"seconds": timed(FLOOR[name], files)[1]}
    columns = [sparse.csc_matrix(cells.X) for cells in read_anndata(files)]
    return {"seconds": sum(timed(sort_values, matrix)[1] for matrix in columns)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=[*STEPS, *FLOOR, "sort"])
    parser.add_argument("files", type=Path, nargs=2)
    parser.add_argument("--layout", choices=["csr", "csc", "dense"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.step not in STEPS:
        print(json.dumps(run_floor(options.step, options.files)))
        return
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    times, (groups, values) = run_call(options.step, options.files, options.layout)
    if options.out:
        np.savez(options.out, groups=groups, values=np.asarray(values, dtype=np.float64))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
