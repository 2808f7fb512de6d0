"""Predictions made elsewhere, joined to the items of a source: by filename, or in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import naming, record, truth
from tfzip.errors import UsageError
from tfzip.given import Given
from tfzip.inputs import Input
from tfzip.labels import ClassNames
from tfzip.naming import to_str
from tfzip.predict import names_of, read
from tfzip.predictor import Predictor
from tfzip.record import UNKNOWN, FeatureSpec
from tfzip.sources import Element, Listed, Stream, region
from tfzip.tasks import Task

_SHOWN = 3  # names in an error
_JUDGED = 1000  # rows that are looked at at once; the first so many tell whether scores add up to one
_FLOATS = (np.float16, np.float32, np.float64)

# Against the source.


def check(given: Given, source: Listed | Stream, *, partial: bool, skipping: bool) -> None:
    """Raise UsageError where predictions and items are seen not to be of the same images.

    Without filenames they must be as many; with them, each must have the other, unless `partial`, but for predictions
    of images that `skipping` leaves out. What cannot be seen beforehand `Coverage` sees as the items come.
    """
    if given.brought:
        return
    if given.rows is None:
        _check_order(given, source, partial=partial, skipping=skipping)
    elif not partial and isinstance(source, Listed) and source.unique:
        _refuse_missing(given, [name for name in source.filenames if name not in given.rows])
        if not skipping:
            _refuse_left(source, given.rows.keys() - set(source.filenames))


def _check_order(given: Given, source: Listed | Stream, *, partial: bool, skipping: bool) -> None:
    for option, is_set in (("--allow-partial", partial), ("--skip-in", skipping)):
        if is_set:
            raise UsageError(f"{option} needs predictions with filenames; {given.name} is an array: give a table")
    if source.rejected:
        first = source.rejected[0]
        raise UsageError(
            f"{given.name} is in the order of {source.name}, but {naming.shown(first.filename)} in it cannot be "
            f"used ({first.error}): give a table with filenames"
        )
    count = len(source.filenames) if isinstance(source, Listed) else source.count
    if count not in (None, len(given)):
        raise _unequal(given, source, str(count))


class Coverage:
    """Which predictions have found their image, as items come whose number or names were not known before."""

    def __init__(self, given: Given, source: Listed | Stream) -> None:
        self._given, self._source = given, source
        self._used = np.zeros(len(given), bool)
        self._count = 0
        self._unread = 0

    def add(self, count: int, filenames: Sequence[bytes]) -> None:
        """Note a batch of so many items, and the names of those that were read; UsageError if one has no prediction."""
        self._count += count
        self._unread += count - len(filenames)
        rows = self._given.rows
        if rows is None and self._count > len(self._used):
            raise _unequal(self._given, self._source, "more")
        if rows is not None:
            _refuse_missing(self._given, [name for name in filenames if name not in rows])
            self._used[[rows[name] for name in filenames]] = True

    def finish(self) -> None:
        """UsageError if predictions are left over, more than the items that could not be read."""
        if self._given.rows is None and self._count < len(self._used):
            raise _unequal(self._given, self._source, str(self._count))
        if self._given.rows is not None and np.count_nonzero(~self._used) > self._unread:
            used = self._used.tolist()
            _refuse_left(self._source, {name for name, row in self._given.rows.items() if not used[row]})


def _unequal(given: Given, source: Listed | Stream, count: str) -> UsageError:
    return UsageError(f"{given.name} holds {len(given)} predictions, but {source.name} {count} images")


def _refuse_missing(given: Given, missing: Sequence[bytes]) -> None:
    if missing:
        raise UsageError(f"{given.name} has no prediction of {_some(missing)} (--allow-partial goes on without)")


def _refuse_left(source: Listed | Stream, left: Set[bytes]) -> None:
    if left:
        raise UsageError(f"{source.name} has no image {_some(sorted(left))} (--allow-partial goes on without)")


def _some(names: Sequence[bytes]) -> str:
    shown = ", ".join(naming.to_text(name) for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _add_up(given: Given) -> bool | None:
    """Whether the scores of an item are probabilities that add up to one; None if in 0..1 they do not."""
    assert given.scores is not None
    chunks = (given.scores[start : start + _JUDGED] for start in range(0, len(given.scores), _JUDGED))
    if any(((chunk < 0) | (chunk > 1)).any() for chunk in chunks):
        return False
    some = np.asarray(given.scores[:_JUDGED], np.float64)
    some = some[np.isfinite(some).all(axis=1)]
    return True if given.classes == 1 or np.allclose(some.sum(axis=1), 1, atol=1e-2) else None


def settle(given: Given, *, task: str, scores: str, threshold: float, names: ClassNames) -> Task:
    """The task that predictions are of, as asked, or as their values tell.

    Raises UsageError where that cannot be known.
    """
    if not given.classes:
        if task not in ("auto", "multiclass"):
            raise UsageError(f"--task {task}: {given.name} holds one class an image, which is multiclass")
        texts = given.columns.get("text")
        sorted_texts = () if texts is None else tuple(sorted({to_str(text) for text in texts.tolist()}))
        # A label beside the text counts by an order of its own.
        known = names.any() or (() if "label" in given.columns else sorted_texts)
        return Task("multiclass", (), 0, logits=False, threshold=0.0, names=known)
    adding_up = _add_up(given)
    if task == "auto":
        if given.classes > 1 and adding_up is None:
            raise UsageError(f"{given.name}: its scores do not add up to one: say --task multilabel or --scores logits")
        task = "binary" if given.classes == 1 else "multiclass"
    if task not in ("multiclass", "multilabel", "binary") or (task == "binary") != (given.classes == 1):
        raise UsageError(f"--task {task}: {given.name} holds {given.classes} scores an image")
    if scores == "auto" and adding_up is False:
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


def finder(given: Given) -> Callable[[Element], Element]:
    """A graph function over one item: adds where its prediction is, as `given/row`. An item that has none fails.

    Items that have brought theirs, as `given/scores` or `given/label`, `given/text`, ..., stay as they are.
    """
    if given.brought:
        return lambda item: item
    find = _row_finder(given)
    return lambda item: {**item, _ROW: find(item)}


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
        tf.raw_ops.Assert(condition=row != UNKNOWN, data=[f"{given.name} has no prediction of it"])
        return row

    return find


def predicter(given: Given, task: Task) -> Callable[[Element], Element]:
    """A graph function over a batch: the predictions that `finder` found become features."""
    label_of = truth.finder(task.names, ())
    columns = {_KEY + name: tf.constant(values) for name, values in given.columns.items() if not given.brought}
    read_scores = None if given.brought or given.scores is None else _scores_reader(given)

    def fetched(batch: Element) -> Element:
        row = batch[_ROW]
        known = {name: tf.gather(values, row) for name, values in columns.items()}
        return {**batch, **known, **({} if read_scores is None else {_KEY + "scores": read_scores(row)})}

    def predict(batch: Element) -> Element:
        batch = batch if given.brought else fetched(batch)
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
_ROW = _KEY + "row"


def _scores_reader(given: Given) -> Callable[[tf.Tensor], tf.Tensor]:
    """A graph function: rows [B] -> their scores [B, classes]; those of a local file stay there, mapped into memory.

    It is mapped anew each time: for a batch, not for an item.
    """
    assert given.scores is not None
    classes, (flat, start) = given.classes, _flat(given.scores)

    def read(rows: tf.Tensor) -> tf.Tensor:
        places = start + tf.expand_dims(rows * classes, 1) + tf.range(classes, dtype=tf.int64)
        return tf.cast(tf.gather(flat(), places), tf.float32)

    return read


def _flat(scores: npt.NDArray[Any]) -> tuple[Callable[[], tf.Tensor], int]:
    """What gives the scores as a flat tensor, and where in it they begin.

    Most `.npy` files have a header of whole numbers of scores.
    """
    if isinstance(scores, np.memmap) and scores.filename and scores.flags.c_contiguous and scores.dtype in _FLOATS:
        start, rest = divmod(scores.offset, scores.itemsize)
        if not rest:
            path, dtype = str(scores.filename), tf.as_dtype(scores.dtype)
            return lambda: region.values(path, dtype), start
    copied = tf.constant(np.asarray(scores, np.float32, order="C").reshape(-1))
    return lambda: copied, 0
