"""How many pixels an image may claim to have: looked at before any of them is made.

A file of a few bytes can claim billions of pixels, and what decodes it makes room for them all.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfzip import headers
from tfzip.defaults import MAX_PIXELS


class Bound(NamedTuple):
    """How many pixels an image may claim; if `whole`, all frames of an animation together, since they will be decoded.

    Of a GIF they always count all, since TensorFlow decodes all to give one.
    """

    pixels: int = MAX_PIXELS
    whole: bool = False


USUAL = Bound()


def bounded(encoded: tf.Tensor, bound: Bound) -> tf.Tensor:
    """The bytes [] of an image if they claim no more than they may. What decodes them must take them from here.

    Raises InvalidArgumentError otherwise; how much they claim is told where this is called eagerly.
    """
    return _if_allowed(encoded, headers.claim(encoded, whole=bound.whole), bound)


def checked(size: tf.Tensor, bound: Bound) -> tf.Tensor:
    """Height and width, int64 [2], if they are no more than they may be; InvalidArgumentError otherwise."""
    return _if_allowed(size, headers.still(size), bound)


def _if_allowed(value: tf.Tensor, claim: tf.Tensor, bound: Bound) -> tf.Tensor:
    if not tf.executing_eagerly():
        assertion = tf.raw_ops.Assert(condition=claim[3] <= bound.pixels, data=["too many pixels"])
        with tf.control_dependencies([assertion]):
            return tf.identity(value)
    height, width, frames, pixels = claim.numpy().tolist()
    if pixels > bound.pixels:
        shown = f"{height}x{width} pixels" + (f" in {frames} frames" if frames > 1 else "")
        said = f"{shown} are more than" if frames else "its size cannot be read, and may be more than"
        raise tf.errors.InvalidArgumentError(None, None, f"{said} --max-pixels {bound.pixels} allows")
    return value
