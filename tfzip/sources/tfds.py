"""Data sets that TensorFlow Datasets has prepared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfzip import storage
from tfzip.errors import SourceError, UsageError
from tfzip.options import Options, flag
from tfzip.record import EXTRA, FeatureSpec
from tfzip.sources.source import Element, Listed, Stream

PREFIX = "tfds:"


class _Features(NamedTuple):
    """Which of its features is what."""

    image: str
    truth: str | None
    classes: Sequence[bytes]
    named: str | None
    extra: Mapping[str, FeatureSpec]


class _Range(NamedTuple):
    """Some examples of a split, as TFDS takes it; numbered from one on among those of what was asked for."""

    asked: str
    split: Any
    number: int


def from_tfds(shown: str, options: Options) -> Listed | Stream:
    """`tfds:NAME[/config][:version]`, or `tfds:FOLDER` of a prepared data set: all splits, or `options.source_split`.

    The image is the only Image feature, or `options.image_key`; the truth the only ClassLabel, or `options.truth_key`.
    Filenames are `options.filename_key`'s, else those of a feature `file_name` or `filename`, else `SPLIT/%08d`. Other
    features of one number or text become `extra/NAME`. Nothing is downloaded. Where it is handed out to workers it is a
    list, of which they read ranges.

    Raises SourceError if it is not prepared, UsageError if it has no such feature.
    """
    builder = _builder(shown)
    found = _features(shown, builder, options)
    splits = [options.source_split] if options.source_split else sorted(builder.info.splits)
    try:
        counts = [builder.info.splits[split].num_examples for split in splits]
    except (KeyError, ValueError) as error:
        raise UsageError(f"{shown}: no split {options.source_split!r}: {error}") from None
    if options.engine != "local":
        return _handed_out(shown, builder, found, splits, options)
    return _stream(shown, builder, found, splits, [_Range(split, split, 0) for split in splits], sum(counts))


def _stream(
    shown: str,
    builder: Any,
    found: _Features,
    splits: Sequence[str],
    ranges: Sequence[_Range],
    count: int,
    first: int = 0,
) -> Stream:
    return Stream(
        **_known(shown, builder, found, splits),
        count=count,
        first=first,
        batches=lambda size: _elements(builder, ranges, found).batch(size),
    )


def _known(shown: str, builder: Any, found: _Features, splits: Sequence[str]) -> dict[str, Any]:
    """What there is to know of it but for its items."""
    return {
        "kind": "tfds",
        "name": shown,
        "classes": None if found.truth is None else found.classes,
        "features": {EXTRA + key: spec for key, spec in found.extra.items()},
        "unique": found.named is None,
        "state": {"dataset": builder.info.full_name, "splits": splits},
    }


def _features(shown: str, builder: Any, options: Options) -> _Features:
    features = _flat(builder.info.features)
    image = _feature(shown, features, "image", options.image_key)
    truth = _feature(shown, features, "truth", options.truth_key)
    named = options.filename_key or next((key for key in ("file_name", "filename") if key in features), None)
    if named is not None and named not in features:
        raise UsageError(f"{shown}: no feature {named!r} (--filename-key); it has {', '.join(features)}")
    extra = {key: spec for key, spec in _scalars(features).items() if key not in (image, truth, named)}
    assert image is not None
    classes = [name.encode() for name in features[truth].names or ()] if truth else []
    return _Features(image, truth, classes, named, extra)


# In pieces.

_OPTIONS = ("image_key", "filename_key", "truth_key", "source_split")


def _handed_out(shown: str, builder: Any, found: _Features, splits: Sequence[str], options: Options) -> Listed:
    """The same as a list, each item as large as they are on average."""
    for option in ("shuffle", "skip_in"):
        if getattr(options, option) is not None:
            raise UsageError(f"{flag(option)}: {shown} can only be read in its order by --engine {options.engine}")
    infos, folder = [builder.info.splits[split] for split in splits], shown.removeprefix(PREFIX)
    known = _known(shown, builder, found, splits)
    known["state"]["plan"] = options.engine  # locally shards close by the size of what is in them
    sizes = [np.full(info.num_examples, info.num_bytes // max(info.num_examples, 1)) for info in infos]
    return Listed(
        **known,
        filenames=range(sum(map(len, sizes))),  # type: ignore[arg-type] # of no use: pieces have none
        sizes=np.concatenate(sizes),
        reader=lambda: lambda _: {},
        access={
            "dataset": PREFIX + (storage.absolute(folder) if storage.isdir(folder) else folder),
            "options": {name: getattr(options, name) for name in _OPTIONS},
            "splits": splits,
            "unique": known["unique"],
        },
    )


def piece_of(name: str, access: Mapping[str, Any], first: int, stop: int) -> Stream:
    """The examples from one position to before another of a data set of such an `access`."""
    import tensorflow_datasets as tfds

    builder, options = _builder(access["dataset"]), Options(**access["options"])
    ranges, begin = list[_Range](), 0
    for asked in access["splits"]:
        number = 0
        for part in tfds.core.ReadInstruction.from_spec(asked).to_absolute(builder.info.splits):
            start = part.from_ or 0
            count = (builder.info.splits[part.splitname].num_examples if part.to is None else part.to) - start
            low, high = max(first - begin, 0), min(stop - begin, count)
            if low < high:
                some = tfds.core.ReadInstruction(part.splitname, start + low, start + high, unit="abs")
                ranges.append(_Range(asked, some, number + low))
            begin, number = begin + count, number + count
    found = _features(name, builder, options)
    return _stream(name, builder, found, access["splits"], ranges, stop - first, first)


# What TFDS tells of it.


def _builder(shown: str) -> Any:
    import tensorflow  # noqa: F401 - first, since by way of TFDS its loading is not kept quiet
    import tensorflow_datasets as tfds

    name = shown.removeprefix(PREFIX)
    try:
        prepared = storage.exists(storage.join(name, "dataset_info.json"))
        builder = tfds.builder_from_directory(name) if prepared else tfds.builder(name)
    except Exception as error:  # whatever a builder's own code raises
        raise SourceError(f"{shown}: no such data set ({_first_line(error)})") from None
    if not storage.exists(os.fspath(builder.data_dir)):
        raise SourceError(f"{shown} is not prepared: tfds build {name} (looked in {builder.data_dir})")
    return builder


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _flat(features: Any, above: str = "") -> dict[str, Any]:
    """The features by path."""
    import tensorflow_datasets as tfds

    if not isinstance(features, tfds.features.FeaturesDict):
        return {above: features}
    parts = (_flat(feature, f"{above}/{name}" if above else name) for name, feature in features.items())
    return {key: feature for part in parts for key, feature in part.items()}


def _feature(shown: str, features: Mapping[str, Any], role: str, key: str | None) -> str | None:
    """The feature that is image or truth: the one asked for, or the only one of its kind."""
    import tensorflow_datasets as tfds

    kind = {"image": tfds.features.Image, "truth": tfds.features.ClassLabel}[role]
    fitting = [name for name, feature in features.items() if isinstance(feature, kind)]
    if key is not None and key not in fitting:
        raise UsageError(f"{shown}: no {kind.__name__} feature {key!r} (--{role}-key); it has {', '.join(fitting)}")
    if key is None and len(fitting) != 1 and role == "image":
        raise UsageError(f"{shown}: say with --image-key which of {', '.join(fitting) or 'no Image features'} it is")
    return key or (fitting[0] if len(fitting) == 1 else None)


def _scalars(features: Mapping[str, Any]) -> dict[str, FeatureSpec]:
    """The features that are one number or text."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    specs = {}
    for key, feature in features.items():
        if isinstance(feature, tfds.features.Image) or tuple(getattr(feature, "shape", None) or ()) or key == "":
            continue
        spec = feature.get_tensor_spec()
        if isinstance(spec, tf.TensorSpec) and spec.shape == ():
            kind = "bytes" if spec.dtype == tf.string else "float" if spec.dtype.is_floating else "int64"
            specs[key] = FeatureSpec(kind)
    return specs


def _elements(builder: Any, ranges: Sequence[_Range], found: _Features) -> Any:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def value(element: Any, key: str) -> tf.Tensor:
        for part in key.split("/"):
            element = element[part]
        return element

    def items(some: _Range) -> Any:
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        decoders: Any = tfds.decode.SkipDecoding()
        for part in reversed(found.image.split("/")):
            decoders = {part: decoders}
        dataset = builder.as_dataset(split=some.split, decoders=decoders, read_config=config, shuffle_files=False)

        def item(number: tf.Tensor, element: Any) -> Element:
            numbered = tf.strings.join([some.asked, "/", tf.strings.as_string(number, width=8, fill="0")])
            filename = numbered if found.named is None else value(element, found.named)
            item = {"filename": filename, "encoded": value(element, found.image)}
            if found.truth is not None:
                item["truth"] = tf.cast(value(element, found.truth), tf.int64)
                if found.classes:
                    item["truth_text"] = tf.gather(["", *found.classes], tf.maximum(item["truth"], -1) + 1)
            return item | {EXTRA + key: value(element, key) for key in found.extra}

        return dataset.enumerate(some.number).map(tf.autograph.experimental.do_not_convert(item))

    datasets = [items(some) for some in ranges]
    joined = datasets[0]
    for dataset in datasets[1:]:
        joined = joined.concatenate(dataset)
    return joined
