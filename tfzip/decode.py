"""Graph: encoded bytes -> model input of one size; the original bytes stay beside it."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tfzip.sources import Element


def decoder(
    size: tuple[int, int] | None,
    channels: int,
    dtype: tf.DType,
    *,
    resize: str = "stretch",
    interpolation: str = "bilinear",
    reencode: tuple[str, int] | None = None,
) -> Callable[[Element], Element]:
    """A graph function that adds `pixels` [height, width, channels] of the model's dtype, still in 0..255.

    Without `size` it adds none: the model takes the bytes, and the image is decoded to know that it can be.
    It adds `height` and `width` of the image as it was, and with `reencode`, (`jpeg`, quality) or (`png`, 0),
    `stored`: the whole image encoded anew. The first frame of an animation counts. As
    `keras.utils.image_dataset_from_directory` does, `stretch` ignores the aspect ratio, `crop` keeps it and cuts the
    middle out, `pad` keeps it and adds black.
    """

    def decode(element: Element) -> Element:
        decoded = _decode(element["encoded"], channels)
        height, width, _ = tf.unstack(tf.shape(decoded, tf.int64))
        element = {**element, "height": height, "width": width}
        if size:
            pixels = _resize(decoded, *size, resize, interpolation)
            element["pixels"] = tf.ensure_shape(_cast(pixels, dtype), (*size, channels))
        if reencode:
            element["stored"] = _reencode(element["encoded"], *reencode)
        return element

    return decode


def _decode(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    """Bytes -> uint8 [H, W, channels]. Grey is asked of the codec where it can give it, else made from the colours."""
    if channels == 1:
        start = tf.strings.substr(encoded, 0, 3)
        jpeg_or_png = (start == b"\xff\xd8\xff") | (start == b"\x89PN")
        return tf.cond(
            jpeg_or_png,
            lambda: _decode_image(encoded, 1),
            lambda: tf.image.rgb_to_grayscale(_decode_image(encoded, 3)),
        )
    return _decode_image(encoded, channels)


def _decode_image(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    image = tf.io.decode_image(encoded, channels=channels, expand_animations=False)
    return tf.ensure_shape(image, (None, None, channels or None))


def _resize(image: tf.Tensor, height: int, width: int, resize: str, interpolation: str) -> tf.Tensor:
    """Uint8 [H, W, C] -> float32 [height, width, C]."""
    if resize == "pad":
        image = tf.image.resize_with_pad(image, height, width, interpolation)
    elif resize == "crop":
        image = tf.image.resize(_crop(image, height, width), (height, width), interpolation)
    else:
        image = tf.image.resize(image, (height, width), interpolation)
    return tf.cast(image, tf.float32)


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


def _reencode(encoded: tf.Tensor, codec: str, quality: int) -> tf.Tensor:
    if codec == "jpeg":
        return tf.io.encode_jpeg(_decode_image(encoded, 3), quality=quality)
    return tf.io.encode_png(_decode_image(encoded, 0))
