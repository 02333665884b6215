"""Files from strangers: what a guard refuses, what a file is, and which list is meant."""

import gc
import json
import re
import time

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, KEY, make_cells, refuses
from scipy import sparse

from vcc_helpers import lognorm, pseudobulk, score, sort_cells
from vcc_helpers.cli import main
from vcc_helpers.datasets import read_screen
from vcc_helpers.stream import contrast, inspect_values, open_cells, rank_sum, write_cells
from vcc_helpers.stream._engine import rank_groups, sort_controls, span
from vcc_helpers.stream.guard import check_hdf5
from vcc_helpers.submission import check, mend
from vcc_helpers.submission.archive import opened, pack
from vcc_helpers.submission.lists import read_counts, read_genes


@pytest.fixture
def path(tmp_path):
    """Good cells on disk, in CSR."""
    cells = make_cells(3)
    cells.X = sparse.csr_matrix(cells.X)
    with anndata.settings.override(allow_write_nullable_strings=False):
        cells.write_h5ad(tmp_path / "a.h5ad")
    return tmp_path / "a.h5ad"


def unlinked_secret(file, folder):
    """Return a reference to a dataset without a name whose bytes are those of another file."""
    (folder / "secret").write_bytes(b"the truth")
    shown = file.create_dataset("t", (9,), "S1", external=[(str(folder / "secret"), 0, 9)])
    reference = shown.ref
    del file["t"]
    return reference


def old_categories(file, folder):
    file["obs/kind"] = np.zeros(3, np.int8)
    file["obs/kind"].attrs["categories"] = unlinked_secret(file, folder)


def references(file, folder):
    file["uns/kind"] = np.array([unlinked_secret(file, folder)], h5py.ref_dtype)


def region(file, folder):
    file["uns/a"] = np.arange(3)
    file["obs"].attrs["part"] = file["uns/a"].regionref[:2]


def virtual(file, folder):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("truth.h5ad", "X", (3,))
    file.create_virtual_dataset("layers/a", layout)


def dataset(name, *kind, **how):
    return lambda file, _: file.create_dataset(name, *kind, **how)


LONG, STRINGS = "x" * 2**17, h5py.string_dtype()


def long_string(n=1, **packing):
    return dataset("uns/a", data=["y"] * 50 + [LONG] + ["y"] * n, dtype=STRINGS, **packing)


def long_attribute(file, _):
    file["obs"].attrs["column-order"] = np.array([LONG] + ["y"] * 3999, STRINGS)


def share(path):
    """Let all strings after the long one be that: of each HDF5 stores length and place."""
    found = re.search(rb"\0\0\x02\0.{12}(\x01\0\0\0.{12})+", path.read_bytes(), re.DOTALL)
    n = (found.end() - found.start()) // 16
    with open(path, "r+b") as file:
        file.seek(found.start())
        file.write(found[0][:16] * n)


def layer_of_another_file(**said):
    """Show another file as a layer, which is not read, and let an attribute of obs name it."""

    def spoil(file, folder):
        (folder / "secret").write_bytes(b"the truth" * 131)
        shown = [(str(folder / "secret"), 0, 1179)]
        made = file.require_group("layers").create_dataset("a", (131,), "S9", external=shown)
        made.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        file["obs"].attrs.update(said)
        if "encoding-version" in said:  # then categories are named by an attribute
            file["obs/kind"] = np.zeros(131, np.int8)
            file["obs/kind"].attrs["categories"] = "/layers/a"

    return spoil


def many_small_promises(file, _):
    for i in range(40):
        file.create_dataset(f"uns/{i}", (2**23,), "f8", chunks=(2**17,))


def many_names_of_one_array(file, _):
    values = file.create_dataset("uns/a", data=np.zeros(2**23), compression="gzip")
    for i in range(40):
        file[f"uns/{i}"] = values


def replaced(place, change):
    def spoil(file, _):
        made = change(file[place])
        del file[place]
        file[place] = made

    return spoil


def many_values_in_a_row(file, _):
    n = 10**7
    for name in ("data", "indices"):
        kind = file["X"][name].dtype
        del file["X"][name]
        file.create_dataset(f"X/{name}", (n,), kind, chunks=(2**18,), compression="gzip")
    file["X/indptr"][1:] = n


def damaged_table(file, _):
    """Let a row of a table lead outside; its rows are put in order when cells are sorted."""
    file.copy("X", file.require_group("obsm"), name="b")
    file["obsm/b/indptr"][7] = 10**7


RECORD = np.dtype([("a", "i4"), ("b", h5py.ref_dtype)])
WORD = np.dtype([("number", "i4"), ("word", STRINGS)])
LZF = {"compression": "lzf", "shuffle": True, "chunks": (3,), "maxshape": (None,)}
SECRET = [("secret", 0, 9)]
SPOILED = {
    "old categories": (old_categories, "refers to something"),
    "references": (references, "holds references"),
    "a reference in a record": (dataset("uns/a", (2,), RECORD), "holds references"),
    "region": (region, "holds references"),
    "link": (lambda file, _: file.update({"uns/b": h5py.SoftLink("/obs")}), "'/uns/b' is a link"),
    "external": (dataset("layers/a", (9,), "u1", external=SECRET), "shows another file"),
    "virtual": (virtual, "shows another file"),
    "itself": (lambda file, _: file.update({"uns/self": file["/"]}), "there twice"),
    "a long string": (long_string(), "strings of 131,072"),
    "a packed one": (long_string(compression="gzip"), "strings of 131,072"),
    "packed in part": (long_string(**LZF), "strings of 131,072"),
    "long fill": (dataset("uns/a", (10**5,), STRINGS, chunks=(1000,), fillvalue=LONG), "names"),
    "in a record": (dataset("uns/a", data=np.array([(1, LONG)], WORD)), "strings of 131,072"),
    "in a packed one": (dataset("uns/a", data=np.array([(1, LONG)], WORD), **LZF), "131,072"),
    "shared": (long_string(10**5), "strings of 131,072"),
    "shared by an attribute": (long_attribute, "strings of 131,072"),
    "great chunk": (dataset("layers/a", (2**30,), "f8", chunks=(2**28,)), "chunks of"),
    "tiny chunks": (dataset("layers/a", (2**20,), "f4", chunks=(1,)), "chunks of"),
    "promises": (dataset("uns/a", (2**28,), "f4", chunks=(2**18,)), "declares 1,073,741,824"),
}


ELSEWHERE = "names a place from the root on"
COLUMNS = np.array([KEY, "/layers/a"], STRINGS)
NAMES_OF_STRINGS = np.dtype([("names", STRINGS)])
#: What is found only where cells are opened.
SPOILED_FOR_READERS = {
    "column of a layer": (layer_of_another_file(**{"column-order": COLUMNS}), ELSEWHERE),
    "index of a layer": (layer_of_another_file(_index="/layers/a"), ELSEWHERE),
    "categories": (layer_of_another_file(**{"encoding-version": "0.1.0"}), ELSEWHERE),
    "small promises": (many_small_promises, "all up to '/uns/.*' declares"),
    "many names": (many_names_of_one_array, "all up to '/uns/.*' declares"),
    "strings": (dataset("uns/a", (2**36,), STRINGS, chunks=(2**15,)), "declares .* and stores 0"),
    "strings in X": (dataset("X/a", (2**36,), STRINGS, chunks=(2**15,)), "declares .* stores 0"),
    "rows": (dataset("uns/a", data=[[LONG] * 3] * 3, dtype=STRINGS), "of 131,072 bytes"),
    "records": (dataset("uns/a", data=np.array([(LONG,)] * 3, NAMES_OF_STRINGS)), "of 131,072"),
    "arrays in an array": (dataset("uns/a", (3,), h5py.vlen_dtype("i8")), "arrays in arrays"),
    "deep": (lambda file, _: file.create_group("uns/" + "/".join("a" * 100)), "than 64 deep"),
    "a type": (replaced("X", lambda _: np.dtype("f4")), "/X is no array and no group"),
    "nothing": (replaced("X", lambda _: h5py.Empty("f4")), "cannot be read as an .h5ad"),
    "16 bytes": (replaced("X/data", lambda x: x[:].astype("g")), "no real numbers of at most 8"),
    "a long row": (many_values_in_a_row, "X stores 10,000,000 values in a row, or column, of 24"),
    "damaged table": (damaged_table, r"the sparse matrix obsm\['b'\] is damaged"),
    "no number": (lambda file, _: file["X"].attrs.update(shape=[np.nan, 24]), "cannot be read as"),
}


@pytest.mark.parametrize("name", SPOILED | SPOILED_FOR_READERS)
def test_what_is_no_plain_data_of_its_own_is_refused(name, path, tmp_path, capsys):
    """In words, and at once."""
    spoil, words = (SPOILED | SPOILED_FOR_READERS)[name]
    with h5py.File(path, "a") as file:
        check_hdf5(file)
        spoil(file, tmp_path)
        in_layer = name in SPOILED and "a" in file["layers"]  # which nobody reads, whatever it is
    if name.startswith("shared"):
        share(path)
    begin = time.monotonic()
    if name in SPOILED:
        with pytest.raises(ValueError, match=words) as refused, opened(path):
            pass
        assert "the truth" not in str(refused.value)
        words = f"cannot be read as an .h5ad.*{words}"
    if in_layer:
        assert open_cells(path).shape == (131, 24)
    else:
        with pytest.raises(ValueError, match=words) as refused:
            open_cells(path)
    assert main(["check", str(path)]) == 1
    assert time.monotonic() - begin < 20
    assert "the truth" not in str(refused.value) + capsys.readouterr().err


def test_odd_but_plain_data_passes(tmp_path):
    """Scanpy writes the names of ranked genes as records, and R two columns of text."""
    with h5py.File(tmp_path / "a.h5ad", "w", libver="latest", userblock_size=512) as file:
        file["obs/__categories/kind"] = [1, 2]
        file["obs/kind"] = [0, 1]
        file["obs/kind"].attrs["categories"] = file["obs/__categories/kind"].ref  # of AnnData 0.7
        for name in "abcdefghijkl":  # too many for the header
            file["obs"].attrs[name] = np.array(["a", "b"], STRINGS)
        file["uns/none"] = h5py.Empty("f4")
        dataset("uns/grows", data=["a"], dtype=STRINGS, maxshape=(None,), chunks=(9,))(file, None)
        file["uns/words"] = "x" * 2**17
        file["uns/a"] = np.array([("SOX2", 1.0)], np.dtype([("names", STRINGS), ("score", "f4")]))
        file["uns/b"] = np.array([["a", "b"], ["c", "d"]], STRINGS)
        file["raw"] = h5py.SoftLink("/obs")
    with h5py.File(tmp_path / "a.h5ad") as file:
        check_hdf5(file, without=("raw",))


MAKES = [{"userblock_size": 512}, {"libver": "latest"}, {"libver": "latest", "track_order": True}]


@pytest.mark.parametrize("how", MAKES)
def test_strings_of_attributes_are_found_in_headers_of_any_make(how, tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w", **how) as file:
        for i in range(0 if "libver" in how else 30):  # the header goes on elsewhere
            file.attrs[f"{i}"] = np.arange(9)
        file.attrs["long"] = np.array([LONG, "y"], STRINGS)
    with h5py.File(tmp_path / "a.h5ad") as file, pytest.raises(ValueError, match="131,072"):
        check_hdf5(file)


PICKLE = {"id": "pickle", "protocol": 4}
GREAT = {"configuration": {"chunk_shape": [2**40]}}
LONG_WORDS = {"name": "fixed_length_utf32", "configuration": {"length_bytes": 10**9}}
ZARR = {
    2: [
        ({"compressor": PICKLE}, "codec 'pickle'"), ({"filters": [PICKLE]}, "codec 'pickle'"),
        ({"chunks": [2**40]}, "chunks of"), ({}, "a link"),
    ],
    3: [
        ({"codecs": [{"name": "numcodecs.pickle"}]}, "pickle"), ({"chunk_grid": GREAT}, "chunks"),
        ({"shape": [2**40]}, "declare 8,796,0.* and its files hold"),
        ({"shape": ["5"]}, "for an array of"), ({"data_type": LONG_WORDS}, "chunks of"),
    ],
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*zarr.*:DeprecationWarning", "ignore:Writing zarr v2")
@pytest.mark.parametrize("version", ZARR)
def test_zarr_is_whole_and_unpacked_by_codecs_that_run_nothing(version, tmp_path):
    cells = make_cells(3)
    cells.X = sparse.csr_matrix(cells.X)
    with anndata.settings.override(zarr_write_format=version):
        cells.write_zarr(folder := tmp_path / "a.zarr")
    np.testing.assert_array_equal(pseudobulk(folder).X, pseudobulk(cells).X)
    path = next(folder.rglob("X/data/*arr*"))
    sound = path.read_text()
    for change, words in ZARR[version]:
        path.write_text(json.dumps(json.loads(sound) | change))
        if not change:
            (folder / "obs" / "more").symlink_to(folder.parent)
        refuses(f"zarr cannot be read as an .h5ad.*{words}", open_cells, folder)
    (folder / "obs" / "more").unlink(missing_ok=True)
    path.write_text(sound)
    next((folder / "X/data").rglob("0")).unlink()  # Zarr takes what is absent for zeros
    refuses("parts of X/data are not there", open_cells, folder)


@pytest.mark.parametrize("name", ["indptr", "indices"])
@pytest.mark.parametrize("value", [24, -5])  # of 24 genes
def test_a_damaged_matrix_in_memory_ends_no_interpreter(name, value):
    cells = make_cells(3)
    matrix, labels = sparse.csr_matrix(cells.X), cells.obs[KEY].astype(str)
    getattr(matrix, name)[7] = value
    cells.X = matrix
    ranked = lambda x: rank_sum(x.X, labels, control=CONTROL)  # noqa: E731
    for read in (contrast, pseudobulk, inspect_values, check, lognorm, ranked):
        refuses("damaged|does not rise", read, cells)


def test_an_archive_is_read_as_the_file_in_it(tmp_path, monkeypatch):
    cells = make_cells(3)
    cells.write_h5ad(tmp_path / "a.h5ad")
    pack(tmp_path / "a.h5ad", tmp_path / "a.vcc")
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    found = open_cells(tmp_path / "a.vcc")
    np.testing.assert_array_equal(pseudobulk(found).X, pseudobulk(cells).X)
    assert [path.name for path in scratch.glob("*/*")] == ["cells.h5ad"]
    del found
    gc.collect()
    assert not list(scratch.iterdir())


def test_layers_and_raw_stay_on_disk_and_are_told_when_they_are_lost(tmp_path):
    cells = make_cells(3)
    cells.raw = cells.copy()
    cells.layers["a"] = cells.X * 2
    cells.obsm["b"] = cells.X[:, :2]
    cells.uns["log1p"] = {"base": None}  # as scanpy has it
    cells.write_h5ad(tmp_path / "a.h5ad")
    found = open_cells(tmp_path / "a.h5ad")
    assert found.uns == cells.uns
    assert not [name for name in found.layers if name] and found.raw is None
    assert list(found.obsm) == ["b"]
    with pytest.warns(UserWarning, match=r"not carried over.*: layers\['a'\], raw"):
        sort_cells(tmp_path / "a.h5ad", tmp_path / "s.h5ad")
    screen = read_screen(tmp_path / "a.h5ad", layer="a")
    np.testing.assert_array_equal(screen.X.toarray(), cells.X * 2)


def test_what_is_written_holds_nothing_that_older_readers_lack(tmp_path):
    """AnnData 0.10 knows no nullable strings and no null."""
    cells = make_cells(3)
    cells.uns = {"log1p": {"base": None}, "note": "a"}
    cells.obs["barcode"] = [f"b{i}" for i in range(cells.n_obs)]
    cells.obs["other"] = pd.array([None, *cells.obs["barcode"][1:]], dtype="string")
    before = cells.copy()
    sort_cells(cells, tmp_path / "sorted.h5ad")
    write_cells(tmp_path / "written.h5ad", cells)
    write_cells(tmp_path / "bulk.h5ad", pseudobulk(cells))
    mend(tmp_path / "written.h5ad", tmp_path / "mended.h5ad")
    for path in tmp_path.glob("*.h5ad"):
        kinds = set()
        with h5py.File(path) as file:
            file.visititems(lambda _, item, kinds=kinds: kinds.add(item.attrs.get("encoding-type")))
        assert "string-array" in kinds and not kinds & {"nullable-string-array", "null"}, path
    found = anndata.read_h5ad(tmp_path / "written.h5ad")
    assert found.uns == {"log1p": {}, "note": "a"}
    assert found.obs["other"].isna().sum() == 1 and found.obs["barcode"].iloc[3] == "b3"
    assert found.obs_names.equals(before.obs_names)
    assert cells.uns["log1p"] == {"base": None} and list(cells.obs) == list(before.obs)


def test_words_for_what_no_machine_has(monkeypatch):
    twice = make_cells(3)
    labels = twice.obs[KEY]
    twice.obs = pd.concat([labels, labels], axis=1)
    refuses(f"obs has more than one column '{KEY}'; keep one", pseudobulk, twice)
    refuses("number of bytes or a text like.{60,120}$", contrast, make_cells(3), memory="9" * 400)

    def no_thread(*_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", no_thread)
    refuses("gives no more threads", contrast, make_cells(3), error=OSError)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csc_matrix])
def test_dask_blocks_of_any_kind(kind, tmp_path):
    array = pytest.importorskip("dask.array")
    cells = make_cells(3)
    lazy = cells.copy()
    lazy.X = array.from_array(cells.X, chunks=(50, 24)).map_blocks(kind)
    np.testing.assert_array_equal(pseudobulk(lazy).X, pseudobulk(cells).X)
    sort_cells(lazy, tmp_path / "a.h5ad")
    sort_cells(cells, tmp_path / "b.h5ad")
    assert (tmp_path / "a.h5ad").read_bytes() == (tmp_path / "b.h5ad").read_bytes()


@pytest.mark.filterwarnings("ignore:.*zarr.*:DeprecationWarning", "ignore:Writing zarr v2")
def test_a_store_by_columns_is_sorted(tmp_path):
    cells = make_cells(3)
    cells.X = sparse.csc_matrix(cells.X)
    cells.write_zarr(tmp_path / "a.zarr")
    found = anndata.read_h5ad(sort_cells(tmp_path / "a.zarr", tmp_path / "s.h5ad"))
    np.testing.assert_array_equal(found[cells.obs_names].X.toarray(), cells.X.toarray())


HUGE = [("float32", 3e38, np.asarray), ("float64", 1.5e308, sparse.csr_matrix)]


@pytest.mark.parametrize(("dtype", "value", "kind"), HUGE)
def test_a_cell_whose_sum_its_type_cannot_hold(dtype, value, kind, tmp_path):
    cells = make_cells(3)
    values = cells.X.astype(dtype)
    values[7, :5] = value
    cells.X = kind(values)
    cells.write_h5ad(path := tmp_path / "a.h5ad")
    words = f"'{cells.obs_names[7]}' add up to more than"
    for source in (cells, path):
        for read in (pseudobulk, lambda x: score(x, x), lambda x: lognorm(anndata.read_h5ad(path))):
            refuses(words, read, source)
        told = {problem.kind: str(problem) for problem in check(source).problems}
        assert words in told["too large values"]
    sorted_cells = anndata.read_h5ad(sort_cells(path, tmp_path / "s.h5ad"))
    np.testing.assert_array_equal(sorted_cells[cells.obs_names].X.toarray(), values)


@pytest.mark.parametrize(("dtype", "form"), [("f4", np.asarray), ("f8", sparse.csr_matrix)])
def test_no_value_passes_the_fence_of_the_walk(form, dtype):
    """What is no number, or above or below all others, would lead past the end of a gene."""
    good = np.random.default_rng(0).poisson(2, (12, 3)).astype(dtype)
    for value in (np.nan, -np.nan, np.inf, -np.inf, -1.0):
        bad = good.copy()
        bad[4, 1] = value
        bad = form(bad)
        with pytest.raises(ValueError, match="must be 0 or more and finite"):
            controls = sort_controls([form(good)])
            rank_groups([bad], np.r_[0, 12], controls, slice(0, 3), reach=span([bad]))
        if value != np.inf:  # which is the fence
            refuses("must be 0 or more and finite", sort_controls, [bad])


NAMES = ["ID1", "CCNL2", "SSU72", "SKI", "NA"]


def rows(pattern):
    return "\n".join(pattern.format(i=i, name=name) for i, name in enumerate(NAMES, 1))


LISTS = {
    "plain": rows("{name}"),
    "our header": "gene_name\n" + rows("{name}"),
    "any header": "my genes\n" + rows("{name}"),
    "pandas": ",gene\n" + rows("{i},{name}"),
    "R": '"","x"\n' + rows('"{i}","{name}"'),
    "10x": rows("ENSG0000{i}\t{name}\tGene Expression"),
    "semicolons": "id;gene\n" + rows("{i};{name}"),
    "ids first": "gene_id,gene_name\n" + rows("ENSG0000{i},{name}"),
    "Windows": "\ufeffgene\r\n" + rows("{name}").replace("\n", "\r\n") + "\r\n\r\n",
}


@pytest.mark.parametrize("text", LISTS.values(), ids=LISTS)
def test_gene_lists_of_any_form(text, tmp_path):
    (tmp_path / "genes.csv").write_text(text, encoding="utf-8")
    like = [pd.Index(NAMES[::-1])]
    assert read_genes(tmp_path / "genes.csv", like=like).tolist() == NAMES


def test_a_choice_of_genes_and_small_letters_tell_the_column_too(tmp_path):
    (tmp_path / "genes.csv").write_text("\n".join(NAMES))  # the first gene is no header
    assert read_genes(tmp_path / "genes.csv", like=[pd.Index(NAMES[1:])]).tolist() == NAMES
    (tmp_path / "genes.csv").write_text("id,kind,gene\n" + rows("{i},Gene Expression,{name}"))
    for like in (pd.Index(["ski", "ssu72", "new"]), pd.Index(["CCNL2", "SKI"])):
        kind = pd.Series(["Gene Expression"] * 2)
        assert read_genes(tmp_path / "genes.csv", like=[like, kind]).tolist() == NAMES


UNUSABLE = [
    (read_genes, "a" + ",b" * 10**5 + "\na" * 10**5, "has 100,001 columns"),
    (read_counts, "target_gene,n_cells\nA,1e300\n", "numbers of cells of 'A' are not whole"),
    (read_counts, f"target_gene,n_cells\nA,{'9' * 20}\n", "numbers of cells of 'A' are not whole"),
    (read_counts, "target_gene,n_cells,n_cells\nA,1,2\n", "more than one column 'n_cells'"),
]


@pytest.mark.parametrize(("read", "text", "words"), UNUSABLE)
def test_lists_that_cannot_be_used(read, text, words, tmp_path):
    (tmp_path / "list.csv").write_text(text)
    refuses(words, read, tmp_path / "list.csv")


def test_a_table_of_counts_may_hold_the_controls(tmp_path):
    text = "target_gene;n_cells;note\nA;3;x\nnon-targeting;100;\nNA;2;\n"
    (tmp_path / "counts.csv").write_text(text)
    assert read_counts(tmp_path / "counts.csv").to_dict() == {"A": 3, "NA": 2}
