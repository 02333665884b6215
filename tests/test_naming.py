"""Names held against names: what is put right, what is only guessed, and what is left alone."""

import time

import numpy as np
import pytest

from vcc_helpers.names import match


@pytest.mark.parametrize(("found", "wanted"), [
    ("sox2", "SOX2"), ("C1ORF112", "C1orf112"), (" SOX2\t", "SOX2"), ("SOX2+ctrl", "SOX2"),
    ("ctrl+SOX2", "SOX2"), ("ENSG00000181449.5", "ENSG00000181449"), ("2-Sep", "SEPTIN2"),
    ("02-SEP", "SEPTIN2"), ("Sep-02", "SEPTIN2"), ("1-Mar", "MARCH1"), ("1-Mar", "MARCHF1"),
    ("1-Dec", "DELEC1"), ("SEPT9", "SEPTIN9"), ("SEPTIN9", "SEPT9"), ("MARCHF5", "MARCH5"),
])  # fmt: skip
def test_a_name_is_put_right(found, wanted):
    same = match([found, "NANOG"], [wanted, "NANOG"])
    assert same.renamed == {found: wanted}
    assert not same.missing and not same.unknown


@pytest.mark.parametrize(("found", "wanted"), [
    (["Sox2", "SOX2 "], ["SOX2"]),  # two that mean one
    (["abc"], ["ABC", "Abc"]),  # one that means two
    (["12-Nov"], ["SEPTIN12"]),
    (["SOX2+OCT4"], ["SOX2"]),  # two genes are no one gene
    (["A.B"], ["A"]),  # no version
])  # fmt: skip
def test_what_is_not_sure_is_left_alone(found, wanted):
    assert match(found, wanted)[:3] == ({}, wanted, found)


def test_wanted_names_stay_and_likely_ones_are_a_guess_only():
    assert match(["MARCH1", "MARCHF1"], ["MARCHF1", "MARCH1"]) == ({}, [], [], {})
    guess = {"NANNOG": "NANOG"}
    assert match(["NANNOG"], ["NANOG", "TET1"]) == ({}, ["NANOG", "TET1"], ["NANNOG"], guess)


def test_long_names_are_not_searched_for_likeness():
    rng = np.random.default_rng(0)
    found, wanted = (["".join(rng.choice(list("ACGT"), 20_000)) for _ in range(9)] for _ in "ab")
    begin = time.monotonic()
    assert match([*found, "SOX22"], [*wanted, "SOX2"]).near == {"SOX22": "SOX2"}
    assert time.monotonic() - begin < 10
