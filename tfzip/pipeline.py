"""The graph put together, and what comes out of it put in order.

    items -> read -> decode -> batch -> predict -> encode -> rows

An item that fails in the graph vanishes from its batch (`ignore_errors` costs nothing); since every batch comes out
beside the items that it was made of, it shows. If nothing seems to be wrong with it, its batch is done once more, so
that a fault that passes changes no bit; if it is still lost, it is done alone, to learn why, and kept if that succeeds.

Each batch is first read and decoded by what most images need, which has no branches; what that loses, by what knows
every kind of image (see `unusual`). Where batches can be done again, a graph that is built faster, without the latter,
does all up to the first that loses an item.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import decode, devices, encode, foreign, interrupt, join, naming, predict, straight, truth, unusual
from tfzip.bounds import Bound
from tfzip.checkpoint import Done
from tfzip.errors import BrokenSourceError, TfzipError, reason
from tfzip.job import Job
from tfzip.outcome import Outcome, Rows, Watch, sifted
from tfzip.record import Failure
from tfzip.sources import Element, Stream

_SMALL = 1 << 18  # bytes of an image, of which a whole batch may be held though it fails

Batches = tuple[tf.Tensor, tf.Tensor]
"""The first slot of each batch, and the one after its last."""


class Stages:
    """The functions that the graph is made of, each from element to element; also called one by one, by hand."""

    def __init__(self, job: Job, first: int = 0, *, only_usual: bool = False) -> None:
        """The slots before `first` are done: they are left out, or read again and told by a hash if in a stream.

        With `only_usual` the graph loses the images that few have (see `images.decode_usual`).
        """
        self._job, self._first = job, first
        self._rereads = first > 0 and isinstance(job.source, Stream)
        self._read, self._read_usual = _readers(job)
        self._find = _unchanged if job.given is None else join.finder(job.given)
        self._how, self._only_usual = _decoding(job), only_usual
        self._decode, self._decode_usual = decode.decoder(**self._how), decode.decoder(**self._how, only_usual=True)
        self._devices = job.used_devices
        self._run_on: dict[str, Callable[[Element], Element]] = {}
        self._predict = self._predicter(None)
        carried = job.source.carried
        encode_batch = encode.encoder(
            job.written,
            job.reparsed,
            brought=carried.features if carried and carried.whole else (),
            index_scores=job.index_scores,
        )
        self._encode = _hashing(encode_batch) if isinstance(job.source, Stream) else encode_batch

    def _predicter(self, device: str | None) -> Callable[[Element], Element]:
        job = self._job
        if job.given is not None:
            return predict.marked(join.predicter(job.given, job.task), job.predicted)
        return predict.marked(predict.predicter(job.predictor, job.prepare, job.task, device), job.predicted)

    def batches(self) -> Iterator[Any]:
        """For every batch, in order, its items as the source has them, and its rows.

        Batches of a stream that are done already have in place of rows the slot and the hash of what was read.
        """
        batches, job = self.dataset(), self._job
        if not self._devices:
            return iter(batches)
        self._run_on = {name: self._on_device(name, batches.element_spec[1]) for name in self._devices}
        return devices.spread(iter(batches), self._run, self._devices, singly=job.predictor.stateful)

    def dataset(self, batches: Batches | None = None) -> Any:
        """The graph of the same; where the model runs on devices of its own, with decoded images in place of rows.

        `batches` are the first and last slots of each as tensors, of a plan that is only known when the graph is run.
        """
        job, batch, items = self._job, self._batch, _items(self._job, self._first, batches)
        if job.predictor.stateful:  # even one parallel call begins the next batch before this one is done
            made = items.flat_map(_as_it_is(batch))
        else:  # a thread makes a whole batch: handing each image to another costs as much as decoding a small one
            made = items.interleave(_as_it_is(batch), job.parallel, 1, job.parallel, deterministic=True)
        ahead = len(self._devices) or job.parallel
        return made.prefetch(2 * ahead).with_options(threading())

    def _batch(self, items: Element) -> Any:
        """A dataset of one element: the items, the rows of those that did not fail, and hashes of what is done."""
        made = _unchanged if self._devices else self._predict_and_encode
        found = [_one(self._decoded(items), made)]
        if self._rereads:
            each = tf.data.Dataset.from_tensor_slices(items)
            old = each.filter(_as_it_is(lambda item: item["slot"] < self._first)).map(_as_it_is(self._read))
            found.append(_one(_together(old, self._job.batch_size), _hashed))
        return tf.data.Dataset.zip((tf.data.Dataset.from_tensors(items), *found))

    def _decoded(self, items: Element) -> Any:
        """A dataset of one element: those of the items that are to be done and did not fail, decoded; empty if none."""
        each, size = tf.data.Dataset.from_tensor_slices(items), self._job.batch_size
        new = each.filter(_as_it_is(lambda item: item["slot"] >= self._first)) if self._rereads else each
        usual = _together(straight.mapped(new, self.read_and_decode_usual), size)
        if self._only_usual:
            return usual
        spec = usual.element_spec

        def with_others(usual: Element) -> Any:
            """A dataset of the usual images, and of those that they left."""
            slots = items["slot"]
            left = (slots >= self._first) & tf.reduce_all(slots[:, tf.newaxis] != usual["slot"], axis=1)
            others = tf.data.Dataset.from_tensor_slices({name: tf.boolean_mask(t, left) for name, t in items.items()})
            read = others.map(_as_it_is(lambda item: self._find(self._read(item)))).ignore_errors()
            each = (
                _by_size(read, size).map(_as_it_is(lambda some: unusual.decoded(some, spec, self._how))).ignore_errors()
            )
            both = each.unbatch().batch(size).map(_as_it_is(lambda others: _in_order(usual, others)))
            alone = tf.data.Dataset.from_tensors(usual).take(tf.size(usual["slot"], tf.int64))
            return both.ignore_errors().concatenate(alone).take(1)

        return _or_none(usual).flat_map(_as_it_is(with_others))

    def read_and_decode_usual(self, item: Element) -> Element:
        """An item as the source has it, read and decoded if that needs no branches, as for most."""
        return self._decode_usual(self._find(self._read_usual(item)))

    def read_and_decode(self, item: Element) -> Element:
        """An item as the source has it, read and decoded."""
        return self._decode(self._find(self._read(item)))

    def _predict_and_encode(self, batch: Element) -> Element:
        return self._encode(self._predict(batch))

    def _on_device(self, device: str, spec: Element) -> Callable[[Element], Element]:
        """The last stages as a function of their own, of a batch of decoded images; none gives no rows."""
        predict_there = self._predicter(device)
        function = tf.function(
            lambda batch: self._encode(predict_there(batch)), input_signature=[spec], autograph=False
        ).get_concrete_function()
        nothing = {
            name: tf.constant([], rows.dtype, (0, *rows.shape[1:]))
            for name, rows in function.structured_outputs.items()
        }

        def run(batch: Element) -> Element:
            try:
                return function(batch) if len(batch["slot"]) else nothing
            except (tf.errors.OpError, ValueError):  # its items are done again
                return nothing

        return run

    def _run(self, batch: Any, device: str) -> Any:
        """A batch that is decoded, with its rows."""
        items, decoded, *hashes = batch
        return (items, self._run_on[device](decoded), *hashes)

    def _decode_alone(self, element: Element) -> Element:
        """As in the graph, and what TensorFlow does not read by way of a library that does."""
        encoded = element["encoded"]
        translated = foreign.translate(encoded, self._job.options.max_pixels)
        return self._decode({**element, "encoded": translated}) | {"encoded": encoded}

    def retry(self, items: Element, lost: Iterable[int]) -> Rows | None:
        """What the batch gives when done once more; None where each lost item is one that cannot be read or decoded."""
        if not any(map(self._is_sound, (_item(items, number) for number in lost))):
            return None
        batch = next(iter(self._batch(items)))
        if self._devices:
            batch = self._run(batch, self._devices[0])
        return _arrays(batch[1])

    def _is_sound(self, item: Element) -> bool:
        try:
            self.read_and_decode(item)
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
                return Failure(filename, stage, reason(error))
            if stage == "read":
                filename = naming.to_str(item["filename"].numpy())  # a TFRecord has it inside
        return _arrays(item)

    def _filename(self, item: Element) -> str:
        """The name of an item before it is read; of one that has its name inside, where it stands."""
        plan, source = self._job.plan, self._job.source
        if "filename" in item:
            return naming.to_str(item["filename"].numpy())
        if plan is None or isinstance(source, Stream):
            return f"{self._job.options.split}/{int(item['position']):08d}"
        return naming.to_str(source.filenames[int(plan.rows(item["slot"].numpy()))])


def threading() -> tf.data.Options:
    """How a graph is run: a batch a core, each on one thread, in order.

    That is faster than all cores on one batch, and gives the same bits whatever `parallel` is.
    """
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.deterministic = True
    # There is nothing to tune or rewrite, and the thread that would tune can hold up the end by five seconds.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _together(items: Any, size: int) -> Any:
    """A dataset of one element: the items that did not fail; empty if there are none."""
    return items.ignore_errors().batch(size)


def _one(batch: Any, function: Callable[[Element], Element]) -> Any:
    """A dataset of one element: what a function makes of a batch; of no rows if there is none, or it fails."""
    return _or_none(batch.map(_as_it_is(function)).ignore_errors())


def _or_none(batch: Any) -> Any:
    """A dataset of one element: the batch, or one of no rows if there is none."""
    spec: dict[str, tf.TensorSpec] = batch.element_spec
    nothing = {name: tf.constant([], column.dtype, (0, *column.shape[1:])) for name, column in spec.items()}
    return batch.concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)


def _by_size(items: Any, size: int) -> Any:
    """Batches of the small items; then, read once more, the large ones, which may be no images, each by itself."""
    small, large = (
        items.filter(_as_it_is(lambda item, wanted=wanted: (tf.strings.length(item["encoded"]) > _SMALL) == wanted))
        for wanted in (False, True)
    )
    return small.batch(size).concatenate(large.batch(1))


def _in_order(*batches: Element) -> Element:
    """Batches put together, in the order of their slots."""
    order = tf.argsort(tf.concat([batch["slot"] for batch in batches], 0))
    return {name: tf.gather(tf.concat([batch[name] for batch in batches], 0), order) for name in batches[0]}


def _decoding(job: Job) -> dict[str, Any]:
    """The arguments of `decode.decoder`."""
    ready, options = job.predictor, job.options
    return {
        "size": ready.input.size,
        "channels": ready.input.channels,
        "dtype": ready.input.dtype,
        "resize": options.resize,
        "interpolation": options.interpolation,
        "fast_jpeg": options.fast_jpeg,
        "exif_orientation": options.exif_orientation,
        "alpha": options.alpha,
        "reencode": options.reencode,
        # A model that takes the images' bytes may decode all frames of an animation.
        "bound": Bound(options.max_pixels, whole=ready.input.takes in ("encoded", "example")),
    }


def _hashing(function: Callable[[Element], Element]) -> Callable[[Element], Element]:
    return lambda batch: {**function(batch), **_hashed(batch)}


def _hashed(batch: Element) -> Element:
    """The slots of a batch, and of each item a hash of its name and its image, int64."""
    hashes = [_hash(batch[name]) for name in ("filename", "encoded")]  # together they would be copied before
    return {"slot": batch["slot"], "hash": _hash(tf.stack(hashes, 1))}


def _hash(values: tf.Tensor) -> tf.Tensor:
    """Of each row [B, ...], int64 [B]."""
    return tf.bitcast(tf.raw_ops.Fingerprint(data=values, method="farmhash64"), tf.int64)


def _items(job: Job, first: int, batches: Batches | None = None) -> Any:
    """Batches of items as the source has them: their slots from `first` on; from a stream all that it gave."""
    source, limit = job.source, job.options.limit
    if isinstance(source, Stream):
        numbered = _numberer(source.first, job.batch_size, limit)
        items = source.batches(job.batch_size).enumerate().map(_as_it_is(numbered))
        whole = items if limit is None else items.take(-(-limit // job.batch_size))
        return whole.prefetch(2)  # what comes in order has a thread of its own
    assert job.plan is not None
    bounds = tf.data.Dataset.from_tensor_slices(batches or job.plan.batches(job.batch_size, first))
    return bounds.map(_as_it_is(lambda start, stop: {"slot": tf.range(start, stop)}))


def _numberer(first: int, size: int, limit: int | None) -> Callable[[tf.Tensor, Element], Element]:
    """The number of a batch of a stream, and its items -> the items with their slots, up to the limit."""

    def number(batch: tf.Tensor, items: Element) -> Element:
        if limit is not None:
            items = {name: values[: limit - batch * size] for name, values in items.items()}
        slots = first + batch * size + tf.range(tf.shape(next(iter(items.values())), tf.int64)[0])
        return {"slot": slots, "position": slots, **items}

    return number


def _readers(job: Job) -> tuple[Callable[[Element], Element], Callable[[Element], Element]]:
    """An item -> all that the source knows of it, truth as label and text; of any item, and of most."""
    source = job.source
    name_truth = truth.namer(job.names, source.classes) if source.classes is not None else _unchanged
    if isinstance(source, Stream):
        read_any, read_usual = source.read, source.read_usual or source.read
        return lambda item: name_truth(read_any(item)), lambda item: name_truth(read_usual(item))
    assert job.plan is not None
    order, begin, read = tf.convert_to_tensor(job.plan.order), job.plan.bounds[0], source.reader()
    places = order if source.places is None else tf.convert_to_tensor(source.places)
    columns = {name: tf.convert_to_tensor(values) for name, values in source.columns.items()}
    if source.truths is not None:
        columns["truth_text"] = tf.convert_to_tensor(source.truths)

    def read_item(item: Element) -> Element:
        row = tf.gather(order, item["slot"] - begin)
        position = row if source.places is None else tf.gather(places, row)
        known = {name: tf.gather(values, row) for name, values in columns.items()}
        return name_truth({**item, "position": position, **known, **read(row)})

    return read_item, read_item


def _unchanged(item: Element) -> Element:
    return item


def _as_it_is(function: Callable[..., Any]) -> Any:
    """The function, not converted by AutoGraph: it needs that nowhere, and converting takes longer than all else."""
    return tf.autograph.experimental.do_not_convert(function)


class Begun(NamedTuple):
    """The stages of a job, and its batches as they come of its graph."""

    stages: Stages
    batches: Iterator[Any]


def begin(job: Job, first: int = 0, *, only_usual: bool = False) -> Begun:
    """Build the graph of a job, as `Stages` has it, and start it."""
    with _uncollected(), interrupt.put_off():
        stages = Stages(job, first, only_usual=only_usual)
        return Begun(stages, stages.batches())


def outcomes(job: Job, done: Sequence[Done] = (), begin: Callable[..., Begun] = begin) -> Iterator[Outcome]:
    """What comes of every batch, in order; after the shards that are done.

    Args:
        job: the job.
        done: the first shards, as far as they are done.
        begin: what builds and starts its graph, or one of the same that is built already.

    Raises what `outcome.Watch` does.
    """
    first, watch = sum(shard.slots for shard in done), Watch(job, done)
    (stages, batches), given_up = begin(job, first, only_usual=_can_do_again(job)), None
    while (batch := _next(job, batches)) is not None:
        items, (rows, *hashes) = batch[0], [_arrays(tensors) for tensors in batch[1:]]
        slots = items["slot"].numpy()
        if given_up is None and _can_do_again(job) and len(_lost(slots, rows)):
            given_up = stages, batches  # kept: its threads still work
            stages, batches = begin(job, int(slots[0]))
        elif slots[0] < first:
            watch.see_again(slots, hashes[0])
            if slots[-1] >= first:
                raise BrokenSourceError(f"{job.source.name} ended after {first} images before; now it gives more")
        else:
            yield watch.see(sifted(_outcome(stages, items, slots, rows), job.options.on_nonfinite))
    watch.finish()


def _can_do_again(job: Job) -> bool:
    """Whether a batch can be done again: no stream can give it again, and a model with state has moved on."""
    return not isinstance(job.source, Stream) and not job.predictor.stateful


def _outcome(stages: Stages, items: Element, slots: npt.NDArray[np.int64], rows: Rows) -> Outcome:
    """What came of a batch in the end: items that were lost are done again."""
    lost = _lost(slots, rows)
    if not len(lost):
        return Outcome(slots, rows, [])
    with interrupt.put_off():
        if (retried := stages.retry(items, lost)) is not None:
            rows, lost = retried, _lost(slots, retried)
        again = [stages.redo(_item(items, number)) for number in lost]
    found = [outcome for outcome in again if not isinstance(outcome, Failure)]
    failures = [outcome for outcome in again if isinstance(outcome, Failure)]
    return Outcome(slots, _merge([rows, *found]), failures)


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


def _arrays(tensors: Element) -> Rows:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _item(items: Element, number: int) -> Element:
    return {name: tensor[number] for name, tensor in items.items()}


def _next(job: Job, batches: Iterator[Any]) -> Any:
    """The next batch; None at the end; the source's own error if it raised one."""
    try:
        with interrupt.put_off():
            return next(batches, None)
    except (tf.errors.OpError, UnicodeDecodeError) as error:
        own = job.source.explain(error) if isinstance(job.source, Stream) else None
        if isinstance(own, TfzipError):
            raise own from None
        shown = f"{type(own).__name__}: {own}" if own else reason(error)
        raise BrokenSourceError(f"{job.source.name}: {shown}") from (own or error)


def _merge(parts: Sequence[Rows]) -> Rows:
    """Rows put together, in the order of their slots."""
    if len(parts) < 2:
        return parts[0]
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(rows["slot"])
    return {name: values[order] for name, values in rows.items()}
