"""Callables: Python functions, `tf.function`s, `tf.Module`s, and whatever else can be called on a batch."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from tfzip.errors import ModelError
from tfzip.models.model import Model, Outputs, named

_DECLARING = ("input_signature", "structured_input_signature", "concrete_functions")
"""Where a `tf.function`, a concrete one, and one out of a SavedModel say what they take."""


def find(path: str) -> Any:
    """The object at `package.module:attribute`."""
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for name in attribute.split("."):
            found = getattr(found, name)
    except Exception as error:  # the module's own code may raise anything
        raise ModelError(f"{path}: cannot be imported ({type(error).__name__}: {error})") from error
    return found


def from_callable(function: Any, name: str) -> Model:
    """A callable of one batch; with `training=False` if it has such a parameter."""
    plain = inspect.isroutine(function) or any(hasattr(function, name) for name in _DECLARING)
    target = function if plain else function.__call__
    inputs, keyword = _declared(target)
    more = {"training": False} if _takes_training(target) else {}

    def call(batch: tf.Tensor) -> Outputs:
        return named(target(**{keyword: batch}, **more) if keyword else target(batch, **more))

    return Model(name, "function", inputs, call, function)


def _takes_training(function: Callable[..., Any]) -> bool:
    try:
        return "training" in inspect.signature(function).parameters
    except (TypeError, ValueError):  # built-in functions need not tell
        return False


def _declared(function: Any) -> tuple[Mapping[str, tf.TensorSpec], str | None]:
    """The tensors that a callable says it takes, and the keyword if it takes them by keyword only.

    Of the concrete functions in a SavedModel the first speaks for all; a plain Python function says nothing.
    """
    concrete = next(iter(getattr(function, "concrete_functions", ())), function)
    positional, keywords = getattr(concrete, "structured_input_signature", ((), {}))
    if not (positional or keywords):
        positional = getattr(function, "input_signature", None) or ()
    specs = [spec for spec in tf.nest.flatten((positional, keywords)) if isinstance(spec, tf.TensorSpec)]
    by_name = {spec.name or f"input_{i}": spec for i, spec in enumerate(specs)}
    return by_name, None if positional else next(iter(keywords), None)
