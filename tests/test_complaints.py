"""What users of other tools complained of, and that it cannot happen here.

A source is a thread of the tool's users, or what the code of a version does. The book shows the
table.
"""

import os
import tracemalloc
from pathlib import Path

import anndata
import numpy as np
import pytest
from bad_cases import CASES, GENES, TARGETS, good_cells
from conftest import CONTROL, KEY, annotated
from scipy import sparse

from vcc_helpers import de_table, lognorm, pseudobulk, score, submission
from vcc_helpers.cli import main
from vcc_helpers.submission import archive

pytestmark = pytest.mark.filterwarnings("ignore:.*Transforming to str index")


#: What was complained of, where, and the test, or the bad input of bad_cases.py, that shows it.
COMPLAINTS = (
    ("Log values of deep cells are taken for counts when fold changes are computed.",
        "ArcInstitute/pdex#55, ArcInstitute/cell-eval#184, #197",
        "test_fold_changes_of_deep_log_values"),
    ("The fold change of log values is their quotient.",
        "ArcInstitute/pdex#41", "test_fold_changes_of_deep_log_values"),
    ("A file that mixes counts and log values is scored, to the profit of who mixes.",
        "ArcInstitute/cell-eval#204", "counts beside logs"),
    ("Nothing tells whether a file was taken for counts or for log values.",
        "cell-eval 0.6.6: the guess is a line of its log, off by default",
        "test_submission.test_nothing_is_said_of_good_cells"),
    ("Logarithms to base 2 are scored as natural ones.",
        "cell-eval 0.6.6: accepts all fractions between 0 and 15", "base 2"),
    ("A single NaN among log values is packed, and found when the file is scored.",
        "cell-eval 0.6.6: prep does not look", "NaN among logs"),
    ("A gene that the controls never show gets a fold change of any size from a single count.",
        "ArcInstitute/pdex#72", "test_scoring.test_the_clip_fills_in_where_a_mean_is_zero"),
    ("Editing one's own control cells changes the score.",
        "ArcInstitute/cell-eval#183, #196",
        "test_scoring_2026.test_own_controls_are_not_looked_at"),
    ("A model's output has no controls, and the tool stops with an unclear error.",
        "ArcInstitute/cell-eval#124", "no controls"),
    ("The option that names the control label of prep has no effect.",
        "cell-eval 0.6.6: parsed as --ntc-name, never passed on",
        "test_the_name_of_the_controls_is_asked_for_and_ignored"),
    ("For a perturbation that it does not know, a model writes control cells.",
        "arc-state 0.11.1: a target without an embedding is given the control's",
        "copies of controls"),
    ("A lost target passes the packing tool, and the upload fails.",
        "cell-eval 0.6.6: prep knows no list of targets", "missing target"),
    ("Cells whose label is missing become a perturbation called nan.",
        "cell-eval 0.6.6: prep writes them, the scorer refuses them", "label missing"),
    ("The genes are right, their order is not.",
        "ArcInstitute/cell-eval#160", "gene order"),
    ("The list of genes has a header, and a gene of that name is missing.",
        "cell-eval 0.6.6: reads the list without a header", "list with a header"),
    ("Thousands of gene names are printed when some are missing.",
        "cell-eval 0.6.6: prep prints both sets whole", "test_an_error_fills_the_screen"),
    ("A view of cells is refused, or costs a copy of them all.",
        "cell-eval 0.6.6: turns a view dense, also a sparse one",
        "test_scoring.test_every_storage_scores_the_same_to_the_last_bit"),
    ("Whether a file is sparse changes what comes out.",
        "ArcInstitute/cell-eval#112",
        "test_scoring.test_every_storage_scores_the_same_to_the_last_bit"),
    ("SciPy's newer sparse arrays are not known as sparse, and the tool fails.",
        "cell-eval 0.6.6: asks for csr_matrix by name", "sparse array"),
    ("A large file is read whole, made dense and copied, and the machine runs out of memory.",
        "cell-eval 0.6.6: a dense matrix per file; scverse/scanpy#2365 for backed files",
        "test_scoring_holds_everything_in_memory"),
    ("A gene number out of range crashes Python, and nothing is said.",
        "cell-eval 0.6.6 with SciPy: signal 11", "column out of range"),
    ("Packing needs the programs tar and zstd, which Windows and many servers lack.",
        "cell-eval 0.6.6: calls both", "test_other_programs_have_to_be_there"),
    ("When packing fails on a full disk, the tool says that it is done.",
        "cell-eval 0.6.6: does not look at the programs' exit status",
        "test_faults.test_a_file_is_old_or_new"),
    ("A number comes out, and it is not said what it is to be held against.",
        "ArcInstitute/cell-eval#196", "test_scoring.test_a_card_shows_and_keeps_its_anchors"),
    ("The area under the curve is turned round: the better the prediction, the smaller.",
        "ArcInstitute/cell-eval#201", "test_metrics.test_precision_and_recall_by_hand"),
    ("The overall score needs a baseline that no file comes with.",
        "cell-eval 0.6.6: score needs a table made from the training data",
        "test_scoring.test_overall_is_the_formula"),
    ("After scoring, the caller's counts are log values.",
        "cell-eval 0.6.6: normalises in place",
        "test_scoring.test_every_storage_scores_the_same_to_the_last_bit"),
    ("After scoring, the caller's random numbers are no longer random.",
        "cell-eval: seeds NumPy's global generator",
        "test_scoring_seeds_nothing_and_knows_no_order_of_cells"),
    ("The same cells in another order score differently.",
        "cell-eval 0.6.6: ties of DES are left to the order in which a parallel sort meets them",
        "test_scoring_seeds_nothing_and_knows_no_order_of_cells"),
    ("Sums of counts in a small type start again from 0.",
        "NumPy: uint8 holds 255", "test_contrast.test_any_cells_any_way"),
)  # fmt: skip


def test_each_complaint_has_its_test():
    here = Path(__file__).parent
    for complaint, _, name in COMPLAINTS:
        file, _, test = f"test_complaints.{name}".rpartition(".")
        file = file.rpartition(".")[2]
        known = name in CASES or f"def {test}(" in (here / f"{file}.py").read_text("utf-8")
        assert known, complaint


def test_fold_changes_of_deep_log_values():
    counts = good_cells()
    counts.X = counts.X * 1000  # tens of thousands of counts a cell: the sum of logs is above 15
    logs = counts.copy()
    logs.X = lognorm(counts)
    assert logs.X.sum(axis=1).min() > 15
    tables = [de_table(cells) for cells in (counts, logs)]
    np.testing.assert_allclose(*(table.log2_fold_change for table in tables), rtol=1e-5)
    row, mean = list(tables[1].perturbations).index("G1"), pseudobulk(logs)
    target, control = (mean[[name]].X[0, 5] for name in ("G1", CONTROL))
    expected = np.log2(np.expm1(target) / np.expm1(control))
    assert tables[1].log2_fold_change[row, 5] == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(np.log2(target / control), rel=1e-2)


def test_the_name_of_the_controls_is_asked_for_and_ignored(tmp_path):
    cells = good_cells()
    cells.obs[KEY] = cells.obs[KEY].astype(str).replace({CONTROL: "ctrl"})
    cells.write_h5ad(tmp_path / "p.h5ad")
    (tmp_path / "genes.csv").write_text("\n".join(GENES))
    command = ["prep", "p.h5ad", "--genes", "genes.csv", "-o", "o.vcc", "--control", "ctrl"]
    command = [str(tmp_path / word) if "." in word else word for word in command]
    assert main(command) == 0
    inner = anndata.read_h5ad(archive.unpack(tmp_path / "o.vcc", tmp_path / "o.h5ad"))
    assert (inner.obs[KEY] == "ctrl").sum() == 60


def test_an_error_fills_the_screen():
    cells = annotated(sparse.csr_matrix((3, 9000), dtype=np.float32), ["A", "B", CONTROL])
    cells.var_names = [f"ENSG{i:011d}" for i in range(9000)]
    text = str(submission.check(cells, genes=[f"GENE{i}X" for i in range(9000)]))
    assert "only 0 of the 9000 names of the list of genes are in the file" in text
    assert max(len(line) for line in text.splitlines()) < 600


def test_scoring_holds_everything_in_memory(tmp_path):
    n = 1500
    matrix = sparse.random(n, 4000, 0.05, format="csr", random_state=0, dtype=np.float32).ceil()
    annotated(matrix, np.repeat(["A", "B", CONTROL], n // 3)).write_h5ad(tmp_path / "p.h5ad")
    submission.check(good_cells())  # what is compiled and imported is not the file's
    tracemalloc.start()
    submission.check(tmp_path / "p.h5ad")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * 4000 * 4  # one dense matrix in float32 is more


def test_other_programs_have_to_be_there(tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PATH", "")
    submission.prep(good_cells(), tmp_path / "o.vcc", genes=GENES)
    with archive.opened(tmp_path / "o.vcc") as path:
        assert anndata.read_h5ad(path).n_obs == 131


def test_scoring_seeds_nothing_and_knows_no_order_of_cells():
    pred, real, rng = good_cells(), good_cells(), np.random.default_rng(5)
    for label in [*TARGETS, CONTROL]:  # as the prediction, with other noise
        rows = np.flatnonzero(real.obs[KEY] == label)
        real.X[rows] = real.X[rng.choice(rows, len(rows))]
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    card = score(pred, real, ceiling=True)
    assert np.random.random() == expected  # noqa: NPY002
    mixed = pred[rng.permutation(pred.n_obs)].copy()
    assert score(mixed, real).per_perturbation.equals(card.per_perturbation)
