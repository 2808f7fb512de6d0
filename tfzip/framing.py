"""Bytes <-> TFRecord frames <-> gzip members: pure functions, every CRC checked.

A frame is: length (uint64), masked CRC-32C of the length, data, masked CRC-32C of the data, all little endian
(tensorflow/core/lib/io/record_writer.h). A member is a gzip member (RFC 1952, mtime 0) that holds whole frames, so
that any record costs one seek and one small inflate, while TensorFlow reads the file as one GZIP TFRecord.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import IO

import google_crc32c
from isal import igzip, igzip_lib, isal_zlib

from tfzip.errors import CorruptError

MEMBER_BYTES = 32 * 1024
"""A member holds as many frames as fit in this, or one frame that is larger."""

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
FRAME_OVERHEAD = _HEADER.size + _CRC.size

_DEFLATE_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment] # its stub says instance, not class

_GZIP = 31  # zlib's wbits for a gzip member with its header
_CHUNK = 1 << 20


def masked_crc(data: bytes) -> int:
    """CRC-32C of `data`, rotated and offset as TFRecord does."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def frame(data: bytes) -> bytes:
    """One record as a TFRecord frame."""
    length = len(data).to_bytes(8, "little")
    return b"".join((length, _CRC.pack(masked_crc(length)), data, _CRC.pack(masked_crc(data))))


def unframe(buffer: bytes, start: int = 0) -> tuple[bytes, int]:
    """The record whose frame begins at `start`, and where the next frame begins.

    Raises CorruptError where the buffer ends early or a CRC does not match.
    """
    data_start = start + _HEADER.size
    if start < 0 or data_start > len(buffer):
        raise CorruptError("the data ends inside a record's header")
    length, length_crc = _HEADER.unpack_from(buffer, start)
    if masked_crc(buffer[start : start + 8]) != length_crc:
        raise CorruptError("the CRC of a record's length does not match")
    data_end = data_start + length
    if data_end + _CRC.size > len(buffer):
        raise CorruptError("the data ends inside a record")
    data = buffer[data_start:data_end]
    if masked_crc(data) != _CRC.unpack_from(buffer, data_end)[0]:
        raise CorruptError("the CRC of a record does not match")
    return data, data_end + _CRC.size


def unframe_all(buffer: bytes) -> Iterator[tuple[int, bytes]]:
    """Every record of a buffer of whole frames, with the position of its frame."""
    start = 0
    while start < len(buffer):
        data, next_start = unframe(buffer, start)
        yield start, data
        start = next_start


def deflate(frames: bytes) -> bytes:
    """Frames as one gzip member, mtime 0 (ISA-L level 1: fast, and level 6's size on encoded images)."""
    member: bytes = igzip_lib.compress(frames, 1, igzip_lib.COMP_GZIP)
    return member


def inflate(member: bytes) -> bytes:
    """The frames inside exactly one gzip member; CorruptError if it is damaged or not exactly one."""
    stream = isal_zlib.decompressobj(_GZIP)
    try:
        frames: bytes = stream.decompress(member) + stream.flush()
    except (_DEFLATE_ERROR, EOFError) as error:
        raise CorruptError(f"a gzip member is damaged ({error})") from None
    if not stream.eof or stream.unused_data:
        raise CorruptError("the bytes are not exactly one gzip member")
    return frames


def read_members(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Every gzip member of a file: its offset, its size and the frames inside, one member in memory at a time."""
    offset, pending = 0, file.read(_CHUNK)
    while pending:
        stream, parts, size = isal_zlib.decompressobj(_GZIP), [], 0
        while not stream.eof:
            if not pending:
                raise CorruptError(f"the gzip member at {offset} is cut off")
            try:
                parts.append(stream.decompress(pending))
            except _DEFLATE_ERROR as error:
                raise CorruptError(f"the gzip member at {offset} is damaged ({error})") from None
            size += len(pending)
            pending = stream.unused_data if stream.eof else file.read(_CHUNK)
        size -= len(pending)
        yield offset, size, b"".join(parts)
        offset += size
        pending = pending or file.read(_CHUNK)


def read_frames(file: IO[bytes]) -> Iterator[tuple[int, int, bytes]]:
    """Every frame of an uncompressed file: its offset, its size and the frame, unchecked."""
    offset = 0
    while header := file.read(_HEADER.size):
        if len(header) < _HEADER.size or masked_crc(header[:8]) != _CRC.unpack_from(header, 8)[0]:
            raise CorruptError(f"the record's header at {offset} is damaged")
        rest = _HEADER.unpack(header)[0] + _CRC.size
        body = _read_exactly(file, rest)
        if len(body) < rest:
            raise CorruptError(f"the record at {offset} is cut off")
        yield offset, len(header) + rest, header + body
        offset += len(header) + rest


def frame_headers(file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """The offset and data size of every frame of a file, its data passed over; CorruptError where it ends early."""
    offset, end = 0, _end(file)
    while header := file.read(_HEADER.size):
        if len(header) < _HEADER.size or masked_crc(header[:8]) != _CRC.unpack_from(header, 8)[0]:
            raise CorruptError(f"the record's header at {offset} is damaged")
        size = _HEADER.unpack(header)[0]
        yield offset, size
        offset += FRAME_OVERHEAD + size
        if end is None:
            _skip(file, size + _CRC.size)
        elif offset > end:
            raise CorruptError(f"the record at {offset - size - FRAME_OVERHEAD} is cut off")
        else:
            file.seek(offset)


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


def _read_exactly(file: IO[bytes], size: int) -> bytes:
    """Up to `size` bytes, in steps, so that a forged length takes no more memory than the file has."""
    parts = []
    while size and (part := file.read(min(size, _CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_blocks(file: IO[bytes], compression: str) -> Iterator[tuple[int, int, bytes]]:
    """Every block (gzip member, or bare frame) of a shard: its offset, its size and the frames inside."""
    return read_members(file) if compression == "gzip" else read_frames(file)
