"""MosaicML Streaming's MDS, without compression, in an environment of its own: it wants PyTorch and an older NumPy.

As https://docs.mosaicml.com/projects/streaming/en/latest/preparing_datasets/basic_dataset_conversion.html advises.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from benchmark.work import Work

PACKAGES = ("mosaicml-streaming", "torch", "numpy")
ENVIRONMENT = ("--mds", "mds")
COLUMNS = {"filename": "str", "image": "bytes", "label": "int", "scores": "ndarray:float32:1000"}


def _streaming() -> Any:
    """The package without its ready data sets of images: they import torchvision, which not every PyTorch fits."""
    sys.modules["streaming.vision"] = ModuleType("streaming.vision")
    import streaming

    return streaming


def write(work: Work) -> Callable[[], None]:
    """A row an image."""
    streaming = _streaming()

    def run() -> None:
        with streaming.MDSWriter(out=work.out, columns=COLUMNS) as writer:
            for name, encoded, scores in work.samples():
                writer.write({"filename": name, "image": encoded, "label": int(scores.argmax()), "scores": scores})

    return run


def get(work: Work) -> Callable[[], None]:
    """Every row once, at random."""
    write(work)()
    dataset = _streaming().LocalDataset(work.out)
    rows = random.Random(0).sample(range(len(dataset)), len(dataset))

    def run() -> None:
        for row in rows:
            sample = dataset[row]
            assert sample["image"]
            assert len(sample["scores"]) == 1000

    return run
