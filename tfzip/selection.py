"""A policy applied to an export, and to others of the same images: which records to train on, as what, how heavily."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import calibration, policy, record
from tfzip.errors import UsageError
from tfzip.matching import matched
from tfzip.options import flag
from tfzip.policy import Choice, Policy, Predictions
from tfzip.read import Export
from tfzip.read import open as open_export
from tfzip.record import UNKNOWN

COMBINE = ("mean", "agree")
OTHERS = "*"
"""Among the confidences of single classes: that of all others."""

_CHUNK = 1 << 22  # scores in memory at a time
FITTED = 100_000
"""Rows that a temperature is fitted to at most: all others would change it by some thousandths."""
_FITTED_SCORES = 1 << 25  # of these rows together

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Rules:
    """How to select; the names and defaults are those of `tfzip select`, whose help tells what each does.

    `min_confidence` is one number, or one for each class by name or label (`"*"` for the others). `others` are exports
    of the same images, or their paths.
    """

    min_confidence: float | Mapping[str | int, float] = 0.0
    adaptive: float | None = None
    min_margin: float = 0.0
    max_entropy: float | None = None
    per_class: int | None = None
    balance: bool = False
    limit: int | None = None
    use_truth: bool = False
    soft: bool = False
    temperature: float = 1.0
    calibrate: bool = False
    others: Sequence[str | os.PathLike[str] | Export] = ()
    combine: str = "mean"
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_combinations()

    def _check_numbers(self) -> None:
        least = self.min_confidence
        for value in least.values() if isinstance(least, Mapping) else [least]:
            _check("min_confidence", value, 0 <= value <= 1, "a number from 0 to 1")
        for name in ("adaptive", "min_margin", "validation"):
            value = getattr(self, name)
            _check(name, value, value is None or 0 <= value <= 1, "a number from 0 to 1")
        for name in ("per_class", "limit"):
            value = getattr(self, name)
            _check(name, value, value is None or (value == int(value) and value > 0), "a whole number from 1 on")
        most = self.max_entropy
        _check("max_entropy", most, most is None or most >= 0, "a number from 0 on, in nats")
        _check("temperature", self.temperature, 0 < self.temperature < math.inf, "a number above 0")
        _check("combine", self.combine, self.combine in COMBINE, " or ".join(COMBINE))

    def _check_combinations(self) -> None:
        if isinstance(self.others, (str, os.PathLike)):
            raise UsageError(f"--with {self.others}: give a list of exports")
        if self.temperature != 1 and not self.soft:
            raise UsageError("--temperature has no effect without --soft")
        if self.combine != "mean" and not self.others:
            raise UsageError("--combine has no effect without --with, another export of the same images")
        if self.calibrate and self.combine == "agree":
            raise UsageError("--calibrate and --combine agree: give one of them; it is the mean that can be calibrated")


def _check(name: str, value: Any, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise UsageError(f"{flag(name)} {value}: give {wanted}")


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
    predictions, truth = said.predictions(rules.combine, temperature), said.truth
    if rules.use_truth:
        predictions = _with_truth(predictions, truth)
    choice = policy.choose(predictions, asked, classes)
    if not len(choice.rows):
        raise UsageError(_nothing(export, predictions))
    chosen, at = predictions.of(choice.rows), np.full(len(export), -1)
    at[said.rows] = np.arange(len(said.rows))

    def scores(rows: Rows) -> Scores:
        soft = said.scores(at[rows], temperature)
        if rules.temperature != 1:
            soft = policy.sharpened(soft, rules.temperature)
        known = truth[at[rows]] if rules.use_truth else np.full(len(rows), UNKNOWN)
        soft[known >= 0] = np.eye(classes, dtype=np.float32)[known[known >= 0]]
        return soft

    return Selection(
        choice._replace(rows=said.rows[choice.rows]),
        chosen.label.astype(np.int64),
        chosen.confidence.astype(np.float32),
        np.bincount(predictions.label[predictions.label >= 0], minlength=classes),
        temperature,
        scores if rules.soft else None,
    )


def _nothing(export: Export, predictions: Predictions) -> str:
    finite = predictions.confidence[np.isfinite(predictions.confidence)]
    most = f", the surest has a confidence of {finite.max()}" if len(finite) else ""
    return f"{export.path}: nothing is selected of {len(predictions.label)} predictions{most}; ask for less"


# What is asked, of this export.


def _classes(export: Export) -> int:
    """The number of classes; UsageError if an export's predictions are no single classes."""
    task = export.manifest["task"]
    if task not in ("multiclass", "binary"):
        raise UsageError(f"{export.path}: the task is {task}; only multiclass and binary predictions can be selected")
    (classes,) = export.features[record.SCORES].shape
    return int(classes or 0)


def _policy(export: Export, rules: Rules, classes: int) -> Policy:
    shared = {field.name for field in dataclasses.fields(Policy)} - {"min_confidence"}
    least = _confidences(export, rules.min_confidence, classes)
    return Policy(min_confidence=least, **{name: getattr(rules, name) for name in shared})


def _confidences(export: Export, asked: float | Mapping[str | int, float], classes: int) -> float | dict[int, float]:
    """The least confidence of every class, by label."""
    if not isinstance(asked, Mapping):
        return asked
    named = {_label(export, name, classes): value for name, value in asked.items() if name != OTHERS}
    return {**dict.fromkeys(range(classes), asked.get(OTHERS, 0.0)), **named}


def _label(export: Export, name: str | int, classes: int) -> int:
    """The label of a class given by name or label."""
    if name in export.labels:
        return export.labels.index(str(name))
    if str(name).isdecimal() and int(name) < classes:
        return int(name)
    known = export.labels[:5] or [f"0 to {classes - 1}"]
    more = ", ..." if len(export.labels) > len(known) else ""
    raise UsageError(f"--min-confidence: {export.path} has no class {name!r}; it has {', '.join(known)}{more}")


def _with_truth(predictions: Predictions, truth: npt.NDArray[Any]) -> Predictions:
    """The predictions, but the truth, which is sure, where it is known."""
    known = truth >= 0
    label = np.where(known, truth, predictions.label)
    sure = (np.where(known, value, column) for value, column in zip((1, 1, 0), predictions[2:], strict=True))
    return Predictions(predictions.key, label, *sure)


# What one export says, or several together.


class _Said:
    """The predictions of an export; with others those of the images that all of them hold.

    `rows` are these images' rows in the first one, `truth` their labels where it knows them, -1 elsewhere.
    """

    def __init__(self, export: Export, others: Sequence[Export], classes: int) -> None:
        self._exports = [export, *others]
        self._classes = classes
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
        parts = [policy.of_scores(key[places], self.scores(places, temperature)) for places in self._chunks()]
        return Predictions(*map(np.concatenate, zip(*parts, strict=True)))

    def _keys(self) -> npt.NDArray[np.uint64]:
        return self._exports[0]._index.hashes()[self.rows]

    def fitted_temperature(self) -> float:
        """The temperature that fits what is said to the truth; of more than FITTED rows a sample, drawn by filename."""
        known = np.flatnonzero(self.truth >= 0)
        most = min(FITTED, max(1, _FITTED_SCORES // self._classes))
        if len(known) > most:
            known = np.sort(known[np.argpartition(self._keys()[known], most)[:most]])
        scores = self.scores(known, 1.0)
        finite = np.isfinite(scores).all(axis=1)
        if not finite.any():
            raise UsageError(f"--calibrate: {self._exports[0].path} knows the truth of no image that is predicted")
        return calibration.temperature(scores[finite], self.truth[known[finite]])

    def scores(self, places: Rows, temperature: float) -> Scores:
        """The scores at some places of `rows`, [places, classes]."""
        several = [_scores(export, at[places]) for export, at in zip(self._exports, self._at, strict=True)]
        together = policy.mean(several) if len(several) > 1 else several[0]
        return policy.sharpened(together, temperature) if temperature != 1 else together

    def _chunks(self) -> Iterator[Rows]:
        size = max(1, _CHUNK // self._classes)
        for start in range(0, max(len(self.rows), 1), size):
            yield np.arange(start, min(start + size, len(self.rows)))


def _check_same_classes(export: Export, other: Export) -> None:
    if _classes(export) != _classes(other) or export.labels != other.labels:
        raise UsageError(f"--with {other.path}: its classes are not those of {export.path}")


def _columns(export: Export, rows: Rows) -> Predictions:
    columns = (export.metadata[name][rows] for name in ("label", "confidence", "margin", "entropy"))
    return Predictions(export._index.hashes()[rows], *columns)


def _scores(export: Export, rows: Rows) -> Scores:
    """The scores of some rows: from the index where they are there, else from the records."""
    if "scores" in export._index.column_names:
        return np.asarray(export._index.column("scores")[rows])
    order = np.argsort(rows)
    found = np.empty((len(rows), _classes(export)), np.float32)
    for place, serialized in zip(order, export.serialized_rows(rows[order].tolist()), strict=True):
        found[place] = record.example_of(serialized).features.feature[record.SCORES].float_list.value
    return found
