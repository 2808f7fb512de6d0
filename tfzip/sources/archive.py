"""Images in tar and zip archives, never unpacked to the disk."""

from __future__ import annotations

import json
import os
import posixpath
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from isal import igzip, isal_zlib

from tfzip import naming, storage
from tfzip.errors import BrokenSourceError, SourceError
from tfzip.framing import DEFLATE_ERROR
from tfzip.record import EXTRA, Failure, FeatureSpec
from tfzip.sources import tar
from tfzip.sources.columns import column_of, truths_of
from tfzip.sources.folder import SUFFIXES as IMAGES
from tfzip.sources.source import Listed, Stream, check_unchanged, state_of

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

_GZIPPED = (".tar.gz", ".tgz")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_STREAMED, _UTF8 = 8, 0x800  # flags: CRC and sizes follow the bytes; the name is UTF-8
_LONG = 0xFFFFFFFF  # a size of 64 bits, which is told elsewhere
_SIDECARS = (".cls", ".json")

_LARGEST = 256 << 20  # bytes of an image; what is larger, or claims to be, would take memory many times over
_LARGEST_SIDECAR = 1 << 20  # bytes; what tells of one image is not larger
_FREE, _PER_BYTE = 64 << 20, 32  # bytes to remember of an archive: so many, and so many for each that it has
_PER_MEMBER = 256  # of them, besides its name: of a tar.gz of blank images each has ten bytes
_MOST_FIELDS = 256

_LARGEST_IN_GRAPH = 1 << 16  # bytes of a deflated member that TensorFlow may inflate: it cannot be told where to stop

_DAMAGE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, struct.error, DEFLATE_ERROR, EOFError, OSError, ValueError,
    OverflowError, RuntimeError,
)  # fmt: skip
"""What reading an archive raises that is not what an archive should be."""


@dataclass(frozen=True)
class _Member:
    """One file inside an archive: where its bytes lie, and for a deflated one the trailer that gzip would give it.

    `size` is that in the archive, `inflated` what it comes to.
    """

    archive: int
    name: bytes
    offset: int
    size: int
    inflated: int
    trailer: bytes = b""
    problem: str = ""


@dataclass
class _Listing:
    """What archives hold: images, what the files beside each (same name, another suffix) say, and how much else."""

    images: list[_Member] = field(default_factory=list)
    sidecars: dict[tuple[int, bytes], dict[str, bytes]] = field(default_factory=dict)
    ignored: int = 0
    room: int = _FREE

    def add(self, member: _Member, read: Callable[[], bytes]) -> None:
        key, suffix = _split(member.name)
        if posixpath.splitext(member.name)[1].lower() in IMAGES:
            self._remember(len(member.name))
            self.images.append(_limited(member))
        elif suffix in _SIDECARS and member.inflated <= _LARGEST_SIDECAR and not member.problem:
            self._remember(len(member.name) + member.inflated)
            self.sidecars.setdefault((member.archive, key), {}).setdefault(suffix, read())
        else:
            self.ignored += 1

    def _remember(self, size: int) -> None:
        """Raise ValueError if an archive is too small for all that it would have one remember."""
        self.room -= _PER_MEMBER + size
        if self.room < 0:
            raise ValueError(f"its images, or its {' and '.join(_SIDECARS)} files, are out of proportion to its size")


def _limited(member: _Member) -> _Member:
    if member.problem or max(member.size, member.inflated) <= _LARGEST:
        return member
    size = max(member.size, member.inflated)
    return replace(member, problem=f"it has {size} bytes, and an image in an archive may have {_LARGEST}")


def _split(name: bytes) -> tuple[bytes, str]:
    """Key and suffix as WebDataset has them: the suffix begins at the first dot of the last part."""
    folder, slash, base = name.rpartition(b"/")
    stem, dot, suffix = base.partition(b".")
    return folder + slash + stem, naming.to_str(dot + suffix).lower()


def from_archives(shown: str, paths: Sequence[str]) -> Listed | Stream:
    """The images in archives, in the order that they lie in; filenames are the members' names.

    Of WebDataset samples `KEY.cls` is the truth and the fields of `KEY.json` become `extra/FIELD`. Compressed tars are
    streams, the others are read in any order.

    Raises:
        SourceError: there are no images, or two of one name.
        BrokenSourceError: an archive is cut short or damaged.
    """
    gzipped = [path for path in paths if path.endswith(_GZIPPED)]
    if gzipped and len(paths) > 1:
        raise SourceError(f"{shown}: give compressed tars one at a time, or uncompress them")
    state = state_of(paths)
    files = [storage.Local(path) for path in paths]
    listing, total = _Listing(), 0
    for number, (path, file) in enumerate(zip(paths, files, strict=True)):
        try:
            total = (_list_zip if path.endswith(".zip") else _list_tar)(file.path, number, listing)
        except _DAMAGE as error:
            raise BrokenSourceError(f"{path}: the archive is damaged or cut short ({error})") from None
    if not listing.images:
        raise SourceError(f"{shown}: no images in it (none of its {listing.ignored} files is one)")
    _check_unique(paths, listing.images)
    steady = {"state": state, "check": partial(check_unchanged, paths, state, mapped=not gzipped)}
    return _source(shown, files, listing, steady, total if gzipped else None)


# Listing.


def _list_tar(path: str, number: int, listing: _Listing) -> int:
    """Add a tar's members, known by its headers; returns its size, uncompressed."""
    gzipped = path.endswith(_GZIPPED)
    with storage.open(path, "rb") as raw:
        listing.room += _PER_BYTE * _size(raw)
        file: Any = igzip.open(raw, "rb") if gzipped else raw
        places: dict[bytes, tuple[int, int]] = {}
        for member in tar.members(file, seekable=not gzipped):
            if found := _tar_member(number, member, {} if gzipped else places):
                listing.add(found, partial(_content, file, found))
        while gzipped and file.read(1 << 20):
            pass
        return int(file.tell())


def _size(file: IO[bytes]) -> int:
    file.seek(0, os.SEEK_END)
    size = file.tell()
    file.seek(0)
    return size


def _tar_member(number: int, member: tar.Member, places: dict[bytes, tuple[int, int]]) -> _Member | None:
    """A file or a link; None for what is neither. `places` remembers where each name lies, for hard links."""
    offset, size, problem = member.offset, member.size, ""
    is_link = member.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE)
    if member.is_sparse:
        problem = "it is stored sparsely"
    elif member.kind == tarfile.LNKTYPE and member.link in places:
        offset, size = places[member.link]
    elif is_link:
        problem = f"it is a link to {naming.to_str(member.link)}"
    elif member.kind not in tarfile.REGULAR_TYPES:
        return None
    if not problem:
        places[member.name] = offset, size
    return _Member(number, member.name.removeprefix(b"./"), offset, size, size, problem=problem)


def _content(file: IO[bytes], member: _Member) -> bytes:
    """The bytes of a member, at which a file that cannot be read at any place stands already."""
    if file.tell() != member.offset:
        file.seek(member.offset)
    return file.read(member.size)


def _list_zip(path: str, number: int, listing: _Listing) -> int:
    """Add a zip's members, known by its central directory."""
    with storage.open(path, "rb") as file:
        listing.room += _PER_BYTE * _size(file)
        with zipfile.ZipFile(file) as archive:
            infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
            members = [_zip_member(file, number, info, archive.start_dir) for info in infos]
            for member, info in zip(_apart(members), infos, strict=True):
                listing.add(member, partial(_inflated_content, archive, info))
    return 0


def _inflated_content(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as file:
        return file.read(info.file_size)  # with no size it would inflate all there is


def _apart(members: Sequence[_Member]) -> list[_Member]:
    """The members; those that share bytes with one before them, as no archiver writes them, have that for a problem."""
    apart, end = list(members), 0
    for i in sorted(range(len(members)), key=lambda i: members[i].offset):
        member = members[i]
        if member.offset < end and not member.problem:
            apart[i] = replace(member, problem="it shares bytes with another member")
        end = max(end, member.offset + member.size)
    return apart


def _zip_member(file: IO[bytes], number: int, info: zipfile.ZipInfo, end: int) -> _Member:
    """A member by the directory, which begins at `end`, and by its own header."""
    found = partial(_Member, number, naming.to_bytes(info.filename).removeprefix(b"./"))
    if info.flag_bits & 1:
        return found(info.header_offset, 0, 0, problem="it is encrypted")
    if info.compress_type not in (_STORED, _DEFLATED):
        problem = f"it is compressed by method {info.compress_type}; tfzip reads stored and deflated ones"
        return found(info.header_offset, 0, 0, problem=problem)
    header, name = b"", info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437")
    if 0 <= info.header_offset < end:
        file.seek(info.header_offset)
        header = file.read(30 + len(name))
    named, extra = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
    begin = info.header_offset + 30 + named + extra
    if header[:4] != b"PK\x03\x04" or begin + info.compress_size > end:
        return found(info.header_offset, 0, 0, problem="the archive has no member where its directory says")
    file.seek(begin + info.compress_size)
    is_whole = info.compress_type == _DEFLATED or info.compress_size == info.file_size
    if (named, header[30:]) != (len(name), name) or not (is_whole and _is_same(header, info, file.read(8))):
        return found(info.header_offset, 0, 0, problem="what the directory says of it is not what stands before it")
    trailer = info.CRC.to_bytes(4, "little") + (info.file_size % 2**32).to_bytes(4, "little")
    return found(begin, info.compress_size, info.file_size, trailer if info.compress_type == _DEFLATED else b"")


def _is_same(header: bytes, info: zipfile.ZipInfo, behind: bytes) -> bool:
    """Whether a member's own header tells the same method, CRC and sizes; or what is behind it, if they are there."""
    method, *told = struct.unpack("<8xH4x3L", header[:26])
    known = (info.CRC, info.compress_size, info.file_size)
    same = all(one in (other, _LONG) for one, other in zip(told, known, strict=True))
    if header[6] & _STREAMED and not same:
        same = behind.removeprefix(b"PK\x07\x08")[:4] == info.CRC.to_bytes(4, "little")
    return method == info.compress_type and same


# The source.


def _source(
    shown: str, files: Sequence[storage.Local], listing: _Listing, steady: Mapping[str, Any], total: int | None
) -> Listed | Stream:
    kept = [member for member in listing.images if not member.problem]
    lost = [member for member in listing.images if member.problem]
    sidecars = [listing.sidecars.get((member.archive, _split(member.name)[0]), {}) for member in kept]
    known = truths_of([naming.to_str(side[".cls"].strip()) if ".cls" in side else None for side in sidecars])
    columns = {EXTRA + name: column for name, column in _json_columns(kept, sidecars).items()}
    filenames = [member.name for member in kept]
    common: dict[str, Any] = {
        "kind": "archive",
        "name": shown,
        "classes": known.classes,
        "features": {name: FeatureSpec(_KINDS.get(column.dtype.kind, "bytes")) for name, column in columns.items()},
        "rejected": [Failure(naming.to_str(member.name), "read", member.problem) for member in lost],
        "ignored": listing.ignored,
        **steady,
    }
    columns |= known.labels
    if total is not None:
        texts = {} if known.texts is None else {"truth_text": np.array(known.texts, object)}
        names = {"filename": np.array(filenames, object)}
        known_of_each = {**names, **columns, **texts}
        items = lambda size: _streamed(files[0], total, kept, known_of_each).batch(size)  # noqa: E731
        return Stream(**common, count=len(kept), batches=items)
    sizes = np.array([member.size for member in kept], np.int64)
    return Listed(
        **common,
        filenames=filenames,
        sizes=sizes,
        truths=known.texts,
        columns=columns,
        reader=lambda: _reader(files, kept),
    )


_KINDS = {"i": "int64", "f": "float"}


def _check_unique(paths: Sequence[str], images: Sequence[_Member]) -> None:
    """Raise SourceError if two images have one name."""
    first: dict[bytes, _Member] = {}
    for member in images:
        if (other := first.setdefault(member.name, member)) is not member:
            places = (f"{paths[one.archive]} at byte {one.offset}" for one in (other, member))
            name = naming.to_text(member.name)
            raise SourceError(f"two images are named {name}: {' and '.join(places)}; drop one: filenames are keys")


def _json_columns(members: Sequence[_Member], sidecars: Sequence[Mapping[str, bytes]]) -> dict[str, Any]:
    """The fields of the JSON beside each image, each a column."""
    records = []
    for member, side in zip(members, sidecars, strict=True):
        try:
            record = json.loads(side.get(".json", b"{}"))
        except (ValueError, RecursionError) as error:
            name = naming.to_text(member.name)
            raise BrokenSourceError(f"{name}: the .json beside it is no JSON ({error})") from None
        fields = record if isinstance(record, dict) else {"json": record}
        records.append({name: _compact(value) for name, value in fields.items()})
    names = sorted({name for record in records for name in record})
    if len(names) > _MOST_FIELDS:
        raise BrokenSourceError(f"the .json files beside the images have {len(names)} fields, more than {_MOST_FIELDS}")
    return {name: column_of([record.get(name) for record in records]) for name in names}


def _compact(value: Any) -> Any:
    """A value as a column holds it: lists and objects as JSON, which takes a tenth of their memory."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


# The graph.


def _reader(files: Sequence[storage.Local], members: Sequence[_Member]) -> Callable[[tf.Tensor], Element]:
    """A graph function: a position -> the member's name and bytes."""
    import tensorflow as tf

    from tfzip.sources import region

    read_piece = region.reader(files)
    names, trailers = tf.constant([m.name for m in members]), tf.constant([m.trailer for m in members])
    archives, offsets, sizes = (
        tf.constant([getattr(member, name) for member in members], tf.int64) for name in ("archive", "offset", "size")
    )
    inflated = tf.constant([member.inflated for member in members], tf.int32)
    inflate = _inflater([member.size for member in members if member.trailer])

    def read(position: tf.Tensor) -> Element:
        piece = read_piece(*(tf.gather(values, position) for values in (archives, offsets, sizes)))
        if inflate:
            piece = inflate(piece, tf.gather(trailers, position), tf.gather(inflated, position))
        return {"filename": tf.gather(names, position), "encoded": piece}

    return read


def _inflater(sizes: Sequence[int]) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor] | None:
    """A graph function that inflates members which are deflated to these sizes: their bytes, trailer and real size.

    A member without a trailer is stored as it is. None if all are.
    """
    import tensorflow as tf

    def small(piece: tf.Tensor, trailer: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        whole = tf.strings.join([b"\x1f\x8b\x08\0\0\0\0\0\0\xff", piece, trailer])  # a gzip file
        content = tf.io.decode_compressed(whole, "GZIP")  # which takes one that does not end for whole
        return checked(content, tf.strings.length(content) == size)

    def large(piece: tf.Tensor, trailer: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        content, right = tf.numpy_function(_inflate, (piece, trailer, size), (tf.string, tf.bool), stateful=False)
        return tf.reshape(checked(content, right), ())

    def checked(content: tf.Tensor, right: tf.Tensor) -> tf.Tensor:
        message = "the member is damaged, or of another size than the archive says"
        with tf.control_dependencies([tf.raw_ops.Assert(condition=right, data=[message])]):
            return tf.identity(content)

    def any_size(piece: tf.Tensor, trailer: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        fits = tf.strings.length(piece) <= _LARGEST_IN_GRAPH
        return tf.cond(fits, lambda: small(piece, trailer, size), lambda: large(piece, trailer, size))

    if not sizes:
        return None
    inflate = any_size if max(sizes) > _LARGEST_IN_GRAPH else small
    return lambda piece, *more: tf.cond(more[0] == "", lambda: piece, lambda: inflate(piece, *more))


def _inflate(piece: bytes, trailer: bytes, size: int) -> tuple[bytes, bool]:
    """A deflated member inflated, no further than it should go; and whether it is what it should be."""
    stream = isal_zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        content: bytes = stream.decompress(piece, int(size) + 1)
    except DEFLATE_ERROR:
        return b"", False
    right = stream.eof and len(content) == size and isal_zlib.crc32(content).to_bytes(4, "little") == trailer[:4]
    return (content, True) if right else (b"", False)


def _streamed(file: storage.Local, total: int, members: Sequence[_Member], columns: Mapping[str, Any]) -> Any:
    """The members of a compressed tar, in order."""
    import tensorflow as tf

    from tfzip.sources import region

    starts, sizes = (np.array([getattr(m, name) for m in members], np.int64) for name in ("offset", "size"))
    pieces = region.gzip_pieces(file.path, total, starts, sizes)
    known = tf.data.Dataset.from_tensor_slices({name: tf.constant(column) for name, column in columns.items()})
    join = tf.autograph.experimental.do_not_convert(lambda known, piece: {**known, "encoded": piece})
    return tf.data.Dataset.zip((known, pieces)).map(join)
