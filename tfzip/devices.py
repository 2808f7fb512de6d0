"""Batches through a function on devices of its own, in order: what `tf.data` maps, it maps on the CPU."""

from __future__ import annotations

import itertools
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from tfzip.errors import UsageError

_NAME = re.compile(r"(?i)(?:/?device:)?([a-z_]+:[0-9]+)")


def choose(asked: str) -> tuple[str, ...]:
    """The devices to run a model on beside the graph: with `auto` the GPUs that TensorFlow sees; none with `cpu`.

    Others are names with commas between, as `GPU:0,GPU:1`; UsageError where there is no such device.
    """
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if asked == "cpu":
        return ()
    if asked == "auto":
        return tuple(name for name in there if name.startswith("GPU:"))
    found = [match[1].upper() for name in asked.split(",") if (match := _NAME.fullmatch(name.strip()))]
    if len(found) != len(asked.split(",")) or not set(found) <= set(there):
        raise UsageError(f"--devices {asked}: use auto, cpu, or some of those that TensorFlow sees: {', '.join(there)}")
    return tuple(dict.fromkeys(found))


def kind(devices: Sequence[str]) -> str:
    """What kind of device computes, which decides about the last bits."""
    return "+".join(sorted({name.partition(":")[0] for name in devices})) or "CPU"


def spread(
    batches: Iterator[Any], function: Callable[[Any, str], Any], devices: Sequence[str], *, singly: bool
) -> Iterator[Any]:
    """What a function makes of each batch on one of the devices in turn; the results in the order of the batches.

    Two batches a device are at work, so that it computes one while the other is brought or taken; or one in all, in
    order, if they are to be done `singly`. An error of the batches' own is raised after what came before it.
    """
    threads = 1 if singly else 2 * len(devices)
    waiting: deque[Future[Any]] = deque()
    ended: Exception | None = None
    with ThreadPoolExecutor(threads) as pool:
        for device in itertools.cycle(devices):
            try:
                batch = next(batches)
            except Exception as error:  # StopIteration, or what is wrong with the source
                ended = error
                break
            waiting.append(pool.submit(function, batch, device))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if ended is not None and not isinstance(ended, StopIteration):
        raise ended
