"""Other people's cells, in our words: ``target_gene``, ``non-targeting``, counts, gene symbols.

:func:`read_screen` reads a screen into memory, from an ``.h5ad`` file or from what 10x Genomics'
Cell Ranger writes. :func:`read_contexts` opens a folder of files, one per cell context, on disk.

Taught in: notebooks/08_bring_your_own_screen.

>>> table = pd.DataFrame({"SOX2": [1, 0], "TET1": [4, 2]}, index=["NT", "SOX2"])
>>> read_screen(table).obs["target_gene"].to_list()
['non-targeting', 'SOX2']
"""

from __future__ import annotations

import csv
import gzip
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from anndata.io import read_elem
from scipy import io, sparse

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..names import CONTROL_NAMES, MISSING
from ..stream.blocks import row_blocks, sound
from ..stream.guard import check_hdf5
from ..stream.look import inspect_values
from ..stream.open import open_cells, plain_labels, text_for_none

#: Columns of obs that the support set and the common screens use for the same thing.
_PERTURBATION_KEYS = (PERTURBATION_KEY, "gene", "perturbation")
_BATCH_KEYS = ("batch", "batch_var", "gem_group", "gemgroup")
#: Files of the challenge's support set, and the context whose cells each holds. One more, the
#: template, has no measured perturbations.
_CONTEXT_NAMES = {
    "competition_train": "H1",
    "hepg2": "HepG2",
    "jurkat": "Jurkat",
    "k562": "K562",
    "k562_gwps": "K562_gwps",
    "rpe1": "RPE1",
    "competition_val_template": None,
}
_GENE_EXPRESSION = "Gene Expression"
_NOT_COUNTS = {
    "log1p": "not log1p of counts: turned back, the first that is no whole number is {place}; "
    "counts that were scaled before the logarithm cannot be had back",
    "counts": "values must be raw counts, whole numbers; the first that is not is {place}; name "
    "the layer with counts (layer=), or say values='log1p' if these are log1p of counts",
}
#: Columns of the table of features, in a Cell Ranger .h5 file and in a features.tsv.
_FEATURES = ("id", "name", "feature_type")
#: How much smaller the text of a matrix may be packed, and its most rows or columns.
_MOST_PACKED, _MOST_NAMES = 1100, 2**27


def read_screen(
    path: str | Path | pd.DataFrame,
    *,
    perturbation_key: str = PERTURBATION_KEY,
    control: str | Iterable[str] | None = None,
    label_map: Mapping[str, str] | Callable[[str], str] | None = None,
    labels: str | Path | pd.DataFrame | None = None,
    unlabelled: str = "error",
    batch_key: str | None = None,
    context_key: str | None = None,
    gene_symbols: str | None = None,
    duplicates: str = "error",
    layer: str | None = None,
    values: str = "counts",
) -> anndata.AnnData:
    """Read a perturbation screen into memory, with the names that this package uses.

    Returned are ``(n_cells, n_genes)``, X: CSR, float32, raw counts, or values as stored. obs:
    ``target_gene``, category, controls being ``non-targeting``; ``batch`` and ``context``,
    categories, if named; then the file's other columns. var: index unique gene symbols; ``gene_id``
    where the file has it. uns as in the file; no embeddings, no other layers.

    Parameters
    ----------
    path
        An ``.h5ad``; a Cell Ranger ``.h5`` (version 3 or later); a folder with ``matrix.mtx``,
        ``features.tsv`` (or ``genes.tsv``) and ``barcodes.tsv``, each perhaps ``.gz`` and with a
        common beginning of its name; or a plain matrix (DataFrame, ``.csv``, ``.tsv``) with a row
        per cell, its label in the index or first column, and a column per gene.
    perturbation_key, control
        Column that names each cell's perturbation, and the label or labels of control cells in it,
        even ``"None"`` or ``"NA"``. By default the one label that is a usual name of controls, such
        as ``"NT"``.
    label_map
        Turns labels into names of target genes, before `control` is looked for: a function, or a
        table of those that change. None as a result leaves the cell unlabelled.
    labels
        Table of the cells, for layouts that have none, a DataFrame, ``.csv`` or ``.tsv``: barcodes
        in the first column (or the index); the others are added to ``obs``, or take the place of
        those of the same name. Other barcodes are passed over. Of a file all is text and kept as
        written, ``0001`` and ``None`` too; only an empty field is missing.
    unlabelled
        What to do with cells without a label (missing, blank, or text such as ``nan``, ``NA`` and
        ``None``; spaces around a label are dropped): ``"error"`` or ``"drop"``.
    batch_key, context_key
        Columns to be called ``batch`` and ``context``; a missing one stays missing.
    gene_symbols
        Column of ``var`` that holds gene symbols, where they are not the index (of an ``.h5ad``) or
        the names (of the 10x layouts).
    duplicates
        What to do with symbols that occur twice: ``"error"``, or ``"rename"``, which adds ``-1``,
        ``-2``, ... to all but the first.
    layer
        Layer of an ``.h5ad`` that holds the values, where ``X`` does not; or a table of ``obsm``
        with a column per gene, where models such as State put their predictions.
    values
        ``"counts"``, or ``"log1p"`` where the file holds log1p of counts, which is turned back.
        Either way values must be whole within 1e-3, and log1p within the file's precision: what was
        scaled before the logarithm cannot be turned back. Or ``"stored"``: predictions, taken as
        they are; :func:`~vcc_helpers.submission.check` says what they are.

    Raises
    ------
    FileNotFoundError, KeyError
        A file, folder or part of it, or a column or layer, is not there; the message lists those
        that are.
    ValueError
        The layout is another; barcodes do not match; a cell has no label; no label, or more than
        one, may be the control's; symbols are repeated; values are not counts.
    """
    for word, value, choices in (
        ("unlabelled", unlabelled, ("error", "drop")),
        ("duplicates", duplicates, ("error", "rename")),
        ("values", values, ("counts", "log1p", "stored")),
    ):
        if value not in choices:
            raise ValueError(
                f"{word} must be one of {', '.join(map(repr, choices))}, got {value!r}"
            )
    raw = _open_any(path, layer, perturbation_key)
    obs = raw.obs if labels is None else _with_labels(raw.obs, labels)
    names = {"batch": batch_key, "context": context_key}
    obs = _our_obs(obs, perturbation_key, names, control, label_map, unlabelled)
    keep = obs[PERTURBATION_KEY].notna().to_numpy()
    var = _our_var(raw.var, gene_symbols, duplicates)
    name = "the table" if isinstance(path, pd.DataFrame) else str(path)
    matrix = _read_rows(raw, keep, values, name)
    if raw.isbacked:
        raw.file.close()
    cells = anndata.AnnData(matrix, obs=obs[keep], var=var, uns=raw.uns)
    if values != "stored":
        inspect_values(cells, name=name)
    return cells


def _open_any(path: str | Path | pd.DataFrame, layer: str | None, key: str) -> anndata.AnnData:
    if isinstance(path, pd.DataFrame):
        return _of_table(path, key)
    path = Path(path)
    if not (path.is_file() or path.is_dir()):  # a pipe may have nobody at its other end
        raise FileNotFoundError(f"no such file or folder: {path}")
    if path.name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return _of_table(_read_labels(path, numbers=True), key)
    if path.is_dir():
        return _read_mtx(path)
    if not h5py.is_hdf5(path):
        raise ValueError(
            f"{path} is not an HDF5 file; expected an .h5ad, a Cell Ranger .h5, or a folder with "
            "matrix.mtx, features.tsv and barcodes.tsv"
        )
    groups = _groups_in(path)
    if "matrix" in groups:
        return _read_10x_h5(path)
    if not {"X", "obs", "var"} <= groups:
        raise ValueError(
            f"{path} is neither an .h5ad (X, obs, var) nor a Cell Ranger 3 .h5 (matrix): it holds "
            f"{some_of(sorted(groups))}"
        )
    cells = open_cells(path)
    return cells if layer is None else _with_layer(cells, layer)


def _groups_in(path: Path) -> set[str]:
    try:
        with h5py.File(path) as file:
            return set(file)
    except OSError as error:  # the beginning is that of an HDF5 file, the rest is not
        raise ValueError(
            f"{path} cannot be opened ({error}); it may be cut short: copy or fetch it again"
        ) from error


def _with_layer(cells: anndata.AnnData, layer: str) -> anndata.AnnData:
    with h5py.File(cells.filename) as file:
        check_hdf5(file, without=("raw",))
        layers = file.get("layers", {})
        if layer not in {*layers, *cells.obsm}:
            raise KeyError(
                f"there is no layer {layer!r}, nor a table of obsm; the file has "
                f"{some_of([*cells.obsm, *layers])}"
            )
        matrix = read_elem(layers[layer]) if layer in layers else cells.obsm[layer]
    if matrix.shape[1] != cells.n_vars:
        raise ValueError(
            f"{layer!r} has {matrix.shape[1]} columns, and there are {cells.n_vars} genes; "
            "expected a column per gene, not an embedding or a choice of genes"
        )
    chosen = anndata.AnnData(matrix, obs=cells.obs, var=cells.var, uns=cells.uns)
    cells.file.close()
    return chosen


def _of_table(table: pd.DataFrame, key: str) -> anndata.AnnData:
    """Make cells of a plain matrix whose index holds labels."""
    numbers = table.apply(pd.to_numeric, errors="coerce")
    if (lost := (numbers.isna() & table.notna()).to_numpy()).any():
        row, column = np.argwhere(lost)[0]
        raise ValueError(
            f"the table has values that are no numbers, such as {table.iat[row, column]!r} in "
            f"column {table.columns[column]!r}; expected labels in the first column, and a column "
            "per gene"
        )
    names = [f"row {i}" for i in range(len(table))]
    obs = pd.DataFrame({key: table.index.astype(str)}, index=names)
    var = pd.DataFrame(index=table.columns.astype(str))
    return anndata.AnnData(numbers.to_numpy(np.float32), obs=obs, var=var)


def _read_10x_h5(path: Path) -> anndata.AnnData:
    parts = ("data", "indices", "indptr", "shape", "barcodes")
    with h5py.File(path) as file:
        check_hdf5(file)
        group = file["matrix"]
        needed = (*parts, *(f"features/{column}" for column in _FEATURES))
        if missing := [part for part in needed if part not in group]:
            raise ValueError(
                f"{path}: the group 'matrix' lacks {some_of(missing)}; expected the layout of "
                "Cell Ranger 3 or later"
            )
        # Cell Ranger stores genes x cells by columns: the same numbers are cells x genes by rows
        arrays = tuple(group[part][:] for part in parts[:3])
        matrix = sound(sparse.csr_matrix(arrays, shape=group["shape"][:][::-1]))
        features = pd.DataFrame({c: group["features"][c].asstr()[:] for c in _FEATURES})
        return _from_10x(matrix, group["barcodes"].asstr()[:], features)


def _read_mtx(folder: Path) -> anndata.AnnData:
    path = _one_file(folder, "matrix.mtx")
    size = path.stat().st_size * (_MOST_PACKED if path.suffix == ".gz" else 1)
    try:
        rows, columns, n_values = io.mminfo(path)[:3]
        if n_values > size or max(rows, columns) > _MOST_NAMES:
            raise ValueError(f"{rows:,} x {columns:,} and {n_values:,} values in so small a file")
        matrix = sparse.csr_matrix(io.mmread(path, spmatrix=False).T)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} cannot be read as a Matrix Market file ({error}); it may be cut short: copy "
            "or fetch it again"
        ) from error
    words = {"sep": "\t", "header": None, "dtype": str, "keep_default_na": False, "na_values": [""]}
    features = pd.read_csv(_one_file(folder, "features.tsv", "genes.tsv"), **words)
    barcodes = pd.read_csv(_one_file(folder, "barcodes.tsv"), **words)[0]
    if matrix.shape != (len(barcodes), len(features)):
        raise ValueError(
            f"{folder}: the matrix has {matrix.shape[1]} genes and {matrix.shape[0]} cells, but "
            f"{len(features)} genes and {len(barcodes)} barcodes are named; the files do not "
            "belong together"
        )
    features = features.reindex(columns=range(3)).astype(object).set_axis(_FEATURES, axis=1)
    features["name"] = features["name"].fillna(features["id"])
    return _from_10x(matrix, barcodes, features.fillna({"feature_type": _GENE_EXPRESSION}))


def _one_file(folder: Path, *names: str) -> Path:
    endings = tuple(name + end for name in names for end in ("", ".gz"))
    there = sorted(path.name for path in folder.iterdir())
    found = [name for name in there if name.endswith(endings) and (folder / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"{folder} has no {' or '.join(names)}[.gz]; it has {some_of(there)}"
        )
    if len(found) > 1:
        raise ValueError(
            f"{folder} has more than one {names[0]}: {some_of(found)}; "
            "put each sample in a folder of its own"
        )
    return folder / found[0]


def _from_10x(matrix, barcodes, features: pd.DataFrame) -> anndata.AnnData:
    """Keep the genes: guides and antibodies are features of a 10x matrix, too."""
    genes = features[features["feature_type"] == _GENE_EXPRESSION]
    if genes.empty:
        kinds = some_of(features["feature_type"].unique())
        raise ValueError(f"the matrix has no {_GENE_EXPRESSION!r} features, only {kinds}")
    var = pd.DataFrame({"gene_id": genes["id"].to_numpy(object)}, index=genes.index.astype(str))
    obs = pd.DataFrame(index=pd.Index(np.asarray(barcodes, dtype=object)))
    cells = anndata.AnnData(matrix[:, genes.index.to_numpy()], obs=obs, var=var)
    # named last: anndata warns of repeated names when it is made, and we say more about them later
    cells.var_names = genes["name"].to_numpy(object)
    return cells


def _with_labels(obs: pd.DataFrame, labels: str | Path | pd.DataFrame) -> pd.DataFrame:
    table = labels if isinstance(labels, pd.DataFrame) else _read_labels(Path(labels))
    table = table.set_axis(table.index.astype(str))
    if (twice := table.index.duplicated()).any():
        raise ValueError(
            f"the table of labels has more than one row for {some_of(table.index[twice].unique())};"
            " expected one row per cell: leave out cells with several guides, or join their labels"
        )
    if not table.index.isin(obs.index).any():
        raise ValueError(
            f"no barcode of the table of labels is in the matrix: the table has "
            f"{some_of(table.index, 2)}, the matrix {some_of(obs.index, 2)}; make them alike (an "
            "ending such as '-1' is often missing in one)"
        )
    return obs.drop(columns=table.columns, errors="ignore").join(table)


def _read_labels(path: Path, *, numbers: bool = False) -> pd.DataFrame:
    """Read a table with names in its first column; the others are text, or `numbers`."""
    if not path.exists():
        raise FileNotFoundError(f"no such table of labels: {path}")
    tabs = path.name.removesuffix(".gz").endswith((".tsv", ".txt"))
    words = {"sep": "\t" if tabs else ",", "encoding": "utf-8-sig"}
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        rows = filter(None, csv.reader(file, delimiter=words["sep"]))
        header, first = next(rows, []), next(rows, [])
    if not header:
        raise ValueError(f"the table of labels is empty: {path}")
    if len(first) == len(header) + 1:  # R writes no name for the first column
        header = ["", *header]
    index, *names = header
    if not names:
        raise ValueError(
            f"the table of labels has one column only, {index!r}: {path}; expected "
            f"barcodes and labels, separated by {'tabs' if tabs else 'commas'}"
        )
    if numbers:
        words |= {"dtype": {0: str}, "na_values": dict.fromkeys(range(1, len(header)), MISSING)}
    elif twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{path} has more than one column {some_of(twice)}; leave one of them")
    else:
        words |= {"dtype": str, "na_values": [""]}
    # pandas would rename columns of one name, and take texts such as None for missing values
    words |= {"header": 0, "names": range(len(header)), "index_col": 0, "keep_default_na": False}
    return pd.read_csv(path, **words).set_axis(names, axis=1).rename_axis(index or None)


def _our_obs(
    obs: pd.DataFrame,
    key: str,
    names: Mapping[str, str | None],
    control: str | Iterable[str] | None = None,
    label_map: Mapping | Callable | None = None,
    unlabelled: str = "error",
) -> pd.DataFrame:
    """Put our columns before the file's own; a cell that is to be dropped has no target gene."""
    target = _targets(_column(obs, key), control, label_map)
    if unlabelled == "error" and (missing := target.isna()).any():
        raise ValueError(
            f"{missing.sum()} of {len(obs)} cells have no label in {key!r}, the first is "
            f"{obs.index[missing][0]!r}{text_for_none(obs[key][missing])}; label them, or leave "
            "them out with unlabelled='drop'"
        )
    ours = {PERTURBATION_KEY: target}
    for name, column in names.items():
        if column is not None:
            text = plain_labels(_column(obs, column))
            ours[name] = pd.Series(text.where(text != ""), obs.index).astype("category")
    rest = obs.drop(columns=list(ours), errors="ignore")
    return pd.concat([pd.DataFrame(ours, index=obs.index), rest], axis=1)


def _column(obs: pd.DataFrame, key: str) -> pd.Series:
    if key not in obs:
        raise KeyError(
            f"the cells have no column {key!r}; they have {some_of(obs.columns, 20)}; name "
            "the right one with perturbation_key=, batch_key= or context_key=, or bring a table "
            "of the cells with labels="
        )
    return obs[key]


def _targets(column: pd.Series, control, label_map: Mapping | Callable | None) -> pd.Series:
    """Return the target gene of each cell as a category; missing where there is no label."""
    labels = column.astype(object)
    wanted = {control} if isinstance(control, str) else set(control or ())
    mapped = label_map if callable(label_map) else lambda x: (label_map or {}).get(x, x)
    names = {label: mapped(str(label).strip()) for label in labels.dropna().unique()}
    none = MISSING - wanted | {""}
    names = {x: name for x, name in names.items() if isinstance(name, str) and name not in none}
    there = set(names.values())
    controls, said = wanted & there, some_of(sorted(wanted))
    if control is None:
        controls = {name for name in there if name.lower() in CONTROL_NAMES}
        said = "a usual name of controls"
    if not controls:
        raise ValueError(
            f"no label is {said}: there are {some_of(sorted(there), 20)}; name the control's "
            "with control="
        )
    if control is None and len(controls) > 1:
        raise ValueError(
            f"{some_of(sorted(controls))} may all be control labels; they can mean different "
            "things (guides without a target, or no guide): choose with control="
        )
    names = {label: CONTROL if name in controls else name for label, name in names.items()}
    return labels.map(names.get).astype("category")


def _our_var(var: pd.DataFrame, gene_symbols: str | None, duplicates: str) -> pd.DataFrame:
    var = var.copy()
    if gene_symbols is not None:
        if gene_symbols not in var:
            raise KeyError(
                f"there is no column {gene_symbols!r} of the genes; there are "
                f"{some_of(var.columns, 20)}; name the right one with gene_symbols="
            )
        symbols = var[gene_symbols].astype(object)
        symbols = symbols.where(symbols.notna() & (symbols != ""), var.index.to_series())
        if "gene_id" not in var:
            var["gene_id"] = var.index.to_numpy(dtype=object)
        var.index = pd.Index(symbols.astype(str).to_numpy(dtype=object))
    if not var.index.is_unique and duplicates == "error":
        twice = var.index[var.index.duplicated()].unique()
        raise ValueError(
            f"{len(twice)} gene symbols occur more than once: {some_of(twice)}; name a better "
            "column with gene_symbols=, or accept new names with duplicates='rename'"
        )
    var.index = anndata.utils.make_index_unique(var.index)
    return var


def _read_rows(
    cells: anndata.AnnData, keep: np.ndarray, values: str, name: str
) -> sparse.csr_matrix:
    """Read the cells to keep a few rows at a time: a dense file never is in memory as such."""
    blocks = []
    for start, block in row_blocks(cells):
        block = sparse.csr_matrix(block)
        if values != "stored":
            counts, allowed = block.data.astype(np.float64), 1e-3
            if values == "log1p":
                counts = np.expm1(counts)
                # a logarithm that is off by its last digit gives a count off by this much
                allowed += 2 * np.abs(np.spacing(block.data)) * (1 + counts)
            whole = np.rint(counts)
            if len(wrong := np.flatnonzero(~(np.abs(counts - whole) <= allowed))):
                row = np.searchsorted(block.indptr, wrong[0], side="right") - 1
                gene = cells.var_names[block.indices[wrong[0]]]
                place = f"in cell {cells.obs_names[start + row]!r}, gene {gene!r}"
                text = _NOT_COUNTS[values].format(place=f"{counts[wrong[0]]:.6g} {place}")
                raise ValueError(f"{name}: {text}")
            entries = (whole.astype(np.float32), block.indices, block.indptr)
            block = sparse.csr_matrix(entries, shape=block.shape)
            block.eliminate_zeros()
        blocks.append(block[keep[start : start + block.shape[0]]])
    return sparse.vstack(blocks, format="csr")


# Contexts


def read_contexts(
    folder: str | Path, *, perturbation_key: str | None = None
) -> dict[str, anndata.AnnData]:
    """Open a folder that holds the cells of several contexts, one file each, on disk.

    Every ``.h5ad`` or ``.h5`` file is a context, called after its file; those of the support set of
    the challenge are ``H1``, ``HepG2``, ``Jurkat``, ``K562``, ``K562_gwps``, ``RPE1``.
    `perturbation_key` is by default the first of ``target_gene``, ``gene`` and ``perturbation``
    that is there. Returned is an AnnData a context, sorted by name, H1 first: what
    ``World.contexts`` holds. Each is open on disk, ``(n_cells, n_genes)``, values as stored; obs
    ``target_gene``, controls being ``non-targeting``, ``batch`` if the file has one, and the file's
    own columns.

    A FileNotFoundError says that there is no such folder, or no such file in it; a KeyError, that a
    file has no column of perturbations; a ValueError, that a file is not an AnnData, that two files
    are the same context, or that a label is missing.

    The support set is 8.7 GB as a zip archive (``fetch_h1("support_set")``), about 49 GB unpacked.
    The matrices of the other lines are log1p of normalised values, not counts; ``k562_gwps`` is a
    part of the genome-wide screen; ``competition_train.h5`` the H1 training set once more, as log1p
    of its counts; the template, which holds no measured perturbations, is left out. Source: Adduri
    et al., bioRxiv 2025.06.26.661135; layout as read by the GitHub project
    wukonglin/virtual-cell-challenge-2026.
    """
    folder, contexts = Path(folder).expanduser(), {}
    if not folder.is_dir():
        raise FileNotFoundError(f"no such folder: {folder}")
    paths = sorted(folder.iterdir())
    for path in paths:
        name = _CONTEXT_NAMES.get(path.stem, path.stem)
        if path.suffix not in (".h5ad", ".h5") or name is None:
            continue
        if name in contexts:
            raise ValueError(f"two files in {folder} are the context {name!r}; leave one of them")
        if h5py.is_hdf5(path) and "matrix" in _groups_in(path):
            raise ValueError(
                f"{path} is a Cell Ranger file, not an AnnData; read it with "
                "read_screen(..., labels=) and write it here with AnnData.write_h5ad"
            )
        contexts[name] = cells = open_cells(path)
        keys = (k for k in _PERTURBATION_KEYS if k in cells.obs)
        key = perturbation_key or next(keys, PERTURBATION_KEY)
        batch = next((k for k in _BATCH_KEYS if k in cells.obs), None)
        try:
            cells.obs = _our_obs(cells.obs, key, {"batch": batch})
        except (KeyError, ValueError) as error:
            raise type(error)(f"{path.name}: {error.args[0]}") from error
    if not contexts:
        there = some_of(path.name for path in paths)
        raise FileNotFoundError(f"{folder} has no .h5ad or .h5 file; it has {there}")
    return dict(sorted(contexts.items(), key=lambda item: (item[0] != "H1", item[0])))
