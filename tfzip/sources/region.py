"""Graph: pieces of large files, read at any place, or cut from a compressed file as it streams by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import storage

_CHUNK = 1 << 20

Positions = npt.NDArray[np.int64]


def reader(files: Sequence[storage.Local]) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]:
    """A graph function: which file, offset and size (int64) -> the bytes there. Files are mapped into memory."""
    regions = [_mapped(file) for file in files]

    def read(file: tf.Tensor, offset: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        if len(regions) == 1:
            piece = regions[0](offset, size)
        else:
            branches = [lambda region=region: region(offset, size) for region in regions]
            piece = tf.switch_case(tf.cast(file, tf.int32), branches)
        # What makes a string of bytes is the protobuf of their tensor, which ends in them.
        proto, length = tf.io.serialize_tensor(piece), tf.cast(size, tf.int32)
        return tf.strings.substr(proto, tf.strings.length(proto) - length, length)

    return read


def _mapped(file: storage.Local) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """TensorFlow reads no part of a file at an offset, but it maps a file as a tensor of bytes."""
    return lambda offset, size: tf.slice(values(file.path, tf.uint8), [offset], [size])


def values(path: str, dtype: tf.DType) -> tf.Tensor:
    """A local file mapped into memory as one flat tensor, its header included; to be called where it is used."""
    size = os.path.getsize(path) // dtype.size
    mapped = tf.raw_ops.ImmutableConst(dtype=dtype, shape=(size,), memory_region_name=os.fsencode(path))
    # Grappler would take it for a constant to fold, and copy the file into memory; operations with this attribute it
    # leaves alone. There is no public name for that.
    if not tf.executing_eagerly():
        untouched = tf.compat.v1.AttrValue(list=tf.compat.v1.AttrValue.ListValue(i=[]))
        mapped.op._set_attr("_scoped_allocator", untouched)
    return mapped


def gzip_pieces(path: str, total: int, starts: Positions, sizes: Positions) -> Any:
    """A dataset of pieces of what a gzip file holds, cut out as it streams by: memory is that of the largest piece.

    Args:
        path: of the gzip file.
        total: how many bytes it holds, uncompressed.
        starts: of the pieces, in order, none inside another.
        sizes: of the pieces.
    """
    step = _step(total, total - int(np.max(starts + sizes, initial=0)))
    edges = np.arange(0, total - total % step + 1, step, dtype=np.int64)
    done = np.searchsorted(starts + sizes, edges, "right")  # pieces that end before each edge
    done[0] = 0  # though it be of no size
    waiting = np.append(starts, total)[done]
    kept = tf.constant(np.minimum(waiting, edges))  # where the text begins that is still needed at each edge
    firsts, begins, lengths = tf.constant(done), tf.constant(starts), tf.constant(sizes)

    def window(text: tf.Tensor, numbered: tuple[tf.Tensor, tf.Tensor]) -> tuple[tf.Tensor, tuple[tf.Tensor, tf.Tensor]]:
        number, chunk = numbered
        text = tf.strings.join([text, chunk])
        length = tf.cast(tf.strings.length(text), tf.int64)
        return tf.strings.substr(text, kept[number + 1] - kept[number], length), (number, text)

    def cut(number: tf.Tensor, text: tf.Tensor) -> tf.data.Dataset:
        pieces = tf.data.Dataset.range(firsts[number], firsts[number + 1])
        return pieces.map(_as_it_is(lambda i: tf.strings.substr(text, begins[i] - kept[number], lengths[i])))

    chunks = tf.data.FixedLengthRecordDataset([path], step, 0, total % step, compression_type="GZIP").enumerate()
    windows = chunks.scan("", _as_it_is(window))
    return windows.flat_map(_as_it_is(cut))


def _step(total: int, unused: int) -> int:
    """The largest chunk that divides a file but for bytes unused at its end: the dataset takes no shorter one."""
    return next(size for size in range(max(1, min(_CHUNK, total)), 0, -1) if total % size <= unused)


def _as_it_is(function: Callable[..., Any]) -> Any:
    return tf.autograph.experimental.do_not_convert(function)
