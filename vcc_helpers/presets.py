"""The rules of a season, each season one frozen record.

Taught in: notebooks/17_metrics_by_hand.
Needs no sibling module.

>>> VCC2025.metrics
('des', 'pds', 'mae')
>>> get_preset("vcc2025") is VCC2025
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

#: Raised when a value that scoring gives changes, so that nothing older is taken for it.
SCORING_VERSION = 3


@dataclass(frozen=True)
class Preset:
    """Every choice that a season's rules make; the defaults are those of 2025."""

    #: What ``score(preset=...)`` and ``vcc-helpers score --preset`` call it.
    name: str
    #: Names of the metrics, in the order of a score card's columns.
    metrics: tuple[str, ...]
    #: The software whose numbers these are.
    source: str
    #: The overall score is a mean over these metrics, each scaled so that the baseline is 0 and
    #: `top` is 1, and held between its two limits.
    limits: Mapping[str, tuple[float, float]]
    #: What is 1 on that scale, a ``"perfect"`` score or a ``"replicate"`` of the experiment.
    top: str = "perfect"
    #: Total that each cell is scaled to before the logarithm; None for the median of its file.
    target_sum: float | None = None
    #: Type that is computed in; None for the precision of the file.
    dtype: str | None = None
    #: Whether values with fractions are refused.
    counts_only: bool = False
    #: A value is fractional if it is further than this from a whole number.
    tolerance: float | None = None
    #: Most counts that a cell may have.
    most_counts: float = inf
    #: Whether the real control cells serve both sides; otherwise each file's own do.
    real_controls: bool = False
    #: Total that the summed counts of a perturbation are scaled to, for its profile; None where
    #: the profile is the mean of the cells' lognorm values.
    bulk_target_sum: float | None = None
    #: Whether the rank-sum test has exact p-values for few cells.
    exact: bool = True
    #: Whether the rank-sum test has the continuity correction.
    use_continuity: bool = True
    #: Genes with no more counts per million than this in the controls are not tested.
    least_cpm: float | None = None
    #: A gene is significant below this false discovery rate.
    fdr: float = 0.05
    #: Whether rates are taken over the tests of a whole ``"file"`` or of each ``"perturbation"``.
    fdr_family: str = "file"
    #: The fold change where the control's mean is 0, and its inverse where the other's is.
    fold_change_clip: float = 20.0
    #: Added to both means of a fold change, which are then of scaled counts; None for means of
    #: lognorm values, back-transformed, and the clip.
    pseudocount: float | None = None
    #: Whether the silenced gene counts in no metric; otherwise it is left out of pds only.
    leave_out_own_gene: bool = False
    #: Most cells that an upload may hold.
    most_cells: int | None = 200_000
    #: Most values that an upload may store.
    most_entries: int | None = None
    #: Number of cells that each target of an upload must have; None where it is free.
    cells_a_target: int | None = None
    #: Whether an upload must hold control cells; otherwise it must not.
    upload_controls: bool = True
    #: Column of an upload's ``obs`` that names each cell's context; None where there is one.
    context_key: str | None = None
    #: The contexts to be predicted, by phase of the season.
    phases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: The official tool that packs an upload.
    tool: str = "cell-eval prep"
    #: The scheme of the file ``meta.json`` that heads an upload; None where a watermark ends it.
    meta_schema: int | None = None


VCC2025 = Preset(
    name="vcc2025",
    metrics=("des", "pds", "mae"),
    source="cell-eval 0.6.6 with pdex 0.1.27",
    limits=dict.fromkeys(("mae", "des", "pds"), (0.0, inf)),
)
#: The rules of 2025 with all seven metrics of the Generalist Prize.
_GENERALIST = replace(
    VCC2025,
    name="vcc2025-generalist",
    metrics=(*VCC2025.metrics, "deg_count_spearman", "lfc_spearman", "pr_auc", "pearson_delta"),
)
_LIMITS_2026 = {
    "pds_cosine": (-inf, inf),
    "mse_normalized": (0.0, 1.0),
    "direction_fidelity": (-inf, inf),
    "direction_reach": (-inf, inf),
    "significant_jaccard": (-inf, inf),
    "lfc_nmae": (-6.0, inf),
}
VCC2026 = Preset(
    name="vcc2026",
    metrics=tuple(_LIMITS_2026),
    source="cell-eval2 0.20.0",
    limits=_LIMITS_2026,
    top="replicate",
    target_sum=1e6,
    dtype="float64",
    counts_only=True,
    tolerance=1e-6,
    most_counts=1e6,
    real_controls=True,
    bulk_target_sum=5e4,
    exact=False,
    use_continuity=False,
    least_cpm=5.0,
    fdr_family="perturbation",
    pseudocount=1e-9,
    leave_out_own_gene=True,
    most_cells=400_000,
    most_entries=4_750_000_000,
    cells_a_target=400,
    upload_controls=False,
    context_key="context",
    phases={"validation": ("A", "B", "C"), "final": ("D", "E", "F")},
    tool="vcc prep",
    meta_schema=1,
)
PRESETS = {preset.name: preset for preset in (VCC2025, _GENERALIST, VCC2026)}


def get_preset(preset: str | Preset) -> Preset:
    """Return a preset by a name such as ``"vcc2025"``, else a KeyError; a preset passes through."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise KeyError(f"no preset {preset!r}; there is {', '.join(map(repr, PRESETS))}")
    return PRESETS[preset]
