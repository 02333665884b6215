"""The drawings say what the metrics say, and fit their sheet."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex

from vcc_helpers.course import sketches
from vcc_helpers.plot import GREEN

DRAWINGS = ["challenge", "pseudobulk", "few_shot_split", "pds", "des", "passes"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def words(ax):
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("style", ["vcc_helpers.light", "vcc_helpers.dark"])
@pytest.mark.parametrize("name", DRAWINGS)
def test_all_words_lie_on_the_sheet_and_apart(name, style):
    with plt.style.context(style):
        ax = getattr(sketches, name)()
    ax.figure.canvas.draw()
    sheet = ax.figure.bbox
    boxes = [text.get_window_extent() for text in ax.texts]
    assert all(sheet.x0 <= box.x0 and box.x1 <= sheet.x1 for box in boxes)
    for i, one in enumerate(boxes):
        for other in boxes[:i]:
            assert not one.overlaps(other), (words(ax)[i], words(ax)[boxes.index(other)])


def test_the_ranking_of_pds_is_that_of_the_distances():
    ax = sketches.pds()
    points = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    star = next(line.get_xydata()[0] for line in ax.lines if line.get_marker() == "*")
    distance = np.linalg.norm(np.array(points) - star, axis=1)
    assert (np.diff(distance) > 0).all()  # drawn in the order of the list
    ranked = [text for text in words(ax) if text[:1].isdigit() and "." in text[:2]]
    place = next(i for i, text in enumerate(ranked) if "its own" in text)
    assert f"{place} of 5 are nearer:  PDS = 1 - {place}/5" in words(ax)


def test_the_overlap_of_des_is_counted():
    _, given = plt.subplots()
    assert (ax := sketches.des(given)) is given
    green = [p.get_y() for p in ax.patches if to_hex(p.get_facecolor()) == GREEN.lower()]
    real, right = green.count(17), green.count(9)
    assert f"{right} of {real} are right:  DES = {right}/{real}" in words(ax)


def test_a_split_asks_for_what_is_not_known():
    ax = sketches.few_shot_split()
    assert words(ax).count("?") == 8
