"""Splits: nothing is on both sides, nothing is lost, and the seed decides alone."""

import pytest

from vcc_helpers.splits import few_shot_split, k_fold, nested_splits

NAMES = [f"T{i}" for i in range(11)]


@pytest.mark.parametrize("n_splits", [2, 3, 5, 11])
def test_every_target_is_asked_once(n_splits):
    folds = k_fold([*NAMES, "T0"], n_splits=n_splits, seed=1)
    assert len(folds) == n_splits
    assert sorted(sum((fold.query for fold in folds), [])) == sorted(NAMES)
    for support, query in folds:
        assert not set(support) & set(query)
        assert sorted([*support, *query]) == sorted(NAMES)
        assert support == sorted(support) and query == sorted(query)
    sizes = [len(fold.query) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_depend_on_names_and_seed_alone():
    assert k_fold(NAMES, seed=3) == k_fold(NAMES[::-1], seed=3)
    assert k_fold(NAMES, seed=3) != k_fold(NAMES, seed=4)


@pytest.mark.parametrize("n_splits", [1, 12, -1])
def test_folds_that_cannot_be_dealt(n_splits):
    with pytest.raises(ValueError, match=f"n_splits={n_splits}; expected 2 to .* 11"):
        k_fold(NAMES, n_splits=n_splits)


def test_nested_supports_grow_and_the_query_stays():
    sizes = [4, 0, 2, 7]
    found = nested_splits(NAMES, sizes, seed=5)
    assert [len(split.support) for split in found] == sizes
    assert all(split.query == few_shot_split(NAMES, n_support=7, seed=5).query for split in found)
    for split, size in zip(found, sizes, strict=True):
        assert split.support == few_shot_split(NAMES, n_support=size, seed=5).support
    by_size = sorted(found, key=lambda split: len(split.support))
    for small, large in zip(by_size, by_size[1:], strict=False):
        assert set(small.support) < set(large.support)


def test_a_given_query_is_never_drawn():
    found = nested_splits(NAMES, [0, 9], query=["T3", "T4", "new"], seed=0)
    assert found[1].support == sorted(set(NAMES) - {"T3", "T4"})
    assert [split.query for split in found] == [["T3", "T4", "new"]] * 2


@pytest.mark.parametrize(
    ("sizes", "query"), [([11], None), ([-1], None), ([], None), ([10], ["T1", "T2"]), ([1], [])]
)
def test_supports_that_cannot_be_drawn(sizes, query):
    with pytest.raises(ValueError, match="targets to draw from; expected numbers from 0 to"):
        nested_splits(NAMES, sizes, query=query)
