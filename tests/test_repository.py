"""The frame of the project: one address, one environment, a clean layout."""

import importlib
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import release_notes
import set_repository
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
REPOSITORY = set_repository.read_repository(ROOT)
OWNER, NAME = REPOSITORY.split("/")

# Any address that could be ours: (owner, name) in the two groups.
SEGMENT = r"([^\s/\"'`()<>\[\]{}|\\,;:*$]+)"
ADDRESSES = [
    re.compile(rf"github\.com[/:]{SEGMENT}/{SEGMENT}"),
    re.compile(rf"githubusercontent\.com/{SEGMENT}/{SEGMENT}"),
    re.compile(rf"{SEGMENT}\.github\.io/{SEGMENT}"),
]
ALWAYS_OURS = [
    re.compile(rf"colab\.research\.google\.com/github/{SEGMENT}/{SEGMENT}"),
    re.compile(rf"mybinder\.org/v2/gh/{SEGMENT}/{SEGMENT}"),
    re.compile(rf"git\+https://[^/\s]+/{SEGMENT}/{SEGMENT}"),
]
OUR_NAMES = re.compile(r"vcc[-_.]?(?:book|helpers)", re.IGNORECASE)
STAND_INS = {"owner", "user", "username", "your-username", "your_username", "yourname", "org"}


def tidy(segment):
    return re.sub(r"[?#@].*$", "", segment).rstrip(".!").removesuffix(".git")


def foreign_spellings(text, owner, name):
    """Addresses in a text that mean this repository but spell it otherwise."""
    found = []
    for pattern in ADDRESSES + ALWAYS_OURS:
        for match in pattern.finditer(text):
            seen_owner, seen_name = tidy(match.group(1)), tidy(match.group(2))
            pages = "github.io" in match.group(0)
            same = (seen_owner.lower() == owner.lower()) if pages else (seen_owner == owner)
            if same and seen_name == name:
                continue
            ours = (
                pattern in ALWAYS_OURS
                or OUR_NAMES.search(seen_name)
                or seen_owner.lower() in STAND_INS | {owner.lower()}
            )
            if ours:
                found.append(match.group(0))
    return found


def texts(root):
    for path in set_repository.text_files(root):
        text = set_repository.read_text(path)
        if text is not None:
            yield path, text


def test_no_other_spelling_of_the_repository():
    found = {
        path.relative_to(ROOT).as_posix(): bad
        for path, text in texts(ROOT)
        if (bad := foreign_spellings(text, OWNER, NAME))
    }
    assert not found


HUB = "https://github" + ".com/"
BAD_SPELLINGS = [
    HUB + "someone/vcc-book",
    HUB + "your-username/vcc",
    HUB + f"{OWNER}/vcc_book",
    HUB + f"{OWNER}/vcc-helpers.git",
    "git@github" + ".com:someone/vcc-book.git",
    "https://colab.research.google" + ".com/github/someone/else/blob/main/x.ipynb",
    "https://mybinder" + ".org/v2/gh/someone/else/main",
    "https://someone.github" + ".io/vcc-book/",
    "pip install git+https" + "://github.com/someone/anything",
    "https://raw.githubusercontent" + ".com/someone/vcc-book/main/x.csv",
]


@pytest.mark.parametrize("text", BAD_SPELLINGS)
def test_the_search_finds_other_spellings(text):
    assert foreign_spellings(text, OWNER, NAME)


@pytest.mark.parametrize(
    "text",
    [
        HUB + "ArcInstitute/cell-eval",
        HUB + f"{OWNER}/{NAME}/blob/main/README.md",
        "https://" + f"{OWNER.lower()}.github" + f".io/{NAME}/book/index.html",
        "git+https" + f"://github.com/{OWNER}/{NAME}.git@main",
    ],
)
def test_the_search_lets_right_addresses_pass(text):
    assert not foreign_spellings(text, OWNER, NAME)


def test_documented_places_do_name_the_repository():
    for name in ["README.md", "_config.yml", "CITATION.cff", "book/index.md", "pyproject.toml"]:
        assert f"/{REPOSITORY}" in (ROOT / name).read_text(encoding="utf-8"), name


@pytest.fixture(scope="module")
def copy_of_the_project(tmp_path_factory):
    root = tmp_path_factory.mktemp("a folder with spaces") / "my book"
    for path in set_repository.text_files(ROOT):
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return root


def run_script(root, repository):
    script = root / "scripts" / "set_repository.py"
    return subprocess.run(
        [sys.executable, str(script), repository], capture_output=True, text=True, check=False
    )


def test_the_script_rewrites_everything_and_only_once(copy_of_the_project):
    root = copy_of_the_project
    for new in ["ada-lovelace/vcc-book", "Grace-Hopper/and.or_2026", "a/b"]:
        before = {path: path.read_bytes() for path in set_repository.text_files(root)}
        done = run_script(root, new)
        assert done.returncode == 0, done.stderr
        changed = {path for path, data in before.items() if path.read_bytes() != data}
        assert {"README.md", "_config.yml", "pyproject.toml"} <= {
            path.relative_to(root).as_posix() for path in changed
        }
        for path in changed:
            assert path.relative_to(root).as_posix() in done.stdout
        assert set_repository.read_repository(root) == new
        owner, name = new.split("/")
        left = [bad for _, text in texts(root) for bad in foreign_spellings(text, owner, name)]
        assert not left
        again = run_script(root, new)
        assert again.returncode == 0
        assert again.stdout.startswith("0 files changed")


def test_rewritten_notebooks_still_have_the_canonical_first_cell(copy_of_the_project):
    new = "ada-lovelace/vcc-book"
    assert run_script(copy_of_the_project, new).returncode == 0
    done = subprocess.run(
        [sys.executable, str(copy_of_the_project / "scripts" / "notebook_tools.py"), "check"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "canonical" not in done.stderr


def test_only_addresses_are_rewritten():
    old, new = "and/or", "ada/book"
    text = "this and/or that, see " + HUB + "and/or and band/or, " + HUB + "and/or-else"
    after, places = set_repository.rewrite(text, old, new)
    assert places == 1
    assert after == text.replace(HUB + "and/or and", HUB + "ada/book and")


@pytest.mark.parametrize(
    "name",
    [
        "", "vcc-book", "/vcc-book", "ada/", "ada/b/c", "-ada/book", "ada-/book", "a--b/book",
        "ada/bo ok", "ada/book.git", "ada/..", "ádà/book", "a" * 40 + "/book", HUB + "ada/book",
    ],
)  # fmt: skip
def test_malformed_names_are_refused(name, copy_of_the_project):
    before = (copy_of_the_project / "README.md").read_bytes()
    done = run_script(copy_of_the_project, name)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert (copy_of_the_project / "README.md").read_bytes() == before


# --- environment and packaging -------------------------------------------------------------------


def requirements(extras=("book", "cluster", "plot", "test")):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {req.name: req for req in map(Requirement, lines) if req.name != PROJECT["name"]}


def environment():
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_environment_parses_strictly_and_agrees_with_pyproject():
    rattler = pytest.importorskip("rattler")
    content = environment()
    assert content["channels"] == ["conda-forge"]
    ours = requirements()
    for line in content["dependencies"]:
        if isinstance(line, dict):
            continue
        spec = rattler.MatchSpec(line, strict=True)
        name = spec.name.normalized
        version = str(spec.version or "").replace(" ", "")
        if name == "python":
            assert set(version.split(",")) == set(PROJECT["requires-python"].split(","))
        elif name in ours:
            assert set(version.split(",")) == set(str(ours[name].specifier).split(",")), name
        else:
            assert name in {"pip", "make"}


def test_environment_installs_this_package_with_extras_that_exist():
    (pip,) = [line["pip"] for line in environment()["dependencies"] if isinstance(line, dict)]
    match = re.fullmatch(r"-e \.\[([a-z,]+)\]", pip[0])
    assert match
    assert set(match.group(1).split(",")) <= set(PROJECT["optional-dependencies"])


def test_core_requirements_have_floors_and_no_exact_pins():
    for name, requirement in requirements(extras=("plot", "book", "test")).items():
        operators = {specifier.operator for specifier in requirement.specifier}
        assert ">=" in operators, name
        assert not operators & {"==", "==="}, name


def test_lock_holds_no_addresses_and_covers_every_requirement():
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    locked = {}
    for line in lines:
        locked.setdefault(canonicalize_name(Requirement(line).name), []).append(Requirement(line))
    wanted = requirements(extras=("plot", "book", "test", "oracle"))
    for version in ["3.11.9", "3.12.9", "3.13.9", "3.14.2"]:
        here = {
            "python_version": version.rsplit(".", 1)[0],
            "python_full_version": version,
            "sys_platform": "linux",
        }
        for name, requirement in wanted.items():
            if requirement.marker and not requirement.marker.evaluate(here):
                continue
            fitting = [
                lock for lock in locked.get(canonicalize_name(name), [])
                if lock.marker is None or lock.marker.evaluate(here)
            ]  # fmt: skip
            assert len(fitting) == 1, (name, version)
            (pin,) = fitting[0].specifier
            assert requirement.specifier.contains(pin.version), (name, version)


def test_every_dependency_says_why_it_is_one():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    entry = re.compile(r"""^ {4}["']([A-Za-z0-9._-]+)[^\[\n]*["'], *# .{8,}$""", re.MULTILINE)
    explained = entry.findall(text)
    extras = PROJECT["optional-dependencies"]
    listed = [*PROJECT["dependencies"], *(r for e in extras if e != "oracle" for r in extras[e])]
    names = {Requirement(text).name for text in listed} - {"vcc-helpers"}
    assert set(explained) == names


def test_no_lock_files_with_addresses_are_committed():
    names = {path.name for path in set_repository.text_files(ROOT)}
    assert not names & {"uv.lock", "pylock.toml", "poetry.lock"}


def test_the_package_carries_its_data_and_a_version():
    import vcc_helpers

    assert vcc_helpers.__version__ == PROJECT["version"]
    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["vcc_helpers"]
    assert list((ROOT / "vcc_helpers" / "datasets" / "data").iterdir())


def test_the_console_script_points_at_something():
    module, function = PROJECT["scripts"]["vcc-helpers"].split(":")
    assert importlib.util.find_spec(module)
    assert callable(getattr(importlib.import_module(module), function))


# --- layout --------------------------------------------------------------------------------------


def test_layout():
    for name in [
        "README.md", "environment.yml", "_config.yml", "pyproject.toml", "Makefile", "LICENSE",
        "CITATION.cff", "CHANGELOG.md", ".gitignore", ".ci/run", "book/_toc.yml",
        "book/references.bib", "book/index.md", ".github/workflows/test.yml",
        ".github/workflows/book.yml",
    ]:  # fmt: skip
        assert (ROOT / name).is_file(), name
    for name in ["book/_static", "notebooks", "vcc_helpers", "tests"]:
        assert (ROOT / name).is_dir(), name


def test_the_readme_opens_with_its_commands_in_order():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    places = [
        readme.index(part)
        for part in ["make book", "make test", "## On Colab", "## With conda", "## Copy one helper"]
    ]
    assert places == sorted(places)


def test_ci_calls_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_versions_and_licence_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert {"message", "title", "authors"} <= set(citation)
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_parse_and_call_make(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert True in workflow or "on" in workflow  # YAML 1.1 reads `on` as true
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all("runs-on" in job for job in workflow["jobs"].values())
    assert all(("uses" in step) != ("run" in step) for step in steps)
    assert workflow["permissions"] == {"contents": "read"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_pinned_and_have_no_more_rights_than_they_need(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    used = [
        (step["uses"], step.get("with", {}))
        for job in workflow["jobs"].values()
        for step in job["steps"]
        if "uses" in step
    ]
    assert used
    for action, options in used:
        assert re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", action), action
        if action.startswith("actions/checkout@"):
            assert options.get("persist-credentials") is False, action


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_pass_the_linters(path):
    for words in (
        ["zizmor", "--offline", "--quiet", "--no-progress"],
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows"],
    ):
        program = Path(sys.executable).with_name(words[0])
        done = subprocess.run(
            [str(program), *words[1:], str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_forms_for_issues_pass_the_schema():
    folder = ROOT / ".github/ISSUE_TEMPLATE"
    forms = [path for path in folder.glob("*.yml") if path.name != "config.yml"]
    program = Path(sys.executable).with_name("check-jsonschema")
    words = [str(program), "--builtin-schema", "vendor.github-issue-forms", *map(str, forms)]
    assert len(forms) == 2
    assert subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_binder_installs_what_the_lock_holds():
    lines = (ROOT / "binder/requirements.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "-c ../requirements.lock"
    assert (ROOT / "binder" / lines[0].split()[1]).resolve() == ROOT / "requirements.lock"
    extras = re.fullmatch(r"\.\[([\w,]+)\]", lines[1]).group(1).split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])
    locked = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert all(f"\n{name}==" in locked for name in lines[2:])
    version = (ROOT / "binder/runtime.txt").read_text(encoding="utf-8").strip()
    assert version.removeprefix("python-") in {"3.11", "3.12", "3.13"}


def test_the_book_workflow_sets_the_real_name_first():
    text = (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    assert text.index("scripts/set_repository.py") < text.index("make book")


CHANGED = """# Changelog

## [Unreleased]

- A thing to come.

## [1.1.0] - 2026-12-01

### Added

- Something.

## 1.0.0 (unreleased)

- The first.
"""


def test_the_notes_of_a_release_are_its_part_of_the_changelog():
    assert release_notes.notes(CHANGED, "1.1.0") == "### Added\n\n- Something."


@pytest.mark.parametrize("version", ["1.1", "1.0.0", "2.0.0", "Unreleased"])
def test_a_version_without_a_date_has_no_notes(version):
    with pytest.raises(ValueError, match="its parts are: .*1.1.0"):
        release_notes.notes(CHANGED, version)


def test_a_tag_that_is_not_the_version_makes_no_release(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGED)
    assert release_notes.main(["v1.1.0"], root=tmp_path) == 0
    assert capsys.readouterr().out == "### Added\n\n- Something.\n"
    assert release_notes.main(["v1.0.0"], root=tmp_path) == 1
    said = capsys.readouterr()
    assert said.out == "" and "says version 1.1.0, not 1.0.0" in said.err


def test_no_traces_of_a_machine_or_of_package_hosts():
    traces = ["/wo" + "rk/", "/ro" + "ot/", "pypi" + ".org", "anaconda" + ".org", "pythonhosted"]
    found = [
        (path.relative_to(ROOT).as_posix(), trace)
        for path, text in texts(ROOT)
        if path != Path(__file__).resolve()
        for trace in traces
        if trace in text
    ]
    assert not found
