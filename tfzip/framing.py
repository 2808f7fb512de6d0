"""Bytes <-> TFRecord frames <-> gzip members: pure functions, every CRC checked.

A frame is: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little endian
(tensorflow/core/lib/io/record_writer.h). A member is a gzip member (RFC 1952, mtime 0) that holds whole frames, so
that any record costs one seek and one small inflate, while TensorFlow reads the file as one GZIP TFRecord.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from typing import IO

import google_crc32c
from isal import igzip, igzip_lib, isal_zlib

from tfzip.errors import CorruptError

MEMBER_BYTES = 32 * 1024
"""A member holds as many frames as fit in this, or one frame that is larger."""

LARGEST_RECORD = 2**31 - 1
"""Bytes that a record may have: protobuf reads no more."""

_LARGEST_GROUP = 1 << 20  # bytes of several frames in one member: what a reader takes before it asks whose they are
_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
FRAME_OVERHEAD = _HEADER.size + _CRC.size

DEFLATE_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub says instance, not class

_STORED_MEMBER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # of no known system (RFC 1952, 2.3)
_STORED = struct.Struct("<BHH")  # a block's header: whether it is the last, its length, and its complement
_STORED_MOST = 0xFFFF
_STORED_LAST = _STORED.pack(1, 0, _STORED_MOST)
_MEMBER_END = struct.Struct("<II")
_SAMPLE = 340

_GZIP = 31  # zlib's wbits for a gzip member with its header
_CHUNK = 1 << 20
_MEMBERS_CHUNK = 1 << 16  # what follows a member in it is copied once for each member


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated and offset as TFRecord does."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> list[bytes]:
    """One record as a TFRecord frame, in pieces: joining them would copy the data."""
    length = len(data).to_bytes(8, "little")
    return [length + _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))]


def unframe(buffer: bytes, start: int = 0) -> tuple[bytes, int]:
    """The record whose frame begins at `start`, and where the next frame begins.

    Raises CorruptError where the buffer ends early or a CRC does not match.
    """
    data_start = start + _HEADER.size
    if start < 0 or data_start > len(buffer):
        raise CorruptError("the data ends inside a record's header")
    data_end = data_start + _data_size(buffer[start:data_start])
    if data_end + _CRC.size > len(buffer):
        raise CorruptError("the data ends inside a record")
    data = buffer[data_start:data_end]
    if masked_crc(data) != _CRC.unpack_from(buffer, data_end)[0]:
        raise CorruptError("the CRC of a record does not match")
    return data, data_end + _CRC.size


def _data_size(header: bytes) -> int:
    """How many bytes of data follow a frame's header, or its first bytes; CorruptError if it cannot be one."""
    if len(header) < _HEADER.size or masked_crc(header[:8]) != _CRC.unpack_from(header, 8)[0]:
        raise CorruptError("the CRC of a record's length does not match")
    size: int = _HEADER.unpack(header)[0]
    if size > LARGEST_RECORD:
        raise CorruptError(f"a record claims to have {size} bytes")
    return size


def unframe_all(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """Every record of a buffer of whole frames, with the position of its frame."""
    start = 0
    while start < len(buffer):
        data, next_start = unframe(buffer, start)
        yield start, data
        start = next_start


def deflate(frames: Sequence[bytes]) -> Sequence[bytes | memoryview]:
    """Frames, in pieces, as one gzip member, mtime 0 (ISA-L level 1: fast, and level 6's size on encoded images).

    One large frame that would hardly shrink, as that of a JPEG, is stored in it as it is, which takes a tenth of the
    time; the member is in pieces, too.
    """
    if sum(map(len, frames)) > MEMBER_BYTES and not _would_shrink(max(frames, key=len)):
        return store(frames)
    return [igzip_lib.compress(b"".join(frames), 1, igzip_lib.COMP_GZIP)]


def _would_shrink(data: bytes) -> bool:
    """Whether three samples of the data, together, become shorter by a twentieth."""
    starts = (len(data) * part // 4 for part in (1, 2, 3))
    sample = b"".join(data[start : start + _SAMPLE] for start in starts)
    return len(igzip_lib.compress(sample, 1, igzip_lib.COMP_DEFLATE)) < 0.95 * len(sample)


def store(frames: Sequence[bytes]) -> Sequence[bytes | memoryview]:
    """Frames as one gzip member, mtime 0, whose blocks hold the bytes as they are (RFC 1951, 3.2.4); all in pieces."""
    member: list[bytes | memoryview] = [_STORED_MEMBER]
    crc = size = 0
    for piece in frames:
        for start in range(0, len(piece), _STORED_MOST):
            block = memoryview(piece)[start : start + _STORED_MOST]
            member += [_STORED.pack(0, len(block), len(block) ^ _STORED_MOST), block]
        crc, size = isal_zlib.crc32(piece, crc), size + len(piece)
    return [*member, _STORED_LAST, _MEMBER_END.pack(crc, size & 0xFFFFFFFF)]


class _Member:
    """A gzip member that is inflated as its bytes come, but never beyond what it may hold.

    That is one frame of whatever size the frame's own header says, or several in `_LARGEST_GROUP` bytes: a few bytes
    may inflate to a thousand times as many.
    """

    def __init__(self) -> None:
        self._stream = isal_zlib.decompressobj(_GZIP)
        self._parts: list[bytes] = []
        self._room = _LARGEST_GROUP

    def feed(self, data: bytes) -> None:
        """Inflate more of the file's bytes; what follows the member is left in `rest`."""
        asked = part = 0
        while asked == part and not self.is_whole:
            asked = self._room + 1
            self._parts.append(self._stream.decompress(data, asked))
            data, part = self._stream.unconsumed_tail, len(self._parts[-1])
            self._room -= part
            if self._room < 0:
                self._make_room()

    def _make_room(self) -> None:
        """Raise CorruptError unless the first frame is larger than what has come so far."""
        self._parts = [self.frames]
        self._room = FRAME_OVERHEAD + _data_size(self._parts[0][: _HEADER.size]) - len(self._parts[0])
        if self._room < 0:
            raise CorruptError("it holds more than its record")

    @property
    def is_whole(self) -> bool:
        """Whether its end has come, and its CRC was right."""
        return bool(self._stream.eof)

    @property
    def rest(self) -> bytes:
        """What was fed beyond its end."""
        rest: bytes = self._stream.unused_data
        return rest

    @property
    def frames(self) -> bytes:
        """What it holds."""
        return b"".join(self._parts)


def inflate(member: bytes) -> bytes:
    """The frames inside exactly one gzip member; CorruptError if it is damaged, not exactly one, or holds too much."""
    stream = _Member()
    try:
        stream.feed(member)
    except (DEFLATE_ERROR, CorruptError) as error:
        raise CorruptError(f"a gzip member is damaged ({error})") from None
    if not stream.is_whole or stream.rest:
        raise CorruptError("the bytes are not exactly one gzip member")
    return stream.frames


def read_members(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Every gzip member of a file: its offset, its size and the frames inside, one member in memory at a time.

    An empty one stands alone: many would take long to read, and hold nothing.
    """
    offset, pending = 0, file.read(_MEMBERS_CHUNK)
    while pending:
        member, size = _Member(), 0
        while not member.is_whole:
            if not pending:
                raise CorruptError(f"the gzip member at {offset} is cut off")
            try:
                member.feed(pending)
            except (DEFLATE_ERROR, CorruptError) as error:
                raise CorruptError(f"the gzip member at {offset} is damaged ({error})") from None
            size += len(pending)
            pending = member.rest if member.is_whole else file.read(_MEMBERS_CHUNK)
        size -= len(pending)
        pending, frames = pending or file.read(_MEMBERS_CHUNK), member.frames
        if not frames and (offset or pending):
            raise CorruptError(f"the gzip member at {offset} is empty")
        yield offset, size, frames
        offset += size


def read_frames(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Every frame of an uncompressed file: its offset, its size and the frame, whose data are unchecked."""
    offset = 0
    while header := file.read(_HEADER.size):
        rest = _data_size_at(offset, header) + _CRC.size
        body = read_part(file, rest)
        if len(body) < rest:
            raise CorruptError(f"the record at {offset} is cut off")
        yield offset, len(header) + rest, header + body
        offset += len(header) + rest


def frame_headers(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """The offset and data size of every frame of a file, its data passed over; CorruptError where it ends early."""
    offset, end = 0, _end(file)
    while header := file.read(_HEADER.size):
        size = _data_size_at(offset, header)
        yield offset, size
        offset += FRAME_OVERHEAD + size
        if end is None:
            _skip(file, size + _CRC.size)
        elif offset > end:
            raise CorruptError(f"the record at {offset - size - FRAME_OVERHEAD} is cut off")
        else:
            file.seek(offset)


def _data_size_at(offset: int, header: bytes) -> int:
    try:
        return _data_size(header)
    except CorruptError as error:
        raise CorruptError(f"the record's header at {offset} is damaged ({error})") from None


def _end(file: IO[bytes]) -> int | None:
    """How long a file is; None for one that is inflated as it is read."""
    if isinstance(file, igzip.IGzipFile):
        return None
    file.seek(0, os.SEEK_END)
    end = file.tell()
    file.seek(0)
    return end


def _skip(file: IO[bytes], size: int) -> None:
    while size:
        part = len(file.read(min(size, _CHUNK)))
        if not part:
            raise CorruptError("the last record is cut off")
        size -= part


def read_part(file: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes, in steps, so that a forged length takes no more memory than the file has."""
    parts = []
    while size and (part := file.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_blocks(file: IO[bytes], compression: str) -> Iterator[tuple[int, int, bytes]]:
    """Every block (gzip member, or bare frame) of a shard: its offset, its size and the frames inside."""
    return read_members(file) if compression == "gzip" else read_frames(file)
