"""Bytes -> a file, and its SHA-256."""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from tfzip import storage

_AT_ONCE = 1 << 20  # bytes that are written and hashed at once
_BUFFERS = 3  # so many of them: one to be filled, while others are written and hashed
_SYNCED = 1 << 24  # bytes after which they are brought to the disk: all at the end would have to be waited for


class Sink:
    """A file that grows. One thread writes, another hashes the same bytes, and a third brings them to the disk.

    What one of them raises is raised by a later `write`, or by `close`, after which `sha256` is complete; who does
    not close it has to `abandon` it.
    """

    def __init__(self, path: str) -> None:
        self._file = storage.open(path, "wb")
        self._hash = hashlib.sha256()
        self._writer, self._hasher, self._syncer = (ThreadPoolExecutor(1) for _ in range(3))
        self._buffer = io.BytesIO()
        self._handed: deque[tuple[io.BytesIO, list[Future[None]]]] = deque()
        self._syncing: Future[None] | None = None
        self._unsynced = 0

    def write(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Append pieces, which are copied."""
        self._buffer.writelines(pieces)
        if self._buffer.tell() > _AT_ONCE:
            self._hand_on()
            self._buffer = self._emptied() if len(self._handed) == _BUFFERS else io.BytesIO()

    def _hand_on(self) -> None:
        """Have what the buffer holds written and hashed."""
        given = self._buffer, self._buffer.tell()
        tasks = [pool.submit(task, *given) for pool, task in ((self._writer, self._put), (self._hasher, self._add))]
        self._handed.append((self._buffer, tasks))

    def _emptied(self) -> io.BytesIO:
        """The buffer that was handed on first, to be filled again."""
        buffer, tasks = self._handed.popleft()
        for task in tasks:
            task.result()
        buffer.seek(0)
        return buffer

    def _put(self, buffer: io.BytesIO, size: int) -> None:
        with buffer.getbuffer()[:size] as content:
            self._file.write(content)
        self._unsynced += size
        if self._unsynced > _SYNCED and (self._syncing is None or self._syncing.done()):
            self._wait_for_sync()
            self._unsynced, self._syncing = 0, self._syncer.submit(storage.sync_so_far, self._file)

    def _add(self, buffer: io.BytesIO, size: int) -> None:
        with buffer.getbuffer()[:size] as content:
            self._hash.update(content)

    def _wait_for_sync(self) -> None:
        if self._syncing is not None:
            self._syncing.result()

    @property
    def sha256(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return self._hash.hexdigest()

    def close(self) -> None:
        """Have all of it on the disk."""
        try:
            self._hand_on()
            while self._handed:
                self._emptied()
            self._wait_for_sync()
            storage.sync(self._file)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Leave the file as far as it has come."""
        for pool in (self._writer, self._hasher, self._syncer):
            pool.shutdown()
        self._file.close()
