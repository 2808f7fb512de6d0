"""A finished export, read: by position, by filename, in a loop, or as a `tf.data.Dataset`."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import operator
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, overload

import numpy as np

from tfzip import framing, storage
from tfzip.defaults import MAX_PIXELS
from tfzip.errors import CorruptError, DataError, FilenameNotFoundError, NotAnExportError, UsageError, reason
from tfzip.index import INDEX, Index
from tfzip.manifest import feature_specs
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
    Location,
    Record,
    is_detection,
    parse_record,
    predicted_features,
)

if TYPE_CHECKING:
    import tensorflow as tf

_IMAGE = "image"
"""Beside the features of an example: its image, decoded."""

_MOST_FAILURES = 10_000_000
_LARGEST_RUN = 1 << 20
_FIRST_ENTRY = 64  # bytes of a zip that hold the name of its first entry

TFX_FOLDER = "tfzip-"
"""In the tfx layout the index of a split lies in `OUT/tfzip-SPLIT/`."""


def open(path: str | os.PathLike[str], split: str | None = None, *, max_pixels: int = MAX_PIXELS) -> Export:  # noqa: A001 - tfzip.open, as zipfile and gzip have it
    """Open a finished export.

    Args:
        path: the folder that `tfzip export` wrote, local or anywhere `tf.io.gfile` reaches.
        split: which split, where an export in the tfx layout holds several.
        max_pixels: of an image that a loop decodes, as its header claims them; more is a DataError, and no picture on
            a report.

    Raises:
        NotAnExportError: no index there: nothing was exported to it, or the export has not finished.
        CorruptError: the index is damaged.
    """
    return Export(path, split, max_pixels=max_pixels)


def open_splits(path: str | os.PathLike[str]) -> list[Export]:
    """Open every split in a folder: the only one, or in the tfx layout all; raises what `open` does."""
    path = os.fspath(path)
    splits = [] if storage.exists(storage.join(path, INDEX)) or not storage.isdir(path) else _finished(path)
    return [Export(path, split) for split in splits] or [Export(path)]


class Export:
    """The records of one split, in the order of its shards.

    `len(export)`; `export[5]`, `export[10:20]`, `export["cats/1.jpg"]` are Records; iterating gives
    `(prediction, filename, image)`. Every CRC that is passed is checked.
    """

    def __init__(self, path: str | os.PathLike[str], split: str | None = None, *, max_pixels: int = MAX_PIXELS) -> None:
        self.path = path = os.fspath(path)
        self.max_pixels = max_pixels
        """What an image may claim that is decoded, or shown by a report."""
        self._index = Index(_find_index(path, split))
        self.manifest: Mapping[str, Any] = self._index.manifest
        """Counts, task, label names, model, pixels, shards: see `schemas/manifest.schema.json`."""
        version = self.manifest.get("format_version")
        if isinstance(version, int) and version != FORMAT_VERSION:
            raise UsageError(f"{path} has format version {version}, this tfzip reads {FORMAT_VERSION}: upgrade tfzip")
        self._index.check()
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
        """The items that gave no record, with stage and reason; CorruptError if they cannot be so many."""
        if self.manifest["counts"]["failures"] > _MOST_FAILURES:
            raise DataError(f"{self.path} lists more failures than fit into memory: read failures.csv in index.zip")
        return list(self.each_failure())

    def each_failure(self) -> Iterator[Failure]:
        """The same, one at a time."""
        return (Failure(**row) for row in self._index.table("failures.csv"))

    def each_row(self) -> Iterator[dict[str, str]]:
        """The rows of `metadata.csv`, one at a time."""
        return self._index.table("metadata.csv")

    def copy_table(self, file: IO[bytes]) -> None:
        """Write `metadata.csv` to a file, as it is."""
        self._index.copy("metadata.csv", file)

    @property
    def image_key(self) -> str:
        """The feature that holds the image, in an export with images."""
        key: str = self.manifest.get("image_key", ENCODED)
        return key

    @cached_property
    def features(self) -> dict[str, FeatureSpec]:
        """Type and shape of every feature of a record."""
        return feature_specs(self.manifest)

    @cached_property
    def predicted(self) -> dict[str, FeatureSpec]:
        """Those of the features that are the prediction, the model's other outputs aside."""
        return predicted_features(self.features, self.manifest["task"])

    def parse(self, serialized: bytes) -> Record:
        """The Record in one of the serialized ones; CorruptError if its features are not those of the export."""
        return parse_record(serialized, self.features, self.image_key, self.predicted)

    @cached_property
    def metadata(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """The rows of all records as NumPy arrays: `filename` (objects of str) and the columns of the index.

        All but `filename` are mapped from the disk, not read.
        """
        return _Metadata(self._index)

    @cached_property
    def run(self) -> Mapping[str, Any]:
        """When, where and how fast the export was made, from run.json; empty if that is gone."""
        path = storage.join(self.home, "run.json")
        try:
            with storage.open(path if storage.isfile(path) else os.devnull, "r") as file:
                run = json.loads(file.read(_LARGEST_RUN))
        except (OSError, ValueError, RecursionError):
            return {}
        return run if isinstance(run, dict) else {}

    @property
    def home(self) -> str:
        """The folder of the index and of what else is not a shard."""
        return self._index.path.rpartition("/")[0]

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
        found = (self._index.row(name) for name in dict.fromkeys(wanted))
        return next((row for row in found if row is not None), None)

    def _by_row(self, row: int) -> Record:
        """Read one record: one seek, one inflate, every CRC checked, its filename compared with the index."""
        location = self._location(row)
        with self._reading(row, location):
            with self.open_shard(location.shard) as file:
                block = self._block(file, location)
            record = self.parse(framing.unframe(block, location.start)[0])
        self.check_filename(row, to_bytes(record.filename))
        return record

    @contextlib.contextmanager
    def _reading(self, row: int, location: Location) -> Iterator[None]:
        """What goes wrong meanwhile becomes a CorruptError that names the record."""
        try:
            yield
        except (CorruptError, OSError) as error:
            raise CorruptError(f"{self.shards[location.shard]}, record {row} at {location.offset}: {error}") from None

    def _block(self, file: IO[bytes], location: Location) -> bytes:
        """The frames of the block in which a record lies."""
        file.seek(location.offset)
        block = framing.read_part(file, location.size)
        return framing.inflate(block) if self.manifest["compression"] == "gzip" else block

    def serialized_rows(self, rows: Iterable[int]) -> Iterator[bytes]:
        """The records of some rows as they are written; where rows follow each other a block is read once."""
        located = ((row, self._location(row)) for row in rows)
        for _, of_shard in itertools.groupby(located, lambda each: each[1].shard):
            yield from self._serialized_in_shard(of_shard)

    def _serialized_in_shard(self, located: Iterable[tuple[int, Location]]) -> Iterator[bytes]:
        with contextlib.ExitStack() as stack:
            file, block, begin = None, b"", -1
            for row, location in located:
                with self._reading(row, location):
                    if file is None:
                        file = stack.enter_context(self.open_shard(location.shard))
                    if location.offset != begin:
                        block, begin = self._block(file, location), location.offset
                    data = framing.unframe(block, location.start)[0]
                yield data

    def _location(self, row: int) -> Location:
        """Where a record lies; CorruptError if that is not within a shard."""
        place, shards = self._index.location(row), self.manifest["shards"]
        known = shards[place.shard]["bytes"] if 0 <= place.shard < len(shards) else 0
        if min(place) < 0 or not 0 < place.offset + place.size <= known:
            raise CorruptError(f"{self.path}: the index puts record {row} where no shard is")
        return place

    def open_shard(self, shard: int) -> IO[bytes]:
        """A shard's file; CorruptError if there is none."""
        path = self.shards[shard]
        try:
            if not storage.isfile(path):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return storage.open(path, "rb")
        except OSError as error:
            raise CorruptError(f"the shard cannot be read ({error.strerror})") from None

    def blocks(self, shard: int) -> Iterator[tuple[int, int, bytes]]:
        """Every block of a shard as it lies there: its offset, its size, and its frames, whose data are unchecked."""
        with self.open_shard(shard) as file:
            yield from framing.read_blocks(file, self.manifest["compression"])

    def serialized(self) -> Iterator[list[bytes]]:
        """Every record as it is written, in lists of those of one block; each shard is read once from end to end."""
        for shard, entry in enumerate(self.manifest["shards"]):
            records = end = 0
            try:
                for offset, size, frames in self.blocks(shard):
                    block = [data for _, data in framing.unframe_all(frames)]
                    records, end = records + len(block), offset + size
                    yield block
                if (records, end) != (entry["records"], entry["bytes"]):
                    counted = f"{entry['records']} in {entry['bytes']}"
                    raise CorruptError(f"{records} records in {end} bytes, but the index has {counted}")
            except (CorruptError, OSError) as error:
                raise CorruptError(f"{self.shards[shard]}: {error}; `tfzip verify` tells more") from None

    def records(self) -> Iterator[Record]:
        """Every record, in order."""
        row = 0
        for block in self.serialized():
            for data in block:
                record = self.parse(data)
                self.check_filename(row, to_bytes(record.filename))
                yield record
                row += 1

    def check_filename(self, row: int, filename: bytes) -> None:
        """Raise CorruptError unless a record's filename is that of its row."""
        if row >= len(self) or filename != self._index.filename(row):
            raise CorruptError(f"{self.path}, record {row}: the index and the record differ in the filename")

    # In a loop, or in training.

    def dataset(self, batch_size: int | None = None) -> tf.data.Dataset:
        """The records as parsed `tf.data`: dicts of every feature, in the order of the shards.

        Args:
            batch_size: None for single examples; a number for batches (parsed a batch at a time, faster).

        Features that vary in length are ragged (`tf.RaggedTensor` in batches). Reading checks every CRC, and that there
        are as many records as the index says. It is TensorFlow that reads, which shards made to harm can bring down:
        verify an export of unknown origin first.

        Raises CorruptError where a shard on the local disk is missing, or not as long as it was.
        """
        import tensorflow as tf

        self._check_sizes()
        compression = "GZIP" if self.manifest["compression"] == "gzip" else ""
        records = tf.data.TFRecordDataset(self.shards, compression)
        records = records.apply(tf.data.experimental.assert_cardinality(len(self)))
        parsed = self._parsed(records, tf.data.AUTOTUNE) if batch_size is None else self._batched(records, batch_size)
        return parsed.prefetch(tf.data.AUTOTUNE)

    def pseudo_labels(self, **asked: Any) -> tf.data.Dataset:
        """The predictions that rules choose as `(image, label, weight)`, ready for `fit()`, read from where they lie.

            student.fit(export.pseudo_labels(min_confidence=0.9, per_class=1000, batch_size=32, shuffle=0))

        Takes and raises what `pseudolabel.pseudo_labels` does.
        """
        from tfzip.pseudolabel import pseudo_labels

        return pseudo_labels(self, **asked)

    def _check_sizes(self) -> None:
        for path, shard in zip(self.shards, self.manifest["shards"], strict=True):
            if storage.is_local(path) and not (os.path.isfile(path) and os.path.getsize(path) == shard["bytes"]):
                raise CorruptError(f"the shard {path} is missing, or not of {shard['bytes']} bytes")

    def check_shards(self) -> None:
        """Raise CorruptError if a shard is missing, too short, or could bring down TensorFlow's reader.

        That makes room for as much as the length of an uncompressed record claims, before it reads.
        """
        self._check_sizes()
        for shard, path in enumerate(self.shards) if self.manifest["compression"] == "none" else ():
            try:
                with self.open_shard(shard) as file:
                    deque(framing.frame_headers(file), maxlen=0)
            except (CorruptError, OSError) as error:
                raise CorruptError(f"{path}: {error}; `tfzip verify` tells more") from None

    def _batched(self, records: tf.data.Dataset, size: int) -> tf.data.Dataset:
        import tensorflow as tf

        spec = self._parsing()

        def parse(batch: tf.Tensor) -> dict[str, tf.Tensor]:
            return tf.io.parse_example(batch, spec)

        # AutoGraph would take longer than all the rest here.
        return records.batch(size).map(tf.autograph.experimental.do_not_convert(parse), tf.data.AUTOTUNE)

    def _parsed(self, records: tf.data.Dataset, parallel: int) -> tf.data.Dataset:
        import tensorflow as tf

        spec = self._parsing()

        def parse(record: tf.Tensor) -> dict[str, tf.Tensor]:
            example = tf.io.parse_single_example(record, spec)  # rows of one size are ragged here only by their type
            return {key: v.to_tensor() if isinstance(v, tf.RaggedTensor) else v for key, v in example.items()}

        return records.map(tf.autograph.experimental.do_not_convert(parse), parallel)

    def _parsing(self) -> dict[str, Any]:
        return {key: _parsing(key, feature) for key, feature in self.features.items()}

    def __iter__(self) -> Iterator[tuple[Any, str, np.ndarray[Any, Any] | None]]:
        """Yield `(prediction, filename, image)` for every record.

        prediction: float32 scores [C]; for the task `raw` a dict of the outputs, for `detection` one of `boxes` [N, 4]
        (ymin, xmin, ymax, xmax), `scores`, `labels` and `texts`, all [N]. image: uint8 [H, W, 3] as the file has it
        (alpha dropped, not turned by EXIF), None in an export without images.

        Raises CorruptError where a shard is damaged, or holds other records than the index says; DataError for an image
        that cannot be decoded, or claims more pixels than are allowed.
        """
        import tensorflow as tf

        broken: list[CorruptError] = []

        def blocks() -> Iterator[np.ndarray[Any, Any]]:
            try:  # TensorFlow's own reader can be brought down by a forged length
                yield from (np.array(block, object) for block in self.serialized())
            except CorruptError as error:
                broken.append(error)

        parallel = os.cpu_count() or 1
        options = tf.data.Options()
        options.autotune.enabled = False  # its thread can hold up the end of a loop for seconds
        records = tf.data.Dataset.from_generator(blocks, output_signature=tf.TensorSpec([None], tf.string)).unbatch()
        pictures = self._parsed(records, parallel).map(self._decode, parallel).prefetch(parallel).with_options(options)
        row = 0
        try:
            for example in pictures.as_numpy_iterator():
                self.check_filename(row, example[FILENAME])
                yield self._said(example), to_str(example[FILENAME]), self._picture(example)
                row += 1
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            self._tell_of_image(row)
            raise DataError(f"{self.path}, record {row}: {reason(error)}; `tfzip verify` tells more") from None
        if broken:
            raise broken[0]

    def _decode(self, example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Graph: adds the image, empty if TensorFlow lacks its format."""
        import tensorflow as tf

        from tfzip import bounds, formats, images

        if self.image_key not in example:
            return example
        encoded, bound = example[self.image_key], bounds.Bound(self.max_pixels)
        decoded = tf.cond(
            formats.is_lacking(encoded),
            lambda: tf.zeros((0, 0, 3), tf.uint8),
            lambda: images.decode(encoded, 3, bound=bound),
        )
        return {**example, _IMAGE: decoded}

    def _said(self, example: Mapping[str, Any]) -> Any:
        """What a loop gives as the prediction of a parsed example."""
        if is_detection(self.predicted):
            boxes = np.stack([example[key] for key in BOXES], axis=-1)
            texts = [text.decode("utf-8", "replace") for text in example[DETECTED_TEXT]]
            return {
                "boxes": boxes,
                "scores": example[DETECTED_SCORE],
                "labels": example[DETECTED_LABEL],
                "texts": texts,
            }
        if SCORES in self.predicted:
            return example[SCORES]
        return {key.removeprefix(OUTPUT): value for key, value in example.items() if key.startswith(OUTPUT)}

    def _picture(self, example: Mapping[str, Any]) -> np.ndarray[Any, Any] | None:
        """The image that the graph decoded; or decoded here, if TensorFlow lacks its format."""
        if _IMAGE not in example or example[_IMAGE].size:
            return example.get(_IMAGE)
        encoded = np.asarray(example[self.image_key], object).item()  # bytes; an array of them would lose last zeros
        return self._decode_alone(to_str(example[FILENAME]), encoded)

    def _decode_alone(self, filename: str, encoded: bytes) -> np.ndarray[Any, Any]:
        import tensorflow as tf

        from tfzip import bounds, foreign, images

        try:
            translated = foreign.translate(encoded, self.max_pixels)
            return images.decode(translated, 3, bound=bounds.Bound(self.max_pixels)).numpy()
        except (tf.errors.OpError, ValueError) as error:
            raise DataError(f"{filename}: {reason(error)}") from None

    def _tell_of_image(self, row: int) -> None:
        """Raise DataError if the image of a record is what cannot be decoded."""
        if row < len(self) and self.image_key in self.features:
            record = self[row]
            self._decode_alone(record.filename, record.encoded or b"")


def has_index(path: str, split: str | None = None) -> bool:
    """Whether there is a finished export in a folder; an index.zip of something else is none."""
    try:
        return _is_ours(_find_index(path, split))
    except UsageError as error:
        return not isinstance(error, NotAnExportError)


def _is_ours(index: str) -> bool:
    """Whether a zip begins with what tfzip writes first, also where it is damaged later, or a link to nowhere."""
    if not storage.isfile(index):
        return True
    with storage.open(index, "rb") as file:
        return b"manifest.json" in file.read(_FIRST_ENTRY)


def _find_index(path: str, split: str | None) -> str:
    """The path of the index, in either layout."""
    flat = storage.join(path, INDEX)
    if storage.exists(flat):
        return flat
    if not storage.isdir(path):
        is_there = f"{path} is a file: give the folder that the export was written to"
        raise NotAnExportError(is_there if storage.exists(path) else f"{path}: no such folder")
    finished = _finished(path)
    if split is None and len(finished) > 1:
        raise UsageError(f"{path} holds the splits {', '.join(finished)}: say which with --split")
    chosen = split if split is not None else next(iter(finished), None)
    if chosen not in finished:
        what = f"the split {split!r}" if finished else "a finished export (it has no index.zip)"
        raise NotAnExportError(f"{path} does not hold {what}")
    return storage.join(path, f"{TFX_FOLDER}{chosen}/{INDEX}")


def _finished(path: str) -> list[str]:
    """The splits of the tfx layout that have an index."""
    return [
        name.removeprefix(TFX_FOLDER)
        for name in sorted(storage.listdir(path))
        if name.startswith(TFX_FOLDER) and storage.exists(storage.join(path, f"{name}/{INDEX}"))
    ]


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
        return np.array([to_str(name) for name in self._index.filenames()], object)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
