"""TFDS's writer of examples one after the other, without Beam.

As https://www.tensorflow.org/datasets/api_docs/python/tfds/core/SequentialWriter shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from benchmark.work import Work

PACKAGES = ("tensorflow-datasets", "tensorflow")
TOGETHER = 100  # each call writes the metadata anew


def write(work: Work) -> Callable[[], None]:
    """A data set of images, filenames and scores."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def run() -> None:
        tf.io.gfile.makedirs(work.out)
        identity = tfds.core.DatasetIdentity(name="images", version="1.0.0", data_dir=work.out, module_name="")
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "filename": tfds.features.Text(),
                "label": tfds.features.Scalar(tf.int64),
                "scores": tfds.features.Tensor(shape=(1000,), dtype=tf.float32),
            }
        )
        info = tfds.core.DatasetInfo(builder=identity, features=features)
        writer = tfds.core.SequentialWriter(info, max_examples_per_shard=1000)
        writer.initialize_splits(["train"])
        examples = (
            {"image": encoded, "filename": name, "label": scores.argmax(), "scores": scores}
            for name, encoded, scores in work.samples()
        )
        while some := list(islice(examples, TOGETHER)):
            writer.add_examples({"train": some})
        writer.close_all()

    return run
