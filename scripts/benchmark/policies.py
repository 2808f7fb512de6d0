"""Every policy of `tfzip select` over the index of a million records; `scripts/bench` runs and prints it.

The peer is what people do without tfzip's columns: read metadata.csv with the `csv` module, or with pandas where it is
installed, and keep the labels that are confident enough. TensorFlow is imported by neither side.
"""

from __future__ import annotations

import csv
import io
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np

import tfzip
from benchmark.measure import process
from benchmark.memory import peak
from tfzip import cli, policy, record, schema, selection
from tfzip.index import save_part, write_index
from tfzip.rules import Rules

CLASSES = 10
SHARD = 10_000
KNOWN = 0.5  # the share of images whose truth is known
SURE = 0.9

POLICIES: dict[str, dict[str, Any]] = {
    "a confidence for all": {"min_confidence": SURE},
    "a confidence for a class": {"min_confidence": {"class 3": 0.99, "*": SURE}},
    "adaptive": {"adaptive": 0.95},
    "margin": {"min_margin": 0.5},
    "entropy": {"max_entropy": 0.5},
    "per class": {"per_class": 50_000},
    "limit": {"limit": 100_000},
    "per class, balanced": {"per_class": 50_000, "balance": True},
    "truth": {"use_truth": True},
    "validation": {"validation": 0.1},
    "calibrated": {"calibrate": True},
    "mean of two exports": {"others": ["two"]},
    "agreement of two exports": {"others": ["two"], "combine": "agree"},
    "soft, sharpened": {"soft": True, "temperature": 0.5},
    "all of one export": {
        "min_confidence": 0.5, "min_margin": 0.1, "max_entropy": 1.5, "per_class": 50_000, "limit": 400_000,
        "balance": True, "use_truth": True, "calibrate": True, "validation": 0.1, "soft": True,
    },
}  # fmt: skip
COMPARED = "a confidence for all"
"""The policy that peers have."""
DRY_RUN = "tfzip select --dry-run"


# The indexes.


def write_exports(folder: str, rows: int) -> None:
    """Two exports of the same images by models that err on different ones; of each all but the shards."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, CLASSES, rows)
    order = rng.permutation(rows)
    known = np.where(rng.random(rows) < KNOWN, truth, record.UNKNOWN)
    for name, at in {"one": np.arange(rows), "two": order}.items():
        write_export(f"{folder}/{name}", at, truth[at], known[at], rng)


def write_export(out: str, images: Any, truth: Any, known: Any, rng: np.random.Generator) -> None:
    """The index of an export of images, told by their numbers."""
    os.makedirs(out)
    labels = [f"class {number}" for number in range(CLASSES)]
    features = record.image_features(images=False, truth=True) | record.prediction_features("multiclass", CLASSES)
    with tempfile.TemporaryDirectory() as parts:
        begins, paths = range(0, len(images), SHARD), []
        for shard, begin in enumerate(begins):
            part = slice(begin, begin + SHARD)
            paths.append(f"{parts}/{shard}.npz")
            write_part(paths[-1], labels, images[part], truth[part], known[part], rng)
        sizes = [min(SHARD, len(images) - begin) for begin in begins]
        facts = manifest(labels, features, sizes)
        write_index(f"{out}/index.zip", facts, labels, schema.schema_text(features, labels), paths, [])


def write_part(path: str, labels: list[str], images: Any, truth: Any, known: Any, rng: np.random.Generator) -> None:
    """The rows of one shard: scores that lean towards the truth, some more than others."""
    logits = rng.normal(size=(len(images), CLASSES)) * 2
    logits[np.arange(len(images)), truth] += rng.exponential(4, len(images))
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    scores = (scores / scores.sum(axis=1, keepdims=True)).astype(np.float32)
    said = policy.of_scores(np.empty(0, np.uint64), scores)
    columns = {
        "offset": np.arange(len(images)) * 100,
        "size": np.full(len(images), 100),
        "start": np.zeros(len(images)),
        **{name: getattr(said, name) for name in ("label", "confidence", "margin", "entropy")},
        "truth": known,
        "nonfinite": np.zeros(len(images), bool),
        "scores": scores,
    }
    names = np.array([*labels, ""], object)
    texts = {
        "filename": [b"photographs/%02d/%07d.jpg" % (image % 100, image) for image in images.tolist()],
        "prediction": [name.encode() for name in names[said.label]],
        "truth_text": [name.encode() for name in names[known]],
    }
    save_part(path, columns, texts)


def manifest(labels: list[str], features: Any, sizes: list[int]) -> dict[str, Any]:
    """What manifest.json has to tell of an export of shards with so many records."""
    names = [f"images-train.tfrecord-{number:05d}-of-{len(sizes):05d}" for number in range(len(sizes))]
    rows = sum(sizes)
    shards = [
        {"file": name, "records": size, "bytes": size * 100, "sha256": "0" * 64}
        for name, size in zip(names, sizes, strict=True)
    ]
    return {
        "format_version": record.FORMAT_VERSION,
        "tfzip_version": tfzip.__version__,
        "name": "images",
        "split": "train",
        "layout": "flat",
        "compression": "none",
        "counts": {"images": rows, "records": rows, "failures": 0, "ignored": 0, "nonfinite": 0},
        "source": {"kind": "folder", "labels": "folder"},
        "task": "multiclass",
        "threshold": None,
        "min_score": None,
        "labels": {"names": labels, "from": "file"},
        "pixels": None,
        "image": "none",
        "formats": ["png"],
        "tfds": {},
        "image_key": record.ENCODED,
        "model": {
            "name": "made up", "format": "none", "sha256": None, "signature": None, "input": "", "output": None,
            "scores": "probabilities", "takes": "predictions",
        },
        "batch_size": 1,
        "parallel": 1,
        "shuffle": None,
        "limit": None,
        "features": {key: {"dtype": spec.dtype, "shape": list(spec.shape)} for key, spec in features.items()},
        "shards": shards,
    }  # fmt: skip


# What is measured, each in a process of its own.


def with_rules(folder: str, name: str) -> int:
    """How many rows tfzip chooses; soft labels are made of all of them."""
    asked = POLICIES[name]
    others = [f"{folder}/{other}" for other in asked.get("others", ())]
    rules = Rules(**{**asked, "others": others})
    chosen = selection.select_rows(tfzip.open(f"{folder}/one"), rules)
    if chosen.scores is not None:
        chosen.scores(chosen.choice.rows)
    return len(chosen.choice.rows)


def with_csv(folder: str) -> int:
    """How many rows the `csv` module finds that are confident enough."""
    with zipfile.ZipFile(f"{folder}/one/index.zip") as archive, archive.open("metadata.csv") as file:
        rows = csv.DictReader(io.TextIOWrapper(file, "utf-8", newline=""))
        chosen = [(row["filename"], row["label"]) for row in rows if float(row["confidence"]) >= SURE]
    return len(chosen)


def with_pandas(folder: str) -> int:
    """How many rows pandas finds that are confident enough."""
    import pandas

    with zipfile.ZipFile(f"{folder}/one/index.zip") as archive, archive.open("metadata.csv") as file:
        table = pandas.read_csv(file)
    return len(table[table["confidence"] >= SURE][["filename", "label"]])


PEERS: dict[str, Callable[[str], int]] = {"metadata.csv, csv module": with_csv, "metadata.csv, pandas": with_pandas}


def run(folder: str, name: str) -> None:
    """In a process of its own: prints the seconds it takes once all is imported, and the megabytes at most."""
    started = time.perf_counter()
    if name == DRY_RUN:
        cli.main(["select", f"{folder}/one", "--out", f"{folder}/out", "--min-confidence", str(SURE), "--dry-run"])
        chosen = None
    else:
        chosen = PEERS[name](folder) if name in PEERS else with_rules(folder, name)
    print(json.dumps([time.perf_counter() - started, peak(), chosen]))


def timed(folder: str, name: str) -> dict[str, Any]:
    """Seconds, megabytes and rows chosen; the dry run's seconds are those of the whole process."""
    started = time.perf_counter()
    told = process(sys.executable, "-m", "benchmark.policies", folder, name)
    whole = time.perf_counter() - started
    seconds, megabytes, chosen = json.loads(told)
    return {"seconds": whole if name == DRY_RUN else seconds, "megabytes": megabytes, "chosen": chosen}


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Measure all in turn, after a round that does not count, and print a table of medians; a ratio is the peer's."""
    names = [*POLICIES, DRY_RUN, *(name for name in PEERS if "pandas" not in name or find_spec("pandas"))]
    print(f"{f'policies, {rows} rows':30} {'seconds':>8} {'MB':>6} {'chosen':>8}")
    with tempfile.TemporaryDirectory() as folder:
        write_exports(folder, rows)
        turns = [{name: timed(folder, name) for name in names} for _ in range(rounds + 1)][1:]
    results = {}
    for name in names:
        result = results[name] = {
            "seconds": statistics.median(turn[name]["seconds"] for turn in turns),
            "megabytes": statistics.median(turn[name]["megabytes"] for turn in turns),
            "chosen": turns[0][name]["chosen"],
        }
        told = ""
        if name in PEERS:
            result["ratio"] = statistics.median(turn[name]["seconds"] / turn[COMPARED]["seconds"] for turn in turns)
            told = f"{result['ratio']:.1f} times as long as {COMPARED!r}"
        chosen = "" if result["chosen"] is None else result["chosen"]
        print(f"{name:30} {result['seconds']:8.2f} {result['megabytes']:6.0f} {chosen:>8}  {told}".rstrip(), flush=True)
    return results


if __name__ == "__main__":
    run(*sys.argv[1:])
