"""Several contexts in one file: each is scored as if it were alone; the board shows the mean."""

import json
import tracemalloc
from dataclasses import replace
from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, dense_of, make_cells, refuses
from scipy import sparse

from vcc_helpers import datasets, pseudobulk, score, scoring
from vcc_helpers.cli import main
from vcc_helpers.scoring import ScoreCard
from vcc_helpers.stream import by_context, open_cells, row_blocks

RULES = "vcc2026"


@pytest.fixture(scope="module")
def truth():
    parts = []
    for number, name in enumerate("ABC"):
        cells = make_cells(number, n_cells=(90, 60, 80, 75, 160))
        cells.obs_names = [f"{name}{cell}" for cell in cells.obs_names]
        cells.obs["context"] = name
        parts.append(cells)
    return anndata.concat(parts)


@pytest.fixture(scope="module")
def pred(truth):
    """Another draw, without controls, its cells in any order."""
    cells = truth[truth.obs[KEY] != CONTROL].copy()
    rng = np.random.default_rng(0)
    cells.X = cells.X + rng.poisson(0.5, cells.shape).astype(cells.X.dtype)
    return cells[rng.permutation(cells.n_obs)].copy()


@pytest.fixture(scope="module")
def card(pred, truth):
    return score(pred, truth, RULES)


@pytest.fixture(scope="module")
def base(truth):
    return scoring.baseline(truth, RULES)


@pytest.fixture(scope="module")
def files(pred, truth, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    pred.write_h5ad(folder / "pred.h5ad")
    truth.write_h5ad(folder / "real.h5ad")
    base.to_json(folder / "base.json")
    return [str(folder / name) for name in ("pred.h5ad", "real.h5ad", "base.json")]


def alone(cells, name):
    return cells[cells.obs["context"] == name].copy()


def without(cells, **labels):
    [(column, label)] = labels.items()
    return cells[cells.obs[column] != label].copy()


def test_each_context_is_scored_as_if_it_were_alone(card, base, pred, truth):
    assert list(card.contexts) == list("ABC") == list(base.contexts)
    overall = []
    for name, part in card.contexts.items():
        expected = score(alone(pred, name), alone(truth, name), RULES)
        assert part.per_perturbation.equals(expected.per_perturbation)
        assert part.to_dict() == expected.to_dict() and repr(part) == repr(expected)
        own = scoring.baseline(alone(truth, name), RULES)
        assert base.contexts[name].to_dict() == own.to_dict()
        overall.append(expected.overall(own))
    assert card.overall(base) == pytest.approx(np.mean(overall), rel=1e-15)
    means = pd.DataFrame([part.summary for part in card.contexts.values()]).mean()
    np.testing.assert_allclose(card.summary, means, rtol=1e-15)
    assert base.overall(base) == 0


@pytest.mark.parametrize("stored", ["file", "view", "zarr", "cache"])
def test_every_storage_gives_the_same_bits(stored, card, files, pred, truth, tmp_path):
    sides, how = files[:2], {}
    if stored == "view":
        sides = [anndata.read_h5ad(path, backed="r")[:] for path in sides]
    if stored == "zarr":
        truth.write_zarr(tmp_path / "real.zarr")
        sides = [pred, tmp_path / "real.zarr"]
    if stored == "cache":
        how = {"cache": tmp_path, "memory": "600MB", "threads": 1}
        score(*sides, RULES, **how)
    assert score(*sides, RULES, **how).per_perturbation.equals(card.per_perturbation)


def test_one_context_is_a_card_as_ever_and_the_column_may_have_another_name(card, pred, truth):
    one = [alone(cells, "B") for cells in (pred, truth)]
    found = score(*one, RULES, context_key="context")
    assert not found.contexts and found.to_dict() == score(*one, RULES).to_dict()
    several = [cells.copy() for cells in (pred, truth)]
    for cells in (*one, *several):
        cells.obs = cells.obs.rename(columns={"context": "line"})
    assert found.to_dict() == score(*one, RULES).to_dict()
    found = score(*several, RULES, context_key="line")
    assert found.per_perturbation.equals(card.per_perturbation)
    assert not score(truth, truth).contexts  # the rules of 2025 know none of their own
    assert list(score(truth, truth, context_key="context").contexts) == list("ABC")


def test_other_contexts_are_told(pred, truth, base, card):
    two = [without(cells, context="B") for cells in (pred, truth)]
    refuses("pred: no cell of the contexts 'B'; predict", score, two[0], truth, RULES)
    refuses("'B' are not in real.*another phase", score, pred, two[1], RULES)
    nameless = anndata.AnnData(pred.X, pred.obs[[KEY]], pred.var)
    refuses("pred: obs has no column 'context'", score, nameless, truth, RULES)
    part = (pred.obs["context"] == "B") & (pred.obs[KEY] == "G1")
    refuses("context B: .*'G1'.*every one must be", score, pred[~part], truth, RULES)
    few = scoring.card.together({n: base.contexts[n] for n in "AB"})
    refuses("the baseline is of the contexts 'A', 'B', this card", card.overall, few)
    refuses("contexts nothing, this card", card.overall, base.contexts["A"])


def test_a_card_of_contexts_survives_its_file(card, pred, truth, tmp_path):
    parts = dict(score(pred, truth, RULES, ceiling=True).contexts)
    parts["B"] = replace(parts["B"], missed={"pds_cosine": ["G1"]})
    full = scoring.card.together(parts)
    full.to_json(tmp_path / "card.json")
    back = ScoreCard.from_json(tmp_path / "card.json")
    pd.testing.assert_frame_equal(back.per_perturbation, full.per_perturbation)
    pd.testing.assert_frame_equal(back.anchors, full.anchors)
    assert back.missed == full.missed == {"pds_cosine": [("B", "G1")]}
    assert back.counted.loc[("B", "G1"), "pds_cosine"] == 0
    assert repr(back) == repr(full) and "A: half-data repeat" in repr(full)
    assert "<th>B</th>" in card._repr_html_()
    pd.testing.assert_frame_equal(full.anchors, scoring.anchors(truth, RULES))
    own = scoring.anchors(alone(truth, "C"), RULES)
    pd.testing.assert_frame_equal(full.contexts["C"].anchors, own)
    for text in ('{"contexts": {}}', '{"contexts": {"A": {"contexts": {}}}}', '{"contexts": 1}'):
        (tmp_path / "x.json").write_text(text)
        refuses("not a score card", ScoreCard.from_json, tmp_path / "x.json")


def test_baseline_and_replicates_are_of_each_context(truth):
    made = scoring.official_baseline(truth, RULES, seed=1)
    halves, halved = scoring.replicates(truth, n_splits=2), scoring.split_half(truth)[0]
    for name in "ABC":
        part = alone(truth, name)
        expected, found = scoring.official_baseline(part, RULES, seed=1), alone(made, name)
        np.testing.assert_array_equal(dense_of(found.X), dense_of(expected.X))
        assert found.obs[KEY].tolist() == expected.obs[KEY].tolist()
        pd.testing.assert_frame_equal(halves.loc[name], scoring.replicates(part, n_splits=2))
        sizes = (alone(x, name).obs[KEY].value_counts() for x in (halved, truth))
        assert (2 * next(sizes) - next(sizes)).isin([0, 1]).all()
    assert made.obs_names.is_unique


# Controls of the bundle


@pytest.mark.parametrize("given", ["cells", "file", "mapping"])
def test_controls_of_the_bundle_take_the_place_of_those_that_are_missing(
    given, card, pred, truth, tmp_path
):
    controls, real = truth[truth.obs[KEY] == CONTROL].copy(), without(truth, target_gene=CONTROL)
    if given == "file":
        controls.write_h5ad(tmp_path / "c.h5ad")
    bundle = {"cells": controls, "file": tmp_path / "c.h5ad", "mapping": by_context(controls)}
    found = score(pred, real, RULES, controls=bundle[given])
    assert found.per_perturbation.equals(card.per_perturbation)
    one = score(alone(pred, "B"), alone(real, "B"), RULES, controls=bundle[given])
    assert one.per_perturbation.equals(card.contexts["B"].per_perturbation)


def test_controls_that_are_there_stay_and_others_are_refused(card, pred, truth):
    controls, real = alone(truth, "A"), without(truth, target_gene=CONTROL)
    kept = score(pred, truth, RULES, controls=controls)  # of which none is needed
    assert kept.per_perturbation.equals(card.per_perturbation)
    words = "context B: controls: .*'A', and real is of 'B'"
    refuses(words, score, pred, real, RULES, controls={"A": controls})
    refuses("each file is held against its own", score, truth, truth, controls=controls)
    refuses("real: no control cells", score, pred, real, RULES)
    words = "context A: controls: no control cells"
    refuses(words, score, pred, real, RULES, controls=by_context(real))


# The command, the pseudobulk


def test_the_command_scores_contexts(files, card, base, truth, tmp_path, capsys, monkeypatch):
    out = [str(tmp_path / name) for name in ("card.json", "table.csv")]
    words = ["score", *files[:2], "--preset", RULES, "--baseline", files[2]]
    assert main([*words, "--json", out[0], "--csv", out[1], "--context-key", "context"]) == 0
    said, told = capsys.readouterr()
    assert repr(card) in said and told == "" and "chance  pds_cosine 0.5000" in said
    for name, part in card.contexts.items():
        assert f"  overall of {name} {part.overall(base.contexts[name]):.2f}\n" in said
    assert f"  overall {card.overall(base):.2f}, baseline 0, replicate 100" in said
    assert json.loads((tmp_path / "card.json").read_text()) == card.to_dict()
    table = pd.read_csv(out[1], index_col=["context", KEY])
    pd.testing.assert_frame_equal(table, card.per_perturbation)
    found = SimpleNamespace(controls=by_context(truth[truth.obs[KEY] == CONTROL].copy()))
    monkeypatch.setattr(datasets, "read_bundle", {"b.zip": found}.get, raising=False)
    without(truth, target_gene=CONTROL).write_h5ad(tmp_path / "real.h5ad")
    words = ["score", files[0], str(tmp_path / "real.h5ad"), "--preset", RULES]
    assert main([*words, "--bundle", "b.zip"]) == 0 and repr(card) in capsys.readouterr().out
    assert main(["score", *files[:2], "--preset", RULES, "--context-key", "line"]) == 1
    assert "real: obs has no column 'line'" in capsys.readouterr().err


def test_the_pseudobulk_of_contexts(truth, files, tmp_path, capsys):
    refuses("3 contexts \\('A', 'B', 'C'\\).*context_key='context'.*by_context", pseudobulk, truth)
    bulk = pseudobulk(truth, context_key="context")
    assert bulk.obs_names[:2].tolist() == ["A/G0", "A/G1"]
    for name, part in by_context(truth).items():
        expected, rows = pseudobulk(part), bulk[bulk.obs["context"] == name]
        np.testing.assert_array_equal(rows.X, expected.X)
        np.testing.assert_array_equal(rows.layers["variance"], expected.layers["variance"])
        assert rows.obs[KEY].tolist() == expected.obs_names.tolist()
    assert pseudobulk(truth, perturbation_key="context").obs_names.tolist() == list("ABC")
    assert main(["pseudobulk", files[1], str(tmp_path / "b.h5ad")]) == 1
    assert "--context-key" in capsys.readouterr().err
    assert main(["pseudobulk", files[1], str(tmp_path / "b.h5ad"), "--context-key", "context"]) == 0
    written = anndata.read_h5ad(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(written.X, bulk.X)
    assert written.obs["context"].tolist() == bulk.obs["context"].tolist()


def test_what_lies_between_two_stretches_of_a_view_is_not_read(tmp_path):
    """Controls of all contexts may come first in a file, and the cells of one far behind."""
    rng = np.random.default_rng(0)
    X = sparse.random(20_000, 400, 0.3, "csr", np.float32, rng)
    anndata.AnnData(X).write_h5ad(tmp_path / "cells.h5ad")
    cells = open_cells(tmp_path / "cells.h5ad")
    rows = np.r_[0:50, 19_950:20_000]
    tracemalloc.start()
    found = next(row_blocks(cells[rows]))[1]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found != X[rows]).nnz == 0
    assert peak < (X.data.nbytes + X.indices.nbytes) / 5
