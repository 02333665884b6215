"""Arc's State: the recipe's own part, what is stored of a run, and a real run where State is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest

from vcc_helpers import datasets, score, splits, submission
from vcc_helpers.datasets import read_screen

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import state_recipe  # noqa: E402

PROGRAM = "VCC_STATE_PROGRAM"


@pytest.fixture(scope="module")
def world():
    return datasets.make_h1_like(seed=0)


@pytest.fixture(scope="module")
def written(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("state")
    split = state_recipe.write_input(world, out)
    state_recipe.write_controls(world, split, out)
    return out, split


def test_state_is_given_what_the_split_says(written, world):
    out, split = written
    targets = [*split.support, *split.query]
    assert splits.from_toml(out / "split.toml", targets=targets, context="H1") == split
    assert sorted(p.stem for p in (out / "cells").iterdir()) == sorted(world.contexts)
    for path in (out / "cells").iterdir():
        cells = anndata.read_h5ad(path)
        assert list(cells.obs) == ["target_gene", "cell_type", "batch_var"]
        assert not set(cells.obs["target_gene"]) & set(world.split["test"])  # nobody sees the test
        assert submission.check(cells).summary.endswith("lognorm")
        np.testing.assert_array_equal(cells.obsm["X_hvg"], cells.X.toarray())


def test_what_is_asked_for_holds_no_answer(written):
    out, split = written
    asked = anndata.read_h5ad(out / "asked.h5ad")
    report = str(submission.check(asked))
    assert (
        f"of {len(split.query) + 1} of {len(split.query) + 1} targets each cell is also" in report
    )
    assert "obsm['X_hvg'] may hold the prediction" in report


def test_the_stored_run_tells_its_story():
    stored = json.loads((ROOT / "benchmarks/results/state.json").read_text())
    said = " ".join(stored["as_written"]["said"])
    assert stored["as_written"]["exit"] == 1
    assert "'NEVER-HEARD-OF'" in said and "obsm['X_hvg'] may hold the prediction" in said
    assert stored["without_the_unknown"]["exit"] == 0
    assert "also a control cell" not in " ".join(stored["as_read"]["said"])
    assert stored["unknown_target"]["unknown"] < stored["unknown_target"]["median_known"]
    assert set(stored["scores"]) == {"State", "mean baseline", "one half against the other"}


@pytest.mark.slow
def test_state_itself_goes_all_the_way(world, tmp_path):
    if PROGRAM not in os.environ:
        pytest.skip(f"{PROGRAM} does not name the program state (an environment of its own)")
    command = [sys.executable, str(ROOT / "scripts/state_recipe.py"), str(tmp_path)]
    command += ["--state", os.environ[PROGRAM], "--steps", "10"]
    subprocess.run(command, check=True, env={**os.environ, "WANDB_MODE": "disabled"})
    pred = read_screen(tmp_path / "predicted.h5ad", layer="X_hvg", values="stored")
    pred = pred[pred.obs["target_gene"].astype(str) != "NEVER-HEARD-OF"].copy()
    real = world.cells("validation").copy()
    n_cells = real.obs["target_gene"].astype(str).value_counts()[world.split["validation"]]
    assert submission.check(pred, genes=real.var_names, counts=n_cells).ok
    submission.prep(pred, tmp_path / "p.vcc", genes=real.var_names)
    assert len(score(pred, real).per_perturbation) == 50
