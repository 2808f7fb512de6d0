"""Exports of every kind that a report is made of, few records each, and what their records say."""

import itertools
import json
import shutil
from collections import defaultdict

import numpy as np
import tensorflow as tf

import tfzip
from tfzip import naming

AT_ONCE = {"batch_size": 16, "parallel": 1, "quiet": True}  # not tuned, which takes seconds

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script><script>alert(3)</script>",
    "javascript:alert(4)",
    "' onmouseover='alert(5)",
    "{{7*7}}{% raw %}",
    "\u202egpj.exe",
    "\x1b[31mred",
    "two\nlines",
    "&lt;b&gt; &amp;",
    "<!--",
    "${alert(6)}",
    "写真の名前",
    "</title></style></textarea><svg/onload=alert(7)>",
]


def digits(digits, model, below):
    """Digits with their truth, some of them predicted wrong, and two files that are no images; an awkward path."""
    folder = below / "in"
    shutil.copytree(digits[0], folder, ignore=shutil.ignore_patterns("*[1379].png"))
    (folder / "3" / "empty.png").touch()
    (folder / "3" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return tfzip.export(folder, model, below / """it's "here" & $HOME""", source_labels="folder", **AT_ONCE)


def hostile(photographs, model, below):
    """Names of files, classes, truths, columns and of the folder itself that try to be more than text."""
    folder, rows = below / "in", []
    for number, path in enumerate(sorted(photographs.rglob("*.*"))[:60]):
        name = f"{number}{HOSTILE[number % len(HOSTILE)]}{path.suffix}"
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"nothing" if number < len(HOSTILE) else path.read_bytes())
        word = HOSTILE[number % 7]
        rows.append({"filename": name, "label": word, "note": word, "<b>": word})
    rows.append({**rows[0], "filename": f"missing{HOSTILE[0]}.png"})
    table = below / "in.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = below / (HOSTILE[1] + HOSTILE[5] + HOSTILE[6] + HOSTILE[7])
    options = {"root": str(folder), "labels": HOSTILE[:7], "label_column": "label", "filename_column": "filename"}
    return tfzip.export(table, model, out, name="hostile", **options, **AT_ONCE)


def multilabel(photographs, _, below):
    import keras

    large = keras.initializers.RandomNormal(stddev=0.2, seed=1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    last = keras.layers.Dense(5, activation="sigmoid", kernel_initializer=large)
    model = keras.Sequential([keras.layers.Input((32, 32, 3)), *layers, last])
    return tfzip.export(photographs, model, below / "out", task="multilabel", labels=list("abcde"), **AT_ONCE)


class _Detector(tf.Module):
    """Boxes that are other ones in each image; some reach beyond it."""

    @tf.function(input_signature=[tf.TensorSpec([None, 64, 64, 3], tf.float32)])
    def __call__(self, pixels):
        mean = tf.reduce_mean(pixels, [1, 2, 3]) / 255
        one = [0.1 + 0 * mean, 0.1 + mean / 3, 0.5 + mean / 2, 0.6 + mean / 3]
        other = [0.6 - mean, 0.5 * mean - 0.3, 0.95 + mean, 0.5 + mean / 2]
        classes = [tf.cast(mean * 3, tf.int64), tf.ones_like(mean, tf.int64)]
        boxes = tf.stack([tf.stack(one, 1), tf.stack(other, 1)], 1)
        return {"boxes": boxes, "scores": tf.stack([mean, 1 - mean], 1), "classes": tf.stack(classes, 1)}


def detection(photographs, _, below):
    options = {"task": "detection", "scale": "raw", "output": "boxes,scores,classes", "min_score": 0.3}
    return tfzip.export(
        photographs, _Detector(), below / "out", labels=["person", "car", "tree"], limit=80, **options, **AT_ONCE
    )


def raw(photographs, _, below):
    def model(pixels):
        mean = tf.reduce_mean(pixels, [1])
        return {"embedding": mean, "number": tf.cast(pixels[:, 0, 0, 0], tf.int64), "constant": 0 * mean[:, 0, 0]}

    options = {"task": "raw", "image_size": "32x32", "scale": "raw"}
    return tfzip.export(photographs, model, below / "out", limit=50, **options, **AT_ONCE)


def no_images(photographs, model, below):
    return tfzip.export(photographs, model, below / "out", image="none", layout="tfx", limit=90, **AT_ONCE)


def _numbered(count):
    rng = np.random.default_rng(count)
    return [f"{number:04d}.png" for number in range(count)], rng.integers(0, 256, (count, 5, 7, 3), np.uint8)


def only_labels(_, __, below):
    """Predictions without any confidence."""
    labels = np.random.default_rng(0).integers(0, 4, 40)
    return tfzip.write(tfzip.zip(labels, *_numbered(40)), below / "out", quiet=True)


def one(_, __, below):
    """One record of two classes, one of which is nowhere."""
    scores = np.array([[0.25, 0.75]], np.float32)
    return tfzip.write(tfzip.zip(scores, *_numbered(1)), below / "out", labels=["no", "yes"], quiet=True)


def many(_, __, below):
    """More classes than the page has rows for, predictions that are not numbers, confidences equal to a threshold."""
    count, rng = 1500, np.random.default_rng(4)
    scores = rng.dirichlet(np.full(1200, 0.003), count).astype(np.float32)
    scores[np.arange(count), np.arange(count) % 1100] += np.float32(1.5)
    scores /= scores.sum(1, keepdims=True)
    scores[:20], scores[:20, :2] = 0, [np.float32(0.7), np.float32(0.3)]
    scores[20:25] = np.nan
    labels = [f"class {number}" for number in range(1200)]
    return tfzip.write(tfzip.zip(scores, *_numbered(count)), below / "out", labels=labels, quiet=True)


KINDS = {
    "digits": digits, "hostile": hostile, "multilabel": multilabel, "detection": detection, "raw": raw,
    "no_images": no_images, "only_labels": only_labels, "one": one, "many": many,
}  # fmt: skip


class Said:
    """What the records of an export say, read one by one: the page is compared with this."""

    def __init__(self, export):
        self.export = export
        self.records = {naming.printable(naming.shown(record.filename)): record for record in export.records()}
        assert len(self.records) == len(export)
        self.confidence = None if export.manifest["task"] == "raw" else export.metadata["confidence"]
        self.classes = defaultdict(list)  # the rows of each, by name
        for row, record in enumerate(self.records.values()):
            for text in dict.fromkeys(self.texts(record)):
                self.classes[naming.printable(text)].append(row)

    @staticmethod
    def texts(record):
        said = record.prediction
        if said.texts is not None:
            return said.texts
        return [] if said.label is None or said.label < 0 else [said.text]

    def words(self, record):
        """What a search may find of a record."""
        truth = [] if record.truth is None else [record.truth.text]
        return [naming.printable(text) for text in (naming.shown(record.filename), *self.texts(record), *truth)]

    def passes(self, threshold, name=None):
        """[N]: whether a record, of a class or of any, is as sure as that, and its prediction one to learn from."""
        sure = np.isfinite(self.confidence) & (self.confidence >= np.float32(threshold))
        if self.export.manifest["task"] in ("multiclass", "binary"):
            sure &= self.export.metadata["label"] >= 0
        return sure if name is None else sure[self.classes[name]]

    def histogram(self, bins, name=None):
        values = self.confidence if name is None else self.confidence[self.classes[name]]
        edges = [np.float32(place / bins) for place in range(bins)] + [np.float32(np.inf)]
        return [int(((values >= low) & (values < high)).sum()) for low, high in itertools.pairwise(edges)]
