"""What a model's graph shows of itself: the pixel range it was trained on, and what its outputs are.

A wrong pixel scale gives wrong labels in silence. So the range is judged by values: everything that the graph does to
the pixels before its first weights (Rescaling, Normalization, inlined arithmetic, in whatever form the model was saved)
is evaluated on a few constant images, and the slope and offset found there tell what range it was made for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfzip import graph

_PIXELWISE = frozenset(
    [
        "Add",
        "AddV2",
        "BiasAdd",
        "Cast",
        "ClipByValue",
        "ConcatV2",
        "Div",
        "EnsureShape",
        "ExpandDims",
        "GatherV2",
        "Identity",
        "IdentityN",
        "Maximum",
        "Minimum",
        "MirrorPad",
        "Mul",
        "Neg",
        "Pack",
        "Pad",
        "PadV2",
        "RealDiv",
        "Reshape",
        "ResizeArea",
        "ResizeBicubic",
        "ResizeBilinear",
        "ResizeNearestNeighbor",
        "ReverseV2",
        "Snapshot",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "Sub",
        "Transpose",
        "Unpack",
    ]
)
"""Operations that move pixels or change each by itself; the first other one is where the model's weights begin."""

_APPLICATIONS = (
    # keras.applications without a rescaling of their own, by the names they give themselves; the range is that of
    # their `preprocess_input`.
    (re.compile(r"mobilenet(v2)?_[0-9.]+_(\d+|None)"), "symmetric"),
    (
        re.compile(r"xception|inception_v3|inception_resnet_v2|NASNet|nasnet_(mobile|large)|resnet(50|101|152)v2"),
        "symmetric",
    ),
    (re.compile(r"resnet(50|101|152)|vgg(16|19)"), "caffe"),
    (re.compile(r"densenet(121|169|201)"), "torch"),
)


class Scale(NamedTuple):
    """A pixel scale, and how it became known: `option`, `model` (its own arithmetic), or `application` (its name)."""

    name: str
    origin: str


class Evidence(NamedTuple):
    """What the graph shows; None where it shows nothing."""

    scale: Scale | None
    activations: dict[str, str | None]  # of each output: softmax, sigmoid, linear


def gather(function: Any, size: tuple[int, int] | None) -> Evidence:
    """Look at a concrete function of one image batch.

    Args:
        function: a ConcreteFunction, pixels [B, H, W, C] or encoded images [B] -> dict of outputs.
        size: height and width to try it on; None for encoded images, which have no scale.
    """
    try:
        graph_def = graph.inline(function)
        imported = tf.Graph()
        with imported.as_default():
            tf.graph_util.import_graph_def(graph_def, name="")
        ends = _ends(function)
        outputs = {name: imported.get_tensor_by_name(end) for name, end in ends.items()}
        pixels = imported.get_tensor_by_name(function.inputs[0].name)
    except Exception:  # whatever goes wrong, the graph then shows nothing and the user is asked
        return Evidence(None, dict.fromkeys(function.structured_outputs))

    def line(tensor: Any) -> tuple[float, float] | None:
        return _line(_subgraph(function, graph_def, tensor.name), pixels, size) if size else None

    activations: dict[str, str | None] = dict.fromkeys(function.structured_outputs)
    activations |= {name: _activation(tensor) for name, tensor in outputs.items()}
    return Evidence(_scale(pixels, line), activations)


def _ends(function: Any) -> dict[str, str]:
    """The tensor that is each output, ragged ones left out, which are several."""
    structure = function.structured_outputs
    parts = [tf.nest.flatten(structure[name], expand_composites=True) for name in sorted(structure)]  # a dict's order
    ends = iter(function.outputs)
    taken = {name: [next(ends).name for _ in part] for name, part in zip(sorted(structure), parts, strict=True)}
    return {name: tensors[0] for name, tensors in taken.items() if len(tensors) == 1}


def _subgraph(function: Any, graph_def: tf.compat.v1.GraphDef, tensor: str) -> Callable[[tf.Tensor], tf.Tensor]:
    """The part of the graph between the pixels and a tensor, with the variables that it reads."""
    inside = graph.ancestors(graph.by_name(graph_def.node), [tensor])
    part = tf.compat.v1.GraphDef(node=[node for node in graph_def.node if node.name in inside])
    for node in part.node:
        node.attr.pop("_class", None)  # it may ask to be placed beside one that is left out
    pixels = function.inputs[0].op.name
    captured = {
        placeholder.op.name: outside
        for placeholder, outside in zip(function.graph.internal_captures, function.captured_inputs, strict=True)
        if placeholder.op.name in inside
    }

    def run(image: tf.Tensor) -> tf.Tensor:
        inputs = {f"{name}:0": tf.identity(value) for name, value in {pixels: image, **captured}.items()}
        return tf.graph_util.import_graph_def(part, inputs, [tensor])[0]

    spec = tf.TensorSpec(None, function.inputs[0].dtype)
    return tf.function(run, input_signature=[spec], autograph=False).get_concrete_function()


# The pixel scale.


def _scale(pixels: Any, line: Callable[[Any], tuple[float, float] | None]) -> Scale | None:
    if pixels.dtype == tf.uint8:
        return Scale("raw", "model")
    entries = list(_entries(pixels))
    lines = [line(tensor) for tensor in {tensor.name: tensor for tensor, _ in entries}.values()]
    shown = {judge(*found) if found else None for found in lines}
    if len(shown) == 1 and (name := shown.pop()):
        return Scale(name, "model")
    identity = all(found is not None and np.allclose(found, (1, 0)) for found in lines)
    names = {_application(consumer.name) for _, consumer in entries}
    if identity and len(names) == 1 and (name := names.pop()):
        return Scale(name, "application")
    return None


def judge(slope: float, offset: float) -> str | None:
    """The pixel range for which `slope * pixel + offset` gives a network what it likes: a few units around zero.

    None where it does not tell: the identity above all.
    """
    if 0.4 <= 255 * slope <= 8 and abs(127.5 * slope + offset) <= 4:
        return "raw"  # 1/255, 1/127.5 with -1, (x - mean) / deviation
    if np.isclose(slope, 1, rtol=1e-3) and -160 <= offset <= -30:
        return "raw"  # a mean subtracted
    if np.isclose(slope, offset, rtol=1e-3) and (0.4 <= slope <= 0.6 or 100 <= slope <= 150):
        return "symmetric"  # (x + 1) / 2, (x + 1) * 127.5
    if slope >= 200 and offset <= 0:
        return "unit"  # x * 255, a mean subtracted or not
    if slope >= 1.5 and slope <= 8 and -0.8 * slope <= offset <= -0.2 * slope:
        return "unit"  # 2 x - 1, (x - mean) / deviation
    return None


def _entries(pixels: Any) -> Iterator[tuple[Any, Any]]:
    """The tensors with which the pixels enter the first operations that are not pixelwise, and those operations."""
    seen, waiting = set(), [pixels]
    while waiting:
        tensor = waiting.pop()
        for consumer in tensor.consumers():
            if consumer.type in _PIXELWISE:
                if consumer.name not in seen:
                    seen.add(consumer.name)
                    waiting.extend(consumer.outputs)
            elif consumer.type not in ("Shape", "NoOp"):
                yield tensor, consumer


def _line(function: Callable[[tf.Tensor], tf.Tensor], pixels: Any, size: tuple[int, int]) -> tuple[float, float] | None:
    """Slope and offset of what a function makes of a pixel; None if it is no line."""
    shape = (1, *size, pixels.shape[-1])
    try:
        zero, one, top = (
            np.asarray(function(tf.fill(shape, tf.cast(value, pixels.dtype))), np.float64) for value in (0, 1, 255)
        )
    except (tf.errors.OpError, ValueError, TypeError):
        return None
    slope = (top - zero) / 255
    moved = slope != 0  # padding is not
    if not moved.any() or not np.allclose(one - zero, slope, rtol=1e-2, atol=1e-6):
        return None
    return float(slope[moved].mean()), float(zero[moved].mean())


def _application(name: str) -> str | None:
    """The scale of the keras.applications model in whose scope an operation lies."""
    scopes = [re.sub(r"_\d$", "", scope) for scope in name.split("/")]
    for pattern, scale in _APPLICATIONS:
        if any(pattern.fullmatch(scope) for scope in scopes):
            return scale
    return None


# The outputs.

_PASSING = frozenset(("Identity", "IdentityN", "Reshape", "Squeeze", "Cast", "Snapshot"))
_ACTIVATIONS = {
    "Softmax": "softmax",
    "Sigmoid": "sigmoid",
    # The softmax of log-probabilities is the probabilities, so they are as good as logits.
    **dict.fromkeys(("MatMul", "BatchMatMulV2", "LogSoftmax"), "linear"),
}


def _activation(tensor: Any) -> str | None:
    """What made an output: softmax, sigmoid or linear; None if something else."""
    while tensor.op.type in _PASSING or _cuts_rows(tensor):
        tensor = tensor.op.inputs[tensor.value_index]  # IdentityN has several
    operation = tensor.op
    if operation.type in ("Add", "AddV2", "BiasAdd"):  # linear if what is added is; a bias is nothing of the three
        return "linear" if {_activation(added) for added in operation.inputs} - {None} == {"linear"} else None
    return _ACTIVATIONS.get(operation.type)


def _cuts_rows(tensor: Any) -> bool:
    """Whether a tensor is some rows of another, whole: `x[:n]`, as a fixed batch loses what filled it up."""
    operation = tensor.op
    if operation.type != "StridedSlice" or operation.inputs[1].shape != [1]:  # more axes than the first are cut
        return False
    return not any(operation.get_attr(f"{mask}_mask") for mask in ("shrink_axis", "new_axis", "ellipsis"))
