"""What a team is given in a season of unseen contexts: control cells, and what to predict.

The official bundle of 2026, ``vcc_2026_controls.zip``, holds ``context_A.h5ad``, ``context_B.h5ad``
and ``context_C.h5ad``, the lists ``gene_names.csv`` and ``pert_counts.csv``, and ``manifest.json``.
:func:`write_bundle` writes a simulated one, with what nobody has of the real one: the truth.

Taught in: notebooks/26_predict_three_unseen_lines.

>>> read_bundle("data/elsewhere")
Traceback (most recent call last):
FileNotFoundError: no such folder or zip: ...
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse
from tqdm import tqdm

from ..bulk import CONTROL, PERTURBATION_KEY, some_of
from ..presets import VCC2026
from ..stream.open import labels_of, open_cells
from ..stream.write import write_cells, write_whole
from ..submission.lists import MANIFEST, load_manifest, read_counts, read_genes
from ._cells import draw_roster
from ._recipe import (
    COMMON_TAIL,
    DEPTH_PER_GENE,
    Recipe,
    Size,
    _heavy,
    _slope,
    _unit_rows,
    draw_recipe,
)
from ._simulate import _blocks, _check_whole, _frame, _labels

_GENES, _COUNTS = "gene_names.csv", "pert_counts.csv"
_KEY, _EACH = VCC2026.context_key, VCC2026.cells_a_target
#: Most bytes that are unpacked of a zip; the official one holds 0.7 GB.
_MOST_UNPACKED = 32 * 10**9

#: The contexts of a simulated bundle; and the other lines, with about the share of the targets that
#: was measured in each. Assumed: how many of the real targets are public depends on who counts.
_CONTEXTS = VCC2026.phases["validation"]
_COVERED = {"L1": 0.63, "L2": 0.5, "L3": 0.36}
#: As many control cells per guide as cells per target; median counts of a cell, as participants
#: report them of the official controls.
_GUIDES, _DEPTH = 46, 20_000 / 18_533
#: Size of a line's own response, in units of the median effect. In the lines of 2026 the mean
#: response makes up about .01 of the squared effects. Assumed.
_RESPONSE = 0.3
_SIZES = {
    "small": Size(500, (16, 16, 16), 100, _GUIDES * 80, 1, 3.0),
    "full": Size(18_533, (100, 100, 100), 150, _GUIDES * _EACH, 1, 1.0),
}


@dataclass(frozen=True, eq=False)
class Bundle:
    """Controls of each context, and what is to be predicted in each.

    Attributes
    ----------
    controls : dict[str, AnnData]
        Control cells of each context, ``(n_cells, n_genes)``, counts, in the manifest's order;
        open on disk, not in memory.
    genes : pd.Index
        Names of the genes, ``(n_genes,)``, in the order that a prediction must have.
    n_cells : pd.Series
        How many cells of each target are to be predicted in a context, int, index target_gene.
    folder : Path
        Where its files lie. A zip's are unpacked to a folder that is removed when neither the
        bundle nor any of its cells is in use any more.
    """

    controls: dict[str, AnnData]
    genes: pd.Index
    n_cells: pd.Series
    folder: Path

    @property
    def contexts(self) -> list[str]:
        """Names of the contexts."""
        return list(self.controls)

    @property
    def targets(self) -> list[str]:
        """Names of the targets, in the order of the official list."""
        return self.n_cells.index.get_level_values(PERTURBATION_KEY).unique().tolist()


def read_bundle(path: str | Path) -> Bundle:
    """Open the official controls of 2026, or a simulated bundle of the same form.

    Parameters
    ----------
    path
        The zip as it was downloaded, or the folder that it was unpacked to: ``manifest.json``,
        ``gene_names.csv``, ``pert_counts.csv``, and the controls: a file ``context_A.h5ad`` for
        each context, else any ``.h5ad`` files whose ``obs`` has the column that the manifest calls
        ``context_col``. HDF5 needs a file of its own, so a zip is unpacked first (0.7 GB of disk).

    Raises
    ------
    FileNotFoundError
        There is no such folder or zip, or a file of the bundle is missing.
    ValueError
        The zip or a file cannot be read, the manifest does not name the contexts, a context has no
        controls or is not asked, cells are no controls, or they do not have the genes of the list.
    """
    path, kept = Path(path).expanduser(), None
    folder = path
    if path.is_file():
        kept = _Folder()
        folder = _unpack(path, kept.path)
    elif not path.is_dir():
        raise FileNotFoundError(
            f"no such folder or zip: {path.absolute()}; expected the bundle that vcc datasets "
            "download controls fetches, or the folder it was unpacked to"
        )
    bundle = _open(folder, path)
    for user in (bundle, *bundle.controls.values()):
        weakref.finalize(user, id, kept)  # which thereby lives as long as they do
    return bundle


class _Folder:
    """A temporary folder that is there as long as somebody holds this."""

    def __init__(self):
        self.path = Path(tempfile.mkdtemp(prefix="vcc_"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> Path:
    """Unpack a zip, and return the folder in it that holds a manifest."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := sum(member.file_size for member in archive.infolist())) > _MOST_UNPACKED:
                raise ValueError(f"{path} would unpack to {size:,} bytes; is it a bundle?")
            archive.extractall(folder)
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:  # encrypted is a RuntimeError
        raise ValueError(
            f"{path} cannot be read as a zip ({error}); download it again, or name the folder that "
            "it was unpacked to"
        ) from error
    return next((file.parent for file in sorted(folder.rglob(MANIFEST))), folder)


def _open(folder: Path, path: Path) -> Bundle:
    there = sorted(file.name for file in folder.iterdir())
    if missing := [name for name in (MANIFEST, _GENES, _COUNTS) if name not in there]:
        raise FileNotFoundError(
            f"{path} has no {some_of(missing)}; it has {some_of(there)}; expected the whole "
            "bundle, its files next to each other"
        )
    manifest, genes = _read_manifest(folder / MANIFEST), read_genes(folder / _GENES)
    if manifest.get("n_genes", len(genes)) != len(genes):
        raise ValueError(
            f"{path}: {_GENES} names {len(genes):,} genes, {MANIFEST} says {manifest['n_genes']}; "
            "take both from one bundle"
        )
    each = manifest.get("cells_per_pert", _EACH)
    n_cells = read_counts(folder / _COUNTS, rules=replace(VCC2026, cells_a_target=each))
    return Bundle(_controls(folder, there, manifest, genes), genes, n_cells, folder)


def _read_manifest(path: Path) -> dict:
    manifest = load_manifest(path)
    if manifest is None or len(set(manifest["contexts"])) < len(manifest["contexts"]):
        raise ValueError(
            f'{path} does not name the contexts; expected a JSON object with "contexts": '
            '["A", "B", "C"], each once'
        )
    return manifest


def _controls(folder: Path, there: list[str], manifest: dict, genes: pd.Index) -> dict:
    """Open each context's control cells, from a file of their own or from one with others."""
    contexts, found = manifest["contexts"], {}
    files = [f"context_{name}.h5ad" for name in contexts]
    if not set(files) <= set(there):
        files = [name for name in there if name.endswith(".h5ad")]
    for name in files:
        cells = _checked(open_cells(folder / name), name, manifest, genes)
        labels = cells.obs[_KEY]
        for context in labels.unique():
            if context in found:
                raise ValueError(f"{name} has controls of {context!r}, as has another .h5ad file")
            alone = labels.nunique() == 1
            found[context] = cells if alone else cells[(labels == context).to_numpy()]
    if set(found) != set(contexts):
        raise ValueError(
            f"the manifest asks for the contexts {some_of(contexts)}, and the .h5ad files "
            f"({some_of(files)}) have controls of {some_of(sorted(found))}; take all files from "
            "one bundle, one context_....h5ad a context"
        )
    return {context: found[context] for context in contexts}


def _checked(cells: AnnData, name: str, manifest: dict, genes: pd.Index) -> AnnData:
    """Put the labels in our words, if the cells are controls on the genes of the list."""
    if list(cells.var_names) != list(genes):
        how = "in another order than" if set(cells.var_names) == set(genes) else "other than"
        raise ValueError(f"{name}: {cells.n_vars:,} genes, {how} the {len(genes):,} of {_GENES}")
    control = manifest.get("control_label", CONTROL)
    labels = labels_of(cells, manifest.get("pert_col", PERTURBATION_KEY)).unique()
    if len(others := labels.drop(control, errors="ignore")):
        raise ValueError(
            f"{name}: cells of {some_of(others)} among the controls; expected {control!r} alone"
        )
    context = Path(name).stem.removeprefix("context_")
    if (column := manifest.get("context_col", _KEY)) in cells.obs:
        context = labels_of(cells, column)
    kinds = dict.fromkeys((PERTURBATION_KEY, _KEY), "category")
    cells.obs = cells.obs.assign(**{PERTURBATION_KEY: CONTROL, _KEY: context}).astype(kinds)
    return cells


def write_bundle(
    folder: str | Path, *, size: str = "small", seed: int = 0, progress: bool = False
) -> Path:
    """Write a SIMULATED bundle of 2026, screens of other lines, and the truth to score against.

    Six lines are drawn, with the same targets. Three are the contexts A, B and C of the bundle; in
    the others about .63, .5 and .36 of the targets are measured, so some are measured nowhere.

    Parameters
    ----------
    folder
        A folder that is not there yet, or empty. Written are the six files that :func:`read_bundle`
        opens; ``truth.h5ad``, the cells of the contexts with their controls; and ``sources``, a
        folder with a screen of each other line.
    size
        ``"small"``: 500 genes, 48 targets, 80 cells per target and control guide, effects three
        times their real size; seconds. ``"full"``: 18,533 genes, 300 targets, 400 cells, as the
        official one, written a block at a time: 28 GB.
    seed
        The same seed and the same NumPy give the same cells.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        The folder. Where something goes wrong on the way, none is left.

    Raises
    ------
    ValueError, OSError
        The size or seed is none; the folder is not empty, cannot be written, or the disk is full.
    """
    if size not in _SIZES:
        raise ValueError(f"no size {size!r} of a bundle; expected {' or '.join(_SIZES)}")
    folder, seed = Path(folder), _check_whole("seed", seed, at_least=0)
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the simulated bundle")
    recipe = _draw_lines(_SIZES[size], seed)
    try:
        (folder / "sources").mkdir()
        with tqdm(unit=" cells", disable=not progress) as bar:
            for line in _COVERED:
                _write(folder / "sources" / f"{line}.h5ad", recipe, [line], bar)
            for line in _CONTEXTS:
                _write(folder / f"context_{line}.h5ad", recipe, [line], bar, controls=True)
            _write(folder / "truth.h5ad", recipe, _CONTEXTS, bar)
        _write_lists(folder, recipe)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _draw_lines(size: Size, seed: int) -> Recipe:
    """Draw six lines: in each some targets are measured, and all show the line's own response."""
    # the first of a world is what all others come from, and nearest to each: here it is no line
    recipe = draw_recipe(size, ("origin", *_COVERED, *_CONTEXTS), seed=seed)
    contexts = {}
    for name in (*_COVERED, *_CONTEXTS):
        here = recipe.contexts[name]
        rng, n_targets = np.random.default_rng([seed, 5, here.key]), len(recipe.targets)
        n_cells = np.full(n_targets, size.n_controls // _GUIDES)
        if name in _COVERED:
            measured = rng.permutation(n_targets) < _COVERED[name] * n_targets
            n_cells = np.maximum(here.n_cells, size.cells_per_target // 4) * measured
        slope = _slope(here.log_basal)
        size_of_response = _RESPONSE * np.median(np.linalg.norm(here.changes * slope, axis=1))
        pattern = _unit_rows(_heavy(rng, (1, slope.size), COMMON_TAIL) * np.sqrt(slope)) / slope
        response = np.clip(size_of_response * pattern, -1, 1).astype(np.float32)
        contexts[name] = here._replace(n_cells=n_cells, changes=here.changes + response)
    return recipe._replace(contexts=contexts)


def _write(path: Path, recipe: Recipe, lines, bar: tqdm, *, controls: bool = False) -> None:
    """Write the cells of some lines, one after the other; or their controls alone."""
    rosters, obs, n_controls = {}, [], recipe.size.n_controls
    for line in lines:
        rows = draw_roster(recipe, line)
        rows["depth"] *= _DEPTH / DEPTH_PER_GENE
        rows.loc[: n_controls - 1, "guide"] = np.arange(n_controls) * _GUIDES // n_controls
        rosters[line] = rows = rows[:n_controls] if controls else rows
        labels = _labels(recipe, line, rows).rename(columns={"guide_id": "ntc_id"})
        obs.append(labels.drop(columns="batch").assign(**{_KEY: line}))
    obs = pd.concat(obs)
    obs = obs.astype(dict.fromkeys(obs, "category"))
    empty = sparse.csr_matrix((len(obs), recipe.size.n_genes), dtype=np.float32)

    def blocks() -> Iterator[tuple[int, sparse.csr_matrix]]:
        done = 0
        for line, rows in rosters.items():
            for start, counts in _blocks(recipe, line, rows, rows.index.to_numpy(), bar):
                yield done + start, counts
            done += len(rows)

    write_cells(path, _frame(recipe, ", ".join(lines), empty, obs), blocks())


def _write_lists(folder: Path, recipe: Recipe) -> None:
    """Write what to predict; the manifest last, which makes a folder a bundle."""
    targets, each = sorted(recipe.labels[:-1]), recipe.size.n_controls // _GUIDES
    table = pd.DataFrame({PERTURBATION_KEY: targets})
    if each != _EACH:  # the official list has names alone
        table["n_cells"] = each
    write_whole(folder / _GENES, "\n".join(["gene_name", *recipe.genes, ""]))
    write_whole(folder / _COUNTS, table.to_csv(index=False))
    manifest = {
        "season": "2026",
        "partition": "SIMULATED",
        "panel_id": f"SIMULATED-{recipe.seed}",
        "contexts": _CONTEXTS,
        "pert_col": PERTURBATION_KEY,
        "context_col": _KEY,
        "control_label": CONTROL,
        "n_genes": len(recipe.genes),
        "n_constructs": len(targets),
        "cells_per_pert": each,
        "note": f"SIMULATED by vcc_helpers, seed {recipe.seed}; not real cells",
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2))
