"""What a file may hold before a library reads it: plain data of its own, of a bearable size.

HDF5 and Zarr can do more than hold numbers. An HDF5 file can show another file's content as its
own, hold itself, or repeat one string a million times; a Zarr folder names the codecs that unpack
it, and one of them runs code. AnnData writes none of this, so a file that has it is refused before
anything in it is read.

Taught in: notebooks/21_run_your_own_leaderboard.

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
import os
import struct
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import compress
from math import prod
from pathlib import Path

import h5py
import numpy as np

#: Most bytes of a chunk, which is unpacked whole even for one value; h5py chooses 1 MB at most.
_MOST_CHUNK = 2**29
#: How much smaller the bytes of much may be packed; gzip comes to 1/1032 at the best.
_MUCH, _MOST_PACKED = 2**26, 2000
#: Least bytes of a chunk when there are many; each costs about as much time as 10 kB.
_LEAST_CHUNK, _MANY_CHUNKS = 1024, 100_000
#: Most bytes of a string.
_MOST_STRING = 2**16
#: Rows of a table of strings, which are read one by one.
_MOST_ROWS = 2**16
#: Most groups and arrays of a file, and how deep they lie.
_MOST_ITEMS, _DEEPEST = 100_000, 64
#: Bytes that a Zarr store may declare whatever it stores: chunks of one value are not written.
_MUCH_IN_ZARR = 2**30
#: Attributes by which AnnData finds an array; one that begins with / is looked for anywhere.
_PLACES = ("column-order", "_index", "categories")
#: What HDF5 stores in the place of a string, and most bytes of all strings of an attribute.
_POINTER, _MOST_STRINGS = np.dtype([("length", "<u4"), ("place", "V12")]), 2**26
#: Kinds of messages in the header of a group or array, and bounds of a header.
_ATTRIBUTE, _CONTINUED, _MOST_HEADER, _MOST_PARTS = 12, 16, 2**26, 1000
#: Parts of a file that AnnData names; what else one is called may be any text.
_USUAL = {"", "X", "data", "indices", "indptr", "obs", "var", "uns", "layers", "raw", "obsm"}
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
    a file of its size should. `file` is open to read; parts that are named in `without`, such as
    ``layers`` or ``obs/barcode``, as nobody will read them, are passed over. Returns the bytes of
    its arrays, 16 for a string.
    """
    groups, places, references = [file["/"]], set(), []
    size = size_of_x = stored = of_strings = 0
    while groups:
        group = groups.pop()
        if (place := _place(group)) in places:
            raise ValueError(f"the group {_called(group.name)} is there twice, or holds itself")
        places.add(place)
        references += _references(group)
        if group.name.count("/") > _DEEPEST or len(places) > _MOST_ITEMS:
            raise ValueError(
                f"it holds more than {_MOST_ITEMS:,} groups and arrays, or they lie more than "
                f"{_DEEPEST} deep"
            )
        for name in group:
            where = f"{group.name.rstrip('/')}/{name}"
            if where[1:] in without:
                continue
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"{_called(where)} is a link; expected plain data")
            item = group[name]
            if isinstance(item, h5py.Group):
                groups.append(item)
            elif isinstance(item, h5py.Dataset):
                _check_dataset(item)
                references += _references(item)
                bytes_of = item.size * item.dtype.itemsize if item.shape is not None else 0
                size += bytes_of
                if where.split("/")[1] == "X" and not item.dtype.hasobject:
                    size_of_x += bytes_of  # which is never read whole
                else:
                    packed = item.id.get_storage_size()
                    _check_stored(_called(where), bytes_of, packed)
                    # one that has two names is read twice
                    stored += 0 if _place(item) in places else packed
                    _check_stored(f"all up to {_called(where)}", size - size_of_x, stored)
                of_strings = _check_strings(item, of_strings)
                places.add(_place(item))
            else:
                raise ValueError(f"{_called(where)} is no array and no group; expected plain data")
    for where, reference in references:
        if _target(file, reference) not in places:
            raise ValueError(f"{where} refers to something that is not in the file's tree")
    return size


def _called(name: str) -> str:
    """Return a name of the file's own as it is if AnnData has it, else in quotation marks."""
    return name if _USUAL.issuperset(name.split("/")) else repr(name)


def _target(file: h5py.File, reference: h5py.Reference) -> int | None:
    try:
        return _place(file[reference]) if reference else None
    except (KeyError, ValueError, OSError, RuntimeError):  # it leads nowhere
        return None


def _place(item: h5py.HLObject) -> int:
    return h5py.h5o.get_info(item.id).addr


def _references(item: h5py.HLObject) -> Iterator[tuple[str, h5py.Reference]]:
    """Check the attributes, and yield their references: AnnData 0.7 named categories so."""
    texts = {}
    for name in item.attrs:
        attribute, where = item.attrs.get_id(name), f"{_called(item.name)}: the attribute {name!r}"
        kind, number = attribute.dtype, prod(attribute.shape or ())
        if h5py.check_ref_dtype(kind) is not h5py.Reference and _holds_references(kind):
            raise ValueError(f"{where} holds references")
        if kind.names or isinstance(h5py.check_vlen_dtype(kind), np.dtype):
            raise ValueError(f"{where} holds arrays in arrays; expected plain data")
        if h5py.check_vlen_dtype(kind) is not None and number > 1:
            texts[name] = number
    if texts and os.path.isfile(item.file.filename):  # an object of ours has no bytes to look into
        _check_texts(item, texts)
    for name in item.attrs:
        where = f"{_called(item.name)}: the attribute {name!r}"
        if h5py.check_ref_dtype(item.attrs.get_id(name).dtype) is h5py.Reference:
            yield from ((where, reference) for reference in np.atleast_1d(item.attrs[name]))
        elif name in _PLACES and not _names_its_own(item, name):
            raise ValueError(
                f"{where} names a place from the root on, or more than there are; expected parts "
                "of its own"
            )


def _check_texts(item: h5py.HLObject, texts: dict[str, int]) -> None:
    """Add up the lengths of the strings of attributes before they are read, in their headers."""
    texts, where = dict(texts), f"{_called(item.name)}: the attribute"
    for body in _messages(item, _ATTRIBUTE):
        version, *sizes = struct.unpack_from("<BxHHH", body)
        start = 9 if version == 3 else 8
        name = body[start:].split(b"\0")[0].decode(errors="replace")
        if number := texts.pop(name, 0):  # name, type and shape stand before the data
            start += sum(-(-n // 8) * 8 for n in sizes) if version == 1 else sum(sizes)
            lengths = np.frombuffer(body[start : start + 16 * number], _POINTER)["length"]
            longest, total = lengths.max(initial=0), lengths.sum(dtype=np.int64)
            if longest > _MOST_STRING or total > _MOST_STRINGS or len(lengths) < number:
                raise ValueError(
                    f"{where} {name!r} holds strings of {longest:,} bytes; expected names"
                )
    for name, number in texts.items():  # HDF5 keeps many of them elsewhere
        if number * item.file.id.get_filesize() > _MOST_STRINGS:
            raise ValueError(f"{where} {name!r} holds {number:,} strings; expected names")


def _messages(item: h5py.HLObject, wanted: int) -> Iterator[bytes]:
    """Yield the messages of one kind in an object header, of either version.

    The format: https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html
    """
    if item.file.id.get_create_plist().get_sizes() != (8, 8):
        raise ValueError("its addresses are not of 8 bytes, as those of other files are")
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
            parts = [(place + 16, int.from_bytes(head[8:12], "little"))]
            layout = struct.Struct("<HH4x")
        for start, size in parts:  # which grow in number
            if size > _MOST_HEADER or len(parts) > _MOST_PARTS:
                raise ValueError(f"{_called(item.name)} has a header of unbearable size")
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


def _names_its_own(item: h5py.HLObject, name: str) -> bool:
    shape = item.attrs.get_id(name).shape  # None of an empty attribute
    most = len(item) if isinstance(item, h5py.Group) else 1
    if shape is None or prod(shape) > max(most, 1):
        return shape is None
    words = np.atleast_1d(item.attrs[name]).ravel().tolist()
    return not any(str(word).startswith(("/", "b'/", 'b"/')) for word in words)


def _holds_references(kind: np.dtype) -> bool:
    inner = [kind.fields[name][0] for name in kind.names or ()]
    inner += [h5py.check_vlen_dtype(kind)] + [kind.subdtype[0] if kind.subdtype else None]
    parts = (part for part in inner if isinstance(part, np.dtype))  # of strings h5py says str
    return h5py.check_ref_dtype(kind) is not None or any(map(_holds_references, parts))


def _check_dataset(item: h5py.Dataset) -> None:
    if item.is_virtual or item.external:
        raise ValueError(f"{_called(item.name)} shows another file; expected plain data")
    if _holds_references(item.dtype):
        raise ValueError(f"{_called(item.name)} holds references; expected plain data")
    for kind in _kinds(item.dtype):
        inner = kind.subdtype[0] if kind.subdtype else h5py.check_vlen_dtype(kind)
        if kind.names or (kind.hasobject and isinstance(inner, np.dtype)):
            raise ValueError(f"{_called(item.name)} holds arrays in arrays; expected plain data")
    if item.shape is None:
        return
    _check_filters(item)
    if item.chunks:
        _check_chunks(_called(item.name), item.shape, item.chunks, item.dtype.itemsize)


def _check_filters(item: h5py.Dataset) -> None:
    """Raise if chunks are packed in a way that neither HDF5 nor hdf5plugin can undo here."""
    packing = item.id.get_create_plist()
    for i in range(packing.get_nfilters()):
        code = packing.get_filter(i)[0]  # its name is the file's own
        if not h5py.h5z.filter_avail(code) and find_spec("hdf5plugin"):
            import_module("hdf5plugin")  # makes its filters known
        if not h5py.h5z.filter_avail(code):
            name = f"{_FILTERS.get(code, 'a filter')} (number {code})"
            raise ValueError(
                f"{_called(item.name)} is packed with {name}, which is missing here: pip "
                "install hdf5plugin, or pack it with gzip"
            )


def _check_stored(what: str, size: int, stored: int) -> None:
    if size > _MUCH and size > _MOST_PACKED * stored:
        raise ValueError(f"{what} declares {size:,} bytes and stores {stored:,}")


def _check_chunks(name: str, shape, chunks, itemsize: int) -> None:
    size = prod(chunks) * itemsize
    number = prod(-(-n // most) for n, most in zip(shape, chunks, strict=True))
    if size > _MOST_CHUNK or (size < _LEAST_CHUNK and number > _MANY_CHUNKS):
        raise ValueError(
            f"{name} is stored in {number:,} chunks of {size:,} bytes; expected at most "
            f"{_MOST_CHUNK:,} bytes each, and at least {_LEAST_CHUNK:,} if there are many; write "
            "it again with AnnData.write_h5ad"
        )


def _kinds(kind: np.dtype) -> list[np.dtype]:
    """Return the types of a record's fields, or the type itself."""
    return [kind.fields[name][0] for name in kind.names or ()] or [kind]


def _check_strings(item: h5py.Dataset, total: int) -> int:
    """Read strings a few at a time, for many may share the bytes of a long one.

    `total` is the bytes of those before, and returned with those of this array.
    """
    of_text = [h5py.check_vlen_dtype(kind) in (str, bytes) for kind in _kinds(item.dtype)]
    if not item.shape or not any(of_text):
        return total
    if prod(item.shape[:-1]) > _MOST_ROWS:
        raise ValueError(f"{_called(item.name)} has the shape {item.shape}; expected few strings")
    parts = [item.fields(name) for name in item.dtype.names or ()] or [item]
    most = max(_MUCH, item.file.id.get_filesize())  # each has bytes of its own in a true file
    for part in compress(parts, of_text):
        for row in np.ndindex(item.shape[:-1]):
            for sizes in _lengths(part, row, item.shape[-1]):
                total += sum(sizes)
                if max(sizes) > _MOST_STRING or total > most:
                    raise ValueError(
                        f"{_called(item.name)} holds strings of {max(sizes):,} bytes, {total:,} so "
                        "far; expected names"
                    )
    return total


def _lengths(part, row: tuple[int, ...], n: int) -> Iterator[list[int]]:
    start, step = 0, 16
    while start < n:
        sizes = [len(text) for text in part[(*row, slice(start, start + step))]]
        yield sizes
        start, step = start + step, min(2 * step, 2**16) if max(sizes) < 1024 else 16


def check_zarr(folder: str | Path) -> None:
    """Raise a ValueError unless a Zarr folder is files of its own, unpacked by what runs nothing.

    It may hold no link or device, no codec that is not known to be safe (one of numcodecs runs
    code, see GHSA-jqc8-qjfv-5m6r), and no chunks of an unbearable size.
    """
    declared = stored = 0
    for where, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(where, name)
            if path.is_symlink() or not (path.is_dir() or path.is_file()):
                raise ValueError(f"{path} is a link or a device; expected plain files")
            stored += path.stat().st_size
        for name in set(_ZARR_WORDS) & set(files):
            path = Path(where, name)
            if path.stat().st_size > _MOST_WORDS:
                raise ValueError(f"{path} is too large to describe an array")
            declared += _check_words(path, json.loads(path.read_bytes()))
    if declared > max(_MUCH_IN_ZARR, _MOST_PACKED * stored):
        raise ValueError(f"its arrays declare {declared:,} bytes, and its files hold {stored:,}")


def _check_words(path: Path, words: object) -> int:
    """Look through a description of arrays, which may hold those of others; return their bytes."""
    if isinstance(words, list):
        return sum(_check_words(path, part) for part in words)
    if not isinstance(words, dict):
        return 0
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
    size = 0
    if isinstance(chunks, list) and isinstance(shape := words.get("shape"), list):
        whole = all(isinstance(n, int) for n in (*chunks, *shape))
        if not whole or len(chunks) != len(shape) or min([*chunks, 1]) < 1 or min([*shape, 0]) < 0:
            raise ValueError(f"{path}: chunks of {chunks} for an array of {shape}")
        each = _itemsize(words.get("dtype", words.get("data_type")))
        _check_chunks(str(path), shape, chunks, each)
        size = prod(shape) * each
    return size + sum(_check_words(path, part) for part in words.values())


def _itemsize(kind: object) -> int:
    """Return the bytes of a value of a type of Zarr, 8 at the least."""
    if isinstance(kind, dict):
        found = (kind.get("configuration") or {}).get("length_bytes", 8)
    elif isinstance(kind, list):
        found = sum(_itemsize(field[1]) for field in kind)
    else:
        try:
            found = np.dtype(kind).itemsize
        except TypeError:  # a name that NumPy does not have, such as string
            found = 8
    return max(found, 8)
