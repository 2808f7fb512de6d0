"""Files written below a folder, and nowhere else, whatever their names say."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from types import TracebackType
from typing import IO

from tfzip import storage
from tfzip.naming import to_bytes

_BY_DESCRIPTOR = {os.open, os.mkdir} <= os.supports_dir_fd
_FOLDER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | os.O_RDONLY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

_OF_THE_NAME = (
    errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ELOOP,
)  # fmt: skip
"""What a file system says of a name that it cannot have, or has already; anything else is about the folder."""

_NOT_ON_WINDOWS = re.compile(
    # https://learn.microsoft.com/windows/win32/fileio/naming-a-file
    r'.*[<>:"\\|?*\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]) *(\..*)?',
    re.IGNORECASE | re.DOTALL,
)


class UnwritableError(Exception):
    """No file of this name can be written there: the reason."""


def check_name(filename: str, *, windows: bool = os.name == "nt", utf8: bool = os.name == "nt") -> None:
    """Raise UnwritableError for a name that no file below a folder can have.

    A name is never changed: what is another name on this system (as Windows has it), or no name at all, is refused.
    """
    parts = filename.split("/")
    if "" in parts:
        raise UnwritableError("a part of it is empty")
    if {".", ".."} & set(parts):
        raise UnwritableError("it leads out of its folder")
    if "\0" in filename:
        raise UnwritableError("it holds a NUL")
    if windows and any(map(_NOT_ON_WINDOWS.fullmatch, parts)):
        raise UnwritableError("Windows has no such names")
    if utf8 and not filename.isascii() and any("\udc80" <= character <= "\udcff" for character in filename):
        raise UnwritableError("it is not UTF-8")


class Below:
    """A folder to write files below, which is there already. Use as a context manager.

    No file is replaced, as one might be whose name differs only in case; no link is followed on the way, even if
    somebody puts it there meanwhile.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._remote = not storage.is_local(folder)
        self._root: int | None = None

    def __enter__(self) -> Below:
        if _BY_DESCRIPTOR and not self._remote:
            self._root = os.open(self._folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._root is not None:
            os.close(self._root)

    def open(self, filename: str) -> IO[bytes]:
        """A new file, to be written; the folders on the way to it are made.

        Raises UnwritableError where the name is at fault, OSError where anything else is.
        """
        check_name(filename, utf8=self._remote or os.name == "nt")
        try:
            if self._remote:
                return self._open_remote(filename)
            return self._open_by_path(filename) if self._root is None else self._open_by_descriptor(filename)
        except FileExistsError:
            raise UnwritableError("a file of this name, perhaps but for case, is there already") from None
        except OSError as error:
            if error.errno not in _OF_THE_NAME:
                raise
            raise UnwritableError(str(error.strerror)) from None

    @contextlib.contextmanager
    def whole(self, filename: str) -> Iterator[IO[bytes]]:
        """The same, closed at the end; what is not written to its end is removed."""
        file = self.open(filename)
        try:
            with file:
                yield file
        except BaseException:
            with contextlib.suppress(OSError):
                self._remove(filename)
            raise

    def _remove(self, filename: str) -> None:
        if self._root is None:
            storage.remove([storage.join(self._folder, filename)])
            return
        with self._folder_of(filename) as (folder, name):
            os.unlink(name, dir_fd=folder)

    def _open_by_descriptor(self, filename: str) -> IO[bytes]:
        with self._folder_of(filename) as (folder, name):
            return os.fdopen(os.open(name, _NEW, 0o666, dir_fd=folder), "wb")

    @contextlib.contextmanager
    def _folder_of(self, filename: str) -> Iterator[tuple[int, bytes]]:
        """The folder that a file is to lie in, made and held open; and the file's name there."""
        assert self._root is not None
        *folders, name = to_bytes(filename).split(b"/")
        here = os.dup(self._root)
        try:
            for part in folders:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
                above, here = here, os.open(part, _FOLDER, dir_fd=here)
                os.close(above)
            yield here, name
        finally:
            os.close(here)

    def _open_by_path(self, filename: str) -> IO[bytes]:
        """Where no folder can be held open: links that are there already are not followed."""
        *folders, name = filename.split("/")
        folder = os.path.join(os.path.realpath(self._folder), *folders)
        os.makedirs(folder, exist_ok=True)
        if os.path.realpath(folder) != folder:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return open(os.path.join(folder, name), "xb")

    def _open_remote(self, filename: str) -> IO[bytes]:
        path = storage.join(self._folder, filename)
        if storage.exists(path):
            raise FileExistsError
        storage.makedirs(path.rpartition("/")[0])
        return storage.open(path, "wb")
