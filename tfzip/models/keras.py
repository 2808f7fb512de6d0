"""Keras models: files and objects of Keras 3, of Keras 2 through tf_keras, and the applications."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfzip import storage
from tfzip.errors import ModelError
from tfzip.models.model import Model, Outputs, first_line, named

SUFFIXES = (".keras", ".h5", ".hdf5")
_IMAGENET_CLASSES = 1000


def is_model(model: Any) -> bool:
    """Whether an object is a Keras model, of Keras 3 or 2."""
    return _is_of("keras", model) or _is_of("tf_keras", model)


def _is_of(package: str, model: Any) -> bool:
    """Whether an object is a model of this Keras; of one that nobody has imported it cannot be."""
    return package in sys.modules and isinstance(model, getattr(sys.modules[package], "Model", ()))


def from_object(model: Any, name: str | None = None, fingerprint: str | None = None) -> Model:
    """A Keras model in memory; the fingerprint, if not given, is of its configuration and weights."""
    legacy = _is_of("tf_keras", model)
    keras = sys.modules["tf_keras"] if legacy else framework()
    name = name or model.name
    inputs = _inputs(model, name)
    names = _output_names(model)
    structure = None if isinstance(model, keras.Sequential) else model.input  # which may be a list or a dict of one

    def call(pixels: tf.Tensor) -> Outputs:
        given = tf.nest.map_structure(lambda _: pixels, structure)
        return named(model(given, training=False), names)

    return Model(
        name=name,
        format="tf_keras" if legacy else "keras",
        inputs=inputs,
        call=call,
        kept=model,
        fingerprint=fingerprint or _fingerprint(_configuration(model), model),
    )


def from_file(path: str, name: str, fingerprint: str, *, trust: bool, known: Mapping[str, Any]) -> Model:
    """A `.keras` or `.h5` file.

    Args:
        path: of the file.
        name: to call the model by.
        fingerprint: of the file.
        trust: let Keras load code from the file.
        known: custom layers and functions, by name.
    """
    file = storage.Local(path)  # an .h5 file is read by its name on the disk
    arguments = {"compile": False, "safe_mode": not trust, "custom_objects": dict(known)}
    try:
        return from_object(framework().models.load_model(file.path, **arguments), name, fingerprint)
    except ModelError:
        raise
    except Exception as error:  # Keras raises whatever the file's content leads to
        if not _says_keras_2(file.path):
            raise ModelError(f"{path}: Keras cannot load it: {_said(error, file.path, path)}{_hint(trust)}") from error
    tf_keras = _tf_keras(path)
    if not trust and _holds_code(file.path):
        raise ModelError(f"{path}: it holds code, in a Lambda layer; --trust-model lets that run")
    try:
        return from_object(tf_keras.models.load_model(file.path, **arguments), name, fingerprint)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{path}: neither Keras 3 nor tf_keras can load it: {_said(error, file.path, path)}{_hint(trust)}"
        ) from error


def _said(error: Exception, local: str, path: str) -> str:
    """What an error says, with the path that the user knows."""
    return first_line(error).replace(local, path)


def _hint(trust: bool) -> str:
    return "" if trust else " (--trust-model allows code inside, if it asks for that)"


def application(name: str, weights: str | None) -> Model:
    """A model of `keras.applications` by its name, with its ImageNet weights or those in a file."""
    keras = framework()
    makers = {maker: getattr(keras.applications, maker) for maker in dir(keras.applications)}
    makers = {maker: function for maker, function in makers.items() if callable(function)}
    if name not in makers:
        near = difflib.get_close_matches(name, makers, 3, 0.4) or ["MobileNetV2", "ResNet50"]
        raise ModelError(f"keras:{name}: no such application of Keras; there are {', '.join(near)} and others")
    if weights is not None and not storage.exists(weights):
        raise ModelError(f"--weights {weights}: no such file")
    try:
        model = makers[name](weights="imagenet" if weights is None else storage.Local(weights).path)
        labels = _imagenet_names(keras) if weights is None else ()
    except Exception as error:
        what = f"--weights {weights} cannot be loaded" if weights else "its weights or class names cannot be downloaded"
        hint = "" if weights else "; download the weights and give them with --weights"
        raise ModelError(f"keras:{name}: {what} ({first_line(error)}){hint}") from error
    found = from_object(model, f"keras:{name}", _fingerprint(name, model))  # its layers' names count up as Keras runs
    return dataclasses.replace(found, labels=labels)


def framework() -> Any:
    """The package keras, on TensorFlow."""
    try:
        import keras

        backend = keras.backend.backend()
    except ImportError as error:  # also where the backend that is asked for is not installed
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        if backend == "tensorflow":
            raise ModelError(f"Keras cannot be imported: {first_line(error)}") from error
    if backend != "tensorflow":
        raise ModelError(
            f"Keras runs on {backend} here, whose models cannot be fused into a TensorFlow graph: "
            "set KERAS_BACKEND=tensorflow"
        )
    return keras


def _tf_keras(path: str) -> Any:
    try:
        import tf_keras
    except ImportError:
        major, minor, *_ = tf.__version__.split(".")  # any other brings its own TensorFlow
        install = f"pip install 'tf_keras=={major}.{minor}.*'"
        raise ModelError(f"{path} is of Keras 2, and Keras 3 cannot load it: {install}") from None
    return tf_keras


def _says_keras_2(path: str) -> bool:
    """Whether a file says that a Keras 2 saved it."""
    try:
        if path.endswith(".keras"):
            with storage.open(path, "rb") as file, zipfile.ZipFile(file) as archive:
                version = json.loads(archive.read("metadata.json"))["keras_version"]
        else:
            version = _h5_attribute(path, "keras_version")
    except Exception:  # whatever is wrong with the file, it does not say so
        return False
    return str(version).startswith("2.")


def _holds_code(path: str) -> bool:
    """Whether an `.h5` file holds Python code, which tf_keras would run unasked; of a `.keras` file it asks."""
    if path.endswith(".keras"):
        return False
    classes: set[Any] = set()

    def note(value: dict[str, Any]) -> None:
        classes.add(str(value.get("class_name")))

    json.loads(_h5_attribute(path, "model_config"), object_hook=note)
    return bool(classes & {"Lambda", "__lambda__"})


def _h5_attribute(path: str, name: str) -> Any:
    import h5py  # Keras reads these files with it

    with h5py.File(path, "r") as file:
        return file.attrs[name]


def _inputs(model: Any, name: str) -> dict[str, tf.TensorSpec]:
    try:
        inputs = tf.nest.flatten(model.inputs)
    except (AttributeError, ValueError):
        inputs = []
    if not inputs or inputs[0] is None:
        raise ModelError(
            f"{name}: the model has no input shape yet; make it with a keras.Input, or wrap it: "
            "keras.Model(pixels, model(pixels))"
        )
    # Keras takes any batch size, also where a first batch has fixed the one in its shapes.
    return {tensor.name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in inputs}


def _output_names(model: Any) -> list[str]:
    """One name an output: those of the output layers; Keras repeats a layer's name if it has several."""
    names = [str(name) for name in getattr(model, "output_names", None) or []]
    return names if len(set(names)) == len(names) else []


def _configuration(model: Any) -> str:
    try:
        return str(model.to_json())
    except (NotImplementedError, TypeError, ValueError):  # a subclassed model need not describe itself
        return type(model).__qualname__


def _fingerprint(description: str, model: Any) -> str:
    digest = hashlib.sha256(description.encode())
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _imagenet_names(keras: Any) -> tuple[str, ...]:
    """The class names of ImageNet, by the only public way to them: what each class alone is decoded to."""
    decoded = keras.applications.imagenet_utils.decode_predictions(np.eye(_IMAGENET_CLASSES), top=1)
    return tuple(name for ((_, name, _),) in decoded)
