"""Where images come from: one file a kind of source."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from tfzip import storage
from tfzip.errors import SourceError, TfzipError, UsageError
from tfzip.options import Options, flag
from tfzip.read import has_index
from tfzip.read import open as open_export
from tfzip.sources import archive, exported, folder, python, skip, table, tfds, tfrecord
from tfzip.sources.source import Element, Listed, Stream

__all__ = ["Element", "Listed", "Stream", "open_source"]


def open_source(source: Any, options: Options) -> Listed | Stream:
    """Open a source, and list it where that can be done.

    Args:
        source: as `tfzip export --help` tells.
        options: those that are about sources say what is where in it.

    Raises SourceError if it does not exist, cannot be read or holds no images, UsageError for an option that it has no
    use for.
    """
    try:
        opened = _open(source, options)
    except OSError as error:
        if isinstance(error, TfzipError):
            raise
        raise SourceError(f"{os.fsdecode(error.filename or str(source))}: {error.strerror or error}") from None
    for option, kinds in _FOR.items():
        if getattr(options, option) not in (None, "none") and opened.kind not in kinds:
            raise UsageError(f"{flag(option)} says nothing of {opened.name}: it is for {' and '.join(kinds)} sources")
    return opened if options.skip_in is None else skip.without(opened, open_export(options.skip_in))


_FOR = {
    "source_labels": ("folder",),
    "source_split": ("tfds", "export"),
    "root": ("list", "table"),
    "filename_column": ("table",),
    "label_column": ("table",),
    "image_key": ("tfrecord", "tfds", "dataset"),
    "filename_key": ("tfrecord", "tfds", "dataset"),
    "truth_key": ("tfrecord", "tfds", "dataset"),
}
"""The kinds of source that an option is for."""


def _open(source: Any, options: Options) -> Listed | Stream:
    if not isinstance(source, (str, os.PathLike)):
        return _from_python(source, options)
    path = os.fspath(source)
    if path.startswith(tfrecord.PREFIX):
        return tfrecord.from_tfrecords(path, folder.expand(path.removeprefix(tfrecord.PREFIX)), options)
    if path.startswith(tfds.PREFIX):
        return tfds.from_tfds(path, options)
    if not path:
        raise SourceError("SOURCE is empty; give a folder, a glob, a list, ...")
    if storage.isdir(path):
        is_export = has_index(path, options.source_split)
        if is_export:
            return exported.from_export(path, options)
        return folder.from_folder(path, options.source_labels, spools=options.engine != "local")
    if path.endswith(table.SUFFIXES) and storage.exists(path):
        return table.from_table(path, options)
    if path.endswith(archive.SUFFIXES) and (paths := folder.expand(path)):
        return archive.from_archives(path, paths)
    if folder.is_glob(path) or storage.exists(path):
        return folder.from_glob(path, options.source_labels, spools=options.engine != "local")
    raise SourceError(f"{path}: no such folder or file")


def _from_python(source: Any, options: Options) -> Listed | Stream:
    if isinstance(source, np.ndarray):
        return python.from_arrays(source, options)
    if hasattr(source, "element_spec"):
        return python.from_dataset(source, options)
    if isinstance(source, Iterable) and not isinstance(source, bytes):
        return python.from_items(source)
    kind = type(source).__name__
    raise SourceError(f"a {kind} is no source; give a path, a tf.data.Dataset, an iterable or an array")
