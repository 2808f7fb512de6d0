"""All that is settled before the first image is read: source, model and options made into one job."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tfzip import given, interrupt, plan, record
from tfzip.errors import UsageError
from tfzip.labels import ClassNames
from tfzip.options import MOST_SHARDS, Options, flag
from tfzip.plan import Plan, Positions
from tfzip.record import FeatureSpec, Shard
from tfzip.sources import Listed, Stream
from tfzip.version import __version__

if TYPE_CHECKING:
    from tfzip.evidence import Scale
    from tfzip.predictor import Predictor
    from tfzip.tasks import Task

_OVERHEAD = 400  # bytes of a record beside its image and its scores, about
_PIXELS_PER_BATCH = 200_000  # activations of so many pixels stay in a core's cache
_PIXELS_PER_GPU_BATCH = 32 * _PIXELS_PER_BATCH
LARGEST_BATCH = 128
_USUAL_SIZE = (224, 224)  # of a model that does not say


@dataclass(frozen=True)
class Job:
    """What an export is to do."""

    options: Options
    source: Listed | Stream
    predictor: Predictor
    scale: Scale | None  # None for a model that takes the images' bytes
    prepare: Callable[[Any], Any]
    given: given.Given | None  # in place of a model
    task: Task
    names: tuple[str, ...]
    names_origin: str
    predicted: Mapping[str, FeatureSpec]
    written: Mapping[str, FeatureSpec]
    carried: Mapping[str, FeatureSpec]
    plan: Plan | None
    batch_size: int
    parallel: int
    devices: tuple[str, ...] = ()  # that the model runs on, beside the graph
    expected: int | None = None  # images of the whole export, where this is a sample of it

    @property
    def images(self) -> int | None:
        """How many images there are to do, those that the source rejects included; None if only the end tells."""
        if self.expected is not None:
            return self.expected
        if isinstance(self.source, Stream):
            count, limit = self.source.count, self.options.limit
            if count is None:
                return None
            return min(count, limit or count) + len(self.source.rejected)
        return len(self.plan.order if self.plan else ()) + len(self.source.rejected)

    def positions(self, slots: Positions) -> Positions:
        """The positions in the whole source of the items of slots."""
        if self.plan is None:
            return slots
        rows, source = self.plan.rows(slots), self.source
        return rows if isinstance(source, Stream) or source.places is None else source.places[rows]

    @property
    def used_devices(self) -> tuple[str, ...]:
        """The devices that there is work for: several cannot share variables."""
        return self.devices if self.predictor.frozen else self.devices[:1]

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """Of every record: those written, and those that items bring."""
        return {**self.carried, **self.written}

    @property
    def reparsed(self) -> Mapping[str, FeatureSpec] | None:
        """What is kept of the Examples that items bring, if not all of it is."""
        brought = self.source.carried
        whole = brought is None or (brought.whole and brought.features == self.carried)
        return None if whole else self.carried

    @property
    def image_key(self) -> str:
        """The feature that holds the image."""
        return record.ENCODED if self.source.carried is None else self.source.carried.image_key

    @property
    def index_scores(self) -> bool:
        """Whether the scores are columns of the index."""
        return 0 < self.task.classes <= record.INDEXED_SCORES


def prepare(
    source: Listed | Stream, model: Any, options: Options, brought: given.Given | None = None, *, planned: bool = True
) -> Job:
    """Load the model, unless it is ready, or the predictions, and settle everything about the export.

    If it is not to be `planned`, it stays open which items go to which shard.

    Raises UsageError where that cannot be done.
    """
    if model is not None and options.predictions is not None:
        raise UsageError("--model and --predictions: give one of them")
    if model is None and options.predictions is None and brought is None:
        raise UsageError("give a --model, or --predictions made elsewhere")
    if options.allow_partial and options.predictions is None:
        raise UsageError("--allow-partial has no effect: it is for --predictions")
    forecast = _from_model(source, model, options) if model is not None else _from_given(source, options, brought)
    task, names = forecast.task, forecast.names
    written, carried = _features(source, options, forecast.features, task.name)
    known = task.names or (names.any() if task.name == "raw" else ())
    return Job(
        options=options,
        source=source,
        predictor=forecast.predictor,
        scale=forecast.scale,
        prepare=forecast.prepare,
        given=forecast.given,
        task=task,
        names=known,
        names_origin=names.origin(known),
        predicted=forecast.features,
        written=written,
        carried=carried,
        plan=_plan(source, options, task.classes) if planned else None,
        devices=forecast.devices,
        batch_size=_batch_size(options, forecast, isinstance(source, Stream)),
        parallel=_cpus() if options.parallel == "auto" else int(options.parallel),
    )


class _Forecast(NamedTuple):
    """What predicts, and what is known of it."""

    predictor: Predictor
    scale: Scale | None
    prepare: Callable[[Any], Any]
    given: given.Given | None
    task: Task
    features: dict[str, FeatureSpec]
    names: ClassNames
    devices: tuple[str, ...] = ()


def load(model: Any, options: Options, fingerprint: str | None = None, device: str = "CPU:0") -> Predictor:
    """The model made ready, as the options say; ModelError if it has another fingerprint than one given."""
    from tfzip import predictor

    return predictor.load(
        model,
        options.signature,
        options.size,
        trust=options.trust_model,
        imports=options.imports or (),
        weights=options.weights,
        fingerprint=fingerprint,
        device=device,
    )


@interrupt.put_off()
def _from_model(source: Listed | Stream, model: Any, options: Options) -> _Forecast:
    from tfzip import devices, evidence, predictor, tasks  # here, since they import TensorFlow

    chosen = devices.choose(options.devices)
    ready = model if isinstance(model, predictor.Predictor) else load(model, options, device=(*chosen, "CPU:0")[0])
    names = ClassNames(options.labels, ready.labels, source.classes or ())
    shown = evidence.gather(ready.function, ready.input.size)
    scale, prepare = _choose_scale(ready, options, shown.scale)
    task = tasks.choose_task(
        ready,
        shown.activations,
        task=options.task,
        output=options.output,
        scores=options.scores,
        threshold=options.threshold,
        min_score=options.min_score,
        names=names,
    )
    _refuse_idle(options, ready, task)
    predicted = {**record.prediction_features(task.name, task.classes), **tasks.output_features(ready, task)}
    return _Forecast(ready, scale, prepare, None, task, predicted, names, chosen)


def _from_given(source: Listed | Stream, options: Options, brought: given.Given | None) -> _Forecast:
    from tfzip import join  # here, since it imports TensorFlow

    predictions = brought if brought is not None else given.load(str(options.predictions))
    join.check(predictions, source, partial=options.allow_partial, skipping=options.skip_in is not None)
    names = ClassNames(options.labels, predictions.names, source.classes or ())
    task = join.settle(predictions, task=options.task, scores=options.scores, threshold=options.threshold, names=names)
    ready = join.as_predictor(predictions)
    _refuse_idle(options, ready, task)
    return _Forecast(ready, None, lambda pixels: pixels, predictions, task, join.features(predictions, task), names)


_OF_MODELS = ("signature", "output", "image_size", "weights", "imports", "trust_model", "devices", "runtime")
_OF_PIXELS = ("scale", "preprocess", "resize", "interpolation", "fast_jpeg")
_OF_DECODING = ("alpha", "exif_orientation")


def _refuse_idle(options: Options, ready: Predictor, task: Task) -> None:
    """Options without effect on this model and task are refused: who gives them expects one."""
    idle, made = {}, ready.input.takes == "predictions"
    if task.name != "multilabel":
        idle["threshold"] = f"it is for multilabel, the task is {task.name}"
    if task.name != "detection":
        idle["min_score"] = f"it is for detection, the task is {task.name}"
    if task.name == "raw":
        idle["output"] = "the task raw keeps every output"
    if not task.classes:
        idle["scores"] = f"{ready.name} holds labels" if made else f"the task {task.name} keeps what the model gives"
    if ready.input.takes != "pixels":
        bytes_taken = f"{ready.name} takes the images' bytes ({ready.input.name}) and decodes them itself"
        unused = _OF_PIXELS + (_OF_MODELS if made else ()) + (() if options.reencode else _OF_DECODING)
        idle |= dict.fromkeys(unused, "the predictions are made already" if made else bytes_taken)
    for name, reason in idle.items():
        if getattr(options, name) != getattr(Options, name):
            raise UsageError(f"{flag(name)} has no effect here: {reason}")
    if task.name == "detection" and options.resize != "stretch":
        raise UsageError(f"--resize {options.resize}: boxes are told in the whole image, so use stretch for detection")


def _choose_scale(ready: Predictor, options: Options, shown: Scale | None) -> tuple[Scale | None, Callable[[Any], Any]]:
    """The scale of the pixels and what makes it; None for a model that takes the images' bytes."""
    import tensorflow as tf

    from tfzip.evidence import Scale
    from tfzip.predict import rescaler

    if ready.input.takes != "pixels":
        return None, lambda encoded: encoded
    if options.preprocess is not None:
        return Scale("raw", "preprocess"), _traced(ready, tf.function(_preprocess(options.preprocess)))
    if options.scale != "auto":
        shown = Scale(options.scale, "option")
    if shown is None:
        raise UsageError(
            f"{ready.name}: cannot tell which pixel values the model was trained on, and wrong ones give wrong labels "
            "in silence.\nSay it: --scale raw (0..255), unit (0..1), symmetric (-1..1), caffe or torch, or --preprocess"
        )
    if shown.name in ("caffe", "torch") and ready.input.channels != 3:
        raise UsageError(f"--scale {shown.name} is for three channels; the model takes {ready.input.channels}")
    if shown.name != "raw" and not ready.input.dtype.is_floating:
        raise UsageError(f"--scale {shown.name}: the model takes {ready.input.dtype.name} pixels, which are raw")
    return shown, rescaler(shown.name, ready.input.dtype)


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

    wanted = ready.input.spec
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


def _features(
    source: Listed | Stream, options: Options, predicted: Mapping[str, FeatureSpec], task: str
) -> tuple[dict[str, FeatureSpec], dict[str, FeatureSpec]]:
    """The features that are written, and those that items bring and keep: no part of another prediction of the task."""
    own = record.image_features(images=options.keeps_image, truth=source.classes is not None)
    brought = source.carried
    if brought is None:
        return {**source.features, **own, **predicted}, {}
    kept = dict(brought.features)
    if options.image == "keep":
        own.pop(record.ENCODED)
    else:
        kept.pop(brought.image_key)
    anew = {record.TRUTH_LABEL, record.TRUTH_TEXT}  # what is written though an item has it
    if brought.filename_key != record.FILENAME:
        anew.add(record.FILENAME)
    if options.reencode:
        anew |= {record.FORMAT, record.HEIGHT, record.WIDTH}
    there = {key for key, spec in own.items() if kept.get(key) == spec} - anew
    written = {**{key: spec for key, spec in own.items() if key not in there}, **predicted}
    left = {*written, *record.prediction_features(task, 0)}
    return written, {key: spec for key, spec in kept.items() if key not in left}


def _plan(source: Listed | Stream, options: Options, classes: int) -> Plan | None:
    if isinstance(source, Stream):
        for option in ("shuffle", "shards"):
            if getattr(options, option) is not None:
                raise UsageError(f"--{option}: {source.name} can only be read from its start to its end")
        return None
    order = plan.order(len(source.filenames), options.shuffle, options.limit)
    return Plan(order, bounds(source, order, len(order), options, classes))


def bounds(source: Listed, order: Positions | None, count: int, options: Options, classes: int) -> Positions:
    """Where each shard begins, as in a `Plan`, of so many records with scores of so many classes.

    An order that is None is that of the source.
    """
    if options.shards is not None:
        for option in ("shard_size", "shard_records"):
            if getattr(options, option) != getattr(Options, option):
                raise UsageError(f"--shards and {flag(option)}: give one of them")
        return plan.even_bounds(count, options.shards)

    def sizes(some: slice) -> Positions:
        return source.sizes[some if order is None else order[some]] * options.keeps_image + (4 * classes + _OVERHEAD)

    made = plan.sized_bounds(sizes, count, options.shard_bytes, options.shard_records)
    if (shards := len(made) - 1) > MOST_SHARDS:
        raise UsageError(f"{shards} shards, {MOST_SHARDS} can be: give a larger --shard-size or --shard-records")
    return made


def _cpus() -> int:
    """The CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batch_size(options: Options, forecast: _Forecast, streamed: bool) -> int:
    """What was asked for, or the power of two that keeps a batch's pixels within a core's cache, or a GPU busy."""
    given = forecast.predictor.input
    if given.batch is not None:
        if options.batch_size not in ("auto", given.batch):
            raise UsageError(f"--batch-size {options.batch_size}: the model takes batches of {given.batch} only")
        return given.batch
    if options.batch_size != "auto":
        return int(options.batch_size)
    largest = min(LARGEST_BATCH, options.shard_records) if streamed else LARGEST_BATCH  # a batch lies in one shard
    if given.takes == "predictions":
        return largest
    height, width = given.size or _USUAL_SIZE
    on_gpu = any(name.startswith("GPU") for name in forecast.devices)
    fitting = max(1, (_PIXELS_PER_GPU_BATCH if on_gpu else _PIXELS_PER_BATCH) // (height * width))
    return min(largest, 1 << (fitting.bit_length() - 1))


def manifest(
    job: Job, shards: Sequence[Shard], failures: int, nonfinite: int, formats: Sequence[str]
) -> dict[str, Any]:
    """What manifest.json says (`schemas/manifest.schema.json`); nothing in it depends on when or where.

    `failures` is how many images failed, `nonfinite` how many records have a prediction that is not finite; `formats`
    are those of the images.
    """
    options, ready, task = job.options, job.predictor, job.task
    return {
        "format_version": record.FORMAT_VERSION,
        "tfzip_version": __version__,
        "name": options.name,
        "split": options.split,
        "layout": options.layout,
        "compression": options.compression,
        "counts": {
            "images": sum(shard.records for shard in shards) + failures,
            "records": sum(shard.records for shard in shards),
            "failures": failures,
            "ignored": job.source.ignored,
            "nonfinite": nonfinite,
        },
        "source": {"kind": job.source.kind, "labels": options.source_labels},
        "task": task.name,
        "threshold": task.threshold if task.name == "multilabel" else None,
        "min_score": task.threshold if task.name == "detection" else None,
        "labels": {"names": list(job.names), "from": job.names_origin},
        "pixels": _pixels(job),
        "image": options.image,
        "formats": list(formats),
        "image_key": record.ENCODED if options.image != "keep" else job.image_key,
        "model": {
            "name": ready.name,
            "format": ready.format,
            "sha256": ready.fingerprint,
            "signature": ready.signature,
            "input": ready.input.name,
            "takes": ready.input.takes,
            "output": ",".join(task.outputs) or None,
            "scores": ("logits" if task.logits else "probabilities") if task.classes else None,
            "frozen": ready.frozen,
            "lite": ready.lite,
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


def _pixels(job: Job) -> dict[str, Any] | None:
    """How an image became the model's input; None where the model makes that of its bytes."""
    given, options = job.predictor.input, job.options
    if job.scale is None or given.size is None:
        return None
    return {
        "height": given.size[0],
        "width": given.size[1],
        "channels": given.channels,
        "dtype": given.dtype.name,
        "scale": job.scale.name,
        "scale_from": job.scale.origin,
        "preprocess": shown_function(options.preprocess),
        "resize": options.resize,
        "interpolation": options.interpolation,
        "fast_jpeg": options.fast_jpeg,
        "exif_orientation": options.exif_orientation,
        "alpha": options.alpha,
    }


def shown_function(function: str | Callable[[Any], Any] | None) -> str | None:
    """A function as `module:name`."""
    if function is None or isinstance(function, str):
        return function
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
