"""Write a prediction, check it before it is handed in, fix what is safe, and pack it."""

from . import archive as archive
from .check import Report, check
from .pack import mend, prep, thin
from .rules import Problem
from .write import write

__all__ = [
    "Problem",
    "Report",
    "check",
    "mend",
    "prep",
    "thin",
    "write",
]
