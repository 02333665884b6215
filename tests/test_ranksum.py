"""The rank-sum test equals scipy's, gene by gene, whatever the values and the storage."""

import numpy as np
import pandas as pd
import pytest
from conftest import dense_of
from scipy import sparse
from scipy.stats import mannwhitneyu

from vcc_helpers.ranks import mann_whitney
from vcc_helpers.stream import rank_sum


def with_scipy(values, controls, **kw):
    """U and p of every gene, computed in double; p = 1 where there is no answer."""
    pairs = zip(values.T.astype("f8"), controls.T.astype("f8"), strict=True)
    with np.errstate(all="ignore"):
        u, p = np.transpose([mannwhitneyu(x, y, **kw) for x, y in pairs])
    return u, np.nan_to_num(p, nan=1.0)


def assert_is_scipys(matrix, labels, values=None):
    found = rank_sum(matrix, pd.Index(labels), control="control", threads=1)
    values = dense_of(matrix) if values is None else values
    assert found.groups.tolist() == sorted(set(labels) - {"control"})
    for row, group in enumerate(found.groups):
        u, p = with_scipy(values[labels == group], values[labels == "control"])
        np.testing.assert_array_equal(found.statistic[row], u)
        np.testing.assert_allclose(found.p_value[row], p, rtol=1e-12, atol=0)
    return found


def counts(n_genes=25):
    rng, labels = np.random.default_rng(0), np.repeat(["10", "9", "control"], [20, 13, 31])
    values = rng.poisson(rng.gamma(0.6, 2.0, n_genes), (len(labels), n_genes)).astype(np.float32)
    values[:, 0], values[:, 1] = 0, 3  # constants
    values[labels == "9", 2] += 40  # no overlap at all
    order = rng.permutation(len(labels))
    return values[order], labels[order]


def stored_zeros(values):
    matrix = sparse.csr_matrix(values)
    matrix.data[::3] = 0
    return matrix


@pytest.mark.parametrize(
    ("storage", "dtype"),
    [(np.asarray, "f4"), (np.asarray, "f8"), (np.asfortranarray, "f4"), (sparse.csr_matrix, "u1"),
     (sparse.csc_matrix, "f4"), (sparse.csr_array, "f4"), (stored_zeros, "f8")],
)  # fmt: skip
def test_counts_with_many_ties_and_the_callers_matrix_is_left_alone(storage, dtype):
    values, labels = counts()
    matrix = storage(values.astype(dtype))
    before = matrix.copy()
    assert_is_scipys(matrix, labels)
    np.testing.assert_array_equal(dense_of(matrix), dense_of(before))
    assert getattr(matrix, "nnz", 0) == getattr(before, "nnz", 0)


def test_entries_that_repeat_a_place_are_summed():
    values, labels = counts()
    rows, columns = np.nonzero(values)
    half = values[rows, columns] / 2
    order = np.argsort(np.r_[rows, rows], kind="stable")
    entries = np.r_[half, half][order], np.r_[columns, columns][order]
    indptr = 2 * sparse.csr_matrix(values).indptr
    twice = sparse.csr_matrix((*entries, indptr), shape=values.shape)
    assert_is_scipys(twice, labels, values=values)
    assert twice.nnz == 2 * len(rows)  # the caller's matrix is left alone


@pytest.mark.parametrize(
    ("n_group", "n_control"), [(1, 1), (1, 40), (3, 8), (8, 9), (9, 8), (9, 9)]
)
def test_small_groups_without_ties_are_exact(n_group, n_control):
    rng = np.random.default_rng(n_group + 100 * n_control)
    labels = np.repeat(["A", "control"], [n_group, n_control])
    values = rng.normal(5, 1, (len(labels), 8))
    values[:, :3] = np.round(values[:, :3])  # and some genes with ties
    found = assert_is_scipys(values, labels)
    if min(n_group, n_control) <= 8:
        _, exact = with_scipy(*np.split(values[:, 3:], [n_group]), method="exact")
        np.testing.assert_array_equal(found.p_value[0, 3:], exact)


def test_u_exactly_in_the_middle_is_one():
    """The group's values lie symmetrically in the control's, so U is half of n1 n2."""
    values = np.r_[np.linspace(1, 10, 10), np.arange(12.0)][:, None]
    found = assert_is_scipys(values, np.repeat(["A", "control"], [10, 12]))
    assert (found.statistic[0, 0], found.p_value[0, 0]) == (60, 1)


@pytest.mark.parametrize(
    ("matrix", "labels", "words"),
    [
        (np.ones((4, 2)), ["A"] * 4, "a test needs cells labelled 'control' and others"),
        (np.ones((4, 2)), ["control"] * 4, "a test needs cells labelled 'control' and others"),
        (np.ones((4, 2)), ["A", "control"] * 3, "6 labels for cells x genes of shape"),
        (np.ones(6), ["A", "control"] * 3, "6 labels for cells x genes of shape"),
        (np.ones((6, 2), "c8"), ["A", "control"] * 3, "have no order"),
    ],
)
def test_what_cannot_be_tested(matrix, labels, words):
    with pytest.raises(ValueError, match=words):
        rank_sum(matrix, pd.Index(labels), control="control")


def test_the_plain_test_of_the_chapter_has_the_same_numbers():
    values, labels = counts()
    found = rank_sum(values, pd.Index(labels), control="control")
    for row, group in enumerate(found.groups):
        u, p = mann_whitney(values[labels == group], values[labels == "control"])
        np.testing.assert_array_equal(found.statistic[row], u)
        np.testing.assert_array_equal(found.p_value[row], p)
