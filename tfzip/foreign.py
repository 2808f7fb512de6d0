"""Formats that TensorFlow lacks (TIFF, HEIC, AVIF, JPEG 2000, a BMP with a palette), by way of Pillow."""

from __future__ import annotations

import io

import tensorflow as tf

from tfzip import formats, pillow
from tfzip.bounds import Bound, bounded
from tfzip.defaults import MAX_PIXELS

_INSTALL = "pip install 'tfzip[formats]'"
_ORIENTATION = 0x0112


def translate(encoded: tf.Tensor | bytes, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Bytes [] that TensorFlow decodes: these, or their first picture as a PNG if it lacks their format. Eager only.

    The PNG keeps pixels, of 16 bits too, transparency and orientation.

    Raises:
        ValueError: the format needs a library that is not installed, the header claims more than `max_pixels`, or the
            bytes are no whole image.
        InvalidArgumentError: the header of a format that newer TensorFlow reads claims more.
    """
    encoded = tf.convert_to_tensor(encoded)
    if not formats.is_lacking(encoded):
        return encoded
    name = formats.image_format(encoded).numpy().decode()
    return tf.constant(_as_png(bounded(encoded, Bound(max_pixels)).numpy(), name, max_pixels))


def translated(encoded: tf.Tensor) -> tf.Tensor:
    """Graph: the same; what is wrong is an error of the operation."""
    return tf.cond(
        formats.is_lacking(encoded),
        lambda: tf.ensure_shape(tf.py_function(translate, [encoded], tf.string), ()),
        lambda: encoded,
    )


def _as_png(encoded: bytes, name: str, max_pixels: int) -> bytes:
    if name == "jxl":
        raise ValueError(f"jxl: TensorFlow {tf.__version__} does not read it, 2.21 does: pip install -U tensorflow")
    try:
        from PIL import Image, UnidentifiedImageError

        if name == "heic":
            pillow.register_heif()
    except ImportError:
        raise ValueError(f"{name}: TensorFlow does not read it, Pillow does: {_INSTALL}") from None
    made = io.BytesIO()
    try:
        with pillow.guarded(None), Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.height}x{image.width} pixels are more than --max-pixels {max_pixels} allows")
            image.load()  # which turns a TIFF, and then forgets its orientation
            exif = Image.Exif()
            exif[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
            pillow.plain(image).save(made, "png", exif=exif, compress_level=1)
    except UnidentifiedImageError:  # its message has an address in memory
        raise ValueError(f"{name}: damaged, or of a kind that this Pillow does not read: {_INSTALL}") from None
    except Exception as error:  # whatever a decoder raises at what is in the file
        raise ValueError(f"{name}: {error}") from None
    return made.getvalue()
