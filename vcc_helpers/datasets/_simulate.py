"""Simulated worlds: in memory, streamed to files in the official format, and kept on disk.

The bundled real files are too small to show a 150/50/100 split, several cell lines or a file
larger than memory. What is drawn here is tuned to figures of the real H1 screen (_recipe.py);
all genes are called ``SIM...``: nothing here is a measurement.

A kept world is a folder, named after all that shapes it: sizes, seed, contexts, source of the
simulation and versions. What is damaged or half written, as checksums tell, is drawn anew.

Taught in: notebooks/03_predict_with_baselines.

>>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1", "K562"), n_controls=50)
>>> world.truth["H1"].shape, bool(world.contexts["H1"].uns["simulated"])
((9, 60), True)
"""

from __future__ import annotations

import ast
import hashlib
import json
import numbers
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from tqdm import tqdm

from ..stream.blocks import BLOCK_VALUES, ahead
from ..stream.write import write_cells, write_whole
from ._cells import draw_counts, draw_roster, expected_effects
from ._recipe import MIN_CELLS, Recipe, Size, draw_recipe
from ._world import SPLIT_NAMES, World

_SMALL = Size()
SIZES = {
    "small": _SMALL,
    "panel": Size(18_080, (150, 50, 100), 30, 2000, 48, 2.0),
    "h1": Size(18_080, (150, 50, 100), 1045, 38_176, 48, 1.0, (183_097, 60_751, 132_670)),
}
#: What decides the cells, and with it this file, how a world looks.
DRAWING = ("_recipe.py", "_cells.py")
_INDEX = "index.json"


def make_h1_like(
    *,
    seed: int = 0,
    n_genes: int = _SMALL.n_genes,
    n_targets: tuple[int, int, int] = _SMALL.n_targets,
    contexts: Sequence[str] = ("H1", "K562", "RPE1", "HepG2"),
    cells_per_target: int = _SMALL.cells_per_target,
    n_controls: int = _SMALL.n_controls,
    n_batches: int = _SMALL.n_batches,
    effect_scale: float = _SMALL.effect_scale,
    cache: bool = True,
) -> World:
    """Draw a simulated world that resembles the H1 screen in its figures, not in its genes.

    Parameters
    ----------
    seed
        The same seed and the same NumPy give the same world, bit for bit.
    contexts
        Names of the cell contexts; nothing is taken from the cell lines called so. The first has
        every target; each other one lacks one target in ten, a different one each time.
    n_genes, n_targets, cells_per_target, n_controls, n_batches, effect_scale
        As for :class:`~vcc_helpers.datasets.Size`.
    cache
        Keep the world on disk, in the folder that the environment variable ``VCC_CACHE`` names or
        in the user's cache folder, and read it from there the next time.

    Returns
    -------
    World
        Its contexts, split and noise-free effects. Each context: X CSR, float32, integer counts;
        obs ``target_gene``, ``guide_id`` and ``batch``, categories; var ``is_target``, bool.

    Raises
    ------
    ValueError
        A size is not a whole number or too small, there are more targets than genes, a context is
        named twice or none is named, or the scale is not a positive number.

    Notes
    -----
    The book's chapter on calibration shows what the simulation is tuned to, and what it cannot
    tell. Cells are in random order, as in the real files.
    """
    _check_contexts(contexts)
    size = Size(n_genes, n_targets, cells_per_target, n_controls, n_batches, effect_scale)
    size, seed = _check_size(size), _check_whole("seed", seed, at_least=0)
    wanted = {"seed": seed, "contexts": list(contexts), "size": asdict(size)}
    if cache and (found := _load(wanted)) is not None:
        return found
    recipe = draw_recipe(size, tuple(contexts), seed=seed)
    cells, truth = {}, {}
    for name in contexts:
        roster = draw_roster(recipe, name)
        order = _shuffled(recipe, name, roster.index)
        blocks = [counts for _, counts in _blocks(recipe, name, roster, order)]
        labels = _labels(recipe, name, roster.loc[order])
        cells[name] = _frame(recipe, name, sparse.vstack(blocks, format="csr"), labels)
        truth[name] = _truth(recipe, name)
    # the targets are in random order, part after part
    parts = np.split(recipe.labels[:-1], np.cumsum(size.n_targets)[:-1])
    split = {part: sorted(names.tolist()) for part, names in zip(SPLIT_NAMES, parts, strict=True)}
    world = World(contexts=cells, split=split, truth=truth, seed=seed)
    if cache:
        _store(wanted, world)
    return world


def write_h1_like(
    path: str | Path,
    *,
    size: str | Size = "h1",
    part: str = "train",
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Write simulated cells in the official format, a block at a time.

    Parameters
    ----------
    path
        The ``.h5ad`` file to write; one that exists is replaced at the end, in one step.
    size
        ``"small"`` (the default world), ``"panel"`` (all 18,080 genes, few cells), ``"h1"`` (the
        real numbers of cells: 221,273 for the training part, 15.5 GB), or a
        :class:`~vcc_helpers.datasets.Size`.
    part
        ``"train"``, ``"validation"``, ``"test"``, or ``"all"`` targets. The same controls are in
        each, as in the official files.
    seed
        The same seed gives the same cells as :func:`make_h1_like` draws.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        The file. X: CSR, float32, not compressed; obs ``target_gene``, ``guide_id``, ``batch``.

    Raises
    ------
    ValueError, OSError
        The size or part is unknown; the file cannot be written, or there is no room for it.

    Notes
    -----
    Memory is that of the recipe and of a few blocks, below 1 GB, whatever the number of cells.
    """
    if isinstance(size, str):
        size = SIZES.get(size, size)
    size, seed = _check_size(size), _check_whole("seed", seed, at_least=0)
    if part != "all" and part not in SPLIT_NAMES:
        raise ValueError(f"no part {part!r}; expected one of {', '.join(SPLIT_NAMES)}, or 'all'")
    recipe = draw_recipe(size, seed=seed)
    roster = draw_roster(recipe, "H1")
    wanted = [part in ("all", name) for name in SPLIT_NAMES] + [True]
    wanted = np.repeat(wanted, [*size.n_targets, 1])  # of each target, and of the controls
    order = _shuffled(recipe, "H1", roster.index[wanted[roster["group"]]])
    empty = sparse.csr_matrix((len(order), size.n_genes), dtype=np.float32)
    frame = _frame(recipe, "H1", empty, _labels(recipe, "H1", roster.loc[order]))
    with tqdm(total=len(order), unit=" cells", disable=not progress) as bar:
        write_cells(path, frame, _blocks(recipe, "H1", roster, order, bar))
    return Path(path)


def _blocks(
    recipe: Recipe,
    context: str,
    roster: pd.DataFrame,
    order: np.ndarray,
    bar: tqdm | None = None,
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Draw the cells in this order, a block on each core; yield first row and counts."""
    rows = max(1, BLOCK_VALUES // 16 // recipe.size.n_genes)
    starts = range(0, len(order), rows)
    parts = ((recipe, context, roster, order[start : start + rows]) for start in starts)
    drawn = ahead(draw_counts, parts, threads=min(os.cpu_count() or 1, 8))
    for start, counts in zip(starts, drawn, strict=True):
        yield start, counts
        if bar is not None:
            bar.update(counts.shape[0])


def _shuffled(recipe: Recipe, context: str, cells: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([recipe.seed, 4, recipe.contexts[context].key])
    return rng.permutation(np.asarray(cells))


def _labels(recipe: Recipe, context: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Make the columns of the real files: target, guide and batch of each cell."""
    group = rows["group"].to_numpy()
    target = recipe.labels[group]
    suffix = np.where(group == len(recipe.targets), "_", "_P").astype(object)
    guide = target + suffix + (rows["guide"].to_numpy() + 1).astype(str).astype(object)
    batches = [f"sim_{number:02d}" for number in range(1, recipe.size.n_batches + 1)]
    return pd.DataFrame(
        {
            "target_gene": pd.Categorical(target),
            "guide_id": pd.Categorical(guide),
            "batch": pd.Categorical.from_codes(rows["batch"], categories=batches),
        },
        index=[f"{context}_{number:06d}" for number in rows.index],
    )


def _frame(recipe: Recipe, context: str, matrix, obs: pd.DataFrame) -> AnnData:
    """Put a matrix, its rows and the genes together, and say that they are simulated."""
    is_target = np.isin(np.arange(recipe.genes.size), recipe.targets)
    var = pd.DataFrame({"is_target": is_target}, index=recipe.genes)
    note = f"SIMULATED by vcc_helpers, seed {recipe.seed}, context {context}; not real cells"
    marks = {"simulated": True, "context": context, "note": note}
    return AnnData(matrix, obs=obs, var=var, uns=marks)


def _truth(recipe: Recipe, context: str) -> AnnData:
    """Noise-free effects of the context's targets as an AnnData, rows sorted by name."""
    here, names = recipe.contexts[context], recipe.labels[:-1]
    rows = np.argsort(names, kind="stable")
    rows = rows[here.n_cells[rows] > 0]
    obs = pd.DataFrame(
        {"n_cells": here.n_cells[rows], "residual": here.residual[rows]},
        index=pd.Index(names[rows], name="target_gene"),
    )
    return _frame(recipe, context, expected_effects(recipe, context)[rows], obs)


def _check_whole(name: str, value: int, *, at_least: int) -> int:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")
    return int(value)


def _check_size(size: Size) -> Size:
    """Return the size in Python's own numbers, if a world can be so large."""
    if not isinstance(size, Size):
        raise ValueError(f"no size {size!r}; expected one of {', '.join(SIZES)}, or a Size")
    least = {"n_genes": 1, "cells_per_target": MIN_CELLS, "n_controls": MIN_CELLS, "n_batches": 1}
    whole = {name: _check_whole(name, getattr(size, name), at_least=n) for name, n in least.items()}
    n_targets, scale = size.n_targets, size.effect_scale
    if not isinstance(n_targets, Sequence) or len(n_targets) != len(SPLIT_NAMES):
        raise ValueError(
            "n_targets must be three numbers (train, validation, test), such as (150, 50, 100); "
            f"got {n_targets!r}"
        )
    n_targets = tuple(
        _check_whole(f"the {part} part of n_targets", number, at_least=1)
        for part, number in zip(SPLIT_NAMES, n_targets, strict=True)
    )
    if sum(n_targets) > size.n_genes:
        raise ValueError(
            f"n_targets {n_targets} make {sum(n_targets)} targets, but n_genes is {size.n_genes} "
            "and each target is one of the genes; name fewer targets or more genes"
        )
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < np.inf:
        raise ValueError(f"effect_scale must be a positive number, got {scale!r}")
    for number, cells in zip(n_targets, size.cells_of_parts or (), strict=False):
        if cells < 5 * number * size.cells_per_target // 6:
            raise ValueError(
                f"cells_of_parts has {cells} cells of {number} targets, too few for a median of "
                f"{size.cells_per_target} per target"
            )
    return replace(size, n_targets=n_targets, **whole)


def _check_contexts(contexts: Sequence[str]) -> None:
    if isinstance(contexts, str) or not isinstance(contexts, Sequence) or not contexts:
        raise ValueError(f'contexts must be a list of names, such as ["H1"]; got {contexts!r}')
    for name in contexts:
        if not isinstance(name, str) or not name:
            raise ValueError(f"each context must be named by a non-empty string, got {name!r}")
    if repeated := sorted({name for name in contexts if list(contexts).count(name) > 1}):
        raise ValueError(f"each context can be named only once, but {repeated} are repeated")


# Worlds that are kept


def code(sources: tuple[str, ...]) -> str:
    """Return the checksum of source files next to this one, without docstrings and comments."""
    here = Path(__file__).parent
    tree = ast.parse("".join((here / name).read_text(encoding="utf-8") for name in sources))
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node) is not None:
            del node.body[0]
    return hashlib.sha256(ast.unparse(tree).encode()).hexdigest()


def _folder_of(wanted: dict) -> Path:
    """Return the folder of one world; `wanted` holds all that it is drawn with."""
    system, own = {
        "win32": ("LOCALAPPDATA", "AppData/Local"),
        "darwin": ("XDG_CACHE_HOME", "Library/Caches"),
    }.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    base = Path(os.environ.get(system) or Path.home() / own) / "vcc_helpers"
    # files of a newer anndata or pandas may be unreadable to an older one
    versions = {name: version(name) for name in ("numpy", "anndata", "pandas")}
    source = code((*DRAWING, Path(__file__).name))
    key = json.dumps({**wanted, "code": source, "versions": versions}, sort_keys=True)
    name = f"world-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
    return Path(os.environ.get("VCC_CACHE") or base) / name


def _load(wanted: dict) -> World | None:
    """Read a kept world; None where there is none, or where a file is not what was written."""
    folder, names = _folder_of(wanted), wanted["contexts"]
    try:
        if json.loads((folder / _INDEX).read_text(encoding="utf-8")) != _checksums(folder):
            return None
        split = json.loads((folder / "split.json").read_text(encoding="utf-8"))
        contexts, truth = (
            {name: anndata.read_h5ad(folder / f"{kind}-{i}.h5ad") for i, name in enumerate(names)}
            for kind in ("cells", "truth")
        )
    except (OSError, ValueError, KeyError):
        return None
    for cells in contexts.values():
        cells.X = cells.X.astype(np.float32)
    return World(contexts=contexts, split=split, truth=truth, seed=wanted["seed"])


def _store(wanted: dict, world: World) -> None:
    """Keep a world, each file whole and their checksums last; where that is impossible, nothing."""
    folder = _folder_of(wanted)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for kind, parts in (("cells", world.contexts), ("truth", world.truth)):
            for i, cells in enumerate(parts.values()):
                kept = cells.copy()
                if kind == "cells" and kept.X.data.max(initial=0) < 2**16:
                    kept.X = kept.X.astype(np.uint16)  # half the size, the same whole numbers
                write_cells(folder / f"{kind}-{i}.h5ad", kept)
        write_whole(folder / "split.json", json.dumps(world.split))
        write_whole(folder / _INDEX, json.dumps(_checksums(folder)))
    except OSError:  # such as a full disk: the world is in memory anyway
        shutil.rmtree(folder, ignore_errors=True)


def _checksums(folder: Path) -> dict[str, str]:
    """Checksum of every file but the index: a changed index fits no folder."""
    files = [path for path in sorted(folder.iterdir()) if path.name != _INDEX]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
