"""One switch between practice and the real thing: the environment variable ``VCC_DATA``.

Taught in: notebooks/01_load_the_h1_data.

>>> open_world("simulated", sources=False).home
'H1'
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..stream.open import labels_of, open_cells
from ._layouts import read_contexts
from ._official import OFFICIAL
from ._simulate import make_h1_like
from ._world import SPLIT_NAMES, World

SIMULATED = "simulated"
#: The official files of the parts of the split, and the released tables of their targets.
FILE_NAMES = {part: OFFICIAL[part].name for part in SPLIT_NAMES}
COUNTS_NAMES = {part: OFFICIAL[f"{part}_counts"].name for part in SPLIT_NAMES}
#: Folder beside them that holds the cells of other contexts, one file each.
CONTEXTS_FOLDER = "contexts"
HOME = "H1"


def open_world(data: str | Path | None = None, *, sources: bool = True) -> World:
    """Open the cells that the chapters of the challenge's size work on.

    Parameters
    ----------
    data
        ``"simulated"``, or a folder with the official files: ``adata_Training.h5ad``, which is
        needed, and ``adata_Validation.h5ad`` and ``adata_Test.h5ad`` as far as they are there;
        the tables ``pert_counts_*.csv`` name the targets of a missing one. A folder ``contexts``
        beside them holds one file for each other context; H1 itself is left out there. By default
        what the environment variable ``VCC_DATA`` says; where it is not set, simulated.
    sources
        Whether the other contexts are needed. Without them a simulated world is drawn sooner,
        and a folder needs none.

    Returns
    -------
    World
        From a folder, its files are open on disk, not in memory, and it has no ``truth``.

    Raises
    ------
    FileNotFoundError
        There is no such folder, it holds no training file, or no other contexts though asked for.
    ValueError
        Two files of the folder do not have the same genes in the same order, or a target is in
        two parts.

    Notes
    -----
    A world of simulated files in the official format says so.
    """
    data = os.environ.get("VCC_DATA") or SIMULATED if data is None else data
    if str(data) == SIMULATED:
        return make_h1_like() if sources else make_h1_like(contexts=(HOME,))
    return _read_folder(Path(data).expanduser(), sources)


def _read_folder(folder: Path, sources: bool) -> World:
    _check_folder(folder)
    files = {
        part: open_cells(folder / name)
        for part, name in FILE_NAMES.items()
        if (folder / name).exists()
    }
    contexts = {HOME: files["train"]}
    if sources:
        contexts |= _read_sources(folder)
    for where, cells in {**files, **contexts}.items():
        _check_genes(cells, files["train"], where)
    return World(contexts=contexts, split=_split_of(folder, files), files=files)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no such folder: {folder.absolute()}; VCC_DATA must be {SIMULATED!r} or the whole "
            f"path of a folder with the official files {some_of(FILE_NAMES.values())}"
        )
    if not (folder / FILE_NAMES["train"]).exists():
        there = some_of(sorted(path.name for path in folder.iterdir()))
        raise FileNotFoundError(
            f"{folder} has no {FILE_NAMES['train']}; it has {there}; "
            f"get it with vcc_helpers.datasets.fetch_h1('train', folder={str(folder)!r})"
        )


def _read_sources(folder: Path) -> dict:
    if not (folder / CONTEXTS_FOLDER).is_dir():
        raise FileNotFoundError(
            f"{folder} has no folder {CONTEXTS_FOLDER!r} with the cells of other contexts, which "
            "this needs; put one .h5ad or .h5 file a context there (the book's page on data sets "
            "says which exist), or open the world with sources=False"
        )
    found = read_contexts(folder / CONTEXTS_FOLDER)
    found.pop(HOME, None)  # the support set holds the training cells once more
    return found


def _check_genes(cells, reference, where: str) -> None:
    if not cells.var_names.equals(reference.var_names):
        raise ValueError(
            f"{where}: {cells.n_vars} genes that are not those of the training file, "
            f"{reference.n_vars} genes, in the same order; reorder and fill them, so that columns "
            "mean the same everywhere"
        )


def _split_of(folder: Path, files: dict) -> dict[str, list[str]]:
    split = {part: _targets_of(folder, part, files) for part in SPLIT_NAMES}
    names = [name for part in split.values() for name in part]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"{some_of(twice)} are targets in more than one part; each target belongs to one: "
            "check that the files are the official ones"
        )
    return split


def _targets_of(folder: Path, part: str, files: dict) -> list[str]:
    """Targets of a part: of its file, else of its released table, else none are known."""
    if part in files:
        names = labels_of(files[part])
    elif (folder / COUNTS_NAMES[part]).exists():
        text = {"dtype": str, "keep_default_na": False}
        names = pd.read_csv(folder / COUNTS_NAMES[part], **text)[PERTURBATION_KEY]
    else:
        names = []
    return sorted(set(names) - {CONTROL})
