"""Write random small screens in every layout, and hold what is computed from each to one answer.

    python benchmarks/layouts.py --cases 60 --seed 0

A case is a screen of up to 90 cells: groups of one to forty, silent genes, empty cells, counts or
lognorm values. It is laid out in memory, in HDF5, backed, sorted, in Zarr 2 and 3, as a Dask array
and as a .vcc, each time in a form, type, compression, chunk size and kind of labels drawn at
random. Pseudobulk, contrast, differential expression and scores of each must have the bits that
the dense cells in memory give, of the same precision. Ends with status 1 where a value differs.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import write_elem
from scipy import sparse
from tqdm import tqdm

from vcc_helpers import pseudobulk, score, sort_cells
from vcc_helpers.scoring import de_table
from vcc_helpers.stream import contrast
from vcc_helpers.submission import archive

CONTROL, KEY = "non-targeting", "target_gene"
COUNTS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FORMS = ["dense", "csr", "csc", "unsorted", "explicit zeros", "halves"]
PLACES = ["memory", "view", "h5ad", "backed", "sorted", "zarr 2", "zarr 3", "dask", "vcc"]


def main() -> int:
    """Compare, print what differs, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0, help="of the first case (%(default)s)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of what is written, and of the format of Zarr 2
    n_arrays = n_values = 0
    different = []
    for seed in tqdm(range(options.seed, options.seed + options.cases)):
        for what, found, expected in compared(np.random.default_rng(seed)):
            n_arrays, n_values = n_arrays + 1, n_values + expected.size
            if found.dtype != expected.dtype or found.tobytes() != expected.tobytes():
                n = int((found != expected).sum()) if found.shape == expected.shape else "all"
                different.append(f"seed {seed}, {what}: {n} of {expected.size} values differ")
    print("\n".join(different))
    print(
        f"{options.cases} cases, {len(PLACES) * options.cases} layouts, {n_arrays:,} comparisons "
        f"of {n_values:,} values, {len(different)} differences"
    )
    return 1 if different else 0


def compared(rng: np.random.Generator) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield for each layout of a case what was computed, and what should have been."""
    values, labels = draw(rng)
    other = annotated(values[rng.permutation(len(values))].astype(np.float32), labels)
    whole = bool((values % 1 == 0).all())
    expected = {
        dtype: computed(annotated(values.astype(dtype), labels), other)
        for dtype in ("float32", "float64")
    }
    for place in PLACES:
        form = "dense" if place == "dask" else str(rng.choice(FORMS))
        types = ["float32", "float64", *COUNTS * whole]
        types += ["float16"] * (whole and form == "dense")
        dtype = str(rng.choice(types))
        cells = annotated(in_form(values.astype(dtype), form, rng), labels)
        if rng.random() < 0.5:
            cells.obs[KEY] = as_categories(cells.obs[KEY], rng)
        with tempfile.TemporaryDirectory() as folder:
            source = laid_out(cells, place, Path(folder), rng)
            found = computed(source, other)
        double = dtype == "float64" and not (place == "sorted" and whole)  # these become integers
        for name, array in expected["float64" if double else "float32"].items():
            yield f"{place}, {form}, {dtype}: {name}", found[name], array


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw values, ``(n_cells, n_genes)``, and the label of each cell."""
    n_groups, n_genes = int(rng.integers(2, 6)), int(rng.choice([3, 20, 33]))
    sizes = rng.choice([1, 2, 7, 9, 40], n_groups)
    names = np.array([CONTROL, "G1", "7", "Ä b", "no gene"])[:n_groups]
    labels = rng.permutation(np.repeat(names, sizes)).astype(object)
    values = rng.poisson(rng.gamma(0.5, 3.0, n_genes), (len(labels), n_genes)).clip(max=120) * 1.0
    values[rng.random(len(values)) < 0.1] = 0  # empty cells
    values[:, rng.random(n_genes) < 0.2] = 0  # silent genes
    values[0, 0] = 3
    return (np.log1p(values / 4) if rng.random() < 0.4 else values), labels


def annotated(matrix, labels: np.ndarray) -> anndata.AnnData:
    """Put a matrix and its labels together."""
    obs = pd.DataFrame({KEY: labels}, index=[f"c{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"G{i}" for i in range(matrix.shape[1])])
    return anndata.AnnData(matrix, obs=obs, var=var)


def as_categories(labels: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Make labels categories in any order, one of them without a cell."""
    names = rng.permutation([*labels.unique(), "nobody"])
    return labels.astype(pd.CategoricalDtype(names))


def in_form(values: np.ndarray, form: str, rng: np.random.Generator):
    """Return the same values as another kind of matrix."""
    if form == "dense":
        return np.asfortranarray(values) if rng.random() < 0.5 else values
    matrix = sparse.csr_matrix(values)
    if form == "csc":
        return matrix.tocsc()
    rows = np.repeat(np.arange(len(values)), np.diff(matrix.indptr))
    places, data, repeats = matrix.indices, matrix.data, 1
    if form == "unsorted":
        order = np.lexsort((rng.random(len(rows)), rows))
        places, data = places[order], data[order]
    elif form == "explicit zeros":
        rows, places = (x.ravel() for x in np.indices(values.shape))
        data = values.ravel()
    elif form == "halves":  # each entry as two that add up to it, exactly
        half = data // 2
        data = np.stack([half, data - half], axis=1).ravel()
        places, repeats = np.repeat(places, 2), 2
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]) * repeats
    return sparse.csr_matrix((data, places, indptr), shape=values.shape)


def laid_out(cells: anndata.AnnData, place: str, folder: Path, rng: np.random.Generator):
    """Return cells in another place: an AnnData, or the path of a file."""
    if place == "memory":
        return cells
    if place == "view":
        twice = anndata.concat([cells, cells], index_unique="-")
        return twice[: cells.n_obs]
    if place == "dask":
        from dask import array

        kind = sparse.csr_matrix if cells.X.dtype != np.float16 else np.asarray
        chunks = int(rng.integers(1, cells.n_obs + 1)), cells.n_vars
        cells.X = array.from_array(cells.X, chunks=chunks).map_blocks(kind)
        return cells
    if place.startswith("zarr"):
        with anndata.settings.override(zarr_write_format=int(place[-1])):
            cells.write_zarr(folder / "cells.zarr")
        return folder / "cells.zarr"
    path = folder / "cells.h5ad"
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X"]
        write_elem(file, "X", cells.X, dataset_kwargs=packing(cells.X, rng))
    if place == "sorted":
        return sort_cells(path, folder / "sorted.h5ad")
    if place == "vcc":
        return archive.pack(path, folder / "cells.vcc")
    return anndata.read_h5ad(path, backed="r") if place == "backed" else path


def packing(matrix, rng: np.random.Generator) -> dict:
    """Draw chunks of an odd size, and a compression."""
    most = min(matrix.nnz, len(matrix.indptr)) if sparse.issparse(matrix) else min(matrix.shape)
    size = int(rng.integers(1, most + 1))
    compression = rng.choice(["none", "gzip", "lzf"])
    if compression == "none" and rng.random() < 0.5:
        return {}
    found = {"chunks": (size,) if sparse.issparse(matrix) else (size, most)}
    if compression != "none":
        found |= {"compression": str(compression), "shuffle": bool(rng.random() < 0.5)}
    return found


def computed(source, other: anndata.AnnData) -> dict[str, np.ndarray]:
    """Return every array that is computed from cells, by name."""
    bulk, table = pseudobulk(source), de_table(source)
    found = {"pseudobulk": np.asarray(bulk.X), "n_cells": bulk.obs["n_cells"].to_numpy()}
    found["variance"] = np.asarray(bulk.layers["variance"])
    for name, part in contrast(source)._asdict().items():
        if isinstance(part, np.ndarray):
            found[f"contrast.{name}"] = part
    for name in ("p_value", "fdr", "log2_fold_change", "significant"):
        found[f"de_table.{name}"] = getattr(table, name)
    for name, column in score(source, other).per_perturbation.items():
        found[f"score.{name}"] = column.to_numpy()
    if isinstance(source, anndata.AnnData) and source.isbacked:
        source.file.close()
    return found


if __name__ == "__main__":
    sys.exit(main())
