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
from typing import TYPE_CHECKING, Any

import numpy as np

from tfzip import checkpoint, dataset_info, index, interrupt, naming, pairing, run, schema, storage
from tfzip import read as reading
from tfzip.checkpoint import Done
from tfzip.errors import (
    CorruptError,
    DataError,
    OutputError,
    OutputExistsError,
    SourceError,
    TfzipError,
    TooManyFailuresError,
    UsageError,
)
from tfzip.given import Given
from tfzip.job import Job, manifest, prepare
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.progress import Progress
from tfzip.record import UNKNOWN, Failure, Shard
from tfzip.report import check_installed, report
from tfzip.sources import Listed, Stream, open_source, python
from tfzip.write import ShardWriter

if TYPE_CHECKING:
    from tfzip.outcome import Outcome, Rows
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
    settings, layout = _settled(out, options)
    return _do(layout, settings, lambda: (open_source(source, settings), model, None))


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
    settings, layout = _settled(out, options)

    def opened() -> tuple[Stream, None, Given]:
        source, likes = python.from_triples(pairing.singly(triples), judged=settings.scores == "auto")
        scores = likes.pop("scores", None)
        return source, None, Given("the predictions", scores=scores, columns=likes, brought=True)

    return _do(layout, settings, opened)


def _settled(out: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[Options, Layout]:
    """The options, checked, and the folder."""
    try:
        settings = Options(**options)
    except TypeError as error:
        raise UsageError(f"export: {str(error).partition(') ')[2] or error}") from None
    path = os.fspath(out)
    if not path:
        raise UsageError("--out is empty; give a folder")
    return settings, Layout(path, settings.layout, settings.name, settings.split, settings.compression)


def _do(
    layout: Layout, options: Options, opened: Callable[[], tuple[Listed | Stream, Any, Given | None]]
) -> reading.Export | None:
    """Do what is asked for, or only say what would be done; `opened` gives source, model and predictions."""
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
            _run(layout, *_settled_job(layout, options, *parts))
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
        is_this = checkpoint.is_of(layout, prepare(source, model, options, given))
    except CorruptError:  # of the plan there; the export itself is whole
        is_this = False
    layout.tidy_up()
    return is_this


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
    described = schema.schema_text(job.features, job.names)
    dataset_info.load()
    try:
        if not layout.is_unfinished:
            checkpoint.begin(layout, job)
        before = sum(shard.slots for shard in done)
        shards, failures = _write_shards(job, layout, done)
        formats = sorted({name for shard in done for name in shard.formats})
        counted = sum(shard.records for shard in shards) + len(failures)
        if job.images not in (None, counted):
            raise TfzipError(f"{job.images} images went in, {counted} came out: this is a fault of tfzip")
        _write_index(job, layout, described, shards, failures, formats)
        tried = [trial._asdict() for trial in trials]
        version = _tensorflow_version()
        run.write(layout.work_run, started, counted - before, tried, job.used_devices, tensorflow=version)
        layout.publish([shard.file for shard in shards])
    except BaseException as error:
        may_go_on = not isinstance(error, UsageError)  # else another call has to be made
        told = _told_how_to_go_on(error, layout, may_go_on and any(shard.records for shard in done))
        if told is error:
            raise
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


def _write_shards(job: Job, layout: Layout, done: list[Done]) -> tuple[list[Shard], list[Failure]]:
    """Write the shards that are not done yet, and add them; all of them, and all failures."""
    from tfzip import pipeline  # here, since it imports TensorFlow

    failures = [*job.source.rejected, *(failure for shard in done for failure in shard.failures)]
    outcomes = _Ahead(_numbered(job, pipeline.outcomes(job, done), first=len(done)))
    finished = sum(shard.slots for shard in done) + len(job.source.rejected)
    with Progress(job.images, quiet=job.options.quiet, done=finished) as progress:
        progress.update(0, len(failures))
        while outcomes.next is not None or len(done) < (job.plan.shards if job.plan else 1):
            done.append(_write_shard(job, layout, len(done), outcomes, failures, progress))
    records = sum(shard.records for shard in done)
    if not records and not failures:
        held = (
            "" if job.options.skip_in is None else f" that {os.fspath(job.options.skip_in)} does not hold (--skip-in)"
        )
        raise SourceError(f"{job.source.name} gave no image{held}")
    if not records:
        raise DataError(f"{job.source.name}: none of its {len(failures)} images gave a record; {_told(failures[0])}")
    _check_failures(job, failures, job.options.allowed_failures(records + len(failures)))
    files = [layout.shard_file(shard, len(done)) for shard in range(len(done))]
    return [Shard(f, d.records, d.bytes, d.sha256) for f, d in zip(files, done, strict=True)], failures


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


def _write_shard(
    job: Job, layout: Layout, shard: int, outcomes: _Ahead, failures: list[Failure], progress: Progress
) -> Done:
    """Write one shard, adding to the failures."""
    rows, slots, earlier = [], 0, len(failures)
    formats: set[bytes] = set()
    stop = int(job.plan.bounds[shard + 1]) if job.plan else None
    allowed = job.options.allowed_failures(job.images)
    with ShardWriter(layout.work_shard(shard), job.options.compression) as writer:
        for outcome in outcomes.of(shard, stop):
            writer.write(outcome.rows.pop("serialized"))
            formats.update(outcome.rows.pop("format").tolist())
            rows.append(outcome.rows)
            slots += len(outcome.slots)
            failures += outcome.failures
            progress.update(len(outcome.slots), len(outcome.failures))
            _check_failures(job, failures, allowed)
    job.source.check()
    notes = {
        "records": writer.records,
        "bytes": writer.bytes,
        "sha256": writer.sha256,
        "slots": slots,
        "failures": failures[earlier:],
        "formats": sorted(name.decode() for name in formats),
    }
    columns, texts = _rows(job, rows, writer.records)
    return checkpoint.save_shard(layout, shard, notes, {**columns, **writer.locations}, texts)


def _numbered(job: Job, outcomes: Iterable[Outcome], first: int) -> Iterator[tuple[int, Outcome]]:
    """Every outcome with its shard; where there is no plan a shard ends before what would make it too large."""
    options, shard, records, size = job.options, first, 0, 0
    for outcome in outcomes:
        if job.plan is not None:
            yield job.plan.shard_of(int(outcome.slots[0])), outcome
            continue
        more = sum(map(len, outcome.rows["serialized"]))
        if records and (records + len(outcome.slots) > options.shard_records or size + more > options.shard_bytes):
            shard, records, size = shard + 1, 0, 0
        records, size = records + len(outcome.slots), size + more
        yield shard, outcome


def _check_failures(job: Job, failures: Sequence[Failure], allowed: int | None) -> None:
    if failures and job.options.on_error == "fail":
        raise DataError(f"{_told(failures[0])} (--on-error quarantine lists such images and goes on)")
    if allowed is not None and len(failures) > allowed:
        asked = job.options.max_failures
        raise TooManyFailuresError(f"{len(failures)} failed, --max-failures is {asked}; {_told(failures[-1])}")


def _told(failure: Failure) -> str:
    return f"{naming.shown(failure.filename)}: {failure.stage}: {failure.error}"


def _rows(job: Job, rows: Sequence[Rows], records: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The columns and texts of a finished shard, for the index and for whoever goes on after it."""
    merged: Rows = {"truth": np.full(records, UNKNOWN), "truth_text": np.full(records, b"", object)}
    merged |= {name: np.concatenate([part[name] for part in rows]) for name in rows[0]} if rows else {}
    texts: dict[str, Any] = {
        "filename": merged.get("filename", ()),
        "prediction": merged.get("text", ()),
        "truth_text": merged["truth_text"],
    }
    columns = {name: merged.get(name, np.empty(0, dtype)) for name, dtype in index.COLUMNS.items() if name != "shard"}
    if job.index_scores:
        columns["scores"] = merged.get("scores", np.empty((0, job.task.classes), np.float32))
    noted = ("slot", "hash") if isinstance(job.source, Stream) else ("slot",)
    columns |= {name: merged.get(name, np.empty(0, np.int64)) for name in noted}
    return columns, texts


# The index.


def _write_index(
    job: Job,
    layout: Layout,
    described: str,
    shards: Sequence[Shard],
    failures: Sequence[Failure],
    formats: Sequence[str],
) -> None:
    parts = [layout.work_rows(shard) for shard in range(len(shards))]
    nonfinite = sum(int(index.Part(part, shard).column("nonfinite").sum()) for shard, part in enumerate(parts))
    facts = manifest(job, shards, failures, nonfinite, formats)
    facts["tfds"] = layout.keep_for_tfds(facts)
    index.write_index(layout.work_index, facts, job.names, described, parts, failures)


def _tensorflow_version() -> str:
    import tensorflow as tf

    return str(tf.__version__)
