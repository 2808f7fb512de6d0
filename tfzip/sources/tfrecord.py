"""Existing TFRecord files of `tf.train.Example`s, which gain a prediction and keep every feature they had."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from isal import igzip

from tfzip import framing, record, storage
from tfzip.errors import BrokenSourceError, CorruptError, SourceError, UsageError
from tfzip.options import Options
from tfzip.record import ENCODED, FILENAME, TRUTH_LABEL, TRUTH_TEXT, UNKNOWN, FeatureSpec
from tfzip.sources.source import Carried, Listed, Stream, state_of

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

PREFIX = "tfrecord:"

_SAMPLE = 100  # records whose features are taken for those of all
_GZIP = b"\x1f\x8b"
_SCALARS = {key: spec for key, spec in record.image_features(images=True, truth=True).items() if not spec.shape}


def from_tfrecords(shown: str, paths: Sequence[str], options: Options) -> Listed | Stream:
    """The records of TFRecord files, gzipped or not, in the order of the files and in them.

    Filenames are the records' own where they have the feature `options.filename_key` (`image/filename` by default),
    else `SPLIT/%08d`. Which features there are is taken from the first hundred records. With a shuffle, or where they
    are handed out to workers, records of uncompressed files are read in any order.

    Raises:
        SourceError: nothing is there, or what cannot be handed out.
        BrokenSourceError: a file is cut short or damaged.
        UsageError: no feature of that key.
    """
    if not paths:
        raise SourceError(f"{shown}: no such files")
    found = [_frames(path) for path in paths]
    count = sum(len(sizes) for _, sizes, _ in found)
    if not count:
        raise SourceError(f"{shown}: no records in it")
    features = _sampled(shown, paths)
    keys = _Keys(shown, features, options)
    counts = [len(sizes) for _, sizes, _ in found]
    common: dict[str, Any] = {
        "kind": "tfrecord",
        "name": shown,
        "classes": () if keys.truths else None,
        "state": state_of(paths),
        **_known(keys, paths, counts),
    }
    gzipped = [is_gzip for _, _, is_gzip in found]
    is_streamed = options.shuffle is None and options.shards is None
    if options.engine != "local":
        if any(gzipped):
            raise SourceError(f"{shown}: a gzipped file has to be read from its start; use --engine local")
        if is_streamed:  # locally shards close by the size of what is in them
            common["state"] = {**common["state"], "plan": options.engine}
    elif any(gzipped) or is_streamed:
        parse, name = keys.parser(), keys.namer() if options.skip_in is not None else None
        return Stream(
            **common,
            count=count,
            batches=lambda size: _streamed(paths, gzipped, name).batch(size),
            read=lambda item: {**item, **parse(item["position"], item["example"])},
        )
    located = {
        "file": np.repeat(np.arange(len(paths)), counts),
        "offset": np.concatenate([offsets for offsets, _, _ in found]),
    }
    return Listed(
        **common,
        filenames=_Numbered(count, keys),
        sizes=np.concatenate([sizes for _, sizes, _ in found]),
        reader=lambda: _reader(paths, located, None, keys.parser()),
        access={
            "paths": [storage.absolute(path) for path in paths],
            "counts": counts,
            "features": features,
            "options": {name: getattr(options, name) for name in _OPTIONS},
        },
        located=located,
    )


_OPTIONS = ("image_key", "filename_key", "truth_key", "split")


def _known(keys: _Keys, paths: Sequence[str], counts: Sequence[int]) -> dict[str, Any]:
    return {
        "carried": Carried(keys.features, keys.image, keys.filename),
        "unique": False,
        "place": _placer(paths, counts),
    }


def known_of(name: str, access: Mapping[str, Any]) -> dict[str, Any]:
    """What a source of such an `access` has beside its items."""
    return _known(_keys(name, access), access["paths"], access["counts"])


def reader_of(
    name: str, access: Mapping[str, Any], located: Mapping[str, Any], places: Any
) -> Callable[[tf.Tensor], Element]:
    """A graph function: the row of an item of a piece -> the item, by where it is `located`, and its position."""
    return _reader(access["paths"], located, places, _keys(name, access).parser())


def _keys(name: str, access: Mapping[str, Any]) -> _Keys:
    features = {key: FeatureSpec(dtype, tuple(shape)) for key, (dtype, shape) in access["features"].items()}
    return _Keys(name, features, Options(**access["options"]))


class _Numbered(Sequence[bytes]):
    """Names by position, for records that may have others inside."""

    def __init__(self, count: int, keys: _Keys) -> None:
        self._count, self._keys = count, keys

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, row: int) -> bytes: ...

    @overload
    def __getitem__(self, row: slice) -> Sequence[bytes]: ...

    def __getitem__(self, row: int | slice) -> bytes | Sequence[bytes]:
        rows = range(self._count)[row]
        return self._keys.numbered(rows) if isinstance(rows, int) else [*map(self._keys.numbered, rows)]


# Listing.


def _frames(path: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], bool]:
    """The offset and size of every record of a file, and whether it is gzipped; every header's CRC is checked."""
    with storage.open(path, "rb") as raw:
        gzipped = raw.read(2) == _GZIP
        raw.seek(0)
        try:
            file: Any = igzip.open(raw, "rb") if gzipped else raw
            frames = np.array(list(framing.frame_headers(file)), np.int64).reshape(-1, 2)
        except (CorruptError, EOFError, OSError, igzip.igzip_lib.IsalError) as error:
            raise BrokenSourceError(f"{path}: the TFRecord file is damaged or cut short ({error})") from None
    return frames[:, 0], frames[:, 1], gzipped


def _placer(paths: Sequence[str], counts: Sequence[int]) -> Callable[[int], str]:
    """A function: the position of a record -> which one of which file it is."""
    stops = np.cumsum(counts)

    def place(position: int) -> str:
        file = int(np.searchsorted(stops, position, "right"))
        return f"record {position - int(stops[file]) + counts[file]} of {paths[file]}"

    return place


def _sampled(shown: str, paths: Sequence[str]) -> dict[str, FeatureSpec]:
    """The features of the first records."""
    try:
        sample = [
            {key: (dtype, len(values)) for key, (dtype, values) in record.parse_example(serialized).items() if dtype}
            for serialized in itertools.islice(_serialized(paths), _SAMPLE)
        ]
        return {key: _spec(key, sample) for key in dict.fromkeys(key for example in sample for key in example)}
    except CorruptError as error:
        raise BrokenSourceError(f"{shown}: {error}") from None


def _spec(key: str, sample: Sequence[Mapping[str, tuple[str, int]]]) -> FeatureSpec:
    """Type and shape of a feature: one value if tfzip would write just one and all have it, else any number."""
    found = {example.get(key, ("", 0)) for example in sample}
    dtypes = sorted({dtype for dtype, _ in found} - {""})
    if len(dtypes) > 1:
        raise CorruptError(f"the feature {key} is {' in one record, '.join(dtypes)} in another")
    own = _SCALARS.get(key)
    return own if own and found == {(own.dtype, 1)} else FeatureSpec(dtypes[0], (None,))


def _serialized(paths: Sequence[str]) -> Iterator[bytes]:
    for path in paths:
        with storage.open(path, "rb") as raw:
            gzipped = raw.read(2) == _GZIP
            raw.seek(0)
            file: Any = igzip.open(raw, "rb") if gzipped else raw
            for _, _, frame in framing.read_frames(file):
                yield framing.unframe(frame)[0]


class _Keys:
    """The features that hold image, filename and truth."""

    def __init__(self, shown: str, features: Mapping[str, FeatureSpec], options: Options) -> None:
        self.image = options.image_key or ENCODED
        self.filename = options.filename_key or (FILENAME if FILENAME in features else None)
        self.truth = options.truth_key
        self._split = options.split
        kinds = {"image": ("bytes",), "filename": ("bytes",), "truth": ("bytes", "int64")}
        for role, dtypes in kinds.items():
            key = getattr(self, role)
            if key is not None and (key not in features or features[key].dtype not in dtypes):
                there = ", ".join(f"{name} {spec.dtype}" for name, spec in sorted(features.items()))
                raise UsageError(f"{shown}: no feature {key!r} of {' or '.join(dtypes)} (--{role}-key); it has {there}")
        self.truths = self._truths(features)
        single = [key for key in (self.image, self.filename) if key is not None]
        self.features = {**features, **{key: FeatureSpec(features[key].dtype) for key in single}}

    def _truths(self, features: Mapping[str, FeatureSpec]) -> dict[str, str]:
        """What an item has of its truth, and in which features: in those of tfzip itself, if no other is given."""
        if self.truth is not None:
            return {"truth" if features[self.truth].dtype == "int64" else "truth_text": self.truth}
        own = {"truth": TRUTH_LABEL, "truth_text": TRUTH_TEXT}
        return {name: key for name, key in own.items() if features.get(key) == _SCALARS[key]}

    def numbered(self, position: int) -> bytes:
        return f"{self._split}/{position:08d}".encode()

    def parser(self) -> Callable[[tf.Tensor, tf.Tensor], Element]:
        """A graph function: a position and its serialized Example -> the item."""
        import tensorflow as tf

        dtypes = {"bytes": tf.string, "int64": tf.int64}
        single = {key: spec.dtype for key, spec in self.features.items() if not spec.shape}
        spec = {key: tf.io.FixedLenFeature((), dtypes[dtype]) for key, dtype in single.items()}
        spec[self.image] = tf.io.FixedLenFeature((), tf.string, "")  # without an image a record fails alone
        for name, key in self.truths.items():
            spec[key] = tf.io.FixedLenFeature((), tf.int64, UNKNOWN) if name == "truth" else spec[self.image]

        def parse(position: tf.Tensor, serialized: tf.Tensor) -> Element:
            parsed = tf.io.parse_single_example(serialized, spec)
            named = parsed[self.filename] if self.filename else self._numbered(position)
            truths = {name: parsed[key] for name, key in self.truths.items()}
            return {"filename": named, "encoded": parsed[self.image], "example": serialized, **truths}

        return parse

    def namer(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """A graph function: a position and its serialized Example -> the filename, empty where it has none."""
        import tensorflow as tf

        def name(position: tf.Tensor, serialized: tf.Tensor) -> tf.Tensor:
            if self.filename is None:
                return self._numbered(position)
            spec = {self.filename: tf.io.FixedLenFeature((), tf.string, "")}
            return tf.io.parse_single_example(serialized, spec)[self.filename]

        return name

    def _numbered(self, position: tf.Tensor) -> tf.Tensor:
        import tensorflow as tf

        return tf.strings.join([self._split, "/", tf.strings.as_string(position, width=8, fill="0")])


# The graph.


def _streamed(
    paths: Sequence[str], gzipped: Sequence[bool], name: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] | None
) -> Any:
    """The records in order, every CRC checked; with a filename where something needs it before they are read."""
    import tensorflow as tf

    files = [
        tf.data.TFRecordDataset([path], "GZIP" if is_gzip else "") for path, is_gzip in zip(paths, gzipped, strict=True)
    ]
    records = files[0]
    for file in files[1:]:
        records = records.concatenate(file)

    def item(position: tf.Tensor, serialized: tf.Tensor) -> Element:
        found = {"position": position, "example": serialized}
        return found if name is None else {**found, "filename": name(position, serialized)}

    return records.enumerate().map(tf.autograph.experimental.do_not_convert(item))


def _reader(
    paths: Sequence[str], located: Mapping[str, Any], places: Any, parse: Callable[[tf.Tensor, tf.Tensor], Element]
) -> Callable[[tf.Tensor], Element]:
    """A graph function: a row -> its item, its CRC checked; rows are positions if their places are None."""
    import tensorflow as tf

    files = tf.constant(paths)
    numbers, starts = tf.convert_to_tensor(located["file"]), tf.convert_to_tensor(located["offset"])

    def read(row: tf.Tensor) -> Element:
        position = row if places is None else tf.gather(tf.convert_to_tensor(places), row)
        file = tf.gather(files, tf.gather(numbers, row))
        # The class has no parameter for where to begin.
        one = tf.raw_ops.TFRecordDatasetV2(
            filenames=[file], compression_type="", buffer_size=0, byte_offsets=[tf.gather(starts, row)]
        )
        (serialized,) = tf.raw_ops.DatasetToSingleElement(
            dataset=tf.raw_ops.TakeDataset(input_dataset=one, count=1, output_types=[tf.string], output_shapes=[[]]),
            output_types=[tf.string],
            output_shapes=[[]],
        )
        return parse(position, serialized)

    return read
