"""A leaderboard for a class: files are read, scored and ranked, and a page shows their doubt."""

from .contest import (
    Entry,
    Scored,
    change_problems,
    check_folder,
    newest,
    prepare,
    publish,
    read_folder,
    read_teams,
    score_folder,
)
from .page import board, page
from .ranking import doubt, rank

__all__ = [
    "Entry",
    "Scored",
    "board",
    "change_problems",
    "check_folder",
    "doubt",
    "newest",
    "page",
    "prepare",
    "publish",
    "rank",
    "read_folder",
    "read_teams",
    "score_folder",
]
