"""The images of an export, back as files."""

from __future__ import annotations

import os

from tfzip import naming, storage
from tfzip.errors import DataError, OutputExistsError, UsageError
from tfzip.read import Export
from tfzip.record import Record

METADATA = "metadata.csv"


def extract(export: Export, to: str | os.PathLike[str]) -> int:
    """Write every image to `to/FILENAME`, byte for byte, and the table `metadata.csv` beside them.

    A file keeps its record's filename, which is unique and the one in the table, also where `--image jpeg:90` made
    `cat.png` a JPEG: what opens images goes by their bytes, and `image/format` tells.

    Args:
        export: with images.
        to: a folder; must be empty or missing. Nothing is written outside it.

    Returns:
        The number of images written.
    """
    if export.image_key not in export.features:
        raise UsageError(f"{export.path} was exported with --image none: it holds no images")
    to = os.fspath(to)
    if not to or storage.listdir(to) or (storage.exists(to) and not storage.isdir(to)):
        raise OutputExistsError(f"{to!r} is no empty folder; give another")
    try:
        storage.makedirs(to)
    except OSError as error:
        raise UsageError(f"{to}: cannot write there ({error.strerror})") from None
    with storage.open(storage.join(to, METADATA), "w") as file:
        file.write(export._index.text(METADATA))
    written = 0
    for record in export.records():
        _write_image(to, record)
        written += 1
    return written


def _write_image(to: str, record: Record) -> None:
    parts = record.filename.split("/")
    if any(part in ("", ".", "..") or "\0" in part for part in parts) or record.filename == METADATA:
        raise DataError(f"{record.filename!r} cannot be a file below {to}; read it with `tfzip get`")
    path = storage.join(to, record.filename)
    storage.makedirs(path.rpartition("/")[0])
    target = os.fsdecode(naming.to_bytes(path)) if storage.is_local(path) else path
    with storage.open(target, "wb") as file:
        file.write(record.encoded or b"")
