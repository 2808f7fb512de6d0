"""Graph: an image's bytes -> its pixels, as uint8, whatever the format. Of an animation the first frame counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from tfzip import formats, npy
from tfzip.bounds import USUAL, Bound, bounded, checked

_BACKGROUNDS = {"white": 255, "black": 0}
_RATIOS = (1, 2, 4, 8)
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PN"
_LONGEST_HEAD = 1 << 20
_LEAST_JPEG = bytes.fromhex("ffd8 ffc0000b080001000101011100 ffda0008010100003f00")  # one pixel's headers


def decode(
    encoded: tf.Tensor,
    channels: int,
    alpha: str = "drop",
    bound: Bound = USUAL,
    *,
    least: tuple[int, int] | None = None,
) -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, channels].

    Args:
        encoded: a file of a format that TensorFlow reads, or a `.npy` array (see `npy.decode`).
        channels: 1 grey, 3 RGB, 4 RGBA (opaque where the file has no alpha).
        alpha: of an image that has it (PNG, WebP, `.npy`): `drop`, or `white` or `black` to lay the image on.
        bound: what a file may claim to hold.
        least: height and width that will do: a JPEG then comes at a half, a quarter or an eighth of its size, where
            that is no smaller. None for the whole.

    Raises:
        InvalidArgumentError: no whole image, too large a one, or of a format that TensorFlow lacks.
    """
    side, codecs = math.isqrt(bound.pixels), _codecs(channels, alpha)

    def plain() -> tf.Tensor:
        return _decode_image(encoded, channels)

    def jpeg() -> tf.Tensor:
        return plain() if least is None else _decode_jpeg_at(encoded, channels, least)

    def other(encoded: tf.Tensor) -> tf.Tensor:
        grey = codecs if channels == 1 else ()
        return _convert(decode_as_is(encoded, bound, grey), channels, alpha)

    def jpeg_or_other() -> tf.Tensor:
        is_plain = _is_small_jpeg(encoded, side, channels) if "jpeg" in codecs else tf.constant(False)
        return tf.cond(is_plain, jpeg, lambda: _aside(other, encoded))

    image = tf.cond(_is_small_png(encoded, side), plain, jpeg_or_other) if "png" in codecs else jpeg_or_other()
    return tf.ensure_shape(image, (None, None, channels))


def decode_usual(
    encoded: tf.Tensor,
    channels: int,
    alpha: str = "drop",
    bound: Bound = USUAL,
    *,
    least: tuple[int, int] | None = None,
) -> tf.Tensor:
    """As `decode`, of what most images are: a JPEG or PNG whose decoder itself gives what is wanted.

    Any other is an InvalidArgumentError. In a graph this is built far faster; without `least` it has no branches.
    """
    side, codecs = math.isqrt(bound.pixels), _codecs(channels, alpha)
    is_png = _is_small_png(encoded, side) if "png" in codecs else tf.constant(False)
    is_jpeg = _begins_as_jpeg(encoded) if "jpeg" in codecs else tf.constant(False)
    usual = _only_if(is_png | (is_jpeg & _fits(_jpeg_shape_if(is_jpeg, encoded), side, channels)), encoded)
    if least is None:
        image = _decode_image(usual, channels)
    else:
        image = tf.cond(is_png, lambda: _decode_image(usual, channels), lambda: _decode_jpeg_at(usual, channels, least))
    return tf.ensure_shape(image, (None, None, channels))


def _only_if(condition: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """The value; an InvalidArgumentError unless the condition holds."""
    # tf.debugging.Assert looks up the source of the whole call stack: more work than all the rest here.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=["an unusual image"])]):
        return tf.identity(value)


def _decode_jpeg_at(encoded: tf.Tensor, channels: int, least: tuple[int, int]) -> tf.Tensor:
    """A JPEG at the smallest of the sizes that its decoder gives at once, but for those below `least`."""
    room = tf.reduce_min(tf.image.extract_jpeg_shape(encoded)[:2] // least)
    smaller = tf.reduce_sum(tf.cast(room >= _RATIOS[1:], tf.int32))
    return tf.switch_case(
        smaller, [lambda ratio=ratio: tf.io.decode_jpeg(encoded, channels, ratio=ratio) for ratio in _RATIOS]
    )


def size_of(encoded: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Int64 [2], height and width of a file of which `image` was made, at whatever size that is if it is a JPEG."""
    return tf.cond(
        _begins_as_jpeg(encoded),
        lambda: tf.image.extract_jpeg_shape(encoded, tf.int64)[:2],
        lambda: tf.shape(image, tf.int64)[:2],
    )


def _codecs(channels: int, alpha: str) -> tuple[str, ...]:
    """The formats most are in whose decoder itself gives what is wanted; but grey of no JPEG in CMYK.

    That of PNG gives four channels too, but with hardly any alpha where the file has less than 8 bits and no alpha.
    """
    if channels == 4:
        return ()
    return ("jpeg", "png") if alpha == "drop" else ("jpeg",)


def size(encoded: tf.Tensor, bound: Bound = USUAL) -> tf.Tensor:
    """Bytes [] -> int64 [2], height and width, without decoding a JPEG or PNG that has its header and its end.

    Other files are decoded, which tells why they are none. Too large an image is an InvalidArgumentError.
    """

    def decoded(encoded: tf.Tensor) -> tf.Tensor:
        return tf.shape(decode_as_is(encoded, bound), tf.int64)[:2]

    found = tf.case(
        [
            (_is_whole_jpeg(encoded), lambda: tf.image.extract_jpeg_shape(encoded, tf.int64)[:2]),
            (_is_whole_png(encoded), lambda: _png_size(encoded)),
        ],
        default=lambda: _aside(decoded, encoded),
    )
    return checked(found, bound)


def size_usual(encoded: tf.Tensor, bound: Bound = USUAL) -> tf.Tensor:
    """As `size`, of a JPEG or PNG that has its header and its end, without branches.

    Any other is an InvalidArgumentError.
    """
    is_png, is_jpeg = _is_whole_png(encoded), _is_whole_jpeg(encoded)
    usual = _only_if(is_png | is_jpeg, encoded)
    jpeg = _jpeg_shape_if(is_jpeg, usual)[:2]
    return checked(tf.where(is_png, _png_size(usual), tf.cast(jpeg, tf.int64)), bound)


def _jpeg_shape_if(is_jpeg: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Int32 [3], a JPEG's height, width and channels, all within its first MiB; of what is no JPEG any.

    Of that libjpeg would write to standard error.
    """
    head = tf.strings.substr(encoded, 0, _LONGEST_HEAD)  # the choice copies it
    return tf.image.extract_jpeg_shape(tf.where(is_jpeg, head, _LEAST_JPEG))


def _begins_as_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, len(_JPEG)) == _JPEG


def _is_whole_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return _ends(encoded, _JPEG, b"\xff\xd9")


def _is_whole_png(encoded: tf.Tensor) -> tf.Tensor:
    return _ends(encoded, _PNG, b"IEND\xaeB`\x82")


def _ends(encoded: tf.Tensor, begin: bytes, end: bytes) -> tf.Tensor:
    """Whether the bytes [] begin and end so."""
    start = tf.maximum(tf.strings.length(encoded) - len(end), 0)
    return (tf.strings.substr(encoded, 0, len(begin)) == begin) & (tf.strings.substr(encoded, start, len(end)) == end)


def _png_size(encoded: tf.Tensor) -> tf.Tensor:
    """What the first chunk says, which is IHDR (W3C PNG, 11.2.1)."""
    numbers = tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)
    return tf.cast(tf.bitcast(tf.reverse(tf.ensure_shape(numbers, (2,)), (0,)), tf.uint32), tf.int64)


def decode_as_is(encoded: tf.Tensor, bound: Bound = USUAL, grey: Sequence[str] = ()) -> tf.Tensor:
    """Bytes [] -> uint8 [H, W, C] of as many channels as the file has: grey, grey and alpha, RGB, RGBA.

    A JPEG or PNG is made grey by its decoder if `grey` names the format, which rounds otherwise than `_convert`.
    """
    encoded = bounded(encoded, bound)
    tf.raw_ops.Assert(condition=~formats.is_lacking(encoded), data=["TensorFlow lacks the format"])
    branches = {
        "npy": lambda: npy.decode(encoded, bound),
        "bmp": lambda: _decode_image(encoded, 3),  # its fourth byte is rarely meant as alpha
        "webp": lambda: _decode_image(_with_room_for_alpha(encoded), 0),
    }
    decoders = {"jpeg": lambda: _decode_grey_jpeg(encoded), "png": lambda: _decode_image(encoded, 1)}
    branches |= {name: decoders[name] for name in grey}
    image = formats.switch(encoded, branches, lambda: _decode_image(encoded, 0))
    return tf.ensure_shape(image, (None, None, None))


def _decode_grey_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    is_cmyk = tf.image.extract_jpeg_shape(encoded)[2] == 4
    return tf.cond(is_cmyk, lambda: _decode_image(encoded, 0), lambda: _decode_image(encoded, 1))


# Asked of every image, so in as few operations as can be: most are plain, and far from too large.


def _is_small_png(encoded: tf.Tensor, side: int) -> tf.Tensor:
    """Whether these are a PNG that claims no longer sides, or nearly so: one look at its first bytes."""
    highest = min((side + 1) // 256 - 1, 0x7F)  # of the lower two bytes of a side; a range ends where ASCII does
    if highest < 0:
        return tf.constant(False)
    length = rf"\x00\x00[\x00-\x{highest:02x}]\C"  # \C is any byte
    head = tf.strings.substr(encoded, 0, 24)
    return tf.strings.regex_full_match(head, rf"\CPNG\r\n\x1a\n\C{{8}}{length}{length}")


def _is_small_jpeg(encoded: tf.Tensor, side: int, channels: int) -> tf.Tensor:
    """Whether these are a JPEG that claims no longer sides, and can be so many channels: CMYK cannot be grey."""
    return tf.cond(
        _begins_as_jpeg(encoded),
        lambda: _fits(tf.image.extract_jpeg_shape(encoded), side, channels),
        lambda: tf.constant(False),
    )


def _fits(shape: tf.Tensor, side: int, channels: int) -> tf.Tensor:
    """Whether a JPEG of a shape [3] has no longer sides, and can be so many channels: CMYK cannot be grey."""
    return tf.reduce_all(shape <= [min(side, 2**16), min(side, 2**16), 3 if channels == 1 else 4])


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
