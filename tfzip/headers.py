"""Graph: how many pixels an image claims to have, as its header tells them.

Read here is, per format, what its decoder in TensorFlow goes by. In few operations: a graph of many takes its time to
build.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import formats

_SIDE = 2**31  # a longer one cannot be; two of them multiplied fit in an int64
_HEAD, _ROOM = 32, 1024  # bytes that hold what stands at a fixed place, and zeros behind those of a file


def claim(encoded: tf.Tensor, *, whole: bool = False) -> tf.Tensor:
    """Bytes [] -> int64 [4]: height, width, frames, and pixels in all.

    They are zeros where the format has no header that is known here; where it is known, but cannot be followed, there
    are no frames, but more pixels than are ever allowed. If `whole`, all frames of an animation count; otherwise those
    of a GIF, of which TensorFlow decodes all, as high and as wide as the largest of them, to give one.
    """
    return _claim(encoded, whole) if tf.executing_eagerly() else _traced_claim()(encoded, whole)


def still(size: tf.Tensor) -> tf.Tensor:
    """The same of one picture of some height and width, int64 [2]."""
    size = tf.minimum(size, _SIDE)
    return tf.concat([size, [1], [tf.reduce_prod(size)]], 0)


@functools.cache
def _traced_claim() -> Any:
    """`_claim` as one operation, whose graph is built once however many graphs have it."""
    return tf.function(_claim, autograph=False, experimental_attributes={"_noinline": True})


def _claim(encoded: tf.Tensor, whole: bool) -> tf.Tensor:
    apart = [b"\xff\xd8\xff", b"GIF8", b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"]
    kind = formats.first(encoded, apart + [layout.magic for layout in _LAYOUTS])
    return tf.switch_case(
        tf.gather([0, 1, 2, 2] + [3] * len(_LAYOUTS), kind),
        [
            lambda: still(tf.image.extract_jpeg_shape(encoded, tf.int64)[:2]),
            lambda: _gif(_with_room(encoded), whole=whole),
            lambda: _jxl(_with_room(encoded)),
            lambda: _laid_out(encoded, kind - len(apart), whole=whole),
        ],
    )


def _with_room(encoded: tf.Tensor) -> tf.Tensor:
    """The bytes [] as uint8 [N], and behind them zeros, so that what reads on at their end finds those."""
    return tf.io.decode_raw(tf.strings.join([encoded, b"\0" * _ROOM]), tf.uint8)


class _Number(NamedTuple):
    """An unsigned number in a file: its first byte, how many it has, the lowest first or last."""

    start: int
    size: int
    little: bool = True


def _numbers(data: tf.Tensor, position: tf.Tensor | int, *numbers: _Number) -> list[tf.Tensor]:
    """Some numbers that begin at places counted from a position on in uint8 [N], each as int64 []."""
    span = max(number.start + number.size for number in numbers)
    found = tf.cast(tf.gather(data, position + np.arange(span)), tf.int64)
    return tf.unstack(tf.reduce_sum(found * _weights(numbers, span), axis=1))


def _weights(numbers: tuple[_Number, ...], span: int) -> npt.NDArray[np.int64]:
    """What each of so many bytes adds to each number: [numbers, span]."""
    rows = np.zeros((len(numbers), span), np.int64)
    for row, (start, size, little) in zip(rows, numbers, strict=True):
        row[start : start + size] = 256 ** (np.arange(size) if little else np.arange(size)[::-1])
    return rows


class _Layout(NamedTuple):
    """Height and width at fixed places; what they are divided by, what they are cut to, and what is added."""

    magic: bytes
    height: _Number
    width: _Number
    divisors: tuple[int, int] = (1, 1)
    modulus: int = 2**32
    more: int = 0
    signed: bool = False


_LAYOUTS = (
    _Layout(b"\x89PNG", _Number(20, 4, little=False), _Number(16, 4, little=False)),  # W3C PNG, 11.2.1
    _Layout(b"BM", _Number(22, 4), _Number(18, 4), signed=True),  # the height is negative if stored from the top
    _Layout(b"RIFF????WEBPVP8X", _Number(27, 3), _Number(24, 3), more=1),  # RFC 9649, 2.7: of the canvas
    _Layout(b"RIFF????WEBPVP8L", _Number(21, 4), _Number(21, 4), (2**14, 1), 2**14, 1),  # RFC 9649, 3.4
    _Layout(b"RIFF????WEBPVP8 ", _Number(28, 2), _Number(26, 2), modulus=2**14),  # RFC 6386, 9.1
    _Layout(b"", _Number(0, 0), _Number(0, 0)),
)
_WEIGHTS = np.stack([_weights((layout.height, layout.width), _HEAD) for layout in _LAYOUTS])
_ARITHMETIC = np.array(
    [
        (layout.divisors, [layout.modulus] * 2, [layout.more] * 2, [2**32 if layout.signed else 2**62] * 2)
        for layout in _LAYOUTS
    ]
)
_CANVAS = 2


def _laid_out(encoded: tf.Tensor, layout: tf.Tensor, *, whole: bool) -> tf.Tensor:
    head = tf.cast(tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD), tf.int64)
    size = tf.reduce_sum(head * tf.gather(_WEIGHTS, layout), axis=1)
    divisors, modulus, more, turn = tf.unstack(tf.gather(_ARITHMETIC, layout))
    size = size // divisors % modulus + more
    claim = still(tf.minimum(size, turn - size))  # of a negative number what it is without its sign
    if not whole:
        return claim
    frames = tf.cond(layout == _CANVAS, lambda: _webp_frames(_with_room(encoded)), lambda: tf.constant(1, tf.int64))
    return claim * tf.stack([1, 1, frames, frames])


def _webp_frames(data: tf.Tensor) -> tf.Tensor:
    """How many chunks there are of the name ANMF, one at least."""

    def advance(position: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        name, size = _numbers(data, position, _Number(0, 4, little=False), _Number(4, 4))
        is_frame = name == int.from_bytes(b"ANMF", "big")
        return position + 8 + size + size % 2, frames + tf.cast(is_frame, tf.int64)

    stop = tf.size(data, tf.int64) - _ROOM
    first = (tf.constant(12, tf.int64), tf.constant(0, tf.int64))
    return tf.maximum(tf.while_loop(lambda position, _: position < stop, advance, first)[1], 1)


# GIF (CompuServe, version 89a, 17 to 27).

_PALETTES = np.array([3 * 2 ** (flags % 8 + 1) if flags >= 128 else 0 for flags in range(256)])
"""The bytes of the palette that the flags tell of."""


def _gif(data: tf.Tensor, *, whole: bool) -> tf.Tensor:
    """Of a picture as high and as wide as the largest frames, since that is what TensorFlow makes."""
    stop = tf.size(data, tf.int64) - _ROOM
    numbers = (_Number(0, 1), _Number(5, 2), _Number(7, 2), _Number(9, 1))

    def advance(position: tf.Tensor, size: tf.Tensor, sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        kind, width, height, flags = _numbers(data, position, *numbers)
        is_frame = kind == ord(",")
        frame = tf.stack([height, width, 1, height * width]) * tf.cast(is_frame, tf.int64)
        blocks = position + tf.where(is_frame, 11 + tf.gather(_PALETTES, flags), 2)
        following = _behind_blocks(data, tf.minimum(blocks, stop))
        return following, tf.maximum(size, frame[:2]), sums + frame[2:]

    def is_block(position: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(tf.gather(data, position) == [ord(","), ord("!")])

    nothing = tf.constant([0, 0], tf.int64)
    (flags,) = _numbers(data, 0, _Number(10, 1))
    first = tf.minimum(13 + tf.gather(_PALETTES, flags), stop)
    _, size, sums = tf.while_loop(is_block, advance, (first, nothing, nothing))
    area = tf.reduce_prod(size)
    pixels = area * sums[0] if whole else tf.maximum(area, sums[1])
    return tf.concat([size, sums[:1], [pixels]], 0)


def _behind_blocks(data: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """Behind the blocks of 1 to 255 bytes, each behind its size, that begin at a position; a size of 0 ends them."""
    last = tf.size(data, tf.int64) - 1

    def advance(position: tf.Tensor) -> tuple[tf.Tensor]:
        size = tf.gather(data, position)
        stride = tf.cast(size, tf.int64) + 1
        sizes = tf.gather(data, tf.minimum(position + stride * np.arange(256), last))
        in_a_row = tf.math.cumprod(tf.cast(sizes == size, tf.int64))  # most are equally long
        return (position + stride * tf.reduce_sum(in_a_row),)

    return tf.while_loop(lambda position: tf.gather(data, position) > 0, advance, (position,))[0] + 1


# JPEG XL (ISO/IEC 18181-1, D.2; 18181-2, 9).

_JXL_SIDES = np.array(
    # By the three bits before a side (whether it is in units of 8, and how many bits it has): what its bits are divided
    # by and cut to, its unit, what the ratio behind it is divided by; and of what follows, in which half of the header
    # it begins, and what that is divided by.
    [
        (2, 2**5, 8, 2**6, 0, 2**9)
        if kind % 2
        else (8, 2**bits, 1, 2 ** (3 + bits), bits // 30, 2 ** ((6 + bits) % 32))
        for kind, bits in enumerate(np.repeat((9, 13, 18, 30), 2).tolist())
    ]
)
_JXL_RATIOS = np.array([(0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1)])  # of width to height
_JXL_HEADER = 14  # bytes, at most, to where the size ends
_CODESTREAM, _PART = (int.from_bytes(name, "big") for name in (b"jxlc", b"jxlp"))


def _jxl(data: tf.Tensor) -> tf.Tensor:
    """The size is one number, read from its lowest bit on; here in two parts that overlap."""
    start = _jxl_codestream(data)
    magic, low, high = _numbers(data, start, _Number(0, 2, little=False), _Number(2, 8), _Number(6, 8))
    height, ratio_divisor, half, divisor = _jxl_side(low)
    wide, tall = tf.unstack(tf.gather(_JXL_RATIOS, low // ratio_divisor % 8))
    width, _, _, _ = _jxl_side(tf.gather(tf.stack([low, high]), half) // divisor * 2 + low % 2)
    width = tf.where(wide > 0, height * wide // tall, width)
    return tf.where(magic == 0xFF0A, still(tf.stack([height, width])), [0, 0, 0, 2**62])


def _jxl_side(bits: tf.Tensor) -> tuple[tf.Tensor, ...]:
    divisor, modulus, unit, *behind = tf.unstack(tf.gather(_JXL_SIDES, bits % 8))
    return ((bits // divisor % modulus + 1) * unit, *behind)


def _jxl_codestream(data: tf.Tensor) -> tf.Tensor:
    """Where it begins: at once, or in a file of boxes in one of them, or in several that are numbered.

    One that a part of it is too short for is not looked for: 0, where the boxes begin.
    """
    stop = tf.size(data, tf.int64) - _ROOM
    numbers = [_Number(start, size, little=False) for start, size in ((0, 4), (4, 4), (8, 8))]

    def advance(position: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        size, name, long = _numbers(data, position, *numbers)
        header, size = tf.unstack(tf.where(size == 1, tf.stack([16, long]), tf.stack([8, size])))
        following = tf.where(size < header, stop, position + size)  # a size of 0: to the end of the file
        is_part = name == _PART
        contents = position + header + tf.where(is_part, tf.constant(4, tf.int64), 0)
        is_short = is_part & (contents + _JXL_HEADER > following)
        is_it = is_part | (name == _CODESTREAM)
        return tf.where(is_short, stop, following), tf.where(is_it & ~is_short, contents, 0)

    first = (tf.where(tf.gather(data, 0) == 0xFF, stop, 12), tf.constant(0, tf.int64))
    _, found = tf.while_loop(lambda position, found: (position < stop) & (found == 0), advance, first)
    return tf.minimum(found, stop)
