"""The rules of a season, each season one frozen record.

Taught in: notebooks/08_metrics_by_hand.
Needs no sibling module.

>>> VCC2025.metrics
('des', 'pds', 'mae')
>>> get_preset("vcc2025") is VCC2025
True
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preset:
    """Every choice that a season's rules make.

    Attributes
    ----------
    name
        What ``score(preset=...)`` and ``vcc score --preset`` call it.
    metrics
        Names of the metrics, in the order of a score card's columns.
    fdr
        A gene is significant below this false discovery rate.
    fold_change_clip
        The fold change where the control's mean is 0, and its inverse where the other's is.
    source
        The software whose numbers these are.
    """

    name: str
    metrics: tuple[str, ...]
    fdr: float
    fold_change_clip: float
    source: str


VCC2025 = Preset(
    name="vcc2025",
    metrics=("des", "pds", "mae"),
    fdr=0.05,
    fold_change_clip=20.0,
    source="cell-eval 0.6.6 with pdex 0.1.27",
)

#: The rules of 2025 with all seven metrics of the Generalist Prize.
GENERALIST = replace(
    VCC2025,
    name="vcc2025-generalist",
    metrics=(*VCC2025.metrics, "deg_count_spearman", "lfc_spearman", "pr_auc", "pearson_delta"),
)

PRESETS = {preset.name: preset for preset in (VCC2025, GENERALIST)}


def get_preset(preset: str | Preset) -> Preset:
    """Return a preset by name; a preset passes through.

    Parameters
    ----------
    preset
        A name such as ``"vcc2025"``, or a :class:`Preset`.

    Raises
    ------
    KeyError
        No preset has that name.

    Notes
    -----
    Taught in: notebooks/08_metrics_by_hand.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise KeyError(f"no preset {preset!r}; there is {', '.join(map(repr, PRESETS))}")
    return PRESETS[preset]
