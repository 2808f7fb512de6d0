"""A model as it was found: how it is called, what it takes, and what it says of itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

Outputs = dict[str, Any]
"""The outputs of a model by name, each a Tensor or RaggedTensor."""


@dataclass(frozen=True)
class Model:
    """One model, whatever it was made with.

    `inputs` are the tensors that it takes, by name, empty where it does not say; `call` gives its outputs for one of
    them. `fingerprint` is the SHA-256 of its file, files or weights; None where nothing but its graph is known.
    `labels` are class names that come with it.
    """

    name: str
    format: str
    inputs: Mapping[str, tf.TensorSpec]
    call: Callable[[tf.Tensor], Outputs]
    kept: Any  # keeps the variables alive: a ConcreteFunction does not
    fingerprint: str | None = None
    signature: str | None = None
    labels: tuple[str, ...] = ()


def named(outputs: Any, names: Sequence[str] = ()) -> Outputs:
    """Outputs of any structure as a flat dict; `names` are used where the structure has none and they are as many.

    Raises TypeError where one of them is no tensor.
    """
    if not isinstance(outputs, Mapping):
        values = tf.nest.flatten(outputs)
        if len(names) != len(values):
            names = ["output"] if len(values) == 1 else [f"output_{i}" for i in range(len(values))]
        outputs = dict(zip(names, values, strict=True))
    return {str(name): _tensor(str(name), value) for name, value in outputs.items()}


def _tensor(name: str, value: Any) -> Any:
    if isinstance(value, tf.RaggedTensor):
        return value
    try:
        return tf.convert_to_tensor(value)
    except (TypeError, ValueError):
        raise TypeError(f"its output {name} is a {type(value).__name__}, no tensor") from None


def first_line(error: BaseException) -> str:
    """The line of a long message that says what is wrong; Keras begins some with where it happened, in colours."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    unknown = [line for line in lines if "Could not locate" in line]
    return (unknown or lines or [type(error).__name__])[0]
