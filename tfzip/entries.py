"""Where the entries of index.zip lie, found without trusting any of its bytes.

A zip (PKWARE's APPNOTE.TXT) says most things twice, and may hide much between what it tells of. Here it has to be as
tfzip writes it: entries from the first byte on, end to end, in the order of the directory, stored or deflated, with
nothing behind the directory's end; and what it says twice must agree.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from typing import IO, NamedTuple

from tfzip.errors import CorruptError

STORED, DEFLATED = 0, 8

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR = struct.Struct("<4sLQL")  # 4.3.15
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_ZIP64_ID, _PADDING_ID = 1, 0xD935  # extra fields: numbers of 64 bits; zeros, as Android's zipalign puts them
_LARGEST = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)  # stands for what is larger, and is told elsewhere in 64 bits

_PIECE = 1 << 14  # bytes of a deflated entry at once, which may come to a thousand times as many
_MOST_BYTES = 1 << 16  # of the directory, which has some twenty entries
_VERSIONS = (20, 45)  # needed to read an entry: 45 has zip64
_MADE_BY = [3 << 8 | version for version in _VERSIONS]  # as if on Unix
_MODE = 0o644 << 16
_TIME = (0, 33)  # 1980-01-01


class Entry(NamedTuple):
    """One entry: `stored` bytes from `begin` on, which are `size` when inflated.

    `odd` if something of no consequence is not as tfzip writes it.
    """

    method: int
    crc: int
    stored: int
    size: int
    begin: int
    odd: bool

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self.begin + self.stored


class _Said(NamedTuple):
    """What is said of an entry both in the directory and before its bytes."""

    name: str
    flags: int
    method: int
    time: tuple[int, int]
    crc: int
    stored: int
    size: int


def read_entries(file: IO[bytes]) -> dict[str, Entry]:
    """The entries of a zip, by name, in the order that they lie in; CorruptError if it is not as tfzip writes it."""
    try:
        return _entries(file)
    except (struct.error, UnicodeDecodeError):
        raise CorruptError("its directory is damaged") from None


def is_whole(file: IO[bytes], entry: Entry) -> bool:
    """Whether an entry's bytes come to the size and the CRC that it tells, and end where it does."""
    file.seek(entry.begin)
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    left, size, crc = entry.stored, 0, 0
    while left and size <= entry.size and (data := file.read(min(left, _PIECE))):
        left -= len(data)
        try:
            part = stream.decompress(data) if entry.method == DEFLATED else data
        except zlib.error:
            return False
        size, crc = size + len(part), zlib.crc32(part, crc)
    ended = entry.method == STORED or (stream.eof and not stream.unused_data)
    return ended and (left, size, crc) == (0, entry.size, entry.crc)


def _entries(file: IO[bytes]) -> dict[str, Entry]:
    count, size, begin = _end(file)
    file.seek(begin)
    directory = file.read(size)
    entries: dict[str, Entry] = {}
    place = expected = 0
    while place < size:
        said, offset, odd, length = _from_directory(directory[place:])
        if offset != expected or offset > begin:
            raise CorruptError(f"{said.name} does not begin where the entry before it ends")
        local, start, odd_too = _from_entry(file, offset)
        if local != said:
            raise CorruptError(f"{said.name} is not what its directory says")
        entries[said.name] = entry = Entry(said.method, said.crc, said.stored, said.size, start, odd or odd_too)
        place, expected = place + length, entry.end
    if len(entries) != count or expected != begin:
        raise CorruptError("its directory does not list what it holds")
    return entries


def _end(file: IO[bytes]) -> tuple[int, int, int]:
    """How many entries there are, how many bytes the directory has, and where it begins."""
    place = file.seek(0, os.SEEK_END) - _END.size
    if place < 0:
        raise CorruptError("it is no zip file, or cut off")
    file.seek(place)
    mark, disk, first_disk, *facts, comment = _END.unpack(file.read())
    if mark != b"PK\5\6" or comment:
        raise CorruptError("it is no zip file, or cut off")
    in_64_bits, directory_end = _end64(file, place) or (facts, place)
    here, count, size, begin = in_64_bits
    if disk or first_disk or here != count or size > _MOST_BYTES or begin + size != directory_end:
        raise CorruptError("its directory is damaged")
    if facts != [min(number, most) for number, most in zip(in_64_bits, _LARGEST, strict=True)]:
        raise CorruptError("it ends with two records that differ")
    return count, size, begin


def _end64(file: IO[bytes], end: int) -> tuple[Sequence[int], int] | None:
    """The same numbers in 64 bits, and where the directory ends; None where all fit into 32."""
    place = end - _LOCATOR.size - _END64.size
    if place < 0:
        return None
    file.seek(place)
    mark, length, _, _, *disks_and_facts = _END64.unpack(file.read(_END64.size))
    locator = _LOCATOR.unpack(file.read(_LOCATOR.size))
    if locator[0] != b"PK\6\7":
        return None
    if (mark, length, *disks_and_facts[:2], *locator[1:]) != (b"PK\6\6", _END64.size - 12, 0, 0, 0, place, 1):
        raise CorruptError("its directory is damaged")
    return disks_and_facts[2:], place


def _from_directory(directory: bytes) -> tuple[_Said, int, bool, int]:
    """What a directory says of its first entry: also where that begins, if it is odd, and in how many bytes."""
    mark, made_by, version, flags, method, *rest = _CENTRAL.unpack_from(directory)
    *time, crc, stored, size, named, extra, comment, disk, inside, mode, offset = rest
    end = _CENTRAL.size + named
    name = directory[_CENTRAL.size : end].decode()
    if mark != b"PK\1\2" or comment or disk or end + extra > len(directory):
        raise CorruptError("its directory is damaged")
    longs = _longs(name, directory[end : end + extra])
    size, stored, offset = (longs.pop(0) if n == _LARGEST[-1] and longs else n for n in (size, stored, offset))
    newer = version > max(_VERSIONS)  # than a reader of such entries need know
    if longs or flags or newer or method not in (STORED, DEFLATED) or (method == STORED and stored != size):
        raise CorruptError(f"{name} is not stored as tfzip does it")
    odd = version not in _VERSIONS or made_by not in _MADE_BY or (inside, mode, *time) != (0, _MODE, *_TIME)
    return _Said(name, flags, method, tuple(time), crc, stored, size), offset, odd, end + extra


def _from_entry(file: IO[bytes], offset: int) -> tuple[_Said, int, bool]:
    """What an entry says of itself: also where its bytes begin, and if it is odd."""
    file.seek(offset)
    mark, version, flags, method, *time, crc, stored, size, named, extra = _LOCAL.unpack(file.read(_LOCAL.size))
    name = file.read(named).decode()
    longs = _longs(name, file.read(extra))
    if mark != b"PK\3\4" or len(longs) not in (0, 2):
        raise CorruptError("its directory is damaged")
    if longs:  # of both sizes, which are there in 32 bits too if Python is older than 3.11.4
        in_32_bits, (size, stored) = (size, stored), longs
        if any(number not in (long, _LARGEST[-1]) for number, long in zip(in_32_bits, longs, strict=True)):
            raise CorruptError(f"{name} has two sizes")
    said = _Said(name, flags, method, tuple(time), crc, stored, size)
    return said, offset + _LOCAL.size + named + extra, version not in _VERSIONS


def _longs(name: str, extra: bytes) -> list[int]:
    """The numbers in the zip64 field among extra fields; the others must be padding."""
    longs: list[int] = []
    while extra:
        kind, length = struct.unpack_from("<2H", extra)
        field, extra = extra[4 : 4 + length], extra[4 + length :]
        if len(field) < length or kind not in (_ZIP64_ID, _PADDING_ID):
            raise CorruptError(f"{name} has an extra field that tfzip never writes")
        if kind == _ZIP64_ID:
            longs += struct.unpack(f"<{length // 8}Q", field)
        elif field.strip(b"\0"):
            raise CorruptError(f"{name} has padding that is not empty")
    return longs
