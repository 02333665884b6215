"""The bundled files are the published counts; the catalogue is true of what we can check."""

import hashlib
import re
from importlib.resources import files

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from vcc_helpers import datasets

DATA = files("vcc_helpers.datasets") / "data"


@pytest.mark.parametrize("name", ["h1_sample", "hipsc_screen"])
def test_bundled_cells_are_as_listed_and_each_load_is_a_copy(name):
    row = datasets.catalog().loc[name]
    content = (DATA / row["file"]).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert row["bytes"] == len(content) and row["sha256"] == digest
    assert digest in (DATA / "PROVENANCE.md").read_text("utf-8")
    load = getattr(datasets, row["loader"].removesuffix("()"))
    first, cells = load(), load()
    first.X.data[:] = 0
    first.obs["target_gene"] = "changed"
    assert cells.shape == (row["cells"], row["genes"])
    assert cells.obs["target_gene"].nunique() - 1 == row["perturbations"]
    assert sparse.issparse(cells.X) and cells.X.format == "csr"
    assert cells.X.dtype == np.float32 and cells.X.has_sorted_indices
    assert (cells.X.data == np.rint(cells.X.data)).all() and cells.X.data.min() >= 1
    assert cells.obs_names.is_unique and cells.var_names.is_unique
    assert isinstance(cells.obs["target_gene"].dtype, pd.CategoricalDtype)


def test_every_record_is_complete_and_typed():
    table = datasets.catalog()
    needed = ["what", "kind", "contexts", "assay", "values", "address", "reference", "checked"]
    assert table.index.is_unique and table.index.name == "name"
    assert table[needed].notna().all(axis=None)
    assert set(table["kind"]) == {"challenge", "screen", "atlas", "bundled"}
    for field in ("cells", "genes", "perturbations", "bytes"):
        assert table[field].dtype == "Int64" and (table[field].dropna() > 0).all()
    assert table["reference"].str.fullmatch(r"10\.\d{4,5}/[\w.\-()/]+").all()
    assert table["sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()


def test_loaders_are_functions_and_fetched_files_are_known():
    table = datasets.catalog()
    for hint in table["loader"].dropna():
        for name in re.findall(r"(\w+)\(", hint):
            assert callable(getattr(datasets, name)), name
    fetched = table["loader"].str.extract(r'fetch_h1\("(\w+)"\)')[0].dropna()
    assert set(fetched) == {"train", "validation", "test", "support_set"}
    assert table.loc[fetched.index, ["file", "bytes", "sha256"]].notna().all(axis=None)
    assert table.loc["vcc2025_train", "file"] == "adata_Training.h5ad"
