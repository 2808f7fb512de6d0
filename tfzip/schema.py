"""The records' features as a `tensorflow_metadata.proto.v0.Schema`, which TFX and TFDV read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from google.protobuf import text_format

from tfzip import record
from tfzip.errors import UsageError
from tfzip.record import FeatureSpec

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

_LONGEST_ESCAPE = 16  # of a character: some versions of protobuf escape each byte of what is not ASCII
_PREDICTED = {  # what is selected is a prediction, so its values are those that a prediction may have
    record.CLASS_LABEL: record.LABEL,
    record.CLASS_TEXT: record.TEXT,
    record.CLASS_CONFIDENCE: record.CONFIDENCE,
    record.CLASS_SCORES: record.SCORES,
}
_TYPES = {"bytes": "BYTES", "int64": "INT", "float": "FLOAT"}


def schema_text(features: Mapping[str, FeatureSpec], labels: Sequence[str], *, selected: bool = False) -> str:
    """The schema in protobuf's text format: every feature required, with its shape and the values it may have.

    `selected` says that `image/class/*` are this export's own, not what a TFRecord had before.
    """
    schema = load().Schema()
    (classes,) = features[record.SCORES].shape if record.SCORES in features else (len(labels),)
    tasks = ("multiclass", "multilabel")
    written = {key: spec for task in tasks for key, spec in record.prediction_features(task, classes or 0).items()}
    for key, spec in sorted(features.items()):
        feature = _add_feature(schema, key, spec)
        if spec == written.get(key, spec):  # another of the same name is what a TFRecord had before
            _add_domain(feature, _PREDICTED.get(key, key) if selected else key, classes or 0, labels)
    text: str = text_format.MessageToString(schema)
    return text


def describes(text: str, expected: str) -> bool:
    """Whether a schema says what `schema_text` does, in whichever way protobuf puts it."""
    if text == expected:
        return True
    if len(text) > _LONGEST_ESCAPE * len(expected):
        return False
    try:
        one, other = (text_format.Parse(given, load().Schema()) for given in (text, expected))
    except (text_format.ParseError, RecursionError):
        return False
    return bool(one == other)


def joined(texts: Iterable[str]) -> str:
    """One schema for several splits; of a feature that is not the same in all of them, only its name and type."""
    schemas = [text_format.Parse(text, load().Schema()) for text in texts]
    found = [{feature.name: feature for feature in each.feature} for each in schemas]
    whole = load().Schema()
    for name, feature in sorted({name: feature for each in found for name, feature in each.items()}.items()):
        if all(each.get(name) == feature for each in found):
            whole.feature.append(feature)
        else:
            whole.feature.add(name=name, type=feature.type)
    text: str = text_format.MessageToString(whole)
    return text


def load() -> Any:
    """The module of Schema; UsageError if it cannot be imported."""
    try:
        from tensorflow_metadata.proto.v0 import schema_pb2
    except ImportError as error:  # its newest release is not for the protobuf of TensorFlow 2.16 and 2.17
        raise UsageError(
            f"tensorflow-metadata does not fit the protobuf installed ({error}): pip install 'tensorflow-metadata<1.17'"
        ) from None
    return schema_pb2


def _add_feature(schema: schema_pb2.Schema, key: str, spec: FeatureSpec) -> schema_pb2.Feature:
    feature = schema.feature.add(name=key, type=load().FeatureType.Value(_TYPES[spec.dtype]))
    feature.presence.min_fraction = 1
    feature.presence.min_count = 1
    if None in spec.shape:
        feature.value_count.min = 0
        feature.presence.min_fraction = 0  # a record with no value at all counts as one without the feature
        feature.presence.min_count = 0
    else:
        feature.shape.SetInParent()
        for size in spec.shape:
            feature.shape.dim.add(size=size)
    return feature


def _add_domain(feature: schema_pb2.Feature, key: str, classes: int, labels: Sequence[str]) -> None:
    if key == record.ENCODED:
        feature.image_domain.SetInParent()
    elif key in (record.LABEL, record.LABELS, record.TRUTH_LABEL):  # UNKNOWN, of scores not a number, is an anomaly
        feature.int_domain.min = record.UNKNOWN if key == record.TRUTH_LABEL else 0
        if classes:
            feature.int_domain.max = classes - 1
        feature.int_domain.is_categorical = True
    elif key in (record.TEXT, record.TEXTS) and labels:
        feature.string_domain.value.extend(dict.fromkeys(labels))
    elif key in (record.CONFIDENCE, record.SCORES):
        feature.float_domain.min = 0
        feature.float_domain.max = 1
        feature.float_domain.disallow_nan = True
