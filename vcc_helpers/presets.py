"""The rules of a season, each season one frozen record.

Taught in: notebooks/08_metrics_by_hand.
Needs no sibling module.

>>> VCC2025.metrics
('des', 'pds', 'mae')
>>> get_preset("vcc2025") is VCC2025
True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

#: Raised when a value that scoring gives changes, so that nothing older is taken for it.
SCORING_VERSION = 2


@dataclass(frozen=True)
class Preset:
    """Every choice that a season's rules make; the defaults are those of 2025.

    Attributes
    ----------
    name, source
        What ``score(preset=...)`` and ``vcc-helpers score --preset`` call it; the software whose
        numbers these are.
    metrics
        Names of the metrics, in the order of a score card's columns.
    limits, top
        The overall score is a mean over these metrics, each scaled so that the baseline is 0 and a
        ``"perfect"`` score, or a ``"replicate"`` of the experiment, is 1, and held between its two
        limits.
    target_sum, dtype
        Total that each cell is scaled to before the logarithm, None for the median of its file;
        what is computed in, None for the precision of the file.
    counts_only, tolerance, most_counts
        Whether values with fractions are refused, how far from a whole number a fraction begins,
        and the most counts that a cell may have.
    real_controls
        Whether the real controls serve both sides; else each file's own.
    bulk_target_sum
        Total that the summed counts of a perturbation are scaled to, for its profile; None where
        the profile is the mean of the cells' lognorm values.
    exact, use_continuity
        Of the rank-sum test: exact p-values for few cells, and the continuity correction.
    least_cpm
        Genes with no more counts per million than this in the controls are not tested.
    fdr, fdr_family
        A gene is significant below this false discovery rate, taken over the tests of a whole
        ``"file"`` or of each ``"perturbation"``.
    fold_change_clip, pseudocount
        The fold change where the control's mean is 0, and its inverse where the other's is; where a
        pseudocount is given, it is added to both means, which are then of scaled counts.
    leave_out_own_gene
        Whether the silenced gene counts in no metric; else in all but pds.
    most_cells, most_entries
        Most cells that an upload may hold, and most values that are stored, zeros among them.
    cells_a_target, upload_controls
        Number of cells that every target must have, None where it is free; whether an upload must
        hold control cells, else it must not.
    context_key
        Column of ``obs`` that an upload must name each cell's context in; None for no such column.
    """

    name: str
    metrics: tuple[str, ...]
    source: str
    limits: Mapping[str, tuple[float, float]]
    top: str = "perfect"
    target_sum: float | None = None
    dtype: str | None = None
    counts_only: bool = False
    tolerance: float | None = None
    most_counts: float = inf
    real_controls: bool = False
    bulk_target_sum: float | None = None
    exact: bool = True
    use_continuity: bool = True
    least_cpm: float | None = None
    fdr: float = 0.05
    fdr_family: str = "file"
    fold_change_clip: float = 20.0
    pseudocount: float | None = None
    leave_out_own_gene: bool = False
    most_cells: int | None = 200_000
    most_entries: int | None = None
    cells_a_target: int | None = None
    upload_controls: bool = True
    context_key: str | None = None


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
    most_cells=None,
    most_entries=4_750_000_000,
    cells_a_target=400,
    upload_controls=False,
    context_key="context",
)
PRESETS = {preset.name: preset for preset in (VCC2025, _GENERALIST, VCC2026)}


def get_preset(preset: str | Preset) -> Preset:
    """Return a preset by a name such as ``"vcc2025"``, else a KeyError; a preset passes through."""
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise KeyError(f"no preset {preset!r}; there is {', '.join(map(repr, PRESETS))}")
    return PRESETS[preset]
