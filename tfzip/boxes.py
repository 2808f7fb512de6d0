"""Where the boxes of a detection lie on its image, as shares of that."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_RELATIVE = 2.0  # a box may reach beyond the image; coordinates in pixels are larger


def on_image(boxes: npt.NDArray[Any], inputs: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Boxes as shares of the image, cut at its edges; NaN where nothing of one is within.

    The model saw the whole image, stretched to its input, so that shares of either are the same.

    Args:
        boxes: as the model gave them [N, 4], ymin, xmin, ymax, xmax: shares, or pixels of its input.
        inputs: height and width of that.
    """
    boxes = boxes.astype(np.float64)
    if boxes.max(initial=0, where=np.isfinite(boxes)) > _MOST_RELATIVE:
        boxes = boxes / np.tile(inputs, 2)
    boxes = boxes.clip(0, 1)
    is_within = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return np.where(is_within[:, np.newaxis], boxes, np.nan)
