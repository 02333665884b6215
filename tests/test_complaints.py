"""What users of other tools complained of, and that it cannot happen here.

The first line of each test is the complaint, the second its source: a thread of the tool's users,
or what the code of a version does. The book shows them as a table.
"""

import os
import subprocess
import sys
import tracemalloc

import anndata
import numpy as np
import pandas as pd
import pytest
from bad_cases import GENES, TARGETS, good_cells, lognorm_but, then, values
from conftest import CONTROL, KEY, STORAGES, stored
from scipy import sparse

from vcc_helpers import (
    datasets,
    de_table,
    lognorm,
    metrics,
    models,
    pseudobulk,
    score,
    scoring,
    submission,
)
from vcc_helpers.cli import main
from vcc_helpers.submission import archive

pytestmark = pytest.mark.filterwarnings("ignore:.*Transforming to str index")


def other_cells():
    """Return real cells to score against: as the prediction, with other noise."""
    real, rng = good_cells(), np.random.default_rng(5)
    for label in [*TARGETS, CONTROL]:
        rows = np.flatnonzero(real.obs[KEY] == label)
        real.X[rows] = real.X[rng.choice(rows, len(rows))]
    return real


def same(card, other):
    pd.testing.assert_frame_equal(card.per_perturbation, other.per_perturbation)


# Scale


def test_deep_log_values_are_taken_for_counts():
    """Log values of deep cells are taken for counts when fold changes are computed.

    ArcInstitute/pdex#55, ArcInstitute/cell-eval#184, #197
    """
    counts = good_cells()
    counts.X = counts.X * 1000  # tens of thousands of counts a cell: the sum of logs is above 15
    logs = counts.copy()
    logs.X = lognorm(counts)
    assert logs.X.sum(axis=1).min() > 15
    tables = [de_table(cells).log2_fold_change for cells in (counts, logs)]
    np.testing.assert_allclose(*tables, rtol=1e-5)
    raw = pseudobulk(logs)
    ratio = np.expm1(raw[["G1"]].X[0, 5]) / np.expm1(raw[[CONTROL]].X[0, 5])
    row = list(de_table(logs).perturbations).index("G1")
    np.testing.assert_allclose(tables[1][row, 5], np.log2(ratio), rtol=1e-5)


def test_log_values_are_divided_where_they_should_be_subtracted():
    """The fold change of log values is their quotient.

    ArcInstitute/pdex#41
    """
    cells = good_cells(scale="lognorm")
    mean = pseudobulk(cells)
    table = de_table(cells)
    gene, row = 6, list(table.perturbations).index("G2")
    target, control = (mean[[name]].X[0, gene] for name in ("G2", CONTROL))
    expected = np.log2(np.expm1(target) / np.expm1(control))
    assert table.log2_fold_change[row, gene] == pytest.approx(expected, rel=1e-5)
    assert table.log2_fold_change[row, gene] != pytest.approx(np.log2(target / control), rel=1e-2)


def test_counts_and_logs_in_one_file_are_scored():
    """A file that mixes counts and log values is scored, to the profit of who mixes.

    ArcInstitute/cell-eval#204
    """
    small = then(values(lambda m: np.minimum(m, 9)), lognorm_but(CONTROL))(good_cells())
    large = lognorm_but("G1")(good_cells())
    for cells in (small, large):
        assert "counts mixed with log values" in str(submission.check(cells))
        assert not submission.check(cells).ok


def test_the_scale_is_guessed_in_silence():
    """Nothing tells whether a file was taken for counts or for log values.

    cell-eval 0.6.6: the guess is a line of its log, off by default
    """
    assert submission.check(good_cells()).summary.endswith("counts")
    assert submission.check(good_cells(scale="lognorm")).summary.endswith("lognorm")


def test_another_base_of_the_logarithm_is_not_noticed():
    """Logarithms to base 2 are scored as natural ones.

    cell-eval 0.6.6: accepts all fractions between 0 and 15
    """
    cells = good_cells(scale="lognorm")
    cells.X = cells.X / np.float32(np.log(2))
    assert "logarithms to base 2" in str(submission.check(cells))


def test_a_value_that_is_not_a_number_passes():
    """A single NaN among log values is packed, and found when the file is scored.

    cell-eval 0.6.6: prep does not look
    """
    cells = good_cells(scale="lognorm")
    cells.X[3, 4] = np.nan
    assert "gene 'G4'" in str(submission.check(cells))


def test_rare_genes_have_the_largest_fold_changes():
    """A gene that the controls never show gets a fold change of any size from a single count.

    ArcInstitute/pdex#72
    """
    cells = good_cells()
    cells.X[:, 7] = 0
    cells.X[np.flatnonzero(cells.obs[KEY] == "G1")[0], 7] = 1
    table = de_table(cells)
    assert table.log2_fold_change[list(table.perturbations).index("G1"), 7] == pytest.approx(
        np.log2(20), rel=1e-6
    )


# Controls and labels


def test_controls_in_the_prediction_move_the_score():
    """Editing one's own control cells changes the score.

    ArcInstitute/cell-eval#183, #196
    """
    real, pred = other_cells(), good_cells()
    edited = pred.copy()
    rows = np.flatnonzero(edited.obs[KEY] == CONTROL)
    edited.X[rows] = edited.X[rows[::-1]] + 1
    same(score(edited, real, "vcc2026"), score(pred, real, "vcc2026"))
    assert not score(edited, real).summary.equals(score(pred, real).summary)  # the rules of 2025


def test_controls_are_missing_from_predictions():
    """A model's output has no controls, and the tool stops with an unclear error.

    ArcInstitute/cell-eval#124
    """
    pred = good_cells()
    pred = pred[pred.obs[KEY] != CONTROL].copy()
    assert "append the control cells" in str(submission.check(pred))
    assert len(score(pred, other_cells(), "vcc2026").per_perturbation) == 4


def test_the_name_of_the_controls_is_asked_for_and_ignored(tmp_path):
    """The option that names the control label of prep has no effect.

    cell-eval 0.6.6: parsed as --ntc-name, never passed on
    """
    cells = good_cells()
    cells.obs[KEY] = cells.obs[KEY].astype(str).replace({CONTROL: "ctrl"})
    cells.write_h5ad(tmp_path / "p.h5ad")
    (tmp_path / "genes.csv").write_text("\n".join(GENES))
    command = ["prep", "p.h5ad", "--genes", "genes.csv", "-o", "o.vcc", "--control", "ctrl"]
    command = [str(tmp_path / word) if "." in word else word for word in command]
    assert main(command) == 0
    inner = anndata.read_h5ad(archive.unpack(tmp_path / "o.vcc", tmp_path / "o.h5ad"))
    assert (inner.obs[KEY] == "ctrl").sum() == 60


def test_an_unknown_target_becomes_controls_without_a_word():
    """For a perturbation that it does not know, a model writes control cells.

    arc-state 0.11.1: a target without an embedding is given the control's
    """
    cells = good_cells()
    rows, controls = (np.flatnonzero(cells.obs[KEY] == name) for name in ("G1", CONTROL))
    cells.X[rows] = cells.X[controls[: len(rows)]]
    assert "each cell is also a control cell: 'G1'" in str(submission.check(cells))
    world = datasets.make_h1_like(n_genes=60, n_targets=(6, 2, 2), contexts=("H1", "K562"))
    table = pd.DataFrame(np.eye(6), index=world.split["train"])
    model = models.knn_baseline(table).fit(pseudobulk(world.cells("train")))
    with pytest.raises(KeyError, match="UNKNOWN"):
        model.predict(["UNKNOWN"])


def test_a_missing_target_is_found_a_day_later():
    """A lost target passes the packing tool, and the upload fails.

    cell-eval 0.6.6: prep knows no list of targets
    """
    cells = good_cells()
    lost = cells[cells.obs[KEY] != "G2"].copy()
    n_cells = submission.read_counts(cells.obs[KEY].value_counts().drop(CONTROL))
    assert "1 of 4 targets are missing: 'G2'" in str(submission.check(lost, counts=n_cells))


def test_cells_without_a_label_pass():
    """Cells whose label is missing become a perturbation called nan.

    cell-eval 0.6.6: prep writes them, the scorer refuses them
    """
    cells = good_cells()
    cells.obs[KEY] = cells.obs[KEY].astype(object)
    cells.obs.iloc[3, 0] = np.nan
    assert "1 of 131 cells have no label" in str(submission.check(cells))


# Genes


def test_the_gene_order_is_wrong():
    """The genes are right, their order is not.

    ArcInstitute/cell-eval#160
    """
    cells = good_cells()[:, ::-1].copy()
    report = submission.check(cells, genes=GENES)
    assert "position 0 is 'G23', expected 'G0'" in str(report)
    assert report.problems[0].mended == "genes put in order"
    with pytest.raises(ValueError, match="another order"):
        score(cells, other_cells())


def test_a_header_in_the_list_of_genes_is_a_gene(tmp_path):
    """The list of genes has a header, and a gene of that name is missing.

    cell-eval 0.6.6: reads the list without a header
    """
    (tmp_path / "genes.csv").write_text("gene_name\n" + "\n".join(GENES))
    assert submission.check(good_cells(), genes=tmp_path / "genes.csv").ok


def test_an_error_fills_the_screen():
    """Thousands of gene names are printed when some are missing.

    cell-eval 0.6.6: prep prints both sets whole
    """
    cells = anndata.AnnData(
        sparse.csr_matrix((3, 9000), dtype=np.float32),
        obs=pd.DataFrame({KEY: ["A", "B", CONTROL]}, index=list("abc")),
        var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(9000)]),
    )
    text = str(submission.check(cells, genes=[f"GENE{i}X" for i in range(9000)]))
    assert "9000 of 9000 genes are missing" in text
    assert max(len(line) for line in text.splitlines()) < 600


# Files and memory


def test_a_view_is_read_wrongly(tmp_path):
    """A view of cells is refused, or costs a copy of them all.

    cell-eval 0.6.6: turns a view dense, also a sparse one
    """
    cells = good_cells()
    view = cells[10:]
    assert view.is_view
    same(score(view, other_cells()), score(view.copy(), other_cells()))
    assert submission.check(view, genes=GENES).ok


def test_sparse_and_dense_files_score_differently(tmp_path):
    """Whether a file is sparse changes what comes out.

    ArcInstitute/cell-eval#112
    """
    cards = []
    for storage in [name for name in STORAGES if "view" not in name]:
        (tmp_path / storage).mkdir()
        cards.append(score(stored(good_cells(), storage, tmp_path / storage), other_cells()))
    for card in cards[1:]:
        same(card, cards[0])


def test_a_sparse_array_is_no_sparse_matrix(tmp_path):
    """SciPy's newer sparse arrays are not known as sparse, and the tool fails.

    cell-eval 0.6.6: asks for csr_matrix by name
    """
    cells = good_cells()
    cells = anndata.AnnData(sparse.csr_array(cells.X), obs=cells.obs, var=cells.var)
    submission.prep(cells, tmp_path / "a.vcc", genes=GENES)
    submission.prep(good_cells(), tmp_path / "b.vcc", genes=GENES)
    assert (tmp_path / "a.vcc").read_bytes() == (tmp_path / "b.vcc").read_bytes()


def test_scoring_holds_everything_in_memory(tmp_path):
    """A large file is read whole, made dense and copied, and the machine runs out of memory.

    cell-eval 0.6.6: a dense matrix per file; scverse/scanpy#2365 for backed files
    """
    n = 6000
    matrix = sparse.random(n, 4000, 0.1, format="csr", random_state=0, dtype=np.float32)
    matrix.data = np.ceil(matrix.data * 9)
    obs = pd.DataFrame({KEY: np.repeat(["A", "B", CONTROL], n // 3)}, index=map(str, range(n)))
    var = pd.DataFrame(index=[f"G{i}" for i in range(4000)])
    anndata.AnnData(matrix, obs=obs, var=var).write_h5ad(tmp_path / "p.h5ad")
    submission.check(good_cells())  # what is compiled and imported is not the file's
    tracemalloc.start()
    submission.check(tmp_path / "p.h5ad")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * 4000 * 4  # one dense matrix in float32 is more


def test_a_broken_file_ends_the_interpreter(tmp_path):
    """A gene number out of range crashes Python, and nothing is said.

    cell-eval 0.6.6 with SciPy: signal 11
    """
    from bad_cases import far_column, sparse_file

    good_cells().write_h5ad(tmp_path / "good.h5ad")
    sparse_file(far_column)(tmp_path / "p.h5ad", tmp_path / "good.h5ad")
    command = [sys.executable, "-m", "vcc_helpers", "check", str(tmp_path / "p.h5ad")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the sparse matrix X is damaged" in done.stderr


def test_other_programs_have_to_be_there(tmp_path, monkeypatch):
    """Packing needs the programs tar and zstd, which Windows and many servers lack.

    cell-eval 0.6.6: calls both
    """
    monkeypatch.setitem(os.environ, "PATH", "")
    submission.prep(good_cells(), tmp_path / "o.vcc", genes=GENES)
    with archive.opened(tmp_path / "o.vcc") as path:
        assert anndata.read_h5ad(path).n_obs == 131


def test_a_failed_program_leaves_a_file_that_looks_done(tmp_path, monkeypatch):
    """When packing fails on a full disk, the tool says that it is done.

    cell-eval 0.6.6: does not look at the programs' exit status
    """
    out = tmp_path / "o.vcc"
    out.write_text("old")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vcc_helpers.submission.archive._compress", full)
    with pytest.raises(OSError, match="No space left"):
        submission.prep(good_cells(), out, genes=GENES)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["o.vcc"]


# Scores


def test_nobody_knows_what_a_score_is_relative_to():
    """A number comes out, and it is not said what it is to be held against.

    ArcInstitute/cell-eval#196
    """
    card = score(good_cells(), other_cells(), ceiling=True)
    named = " ".join(card.anchors.index)
    assert all(word in named for word in ("chance", "mean", "half"))
    assert "chance" in repr(card) or "mean" in repr(card)


def test_a_good_prediction_has_an_area_below_one_half():
    """The area under the curve is turned round: the better the prediction, the smaller.

    ArcInstitute/cell-eval#201
    """
    truth = np.array([[True, True, False, False, False]])
    sure = np.array([[1e-8, 1e-6, 0.5, 0.7, 0.9]], dtype=np.float32)
    assert metrics.pr_auc(sure, truth)[0] == 1
    assert metrics.pr_auc(1 - sure, truth)[0] < 0.5


def test_the_baseline_has_to_be_found_somewhere():
    """The overall score needs a baseline that no file comes with.

    cell-eval 0.6.6: score needs a table made from the training data
    """
    real = other_cells()
    base = scoring.baseline(real)
    assert base.overall(base) == 0
    assert score(real, real).overall(base) > 0


def test_scoring_changes_the_cells_it_is_given():
    """After scoring, the caller's counts are log values.

    cell-eval 0.6.6: normalises in place
    """
    pred, real = good_cells(), other_cells()
    before = pred.X.copy(), real.X.copy()
    score(pred, real)
    submission.check(pred, genes=GENES)
    assert np.array_equal(pred.X, before[0]) and np.array_equal(real.X, before[1])
    assert not pred.uns


def test_scoring_seeds_everybodys_random_numbers():
    """After scoring, the caller's random numbers are no longer random.

    cell-eval: seeds NumPy's global generator
    """
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    score(good_cells(), other_cells(), ceiling=True)
    assert np.random.random() == expected  # noqa: NPY002


def test_the_order_of_the_cells_changes_the_score():
    """The same cells in another order score differently.

    cell-eval 0.6.6: ties of DES are left to the order in which a parallel sort meets them
    """
    pred, real = good_cells(), other_cells()
    mixed = pred[np.random.default_rng(0).permutation(pred.n_obs)].copy()
    same(score(mixed, real), score(pred, real))


def test_small_integers_overflow():
    """Sums of counts in a small type start again from 0.

    NumPy: uint8 holds 255
    """
    cells = good_cells()
    counts = np.minimum(cells.X, 40)
    cells.X = counts.astype(np.uint8)
    wide = good_cells()
    wide.X = counts
    np.testing.assert_allclose(pseudobulk(cells).X, pseudobulk(wide).X, rtol=1e-6)
    assert submission.check(cells, genes=GENES).ok
