"""Sort a file's cells by perturbation, whatever its size, within a memory bound.

The official files list cells in the order they were measured. Sorted, each perturbation is one
stretch of rows, which can be read alone; with counts in their smallest type, and compressed, the
file is several times smaller too. One pass puts each row on a :class:`~._shelf.Shelf` next to the
output; then one perturbation after the other is taken down and written.

Taught in: notebooks/09_work_with_large_files.

>>> import tempfile
>>> from pathlib import Path
>>> from vcc_helpers.datasets import load_h1_sample
>>> path = sort_cells(load_h1_sample(), Path(tempfile.mkdtemp()) / "sorted.h5ad")
>>> anndata.read_h5ad(path).obs["target_gene"].unique().tolist()
['MED12', 'SRC', 'STAT1', 'TET1', 'TMSB4X', 'non-targeting']
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from tqdm import tqdm

from ..bulk import PERTURBATION_KEY
from ._engine import n_threads
from ._shelf import Shelf
from .blocks import BLOCK_VALUES, ahead, is_half, pack_chunk, stored_blocks, stored_matrix
from .open import labels_of, left_on_disk, open_cells, parse_memory
from .write import beside, check_writable, hdf5, replacing, write_anndata

#: What Python and the libraries take before any cell is read, and the least room for cells in
#: addition to that, in bytes.
_LIBRARIES, _LEAST_ROOM = 300 * 10**6, 64 * 10**6
#: Entries in a compressed chunk of the output, 1 MB of gene numbers, which HDF5 caches by default.
_CHUNK = 2**18


def sort_cells(
    source: anndata.AnnData | str | Path,
    path: str | Path,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    memory: int | float | str = "4GB",
    progress: bool = False,
) -> Path:
    """Write a file whose rows are grouped by perturbation; the counts stay exactly the same.

    Groups are in the order of their names; within a group, the order of `source` is kept. ``X`` is
    CSR, compressed with shuffle and gzip, in the smallest of uint8, uint16 and uint32 that holds
    every value, if all are whole and not negative, else in the source's type. Zeros that are stored
    are dropped; repeated entries are summed. A UserWarning names layers and ``raw``, which are not
    carried over; all else is, in memory.

    The file at `path` is replaced at the end, in one step; `path` is returned. One that is the
    source is a ValueError. Scratch data lie next to it, in a file that ends with the process; after
    an interruption the same call starts anew.
    """
    path = Path(path)
    check_writable(path, inputs=[source])
    cells = open_cells(source)
    try:
        if 0 in cells.shape:
            raise ValueError(
                f"nothing to sort: shape {cells.shape}; expected a cell and a gene at least"
            )
        codes, _ = pd.factorize(labels_of(cells, perturbation_key), sort=True)
        block_rows = _block_rows(cells, parse_memory(memory))
        if lost := left_on_disk(cells):
            text = f"not carried over to the sorted file: {', '.join(lost)}"
            warnings.warn(text, stacklevel=2)
        with beside(path, ".shelf") as scratch, closing(Shelf(cells.n_vars, scratch)) as shelf:
            lengths, dtype = _shelve(cells, codes, shelf, block_rows, progress)
            order = np.argsort(codes, kind="stable")
            with replacing(path) as part, hdf5(part) as (file, check):
                write_anndata(file, _annotations(cells, order))
                datasets = _make_matrix(file, cells.shape, lengths[order], dtype)
                _fill(_chunks(datasets, shelf, codes, progress), check)
    finally:
        if cells is not source:
            cells.file.close()
    return path


def _block_rows(cells: anndata.AnnData, memory: int) -> int:
    """Return how many rows can be read at a time, besides labels and row numbers."""
    fixed = _LIBRARIES + 3 * int(cells.obs.memory_usage(deep=True).sum()) + 96 * cells.n_obs
    least = fixed + max(_LEAST_ROOM, 64 * cells.n_vars)
    if memory < least:
        raise ValueError(
            f"memory of {memory / 1e6:.0f} MB is too small to sort these {cells.n_obs} cells x "
            f"{cells.n_vars} genes; give at least '{-(-least // 10**6)}MB'"
        )
    values = min(BLOCK_VALUES // 2, (memory - fixed) // (24 * (3 + n_threads(None))))
    return min(4096, max(1, values // cells.n_vars))


def _shelve(
    cells: anndata.AnnData, codes: np.ndarray, shelf: Shelf, block_rows: int, progress: bool
) -> tuple[np.ndarray, np.dtype]:
    """Put every row on the shelf; return the entries of each, and the type that holds them all."""
    lengths, types = np.empty(cells.n_obs, np.int64), []
    blocks = stored_blocks(cells, block_rows=block_rows, scratch=shelf.path.parent)

    def pack(start: int, block) -> tuple:
        rows = sparse.csr_matrix(block.astype(np.float32) if is_half(block) else block)
        if (rows.data == 0).any():
            rows = rows.copy()
            rows.eliminate_zeros()
        lengths[start : start + rows.shape[0]] = np.diff(rows.indptr)
        rows.data = rows.data.astype(rows.dtype.newbyteorder("="), copy=False)
        small = _smallest(rows.data)
        packed = shelf.pack(rows, codes[start : start + rows.shape[0]], small or rows.dtype)
        return start, small, packed

    bar = tqdm(total=cells.n_obs, unit=" cells", desc="collect", disable=not progress)
    with bar, closing(ahead(pack, blocks, threads=n_threads(None))) as done:
        for start, small, packed in done:
            shelf.add(start, *packed)
            types.append(small)
            bar.update(len(packed[0]))
    whole = all(small is not None for small in types)
    dtype = max(types, key=lambda small: small.itemsize) if whole else stored_matrix(cells).dtype
    return lengths, dtype


def _smallest(values: np.ndarray) -> np.dtype | None:
    """Return the smallest unsigned type, of four bytes at most, if it holds the values exactly."""
    if values.dtype == bool or not values.size:
        return np.dtype(np.uint8)
    low, high = values.min(), values.max()
    if not (low >= 0 and high < 2**32):  # NaN compares as false
        return None
    small = np.min_scalar_type(int(np.ceil(high)))
    return small if (values.astype(small) == values).all() else None


def _chunks(
    datasets: list[h5py.Dataset], shelf: Shelf, codes: np.ndarray, progress: bool
) -> Iterator[tuple]:
    """Take one perturbation after the other down, and cut its values and gene numbers into chunks.

    Each with its dataset and place. HDF5 wants the last one whole too, and never shows its end.
    """
    size, at = datasets[0].chunks[0], 0
    rest = [np.empty(0, np.uint8)] * 2
    pieces = chain.from_iterable(map(shelf.pieces, range(codes.max() + 1)))
    with tqdm(total=len(codes), unit=" cells", desc="write", disable=not progress) as bar:
        for rows, piece in pieces:
            new = zip(rest, (piece.data, piece.indices), strict=True)
            joined = [np.concatenate(arrays) for arrays in new]
            whole = len(joined[0]) // size * size
            for start in range(0, whole, size):
                for dataset, array in zip(datasets, joined, strict=True):
                    yield dataset, at + start, array[start : start + size].astype(dataset.dtype)
            at += whole
            rest = [array[whole:] for array in joined]
            bar.update(len(rows))
    if len(rest[0]):
        for dataset, array in zip(datasets, rest, strict=True):
            yield dataset, at, np.pad(array, (0, size - len(array))).astype(dataset.dtype)


def _fill(chunks: Iterator, check: Callable[[], None]) -> None:
    """Write chunks, which are compressed in threads."""

    def pack(dataset: h5py.Dataset, at: int, chunk: np.ndarray) -> tuple:
        return dataset, at, pack_chunk(chunk)

    with closing(ahead(pack, chunks, threads=2 * n_threads(None))) as packed:
        for dataset, at, chunk in packed:
            check()
            dataset.id.write_direct_chunk((at,), chunk)


def _make_matrix(
    file: h5py.File, shape: tuple[int, int], lengths: np.ndarray, dtype: np.dtype
) -> list[h5py.Dataset]:
    """Lay out an empty CSR matrix as .h5ad has it; return its data and indices."""
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    n = int(indptr[-1])
    if "X" in file:
        del file["X"]
    group = file.create_group("X")
    kind = {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape}
    group.attrs.update(kind)
    pointer = np.int32 if n <= np.iinfo(np.int32).max else np.int64
    group["indptr"] = indptr.astype(pointer)
    packed = {"chunks": (min(_CHUNK, max(n, 1)),), "maxshape": (None,), "shuffle": True}
    return [
        group.create_dataset(name, (n,), kind, compression="gzip", compression_opts=1, **packed)
        for name, kind in (("data", dtype), ("indices", pointer))
    ]


def _annotations(cells: anndata.AnnData, order: np.ndarray) -> anndata.AnnData:
    """Return all but the matrices that are as large as X, in the new order."""
    parts = {name: dict(getattr(cells, name)) for name in ("obsm", "varm", "obsp", "varp")}
    names = pd.DataFrame(index=cells.obs_names)
    found = anndata.AnnData(obs=names, var=cells.var, uns=dict(cells.uns), **parts)[order].copy()
    found.obs = cells.obs.iloc[order]  # by itself, so that categories without a cell stay
    return found
