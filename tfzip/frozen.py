"""A model's function with its variables made constants: TensorFlow then folds, fuses and lays out what it computes.

What a `tf.data` graph calls is run as it stands. A function inside it that is not inlined is optimized on its own by
Grappler (tensorflow.org/guide/graph_optimization), which can do little about variables, and much about constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfzip import graph

CLOSE = 1e-5
"""How far an output may be from that of the model as it is, and how far of its size, both added up."""


def freeze(function: Any) -> Any | None:
    """The same concrete function without variables; None where it cannot be.

    That is so if it holds anything but variables (hash tables, iterators), or reads one inside a loop or a condition,
    or if TensorFlow lacks what `graph.inline` needs.
    """
    try:
        return _called(function, _constants(function, graph.inline(function)))
    except Exception:  # whatever is odd about a graph, it runs as it is
        return None


def _constants(function: Any, graph_def: tf.compat.v1.GraphDef) -> tf.compat.v1.GraphDef:
    """The part of the graph that the outputs need, with constants in place of what comes from outside.

    What asks more of a resource than the value of a variable is left without its input.
    """
    nodes = graph.by_name(graph_def.node)
    inside = graph.ancestors(nodes, [tensor.name for tensor in function.outputs])
    captures = zip(function.graph.internal_captures, function.captured_inputs, strict=True)
    held = {placeholder.op.name: value for placeholder, value in captures if placeholder.op.name in inside}
    resources = {name for name, value in held.items() if value.dtype == tf.resource}
    frozen = tf.compat.v1.GraphDef(versions=graph_def.versions, library=graph_def.library)
    for node in graph_def.node:
        if node.op == "ReadVariableOp" and node.name in inside:
            handle = held[_origin(nodes, node.input[0])]
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=node.attr["dtype"].type)
            frozen.node.append(_constant(node.name, value))
        elif node.name in held.keys() - resources:
            frozen.node.append(_constant(node.name, held[node.name]))
        elif _origin(nodes, node.name) in resources:
            frozen.node.add(name=node.name, op="NoOp")  # for which others may wait
        elif node.name in inside:
            frozen.node.add().CopyFrom(node)
            frozen.node[-1].attr.pop("_class", None)  # it may ask to be placed beside what is gone
    return frozen


def _origin(nodes: graph.Nodes, reference: str) -> str:
    """The name of what a value is, which identities hand on."""
    name = graph.source(reference)
    while nodes[name].op == "Identity":
        name = graph.source(nodes[name].input[0])
    return name


def _constant(name: str, value: tf.Tensor) -> Any:
    constant = tf.compat.v1.NodeDef(name=name, op="Const")
    constant.attr["dtype"].type = value.dtype.as_datatype_enum
    constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
    return constant


def _called(function: Any, graph_def: tf.compat.v1.GraphDef) -> Any:
    """A graph as a function of its own that is not inlined where it is called."""
    (spec,), _ = function.structured_input_signature
    given, wanted = function.inputs[0].name, [tensor.name for tensor in function.outputs]

    def call(batch: tf.Tensor) -> Any:
        outputs = tf.graph_util.import_graph_def(graph_def, {given: batch}, wanted, name="")
        return tf.nest.pack_sequence_as(function.structured_outputs, outputs, expand_composites=True)

    attributes = {"_noinline": True}
    return tf.function(
        call, input_signature=[spec], autograph=False, experimental_attributes=attributes
    ).get_concrete_function()


def agree(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether outputs by name are the same: floats up to CLOSE, all else exactly."""
    parts = [tf.nest.flatten(dict(outputs), expand_composites=True) for outputs in (one, other)]
    return all(_alike(a.numpy(), b.numpy()) for a, b in zip(*parts, strict=True))


def _alike(one: Any, other: Any) -> bool:
    if one.shape != other.shape:
        return False
    if one.dtype.kind not in "fcV":  # V: bfloat16
        return bool((one == other).all())
    return bool(np.allclose(one.astype(np.float64), other.astype(np.float64), CLOSE, CLOSE, equal_nan=True))
