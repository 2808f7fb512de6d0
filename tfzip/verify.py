"""What is wrong with an export: everything is checked and collected, then told."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np

from tfzip import dataset_info, framing, naming, schema, storage
from tfzip.defaults import SAMPLE
from tfzip.errors import CorruptError, UsageError
from tfzip.index import Index, labels_text
from tfzip.lookup import hash_filename, hash_filenames
from tfzip.manifest import feature_specs
from tfzip.metadata import Array
from tfzip.read import Export
from tfzip.record import STAGES
from tfzip.rows import Rows, Said, said, together

_PART = 1 << 20
_SHOWN = 5
"""Of many problems of one kind, or in one shard, so many are told."""

_NAMED_ONCE = ("folder", "list", "table", "arrays")
"""Sources of which no two items have one name, whether they give a record or fail."""


def verify(
    export: Export,
    model: Any = None,
    *,
    sample: int | None = None,
    imports: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocess: str | Callable[[Any], Any] | None = None,
    trust_model: bool | None = None,
    max_pixels: int | None = None,
) -> list[str]:
    """Check every CRC, count, hash, filename and row of an export; return a line for each problem, none if whole.

    Args:
        export: as `tfzip.open` gives it.
        model: the model that made it, as `tfzip.export` takes it. If nothing else is wrong, some of its images are then
            predicted anew, and every record of which the model now says something else is a problem.
        sample: of how many images, spread evenly over all; None for 100.
        imports: as the export was given it.
        weights: as the export was given it.
        preprocess: as the export was given it.
        trust_model: as the export was given it.
        max_pixels: as the export was given it.

    Raises UsageError for another model than that, and for an export without the images that the model saw.
    """
    asked = {
        "imports": imports,
        "weights": weights,
        "preprocess": preprocess,
        "trust_model": trust_model,
        "max_pixels": max_pixels,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if model is not None:
        from tfzip import deep  # here, since it imports TensorFlow

        differences = deep.differences(export, model, SAMPLE if sample is None else sample, **given)
        return list(_problems(export)) or list(differences)  # a wrong call is told before all this work
    if given or sample is not None:
        raise UsageError(f"{' and '.join(given or ['sample'])}: without a model there is nothing to predict anew")
    return list(_problems(export))


def _problems(export: Export) -> Iterator[str]:
    index, manifest = export._index, export.manifest
    damaged = index.verify_crcs()
    if damaged is not None:
        yield f"index.zip: the CRC of {damaged} does not match"
        return
    try:
        yield from _index_problems(index, manifest)
    except CorruptError as error:
        yield str(error)
        return
    yield from _stray_problems(export)
    yield from _tfds_problems(export)
    first, table = 0, index.table("metadata.csv")
    for shard, entry in enumerate(manifest["shards"]):
        rows = range(first, first + entry["records"])
        told = islice(table, len(rows))
        yield from _shard_problems(export, shard, rows, told)
        deque(told, maxlen=0)  # of records that damage hides
        first = rows.stop


def _tfds_problems(export: Export) -> Iterator[str]:
    """What TFDS reads first, which would mislead it if it were of another export."""
    for name in dataset_info.NAMES:
        path, written = storage.join(export.home, name), export.manifest["tfds"].get(name)
        if written is None and storage.exists(path):
            yield f"{name}: it is no part of this export, and misleads TFDS"
        elif written is not None and written != _sha256(path):
            yield f"{name}: " + ("not as it was written" if storage.isfile(path) else "the file is missing")


def _sha256(path: str) -> str | None:
    """Of a file; None if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with storage.open(path, "rb") as file:
            while part := file.read(_PART):
                digest.update(part)
    except OSError:
        return None
    return digest.hexdigest()


def _schema(manifest: Any) -> str:
    selected = manifest.get("selection") is not None
    return schema.schema_text(feature_specs(manifest), manifest["labels"]["names"], selected=selected)


def _index_problems(index: Index, manifest: Any) -> Iterator[str]:
    """The index against itself: what the zip notes, labels, lookup, tables."""
    yield from (f"index.zip: what the zip notes of {name} is not as written" for name in index.odd_entries)
    if index.text("labels.txt") != labels_text(manifest["labels"]["names"]):
        yield "index.zip: labels.txt does not hold the manifest's names"
    if np.count_nonzero(index.column("nonfinite")) != manifest["counts"]["nonfinite"]:
        yield "index.zip: the manifest counts other predictions that are not a number"
    if not schema.describes(index.text("schema.pbtxt"), _schema(manifest)):
        yield "index.zip: schema.pbtxt does not describe the manifest's features"
    names = index.filenames()
    hashes = hash_filenames(names)
    yield from _name_problems(index, names, hashes)
    yield from _failure_problems(index, manifest, names, hashes)
    deque(index.table("metadata.csv"), maxlen=0)


def _name_problems(index: Index, names: Sequence[bytes], hashes: Array) -> Iterator[str]:
    """Filenames and their hashes against the lookup, and against each other: they are keys."""
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    if not (
        np.array_equal(index.array("lookup/hash.npy"), hashes) and np.array_equal(index.array("lookup/row.npy"), order)
    ):
        yield "index.zip: the lookup does not fit the filenames"
    alike = np.flatnonzero(hashes[1:] == hashes[:-1])
    counted = Counter(names[row] for row in order[np.union1d(alike, alike + 1)])
    twice = (f"index.zip: {n} records have the filename {naming.to_text(name)}" for name, n in counted.items() if n > 1)
    yield from _first(twice, "index.zip: and more such filenames")


def _failure_problems(index: Index, manifest: Any, names: Sequence[bytes], hashes: Array) -> Iterator[str]:
    """The stages of failures; and whether records have their names, where a source cannot have one name twice."""
    stages = (row["stage"] for row in index.table("failures.csv"))
    odd = (f"index.zip: failures.csv tells of a stage {stage}" for stage in stages if stage not in STAGES)
    yield from _first(odd, "index.zip: and more such stages")
    if manifest["source"]["kind"] not in _NAMED_ONCE:
        return
    told = (row["filename"] for row in index.table("failures.csv"))
    whole = (naming.to_bytes(name) for name in told if "%" not in name)  # others may be escaped
    failed = np.fromiter(map(hash_filename, whole), np.uint64)
    rows = np.flatnonzero(np.isin(hashes, failed)).tolist()
    both = (f"index.zip: {naming.to_text(names[row])} is a record, and in failures.csv" for row in rows)
    yield from _first(both, "index.zip: and more such failures")


def _stray_problems(export: Export) -> Iterator[str]:
    """Files beside the shards that whoever reads these by their pattern would take for one of them."""
    folder, _, _ = export.shards[0].rpartition("/")
    known = {path.rpartition("/")[2] for path in export.shards}
    with contextlib.suppress(OSError):  # where nobody may list, no pattern finds anything
        found = (name for name in storage.listdir(folder) if ".tfrecord-" in name and name not in known)
        strays = (f"{name}: no shard of this export, but *.tfrecord-* finds it too" for name in found)
        yield from _first(strays, "and more such files")


def _first(problems: Iterator[str], more: str) -> Iterator[str]:
    """As many of the problems as are worth telling."""
    yield from islice(problems, _SHOWN)
    yield from (more for _ in islice(problems, 1))


class _HashingFile:
    """A file that hashes what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size = 0
        self.hash = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.size += len(data)
        self.hash.update(data)
        return data

    def drain(self, most: int) -> None:
        """Read on to the end, or until there is more than there can be."""
        while self.size <= most and self.read(1 << 20):
            pass


def _shard_problems(export: Export, shard: int, rows: range, table: Iterator[Mapping[str, str]]) -> Iterator[str]:
    """One shard, read once from end to end: its bytes, its frames, its records against their rows."""
    entry = export.manifest["shards"][shard]
    try:
        file = export.open_shard(shard)
    except CorruptError as error:
        yield f"{entry['file']}: {error}"
        return
    with file:
        hashing = _HashingFile(file)
        wrong = _row_problems(export, shard, rows, table, _records(hashing, export))
        yield from (f"{entry['file']}: {problem}" for problem in _first(wrong, "and more"))
        hashing.drain(entry["bytes"])
    if hashing.size != entry["bytes"]:
        size = hashing.size if hashing.size < entry["bytes"] else "more"
        yield f"{entry['file']}: {size} bytes, but the manifest says {entry['bytes']}"
    elif hashing.hash.hexdigest() != entry["sha256"]:
        yield f"{entry['file']}: its SHA-256 is not the manifest's"


def _records(file: Any, export: Export) -> Iterator[Said]:
    """Every record of a shard, with where it lies."""
    for offset, size, frames in framing.read_blocks(file, export.manifest["compression"]):
        try:
            for start, data in framing.unframe_all(frames):
                yield said((offset, size, start), export.parse(data), len(data))
        except CorruptError as error:
            raise CorruptError(f"at {offset}: {error}") from None


def _row_problems(
    export: Export, shard: int, rows: range, table: Iterator[Mapping[str, str]], records: Iterable[Said]
) -> Iterator[str]:
    """The records of a shard against the rows that the index has for them."""
    row = rows.start
    try:
        for some in together(records):
            known = some[: rows.stop - row]
            yield from Rows(export, shard, row, known).problems(list(islice(table, len(known))))
            row += len(known)
            if len(some) > len(known):
                yield f"more than the {len(rows)} records of the index"
                return
    except (CorruptError, OSError) as error:
        yield str(error)
        return
    if row < rows.stop:
        yield f"{row - rows.start} records, but the index has {len(rows)}"
