"""Ray Data: images read and resized, a class that predicts batches in actors, TFRecords written.

As https://docs.ray.io/en/latest/data/working-with-images.html and
https://docs.ray.io/en/latest/data/batch_inference.html advise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from benchmark.work import BATCH, Work, read

PACKAGES = ("ray", "tensorflow", "keras", "pyarrow")


class Predictor:
    """A model in an actor, that notes in a file when it was loaded."""

    def __init__(self, model: str, loaded: str) -> None:
        import keras

        self._model = keras.models.load_model(model)
        with open(loaded, "w", encoding="utf-8") as file:
            file.write(str(time.time()))

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The pixels leave; the files' own bytes, which Ray did not keep, are added."""
        scores = self._model.predict_on_batch(batch["image"])
        return {
            "image/filename": [os.path.basename(path) for path in batch["path"]],
            "image/encoded": [read(path) for path in batch["path"]],
            "prediction/label": scores.argmax(axis=1),
            "prediction/scores": list(scores),
        }


def export(work: Work) -> Callable[[], float]:
    """One pipeline: an actor for all cores but one, which reads."""
    import ray

    ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
    ray.data.DataContext.get_current().enable_progress_bars = False
    loaded = f"{work.out}-loaded"

    def run() -> float:
        images = ray.data.read_images(work.images, include_paths=True, size=work.size, mode="RGB")
        actors = max(1, (os.cpu_count() or 1) - 1)
        predicted = images.map_batches(
            Predictor,
            batch_size=BATCH,
            compute=ray.data.ActorPoolStrategy(size=actors),
            fn_constructor_args=(work.model, loaded),
        )
        predicted.write_tfrecords(work.out)
        return float(read(loaded))

    return run
