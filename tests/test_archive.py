"""Archives: what is packed comes back, and what is made to harm does not."""

import io
import os
import tarfile

import h5py
import numpy as np
import pytest
from backports import zstd
from conftest import make_cells

from vcc_helpers.submission import archive

LIMIT = "5MB"


@pytest.fixture(scope="module")
def h5ad(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "pred.h5ad"
    make_cells(0).write_h5ad(path)
    return path


@pytest.fixture
def packed(h5ad):
    data = h5ad.read_bytes()  # several frames are one file
    return zstd.compress(data[:10_000]) + zstd.compress(data[10_000:])


def tar(path, members, **kw):
    """Write an archive of names and bytes, or of ready members."""
    with tarfile.open(path, "w", **kw) as file:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def refused(path, match, *, limit=LIMIT):
    with pytest.raises(ValueError, match=match), archive.opened(path, size_limit=limit):
        pass


# What comes back


def test_what_is_packed_has_the_official_layout_and_comes_back(h5ad, tmp_path):
    path = archive.pack(h5ad, tmp_path / "p.vcc")
    out = archive.unpack(path, tmp_path / "out.h5ad")
    assert out.read_bytes() == h5ad.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.h5ad", "p.vcc"]
    with tarfile.open(path, "r:") as file:
        members = file.getmembers()
        assert [m.name for m in members] == ["pred.h5ad.zst", "watermark.txt"]
        assert file.extractfile(members[1]).read() == b"vcc-prep"
        frame = file.extractfile(members[0]).read()
    info = zstd.get_frame_info(frame)
    assert info.decompressed_size == h5ad.stat().st_size
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}


@pytest.mark.parametrize(
    ("name", "layout"),
    [("./a.h5ad.zst", tarfile.USTAR_FORMAT), ("ü/" + "x" * 60 + ".h5ad.zst", tarfile.PAX_FORMAT)],
)
def test_archives_of_other_programs_are_read(name, layout, packed, h5ad, tmp_path):
    members = [("._pred.h5ad.zst", b"what macOS adds"), (name, packed), ("watermark.txt", b"other")]
    path = tar(tmp_path / "p.vcc", members, format=layout)
    assert archive.unpack(path, tmp_path / "o").read_bytes() == h5ad.read_bytes()


@pytest.mark.parametrize("name", ["p.h5ad", "p.vcc"])
def test_what_is_read_is_what_was_checked(name, h5ad, tmp_path):
    """The file may be another one by the time that somebody reads it."""
    path = tmp_path / name
    archive.pack(h5ad, path) if name == "p.vcc" else path.write_bytes(h5ad.read_bytes())
    with archive.opened(path) as inner:
        path.write_bytes(b"something else")
        assert inner.read_bytes() == h5ad.read_bytes()
    assert not inner.exists()
    os.mkfifo(tmp_path / "fifo.h5ad")
    refused(tmp_path / "fifo.h5ad", "is no plain file")


# What is refused


@pytest.mark.parametrize("name", ["../../pred.h5ad.zst", "/etc/pred.h5ad.zst"])
def test_names_that_lead_outside_are_never_used(name, packed, h5ad, tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    with archive.opened(tar(tmp_path / "a/b/p.vcc", [(name, packed)])) as inner:
        assert inner.name == "cells.h5ad" and inner.read_bytes() == h5ad.read_bytes()
        assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "p.vcc"]


def member(kind, size=0):
    """A member that is no plain file, and needs no content."""
    info = tarfile.TarInfo("pred.h5ad.zst")
    info.type, info.size, info.linkname = kind, size, "/etc/hosts"
    return info, b""


def window_of_two_gigabytes():
    parameter = zstd.CompressionParameter
    options = {parameter.window_log: 31, parameter.enable_long_distance_matching: 1}
    big = zstd.ZstdCompressor(options=options)
    return big.compress(bytes(10)) + big.flush()


def test_contents_that_are_refused(packed, tmp_path):
    cases = {
        "no cells": ([("watermark.txt", b"vcc-prep")], "0 files .h5ad.zst"),
        "two": ([("a.h5ad.zst", packed), ("b.h5ad.zst", packed)], "2 files .h5ad.zst"),
        "many": ([(f"{i}.txt", b"") for i in range(100)], "more than 64 files"),
        "link": ([member(tarfile.SYMTYPE)], "0 files .h5ad.zst in the archive"),
        "hard link": ([member(tarfile.LNKTYPE)], "0 files .h5ad.zst in the archive"),
        "device": ([member(tarfile.CHRTYPE)], "0 files .h5ad.zst in the archive"),
    }
    contents = {
        "text": (b"text " * 100, "is damaged"),
        "nothing": (b"", "ends too early"),
        "more": (packed + b"more", "is damaged"),
        "no HDF5": (zstd.compress(b"text"), "not an HDF5 file"),
        "few empty frames": (zstd.compress(b"") * 1000, "not an HDF5 file"),
        "bomb": (zstd.compress(bytes(5 * 10**7)), "unpacked so far: .* the 5 allowed"),
        "window": (window_of_two_gigabytes(), "damaged .*memory|not an HDF5"),
    }
    cases |= {name: ([("pred.h5ad.zst", x)], says) for name, (x, says) in contents.items()}
    for name, (members, says) in cases.items():
        refused(tar(tmp_path / f"{name}.vcc", members), says)
    assert {path.suffix for path in tmp_path.iterdir()} == {".vcc"}


def test_frames_without_end_are_refused_soon(tmp_path):
    """A million empty ones are 9 MB, and to unpack each takes minutes."""
    many = tar(tmp_path / "many.vcc", [("pred.h5ad.zst", zstd.compress(b"") * 1_000_000)])
    refused(many, "more than 10,000 frames; make it anew", limit="10MB")


def test_an_archive_cut_anywhere_is_refused_or_whole(h5ad, tmp_path):
    whole = archive.pack(h5ad, tmp_path / "p.vcc").read_bytes()
    end = len(whole) - whole[::-1].index(b"p") - 1  # of the watermark
    for length in [*range(0, end, 9973), end - 1]:
        (tmp_path / "cut.vcc").write_bytes(whole[:length])
        refused(tmp_path / "cut.vcc", "no readable .vcc|cut short|0 files|damaged")


def test_a_damaged_archive_gives_the_right_cells_or_an_error(h5ad, tmp_path):
    whole = archive.pack(h5ad, tmp_path / "p.vcc").read_bytes()
    for seed in range(15):
        rng, data = np.random.default_rng(seed), bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        (tmp_path / "p.vcc").write_bytes(data)
        try:
            with archive.opened(tmp_path / "p.vcc", size_limit=LIMIT) as inner:
                assert inner.read_bytes() == h5ad.read_bytes(), seed
        except ValueError as error:
            assert "make it anew" in str(error) or "copy it again" in str(error), (seed, error)


def test_a_header_of_any_length_takes_no_memory(packed, tmp_path):
    """A pax header may claim gigabytes; here it is passed over, never read."""
    info, _ = member(tarfile.XHDTYPE, 8 * 2**30 - 1)
    (tmp_path / "p.vcc").write_bytes(info.tobuf(tarfile.USTAR_FORMAT) + packed)
    refused(tmp_path / "p.vcc", "cut short: 'pred.h5ad.zst' should hold 8589934591 bytes")


def test_a_file_that_is_too_large_or_not_there_is_not_looked_into(h5ad, tmp_path):
    refused(h5ad, "the file: .* more than the 0 allowed", limit="1kB")
    no_file = archive.opened(tmp_path / "no.vcc")
    with pytest.raises(FileNotFoundError, match="no such file"), no_file:
        pass


def test_a_file_that_shows_another_is_refused(h5ad, tmp_path):
    """By one way; the tests of the guard have all."""
    path = tmp_path / "p.h5ad"
    path.write_bytes(h5ad.read_bytes())
    with h5py.File(path, "a") as file:
        shape = file["X"].shape
        del file["X"]
        file.create_dataset("X", shape, "f4", external=[(str(h5ad), 0, h5py.h5f.UNLIMITED)])
    refused(path, "shows another file")
    refused(archive.pack(path, tmp_path / "p.vcc"), "shows another file")


def test_an_array_that_claims_more_than_there_is(tmp_path):
    with h5py.File(tmp_path / "p.h5ad", "w") as file:
        file.create_dataset("X", (10**9, 10**4), "f8", chunks=(100, 10))
    assert (tmp_path / "p.h5ad").stat().st_size < 10**5
    refused(tmp_path / "p.h5ad", "its arrays: 80,000,000 MB, more than the 5 allowed")
