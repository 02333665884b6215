"""The simulated world is what it says it is: its shape, its figures, its files and its cache."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, ROOT, refuses
from scipy.stats import spearmanr

from vcc_helpers import datasets, effects, pseudobulk
from vcc_helpers.datasets import _cells as drawing
from vcc_helpers.datasets import _recipe, _simulate

BENCHMARKS = ROOT / "benchmarks"
SMALL = {"n_genes": 120, "n_targets": (12, 4, 8), "cells_per_target": 40, "n_controls": 200}
SMALL["contexts"] = ("H1", "K562")
SIZE = _recipe.Size(120, (12, 4, 8), 40, 200, 6, 2.0)
TINY = {"n_genes": 60, "n_targets": (4, 2, 3), "contexts": ("H1",), "n_controls": 50}


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    monkeypatch.setenv("VCC_CACHE", str(tmp_path / "worlds"))
    return tmp_path / "worlds"


@pytest.fixture(scope="module")
def world():
    return datasets.make_h1_like(seed=3, cache=False, **SMALL)


@pytest.fixture(scope="module")
def tiny_world():
    return datasets.make_h1_like(cache=False, **TINY)


@pytest.fixture(scope="module")
def recipe():
    return _recipe.draw_recipe(_recipe.Size(), ("H1", "K562", "RPE1"))


def same_worlds(one, other):
    assert one.split == other.split and one.seed == other.seed
    for name, cells in one.contexts.items():
        again = other.contexts[name]
        assert (cells.X != again.X).nnz == 0 and cells.X.dtype == again.X.dtype == np.float32
        pd.testing.assert_frame_equal(cells.obs, again.obs)
        pd.testing.assert_frame_equal(cells.var, again.var)
        assert cells.uns == again.uns
        np.testing.assert_array_equal(one.truth[name].X, other.truth[name].X)
        pd.testing.assert_frame_equal(one.truth[name].obs, other.truth[name].obs)


def test_default_sizes(recipe):
    size, here = recipe.size, recipe.contexts["H1"]
    assert (size.n_genes, size.n_targets, size.n_controls) == (1500, (150, 50, 100), 1000)
    assert here.n_cells.min() == 12 and 24 <= np.median(here.n_cells) <= 37
    assert here.n_cells.max() > 3 * np.median(here.n_cells)
    assert 3 <= (here.residual > 0.4).sum() <= 25 and np.median(here.residual) < 0.1
    missing = [set(np.flatnonzero(recipe.contexts[c].n_cells == 0)) for c in ("K562", "RPE1")]
    assert [len(m) for m in missing] == [30, 30] and missing[0] != missing[1]


def test_the_full_size_has_the_real_numbers_of_cells():
    size = replace(_simulate.SIZES["h1"], n_genes=400)
    recipe = _recipe.draw_recipe(size, ("H1",), seed=5)
    n_cells = recipe.contexts["H1"].n_cells
    parts = np.split(n_cells, np.cumsum(size.n_targets)[:-1])
    assert [part.sum() for part in parts] == [183_097, 60_751, 132_670]
    assert parts[0].min() == 33 and parts[0].max() == 4760
    assert np.quantile(parts[0], [0.25, 0.5, 0.75]) == pytest.approx([590, 1045, 1742], rel=0.03)
    assert len(drawing.draw_roster(recipe, "H1")) == 183_097 + 60_751 + 132_670 + 38_176


def test_other_contexts_tell_something_and_their_mean_more(recipe):
    effect = {name: drawing.expected_effects(recipe, name) for name in recipe.contexts}
    for values in effect.values():  # an own gene falls everywhere: no sign of a shared response
        values[np.arange(300), recipe.targets] = 0

    here, norms = recipe.contexts["H1"], np.linalg.norm(effect["H1"], axis=1)
    assert -0.5 < spearmanr(here.n_cells, norms).statistic < -0.3  # strong effects cost cells

    def likeness(other):
        rows = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (effect["H1"], other)]
        return (rows[0] * rows[1]).sum(axis=1).mean()

    one, other = (likeness(effect[name]) for name in ("K562", "RPE1"))
    chance = likeness(np.roll(effect["K562"], 1, axis=0))
    assert chance + 0.02 < one < 0.3 and chance + 0.02 < other < 0.3
    assert likeness(effect["K562"] + effect["RPE1"]) > 1.1 * max(one, other)


@pytest.mark.parametrize("variance", [0.04, 0.5])
def test_expected_lognorm_is_the_mean_over_many_cells(variance):
    rng = np.random.default_rng(0)
    mean_counts = np.array([0.01, 0.5, 3.0, 80.0])
    depth = np.exp(rng.normal(0, drawing.DEPTH_LOG_SD, (200_000, 1)))
    rate = np.exp(rng.normal(-variance / 2, np.sqrt(variance), (200_000, 4)))
    drawn = np.log1p(rng.poisson(mean_counts * depth * rate) / depth)
    error = drawn.mean(axis=0) - drawing.expected_lognorm(mean_counts, variance=variance)
    assert (np.abs(error) < 5 * drawn.std(axis=0) / np.sqrt(len(drawn))).all()


def test_effect_scale_scales_the_truth():
    norms = []
    for scale in (0.5, 1.0):
        recipe = _recipe.draw_recipe(replace(SIZE, effect_scale=scale))
        effect = drawing.expected_effects(recipe, "H1")
        effect[np.arange(24), recipe.targets] = 0
        norms.append(np.linalg.norm(effect, axis=1))
    assert np.median(norms[1] / norms[0]) == pytest.approx(2, rel=0.1)


def test_cells_do_not_depend_on_order_block_or_company():
    recipe = _recipe.draw_recipe(SIZE, ("H1", "K562"), seed=3)
    roster = drawing.draw_roster(recipe, "K562")
    whole = drawing.draw_counts(recipe, "K562", roster, roster.index.to_numpy())
    some = np.array([200, 3, 77])
    assert (whole[some] != drawing.draw_counts(recipe, "K562", roster, some)).nnz == 0


def test_drawn_cells_have_the_effects_that_the_recipe_means():
    """Measured effects are truth plus noise of the size that the variance says."""
    recipe = _recipe.draw_recipe(_recipe.Size(300, (3, 1, 1), 1200, 3000, 6, 1.0), seed=2)
    roster = drawing.draw_roster(recipe, "H1")
    counts = drawing.draw_counts(recipe, "H1", roster, roster.index.to_numpy())
    obs = pd.DataFrame({"target_gene": recipe.labels[roster["group"]]}, roster.index.astype(str))
    cells = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=recipe.genes))
    bulk, names = pseudobulk(cells), recipe.labels[:-1]
    variance = bulk[names].layers["variance"] / bulk[names].obs["n_cells"].to_numpy()[:, None]
    variance = variance + bulk[CONTROL].layers["variance"] / 3000
    error = effects(bulk)[names].X - drawing.expected_effects(recipe, "H1")
    seen = variance > np.quantile(variance, 0.4)  # rare genes are too skewed for a z-score
    z = error[seen] / np.sqrt(variance[seen])
    assert abs(z.mean()) < 0.15 and 0.85 < z.std() < 1.25


def test_depth_and_density_follow_the_real_figures(world):
    cells = world.contexts["H1"]
    depth = np.asarray(cells.X.sum(axis=1)).ravel() * 18_080 / 120
    real = [29_431, 53_912, 93_741]
    np.testing.assert_allclose(np.quantile(depth, [0.05, 0.5, 0.95]), real, rtol=0.15)
    assert cells.X.nnz / np.prod(cells.shape) == pytest.approx(0.483, abs=0.05)
    medians = np.log(pd.Series(depth).groupby(cells.obs["batch"].to_numpy()).median())
    assert medians.size == 6 and medians.max() - medians.min() > 0.2


def test_a_world_is_whole_and_says_that_it_is_simulated(world):
    parts = [set(names) for names in world.split.values()]
    genes = world.contexts["H1"].var
    everything = set(genes.index[genes["is_target"]])
    assert sum(map(len, parts)) == 24 and set.union(*parts) == everything
    assert "SIMULATED" in repr(world)
    for name, cells in world.contexts.items():
        assert cells.X.format == "csr" and cells.X.dtype == np.float32
        assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
        assert cells.obs_names.is_unique and cells.var_names.str.fullmatch(r"SIM\d{4,}").all()
        truth = world.truth[name]
        for data in (cells, truth):
            assert data.uns["simulated"] and "SIMULATED" in data.uns["note"]
        guides = cells.obs["guide_id"].astype(str)
        assert guides.str.fullmatch(r"SIM\d+_P[12]|non-targeting_\d+").all()
        sizes = cells.obs["target_gene"].value_counts()
        assert sizes.drop(CONTROL)[truth.obs_names].tolist() == truth.obs["n_cells"].tolist()
        assert len(sizes) == 1 + truth.n_obs == {"H1": 25, "K562": 23}[name]


def test_same_seed_is_bit_equal_and_another_seed_differs(world):
    same, other = (datasets.make_h1_like(seed=seed, cache=False, **SMALL) for seed in (3, 4))
    same_worlds(same, world)
    assert other.split != world.split
    assert other.contexts["H1"].X.sum() != world.contexts["H1"].X.sum()
    alone = datasets.make_h1_like(seed=3, cache=False, **{**SMALL, "contexts": ("H1",)})
    assert (alone.contexts["H1"].X != world.contexts["H1"].X).nnz == 0


@pytest.mark.parametrize(("arguments", "message"), [
    ({"n_targets": (150, 50, 100), "n_genes": 200}, r"300 targets, but n_genes is 200"),
    ({"n_targets": (150, 50)}, r"three numbers .* got \(150, 50\)"),
    ({"n_targets": (10, 0, 5)}, r"validation part of n_targets .* at least 1, got 0"),
    ({"n_genes": 100.0}, r"n_genes must be a whole number .* got 100.0"),
    ({"cells_per_target": 5}, r"cells_per_target .* at least 12, got 5"),
    ({"n_controls": True}, r"n_controls .* got True"),
    ({"seed": None}, r"seed .* got None"),
    ({"effect_scale": float("nan")}, r"effect_scale must be a positive number, got nan"),
    ({"contexts": "H1"}, r"list of names.*got 'H1'"),
    ({"contexts": ("H1", 2)}, r"non-empty string, got 2"),
    ({"contexts": ("H1", "K562", "H1")}, r"\['H1'\] are repeated"),
])  # fmt: skip
def test_bad_arguments_say_what_was_seen_and_expected(arguments, message):
    refuses(message, datasets.make_h1_like, **{**SMALL, **arguments})


@pytest.mark.parametrize("part", ["train", "validation", "all"])
def test_a_written_part_holds_the_cells_of_the_world(part, world, tmp_path):
    cells = anndata.read_h5ad(datasets.write_h1_like(tmp_path / "x", size=SIZE, part=part, seed=3))
    same = world.contexts["H1"] if part == "all" else world.cells(part)
    same = same[cells.obs_names]
    assert cells.n_obs == same.n_obs and (cells.X != same.X).nnz == 0
    assert cells.X.dtype == np.float32 and cells.uns["simulated"]
    assert (cells.obs.astype(str) == same.obs.astype(str)).all(axis=None)
    assert list(cells.obs) == ["target_gene", "guide_id", "batch"]


def test_a_wrong_size_or_part_is_named_and_nothing_written(tmp_path):
    for words, message in (
        ({"size": "huge"}, "no size 'huge'; expected one of small, panel, h1"),
        ({"part": "valid"}, "no part 'valid'; expected one of train, validation"),
        ({"size": replace(SIZE, cells_of_parts=(1, 9, 9))}, "a median of 40 per target"),
    ):
        refuses(message, datasets.write_h1_like, tmp_path / "x.h5ad", **{"size": SIZE, **words})
    assert not list(tmp_path.iterdir())


MEMORY = """
import resource, sys
from vcc_helpers.datasets import _simulate, Size
_simulate.BLOCK_VALUES = 2**21
_simulate.write_h1_like(sys.argv[1], size=Size(500, (12, 4, 8), 12, 50, 6, 2.0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
_simulate.write_h1_like(sys.argv[1], size=Size(4000, (12, 4, 8), 12, 2500, 6, 2.0))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak in Linux's unit")
def test_writing_holds_a_few_blocks_only(tmp_path):
    path = tmp_path / "cells.h5ad"
    words = [sys.executable, "-c", MEMORY, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 0.6 * path.stat().st_size > 15e6


def drawn(**words):
    return datasets.make_h1_like(**{**TINY, **words})


@pytest.fixture
def stored(kept):
    drawn()
    (folder,) = kept.iterdir()
    return folder


def damage(folder):
    path = folder / "cells-0.h5ad"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


HARMS = {
    "bit": damage,
    "file gone": lambda folder: (folder / "truth-0.h5ad").unlink(),
    "cut": lambda folder: (folder / "index.json").write_text("{"),
    "no sums": lambda folder: (folder / "index.json").write_text("{}"),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_a_damaged_world_is_drawn_anew_and_kept(harm, stored, tiny_world):
    harm(stored)
    before = (stored / "index.json").stat().st_ino
    same_worlds(drawn(), tiny_world)
    now = (stored / "index.json").stat().st_ino
    assert now != before  # what is drawn anew is written anew
    same_worlds(drawn(), tiny_world)
    assert (stored / "index.json").stat().st_ino == now


def test_a_stored_world_is_not_used_for_another(stored, monkeypatch):
    for n, words in enumerate(({"seed": 4}, {"effect_scale": 1.0}, {"contexts": ("K562",)}), 2):
        drawn(**words)
        assert len(list(stored.parent.iterdir())) == n
    monkeypatch.setattr(_simulate, "version", lambda name: "0.0")
    drawn()
    assert len(list(stored.parent.iterdir())) == 5


def test_a_typo_in_a_docstring_draws_no_world_anew_but_a_number_does(tmp_path):
    source = '"""Draw."""\ndef f():\n    """One."""\n    return 1\n'
    texts = {"a": source, "b": source.replace("One", "A\n    new one"), "c": source[:-2] + "2\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    one, typo, number = (_simulate.code((str(tmp_path / name),)) for name in texts)
    assert one == typo != number


@pytest.mark.parametrize("fault", ["in the way", "full disk"])
def test_without_a_place_for_the_cache_it_works_all_the_same(fault, kept, monkeypatch, tiny_world):
    def full(*_):
        raise OSError(28, "No space left on device")

    if fault == "full disk":
        monkeypatch.setattr(_simulate, "write_whole", full)  # when most is written
    else:
        kept.write_text("a file")
    same_worlds(drawn(), tiny_world)
    assert kept.is_file() or not list(kept.iterdir())


def test_the_kept_table_is_of_this_recipe_and_within_its_tolerances():
    spec = importlib.util.spec_from_file_location("calibration", BENCHMARKS / "calibration.py")
    calibration = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(calibration)
    kept = json.loads(calibration.RESULT.read_text())
    assert kept["code"] == _simulate.code(_simulate.DRAWING), "run make calibration"
    real = json.loads(calibration.REAL.read_text())
    found = calibration.table(real, kept["simulated"])
    assert found["within"].all(), found[~found["within"]].to_string()
    off = calibration.table({**real, "density": [0.3]}, kept["simulated"])
    assert off["within"].drop("density").all() and not off.loc["density", "within"]
