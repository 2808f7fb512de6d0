"""What TFDS wants to know of an export: `dataset_info.json`, `features.json` and the classes' names.

With them `tfds.builder_from_directory` reads an uncompressed export as its own (see
https://www.tensorflow.org/datasets/external_tfrecord); `interop.tfds` reads the others too.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfzip import record
from tfzip.errors import UsageError
from tfzip.manifest import feature_specs
from tfzip.record import FeatureSpec

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_LABELS = (record.LABEL, record.LABELS, record.DETECTED_LABEL)  # of the prediction
NAMES = (
    "dataset_info.json",
    "features.json",
    *(f"{key.replace('/', '.')}.labels.txt" for key in (*_LABELS, record.TRUTH_LABEL, record.CLASS_LABEL)),
)
"""All files that there may be; without the first, the others are none that TFDS looks at."""

_VERSION = "1.0.0"
_DECODED = frozenset(("jpeg", "png"))  # in which TFDS finds any number of channels, and one picture


def files(manifest: Mapping[str, Any]) -> dict[str, bytes]:
    """The files by name, made of what the manifest says, its `tfds` aside; no shard is read."""
    tfds = load()
    with tempfile.TemporaryDirectory() as folder:
        _info(tfds, manifest, folder).write_to_directory(folder)
        return {name: _contents(os.path.join(folder, name)) for name in NAMES if name in os.listdir(folder)}


def load() -> Any:
    """TFDS; UsageError if it cannot be imported, which is better told before all work than after it."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UsageError(
            f"tensorflow-datasets cannot be imported ({error}): pip install -U tensorflow-datasets"
        ) from None
    return tfds


def digests(made: Mapping[str, bytes]) -> dict[str, str]:
    """The SHA-256 of each file, as the manifest has it under `tfds`."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}


def _contents(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _info(tfds: Any, manifest: Mapping[str, Any], folder: str) -> tfds.core.DatasetInfo:
    name, split, shards = manifest["name"], manifest["split"], manifest["shards"]
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name, version=tfds.core.Version(_VERSION), data_dir=folder, module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=identity,
        description=f"Images with the predictions of {manifest['model']['name']}, written by tfzip.",
        features=_features(tfds, manifest),
        supervised_keys=_supervised(manifest),
    )
    info.set_file_format("tfrecord")
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=name, split=split, filetype_suffix="tfrecord", template=_template(manifest)
    )
    told = tfds.core.SplitInfo(
        name=split,
        shard_lengths=[shard["records"] for shard in shards],
        num_bytes=sum(shard["bytes"] for shard in shards),
        filename_template=template,
    )
    info.set_splits(tfds.core.splits.SplitDict([told]))
    return info


def _template(manifest: Mapping[str, Any]) -> str:
    """Where a shard lies, told from the folder of the index."""
    folder = "../Split-{SPLIT}/" if manifest["layout"] == "tfx" else ""
    suffix = ".gz" if manifest["compression"] == "gzip" else ""
    return folder + "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}" + suffix


def _supervised(manifest: Mapping[str, Any]) -> tuple[str, str] | None:
    """The features that are an image and its label: what to train on if that was selected, else the prediction."""
    label = record.CLASS_LABEL if manifest.get("selection") else record.LABEL
    is_there = {label, manifest["image_key"]} <= set(manifest["features"])
    return (manifest["image_key"], label) if is_there and manifest["task"] in ("multiclass", "binary") else None


def _features(tfds: Any, manifest: Mapping[str, Any]) -> tfds.features.FeaturesDict:
    """Every feature under its own key, as it stands in the record."""
    specs, classes = feature_specs(manifest), _class_label(tfds, manifest)
    made = {key: _feature(tfds, spec) for key, spec in specs.items()}
    for key in _of_classes(manifest, specs):
        made[key] = tfds.features.Sequence(classes) if specs[key].shape else classes
    if manifest["image_key"] in specs and is_decoded(manifest):
        made[manifest["image_key"]] = tfds.features.Image(shape=(None, None, 3))
    return tfds.features.FeaturesDict(made)


def is_decoded(manifest: Mapping[str, Any]) -> bool:
    """Whether TFDS can decode every image; if not, it gives the bytes."""
    return set(manifest["formats"]) <= _DECODED


def _feature(tfds: Any, spec: FeatureSpec) -> Any:
    if spec.dtype == "bytes" and spec.shape in ((), (None,)):
        return tfds.features.Sequence(tfds.features.Text()) if spec.shape else tfds.features.Text()
    dtype = {"bytes": np.object_, "int64": np.int64, "float": np.float32}[spec.dtype]
    return tfds.features.Tensor(shape=spec.shape, dtype=dtype)


def _of_classes(manifest: Mapping[str, Any], specs: Mapping[str, FeatureSpec]) -> list[str]:
    """The features that hold classes of this export; a TFRecord may have had others of the same name."""
    if not _count(manifest, specs):
        return []
    selected = [record.CLASS_LABEL] if manifest.get("selection") else []
    predicted = set(_LABELS) & set(record.predicted_features(specs, manifest["task"]))
    return [key for key in (record.TRUTH_LABEL, *predicted, *selected) if key in specs]


def _count(manifest: Mapping[str, Any], specs: Mapping[str, FeatureSpec]) -> int:
    """How many classes there are; 0 if that is not known."""
    scores = record.predicted_features(specs, manifest["task"]).get(record.SCORES)
    return (scores.shape[0] if scores else 0) or len(manifest["labels"]["names"])


def _class_label(tfds: Any, manifest: Mapping[str, Any]) -> Any:
    given, count = manifest["labels"]["names"], _count(manifest, feature_specs(manifest))
    if len(given) == count and _may_be_lines(given):
        return tfds.features.ClassLabel(names=given)
    return tfds.features.ClassLabel(num_classes=count or None)


def _may_be_lines(given: Sequence[str]) -> bool:
    """Whether TFDS takes these for names: a line each, none empty, none twice."""
    lines = [line.strip() for line in "\n".join(given).splitlines() if line.strip()]
    return lines == list(given) and len(set(given)) == len(given)
