"""Several contexts in one file: each is scored as if it were alone; the board shows the mean."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import make_cells

from vcc_helpers import scoring
from vcc_helpers.scoring import baseline_contexts, score_contexts

TABLE = ["summary", "per_perturbation"]


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
    cells = truth[truth.obs["target_gene"] != "non-targeting"].copy()
    rng = np.random.default_rng(0)
    cells.X = cells.X + rng.poisson(0.5, cells.shape).astype(cells.X.dtype)
    return cells[rng.permutation(cells.n_obs)].copy()


@pytest.mark.parametrize("stored", ["memory", "file"])
def test_each_context_is_scored_as_if_it_were_alone(stored, truth, pred, tmp_path):
    files = [pred, truth]
    if stored == "file":
        files = [tmp_path / "pred.h5ad", tmp_path / "real.h5ad"]
        for cells, path in zip([pred, truth], files, strict=True):
            cells.write_h5ad(path)
    cards, base = score_contexts(*files), baseline_contexts(files[1])
    assert list(cards.cards) == list("ABC")
    overall = []
    for name, card in cards.cards.items():
        parts = [c[c.obs["context"] == name].copy() for c in (pred, truth)]
        alone = scoring.score(*parts, "vcc2026")
        for table in TABLE:
            assert getattr(card, table).equals(getattr(alone, table))
        overall.append(alone.overall(scoring.baseline(parts[1], "vcc2026")))
    assert cards.overall(base) == pytest.approx(np.mean(overall), rel=1e-15)
    assert np.allclose(cards.summary.loc["mean"], cards.summary.loc[list("ABC")].mean())
    assert base.overall(base) == 0


def test_other_contexts_are_told(truth, pred):
    lost = pred[pred.obs["context"] != "B"]
    with pytest.raises(ValueError, match="pred: no cell of the contexts 'B'; predict"):
        score_contexts(lost, truth)
    other = pred.copy()
    other.obs["context"] = other.obs["context"].map(dict(zip("ABC", "ABD", strict=True)))
    with pytest.raises(ValueError, match="no cell of the contexts 'C'"):
        score_contexts(other, truth)
    with pytest.raises(ValueError, match="'C' are not in real.*another phase"):
        score_contexts(pred, truth[truth.obs["context"] != "C"])
    nameless = pred.copy()
    del nameless.obs["context"]
    with pytest.raises(ValueError, match="pred: obs has no column 'context'"):
        score_contexts(nameless, truth)
    nameless.obs["context"] = ["", *["A"] * (pred.n_obs - 1)]
    with pytest.raises(ValueError, match="1 of 915 cells have no label in obs\\['context'\\]"):
        score_contexts(nameless, truth)


def test_what_is_wrong_is_told_with_its_context(truth, pred):
    target = pred.obs["target_gene"]
    part = (pred.obs["context"] == "B") & (target == target.iloc[0])
    with pytest.raises(ValueError, match="context B: .*missing"):
        score_contexts(pred[~part], truth)


def test_a_context_may_be_called_mean():
    table = pd.DataFrame({"mae": [1.0]}, index=pd.Index(["A"], name="target_gene"))
    cards = [scoring.ScoreCard("vcc2026", n * table) for n in (1, 3)]
    cards = scoring.ContextCards(dict(zip(("mean", "x"), cards, strict=True)))
    assert cards.summary["mae"].tolist() == [1, 3, 2]


def test_contexts_are_never_pooled_in_silence(truth, pred):
    with pytest.raises(ValueError, match="pred: 3 contexts .*'A', 'B', 'C'.*score_contexts"):
        scoring.score(pred, truth, "vcc2026")


def test_baselines_of_other_contexts_make_no_overall_score(truth, pred):
    cards = score_contexts(pred, truth)
    base = baseline_contexts(truth[truth.obs["context"] != "C"])
    with pytest.raises(ValueError, match="the baselines are of the contexts"):
        cards.overall(base)
