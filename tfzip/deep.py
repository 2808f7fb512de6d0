"""A sample of an export's images through the model again: whether it says what is written.

What made the pixels, and how the outputs were read, is taken from the manifest; code that the export only names (layers
of one's own, a function for `--preprocess`) is never looked up by that name, but must be given again.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import naming, pipeline, predictor
from tfzip.errors import UsageError
from tfzip.job import load, prepare
from tfzip.options import Options
from tfzip.predictor import Predictor
from tfzip.read import Export
from tfzip.record import Prediction, Record, parse_record
from tfzip.sources import python
from tfzip.tasks import Task

_SLACK = {tf.float16: 1e-3, tf.bfloat16: 1e-2}
_LEAST_SLACK = 1e-5
"""How far a value may lie off, by what the model calculates in: another batch or processor changes the low bits."""

_COMPARED = ("text", "label", "texts", "labels", "scores", "boxes", "confidence")


def differences(export: Export, model: Any, sample: int, **given: Any) -> Iterator[str]:
    """Run a sample of records through the model; yield a line for each that it now says something else of.

    Args:
        export: with the images as the model saw them.
        model: whatever `models.open_model` opens; the one that made the export.
        sample: how many records, spread evenly over all; the same every time.
        **given: `imports`, `weights`, `preprocess`, `trust_model` and `max_pixels`, as the export had them.

    Raises UsageError, at once, where that cannot be done, or with another model.
    """
    if isinstance(sample, bool) or not isinstance(sample, int) or sample < 1:
        raise UsageError(f"--sample {sample!r}: use a whole number from 1 up")
    _check_images(export)
    options = _options(export, given)
    ready = load(model, options, export.manifest["model"]["sha256"])
    count = min(sample, len(export))
    return _differences(export, ready, options, np.arange(count) * len(export) // max(count, 1))


def _check_images(export: Export) -> None:
    """Raise UsageError if the export does not hold what a model saw."""
    image = export.manifest["image"]
    if export.manifest["model"]["takes"] == "predictions":
        raise UsageError(f"{export.path} holds predictions made elsewhere: there is no model to run again")
    if image == "none":
        raise UsageError(f"{export.path} was exported with --image none: it holds no images to run again")
    if image != "keep":
        raise UsageError(f"{export.path} was exported with --image {image}: the model saw other images than it holds")


def _options(export: Export, given: Mapping[str, Any]) -> Options:
    """The options that make of an image what the export made of it."""
    facts, model, pixels = export.manifest, export.manifest["model"], export.manifest["pixels"]
    made = {
        "task": facts["task"],
        "threshold": facts["threshold"],
        "min_score": facts["min_score"],
        "labels": facts["labels"]["names"] or None,
        "signature": model["signature"],
        "output": model["output"],
        "scores": model["scores"],
        "batch_size": facts["batch_size"],
        "devices": "cpu",
        "image": "none",
    }
    preprocess = None
    if pixels is not None:
        preprocess, made["image_size"] = pixels["preprocess"], (pixels["height"], pixels["width"])
        made["scale"] = pixels["scale"] if preprocess is None else None
        made |= {name: pixels[name] for name in ("resize", "interpolation", "exif_orientation", "alpha")}
        made["fast_jpeg"] = pixels.get("fast_jpeg") is True
    if preprocess is not None and given.get("preprocess") is None:
        raise UsageError(f"{export.path} was made with --preprocess {preprocess}: give that function again")
    if preprocess is None and given.get("preprocess") is not None:
        raise UsageError(f"--preprocess: {export.path} was made without")
    return Options(**{name: value for name, value in made.items() if value is not None}, **given)


def _differences(export: Export, ready: Predictor, options: Options, rows: npt.NDArray[np.int64]) -> Iterator[str]:
    if not len(rows):
        return
    records = map(export.__getitem__, rows.tolist())
    job = prepare(python.from_items((record.filename, record.encoded) for record in records), ready, options)
    if export.manifest["model"].get("frozen"):  # which may have moved scores a little
        job = dataclasses.replace(job, predictor=predictor.freeze(job.predictor))
    if export.manifest["model"].get("lite"):
        job = dataclasses.replace(job, predictor=predictor.lighten(job.predictor, job.parallel))
    slack = _slack(ready)
    state = " (it keeps state: that may come of other images before)" if ready.stateful else ""
    for outcome in pipeline.outcomes(job):
        for failure in outcome.failures:
            yield f"{naming.shown(failure.filename)}: the model says nothing of it: {failure.stage}: {failure.error}"
        for slot, serialized in zip(outcome.rows["slot"], outcome.rows["serialized"], strict=True):
            written, said = export[int(rows[slot])], parse_record(serialized, job.features, predicted=job.predicted)
            if told := _difference(written, said, job.task, slack):
                yield f"{naming.shown(written.filename)}: {told}{state}"


def _slack(ready: Predictor) -> float:
    """By the coarsest numbers in the model's graph."""
    graph = ready.function.graph.as_graph_def()
    bodies = [graph.node, *(body.node_def for body in graph.library.function)]
    found = {value.type for nodes in bodies for node in nodes for value in node.attr.values()}
    return max([_LEAST_SLACK, *(slack for dtype, slack in _SLACK.items() if dtype.as_datatype_enum in found)])


# Comparing.


def _difference(written: Record, said: Record, task: Task, slack: float) -> str | None:
    """Where a record first differs from what the model says; None if nowhere."""
    before, now = written.prediction, said.prediction
    if task.name == "detection":
        before, now = _boxes(before, now, task.threshold + slack)
    undecided = _undecided(before, now, task, slack)
    pairs = [(name, getattr(before, name), getattr(now, name)) for name in _COMPARED if name not in undecided]
    outputs = sorted({*written.outputs, *said.outputs})
    pairs += [(f"output {name}", written.outputs.get(name), said.outputs.get(name)) for name in outputs]
    return next(filter(None, (_told(name, old, new, slack) for name, old, new in pairs)), None)


def _boxes(before: Prediction, now: Prediction, least: float) -> tuple[Prediction, Prediction]:
    """Both; if one has more boxes, without those that a rounding may have let in."""
    least = least if len(before.labels or ()) != len(now.labels or ()) else -math.inf
    return _above(before, least), _above(now, least)


def _above(prediction: Prediction, least: float) -> Prediction:
    scores, boxes = np.asarray(prediction.scores), np.asarray(prediction.boxes)
    kept = scores >= least
    labels, texts = list(compress(prediction.labels or (), kept)), list(compress(prediction.texts or (), kept))
    return Prediction(labels=labels, texts=texts, scores=scores[kept], boxes=boxes[kept])


def _undecided(before: Prediction, now: Prediction, task: Task, slack: float) -> tuple[str, ...]:
    """What a rounding may have decided: between two classes alike, or about a class on the threshold."""
    scores = now.scores
    if scores is None or task.name == "detection":
        return ()
    if task.name == "multilabel":
        return ("texts", "labels") if (np.abs(scores - task.threshold) <= slack).any() else ()
    label = before.label if before.label is not None and 0 <= before.label < len(scores) else now.label
    alike = label != now.label and scores[label] >= scores.max() - 2 * slack
    return ("text", "label") if alike else ()


def _told(name: str, old: Any, new: Any, slack: float) -> str | None:
    """How two values differ; None if they do not."""
    if old is None or new is None or isinstance(old, (str, int, list)):
        return None if old is new or old == new else f"{name} {old} is written, the model says {new}"
    old, new = np.asarray(old), np.asarray(new)
    if old.shape != new.shape:
        return f"{name} {list(old.shape)} is written, the model gives {list(new.shape)}"
    apart = old != new
    if old.dtype.kind == "f":
        size = max(1, np.abs(old[np.isfinite(old)]).max(initial=0))
        apart = ~np.isclose(new, old, rtol=0, atol=slack * size, equal_nan=True)
    for place in np.argwhere(apart)[:1].tolist():
        at = tuple(place)
        return f"{name}{place or ''} {old[at]} is written, the model says {new[at]}"
    return None
