"""The results that are kept with the code say what the book says of them."""

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"


def test_the_full_size_went_through_in_four_gigabytes():
    run = json.loads((RESULTS / "streaming.json").read_text())["221273 cells"]
    assert run["memory"] == "4GB" and run["source"]["genes"] == 18_080
    assert {"read", "pseudobulk", "sort", "pseudobulk, sorted"} <= run["steps"].keys()
    assert all(step["peak_gb"] < 4 for step in run["steps"].values())
    assert all(gap < 1e-6 for gap in run["largest_difference"].values())


def test_every_notebook_ran_on_files_of_the_official_format_within_eight_gigabytes():
    found = json.loads((RESULTS / "notebooks_official.json").read_text())
    assert found.keys() == {path.name for path in NOTEBOOKS.glob("*.ipynb")}
    assert all(record["peak_bytes"] < 8e9 for record in found.values())
