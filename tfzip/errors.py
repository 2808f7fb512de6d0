"""The errors of tfzip: the caller's mistake on one side, the data's fault on the other.

TfzipError
├── UsageError (exit code 2)          the call is wrong: fix the call
│   ├── SourceError                   no such folder, no images in it
│   ├── ModelError                    the model cannot be loaded, or used on images
│   ├── OutputExistsError             OUT is in use
│   ├── NotAnExportError              no finished export there
│   └── FilenameNotFoundError         the export holds no such record
├── OutputError (exit code 1)         OUT can no longer be written: full, gone, over quota
└── DataError (exit code 1)           the call is right, the data is not
    ├── BrokenSourceError             the source ends before its end, or raises
    ├── TooManyFailuresError          more images failed than allowed
    └── CorruptError                  bytes of an export are not what was written

Every message says what is wrong, where, and what to do, in a line or two.
"""

from __future__ import annotations

import errno
import os


class TfzipError(Exception):
    """Base of all errors that tfzip raises on purpose."""

    exit_code = 1


class UsageError(TfzipError, ValueError):
    """The call asks for something that cannot be."""

    exit_code = 2


class SourceError(UsageError):
    """The source of images is missing, empty or not readable."""


class ModelError(UsageError):
    """The model cannot be loaded, or does not take images."""


class OutputExistsError(UsageError, FileExistsError):
    """OUT already holds something."""


class NotAnExportError(UsageError, FileNotFoundError):
    """The folder holds no finished export."""


class FilenameNotFoundError(UsageError, KeyError):
    """The export holds no record of that filename."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


class OutputError(TfzipError, OSError):
    """OUT can no longer be written: the disk is full, gone, over its quota."""

    __str__ = Exception.__str__


class DataError(TfzipError):
    """The data is at fault, not the call."""


class BrokenSourceError(DataError):
    """The source broke off: it is cut short, damaged, or raised an error of its own."""


class TooManyFailuresError(DataError):
    """More images failed than the call allows."""


class CorruptError(DataError):
    """Bytes of an export are not what was written."""


def reason(error: Exception) -> str:
    """The message of an error, of TensorFlow's without its names for its own insides.

    That may end in bytes of a record, which keep it from being a message in Python.
    """
    text = getattr(error, "message", None) or str(error)
    if isinstance(error, UnicodeDecodeError):
        text = error.object[:1000].decode("utf-8", "replace")
    text = text.split("}} ", 1)[-1].split(" [Op:", 1)[0].split(", value: ", 1)[0]
    if "Summarized data: b" in text:  # of an assertion
        text = text.rpartition("Summarized data: b")[2].strip("'\"\n")
    text = text.removeprefix("assertion failed: [").removesuffix("]")
    name = type(error).__name__
    return " ".join(text.split()) or (os.strerror(errno.ENOENT) if name == "NotFoundError" else name)
