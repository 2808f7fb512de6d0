"""Where boxes lie on an image: a table."""

import math

import numpy as np
import pytest

from tfzip.boxes import on_image

NOWHERE = [math.nan] * 4


@pytest.mark.parametrize(
    ("box", "found"),
    [
        ([0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]),
        ([-0.5, 0.2, 0.3, 1.5], [0, 0.2, 0.3, 1]),
        ([0, 0, 1, 1], [0, 0, 1, 1]),
        ([50, 20, 100, 100], [0.5, 0.1, 1, 0.5]),  # in pixels of an input of 100 by 200
        ([50, 20, 500, 100], [0.5, 0.1, 1, 0.5]),
        ([0.3, 0.2, 0.3, 0.4], NOWHERE),
        ([0.5, 0.2, 0.3, 0.4], NOWHERE),
        ([1.2, 0.2, 1.3, 0.4], NOWHERE),
        ([math.nan, 0.2, 0.3, 0.4], NOWHERE),
        ([math.nan, 20, 100, 100], NOWHERE),
        (NOWHERE, NOWHERE),
        ([0, 0, math.inf, 1], [0, 0, 1, 1]),
    ],
)
def test_boxes_become_shares_of_the_image(box, found):
    shares = on_image(np.array([box], np.float32), (100, 200))
    np.testing.assert_allclose(shares, [found], rtol=1e-6)


def test_pixels_are_told_by_all_boxes_of_an_image_together():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 50, 100]], np.float32)
    np.testing.assert_allclose(on_image(boxes, (100, 200)), [[0, 0, 0.01, 0.005], [0, 0, 0.5, 0.5]])


def test_no_boxes_are_none():
    assert on_image(np.empty((0, 4), np.float32), (10, 10)).shape == (0, 4)
