"""Filenames that two records have, where only all shards together show it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from tfzip import index, naming
from tfzip.errors import DataError
from tfzip.handout import Listing
from tfzip.layout import Layout
from tfzip.lookup import Lookup, hash_filenames
from tfzip.sources import pieces


def check(layout: Layout, listing: Listing) -> None:
    """Raise DataError, which names both places, if a filename comes twice; memory holds a part of all hashes."""
    parts = [index.Part(layout.work_rows(shard), shard) for shard in range(listing.shards)]
    counts = [len(part.column("offset")) for part in parts]
    hashes = (hash_filenames(part.texts("filename")[0].split()) for part in parts)
    with tempfile.TemporaryFile() as file:
        lookup = Lookup(hashes, sum(counts), file)
        for same in lookup.shared():
            _compare(layout, listing, parts, counts, same)


def _compare(
    layout: Layout,
    listing: Listing,
    parts: Sequence[index.Part],
    counts: Sequence[int],
    rows: npt.NDArray[np.int64],
) -> None:
    stops, first = np.cumsum(counts), dict[bytes, str]()
    for row in rows.tolist():
        shard = int(np.searchsorted(stops, row, "right"))
        at = row - int(stops[shard]) + counts[shard]
        name = parts[shard].texts("filename")[0].split()[at]
        slot = int(parts[shard].column("slot")[at])
        position = pieces.load(layout.work_piece(shard))[pieces.PLACES][slot - listing.bounds[shard]]
        place = listing.source.place(int(position))
        if name in first:
            raise DataError(
                f"{first[name]} and {place} both have the filename {naming.shown(naming.to_str(name))}, and filenames "
                "are keys: use --engine local and --overwrite, which lists the second as a failure"
            )
        first[name] = place
