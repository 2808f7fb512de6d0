"""A shard of an export that is handed out, done by whoever comes for it, twice if it has to be.

The model is loaded once a process, and its graph is built once: the items of each shard are fed into it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from tfzip import checkpoint, index, job, shard, storage
from tfzip.errors import TfzipError, UsageError
from tfzip.handout import Did, Listing, Task, has_error, note_error
from tfzip.job import Job
from tfzip.layout import Layout
from tfzip.plan import Plan
from tfzip.shard import Failed, Written
from tfzip.sources import Listed, Stream, pieces

if TYPE_CHECKING:
    from tfzip.outcome import Outcome
    from tfzip.pipeline import Begun


def do(task: Task, number: int) -> Did:
    """Write a shard, unless it is finished, or something is known to be wrong with the export.

    What is wrong with the data or the call is noted in the work folder, since to try it again is of no use; whatever
    else goes wrong is raised.
    """
    if has_error(task):
        return Did(number)
    current(task)
    try:
        return _Worker.of(task).do(task, number)
    except UsageError as error:  # not of the call, which was checked where it was planned
        note_error(task, TfzipError(f"a worker cannot do what was planned: {error}"))
    except TfzipError as error:
        note_error(task, error)
    return Did(number)


def load(task: Task, listing: Listing) -> Job:
    """The job that was planned, with no items.

    Raises TfzipError if this process cannot do it, or would make another export.
    """
    try:
        made = job.prepare(listing.source, task.model, task.options, planned=False)
    except UsageError as error:  # not of the call: it was checked where it was planned
        raise TfzipError(f"a worker cannot do what was planned: {error}") from None
    made, differences = checkpoint.differences(task.layout, made)
    if differences:
        raise TfzipError(
            f"a worker would make another export than was planned: {'; '.join(differences)}.\n"
            "Give all workers the same versions and the same model, and call again"
        )
    return dataclasses.replace(made, names_origin=task.names_origin)


@contextlib.contextmanager
def at_hand(task: Task, made: Job) -> Iterator[None]:
    """Let workers in this process take what was loaded to plan the export, meanwhile."""
    blank = dataclasses.replace(made, source=Listing.read(task.layout).source, plan=None)
    _Worker.kept = _Worker(task, blank)
    try:
        yield
    finally:
        _Worker.kept = None


class _Worker:
    """What a process keeps between the shards of one export."""

    kept: ClassVar[_Worker | None] = None
    _lock = threading.Lock()

    @classmethod
    def of(cls, task: Task) -> _Worker:
        """The one of a task, made when the first of its shards comes to this process."""
        with cls._lock:
            if cls.kept is None or cls.kept.listing.key != task.key:
                cls.kept = None  # what it holds goes before more is loaded
                cls.kept = cls(task)
            return cls.kept

    def __init__(self, task: Task, made: Job | None = None) -> None:
        self.listing = current(task)
        self._job = load(task, self.listing) if made is None else made
        self._graphs = _Graphs(self._job, self.listing.source)

    def do(self, task: Task, number: int) -> Did:
        """Write a shard; nothing of it shows before it is whole."""
        layout, started = task.layout, time.monotonic()
        if self._is_done(layout, number):
            return Did(number)
        with _temporary(layout.work_shard(number)) as file, _temporary(layout.work_rows(number)) as rows:
            written = self._write(task, number, file)
            index.save_part(rows, written.columns, written.texts, written.notes)
            current(task)
            if not self._is_done(layout, number):  # by another attempt, meanwhile
                storage.rename(file, layout.work_shard(number))
                storage.rename(rows, layout.work_rows(number))
        notes, taken = written.notes, round(1000 * (time.monotonic() - started))
        return Did(number, notes["records"], len(notes["failures"]), notes["bytes"], taken)

    def _is_done(self, layout: Layout, number: int) -> bool:
        return checkpoint.is_done(layout, number, self.listing.shards)

    def _write(self, task: Task, number: int, path: str) -> Written:
        arrays = pieces.load(task.layout.work_piece(number))
        if task.compares:
            arrays = pieces.compare(self.listing.source, arrays)
        first, stop = self.listing.bounds[number : number + 2]
        plan = Plan(np.arange(stop - first), np.array([first, stop]))
        part = dataclasses.replace(self._job, source=self.listing.source, plan=plan)
        if stop > first:
            source = pieces.piece(self.listing.source, arrays)
            part = dataclasses.replace(part, source=source, plan=None if isinstance(source, Stream) else plan)
        failed = Failed()

        def see(outcome: Outcome) -> None:
            failed.add(outcome.failures)
            failed.check(task.options, self.listing.images)

        return shard.write(part, path, self._graphs.outcomes(part, arrays), see)()


def current(task: Task) -> Listing:
    """What is handed out; TfzipError if that is no longer what the task is of."""
    listing = Listing.read(task.layout)
    if listing.key != task.key:
        raise TfzipError(f"{task.layout.out}: another export has been begun there; this worker is of the one before")
    return listing


@contextlib.contextmanager
def _temporary(path: str) -> Iterator[str]:
    """A path of this attempt's own, for what is to be moved to a path; what is left there goes."""
    passing = f"{path}.{uuid.uuid4().hex}"
    try:
        yield passing
    finally:
        storage.remove([passing])


class _Graphs:
    """The graphs of a job, each built once, for whatever piece of the source: items are what is fed to them."""

    def __init__(self, made: Job, source: Listed) -> None:
        self._job, self._source = made, source
        self._built: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    def outcomes(self, part: Job, arrays: pieces.Arrays) -> Iterator[Outcome]:
        """What comes of every batch of a piece."""
        from tfzip import pipeline  # here, since it imports TensorFlow

        if not len(arrays[pieces.PLACES]):
            return iter(())
        if part.used_devices or isinstance(part.source, Stream):  # these have functions, or a dataset, of their own
            return pipeline.outcomes(part)
        return pipeline.outcomes(part, begin=self._beginner(arrays))

    def _beginner(self, arrays: pieces.Arrays) -> Callable[..., Begun]:
        import tensorflow as tf

        from tfzip import pipeline

        tensors = {name: tf.convert_to_tensor(values) for name, values in arrays.items()}

        def begin(part: Job, first: int = 0, *, only_usual: bool = False) -> Begun:
            assert part.plan is not None
            build = self._builder(tensors, only_usual)
            dataset = build(tensors, tf.constant(part.plan.bounds), *part.plan.batches(part.batch_size, first))
            stages = pipeline.Stages(part, first, only_usual=only_usual)
            return pipeline.Begun(stages, iter(dataset.with_options(pipeline.threading())))

        return begin

    def _builder(self, tensors: pieces.Arrays, only_usual: bool) -> Callable[..., Any]:
        """A function of the items of a piece, its bounds and its batches, that gives the dataset of its graph."""
        key = (only_usual, *sorted(tensors))
        with self._lock:
            if key not in self._built:
                self._built[key] = self._build(tensors, only_usual)
            return self._built[key]

    def _build(self, tensors: pieces.Arrays, only_usual: bool) -> Callable[..., Any]:
        import tensorflow as tf

        from tfzip import pipeline

        def dataset(items: pieces.Arrays, bounds: Any, *batches: Any) -> Any:
            plan = Plan(tf.range(bounds[1] - bounds[0]), bounds)
            part = dataclasses.replace(self._job, source=pieces.piece(self._source, items), plan=plan)
            return pipeline.Stages(part, only_usual=only_usual).dataset(batches)

        specs = {name: tf.TensorSpec([None], values.dtype) for name, values in tensors.items()}
        some = tf.TensorSpec([None], tf.int64)
        signature = [specs, tf.TensorSpec([2], tf.int64), some, some]
        return tf.function(dataset, input_signature=signature, autograph=False).get_concrete_function()
