"""Data sets that TensorFlow Datasets has prepared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from tfzip import storage
from tfzip.errors import SourceError, UsageError
from tfzip.options import Options
from tfzip.record import EXTRA, FeatureSpec
from tfzip.sources.source import Element, Stream

PREFIX = "tfds:"


def from_tfds(shown: str, options: Options) -> Stream:
    """`tfds:NAME[/config][:version]`, or `tfds:FOLDER` of a prepared data set: all splits, or `options.source_split`.

    The image is the only Image feature, or `options.image_key`; the truth the only ClassLabel, or `options.truth_key`.
    Filenames are `options.filename_key`'s, else those of a feature `file_name` or `filename`, else `SPLIT/%08d`. Other
    features of one number or text become `extra/NAME`. Nothing is downloaded.

    Raises SourceError if it is not prepared, UsageError if it has no such feature.
    """
    builder = _builder(shown)
    features = _flat(builder.info.features)
    image = _feature(shown, features, "image", options.image_key)
    truth = _feature(shown, features, "truth", options.truth_key)
    named = options.filename_key or next((key for key in ("file_name", "filename") if key in features), None)
    if named is not None and named not in features:
        raise UsageError(f"{shown}: no feature {named!r} (--filename-key); it has {', '.join(features)}")
    splits = [options.source_split] if options.source_split else sorted(builder.info.splits)
    try:
        counts = [builder.info.splits[split].num_examples for split in splits]
    except (KeyError, ValueError) as error:
        raise UsageError(f"{shown}: no split {options.source_split!r}: {error}") from None
    extra = {key: spec for key, spec in _scalars(features).items() if key not in (image, truth, named)}
    assert image is not None
    classes = [name.encode() for name in features[truth].names or ()] if truth else []
    return Stream(
        kind="tfds",
        name=shown,
        classes=None if truth is None else classes,
        features={EXTRA + key: spec for key, spec in extra.items()},
        unique=named is None,
        count=sum(counts),
        state={"dataset": builder.info.full_name, "splits": splits},
        elements=lambda: _elements(builder, splits, image, truth, classes, named, extra),
    )


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


def _elements(
    builder: Any,
    splits: Sequence[str],
    image: str,
    truth: str | None,
    classes: Sequence[bytes],
    named: str | None,
    extra: Mapping[str, FeatureSpec],
) -> Any:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    def value(element: Any, key: str) -> tf.Tensor:
        for part in key.split("/"):
            element = element[part]
        return element

    def items(split: str) -> Any:
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False)
        decoders: Any = tfds.decode.SkipDecoding()
        for part in reversed(image.split("/")):
            decoders = {part: decoders}
        dataset = builder.as_dataset(split=split, decoders=decoders, read_config=config, shuffle_files=False)

        def item(number: tf.Tensor, element: Any) -> Element:
            position = tf.strings.as_string(number, width=8, fill="0")
            filename = tf.strings.join([split, "/", position]) if named is None else value(element, named)
            found = {"filename": filename, "encoded": value(element, image)}
            if truth is not None:
                found["truth"] = tf.cast(value(element, truth), tf.int64)
                if classes:
                    found["truth_text"] = tf.gather(["", *classes], tf.maximum(found["truth"], -1) + 1)
            return found | {EXTRA + key: value(element, key) for key in extra}

        return dataset.enumerate().map(tf.autograph.experimental.do_not_convert(item))

    datasets = [items(split) for split in splits]
    joined = datasets[0]
    for dataset in datasets[1:]:
        joined = joined.concatenate(dataset)
    return joined
