"""What comes with the package: real cells, and the list of data sets that go with the challenge.

Where the files are from, and under which licences, is in ``data/PROVENANCE.md``.

Taught in: notebooks/01_load_h1_cells, notebooks/12_mean_and_median and
notebooks/08_bring_your_own_screen.

>>> load_h1_sample().shape
(600, 1000)
>>> load_hipsc_screen().shape
(14945, 103)
>>> row = catalog().loc["replogle2022_rpe1"]
>>> print(row["contexts"], row["cells"], row["genes"], row["licence"])
RPE1 247914 8749 CC BY 4.0
"""

from __future__ import annotations

import json
from importlib.resources import as_file, files

import anndata
import numpy as np
import pandas as pd

from ._official import OFFICIAL

H1_FILE = "h1_training_600x1000.h5ad"
_NUMBERS = ("cells", "genes", "perturbations", "bytes")
_COLUMNS = (
    "what kind cells genes perturbations contexts assay values file bytes sha256 md5 licence "
    "address reference loader checked note"
).split()


def load_h1_sample() -> anndata.AnnData:
    """Load 600 real H1 cells of the Virtual Cell Challenge 2025.

    H1 human embryonic stem cells in which one gene was silenced by CRISPR interference: 100 cells
    each of TMSB4X, STAT1, MED12, TET1, SRC and of the non-targeting control. X: ``(600, 1000)``,
    CSR, float32, raw counts of 1,000 highly expressed genes of the 18,080 of the training set, so
    counts sum to less than the real depth. obs: ``target_gene``, ``guide_id`` and ``batch``,
    categories. var: index gene symbol, ``gene_id`` the Ensembl identifier.

    Source: Virtual Cell Challenge 2025 (Roohani et al., Cell 188:3370, 2025); the file comes with
    cell-eval2 0.20.0. Licence: CC0 1.0.
    """
    return _load(H1_FILE)


def load_hipsc_screen() -> anndata.AnnData:
    """Load a real CRISPR knock-out screen in human induced pluripotent stem cells.

    23 regulators of pluripotency were knocked out, one in each cell, and cells were sampled 2, 3, 4
    and 5 days later. The days serve as contexts: earlier ones predict day 5. X: ``(14945, 103)``,
    CSR, float32, raw counts of the genes that the authors chose for their network: they sum to a
    small part of the depth. obs: ``target_gene``, category, 1,182 cells being ``non-targeting``;
    ``day``, int64, days, 2 to 5. var: index gene symbol; every target is among the genes.

    Source: Ishikawa et al., Communications Biology 6:1290, 2023; the tables come with renge 0.0.5,
    which holds log1p of the counts. Licence: MIT, copyright 2022 masastat.
    """
    return _load("hipsc_screen_14945x103.h5ad")


def _load(name: str) -> anndata.AnnData:
    """Read a bundled file; its small integers become float32, which all later steps expect."""
    with as_file(files(__package__) / "data" / name) as path:
        cells = anndata.read_h5ad(path)
    cells.X = cells.X.astype(np.float32)
    return cells


def catalog() -> pd.DataFrame:
    """List the data sets of the challenge, and public ones that are used with it.

    A row a data set, index ``name``. ``what`` it is; ``kind``: challenge, screen, atlas or bundled;
    ``cells``, ``genes``, ``perturbations`` (without the controls): numbers; ``contexts``;
    ``assay``; ``values`` that the matrix holds; ``file``, its ``bytes``, ``sha256`` and ``md5``;
    ``licence``; ``address`` of a page about it; ``reference``, a DOI; ``loader``, how to open it
    here; ``checked``, where each fact was looked up; ``note``. Missing are facts that were not
    verified, or that do not apply. Numbers that ``note`` calls rounded are so in their source.
    Files are larger in memory than on disk.
    """
    text = (files(__package__) / "data" / "catalog.json").read_text(encoding="utf-8")
    table = pd.DataFrame(json.loads(text)).set_index("name").reindex(columns=_COLUMNS)
    for what in ("train", "validation", "test", "support_set"):
        file = OFFICIAL[what]
        known = {"file": file.name, "bytes": file.n_bytes, "sha256": file.sha256}
        table.loc[f"vcc2025_{what}", list(known)] = known
    kinds = {column: "Int64" if column in _NUMBERS else "string" for column in _COLUMNS}
    return table.astype(kinds)
