"""What a report draws, as numbers: how sure predictions are, how many pass a threshold, how many of those are right.

Pure functions on arrays. A record may be of several classes: where there are `classes` [M], `confidence` [M] is that
of the record of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import calibration

THRESHOLDS = tuple(n / 100 for n in range(100)) + tuple(n / 1000 for n in range(991, 1001))
"""The confidences that a slider stops at: finer where models are sure."""

BINS = 20
"""Of a histogram of confidences, of equal width; each holds its lower edge, the last its upper one too."""

_QUANTILES = (0, 0.25, 0.5, 0.75, 1)

Ints = npt.NDArray[np.int64]
Column = npt.NDArray[Any]


def passing(confidence: Column, classes: Ints, count: int, thresholds: Sequence[float] = THRESHOLDS) -> Ints:
    """[count, T]: of each class, how many of its records have a confidence no less than each of T thresholds.

    Thresholds ascend. They are compared as a confidence is kept, in float32, so that what shows as 0.7 is no less than
    0.7, as in `select`. NaN and infinity pass none.
    """
    width = len(thresholds) + 1
    reached = np.searchsorted(np.array(thresholds, np.float32), confidence, "right")
    reached[~np.isfinite(confidence)] = 0
    table = np.bincount(classes * width + reached, minlength=count * width).reshape(count, width)
    return table[:, :0:-1].cumsum(axis=1)[:, ::-1]


def histograms(confidence: Column, classes: Ints, count: int) -> Ints:
    """[count, BINS]: of each class, how many of its records have a confidence in each bin; NaN is in none."""
    kept = np.isfinite(confidence)
    edges = (np.arange(1, BINS) / BINS).astype(confidence.dtype)
    bins = np.searchsorted(edges, confidence[kept], "right")
    return np.bincount(classes[kept] * BINS + bins, minlength=count * BINS).reshape(count, BINS)


class Bin(NamedTuple):
    """Predictions of about the same confidence: how many, how sure on average, and the share that is right."""

    images: int
    confidence: float
    accuracy: float


def reliability(confidence: Column, right: npt.NDArray[np.bool_]) -> list[Bin]:
    """The bins of a reliability diagram (Guo et al., ICML 2017) that are not empty; see `calibration.binned`."""
    bins = calibration.binned(confidence)
    images = np.bincount(bins)
    sums = [np.bincount(bins, values.astype(np.float64)) for values in (confidence, right)]
    filled = np.flatnonzero(images)
    return [Bin(int(images[b]), *(float(total[b] / images[b]) for total in sums)) for b in filled]


class Distribution(NamedTuple):
    """The values of one output: how many, how many not finite, quartiles, mean, and a histogram of the finite ones."""

    values: int
    nonfinite: int
    quartiles: list[float]
    mean: float | None
    edges: list[float]
    counts: list[int]


def distribution(values: Column) -> Distribution:
    """How numbers of any shape are spread; no quartiles, no mean and no histogram if none is finite."""
    flat = np.asarray(values).ravel()
    finite = flat[np.isfinite(flat)].astype(np.float64)
    odd = len(flat) - len(finite)
    if not len(finite):
        return Distribution(len(flat), odd, [], None, [], [])
    counts, edges = _histogram(finite)
    return Distribution(
        len(flat), odd, np.quantile(finite, _QUANTILES).tolist(), float(finite.mean()), edges.tolist(), counts.tolist()
    )


def _histogram(finite: npt.NDArray[np.float64]) -> tuple[Column, Column]:
    """Counts in BINS bins between the least and the largest; in one bin if these are too close for that."""
    low, high = finite.min(), finite.max()
    edges = np.linspace(low, high, BINS + 1)
    if not (np.diff(edges) > 0).all():
        return np.array([len(finite)]), np.array([low, high])
    return np.histogram(finite, edges)
