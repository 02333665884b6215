"""Bad predictions, each a file that somebody could really write, and what has to be said of it.

Shared by the tests of the preflight check and by benchmarks/bad_input.py, which puts the same files
before the official tools.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata.io import write_elem
from conftest import CONTROL, KEY, make_cells
from scipy import sparse

from vcc_helpers import lognorm

GENES = [f"G{i}" for i in range(24)]
TARGETS = ["G0", "G1", "G2", "no gene"]


@dataclass(frozen=True)
class Bad:
    """A bad input: one row of the table below."""

    #: In a few words, for the table in the book.
    what: str
    #: All must be said; alternatives are separated by a bar.
    words: tuple[str, ...]
    #: Changes good cells: counts, dense, 131 x 24.
    spoil: Callable | None = None
    #: Or: writes something to a path, given that of the good cells.
    file: Callable | None = None
    #: Whether it cannot be handed in; else a remark is expected.
    refused: bool = True
    #: Whether the file can be mended without changing a prediction.
    mended: bool = False
    #: The official genes, as names or as the text of a list.
    genes: list | str = field(default_factory=lambda: GENES)
    #: The text of a table of targets, "good" for the right one, or none.
    counts: str | None = None
    preset: str = "vcc2025"


def good_cells(*, scale="counts"):
    """Return a prediction that nothing is wrong with; every gene is expressed."""
    cells = make_cells(1)
    cells.X[:, -1] = 1 + np.arange(cells.n_obs) % 3
    if scale == "lognorm":
        cells.X = lognorm(cells, target_sum=100)
    return cells


def good_counts():
    n_cells = good_cells().obs[KEY].value_counts().drop(CONTROL)
    return n_cells.rename_axis("target_gene").rename("n_cells").to_csv()


def step(change):
    """Let a function that changes cells take its other arguments first, and the cells later."""

    def with_options(*args, **kw):
        def spoil(cells):
            made = change(cells, *args, **kw)
            return cells if made is None else made

        return spoil

    return with_options


@step
def then(cells, *steps):
    for spoil in steps:
        cells = spoil(cells)
    return cells


@step
def named(cells, change):
    """Change the names of the genes."""
    cells.var_names = change(list(cells.var_names))


def renamed(**names):
    return named(lambda old: [names.get(name, name) for name in old])


@step
def labelled(cells, change):
    cells.obs[KEY] = change(cells.obs[KEY].astype(object))


def some_labels(old, new, n=None):
    def change(labels):
        labels.iloc[np.flatnonzero(labels == old)[:n]] = new
        return labels

    return labelled(change)


def all_targets(change):
    return labelled(lambda labels: labels.map(lambda x: x if x == CONTROL else change(x)))


@step
def column(cells, name):
    cells.obs = cells.obs.rename(columns={KEY: name})


def of(cells, label):
    return np.flatnonzero(cells.obs[KEY] == label)


@step
def without(cells, label):
    return cells[cells.obs[KEY] != label].copy()


@step
def values(cells, change, *, scale="counts"):
    """Change the matrix, dense float32."""
    cells.X = change(lognorm(cells, target_sum=100) if scale == "lognorm" else cells.X)


def put(value, dtype=None):
    def change(matrix):
        matrix = matrix.astype(dtype or matrix.dtype)
        matrix[2, 4] = value
        return matrix

    return values(change)


@step
def lognorm_but(cells, label, total=None):
    """Log-normalise all cells but those of one label; these to another total, or not at all."""
    some = cells[of(cells, label)].copy()
    rest = lognorm(cells, target_sum=100)
    rest[of(cells, label)] = some.X if total is None else lognorm(some, target_sum=total)
    cells.X = rest


@step
def mean_of(cells, label, labels):
    """Give the cells of some labels the mean log values of one, nearly."""
    cells.X = lognorm(cells, target_sum=100)
    rows = np.flatnonzero(cells.obs[KEY].isin(labels))
    noise = np.random.default_rng(0).normal(0, 1e-9, (len(rows), 1))
    cells.X[rows] = cells.X[of(cells, label)].mean(axis=0) + noise.astype(np.float32)


@step
def of_target(cells, change):
    """Change the values of the cells of G1, given those of the controls."""
    rows = of(cells, "G1")
    cells.X[rows] = change(cells.X[rows], cells.X[of(cells, CONTROL)])


@step
def noise(cells, most=np.inf):
    """Make of counts what float arithmetic leaves of them."""
    counts = np.minimum(cells.X, most)
    wobble = np.random.default_rng(0).uniform(-0.004, 0.004, cells.shape)
    cells.X = (counts * (1 + (counts > 0) * wobble / np.maximum(counts, 1))).astype(np.float32)


def z_scores(matrix):
    return ((matrix - matrix.mean(axis=0)) / np.maximum(matrix.std(axis=0), 1e-6)).astype("float32")


@step
def symbols_in_var(cells, name="symbol", **changed):
    """Put symbols in a column, some of them changed."""
    symbols = [changed.get(name, name) for name in cells.var_names]
    cells.var_names = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    cells.var[name] = symbols


def labels_in_index(cells):
    cells.obs = pd.DataFrame({"batch": "b1"}, index=cells.obs[KEY].rename(KEY).astype(object))
    return cells


def one_more_gene(cells):
    more = anndata.AnnData(cells.X[:, :1], cells.obs, pd.DataFrame(index=["NEW"]))
    return anndata.concat([cells, more], axis=1, merge="same")


def scaled(change, total=100):
    """Scale each cell to one total, and change the values."""
    return values(lambda m: change(m / m.sum(axis=1, keepdims=True) * np.float32(total)))


@step
def noted_base(cells):
    """Write values that do not tell their scale, and a note that does."""
    cells.X = np.random.default_rng(0).gamma(1, 1, cells.shape).astype(np.float32)
    cells.uns["log1p"] = {"base": 2}


def transposed(cells):
    turned = cells.T.copy()
    turned.obs[KEY] = [*TARGETS * 5, *[CONTROL] * 4]
    return turned


@step
def in_a_layer(cells):
    cells.layers["counts"] = cells.X.copy()
    cells.X = np.zeros_like(cells.X)


@step
def in_context(cells, n):
    """Make n cells of each target, as the rules of 2026 want 400."""
    rows = np.concatenate([np.resize(of(cells, target), n) for target in TARGETS])
    parts = [cells[rows[i : i + n]].copy() for i in range(0, len(rows), n)]
    made = anndata.concat(parts, index_unique="-")
    made.obs_names_make_unique()
    made.obs["context"] = "A"
    made.X = made.X + (np.arange(made.n_obs)[:, None] % 7)
    rest = np.arange(made.n_vars) > 4  # so that no cell is a copy of another one
    made.X[:, rest] = np.random.default_rng(0).permuted(made.X[:, rest], axis=1)
    return made


# Files


def text_file(text):
    return lambda path, good: path.write_text(text)


def cut_short(path, good):
    path.write_bytes(good.read_bytes()[:-4000])


def part_of_zarr(path, good):
    path.mkdir()
    (path / ".zgroup").write_text('{"zarr_format": 2}')


def missing(path, good):
    pass


def locked(path, good):
    """Write a file that another program has open to write: here this one, until it ends."""
    path.write_bytes(good.read_bytes())
    fcntl = pytest.importorskip("fcntl")
    fcntl.flock(os.open(path, os.O_RDONLY), fcntl.LOCK_EX)


def loom(path, good):
    with h5py.File(path, "w") as file:
        file["matrix"] = np.ones((3, 3))


def mudata(path, good):
    with h5py.File(path, "w") as file:
        for name in ("obs", "var", "mod/rna", "mod/atac"):
            file.create_group(name)


def changed(change):
    """Write the cells, then change the HDF5 file."""

    def write(path, good):
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "a") as file:
            change(file)

    return write


def sparse_file(part, place=None, value=None):
    """Write the cells in CSR, then change a value of one of its parts, or remove the part."""

    def write(path, good):
        cells = anndata.read_h5ad(good)
        cells.X = sparse.csr_matrix(cells.X)
        cells.write_h5ad(path)
        with h5py.File(path, "a") as file:
            if place is None:
                del file[part]
            else:
                file[part][place] = value

    return write


def without_part(name):
    return changed(lambda file: file.pop(name))


def strange_filter(file):
    """Pack the values with Zstandard, which HDF5 has no filter for."""
    attributes, shape = dict(file["X"].attrs), file["X"].shape
    del file["X"]
    packing = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    packing.set_chunk(shape)
    packing.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple(shape)
    made = h5py.h5d.create(file.id, b"X", h5py.h5t.IEEE_F32LE, space, packing)
    made.write_direct_chunk((0, 0), b"packed elsewhere")
    file["X"].attrs.update(attributes)


def reserved_column(file):
    """Add a column called _index, as Seurat's converters do."""
    file.move("obs/_index", "obs/index")
    write_elem(file["obs"], "_index", np.arange(131))
    file["obs"].attrs["_index"] = "index"
    file["obs"].attrs["column-order"] = np.array([KEY, "_index"], dtype=object)


def of_type(change, kind="array"):
    """Write values of a type that is none of expression."""

    def put_in(file):
        attributes, data = dict(file["X"].attrs), change(file["X"][:])
        del file["X"]
        file["X"] = data
        file["X"].attrs.update(attributes | {"encoding-type": kind})

    return changed(put_in)


CASES = {
    # genes
    "gene order": Bad("genes in another order", ("another order", "position 0 is 'G23'",
        "expected 'G0'"), lambda cells: cells[:, ::-1].copy(), mended=True),
    "missing gene": Bad("a gene is missing", ("1 of 24 genes are missing: 'G7'",
        "predict every gene"), lambda cells: cells[:, cells.var_names != "G7"].copy()),
    "unknown gene": Bad("a gene too many", ("1 genes are not in the official list: 'NEW'",),
        one_more_gene),
    "repeated gene": Bad("two genes of one name", ("occur more than once: 'G1'",),
        renamed(G0="G1")),
    "lower case": Bad("gene names in small letters", ("24 genes are spelt otherwise",
        "'g0 for G0'"), named(lambda names: [name.lower() for name in names]), mended=True),
    "gene with a space": Bad("a space after a gene's name", ("'G0  for G0'",), renamed(G0="G0 "),
        mended=True),
    "gene version": Bad("gene identifiers with versions", ("24 genes are spelt otherwise",
        "'G0.1 for G0'"), named(lambda names: [f"{name}.1" for name in names]), mended=True),
    "spreadsheet date": Bad("a spreadsheet made dates of genes", ("'1-Sep for SEPTIN1'",),
        renamed(G0="1-Sep"), mended=True, genes=["SEPTIN1", *GENES[1:]]),
    "old symbol": Bad("a gene family's old name", ("'MARCH1 for MARCHF1'",), renamed(G0="MARCH1"),
        mended=True, genes=["MARCHF1", *GENES[1:]]),
    "alias": Bad("another name of the same gene", ("'H2AZ1'", "perhaps 'H2AFZ' for 'H2AZ1'"),
        renamed(G0="H2AFZ"), genes=["H2AZ1", *GENES[1:]]),
    "two that mean one": Bad("two spellings of one gene", ("are not in the official list",
        "are missing: 'G0'"), renamed(G0="g9", G9="g9 "), genes=GENES),
    "symbols in a column": Bad("identifiers as names, symbols in a column",
        ("official names are in var['gene_name']", "pred.var_names = "),
        symbols_in_var("gene_name"), mended=True),
    "symbols with a repeat": Bad("identifiers as names, symbols in a column, one of them twice",
        ("official names are in var['symbol']", "names of var['symbol'] occur more than once: 'G1'",
         "1 of 24 genes are missing: 'G7'"), symbols_in_var(G7="G1")),
    "gene without a symbol": Bad("identifiers as names, symbols in a column, one of them missing",
        ("official names are in var['symbol']", "1 of 24 genes are missing: 'G7'",
         "not in the official list: 'ENSG00000000007'"), symbols_in_var(G7=np.nan)),
    "list of other genes": Bad("the list is of other genes", ("only 0 of the 24 names of the list",
        "the list has 'X0', 'X1'", "the file 'G0', 'G1'"), lambda cells: cells,
        genes=[f"X{i}" for i in range(24)]),
    "list with a header": Bad("the list of genes has a header, and the order is wrong",
        ("position 0 is 'G23', expected 'G0'",), lambda cells: cells[:, ::-1].copy(), mended=True,
        genes="gene_name\n" + "\n".join(GENES) + "\n"),
    "list with a repeat": Bad("the list of genes names one twice", ("'G0' more than once",),
        lambda cells: cells, genes="\n".join([*GENES, "G0"]) + "\n"),
    "empty list": Bad("the list of genes is empty", ("holds no gene names",), lambda cells: cells,
        genes=""),
    "transposed": Bad("genes x cells", ("named like genes", "expected cells x genes", "pred.T"),
        transposed),
    # labels
    "no label column": Bad("labels in another column", ("obs has no column 'target_gene'",
        "it has 'gene'", "obs['gene'] may be meant"), column("gene"), mended=True,
        counts="good"),
    "no column at all": Bad("no labels", ("obs has no column 'target_gene'", "it has nothing"),
        lambda cells: anndata.AnnData(cells.X, var=cells.var)),
    "no controls": Bad("no control cells", ("no control cells", "append the control cells"),
        without(CONTROL)),
    "control named otherwise": Bad("controls named ctrl", ("labelled 'ctrl', expected "
        "'non-targeting'",), some_labels(CONTROL, "ctrl"), mended=True),
    "control in capitals": Bad("controls named Non-Targeting", ("labelled 'Non-Targeting'",),
        some_labels(CONTROL, "Non-Targeting"), mended=True),
    "control named strangely": Bad("controls named safe-harbour", ("no control cells",
        "'safe-harbour'"), some_labels(CONTROL, "safe-harbour")),
    "missing target": Bad("a target is missing", ("1 of 4 targets are missing: 'G1'",
        "predict every target"), without("G1"), counts="good"),
    "unknown target": Bad("a target that nobody asked for",
        ("1 targets were not asked for: 'G9'",), some_labels("G1", "G9", 3), counts="good"),
    "misspelt target": Bad("a target is misspelt", ("'no gene'",
        "perhaps 'no genes' for 'no gene'"), some_labels("no gene", "no genes"), counts="good"),
    "target in small letters": Bad("targets in small letters", ("targets are spelt otherwise",
        "'g1 for G1'"), all_targets(str.lower), mended=True,
        counts="good"),
    "plus control": Bad("labels such as SOX2+ctrl", ("'G1+ctrl for G1'",),
        all_targets("{}+ctrl".format), mended=True, counts="good"),
    "all of another tool": Bad("labels and controls of another tool", ("labelled 'ctrl'",
        "'G1+ctrl for G1'"), then(all_targets("{}+ctrl".format),
        some_labels(CONTROL, "ctrl")), mended=True, counts="good"),
    "label missing": Bad("a cell without a label", ("cells have no label", "the first is 'c"),
        some_labels("G1", np.nan, 1)),
    "label empty": Bad("a cell with an empty label", ("cells have no label",),
        some_labels("G1", "", 1)),
    "label blank": Bad("a cell with a blank label", ("cells have no label",),
        some_labels("G1", "  ", 1)),
    "label nan": Bad("a cell with the text nan as its label", ("1 of 131 cells have no label",
        "the text 'nan' is taken for a missing label"), some_labels("G1", "nan", 1), counts="good"),
    "labels in spaces": Bad("labels with spaces around them", ("2 labels have spaces around them",
        "' G1'", "'non-targeting '"), then(some_labels("G1", " G1"), some_labels(CONTROL,
        f"{CONTROL} ")), mended=True, counts="good"),
    "labels in the index": Bad("labels as names of the cells", ("obs has no column 'target_gene'",
        "the index of obs, which has that name"), labels_in_index, mended=True),
    "only controls": Bad("only control cells", ("4 of 4 targets are missing",),
        lambda cells: cells[cells.obs[KEY] == CONTROL].copy(), counts="good"),
    "other numbers": Bad("other numbers of cells than announced", ("another number of cells",
        "that is allowed"), lambda cells: cells[5:].copy(), refused=False, counts="good"),
    "counts without a column": Bad("the table of targets lacks a column",
        ("no column 'n_cells'", "expected target_gene and n_cells"), lambda cells: cells,
        counts="target_gene,cells\nG0,3\n"),
    "counts of nothing": Bad("the table of targets asks for no cells",
        ("numbers of cells of 'G0'", "whole numbers of 1 or more"), lambda cells: cells,
        counts="target_gene,n_cells\nG0,0\n"),
    "reserved column": Bad("a column called _index", ("cannot write", "column _index of obs"),
        file=changed(reserved_column), refused=False),
    "repeated cell names": Bad("cells of one name", ("names of cells occur again",),
        lambda cells: anndata.AnnData(cells.X, cells.obs.set_axis(["c"] * cells.n_obs), cells.var),
        refused=False),
    # values
    "NaN": Bad("a value is NaN", ("NaN values", "gene 'G4'", "find out where"), put(np.nan)),
    "NaN among logs": Bad("a log value is NaN", ("NaN values", "gene 'G4'"),
        then(lambda cells: good_cells(scale="lognorm"), put(np.nan))),
    "negative log": Bad("a negative log value", ("negative values", "set to 0"),
        then(lambda cells: good_cells(scale="lognorm"), put(-0.01))),
    "infinite": Bad("a value is infinite", ("infinite values", "gene 'G4'"), put(np.inf)),
    "negative": Bad("a negative value", ("negative values", "gene 'G4'", "set to 0"), put(-1)),
    "negative integer": Bad("a negative whole number, int32", ("negative values",),
        put(-1, "int32")),
    "NaN and negative": Bad("NaN and negative values", ("NaN values", "negative values"),
        then(put(np.nan), values(lambda m: np.where(m == 3, -3, m)))),
    "z-scores": Bad("z-scores", ("negative values", "look centred or scaled", "not z-scores"),
        values(z_scores)),
    "base 2": Bad("logarithms to base 2", ("logarithms to base 2", "multiply by log(2)"),
        values(lambda m: m / np.float32(np.log(2)), scale="lognorm")),
    "base 10": Bad("logarithms to base 10", ("logarithms to base 10", "multiply by log(10)"),
        values(lambda m: m / np.float32(np.log(10)), scale="lognorm")),
    "not logged": Bad("scaled, and the logarithm forgotten", ("cannot be counts",
        "the logarithm never taken", "take log1p"),
        values(lambda m: np.expm1(m), scale="lognorm")),
    "scaled to 1": Bad("scaled to 1, and the logarithm forgotten", ("cannot be counts",
        "takes them for log1p values, and says nothing", "take log1p"), scaled(np.abs, 1)),
    "multiples": Bad("counts times 0.9, below 15", ("cannot be counts", "take log1p"),
        values(lambda m: np.minimum(m, 14) * np.float32(0.9))),
    "two logarithms": Bad("log1p taken twice", ("logarithms of logarithms", "take expm1 once"),
        scaled(lambda m: np.log1p(np.log1p(m)))),
    "square roots": Bad("square roots", ("look like square roots", "square them"),
        scaled(np.sqrt)),
    "base in a note": Bad("base 2, and only a note tells", ("logarithms to base 2",
        "uns['log1p'] says so"), noted_base()),
    "two totals": Bad("controls scaled to another total than targets", ("4 of 5 labels",
        "add up to 100 in each cell, those of the others to 1,000"), lognorm_but(CONTROL, 1000)),
    "no total": Bad("log1p of counts, not scaled", ("a cell's depth will look like an effect",),
        values(np.log1p), refused=False),
    "above 15": Bad("fractions, and values above 15", ("cannot be counts", "stay below 15"),
        values(lambda m: m * np.random.default_rng(0).uniform(2, 3, m.shape).astype("float32"))),
    "counts beside logs": Bad("controls as counts, targets as log values", ("counts mixed with log "
        "values", "labelled 'non-targeting'", "log-normalise the controls"), lognorm_but(CONTROL)),
    "small counts beside logs": Bad("small counts as controls, targets as log values",
        ("takes all for lognorm values, and says nothing", "log-normalise the controls"),
        then(values(lambda m: np.minimum(m, 9)), lognorm_but(CONTROL))),
    "one target as counts": Bad("one target as counts", ("counts mixed with log values",
        "labelled 'G1'"), lognorm_but("G1")),
    "noisy counts": Bad("counts with float noise", ("counts with noise", "pred.X.round()"), noise(),
        mended=True),
    "small noisy counts": Bad("small counts with float noise", ("counts with noise",
        "takes them for lognorm values"), noise(most=12), mended=True),
    "all zero": Bad("all values are 0", ("all values are 0",), values(np.zeros_like)),
    "values in a layer": Bad("X is 0, the values are in a layer", ("all values are 0",
        "layers['counts'] may hold"), in_a_layer()),
    "no X": Bad("no X, the values are in a layer", ("there is no matrix X", "layers 'counts'"),
        lambda cells: anndata.AnnData(obs=cells.obs, var=cells.var, layers={"counts": cells.X})),
    "empty target": Bad("all cells of a target are 0", ("1 labels every cell is 0 in every gene: "
        "'G1'",), of_target(lambda x, controls: 0)),
    "empty cells": Bad("a cell is 0 in every gene", ("1 cells are 0 in every gene",),
        values(lambda m: m * (np.arange(len(m)) != 7)[:, None]), refused=False),
    "silent genes": Bad("genes that are 0 everywhere", ("1 of 24 genes are 0 in every cell",
        "'G3'"), values(lambda m: m * (np.arange(m.shape[1]) != 3)), refused=False),
    "identical cells": Bad("a target of identical cells", ("the cells of 1 of 4 targets are all "
        "alike: 'G1'", "DES does not punish that"),
        of_target(lambda x, controls: x.mean(axis=0).round()), refused=False),
    "copies of controls": Bad("a target that is a copy of controls", ("each cell is also a control "
        "cell: 'G1'", "predicts no change"),
        of_target(lambda x, controls: controls[: len(x)]), refused=False),
    "mean of controls": Bad("a target that is the controls' mean",
        ("have the controls' mean: 'G1'",), mean_of(CONTROL, ["G1"]), refused=False),
    "one prediction": Bad("the same prediction for all", ("all 4 targets have the same mean",),
        mean_of("G0", TARGETS), refused=False),
    "half precision": Bad("float16", ("float16, which holds three digits",),
        values(lambda m: m.astype("float16")), refused=False),
    "sparse array": Bad("a SciPy sparse array in place of a matrix", ("another order",),
        lambda cells: anndata.AnnData(sparse.csr_array(cells.X), cells.obs, cells.var)[:, ::-1]
        .copy(), mended=True),
    "no cells": Bad("no cells", ("empty, shape (0, 24)",), lambda cells: cells[:0].copy()),
    "no genes": Bad("no genes", ("empty, shape (131, 0)",), lambda cells: cells[:, :0].copy()),
    # several
    "five at once": Bad("five faults at once", ("another order", "labelled 'ctrl'",
        "1 of 4 targets are missing: 'G1'", "targets were not asked for: 'G9'", "NaN values"),
        then(put(np.nan), lambda cells: cells[:, ::-1].copy(), some_labels(CONTROL, "ctrl"),
             some_labels("G1", "G9")), counts="good"),
    # files
    "text file": Bad("a text file", ("is not an HDF5 file",),
        file=text_file("cell,gene\n1,2\n")),
    "cut short": Bad("a file that was cut short", ("cannot be read",), file=cut_short),
    "compressed": Bad("a file that is still compressed", ("is not an HDF5 file", "still"),
        file=lambda path, good: path.write_bytes(gzip.compress(good.read_bytes()))),
    "git pointer": Bad("a pointer that Git LFS left", ("Git LFS pointer", "git lfs pull"),
        file=text_file("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n")),
    "several modalities": Bad("an .h5mu", ("MuData, of the modalities 'atac', 'rna'",),
        file=mudata),
    "strange filter": Bad("packed with a filter that HDF5 lacks", ("packed with zstd",
        "pip install hdf5plugin"), file=changed(strange_filter)),
    "part of a Zarr store": Bad("a Zarr folder without its arrays", ("cannot be read",),
        file=part_of_zarr),
    "locked file": Bad("a file that another program writes", ("another program has it open",
        "HDF5_USE_FILE_LOCKING"), file=locked),
    "folder": Bad("a folder", ("is not an HDF5 file",),
        file=lambda path, good: path.mkdir()),
    "no file": Bad("no file", ("no such file",), file=missing),
    "another layout": Bad("HDF5 of another layout", ("cannot be read as an .h5ad",), file=loom),
    "column out of range": Bad("a gene number out of range", ("damaged", "1000000"),
        file=sparse_file("X/indices", 3, 10**6)),
    "pointer that falls": Bad("a row pointer that falls", ("row pointer of X does not rise",),
        file=sparse_file("X/indptr", 5, 0)),
    "no gene numbers": Bad("a sparse matrix without gene numbers", ("cannot be read", "'indices'"),
        file=sparse_file("X/indices")),
    "text values": Bad("values stored as text", ("values of type", "convert"),
        file=of_type(lambda x: x.astype(str).astype(object), "string-array")),
    "complex values": Bad("complex values", ("values of type complex64",),
        file=of_type(lambda x: x.astype("complex64"))),
    # 2026
    "2026: controls": Bad("2026: control cells in the file", ("131|60 cells are labelled "
        "'non-targeting'", "allow none"), lambda cells: cells, preset="vcc2026"),
    "2026: numbers": Bad("2026: not 400 cells per target", ("not exactly 400 cells",),
        in_context(399), preset="vcc2026"),
    "2026: no context": Bad("2026: no column context", ("obs has no column 'context'",),
        then(in_context(400), lambda cells: anndata.AnnData(cells.X, cells.obs[[KEY]], cells.var)),
        preset="vcc2026"),
    "2026: lognorm": Bad("2026: log values", ("values with fractions", "want raw counts"),
        then(in_context(400), values(lambda m: np.log1p(m))), preset="vcc2026"),
    "2026: too deep": Bad("2026: more than a million counts in a cell",
        ("more than 1,000,000 counts",), then(in_context(400), put(2e6)), preset="vcc2026"),
}  # fmt: skip


def write(case: Bad, folder):
    """Write a case's files; return the path of the prediction, and the options of the check."""
    good = folder / "good.h5ad"
    good_cells().write_h5ad(good)
    path = folder / "pred.h5ad"
    if case.file:
        case.file(path, good)
    else:
        case.spoil(good_cells()).write_h5ad(path)
    genes = case.genes if isinstance(case.genes, str) else "\n".join(case.genes) + "\n"
    (folder / "genes.csv").write_text(genes)
    options = {"genes": folder / "genes.csv", "preset": case.preset}
    if case.counts:
        text = good_counts() if case.counts == "good" else case.counts
        (folder / "counts.csv").write_text(text)
        options["counts"] = folder / "counts.csv"
    return path, options
