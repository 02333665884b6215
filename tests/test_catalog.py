"""Every record of the catalogue is complete, well formed and consistent with what we can check."""

import hashlib
import re
from importlib.resources import files

import pandas as pd
import pytest

from vcc_helpers import datasets
from vcc_helpers.datasets import _catalog

DATA = files("vcc_helpers.datasets") / "data"
NEEDED = ("what", "kind", "contexts", "assay", "values", "address", "reference", "checked")
EXPECTED = {
    *(f"vcc2025_{part}" for part in ("train", "validation", "test", "support_set")),
    *(f"replogle2022_{part}" for part in ("k562_gwps", "k562_essential", "rpe1")),
    *("nadig2025_hepg2", "nadig2025_jurkat", "jiang2025", "mcfaline2024", "norman2019"),
    *("tahoe_100m", "scbasecount", "h1_sample", "hipsc_screen"),
}


@pytest.fixture
def table():
    return _catalog.catalog()


def test_has_the_expected_records_once_each(table):
    assert set(table.index) == EXPECTED and table.index.is_unique and table.index.name == "name"
    assert table["file"].dropna().is_unique and table["sha256"].dropna().is_unique
    table.loc["norman2019", "cells"] = 1
    assert _catalog.catalog().loc["norman2019", "cells"] == 111_445  # each call has its own


def test_every_record_has_the_required_fields(table):
    assert tuple(table.columns) == _catalog.COLUMNS
    for field in NEEDED:
        assert table[field].notna().all() and (table[field].str.len() > 1).all(), field
    assert set(table["kind"]) == {"challenge", "screen", "atlas", "bundled"}


def test_what_is_missing_is_admitted(table):
    """Every empty number or licence is named in the note: not verified, or there is none."""
    for name, row in table.iterrows():
        note = "" if pd.isna(row["note"]) else row["note"]
        said = re.findall(r"Not verified: ([^.]*)\.|no (perturbations)\.", note)
        named = set(re.findall(r"\w+", " ".join(" ".join(groups) for groups in said)))
        facts = [*_catalog.NUMBERS, "licence"]
        assert {field for field in facts if pd.isna(row[field])} == named & set(facts), name


def test_numbers_are_numbers(table):
    for field in _catalog.NUMBERS:
        assert table[field].dtype == "Int64" and (table[field].dropna() > 0).all()
    assert (table["genes"].dropna() < 40_000).all()


def test_identifiers_are_well_formed(table):
    assert table["reference"].str.fullmatch(r"10\.\d{4,5}/[\w.\-()/]+").all()
    assert table["address"].str.fullmatch(r"https://[\w.\-]+/[\w.\-/?=#%]*").all()
    assert table["sha256"].dropna().str.fullmatch("[0-9a-f]{64}").all()
    assert table["md5"].dropna().str.fullmatch("[0-9a-f]{32}").all()
    assert table.loc[table["md5"].notna(), "file"].notna().all()


def test_the_challenge_files_are_those_that_are_fetched(table):
    for name, what in _catalog.FETCHED.items():
        official = _catalog.OFFICIAL[what]
        assert tuple(table.loc[name, ["file", "bytes", "sha256"]]) == (
            official.name,
            official.n_bytes,
            official.sha256,
        )
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
