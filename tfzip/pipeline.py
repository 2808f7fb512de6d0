"""The graph put together, and what comes out of it put in order.

    items -> read -> decode -> batch -> predict -> encode -> rows

An item that fails in the graph vanishes from its batch (`ignore_errors` costs nothing); since every batch comes out
beside the items that it was made of, it shows. If nothing seems to be wrong with it, its batch is done once more, so
that a fault that passes changes no bit; if it is still lost, it is done alone, to learn why, and kept if that succeeds.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import decode, encode, foreign, join, naming, predict, truth
from tfzip.errors import BrokenSourceError, TfzipError
from tfzip.job import Job
from tfzip.plan import Positions
from tfzip.record import Failure
from tfzip.sources import Element, Listed, Stream

Rows = dict[str, npt.NDArray[Any]]
"""What a batch gives: `slot`, `serialized`, and the columns of the index, all of one length."""


class Stages:
    """The functions that the graph is made of, each from element to element; also called one by one, by hand."""

    def __init__(self, job: Job) -> None:
        ready, options = job.predictor, job.options
        self._job = job
        self._read = _reader(job)
        self._find = _unchanged if job.given is None else join.finder(job.given)
        self._decode = decode.decoder(
            ready.input.size,
            ready.input.channels,
            ready.input.dtype,
            resize=options.resize,
            interpolation=options.interpolation,
            exif_orientation=options.exif_orientation,
            alpha=options.alpha,
            reencode=options.reencode,
        )
        if job.given is None:
            self._predict = predict.predicter(ready, job.prepare, job.task)
        else:
            self._predict = join.predicter(job.task)
        carried = job.source.carried
        self._encode = encode.encoder(
            job.written,
            job.reparsed,
            brought=carried.features if carried and carried.whole else (),
            index_scores=job.index_scores,
        )

    def dataset(self) -> Any:
        """The whole graph: a pair for every batch, in order: its items as the source has them, and its rows."""
        job, batch = self._job, self._batch
        if job.predictor.stateful:  # even one parallel call begins the next batch before this one is done
            batches = _items(job).flat_map(_as_it_is(batch))
        else:  # a thread makes a whole batch: handing each image to another costs as much as decoding a small one
            batches = _items(job).interleave(_as_it_is(batch), job.parallel, 1, job.parallel, deterministic=True)
        options = tf.data.Options()
        # A batch a core, each on one thread: faster than all cores on one batch, and the same bits whatever `parallel`.
        options.threading.max_intra_op_parallelism = 1
        options.deterministic = True
        # There is nothing to tune or rewrite, and the thread that would tune can hold up the end by five seconds.
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        return batches.prefetch(2 * job.parallel).with_options(options)

    def _batch(self, items: Element) -> Any:
        """A dataset of one pair: the items, and the rows of those that did not fail."""
        decoded = tf.data.Dataset.from_tensor_slices(items).map(_as_it_is(self._read_and_decode))
        rows = decoded.ignore_errors().batch(self._job.batch_size).map(_as_it_is(self._predict_and_encode))
        rows = rows.ignore_errors().concatenate(_no_rows(rows)).take(1)
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(items), rows))

    def _read_and_decode(self, item: Element) -> Element:
        return self._decode(self._find(self._read(item)))

    def _predict_and_encode(self, batch: Element) -> Element:
        return self._encode(self._predict(batch))

    def _decode_alone(self, element: Element) -> Element:
        """As in the graph, and what TensorFlow does not read by way of a library that does."""
        encoded = element["encoded"]
        return self._decode({**element, "encoded": foreign.translate(encoded)}) | {"encoded": encoded}

    def retry(self, items: Element, lost: Iterable[int]) -> Rows | None:
        """What the batch gives when done once more; None where each lost item is one that cannot be read or decoded."""
        if not any(map(self._is_sound, (_item(items, number) for number in lost))):
            return None
        _, rows = next(iter(self._batch(items)))
        return {name: tensor.numpy() for name, tensor in rows.items()}

    def _is_sound(self, item: Element) -> bool:
        try:
            self._read_and_decode(item)
        except (tf.errors.OpError, ValueError):
            return False
        return True

    def redo(self, item: Element) -> Rows | Failure:
        """One item by itself, stage by stage: its rows, or why it failed."""
        filename = self._filename(item)
        stages: list[tuple[str, Callable[[Element], Element]]] = [
            ("read", self._read),
            ("predict", self._find),
            ("decode", self._decode_alone),
            ("predict", lambda element: self._predict({name: t[tf.newaxis] for name, t in element.items()})),
            ("encode", self._encode),
        ]
        for stage, function in stages:
            try:
                item = function(item)
            except (tf.errors.OpError, ValueError) as error:
                return Failure(filename, stage, _reason(error))
            if stage == "read":
                filename = naming.to_str(item["filename"].numpy())  # a TFRecord has it inside
        return {name: tensor.numpy() for name, tensor in item.items()}

    def _filename(self, item: Element) -> str:
        """The name of an item before it is read; of one that has its name inside, where it stands."""
        plan, source = self._job.plan, self._job.source
        if "filename" in item:
            return naming.to_str(item["filename"].numpy())
        if plan is None or isinstance(source, Stream):
            return f"{self._job.options.split}/{int(item['position']):08d}"
        return naming.to_str(source.filenames[plan.order[int(item["slot"])]])


def _no_rows(rows: Any) -> Any:
    """A dataset of one batch of no rows, for where nothing came of a batch."""
    spec: dict[str, tf.TensorSpec] = rows.element_spec
    nothing = {name: tf.constant([], column.dtype, (0, *column.shape[1:])) for name, column in spec.items()}
    return tf.data.Dataset.from_tensors(nothing)


def _items(job: Job) -> Any:
    """Batches of items as the source has them: their slots, and from a stream all that it gave."""
    source, limit = job.source, job.options.limit
    if isinstance(source, Stream):
        items = source.elements().take(-1 if limit is None else limit).enumerate()
        numbered = items.map(_as_it_is(lambda slot, item: {"slot": slot, "position": slot, **item}))
        return numbered.batch(job.batch_size).prefetch(2)  # what comes in order has a thread of its own
    assert job.plan is not None
    bounds = tf.data.Dataset.from_tensor_slices(job.plan.batches(job.batch_size))
    return bounds.map(_as_it_is(lambda start, stop: {"slot": tf.range(start, stop)}))


def _reader(job: Job) -> Callable[[Element], Element]:
    """An item -> all that the source knows of it, truth as label and text."""
    source = job.source
    name_truth = truth.namer(job.names, source.classes) if source.classes is not None else _unchanged
    if isinstance(source, Stream):
        read_rest = source.read
        return lambda item: name_truth(read_rest(item))
    assert job.plan is not None
    order, read = tf.constant(job.plan.order), source.reader()
    columns = {name: tf.constant(values) for name, values in source.columns.items()}
    if source.truths is not None:
        columns["truth_text"] = tf.constant(source.truths)

    def read_item(item: Element) -> Element:
        position = tf.gather(order, item["slot"])
        known = {name: tf.gather(values, position) for name, values in columns.items()}
        return name_truth({**item, "position": position, **known, **read(position)})

    return read_item


def _unchanged(item: Element) -> Element:
    return item


def _as_it_is(function: Callable[..., Any]) -> Any:
    """The function, not converted by AutoGraph: it needs that nowhere, and converting takes longer than all else."""
    return tf.autograph.experimental.do_not_convert(function)


def _reason(error: Exception) -> str:
    """TensorFlow's message without its names for its own insides."""
    text = getattr(error, "message", None) or str(error)
    text = text.split("}} ", 1)[-1].split(" [Op:", 1)[0]
    if "Summarized data: b" in text:  # of an assertion
        text = text.rpartition("Summarized data: b")[2].strip("'\"\n")
    text = text.removeprefix("assertion failed: [").removesuffix("]")
    return " ".join(text.split()) or type(error).__name__


class Outcome(NamedTuple):
    """What came of one batch: the slots of its items, the rows of those that gave a record, and the failures."""

    slots: npt.NDArray[np.int64]
    rows: Rows
    failures: list[Failure]


def outcomes(job: Job) -> Iterator[Outcome]:
    """What comes of every batch, in order.

    Raises BrokenSourceError where the source ends before its end, or goes on after it; UsageError where it shows that
    predictions made elsewhere are of other images.
    """
    stages, names, coverage = Stages(job), _Names(), _coverage(job)
    done = 0
    with _uncollected():
        batches = iter(stages.dataset())
    while (batch := _next(job, batches)) is not None:
        items, tensors = batch
        slots, rows = items["slot"].numpy(), {name: tensor.numpy() for name, tensor in tensors.items()}
        lost = _lost(slots, rows)
        if len(lost) and (retried := stages.retry(items, lost)) is not None:
            rows, lost = retried, _lost(slots, retried)
        again = [stages.redo(_item(items, number)) for number in lost]
        found = [outcome for outcome in again if not isinstance(outcome, Failure)]
        failures = [outcome for outcome in again if isinstance(outcome, Failure)]
        rows = _merge([rows, *found])
        if coverage:
            failed = [naming.to_bytes(failure.filename) for failure in failures if failure.stage != "read"]
            coverage.add(len(slots), [*rows["filename"].tolist(), *failed])
        if not job.source.unique:
            rows, repeated = names.first(rows, _positions(job, items)[np.searchsorted(slots, rows["slot"])])
            failures += [Failure(name, "read", _twice(job, *places)) for name, *places in repeated]
        yield Outcome(slots, rows, failures)
        done += len(slots)
    _check_count(job, done)
    if coverage and job.options.limit is None and job.options.skip_in is None:
        coverage.finish()


def _check_count(job: Job, done: int) -> None:
    """Raise BrokenSourceError unless the source gave as many items as it said."""
    said = None if job.images is None else job.images - len(job.source.rejected)
    if said is not None and done < said:
        raise BrokenSourceError(f"{job.source.name} ended after {done} of its {said} images")
    if said is not None and done > said:
        raise BrokenSourceError(f"{job.source.name} gave {done} images, though it said that it has {said}")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """No garbage is collected meanwhile: building a graph makes much and drops nothing, and looking takes a third."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _lost(slots: npt.NDArray[np.int64], rows: Rows) -> npt.NDArray[np.int64]:
    """The places in a batch of the items that have no row."""
    return np.flatnonzero(~np.isin(slots, rows["slot"])) if len(slots) > len(rows["slot"]) else slots[:0]


def _item(items: Element, number: int) -> Element:
    return {name: tensor[number] for name, tensor in items.items()}


def _coverage(job: Job) -> join.Coverage | None:
    """What watches over predictions made elsewhere; None if they are known to be of the source's images."""
    made, source = job.given, job.source
    if made is None or made.brought or job.options.allow_partial:
        return None
    by_name = made.rows is not None
    known = (source.unique or not by_name) if isinstance(source, Listed) else not by_name and source.count is not None
    return None if known else join.Coverage(made, source)


def _positions(job: Job, items: Element) -> Positions:
    """Where in the source the items of a batch are."""
    return items["position"].numpy() if job.plan is None else job.plan.order[items["slot"].numpy()]


def _twice(job: Job, position: int, earlier: int) -> str:
    return f"{job.source.place(position)} has the name of {job.source.place(earlier)}"


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


def _next(job: Job, batches: Iterator[Any]) -> Any:
    """The next batch; None at the end; the source's own error if it raised one."""
    try:
        return next(batches, None)
    except tf.errors.OpError as error:
        own = job.source.explain(error) if isinstance(job.source, Stream) else None
        if isinstance(own, TfzipError):
            raise own from None
        shown = f"{type(own).__name__}: {own}" if own else _reason(error)
        raise BrokenSourceError(f"{job.source.name}: {shown}") from (own or error)


def _merge(parts: Sequence[Rows]) -> Rows:
    """Rows put together, in the order of their slots."""
    if len(parts) < 2:
        return parts[0]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(rows["slot"])
    return {name: values[order] for name, values in rows.items()}
