"""The images of an export, back as files."""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from tfzip import storage
from tfzip.below import Below, UnwritableError
from tfzip.errors import OutputError, OutputExistsError, UsageError
from tfzip.read import Export

METADATA = "metadata.csv"

_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR)
"""What a system says of a folder in which nobody may write; anything else comes of the disk."""


class Extracted(NamedTuple):
    """How many images were written; and those that were not, each by its filename and the reason."""

    written: int
    unwritten: list[tuple[str, str]]


def extract(export: Export, to: str | os.PathLike[str]) -> Extracted:
    """Write every image to `to/FILENAME`, byte for byte, and the table `metadata.csv` beside them.

    A file keeps its record's filename, which is unique and the one in the table, also where `--image jpeg:90` made
    `cat.png` a JPEG: what opens images goes by their bytes, and `image/format` tells. An image whose name no file there
    can have is left out.

    Args:
        export: with images.
        to: a folder; must be empty or missing. Nothing is written outside it.

    Raises OutputError where the disk is full or gone: the files that are there then are whole.
    """
    if export.image_key not in export.features:
        raise UsageError(f"{export.path} was exported with --image none: it holds no images")
    to = os.fspath(to)
    if not to or storage.listdir(to) or (storage.exists(to) and not storage.isdir(to)):
        raise OutputExistsError(f"{to!r} is no empty folder; give another")
    try:
        storage.makedirs(to)
        with Below(to) as folder:
            with folder.whole(METADATA) as file:
                export.copy_table(file)
            return _write_images(export, folder)
    except OSError as error:
        if error.errno in _REFUSED:
            raise UsageError(f"{to}: cannot write there ({error.strerror})") from None
        said = error.strerror or str(error)
        raise OutputError(f"{to} can no longer be written: {said}; make room, and give another folder") from None


def _write_images(export: Export, folder: Below) -> Extracted:
    written, unwritten = 0, []
    for record in export.records():
        try:
            with folder.whole(record.filename) as file:
                file.write(record.encoded or b"")
            written += 1
        except UnwritableError as error:
            unwritten.append((record.filename, str(error)))
    return Extracted(written, unwritten)
