"""Predictions made elsewhere: an array in the source's order, or a table joined by filename."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import naming, record, storage, truth
from tfzip.errors import SourceError, UsageError
from tfzip.inputs import Input
from tfzip.labels import ClassNames
from tfzip.naming import to_str
from tfzip.predict import names_of, read
from tfzip.predictor import Predictor
from tfzip.record import UNKNOWN, FeatureSpec
from tfzip.sources import Element, Listed, Stream, region
from tfzip.sources.columns import column_of
from tfzip.sources.table import FILENAME_COLUMNS, read_columns
from tfzip.tasks import Task

_SHOWN = 3  # names in an error
_JUDGED = 1000  # rows whose values tell what scores are


@dataclass(frozen=True)
class Given:
    """Predictions, one an item.

    `scores` [N, classes] or None; `columns` what is known otherwise: `label`, `text`, `confidence`, all [N] or missing.
    `rows` finds the row of a filename; None where row i is of the source's item i. `names` are class names, if the
    predictions bring them. If `brought`, items have them already, and the arrays only tell what they are like.
    """

    name: str
    scores: npt.NDArray[Any] | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    rows: Mapping[bytes, int] | None = None
    names: Sequence[str] = ()
    path: str | None = None
    brought: bool = False

    @property
    def classes(self) -> int:
        """The number of scores of an item, 0 if there are none."""
        return 0 if self.scores is None else self.scores.shape[1]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file, or of the arrays."""
        digest = hashlib.sha256()
        if self.path is not None:
            with storage.open(self.path, "rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.scores) if self.scores is not None else len(next(iter(self.columns.values())))


# Reading.


def load(path: str | os.PathLike[str]) -> Given:
    """Predictions from a `.npy` file of scores or labels in source order, or from a table (`.csv`, `.jsonl`).

    An array is float [N, classes], [N, 1] or [N] (the probability or logit of the second class), or int [N]: labels. A
    table has a column of filenames and either `prediction` (the class's name) or `label` (its number), and `confidence`
    if it likes, or a column of scores for each class, whose names are those of the columns.

    Raises SourceError for a file that cannot be read so.
    """
    shown = os.fspath(path)
    if not storage.exists(shown):
        raise SourceError(f"{shown}: no such file")
    if shown.endswith(".npy"):
        return _from_array(shown)
    if shown.endswith((".csv", ".jsonl", ".ndjson")):
        return _from_table(shown)
    raise SourceError(f"{shown}: predictions are a .npy, .csv or .jsonl file")


def _from_array(path: str) -> Given:
    try:
        if storage.is_local(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with storage.open(path, "rb") as file:
                array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path}: not a .npy file that can be read ({error})") from None
    if array.dtype.kind in "iu" and array.ndim == 1:
        return Given(path, columns={"label": np.asarray(array, np.int64)}, path=path)
    if array.dtype.kind == "f" and array.ndim in (1, 2) and array.size:
        return Given(path, scores=array.reshape(len(array), -1), path=path)
    shape = "x".join(map(str, array.shape))
    raise SourceError(f"{path} holds {array.dtype} {shape}: give float [N, classes], float [N] or int [N]")


def _from_table(path: str) -> Given:
    columns = read_columns(path)
    usual = {name.lower(): name for name in reversed(list(columns))}
    named = next((usual[name] for name in FILENAME_COLUMNS if name in usual), None)
    if named is None:
        raise SourceError(f"{path}: none of its columns {', '.join(columns)} is named filename")
    filenames = [naming.to_bytes(str(value)) for value in columns.pop(named)]
    rows = {filename: row for row, filename in enumerate(filenames)}
    if len(rows) < len(filenames):
        raise SourceError(f"{path}: it has two rows of {_repeated(filenames)}")
    typed = {name: column_of(values) for name, values in columns.items()}
    labelled = _labelled(typed)
    if labelled:
        return Given(path, columns=labelled, rows=rows, path=path)
    scores = {name: column for name, column in typed.items() if column.dtype.kind in "if"}
    if not scores:
        raise SourceError(f"{path}: it has no column prediction or label, and none of scores")
    stacked = np.stack(list(scores.values()), axis=1).astype(np.float32)
    return Given(path, scores=stacked, rows=rows, names=list(scores) if len(scores) > 1 else (), path=path)


def _repeated(filenames: Sequence[bytes]) -> str:
    seen: set[bytes] = set()
    return naming.to_text(next(name for name in filenames if name in seen or seen.add(name)))  # type: ignore[func-returns-value]


def _labelled(typed: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns `label`, `text` and `confidence` of a table that names the class."""
    found: dict[str, npt.NDArray[Any]] = {}
    if "label" in typed and typed["label"].dtype.kind == "i":
        found["label"] = typed["label"]
    text = typed.get("prediction", typed.get("label") if "label" not in found else None)
    if text is not None:
        found["text"] = np.array([str(v).encode() if not isinstance(v, bytes) else v for v in text.tolist()], object)
    if found and "confidence" in typed and typed["confidence"].dtype.kind in "if":
        found["confidence"] = typed["confidence"].astype(np.float32)
    return found


# Against the source.


def check(given: Given, source: Listed | Stream, *, partial: bool) -> None:
    """Raise UsageError where predictions and items are not of the same images.

    Without filenames they must be as many; with them, each must have the other, unless `partial`. What a stream has is
    only seen later: an item without a prediction is then a failure.
    """
    if given.rows is None:
        count = len(source.filenames) if isinstance(source, Listed) else source.count
        if source.rejected:
            first = source.rejected[0]
            raise UsageError(
                f"{given.name} is in the order of {source.name}, but {naming.shown(first.filename)} in it cannot be "
                f"used ({first.error}): give a table with filenames"
            )
        if count is not None and count != len(given):
            raise UsageError(f"{given.name} holds {len(given)} predictions, but {source.name} {count} images")
        return
    if partial or isinstance(source, Stream) or not source.unique:
        return
    missing = [name for name in source.filenames if name not in given.rows]
    left = given.rows.keys() - set(source.filenames)
    for names, what in ((missing, f"{given.name} has no prediction of"), (sorted(left), f"{source.name} has no image")):
        if names:
            shown = ", ".join(naming.to_text(name) for name in names[:_SHOWN])
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            raise UsageError(f"{what} {shown}{more} (--allow-partial goes on without)")


def _add_up(given: Given) -> bool | None:
    """Whether the scores of an item are probabilities that add up to one; None if in 0..1 they do not."""
    assert given.scores is not None
    some = np.asarray(given.scores[:_JUDGED], np.float64)
    if (some < 0).any() or (some > 1).any():
        return False
    return True if given.classes == 1 or np.allclose(some.sum(axis=1), 1, atol=1e-2) else None


def settle(given: Given, *, task: str, scores: str, threshold: float, names: ClassNames) -> Task:
    """The task that predictions are of, as asked, or as their values tell.

    Raises UsageError where that cannot be known.
    """
    if not given.classes:
        if task not in ("auto", "multiclass"):
            raise UsageError(f"--task {task}: {given.name} holds one class an image, which is multiclass")
        texts = given.columns.get("text")
        known = names.any() or (() if texts is None else tuple(sorted({to_str(text) for text in texts.tolist()})))
        return Task("multiclass", (), 0, logits=False, threshold=0.0, names=known)
    adding_up = _add_up(given)
    if task == "auto":
        if given.classes > 1 and adding_up is None:
            raise UsageError(f"{given.name}: its scores do not add up to one: say --task multilabel or --scores logits")
        task = "binary" if given.classes == 1 else "multiclass"
    if task not in ("multiclass", "multilabel", "binary") or (task == "binary") != (given.classes == 1):
        raise UsageError(f"--task {task}: {given.name} holds {given.classes} scores an image")
    if scores == "auto" and adding_up is False and not given.brought:
        raise UsageError(f"{given.name}: some scores lie outside 0..1: say --scores logits, if they are")
    classes = max(given.classes, 2)
    return Task(task, (), classes, scores == "logits", threshold if task == "multilabel" else 0.0, names.of(classes))


def features(given: Given, task: Task) -> dict[str, FeatureSpec]:
    """The features in which predictions are kept."""
    if given.classes:
        return record.prediction_features(task.name, task.classes)
    found = {record.LABEL: FeatureSpec("int64"), record.TEXT: FeatureSpec("bytes")}
    return found | ({record.CONFIDENCE: FeatureSpec("float")} if "confidence" in given.columns else {})


def as_predictor(given: Given) -> Predictor:
    """What stands where a model would."""
    nothing = Input(name="", takes="predictions", dtype=tf.float32, batch=None, rank=0)
    name = given.name.rpartition("/")[2]
    return Predictor(name, "predictions", given.fingerprint, None, nothing, None, False, tuple(given.names), given)


# The graph.


def predicter(task: Task) -> Callable[[Element], Element]:
    """A graph function over a batch: the predictions that `finder` added become features."""
    label_of = truth.finder(task.names, ())

    def predict(batch: Element) -> Element:
        found = {name.removeprefix(_KEY): value for name, value in batch.items() if name.startswith(_KEY)}
        batch = {name: value for name, value in batch.items() if not name.startswith(_KEY)}
        if "scores" in found:
            return batch | read(task, batch["slot"], found["scores"])
        label = found["label"] if "label" in found else label_of(found["text"])
        text = found["text"] if "text" in found else names_of(label, task)
        nothing = tf.fill(tf.shape(label), float("nan"))
        confidence = found.get("confidence", nothing)
        features = {record.LABEL: label, record.TEXT: text, record.CONFIDENCE: confidence}
        row = {"label": label, "text": text, "confidence": confidence, "margin": nothing, "entropy": nothing}
        return batch | features | row

    return predict


_KEY = "given/"


def finder(given: Given) -> Callable[[Element], Element]:
    """A graph function over one item: adds its prediction, as `given/scores` or `given/label`, `given/text`, ...

    An item that has none fails.
    """
    if given.brought:
        return lambda item: item
    columns = {name: tf.constant(values) for name, values in given.columns.items()}
    find = _row_finder(given)
    read = None if given.scores is None else _scores_reader(given)

    def add(item: Element) -> Element:
        row = find(item)
        known = {_KEY + name: tf.gather(values, row) for name, values in columns.items()}
        if read is not None:
            known[_KEY + "scores"] = read(row)
        return {**item, **known}

    return add


def _row_finder(given: Given) -> Callable[[Element], tf.Tensor]:
    if given.rows is None:
        return lambda item: item["position"]
    rows = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(
            tf.constant(list(given.rows), tf.string), tf.constant(list(given.rows.values()), tf.int64)
        ),
        UNKNOWN,
    )

    def find(item: Element) -> tf.Tensor:
        row = rows.lookup(item["filename"])
        with tf.control_dependencies([tf.debugging.Assert(row != UNKNOWN, [f"{given.name} has no prediction of it"])]):
            return tf.identity(row)

    return find


def _scores_reader(given: Given) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function: a row -> its scores; those of a local file stay there, mapped into memory."""
    assert given.scores is not None
    classes, (scores, start) = given.classes, _flat(given.scores)

    def read(row: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.slice(scores, [start + row * classes], [classes]), tf.float32)

    return read


def _flat(scores: npt.NDArray[Any]) -> tuple[tf.Tensor, int]:
    """The scores as a flat tensor, and where in it they begin: a `.npy` file has a header of whole numbers of them."""
    if isinstance(scores, np.memmap) and scores.flags.c_contiguous and scores.filename:
        return region.values(str(scores.filename), tf.as_dtype(scores.dtype)), scores.offset // scores.itemsize
    return tf.constant(np.ascontiguousarray(scores).reshape(-1)), 0
