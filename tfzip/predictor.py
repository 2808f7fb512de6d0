"""A model -> a graph function, pixels in, named tensors out. Keras files and objects, and SavedModels."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from tfzip import naming, storage
from tfzip.errors import ModelError

_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Predictor:
    """A model made ready for the graph.

    `function` is a ConcreteFunction of one batch of pixels [B, height, width, channels] that gives a dict of tensors
    by output name. `fingerprint` is a SHA-256 of the model's file, files or weights.
    """

    name: str
    format: str
    fingerprint: str
    signature: str | None
    input_name: str
    size: tuple[int, int]
    channels: int
    dtype: tf.DType
    function: Any
    model: Any  # keeps the variables alive: a ConcreteFunction does not

    @property
    def outputs(self) -> Mapping[str, tf.TensorSpec]:
        """The outputs by name, batch dimension included."""
        outputs = self.function.structured_outputs
        return {name: tf.TensorSpec(tensor.shape, tensor.dtype) for name, tensor in outputs.items()}


def load(model: Any, signature: str | None, image_size: tuple[int, int] | None, *, trust: bool = False) -> Predictor:
    """Make a model ready.

    Args:
        model: path of a `.keras` or `.h5` file or of a SavedModel folder, or a Keras model.
        signature: of a SavedModel; None for `serving_default`.
        image_size: height and width, where the model leaves them open.
        trust: allow Keras to load code from the file.

    Raises ModelError if it cannot be loaded, or does not take one batch of images.
    """
    with tf.device("CPU:0"):  # where Dataset.map runs; it cannot use variables of a GPU
        if not isinstance(model, (str, os.PathLike)):
            return _from_keras(_as_keras(model), "keras", _weights_fingerprint(model), model.name, image_size)
        path = os.fspath(model).rstrip("/")
        name = naming.to_text(os.fsencode(path.rsplit("/", 1)[-1]))
        if path.endswith((".keras", ".h5", ".hdf5")):
            if signature is not None:
                raise ModelError(f"--signature {signature!r} is for SavedModels; {path} is a Keras file")
            loaded = _load_keras(path, trust)
            return _from_keras(loaded, "keras", _fingerprint([path]), name, image_size)
        if storage.exists(storage.join(path, "saved_model.pb")):
            return _from_saved_model(path, name, signature or "serving_default", image_size)
        if storage.exists(path):
            raise ModelError(f"{path}: not a model that tfzip knows; give a .keras or .h5 file or a SavedModel folder")
        raise ModelError(f"{path}: no such model")


# Keras.


def _keras() -> Any:
    try:
        import keras

        backend = keras.backend.backend()
    except ImportError as error:  # also where the backend that is asked for is not installed
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        if backend == "tensorflow":
            raise ModelError(f"Keras cannot be imported: {_first_line(error)}") from error
    if backend != "tensorflow":
        raise ModelError(
            f"Keras runs on {backend} here, whose models cannot be fused into a TensorFlow graph: "
            "set KERAS_BACKEND=tensorflow"
        )
    return keras


def _as_keras(model: Any) -> Any:
    if not isinstance(model, _keras().Model):
        raise ModelError(f"{type(model).__name__} is no model that tfzip knows: give a path or a Keras model")
    return model


def _load_keras(path: str, trust: bool) -> Any:
    keras = _keras()
    if not storage.exists(path):
        raise ModelError(f"{path}: no such model")
    try:
        return keras.models.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:  # Keras raises whatever the file's content leads to
        hint = "" if trust else " (--trust-model allows code inside, if it asks for that)"
        raise ModelError(f"{path}: Keras cannot load it: {_first_line(error)}{hint}") from error


def _from_keras(model: Any, kind: str, fingerprint: str, name: str, image_size: tuple[int, int] | None) -> Predictor:
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
    specs = {tensor.name: tf.TensorSpec((None, *tensor.shape[1:]), tensor.dtype) for tensor in inputs}
    input_name, size, channels, dtype = _image_input(name, specs, image_size)
    output_names = _keras_output_names(model)

    structure = None if isinstance(model, _keras().Sequential) else model.input  # which may be a list or a dict of one

    def call(pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        given = tf.nest.map_structure(lambda _: pixels, structure)
        return _named(model(given, training=False), output_names)

    function = _concrete(name, call, size, channels, dtype)
    return Predictor(name, kind, fingerprint, None, input_name, size, channels, dtype, function, model)


def _keras_output_names(model: Any) -> list[str]:
    """One name an output: those of the output layers; Keras repeats a layer's name if it has several."""
    names = [str(name) for name in getattr(model, "output_names", None) or []]
    return names if len(set(names)) == len(names) else []


def _named(outputs: Any, names: list[str]) -> dict[str, tf.Tensor]:
    """Outputs of any structure as a flat dict."""
    if isinstance(outputs, Mapping):
        return {str(name): tf.convert_to_tensor(value) for name, value in outputs.items()}
    values = [tf.convert_to_tensor(value) for value in tf.nest.flatten(outputs)]
    if len(names) != len(values):
        names = ["output"] if len(values) == 1 else [f"output_{i}" for i in range(len(values))]
    return dict(zip(names, values, strict=True))


# SavedModel.


def _from_saved_model(path: str, name: str, signature: str, image_size: tuple[int, int] | None) -> Predictor:
    try:
        model = tf.saved_model.load(path)
    except Exception as error:  # a damaged SavedModel raises whatever its content leads to
        raise ModelError(f"{path}: TensorFlow cannot load it: {_first_line(error)}") from error
    if signature not in model.signatures:
        known = ", ".join(model.signatures) or "none"
        raise ModelError(f"{path}: no signature {signature!r}; it has {known}")
    served = model.signatures[signature]
    specs = served.structured_input_signature[1]
    input_name, size, channels, dtype = _image_input(name, specs, image_size)
    function = _concrete(name, lambda pixels: served(**{input_name: pixels}), size, channels, dtype)
    return Predictor(
        name,
        "saved_model",
        _fingerprint(_files(path)),
        signature,
        input_name,
        size,
        channels,
        dtype,
        function,
        model,
    )


def _files(folder: str) -> list[str]:
    found = []
    for name in storage.listdir(folder):
        path = storage.join(folder, name)
        found += _files(path) if storage.isdir(path) else [path]
    return found


# Both.


def _image_input(
    model: str, specs: Mapping[str, tf.TensorSpec], image_size: tuple[int, int] | None
) -> tuple[str, tuple[int, int], int, tf.DType]:
    """The name, size, channels and dtype of the one input, which must be a batch of images."""
    shown = ", ".join(f"{name} {_shape(spec)} {spec.dtype.name}" for name, spec in specs.items())
    if len(specs) != 1:
        raise ModelError(f"{model}: the model takes {len(specs)} inputs ({shown}); tfzip gives it one image batch")
    ((name, spec),) = specs.items()
    dtype = tf.as_dtype(spec.dtype)
    if spec.shape.rank != 4 or not (dtype.is_floating or dtype == tf.uint8):
        raise ModelError(f"{model}: its input {shown} is no batch of images [batch, height, width, channels]")
    batch, height, width, channels = spec.shape
    if batch is not None:
        raise ModelError(f"{model}: its input {shown} has a fixed batch size; save it with an open one")
    channels = 3 if channels is None else channels
    if channels not in _CHANNELS:
        raise ModelError(f"{model}: its input {shown} has {channels} channels last; images have 1, 3 or 4")
    return name, _image_size(model, (height, width), image_size, shown), channels, dtype


def _image_size(
    model: str, own: tuple[int | None, int | None], asked: tuple[int, int] | None, shown: str
) -> tuple[int, int]:
    height, width = own
    if height is not None and width is not None:
        if asked not in (None, (height, width)):
            raise ModelError(f"{model}: its input is {height}x{width}; --image-size cannot change that")
        return height, width
    if asked is None:
        raise ModelError(f"{model}: its input {shown} leaves the image size open; give --image-size HEIGHTxWIDTH")
    return asked


def _shape(spec: tf.TensorSpec) -> str:
    sizes = ("?" if size is None else str(size) for size in spec.shape) if spec.shape.rank is not None else ("unknown",)
    return f"[{', '.join(sizes)}]"


def _concrete(
    model: str,
    call: Callable[[tf.Tensor], Mapping[str, tf.Tensor]],
    size: tuple[int, int],
    channels: int,
    dtype: tf.DType,
) -> Any:
    spec = tf.TensorSpec((None, *size, channels), dtype)
    try:
        function = tf.function(call, input_signature=[spec], autograph=False).get_concrete_function()
    except Exception as error:  # tracing runs the model's own code
        raise ModelError(
            f"{model}: the model cannot be called on images {_shape(spec)}: {_first_line(error)}"
        ) from error
    for name, tensor in function.structured_outputs.items():
        if tensor.shape.rank == 0 or (tensor.shape.rank and tensor.shape[0] is not None):
            raise ModelError(f"{model}: its output {name} {_shape(tensor)} has no open batch dimension first")
    return function


def _fingerprint(paths: Iterable[str]) -> str:
    """SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with storage.open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _weights_fingerprint(model: Any) -> str:
    """SHA-256 of a Keras model's configuration and weights."""
    digest = hashlib.sha256()
    try:
        digest.update(model.to_json().encode())
    except (NotImplementedError, TypeError, ValueError):  # a subclassed model need not describe itself
        digest.update(type(model).__qualname__.encode())
    for weight in model.get_weights():
        digest.update(f"{weight.dtype}{weight.shape}".encode())
        digest.update(weight.tobytes())
    return digest.hexdigest()


def _first_line(error: BaseException) -> str:
    """The line of a long message that says what is wrong; Keras begins some with where it happened, in colours."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    unknown = [line for line in lines if "Could not locate" in line]
    return (unknown or lines or [type(error).__name__])[0]
