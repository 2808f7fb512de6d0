"""A frozen function run by TensorFlow Lite, whose kernels on CPUs (XNNPACK) may take half the time of TensorFlow's.

A graph calls it as it calls any function. Its one operation goes through Python, which lets go of its lock while the
interpreter computes, so that several compute side by side, each on one thread.
"""

from __future__ import annotations

import os
import queue
import warnings
import weakref
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfzip import process

Arrays = list[npt.NDArray[Any]]

_PIXELS_AT_ONCE = 100_000  # activations of so many pixels stay in a core's cache
_MOST_AT_ONCE = 128
_MOST_BYTES = 1 << 31  # of all interpreters' weights, about


class Light(NamedTuple):
    """A concrete function with TensorFlow Lite inside, and the interpreters that it lives by: it does not keep them."""

    function: Any
    interpreters: Any


def convert(function: Any, parallel: int) -> Light | None:
    """The same concrete function with TensorFlow Lite inside; None where that cannot run it.

    That is so if it computes what Lite has no operations for, if a shape in it is open besides the batch, or if there
    is no Lite: it is to leave TensorFlow one day.

    Of a batch so many images are computed together as a core's cache holds, and the last of them filled up: its size
    does not matter to what comes of an image, and to how long that takes only if it is far smaller.

    Args:
        function: without variables, of one batch of pixels [batch, height, width, channels].
        parallel: calls at the same time, of which as many compute as there are CPUs.
    """
    if any(not isinstance(output, tf.Tensor) for output in tf.nest.flatten(function.structured_outputs)):
        return None
    try:
        with process.hushed(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the interpreter will leave
            model = _Model.of(function)
            interpreters = _Interpreters(model, min(parallel, os.cpu_count() or 1))
            return Light(_called(function, interpreters), interpreters)
    except Exception:  # whatever is odd about a graph, TensorFlow runs it
        return None


class _Model(NamedTuple):
    """What Lite has of a function: its graph, and what that calls the outputs."""

    content: bytes
    outputs: list[str]

    @classmethod
    def of(cls, function: Any) -> _Model:
        """Convert it for as many images as are computed together: then all shapes are known, and what hangs on them.

        The converter of TensorFlow 1 takes a graph as it is. That of TensorFlow 2 makes it free of variables again, and
        takes twice the time.
        """
        (spec,), _ = function.structured_input_signature
        graph_def, given = function.graph.as_graph_def(), function.inputs[0].name
        wanted = [tensor.name for tensor in function.outputs]
        with tf.Graph().as_default() as graph:
            pixels = tf.compat.v1.placeholder(spec.dtype, (_together(spec), *spec.shape[1:]))
            outputs = tf.graph_util.import_graph_def(graph_def, {given: pixels}, wanted, name="")
            converter = tf.compat.v1.lite.TFLiteConverter(graph.as_graph_def(), [pixels], outputs)
            return cls(converter.convert(), [tensor.op.name for tensor in outputs])


def _together(spec: tf.TensorSpec) -> int:
    """How many images are computed together."""
    fitting = max(1, _PIXELS_AT_ONCE // (spec.shape[1] * spec.shape[2]))
    return min(_MOST_AT_ONCE, 1 << (fitting.bit_length() - 1))


class _Interpreters:
    """Several of one model, each for one call at a time: making one takes as long as several calls."""

    def __init__(self, model: _Model, count: int) -> None:
        self._free: queue.SimpleQueue[_Interpreter] = queue.SimpleQueue()
        for _ in range(max(1, min(count, _MOST_BYTES // len(model.content)))):
            self._free.put(_Interpreter(model))

    def __call__(self, pixels: npt.NDArray[Any]) -> Arrays:
        interpreter = self._free.get()
        try:
            return interpreter(pixels)
        finally:
            self._free.put(interpreter)


class _Interpreter:
    """One of them, which computes some images together."""

    def __init__(self, model: _Model) -> None:
        self._interpreter = tf.lite.Interpreter(model_content=model.content, num_threads=1)
        self._interpreter.allocate_tensors()
        (self._given,) = self._interpreter.get_input_details()
        named = {output["name"]: output for output in self._interpreter.get_output_details()}
        self._wanted = [named[name] for name in model.outputs]  # their order may be another

    def __call__(self, pixels: npt.NDArray[Any]) -> Arrays:
        """The outputs for a batch of any size."""
        together = int(self._given["shape"][0])
        outputs = [np.empty((len(pixels), *output["shape"][1:]), output["dtype"]) for output in self._wanted]
        for start in range(0, len(pixels), together):
            some = slice(start, start + together)
            self._interpreter.set_tensor(self._given["index"], _filled(pixels[some], together))
            self._interpreter.invoke()
            for output, wanted in zip(outputs, self._wanted, strict=True):
                output[some] = self._interpreter.get_tensor(wanted["index"])[: len(output[some])]
        return outputs


def _filled(pixels: npt.NDArray[Any], rows: int) -> npt.NDArray[Any]:
    """Images, and black ones in place of those that are missing."""
    if len(pixels) == rows:
        return pixels
    return np.concatenate([pixels, np.zeros((rows - len(pixels), *pixels.shape[1:]), pixels.dtype)])


def _called(function: Any, interpreters: _Interpreters) -> Any:
    """What computes the outputs, in the place of the function."""
    (spec,), _ = function.structured_input_signature
    kept = weakref.ref(interpreters)

    def run(pixels: npt.NDArray[Any]) -> Arrays:  # TensorFlow never lets go of this
        alive = kept()
        assert alive is not None
        return alive(pixels)

    def call(batch: tf.Tensor) -> Any:
        outputs = tf.numpy_function(run, [batch], [tensor.dtype for tensor in function.outputs], stateful=False)
        for output, like in zip(outputs, function.outputs, strict=True):
            output.set_shape(like.shape)
        return tf.nest.pack_sequence_as(function.structured_outputs, outputs)

    return tf.function(call, input_signature=[spec], autograph=False).get_concrete_function()
