"""The rules of the notebooks, kept by every notebook; and the rules themselves, on bad toys."""

import ast
import json
import os
import re
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from threading import Thread

import fork
import nbformat
import notebook_tools as tools
import pytest
import run_in_colab
import yaml
from conftest import ROOT, refuses
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from vcc_helpers.datasets import Size, _open, write_h1_like

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_the_rules_and_has_the_look_of_the_book(path, tmp_path):
    assert tools.check(path) == []
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert not tools.fix(copy)
    cells = nbformat.read(path, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert source.count('plt.style.use("vcc_helpers.light")') == 1
    assert "frameon=" not in source and '"constrained"' not in source  # the style says so
    # The styles of pandas need Jinja, which neither the package nor its first cell brings.
    assert ".style." not in source.replace("plt.style.", "")


def test_every_page_is_in_the_toc_once_and_exists():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    notebooks = [f"notebooks/{path.stem}" for path in NOTEBOOKS]
    assert [name for name in chapters if name.startswith("notebooks/")] == notebooks
    assert [path.name[:2] for path in NOTEBOOKS] == [f"{i + 1:02d}" for i in range(len(NOTEBOOKS))]
    pages = [f"book/{path.stem}" for path in (ROOT / "book").glob("*.md")]
    assert sorted([toc["root"], *chapters]) == sorted(pages + notebooks)


@pytest.mark.parametrize("page", tools.LISTED)
def test_a_page_lists_the_chapters_under_their_titles(page, tmp_path, monkeypatch, capsys):
    """And check says when it does not."""
    text, right = tools.listed(page)
    assert text == right
    start = f"colab.research.google.com/github/{tools.read_repository(ROOT)}/blob/main/notebooks/"
    assert re.findall(rf"{start}(\w+\.ipynb)\) \|", text) == [path.name for path in NOTEBOOKS]
    for name in ("pyproject.toml", "book/_toc.yml", *tools.LISTED):
        (copy := tmp_path / name).parent.mkdir(exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setattr(tools, "ROOT", tmp_path)
    for action, code, said in (("check", 1, f"{page}: the"), ("fix", 0, page), ("check", 0, "")):
        assert tools.main([action]) == code
        assert said in "".join(capsys.readouterr())


def test_the_reference_lists_every_module():
    """Each has a page of its own, and a line on the first page that says what it itself says."""
    package = ROOT / "vcc_helpers"
    files = {p.stem: p for p in package.glob("*.py")}
    files |= {p.parent.name: p for p in package.glob("*/__init__.py")}
    said = {
        name: ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
        for name, path in files.items()
        if not name.startswith("_")
    }
    lines = (ROOT / "book/api.md").read_text(encoding="utf-8").splitlines()
    rows = sorted(line for line in lines if "](api/" in line)
    expected = {f"| [{n}](api/{n}.md) | {text.replace('``', '`')} |" for n, text in said.items()}
    assert rows == sorted(expected)
    pages = {path.stem: path for path in (ROOT / "book/api").glob("*.md")}
    assert set(pages) == set(said)
    for name, path in pages.items():
        assert f".. automodule:: vcc_helpers.{name}\n" in path.read_text(encoding="utf-8")


KEEP = ["numpy", "pandas", "scipy", "scikit-learn", "matplotlib", "h5py", "numba"]
COLAB = "import sys, types; sys.modules['google.colab'] = types.ModuleType('colab')\n"


def run_first_cell(folder, cell, *, before=COLAB):
    """Run the cell as Colab does, with a pip that only notes what it is told to do."""
    (folder / "pip").mkdir()
    (folder / "pip/__init__.py").touch()
    note = "import json, sys; json.dump(sys.argv[1:], open('asked.json', 'w'))"
    (folder / "pip/__main__.py").write_text(note)
    done = subprocess.run(
        [sys.executable, "-c", before + cell], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(folder)},
    )  # fmt: skip
    asked = folder / "asked.json"
    return done, json.loads(asked.read_text()) if asked.exists() else None


@pytest.mark.parametrize("repository", ["ada/book", tools.PLACEHOLDER])
def test_the_first_cell_is_short_and_does_nothing_elsewhere(repository, tmp_path):
    cell = tools.first_cell(repository, "1.0.0", cluster=True)
    assert len(cell.splitlines()) <= tools.MAX_FIRST
    done, asked = run_first_cell(tmp_path, cell, before="")
    assert (done.returncode, done.stdout, done.stderr, asked) == (0, "", "", None)


@pytest.mark.parametrize(("number", "ref"), [("1.2.0", "v1.2.0"), ("1.3.0.dev0", "main")])
def test_the_first_cell_installs_its_release_keeps_what_is_there_and_says_one_line(
    number, ref, tmp_path
):
    done, asked = run_first_cell(tmp_path, tools.first_cell("ada/book", number))
    assert done.stdout == f"ready: vcc_helpers {version('vcc-helpers')}\n" and not done.stderr
    pins = [f"{name}=={version(name)}" for name in KEEP]
    package = "vcc-helpers @ git+https" + f"://github.com/ada/book@{ref}"
    assert asked == ["install", "-qq", "scanpy", package, *pins]


def test_chapter_12_installs_what_dask_needs_for_processes(tmp_path):
    with_dask = [path.name for path in NOTEBOOKS if "distributed" in path.read_text()]
    assert with_dask == ["11_scale_out.ipynb"]
    notebook = tools.read(ROOT / "notebooks/11_scale_out.ipynb")
    _, asked = run_first_cell(tmp_path, tools.expected_first_cell(notebook, "ada/book"))
    assert asked[3].startswith("vcc-helpers[cluster] @ ")
    assert f"dask=={version('dask')}" in asked


class Ranges(BaseHTTPRequestHandler):
    """Send the bytes that are asked for."""

    def do_GET(self):
        content = (self.server.folder / os.path.basename(self.path)).read_bytes()
        start, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        body = content[start : last + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(content)}")
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def panel_cells(folder, *, n_targets=(120, 20, 5)):
    """Files of the official layout with few cells and genes, which say they are simulated."""
    size = Size(n_genes=400, n_targets=n_targets, n_controls=150, cells_per_target=20)
    for part in ("train", "validation"):
        write_h1_like(folder / _open.FILE_NAMES[part], size=size, part=part)
    return folder


SWITCHED = [path for path in NOTEBOOKS if "open_world(" in path.read_text()]
AFTER = """
import os, vcc_helpers
print("VCC_DATA" in os.environ, vcc_helpers.datasets.open_world())
"""


def test_the_chapters_of_the_challenges_size_offer_real_cells_and_default_to_none():
    assert [int(path.name[:2]) for path in SWITCHED][:3] == [3, 4, 6]
    for path in SWITCHED:
        cell = tools.code_cells(tools.read(path))[0].source
        assert cell.endswith(tools.SWITCH) and "\nREAL_H1 = False  # @param" in cell


def test_one_switch_fetches_a_panel_and_the_chapter_opens_it(tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Ranges)
    (official := tmp_path / "official").mkdir()
    server.folder = panel_cells(official, n_targets=(6, 4, 2))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    stub = (
        "import os, functools\nfrom vcc_helpers import datasets\n"
        "os.environ.pop('VCC_DATA', None)\nos.environ['NO_PROXY'] = '127.0.0.1'\n"
        f"datasets.fetch_h1 = functools.partial(datasets.fetch_h1, base_url={address!r})\n"
    )
    cell = tools.first_cell("ada/book", "1.0.0", switch=True)
    on = cell.replace("REAL_H1 = False", "REAL_H1 = True")
    done = subprocess.run(
        [sys.executable, "-c", stub + on + AFTER], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("True World, SIMULATED") and "H1, validation" in done.stdout
    names = sorted(path.name for path in (tmp_path / "data/h1-panel").glob("*.h5ad"))
    assert names == ["adata_Training.h5ad", "adata_Validation.h5ad"]


def shown(notebook, folder, **variables):
    """Run a notebook with a Python that looks like Colab; return what its first cell shows."""
    (folder / "google/colab").mkdir(parents=True)
    (folder / "google/colab/__init__.py").touch()
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    done = run_in_colab.run(path, sys.executable, PYTHONPATH=str(folder), **variables)
    assert run_in_colab.problems(done)
    assert [cell.execution_count for cell in done.cells] == [1, None]  # nothing runs after it
    (output,) = done.cells[0].outputs
    return output.traceback


def with_first_cell(repository):
    cell = tools.first_cell(repository, "1.0.0")
    return new_notebook(cells=[new_code_cell(cell), new_code_cell("import scanpy")])


@pytest.mark.skipif(sys.platform == "win32", reason="the addresses are those of POSIX systems")
def test_where_the_installation_fails_one_line_says_why_and_what_to_do(tmp_path):
    fork.git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    fork.git(tmp_path, "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    elsewhere = fork.instead_of_github(f"file://{tmp_path}")
    (line,) = shown(with_first_cell(fork.NAME), tmp_path, **elsewhere)
    again = " - run this cell again; else read " + re.escape(tools.pages_address(fork.NAME))
    assert re.fullmatch(f"not ready: pathspec 'v1.0.0' did not match.*{again}", line), line


def test_a_copy_without_an_address_refuses_in_one_line(tmp_path):
    (line,) = shown(with_first_cell(tools.PLACEHOLDER), tmp_path)
    assert line.startswith("not ready: this copy names no repository")
    assert "make publish-as OWNER/NAME" in line and "published book" in line


REPOSITORY = "ada/book"
CELL = tools.first_cell(REPOSITORY, tools.read_version())
SOLUTION = """<details>
<summary>Solution 03-{n}</summary>

Plain words.

```python
numbers = [1, 2]
answer = sum(numbers)
```

</details>"""


def good():
    intro = "# Build a toy\n\nWhat you will do, learn and need. Time, memory and data: little."
    alt = {"mystnb": {"image": {"alt": "A line that rises from one to two."}}}
    cells = [
        new_markdown_cell(intro),
        new_code_cell(CELL, metadata={"tags": ["hide-input"]}),
        new_code_cell("from vcc_helpers.course.exercises import check"),
        new_code_cell("plot.line([1, 2])", metadata=alt),
    ]
    for n in (1, 2):
        cells.append(new_markdown_cell(f"## Exercise {n}\n\nWhat is one and two?"))
        cells.append(new_code_cell(f'answer = ...\ncheck("03-{n}", answer)'))
        cells.append(new_markdown_cell(SOLUTION.format(n=n)))
    cells.append(new_markdown_cell("## Key takeaways\n\n- One.\n\n## Further reading\n\n- Two."))
    return new_notebook(cells=cells, metadata={"kernelspec": dict(tools.KERNEL)})


def violations(notebook, tmp_path, name="03_toy.ipynb"):
    (tmp_path / name).write_text(nbformat.v4.writes(notebook), encoding="utf-8")
    return tools.check(tmp_path / name, repository=REPOSITORY)


def edit(number, **parts):
    return lambda notebook: notebook.cells[number].update(parts)


def text(words):
    return lambda notebook: notebook.cells.append(new_markdown_cell(words))


def code(words):
    return lambda notebook: notebook.cells.append(new_code_cell(words))


def setting(**metadata):
    return lambda notebook: notebook.metadata.update(metadata)


def solution(old, new):
    return edit(6, source=SOLUTION.format(n=1).replace(old, new, 1))


def older_format(notebook):
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        cell.pop("id", None)


NOWHERE = "[x](https://ada.github.io/book/book/no.html)"
JULIA = setting(kernelspec={"name": "julia", "display_name": "J"})
OUTPUT = edit(2, outputs=[nbformat.v4.new_output("stream", text="hello")])
ERRORS = setting(execution={"allow_errors": True})
BAD = [
    (JULIA, "kernel"), (ERRORS, "allow_errors"), (older_format, "4.5"), (OUTPUT, "output"),
    (edit(2, execution_count=3), "output"),
    (edit(2, metadata={"tags": ["raises-exception"]}), "hide a failure"),
    (edit(1, source="import sys"), "canonical"), (edit(1, metadata={}), "tags"),
    (lambda n: n.cells.insert(1, n.cells.pop(2)), "canonical"),
    (lambda n: n.cells[3].update(id=n.cells[2].id), "id"),
    (code("'google.colab'"), "second cell"), (code("x = 1\n" * 13), "13 lines"),
    (code("plt.subplots()"), "alt text"), (code("warnings.simplefilter('ignore')"), "warnings"),
    (text(" "), "empty"), (text("```{note}\nx\n```"), "directive"), (text("{cite}`x`"), "role"),
    (text("a\n\n+++\n\nb"), "block break"), (text("[x](../book/glossary.md)"), "run fix"),
    (text("[x](../README.md)"), "neither"), (text(NOWHERE), "does not have"),
    (text("# Build another"), "first-level"), (text(SOLUTION.format(n=9)), "belongs to no"),
    (edit(0, source="# A toy\n\ndo learn need time memory data"), "'A'"),
    (edit(0, source="# Build a toy\n\ndo learn need data"), "time, memory"),
    (edit(-1, source="## Further reading\n\nx"), "Key takeaways"),
    (lambda n: n.update(cells=n.cells[:7] + n.cells[10:]), "1 exercise stubs"),
    (edit(5, source='answer = ...\ncheck("04-1", answer)'), "04-1"),
    (edit(5, source='answer = 3\ncheck("03-1", answer)'), "two lines"),
    (edit(6, source="Think."), "no folded solution"), (edit(3, metadata={}), "alt text"),
    (solution("sum(", "sum(("), "valid"), (solution("answer =", "result ="), "does not assign"),
    (solution("numbers", "x = 1\n" * 12 + "numbers"), "longer"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), BAD)
def test_a_bad_notebook_is_found(change, word, tmp_path):
    notebook = good()
    assert violations(notebook, tmp_path) == []
    assert any("name" in problem for problem in violations(notebook, tmp_path, "03 Toy.ipynb"))
    change(notebook)
    found = violations(notebook, tmp_path)
    assert any(word in problem for problem in found), found


def test_the_next_chapter_is_called_by_its_title(tmp_path):
    (tmp_path / "04_next.ipynb").write_text(nbformat.v4.writes(good()), encoding="utf-8")
    notebook = good()
    text("Next: [Something](04_next.ipynb), or [that](05_gone.ipynb).")(notebook)
    assert "run fix" in violations(notebook, tmp_path)[0]
    path = tmp_path / "03_toy.ipynb"
    tools.fix(path, repository=REPOSITORY)
    assert tools.check(path, repository=REPOSITORY) == []
    assert "Next: [Build a toy](04_next.ipynb), or [that]" in path.read_text(encoding="utf-8")


def test_plain_things_are_let_pass(tmp_path):
    notebook = good()
    text("`{curly}`, $x_{i}$, $$y$$, {1, 2}, `%pip`\n\n```python\n# no title\n```")(notebook)
    code("import matplotlib.pyplot as plt\nplt.rcParams['a'] = 1")(notebook)
    assert violations(notebook, tmp_path) == []


LINKS = text("[a](../book/glossary.md), [b](../book/results.md#at-a-glance)")
FIXED = [
    OUTPUT, edit(2, execution_count=3), edit(1, metadata={}), older_format, JULIA, ERRORS, LINKS,
    edit(1, source="import sys\n'google.colab' in sys.modules"), text(" "),
    lambda notebook: notebook.cells.pop(1),
]  # fmt: skip


@pytest.mark.parametrize("change", FIXED)
def test_fix_repairs_and_then_rests(change, tmp_path, capsys):
    notebook, path = good(), tmp_path / "03_toy.ipynb"
    change(notebook)
    assert violations(notebook, tmp_path)
    assert tools.main(["check", str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("03_toy.ipynb: ") and "1 notebooks checked" in captured.out
    assert tools.fix(path, repository=REPOSITORY)
    assert tools.check(path, repository=REPOSITORY) == []
    assert not tools.fix(path, repository=REPOSITORY)


def test_solutions_are_read_and_put_in():
    notebook = good()
    assert tools.exercises(notebook) == ["03-1", "03-2"]
    assert tools.solution_of(notebook, "03-2") == "numbers = [1, 2]\nanswer = sum(numbers)"
    refuses("03-7", tools.solution_of, notebook, "03-7", error=KeyError)
    added = tools.solved(notebook).cells[len(notebook.cells) :]
    assert [cell.metadata.tags for cell in added] == [["solution"]] * 2
    start = 'numbers = [1, 2]\nanswer = sum(numbers)\nsaid = check("03-1", answer)\nassert '
    assert added[0].source.startswith(start)
