"""Files from strangers: what a guard refuses, which list is meant, on which scale values are."""

import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import make_cells
from scipy import sparse
from scipy.stats import mannwhitneyu

from vcc_helpers.ranks import p_values
from vcc_helpers.stream.guard import check_hdf5, check_zarr
from vcc_helpers.submission.lists import read_counts, read_genes
from vcc_helpers.submission.scales import UNDO, name_scale

# HDF5


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


def reference_in_a_record(file, folder):
    kind = np.dtype([("a", "i4"), ("b", h5py.ref_dtype)])
    file.create_dataset("uns/kind", (2,), kind)


def region(file, folder):
    file["uns/a"] = np.arange(3)
    file["obs"].attrs["part"] = file["uns/a"].regionref[:2]


def soft(file, folder):
    file["uns/again"] = h5py.SoftLink("/obs")


def external_link(file, folder):
    file["obs/truth"] = h5py.ExternalLink("truth.h5ad", "/obs")


def external_storage(file, folder):
    file.create_dataset("layers/a", (9,), "u1", external=[(str(folder / "secret"), 0, 9)])


def virtual(file, folder):
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("truth.h5ad", "X", (3,))
    file.create_virtual_dataset("layers/a", layout)


def itself(file, folder):
    file["uns/self"] = file["/"]


def long_strings(file, folder):
    """Repeat one string of a megabyte: a copy of each element's pointer, as HDF5 has no limit."""
    file["uns/words"] = np.array(["x" * 2**20] * 3, h5py.string_dtype())


def great_chunk(file, folder):
    file.create_dataset("layers/a", (2**30,), "f8", chunks=(2**28,))


def tiny_chunks(file, folder):
    file.create_dataset("layers/a", (2**20,), "f4", chunks=(1,))


SPOILED = [
    (old_categories, "refers to something"), (references, "holds references"),
    (reference_in_a_record, "holds references"), (region, "holds references"),
    (soft, "is a link"), (external_link, "is a link"), (external_storage, "shows another file"),
    (virtual, "shows another file"), (itself, "there twice"), (long_strings, "expected names"),
    (great_chunk, "chunks of"), (tiny_chunks, "chunks of"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words"), SPOILED, ids=[f.__name__ for f, _ in SPOILED])
def test_what_is_no_plain_data_of_its_own_is_refused(spoil, words, tmp_path):
    make_cells(3).write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "a") as file:
        check_hdf5(file)
        spoil(file, tmp_path)
        with pytest.raises(ValueError, match=words):
            check_hdf5(file)


def test_old_categories_of_the_file_itself_are_plain_data(tmp_path):
    """AnnData 0.7 kept the categories of a column elsewhere, and referred to them."""
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["obs/__categories/kind"] = [1, 2]
        file["obs/kind"] = [0, 1]
        file["obs/kind"].attrs["categories"] = file["obs/__categories/kind"].ref
        check_hdf5(file)
        file["raw"] = h5py.SoftLink("/obs")
        check_hdf5(file, without=("raw",))


# Zarr


def described(change):
    def spoil(folder):
        path = next(folder.rglob("X/data/*arr*"))
        words = json.loads(path.read_text())
        change(words)
        path.write_text(json.dumps(words))

    return spoil


def linked(folder):
    (folder / "obs" / "more").symlink_to(folder.parent)


PICKLE = {"id": "pickle", "protocol": 4}
ZARR = {
    2: [
        (described(lambda w: w.update(compressor=PICKLE)), "codec 'pickle'"),
        (described(lambda w: w.update(filters=[PICKLE])), "codec 'pickle'"),
        (described(lambda w: w.update(chunks=[2**40])), "chunks of"),
        (linked, "a link"),
    ],
    3: [
        (described(lambda w: w["codecs"].append({"name": "numcodecs.pickle"})), "pickle"),
        (
            described(lambda w: w["chunk_grid"]["configuration"].update(chunk_shape=[2**40])),
            "chunks of",
        ),
    ],
}


@pytest.mark.filterwarnings("ignore:.*zarr.*:DeprecationWarning")
@pytest.mark.parametrize("version", ZARR)
def test_zarr_is_unpacked_by_codecs_that_run_nothing(version, tmp_path):
    cells = make_cells(3)
    cells.X = sparse.csr_matrix(cells.X)
    for i, (spoil, words) in enumerate(ZARR[version]):
        folder = tmp_path / f"{i}.zarr"
        with anndata.settings.override(zarr_write_format=version):
            cells.write_zarr(folder)
        check_zarr(folder)
        spoil(folder)
        with pytest.raises(ValueError, match=words):
            check_zarr(folder)


# Lists

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


def test_the_first_gene_is_no_header(tmp_path):
    """A prediction that lacks just the first gene must not make it one."""
    (tmp_path / "genes.csv").write_text("\n".join(NAMES))
    assert read_genes(tmp_path / "genes.csv", like=[pd.Index(NAMES[1:])]).tolist() == NAMES


def test_a_choice_of_genes_and_small_letters_tell_the_column_too(tmp_path):
    (tmp_path / "genes.csv").write_text("id,kind,gene\n" + rows("{i},Gene Expression,{name}"))
    for like in (pd.Index(["ski", "ssu72", "new"]), pd.Index(["CCNL2", "SKI"])):
        kind = pd.Series(["Gene Expression"] * 2)
        assert read_genes(tmp_path / "genes.csv", like=[like, kind]).tolist() == NAMES


def test_a_table_of_counts_may_hold_the_controls(tmp_path):
    text = "target_gene;n_cells;note\nA;3;x\nnon-targeting;100;\nNA;2;\n"
    (tmp_path / "counts.csv").write_text(text)
    assert read_counts(tmp_path / "counts.csv").to_dict() == {"A": 3, "NA": 2}


# Scales


def scaled(counts, total=1e4):
    return counts / counts.sum(axis=1, keepdims=True) * total


DONE = {
    "natural logarithms": (np.log1p,),
    "logarithms to base 2": (lambda x: np.log1p(x) / np.log(2),),
    "logarithms to base 10": (lambda x: np.log1p(x) / np.log(10),),
    "logarithms of logarithms": (lambda x: np.log1p(np.log1p(x)),),
    "no logarithms": (lambda x: x / 1e4, lambda x: x * 0.07, lambda x: x * 0.9),
    "square roots": (np.sqrt,),
}


@pytest.mark.parametrize("name", UNDO)
@pytest.mark.parametrize("first", [lambda x: x, scaled], ids=["counts", "scaled"])
def test_the_inverse_tells_what_was_done_to_counts(name, first):
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.4, 4, (1, 800)) * rng.uniform(0.5, 2, (60, 1)))
    for done in DONE[name]:
        for kind in (np.float32, np.float64):
            assert name_scale(done(first(counts)).astype(kind)) == name


def test_values_that_a_model_made_are_not_accused():
    rng = np.random.default_rng(0)
    counts = rng.gamma(0.5, 1, (60, 800)) * rng.uniform(0.5, 2, (60, 1))
    mean = np.log1p(scaled(counts)).mean(axis=0)
    assert name_scale(np.log1p(counts)) is None
    assert name_scale(np.repeat(mean[None], 60, axis=0)) is None
    assert name_scale(mean * rng.normal(1, 0.002, (60, 1))) is None
    assert name_scale(rng.gamma(1, 1, (60, 800)).round(2)) is None
    assert name_scale(np.zeros((3, 4))) is None


# Small groups


@pytest.mark.parametrize(("n_1", "n_2"), [(1, 1), (2, 9), (8, 8), (8, 90), (300, 3)])
def test_exact_p_values_are_scipys_to_the_bit(n_1, n_2):
    u = np.arange(n_1 * n_2 + 1.0)[:: max(1, n_1 * n_2 // 30)]
    for value, p in zip(u, p_values(u, np.zeros_like(u), n_1, n_2), strict=True):
        up, rest = divmod(int(value), n_2)
        ranks = np.arange(n_1) + n_2 * (np.arange(n_1) >= n_1 - up)
        ranks[n_1 - up - 1] += rest
        others = np.setdiff1d(np.arange(n_1 + n_2), ranks)
        assert p == mannwhitneyu(ranks, others, method="exact").pvalue
