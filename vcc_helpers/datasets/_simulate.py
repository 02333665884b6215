"""Simulated worlds: in memory, or streamed to files in the official format.

The bundled real files are too small to show a 150/50/100 split, several cell lines or a file
larger than memory. What is drawn here is tuned to figures of the real H1 screen (_recipe.py);
all genes are called ``SIM...``: nothing here is a measurement.

Taught in: notebooks/01_load_the_h1_data and notebooks/02_from_counts_to_effects.

>>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1", "K562"), n_controls=50)
>>> world.contexts["H1"].n_vars, len(world.split["train"])
(60, 4)
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY
from ..stream.write import write_cells
from . import _cache
from ._cells import draw_counts, draw_roster, expected_effects
from ._recipe import MIN_CELLS, Recipe, Size, draw_recipe
from ._world import SPLIT_NAMES, World

SIZES = {
    "small": Size(),
    "panel": Size(18_080, (150, 50, 100), 30, 2000, 48, 2.0),
    "h1": Size(18_080, (150, 50, 100), 1045, 38_176, 48, 1.0, (183_097, 60_751, 132_670)),
}
CONTEXTS = ("H1", "K562", "RPE1", "HepG2")
OFFICIAL_PARTS = {"train": "Training", "validation": "Validation", "test": "Test"}
BLOCK_VALUES = 2**20


def make_h1_like(
    *,
    seed: int = 0,
    n_genes: int = SIZES["small"].n_genes,
    n_targets: tuple[int, int, int] = SIZES["small"].n_targets,
    contexts: Sequence[str] = CONTEXTS,
    cells_per_target: int = SIZES["small"].cells_per_target,
    n_controls: int = SIZES["small"].n_controls,
    n_batches: int = SIZES["small"].n_batches,
    effect_scale: float = SIZES["small"].effect_scale,
    cache: bool = True,
    progress: bool = False,
) -> World:
    """Draw a simulated world that resembles the H1 screen in its figures, not in its genes.

    Parameters
    ----------
    seed
        The same seed and the same NumPy give the same world, bit for bit.
    n_genes
        Number of genes. Depth and effect sizes scale with it, so that counts per gene and
        effect per gene stay those of the real 18,080 genes.
    n_targets
        Number of train, validation and test targets.
    contexts
        Names of the cell contexts. The first has every target; each other one lacks one target
        in ten, a different one each time. The names are labels: nothing is taken from the cell
        lines called so.
    cells_per_target
        Median number of cells a target, at least 12; the others are spread as in the real screen.
    n_controls
        Number of non-targeting cells in each context.
    n_batches
        Number of batches. They differ in depth and a little in expression.
    effect_scale
        Factor on the size of every effect. 1 gives the sizes measured in H1. The default of 2
        makes up for a part of the cells that a small world lacks: with 30 cells a target, where
        H1 has 1,045, effects of their real size drown in sampling noise.
    cache
        Keep the world on disk and read it from there the next time: in the folder named by the
        environment variable ``VCC_CACHE``, else in the user's cache folder. A stored world is used
        only if its checksums are right and its code, NumPy and sizes are today's.
    progress
        Show a progress bar, one step a block of cells.

    Returns
    -------
    World
        Its contexts, split and noise-free effects. Each context: X CSR, float32, integer counts;
        obs ``target_gene``, ``guide_id`` and ``batch``, categories; var ``is_target``, bool.

    Raises
    ------
    ValueError
        If a size is not a whole number or too small, if there are more targets than genes, if
        a context is named twice or none is named, or if the scale is not a positive number.

    Notes
    -----
    What the simulation is tuned to, and what it cannot stand for, is shown in the book's chapter
    on calibration. Cells are in random order, as in the real files.

    Examples
    --------
    >>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1",), n_controls=50)
    >>> world.truth["H1"].shape
    (9, 60)
    >>> bool(world.contexts["H1"].uns["simulated"])
    True
    """
    size = Size(n_genes, n_targets, cells_per_target, n_controls, n_batches, effect_scale)
    names = _check_contexts(contexts)
    size = _check_size(size)
    _check_whole("seed", seed, at_least=0)
    wanted = {"seed": int(seed), "contexts": names, "size": asdict(size)}
    if cache and (found := _cache.load(wanted)) is not None:
        return found
    world = _draw_world(size, names, int(seed), progress)
    if cache:
        _cache.store(wanted, world)
    return world


def _draw_world(size: Size, names: list[str], seed: int, progress: bool) -> World:
    recipe = draw_recipe(size, tuple(names), seed=seed)
    rosters = {name: draw_roster(recipe, name) for name in names}
    contexts, truth = {}, {}
    with tqdm(total=sum(map(len, rosters.values())), unit=" cells", disable=not progress) as bar:
        for name, roster in rosters.items():
            order = _shuffled(recipe, name, roster.index)
            blocks = [counts for _, counts in _blocks(recipe, name, roster, order, bar)]
            cells = AnnData(
                sparse.vstack(blocks, format="csr"),
                obs=_labels(recipe, name, roster.loc[order]),
                var=_gene_table(recipe),
            )
            contexts[name], truth[name] = cells, _truth(recipe, name)
            for part in (cells, truth[name]):
                part.uns.update(_marks(recipe, name))
    return World(contexts=contexts, split=_split(recipe), truth=truth, seed=seed)


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
    ValueError
        The size or part is unknown.
    OSError
        The file cannot be written, or there is no room for it.

    Notes
    -----
    Memory is that of the recipe and of two blocks, below 1 GB, whatever the number of cells.
    """
    size = _size_of(size)
    _check_whole("seed", seed, at_least=0)
    _write_part(Path(path), draw_recipe(size, seed=int(seed)), "H1", part, progress)
    return Path(path)


def write_challenge(
    folder: str | Path,
    *,
    size: str | Size = "panel",
    contexts: Sequence[str] = CONTEXTS,
    seed: int = 0,
) -> Path:
    """Write a whole simulated challenge: a folder that ``VCC_DATA`` can name.

    Parameters
    ----------
    folder
        Where to: a new or an empty folder.
    size, seed
        As for :func:`write_h1_like`.
    contexts
        The context to predict in, and the others.

    Returns
    -------
    Path
        The folder, with ``adata_Training.h5ad``, ``adata_Validation.h5ad``, ``adata_Test.h5ad``,
        ``pert_counts_*.csv``, ``gene_names.csv`` and ``contexts/<name>.h5ad``.

    Raises
    ------
    FileExistsError
        The folder is there and not empty.
    """
    folder, names, size = Path(folder), _check_contexts(contexts), _size_of(size)
    _check_whole("seed", seed, at_least=0)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder, so that no two mix")
    recipe = draw_recipe(size, tuple(names), seed=int(seed))
    (folder / "contexts").mkdir(parents=True, exist_ok=True)
    pd.Series(recipe.genes).to_csv(folder / "gene_names.csv", index=False, header=False)
    for part, official in OFFICIAL_PARTS.items():
        depth = _write_part(folder / f"adata_{official}.h5ad", recipe, names[0], part)
        _count_table(depth).to_csv(folder / f"pert_counts_{official}.csv", index=False)
    for name in names[1:]:
        _write_part(folder / "contexts" / f"{name}.h5ad", recipe, name, "all")
    return folder


def _count_table(depth: pd.Series) -> pd.DataFrame:
    """List cells and median depth of each target, as the released tables do."""
    table = depth.groupby(level=0).agg(["size", "median"]).drop(CONTROL)
    table = table.sort_values("size", ascending=False, kind="stable").reset_index()
    return table.set_axis(["target_gene", "n_cells", "median_umi_per_cell"], axis=1)


def _write_part(
    path: Path, recipe: Recipe, context: str, part: str, progress: bool = False
) -> pd.Series:
    """Write one file; return each cell's depth, index target_gene."""
    roster = draw_roster(recipe, context)
    order = _shuffled(recipe, context, _cells_of(recipe, roster, part))
    obs = _labels(recipe, context, roster.loc[order])
    empty = sparse.csr_matrix((len(order), recipe.size.n_genes), dtype=np.float32)
    depth = np.zeros(len(order))
    frame = AnnData(empty, obs=obs, var=_gene_table(recipe), uns=_marks(recipe, context))
    with tqdm(total=len(order), unit=" cells", disable=not progress) as bar:
        blocks = _blocks(recipe, context, roster, order, bar)
        write_cells(path, frame, _noting_depth(blocks, depth))
    return pd.Series(depth, index=obs[PERTURBATION_KEY].astype(str))


def _noting_depth(blocks, depth: np.ndarray) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Pass blocks on, and write the cells' depths to `depth`."""
    for start, counts in blocks:
        total = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        depth[start : start + len(total)] = total
        yield start, counts


def _blocks(
    recipe: Recipe, context: str, roster: pd.DataFrame, order: np.ndarray, bar: tqdm
) -> Iterator[tuple[int, sparse.csr_matrix]]:
    """Draw the cells in this order, a block on each core; yield first row and counts."""
    rows = max(1, BLOCK_VALUES // recipe.size.n_genes)
    starts = range(0, len(order), rows)
    n_threads = min(os.cpu_count() or 1, 8)

    def draw(start: int) -> sparse.csr_matrix:
        return draw_counts(recipe, context, roster, order[start : start + rows])

    with ThreadPoolExecutor(n_threads) as pool:
        waiting = [(start, pool.submit(draw, start)) for start in starts[:n_threads]]
        for later in [*starts[n_threads:], *[None] * len(waiting)]:
            start, future = waiting.pop(0)
            counts = future.result()
            if later is not None:  # no more blocks in the air than threads
                waiting.append((later, pool.submit(draw, later)))
            yield start, counts
            bar.update(counts.shape[0])


def _cells_of(recipe: Recipe, roster: pd.DataFrame, part: str) -> np.ndarray:
    if part == "all":
        return roster.index.to_numpy()
    if part not in SPLIT_NAMES:
        raise ValueError(f"no part {part!r}; expected one of {', '.join(SPLIT_NAMES)}, or 'all'")
    in_part = np.append(recipe.part_of_target == SPLIT_NAMES.index(part), True)
    return roster.index[in_part[roster["group"]]].to_numpy()


def _shuffled(recipe: Recipe, context: str, cells: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([recipe.seed, 4, recipe.contexts[context].key])
    return rng.permutation(np.asarray(cells))


def _labels(recipe: Recipe, context: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Make the columns of the real files: target, guide and batch of each cell."""
    labels = recipe.labels
    group = rows["group"].to_numpy()
    target = labels[group]
    is_control = group == len(recipe.targets)
    suffix = np.where(is_control, "_", "_P").astype(object)
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


def _gene_table(recipe: Recipe) -> pd.DataFrame:
    is_target = np.isin(np.arange(recipe.genes.size), recipe.targets)
    return pd.DataFrame({"is_target": is_target}, index=recipe.genes)


def _marks(recipe: Recipe, context: str) -> dict:
    note = f"SIMULATED by vcc_helpers, seed {recipe.seed}, context {context}; not real cells"
    return {"simulated": True, "context": context, "note": note}


def _truth(recipe: Recipe, context: str) -> AnnData:
    """Noise-free effects of the context's targets as an AnnData, rows sorted by name."""
    here, names = recipe.contexts[context], recipe.labels[:-1]
    rows = np.argsort(names, kind="stable")
    rows = rows[here.n_cells[rows] > 0]
    obs = pd.DataFrame(
        {"n_cells": here.n_cells[rows], "residual": here.residual[rows]},
        index=pd.Index(names[rows], name="target_gene"),
    )
    return AnnData(expected_effects(recipe, context)[rows], obs=obs, var=_gene_table(recipe))


def _split(recipe: Recipe) -> dict[str, list[str]]:
    """Cut the targets, which are in random order, into the three parts."""
    parts = np.split(recipe.labels[:-1], np.cumsum(recipe.size.n_targets)[:-1])
    return {key: sorted(part.tolist()) for key, part in zip(SPLIT_NAMES, parts, strict=True)}


def _check_whole(name: str, value: int, *, at_least: int) -> None:
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_whole or value < at_least:
        raise ValueError(f"{name} must be a whole number of at least {at_least}, got {value!r}")


def _size_of(size: str | Size) -> Size:
    return _check_size(SIZES.get(size, size) if isinstance(size, str) else size)


def _check_size(size: Size) -> Size:
    if not isinstance(size, Size):
        raise ValueError(f"no size {size!r}; expected one of {', '.join(SIZES)}, or a Size")
    _check_whole("n_genes", size.n_genes, at_least=1)
    _check_targets(size.n_targets, size.n_genes)
    _check_whole("cells_per_target", size.cells_per_target, at_least=MIN_CELLS)
    _check_whole("n_controls", size.n_controls, at_least=MIN_CELLS)
    _check_whole("n_batches", size.n_batches, at_least=1)
    scale = size.effect_scale
    is_number = isinstance(scale, numbers.Real) and not isinstance(scale, bool)
    if not is_number or not 0 < scale < np.inf:
        raise ValueError(f"effect_scale must be a positive number, got {scale!r}")
    for number, cells in zip(size.n_targets, size.cells_of_parts or (), strict=False):
        if cells < 5 * number * size.cells_per_target // 6:
            raise ValueError(
                f"cells_of_parts asks for {cells} cells of {number} targets, too few for a median "
                f"of {size.cells_per_target} a target"
            )
    n_genes, n_targets, *rest = astuple(size)
    return Size(int(n_genes), tuple(int(n) for n in n_targets), *rest)


def _check_targets(n_targets: tuple[int, int, int], n_genes: int) -> None:
    if not isinstance(n_targets, Sequence) or len(n_targets) != len(SPLIT_NAMES):
        raise ValueError(
            "n_targets must be three numbers (train, validation, test), such as (150, 50, 100); "
            f"got {n_targets!r}"
        )
    for part, number in zip(SPLIT_NAMES, n_targets, strict=True):
        _check_whole(f"the {part} part of n_targets", number, at_least=1)
    if sum(n_targets) > n_genes:
        raise ValueError(
            f"n_targets {tuple(n_targets)} make {sum(n_targets)} targets, but n_genes is "
            f"{n_genes} and each target is one of the genes; ask for fewer targets or more genes"
        )


def _check_contexts(contexts: Sequence[str]) -> list[str]:
    if isinstance(contexts, str) or not isinstance(contexts, Sequence) or not contexts:
        raise ValueError(f'contexts must be a list of names, such as ["H1"]; got {contexts!r}')
    for name in contexts:
        if not isinstance(name, str) or not name:
            raise ValueError(f"each context must be named by a non-empty string, got {name!r}")
    repeated = sorted({name for name in contexts if list(contexts).count(name) > 1})
    if repeated:
        raise ValueError(f"each context can be named only once, but {repeated} are repeated")
    return list(contexts)
