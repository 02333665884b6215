"""Data sets that go with the challenge: what each is, its size, its address, its licence.

Every fact was looked up; the column ``checked`` says where. What could not be verified is left
empty, and ``note`` says so.

Taught in: notebooks/10_bring_your_own_screen.

>>> row = catalog().loc["replogle2022_rpe1"]
>>> print(row["contexts"], row["cells"], row["genes"], row["licence"])
RPE1 247914 8749 CC BY 4.0
"""

from __future__ import annotations

import json
from importlib.resources import files

import pandas as pd

from ._official import OFFICIAL

NUMBERS = ("cells", "genes", "perturbations", "bytes")
COLUMNS = tuple(
    "what kind cells genes perturbations contexts assay values file bytes sha256 md5 licence "
    "address reference loader checked note".split()
)
#: Records whose file :func:`fetch_h1` fetches; its name, size and checksum are known there.
FETCHED = {
    "vcc2025_train": "train",
    "vcc2025_validation": "validation",
    "vcc2025_test": "test",
    "vcc2025_support_set": "support_set",
}


def catalog() -> pd.DataFrame:
    """List the data sets of the challenge, and public ones that are used with it.

    Returns
    -------
    DataFrame
        One row a data set, index ``name``. ``what`` it is; ``kind``: challenge, screen, atlas or
        bundled; ``cells``, ``genes``, ``perturbations`` (without the controls): numbers;
        ``contexts``; ``assay``; ``values`` that the matrix holds; ``file``, its ``bytes``,
        ``sha256`` and ``md5``; ``licence``; ``address`` of a page about it; ``reference``, a DOI;
        ``loader``, how to open it here; ``checked``, where this was looked up; ``note``. Missing
        values are facts that were not verified, or that do not apply. A fresh table at every
        call.

    Notes
    -----
    Numbers that ``note`` calls rounded are so in their source. Files are larger in memory than
    on disk.
    """
    text = (files(__package__) / "data" / "catalog.json").read_text(encoding="utf-8")
    table = pd.DataFrame(json.loads(text)).set_index("name").reindex(columns=list(COLUMNS))
    for name, what in FETCHED.items():
        one = OFFICIAL[what]
        table.loc[name, ["file", "bytes", "sha256"]] = [one.name, one.n_bytes, one.sha256]
    kinds = {column: "Int64" if column in NUMBERS else "string" for column in COLUMNS}
    return table.astype(kinds)
