"""Cells: open them, check them, and walk over their rows a block at a time.

Everything else in the package takes an :class:`anndata.AnnData` (cells x genes) or the path
of an ``.h5ad`` file. This module is the one place that knows how such a thing can be broken
and how it is stored: dense, CSR or CSC; in memory, a view, or on disk.

Taught in: notebooks/01_load_the_h1_data.
Needs: kernels.py, storage.py.

>>> import anndata, numpy, pandas
>>> obs = pandas.DataFrame({"target_gene": ["non-targeting", "SOX2"]}, index=["c1", "c2"])
>>> cells = anndata.AnnData(numpy.array([[1.0, 0.0], [0.0, 3.0]]), obs=obs)
>>> inspect_values(cells).scale
'counts'
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset
from scipy import sparse
from tqdm import tqdm

from .storage import (
    check_tree,
    form_problem,
    is_csr_file,
    stored_blocks,
    stored_matrix,
    stored_rows,
    unreadable,
    value_stretches,
)

PERTURBATION_KEY = "target_gene"
CONTROL = "non-targeting"

#: A value counts as fractional above this (the official rule, cell-eval 0.6.6).
FRACTION_TOLERANCE = 1e-3
#: log1p values of single cells stay below this (the official rule, cell-eval 0.6.6).
LOGNORM_LIMIT = 15.0
#: Integers up to this are exact in float32.
EXACT_IN_FLOAT32 = 2**24

_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


class ValueSummary(NamedTuple):
    """What one pass over the values of a file tells.

    Attributes
    ----------
    scale
        ``"counts"`` when no value has a fractional part above 1e-3, else ``"lognorm"``.
    library_size
        Sum of each cell's values, shape ``(n_cells,)``, float64, in the file's own unit.
    """

    scale: str
    library_size: np.ndarray


def open_cells(source: anndata.AnnData | str | Path) -> anndata.AnnData:
    """Return `source` as an AnnData; a path is opened, its matrix not read into memory.

    Parameters
    ----------
    source
        An AnnData, returned as it is, or the path of an ``.h5ad`` file or a ``.zarr`` folder.

    Returns
    -------
    AnnData
        Shape ``(n_cells, n_genes)``; when `source` is a path, its X is a handle of what lies there.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        The file is not a readable ``.h5ad``, or holds no matrix ``X``.
    TypeError
        `source` is neither an AnnData nor a path.

    Notes
    -----
    Taught in: notebooks/01_load_the_h1_data.
    """
    if isinstance(source, anndata.AnnData):
        cells = source
    elif isinstance(source, str | Path):
        cells = _open_file(Path(source))
    else:
        raise TypeError(
            f"expected an AnnData or the path of an .h5ad file, got {type(source).__name__}"
        )
    if stored_matrix(cells) is None:
        raise ValueError("the AnnData has no matrix X; put the expression values there")
    try:
        found = form_problem(cells)
    except (OSError, RuntimeError, KeyError) as error:
        raise unreadable(source, error) from error
    if found:
        name = f"{source}: " if cells is not source else ""
        raise ValueError(f"{name}{found}; write the file, or make the matrix, again")
    return cells


def _open_file(path: Path) -> anndata.AnnData:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir() and any((path / name).exists() for name in (".zgroup", "zarr.json")):
        return _open_zarr(path)
    if path.is_dir() or not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not an HDF5 file, so it cannot be an .h5ad: it may be cut short, still "
            "compressed, or of another format; write it with AnnData.write_h5ad"
        )
    try:
        with h5py.File(path) as file:
            check_tree(file)
            # AnnData writes a null for "no raw", and takes it for a raw without genes when it reads
            has_raw = isinstance(file.get("raw"), h5py.Group)
        cells = anndata.read_h5ad(path, backed="r")
        if not has_raw:
            del cells.raw
        _ = cells.X  # a matrix that is absent or damaged shows here, while the path is known
    except Exception as error:
        raise unreadable(path, error) from error
    return cells


def _open_zarr(path: Path) -> anndata.AnnData:
    import zarr  # comes with anndata; most never open one

    try:
        group = zarr.open(path, mode="r")
        matrix = group["X"] if isinstance(group["X"], zarr.Array) else sparse_dataset(group["X"])
        return anndata.AnnData(X=matrix, obs=read_elem(group["obs"]), var=read_elem(group["var"]))
    except Exception as error:
        raise unreadable(path, error) from error


def problems(
    cells: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str | None = CONTROL,
    name: str = "cells",
) -> list[str]:
    """List what makes the labels and gene names of `cells` unusable, one message an item.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``. Values are not read; :func:`inspect_values` does that.
    perturbation_key
        The column of ``cells.obs`` that names each cell's perturbation.
    control
        The label of control cells in that column; None where there need be none.
    name
        What the messages call this file.

    Returns
    -------
    list of str
        Empty when nothing is wrong.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    found = []
    if 0 in cells.shape:
        found.append(_empty_message(cells, name))
    if not cells.var_names.is_unique:
        twice = cells.var_names[cells.var_names.duplicated()].unique()
        found.append(
            f"{name}: gene names must be unique; {some_of(twice)} occur more than once; "
            "drop or sum the repeated columns"
        )
    return found + _label_problems(cells, perturbation_key, control, name)


def _empty_message(cells: anndata.AnnData, name: str) -> str:
    return f"{name}: empty, shape {cells.shape}; expected at least one cell and one gene"


def _label_problems(cells: anndata.AnnData, key: str, control: str | None, name: str) -> list[str]:
    if key not in cells.obs:
        return [
            f"{name}: obs has no column {key!r}; it has {some_of(cells.obs.columns)}; "
            "rename the right one, or name it with perturbation_key="
        ]
    found = []
    labels, missing = cells.obs[key], _unlabelled(cells, key)
    if missing.any():
        found.append(
            f"{name}: {missing.sum()} of {len(labels)} cells have no label in obs[{key!r}], the "
            f"first is {labels.index[missing][0]!r}; label or remove them"
        )
    present = pd.Index(labels[~missing].astype(str).unique())
    if control is None:
        return found
    if control not in present:
        found.append(
            f"{name}: no control cells: obs[{key!r}] never equals {control!r}; it has "
            f"{some_of(present.sort_values())}; name the control label with control="
        )
    elif len(present) == 1:
        found.append(f"{name}: only control cells ({control!r}); expected perturbed cells too")
    return found


def _unlabelled(cells: anndata.AnnData, key: str) -> np.ndarray:
    labels = cells.obs[key]
    return labels.isna().to_numpy() | (labels.astype(str).str.strip() == "").to_numpy()


def check_cells(
    cells: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str | None = CONTROL,
    name: str = "cells",
) -> None:
    """Raise a ValueError that lists every message of :func:`problems`; else do nothing.

    Parameters
    ----------
    cells, perturbation_key, control, name
        As for :func:`problems`.

    Raises
    ------
    ValueError
        At least one problem was found; one line each.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    found = problems(cells, perturbation_key=perturbation_key, control=control, name=name)
    if found:
        raise ValueError("\n".join(found))


def check_same(
    pred: anndata.AnnData,
    real: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    besides: str | None = None,
) -> None:
    """Raise unless two files speak of the same genes, in the same order, and perturbations.

    Parameters
    ----------
    pred, real
        Predicted and real cells, shapes ``(n_pred_cells, n_genes)``, ``(n_real_cells, n_genes)``.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.
    besides
        A label that either may lack.

    Raises
    ------
    ValueError
        One line for each kind of difference: genes missing, unknown or in another order;
        perturbations missing or unknown.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    found = _set_problems("genes", pred.var_names, real.var_names)
    if not found and not np.array_equal(pred.var_names, real.var_names):
        first = int(np.flatnonzero(np.asarray(pred.var_names != real.var_names))[0])
        found.append(
            f"pred: genes are in another order than in real: position {first} is "
            f"{pred.var_names[first]!r}, expected {real.var_names[first]!r}; "
            "reorder with pred[:, real.var_names]"
        )
    names = (labels_of(cells, perturbation_key).unique() for cells in (pred, real))
    found += _set_problems("perturbations", *(n[n != besides] for n in names))
    if found:
        raise ValueError("\n".join(found))


def _set_problems(what: str, pred: pd.Index, real: pd.Index) -> list[str]:
    pred, real = pd.Index(pd.unique(pred)), pd.Index(pd.unique(real))
    missing, unknown = real.difference(pred), pred.difference(real)
    found = []
    if len(missing):
        found.append(
            f"pred: {len(missing)} of {len(real)} {what} of real are missing: {some_of(missing)}; "
            "every one must be predicted"
        )
    if len(unknown):
        found.append(
            f"pred: {len(unknown)} {what} are not in real: {some_of(unknown)}; remove them"
        )
    return found


def labels_of(cells: anndata.AnnData, perturbation_key: str = PERTURBATION_KEY) -> pd.Index:
    """Return each cell's perturbation as a string, shape ``(n_cells,)``.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``.
    perturbation_key
        The column of ``cells.obs`` to read.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        Some cell has no label.

    Notes
    -----
    Taught in: notebooks/01_load_the_h1_data.
    """
    if perturbation_key not in cells.obs:
        raise KeyError(
            f"obs has no column {perturbation_key!r}; it has {some_of(cells.obs.columns)}; "
            "rename the right one, or name it with perturbation_key="
        )
    if (missing := _unlabelled(cells, perturbation_key)).any():
        raise ValueError(
            f"{missing.sum()} of {cells.n_obs} cells have no label in obs[{perturbation_key!r}], "
            f"the first is {cells.obs_names[missing][0]!r}; label or remove them"
        )
    return pd.Index(cells.obs[perturbation_key].astype(str))


def row_blocks(
    cells: anndata.AnnData, *, block_rows: int | None = None
) -> Iterator[tuple[int, sparse.csr_matrix | np.ndarray]]:
    """Yield the matrix a few rows at a time: the first row's number and the block.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``; dense, CSR or CSC, in memory, a view, or backed.
    block_rows
        Cells in a block; the last block may hold fewer. By default as many as make 16 million
        values (64 MB of dense float32), 4096 at most.

    Yields
    ------
    start : int
        Row of the block's first cell.
    block : csr_matrix or ndarray
        Shape ``(<= block_rows, n_genes)``, floating (integers become float32), the values as
        stored, repeated entries of a sparse matrix summed. Not a copy where none is needed: do
        not write into it.

    Raises
    ------
    ValueError
        The file is damaged, or an integer is above 2**24, where float32 is no longer exact.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    for start, block in stored_blocks(cells, block_rows=block_rows):
        yield start, _floating(block, range(start, cells.n_obs), cells)


def read_rows(cells: anndata.AnnData, rows: np.ndarray) -> sparse.csr_matrix | np.ndarray:
    """Read only some rows of the matrix, which must fit the memory.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``; dense, CSR or CSC, in memory, a view, or backed.
    rows
        Which, in rising order, shape ``(n,)``.

    Returns
    -------
    csr_matrix or ndarray
        Shape ``(n, n_genes)``, values as :func:`row_blocks` has them.

    Raises
    ------
    ValueError
        As :func:`row_blocks`.

    Notes
    -----
    Taught in: notebooks/02_from_counts_to_effects.
    """
    blocks = [_floating(block, part, cells) for part, block in stored_rows(cells, rows)]
    return sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.vstack(blocks)


def take_cells(cells: anndata.AnnData, rows: np.ndarray) -> anndata.AnnData:
    """Copy some cells into memory: X, ``obs``, ``var`` and ``uns``, but no layers and no ``raw``.

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``; in memory, a view, or backed.
    rows
        Which, in rising order, shape ``(n,)``.

    Returns
    -------
    AnnData
        In memory, ``(n, n_genes)``, X floating.

    Raises
    ------
    ValueError
        As :func:`row_blocks`.

    Notes
    -----
    Taught in: notebooks/03_quality_and_knockdown.
    """
    kept = {"obs": cells.obs.iloc[rows].copy(), "var": cells.var.copy(), "uns": deepcopy(cells.uns)}
    return anndata.AnnData(read_rows(cells, rows), **kept)


def _floating(block, rows: Sequence[int], cells: anndata.AnnData):
    values = block.data if sparse.issparse(block) else block
    integer = not np.issubdtype(block.dtype, np.floating)
    if integer and block.dtype.itemsize > 2 and (large := values > EXACT_IN_FLOAT32).any():
        row, column = _first_place(block, large)
        raise ValueError(
            f"cell {cells.obs_names[rows[row]]!r}, gene {cells.var_names[column]!r}: the integer "
            f"{values[large][0]} is above {EXACT_IN_FLOAT32:,}, where float32 is no longer exact; "
            "store X as float64"
        )
    return _in_float(block)


def inspect_values(
    cells: anndata.AnnData,
    *,
    name: str = "cells",
    progress: bool = False,
    tolerance: float | None = None,
) -> ValueSummary:
    """Read every value once: are these counts or log-normalised values, and are they sound?

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``.
    name
        What the messages call this file.
    progress
        Show a progress bar.
    tolerance
        A value is fractional if it is further from a whole number; 1e-3 by default.

    Returns
    -------
    ValueSummary
        The scale, and the library size of each cell.

    Raises
    ------
    ValueError
        There is no cell or no gene; a value is NaN, infinite or negative; or the file has
        fractional values and one of 15 or more, as when counts and log values are mixed.

    Notes
    -----
    The rule is that of cell-eval 0.6.6: a file is counts when no value has a fractional part
    above 1e-3. It also refuses negative integers and NaN, which that version lets through.

    Of a CSR file whose values are whole, only these are read, not the gene numbers.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    if 0 in cells.shape:
        raise ValueError(_empty_message(cells, name))
    with tqdm(total=cells.n_obs, unit=" cells", desc="inspect", disable=not progress) as bar:
        return _inspect_whole(cells, bar) or _inspect_any(cells, name, bar, tolerance)


def _inspect_whole(cells: anndata.AnnData, bar: tqdm) -> ValueSummary | None:
    """Inspect a CSR file of whole numbers; None for all else, where more must be looked at.

    Repeated entries need no care: sums of whole numbers that are not negative are so too.
    """
    if not is_csr_file(cells):
        return None
    library_size = np.zeros(cells.n_obs)
    for start, values, indptr in value_stretches(cells):
        if not _all_whole(values):
            bar.reset()
            return None
        if len(filled := np.flatnonzero(np.diff(indptr))):
            sums = np.add.reduceat(values, indptr[filled], dtype=np.float64)
            library_size[start + filled] = sums
        bar.update(len(indptr) - 1)
    return ValueSummary("counts", library_size)


def _all_whole(values: np.ndarray, piece: int = 2**16) -> bool:
    """Whether all are whole, finite, not negative and exact in float32; `piece` fits the cache."""
    if values.size and not (values.min() >= 0 and values.max() <= EXACT_IN_FLOAT32):
        return False
    parts = (values[i : i + piece] for i in range(0, len(values), piece))
    exact = not np.issubdtype(values.dtype, np.floating)
    return exact or all((np.floor(part) == part).all() for part in parts)


def _in_float(values):
    native = values.dtype.newbyteorder("=")
    dtype = native if native in (np.float32, np.float64) else np.float32
    return values.astype(dtype, copy=False)


def _inspect_any(
    cells: anndata.AnnData, name: str, bar: tqdm, tolerance: float | None
) -> ValueSummary:
    inspection = Inspection(cells, name=name, tolerance=tolerance)
    for start, block in row_blocks(cells):
        inspection.add(*inspection.look(start, block))
        bar.update(block.shape[0])
    return inspection.summary()


class Inspection:
    """Does :func:`inspect_values` for whoever reads the blocks anyway.

    Parameters
    ----------
    cells
        Whose blocks these are, ``(n_cells, n_genes)``.
    name
        What the messages call this file.
    tolerance
        As for :func:`inspect_values`.
    """

    def __init__(
        self, cells: anndata.AnnData, *, name: str = "cells", tolerance: float | None = None
    ):
        self.cells, self.name = cells, name
        self.tolerance = FRACTION_TOLERANCE if tolerance is None else tolerance
        self.fractional, self.largest = False, 0.0
        self.library_size = np.zeros(cells.n_obs)

    def look(self, start: int, block) -> tuple[float, bool, bool]:
        """Look at one block, in any thread, and note the library sizes of its cells.

        Parameters
        ----------
        start
            Row of its first cell.
        block
            Values as :func:`row_blocks` yields them.

        Returns
        -------
        tuple
            The largest value, whether one is fractional, and whether all are whole.

        Raises
        ------
        ValueError
            A value is NaN, infinite or negative.
        """
        from . import kernels  # compiled code; half a second that imports need not pay

        is_sparse = sparse.issparse(block)
        values = block.data if is_sparse else np.ascontiguousarray(block).ravel()
        indptr = block.indptr if is_sparse else np.arange(block.shape[0] + 1) * block.shape[1]
        sums = self.library_size[start : start + block.shape[0]]
        tolerance = values.dtype.type(self.tolerance)
        low, high, fractional, whole, nan = kernels.look_over(values, indptr, tolerance, sums)
        if nan or low < 0 or high == np.inf:
            self._refuse(start, block)
        return high, fractional, whole

    def add(self, largest: float, fractional: bool, whole: bool) -> None:
        """Take in what :meth:`look` found.

        Parameters
        ----------
        largest, fractional, whole
            As it returned them.
        """
        self.largest, self.fractional = max(self.largest, largest), self.fractional or fractional

    def _refuse(self, start: int, block) -> None:
        values = block.data if sparse.issparse(block) else block
        infinite = ~np.isfinite(values)
        bad, what = (infinite, "NaN or infinite") if infinite.any() else (values < 0, "negative")
        row, column = _first_place(block, bad)
        raise ValueError(
            f"{self.name}: {what} values, the first in cell {self.cells.obs_names[start + row]!r}, "
            f"gene {self.cells.var_names[column]!r}; expected counts, or log1p of scaled counts, "
            "which are finite and never negative"
        )

    def summary(self) -> ValueSummary:
        """Return what was found.

        Raises
        ------
        ValueError
            There are fractional values and one of 15 or more.
        """
        if self.fractional and self.largest >= LOGNORM_LIMIT:
            raise ValueError(
                f"{self.name}: values have fractions, so they cannot be counts, but reach "
                f"{self.largest:.6g}, and log1p values stay below {LOGNORM_LIMIT:g}: counts mixed "
                "with log values, or normalised without the logarithm; give raw counts, or log1p "
                "of scaled counts"
            )
        return ValueSummary("lognorm" if self.fractional else "counts", self.library_size)


def _first_place(block, bad: np.ndarray) -> tuple[int, int]:
    if not sparse.issparse(block):
        return tuple(int(i) for i in np.argwhere(bad)[0])
    entry = int(np.flatnonzero(bad)[0])
    return int(np.searchsorted(block.indptr, entry, side="right")) - 1, int(block.indices[entry])


def some_of(names: Iterable, limit: int = 5) -> str:
    """Quote a few names for a message, and say how many are left out.

    Parameters
    ----------
    names
        Names of genes, cells, columns or perturbations.
    limit
        How many to show.

    Notes
    -----
    Taught in: notebooks/09_first_submission.
    """
    names = list(names)
    shown = ", ".join(repr(str(name)) for name in names[:limit])
    more = len(names) - limit
    return (shown or "nothing") + (f" and {more} more" if more > 0 else "")


def parse_memory(memory: int | float | str) -> int:
    """Return an amount of memory in bytes.

    Parameters
    ----------
    memory
        Bytes, or text such as ``"4GB"``, ``"500 MB"`` or ``"1.5 GiB"``; upper or lower case.

    Raises
    ------
    ValueError
        It is not such a text, or not positive.

    Notes
    -----
    GB is 10**9 bytes, GiB is 2**30.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-z]*)\s*", str(memory).lower())
    unit = _UNITS.get(match[2] if match[2] != "b" else "") if match else None
    if unit is None or float(match[1]) * unit < 1:
        raise ValueError(
            f"memory must be a number of bytes or a text like '4GB' or '500MB', got {memory!r}"
        )
    return int(float(match[1]) * unit)
