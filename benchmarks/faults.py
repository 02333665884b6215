"""Let every command that writes meet every fault; write what was said, and the state afterwards.

    python benchmarks/faults.py

The same faults as in tests/test_faults.py. Writes benchmarks/results/faults.json.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]
os.environ["PYTHONPATH"] = str(ROOT / "tests")  # for the process that the others are forked from
import test_faults as faults  # noqa: E402
from fault_driver import FAULTS  # noqa: E402


def main() -> None:
    """Run all, and write the matrix."""
    rows = []
    for name, command in faults.COMMANDS.items():
        for fault in FAULTS:
            if fault == "none" or (fault.startswith("input") and name == "simulate"):
                continue
            row = {"command": f"vcc-helpers {name}", "fault": fault}
            row |= outcome(fault, name, command)
            rows.append(row)
            print(row["command"], "|", fault, "|", row["status"], row["state"], row["next"])
    path = ROOT / "benchmarks/results/faults.json"
    path.write_text(json.dumps(rows, indent=1) + "\n")


def outcome(fault: str, name: str, command) -> dict:
    """Return exit status, message, and the state: after the fault, and after the next run."""
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "files"
        faults.inputs(folder)
        if fault != "no rights in the folder":
            for out in command.outputs:
                (folder / out).write_bytes(faults.OLD)
        else:
            Path(base).chmod(0o755)
        done = faults.run(fault, command, folder)
        kept = [not (folder / o).exists() or (folder / o).read_bytes() == faults.OLD
                for o in command.outputs]  # fmt: skip
        left = faults.left_over(folder, command) - faults.KEPT.get(name, set())
        said = done.stderr.decode(errors="replace").replace(f"{folder}/", "").replace(base, "...")
        if fault.startswith("input"):
            faults.inputs(folder)
        again = faults.run("none", command, folder)
        for out in command.outputs:
            faults.content(folder / out)
        after = faults.left_over(folder, command) - faults.KEPT.get(name, set())
    return {
        "status": done.returncode,
        "said": said.replace("vcc-helpers: ", "").strip(),
        "state": "as before" if all(kept) else "written" if not any(kept) else "one of two written",
        "left": len(left),
        "next": "finishes" if again.returncode == 0 and not after else f"status {again.returncode}",
    }


if __name__ == "__main__":
    main()
