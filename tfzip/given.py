"""Predictions made elsewhere, as they come: an array in the source's order, or a table with filenames."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tfzip import naming, storage
from tfzip.errors import SourceError
from tfzip.sources.columns import column_of
from tfzip.sources.table import FILENAME_COLUMNS, check_unique, read_columns


@dataclass(frozen=True)
class Given:
    """Predictions, one an item.

    `scores` [N, classes] or None; `columns` what is known otherwise: `label`, `text`, `confidence`, all [N] or missing.
    `rows` finds the row of a filename; None where row i is of the source's item i. `names` are class names, if the
    predictions bring them. If `brought`, items have them already, and the arrays only tell what they are like.
    """

    name: str
    scores: npt.NDArray[Any] | None = None
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    rows: Mapping[bytes, int] | None = None
    names: Sequence[str] = ()
    path: str | None = None
    brought: bool = False

    @property
    def classes(self) -> int:
        """The number of scores of an item, 0 if there are none."""
        return 0 if self.scores is None else self.scores.shape[1]

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the file."""
        if self.path is None:
            return None
        digest = hashlib.sha256()
        with storage.open(self.path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.scores) if self.scores is not None else len(next(iter(self.columns.values())))


# Reading.


def load(path: str | os.PathLike[str]) -> Given:
    """Predictions from a `.npy` file of scores or labels in source order, or from a table (`.csv`, `.jsonl`).

    An array is float [N, classes], [N, 1] or [N] (the probability or logit of the second class), or int [N]: labels. A
    table has a column of filenames, and `prediction` (the class's name) or `label` (its number or name), and
    `confidence` if it likes; or `scores`, a list; or a column of scores for each class, named so. A row where that is
    empty is no prediction.

    Raises SourceError for a file that cannot be read so.
    """
    shown = os.fspath(path)
    if not storage.exists(shown):
        raise SourceError(f"{shown}: no such file")
    if shown.endswith(".npy"):
        return _from_array(shown)
    if shown.endswith((".csv", ".jsonl", ".ndjson")):
        return _from_table(shown)
    raise SourceError(f"{shown}: predictions are a .npy, .csv or .jsonl file")


def _from_array(path: str) -> Given:
    try:
        if storage.is_local(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        else:
            with storage.open(path, "rb") as file:
                array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise SourceError(f"{path}: not a .npy file that can be read ({error})") from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise SourceError(f"{path}: not a .npy file, but an archive of such")
    if array.dtype.kind in "iu" and array.ndim == 1:
        return Given(path, columns={"label": np.asarray(array, np.int64)}, path=path)
    if array.dtype.kind == "f" and array.ndim in (1, 2) and array.size:
        return Given(path, scores=array.reshape(len(array), -1), path=path)
    shape = "x".join(map(str, array.shape))
    raise SourceError(f"{path} holds {array.dtype} {shape}: give float [N, classes], float [N] or int [N]")


_TELLING = ("scores", "prediction", "label")
"""The columns that hold a prediction; without one of them, all columns of numbers are scores."""


def _from_table(path: str) -> Given:
    columns, lines = read_columns(path)
    filenames = _filenames(path, columns, lines)
    telling = next((name for name in _TELLING if name in columns), None)
    kept = [row for row in range(len(filenames)) if telling is None or columns[telling][row] is not None]
    columns = {name: [values[row] for row in kept] for name, values in columns.items()}
    common: dict[str, Any] = {"rows": {filenames[row]: place for place, row in enumerate(kept)}, "path": path}
    if telling is None:
        names, scores = _score_columns(path, filenames, columns)
        return Given(path, scores=scores, names=names if len(names) > 1 else (), **common)
    if telling == "scores":
        return Given(path, scores=_score_lists(path, columns["scores"]), **common)
    if telling == "label" and (others := [name for name in _numbers(columns) if name not in ("label", "confidence")]):
        raise SourceError(
            f"{path}: is its label the prediction, or are {', '.join(others)}? Call the label prediction, or drop it"
        )
    return Given(path, columns=_labelled(columns), **common)


def _filenames(path: str, columns: dict[str, list[Any]], lines: Sequence[int]) -> list[bytes]:
    """The filenames, which are taken out of the columns."""
    if not columns:
        raise SourceError(f"{path}: it has no rows")
    usual = {name.lower(): name for name in reversed(list(columns))}
    named = next((usual[name] for name in FILENAME_COLUMNS if name in usual), None)
    if named is None:
        raise SourceError(f"{path}: none of its columns {', '.join(columns)} is named filename")
    values = columns.pop(named)
    if None in values:
        raise SourceError(f"{path}, line {lines[values.index(None)]}: it has no {named}")
    filenames = [naming.to_bytes(str(value)) for value in values]
    check_unique(path, filenames, lines)
    return filenames


def _labelled(columns: Mapping[str, Sequence[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns `label`, `text` and `confidence` of a table that names the class."""
    found: dict[str, npt.NDArray[Any]] = {}
    labels = column_of(columns.get("label", ()))
    if labels.dtype.kind == "i":
        found["label"] = labels
    texts = columns.get("prediction", None if found else columns.get("label"))
    if texts is not None:
        found["text"] = np.array([naming.to_bytes(str(text)) for text in texts], object)
    confidence = column_of(columns.get("confidence", ()))
    if confidence.dtype.kind in "if":
        found["confidence"] = confidence.astype(np.float32)
    return found


def _score_lists(path: str, values: Sequence[Any]) -> npt.NDArray[np.float32]:
    try:
        scores = np.array(values, np.float32)
    except (ValueError, TypeError):
        scores = np.empty(0, np.float32)
    if scores.ndim != 2 or not scores.size:
        raise SourceError(f"{path}: its scores are not lists of numbers of one length")
    return scores


def _numbers(columns: Mapping[str, Sequence[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The columns that hold numbers."""
    typed = {name: column_of(values) for name, values in columns.items()}
    return {name: column for name, column in typed.items() if column.dtype.kind in "if"}


def _score_columns(
    path: str, filenames: Sequence[bytes], columns: Mapping[str, Sequence[Any]]
) -> tuple[list[str], npt.NDArray[np.float32]]:
    """The names of the columns of numbers, and these [rows, columns]; a column of texts is none of them."""
    numbers = _numbers(columns)
    if not numbers:
        raise SourceError(f"{path}: it has no column {', '.join(_TELLING)}, and none of numbers")
    for name, values in columns.items():
        lacking = [row for row, value in enumerate(values) if not _numbers({name: [value]})]
        if lacking and len(lacking) < len(values):
            shown = "no" if values[lacking[0]] is None else f"{values[lacking[0]]!r} as"
            raise SourceError(f"{path}: the row of {naming.to_text(filenames[lacking[0]])} has {shown} {name}")
    return list(numbers), np.stack(list(numbers.values()), axis=1).astype(np.float32)
