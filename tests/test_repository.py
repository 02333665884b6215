"""The frame of the project: one address, one environment, a clean layout."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import fork
import notebook_tools
import publish_as
import pytest
import release_notes
import set_repository
import yaml
from conftest import ROOT, refuses
from jsonschema.validators import validator_for
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
REPOSITORY = set_repository.read_repository(ROOT)
OWNER, NAME = REPOSITORY.split("/")
HUB = "https://github" + ".com/"

SEGMENT = r"([^\s/\"'`()<>\[\]{}|\\,;:*$]+)"
#: Any address that could be ours: owner and name in the two groups.
ADDRESSES = re.compile(
    rf"(?:github\.com[/:]|githubusercontent\.com/){SEGMENT}/{SEGMENT}|"
    rf"{SEGMENT}\.github\.io/{SEGMENT}"
)
#: Only ever written of ourselves.
OURS = re.compile(
    rf"(?:colab\.research\.google\.com/github|mybinder\.org/v2/gh|git\+https://[^/\s]+)/"
    rf"{SEGMENT}/{SEGMENT}"
)
OUR_NAME = re.compile(r"vcc[-_.]?(?:book|helpers)", re.IGNORECASE)


def program(name):
    return str(Path(sys.executable).with_name(name))


def foreign_spellings(text, owner=OWNER, name=NAME):
    """Addresses in a text that mean this repository but spell it otherwise."""
    found = []
    for pattern in (ADDRESSES, OURS):
        for match in pattern.finditer(text):
            groups = [group for group in match.groups() if group]
            seen = [re.sub(r"[?#@].*$", "", g).rstrip(".!").removesuffix(".git") for g in groups]
            pages = "github.io" in match[0]
            if seen == [owner.lower() if pages and seen[0] != owner else owner, name]:
                continue
            if pattern is OURS or OUR_NAME.search(seen[1]) or seen[0].lower() == owner.lower():
                found.append(match[0])
    return found


def texts(root):
    read = ((path, set_repository.read_text(path)) for path in set_repository.text_files(root))
    return ((path, text) for path, text in read if text is not None)


def test_no_other_spelling_of_the_repository():
    found = {path.name: bad for path, text in texts(ROOT) if (bad := foreign_spellings(text))}
    assert not found
    for name in ["README.md", "_config.yml", "CITATION.cff", "book/index.md", "pyproject.toml"]:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert f"/{REPOSITORY}" in text and foreign_spellings(text, "ada", NAME), name


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A copy of the project, published as README and CONTRIBUTING say."""
    root = fork.copy_of_the_project(tmp_path_factory.mktemp("a folder with spaces") / "my book")
    before = {path: path.read_bytes() for path in set_repository.text_files(root)}
    done = fork.publish_as(root, "Grace-Hopper/and.or_2026")
    assert done.returncode == 0, done.stderr
    changed = [path for path, text in before.items() if path.read_bytes() != text]
    told = f"{len(changed)} files changed; the repository is Grace-Hopper/and.or_2026"
    page = "https://grace-hopper.github" + ".io/and.or_2026/"
    assert told in done.stdout and page in done.stdout and "trusted publisher" in done.stdout
    assert "  6. " not in done.stdout  # only a release has a tag to push
    return root


def test_publishing_sets_every_address_and_only_once(published, capsys):
    """The second name is as long as names on GitHub can sensibly be."""
    for new in ["Grace-Hopper/and.or_2026", f"{'x' * 39}/{'y' * 60}"]:
        assert publish_as.main([new], published) == 0
        again = new.startswith("Grace")
        assert capsys.readouterr().out.startswith("0 files changed") == again
        owner, name = new.split("/")
        assert not [t for _, text in texts(published) for t in foreign_spellings(text, owner, name)]
        assert set_repository.read_repository(published) == new
        clone = f"git clone {HUB}{new} && cd {name}\n"
        assert all(clone in (published / p).read_text() for p in ("README.md", "CONTRIBUTING.md"))
        install = "git+https" + f"://github.com/{new}@{notebook_tools.ref_of(PROJECT['version'])}"
        for path in (published / "notebooks").glob("*.ipynb"):
            text = path.read_text(encoding="utf-8")
            assert text.count(install) == 1 and "not ready: this copy" not in text, path.name
    words = [program("ruff"), "check", "."]
    done = subprocess.run(words, cwd=published, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # no name is too long for our own lines


def test_publishing_finds_what_it_could_not_set(published, capsys):
    """An address in small letters, a broken notebook, a citation of another version."""
    old = set_repository.read_repository(published)
    (published / "book/challenge.md").write_text("See GitHub" + f".com/{old.lower()}/wiki")
    for name, text, other in [
        ("notebooks/01_load_h1_cells.ipynb", "## Key takeaways", "## Keys"),
        ("CITATION.cff", "version: ", "version: 9"),
    ]:
        before = (published / name).read_text(encoding="utf-8")
        (published / name).write_text(before.replace(text, other), encoding="utf-8")
    assert publish_as.main(["ada/cells"], published) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3 and all(line.startswith("error: ") for line in told), told
    assert f"book/challenge.md:1 still names {old}" in told[0]
    assert "'## Key takeaways' is missing" in told[1] and "version: pyproject.toml" in told[2]


def test_make_takes_the_name_as_a_word(published):
    """`make publish-as OWNER/NAME` does not try to make OWNER/NAME."""
    (published / ".venv").mkdir(exist_ok=True)
    (published / ".venv/.installed").touch()
    for words in (["ada/book"], []):
        command = ["make", "--dry-run", "publish-as", *words]
        done = subprocess.run(command, cwd=published, capture_output=True, text=True, check=True)
        assert f'scripts/publish_as.py "{"".join(words)}"\n' in done.stdout


def test_a_copy_under_another_name_is_told_the_one_command(capsys):
    assert set_repository.main(["check", REPOSITORY]) == 0
    assert set_repository.main(["check", "grace/cells"]) == 1
    said = capsys.readouterr()
    assert not said.out and f"name {REPOSITORY}" in said.err
    assert "make publish-as grace/cells" in said.err and len(said.err.splitlines()) == 1


def test_only_addresses_are_rewritten():
    old, new = "and/or", "ada/book"
    text = "this and/or that, see " + HUB + "and/or and band/or, " + HUB + "and/or-else"
    after, places = set_repository.rewrite(text, old, new)
    assert places == 1
    assert after == text.replace(HUB + "and/or and", HUB + "ada/book and")


@pytest.mark.parametrize("name", [
    "", "vcc-book", "/vcc-book", "ada/", "ada/b/c", "-ada/book", "ada-/book", "a--b/book",
    "ada/bo ok", "ada/book.git", "ada/..", "ádà/book", "a" * 40 + "/book", HUB + "ada/book",
])  # fmt: skip
def test_malformed_names_are_refused_and_nothing_is_published(name, tmp_path, capsys):
    with pytest.raises(ValueError, match="expected OWNER/NAME|letters, digits|ending .git"):
        set_repository.parse_repository(name)
    if not name.startswith("-"):
        assert publish_as.main([name], tmp_path) == 2
        assert capsys.readouterr().err.startswith("error: ")


def requirements(extras=("book", "cluster", "plot", "test")):
    lines = list(PROJECT["dependencies"])
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    return {req.name: req for req in map(Requirement, lines) if req.name != PROJECT["name"]}


def test_environment_parses_strictly_and_agrees_with_pyproject():
    rattler = pytest.importorskip("rattler")
    content = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert content["channels"] == ["conda-forge"]
    ours, left = requirements(), {"pip", "make"}
    for line in content["dependencies"]:
        if isinstance(line, dict):
            match = re.fullmatch(r"-e \.\[([a-z,]+)\]", line["pip"][0])
            assert set(match[1].split(",")) <= set(PROJECT["optional-dependencies"])
            continue
        spec = rattler.MatchSpec(line, strict=True)
        name, version = spec.name.normalized, str(spec.version or "").replace(" ", "")
        wanted = PROJECT["requires-python"] if name == "python" else ours.get(name)
        wanted = wanted if isinstance(wanted, str) else str(getattr(wanted, "specifier", ""))
        assert name in {*left, "python", *ours}
        assert set(version.split(",")) == set(wanted.split(",")), name


@pytest.mark.parametrize("version", ["3.11.9", "3.12.9", "3.13.9", "3.14.2"])
def test_lock_holds_no_addresses_and_covers_every_requirement(version):
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in text
    here = {"python_version": version.rsplit(".", 1)[0], "python_full_version": version}
    here["sys_platform"] = "linux"
    locked = map(Requirement, (line for line in text.splitlines() if line and line[0] != "#"))
    fitting = {
        canonicalize_name(lock.name): next(iter(lock.specifier)).version
        for lock in locked
        if lock.marker is None or lock.marker.evaluate(here)
    }
    for name, wanted in requirements(extras=("plot", "book", "test", "oracle")).items():
        if wanted.marker is None or wanted.marker.evaluate(here):
            assert wanted.specifier.contains(fitting[canonicalize_name(name)]), name


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    """The bundled cells, the styles, and the mark that its types may be relied on."""
    uv = shutil.which("uv") or program("uv")
    build = [uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("vcc_helpers/")}
    ours = {path.relative_to(ROOT).as_posix() for path in set_repository.text_files(ROOT)}
    assert packed == {name for name in ours if name.startswith("vcc_helpers/")}
    assert "vcc_helpers/py.typed" in packed


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_make_clean_removes_what_was_built_and_nothing_of_others(tmp_path):
    built = ["_build", "vcc_helpers/a/__pycache__", "notebooks/.ipynb_checkpoints"]
    others = ["myenv/lib/__pycache__", ".venv-311/lib/__pycache__", "copy/_build"]
    for name in [*built, *others, "benchmarks", "book", "scripts", "tests"]:
        (tmp_path / name).mkdir(parents=True)
    shutil.copy2(ROOT / "Makefile", tmp_path)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not [name for name in built if (tmp_path / name).exists()]
    assert [name for name in others if (tmp_path / name).exists()] == others


def test_what_describes_the_project_agrees(tmp_path):
    assert publish_as.disagreements(ROOT) == []
    for name in ("pyproject.toml", "CITATION.cff", ".zenodo.json"):
        shutil.copy2(ROOT / name, tmp_path)
    path = tmp_path / ".zenodo.json"
    path.write_text(path.read_text(encoding="utf-8").replace("contributors", "others"))
    (told,) = publish_as.disagreements(tmp_path)
    assert told.startswith("authors: ")


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [p for p in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if p.name != "config.yml"]


@pytest.mark.parametrize(("schema", "paths"), [
    ("citation-file-format", [ROOT / "CITATION.cff"]),
    ("dependabot", [ROOT / ".github/dependabot.yml"]),
    ("github-workflows", WORKFLOWS),
    ("github-issue-forms", FORMS),
])  # fmt: skip
def test_settings_pass_the_schema(schema, paths):
    """The schemas are those that check-jsonschema brings; its command takes seconds to start."""
    text = (files("check_jsonschema") / f"builtin_schemas/vendor/{schema}.json").read_text("utf-8")
    rules = validator_for(json.loads(text))(json.loads(text))
    for path in paths:
        content = yaml.safe_load(path.read_text(encoding="utf-8").replace("\non:", '\n"on":'))
        content = json.loads(json.dumps(content, default=str))  # dates, too
        assert [error.message for error in rules.iter_errors(content)] == [], path.name


def test_workflows_pass_the_linter():
    words = [program("zizmor"), "--offline", "--quiet", "--no-progress", *map(str, WORKFLOWS)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


CHANGED = """# Changelog
## [Unreleased]
- A thing to come.
## [1.1.0] - 2026-12-01
### Added
- Something.
## 1.0.0 (unreleased)
- The first.
"""


def test_the_notes_of_a_release_are_its_part_of_the_changelog(tmp_path, capsys):
    """And none is made of another tag, without a date, or where notebooks install another one."""
    for version in ["1.1", "1.0.0", "2.0.0", "Unreleased"]:
        refuses("its parts are: .*1.1.0", release_notes.notes, CHANGED, version)
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGED)
    assert release_notes.main(["v1.1.0"], root=tmp_path) == 0
    assert capsys.readouterr().out == "### Added\n- Something.\n"
    assert release_notes.main(["v1.0.0"], root=tmp_path) == 1
    said = capsys.readouterr()
    assert said.out == "" and "says version 1.1.0, not 1.0.0" in said.err
    (tmp_path / "notebooks").mkdir()
    for ref, status in (("main", 1), ("v1.1.0", 0)):
        cell = notebook_tools.first_cell("ada/book", "1.1.0").replace("@v1.1.0", f"@{ref}")
        (tmp_path / "notebooks/01_x.ipynb").write_text(cell)
        assert release_notes.main(["v1.1.0"], root=tmp_path) == status
    assert "01_x.ipynb does not install v1.1.0: run `make fix`" in capsys.readouterr().err


def test_no_traces_of_a_machine_or_of_package_hosts():
    traces = ["/wo" + "rk/", "/ro" + "ot/", "pypi" + ".org", "anaconda" + ".org", "pythonhosted"]
    found = [(path.name, trace) for path, text in texts(ROOT) for trace in traces if trace in text]
    assert set(found) <= {(Path(__file__).name, "pythonhosted")}
