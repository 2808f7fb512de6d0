"""The only composer: source, model and options in; shards and index out.

    read -> decode -> batch -> predict -> encode        one tf.data graph
                                            -> frame, compress, write      Python, while the graph works on

Nothing is joined by position: filename, image and prediction of a record are one element of the graph.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

from tfzip import checkpoint, interrupt, naming, pairing, shard, storage
from tfzip import read as reading
from tfzip.checkpoint import Done
from tfzip.errors import CorruptError, OutputError, OutputExistsError, TfzipError, UsageError
from tfzip.finish import finish, load
from tfzip.given import Given
from tfzip.job import Job, prepare
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.progress import Progress
from tfzip.report import check_installed, report
from tfzip.shard import Failed, Written
from tfzip.sources import Listed, Stream, open_source, python

if TYPE_CHECKING:
    from tfzip.outcome import Outcome
    from tfzip.tuning import Trial


def export(
    source: Any,
    model: Any,
    out: str | os.PathLike[str],
    **options: Any,
) -> reading.Export | None:
    """Run a model over images and write an export.

    Args:
        source: whatever the command line takes (a folder, a glob, a list, a table, an archive, `tfrecord:GLOB`,
            `tfds:NAME`, an export), a `tf.data.Dataset` of dicts, an iterable of items, or an array of images (see
            `sources.python`).
        model: path of a `.keras` or `.h5` file or of a SavedModel folder, `keras:NAME`, `package.module:callable`, a
            Keras model, or a callable of one batch, such as a `tf.Module`; None where `predictions` names a file.
        out: the folder to write; must be empty or missing.
        **options: those of `tfzip export`, with underscores, as `options.Options` has them: `batch_size=32`,
            `source_labels="folder"`, ... In Python `labels` may be a list of names, `preprocess` a function and
            `image_size` a pair.

    Returns:
        The finished export, opened; None after a dry run, which prints what would be done.

    Raises:
        UsageError: the call is wrong; nothing was written.
        DataError: too many images failed; nothing was written.
    """
    settings, layout = settled(out, options)
    if settings.engine != "local":
        raise UsageError(f"engine={settings.engine!r}: call tfzip.interop.{settings.engine}.export with the same")
    return carry_out(layout, settings, lambda: (open_source(source, settings), model, None), _make)


def write(
    triples: Iterable[tuple[Any, Any, Any]], out: str | os.PathLike[str], **options: Any
) -> reading.Export | None:
    """Write an export of predictions made elsewhere, as `tfzip.zip` pairs them; memory stays flat.

    Args:
        triples: `(prediction, filename, image)`: scores [classes], one score, a label or a class's name, all of one
            kind; a unique name; encoded bytes, uint8 pixels [H, W, C] or a path. Or batches of each.
        out: the folder to write; must be empty or missing.
        **options: as for `export`, but those of models.

    Returns and raises what `export` does.
    """
    settings, layout = settled(out, options)
    if settings.engine != "local":
        raise UsageError(f"engine={settings.engine!r}: what comes one by one cannot be spread; write is local")

    def opened() -> tuple[Stream, None, Given]:
        source, likes = python.from_triples(pairing.singly(triples), judged=settings.scores == "auto")
        scores = likes.pop("scores", None)
        return source, None, Given("the predictions", scores=scores, columns=likes, brought=True)

    return carry_out(layout, settings, opened, _make)


def settled(out: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[Options, Layout]:
    """The options, checked, and the folder."""
    try:
        settings = Options(**options)
    except TypeError as error:
        raise UsageError(f"export: {str(error).partition(') ')[2] or error}") from None
    path = os.fspath(out)
    if not path:
        raise UsageError("--out is empty; give a folder")
    return settings, Layout(path, settings.layout, settings.name, settings.split, settings.compression)


def carry_out(
    layout: Layout,
    options: Options,
    opened: Callable[[], tuple[Listed | Stream, Any, Given | None]],
    make: Callable[[Layout, Options, Listed | Stream, Any, Given | None], None],
) -> reading.Export | None:
    """Do what is asked for, or only say what would be done.

    Args:
        layout: of the export.
        options: as given.
        opened: gives source, model and predictions.
        make: takes these too, and makes the export; nobody else writes there meanwhile.

    Returns what `export` does.
    """
    layout.check_free(options.overwrite)
    if options.report:
        check_installed()
    if options.dry_run:
        source, model, given = opened()
        print(_dry_run(prepare(source, model, options, given), layout))
        return None
    with layout.claimed():
        parts = opened()
        if not _was_published(layout, options, *parts):
            layout.check_free(options.overwrite)  # again: another may have finished meanwhile
            make(layout, options, *parts)
    made = reading.open(layout.out, options.split, max_pixels=options.max_pixels)
    if options.report:
        _add_report(made)
    return made


def _add_report(made: reading.Export) -> None:
    split = f" --split {made.split}" if made.manifest["layout"] == "tfx" else ""
    again = f"the export is finished, its report is not: `tfzip report {made.path}{split}` makes that"
    try:
        with interrupt.leaving(naming.printable(again)):
            report(made)
    except TfzipError as error:
        raise type(error)(f"{error}; {again}") from None


def _was_published(layout: Layout, options: Options, source: Listed | Stream, model: Any, given: Given | None) -> bool:
    """Whether this export was stopped when only tidying up was left; that is done now, whatever export it was."""
    if not layout.is_published:
        return False
    try:
        is_this = checkpoint.is_of(layout, prepare(source, model, options, given, planned=False))
    except CorruptError:  # of the plan there; the export itself is whole
        is_this = False
    layout.tidy_up()
    return is_this


def _make(layout: Layout, options: Options, source: Listed | Stream, model: Any, given: Given | None) -> None:
    _run(layout, *_settled_job(layout, options, source, model, given))


def _settled_job(
    layout: Layout, options: Options, source: Listed | Stream, model: Any, given: Given | None
) -> tuple[Job, list[Done], list[Trial]]:
    """The job, the shards of it that are done, and what was tried out for it.

    An unfinished export in OUT is gone on with if it is the same.

    One of which no shard is finished is nothing to go on with, nor to keep.
    """
    if layout.has_finished_shards:
        try:
            planned = checkpoint.as_planned(layout, source)
            job, done = checkpoint.go_on(layout, prepare(planned, model, options, given))
            _tell_what_is_left(job, done, source)
            return job, done, []
        except (OutputExistsError, CorruptError):
            if not options.overwrite:
                raise
    if layout.is_unfinished:
        layout.clear()
    from tfzip import tuning  # here, since it imports TensorFlow

    job, trials = tuning.tune(prepare(source, model, options, given))
    return job, [], trials


def _tell_what_is_left(job: Job, done: Sequence[Done], source: Listed | Stream) -> None:
    """Say that an unfinished export goes on, and how many images have come too late for it."""
    if job.options.quiet:
        return
    told = f"going on after {len(done)} finished shards"
    if isinstance(source, Listed) and isinstance(job.source, Listed):
        late = len(set(source.filenames).difference(job.source.filenames))
        told += f"; {late} images that have come since stay out" if late else ""
    print(told, file=sys.stderr)


def _dry_run(job: Job, layout: Layout) -> str:
    ready, options = job.predictor, job.options
    images = "images, as many as come" if job.images is None else f"{job.images} images"
    shards = "and as many more as it takes" if job.plan is None else f"{job.plan.shards} in all"
    taken = "the images' bytes"
    if job.scale is not None:
        taken = f"{'x'.join(map(str, ready.input.spec.shape[1:]))} {ready.input.dtype.name}, pixels {job.scale.name}"
    return "\n".join(
        [
            f"{images} (and {job.source.ignored} other files, ignored)",
            f"model   {ready.name}: {taken}",
            f"task    {job.task.name}" + (f", {job.task.classes} classes" if job.task.classes else ""),
            f"out     {storage.join(layout.out, layout.shard_file(0, job.plan.shards if job.plan else 1))}, {shards}",
            f"batches of {job.batch_size}, {job.parallel} at a time; image {options.image}, {options.compression}",
            *([_told_devices(job.devices)] if job.devices else []),
            "dry run: nothing was written",
        ]
    )


def _told_devices(devices: Sequence[str]) -> str:
    return f"the model runs on {', '.join(devices)}"


# The run.


def _run(layout: Layout, job: Job, done: list[Done], trials: Sequence[Trial]) -> None:
    """Begin the export, or go on after the shards that are done, and finish it."""
    started = time.time()
    if job.devices and not job.options.quiet:
        print(_told_devices(job.used_devices), file=sys.stderr)
    load()
    try:
        if not layout.is_unfinished:
            checkpoint.begin(layout, job)
        ran = {
            "started": started,
            "before": sum(each.slots for each in done),
            "trials": [trial._asdict() for trial in trials],
            "devices": job.used_devices,
            "engine": "local",
            "tensorflow": tensorflow_version(),
        }
        _write_shards(job, layout, done)
        finish(job, layout, len(done), job.images, ran)
    except BaseException as error:
        by_workers = len(layout.with_rows()) > len(done)  # some behind one that is not done
        raise_told(error, layout, by_workers or any(each.records for each in done))


def raise_told(error: BaseException, layout: Layout, kept: bool) -> NoReturn:
    """Raise what ended an export, with what is left of it: nothing, unless there is something to be `kept`."""
    may_go_on = not isinstance(error, UsageError)  # else another call has to be made
    told = _told_how_to_go_on(error, layout, may_go_on and kept)
    if told is error:
        raise error
    raise told from (error.__cause__ or error)


def _told_how_to_go_on(error: BaseException, layout: Layout, kept: bool) -> BaseException:
    """The error with what is left; nothing is left where there is nothing to keep."""
    if not kept:
        with contextlib.suppress(OSError):
            layout.clear()
    then = "the same command goes on after what is finished" if kept else "nothing is left of this export"
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt(f"interrupted; {then}")
    if isinstance(error, OSError) and not isinstance(error, TfzipError):
        return OutputError(f"{layout.out} can no longer be written: {error.strerror or error}; {then}")
    return type(error)(f"{error}\n{then[0].upper()}{then[1:]}") if kept and isinstance(error, TfzipError) else error


def _write_shards(job: Job, layout: Layout, done: list[Done]) -> None:
    """Write the shards that are not done yet, and add them."""
    from tfzip import pipeline  # here, since it imports TensorFlow

    failed = Failed([*job.source.rejected, *(failure for each in done for failure in each.failures)])
    outcomes = _Ahead(_numbered(job, pipeline.outcomes(job, done), first=len(done)))
    slots = sum(each.slots for each in done) + len(job.source.rejected)
    with Progress(job.images, quiet=job.options.quiet, done=slots) as progress, _Finishing(layout, done) as finishing:
        progress.update(0, failed.count)

        def see(outcome: Outcome) -> None:
            failed.add(outcome.failures)
            progress.update(len(outcome.slots), len(outcome.failures))
            failed.check(job.options, job.images)
            finishing.look()

        number = len(done)
        while outcomes.next is not None or number < (job.plan.shards if job.plan else 1):
            stop = int(job.plan.bounds[number + 1]) if job.plan else None
            finishing.add(number, shard.write(job, layout.work_shard(number), outcomes.of(number, stop), see))
            number += 1


class _Finishing:
    """Finishes each shard while the next is written, and adds it to those that are done. Use as a context manager."""

    def __init__(self, layout: Layout, done: list[Done]) -> None:
        self._layout, self._done = layout, done
        self._thread = ThreadPoolExecutor(1)
        self._finishing: Future[Done] | None = None

    def add(self, number: int, written: Callable[[], Written]) -> None:
        """Finish one, once the one before it is finished."""
        try:
            self._wait()
        except BaseException:
            with contextlib.suppress(Exception):
                written()  # which closes its file; it is not added
            raise
        self._finishing = self._thread.submit(lambda: checkpoint.save_shard(self._layout, number, *written()))

    def look(self) -> None:
        """Raise what finishing a shard raised, if it has."""
        if self._finishing is not None and self._finishing.done():
            self._wait()

    def _wait(self) -> None:
        if self._finishing is not None:
            self._done.append(self._finishing.result())
            self._finishing = None

    def __enter__(self) -> _Finishing:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        with self._thread, contextlib.suppress(Exception) if kind else contextlib.nullcontext():
            self._wait()


class _Ahead:
    """Outcomes with their shards, of which the next can be looked at before it is taken."""

    def __init__(self, outcomes: Iterator[tuple[int, Outcome]]) -> None:
        self._outcomes = outcomes
        self._seen: list[tuple[int, Outcome] | None] = []

    @property
    def next(self) -> tuple[int, Outcome] | None:
        """The next one; None at the end."""
        if not self._seen:
            self._seen.append(next(self._outcomes, None))
        return self._seen[0]

    def of(self, shard: int, stop: int | None) -> Iterator[Outcome]:
        """Take those of a shard; where it is known before which slot it ends, the next is not waited for."""
        while self.next is not None and self.next[0] == shard:
            outcome = self.next[1]
            self._seen.clear()
            yield outcome
            if outcome.slots[-1] + 1 == stop:
                return


def _numbered(job: Job, outcomes: Iterable[Outcome], first: int) -> Iterator[tuple[int, Outcome]]:
    """Every outcome with its shard; where there is no plan a shard ends before what would make it too large."""
    options, number, records, size = job.options, first, 0, 0
    for outcome in outcomes:
        if job.plan is not None:
            yield job.plan.shard_of(int(outcome.slots[0])), outcome
            continue
        more = sum(map(len, outcome.rows["serialized"]))
        if records and (records + len(outcome.slots) > options.shard_records or size + more > options.shard_bytes):
            number, records, size = number + 1, 0, 0
        records, size = records + len(outcome.slots), size + more
        yield number, outcome


def tensorflow_version() -> str:
    """Which one is installed."""
    import tensorflow as tf

    return str(tf.__version__)
