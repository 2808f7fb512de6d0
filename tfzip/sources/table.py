"""Images named by a list (`.txt`, one path a line) or a table (`.csv`, `.jsonl`), with labels and further columns."""

from __future__ import annotations

import csv
import io
import json
import os
import posixpath
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any, NamedTuple

import google_crc32c
import numpy as np

from tfzip import naming, storage
from tfzip.errors import SourceError, UsageError
from tfzip.lookup import Lookup, hash_filenames
from tfzip.options import Options
from tfzip.record import EXTRA, Failure, FeatureSpec
from tfzip.sources import spooled
from tfzip.sources.columns import column_of, truths_of
from tfzip.sources.source import Listed, file_reader

SUFFIXES = (".txt", ".csv", ".jsonl", ".ndjson")
FILENAME_COLUMNS = ("filename", "file_name", "filepath", "file_path", "path", "file", "image", "image_path", "img")
"""Names that a column of filenames usually has; the first that is there counts."""

LABEL_COLUMNS = ("label", "class", "truth")

_FAR = 100_000  # bytes of an image that lies elsewhere, about: asking for each would take a round trip


def from_table(path: str, options: Options) -> Listed:
    """The images that a list or table names, in its order.

    Filenames are below `options.root`; without it, below the list's own folder, or if some lie outside that, below
    the folder that all share. Columns that are neither filename nor label become features `extra/COLUMN`, each of
    one type: int64 or float where all its values are such, else bytes.

    Raises SourceError for a file that is no such table, names nothing or one image twice, UsageError for a column that
    is not there.
    """
    if path.endswith(".txt") and options.engine != "local":
        return _spooled(path, options)
    rows, lines = read_columns(path)
    if not rows:
        raise SourceError(f"{path}: it names no images")
    named, labelled = ("filename", None) if path.endswith(".txt") else _columns(path, rows, lines, options)
    paths = [naming.to_bytes(str(value)) for value in rows.pop(named)]
    truths = rows.pop(labelled) if labelled else None
    root, filenames, rejected = _below(path, paths, options.root)
    check_unique(path, filenames, lines)
    kept = [row for row, filename in enumerate(filenames) if filename]
    state = {"place": storage.absolute(os.fsdecode(root))}
    if set(rows) or labelled:  # what its rows say of the images is in the records
        state["table"] = f"{google_crc32c.value(repr((truths, rows)).encode()):08x}"
    return _listed(path, root, [filenames[row] for row in kept], rejected, kept, truths, rows, state)


def _listed(
    path: str,
    root: bytes,
    filenames: Sequence[bytes],
    rejected: Sequence[Failure],
    kept: Sequence[int],
    truths: Sequence[Any] | None,
    rows: Mapping[str, Sequence[Any]],
    state: Mapping[str, Any],
) -> Listed:
    columns, features = {}, {}
    for name, values in rows.items():
        columns[EXTRA + name] = column = column_of([values[row] for row in kept])
        features[EXTRA + name] = FeatureSpec({"i": "int64", "f": "float"}.get(column.dtype.kind, "bytes"))
    statuses = _statuses(root, filenames)
    known = truths_of(None if truths is None else [truths[row] for row in kept])
    return Listed(
        kind="list" if path.endswith(".txt") else "table",
        name=path,
        filenames=filenames,
        sizes=statuses[:, 0],
        stamps=statuses[:, 1],
        truths=known.texts,
        classes=known.classes,
        columns={**columns, **known.labels},
        features=features,
        rejected=rejected,
        state=state,
        reader=lambda: file_reader(root, filenames),
        access={"root": os.fsdecode(root)},
    )


# A list that is too long to hold.


def _spooled(path: str, options: Options) -> Listed:
    """The same of a list, kept on the disk; it is gone through a few times."""
    lost = list[Failure]()
    start = _start(path, options.root)
    found = spooled.spool(_files(path, options.root, start, lost))
    if not len(found.names):
        raise SourceError(f"{path}: it names no images" + (f" below {os.fsdecode(start)}" if lost else ""))
    _check_unique(path, found.names, options.root, start)
    return Listed(
        kind="list",
        name=path,
        filenames=found.names,
        sizes=found.sizes,
        stamps=found.stamps,
        rejected=lost,
        state={"place": storage.absolute(os.fsdecode(start))},
        reader=lambda: file_reader(start, found.names),
        access={"root": os.fsdecode(start)},
    )


def _named(path: str) -> Iterator[tuple[int, bytes]]:
    """The lines that name something, and their numbers."""
    with storage.open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            if name := line.removeprefix("\ufeff".encode()) if number == 1 else line:
                yield number, name


def _start(path: str, root: str | None) -> bytes:
    """The folder that the filenames are below, with a slash."""
    base = _base(path, root)
    if root is not None:
        return _slashed(base)
    ends, is_below = list[bytes](), True
    for _, name in _named(path):
        whole = _joined(base, name)
        is_below = is_below and whole.startswith(_slashed(base))
        ends = [min([*ends[:1], whole]), max([*ends[1:], whole])]
    return _slashed(base if is_below else _shared_folder(ends))


def _files(path: str, root: str | None, start: bytes, lost: list[Failure]) -> Iterator[spooled.File]:
    """The files that a list names, in its order; those that lie elsewhere are lost."""
    base = _base(path, root)
    for _, name in _named(path):
        whole = _joined(base, name)
        if whole.startswith(start) and whole != start:
            yield whole[len(start) :], *(_status(whole) if storage.is_local(os.fsdecode(start)) else (_FAR, 0))
        else:
            lost.append(Failure(naming.to_str(name), "read", _outside(start)))


def _check_unique(path: str, names: spooled.Names, root: str | None, start: bytes) -> None:
    """As `check_unique`, in memory that does not grow."""
    with tempfile.TemporaryFile() as file:
        for rows in Lookup(map(hash_filenames, names.pieces()), len(names), file).shared():
            first: dict[bytes, int] = {}
            for row in rows.tolist():
                if (earlier := first.setdefault(names[row], row)) != row:
                    lines = _lines_of(path, names[row], root, start)
                    check_unique(path, [names[earlier], names[row]], [next(lines), next(lines)])


def _lines_of(path: str, filename: bytes, root: str | None, start: bytes) -> Iterator[int]:
    base = _base(path, root)
    return (number for number, name in _named(path) if _joined(base, name) == start + filename)


# What is written there.


class Rows(NamedTuple):
    """A table: its columns by name, and the line of the file on which each row begins."""

    columns: dict[str, list[Any]]
    lines: list[int]


def read_columns(path: str) -> Rows:
    """A table as it is written; a list has the one column `filename`."""
    try:
        with storage.open(path, "rb") as file:
            text = naming.to_str(file.read()).removeprefix("\ufeff")
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from None
    if path.endswith(".txt"):
        numbered = enumerate((line.removesuffix("\r") for line in text.split("\n")), start=1)
        found = [(number, {"filename": line}) for number, line in numbered if line]
    else:
        found = list(_csv_rows(path, text) if path.endswith(".csv") else _json_rows(path, text))
    names = dict.fromkeys(name for _, record in found for name in record)
    return Rows({name: [record.get(name) for _, record in found] for name in names}, [line for line, _ in found])


def _csv_rows(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(text, newline=""))
    names = next(reader, [])
    if len(set(names)) < len(names):
        raise SourceError(f"{path}: two of its columns have one name ({', '.join(names)})")
    line = reader.line_num + 1
    for row in reader:
        if row and len(row) != len(names):
            raise SourceError(f"{path}, line {line}: {len(row)} fields, but the first line has {len(names)}")
        if row:
            yield line, {name: value or None for name, value in zip(names, row, strict=True)}
        line = reader.line_num + 1


def _json_rows(path: str, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise SourceError(f"{path}, line {number}: no JSON ({error})") from None
        if not isinstance(record, dict):
            raise SourceError(f"{path}, line {number}: no JSON object")
        yield number, record


def _columns(
    path: str, rows: Mapping[str, Sequence[Any]], lines: Sequence[int], options: Options
) -> tuple[str, str | None]:
    """The columns of filenames and of labels: those asked for, or those that have a usual name."""
    for option, name in (("filename", options.filename_column), ("label", options.label_column)):
        if name is not None and name not in rows:
            raise UsageError(f"--{option}-column {name!r}: {path} has {', '.join(rows)}")
    usual = {name.lower(): name for name in reversed(list(rows))}
    named = options.filename_column or next((usual[name] for name in FILENAME_COLUMNS if name in usual), None)
    if named is None:
        raise UsageError(f"{path}: say with --filename-column which of {', '.join(rows)} is the filename")
    labelled = options.label_column or next((usual[name] for name in LABEL_COLUMNS if name in usual), None)
    for line, value in zip(lines, rows[named], strict=True):
        if not isinstance(value, str) or not value:
            raise SourceError(f"{path}, line {line}: its {named} is {value!r}, no filename")
    return named, labelled


# Where the files are.


def _below(table: str, paths: Sequence[bytes], root: str | None) -> tuple[bytes, list[bytes], list[Failure]]:
    """The folder that filenames are below, each one's filename (empty if it is rejected), and those that are."""
    base = _base(table, root)
    whole = [_joined(base, path) for path in paths]
    if root is None and not all(path.startswith(_slashed(base)) for path in whole):
        base = _shared_folder(whole)
    start, outside = _slashed(base), _outside(_slashed(base))
    filenames = [path[len(start) :] if path.startswith(start) else b"" for path in whole]
    lost = [path for path, filename in zip(paths, filenames, strict=True) if not filename]
    return start, filenames, [Failure(naming.to_str(path), "read", outside) for path in lost]


def _base(table: str, root: str | None) -> bytes:
    base = os.fsencode(root if root is not None else table.rpartition("/")[0])
    return os.path.abspath(base) if storage.is_local(os.fsdecode(base)) else base


def _outside(start: bytes) -> str:
    return f"lies outside {os.fsdecode(start.rstrip(b'/') or start)}"


def check_unique(table: str, filenames: Sequence[bytes], lines: Sequence[int]) -> None:
    """Raise SourceError for a filename that comes twice; what is rejected has none."""
    first: dict[bytes, int] = {}
    for line, filename in zip(lines, filenames, strict=True):
        if filename and (earlier := first.setdefault(filename, line)) != line:
            name = naming.to_text(filename)
            raise SourceError(f"{table}: lines {earlier} and {line} both name {name}; drop one: filenames are keys")


def _joined(base: bytes, path: bytes) -> bytes:
    """A path below a folder, or as it is if it is whole; without `.` and `..`."""
    if not storage.is_local(os.fsdecode(path)):
        base, path = path, b""
    scheme, mark, folder = base.rpartition(b"://")
    if mark and path.startswith(b"/"):  # on the disk of this machine, whatever the base is
        return posixpath.normpath(path)
    return scheme + mark + posixpath.normpath(posixpath.join(folder, path))


def _shared_folder(paths: Sequence[bytes]) -> bytes:
    """The deepest folder that all paths are below; of URLs too, which `os.path.commonpath` would break."""
    first, last = (path.split(b"/")[:-1] for path in (min(paths), max(paths)))
    return b"/".join(here for here, _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def _slashed(folder: bytes) -> bytes:
    return folder if folder.endswith(b"/") else folder + b"/"


def _statuses(root: bytes, filenames: Sequence[bytes]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The size of each file and its last change, [files, 2]; 0 for one that is not there: reading it will say so."""
    if not storage.is_local(os.fsdecode(root)):
        return np.tile(np.array([_FAR, 0]), (len(filenames), 1))
    return np.array([_status(root + filename) for filename in filenames], np.int64).reshape(-1, 2)


def _status(path: bytes) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
