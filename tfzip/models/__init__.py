"""Models of every kind, each opened by its own file, to one that can be called."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from tfzip import naming, storage
from tfzip.errors import ModelError, UsageError
from tfzip.models import function, keras, saved_model
from tfzip.models.model import Model

__all__ = ["Model", "open_model"]

_APPLICATION = "keras:"
_ATTRIBUTE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def open_model(
    model: Any,
    *,
    signature: str | None = None,
    trust: bool = False,
    imports: Sequence[str] = (),
    weights: str | os.PathLike[str] | None = None,
) -> Model:
    """Open a model.

    Args:
        model: path of a `.keras` or `.h5` file or of a SavedModel folder, `keras:NAME`, `package.module:callable`, a
            Keras model, a loaded SavedModel, or a callable.
        signature: of a SavedModel; None for `serving_default`.
        trust: allow Keras to load code from its file.
        imports: modules to import first, whose layers and functions Keras then knows.
        weights: file of an application's weights; None for ImageNet's, which Keras downloads.

    Raises ModelError if it cannot be loaded, UsageError where an option has no effect on such a model.
    """
    modules = [_imported(name) for name in imports]
    path = os.fspath(model).rstrip("/") if isinstance(model, (str, os.PathLike)) else None
    kind = _kind(model, path)
    unused = {
        "--signature": (signature, "saved_model", "SavedModels"),
        "--trust-model": (trust, "file", "Keras files"),
        "--weights": (weights, "application", "keras:NAME"),
    }
    for option, (value, wanted, of) in unused.items():
        if value and kind != wanted:
            shown = f" {value!r}" if value is not True else ""
            raise UsageError(f"{option}{shown} is for {of}; {_shown(model)} is none")
    if path is None or kind == "attribute":
        return _from_object(model if path is None else function.find(path), path, signature)
    if kind == "application":
        return keras.application(path.removeprefix(_APPLICATION), None if weights is None else os.fspath(weights))
    name = naming.to_text(os.fsencode(path.rsplit("/", 1)[-1]))
    if kind == "file":
        return keras.from_file(path, name, _sha256([path]), trust=trust, known=_custom_objects(modules))
    return saved_model.from_folder(path, name, _sha256(_files(path)), signature)


def _kind(model: Any, path: str | None) -> str:
    """What kind of model it is: `object`, `application`, `attribute`, `file` or `saved_model`."""
    if path is None:
        return "saved_model" if saved_model.is_loaded(model) else "object"
    if path.startswith(_APPLICATION):
        return "application"
    exists = storage.exists(path)
    if _ATTRIBUTE.fullmatch(path) and not exists:
        return "attribute"
    if path.endswith(keras.SUFFIXES) and exists:
        return "file"
    if saved_model.is_folder(path):
        return "saved_model"
    if exists:
        raise ModelError(f"{path}: not a model that tfzip knows; give a .keras or .h5 file or a SavedModel folder")
    raise ModelError(f"{path}: no such model")


def _from_object(model: Any, name: str | None, signature: str | None) -> Model:
    if keras.is_model(model):
        return keras.from_object(model, name)
    name = name or _shown(model)
    if saved_model.is_loaded(model):
        return saved_model.from_object(model, name, signature)
    if not callable(model) or isinstance(model, (type, ModuleType)):
        raise ModelError(f"{name} is no model that tfzip knows: give a path, a Keras model or a callable")
    return function.from_callable(model, name)


def _shown(model: Any) -> str:
    if isinstance(model, (str, os.PathLike)):
        return os.fspath(model)
    return str(getattr(model, "__name__", type(model).__name__))


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module of the user's may raise anything
        raise UsageError(f"--import {name}: {type(error).__name__}: {error}") from error


def _custom_objects(modules: Iterable[ModuleType]) -> dict[str, Any]:
    """The public classes and functions of modules: Keras finds by name those that are not registered with it."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if callable(value) and not name.startswith("_")
    }


def _files(folder: str) -> list[str]:
    found = []
    for name in storage.listdir(folder):
        path = storage.join(folder, name)
        found += _files(path) if storage.isdir(path) else [path]
    return found


def _sha256(paths: Iterable[str]) -> str:
    """SHA-256 of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with storage.open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
