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
DATA = files("vcc_helpers.datasets") / "data"


@pytest.mark.parametrize("load", [datasets.load_h1_sample, datasets.load_hipsc_screen])
def test_counts_are_csr_float32_whole_numbers_and_each_load_a_copy(load):
    first, cells = load(), load()
    first.X.data[:] = 0
    first.obs["target_gene"] = "changed"
    assert sparse.issparse(cells.X) and cells.X.format == "csr"
    assert cells.X.dtype == np.float32 and cells.X.has_sorted_indices
    assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    assert isinstance(cells.obs["target_gene"].dtype, pd.CategoricalDtype)


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


def test_files_have_the_checksums_of_the_provenance_table():
    known = set(re.findall(r"\b[0-9a-f]{64}\b", (DATA / "PROVENANCE.md").read_text("utf-8")))
    bundled = [item.read_bytes() for item in DATA.iterdir() if item.name.endswith(".h5ad")]
    assert {hashlib.sha256(content).hexdigest() for content in bundled} == known
    assert sum(map(len, bundled)) < 2_500_000
    assert "masastat" in (DATA / "LICENSE-renge").read_text("utf-8")
