"""Input that cannot be scored: what was wrong, what was seen, what to do; a line a problem.

Bad predictions and files are in bad_cases.py; test_submission.py holds what the check says of them.
"""

import anndata
import bad_cases as bad
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, make_cells
from scipy import sparse

from vcc_helpers import de_table, lognorm, pseudobulk, score, sort_cells, submission
from vcc_helpers.cli import main
from vcc_helpers.datasets import read_screen

pytestmark = pytest.mark.filterwarnings("ignore:Variable names are not unique")


def unlabelled_category(labels):
    return labels.astype("category").cat.remove_categories("G1")


def half_log(matrix):
    matrix[::2] = np.log1p(matrix[::2])
    matrix[1, 0] = 40
    return matrix


#: What is done to good cells, and words that must be said.
CASES = {
    "wrong column": (bad.column("gene"), "pred: obs has no column 'target_gene'", "it has 'gene'",
        "perturbation_key="),
    "missing controls": (bad.without(CONTROL), "pred: no control cells",
        "never equals 'non-targeting'", "'G0', 'G1'", "control="),
    "only controls": (lambda cells: cells[cells.obs[KEY] == CONTROL].copy(),
        "pred: only control cells ('non-targeting')", "expected perturbed cells"),
    "gene missing": (lambda cells: cells[:, cells.var_names != "G7"].copy(),
        "pred: 1 of 24 genes of real are missing: 'G7'", "every one must be predicted"),
    "unknown gene": (bad.one_more_gene, "pred: 1 genes are not in real: 'NEW'", "remove them"),
    "genes in another order": (lambda cells: cells[:, ::-1].copy(), "another order",
        "position 0 is 'G23', expected 'G0'", "pred[:, real.var_names]"),
    "repeated gene": (bad.renamed(G0="G1"), "pred: gene names must be unique",
        "'G1' occur more than once", "drop or sum"),
    "perturbation missing": (bad.without("G1"),
        "pred: 1 of 5 perturbations of real are missing: 'G1'", "every one must be predicted"),
    "unknown perturbation": (bad.some_labels("G0", "G9", 1),
        "pred: 1 perturbations are not in real: 'G9'", "remove them"),
    "label NaN": (bad.some_labels("G0", np.nan, 1), "pred: 1 of 131 cells have no label",
        "the first is 'c", "label or remove them"),
    "label in spaces": (bad.some_labels("G0", " G0", 3), "pred: 1 labels of obs['target_gene']",
        "have spaces around them: ' G0'", "check --fix"),
    "category removed": (bad.labelled(unlabelled_category), "20 of 131 cells have no label"),
    "negative integer": (bad.put(-1, "int32"), "negative values", "gene 'G4'", "never negative"),
    "NaN": (bad.put(np.nan), "pred: NaN or infinite values", "gene 'G4'", "finite"),
    "infinite, sparse": (bad.then(bad.put(np.inf), bad.values(sparse.csr_matrix)),
        "pred: NaN or infinite"),
    "counts mixed with log values": (bad.values(half_log), "pred: values have fractions", "reach ",
        "below 15", "give raw counts, or log1p"),
    "no cells": (lambda cells: cells[:0].copy(),
        "pred: empty, shape (0, 24); expected at least one cell", "\npred: no control cells"),
    "several problems": (bad.then(bad.without(CONTROL), bad.renamed(G0="G1")),
        "pred: gene names must be unique", "\npred: no control cells"),
}  # fmt: skip


def assert_said(text, words):
    assert all(word in text for word in words), text
    assert len(text.splitlines()) == 1 + sum(word.startswith("\n") for word in words), text


@pytest.mark.parametrize("name", CASES)
def test_cells_that_cannot_be_scored(name):
    spoil, *words = CASES[name]
    with pytest.raises(ValueError) as caught:
        score(spoil(bad.good_cells()), make_cells(0))
    assert_said(str(caught.value), words)


def test_the_command_says_a_line_a_problem_and_leaves_nothing(tmp_path, capsys):
    make_cells(0).write_h5ad(good := tmp_path / "real.h5ad")
    spoil, *words = CASES["several problems"]
    spoil(bad.good_cells()).write_h5ad(tmp_path / "pred.h5ad")
    outputs = ["--json", str(tmp_path / "out.json"), "--csv", str(tmp_path / "out.csv")]
    assert main(["score", str(tmp_path / "pred.h5ad"), str(good), *outputs]) == 1
    out, err = capsys.readouterr()
    lines = [line.removeprefix("vcc-helpers: ") for line in err.splitlines()]
    assert out == "" and all(f"vcc-helpers: {line}" in err for line in lines)
    assert_said("\n".join(line for line in lines if not line.startswith("warning: ")), words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pred.h5ad", "real.h5ad"]


def test_the_side_that_is_wrong_is_named():
    cells = make_cells(0)
    with pytest.raises(ValueError) as caught:
        score(cells[cells.obs[KEY] != CONTROL], cells[:, :0])
    assert [line[:5] for line in str(caught.value).splitlines()] == ["pred:", "real:"]
    spoilt = bad.put(np.nan)(cells.copy())
    with pytest.raises(ValueError, match=f"real: NaN .* cell '{spoilt.obs_names[2]}', gene 'G4'"):
        score(cells, spoilt)


@pytest.mark.parametrize("storage", ["csr", "csc"])
def test_the_first_bad_place_is_right_beyond_the_first_block(storage):
    matrix = sparse.lil_matrix((5000, 3), dtype=np.float32)
    matrix[:, 0] = 1
    matrix[4500, 2] = -1
    with pytest.raises(ValueError, match="cell '4500', gene '2'"):
        lognorm(anndata.AnnData(matrix.asformat(storage)))


@pytest.mark.parametrize("text", ["nan", "<NA>", "null", "", " NA "])
def test_every_way_in_has_one_rule_of_labels(text, tmp_path):
    cells = bad.some_labels("G0", text, 2)(bad.good_cells())
    cells.write_h5ad(path := tmp_path / "cells.h5ad")
    ways_in = {
        "score": lambda: score(path, path),
        "pseudobulk": lambda: pseudobulk(path),
        "de_table": lambda: de_table(cells),
        "sort": lambda: sort_cells(path, tmp_path / "sorted.h5ad"),
        "read_screen": lambda: read_screen(path),
        "mend": lambda: submission.mend(path, tmp_path / "mended.h5ad"),
    }
    for name, way_in in ways_in.items():
        with pytest.raises(ValueError, match="2 of 131 cells have no label") as caught:
            way_in()
        assert (f"the text {text.strip()!r}" in str(caught.value)) == bool(text), name
    assert [p.name for p in tmp_path.iterdir()] == ["cells.h5ad"]
    wanted = cells.obs[KEY].astype(str).str.strip().value_counts().drop(CONTROL)
    if text:  # unless there is a target of that very name
        assert "6 labels" in submission.check(path, counts=wanted).summary


@pytest.mark.parametrize("function", [lognorm, pseudobulk, de_table])
def test_every_way_in_checks_the_values(function):
    for value, words in ((-1, "negative"), (np.nan, "NaN"), (np.inf, "infinite")):
        with pytest.raises(ValueError, match=words):
            function(bad.put(value)(make_cells()))
    with pytest.raises(ValueError, match=r"empty, shape \(0, 24\)"):
        function(make_cells()[:0])


def test_what_is_neither_cells_nor_a_path():
    with pytest.raises(TypeError, match="expected an AnnData or the path of an .h5ad file, got"):
        score(np.ones((2, 2)), make_cells())
    empty = anndata.AnnData(obs=pd.DataFrame({KEY: ["A"]}, index=["c"]))
    with pytest.raises(ValueError, match="no matrix X"):
        score(empty, make_cells())
