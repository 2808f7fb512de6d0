"""All that is settled before the first image is read: source, model and options made into one job."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfzip import naming, plan, record, storage
from tfzip.errors import UsageError
from tfzip.options import Options
from tfzip.plan import Plan
from tfzip.record import UNKNOWN, Failure, FeatureSpec, Shard
from tfzip.sources import Source
from tfzip.version import __version__

if TYPE_CHECKING:
    from tfzip.evidence import Scale
    from tfzip.predict import Task
    from tfzip.predictor import Predictor

_OVERHEAD = 400  # bytes of a record beside its image and its scores, about
_PIXELS_PER_BATCH = 200_000  # activations of so many pixels stay in a core's cache
_LARGEST_BATCH = 128


@dataclass(frozen=True)
class Job:
    """What an export is to do."""

    options: Options
    source: Source
    predictor: Predictor
    scale: Scale
    prepare: Callable[[Any], Any]
    task: Task
    names: tuple[str, ...]
    names_origin: str
    truths: npt.NDArray[np.int64] | None
    features: Mapping[str, FeatureSpec]
    plan: Plan
    batch_size: int
    parallel: int

    @property
    def index_scores(self) -> bool:
        """Whether the scores are columns of the index."""
        return 0 < self.task.classes <= record.INDEXED_SCORES


def prepare(source: Source, model: Any, options: Options) -> Job:
    """Load the model and settle everything about the export; raises UsageError where that cannot be done."""
    from tfzip import evidence, predict, predictor  # here, since they import TensorFlow

    names = _Names(options.labels, source.truths)
    ready = predictor.load(model, options.signature, options.size, trust=options.trust_model)
    shown = evidence.gather(ready.function, ready.size)
    scale, prepare = _choose_scale(ready, options, shown.scale)
    task = predict.choose_task(
        ready,
        shown.activations,
        task=options.task,
        output=options.output,
        scores=options.scores,
        threshold=options.threshold,
        names=names.of,
    )
    features = {
        **record.image_features(images=options.keeps_image, truth=source.truths is not None),
        **record.prediction_features(task.name, task.classes),
        **predict.output_features(ready, task),
    }
    known = task.names or (names.of(None) if task.name == "raw" else ())
    return Job(
        options=options,
        source=source,
        predictor=ready,
        scale=scale,
        prepare=prepare,
        task=task,
        names=known,
        names_origin=names.origin if known else "none",
        truths=_truth_labels(source.truths, known),
        features=features,
        plan=_plan(source, options, task.classes),
        batch_size=_batch_size(options, ready.size),
        parallel=_cpus() if options.parallel == "auto" else int(options.parallel),
    )


class _Names:
    """The class names: from the labels given, else from the source's own classes where they are as many."""

    def __init__(self, labels: str | os.PathLike[str] | Sequence[str] | None, truths: Sequence[bytes] | None) -> None:
        self._shown = os.fspath(labels) if isinstance(labels, (str, os.PathLike)) else "labels"
        self._names: tuple[str, ...]
        if labels is None:
            classes = {naming.to_text(truth) for truth in truths or () if truth}
            self.origin, self._names = "source", tuple(sorted(classes))
        elif isinstance(labels, (str, os.PathLike)):
            self.origin, self._names = "file", tuple(_read_labels(self._shown))
        else:
            self.origin, self._names = "option", tuple(labels)
            if not all(isinstance(name, str) and "\n" not in name for name in self._names):
                raise UsageError("labels: give one string of one line for each class")

    def of(self, classes: int | None) -> tuple[str, ...]:
        """The names of so many classes (None: of any number); empty if not known, an error if given but not so many."""
        if classes in (None, len(self._names)):
            return self._names
        if self.origin == "source":
            return ()
        raise UsageError(f"{self._shown}: {len(self._names)} labels, but the model has {classes} classes")


def _read_labels(path: str) -> list[str]:
    try:
        with storage.open(path, "r") as file:
            lines = file.read().lstrip("\ufeff").replace("\r\n", "\n").rstrip("\n").split("\n")
            return [line.rstrip("\r") for line in lines]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read labels from it ({error})") from None


def _truth_labels(truths: Sequence[bytes] | None, names: Sequence[str]) -> npt.NDArray[np.int64] | None:
    """The label of each item's truth: its place among the class names, UNKNOWN if it is none of them."""
    if truths is None:
        return None
    labels = {name.encode(): label for label, name in reversed(list(enumerate(names)))}
    texts = {truth: naming.to_text(truth).encode() for truth in set(truths)}
    return np.array([labels.get(texts[truth], UNKNOWN) for truth in truths], np.int64)


def _choose_scale(ready: Predictor, options: Options, shown: Scale | None) -> tuple[Scale, Callable[[Any], Any]]:
    import tensorflow as tf

    from tfzip.evidence import Scale
    from tfzip.predict import rescaler

    if options.preprocess is not None:
        return Scale("raw", "preprocess"), _traced(ready, tf.function(_preprocess(options.preprocess)))
    if options.scale != "auto":
        shown = Scale(options.scale, "option")
    if shown is None:
        raise UsageError(
            f"{ready.name}: cannot tell which pixel values the model was trained on, and wrong ones give wrong labels "
            "in silence.\nSay it: --scale raw (0..255), unit (0..1), symmetric (-1..1), caffe or torch, or --preprocess"
        )
    if shown.name in ("caffe", "torch") and ready.channels != 3:
        raise UsageError(f"--scale {shown.name} is for three channels; the model takes {ready.channels}")
    if shown.name != "raw" and not ready.dtype.is_floating:
        raise UsageError(f"--scale {shown.name}: the model takes {ready.dtype.name} pixels, which are raw")
    return shown, rescaler(shown.name, ready.dtype)


def _preprocess(function: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function of a batch of pixels in 0..255, or one named `package.module:function`."""
    if callable(function):
        return function
    module, _, name = function.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--preprocess {function!r}: use package.module:function ({error})") from None
    if not callable(found):
        raise UsageError(f"--preprocess {function!r}: it is no function")
    return found


def _traced(ready: Predictor, function: Any) -> Any:
    """The user's function as a graph, which must make of a batch of pixels what the model takes."""
    import tensorflow as tf

    wanted = tf.TensorSpec((None, *ready.size, ready.channels), ready.dtype)
    try:
        traced = function.get_concrete_function(wanted)
    except Exception as error:  # tracing runs the user's own code
        raise UsageError(
            f"--preprocess cannot be called on {wanted.shape} {wanted.dtype.name}: {_last_line(error)}"
        ) from error
    made = traced.structured_outputs
    if not (isinstance(made, tf.Tensor) and made.dtype == wanted.dtype and made.shape.is_compatible_with(wanted.shape)):
        shown = f"{made.shape} {made.dtype.name}" if isinstance(made, tf.Tensor) else type(made).__name__
        raise UsageError(f"--preprocess gives {shown}, the model takes {wanted.shape} {wanted.dtype.name}")
    return traced


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _plan(source: Source, options: Options, classes: int) -> Plan:
    order = plan.order(len(source.filenames), options.shuffle, options.limit)
    if options.shards is not None:
        return Plan(order, plan.even_bounds(len(order), options.shards))
    sizes = source.sizes[order] * options.keeps_image + (4 * classes + _OVERHEAD)
    return Plan(order, plan.sized_bounds(sizes, options.shard_bytes, options.shard_records))


def _cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batch_size(options: Options, size: tuple[int, int]) -> int:
    """What was asked for, or the power of two that keeps a batch's pixels within a core's cache."""
    if options.batch_size != "auto":
        return int(options.batch_size)
    fitting = max(1, _PIXELS_PER_BATCH // (size[0] * size[1]))
    return min(_LARGEST_BATCH, 1 << (fitting.bit_length() - 1))


def manifest(job: Job, shards: Sequence[Shard], failures: Sequence[Failure]) -> dict[str, Any]:
    """What manifest.json says (`schemas/manifest.schema.json`); nothing in it depends on when or where."""
    options, ready, task = job.options, job.predictor, job.task
    return {
        "format_version": record.FORMAT_VERSION,
        "tfzip_version": __version__,
        "name": options.name,
        "split": options.split,
        "layout": options.layout,
        "compression": options.compression,
        "counts": {
            "images": len(job.plan.order),
            "records": sum(shard.records for shard in shards),
            "failures": len(failures),
            "ignored": job.source.ignored,
        },
        "source": {"kind": job.source.kind, "labels": options.source_labels},
        "task": task.name,
        "threshold": options.threshold if task.name == "multilabel" else None,
        "labels": {"names": list(job.names), "from": job.names_origin},
        "pixels": {
            "height": ready.size[0],
            "width": ready.size[1],
            "channels": ready.channels,
            "dtype": ready.dtype.name,
            "scale": job.scale.name,
            "scale_from": job.scale.origin,
            "preprocess": _shown_preprocess(options.preprocess),
            "resize": options.resize,
            "interpolation": options.interpolation,
            "exif_orientation": options.exif_orientation,
            "alpha": options.alpha,
        },
        "image": options.image,
        "model": {
            "name": ready.name,
            "format": ready.format,
            "sha256": ready.fingerprint,
            "signature": ready.signature,
            "input": ready.input_name,
            "output": task.output,
            "scores": ("logits" if task.logits else "probabilities") if task.output else None,
        },
        "batch_size": job.batch_size,
        "parallel": job.parallel,
        "shuffle": options.shuffle,
        "limit": options.limit,
        "features": {
            key: {"dtype": spec.dtype, "shape": list(spec.shape)} for key, spec in sorted(job.features.items())
        },
        "shards": [shard._asdict() for shard in shards],
    }


def _shown_preprocess(function: str | Callable[[Any], Any] | None) -> str | None:
    if function is None or isinstance(function, str):
        return function
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
