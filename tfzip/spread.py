"""An export whose shards are handed out to workers: planned before, finished after, by whoever runs them.

The plan lies in the work folder, the items of each shard in a file of its own. So workers that are killed, restarted or
called twice do no harm, and an export begun here can be gone on with by one process alone, and the other way round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfzip import checkpoint, duplicates, handout, index, plan, storage, worker
from tfzip.errors import CorruptError, ModelError, OutputExistsError, SourceError, TfzipError, UsageError
from tfzip.finish import finish, load
from tfzip.handout import Listing, Task
from tfzip.job import Job, bounds, prepare
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.plan import Plan
from tfzip.sources import Listed, Stream, pieces

if TYPE_CHECKING:
    from tfzip.tuning import Trial

_SAMPLE = 32
"""Images on which a model is tried."""


class Spread(NamedTuple):
    """An export that is planned: what is handed out, and to whom it is what."""

    task: Task
    job: Job
    listing: Listing
    left: Sequence[int]  # shards to do
    trials: Sequence[Trial]

    @property
    def done(self) -> int:
        """How many images went into shards that were finished before."""
        left = sum(self.listing.bounds[shard + 1] - self.listing.bounds[shard] for shard in self.left)
        return self.listing.bounds[-1] - left


def check(model: Any, options: Options) -> None:
    """Raise UsageError for what cannot be told to workers."""
    if options.predictions is not None:
        raise UsageError("--predictions: there is no model to spread over workers; use --engine local")
    if not isinstance(model, (str, os.PathLike)):
        raise ModelError(
            f"workers load the model themselves, and a {type(model).__name__} cannot be handed to them: save it, and "
            "give its path"
        )
    if options.preprocess is not None and not isinstance(options.preprocess, str):
        raise UsageError("--preprocess: workers import the function themselves; name it, as package.module:function")


def begin(layout: Layout, options: Options, source: Listed | Stream, model: Any) -> Spread:
    """Plan an export, or find out what is left of one that is unfinished in OUT; its folder is to be claimed.

    Raises UsageError if that cannot be, OutputExistsError if it is another export.
    """
    load()
    listed = handable(source)
    if layout.has_finished_shards:
        try:
            return _gone_on(layout, options, listed, model)
        except (OutputExistsError, CorruptError):
            if not options.overwrite:
                raise
    layout.clear()
    return _planned(layout, options, listed, model)


def handable(source: Listed | Stream) -> Listed:
    """The source, if it can be handed out in pieces; else SourceError."""
    if isinstance(source, Stream) or source.access is None:
        raise SourceError(
            f"{source.name}: --engine beam hands a source out in pieces, which cannot be had of this kind "
            f"({source.kind}); use --engine local"
        )
    return source


def _planned(layout: Layout, options: Options, source: Listed, model: Any) -> Spread:
    from tfzip import tuning  # here, since it imports TensorFlow

    job = _without_state(prepare(source, model, options, planned=False))
    order = Order(source, options)
    sample = pieces.piece(source, pieces.items(source, order.rows(0, min(_SAMPLE, order.count))))
    few = Plan(np.arange(count := len(sample.filenames)), np.array([0, count])) if isinstance(sample, Listed) else None
    expected = order.count + len(source.rejected)
    tuned, trials = tuning.tune(dataclasses.replace(job, source=sample, plan=few, expected=expected))
    job = dataclasses.replace(tuned, source=source, plan=None, expected=None)
    listing = hand_out(layout, source, order, options, job.task.classes)
    checkpoint.save_plan(layout, job)  # from here on it can be gone on with
    return Spread(_task(layout, job, model, listing), job, listing, range(listing.shards), trials)


class Order:
    """The order of the items of a source: 8 bytes of memory an item if shuffled, none else."""

    def __init__(self, source: Listed, options: Options) -> None:
        count = len(source.filenames)
        self.positions = None if options.shuffle is None else plan.order(count, options.shuffle, options.limit)
        self.count = min(count, options.limit or count)

    def rows(self, first: int, stop: int) -> plan.Positions:
        """The positions of the items from one slot to before another."""
        return np.arange(first, stop) if self.positions is None else self.positions[first:stop]


def hand_out(layout: Layout, source: Listed, order: Order, options: Options, classes: int) -> Listing:
    """Leave in the work folder what workers are to do: records with scores of so many classes."""
    made = bounds(source, order.positions, order.count, options, classes)
    listing = Listing(uuid.uuid4().hex, source, len(source.filenames), made.tolist())
    for shard in range(listing.shards):
        pieces.save(layout.work_piece(shard), pieces.items(source, order.rows(*made[shard : shard + 2])))
    listing.write(layout)
    return listing


def _gone_on(layout: Layout, options: Options, source: Listed, model: Any) -> Spread:
    was_spread = storage.exists(layout.work_listing)
    listing = _noted(layout, source) if was_spread else None
    known = checkpoint.as_planned(layout, source) if listing is None else listing.source
    assert isinstance(known, Listed)
    job = _without_state(checkpoint.same(layout, prepare(known, model, options, planned=False)))
    if listing is None:
        listing = hand_out(layout, known, Order(known, options), options, job.task.classes)
    listing.write(layout)  # of files that were moved, where they are now
    storage.remove([layout.work_error(listing.key)])
    left = [shard for shard in range(listing.shards) if not checkpoint.is_done(layout, shard, listing.shards)]
    return Spread(_task(layout, job, model, listing, compares=True), job, listing, left, [])


def _noted(layout: Layout, source: Listed) -> Listing:
    """What was handed out, of the source as it is now."""
    with checkpoint.reading(layout.work_listing):
        listing = Listing.read(layout)
    told = {name: getattr(source, name) for name in ("kind", "name", "state", "access", "place")}
    now = dataclasses.replace(listing.source, **told)
    return listing._replace(source=now)


def _without_state(job: Job) -> Job:
    if job.predictor.stateful:
        raise ModelError(f"{job.predictor.name} keeps state from image to image, in their order: use --engine local")
    return job


def _task(layout: Layout, job: Job, model: Any, listing: Listing, *, compares: bool = False) -> Task:
    """What workers are told, wherever they run: paths from the root, and names in place of the file that has them."""
    options = job.options
    settled = dataclasses.replace(
        options,
        labels=None if options.labels is None else list(job.names),
        weights=None if options.weights is None else storage.absolute(os.fspath(options.weights)),
        overwrite=False,
    )
    path = os.fspath(model)
    path = storage.absolute(path) if storage.exists(path) else path
    return Task(layout.absolute(), settled, path, job.names_origin, listing.key, compares)


def watch(spread: Spread, wait: Callable[[], bool]) -> Iterator[tuple[int, int]]:
    """The images and the failures of each shard that is found to be finished, until waiting tells to end."""
    layout, bounds, left = spread.task.layout, spread.listing.bounds, set(spread.left)
    ends = False
    while left and not ends:
        ends = wait()
        for shard in layout.with_rows() & left:
            with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):  # another time, then
                notes = index.Part(layout.work_rows(shard), shard).notes
                left.remove(shard)
                yield bounds[shard + 1] - bounds[shard], len(notes["failures"])


def end(spread: Spread, ran: Mapping[str, Any]) -> None:
    """Finish an export of which all shards were handed out; `ran` is as `finish.finish` takes it.

    Raises what a worker has noted to be wrong, and TfzipError if a shard is missing.
    """
    layout, listing = spread.task.layout, spread.listing
    handout.raise_noted(spread.task)
    missing = [shard for shard in range(listing.shards) if not checkpoint.is_done(layout, shard, listing.shards)]
    if missing:
        raise TfzipError(f"{len(missing)} of {listing.shards} shards were not written, the first of them {missing[0]}")
    if not listing.source.unique:
        duplicates.check(layout, listing)
    finish(spread.job, layout, listing.shards, listing.images, ran)


def end_elsewhere(task: Task, ran: Mapping[str, Any]) -> str:
    """Finish an export where it was not planned, unless that was done before; the path of the export.

    Raises what `end` does.
    """
    layout = task.layout
    with layout.claimed():
        if layout.is_published:
            layout.tidy_up()
        elif layout.is_unfinished or not storage.exists(layout.index):
            listing = worker.current(task)
            job = worker.load(task, listing)
            end(Spread(task, job, listing, (), ()), ran)
    return layout.out
