"""Which format an image's bytes are in: told by how they begin, never by a name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

Branch = Callable[[], tf.Tensor]

_PNG = b"\x89PNG\r\n\x1a\n"

_MAGIC = (
    # Name, whether this TensorFlow decodes it, how the bytes begin; a question mark stands for any byte.
    ("jpeg", True, b"\xff\xd8\xff"),
    ("png", True, _PNG),
    ("gif", True, b"GIF8"),
    ("bmp", True, b"BM" + b"?" * 26 + b"\x18\0\0\0\0\0"),  # 24 bits a pixel, not compressed
    ("bmp", True, b"BM" + b"?" * 26 + b"\x20\0\0\0\0\0"),
    ("bmp", False, b"BM"),  # of those with a palette TensorFlow would give the indices
    ("webp", hasattr(tf.io, "decode_webp"), b"RIFF????WEBP"),
    ("jxl", hasattr(tf.io, "decode_jxl"), b"\xff\x0a"),
    ("jxl", hasattr(tf.io, "decode_jxl"), b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("npy", True, b"\x93NUMPY"),
    ("tiff", False, b"II*\0"),
    ("tiff", False, b"MM\0*"),
    ("tiff", False, b"II+\0"),
    ("tiff", False, b"MM\0+"),
    ("jp2", False, b"\0\0\0\x0cjP  \r\n\x87\n"),
    ("jp2", False, b"\xff\x4f\xff\x51"),
    ("avif", False, b"????ftypavi"),
    ("heic", False, b"????ftyphe"),
    ("heic", False, b"????ftypmif1"),
    ("heic", False, b"????ftypmsf1"),
    ("", True, b""),  # something else: TensorFlow says what it thinks of it
)

_NAMES = [name for name, _, _ in _MAGIC]
_HEAD = max(len(magic) for _, _, magic in _MAGIC)


def image_format(encoded: tf.Tensor) -> tf.Tensor:
    """The format's name for each of the bytes [...]: `jpeg`, `png`, `gif`, ...; empty if none of those known here."""
    return tf.gather(_NAMES, _kind(encoded))


def switch(encoded: tf.Tensor, branches: Mapping[str, Branch], default: Branch) -> tf.Tensor:
    """What the branch for the format of the bytes [] gives; `default` where there is none, or TensorFlow lacks it."""
    names = list(branches)
    places = [names.index(name) if decoded and name in names else len(names) for name, decoded, _ in _MAGIC]
    return tf.switch_case(tf.gather(places, _kind(encoded)), [*branches.values(), default])


def is_lacking(encoded: tf.Tensor) -> tf.Tensor:
    """Whether the bytes [...] are in a format that is known here, but not to this TensorFlow."""
    return tf.gather([not decoded for _, decoded, _ in _MAGIC], _kind(encoded))


def is_deep_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether the bytes [...] are a PNG of 16 bits a channel."""
    return _begins(encoded, [_PNG + b"?" * 16 + b"\x10"])[..., 0]


def first(encoded: tf.Tensor, magics: list[bytes]) -> tf.Tensor:
    """How the bytes [...] begin: the place of the first that fits, int64 [...]; a question mark stands for any byte."""
    return tf.argmax(tf.cast(_begins(encoded, magics), tf.int32), axis=-1)


def _kind(encoded: tf.Tensor) -> tf.Tensor:
    """The first row of the table that fits."""
    return first(encoded, [magic for _, _, magic in _MAGIC])


def _begins(encoded: tf.Tensor, magics: list[bytes]) -> tf.Tensor:
    """Whether the bytes [...] begin so: [..., magics]."""
    head = tf.io.decode_raw(encoded, tf.uint8, fixed_length=_HEAD)
    patterns = np.array([list(magic.ljust(_HEAD, b"?")) for magic in magics], np.uint8)
    return tf.reduce_all((tf.expand_dims(head, -2) == patterns) | (patterns == ord("?")), axis=-1)
