"""Class names: from a file or list given, else from the model itself, else from the source's own classes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from tfzip import naming, storage
from tfzip.errors import UsageError


class ClassNames:
    """The names of classes, from the first who knows them.

    Args:
        given: path of a file of one name a line, or the names; None: they are not given.
        model: those that the model brings along; empty if none.
        classes: those of the source, in order; empty if it knows none.
    """

    def __init__(
        self,
        given: str | os.PathLike[str] | Sequence[str] | None,
        model: Sequence[str] = (),
        classes: Iterable[bytes] = (),
    ) -> None:
        self._given = None if given is None else _read_given(given)
        self._shown = os.fspath(given) if isinstance(given, (str, os.PathLike)) else "labels"
        self._known = {"file" if isinstance(given, (str, os.PathLike)) else "option": self._given or ()}
        self._known |= {"model": tuple(model), "source": tuple(map(naming.to_text, classes))}

    def of(self, classes: int) -> tuple[str, ...]:
        """The names of so many classes; empty if not known, an error if given but not so many."""
        if self._given is not None and len(self._given) != classes:
            raise UsageError(f"{self._shown}: {len(self._given)} labels, but the model has {classes} classes")
        return next((names for names in self._known.values() if len(names) == classes), ())

    def of_ids(self) -> tuple[str, ...]:
        """The names of ids that may be any number: those given, or the model's own; the source's are not its ids."""
        return self._given or self._known["model"]

    def any(self) -> tuple[str, ...]:
        """The names that are known first, of however many classes."""
        return next(filter(None, self._known.values()), ())

    def origin(self, names: Sequence[str]) -> str:
        """Who knew these names: `file`, `option`, `model`, `source`; `none` if there are none."""
        return next((origin for origin, known in self._known.items() if names and known == names), "none")


def _read_given(given: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    if isinstance(given, (str, os.PathLike)):
        return read(os.fspath(given))
    names = tuple(given)
    if not all(isinstance(name, str) and "\n" not in name for name in names):
        raise UsageError("labels: give one string of one line for each class")
    return names


def read(path: str) -> tuple[str, ...]:
    """The names in a text file, one a line; the i-th line, counted from 0, is class i."""
    try:
        with storage.open(path, "r") as file:
            lines = file.read().lstrip("\ufeff").replace("\r\n", "\n").rstrip("\n").split("\n")
            return tuple(line.rstrip("\r") for line in lines)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot read labels from it ({error})") from None
