"""Files for the season of 2026: a sound one, and mutants, each with what it is checked by.

Shared by the tests and by benchmarks/season_2026.py, which puts the same files before vcc-cli.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import anndata
import h5py
import numpy as np
import pandas as pd
from bad_cases import column, of, put, renamed, some_labels, then, values
from conftest import CONTROL, KEY
from scipy import sparse

from vcc_helpers.presets import VCC2026

CONTEXTS, TARGETS = ["A", "B", "C"], ["G0", "G1", "no gene"]
GENES = [f"G{i}" for i in range(12)]
#: Cells of each target and context, in place of 400.
EACH = 4
GENE_LIST = "gene_name\n" + "\n".join(GENES) + "\n"
TARGET_LIST = "target_gene\n" + "\n".join(TARGETS) + "\n"
MANIFEST = {
    "contexts": CONTEXTS,
    "panel_id": "vcc2026-val-1",
    "n_genes": len(GENES),
    "cells_per_pert": EACH,
}


@dataclass(frozen=True)
class Case:
    """A file, the lists beside it, and how it is checked."""

    #: Changes sound cells: counts, dense, 36 x 12, float32.
    spoil: Callable | None = None
    #: Or: changes the file that was written.
    file: Callable | None = None
    #: What must be said where it is refused.
    words: str = ""
    genes: str | bytes | None = GENE_LIST
    counts: str | bytes | None = TARGET_LIST
    manifest: dict | str | None = field(default_factory=lambda: MANIFEST)
    #: Further words of the command: ``contexts``, ``context_key``, ``perturbation_key``.
    options: dict = field(default_factory=dict)
    #: Limits of the season that are other than in the record.
    limits: dict = field(default_factory=dict)
    #: Why our verdict is another than the official one; empty where it is the same.
    differs: str = ""
    #: Why the cells in our archive are other than in the official one.
    other_cells: str = ""

    @property
    def rules(self):
        return replace(VCC2026, **{"cells_a_target": EACH} | self.limits)


def sound_cells(*, contexts=tuple(CONTEXTS), targets=tuple(TARGETS), each=EACH):
    """Return a prediction that nothing is wrong with, its cells in no order."""
    rng = np.random.default_rng(1)
    pairs = [(c, t) for c in contexts for t in targets for _ in range(each)]
    obs = pd.DataFrame(rng.permutation(pairs), columns=["context", KEY])
    obs.index = [f"c{i}" for i in range(len(obs))]
    counts = rng.poisson(3, (len(obs), len(GENES))).astype("float32")
    counts[:, -1] = 1 + np.arange(len(obs)) % 3
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


# What is done to cells


def context(change):
    """Change the contexts, given as an object array."""

    def spoil(cells):
        cells.obs["context"] = change(cells.obs["context"].to_numpy(dtype=object).copy())
        return cells

    return spoil


def renamed_contexts(**names):
    return context(lambda labels: [names.get(label, label) for label in labels])


def first_context(label):
    def change(labels):
        labels[0] = label
        return labels

    return context(change)


def pair(cells, where, target):
    return np.flatnonzero((cells.obs["context"] == where) & (cells.obs[KEY] == target))


def without_pair(where, target, n=None):
    """Leave out the first n cells of a pair of context and target, or all."""

    def spoil(cells):
        out = cells.obs_names[pair(cells, where, target)[:n]]
        return cells[~cells.obs_names.isin(out)]

    return spoil


def one_more(where, target):
    def spoil(cells):
        more = cells[pair(cells, where, target)[:1]].copy()
        more.obs_names = ["more"]
        return anndata.concat([cells, more])

    return spoil


def relabelled(where, target, label):
    def spoil(cells):
        labels = cells.obs[KEY].to_numpy(dtype=object).copy()
        labels[pair(cells, where, target)] = label
        cells.obs[KEY] = labels
        return cells

    return spoil


def as_labels(change):
    def spoil(cells):
        cells.obs[KEY] = [change(label) for label in cells.obs[KEY]]
        return cells

    return spoil


def with_controls(cells):
    more = cells[:2].copy()
    more.obs[KEY], more.obs_names = CONTROL, ["k0", "k1"]
    return anndata.concat([cells, more])


def silent(choose):
    def spoil(cells):
        cells.X[choose(cells)] = 0
        return cells

    return spoil


def first_value(value, dtype="float32"):
    def change(x):
        x = x.astype(dtype)
        x[0, 0] = value
        return x

    return values(change)


def first_total(total):
    """Let the counts of the first cell add up to a total."""

    def change(x):
        x = x.astype("float64")
        x[0, 0] += total - x[0].sum()
        return x

    return values(change)


def of_obs(name, label):
    def spoil(cells):
        cells.obs[name] = label
        return cells

    return spoil


def with_more_tables(cells):
    cells.layers["other"] = cells.X.copy()
    cells.obsm["pca"] = np.zeros((cells.n_obs, 2))
    cells.uns["note"] = "x"
    return cells


def with_stored_zeros(x):
    matrix = sparse.csr_matrix(np.where(x == 0, -1, x))
    matrix.data[matrix.data == -1] = 0
    return matrix


def numbered_contexts(cells):
    cells.obs["context"] = cells.obs["context"].map({"A": 1, "B": 2, "C": 3}).astype(int)
    return cells


def as_category(cells, *more):
    cells.obs = cells.obs.astype("category")
    cells.obs[KEY] = cells.obs[KEY].cat.add_categories(more)
    return cells


def as_csr(change, dtype):
    """Store the values by rows in a type, perhaps after a change."""
    store = values(lambda x: sparse.csr_matrix(x.astype(dtype)))
    return then(change, store) if change else store


def with_raw(cells):
    cells.raw = cells.copy()
    return cells


def symbols_elsewhere(cells):
    cells.var["symbol"] = cells.var_names
    cells.var_names = [f"E{i}" for i in range(len(GENES))]
    return cells


def with_unused_categories(cells):
    for name in ("context", KEY):
        cells.obs[name] = cells.obs[name].astype("category").cat.add_categories("nobody")
    return cells


def same_names(cells):
    cells.obs_names = ["c"] * cells.n_obs
    return cells


def with_named_indexes(cells):
    cells.obs_names.name, cells.var_names.name = "cell", "gene_name"
    return cells


def moved_context(cells):
    cells.obs = cells.obs.rename(columns={"context": "line"})
    return cells


# What is done to a file


def stored_as(dtype="float32", **how):
    """Write the matrix once more, in another type or layout."""

    def spoil(path):
        with h5py.File(path, "a") as file:
            old, array = dict(file["X"].attrs), file["X"][:]
            del file["X"]
            file.create_dataset("X", data=array.astype(dtype), **how).attrs.update(old)

    return spoil


def no_category(name):
    """Let the first cell have none, as pandas writes a missing one."""

    def spoil(path):
        with h5py.File(path, "a") as file:
            file[f"obs/{name}/codes"][0] = -1

    return spoil


def sparse_parts(change, layout=sparse.csr_matrix):
    """Write the matrix in a sparse layout, then change its arrays together."""

    def spoil(path):
        cells = anndata.read_h5ad(path)
        cells.X = layout(cells.X)
        cells.write_h5ad(path)
        with h5py.File(path, "a") as file:
            names = "data", "indices", "indptr"
            for name, array in zip(names, change(*(file["X"][n][:] for n in names)), strict=True):
                del file["X"][name]
                file["X"][name] = array

    return spoil


def sparse_part(name, change):
    """Write the matrix as CSR, then change one of its arrays."""
    place = ["data", "indices", "indptr"].index(name)
    return sparse_parts(
        lambda *parts: [change(x) if i == place else x for i, x in enumerate(parts)]
    )


def reversed_rows(data, indices, indptr):
    """Store the entries of each row, or column, the last one first."""
    order = [np.arange(*pair)[::-1] for pair in pairwise(indptr)]
    return data[np.concatenate(order)], indices[np.concatenate(order)], indptr


def without(name):
    def spoil(path):
        with h5py.File(path, "a") as file:
            del file[name]

    return spoil


def falling(pointer):
    pointer[5] = 0
    return pointer


def beyond(places):
    places[3] = 10**6
    return places


SIZE = len(CONTEXTS) * len(TARGETS) * EACH
STORED = int((sound_cells().X != 0).sum())
BY_CONTEXT = "context,target_gene\n" + "".join(f"{c},{t}\n" for c in CONTEXTS for t in TARGETS)
NUMBERS = "target_gene,n_cells\n" + "".join(f"{t},{{}}\n" for t in TARGETS)
DEF = {"contexts": ["D", "E", "F"], "panel_id": "final"}


def with_numbers(*numbers):
    return NUMBERS.format(*numbers)


CASES = {
    "sound": Case(),
    # Form
    "CSR": Case(values(sparse.csr_matrix)),
    "CSC": Case(values(sparse.csc_matrix)),
    "whole numbers": Case(values(lambda x: x.astype("int32"))),
    "float64": Case(values(lambda x: x.astype("float64"))),
    "float16": Case(values(lambda x: x.astype("float16"))),
    "whole numbers of a byte": Case(values(lambda x: x.astype("uint8"))),
    "large whole numbers": Case(values(lambda x: sparse.csr_matrix(x.astype("int64")))),
    "stored zeros": Case(values(with_stored_zeros)),
    "categories": Case(as_category),
    "a category without cells": Case(with_unused_categories),
    "more columns and tables": Case(then(of_obs("batch", "b"), with_more_tables)),
    "names of cells": Case(same_names),
    "no cells": Case(lambda cells: cells[:0], words="empty, shape (0, 12)"),
    "no HDF5": Case(file=lambda path: path.write_text("x"), words="is not an HDF5 file"),
    "no file": Case(file=lambda path: path.unlink(), words="no such file"),
    "places beyond": Case(file=sparse_part("indices", beyond), words="damaged"),
    "pointer that falls": Case(file=sparse_part("indptr", falling), words="does not rise"),
    "repeated places": Case(file=sparse_parts(lambda data, places, pointer: (
        np.insert(data, 0, 1), np.insert(places, 0, places[0]), pointer + (pointer > 0)))),
    "uint16": Case(values(lambda x: x.astype("uint16"))),
    "uint16 by rows": Case(as_csr(None, "uint16")),
    "int64": Case(values(lambda x: x.astype("int64"))),
    "float64 by columns": Case(values(lambda x: sparse.csc_matrix(x.astype("float64")))),
    "stored zeros by columns": Case(values(lambda x: with_stored_zeros(x).tocsc())),
    "places in no order": Case(file=sparse_parts(reversed_rows)),
    "places in no order, by columns": Case(
        file=sparse_parts(reversed_rows, sparse.csc_matrix)),
    "places of 8 bytes": Case(file=sparse_parts(lambda d, *x: (d, *(a.astype("i8") for a in x)))),
    "pointer without a sign": Case(file=sparse_parts(lambda d, i, p: (d, i, p.astype("u4")))),
    "falling pointer without a sign": Case(words="rise",
        file=sparse_parts(lambda d, i, p: (d, i, falling(p).astype("u4")))),
    "negative place": Case(file=sparse_part("indices", lambda x: np.where(x == 3, -1, x)),
        words="damaged"),
    "pointer that starts at 1": Case(file=sparse_part("indptr", lambda x: np.maximum(x, 1)),
        words="row pointer"),
    "pointer too short": Case(file=sparse_part("indptr", lambda x: x[:-1]), words="pointer"),
    "pointer too long": Case(file=sparse_part("indptr", lambda x: np.append(x, x[-1])),
        words="pointer"),
    "pointer beyond the values": Case(file=sparse_part("indptr", lambda x: x + (x == x[-1])),
        words="row pointer"),
    "fewer values than places": Case(file=sparse_part("data", lambda x: x[:-1]),
        words="and their places"),
    "fewer places than values": Case(file=sparse_part("indices", lambda x: x[:-1]),
        words="and their places"),
    "gzip": Case(file=lambda path: anndata.read_h5ad(path).write_h5ad(path, compression="gzip")),
    "raw": Case(with_raw),
    "no X": Case(file=without("X"), words="no matrix X"),
    "no obs": Case(file=without("obs"), words="cannot be read"),
    "no var": Case(file=without("var"), words="cannot be read"),
    "empty file": Case(file=lambda path: path.write_bytes(b""), words="is not an HDF5 file"),
    "cut short": Case(file=lambda path: path.write_bytes(path.read_bytes()[:4000]),
        words="cannot be"),
    "a folder": Case(file=lambda path: (path.unlink(), path.mkdir()), words="folder"),
    "no genes": Case(lambda cells: cells[:, :0], words="empty, shape (36, 0)"),
    "transposed": Case(lambda cells: cells.T.copy(), words="genes x cells"),
    "slack": Case(file=sparse_parts(lambda data, places, pointer: (
        np.append(data, data[:1]), np.append(places, 0), pointer)), words="row pointer",
        differs="vcc prep cuts values off that no row holds; here a file whose arrays do not fit "
        "each other is refused in either season"),
    "lzf": Case(file=lambda path: anndata.read_h5ad(path).write_h5ad(path, compression="lzf")),
    "chunks with checksums": Case(file=stored_as(chunks=(5, 3), shuffle=True, fletcher32=True)),
    "big-endian": Case(file=stored_as(">f4")),
    "true and false": Case(file=stored_as("bool")),
    "text for values": Case(file=stored_as("S3"), words="no real numbers"),
    "complex values": Case(file=stored_as("c8"), words="no real numbers", differs="vcc prep takes "
        "the real part without a word"),
    "int8, negative": Case(first_value(-9, "int8"), words="negative values"),
    "infinite in float16": Case(first_value(np.inf, "float16"), words="infinite values"),
    "names of genes lost": Case(file=without("var/_index"), words="cannot be read"),
    "indexes with names": Case(with_named_indexes),
    # Genes
    "gene order": Case(lambda cells: cells[:, ::-1]),
    "gene list without header": Case(genes="\n".join(GENES)),
    "gene list with numbered rows": Case(genes=",gene_name\n" + "".join(
        f"{i},{gene}\n" for i, gene in enumerate(GENES)), differs="the column is taken whose names "
        "the file has; vcc prep takes the first"),
    "gene missing": Case(lambda cells: cells[:, 1:], words="1 of 12 genes are missing: 'G0'"),
    "gene too many": Case(genes="\n".join(GENES[1:]), words="1 genes are not in the official list"),
    "gene spelt otherwise": Case(renamed(G3="g3"), words="spelt otherwise"),
    "gene repeated": Case(renamed(G3="G4"), words="occur more than once"),
    "gene list with a gene twice": Case(genes=GENE_LIST + "G3\n", words="more than once"),
    "gene list empty": Case(genes="", words="no gene names"),
    "gene list of a header": Case(genes="gene_name\n", words="no gene names"),
    "gene missing, another there": Case(renamed(G3="X3"), words="'X3'"),
    "gene with a space": Case(renamed(G3="G3 "), words="spelt otherwise"),
    "genes in small letters": Case(renamed(**{g: g.lower() for g in GENES}), words="spelt"),
    "genes by number": Case(renamed(**{g: str(i) for i, g in enumerate(GENES)}), words="list"),
    "gene symbols elsewhere": Case(symbols_elsewhere, words="var['symbol']"),
    "gene list, another header": Case(genes=GENE_LIST.replace("gene_name", "Gene_Symbol")),
    "gene list, an unknown header": Case(genes=GENE_LIST.replace("gene_name", "id"),
        differs="a first line such as id is a header here; to vcc prep it is a gene"),
    "gene list, lines of Windows": Case(genes=GENE_LIST.replace("\n", "\r\n")),
    "gene list, mark of UTF-8": Case(genes="\ufeff" + GENE_LIST),
    "gene list, quoted": Case(genes='"' + GENE_LIST.strip().replace("\n", '"\n"') + '"\n'),
    "gene list, blank lines": Case(genes=GENE_LIST.replace("G5\n", "G5\n\n")),
    "gene list, two columns": Case(genes="".join(f"{g},x{g}\n" for g in GENE_LIST.split())),
    "gene list, a space": Case(genes=GENE_LIST.replace("G5", " G5"), differs="spaces around a name "
        "in a list are no part of it; to vcc prep it is another gene"),
    "genes are numbers": Case(renamed(**{g: g[1:] for g in GENES}),
        genes=GENE_LIST.replace("G", "")),
    "gene list, Windows-1252": Case(genes=GENE_LIST.replace("G5", "Gé").encode("cp1252"),
        words="cannot be read as a table of text"),
    "gene list, UTF-16": Case(genes=GENE_LIST.encode("utf-16"), words="cannot be read as a table"),
    "gene list, an accent": Case(renamed(G5="Gé"), genes=GENE_LIST.replace("G5", "Gé")),
    "gene list, lines of the old Mac": Case(genes=GENE_LIST.replace("\n", "\r")),
    "gene list, commas at the end": Case(genes=GENE_LIST.replace("\n", ",\n")),
    "gene list, one line longer": Case(genes=GENE_LIST.replace("G5", "G5,x"), words="more columns"),
    "gene list, a quote left open": Case(genes=GENE_LIST.replace("G5", '"G5'),
        words="cannot be read as a table of text"),
    "gene called NA": Case(renamed(G5="NA"), genes=GENE_LIST.replace("G5", "NA"),
        differs="NA is a name; vcc prep reads it as a missing one"),
    "gene list in another order": Case(genes="\n".join(GENES[::-1])),
    "no gene list there": Case(genes=None, words="no such file"),
    # Contexts
    "no contexts": Case(moved_context, words="no column 'context'"),
    "contexts elsewhere": Case(moved_context, options={"context_key": "line"},
        other_cells="vcc prep keeps the name of the column, here it is context in every archive"),
    "context missing of a cell": Case(first_context(np.nan), words="have no context"),
    "context blank": Case(first_context(""), words="1 of 36 cells have no context"),
    "context with a space": Case(renamed_contexts(B="B "), words="contexts have spaces"),
    "context in small letters": Case(renamed_contexts(B="b"), words="'b'; asked are 'A', 'B'"),
    "context unknown": Case(first_context("X"), words="1 of 4 contexts are not asked: 'X'"),
    "context of the final phase, one cell": Case(first_context("D"), words="of the final phase"),
    "final phase, validation asked": Case(renamed_contexts(A="D", B="E", C="F"),
        words="contexts of the final phase, so the file is of the other phase"),
    "validation, final phase asked": Case(options={"contexts": "D,E,F"},
        words="contexts of the validation phase, so the file is of the other phase"),
    "validation, final phase in the manifest": Case(manifest=DEF, words="of the other phase"),
    "final phase": Case(renamed_contexts(A="D", B="E", C="F"), manifest=DEF),
    "final phase, asked by option": Case(renamed_contexts(A="D", B="E", C="F"),
        options={"contexts": "D,E,F"}),
    "a context missing": Case(lambda cells: cells[cells.obs["context"] != "B"],
        words="1 of 3 contexts are missing: 'B'"),
    "two contexts missing": Case(lambda cells: cells[cells.obs["context"] == "B"],
        words="2 of 3 contexts are missing: 'A', 'C'"),
    "two contexts asked, three there": Case(options={"contexts": "A,B"}, words="not asked: 'C'"),
    "two contexts asked, two there": Case(lambda cells: cells[cells.obs["context"] != "C"],
        options={"contexts": "A,B"}),
    "contexts in another order": Case(options={"contexts": "C, A,B"}),
    "contexts swapped": Case(renamed_contexts(A="B", B="A")),
    "contexts are numbers": Case(numbered_contexts, options={"contexts": "1,2,3"}),
    "contexts in text that may be missing": Case(
        lambda cells: of_obs("context", pd.array(cells.obs["context"], "string"))(cells)),
    "context, no category": Case(as_category, file=no_category("context"), words="no context"),
    "contexts are true and false": Case(context(lambda labels: labels == "A"),
        options={"contexts": "True,False"}, words="(G0 in False: 8"),
    "contexts are numbers with a point": Case(
        then(numbered_contexts, lambda cells: of_obs("context", cells.obs["context"] / 1.0)(cells)),
        options={"contexts": "1.0,2.0,3.0"}),
    "context with a hard space": Case(renamed_contexts(B="B\u00a0"), words="contexts have spaces"),
    "contexts asked in small letters": Case(options={"contexts": "a,b,c"}, words="phase; vcc prep"),
    "context of spaces": Case(first_context("  "), words="no context"),
    "context in capitals and small letters": Case(renamed_contexts(A="a", B="b", C="c"),
        words="not asked: 'a', 'b', 'c'"),
    "context by a longer name": Case(renamed_contexts(A="context_A"), words="not asked"),
    "three contexts and a fourth": Case(lambda cells: sound_cells(contexts="ABCD"),
        words="not asked: 'D'"),
    "all six contexts": Case(lambda cells: sound_cells(contexts="ABCDEF"),
        words="not asked: 'D', 'E', 'F'"),
    "all six asked": Case(lambda cells: sound_cells(contexts="ABCDEF"),
        options={"contexts": "A,B,C,D,E,F"}),
    "one context for all": Case(of_obs("context", "A"), words="missing: 'B', 'C'"),
    "one context asked": Case(lambda cells: cells[cells.obs["context"] == "A"],
        options={"contexts": "A"}),
    "contexts are fractions": Case(numbered_contexts, options={"contexts": "1.0,2.0,3.0"},
        words="not asked: '1', '2', '3'"),
    "contexts asked, none": Case(options={"contexts": ""}, words="contexts are empty",
        differs="no contexts, as in 2025, are no season's; vcc prep then leaves the column out"),
    "contexts asked, with gaps": Case(options={"contexts": "A,,B, C,"}),
    "manifest of two contexts": Case(manifest={"contexts": ["A", "B"]}, words="not asked: 'C'"),
    "manifest of four contexts": Case(manifest={"contexts": ["A", "B", "C", "D"]},
        words="missing: 'D'"),
    "manifest with spaces": Case(manifest=MANIFEST | {"contexts": ["A ", " B", "C"]}),
    "manifest of other numbers": Case(manifest=MANIFEST | {"n_genes": 9, "cells_per_pert": 7}),
    "manifest without a panel": Case(manifest={"contexts": CONTEXTS}),
    "manifest of no list": Case(manifest={"contexts": "ABC"}, words="nothing says which"),
    "manifest of an empty list": Case(manifest={"contexts": []}, words="nothing says which"),
    "manifest contradicts": Case(manifest=DEF, options={"contexts": "A,B,C"}),
    "manifest contradicts, and is right": Case(renamed_contexts(A="D", B="E", C="F"), manifest=DEF,
        options={"contexts": "A,B,C"}, words="of the other phase"),
    "contexts asked, no manifest": Case(manifest=None, options={"contexts": "A,B,C"}),
    "no manifest": Case(manifest=None, words="nothing says which"),
    "manifest, mark of UTF-8": Case(manifest="\ufeff" + json.dumps(MANIFEST),
        words="manifest.json is there, but names none"),
    "manifest of numbers": Case(numbered_contexts, manifest={"contexts": [1, 2, 3]},
        words="is there, but names none"),
    "manifest with a blank": Case(manifest={"contexts": [*CONTEXTS, ""]}, words="names none"),
    "manifest, a context twice": Case(manifest={"contexts": [*CONTEXTS, "A"]}),
    "manifest of other columns": Case(moved_context, manifest=MANIFEST | {"context_col": "line"},
        words="no column 'context'"),
    "manifest damaged": Case(manifest="{", words="nothing says which"),
    # Targets
    "controls": Case(with_controls, words="2 cells are labelled 'non-targeting'"),
    "only controls": Case(as_labels(lambda label: CONTROL), words="36 cells are labelled"),
    "no target column": Case(column("gene"), words="no column 'target_gene'"),
    "target column named": Case(column("gene"), options={"perturbation_key": "gene"}),
    "target missing": Case(lambda cells: cells[cells.obs[KEY] != "G1"],
        words="1 of 3 targets are missing: 'G1'"),
    "target missing in a context": Case(without_pair("B", "G1"),
        words="1 of 9 pairs of target and context are missing: 'G1 in B'"),
    "target unknown": Case(as_labels(lambda label: {"G1": "G9"}.get(label, label)),
        words="1 targets were not asked for: 'G9'"),
    "target unknown, of a cell": Case(some_labels("G1", "G9", 1), words="not asked for: 'G9'"),
    "target unknown in a context": Case(relabelled("C", "G1", "G9"), words="'G9'"),
    "two targets in one": Case(relabelled("C", "G1", "G0"), words="'G1 in C'"),
    "guides for targets": Case(as_labels(lambda label: f"{label}-1"), words="a guide's name"),
    "target spelt otherwise": Case(as_labels(str.lower), words="spelt otherwise"),
    "target with a space": Case(as_labels(lambda label: f" {label}"), words="spaces"),
    "target missing of a cell": Case(some_labels("G1", np.nan, 1), words="have no label"),
    "another control label": Case(
        then(with_controls, as_labels(lambda label: label.replace(CONTROL, "NT"))), words="'NT'"),
    "one control cell": Case(some_labels("G1", CONTROL, 1), words="1 cells are labelled"),
    "controls in capitals": Case(some_labels("G1", "Non-Targeting", 2), words="'Non-Targeting'"),
    "a category of controls without cells": Case(lambda cells: as_category(cells, CONTROL)),
    "target blank of a cell": Case(some_labels("G1", "", 1), words="have no label"),
    "target of a space": Case(some_labels("G1", " ", 1), words="no label"),
    "target with a space, of a cell": Case(some_labels("G1", "G1 ", 1), words="spaces"),
    "target in small letters, of a cell": Case(some_labels("G1", "g1", 1), words="asked for: 'g1'"),
    "guide of one target": Case(some_labels("G1", "G1-2", 4), words="a guide's name"),
    "target of another list": Case(as_labels(lambda label: f"X{label}"), words="not asked for"),
    "target missing in two contexts": Case(then(without_pair("A", "G1"), without_pair("B", "G1")),
        words="2 of 9 pairs"),
    "target, no category": Case(as_category, file=no_category(KEY), words="have no label"),
    "target with two spaces inside": Case(as_labels(lambda label: label.replace(" ", "  ")),
        words="perhaps 'no  gene'"),
    "targets with zeros": Case(as_labels({"G0": "007", "G1": "008", "no gene": "009"}.get),
        counts="target_gene\n007\n008\n009\n", differs="a name stays text; vcc prep reads 7"),
    "target called NA": Case(as_labels(lambda label: label.replace("G1", "NA")),
        counts=TARGET_LIST.replace("G1", "NA"), differs="NA is a name; vcc prep passes it over in "
        "the list, and refuses its cells"),
    "list, more columns": Case(counts="note,target_gene\n" + "".join(f"x,{t}\n" for t in TARGETS)),
    "list, another header": Case(counts=TARGET_LIST.replace("target", "Target"), words="no column"),
    "list, lines of Windows": Case(counts=TARGET_LIST.replace("\n", "\r\n")),
    "list, mark of UTF-8": Case(counts="\ufeff" + TARGET_LIST),
    "list, a space": Case(counts=TARGET_LIST.replace("G1", " G1 ")),
    "list, Windows-1252": Case(counts=TARGET_LIST.replace("G1", "Gé").encode("cp1252"),
        words="cannot be read as a table of text"),
    "list, a line longer": Case(counts=with_numbers(4, "4,9", 4), words="more columns"),
    "list, a line shorter": Case(counts=with_numbers(4, 4, 4).replace("G1,4", "G1")),
    "list, rows numbered": Case(counts=",target_gene\n" + "".join(
        f"{i},{t}\n" for i, t in enumerate(TARGETS))),
    "list, a space in the header": Case(counts=TARGET_LIST.replace("gene\n", "gene \n", 1),
        differs="spaces around a name in a list are no part of it"),
    "list, a column twice": Case(counts="target_gene,n_cells,n_cells\n" + "".join(
        f"{t},4,5\n" for t in TARGETS), words="more than one column 'n_cells'",
        differs="one of two numbers is wrong; vcc prep takes the first"),
    "list of controls only": Case(counts=f"target_gene\n{CONTROL}\n", words="names no targets"),
    "list, semicolons": Case(counts=NUMBERS.replace(",", ";").format(4, 4, 4),
        differs="semicolons part columns, too; vcc prep finds no column target_gene"),
    "list, without header": Case(counts="\n".join(TARGETS), words="no column 'target_gene'"),
    "list in another order": Case(counts="target_gene\n" + "\n".join(TARGETS[::-1])),
    "list by context, spaces": Case(counts=BY_CONTEXT.replace("A,", "A ,"), differs="spaces around "
        "a name in a list are no part of it"),
    "list by context, of the final phase": Case(counts=BY_CONTEXT.translate(
        {65: "D", 66: "E", 67: "F"}), words="names none for 3 contexts"),
    "list by context, a fourth": Case(counts=BY_CONTEXT + "D,G0\n"),
    "list with controls": Case(counts=TARGET_LIST + f"{CONTROL}\n"),
    "list with blank lines": Case(counts=TARGET_LIST + "\n\n"),
    "list of fewer targets": Case(counts="target_gene\nG0\nG1\n", words="not asked for: 'no gene'"),
    "list of more targets": Case(counts=TARGET_LIST + "G7\n", words="missing: 'G7'"),
    "list of other columns": Case(counts="gene\nG0\n", words="no column 'target_gene'"),
    "list empty": Case(counts="", words="no column 'target_gene'"),
    "list of a header": Case(counts="target_gene\n", words="names no targets"),
    "no list": Case(counts=None, words="no list of them is given"),
    "list by context": Case(counts=BY_CONTEXT),
    "list by context, other targets": Case(without_pair("C", "G1"),
        counts=BY_CONTEXT.replace("C,G1\n", "")),
    "list by context, a target too many": Case(counts=BY_CONTEXT.replace("C,G1\n", ""),
        words="not asked for: 'G1 in C'"),
    "list by context, a context missing": Case(counts=BY_CONTEXT.split("C,")[0],
        words="names none for 1 contexts: 'C'"),
    "list with a target twice": Case(counts=TARGET_LIST + "G1\n"),
    "list with a target twice, of two numbers": Case(counts=with_numbers(5, 4, 4) + "G0,4\n",
        words="more than once", differs="one of two numbers is wrong; vcc prep takes the last"),
    # Numbers of cells
    "a cell too few": Case(without_pair("B", "G1", 1), words="(G1 in B: 3)"),
    "a cell too many": Case(one_more("B", "G1"), words="(G1 in B: 5)"),
    "a cell too few of each": Case(lambda cells: sound_cells(each=3), words="9 of 9 targets"),
    "a cell too many of each": Case(lambda cells: sound_cells(each=5), words="9 of 9 targets"),
    "another number for all": Case(lambda cells: sound_cells(each=5), limits={"cells_a_target": 5}),
    "another context's cell": Case(first_context("B"), words="not exactly 4 cells"),
    "numbers in the list": Case(counts=with_numbers(4, 4, 4)),
    "numbers in the list win": Case(without_pair("A", "G1", 1), counts=with_numbers(4, 3, 4),
        words="not exactly 3 cells in each context (G1 in B: 4; G1 in C: 4)"),
    "numbers in the list win over all": Case(lambda cells: sound_cells(each=2),
        counts=with_numbers(2, 2, 2)),
    "numbers in the list by context": Case(without_pair("A", "G1", 1), counts=BY_CONTEXT.replace(
        "\n", ",4\n").replace("gene,4", "gene,n_cells", 1).replace("A,G1,4", "A,G1,3")),
    "numbers as fractions": Case(counts=with_numbers("4.0", "4.0", "4.0")),
    "numbers beyond the cells": Case(counts=with_numbers(5, 4, 4), words="exactly 5 cells"),
    "numbers of controls": Case(counts=with_numbers(4, 4, 4) + f"{CONTROL},99\n"),
    "number 0": Case(counts=with_numbers(0, 4, 4)),
    "number below 0": Case(counts=with_numbers(-1, 4, 4)),
    "number of words": Case(counts=with_numbers("x", 4, 4)),
    "number of no end": Case(counts=with_numbers("inf", 4, 4), words="not whole numbers",
        differs="no file has so many cells; vcc prep takes it for a blank"),
    "number with a fraction": Case(counts=with_numbers("4.5", 4, 4), words="not whole numbers",
        differs="half a cell is a slip; vcc prep cuts it off"),
    "number blank, a cell too few": Case(without_pair("A", "G0", 1), counts=with_numbers("", 4, 4),
        words="not exactly 4 cells", differs="a blank means the season's number, which the scorer "
        "wants; vcc prep then wants none"),
    "numbers with signs and exponents": Case(counts=with_numbers("+4", "4e0", '" 4 "')),
    "number blank": Case(counts=with_numbers("", 4, 4)),
    "most cells": Case(limits={"most_cells": SIZE}),
    "a cell more than most": Case(limits={"most_cells": SIZE - 1},
        words="36 cells, more than the 35"),
    "most stored values": Case(limits={"most_entries": STORED}),
    "a stored value too many": Case(limits={"most_entries": STORED - 1}, words="values are stored"),
    "stored zeros count": Case(values(with_stored_zeros), limits={"most_entries": STORED},
        words="432 values are stored"),
    # Values
    "log values": Case(values(np.log1p), words="values with fractions"),
    "a half": Case(first_value(2.5), words="1 cells hold values with fractions"),
    "a fraction above the limit": Case(first_value(1 + 1.1e-6, "float64"), words="fractions"),
    "a fraction below the limit": Case(first_value(1 + 0.9e-6, "float64")),
    "all fractions below the limit": Case(values(lambda x: (x + 5e-7).astype("float64"))),
    "nearly whole from below": Case(first_value(3 - 1e-9, "float64")),
    "a fraction at the limit": Case(first_value(1 + 1e-6, "float64")),
    "a fraction that float32 does not hold": Case(first_value(1000 + 1e-5, "float64")),
    "a fraction that float32 holds": Case(first_value(1000 + 1e-4, "float64"), words="fractions"),
    "negative beyond float32": Case(first_value(-1e-60, "float64")),
    "infinite and negative": Case(put(-np.inf), words="infinite values"),
    "NaN, stored sparse": Case(then(put(np.nan), values(sparse.csr_matrix)), words="NaN values"),
    "NaN, by columns": Case(then(put(np.nan), values(sparse.csc_matrix)), words="NaN values"),
    "negative whole number": Case(first_value(-3, "int64"), words="negative values"),
    "negative, by columns": Case(then(first_value(-1), values(sparse.csc_matrix)),
        words="negative values"),
    "a half, in every cell": Case(values(lambda x: x + np.float32(0.5)), words="fractions"),
    "counts scaled to 10,000": Case(values(lambda x: x / x.sum(1, keepdims=True) * 1e4),
        words="fractions"),
    "a million, float32 by rows": Case(as_csr(first_total(1_000_000), "float32")),
    "a million and one, float32 by rows": Case(as_csr(first_total(1_000_001), "float32"),
        words="1,000,001"),
    "a million and one, int64 by columns": Case(
        then(first_total(1_000_001), values(lambda x: sparse.csc_matrix(x.astype("int64")))),
        words="1,000,001"),
    "70,000 counts in uint16": Case(
        then(first_total(40_000), values(lambda x: x + np.eye(*x.shape) * 3e4),
            as_csr(None, "uint16"))),
    "every cell too deep": Case(values(lambda x: x * 1e5), words="36 cells hold more than"),
    "a value beyond float32": Case(first_value(1e300, "float64"), words="infinite values"),
    "two targets empty": Case(silent(lambda cells: cells.obs[KEY] != "G0"), words="2 labels"),
    "one gene only": Case(values(lambda x: x * (np.arange(len(GENES)) == 3) + 0)),
    "a million counts": Case(first_total(1_000_000)),
    "a million and one": Case(first_total(1_000_001), words="more than 1,000,000 counts"),
    "negative": Case(first_value(-1), words="negative values"),
    "negative zero": Case(first_value(-0.0)),
    "negative zero, stored sparse": Case(then(first_value(-0.0), values(sparse.csr_matrix))),
    "negative within the limit": Case(first_value(-1e-7, "float64"), words="negative values"),
    "negative fraction": Case(first_value(-0.5), words="negative values"),
    "NaN": Case(put(np.nan), words="NaN values"),
    "infinite": Case(put(np.inf), words="infinite values"),
    "all empty": Case(silent(lambda cells: slice(None)), words="all values are 0"),
    "target empty": Case(silent(lambda cells: of(cells, "G1")), words="every cell is 0"),
    "target empty in a context": Case(silent(lambda cells: pair(cells, "A", "G1"))),
    "cell empty": Case(silent(lambda cells: 0)),
    # Several
    "five at once": Case(
        then(with_controls, first_context("X"), some_labels("G1", "G9", 1), first_value(-1)),
        words="not asked"),
}  # fmt: skip


def in_final_phase(case: Case) -> Case:
    """Ask for the contexts of the final phase, and let the file have these."""
    final = dict(zip(CONTEXTS, DEF["contexts"], strict=True))
    steps = filter(None, [case.spoil, renamed_contexts(**final)])
    words = re.sub(r"\b[ABC]\b", lambda found: final[found[0]], case.words)
    return replace(case, spoil=then(*steps), manifest=DEF, words=words)


#: The same mutants in the final phase, where that makes sense; for the benchmark.
FINAL = {
    f"final phase: {name}": in_final_phase(case)
    for name, case in CASES.items()
    if case.manifest == MANIFEST
    and not (case.file or case.options or "by context" in name or "phase" in name)
    and name
    not in (
        "no contexts",
        "contexts swapped",
        "transposed",
        "three contexts and a fourth",
        "all six contexts",
    )
}


def write(case: Case, folder):
    """Write a case's files; return the path of the prediction, and the options that name lists."""
    path = folder / "pred.h5ad"
    cells = sound_cells()
    cells = case.spoil(cells) if case.spoil else cells
    cells.copy().write_h5ad(path)
    if case.file:
        case.file(path)
    if case.genes is not None:
        (folder / "gene_names.csv").write_bytes(_bytes(case.genes))
    lists = {"genes": folder / "gene_names.csv"}
    if case.counts is not None:
        lists["counts"] = folder / "pert_counts.csv"
        lists["counts"].write_bytes(_bytes(case.counts))
    if case.manifest is not None:
        text = case.manifest if isinstance(case.manifest, str) else json.dumps(case.manifest)
        (folder / "manifest.json").write_text(text)
    return path, lists


def _bytes(text):
    return text if isinstance(text, bytes) else text.encode()
