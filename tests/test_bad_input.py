"""Every way that input goes wrong: what was wrong, what was seen, how to mend it.

Each case is a broken file, scored as a prediction in Python and on the command line, where it
must give exit status 1, one line a problem on standard error, and no output file.
"""

from dataclasses import dataclass

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from bad_cases import cut_short, folder, missing, text_file
from conftest import CONTROL, KEY, make_cells
from scipy import sparse

from vcc_helpers import de_table, lognorm, pseudobulk, score
from vcc_helpers.cli import main


@dataclass(frozen=True)
class Case:
    """`spoil` changes good cells, or `file` writes something else; the words must all be said."""

    words: tuple
    spoil: callable = None
    file: callable = None
    error: type = ValueError
    n_lines: int = 1


def column(name):
    def spoil(cells):
        cells.obs = cells.obs.rename(columns={KEY: name})
        return cells

    return spoil


def labels(change):
    def spoil(cells):
        cells.obs[KEY] = change(cells.obs[KEY])
        return cells

    return spoil


def first(value):
    return labels(lambda old: [value, *old[1:]])


def unlabelled_category(old):
    new = old.astype("category")
    return new.cat.remove_categories("G1")


def values(change, dtype=None):
    def spoil(cells):
        matrix = cells.X.astype(dtype or cells.X.dtype)
        cells.X = change(matrix)
        return cells

    return spoil


def put(value, row=2, gene=4):
    def change(matrix):
        matrix[row, gene] = value
        return matrix

    return change


def sparse_put(value):
    return lambda matrix: sparse.csr_matrix(put(value)(matrix))


def half_log(matrix):
    matrix[::2] = np.log1p(matrix[::2])
    matrix[1, 0] = 40
    return matrix


def repeated_gene(cells):
    cells.var_names = ["G0", "G0", *cells.var_names[2:]]
    return cells


def write_other_hdf5(path, good):
    with h5py.File(path, "w") as file:
        file["x"] = np.ones(3)


def write_without(*names):
    def write(path, good):
        path.write_bytes(good.read_bytes())
        with h5py.File(path, "a") as file:
            for name in names:
                del file[name]

    return write


def write_broken_sparse(path, good):
    cells = anndata.read_h5ad(good)
    cells.X = sparse.csr_matrix(cells.X)
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X/indices"]


def write_damaged(path, good):
    anndata.read_h5ad(good).write_h5ad(path, compression="gzip")
    with h5py.File(path) as file:
        place = file["X"].id.get_chunk_info(0)
    damaged = bytearray(path.read_bytes())
    middle = place.byte_offset + place.size // 2
    damaged[middle : middle + 20] = b"x" * 20
    path.write_bytes(damaged)


CASES = {
    "wrong column": Case(
        ("pred: obs has no column 'target_gene'", "it has 'gene'", "perturbation_key="),
        column("gene"),
    ),
    "no column at all": Case(
        ("pred: obs has no column", "it has nothing", "perturbation_key="),
        lambda cells: anndata.AnnData(cells.X, var=cells.var),
    ),
    "missing controls": Case(
        ("pred: no control cells", "never equals 'non-targeting'", "'G0', 'G1'", "control="),
        lambda cells: cells[cells.obs[KEY] != CONTROL],
    ),
    "other control label": Case(
        ("pred: no control cells", "'ctrl'", "control="),
        labels(lambda old: old.replace({CONTROL: "ctrl"})),
    ),
    "only controls": Case(
        ("pred: only control cells ('non-targeting')", "expected perturbed cells"),
        lambda cells: cells[cells.obs[KEY] == CONTROL],
    ),
    "gene missing": Case(
        ("pred: 1 of 24 genes of real are missing: 'G7'", "every one must be predicted"),
        lambda cells: cells[:, cells.var_names != "G7"],
    ),
    "unknown gene": Case(
        ("pred: 1 genes are not in real: 'NEW'", "remove them"),
        lambda cells: anndata.concat(
            [cells, anndata.AnnData(cells.X[:, :1], cells.obs, pd.DataFrame(index=["NEW"]))],
            axis=1,
            merge="same",
        ),
    ),
    "genes in another order": Case(
        ("another order", "position 0 is 'G23', expected 'G0'", "pred[:, real.var_names]"),
        lambda cells: cells[:, ::-1],
    ),
    "repeated gene": Case(
        ("pred: gene names must be unique", "'G0' occur more than once", "drop or sum"),
        repeated_gene,
    ),
    "perturbation missing": Case(
        ("pred: 1 of 5 perturbations of real are missing: 'G1'", "every one must be predicted"),
        lambda cells: cells[cells.obs[KEY] != "G1"],
    ),
    "perturbation without cells": Case(
        ("pred: 1 of 5 perturbations of real are missing: 'G1'",),
        lambda cells: cells[cells.obs[KEY] != "G1"].copy(),
    ),
    "unknown perturbation": Case(
        ("pred: 1 perturbations are not in real: 'G9'", "remove them"), first("G9")
    ),
    "label NaN": Case(
        ("pred: 1 of 131 cells have no label", "the first is 'c", "label or remove them"),
        first(np.nan),
    ),
    "label None": Case(("pred: 1 of 131 cells have no label",), first(None)),
    "label empty": Case(("pred: 1 of 131 cells have no label",), first("")),
    "label blank": Case(("pred: 1 of 131 cells have no label",), first("  ")),
    "category removed": Case(("pred: 20 of 131 cells have no label",), labels(unlabelled_category)),
    "negative": Case(("pred: negative values", "gene 'G4'", "never negative"), values(put(-1))),
    "negative integer": Case(
        ("pred: negative values", "gene 'G4'"), values(put(-1), dtype="int32")
    ),
    "negative sparse": Case(("pred: negative values", "gene 'G4'"), values(sparse_put(-0.5))),
    "NaN": Case(("pred: NaN or infinite values", "gene 'G4'", "finite"), values(put(np.nan))),
    "NaN sparse": Case(("pred: NaN or infinite", "gene 'G4'"), values(sparse_put(np.nan))),
    "infinite": Case(("pred: NaN or infinite values", "gene 'G4'"), values(put(np.inf))),
    "counts mixed with log values": Case(
        ("pred: values have fractions", "reach ", "below 15", "give raw counts, or log1p"),
        values(half_log),
    ),
    "normalised without the logarithm": Case(
        ("pred: values have fractions", "normalised without the logarithm"),
        values(lambda matrix: matrix * 2.7),
    ),
    "no cells": Case(
        ("pred: empty, shape (0, 24); expected at least one cell",),
        lambda cells: cells[:0],
        n_lines=2,  # and no controls
    ),
    "no genes": Case(("pred: empty, shape (131, 0)",), lambda cells: cells[:, :0]),
    "several problems": Case(
        ("gene names must be unique", "no control cells"),
        lambda cells: repeated_gene(cells[cells.obs[KEY] != CONTROL].copy()),
        n_lines=2,
    ),
    "text file": Case(("pred.h5ad is not an HDF5 file", "write_h5ad"), file=text_file),
    "truncated file": Case(("pred.h5ad cannot be read", "truncated"), file=cut_short),
    "folder": Case(("pred.h5ad is not an HDF5 file",), file=folder),
    "other HDF5 file": Case(("pred.h5ad cannot be read as an .h5ad",), file=write_other_hdf5),
    "no X": Case(("no matrix X|object 'X'",), file=write_without("X")),
    "no obs": Case(("pred.h5ad cannot be read", "'obs'"), file=write_without("obs")),
    "broken sparse matrix": Case(
        ("pred.h5ad cannot be read", "'indices'"), file=write_broken_sparse
    ),
    "damaged part": Case(("pred.h5ad cannot be read", "write it again"), file=write_damaged),
    "no file": Case(("no such file", "pred.h5ad"), file=missing, error=FileNotFoundError),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    path = tmp_path_factory.mktemp("good") / "real.h5ad"
    make_cells(0).write_h5ad(path)
    return path


@pytest.fixture
def bad(request, good, tmp_path):
    case, path = CASES[request.param], tmp_path / "pred.h5ad"
    if case.file:
        case.file(path, good)
        return case, path
    cells = case.spoil(make_cells(1))
    cells = cells.copy() if cells.is_view else cells
    cells.write_h5ad(path)
    return case, path


def assert_said(text, case):
    for words in case.words:
        assert any(choice in text for choice in words.split("|")), (words, text)
    assert len(text.splitlines()) == case.n_lines, text


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("bad", CASES, indirect=True)
def test_python_says_it(bad, good):
    case, path = bad
    with pytest.raises(case.error) as caught:
        score(path, good)
    assert_said(str(caught.value), case)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("bad", [n for n, c in CASES.items() if c.spoil], indirect=True)
def test_python_says_it_of_cells_in_memory(bad, good):
    case, path = bad
    cells = anndata.read_h5ad(path)
    with pytest.raises(case.error) as caught:
        score(cells, anndata.read_h5ad(good))
    assert_said(str(caught.value), case)


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize("bad", CASES, indirect=True)
def test_the_command_says_it_and_leaves_nothing(bad, good, tmp_path, capsys):
    case, path = bad
    before = sorted(tmp_path.rglob("*"))
    outputs = ["--json", str(tmp_path / "out.json"), "--csv", str(tmp_path / "out.csv")]
    assert main(["score", str(path), str(good), *outputs]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert all(line.startswith("vcc-helpers: ") for line in err.splitlines()), err
    said = [x for x in err.splitlines() if not x.startswith("vcc-helpers: warning: ")]
    assert_said("\n".join(said), case)
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_the_side_that_is_wrong_is_named(good):
    cells = make_cells(0)
    with pytest.raises(ValueError) as caught:
        score(cells[cells.obs[KEY] != CONTROL], cells[:, :0])
    assert [line[:5] for line in str(caught.value).splitlines()] == ["pred:", "real:"]
    spoilt = cells.copy()
    spoilt.X[5, 0] = np.nan
    with pytest.raises(ValueError, match=f"real: NaN .* cell '{spoilt.obs_names[5]}', gene 'G0'"):
        score(cells, spoilt)


@pytest.mark.parametrize("storage", ["csr", "csc"])
def test_the_first_bad_place_is_right_beyond_the_first_block(storage):
    matrix = sparse.lil_matrix((5000, 3), dtype=np.float32)
    matrix[:, 0] = 1
    matrix[4500, 2] = -1
    cells = anndata.AnnData(matrix.asformat(storage))
    with pytest.raises(ValueError, match="cell '4500', gene '2'"):
        lognorm(cells)


@pytest.mark.parametrize("function", [lognorm, pseudobulk, de_table])
@pytest.mark.parametrize(
    ("value", "words"), [(-1, "negative"), (np.nan, "NaN"), (np.inf, "infinite")]
)
def test_every_way_in_checks_the_values(function, value, words):
    cells = make_cells()
    cells.X[3, 2] = value
    with pytest.raises(ValueError, match=words):
        function(cells)


@pytest.mark.parametrize("function", [lognorm, pseudobulk, de_table])
def test_nothing_cannot_be_read(function):
    with pytest.raises(ValueError, match=r"empty, shape \(0, 24\)"):
        function(make_cells()[:0])


@pytest.mark.parametrize("thing", [None, 3, np.ones((2, 2))])
def test_what_is_neither_cells_nor_a_path(thing):
    with pytest.raises(TypeError, match="expected an AnnData or the path of an .h5ad file, got"):
        score(thing, make_cells())


def test_an_anndata_without_a_matrix():
    empty = anndata.AnnData(obs=pd.DataFrame({KEY: ["A"]}, index=["c"]))
    with pytest.raises(ValueError, match="no matrix X"):
        score(empty, make_cells())
