"""The challenge's official files: names, sizes, checksums and addresses.

Taught in: notebooks/09_work_with_large_files.

>>> official = OFFICIAL["train"]
>>> official.name, f"{official.n_bytes / 1e9:.1f} GB"
('adata_Training.h5ad', '15.5 GB')
"""

from __future__ import annotations

from typing import NamedTuple

BASE_URL = (
    "https://storage.googleapis.com/arc-institute-virtual-cell-atlas/virtual-cell-challenge/2025/"
)
SUPPORT_URL = "https://storage.googleapis.com/vcc_data_prod/datasets/state/"


class OfficialFile(NamedTuple):
    """A published file: its address below the folder `base`, size and checksum."""

    path: str
    n_bytes: int
    sha256: str
    base: str = BASE_URL

    @property
    def name(self) -> str:
        """Name of the file in a folder of ours."""
        return self.path.rsplit("/", 1)[-1]


#: Where sizes and checksums come from: of cells and counts, from the profile of the official files
#: in the GitHub project yjcyxky/virtual-cell-challenge (2026-09-14); of the gene names, from
#: forrestsheldon/vcc2026-h1-benchmark; of the support set, from
#: wukonglin/virtual-cell-challenge-2026 (the archive of 2025-11-16).
OFFICIAL = {
    "train": OfficialFile(
        "train/adata_Training.h5ad",
        15_482_497_461,
        "a09977104fefb622368ca74b50c9d3c1e891733e6c83db07acfca49b0219c02b",
    ),
    "validation": OfficialFile(
        "validation/adata_Validation.h5ad",
        6_928_967_541,
        "376f0bab27d9f22e00dfd888668d3602006d035edc182721c378f4802c77bfe1",
    ),
    "test": OfficialFile(
        "test/adata_Test.h5ad",
        11_950_739_168,
        "ba5ce66729e4c8e50b6f147c7d73d3f9f28f76c91fa43ff33e3f6bc2ed831f03",
    ),
    "train_counts": OfficialFile(
        "train/pert_counts_Training.csv",
        2824,
        "633d202be221418bdbac16efd8cb169666de0ef6469a4e9bfdfb64666ea81a89",
    ),
    "validation_counts": OfficialFile(
        "validation/pert_counts_Validation.csv",
        978,
        "9da5dec8c25aff1bddc01cf76897cf94ec65f8f877beee29482c543bf1e7e43b",
    ),
    "test_counts": OfficialFile(
        "test/pert_counts_Test.csv",
        1894,
        "c4f0ba439d7c3121562ca1f79fa3854d8f96fc7c3de24dca23eb9e7c41c8923a",
    ),
    "gene_names": OfficialFile(
        "gene_names.csv",
        116_023,
        "e29ff3512b4c2440759bfb2a34577049b2f49df786b3e19c2a91b565de47b38e",
    ),
    "support_set": OfficialFile(
        "competition_support_set.zip",
        8_716_992_349,
        "f1d5fd56a2eee240e5585fac52bb75b0b830a7be6a5f6de1bf773bff4f507f7c",
        SUPPORT_URL,
    ),
}
