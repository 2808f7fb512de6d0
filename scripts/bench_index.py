"""What an index costs: to build, to open, to look a filename up in it; and `dataset()` against a bare pipeline.

    .venv/bin/python scripts/bench_index.py [--rows N] [--rounds N]

The index is built of rows made up, 10,000 a shard, with scores of ten classes; the rows of its first shard are those of
real records, photographs of about 70 kB, which are looked up. The bare pipeline is `TFRecordDataset` and
`parse_example`, set up as TensorFlow's guide to input pipelines advises: parsed in parallel, a batch at a time where
there are batches, prefetched.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfzip
from tfzip import index

ROWS = 10_000  # a shard
CLASSES = [f"class {number}" for number in range(10)]
PHOTOGRAPHS, TINY = 1000, 100_000
LOOKUPS = 500
SINGLY = 10_000  # records at most, where they are not in batches: a loop takes most of the time


def scores(count: int, seed: int = 0) -> np.ndarray:
    """Of ten classes: [count, 10]."""
    return np.random.default_rng(seed).dirichlet(np.ones(len(CLASSES)), count).astype(np.float32)


def photographs() -> Iterator[bytes]:
    """500x375, as JPEG of about 70 kB: a hundred, again and again."""
    import tensorflow as tf

    rng, pictures = np.random.default_rng(0), []
    for _ in range(100):
        coarse = tf.image.resize(rng.integers(0, 256, (12, 16, 3)), (375, 500), "bicubic").numpy()
        noisy = np.clip(coarse + rng.normal(0, 9, coarse.shape), 0, 255).astype(np.uint8)
        pictures.append(tf.io.encode_jpeg(noisy, quality=90).numpy())
    return (pictures[number % 100] for number in range(PHOTOGRAPHS))


def dots() -> Iterator[bytes]:
    """2x2, as PNG: the least records there can be."""
    import tensorflow as tf

    pictures = [tf.io.encode_png(np.full((2, 2, 3), number, np.uint8)).numpy() for number in range(256)]
    return (pictures[number % 256] for number in range(TINY))


def write_export(out: str, count: int, pictures: Callable[[], Iterator[bytes]]) -> None:
    """An export of so many pictures."""
    names = [f"real/{number:08d}.jpg" for number in range(count)]
    triples = tfzip.zip(scores(count), names, pictures())
    tfzip.write(triples, out, labels=CLASSES, scores="probabilities", quiet=True)


def real_rows(export: tfzip.Export) -> tuple[dict[str, np.ndarray], dict[str, list[bytes]]]:
    """The rows of an export as `index.save_part` takes them."""
    names = [name.encode() for name in export.metadata["filename"]]
    columns = {name: np.array(values) for name, values in export.metadata.items() if name not in ("filename", "shard")}
    return columns, texts(names, columns["label"])


def made_up(shard: int, count: int) -> tuple[dict[str, np.ndarray], dict[str, list[bytes]]]:
    """The same, of records that are nowhere, six in each gzip member."""
    ordered = np.sort(values := scores(count, shard))
    columns = {name: np.zeros(count, dtype) for name, dtype in index.COLUMNS.items() if name != "shard"}
    columns |= {
        "offset": np.arange(count) // 6 * 31_000,
        "size": np.full(count, 31_000),
        "start": np.arange(count) % 6 * 5000,
        "label": np.argmax(values, axis=1),
        "confidence": ordered[:, -1],
        "margin": ordered[:, -1] - ordered[:, -2],
        "truth": np.full(count, -1),
        "scores": values,
    }
    names = [b"cats/%08d.jpg" % number for number in range(shard * ROWS, shard * ROWS + count)]
    return columns, texts(names, columns["label"])


def texts(filenames: list[bytes], labels: np.ndarray) -> dict[str, list[bytes]]:
    """The texts of rows."""
    predictions = [CLASSES[label].encode() for label in labels.tolist()]
    return {"filename": filenames, "prediction": predictions, "truth_text": [b""] * len(filenames)}


def write_parts(folder: str, out: str, rows: int) -> tuple[dict[str, Any], list[str]]:
    """The manifest and the parts of an index that begins with the records of `out`."""
    with tfzip.open(out) as export:
        manifest, (columns, said) = dict(export.manifest), real_rows(export)
    counts = [len(said["filename"])]
    while sum(counts) < rows:
        counts.append(min(ROWS, rows - sum(counts)))
    manifest["counts"] = {**manifest["counts"], "images": sum(counts), "records": sum(counts)}
    manifest["shards"] = [
        {
            **manifest["shards"][0],
            "records": count,
            "file": f"images-train.tfrecord-{shard:05d}-of-{len(counts):05d}.gz",
        }
        for shard, count in enumerate(counts)
    ]
    os.rename(f"{out}/images-train.tfrecord-00000-of-00001.gz", f"{out}/{manifest['shards'][0]['file']}")
    paths = [f"{folder}/rows-{shard}.npz" for shard in range(len(counts))]
    for shard, count in enumerate(counts):
        if shard:
            columns, said = made_up(shard, count)
        index.save_part(paths[shard], columns, said)
    return manifest, paths


def build(out: str, manifest: dict[str, Any], parts: list[str]) -> None:
    """Write the index, and tell what it took."""
    count_peak()
    seconds, busy = time.perf_counter(), time.process_time()
    index.write_index(f"{out}/index.zip", manifest, CLASSES, "", parts, [])
    seconds, busy = time.perf_counter() - seconds, time.process_time() - busy
    print(
        f"index of {manifest['counts']['records']:,} rows: {seconds:.1f} s, {busy:.1f} s of a processor, "
        f"{peak() or '?'} MB of memory at most, {os.path.getsize(f'{out}/index.zip') >> 20} MB of disk"
    )


def count_peak() -> None:
    """Have the peak of this process's memory counted from here on."""
    if sys.platform.startswith("linux"):
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")


def peak() -> int | None:
    """The peak in megabytes; None where the system does not tell."""
    if not sys.platform.startswith("linux"):
        return None
    with open("/proc/self/status") as file:
        found = re.search(r"VmHWM:\s*(\d+)", file.read())
    return int(found[1]) >> 10 if found else None


def read(out: str, real: int) -> None:
    """Open the export and look filenames up, and tell how long it takes."""
    opened = []
    for _ in range(20):
        began = time.perf_counter()
        with tfzip.open(out):
            opened.append(time.perf_counter() - began)
    print(f"open: {opened[0] * 1e3:.1f} ms the first time, then {told(opened[1:], 1e3, 'ms')}")
    export = tfzip.open(out)
    names = [f"real/{number:08d}.jpg" for number in np.random.default_rng(0).permutation(real)[:LOOKUPS]]
    for _ in range(2):  # the first time warms the cache of the disk
        taken = []
        for name in names:
            began = time.perf_counter()
            record = export[name]
            taken.append(time.perf_counter() - began)
            assert record.filename == name
    print(f"lookup of a record of {len(record.encoded) >> 10} kB: {told(taken, 1e3, 'ms')}")
    assert "tensorflow" not in sys.modules


def told(values: list[float], factor: float = 1, unit: str = "") -> str:
    """The median, and the spread."""
    middle, *ends = (f"{value * factor:.3f}" for value in (statistics.median(values), min(values), max(values)))
    return " ".join(filter(None, [middle, unit, f"({ends[0]} to {ends[1]})"]))


def bare(export: tfzip.Export, batch: int | None) -> Any:
    """The features of every record, as TensorFlow alone gives them."""
    import tensorflow as tf

    dtypes = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}
    features = {
        key: tf.io.FixedLenFeature(spec.shape, dtypes[spec.dtype]) for key, spec in sorted(export.features.items())
    }
    records = tf.data.TFRecordDataset(export.shards, "GZIP")
    if batch is None:
        parsed = records.map(lambda record: tf.io.parse_single_example(record, features), tf.data.AUTOTUNE)
    else:
        parsed = records.batch(batch).map(lambda some: tf.io.parse_example(some, features), tf.data.AUTOTUNE)
    return parsed.prefetch(tf.data.AUTOTUNE)


def compare(out: str, what: str, rounds: int) -> None:
    """Read a whole export with `dataset()` and with the bare pipeline, in turn, and tell the ratios of the rates."""
    export = tfzip.open(out)
    for batch in (None, 32):
        most = -1 if batch else SINGLY
        ours, theirs = (dataset.take(most) for dataset in (export.dataset(batch), bare(export, batch)))
        ratios, busy, rates = [], [], []
        for number in range(rounds + 1):
            pair = [ours, theirs] if number % 2 else [theirs, ours]
            took = {dataset is ours: drained(dataset) for dataset in pair}
            if number:  # the first one warms up
                ratios.append(took[False][0] / took[True][0])
                busy.append(took[False][1] / took[True][1])
                rates.append((len(export) if batch else min(len(export), SINGLY)) / took[True][0])
        name = f"dataset({'' if batch is None else batch})"
        print(f"{name} of {what}: {told(ratios)} of bare, {statistics.median(rates):,.0f} records/s", end="; ")
        print(f"by what the processor was busy: {told(busy)}")


def drained(dataset: Any) -> tuple[float, float]:
    """How long a dataset takes from its first to its last element; and how long a processor was busy with it."""
    began, busy = time.perf_counter(), time.process_time()
    for _ in dataset:
        pass
    return time.perf_counter() - began, time.process_time() - busy


def main() -> None:
    """Measure everything, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos, tiny, large = (os.path.join(folder, name) for name in ("photos", "tiny", "large"))
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:  # TensorFlow stays out of this one
            pool.submit(write_export, photos, PHOTOGRAPHS, photographs).result()
            pool.submit(write_export, large, PHOTOGRAPHS, photographs).result()
            pool.submit(write_export, tiny, TINY, dots).result()
        manifest, parts = write_parts(folder, large, args.rows)
        build(large, manifest, parts)
        for part in parts:
            os.remove(part)
        read(large, PHOTOGRAPHS)
        compare(photos, f"{PHOTOGRAPHS:,} photographs", args.rounds)
        compare(tiny, f"{TINY:,} tiny records", args.rounds)


if __name__ == "__main__":
    main()
