"""The only composer: source, model and options in; shards and index out.

    read -> decode -> batch -> predict -> encode        one tf.data graph
                                            -> frame, compress, write      Python, while the graph works on

Nothing is joined by position: filename, image and prediction of a record are one element of the graph.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfzip import index, naming, pairing, schema, storage
from tfzip import read as reading
from tfzip.errors import DataError, SourceError, TfzipError, TooManyFailuresError, UsageError
from tfzip.given import Given
from tfzip.job import Job, manifest, prepare
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.progress import Progress
from tfzip.record import UNKNOWN, Failure, Shard
from tfzip.sources import open_source, python
from tfzip.version import __version__
from tfzip.write import ShardWriter

if TYPE_CHECKING:
    from tfzip.pipeline import Outcome, Rows


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
    return _do(prepare(open_source(source, settings), model, settings), layout)


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
    source, likes = python.from_triples(pairing.singly(triples), judged=settings.scores == "auto")
    scores = likes.pop("scores", None)
    given = Given("the predictions", scores=scores, columns=likes, brought=True)
    return _do(prepare(source, None, settings, given), layout)


def _settled(out: str | os.PathLike[str], options: Mapping[str, Any]) -> tuple[Options, Layout]:
    """The options, checked, and a folder that is free."""
    try:
        settings = Options(**options)
    except TypeError as error:
        raise UsageError(f"export: {str(error).partition(') ')[2] or error}") from None
    path = os.fspath(out)
    if not path:
        raise UsageError("--out is empty; give a folder")
    layout = Layout(path, settings.layout, settings.name, settings.split, settings.compression)
    layout.check_free(settings.overwrite)
    return settings, layout


def _do(job: Job, layout: Layout) -> reading.Export | None:
    if job.options.dry_run:
        print(_dry_run(job, layout))
        return None
    _run(job, layout)
    return reading.open(layout.out, job.options.split)


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
            "dry run: nothing was written",
        ]
    )


# The run.


def _run(job: Job, layout: Layout) -> None:
    started = time.time()
    described = schema.schema_text(job.features, job.names)
    layout.begin()
    try:
        shards, failures = _write_shards(job, layout)
        counted = sum(shard.records for shard in shards) + len(failures)
        if job.images not in (None, counted):
            raise TfzipError(f"{job.images} images went in, {counted} came out: this is a fault of tfzip")
        _write_index(job, layout, described, shards, failures)
        _write_run(layout, started, counted)
        layout.publish([shard.file for shard in shards])
    except BaseException:
        layout.abandon()
        raise


def _write_shards(job: Job, layout: Layout) -> tuple[list[Shard], list[Failure]]:
    from tfzip import pipeline  # here, since it imports TensorFlow

    writers: list[ShardWriter] = []
    failures = list(job.source.rejected)
    allowed = job.options.allowed_failures(job.images)
    outcomes = _numbered(job, pipeline.outcomes(job))
    pending = next(outcomes, None)
    with Progress(job.images, quiet=job.options.quiet) as progress:
        progress.update(len(failures), len(failures))
        while pending is not None or len(writers) < (job.plan.shards if job.plan else 1):
            shard, rows = len(writers), []
            with ShardWriter(layout.work_shard(shard), job.options.compression) as writer:
                while pending is not None and pending[0] == shard:
                    outcome = pending[1]
                    writer.write(outcome.rows.pop("serialized"))
                    rows.append(outcome.rows)
                    failures += outcome.failures
                    progress.update(len(outcome.slots), len(outcome.failures))
                    _check_failures(job, failures, allowed)
                    pending = next(outcomes, None)
            _save_rows(job, layout.work_rows(shard), rows, writer)
            writers.append(writer)
    records = sum(writer.records for writer in writers)
    if not records and not failures:
        held = (
            "" if job.options.skip_in is None else f" that {os.fspath(job.options.skip_in)} does not hold (--skip-in)"
        )
        raise SourceError(f"{job.source.name} gave no image{held}")
    if not records:
        raise DataError(f"{job.source.name}: none of its {len(failures)} images gave a record; {_told(failures[0])}")
    _check_failures(job, failures, job.options.allowed_failures(records + len(failures)))
    files = [layout.shard_file(shard, len(writers)) for shard in range(len(writers))]
    shards = [Shard(f, w.records, w.bytes, w.sha256) for f, w in zip(files, writers, strict=True)]
    return shards, failures


def _numbered(job: Job, outcomes: Iterable[Outcome]) -> Iterator[tuple[int, Outcome]]:
    """Every outcome with its shard; where there is no plan a shard ends before what would make it too large."""
    options, shard, records, size = job.options, 0, 0, 0
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


def _save_rows(job: Job, path: str, rows: Sequence[Rows], writer: ShardWriter) -> None:
    """Leave a finished shard's rows for the index."""
    merged: Rows = {"truth": np.full(writer.records, UNKNOWN), "truth_text": np.full(writer.records, b"", object)}
    merged |= {name: np.concatenate([part[name] for part in rows]) for name in rows[0]} if rows else {}
    texts: dict[str, Any] = {
        "filename": merged.get("filename", ()),
        "prediction": merged.get("text", ()),
        "truth_text": merged["truth_text"],
    }
    columns = {name: merged.get(name, np.empty(0, dtype)) for name, dtype in index.COLUMNS.items() if name != "shard"}
    if job.index_scores:
        columns["scores"] = merged.get("scores", np.empty((0, job.task.classes), np.float32))
    index.save_part(path, {**columns, **writer.locations}, texts)


# The index.


def _write_index(
    job: Job, layout: Layout, described: str, shards: Sequence[Shard], failures: Sequence[Failure]
) -> None:
    parts = [layout.work_rows(shard) for shard in range(len(shards))]
    index.write_index(layout.work_index, manifest(job, shards, failures), job.names, described, parts, failures)


def _write_run(layout: Layout, started: float, images: int) -> None:
    """run.json: when, where, how fast, with what."""
    import tensorflow as tf

    seconds = time.time() - started
    run = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
        "host": platform.node(),
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "tfzip": __version__,
    }
    with storage.open(layout.work_run, "w") as file:
        file.write(json.dumps(run, indent=2) + "\n")
