"""What a team is given in a season of unseen contexts: control cells, and what is asked.

The official bundle of 2026, ``vcc_2026_controls.zip``, holds ``context_A.h5ad``, ``context_B.h5ad``
and ``context_C.h5ad``, the lists ``gene_names.csv`` and ``pert_counts.csv``, and ``manifest.json``.
:func:`write_bundle` writes a simulated one, with what nobody has of the real one: the truth.

Taught in: notebooks/21_predict_three_unseen_lines.

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
from ..submission.lists import read_counts, read_genes
from ._recipe import Recipe, Size, draw_recipe, with_responses
from ._simulate import blocks_of, check_whole, frame_of

MANIFEST, GENES, COUNTS = "manifest.json", "gene_names.csv", "pert_counts.csv"
TRUTH, SOURCES = "truth.h5ad", "sources"
#: Most bytes that are unpacked of a zip; the official one holds 0.7 GB.
_MOST_UNPACKED = 32 * 10**9

#: The contexts of a simulated bundle; and the other lines, with about the share of the targets that
#: was measured in each. Assumed: how many of the real targets are public depends on who counts.
CONTEXTS = VCC2026.phases["validation"]
COVERED = {"L1": 0.63, "L2": 0.5, "L3": 0.36}
#: As many control cells per guide as cells per target; counts per cell as participants report them
#: of the official controls: medians 19,946 to 20,109, coefficients of variation .38 to .46.
CONTROL_GUIDES = 46
DEPTH_PER_GENE, DEPTH_LOG_SD = 20_000 / 18_533, 0.42
BUNDLES = {
    "small": Size(500, (16, 16, 16), 100, CONTROL_GUIDES * 80, 1, 3.0),
    "full": Size(18_533, (100, 100, 100), 150, CONTROL_GUIDES * 400, 1, 1.0),
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
    """Write the bundle's files that a zip holds, in whichever folder, next to each other."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if not Path(m.filename).name.startswith("._")]
            members = [m for m in members if m.filename.endswith((".h5ad", ".csv", ".json"))]
            names = [Path(m.filename).name for m in members]
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{path} holds {some_of(twice)} more than once; expected one each")
            if (size := sum(m.file_size for m in members)) > _MOST_UNPACKED:
                raise ValueError(f"{path} would unpack to {size:,} bytes; is it a bundle?")
            for member, name in zip(members, names, strict=True):
                with archive.open(member) as source, open(folder / name, "wb") as out:
                    shutil.copyfileobj(source, out, 2**20)
    except (zipfile.BadZipFile, RuntimeError, EOFError) as error:  # encrypted is a RuntimeError
        raise ValueError(
            f"{path} cannot be read as a zip ({error}); download it again, or name the folder that "
            "it was unpacked to"
        ) from error
    return folder


def _open(folder: Path, path: Path) -> Bundle:
    there = sorted(file.name for file in folder.iterdir())
    if missing := [name for name in (MANIFEST, GENES, COUNTS) if name not in there]:
        raise FileNotFoundError(
            f"{path} has no {some_of(missing)}; it has {some_of(there)}; expected the whole "
            "bundle, its files next to each other"
        )
    manifest = _read_manifest(folder / MANIFEST)
    genes = read_genes(folder / GENES)
    if manifest.get("n_genes", len(genes)) != len(genes):
        raise ValueError(
            f"{path}: {GENES} names {len(genes):,} genes, {MANIFEST} says {manifest['n_genes']}; "
            "take both from one bundle"
        )
    rules = replace(VCC2026, cells_a_target=manifest.get("cells_per_pert", VCC2026.cells_a_target))
    n_cells = read_counts(folder / COUNTS, rules=rules)
    controls = _controls(folder, there, manifest, genes)
    return Bundle(controls, genes, n_cells, folder)


def _read_manifest(path: Path) -> dict:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        contexts = manifest["contexts"]
        sound = contexts and all(isinstance(name, str) and name.strip() for name in contexts)
    except (ValueError, LookupError, TypeError, RecursionError):
        sound = False
    if not sound or isinstance(contexts, str) or len(set(contexts)) < len(contexts):
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
        labels = cells.obs[VCC2026.context_key]
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
    key, context = VCC2026.context_key, manifest.get("context_col", VCC2026.context_key)
    perturbation, control = (
        manifest.get("pert_col", PERTURBATION_KEY),
        manifest.get("control_label"),
    )
    control = control or CONTROL
    if list(cells.var_names) != list(genes):
        how = "in another order than" if set(cells.var_names) == set(genes) else "other than"
        raise ValueError(f"{name}: {cells.n_vars:,} genes, {how} the {len(genes):,} of {GENES}")
    others = labels_of(cells, perturbation).unique().drop(control, errors="ignore")
    if len(others):
        raise ValueError(
            f"{name}: cells of {some_of(others)} among the controls; expected {control!r} alone"
        )
    of_context = Path(name).stem.removeprefix("context_")
    if context in cells.obs:
        of_context = labels_of(cells, context)
    cells.obs = cells.obs.assign(**{PERTURBATION_KEY: CONTROL, key: of_context}).astype(
        dict.fromkeys((PERTURBATION_KEY, key), "category")
    )
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
        official one, written a block at a time: 26 GB, minutes.
    seed
        The same seed and the same NumPy give the same files.
    progress
        Show a progress bar.

    Returns
    -------
    Path
        The folder. What is wrong on the way leaves none.

    Raises
    ------
    ValueError, OSError
        The size or seed is none; the folder is not empty, or cannot be written, or the disk is
        full.
    """
    if size not in BUNDLES:
        raise ValueError(f"no size {size!r} of a bundle; expected {' or '.join(BUNDLES)}")
    folder, seed = Path(folder), check_whole("seed", seed, at_least=0)
    folder.mkdir(exist_ok=True)
    if any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; name a new folder for the simulated bundle")
    recipe = _lines(BUNDLES[size], seed)
    try:
        (folder / SOURCES).mkdir()
        n_cells = {line: len(_roster(recipe, line)) for line in recipe.contexts}
        total = sum(n_cells.values()) + len(CONTEXTS) * recipe.size.n_controls
        with tqdm(total=total, unit=" cells", disable=not progress) as bar:
            for line in COVERED:
                _write(folder / SOURCES / f"{line}.h5ad", recipe, [line], bar)
            for line in CONTEXTS:
                _write(folder / f"context_{line}.h5ad", recipe, [line], bar, controls=True)
            _write(folder / TRUTH, recipe, CONTEXTS, bar)
        _write_lists(folder, recipe)
    except BaseException:
        shutil.rmtree(folder)
        raise
    return folder


def _lines(size: Size, seed: int) -> Recipe:
    """Draw six lines: each with a response of its own, and with the targets measured in it."""
    # the first of a world is what all others come from, and nearest to each: here it is no line
    recipe = with_responses(draw_recipe(size, ("origin", *COVERED, *CONTEXTS), seed=seed))
    contexts, each = {}, size.n_controls // CONTROL_GUIDES
    for name in (*COVERED, *CONTEXTS):
        here = recipe.contexts[name]
        rng = np.random.default_rng([seed, 6, here.key])
        measured = rng.permutation(len(here.n_cells)) < COVERED.get(name, 0) * len(here.n_cells)
        usual = np.maximum(here.n_cells, size.cells_per_target // 4)
        n_cells = np.full(len(usual), each) if name in CONTEXTS else np.where(measured, usual, 0)
        contexts[name] = here._replace(n_cells=n_cells)
    return recipe._replace(contexts=contexts)


def _roster(recipe: Recipe, line: str) -> pd.DataFrame:
    """List the cells of a line as :func:`~._cells.draw_roster` does, controls guide by guide."""
    here, n_targets, n_controls = recipe.contexts[line], len(recipe.targets), recipe.size.n_controls
    rng = np.random.default_rng([recipe.seed, 5, here.key])
    group = np.repeat([n_targets, *range(n_targets)], [n_controls, *here.n_cells])
    guide = (rng.random(len(group)) * np.append(recipe.n_guides, 1)[group]).astype(int)
    guide[:n_controls] = np.arange(n_controls) * CONTROL_GUIDES // n_controls
    depth = np.exp(rng.normal(0, DEPTH_LOG_SD, len(group))) * DEPTH_PER_GENE * recipe.size.n_genes
    return pd.DataFrame({"group": group, "batch": 0, "guide": guide, "depth": depth})


def _write(path: Path, recipe: Recipe, lines, bar: tqdm, *, controls: bool = False) -> None:
    """Write the cells of some lines, one after the other; or their controls alone."""
    rosters = {line: _roster(recipe, line) for line in lines}
    if controls:
        rosters = {line: rows[: recipe.size.n_controls] for line, rows in rosters.items()}
    obs = pd.concat([_labels(recipe, line, rows) for line, rows in rosters.items()])
    obs = obs.astype(dict.fromkeys(obs, "category"))
    empty = sparse.csr_matrix((len(obs), recipe.size.n_genes), dtype=np.float32)

    def blocks() -> Iterator[tuple[int, sparse.csr_matrix]]:
        done = 0
        for line, rows in rosters.items():
            for start, counts in blocks_of(recipe, line, rows, rows.index.to_numpy(), bar):
                yield done + start, counts
            done += len(rows)

    write_cells(path, frame_of(recipe, ", ".join(lines), empty, obs), blocks())


def _labels(recipe: Recipe, line: str, rows: pd.DataFrame) -> pd.DataFrame:
    target = recipe.labels[rows["group"]]
    name = np.where(target == CONTROL, f"{line}_ctrl_", f"{line}_").astype(object)
    guide = np.where(target == CONTROL, f"{CONTROL}-", target + "-").astype(object)
    return pd.DataFrame(
        {
            PERTURBATION_KEY: target,
            VCC2026.context_key: line,
            "ntc_id": guide + (rows["guide"] + 1).astype(str).to_numpy(dtype=object),
        },
        index=name + rows.index.astype(str).str.zfill(6).to_numpy(dtype=object),
    )


def _write_lists(folder: Path, recipe: Recipe) -> None:
    """Write what is asked; the manifest last, which makes a folder a bundle."""
    targets, each = sorted(recipe.labels[:-1]), recipe.size.n_controls // CONTROL_GUIDES
    official = each == VCC2026.cells_a_target  # whose list is names alone
    lines = targets if official else [f"{target},{each}" for target in targets]
    write_whole(folder / GENES, "\n".join(["gene_name", *recipe.genes, ""]))
    header = PERTURBATION_KEY if official else f"{PERTURBATION_KEY},n_cells"
    write_whole(folder / COUNTS, "\n".join([header, *lines, ""]))
    manifest = {
        "season": "2026",
        "partition": "SIMULATED",
        "panel_id": f"SIMULATED-{recipe.seed}",
        "contexts": CONTEXTS,
        "pert_col": PERTURBATION_KEY,
        "context_col": VCC2026.context_key,
        "control_label": CONTROL,
        "n_genes": len(recipe.genes),
        "n_constructs": len(targets),
        "cells_per_pert": each,
        "note": f"SIMULATED by vcc_helpers, seed {recipe.seed}; not real cells",
    }
    write_whole(folder / MANIFEST, json.dumps(manifest, indent=2))
