"""What a side has to do, and where: the images, the model, the predictions that are given."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH = 32  # what Keras takes if it is not told


@dataclass(frozen=True)
class Work:
    """The folder that all sides share, and the one that this side writes to.

    `build` makes the model anew, of any version of Keras, without its weights. `size` is the height and width that it
    takes. `batches` are those that OpenVINO tries.
    """

    folder: str
    out: str
    build: Callable[[], Any] | None
    size: tuple[int, int]
    batches: tuple[int, ...]

    @property
    def images(self) -> str:
        """The folder of images."""
        return os.path.join(self.folder, "images")

    @property
    def model(self) -> str:
        """The Keras file."""
        return os.path.join(self.folder, "model.keras")

    @property
    def weights(self) -> str:
        """The model's weights alone."""
        return os.path.join(self.folder, "model.weights.h5")

    @property
    def records(self) -> str:
        """The images as one uncompressed TFRecord file."""
        return os.path.join(self.folder, "images.tfrecord")

    @property
    def predictions(self) -> str:
        """Scores, float32 [images, classes], in the order of `files`."""
        return os.path.join(self.folder, "scores.npy")

    @property
    def files(self) -> list[str]:
        """The images' paths, sorted."""
        return sorted(entry.path for entry in os.scandir(self.images))

    @property
    def scores(self) -> Any:
        """The predictions as an array."""
        return np.load(self.predictions)

    def kept(self, name: str) -> str:
        """The path of something that a peer makes in its first round, and finds in the later ones."""
        return os.path.join(self.folder, name)

    def samples(self) -> Iterator[tuple[str, bytes, Any]]:
        """Filename, encoded image and scores of each image, as loops of Python get them."""
        for path, scores in zip(self.files, self.scores, strict=True):
            yield os.path.basename(path), read(path), scores


def read(path: str) -> bytes:
    """The bytes of a file."""
    with open(path, "rb") as file:
        return file.read()
