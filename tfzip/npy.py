"""Graph: the bytes of a `.npy` file -> pixels. Nothing is ever unpickled.

The format is that of `numpy.lib.format`: a magic, a version, the size of a header, the header (a Python literal that
tells dtype, order and shape), the array's bytes.
"""

from __future__ import annotations

import tensorflow as tf

from tfzip.bounds import USUAL, Bound, checked

_DTYPES = {  # as NumPy calls them: the dtype, and whether the least byte of each number comes first
    "|u1": (tf.uint8, True),
    "<u2": (tf.uint16, True),
    ">u2": (tf.uint16, False),
    "<f4": (tf.float32, True),
    ">f4": (tf.float32, False),
    "<f8": (tf.float64, True),
    ">f8": (tf.float64, False),
}


def decode(encoded: tf.Tensor, bound: Bound = USUAL) -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, C], C 1, 3 or 4.

    The array is [H, W] or [H, W, C] in C order: uint8, or uint16 (0..65535 becomes 0..255), or float32 or float64 that
    hold 0..255 (rounded). Anything else is an InvalidArgumentError that says what is wrong; so are more pixels than
    may be, though the array cannot claim more than the file has.
    """
    header, body = _split(encoded)
    _check(tf.strings.regex_full_match(header, r"(?s).*'fortran_order': *False.*"), "npy: the array is not in C order")
    shape = _shape(header)
    checked(shape[:2], bound)
    dtype = tf.strings.regex_replace(header, r"(?s).*'descr': *'([^']*)'.*", r"\1")
    values = _numbers(body, dtype, tf.reduce_prod(shape))
    is_float, most = tf.strings.substr(dtype, 1, 1) == b"f", tf.reduce_max(values)
    _check(~is_float | tf.reduce_all((values >= 0) & (values <= 255)), "npy: not all pixels are from 0 to 255")
    # Such an image is as good as black if it is in 0..255, and an everyday one if it is not: better not to guess.
    _check(~is_float | (most > 1) | (most == 0), "npy: all pixels are from 0 to 1; use 0 to 255")
    white = tf.where(tf.strings.substr(dtype, 1, 2) == b"u2", 65535.0, 255.0)
    return tf.cast(tf.reshape(tf.round(values * 255 / white), shape), tf.uint8)


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
    sizes = [tf.strings.regex_replace(shape + ",1", r"([0-9]+), *([0-9]+), *([0-9]+).*", rf"\{i}") for i in (1, 2, 3)]
    return tf.strings.to_number(tf.stack(sizes), tf.int64)


def _numbers(body: tf.Tensor, dtype: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """The array's bytes as float32 [count]."""
    is_dtype = dtype == list(_DTYPES)
    _check(tf.reduce_any(is_dtype), "npy: the dtype is ", dtype, ", not uint8, uint16, float32 or float64")
    size = tf.reduce_sum(tf.where(is_dtype, [kind.size for kind, _ in _DTYPES.values()], 0))
    expected, found = count * tf.cast(size, tf.int64), tf.strings.length(body)
    shown = [tf.strings.as_string(number) for number in (found, expected)]
    _check(tf.cast(found, tf.int64) == expected, "npy: ", shown[0], " bytes of pixels, not ", shown[1])
    bodies = tf.unstack(tf.where(is_dtype, body, b""), len(_DTYPES))  # all but one are empty
    parts = [tf.io.decode_raw(one, *kind) for one, kind in zip(bodies, _DTYPES.values(), strict=True)]
    return tf.concat([tf.cast(part, tf.float32) for part in parts], 0)
