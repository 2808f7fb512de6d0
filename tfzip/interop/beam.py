"""Exports on Apache Beam: each shard is a piece of work, for any runner.

    export = tfzip.interop.beam.export("photos/", "classifier.keras", "labelled/", runner_options=["--runner=..."])

The pipeline is one chain without side inputs, so that every runner can run it. What it writes is, byte for byte, what
`tfzip.export` writes by the same plan.
"""

from __future__ import annotations

import contextlib
import os
import platform
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfzip import handout, process, spread, worker
from tfzip import read as reading
from tfzip.errors import SourceError, TfzipError, UsageError
from tfzip.export import carry_out, raise_told, settled, tensorflow_version
from tfzip.given import Given
from tfzip.handout import Did, Task
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.progress import Progress
from tfzip.sources import Listed, Stream, open_source
from tfzip.spread import Spread

try:
    import apache_beam as beam
    from apache_beam.metrics import Metrics, MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
except ImportError as error:
    raise ImportError(f"Apache Beam is missing ({error}): pip install 'tfzip[beam]'") from None

NAMESPACE = "tfzip"
"""Of the counters, which count what workers do: `shards`, `records`, `failures`, `bytes`, `milliseconds`."""

_COUNTERS = ("shards", *Did._fields[1:])
_NOTHING = -1
"""In place of a shard where all are done, so that the chain has something to end with."""
_PATHS = {"DaskRunner": "apache_beam.runners.dask.dask_runner.DaskRunner"}
"""Of runners that Beam does not know by their names alone."""
_FN_API_RUNNERS = ("FnApiRunner", "DirectRunner", "SwitchingDirectRunner", "BundleBasedDirectRunner")
"""The local runners, which are, or may hand on to, that one."""
_EVERY = 1.0  # seconds between looks at what is finished


def export(
    source: str | os.PathLike[str],
    model: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    runner_options: Sequence[str] | PipelineOptions = (),
    **options: Any,
) -> reading.Export | None:
    """Run a model over images on a Beam runner, and write an export.

    Args:
        source: a folder, a glob, a list, a table, `tfrecord:GLOB` of uncompressed files, or `tfds:NAME`.
        model: what workers load: a path, `keras:NAME`, or `package.module:callable`.
        out: the folder to write, which all workers must reach, as they must source and model.
        runner_options: those of Beam and its runner, `--runner=...` among them; without that Beam's FnApiRunner runs
            it here, in this process unless its options say otherwise.
        **options: those of `tfzip.export`.

    Returns and raises what `tfzip.export` does.
    """
    settings, layout = _settled(source, model, out, options)
    given = runner_options if isinstance(runner_options, PipelineOptions) else PipelineOptions([*runner_options])

    def make(layout: Layout, options: Options, source: Listed | Stream, model: Any, _: Given | None) -> None:
        started, pipeline = time.time(), _pipeline(given)
        planned = spread.begin(layout, options, source, model)
        ran = {"started": started, "before": planned.done, "trials": [trial._asdict() for trial in planned.trials]}
        try:
            counted = _run(pipeline, planned)
            runner = type(pipeline.runner).__name__
            spread.end(planned, {**ran, **_told(), "runner": runner, "counters": counted})
        except BaseException as error:
            raise_told(error, layout, layout.has_finished_shards)

    return carry_out(layout, settings, lambda: (spread.handable(open_source(source, settings)), model, None), make)


class WriteExport(beam.PTransform):  # type: ignore[misc] # Beam's types are not looked at
    """An export as a part of a pipeline: applied to its begin, it gives the path of the export, once that is finished.

    The source is listed, and the model loaded, when it is applied.

    Args:
        source: as for `export`.
        model: likewise.
        out: likewise.
        **options: likewise.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        model: str | os.PathLike[str],
        out: str | os.PathLike[str],
        **options: Any,
    ) -> None:
        super().__init__()
        self._source, self._model = source, model
        self._options, self._layout = _settled(source, model, out, options)
        if self._options.dry_run or self._options.report:
            raise UsageError("WriteExport writes an export and nothing else: leave dry_run and report out")

    def expand(self, begin: Any) -> Any:
        """Plan it, and add the chain."""
        layout, options = self._layout, self._options
        layout.check_free(options.overwrite)
        started = time.time()
        with layout.claimed():
            if layout.is_published:
                layout.tidy_up()
            layout.check_free(options.overwrite)  # again: another may have finished meanwhile
            planned = spread.begin(layout, options, open_source(self._source, options), self._model)
        ran = {"started": started, "before": planned.done, "trials": [trial._asdict() for trial in planned.trials]}
        return (
            _written(begin, planned, sets_up=False)
            | "Pair" >> beam.Map(lambda did: (None, did))
            | "Gather" >> beam.GroupByKey()
            | "Finish" >> beam.Map(_finished, planned.task, ran)
        )


def _settled(source: Any, model: Any, out: Any, options: dict[str, Any]) -> tuple[Options, Layout]:
    settings, layout = settled(out, {**options, "engine": "beam"})
    if not isinstance(source, (str, os.PathLike)):
        raise SourceError(f"workers cannot be handed a {type(source).__name__}: give the path of a source")
    spread.check(model, settings)
    return settings, layout


# The chain.


def _written(begin: Any, planned: Spread, *, sets_up: bool) -> Any:
    return (
        begin
        | "Shards" >> beam.Create([*planned.left] or [_NOTHING])
        | "Spread" >> beam.Reshuffle()
        | "Write" >> beam.ParDo(_Write(planned.task, sets_up=sets_up))
    )


class _Write(beam.DoFn):  # type: ignore[misc]
    """Writes one shard; if it `sets_up` TensorFlow, that is in processes that were started to do this."""

    def __init__(self, task: Task, *, sets_up: bool) -> None:
        self._task, self._sets_up = task, sets_up
        self._planner = platform.node(), os.getpid()
        self._counters = {name: Metrics.counter(NAMESPACE, name) for name in _COUNTERS}

    def setup(self) -> None:
        if self._sets_up and self._planner != (platform.node(), os.getpid()):
            process.set_up(quiet=True)

    def process(self, number: int) -> Iterator[tuple[int, ...]]:
        if number == _NOTHING:
            yield (number,)
            return
        did = worker.do(self._task, number)
        counts = {**did._asdict(), "shards": int(did.milliseconds > 0)}
        for name, counter in self._counters.items():
            counter.inc(counts[name])
        yield tuple(did)


def _finished(_: tuple[None, Iterable[Any]], task: Task, ran: dict[str, Any]) -> str:
    return spread.end_elsewhere(task, {**ran, **_told()})


def _told() -> dict[str, str]:
    """What run.json is told of whatever ran it."""
    return {"engine": "beam", "tensorflow": tensorflow_version(), "apache_beam": beam.__version__}


# Running it.


def _pipeline(options: PipelineOptions) -> beam.Pipeline:
    """An empty one, for the runner that is asked for; UsageError if there is none."""
    name = options.view_as(StandardOptions).runner or "FnApiRunner"
    try:
        pipeline = beam.Pipeline(runner=_PATHS.get(name, name), options=options)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--runner={name}: {_last_line(error)}") from None
    if type(pipeline.runner).__name__ == "DaskRunner":
        _let_dask_spread(options)
    return pipeline


def _run(pipeline: beam.Pipeline, planned: Spread) -> dict[str, int]:
    """Run it to its end; what its counters say, where the runner has any."""
    _ = _written(pipeline, planned, sets_up=True)
    with _progress(planned), worker.at_hand(planned.task, planned.job):
        try:
            result = _ended(pipeline)
        except Exception as error:  # whatever the runner, and what it wraps, raises
            handout.raise_noted(planned.task)
            raise TfzipError(f"the pipeline failed: {_last_line(error)}") from error
    return _counted(result)


def _ended(pipeline: beam.Pipeline) -> Any:
    """Run it to its end.

    FnApiRunner would wait for ever for a worker process that has died: the thread that looks after it tells, and that
    is taken for the end.
    """
    if type(pipeline.runner).__name__ not in _FN_API_RUNNERS:
        result = pipeline.run()
        result.wait_until_finish()
        return result
    ends: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            ends.put((pipeline.run(), None))
        except BaseException as error:
            ends.put((None, error))

    def tell(died: threading.ExceptHookArgs) -> None:
        if died.thread is not None and died.thread.name == "run_worker":
            ends.put((None, died.exc_value))
        else:
            usual(died)

    usual, threading.excepthook = threading.excepthook, tell
    threading.Thread(target=run, daemon=True).start()
    try:
        result, error = ends.get()
    finally:
        threading.excepthook = usual
    if error is not None:
        raise error
    return result


def _let_dask_spread(options: PipelineOptions) -> None:
    """Have each shard be a task of its own, unless it is said otherwise: 128 would be one, and so one worker's."""
    from apache_beam.runners.dask.dask_runner import DaskOptions  # which needs Dask

    asked = options.view_as(DaskOptions)
    if not (asked.npartitions or asked.partition_size):
        asked.partition_size = 1


@contextlib.contextmanager
def _progress(planned: Spread) -> Iterator[None]:
    """Show meanwhile how many images are in shards that are finished: what any runner lets see."""
    done, quiet = threading.Event(), planned.task.options.quiet
    rejected = len(planned.listing.source.rejected)
    with Progress(planned.listing.images, quiet=quiet, done=planned.done + rejected) as progress:

        def watch() -> None:
            for images, failures in spread.watch(planned, lambda: done.wait(_EVERY)):
                progress.update(images, failures)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            done.set()
            watching.join()


def _counted(result: Any) -> dict[str, int]:
    """What workers counted; nothing where the runner does not tell."""
    try:
        counters = result.metrics().query(MetricsFilter().with_namespace(NAMESPACE))["counters"]
    except NotImplementedError:
        return {}
    return {each.key.metric.name: int(each.result) for each in counters}


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
