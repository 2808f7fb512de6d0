"""Graph: the orientation that a camera noted in EXIF, and an image turned by it.

JPEG keeps EXIF in a segment APP1, PNG in a chunk `eXIf`, WebP in a chunk `EXIF`: each is a list of blocks that tell
their own size. Inside is a little TIFF file, whose first directory has the orientation as its tag 0x0112 (CIPA DC-008).
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfzip import formats

_ORIENTATION = 0x0112
_ROOM = b"\0" * 32  # behind the bytes, so that what reads a few more at their end finds zeros

_Step = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor, tf.Tensor]]
"""The block that begins at a position: where the next one does, whether it is EXIF, where its contents begin."""


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """Bytes [] -> int64 [], 1 to 8 as EXIF counts; 1, upright, where there is none or it cannot be read."""
    data = tf.io.decode_raw(tf.strings.join([encoded, _ROOM]), tf.uint8)
    blocks = {
        "jpeg": lambda: _find(data, 2, _jpeg_segment),
        "png": lambda: _find(data, 8, _png_chunk),
        "webp": lambda: _find(data, 12, _webp_chunk),
    }
    start = formats.switch(encoded, blocks, lambda: tf.constant(0, tf.int64))
    return tf.cond(start > 0, lambda: _read_orientation(data[start:]), lambda: tf.constant(1, tf.int64))


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """[H, W, C] as it is stored -> [H, W, C] or [W, H, C] as it is to be looked at."""

    def turn() -> tf.Tensor:
        order = tf.where(orientation >= 5, [1, 0, 2], [0, 1, 2])
        upside_down = tf.reduce_any(orientation == [3, 4, 7, 8])
        mirrored = tf.reduce_any(orientation == [2, 3, 6, 7])
        return tf.reverse(tf.transpose(image, order), tf.boolean_mask([0, 1], [upside_down, mirrored]))

    turned = tf.cond(orientation == 1, lambda: image, turn)
    return tf.ensure_shape(turned, (None, None, image.shape[2]))


# Where EXIF is.


def _find(data: tf.Tensor, start: int, step: _Step) -> tf.Tensor:
    """The position of the TIFF file in the first block that holds EXIF; 0 if none does."""
    end = tf.size(data, tf.int64) - len(_ROOM)

    def advance(position: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        following, is_exif, contents = step(data, position)
        return following, tf.where(is_exif, contents, tf.constant(0, tf.int64))

    first = (tf.constant(start, tf.int64), tf.constant(0, tf.int64))
    return tf.while_loop(lambda position, found: (position < end) & (found == 0), advance, first)[1]


def _jpeg_segment(data: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    marker = data[position + 1]
    # Any number of 0xFF may stand before a marker. Behind the start of scan, 0xDA, there are only pixels.
    is_fill = (data[position] == 0xFF) & (marker == 0xFF)
    is_last = (data[position] != 0xFF) | (marker == 0xDA) | (marker == 0xD9)
    following = position + 2 + _number(data, position + 2, 2)
    following = tf.where(is_last, tf.size(data, tf.int64), tf.where(is_fill, position + 1, following))
    is_exif = (marker == 0xE1) & _spells(data, position + 4, b"Exif\0")
    return following, is_exif, position + 10


def _png_chunk(data: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    following = position + 12 + _number(data, position, 4)
    return following, _spells(data, position + 4, b"eXIf"), position + 8


def _webp_chunk(data: tf.Tensor, position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    size = _number(data, position + 4, 4, little=True)
    prefix = tf.where(_spells(data, position + 8, b"Exif\0"), tf.constant(6, tf.int64), 0)  # JPEG's, by mistake
    return position + 8 + size + size % 2, _spells(data, position, b"EXIF"), position + 8 + prefix


# What it says.


def _read_orientation(tiff: tf.Tensor) -> tf.Tensor:
    little = _spells(tiff, 0, b"II")
    directory = tf.minimum(_number(tiff, 4, 4, little), tf.size(tiff, tf.int64) - 2)
    count = _number(tiff, directory, 2, little)
    entries = tiff[directory + 2 : directory + 2 + 12 * count]
    entries = tf.reshape(entries[: tf.size(entries) // 12 * 12], (-1, 12))
    is_orientation = _number(entries, 0, 2, little) == _ORIENTATION
    values = tf.boolean_mask(_number(entries, 8, 2, little), is_orientation)
    value = tf.concat([values, [1]], 0)[0]
    is_tiff = (little | _spells(tiff, 0, b"MM")) & (_number(tiff, 2, 2, little) == 42)
    return tf.where(is_tiff & (value >= 1) & (value <= 8), value, 1)


def _number(data: tf.Tensor, position: tf.Tensor | int, size: int, little: tf.Tensor | bool = False) -> tf.Tensor:
    """The unsigned number in `size` bytes from a position on: uint8 [..., n] -> int64 [...]."""
    digits = tf.cast(data[..., position : position + size], tf.int64)
    powers = tf.constant([256**power for power in range(size)], tf.int64)
    return tf.reduce_sum(digits * tf.where(little, powers, powers[::-1]), axis=-1)


def _spells(data: tf.Tensor, position: tf.Tensor | int, text: bytes) -> tf.Tensor:
    return tf.reduce_all(data[position : position + len(text)] == list(text))
