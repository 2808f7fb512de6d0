"""What came of the batches of an export, and what can only be seen over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import join, naming
from tfzip.checkpoint import Done
from tfzip.errors import BrokenSourceError, DataError
from tfzip.job import Job
from tfzip.plan import Positions
from tfzip.record import Failure
from tfzip.sources import Listed, Stream

Rows = dict[str, npt.NDArray[Any]]
"""What a batch gives: `slot`, `serialized`, and the columns of the index, all of one length."""


class Outcome(NamedTuple):
    """What came of one batch: the slots of its items, the rows of those that gave a record, and the failures."""

    slots: npt.NDArray[np.int64]
    rows: Rows
    failures: list[Failure]


NONFINITE = "its prediction is not a number: it holds NaN or infinity"


def sifted(outcome: Outcome, on_nonfinite: str) -> Outcome:
    """The outcome, rows failed whose prediction is not finite unless these are to `keep`; DataError if to `fail`."""
    slots, rows, failures = outcome
    odd = np.flatnonzero(rows["nonfinite"])
    if on_nonfinite == "keep" or not len(odd):
        return outcome
    names = [naming.to_str(name) for name in rows["filename"][odd].tolist()]
    if on_nonfinite == "fail":
        raise DataError(f"{naming.shown(names[0])}: {NONFINITE} (--on-nonfinite keep or quarantine goes on)")
    kept = {name: np.delete(values, odd, axis=0) for name, values in rows.items()}
    return Outcome(slots, kept, failures + [Failure(name, "predict", NONFINITE) for name in names])


class Watch:
    """Looks at every batch of an export: whether names come twice, and the source gives what it should.

    It knows of the shards that are done already.
    """

    def __init__(self, job: Job, done: Sequence[Done]) -> None:
        self._job, self._names, self._coverage, self._past = job, _Names(), _coverage(job), _Past(job, done)
        self._first = sum(shard.slots for shard in done)
        self._seen = 0 if isinstance(job.source, Stream) else self._first
        for shard in done:
            self._note(shard)

    def _note(self, shard: Done) -> None:
        if self._coverage or not self._job.source.unique:
            filenames, slots = shard.part.texts("filename")[0].split(), shard.part.column("slot")
            self._names.first({"filename": np.array(filenames, object)}, self._job.positions(slots))
            self._cover(shard.slots, filenames, shard.failures)

    def _cover(self, slots: int, filenames: Sequence[bytes], failures: Iterable[Failure]) -> None:
        if self._coverage:
            failed = [naming.to_bytes(failure.filename) for failure in failures if failure.stage != "read"]
            self._coverage.add(slots, [*filenames, *failed])

    def see_again(self, slots: npt.NDArray[np.int64], hashes: Rows) -> None:
        """Look at a batch of a stream that is done already; BrokenSourceError if it is not the one that it was."""
        self._seen += len(slots)
        self._past.check(slots, hashes)

    def see(self, outcome: Outcome) -> Outcome:
        """The outcome, rows failed whose name came before; UsageError if an item has no prediction made elsewhere."""
        slots, rows, failures = outcome
        self._seen += len(slots)
        self._cover(len(slots), rows["filename"].tolist(), failures)
        if self._job.source.unique:
            return outcome
        rows, repeated = self._names.first(rows, self._job.positions(rows["slot"]))
        place = self._job.source.place
        twice = [
            Failure(name, "read", f"{place(here)} has the name of {place(first)}") for name, here, first in repeated
        ]
        return Outcome(slots, rows, failures + twice)

    def finish(self) -> None:
        """BrokenSourceError if the source gave fewer or more than it said; UsageError if predictions are left over."""
        job = self._job
        said = None if job.images is None else job.images - len(job.source.rejected)
        if said is not None and self._seen < said:
            raise BrokenSourceError(f"{job.source.name} ended after {self._seen} of its {said} images")
        if said is not None and self._seen > said:
            raise BrokenSourceError(f"{job.source.name} gave {self._seen} images, though it said that it has {said}")
        if self._seen < self._first:
            raise BrokenSourceError(f"{job.source.name} ended after {self._seen} images; it gave {self._first} before")
        if self._coverage and job.options.limit is None and job.options.skip_in is None:
            self._coverage.finish()


def _coverage(job: Job) -> join.Coverage | None:
    """What watches over predictions made elsewhere; None if they are known to be of the source's images."""
    made, source = job.given, job.source
    if made is None or made.brought or job.options.allow_partial:
        return None
    by_name = made.rows is not None
    known = (source.unique or not by_name) if isinstance(source, Listed) else not by_name and source.count is not None
    return None if known else join.Coverage(made, source)


class _Names:
    """The filenames that have come so far, as 64-bit hashes with their positions: sorted runs of doubling length."""

    def __init__(self) -> None:
        self._runs: list[tuple[npt.NDArray[np.int64], Positions]] = []

    def first(self, rows: Rows, positions: Positions) -> tuple[Rows, list[tuple[str, int, int]]]:
        """The rows whose filename is new; of each other its name, its position, and that of the first of that name."""
        hashes = np.fromiter(map(hash, rows["filename"].tolist()), np.int64, len(rows["filename"]))
        found, firsts, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        earlier = positions[firsts]
        new = np.ones(len(found), bool)
        for run, places in self._runs:
            at = np.minimum(np.searchsorted(run, found), len(run) - 1)
            held = run[at] == found
            earlier[held], new[held] = places[at][held], False
        self._add(found[new], earlier[new])
        repeated = np.flatnonzero(earlier[inverse] != positions)
        if not len(repeated):
            return rows, []
        names = [naming.to_str(name) for name in rows["filename"][repeated]]
        kept = {name: np.delete(values, repeated, axis=0) for name, values in rows.items()}
        return kept, list(zip(names, positions[repeated].tolist(), earlier[inverse][repeated].tolist(), strict=True))

    def _add(self, run: npt.NDArray[np.int64], places: Positions) -> None:
        while self._runs and len(self._runs[-1][0]) <= len(run):
            other, others = self._runs.pop()
            run, places = np.concatenate([other, run]), np.concatenate([others, places])
            order = np.argsort(run)
            run, places = run[order], places[order]
        if len(run):
            self._runs.append((run, places))


class _Past:
    """What a stream gave before: told by hashes, so that it shows if it now gives something else."""

    def __init__(self, job: Job, done: Sequence[Done]) -> None:
        self._name = job.source.name
        self._slots, self._hashes = np.empty(0, np.int64), np.empty(0, np.int64)
        if isinstance(job.source, Stream) and done:
            self._slots, self._hashes = (np.concatenate([d.part.column(c) for d in done]) for c in ("slot", "hash"))

    def check(self, slots: npt.NDArray[np.int64], hashes: Rows) -> None:
        """Raise BrokenSourceError unless the items of a batch that gave records before are there again."""
        begin, end = np.searchsorted(self._slots, [slots[0], slots[-1] + 1])
        now = dict(zip(hashes["slot"].tolist(), hashes["hash"].tolist(), strict=True))
        for slot, before in zip(self._slots[begin:end].tolist(), self._hashes[begin:end].tolist(), strict=True):
            if now.get(slot) != before:
                raise BrokenSourceError(
                    f"{self._name}: its image {slot} is not the one that the unfinished export holds; "
                    "give the same images as before, or remove that folder"
                )
