"""Run a notebook's code outside Jupyter, and print all that it shows: cell_runner.py NOTEBOOK"""

import ast
import json
import sys
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")


def run(path: Path) -> None:
    """Print what each cell prints, and the value of its last line as Jupyter would show it."""
    import matplotlib.pyplot as plt

    space = {"__name__": "__main__"}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or cell["id"] == "colab-setup":
            continue
        tree = ast.parse(source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), space)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), path.name, "eval"), space)
            if value is not None and not source.rstrip().endswith(";"):
                print(value)
        for number in plt.get_fignums():
            for ax in plt.figure(number).axes:
                print(ax.get_title(), [round(float(v), 6) for v in ax.dataLim.bounds])
        plt.close("all")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    import pandas as pd

    pd.set_option("display.width", 1000, "display.max_columns", 50, "display.precision", 6)
    run(Path(sys.argv[1]))
