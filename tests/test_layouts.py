"""The same screen comes back the same from every layout, and what is wrong is named."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from conftest import CONTROL, make_cells, refuses
from scipy import io as scipy_io
from scipy import sparse

from vcc_helpers import pseudobulk
from vcc_helpers.datasets import read_contexts, read_screen
from vcc_helpers.names import alone


@pytest.fixture
def cells():
    """Counts with gene identifiers, batches and lines: what the layouts below all hold."""
    cells = make_cells(0)
    cells.obs_names = [f"ACGT{i}-1" for i in range(cells.n_obs)]
    cells.obs["lane"] = np.arange(cells.n_obs) % 3
    cells.obs["line"] = "K562"
    cells.var["gene_id"] = [f"ENSG{i:011d}" for i in range(cells.n_vars)]
    return cells


def with_h5ad(cells, folder):
    cells.write_h5ad(folder / "screen.h5ad")
    return folder / "screen.h5ad", {}


@pytest.fixture
def read(cells, tmp_path):
    """A function that writes the cells as they are by now, and reads the file."""
    return lambda **options: read_screen(with_h5ad(cells, tmp_path)[0], **options)


def same_targets(screen, cells):
    return (screen.obs["target_gene"].astype(str) == cells.obs["target_gene"].to_numpy()).all()


def labels_file(cells, folder, name="labels.csv"):
    table = cells.obs.rename_axis("barcode")
    table.to_csv(folder / name, sep="\t" if ".tsv" in name else ",")
    return folder / name


def features_of(cells):
    """The genes, and one guide: Cell Ranger writes both as features."""
    ids = [*cells.var["gene_id"], "guide_1"]
    names = [*cells.var_names, "guide_1"]
    kinds = ["Gene Expression"] * cells.n_vars + ["CRISPR Guide Capture"]
    matrix = sparse.csc_matrix(np.c_[cells.X, np.full(cells.n_obs, 7)].T)
    return ids, names, kinds, matrix


def with_10x_h5(cells, folder):
    ids, names, kinds, matrix = features_of(cells)
    with h5py.File(folder / "matrix.h5", "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        group["shape"] = matrix.shape
        group["barcodes"] = np.array(cells.obs_names, dtype="S")
        for name, values in {"id": ids, "name": names, "feature_type": kinds}.items():
            group[f"features/{name}"] = np.array(values, dtype="S")
    return folder / "matrix.h5", {"labels": labels_file(cells, folder)}


def write_lines(path, *columns):
    text = "".join("\t".join(row) + "\n" for row in zip(*columns, strict=True))
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def with_mtx_gz(cells, folder):
    ids, names, kinds, matrix = features_of(cells)
    (sample := folder / "filtered").mkdir()
    with gzip.open(sample / "GSM1_matrix.mtx.gz", "wb") as file:
        scipy_io.mmwrite(file, matrix.astype(int))
    write_lines(sample / "GSM1_features.tsv.gz", ids, names, kinds)
    write_lines(sample / "GSM1_barcodes.tsv.gz", cells.obs_names)
    return sample, {"labels": labels_file(cells, folder, "labels.tsv.gz")}


def with_old_mtx(cells, folder):
    (sample := folder / "old").mkdir()
    scipy_io.mmwrite(sample / "matrix.mtx", sparse.csc_matrix(cells.X.T).astype(int))
    write_lines(sample / "genes.tsv", cells.var["gene_id"], cells.var_names)
    write_lines(sample / "barcodes.tsv", cells.obs_names)
    return sample, {"labels": cells.obs}


@pytest.mark.parametrize("write", [with_h5ad, with_10x_h5, with_mtx_gz, with_old_mtx])
def test_every_layout_gives_the_same_cells(cells, tmp_path, write):
    path, options = write(cells, tmp_path)
    screen = read_screen(path, batch_key="lane", context_key="line", **options)
    assert sparse.issparse(screen.X) and screen.X.format == "csr" and screen.X.dtype == np.float32
    np.testing.assert_array_equal(screen.X.toarray(), cells.X)
    assert screen.X.data.min() >= 1 and screen.X.has_sorted_indices
    assert list(screen.obs)[:3] == ["target_gene", "batch", "context"]
    assert same_targets(screen, cells)
    assert all(isinstance(screen.obs[c].dtype, pd.CategoricalDtype) for c in screen.obs.iloc[:, :3])
    assert screen.obs["batch"].astype(str).tolist() == cells.obs["lane"].astype(str).tolist()
    assert set(screen.obs["context"]) == {"K562"}
    assert list(screen.var_names) == list(cells.var_names)
    assert list(screen.var["gene_id"]) == list(cells.var["gene_id"])
    assert list(screen.obs_names) == list(cells.obs_names)
    if path.suffix == ".h5ad":  # also over the file it came from
        screen.write_h5ad(path)
        np.testing.assert_array_equal(read_screen(path).X.toarray(), cells.X)


def test_barcodes_may_be_numbers(cells, tmp_path):
    cells.obs_names = [str(i) for i in range(cells.n_obs)]
    path, _ = with_10x_h5(cells, tmp_path)
    table = cells.obs.set_axis(range(cells.n_obs))
    before = table.copy()
    assert same_targets(read_screen(path, labels=table), cells)
    pd.testing.assert_frame_equal(table, before)


def test_labels_that_are_numbers_are_labels_too(cells, read):
    numbers = {CONTROL: 0, "G0": 1, "G1": 2, "G2": 3, "no gene": 4}
    cells.obs["guide"] = cells.obs["target_gene"].map(numbers).astype(int)
    names = {str(number): name for name, number in numbers.items()}
    assert same_targets(read(perturbation_key="guide", label_map=names), cells)
    screen = read(perturbation_key="guide", control="0")
    assert (screen.obs["target_gene"] == CONTROL).sum() == 60


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_log1p_of_counts_of_every_size_come_back(cells, read, dtype):
    counts = np.arange(cells.X.size).reshape(cells.shape) * 37.0
    cells.X = np.log1p(counts).astype(dtype)
    np.testing.assert_array_equal(read(values="log1p").X.toarray(), counts)
    cells.X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(dtype)
    refuses("not log1p of counts.*cannot be had back", read, values="log1p")


def test_counts_may_be_in_a_layer(cells, read):
    counts = cells.X.copy()
    cells.layers["raw"], cells.X = counts, np.log1p(counts)
    np.testing.assert_array_equal(read(layer="raw").X.toarray(), counts)
    refuses("no layer 'counts', nor a table .* has 'raw'", read, layer="counts", error=KeyError)
    refuses("whole numbers; the first that is not is .*layer=", read)
    cells.layers["raw"][0, 2] = -1
    refuses("negative", read, layer="raw")


def test_controls_may_have_any_names(cells, read):
    ours = cells.obs["target_gene"]
    cells.obs["guide"] = ours.replace({CONTROL: "Non_Targeting"})  # a usual one
    screen = read(perturbation_key="guide")
    assert set(screen.obs["guide"][screen.obs["target_gene"] == CONTROL]) == {"Non_Targeting"}
    cells.obs["guide"] = ours.replace({CONTROL: "safe", "G0": "empty"})
    refuses("no label is a usual name of controls: there are 'G1'", read, perturbation_key="guide")
    refuses("no label is 'Safe'", read, perturbation_key="guide", control="Safe")
    screen = read(perturbation_key="guide", control=["safe", "empty"])
    assert (screen.obs["target_gene"] == CONTROL).sum() == 90
    cells.obs["guide"] = ours.replace({"G0": "control"})
    refuses("'control', 'non-targeting' may all be control labels", read, perturbation_key="guide")
    screen = read(perturbation_key="guide", control=CONTROL)
    assert (screen.obs["target_gene"] == "control").sum() == 30


def test_labels_are_mapped_to_genes(cells, read):
    cells.obs["guide"] = cells.obs["target_gene"].astype(str) + "_P1|x"
    first = read(perturbation_key="guide", label_map=lambda label: label.split("_")[0])
    assert same_targets(first, cells)
    part = {f"{CONTROL}_P1|x": CONTROL, "G0_P1|x": None}
    screen = read(perturbation_key="guide", label_map=part, unlabelled="drop")
    assert set(screen.obs["target_gene"]) == {CONTROL, "G1_P1|x", "G2_P1|x", "no gene_P1|x"}
    assert screen.n_obs == cells.n_obs - 30


def test_a_table_is_kept_as_it_is_written(cells, tmp_path):
    """Numbers with zeros in front stay so; text for a missing value is no label and no batch."""
    path, _ = with_h5ad(cells, tmp_path)
    table = pd.DataFrame({"kind": "0001", "who": "None", "lane": "07"}, index=cells.obs_names)
    table.loc[cells.obs_names[:60], "kind"] = "None"
    table.loc[cells.obs_names[:3], "lane"] = ["", "nan", "NA"]
    table.to_csv(tmp_path / "labels.csv")
    options = {"labels": tmp_path / "labels.csv", "perturbation_key": "kind", "batch_key": "lane"}
    refuses("no label is a usual name of controls: there are '0001'", read_screen, path, **options)
    for words in ({"control": "None"}, {"label_map": {"None": CONTROL}}):
        obs = read_screen(path, **options, **words).obs
        assert obs["target_gene"].value_counts().to_dict() == {"0001": 71, CONTROL: 60}
        assert set(obs["who"]) == {"None"} and set(obs["batch"].dropna()) == {"07"}
        assert obs["batch"].isna().sum() == 3
    (tmp_path / "labels.csv").write_text("cell,kind,kind\nACGT0-1,A,B\n")
    refuses("labels.csv has more than one column 'kind'", read_screen, path, **options)


def test_a_missing_column_is_answered_with_those_there(cells, read):
    with pytest.raises(KeyError, match="'guide'; they have 'target_gene', 'lane', 'line'"):
        read(perturbation_key="guide")
    refuses("the cells have no column 'day'", read, context_key="day", error=KeyError)


def test_barcodes_that_do_not_match_are_shown(cells, tmp_path):
    path, _ = with_10x_h5(cells, tmp_path)
    table = cells.obs.set_axis(cells.obs_names.str.removesuffix("-1"))
    refuses("table has 'ACGT0', 'ACGT1' and .* matrix 'ACGT0-1'", read_screen, path, labels=table)
    with pytest.raises(ValueError, match="more than one row for 'ACGT0-1'"):
        read_screen(path, labels=pd.concat([cells.obs, cells.obs[:1]]))
    with pytest.raises(FileNotFoundError, match="no such table of labels: .*nowhere"):
        read_screen(path, labels=tmp_path / "nowhere.csv")


def test_gene_symbols_may_be_a_column(cells, read):
    cells.var["symbol"] = cells.var_names.to_series().where(cells.var_names != "G3", None)
    cells.var_names = cells.var["gene_id"].to_numpy()
    cells.var = cells.var[["symbol"]]
    screen = read(gene_symbols="symbol")
    names = [f"G{i}" for i in range(cells.n_vars)]
    names[3] = "ENSG00000000003"  # a gene without a symbol keeps its identifier
    assert list(screen.var_names) == names
    assert list(screen.var["gene_id"]) == list(cells.var_names)
    with pytest.raises(KeyError, match="no column 'name' of the genes; there are 'symbol'"):
        read(gene_symbols="name")


@pytest.mark.parametrize("write", [with_h5ad, with_mtx_gz])
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_repeated_symbols_are_told_or_renamed(cells, tmp_path, write):
    cells.var_names = ["G0", "G1", "G2", *["TBCE"] * 3, *cells.var_names[6:]]
    path, options = write(cells, tmp_path)
    refuses("1 gene symbols occur more than once: 'TBCE'; .*rename", read_screen, path, **options)
    screen = read_screen(path, duplicates="rename", **options)
    assert list(screen.var_names[3:6]) == ["TBCE", "TBCE-1", "TBCE-2"]
    assert list(screen.var["gene_id"]) == list(cells.var["gene_id"])


def test_what_is_no_screen_says_what_it_is(cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder: .*nowhere"):
        read_screen(tmp_path / "nowhere")
    (tmp_path / "text.h5ad").write_text("no")
    refuses("text.h5ad is not an HDF5 file; expected an .h5ad", read_screen, tmp_path / "text.h5ad")
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["GRCh38/data"] = [1]
    refuses("neither an .h5ad .* holds 'GRCh38'", read_screen, tmp_path / "old.h5")


def test_a_folder_that_lacks_a_part_or_has_it_twice(cells, tmp_path):
    path, options = with_old_mtx(cells, tmp_path)
    (path / "other_genes.tsv").write_text("")
    refuses("more than one features.tsv: 'genes.tsv', 'other_genes", read_screen, path, **options)
    (path / "other_genes.tsv").unlink()
    lines = (path / "barcodes.tsv").read_text().splitlines(keepends=True)
    (path / "barcodes.tsv").write_text("".join(lines[:-1]))
    refuses("24 genes and 131 cells, but 24 genes and 130 barcodes", read_screen, path, **options)
    (path / "barcodes.tsv").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no barcodes.tsv\[.gz\]; it has 'genes.tsv'"):
        read_screen(path, **options)


@pytest.mark.parametrize("value", [np.nan, 0.5, 1000.004, 100_000.4])
def test_values_that_are_no_counts_are_placed(cells, read, value):
    cells.X = cells.X.astype(np.float64)
    cells.X[1, 0] = value  # the first of a row
    refuses(f"first .* is {value:.6g} in cell 'ACGT1-1', gene 'G0'", read)
    cells.X = np.log1p(cells.X)
    refuses("not log1p of counts: .* cell 'ACGT1-1', gene 'G0'", read, values="log1p")


def test_files_that_are_cut_are_named(cells, tmp_path):
    path, _ = with_h5ad(cells, tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refuses("screen.h5ad cannot be opened .*cut short", read_screen, path)
    path, options = with_10x_h5(cells, tmp_path)
    with h5py.File(path, "a") as file:
        file["matrix/indices"][3] = 10**6
    refuses("damaged: an entry is at place 1000000 of 25", read_screen, path, **options)
    with h5py.File(path, "a") as file:
        del file["matrix/shape"], file["matrix/features/id"]
    refuses("'matrix' lacks 'shape', 'features/id'; .*Cell Ranger 3", read_screen, path, **options)
    path, options = with_old_mtx(cells, tmp_path)
    head, told = "%%MatrixMarket matrix {} integer general\n{}\n1 1 1\n", ".*so small a file"
    for text, why in [
        ("no matrix", ""), ((path / "matrix.mtx").read_text()[:-40], ""),
        (head.format("coordinate", "2000000000 3 1"), told),
        (head.format("coordinate", "3 3 100000000000"), told),
        (head.format("array", "100000 100000"), told),
    ]:  # fmt: skip
        (path / "matrix.mtx").write_text(text)
        words = f"matrix.mtx cannot be read as a Matrix Market file{why}"
        refuses(words, read_screen, path, **options)


def test_tables_of_labels_that_hold_none(cells, tmp_path):
    path, _ = with_h5ad(cells, tmp_path)
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(ValueError, match="table of labels is empty: .*empty.csv"):
        read_screen(path, labels=tmp_path / "empty.csv")
    cells.obs.rename_axis("barcode").to_csv(tmp_path / "semicolons.csv", sep=";")
    with pytest.raises(ValueError, match="one column only, 'barcode;.*separated by commas"):
        read_screen(path, labels=tmp_path / "semicolons.csv")


def test_choices_are_checked_before_anything_is_read():
    for name in ("unlabelled", "duplicates", "values"):
        refuses(f"{name} must be one of .* got 'maybe'", read_screen, "nowhere", **{name: "maybe"})


@pytest.fixture
def support(tmp_path):
    """Small files in the layout of the challenge's support set: log1p values, their obs columns."""
    for seed, name in enumerate(["competition_train", "k562", "hepg2"]):
        cells = make_cells(seed)
        cells.X = np.log1p(cells.X)
        cells.obs["batch_var"] = [f"{name}_{i % 2}" for i in range(cells.n_obs)]
        cells.obs["cell_type"] = name
        if name == "hepg2":
            cells.obs = cells.obs.rename(columns={"target_gene": "gene", "batch_var": "gem_group"})
            cells.obs = cells.obs.replace({"gene": {CONTROL: "NT"}})
        cells.write_h5ad(tmp_path / f"{name}.h5")
    make_cells(9)[:, :5].copy().write_h5ad(tmp_path / "competition_val_template.h5ad")
    make_cells(4).write_h5ad(tmp_path / "mine.h5ad")
    (tmp_path / "gene_names.csv").write_text("G0\n")
    return tmp_path


def test_the_support_set_becomes_contexts(support):
    before = {path: path.read_bytes() for path in support.iterdir()}
    contexts = read_contexts(support)
    assert {path: path.read_bytes() for path in support.iterdir()} == before
    assert list(contexts) == ["H1", "HepG2", "K562", "mine"]  # which is called after its file
    assert list(contexts["mine"].obs) == ["target_gene"]
    for seed, name in enumerate(["H1", "K562", "HepG2"]):
        cells = contexts[name]
        assert cells.isbacked and cells.shape == (131, 24)
        assert list(cells.obs)[:2] == ["target_gene", "batch"]
        assert (cells.obs["target_gene"] == CONTROL).sum() == 60
        logged = make_cells(seed)
        logged.X = np.log1p(logged.X)
        np.testing.assert_array_equal(pseudobulk(cells).X, pseudobulk(logged).X)


def test_what_is_wrong_with_a_folder_of_contexts(support, cells, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder: .*nowhere"):
        read_contexts(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("")
    with pytest.raises(FileNotFoundError, match="no .h5ad or .h5 file; it has 'notes.txt'"):
        read_contexts(tmp_path / "empty")
    with_10x_h5(cells, tmp_path / "empty")
    refuses(r"matrix.h5 is a Cell Ranger file, .*read_screen", read_contexts, tmp_path / "empty")
    make_cells(0).write_h5ad(support / "k562.h5ad")
    refuses("two files .* are the context 'K562'", read_contexts, support)
    (support / "k562.h5ad").unlink()
    with pytest.raises(KeyError, match="competition_train.h5: the cells have no column 'guide'"):
        read_contexts(support, perturbation_key="guide")
    (support / "k562.h5").write_text("cut")
    refuses("k562.h5 is not an HDF5 file", read_contexts, support)
    unlabelled = make_cells(0)
    del unlabelled.obs["target_gene"]
    unlabelled.write_h5ad(support / "k562.h5")
    with pytest.raises(KeyError, match="k562.h5: the cells have no column 'target_gene'"):
        read_contexts(support)


def test_a_file_of_many_blocks(tmp_path):
    """Of which one row in three is left out, and one value in the last block is no count."""
    cells = make_cells(0, n_cells=(3000, 2000, 1200, 900, 6000))
    cells.obs["kept"] = cells.obs["target_gene"].where(np.arange(cells.n_obs) % 3 > 0)
    cells.write_h5ad(tmp_path / "dense.h5ad")
    words = {"perturbation_key": "kept", "unlabelled": "drop", "control": CONTROL}
    screen = read_screen(tmp_path / "dense.h5ad", **words)
    expected = cells[cells.obs["kept"].notna()]
    np.testing.assert_array_equal(screen.X.toarray(), expected.X)
    assert list(screen.obs_names) == list(expected.obs_names)
    cells.X[12_345, 5] = 0.5
    cells.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(ValueError, match=f"0.5 in cell '{cells.obs_names[12_345]}', gene 'G5'"):
        read_screen(tmp_path / "bad.h5ad")


def test_predictions_of_other_models_are_read(tmp_path):
    """As State writes them, in a table of obsm, with labels as of GEARS and scGPT."""
    values = np.random.default_rng(0).gamma(1, 1, (3, 4)).astype(np.float32)
    labels = ["SOX2+ctrl", "ctrl+TET1", "ctrl"]
    cells = anndata.AnnData(np.zeros_like(values), pd.DataFrame({"condition": labels}, list("abc")))
    cells.obsm = {"X_hvg": values, "X_state": np.ones((3, 50))}
    cells.write_h5ad(tmp_path / "pred.h5ad")
    words = {"values": "stored", "perturbation_key": "condition", "label_map": alone}
    found = read_screen(tmp_path / "pred.h5ad", layer="X_hvg", **words)
    assert found.obs["target_gene"].tolist() == ["SOX2", "TET1", CONTROL]
    np.testing.assert_array_equal(found.X.toarray(), values)
    with pytest.raises(ValueError, match="'X_state' has 50 columns, and there are 4 genes"):
        read_screen(tmp_path / "pred.h5ad", layer="X_state", **words)


@pytest.mark.parametrize("kind", ["table", "csv.gz"])
def test_a_plain_matrix_with_names_is_read(kind, tmp_path):
    table = pd.DataFrame([[0.5, 1], [2, 0.25]], index=["SOX2", "ctrl"], columns=["A", "B"])
    source = table
    if kind != "table":
        source = tmp_path / f"pred.{kind}"
        table.to_csv(source)
    cells = read_screen(source, values="stored")
    assert cells.obs["target_gene"].astype(str).tolist() == ["SOX2", "non-targeting"]
    np.testing.assert_array_equal(cells.X.toarray(), table.to_numpy(np.float32))
    with pytest.raises(ValueError, match="no numbers, such as 'low' in column 'B'"):
        read_screen(table.assign(B=["low", 1]), values="stored")


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_a_plain_matrix_keeps_its_names(tmp_path):
    """As R writes one: no name for the first column; labels that others take for numbers."""
    (tmp_path / "pred.csv").write_text("A,NA\n0001,1,2\nNone,3,4\n")
    cells = read_screen(tmp_path / "pred.csv", control="None")
    assert cells.obs["target_gene"].tolist() == ["0001", CONTROL]
    assert cells.to_df().to_dict("list") == {"A": [1, 3], "NA": [2, 4]}
    (tmp_path / "pred.csv").write_text("id,A,A\nX,1,2\nctrl,3,4\n")
    frame = pd.DataFrame([[1, 2], [3, 4]], index=["X", "ctrl"], columns=["A", "A"])
    for source in (tmp_path / "pred.csv", frame):
        refuses("1 gene symbols occur more than once: 'A'", read_screen, source)
