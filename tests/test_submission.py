"""The preflight check, what it mends, and the .vcc it writes, beside the official tool's."""

import contextlib
import json
import logging
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from bad_cases import CASES, GENES, TARGETS, good_cells, good_counts, write
from conftest import CONTROL, KEY, STORAGES, stored
from scipy import sparse

from vcc_helpers import lognorm, score, submission
from vcc_helpers.cli import main
from vcc_helpers.submission import archive

pytestmark = pytest.mark.filterwarnings("ignore:.*ames are not unique")
ERRORS = (ValueError, FileNotFoundError)


@pytest.fixture(params=CASES)
def bad(request, tmp_path):
    case = CASES[request.param]
    return case, *write(case, tmp_path)


def said_of(path, options):
    """Return what the check says, and whether the file may be handed in."""
    try:
        report = submission.check(path, **options)
    except ERRORS as error:
        return str(error), False
    return str(report), report.ok


def arguments(options):
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def assert_words(case, text):
    for words in case.words:
        assert any(choice in text for choice in words.split("|")), (words, text)


# What is said


def test_each_bad_input_is_told(bad):
    case, path, options = bad
    text, ok = said_of(path, options)
    assert_words(case, text)
    assert ok == (not case.refused), text


def test_the_command_tells_it_a_line_a_problem(bad, tmp_path, capsys):
    case, path, options = bad
    before = sorted(tmp_path.rglob("*"))
    assert main(["check", str(path), *arguments(options)]) == int(case.refused)
    out, err = capsys.readouterr()
    assert_words(case, err)
    assert "Traceback" not in err
    assert all(line.startswith("vcc-helpers: ") for line in err.splitlines())
    assert bool(out) == (not case.refused)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_safe_is_mended_and_nothing_else(bad, tmp_path):
    case, path, options = bad
    out = tmp_path / "mended.h5ad"
    if case.refused and not case.mended:
        with pytest.raises(ERRORS) as caught:
            submission.mend(path, out, **options)
        assert_words(case, str(caught.value)) if len(case.words) == 1 else None
        assert not out.exists()
        return
    report = submission.mend(path, out, **options)
    assert submission.check(out, **options).ok
    assert all(problem.mended for problem in report.problems if problem.refused)
    before, after = anndata.read_h5ad(path), anndata.read_h5ad(out)
    values = before.X.toarray() if sparse.issparse(before.X) else np.asarray(before.X)
    new = after.X.toarray()
    if not any("rounded" in problem.mended for problem in report.problems):
        assert np.array_equal(np.sort(new, axis=1), np.sort(values, axis=1))
    assert after.n_obs == before.n_obs
    assert list(after.var_names) == list(submission.read_genes(options["genes"]))


def test_mending_by_command_says_what_it_did(tmp_path, capsys):
    path, options = write(CASES["all of another tool"], tmp_path)
    out = tmp_path / "mended.h5ad"
    assert main(["check", str(path), *arguments(options), "--fix", str(out)]) == 0
    said = capsys.readouterr().err
    assert "vcc-helpers: mended, 'ctrl' renamed to 'non-targeting'" in said
    assert "vcc-helpers: mended, 4 labels renamed" in said
    assert anndata.read_h5ad(out).obs[KEY].astype(str).isin([*TARGETS, CONTROL]).all()


def test_a_mended_prediction_scores_as_the_right_one(tmp_path):
    good = good_cells(scale="lognorm")
    path = tmp_path / "out.h5ad"
    spoilt = good[:, ::-1].copy()
    spoilt.obs[KEY] = spoilt.obs[KEY].astype(str).replace({CONTROL: "ctrl"})
    submission.mend(spoilt, path, genes=GENES)
    real = good_cells()
    real.X = real.X[::-1].copy()
    card, expected = score(path, real), score(good, real)
    pd.testing.assert_frame_equal(card.per_perturbation, expected.per_perturbation)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("scale", ["counts", "lognorm"])
def test_nothing_is_said_of_good_cells(storage, scale, tmp_path):
    cells = stored(good_cells(scale=scale), storage, tmp_path)
    targets = good_cells().obs[KEY].value_counts().drop(CONTROL)
    targets = targets if "view" not in storage else labels(cells)
    report = submission.check(cells, genes=GENES, counts=targets)
    assert report.ok and not report.problems, str(report)
    assert report.summary == f"pred: {cells.n_obs} cells x 24 genes, 5 labels, {scale}"


def labels(cells):
    return cells.obs[KEY].astype(str).value_counts().drop(CONTROL)


@pytest.mark.parametrize("name", [n for n, c in CASES.items() if c.spoil and n != "no X"])
def test_cells_in_memory_are_told_the_same(name, tmp_path):
    case = CASES[name]
    path, options = write(case, tmp_path)
    assert said_of(anndata.read_h5ad(path), options) == said_of(path, options)


def test_an_anndata_without_x_is_told():
    cells = CASES["no X"].spoil(good_cells())
    assert "the layers 'counts' have some" in str(submission.check(cells))


def test_the_table_in_the_book_says_what_is_said_now(bad, request, monkeypatch):
    """What is quoted of ours on the page comes from a file that was written some time ago."""
    root = Path(__file__).resolve().parents[1]
    rows = json.loads((root / "benchmarks/results/bad_input.json").read_text("utf-8"))["cases"]
    row = next(row for row in rows if row["name"] == request.node.callspec.params["bad"])
    monkeypatch.syspath_prepend(root / "benchmarks")
    import bad_input

    _, path, options = bad
    said, status = bad_input._ours(path, options)
    sizes = re.compile(r"eof = \d+")  # of a file that was cut: another AnnData packs otherwise
    assert (sizes.sub("", said), status) == (sizes.sub("", row["ours"]), row["exit"])


def test_the_table_of_bad_inputs_is_long():
    assert len(CASES) >= 80
    assert sum(case.mended for case in CASES.values()) >= 15


def test_the_callers_cells_are_never_changed(tmp_path):
    cells = good_cells()[:, ::-1].copy()
    cells.obs[KEY] = cells.obs[KEY].astype(str).replace({CONTROL: "ctrl"})
    before = cells.copy()
    submission.mend(cells, tmp_path / "out.h5ad", genes=GENES)
    assert np.array_equal(cells.X, before.X)
    pd.testing.assert_frame_equal(cells.obs, before.obs)
    assert cells.var_names.equals(before.var_names)


def test_other_columns_are_kept_by_mending(tmp_path):
    cells = good_cells()[:, ::-1].copy()
    cells.obs["batch"], cells.var["length"] = "b1", np.arange(24)
    submission.mend(cells, tmp_path / "out.h5ad", genes=GENES)
    after = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert (after.obs["batch"] == "b1").all()
    assert after.var["length"].tolist() == list(range(24))[::-1]


# Too many cells


def test_too_many_cells_are_refused_with_a_way_out():
    n = 200_001
    one = sparse.csr_matrix((np.ones(n, np.float32), np.zeros(n, int), np.arange(n + 1)), (n, 2))
    names = pd.Series(["A", CONTROL]).sample(n, replace=True, random_state=0)
    cells = anndata.AnnData(one, obs=pd.DataFrame({KEY: names.to_numpy()}))
    text = str(submission.check(cells))
    assert "200,001 cells, more than the 200,000" in text
    assert "100,000 before October 2025" in text
    assert "submission.thin" in text
    kept = submission.thin(cells.obs[KEY].value_counts(), limit=200_000)
    assert kept.sum() == 200_000


@pytest.mark.parametrize("seed", range(20))
def test_thinning_keeps_as_much_of_the_rare_as_can_be(seed):
    rng = np.random.default_rng(seed)
    n_cells = pd.Series(rng.integers(1, 500, 30), index=[f"T{i}" for i in range(30)])
    limit = int(rng.integers(30, n_cells.sum() + 50))
    kept = submission.thin(n_cells, limit=limit)
    assert kept.sum() == min(limit, n_cells.sum())
    assert (kept <= n_cells).all() and (kept >= 1).all()
    cut = kept[kept < n_cells]
    assert cut.empty or cut.min() >= kept.max() - 1  # nobody has more than one that was cut


def test_more_labels_than_cells_cannot_be_thinned():
    with pytest.raises(ValueError, match="3 labels, and 2 cells to keep"):
        submission.thin({"A": 1, "B": 1, "C": 5}, limit=2)


# The archive


def inner(path, folder):
    return anndata.read_h5ad(archive.unpack(path, folder / "inner.h5ad"))


def official_prep(cells, path, **kw):
    """Write what cell-eval 0.6.6 writes."""
    prep = pytest.importorskip("cell_eval._cli._prep", reason="the oracle extra is absent")
    if shutil.which("zstd") is None or shutil.which("tar") is None:
        pytest.skip("cell-eval prep calls the programs zstd and tar; one is missing")
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            prep.strip_anndata(cells, str(path), exp_gene_dim=None, **{"encoding": 32, **kw})
    finally:
        logging.disable(logging.NOTSET)


def assert_equal(ours, theirs):
    assert ours.X.dtype == theirs.X.dtype
    assert ours.X.shape == theirs.X.shape
    assert (ours.X != theirs.X).nnz == 0
    assert ours.X.nnz == theirs.X.nnz
    for name in ("obs_names", "var_names"):
        assert list(getattr(ours, name)) == list(getattr(theirs, name))
    pd.testing.assert_frame_equal(ours.obs, theirs.obs)
    pd.testing.assert_frame_equal(ours.var, theirs.var)
    assert dict(ours.uns) == dict(theirs.uns)


@pytest.mark.oracle
@pytest.mark.says  # the program zstd
@pytest.mark.parametrize("storage", [s for s in STORAGES if s != "csr_array"])  # theirs fails
@pytest.mark.parametrize("kind", ["counts", "lognorm", "float64", "int32", "reversed"])
def test_prep_equals_the_official_tool(kind, storage, tmp_path):
    cells = good_cells(scale="lognorm" if kind == "lognorm" else "counts")
    if kind in ("float64", "int32"):
        cells.X = cells.X.astype(kind)
    genes = GENES[::-1] if kind == "reversed" else GENES
    cells = stored(cells, storage, tmp_path)
    official_prep(cells.to_memory() if cells.isbacked else cells.copy(), tmp_path / "t.vcc",
                  genelist=genes)  # fmt: skip
    submission.prep(cells, tmp_path / "o.vcc", genes=genes)
    assert_equal(inner(tmp_path / "o.vcc", tmp_path), inner(tmp_path / "t.vcc", tmp_path))


@pytest.mark.oracle
@pytest.mark.says  # the program zstd
@pytest.mark.parametrize("options", [{"keep_counts": True}, {"double": True}])
def test_the_options_of_prep_equal_the_official_ones(options, tmp_path):
    theirs = {"allow_discrete": True} if "keep_counts" in options else {"encoding": 64}
    official_prep(good_cells(), tmp_path / "t.vcc", genelist=GENES, **theirs)
    submission.prep(good_cells(), tmp_path / "o.vcc", genes=GENES, **options)
    assert_equal(inner(tmp_path / "o.vcc", tmp_path), inner(tmp_path / "t.vcc", tmp_path))


@pytest.mark.oracle
def test_the_official_scorer_reads_what_prep_wrote(tmp_path):
    """By the programs that the official way uses, and with the same scores as ours."""
    from parity_cases import Case, official

    if shutil.which("zstd") is None or shutil.which("tar") is None:
        pytest.skip("the programs zstd and tar are needed; one is missing")
    pytest.importorskip("cell_eval", reason="the oracle extra is absent")
    real = good_cells()
    real.X = np.random.default_rng(5).permutation(real.X)
    submission.prep(good_cells(), tmp_path / "o.vcc", genes=GENES)
    subprocess.run(["tar", "-xf", "o.vcc"], cwd=tmp_path, check=True)
    assert (tmp_path / "watermark.txt").read_text() == "vcc-prep"
    subprocess.run(["zstd", "-q", "-d", "pred.h5ad.zst"], cwd=tmp_path, check=True)
    pred = anndata.read_h5ad(tmp_path / "pred.h5ad")
    theirs = official(Case("prepared", pred, real))[["des", "pds", "mae"]]
    with archive.opened(tmp_path / "o.vcc") as path:
        ours = score(path, real).per_perturbation
    np.testing.assert_allclose(ours.loc[theirs.index, theirs.columns], theirs, atol=1e-6)


def test_prep_gives_the_same_bytes_whatever_the_day_and_the_cores(tmp_path, monkeypatch):
    names = [tmp_path / f"{i}.vcc" for i in range(3)]
    submission.prep(good_cells(), names[0], genes=GENES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    submission.prep(good_cells(), names[1], genes=GENES)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    submission.prep(good_cells(), names[2], genes=GENES)
    assert len({path.read_bytes() for path in names}) == 1


OF_PREP = [
    name
    for name, case in CASES.items()
    if case.refused and not case.counts and case.preset == "vcc2025"
    and "position 0" not in str(case.words) and "another order" not in case.words
]  # fmt: skip


@pytest.mark.parametrize("name", OF_PREP)
def test_prep_writes_nothing_of_a_bad_prediction(name, tmp_path, capsys):
    case = CASES[name]
    path, options = write(case, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    command = ["prep", str(path), "--genes", str(options["genes"]), "-o", str(tmp_path / "o.vcc")]
    assert main(command) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert_words(case, capsys.readouterr().err)


def test_prep_says_that_it_ordered_the_genes(tmp_path, capsys):
    path, options = write(CASES["gene order"], tmp_path)
    command = ["prep", str(path), "--genes", str(options["genes"]), "-o", str(tmp_path / "o.vcc")]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert "vcc-helpers: mended, genes put in order" in err
    assert out.startswith(f"{tmp_path / 'o.vcc'}  ")
    assert list(inner(tmp_path / "o.vcc", tmp_path).var_names) == GENES


def test_prep_replaces_an_old_file_in_one_step_only_when_done(tmp_path):
    out = tmp_path / "o.vcc"
    out.write_text("old")
    with pytest.raises(ValueError, match="no control cells"):
        submission.prep(good_cells()[good_cells().obs[KEY] != CONTROL], out, genes=GENES)
    assert out.read_text() == "old"
    submission.prep(good_cells(), out, genes=GENES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.vcc"]


def test_counts_that_were_never_whole_in_float64_are_seen_alike(tmp_path):
    cells = good_cells()
    cells.X = cells.X.astype("float64") + 5e-4
    report = submission.check(cells, genes=GENES)
    assert report.summary.endswith("counts")
    assert cells.X.max() > lognorm(cells).max()


# Lists


def test_lists_are_read_as_tables_and_as_text(tmp_path):
    (tmp_path / "genes.csv").write_text("\ufeffgene_name,id\nA,1\nB,2\n", encoding="utf-8")
    assert submission.read_genes(tmp_path / "genes.csv").tolist() == ["A", "B"]
    assert submission.read_genes(["A", "B"]).tolist() == ["A", "B"]
    assert submission.read_genes(None) is None
    (tmp_path / "counts.csv").write_text(good_counts())
    n_cells = submission.read_counts(tmp_path / "counts.csv")
    assert n_cells.to_dict() == {"G0": 30, "G1": 20, "G2": 12, "no gene": 9}
    assert submission.read_counts({"A": 3}).to_dict() == {"A": 3}


def test_a_gene_called_na_stays_one(tmp_path):
    (tmp_path / "genes.csv").write_text("NA\nNAN\nnull\n")
    assert submission.read_genes(tmp_path / "genes.csv").tolist() == ["NA", "NAN", "null"]


@pytest.mark.parametrize("name", ["genes", "counts"])
def test_a_list_that_is_not_there(name, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file: .*nowhere.csv"):
        submission.check(good_cells(), **{name: tmp_path / "nowhere.csv"})
