"""What came of a shard's batches -> its file, and its rows for the index."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfzip import index, naming
from tfzip.errors import DataError, TooManyFailuresError
from tfzip.job import Job
from tfzip.options import Options
from tfzip.record import UNKNOWN, Failure
from tfzip.sources import Stream
from tfzip.write import ShardWriter

if TYPE_CHECKING:
    from tfzip.outcome import Outcome, Rows


class Written(NamedTuple):
    """What `checkpoint.save_shard` takes of a shard whose file is written."""

    notes: dict[str, Any]
    columns: dict[str, Any]
    texts: dict[str, Any]


def write(job: Job, path: str, outcomes: Iterable[Outcome], see: Callable[[Outcome], None]) -> Callable[[], Written]:
    """Write the records of one shard to its file.

    Args:
        job: that the shard is part of.
        path: of the file.
        outcomes: of the shard's batches, in order.
        see: is called with each, once its records are on their way; what it raises ends the export.

    Returns what finishes the file, in any thread: it waits for the disk.
    """
    rows, slots, failures = [], 0, list[Failure]()
    formats: set[bytes] = set()
    with contextlib.ExitStack() as opened:
        writer = opened.enter_context(ShardWriter(path, job.options.compression))
        for outcome in outcomes:
            writer.write(outcome.rows.pop("serialized"))
            formats.update(outcome.rows.pop("format").tolist())
            rows.append(outcome.rows)
            slots += len(outcome.slots)
            failures += outcome.failures
            see(outcome)
        job.source.check()
        closing = opened.pop_all()

    def finish() -> Written:
        closing.close()
        notes = {
            "records": writer.records,
            "bytes": writer.bytes,
            "sha256": writer.sha256,
            "slots": slots,
            "failures": failures,
            "formats": sorted(name.decode() for name in formats),
        }
        columns, texts = _rows(job, rows, writer.records)
        return Written(notes, {**columns, **writer.locations}, texts)

    return finish


class Failed:
    """How many images failed, and how the first and the last of them did."""

    def __init__(self, failures: Iterable[Failure] = ()) -> None:
        self.count = 0
        self.first: Failure | None = None
        self.last: Failure | None = None
        self.add(failures)

    def add(self, failures: Iterable[Failure]) -> None:
        """Count some more."""
        for self.last in failures:
            self.first = self.first or self.last
            self.count += 1

    def check(self, options: Options, images: int | None) -> None:
        """Raise DataError if more failed than may, of so many; None if nobody knows of how many."""
        if self.first is None or self.last is None:
            return
        if options.on_error == "fail":
            raise DataError(f"{told(self.first)} (--on-error quarantine lists such images and goes on)")
        allowed = options.allowed_failures(images)
        if allowed is not None and self.count > allowed:
            asked = options.max_failures
            raise TooManyFailuresError(f"{self.count} failed, --max-failures is {asked}; {told(self.last)}")


def told(failure: Failure) -> str:
    """A failure in a line."""
    return f"{naming.shown(failure.filename)}: {failure.stage}: {failure.error}"


def _rows(job: Job, rows: Sequence[Rows], records: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns and texts of a finished shard, for the index and for whoever goes on after it."""
    merged: Rows = {"truth": np.full(records, UNKNOWN), "truth_text": np.full(records, b"", object)}
    merged |= {name: np.concatenate([part[name] for part in rows]) for name in rows[0]} if rows else {}
    texts: dict[str, Any] = {
        "filename": merged.get("filename", ()),
        "prediction": merged.get("text", ()),
        "truth_text": merged["truth_text"],
    }
    columns = {name: merged.get(name, np.empty(0, dtype)) for name, dtype in index.COLUMNS.items() if name != "shard"}
    if job.index_scores:
        columns["scores"] = merged.get("scores", np.empty((0, job.task.classes), np.float32))
    noted = ("slot", "hash") if isinstance(job.source, Stream) else ("slot",)
    columns |= {name: merged.get(name, np.empty(0, np.int64)) for name in noted}
    return columns, texts
