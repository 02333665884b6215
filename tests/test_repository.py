"""The frame of the project: one address, one environment, a clean layout."""

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import fork
import notebook_tools
import publish_as
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
    return fork.copy_of_the_project(tmp_path_factory.mktemp("a folder with spaces") / "my book")


def test_publishing_sets_every_address_and_only_once(copy_of_the_project):
    """The second name is as long as names on GitHub can sensibly be."""
    root = copy_of_the_project
    for new in ["Grace-Hopper/and.or_2026", f"{'x' * 39}/{'y' * 60}"]:
        before = {path: path.read_bytes() for path in set_repository.text_files(root)}
        done = fork.publish_as(root, new)
        assert done.returncode == 0, done.stderr
        changed = [p for p, text in before.items() if p.read_bytes() != text]
        assert f"{len(changed)} files changed; the repository is {new}" in done.stdout
        owner, name = new.split("/")
        assert not [bad for _, text in texts(root) if (bad := foreign_spellings(text, owner, name))]
        assert set_repository.read_repository(root) == new
        clone = f"git clone {HUB}{new} && cd {name}\n"
        assert all(clone in (root / page).read_text() for page in ("README.md", "CONTRIBUTING.md"))
        install = "git+https" + f"://github.com/{new}@{notebook_tools.ref_of(PROJECT['version'])}"
        for path in (root / "notebooks").glob("*.ipynb"):
            text = path.read_text(encoding="utf-8")
            assert text.count(install) == 1 and "not ready: this copy" not in text, path.name
        again = fork.publish_as(root, new)
        assert again.returncode == 0
        assert again.stdout.startswith("0 files changed")
    program = Path(sys.executable).with_name("ruff")
    done = subprocess.run([program, "check", "."], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout  # no name is too long for our own lines


def test_publishing_says_what_is_left(copy_of_the_project):
    done = fork.publish_as(copy_of_the_project, "Ada/cells")
    assert done.returncode == 0, done.stderr
    assert "  6. " not in done.stdout  # only a release has a tag to push
    for word in [
        "push to main", "Pages, Source: GitHub Actions", "https://ada.github" + ".io/cells/",
        "VCC_CLASSROOM", "VCC_TRUTH_PASSPHRASE", "trusted publisher", "environment pypi",
        "VCC_PUBLISH", "Zenodo",
    ]:  # fmt: skip
        assert word in done.stdout, word


def test_publishing_finds_what_it_could_not_set(tmp_path):
    """An address in small letters, a broken notebook, a citation of another version."""
    root = fork.copy_of_the_project(tmp_path / "copy")
    (root / "book/challenge.md").write_text("See GitHub" + f".com/{REPOSITORY.lower()}/wiki")
    path = root / "notebooks/01_load_the_h1_data.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("## Key takeaways", "## Keys"))
    path = root / "CITATION.cff"
    path.write_text(path.read_text(encoding="utf-8").replace("version: ", "version: 9"))
    done = fork.publish_as(root, "ada/cells")
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert len(told) == 3 and all(line.startswith("error: ") for line in told), told
    assert f"book/challenge.md:1 still names {REPOSITORY}" in told[0]
    assert "'## Key takeaways' is missing" in told[1]
    assert "version: pyproject.toml" in told[2]


def test_make_takes_the_name_as_a_word(copy_of_the_project):
    """`make publish-as OWNER/NAME` does not try to make OWNER/NAME."""
    environment = copy_of_the_project / ".venv"
    environment.mkdir(exist_ok=True)
    (environment / ".installed").touch()
    for words in (["ada/book"], []):
        command = ["make", "--dry-run", "publish-as", *words]
        done = subprocess.run(command, cwd=copy_of_the_project, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert f'scripts/publish_as.py "{"".join(words)}"\n' in done.stdout


def test_a_copy_under_another_name_is_told_the_one_command(copy_of_the_project, capsys):
    assert fork.publish_as(copy_of_the_project, "ada/cells").returncode == 0
    root = copy_of_the_project
    assert set_repository.main(["check", "ada/cells"], root) == 0
    assert set_repository.main(["check", "grace/cells"], root) == 1
    said = capsys.readouterr()
    assert not said.out and "name ada/cells" in said.err
    assert "make publish-as grace/cells" in said.err and len(said.err.splitlines()) == 1


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
def test_malformed_names_are_refused(name):
    with pytest.raises(ValueError, match="expected OWNER/NAME|letters, digits|ending .git"):
        set_repository.parse_repository(name)


def test_a_malformed_name_publishes_nothing(copy_of_the_project):
    before = (copy_of_the_project / "README.md").read_bytes()
    done = fork.publish_as(copy_of_the_project, "ada/bo ok")
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
    listed += PYPROJECT["dependency-groups"]["sphinx"]
    names = {Requirement(text).name for text in listed} - {"vcc-helpers"}
    assert set(explained) == names


def test_no_lock_files_with_addresses_are_committed():
    names = {path.name for path in set_repository.text_files(ROOT)}
    assert not names & {"uv.lock", "pylock.toml", "poetry.lock"}


def test_the_package_knows_its_version():
    import vcc_helpers

    assert vcc_helpers.__version__ == PROJECT["version"]


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_package(tmp_path):
    """The bundled cells, the styles, and the mark that its types may be relied on."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    build = [uv, "build", "--quiet", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in ZipFile(wheel).namelist() if name.startswith("vcc_helpers/")}
    ours = {path.relative_to(ROOT).as_posix() for path in set_repository.text_files(ROOT)}
    assert packed == {name for name in ours if name.startswith("vcc_helpers/")}
    assert "vcc_helpers/py.typed" in packed


def test_the_console_script_points_at_something():
    module, function = PROJECT["scripts"]["vcc-helpers"].split(":")
    assert importlib.util.find_spec(module)
    assert callable(getattr(importlib.import_module(module), function))


# --- other environments and folders in the tree --------------------------------------------------


def make(root, *words):
    for name in ["Makefile", "pyproject.toml", "requirements.lock"]:
        shutil.copy2(ROOT / name, root / name)
    words = ["make", *words, f"PYTHON={sys.executable}"]
    subprocess.run(words, cwd=root, check=True, capture_output=True)


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_an_environment_of_any_name_is_left_out_by_git(tmp_path):
    programs = tmp_path / "myenv" / "bin"
    programs.mkdir(parents=True)
    for name in ["python", "uv"]:  # installing takes a minute: these do nothing
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    make(tmp_path, "setup", "VENV=myenv")
    names = {path.name for path in set_repository.text_files(tmp_path)}
    assert names == {"Makefile", "pyproject.toml", "requirements.lock"}


@pytest.mark.skipif(sys.platform == "win32", reason="make is not there")
def test_make_clean_removes_what_was_built_and_nothing_of_others(tmp_path):
    built = ["_build", "vcc_helpers/a/__pycache__", "notebooks/.ipynb_checkpoints"]
    others = ["myenv/lib/__pycache__", ".venv-311/lib/__pycache__", "copy/_build"]
    for name in [*built, *others, "benchmarks", "book", "scripts", "tests"]:
        (tmp_path / name).mkdir(parents=True)
    make(tmp_path, "clean")
    assert not [name for name in built if (tmp_path / name).exists()]
    assert [name for name in others if (tmp_path / name).exists()] == others


# --- layout --------------------------------------------------------------------------------------


def test_layout():
    for name in [
        "README.md", "environment.yml", "_config.yml", "pyproject.toml", "Makefile", "LICENSE",
        "CITATION.cff", ".zenodo.json", "CODE_OF_CONDUCT.md", "CHANGELOG.md", ".gitignore",
        ".ci/run", "book/_toc.yml",
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
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {PROJECT['version'].removesuffix('.dev0')} " in changelog


def test_what_describes_the_project_agrees(tmp_path):
    assert publish_as.disagreements(ROOT) == []
    for name in ("pyproject.toml", "CITATION.cff", ".zenodo.json"):
        shutil.copy2(ROOT / name, tmp_path)
    path = tmp_path / ".zenodo.json"
    path.write_text(path.read_text(encoding="utf-8").replace("contributors", "others"))
    (told,) = publish_as.disagreements(tmp_path)
    assert told.startswith("authors: ")


@pytest.mark.parametrize(
    ("schema", "name"),
    [("citation-file-format", "CITATION.cff"), ("dependabot", ".github/dependabot.yml")],
)
def test_other_settings_pass_the_schema(schema, name):
    program = Path(sys.executable).with_name("check-jsonschema")
    words = [program, "--builtin-schema", f"vendor.{schema}", ROOT / name]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_dependabot_proposes_once_a_week_and_not_one_by_one():
    text = (ROOT / ".github/dependabot.yml").read_text(encoding="utf-8")
    updates = yaml.safe_load(text)["updates"]
    assert [one["package-ecosystem"] for one in updates] == ["github-actions", "pip"]
    assert all(one["schedule"]["interval"] == "weekly" and one["groups"] for one in updates)


WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def jobs_of(name):
    path = ROOT / ".github/workflows" / name
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


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


@pytest.mark.parametrize("name", ["book.yml", "release.yml", "test.yml", "weekly.yml"])
def test_workflows_of_a_copy_are_red_until_it_has_its_address(name):
    steps = [step.get("run", "") for job in jobs_of(name).values() for step in job["steps"]]
    check = [i for i, run in enumerate(steps) if "scripts/set_repository.py check" in run]
    assert [steps[i].split(" ", 1)[1] for i in check] == [
        'scripts/set_repository.py check "$GITHUB_REPOSITORY"'
    ]
    costly = [i for i, run in enumerate(steps) if re.search(r"make |uv ", run)]
    assert check < costly


def test_the_package_goes_to_the_index_by_trusted_publishing():
    """The job that may speak for us runs none of our code, and knows no secret."""
    jobs = jobs_of("release.yml")
    assert jobs["build"].get("permissions") is None
    assert jobs["release"]["permissions"] == {"contents": "write"}
    index = jobs["index"]
    assert index["permissions"] == {"id-token": "write"}
    assert index["environment"] == "pypi" and index["if"] == "vars.VCC_PUBLISH == 'true'"
    assert index["steps"][-1]["run"].startswith("uv publish --trusted-publishing always")
    for job in (jobs["release"], index):
        assert not [step for step in job["steps"] if "checkout" in step.get("uses", "")]
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text(encoding="utf-8")


def test_the_one_image_is_colabs_and_gets_nothing_but_our_files_to_read():
    found = {}
    for path in WORKFLOWS:
        for name, job in jobs_of(path.name).items():
            assert "container" not in job and "services" not in job
            for step in job["steps"]:
                if "docker" in step.get("run", ""):
                    found[f"{path.name}: {name}"] = step["run"].split()
    assert list(found) == ["weekly.yml: colab-image"]
    (words,) = found.values()
    assert words[:5] == ["docker", "run", "--rm", "--entrypoint", "python3"]
    assert words[5:-2] == ["--volume", '"$PWD:/repo:ro"', "--workdir", "/tmp"]
    assert words[-2].startswith("us-docker.pkg.dev/colab-images/public/")
    assert (ROOT / words[-1].removeprefix("/repo/")).is_file()


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


def test_notebooks_of_something_else_make_no_release(tmp_path, capsys):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "1.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGED)
    (tmp_path / "notebooks").mkdir()
    for ref, status in (("main", 1), ("v1.1.0", 0)):
        cell = notebook_tools.first_cell("ada/book", "1.1.0").replace("@v1.1.0", f"@{ref}")
        (tmp_path / "notebooks/01_x.ipynb").write_text(cell)
        assert release_notes.main(["v1.1.0"], root=tmp_path) == status
    assert "01_x.ipynb does not install v1.1.0: run `make fix`" in capsys.readouterr().err


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
