"""Images in tar and zip archives, never unpacked to the disk."""

from __future__ import annotations

import json
import posixpath
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from isal import igzip

from tfzip import naming, storage
from tfzip.errors import BrokenSourceError, SourceError
from tfzip.record import EXTRA, Failure, FeatureSpec
from tfzip.sources.columns import column_of, truths_of
from tfzip.sources.folder import SUFFIXES as IMAGES
from tfzip.sources.source import Listed, Stream, state_of

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")

_GZIPPED = (".tar.gz", ".tgz")
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_SIDECARS = (".cls", ".json")
_LARGEST_SIDECAR = 1 << 20  # bytes; what tells of one image is not larger


@dataclass(frozen=True)
class _Member:
    """One file inside an archive: where its bytes lie, and for a deflated one the trailer that gzip would give it."""

    archive: int
    name: bytes
    offset: int
    size: int  # in the archive
    trailer: bytes = b""
    problem: str = ""


@dataclass
class _Listing:
    """What archives hold: images, what the files beside each (same name, another suffix) say, and how much else."""

    images: list[_Member] = field(default_factory=list)
    sidecars: dict[tuple[int, bytes], dict[str, bytes]] = field(default_factory=dict)
    ignored: int = 0

    def add(self, member: _Member, read: Callable[[], bytes]) -> None:
        key, suffix = _split(member.name)
        if posixpath.splitext(member.name)[1].lower() in IMAGES:
            self.images.append(member)
        elif suffix in _SIDECARS and member.size <= _LARGEST_SIDECAR and not member.problem:
            self.sidecars.setdefault((member.archive, key), {}).setdefault(suffix, read())
        else:
            self.ignored += 1


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
    listing, total = _Listing(), 0
    for number, path in enumerate(paths):
        try:
            total = _list_zip(path, number, listing) if path.endswith(".zip") else _list_tar(path, number, listing)
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, igzip.igzip_lib.IsalError) as error:
            raise BrokenSourceError(f"{path}: the archive is damaged or cut short ({error})") from None
    if not listing.images:
        raise SourceError(f"{shown}: no images in it (none of its {listing.ignored} files is one)")
    return _source(shown, paths, listing, total if gzipped else None)


# Listing.


def _list_tar(path: str, number: int, listing: _Listing) -> int:
    """Add a tar's members, known by its headers; returns its size, uncompressed."""
    gzipped = path.endswith(_GZIPPED)
    with storage.open(path, "rb") as raw:
        file: Any = igzip.open(raw, "rb") if gzipped else raw
        headers: list[bytes] = []
        places: dict[str, tuple[int, int]] = {}
        with tarfile.open(fileobj=file, mode="r|" if gzipped else "r:", tarinfo=_noting(headers)) as tar:
            for member in tar:
                if found := _tar_member(number, member, {} if gzipped else places):
                    listing.add(found, partial(_content, tar, member))
        # tarfile takes whatever is no header for the end; only blocks of zeros are one.
        if not headers or headers[-1].strip(b"\0") or len(headers[-1]) < tarfile.BLOCKSIZE:
            raise EOFError("no end-of-archive mark")
        if gzipped:
            while file.read(1 << 20):
                pass
        return int(file.tell())


def _tar_member(number: int, member: tarfile.TarInfo, places: dict[str, tuple[int, int]]) -> _Member | None:
    """A file or a link; None for what is neither. `places` remembers where each name lies, for hard links."""
    name, problem = naming.to_bytes(member.name).removeprefix(b"./"), ""
    offset, size = places.get(member.linkname, (0, 0)) if member.islnk() else (member.offset_data, member.size)
    if member.issparse():
        problem = "it is stored sparsely"
    elif member.issym() or (member.islnk() and member.linkname not in places):
        problem = f"it is a link to {member.linkname}"
    elif not member.isreg() and not member.islnk():
        return None
    places[member.name] = offset, size
    return _Member(number, name, offset, size, problem=problem)


def _noting(headers: list[bytes]) -> type[tarfile.TarInfo]:
    """A TarInfo that leaves the last header block read in `headers`."""

    class Noting(tarfile.TarInfo):
        @classmethod
        def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Any:
            headers[:] = [bytes(buf)]
            return super().frombuf(buf, encoding, errors)

    return Noting


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _list_zip(path: str, number: int, listing: _Listing) -> int:
    """Add a zip's members, known by its central directory."""
    with storage.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                listing.add(_zip_member(file, number, info), partial(archive.read, info))
    return 0


def _zip_member(file: IO[bytes], number: int, info: zipfile.ZipInfo) -> _Member:
    name = naming.to_bytes(info.filename).removeprefix(b"./")
    if info.flag_bits & 1:
        return _Member(number, name, info.header_offset, 0, problem="it is encrypted")
    if info.compress_type not in (_STORED, _DEFLATED):
        problem = f"it is compressed by method {info.compress_type}; tfzip reads stored and deflated ones"
        return _Member(number, name, info.header_offset, 0, problem=problem)
    file.seek(info.header_offset)
    header = file.read(30)
    if header[:4] != b"PK\x03\x04":
        problem = "the archive has no member where its directory says"
        return _Member(number, name, info.header_offset, 0, problem=problem)
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    trailer = b""
    if info.compress_type == _DEFLATED:
        trailer = info.CRC.to_bytes(4, "little") + (info.file_size % 2**32).to_bytes(4, "little")
    return _Member(number, name, info.header_offset + 30 + lengths, info.compress_size, trailer)


# The source.


def _source(shown: str, paths: Sequence[str], listing: _Listing, total: int | None) -> Listed | Stream:
    _check_unique(paths, listing.images)
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
        "state": state_of(paths),
    }
    columns |= known.labels
    if total is not None:
        texts = {} if known.texts is None else {"truth_text": np.array(known.texts, object)}
        names = {"filename": np.array(filenames, object)}
        elements = lambda: _streamed(paths[0], total, kept, {**names, **columns, **texts})  # noqa: E731
        return Stream(**common, count=len(kept), elements=elements)
    sizes = np.array([member.size for member in kept], np.int64)
    return Listed(
        **common,
        filenames=filenames,
        sizes=sizes,
        truths=known.texts,
        columns=columns,
        reader=lambda: _reader(paths, kept),
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
        except ValueError as error:
            name = naming.to_text(member.name)
            raise BrokenSourceError(f"{name}: the .json beside it is no JSON ({error})") from None
        records.append(record if isinstance(record, dict) else {"json": record})
    names = sorted({name for record in records for name in record})
    return {name: column_of([record.get(name) for record in records]) for name in names}


# The graph.


def _reader(paths: Sequence[str], members: Sequence[_Member]) -> Callable[[tf.Tensor], Element]:
    """A graph function: a position -> the member's name and bytes."""
    import tensorflow as tf

    from tfzip.sources import region

    read_piece = region.reader(paths)
    names, trailers = tf.constant([m.name for m in members]), tf.constant([m.trailer for m in members])
    archives, offsets, sizes = (
        tf.constant([getattr(member, name) for member in members], tf.int64) for name in ("archive", "offset", "size")
    )
    deflated = any(member.trailer for member in members)

    def read(position: tf.Tensor) -> Element:
        piece = read_piece(*(tf.gather(values, position) for values in (archives, offsets, sizes)))
        if deflated:
            piece = _inflated(piece, tf.gather(trailers, position))
        return {"filename": tf.gather(names, position), "encoded": piece}

    return read


def _inflated(piece: tf.Tensor, trailer: tf.Tensor) -> tf.Tensor:
    """A deflated member becomes a gzip file by a header and a trailer; with no trailer it is stored as it is."""
    import tensorflow as tf

    whole = tf.strings.join([b"\x1f\x8b\x08\0\0\0\0\0\0\xff", piece, trailer])
    return tf.cond(trailer == "", lambda: piece, lambda: tf.io.decode_compressed(whole, "GZIP"))


def _streamed(path: str, total: int, members: Sequence[_Member], columns: Mapping[str, Any]) -> Any:
    """The members of a compressed tar, in order."""
    import tensorflow as tf

    from tfzip.sources import region

    starts, sizes = (np.array([getattr(m, name) for m in members], np.int64) for name in ("offset", "size"))
    pieces = region.gzip_pieces(path, total, starts, sizes)
    known = tf.data.Dataset.from_tensor_slices({name: tf.constant(column) for name, column in columns.items()})
    join = tf.autograph.experimental.do_not_convert(lambda known, piece: {**known, "encoded": piece})
    return tf.data.Dataset.zip((known, pieces)).map(join)
