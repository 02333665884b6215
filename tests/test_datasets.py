"""The bundled files are the published counts; the simulated world is what it says it is."""

import hashlib
import importlib
import re
from importlib.resources import files
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import datasets

CONTROL = "non-targeting"
SHARED_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
PROVENANCE = files("vcc_helpers.datasets") / "data" / "PROVENANCE.md"
LOADERS = [datasets.load_h1_sample, datasets.load_hipsc_screen]
SMALL = {
    "n_genes": 120,
    "n_targets": (12, 4, 8),
    "contexts": ("H1", "K562"),
    "cells_per_target": 40,
    "n_controls": 200,
}
simulate = importlib.import_module("vcc_helpers.datasets._simulate")


@pytest.fixture(scope="module")
def world():
    return datasets.make_h1_like(seed=3, **SMALL)


@pytest.fixture(scope="module")
def large_world():
    return datasets.make_h1_like(seed=0, contexts=("H1", "K562", "RPE1"))


def shared_file(name):
    path = SHARED_DATA / name
    if not path.exists():
        pytest.skip(f"the reference file {name} is not beside this repository")
    return anndata.read_h5ad(path)


def mean_lognorm(cells):
    """Pseudobulk written out plainly, so that this file tests the data sets alone."""
    depth = np.asarray(cells.X.sum(axis=1)).ravel()
    lognorm = cells.X.multiply(np.median(depth) / depth[:, None]).tocsr().log1p()
    groups = cells.obs["target_gene"].cat
    rows = {
        name: np.asarray(lognorm[np.flatnonzero(groups.codes == code)].mean(axis=0)).ravel()
        for code, name in enumerate(groups.categories)
    }
    return pd.DataFrame(rows, index=cells.var_names).T


def measured_effects(cells):
    means = mean_lognorm(cells)
    return means.drop(CONTROL) - means.loc[CONTROL]


def cosines(a, b):
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


# Bundled files


@pytest.mark.parametrize("load", LOADERS)
def test_counts_are_csr_float32_whole_numbers(load):
    cells = load()
    assert sparse.issparse(cells.X) and cells.X.format == "csr"
    assert cells.X.dtype == np.float32
    assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
    assert cells.X.has_sorted_indices
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    assert isinstance(cells.obs["target_gene"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("load", LOADERS)
def test_each_load_is_an_independent_copy(load):
    first, second = load(), load()
    first.X.data[:] = 0
    first.obs["target_gene"] = "changed"
    assert second.X.data.min() >= 1
    assert (load().obs["target_gene"] == second.obs["target_gene"]).all()


def test_h1_sample_has_the_published_cells():
    cells = datasets.load_h1_sample()
    assert cells.shape == (600, 1000)
    assert cells.X.nnz == 599_805 and cells.X.max() == 1146
    assert list(cells.obs.columns) == ["target_gene", "guide_id", "batch"]
    sizes = cells.obs["target_gene"].value_counts()
    assert set(sizes.index) == {CONTROL, "TMSB4X", "STAT1", "MED12", "TET1", "SRC"}
    assert (sizes == 100).all()
    assert cells.obs["batch"].nunique() == 48
    assert cells.var["gene_id"].str.fullmatch(r"ENSG\d{11}").all()


def test_hipsc_screen_has_the_published_cells():
    cells = datasets.load_hipsc_screen()
    assert cells.shape == (14_945, 103)
    assert cells.X.nnz == 1_058_409 and cells.X.max() == 138
    assert cells.obs["day"].dtype == np.int64
    assert set(cells.obs["target_gene"].cat.categories) - {CONTROL} <= set(cells.var_names)
    # Sample numbers 1 to 4 in the cell names are days 2 to 5.
    sample = cells.obs_names.str.split("_").str[0].astype(int)
    assert (sample + 1 == cells.obs["day"]).all()


def test_cells_per_group_and_day_are_those_of_the_provenance_table():
    cells = datasets.load_hipsc_screen()
    found = pd.crosstab(cells.obs["target_gene"], cells.obs["day"])
    pattern = r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$"
    rows = re.findall(pattern, PROVENANCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) == len(found) == 24
    for name, *numbers in rows:
        *by_day, together = map(int, numbers)
        assert found.loc[name].tolist() == by_day and sum(by_day) == together


def test_files_have_the_checksums_of_the_provenance_table():
    known = set(re.findall(r"\b[0-9a-f]{64}\b", PROVENANCE.read_text(encoding="utf-8")))
    folder = files("vcc_helpers.datasets") / "data"
    bundled = [item for item in folder.iterdir() if item.name.endswith(".h5ad")]
    assert {hashlib.sha256(item.read_bytes()).hexdigest() for item in bundled} == known
    assert sum(len(item.read_bytes()) for item in bundled) < 2_500_000
    assert "masastat" in (folder / "LICENSE-renge").read_text(encoding="utf-8")


def test_h1_sample_equals_the_reference_file():
    reference = shared_file("h1/H1-VCC-2025-training.h5ad")
    cells = datasets.load_h1_sample()
    assert (cells.X != reference.X).nnz == 0
    pd.testing.assert_frame_equal(cells.obs, reference.obs)
    pd.testing.assert_frame_equal(cells.var, reference.var)


def test_hipsc_screen_equals_the_reference_file():
    reference = shared_file("other/renge_hipsc_crisprko_14945x103_log1p.h5ad")
    cells = datasets.load_hipsc_screen()
    np.testing.assert_array_equal(cells.X.toarray(), np.rint(np.expm1(reference.X)))
    # The order of the categories is the writer's choice; the labels are what counts.
    labels, expected = (data.obs.astype({"target_gene": str}) for data in (cells, reference))
    pd.testing.assert_frame_equal(labels, expected)
    assert cells.var_names.equals(reference.var_names)


# Simulated world


def test_default_sizes(large_world):
    sizes = {part: len(names) for part, names in large_world.split.items()}
    assert sizes == {"train": 150, "validation": 50, "test": 100}
    cells = large_world.contexts["H1"]
    assert cells.n_vars == 1500
    per_target = cells.obs["target_gene"].value_counts()
    assert per_target[CONTROL] == 1000
    per_target = per_target.drop(CONTROL)
    assert per_target.min() == 12 and 24 <= per_target.median() <= 37
    assert per_target.max() > 3 * per_target.median()


def test_split_is_disjoint_and_covers_the_targets(world):
    train, validation, test = (set(world.split[k]) for k in ("train", "validation", "test"))
    assert not (train & validation or train & test or validation & test)
    genes = world.contexts["H1"].var
    assert train | validation | test == set(genes.index[genes["is_target"]])


def test_first_context_has_every_target_and_others_most(large_world):
    everything = set().union(*large_world.split.values())
    covered = {}
    for name, cells in large_world.contexts.items():
        covered[name] = set(cells.obs["target_gene"].cat.categories) - {CONTROL}
        assert covered[name] == set(large_world.truth[name].obs_names)
    assert covered["H1"] == everything
    assert len(covered["K562"]) == len(covered["RPE1"]) == 270
    assert covered["K562"] != covered["RPE1"] and covered["K562"] < everything


def test_cells_look_like_counts_and_say_that_they_are_simulated(world):
    assert "SIMULATED" in repr(world)
    for name, cells in world.contexts.items():
        assert cells.X.format == "csr" and cells.X.dtype == np.float32
        assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
        assert cells.obs_names.is_unique and cells.var_names.str.fullmatch(r"SIM\d{4,}").all()
        for data in (cells, world.truth[name]):
            assert data.uns["simulated"] and "SIMULATED" in data.uns["note"]
        assert (
            world.truth[name]
            .obs["n_cells"]
            .equals(
                cells.obs["target_gene"]
                .value_counts()[world.truth[name].obs_names]
                .rename("n_cells")
            )
        )


def test_label_survives_a_round_trip_to_disk(world, tmp_path):
    world.contexts["H1"].write_h5ad(tmp_path / "world.h5ad")
    again = anndata.read_h5ad(tmp_path / "world.h5ad")
    assert again.uns["simulated"] and "SIMULATED" in again.uns["note"]
    assert (again.X != world.contexts["H1"].X).nnz == 0


def test_same_seed_is_bit_equal_and_another_seed_differs(world):
    same, other = (datasets.make_h1_like(seed=seed, **SMALL) for seed in (3, 4))
    assert same.split == world.split and other.split != world.split
    for name, cells in world.contexts.items():
        np.testing.assert_array_equal(same.contexts[name].X.toarray(), cells.X.toarray())
        pd.testing.assert_frame_equal(same.contexts[name].obs, cells.obs)
        np.testing.assert_array_equal(same.truth[name].X, world.truth[name].X)
    assert other.contexts["H1"].X.sum() != world.contexts["H1"].X.sum()


def test_first_context_does_not_depend_on_the_others(world):
    alone = datasets.make_h1_like(seed=3, **{**SMALL, "contexts": ("H1",)})
    assert (alone.contexts["H1"].X != world.contexts["H1"].X).nnz == 0


def test_global_random_state_is_left_alone():
    np.random.seed(1)  # noqa: NPY002
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    datasets.make_h1_like(seed=3, **SMALL)
    assert np.random.random() == expected  # noqa: NPY002


def test_knockdown_is_visible(large_world):
    means = np.expm1(mean_lognorm(large_world.contexts["H1"]))
    left = pd.Series(
        {t: means.loc[t, t] / means.loc[CONTROL, t] for t in means.index.drop(CONTROL)}
    )
    assert left.median() < 0.1
    poor = large_world.truth["H1"].obs["residual"] > 0.4
    assert 3 <= poor.sum() <= 25
    assert left[poor.index[poor]].median() > 0.3


def test_depth_and_density_follow_the_real_figures(large_world):
    counts = large_world.contexts["H1"].X
    depth = np.asarray(counts.sum(axis=1)).ravel() * 18_080 / 1500
    np.testing.assert_allclose(
        np.quantile(depth, [0.05, 0.5, 0.95]), [29_431, 53_912, 93_741], rtol=0.1
    )
    assert counts.nnz / np.prod(counts.shape) == pytest.approx(0.483, abs=0.03)


def test_batches_differ_in_depth():
    world = datasets.make_h1_like(seed=3, **{**SMALL, "n_batches": 4, "n_controls": 4000})
    cells = world.contexts["H1"]
    depth = pd.Series(np.asarray(cells.X.sum(axis=1)).ravel(), index=cells.obs_names)
    medians = np.log(depth.groupby(cells.obs["batch"], observed=True).median())
    assert medians.size == 4 and medians.max() - medians.min() > 0.05


def test_truth_is_where_the_measured_effects_go_with_many_cells():
    world = datasets.make_h1_like(
        seed=1,
        n_genes=200,
        n_targets=(3, 1, 1),
        contexts=("H1",),
        cells_per_target=8000,
        n_controls=20_000,
    )
    measured = measured_effects(world.contexts["H1"])
    truth = world.truth["H1"].to_df()
    large = world.truth["H1"].obs["n_cells"] > 3000
    error = (measured - truth)[large.to_numpy()]
    assert np.abs(error.to_numpy()).max() < 0.06
    assert np.abs(error.to_numpy()).mean() < 0.01


def test_expected_lognorm_is_the_mean_over_many_cells():
    rng = np.random.default_rng(0)
    mean_counts = np.array([0.01, 0.5, 3.0, 80.0])
    spread = np.hypot(simulate.DEPTH_LOG_SD, simulate.BATCH_LOG_SD)
    depth = np.exp(rng.normal(0, spread, (400_000, 1)))
    shape = 1 / simulate.DISPERSION
    counts = rng.negative_binomial(shape, shape / (shape + mean_counts * depth))
    drawn = np.log1p(counts / depth)
    error = drawn.mean(axis=0) - simulate._expected_lognorm(mean_counts)
    assert (np.abs(error) < 5 * drawn.std(axis=0) / np.sqrt(len(drawn))).all()


def test_effect_scale_scales_the_truth():
    norms = []
    for scale in (0.5, 1.0):
        world = datasets.make_h1_like(seed=3, effect_scale=scale, **SMALL)
        effect = world.truth["H1"].to_df()
        others = ~effect.columns.isin(effect.index)
        norms.append(np.linalg.norm(effect.loc[:, others], axis=1))
    assert np.median(norms[1] / norms[0]) == pytest.approx(2, rel=0.1)


def test_other_contexts_tell_something_and_their_mean_more(large_world):
    effect = {name: measured_effects(cells) for name, cells in large_world.contexts.items()}
    common = effect["K562"].index.intersection(effect["RPE1"].index)
    # A target's own gene falls in every context: that is no sign of a shared response.
    names = ("H1", "K562", "RPE1")
    real, k562, rpe1 = (effect[name].loc[common].to_numpy(copy=True) for name in names)
    own = effect["H1"].columns.get_indexer(common)
    for values in (real, k562, rpe1):
        values[np.arange(len(common)), own] = 0
    one, other = np.median(cosines(real, k562)), np.median(cosines(real, rpe1))
    assert 0.06 < one < 0.3 and 0.06 < other < 0.3
    assert np.median(cosines(real, k562 + rpe1)) > 1.1 * max(one, other)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_targets": (150, 50, 100), "n_genes": 200}, r"300 targets, but n_genes is 200"),
        ({"n_targets": (150, 50)}, r"three numbers .* got \(150, 50\)"),
        ({"n_targets": 300}, r"three numbers .* got 300"),
        ({"n_targets": (10, 0, 5)}, r"validation part of n_targets .* at least 1, got 0"),
        ({"n_genes": 0}, r"n_genes .* at least 1, got 0"),
        ({"n_genes": 100.0}, r"n_genes must be a whole number .* got 100.0"),
        ({"cells_per_target": 5}, r"cells_per_target .* at least 12, got 5"),
        ({"n_controls": True}, r"n_controls .* got True"),
        ({"n_batches": 0}, r"n_batches .* at least 1, got 0"),
        ({"seed": -1}, r"seed .* at least 0, got -1"),
        ({"seed": None}, r"seed .* got None"),
        ({"effect_scale": 0}, r"effect_scale must be a positive number, got 0"),
        ({"effect_scale": float("nan")}, r"effect_scale must be a positive number, got nan"),
        ({"contexts": "H1"}, r"list of names.*got 'H1'"),
        ({"contexts": ()}, r"list of names.*got \(\)"),
        ({"contexts": ("H1", 2)}, r"non-empty string, got 2"),
        ({"contexts": ("H1", "K562", "H1")}, r"\['H1'\] are repeated"),
    ],
)
def test_bad_arguments_say_what_was_seen_and_expected(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.make_h1_like(**{**SMALL, **arguments})


def test_arguments_are_keyword_only():
    with pytest.raises(TypeError):
        datasets.make_h1_like(0)


def test_every_gene_may_be_a_target():
    world = datasets.make_h1_like(
        n_genes=12, n_targets=(5, 3, 4), contexts=["A"], n_controls=12, n_batches=1
    )
    assert world.contexts["A"].var["is_target"].all()
