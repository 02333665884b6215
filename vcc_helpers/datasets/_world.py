"""A world: the cells of a challenge, in one shape whether simulated or read from official files.

Taught in: notebooks/03_predict_with_baselines.

>>> from vcc_helpers.datasets import make_h1_like
>>> world = make_h1_like(n_genes=60, n_targets=(4, 2, 3), contexts=("H1",), n_controls=50)
>>> sorted(set(world.cells("validation").obs["target_gene"])) == sorted(
...     ["non-targeting", *world.split["validation"]]
... )
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
from anndata import AnnData

from ..bulk import CONTROL, PERTURBATION_KEY, effects, some_of
from ..stream.covariance import control_covariance
from ..stream.pseudobulk import pseudobulk

SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True, repr=False, eq=False)
class World:
    """Cells of several contexts, and the split of their targets.

    Attributes
    ----------
    contexts : dict[str, AnnData]
        One AnnData per context, ``(n_cells, n_genes)``: X counts (of other lines, what their files
        have: often log-normalised values), obs ``target_gene`` and ``batch``. The first is the
        one to predict in: simulated, with every target; from files, the training file. Simulated
        cells are in memory, files open on disk.
    split : dict[str, list[str]]
        Target names under ``train``, ``validation`` and ``test``, sorted; no name is in two.
    truth : dict[str, AnnData]
        Simulated worlds only, else empty. One AnnData per context, ``(n_perts, n_genes)``: X
        float32, the lognorm effect that infinitely many cells would show, targets sorted by name;
        obs ``n_cells`` and ``residual``, the share of own-gene expression left, 0 to 1.
    seed : int or None
        The seed that draws this world again; None when it was read from files.
    files : dict[str, AnnData]
        From files only, else empty: the file of each part that is there, open on disk.

    Notes
    -----
    What is simulated says so: ``uns["simulated"]`` of each AnnData is true, ``uns["note"]``
    tells how it was made, and the printed world begins with the word.
    """

    contexts: dict[str, AnnData]
    split: dict[str, list[str]]
    truth: Mapping[str, AnnData] = field(default_factory=dict)
    seed: int | None = None
    files: Mapping[str, AnnData] = field(default_factory=dict)

    @property
    def home(self) -> str:
        """Name of the context to predict in, the first."""
        return next(iter(self.contexts))

    @property
    def simulated(self) -> bool:
        """Whether these are no real cells."""
        return bool(self.contexts[self.home].uns.get("simulated", False))

    @property
    def sources(self) -> list[str]:
        """Names of the other contexts."""
        return [name for name in self.contexts if name != self.home]

    def titled(self, finding: str) -> str:
        """Return a figure's title: the finding in the simulated world, else the kind of cells."""
        if self.files:
            return "Simulated, from files" if self.simulated else "Real H1 cells"
        return f"Simulated: {finding}"

    def cells(self, part: str) -> AnnData:
        """Return the cells of one part of the split, with the controls, in the home context.

        Shape ``(n_cells, n_genes)``, counts: the targets of `part` (``"train"``, ``"validation"``
        or ``"test"``) and non-targeting cells. A view of the world's cells, or the part's file,
        open on disk. A KeyError says that there is no such part, a FileNotFoundError that the
        world was read from a folder without its file.
        """
        if part not in SPLIT_NAMES:
            raise KeyError(f"no part {part!r}; a split has {some_of(SPLIT_NAMES)}")
        if part in self.files:
            return self.files[part]
        if self.files:
            raise FileNotFoundError(
                f"the {part} cells are not in the folder of this world; get them with "
                f"vcc_helpers.datasets.fetch_h1({part!r}, folder=...)"
            )
        home = self.contexts[self.home]
        return home[home.obs[PERTURBATION_KEY].isin([CONTROL, *self.split[part]]).to_numpy()]

    def source_effects(self) -> dict[str, AnnData]:
        """Return the effects in each other context, ``(n_perts, n_genes)``, by its name.

        A world without other contexts has one entry, a guess: what the home context's controls
        tell of all targets (:func:`~vcc_helpers.stream.control_covariance`).
        """
        if self.sources:
            return {name: effects(pseudobulk(self.contexts[name])) for name in self.sources}
        cells = self.cells("train")
        controls = cells[(cells.obs[PERTURBATION_KEY] == CONTROL).to_numpy()]
        names = sorted(name for part in self.split.values() for name in part)
        batches = "batch" if "batch" in cells.obs else None
        guess = control_covariance(controls, names, within=batches).astype("float32")
        return {"guess from controls": AnnData(guess)}

    def __repr__(self) -> str:
        """Say whether it is simulated, and its sizes."""
        sizes = ", ".join(f"{len(names)} {part}" for part, names in self.split.items())
        kind = "SIMULATED (no real cells)" if self.simulated else "real cells"
        seed = "" if self.seed is None else f", seed {self.seed}"
        lines, shown = [f"World, {kind}{seed}; targets: {sizes}"], self.contexts
        if self.files:
            shown = {f"{self.home}, {part}": cells for part, cells in self.files.items()}
            shown |= {name: self.contexts[name] for name in self.sources}
        for name, cells in shown.items():
            targets = pd.unique(cells.obs[PERTURBATION_KEY])
            size = f"{cells.n_obs:,} cells x {cells.n_vars:,} genes"
            lines.append(f"  {name}: {size}, {len(targets) - (CONTROL in targets)} targets")
        if self.files and not self.sources:
            lines.append("  no other contexts are open")
        return "\n".join(lines)
