"""What only the course needs: checks of the exercises, exploits of the metrics, drawings."""

from typing import TYPE_CHECKING

from .._lazy import attach

if TYPE_CHECKING:
    from . import exercises, exploits, explore, sketches

__all__ = ["exercises", "exploits", "explore", "sketches"]

__getattr__, __dir__ = attach(__name__, modules=__all__, names={})
