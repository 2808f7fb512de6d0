"""What a source is: a list whose items are read in any order, or a stream."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfzip import storage
from tfzip.errors import BrokenSourceError
from tfzip.record import Failure, FeatureSpec

if TYPE_CHECKING:
    import tensorflow as tf

Element = dict[str, "tf.Tensor"]
"""What flows through the graph: named tensors of one item, or of a batch.

A source gives `filename` and `encoded`, and where it knows truth either `truth_text` or `truth`, a label.
"""


@dataclass(frozen=True)
class Carried:
    """The features to keep of serialized Examples that items bring (`example`), and which are image and filename.

    `whole` tells whether these are all that they have.
    """

    features: Mapping[str, FeatureSpec]
    image_key: str
    filename_key: str | None
    whole: bool = True


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source, opened.

    `classes` are the labels that its truth may have, in order: empty where they are not known beforehand, None where it
    knows no truth at all. `features` are what it adds to every record, values of the element by key; `carried` what its
    items bring already serialized. `rejected` are items that its listing shows to be no good, `ignored` counts what
    is there but is no image. Filenames that are not known to be `unique` are compared as they come; `place` tells
    people where an item is, by its position. `state` is what tells whether the source itself is still what it was, as
    JSON has it; `check` raises BrokenSourceError if what was read since it was listed may not be that.
    """

    kind: str
    name: str
    classes: Sequence[bytes] | None = None
    features: Mapping[str, FeatureSpec] = field(default_factory=dict)
    rejected: Sequence[Failure] = ()
    ignored: int = 0
    carried: Carried | None = None
    unique: bool = True
    place: Callable[[int], str] = "item {}".format
    state: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[], None] = lambda: None


@dataclass(frozen=True, kw_only=True)
class Listed(Source):
    """A source whose items are known beforehand, and read in any order: positions 0..len-1.

    `filenames` are unique; `sizes` are bytes as stored, about; `truths` the label of each item, empty where it has
    none; `columns` the values of features that are known beforehand. `reader` makes a graph function: a position
    -> the item's `filename` and `encoded`. `stamps` are the times of the items' last changes, in nanoseconds; None
    where `state` tells of all of them together.

    `access` is what it takes to read its items elsewhere, as JSON has it, and `located` where each is (see
    `sources.pieces`); None where that cannot be done. A piece of a source has in `places` the positions of its items
    in the whole.
    """

    filenames: Sequence[bytes]
    sizes: npt.NDArray[np.int64]
    reader: Callable[[], Callable[[tf.Tensor], Element]]
    truths: Sequence[bytes] | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    stamps: npt.NDArray[np.int64] | None = None
    access: Mapping[str, Any] | None = None
    located: Mapping[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    places: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True, kw_only=True)
class Stream(Source):
    """A source that can only be read from its start to its end.

    `batches` makes a `tf.data.Dataset` of items, so many at a time; what it raises ends the export. `read` is a graph
    function that does the rest for an item, which may fail alone; it adds what is missing of `filename` and `encoded`.
    `read_usual`, where there is one, does so for most items, without branches; others fail. `count` is how many items
    there are, None where only the end tells; `first` the position of the first in the whole of which this is a piece.
    `explain` gives the source's own error for one that came through the graph.
    """

    batches: Callable[[int], Any]
    read: Callable[[Element], Element] = lambda item: item
    read_usual: Callable[[Element], Element] | None = None
    count: int | None = None
    first: int = 0
    explain: Callable[[Exception], Exception | None] = lambda _: None


def state_of(paths: Sequence[str]) -> dict[str, Any]:
    """What tells whether files are still what they were: name, size and time of the last change of each."""
    return {"files": [[path.rpartition("/")[2], *storage.status(path)] for path in paths]}


def check_unchanged(paths: Sequence[str], state: Mapping[str, Any], *, mapped: bool) -> None:
    """Raise BrokenSourceError unless files are what they were when their `state` was told.

    Of files that are mapped into memory, each time with the size they had, only those of that size could be read since.
    """
    for path, (_, size, time) in zip(paths, state["files"], strict=True):
        with contextlib.suppress(OSError):  # what is gone can no longer be read, which tells of itself
            now = storage.status(path)
            if now != (size, time) and not (mapped and now[0] != size):
                raise BrokenSourceError(f"{path} changed while it was read; put it back, or use --overwrite")


def file_reader(root: bytes, filenames: Sequence[bytes]) -> Callable[[tf.Tensor], Element]:
    """A graph function: a position -> the name and bytes of a file below the root, which ends in a slash."""
    import tensorflow as tf

    names, folder = tf.convert_to_tensor(filenames), tf.constant(root)

    def read(position: tf.Tensor) -> Element:
        filename = tf.gather(names, position)
        return {"filename": filename, "encoded": tf.io.read_file(tf.strings.join([folder, filename]))}

    return read
