"""A policy applied to an export, and to others of the same images: which records to train on, as what, how heavily."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import calibration, policy, record
from tfzip.errors import CorruptError, UsageError
from tfzip.matching import matched
from tfzip.policy import Choice, Policy, Predictions
from tfzip.read import Export
from tfzip.read import open as open_export
from tfzip.record import UNKNOWN
from tfzip.rules import FITTED, OTHERS, Rules

_LABEL = re.compile("[0-9]{1,18}")
_CHUNK = 1 << 22  # scores in memory at a time
_FITTED_SCORES = 1 << 25  # of these rows together

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


class Selection(NamedTuple):
    """What was selected of an export.

    Attributes:
        choice: the rows, in order, their weights, and which are for validation.
        label: of each row chosen, int64.
        confidence: of each row chosen, float32; 1 where the label is the truth.
        offered: how many predictions each class had to choose from, int64 [classes].
        temperature: by which the scores were calibrated; 1 if they were not.
        scores: rows -> their soft labels, float32 [rows, classes]; None where the class alone was asked for.
    """

    choice: Choice
    label: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    offered: npt.NDArray[np.int64]
    temperature: float
    scores: Callable[[Rows], Scores] | None


def select_rows(export: Export, rules: Rules) -> Selection:
    """Apply the rules to an export of class scores.

    Raises UsageError where they do not fit it, or choose nothing.
    """
    classes = _classes(export)
    asked = _policy(export, rules, classes)
    others = [other if isinstance(other, Export) else open_export(other) for other in rules.others]
    said = _Said(export, others, classes)
    temperature = said.fitted_temperature() if rules.calibrate else 1.0
    predictions = said.predictions(rules.combine, temperature)
    if rules.use_truth:
        if not (said.truth >= 0).any():
            raise UsageError(f"--use-truth: {_no_truth(export)}")
        predictions = _with_truth(predictions, said.truth)
    choice = policy.choose(predictions, asked, classes)
    if not len(choice.rows):
        raise UsageError(_nothing(export, predictions))
    chosen = predictions.of(choice.rows)
    return Selection(
        choice._replace(rows=said.rows[choice.rows]),
        chosen.label.astype(np.int64),
        chosen.confidence.astype(np.float32),
        np.bincount(predictions.label[predictions.label >= 0], minlength=classes),
        temperature,
        _soft_labels(said, rules, temperature) if rules.soft else None,
    )


def _soft_labels(said: _Said, rules: Rules, temperature: float) -> Callable[[Rows], Scores]:
    """Rows of the first export -> their soft labels; where the truth is used, all on it."""

    def of_places(places: Rows) -> Scores:
        found = said.scores(places, temperature)
        if rules.temperature != 1:
            found = policy.sharpened(found, rules.temperature)
        if rules.use_truth:
            known = np.flatnonzero(said.truth[places] >= 0)
            found[known] = 0
            found[known, said.truth[places[known]]] = 1
        return found

    def of_rows(rows: Rows) -> Scores:
        found = np.empty((len(rows), said.classes), np.float32)
        for part in _chunks(len(rows), said.classes):
            found[part] = of_places(np.searchsorted(said.rows, rows[part]))
        return found

    return of_rows


def _nothing(export: Export, predictions: Predictions) -> str:
    finite = predictions.confidence[np.isfinite(predictions.confidence)]
    most = f", the surest has a confidence of {finite.max():.4g}" if len(finite) else ""
    return f"{export.path}: nothing is selected of {len(predictions.label)} predictions{most}; ask for less"


def _no_truth(export: Export) -> str:
    return f"{export.path} knows the truth of no image; export with --source-labels folder, or a column of labels"


# What is asked, of this export.


def _classes(export: Export) -> int:
    """The number of classes; UsageError if an export's predictions are no single classes."""
    task = export.manifest["task"]
    if task not in ("multiclass", "binary"):
        raise UsageError(f"{export.path}: the task is {task}; only multiclass and binary predictions can be selected")
    shape = export.features[record.SCORES].shape if record.SCORES in export.features else ()
    if len(shape) != 1 or not shape[0]:
        raise UsageError(f"{export.path} holds labels without the scores of each class, which select needs")
    if shape[0] <= record.INDEXED_SCORES and "scores" not in export._index.column_names:
        raise CorruptError(f"{export.path}: the index lacks columns/scores.npy")
    return int(shape[0])


def _policy(export: Export, rules: Rules, classes: int) -> Policy:
    shared = {field.name for field in dataclasses.fields(Policy)} - {"min_confidence"}
    least = _confidences(export, rules.min_confidence, classes)
    return Policy(min_confidence=least, **{name: getattr(rules, name) for name in shared})


def _confidences(export: Export, asked: float | Mapping[str | int, float], classes: int) -> float | dict[int, float]:
    """The least confidence of every class, by label."""
    if not isinstance(asked, Mapping):
        return asked
    least: dict[int, float] = {}
    for name, value in asked.items():
        for label in _labels(export, name, classes) if name != OTHERS else ():
            if least.setdefault(label, value) != value:
                raise UsageError(f"--min-confidence: {least[label]} and {value} are both for the class {label}")
    return {**dict.fromkeys(range(classes), asked.get(OTHERS, 0.0)), **least}


def _labels(export: Export, name: str | int, classes: int) -> list[int]:
    """The labels of a class given by name, which several may have, or by label."""
    known = export.labels[:classes]
    if named := [label for label, each in enumerate(known) if each == name]:
        return named
    if _LABEL.fullmatch(str(name)) and int(name) < classes:
        return [int(name)]
    shown = known[:5] or [f"0 to {classes - 1}"]
    more = ", ..." if len(known) > len(shown) else ""
    raise UsageError(f"--min-confidence: {export.path} has no class {name!r}; it has {', '.join(shown)}{more}")


def _with_truth(predictions: Predictions, truth: npt.NDArray[Any]) -> Predictions:
    """The predictions, but the truth, which is sure, where it is known."""
    known = truth >= 0
    label = np.where(known, truth, predictions.label)
    sure = (np.where(known, value, column) for value, column in zip((1, 1, 0), predictions[2:], strict=True))
    return Predictions(predictions.key, label, *sure)


# What one export says, or several together.


class _Said:
    """The predictions of an export; with others those of the images that all of them hold.

    `rows` are these images' rows in the first one, ascending, `truth` their labels where it knows them, -1 elsewhere.
    """

    def __init__(self, export: Export, others: Sequence[Export], classes: int) -> None:
        self._exports = [export, *others]
        self.classes = classes
        self.rows = np.arange(len(export))
        for other in others:
            _check_same_classes(export, other)
        joined = [matched(export, other) for other in others]
        for mine, _ in joined:
            self.rows = np.intersect1d(self.rows, mine, assume_unique=True)
        self._at = [self.rows, *(its[np.searchsorted(mine, self.rows)] for mine, its in joined)]
        if not len(self.rows) and others:
            paths = " and ".join(str(each.path) for each in self._exports)
            raise UsageError(f"{paths} have no images in common; filenames must be the same in all")
        known = export.metadata["truth"][self.rows]
        self.truth = np.where(known < classes, known, UNKNOWN)

    def predictions(self, combine: str, temperature: float) -> Predictions:
        """One row for each of `rows`."""
        if temperature == 1 and (len(self._exports) == 1 or combine == "agree"):
            return policy.agreed([_columns(*each) for each in zip(self._exports, self._at, strict=True)])
        key = self._keys()
        places = np.arange(len(self.rows))
        chunks = [places[part] for part in _chunks(len(self.rows), self.classes)]
        parts = [policy.of_scores(key[places], self.scores(places, temperature)) for places in chunks]
        return Predictions(*map(np.concatenate, zip(*parts, strict=True)))

    def _keys(self) -> npt.NDArray[np.uint64]:
        return self._exports[0]._index.hashes()[self.rows]

    def fitted_temperature(self) -> float:
        """The temperature that fits what is said to the truth; of more than FITTED rows a sample, drawn by filename."""
        known = np.flatnonzero(self.truth >= 0)
        most = min(FITTED, max(1, _FITTED_SCORES // self.classes))
        if len(known) > most:
            known = np.sort(known[np.argpartition(self._keys()[known], most)[:most]])
        scores = self.scores(known, 1.0)
        finite = np.isfinite(scores).all(axis=1)
        if not finite.any():
            raise UsageError(f"--calibrate: {_no_truth(self._exports[0])}")
        return calibration.temperature(scores[finite], self.truth[known[finite]])

    def scores(self, places: Rows, temperature: float) -> Scores:
        """The scores at some places of `rows`, [places, classes]."""
        several = [_scores(export, at[places]) for export, at in zip(self._exports, self._at, strict=True)]
        together = policy.mean(several) if len(several) > 1 else several[0]
        return policy.sharpened(together, temperature) if temperature != 1 else together


def _chunks(rows: int, classes: int) -> Iterator[slice]:
    """So many rows in parts, one at least, whose scores fit into memory."""
    size = max(1, _CHUNK // classes)
    return (slice(start, min(start + size, rows)) for start in range(0, max(rows, 1), size))


def _check_same_classes(export: Export, other: Export) -> None:
    both_named = export.labels and other.labels
    if _classes(export) != _classes(other) or (both_named and export.labels != other.labels):
        raise UsageError(f"--with {other.path}: its classes are not those of {export.path}")


def _columns(export: Export, rows: Rows) -> Predictions:
    label, *spread = (export.metadata[name][rows] for name in ("label", "confidence", "margin", "entropy"))
    if len(label) and label.max() >= _classes(export):
        raise CorruptError(f"{export.path}: the index holds the label {label.max()}, of {_classes(export)} classes")
    return Predictions(export._index.hashes()[rows], label, *spread)


def _scores(export: Export, rows: Rows) -> Scores:
    """The scores of some rows: from the index where they are there, else from the records."""
    if "scores" in export._index.column_names:
        return np.asarray(export._index.column("scores")[rows])
    order, classes = np.argsort(rows), _classes(export)
    found = np.empty((len(rows), classes), np.float32)
    for place, serialized in zip(order, export.serialized_rows(rows[order].tolist()), strict=True):
        scores = record.example_of(serialized).features.feature[record.SCORES].float_list.value
        if len(scores) != classes:
            raise CorruptError(
                f"{export.path}, record {rows[place]}: it has {len(scores)} scores, of {classes} classes"
            )
        found[place] = scores
    return found
