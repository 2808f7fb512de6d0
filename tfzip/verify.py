"""What is wrong with an export: everything is checked and collected, then told."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from tfzip import framing, naming, storage
from tfzip.errors import CorruptError, UsageError
from tfzip.index import Index, hash_filename, shown_confidences, shown_labels
from tfzip.read import Export
from tfzip.record import CONFIDENCE, LABEL, TRUTH_LABEL, UNKNOWN, Record, parse_record

SAMPLE = 100
"""Images that are run through a model again, if not asked otherwise."""

_SHOWN_PER_SHARD = 5
"""A shard with many damaged records is told of this many."""


def verify(
    export: Export,
    model: Any = None,
    *,
    sample: int | None = None,
    imports: Sequence[str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    preprocess: str | Callable[[Any], Any] | None = None,
    trust_model: bool | None = None,
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

    Raises UsageError for another model than that, and for an export without the images that the model saw.
    """
    asked = {"imports": imports, "weights": weights, "preprocess": preprocess, "trust_model": trust_model}
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
    first = 0
    for shard, entry in enumerate(manifest["shards"]):
        yield from _shard_problems(export, index, shard, entry, first)
        first += entry["records"]


def _index_problems(index: Index, manifest: Any) -> Iterator[str]:
    """The index against itself: counts, lookup, table."""
    rows, counts = len(index), manifest["counts"]
    listed = sum(1 for _ in index.table("failures.csv"))
    if not rows == counts["records"] == sum(shard["records"] for shard in manifest["shards"]):
        yield f"index.zip: {rows} rows, but the manifest counts {counts['records']} records"
    if not listed == counts["failures"] == counts["images"] - counts["records"]:
        yield f"index.zip: {listed} failures listed, but the manifest counts {counts['failures']} of {counts['images']}"
    names = [index.filename(row) for row in range(rows)]
    hashes = np.array([hash_filename(name) for name in names], np.uint64)
    order = np.argsort(hashes, kind="stable")
    if not (
        np.array_equal(index.array("lookup/hash.npy"), hashes[order])
        and np.array_equal(index.array("lookup/row.npy"), order)
    ):
        yield "index.zip: the lookup does not fit the filenames"
    yield from _table_problems(index, names)


def _table_problems(index: Index, names: list[bytes]) -> Iterator[str]:
    """metadata.csv against the columns."""
    columns = {name: list(map(str, index.column(name).tolist())) for name in ("shard", "offset", "size", "start")}
    columns["confidence"] = shown_confidences(index.column("confidence"))
    columns["label"] = shown_labels(index.column("label"))
    total = 0
    for total, row in enumerate(index.table("metadata.csv"), start=1):
        i = total - 1
        if (
            i >= len(names)
            or row["filename"] != naming.to_text(names[i])
            or any(row[name] != column[i] for name, column in columns.items())
        ):
            yield f"metadata.csv, row {total}: it differs from the columns"
            return
    if total != len(names):
        yield f"metadata.csv: {total} rows, but the columns have {len(names)}"


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

    def drain(self) -> None:
        while self.read(1 << 20):
            pass


def _shard_problems(export: Export, index: Index, shard: int, entry: Any, first: int) -> Iterator[str]:
    """One shard, read once from end to end: its bytes, its frames, its records against their rows."""
    path = export.shards[shard]
    try:
        file = storage.open(path, "rb")
    except OSError as error:
        yield f"{entry['file']}: {error.strerror}"
        return
    with file:
        hashing = _HashingFile(file)
        wrong = _row_problems(_records(hashing, export), index, shard, range(first, first + entry["records"]))
        for shown, problem in enumerate(wrong):
            if shown == _SHOWN_PER_SHARD:
                yield f"{entry['file']}: and more"
                break
            yield f"{entry['file']}: {problem}"
        hashing.drain()
    if hashing.size != entry["bytes"]:
        yield f"{entry['file']}: {hashing.size} bytes, but the manifest says {entry['bytes']}"
    elif hashing.hash.hexdigest() != entry["sha256"]:
        yield f"{entry['file']}: its SHA-256 is not the manifest's"


def _records(file: Any, export: Export) -> Iterator[tuple[tuple[int, int, int], Record]]:
    """Every record of a shard, with where it lies."""
    for offset, size, frames in framing.read_blocks(file, export.manifest["compression"]):
        try:
            for start, data in framing.unframe_all(frames):
                yield (offset, size, start), parse_record(data, export.features, export.image_key)
        except CorruptError as error:
            raise CorruptError(f"at {offset}: {error}") from None


def _row_problems(
    records: Iterable[tuple[tuple[int, int, int], Record]], index: Index, shard: int, rows: range
) -> Iterator[str]:
    """The records of a shard against the rows that the index has for them."""
    seen = 0
    try:
        for seen, ((offset, size, start), record) in enumerate(records, start=1):
            row = rows.start + seen - 1
            if row >= rows.stop:
                yield f"more than the {len(rows)} records of the index"
                return
            if index.location(row) != (shard, offset, size, start):
                yield f"record {row}: it is not where the index says"
            if naming.to_bytes(record.filename) != index.filename(row):
                yield f"record {row}: its filename is not the index's"
            yield from _value_problems(record, index, row)
    except CorruptError as error:
        yield str(error)
        return
    if seen < len(rows):
        yield f"{seen} records, but the index has {len(rows)}"


def _value_problems(record: Record, index: Index, row: int) -> Iterator[str]:
    """The values of a record against its row."""
    prediction, truth = record.prediction, record.truth
    for key, column, value in (
        (LABEL, "label", UNKNOWN if prediction.label is None else prediction.label),
        (CONFIDENCE, "confidence", np.nan if prediction.confidence is None else prediction.confidence),
        (TRUTH_LABEL, "truth", UNKNOWN if truth is None else truth.label),
    ):
        if not np.array_equal(index.column(column)[row], np.asarray(value, index.column(column).dtype), equal_nan=True):
            yield f"record {row}: its {key} is not the index's"
