"""`tf.train.Example` and TFRecord files, as TensorFlow's own guide writes them.

https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import tensorflow as tf


def example(filename: str, encoded: bytes, scores: Any = None) -> bytes:
    """A serialized Example of an image, with its prediction where there is one."""
    feature = {"image/encoded": _bytes(encoded), "image/filename": _bytes(filename.encode())}
    if scores is not None:
        feature["prediction/label"] = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(scores.argmax())]))
        feature["prediction/scores"] = tf.train.Feature(float_list=tf.train.FloatList(value=scores))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def write(path: str, serialized: Iterable[bytes], compression: str = "") -> None:
    """Write one TFRecord file."""
    with tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type=compression)) as writer:
        for record in serialized:
            writer.write(record)
