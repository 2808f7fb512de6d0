"""Graph: the images that few have, decoded by what is built when the first of them comes.

What decodes every kind of image has many operations, and branches: to build it takes longer than to build all the rest
of a graph, and each image takes longer that passes its branches by. So it is called by way of Python, once a batch.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Hashable, Mapping
from typing import Any

import tensorflow as tf

from tfzip import decode
from tfzip.sources import Element

_building = threading.Lock()


def decoded(batch: Element, spec: Mapping[str, tf.TensorSpec], how: Mapping[str, Hashable]) -> Element:
    """A batch as the source has it -> those of it that can be decoded, decoded.

    Args:
        batch: the items, with `encoded` [B].
        spec: what a batch is like when it is decoded.
        how: the arguments of `decode.decoder`.
    """
    added = sorted(spec.keys() - batch.keys())

    def run(encoded: tf.Tensor) -> list[tf.Tensor]:
        with tf.device("CPU:0"):
            rows = _function(**how)(encoded)
        return [rows[name] for name in ("place", *added)]

    place, *values = tf.py_function(run, [batch["encoded"]], [tf.int64, *(spec[name].dtype for name in added)])
    place = tf.ensure_shape(place, (None,))
    kept = {name: tf.gather(column, place) for name, column in batch.items()}
    return kept | {name: tf.ensure_shape(column, spec[name].shape) for name, column in zip(added, values, strict=True)}


def _function(**how: Any) -> Any:
    with _building:  # whoever else needs it waits, and does not build it too
        return _built(**how)


@functools.lru_cache(16)  # TensorFlow keeps for ever what is called by way of Python, and what that holds
def _built(**how: Any) -> Any:
    """Bytes [B] -> what the decoder makes of those that it can decode, and `place`, where each stood."""
    decode_one = decode.decoder(**how)

    def one(place: tf.Tensor, encoded: tf.Tensor) -> Element:
        values = decode_one({"encoded": encoded})
        return {"place": place} | {name: value for name, value in values.items() if name != "encoded"}

    def function(encoded: tf.Tensor) -> Element:
        items = tf.data.Dataset.from_tensor_slices(encoded).enumerate()
        made = items.map(tf.autograph.experimental.do_not_convert(one)).ignore_errors()
        return made.batch(tf.size(encoded, tf.int64)).get_single_element()

    return tf.function(function, [tf.TensorSpec([None], tf.string)], autograph=False).get_concrete_function()
