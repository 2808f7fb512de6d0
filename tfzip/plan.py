"""Which items go to which shard, in what order: settled before any work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Positions = npt.NDArray[np.int64]

_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Plan:
    """The order of an export, or of some of its shards.

    A slot is an item's place in the export: those from `bounds[0]` on, which is 0 of a whole export, hold the items at
    `order` of the source, one after the other, and shard s the slots from `bounds[s]` to before `bounds[s + 1]`.
    """

    order: Positions
    bounds: Positions

    @property
    def shards(self) -> int:
        """The number of shards."""
        return len(self.bounds) - 1

    def batches(self, size: int, first: int = 0) -> tuple[Positions, Positions]:
        """The first slot of each batch, and the one after its last: of `size` slots, fewer at the end of a shard.

        Those from the slot `first` on.
        """
        begins = [np.arange(start, stop, size) for start, stop in pairwise(self.bounds)]
        starts = np.concatenate([np.empty(0, np.int64), *begins])
        stops = np.append(starts, self.bounds[-1])[1:]
        kept = starts >= first
        return starts[kept], stops[kept]

    def rows(self, slots: Positions) -> Positions:
        """Where in the source the items of slots are."""
        return self.order[slots - self.bounds[0]]

    def shard_of(self, slot: int) -> int:
        """The shard in which a slot lies."""
        return int(np.searchsorted(self.bounds, slot, "right")) - 1


def order(items: int, shuffle: int | None, limit: int | None) -> Positions:
    """The source's positions in the order of the export: as they are, or permuted by a seed; then the first `limit`."""
    positions = np.arange(items, dtype=np.int64)
    if shuffle is not None:
        np.random.Generator(np.random.PCG64(shuffle)).shuffle(positions)
    return positions[:limit]


def even_bounds(items: int, shards: int) -> Positions:
    """A given number of shards, as equal in records as can be."""
    return np.arange(shards + 1, dtype=np.int64) * items // shards


def sized_bounds(sizes: Callable[[slice], Positions], count: int, shard_bytes: int, shard_records: int) -> Positions:
    """As few shards as keep about within both limits, equally full.

    Args:
        sizes: gives the bytes of some records; they are gone through in order, twice, and a million held at a time.
        count: how many records there are.
        shard_bytes: bytes a shard is to hold at most, about.
        shard_records: records a shard is to hold at most.
    """

    def fullness() -> Iterator[tuple[int, npt.NDArray[np.float64]]]:
        """How full all up to each record are, in shards; with where each part of that begins."""
        total = 0.0
        for first in range(0, count, _AT_ONCE):
            each = np.maximum(sizes(slice(first, min(first + _AT_ONCE, count))) / shard_bytes, 1 / shard_records)
            reached = np.cumsum(np.concatenate([[total], each]))[1:]  # one after the other, as if all were there
            total = reached[-1]
            yield first, reached

    total = 0.0
    for _, reached in fullness():
        total = reached[-1]
    slack = 1e-6  # for what the roundings may add up to; far less than a record
    shards = max(1, int(np.ceil(total - slack)))
    edges = total * np.arange(1, shards) / shards - slack
    inner = [np.empty(0, np.int64)]
    for first, reached in fullness():
        within, edges = edges[edges <= reached[-1]], edges[edges > reached[-1]]
        inner.append(np.searchsorted(reached, within, "left") + first + 1)
    found = np.concatenate(inner)
    return np.unique(np.array([0, *found, count], np.int64))  # one that holds more than a shard may, has its own
