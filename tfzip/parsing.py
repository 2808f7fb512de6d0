"""The features that a model takes out of serialized `tf.train.Example`s, as its graph shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

from tfzip import graph
from tfzip.errors import ModelError
from tfzip.record import ENCODED


class Feature(NamedTuple):
    """A feature that is parsed; `required` if an Example without it is an error."""

    key: str
    dtype: tf.DType
    required: bool


def image_key(model: str, function: Any) -> str | None:
    """The feature that holds the image, of a function of serialized Examples; None if it parses none.

    Raises ModelError where no feature or several may be the image, or others are required beside it.
    """
    features = list(dict.fromkeys(_features(function)))
    if not features:
        return None
    shown = ", ".join(f"{feature.key} ({feature.dtype.name})" for feature in features)
    keys = [feature.key for feature in features if feature.dtype == tf.string]
    key = ENCODED if ENCODED in keys else keys[0] if len(keys) == 1 else None
    if key is None:
        raise ModelError(
            f"{model}: it parses tf.Examples with the features {shown}; cannot tell which is the image.\n"
            f"Save a signature whose image is {ENCODED}, or the only one of strings"
        )
    if others := [feature.key for feature in features if feature.required and feature.key != key]:
        raise ModelError(
            f"{model}: it parses tf.Examples and requires {', '.join(others)} beside the image in {key}; "
            "save a signature that takes the image alone"
        )
    return key


def _features(function: Any) -> Iterator[Feature]:
    graph_def = graph.inline(function)
    for body in (graph_def.node, *(function.node_def for function in graph_def.library.function)):
        nodes = graph.by_name(body)
        for node in body:
            if node.op in _PARSERS:
                yield from _PARSERS[node.op](nodes, node)


def _of_inputs(nodes: graph.Nodes, node: Any) -> Iterator[Feature]:
    """Of ParseExampleV2, whose keys are three vectors."""
    sparse, dense, ragged = (graph.constant(nodes, reference) for reference in node.input[2:5])
    yield from _optional(sparse, node.attr["sparse_types"])
    yield from _dense(nodes, dense, node.attr["Tdense"], node.input[5:])
    yield from _optional(ragged, node.attr["ragged_value_types"])


def _of_many_inputs(nodes: graph.Nodes, node: Any) -> Iterator[Feature]:
    """Of ParseExample, TensorFlow 1's, with an input for each key."""
    first, second = 2 + node.attr["Nsparse"].i, 2 + node.attr["Nsparse"].i + node.attr["Ndense"].i
    keys = [graph.constant(nodes, reference).item() for reference in node.input[2:second]]
    yield from _optional(keys[: first - 2], node.attr["sparse_types"])
    yield from _dense(nodes, keys[first - 2 :], node.attr["Tdense"], node.input[second:])


def _of_attributes(nodes: graph.Nodes, node: Any) -> Iterator[Feature]:
    """Of ParseSingleExample, TensorFlow 1's, whose keys are attributes."""
    yield from _optional(node.attr["sparse_keys"].list.s, node.attr["sparse_types"])
    yield from _dense(nodes, node.attr["dense_keys"].list.s, node.attr["Tdense"], node.input[1:])


_PARSERS: Mapping[str, Callable[[graph.Nodes, Any], Iterator[Feature]]] = {
    "ParseExampleV2": _of_inputs,
    "ParseExample": _of_many_inputs,
    "ParseSingleExample": _of_attributes,
}


def _optional(keys: Iterable[Any], types: Any) -> Iterator[Feature]:
    for key, dtype in zip(keys, types.list.type, strict=True):
        yield Feature(tf.compat.as_str(key), tf.as_dtype(dtype), False)


def _dense(nodes: graph.Nodes, keys: Iterable[Any], types: Any, defaults: Iterable[str]) -> Iterator[Feature]:
    """Features of one shape; those whose default is empty are required."""
    for key, dtype, reference in zip(keys, types.list.type, defaults, strict=True):
        default = graph.constant(nodes, reference)
        yield Feature(tf.compat.as_str(key), tf.as_dtype(dtype), default is not None and default.size == 0)
