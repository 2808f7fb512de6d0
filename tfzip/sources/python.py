"""Images that are in the program already: a `tf.data.Dataset`, an iterable of items, NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any

import numpy as np

from tfzip.errors import BrokenSourceError, SourceError, TfzipError, UsageError
from tfzip.naming import to_bytes
from tfzip.options import Options
from tfzip.sources.source import Listed, Stream

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

_CHUNK = 64  # items that cross from Python to the graph at once

_IMAGE, _FILENAME, _TRUTH = "image", "filename", "label"
"""Under which keys an item has what, unless options say otherwise."""


# Arrays.


def from_arrays(images: Any, options: Options) -> Listed:
    """Images as one array, uint8 [N, H, W] or [N, H, W, C]: filenames are `SPLIT/%08d`, records hold them as PNG.

    Raises SourceError for any other array.
    """
    if images.ndim not in (3, 4) or images.dtype != np.uint8 or not len(images):
        raise SourceError(
            f"an array {images.dtype}{list(images.shape)} is no source: give images as uint8 [N, H, W, C], or pairs of "
            "filename and image"
        )
    pixels = images if images.ndim == 4 else images[..., np.newaxis]
    filenames = [f"{options.split}/{number:08d}".encode() for number in range(len(pixels))]
    return Listed(
        kind="arrays",
        name="the array",
        filenames=filenames,
        sizes=np.full(len(pixels), pixels[0].size, np.int64),
        reader=lambda: _array_reader(pixels, filenames),
    )


def _array_reader(pixels: Any, filenames: list[bytes]) -> Callable[[tf.Tensor], Element]:
    import tensorflow as tf

    images, names = tf.constant(pixels), tf.constant(filenames)

    def read(position: tf.Tensor) -> Element:
        encoded = tf.io.encode_png(tf.gather(images, position))
        return {"filename": tf.gather(names, position), "encoded": encoded}

    return read


# Datasets.


def from_dataset(dataset: tf.data.Dataset, options: Options) -> Stream:
    """A dataset of dicts, not batched: `image`, encoded or uint8 [H, W, C]; `filename` and `label` if it has them.

    `options.image_key`, `filename_key` and `truth_key` name them otherwise. Pixels are kept as PNG.

    Raises UsageError if it has no such element.
    """
    import tensorflow as tf

    spec = dataset.element_spec
    if not isinstance(spec, Mapping):
        raise UsageError("a dataset of dicts is needed, with image and, if it has them, filename and label")
    image, named, truth = _keys(spec, options)
    if spec[image].dtype not in (tf.string, tf.uint8):
        raise UsageError(f"the dataset's {image} is {spec[image].dtype.name}: give encoded bytes, or pixels as uint8")
    encoded = spec[image].dtype == tf.string

    def item(number: tf.Tensor, element: Mapping[str, tf.Tensor]) -> Element:
        found = {"encoded": element[image] if encoded else tf.io.encode_png(element[image])}
        if named:
            found["filename"] = element[named]
        else:
            position = tf.strings.as_string(number, width=8, fill="0")
            found["filename"] = tf.strings.join([options.split, "/", position])
        if truth:
            text = spec[truth].dtype == tf.string
            found["truth_text" if text else "truth"] = element[truth] if text else tf.cast(element[truth], tf.int64)
        return found

    size = int(dataset.cardinality())
    numbered = dataset.enumerate()
    return Stream(
        kind="dataset",
        name="the dataset",
        classes=() if truth else None,
        unique=named is None,
        count=size if size >= 0 else None,
        elements=lambda: numbered.map(tf.autograph.experimental.do_not_convert(item)),
    )


def _keys(spec: Mapping[str, Any], options: Options) -> tuple[str, str | None, str | None]:
    asked = (
        ("image", options.image_key, _IMAGE),
        ("filename", options.filename_key, _FILENAME),
        ("truth", options.truth_key, _TRUTH),
    )
    found = []
    for role, key, usual in asked:
        if (key or (role == "image" and usual)) and (key or usual) not in spec:
            raise UsageError(f"the dataset's elements have no {key or usual!r} (--{role}-key), but {', '.join(spec)}")
        found.append(key or (usual if usual in spec else None))
    image, named, truth = found
    assert image is not None
    return image, named, truth


# Iterables.


def from_items(items: Iterable[Any]) -> Stream:
    """Items one after the other: pairs (filename, image), triples (filename, image, label), or dicts of these.

    An image is encoded bytes, pixels as a uint8 array [H, W] or [H, W, C] (kept as PNG), or the path of a file. What
    the iterable raises ends the export with its error.
    """
    import tensorflow as tf

    raised: list[Exception] = []
    first, rest = _first(items)
    labelled = first.get(_TRUTH) is not None
    text = isinstance(first.get(_TRUTH), (str, bytes))

    def chunks() -> Iterator[dict[str, Any]]:
        try:
            yield from _chunks(rest, labelled, text)
        except Exception as error:
            raised.append(error)
            raise

    signature = {"filename": tf.TensorSpec((None,), tf.string), "encoded": tf.TensorSpec((None,), tf.string)}
    if labelled:
        signature |= {"truth_text" if text else "truth": tf.TensorSpec((None,), tf.string if text else tf.int64)}

    def elements() -> Any:
        return tf.data.Dataset.from_generator(chunks, output_signature=signature).unbatch()

    count = len(items) if isinstance(items, Sized) else None
    return Stream(
        kind="items",
        name="the iterable",
        classes=() if labelled else None,
        unique=False,
        count=count,
        elements=elements,
        explain=lambda _: raised[0] if raised else None,
    )


def _first(items: Iterable[Any]) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """The first item, which tells what all have, and all of them."""
    try:
        iterator = map(_item, items)
        first = next(iterator, None)
    except TfzipError:
        raise
    except Exception as error:
        raise BrokenSourceError(f"the iterable: {type(error).__name__}: {error}") from error
    if first is None:
        raise SourceError("the iterable gave no image")

    def all_items() -> Iterator[dict[str, Any]]:
        yield first
        yield from iterator

    return first, all_items()


def _item(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return dict(zip((_FILENAME, _IMAGE, _TRUTH), item, strict=False))
    raise UsageError(f"an item is a {type(item).__name__}: give (filename, image), (filename, image, label), or a dict")


def _chunks(items: Iterator[dict[str, Any]], labelled: bool, text: bool) -> Iterator[dict[str, Any]]:
    chunk: dict[str, list[Any]] = {}
    for number, item in enumerate(items):
        try:
            filename, image = item[_FILENAME], item[_IMAGE]
        except KeyError as missing:
            raise UsageError(f"item {number} has no {missing}") from None
        chunk.setdefault("filename", []).append(filename if isinstance(filename, bytes) else to_bytes(filename))
        chunk.setdefault("encoded", []).append(encoded_image(image, f"item {number}"))
        if labelled:
            chunk.setdefault("truth_text" if text else "truth", []).append(item.get(_TRUTH, "" if text else -1))
        if len(chunk["filename"]) == _CHUNK:
            yield chunk
            chunk = {}
    if chunk:
        yield chunk


def encoded_image(image: Any, shown: str) -> bytes:
    """An image as the bytes of a file: bytes as they are, the content of a path, or pixels as PNG."""
    import tensorflow as tf

    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, os.PathLike)):
        return tf.io.read_file(os.fspath(image)).numpy()
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3):
        given = f"{pixels.dtype}{list(pixels.shape)}"
        raise UsageError(f"the image of {shown} is {given}: give encoded bytes, a path, or uint8 [H, W, C]")
    return tf.io.encode_png(pixels if pixels.ndim == 3 else pixels[..., np.newaxis]).numpy()
