"""The bundled files are the published counts."""

import hashlib
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import datasets

CONTROL = "non-targeting"
PROVENANCE = files("vcc_helpers.datasets") / "data" / "PROVENANCE.md"
LOADERS = [datasets.load_h1_sample, datasets.load_hipsc_screen]


@pytest.mark.parametrize("load", LOADERS)
def test_counts_are_csr_float32_whole_numbers(load):
    cells = load()
    assert sparse.issparse(cells.X) and cells.X.format == "csr"
    assert cells.X.dtype == np.float32
    assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
    assert cells.X.has_sorted_indices
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    assert isinstance(cells.obs["target_gene"].dtype, pd.CategoricalDtype)


@pytest.mark.parametrize("load", LOADERS)
def test_each_load_is_an_independent_copy(load):
    first, second = load(), load()
    first.X.data[:] = 0
    first.obs["target_gene"] = "changed"
    assert second.X.data.min() >= 1
    assert (load().obs["target_gene"] == second.obs["target_gene"]).all()


def test_h1_sample_has_the_published_cells():
    cells = datasets.load_h1_sample()
    assert cells.shape == (600, 1000)
    assert cells.X.nnz == 599_805 and cells.X.max() == 1146
    assert list(cells.obs.columns) == ["target_gene", "guide_id", "batch"]
    sizes = cells.obs["target_gene"].value_counts()
    assert set(sizes.index) == {CONTROL, "TMSB4X", "STAT1", "MED12", "TET1", "SRC"}
    assert (sizes == 100).all()
    assert cells.obs["batch"].nunique() == 48
    assert cells.var["gene_id"].str.fullmatch(r"ENSG\d{11}").all()


def test_hipsc_screen_has_the_published_cells():
    cells = datasets.load_hipsc_screen()
    assert cells.shape == (14_945, 103)
    assert cells.X.nnz == 1_058_409 and cells.X.max() == 138
    assert cells.obs["day"].dtype == np.int64
    assert set(cells.obs["target_gene"].cat.categories) - {CONTROL} <= set(cells.var_names)
    # Sample numbers 1 to 4 in the cell names are days 2 to 5.
    sample = cells.obs_names.str.split("_").str[0].astype(int)
    assert (sample + 1 == cells.obs["day"]).all()


def test_cells_per_group_and_day_are_those_of_the_provenance_table():
    cells = datasets.load_hipsc_screen()
    found = pd.crosstab(cells.obs["target_gene"], cells.obs["day"])
    pattern = r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$"
    rows = re.findall(pattern, PROVENANCE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) == len(found) == 24
    for name, *numbers in rows:
        *by_day, together = map(int, numbers)
        assert found.loc[name].tolist() == by_day and sum(by_day) == together


def test_files_have_the_checksums_of_the_provenance_table():
    known = set(re.findall(r"\b[0-9a-f]{64}\b", PROVENANCE.read_text(encoding="utf-8")))
    folder = files("vcc_helpers.datasets") / "data"
    bundled = [item for item in folder.iterdir() if item.name.endswith(".h5ad")]
    assert {hashlib.sha256(item.read_bytes()).hexdigest() for item in bundled} == known
    assert sum(len(item.read_bytes()) for item in bundled) < 2_500_000
    assert "masastat" in (folder / "LICENSE-renge").read_text(encoding="utf-8")
