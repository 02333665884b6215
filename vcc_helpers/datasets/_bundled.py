"""Real cells that come with the package: no network, well under a second.

Where the files are from, and under which licences, stands in ``data/PROVENANCE.md``.

Taught in: notebooks/01_load_the_h1_data and notebooks/04_mean_baseline.

>>> load_h1_sample().shape
(600, 1000)
>>> load_hipsc_screen().shape
(14945, 103)
"""

from __future__ import annotations

from importlib.resources import as_file, files

import anndata
import numpy as np

H1_FILE = "h1_training_600x1000.h5ad"
HIPSC_FILE = "hipsc_screen_14945x103.h5ad"


def load_h1_sample() -> anndata.AnnData:
    """Load 600 real H1 cells of the Virtual Cell Challenge 2025.

    H1 human embryonic stem cells in which one gene was silenced by CRISPR interference:
    100 cells each of TMSB4X, STAT1, MED12, TET1, SRC and of the non-targeting control.

    Returns
    -------
    anndata.AnnData
        (n_cells, n_genes) = (600, 1000). X: CSR, float32, raw counts of molecules (whole
        numbers) of 1,000 highly expressed genes. obs: ``target_gene``, ``guide_id`` and
        ``batch``, categories. var: index gene symbol, ``gene_id`` the Ensembl identifier.
        A fresh object at every call.

    Notes
    -----
    A sample of the training set: its 1,000 genes are not the 18,080 of the contest, and a
    cell's counts sum to less than its real depth.

    Source: Virtual Cell Challenge 2025 (Roohani et al., Cell 188:3370, 2025); the file comes
    with cell-eval2 0.20.0. Licence: CC0 1.0.
    """
    return _load(H1_FILE)


def load_hipsc_screen() -> anndata.AnnData:
    """Load a real CRISPR knock-out screen in human induced pluripotent stem cells.

    23 regulators of pluripotency were knocked out, one in each cell, and cells were sampled 2,
    3, 4 and 5 days later. The days serve as contexts: what a knock-out does on day 5 can be
    predicted from earlier days.

    Returns
    -------
    anndata.AnnData
        (n_cells, n_genes) = (14945, 103). X: CSR, float32, raw counts of molecules (whole
        numbers). obs: ``target_gene``, category, 1,182 cells being ``non-targeting``; ``day``,
        int64, days, 2 to 5. var: index gene symbol; every target is among the genes.
        A fresh object at every call.

    Notes
    -----
    The 103 genes are those the authors chose for their network, so a cell's counts sum to a
    small part of its depth.

    Source: Ishikawa et al., Communications Biology 6:1290, 2023; the tables come with
    renge 0.0.5, which holds log1p of the counts. Licence: MIT, copyright 2022 masastat.
    """
    return _load(HIPSC_FILE)


def _load(name: str) -> anndata.AnnData:
    """Read a bundled file; its small integers become float32, which all later steps expect."""
    with as_file(files(__package__) / "data" / name) as path:
        cells = anndata.read_h5ad(path)
    cells.X = cells.X.astype(np.float32)
    return cells
