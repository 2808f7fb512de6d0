"""Records against the rows that the index has for them: whole columns at once, so that a record costs little."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import naming
from tfzip.errors import CorruptError
from tfzip.metadata import Array, shown_confidences, shown_labels
from tfzip.read import Export
from tfzip.record import SCORES, UNKNOWN, Prediction, Record, Truth, is_detection

_MOST_ROWS, _MOST_BYTES = 1 << 11, 1 << 22
"""What is looked at together: so many records, or as many as come to so many bytes without their images."""

_SLACK = 1e-5
"""How far margin and entropy may lie off what NumPy makes of the scores: a graph adds them up in another order."""

Mask = npt.NDArray[np.bool_]


class Said(NamedTuple):
    """What a record says that its row says too, and where it lies: `offset`, `size` and `start`."""

    place: tuple[int, int, int]
    filename: bytes
    prediction: Prediction
    truth: Truth | None
    has_odd_output: bool
    bytes: int


def said(place: tuple[int, int, int], record: Record, size: int) -> Said:
    """A record of `size` bytes, without its image."""
    filename, odd = naming.to_bytes(record.filename), bool(record.outputs) and _is_odd(*record.outputs.values())
    return Said(place, filename, record.prediction, record.truth, odd, size - len(record.encoded or b""))


def _is_odd(*values: Any) -> bool:
    """Whether one of several arrays or numbers is not finite."""
    arrays = map(np.asarray, values)
    return any(array.dtype.kind == "f" and not np.isfinite(array).all() for array in arrays)


def together(records: Iterable[Said]) -> Iterator[list[Said]]:
    """The records in lists; those before an error that the iterable raises come before it is raised."""
    found: list[Said] = []
    size = 0
    try:
        for record in records:
            found.append(record)
            size += record.bytes
            if len(found) == _MOST_ROWS or size > _MOST_BYTES:
                yield found
                found, size = [], 0
    except (CorruptError, OSError):
        yield found
        raise
    yield found


class Rows:
    """Some records of a shard, and the rows from `first` on that the index has for them."""

    def __init__(self, export: Export, shard: int, first: int, records: Sequence[Said]) -> None:
        self._export, self._index, self._shard = export, export._index, shard
        self._records, self._first, self._stop = records, first, first + len(records)
        self._predictions = [record.prediction for record in records]
        self._filenames = [record.filename for record in records]
        self._places = np.array([record.place for record in records], np.int64).reshape(-1, 3)
        labels = (UNKNOWN if p.label is None else p.label for p in self._predictions)
        self._label = np.fromiter(labels, np.int64, len(records))
        confidences = (np.nan if p.confidence is None else p.confidence for p in self._predictions)
        self._confidence = np.fromiter(confidences, np.float32, len(records))
        self._scores = self._stacked_scores()

    def _stacked_scores(self) -> Array | None:
        """The scores of all classes, [records, classes]; None if there are none."""
        scores = [p.scores for p in self._predictions if p.scores is not None]
        return np.stack(scores) if scores and SCORES in self._export.predicted else None

    def _column(self, name: str) -> Array:
        return self._index.column(name)[self._first : self._stop]

    def problems(self, table: Sequence[Mapping[str, str]]) -> Iterator[str]:
        """What is wrong, by row; `table` is what metadata.csv has for them."""
        if not self._records:
            return
        found = [(problem, wrong) for problem, wrong in self._compared(table) if wrong.any()]
        wrong_rows = np.flatnonzero(np.any([wrong for _, wrong in found], axis=0)) if found else ()
        for row in wrong_rows:
            yield from (f"record {self._first + row}: {problem}" for problem, wrong in found if wrong[row])

    def _compared(self, table: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Mask]]:
        """Everything that can be wrong, and of which records it is."""
        told = np.stack([self._column(name) for name in ("offset", "size", "start")], axis=1)
        moved = (told != self._places).any(axis=1) | (self._column("shard") != self._shard)
        yield "it is not where the index says", moved
        names = self._index.filenames_of(self._first, self._stop)
        yield "its filename is not the index's", _differ(names, self._filenames)
        truth = np.array([record.truth.label if record.truth else UNKNOWN for record in self._records], np.int64)
        values: dict[str, Array] = {"label": self._label, "confidence": self._confidence, "truth": truth}
        if self._scores is not None and "scores" in self._index.column_names:
            values["scores"] = self._scores
        for name, value in values.items():
            yield f"its {name} is not the index's", _unlike(self._column(name), value)
        for name, expected in self._spread().items():
            yield f"its {name} is not the index's", _far(self._column(name), expected) & self._is_finite
        nonfinite = self._expected_nonfinite()
        yield "its nonfinite is not the index's", nonfinite != self._column("nonfinite")
        yield "its text is not the name of its label", self._misnamed()
        yield "its row in metadata.csv is another", self._unlike_table(table, nonfinite)

    # What the scores come to.

    @property
    def _is_finite(self) -> Mask:
        if self._scores is None:
            return np.ones(len(self._records), bool)
        return np.array(np.isfinite(self._scores).all(axis=1))

    def _spread(self) -> dict[str, Array]:
        """The margin and the entropy of the scores; NaN where there are none."""
        if self._scores is None or self._scores.shape[1] < 2:
            nothing = np.full(len(self._records), np.nan)
            return {"margin": nothing, "entropy": nothing}
        with np.errstate(all="ignore"):  # what is not finite or no probability is NaN, as in the graph
            if self._export.manifest["task"] == "multilabel":
                surest = np.maximum(self._scores, 1 - self._scores).min(axis=1)
                return {"margin": 2 * surest - 1, "entropy": _entropy(self._scores) + _entropy(1 - self._scores)}
            second, first = np.partition(self._scores, (-2, -1), axis=1)[:, -2:].T
            return {"margin": first - second, "entropy": _entropy(self._scores)}

    def _expected_nonfinite(self) -> Mask:
        """As the index has it where that may be, else the other.

        A prediction that is not finite counts, and so does an output; but one of that name may be of an export that was
        the source of this one.
        """
        must = ~self._is_finite
        if is_detection(self._export.predicted):
            must |= np.array([_is_odd(p.boxes, p.scores) for p in self._predictions], bool)
        must |= ~np.isfinite(self._confidence) & [p.confidence is not None for p in self._predictions]
        may = must | [record.has_odd_output for record in self._records]
        odd = self._column("nonfinite")
        return np.where((must <= odd) & (odd <= may), odd, ~odd)

    # Texts.

    def _misnamed(self) -> Mask:
        """Whether classes are called otherwise than the export's are; those of labels made elsewhere may be."""
        if self._scores is None and not is_detection(self._export.predicted):
            return np.zeros(len(self._records), bool)
        names = dict(enumerate(self._export.manifest["labels"]["names"]))
        return np.fromiter((_is_misnamed(p, names) for p in self._predictions), bool, len(self._records))

    def _unlike_table(self, table: Sequence[Mapping[str, str]], nonfinite: Mask) -> Mask:
        """Whether metadata.csv has something else."""
        truths = (record.truth.text if record.truth else "" for record in self._records)
        expected: dict[str, Sequence[str]] = {
            "filename": list(map(naming.to_text, self._filenames)),
            "prediction": ["|".join(p.texts or ()) if p.text is None else p.text for p in self._predictions],
            "confidence": shown_confidences(self._confidence),
            "label": shown_labels(self._label),
            "truth": [_as_told(known, row["truth"]) for known, row in zip(truths, table, strict=True)],
            "nonfinite": ["1" if odd else "" for odd in nonfinite.tolist()],
            "shard": [str(self._shard)] * len(self._records),
        }
        columns = zip(("offset", "size", "start"), self._places.T.tolist(), strict=True)
        expected |= {name: list(map(str, column)) for name, column in columns}
        differing = [_differ([row[name] for row in table], column) for name, column in expected.items()]
        return np.any(differing, axis=0)


def _is_misnamed(prediction: Prediction, names: Mapping[int, str]) -> bool:
    if prediction.labels is not None:
        return [names.get(label, str(label)) for label in prediction.labels] != prediction.texts
    label = UNKNOWN if prediction.label is None else prediction.label
    return prediction.text != ("" if label == UNKNOWN else names.get(label, str(label)))


def _as_told(truth: str, told: str) -> str:
    """A truth as metadata.csv has it, where it may be escaped."""
    is_same = truth == told or truth == naming.from_text(told).decode("utf-8", "replace")
    return told if is_same else truth


def _entropy(scores: Array) -> Array:
    """The sum of -p log p."""
    return -np.sum(np.where(scores == 0, 0, scores * np.log(scores)), axis=1, dtype=np.float64)


def _differ(some: Sequence[Any], others: Sequence[Any]) -> Mask:
    if some == others:
        return np.zeros(len(some), bool)
    return np.fromiter(map(operator.ne, some, others), bool, len(some))


def _unlike(some: Array, others: Array) -> Mask:
    """Of which rows the values are not the same, NaN being like NaN."""
    unlike = some != others
    if unlike.any() and some.dtype.kind == "f":
        unlike &= ~(np.isnan(some) & np.isnan(others))
    return unlike.reshape(len(unlike), -1).any(axis=1)


def _far(some: Array, others: Array) -> Mask:
    return ~np.isclose(some, others, rtol=_SLACK, atol=_SLACK, equal_nan=True)
