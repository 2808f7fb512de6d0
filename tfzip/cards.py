"""Records as cards of a page: a small picture each, what was said of it, and the boxes on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfzip import naming, thumbnails
from tfzip.boxes import on_image
from tfzip.classes import Members
from tfzip.read import Export
from tfzip.record import Prediction, Record

_MOST_BOXES = 20

Rows = npt.NDArray[np.int64]


def cards(export: Export, rows: Rows, members: Members) -> Iterator[dict[str, Any]]:
    """What is shown of records, by ascending row: a small picture, and what was said of it."""
    pixels = export.manifest["pixels"]
    oriented = bool(pixels) and pixels["exif_orientation"] == "apply" and export.manifest["image"] == "keep"
    kept: list[tuple[int, Record]] = []

    def noted() -> Iterator[Record]:
        for row, record in records_of(export, rows):
            kept.append((row, record))
            yield record

    of_row = _classes_of(members, rows)
    for small in thumbnails.thumbnails(noted(), oriented=oriented, max_pixels=export.max_pixels):
        row, record = kept.pop(0)
        yield {
            "name": naming.brief(naming.shown(record.filename)),
            "classes": of_row.get(row, []),
            "said": _said(record.prediction),
            "confidence": _finite(record.prediction.confidence),
            "truth": None if record.truth is None else naming.brief(record.truth.text),
            "wrong": _is_wrong(record),
            "picture": small,
            "boxes": _boxes(record.prediction, _input_size(record, pixels)),
        }


def _input_size(record: Record, pixels: Mapping[str, Any] | None) -> tuple[int, int]:
    """Height and width of what the model saw: of its input, or of the image if it took that as it is."""
    return (record.height, record.width) if pixels is None else (pixels["height"], pixels["width"])


def records_of(export: Export, rows: Rows) -> Iterator[tuple[int, Record]]:
    """Records by row, each with its row; ascending rows are read in passing."""
    for row, serialized in zip(rows.tolist(), export.serialized_rows(rows.tolist()), strict=True):
        record = export.parse(serialized)
        export.check_filename(row, naming.to_bytes(record.filename))
        yield row, record


def _classes_of(members: Members, rows: Rows) -> dict[int, list[int]]:
    """The classes of some records, by row."""
    found: dict[int, list[int]] = {}
    wanted = np.isin(members.rows, rows)
    for row, number in zip(members.rows[wanted].tolist(), members.classes[wanted].tolist(), strict=True):
        found.setdefault(row, []).append(number)
    return found


def _said(prediction: Prediction) -> str:
    """The classes that were predicted, and how often if there are boxes."""
    texts = Counter([prediction.text] if prediction.text is not None else prediction.texts)
    said = (f"{text} \N{MULTIPLICATION SIGN}{number}" if number > 1 else text for text, number in texts.items())
    return naming.brief(", ".join(said))


def _is_wrong(record: Record) -> bool | None:
    """Whether the prediction is not the truth; None where that cannot be said."""
    if record.truth is None or record.truth.label < 0 or record.prediction.label is None:
        return None
    return record.truth.label != record.prediction.label


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def _boxes(prediction: Prediction, size: tuple[int, int]) -> list[dict[str, Any]]:
    """The boxes of a detection as shares of the picture, the surest first; `size` is of the model's input."""
    if prediction.boxes is None or prediction.scores is None or prediction.texts is None:
        return []
    made = []
    shares = on_image(prediction.boxes, size)
    for place in np.argsort(-np.nan_to_num(prediction.scores), kind="stable")[:_MOST_BOXES].tolist():
        ymin, xmin, ymax, xmax = shares[place].tolist()
        title = f"{naming.brief(prediction.texts[place])} {prediction.scores[place]:.2f}"
        if np.isfinite(ymin):
            made.append({"x": xmin, "y": ymin, "w": xmax - xmin, "h": ymax - ymin, "title": title})
    return made
