"""Formats that TensorFlow lacks (TIFF, HEIC, AVIF, JPEG 2000, a BMP with a palette), by way of Pillow."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfzip import formats
from tfzip.record import MAX_PIXELS

_INSTALL = "pip install 'tfzip[formats]'"
_ORIENTATION = 0x0112
_GUARD = threading.Lock()  # Pillow has one for the whole process
_CONVERSIONS = {
    **{mode: mode for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B")},  # PNG has these
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "RGBX"), "RGB"),
    "La": "LA",
    "RGBa": "RGBA",
}
"""Per kind of pixels that Pillow gives, the one to write; kinds without a range of their own are not among them."""


def translate(encoded: tf.Tensor | bytes, max_pixels: int = MAX_PIXELS) -> tf.Tensor:
    """Bytes [] that TensorFlow decodes: these, or their first picture as a PNG if it lacks their format. Eager only.

    The PNG keeps pixels, of 16 bits too, transparency and orientation.

    Raises:
        ValueError: the format needs a library that is not installed, the header claims more than `max_pixels`, or the
            bytes are no whole image.
    """
    encoded = tf.convert_to_tensor(encoded)
    if not formats.is_lacking(encoded):
        return encoded
    name = formats.image_format(encoded).numpy().decode()
    return tf.constant(_as_png(encoded.numpy(), name, max_pixels))


def translated(encoded: tf.Tensor) -> tf.Tensor:
    """Graph: the same; what is wrong is an error of the operation."""
    return tf.cond(
        formats.is_lacking(encoded),
        lambda: tf.ensure_shape(tf.py_function(translate, [encoded], tf.string), ()),
        lambda: encoded,
    )


def _as_png(encoded: bytes, name: str, max_pixels: int) -> bytes:
    try:
        from PIL import Image, UnidentifiedImageError

        if name == "heic":
            import pillow_heif

            pillow_heif.register_heif_opener()
    except ImportError:
        raise ValueError(f"{name}: TensorFlow does not read it, Pillow does: {_INSTALL}") from None
    made = io.BytesIO()
    try:
        with _unguarded(Image), Image.open(io.BytesIO(encoded)) as image:
            if image.width * image.height > max_pixels:
                raise ValueError(f"{image.height}x{image.width} pixels are more than --max-pixels {max_pixels} allows")
            image.load()  # which turns a TIFF, and then forgets its orientation
            exif = Image.Exif()
            exif[_ORIENTATION] = image.getexif().get(_ORIENTATION, 1)
            _convert(image).save(made, "png", exif=exif, compress_level=1)
    except UnidentifiedImageError:  # its message has an address in memory
        raise ValueError(f"{name}: damaged, or of a kind that this Pillow does not read: {_INSTALL}") from None
    except Exception as error:  # whatever a decoder raises at what is in the file
        raise ValueError(f"{name}: {error}") from None
    return made.getvalue()


@contextlib.contextmanager
def _unguarded(pillow: Any) -> Iterator[None]:
    """Without Pillow's own guard against bombs, which is the caller's, and warns of half of what is allowed here."""
    with _GUARD:
        most, pillow.MAX_IMAGE_PIXELS = pillow.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            pillow.MAX_IMAGE_PIXELS = most


def _convert(image: Any) -> Any:
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode not in _CONVERSIONS:
        raise ValueError(f"its pixels (Pillow's mode {image.mode}) have no range that tells black from white")
    return image.convert(_CONVERSIONS[image.mode])
