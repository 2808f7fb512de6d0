"""Rows of records <-> index.zip.

While an export runs, each finished shard leaves its rows in a part file; at the end the parts are put together, one at
a time, into `index.zip`: a table for people, the same rows as arrays for programs, and a lookup by filename. The `.npy`
entries are stored as they are and aligned, so that a reader maps them into memory inside the zip.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import tempfile
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfzip import storage
from tfzip.errors import CorruptError
from tfzip.naming import shown, to_text
from tfzip.record import INDEXED_SCORES, SCORES, UNKNOWN, Failure, Location

INDEX = "index.zip"

COLUMNS: dict[str, type[np.generic]] = {
    "shard": np.int32,
    "offset": np.int64,
    "size": np.int64,
    "start": np.int32,
    "label": np.int32,
    "confidence": np.float32,
    "margin": np.float32,
    "entropy": np.float32,
    "truth": np.int32,
}
"""One value a record. `scores`, [records, classes], is there too for up to `record.INDEXED_SCORES` classes."""

METADATA_FIELDS = (
    "filename",
    "prediction",
    "confidence",
    "label",
    "truth",
    "shard",
    "offset",
    "size",
    "start",
)

_ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes before an entry's name (APPNOTE.TXT 4.3.7)
_ZIP64_FIELD = 20  # zipfile adds this much to the extra field of an entry that may pass 2 GiB
_PADDING_ID = 0xD935  # the extra field that Android's zipalign uses for padding
_LARGE = 1 << 31

Array = npt.NDArray[Any]

_DAMAGE = (
    # What zipfile, zlib, csv and NumPy raise on bytes that are not what was written.
    zipfile.BadZipFile, zlib.error, csv.Error, tokenize.TokenError, SyntaxError, KeyError, ValueError, OSError,
    EOFError, RuntimeError, OverflowError, MemoryError,
)  # fmt: skip

csv.field_size_limit(2**31 - 1)  # several labels of many may be joined in one field


# Parts: the rows of one shard.


def save_part(
    path: str,
    columns: Mapping[str, Array],
    texts: Mapping[str, Sequence[bytes]],
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write the rows of one shard; the file is there whole or not at all.

    Args:
        path: of the part file.
        columns: as in COLUMNS, and `scores`; others are for whoever reads the part.
        texts: `filename`, `prediction` and `truth_text`.
        notes: what else there is to know of the shard, as JSON has it.
    """
    arrays = dict(columns)
    for name, values in texts.items():
        arrays |= joined_texts(name, values)
    arrays["notes"] = np.frombuffer(json.dumps(notes or {}).encode(), np.uint8)
    save_arrays(path, arrays)


def save_arrays(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays to a `.npz` file that is there whole or not at all."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type] # for the names that are keywords of its own
    storage.write_whole(path, content.getvalue())


def joined_texts(name: str, texts: Sequence[bytes]) -> dict[str, Array]:
    """Byte strings as two arrays: all end to end, and where each ends."""
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    return {name: np.frombuffer(b"".join(texts), np.uint8), f"{name}_end": ends}


class Part:
    """The rows of one shard, read an array at a time."""

    def __init__(self, path: str, shard: int) -> None:
        self._path, self._shard = path, shard

    def column(self, name: str) -> Array:
        """One column."""
        with storage.open(self._path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            if name == "shard":
                return np.full(len(arrays["offset"]), self._shard, np.int32)
            return arrays[name]

    def texts(self, name: str) -> list[bytes]:
        """One column of texts."""
        return split_texts(self.column(name), self.column(f"{name}_end"))

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted of the shard."""
        return json.loads(self.column("notes").tobytes())


def split_texts(blob: Array, ends: Array) -> list[bytes]:
    """The byte strings that lie end to end in `blob`, the i-th ending before `ends[i]`."""
    data = blob.tobytes()
    stops = ends.tolist()
    return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


# Writing.


def write_index(
    path: str,
    manifest: Mapping[str, Any],
    labels: Sequence[str],
    schema: str,
    parts: Sequence[str],
    failures: Iterable[Failure],
) -> None:
    """Write index.zip from the parts of all shards, in shard order; memory holds one part and the lookup."""
    if not storage.is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, INDEX)
            write_index(local, manifest, labels, schema, parts, failures)
            storage.copy_from_local(local, path)
        return
    rows = [shard["records"] for shard in manifest["shards"]]
    tables = [Part(part, shard) for shard, part in enumerate(parts)]
    with zipfile.ZipFile(path, "w") as archive:
        _write_text(archive, "manifest.json", [json.dumps(manifest, indent=2, ensure_ascii=False) + "\n"])
        _write_text(archive, "labels.txt", (f"{label}\n" for label in labels))
        _write_text(archive, "schema.pbtxt", [schema])
        _write_text(archive, "metadata.csv", _metadata_lines(tables))
        _write_text(archive, "failures.csv", _failure_lines(failures))
        for name, dtype in COLUMNS.items():
            _write_array(archive, f"columns/{name}.npy", dtype, (sum(rows),), (p.column(name) for p in tables))
        if tables and (width := _scores_width(manifest)):
            scores = (p.column("scores") for p in tables)
            _write_array(archive, "columns/scores.npy", np.float32, (sum(rows), width), scores)
        _write_filenames(archive, tables, sum(rows))
        _write_lookup(archive, tables)


def _scores_width(manifest: Mapping[str, Any]) -> int:
    """The number of scores a row has in the index: 0 where they are too many, or there are none."""
    (width,) = manifest["features"].get(SCORES, {"shape": [0]})["shape"]
    return width if width <= INDEXED_SCORES else 0


def _write_filenames(archive: zipfile.ZipFile, tables: Sequence[Part], rows: int) -> None:
    """All filenames end to end, and where each ends, so that programs need not parse the CSV."""
    ends, total = [], 0
    for table in tables:
        ends.append(table.column("filename_end") + total)
        total += int(ends[-1][-1]) - total if len(ends[-1]) else 0
    blobs = (table.column("filename") for table in tables)
    _write_array(archive, "columns/filename.npy", np.uint8, (total,), blobs)
    _write_array(archive, "columns/filename_end.npy", np.int64, (rows,), ends)


def _write_lookup(archive: zipfile.ZipFile, tables: Sequence[Part]) -> None:
    hashes = np.array([hash_filename(name) for table in tables for name in table.texts("filename")], np.uint64)
    order = np.argsort(hashes, kind="stable")
    _write_array(archive, "lookup/hash.npy", np.uint64, hashes.shape, [hashes[order]])
    _write_array(archive, "lookup/row.npy", np.int64, order.shape, [order])


def hash_filename(filename: bytes) -> int:
    """The first 8 bytes, little endian, of the SHA-256 of the filename."""
    return int.from_bytes(hashlib.sha256(filename).digest()[:8], "little")


def _metadata_lines(tables: Sequence[Part]) -> Iterator[str]:
    yield _csv_lines([METADATA_FIELDS])
    for table in tables:
        yield _csv_lines(
            zip(
                [to_text(name) for name in table.texts("filename")],
                [text.decode("utf-8", "replace") for text in table.texts("prediction")],
                shown_confidences(table.column("confidence")),
                shown_labels(table.column("label")),
                [to_text(text) for text in table.texts("truth_text")],
                *(table.column(name).tolist() for name in ("shard", "offset", "size", "start")),
                strict=True,
            )
        )


def shown_confidences(values: Array) -> list[str]:
    """Confidences as metadata.csv has them: the shortest decimal that reads back to the same float32."""
    return [str(value) if value == value else "" for value in values]


def shown_labels(values: Array) -> list[str]:
    """Labels as metadata.csv has them."""
    return ["" if label == UNKNOWN else str(label) for label in values.tolist()]


def _failure_lines(failures: Iterable[Failure]) -> Iterator[str]:
    yield _csv_lines([Failure._fields])
    yield from (_csv_lines([(shown(name), stage, error)]) for name, stage, error in failures)


def _csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    """A zip entry that says nothing of when or where it was made."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = compression
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _write_text(archive: zipfile.ZipFile, name: str, pieces: Iterable[str]) -> None:
    with archive.open(_entry(name, zipfile.ZIP_DEFLATED), "w", force_zip64=True) as file:
        for piece in pieces:
            file.write(piece.encode())


def _write_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: type[np.generic],
    shape: tuple[int, ...],
    pieces: Iterable[Array],
) -> None:
    """Store a `.npy` whose rows come in pieces; its bytes begin at a multiple of _ALIGNMENT in the zip."""
    entry = _entry(name, zipfile.ZIP_STORED)
    large = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize >= _LARGE
    _align(archive, entry, _ZIP64_FIELD if large else 0)
    with archive.open(entry, "w", force_zip64=large) as file:
        header = {
            "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(np.ascontiguousarray(piece, dtype).tobytes())


def _align(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, more: int) -> None:
    """Pad the entry's extra field so that its data begin at a multiple of _ALIGNMENT."""
    field = 4  # an extra field's own header
    begin = archive.start_dir + _LOCAL_HEADER + len(entry.filename.encode()) + field + more
    padding = -begin % _ALIGNMENT
    entry.extra = _PADDING_ID.to_bytes(2, "little") + padding.to_bytes(2, "little") + bytes(padding)


# Reading.


class Index:
    """A finished index.zip: opened without reading its tables, which are mapped into memory when asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = storage.Local(path)
        try:
            self._archive = zipfile.ZipFile(self._local.path)
        except _DAMAGE as error:
            raise CorruptError(f"{self.path} is damaged: {error}") from None
        self._columns: dict[str, Array] = {}
        self.manifest: dict[str, Any] = self._read_manifest()

    def close(self) -> None:
        """Close the zip; arrays already mapped stay valid."""
        self._archive.close()

    def _read_manifest(self) -> dict[str, Any]:
        try:
            return json.loads(self.text("manifest.json"))
        except ValueError:
            raise CorruptError(f"{self.path}: manifest.json is damaged") from None

    def text(self, entry: str) -> str:
        """A text entry, whole."""
        try:
            return self._archive.read(entry).decode()
        except _DAMAGE as error:
            raise CorruptError(f"{self.path}: {entry} cannot be read ({error})") from None

    def table(self, entry: str) -> Iterator[dict[str, str]]:
        """The rows of a CSV entry, one at a time."""
        try:
            with self._archive.open(entry) as file:
                yield from csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        except _DAMAGE as error:
            raise CorruptError(f"{self.path}: {entry} cannot be read ({error})") from None

    @property
    def column_names(self) -> list[str]:
        """The columns that are there."""
        entries = self._archive.namelist()
        return [name for name in (*COLUMNS, "scores") if f"columns/{name}.npy" in entries]

    def column(self, name: str) -> Array:
        """One column, mapped from the disk, read-only."""
        return self.array(f"columns/{name}.npy")

    def array(self, entry: str) -> Array:
        """One `.npy` entry, mapped from the disk, read-only."""
        if entry not in self._columns:
            try:
                self._columns[entry] = self._map(entry)
            except _DAMAGE as error:
                raise CorruptError(f"{self.path}: {entry} cannot be read ({error})") from None
        return self._columns[entry]

    def _map(self, entry: str) -> Array:
        info = self._archive.getinfo(entry)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        with open(self._local.path, "rb") as file:
            file.seek(info.header_offset)
            header = file.read(_LOCAL_HEADER)
            begin = info.header_offset + _LOCAL_HEADER
            begin += int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
            file.seek(begin)
            if np.lib.format.read_magic(file) != (1, 0):
                raise ValueError("it is no .npy of version 1.0")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            if dtype.hasobject or file.tell() - begin + size != info.file_size:
                raise ValueError("its header does not fit its size")
            if size == 0:
                return np.empty(shape, dtype)
            return np.memmap(self._local.path, dtype, "r", file.tell(), shape)

    def verify_crcs(self) -> str | None:
        """Read every entry against its CRC-32; the first damaged one, or None."""
        try:
            return self._archive.testzip()
        except _DAMAGE as error:
            return str(error)

    def __len__(self) -> int:
        return len(self.column("shard"))

    def location(self, row: int) -> Location:
        """Where the record of a row lies."""
        return Location(*(int(self.column(name)[row]) for name in Location._fields))

    def filename(self, row: int) -> bytes:
        """The filename of a row."""
        ends = self.column("filename_end")
        start = int(ends[row - 1]) if row else 0
        return self.column("filename")[start : int(ends[row])].tobytes()

    def rows(self, filename: bytes) -> list[int]:
        """The rows that may hold a filename (those of its hash; the record itself decides)."""
        hashes = self.array("lookup/hash.npy")
        wanted = np.uint64(hash_filename(filename))
        first, last = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
        return self.array("lookup/row.npy")[first:last].tolist()
