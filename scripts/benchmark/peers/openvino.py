"""OpenVINO on the same model alone, with pixels that are ready: what the machine can do.

With the throughput hint and asynchronous requests, as
https://docs.openvino.ai/2025/openvino-workflow/running-inference/optimize-inference/high-level-performance-hints.html
advises; in float32, which tfzip's results are, and in the precision that OpenVINO chooses by itself.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmark.work import Work, read

PACKAGES = ("openvino",)
READY = 64  # as many different images lie ready


def infer_float32(work: Work) -> Callable[[], float]:
    """Inference in float32."""
    return infer(work, {"INFERENCE_PRECISION_HINT": "f32"})


def infer(work: Work, hints: dict[str, str] | None = None) -> Callable[[], float]:
    """As many images as there are files, in batches of the size that turns out fastest; only that run counts."""
    import openvino

    converted, ready = work.kept("openvino.xml"), work.kept("pixels.npy")
    if not os.path.exists(ready):
        _convert(work, converted)
        np.save(ready, _pixels(work))
    core = openvino.Core()
    model, pixels, count = core.read_model(converted), np.load(ready), len(work.files)
    compiled = []
    for batch in work.batches:
        model.reshape([batch, *work.size, 3])
        compiled.append(core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "THROUGHPUT", **(hints or {})}))

    def run() -> float:
        seconds = [_seconds(each, batch, pixels, count) for batch, each in zip(work.batches, compiled, strict=True)]
        return time.time() - min(seconds)

    return run


def _seconds(compiled: Any, batch: int, pixels: Any, count: int) -> float:
    """What as many images take. No callback takes results out: OpenVINO can wait for itself for ever after one."""
    from openvino import AsyncInferQueue

    queue = AsyncInferQueue(compiled)
    parts = [pixels[at : at + batch] for at in range(0, len(pixels) - batch + 1, batch)]
    calls = max(1, count // batch)
    started = time.time()
    for call in range(calls):
        queue.start_async({0: parts[call % len(parts)]}, share_inputs=True)
    queue.wait_all()
    return (time.time() - started) * count / (calls * batch)


def _convert(work: Work, to: str) -> None:
    import keras
    import openvino

    saved = work.kept("saved-model")
    keras.models.load_model(work.model).export(saved, verbose=False)
    openvino.save_model(openvino.convert_model(saved), to, compress_to_fp16=False)


def _pixels(work: Work) -> Any:
    """Some of the images as the model takes them: float32, 0..255."""
    import tensorflow as tf

    batch = max(work.batches)
    files = (work.files * batch)[: max(READY, batch)]
    images = (tf.io.decode_image(read(path), channels=3, expand_animations=False) for path in files)
    return np.stack([tf.image.resize(image, work.size).numpy() for image in images])
