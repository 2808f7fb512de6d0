"""Files on the local disk or anywhere `tf.io.gfile` reaches (`gs://`, `ram://`, ...).

Local paths never import TensorFlow. A path is remote if it begins with a scheme (`xyz://`).
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import os
import re
import shutil
import sys
from collections.abc import Iterable
from typing import IO, Any

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_local(path: str) -> bool:
    """Whether the path is on a disk of this machine."""
    return not _SCHEME.match(path)


def join(folder: str, name: str) -> str:
    """`folder/name`, also where the folder is a URL or the root."""
    return folder + name if not folder or folder.endswith("/") else f"{folder}/{name}"


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile


def open(path: str, mode: str) -> IO[Any]:  # noqa: A001 - called as storage.open, and does what open does
    """Open a file; text modes are UTF-8 with line ends kept."""
    if not is_local(path):
        if "r" in mode and not exists(path):  # GFile itself would only say so when it is read, and in words of its own
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return _gfile().GFile(path, mode)
    return builtins.open(path, mode) if "b" in mode else builtins.open(path, mode, encoding="utf-8", newline="")


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    return os.path.lexists(path) if is_local(path) else _gfile().exists(path)


def isdir(path: str) -> bool:
    """Whether the path is a folder."""
    return os.path.isdir(path) if is_local(path) else _gfile().isdir(path)


def isfile(path: str) -> bool:
    """Whether the path is a file: no folder, and no pipe or device, which reading may never end."""
    return os.path.isfile(path) if is_local(path) else exists(path) and not isdir(path)


def listdir(path: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    if not isdir(path):
        return []
    names = os.listdir(path) if is_local(path) else _gfile().listdir(path)
    return sorted(name.rstrip("/") for name in names)


def makedirs(path: str) -> None:
    """Make a folder and those above it."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)
    else:
        _gfile().makedirs(path)


def rename(source: str, target: str) -> None:
    """Move a file over another; atomic where the file system is."""
    if is_local(source):
        os.replace(source, target)
    else:
        _gfile().rename(source, target, overwrite=True)


def remove(paths: Iterable[str]) -> None:
    """Delete those of the files and folders that exist."""
    for path in paths:
        if not exists(path):
            continue
        if is_local(path) and (os.path.islink(path) or not os.path.isdir(path)):
            os.remove(path)
        elif is_local(path):
            shutil.rmtree(path)
        elif isdir(path):
            _gfile().rmtree(path)
        else:
            _gfile().remove(path)


def size(path: str) -> int | None:
    """How many bytes a file has; None where there is none."""
    return status(path)[0] if exists(path) and not isdir(path) else None


def status(path: str) -> tuple[int, int]:
    """The size of a file, and the time of its last change in nanoseconds."""
    if is_local(path):
        local = os.stat(path)
        return local.st_size, local.st_mtime_ns
    remote = _gfile().stat(path)
    return int(remote.length), int(remote.mtime_nsec)


def sync(file: IO[Any]) -> None:
    """Have what was written to a file on the disk, so that a loss of power takes none of it."""
    file.flush()
    if hasattr(file, "fileno"):
        os.fsync(file.fileno())


def sync_folder(path: str) -> None:
    """Have the names in a folder on the disk; a system that opens no folders does so by itself."""
    if is_local(path) and hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_whole(path: str, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    partial = path + ".part"
    with open(partial, "wb") as file:
        file.write(content)
        sync(file)
    rename(partial, path)
    sync_folder(path.rpartition("/")[0] or ".")


def errors() -> tuple[type[Exception], ...]:
    """What a file system raises: OSError, and TensorFlow's errors once a remote path has been used."""
    tensorflow = sys.modules.get("tensorflow")
    return (OSError,) if tensorflow is None else (OSError, tensorflow.errors.OpError)


def reason(error: Exception) -> str:
    """What a file system says is wrong, without its numbers and paths."""
    return str(getattr(error, "strerror", None) or getattr(error, "message", None) or error)


def remove_empty(folders: Iterable[str]) -> None:
    """Delete those of the folders that are empty, in this order."""
    for folder in folders:
        with contextlib.suppress(*errors()):
            if is_local(folder):
                os.rmdir(folder)
            elif isdir(folder) and not listdir(folder):
                _gfile().rmtree(folder)


def copy_to_local(path: str, target: str) -> None:
    """Copy a remote file to a local one."""
    with open(path, "rb") as file, builtins.open(target, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)


def copy_from_local(source: str, path: str) -> None:
    """Copy a local file to a local or remote one."""
    with builtins.open(source, "rb") as file, open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
