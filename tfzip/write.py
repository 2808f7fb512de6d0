"""Serialized records -> one shard, and where in it each record lies."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import numpy.typing as npt

from tfzip import framing, storage

_AT_ONCE = 1 << 20  # bytes that are written and hashed at once
_SYNCED = 1 << 24  # bytes after which they are brought to the disk: all at the end would have to be waited for


class ShardWriter:
    """Writes one TFRecord file; with gzip, in members of whole records.

    A thread does the work, so that the next records can be waited for meanwhile; one batch at a time, so that memory
    stays flat. Another comes behind it, and hashes what is written. Use as a context manager; `records`, `bytes`,
    `sha256` and `locations` are complete when it has closed.
    The path is a temporary one: the caller renames the file once it is whole.
    """

    def __init__(self, path: str, compression: str) -> None:
        self.records = 0
        self.bytes = 0
        self._gzip = compression == "gzip"
        self._file = storage.open(path, "wb")
        self._buffer, self._written = io.BytesIO(), io.BytesIO()
        self._hash = hashlib.sha256()
        self._unsynced = 0
        self._pending: list[bytes] = []  # frames, in pieces
        self._starts: list[int] = []  # of the frames
        self._pending_bytes = 0
        self._locations: list[tuple[int, int, int]] = []
        self._thread, self._behind = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None
        self._hashing: Future[None] | None = None

    def write(self, records: Iterable[bytes]) -> None:
        """Append serialized records, as soon as those before them are written; raises what writing those raised."""
        self._wait()
        self._writing = self._thread.submit(self._append, records)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()

    def _wait_behind(self) -> None:
        if self._hashing is not None:
            self._hashing.result()

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
        self._buffer.writelines(block)
        size = sum(map(len, block))
        self._locations += [(self.bytes, size, start) for start in self._starts]
        self.bytes += size
        if self._buffer.tell() > _AT_ONCE:
            self._empty_buffer()
        self._pending, self._starts, self._pending_bytes = [], [], 0

    def _empty_buffer(self) -> None:
        """Write what the buffer holds; the other is filled while that is hashed."""
        with self._buffer.getbuffer()[: self._buffer.tell()] as content:
            self._file.write(content)
        self._wait_behind()
        self._buffer, self._written = self._written, self._buffer
        self._buffer.seek(0)
        self._hashing = self._behind.submit(self._settle)

    def _settle(self) -> None:
        with self._written.getbuffer()[: self._written.tell()] as content:
            self._hash.update(content)
            self._unsynced += len(content)
        if self._unsynced > _SYNCED:
            storage.sync_so_far(self._file)
            self._unsynced = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return self._hash.hexdigest()

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
            self._empty_buffer()
            self._wait_behind()
            storage.sync(self._file)
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._thread.shutdown()
        self._behind.shutdown()
        self._file.close()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._abandon()
