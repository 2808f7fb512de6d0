"""Serialized records -> one shard, and where in it each record lies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tfzip import framing
from tfzip.sink import Sink


class ShardWriter:
    """Writes one TFRecord file; with gzip, in members of whole records.

    A thread does the work, so that the next records can be waited for meanwhile; one batch at a time, so that memory
    stays flat. Use as a context manager; `records`, `bytes`, `sha256` and `locations` are complete when it has closed.
    The path is a temporary one: the caller renames the file once it is whole.
    """

    def __init__(self, path: str, compression: str) -> None:
        self.records = 0
        self.bytes = 0
        self._gzip = compression == "gzip"
        self._sink = Sink(path)
        self._pending: list[bytes] = []  # frames, in pieces
        self._starts: list[int] = []  # of the frames
        self._pending_bytes = 0
        self._locations: list[tuple[int, int, int]] = []
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def write(self, records: Iterable[bytes]) -> None:
        """Append serialized records, as soon as those before them are written; raises what writing those raised."""
        self._wait()
        self._writing = self._thread.submit(self._append, records)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _append(self, records: Iterable[bytes]) -> None:
        for record in records:
            size = len(record) + framing.FRAME_OVERHEAD
            if self._pending and self._pending_bytes + size > self._block_limit:
                self._flush()
            self._starts.append(self._pending_bytes)
            self._pending += framing.frame(record)
            self._pending_bytes += size
            self.records += 1

    @property
    def _block_limit(self) -> int:
        return framing.MEMBER_BYTES if self._gzip else 0

    def _flush(self) -> None:
        """Write the pending frames as one block: a gzip member, or the only frame as it is."""
        block: Sequence[bytes | memoryview] = framing.deflate(self._pending) if self._gzip else self._pending
        self._sink.write(block)
        size = sum(map(len, block))
        self._locations += [(self.bytes, size, start) for start in self._starts]
        self.bytes += size
        self._pending, self._starts, self._pending_bytes = [], [], 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return self._sink.sha256

    @property
    def locations(self) -> dict[str, npt.NDArray[np.int64]]:
        """For each record, in order: `offset` and `size` of its block in the file, `start` inside the block."""
        columns = np.array(self._locations, np.int64).reshape(-1, 3)
        return {"offset": columns[:, 0], "size": columns[:, 1], "start": columns[:, 2]}

    def close(self) -> None:
        """Write what is pending. An empty gzip shard is one empty member: `gzip -t` takes no empty file."""
        try:
            self._wait()
            if self._pending or (self._gzip and not self.records):
                self._flush()
            self._sink.close()
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._thread.shutdown()
        self._sink.abandon()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()
