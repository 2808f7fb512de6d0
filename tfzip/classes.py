"""Which classes the predictions name, whatever the task: pairs of a record and one of its classes."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip.read import Export
from tfzip.record import SCORES, TEXT

Ints = npt.NDArray[np.int64]

_ID = re.compile("-?(0|[1-9][0-9]{0,18})")


class Members(NamedTuple):
    """A pair for each class that is predicted of a record, in the order of records; a class of a record comes once.

    Attributes:
        rows: [M], the record.
        classes: [M], the class: a place in `names`.
        names: those of the export, so that class i is the i-th, or ids in decimal where it has none; after them what
            else occurs: ids, or names that were given with predictions made elsewhere.
    """

    rows: Ints
    classes: Ints
    names: list[str]


def class_members(export: Export) -> Members:
    """The classes of each record; none of a prediction that is no class, as it holds NaN, and none of the task raw.

    Reads the index; records too, if only they tell classes apart whose names are alike, or hold a bar.
    """
    task, names = export.manifest["task"], known_names(export)
    if task == "multilabel" and "scores" in export.metadata:
        return Members(*_from_threshold_on(export), names)
    if task in ("multilabel", "detection"):
        return _named(_several(export, names), names) if _tell_apart(names) else _numbered(export, names)
    if TEXT in export.predicted and SCORES not in export.predicted and (export.metadata["label"] < 0).any():
        return _named(([row["prediction"]] if row["prediction"] else [] for row in export.each_row()), names)
    return _labelled(export.metadata["label"], names)


def known_names(export: Export) -> list[str]:
    """The class names, by label; the labels in decimal where only their number is known; empty if that is not."""
    width = export.metadata["scores"].shape[1] if "scores" in export.metadata else 0
    return export.labels or [str(label) for label in range(width)]


def _labelled(label: Ints, names: list[str]) -> Members:
    """Of predictions of one label; those that have no name come after the others, ascending."""
    rows = np.flatnonzero(label >= 0)
    labels = label[rows].astype(np.int64)
    others = np.unique(labels[labels >= len(names)])
    classes = np.where(labels < len(names), labels, len(names) + np.searchsorted(others, labels))
    return Members(rows, classes, names + [str(other) for other in others.tolist()])


def _from_threshold_on(export: Export) -> tuple[Ints, Ints]:
    rows, classes = np.nonzero(export.metadata["scores"] >= np.float32(export.manifest["threshold"]))
    return rows, classes


def _several(export: Export, names: Iterable[str]) -> Iterator[list[str]]:
    """The texts of each record's classes, as metadata.csv joins them; an id below 0 is no class."""
    known = set(names)
    for row in export.each_row():
        texts = row["prediction"].split("|") if row["prediction"] else []
        yield [text for text in texts if text in known or not text.startswith("-")]


def _tell_apart(names: Sequence[str]) -> bool:
    """Whether texts joined by bars tell which classes they are of; ids that have no name stand there in decimal."""
    alone = len(set(names)) == len(names) and all(name and "|" not in name for name in names)
    return alone and all(0 <= int(name) < len(names) for name in names if _ID.fullmatch(name))


def _named(texts: Iterable[Iterable[str]], names: list[str]) -> Members:
    """Of texts; those that are no known name come after the others as they occur."""
    places, found = {name: place for place, name in reversed([*enumerate(names)])}, list(names)
    rows, classes = array("q"), array("q")
    for row, of_row in enumerate(texts):
        for text in dict.fromkeys(of_row):
            if text not in places:
                places[text] = len(found)
                found.append(text)
            rows.append(row)
            classes.append(places[text])
    return Members(np.array(rows, np.int64), np.array(classes, np.int64), found)


def _numbered(export: Export, names: list[str]) -> Members:
    """Of the ids in the records themselves; those that have no name come after the others, ascending."""
    rows, labels = array("q"), array("q")
    for row, record in enumerate(export.records()):
        for label in dict.fromkeys(record.prediction.labels or ()):
            rows.append(row)
            labels.append(label)
    found = _labelled(np.array(labels, np.int64), names)
    return found._replace(rows=np.array(rows, np.int64)[found.rows])
