"""Exports as data sets of TensorFlow Datasets, compressed or not, whatever format their images are in.

    builder = tfzip.interop.tfds.builder("labelled/")
    dataset = builder.as_dataset(split="train[:10%]", as_supervised=True)

`tfds.builder_from_directory` reads exports too, if they were written with `--compression none`: TFDS has no way to say
that a TFRecord file is compressed.
"""

from __future__ import annotations

import functools
import os
from typing import Any

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core import file_adapters, read_only_builder
from tensorflow_datasets.core import reader as tfds_reader

from tfzip import dataset_info, foreign, images, read, storage
from tfzip.errors import UsageError
from tfzip.index import INDEX, Index
from tfzip.read import Export

_ANY = "tfrecord, compressed or not"
"""The format under which TFDS finds `_Files`."""


def builder(*exports: Export | str | os.PathLike[str]) -> tfds.core.DatasetBuilder:
    """A builder of one or more exports, which reads all that TFDS can ask for from their shards.

    Each split of each export is one of the data set; of the same name, they are joined. An example is a dict of
    features under their own keys (`image/encoded`, `prediction/label`, ...), the image decoded: uint8 [H, W, 3].
    `as_supervised=True` gives (image, label): what was selected as label, or else what was predicted.

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
    made = [_Builder(export.home) for export in opened]
    if others:
        made[0].info.set_splits(tfds.core.splits.SplitDict.merge_multiple([each.info.splits for each in made]))
    return made[0]


def _opened(export: Export | str | os.PathLike[str]) -> list[Export]:
    return [export] if isinstance(export, Export) else read.open_splits(export)


def _check_alike(first: Export, other: Export) -> None:
    """Raise UsageError unless TFDS can read both as one data set."""
    for what in ("features", "labels", "name"):
        if first.manifest[what] != other.manifest[what]:
            raise UsageError(f"{first.path} and {other.path} differ in their {what}: they are no one data set")


class _Builder(read_only_builder.ReadOnlyBuilder, skip_registration=True):  # type: ignore[call-arg,misc]
    """Reads one export; told by its folder alone, so that it can be pickled."""

    def __init__(self, builder_dir: str) -> None:
        super().__init__(builder_dir)
        manifest = Index(storage.join(builder_dir, INDEX)).manifest
        if (key := manifest["image_key"]) in self.info.features and not dataset_info.is_decoded(manifest):
            described = dict(self.info.features.items()) | {key: _AnyImage(shape=(None, None, 3))}
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
        compression = tf.where(tf.strings.regex_full_match(filename, r".*\.gz"), "GZIP", "")
        return tf.data.TFRecordDataset(filename, compression, buffer_size or cls.BUFFER_SIZE)


def _reader(specs: Any) -> Any:
    """TFDS's own reader, made to open files with `_Files`: its list of formats is closed, so this is not public."""
    file_adapters.ADAPTER_FOR_FORMAT.setdefault(_ANY, _Files)
    reader = tfds_reader.Reader(specs)
    reader._file_format = _ANY
    return reader
