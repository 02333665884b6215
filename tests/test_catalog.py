"""The catalogue is complete, and true of what we can check."""

import hashlib
import re
from importlib.resources import files

import pytest

from vcc_helpers import datasets
from vcc_helpers.datasets import _catalog

DATA = files("vcc_helpers.datasets") / "data"
NEEDED = ("what", "kind", "contexts", "assay", "values", "address", "reference", "checked")


@pytest.fixture
def table():
    return datasets.catalog()


def test_every_record_is_complete_and_typed(table):
    assert len(table) == 16 and table.index.is_unique and table.index.name == "name"
    assert tuple(table.columns) == _catalog.COLUMNS
    assert table[list(NEEDED)].notna().all(axis=None)
    assert set(table["kind"]) == {"challenge", "screen", "atlas", "bundled"}
    for field in _catalog.NUMBERS:
        assert table[field].dtype == "Int64" and (table[field].dropna() > 0).all()
    assert table["reference"].str.fullmatch(r"10\.\d{4,5}/[\w.\-()/]+").all()
    assert table["sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()
    table.loc["norman2019", "cells"] = 1
    assert datasets.catalog().loc["norman2019", "cells"] == 111_445  # each call has its own


def test_the_challenge_files_are_those_that_are_fetched(table):
    for name, what in _catalog.FETCHED.items():
        one = _catalog.OFFICIAL[what]
        found = tuple(table.loc[name, ["file", "bytes", "sha256"]])
        assert found == (one.name, one.n_bytes, one.sha256)
        assert f'fetch_h1("{what}")' in table.loc[name, "loader"]


@pytest.mark.parametrize("name", ["h1_sample", "hipsc_screen"])
def test_the_bundled_files_are_as_listed(table, name):
    row = table.loc[name]
    content = (DATA / row["file"]).read_bytes()
    assert row["bytes"] == len(content)
    assert row["sha256"] == hashlib.sha256(content).hexdigest()
    cells = getattr(datasets, row["loader"].removesuffix("()"))()
    assert cells.shape == (row["cells"], row["genes"])
    assert cells.obs["target_gene"].nunique() - 1 == row["perturbations"]


def test_loaders_are_functions_of_the_package(table):
    for hint in table["loader"].dropna():
        for name in re.findall(r"(\w+)\(", hint):
            assert callable(getattr(datasets, name)), name
