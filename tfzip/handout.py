"""What the shards of an export are handed out with: small things, by which whoever comes knows what to do.

The rest lies in the export's work folder, which all can reach: the plan, what the source is, the items of each shard.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import NamedTuple

from tfzip import errors, storage
from tfzip.errors import TfzipError
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.sources import Listed, pieces


@dataclass(frozen=True)
class Task:
    """What every worker of an export is told.

    `model` is the path or the name of the model, `names_origin` as of a `Job`, `key` tells this plan from any other in
    the same folder. A worker that `compares` looks at its images for changes since they were listed.
    """

    layout: Layout
    options: Options
    model: str
    names_origin: str
    key: str
    compares: bool = False


class Did(NamedTuple):
    """What was done of a shard: nothing if it was done before, or if another has failed."""

    shard: int
    records: int = 0
    failures: int = 0
    bytes: int = 0
    milliseconds: int = 0


class Listing(NamedTuple):
    """What is handed out: the source, with no items, and between which slots each shard lies."""

    key: str
    source: Listed
    items: int  # that the source has, though not all may be asked for
    bounds: list[int]

    @classmethod
    def read(cls, layout: Layout) -> Listing:
        """As it stands in the work folder."""
        with storage.open(layout.work_listing, "r") as file:
            said = json.loads(file.read())
        return cls(**{**said, "source": pieces.blank(said["source"])})

    def write(self, layout: Layout) -> None:
        """Leave it there."""
        said = {**self._asdict(), "source": pieces.facts(self.source)}
        storage.write_whole(layout.work_listing, json.dumps(said).encode())

    @property
    def shards(self) -> int:
        """How many there are."""
        return len(self.bounds) - 1

    @property
    def images(self) -> int:
        """How many there are to do, those that the source rejects included."""
        return self.bounds[-1] + len(self.source.rejected)


def collected(layout: Layout) -> Listed:
    """The source with all items that were handed out, at their places."""
    listing = Listing.read(layout)
    each = [pieces.load(layout.work_piece(shard)) for shard in range(listing.shards)]
    return pieces.joined(listing.source, each, listing.items)


def has_error(task: Task) -> bool:
    """Whether something is noted to be wrong."""
    return storage.exists(task.layout.work_error(task.key))


def note_error(task: Task, error: TfzipError) -> None:
    """Leave word of what is wrong with the data or the call, which no other attempt makes good.

    It is there whole or not at all, whoever else leaves word too.
    """
    note = {"kind": type(error).__name__, "message": str(error)}
    path = task.layout.work_error(task.key)
    passing = f"{path}.{uuid.uuid4().hex}"
    storage.write_whole(passing, json.dumps(note).encode())
    storage.rename(passing, path)


def raise_noted(task: Task) -> None:
    """Raise what is noted to be wrong, if anything is."""
    if not has_error(task):
        return
    with storage.open(task.layout.work_error(task.key), "r") as file:
        noted = json.loads(file.read())
    raise getattr(errors, noted["kind"])(noted["message"])
