"""Exports of which only the index is there, made in no time of any rows: whatever reads no image reads them."""

from pathlib import Path

import numpy as np

import tfzip
from tfzip import lookup, record
from tfzip.index import COLUMNS, save_part, write_index

_SCORED = (record.CONFIDENCE, record.SCORES)


def give_hashes(monkeypatch, hashed):
    """Filenames get other hashes than SHA-256 gives them; `hashed`: bytes -> int."""
    monkeypatch.setattr(lookup, "digest", lambda name: hashed(name).to_bytes(8, "little"))


def write_indexed(folder, filenames, *, labels=(), task="multiclass", **columns):
    """An export of records of these filenames (bytes), opened; `columns` are those of the index that matter."""
    count, folder = len(filenames), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows = {name: np.zeros(count, dtype) for name, dtype in COLUMNS.items() if name != "shard"}
    rows |= {"truth": np.full(count, -1, np.int32), **{name: np.asarray(values) for name, values in columns.items()}}
    texts = {"filename": filenames, **dict.fromkeys(("prediction", "truth_text"), [b""] * count)}
    part = str(folder / "rows.npz")
    save_part(part, rows, texts)
    write_index(str(folder / "index.zip"), _manifest(count, labels, task), labels, "", [part], [])
    return tfzip.open(folder)


def _manifest(count, labels, task):
    features = record.image_features(images=False, truth=False)
    features |= {key: spec for key, spec in record.prediction_features(task, 0).items() if key not in _SCORED}
    empty = dict.fromkeys(("sha256", "signature", "output", "scores"))
    return {
        "format_version": 1,
        "tfzip_version": "",
        "name": "images",
        "split": "train",
        "layout": "flat",
        "compression": "none",
        "counts": {"images": count, "records": count, "failures": 0, "ignored": 0, "nonfinite": 0},
        "source": {"kind": "items", "labels": "none"},
        "task": task,
        "threshold": None,
        "min_score": None,
        "labels": {"names": list(labels), "from": "file" if labels else "none"},
        "pixels": None,
        "image": "none",
        "formats": ["png"],
        "tfds": {},
        "image_key": "image/encoded",
        "model": {"name": "", "format": "predictions", "input": "", "takes": "predictions", **empty},
        "batch_size": 1,
        "parallel": 1,
        "shuffle": None,
        "limit": None,
        "features": {key: {"dtype": spec.dtype, "shape": list(spec.shape)} for key, spec in features.items()},
        "shards": [
            {"file": "images-train.tfrecord-00000-of-00001", "records": count, "bytes": 0, "sha256": "0" * 64},
        ],
    }
