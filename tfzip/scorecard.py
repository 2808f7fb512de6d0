"""What `inspect` shows of predictions against truth: tables as cells of text, and the same for programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfzip.evaluate import Evaluation, evaluate, lacks
from tfzip.read import Export

_CLASSES_SHOWN = 10
_PAIRS_SHOWN = 5

Table = list[list[str]]


def tables(export: Export) -> list[tuple[str, Table]]:
    """Titles and rows of cells; none where no truth is known."""
    if lacks(export):
        return []
    found, names = evaluate(export), export.labels
    made = [
        ("against the truth", _overall(found, len(export))),
        ("by confidence", _by_confidence(found)),
        (_title(found), _by_class(found, names)),
        ("most confused", _confused(found, names)),
    ]
    return [(title, rows) for title, rows in made if rows]


def facts(export: Export) -> dict[str, Any] | None:
    """All of an evaluation, as plain values for JSON; None where no truth is known."""
    if lacks(export):
        return None
    found, names = evaluate(export), export.labels
    by_class = (found.labels, found.truths, found.predicted, found.right, found.precision, found.recall)
    keys = ("label", "truths", "predicted", "right", "precision", "recall")
    return {
        "images": found.images,
        "unlabelled": found.unlabelled,
        "accuracy": found.accuracy,
        "calibration_error": _number(found.calibration_error),
        "thresholds": [{key: _number(value) for key, value in row._asdict().items()} for row in found.thresholds],
        "classes": [
            {"text": _name(names, row[0]), **dict(zip(keys, map(_number, row), strict=True))}
            for row in zip(*(column.tolist() for column in by_class), strict=True)
        ],
        "confused": [dict(zip(("truth", "predicted", "images"), row, strict=True)) for row in found.confused.tolist()],
    }


def _name(names: list[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)


def _overall(found: Evaluation, records: int) -> Table:
    rows = [["images with a truth", f"{found.images} of {records}"], ["right", _percent(found.accuracy)]]
    if found.unlabelled:
        rows.append(["predicted as no class", str(found.unlabelled)])
    if found.thresholds:
        rows.append(["expected calibration error", f"{found.calibration_error:.4f}"])
    return rows


def _by_confidence(found: Evaluation) -> Table:
    return [
        [f"from {row.confidence:.2f}", f"{_percent(row.coverage)} of the images", f"{_percent(row.accuracy)} right"]
        for row in found.thresholds
        if row.images
    ]


def _title(found: Evaluation) -> str:
    more = f" ({_CLASSES_SHOWN} of {len(found.labels)})" if len(found.labels) > _CLASSES_SHOWN else ""
    return f"classes with most mistakes{more}"


def _by_class(found: Evaluation, names: list[str]) -> Table:
    mistakes = found.truths + found.predicted - 2 * found.right
    return [
        [
            _name(names, found.labels[place]),
            f"{_percent(found.precision[place])} precision",
            f"{_percent(found.recall[place])} recall",
            f"{found.truths[place]} images",
        ]
        for place in np.argsort(-mistakes, kind="stable")[:_CLASSES_SHOWN]
    ]


def _confused(found: Evaluation, names: list[str]) -> Table:
    return [
        [_name(names, truth), "taken for", _name(names, label), f"{count} images"]
        for truth, label, count in found.confused[:_PAIRS_SHOWN].tolist()
    ]


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.1%}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
