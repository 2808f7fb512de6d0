"""What a model takes, and a batch of images made to fit it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import tensorflow as tf

from tfzip import encode
from tfzip.errors import ModelError
from tfzip.record import FeatureSpec

_CHANNELS = (1, 3, 4)
_OPEN = (None, None, None, None)


@dataclass(frozen=True)
class Input:
    """The one input of a model.

    `takes` is `pixels`, or of a model of strings `encoded`, the bytes of image files, or `example`, serialized
    Examples that hold those in the feature `key`. `size` (height and width) and `channels` are of pixels only.
    `batch` is the only batch size that it takes, None if any will do.
    """

    name: str
    takes: str
    dtype: tf.DType
    batch: int | None
    rank: int
    size: tuple[int, int] | None = None
    channels: int = 3
    channels_first: bool = False
    key: str | None = None

    @property
    def spec(self) -> tf.TensorSpec:
        """What a batch is as tfzip has it: pixels [B, height, width, channels], or strings [B]."""
        return tf.TensorSpec((None, *self.size, self.channels) if self.size else (None,), self.dtype)

    def fit(self, batch: tf.Tensor) -> tf.Tensor:
        """The same batch as the model has it."""
        if self.batch is not None:  # the last image again, in the place of those that are missing
            batch = tf.gather(batch, tf.minimum(tf.range(self.batch), tf.shape(batch)[0] - 1))
        if self.channels_first:
            return tf.transpose(batch, (0, 3, 1, 2))
        if self.key is not None:
            batch = encode.serialize({self.key: (FeatureSpec("bytes"), batch)})
        return tf.expand_dims(batch, 1) if self.takes != "pixels" and self.rank == 2 else batch


def choose(model: str, specs: Mapping[str, tf.TensorSpec], image_size: tuple[int, int] | None) -> Input:
    """The one input that a model declares, or if it declares none, float pixels.

    Args:
        model: its name, for messages.
        specs: its inputs by name.
        image_size: height and width, where the model leaves them open.

    Raises ModelError if it takes several, or none that a batch of images fits.
    """
    specs = specs or {"input": tf.TensorSpec(_OPEN)}
    shown = ", ".join(f"{name} {show(spec)} {spec.dtype.name}" for name, spec in specs.items())
    if len(specs) != 1:
        raise ModelError(
            f"{model}: the model takes {len(specs)} inputs ({shown}); tfzip gives it one image batch.\n"
            "Wrap it in a function that takes the images alone, and give that as package.module:function"
        )
    ((name, spec),) = specs.items()
    dtype = tf.as_dtype(spec.dtype)
    if dtype == tf.string and spec.shape.rank in (None, 1, 2) and spec.shape[1:] in ([], [1], [None]):
        if image_size is not None:
            raise ModelError(f"{model}: its input {shown} is the images' bytes, which --image-size cannot change")
        return Input(name, "encoded", dtype, _batch(spec), spec.shape.rank or 1)
    shape = _OPEN if spec.shape.rank is None else tuple(spec.shape)
    if len(shape) != len(_OPEN) or not (dtype.is_floating or dtype == tf.uint8):
        raise ModelError(f"{model}: its input {shown} is no batch of images [batch, height, width, channels]")
    first = shape[1] in _CHANNELS and shape[3] not in _CHANNELS
    batch, *size, channels = (shape[0], *shape[2:], shape[1]) if first else shape
    if channels not in (None, *_CHANNELS):
        raise ModelError(f"{model}: its input {shown} has {channels} channels last; images have 1, 3 or 4")
    height, width = _image_size(model, size[0], size[1], image_size, shown)
    return Input(name, "pixels", dtype, batch, len(_OPEN), (height, width), channels or 3, first)


def _batch(spec: tf.TensorSpec) -> int | None:
    return spec.shape[0] if spec.shape.rank else None


def _image_size(
    model: str, height: int | None, width: int | None, asked: tuple[int, int] | None, shown: str
) -> tuple[int, int]:
    if asked is None and (height is None or width is None):
        raise ModelError(f"{model}: its input {shown} leaves the image size open; give --image-size HEIGHTxWIDTH")
    if asked is not None and any(own not in (None, wanted) for own, wanted in zip((height, width), asked, strict=True)):
        own = "x".join("?" if size is None else str(size) for size in (height, width))
        raise ModelError(f"{model}: its input is {own}; --image-size cannot change that")
    return asked or (height, width)  # type: ignore[return-value] # neither is None here


def show(spec: tf.TensorSpec) -> str:
    """A shape as messages have it."""
    sizes = ("?" if size is None else str(size) for size in spec.shape) if spec.shape.rank is not None else ("unknown",)
    return f"[{', '.join(sizes)}]"
