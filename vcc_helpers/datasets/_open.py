"""One switch between practice and the real thing: the environment variable ``VCC_DATA``.

Taught in: notebooks/03_predict_with_baselines.

>>> open_world("data/elsewhere")
Traceback (most recent call last):
FileNotFoundError: no such folder: ...
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd
from anndata import AnnData

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..stream.open import labels_of, open_cells
from ._layouts import read_contexts
from ._official import OFFICIAL
from ._simulate import make_h1_like
from ._world import SPLIT_NAMES, World

_SIMULATED = "simulated"
#: The official files of the parts of the split.
FILE_NAMES = {part: OFFICIAL[part].name for part in SPLIT_NAMES}
_HOME = "H1"


def open_world(data: str | Path | None = None, *, sources: bool = True) -> World:
    """Open the cells that the chapters of the challenge's size work on.

    Parameters
    ----------
    data
        ``"simulated"``, or a folder with the official files: ``adata_Training.h5ad``, which is
        needed, and ``adata_Validation.h5ad`` and ``adata_Test.h5ad`` as far as they are there;
        the tables ``pert_counts_*.csv`` name the targets of a missing one. A folder ``contexts``
        next to them holds one file for each other context; H1 itself is left out there. By
        default what the environment variable ``VCC_DATA`` says; where it is not set, simulated.
    sources
        Whether to open the other contexts, where there are any.

    Returns
    -------
    World
        From a folder, its files are open on disk, not in memory, and it has no ``truth``.

    Raises
    ------
    FileNotFoundError
        There is no such folder, or it holds no training file.
    ValueError
        Two files do not have the same genes in the same order, or a target is in two parts.
    """
    data = os.environ.get("VCC_DATA") or _SIMULATED if data is None else data
    if str(data) == _SIMULATED:
        return make_h1_like() if sources else make_h1_like(contexts=(_HOME,))
    folder = Path(data).expanduser()
    files = _open_files(folder)
    contexts = {_HOME: files["train"]}
    if sources and (folder / "contexts").is_dir():
        found = read_contexts(folder / "contexts")
        found.pop(_HOME, None)  # the support set holds the training cells once more
        contexts |= found
    genes = files["train"].var_names
    for where, cells in {**files, **contexts}.items():
        if not cells.var_names.equals(genes):
            raise ValueError(
                f"{where}: {cells.n_vars} genes that are not those of the training file, "
                f"{len(genes)} genes, in the same order; reorder and fill them, so that columns "
                "mean the same everywhere"
            )
    return World(contexts=contexts, split=_split_of(folder, files), files=files)


def _open_files(folder: Path) -> dict[str, AnnData]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such folder: {folder.absolute()}; VCC_DATA must be {_SIMULATED!r} or the whole "
            f"path of a folder with the official files {some_of(FILE_NAMES.values())}"
        )
    if not (folder / FILE_NAMES["train"]).exists():
        there = some_of(sorted(path.name for path in folder.iterdir()))
        raise FileNotFoundError(
            f"{folder} has no {FILE_NAMES['train']}; it has {there}; "
            f"get it with vcc_helpers.datasets.fetch_h1('train', folder={str(folder)!r})"
        )
    paths = {part: folder / name for part, name in FILE_NAMES.items()}
    return {part: open_cells(path) for part, path in paths.items() if path.exists()}


def _split_of(folder: Path, files: dict[str, AnnData]) -> dict[str, list[str]]:
    """Take a part's targets from its file, else from its released table; else none are known."""
    split = {}
    for part in SPLIT_NAMES:
        table, names = folder / OFFICIAL[f"{part}_counts"].name, []
        if part in files:
            names = labels_of(files[part])
        elif table.exists():
            names = pd.read_csv(table, dtype=str, keep_default_na=False)[PERTURBATION_KEY]
        split[part] = sorted(set(names) - {CONTROL})
    names = [name for part in split.values() for name in part]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{some_of(twice)} are targets in more than one part; each target belongs to one: "
            "check that the files are the official ones"
        )
    return split
