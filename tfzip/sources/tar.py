"""The members of a tar archive, known by its headers alone, each in a few kilobytes of memory.

`tarfile` reads whatever a header claims to be its extension into memory, keeps all members, takes what is no header for
the end, and, in many a Python, never ends with a negative size (CVE-2025-8194). So only single blocks are left to it.

The formats are those of POSIX.1-2001 (pax) and GNU tar.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from tarfile import BLOCKSIZE, TarInfo
from typing import IO, Any, NamedTuple

from tfzip.naming import to_bytes

_LONG = {tarfile.GNUTYPE_LONGNAME: b"path", tarfile.GNUTYPE_LONGLINK: b"linkpath"}
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
_SPARSE = b"GNU.sparse."
_KNOWN = (b"path", b"linkpath", b"size", _SPARSE + b"name")
_IS_SPARSE = _SPARSE + b"*"

_LONGEST_NAME = 4096  # PATH_MAX
_LARGEST_EXTENSION = 1 << 24  # bytes; there may be resource forks of files in it
_CHUNK = 1 << 20


class Member(NamedTuple):
    """A member: its name, what kind it is (as `tarfile` has it), what it links to, and where its bytes lie."""

    name: bytes
    kind: bytes
    link: bytes
    offset: int
    size: int
    is_sparse: bool


def members(file: IO[bytes], *, seekable: bool) -> Iterator[Member]:
    """Every member of a tar, in order; while one is there, the file stands where its bytes begin.

    Raises tarfile.TarError or EOFError where the archive is damaged or cut short.
    """
    end = _end(file) if seekable else None
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while (header := _header(file)) is not None:
        block, info = header
        if info.type in (*_LONG, *_PAX, tarfile.XGLTYPE):
            content = _extension(file, info)
            if info.type in _LONG:
                own[_LONG[info.type]] = content.partition(b"\0")[0]
            else:
                (shared if info.type == tarfile.XGLTYPE else own).update(_pax(content))
            continue
        _pass_sparse_map(file, block, info)
        member = _member(info, {**shared, **own}, file.tell())
        own = {}
        yield member
        has_bytes = info.isreg() or info.type not in tarfile.SUPPORTED_TYPES
        _go_to(file, member.offset + _padded(member.size if has_bytes else 0), end)


def _end(file: IO[bytes]) -> int:
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(0)
    return end


def _header(file: IO[bytes]) -> tuple[bytes, TarInfo] | None:
    """The next header's block, and what it says; None at the mark of the archive's end."""
    block = file.read(BLOCKSIZE)
    if not block.strip(b"\0"):
        if len(block) < BLOCKSIZE:
            raise EOFError("no end-of-archive mark")
        return None
    info = TarInfo.frombuf(block, "utf-8", "surrogateescape")
    if info.size < 0:
        raise tarfile.ReadError("a header tells a negative size")
    return block, info


def _extension(file: IO[bytes], info: TarInfo) -> bytes:
    if info.size > _LARGEST_EXTENSION:
        raise tarfile.ReadError(f"a header claims to go on for {info.size} bytes")
    content = file.read(_padded(info.size))
    if len(content) < info.size:
        raise EOFError("it ends inside a header")
    return content[: info.size]


def _pax(content: bytes) -> dict[bytes, bytes]:
    """What is of use in a pax header (records `LENGTH KEY=VALUE` and a newline), and whether it is of a sparse file."""
    found, place = {}, 0
    while place < len(content) and content[place]:
        digits = content[place : place + 20].partition(b" ")[0]
        end = place + (int(digits) if digits.isdigit() else 0)
        key, equals, value = content[place + len(digits) + 1 : min(end, len(content)) - 1].partition(b"=")
        if not equals or content[end - 1 : end] != b"\n":
            raise tarfile.ReadError("a pax header is damaged")
        if key in _KNOWN:
            found[key] = value
        if key.startswith(_SPARSE):
            found[_IS_SPARSE] = b"1"
        place = end
    return found


def _pass_sparse_map(file: IO[bytes], block: bytes, info: TarInfo) -> None:
    """Pass over the blocks that tell where the bytes of a sparse file belong, as GNU tar first had it."""
    more = info.type == tarfile.GNUTYPE_SPARSE and block[482]
    while more:
        block = file.read(BLOCKSIZE)
        if len(block) < BLOCKSIZE:
            raise EOFError("it ends inside a header")
        more = block[504]


def _member(info: TarInfo, told: Mapping[bytes, bytes], offset: int) -> Member:
    """A member by its header, and by what was told before it."""
    name = told.get(_SPARSE + b"name", told.get(b"path", to_bytes(info.name)))
    link = told.get(b"linkpath", to_bytes(info.linkname))
    if max(len(name), len(link)) > _LONGEST_NAME:
        raise tarfile.ReadError(f"a header tells a name of more than {_LONGEST_NAME} bytes")
    size = told.get(b"size", b"%d" % info.size)
    if not size.isdigit() or len(size) > len(str(2**63)):
        raise tarfile.ReadError("a pax header tells a size that is none")
    is_sparse = info.type == tarfile.GNUTYPE_SPARSE or _IS_SPARSE in told
    return Member(name.rstrip(b"/"), info.type, link, offset, int(size), is_sparse)


def _padded(size: int) -> int:
    return -(-size // BLOCKSIZE) * BLOCKSIZE


def _go_to(file: Any, place: int, end: int | None) -> None:
    """Go on to a place in the file; by reading, where that is the only way."""
    if end is not None:
        if place > end:
            raise EOFError("it ends inside a member")
        file.seek(place)
        return
    left = place - file.tell()
    while left > 0:
        part = len(file.read(min(left, _CHUNK)))
        if not part:
            raise EOFError("it ends inside a member")
        left -= part
