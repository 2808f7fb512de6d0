"""Pictures of one colour in as few bytes as their format allows, written by hand: making them takes no pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np


def _deflated(row: bytes, rows: int) -> bytes:
    squeeze, block = zlib.compressobj(9), 1 + (1 << 20) // len(row)
    parts = [squeeze.compress(row * min(block, rows - done)) for done in range(0, rows, block)]
    return b"".join([*parts, squeeze.flush()])


def png(height: int, width: int) -> bytes:
    """Black, a bit a pixel (W3C PNG)."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = _deflated(bytes(1 + (width + 7) // 8), height)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg(height: int, width: int, *, progressive: bool = False) -> bytes:
    """Grey: each block is a code of one bit for no difference, and one more for no detail (ITU-T T.81)."""

    def segment(marker: int, data: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data

    one_code = bytes([1, *[0] * 15, 0])
    frame = struct.pack(">BHHB", 8, height, width, 1) + b"\1\x11\0"
    scan = b"\1\1\0" + (b"\0\0\0" if progressive else b"\0\x3f\0")
    blocks = ((height + 7) // 8) * ((width + 7) // 8)
    return b"".join(
        [
            b"\xff\xd8",
            segment(0xDB, b"\0" + bytes([1] * 64)),
            segment(0xC2 if progressive else 0xC0, frame),
            segment(0xC4, b"\0" + one_code),
            segment(0xC4, b"\x10" + one_code),
            segment(0xDA, scan),
            bytes((blocks * (1 if progressive else 2) + 7) // 8),
            b"\xff\xd9",
        ]
    )


def _bits(numbers: Iterable[tuple[int, int]]) -> bytes:
    """Numbers of some bits each, the lowest bit first."""
    digits = "".join(format(number, f"0{size}b")[::-1] for number, size in numbers if size)
    return np.packbits(np.frombuffer(digits.encode(), np.uint8) - ord("0"), bitorder="little").tobytes()


def _runs(pixels: int) -> Iterable[tuple[int, int]]:
    """LZW of so many zeros: each code means one zero more than the last, until there are 4096."""
    yield 4, 3
    yield 0, 3
    left, code = pixels - 1, 6
    while left >= code - 4:
        yield code, min(max(code, 7).bit_length(), 12)
        left -= code - 4
        code = min(code + 1, 4095)
    size = min(max(code, 7).bit_length(), 12)
    if left:
        yield (left + 4 if left > 1 else 0), size
    yield 5, min(max(code + 1, 7).bit_length(), 12) if left and code < 4095 else size


def gif(height: int, width: int, *, frames: int = 1, block: int = 255) -> bytes:
    """Frames that each fill the picture, cut into blocks of some size (GIF 89a)."""
    data = _bits(_runs(height * width))
    blocks = [data[start : start + block] for start in range(0, len(data), block)]
    cut = b"".join(bytes([len(part)]) + part for part in blocks) + b"\0"
    frame = b"!\xf9\4\0\0\0\0\0" + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\2" + cut
    comment = b"!\xfe\5, ! ,\1;\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + comment + frame * frames + b";"


def _riff(chunks: list[tuple[bytes, bytes]]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _vp8l(height: int, width: int) -> bytes:
    """Each of the five codes has one symbol, so a pixel takes no bit at all (RFC 9649, 3)."""
    header = [(0x2F, 8), (width - 1, 14), (height - 1, 14), (0, 4), (0, 3)]
    return _bits([*header, *[(1, 1), (0, 1), (0, 1), (0, 1)] * 5, (0, 24)])


def webp(height: int, width: int, *, frames: int = 0) -> bytes:
    """A picture, or an animation of frames that each fill it."""
    still = (b"VP8L", _vp8l(height, width))
    if not frames:
        return _riff([still])
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    frame = bytes(6) + size + b"\x64\0\0\0" + _riff([still])[12:]
    return _riff([(b"VP8X", b"\2\0\0\0" + size), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * frames])


def tiff(height: int, width: int) -> bytes:
    """Black, a bit a pixel, in one deflated strip (TIFF 6.0)."""
    strip = _deflated(bytes((width + 7) // 8), height)
    values = {256: width, 257: height, 258: 1, 259: 8, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in values.items())
    offset = 8 + len(strip)
    return b"II*\0" + struct.pack("<I", offset) + strip + struct.pack("<H", len(values)) + entries + bytes(4)


# Headers with little behind them.


def bmp(height: int, width: int) -> bytes:
    """A header, and as many bytes as the pixels take, but no more than a few."""
    size = min((3 * width + 3) // 4 * 4 * abs(height), 1 << 12)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + size, 0, 0, 54) + header + bytes(size)


def npy(height: int, width: int) -> bytes:
    """The same."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (height, width, 3)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + bytes(min(height * width * 3, 1 << 12))


def jxl(height: int, ratio: int) -> bytes:
    """A header alone: a height, a ratio of the width to it, and all else as usual (ISO/IEC 18181-1, D)."""
    return b"\xff\x0a" + _bits([(0, 1), (3, 2), (height - 1, 30), (ratio, 3), (1, 1), (0, 100)])
