"""Compare our scores with the official ones on many seeded random cases, and write the counts.

    python benchmarks/parity.py --cases 200 --contexts 60

Needs the oracle extra (cell-eval 0.6.6, pdex 0.1.27, cell-eval2 0.20.0). Writes
benchmarks/results/parity.json; with 0 cases of a kind its part there stays.
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

RESULT = ROOT / "benchmarks" / "results" / "parity.json"
METRICS = list(parity_cases.OFFICIAL)
VERSIONS = ("cell-eval", "cell-eval2", "pdex", "scipy", "polars", "scanpy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--contexts", type=int, default=60, help="cases of several contexts")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # the oracle's own
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    if asked.cases:
        result |= of_one_context(asked.cases)
    if asked.contexts:
        result["vcc2026_several_contexts"] = of_several(asked.contexts)
    result["versions"] = {name: version(name) for name in VERSIONS}
    text = json.dumps(result, indent=1)
    RESULT.write_text(text + "\n", encoding="utf-8")
    print(text)


def of_one_context(n_cases: int) -> dict:
    """Compare files of one context, by the rules of both seasons."""
    gap = pd.concat(
        [parity_cases.difference(parity_cases.random_case(seed)) for seed in tqdm(range(n_cases))]
    )
    counts = pd.concat(
        [
            parity_cases.difference_2026(parity_cases.random_counts_case(seed)).drop("mean")
            for seed in tqdm(range(n_cases))
        ]
    )
    return {
        "cases": n_cases,
        "perturbations": len(gap),
        "values": len(gap) * len(METRICS),
        "largest_difference": {name: float(gap[name].max()) for name in METRICS},
        "exactly_equal": {
            name: int(((gap[name] == 0) & ~(gap["open_tie"] & (name == "des"))).sum())
            for name in METRICS
        },
        "des_values_where_the_official_order_of_ties_is_open": int(gap["open_tie"].sum()),
        "vcc2026": {"cases": n_cases} | of_values(counts),
    }


def of_several(n_cases: int) -> dict:
    """Compare files of several contexts, each context with the official scorer on it alone."""
    gap = pd.concat(
        {
            seed: parity_cases.difference_of_contexts(parity_cases.random_contexts_case(seed))
            for seed in tqdm(range(n_cases))
        }
    )
    rows = gap.index.get_level_values(2)
    return {
        "cases": n_cases,
        "contexts": int((rows == "mean").sum()),
        **of_values(gap[~rows.isin(["mean", "overall"])]),
        "largest_difference_of_means": float(gap[rows == "mean"].max(axis=None)),
        "largest_difference_of_overall": float(gap[rows == "overall"].max(axis=None)),
    }


def of_values(gap: pd.DataFrame) -> dict:
    """Count the values of perturbations that are compared, and how far they are apart."""
    return {
        "perturbations": len(gap),
        "values": gap.size,
        "largest_difference": gap.max().to_dict(),
        "exactly_equal": (gap == 0).sum().to_dict(),
    }


if __name__ == "__main__":
    main()
