"""ArrayRecord, one record a chunk, as TFDS and Grain have it for random access.

As https://github.com/google/array_record and https://google-grain.readthedocs.io/en/latest/data_sources.html advise.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

from benchmark.work import Work

PACKAGES = ("array_record", "protobuf")


def write(work: Work) -> Callable[[], None]:
    """An Example an image."""
    from array_record.python.array_record_module import ArrayRecordWriter

    from benchmark import records

    def run() -> None:
        os.mkdir(work.out)
        writer = ArrayRecordWriter(_path(work), "group_size:1")
        for sample in work.samples():
            writer.write(records.example(*sample))
        writer.close()

    return run


def get(work: Work) -> Callable[[], None]:
    """Every record once, at random, parsed."""
    import tensorflow as tf
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    write(work)()
    source = ArrayRecordDataSource(_path(work))
    rows = random.Random(0).sample(range(len(source)), len(source))

    def run() -> None:
        for row in rows:
            feature = tf.train.Example.FromString(source[row]).features.feature
            assert feature["image/encoded"].bytes_list.value[0]
            assert len(feature["prediction/scores"].float_list.value) == 1000

    return run


def _path(work: Work) -> str:
    return os.path.join(work.out, "images.array_record")
