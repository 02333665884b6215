"""The preflight check, what it mends, and the .vcc it writes, held against the official tool's."""

import contextlib
import json
import logging
import re
import shutil
import subprocess
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from bad_cases import CASES, GENES, TARGETS, good_cells, good_counts, in_context, of_target, write
from conftest import CONTROL, KEY, ROOT, STORAGES, stored
from scipy import sparse

from vcc_helpers import lognorm, score, sort_cells, submission
from vcc_helpers.cli import main
from vcc_helpers.datasets import load_h1_sample
from vcc_helpers.submission import archive

pytestmark = pytest.mark.filterwarnings("ignore:.*ames are not unique")
ERRORS = (ValueError, FileNotFoundError)
ON_THE_PAGE = {
    row["name"]: row
    for row in json.loads((ROOT / "benchmarks/results/bad_input.json").read_text("utf-8"))["cases"]
}


def arguments(options):
    return [str(word) for name, value in options.items() for word in (f"--{name}", value)]


def assert_words(case, text):
    for words in case.words:
        assert any(choice in text for choice in words.split("|")), (words, text)


def plain(text, folder):
    """A message without what is of this machine, and what only the command adds."""
    text = text.replace(f"{folder}/", "")
    return re.sub(r"(eof|errno) (= )?\d+| \(--fix: [^()]*\)|warning: .*\n?", "", text, flags=re.I)


# What is said


@pytest.mark.parametrize("name", CASES)
def test_each_bad_input_is_told_and_what_is_safe_is_mended(name, tmp_path):
    """In the words that the book quotes."""
    case, out = CASES[name], tmp_path / "mended.h5ad"
    path, options = write(case, tmp_path)
    try:
        report = submission.check(path, **options)
        text, ok = str(report), report.ok
    except ERRORS as error:
        text, ok = str(error), False
    assert_words(case, text)
    assert ok == (not case.refused), text
    assert plain(text, tmp_path) == plain(ON_THE_PAGE[name]["ours"], tmp_path)
    if case.refused and not case.mended:
        with pytest.raises(ERRORS) as caught:
            submission.mend(path, out, **options)
        assert set(str(caught.value).splitlines()) <= set(text.splitlines())
        assert not out.exists()
        return
    report = submission.mend(path, out, **options)
    assert all(problem.mended for problem in report.problems if problem.refused)
    assert submission.check(out, **options).ok
    before, after = anndata.read_h5ad(path), anndata.read_h5ad(out)
    values = before.X.toarray() if sparse.issparse(before.X) else np.asarray(before.X)
    values = np.rint(values) if "noise" in case.what else values
    assert np.array_equal(np.sort(after.X.toarray(), axis=1), np.sort(values, axis=1))
    assert sorted(after.var_names) == sorted(case.genes if "list" not in name else GENES)


def test_the_command_tells_a_line_a_problem_and_mends(tmp_path, capsys):
    path, options = write(CASES["five at once"], tmp_path)
    assert main(["check", str(path), *arguments(options)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and all(line.startswith("vcc-helpers: pred: ") for line in err.splitlines())
    assert_words(CASES["five at once"], err)
    in_memory = submission.check(anndata.read_h5ad(path), **options)
    assert plain(err, tmp_path).replace("vcc-helpers: ", "").strip() == str(in_memory)
    path, options = write(CASES["all of another tool"], tmp_path)
    out = tmp_path / "mended.h5ad"
    assert main(["check", str(path), *arguments(options), "--fix", str(out)]) == 0
    assert "vcc-helpers: fixed, 4 labels renamed: pred: 4 targets" in capsys.readouterr().err
    assert anndata.read_h5ad(out).obs[KEY].astype(str).isin([*TARGETS, CONTROL]).all()
    assert main(["check", str(out), *arguments(options)]) == 0
    assert capsys.readouterr().out.endswith("5 labels, counts: can be handed in\n")
    path, options = write(CASES["other numbers"], tmp_path)
    assert main(["check", str(path), *arguments(options)]) == 0
    assert capsys.readouterr().err.startswith("vcc-helpers: remark: pred: 3 of 4 targets")
    no_x = anndata.AnnData(layers={"counts": np.ones((2, 2))})
    assert "the layers 'counts' have some" in str(submission.check(no_x))


def test_a_mended_prediction_scores_as_the_right_one(tmp_path):
    good, path = good_cells(scale="lognorm"), tmp_path / "out.h5ad"
    spoilt = good[:, ::-1].copy()
    spoilt.obs[KEY] = spoilt.obs[KEY].astype(str).replace({CONTROL: "ctrl"})
    spoilt.obs["batch"], spoilt.var["length"] = "b1", np.arange(24)
    before = spoilt.copy()
    submission.mend(spoilt, path, genes=GENES)
    assert np.array_equal(spoilt.X, before.X)  # the caller's cells are never changed
    assert spoilt.obs.equals(before.obs) and spoilt.var.equals(before.var)
    after = anndata.read_h5ad(path)
    assert (after.obs["batch"] == "b1").all()
    assert after.var["length"].tolist() == list(range(24))[::-1]
    real = good_cells()
    real.X = real.X[::-1].copy()
    card, expected = score(path, real), score(good, real)
    pd.testing.assert_frame_equal(card.per_perturbation, expected.per_perturbation)


def test_controls_are_left_out_where_the_rules_want_none(tmp_path):
    wanted, controls = in_context(400)(good_cells()), good_cells()
    controls = controls[controls.obs[KEY] == CONTROL].copy()
    controls.obs["context"] = "A"
    asked = {"genes": GENES, "preset": "vcc2026"}
    submission.mend(anndata.concat([controls, wanted]), tmp_path / "out.h5ad", **asked)
    written = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert np.array_equal(written.X.toarray(), wanted.X)
    assert list(written.obs[KEY]) == list(wanted.obs[KEY])


def test_names_that_anndata_keeps_for_itself_are_replaced(tmp_path):
    cells, out = good_cells(), tmp_path / "out.h5ad"
    cells.obs = cells.obs.rename_axis(KEY).assign(_index=1)
    cells.var = cells.var.rename_axis("symbol").assign(symbol="x")
    told = "'column _index of obs', 'index target_gene of obs', 'index symbol of var'"
    assert told in str(submission.check(cells))
    for rewrite in (submission.mend, sort_cells):
        rewrite(cells, out)
        written = anndata.read_h5ad(out)
        assert list(written.obs) == [KEY, "index_"] and written.var["symbol"].tolist() == ["x"] * 24
        assert sorted(written.obs_names) == sorted(cells.obs_names)


# Scales


@pytest.fixture(scope="module")
def h1():
    """Real counts of 600 cells, dense."""
    cells = load_h1_sample()
    cells.X = sparse.csr_matrix(cells.X).toarray().astype(np.float64)
    return cells


def total(x, to=1e4):
    return x / x.sum(axis=1, keepdims=True) * to


def logged(x, to=1e4):
    return np.log1p(total(x, to))


def told_of(h1, values, **uns):
    """Kinds of what is told of the scale of these values."""
    values = values if values.dtype == np.float16 else values.astype(np.float32)
    cells = anndata.AnnData(values, obs=h1.obs, var=h1.var, uns=uns)
    kinds = {p.kind for p in submission.check(cells, genes=cells.var_names).problems}
    return kinds - {"identical cells", "copies of controls", "one prediction", "type of values"}


#: What a scale is told as, and values on it, made of counts and labels.
OFF = {
    "two logarithms": lambda x, of: [np.log1p(logged(x)), np.log1p(np.log1p(x))],
    "no logarithm": lambda x, of: [
        *(total(x, 1), total(x, 100), total(x), np.minimum(x, 14) * 0.9),
        *(x / 10, x / 100, x / 1000, np.where(of == CONTROL, x / 100, logged(x))),
    ],
    "square roots": lambda x, of: [
        *(np.sqrt(x), np.where(of == CONTROL, logged(x), np.sqrt(total(x, 100)))),
        np.where(of == CONTROL, np.sqrt(total(x, 100)), logged(x)),
    ],
    "base of the logarithm": lambda x, of: [logged(x) / np.log(2), logged(x).round(3) / np.log(10)],
    "totals": lambda x, of: [
        np.where(of == CONTROL, logged(x), logged(x, 10_500)),
        np.where(of == "TET1", logged(x, 1e6), logged(x)),
    ],
    "no total": lambda x, of: [np.log1p(x)],
}


@pytest.mark.parametrize("kind", OFF)
def test_a_scale_that_gives_itself_away_is_told(kind, h1):
    for values in OFF[kind](h1.X, h1.obs[KEY].to_numpy(dtype=str)[:, None]):
        assert told_of(h1, values) == {kind}


def test_a_note_of_the_base_is_believed_where_the_values_do_not_tell(h1):
    made = np.random.default_rng(0).gamma(1, 1, h1.shape).clip(max=14)
    for base, told in ((2, True), (10.0, True), (np.e, False), ("x", False)):
        said = told_of(h1, made, log1p={"base": base})
        assert said == ({"base of the logarithm"} if told else set())
    assert told_of(h1, logged(h1.X), log1p={"base": 2}) == set()


def test_no_scale_is_accused_wrongly(h1):
    x, labels = h1.X, h1.obs[KEY].to_numpy(dtype=str)
    control = (labels == CONTROL)[:, None]
    rng, logs = np.random.default_rng(0), logged(x)
    mean = logs[~control[:, 0]].mean(axis=0)
    means = pd.DataFrame(logs).groupby(labels).mean().loc[labels].to_numpy()
    noise = rng.normal(0, 1, x.shape)
    for values in (
        x, logs, logs.astype(np.float16), logs.round(2), logs.round(3), logged(x, 1e6),
        logged(x, 1), np.where(control, logs, mean), np.where(control, logs, means),
        np.tile(mean, (600, 1)), means.round(2),
        np.where(control, logs, means + 0.3 * noise).clip(0, 14),
        np.where(control, logs, means + 1e-4 * noise).clip(0), means * (1 + 0.002 * noise[:, :1]),
        (logs * (1 + 0.05 * noise)).clip(0, 14), np.log1p((total(x) + total(x)[::-1]) / 2),
        (noise**2).round(2).clip(0, 14), (means + 0.3 * noise).clip(0, 14).round(1),
        (means + 0.02 * noise).clip(0).round(3), (means * np.exp(noise / 2)).clip(0, 14).round(2),
    ):  # fmt: skip
        assert told_of(h1, values) == set()


def test_one_copy_of_a_control_is_no_copy_of_controls():
    cells = of_target(lambda own, controls: np.vstack([controls[:1], own[1:]]))(good_cells())
    assert not submission.check(cells).problems


@pytest.mark.parametrize("storage", STORAGES)
def test_nothing_is_said_of_good_cells(storage, tmp_path):
    scale = "lognorm" if STORAGES.index(storage) % 2 else "counts"
    cells = stored(good_cells(scale=scale), storage, tmp_path)
    targets = cells.obs[KEY].astype(str).value_counts().drop(CONTROL)
    report = submission.check(cells, genes=GENES, counts=targets)
    assert report.ok and str(report) == f"no problem found: {report.summary}"
    assert report.summary == f"pred: {cells.n_obs} cells x 24 genes, 5 labels, {scale}"


def test_too_many_cells_are_refused_with_a_way_out():
    one = sparse.csr_matrix(np.ones((200_001, 1), np.float32))
    labels = np.resize(["A", CONTROL], len(one.indices))
    obs = pd.DataFrame({KEY: labels}, index=np.arange(len(labels)).astype(str))
    text = str(submission.check(anndata.AnnData(one, obs=obs)))
    assert "200,001 cells, more than the 200,000" in text and "submission.thin says" in text


def test_thinning_keeps_as_much_of_the_rare_as_can_be():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n_cells = pd.Series(rng.integers(1, 500, 30))
        limit = int(rng.integers(30, n_cells.sum() + 50))
        kept = submission.thin(n_cells, limit=limit)
        assert kept.sum() == min(limit, n_cells.sum())
        assert (kept <= n_cells).all() and (kept >= 1).all()
        cut = kept[kept < n_cells]
        assert cut.empty or cut.min() >= kept.max() - 1  # nobody has more than one that was cut
    with pytest.raises(ValueError, match="3 labels, and 2 cells to keep"):
        submission.thin({"A": 1, "B": 1, "C": 5}, limit=2)


# The archive


def inner(path):
    return anndata.read_h5ad(archive.unpack(path, path.with_suffix(".h5ad")))


@pytest.fixture
def cell_eval():
    """The oracle, and the programs that it calls."""
    for program in ("zstd", "tar"):
        if shutil.which(program) is None:
            pytest.skip(f"cell-eval prep calls the program {program}, which is missing")
    return pytest.importorskip("cell_eval._cli._prep", reason="the oracle extra is absent")


def official_prep(prep, cells, path, **kw):
    """Write what cell-eval 0.6.6 writes."""
    logging.disable()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            prep.strip_anndata(cells, str(path), encoding=32, exp_gene_dim=None, **kw)
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.oracle
@pytest.mark.says  # the program zstd
@pytest.mark.parametrize(
    ("kind", "storage"),
    [*(("counts", s) for s in STORAGES if s != "csr_array"),  # theirs fails
     ("lognorm", "csr"), ("float64", "dense"), ("int32", "csr"), ("reversed", "csc"),
     ("kept counts", "csr")],
)  # fmt: skip
def test_prep_equals_the_official_tool(kind, storage, cell_eval, tmp_path):
    cells = good_cells(scale="lognorm" if kind == "lognorm" else "counts")
    if kind in ("float64", "int32"):
        cells.X = cells.X.astype(kind)
    genes, kept = GENES[::-1] if kind == "reversed" else GENES, kind == "kept counts"
    cells = stored(cells, storage, tmp_path)
    theirs = cells.to_memory() if cells.isbacked else cells.copy()
    official_prep(cell_eval, theirs, tmp_path / "t.vcc", genelist=genes, allow_discrete=kept)
    submission.prep(cells, tmp_path / "o.vcc", genes=genes, keep_counts=kept)
    ours, theirs = inner(tmp_path / "o.vcc"), inner(tmp_path / "t.vcc")
    assert (ours.X.dtype, ours.shape, ours.X.nnz) == (theirs.X.dtype, theirs.shape, theirs.X.nnz)
    assert (ours.X != theirs.X).nnz == 0
    pd.testing.assert_frame_equal(ours.obs, theirs.obs)
    pd.testing.assert_frame_equal(ours.var, theirs.var)
    # theirs says base None, a null that AnnData 0.10 cannot read; without a base it is the same
    said = {name: {k: v for k, v in of.items() if v is not None} for name, of in theirs.uns.items()}
    assert dict(ours.uns) == said


@pytest.mark.oracle
def test_the_official_scorer_reads_what_prep_wrote(cell_eval, tmp_path):
    """By the programs that the official way uses, and with the same scores as ours."""
    from parity_cases import Case, official

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
    submission.prep(good_cells(), tmp_path / "1.vcc", genes=GENES)
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    submission.prep(good_cells(), tmp_path / "2.vcc", genes=GENES)
    assert (tmp_path / "1.vcc").read_bytes() == (tmp_path / "2.vcc").read_bytes()


@pytest.mark.parametrize("name", ["control in capitals", "NaN", "cut short"])
def test_prep_writes_nothing_of_a_bad_prediction(name, tmp_path):
    """Not even of one that could be mended."""
    path, options = write(CASES[name], tmp_path)
    out = tmp_path / "o.vcc"
    out.write_text("old")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValueError) as caught:
        submission.prep(path, out, genes=options["genes"])
    assert_words(CASES[name], str(caught.value))
    assert sorted(tmp_path.iterdir()) == before and out.read_text() == "old"


def test_prep_by_command_says_that_it_ordered_the_genes(tmp_path, capsys):
    path, options = write(CASES["gene order"], tmp_path)
    command = ["prep", str(path), "--genes", str(options["genes"]), "-o", str(tmp_path / "o.vcc")]
    for more, expected in ([], lognorm(good_cells())), (["--keep-counts"], good_cells().X):
        assert main([*command, *more]) == 0
        out, err = capsys.readouterr()
        assert "vcc-helpers: fixed, genes put in order" in err
        assert out.startswith(f"{tmp_path / 'o.vcc'}  ")
        written = inner(tmp_path / "o.vcc")
        assert list(written.var_names) == GENES and list(written.obs) == [KEY]
        np.testing.assert_allclose(written.X.toarray(), expected, rtol=1e-6)


def test_counts_that_were_never_whole_in_float64_are_seen_alike():
    cells = good_cells()
    cells.X = cells.X.astype("float64") + 5e-4
    assert submission.check(cells, genes=GENES).summary.endswith("counts")


def test_lists_are_files_or_names_and_numbers(tmp_path):
    cells, genes = good_cells(), ["NA", "NAN", "null", *GENES[3:]]  # which are no missing values
    cells.var_names = genes
    (tmp_path / "genes.csv").write_text(pd.Series(genes).to_csv(sep=";"))  # rows numbered
    (tmp_path / "counts.csv").write_text(good_counts() + f"{CONTROL},60\n")
    sizes = {"G0": 30, "G1": 20, "G2": 12, "no gene": 9}
    files = {"genes": tmp_path / "genes.csv", "counts": tmp_path / "counts.csv"}
    for lists in (files, {"genes": genes, "counts": sizes}):
        assert not submission.check(cells, **lists).problems
    assert "announced 8" in str(submission.check(cells, counts=sizes | {"no gene": 8}))
    with pytest.raises(FileNotFoundError, match="no such file: .*nowhere.csv"):
        submission.check(cells, counts=tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match="'G1' more than once; expected each target once"):
        submission.check(cells, counts=pd.Series([1, 2], index=["G1", "G1"]))
