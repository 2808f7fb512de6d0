"""Graph: batches of images through the predictor, and its outputs turned into a task's prediction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfzip import record
from tfzip.predictor import Predictor
from tfzip.record import UNKNOWN, FeatureSpec
from tfzip.sources import Element
from tfzip.tasks import Task

_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


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
    predictor: Predictor, prepare: Callable[[tf.Tensor], tf.Tensor], task: Task, device: str | None = None
) -> Callable[[Element], Element]:
    """A graph function over a batch: its `pixels`, or for a model of strings its `encoded`, become features.

    With a `device` the model runs there, and all else where it is called.

    Of scores that are not all finite no class is the most probable: the label is UNKNOWN, the confidence NaN.

    Features are named as in `record`. Beside them stand the values that the index needs: `label`, `confidence`,
    `margin`, `entropy`, `text` (and `scores`).
    """

    def predict(batch: Element) -> Element:
        batch = dict(batch)
        with tf.device(device):
            given = prepare(batch.pop("pixels")) if predictor.input.takes == "pixels" else batch["encoded"]
            outputs = dict(predictor.function(given))
        prediction = read(task, batch["slot"], *(outputs.pop(name) for name in task.outputs))
        return batch | prediction | {record.OUTPUT + name: _flat(value) for name, value in outputs.items()}

    return predict


def marked(function: Callable[[Element], Element], features: Mapping[str, FeatureSpec]) -> Callable[[Element], Element]:
    """A graph function that also adds `nonfinite` [B]: whether one of the features it adds holds NaN or infinity."""
    floats = sorted(key for key, spec in features.items() if spec.dtype == "float")

    def predict(batch: Element) -> Element:
        batch = function(batch)
        finite = tf.fill(tf.shape(batch["slot"]), True)
        for key in floats:
            finite &= _is_finite(batch[key])
        return {**batch, "nonfinite": ~finite}

    return predict


def _is_finite(values: Any) -> tf.Tensor:
    """Whether all values of each row, [B, ...] or ragged, are finite as a float32, in which they are written."""
    if isinstance(values, tf.RaggedTensor):
        return tf.reduce_all(tf.math.is_finite(tf.cast(values, tf.float32)), axis=list(range(1, values.shape.rank)))
    flat = tf.reshape(tf.cast(values, tf.float32), (tf.shape(values)[0], -1))
    return tf.reduce_all(tf.math.is_finite(flat), axis=1)


def read(task: Task, slots: tf.Tensor, *outputs: Any) -> Element:
    """The outputs of a batch as the features and index values of a task."""
    return _READERS[task.name](task, slots, *outputs)


def _flat(output: Any) -> Any:
    """An output as features have it: of a ragged one, the values of each row in one list."""
    return output.merge_dims(1, -1) if isinstance(output, tf.RaggedTensor) and output.shape.rank > 2 else output


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


def names_of(labels: tf.Tensor, task: Task) -> tf.Tensor:
    """The names of class ids; the ids in decimal of those that have none."""
    ids = tf.strings.as_string(labels)
    if not task.names:
        return ids
    known = (labels >= 0) & (labels < len(task.names))
    return tf.where(known, tf.gather(tf.constant(task.names), tf.where(known, labels, 0)), ids)


def _multiclass(task: Task, _slots: tf.Tensor, output: tf.Tensor) -> Element:
    scores = _probabilities(output, task)
    finite = _is_finite(scores)
    first, second = tf.unstack(tf.math.top_k(scores, 2).values, axis=1)
    first = tf.where(finite, first, float("nan"))
    label = tf.where(finite, tf.argmax(scores, axis=1), UNKNOWN)
    text = tf.where(finite, names_of(label, task), "")
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


def _multilabel(task: Task, slots: tf.Tensor, output: tf.Tensor) -> Element:
    scores = _probabilities(output, task)
    chosen = tf.where(scores >= task.threshold)  # [:, (row, class)], in the order of rows
    labels = _by_row(chosen[:, 1], chosen, slots)
    texts = labels.with_flat_values(names_of(labels.flat_values, task))
    surest = tf.reduce_min(tf.maximum(scores, 1 - scores), axis=1)
    surest = tf.where(_is_finite(scores), surest, float("nan"))
    return {
        record.LABELS: labels,
        record.TEXTS: texts,
        record.CONFIDENCE: surest,
        record.SCORES: scores,
        **_no_label(slots),
        "text": tf.strings.reduce_join(texts, axis=1, separator="|"),
        "confidence": surest,
        "margin": 2 * surest - 1,
        "entropy": -tf.reduce_sum(tf.math.xlogy(scores, scores) + tf.math.xlog1py(1 - scores, -scores), axis=1),
    }


def _detection(
    task: Task, slots: tf.Tensor, boxes: Any, scores: Any, classes: Any, number: tf.Tensor | None = None
) -> Element:
    boxes, scores, classes = (_dense(output) for output in (boxes, scores, classes))
    scores, sound = tf.cast(scores, tf.float32), _is_number(classes)
    found = (scores >= task.threshold) | tf.math.is_nan(scores)  # what is not a number is written, so that it shows
    if number is not None:  # of the first so many; the others only fill up
        number = tf.reshape(number, (-1, 1))
        found &= (tf.range(tf.shape(scores)[1]) < tf.cast(number, tf.int32)) | ~_is_number(number)
        sound &= _is_number(number)
    scores = tf.where(found & ~sound, float("nan"), scores)
    chosen = tf.where(found)  # [:, (row, box)], in the order of rows
    corners = tf.cast(tf.gather_nd(boxes, chosen), tf.float32)
    classes = tf.where(_is_number(classes), classes, tf.cast(UNKNOWN, classes.dtype))
    labels = tf.cast(tf.round(tf.gather_nd(classes, chosen)), tf.int64)  # the Object Detection API has them as floats
    texts = _by_row(names_of(labels, task), chosen, slots)
    sure = found & tf.math.is_finite(scores)
    highest = tf.reduce_max(tf.where(sure, scores, float("-inf")), axis=1)
    return {
        **{key: _by_row(corners[:, i], chosen, slots) for i, key in enumerate(record.BOXES)},
        record.DETECTED_LABEL: _by_row(labels, chosen, slots),
        record.DETECTED_TEXT: texts,
        record.DETECTED_SCORE: _by_row(tf.gather_nd(scores, chosen), chosen, slots),
        **_no_label(slots),
        "text": tf.strings.reduce_join(texts, axis=1, separator="|"),
        "confidence": tf.where(tf.reduce_any(sure, axis=1), highest, float("nan")),
    }


def _is_number(values: tf.Tensor) -> tf.Tensor:
    return tf.math.is_finite(values) if values.dtype.is_floating else tf.ones_like(values, tf.bool)


def _dense(output: Any) -> tf.Tensor:
    """A ragged output filled up, with what no score that counts is."""
    return output.to_tensor(-1) if isinstance(output, tf.RaggedTensor) else output


def _by_row(values: tf.Tensor, chosen: tf.Tensor, slots: tf.Tensor) -> tf.RaggedTensor:
    """Values of (row, place) pairs in the order of rows, as a list for each row of the batch."""
    return tf.RaggedTensor.from_value_rowids(values, chosen[:, 0], tf.size(slots, tf.int64))


def _raw(_task: Task, slots: tf.Tensor) -> Element:
    return _no_label(slots)


def _no_label(slots: tf.Tensor) -> Element:
    """What the index says of records that have no one label."""
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
    "detection": _detection,
    "raw": _raw,
}
