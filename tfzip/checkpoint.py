"""What an unfinished export leaves in its work folder: what it is to be, the items it is of, the shards that are done.

The plan is written before any work, so that whoever comes back can tell whether it is still the same export; a shard
counts as done once its rows are there, which are written last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tfzip import handout, index, interrupt, storage
from tfzip.errors import CorruptError, OutputExistsError
from tfzip.job import Job, shown_function
from tfzip.layout import Layout
from tfzip.options import Options, flag
from tfzip.record import Failure
from tfzip.sources import Listed, Stream, planned
from tfzip.version import __version__

_FREE = frozenset(
    # Options that change no byte of what is written, and those of which the plan says what they come to.
    [
        "overwrite",
        "dry_run",
        "quiet",
        "report",
        "on_error",
        "max_failures",
        "trust_model",
        "imports",
        "weights",
        "predictions",
        "labels",
        "batch_size",
        "parallel",
        "devices",
        "runtime",
        "engine",
    ]
)

_ON_NONFINITE = flag("on_nonfinite")
_FROZEN, _LITE = "the model frozen", "the model run by TensorFlow Lite"


class Done(NamedTuple):
    """One finished shard: what its file holds, how many slots went into it, what failed of them, formats, and rows."""

    records: int
    bytes: int
    sha256: str
    slots: int
    failures: Sequence[Failure]
    formats: Sequence[str]
    part: index.Part


# The plan.


def begin(layout: Layout, job: Job) -> None:
    """Write down what the export is to be."""
    layout.clear()
    if isinstance(job.source, Listed) and job.source.stamps is not None:
        planned.save(layout.work_items, job.source)
    save_plan(layout, job)


def as_planned(layout: Layout, source: Listed | Stream) -> Listed | Stream:
    """The source with the items that the unfinished export in OUT is of, if there is one, and if it noted them."""
    if not isinstance(source, Listed) or source.stamps is None:
        return source
    if storage.exists(layout.work_items):
        with reading(layout.work_items):
            return planned.restore(layout.work_items, source)
    if storage.exists(layout.work_listing):
        with reading(layout.work_listing):
            return planned.as_it_was(handout.collected(layout), source)
    return source


def go_on(layout: Layout, job: Job) -> tuple[Job, list[Done]]:
    """The job with the batch and parallelism of the unfinished export in OUT, and the shards of it that are done.

    Raises OutputExistsError, which names the differences, if that is another export.
    """
    job = same(layout, job)
    if job.predictor.stateful:  # what it says of an image hangs on all that came before
        return job, []
    return job, _done(layout, job.plan.shards if job.plan else None)


def same(layout: Layout, job: Job) -> Job:
    """The job with the batch and parallelism of the unfinished export in OUT.

    Raises OutputExistsError, which names the differences, if that is another export.
    """
    old = _plan(layout.work_plan)
    job, differences = _compared(old, job)
    if differences:
        raise OutputExistsError(
            f"{layout.out} holds an unfinished export of another kind: {'; '.join(differences)}.\n"
            "Call it as it was called before, give another folder, or --overwrite to begin anew"
        )
    if old.get(_ON_NONFINITE) != job.options.on_nonfinite:
        save_plan(layout, job)
    return job


def differences(layout: Layout, job: Job) -> tuple[Job, list[str]]:
    """The job as `same` gives it, and how it is another than that in OUT, which is left as it is."""
    return _compared(_plan(layout.work_plan), job)


def is_of(layout: Layout, job: Job) -> bool:
    """Whether what is published in OUT, but not tidied up, is the export that the job is to make."""
    return not _compared(_plan(layout.published_plan), job)[1]


def _compared(old: Mapping[str, Any], job: Job) -> tuple[Job, list[str]]:
    """The job run as a plan says, and what else of it is different."""
    if old.get(_ON_NONFINITE) == "fail":  # then the finished shards hold nothing that could be kept or left out
        old = {**old, _ON_NONFINITE: job.options.on_nonfinite}
    kept: dict[str, Any] = {n: old[n] for n in ("batch_size", "parallel") if getattr(job.options, n) == "auto"}
    job = _as_it_ran(dataclasses.replace(job, **kept), old)
    return job, list(_differences(old, json.loads(json.dumps(_facts(job)))))


@interrupt.put_off()
def _as_it_ran(job: Job, old: Mapping[str, Any]) -> Job:
    """The job with its model frozen if it was then, and computed by what computed it."""
    from tfzip import predictor  # here, since it imports TensorFlow

    ready, asked = job.predictor, job.options.runtime
    if old.get(_FROZEN):
        ready = predictor.freeze(ready)
    if asked == "lite" or (asked == "auto" and old.get(_LITE)):
        ready = predictor.lighten(ready, job.parallel)
    return dataclasses.replace(job, predictor=ready)


def save_plan(layout: Layout, job: Job) -> None:
    """Write down what the bytes of the export depend on, but for its items: from then on it can be gone on with."""
    storage.write_whole(layout.work_plan, json.dumps(_facts(job), indent=2).encode())


def _plan(path: str) -> dict[str, Any]:
    with reading(path), storage.open(path, "r") as file:
        plan = dict(json.loads(file.read()))
        return {**plan, **{name: int(plan[name]) for name in ("batch_size", "parallel")}}


@contextlib.contextmanager
def reading(path: str) -> Iterator[None]:
    """What goes wrong while a file of the work folder is read becomes a CorruptError."""
    try:
        yield
    except (ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile):
        raise CorruptError(f"{path} is damaged: --overwrite begins the unfinished export anew") from None


def _facts(job: Job) -> dict[str, Any]:
    """All that the bytes of an export depend on, but for its items."""
    import tensorflow as tf

    from tfzip import devices  # which imports TensorFlow too

    options, ready = job.options, job.predictor
    chosen = {flag(name): _shown(getattr(options, name)) for name in _names(Options) if name not in _FREE}
    return {
        "tfzip": __version__,
        "TensorFlow": tf.__version__,
        **chosen,
        "the kind of source": job.source.kind,
        **{f"the source's {name}": value for name, value in job.source.state.items()},
        "the model": ready.fingerprint,
        "the task": job.task.name,
        "the class names": list(job.names),
        "batch_size": job.batch_size,
        "parallel": job.parallel,
        _FROZEN: ready.frozen,
        _LITE: ready.lite or options.runtime == "lite",
        "the kind of device": devices.kind(job.devices),
    }


def _names(kind: Any) -> Iterator[str]:
    return (field.name for field in dataclasses.fields(kind))


def _shown(value: Any) -> Any:
    if callable(value):
        return shown_function(value)
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name), new.get(name)
        if was == now:
            continue
        shown = flag(name) if name in ("batch_size", "parallel") else name
        brief = all(isinstance(value, (str, int, float, type(None))) and len(str(value)) < 40 for value in (was, now))
        yield f"{shown} was {_told(was)}, is {_told(now)}" if brief else f"{shown} changed"


def _told(value: Any) -> str:
    return "not given" if value is None else str(value)


# The shards that are done.


def save_shard(
    layout: Layout, shard: int, notes: Mapping[str, Any], columns: Mapping[str, Any], texts: Mapping[str, Any]
) -> Done:
    """Leave a finished shard's rows for the index, and with them what makes it count as finished.

    Args:
        layout: of the export.
        shard: its number.
        notes: the first fields of `Done`.
        columns: as `index.save_part` has them.
        texts: likewise.
    """
    index.save_part(layout.work_rows(shard), columns, texts, notes)
    return Done(**notes, part=index.Part(layout.work_rows(shard), shard))


def _done(layout: Layout, shards: int | None) -> list[Done]:
    """The first shards of the unfinished export, as far as they are finished and still there.

    Args:
        layout: of the export.
        shards: how many there are to be; None if only the end tells.
    """
    noted = list(_noted(layout))
    total = len(noted) if shards is None else shards
    whole = itertools.takewhile(lambda each: _is_there(layout, *each, total), enumerate(noted))
    return [done for _, done in whole]


def _noted(layout: Layout) -> Iterator[Done]:
    for shard in itertools.count():
        if (done := _noted_of(layout, shard)) is None:
            return
        yield done


def is_done(layout: Layout, shard: int, total: int) -> bool:
    """Whether a shard, of so many, is finished and still there."""
    done = _noted_of(layout, shard)
    return done is not None and _is_there(layout, shard, done, total)


def _noted_of(layout: Layout, shard: int) -> Done | None:
    """What is noted of a shard; None if nothing is, or if that is damaged: then it is made again."""
    path = layout.work_rows(shard)
    if not storage.exists(path):
        return None
    try:
        with reading(path):
            return _noted_in(index.Part(path, shard))
    except CorruptError:
        return None


def _noted_in(part: index.Part) -> Done:
    part.check()
    notes = part.notes
    notes["failures"] = [Failure(*failure) for failure in notes["failures"]]
    return Done(**notes, part=part)


def _is_there(layout: Layout, shard: int, done: Done, total: int) -> bool:
    """Whether a shard's file is as long as it was, at work or already in its place."""
    places = (layout.work_shard(shard), storage.join(layout.out, layout.shard_file(shard, total)))
    return done.bytes in map(storage.size, places)
