"""The lookup by filename: rows in the order of the hashes of their filenames, sorted in bounded memory.

SHA-256 spreads hashes evenly, so that equal ranges of them hold about equally many. Runs of them are sorted as they
come and written to a temporary file; then one range at a time is gathered from all runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

_RUN = 1 << 19  # hashes that are sorted at once
_ENTRY = np.dtype([("hash", "<u8"), ("row", "<i8")])

Hashes = npt.NDArray[np.uint64]


def digest(filename: bytes) -> bytes:
    """The first 8 bytes of the SHA-256 of the filename."""
    return hashlib.sha256(filename).digest()[:8]


def hash_filename(filename: bytes) -> int:
    """The same as a number, little endian."""
    return int.from_bytes(digest(filename), "little")


def hash_filenames(filenames: Iterable[bytes]) -> Hashes:
    """The hash of each filename."""
    return np.frombuffer(b"".join(map(digest, filenames)), "<u8").astype(np.uint64, copy=False)


class Lookup:
    """The hashes of all rows, sorted, and their rows; those that share a hash in the order of the rows.

    Args:
        hashes: of all rows, in pieces, in the order of the rows.
        rows: how many there are.
        file: a temporary one, to write and to read.
        run: how many are sorted at once, unless very many are equal.
    """

    def __init__(self, hashes: Iterable[Hashes], rows: int, file: IO[bytes], run: int = _RUN) -> None:
        self._file = file
        self._ranges = rows // run + 1
        bounds = np.array([(number << 64) // self._ranges for number in range(1, self._ranges)], np.uint64)
        self._cuts: list[Sequence[int]] = []  # of each run, where in the file its part of each range begins
        begin = 0
        for piece in _gathered(hashes, run):
            entries = np.empty(len(piece), _ENTRY)
            order = np.argsort(piece, kind="stable")
            entries["hash"], entries["row"] = piece[order], order + begin
            file.write(entries.tobytes())
            end = begin + len(piece)
            self._cuts.append([begin, *(np.searchsorted(entries["hash"], bounds) + begin).tolist(), end])
            begin = end

    def hashes(self) -> Iterator[Hashes]:
        """All hashes, sorted, in pieces."""
        for entries in self._each_range():
            yield np.sort(entries["hash"])

    def rows(self) -> Iterator[npt.NDArray[np.int64]]:
        """The row of each of them, in pieces."""
        for entries in self._each_range():
            yield entries["row"][np.argsort(entries["hash"], kind="stable")]

    def shared(self) -> Iterator[npt.NDArray[np.int64]]:
        """The rows of each hash that several have."""
        for entries in self._each_range():
            order = np.argsort(entries["hash"], kind="stable")
            hashes, rows = entries["hash"][order], entries["row"][order]
            edges = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1], [True]]))[: len(hashes) + 1]
            several = np.flatnonzero(np.diff(edges) > 1)
            yield from (rows[edges[group] : edges[group + 1]] for group in several.tolist())

    def _each_range(self) -> Iterator[npt.NDArray[Any]]:
        """The entries of each range, run after run, and so in the order of the rows where hashes are equal."""
        for number in range(self._ranges):
            yield np.frombuffer(b"".join(self._read(*cuts[number : number + 2]) for cuts in self._cuts), _ENTRY)

    def _read(self, begin: int, end: int) -> bytes:
        self._file.seek(begin * _ENTRY.itemsize)
        return self._file.read((end - begin) * _ENTRY.itemsize)


def _gathered(pieces: Iterable[Hashes], least: int) -> Iterator[Hashes]:
    """The pieces put together to so many at least, but for the last."""
    held: list[Hashes] = []
    count = 0
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        if count >= least:
            yield np.concatenate(held)
            held, count = [], 0
    if held:
        yield np.concatenate(held)
