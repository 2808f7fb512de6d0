"""Values that a table or sidecar files hold, made into columns: of one type each, and truths."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip.naming import to_bytes
from tfzip.record import UNKNOWN

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)", re.ASCII)  # 007 is a text: its zeros say something
_FLOAT = re.compile(
    r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.ASCII | re.IGNORECASE
)
_LARGEST = float(np.finfo(np.float32).max)
_EXACT = 2**24  # floats hold every integer up to this


class Truths(NamedTuple):
    """What is known of the truth of every item: texts, with the classes they may be, or labels; neither if nothing."""

    texts: list[bytes] | None
    classes: list[bytes] | None
    labels: Mapping[str, npt.NDArray[np.int64]]


def truths_of(values: Sequence[Any] | None) -> Truths:
    """Truths from the values of a column, None where one is not known: labels if all are whole numbers, else texts."""
    if values is None or all(value is None for value in values):
        return Truths(None, None, {})
    known = column_of([value for value in values if value is not None])
    if known.dtype.kind == "i":
        labels = np.full(len(values), UNKNOWN, np.int64)
        labels[[row for row, value in enumerate(values) if value is not None]] = known
        return Truths(None, [], {"truth": labels})
    texts = [b"" if value is None else _text(value) for value in values]
    return Truths(texts, sorted(set(texts) - {b""}), {})


def column_of(values: Sequence[Any]) -> npt.NDArray[Any]:
    """The values as int64 if all are whole numbers, float32 if all are numbers, else as bytes.

    Numbers may be written as text, as in CSV. None is an empty text, or NaN among floats; among whole numbers that a
    float holds exactly it makes them floats.
    """
    some = [value for value in values if value is not None]
    if some and all(_is_integer(value) for value in some):
        whole = [int(value) for value in some]
        if len(some) == len(values):
            return np.array(whole, np.int64)
        if all(-_EXACT <= value <= _EXACT for value in whole):
            return _floats(values)
    elif some and all(_is_number(value) for value in some):
        return _floats(values)
    return np.array([b"" if value is None else _text(value) for value in values], object)


def _floats(values: Sequence[Any]) -> npt.NDArray[np.float32]:
    return np.array([math.nan if value is None else float(value) for value in values], np.float32)


def _is_integer(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 20 and _INTEGER.fullmatch(value) is not None and _is_integer(int(value))
    return isinstance(value, int) and -(2**63) <= value < 2**63


def _is_number(value: Any) -> bool:
    """Whether a float32 holds the value, but for digits; of a whole number it has to hold an int64."""
    if isinstance(value, int) or (isinstance(value, str) and _INTEGER.fullmatch(value)):
        return _is_integer(value)
    if isinstance(value, float) or (isinstance(value, str) and _FLOAT.fullmatch(value)):
        return not math.isfinite(float(value)) or abs(float(value)) <= _LARGEST
    return False


def _text(value: Any) -> bytes:
    return to_bytes(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
