"""Cells: open them, check them, and walk over their rows a block at a time.

Everything else in the package takes an :class:`anndata.AnnData` (cells x genes) or the path
of an ``.h5ad`` file. This module is the one place that knows how such a thing can be broken
and how it is stored: dense, CSR or CSC; in memory, a view, or on disk.

Taught in: notebooks/01_load_the_h1_data.
Needs no sibling module.

>>> import anndata, numpy, pandas
>>> obs = pandas.DataFrame({"target_gene": ["non-targeting", "SOX2"]}, index=["c1", "c2"])
>>> cells = anndata.AnnData(numpy.array([[1.0, 0.0], [0.0, 3.0]]), obs=obs)
>>> inspect_values(cells).scale
'counts'
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

PERTURBATION_KEY = "target_gene"
CONTROL = "non-targeting"

#: A value counts as fractional above this (the official rule, cell-eval 0.6.6).
FRACTION_TOLERANCE = 1e-3
#: log1p values of single cells stay below this (the official rule, cell-eval 0.6.6).
LOGNORM_LIMIT = 15.0


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
    """Return `source` as an AnnData; a path is opened on disk, not read into memory.

    Parameters
    ----------
    source
        An AnnData, returned as it is, or the path of an ``.h5ad`` file.

    Returns
    -------
    AnnData
        Shape ``(n_cells, n_genes)``; backed, read only, when `source` is a path.

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
    if cells.X is None:
        raise ValueError("the AnnData has no matrix X; put the expression values there")
    return cells


def _open_file(path: Path) -> anndata.AnnData:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.is_dir() or not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not an HDF5 file, so it cannot be an .h5ad: it may be cut short, still "
            "compressed, or of another format; write it with AnnData.write_h5ad"
        )
    try:
        cells = anndata.read_h5ad(path, backed="r")
        _ = cells.X  # a matrix that is absent or damaged shows here, while the path is known
    except Exception as error:
        raise _unreadable(path, error) from error
    return cells


def _unreadable(path: Path | str, error: Exception) -> ValueError:
    return ValueError(
        f"{path} cannot be read as an .h5ad ({error}); write it again with AnnData.write_h5ad"
    )


def problems(
    cells: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str = CONTROL,
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
        The label of control cells in that column.
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


def _label_problems(cells: anndata.AnnData, key: str, control: str, name: str) -> list[str]:
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
    control: str = CONTROL,
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
) -> None:
    """Raise unless two files speak of the same genes, in the same order, and perturbations.

    Parameters
    ----------
    pred, real
        Predicted and real cells, shapes ``(n_pred_cells, n_genes)``, ``(n_real_cells, n_genes)``.
    perturbation_key
        The column of ``obs`` that names each cell's perturbation.

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
    found += _set_problems(
        "perturbations", labels_of(pred, perturbation_key), labels_of(real, perturbation_key)
    )
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

    Notes
    -----
    CSC is turned into CSR as a whole first, since its rows are scattered over the file.

    Taught in: notebooks/02_from_counts_to_effects.
    """
    try:
        yield from _row_blocks(cells, block_rows)
    except (OSError, KeyError) as error:  # HDF5's words for a damaged part of a file
        raise _unreadable(cells.filename, error) from error


def _row_blocks(cells: anndata.AnnData, block_rows: int | None):
    matrix = _row_sliceable(cells)
    block_rows = block_rows or min(4096, max(1, 2**24 // max(cells.n_vars, 1)))
    for start in range(0, cells.n_obs, block_rows):
        block = matrix[start : start + block_rows]
        block = _one_entry_a_place(block) if sparse.issparse(block) else np.asarray(block)
        yield start, block if np.issubdtype(block.dtype, np.floating) else block.astype(np.float32)


def _one_entry_a_place(block) -> sparse.csr_matrix:
    block = sparse.csr_matrix(block)
    if not block.has_canonical_format:  # a logarithm of parts is not the logarithm of their sum
        block = block.copy()
        block.sum_duplicates()
    return block


def _row_sliceable(cells: anndata.AnnData):
    matrix = cells.X
    if getattr(matrix, "format", None) != "csc":
        return matrix
    return (matrix if sparse.issparse(matrix) else matrix.to_memory()).tocsr()


def inspect_values(cells: anndata.AnnData, *, name: str = "cells") -> ValueSummary:
    """Read every value once: are these counts or log-normalised values, and are they sound?

    Parameters
    ----------
    cells
        Shape ``(n_cells, n_genes)``.
    name
        What the messages call this file.

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

    Taught in: notebooks/02_from_counts_to_effects.
    """
    if 0 in cells.shape:
        raise ValueError(_empty_message(cells, name))
    fractional, largest, library_size = False, 0.0, np.empty(cells.n_obs)
    for start, block in row_blocks(cells):
        values = block.data if sparse.issparse(block) else block
        _check_finite_nonnegative(block, start, cells, name)
        fractional = fractional or bool((values - np.floor(values) > FRACTION_TOLERANCE).any())
        largest = max(largest, float(values.max(initial=0.0)))
        rows = np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()
        library_size[start : start + len(rows)] = rows
    if fractional and largest >= LOGNORM_LIMIT:
        raise ValueError(
            f"{name}: values have fractions, so they cannot be counts, but reach {largest:.6g}, "
            f"and log1p values stay below {LOGNORM_LIMIT:g}: counts mixed with log values, or "
            "normalised without the logarithm; give raw counts, or log1p of scaled counts"
        )
    return ValueSummary("lognorm" if fractional else "counts", library_size)


def _check_finite_nonnegative(block, start: int, cells: anndata.AnnData, name: str) -> None:
    values = block.data if sparse.issparse(block) else block
    for bad, what in ((~np.isfinite(values), "NaN or infinite"), (values < 0, "negative")):
        if bad.any():
            row, column = _first_place(block, bad)
            raise ValueError(
                f"{name}: {what} values, the first in cell {cells.obs_names[start + row]!r}, gene "
                f"{cells.var_names[column]!r}; expected counts, or log1p of scaled counts, which "
                "are finite and never negative"
            )


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
