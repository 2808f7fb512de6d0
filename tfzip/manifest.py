"""What manifest.json must be before anything of it is used.

`schemas/manifest.schema.json` describes it for everyone; here stands what reading relies on. Keys that are not known
are left alone: later versions may add some.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfzip import record
from tfzip.errors import CorruptError
from tfzip.naming import ShardName
from tfzip.record import FeatureSpec

_MOST_VALUES = 2_000_000  # a short text may hold very many, and each takes some hundred bytes
_MOST_ELEMENTS, _MOST_DIMENSIONS = 2**28, 32  # of a feature: TensorFlow makes room for all before it has read any
_SHOWN = 80

_COUNT = range(2**63)
_NAME = re.compile(r"[A-Za-z0-9_]{1,255}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Each:
    """An object of any keys, whose values have one form."""

    form: Any


_FORM = {
    # An object's keys; [every item]; {one of}; (None, or else); a range, a pattern, a text, a share of one.
    "format_version": range(record.FORMAT_VERSION, record.FORMAT_VERSION + 1),
    "tfzip_version": str,
    "name": _NAME,
    "split": _NAME,
    "layout": {"flat", "tfx"},
    "compression": {"gzip", "none"},
    "counts": dict.fromkeys(("images", "records", "failures", "ignored", "nonfinite"), _COUNT),
    "source": {"kind": str, "labels": str},
    "task": {"multiclass", "binary", "multilabel", "detection", "raw"},
    "threshold": (None, float),
    "min_score": (None, float),
    "labels": {"names": [str], "from": str},
    "pixels": (
        None,
        {
            **dict.fromkeys(("height", "width", "channels"), _COUNT),
            **dict.fromkeys(("dtype", "resize", "interpolation", "exif_orientation", "alpha"), str),
            "scale": {"raw", "unit", "symmetric", "caffe", "torch"},
            "scale_from": {"option", "model", "application", "preprocess"},
            "preprocess": (None, str),
        },
    ),
    "image": str,
    "formats": [str],
    "image_key": str,
    "model": {
        **dict.fromkeys(("name", "format", "input", "takes"), str),
        "sha256": (None, _SHA256),
        **dict.fromkeys(("signature", "output", "scores"), (None, str)),
    },
    "batch_size": _COUNT,
    "parallel": _COUNT,
    "shuffle": (None, range(2**128 + 1)),
    "limit": (None, _COUNT),
    "features": _Each({"dtype": {"bytes", "int64", "float"}, "shape": [(None, _COUNT)]}),
    "tfds": _Each(_SHA256),
    "shards": [{"file": str, "records": _COUNT, "bytes": _COUNT, "sha256": _SHA256}],
}

_FLAGS = (("model", "frozen"), ("model", "lite"), ("pixels", "fast_jpeg"))
"""What is true or false, and false where an older manifest does not say."""

_SELECTION = {"rules": {}, "from": [{"name": _NAME, "records": _COUNT}]}
"""Of what `select` wrote, whose manifest alone has it: what is told of it."""


def parse_manifest(text: str) -> dict[str, Any]:
    """The manifest, as a dict that may yet hold anything; CorruptError if it is none."""
    if sum(map(text.count, ",[{")) > _MOST_VALUES:
        raise CorruptError("it holds too many values")
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError):
        raise CorruptError("it is no JSON") from None
    if not isinstance(manifest, dict):
        raise CorruptError("it is no object")
    return manifest


def check_manifest(manifest: Mapping[str, Any]) -> None:
    """Raise CorruptError unless the manifest has all that reading relies on, and does not contradict itself."""
    _check(manifest, _FORM, "")
    for entry, key in _FLAGS:
        if not isinstance(value := (manifest[entry] or {}).get(key, False), bool):
            raise CorruptError(f"{entry}.{key} cannot be {_shown(value)}")
    if "selection" in manifest:
        _check(manifest["selection"], _SELECTION, "selection.")
    counts, shards = manifest["counts"], manifest["shards"]
    if counts["images"] != counts["records"] + counts["failures"]:
        raise CorruptError(f"{counts['images']} images are not {counts['records']} records and as many failures")
    if counts["nonfinite"] > counts["records"]:
        raise CorruptError(
            f"{counts['nonfinite']} of {counts['records']} records cannot have a prediction not a number"
        )
    if not shards or sum(shard["records"] for shard in shards) != counts["records"]:
        raise CorruptError(f"its shards do not hold {counts['records']} records together")
    for number, shard in enumerate(shards):
        if shard["file"] != (expected := _file(manifest, number)):
            raise CorruptError(f"the shard {_shown(shard['file'])} is not {expected}")
    _check_features(manifest)


def _file(manifest: Mapping[str, Any], shard: int) -> str:
    """Where a shard lies below the export's folder, and nowhere else."""
    name, split, shards = manifest["name"], manifest["split"], len(manifest["shards"])
    folder = f"Split-{split}/" if manifest["layout"] == "tfx" else ""
    return folder + str(ShardName(name, split, shard, shards, manifest["compression"]))


def feature_specs(manifest: Mapping[str, Any]) -> dict[str, FeatureSpec]:
    """Type and shape of every feature of a record."""
    return {key: FeatureSpec(spec["dtype"], tuple(spec["shape"])) for key, spec in manifest["features"].items()}


def _check_features(manifest: Mapping[str, Any]) -> None:
    """Those that every record has must be there, and those that tfzip writes be as it writes them."""
    specs, task = feature_specs(manifest), manifest["task"]
    for key, spec in specs.items():
        if not _is_possible(spec.shape):
            raise CorruptError(f"the feature {_shown(key)} cannot have the shape {_shown(str(list(spec.shape)))}")
    classes = specs[record.SCORES].shape[0] if record.SCORES in specs and specs[record.SCORES].shape else 0
    needed = record.image_features(images=False, truth=record.TRUTH_LABEL in specs)
    written = record.prediction_features(task, classes or 0)
    if task == "detection":
        needed |= written
    image = manifest["image_key"]
    may_hold = _may_hold_images(manifest, image in specs and image not in {**needed, **written})
    if image in specs:
        needed[image] = FeatureSpec("bytes")
    for key, expected in (needed | written).items():
        if specs.get(key, None if key in needed else expected) != expected:
            raise CorruptError(f"the feature {_shown(key)} is not {expected.dtype} {list(expected.shape)}")
    if not may_hold:
        raise CorruptError(f"its images cannot be in the feature {_shown(image)}")


def _may_hold_images(manifest: Mapping[str, Any], is_there: bool) -> bool:
    """Whether the image key is that of a feature for images, which is there if there are any."""
    own = manifest["image"] == "keep" or manifest["image_key"] == record.ENCODED
    return own and (is_there or manifest["image"] == "none")


def _is_possible(shape: tuple[int | None, ...]) -> bool:
    """Whether only the first dimension varies, of rows that are not empty, and TensorFlow can hold one such value."""
    if len(shape) > _MOST_DIMENSIONS or None in shape[1:]:
        return False
    elements = math.prod(size for size in shape if size is not None)
    return elements <= _MOST_ELEMENTS and (elements > 0 or None not in shape)


def _check(value: Any, form: Any, where: str) -> None:
    """Raise CorruptError, naming the place, unless a value has a form."""
    if isinstance(form, dict) and isinstance(value, dict):
        for key, inner in form.items():
            if key not in value:
                raise CorruptError(f"{where}{key} is missing")
            _check(value[key], inner, f"{where}{key}.")
    elif isinstance(form, _Each) and isinstance(value, dict):
        for key, item in value.items():
            _check(item, form.form, f"{where}{key!r}.")
    elif isinstance(form, list) and isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, form[0], f"{where}{number}.")
    elif isinstance(form, tuple) and value is not None:
        _check(value, form[-1], where)
    elif not _is(value, form):
        raise CorruptError(f"{_shown(where.rstrip('.'))} cannot be {_shown(value)}")


def _is(value: Any, form: Any) -> bool:
    """Whether a value that holds no others has a form."""
    if isinstance(form, (dict, list, _Each)):
        return False
    if isinstance(form, tuple):
        return value is None
    if isinstance(form, set):
        return isinstance(value, str) and value in form
    if isinstance(form, re.Pattern):
        return isinstance(value, str) and form.fullmatch(value) is not None
    if isinstance(form, range):
        return isinstance(value, int) and not isinstance(value, bool) and value in form
    if form is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
    return isinstance(value, form) and not isinstance(value, bool) and (form is not str or _is_text(value))


def _is_text(value: str) -> bool:
    """Whether a text is one: JSON can hold halves of characters too, which nothing writes."""
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _shown(value: Any) -> str:
    """A value in a message: short, whatever it is."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
