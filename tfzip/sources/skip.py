"""A source without the images that an earlier export holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfzip.errors import SourceError
from tfzip.naming import to_bytes
from tfzip.read import Export
from tfzip.sources import spooled
from tfzip.sources.source import Listed, Stream

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element


def without(source: Listed | Stream, export: Export) -> Listed | Stream:
    """Only the items whose filename the export does not hold.

    Raises SourceError if it holds them all, where that is known beforehand.
    """
    names = {to_bytes(name) for name in export.metadata["filename"]}
    if isinstance(source, Stream) or not source.unique:
        return _streamed(source, names)
    kept = np.array([row for row, name in enumerate(source.filenames) if name not in names], np.int64)
    if not len(kept):
        raise SourceError(f"{source.name}: {export.path} holds all of its {len(source.filenames)} images (--skip-in)")
    return dataclasses.replace(
        source,
        filenames=spooled.at(source.filenames, kept),
        sizes=source.sizes[kept],
        stamps=None if source.stamps is None else source.stamps[kept],
        truths=None if source.truths is None else spooled.at(source.truths, kept),
        columns={name: values[kept] for name, values in source.columns.items()},
        reader=lambda: _reader(source, kept),
    )


def _reader(source: Listed, kept: npt.NDArray[np.int64]) -> Callable[[tf.Tensor], Element]:
    import tensorflow as tf

    read, positions = source.reader(), tf.constant(kept)
    return lambda position: read(tf.gather(positions, position))


def _streamed(source: Listed | Stream, names: set[bytes]) -> Stream:
    """How many are left only the end tells."""
    import tensorflow as tf

    if isinstance(source, Listed):
        raise SourceError(f"--skip-in: the filenames of {source.name} are not known before it is read, so not shuffled")

    def batches(size: int) -> Any:
        texts = tf.constant(sorted(names), tf.string)
        pairs = tf.lookup.KeyValueTensorInitializer(texts, tf.zeros(len(names), tf.int64))
        held = tf.lookup.StaticHashTable(pairs, -1)
        new = tf.autograph.experimental.do_not_convert(lambda item: held.lookup(item["filename"]) < 0)
        return source.batches(size).unbatch().filter(new).batch(size)

    return dataclasses.replace(source, count=None, batches=batches, place="item {} of those left".format)
