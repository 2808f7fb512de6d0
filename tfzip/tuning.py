"""How a model is run best, found out on the model itself before an export begins: its graph, its batches, its kernels.

A graph whose variables became constants is taken where its outputs are the same on the first images. The size of the
batches, and how many are done side by side, are tried out where the export will take long; so is TensorFlow Lite, on
the same condition as that graph. Nothing is done where it would take longer than it saves.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from tfzip import frozen, interrupt, predictor
from tfzip.errors import UsageError
from tfzip.job import LARGEST_BATCH, Job
from tfzip.pipeline import Stages, threading
from tfzip.sources import Listed

if TYPE_CHECKING:
    from tfzip.predictor import Predictor

WORTH_FREEZING = 500
"""Images: with fewer, freezing a model takes longer than it saves."""

WORTH_TUNING = 60.0
"""Seconds that an export has to take; a twentieth of them may go into trials."""

WORTH_CONVERTING = 15.0
"""Seconds that it has to take for a conversion to TensorFlow Lite and a trial, which take two, and more ..."""

_MODEL_A_SECOND = 1_000_000
"""... if it has more bytes than so many for each of them."""

_LITE_BATCH = 4
"""Times the images of a batch, if Lite computes it: it takes them from memory a few at a time anyway."""

_SHARE = 1 / 20
_TRIAL = 0.4  # seconds over which a rate is measured
_BETTER = 1.05  # how much faster another choice has to be: less is noise
_CLEARLY = 1.1  # how much faster a call by itself has to be, so that no trial needs to show it
_CALLS = 3  # by themselves, of which the fastest counts
_LOOKED_AT = 32  # items among which those to try a model on are sought


Outputs = Mapping[str, Any]
"""What a model gives for a batch, by name."""


class Trial(NamedTuple):
    """What a choice gave."""

    batch_size: int
    parallel: int
    images_per_second: float
    runtime: str = "tensorflow"


@interrupt.put_off()
def tune(job: Job) -> tuple[Job, list[Trial]]:
    """The job with what is best for it, and the trials that were made; UsageError if `runtime` asks what cannot be."""
    asks_lite = job.options.runtime == "lite"
    if asks_lite and job.devices:
        raise UsageError(
            f"--runtime lite is for CPUs, and the model runs on {', '.join(job.devices)}: add --devices cpu"
        )
    if job.given is not None or job.predictor.input.takes != "pixels" or job.predictor.stateful:
        return (_refuse_lite(job) if asks_lite else job), []
    if job.images is not None and job.images < WORTH_FREEZING and not job.devices and not asks_lite:
        return job, []
    try:
        pixels = _pixels(job)
        plain, (outputs, job) = job.predictor, _frozen(job, pixels)
        if job.devices:  # a trial on CPUs tells nothing of them
            return job, []
        search = _Search(job, plain, pixels, outputs)
        return search.best(), search.trials
    except UsageError:
        raise
    except (tf.errors.OpError, ValueError):  # the model fails on these images, which will be told of each
        return (_refuse_lite(job) if asks_lite else job), []


def _refuse_lite(job: Job) -> Job:
    raise UsageError(
        f"--runtime lite: TensorFlow Lite cannot compute {job.predictor.name}, or not to the same outputs; leave it out"
    )


def _frozen(job: Job, pixels: tf.Tensor) -> tuple[Outputs, Job]:
    """What the model gives for the pixels, and the job with it frozen if that changes nothing."""
    with ThreadPoolExecutor(1) as beside:
        calling = beside.submit(job.predictor.function, pixels)  # the first call takes long
        ready = predictor.freeze(job.predictor)
        found = ready.function(pixels) if ready.frozen else None
    outputs: Outputs = calling.result()
    agree = found is not None and frozen.agree(outputs, found)
    return outputs, dataclasses.replace(job, predictor=ready) if agree else job


def _pixels(job: Job) -> tf.Tensor:
    """A batch of what the model is given: of the first images, or of noise where none can be had beforehand."""
    wanted, given = job.batch_size, job.predictor.input
    found = [element["pixels"] for element in _first(job, wanted)]
    if not found:
        assert given.size is not None
        noise = tf.random.stateless_uniform((wanted, *given.size, given.channels), (0, 0), maxval=255)
        found = tf.unstack(tf.cast(noise, given.dtype))
    return job.prepare(_repeated(tf.stack(found), wanted))


def _extremes(job: Job) -> tf.Tensor:
    """A black and a white image, as the model is given them."""
    given = job.predictor.input
    assert given.size is not None
    levels = tf.reshape(tf.constant([0, 255], given.dtype), (2, 1, 1, 1))
    return job.prepare(tf.broadcast_to(levels, (2, *given.size, given.channels)))


def _first(job: Job, wanted: int) -> Iterator[Any]:
    """The first items that can be decoded; none of a stream, which cannot give them twice."""
    if not isinstance(job.source, Listed) or job.plan is None:
        return
    stages = Stages(job)
    for slot in range(min(len(job.plan.order), _LOOKED_AT)):
        if not wanted:
            return
        try:
            yield stages.read_and_decode({"slot": tf.constant(slot, tf.int64)})
        except (tf.errors.OpError, ValueError):  # it will be told of when its turn comes
            continue
        wanted -= 1


def _repeated(pixels: tf.Tensor, rows: int) -> tf.Tensor:
    return tf.gather(pixels, tf.range(rows) % len(pixels))


class _Search:
    """Looks for the fastest choice: compares what TensorFlow Lite makes of the same batches.

    Then it doubles or halves the batch while that helps, which to Lite makes no difference, and halves the parallelism.
    """

    def __init__(self, job: Job, plain: Predictor, pixels: tf.Tensor, outputs: Outputs) -> None:
        self._job, self._plain, self._pixels, self._outputs = job, plain, pixels, outputs
        self.trials: list[Trial] = []
        self._seconds = self._deadline = 0.0

    def best(self) -> Job:
        """The job with the best choice found; as it is where there is nothing to choose, or no time."""
        runtime = self._job.options.runtime
        if self._job.images is not None:
            self._seconds = self._an_image(self._job)
        if runtime == "lite":
            self._job = self._lightened() or _refuse_lite(self._job)
        elif runtime == "auto" and self._expected >= self._worth_converting:
            self._job = self._fastest()
        if self._expected < WORTH_TUNING:
            return self._job
        self._deadline = time.monotonic() + _SHARE * self._expected
        return self._rebatched()

    @property
    def _expected(self) -> float:
        """Seconds that the model takes for all images; 0 where nobody knows how many there are."""
        return self._seconds * (self._job.images or 0) / self._job.parallel

    @property
    def _worth_converting(self) -> float:
        """From how many seconds on a conversion pays."""
        size = self._job.predictor.function.graph.as_graph_def().ByteSize()
        return max(WORTH_CONVERTING, size / _MODEL_A_SECOND)

    def _fastest(self) -> Job:
        """The job as it is, or with its model computed by TensorFlow Lite if that is faster."""
        usual, lightened = self._job, self._lightened()
        if lightened is None:
            return usual
        alone, lite_alone = self._alone(usual), self._alone(lightened)
        if lite_alone.images_per_second > _CLEARLY * alone.images_per_second:
            self._seconds = 1 / lite_alone.images_per_second
            return lightened
        self._deadline = math.inf  # this takes less than the conversion took
        tensorflow, lite = (self._measured(job, job.batch_size, job.parallel) for job in (usual, lightened))
        return lightened if tensorflow and self._faster(tensorflow, lite) == lite else usual

    def _lightened(self) -> Job | None:
        """The job with its model computed by TensorFlow Lite; None where that cannot be, or gives something else.

        It must give the same for a black and a white image too, of which some models make what is no number.
        """
        job = self._job
        ready = predictor.lighten(job.predictor, job.parallel)
        try:
            if not ready.lite or not self._agrees(ready):
                return None
        except tf.errors.OpError:
            return None
        largest = min(LARGEST_BATCH, job.options.shard_records)
        size = min(largest, _LITE_BATCH * job.batch_size) if self._any_batch else job.batch_size
        return dataclasses.replace(job, predictor=ready, batch_size=size)

    def _agrees(self, ready: Predictor) -> bool:
        """Whether it gives what the plain model gives."""
        if not frozen.agree(self._outputs, ready.function(self._pixels)):
            return False
        extremes = _extremes(self._job)  # apart: together they may be more than a model takes
        return frozen.agree(self._plain.function(extremes), ready.function(extremes))

    @property
    def _any_batch(self) -> bool:
        return self._job.options.batch_size == "auto" and self._job.predictor.input.batch is None

    def _rebatched(self) -> Job:
        """The job with the best batches found."""
        job, lite = self._job, self._job.predictor.lite
        any_batch, any_parallel = self._any_batch and not lite, job.options.parallel == "auto" and job.parallel > 1
        size = len(self._pixels) if lite else job.batch_size
        best = self._measured(job, size, job.parallel) if any_batch or any_parallel else None
        if best is None:
            return job
        if any_batch:
            doubled = self._climbed(best, 2)
            best = doubled if doubled != best else self._climbed(best, 0.5)
        if any_parallel:  # two threads of one core may be slower than one
            best = self._faster(best, self._measured(job, best.batch_size, job.parallel // 2))
        return dataclasses.replace(job, batch_size=job.batch_size if lite else best.batch_size, parallel=best.parallel)

    def _an_image(self, job: Job) -> float:
        """Seconds that the model takes for an image, about: a call by itself, of a batch."""
        started = time.monotonic()
        job.predictor.function(self._pixels)
        return (time.monotonic() - started) / len(self._pixels)

    def _alone(self, job: Job) -> Trial:
        """What such calls give."""
        return self._note(job, len(self._pixels), 1, 1 / min(self._an_image(job) for _ in range(_CALLS)))

    def _climbed(self, best: Trial, factor: float) -> Trial:
        largest = min(LARGEST_BATCH, self._job.options.shard_records)
        while 1 <= (size := int(best.batch_size * factor)) <= largest:
            tried = self._faster(best, self._measured(self._job, size, best.parallel))
            if tried == best:
                break
            best = tried
        return best

    @staticmethod
    def _faster(best: Trial, tried: Trial | None) -> Trial:
        return tried if tried and tried.images_per_second > _BETTER * best.images_per_second else best

    def _measured(self, job: Job, batch_size: int, parallel: int) -> Trial | None:
        """Run the model on a batch again and again, as the export will; None where no time is left for it."""
        least = 4 * batch_size * self._seconds  # each thread does two to warm up, and two that count
        if time.monotonic() + max(least, _TRIAL) > self._deadline:
            return None
        function, pixels = job.predictor.function, _repeated(self._pixels, batch_size)
        batches = tf.data.Dataset.range(2**62).map(lambda _: function(pixels), parallel).with_options(threading())
        done, arrivals = 0, iter(batches)
        for _ in range(2 * parallel):  # the first ones of a size take much longer
            next(arrivals)
        started = time.monotonic()
        while (seconds := time.monotonic() - started) < _TRIAL or done < 2 * parallel:
            next(arrivals)
            done += 1
        return self._note(job, batch_size, parallel, done * batch_size / seconds)

    def _note(self, job: Job, batch_size: int, parallel: int, images_per_second: float) -> Trial:
        runtime = "lite" if job.predictor.lite else "tensorflow"
        self.trials.append(Trial(batch_size, parallel, round(images_per_second, 1), runtime))
        return self.trials[-1]
