"""What Python gives, in a graph: a dataset of the chunks that an iterator yields.

`tf.data.Dataset.from_generator` does so too: it copies texts three times on the way, and takes lists of arrays apart.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import tensorflow as tf

Chunk = Mapping[str, Any]
"""Lists or arrays by name, all of one length, and not empty."""


def dataset(chunks: Iterator[Chunk], signature: Mapping[str, tf.TensorSpec]) -> Any:
    """Dicts of tensors, as `signature` says; an error of the iterator's ends them.

    The iterator is the caller's to keep: TensorFlow holds for ever what a graph calls, and would hold all images of a
    list with it. When it is gone the dataset ends.
    """
    import tensorflow as tf

    kept, dtypes = weakref.ref(chunks), [spec.dtype for spec in signature.values()]
    end = {name: np.empty((0, *spec.shape[1:]), spec.dtype.as_numpy_dtype) for name, spec in signature.items()}

    def taken() -> list[tf.Tensor]:
        chunk = next(kept() or iter(()), end)
        with tf.device("CPU:0"):
            return [tf.constant(chunk[name], spec.dtype) for name, spec in signature.items()]

    def element(_: tf.Tensor) -> dict[str, tf.Tensor]:
        values = zip(signature.items(), tf.py_function(taken, [], dtypes), strict=True)
        return {name: tf.ensure_shape(value, spec.shape) for (name, spec), value in values}

    def is_there(values: dict[str, tf.Tensor]) -> tf.Tensor:
        return tf.size(next(iter(values.values()))) > 0

    without = tf.autograph.experimental.do_not_convert
    return tf.data.Dataset.counter().map(without(element)).take_while(without(is_there))
