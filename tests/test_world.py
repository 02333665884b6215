"""A world is the same, simulated or from official files; bundled cells are as listed."""

import hashlib
import re
import shutil
from functools import partial
from importlib.resources import files

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, make_cells, refuses
from scipy import sparse

from vcc_helpers import datasets, effects, pseudobulk
from vcc_helpers.datasets import _open
from vcc_helpers.stream import control_covariance

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
    refuses("no part 'valid'; a split has 'train'", world.cells, "valid", error=KeyError)


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


def test_without_other_contexts_the_controls_are_asked(folder):
    world = datasets.open_world(folder)
    assert list(world.source_effects()) == ["K562", "RPE1"]
    expected = effects(pseudobulk(folder / "contexts/K562.h5ad"))
    np.testing.assert_array_equal(world.source_effects()["K562"].X, expected.X)
    shutil.rmtree(folder / "contexts")
    world = datasets.open_world(folder)
    assert world.sources == [] and "no other contexts" in repr(world)
    (guess,) = world.source_effects().values()
    controls = part_of(make_cells(0), [])
    told = control_covariance(controls, ["G0", "G1", "G2"])
    assert list(guess.obs_names) == ["G0", "G1", "G2"] and guess.var_names.equals(told.columns)
    np.testing.assert_allclose(guess.X, told, rtol=1e-6)


def test_what_is_missing_or_wrong_is_named(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a path from the wrong folder shows as what it is
    for nowhere in ("nowhere", tmp_path / "nowhere"):
        words = re.escape(f"no such folder: {tmp_path}/nowhere; VCC_DATA must be")
        refuses(words, datasets.open_world, nowhere, error=FileNotFoundError)
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no adata_Training.h5ad; it has nothing"):
        datasets.open_world(empty)
    part_of(make_cells(0), ["G0"]).write_h5ad(empty / "adata_Training.h5ad")
    part_of(make_cells(0), ["G0"])[:, ::-1].copy().write_h5ad(empty / "adata_Test.h5ad")
    with pytest.raises(ValueError, match="test: 24 genes that are not those of the training file"):
        datasets.open_world(empty, sources=False)
    part_of(make_cells(0), ["G0"]).write_h5ad(empty / "adata_Test.h5ad")
    refuses("'G0' are targets in more than one part", datasets.open_world, empty, sources=False)


DATA = files("vcc_helpers.datasets") / "data"


@pytest.mark.parametrize("name", ["h1_sample", "hipsc_screen"])
def test_bundled_cells_are_as_listed_and_each_load_is_a_copy(name):
    row = datasets.catalog().loc[name]
    content = (DATA / row["file"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert row["bytes"] == len(content) and row["sha256"] == digest
    assert digest in (DATA / "PROVENANCE.md").read_text("utf-8")
    load = getattr(datasets, row["loader"].removesuffix("()"))
    first, cells = load(), load()
    first.X.data[:] = 0
    first.obs["target_gene"] = "changed"
    assert cells.shape == (row["cells"], row["genes"])
    assert cells.obs["target_gene"].nunique() - 1 == row["perturbations"]
    assert sparse.issparse(cells.X) and cells.X.format == "csr"
    assert cells.X.dtype == np.float32 and cells.X.has_sorted_indices
    assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    assert isinstance(cells.obs["target_gene"].dtype, pd.CategoricalDtype)


def test_every_record_is_complete_and_typed():
    table = datasets.catalog()
    needed = ["what", "kind", "contexts", "assay", "values", "address", "reference", "checked"]
    assert table.index.is_unique and table.index.name == "name"
    assert table[needed].notna().all(axis=None)
    assert set(table["kind"]) == {"challenge", "screen", "atlas", "bundled"}
    for field in ("cells", "genes", "perturbations", "bytes"):
        assert table[field].dtype == "Int64" and (table[field].dropna() > 0).all()
    assert table["reference"].str.fullmatch(r"10\.\d{4,5}/[\w.\-()/]+").all()
    assert table["sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()


def test_loaders_are_functions_and_fetched_files_are_known():
    table = datasets.catalog()
    for hint in table["loader"].dropna():
        for name in re.findall(r"(\w+)\(", hint):
            assert callable(getattr(datasets, name)), name
    fetched = table["loader"].str.extract(r'fetch_h1\("(\w+)"\)')[0].dropna()
    assert set(fetched) == {"train", "validation", "test", "support_set"}
    assert table.loc[fetched.index, ["file", "bytes", "sha256"]].notna().all(axis=None)
    assert table.loc["vcc2025_train", "file"] == "adata_Training.h5ad"
