"""Splits: nothing is on both sides, nothing is lost, and the seed decides alone."""

import tomllib
from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import refuses

from vcc_helpers import splits
from vcc_helpers.splits import FewShotSplit, few_shot_split, k_fold, nested_splits

NAMES = [f"T{i}" for i in range(11)]


@pytest.mark.parametrize("n_splits", [2, 5, 11])
def test_every_target_is_asked_once(n_splits):
    folds = k_fold([*NAMES, "T0"], n_splits=n_splits, seed=1)
    assert folds == k_fold(NAMES[::-1], n_splits=n_splits, seed=1)
    assert folds != k_fold(NAMES, n_splits=n_splits, seed=2)
    assert sorted(sum((fold.query for fold in folds), [])) == sorted(NAMES)
    for support, query in folds:
        assert sorted([*support, *query]) == sorted(NAMES)
        assert support == sorted(support) and query == sorted(query)
    sizes = [len(fold.query) for fold in folds]
    assert len(folds) == n_splits and max(sizes) - min(sizes) <= 1


def test_splits_that_cannot_be_drawn():
    for bad in (1, 12, -1):
        refuses(f"n_splits={bad}; expected 2 to .* 11", k_fold, NAMES, n_splits=bad)
    for bad in (-1, 11):
        with pytest.raises(ValueError, match=f"n_support={bad} of 11 targets; expected 0 to 10"):
            few_shot_split(NAMES, n_support=bad)
    for sizes, query in [([11], None), ([-1], None), ([], None), ([10], ["T1", "T2"]), ([1], [])]:
        with pytest.raises(ValueError, match="targets to draw from; expected numbers from 0 to"):
            nested_splits(NAMES, sizes, query=query)


def test_a_support_set_is_drawn_by_the_seed():
    split = few_shot_split([*NAMES, "T0"], n_support=4, seed=2)
    assert len(split.support) == 4 and split.query == sorted(split.query)
    assert split.support == sorted(split.support)
    assert sorted([*split.support, *split.query]) == sorted(NAMES)
    assert split == few_shot_split(NAMES[::-1], n_support=4, seed=2)
    assert split != few_shot_split(NAMES, n_support=4, seed=4)


def test_rows_are_those_of_the_control_and_of_each_set():
    bulk = SimpleNamespace(obs_names=pd.Index(["B", "non-targeting", "A", "C"]))
    support, query = FewShotSplit(["A", "B"], ["C"]).rows(bulk)
    assert support.tolist() == [1, 2, 0] and query.tolist() == [1, 3]
    refuses("D", FewShotSplit(["A"], ["D"]).rows, bulk, error=KeyError)


def test_nested_supports_grow_and_the_query_stays():
    sizes = [4, 0, 2, 7]
    for size, split in zip(sizes, nested_splits(NAMES, sizes, seed=5), strict=True):
        assert split.query == few_shot_split(NAMES, n_support=7, seed=5).query
        assert split.support == few_shot_split(NAMES, n_support=size, seed=5).support
    given = nested_splits(NAMES, [0, 9], query=["T3", "T4", "new"], seed=0)
    assert given[1].support == sorted(set(NAMES) - {"T3", "T4"})
    assert [split.query for split in given] == [["T3", "T4", "new"]] * 2


AWKWARD = ['a "quoted" gene', "back\\slash", "Gen-Ü", "dotted.name", "tab\there"]


DATASETS = [("mine", 'a "b"'), ("screen.v2", "H1"), ("screen.v2", "H1.day 5"), ("mine", "v2.H1")]


@pytest.mark.parametrize("names", [NAMES, AWKWARD])
@pytest.mark.parametrize(("dataset", "context"), DATASETS)
def test_a_split_comes_back_from_toml(names, dataset, context, tmp_path):
    split = few_shot_split(names, n_support=2, seed=0)
    path, words = tmp_path / "split.toml", {"dataset": dataset, "context": context}
    path.write_text(splits.to_toml(split, data=tmp_path, **words), "utf-8")
    assert splits.from_toml(path, targets=names, context=context) == split
    fewshot = {f"{dataset}.{context}": {"val": split.query, "test": split.query}}
    expected = {"datasets": {dataset: str(tmp_path)}, "training": {dataset: "train"}}
    assert tomllib.loads(path.read_text("utf-8")) == expected | {"fewshot": fewshot}


def test_other_files_of_cell_load(tmp_path):
    path = tmp_path / "s.toml"

    def read(text):
        path.write_text(text)
        return splits.from_toml(path, targets=["C", "B", "A"], context="H1")

    assert read('[zeroshot]\n"mine.H1" = "test"\n') == FewShotSplit([], ["A", "B", "C"])
    split = read('[fewshot."mine.H1"]\nval = ["A"]\ntest = ["B"]\n')
    assert split == FewShotSplit(["C"], ["B"])  # validation targets are no support
    refuses("no split of 'H1'; it has 'K562'", read, '[fewshot."mine.K562"]\ntest = ["B"]\n')
    for text in ("[fewshot\n", "a=" + "[" * 10**5):
        refuses("s.toml is no TOML file", read, text)
    with pytest.raises(ValueError, match="no query target"):
        splits.to_toml(FewShotSplit(["A"], []), data=tmp_path, dataset="m", context="H1")
