"""Predict all, then write all: what people write today.

The pipeline is that of https://www.tensorflow.org/guide/data_performance (parallel map, batch, prefetch), the writer
that of https://www.tensorflow.org/tutorials/load_data/tfrecord.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmark.work import BATCH, Work, read

PACKAGES = ("tensorflow", "keras")


def export(work: Work) -> Callable[[], None]:
    """`model.predict` over a dataset of files, then a loop with a `TFRecordWriter`."""
    import keras
    import tensorflow as tf

    from benchmark import records

    model = keras.models.load_model(work.model)

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(image, work.size)

    def run() -> None:
        files = work.files
        images = tf.data.Dataset.from_tensor_slices(files).map(load, tf.data.AUTOTUNE)
        predictions = model.predict(images.batch(BATCH).prefetch(tf.data.AUTOTUNE), verbose=0)
        both = zip(files, predictions, strict=True)
        os.mkdir(work.out)
        serialized = (records.example(os.path.basename(path), read(path), scores) for path, scores in both)
        records.write(os.path.join(work.out, "images.tfrecord"), serialized)

    return run
