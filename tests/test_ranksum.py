"""The rank-sum test equals scipy's, gene by gene, whatever the values and the storage."""

import numpy as np
import pandas as pd
import pytest
from conftest import dense_of
from scipy import sparse
from scipy.stats import mannwhitneyu

from vcc_helpers.ranks import mann_whitney
from vcc_helpers.stream import rank_sum


def with_scipy(values, labels, control):
    """U and p of every group and gene; p = 1 where there is no answer."""
    values = dense_of(values).astype(np.float64)
    groups = sorted(set(labels) - {control})
    u, p = np.empty((2, len(groups), values.shape[1]))
    for i, group in enumerate(groups):
        for j in range(values.shape[1]):
            x, y = values[labels == group, j], values[labels == control, j]
            with np.errstate(all="ignore"):
                found = mannwhitneyu(x, y)
            u[i, j], p[i, j] = found.statistic, found.pvalue
    return u, np.nan_to_num(p, nan=1.0)


def assert_is_scipys(matrix, labels, control, values=None, **kw):
    labels = np.asarray(labels)
    found = rank_sum(matrix, pd.Index(labels), control=control, threads=1, **kw)
    u, p = with_scipy(matrix if values is None else values, labels, control)
    assert found.groups.tolist() == sorted(set(labels) - {control})
    np.testing.assert_array_equal(found.statistic, u)
    np.testing.assert_allclose(found.p_value, p, rtol=1e-12, atol=0)
    return found


def counts(seed=0, sizes=(20, 13, 31), n_genes=25):
    rng = np.random.default_rng(seed)
    labels = np.repeat(["A", "B", "control"][: len(sizes)], sizes)
    values = rng.poisson(rng.gamma(0.6, 2.0, n_genes), (len(labels), n_genes)).astype(np.float32)
    values[:, 0], values[:, 1] = 0, 3  # constants
    values[labels == "A", 2] += 40  # no overlap at all
    order = rng.permutation(len(labels))
    return values[order], labels[order]


def stored_zeros(values):
    matrix = sparse.csr_matrix(values)
    matrix.data[::3] = 0
    return matrix


STORAGES = {
    "dense": np.asarray,
    "fortran": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "stored zeros": stored_zeros,
}


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_counts_with_many_ties_and_the_callers_matrix_is_left_alone(storage, dtype):
    values, labels = counts()
    matrix = STORAGES[storage](values.astype(dtype))
    before = matrix.copy()
    assert_is_scipys(matrix, labels, "control")
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
    assert_is_scipys(twice, labels, "control", values=values)
    assert twice.nnz == 2 * len(rows)  # the caller's matrix is left alone


@pytest.mark.parametrize(
    ("n_group", "n_control"), [(1, 1), (1, 40), (3, 8), (8, 9), (9, 8), (9, 9)]
)
def test_small_groups_without_ties_are_exact(n_group, n_control):
    rng = np.random.default_rng(n_group + 100 * n_control)
    labels = np.repeat(["A", "control"], [n_group, n_control])
    values = rng.normal(5, 1, (len(labels), 8))
    values[:, :3] = np.round(values[:, :3])  # and some genes with ties
    found = assert_is_scipys(values, labels, "control")
    if min(n_group, n_control) <= 8:
        x, y = values[labels == "A", 3:], values[labels == "control", 3:]
        exact = mannwhitneyu(x, y, method="exact").pvalue
        np.testing.assert_array_equal(found.p_value[0, 3:], exact)


@pytest.mark.parametrize(("n_group", "n_control"), [(9, 10), (12, 12)])
def test_u_exactly_in_the_middle_is_one(n_group, n_control):
    """The group's values lie symmetrically in the control's, so U is half of n1 n2."""
    control = np.arange(n_control, dtype=float)
    middle = control.mean()
    half = middle + 0.3 * n_control * np.linspace(-1, -0.1, n_group // 2)
    group = np.r_[half, 2 * middle - half, [middle] * (n_group % 2)]
    labels = np.repeat(["A", "control"], [n_group, n_control])
    found = assert_is_scipys(np.r_[group, control][:, None], labels, "control")
    assert found.statistic[0, 0] == n_group * n_control / 2
    assert found.p_value[0, 0] == 1


def test_labels_that_look_like_numbers():
    values, _ = counts()
    labels = np.repeat(["10", "9", "1e1", "007"], [20, 14, 15, 15])
    found = assert_is_scipys(values, labels, "9")
    assert found.groups.tolist() == ["007", "10", "1e1"]


def test_only_ranks_count_and_not_the_threads(capfd):
    values, labels = counts(n_genes=300)
    one = rank_sum(values, pd.Index(labels), control="control", threads=1)
    other = rank_sum(values**3 * 1000, pd.Index(labels), control="control", threads=2)
    np.testing.assert_array_equal(one.p_value, other.p_value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("labels", [["A"] * 4, ["control"] * 4])
def test_one_side_alone_cannot_be_tested(labels):
    with pytest.raises(ValueError, match="a test needs cells labelled 'control' and others"):
        rank_sum(np.ones((4, 2)), pd.Index(labels), control="control")


def test_the_plain_test_of_the_chapter_has_the_same_numbers():
    values, labels = counts()
    found = rank_sum(values, pd.Index(labels), control="control")
    for row, group in enumerate(found.groups):
        u, p = mann_whitney(values[labels == group], values[labels == "control"])
        np.testing.assert_array_equal(found.statistic[row], u)
        np.testing.assert_array_equal(found.p_value[row], p)
