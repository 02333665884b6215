"""Arc's State: what the recipe gives it. benchmarks/state.py judges what came of a real run."""

import anndata
import numpy as np
import state_recipe

from vcc_helpers import datasets, splits, submission


def test_state_is_given_what_the_split_says_and_no_answer(tmp_path):
    sizes = {"n_genes": 200, "n_targets": (12, 6, 6), "n_controls": 60}
    world = datasets.make_h1_like(cache=False, **sizes)
    split = state_recipe.write_input(world, tmp_path)
    state_recipe.write_controls(world, split, tmp_path)
    targets = [*split.support, *split.query]
    assert splits.from_toml(tmp_path / "split.toml", targets=targets, context="H1") == split
    assert sorted(p.stem for p in (tmp_path / "cells").iterdir()) == sorted(world.contexts)
    for path in (tmp_path / "cells").iterdir():
        cells = anndata.read_h5ad(path)
        assert list(cells.obs) == ["target_gene", "cell_type", "batch_var"]
        assert not set(cells.obs["target_gene"]) & set(world.split["test"])  # nobody sees the test
        assert submission.check(cells).summary.endswith("lognorm")
        np.testing.assert_array_equal(cells.obsm["X_hvg"], cells.X.toarray())
    report = str(submission.check(anndata.read_h5ad(tmp_path / "asked.h5ad")))
    n = len(split.query) + 1
    assert f"of {n} of {n} targets each cell is also" in report
    assert "obsm['X_hvg'] may hold the prediction" in report
