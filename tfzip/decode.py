"""Graph: encoded bytes -> model input of one size; the original bytes stay beside it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfzip import exif, formats, images
from tfzip.bounds import USUAL, Bound, bounded
from tfzip.sources import Element

_Turn = Callable[[tf.Tensor], tf.Tensor]


def decoder(
    size: tuple[int, int] | None,
    channels: int,
    dtype: tf.DType,
    *,
    resize: str = "stretch",
    interpolation: str = "bilinear",
    fast_jpeg: bool = False,
    exif_orientation: str = "ignore",
    alpha: str = "drop",
    reencode: tuple[str, int] | None = None,
    bound: Bound = USUAL,
    only_usual: bool = False,
) -> Callable[[Element], Element]:
    """A graph function that adds `pixels` [height, width, channels] of the model's dtype, still in 0..255.

    Without `size` it adds none: the model takes the bytes, or there is none. With `reencode`, (`jpeg`, quality) or
    (`png`, 0), it adds `stored`: the whole image encoded anew, and turned as `exif_orientation` says. `height` and
    `width`, which it adds too, are those of the image that a record holds: of `stored`, or of the file's pixels as
    they lie there, which no orientation turns. With neither pixels nor `stored` to make, nothing is decoded that has
    a header and an end (see `images.size`). With `only_usual` few images are an error (see `images.decode_usual`).

    With `fast_jpeg` a JPEG is decoded at a half, a quarter or an eighth of its size where that is no smaller than
    `size`: its decoder takes means of pixels, of which the resize then makes others than of the whole image.

    As `keras.utils.image_dataset_from_directory` does, `stretch` ignores the aspect ratio, `crop` keeps it and cuts
    the middle out, `pad` keeps it and adds black.
    """
    # An orientation may swap the sides, of an image that is decoded before it is turned.
    least = (max(size),) * 2 if size and exif_orientation == "apply" else size

    def measure(element: Element) -> Element:
        size = images.size_usual if only_usual else images.size
        height, width = tf.unstack(size(element["encoded"], bound))
        return {**element, "height": height, "width": width}

    def decode(element: Element) -> Element:
        encoded = element["encoded"]
        turn = _turn(encoded) if exif_orientation == "apply" else _leave
        decode_image = images.decode_usual if only_usual else images.decode
        image = decode_image(encoded, channels, alpha, bound, least=least if fast_jpeg else None)
        upright = turn(image)
        held = images.size_of(encoded, image) if fast_jpeg else tf.shape(upright if reencode else image, tf.int64)[:2]
        height, width = tf.unstack(held)
        element = {**element, "height": height, "width": width}
        if size:
            pixels = _resize(upright, *size, resize, interpolation)
            element["pixels"] = tf.ensure_shape(_cast(pixels, dtype), (*size, channels))
        if reencode and reencode[0] == "jpeg":
            colours = upright if channels == 3 else turn(images.decode(encoded, 3, alpha, bound))
            element["stored"] = tf.io.encode_jpeg(colours, quality=reencode[1])
        elif reencode:
            element["stored"] = _as_png(encoded, turn, bound)
        return element

    return decode if size or reencode else measure


def _leave(image: tf.Tensor) -> tf.Tensor:
    return image


def _turn(encoded: tf.Tensor) -> _Turn:
    orientation = exif.orientation(encoded)
    return lambda image: exif.upright(image, orientation)


def _as_png(encoded: tf.Tensor, turn: _Turn, bound: Bound) -> tf.Tensor:
    """Bytes -> PNG with the same channels; a PNG of 16 bits keeps them."""
    return tf.cond(
        formats.is_deep_png(encoded),
        lambda: tf.io.encode_png(turn(tf.io.decode_png(bounded(encoded, bound), dtype=tf.uint16))),
        lambda: tf.io.encode_png(turn(images.decode_as_is(encoded, bound))),
    )


def _resize(image: tf.Tensor, height: int, width: int, resize: str, interpolation: str) -> tf.Tensor:
    """Uint8 [H, W, C] -> float32 [height, width, C]."""
    if resize == "pad":
        image = _pad(image, height, width, interpolation)
    elif resize == "crop":
        image = tf.image.resize(_crop(image, height, width), (height, width), interpolation)
    else:
        image = tf.image.resize(image, (height, width), interpolation)
    return tf.cast(image, tf.float32)


def _pad(image: tf.Tensor, height: int, width: int, interpolation: str) -> tf.Tensor:
    """What `tf.image.resize_with_pad` gives; but that makes no pixel of a very thin image, this at least one."""
    sides = tf.cast(tf.shape(image)[:2], tf.float64)
    fitting = sides / tf.reduce_max(sides / (height, width))
    top, left = tf.unstack(tf.cast(((height, width) - fitting) / 2, tf.int32))
    resized = tf.image.resize(image, tf.maximum(tf.cast(fitting, tf.int32), 1), interpolation)
    return tf.image.pad_to_bounding_box(resized, top, left, height, width)


def _crop(image: tf.Tensor, target_height: int, target_width: int) -> tf.Tensor:
    """The largest box in the middle with the target's aspect ratio, in whole pixels as Keras counts them."""
    height, width = tf.shape(image)[0], tf.shape(image)[1]
    box_height = tf.cast(tf.cast(width * target_height, tf.float32) / target_width, tf.int32)
    box_width = tf.cast(tf.cast(height * target_width, tf.float32) / target_height, tf.int32)
    box_height, box_width = tf.clip_by_value(box_height, 1, height), tf.clip_by_value(box_width, 1, width)
    top, left = (height - box_height) // 2, (width - box_width) // 2
    return image[top : top + box_height, left : left + box_width]


def _cast(pixels: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return tf.cast(pixels, dtype) if dtype.is_floating else tf.saturate_cast(tf.round(pixels), dtype)
