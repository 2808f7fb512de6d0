"""Where images come from: one file a kind of source."""

from __future__ import annotations

import os
from typing import Any

from tfzip import storage
from tfzip.errors import SourceError, UsageError
from tfzip.options import Options
from tfzip.sources import archive, folder, table
from tfzip.sources.source import Element, Listed, Stream

__all__ = ["Element", "Listed", "Stream", "open_source"]


def open_source(source: Any, options: Options) -> Listed | Stream:
    """Open a source, and list it where that can be done.

    Args:
        source: as `tfzip export --help` tells.
        options: those that are about sources say what is where in it.

    Raises SourceError if it does not exist or holds no images, UsageError for an option that it has no use for.
    """
    opened = _open(source, options)
    for option, kinds in _FOR.items():
        if getattr(options, option) not in (None, "none") and opened.kind not in kinds:
            flag = "--" + option.replace("_", "-")
            raise UsageError(f"{flag} says nothing of {opened.name}: it is for {' and '.join(kinds)} sources")
    return opened


_FOR = {
    "source_labels": ("folder",),
    "source_split": ("tfds",),
    "root": ("list", "table"),
    "filename_column": ("table",),
    "label_column": ("table",),
    "image_key": ("tfrecord", "tfds", "dataset"),
    "filename_key": ("tfrecord", "tfds", "dataset"),
    "truth_key": ("tfrecord", "tfds", "dataset"),
}
"""The kinds of source that an option is for."""


def _open(source: Any, options: Options) -> Listed | Stream:
    path = os.fspath(source)
    if not path:
        raise SourceError("SOURCE is empty; give a folder, a glob, a list, ...")
    if storage.isdir(path):
        return folder.from_folder(path, options.source_labels)
    if path.endswith(table.SUFFIXES) and storage.exists(path):
        return table.from_table(path, options)
    if path.endswith(archive.SUFFIXES) and (paths := folder.expand(path)):
        return archive.from_archives(path, paths)
    if folder.is_glob(path) or storage.exists(path):
        return folder.from_glob(path, options.source_labels)
    raise SourceError(f"{path}: no such folder or file")
