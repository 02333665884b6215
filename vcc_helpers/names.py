"""One list of names held against another: what is missing, what is strange, what is only misspelt.

Genes lose their names in spreadsheets and other tools: another case, a version number, a date in
place of a septin. These can be corrected as long as each means one name that is missing.

Taught in: notebooks/06_check_and_pack and notebooks/22_score_another_model.
Needs no sibling module.

>>> match(["sox2", "1-Mar", "NANOG"], ["SOX2", "NANOG", "MARCHF1", "POU5F1"]).renamed
{'sox2': 'SOX2', '1-Mar': 'MARCHF1'}
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import NamedTuple

import pandas as pd

#: Gene families that were renamed in 2020, since spreadsheets took their names for dates.
_FAMILIES = (("SEPT", "SEPTIN"), ("MARCH", "MARCHF"), ("DEC", "DELEC"))
#: What a spreadsheet makes of their names, such as 2-Sep, 01-Mar or Mar-02.
_DATE = re.compile(r"(?:(\d{1,2})-(sep|mar|dec)|(sep|mar|dec)-(\d{1,2}))", re.IGNORECASE)
_VERSION = re.compile(r"\.\d+$")
#: Endings by which some tools mark that one gene was perturbed, and no second.
_ALONE = re.compile(r"^(?:ctrl\+)?(.+?)(?:\+ctrl)?$")
#: What tools and screens call control cells, in small letters.
CONTROL_NAMES = (
    *("non-targeting", "non_targeting", "nontargeting", "non targeting", "nt", "ntc"),
    *("control", "ctrl", "neg_ctrl", "negctrl", "negative_control"),
)
#: Text that pandas, R, JSON and spreadsheets write for a missing value. As a label it means none.
MISSING = frozenset(
    ("", "nan", "NaN", "NAN", "NA", "<NA>", "N/A", "n/a", "#N/A", "None", "null", "NULL", "NaT")
)
#: Pairs of strange and missing names beyond which likeness is not looked for; it would take long.
_MOST_PAIRS = 10**5
#: Nor for longer names.
_LONGEST = 100


class Match(NamedTuple):
    """What :func:`match` found.

    `renamed` gives for a strange name the one missing name that it means. `missing` were
    wanted and are not there, `unknown` are there and were not wanted. `near` gives for an unknown
    name a missing one that looks like it: a guess.
    """

    renamed: dict[str, str]
    missing: list[str]
    unknown: list[str]
    near: dict[str, str]


def match(found: Iterable[str], wanted: Iterable[str]) -> Match:
    """Hold names that were found against those that are wanted; the order does not matter.

    A name is renamed only if one wanted name is meant, and no other found name means the same.
    Looked through: spaces around the name, upper and lower case, a version (``ENSG00000181449.5``),
    a date (``2-Sep`` is SEPTIN2 or SEPT2), the families that were renamed in 2020, and ``+ctrl``.
    """
    found, wanted = pd.Index(list(found)).unique(), pd.Index(list(wanted)).unique()
    missing = wanted.difference(found, sort=False)
    unknown = found.difference(wanted, sort=False)
    by_capitals = defaultdict(set)
    for name in missing:
        by_capitals[name.upper()].add(name)
    meant = {}
    for name in unknown:
        words = {word.upper() for word in _other_ways(name)}
        of_name = set().union(*(by_capitals[word] for word in words if word in by_capitals))
        if len(of_name) == 1:
            meant[name] = of_name.pop()
    claims = Counter(meant.values())
    renamed = {name: other for name, other in meant.items() if claims[other] == 1}
    taken = set(renamed.values())
    missing = [name for name in missing if name not in taken]
    unknown = [name for name in unknown if name not in renamed]
    near = {}
    if len(unknown) * len(missing) <= _MOST_PAIRS:
        asked, known = ([x for x in names if len(x) <= _LONGEST] for names in (unknown, missing))
        likes = {name: get_close_matches(name, known, n=1, cutoff=0.75) for name in asked}
        near = {name: like[0] for name, like in likes.items() if like}
    return Match(renamed, missing, unknown, near)


def alone(label: str) -> str:
    """Return the gene of a label of GEARS or scGPT for one gene; any other stays as it is.

    >>> alone("SOX2+ctrl"), alone("ctrl+SOX2"), alone("ctrl"), alone("SOX2+OCT4")
    ('SOX2', 'SOX2', 'ctrl', 'SOX2+OCT4')
    """
    return found[1] if (found := _ALONE.fullmatch(label)) else label


def _other_ways(name: str) -> Iterator[str]:
    name = name.strip()
    yield name
    yield _VERSION.sub("", name)
    yield alone(name)
    if date := _DATE.fullmatch(name):
        number, month = date[1] or date[4], date[2] or date[3]
        for family in _FAMILIES:
            if family[0].startswith(month.upper()):
                yield from (f"{stem}{int(number)}" for stem in family)
    for old, new in _FAMILIES:
        for stem, other in ((old, new), (new, old)):
            if (number := name.upper().removeprefix(stem)).isdecimal():
                yield f"{other}{number}"
