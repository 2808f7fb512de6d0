"""Apache Beam: files matched and read, RunInference with a key that keeps name and bytes, WriteToTFRecord.

As https://beam.apache.org/documentation/ml/about-ml/ and
https://beam.apache.org/documentation/transforms/python/elementwise/runinference-tensorflow/ advise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmark.work import Work

PACKAGES = ("apache-beam", "tensorflow", "tensorflow-hub")


def export(work: Work) -> Callable[[], float]:
    """One pipeline, by the runner that runs in this process."""
    import apache_beam as beam
    import tensorflow as tf
    from apache_beam.io import fileio
    from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
    from apache_beam.ml.inference.tensorflow_inference import TFModelHandlerTensor
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from benchmark import records

    loaded = [0.0]

    class Handler(TFModelHandlerTensor):
        def load_model(self) -> Any:
            model = super().load_model()
            loaded.append(time.time())
            return model

    def load(file: Any) -> Any:
        encoded = file.read()
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return (os.path.basename(file.metadata.path), encoded), tf.image.resize(image, work.size)

    def serialize(element: Any) -> bytes:
        (name, encoded), result = element
        return records.example(name, encoded, result.inference.numpy())

    def run() -> float:
        # Not DirectRunner, which first looks for another runner to download.
        with beam.Pipeline(runner=FnApiRunner()) as pipeline:
            _ = (
                pipeline
                | fileio.MatchFiles(os.path.join(work.images, "*"))
                | fileio.ReadMatches()
                | beam.Map(load)
                | RunInference(KeyedModelHandler(Handler(work.model)))
                | beam.Map(serialize)
                | beam.io.WriteToTFRecord(os.path.join(work.out, "images"), file_name_suffix=".tfrecord")
            )
        return loaded[-1]

    return run
