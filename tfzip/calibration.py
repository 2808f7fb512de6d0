"""Whether confidences are the shares that are right, and the temperature that makes them so; pure functions on arrays.

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tfzip.errors import UsageError

BINS = 15
"""Of confidences, of equal width, as Guo et al. have it."""

LOWEST, HIGHEST = 0.05, 20.0
"""Between which a temperature is looked for."""

_CLOSE = 1e-7  # of a temperature, relative to it
_BLOCK = 1 << 20  # scores that are looked at together

Array = npt.NDArray[Any]


def binned(confidence: Array, bins: int = BINS) -> npt.NDArray[np.int64]:
    """The bin that each confidence is in, of so many of equal width: [N], from 0 on.

    Bin m of M holds confidences in (m / M, (m + 1) / M], the first also 0; edges are rounded to the confidences' own
    precision.
    """
    edges = (np.arange(1, bins) / bins).astype(confidence.dtype)
    return np.searchsorted(edges, confidence)


def expected_calibration_error(confidence: Array, right: Array, bins: int = BINS) -> float:
    """How far confidences are from the share that is right, on average: 0 is calibrated, 1 is as wrong as can be.

    M. P. Naeini et al., AAAI 2015; Guo et al., section 2: the mean distance of the two in each bin (see `binned`),
    weighted by how many lie in it.

    Args:
        confidence: [N], finite, in 0..1.
        right: [N], whether each prediction is.
        bins: how many.

    Returns NaN if there are none.
    """
    if not len(confidence):
        return math.nan
    excess = np.bincount(binned(confidence, bins), confidence - right.astype(np.float64))
    return float(np.abs(excess).sum() / len(confidence))


def temperature(scores: Array, truth: Array) -> float:
    """The temperature T at which softmax(log(scores) / T) has the least negative log likelihood on rows with truth.

    Guo et al., section 4.2: above 1 a model was too sure of itself, below 1 not sure enough. The likelihood is convex
    in 1 / T, where Newton's method looks for it, and bisection where that leads astray. A score of 0 counts as the
    least float32 that is normal. 1 where no temperature changes anything.

    Args:
        scores: probabilities [N, C], finite.
        truth: labels [N] in 0..C-1; at least one.

    Returns T, in LOWEST..HIGHEST.

    Raises UsageError for rows that are not so.
    """
    if not len(truth) or truth.min() < 0 or truth.max() >= scores.shape[1]:
        raise UsageError("a temperature is fitted to one row at least, each with a truth that is one of the classes")
    derivatives = functools.partial(_derivatives, scores, truth)
    slope = derivatives(1.0)[0]
    if not math.isfinite(slope):
        raise UsageError("a temperature is fitted to finite scores")
    if slope == 0:
        return 1.0
    outermost = 1 / LOWEST if slope < 0 else 1 / HIGHEST
    if np.sign(derivatives(outermost)[0]) != -np.sign(slope):
        return 1 / outermost
    return 1 / _root(derivatives, *sorted([1.0, outermost]))


def _root(derivatives: Callable[[float], tuple[float, float]], low: float, high: float) -> float:
    """Where an ascending function, given with its derivative, is 0 between two numbers at which its signs differ.

    Newton's method; bisection where a step leads astray, or is not half as long as the one before.
    """
    place, length = math.sqrt(low * high), high - low
    while length > _CLOSE * place:
        value, slope = derivatives(place)
        low, high = (low, place) if value > 0 else (place, high)
        following = place - value / slope if slope > 0 else math.nan
        if not (low <= following <= high and abs(following - place) <= length / 2):
            following = (low + high) / 2
        place, length = following, abs(following - place)
    return place


@np.errstate(invalid="ignore")  # infinity less infinity: the sums are not finite, which is told
def _derivatives(scores: Array, truth: Array, inverse: float) -> tuple[float, float]:
    """The first and second derivative, by 1 / T, of the negative log likelihood of all rows together."""
    slope = curvature = 0.0
    rows = max(1, _BLOCK // scores.shape[1])
    for start in range(0, len(truth), rows):
        lead = _leads(scores[start : start + rows], truth[start : start + rows])
        weight = np.exp(inverse * (lead - lead.max(axis=1, keepdims=True)))
        weight /= weight.sum(axis=1, keepdims=True)
        mean = (weight * lead).sum(axis=1, keepdims=True)
        slope += float(mean.sum())
        curvature += float((weight * (lead - mean) ** 2).sum())
    return slope, curvature


def _leads(scores: Array, truth: Array) -> Array:
    """By how much the logarithm of each score is above that of the true class."""
    logs = np.log(np.maximum(scores, np.finfo(np.float32).tiny, dtype=np.float64))
    return logs - np.take_along_axis(logs, truth[:, np.newaxis].astype(np.int64), axis=1)
