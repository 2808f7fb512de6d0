"""An export of ours as a source: images, filenames and truth, and what else its records carry, but no prediction."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfzip import record
from tfzip.errors import SourceError
from tfzip.options import Options
from tfzip.read import Export
from tfzip.read import open as open_export
from tfzip.sources.source import Carried, Stream

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

_LEFT = ("prediction/", record.OUTPUT, "image/class/", "image/detection/", "truth/")
"""What the new export makes itself, and what is no truth."""


def from_export(path: str, options: Options) -> Stream:
    """The records of an export, in order.

    Raises SourceError if it holds no images, CorruptError if TensorFlow could not read it safely.
    """
    export = open_export(path, options.source_split)
    export.check_shards()
    if export.image_key not in export.features:
        raise SourceError(f"{path} was exported with --image none: it holds no images to predict")
    carried = {key: spec for key, spec in export.features.items() if not key.startswith(_LEFT)}
    known = record.TRUTH_TEXT in export.features
    return Stream(
        kind="export",
        name=path,
        classes=[name.encode() for name in export.labels] if known else None,
        carried=Carried(carried, export.image_key, record.FILENAME, whole=carried == export.features),
        count=len(export),
        state={"shards": [shard["sha256"] for shard in export.manifest["shards"]]},
        batches=lambda size: _elements(export, known).batch(size),
    )


def _elements(export: Export, known: bool) -> Any:
    import tensorflow as tf

    compression = "GZIP" if export.manifest["compression"] == "gzip" else ""
    records = tf.data.TFRecordDataset(export.shards, compression)
    return records.map(tf.autograph.experimental.do_not_convert(_parser(export.image_key, known)))


def _parser(image_key: str, known: bool) -> Callable[[tf.Tensor], Element]:
    import tensorflow as tf

    keys = {"encoded": image_key, "filename": record.FILENAME}
    if known:
        keys |= {"truth_text": record.TRUTH_TEXT, "truth": record.TRUTH_LABEL}
    spec = {key: tf.io.FixedLenFeature((), tf.int64 if name == "truth" else tf.string) for name, key in keys.items()}

    def parse(serialized: tf.Tensor) -> Element:
        parsed = tf.io.parse_single_example(serialized, spec)
        return {"example": serialized, **{name: parsed[key] for name, key in keys.items()}}

    return parse
