"""What is measured: the workloads, and the sides of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmark import images, models
from benchmark.work import Work, read


@dataclass(frozen=True)
class Side:
    """A row of the table: its name there, the file in `peers` and the function in it.

    One that writes leaves about as many bytes as the images have, or more. `own` is the head of its column, if it is
    tfzip's: what the other sides are compared with.
    """

    name: str
    peer: str
    function: str
    writes: bool = True
    own: str = ""


@dataclass(frozen=True)
class Workload:
    """Images, how many times as many as there are photographs; a model, or predictions that are given; the sides."""

    images: Callable[[str, int], None]
    times: int
    sides: tuple[Side, ...]
    model: Callable[[], Any] | None = None
    size: tuple[int, int] = (0, 0)
    batches: tuple[int, ...] = ()
    joined: bool = False  # to records that exist
    unit: str = "images/s"

    def work(self, folder: str, out: str) -> Work:
        """For one side, with its folder."""
        return Work(folder, out, self.model, self.size, self.batches)

    def prepare(self, folder: str, count: int) -> None:
        """Make what all sides need."""
        work = self.work(folder, "")
        os.mkdir(work.images)
        self.images(work.images, count)
        if self.model is not None:
            model = self.model()
            model.save(work.model)
            model.save_weights(work.weights)
            return
        scores = np.random.default_rng(0).random((count, 1000), np.float32)
        np.save(work.predictions, scores / scores.sum(axis=1, keepdims=True))
        if self.joined:
            from benchmark import records

            samples = ((os.path.basename(path), read(path)) for path in work.files)
            records.write(work.records, (records.example(*sample) for sample in samples))


EXPORTS = (
    Side("tfzip", "tfzip", "export", own="tfzip"),
    Side("Keras predict, TFRecordWriter", "keras", "export"),
    Side("Beam RunInference, WriteToTFRecord", "beam", "export"),
    Side("Ray Data", "ray", "export"),
    Side("TFX BulkInferrer", "tfx", "export"),
    Side("limit: tfzip's graph, nothing written", "tfzip", "limit", writes=False),
    Side("limit: OpenVINO, float32", "openvino", "infer_float32", writes=False),
    Side("limit: OpenVINO, as it likes", "openvino", "infer", writes=False),
)

WRITING = (
    Side("tfzip.write of paths, gzip", "tfzip", "write_paths", own="paths"),
    Side("tfzip.write of bytes, gzip", "tfzip", "write_bytes", own="bytes"),
    Side("tfzip.export of a folder, gzip", "tfzip", "export_given", own="folder"),
    Side("the same, uncompressed", "tfzip", "export_given_uncompressed", own="uncompr."),
    Side("protobuf, TFRecordWriter GZIP", "tfrecord", "write_gzip"),
    Side("protobuf, TFRecordWriter", "tfrecord", "write"),
    Side("TFDS SequentialWriter", "tfds", "write"),
    Side("WebDataset ShardWriter", "webdataset", "write"),
    Side("ArrayRecordWriter", "array_record", "write"),
    Side("MosaicML Streaming MDSWriter", "mds", "write"),
)

GETTING = (
    Side("tfzip, export[i]", "tfzip", "get_by_row", own="[i]"),
    Side("tfzip, export[filename]", "tfzip", "get_by_filename", own="[filename]"),
    Side("ArrayRecord", "array_record", "get"),
    Side("MosaicML Streaming MDS", "mds", "get"),
)

READING = (
    Side("tfzip, export.dataset()", "tfzip", "read", own="tfzip"),
    Side("TFRecordDataset, parse_example", "tfrecord", "read"),
)

JOINING = (
    Side("tfzip, gzip", "tfzip", "join_gzip", own="gzip"),
    Side("tfzip, uncompressed", "tfzip", "join", own="uncompr."),
    Side("copied as they are, GZIP", "tfrecord", "copy_gzip"),
    Side("copied as they are", "tfrecord", "copy"),
)

ON_BEAM = (
    Side("tfzip --engine beam", "tfzip", "export_on_beam", own="beam"),
    Side("tfzip, the same shards", "tfzip", "export_by_path", own="local"),
    Side("Beam RunInference, WriteToTFRecord", "beam", "export"),
)

WORKLOADS = {
    "mobilenet": Workload(images.photographs, 4, EXPORTS, models.mobilenet, (224, 224), (1, 4)),
    "tiny": Workload(images.thumbnails, 64, EXPORTS, models.tiny, (32, 32), (32, 128)),
    "beam": Workload(images.photographs, 4, ON_BEAM, models.mobilenet, (224, 224)),
    "beam-tiny": Workload(images.thumbnails, 64, ON_BEAM, models.tiny, (32, 32)),
    "write": Workload(images.photographs, 32, WRITING, unit="records/s"),
    "join": Workload(images.photographs, 8, JOINING, joined=True, unit="records/s"),
    "get": Workload(images.photographs, 2, GETTING, unit="records/s"),
    "read": Workload(images.photographs, 16, READING, unit="records/s"),
}
TITLES = {
    "mobilenet": "MobileNetV2 on photographs of 500x375, JPEG",
    "tiny": "a tiny CNN on 32x32 PNGs",
    "beam": "on Beam's FnApiRunner, in one process: MobileNetV2 on photographs",
    "beam-tiny": "likewise: a tiny CNN on 32x32 PNGs",
    "write": "no model: photographs and predictions that are given, written",
    "join": "predictions that are given, joined to TFRecords of photographs",
    "get": "one record after another, at random: its image and its scores",
    "read": "all records through tf.data, parsed",
}
