"""Features: exact where the answer is known, and what is missing is said, not filled in."""

import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, frame, make_cells, refuses, stored

from vcc_helpers import features, lognorm, stream
from vcc_helpers.stream import covariance

equal = np.testing.assert_allclose


@pytest.fixture
def sources():
    rng = np.random.default_rng(0)
    names = [f"T{i}" for i in range(6)]
    return {
        "K562": frame(rng.normal(size=(6, 9)), names),
        "RPE1": frame(rng.normal(size=(4, 9)), names[2:]),
    }


def test_gene_scores_span_the_effects():
    y = np.random.default_rng(0).normal(size=(6, 15))
    scores = features.gene_scores(y, 99)
    centred = y.T - y.T.mean(axis=0)
    equal(scores @ scores.T, centred @ centred.T, atol=1e-10)
    assert features.gene_scores(y, 2).shape == (15, 2)


def test_likenesses_are_to_the_training_targets():
    rng = np.random.default_rng(0)
    names = pd.Index(["MED1", "MED4", "SOX2", "KLF4", "MYC"])
    table = pd.DataFrame(rng.normal(1, 1, (5, 3)), names)
    counts = pd.DataFrame({"n_cells": [10.0, 100, 1000, 1e9, 50]}, names)
    mine = pd.DataFrame(rng.random((4, 4)), names[:4], names[:4])
    parts = {
        "direction": (7 * table, features.same_direction),  # only directions count
        "counts": (counts, features.near_counts),
        "family": (pd.DataFrame({"family": [1, 1, 2, 3, 4]}, names), features.same_value),
        "mine": mine,
    }
    trained = frame(np.zeros((4, 2)), ["SOX2", "NEW", "MED1", "MED4"])
    found = features.Likenesses(parts)(trained)
    assert found.index.tolist() == names[:4].tolist() and found.attrs["left_out"]["mine"] == ["MYC"]
    seen = ["SOX2", "MED1", "MED4"]
    assert found["mine"].columns.tolist() == seen and found["mine"].equals(mine[seen])
    assert found["family"].loc["MED1"].tolist() == [0, 1, 1]
    log = np.log(counts["n_cells"])
    z = ((log - log[seen].mean()) / log[seen].std(ddof=0)).clip(-3, 3)
    assert z["KLF4"] == 3
    equal(found["counts"].loc["KLF4"], np.exp(-((3 - z[seen]) ** 2) / 2))
    unit = table.div(np.linalg.norm(table, axis=1), axis=0)
    unit = unit - unit.loc[seen].mean()
    unit = unit.div(np.linalg.norm(unit, axis=1), axis=0)
    equal(found["direction"], np.exp(5 * (unit @ unit.loc[seen].T - 1)).loc[names[:4]])
    weighed = features.Likenesses(parts, {"direction": 1, "counts": 2, "family": 0, "mine": 0})
    equal(weighed(trained)["sum"], found["direction"] + 2 * found["counts"])
    refuses("of 0 or below", features.near_counts, counts.to_numpy() - 50, counts[:2].to_numpy())


def test_source_effects_keep_targets_of_every_context():
    rng = np.random.default_rng(0)
    delta = frame(rng.normal(size=(12, 20)), [f"G{i}" for i in range(12)])
    first, second = delta[:4], delta[2:7, :5]
    table = features.source_effects({"K562": first, "RPE1": second})
    assert table.index.tolist() == ["G2", "G3"] and table.shape == (2, 25)
    np.testing.assert_array_equal(table["RPE1"].loc["G3"], second["G3"].X[0])
    refuses("no source context", features.source_effects, {})
    with pytest.raises(ValueError, match=r"a: 2 targets, b: 1 targets"):
        features.source_effects({"a": first[:2], "b": second[-1:]})


def test_coverage(table):
    found = features.coverage({"mine": table}, ["G0", "NEW", "G0", "G1"])
    assert found.loc["mine"].to_dict() == {"covered": 2, "asked": 3, "missing": ["NEW"]}
    assert features.coverage(table, ["G0", "NEW"]).loc["features", "missing"] == ["NEW"]


def test_the_source_mean_is_over_the_contexts_that_measured_a_target(sources):
    mean = features.source_mean(sources)
    assert mean.index.tolist() == [f"T{i}" for i in range(6)]
    equal(mean.loc["T0"], sources["K562"]["T0"].X[0])
    both = (sources["K562"]["T4"].X + sources["RPE1"]["T4"].X) / 2
    equal(mean.loc["T4"], both[0])


def test_source_components_keep_all_products_between_targets(sources):
    found = features.source_components(sources, 99)
    k562, rpe1 = sources["K562"].X, np.vstack([sources["K562"].X[:2], sources["RPE1"].X])
    joined = np.hstack([k562, rpe1])
    joined = joined - joined.mean(axis=0)
    equal(found @ found.T, joined @ joined.T, atol=1e-10)
    first = features.source_components(sources, 2)
    equal(np.abs(first), np.abs(found[[0, 1]]), atol=1e-10)
    for function in (features.source_mean, features.source_components):
        refuses("no source context", function, {})
        with pytest.raises(ValueError, match="'K562' and 'RPE1' differ in their genes"):
            function({"K562": sources["K562"], "RPE1": sources["RPE1"][:, ::-1]})


@pytest.mark.parametrize("kind, sep", [("csv", ";"), ("tsv", ","), ("csv.gz", "\t"), ("npz", 0)])
def test_an_embedding_comes_back_from_a_file(kind, sep, table, tmp_path):
    path = tmp_path / f"table.{kind}"
    if sep:
        table.to_csv(path, sep=sep)
    else:
        np.savez(path, genes=table.index.to_numpy().astype(str), embedding=table.to_numpy())
    found = features.embedding(path)
    assert found.index.tolist() == table.index.tolist() and found.index.name == "target_gene"
    equal(found, table, rtol=1e-14)


def test_a_row_of_zeros_is_missing_not_zero(table):
    table.loc["G3"] = 0
    before = table.copy()
    found = features.embedding(table)
    assert "G3" not in found.index and len(found) == 11
    assert found.attrs["empty"] == ["G3"]
    pd.testing.assert_frame_equal(table, before)


def test_tables_that_cannot_be_used(table, tmp_path):
    (tmp_path / "spaces.csv").write_text("gene a b\nG0 1 2\n")
    (tmp_path / "german.csv").write_text("gene;a\nG0;0,5\n")
    np.savez(tmp_path / "odd.npz", genes=np.array(["A", "B"]), matrix=np.zeros((3, 2)))
    for match, source in [
        ("more than one row for 'G0'", pd.concat([table, table[:1]])),
        ("NaN or infinite features of 'G1'", table.replace(table.iloc[1, 1], np.nan)),
        ("columns 'word' hold no numbers", table.assign(word="x")),
        ("cannot read table.xlsx; expected .csv", "table.xlsx"),
        ("expected one list of names and one matrix", "odd.npz"),
        ("1 genes, 0 features .* commas, semicolons or tabs", "spaces.csv"),
        ("columns 'a' hold no numbers but '0,5'", "german.csv"),
    ]:
        refuses(match, features.embedding, tmp_path / source if isinstance(source, str) else source)


def test_join_keeps_what_all_have_and_says_what_each_lacks(table, sources):
    other = pd.DataFrame({"a": [3.0, 4.0, 0.5]}, index=["G2", "NEW", "G1"])
    found = features.join({"go": table, "mine": other})
    assert found.index.tolist() == ["G1", "G2"]
    length = np.sqrt((table**2).sum(axis=1).mean())
    equal(found["go"], table.loc[["G1", "G2"]] / length)
    assert found["mine"]["a"].tolist() == pytest.approx(np.array([0.5, 3.0]) / np.sqrt(25.25 / 3))
    assert found.attrs["left_out"]["go"] == ["NEW"]
    assert len(found.attrs["left_out"]["mine"]) == 10

    effect_table = features.source_effects({"K562": frame(np.eye(12), table.index.tolist())})
    assert features.join({"effects": effect_table, "go": table}).shape == (12, 16)
    with pytest.raises(ValueError, match=r"no target is in every table \(go: 12 .*, other: 6"):
        features.join({"go": table, "other": features.source_mean(sources)})
    refuses("no table was given", features.join, {})
    with pytest.raises(ValueError, match="table 'go' has more than one row for 'G0'"):
        features.join({"go": pd.concat([table, table[:1]])})


def control_cells():
    cells = make_cells(n_cells=(3, 2, 2, 2, 90))
    controls = cells[cells.obs[KEY] == CONTROL].copy()
    controls.obs["batch"] = np.repeat(["a", "b", "c"], 30)
    return controls


def by_hand(controls, target, *, shrinkage, residual, within=None):
    x = np.asarray(lognorm(controls), dtype=float)
    mean, groups = x.mean(axis=0), [np.arange(len(x))]
    if within:
        groups = [np.flatnonzero(controls.obs[within] == g) for g in controls.obs[within].unique()]
    centred = np.vstack([x[rows] - x[rows].mean(axis=0) for rows in groups])
    s = centred.T @ centred / (len(x) - len(groups))
    sigma = (1 - shrinkage) * s + shrinkage * np.trace(s) / len(s) * np.eye(len(s))
    t = controls.var_names.get_loc(target)
    delta = np.log1p(residual * np.expm1(mean[t])) - mean[t]
    u = np.zeros(len(s))
    u[t] = delta / sigma[t, t]
    return sigma @ u


@pytest.mark.parametrize(("shrinkage", "within"), [(0, None), (0.3, "batch")])
def test_control_covariance_is_its_formula(shrinkage, within):
    controls = control_cells()
    options = {"shrinkage": shrinkage, "residual": 0.1, "within": within}
    found = stream.control_covariance(controls, ["G2", "G0"], **options)
    assert found.index.tolist() == ["G2", "G0"]
    for target in ("G2", "G0"):
        expected = by_hand(controls, target, **options)
        equal(found.loc[target], expected, atol=2e-5)


@pytest.mark.parametrize("storage", ["csc", "backed dense", "backed csr", "sparse view"])
def test_control_covariance_streams_and_changes_nothing(storage, tmp_path, monkeypatch, snapshot):
    """Any storage, and pieces of a few rows, give what the dense cells give at once."""
    controls, (take, same) = control_cells(), snapshot
    before = take(controls)
    expected = stream.control_covariance(controls, ["G1", "G2"])
    same(controls, before)
    other = stored(controls, storage, tmp_path)
    source = other[len(other) - 90 :] if storage == "sparse view" else other
    if other.isbacked:
        source = other.filename
        other.file.close()
    monkeypatch.setattr(covariance, "_ROWS_AT_ONCE", 7)
    found = stream.control_covariance(source, ["G1", "G2"])
    equal(found, expected, atol=2e-5)


def test_control_covariance_needs_genes_that_vary_and_enough_controls():
    controls = control_cells()
    asked = ["G0", "no gene", "G23", "G0"]  # nobody expresses G23
    found = stream.control_covariance(controls, asked)
    assert found.index.tolist() == ["G0"]
    assert features.coverage(found, asked).loc["features", "missing"] == ["no gene", "G23"]
    cells = make_cells(n_cells=(9, 0, 0, 0, 90), shuffle=False)
    for error, match, source, target, options in [
        (ValueError, "no target is a gene that varies", controls, "no gene", {}),
        (ValueError, "must hold control cells only; 9 of 99 are 'G0'", cells, "G0", {}),
        (ValueError, "1 control cells are too few", controls[:1], "G0", {}),
        (ValueError, "shrinkage=2; expected 0 to 1", controls, "G0", {"shrinkage": 2}),
        (KeyError, "plate", controls, "G0", {"within": "plate"}),
    ]:
        refuses(match, stream.control_covariance, source, [target], **options, error=error)


def test_an_effect_table_follows_the_genes_of_the_data(sources):
    train = frame(np.zeros((1, 4)), ["T0"], ["G5", "G0", "G2", "G1"])
    mean = features.source_mean(sources)
    found = features.EffectTable(mean)(train)
    np.testing.assert_array_equal(found, mean[["G5", "G0", "G2", "G1"]])
    both = features.source_effects(sources)
    found = features.EffectTable(both)(train)
    assert found.shape == (4, 8)
    np.testing.assert_array_equal(found["RPE1"], both["RPE1"][["G5", "G0", "G2", "G1"]])
    with pytest.raises(ValueError, match="no effects on 'X1': 1 of 2 columns"):
        features.EffectTable(mean)(frame([[0, 0]], ["T0"], ["G0", "X1"]))


def test_resolve_makes_tables_of_all_kinds(table, sources):
    train = frame(np.random.default_rng(0).normal(size=(5, 12)), [f"G{i}" for i in range(5)])
    assert features.resolve(None, train) is None
    assert features.resolve(table, train) is table
    loadings = features.GeneLoadings(3)
    joined = features.resolve({"go": table, "loadings": loadings}, train)
    expected = features.join({"go": table, "loadings": loadings(train)})
    pd.testing.assert_frame_equal(joined, expected)
