"""Every exercise tells right and wrong answers apart; every exploit pays what the book says."""

import json
import re
from decimal import Decimal
from fractions import Fraction
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, refuses
from scipy import sparse, stats
from sklearn.base import BaseEstimator

from vcc_helpers import adapt, check, emit, metrics, models, score
from vcc_helpers.course import exercises, exploits
from vcc_helpers.course.exercises import _data, _Exercise, _Feedback, from_chapter_21
from vcc_helpers.course.exploits import EXPLOITS, gallery
from vcc_helpers.features import source_effects
from vcc_helpers.stream import pseudobulk
from vcc_helpers.submission import prep

for path in Path(exercises.__file__).parent.glob("from_chapter_*.py"):
    import_module(f"vcc_helpers.course.exercises.{path.stem}")
FOUND = dict(sorted(exercises._EXERCISES.items()))
NOT_IT = "That is not it."


@cache
def answers_of(exercise_id):
    return tuple(FOUND[exercise_id].answers())


def hand_in(exercise_id, answer):
    """Compare as `check` does, but compute once, and call nothing where a function is wanted."""
    whole = FOUND[exercise_id]
    known = _Exercise(lambda: iter(answers_of(exercise_id)), whole.words, whole.tolerance)
    return known.judge(answer)


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_right_answer_and_each_known_wrong_one_are_told_apart(exercise_id):
    words, answers = FOUND[exercise_id].words, answers_of(exercise_id)
    assert answers[0][0] == "right" and len(answers) > 1
    assert set(words) == {name for name, _ in answers}
    assert len(set(words.values())) == len(words) and len(words["right"].split()) >= 4
    for name, answer in answers:
        status = "right" if name == "right" else "wrong"
        assert hand_in(exercise_id, answer) == _Feedback(status, words[name]), name


NUMBERS = [
    float, np.float64, np.float32, np.array, lambda x: [x], lambda x: (x,), lambda x: {x},
    lambda x: np.array([[x]]), lambda x: pd.Series([x], ["a"]), lambda x: pd.Index([x]),
    lambda x: pd.DataFrame({"a": [x]}), lambda x: pd.array([x], dtype="Float64"), Fraction,
    Decimal, complex, lambda x: round(x, 3) if abs(x) > 0.1 else float(f"{x:.3g}"),
]  # fmt: skip
TEXTS = [
    str, np.str_, np.array, str.lower, lambda x: f" {x} ", lambda x: [x], lambda x: pd.Index([x]),
    lambda x: pd.Categorical([x]), lambda x: pd.Series([x]), lambda x: np.array([x], dtype=object),
]  # fmt: skip
ARRAYS = [
    np.array, list, tuple, pd.Series, pd.Index, np.float32, lambda x: pd.array(x, dtype="Float64"),
    lambda x: x * (1 + 1e-9), lambda x: [Fraction(v) for v in x], lambda x: list(np.float32(x)),
]  # fmt: skip
NAMES = [
    np.array, list, tuple, set, pd.Series, pd.Index, pd.Categorical, np.unique,
    lambda x: np.array(x, dtype=str), lambda x: pd.array(list(x), dtype="string"),
]  # fmt: skip


def in_any_dress(right):
    """Yield an answer in the forms that a reader may have it in."""
    if isinstance(right, str):
        return [dress(right) for dress in TEXTS]
    if np.ndim(right) == 0:
        return [dress(float(right)) for dress in NUMBERS]
    names = np.asarray(right).dtype.kind in "OU"
    return [dress(np.asarray(right)) for dress in (NAMES if names else ARRAYS)]


@pytest.mark.parametrize("exercise_id", FOUND)
def test_the_right_answer_is_right_in_any_dress(exercise_id):
    for answer in in_any_dress(answers_of(exercise_id)[0][1]):
        said = hand_in(exercise_id, answer)
        assert said.status == "right", (answer, said)
        assert said.message.startswith(FOUND[exercise_id].words["right"])


@pytest.mark.parametrize("exercise_id", FOUND)
def test_a_known_wrong_answer_is_wrong_in_any_dress(exercise_id):
    right = answers_of(exercise_id)[0][1]
    for name, wrong in answers_of(exercise_id):
        # the last dress of a number is rounded: two answers may have one rounding
        for answer in in_any_dress(wrong)[: -1 if np.ndim(right) == 0 else None]:
            assert (hand_in(exercise_id, answer).status == "right") == (name == "right"), name


@pytest.mark.parametrize("exercise_id", FOUND)
def test_a_stub_is_not_attempted_and_another_kind_is_told_so(exercise_id):
    said = check(exercise_id, ...)
    assert said.status == "not attempted" and "replace the dots" in said.message
    said = check(exercise_id, {"no": "answer"})
    kind = "could not be used" if FOUND[exercise_id].probe else "Expected .*, got a dict"
    assert said.status == "wrong" and re.search(kind, said.message)


@pytest.mark.parametrize(
    "slip", [lambda x: -x, lambda x: 1 / x, lambda x: 1 - x, lambda x: x**2, lambda x: x / 100]
)
def test_a_slip_after_the_right_number_is_named(slip):
    """In the words of the exercise, or in those of all."""
    for exercise_id in FOUND:
        _, right = answers_of(exercise_id)[0]
        if isinstance(right, float | np.floating) and not np.isclose(slip(right), right):
            said = hand_in(exercise_id, slip(right))
            assert said.status == "wrong" and NOT_IT not in said.message, exercise_id


def test_notebooks_ask_every_exercise_once_and_no_other():
    asked = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        asked += (found := re.findall(r'check\("([^"]+)"', code))
        assert {name[:2] for name in found} == {path.name[:2]}
    assert sorted(asked) == list(FOUND)


@pytest.mark.parametrize("exercise_id", ["99-1", "01-99", "", "nonsense", 1, None])
def test_an_exercise_that_does_not_exist(exercise_id):
    refuses("no exercise .* expected chapter and number", check, exercise_id, 1, error=KeyError)


def toy(right, **kw):
    known = [("right", right), ("sign", -1.0), ("half", 2.0)]
    words = {"right": "well done", "sign": "the sign", "half": "the half"}
    return _Exercise(lambda: iter(known), words, **kw)


@pytest.mark.parametrize(("right", "answer"), [
    (1.0, 1.0005), (1.0, np.array(1)), (np.nan, np.nan), (True, np.True_), ("SOX2", " sox2 "),
    (["A", "B"], pd.Index(["B", "A"])), (np.ones(3), [1, 1, 1.0001]),
    ([1, 2], pd.Series([1, 2])), (np.eye(2), pd.DataFrame(np.eye(2))),
])  # fmt: skip
def test_right_in_any_dress(right, answer):
    assert toy(right).judge(answer).status == "right"


@pytest.mark.parametrize(("right", "answer", "message"), [
    (1.0, "1", "Expected a number, got a string."), (["A"], [1], "Expected names, got an ar"),
    (1.0, [1.0, 2.0], "Expected a number, got an array"),
    (1.0, pd.NA, "Expected a number, got a missing"),
    ("A", ["A", "B"], "Expected a string, got na"), (1.0, 1j, "Expected a number, got a complex"),
    (np.ones(3), np.ones((3, 1)), "Expected an array of shape (3,), got (3, 1)."),
    (np.ones((2, 2)), sparse.csr_matrix(np.ones((2, 2))), "Expected an array, got a csr"),
    (np.ones(3), (x for x in "abc"), "Expected an array, got a generator."),
    (np.ones(2), [[1], [1, 2]], "Expected an array, got a list of unequal parts."),
])  # fmt: skip
def test_another_kind_is_told_so(right, answer, message):
    said = toy(right).judge(answer)
    assert said.status == "wrong" and said.message.startswith(message)


def test_the_tolerance_is_relative():
    assert toy(1000.0, tolerance=0.01).judge(1009).status == "right"
    assert toy(1000.0, tolerance=0.01).judge(1011).status == "wrong"


def test_a_probe_calls_what_is_handed_in():
    wants_a_function = toy(4.0, probe=lambda f: f(2.0))
    assert wants_a_function.judge(lambda x: x**2).status == "right"
    assert wants_a_function.judge(lambda x: -x / 2).message == "the sign"
    said = wants_a_function.judge(4.0)
    assert said.status == "wrong" and "could not be used: TypeError" in said.message


def u_by_ranks(x, y):
    ranks = stats.rankdata(np.concatenate([x, y]))
    return ranks[: len(x)].sum() - len(x) * (len(x) + 1) / 2


@pytest.mark.parametrize(("function", "words"), [
    (u_by_ranks, "right"), (lambda x, y: np.float32(u_by_ranks(x, y)), "right"),
    (lambda x, y: stats.mannwhitneyu(x, y).statistic, "right"),
    (lambda x, y: (np.sign(x[:, None] - y) + 1).sum() / 2, "right"),
    (lambda x, y: np.array([u_by_ranks(x, y)]), "right"),
    (lambda x, y: pd.Series([u_by_ranks(x, y)], ["U"]), "right"),
    (lambda x, y: sum((a > b) + (a == b) / 2 for a in x for b in y), "right"),
    (lambda x, y: Fraction(u_by_ranks(x, y)), "right"),
    (lambda x, y: np.searchsorted(y, x).sum(), "nothing"),
    (lambda x, y: np.searchsorted(y, x, "right").sum(), "in full"),
    (lambda x, y: len(x) * len(y) - u_by_ranks(x, y), "of the controls"),
    (lambda x, y: 2 * u_by_ranks(x, y), "sum"),
])  # fmt: skip
def test_10_4_takes_any_function_that_counts_right(function, words):
    assert check("10-4", function).message == FOUND["10-4"].words[words]


class Copied(models.BulkModel):
    """Give away a share of the measured effect of day 5, the rest being the mean."""

    def __init__(self, share):
        self.share = share

    def _learn(self, targets, effect, bulk):
        self.mean_ = effect.mean(axis=0)

    def _effect(self, targets):
        own = _data.effect(5).to_df().loc[targets].to_numpy()
        return self.share * own + (1 - self.share) * self.mean_


class Plain(BaseEstimator):
    """A model of somebody who does not use the template."""

    def __init__(self, model):
        self.model = model

    def fit(self, bulk, y=None):
        self.fitted_ = self.model.fit(bulk)
        return self

    def predict(self, targets):
        return self.fitted_.predict(targets)


def some_models():
    here, weights = _data.sources(), _data.precision()
    gain = from_chapter_21._entries()["one gain"]
    few = dict(list(here.items())[1:])
    nothing_learnt = adapt.ContextGain(here, prior=weights, shrinkage=np.inf)
    return {
        "right": [
            gain, adapt.ResidualRidge(here, prior=weights), models.KnockedDown(gain), Plain(gain),
            adapt.ResidualRidge(here), adapt.ResidualRidge(few),
            models.KnockedDown(adapt.ResidualRidge(here)),
            adapt.Blend(nothing_learnt, adapt.ResidualRidge(here, prior=weights)),
        ],
        "neither": [models.mean_baseline(), models.knn_baseline(source_effects(here), 3)],
        "PDS": [nothing_learnt],
        "seen": [Copied(1.0), Copied(0.6)],
    }  # fmt: skip


def test_24_1_tells_good_models_from_unclear_ones_and_from_those_that_have_seen_the_answer():
    for words, those in some_models().items():
        for model in those:
            assert check("24-1", model).message == FOUND["24-1"].words[words], model
    assert "could not be used" in check("24-1", models.mean_baseline).message  # no instance


def test_24_2_wants_a_packed_file_with_the_cells_of_every_target(tmp_path):
    known, n_cells, *_ = from_chapter_21._contest()
    means = models.mean_baseline().fit(pseudobulk(known)).predict(n_cells.index)
    recipe, genes = _data.recipe(known, n_cells), list(known.var_names)

    def packed(name, cells, genes=genes):
        prep(cells, tmp_path / name, genes=genes)
        return tmp_path / name

    good = emit.resample_and_shift(means, **recipe)
    shuffled = good[np.random.default_rng(0).permutation(good.n_obs)].copy()
    right = [
        packed("a.vcc", good), packed("b.vcc", emit.replicate(means, **recipe)),
        packed("c.vcc", emit.negative_binomial(means, **recipe)), packed("d.vcc", shuffled),
    ]  # fmt: skip
    for path in [*right, *map(str, right)]:
        assert check("24-2", path).status == "right", path
    same = emit.resample_and_shift(means, **recipe | {"n_cells": n_cells * 0 + 20})
    fewer = good[:, genes[1:]].copy()
    good.write_h5ad(tmp_path / "good.h5ad")
    for words, path in {
        "numbers": packed("same.vcc", same), "not packed": tmp_path / "good.h5ad",
        "refused": packed("fewer.vcc", fewer, genes[1:]),
    }.items():  # fmt: skip
        assert check("24-2", path).message == FOUND["24-2"].words[words]
    assert "could not be used" in check("24-2", tmp_path / "none.vcc").message


def test_feedback_shows_itself_and_escapes():
    said = _Feedback("wrong", "a < b")
    assert repr(said) == "Not yet. a < b"
    assert "a &lt; b" in said._repr_html_() and "#D55E00" in said._repr_html_()


@pytest.mark.parametrize(("right", "answer", "words"), [
    (0.460312, 0.46, "well done (You rounded: it is 0.460312.)"),
    (0.460312, 0.5, "not it"),  # one digit is a guess
    (0.021312, 0.02, "well done (You rounded: it is 0.021312.)"), (0.021312, 0.03, "not it"),
    (0.006312, 0.01, "not it"),
    (0.460312, 46.0312, "per cent"), (3.25, 325.0, "not it"),  # no share
    (0.460312, 0.00460312, "another scale"), (0.460312, -0.460312, "sign is wrong"),
    (0.460312, 1 - 0.460312, "other part"), (0.460312, 1 / 0.460312, "inverse"),
    (0.460312, 0.460312**2, "Take the root"), (0.460312, float("nan"), "not it"),
    (7, 49, "not it"), (7, 1 / 7, "not it"),  # of a number of things there is no square
    (1.0, -1.0, "the sign"),  # its own words come first
    (0.5, 0.5000001, "well done"),  # 1 minus itself
    (1.0, 1.0000001, "well done"),  # its own square, and its own inverse
])  # fmt: skip
def test_a_slip_in_digits_scale_or_the_last_step_is_named(right, answer, words):
    assert words in toy(right, tolerance=1e-6).judge(answer).message


@pytest.fixture(scope="module")
def deal():
    return _data.honest()


@pytest.fixture(scope="module")
def table(deal):
    honest, real = deal
    known = real[real.obs["target_gene"].isin([*sorted(set(real.obs["target_gene"]))[:6]])].copy()
    return gallery(honest, real, known=known)


@pytest.mark.parametrize("name", ["scale effects", "mix the scales"])
def test_exaggeration_pays_in_2025_and_not_in_2026(table, name):
    old, new = table["vcc2025"], table["vcc2026"]
    assert old.loc[name, "overall"] > old.loc["honest", "overall"] + 1
    assert old.loc[name, "pds"] > old.loc["honest", "pds"] + 0.03
    assert old.loc[name, "mae"] > 1.5 * old.loc["honest", "mae"]  # the price, which is not asked
    if name == "mix the scales":
        assert new.loc[name].isna().all()  # refused
    else:
        assert new.loc[name, "overall"] < new.loc["honest", "overall"] - 5
        assert new.loc[name, "mse_normalized"] > 1


@pytest.mark.parametrize("name", ["replicate the mean", "shrink the variance", "flood with cells"])
def test_calling_more_genes_costs_no_pds_in_2025_and_jaccard_in_2026(table, name):
    old, new = table["vcc2025"], table["vcc2026"]
    assert abs(old.loc[name, "pds"] - old.loc["honest", "pds"]) < 0.02
    assert abs(old.loc[name, "mae"] - old.loc["honest", "mae"]) < 0.002
    assert abs(old.loc[name, "des"] - old.loc["honest", "des"]) > 1e-4  # the file alone decides
    assert new.loc[name, "significant_jaccard"] < 0.5 * new.loc["honest", "significant_jaccard"]


def test_equal_numbers_of_cells_tell_nothing(deal):
    honest, real = deal
    equal = honest[honest.obs.groupby("target_gene", observed=True).cumcount() < 20].copy()
    copied = exploits.copy_by_count(equal, known=real)
    labels = real.obs["target_gene"].astype(str)
    rows = {
        name: {row.tobytes() for row in real.X[(labels == name).to_numpy()].toarray()}
        for name in set(labels)
    }
    made = copied.X[(copied.obs["target_gene"] != "non-targeting").to_numpy()]
    from_one = [name for name, known in rows.items() if {row.tobytes() for row in made} <= known]
    assert len(from_one) == 1  # every target copies the same one


def test_what_else_the_gallery_shows(table, deal):
    old, new = table["vcc2025"], table["vcc2026"]
    assert table.index.tolist() == ["honest", *EXPLOITS]
    # controls decide in 2025 and not in 2026; spikes pay in neither season; ties are worth chance
    assert abs(old.loc["edit the controls", "des"] - old.loc["honest", "des"]) > 0.01
    assert new.loc["edit the controls"].equals(new.loc["honest"])
    for one in (old, new):
        assert one.loc["spike the targets", "overall"] < one.loc["honest", "overall"]
    assert new.loc["win the ties", "pds_cosine"] == 0.5
    assert abs(old.loc["win the ties", "pds"] - metrics.pds_chance(13)) < 0.1
    # what 2026 does not stop by a metric: the gallery says so
    fidelity = new["direction_fidelity"]
    assert fidelity["flood with cells"] > fidelity["honest"]
    assert EXPLOITS["flood with cells"].stopped_by.startswith("no metric")
    card = score(*deal, "vcc2026")
    assert list(new) == [*card.summary.index, "overall"]
    assert new.loc["honest", list(card.summary.index)].tolist() == list(card.summary)


def test_nothing_of_the_callers_changes(deal):
    honest, real = deal
    before = honest.X.copy()
    for name, exploit in EXPLOITS.items():
        extra = {"known": real} if name == "copy by cell count" else {}
        made = exploit.make(honest, **extra)
        assert made is not honest and made.var_names.equals(honest.var_names), name
    assert abs(honest.X - before).max() == 0
    assert abs(exploits.scale_effects(honest, factor=1.0).X - before).max() == 0
    with pytest.raises(ValueError, match="scale='log'; expected 'counts' or 'lognorm'"):
        EXPLOITS["replicate the mean"].make(honest, scale="log")
