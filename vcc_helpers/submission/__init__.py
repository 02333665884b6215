"""Check a prediction before it is handed in, fix what is safe, and pack it."""

from . import archive as archive
from .check import Report, check
from .pack import mend, prep, thin
from .rules import Problem

__all__ = [
    "Problem",
    "Report",
    "check",
    "mend",
    "prep",
    "thin",
]
