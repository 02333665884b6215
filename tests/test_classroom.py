"""A class's leaderboard: strangers' files, a hidden truth, nothing scored twice."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, make_cells, refuses

from vcc_helpers import classroom, scoring
from vcc_helpers.classroom import apart, contest
from vcc_helpers.scoring import ScoreCard

TODAY = date(2026, 3, 9)
SCRIPT = ROOT / "scripts" / "leaderboard.py"


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """The public and the private folder of a toy class, and two predictions."""
    root = tmp_path_factory.mktemp("class")
    cells = make_cells(n_cells=(30, 20, 40, 25, 60))
    cells.var_names = [*cells.var_names[:-3], "NA", "a,b", 'say "x"']
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


def hand_in(kit, folder):
    """Put one good file of each of two teams into a folder, and return it."""
    for team, source in (("ada", "noisy"), ("bob", "mean")):
        (folder / team).mkdir(parents=True)
        shutil.copy(kit / f"{source}.h5ad", folder / team / "2026-03-01.h5ad")
    return folder


@pytest.fixture
def handed_in(kit, tmp_path):
    return hand_in(kit, tmp_path / "submissions")


def baseline_of(kit):
    return ScoreCard.from_json(kit / "private" / "baseline.json")


def score(kit, folder, cache, **kw):
    kw |= {"baseline": baseline_of(kit), "cache": cache, "today": TODAY}
    return classroom.score_folder(folder, kit / "private" / "truth.h5ad", **kw)


def test_the_class_gets_no_cell_of_a_held_out_target(kit):
    known = anndata.read_h5ad(kit / "public" / "train.h5ad")
    truth = anndata.read_h5ad(kit / "private" / "truth.h5ad")
    targets = pd.read_csv(kit / "public" / "targets.csv", index_col=0)["n_cells"]
    assert not set(known.obs["target_gene"]) & set(targets.index)
    assert set(truth.obs["target_gene"]) == {*targets.index, "non-targeting"}
    assert targets.to_dict() == truth.obs["target_gene"].value_counts()[targets.index].to_dict()
    genes = pd.read_csv(kit / "public" / "genes.csv", keep_default_na=False)["gene"]
    assert genes.tolist() == truth.var_names.tolist() == known.var_names.tolist()
    assert sorted(p.name for p in (kit / "public").iterdir()) == [
        "genes.csv", "rules.txt", "targets.csv", "train.h5ad",
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


def test_a_class_of_2026_is_ranked_by_the_mean_over_contexts(tmp_path):
    cells = anndata.concat(
        {c: make_cells(n, n_cells=(60, 40, 50, 45, 90)) for n, c in enumerate(("K562", "H1"))},
        label="context", index_unique="-",
    )  # fmt: skip
    task, kept, folder = (tmp_path / name for name in ("task", "kept", "in"))
    classroom.prepare(cells, public=task, private=kept, n_known=1, preset="vcc2026")
    targets = pd.read_csv(task / "targets.csv")
    assert list(targets) == ["context", "target_gene", "n_cells"] and len(targets) == 6
    truth = anndata.read_h5ad(kept / "truth.h5ad")
    base = ScoreCard.from_json(kept / "baseline.json")
    assert base.overall(base) == 0
    pred = truth[truth.obs["target_gene"] != "non-targeting"].copy()
    entries = {"ada": pred, "bob": pred[pred.obs["context"] == "H1"], "eve": pred.copy()}
    entries["eve"].X = np.log1p(pred.X.astype(np.float32))
    for team, made in entries.items():
        (folder / team).mkdir(parents=True)
        made.write_h5ad(folder / team / "2026-03-01.h5ad")
    refused = classroom.check_folder(folder, task, today=TODAY)
    why = "pred: no cell of the contexts 'K562'; there are those of 'H1'; predict all, named as"
    assert refused.pop("bob, 2026-03-01") == f"{why} in real"
    assert "want raw counts" in refused.pop("eve, 2026-03-01") and not refused
    kw = {"baseline": base, "cache": tmp_path / "cache", "today": TODAY}
    scored, again = (classroom.score_folder(folder, kept / "truth.h5ad", **kw) for _ in range(2))
    [card], [kept_card] = scored.cards.values(), again.cards.values()
    assert list(card.contexts) == ["H1", "K562"] and kept_card.to_dict() == card.to_dict()
    classroom.publish(scored, tmp_path / "site", baseline=base)
    shown = json.loads((tmp_path / "site" / "cards" / "ada_2026-03-01.json").read_text())
    parts = {name: part.overall(base.contexts[name]) for name, part in card.contexts.items()}
    assert shown["overall"] == round(np.mean([*parts.values()]), 1) > 50
    assert shown["overall_of_contexts"] == {name: round(v, 1) for name, v in parts.items()}
    html = (tmp_path / "site" / "board.html").read_text()
    assert "overall of H1" in html and f">{parts['K562']:.1f}</td>" in html
    assert why in html.replace("&#x27;", "'")  # the name of a context may be told


@pytest.mark.parametrize(("public", "private", "options", "says"), [
    ("a", "a", {}, "hold each other"), ("a", "a/b", {}, "hold each other"),
    ("a/b", "a", {}, "hold each other"), ("a", "git/b", {}, "lies in a git repository"),
    ("a", "b", {"n_known": 0}, "0 of 4 targets known; expected 1 to 3"),
    ("a", "b", {"n_known": 4}, "4 of 4 targets known"),
    ("a", "b", {"control": "ctrl"}, "no control cells"),
])  # fmt: skip
def test_what_cannot_be_split_writes_nothing(public, private, options, says, tmp_path):
    (tmp_path / "git" / ".git").mkdir(parents=True)
    folders = {"public": tmp_path / public, "private": tmp_path / private}
    refuses(says, classroom.prepare, make_cells(), **folders, **{"n_known": 1} | options)
    assert [path.name for path in tmp_path.rglob("*")] == ["git", ".git"]


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
    why = "a second file of 2026-03-09; one per day counts"
    assert refused["ada/2026-03-09.vcc"].startswith(why)
    assert "is not yet" in refused["ada/2026-03-10.h5ad"]
    for name in ("ada/2026-02-30.h5ad", "ada/final.h5ad", "ada/2026-03-01.h5ad.exe"):
        assert refused[name].startswith("expected a name such as 2026-03-01.h5ad")
    for name in ("Ada", "-x", "<b>", "ü", "a" * 33):
        assert refused[name].startswith("no name for a team")
    assert "not in a team's folder" in refused["stray.h5ad"]
    assert refused["ada/more"].startswith("a link or a folder")
    assert len(refused) == 12


def test_links_are_refused_whatever_they_lead_to(kit, tmp_path):
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "2026-03-01.h5ad").symlink_to(kit / "private" / "truth.h5ad")
    (tmp_path / "eve").symlink_to(tmp_path / "ada")
    entries, refused = classroom.read_folder(tmp_path, today=TODAY)
    assert not entries and [why.split(";")[0] for why in refused.values()] == [
        "a link or a folder", "a link",
    ]  # fmt: skip


@pytest.mark.parametrize(("lines", "says"), [
    (["A\tsubmissions/ada/2026-03-09.h5ad"], None),
    (["M\tsubmissions/ada/2026-03-10.vcc"], None),
    ([], "0 files changed"),
    (["A\tsubmissions/ada/2026-03-09.h5ad", "M\tscripts/leaderboard.py"], "2 files changed"),
    (["M\t.github/workflows/leaderboard.yml"], "is no submission"),
    (["A\tother/submissions/ada/2026-03-09.h5ad"], "is no submission"),
    (["A\tsubmissions/Ada/2026-03-09.h5ad"], "is no submission"),
    (['A\t"submissions/ada/\\303\\274.h5ad"'], "is no submission"),
    (["A\tsubmissions/ada/2026-03-01.h5ad"], "is not of today"),
    (["D\tsubmissions/bob/2026-03-09.h5ad"], "removed or renamed"),
    (["R100\tsubmissions/bob/2026-03-09.h5ad\tsubmissions/a/b"], "removed or renamed"),
    (["A\t submissions/ada/2026-03-09.h5ad"], "is no submission"),
    (["A\tsubmissions/bob/2026-03-09.h5ad"], "in another team's folder; 'Ada-L' belongs"),
])  # fmt: skip
def test_a_change_hands_in_one_file_of_today_and_nothing_else(lines, says):
    """As lines, and as the output of git diff --name-status -z."""
    fields = "".join(f"{field}\0" for line in lines for field in line.split("\t"))
    for changes in (lines, fields):
        found = classroom.change_problems(
            changes, today=TODAY, account="Ada-L", teams={"ada-l": "ada", "bob": "bob"}
        )
        assert any(says in line for line in found) if says else found == []


def test_an_account_without_a_team_hands_in_nothing():
    """Nor does one that looks like another's, as with the Kelvin sign."""
    change, teams = "A\0submissions/kim/2026-03-09.h5ad\0", {"kim": "kim"}
    for account in ("eve", "", None, "\u212aim", "kim "):
        (found,) = classroom.change_problems(change, account=account, teams=teams, today=TODAY)
        assert "is in no team" in found
    assert not classroom.change_problems(change, account="Kim", teams=teams, today=TODAY)


@pytest.mark.parametrize(("lines", "says"), [
    ("Ada-L,ada\nbob,ada\nbob,ada\n", None),
    ("bob,ada\nBob,bob\n", "line 3: account 'bob', team 'bob'"),
    ("bob,Ada\n", "team 'Ada'; expected the columns account and team, a team's name of small"),
    (",ada\n", "line 2: account ''"),
    ("\u212aim,kim\n", "line 2"),
    ("bob\n", "team ''"),
])  # fmt: skip
def test_the_table_of_teams(lines, says, tmp_path):
    (tmp_path / "teams.csv").write_text(f"account,team\n{lines}", encoding="utf-8-sig")
    if says is None:
        assert classroom.read_teams(tmp_path / "teams.csv") == {"ada-l": "ada", "bob": "ada"}
    else:
        refuses(says, classroom.read_teams, tmp_path / "teams.csv")


def with_external_link(path, truth):
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(truth), "/X")


def of_text(path, _):
    path.write_text("hello")


def cut_short(path, _):
    path.write_bytes(path.read_bytes()[:-3000])


def negative(path, _):
    cells = anndata.read_h5ad(path)
    cells.X = cells.X - 5
    cells.write_h5ad(path)


# what else is refused is tested with the archive and the hostile files
BAD = {
    with_external_link: "/X is a link",
    of_text: "not an HDF5 file",
    cut_short: "truncated",
    negative: "negative",
}


def test_a_bad_file_says_why_and_does_not_stop_the_others(kit, handed_in, tmp_path):
    for number, spoil in enumerate(BAD):
        path = handed_in / f"team-{number}" / "2026-03-01.h5ad"
        path.parent.mkdir()
        shutil.copy(kit / "noisy.h5ad", path)
        spoil(path, kit / "private" / "truth.h5ad")
    found = score(kit, handed_in, tmp_path / "cache", size_limit="50MB")
    assert [entry.team for entry in found.cards] == ["ada", "bob"]
    # and the check that students see, without the truth, says the same
    refused = classroom.check_folder(handed_in, kit / "public", today=TODAY, size_limit="50MB")
    for told in (found.refused, refused):
        assert list(told) == [f"team-{number}, 2026-03-01" for number in range(len(BAD))]
        for why, expected in zip(told.values(), BAD.values(), strict=True):
            assert re.search(expected, why), why
            assert str(kit) not in why and str(tmp_path) not in why


def test_a_check_of_one_team_does_not_speak_of_others(kit, handed_in):
    of_text(handed_in / "bob" / "2026-03-01.h5ad", None)
    touch(handed_in, "bob/final.h5ad", "Bad/2026-03-01.h5ad")
    kw = {"only": {"ada"}, "today": TODAY}
    assert classroom.check_folder(handed_in, kit / "public", **kw) == {}


@pytest.fixture
def counted(monkeypatch):
    """Teams whose files are given to another process."""
    calls = []

    @contextmanager
    def processes():
        with apart.processes() as run:

            def counting(task, *, path, **options):
                calls.append(path.parent.name)
                return run(task, path=path, **options)

            yield counting

    monkeypatch.setattr(contest, "processes", processes)
    return calls


def values(scored):
    return {entry.name: card.summary.round(9).to_dict() for entry, card in scored.cards.items()}


@pytest.fixture(scope="session")
def scored_once(kit, tmp_path_factory):
    """Score the files of `handed_in` for the first time; the cache, and what was found."""
    folder = tmp_path_factory.mktemp("first")
    return folder / "cache", score(kit, hand_in(kit, folder / "in"), folder / "cache")


@pytest.fixture
def cache(scored_once, tmp_path):
    return Path(shutil.copytree(scored_once[0], tmp_path / "cache"))


def test_the_first_score_stands_whatever_comes_between(
    kit, handed_in, cache, scored_once, counted, monkeypatch
):
    bob = handed_in / "bob" / "2026-03-01.h5ad"
    shutil.copy(handed_in / "ada" / "2026-03-01.h5ad", bob.with_name("2026-03-02.h5ad"))
    second = score(kit, handed_in, cache)
    assert counted == [] and second.refused == {}  # the new one is a copy
    days = ("ada, 2026-03-01", "bob, 2026-03-02", "bob, 2026-03-01")
    ada, copied, other = (values(second)[name] for name in days)
    assert ada == copied != other and values(scored_once[1]).items() <= values(second).items()
    # a file that changes, and a version that counts otherwise
    shutil.copy(kit / "noisy.h5ad", bob)
    monkeypatch.setattr(contest, "SCORING_VERSION", contest.SCORING_VERSION + 1)
    third = score(kit, handed_in, cache)
    assert counted == ["ada"]  # bob's second file is the same
    assert values(third) == values(second)
    assert third.refused == {
        "bob, 2026-03-01": "the file changed after it was scored; its first score counts"
    }


def test_a_damaged_record_says_so_and_stops_nothing(kit, handed_in, cache, scored_once, counted):
    (cache / "records" / "ada_2026-03-01.json").write_bytes(b"\x89HDF")
    (cache / "records" / "bob_2026-03-01.json").write_text("[" * 10**5)
    (cache / "records" / "slow.json").write_text('{"a": []}')
    found = score(kit, handed_in, cache)
    assert counted == ["ada", "bob"] and values(found) == values(scored_once[1])
    assert list(found.refused) == ["ada, 2026-03-01", "bob, 2026-03-01"]
    assert all("its record is damaged" in why for why in found.refused.values())
    assert (cache / "records" / "ada_2026-03-01.json.damaged").read_bytes() == b"\x89HDF"


def test_a_file_without_a_score_is_tried_with_more_time_or_when_it_is_mended(
    kit, handed_in, tmp_path, counted
):
    for seconds in (1e-3, 1e-4):  # as little time: not tried again
        found = score(kit, handed_in, tmp_path / "cache", seconds=seconds)
        assert len(counted) == 2 and found.cards == {}
        assert f"took longer than {seconds:g} seconds" in found.refused["ada, 2026-03-01"]
    shutil.copy(kit / "noisy.h5ad", handed_in / "bob" / "2026-03-01.h5ad")
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
    found = classroom.newest({new: "n", old: "o", other: "b"})
    assert found == {"ada, 2026-03-02": "n", "bob, 2026-03-01": "b"}


def publish(kit, scored, out, **kw):
    classroom.publish(scored, out, baseline=baseline_of(kit), **kw)


SAID = "Ada cheats"
#: Why a file was not scored, and what of it is shown.
REASONS = [
    (f"the genes b'{SAID}', \"a'{SAID}\" and 'X' differ", "the genes '...', '...' and 'X' differ"),
    (f"'/uns/{SAID}' is a link; expected plain data", ""),
    (f"cells.h5ad cannot be read as an .h5ad (object 'x' doesn't; {SAID}; '' is not there)", ""),
    (f"cells.h5ad cannot be read as an .h5ad (no {SAID}", ""),
]


def test_what_is_published_holds_means_only(kit, scored_once, tmp_path):
    scored = scored_once[1]
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
    for shown, told in REASONS:
        publish(kit, classroom.Scored({entry: scored.cards[entry]}, {"bob": shown}), site)
        assert [p.name for p in (site / "cards").iterdir()] == ["ada_2026-03-01.json"]
        html = (site / "board.html").read_text()
        assert f"bob: not scored: {told}" in html.replace("&#x27;", "'")
        assert SAID not in html  # a file can have that from anywhere
    assert {p.name for p in tmp_path.iterdir()} == {"site"}


def test_the_page_is_written_whole_or_not_at_all(kit, scored_once, tmp_path, monkeypatch):
    scored, site, real = scored_once[1], tmp_path / "site", Path.rename
    publish(kit, scored, site)
    before = {p: p.read_bytes() for p in site.rglob("*.*")}

    def rename(self, target):
        if self.name == "new":
            raise OSError("no space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="no space"):
        publish(kit, classroom.Scored(scored.cards, {"x": "y"}), site)
    assert {p: p.read_bytes() for p in site.rglob("*.*")} == before
    assert {p.name for p in tmp_path.iterdir()} == {"site"}


@pytest.mark.parametrize("name", ["thesis.txt", "cards/thesis.txt", "cards/christmas.json"])
def test_a_page_replaces_only_what_it_wrote(name, kit, scored_once, tmp_path):
    touch(site := tmp_path / "site", name)
    refuses(f"'{Path(name).name}'.*would be lost", publish, kit, classroom.Scored({}, {}), site)
    assert (site / name).read_text() == "x"
    refuses("is a file", publish, kit, classroom.Scored({}, {}), site / name)
    (site / name).unlink()
    for _ in range(2):
        publish(kit, scored_once[1], site)
    publish(kit, classroom.Scored({}, {}), tmp_path / "new" / "site")
    assert "no entry has a score yet" in (tmp_path / "new" / "site" / "board.html").read_text()


def test_a_page_has_the_place_of_no_folder_and_of_no_link(kit, tmp_path):
    (tmp_path / "site" / "board.html").mkdir(parents=True)
    with pytest.raises(ValueError, match="'board.html', which would be lost"):
        publish(kit, classroom.Scored({}, {}), tmp_path / "site")
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    publish(kit, classroom.Scored({}, {}), tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "mine" / "board.html").exists()


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
        "leaderboard: 'bob, 2026-03-01': not an HDF5 file: it may be cut short, "
        "still compressed, or of another format; write it with AnnData.write_h5ad\n"
    )
    status, out, err = run("score", handed_in, "--out", tmp_path / "site")
    assert status == 0 and out.endswith("1 entries\n") and err.count("\n") == 1
    assert (tmp_path / "private" / "scored").is_dir()
    (tmp_path / "diff.txt").write_text("M\tREADME.md\n")
    words = ("check", handed_in, "--task", kit / "public", "--changes", tmp_path / "diff.txt")
    status, out, _ = run(*words)
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


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_line_break_in_a_name_stays_on_its_line(run, kit, tmp_path):
    touch(tmp_path / "submissions", "a\n::stop-commands::x/2026-03-01.h5ad")
    _, out, _ = run("check", tmp_path / "submissions", "--task", kit / "public")
    assert all(line.startswith("leaderboard: ") for line in out.splitlines())


def test_no_module_of_the_folder_is_run(tmp_path, monkeypatch):
    """Who scores a class may be in the very folder that files are put in."""
    (tmp_path / "json.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with apart.processes() as run:
        limits = {"size_limit": "1GB", "seconds": 60, "memory": "1GB"}
        assert run("check", path="none", task_folder=".", **limits) == "no such file: none"
    assert not (tmp_path / "ran").exists()


@pytest.fixture
def workflow():
    text = (SCRIPT.parents[1] / ".github" / "workflows" / "leaderboard.yml").read_text()
    return yaml.safe_load(text)


def test_strangers_meet_no_secret_and_none_of_their_code_runs(workflow):
    jobs = workflow["jobs"]
    assert set(workflow[True]) == {"pull_request", "push", "workflow_dispatch"}
    assert [name for name in jobs if "secrets." in json.dumps(jobs[name])] == ["score"]
    assert jobs["check"]["if"] == "github.event_name == 'pull_request'"
    condition = jobs["score"]["if"]
    assert "github.event_name != 'pull_request'" in condition and "refs/heads/main" in condition
    first, second = (step["with"] for step in jobs["check"]["steps"][:2])
    assert first["ref"] == "${{ github.event.pull_request.base.sha }}" and "path" not in first
    assert second["path"] == "proposed"
    steps = [step for job in jobs.values() for step in job["steps"]]
    runs = [step.get("run", "") for step in steps]
    assert not any("${{" in run for run in runs)
    assert not any(re.search(r"(python|bash|sh|make|\./)\S* +proposed/", run) for run in runs)
    # the truth leaves only locked; who may write runs nothing of the project
    uploads = [step["with"]["path"] for step in steps if "upload" in step.get("uses", "")]
    assert uploads == ["scored.tar.gpg", "${{ runner.temp }}/site"]
    assert "cache" not in json.dumps(workflow) and "python" not in json.dumps(jobs["records"])
    writers = [name for name, job in jobs.items() if "contents" in job.get("permissions", {})]
    assert writers == ["records"] and "checkout" not in json.dumps(jobs["records"])
    (install,) = (step["run"] for step in jobs["score"]["steps"] if step.get("name") == "Install")
    assert install.count("pip install") == 2 and "--require-hashes" in install


HOOK = """
import os, time
from contextlib import contextmanager
from vcc_helpers.submission import archive

opened = archive.opened

@contextmanager
def strange(path, **limits):
    if "PASSPHRASE" in os.environ:
        raise PermissionError("a secret lies open")
    with open(path, "rb") as file:
        begin = file.read(5)
    if begin == b"CRASH":
        os.kill(os.getpid(), 11)
    if begin == b"SLEEP":
        time.sleep(600)
    with opened(path, **limits) as inner:
        yield inner

archive.opened = strange
"""


@pytest.fixture
def steps(workflow, tmp_path, monkeypatch):
    """Run a step of the workflow by its name, in a folder that is the repository's."""
    for name, lines in {"python": f'exec "{sys.executable}" "$@"', "gh": "exit 0"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{lines}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "temp").mkdir()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    root = SCRIPT.parents[1]
    gpg = tempfile.mkdtemp(prefix="g")  # its path may not be long
    for name, value in {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "RUNNER_TEMP": tmp_path / "temp",
        "PYTHONPATH": f"{tmp_path / 'hook'}:{root}", "GITHUB_SERVER_URL": f"file://{tmp_path}",
        "GITHUB_REPOSITORY": "class", "GITHUB_RUN_ID": "7", "PASSPHRASE": "a b$c",
        "TITLE": "Spring", "GNUPGHOME": gpg, "GIT_CONFIG_GLOBAL": tmp_path / "gitconfig",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.syspath_prepend(tmp_path / "hook")
    config = "[user]\nname = a\nemail = a@b\n[init]\ndefaultBranch=main\n"
    (tmp_path / "gitconfig").write_text(config)
    place = tmp_path / "place"
    place.mkdir()
    (place / "scripts").symlink_to(SCRIPT.parent)
    found = {
        s["name"]: s["run"] for j in workflow["jobs"].values() for s in j["steps"] if "name" in s
    }

    def step(name, *, cwd=place, more=""):
        line = found[name].replace("leaderboard.py score", f"leaderboard.py score {more}")
        done = subprocess.run(["bash", "-eo", "pipefail", "-c", line], cwd=cwd, **read)
        assert done.returncode == 0, (name, done.stderr)
        return done.stdout + done.stderr

    read = {"capture_output": True, "text": True}
    step.place = place
    yield step
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=False)
    shutil.rmtree(gpg, ignore_errors=True)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="no gpg")
def test_a_class_played_through_by_the_steps_of_the_workflow(
    steps, run, kit, tmp_path, monkeypatch
):
    """Fair hand-ins, each unfair one, one that ends its process and one that never ends."""
    place, temp, day = steps.place, tmp_path / "temp", datetime.now(UTC).date()
    shutil.copytree(kit / "public", place / "task")
    (place / "task" / "teams.csv").write_text("account,team\nAda-L,ada\nbob,bob\neve,eve\n")
    repository = place / "proposed"
    (repository / "submissions").mkdir(parents=True)
    (repository / "submissions" / "README.md").write_text("hand in here")

    def git(*words, folder=repository):
        subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)

    def propose(account, path, content):
        git("checkout", "-b", "proposal")
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_bytes(content)
        for words in ("add .", "commit -m mine", "checkout main", "merge --no-ff proposal"):
            git(*words.split())
        git("branch", "-d", "proposal")
        steps("What is changed")
        monkeypatch.setenv("VCC_ACCOUNT", account)

    git("init")
    git("add", ".")
    git("commit", "-m", "start")
    noisy, mean = ((kit / f"{name}.h5ad").read_bytes() for name in ("noisy", "mean"))
    propose("ada-l", f"submissions/ada/{day}.h5ad", noisy)
    fair = steps("One file of today, of the team of who proposes it, and can it be scored?")
    assert fair == "all can be scored\n"
    for account, path, content, words in [
        ("eve", f"submissions/ada/{day}.h5ad", mean, "in another team's folder"),
        ("eve", "task/teams.csv", b"account,team\neve,ada\n", "is no submission"),
        ("eve", f"submissions/eve/{day}.h5ad\n::error::", mean, "is no submission"),
        ("eve", f"submissions/eve/{day}.h5ad", b"CRASH", "ended the process (SIGSEGV)"),
        ("eve", f"submissions/eve/{day}.vcc", b"SLEEP", "took longer than 2 seconds"),
    ]:
        propose(account, path, content)
        words_of_step = ("check", repository / "submissions", "--task", place / "task")
        status, said, _ = run(*words_of_step, "--changes", temp / "changes", "--seconds", 2)
        assert status == 1 and words in said, (path, said)
        assert all(line.startswith("leaderboard: ") for line in said.splitlines()), said
        git("reset", "--hard", "HEAD^1")

    # the teacher merges all the same
    shutil.copytree(repository / "submissions", place / "submissions")
    for team, content in {"bob": mean, "crash": b"CRASH", "sleep": b"SLEEP"}.items():
        (place / "submissions" / team).mkdir()
        (place / "submissions" / team / f"{day}.h5ad").write_bytes(content)
    git("init", "--bare", tmp_path / "class.git")
    git("init", folder=place)
    lines = f"""
        tar -cf "{temp}/t.tar" -C "{kit}/private" truth.h5ad baseline.json
        gpg --batch --quiet --pinentry-mode loopback --passphrase-fd 3 --symmetric \\
          --output "{place}/task/private.tar.gpg" "{temp}/t.tar" 3<<< "$PASSPHRASE"
    """
    subprocess.run(["bash", "-ec", lines], check=True)

    def score_job(number):
        steps("Fetch what was scored")
        steps("Unlock the truth and what was scored")
        said = steps("Score what is new, write the page", more="--seconds 6")
        steps("Lock what was scored")
        (kept := tmp_path / f"records job {number}").mkdir()
        shutil.move(place / "scored.tar.gpg", kept)
        steps("Keep what was scored", cwd=kept)
        shutil.rmtree(temp / "private")
        site = temp / "site"
        cards = {path.stem: path.read_bytes() for path in (site / "cards").iterdir()}
        html = (site / "board.html").read_text()
        shutil.rmtree(site)
        return said, html, cards

    said, _, first = score_job(1)
    assert "(SIGSEGV)" in said and "longer than 6 seconds" in said
    assert set(first) == {f"ada_{day}", f"bob_{day}"}
    (place / "submissions" / "bob" / f"{day}.h5ad").write_bytes(noisy)
    _, html, second = score_job(2)
    assert second == first and "its first score counts" in html
