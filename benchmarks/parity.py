"""Compare our scores with the official ones on many seeded random cases, and write the counts.

    python benchmarks/parity.py --cases 200 --contexts 60

Needs the oracle extra (cell-eval 0.6.6, pdex 0.1.27, cell-eval2 0.20.0). Writes
benchmarks/results/parity.json.
"""

import argparse
import json
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
import parity_cases  # noqa: E402

METRICS = list(parity_cases.OFFICIAL)
VERSIONS = ("cell-eval", "cell-eval2", "pdex", "scipy", "polars", "scanpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--contexts", type=int, default=60, help="cases of several contexts")
    asked = parser.parse_args()
    n_cases = asked.cases
    warnings.simplefilter("ignore")  # the oracle's own
    gap = pd.concat(
        [parity_cases.difference(parity_cases.random_case(seed)) for seed in tqdm(range(n_cases))]
    )
    counts = pd.concat(
        [
            parity_cases.difference_2026(parity_cases.random_counts_case(seed)).drop("mean")
            for seed in tqdm(range(n_cases))
        ]
    )
    several = pd.concat(
        {
            seed: parity_cases.difference_of_contexts(parity_cases.random_contexts_case(seed))
            for seed in tqdm(range(asked.contexts))
        }
    )
    rows = several.index.get_level_values(2)
    values = several[~rows.isin(["mean", "overall"])]
    result = {
        "cases": n_cases,
        "perturbations": len(gap),
        "values": len(gap) * len(METRICS),
        "largest_difference": {name: float(gap[name].max()) for name in METRICS},
        "exactly_equal": {
            name: int(((gap[name] == 0) & ~(gap["open_tie"] & (name == "des"))).sum())
            for name in METRICS
        },
        "des_values_where_the_official_order_of_ties_is_open": int(gap["open_tie"].sum()),
        "vcc2026": {
            "cases": n_cases,
            "perturbations": len(counts),
            "values": counts.size,
            "largest_difference": counts.max().to_dict(),
            "exactly_equal": (counts == 0).sum().to_dict(),
        },
        "vcc2026_several_contexts": {
            "cases": asked.contexts,
            "contexts": int((rows == "mean").sum()),
            "perturbations": len(values),
            "values": values.size,
            "largest_difference": values.max().to_dict(),
            "exactly_equal": (values == 0).sum().to_dict(),
            "largest_difference_of_means": float(several[rows == "mean"].max(axis=None)),
            "largest_difference_of_overall": float(several[rows == "overall"].max(axis=None)),
        },
        "versions": {name: version(name) for name in VERSIONS},
    }
    text = json.dumps(result, indent=1)
    (ROOT / "benchmarks" / "results" / "parity.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
