"""Where the boxes of a detection lie on the image as it is, whatever was done to it for the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_RELATIVE = 2.0  # a box may reach beyond the image; coordinates in pixels are larger

Boxes = npt.NDArray[np.float64]


def on_image(boxes: npt.NDArray[Any], size: tuple[int, int], pixels: Mapping[str, Any] | None) -> Boxes:
    """Boxes as shares of the image, within it.

    Args:
        boxes: as the model gave them [N, 4], ymin, xmin, ymax, xmax: shares of its input, or pixels of that.
        size: height and width of the image.
        pixels: the manifest's, how the image became the model's input; None if it took the image's bytes.

    Returns [N, 4]; boxes that hold what is not finite, or lie outside, are left out.
    """
    boxes = boxes[np.isfinite(boxes).all(axis=1)].astype(np.float64)
    inputs = size if pixels is None else (pixels["height"], pixels["width"])
    if len(boxes) and boxes.max() > _MOST_RELATIVE:
        boxes = boxes / np.tile(inputs, 2)
    if pixels is not None:
        scale, shift = _seen(np.array(size, np.float64), np.array(inputs, np.float64), pixels["resize"])
        boxes = boxes * np.tile(scale, 2) + np.tile(shift, 2)
    boxes = boxes.clip(0, 1)
    return boxes[(boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])]


def _seen(size: Boxes, inputs: Boxes, resize: str) -> tuple[Boxes, Boxes]:
    """How large the model's input is as a share of the image, and where it begins; of height and width."""
    if resize == "stretch":
        return np.ones(2), np.zeros(2)
    fits = (min if resize == "crop" else max)(size / inputs)
    scale = inputs * fits / size
    return scale, (1 - scale) / 2
