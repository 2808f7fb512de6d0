"""Files on the local disk or anywhere `tf.io.gfile` reaches (`gs://`, `ram://`, ...).

Local paths never import TensorFlow. A path is remote if it begins with a scheme (`xyz://`).
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tfzip.errors import UsageError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_NUMBERS = {
    "NotFoundError": errno.ENOENT,
    "PermissionDeniedError": errno.EACCES,
    "UnauthenticatedError": errno.EACCES,
    "AlreadyExistsError": errno.EEXIST,
    "ResourceExhaustedError": errno.ENOSPC,
    "DeadlineExceededError": errno.ETIMEDOUT,
}
"""What TensorFlow's errors are called elsewhere; others are EIO."""


def is_local(path: str) -> bool:
    """Whether the path is on a disk of this machine."""
    return not _SCHEME.match(path)


def absolute(path: str) -> str:
    """The path from the root; a URL as it is."""
    return os.path.abspath(path) if is_local(path) else path.rstrip("/")


def join(folder: str, name: str) -> str:
    """`folder/name`, also where the folder is a URL or the root."""
    return folder + name if not folder or folder.endswith("/") else f"{folder}/{name}"


@contextlib.contextmanager
def _gfile(path: str) -> Iterator[Any]:
    """`tf.io.gfile` for a remote path; what it raises becomes an OSError, or UsageError for a scheme it has not."""
    import tensorflow as tf

    try:
        yield tf.io.gfile
    except tf.errors.UnimplementedError:
        raise UsageError(f"{path}: TensorFlow reaches no {path.partition('://')[0]}:// here") from None
    except tf.errors.OpError as error:
        number = _NUMBERS.get(type(error).__name__, errno.EIO)
        said = os.strerror(number) if number == errno.ENOENT else _in_a_line(error.message)
        raise OSError(number, said or os.strerror(number), path) from None


def _in_a_line(message: str) -> str:
    return " ".join(message.split())


class _RemoteFile(io.RawIOBase):
    """A remote file, as Python's own files are; what reads and writes it needs no more than that."""

    def __init__(self, path: str, mode: str) -> None:
        self._path, self._mode = path, mode
        with _gfile(path) as gfile:
            self._file = gfile.GFile(path, mode)

    def readable(self) -> bool:
        return "r" in self._mode

    def writable(self) -> bool:
        return "w" in self._mode

    def seekable(self) -> bool:
        return self.readable()

    def readinto(self, buffer: Any) -> int:
        with _gfile(self._path):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def write(self, data: Any) -> int:
        with _gfile(self._path):
            self._file.write(bytes(data))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        with _gfile(self._path):
            self._file.seek(offset, whence)
            return int(self._file.tell())

    def tell(self) -> int:
        with _gfile(self._path):
            return int(self._file.tell())

    def flush(self) -> None:
        if self.writable() and not self.closed:
            with _gfile(self._path):
                self._file.flush()

    def close(self) -> None:
        if not self.closed:
            try:
                with _gfile(self._path):
                    self._file.close()
            finally:
                super().close()


def open(path: str, mode: str) -> IO[Any]:  # noqa: A001 - called as storage.open, and does what open does
    """Open a file to read or write it; text modes are UTF-8 with line ends kept."""
    if is_local(path):
        return builtins.open(path, mode) if "b" in mode else builtins.open(path, mode, encoding="utf-8", newline="")
    if "r" in mode and not exists(path):  # it would only be said when it is read
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    raw = _RemoteFile(path, mode.replace("b", "") + "b")
    file: Any = io.BufferedReader(raw) if "r" in mode else io.BufferedWriter(raw)
    return file if "b" in mode else io.TextIOWrapper(file, "utf-8", newline="")


def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    if is_local(path):
        return os.path.lexists(path)
    with _gfile(path) as gfile:
        return bool(gfile.exists(path))


def isdir(path: str) -> bool:
    """Whether the path is a folder."""
    if is_local(path):
        return os.path.isdir(path)
    with _gfile(path) as gfile:
        return bool(gfile.isdir(path))


def isfile(path: str) -> bool:
    """Whether the path is a file: no folder, and no pipe or device, which reading may never end."""
    return os.path.isfile(path) if is_local(path) else exists(path) and not isdir(path)


def listdir(path: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    if not isdir(path):
        return []
    if is_local(path):
        return sorted(os.listdir(path))
    with _gfile(path) as gfile:
        return sorted(name.rstrip("/") for name in gfile.listdir(path))


def walk(path: str) -> Iterator[str]:
    """The paths of all files in a remote folder and those below it."""
    with _gfile(path) as gfile:
        for folder, _, names in gfile.walk(path):
            yield from (join(folder, name) for name in names)


def glob(pattern: str) -> list[str]:
    """The remote paths that match a pattern of `*`, `?` and `[...]`."""
    with _gfile(pattern) as gfile:
        return list(gfile.glob(pattern))


def makedirs(path: str) -> None:
    """Make a folder and those above it."""
    if is_local(path):
        os.makedirs(path, exist_ok=True)
    else:
        with _gfile(path) as gfile:
            gfile.makedirs(path)


def rename(source: str, target: str) -> None:
    """Move a file over another; atomic where the file system is."""
    if is_local(source):
        os.replace(source, target)
    else:
        with _gfile(source) as gfile:
            gfile.rename(source, target, overwrite=True)


def remove(paths: Iterable[str]) -> None:
    """Delete those of the files and folders that exist."""
    for path in paths:
        if not exists(path):
            continue
        if not is_local(path):
            with _gfile(path) as gfile:
                (gfile.rmtree if isdir(path) else gfile.remove)(path)
        elif os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.remove(path)


def size(path: str) -> int | None:
    """How many bytes a file has; None where there is none."""
    return status(path)[0] if exists(path) and not isdir(path) else None


def status(path: str) -> tuple[int, int]:
    """The size of a file, and the time of its last change in nanoseconds."""
    if is_local(path):
        local = os.stat(path)
        return local.st_size, local.st_mtime_ns
    with _gfile(path) as gfile:
        remote = gfile.stat(path)
        return int(remote.length), int(remote.mtime_nsec)


def sync(file: IO[Any]) -> None:
    """Have what was written to a file on the disk, so that a loss of power takes none of it."""
    file.flush()
    with contextlib.suppress(io.UnsupportedOperation):  # a remote file has no number; there is no more to do
        os.fsync(file.fileno())


def sync_so_far(file: IO[Any]) -> None:
    """Have on the disk what has left Python for it, so that `sync` finds little to do; nothing of a remote file."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.fsync(file.fileno())


def sync_folder(path: str) -> None:
    """Have the names in a folder on the disk; a system that opens no folders does so by itself."""
    if is_local(path) and hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of a file system that does no such thing
                raise
        finally:
            os.close(descriptor)


def write_whole(path: str, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    partial = path + ".part"
    try:
        with open(partial, "wb") as file:
            file.write(content)
            sync(file)
        rename(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            remove([partial] if isfile(partial) else [])
        raise
    sync_folder(path.rpartition("/")[0] or ".")


def remove_empty(folders: Iterable[str]) -> None:
    """Delete those of the folders that are empty, in this order."""
    for folder in folders:
        with contextlib.suppress(OSError):
            if is_local(folder):
                os.rmdir(folder)
            elif isdir(folder) and not listdir(folder):
                remove([folder])


class Local:
    """A file as one on a disk of this machine, at `path`: itself, or a copy that lasts as long as this does.

    What maps files into memory, or reads them by their number, can do so there.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if not is_local(path):
            descriptor, self.path = tempfile.mkstemp(suffix="-" + path.rpartition("/")[2])
            weakref.finalize(self, remove, [self.path])
            with open(path, "rb") as file, builtins.open(descriptor, "wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)


def copy_from_local(source: str, path: str) -> None:
    """Copy a local file to a local or remote one."""
    with builtins.open(source, "rb") as file, open(path, "wb") as copy:
        shutil.copyfileobj(file, copy, 1 << 20)
