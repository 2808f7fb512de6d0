"""Which task a model does, and which of its outputs tell it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from tfzip import record
from tfzip.errors import ModelError, UsageError
from tfzip.labels import ClassNames
from tfzip.predictor import Predictor
from tfzip.record import FeatureSpec

DETECTION = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
"""The outputs of TensorFlow's Object Detection API; the number may be missing."""

_DETECTION_SHAPES = ((None, None, 4), (None, None), (None, None), (None,))


@dataclass(frozen=True)
class Task:
    """How the outputs are read.

    `outputs` are the names of those that are about the task: one, none for the task `raw`, and for `detection` boxes,
    scores, classes and perhaps their number. `classes` is the length of the scores, `logits` whether they still need a
    softmax or sigmoid; `threshold` from which score on a class of a multilabel prediction, or a box, counts; `names`
    the class names, empty where they are not known.
    """

    name: str
    outputs: tuple[str, ...]
    classes: int
    logits: bool
    threshold: float
    names: tuple[str, ...]


_RAW = Task("raw", (), 0, logits=False, threshold=0.0, names=())


def choose_task(
    predictor: Predictor,
    activations: Mapping[str, str | None],
    *,
    task: str,
    output: str | None,
    scores: str,
    threshold: float,
    min_score: float,
    names: ClassNames,
) -> Task:
    """Settle the task from what was asked for and what the model's graph shows.

    Args:
        predictor: the model.
        activations: of each output, as `evidence.gather` tells them.
        task: a task's name, or `auto`.
        output: the output that the task is about; None for the only one, or the only one of rank 2. Of `detection`
            several, with commas between: boxes, scores, classes and, if there is one, their number; None for DETECTION.
        scores: `auto`, `probabilities` or `logits`.
        threshold: for multilabel.
        min_score: for detection.
        names: the class names.

    Raises UsageError where it cannot be known, or does not fit the model.
    """
    if task == "raw":
        return _RAW
    if task == "detection" or (task == "auto" and _detects(predictor, output)):
        return Task("detection", _detection_outputs(predictor, output), 0, False, min_score, names.of_ids())
    chosen = _choose_output(predictor, output)
    if chosen is None:
        if task == "auto" and output is None and len(predictor.outputs) == 1:
            return _RAW
        raise UsageError(
            f"{predictor.name}: say with --output which of {_shown(predictor)} is the prediction, or --task raw"
        )
    spec, activation = predictor.outputs[chosen], activations[chosen]
    classes = _classes(spec)
    if classes is None or not spec.dtype.is_floating:
        if task == "auto":
            return _RAW
        raise UsageError(
            f"{predictor.name}: --task {task} needs scores [batch, classes]; its outputs are {_shown(predictor)}"
        )
    if task == "auto":
        task = _guess_task(predictor, chosen, classes, activation, named=bool(names.of(max(classes, 2))))
    if (task == "binary") != (classes == 1):
        wanted = "[batch] or [batch, 1]" if task == "binary" else "[batch, classes] with two classes or more"
        raise UsageError(f"{predictor.name}: --task {task} needs {wanted}; its output is {chosen} {spec.shape}")
    classes = max(classes, 2)
    logits = _are_logits(predictor, chosen, activation, scores)
    return Task(task, (chosen,), classes, logits, threshold, names.of(classes))


def _choose_output(predictor: Predictor, output: str | None) -> str | None:
    outputs = predictor.outputs
    if output is not None:
        if output not in outputs:
            raise UsageError(f"{predictor.name}: no output {output!r}; it has {_shown(predictor)}")
        return output
    if len(outputs) == 1:
        return next(iter(outputs))
    flat = [name for name, spec in outputs.items() if spec.shape.rank == 2]
    return flat[0] if len(flat) == 1 else None


def _detects(predictor: Predictor, output: str | None) -> bool:
    """Whether several outputs are named, or none but those of the Object Detection API are there."""
    if output is None:
        return set(DETECTION[:3]) <= set(predictor.outputs)
    return "," in output and output not in predictor.outputs


def _detection_outputs(predictor: Predictor, output: str | None) -> tuple[str, ...]:
    """The outputs of boxes, scores, classes and perhaps their number, which must be such by their shapes."""
    known = predictor.outputs
    standard = [name for name in DETECTION if name in known]
    names = standard if output is None else [name.strip() for name in output.split(",")]
    if len(names) not in (3, 4) or not set(names) <= set(known) or "num_detections" in names[:3]:
        raise UsageError(
            f"{predictor.name}: --task detection needs the outputs of boxes, scores and classes (and their number);\n"
            f"name them in that order, as in --output boxes,scores,classes, of {_shown(predictor)}"
        )
    for name, shape in zip(names, _DETECTION_SHAPES, strict=False):
        spec = known[name]
        if not (spec.shape.is_compatible_with(shape) and (spec.dtype.is_floating or spec.dtype.is_integer)):
            raise UsageError(
                f"{predictor.name}: --task detection: its output {name} is {spec.shape} {spec.dtype.name}, "
                f"not numbers {tf.TensorShape(shape)}"
            )
    return tuple(names)


def _classes(spec: tf.TensorSpec) -> int | None:
    """The number of scores in an output: 1 for [B]; None if it is no list of scores."""
    if spec.shape.rank == 1:
        return 1
    classes: int | None = spec.shape[1] if spec.shape.rank == 2 else None
    return classes


def _guess_task(predictor: Predictor, output: str, classes: int, activation: str | None, *, named: bool) -> str:
    if activation == "softmax" and classes > 1:
        return "multiclass"
    if activation == "sigmoid":
        return "binary" if classes == 1 else "multilabel"
    if activation == "linear" and named:
        return "binary" if classes == 1 else "multiclass"
    choice = "binary" if classes == 1 else "multiclass, multilabel"
    raise UsageError(
        f"{predictor.name}: cannot tell what its output {output} {predictor.outputs[output].shape} is "
        f"(no softmax or sigmoid at its end): say --task {choice} or raw"
    )


def _are_logits(predictor: Predictor, output: str, activation: str | None, scores: str) -> bool:
    if scores == "auto":
        if activation is None:
            raise UsageError(
                f"{predictor.name}: cannot tell whether its output {output} holds probabilities or logits: "
                "say which with --scores"
            )
        return activation == "linear"
    return scores == "logits"


def _shown(predictor: Predictor) -> str:
    return ", ".join(f"{name} {spec.shape}" for name, spec in predictor.outputs.items())


def output_features(predictor: Predictor, task: Task) -> dict[str, FeatureSpec]:
    """The features of the outputs that are not the prediction, flattened as they will be written."""
    features = {}
    for name, spec in predictor.outputs.items():
        if name in task.outputs:
            continue
        if spec.dtype == tf.string:
            dtype = "bytes"
        elif spec.dtype.is_integer or spec.dtype.is_bool:
            dtype = "int64"
        elif spec.dtype.is_floating:
            dtype = "float"
        else:
            raise ModelError(f"{predictor.name}: its output {name} is {spec.dtype.name}, which no feature can hold")
        features[record.OUTPUT + name] = FeatureSpec(dtype, _feature_shape(spec.shape))
    return features


def _feature_shape(shape: tf.TensorShape) -> tuple[int | None, ...]:
    """The shape of one row; where it varies, only how many rows of one size there are can be told from a flat list."""
    row = tuple(shape[1:]) if shape.rank is not None else (None,)
    if None in row[1:] or (None in row and math.prod(row[1:]) == 0):
        return (None,)
    return row
