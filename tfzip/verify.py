"""What is wrong with an export: everything is checked and collected, then told."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import IO, Any

import numpy as np

from tfzip import framing, naming
from tfzip.errors import CorruptError, UsageError
from tfzip.index import Index, hash_filenames, labels_text, shown_confidences, shown_labels
from tfzip.read import Export
from tfzip.record import UNKNOWN, Location, Prediction, Record

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
    first, table = 0, index.table("metadata.csv")
    for shard, entry in enumerate(manifest["shards"]):
        rows = range(first, first + entry["records"])
        told = islice(table, len(rows))
        yield from _shard_problems(export, shard, rows, told)
        deque(told, maxlen=0)  # of records that damage hides
        first = rows.stop


def _index_problems(index: Index, manifest: Any) -> Iterator[str]:
    """The index against itself: what the zip notes, labels, lookup, tables."""
    yield from (f"index.zip: what the zip notes of {name} is not as written" for name in index.odd_entries)
    if index.text("labels.txt") != labels_text(manifest["labels"]["names"]):
        yield "index.zip: labels.txt does not hold the manifest's names"
    if np.count_nonzero(index.column("nonfinite")) != manifest["counts"]["nonfinite"]:
        yield "index.zip: the manifest counts other predictions that are not a number"
    names = index.filenames()
    hashes = hash_filenames(names)
    order = np.argsort(hashes, kind="stable")
    if not (
        np.array_equal(index.array("lookup/hash.npy"), hashes[order])
        and np.array_equal(index.array("lookup/row.npy"), order)
    ):
        yield "index.zip: the lookup does not fit the filenames"
    for table in ("failures.csv", "metadata.csv"):
        deque(index.table(table), maxlen=0)


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
        for shown, problem in enumerate(_row_problems(export, shard, rows, table, _records(hashing, export))):
            if shown == _SHOWN_PER_SHARD:
                yield f"{entry['file']}: and more"
                break
            yield f"{entry['file']}: {problem}"
        hashing.drain(entry["bytes"])
    if hashing.size != entry["bytes"]:
        size = hashing.size if hashing.size < entry["bytes"] else "more"
        yield f"{entry['file']}: {size} bytes, but the manifest says {entry['bytes']}"
    elif hashing.hash.hexdigest() != entry["sha256"]:
        yield f"{entry['file']}: its SHA-256 is not the manifest's"


def _records(file: Any, export: Export) -> Iterator[tuple[tuple[int, int, int], Record]]:
    """Every record of a shard, with where it lies."""
    for offset, size, frames in framing.read_blocks(file, export.manifest["compression"]):
        try:
            for start, data in framing.unframe_all(frames):
                yield (offset, size, start), export.parse(data)
        except CorruptError as error:
            raise CorruptError(f"at {offset}: {error}") from None


def _row_problems(
    export: Export,
    shard: int,
    rows: range,
    table: Iterator[Mapping[str, str]],
    records: Iterable[tuple[tuple[int, int, int], Record]],
) -> Iterator[str]:
    """The records of a shard against the rows that the index has for them."""
    seen = 0
    try:
        for seen, (place, record) in enumerate(records, start=1):
            if seen > len(rows):
                yield f"more than the {len(rows)} records of the index"
                return
            row = rows[seen - 1]
            wrong = _value_problems(export._index, row, Location(shard, *place), record, next(table))
            yield from (f"record {row}: {problem}" for problem in wrong)
    except (CorruptError, OSError) as error:
        yield str(error)
        return
    if seen < len(rows):
        yield f"{seen} records, but the index has {len(rows)}"


def _value_problems(
    index: Index, row: int, location: Location, record: Record, told: Mapping[str, str]
) -> Iterator[str]:
    """A record and where it lies against its row, in the arrays and in metadata.csv."""
    prediction, truth = record.prediction, record.truth
    if index.location(row) != location:
        yield "it is not where the index says"
    if naming.to_bytes(record.filename) != index.filename(row):
        yield "its filename is not the index's"
    label = UNKNOWN if prediction.label is None else prediction.label
    confidence = np.float32(np.nan if prediction.confidence is None else prediction.confidence)
    values: dict[str, Any] = {"label": label, "confidence": confidence, "truth": truth.label if truth else UNKNOWN}
    if "scores" in index.column_names:
        values["scores"] = prediction.scores
    odd = bool(index.column("nonfinite")[row])
    values["nonfinite"] = odd if _must_be_odd(prediction) <= odd <= _may_be_odd(record) else not odd
    for name, value in values.items():
        if not np.array_equal(index.column(name)[row], value, equal_nan=True):
            yield f"its {name} is not the index's"
    if told != _row_of(record, location, values, told["truth"]):
        yield "its row in metadata.csv is another"


def _must_be_odd(prediction: Prediction) -> bool:
    """Whether a prediction is not finite."""
    parts = (prediction.confidence, prediction.scores, prediction.boxes)
    return any(part is not None and not np.isfinite(part).all() for part in parts)


def _may_be_odd(record: Record) -> bool:
    """Whether it may count as that: an output of the same name may be of an export that was the source of this one."""
    outputs = (np.asarray(output) for output in record.outputs.values())
    return _must_be_odd(record.prediction) or any(o.dtype.kind == "f" and not np.isfinite(o).all() for o in outputs)


def _row_of(record: Record, location: Location, values: Mapping[str, Any], truth: str) -> dict[str, str]:
    """What metadata.csv has to say of a record; its truth as it stands there if that may be escaped."""
    prediction, known = record.prediction, record.truth.text if record.truth else ""
    is_same = known in (truth, naming.from_text(truth).decode("utf-8", "replace"))
    return {
        "filename": naming.shown(record.filename),
        "prediction": "|".join(prediction.texts or ()) if prediction.text is None else prediction.text,
        "confidence": shown_confidences(values["confidence"].reshape(1))[0],
        "label": shown_labels(np.array([values["label"]]))[0],
        "truth": truth if is_same else known,
        "nonfinite": "1" if values["nonfinite"] else "",
        **{name: str(place) for name, place in location._asdict().items()},
    }
