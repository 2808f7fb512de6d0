"""Run a TensorFlow model over many images; keep prediction, filename and image together.

    export = tfzip.export("photos/", "classifier.keras", "labelled/")
    export = tfzip.open("labelled/")
    for prediction, filename, image in export: ...

Importing tfzip imports neither TensorFlow nor NumPy: what is used is imported once it is asked for.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfzip.errors import (
    BrokenSourceError,
    CorruptError,
    DataError,
    FilenameNotFoundError,
    ModelError,
    NotAnExportError,
    OutputError,
    OutputExistsError,
    SourceError,
    TfzipError,
    TooManyFailuresError,
    UsageError,
)
from tfzip.version import __version__

if TYPE_CHECKING:
    from tfzip.diff import Change, Diff, Move, diff
    from tfzip.evaluate import Evaluation, evaluate
    from tfzip.export import export, write
    from tfzip.mix import mix
    from tfzip.pairing import zip  # noqa: A004 - tfzip.zip, as the builtin
    from tfzip.read import Export, open  # noqa: A004 - tfzip.open, as gzip.open
    from tfzip.record import Failure, Prediction, Record, Target, Truth
    from tfzip.report import report
    from tfzip.select import select
    from tfzip.verify import verify

__all__ = [
    "BrokenSourceError",
    "Change",
    "CorruptError",
    "DataError",
    "Diff",
    "Evaluation",
    "Export",
    "Failure",
    "FilenameNotFoundError",
    "ModelError",
    "Move",
    "NotAnExportError",
    "OutputError",
    "OutputExistsError",
    "Prediction",
    "Record",
    "SourceError",
    "Target",
    "TfzipError",
    "TooManyFailuresError",
    "Truth",
    "UsageError",
    "__version__",
    "diff",
    "evaluate",
    "export",
    "mix",
    "open",
    "report",
    "select",
    "verify",
    "write",
    "zip",
]

_MODULES = {
    "diff": ("Change", "Diff", "Move", "diff"),
    "evaluate": ("Evaluation", "evaluate"),
    "export": ("export", "write"),
    "mix": ("mix",),
    "pairing": ("zip",),
    "read": ("Export", "open"),
    "record": ("Failure", "Prediction", "Record", "Target", "Truth"),
    "report": ("report",),
    "select": ("select",),
    "verify": ("verify",),
}
"""What is imported once it is asked for: the names of each module, as above for type checkers."""
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


class _Package(ModuleType):
    """This package: its names are imported as they are asked for, and no module takes the place of one."""

    def __getattr__(self, name: str) -> Any:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{self.__name__}.{_MODULE_OF[name]}"), name)
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        """But for a module that is called as a function is, which Python would set here once it is imported."""
        if not (name in _MODULE_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        """As other modules are pickled, by what sends functions that use it to other processes: by its name."""
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
