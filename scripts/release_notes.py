"""Print what the CHANGELOG says of one version, as the notes of its release.

    python scripts/release_notes.py 1.0.0

The version is that of the package, its part of the CHANGELOG has a date, and the notebooks install
its tag: otherwise exit status 1, and nothing is printed, so that no release goes out with another's
notes, without any, or with notebooks of something else.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def notes(changelog: str, version: str) -> str:
    """Return the part of a CHANGELOG on one version; ValueError where there is none."""
    parts = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    headings = {part.partition("\n")[0]: part.partition("\n")[2].strip() for part in parts}
    for heading, text in headings.items():
        if re.fullmatch(rf"\[?{re.escape(version)}\]? - \d{{4}}-\d\d-\d\d", heading):
            if not text:
                raise ValueError(f"the CHANGELOG says nothing about {version}")
            return text
    seen = ", ".join(headings) or "none"
    raise ValueError(
        f"the CHANGELOG has no part '## {version} - YYYY-MM-DD'; its parts are: {seen}. "
        "Give the one that is unreleased this version and a date first"
    )


def check_notebooks(folder: Path, version: str) -> None:
    """Raise ValueError if a notebook's first cell installs anything but the tag of this version."""
    for path in sorted(folder.glob("*.ipynb")):
        if f"@v{version}" not in path.read_text(encoding="utf-8"):
            raise ValueError(f"{path.name} does not install v{version}: run `make fix`, and commit")


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """Print the notes, or say why there are none; return the exit status."""
    parser = argparse.ArgumentParser(description="Print the release notes of a version.")
    parser.add_argument("version", help="such as 1.0.0, or the tag, v1.0.0")
    version = parser.parse_args(arguments).version.removeprefix("v")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    try:
        if version != project["version"]:
            raise ValueError(f"pyproject.toml says version {project['version']}, not {version}")
        check_notebooks(root / "notebooks", version)
        print(notes((root / "CHANGELOG.md").read_text(encoding="utf-8"), version))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
