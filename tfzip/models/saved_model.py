"""SavedModels of any origin: by their signature, or where they have none, called as they are."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import tensorflow as tf

from tfzip import labels, storage
from tfzip.errors import ModelError, UsageError
from tfzip.models import function
from tfzip.models.model import Model, Outputs, first_line, named

_DEFAULT = "serving_default"
_LABELS = ("labels.txt", "classes.txt", "class_names.txt", "label_map.txt", "vocabulary.txt", "vocab.txt")


def is_folder(path: str) -> bool:
    """Whether a SavedModel lies there."""
    return storage.exists(storage.join(path, "saved_model.pb"))


def is_loaded(model: Any) -> bool:
    """Whether an object is what `tf.saved_model.load` gives."""
    return hasattr(model, "signatures") and hasattr(model, "tensorflow_version")


def from_folder(path: str, name: str, fingerprint: str, signature: str | None) -> Model:
    """A SavedModel folder.

    Args:
        path: of the folder.
        name: to call the model by.
        fingerprint: of its files.
        signature: None for `serving_default`, or for the object itself where it has no signatures but can be called.
    """
    try:
        model = tf.saved_model.load(path)
    except Exception as error:  # a damaged SavedModel raises whatever its content leads to
        raise ModelError(f"{path}: TensorFlow cannot load it: {first_line(error)}") from error
    found = from_object(model, path, signature)
    return dataclasses.replace(found, name=name, fingerprint=fingerprint, labels=_labels(path))


def from_object(model: Any, name: str, signature: str | None) -> Model:
    """A SavedModel that is loaded."""
    if not model.signatures and signature is None and callable(model):
        return dataclasses.replace(function.from_callable(model, name), format="saved_model")
    signature = signature or _DEFAULT
    if signature not in model.signatures:
        known = ", ".join(model.signatures) or "none"
        raise ModelError(f"{name}: no signature {signature!r}; it has {known}")
    served = model.signatures[signature]
    inputs = served.structured_input_signature[1]

    def call(batch: tf.Tensor) -> Outputs:
        return named(served(**dict.fromkeys(inputs, batch)))

    return Model(name, "saved_model", inputs, call, model, signature=signature)


def _labels(path: str) -> tuple[str, ...]:
    """The class names among a SavedModel's assets, by the names that such files usually have."""
    for folder in ("assets.extra", "assets"):
        for name in _LABELS:
            file = storage.join(storage.join(path, folder), name)
            if storage.exists(file):
                with contextlib.suppress(UsageError):  # whatever it is, it is no list of names
                    return labels.read(file)
    return ()
