"""What an attack on the whole found: files that lead elsewhere, fill the memory or take hours."""

import json
import os
import sys
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from conftest import KEY, make_cells
from scipy import sparse

from vcc_helpers import ScoreCard, classroom, lognorm, pseudobulk, score, sort_cells
from vcc_helpers.classroom.apart import processes
from vcc_helpers.classroom.contest import Entry, Scored
from vcc_helpers.cli import main
from vcc_helpers.datasets import read_screen
from vcc_helpers.features import embedding
from vcc_helpers.names import match
from vcc_helpers.splits import from_toml
from vcc_helpers.stream import contrast, inspect_values, open_cells, rank_sum
from vcc_helpers.stream.guard import check_hdf5, check_zarr
from vcc_helpers.submission import check
from vcc_helpers.submission.lists import read_counts, read_genes

if sys.platform == "win32":
    pytest.skip("pipes and links are those of POSIX systems", allow_module_level=True)

STRING = h5py.string_dtype()


@pytest.fixture
def path(tmp_path):
    cells = make_cells(3)
    cells.X = sparse.csr_matrix(cells.X)
    with anndata.settings.override(allow_write_nullable_strings=False):
        cells.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


# Places that nobody looked at


def layer_of_another_file(file):
    """Show the bytes of another file as a layer, which is not read, so not looked through."""
    secret = Path(file.filename).with_name("secret")
    secret.write_bytes(b"the truth" * 131)
    file.require_group("layers").create_dataset("a", (131,), "S9", external=[(secret, 0, 1179)])
    file["layers/a"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})


def column_from_a_layer(file):
    layer_of_another_file(file)
    file["obs"].attrs["column-order"] = np.array([KEY, "/layers/a"], STRING)


def index_from_a_layer(file):
    layer_of_another_file(file)
    file["obs"].attrs["_index"] = "/layers/a"


def old_categories_from_a_layer(file):
    layer_of_another_file(file)
    file["obs"].attrs["encoding-version"] = "0.1.0"
    file["obs/kind"] = np.zeros(131, np.int8)
    file["obs/kind"].attrs["categories"] = "/layers/a"


# Memory and time


def array(file, name, shape, kind="f8", **kw):
    made = file.create_dataset(name, shape, kind, **kw)
    made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return made


def many_small_promises(file):
    for i in range(40):
        array(file, f"uns/{i}", (2**23,), chunks=(2**17,))


def many_names_of_one_array(file):
    values = array(file, "uns/a", (2**23,), chunks=(2**17,), compression="gzip")
    values[:] = 0
    for i in range(40):
        file[f"uns/{i}"] = values


def promised_strings(file):
    array(file, "uns/a", (2**36,), STRING, chunks=(2**15,))


def promised_strings_in_x(file):
    array(file, "X/more", (2**36,), STRING, chunks=(2**15,))


def rows_of_strings(file):
    """Repeat one string: a copy of each element's pointer, as HDF5 has no limit."""
    file["uns/a"] = np.array([["x" * 2**17] * 3] * 3, STRING)


def records_of_strings(file):
    kind = np.dtype([("names", STRING)])
    file["uns/a"] = np.array([("x" * 2**17,)] * 3, kind)


def arrays_in_an_array(file):
    file.create_dataset("uns/a", (3,), h5py.vlen_dtype("i8"))


def deep_groups(file):
    file.create_group("uns/" + "/".join("a" * 100))


def a_type_for_x(file):
    del file["X"]
    file["X"] = np.dtype("f4")


def values_of_16_bytes(file):
    values = file["X/data"][:].astype(np.longdouble)
    del file["X/data"]
    file["X/data"] = values


def many_values_in_a_row(file):
    """Declare them; the row is read as a whole."""
    n = 10**7
    for name in ("data", "indices"):
        kind = file["X"][name].dtype
        del file["X"][name]
        file.create_dataset(f"X/{name}", (n,), kind, chunks=(2**18,), compression="gzip")
    file["X/indptr"][1:] = n


def damaged_table(file):
    """Let a row of a table lead outside; its rows are put in order when cells are sorted."""
    file.copy("X", file.require_group("obsm"), name="b")
    file["obsm/b/indptr"][7] = 10**7


def nothing_for_x(file):
    del file["X"]
    file["X"] = h5py.Empty("f4")


def no_number_for_a_shape(file):
    file["X"].attrs["shape"] = np.array([np.nan, 24])


FILES = [
    (column_from_a_layer, "names a place from the root on"),
    (index_from_a_layer, "names a place from the root on"),
    (old_categories_from_a_layer, "names a place from the root on"),
    (many_small_promises, "all up to '/uns/.*' declares"),
    (many_names_of_one_array, "all up to '/uns/.*' declares"),
    (promised_strings, "declares .* bytes and stores 0"),
    (promised_strings_in_x, "declares .* bytes and stores 0"),
    (rows_of_strings, "holds strings of 131,072 bytes"),
    (records_of_strings, "holds strings of 131,072 bytes"),
    (arrays_in_an_array, "holds arrays in arrays"),
    (deep_groups, "more than 64 deep"),
    (a_type_for_x, "/X is no array and no group"),
    (values_of_16_bytes, "no real numbers of at most 8 bytes"),
    (many_values_in_a_row, "X stores 10,000,000 values in a row, or column, of 24"),
    (damaged_table, r"the sparse matrix obsm\['b'\] is damaged"),
    (nothing_for_x, "cannot be read as an .h5ad"),
    (no_number_for_a_shape, "cannot be read as an .h5ad"),
]


@pytest.mark.parametrize(("spoil", "words"), FILES, ids=[spoil.__name__ for spoil, _ in FILES])
def test_a_file_is_refused_in_words_and_at_once(spoil, words, path, capsys):
    with h5py.File(path, "a") as file:
        check_hdf5(file)
        spoil(file)
    begin = time.monotonic()
    with pytest.raises(ValueError, match=words) as refused:
        open_cells(path)
    assert time.monotonic() - begin < 20 and "the truth" not in str(refused.value)
    assert main(["check", str(path)]) == 1
    assert "the truth" not in capsys.readouterr().err


def test_records_of_names_are_plain_data(path):
    """Scanpy writes the names of ranked genes so, and R two columns of text."""
    with h5py.File(path, "a") as file:
        file["uns/a"] = np.array([("SOX2", 1.0)], np.dtype([("names", STRING), ("score", "f4")]))
        file["uns/b"] = np.array([["a", "b"], ["c", "d"]], STRING)
        check_hdf5(file)


@pytest.mark.parametrize("name", ["indptr", "indices"])
@pytest.mark.parametrize("value", [10**6, -5])
def test_a_damaged_matrix_in_memory_ends_no_interpreter(name, value):
    cells = make_cells(3)
    matrix = sparse.csr_matrix(cells.X)
    getattr(matrix, name)[7] = value
    cells.X = matrix
    labels = cells.obs[KEY].astype(str)
    for read in (
        contrast,
        pseudobulk,
        inspect_values,
        check,
        lognorm,
        lambda x: rank_sum(x.X, labels, control="non-targeting"),
    ):
        with pytest.raises(ValueError, match="damaged|does not rise"):
            read(cells)


def test_labels_and_values_that_cannot_be_ranked():
    labels = pd.Index(["A", "non-targeting"] * 15)
    for matrix, words in (
        (np.ones((20, 2)), "30 labels for cells x genes of shape"),
        (np.ones(30), "30 labels for cells x genes of shape"),
        (np.ones((30, 2), "c8"), "have no order"),
    ):
        with pytest.raises(ValueError, match=words):
            rank_sum(matrix, labels, control="non-targeting")


def test_a_damaged_cell_ranger_file(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        parts = {"data": [1, 1], "indices": [0, 10**6], "indptr": [0, 2], "shape": [1, 1]}
        for name, values in parts.items():
            file[f"matrix/{name}"] = values
        file["matrix/barcodes"] = np.array(["c"], STRING)
        for name in ("id", "name", "feature_type"):
            file[f"matrix/features/{name}"] = np.array(["Gene Expression"], STRING)
    with pytest.raises(ValueError, match="damaged: an entry is at place 1000000 of 1"):
        read_screen(tmp_path / "a.h5")


def described(change):
    """Change what a store says of an array of `obs`."""

    def spoil(folder):
        place = folder / "obs" / "more" / "zarr.json"
        words = json.loads(place.read_text())
        change(words)
        place.write_text(json.dumps(words))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (described(lambda w: w.update(shape=[2**40])), "declare 8,796,0.* and its files hold"),
        (described(lambda w: w.update(shape=["5"])), "for an array of"),
        (
            described(
                lambda w: w.update(
                    data_type={
                        "name": "fixed_length_utf32",
                        "configuration": {"length_bytes": 10**9},
                    }
                )
            ),
            "chunks of",
        ),
    ],
)
def test_a_store_that_declares_more_than_it_holds(spoil, words, tmp_path):
    with anndata.settings.override(zarr_write_format=3):
        make_cells(3).write_zarr(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr", mode="a")["obs"].create_array(
        "more", shape=(131,), chunks=(131,), dtype="f8"
    )
    check_zarr(tmp_path / "a.zarr")
    spoil(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match=words):
        check_zarr(tmp_path / "a.zarr")


@pytest.mark.filterwarnings("ignore:.*zarr.*:DeprecationWarning", "ignore:Writing zarr v2")
@pytest.mark.parametrize("version", [2, 3])
def test_a_store_that_was_copied_in_part(version, tmp_path):
    """Zarr takes what is absent for zeros."""
    cells = make_cells(3)
    cells.X = sparse.csr_matrix(cells.X)
    with anndata.settings.override(zarr_write_format=version):
        cells.write_zarr(tmp_path / "a.zarr")
    np.testing.assert_array_equal(pseudobulk(tmp_path / "a.zarr").X, pseudobulk(cells).X)
    next(p for p in (tmp_path / "a.zarr/X/data").rglob("0")).unlink()
    with pytest.raises(ValueError, match="parts of X/data are not there"):
        open_cells(tmp_path / "a.zarr")


@pytest.mark.parametrize("kind", ["<f2", ">f2"])
@pytest.mark.parametrize("form", ["X", "X/data"])
def test_half_precision_in_any_form(kind, form, path, tmp_path):
    cells = make_cells(3)
    if form == "X":
        cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        values, attributes = file[form][:], dict(file[form].attrs)
        del file[form]
        file[form] = values.astype(kind)
        file[form].attrs.update(attributes)
    np.testing.assert_array_equal(pseudobulk(path).X, pseudobulk(cells).X)
    found = anndata.read_h5ad(sort_cells(path, tmp_path / "s.h5ad"))[cells.obs_names]
    np.testing.assert_array_equal(found.X.toarray(), cells.X)


@pytest.mark.parametrize("sizes", ["2000000000 3 1", "3 3 100000000000", "100000 100000"])
def test_a_matrix_of_text_that_declares_more_than_it_holds(sizes, tmp_path):
    form = "coordinate" if sizes.count(" ") == 2 else "array"
    text = f"%%MatrixMarket matrix {form} integer general\n{sizes}\n1 1 1\n"
    (tmp_path / "matrix.mtx").write_text(text)
    (tmp_path / "features.tsv").write_text("E0\tG0\tGene Expression\n")
    (tmp_path / "barcodes.tsv").write_text("a\n")
    with pytest.raises(ValueError, match="cannot be read as a Matrix Market.*so small a file"):
        read_screen(tmp_path)


# Commands


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    for command in ("check", "pseudobulk"):
        assert main([command, str(tmp_path / "pipe"), *["out"] * (command != "check")]) == 1
        assert "no plain file but a pipe" in capsys.readouterr().err
    os.mkfifo(tmp_path / "matrix.mtx")
    os.mkfifo(tmp_path / "table.csv")
    for path in (tmp_path, tmp_path / "table.csv"):
        with pytest.raises(FileNotFoundError):
            read_screen(path)


    with pytest.raises(ValueError, match="no plain file"):
        embedding(tmp_path / "table.csv")


def test_a_split_without_an_end(tmp_path):
    (tmp_path / "a.toml").write_text("a=" + "[" * 10**5)
    with pytest.raises(ValueError, match="a.toml"):
        from_toml(tmp_path / "a.toml", targets=["A"], context="x")


def test_the_folder_to_keep_in_is_no_output(path, monkeypatch, tmp_path, capsys):
    """It would be there, as a folder, when the score is to be written."""
    monkeypatch.chdir(tmp_path)
    assert main(["score", path.name, path.name, "--json", "new", "--cache", "./new"]) == 1
    assert "is the same file; name two" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("missed", ["abc", [1], None, 5, {"pds": ["X"]}, {"x": []}, {"pds": 1}])
def test_a_card_that_missed_what_it_does_not_hold(missed, tmp_path):
    score(make_cells(3), make_cells(3)).to_json(tmp_path / "card.json")
    card = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(card | {"missed": missed}))
    with pytest.raises(ValueError, match="is not a score card"):
        ScoreCard.from_json(tmp_path / "card.json")


def test_a_card_without_a_mean(tmp_path):
    rows = {"A": {"mae": 1e308}, "B": {"mae": 1e308}}
    card = {"preset": "vcc2025", "per_perturbation": rows, "settings": {}}
    (tmp_path / "card.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match="not finite, or too large"):
        ScoreCard.from_json(tmp_path / "card.json")


def test_any_number_of_threads(path, capsys):
    assert main(["score", str(path), str(path), "--threads", "9" * 18]) == 0
    assert "mae    0.0000" in capsys.readouterr().out


def test_a_folder_that_is_gone(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["check", "a.h5ad"]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_list_of_many_columns(tmp_path):
    (tmp_path / "genes.csv").write_text("a" + ",b" * 10**5 + "\na" * 10**5)
    with pytest.raises(ValueError, match="has 100,001 columns"):
        read_genes(tmp_path / "genes.csv")


def test_long_names_are_not_searched_for_likeness():
    rng = np.random.default_rng(0)
    found, wanted = (["".join(rng.choice(list("ACGT"), 20_000)) for _ in range(9)] for _ in "ab")
    begin = time.monotonic()
    assert match([*found, "SOX22"], [*wanted, "SOX2"]).near == {"SOX22": "SOX2"}
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize("number", ["1e300", "99999999999999999999"])
def test_numbers_that_no_whole_number_holds(number, tmp_path):
    (tmp_path / "counts.csv").write_text(f"target_gene,n_cells\nA,{number}\n")
    with pytest.raises(ValueError, match="numbers of cells of 'A' are not whole numbers"):
        read_counts(tmp_path / "counts.csv")


def test_a_table_with_a_column_twice(tmp_path):
    (tmp_path / "counts.csv").write_text("target_gene,n_cells,n_cells\nA,1,2\n")
    with pytest.raises(ValueError, match="more than one column 'n_cells'"):
        read_counts(tmp_path / "counts.csv")


def test_what_is_kept_follows_no_link(path, tmp_path):
    """The name of what is kept can be known, and a link put in its place."""
    contrast(path, cache=tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.unlink()
    (tmp_path / "thesis").write_text("years")
    kept.symlink_to(tmp_path / "thesis")
    expected = contrast(path, cache=tmp_path / "kept")
    assert (tmp_path / "thesis").read_text() == "years"
    assert [file.name for file in (tmp_path / "kept").iterdir()] == [kept.name]
    found = contrast(path, cache=tmp_path / "kept")
    np.testing.assert_array_equal(found.mean, expected.mean)


# The class


def kit_of(folder):
    cells = make_cells(3)
    classroom.prepare(cells, public=folder / "public", private=folder / "private", n_known=1)
    return ScoreCard.from_json(folder / "private" / "baseline.json")


SAID = "Ada cheats"


@pytest.mark.parametrize(
    "why",
    [
        f"'/uns/{SAID}' is a link; expected plain data",
        f"cells.h5ad cannot be read as an .h5ad (object 'x' doesn't; {SAID}; '' is not there)",
        f"cells.h5ad cannot be read as an .h5ad (no {SAID}",
    ],
)
def test_a_page_repeats_no_text_of_a_file(why, tmp_path):
    baseline = kit_of(tmp_path)
    classroom.publish(Scored({}, {"bob": why}), tmp_path / "site", baseline=baseline)
    html = (tmp_path / "site" / "board.html").read_text()
    assert "bob: not scored" in html and SAID not in html


def test_a_name_in_a_file_is_told_in_quotation_marks(path):
    with h5py.File(path, "a") as file:
        file[f"uns/{SAID}"] = h5py.SoftLink("/obs")
        with pytest.raises(ValueError, match=f"^'/uns/{SAID}' is a link"):
            check_hdf5(file)


@pytest.mark.parametrize("name", ["thesis.txt", "christmas.json"])
def test_a_page_replaces_only_what_it_wrote(name, tmp_path):
    baseline, site = kit_of(tmp_path), tmp_path / "site"
    (site / "cards").mkdir(parents=True)
    (site / "cards" / name).write_text("years")
    with pytest.raises(ValueError, match=f"'{name}', which would be lost"):
        classroom.publish(Scored({}, {}), site, baseline=baseline)
    assert (site / "cards" / name).read_text() == "years"
    (site / "cards" / name).unlink()
    entry = Entry("ada", classroom.contest.date(2026, 3, 1), Path("x"))
    for _ in range(2):
        classroom.publish(Scored({entry: baseline}, {}), site, baseline=baseline)


def test_a_page_has_the_place_of_no_folder_and_of_no_link(tmp_path):
    baseline, site = kit_of(tmp_path), tmp_path / "site"
    (site / "board.html").mkdir(parents=True)
    with pytest.raises(ValueError, match="'board.html', which would be lost"):
        classroom.publish(Scored({}, {}), site, baseline=baseline)
    (tmp_path / "mine").mkdir()
    (tmp_path / "link").symlink_to("mine")
    classroom.publish(Scored({}, {}), tmp_path / "link", baseline=baseline)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "mine" / "board.html").exists()


def test_an_account_is_not_taken_for_one_that_looks_like_it(tmp_path):
    today = classroom.contest.date(2026, 3, 1)
    change = "A\0submissions/kim/2026-03-01.h5ad\0"
    for account, ok in {"Kim": True, "\u212aim": False, "kim ": False}.items():
        kw = {"account": account, "teams": {"kim": "kim"}, "today": today}
        assert (classroom.change_problems(change, **kw) == []) == ok
    (tmp_path / "teams.csv").write_text("account,team\n\u212aim,kim\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2"):
        classroom.read_teams(tmp_path / "teams.csv")


def test_no_module_of_the_folder_is_run(tmp_path, monkeypatch):
    """Who scores a class may be in the very folder that files are put in."""
    (tmp_path / "json.py").write_text("open('ran', 'w').close()")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with processes() as run:
        limits = {"size_limit": "1GB", "seconds": 60, "memory": "1GB"}
        assert run("check", path="none", task_folder=".", **limits) == "no such file: none"
    assert not (tmp_path / "ran").exists()
