"""Graph: tensors of a batch -> serialized `tf.train.Example`s, byte for byte as deterministic protobuf gives them.

An Example is a map of features, each a list inside a message inside a map entry. `tf.io.encode_proto` for every level
would copy the image at each, so it makes only the innermost lists; the headers around them (tags and lengths) are
computed for all features of a batch at once, and one join copies the image once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfzip import record
from tfzip.record import ENCODED, FeatureSpec
from tfzip.sources import Element

ROW = ("slot", "filename", "label", "text", "confidence", "margin", "entropy", "truth", "truth_text")
"""What leaves the graph beside the serialized records, for the index."""

_LISTS = {"bytes": ("BytesList", b"\x0a"), "float": ("FloatList", b"\x12"), "int64": ("Int64List", b"\x1a")}
"""Per dtype: the message of a feature's list, and the tag of the field of Feature that holds it."""

_DTYPES = {"bytes": tf.string, "float": tf.float32, "int64": tf.int64}


def encoder(features: Mapping[str, FeatureSpec], *, index_scores: bool) -> Callable[[Element], Element]:
    """A graph function over a batch: adds `serialized` [B], and keeps of the rest only what the index needs.

    Args:
        features: of every record; keys are written in sorted order.
        index_scores: whether the index wants the scores too.
    """
    keys = sorted(features)

    def encode(batch: Element) -> Element:
        values = batch | _image_values(batch)
        row = {name: values[name] for name in ROW}
        if index_scores:
            row["scores"] = values[record.SCORES]
        return row | {"serialized": serialize({key: (features[key], values[key]) for key in keys})}

    return encode


def _image_values(batch: Element) -> Element:
    """The features that every record has, from what the source and the decoder gave."""
    kept = batch.get("stored", batch["encoded"])
    return {
        ENCODED: kept,
        record.FILENAME: batch["filename"],
        record.FORMAT: image_format(kept),
        record.SOURCE_ID: tf.strings.as_string(batch["position"]),
        record.HEIGHT: batch["height"],
        record.WIDTH: batch["width"],
        record.TRUTH_LABEL: batch["truth"],
        record.TRUTH_TEXT: batch["truth_text"],
    }


# The image's format.

_MAGIC = (
    ("jpeg", b"\xff\xd8\xff"),
    ("png", b"\x89PNG\r\n\x1a\n"),
    ("gif", b"GIF8"),
    ("bmp", b"BM"),
    ("webp", b"RIFF????WEBP"),
    ("jxl", b"\xff\x0a"),
    ("jxl", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("", b""),
)
"""How the bytes of each format begin; a question mark stands for any byte."""

_HEAD = max(len(magic) for _, magic in _MAGIC)


def image_format(encoded: tf.Tensor) -> tf.Tensor:
    """What the bytes [B] are, by how they begin: `jpeg`, `png`, `gif`, `bmp`, `webp`, `jxl`; empty if none of them."""
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD)
    patterns = np.array([list(magic.ljust(_HEAD, b"?")) for _, magic in _MAGIC], np.uint8)
    matches = tf.reduce_all((head[:, tf.newaxis] == patterns) | (patterns == ord("?")), axis=2)
    return tf.gather([name for name, _ in _MAGIC], tf.argmax(tf.cast(matches, tf.int32), axis=1))


# The wire format (protobuf.dev/programming-guides/encoding).


def serialize(features: Mapping[str, tuple[FeatureSpec, tf.Tensor]]) -> tf.Tensor:
    """Values [B, ...] by key, keys in the order to be written -> serialized Examples [B].

    Equal to `SerializeToString(deterministic=True)` of the same Examples where the keys are sorted.
    """
    small = [key for key in features if key != ENCODED]
    lists = _serialize_lists(small, features)
    if ENCODED not in features:
        head, heads, _ = _heads(features, small, _length(lists), tf.zeros_like(lists[0], tf.int64))
        return tf.strings.join([head, tf.strings.reduce_join(tf.strings.join([heads, lists]), axis=0)])
    image = features[ENCODED][1]
    image_length = _length(image)
    image_list_size = 1 + _varint_size(image_length) + image_length
    sizes = tf.concat([_length(lists), image_list_size[tf.newaxis]], axis=0)
    head, heads, image_head = _heads(features, [*small, ENCODED], sizes, image_length)
    entries = tf.strings.join([heads[:-1], lists])
    before = list(features).index(ENCODED)
    return tf.strings.join(
        [
            head,
            tf.strings.reduce_join(entries[:before], axis=0),
            heads[-1],
            image_head,
            image,
            tf.strings.reduce_join(entries[before:], axis=0),
        ]
    )


def _heads(
    features: Mapping[str, tuple[FeatureSpec, tf.Tensor]],
    keys: Sequence[str],
    list_sizes: tf.Tensor,
    image_length: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The bytes that stand before the whole [B], before the list of each key [keys, B], before the image [B].

    The whole is field 1 of Example. Each entry in it is field 1 of Features: its length, then field 1, the key, and
    field 2, a Feature: its length, then the field of its kind: the list's length, then the list. All the lengths of a
    batch become varints in one go, since each operation costs more than the few bytes it makes.
    """
    names = [b"\x0a" + _python_varint(len(key.encode())) + key.encode() + b"\x12" for key in keys]
    tags = [_LISTS[features[key][0].dtype][1] for key in keys]
    feature_sizes = 1 + _varint_size(list_sizes) + list_sizes
    entry_sizes = np.array([[len(name)] for name in names]) + _varint_size(feature_sizes) + feature_sizes
    total = tf.reduce_sum(1 + _varint_size(entry_sizes) + entry_sizes, axis=0)
    numbers = [entry_sizes, feature_sizes, list_sizes, total[tf.newaxis], image_length[tf.newaxis]]
    entry, feature, inner, whole, image = tf.split(_varint(tf.concat(numbers, axis=0)), [len(keys)] * 3 + [1, 1])
    name, tag = (tf.broadcast_to(tf.constant(texts)[:, tf.newaxis], tf.shape(entry)) for texts in (names, tags))
    heads = tf.strings.join([b"\x0a", entry, name, feature, tag, inner])
    return tf.strings.join([b"\x0a", whole[0]]), heads, tf.strings.join([b"\x0a", image[0]])


def _serialize_lists(keys: Sequence[str], features: Mapping[str, tuple[FeatureSpec, tf.Tensor]]) -> tf.Tensor:
    """The serialized BytesList, FloatList or Int64List of each key: [keys, B]. Scalars of one dtype go together."""
    lists: dict[str, tf.Tensor] = {}
    for dtype in _LISTS:
        scalars = [key for key in keys if features[key][0] == FeatureSpec(dtype)]
        if scalars:
            values = tf.stack([tf.cast(features[key][1], _DTYPES[dtype]) for key in scalars])
            encoded = _encode_list(dtype, tf.reshape(values, (-1, 1)))
            lists |= dict(zip(scalars, tf.unstack(tf.reshape(encoded, tf.shape(values)), len(scalars)), strict=True))
    for key in keys:
        if key not in lists:
            spec, values = features[key]
            lists[key] = _encode_list(spec.dtype, values)
    return tf.stack([lists[key] for key in keys])


def _encode_list(dtype: str, values: tf.Tensor | tf.RaggedTensor) -> tf.Tensor:
    """Values [B, ...] (or ragged [B, None]) as B serialized lists."""
    if isinstance(values, tf.RaggedTensor):
        sizes, values = values.row_lengths(), values.to_tensor()
    else:
        values = tf.reshape(values, (tf.shape(values)[0], -1))
        sizes = tf.fill((tf.shape(values)[0],), tf.shape(values)[1])
    return tf.io.encode_proto(
        sizes=tf.cast(sizes, tf.int32)[:, tf.newaxis],
        values=[tf.cast(values, _DTYPES[dtype])],
        field_names=["value"],
        message_type=f"tensorflow.{_LISTS[dtype][0]}",
    )


def _length(strings: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(strings), tf.int64)


_SHIFTS = (0, 7, 14, 21, 28)
"""Lengths below 2**35 bytes: five groups of seven bits."""

_VARINT_BYTES = [bytes([byte]) for byte in range(256)] + [b""]


def _varint(numbers: tf.Tensor) -> tf.Tensor:
    """Each number as a varint: seven bits a byte, lowest first, the high bit set on all but the last."""
    shifts = tf.reshape(tf.constant(_SHIFTS, tf.int64), (-1, *[1] * numbers.shape.rank))
    groups = tf.bitwise.right_shift(numbers[tf.newaxis], shifts)
    more = tf.cast(groups > 127, tf.int64)
    bytes_ = tf.where((groups > 0) | (shifts == 0), groups % 128 + 128 * more, 256)
    return tf.strings.reduce_join(tf.gather(tf.constant(_VARINT_BYTES), bytes_), axis=0)


def _varint_size(numbers: tf.Tensor) -> tf.Tensor:
    """How many bytes the varint of each number takes."""
    return 1 + sum(tf.cast(numbers >= 1 << shift, tf.int64) for shift in _SHIFTS[1:])


def _python_varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 128 for group in groups[:-1]] + groups[-1:])
