"""tfzip against its peers: every figure is a ratio of two runs made in turn on one machine; see `scripts/bench`.

The peer is what people write today: `model.predict` over a `tf.data` pipeline set up as TensorFlow's guide to input
pipelines advises, then a loop that writes a `tf.train.Example` an image with `tf.io.TFRecordWriter`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfzip

BATCH = 32  # what Keras takes if it is not told


def crops(height: int, width: int, count: int) -> Iterator[np.ndarray]:
    """Pieces of two photographs."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    pictures = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for number in range(count):
        picture = pictures[number % 2]
        top, left = rng.integers(0, picture.shape[0] - height), rng.integers(0, picture.shape[1] - width)
        yield picture[top : top + height, left : left + width]


def photographs(folder: str, count: int) -> None:
    """500x375, as JPEG of about 70 kB."""
    rng = np.random.default_rng(0)
    for number, crop in enumerate(crops(375, 500, count)):
        noisy = np.clip(crop + rng.normal(0, 4, crop.shape), 0, 255).astype(np.uint8)
        tf.io.write_file(f"{folder}/{number:05d}.jpg", tf.io.encode_jpeg(noisy, quality=90))


def thumbnails(folder: str, count: int) -> None:
    """32x32, as PNG."""
    for number, crop in enumerate(crops(32, 32, count)):
        tf.io.write_file(f"{folder}/{number:05d}.png", tf.io.encode_png(crop))


def mobilenet() -> Any:
    """MobileNetV2 behind its rescaling; random weights: it costs the same."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((224, 224, 3))
    network = keras.applications.MobileNetV2(weights=None)
    return keras.Model(pixels, network(keras.layers.Rescaling(1 / 127.5, -1)(pixels)))


def tiny() -> Any:
    """A small convolutional network for 32x32 pixels, ten classes."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def with_tfzip(folder: str, model: Any, out: str) -> None:
    """The whole export."""
    tfzip.export(folder, model, out, quiet=True)


def with_keras(folder: str, model: Any, out: str) -> None:
    """Predict all, then write all."""
    files = sorted(os.path.join(folder, name) for name in os.listdir(folder))
    height, width = model.inputs[0].shape[1:3]

    def load(path: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)
        return tf.image.resize(image, (height, width))

    images = tf.data.Dataset.from_tensor_slices(files).map(load, tf.data.AUTOTUNE)
    predictions = model.predict(images.batch(BATCH).prefetch(tf.data.AUTOTUNE), verbose=0)
    os.makedirs(out)
    with tf.io.TFRecordWriter(f"{out}/images.tfrecord") as writer:
        for path, scores in zip(files, predictions, strict=True):
            with open(path, "rb") as file:
                encoded = file.read()
            filename = os.path.basename(path).encode()
            feature = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
                "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[filename])),
                "prediction/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(scores.argmax())])),
                "prediction/scores": tf.train.Feature(float_list=tf.train.FloatList(value=scores)),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


WORKLOADS: dict[str, tuple[Callable[[str, int], None], Callable[[], Any], int]] = {
    "MobileNetV2, photographs": (photographs, mobilenet, 1),
    "tiny CNN, 32x32 PNG": (thumbnails, tiny, 64),
}
"""Images, model, and how many times the number of photographs there are."""

SIDES = {"tfzip": with_tfzip, "keras": with_keras}


def run_side(side: str, workload: str, folder: str, out: str) -> None:
    """In a process of its own: one whole run from the loaded model on; prints the seconds."""
    model = WORKLOADS[workload][1]()
    started = time.perf_counter()
    SIDES[side](folder, model, out)
    print(time.perf_counter() - started)


def timed(side: str, workload: str, folder: str) -> float:
    """The seconds that a side takes, measured in a fresh process; tfzip's is set up as its command line does."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, "--side", side, workload, folder, os.path.join(work, "out")]
        threads = {"TF_NUM_INTRAOP_THREADS": "1"} if side == "tfzip" else {}
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def measure(workload: str, folder: str, rounds: int) -> dict[str, Any]:
    """Run both sides in turn, after a round that does not count; the ratios are of rates, tfzip over Keras."""
    seconds = [{side: timed(side, workload, folder) for side in SIDES} for _ in range(rounds + 1)][1:]
    ratios = sorted(turn["keras"] / turn["tfzip"] for turn in seconds)
    images = len(os.listdir(folder))
    rates = {side: images / statistics.median(turn[side] for turn in seconds) for side in SIDES}
    return {"images": images, "rates": rates, "median": statistics.median(ratios), "ratios": ratios}


def main() -> None:
    """Measure every workload and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="that count, of each side")
    parser.add_argument("--images", type=int, default=512, help="photographs; there are 64 times as many thumbnails")
    parser.add_argument("--json", metavar="FILE", help="the results, for programs")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(*options.side)
        return
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} CPUs, {platform.machine()}")
    print(f"{'whole export, images/s':26} {'tfzip':>8} {'keras':>8} {'ratio':>6}   spread")
    results = {}
    for workload, (images, _, times) in WORKLOADS.items():
        with tempfile.TemporaryDirectory() as folder:
            images(folder, times * options.images)
            result = results[workload] = measure(workload, folder, options.rounds)
        rates, ratios = result["rates"], result["ratios"]
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(
            f"{workload:26} {rates['tfzip']:8.0f} {rates['keras']:8.0f} {result['median']:6.2f}   {spread}", flush=True
        )
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
