"""The end of an export, whoever wrote its shards: what came of them checked, the index written, all put in its place.

The shards' rows are read one shard at a time, so that memory holds no more of them than that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tfzip import dataset_info, index, run, schema
from tfzip.errors import DataError, SourceError, TfzipError
from tfzip.job import Job, manifest
from tfzip.layout import Layout
from tfzip.record import Failure, Shard
from tfzip.shard import Failed, told


def load() -> None:
    """Import what it takes; UsageError if that cannot be, which is better told before all work than after it."""
    dataset_info.load()
    schema.load()


@dataclass
class Made:
    """What the shards hold together."""

    shards: list[Shard] = field(default_factory=list)
    failed: Failed = field(default_factory=Failed)
    formats: set[str] = field(default_factory=set)
    nonfinite: int = 0

    @classmethod
    def of(cls, rejected: Iterable[Failure], layout: Layout, shards: int) -> Made:
        """Look at the rows of so many shards; the source rejected some before."""
        made = cls(failed=Failed(rejected))
        for number in range(shards):
            part = index.Part(layout.work_rows(number), number)
            notes = part.notes
            file = layout.shard_file(number, shards)
            made.shards.append(Shard(file, notes["records"], notes["bytes"], notes["sha256"]))
            made.failed.add(Failure(*failure) for failure in notes["failures"])
            made.formats.update(notes["formats"])
            made.nonfinite += int(part.column("nonfinite").sum())
        return made

    @property
    def images(self) -> int:
        """How many went in."""
        return sum(shard.records for shard in self.shards) + self.failed.count


def finish(job: Job, layout: Layout, shards: int, images: int | None, ran: Mapping[str, Any]) -> None:
    """Check what came of so many shards, all of them written, and publish the export.

    Args:
        job: what it was to be.
        layout: of the export.
        shards: how many there are.
        images: how many images went in; None if only the shards tell.
        ran: what `run.write` takes; `started` and `before`, the images that were done before, at least.

    Raises:
        SourceError: there was no image.
        DataError: too many failed.
    """
    rejected = job.source.rejected
    made = Made.of(rejected, layout, shards)
    _check(job, made, images)
    facts = manifest(job, made.shards, made.failed.count, made.nonfinite, sorted(made.formats))
    facts["tfds"] = layout.keep_for_tfds(facts)
    parts = [layout.work_rows(shard) for shard in range(shards)]
    described = schema.schema_text(job.features, job.names)
    index.write_index(layout.work_index, facts, job.names, described, parts, failures(rejected, layout, shards))
    more = dict(ran)
    run.write(layout.work_run, more.pop("started"), made.images - more.pop("before"), **more)
    layout.publish([shard.file for shard in made.shards])


def failures(rejected: Iterable[Failure], layout: Layout, shards: int) -> Iterator[Failure]:
    """Those that the source rejected, and those of every shard, one after the other."""
    yield from rejected
    for number in range(shards):
        yield from (Failure(*failure) for failure in index.Part(layout.work_rows(number), number).notes["failures"])


def _check(job: Job, made: Made, images: int | None) -> None:
    source, skipped = job.source, job.options.skip_in
    if not made.images:
        held = "" if skipped is None else f" that {os.fspath(skipped)} does not hold (--skip-in)"
        raise SourceError(f"{source.name} gave no image{held}")
    if made.failed.count == made.images and made.failed.first:
        raise DataError(f"{source.name}: none of its {made.images} images gave a record; {told(made.failed.first)}")
    made.failed.check(job.options, made.images)
    if images not in (None, made.images):
        raise TfzipError(f"{images} images went in, {made.images} came out: this is a fault of tfzip")
