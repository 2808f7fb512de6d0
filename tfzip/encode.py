"""Graph: tensors of a batch -> serialized `tf.train.Example`s, byte for byte as deterministic protobuf gives them.

An Example is a map of features, each a list inside a message inside a map entry. `tf.io.encode_proto` makes every level
of the small features, of all keys at once: few operations, so that the graph is built fast. It would copy the image at
each level, so the image gets its headers (tags and sizes) by themselves, and one join copies it once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfzip import record
from tfzip.formats import image_format
from tfzip.record import ENCODED, FeatureSpec
from tfzip.sources import Element

ROW = (
    "slot", "filename", "format", "label", "text", "confidence", "margin", "entropy", "nonfinite",
    "truth", "truth_text",
)  # fmt: skip
"""What leaves the graph beside the serialized records, for the index; the truth where the source knows it."""

_LISTS = {
    "bytes": ("tensorflow.BytesList", "bytes_list", tf.string),
    "float": ("tensorflow.FloatList", "float_list", tf.float32),
    "int64": ("tensorflow.Int64List", "int64_list", tf.int64),
}
"""Per dtype: the message of a feature's list, the field of Feature that holds it, and what it is made from."""


def encoder(
    written: Mapping[str, FeatureSpec],
    reparsed: Mapping[str, FeatureSpec] | None = None,
    *,
    brought: Iterable[str] = (),
    index_scores: bool,
) -> Callable[[Element], Element]:
    """A graph function over a batch: adds `serialized` [B], and keeps of the rest only what the index needs.

    Args:
        written: the features that tfzip makes; keys are written in sorted order.
        reparsed: what an `example` that the items bring keeps of its features; None to keep it as it is, and append
            what is written: parsers merge the two (protobuf.dev/programming-guides/encoding, Last One Wins).
        brought: the features that an `example` may have, kept or not; one with another fails. Empty to allow any.
        index_scores: whether the index wants the scores too.
    """
    features = {**(reparsed or {}), **written}

    def encode(batch: Element) -> Element:
        values = batch | _image_values(batch)
        values["format"] = values[record.FORMAT]
        row = {name: values[name] for name in ROW if name in values}
        if index_scores:
            row["scores"] = values[record.SCORES]
        if "example" in batch and reparsed is not None:
            _refuse_others(batch["example"], list(brought))
            values |= tf.io.parse_example(batch["example"], {key: parsing(key, spec) for key, spec in reparsed.items()})
        serialized = serialize({key: (features[key], values[key]) for key in sorted(features)})
        if "example" in batch and reparsed is None:
            serialized = tf.strings.join([batch["example"], serialized])
        return row | {"serialized": serialized}

    return encode


def _refuse_others(examples: tf.Tensor, keys: list[str]) -> None:
    """InvalidArgumentError if one of the serialized Examples [B] has a feature of another key."""
    if not keys:
        return
    _, (features,) = tf.io.decode_proto(examples, "tensorflow.Example", ["features"], [tf.string])
    sizes, (entries,) = tf.io.decode_proto(features[:, 0], "tensorflow.Features", ["feature"], [tf.string])
    _, (found,) = tf.io.decode_proto(entries, "tensorflow.Features.FeatureEntry", ["key"], [tf.string])
    found, present = found[..., 0], tf.sequence_mask(sizes[:, 0], tf.shape(entries)[1])
    unknown = present & ~tf.reduce_any(found[..., tf.newaxis] == keys, axis=-1)
    names = tf.strings.reduce_join(tf.boolean_mask(found, unknown), separator=", ")
    message = tf.strings.join(["the records before have no feature ", names])
    tf.raw_ops.Assert(condition=~tf.reduce_any(unknown), data=[message])


def parsing(key: str, spec: FeatureSpec) -> Any:
    """How `tf.io.parse_example` reads a feature; ragged where it varies in length."""
    kind = _LISTS[spec.dtype][2]
    if None in spec.shape:
        return tf.io.RaggedFeature(kind, value_key=key, row_splits_dtype=tf.int64)
    return tf.io.FixedLenFeature(spec.shape, kind)


def _image_values(batch: Element) -> Element:
    """The features that every record has, from what the source and the decoder gave."""
    kept = batch.get("stored", batch["encoded"])
    truth = {record.TRUTH_LABEL: batch["truth"], record.TRUTH_TEXT: batch["truth_text"]} if "truth" in batch else {}
    return {
        ENCODED: kept,
        record.FILENAME: batch["filename"],
        record.FORMAT: image_format(kept),
        record.SOURCE_ID: tf.strings.as_string(batch["position"]),
        record.HEIGHT: batch["height"],
        record.WIDTH: batch["width"],
        **truth,
    }


# The wire format (protobuf.dev/programming-guides/encoding).


def serialize(features: Mapping[str, tuple[FeatureSpec, tf.Tensor]]) -> tf.Tensor:
    """Values [B, ...] by key, keys in the order to be written -> serialized Examples [B].

    Equal to `SerializeToString(deterministic=True)` of the same Examples where the keys are sorted.
    """
    keys = list(features)
    before = keys.index(ENCODED) if ENCODED in features else 0
    one = tf.fill((tf.shape(features[keys[0]][1])[0], 1), 1)
    pieces = _image_entry(features[ENCODED][1], one) if ENCODED in features else []
    if others := {key: features[key] for key in keys if key != ENCODED}:
        first, last = tf.split(_entries(others, one), (before, len(others) - before), axis=1)
        pieces = [*_joined(first, one), *pieces, *_joined(last, one)]
    size = tf.add_n([tf.strings.length(piece) for piece in pieces])
    return tf.strings.join([_header(_FIRST, size, one), *pieces])


_FIRST = b"\x0a"
"""The tag of a message's field 1, of any type that is preceded by its size."""


def _image_entry(image: tf.Tensor, one: tf.Tensor) -> list[tf.Tensor]:
    """The image [B] behind the headers of its BytesList, Feature, entry of the map, and Features: outermost first."""
    pieces, size = [image], tf.strings.length(image)
    key = ENCODED.encode()
    for tag in (_FIRST, _FIRST, _FIRST + bytes([len(key)]) + key + b"\x12", _FIRST):
        pieces.insert(0, _header(tag, size, one))
        size += tf.strings.length(pieces[0])
    return pieces


def _header(tag: bytes, size: tf.Tensor, one: tf.Tensor) -> tf.Tensor:
    """What stands before the contents of a field: its tag, and their size [B] as a varint. `one` is 1 in [B, 1]."""
    numbers = tf.expand_dims(tf.cast(size, tf.int64), 1)
    lists = tf.io.encode_proto(one, [numbers], ["value"], "tensorflow.Int64List")
    return tf.strings.join([tag, tf.strings.substr(lists, 2, 10)])  # without the list's own tag and size


def _joined(entries: tf.Tensor, one: tf.Tensor) -> list[tf.Tensor]:
    """The entries of a map [B, keys] one behind the other, as Features has them; nothing if there are none."""
    count = entries.shape[1]
    return [tf.io.encode_proto(count * one, [entries], ["feature"], "tensorflow.Features")] if count else []


def _entries(features: Mapping[str, tuple[FeatureSpec, tf.Tensor]], one: tf.Tensor) -> tf.Tensor:
    """The entries of the map, serialized: [B, keys]."""
    lists = tf.expand_dims(_lists(features, one), 2)
    kinds = [[[features[key][0].dtype == dtype for dtype in _LISTS] for key in features]]
    one = tf.expand_dims(one, 2)
    values = tf.io.encode_proto(
        one * np.array(kinds, np.int32),
        [lists] * len(_LISTS),
        [field for _, field, _ in _LISTS.values()],
        "tensorflow.Feature",
    )
    return tf.io.encode_proto(
        one * np.ones((1, len(features), 2), np.int32),
        [tf.broadcast_to([[[key] for key in features]], tf.shape(lists)), tf.expand_dims(values, 2)],
        ["key", "value"],
        "tensorflow.Features.FeatureEntry",
    )


def _lists(features: Mapping[str, tuple[FeatureSpec, tf.Tensor]], one: tf.Tensor) -> tf.Tensor:
    """The BytesList, FloatList or Int64List of each key, serialized: [B, keys]. Scalars of one dtype go together."""
    done: list[str] = []
    lists = []
    for dtype, (message, _, kind) in _LISTS.items():
        scalars = [key for key, (spec, _) in features.items() if spec == FeatureSpec(dtype)]
        if scalars:
            values = tf.stack([tf.cast(features[key][1], kind) for key in scalars], axis=1)
            sizes = tf.expand_dims(one, 2) * np.ones((1, len(scalars), 1), np.int32)
            lists.append(tf.io.encode_proto(sizes, [tf.expand_dims(values, 2)], ["value"], message))
            done += scalars
    for key, (spec, values) in features.items():
        if key not in done:
            lists.append(tf.expand_dims(_list(spec.dtype, values, one), 1))
            done.append(key)
    return tf.gather(tf.concat(lists, axis=1), [done.index(key) for key in features], axis=1)


def _list(dtype: str, values: tf.Tensor | tf.RaggedTensor, one: tf.Tensor) -> tf.Tensor:
    """Values [B, ...] (or ragged [B, None]) as B serialized lists."""
    message, _, kind = _LISTS[dtype]
    if isinstance(values, tf.RaggedTensor):
        sizes, values = tf.expand_dims(tf.cast(values.row_lengths(), tf.int32), 1), values.to_tensor()
    else:
        values = values if values.shape.rank == 2 else tf.reshape(values, (tf.shape(one)[0], -1))
        sizes = one * tf.shape(values)[1]
    return tf.io.encode_proto(sizes, [tf.cast(values, kind)], ["value"], message)
