"""Keep the notebooks to their rules: check them, repair what can be repaired, read exercises.

    python scripts/notebook_tools.py check [NOTEBOOK ...]     exit 1 and one line a violation
    python scripts/notebook_tools.py fix [NOTEBOOK ...]       first cell, outputs, ids, kernel
    python scripts/notebook_tools.py solve NOTEBOOK ...       add each solution after the last cell

This file is the only place that holds the first Colab cell; `fix` writes it into the notebooks.
README.md and book/index.md list all chapters between two comments; `fix` writes these lists anew.
An exercise is a stub cell followed by its folded solution:

    answer = ...                      <details>
    check("03-1", answer)             <summary>Solution 03-1</summary>

                                      (a fenced python block that assigns `answer`)

                                      </details>
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import tomllib
from pathlib import Path

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parent))
from set_repository import PLACEHOLDER, pages_address, read_repository  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]

FIRST_CELL = """\
# On Colab: install what is missing, keep what is there. Anywhere else: nothing.
import re
import subprocess
import sys
from importlib.metadata import version

if "google.colab" in sys.modules:
    keep = ["numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "h5py", "numba"]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "scanpy"]
    pip += ["vcc-helpers @ git+https://github.com/{repository}@{ref}"]
    pip += [f"{name}=={version(name)}" for name in keep]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        reasons = re.findall(r"(?:ERROR|error|fatal): (?!subprocess)(.+)", done.stderr)
        why = (reasons or ["pip failed"])[-1]
        stop = RuntimeError(f"not ready: {why} - run this cell again; else read {pages}")
        stop._render_traceback_ = lambda: [str(stop)]  # this line is all that is shown
        raise stop
    print("ready: vcc_helpers", version("vcc-helpers"))"""
# In a copy that was never published there is nothing to install from.
REFUSAL = """\
# On Colab: install what is missing, keep what is there. Anywhere else: nothing.
import sys

if "google.colab" in sys.modules:
    stop = RuntimeError(
        "not ready: this copy names no repository to install from. Open the notebook from the "
        "published book; if the copy is yours, run `make publish-as OWNER/NAME` in it and push"
    )
    stop._render_traceback_ = lambda: [str(stop)]  # this line is all that is shown
    raise stop"""
# In the chapters on cells of the challenge's size; the remark makes it a box to tick on Colab.
SWITCH = """\


REAL_H1 = False  # @param {type:"boolean"}
if REAL_H1:  # 60 real cells per target, 2,000 controls: 1.2 GB in data/h1-panel, once
    import os

    from vcc_helpers.datasets import fetch_h1
    for part in ("train", "validation"):
        panel = fetch_h1(part, cells_per_target=60)
    os.environ["VCC_DATA"] = str(panel.parent.resolve())"""
FIRST_CELL_ID = "colab-setup"
FIRST_CELL_TAGS = ["hide-input"]
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}

MAX_LINES = 12
MAX_FIRST = 30
MIN_EXERCISES = 2
MIN_ALT = 20
TITLE_VERBS = {
    "Adapt", "Build", "Check", "Choose", "Compute", "Fit", "Load", "Make", "Measure", "Predict",
    "Score", "Run", "Simulate", "Submit", "Turn", "Work", "Write",
}  # fmt: skip
SECTIONS = ("Key takeaways", "Further reading")
OPENING = ("do", "learn", "need", "time", "memory", "data")

NAME = re.compile(r"(\d\d)_[a-z0-9_]+\.ipynb")
DRAWS = re.compile(r"\bplot\.\w+\(|\bplt\.(?!rcParams|style|close)\w+|\.(?:plot|hist|imshow)\(")
#: Tag of the cells that `solve` adds; the book is built without them.
SOLVED = "solution"
STUB = re.compile(r'answer = \.\.\.\ncheck\("(\d\d-\d+)", answer\)')
# Between the tags anything plain may stand beside the code; the blank lines make Markdown of it.
SOLUTION = re.compile(
    r"<details>\n<summary>Solution (\d\d-\d+)</summary>\n\n(.*?)\n\n</details>", re.DOTALL
)
SOLUTION_CODE = re.compile(r"^```python\n(.*?)\n```$", re.DOTALL | re.MULTILINE)
FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^()\s]+)\)")
# The title of the chapter that follows, where a chapter names it.
NEXT = re.compile(r"(?<=Next: \[)[^\]]+(?=\]\((\d\d_\w+\.ipynb)\))")
# A page of the book, as it would be linked from a notebook's folder.
OWN_PAGE = re.compile(r"\.\./(book/[a-z0-9_/]+)\.md")
NOT_PLAIN = {
    "a MyST directive": re.compile(r"^\s*(?:`{3,}|~{3,}|:{3,})\{[^}]+\}", re.MULTILINE),
    "a MyST role": re.compile(r"(?<!`)\{[a-zA-Z][\w:+.-]*\}`[^`]+`"),
    "a MyST label": re.compile(r"^\([\w-]+\)=\s*$", re.MULTILINE),
    "a MyST comment or block break": re.compile(r"^(?:%\s|\+\+\+)", re.MULTILINE),
    "a GitHub alert": re.compile(r"^>\s*\[!\w+\]", re.MULTILINE),
}


def read_version(root: Path = ROOT) -> str:
    """The version of the package that the notebooks belong to."""
    content = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    return content["project"]["version"]


def first_cell(
    repository: str, version: str, *, cluster: bool = False, switch: bool = False
) -> str:
    """The text of the first code cell: it installs the release that the notebook belongs to.

    Between two releases, when the version ends in ``.dev0``, it installs the branch main. With
    `cluster`, it installs what Dask needs for worker processes, of the version that Colab has.
    With `switch`, it offers real cells.
    """
    end = SWITCH if switch else ""
    if repository == PLACEHOLDER:
        return REFUSAL + end
    text = FIRST_CELL.replace("{repository}", repository).replace("{ref}", ref_of(version))
    text = text.replace("{pages}", pages_address(repository))
    if cluster:
        text = text.replace("vcc-helpers @", "vcc-helpers[cluster] @")
        text = text.replace('"numba"]', '"numba", "dask"]')
    return text + end


def ref_of(version: str) -> str:
    """The tag of a released version; the branch main for one that is being developed."""
    return "main" if ".dev" in version else f"v{version}"


def expected_first_cell(notebook: nbformat.NotebookNode, repository: str) -> str:
    """The first cell that this notebook must have: of chapter 11, with Dask."""
    code = "\n".join(cell.source for cell in code_cells(notebook)[1:])
    needs = {"cluster": "distributed" in code, "switch": "open_world(" in code}
    return first_cell(repository, read_version(), **needs)


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook exactly as it stands in the file: nothing converted, nothing repaired."""
    return nbformat.reader.reads(path.read_text(encoding="utf-8"))


def title_of(path: Path) -> str:
    """The first line of a notebook, which names its chapter everywhere."""
    return read(path).cells[0].source.splitlines()[0].removeprefix("# ")


def next_titled(text: str, folder: Path) -> str:
    """The text with the chapter after "Next:" under its title, if its notebook is there."""

    def title(found: re.Match) -> str:
        path = folder / found[1]
        return title_of(path) if path.exists() else found[0]

    return NEXT.sub(title, text)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def exercises(notebook: nbformat.NotebookNode) -> list[str]:
    """Ids of the exercises, in order: the code cells that are exactly a stub."""
    found = [STUB.fullmatch(cell.source.strip()) for cell in code_cells(notebook)]
    return [match.group(1) for match in found if match]


def solutions(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """The code of every folded solution, by exercise id."""
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    found = {}
    for exercise_id, body in SOLUTION.findall("\n\n".join(markdown)):
        blocks = SOLUTION_CODE.findall(body)
        if len(blocks) == 1:
            found[exercise_id] = blocks[0]
    return found


def solution_of(notebook: nbformat.NotebookNode, exercise_id: str) -> str:
    """The code of one exercise's folded solution."""
    found = solutions(notebook)
    if exercise_id not in found:
        raise KeyError(f"no solution of exercise {exercise_id}; there are {sorted(found)}")
    return found[exercise_id]


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy as of a reader who runs all cells, then does the exercises: each must be right."""
    result = copy.deepcopy(notebook)
    for number in exercises(notebook):
        judged = f'said = check("{number}", answer)\nassert said.status == "right", said'
        code = f"{solution_of(notebook, number)}\n{judged}"
        result.cells.append(nbformat.v4.new_code_cell(code, metadata={"tags": [SOLVED]}))
    return result


# --- The rules. Each yields what is wrong, in words that say how to mend it. ---------------------


def rule_format(notebook, _path, _repository):
    if notebook.nbformat != 4 or notebook.nbformat_minor < 5:
        yield f"format is {notebook.nbformat}.{notebook.nbformat_minor}, not 4.5 (run fix)"
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernel is not python3 (run fix)"
    if "allow_errors" in str(notebook.metadata):
        yield "allow_errors in the notebook's metadata: a failing cell would pass unseen"


def rule_ids(notebook, _path, _repository):
    seen = set()
    for number, cell in enumerate(notebook.cells):
        if cell.get("id") is None:
            yield f"cell {number} has no id (run fix)"
        elif cell.id in seen:
            yield f"cell {number}: the id {cell.id!r} is used twice (run fix)"
        seen.add(cell.get("id"))


def rule_stripped(notebook, _path, _repository):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and (cell.outputs or cell.execution_count is not None):
            yield f"cell {number} holds an output or a run number (run fix)"
        tags = cell.metadata.get("tags", [])
        if "raises-exception" in tags or "skip-execution" in tags:
            yield f"cell {number}: the tags {tags} would hide a failure"


def rule_name(_notebook, path, _repository):
    if not NAME.fullmatch(path.name):
        yield "the file's name is not like 12_mean_and_median.ipynb"


def rule_first_cell(notebook, _path, repository):
    cells = code_cells(notebook)
    if not cells or cells[0].source != expected_first_cell(notebook, repository):
        yield "the first code cell is not the canonical Colab cell (run fix)"
    elif cells[0].metadata.get("tags") != FIRST_CELL_TAGS:
        yield f"the first code cell's tags are not {FIRST_CELL_TAGS} (run fix)"
    if sum("google.colab" in cell.source for cell in cells) > 1:
        yield "a second cell deals with Colab"


def rule_length(notebook, _path, _repository):
    for number, cell in enumerate(notebook.cells):
        lines = len(cell.source.strip().splitlines())
        limit = MAX_FIRST if "google.colab" in cell.source else MAX_LINES
        if cell.cell_type == "code" and lines > limit:
            yield f"cell {number} has {lines} lines of code, more than {limit}"
        if not cell.source.strip():
            yield f"cell {number} is empty"


def rule_plain_markdown(notebook, _path, _repository):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        for what, pattern in NOT_PLAIN.items():
            text = cell.source if "directive" in what else FENCE.sub("", cell.source)
            if match := pattern.search(text):
                shown = match.group(0).strip()
                yield f"cell {number} uses {what}, which Colab shows raw: {shown!r}"


def rule_links(notebook, path, repository):
    """Colab opens links to notebooks in the same folder; no other relative link leads anywhere."""
    pages = pages_address(repository)
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        if next_titled(cell.source, path.parent) != cell.source:
            yield f"cell {number} names the next chapter by another title than its own (run fix)"
        for target in LINK.findall(FENCE.sub("", cell.source)):
            where, _, _ = target.partition("#")
            if where.startswith(pages):
                page = where.removeprefix(pages)
                if not (ROOT / page).with_suffix(".md").is_file():
                    yield f"cell {number} links to {target}, a page that the book does not have"
            elif OWN_PAGE.match(where):
                yield f"cell {number} links to {target}, which Colab cannot open (run fix)"
            elif not re.match(r"https?://|mailto:", where) and where and not NAME.fullmatch(where):
                yield f"cell {number} links to {target}, neither a notebook nor a whole address"


def rule_skeleton(notebook, _path, _repository):
    opening = notebook.cells[0] if notebook.cells else None
    title = re.match(r"# (?:\d+\. )?(\w+) ", opening.source) if opening else None
    if opening is None or opening.cell_type != "markdown" or not title:
        yield "the first cell is not Markdown that begins with '# Title'"
        return
    if title.group(1) not in TITLE_VERBS:
        yield f"the title begins with {title.group(1)!r}, not with one of {sorted(TITLE_VERBS)}"
    markdown = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    before_code = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            break
        before_code.append(cell.source.lower())
    missing = [word for word in OPENING if not re.search(rf"\b{word}\b", " ".join(before_code))]
    if missing:
        yield f"before the first code cell nothing is said of: {', '.join(missing)}"
    headings = re.findall(r"^## (.+?)\s*$", "\n".join(markdown), re.MULTILINE)
    for section in SECTIONS:
        if section not in headings:
            yield f"the section '## {section}' is missing"
    if len(re.findall(r"^# ", "\n".join(FENCE.sub("", text) for text in markdown), re.M)) != 1:
        yield "there must be exactly one first-level heading: the title"


def rule_exercises(notebook, path, _repository):
    found, solved_ids = exercises(notebook), solutions(notebook)
    chapter = path.name[:2]
    if len(found) < MIN_EXERCISES:
        yield f"{len(found)} exercise stubs, fewer than {MIN_EXERCISES}"
    expected = [f"{chapter}-{number}" for number in range(1, len(found) + 1)]
    if found != expected:
        yield f"the exercises are {found}, not {expected}"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not re.search(r"(?<![\w.])check\(", cell.source):
            continue
        match = STUB.fullmatch(cell.source.strip())
        if not match:
            yield f"cell {number} calls check() but is not exactly the two lines of a stub"
            continue
        following = "".join(cell.source for cell in notebook.cells[number + 1 : number + 2])
        if f"<summary>Solution {match.group(1)}</summary>" not in following:
            yield f"cell {number} is not followed by the folded solution of {match.group(1)}"
    for missing in sorted(set(found) - set(solved_ids)):
        yield f"exercise {missing} has no folded solution of the agreed form"
    for extra in sorted(set(solved_ids) - set(found)):
        yield f"solution {extra} belongs to no exercise"
    for exercise_id, code in solved_ids.items():
        try:
            compile(code, f"solution {exercise_id}", "exec")
        except SyntaxError as error:
            yield f"solution {exercise_id} is not valid Python: {error.msg}"
        if not re.search(r"^answer\b[^=\n]*=", code, re.MULTILINE):
            yield f"solution {exercise_id} does not assign `answer`"
        if len(code.splitlines()) > MAX_LINES:
            yield f"solution {exercise_id} is longer than {MAX_LINES} lines"


def rule_alt_text(notebook, _path, _repository):
    for number, cell in enumerate(notebook.cells):
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if cell.cell_type == "code" and DRAWS.search(cell.source) and len(alt) < MIN_ALT:
            yield f"cell {number} draws a figure but has no alt text (metadata mystnb.image.alt)"


def rule_errors_hidden(notebook, _path, _repository):
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code" and re.search(r"filterwarnings|simplefilter", cell.source):
            yield f"cell {number} hides warnings"


RULES = [value for name, value in list(globals().items()) if name.startswith("rule_")]


def check(path: Path, *, repository: str | None = None) -> list[str]:
    """Every violation of the rules in one notebook, one a line; an empty list is a good one."""
    repository = repository or read_repository(ROOT)
    notebook = read(path)
    for error in nbformat.validator.iter_validate(notebook, relax_add_props=True):
        return [f"{path.name}: not a valid notebook: {error.message.splitlines()[0]}"]
    return [
        f"{path.name}: {problem}" for rule in RULES for problem in rule(notebook, path, repository)
    ]


def fix(path: Path, *, repository: str | None = None) -> bool:
    """Write the canonical first cell, strip outputs, name the kernel, give ids; say if changed.

    Links to pages of the book get the published address, which leads there from Colab, too; the
    chapter after "Next:" gets its title.
    """
    repository = repository or read_repository(ROOT)
    before = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(before, as_version=4)
    cells = [cell for cell in notebook.cells if cell.source.strip()]
    place = next((i for i, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
    if place < len(cells) and "google.colab" in cells[place].source:
        del cells[place]
    setup = nbformat.v4.new_code_cell(id=FIRST_CELL_ID)
    setup.metadata.tags = list(FIRST_CELL_TAGS)
    cells.insert(place, setup)
    setup.source = expected_first_cell(nbformat.v4.new_notebook(cells=cells), repository)
    seen = set()
    for number, cell in enumerate(cells):
        if cell.get("id") is None or cell.id in seen:
            cell.id = f"{path.stem[:2]}-cell-{number}"
        seen.add(cell.id)
        cell.metadata.pop("execution", None)
        if cell.cell_type == "markdown":
            link = "](" + pages_address(repository) + r"\1.html"
            cell.source = re.sub(r"\]\(" + OWN_PAGE.pattern, link, cell.source)
            cell.source = next_titled(cell.source, path.parent)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    result = nbformat.v4.new_notebook(cells=cells)
    result.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    result.nbformat_minor = 5
    nbformat.validate(result)
    after = nbformat.writes(result, indent=1, ensure_ascii=False).rstrip("\n") + "\n"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


#: Where all chapters are listed, and how the notebooks are linked from there.
LISTED = {"README.md": "notebooks/", "book/index.md": "../notebooks/"}
LIST = re.compile(r"(?<=<!-- chapters -->\n).*?(?=<!-- /chapters -->)", re.DOTALL)


def chapter_list(folder: str) -> str:
    """The table of all chapters, in the order of book/_toc.yml, with links into `folder`.

    Minutes are words / 200 and 7 for each exercise, to the nearest 5.
    """
    colab = "https://colab.research.google.com/github/{}/blob/main/notebooks/"
    colab = colab.format(read_repository(ROOT))
    lines = ["| chapter | minutes | |", "| --- | ---: | --- |"]
    toc, heading = (ROOT / "book/_toc.yml").read_text(encoding="utf-8"), ""
    found = {path.stem: path for path in (ROOT / "notebooks").glob("*.ipynb")}
    for caption, name in re.findall(r"caption: (.+)|file: notebooks/(\w+)", toc):
        heading = caption.strip('"') or heading
        if name not in found:
            continue
        lines += [f"| **{heading}** | | |"] * bool(heading)
        notebook, heading = read(found[name]), ""
        text = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")
        minutes = len(re.findall(r"[A-Za-z']+", text)) / 200 + 7 * len(exercises(notebook))
        link = f"[{int(name[:2])} {title_of(found[name])}]({folder}{name}.ipynb)"
        run = f"[open in Colab]({colab}{name}.ipynb)"
        lines.append(f"| {link} | {5 * round(minutes / 5)} | {run} |")
    return "\n".join(lines) + "\n"


def listed(page: str) -> tuple[str, str]:
    """The text of a page that lists all chapters: as it is, and as it must be."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return text, LIST.sub(lambda _: chapter_list(LISTED[page]), text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["check", "fix", "solve"])
    parser.add_argument("paths", nargs="*", type=Path)
    options = parser.parse_args(arguments)
    if options.action == "solve":
        for path in options.paths:
            nbformat.write(solved(read(path)), path)
        return 0
    paths = options.paths or sorted((ROOT / "notebooks").glob("*.ipynb"))
    if options.action == "fix":
        changed = [path.name for path in paths if fix(path)]
        for page in LISTED:
            text, right = listed(page)
            if text != right:
                (ROOT / page).write_text(right, encoding="utf-8")
                changed.append(page)
        print("\n".join(f"rewritten: {name}" for name in changed) or "nothing to repair")
        return 0
    problems = [problem for path in paths for problem in check(path)]
    stale = [page for page in LISTED if len(set(listed(page))) > 1]
    problems += [
        f"{page}: the list of chapters is not that of the notebooks (run fix)" for page in stale
    ]
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(paths)} notebooks checked, {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
