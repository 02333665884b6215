"""The vcc-helpers command: outputs, exit status, and nothing left behind after a failure."""

import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import make_cells

from vcc_helpers import ScoreCard, pseudobulk, score, scoring
from vcc_helpers.cli import main


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for seed, name in enumerate(("real", "pred")):
        make_cells(seed).write_h5ad(folder / f"{name}.h5ad")
    real = make_cells(0)
    score(scoring.official_baseline(real), real).to_json(folder / "baseline.json")
    return [str(folder / name) for name in ("pred.h5ad", "real.h5ad", "baseline.json")]


@pytest.fixture(scope="module")
def card(files):
    return score(files[0], files[1])


def test_json_and_csv(files, card, tmp_path, capsys):
    json_path, csv_path = tmp_path / "card.json", tmp_path / "table.csv"
    arguments = ["score", *files[:2], "--json", str(json_path), "--csv", str(csv_path)]
    assert main([*arguments, "--threads", "1"]) == 0
    written = json.loads(json_path.read_text())
    keys = ["preset", "n_perturbations", "summary", "per_perturbation", "settings"]
    assert list(written) == keys
    assert written == card.to_dict()
    assert written["n_perturbations"] == 4 and written["preset"] == "vcc2025"
    table = pd.read_csv(csv_path, index_col="target_gene")
    pd.testing.assert_frame_equal(table, card.per_perturbation, check_index_type=False)
    out, err = capsys.readouterr()
    assert repr(card) in out and "chance  pds 0.6250" in out and err == ""
    assert len(list(tmp_path.iterdir())) == 2


def test_baseline_and_ceiling(files, card, capsys):
    assert main(["score", *files[:2], "--baseline", files[2], "--ceiling"]) == 0
    out = capsys.readouterr().out
    overall = card.overall(ScoreCard.from_json(files[2]))
    assert overall > 0 and f"overall {overall:.2f} of 100" in out
    for name, row in scoring.anchors(make_cells(0)).iterrows():
        line = next(line for line in out.splitlines() if line.startswith(f"{name} "))
        assert f"{row['des']:.4f}" in line or np.isnan(row["des"])
        assert f"{row['pds']:.4f}" in line


def test_a_ceiling_leaves_out_what_does_not_fit_the_memory(files, capsys, monkeypatch):
    module = sys.modules["vcc_helpers.scoring.score"]
    monkeypatch.setattr(module, "parse_memory", lambda memory: 20_000)  # dense they take 25 kB
    assert main(["score", *files[:2], "--ceiling"]) == 0
    out = capsys.readouterr().out
    assert "half-data repeat" in out and "replicated" not in out and "mean of these" not in out
    assert "left out: more --memory would hold them" in out


def test_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "Score predicted cells against real ones" in out and "--baseline BASE.json" in out
    assert "\n  vcc-helpers score prediction.h5ad truth.h5ad --baseline baseline.json" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "required"),
        ("skore", "skore"),
        ("score a.h5ad", "REAL"),
        ("score a.h5ad b.h5ad --preset vcc1999", "vcc1999"),
        ("score a.h5ad b.h5ad --threads 0", "1 or more, got '0'"),
        ("score a.h5ad b.h5ad --nonsense", "--nonsense"),
        ("prep a.h5ad -o b.vcc", "--genes"),
        ("prep a.h5ad --genes b.csv", "-o"),
        ("fetch everything", "everything"),
        ("simulate x.h5ad --seed two", "0 or more, got 'two'"),
    ],
)
def test_a_wrong_command_line_exits_with_two(words, said, capsys):
    with pytest.raises(SystemExit) as caught:
        main(words.split())
    err = capsys.readouterr().err
    assert caught.value.code == 2 and said in err and "usage: vcc-helpers" in err


@pytest.mark.parametrize(("option", "place"), [("--json", "nowhere/out"), ("--csv", ".")])
def test_an_unwritable_output_is_known_before_the_scoring(
    option, place, files, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(scoring, "score", lambda *_, **__: pytest.fail("scored first"))
    assert main(["score", *files[:2], option, str(tmp_path / place)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("vcc-helpers: cannot write ") and len(err.splitlines()) == 1
    assert not any(tmp_path.iterdir())


OTHER = '{"preset": "vcc2025", "per_perturbation": {"A": {"des": 1}}, "settings": {}}'


def test_a_baseline_of_another_truth(files, tmp_path, capsys):
    base, out = tmp_path / "base.json", tmp_path / "out.json"
    base.write_text(OTHER)
    assert main(["score", *files[:2], "--baseline", str(base), "--json", str(out)]) == 1
    err = capsys.readouterr().err
    assert "score both against the same truth" in err and not out.exists()
    assert len(err.splitlines()) == 1 and err.startswith("vcc-helpers: ")


def test_warnings_of_libraries_keep_to_the_form_of_messages(tmp_path):
    cells = make_cells(1)
    cells.obs_names = ["same"] * cells.n_obs
    cells.write_h5ad(tmp_path / "in.h5ad")
    command = [sys.executable, "-m", "vcc_helpers", "sort", "in.h5ad", "out.h5ad"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("out.h5ad  ")
    assert done.stderr.startswith("vcc-helpers: warning: Observation names are not unique")
    assert all(line.startswith("vcc-helpers: ") for line in done.stderr.splitlines())


# Files


@pytest.fixture
def small_size(monkeypatch):
    """`vcc-helpers simulate` at a size for tests."""
    from vcc_helpers.datasets import Size, _simulate

    monkeypatch.setitem(_simulate.SIZES, "small", Size(60, (4, 2, 3), 20, 50, 6, 2.0))


def test_simulate_sort_and_pseudobulk_in_a_row(small_size, tmp_path, capsys):
    cells, ordered, bulk = (tmp_path / f"{name}.h5ad" for name in ("cells", "sorted", "bulk"))
    assert main(["simulate", str(cells), "--seed", "3"]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    assert main(["sort", str(cells), str(ordered), "--memory", "500MB"]) == 0
    assert main(["pseudobulk", str(ordered), str(bulk)]) == 0
    out, err = capsys.readouterr()
    assert "5 groups x 60 genes" in out and err == ""
    written, expected = anndata.read_h5ad(bulk), pseudobulk(anndata.read_h5ad(cells))
    assert list(written.obs_names) == list(expected.obs_names)
    np.testing.assert_allclose(written.X, expected.X, atol=1e-6)
    assert sorted(tmp_path.iterdir()) == sorted([cells, ordered, bulk])


def test_fetch_sample_needs_no_network(tmp_path, capsys):
    assert main(["fetch", "sample", "--folder", str(tmp_path)]) == 0
    assert "h1_sample.h5ad" in capsys.readouterr().out
    assert anndata.read_h5ad(tmp_path / "h1_sample.h5ad").shape == (600, 1000)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sort cells.h5ad out.h5ad --memory much", "or a text like '4GB' or '500MB', got 'much'"),
        ("sort cells.h5ad out.h5ad --perturbation-key gene", "no column 'gene'"),
        ("pseudobulk cells.h5ad nowhere/x.h5ad", "there is no folder"),
        ("pseudobulk text.txt out.h5ad", "not an HDF5 file"),
        ("score cells.h5ad cells.h5ad --memory 1MB", "pred: memory of 1 MB is too small for"),
        ("fetch sample --folder text.txt", "text.txt"),
    ],
)
def test_what_is_wrong_is_one_line_and_leaves_nothing(
    words, said, small_size, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    cells = tmp_path / "cells.h5ad"
    make_cells().write_h5ad(cells)
    (tmp_path / "text.txt").write_text("no cells")
    before = cells.read_bytes()
    assert main(words.split()) == 1
    out, err = capsys.readouterr()
    assert out == "" and said in err
    assert len(err.splitlines()) == 1 and err.startswith("vcc-helpers: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cells.h5ad", "text.txt"]
    assert cells.read_bytes() == before


def test_memory_and_cache_change_no_digit(files, card, tmp_path):
    out, kept = str(tmp_path / "card.json"), tmp_path / "kept"
    for options in (["--memory", "600MB"], *[["--cache", str(kept)]] * 2):  # then all is done
        assert main(["score", *files[:2], *options, "--json", out]) == 0
        assert ScoreCard.from_json(out).per_perturbation.equals(card.per_perturbation)
    assert len(list(kept.iterdir())) == 2  # a half for each file
