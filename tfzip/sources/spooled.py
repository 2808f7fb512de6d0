"""Listings too long to hold: on a disk of this machine, in the order of their names."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import marshal
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tfzip.metadata import Texts

_RUN = 1 << 18  # files that are sorted at once
_AT_ONCE = 1 << 12  # that are written, and read, at once

Positions = npt.NDArray[np.int64]
File = tuple[bytes, int, int]
"""A file's name, its size, and the time of its last change."""


class _Folder:
    """A temporary one, gone with the last who reads in it."""

    def __init__(self) -> None:
        self.path = tempfile.mkdtemp(prefix="tfzip-")
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class Numbers:
    """Numbers in a file, which is mapped into memory only while some are looked up."""

    def __init__(self, path: str, dtype: type[np.generic], kept: _Folder) -> None:
        self._path, self._dtype, self._kept = path, np.dtype(dtype), kept
        self._count = os.path.getsize(path) // self._dtype.itemsize

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: Any) -> npt.NDArray[Any]:
        return np.array(self.mapped()[rows])

    def mapped(self) -> npt.NDArray[Any]:
        """All of them, as long as that is kept."""
        return np.memmap(self._path, self._dtype, "r") if self._count else np.empty(0, self._dtype)


class Names(Sequence[bytes]):
    """Texts end to end in a file, and where each ends in another."""

    def __init__(self, data: Numbers, ends: Numbers) -> None:
        self._data, self._ends = data, ends

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...

    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        rows = range(len(self))[row]
        return self.at(np.array([rows]))[0] if isinstance(rows, int) else self.at(np.array(rows, np.int64))

    def __iter__(self) -> Iterator[bytes]:
        return itertools.chain.from_iterable(self.pieces())

    def pieces(self) -> Iterator[list[bytes]]:
        """All of them, some thousands at a time."""
        for first in range(0, len(self), _AT_ONCE):
            yield self.at(np.arange(first, min(first + _AT_ONCE, len(self))))

    def at(self, rows: Positions) -> list[bytes]:
        """The texts of some rows."""
        texts = Texts(self._data.mapped(), self._ends.mapped())
        if len(rows) and np.array_equal(rows, np.arange(rows[0], rows[0] + len(rows))):
            return texts.part(int(rows[0]), int(rows[-1]) + 1).split()
        stops, starts = texts.ends[rows].tolist(), np.where(rows, texts.ends[rows - 1], 0).tolist()
        return [texts.data[start:stop].tobytes() for start, stop in zip(starts, stops, strict=True)]


class Folders(Sequence[bytes]):
    """The first folder of each name; empty for a file in no folder."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...

    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(row, slice):
            return [first_folder(name) for name in self._names[row]]
        return first_folder(self._names[row])

    def __iter__(self) -> Iterator[bytes]:
        return map(first_folder, self._names)

    def at(self, rows: Positions) -> list[bytes]:
        """Those of some rows."""
        return [first_folder(name) for name in self._names.at(rows)]


def at(texts: Sequence[bytes], rows: Positions) -> list[bytes]:
    """The texts of some rows, of a listing in memory or on the disk."""
    if isinstance(texts, (Names, Folders)):
        return texts.at(rows)
    return [texts[row] for row in rows.tolist()]


def first_folders(names: Sequence[bytes]) -> Sequence[bytes]:
    """The first folder of each name, kept as the names are."""
    return Folders(names) if isinstance(names, Names) else list(map(first_folder, names))


def first_folder(name: bytes) -> bytes:
    """The first folder of a filename; empty for a file in no folder."""
    return name.split(b"/", 1)[0] if b"/" in name else b""


class Files(NamedTuple):
    """A listing: names, sizes in bytes, and the times of last changes."""

    names: Names
    sizes: Any  # Numbers, of which some are had as from an array
    stamps: Any


def spool(files: Iterable[File]) -> Files:
    """Write files down in the order in which they come; memory holds a few thousand."""
    folder = _Folder()
    paths = [os.path.join(folder.path, name) for name in ("data", "ends", "sizes", "stamps")]
    total = 0
    with contextlib.ExitStack() as stack:
        written = [stack.enter_context(open(path, "wb")) for path in paths]
        for some in _batches(files):
            texts, (sizes, stamps) = Texts.of([file[0] for file in some]), np.array([file[1:] for file in some]).T
            parts: list[npt.NDArray[Any]] = [texts.data, texts.ends + total, sizes, stamps]
            for file, part in zip(written, parts, strict=True):
                file.write(part.tobytes())
            total += len(texts.data)
    ends, sizes, stamps = (Numbers(path, np.int64, folder) for path in paths[1:])
    return Files(Names(Numbers(paths[0], np.uint8, folder), ends), sizes, stamps)


def held(files: Iterable[File]) -> tuple[Sequence[bytes], Any, Any]:
    """The same in memory."""
    found = list(files)
    sizes, stamps = (np.array([file[column] for file in found], np.int64) for column in (1, 2))
    return [file[0] for file in found], sizes, stamps


def in_order(files: Iterable[File], run: int = _RUN) -> Iterator[File]:
    """Files in the order of their names, each once; so many are sorted at once, and then merged."""
    waiting, runs = iter(files), list[Iterator[File]]()
    while some := sorted(itertools.islice(waiting, run)):
        runs.append(iter(some) if len(some) < run and not runs else _put_aside(some))
    previous = None
    for file in heapq.merge(*runs):
        if file[0] != previous:
            yield file
        previous = file[0]


def _put_aside(some: Sequence[File]) -> Iterator[File]:
    file = tempfile.TemporaryFile(prefix="tfzip-")  # noqa: SIM115 - closed once all is taken back
    for part in _batches(some):
        marshal.dump([tuple(each) for each in part], file)
    file.seek(0)
    return _taken_back(file, len(some))


def _taken_back(file: Any, count: int) -> Iterator[File]:
    with file:
        while count:
            some = marshal.load(file)  # of our own temporary file
            count -= len(some)
            yield from some


def _batches(files: Iterable[File]) -> Iterator[list[File]]:
    waiting = iter(files)
    while some := list(itertools.islice(waiting, _AT_ONCE)):
        yield some
