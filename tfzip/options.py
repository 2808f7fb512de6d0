"""The options of an export, checked before any work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tfzip import naming
from tfzip.defaults import MAX_PIXELS
from tfzip.errors import UsageError

if TYPE_CHECKING:
    import tensorflow as tf

TASKS = ("auto", "multiclass", "binary", "multilabel", "detection", "raw")
SCORES = ("auto", "probabilities", "logits")
SCALES = ("auto", "raw", "unit", "symmetric", "caffe", "torch")
RESIZES = ("stretch", "crop", "pad")
INTERPOLATIONS = (
    "bilinear",
    "nearest",
    "bicubic",
    "area",
    "lanczos3",
    "lanczos5",
    "gaussian",
    "mitchellcubic",
)
EXIF_ORIENTATIONS = ("ignore", "apply")
ALPHAS = ("drop", "white", "black")
SOURCE_LABELS = ("none", "folder")
LAYOUTS = ("flat", "tfx")
COMPRESSIONS = ("gzip", "none")
ON_NONFINITE = ("keep", "fail", "quarantine")
ON_ERROR = ("quarantine", "fail")
RUNTIMES = ("auto", "tensorflow", "lite")
ENGINES = ("local", "beam")

_CHOICES = {
    "task": TASKS,
    "scores": SCORES,
    "scale": SCALES,
    "resize": RESIZES,
    "interpolation": INTERPOLATIONS,
    "exif_orientation": EXIF_ORIENTATIONS,
    "alpha": ALPHAS,
    "source_labels": SOURCE_LABELS,
    "layout": LAYOUTS,
    "compression": COMPRESSIONS,
    "on_error": ON_ERROR,
    "engine": ENGINES,
    "on_nonfinite": ON_NONFINITE,
    "runtime": RUNTIMES,
}
MOST_SHARDS = 99_999
_MOST = {"shards": MOST_SHARDS, "shard_records": 2**62, "limit": 2**62, "batch_size": 2**31 - 1, "parallel": 1024}
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

SHAPE = ("name", "split", "layout", "shard_size", "shard_records", "compression", "overwrite")
"""The options that say how a training set lies on disk."""


@dataclass(frozen=True)
class Options:
    """How to export; the names and defaults are those of `tfzip export`, whose help tells what each does."""

    imports: Sequence[str] | None = None
    weights: str | os.PathLike[str] | None = None
    signature: str | None = None
    output: str | None = None
    labels: str | os.PathLike[str] | Sequence[str] | None = None
    task: str = "auto"
    threshold: float = 0.5
    min_score: float = 0.5
    scores: str = "auto"
    scale: str = "auto"
    preprocess: str | Callable[[tf.Tensor], tf.Tensor] | None = None
    resize: str = "stretch"
    interpolation: str = "bilinear"
    fast_jpeg: bool = False
    image_size: str | Sequence[int] | None = None
    exif_orientation: str = "ignore"
    alpha: str = "drop"
    max_pixels: int = MAX_PIXELS
    source_labels: str = "none"
    source_split: str | None = None
    predictions: str | os.PathLike[str] | None = None
    allow_partial: bool = False
    skip_in: str | os.PathLike[str] | None = None
    root: str | None = None
    filename_column: str | None = None
    label_column: str | None = None
    image_key: str | None = None
    filename_key: str | None = None
    truth_key: str | None = None
    name: str = "images"
    split: str = "train"
    layout: str = "flat"
    shards: int | None = None
    shard_size: str | int = "128MB"
    shard_records: int = 10_000
    compression: str = "gzip"
    image: str = "keep"
    shuffle: int | None = None
    batch_size: str | int = "auto"
    parallel: str | int = "auto"
    devices: str = "auto"
    runtime: str = "auto"
    on_error: str = "quarantine"
    max_failures: str | int | None = None
    on_nonfinite: str = "keep"
    overwrite: bool = False
    limit: int | None = None
    engine: str = "local"
    dry_run: bool = False
    trust_model: bool = False
    report: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{flag(name)} {getattr(self, name)!r}: use {_either(choices)}")
        naming.check_name("name", self.name)
        naming.check_name("split", self.split)
        self._check_numbers()
        if isinstance(self.imports, str):
            raise UsageError(f"--import {self.imports!r}: give a list of module names")
        if not isinstance(self.devices, str):
            raise UsageError(f"--devices {self.devices!r}: use a text, as in 'GPU:0,GPU:1'")
        if self.preprocess is not None and self.scale != "auto":
            raise UsageError("--preprocess and --scale: give one of them; a function of your own does the scaling too")
        if self.fast_jpeg and self.reencode:
            raise UsageError(f"--fast-jpeg and --image {self.image}: what is to be stored is decoded whole anyway")
        # Those that are parsed: a wrong one is to be told before any work.
        _ = self.size, self.reencode, self.shard_bytes, self.allowed_failures(100)

    def _check_numbers(self) -> None:
        for name in ("shards", "shard_records", "limit"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least=1, most=_MOST[name])
        for name in ("batch_size", "parallel"):
            if getattr(self, name) != "auto":
                _whole(name, getattr(self, name), least=1, most=_MOST[name])
        for name in ("threshold", "min_score"):
            if not isinstance(getattr(self, name), (int, float)) or not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{flag(name)} {getattr(self, name)}: use a number from 0 to 1")
        _whole("max_pixels", self.max_pixels, least=1, most=2**62)
        if self.shuffle is not None:
            _whole("shuffle", self.shuffle, least=0, most=2**128)

    @property
    def size(self) -> tuple[int, int] | None:
        """`image_size` as (height, width)."""
        if self.image_size is None:
            return None
        text = self.image_size if isinstance(self.image_size, str) else "x".join(map(str, self.image_size))
        match = re.fullmatch(r"([1-9][0-9]*)[xX]([1-9][0-9]*)", text)
        if not match:
            raise UsageError(f"--image-size {self.image_size!r}: use HEIGHTxWIDTH, as in 224x224")
        return int(match[1]), int(match[2])

    @property
    def shard_bytes(self) -> int:
        """`shard_size` in bytes."""
        match = re.fullmatch(r"([0-9]*\.?[0-9]+) *([KMG]?I?B?)", str(self.shard_size).upper())
        size = round(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
        if size < 1:
            raise UsageError(f"--shard-size {self.shard_size!r}: use bytes, or a number with KB, MB or GB")
        return size

    @property
    def keeps_image(self) -> bool:
        """Whether records hold the image."""
        return self.image != "none"

    @property
    def reencode(self) -> tuple[str, int] | None:
        """Codec and quality, if the image is to be encoded anew."""
        codec, _, quality = str(self.image).partition(":")
        if codec == "jpeg" and quality.isdecimal() and 1 <= int(quality) <= 100:
            return codec, int(quality)
        if self.image not in ("keep", "png", "none"):
            raise UsageError(f"--image {self.image!r}: use keep, jpeg:QUALITY (1 to 100), png or none")
        return (codec, 0) if codec == "png" else None

    def allowed_failures(self, images: int | None) -> int | None:
        """How many of so many images may fail; None for any number, and for a share of nobody knows how many."""
        if self.max_failures is None:
            return None
        match = re.fullmatch(r"([0-9]+)|([0-9]*\.?[0-9]+)%", str(self.max_failures))
        if not match or (match[2] and float(match[2]) > 100):
            raise UsageError(
                f"--max-failures {self.max_failures!r}: use a number of images, or a percentage such as 5%"
            )
        if match[1]:
            return int(match[1])
        return None if images is None else int(Fraction(match[2]) * images / 100)


def _whole(name: str, value: Any, *, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        upper = "up" if most > 10**9 else f"to {most}"
        raise UsageError(f"{flag(name)} {value!r}: use a whole number from {least} {upper}")


def flag(name: str) -> str:
    """How the command line calls an option."""
    return "--" + ("import" if name == "imports" else name.replace("_", "-"))


def _either(choices: Sequence[str]) -> str:
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
