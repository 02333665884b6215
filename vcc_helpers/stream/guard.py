"""What a file may hold before a library reads it: plain data of its own, of a bearable size.

HDF5 and Zarr can do more than hold numbers. An HDF5 file can show another file's content as its
own, hold itself, or repeat one string a million times; a Zarr folder names the codecs that unpack
it, and one of them runs code. AnnData writes none of this, so a file that has it is refused before
anything in it is read.

Taught in: notebooks/16_run_your_own_leaderboard.

>>> import tempfile
>>> path = Path(tempfile.mkdtemp()) / "linked.h5"
>>> with h5py.File(path, "w") as file:
...     file["X"] = h5py.ExternalLink("truth.h5", "/X")
...     check_hdf5(file)
Traceback (most recent call last):
ValueError: /X is a link; expected plain data
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable, Iterator
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

#: Most bytes of a chunk, which is unpacked whole even for one value; h5py chooses 1 MB at most.
_MOST_CHUNK = 2**29
#: How much smaller the bytes of much may be packed; gzip comes to 1/1032 at the best.
_MUCH, _MOST_PACKED = 2**26, 2000
#: Least bytes of a chunk when there are many; each costs about as much time as 10 kB.
_LEAST_CHUNK, _MANY_CHUNKS = 1024, 100_000
#: Most bytes of all strings of a dataset together, and of one of them.
_MOST_STRINGS, _MOST_STRING = 2**30, 2**16
#: What HDF5 stores in the place of a string, in files of 8 bytes an address as all are.
_POINTER = np.dtype([("length", "<u4"), ("address", "<u8"), ("number", "<u4")])
#: Kinds of messages in the header of a group or dataset, and bounds of a header.
_ATTRIBUTE, _CONTINUED, _MOST_HEADER, _MOST_PARTS = 12, 16, 2**26, 1000
_OLD_LAYOUT = struct.Struct("<HH4x")
#: What may unpack a Zarr array; each turns bytes or strings into the same, and runs nothing.
_CODECS = {
    *("blosc", "bz2", "gzip", "lz4", "lzma", "zlib", "zstd"),
    *("bytes", "crc32", "crc32c", "adler32", "fletcher32", "shuffle", "delta", "transpose"),
    *("sharding_indexed", "vlen-utf8"),
}
#: Filters of HDF5 that come with hdf5plugin.
_FILTERS = {307: "bzip2", 32001: "blosc", 32004: "lz4", 32015: "zstd", 32026: "blosc2"}
#: Files of a Zarr folder that say how to read the others, and their most bytes.
_ZARR_WORDS, _MOST_WORDS = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json"), 2**24


def check_hdf5(file: h5py.File, *, without: tuple[str, ...] = ()) -> int:
    """Raise a ValueError unless all that an HDF5 file holds is plain data of its own.

    That is no link, nothing in two places, nothing of another file (external storage, a virtual
    dataset), no reference to what is not in the tree, and nothing that takes far more memory than
    a file of its size should. `file` is open to read; names at its root that are in `without`,
    as nobody will read them, are passed over. Returns the bytes of its arrays, 8 for a string.
    """
    if file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("its addresses are not of 8 bytes, as those of other files are")
    groups, places, references, size = [file["/"]], set(), [], 0
    while groups:
        group = groups.pop()
        if (place := _place(group)) in places:
            raise ValueError(f"the group {group.name} is there twice, or holds itself")
        places.add(place)
        references += _references(group)
        for name in group:
            if group.name == "/" and name in without:
                continue
            where = f"{group.name.rstrip('/')}/{name}"
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{where} is a link; expected plain data")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                size += _check_dataset(item, read_whole=where.split("/")[1] != "X")
                places.add(_place(item))
                references += _references(item)
    for where, reference in references:
        if _target(file, reference) not in places:
            raise ValueError(f"{where} refers to something that is not in the file's tree")
    return size


def _target(file: h5py.File, reference: h5py.Reference) -> int | None:
    try:
        return _place(file[reference]) if reference else None
    except (KeyError, ValueError, OSError, RuntimeError):  # it leads nowhere
        return None


def _place(item: h5py.HLObject) -> int:
    return h5py.h5o.get_info(item.id).addr


def _references(item: h5py.HLObject) -> Iterator[tuple[str, h5py.Reference]]:
    """Check the attributes, and yield their references: AnnData 0.7 named categories so."""
    lists = {}
    for name in item.attrs:
        attribute, where = item.attrs.get_id(name), f"{item.name}: the attribute {name!r}"
        if h5py.check_ref_dtype(attribute.dtype) is h5py.Reference:
            for reference in np.atleast_1d(item.attrs[name]):
                yield where, reference
        elif _holds_references(attribute.dtype):
            raise ValueError(f"{where} holds references")
        elif _holds_strings(attribute.dtype) and math.prod(attribute.shape or ()) > 1:
            lists[name] = attribute
    if lists:
        _check_attributes(item, lists)


def _holds_references(kind: np.dtype) -> bool:
    inner = [kind.fields[name][0] for name in kind.names or ()]
    inner += [h5py.check_vlen_dtype(kind)] + [kind.subdtype[0] if kind.subdtype else None]
    parts = (part for part in inner if isinstance(part, np.dtype))  # of strings h5py says str
    return h5py.check_ref_dtype(kind) is not None or any(map(_holds_references, parts))


def _check_dataset(item: h5py.Dataset, *, read_whole: bool) -> int:
    """Raise, or return its bytes."""
    if item.is_virtual or item.external:
        raise ValueError(f"{item.name} shows another file; expected plain data")
    if _holds_references(item.dtype):
        raise ValueError(f"{item.name} holds references; expected plain data")
    if item.shape is None:
        return 0
    _check_filters(item)
    if item.chunks:
        _check_chunks(item.name, item.shape, item.chunks, item.dtype.itemsize)
    size, stored = item.size * item.dtype.itemsize, item.id.get_storage_size()
    if read_whole and size > max(_MUCH, _MOST_PACKED * stored):
        raise ValueError(f"{item.name} declares {size:,} bytes and stores {stored:,}")
    if item.ndim and _holds_strings(item.dtype):
        _check_strings(item)
    return size


def _check_filters(item: h5py.Dataset) -> None:
    """Raise if chunks are packed in a way that neither HDF5 nor hdf5plugin can undo here."""
    packing = item.id.get_create_plist()
    for i in range(packing.get_nfilters()):
        code = packing.get_filter(i)[0]  # its name is the file's own
        if not h5py.h5z.filter_avail(code) and find_spec("hdf5plugin"):
            import_module("hdf5plugin")  # makes its filters known
        if not h5py.h5z.filter_avail(code):
            raise ValueError(
                f"{item.name} is packed with {_FILTERS.get(code, 'a filter')} (number {code}), "
                "which is missing here: pip install hdf5plugin, or pack it with gzip"
            )


def _check_chunks(name: str, shape, chunks, itemsize: int) -> None:
    size = math.prod(chunks) * itemsize
    number = math.prod(-(-n // most) for n, most in zip(shape, chunks, strict=True))
    if size > _MOST_CHUNK or (size < _LEAST_CHUNK and number > _MANY_CHUNKS):
        raise ValueError(
            f"{name} is stored in {number:,} chunks of {size:,} bytes; expected at most "
            f"{_MOST_CHUNK:,} bytes each, and at least {_LEAST_CHUNK:,} if there are many; write "
            "it again with AnnData.write_h5ad"
        )


def _check_strings(item: h5py.Dataset) -> None:
    """Add up the lengths of strings before one is read, for many may share the bytes of one."""
    packing, kind = item.id.get_create_plist(), _stored_as(item.dtype)
    parts, offset, stored = [], item.id.get_offset(), item.id.get_storage_size()
    if item.chunks:
        parts = _unpacked(item, packing, kind)
    elif offset is not None:
        most = os.path.getsize(item.file.filename) // kind.itemsize
        parts = [np.fromfile(item.file.filename, kind, min(item.size, most), offset=offset)]
    filled = packing.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED
    if (stored and not parts) or (filled and kind != _POINTER):  # in the header, or in a record
        _check_unseen(item.name, item.size, item.file)
    fill = len(item.fillvalue or b"") if kind == _POINTER else 0  # for all that is not stored
    _check_lengths(item.name, parts, longest=fill, total=fill * item.size)


def _stored_as(kind: np.dtype) -> np.dtype:
    """Return the type of what lies in a file: a pointer in the place of each string or list."""
    if h5py.check_vlen_dtype(kind) is not None:
        return _POINTER
    if kind.subdtype:
        return np.dtype((_stored_as(kind.subdtype[0]), kind.subdtype[1]))
    if not kind.names:
        return kind
    formats, offsets, more = [], [], 0
    for inner, offset, *_ in map(kind.fields.get, kind.names):
        formats.append(_stored_as(inner))
        offsets.append(offset + more)
        more += formats[-1].itemsize - inner.itemsize
    parts = {"names": kind.names, "formats": formats, "offsets": offsets}
    return np.dtype({**parts, "itemsize": kind.itemsize + more})


def _lengths(stored: np.ndarray) -> Iterator[np.ndarray]:
    if stored.dtype == _POINTER:
        yield stored["length"]
    else:
        for name in stored.dtype.names or ():
            yield from _lengths(stored[name])


def _holds_strings(kind: np.dtype) -> bool:
    return any(True for _ in _lengths(np.empty(0, _stored_as(kind))))


def _check_lengths(where: str, parts: Iterable, *, longest: int = 0, total: int = 0) -> None:
    for lengths in chain([np.zeros(1, int)], chain.from_iterable(map(_lengths, parts))):
        longest, total = max(longest, int(lengths.max(initial=0))), total + int(lengths.sum())
        if longest > _MOST_STRING or total > _MOST_STRINGS:
            raise ValueError(
                f"{where} holds strings of {longest:,} bytes, {total:,} so far; expected names"
            )


def _check_unseen(where: str, number: int, file: h5py.File) -> None:
    """Bound strings whose lengths are hard to come by; none is packed, nor longer than its file."""
    if number * os.path.getsize(file.filename) > _MOST_STRINGS:
        raise ValueError(f"{where} may hold {number:,} strings of any length; expected names")


def _unpacked(item: h5py.Dataset, packing, kind: np.dtype) -> Iterator[np.ndarray]:
    """Have HDF5 unpack the chunks in a file of ours where they are plain bytes, and no strings."""
    plain = np.dtype(f"V{kind.itemsize}")
    packing.set_fill_value(np.zeros((), plain))
    with h5py.File(BytesIO(), "w") as file:
        how = h5py.h5t.py_create(plain), item.id.get_space(), packing
        copy = h5py.h5d.create(file.id, b"copy", *how)
        for i in range(item.id.get_num_chunks()):
            corner = item.id.get_chunk_info(i).chunk_offset
            skipped, packed = item.id.read_direct_chunk(corner)
            copy.write_direct_chunk(corner, packed, skipped)
            if skipped:  # HDF5 forgets this of a chunk while the dataset stays open
                copy = None
                copy = h5py.h5d.open(file.id, b"copy")
            place = tuple(slice(a, a + n) for a, n in zip(corner, item.chunks, strict=True))
            yield np.ascontiguousarray(h5py.Dataset(copy)[place]).view(kind)


def _check_attributes(item: h5py.HLObject, lists: dict[str, h5py.h5a.AttrID]) -> None:
    """Add up the lengths of the strings of some attributes, as :func:`_check_strings` does."""
    where, unseen = f"{item.name}: the attribute {{!r}}", set(lists)
    for body in _messages(item, _ATTRIBUTE):
        version, *sizes = struct.unpack_from("<BxHHH", body)
        start = 9 if version == 3 else 8
        name = body[start:].split(b"\0")[0].decode(errors="replace")
        if name in lists:  # name, type and shape stand before the data
            start += sum(-(-n // 8) * 8 for n in sizes) if version == 1 else sum(sizes)
            kind = _stored_as(lists[name].dtype)
            found = np.frombuffer(body, kind, (len(body) - start) // kind.itemsize, start)
            _check_lengths(where.format(name), [found])
            unseen.discard(name)
    for name in unseen:  # HDF5 may keep many of them elsewhere
        _check_unseen(where.format(name), math.prod(lists[name].shape), item.file)


def _messages(item: h5py.HLObject, wanted: int) -> Iterator[bytes]:
    """Yield the messages of one kind in an object header, of either version.

    The format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
    """
    place, base = _place(item), item.file.userblock_size
    with open(item.file.filename, "rb") as file:
        file.seek(base + place)
        head = file.read(34)
        if new := head[:4] == b"OHDR":
            flags = head[5]
            at, width = 6 + 16 * bool(flags & 32) + 4 * bool(flags & 16), 1 << (flags & 3)
            parts = [(place + at + width, int.from_bytes(head[at : at + width], "little"))]
            layout = struct.Struct("<BH3x" if flags & 4 else "<BHx")
        else:
            parts, layout = [(place + 16, int.from_bytes(head[8:12], "little"))], _OLD_LAYOUT
        for start, size in parts:  # which grow in number
            if size > _MOST_HEADER or len(parts) > _MOST_PARTS:
                raise ValueError(f"{item.name} has a header of unbearable size")
            file.seek(base + start)
            block, at = file.read(size), 0
            while at + layout.size <= len(block):
                kind, length = layout.unpack_from(block, at)
                body = block[at + layout.size : at + layout.size + length]
                at += layout.size + length
                if kind == _CONTINUED and length >= 16:
                    start, size = struct.unpack("<QQ", body[:16])
                    parts.append((start + 4, size - 8) if new else (start, size))
                elif kind == wanted and length >= 8:
                    yield body


def check_zarr(folder: str | Path) -> None:
    """Raise a ValueError unless a Zarr folder is files of its own, unpacked by what runs nothing.

    It may hold no link or device, no codec that is not known to be safe (one of numcodecs runs
    code, see GHSA-jqc8-qjfv-5m6r), and no chunks of an unbearable size.
    """
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is a link or a device; expected plain files")
        for name in set(_ZARR_WORDS) & set(files):
            path = Path(where, name)
            if path.stat().st_size > _MOST_WORDS:
                raise ValueError(f"{path} is too large to describe an array")
            _check_words(path, json.loads(path.read_bytes()))


def _check_words(path: Path, words: object) -> None:
    """Look through a description of arrays, which may hold those of others."""
    if isinstance(words, list):
        for part in words:
            _check_words(path, part)
    if not isinstance(words, dict):
        return
    for key in ("compressor", "filters", "codecs", "index_codecs", "object_codec"):
        found = words.get(key) or []
        for codec in found if isinstance(found, list) else [found]:
            name = codec.get("id", codec.get("name")) if isinstance(codec, dict) else codec
            if str(name).removeprefix("numcodecs.") not in _CODECS:
                raise ValueError(f"{path}: the codec {name!r} is not one that AnnData writes")
    chunks = words.get("chunks")
    grid = words.get("chunk_grid")
    if isinstance(grid, dict):
        chunks = (grid.get("configuration") or {}).get("chunk_shape")
    if isinstance(chunks, list) and isinstance(words.get("shape"), list):
        whole = all(isinstance(n, int) and n > 0 for n in chunks)
        if not whole or len(chunks) != len(words["shape"]):
            raise ValueError(f"{path}: chunks of {chunks} for an array of {words['shape']}")
        _check_chunks(str(path), words["shape"], chunks, 8)
    for part in words.values():
        _check_words(path, part)
