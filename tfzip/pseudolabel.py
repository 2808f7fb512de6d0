"""The selected records of an export as a `tf.data.Dataset` to train on, read straight from its shards."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import bounds, decode, foreign, policy, predict
from tfzip.errors import UsageError
from tfzip.options import SCALES
from tfzip.read import Export
from tfzip.record import FILENAME
from tfzip.rules import Rules
from tfzip.selection import select_rows

_SHUFFLED = 1 << 28  # bytes of images that a shuffle holds, about
_FEWEST_SHUFFLED = 64
_SIDE_BY_SIDE = 8  # shards that are read in turn when shuffled
_AS_DECODED = ("resize", "interpolation", "fast_jpeg", "exif_orientation", "alpha")
_SCALES = SCALES[1:]  # without auto
_SIZED = "the export's model took images of any size; give image_size=(height, width)"


def pseudo_labels(
    export: Export,
    *,
    image_size: tuple[int, int] | None = None,
    scale: str | None = None,
    batch_size: int | None = None,
    shuffle: int | None = None,
    part: str = "train",
    **rules: Any,
) -> tf.data.Dataset:
    """The records that rules choose, as `(image, label, weight)`, ready for `fit()`.

    The image is float32 [height, width, channels], made as the export's model had it made. The label is int64 [], or
    with `soft` float32 [classes]; the weight float32 [] is 1: with `balance` images of small classes come several times
    an epoch instead, as in Noisy Student (Q. Xie et al., CVPR 2020, section 3).

    Args:
        export: with images, of class scores.
        image_size: height and width; None for the export's own.
        scale: `raw` (0..255), `unit`, `symmetric`, `caffe`, `torch`; None for the export's own.
        batch_size: None for single images.
        shuffle: the seed of an order that is another each epoch: shards are read side by side, and images drawn from
            about 256 MB of them. None for the order of the export.
        part: `train`, or `validation` where the rules set a share of images aside.
        rules: the fields of `Rules`.

    Raises UsageError where the rules do not fit the export, or choose nothing. An image that cannot be decoded, and
    a record that is not where the index says, are errors of the dataset.
    """
    try:
        asked = Rules(**rules)
    except TypeError as error:
        raise UsageError(f"pseudo_labels: {str(error).partition(') ')[2] or error}") from None
    _check(image_size, scale, batch_size, shuffle)
    if part not in ("train", "validation"):
        raise UsageError(f"part {part!r}: use train or validation")
    if export.image_key not in export.features:
        raise UsageError(f"{export.path} was exported with --image none: it holds no images")
    export.check_shards()
    chosen = _only(export, asked, part)
    prepare = _preparer(export, image_size, scale)
    records = _records(export, chosen, shuffle)
    encoded = _reader(export, chosen)
    made = records.map(lambda place, record: (prepare(encoded(place, record)), place), tf.data.AUTOTUNE)
    labelled = made.map(_labeller(chosen))
    labelled = labelled.apply(tf.data.experimental.assert_cardinality(int(chosen.times.sum())))
    return (labelled if batch_size is None else labelled.batch(batch_size)).prefetch(tf.data.AUTOTUNE)


def _check(size: Any, scale: Any, batch_size: Any, seed: Any) -> None:
    if scale not in (None, *_SCALES):
        raise UsageError(f"scale {scale!r}: use {', '.join(_SCALES)}")
    if batch_size is not None and not _is_whole(batch_size, 1):
        raise UsageError(f"batch_size {batch_size!r}: give a whole number from 1 on")
    if seed is not None and not _is_whole(seed, 0):
        raise UsageError(f"shuffle {seed!r}: give a seed, a whole number from 0 on")
    if size is not None and not (
        isinstance(size, (tuple, list)) and len(size) == 2 and all(_is_whole(n, 1) for n in size)
    ):
        raise UsageError(f"image_size {size!r}: give (height, width)")


def _is_whole(value: Any, least: int) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and least <= int(value) < 2**31


class _Chosen(NamedTuple):
    """The rows to train on, and of each its label ([N], or [N, classes]) and how often it comes in an epoch."""

    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    times: npt.NDArray[np.int64]


def _only(export: Export, rules: Rules, part: str) -> _Chosen:
    """What the rules choose for a part."""
    chosen = select_rows(export, rules)
    held = chosen.choice.validation
    places = np.flatnonzero(held if part == "validation" else ~held)
    if not len(places):
        raise UsageError(
            f"{export.path}: none of the {len(held)} selected is for {part}; give another share as validation"
        )
    rows, classes = chosen.choice.rows[places], chosen.label[places]
    times = _times(export, rows, classes, rules) if rules.balance else np.ones(len(rows), np.int64)
    return _Chosen(rows, classes if chosen.scores is None else chosen.scores(rows), times)


def _times(export: Export, rows: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], rules: Rules) -> Any:
    """How often each row comes where every class comes as often as asked, or as the largest does."""
    count = int(np.bincount(classes).max()) if rules.per_class is None else rules.per_class
    again = policy.repeated(export._index.hashes()[rows], classes, count, rules.seed)
    return np.bincount(again, minlength=len(rows))


def _records(export: Export, chosen: _Chosen, seed: int | None) -> tf.data.Dataset:
    """The chosen records, as often as they come, each as its place among the rows and its bytes."""
    records = np.array([shard["records"] for shard in export.manifest["shards"]])
    places = np.full(len(export), -1)
    places[chosen.rows] = np.arange(len(chosen.rows))
    known = tf.constant(places)
    compression = "GZIP" if export.manifest["compression"] == "gzip" else ""
    shards = tf.data.Dataset.from_tensor_slices((export.shards, np.cumsum(records) - records))
    if seed is not None:
        shards = shards.shuffle(len(records), seed)

    def numbered(path: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        return tf.data.TFRecordDataset(path, compression).enumerate(first)

    read = shards.interleave(numbered, 1 if seed is None else _SIDE_BY_SIDE)
    placed = read.map(lambda row, record: (known[row], record)).filter(lambda place, _: place >= 0)
    if (chosen.times > 1).any():
        times = tf.constant(chosen.times)
        placed = placed.flat_map(lambda *each: tf.data.Dataset.from_tensors(each).repeat(times[each[0]]))
    if seed is None:
        return placed
    size = sum(shard["bytes"] for shard in export.manifest["shards"]) / max(len(export), 1)
    return placed.shuffle(min(int(chosen.times.sum()), max(_FEWEST_SHUFFLED, int(_SHUFFLED / max(size, 1)))), seed)


def _reader(export: Export, chosen: _Chosen) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """A graph function: a record and its place -> its image, in a format that TensorFlow decodes.

    It must be the record that the index has there: label and image are joined by the filename, not by the place alone.
    """
    filenames = export._index.filenames()
    names = tf.constant([filenames[row] for row in chosen.rows.tolist()])
    spec = {key: tf.io.FixedLenFeature((), tf.string) for key in (export.image_key, FILENAME)}

    def read(place: tf.Tensor, record: tf.Tensor) -> tf.Tensor:
        parsed = tf.io.parse_single_example(record, spec)
        told = ["the index and the record differ in the filename:", parsed[FILENAME], names[place]]
        with tf.control_dependencies([tf.debugging.Assert(parsed[FILENAME] == names[place], told)]):
            encoded = tf.identity(parsed[export.image_key])
        return foreign.translated(encoded)

    return read


def _preparer(export: Export, size: tuple[int, int] | None, scale: str | None) -> Any:
    """A graph function: encoded bytes -> the image as the export's model had it."""
    pixels = export.manifest["pixels"] or {}
    size = size or ((pixels["height"], pixels["width"]) if pixels else None)
    if size is None:
        raise UsageError(f"{export.path}: {_SIZED}")
    if scale is None and pixels.get("preprocess"):
        raise UsageError(
            f"{export.path}: its pixels were made by {pixels['preprocess']}; give scale='raw', and map that yourself"
        )
    named = {name: pixels[name] for name in _AS_DECODED if name in pixels}
    decoded = decode.decoder(size, pixels.get("channels", 3), tf.float32, bound=bounds.USUAL, **named)
    rescale = predict.rescaler(scale or pixels.get("scale", "raw"), tf.float32)
    return lambda encoded: rescale(decoded({"encoded": encoded})["pixels"])


def _labeller(chosen: _Chosen) -> Any:
    labels = tf.constant(chosen.labels)
    return lambda image, place: (image, labels[place], tf.ones((), tf.float32))
