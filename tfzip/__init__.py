"""Run a TensorFlow model over many images; keep prediction, filename and image together.

    export = tfzip.export("photos/", "classifier.keras", "labelled/")
    export = tfzip.open("labelled/")
    for prediction, filename, image in export: ...

Importing tfzip does not import TensorFlow.
"""

# Imported eagerly: each module of these names would otherwise shadow the function once something imported it.
from tfzip.diff import Change, Diff, Move, diff
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
from tfzip.evaluate import Evaluation, evaluate
from tfzip.export import export, write
from tfzip.mix import mix
from tfzip.pairing import zip  # noqa: A004 - tfzip.zip, as the builtin
from tfzip.read import Export, open  # noqa: A004 - tfzip.open, as gzip.open
from tfzip.record import Failure, Prediction, Record, Target, Truth
from tfzip.report import report
from tfzip.select import select
from tfzip.verify import verify
from tfzip.version import __version__

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
