"""TensorFlow set up for a process of our own: the command line's. A library must leave all of this alone."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.util
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_quiet = False


def set_up(*, quiet: bool) -> None:
    """Prepare this process for exports, before TensorFlow is imported.

    Each operation runs on one thread, since batches side by side already fill the cores (a fifth faster so). If
    `quiet`, TensorFlow's libraries do not write to standard error: some do while they load, whatever their log level.
    """
    global _quiet
    _quiet = quiet
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    if quiet:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        if "tensorflow" not in sys.modules:
            sys.meta_path.insert(0, _Finder())


def hushed() -> contextlib.AbstractContextManager[None]:
    """In a process set up to be quiet, nothing is written to standard error meanwhile, by C++ nor by Python."""
    return _no_standard_error() if _quiet else contextlib.nullcontext()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds `tensorflow` as it would be found, with a loader that loads it in silence; then it goes away."""

    def find_spec(self, fullname: str, *_: Any) -> ModuleSpec | None:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def load_in_silence(module: ModuleType) -> None:
                with _no_standard_error():
                    load(module)

            spec.loader.exec_module = load_in_silence  # type: ignore[method-assign] # of this one loader
        return spec


@contextlib.contextmanager
def _no_standard_error() -> Iterator[None]:
    """Turn file descriptor 2 away, which C++ writes to; an exception still reaches Python."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
