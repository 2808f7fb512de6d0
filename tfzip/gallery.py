"""Which records a report shows as pictures: the surest of a class, the least sure, some near a threshold, some drawn.

Pure functions on arrays: no record is read here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

SAMPLE = 200
"""Records drawn of all."""

_PICTURES = 360  # in all strips together: some 2 MB
_LEAST, _MOST = 2, 6  # of a strip

Rows = npt.NDArray[np.int64]
Column = npt.NDArray[Any]


def sizes(classes: int) -> tuple[int, int]:
    """Of how many classes strips are shown, and how many pictures a strip has."""
    each = min(max(_PICTURES // (len(KINDS) * max(classes, 1)), _LEAST), _MOST)
    return min(classes, _PICTURES // (len(KINDS) * each)), each


def sample(records: int, seed: int, most: int = SAMPLE) -> Rows:
    """Rows drawn of all, in their order; all if there are no more."""
    drawn = np.random.default_rng(seed).choice(records, min(records, most), replace=False)
    return np.sort(drawn).astype(np.int64)


def strips(rows: Rows, confidence: Column | None, threshold: float, each: int, seed: int) -> dict[str, Rows]:
    """By title, the records of one class to show, without the kinds that need what is not there.

    Args:
        rows: of the class [N].
        confidence: theirs [N], None if there are none; what is not finite is only drawn.
        threshold: the confidence near which to look.
        each: how many of a kind.
        seed: of what is drawn; another for each class.
    """
    order = np.arange(len(rows)) if confidence is None else np.flatnonzero(np.isfinite(confidence))
    made = {}
    for title, key in KINDS.items():
        if key is None:
            made[title] = rows[sample(len(rows), seed, each)]
        elif confidence is not None and len(order):
            distance = key(confidence[order].astype(np.float64), threshold)
            made[title] = rows[order[_smallest(distance, each)]]
    return made


def _smallest(values: npt.NDArray[np.float64], count: int) -> Rows:
    """Where the smallest values are, ascending; of equal ones the first."""
    if len(values) > count:
        bound = np.partition(values, count - 1)[count - 1]
        near = np.flatnonzero(values <= bound)
    else:
        near = np.arange(len(values))
    return near[np.argsort(values[near], kind="stable")][:count]


_Key = Callable[[npt.NDArray[np.float64], float], npt.NDArray[np.float64]]

KINDS: Mapping[str, _Key | None] = {
    "Most confident": lambda confidence, _: -confidence,
    "Least confident": lambda confidence, _: confidence,
    "Around the threshold": lambda confidence, threshold: np.abs(confidence - threshold),
    "Drawn at random": None,
}
"""The kinds of strips: what is least of the records they show."""
