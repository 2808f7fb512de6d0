"""tfzip against its peers: every figure is a ratio of two runs made in turn on one machine; see `scripts/bench`.

The peer is what people write today: `model.predict` over a `tf.data` pipeline set up as TensorFlow's guide to input
pipelines advises, then a loop that writes a `tf.train.Example` an image with `tf.io.TFRecordWriter`. Where predictions
are made elsewhere it is a loop that copies the records, and adds nothing.
`policies.py` tells of the policies and their peer.
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
from dataclasses import dataclass
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import policies
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


def tfrecords(folder: str, count: int) -> None:
    """The photographs as one TFRecord file, uncompressed, and scores of a thousand classes for each."""
    photographs(folder, count)
    with tf.io.TFRecordWriter(f"{folder}/images.tfrecord") as writer:
        for name in sorted(os.listdir(folder)):
            if name.endswith(".jpg"):
                writer.write(example(os.path.join(folder, name), {}))
    scores = np.random.default_rng(0).random((count, 1000), np.float32)
    np.save(f"{folder}/scores.npy", scores / scores.sum(axis=1, keepdims=True))


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


def example(path: str, more: dict[str, tf.train.Feature]) -> bytes:
    """A serialized Example of a file, with its name and more."""
    with open(path, "rb") as file:
        encoded = file.read()
    feature = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded])),
        "image/filename": tf.train.Feature(bytes_list=tf.train.BytesList(value=[os.path.basename(path).encode()])),
        **more,
    }
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


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
            label = tf.train.Feature(int64_list=tf.train.Int64List(value=[int(scores.argmax())]))
            floats = tf.train.Feature(float_list=tf.train.FloatList(value=scores))
            writer.write(example(path, {"prediction/label": label, "prediction/scores": floats}))


def joining(compression: str) -> Callable[[str, Any, str], None]:
    """Predictions that exist already, joined to existing records."""
    return lambda folder, _, out: tfzip.export(
        f"tfrecord:{folder}/images.tfrecord",
        None,
        out,
        predictions=f"{folder}/scores.npy",
        compression=compression,
        quiet=True,
    )


def copying(compression: str) -> Callable[[str, Any, str], None]:
    """The records copied as they are."""

    def copy(folder: str, _: Any, out: str) -> None:
        os.makedirs(out)
        options = tf.io.TFRecordOptions(compression_type=compression)
        records = tf.data.TFRecordDataset(f"{folder}/images.tfrecord").prefetch(tf.data.AUTOTUNE)
        with tf.io.TFRecordWriter(f"{out}/images.tfrecord", options) as writer:
            for record in records.as_numpy_iterator():
                writer.write(record)

    return copy


@dataclass(frozen=True)
class Workload:
    """Images, how many times the number of photographs there are, the model, and what tfzip and its peer do."""

    images: Callable[[str, int], None]
    times: int
    model: Callable[[], Any]
    tfzip: Callable[[str, Any, str], None]
    peer: Callable[[str, Any, str], None]


WORKLOADS = {
    "MobileNetV2, photographs": Workload(photographs, 1, mobilenet, with_tfzip, with_keras),
    "tiny CNN, 32x32 PNG": Workload(thumbnails, 64, tiny, with_tfzip, with_keras),
    "TFRecords, gzip": Workload(tfrecords, 16, lambda: None, joining("gzip"), copying("GZIP")),
    "TFRecords, uncompressed": Workload(tfrecords, 16, lambda: None, joining("none"), copying("")),
}
SIDES = ("tfzip", "peer")
POLICIES = "policies"


def run_side(side: str, workload: str, folder: str, out: str) -> None:
    """In a process of its own: one whole run from the loaded model on; prints the seconds."""
    work = WORKLOADS[workload]
    model = work.model()
    started = time.perf_counter()
    getattr(work, side)(folder, model, out)
    print(time.perf_counter() - started)


def timed(side: str, workload: str, folder: str) -> float:
    """The seconds that a side takes, measured in a fresh process; tfzip's is set up as its command line does."""
    with tempfile.TemporaryDirectory() as work:
        command = [sys.executable, __file__, "--side", side, workload, folder, os.path.join(work, "out")]
        threads = {"TF_NUM_INTRAOP_THREADS": "1"} if side == "tfzip" else {}
        done = subprocess.run(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def measure(workload: str, images: int, folder: str, rounds: int) -> dict[str, Any]:
    """Run both sides in turn, after a round that does not count; the ratios are of rates, tfzip over its peer."""
    seconds = [{side: timed(side, workload, folder) for side in SIDES} for _ in range(rounds + 1)][1:]
    ratios = sorted(turn["peer"] / turn["tfzip"] for turn in seconds)
    rates = {side: images / statistics.median(turn[side] for turn in seconds) for side in SIDES}
    return {"images": images, "rates": rates, "median": statistics.median(ratios), "ratios": ratios}


def export_table(names: list[str], images: int, rounds: int) -> dict[str, Any]:
    """Measure whole exports, and print a row for each."""
    print(f"{'whole export, images/s':26} {'tfzip':>8} {'peer':>8} {'ratio':>6}   spread")
    results = {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            count = WORKLOADS[name].times * images
            WORKLOADS[name].images(folder, count)
            result = results[name] = measure(name, count, folder, rounds)
        rates, ratios = result["rates"], result["ratios"]
        spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
        print(f"{name:26} {rates['tfzip']:8.0f} {rates['peer']:8.0f} {result['median']:6.2f}   {spread}", flush=True)
    return results


def main() -> None:
    """Measure every workload and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="that count, of each side")
    parser.add_argument("--images", type=int, default=512, help="photographs; 64 times as many thumbnails")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the index that policies choose from")
    names = [*WORKLOADS, POLICIES]
    parser.add_argument("--only", choices=names, metavar="WORKLOAD", help="one of: " + "; ".join(names))
    parser.add_argument("--json", metavar="FILE", help="the results, for programs")
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_side(*options.side)
        return
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}, {os.cpu_count()} CPUs, {platform.machine()}")
    chosen = [options.only] if options.only else names
    results = {}
    if exports := [name for name in chosen if name in WORKLOADS]:
        results |= export_table(exports, options.images, options.rounds)
    if POLICIES in chosen:
        results[POLICIES] = policies.measure(options.rows, options.rounds)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=2)


if __name__ == "__main__":
    main()
