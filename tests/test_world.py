"""A world is the same to its reader, simulated or from a folder of official files."""

from functools import partial

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import make_cells

from vcc_helpers import datasets, pseudobulk
from vcc_helpers.datasets import _open

CONTROL = "non-targeting"
PARTS = {"train": ["G0"], "validation": ["G1"], "test": ["G2", "no gene"]}
#: A small simulated world, of any contexts.
small = partial(datasets.make_h1_like, n_genes=60, n_targets=(4, 2, 3), n_controls=50, cache=False)


def part_of(cells, names):
    return cells[cells.obs["target_gene"].isin([CONTROL, *names])].copy()


@pytest.fixture
def folder(tmp_path):
    """A folder in the official layout: each part has a file, and all controls in each."""
    for part, names in PARTS.items():
        part_of(make_cells(0), names).write_h5ad(tmp_path / _open.FILE_NAMES[part])
    (tmp_path / "contexts").mkdir()
    for seed, name in enumerate(("H1", "K562", "RPE1"), start=1):
        make_cells(seed).write_h5ad(tmp_path / "contexts" / f"{name}.h5ad")
    return tmp_path


def test_a_folder_becomes_a_world(folder):
    world = datasets.open_world(folder)
    assert world.split == PARTS and world.home == "H1" and world.sources == ["K562", "RPE1"]
    assert not world.simulated and world.seed is None and not world.truth
    assert world.contexts["H1"] is world.files["train"]
    for part, names in PARTS.items():
        cells = world.cells(part)
        assert cells.isbacked
        expected = pseudobulk(part_of(make_cells(0), names))
        np.testing.assert_array_equal(pseudobulk(cells).X, expected.X)
    assert "real cells" in repr(world) and "H1, validation: 80 cells x 24 genes, 1" in repr(world)


def test_the_environment_variable_is_the_switch(folder, monkeypatch):
    monkeypatch.setattr(_open, "make_h1_like", small)
    monkeypatch.setenv("VCC_DATA", str(folder))
    assert datasets.open_world(sources=False).split == PARTS
    assert datasets.open_world("simulated").sources == ["K562", "RPE1", "HepG2"]
    monkeypatch.setenv("VCC_DATA", "simulated")
    world = datasets.open_world(sources=False)
    assert world.simulated and "SIMULATED" in repr(world) and not world.sources


def test_a_part_is_its_targets_and_all_controls():
    world = small(contexts=("H1", "K562"))
    labels = world.contexts["H1"].obs["target_gene"]
    for part, names in world.split.items():
        cells = world.cells(part)
        assert set(cells.obs["target_gene"]) == {CONTROL, *names}
        assert cells.n_obs == labels.isin([CONTROL, *names]).sum()
        assert (cells.obs["target_gene"] == CONTROL).sum() == 50
    with pytest.raises(KeyError, match="no part 'valid'; a split has 'train'"):
        world.cells("valid")


def test_titles_claim_only_what_was_found(folder):
    assert datasets.open_world(folder).titled("all is well") == "Real H1 cells"
    assert small(contexts=("H1",)).titled("all is well") == "Simulated: all is well"
    for name in _open.FILE_NAMES.values():
        cells = anndata.read_h5ad(folder / name)
        cells.uns["simulated"] = True
        cells.write_h5ad(folder / name)
    world = datasets.open_world(folder)
    assert world.simulated and "SIMULATED" in repr(world)
    assert world.titled("x") == "Simulated, from files"


def test_the_targets_of_a_missing_file_come_from_its_table(folder):
    (folder / "adata_Test.h5ad").unlink()
    assert datasets.open_world(folder).split["test"] == []
    table = pd.DataFrame({"target_gene": ["B", "A"], "n_cells": [3, 4]})
    table.to_csv(folder / "pert_counts_Test.csv", index=False)
    world = datasets.open_world(folder)
    assert world.split["test"] == ["A", "B"]
    with pytest.raises(FileNotFoundError, match=r"test cells .* get them with .*fetch_h1\('test'"):
        world.cells("test")


def test_what_is_missing_or_wrong_is_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere; VCC_DATA must be"):
        datasets.open_world(tmp_path / "nowhere")
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no adata_Training.h5ad; it has nothing"):
        datasets.open_world(empty)
    part_of(make_cells(0), ["G0"]).write_h5ad(empty / "adata_Training.h5ad")
    with pytest.raises(FileNotFoundError, match="no folder 'contexts' .*sources=False"):
        datasets.open_world(empty)
    assert datasets.open_world(empty, sources=False).sources == []
    part_of(make_cells(0), ["G0"])[:, ::-1].copy().write_h5ad(empty / "adata_Test.h5ad")
    with pytest.raises(ValueError, match="test: 24 genes that are not those of the training file"):
        datasets.open_world(empty, sources=False)
    part_of(make_cells(0), ["G0"]).write_h5ad(empty / "adata_Test.h5ad")
    with pytest.raises(ValueError, match="'G0' are targets in more than one part"):
        datasets.open_world(empty, sources=False)
