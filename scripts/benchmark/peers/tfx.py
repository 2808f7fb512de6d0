"""TFX's BulkInferrer in a pipeline of its own, over Examples that are imported, in an environment of its own.

As https://www.tensorflow.org/tfx/guide/bulkinferrer advises. It takes a SavedModel with a signature of serialized
Examples, and copies the Examples with the scores added. Its TensorFlow and Keras are older ones; that Keras does not
read the other's files, so the model is built anew and gets the same weights.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmark.work import Work, read

PACKAGES = ("tfx", "tensorflow", "keras", "apache-beam")
ENVIRONMENT = ("--tfx", "test", "tfx")


def export(work: Work) -> Callable[[], float]:
    """Importers of Examples and of the model, then BulkInferrer."""
    from tfx import v1 as tfx
    from tfx.proto import bulk_inferrer_pb2

    examples, model = work.kept("tfx-examples"), work.kept("tfx-model")
    if not os.path.exists(model):
        _write_examples(work, examples)
        _save(work, model)
    artifacts = tfx.types.standard_artifacts
    images = tfx.dsl.Importer(examples, artifacts.Examples, properties={"split_names": '["train"]'}).with_id("images")
    saved = tfx.dsl.Importer(model, artifacts.Model).with_id("model")
    column = bulk_inferrer_pb2.PredictOutputCol(output_key="scores", output_column="prediction/scores")
    columns = bulk_inferrer_pb2.OutputColumnsSpec(
        predict_output=bulk_inferrer_pb2.PredictOutput(output_columns=[column])
    )
    inferrer = tfx.components.BulkInferrer(
        examples=images.outputs["result"],
        model=saved.outputs["result"],
        output_example_spec=bulk_inferrer_pb2.OutputExampleSpec(output_columns_spec=[columns]),
    )
    config = tfx.orchestration.metadata.sqlite_metadata_connection_config(f"{work.out}.db")
    pipeline = tfx.dsl.Pipeline(
        "bulk", work.out, components=[images, saved, inferrer], metadata_connection_config=config, enable_cache=False
    )
    loaded = _noting_when_loaded()

    def run() -> float:
        tfx.orchestration.LocalDagRunner().run(pipeline)
        return loaded[-1]

    return run


def _noting_when_loaded() -> list[float]:
    """The times at which models were loaded, by the function that BulkInferrer calls for it."""
    from tensorflow.compat.v1.saved_model import loader

    load, times = loader.load, [0.0]

    def noting(*args: Any, **kwargs: Any) -> Any:
        graph = load(*args, **kwargs)
        times.append(time.time())
        return graph

    loader.load = noting
    return times


def _write_examples(work: Work, folder: str) -> None:
    """The images as Examples, in a split as ExampleGen writes one."""
    from benchmark import records

    os.makedirs(os.path.join(folder, "Split-train"))
    serialized = (records.example(os.path.basename(path), read(path)) for path in work.files)
    records.write(os.path.join(folder, "Split-train", "data_tfrecord-00000-of-00001.gz"), serialized, "GZIP")


def _save(work: Work, folder: str) -> None:
    """The model as a SavedModel that takes serialized Examples."""
    import tensorflow as tf
    from keras.export import ExportArchive

    assert work.build is not None
    model = work.build()
    model.load_weights(work.weights)
    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}

    def load(encoded: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.image.resize(image, work.size)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string, name="examples")])
    def serve(examples: tf.Tensor) -> dict[str, tf.Tensor]:
        encoded = tf.io.parse_example(examples, features)["image/encoded"]
        pixels = tf.map_fn(load, encoded, fn_output_signature=tf.TensorSpec((*work.size, 3)))
        return {"scores": model(pixels)}

    archive = ExportArchive()
    archive.track(model)
    archive.add_endpoint("serving_default", serve)
    archive.write_out(os.path.join(folder, "Format-Serving"), verbose=False)
