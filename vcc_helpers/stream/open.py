"""The one door to cells: a file or an AnnData is opened, and its form and labels are checked.

Taught in: notebooks/09_work_with_large_files,
notebooks/18_from_means_to_cells and notebooks/06_check_and_pack.

>>> import numpy
>>> obs = pd.DataFrame({"target_gene": ["non-targeting", "SOX2"]}, index=["c1", "c2"])
>>> problems(anndata.AnnData(numpy.ones((2, 3)), obs=obs))
[]
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..names import MISSING
from ._unpack import unpack
from .blocks import rises, sound, stored_matrix, unreadable
from .guard import check_hdf5, check_zarr

#: What is read of a file when it is opened, and what is never read.
_SLICED, _NOT_READ = ("obsm", "varm", "obsp", "varp"), ("layers", "raw")
_ANNOTATIONS = ("obs", "var", "uns", *_SLICED)
#: How a file begins that Git LFS left in the place of another.
_LFS = b"version https://git-lfs"
#: Most bytes of the cells of a ``.vcc``.
_MOST_UNPACKED = 32 * 10**9
#: Stored values of a row, or of a column of CSC, are at most so many times its places.
_MOST_REPEATED = 4
_UNITS = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def open_cells(source: anndata.AnnData | str | Path) -> anndata.AnnData:
    """Return `source` as an AnnData; a path is opened, its matrix not read into memory.

    An AnnData is returned as it is. Of a file X is a handle of what lies there; layers and ``raw``
    are not read. A TypeError says that `source` is neither an AnnData nor a path, a ValueError that
    the file is not readable, or holds no matrix ``X``.
    """
    if not isinstance(source, anndata.AnnData | str | Path):
        raise TypeError(
            f"expected an AnnData or the path of an .h5ad file, got {type(source).__name__}"
        )
    cells = source if isinstance(source, anndata.AnnData) else _open_file(Path(source))
    if stored_matrix(cells) is None:
        raise ValueError("the AnnData has no matrix X; put the expression values there")
    try:
        found = _form_problem(cells)
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(source, error) from error
    if found:
        name = f"{source}: " if cells is not source else ""
        raise ValueError(f"{name}{found}; write the file, or make the matrix, again")
    return cells


def _open_file(path: Path) -> anndata.AnnData:
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    store = path.is_dir() and any((path / name).exists() for name in (".zgroup", "zarr.json"))
    if path.suffix == ".vcc" and path.is_file() and not h5py.is_hdf5(path):
        return _open_packed(path)
    if not store and (problem := no_hdf5(path)):
        raise ValueError(f"{path} is not an HDF5 file, so it cannot be an .h5ad: {problem}")
    try:
        return _read_zarr(path) if store else _read_annotations(path)
    except Exception as error:
        raise unreadable(path, error) from error


def no_hdf5(path: Path) -> str:
    """Say what a path is if it is no HDF5 file, and what to do; else nothing."""
    if not (path.is_dir() or path.is_file()):  # a pipe may have nobody at its other end
        return "it is no plain file but a pipe, a socket or a device"
    if path.is_dir():
        return "it is a folder, and no Zarr store, which has a file zarr.json or .zgroup"
    if h5py.is_hdf5(path):
        return ""
    with open(path, "rb") as file:
        if file.read(len(_LFS)) == _LFS:
            return "it is a Git LFS pointer, which only names the file; get that with: git lfs pull"
    return (
        "it may be cut short, still compressed, or of another format; write it with "
        "AnnData.write_h5ad"
    )


def _read_annotations(path: Path) -> anndata.AnnData:
    with h5py.File(path) as file:
        check_hdf5(file, without=_NOT_READ)
        if "mod" in file and "X" not in file:
            raise ValueError(
                f"it is MuData, of the modalities {some_of(file['mod'])}; take one of them, "
                f"mudata.read({path.name!r})[...]"
            )
        if missing := [name for name in ("X", "obs", "var") if name not in file]:
            raise ValueError(f"it has no {some_of(missing)}")
        if old := isinstance(file.get("obs"), h5py.Dataset):  # AnnData before 0.7
            check_hdf5(file)
        parts = {} if old else {n: read_elem(file[n]) for n in _ANNOTATIONS if n in file}
        for group in _SLICED:  # SciPy follows any place
            for name, values in parts.get(group, {}).items():
                if sparse.issparse(values):
                    sound(values, f"{group}[{name!r}]")
    if old:
        cells = anndata.read_h5ad(path, backed="r")
    else:
        cells = anndata.AnnData(**parts, raw={}, filename=path, filemode="r")
        del cells.raw  # of which nothing was read
    _ = cells.X  # a matrix that is absent or damaged shows here, while the path is known
    return cells


def left_on_disk(cells: anndata.AnnData) -> list[str]:
    """Name the layers, and ``raw``, that cells have in memory or in their file."""
    layers = [name for name in cells.layers if name is not None]  # anndata 0.13 counts X as one
    raw = cells.raw is not None
    if cells.isbacked:
        with h5py.File(cells.filename) as file:
            own = [n for n in _NOT_READ if isinstance(file.get(n, getlink=True), h5py.HardLink)]
            groups = {n: file[n] for n in own if isinstance(file[n], h5py.Group)}
            layers += [name for name in groups.get("layers", ()) if name not in layers]
            raw |= "raw" in groups  # a null there says that there is none
    return [f"layers[{name!r}]" for name in layers] + ["raw"] * raw


def _open_packed(path: Path) -> anndata.AnnData:
    """Open the cells of a ``.vcc``, unpacked to a folder that is there as long as they are."""
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="vcc_"))
        cells = _open_file(unpack(path, Path(folder) / "cells.h5ad", limit=_MOST_UNPACKED))
        weakref.finalize(cells, stack.pop_all().close)
    return cells


def _read_zarr(path: Path) -> anndata.AnnData:
    import zarr  # comes with anndata; most never open one

    check_zarr(path)
    group = zarr.open(path, mode="r")
    matrix = group["X"] if isinstance(group["X"], zarr.Array) else sparse_dataset(group["X"])
    values = group["X/data"] if hasattr(matrix, "group") else None
    if values is not None and values.nchunks_initialized < values.nchunks:
        raise ValueError("parts of X/data are not there, as when a copy was not finished")
    return anndata.AnnData(X=matrix, obs=read_elem(group["obs"]), var=read_elem(group["var"]))


def problems(
    cells: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str | None = CONTROL,
    name: str = "cells",
) -> list[str]:
    """List what makes the labels and gene names of `cells` unusable, one message an item.

    Values are not read; :func:`~.stream.inspect_values` does that. `control` is None where there
    need be none.
    """
    found = [empty_problem(cells, name)] if 0 in cells.shape else []
    if not cells.var_names.is_unique:
        twice = cells.var_names[cells.var_names.duplicated()].unique()
        found.append(
            f"{name}: gene names must be unique; {some_of(twice)} occur more than once; "
            "drop or sum the repeated columns"
        )
    try:
        labels, wrong = _read_labels(cells, perturbation_key)
    except KeyError as error:
        return [*found, f"{name}: {error.args[0]}"]
    found += [f"{name}: {text}" for text in wrong]
    present = labels.unique().drop("", errors="ignore")
    if control is not None and control not in present:
        found.append(
            f"{name}: no control cells: obs[{perturbation_key!r}] never equals {control!r}; it has "
            f"{some_of(present.sort_values())}; name the control label with control="
        )
    elif control is not None and len(present) == 1:
        found.append(f"{name}: only control cells ({control!r}); expected perturbed cells too")
    return found


def empty_problem(cells: anndata.AnnData, name: str) -> str:
    """Say that there is no cell, or no gene."""
    return f"{name}: empty, shape {cells.shape}; expected at least one cell and one gene"


def plain_labels(column: pd.Series, known: Iterable[str] = ()) -> pd.Index:
    """Return labels as text, ``(n_cells,)``, without spaces around; empty where there is none.

    The one rule for all. A cell has no label if its value is missing, blank, or text that others
    write for a missing value (:data:`~.names.MISSING`), such as ``NA``, unless a target that is
    `known` has that name. :func:`~.submission.mend` and :func:`~.datasets.read_screen` go on with
    the labels without spaces; all else that reads labels refuses both.
    """
    codes, found = pd.factorize(column)
    text = pd.Index(found).astype(str).str.strip()
    text = text.where(~text.isin(MISSING.difference(known)), "")
    return text.append(pd.Index([""], dtype=text.dtype)).take(codes).rename(column.name)


def _read_labels(cells: anndata.AnnData, key: str) -> tuple[pd.Index, list[str]]:
    """Return each cell's plain label, and what is wrong with them; a KeyError without a column."""
    if key not in cells.obs:
        index = " (its index has that name)" if cells.obs.index.name == key else ""
        raise KeyError(
            f"obs has no column {key!r}{index}; it has {some_of(cells.obs.columns)}; rename the "
            "right one, or name it with perturbation_key="
        )
    column, found = cells.obs[key], []
    labels = plain_labels(column)
    if (none := np.asarray(labels == "")).any():
        found.append(
            f"{none.sum()} of {cells.n_obs} cells have no label in obs[{key!r}], the first is "
            f"{cells.obs_names[none][0]!r}{text_for_none(column[none])}; label or remove them"
        )
    if spaced := spaced_labels(column):
        found.append(
            f"{len(spaced)} labels of obs[{key!r}] have spaces around them: {some_of(spaced)}; "
            f"remove these: obs[{key!r}].astype(str).str.strip(), or vcc-helpers check --fix"
        )
    return labels, found


def spaced_labels(column: pd.Series) -> list[str]:
    """List the labels that have spaces around them."""
    labels = [x for x in column.dropna().unique() if isinstance(x, str)]
    return [x for x in labels if x != x.strip() and x.strip() not in MISSING]


def text_for_none(column: pd.Series) -> str:
    """Say what cells without a label have in place of one, if that is text."""
    text = column.dropna().astype(str).str.strip().unique()
    text = [x for x in text if x]
    return f" (the text {some_of(text)} is taken for a missing label)" if text else ""


def check_cells(
    cells: anndata.AnnData,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str | None = CONTROL,
    name: str = "cells",
) -> None:
    """Raise a ValueError that lists every message of :func:`problems`."""
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
    """Raise a ValueError unless two files have the same genes, in one order, and perturbations.

    `besides` is a label that either may lack.
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
    pred, real, found = pred.unique(), real.unique(), []
    missing, unknown = real.difference(pred), pred.difference(real)
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

    A KeyError says that ``cells.obs`` has no column `perturbation_key`, a ValueError that some cell
    has no label, or one with spaces around it; :func:`plain_labels` says what a label is.
    """
    labels, found = _read_labels(cells, perturbation_key)
    if found:
        raise ValueError("\n".join(found))
    return labels


def parse_memory(memory: int | float | str) -> int:
    """Return bytes of a number, or of text such as ``"4GB"`` (10**9), ``"1.5 GiB"`` (2**30)."""
    match = re.fullmatch(r"\s*(\d+\.?\d*)\s*([a-z]*)\s*", str(memory).lower())
    unit = _UNITS.get(match[2] if match[2] != "b" else "") if match else None
    if unit is None or not 1 <= (size := float(match[1]) * unit) < 2**63:
        raise ValueError(
            f"memory must be a number of bytes or a text like '4GB' or '500MB', got "
            f"{str(memory)[:40]!r}"
        )
    return int(size)


def _form_problem(cells: anndata.AnnData) -> str | None:
    """Tell what is wrong with tables, type and shape, and with the arrays of a sparse file.

    Compiled code does not look at these again.
    """
    for name, table in (("obs", cells.obs), ("var", cells.var)):
        if not table.columns.is_unique:
            twice = some_of(table.columns[table.columns.duplicated()].unique())
            return f"{name} has more than one column {twice}; keep one"
    matrix = stored_matrix(cells)
    if matrix.dtype.kind not in "biuf" or matrix.dtype.itemsize > 8:
        return (
            f"X holds values of type {matrix.dtype}, which are no real numbers of at most 8 bytes; "
            "expected float32; convert with X.astype('float32'), and look why they were not"
        )
    if cells.is_view:
        return None
    if tuple(matrix.shape) != cells.shape:
        return f"X has shape {tuple(matrix.shape)}, its labels and names are for {cells.shape}"
    if sparse.issparse(matrix):
        return None if rises(matrix) else "the row pointer of X does not rise to its last value"
    return _pointer_problem(matrix) if hasattr(matrix, "group") else None


def _pointer_problem(matrix) -> str | None:
    data, indices, indptr = (matrix.group[name] for name in ("data", "indices", "indptr"))
    n = matrix.shape[matrix.format == "csc"]
    if indptr.shape != (n + 1,):
        return f"the row pointer of X has shape {indptr.shape}; expected ({n + 1},)"
    if data.shape != indices.shape or len(data.shape) != 1:
        return f"X has values of shape {data.shape}, and their places {indices.shape}"
    if any(part.dtype.kind not in "iu" for part in (indices, indptr)):
        return f"X has places of type {indices.dtype} and a pointer of type {indptr.dtype}"
    pointer = indptr[:].astype(np.int64)
    if pointer[0] or pointer[-1] != data.shape[0] or (np.diff(pointer) < 0).any():
        return f"the row pointer of X does not rise from 0 to the {data.shape[0]} values"
    most, places = np.diff(pointer).max(initial=0), matrix.shape[matrix.format == "csr"]
    if most > max(_MOST_REPEATED * places, 1000):
        return f"X stores {most:,} values in a row, or column, of {places:,}"
    return None
