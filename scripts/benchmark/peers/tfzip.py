"""tfzip itself, in a process set up as its command line sets it up; and its graph alone, as a limit."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from benchmark.work import Work

PACKAGES = ("tfzip", "tensorflow", "keras", "isal")


def _tfzip() -> Any:
    from tfzip import process

    process.set_up(quiet=True)
    import tfzip
    from tfzip import dataset_info, pipeline  # noqa: F401 # TensorFlow and more: the others have imported theirs, too

    dataset_info.load()
    return tfzip


def _model(work: Work) -> Any:
    import keras

    return keras.models.load_model(work.model)


# Whole exports.


def export(work: Work) -> Callable[[], Any]:
    """The whole export."""
    tfzip, model = _tfzip(), _model(work)
    return lambda: tfzip.export(work.images, model, work.out, quiet=True)


def export_by_path(work: Work) -> Callable[[], Any]:
    """The same of a model that is loaded then, which takes its time too."""
    tfzip = _tfzip()
    return lambda: tfzip.export(work.images, work.model, work.out, quiet=True)


def export_on_beam(work: Work) -> Callable[[], Any]:
    """That on Beam, in this process."""
    _tfzip()
    from tfzip.interop import beam

    return lambda: beam.export(work.images, work.model, work.out, quiet=True)


def limit(work: Work) -> Callable[[], Any]:
    """The graph of an export in the same batches, as many at a time: read, decode, resize, predict, and no more."""
    _tfzip()
    batches = _graph(work.images, _model(work))

    def run() -> None:
        for _ in batches:
            pass

    return run


def _graph(source: str, model: Any) -> Any:
    """The dataset inside an export, without its encoding: alone in using tfzip's insides, which may change."""
    from tfzip import job, options, pipeline, record, sources, tuning

    settings = options.Options(quiet=True)
    tuned, _ = tuning.tune(job.prepare(sources.open_source(source, settings), model, settings))
    stages = pipeline.Stages(tuned, only_usual=True)
    stages._encode = lambda batch: {"scores": batch[record.SCORES]}
    return stages.dataset()


# Predictions that are given.


def write_paths(work: Work) -> Callable[[], Any]:
    """`tfzip.zip` of arrays and lists."""
    tfzip = _tfzip()
    scores, files = work.scores, work.files
    names = [path.rsplit("/", 1)[-1] for path in files]
    return lambda: tfzip.write(tfzip.zip(scores, names, files), work.out, quiet=True)


def write_bytes(work: Work) -> Callable[[], Any]:
    """`tfzip.write` of what a loop reads, as the loops of the peers do."""
    tfzip = _tfzip()
    return lambda: tfzip.write(((scores, name, image) for name, image, scores in work.samples()), work.out, quiet=True)


def export_given(work: Work, compression: str = "gzip") -> Callable[[], Any]:
    """`tfzip.export` with a file of predictions."""
    tfzip = _tfzip()
    given = {"predictions": work.predictions, "compression": compression, "quiet": True}
    return lambda: tfzip.export(work.images, None, work.out, **given)


def export_given_uncompressed(work: Work) -> Callable[[], Any]:
    """The same with `compression="none"`."""
    return export_given(work, "none")


def join(work: Work, compression: str = "none") -> Callable[[], Any]:
    """Predictions joined to the records of a TFRecord file."""
    tfzip = _tfzip()
    given = {"predictions": work.predictions, "compression": compression, "quiet": True}
    return lambda: tfzip.export(f"tfrecord:{work.records}", None, work.out, **given)


def join_gzip(work: Work) -> Callable[[], Any]:
    """The same with gzip."""
    return join(work, "gzip")


# Reading.


def get_by_row(work: Work) -> Callable[[], Any]:
    """Every record once, at random."""
    export = written(work)
    return _getting(export, random.Random(0).sample(range(len(export)), len(export)))


def get_by_filename(work: Work) -> Callable[[], Any]:
    """The same by filename."""
    export = written(work)
    names = [path.rsplit("/", 1)[-1] for path in work.files]
    return _getting(export, random.Random(0).sample(names, len(names)))


def written(work: Work) -> Any:
    """An export of the predictions that are given, opened."""
    export_given(work)()
    return _tfzip().open(work.out)


def _getting(export: Any, keys: list[Any]) -> Callable[[], Any]:
    def run() -> None:
        for key in keys:
            record = export[key]
            assert record.encoded
            assert len(record.prediction.scores) == 1000

    return run


def read(work: Work) -> Callable[[], Any]:
    """All records, in batches, parsed."""
    export = written(work)

    def run() -> None:
        for _ in export.dataset(batch_size=64):
            pass

    return run
