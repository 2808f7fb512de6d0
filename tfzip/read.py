"""A finished export, read: by position, by filename, in a loop, or as a `tf.data.Dataset`."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tfzip import framing, storage
from tfzip.errors import CorruptError, DataError, FilenameNotFoundError, NotAnExportError, UsageError
from tfzip.index import INDEX, Index, split_texts
from tfzip.naming import from_text, to_bytes, to_str
from tfzip.record import (
    BOXES,
    DETECTED_LABEL,
    DETECTED_SCORE,
    DETECTED_TEXT,
    ENCODED,
    FILENAME,
    FORMAT_VERSION,
    OUTPUT,
    SCORES,
    Failure,
    FeatureSpec,
    Record,
    parse_record,
)

if TYPE_CHECKING:
    import tensorflow as tf

_IMAGE = "image"
"""Beside the features of an example: its image, decoded."""

TFX_FOLDER = "tfzip-"
"""In the tfx layout the index of a split lies in `OUT/tfzip-SPLIT/`."""


def open(path: str | os.PathLike[str], split: str | None = None) -> Export:  # noqa: A001 - tfzip.open, as zipfile and gzip have it
    """Open a finished export.

    Args:
        path: the folder that `tfzip export` wrote, local or anywhere `tf.io.gfile` reaches.
        split: which split, where an export in the tfx layout holds several.

    Raises:
        NotAnExportError: no index there: nothing was exported to it, or the export has not finished.
        CorruptError: the index is damaged.
    """
    return Export(path, split)


class Export:
    """The records of one split, in the order of its shards.

    `len(export)`; `export[5]`, `export[10:20]`, `export["cats/1.jpg"]` are Records; iterating gives
    `(prediction, filename, image)`. Every CRC that is passed is checked.
    """

    def __init__(self, path: str | os.PathLike[str], split: str | None = None) -> None:
        self.path = path = os.fspath(path)
        self._index = Index(_find_index(path, split))
        self.manifest: Mapping[str, Any] = self._index.manifest
        """Counts, task, label names, model, pixels, shards: see `schemas/manifest.schema.json`."""
        if self.manifest.get("format_version") != FORMAT_VERSION:
            version = self.manifest.get("format_version")
            raise UsageError(f"{path} has format version {version}, this tfzip reads {FORMAT_VERSION}: upgrade tfzip")
        if split not in (None, self.split):
            raise NotAnExportError(f"{path} holds the split {self.split!r}, not {split!r}")

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def __enter__(self) -> Export:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<tfzip.Export {self.path!r}: {len(self)} records, {self.manifest['task']}>"

    # What the index says.

    @property
    def split(self) -> str:
        """The name of the split."""
        return self.manifest["split"]

    @property
    def labels(self) -> list[str]:
        """The class names, by label; empty where they are not known."""
        return list(self.manifest["labels"]["names"])

    @cached_property
    def failures(self) -> list[Failure]:
        """The items that gave no record, with stage and reason."""
        rows = self._index.table("failures.csv")
        return [Failure(row["filename"], row["stage"], row["error"]) for row in rows]

    @property
    def image_key(self) -> str:
        """The feature that holds the image, in an export with images."""
        key: str = self.manifest.get("image_key", ENCODED)
        return key

    @cached_property
    def features(self) -> dict[str, FeatureSpec]:
        """Type and shape of every feature of a record."""
        declared = self.manifest["features"]
        return {key: FeatureSpec(spec["dtype"], tuple(spec["shape"])) for key, spec in declared.items()}

    @cached_property
    def metadata(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The rows of all records as NumPy arrays: `filename` (objects of str) and the columns of the index.

        All but `filename` are mapped from the disk, not read.
        """
        return _Metadata(self._index)

    @cached_property
    def run(self) -> Mapping[str, Any]:
        """When, where and how fast the export was made, from run.json; empty if that is gone."""
        try:
            with storage.open(storage.join(self._index.path.rpartition("/")[0], "run.json"), "r") as file:
                return json.loads(file.read())
        except (OSError, ValueError):
            return {}

    @cached_property
    def shards(self) -> list[str]:
        """The paths of the shards, in order."""
        return [storage.join(self.path, shard["file"]) for shard in self.manifest["shards"]]

    def __len__(self) -> int:
        return len(self._index)

    # Random access.

    @overload
    def __getitem__(self, key: int | str | bytes) -> Record: ...
    @overload
    def __getitem__(self, key: slice) -> list[Record]: ...
    def __getitem__(self, key: int | str | bytes | slice) -> Record | list[Record]:
        if isinstance(key, slice):
            return self.__getitems__(range(*key.indices(len(self))))
        if isinstance(key, (str, bytes)):
            return self._by_filename(key)
        row = operator.index(key)
        if not -len(self) <= row < len(self):
            raise IndexError(f"{self.path} has {len(self)} records, no record {row}")
        return self._by_row(row % len(self))

    def __getitems__(self, rows: Iterable[int]) -> list[Record]:
        """Several records by position."""
        return [self[row] for row in rows]

    def __contains__(self, filename: object) -> bool:
        if not isinstance(filename, (str, bytes)):
            return False
        return self._row(filename) is not None

    def _by_filename(self, filename: str | bytes) -> Record:
        row = self._row(filename)
        if row is None:
            raise FilenameNotFoundError(f"{self.path} holds no record of {filename!r}")
        return self._by_row(row)

    def _row(self, filename: str | bytes) -> int | None:
        """The row of a filename, given as it is or as metadata.csv has it."""
        wanted = [filename] if isinstance(filename, bytes) else [to_bytes(filename), from_text(filename)]
        rows = (row for name in wanted for row in self._index.rows(name) if self._index.filename(row) == name)
        return next(rows, None)

    def _by_row(self, row: int) -> Record:
        """Read one record: one seek, one inflate, every CRC checked, its filename compared with the index."""
        location = self._index.location(row)
        if not 0 <= location.shard < len(self.shards):
            raise CorruptError(f"{self.path}: the index puts record {row} into a shard that it does not have")
        path = self.shards[location.shard]
        try:
            with storage.open(path, "rb") as file:
                file.seek(location.offset)
                block = file.read(location.size)
            if self.manifest["compression"] == "gzip":
                block = framing.inflate(block)
            record = parse_record(framing.unframe(block, location.start)[0], self.features, self.image_key)
        except FileNotFoundError:
            raise CorruptError(f"the shard {path} is missing") from None
        except CorruptError as error:
            raise CorruptError(f"{path}, record {row} at {location.offset}: {error}") from None
        if to_bytes(record.filename) != self._index.filename(row):
            raise CorruptError(f"{path}, record {row}: the index and the record differ in the filename")
        return record

    # In a loop, or in training.

    def dataset(self, batch_size: int | None = None) -> tf.data.Dataset:
        """The records as parsed `tf.data`: dicts of every feature, in the order of the shards.

        Args:
            batch_size: None for single examples; a number for batches (parsed a batch at a time, faster).

        Features that vary in length are ragged (`tf.RaggedTensor` in batches). Reading checks every CRC, and that there
        are as many records as the index says.
        """
        import tensorflow as tf

        return self._examples(tf.data.AUTOTUNE, batch_size).prefetch(tf.data.AUTOTUNE)

    def _examples(self, parallel: int, batch_size: int | None = None) -> tf.data.Dataset:
        import tensorflow as tf

        spec = {key: _parsing(key, feature) for key, feature in self.features.items()}
        compression = "GZIP" if self.manifest["compression"] == "gzip" else ""
        records = tf.data.TFRecordDataset(self.shards, compression)
        records = records.apply(tf.data.experimental.assert_cardinality(len(self)))
        if batch_size is not None:
            return records.batch(batch_size).map(lambda batch: tf.io.parse_example(batch, spec), parallel)

        def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
            example = tf.io.parse_single_example(record, spec)  # rows of one size are ragged here only by their type
            return {key: v.to_tensor() if isinstance(v, tf.RaggedTensor) else v for key, v in example.items()}

        return records.map(parse, parallel)

    def __iter__(self) -> Iterator[tuple[Any, str, np.ndarray[Any, Any] | None]]:
        """Yield `(prediction, filename, image)` for every record.

        prediction: float32 scores [C]; for the task `raw` a dict of the outputs, for `detection` one of `boxes` [N, 4]
        (ymin, xmin, ymax, xmax), `scores`, `labels` and `texts`, all [N]. image: uint8 [H, W, 3] as the file has it
        (alpha dropped, not turned by EXIF), None in an export without images.
        """
        import tensorflow as tf

        from tfzip import formats, images

        def image(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            if self.image_key not in example:
                return example
            encoded = tf.reshape(example[self.image_key], ())
            nothing = tf.zeros((0, 0, 3), tf.uint8)
            decoded = tf.cond(formats.is_lacking(encoded), lambda: nothing, lambda: images.decode(encoded, 3))
            return {**example, _IMAGE: decoded}

        parallel = os.cpu_count() or 1
        options = tf.data.Options()
        options.autotune.enabled = False  # its thread can hold up the end of a loop for seconds
        pictures = self._examples(parallel).map(image, parallel).prefetch(parallel).with_options(options)
        try:
            for example in pictures.as_numpy_iterator():
                yield _said(example), to_str(example[FILENAME]), self._picture(example)
        except (tf.errors.DataLossError, tf.errors.NotFoundError, tf.errors.FailedPreconditionError) as error:
            raise CorruptError(f"{self.path}: {error.message}; `tfzip verify` tells more") from None

    def _picture(self, example: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        """The image that the graph decoded; or decoded here, if TensorFlow lacks its format."""
        if _IMAGE not in example or example[_IMAGE].size:
            return example.get(_IMAGE)
        from tfzip import foreign, images

        encoded = np.asarray(example[self.image_key], object).item()  # bytes; an array of them would lose last zeros
        try:
            return images.decode(foreign.translate(encoded), 3).numpy()
        except ValueError as error:
            raise DataError(f"{to_str(example[FILENAME])}: {error}") from None


def _said(example: Mapping[str, Any]) -> Any:
    """What a loop gives as the prediction of a parsed example."""
    if DETECTED_SCORE in example:
        boxes = np.stack([example[key] for key in BOXES], axis=-1)
        texts = [text.decode("utf-8", "replace") for text in example[DETECTED_TEXT]]
        return {"boxes": boxes, "scores": example[DETECTED_SCORE], "labels": example[DETECTED_LABEL], "texts": texts}
    outputs = {key.removeprefix(OUTPUT): value for key, value in example.items() if key.startswith(OUTPUT)}
    return example.get(SCORES, outputs)


def has_index(path: str, split: str | None = None) -> bool:
    """Whether there is a finished export in a folder."""
    try:
        return bool(_find_index(path, split))
    except UsageError as error:
        return not isinstance(error, NotAnExportError)


def _find_index(path: str, split: str | None) -> str:
    """The path of the index, in either layout."""
    flat = storage.join(path, INDEX)
    if storage.exists(flat):
        return flat
    if not storage.isdir(path):
        raise NotAnExportError(f"{path}: no such folder")
    finished = [
        name.removeprefix(TFX_FOLDER)
        for name in storage.listdir(path)
        if name.startswith(TFX_FOLDER) and storage.exists(storage.join(path, f"{name}/{INDEX}"))
    ]
    if split is None and len(finished) > 1:
        raise UsageError(f"{path} holds the splits {', '.join(finished)}: say which with --split")
    chosen = split if split is not None else next(iter(finished), None)
    if chosen not in finished:
        what = f"the split {split!r}" if finished else "a finished export (it has no index.zip)"
        raise NotAnExportError(f"{path} does not hold {what}")
    return storage.join(path, f"{TFX_FOLDER}{chosen}/{INDEX}")


def _parsing(key: str, spec: FeatureSpec) -> Any:
    """How `tf.io.parse_example` reads a feature."""
    import tensorflow as tf

    dtype = {"bytes": tf.string, "int64": tf.int64, "float": tf.float32}[spec.dtype]
    if None in spec.shape:
        rows = [tf.io.RaggedFeature.UniformRowLength(size) for size in spec.shape[1:]]
        return tf.io.RaggedFeature(dtype, value_key=key, partitions=rows)
    return tf.io.FixedLenFeature(spec.shape, dtype)


class _Metadata(Mapping[str, "np.ndarray[Any, Any]"]):
    """The index's columns as a mapping; each is mapped into memory when it is first asked for."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._names = ["filename", *index.column_names]

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        if name not in self._names:
            raise KeyError(f"no column {name!r}; there are {', '.join(self._names)}")
        return self._filenames if name == "filename" else self._index.column(name)

    @cached_property
    def _filenames(self) -> np.ndarray[Any, Any]:
        names = split_texts(self._index.column("filename"), self._index.column("filename_end"))
        return np.array([to_str(name) for name in names], object)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
