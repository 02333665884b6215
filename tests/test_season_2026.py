"""The upload of 2026: what is refused, and what is packed, held against the official tool's.

The files are in season_cases.py; benchmarks/season_2026.py writes the official verdicts.
"""

import hashlib
import importlib.util
import io
import json
import sys
import tarfile
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
import season_cases
from bad_cases import then
from conftest import CONTROL, KEY, ROOT
from scipy import sparse
from season_cases import CASES, EACH, GENES, TARGETS, Case, sound_cells, write

from vcc_helpers import score, submission
from vcc_helpers.cli import main
from vcc_helpers.presets import VCC2026
from vcc_helpers.submission import archive
from vcc_helpers.submission.lists import fingerprint, read_contexts, read_counts, read_manifest

pytestmark = pytest.mark.filterwarnings("ignore:.*ames are not unique")
STORED = json.loads((ROOT / "benchmarks/results/vcc2026_verdicts.json").read_text("utf-8"))
RULES = replace(VCC2026, cells_a_target=EACH)


def packed(case, folder, **options):
    """Pack a case's file, and return the path of that."""
    path, lists = write(case, folder)
    options = {"genes": None, **lists, **case.options, "preset": case.rules, **options}
    submission.prep(path, folder / "out.vcc", **options)
    return folder / "out.vcc"


def members(path):
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar.getmembers()}


def inner(path):
    return anndata.read_h5ad(archive.unpack(path, path.with_suffix(".out.h5ad")))


def benchmark():
    spec = importlib.util.spec_from_file_location("season_2026", ROOT / "benchmarks/season_2026.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Verdicts


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_is_the_official_one(name, tmp_path):
    case, accepted = CASES[name], STORED["cases"][name]["accepted"]
    try:
        path, said = packed(case, tmp_path), ""
    except (ValueError, OSError) as error:
        path, said = None, str(error)
    assert (said == "") == (accepted != bool(case.differs)), said
    if said:
        assert case.words and case.words in said, said
        assert not (tmp_path / "out.vcc").exists()
    else:
        assert list(members(path)) == ["meta.json", "pred.h5ad.zst"]


def test_verdicts_are_stored_for_these_cases_and_as_ours_are_today():
    cases = CASES | season_cases.FINAL
    assert list(STORED["cases"]) == list(cases) and len(cases) > 150
    for name, row in STORED["cases"].items():
        assert (row["accepted"] != bool(row["ours"])) != bool(cases[name].differs), name
        assert cases[name].words in row["ours"], name
    of, accepted = STORED["archives"], [row for row in STORED["cases"].values() if not row["ours"]]
    assert of["ours"] == len(accepted) >= of["both"] > 30
    assert of["refused by the official reader"] == of["other meta.json"] == []
    assert of["other cells"] == [name for name, case in cases.items() if case.other_cells]


def test_the_official_tool_says_today_what_is_stored(tmp_path):
    pytest.importorskip("vcc.prep", reason="vcc-cli is not installed in this environment")
    bench, folders = benchmark(), {name: tmp_path / str(i) for i, name in enumerate(CASES)}
    for name, folder in folders.items():
        bench.written(name, folder)
    answers = bench.official(sys.executable, [bench.words(*x) for x in folders.items()], [])
    told = dict(zip(folders, (row["accepted"] for row in answers["verdicts"]), strict=True))
    assert told == {name: STORED["cases"][name]["accepted"] for name in CASES}


def test_all_is_told_at_once_and_what_is_safe_is_mended(tmp_path):
    path, lists = write(CASES["five at once"], tmp_path)
    report = submission.check(path, **lists, preset=RULES)
    kinds = {problem.kind for problem in report.problems if problem.refused}
    assert kinds >= {"controls", "unknown contexts", "unknown targets", "cells per target"}
    assert "negative values" in kinds and "gene 'G0'" in str(report)
    spoil = then(season_cases.with_controls, season_cases.renamed_contexts(B="B "))
    path, lists = write(Case(spoil), tmp_path)
    submission.mend(path, tmp_path / "mended.h5ad", **lists, preset=RULES)
    mended = anndata.read_h5ad(tmp_path / "mended.h5ad")
    expected = sound_cells()
    assert np.array_equal(mended.X.toarray(), expected.X)
    assert mended.obs["context"].astype(str).tolist() == expected.obs["context"].tolist()
    assert submission.check(tmp_path / "mended.h5ad", **lists, preset=RULES).ok


def test_contexts_are_those_asked_or_of_the_manifest_or_of_the_file(tmp_path):
    path, lists = write(Case(), tmp_path)
    asked = {"preset": RULES, **lists}
    assert not submission.check(path, **asked).problems
    assert not submission.check(path, **asked, contexts=["A", "B", "C"]).problems
    assert "missing: 'D'" in str(submission.check(path, **asked, contexts="A,B,C,D"))
    (tmp_path / "manifest.json").unlink()
    (remark,) = submission.check(path, **asked).problems
    assert not remark.refused and "those of the file are taken: 'A', 'B', 'C'" in remark.text
    with pytest.raises(ValueError, match="contexts are empty; expected labels"):
        submission.check(path, **asked, contexts=" ,")
    with pytest.raises(ValueError, match="vcc2025 know one context; leave contexts out"):
        submission.check(path, contexts="A")
    with pytest.raises(ValueError, match="vcc2025 know one context; leave context_key out"):
        submission.check(path, context_key="context")


def test_without_a_list_each_target_is_wanted_in_each_context():
    rules, cells = RULES, season_cases.without_pair("B", "G1")(sound_cells())
    text = str(submission.check(cells, genes=GENES, preset=rules, contexts="A,B,C"))
    assert text.startswith("pred: 1 of 9 pairs of target and context are missing: 'G1 in B'")
    assert submission.check(sound_cells(), genes=GENES, preset=rules, contexts="A,B,C").ok


# Lists


def test_a_manifest_that_is_none_is_passed_over(tmp_path):
    near = tmp_path / "pert_counts.csv"
    assert read_manifest(None, GENES, near) is None
    none = ("[]", '{"contexts": []}', '{"contexts": "ABC"}', '{"contexts": [1]}', "{}")
    for text in ("{", "[" * 9999, *none):
        (tmp_path / "manifest.json").write_text(text)
        assert read_manifest(near) is None, text
    (tmp_path / "manifest.json").write_text('{"contexts": ["A "], "panel_id": ""}')
    assert read_manifest(near) == (("A",), None)
    assert read_contexts(None, VCC2026, near) == ("A",)
    (tmp_path / "manifest.json").write_text('{"contexts": ["A"], "x": "' + "x" * 2**18 + '"}')
    assert read_manifest(near) is None


def test_lists_of_targets(tmp_path):
    path = tmp_path / "pert_counts.csv"
    path.write_text(f"target_gene\nA\n{CONTROL}\nB\n")
    assert read_counts(path, rules=VCC2026).to_dict() == {"A": 400, "B": 400}
    with pytest.raises(ValueError, match="no column 'n_cells'; it has 'target_gene'"):
        read_counts(path)
    path.write_text("context,target_gene\nX,A\nY,B\n")
    assert read_counts(path, rules=VCC2026).to_dict() == {("X", "A"): 400, ("Y", "B"): 400}
    path.write_text("n_cells,context,target_gene\n3,X,A\n4,Y,A\n")
    assert read_counts(path, rules=VCC2026).to_dict() == {("X", "A"): 3, ("Y", "A"): 4}
    path.write_text("note,target_gene\nx, B \ny,A\nz,B\n,\n")
    mark = f"sha256:{hashlib.sha256(b'A' + bytes([10]) + b'B').hexdigest()}"
    assert fingerprint(path) == fingerprint({"B": 1, "A": 1}) == mark


# Cells that are alike


class Lines:
    """Three lines of 300 genes: controls, and a prediction of 60 cells per target and context."""

    rules = replace(VCC2026, cells_a_target=60)

    def __init__(self):
        self.rng = np.random.default_rng(0)
        rates = np.exp(self.rng.normal(0, 1, (3, 300)))
        rates *= 20_000 / rates.sum(axis=1, keepdims=True)
        self.rates = dict(zip("ABC", rates, strict=True))
        self.controls = {c: self.cells(c, ["control"] * 200) for c in "ABC"}

    def cells(self, context, labels, rate=None, depth=1):
        rate = self.rates[context] if rate is None else rate
        counts = self.rng.poisson(depth * rate, (len(labels), 300)).astype("float32")
        obs = pd.DataFrame({KEY: labels, "context": context})
        obs.index = [f"{context}{i}" for i in range(len(labels))]
        return anndata.AnnData(counts, obs, pd.DataFrame(index=[f"G{i}" for i in range(300)]))

    def pred(self, rates=None, **kw):
        rates, labels = self.rates | (rates or {}), np.repeat(TARGETS, 60)
        return anndata.concat([self.cells(c, labels, rates[c], **kw) for c in "ABC"])

    def told(self, pred, controls=True):
        options = {"preset": self.rules, "contexts": "A,B,C", "genes": pred.var_names}
        if controls:
            options["controls"] = self.controls
        return {p.kind: p.text for p in submission.check(pred, **options).problems}


@pytest.fixture(scope="module")
def lines():
    return Lines()


def test_nothing_is_said_of_a_prediction_that_follows_its_controls(lines):
    assert lines.told(lines.pred()) == lines.told(lines.pred()[:, ::-1].copy(), False) == {}
    with pytest.raises(ValueError, match="vcc2025 know one context; leave controls out"):
        submission.check(lines.pred(), controls=lines.controls)
    others = {name: cells[:, 1:].copy() for name, cells in lines.controls.items()}
    assert submission.check(lines.pred(), preset=lines.rules, controls=others, contexts="A,B,C").ok


def test_swapped_contexts_are_told(lines):
    of = lines.rates
    for share, expected in ((0.4, {}), (0.6, {"nearest controls"})):
        part = {c: share * of[d] + (1 - share) * of[c] for c, d in zip("AB", "BA", strict=True)}
        told = lines.told(lines.pred(part))
        assert set(told) == set(expected)
    assert "'A nearest to those of B', 'B nearest to those of A'" in told["nearest controls"]
    assert "two labels swapped?" in told["nearest controls"]
    told = lines.told(lines.pred({"A": 0.2 * of["A"] + 0.8 * of["C"]}))["nearest controls"]
    assert "1 of 3 contexts" in told and "did the model see each context's own?" in told


def test_a_context_predicted_like_another_is_told(lines):
    noise = np.exp(np.random.default_rng(1).normal(0, 1, 300))
    for power, expected in ((0.02, True), (0.12, False)):
        rates = {"A": lines.rates["C"] * noise**power}
        assert ("contexts alike" in lines.told(lines.pred(rates), False)) == expected
    pred = lines.pred()
    pred.X[pred.obs["context"] == "B"] = pred.X[pred.obs["context"] == "A"]
    told = lines.told(pred, False)
    assert set(told) == {"cells of two contexts"}
    assert "360 of 540 cells are in two contexts" in told["cells of two contexts"]
    pred = lines.pred()
    pred.X[-1] = pred.X[0]
    assert "2 of 540 cells" in lines.told(pred, False)["cells of two contexts"]


def test_control_cells_are_found_in_any_order_of_genes(lines):
    pred = lines.pred()
    pred.X[5] = lines.controls["B"].X[7]
    for cells in (pred, pred[:, ::-1].copy()):
        told = lines.told(cells)
        assert "1 of 540 cells are control cells" in told["control cells"]
        assert "'G0 in A'" in told["control cells"]
    pred.X[5] = 0
    assert "control cells" not in lines.told(pred)


def test_cells_that_repeat_others_are_told(lines):
    for n, expected in ((6, {}), (7, {"repeated cells"}), (59, {"identical cells"})):
        pred = lines.pred()
        pred.X[:n] = pred.X[n]
        assert set(lines.told(pred, False)) == set(expected), n


def test_another_library_size_than_the_controls_is_told(lines):
    for depth, expected in ((0.78, True), (0.83, False), (1.22, False), (1.28, True)):
        told = lines.told(lines.pred(depth=depth))
        assert set(told) == ({"library size"} if expected else set()), depth
    assert "(A: 25," in told["library size"]


def test_one_mean_is_told_of_each_context(lines):
    pred = lines.pred()
    for i in range(3):
        pred.X[180 * i : 180 * (i + 1)] = 60 * i + np.tile(np.arange(60), 3)[:, None]
    assert "all 3 targets of context 'A' have the same mean" in lines.told(pred)["one prediction"]


def test_the_command_compares_with_a_bundle(lines, tmp_path, capsys):
    cells = season_cases.sound_cells()
    case = Case(counts=season_cases.with_numbers(4, 4, 4))
    path, _ = write(case, tmp_path)
    for name in "ABC":
        controls = cells[cells.obs["context"] == name].copy()
        controls.obs[KEY] = CONTROL
        controls.write_h5ad(tmp_path / f"context_{name}.h5ad")
    command = ["check", str(path), "--preset", "vcc2026", "--bundle", str(tmp_path)]
    assert main(command) == 0
    assert "36 of 36 cells are control cells of the bundle" in capsys.readouterr().err
    command = ["prep", *command[1:], "-o", str(tmp_path / "bundled.vcc")]
    assert main(command) == 0
    assert (tmp_path / "bundled.vcc").read_bytes() == packed(case, tmp_path).read_bytes()
    with pytest.raises(SystemExit) as stopped:
        main([*command[:4], *command[6:]])
    assert stopped.value.code == 2 and "-g/--genes, or a --bundle" in capsys.readouterr().err


def test_a_file_of_the_other_season_is_told(tmp_path, capsys):
    path, _ = write(Case(), tmp_path)
    remark = [p.text for p in submission.check(path).problems if p.kind == "season"]
    assert len(remark) == 1 and "3 contexts ('A', 'B', 'C')" in remark[0]
    for command in ("check", "score"):
        files = [str(path)] * (1 + (command == "score"))
        assert main([command, *files, "--bundle", str(tmp_path)]) == 1
        assert "the rules of vcc2025 know none; name the season's" in capsys.readouterr().err
    real = sound_cells(targets=(*TARGETS, CONTROL))
    with pytest.warns(UserWarning, match="real and pred: several contexts in .* score as one"):
        score(real, real)


# The archive


def test_the_archive_has_counts_labels_and_a_head(tmp_path):
    spoil = then(season_cases.values(sparse.csr_matrix), lambda cells: cells[:, ::-1])
    path = packed(Case(spoil), tmp_path)
    meta, cells, expected = json.loads(members(path)["meta.json"]), inner(path), sound_cells()
    assert meta.pop("cli_version").startswith("vcc-helpers ")
    assert meta == {
        "schema": 1,
        "nnz": int((expected.X != 0).sum()),
        "n_obs": 36,
        "n_vars": 12,
        "contexts": ["A", "B", "C"],
        "panel_id": "vcc2026-val-1",
        "perts_fingerprint": fingerprint(dict.fromkeys(TARGETS, 1)),
    }
    assert np.array_equal(cells.X.toarray(), expected.X) and cells.X.dtype == np.float32
    assert list(cells.var_names) == GENES and list(cells.obs) == [KEY, "context"]
    pd.testing.assert_frame_equal(
        cells.obs.astype(str).reset_index(drop=True),
        expected.obs[[KEY, "context"]].astype(str).reset_index(drop=True),
    )


def test_the_same_cells_give_the_same_bytes(tmp_path, monkeypatch):
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    one = packed(Case(), tmp_path / "1")
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert one.read_bytes() == packed(Case(), tmp_path / "2").read_bytes()


def test_the_panel_of_other_contexts_is_not_noted(tmp_path):
    case = CASES["two contexts asked, two there"]
    meta = json.loads(members(packed(case, tmp_path))["meta.json"])
    assert meta["contexts"] == ["A", "B"] and "panel_id" not in meta


def test_what_was_packed_is_checked_and_scored_as_the_file_it_was_made_of(tmp_path):
    path = packed(Case(), tmp_path)
    lists = {"genes": tmp_path / "gene_names.csv", "counts": tmp_path / "pert_counts.csv"}
    report = submission.check(path, **lists, preset=RULES)
    assert report.ok and not report.problems
    real = season_cases.sound_cells(targets=(*TARGETS, CONTROL))
    ours, expected = (score(pred, real, RULES).contexts for pred in (path, sound_cells()))
    assert list(ours) == list(expected) == list("ABC")
    for name, card in ours.items():
        pd.testing.assert_frame_equal(card.per_perturbation, expected[name].per_perturbation)


# The command


def test_the_command_takes_the_lists_and_names_of_2026(tmp_path, capsys):
    case = CASES["contexts elsewhere"]
    path, lists = write(replace(case, counts=season_cases.with_numbers(4, 4, 4)), tmp_path)
    words = [str(path), "-g", str(lists["genes"]), "--counts", str(lists["counts"])]
    words += ["--preset", "vcc2026"]
    assert main(["check", *words]) == 1
    assert "or name obs['line'] with --context-key" in capsys.readouterr().err
    words += ["--context-key", "line"]
    assert main(["check", *words]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.endswith("3 labels, counts: can be handed in\n")
    assert main(["check", *words, "--contexts", "D,E,F"]) == 1
    err = capsys.readouterr().err
    assert "the file is of the other phase" in err and len(err.splitlines()) == 1
    assert main(["prep", *words, "--contexts", "A,B,C", "-o", str(tmp_path / "o.vcc")]) == 0
    out, err = capsys.readouterr()
    assert err == "" and out.startswith(f"{tmp_path / 'o.vcc'}  ")
    assert list(inner(tmp_path / "o.vcc").obs) == [KEY, "context"]
    assert json.load(io.BytesIO(members(tmp_path / "o.vcc")["meta.json"]))["n_obs"] == 36
