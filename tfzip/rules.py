"""The rules of a selection, checked before any work; what they are by default is known without NumPy."""

from __future__ import annotations

import math
import numbers
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfzip.errors import UsageError
from tfzip.options import flag

if TYPE_CHECKING:
    from tfzip.read import Export

COMBINE = ("mean", "agree")
OTHERS = "*"
"""Among the confidences of single classes: that of all others."""

FITTED = 100_000
"""Rows that a temperature is fitted to at most: all others would change it by some thousandths."""
VALIDATION = "validation"
"""The split that holds what is for validation, if it is given no other name."""

_TEMPERATURES = (sys.float_info.min, sys.float_info.max)


@dataclass(frozen=True)
class Rules:
    """How to select; the names and defaults are those of `tfzip select`, whose help tells what each does.

    `min_confidence` is one number, or one for each class by name or label (`"*"` for the others). `others` are exports
    of the same images, or their paths.
    """

    min_confidence: float | Mapping[str | int, float] = 0.0
    adaptive: float | None = None
    min_margin: float = 0.0
    max_entropy: float | None = None
    per_class: int | None = None
    balance: bool = False
    limit: int | None = None
    use_truth: bool = False
    soft: bool = False
    temperature: float = 1.0
    calibrate: bool = False
    others: Sequence[str | os.PathLike[str] | Export] = ()
    combine: str = "mean"
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._settle_numbers()
        self._settle_others()
        for name in ("balance", "use_truth", "soft", "calibrate"):
            self._settle(name, _switch(name, getattr(self, name)))
        if self.combine not in COMBINE:
            raise UsageError(f"--combine {self.combine}: give {' or '.join(COMBINE)}")
        self._check_combinations()

    def _settle(self, name: str, value: Any) -> None:
        """Keep what was given as a plain value, which the manifest can hold."""
        object.__setattr__(self, name, value)

    def _settle_numbers(self) -> None:
        least = self.min_confidence
        if isinstance(least, Mapping):
            self._settle("min_confidence", {name: _share("min_confidence", value) for name, value in least.items()})
        else:
            self._settle("min_confidence", _share("min_confidence", least))
        for name in ("min_margin", "validation", "adaptive"):
            if name != "adaptive" or self.adaptive is not None:
                self._settle(name, _share(name, getattr(self, name)))
        for name in ("per_class", "limit"):
            if getattr(self, name) is not None:
                self._settle(name, _whole(name, getattr(self, name), 1, "from 1 on"))
        self._settle("seed", _whole("seed", self.seed, 0, "from 0 on", 2**128))
        if self.max_entropy is not None:
            self._settle("max_entropy", _number("max_entropy", self.max_entropy, 0, math.inf, "from 0 on, in nats"))
        self._settle("temperature", _number("temperature", self.temperature, *_TEMPERATURES, "above 0"))

    def _settle_others(self) -> None:
        from tfzip.read import Export

        others: Any = self.others
        if isinstance(others, (str, os.PathLike, Export)) or not isinstance(others, Iterable):
            raise UsageError(f"--with {others}: give a list of exports")
        self._settle("others", tuple(others))
        for other in self.others:
            if not isinstance(other, (str, os.PathLike, Export)):
                raise UsageError(f"--with {other!r}: give exports, or their paths")

    def _check_combinations(self) -> None:
        if self.temperature != 1 and not self.soft:
            raise UsageError("--temperature has no effect without --soft")
        if self.combine != "mean" and not self.others:
            raise UsageError("--combine has no effect without --with, another export of the same images")
        if self.calibrate and self.combine == "agree":
            raise UsageError("--calibrate and --combine agree: give one of them; it is the mean that can be calibrated")


def _number(name: str, value: Any, least: float, most: float, wanted: str) -> float:
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or not least <= float(value) <= most:
        raise UsageError(f"{flag(name)} {value!r}: give a number {wanted}")
    return float(value)


def _share(name: str, value: Any) -> float:
    return _number(name, value, 0, 1, "from 0 to 1")


def _whole(name: str, value: Any, least: int, wanted: str, most: int = 2**62) -> int:
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or not least <= int(value) <= most:
        raise UsageError(f"{flag(name)} {value!r}: give a whole number {wanted}")
    return int(value)


def _switch(name: str, value: Any) -> bool:
    import numpy as np

    if not isinstance(value, (bool, np.bool_)):
        raise UsageError(f"{flag(name)} {value!r}: it is True or False")
    return bool(value)
