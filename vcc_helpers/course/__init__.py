"""What only the course needs: checks of the exercises, exploits of the metrics, drawings."""

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from . import exercises, exploits, sketches

__all__ = ["exercises", "exploits", "sketches"]

__getattr__, __dir__ = attach(__name__, modules=("exercises", "exploits", "sketches"), names={})
