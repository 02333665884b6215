"""Make the two data files that the package bundles from the two source archives they come from.

Get the archives first, into a folder of your choice:

    pip download --no-deps --no-binary cell-eval2 -d sdists cell-eval2==0.20.0
    pip download --no-deps --no-binary renge -d sdists renge==0.0.5

Then, with anndata 0.12 (files it writes can be read by 0.13 too, not always the other way round):

    python scripts/prepare_bundled_data.py sdists/cell_eval2-0.20.0.tar.gz sdists/renge-0.0.5.tar.gz

The archives are checked against the sha256 below. The same versions of anndata, h5py and HDF5
write the same bytes again; other versions write the same values.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import tarfile
import tempfile
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

CONTROL = "non-targeting"
DATA_FOLDER = Path(__file__).resolve().parents[1] / "vcc_helpers" / "datasets" / "data"

H1_ARCHIVE_SHA256 = "924bc42c6ece3dc0ace70a66547ccddea2e443aaca53fc2fee0d8f75a7b759a2"
H1_MEMBER = "cell_eval2-0.20.0/docs/data/H1-VCC-2025-training.h5ad"
H1_FILE = "h1_training_600x1000.h5ad"

RENGE_ARCHIVE_SHA256 = "3472ce015cf5eb32e22e474da6e1ceafb18023451ae43614c6f026cf48bf91df"
RENGE_EXPRESSION = "renge-0.0.5/examples/data/E_renge_d2_80.csv"
RENGE_DESIGN = "renge-0.0.5/examples/data/X_renge_d2_80.csv"
RENGE_LICENSE = "renge-0.0.5/LICENSE"
RENGE_FILE = "hipsc_screen_14945x103.h5ad"


def read_member(archive: Path, member: str, sha256: str) -> bytes:
    """Bytes of one file of a tar archive whose own checksum is right."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{archive}: sha256 is {found}, expected {sha256}: another version?")
    with tarfile.open(archive) as tar:
        return tar.extractfile(member).read()


def whole_counts(values: np.ndarray, *, tolerance: float = 1e-6) -> np.ndarray:
    """Round to whole numbers in the smallest unsigned type; refuse values that are not whole."""
    rounded = np.rint(values)
    error = float(np.abs(values - rounded).max())
    if error > tolerance or rounded.min() < 0:
        raise SystemExit(f"these are not counts: off whole numbers by {error}")
    return rounded.astype(np.min_scalar_type(int(rounded.max())))


def h1_sample(archive: Path) -> anndata.AnnData:
    """Return the 600 H1 cells with counts as integers; nothing else is changed."""
    content = read_member(archive, H1_MEMBER, H1_ARCHIVE_SHA256)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sample.h5ad"
        path.write_bytes(content)
        cells = anndata.read_h5ad(path)
    counts = cells.X.copy()
    counts.data = whole_counts(counts.data)
    return anndata.AnnData(counts, obs=cells.obs.copy(), var=cells.var.copy())


def hipsc_screen(archive: Path) -> anndata.AnnData:
    """Build cells x genes from the two tables of the RENGE example.

    One table holds log1p of the counts. The other one has a column a knocked-out gene (1 where
    the cell carries its guide) and a column ``t``, the day; a cell without a 1 is a control.
    """
    tables = [
        pd.read_csv(io.BytesIO(read_member(archive, member, RENGE_ARCHIVE_SHA256)), index_col=0)
        for member in (RENGE_EXPRESSION, RENGE_DESIGN)
    ]
    expression, design = tables
    if not expression.index.equals(design.index):
        raise SystemExit("the two tables do not list the same cells in the same order")
    knocked_out = design.drop(columns="t").astype(bool)
    n_targets = knocked_out.sum(axis=1)
    if n_targets.max() > 1:
        raise SystemExit("a cell with two knocked-out genes: no single target_gene fits it")
    target_gene = knocked_out.idxmax(axis=1).where(n_targets == 1, CONTROL)
    obs = pd.DataFrame(
        {"target_gene": target_gene.astype("category"), "day": design["t"].astype("int64")}
    )
    counts = sparse.csr_matrix(whole_counts(np.expm1(expression.to_numpy())))
    return anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=expression.columns))


def write_small(cells: anndata.AnnData, path: Path) -> None:
    """Write a standard .h5ad that is small.

    The shuffle filter puts the high bytes of neighbouring numbers side by side, which are mostly
    zero: it halves the column indices that gzip alone leaves.
    """
    settings = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    with h5py.File(path, "w") as file:
        anndata.io.write_elem(file, "/", cells, dataset_kwargs=settings)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cell_eval2", type=Path, help="sdist of cell-eval2 0.20.0")
    parser.add_argument("renge", type=Path, help="sdist of renge 0.0.5")
    parser.add_argument("--output", type=Path, default=DATA_FOLDER, help="folder to write to")
    arguments = parser.parse_args()

    arguments.output.mkdir(parents=True, exist_ok=True)
    write_small(h1_sample(arguments.cell_eval2), arguments.output / H1_FILE)
    write_small(hipsc_screen(arguments.renge), arguments.output / RENGE_FILE)
    license_text = read_member(arguments.renge, RENGE_LICENSE, RENGE_ARCHIVE_SHA256)
    (arguments.output / "LICENSE-renge").write_bytes(license_text)
    for name in (H1_FILE, RENGE_FILE):
        content = (arguments.output / name).read_bytes()
        print(f"{hashlib.sha256(content).hexdigest()}  {name}  {len(content):,} bytes")


if __name__ == "__main__":
    main()
