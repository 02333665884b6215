"""A class's leaderboard: strangers' files, a hidden truth, nothing scored twice."""

import json
import os
import re
import shutil
from datetime import date
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import make_cells

from vcc_helpers import classroom, scoring
from vcc_helpers.classroom import contest
from vcc_helpers.scoring import ScoreCard
from vcc_helpers.submission import archive

TODAY = date(2026, 3, 9)
SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "leaderboard.py"


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The public and the private folder of a toy class, and two predictions."""
    root = tmp_path_factory.mktemp("class")
    cells = make_cells(n_cells=(30, 20, 40, 25, 60))
    kw = {"public": root / "public", "private": root / "private"}
    classroom.prepare(cells, **kw, n_known=1)
    known = anndata.read_h5ad(root / "public" / "train.h5ad")
    n_cells = pd.read_csv(root / "public" / "targets.csv", index_col=0)["n_cells"]
    scoring.official_baseline(known, n_cells=n_cells).write_h5ad(root / "mean.h5ad")
    truth = anndata.read_h5ad(root / "private" / "truth.h5ad")
    rng = np.random.default_rng(0)
    truth.X = truth.X + rng.poisson(1.0, truth.shape).astype(truth.X.dtype)
    truth.write_h5ad(root / "noisy.h5ad")
    return root


@pytest.fixture
def handed_in(kit, tmp_path):
    """A folder with one good file of each of two teams."""
    folder = tmp_path / "submissions"
    for team, source in (("ada", "noisy"), ("bob", "mean")):
        (folder / team).mkdir(parents=True)
        shutil.copy(kit / f"{source}.h5ad", folder / team / "2026-03-01.h5ad")
    return folder


def baseline_of(kit):
    return ScoreCard.from_json(kit / "private" / "baseline.json")


def score(kit, folder, cache, **kw):
    kw |= {"baseline": baseline_of(kit), "cache": cache, "today": TODAY}
    return classroom.score_folder(folder, kit / "private" / "truth.h5ad", **kw)


# --- the split -----------------------------------------------------------------------------------


def test_the_class_gets_no_cell_of_a_held_out_target(kit):
    known = anndata.read_h5ad(kit / "public" / "train.h5ad")
    truth = anndata.read_h5ad(kit / "private" / "truth.h5ad")
    targets = pd.read_csv(kit / "public" / "targets.csv", index_col=0)["n_cells"]
    assert not set(known.obs["target_gene"]) & set(targets.index)
    assert set(truth.obs["target_gene"]) == {*targets.index, "non-targeting"}
    assert targets.to_dict() == truth.obs["target_gene"].value_counts()[targets.index].to_dict()
    genes = pd.read_csv(kit / "public" / "genes.csv")["gene"]
    assert genes.tolist() == truth.var_names.tolist() == known.var_names.tolist()
    assert sorted(p.name for p in (kit / "public").iterdir()) == [
        "genes.csv", "targets.csv", "train.h5ad",
    ]  # fmt: skip


def test_other_words_become_the_contests_own(tmp_path):
    cells = make_cells()
    labels = cells.obs.pop("target_gene").where(lambda s: s != "non-targeting", "ctrl")
    cells.obs["guide"] = labels
    folders = {"public": tmp_path / "a", "private": tmp_path / "b"}
    classroom.prepare(cells, **folders, n_known=2, perturbation_key="guide", control="ctrl")
    truth = anndata.read_h5ad(tmp_path / "b" / "truth.h5ad")
    assert list(truth.obs) == ["target_gene"]
    assert (truth.obs["target_gene"] == "non-targeting").sum() == (labels == "ctrl").sum()


def test_a_class_may_play_by_the_rules_of_2026(tmp_path):
    folders = {"public": tmp_path / "a", "private": tmp_path / "b"}
    cells = make_cells(n_cells=(30, 20, 40, 25, 60))
    classroom.prepare(cells, **folders, n_known=1, preset="vcc2026")
    base = ScoreCard.from_json(tmp_path / "b" / "baseline.json")
    truth = anndata.read_h5ad(tmp_path / "b" / "truth.h5ad")
    assert base.overall(base) == 0
    assert scoring.score(truth, truth, "vcc2026").overall(base) > 50


def test_awkward_gene_names_survive(tmp_path):
    cells = make_cells()
    cells.var_names = ["NA", "a,b", 'say "x"', *cells.var_names[3:]]
    cells.obs["target_gene"] = cells.obs["target_gene"].replace("no gene", "a,b")
    folders = {"public": tmp_path / "a", "private": tmp_path / "b"}
    classroom.prepare(cells, **folders, n_known=1)
    (tmp_path / "in" / "ada").mkdir(parents=True)
    shutil.copy(tmp_path / "b" / "truth.h5ad", tmp_path / "in" / "ada" / "2026-03-01.h5ad")
    assert classroom.check_folder(tmp_path / "in", tmp_path / "a", today=TODAY) == {}


def test_the_truth_is_kept_apart(tmp_path):
    cells = make_cells()
    for public, private in (("a", "a"), ("a", "a/b"), ("a/b", "a")):
        with pytest.raises(ValueError, match="hold each other"):
            classroom.prepare(
                cells, public=tmp_path / public, private=tmp_path / private, n_known=1
            )
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    private = tmp_path / "repository" / "private"
    with pytest.raises(ValueError, match="lies in a git repository"):
        classroom.prepare(cells, public=tmp_path / "a", private=private, n_known=1)
    assert not (tmp_path / "a").exists() and not private.exists()


def test_a_split_leaves_something_to_learn_and_to_predict(tmp_path):
    cells, folders = make_cells(), {"public": tmp_path / "a", "private": tmp_path / "b"}
    for n_known in (0, 4):
        with pytest.raises(ValueError, match=f"{n_known} of 4 targets known; expected 1 to 3"):
            classroom.prepare(cells, **folders, n_known=n_known)
    with pytest.raises(ValueError, match="no control cells"):
        classroom.prepare(cells, **folders, n_known=1, control="ctrl")
    assert list(tmp_path.iterdir()) == []


# --- names ---------------------------------------------------------------------------------------


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def test_what_a_folder_holds_is_sorted_and_the_rest_refused(tmp_path):
    touch(
        tmp_path, "README.md", ".hidden", "bob/2026-03-02.h5ad", "bob/2026-03-01.vcc",
        "ada/2026-03-09.h5ad", "ada/.gitkeep", "stray.h5ad", "ada/2026-03-10.h5ad",
        "ada/2026-02-30.h5ad", "ada/final.h5ad", "ada/2026-03-09.vcc", "ada/more/x.h5ad",
        "Ada/2026-03-01.h5ad", "-x/2026-03-01.h5ad", "<b>/2026-03-01.h5ad", "ü/2026-03-01.h5ad",
        f"{'a' * 33}/2026-03-01.h5ad", "ada/2026-03-01.h5ad.exe",
    )  # fmt: skip
    entries, refused = classroom.read_folder(tmp_path, today=TODAY)
    assert [entry.name for entry in entries] == [
        "ada, 2026-03-09", "bob, 2026-03-01", "bob, 2026-03-02",
    ]  # fmt: skip
    with pytest.raises(NotADirectoryError, match="no folder .*nowhere"):
        classroom.read_folder(tmp_path / "nowhere")
    assert entries[0].path.name == "2026-03-09.h5ad"
    assert refused["ada/2026-03-09.vcc"].startswith("a second file of 2026-03-09; one a day counts")
    assert "is not yet" in refused["ada/2026-03-10.h5ad"]
    for name in ("ada/2026-02-30.h5ad", "ada/final.h5ad", "ada/2026-03-01.h5ad.exe"):
        assert refused[name].startswith("expected a name such as 2026-03-01.h5ad")
    for name in ("Ada", "-x", "<b>", "ü", "a" * 33):
        assert refused[name].startswith("no name for a team")
    assert "not in a team's folder" in refused["stray.h5ad"]
    assert refused["ada/more"].startswith("a link or a folder")
    assert len(refused) == 12


def test_links_are_refused_whatever_they_lead_to(kit, tmp_path):
    truth, folder = kit / "private" / "truth.h5ad", tmp_path / "submissions"
    (folder / "ada").mkdir(parents=True)
    (folder / "ada" / "2026-03-01.h5ad").symlink_to(truth)
    (folder / "eve").symlink_to(folder / "ada")
    found = score(kit, folder, tmp_path / "cache")
    assert found.cards == {}
    assert {name: why.split(";")[0] for name, why in found.refused.items()} == {
        "ada/2026-03-01.h5ad": "a link or a folder",
        "eve": "a link",
    }


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["A\tsubmissions/ada/2026-03-09.h5ad"], None),
        (["M\tsubmissions/ada/2026-03-10.vcc"], None),
        ([], "0 files changed"),
        (["A\tsubmissions/ada/2026-03-09.h5ad", "M\tscripts/leaderboard.py"], "2 files changed"),
        (["M\t.github/workflows/leaderboard.yml"], "is no submission"),
        (["A\tsubmissions/../ada/2026-03-09.h5ad"], "is no submission"),
        (["A\tother/submissions/ada/2026-03-09.h5ad"], "is no submission"),
        (["A\tsubmissions/Ada/2026-03-09.h5ad"], "is no submission"),
        (["A\tsubmissions/ada/x/2026-03-09.h5ad"], "is no submission"),
        (['A\t"submissions/ada/\\303\\274.h5ad"'], "is no submission"),
        (["A\tsubmissions/ada/2026-03-01.h5ad"], "is not of today"),
        (["D\tsubmissions/bob/2026-03-09.h5ad"], "removed or renamed"),
        (["R100\tsubmissions/bob/2026-03-09.h5ad\tsubmissions/a/b"], "removed or renamed"),
        (["T\tsubmissions/bob/2026-03-09.h5ad"], "removed or renamed"),
    ],
)
def test_a_change_hands_in_one_file_of_today_and_nothing_else(lines, says):
    found = classroom.change_problems(lines, today=TODAY)
    assert any(says in line for line in found) if says else found == []


# --- files of strangers --------------------------------------------------------------------------


def with_external_link(path, truth):
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(truth), "/X")


def with_a_loop(path, _):
    with h5py.File(path, "r+") as file:
        file["uns"]["loop"] = file["/"]


def of_text(path, _):
    path.write_text("hello")


def cut_short(path, _):
    path.write_bytes(path.read_bytes()[:-3000])


def other_order(path, _):
    anndata.read_h5ad(path)[:, ::-1].write_h5ad(path)


def negative(path, _):
    cells = anndata.read_h5ad(path)
    cells.X = cells.X - 5
    cells.write_h5ad(path)


# what else is refused is tested with the archive and the hostile files
BAD = {
    with_external_link: "'X' is a link",
    with_a_loop: "the group .* is there twice, or holds itself",
    of_text: "not an HDF5 file",
    cut_short: "truncated",
    other_order: "genes are in another order",
    negative: "negative",
}


@pytest.mark.parametrize("spoil", BAD, ids=lambda f: f.__name__)
def test_a_bad_file_says_why_and_does_not_stop_the_others(spoil, kit, handed_in, tmp_path):
    truth = kit / "private" / "truth.h5ad"
    spoil(handed_in / "ada" / "2026-03-01.h5ad", truth)
    found = score(kit, handed_in, tmp_path / "cache", size_limit="50MB")
    assert [entry.name for entry in found.cards] == ["bob, 2026-03-01"]
    (why,) = found.refused.values()
    assert re.search(BAD[spoil], why)
    assert str(kit) not in why and str(tmp_path) not in why
    # and the check that students see, without the truth, says the same
    refused = classroom.check_folder(handed_in, kit / "public", today=TODAY, size_limit="50MB")
    assert list(refused) == ["ada, 2026-03-01"] and re.search(
        BAD[spoil], refused["ada, 2026-03-01"]
    )


def test_a_check_of_one_team_does_not_speak_of_others(kit, handed_in):
    of_text(handed_in / "bob" / "2026-03-01.h5ad", None)
    touch(handed_in, "bob/final.h5ad", "Bad/2026-03-01.h5ad")
    kw = {"today": TODAY}
    assert len(classroom.check_folder(handed_in, kit / "public", **kw)) == 3
    assert classroom.check_folder(handed_in, kit / "public", only={"ada"}, **kw) == {}
    assert len(classroom.check_folder(handed_in, kit / "public", only={"bob"}, **kw)) == 2


def test_an_error_that_nobody_foresaw_shows_no_inside(kit, handed_in, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr(scoring, "score", broken)
    found = score(kit, handed_in, tmp_path / "cache")
    assert set(found.refused.values()) == {"cannot be read (RuntimeError)"}


def test_a_vcc_scores_as_its_h5ad(kit, handed_in, tmp_path):
    archive.pack(kit / "noisy.h5ad", handed_in / "bob" / "2026-03-02.vcc")
    cards = score(kit, handed_in, tmp_path / "cache").cards
    by_name = {entry.name: card.per_perturbation for entry, card in cards.items()}
    pd.testing.assert_frame_equal(by_name["ada, 2026-03-01"], by_name["bob, 2026-03-02"])


# --- scores --------------------------------------------------------------------------------------


@pytest.fixture
def counted(monkeypatch):
    calls, real = [], scoring.score

    def score(path, *rest, **kw):
        calls.append(Path(path).parent.name)
        return real(path, *rest, **kw)

    monkeypatch.setattr(scoring, "score", score)
    return calls


def test_nothing_is_scored_twice_but_by_another_version(
    kit, handed_in, tmp_path, counted, monkeypatch
):
    cache = tmp_path / "cache"
    first = score(kit, handed_in, cache)
    assert sorted(counted) == ["ada", "bob"]
    shutil.copy(handed_in / "ada" / "2026-03-01.h5ad", handed_in / "bob" / "2026-03-02.h5ad")
    second = score(kit, handed_in, cache)
    assert len(counted) == 2 and len(second.cards) == 3
    for entry, card in first.cards.items():
        pd.testing.assert_frame_equal(card.per_perturbation, second.cards[entry].per_perturbation)
    assert second.refused == {}
    monkeypatch.setattr(contest, "SCORING_VERSION", contest.SCORING_VERSION + 1)
    assert len(score(kit, handed_in, cache).cards) == 3
    assert len(counted) == 4  # two files are one


def test_a_file_that_changes_after_its_score_gets_no_second_one(kit, handed_in, tmp_path, counted):
    before = score(kit, handed_in, tmp_path / "cache").cards
    shutil.copy(kit / "noisy.h5ad", handed_in / "bob" / "2026-03-01.h5ad")
    after = score(kit, handed_in, tmp_path / "cache")
    assert len(counted) == 2
    assert after.refused == {
        "bob, 2026-03-01": "the file changed after it was scored; its first score stands"
    }
    assert {e.name: c.summary["mae"] for e, c in after.cards.items()} == {
        e.name: c.summary["mae"] for e, c in before.items()
    }


def test_a_file_without_a_score_may_be_mended(kit, handed_in, tmp_path):
    of_text(handed_in / "bob" / "2026-03-01.h5ad", None)
    assert len(score(kit, handed_in, tmp_path / "cache").cards) == 1
    shutil.copy(kit / "mean.h5ad", handed_in / "bob" / "2026-03-01.h5ad")
    found = score(kit, handed_in, tmp_path / "cache")
    assert len(found.cards) == 2 and found.refused == {}


def test_the_teachers_own_fault_is_no_teams(kit, handed_in, tmp_path):
    bad = tmp_path / "truth.h5ad"
    cells = anndata.read_h5ad(kit / "private" / "truth.h5ad")
    cells[cells.obs["target_gene"] != "non-targeting"].write_h5ad(bad)
    with pytest.raises(ValueError, match="truth: no control cells"):
        classroom.score_folder(
            handed_in, bad, baseline=baseline_of(kit), cache=tmp_path / "c", today=TODAY
        )


def test_the_newest_entry_of_a_team_counts_and_not_the_best():
    old, new = (classroom.Entry("ada", date(2026, 3, day), Path("x")) for day in (1, 2))
    other = classroom.Entry("bob", date(2026, 3, 1), Path("y"))
    assert classroom.newest({new: "n", old: "o", other: "b"}) == {
        "ada, 2026-03-02": "n",
        "bob, 2026-03-01": "b",
    }


# --- the page ------------------------------------------------------------------------------------


def publish(kit, scored, out, **kw):
    classroom.publish(scored, out, baseline=baseline_of(kit), **kw)


def test_what_is_published_holds_means_only(kit, handed_in, tmp_path):
    scored = score(kit, handed_in, tmp_path / "cache")
    publish(kit, scored, tmp_path / "site", title="<Class>")
    card = json.loads((tmp_path / "site" / "cards" / "ada_2026-03-01.json").read_text())
    assert set(card) == {"team", "day", "preset", "n_perturbations", "overall", "summary"}
    assert card["summary"] == next(iter(scored.cards.values())).summary.round(3).to_dict()
    targets = pd.read_csv(kit / "public" / "targets.csv")["target_gene"]
    for path in (tmp_path / "site").rglob("*.*"):
        text = path.read_text()
        assert not any(re.search(rf"\b{re.escape(target)}\b", text) for target in targets)
    html = (tmp_path / "site" / "board.html").read_text()
    assert "<title>&lt;Class&gt;</title>" in html and "default-src 'none'" in html
    # a second page replaces the first and nothing else
    site = tmp_path / "site"
    entry = next(iter(scored.cards))
    publish(kit, classroom.Scored({entry: scored.cards[entry]}, {"bob": "late"}), site)
    assert [p.name for p in (site / "cards").iterdir()] == ["ada_2026-03-01.json"]
    assert "bob: not scored: late" in (site / "board.html").read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"site", "cache", "submissions"}


def test_the_page_is_written_whole_or_not_at_all(kit, handed_in, tmp_path, monkeypatch):
    scored = score(kit, handed_in, tmp_path / "cache")
    site = tmp_path / "site"
    publish(kit, scored, site)
    before = {p: p.read_bytes() for p in site.rglob("*.*")}

    real = Path.rename

    def rename(self, target):
        if self.name == "new":
            raise OSError("no space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="no space"):
        publish(kit, classroom.Scored(scored.cards, {"x": "y"}), site)
    assert {p: p.read_bytes() for p in site.rglob("*.*")} == before
    assert {p.name for p in tmp_path.iterdir()} == {"site", "cache", "submissions"}


def test_a_folder_of_other_things_is_not_replaced(kit, tmp_path):
    (tmp_path / "thesis.txt").write_text("years")
    with pytest.raises(ValueError, match="'thesis.txt'.*would be lost"):
        publish(kit, classroom.Scored({}, {}), tmp_path)
    with pytest.raises(ValueError, match="is a file"):
        publish(kit, classroom.Scored({}, {}), tmp_path / "thesis.txt")
    publish(kit, classroom.Scored({}, {}), tmp_path / "new" / "site")
    assert "no entry has a score yet" in (tmp_path / "new" / "site" / "board.html").read_text()


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def run(monkeypatch, capsys):
    import importlib.util

    spec = importlib.util.spec_from_file_location("leaderboard_script", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.delenv("VCC_TRUTH", raising=False)

    def command(*words):
        status = script.main([str(word) for word in words])
        said = capsys.readouterr()
        return status, said.out, said.err

    return command


def test_the_command_from_deal_to_page(run, kit, handed_in, tmp_path, monkeypatch):
    make_cells().write_h5ad(tmp_path / "cells.h5ad")
    folders = ("--public", tmp_path / "a", "--private", tmp_path / "b")
    assert run("prepare", tmp_path / "cells.h5ad", *folders, "--known", 1)[0] == 0
    assert (tmp_path / "b" / "baseline.json").exists()

    shutil.copytree(kit / "private", tmp_path / "private")
    monkeypatch.setenv("VCC_TRUTH", str(tmp_path / "private" / "truth.h5ad"))
    of_text(handed_in / "bob" / "2026-03-01.h5ad", None)
    status, out, err = run("check", handed_in, "--task", kit / "public")
    assert status == 1 and out == (
        "leaderboard: 'bob, 2026-03-01': not an HDF5 file; write it with AnnData.write_h5ad\n"
    )
    status, out, err = run("score", handed_in, "--out", tmp_path / "site")
    assert status == 0 and out.endswith("1 entries\n") and err.count("\n") == 1
    assert (tmp_path / "private" / "scored").is_dir()
    shutil.rmtree(handed_in / "bob")
    assert run("check", handed_in, "--task", kit / "public")[:2] == (0, "all can be scored\n")
    (tmp_path / "diff.txt").write_text("M\tREADME.md\n")
    status, out, _ = run(
        "check", handed_in, "--task", kit / "public", "--changes", tmp_path / "diff.txt"
    )
    assert status == 1 and "'README.md' is no submission" in out


def test_the_command_keeps_the_truth_out_of_reach(run, kit, handed_in, tmp_path):
    status, _, err = run("score", handed_in, "--out", tmp_path / "site")
    assert status == 1 and "no truth: name it with --truth" in err
    shutil.copytree(kit / "private", handed_in / "private")
    words = ("score", handed_in, "--out", tmp_path / "site")
    status, _, err = run(*words, "--truth", handed_in / "private" / "truth.h5ad")
    assert status == 1 and "which others see" in err
    truth = kit / "private" / "truth.h5ad"
    status, _, err = run(*words, "--truth", truth, "--cache", tmp_path / "site" / "cache")
    assert status == 1 and "which others see" in err
    status, _, err = run(*words, "--truth", kit / "nowhere" / "truth.h5ad")
    assert status == 1 and "nowhere" in err and "Traceback" not in err
    shutil.copy(truth, tmp_path / "truth.h5ad")
    status, _, err = run(*words, "--truth", tmp_path / "truth.h5ad")
    assert status == 1 and "baseline.json: expected the baseline's card beside the truth" in err
    status, _, err = run("check", handed_in, "--task", tmp_path)
    assert status == 1 and "no genes.csv in" in err
    assert not (tmp_path / "site").exists()


def test_a_line_break_in_a_name_stays_on_its_line(run, kit, tmp_path):
    if os.name == "nt":
        pytest.skip("no such names there")
    touch(tmp_path / "submissions", "a\n::stop-commands::x/2026-03-01.h5ad")
    _, out, _ = run("check", tmp_path / "submissions", "--task", kit / "public")
    assert all(line.startswith("leaderboard: ") for line in out.splitlines())


# --- the workflow --------------------------------------------------------------------------------


@pytest.fixture
def workflow():
    text = (SCRIPT.parents[1] / ".github" / "workflows" / "leaderboard.yml").read_text()
    return yaml.safe_load(text)


def test_a_proposal_meets_no_secret_and_none_of_its_own_code_runs(workflow):
    assert set(workflow[True]) == {"pull_request", "push", "workflow_dispatch"}
    for name, job in workflow["jobs"].items():
        with_secrets = "secrets." in json.dumps(job)
        assert with_secrets == (name == "score")
    assert workflow["jobs"]["check"]["if"] == "github.event_name == 'pull_request'"
    condition = workflow["jobs"]["score"]["if"]
    assert "github.event_name != 'pull_request'" in condition and "refs/heads/main" in condition
    first, second = (s["with"] for s in workflow["jobs"]["check"]["steps"][:2])
    assert first["ref"] == "${{ github.event.pull_request.base.sha }}" and "path" not in first
    assert second["path"] == "proposed"
    runs = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert not any(re.search(r"(python|bash|sh|make|\./)\S* +proposed/", run) for run in runs)


def test_actions_are_pinned_and_shells_get_no_text_of_strangers(workflow):
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used and all(re.fullmatch(r"actions/[\w/-]+@[0-9a-f]{40}", name) for name in used)
    assert not any("${{" in step.get("run", "") for step in steps)
    checkouts = [step["with"] for step in steps if "checkout" in step.get("uses", "")]
    assert all(options["persist-credentials"] is False for options in checkouts)


def test_the_truth_and_its_cache_leave_the_runner_only_locked(workflow):
    steps = workflow["jobs"]["score"]["steps"]
    cached = {s["with"]["path"] for s in steps if "actions/cache" in s.get("uses", "")}
    assert cached == {"scored.tar.gpg"}
    (page,) = (s["with"]["path"] for s in steps if "upload" in s.get("uses", ""))
    assert page == "${{ runner.temp }}/site"
