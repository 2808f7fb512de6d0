"""Loops with `tf.train.Example` and `TFRecordWriter`, and a `TFRecordDataset` that is parsed.

As https://www.tensorflow.org/tutorials/load_data/tfrecord advises.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmark.work import Work

PACKAGES = ("tensorflow", "protobuf")


def write(work: Work, compression: str = "") -> Callable[[], None]:
    """An Example an image."""
    from benchmark import records

    def run() -> None:
        os.mkdir(work.out)
        serialized = (records.example(*sample) for sample in work.samples())
        records.write(os.path.join(work.out, "images.tfrecord"), serialized, compression)

    return run


def write_gzip(work: Work) -> Callable[[], None]:
    """The same with GZIP."""
    return write(work, "GZIP")


def copy(work: Work, compression: str = "") -> Callable[[], None]:
    """Records copied as they are: no prediction is added."""
    import tensorflow as tf

    from benchmark import records

    def run() -> None:
        os.mkdir(work.out)
        serialized = tf.data.TFRecordDataset(work.records).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
        records.write(os.path.join(work.out, "images.tfrecord"), serialized, compression)

    return run


def copy_gzip(work: Work) -> Callable[[], None]:
    """The same with GZIP."""
    return copy(work, "GZIP")


def read(work: Work) -> Callable[[], None]:
    """What tfzip wrote, read by a bare pipeline that parses the same features."""
    import tensorflow as tf

    from benchmark.peers import tfzip

    export = tfzip.written(work)
    types = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
    of_all = export.manifest["features"].items()
    features = {key: tf.io.FixedLenFeature(spec["shape"], types[spec["dtype"]]) for key, spec in of_all}
    files = sorted(tf.io.gfile.glob(os.path.join(work.out, "*.tfrecord-*")))

    def run() -> None:
        records = tf.data.TFRecordDataset(files, "GZIP").batch(64)
        parsed = records.map(lambda batch: tf.io.parse_example(batch, features), tf.data.AUTOTUNE)
        for _ in parsed.prefetch(tf.data.AUTOTUNE):
            pass

    return run
