"""Graph: batches of pixels through the predictor, and its outputs turned into a task's prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import tensorflow as tf

from tfzip import record
from tfzip.errors import ModelError, UsageError
from tfzip.predictor import Predictor
from tfzip.record import UNKNOWN, FeatureSpec
from tfzip.sources import Element

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


@dataclass(frozen=True)
class Task:
    """How the outputs are read.

    `output` is the name of the one that is about the task, None for the task `raw`; `classes` the length of its
    scores; `logits` whether they still need a softmax or sigmoid; `threshold` from which score on a class of a
    multilabel prediction counts; `names` the class names, empty where they are not known.
    """

    name: str
    output: str | None
    classes: int
    logits: bool
    threshold: float
    names: tuple[str, ...]


# Which task.


def choose_task(
    predictor: Predictor,
    activations: Mapping[str, str | None],
    *,
    task: str,
    output: str | None,
    scores: str,
    threshold: float,
    names: Callable[[int], tuple[str, ...]],
) -> Task:
    """Settle the task from what was asked for and what the model's graph shows.

    Args:
        predictor: the model.
        activations: of each output, as `evidence.gather` tells them.
        task: a task's name, or `auto`.
        output: the output that the task is about; None for the only one, or the only one of rank 2.
        scores: `auto`, `probabilities` or `logits`.
        threshold: for multilabel.
        names: the class names for a number of classes; empty if they are not known; raises if they do not fit.

    Raises UsageError where it cannot be known, or does not fit the model.
    """
    chosen = _choose_output(predictor, output)
    if task == "raw":
        return Task("raw", None, 0, False, threshold, ())
    if chosen is None:
        if task == "auto" and output is None and len(predictor.outputs) == 1:
            return Task("raw", None, 0, False, threshold, ())
        raise UsageError(
            f"{predictor.name}: say with --output which of {_shown(predictor)} is the prediction, or --task raw"
        )
    spec, activation = predictor.outputs[chosen], activations[chosen]
    classes = _classes(spec)
    if classes is None or not spec.dtype.is_floating:
        if task == "auto":
            return Task("raw", None, 0, False, threshold, ())
        raise UsageError(
            f"{predictor.name}: --task {task} needs scores [batch, classes]; its outputs are {_shown(predictor)}"
        )
    if task == "auto":
        task = _guess_task(predictor, chosen, classes, activation, named=bool(names(max(classes, 2))))
    if (task == "binary") != (classes == 1):
        wanted = "[batch] or [batch, 1]" if task == "binary" else "[batch, classes] with two classes or more"
        raise UsageError(f"{predictor.name}: --task {task} needs {wanted}; its output is {chosen} {spec.shape}")
    classes = max(classes, 2)
    logits = _are_logits(predictor, chosen, activation, scores)
    return Task(task, chosen, classes, logits, threshold, names(classes))


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
        if name == task.output:
            continue
        if spec.dtype == tf.string:
            dtype = "bytes"
        elif spec.dtype.is_integer or spec.dtype.is_bool:
            dtype = "int64"
        elif spec.dtype.is_floating:
            dtype = "float"
        else:
            raise ModelError(f"{predictor.name}: its output {name} is {spec.dtype.name}, which no feature can hold")
        shape = tuple(spec.shape[1:]) if spec.shape.rank is not None else (None,)
        features[record.OUTPUT + name] = FeatureSpec(dtype, (None,) if None in shape else shape)
    return features


# The graph.


def rescaler(scale: str, dtype: tf.DType) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function: pixels in 0..255 -> the range the model was trained on.

    `raw` is 0..255, `unit` 0..1, `symmetric` -1..1; `caffe` is BGR minus the ImageNet mean, `torch` RGB minus the
    ImageNet mean, divided by its deviation, as `keras.applications` define both.
    """

    def rescale(pixels: tf.Tensor) -> tf.Tensor:
        if scale == "unit":
            return pixels / 255
        if scale == "symmetric":
            return pixels / 127.5 - 1
        if scale == "caffe":
            return pixels[..., ::-1] - tf.constant(_CAFFE_MEAN_BGR, dtype)
        if scale == "torch":
            return (pixels - tf.constant(_IMAGENET_MEAN, dtype)) / tf.constant(_IMAGENET_STD, dtype)
        return pixels

    return rescale


def predicter(
    predictor: Predictor, prepare: Callable[[tf.Tensor], tf.Tensor], task: Task
) -> Callable[[Element], Element]:
    """A graph function over a batch: its `pixels` become features, and the values that the index needs.

    Features are named as in `record`; the index's are `label`, `confidence`, `margin`, `entropy`, `text` (and
    `scores`).
    """

    def predict(batch: Element) -> Element:
        batch = dict(batch)
        outputs = dict(predictor.function(prepare(batch.pop("pixels"))))
        prediction = _READERS[task.name](outputs.pop(task.output, None), task, batch["slot"])
        return batch | prediction | {record.OUTPUT + name: value for name, value in outputs.items()}

    return predict


def _probabilities(output: tf.Tensor, task: Task) -> tf.Tensor:
    """Scores [B, classes] in 0..1."""
    output = tf.cast(output, tf.float32)
    if task.name == "binary":
        positive = tf.reshape(output, (-1, 1))
        positive = tf.sigmoid(positive) if task.logits else positive
        return tf.concat([1 - positive, positive], axis=1)
    if task.logits:
        return tf.nn.softmax(output) if task.name == "multiclass" else tf.sigmoid(output)
    return output


def _names(labels: tf.Tensor, task: Task) -> tf.Tensor:
    """The names of class ids, or the ids in decimal."""
    return tf.gather(tf.constant(task.names), labels) if task.names else tf.strings.as_string(labels)


def _multiclass(output: tf.Tensor, task: Task, _slots: tf.Tensor) -> Element:
    scores = _probabilities(output, task)
    first, second = tf.unstack(tf.math.top_k(scores, 2).values, axis=1)
    label = tf.argmax(scores, axis=1)
    text = _names(label, task)
    return {
        record.LABEL: label,
        record.TEXT: text,
        record.CONFIDENCE: first,
        record.SCORES: scores,
        "label": label,
        "text": text,
        "confidence": first,
        "margin": first - second,
        "entropy": -tf.reduce_sum(tf.math.xlogy(scores, scores), axis=1),
    }


def _multilabel(output: tf.Tensor, task: Task, slots: tf.Tensor) -> Element:
    scores = _probabilities(output, task)
    chosen = tf.where(scores >= task.threshold)  # [:, (row, class)], in the order of rows
    labels = tf.RaggedTensor.from_value_rowids(chosen[:, 1], chosen[:, 0], tf.size(slots, tf.int64))
    texts = labels.with_flat_values(_names(labels.flat_values, task))
    surest = tf.reduce_min(tf.maximum(scores, 1 - scores), axis=1)
    return {
        record.LABELS: labels,
        record.TEXTS: texts,
        record.CONFIDENCE: surest,
        record.SCORES: scores,
        "label": tf.fill(tf.shape(slots), tf.constant(UNKNOWN, tf.int64)),
        "text": tf.strings.reduce_join(texts, axis=1, separator="|"),
        "confidence": surest,
        "margin": 2 * surest - 1,
        "entropy": -tf.reduce_sum(tf.math.xlogy(scores, scores) + tf.math.xlog1py(1 - scores, -scores), axis=1),
    }


def _raw(_output: None, _task: Task, slots: tf.Tensor) -> Element:
    nothing = tf.fill(tf.shape(slots), float("nan"))
    return {
        "label": tf.fill(tf.shape(slots), tf.constant(UNKNOWN, tf.int64)),
        "text": tf.fill(tf.shape(slots), ""),
        "confidence": nothing,
        "margin": nothing,
        "entropy": nothing,
    }


_READERS: Mapping[str, Callable[..., Element]] = {
    "multiclass": _multiclass,
    "binary": _multiclass,
    "multilabel": _multilabel,
    "raw": _raw,
}
