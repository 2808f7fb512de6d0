"""The graph put together, and what comes out of it put in order.

An item that fails in the graph vanishes there (`ignore_errors` costs nothing) and shows as a gap in the numbers of
those that come out; it is then done once more, alone, to learn why, and kept if it now succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import decode, encode, foreign, naming, predict
from tfzip.job import Job
from tfzip.record import Failure
from tfzip.sources import Element

Rows = dict[str, npt.NDArray[Any]]
"""What one batch gives: `slot`, `serialized`, and the columns of the index, all of one length."""


class Stages:
    """The functions that the graph is made of, each from element to element; also called one by one, by hand."""

    def __init__(self, job: Job) -> None:
        ready, options = job.predictor, job.options
        self._job = job
        self._read = job.source.reader()
        self._decode = decode.decoder(
            ready.size,
            ready.channels,
            ready.dtype,
            resize=options.resize,
            interpolation=options.interpolation,
            exif_orientation=options.exif_orientation,
            alpha=options.alpha,
            reencode=options.reencode,
        )
        self._predict = predict.predicter(ready, job.prepare, job.task)
        self._encode = encode.encoder(job.features, index_scores=job.index_scores)
        self._item = self._numbering()

    def _numbering(self) -> Callable[[Any], Element]:
        """Slot -> the item's numbers and truth."""
        order = tf.constant(self._job.plan.order)
        texts = self._job.source.truths
        truths = {} if texts is None else {"truth": tf.constant(self._job.truths), "truth_text": tf.constant(texts)}

        def item(slot: tf.Tensor) -> Element:
            position = tf.gather(order, slot)
            truth = {name: tf.gather(values, position) for name, values in truths.items()}
            return {"slot": slot, "position": position, **truth}

        return item

    def dataset(self) -> Any:
        """The whole graph: every batch, in order; what failed is missing."""
        job = self._job

        def batch(start: tf.Tensor, stop: tf.Tensor) -> tf.data.Dataset:
            items = tf.data.Dataset.range(start, stop).map(_as_it_is(self._read_and_decode))
            return items.ignore_errors().batch(job.batch_size)

        # A thread makes a whole batch: handing each image to another costs as much as decoding a small one.
        slots = tf.data.Dataset.from_tensor_slices(job.plan.batches(job.batch_size))
        batches = slots.interleave(_as_it_is(batch), job.parallel, 1, job.parallel, deterministic=True)
        rows = batches.map(_as_it_is(self._predict_and_encode), job.parallel, deterministic=True).ignore_errors()
        options = tf.data.Options()
        # A batch a core, each on one thread: faster than all cores on one batch, and the same bits whatever `parallel`.
        options.threading.max_intra_op_parallelism = 1
        options.deterministic = True
        # There is nothing to tune or rewrite, and the thread that would tune can hold up the end by five seconds.
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        return rows.prefetch(2 * job.parallel).with_options(options)

    def _read_and_decode(self, slot: Any) -> Element:
        item = self._item(slot)
        return self._decode(item | self._read(item["position"]))

    def _predict_and_encode(self, batch: Element) -> Element:
        return self._encode(self._predict(batch))

    def _decode_alone(self, element: Element) -> Element:
        """As in the graph, and what TensorFlow does not read by way of a library that does."""
        encoded = element["encoded"]
        return self._decode({**element, "encoded": foreign.translate(encoded)}) | {"encoded": encoded}

    def redo(self, slot: int) -> Rows | Failure:
        """One item by itself, stage by stage: its rows, or why it failed."""
        item = self._item(tf.constant(slot, tf.int64))
        filename = naming.to_str(self._job.source.filenames[self._job.plan.order[slot]])
        stages: list[tuple[str, Callable[[Element], Element]]] = [
            ("read", lambda element: element | self._read(element["position"])),
            ("decode", self._decode_alone),
            (
                "predict",
                lambda element: self._predict(tf.nest.map_structure(lambda t: t[tf.newaxis], element)),
            ),
            ("encode", self._encode),
        ]
        for stage, function in stages:
            try:
                item = function(item)
            except (tf.errors.OpError, ValueError) as error:
                return Failure(filename, stage, _reason(error))
        return {name: tensor.numpy() for name, tensor in item.items()}


def _as_it_is(function: Callable[..., Any]) -> Any:
    """The function, not converted by AutoGraph: it needs that nowhere, and converting takes longer than all else."""
    return tf.autograph.experimental.do_not_convert(function)


def _reason(error: Exception) -> str:
    """TensorFlow's message without its names for its own insides."""
    text = getattr(error, "message", None) or str(error)
    text = text.split("}} ", 1)[-1].split(" [Op:", 1)[0]
    text = text.removeprefix("assertion failed: [").removesuffix("]")
    return " ".join(text.split()) or type(error).__name__


def outcomes(job: Job) -> Iterator[tuple[int, Rows, list[Failure]]]:
    """Shard, rows (empty if none) and failures, in the order of the slots, until every slot is accounted for."""
    stages = Stages(job)
    expected = 0
    for batch in stages.dataset():
        rows = {name: tensor.numpy() for name, tensor in batch.items()}
        shard = job.plan.shard_of(int(rows["slot"][0]))
        start = int(job.plan.bounds[shard])
        yield from _redo_all(job, stages, range(expected, start))
        end = int(rows["slot"][-1]) + 1
        gaps = sorted(set(range(max(expected, start), end)).difference(rows["slot"].tolist()))
        found, failures = _redo(stages, gaps)
        yield shard, _merge([rows, *found]), failures
        expected = end
    yield from _redo_all(job, stages, range(expected, len(job.plan.order)))


def _redo_all(job: Job, stages: Stages, slots: range) -> Iterator[tuple[int, Rows, list[Failure]]]:
    """Slots of which nothing came out, one by one."""
    for slot in slots:
        found, failures = _redo(stages, [slot])
        yield job.plan.shard_of(slot), _merge(found), failures


def _redo(stages: Stages, slots: Sequence[int]) -> tuple[list[Rows], list[Failure]]:
    outcomes = [stages.redo(slot) for slot in slots]
    found = [outcome for outcome in outcomes if not isinstance(outcome, Failure)]
    return found, [outcome for outcome in outcomes if isinstance(outcome, Failure)]


def _merge(parts: Sequence[Rows]) -> Rows:
    """Rows put together, in the order of their slots."""
    if len(parts) < 2:
        return dict(parts[0]) if parts else {}
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(rows["slot"])
    return {name: values[order] for name, values in rows.items()}
