"""A concrete function's graph, laid open: its calls inlined, and what depends on what in it."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

Nodes = Mapping[str, Any]
"""The nodes of a graph, or of a function in its library, by name."""


def inline(function: Any) -> tf.compat.v1.GraphDef:
    """The function's graph with the functions it calls put in their places, its variables still outside.

    TensorFlow has no public name for this step, which its converters begin with.
    """
    from tensorflow.core.protobuf import config_pb2
    from tensorflow.python.grappler import tf_optimizer

    graph = function.graph
    meta_graph = tf.compat.v1.train.export_meta_graph(graph_def=graph.as_graph_def(), graph=graph, collection_list=[])
    meta_graph.collection_def["train_op"].node_list.value.extend(tensor.name for tensor in graph.outputs)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1  # small graphs too
    config.graph_options.rewrite_options.optimizers.append("function")
    return tf_optimizer.OptimizeGraph(config, meta_graph)


def by_name(nodes: Iterable[Any]) -> Nodes:
    """Nodes by name."""
    return {node.name: node for node in nodes}


def source(reference: str) -> str:
    """The node that an input refers to: `name`, `name:1`, `^name`, or in a library `name:output:0`."""
    return reference.lstrip("^").split(":")[0]


def ancestors(nodes: Nodes, references: Iterable[str], without: Container[str] = ()) -> set[str]:
    """The nodes that values depend on, themselves included, and the names of what comes from outside."""
    found: set[str] = set()
    waiting = [source(reference) for reference in references]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in without:
            found.add(name)
            waiting.extend(source(reference) for reference in (nodes[name].input if name in nodes else ()))
    return found


def called(node: Any) -> Iterator[str]:
    """The functions of the library that a node calls."""
    for _, attribute in sorted(node.attr.items()):  # which a map has in any order
        yield from (function.name for function in (attribute.func, *attribute.list.func) if function.name)


def constant(nodes: Nodes, reference: str) -> Any:
    """The value of a constant, also behind an identity or as a default; None if it is none."""
    node = nodes.get(source(reference))
    while node is not None and node.op in ("Identity", "StopGradient", "PlaceholderWithDefault"):
        node = nodes.get(source(node.input[0]))
    return tf.make_ndarray(node.attr["value"].tensor) if node is not None and node.op == "Const" else None


def switched_off(nodes: Nodes) -> set[str]:
    """The nodes in branches that a constant switches off, as TensorFlow 1 does with dropout."""
    dead: set[str] = set()

    def off(reference: str) -> bool:
        node = nodes.get(source(reference))
        if node is None or node.op != "Switch" or reference.startswith("^"):
            return source(reference) in dead
        taken = constant(nodes, node.input[1])
        port = reference.endswith((":1", ":output_true:0"))
        return node.name in dead or (taken is not None and bool(taken) != port)

    if not any(node.op == "Switch" for node in nodes.values()):
        return dead
    while True:  # until a pass finds no more: nodes need not stand in the order in which they run
        before = len(dead)
        for name, node in nodes.items():
            ends = all if node.op == "Merge" else any
            if name not in dead and node.input and ends(off(reference) for reference in node.input):
                dead.add(name)
        if len(dead) == before:
            return dead


def fingerprint(function: Any) -> str:
    """SHA-256 of what a function computes: its operations, and the values that it holds.

    Names are left out: TensorFlow counts them up from one trace to the next.
    """
    graph_def = function.graph.as_graph_def()
    library = {body.signature.name: body for body in graph_def.library.function}
    digest = hashlib.sha256(_digest(graph_def.node, [], library))
    for variable in function.variables:
        digest.update(f"{variable.dtype.name}{variable.shape}".encode() + variable.numpy().tobytes())
    for value in function.captured_inputs:
        if value.dtype not in (tf.resource, tf.variant):
            digest.update(f"{value.dtype.name}{value.shape}".encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _digest(nodes: Sequence[Any], arguments: Iterable[str], library: Mapping[str, Any]) -> bytes:
    """Of each operation: what it is, its attributes, the places of its inputs, and the functions that it calls."""
    places = {name: str(place) for place, name in enumerate([*arguments, *(node.name for node in nodes)])}
    digest = hashlib.sha256()
    for node in nodes:
        inputs = [places.get(source(reference), "") + reference[len(source(reference)) :] for reference in node.input]
        digest.update(f"{node.op}{inputs}".encode())
        for name, value in sorted(node.attr.items()):
            if not (name.startswith("_") or name == "config_proto" or value.HasField("func") or value.list.func):
                digest.update(name.encode() + value.SerializeToString(deterministic=True))
        for name in called(node):
            body = library[name]
            digest.update(_digest(body.node_def, [argument.name for argument in body.signature.input_arg], library))
    return digest.digest()
