"""Give this copy its own address, check it, and say what is left: `make publish-as OWNER/NAME`.

It sets every badge, link and install line, writes the notebooks' first cells anew, and then looks
whether anything still names the old repository, whether the notebooks keep their rules, and whether
the files that describe the project agree. Run it again at any time: what is right stays as it is.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tomllib
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
import notebook_tools  # noqa: E402
import set_repository as own  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# What the README says only as long as the addresses lead nowhere.
NOTE = re.compile(r"<!-- unpublished -->\n.*?<!-- /unpublished -->\n\n?", re.DOTALL)

LEFT = """\
Left to do by hand, on https://github.com/{repository}:
  1. Commit, and push to main. From then on "Open in Colab" works, and the tests are green.
  2. Settings, Pages, Source: GitHub Actions. Then run the workflow `book`; the book appears at
     {pages}
  3. Only for a class: the variable VCC_CLASSROOM=true and, in an environment `classroom`, the
     secret VCC_TRUTH_PASSPHRASE; book/classroom.md says each step.
  4. Only to release the package: choose its name in pyproject.toml; at the package index add a
     trusted publisher (repository {repository}, workflow release.yml, environment pypi); here
     make an environment `pypi` and the variable VCC_PUBLISH=true. No token is stored.
  5. Only for a DOI: switch the repository on at Zenodo before the first release, and put the
     authors into CITATION.cff and .zenodo.json."""
TAG = """\
  6. The notebooks install {tag}: push that tag too (git push origin {tag})."""


def leftovers(root: Path, old: str) -> list[str]:
    """Lines that still hold an address of the old repository, however it is spelt."""
    owner, name = old.lower().split("/")
    forms = [f"{host}{sep}{owner}/{name}" for host in ("github.com", "githubusercontent.com")
             for sep in "/:"] + [f"/github/{owner}/{name}", f"/gh/{owner}/{name}"]  # fmt: skip
    pattern = re.compile("|".join(map(re.escape, [*forms, f"{owner}.github.io/{name}"])) + own.END)
    found = []
    for path in own.text_files(root):
        for number, line in enumerate((own.read_text(path) or "").lower().splitlines(), start=1):
            if pattern.search(line):
                found.append(f"{path.relative_to(root).as_posix()}:{number} still names {old}")
    return found


def disagreements(root: Path) -> list[str]:
    """Where CITATION.cff, .zenodo.json and pyproject.toml say different things."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((root / ".zenodo.json").read_text(encoding="utf-8"))
    authors = [
        author.get("name") or f"{author['family-names']}, {author['given-names']}"
        for author in cited["authors"]
    ]
    repository = f"https://github.com/{own.read_repository(root)}"
    said = {
        "version": (project["version"], cited["version"]),
        "license": (project["license"], cited["license"], zenodo["license"]),
        "title": (cited["title"], zenodo["title"]),
        "abstract": (cited["abstract"].strip(), zenodo["description"]),
        "keywords": (cited["keywords"], zenodo["keywords"]),
        "authors": (authors, [creator["name"] for creator in zenodo["creators"]]),
        "repository": (project["urls"]["Repository"], cited["repository-code"], repository),
        "pages": (project["urls"]["Documentation"], cited["url"]),
    }
    return [
        f"{what}: pyproject.toml, CITATION.cff and .zenodo.json say {' / '.join(map(str, values))}"
        for what, values in said.items()
        if any(value != values[0] for value in values)
    ]


def publish_as(root: Path, new: str) -> tuple[list[str], list[str]]:
    """Set the address; return the files that changed and what is still wrong."""
    old = own.read_repository(root)
    changed = set(own.set_repository(root, new))
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    if new != own.PLACEHOLDER and NOTE.search(text):
        readme.write_text(NOTE.sub("", text), encoding="utf-8")
        changed.add("README.md")
    notebooks = sorted((root / "notebooks").glob("*.ipynb"))
    changed |= {f"notebooks/{p.name}" for p in notebooks if notebook_tools.fix(p, repository=new)}
    wrong = leftovers(root, old) if old.lower() != new.lower() else []
    wrong += [said for path in notebooks for said in notebook_tools.check(path, repository=new)]
    return sorted(changed), wrong + disagreements(root)


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("repository", metavar="OWNER/NAME")
    name = parser.parse_args(arguments).repository
    try:
        own.parse_repository(name)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    changed, wrong = publish_as(root, name)
    print("\n".join([*changed, f"{len(changed)} files changed; the repository is {name}"]))
    if wrong:
        print("\n".join(f"error: {line}" for line in wrong), file=sys.stderr)
        return 1
    print("Checked: no old address, the notebooks' rules, CITATION.cff and .zenodo.json.\n")
    print(LEFT.format(repository=name, pages=own.pages_address(name)))
    if (tag := notebook_tools.ref_of(notebook_tools.read_version(root))) != "main":
        print(TAG.format(tag=tag))
    return 0


if __name__ == "__main__":
    sys.exit(main())
