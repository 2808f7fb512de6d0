"""Exports as data sets of TensorFlow Datasets, compressed or not, whatever format their images are in.

    builder = tfzip.interop.tfds.builder("labelled/")
    dataset = builder.as_dataset(split="train[:10%]", as_supervised=True)

`tfds.builder_from_directory` reads exports too, if they were written with `--compression none`: TFDS has no way to say
that a TFRecord file is compressed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters, read_only_builder
from tensorflow_datasets.core import reader as tfds_reader

from tfzip import dataset_info, foreign, images, read
from tfzip.errors import UsageError
from tfzip.read import Export


class _Any(str):
    """The format under which TFDS finds `_Files`."""

    file_suffix = "tfrecord"


_ANY = _Any("tfrecord, compressed or not")


def builder(*exports: Export | str | os.PathLike[str]) -> tfds.core.DatasetBuilder:
    """A builder of one or more exports, which reads all that TFDS can ask for from their shards.

    Each split of each export is one of the data set; of the same name, they are joined. An example is a dict of
    features under their own keys (`image/encoded`, `prediction/label`, ...), the image decoded: uint8 [H, W, 3], of
    up to 180 million pixels. `as_supervised=True` gives (image, label): what was selected as label, or else what was
    predicted.

    Args:
        exports: folders, or opened exports, of the same features and class names.

    Raises:
        NotAnExportError: no finished export in a folder.
        UsageError: exports that differ in their features, or none.
    """
    opened = [export for each in exports for export in _opened(each)]
    if not opened:
        raise UsageError("tfds.builder: give an export, or several")
    first, *others = opened
    for other in others:
        _check_alike(first, other)
    is_decoded = all(dataset_info.is_decoded(export.manifest) for export in opened)
    try:
        return _Builder(first.home, [other.home for other in others], None if is_decoded else first.image_key)
    except KeyError as error:  # as its library for paths says it
        raise UsageError(f"{first.path}: TFDS reads no such path ({error}); copy the export to a disk") from None


def _opened(export: Export | str | os.PathLike[str]) -> list[Export]:
    return [export] if isinstance(export, Export) else read.open_splits(export)


def _check_alike(first: Export, other: Export) -> None:
    """Raise UsageError unless TFDS can read both as one data set."""
    for what in ("features", "labels", "image_key"):
        if getattr(first, what) != getattr(other, what):
            raise UsageError(f"{first.path} and {other.path} differ in their {what}: they are no one data set")


class _Builder(read_only_builder.ReadOnlyBuilder, skip_registration=True):  # type: ignore[call-arg,misc]
    """Reads exports.

    Args:
        builder_dir: the folder of the first one's index.
        others: those of the others.
        image_key: the feature of the images, where TFDS by itself would not decode all of them.
    """

    def __init__(self, builder_dir: str, others: Sequence[str] = (), image_key: str | None = None) -> None:
        super().__init__(builder_dir)
        self._original_state = {"builder_dir": builder_dir, "others": others, "image_key": image_key}  # for pickle
        if others:
            splits = [self.info.splits, *(_Builder(other).info.splits for other in others)]
            self.info.set_splits(tfds.core.splits.SplitDict.merge_multiple(splits))
        if image_key in self.info.features:
            described = dict(self.info.features.items()) | {image_key: _AnyImage(shape=(None, None, 3))}
            self.info._features = tfds.features.FeaturesDict(described)

    def _as_dataset(
        self, split: Any, decoders: Any = None, read_config: Any = None, shuffle_files: bool = False
    ) -> tf.data.Dataset:
        """As of any builder that reads files, but from compressed ones too."""
        features = self.info.features
        if isinstance(decoders, tfds.decode.PartialDecoding):
            features, decoders = decoders.extract_features(features), decoders.decoders
        return _reader(features.get_serialized_info()).read(
            instructions=split,
            split_infos=self.info.splits.values(),
            decode_fn=functools.partial(features.decode_example, decoders=decoders),
            read_config=read_config or tfds.ReadConfig(),
            shuffle_files=shuffle_files,
            disable_shuffling=self.info.disable_shuffling,
        )


class _AnyImage(tfds.features.Image):  # type: ignore[misc]
    """An image in any format that tfzip reads, as uint8 [H, W, 3]."""

    def decode_example(self, example: tf.Tensor) -> tf.Tensor:
        return images.decode(foreign.translated(example), 3)


class _Files(file_adapters.TfRecordFileAdapter):  # type: ignore[misc]
    """TFRecord files, compressed if their name says so."""

    @classmethod
    def make_tf_data(cls, filename: Any, buffer_size: int | None = None) -> tf.data.Dataset:
        path = tf.strings.regex_replace(filename, r"/[^/]+/\.\./", "/")  # an object store has no folder above
        compression = tf.where(tf.strings.substr(path, -3, 3) == ".gz", "GZIP", "")
        return tf.data.TFRecordDataset(path, compression, buffer_size or cls.BUFFER_SIZE)


def _reader(specs: Any) -> Any:
    """TFDS's own reader, made to open files with `_Files`: its list of formats is closed, so this is not public."""
    file_adapters.ADAPTER_FOR_FORMAT.setdefault(_ANY, _Files)
    reader = tfds_reader.Reader(specs)
    reader._file_format = _ANY
    return reader
