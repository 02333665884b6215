"""The differential expression table: fold changes, their clip, and the threshold."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, make_cells
from scipy.stats import false_discovery_control

from vcc_helpers import DETable, de_table, lognorm
from vcc_helpers.counts import fold_change, log2
from vcc_helpers.stream import rank_sum


def test_the_clip_fills_in_where_a_mean_is_zero():
    target = np.log1p([[0, 0, 3, 3, 1000], [0, 2, 0, 3, 1]])
    control = np.log1p([0, 0, 1, 3, 1])
    for clip in (20, 8):
        found, end = log2(fold_change(target, control, clip=clip)), np.log2(clip)
        expected = [[0, 0, np.log2(3), 0, np.log2(1000)], [0, end, -end, 0, 0]]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
        assert found.dtype == np.float32


def table(fdr, threshold=0.05):
    ones = np.ones((1, len(fdr)), dtype=np.float32)
    names = pd.Index(["A"]), pd.Index([f"G{i}" for i in range(len(fdr))])
    return DETable(*names, ones, np.array([fdr], dtype=np.float32), ones, ones, threshold)


def test_significant_means_below_the_threshold_not_at_it():
    just_below = np.nextafter(np.float32(0.05), np.float32(0))
    assert table([just_below, 0.05, 0.0500001]).significant.tolist() == [[True, False, False]]
    assert table([0.05], threshold=0.1).significant.all()


def test_the_table_is_made_of_its_parts(cells):
    found = de_table(cells, threads=1)
    values, labels = lognorm(cells), pd.Index(cells.obs[KEY])
    test = rank_sum(values, labels, control=CONTROL, threads=1)
    assert found.perturbations.tolist() == ["G0", "G1", "G2", "no gene"]
    assert found.genes.tolist() == cells.var_names.tolist()
    np.testing.assert_array_equal(found.p_value, test.p_value)
    fdr = false_discovery_control(test.p_value, axis=None).reshape(test.p_value.shape)
    np.testing.assert_array_equal(found.fdr, fdr.astype(np.float32))
    base = np.expm1(values[labels == CONTROL].mean(axis=0, dtype=np.float64))
    for i, name in enumerate(found.perturbations):
        ratio = np.expm1(values[labels == name].mean(axis=0, dtype=np.float64))[:-1] / base[:-1]
        ratio[ratio == 0] = 1 / 20
        np.testing.assert_allclose(
            found.log2_fold_change[i, :-1], np.log2(ratio), rtol=1e-4, atol=1e-5
        )
    assert (found.log2_fold_change[:, -1] == 0).all() and (found.p_value[:, -1] == 1).all()
    assert found.significant[0, 0]  # the silenced gene itself
    logged = anndata.AnnData(values, obs=cells.obs, var=cells.var)
    np.testing.assert_array_equal(found.p_value, de_table(logged).p_value)
    frame = found.to_frame()
    columns = ["target_gene", "gene", "p_value", "fdr", "log2_fold_change", "significant"]
    assert list(frame) == columns and len(frame) == found.p_value.size
    row = frame[(frame["target_gene"] == "G2") & (frame["gene"] == "G5")].iloc[0]
    assert row["p_value"] == found.p_value[2, 5]
    assert row["significant"] == found.significant[2, 5]


def test_every_storage_gives_the_same_bits_and_is_left_alone(any_storage, snapshot):
    take, same = snapshot
    before = None if any_storage.isbacked else take(any_storage)  # opened read only
    one, other = de_table(make_cells(), threads=1), de_table(any_storage, threads=1)
    for name in ("p_value", "fdr", "log2_fold_change"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    if before:
        same(any_storage, before)


def test_cells_that_cannot_be_used_are_refused(cells):
    with pytest.raises(ValueError, match="no control cells"):
        de_table(cells, control="ctrl")
    with pytest.raises(ValueError, match="only control cells"):
        de_table(cells[cells.obs[KEY] == CONTROL])
