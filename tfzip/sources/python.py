"""Images that are in the program already: a `tf.data.Dataset`, an iterable of items, NumPy arrays."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from typing import TYPE_CHECKING, Any, TypeVar

import google_crc32c
import numpy as np
import numpy.typing as npt

from tfzip.errors import BrokenSourceError, SourceError, TfzipError, UsageError
from tfzip.naming import to_bytes
from tfzip.options import Options
from tfzip.record import UNKNOWN
from tfzip.sources import feed
from tfzip.sources.source import Listed, Stream

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

_T = TypeVar("_T")

_CHUNK = 64  # items that cross from Python to the graph at once

_CHANNELS = ((1,), (2,), (3,), (4,))  # that a PNG may have

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
        state={"crc32c": google_crc32c.value(np.ascontiguousarray(pixels))},
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
    _check_spec("image", spec[image], {tf.string: (0,), tf.uint8: (3,)}, "encoded bytes, or pixels as uint8 [H, W, C]")
    if named:
        _check_spec("filename", spec[named], {tf.string: (0,)}, "text")
    if truth:
        labels = dict.fromkeys((tf.string, tf.int64, tf.int32, tf.uint8), (0,))
        _check_spec("label", spec[truth], labels, "text or whole numbers")
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
        batches=lambda size: numbered.map(tf.autograph.experimental.do_not_convert(item)).batch(size),
    )


def _check_spec(role: str, spec: Any, wanted: Mapping[tf.DType, tuple[int, ...]], shown: str) -> None:
    """Raise UsageError for a tensor that is none of those wanted: ranks by dtype."""
    ranks = wanted.get(getattr(spec, "dtype", None), ())
    if not ranks or spec.shape.rank not in (*ranks, None):
        raise UsageError(f"the dataset's {role} is {spec}: give {shown}, one an element (unbatch it if it is batched)")


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
    first, rest = _first(map(_item, items))
    truth = first.get(_TRUTH)
    likes: dict[str, npt.NDArray[Any]] = {}
    if truth is not None:
        text = isinstance(truth, (str, bytes))
        likes = {"truth_text": np.empty(0, object)} if text else {"truth": np.empty(0, np.int64)}
    named = ({**item, name: item.get(_TRUTH)} for item in rest for name in likes) if likes else rest
    return _stream(named, likes, _is_path(first.get(_IMAGE)), len(items) if isinstance(items, Sized) else None)


def _stream(
    items: Iterable[dict[str, Any]], likes: Mapping[str, npt.NDArray[Any]], paths: bool, count: int | None = None
) -> Stream:
    """Dicts as a stream: filename, image, and further values, each like those in an array given.

    If `paths`, most images are given as the path of a file.
    """
    import tensorflow as tf

    raised: list[Exception] = []

    def told() -> Iterator[feed.Chunk]:
        try:
            yield from _chunks(items, likes)
        except Exception as error:
            raised.append(error)
            raise

    chunks = told()
    signature = {name: tf.TensorSpec((None,), tf.string) for name in ("filename", "encoded", "path")}
    for name, like in likes.items():
        dtype = tf.string if like.dtype == object else tf.as_dtype(like.dtype)
        signature[name] = tf.TensorSpec((None, *like.shape[1:]), dtype)

    def read(item: Element) -> Element:
        item = dict(item)
        path, encoded = item.pop("path"), item["encoded"]
        return {**item, "encoded": tf.cond(path == "", lambda: encoded, lambda: tf.io.read_file(path))}

    def read_usual(item: Element) -> Element:
        item = dict(item)
        path = item.pop("path")
        return {**item, "encoded": tf.io.read_file(path)} if paths else item  # no path and no bytes are an error

    return Stream(
        kind="items",
        name="the iterable",
        classes=() if likes.keys() & {"truth", "truth_text"} else None,
        unique=False,
        count=count,
        batches=lambda size: feed.dataset(chunks, signature).rebatch(size),
        read=read,
        read_usual=read_usual,
        explain=lambda _: raised[0] if raised else None,
    )


def from_triples(
    triples: Iterable[tuple[Any, Any, Any]], *, judged: bool
) -> tuple[Stream, dict[str, npt.NDArray[Any]]]:
    """Triples `(prediction, filename, image)`, as a stream whose items bring `given/NAME`, and an array like each.

    A prediction is scores [classes] or one score, an int label, or a class's name; all are of one kind. If `judged`,
    scores outside 0..1 end the export.
    """
    first, rest = _first(triples)
    name, like = _kind_of(first[0])

    def item(number: int, triple: tuple[Any, Any, Any]) -> dict[str, Any]:
        prediction, filename, image = triple
        if judged and like.size and prediction is not None and _lies_outside(prediction):
            raise UsageError(f"the scores of item {number} lie outside 0..1: say --scores logits, if they are")
        return {_FILENAME: filename, _IMAGE: image, name: prediction}

    stream = _stream(itertools.starmap(item, enumerate(rest)), {name: like}, _is_path(first[-1]))
    return stream, {name.removeprefix("given/"): like}


def _lies_outside(scores: Any) -> bool:
    array = np.asarray(scores)
    return array.dtype.kind == "f" and bool(((array < 0) | (array > 1)).any())


def _kind_of(prediction: Any) -> tuple[str, npt.NDArray[Any]]:
    """Under which name a prediction travels, and an array of such: scores hold this one, by which they are judged."""
    if isinstance(prediction, (str, bytes)):
        return "given/text", np.empty(0, object)
    value = np.asarray(prediction)
    if value.ndim == 0 and value.dtype.kind in "iu":
        return "given/label", np.empty(0, np.int64)
    if value.ndim < 2 and value.dtype.kind == "f":
        return "given/scores", value.reshape(1, -1).astype(np.float32)
    raise UsageError(f"a prediction is {value.dtype}{list(value.shape)}: give scores [classes], a label or a name")


def _first(items: Iterable[_T]) -> tuple[_T, Iterator[_T]]:
    """The first item, which tells what all have, and all of them."""
    try:
        iterator = iter(items)
        first = next(iterator, None)
    except TfzipError:
        raise
    except Exception as error:
        raise BrokenSourceError(f"the iterable: {type(error).__name__}: {error}") from error
    if first is None:
        raise SourceError("the iterable gave no image")
    return first, itertools.chain([first], iterator)


def _item(item: Any) -> dict[str, Any]:
    if isinstance(item, Mapping):
        return dict(item)
    if isinstance(item, (tuple, list)) and len(item) in (2, 3):
        return dict(zip((_FILENAME, _IMAGE, _TRUTH), item, strict=False))
    raise UsageError(f"an item is a {type(item).__name__}: give (filename, image), (filename, image, label), or a dict")


def _chunks(items: Iterable[dict[str, Any]], likes: Mapping[str, npt.NDArray[Any]]) -> Iterator[feed.Chunk]:
    """Items by the dozen: each crossing from Python to the graph costs as much as many items."""
    chunk: dict[str, list[Any]] = {}
    for number, item in enumerate(items):
        for name, value in _values(item, f"item {number}", likes).items():
            chunk.setdefault(name, []).append(value)
        if len(chunk["filename"]) == _CHUNK:
            yield _chunk(chunk, likes)
            chunk = {}
    if chunk:
        yield _chunk(chunk, likes)


def _chunk(values: Mapping[str, list[Any]], likes: Mapping[str, npt.NDArray[Any]]) -> feed.Chunk:
    numbers = {name: np.array(values[name], like.dtype) for name, like in likes.items() if like.dtype != object}
    return {**values, **numbers}


def _values(item: Mapping[str, Any], shown: str, likes: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """What an item has, as tensors take it."""
    for key in (_FILENAME, _IMAGE, *(name for name in likes if name.startswith("given/"))):
        if item.get(key) is None:
            raise UsageError(f"{shown} has no {key.rpartition('/')[2]}")
    if item.get(_TRUTH) is not None and not likes:
        raise UsageError(f"{shown} has a label, but the first item has none: begin with one that has")
    found = {name: _like(item[name], like, f"{name.rpartition('/')[2]} of {shown}") for name, like in likes.items()}
    image, is_path = item[_IMAGE], _is_path(item[_IMAGE])
    return {
        **found,
        "filename": _name(item[_FILENAME], shown),
        "encoded": b"" if is_path else _encoded(image, shown),
        "path": to_bytes(os.fspath(image)) if is_path else b"",
    }


def _is_path(image: Any) -> bool:
    return isinstance(image, (str, os.PathLike))


def _name(filename: Any, shown: str) -> bytes:
    if isinstance(filename, bytes):
        return filename
    if not isinstance(filename, (str, os.PathLike)):
        raise UsageError(f"the filename of {shown} is {filename!r}: give text")
    return to_bytes(os.fspath(filename))


def _like(value: Any, like: npt.NDArray[Any], shown: str) -> Any:
    """The value as the array has them; UNKNOWN or empty for none."""
    texts = like.dtype == object
    if value is None:
        return b"" if texts else UNKNOWN
    array = np.asarray(value)
    if array.dtype.kind not in ("SU" if texts else "iu" if like.dtype.kind == "i" else "fiu"):
        kind = "text" if texts else "whole numbers" if like.dtype.kind == "i" else "numbers"
        raise UsageError(f"the {shown} is {value!r}, but those before it were {kind}")
    if texts:
        return value if isinstance(value, bytes) else to_bytes(str(value))
    if array.size != math.prod(like.shape[1:]):
        raise UsageError(f"the {shown} is {list(array.shape)}, those before it were {list(like.shape[1:])}")
    return array.astype(like.dtype).reshape(like.shape[1:])


def _encoded(image: Any, shown: str) -> bytes:
    """An image as the bytes of a file: bytes as they are, or pixels as PNG."""
    import tensorflow as tf

    if isinstance(image, bytes):
        return image
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or not pixels.size or not (pixels.ndim == 2 or pixels.shape[2:] in _CHANNELS):
        given = f"{pixels.dtype}{list(pixels.shape)}"
        raise UsageError(f"the image of {shown} is {given}: give encoded bytes, a path, or uint8 [H, W, C]")
    return tf.io.encode_png(pixels if pixels.ndim == 3 else pixels[..., np.newaxis]).numpy()
