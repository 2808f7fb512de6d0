"""Rows of records <-> index.zip.

While an export runs, each finished shard leaves its rows in a part file; at the end the parts are put together, one at
a time, into `index.zip`: a table for people, the same rows as arrays for programs, and a lookup by filename. The `.npy`
entries are stored as they are and aligned, so that a reader maps them into memory inside the zip.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice, pairwise
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tfzip import entries, storage
from tfzip.errors import CorruptError, UsageError
from tfzip.lookup import Lookup, hash_filename, hash_filenames
from tfzip.manifest import check_manifest, parse_manifest
from tfzip.metadata import METADATA_FIELDS, Array, Texts, csv_lines
from tfzip.naming import shown
from tfzip.record import INDEXED_SCORES, SCORES, Failure, Location

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
    "nonfinite": np.bool_,
}
"""One value a record. `scores`, [records, classes], is there too for up to `record.INDEXED_SCORES` classes."""

_ALIGNMENT = 64
_LOCAL_HEADER = 30  # bytes before an entry's name (APPNOTE.TXT 4.3.7)
_ZIP64_FIELD = 20  # zipfile adds this much to the extra field of an entry that may pass 2 GiB
_PADDING_ID = 0xD935  # the extra field that Android's zipalign uses for padding
_LARGE = 1 << 31
_LEVEL = 1  # of deflate: a quarter of the time of the usual one, and a fifth more of what is a tenth of the zip

_LARGEST_TEXT = 1 << 25  # bytes of a text that is read whole
_LARGEST_ROW = 1 << 22  # characters, or bytes, of a row in a table, which may hold all names of very many classes
_USUAL_ROW = 1 << 16  # on average, in a long table
_CHUNK = 1 << 20
_FAILURES = 1 << 12  # written at once
_LARGEST_NPY_HEADER = 1 << 10
_NPY_HEADER = re.compile(
    rb"\x93NUMPY\x01\x00(?P<length>..)\{'descr': '(?P<dtype>\|[bu]1|<[iuf][248])', 'fortran_order': False, "
    rb"'shape': \((?P<rows>[0-9]{1,18}),( (?P<width>[0-9]{1,18}))?\), \} *\n",
    re.DOTALL,
)

_DAMAGE = (
    # What zipfile, zlib, csv and NumPy raise on bytes that are not what was written.
    zipfile.BadZipFile, zlib.error, struct.error, csv.Error, KeyError, ValueError, OSError, EOFError, RuntimeError,
    OverflowError, MemoryError,
)  # fmt: skip

csv.field_size_limit(2**31 - 1)  # several labels of many may be joined in one field

_NO_CHARACTER = "\ud800"
"""Half of one, which no text in UTF-8 holds: stands for NUL, of which the csv of Python 3.10 has no idea."""
_KNOWS_NUL = sys.version_info >= (3, 11)


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
    joined = Texts.of(texts)
    return {name: joined.data, f"{name}_end": joined.ends}


class Part:
    """The rows of one shard, read a few arrays at a time."""

    def __init__(self, path: str, shard: int) -> None:
        self._path, self._shard = path, shard

    def columns(self, names: Iterable[str]) -> dict[str, Array]:
        """Several columns."""
        with storage.open(self._path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: self._shards(arrays) if name == "shard" else arrays[name] for name in names}

    def _shards(self, arrays: Mapping[str, Array]) -> Array:
        return np.full(len(arrays["offset"]), self._shard, np.int32)

    def column(self, name: str) -> Array:
        """One column."""
        return self.columns([name])[name]

    def texts(self, *names: str) -> list[Texts]:
        """Several columns of texts."""
        arrays = self.columns(array for name in names for array in (name, f"{name}_end"))
        return [Texts(arrays[name], arrays[f"{name}_end"]) for name in names]

    def check(self) -> None:
        """Raise BadZipFile if a byte of it is not what was written."""
        with storage.open(self._path, "rb") as file, zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{self._path}: {damaged}")

    @property
    def notes(self) -> dict[str, Any]:
        """What was noted of the shard."""
        return json.loads(self.column("notes").tobytes())


# Writing.


def write_index(
    path: str,
    manifest: Mapping[str, Any],
    labels: Sequence[str],
    schema: str,
    parts: Sequence[str],
    failures: Iterable[Failure],
) -> None:
    """Write index.zip from the parts of all shards, in shard order; memory holds one part, and no more of the rows.

    Raises UsageError, and leaves nothing, if it could not be read again.
    """
    if not storage.is_local(path):
        with tempfile.TemporaryDirectory() as folder:
            local = os.path.join(folder, INDEX)
            write_index(local, manifest, labels, schema, parts, failures)
            storage.copy_from_local(local, path)
        return
    texts = {
        "manifest.json": json.dumps(manifest, indent=2, ensure_ascii=False) + "\n",
        "labels.txt": labels_text(labels),
        "schema.pbtxt": schema,
    }
    _check_texts(texts)
    tables = [Part(part, shard) for shard, part in enumerate(parts)]
    try:
        _write_zip(
            path,
            texts,
            tables,
            failures,
            sum(shard["records"] for shard in manifest["shards"]),
            _scores_width(manifest),
        )
    except UsageError:
        os.remove(path)
        raise


def _write_zip(
    path: str, texts: Mapping[str, str], tables: Sequence[Part], failures: Iterable[Failure], rows: int, width: int
) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            with _deflated(archive, name) as file:
                file.write(text.encode())
        _write_table(archive, "metadata.csv", METADATA_FIELDS, _metadata_lines(tables))
        _write_table(archive, "failures.csv", Failure._fields, _failure_lines(failures))
        for name, dtype in COLUMNS.items():
            _write_array(archive, f"columns/{name}.npy", dtype, (rows,), (p.column(name) for p in tables))
        if tables and width:
            scores = (p.column("scores") for p in tables)
            _write_array(archive, "columns/scores.npy", np.float32, (rows, width), scores)
        _write_filenames(archive, tables, rows)
        with tempfile.TemporaryFile(dir=os.path.dirname(path)) as file:
            lookup = Lookup((hash_filenames(p.texts("filename")[0].split()) for p in tables), rows, file)
            _write_array(archive, "lookup/hash.npy", np.uint64, (rows,), lookup.hashes())
            _write_array(archive, "lookup/row.npy", np.int64, (rows,), lookup.rows())


def labels_text(labels: Sequence[str]) -> str:
    """Class names as labels.txt has them."""
    return "".join(f"{label}\n" for label in labels)


def _check_texts(texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        if (size := len(text.encode())) > _LARGEST_TEXT:
            raise UsageError(
                f"{name} would have {size} bytes, and {_LARGEST_TEXT} is what reading takes: give a larger "
                "--shard-size or --shard-records, or fewer labels"
            )


def _scores_width(manifest: Mapping[str, Any]) -> int:
    """The number of scores a row has in the index: 0 where they are too many, or there are none."""
    (width,) = manifest["features"].get(SCORES, {"shape": [0]})["shape"]
    return width if width is not None and width <= INDEXED_SCORES else 0  # of one that varies, a source had it before


def _write_filenames(archive: zipfile.ZipFile, tables: Sequence[Part], rows: int) -> None:
    """All filenames end to end, and where each ends, so that programs need not parse the CSV."""
    totals = list(accumulate((int(p.column("filename_end")[-1:].sum()) for p in tables), initial=0))
    blobs = (p.column("filename") for p in tables)
    _write_array(archive, "columns/filename.npy", np.uint8, (totals[-1],), blobs)
    ends = (p.column("filename_end") + before for p, before in zip(tables, totals, strict=False))
    _write_array(archive, "columns/filename_end.npy", np.int64, (rows,), ends)


def _metadata_lines(tables: Iterable[Part]) -> Iterator[Texts]:
    for table in tables:
        columns = table.columns(("confidence", "label", "nonfinite", "shard", "offset", "size", "start"))
        texts = table.texts("filename", "prediction", "truth_text")
        yield from csv_lines({name: values.astype(COLUMNS[name]) for name, values in columns.items()}, *texts)


def _failure_lines(failures: Iterable[Failure]) -> Iterator[Texts]:
    remaining = iter(failures)
    while some := list(islice(remaining, _FAILURES)):
        yield Texts.of([_csv_line((shown(name), stage, error)) for name, stage, error in some])


def _csv_line(row: Iterable[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, escapechar=_NO_CHARACTER).writerow(row)  # without one, older versions take NUL for it
    return text.getvalue().encode()


def _csv_rows(lines: Iterator[str]) -> Iterator[list[str]]:
    if _KNOWS_NUL:
        return csv.reader(lines, strict=True)
    rows = csv.reader((line.replace("\0", _NO_CHARACTER) for line in lines), strict=True)
    return ([value.replace(_NO_CHARACTER, "\0") for value in row] for row in rows)


def _entry(name: str, compression: int) -> zipfile.ZipInfo:
    """A zip entry that says nothing of when or where it was made."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = compression
    entry.create_system = 3
    entry.external_attr = 0o644 << 16
    return entry


def _deflated(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    entry = _entry(name, zipfile.ZIP_DEFLATED)
    entry._compresslevel = _LEVEL  # type: ignore[attr-defined] # `compress_level` from 3.13 on, which takes this too
    return archive.open(entry, "w", force_zip64=True)


def _write_table(archive: zipfile.ZipFile, name: str, fields: Sequence[str], pieces: Iterable[Texts]) -> None:
    """Write a CSV; UsageError if it could not be read again."""
    rows = size = 0
    with _deflated(archive, name) as file:
        size += file.write(_csv_line(fields))
        for lines in pieces:
            if (longest := int(lines.sizes.max(initial=0))) >= _LARGEST_ROW:
                raise _too_large(f"a row of {name}", longest, _LARGEST_ROW - 1)
            rows, size = rows + len(lines.ends), size + file.write(lines.data.tobytes())
    if size > (most := rows * _USUAL_ROW + _LARGEST_TEXT):
        raise _too_large(f"{name} of {rows} rows", size, most)


def _too_large(what: str, size: int, most: int) -> UsageError:
    return UsageError(f"{what} would have {size} bytes, and {most} is what reading takes: give shorter labels")


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
    """A finished index.zip: opened without reading its tables, whose arrays are mapped into memory.

    Nothing in it is trusted: what does not fit is a CorruptError, and takes no more memory than what fits. If someone
    cuts the file short in place while it is mapped, though, the system ends the process (SIGBUS).
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._local = storage.Local(path)
        with self._reading():
            if not storage.isfile(self._local.path):
                raise CorruptError("there is no such file")
            with open(self._local.path, "rb") as file:
                self._entries = entries.read_entries(file)
            self._archive = zipfile.ZipFile(self._local.path)
        self._arrays: dict[str, Array] = {}
        with self._reading("manifest.json"):
            self.manifest: dict[str, Any] = parse_manifest(self.text("manifest.json"))

    def close(self) -> None:
        """Close the zip; arrays already mapped stay valid."""
        self._archive.close()

    @contextlib.contextmanager
    def _reading(self, entry: str = "the zip") -> Iterator[None]:
        """What goes wrong meanwhile becomes a CorruptError that names the entry."""
        try:
            yield
        except (CorruptError, *_DAMAGE) as error:
            said = str(error) or type(error).__name__
            raise CorruptError(said if self.path in said else f"{self.path}: {entry} is damaged: {said}") from None

    def check(self) -> None:
        """Raise CorruptError unless the manifest is one, and arrays and tables have the lengths that it tells."""
        with self._reading("manifest.json"):
            check_manifest(self.manifest)
        for name in {**self._entries, **self._tables}:
            with self._reading(name):
                self._check_size(name)
        for name, (dtype, shape) in self._shapes().items():
            with self._reading(name):
                array = self.array(name)
                if array.dtype != dtype or array.shape != tuple(array.size if size is None else size for size in shape):
                    raise CorruptError(f"it holds {array.dtype} {list(array.shape)}")

    def _check_size(self, name: str) -> None:
        """A few bytes may inflate to a thousand times as many: no more than a text may have, or a table's rows."""
        entry, rows = self._entry(name), self._tables[name][1] if name in self._tables else 0
        if entry.method == entries.DEFLATED and not rows <= entry.size <= rows * _USUAL_ROW + _LARGEST_TEXT:
            raise CorruptError(f"it cannot have {entry.size} bytes" + (f" and {rows} rows" if rows else ""))

    @property
    def _tables(self) -> dict[str, tuple[Sequence[str], int]]:
        """The tables: their columns, and how many rows the manifest counts."""
        counts = self.manifest["counts"]
        return {
            "metadata.csv": (METADATA_FIELDS, counts["records"]),
            "failures.csv": (Failure._fields, counts["failures"]),
        }

    def _shapes(self) -> dict[str, tuple[type[np.generic], tuple[int | None, ...]]]:
        """The arrays: their dtypes and shapes, None for any length."""
        rows = self.manifest["counts"]["records"]
        columns: dict[str, Any] = {f"columns/{name}.npy": (dtype, (rows,)) for name, dtype in COLUMNS.items()}
        if "scores" in self.column_names:
            columns["columns/scores.npy"] = (np.float32, (rows, _scores_width(self.manifest)))
        return columns | {
            "columns/filename.npy": (np.uint8, (None,)),
            "columns/filename_end.npy": (np.int64, (rows,)),
            "lookup/hash.npy": (np.uint64, (rows,)),
            "lookup/row.npy": (np.int64, (rows,)),
        }

    def _entry(self, name: str) -> entries.Entry:
        if name not in self._entries:
            raise CorruptError("it is missing")
        return self._entries[name]

    # Texts.

    def text(self, entry: str) -> str:
        """A text entry, whole."""
        with self._reading(entry):
            if self._entry(entry).size > _LARGEST_TEXT:
                raise CorruptError(f"it has {self._entry(entry).size} bytes")
            with self._archive.open(entry) as file:
                return file.read(self._entry(entry).size).decode()  # with no size zipfile would inflate all there is

    def table(self, entry: str) -> Iterator[dict[str, str]]:
        """The rows of `metadata.csv` or `failures.csv`, one at a time; CorruptError if not as many as were counted."""
        fields, count = self._tables[entry]
        with self._reading(entry), self._archive.open(entry) as file:
            lines = _Lines(io.TextIOWrapper(file, "utf-8", newline=""))
            rows = _csv_rows(lines)
            if next(rows, None) != list(fields):
                raise CorruptError(f"its columns are not {', '.join(fields)}")
            number = lines.taken = 0
            for number, row in enumerate(rows, start=1):
                if number > count or len(row) != len(fields):
                    raise CorruptError(f"its row {number} is not one of {count} rows of {len(fields)} values")
                yield dict(zip(fields, row, strict=True))
                lines.taken = 0
            if number < count:
                raise CorruptError(f"it has {number} rows, not {count}")

    def copy(self, entry: str, file: IO[bytes]) -> None:
        """Write an entry to a file, as it is."""
        with self._reading(entry):
            source = self._archive.open(entry)
        with source:
            while True:
                with self._reading(entry):
                    data = source.read(_CHUNK)
                if not file.write(data):
                    return

    # Arrays.

    @property
    def column_names(self) -> list[str]:
        """The columns that are there."""
        return [name for name in (*COLUMNS, "scores") if f"columns/{name}.npy" in self._entries]

    def column(self, name: str) -> Array:
        """One column, mapped from the disk, read-only."""
        return self.array(f"columns/{name}.npy")

    def array(self, entry: str) -> Array:
        """One `.npy` entry, mapped from the disk, read-only."""
        if entry not in self._arrays:
            with self._reading(entry):
                self._arrays[entry] = self._map(self._entry(entry))
        return self._arrays[entry]

    def _map(self, entry: entries.Entry) -> Array:
        """An array by its header, which is not evaluated, as NumPy would, but has to be as NumPy writes it."""
        with open(self._local.path, "rb") as file:
            file.seek(entry.begin)
            header = _NPY_HEADER.match(file.read(min(entry.stored, _LARGEST_NPY_HEADER)))
        if entry.method != entries.STORED or header is None:
            raise CorruptError("it is no .npy of numbers, stored as it is")
        dtype = np.dtype(header["dtype"].decode())
        shape = tuple(int(size) for size in (header["rows"], header["width"]) if size is not None)
        length, size = header.end(), math.prod(shape) * dtype.itemsize
        if length != 10 + int.from_bytes(header["length"], "little") or length + size != entry.size:
            raise CorruptError("its header does not fit its size")
        return np.memmap(self._local.path, dtype, "r", entry.begin + length, shape) if size else np.empty(shape, dtype)

    # Whether it is as written.

    def verify_crcs(self) -> str | None:
        """Read every entry against its CRC-32 and size; the first damaged one, or None."""
        with self._reading(), open(self._local.path, "rb") as file:
            damaged = (name for name, entry in self._entries.items() if not entries.is_whole(file, entry))
            return next(damaged, None)

    @property
    def odd_entries(self) -> list[str]:
        """Those of which the zip notes something that tfzip does not write, though nothing reads it."""
        return [name for name, entry in self._entries.items() if entry.odd]

    # Rows.

    def __len__(self) -> int:
        return len(self.column("shard"))

    def location(self, row: int) -> Location:
        """Where the record of a row lies."""
        return Location(*(int(self.column(name)[row]) for name in Location._fields))

    def filename(self, row: int) -> bytes:
        """The filename of a row."""
        names, ends = self.column("filename"), self.column("filename_end")
        start, end = int(ends[row - 1]) if row else 0, int(ends[row])
        if not 0 <= start <= end <= len(names):
            raise CorruptError(f"{self.path}: columns/filename_end.npy is damaged at row {row}")
        return names[start:end].tobytes()

    def filenames(self) -> list[bytes]:
        """The filenames of all rows."""
        return Texts(self.column("filename"), self.filename_ends()).split()

    def filename_ends(self) -> Array:
        """Where in the column `filename` that of each row ends; CorruptError unless they lie there end to end."""
        ends, length = self.column("filename_end"), len(self.column("filename"))
        is_whole = ends[0] >= 0 and ends[-1] == length and (ends[1:] >= ends[:-1]).all() if len(ends) else not length
        if not is_whole:
            raise CorruptError(f"{self.path}: columns/filename_end.npy is damaged")
        return ends

    def filenames_of(self, first: int, stop: int) -> list[bytes]:
        """The filenames of some rows, where those of all rows are known not to be damaged."""
        ends = self.column("filename_end")[max(first - 1, 0) : stop].tolist()
        begins = ends if first else [0, *ends]
        blob = self.column("filename")[begins[0] : begins[-1]].tobytes() if stop > first else b""
        return [blob[start - begins[0] : end - begins[0]] for start, end in pairwise(begins)]

    def hashes(self) -> npt.NDArray[np.uint64]:
        """The hash of the filename of each row."""
        rows, hashes = self.array("lookup/row.npy"), np.empty(len(self), np.uint64)
        told = np.zeros(len(self), np.bool_)
        with self._reading("lookup/row.npy"):
            if len(rows) and rows.min() >= 0 and rows.max() < len(rows):
                told[rows] = True
            if not told.all():
                raise CorruptError("it does not tell of every row")
        hashes[rows] = self.array("lookup/hash.npy")
        return hashes

    def row(self, filename: bytes) -> int | None:
        """The row of a filename, None if there is none; CorruptError where the lookup is seen to be damaged.

        It is seen on the way to every filename whose entry, or an entry beside it, is not what was written.
        """
        wanted = hash_filename(filename)
        hashes = self.array("lookup/hash.npy")
        first, last = (int(np.searchsorted(hashes, np.uint64(wanted), side)) for side in ("left", "right"))
        for place in range(first, last):
            row, found = self._looked_up(place)
            if found == filename:
                return row
        for place in {max(first - 1, 0), min(last, len(hashes) - 1)} if len(hashes) else ():
            self._looked_up(place)
        return None

    def _looked_up(self, place: int) -> tuple[int, bytes]:
        """The row at a place of the lookup, and its filename, which must have the hash there."""
        row = int(self.array("lookup/row.npy")[place])
        if 0 <= row < len(self):
            filename = self.filename(row)
            if hash_filename(filename) == int(self.array("lookup/hash.npy")[place]):
                return row, filename
        raise CorruptError(f"{self.path}: the lookup is damaged at {place}")


class _Lines:
    """The lines of a table; a CorruptError if those of one row are too long together."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.taken = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._file.readline(_LARGEST_ROW)
        self.taken += len(line)
        if self.taken >= _LARGEST_ROW:
            raise CorruptError(f"a row is longer than {_LARGEST_ROW}")
        if not line:
            raise StopIteration
        return line
