"""Which images two exports both hold: a join of their filenames, by the hashes that their indexes have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tfzip.errors import CorruptError
from tfzip.index import Index
from tfzip.lookup import hash_filenames
from tfzip.read import Export

Rows = npt.NDArray[np.int64]

_CHUNK = 1 << 12  # pairs of filenames that are compared at a time
_LONG = 1 << 10  # bytes from which on filenames are compared one by one


def matched(one: Export, other: Export) -> tuple[Rows, Rows]:
    """The rows of the images that both exports hold, by filename, in the order of `one`.

    Returns int64 [N] of each: the i-th rows are of the same image.

    Raises CorruptError where a lookup is damaged, so that no image is missing in silence.
    """
    ours, theirs = _Lookup(one._index), _Lookup(other._index)
    shared = np.union1d(ours.shared_hashes(), theirs.shared_hashes())
    pairs = np.concatenate([_by_hash(ours, theirs, shared), _by_filename(ours, theirs, shared)], axis=1)
    rows, their_rows = pairs[:, np.argsort(pairs[0])]
    alike = _alike(ours, rows, theirs, their_rows)
    rows, their_rows = rows[alike], their_rows[alike]
    ours.check_others(rows)
    theirs.check_others(their_rows)
    return rows, their_rows


class _Lookup:
    """The rows of an index by the hashes of their filenames, in the order of the hashes."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.hashes, self.rows = (np.asarray(index.array(f"lookup/{name}.npy")) for name in ("hash", "row"))
        if (self.hashes[1:] < self.hashes[:-1]).any() or (np.sort(self.rows) != np.arange(len(self.rows))).any():
            raise self._damaged()
        ends = index.filename_ends()
        self.starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])[: len(ends)]
        self.lengths = ends - self.starts
        self.bytes = np.asarray(index.column("filename"))

    def shared_hashes(self) -> npt.NDArray[np.uint64]:
        """The hashes that several filenames have."""
        return self.hashes[1:][self.hashes[1:] == self.hashes[:-1]]

    def by_filename(self, hashes: npt.NDArray[np.uint64]) -> dict[bytes, int]:
        """The rows of the filenames that have one of these hashes."""
        rows = self.rows[np.isin(self.hashes, hashes)].tolist()
        found = {self.index.filename(row): row for row in rows}
        if len(found) < len(rows):
            raise CorruptError(f"{self.index.path}: records have the same filename; `tfzip verify` tells which")
        return found

    def check_others(self, rows: Rows) -> None:
        """Raise CorruptError unless all other rows have the hash of their filename, and would have been found by it."""
        others = np.ones(len(self.rows), np.bool_)
        others[rows] = False
        places = np.flatnonzero(others[self.rows])
        if len(places):
            names = self.index.filenames()
            hashes = hash_filenames([names[row] for row in self.rows[places].tolist()])
            if (hashes != self.hashes[places]).any():
                raise self._damaged()

    def _damaged(self) -> CorruptError:
        return CorruptError(f"{self.index.path}: the lookup is damaged; `tfzip verify` tells more")


def _by_hash(ours: _Lookup, theirs: _Lookup, shared: npt.NDArray[np.uint64]) -> Rows:
    """Pairs of rows [2, N] of one hash that no others of either export have; their filenames are not compared yet."""
    alone, their_alone = (np.flatnonzero(~np.isin(lookup.hashes, shared)) for lookup in (ours, theirs))
    hashes, their_hashes = ours.hashes[alone], theirs.hashes[their_alone]
    _, here, there = np.intersect1d(hashes, their_hashes, assume_unique=True, return_indices=True)
    return np.stack([ours.rows[alone[here]], theirs.rows[their_alone[there]]])


def _by_filename(ours: _Lookup, theirs: _Lookup, shared: npt.NDArray[np.uint64]) -> Rows:
    """Pairs of rows [2, N] of one filename, where others may have its hash."""
    rows, their_rows = ours.by_filename(shared), theirs.by_filename(shared)
    pairs = [(row, their_rows[name]) for name, row in rows.items() if name in their_rows]
    return np.array(pairs, np.int64).reshape(-1, 2).T


def _alike(ours: _Lookup, rows: Rows, theirs: _Lookup, their_rows: Rows) -> npt.NDArray[np.bool_]:
    """Which of these pairs of rows have the same filename."""
    lengths = ours.lengths[rows]
    alike = lengths == theirs.lengths[their_rows]
    for pair in np.flatnonzero(alike & (lengths >= _LONG)).tolist():
        alike[pair] = ours.index.filename(int(rows[pair])) == theirs.index.filename(int(their_rows[pair]))
    short = np.flatnonzero(alike & (lengths < _LONG))
    for first in range(0, len(short), _CHUNK):
        pairs = short[first : first + _CHUNK]
        size = lengths[pairs]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        here = np.repeat(ours.starts[rows[pairs]], size) + within
        there = np.repeat(theirs.starts[their_rows[pairs]], size) + within
        alike[np.repeat(pairs, size)[ours.bytes[here] != theirs.bytes[there]]] = False
    return alike
