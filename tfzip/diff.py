"""What changed its label between two exports of the same images, as by two rounds of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from tfzip import naming
from tfzip.errors import UsageError
from tfzip.matching import Rows, matched
from tfzip.read import Export
from tfzip.record import LABEL, UNKNOWN

Numbers = npt.NDArray[np.int64]

_CHUNK = 1 << 10  # changes that a loop reads at a time


class Move(NamedTuple):
    """How many images went from one class to another; None for no label, of scores that are not a number."""

    before: str | None
    after: str | None
    images: int


class Change(NamedTuple):
    """One image whose label changed: what each export says, how sure each is (NaN if not known), and the truth."""

    filename: str
    before: str | None
    after: str | None
    confidences: tuple[float, float]
    truth: str | None


@dataclass(frozen=True)
class Diff:
    """What changed between two exports.

    `both`, `only_one` and `only_other` count images by filename. Labels were compared by the names of their classes if
    `by_name`, else by their ids. `moves` are the most frequent first; `changes`, in the order of the one export, are
    read as they are asked for. Of the `judged` changes, whose truth is known, `righted` went from wrong to right and
    `wronged` from right to wrong.
    """

    both: int
    only_one: int
    only_other: int
    by_name: bool
    moves: Sequence[Move]
    changes: Sequence[Change]
    judged: int
    righted: int
    wronged: int


def diff(one: Export, other: Export) -> Diff:
    """Compare the labels of the images that two exports hold, joined by filename.

    Args:
        one: the earlier, as `tfzip.open` gives it.
        other: the later.

    Classes are the same if their names are, where both exports know names, and else if their ids are. The truth of an
    image is what `one` knows, or else `other`.

    Raises:
        UsageError: an export has not one label an image (its task is not multiclass or binary), or they have no image
            in common.
        CorruptError: an index is damaged.
    """
    for export in (one, other):
        if LABEL not in export.predicted:
            task = export.manifest["task"]
            raise UsageError(f"{export.path}: its task is {task}; only multiclass and binary have labels to compare")
    rows, other_rows = matched(one, other)
    if not len(rows):
        raise UsageError(f"{one.path} and {other.path} have no image in common, by filename")
    classes = _Classes(one, other)
    before, after = classes.numbers(one, "label", rows), classes.numbers(other, "label", other_rows)
    changed = before != after
    rows, other_rows, before, after = rows[changed], other_rows[changed], before[changed], after[changed]
    truth = classes.numbers(one, "truth", rows)
    truth = np.where(truth == UNKNOWN, classes.numbers(other, "truth", other_rows), truth)
    known = truth != UNKNOWN
    return Diff(
        both=len(changed),
        only_one=len(one) - len(changed),
        only_other=len(other) - len(changed),
        by_name=classes.by_name,
        moves=_moves(before, after, classes.texts),
        changes=_Changes(one, other, rows, other_rows, [before, after, truth], classes.texts),
        judged=int(known.sum()),
        righted=int((known & (after == truth)).sum()),
        wronged=int((known & (before == truth)).sum()),
    )


class _Classes:
    """The classes of two exports under one numbering; `texts` are their names, or ids in decimal, by number."""

    def __init__(self, one: Export, other: Export) -> None:
        self.by_name = bool(one.labels and other.labels)
        self.texts: list[str] = []
        self._names = {export: export.labels or one.labels or other.labels for export in (one, other)}
        self._numbers: dict[str | int, int] = {}

    def numbers(self, export: Export, column: str, rows: Rows) -> Numbers:
        """The numbers of the labels in a column of an export; UNKNOWN for that."""
        labels, places = np.unique(export.metadata[column][rows], return_inverse=True)
        names = self._names[export]
        return np.array([self._number(label, names) for label in labels.tolist()], np.int64)[places]

    def _number(self, label: int, names: Sequence[str]) -> int:
        if label == UNKNOWN:
            return UNKNOWN
        text = names[label] if 0 <= label < len(names) else str(label)
        number = self._numbers.setdefault(text if self.by_name else label, len(self.texts))
        if number == len(self.texts):
            self.texts.append(text)
        return number


def _text(number: int, texts: Sequence[str]) -> str | None:
    return None if number == UNKNOWN else texts[number]


def _moves(before: Numbers, after: Numbers, texts: Sequence[str]) -> list[Move]:
    """The moves between classes, the most frequent first, those of one number in the order of the classes."""
    width = len(texts) + 1  # UNKNOWN, which is -1, has a place too
    codes, counts = np.unique((before + 1) * width + after + 1, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [
        Move(_text(code // width - 1, texts), _text(code % width - 1, texts), count)
        for code, count in zip(codes[order].tolist(), counts[order].tolist(), strict=True)
    ]


class _Changes(Sequence[Change]):
    """The changes, each read when it is asked for."""

    def __init__(
        self, one: Export, other: Export, rows: Rows, other_rows: Rows, numbers: Sequence[Numbers], texts: Sequence[str]
    ) -> None:
        self._index, self._rows = one._index, rows
        self._confidences = one.metadata["confidence"][rows], other.metadata["confidence"][other_rows]
        self._numbers, self._texts = numbers, texts

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> Change: ...
    @overload
    def __getitem__(self, key: slice) -> list[Change]: ...
    def __getitem__(self, key: int | slice) -> Change | list[Change]:
        if not isinstance(key, slice):
            place = range(len(self))[key]
            return self[place : place + 1][0]
        names = [naming.to_str(self._index.filename(row)) for row in self._rows[key].tolist()]
        before, after, truth = (
            [_text(number, self._texts) for number in numbers[key].tolist()] for numbers in self._numbers
        )
        confidences = (values[key].tolist() for values in self._confidences)
        return list(map(Change, names, before, after, zip(*confidences, strict=True), truth))

    def __iter__(self) -> Iterator[Change]:
        for first in range(0, len(self), _CHUNK):
            yield from self[first : first + _CHUNK]

    def __repr__(self) -> str:
        return f"<{len(self)} changes>"
