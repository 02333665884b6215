"""The bundle of a season: official and simulated ones open alike, and what is wrong is said."""

import gc
import json
import zipfile

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, refuses
from scipy import sparse

from vcc_helpers import cli, datasets, pseudobulk
from vcc_helpers.datasets import Size, _bundle

GENES, TARGETS = ["SOX2", "POU5F1", "TET1", "ACTB"], ["TET1", "SOX2"]
#: As participants report the official one.
MANIFEST = {
    "season": "2026",
    "partition": "val",
    "panel_id": "vcc2026-val-1",
    "contexts": ["A", "B", "C"],
    "pert_col": "target_gene",
    "context_col": "context",
    "control_label": "non-targeting",
    "n_genes": 4,
    "cells_per_pert": 400,
}


def controls_of(context, n=6):
    rng = np.random.default_rng(ord(context))
    guides = [f"non-targeting-{i % 2 + 1}" for i in range(n)]
    obs = pd.DataFrame({KEY: CONTROL, "context": context, "ntc_id": guides}, dtype="category")
    obs.index = [f"{context}_ctrl_{i:06d}" for i in range(n)]
    counts = sparse.csr_matrix(rng.poisson(3, (n, 4)).astype(np.float32))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for context in "ABC":
        controls_of(context).write_h5ad(folder / f"context_{context}.h5ad")
    (folder / "gene_names.csv").write_text("gene_name\n" + "\n".join(GENES))
    (folder / "pert_counts.csv").write_text("target_gene\n" + "\n".join(TARGETS))
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    return folder


def zipped(folder, *, inside="", how=zipfile.ZIP_STORED):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", how) as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
        archive.writestr("__MACOSX/._manifest.json", "not ours")
    return path


def is_the_bundle(bundle):
    assert bundle.contexts == ["A", "B", "C"] and bundle.targets == TARGETS
    assert bundle.genes.tolist() == GENES and bundle.n_cells.to_dict() == {"TET1": 400, "SOX2": 400}
    for context, cells in bundle.controls.items():
        expected = controls_of(context)
        np.testing.assert_array_equal(pseudobulk(cells).X, pseudobulk(expected).X)
        assert set(cells.obs["context"]) == {context} and set(cells.obs[KEY]) == {CONTROL}
        assert cells.obs_names.equals(expected.obs_names)


def test_a_folder_and_both_kinds_of_zip_are_the_same_bundle(folder):
    (folder / "my prediction.h5ad").write_bytes(b"whatever")  # people work in that folder
    is_the_bundle(datasets.read_bundle(folder))
    assert all(cells.isbacked for cells in datasets.read_bundle(str(folder)).controls.values())
    (folder / "my prediction.h5ad").unlink()
    for how, inside in ((zipfile.ZIP_STORED, ""), (zipfile.ZIP_DEFLATED, "vcc/controls/")):
        is_the_bundle(datasets.read_bundle(zipped(folder, inside=inside, how=how)))


def test_what_a_zip_is_unpacked_to_lasts_as_long_as_its_cells(folder):
    bundle = datasets.read_bundle(zipped(folder))
    unpacked, cells = bundle.folder, bundle.controls["B"]
    assert unpacked != folder and (unpacked / "context_A.h5ad").exists()
    del bundle
    gc.collect()
    assert pseudobulk(cells[:3]).obs["n_cells"].tolist() == [3]
    del cells
    gc.collect()
    assert not unpacked.exists()


def test_other_layouts_of_the_controls(folder):
    whole = anndata.concat([controls_of(context) for context in "CAB"])
    for context in "ABC":
        (folder / f"context_{context}.h5ad").unlink()
    whole.obs = whole.obs.rename(columns={KEY: "gene", "context": "line"})
    whole.write_h5ad(folder / "controls.h5ad")
    manifest = MANIFEST | {"pert_col": "gene", "context_col": "line"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    is_the_bundle(datasets.read_bundle(folder))
    (folder / "controls.h5ad").unlink()
    for context in "ABC":  # a file tells of its context by its name alone
        cells = controls_of(context)
        del cells.obs["context"]
        cells.write_h5ad(folder / f"{context}.h5ad")
    (folder / "manifest.json").write_text(json.dumps(MANIFEST))
    is_the_bundle(datasets.read_bundle(folder))


def test_numbers_of_cells_are_those_of_the_list_else_of_the_manifest(folder):
    (folder / "manifest.json").write_text(json.dumps(MANIFEST | {"cells_per_pert": 50}))
    assert datasets.read_bundle(folder).n_cells.tolist() == [50, 50]
    (folder / "pert_counts.csv").write_text("target_gene,n_cells\nTET1,7\nSOX2,9")
    assert datasets.read_bundle(folder).n_cells.tolist() == [7, 9]


def changed(name, text):
    return lambda folder: (folder / name).write_text(text)


def rewritten(change):
    def spoil(folder):
        cells = change(controls_of("B"))
        cells.write_h5ad(folder / "context_B.h5ad")

    return spoil


def labelled(**labels):
    return rewritten(lambda cells: [cells, setattr(cells, "obs", cells.obs.assign(**labels))][0])


BAD = {
    "cut": (lambda f: (f / "context_B.h5ad").write_bytes(b"x"), "context_B.h5ad is not an HDF5"),
    "gone": (lambda f: (f / "context_B.h5ad").unlink(), "'B', 'C', .* have controls of 'A', 'C'"),
    "no contexts": (changed("manifest.json", "{}"), r'name the contexts; expected .*\["A"'),
    "no JSON": (changed("manifest.json", "["), "manifest.json does not name the contexts"),
    "text": (changed("manifest.json", '{"contexts": "ABC"}'), "does not name the contexts"),
    "twice": (changed("manifest.json", '{"contexts": ["A", "A"]}'), "the contexts; .* each once"),
    "other phase": (changed("manifest.json", '{"contexts": ["D", "E", "F"]}'),
        "contexts 'D', 'E', 'F', and .* have controls of 'A', 'B', 'C'"),
    "same context": (labelled(context="A"), "context_B.h5ad has controls of 'A', as has another"),
    "perturbed": (labelled(target_gene="TET1"), "'TET1' among the controls; expected 'non-target"),
    "order": (rewritten(lambda c: c[:, ::-1].copy()), "context_B.h5ad: 4 genes, in another order"),
    "genes": (rewritten(lambda c: c[:, 1:].copy()), "context_B.h5ad: 3 genes, other than the 4 of"),
    "list": (changed("gene_names.csv", "SOX2\nTET1"), "names 2 genes, manifest.json says 4; take"),
    "counts": (changed("pert_counts.csv", "gene\nTET1"), "has no column 'target_gene'"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=BAD)
def test_what_is_wrong_is_said(spoil, message, folder):
    spoil(folder)
    refuses(message, datasets.read_bundle, folder)


def test_what_is_missing_is_named(folder, tmp_path):
    nowhere = tmp_path / "nowhere"
    words = "no such folder or zip: .*; expected the bundle that vcc datasets"
    refuses(words, datasets.read_bundle, nowhere, error=FileNotFoundError)
    (tmp_path / "text.zip").write_text("no zip")
    refuses("text.zip cannot be read as a zip", datasets.read_bundle, tmp_path / "text.zip")
    cut = zipped(folder)
    cut.write_bytes(cut.read_bytes()[:-200])
    refuses("bundle.zip cannot be read as a zip", datasets.read_bundle, cut)
    (folder / "manifest.json").unlink()
    for path in (folder, zipped(folder)):
        refuses("has no 'manifest.json'; it has .*'context_A.h5ad'", datasets.read_bundle, path,
            error=FileNotFoundError)  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    """A bundle of 9 targets, 60 genes, 3 cells per target and guide."""
    monkeypatch.setitem(_bundle._SIZES, "small", Size(60, (3, 3, 3), 12, 46 * 3, 1, 2.0))


def test_a_simulated_bundle_is_a_bundle_with_its_truth_and_sources(tiny, tmp_path):
    folder = datasets.write_bundle(tmp_path / "sim")
    bundle, truth = datasets.read_bundle(folder), anndata.read_h5ad(folder / "truth.h5ad")
    assert bundle.contexts == ["A", "B", "C"] and len(bundle.targets) == 9
    assert (bundle.n_cells == 3).all() and bundle.genes.tolist() == truth.var_names.tolist()
    for context, cells in bundle.controls.items():
        real = truth[truth.obs["context"] == context]
        assert (cells.to_memory().X != real[cells.obs_names].X).nnz == 0
        sizes = real.obs[KEY].value_counts()
        assert sizes.drop(CONTROL).to_dict() == dict.fromkeys(bundle.targets, 3)
        assert cells.obs["ntc_id"].value_counts().tolist() == [3] * 46
        assert cells.uns["simulated"] and "SIMULATED" in cells.uns["note"]
    depth = np.median(np.ravel(truth.X.sum(axis=1))) / 60 * 18_533
    assert depth == pytest.approx(20_000, rel=0.1)
    measured = [
        set(anndata.read_h5ad(path).obs[KEY]) - {CONTROL}
        for path in sorted((folder / "sources").iterdir())
    ]
    assert [len(names) for names in measured] == [6, 5, 4] and set.union(*measured) < set(
        bundle.targets
    )
    assert "SIMULATED" in (folder / "manifest.json").read_text()


def test_the_seed_makes_the_bundle_and_400_cells_need_no_numbers(tiny, tmp_path, monkeypatch):
    one, same, other = (
        anndata.read_h5ad(datasets.write_bundle(tmp_path / name, seed=seed) / "truth.h5ad")
        for name, seed in (("one", 1), ("same", 1), ("other", 2))
    )
    assert (one.X != same.X).nnz == 0 and one.X.sum() != other.X.sum()
    assert "n_cells" in (tmp_path / "one/pert_counts.csv").read_text()
    monkeypatch.setattr(_bundle, "_GUIDES", 1)
    monkeypatch.setitem(_bundle._SIZES, "full", Size(60, (1, 1, 1), 12, 400, 1, 2.0))
    folder = datasets.write_bundle(tmp_path / "full", size="full")
    assert (folder / "pert_counts.csv").read_text().splitlines()[0] == "target_gene"
    assert set(datasets.read_bundle(folder).n_cells) == {400}


def test_a_bundle_is_never_written_over_and_a_broken_one_not_left(
    tiny, folder, tmp_path, monkeypatch
):
    refuses("is not empty; name a new", datasets.write_bundle, folder, error=FileExistsError)
    is_the_bundle(datasets.read_bundle(folder))
    refuses("no size 'h1' of a bundle; expected small", datasets.write_bundle, tmp_path, size="h1")
    monkeypatch.setattr(_bundle, "_write_lists", lambda *_: 1 / 0)
    refuses("zero", datasets.write_bundle, tmp_path / "new", error=ZeroDivisionError)
    assert not (tmp_path / "new").exists()


def test_the_command_simulates_a_season(tiny, tmp_path, capsys):
    assert cli.main(["simulate", str(tmp_path / "sim"), "--season", "2026", "--seed", "3"]) == 0
    assert "SIMULATED" in capsys.readouterr().out
    assert json.loads((tmp_path / "sim/manifest.json").read_text())["panel_id"] == "SIMULATED-3"
