"""Graph: an image's bytes -> its pixels, as uint8, whatever the format. Of an animation the first frame counts."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfzip import formats, npy

_BACKGROUNDS = {"white": 255, "black": 0}
_JPEG, _PNG, _GIF = b"\xff\xd8\xff", b"\x89PN", b"GIF"
_CODECS = {1: (_JPEG, _PNG), 3: (_JPEG, _PNG, _GIF), 4: ()}
"""How the formats begin whose decoder itself gives so many channels, whatever the file has.

The decoder of PNG gives four too, but with hardly any alpha where the file has less than 8 bits and no alpha.
"""


def decode(encoded: tf.Tensor, channels: int, alpha: str = "drop") -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, channels].

    Args:
        encoded: a file of a format that TensorFlow reads, or a `.npy` array (see `npy.decode`).
        channels: 1 grey, 3 RGB, 4 RGBA (opaque where the file has no alpha).
        alpha: of an image that has it (PNG, WebP, `.npy`): `drop`, or `white` or `black` to lay the image on.

    Raises:
        InvalidArgumentError: no whole image, or of a format that TensorFlow lacks.
    """
    image = tf.cond(
        _is_plain(encoded, channels, alpha),
        lambda: _decode_image(encoded, channels),
        lambda: _aside(lambda encoded: _convert(decode_as_is(encoded), channels, alpha), encoded),
    )
    return tf.ensure_shape(image, (None, None, channels))


def size(encoded: tf.Tensor) -> tf.Tensor:
    """Bytes [] -> int64 [2], height and width, without decoding a JPEG or PNG that has its header and its end.

    Other files are decoded, which tells why they are none.
    """
    return tf.case(
        [
            (_ends(encoded, _JPEG, b"\xff\xd9"), lambda: tf.image.extract_jpeg_shape(encoded, tf.int64)[:2]),
            (_ends(encoded, _PNG, b"IEND\xaeB`\x82"), lambda: _png_size(encoded)),
        ],
        default=lambda: _aside(lambda encoded: tf.shape(decode_as_is(encoded), tf.int64)[:2], encoded),
    )


def _ends(encoded: tf.Tensor, begin: bytes, end: bytes) -> tf.Tensor:
    """Whether the bytes [] begin and end so."""
    start = tf.maximum(tf.strings.length(encoded) - len(end), 0)
    return (tf.strings.substr(encoded, 0, len(begin)) == begin) & (tf.strings.substr(encoded, start, len(end)) == end)


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    """What the first chunk says, which is IHDR (W3C PNG, 11.2.1)."""
    numbers = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.cast(tf.reverse(tf.ensure_shape(numbers, (2,)), (0,)), tf.int64)


def decode_as_is(encoded: tf.Tensor) -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, C] of as many channels as the file has: grey, grey and alpha, RGB, RGBA."""
    # tf.debugging.Assert looks up the source of the whole call stack: more work than all the rest here.
    tf.raw_ops.Assert(condition=~formats.is_lacking(encoded), data=["TensorFlow lacks the format"])
    branches = {
        "npy": lambda: npy.decode(encoded),
        "bmp": lambda: _decode_image(encoded, 3),  # its fourth byte is rarely meant as alpha
        "webp": lambda: _decode_image(_with_room_for_alpha(encoded), 0),
    }
    image = formats.switch(encoded, branches, lambda: _decode_image(encoded, 0))
    return tf.ensure_shape(image, (None, None, None))


def _is_plain(encoded: tf.Tensor, channels: int, alpha: str) -> tf.Tensor:
    """Whether TensorFlow's decoder gives what is wanted. Asked of every image, so in as few operations as can be."""
    codecs: list[bytes] = [begin for begin in _CODECS[channels] if begin != _PNG or alpha == "drop"]
    begin = tf.strings.substr(encoded, 0, 3)
    is_plain = tf.reduce_any(begin == tf.constant(codecs, tf.string, (len(codecs),)))
    if channels != 1:
        return is_plain
    # A JPEG in CMYK cannot be decoded to grey.
    return tf.cond(begin == _JPEG, lambda: tf.image.extract_jpeg_shape(encoded)[2] < 4, lambda: is_plain)


def _decode_image(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    return tf.io.decode_image(encoded, channels, expand_animations=False)


def _aside(function: Callable[[tf.Tensor], tf.Tensor], encoded: tf.Tensor) -> tf.Tensor:
    """Call a function that few images need, as one operation: the others pay for each operation they pass by."""
    if tf.executing_eagerly():
        return function(encoded)
    signature = [tf.TensorSpec((), tf.string)]
    attributes = {"_noinline": True}
    return tf.function(function, signature, autograph=False, experimental_attributes=attributes)(encoded)


def _with_room_for_alpha(encoded: tf.Tensor) -> tf.Tensor:
    """The bytes [] of a WebP; those of an animation with a header that says that there is alpha.

    TensorFlow makes four channels of an animation, but room for three where the header says that there is no alpha,
    and writes behind it.
    """
    room = tf.strings.join([encoded, b"\0" * 21])  # a file may end anywhere
    flags = tf.io.decode_raw(encoded, tf.uint8, fixed_length=21)[20]
    is_animated = (tf.strings.substr(room, 12, 4) == b"VP8X") & (tf.bitwise.bitwise_and(flags, 0x02) > 0)
    flags = tf.gather([bytes([byte | 0x10]) for byte in range(256)], tf.cast(flags, tf.int32))
    rest = tf.strings.substr(room, 21, tf.maximum(tf.strings.length(encoded) - 21, 0))
    return tf.where(is_animated, tf.strings.join([tf.strings.substr(room, 0, 20), flags, rest]), encoded)


def _convert(image: tf.Tensor, channels: int, alpha: str) -> tf.Tensor:
    """Uint8 [H, W, 1 to 4] -> [H, W, channels]."""
    depth = tf.shape(image)[2]
    has_alpha = depth % 2 == 0
    colours = image[..., : depth - tf.cast(has_alpha, tf.int32)]
    opaque = tf.constant(255, tf.uint8)
    opacity = tf.where(has_alpha, image[..., -1:], opaque)
    if alpha != "drop":
        colours, opacity = _lay_on(_BACKGROUNDS[alpha], colours, opacity), tf.fill(tf.shape(opacity), opaque)
    is_grey = depth < 3
    if channels == 1:
        return tf.cond(is_grey, lambda: colours, lambda: tf.image.rgb_to_grayscale(colours))
    rgb = tf.tile(colours, (1, 1, tf.where(is_grey, 3, 1)))
    return tf.concat([rgb, opacity], 2) if channels == 4 else rgb


def _lay_on(background: int, colours: tf.Tensor, opacity: tf.Tensor) -> tf.Tensor:
    colours, opacity = tf.cast(colours, tf.int32), tf.cast(opacity, tf.int32)
    return tf.cast((colours * opacity + background * (255 - opacity) + 127) // 255, tf.uint8)
