"""What one record is: feature keys, dtypes and shapes, the Record that a reader gives, where its bytes lie.

Three kinds of label never mix: `truth/*` is what the source knew, `prediction/*` is what the model said, and
`image/class/*` is what training should use.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from tfzip.errors import CorruptError
from tfzip.naming import to_str

FORMAT_VERSION = 1

ENCODED = "image/encoded"
FILENAME = "image/filename"
FORMAT = "image/format"
SOURCE_ID = "image/source_id"
HEIGHT = "image/height"
WIDTH = "image/width"
TRUTH_LABEL = "truth/label"
TRUTH_TEXT = "truth/text"
LABEL = "prediction/label"
TEXT = "prediction/text"
CONFIDENCE = "prediction/confidence"
SCORES = "prediction/scores"
LABELS = "prediction/labels"
TEXTS = "prediction/texts"
OUTPUT = "output/"
EXTRA = "extra/"
BOXES = tuple(f"image/detection/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax"))
DETECTED_LABEL = "image/detection/label"
DETECTED_TEXT = "image/detection/text"
DETECTED_SCORE = "image/detection/score"

CLASS_LABEL = "image/class/label"
CLASS_TEXT = "image/class/text"
CLASS_CONFIDENCE = "image/class/confidence"
CLASS_WEIGHT = "image/class/weight"
CLASS_SCORES = "image/class/scores"

_PREDICTED = ("prediction/", OUTPUT, "image/detection/")
_OURS = ("image/", "truth/", "prediction/", "output/")

UNKNOWN = -1
"""The label of an item whose label is not known."""

INDEXED_SCORES = 128
"""Scores of up to this many classes are also columns of the index."""

_KINDS = {"bytes_list": "bytes", "float_list": "float", "int64_list": "int64"}


class FeatureSpec(NamedTuple):
    """Type and shape of one feature: dtype is `bytes`, `int64` or `float`; a first dimension of None varies."""

    dtype: str
    shape: tuple[int | None, ...] = ()


class Location(NamedTuple):
    """Where a record's bytes lie: in which shard, in which block of it, where in that block."""

    shard: int
    offset: int
    size: int
    start: int


class Shard(NamedTuple):
    """One finished shard: its file's name (below OUT), and what the file holds."""

    file: str
    records: int
    bytes: int
    sha256: str


STAGES = ("read", "decode", "predict", "encode")


class Failure(NamedTuple):
    """One item that gave no record: at which of the STAGES and why."""

    filename: str
    stage: str
    error: str


class Prediction(NamedTuple):
    """What the model said of one image.

    Multiclass and binary: `label`, `text`, `confidence`, `scores`. Multilabel: `labels`, `texts`, `confidence`,
    `scores`. Detection: for each box `boxes` [N, 4] (ymin, xmin, ymax, xmax), `labels`, `texts` and `scores`, and the
    highest score as `confidence`, None if there is no box. Where scores are not all finite, the `label` is -1 and the
    `confidence` NaN; boxes with such a score are listed. Raw: nothing but the record's `outputs`.
    """

    confidence: float | None = None
    label: int | None = None
    text: str | None = None
    labels: list[int] | None = None
    texts: list[str] | None = None
    scores: npt.NDArray[np.float32] | None = None
    boxes: npt.NDArray[np.float32] | None = None


class Truth(NamedTuple):
    """What the source knew: `label` indexes the export's label names, -1 where `text` is none of them."""

    label: int
    text: str


class Target(NamedTuple):
    """What to train on, in a record that `select` chose: the class, how sure it is, and what the image counts for.

    `scores` are soft labels, None where only the class was asked for.
    """

    label: int
    text: str
    confidence: float
    weight: float
    scores: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Record:
    """One image with its prediction.

    `encoded` is the image file's bytes (None in an export without images), `format` what those bytes are,
    `height` and `width` are in pixels, `source_id` is the position in the source, `outputs` the model's outputs
    that are no prediction, by name and in their own shape; `extra` what else the source had, by column or feature.
    """

    filename: str
    encoded: bytes | None
    format: str
    height: int
    width: int
    source_id: str
    prediction: Prediction
    truth: Truth | None
    outputs: Mapping[str, npt.NDArray[Any]]
    extra: Mapping[str, Any]
    target: Target | None = None


def image_features(*, images: bool, truth: bool) -> dict[str, FeatureSpec]:
    """The features that every record carries whatever the model says."""
    features = {
        FILENAME: FeatureSpec("bytes"),
        FORMAT: FeatureSpec("bytes"),
        SOURCE_ID: FeatureSpec("bytes"),
        HEIGHT: FeatureSpec("int64"),
        WIDTH: FeatureSpec("int64"),
    }
    if images:
        features[ENCODED] = FeatureSpec("bytes")
    if truth:
        features |= {TRUTH_LABEL: FeatureSpec("int64"), TRUTH_TEXT: FeatureSpec("bytes")}
    return features


def prediction_features(task: str, classes: int) -> dict[str, FeatureSpec]:
    """The features in which a task's prediction is kept; `classes` is the length of its scores."""
    scores = {CONFIDENCE: FeatureSpec("float"), SCORES: FeatureSpec("float", (classes,))}
    if task in ("multiclass", "binary"):
        return {LABEL: FeatureSpec("int64"), TEXT: FeatureSpec("bytes"), **scores}
    if task == "multilabel":
        return {LABELS: FeatureSpec("int64", (None,)), TEXTS: FeatureSpec("bytes", (None,)), **scores}
    if task == "detection":
        floats = dict.fromkeys((*BOXES, DETECTED_SCORE), FeatureSpec("float", (None,)))
        return {DETECTED_LABEL: FeatureSpec("int64", (None,)), DETECTED_TEXT: FeatureSpec("bytes", (None,)), **floats}
    return {}


_DETECTED = prediction_features("detection", 0)


def class_features(scores: int | None) -> dict[str, FeatureSpec]:
    """The features of what training should use; with soft labels so many `scores`."""
    features = {
        CLASS_LABEL: FeatureSpec("int64"),
        CLASS_TEXT: FeatureSpec("bytes"),
        CLASS_CONFIDENCE: FeatureSpec("float"),
        CLASS_WEIGHT: FeatureSpec("float"),
    }
    return features | ({} if scores is None else {CLASS_SCORES: FeatureSpec("float", (scores,))})


def predicted_features(specs: Mapping[str, FeatureSpec], task: str) -> dict[str, FeatureSpec]:
    """Those of the features that are the prediction of a task; others of such names are what a TFRecord had before."""
    return {key: specs[key] for key in prediction_features(task, 0) if key in specs}


def is_detection(specs: Mapping[str, FeatureSpec]) -> bool:
    """Whether these are features in which boxes are kept."""
    return _DETECTED.items() <= specs.items()


def parse_example(serialized: bytes) -> dict[str, tuple[str, list[Any]]]:
    """The features of a serialized `tf.train.Example`, each a dtype and a list of values; read without TensorFlow."""
    example, features = example_of(serialized), {}
    for key, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        features[key] = (_KINDS[kind], list(getattr(feature, kind).value)) if kind else ("", [])
    return features


def example_of(serialized: bytes) -> Any:
    """The `tf.train.Example`, as a message of protobuf; CorruptError if it is none."""
    try:
        return _Example.FromString(serialized)
    except (DecodeError, SystemError):  # protobuf 4 sometimes wraps the one into the other
        raise CorruptError("a record is not a tf.train.Example") from None


def parse_record(
    serialized: bytes,
    specs: Mapping[str, FeatureSpec],
    image_key: str = ENCODED,
    predicted: Mapping[str, FeatureSpec] | None = None,
) -> Record:
    """The Record in a serialized Example whose features are as `specs` says; CorruptError if they are not.

    `predicted` are those that hold the prediction; None for all whose names say so.
    """
    found, ours = parse_example(serialized), specs if predicted is None else predicted
    features = {key: _checked(key, spec, found, ours) for key, spec in specs.items()}

    def one(key: str) -> Any:
        return features[key][0]

    truth = None
    if TRUTH_LABEL in specs and (one(TRUTH_LABEL) != UNKNOWN or one(TRUTH_TEXT)):
        truth = Truth(one(TRUTH_LABEL), _text(one(TRUTH_TEXT)))
    return Record(
        filename=to_str(one(FILENAME)),
        encoded=one(image_key) if image_key in specs else None,
        format=_text(one(FORMAT)),
        height=one(HEIGHT),
        width=one(WIDTH),
        source_id=_text(one(SOURCE_ID)),
        prediction=_detections(features) if is_detection(ours) else _prediction(features, ours),
        truth=truth,
        outputs={
            key.removeprefix(OUTPUT): _array(features[key], spec)
            for key, spec in specs.items()
            if key.startswith(OUTPUT)
        },
        extra={
            key.removeprefix(EXTRA): _array(features[key], spec) if spec.shape else one(key)
            for key, spec in specs.items()
            if not key.startswith(_OURS) and key != image_key
        },
        target=_target(features, specs),
    )


def _target(features: Mapping[str, list[Any]], specs: Mapping[str, FeatureSpec]) -> Target | None:
    """What to train on, if all is there that says so."""
    scores = features.get(CLASS_SCORES)
    if not class_features(None if scores is None else len(scores)).items() <= specs.items():
        return None
    label, text, confidence, weight = (features[key][0] for key in class_features(None))
    return Target(label, _text(text), confidence, weight, None if scores is None else np.array(scores, np.float32))


def _prediction(features: Mapping[str, list[Any]], specs: Mapping[str, FeatureSpec]) -> Prediction:
    """The prediction, as far as its features are there."""

    def found(key: str, dtype: str, *shape: int | None) -> list[Any] | None:
        return features[key] if specs.get(key) == (dtype, shape) else None

    confidence, label, text = found(CONFIDENCE, "float"), found(LABEL, "int64"), found(TEXT, "bytes")
    texts, scores = found(TEXTS, "bytes", None), found(SCORES, "float", len(features.get(SCORES, ())))
    return Prediction(
        confidence=confidence[0] if confidence else None,
        label=label[0] if label else None,
        text=_text(text[0]) if text else None,
        labels=found(LABELS, "int64", None),
        texts=None if texts is None else [_text(text) for text in texts],
        scores=None if scores is None else np.array(scores, np.float32),
    )


def _detections(features: Mapping[str, list[Any]]) -> Prediction:
    scores = np.array(features[DETECTED_SCORE], np.float32)
    sides = [features[key] for key in (*BOXES, DETECTED_LABEL, DETECTED_TEXT)]
    if any(len(side) != len(scores) for side in sides):
        raise CorruptError(f"the features {', '.join(BOXES)} and {DETECTED_SCORE} are not equally long")
    return Prediction(
        confidence=max(filter(math.isfinite, features[DETECTED_SCORE]), default=None),
        labels=features[DETECTED_LABEL],
        texts=[_text(text) for text in features[DETECTED_TEXT]],
        scores=scores,
        boxes=np.array(sides[: len(BOXES)], np.float32).T,
    )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")


def _checked(
    key: str, spec: FeatureSpec, features: Mapping[str, tuple[str, list[Any]]], predicted: Mapping[str, FeatureSpec]
) -> list[Any]:
    """The values of a feature, which must be of its dtype and as many as its shape has room for.

    One of varying length that a source brought may be missing, which TensorFlow's parsers take for no values too.
    """
    is_made = key in predicted or key.startswith(OUTPUT)
    if None in spec.shape and not (is_made and key.startswith(_PREDICTED)) and not features.get(key, ("", []))[0]:
        return []
    if key not in features:
        raise CorruptError(f"a record lacks the feature {key}")
    dtype, values = features[key]
    if dtype != spec.dtype:
        raise CorruptError(f"the feature {key} is {dtype or 'empty'}, not {spec.dtype}")
    size = math.prod(size for size in spec.shape if size is not None)
    if None in spec.shape and len(values) % (size or 1):
        raise CorruptError(f"the feature {key} holds {len(values)} values, no multiple of {size}")
    if None not in spec.shape and len(values) != size:
        raise CorruptError(f"the feature {key} holds {len(values)} values, not {size}")
    return values


def _array(values: list[Any], spec: FeatureSpec) -> npt.NDArray[Any]:
    dtype = {"bytes": object, "int64": np.int64, "float": np.float32}[spec.dtype]
    return np.array(values, dtype).reshape([-1 if size is None else size for size in spec.shape])


def _example_class() -> Any:
    """`tf.train.Example` built from its definition, so that reading needs no TensorFlow (its import takes seconds).

    The definition is tensorflow/core/example/{example,feature}.proto; a pool of its own keeps it apart from
    TensorFlow's registration of the same names.
    """
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, str], parent: Any = file.message_type) -> Any:
        made = parent.add(name=name)
        for number, (label, kind, type_id, type_name) in enumerate(fields, start=1):
            made.field.add(name=label, number=number, label=kind, type=type_id, type_name=type_name or None)
        return made

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", many, field.TYPE_BYTES, ""))
    message("FloatList", ("value", many, field.TYPE_FLOAT, ""))
    message("Int64List", ("value", many, field.TYPE_INT64, ""))
    feature = message(
        "Feature",
        ("bytes_list", one, field.TYPE_MESSAGE, ".tensorflow.BytesList"),
        ("float_list", one, field.TYPE_MESSAGE, ".tensorflow.FloatList"),
        ("int64_list", one, field.TYPE_MESSAGE, ".tensorflow.Int64List"),
    )
    feature.oneof_decl.add(name="kind")
    for member in feature.field:
        member.oneof_index = 0
    features = message("Features", ("feature", many, field.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry"))
    entry = message(
        "FeatureEntry",
        ("key", one, field.TYPE_STRING, ""),
        ("value", one, field.TYPE_MESSAGE, ".tensorflow.Feature"),
        parent=features.nested_type,
    )
    entry.options.map_entry = True
    message("Example", ("features", one, field.TYPE_MESSAGE, ".tensorflow.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    example = pool.FindMessageTypeByName("tensorflow.Example")
    if hasattr(message_factory, "GetMessageClass"):
        return message_factory.GetMessageClass(example)
    factory: Any = message_factory.MessageFactory(pool)  # protobuf 3.20, which TFX needs
    return factory.GetPrototype(example)


_Example = _example_class()
