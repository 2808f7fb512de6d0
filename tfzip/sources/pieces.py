"""A listed source handed out in pieces: what it is, in one file, and the items of each piece in a file of their own.

Whoever does a piece reads these two, and nothing else of the source but its images.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfzip import storage
from tfzip.index import save_arrays
from tfzip.metadata import Texts
from tfzip.naming import to_bytes, to_str
from tfzip.record import Failure, FeatureSpec
from tfzip.sources import spooled, tfds, tfrecord
from tfzip.sources.planned import CHANGED, ENDS, GONE, as_arrays, checked
from tfzip.sources.source import Listed, Stream, file_reader

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

Positions = npt.NDArray[np.int64]
Arrays = dict[str, Any]
"""What there is to know of the items of a piece, by name: NumPy arrays, or lists of bytes; in a graph, tensors."""

PLACES, _SIZES, _STAMPS, _PROBLEMS = "places", "sizes", "stamps", "problems"
NAMES, _TRUTHS = "filenames", "truths"
_COLUMN, _LOCATED = "column ", "located "


# What the source is.


def facts(source: Listed) -> dict[str, Any]:
    """All of a source but its items, as JSON has it."""
    return {
        "kind": source.kind,
        "name": source.name,
        "classes": None if source.classes is None else [to_str(name) for name in source.classes],
        "features": source.features,
        "rejected": source.rejected,
        "ignored": source.ignored,
        "state": source.state,
        "access": source.access,
    }


def blank(said: Mapping[str, Any]) -> Listed:
    """The source with no items, of its facts."""
    return Listed(
        kind=said["kind"],
        name=said["name"],
        classes=None if said["classes"] is None else [to_bytes(name) for name in said["classes"]],
        features={name: FeatureSpec(dtype, tuple(shape)) for name, (dtype, shape) in said["features"].items()},
        rejected=[Failure(*failure) for failure in said["rejected"]],
        ignored=said["ignored"],
        state=said["state"],
        access=said["access"],
        filenames=(),
        sizes=np.empty(0, np.int64),
        reader=lambda: lambda _: {},
        **_more(said),
    )


def _more(said: Mapping[str, Any]) -> dict[str, Any]:
    access = said["access"]
    if "paths" in access:
        return tfrecord.known_of(said["name"], access)
    return {"unique": access["unique"]} if "dataset" in access else {}


# Its pieces.


def items(source: Listed, rows: Positions) -> Arrays:
    """The items at some rows of a source."""
    arrays: Arrays = {PLACES: rows, _SIZES: source.sizes[rows]}
    if "dataset" in (source.access or {}):  # of a range no more is needed
        return arrays
    if source.stamps is not None:
        arrays[_STAMPS] = source.stamps[rows]
    arrays[NAMES] = spooled.at(source.filenames, rows)
    if source.truths is not None:
        arrays[_TRUTHS] = spooled.at(source.truths, rows)
    for name, values in source.columns.items():
        arrays[_COLUMN + name] = values[rows].tolist() if values.dtype == object else values[rows]
    arrays |= {_LOCATED + name: values[rows] for name, values in source.located.items()}
    return arrays


def save(path: str, arrays: Arrays) -> None:
    """Write the items of a piece down, in a file that is there whole or not at all."""
    parts = [as_arrays(name, v) if isinstance(v, list) else {name: v} for name, v in arrays.items()]
    save_arrays(path, {name: values for part in parts for name, values in part.items()})


def load(path: str) -> Arrays:
    """The items of a piece."""
    with storage.open(path, "rb") as file, np.load(file, allow_pickle=False) as saved:
        arrays: Arrays = {name: saved[name] for name in saved.files}
    for name in [name for name in arrays if ENDS + name in arrays]:
        arrays[name] = Texts(arrays[name], arrays.pop(ENDS + name)).split()
    return arrays


def compare(source: Listed, arrays: Arrays) -> Arrays:
    """The items with what is the matter with each by now: those that are gone, or changed since they were noted."""
    if _STAMPS not in arrays:  # then `state` tells of all together
        return arrays
    root = os.fsencode((source.access or {})["root"])
    statuses = zip(arrays[NAMES], arrays[_SIZES].tolist(), arrays[_STAMPS].tolist(), strict=True)
    return {**arrays, _PROBLEMS: np.array([_problem(root + name, *status) for name, *status in statuses], np.int64)}


def _problem(path: bytes, size: int, stamp: int) -> int:
    if not (stamp or storage.is_local(os.fsdecode(path))):  # a list named it, and it was not asked for
        return 0
    try:
        return 0 if storage.status(os.fsdecode(path)) == (size, stamp) else CHANGED
    except OSError:
        return GONE if stamp else 0


def piece(source: Listed, arrays: Arrays) -> Listed | Stream:
    """The source with the items of a piece, whose values may be tensors of a graph that is being built.

    It is a stream if they can only be read in their order.
    """
    access = source.access or {}
    if "dataset" in access:
        places = arrays[PLACES]
        return tfds.piece_of(source.name, access, int(places[0]), int(places[-1]) + 1)
    columns = _named(_COLUMN, arrays)
    return dataclasses.replace(
        source,
        rejected=(),
        filenames=arrays[NAMES],
        sizes=arrays[_SIZES],
        stamps=arrays.get(_STAMPS),
        truths=arrays.get(_TRUTHS),
        columns={name: np.array(v, object) if isinstance(v, list) else v for name, v in columns.items()},
        places=arrays[PLACES],
        reader=lambda: _reader(source, arrays),
    )


def _named(kind: str, arrays: Arrays) -> Arrays:
    return {name.removeprefix(kind): values for name, values in arrays.items() if name.startswith(kind)}


def joined(source: Listed, each: Sequence[Arrays], count: int) -> Listed:
    """The source with the items of all pieces at their places, of so many; nothing is known of those of no piece."""
    places = np.concatenate([arrays[PLACES] for arrays in each])
    whole: Arrays = {PLACES: np.arange(count)}
    for name in [name for name in each[0] if name != PLACES]:
        if isinstance(each[0][name], list):
            values = np.full(count, b"", object)
            values[places] = [value for arrays in each for value in arrays[name]]
            whole[name] = values.tolist()
        else:
            whole[name] = np.zeros(count, each[0][name].dtype)
            whole[name][places] = np.concatenate([arrays[name] for arrays in each])
    made = piece(source, whole)
    assert isinstance(made, Listed)
    return dataclasses.replace(made, places=None, rejected=source.rejected)


def _reader(source: Listed, arrays: Arrays) -> Callable[[tf.Tensor], Element]:
    access = source.access or {}
    if "paths" in access:
        return tfrecord.reader_of(source.name, access, _named(_LOCATED, arrays), arrays[PLACES])
    read = file_reader(os.fsencode(access["root"]), arrays[NAMES])
    return checked(read, arrays[_PROBLEMS]) if _PROBLEMS in arrays else read
