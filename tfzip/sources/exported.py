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

    Raises SourceError if it holds no images.
    """
    export = open_export(path, options.source_split)
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
        elements=lambda: _elements(export, known),
    )


def _elements(export: Export, known: bool) -> Any:
    import tensorflow as tf

    keys = [export.image_key, record.FILENAME, *([record.TRUTH_TEXT] if known else [])]
    parse = _parser(keys)
    compression = "GZIP" if export.manifest["compression"] == "gzip" else ""
    records = tf.data.TFRecordDataset(export.shards, compression)
    return records.map(tf.autograph.experimental.do_not_convert(parse))


def _parser(keys: list[str]) -> Callable[[tf.Tensor], Element]:
    import tensorflow as tf

    spec = {key: tf.io.FixedLenFeature((), tf.string) for key in keys}

    def parse(serialized: tf.Tensor) -> Element:
        parsed = tf.io.parse_single_example(serialized, spec)
        item = {"encoded": parsed[keys[0]], "filename": parsed[keys[1]], "example": serialized}
        if len(keys) > 2:
            item["truth_text"] = parsed[keys[2]]
        return item

    return parse
