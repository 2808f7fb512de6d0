"""`tfzip.zip`: predictions, filenames and images that were made one after the other, paired strictly."""

from __future__ import annotations

import builtins
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfzip.errors import UsageError

_END = object()


def zip(  # noqa: A001 - tfzip.zip, as the builtin
    predictions: Iterable[Any], filenames: Iterable[Any], images: Iterable[Any]
) -> Iterator[tuple[Any, str | bytes, Any]]:
    """Yield `(prediction, filename, image)`, one of each at a time; nothing is held in memory.

    Args:
        predictions: of each image its scores [classes], one score, a label or a class's name.
        filenames: unique names.
        images: encoded bytes, uint8 arrays [H, W, C], or paths.

    Each may be a list, an array, a generator, or give batches of them; then all three do.

    Raises UsageError where one ends before the others.
    """
    return singly(_strict([iter(predictions), iter(filenames), iter(images)], ""))


def singly(triples: Iterable[Sequence[Any]]) -> Iterator[tuple[Any, str | bytes, Any]]:
    """Triples one by one: those that are whole batches taken apart, strictly; tensors as NumPy has them."""
    for number, triple in enumerate(triples):
        prediction, filename, image = map(_plain, triple)
        if isinstance(filename, (str, bytes, os.PathLike)) or not isinstance(filename, Iterable):
            yield prediction, _name(filename), image
        else:
            batch = [iter(part) for part in (prediction, filename, image)]
            for one, name, picture in _strict(batch, f" in batch {number}"):
                yield one, _name(name), picture


def _plain(part: Any) -> Any:
    return part.numpy() if hasattr(part, "numpy") else part


def _name(name: Any) -> Any:
    """A path as text; what is no filename stays, for the item to be told."""
    return os.fspath(name) if isinstance(name, os.PathLike) else name


def _strict(iterators: list[Iterator[Any]], where: str) -> Iterator[list[Any]]:
    """Rows until all end at once."""
    count = 0
    while True:
        row = [next(iterator, _END) for iterator in iterators]
        ended = [part is _END for part in row]
        if all(ended):
            return
        if any(ended):
            parts = ("predictions", "filenames", "images")
            short = " and ".join(name for name, end in builtins.zip(parts, ended, strict=True) if end)
            longer = " and ".join(name for name, end in builtins.zip(parts, ended, strict=True) if not end)
            raise UsageError(f"the {short} end after {count}{where}, but there are more {longer}")
        yield row
        count += 1
