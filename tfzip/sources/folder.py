"""Images in a folder and those below it, or named by a glob. Local names need not be UTF-8."""

from __future__ import annotations

import fnmatch
import functools
import glob
import itertools
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence

from tfzip import naming, storage
from tfzip.errors import SourceError, UsageError
from tfzip.sources import spooled
from tfzip.sources.source import Listed, file_reader
from tfzip.sources.spooled import File

SUFFIXES = frozenset(
    # What TensorFlow decodes, arrays, and what it does not but people have: these fail by name rather than vanish.
    b".jpg .jpeg .jpe .jfif .png .gif .bmp .dib .webp .jxl .npy .tif .tiff .heic .heif .avif .jp2 .j2k".split()
)
"""A file whose name ends so, in any case, is an image."""

_MAGIC = re.compile("[*?[]")
_UNKNOWN = (0, 0)


def is_glob(path: str) -> bool:
    """Whether the path has wildcards: `*`, `?`, `[...]`; `**` stands for any folders."""
    return _MAGIC.search(path) is not None


def expand(path: str) -> list[str]:
    """The files that a path or glob names, sorted."""
    if storage.exists(path):
        return [path]
    if not storage.is_local(path):
        return sorted(_glob_remote(path))
    return sorted({os.fsdecode(found) for found, _ in _glob(os.fsencode(path))})


def from_folder(root: str, labels: str, *, spools: bool = False) -> Listed:
    """List the images below a folder, links to folders followed; one that `spools` keeps them on the disk."""
    if not storage.is_local(root):
        found = _remote(storage.join(root, ""), storage.walk(root.rstrip("/")))
        return _listed(root, found, labels, root, spools)
    return _listed(root, _walk(os.fsencode(root), b"", ()), labels, root, spools)


def from_glob(pattern: str, labels: str, *, spools: bool = False) -> Listed:
    """List the images that match; filenames are below the folders before the first wildcard."""
    match = None if storage.exists(pattern) else _MAGIC.search(pattern)  # a file may have brackets in its name
    root = pattern[: match.start()] if match else pattern
    root = root[: root.rfind("/") + 1]
    files: Iterable[File]
    if storage.is_local(pattern):
        name = os.fsencode(pattern)
        found = _glob(name) if match else [(name, _status(name) or _UNKNOWN)]
        files = ((path[len(os.fsencode(root)) :], *status) for path, status in found)
    else:
        files = _remote(
            root, (path for path in _glob_remote(pattern) if not storage.isdir(path)) if match else [pattern]
        )
    return _listed(root or ".", files, labels, pattern, spools)


def _walk(root: bytes, below: bytes, above: tuple[tuple[int, int], ...]) -> Iterator[File]:
    """Every file below a local folder. `above` are the folders on the way down, so that a link cannot make a circle."""
    here = os.path.join(root, below)
    status = os.stat(here)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(here) as entries:
        for entry in entries:
            name = below + entry.name
            if _is_folder(entry):
                yield from _walk(root, name + b"/", (*above, identity))
            elif (found := _status(entry.path)) is not None:
                yield (name, *found)


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _status(path: bytes) -> tuple[int, int] | None:
    """The size of a file and its last change; for one that cannot be reached (a dangling link) reading it will say why.

    None for what is no file: a pipe would be read for ever.
    """
    try:
        status = os.stat(path)
    except OSError:
        return _UNKNOWN
    return (status.st_size, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else None


def _glob(pattern: bytes) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """The files that match, some twice, and none by way of a link from a folder to one above it."""
    circular = functools.cache(_is_circular)
    for path in glob.iglob(pattern, recursive=True):
        status = _status(path)
        if status is not None and not circular(os.path.dirname(path)):
            yield path, status


def _is_circular(folder: bytes) -> bool:
    """Whether a folder on the way to this one is the same as another on the way."""
    parts = folder.split(b"/")
    ways = [b"/".join(parts[: i + 1]) or b"/" for i in range(len(parts))]
    return len({os.path.realpath(way) for way in ways}) < len({os.path.normpath(way) for way in ways})


def _remote(root: str, paths: Iterable[str]) -> Iterator[File]:
    return ((naming.to_bytes(path[len(root) :]), *storage.status(path)) for path in paths)


def _glob_remote(pattern: str) -> list[str]:
    """What matches a pattern elsewhere, by the rules of the local disk: hidden names are not meant by wildcards."""
    parts = pattern.split("/")
    root = "/".join(itertools.takewhile(lambda part: not is_glob(part), parts))
    found = storage.walk(root) if "**" in parts else storage.glob(pattern)
    return [path for path in found if _matches(path.split("/"), parts)]


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path are those of a pattern."""
    if not pattern or not path:
        return not path and all(part == "**" for part in pattern)
    hidden, rest = path[0].startswith("."), pattern[1:]
    if pattern[0] == "**":
        return _matches(path, rest) or (not hidden and _matches(path[1:], pattern))
    if hidden and not pattern[0].startswith("."):
        return False
    return fnmatch.fnmatchcase(path[0], pattern[0]) and _matches(path[1:], rest)


def _listed(root: str, files: Iterable[File], labels: str, shown: str, spools: bool) -> Listed:
    """The images among files below a root, in the order of their names' bytes."""
    seen = _Images(spooled.in_order(files) if spools else spooled.in_order(files, run=sys.maxsize))
    filenames, sizes, stamps = spooled.spool(seen) if spools else spooled.held(seen)
    if not len(filenames):
        nothing = "nothing matches" if is_glob(shown) else "it is empty"
        found = f"none of its {seen.others} files is one" if seen.others else nothing
        raise SourceError(f"{shown}: no images there ({found}; images end in .jpg, .png, .gif, .bmp, .webp, ...)")
    truths = _truths(filenames, shown) if labels == "folder" else None
    return Listed(
        kind="folder",
        name=shown,
        filenames=filenames,
        sizes=sizes,
        stamps=stamps,
        truths=truths,
        classes=None if truths is None else sorted(set(truths) - {b""}),
        ignored=seen.others,
        state={"place": storage.absolute(shown)},
        reader=lambda: file_reader(os.fsencode(storage.join(root, "")), filenames),
        access={"root": storage.join(storage.absolute(root), "")},
    )


class _Images:
    """The images among files, and how many others there were."""

    def __init__(self, files: Iterable[File]) -> None:
        self._files, self.others = files, 0

    def __iter__(self) -> Iterator[File]:
        for file in self._files:
            if os.path.splitext(file[0])[1].lower() in SUFFIXES:
                yield file
            else:
                self.others += 1


def _truths(filenames: Sequence[bytes], shown: str) -> Sequence[bytes]:
    """The first folder of each filename; empty for a file in no folder."""
    truths = spooled.first_folders(filenames)
    if not any(truths):
        raise UsageError(f"--source-labels folder: no image of {shown} lies in a folder below it")
    return truths
