"""`Dataset.map` that stays on one thread, for a function without branches, loops and calls.

TensorFlow hands every call of a map's function to a pool of threads, and waits. For a few small operations on each
element that takes longer than they do. A map may leave it out, and goes through the operations one after the other;
but that map knows no functions inside its function, which is what branches and loops are, and waits for them for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfzip import graph
from tfzip.sources import Element


def mapped(dataset: Any, function: Callable[[Element], Element]) -> Any:
    """What `dataset.map(function)` gives; elements are dicts of tensors. On one thread where that can be."""
    traced = tf.function(function, [dataset.element_spec], autograph=False).get_concrete_function()
    structure = {name: tf.TensorSpec(out.shape, out.dtype) for name, out in traced.structured_outputs.items()}
    specs = tf.nest.flatten(structure)  # in the order that TensorFlow has the outputs in: of their names
    variant = tf.raw_ops.MapDataset(
        input_dataset=tf.data.experimental.to_variant(dataset),
        other_arguments=traced.captured_inputs,
        f=traced,
        output_types=[spec.dtype for spec in specs],
        output_shapes=[spec.shape for spec in specs],
        use_inter_op_parallelism=not is_straight(traced),
    )
    return tf.data.experimental.from_variant(variant, structure)


def is_straight(function: Any) -> bool:
    """Whether a concrete function's operations call no functions, and none of them is left out of a run."""
    return not any(
        node.op in ("Switch", "RefSwitch") or any(graph.called(node)) for node in function.graph.as_graph_def().node
    )
