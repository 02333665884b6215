"""Draw the picture at the top of the README anew: the book's own drawing of the challenge.

python scripts/readme_picture.py [FILE]        by default book/_static/challenge.png
"""

import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from vcc_helpers.course import sketches  # noqa: E402

PICTURE = Path(__file__).resolve().parents[1] / "book/_static/challenge.png"


def draw(path: Path) -> None:
    """Write the picture; without a date or a version in it, so that the same is the same."""
    with plt.style.context("vcc_helpers.light"):
        figure = sketches.challenge().figure
        figure.savefig(path, dpi=110, metadata={"Software": None})
        plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURE)
