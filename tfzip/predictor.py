"""A model -> a graph function, images in, named tensors out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from tfzip import effects, frozen, graph, inputs, lite, models, parsing
from tfzip.errors import ModelError
from tfzip.inputs import Input
from tfzip.models.model import Model, Outputs, first_line

_NO_ROWS = "does not have one row an image"


@dataclass(frozen=True)
class Predictor:
    """A model made ready for the graph.

    `function` is a ConcreteFunction of one batch, as `input.spec` has it, that gives a dict of tensors by output name.
    `fingerprint` is a SHA-256 of the model's file, files, weights or graph; None of predictions that come one by one.
    A `stateful` one must be given its batches one at a time, in order. `labels` are class names that came with it.
    Of a `frozen` one the function holds constants in place of variables; if it is `lite`, TensorFlow Lite computes it.
    """

    name: str
    format: str
    fingerprint: str | None
    signature: str | None
    input: Input
    function: Any
    stateful: bool
    labels: tuple[str, ...]
    model: Any  # keeps the variables alive: a ConcreteFunction does not
    frozen: bool = False
    lite: bool = False

    @property
    def outputs(self) -> Mapping[str, tf.TensorSpec]:
        """The outputs by name, batch dimension included; ragged dimensions are None."""
        outputs = self.function.structured_outputs
        return {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in outputs.items()}


def load(
    model: Any,
    signature: str | None = None,
    image_size: tuple[int, int] | None = None,
    *,
    trust: bool = False,
    imports: Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
    fingerprint: str | None = None,
    device: str = "CPU:0",
) -> Predictor:
    """Make a model ready.

    Args:
        model: whatever `models.open_model` opens; `signature`, `trust`, `imports` and `weights` are for it.
        signature: of a SavedModel; None for `serving_default`.
        image_size: height and width, where the model leaves them open.
        trust: allow Keras to load code from the file.
        imports: modules to import first.
        weights: file of an application's weights.
        fingerprint: the one that it must have; None for any.
        device: that holds its variables. Of a GPU, `Dataset.map` cannot use them: it runs on the CPU.

    Raises ModelError if it cannot be loaded, does not take one batch of images, draws random numbers, or is another.
    """
    with tf.device(device):
        opened = models.open_model(model, signature=signature, trust=trust, imports=imports, weights=weights)
        _check_same(opened.name, opened.fingerprint, fingerprint)
        given = inputs.choose(opened.name, opened.inputs, image_size)
        function = _trace(opened, given)
        if given.takes == "encoded" and (key := parsing.image_key(opened.name, function)):
            given = replace(given, takes="example", key=key)
            function = _trace(opened, given)
        if drawn := effects.random_operation(function):
            raise ModelError(
                f"{opened.name}: its outputs depend on random numbers, drawn by {drawn}.\n"
                "Save it for inference, without augmentation: Keras' own file has that switched off"
            )
        found = opened.fingerprint or graph.fingerprint(function)
        _check_same(opened.name, found, fingerprint)
        return Predictor(
            name=opened.name,
            format=opened.format,
            fingerprint=found,
            signature=opened.signature,
            input=given,
            function=function,
            stateful=effects.writes_state(function),
            labels=opened.labels,
            model=opened.kept,
        )


def freeze(predictor: Predictor) -> Predictor:
    """The same with constants in place of variables, which TensorFlow runs faster; itself where that cannot be."""
    if predictor.input.takes != "pixels" or predictor.stateful:
        return predictor
    function = frozen.freeze(predictor.function)
    return predictor if function is None else replace(predictor, function=function, frozen=True)


def lighten(predictor: Predictor, parallel: int) -> Predictor:
    """A frozen one computed by TensorFlow Lite, so many calls at a time; itself where that cannot be.

    Lite knows no assertions: a model that refuses some images by one of its own would take them.
    """
    if not predictor.frozen or predictor.input.dtype != tf.float32 or _asserts(predictor.function):
        return predictor
    light = lite.convert(predictor.function, parallel)
    if light is None:
        return predictor
    return replace(predictor, function=light.function, model=(predictor.model, light.interpreters), lite=True)


def _asserts(function: Any) -> bool:
    """Whether a function asserts anything, but that there is a row for each image."""
    graph_def = function.graph.as_graph_def()
    for nodes in (graph_def.node, *(body.node_def for body in graph_def.library.function)):
        named = graph.by_name(nodes)
        for node in nodes:
            said = graph.constant(named, node.input[1]) if node.op == "Assert" else None
            if node.op == "Assert" and (said is None or _NO_ROWS.encode() not in bytes(said.item())):
                return True
    return False


def _check_same(model: str, found: str | None, wanted: str | None) -> None:
    if found and wanted and found != wanted:
        raise ModelError(f"{model} is another model: its SHA-256 begins with {found[:12]}, not with {wanted[:12]}")


def _trace(model: Model, given: Input) -> Any:
    def call(batch: tf.Tensor) -> Outputs:
        fitted = given.fit(batch)
        outputs = model.call(fitted)
        for name, output in outputs.items():
            _check_rows(model.name, name, output, tf.shape(fitted)[0], given.batch)
        if given.batch is None:
            return outputs
        rows = tf.shape(batch)[0]
        return {name: output[:rows] for name, output in outputs.items()}

    try:
        return tf.function(call, input_signature=[given.spec], autograph=False).get_concrete_function()
    except ModelError:
        raise
    except Exception as error:  # tracing runs the model's own code
        shown = f"{inputs.show(given.spec)} {given.dtype.name}"
        raise ModelError(f"{model.name}: the model cannot be called on images {shown}: {first_line(error)}") from error


def _check_rows(model: str, name: str, output: Any, rows: tf.Tensor, batch: int | None) -> None:
    """An output must have a row for each image, as far as its shape tells now; and so again in every batch."""
    if output.shape.rank == 0 or (output.shape.rank and output.shape[0] not in (None, batch)):
        wanted = "open batch dimension" if batch is None else f"batch of {batch}"
        raise ModelError(f"{model}: its output {name} {inputs.show(output)} has no {wanted} first")
    found = output.nrows(tf.int32) if isinstance(output, tf.RaggedTensor) else tf.shape(output)[0]
    said = f"the output {name} {_NO_ROWS}; rows:"
    tf.raw_ops.Assert(condition=found == rows, data=[said, found])  # the one of tf.debugging looks up the call stack
