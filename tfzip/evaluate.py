"""Predictions against truth, by the index alone: how many are right, of which classes, at which confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import calibration
from tfzip.errors import UsageError
from tfzip.read import Export
from tfzip.record import LABEL

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""The confidences of an evaluation's table."""

_MOST_IN_TABLE = 1000  # classes of which every pair is counted: 8 MB

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Column = npt.NDArray[Any]


class Threshold(NamedTuple):
    """The predictions that are at least so sure: how many, their share of all, and the share of them that is right.

    R. El-Yaniv, Y. Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010: coverage, and one
    minus the risk at it.
    """

    confidence: float
    images: int
    coverage: float
    accuracy: float  # NaN if there are none


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How good predictions are on the images whose truth is known, and is one of the classes; others do not count.

    Attributes:
        images: how many.
        unlabelled: how many of them have a prediction that is no class, as it holds NaN, or a name that is none: it is
            wrong, and at no threshold.
        accuracy: the share that is right.
        calibration_error: see `calibration.expected_calibration_error`, of those with a class and a confidence; NaN if
            there are none.
        thresholds: coverage and accuracy at each of THRESHOLDS; empty if there are no confidences.
        labels: [K], the classes, ascending: those that have a name, or scores in the index, and others that occur.
            If no others do, class i is the i-th.
        truths, predicted, right: [K], of each class the images that are of it, those said to be, those rightly so.
        precision: [K], right / predicted; NaN where nothing was predicted.
        recall: [K], right / truths; NaN where nothing is of the class.
        confusion: [K, K], the images by class of the truth (row) and of the prediction (column), without the
            unlabelled; None for more than 1000 classes.
        confused: [P, 3], the label of the truth, that of a prediction that is wrong, and of how many images; all there
            are, the most frequent first.
    """

    images: int
    unlabelled: int
    accuracy: float
    calibration_error: float
    thresholds: list[Threshold]
    labels: Ints
    truths: Ints
    predicted: Ints
    right: Ints
    precision: Floats
    recall: Floats
    confusion: Ints | None
    confused: Ints


def evaluate(export: Export) -> Evaluation:
    """Compare the predictions of an export, multiclass or binary, with the truth that its source knew.

    Reads three columns of the index, and no record.

    Raises UsageError for another task, or where no truth is known.
    """
    if lacking := lacks(export):
        raise UsageError(lacking)
    columns = export.metadata
    classes = max(len(export.labels), columns["scores"].shape[1] if "scores" in columns else 0)
    known = np.flatnonzero(columns["truth"] >= 0)
    return compare(columns["truth"][known], columns["label"][known], columns["confidence"][known], classes)


def lacks(export: Export) -> str | None:
    """Why an export cannot be evaluated, and what to do; None if it can."""
    task = export.manifest["task"]
    if task not in ("multiclass", "binary") or LABEL not in export.predicted:
        return (
            f"{export.path}: its task is {task}; predictions are compared with truth where it is multiclass or binary"
        )
    if not (export.metadata["truth"] >= 0).any():
        return (
            f"{export.path}: no image has a truth that is one of the classes: export with --source-labels folder, "
            "--label-column or --truth-key, and --labels if the classes have no names"
        )
    return None


def compare(truth: Column, label: Column, confidence: Column, classes: int = 0) -> Evaluation:
    """Compare predictions with truth.

    Args:
        truth: labels [N], at least one, none below 0.
        label: of the predictions [N]; below 0 where there is none.
        confidence: [N], NaN where there is none.
        classes: how many there are at least.
    """
    truth, label = truth.astype(np.int64), label.astype(np.int64)
    said, is_right = label >= 0, truth == label
    labels = np.unique(np.concatenate([np.arange(classes), truth, label[said]]))
    of_truth, of_label = np.searchsorted(labels, truth), np.searchsorted(labels, label)
    truths, predicted, right = (
        np.bincount(rows, minlength=len(labels)) for rows in (of_truth, of_label[said], of_truth[is_right])
    )
    sure = said & np.isfinite(confidence)
    return Evaluation(
        images=len(truth),
        unlabelled=int(np.count_nonzero(~said)),
        accuracy=float(is_right.mean()),
        calibration_error=calibration.expected_calibration_error(confidence[sure], is_right[sure]),
        thresholds=_thresholds(confidence[sure], is_right[sure], len(truth)),
        labels=labels,
        truths=truths,
        predicted=predicted,
        right=right,
        precision=_shares(right, predicted),
        recall=_shares(right, truths),
        confusion=_confusion(of_truth[said], of_label[said], len(labels)),
        confused=_confused(truth[said & ~is_right], label[said & ~is_right]),
    )


def _thresholds(confidence: Column, is_right: Column, images: int) -> list[Threshold]:
    if not len(confidence):
        return []
    found = []
    for threshold in THRESHOLDS:
        kept = is_right[confidence >= np.float32(threshold)]  # what shows as 0.7 is no less than 0.7
        accuracy = float(kept.mean()) if len(kept) else math.nan
        found.append(Threshold(threshold, len(kept), len(kept) / images, accuracy))
    return found


def _shares(part: Ints, whole: Ints) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), math.nan), where=whole > 0)


def _confusion(of_truth: Ints, of_label: Ints, classes: int) -> Ints | None:
    if classes > _MOST_IN_TABLE:
        return None
    return np.bincount(of_truth * classes + of_label, minlength=classes**2).reshape(classes, classes)


def _confused(truth: Ints, label: Ints) -> Ints:
    """The pairs of labels that occur, and how often, the most frequent first."""
    pairs, counts = np.unique(truth << 32 | label, return_counts=True)  # a label has 31 bits
    order = np.argsort(-counts, kind="stable")
    return np.stack([pairs >> 32, pairs & 0xFFFFFFFF, counts], axis=1)[order]
