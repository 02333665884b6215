"""Figures to explore: the still figure says what was computed, and names stay text."""

import json
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from vcc_helpers.course import explore
from vcc_helpers.metrics import pds

_COLUMNS = pd.MultiIndex.from_product([["PDS", "MAE"], ["mean", "kNN"]])
#: Results over a setting, and the effects of three targets on two genes.
EXPLORED = (
    pd.DataFrame(
        [[0.5, 0.51, 0.02, 0.031], [0.5, 0.6, 0.02, 0.03], [0.5, np.nan, 0.02, 0.03], [1, 2, 3, 4]],
        pd.Index([1, 2, 4, 8], name="known targets"), _COLUMNS,
    ),
    pd.DataFrame({"X": [0.1, 0.7, -0.3], "Y": [0.2, 0.05, -0.6]}, ["A", "B", "C"]),
)  # fmt: skip


def test_a_still_figure_shows_every_curve_and_the_values_of_its_place():
    table = EXPLORED[0]
    figure = explore.curves(table, at=4)
    assert "over known targets 1 to 8; at 4: PDS 0.5, –, MAE 0.02, 0.03" in repr(figure)
    html = figure._repr_html_()
    assert re.findall(r"<output>(.*?)</output>", html) == ["0.5", "–", "0.02", "0.03", "4"]
    kept = [json.loads(unescape(text)) for text in re.findall(r'<g .*?data-points="(.*?)"', html)]
    told = [[f"{v:.3g}" if v == v else "–" for v in table[column]] for column in table]
    assert [[point[2] for point in points] for points in kept] == told
    assert html.count("<polyline") == 4 and html.count("<svg") == 2
    with pytest.raises(KeyError, match="3"):
        explore.curves(table, at=3)


def test_the_pds_of_a_prediction_is_that_of_the_package():
    effects = EXPLORED[1]
    for at in ((0.5, 0.1), (-0.2, -0.2), (0.1, 0.2)):
        wanted = pds(np.tile(at, (3, 1)), effects.to_numpy(), np.full(3, -1))[1]
        figure = explore.prediction(effects, "B", at)
        assert repr(figure).endswith(f"a prediction for B, PDS {wanted:.3f}")
        assert f"<output>{wanted:.3f}</output>" in figure._repr_html_()


def test_names_are_text():
    bad = "<i>&\"'"
    table = pd.DataFrame({bad: [1.0, 2.0]}, pd.Index([1, 2], name=bad))
    effects = EXPLORED[1].rename(index={"A": bad}).set_axis([bad, "Y"], axis=1)
    for figure in (explore.curves(table, at=1), explore.prediction(effects, bad, (0, 0))):
        assert "<i>" not in figure.html
