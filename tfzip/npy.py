"""Graph: the bytes of a `.npy` file -> pixels. Nothing is ever unpickled.

The format is that of `numpy.lib.format`: a magic, a version, the size of a header, the header (a Python literal that
tells dtype, order and shape), the array's bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

_KINDS = (tf.uint8, tf.uint16, tf.float32, tf.float64)
_WHITE = (255.0, 65535.0, 255.0, 255.0)  # of each kind
_DTYPES = {  # what NumPy calls them -> the kind, and whether the least byte of each number comes first
    "|u1": (0, True),
    "<u2": (1, True),
    ">u2": (1, False),
    "<f4": (2, True),
    ">f4": (2, False),
    "<f8": (3, True),
    ">f8": (3, False),
}


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, C], C 1, 3 or 4.

    The array is [H, W] or [H, W, C] in C order: uint8, or uint16 (0..65535 becomes 0..255), or float32 or float64 that
    hold 0..255 (rounded). Anything else is an InvalidArgumentError that says what is wrong.
    """
    header, body = _split(encoded)
    _check(tf.strings.regex_full_match(header, r"(?s).*'fortran_order': *False.*"), "npy: the array is not in C order")
    shape = _shape(header)
    dtype = tf.strings.regex_replace(header, r"(?s).*'descr': *'([^']*)'.*", r"\1")
    is_dtype = dtype == list(_DTYPES)
    _check(tf.reduce_any(is_dtype), "npy: the dtype is ", dtype, ", not uint8, uint16, float32 or float64")
    row = tf.argmax(tf.cast(is_dtype, tf.int32))
    kind, is_little = (tf.gather(column, row) for column in zip(*_DTYPES.values(), strict=True))
    values = _numbers(body, tf.reduce_prod(shape), kind, is_little)
    most = tf.reduce_max(values)
    _check((kind < 2) | tf.reduce_all((values >= 0) & (values <= 255)), "npy: not all pixels are from 0 to 255")
    # Such an image is as good as black if it is in 0..255, and an everyday one if it is not: better not to guess.
    _check((kind < 2) | (most > 1) | (most == 0), "npy: all pixels are from 0 to 1; use 0 to 255")
    return tf.cast(tf.reshape(tf.round(values * 255 / tf.gather(_WHITE, kind)), shape), tf.uint8)


def _check(condition: tf.Tensor, *message: tf.Tensor | str) -> None:
    """Raise InvalidArgumentError with the message unless the condition holds; in a graph too."""
    tf.raw_ops.Assert(condition=condition, data=[tf.strings.join(message)])


def _split(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The header, and the array's bytes."""
    start = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=12), tf.int32)
    is_first = start[6] == 1  # version 1 has two bytes for the header's size, later ones have four
    size = start[8] + 256 * start[9] + tf.where(is_first, 0, 256**2 * start[10])
    begin = tf.where(is_first, 10, 12)
    _check(begin + size <= tf.strings.length(encoded), "npy: it ends within its header")
    return tf.strings.substr(encoded, begin, size), tf.strings.substr(encoded, begin + size, -1)


def _shape(header: tf.Tensor) -> tf.Tensor:
    """Height, width and channels."""
    shape = tf.strings.regex_replace(header, r"(?s).*'shape': *\(([^)]*)\).*", r"\1")
    is_image = tf.strings.regex_full_match(shape, "[1-9][0-9]*, *[1-9][0-9]*(, *[134])?")
    _check(is_image, "npy: the shape is (", shape, "), not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    sizes = tf.strings.to_number(tf.strings.split(tf.strings.regex_replace(shape, ",", " ")), tf.int64)
    return tf.concat([sizes, [1]], 0)[:3]


def _numbers(body: tf.Tensor, count: tf.Tensor, kind: tf.Tensor, is_little: tf.Tensor) -> tf.Tensor:
    """The array's bytes as float32 [count]."""
    size = tf.gather([dtype.size for dtype in _KINDS], kind)
    expected, found = count * tf.cast(size, tf.int64), tf.strings.length(body)
    shown = [tf.strings.as_string(number) for number in (found, expected)]
    _check(tf.cast(found, tf.int64) == expected, "npy: ", shown[0], " bytes of pixels, not ", shown[1])
    numbers = tf.reshape(tf.io.decode_raw(body, tf.uint8), (-1, size))
    numbers = tf.cond(is_little, lambda: numbers, lambda: tf.reverse(numbers, (1,)))

    def of(dtype: tf.DType) -> Callable[[], tf.Tensor]:
        return lambda: tf.cast(tf.bitcast(tf.ensure_shape(numbers, (None, dtype.size)), dtype), tf.float32)

    return tf.reshape(tf.switch_case(kind, [of(dtype) for dtype in _KINDS]), (-1,))
