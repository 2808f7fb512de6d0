"""Where images come from: one file a kind of source."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from tfzip import storage
from tfzip.errors import SourceError

if TYPE_CHECKING:
    import tensorflow as tf

Element = dict[str, "tf.Tensor"]
"""What flows through the graph: named tensors of one item, or of a batch."""


class Source(Protocol):
    """A source that can be listed: positions 0..len-1, each an item with a unique filename."""

    kind: str
    filenames: Sequence[bytes]
    sizes: npt.NDArray[np.int64]  # bytes of each item, as stored
    ignored: int  # files that are there but are no images
    truths: Sequence[bytes] | None  # the label of each item, empty where it has none; None: no labels at all

    def reader(self) -> Callable[[tf.Tensor], Element]:
        """A graph function: a position -> the item's `filename` and `encoded` bytes."""
        ...


def open_source(source: str | os.PathLike[str], labels: str) -> Source:
    """List a source.

    Args:
        source: a folder, or a glob.
        labels: `none`, or `folder`: the first folder below the root is the label.

    Raises SourceError if it does not exist or holds no images.
    """
    from tfzip.sources import folder

    path = os.fspath(source)
    if not path:
        raise SourceError("SOURCE is empty; give a folder or a glob")
    if storage.isdir(path):
        return folder.from_folder(path, labels)
    if folder.is_glob(path) or storage.exists(path):
        return folder.from_glob(path, labels)
    raise SourceError(f"{path}: no such folder or file")
