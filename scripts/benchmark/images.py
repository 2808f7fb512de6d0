"""The images: pieces of two photographs that scikit-learn ships."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def photographs(folder: str, count: int) -> None:
    """500x375, as JPEG of about 70 kB."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    for number, crop in enumerate(crops(375, 500, count)):
        noisy = np.clip(crop + rng.normal(0, 4, crop.shape), 0, 255).astype(np.uint8)
        tf.io.write_file(f"{folder}/{number:06d}.jpg", tf.io.encode_jpeg(noisy, quality=90))


def thumbnails(folder: str, count: int) -> None:
    """32x32, as PNG."""
    import tensorflow as tf

    for number, crop in enumerate(crops(32, 32, count)):
        tf.io.write_file(f"{folder}/{number:06d}.png", tf.io.encode_png(crop))


def crops(height: int, width: int, count: int) -> Iterator[np.ndarray]:
    """Pieces at random places, uint8."""
    from sklearn.datasets import load_sample_image

    rng = np.random.default_rng(0)
    pictures = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    for number in range(count):
        picture = pictures[number % 2]
        top, left = rng.integers(0, picture.shape[0] - height), rng.integers(0, picture.shape[1] - width)
        yield picture[top : top + height, left : left + width]
