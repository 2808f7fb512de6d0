"""A listed source as it was when its export was begun, whatever has come, gone or changed since."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tfzip import storage
from tfzip.index import save_arrays
from tfzip.metadata import Texts
from tfzip.record import Failure, FeatureSpec
from tfzip.sources.source import Listed

if TYPE_CHECKING:
    import tensorflow as tf

    from tfzip.sources.source import Element

GONE, CHANGED = 1, 2
ENDS = "ends "
"""Before the name of an array of texts, where they end: no column of a table has a name that begins so here."""
_PROBLEMS = ("", "it vanished since the export was begun", "it changed since the export was begun")


def save(path: str, source: Listed) -> None:
    """Note the items of a source, in a file that is there whole or not at all."""
    noted: dict[str, Any] = {"filenames": source.filenames, "sizes": source.sizes, "stamps": source.stamps}
    noted |= {name: values for name in ("truths", "classes") if (values := getattr(source, name)) is not None}
    noted |= {f"column {name}": values for name, values in source.columns.items()}
    arrays: dict[str, Any] = {}
    for name, values in noted.items():
        is_text = not isinstance(values, np.ndarray) or values.dtype == object
        arrays |= as_arrays(name, list(values)) if is_text else {name: values}
    notes = {
        "texts": [name for name in noted if ENDS + name in arrays],
        "columns": list(source.columns),
        "features": source.features,
        "rejected": source.rejected,
        "ignored": source.ignored,
    }
    save_arrays(path, {**arrays, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8)})


def restore(path: str, source: Listed) -> Listed:
    """The source with the items that were noted, in their order.

    One that is gone, or has another size or time of its last change than it had, fails when it is read.
    """
    with storage.open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
        noted: dict[str, Any] = {name: arrays[name] for name in arrays.files}
    notes = json.loads(noted.pop("notes").tobytes())
    for name in notes["texts"]:
        noted[name] = Texts(noted[name], noted.pop(ENDS + name)).split()
    columns = {name: noted[f"column {name}"] for name in notes["columns"]}
    then = dataclasses.replace(
        source,
        filenames=noted["filenames"],
        sizes=noted["sizes"],
        stamps=noted["stamps"],
        truths=noted.get("truths"),
        classes=noted.get("classes"),
        columns={name: np.array(v, object) if isinstance(v, list) else v for name, v in columns.items()},
        features={name: FeatureSpec(dtype, tuple(shape)) for name, (dtype, shape) in notes["features"].items()},
        rejected=[Failure(*failure) for failure in notes["rejected"]],
        ignored=notes["ignored"],
    )
    return as_it_was(then, source)


def as_arrays(name: str, texts: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """Texts as two arrays: all end to end, and where each ends."""
    all_of_them = Texts.of(texts)
    return {name: all_of_them.data, ENDS + name: all_of_them.ends}


def as_it_was(then: Listed, now: Listed) -> Listed:
    """A source as it was then, its items read as they lie now; see `restore`."""
    places, problems = _compare(then, now)
    return dataclasses.replace(
        then,
        kind=now.kind,
        name=now.name,
        state=now.state,
        access=now.access,
        reader=lambda: _reader(now, places, problems),
    )


def _compare(then: Listed, now: Listed) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each item lies now, and what is the matter with it: a row of _PROBLEMS."""
    here = {name: place for place, name in enumerate(now.filenames)}
    found = np.array([here.get(name, -1) for name in then.filenames], np.int64)
    places = np.maximum(found, 0)
    assert now.stamps is not None
    is_same = (now.sizes[places] == then.sizes) & (now.stamps[places] == then.stamps)
    return places, np.where(found < 0, GONE, np.where(is_same, 0, CHANGED))


def _reader(
    source: Listed, places: npt.NDArray[np.int64], problems: npt.NDArray[np.int64]
) -> Callable[[tf.Tensor], Element]:
    import tensorflow as tf

    read, here = source.reader(), tf.constant(places)

    def read_here(position: tf.Tensor) -> Element:
        return read(tf.gather(here, position))

    return checked(read_here, problems) if problems.any() else read_here


def checked(
    read: Callable[[tf.Tensor], Element], problems: npt.NDArray[np.int64] | tf.Tensor
) -> Callable[[tf.Tensor], Element]:
    """A reader that fails for the items that have a problem: GONE or CHANGED, 0 for none."""
    import tensorflow as tf

    problem = tf.convert_to_tensor(problems)

    def read_the_same(position: tf.Tensor) -> Element:
        found = tf.gather(problem, position)
        tf.raw_ops.Assert(condition=found == 0, data=[tf.gather(_PROBLEMS, found)])
        return read(position)

    return read_the_same
