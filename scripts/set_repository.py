"""The address of this repository: read it, rewrite it everywhere, check that it is the right one.

    python scripts/set_repository.py check OWNER/NAME    exit 1 unless the files name OWNER/NAME

It is read from `[project.urls] Repository` in pyproject.toml, its one source. To change it, use
`make publish-as OWNER/NAME`. Only the standard library is used: workflows call the check before
anything is installed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SKIPPED_FOLDERS = {
    ".git", ".venv", "_build", "node_modules", "__pycache__", ".pytest_cache", ".ruff_cache",
}  # fmt: skip
HOST = "https://github.com/"
#: What the files name before they are published.
PLACEHOLDER = "OWNER/vcc-book"
# GitHub's own rules: an owner is letters, digits and single inner hyphens, at most 39 of them.
OWNER = re.compile(r"[A-Za-z0-9](?:-?[A-Za-z0-9]){0,38}")
REPOSITORY = re.compile(r"[A-Za-z0-9._-]{1,100}")
# What stands before OWNER/NAME in an address (GitHub itself, Colab, Binder), and after it.
PREFIX = r"((?:\bgithub\.com[/:]|\bgithubusercontent\.com/|/github/|/gh/))"
END = r"(?![A-Za-z0-9_-])"


def parse_repository(name: str) -> tuple[str, str]:
    """Split OWNER/NAME; a name that GitHub would refuse raises ValueError."""
    owner, slash, repository = name.partition("/")
    if not slash or "/" in repository:
        raise ValueError(f"{name!r} is not a repository: expected OWNER/NAME, such as ada/vcc-book")
    if not OWNER.fullmatch(owner) or len(owner) > 39:
        raise ValueError(
            f"{owner!r} is not an owner: letters, digits and single inner hyphens, at most 39"
        )
    if not REPOSITORY.fullmatch(repository) or repository in {".", ".."}:
        raise ValueError(f"{repository!r} is not a repository name: letters, digits, '.', '_', '-'")
    if repository.endswith(".git"):
        raise ValueError(f"{repository!r}: leave the ending .git out")
    return owner, repository


def read_repository(root: Path) -> str:
    """The present OWNER/NAME, from pyproject.toml."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project["urls"]["Repository"]
    if not address.startswith(HOST):
        raise ValueError(f"pyproject.toml: Repository is {address!r}, not a github.com address")
    name = address.removeprefix(HOST)
    parse_repository(name)
    return name


def pages_address(repository: str) -> str:
    """The address of the published book."""
    owner, name = parse_repository(repository)
    return f"https://{owner if repository == PLACEHOLDER else owner.lower()}.github.io/{name}/"


def text_files(root: Path) -> list[Path]:
    """The files under version control; without git, every file outside the built folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root, capture_output=True, check=False,
    )  # fmt: skip
    if listed.returncode == 0 and listed.stdout:
        paths = [root / name for name in listed.stdout.decode().split("\0") if name]
    else:
        paths = [
            path for path in root.rglob("*")
            if not SKIPPED_FOLDERS.intersection(path.relative_to(root).parts)
        ]  # fmt: skip
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def read_text(path: Path) -> str | None:
    """The text of a file, line ends untouched; None for a binary one."""
    data = path.read_bytes()
    try:
        return None if b"\0" in data else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def rewrite(text: str, old: str, new: str) -> tuple[str, int]:
    """Replace the repository in its addresses and in that of its published pages.

    Only addresses are touched: a repository named `and/or` must not change the prose.
    """
    (old_owner, old_name), (new_owner, new_name) = parse_repository(old), parse_repository(new)
    pages = re.compile(
        r"(?<![\w-])" + re.escape(f"{old_owner}.github.io/{old_name}") + END, re.IGNORECASE
    )
    text, first = pages.subn(f"{new_owner.lower()}.github.io/{new_name}", text)
    # A clone makes a folder of that name, and the next words go there.
    folder = f"( && cd ){re.escape(old_name)}{END}"
    address = re.compile(f"{PREFIX}{re.escape(old)}{END}(?:{folder})?")
    text, second = address.subn(
        lambda match: match[1] + new + (match[2] + new_name if match[2] else ""), text
    )
    return text, first + second


def set_repository(root: Path, new: str) -> dict[str, int]:
    """Rewrite all files below `root`; the number of places changed in each file."""
    parse_repository(new)
    old = read_repository(root)
    changed = {}
    for path in text_files(root) if new != old else []:
        text = read_text(path)
        if text is None:
            continue
        after, places = rewrite(text, old, new)
        if after != text:
            path.write_bytes(after.encode("utf-8"))
            changed[path.relative_to(root).as_posix()] = places
    return changed


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["check"])
    parser.add_argument("repository", metavar="OWNER/NAME")
    options = parser.parse_args(arguments)
    named = read_repository(root)
    if named == options.repository:
        return 0
    print(
        f"error: the files of {options.repository} name {named}: links, badges and what notebooks "
        f"install on Colab lead there. Run `make publish-as {options.repository}`, commit, push",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())
