"""Changes of bytes, and of the entries of an index, by a random generator: what `scripts/fuzz` does to exports."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS = [0, 1, 2, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]

_KINDS = [bytes([kind]) for kind in b"\x000123456789xgLKSVQ"]  # of a tar's member


# Bytes.


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The data with one change or a few."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(_CHANGES)(rng, data) if data else rng.randbytes(rng.randrange(9))
    return data


def _place(rng: random.Random, data: bytes) -> int:
    """Somewhere in the data: often at its ends, where zips and shards keep what tells of the rest."""
    near = min(len(data), rng.choice([30, 100, 1000, len(data)]))
    return rng.choice([rng.randrange(near + 1), len(data) - rng.randrange(near + 1)])


def _region(rng: random.Random, data: bytes) -> slice:
    """A few bytes of the data, a block of a tar, or some hundreds."""
    begin = _place(rng, data)
    if rng.random() < 0.2:
        return slice(begin - begin % 512, begin - begin % 512 + 512)
    return slice(begin, begin + rng.choice([1, 2, 4, 8, 30, 46, 64, rng.randrange(1, 500)]))


def _flip(rng: random.Random, data: bytes) -> bytes:
    """Bits of a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[min(_place(rng, data), len(data) - 1)] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    return bytes(changed)


def _cut(rng: random.Random, data: bytes) -> bytes:
    """The end is gone."""
    return data[: _place(rng, data)]


def _leave_out(rng: random.Random, data: bytes) -> bytes:
    """A part is gone."""
    gone = _region(rng, data)
    return data[: gone.start] + data[gone.stop :]


def _repeat(rng: random.Random, data: bytes) -> bytes:
    """A part comes again, and perhaps again and again."""
    again = _region(rng, data)
    return data[: again.stop] + data[again] * rng.choice([1, 2, 100]) + data[again.stop :]


def _insert(rng: random.Random, data: bytes) -> bytes:
    """Something comes between."""
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice([1, 8, 100])) + data[at:]


def _number(rng: random.Random, data: bytes) -> bytes:
    """A number of the kind that overflows."""
    at, size = _place(rng, data), rng.choice([2, 4, 8])
    value = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return data[:at] + value + data[at + size :]


def _swap(rng: random.Random, data: bytes) -> bytes:
    """Two parts change places."""
    first, second = sorted((_region(rng, data), _region(rng, data)), key=lambda part: part.start)
    if first.stop > second.start:
        return data
    between = data[first.stop : second.start]
    return data[: first.start] + data[second] + between + data[first] + data[second.stop :]


_CHANGES: list[Callable[[random.Random, bytes], bytes]] = [
    _flip, _flip, _flip, _cut, _leave_out, _repeat, _insert, _number, _number, _swap,
]  # fmt: skip


# Headers of a tar, their checksums right.


def forged_tar(rng: random.Random, data: bytes) -> bytes:
    """One header of a tar changed or a few, or two of them exchanged."""
    changed = bytearray(data)
    headers = [place for place in range(0, len(data), 512) if data[place + 257 : place + 262] == b"ustar"]
    for place in rng.choices(headers, k=rng.choice([1, 1, 2])):
        header = _forged_header(rng, changed[place : place + 512])
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        changed[place : place + 512] = header
    return bytes(changed)


def _forged_header(rng: random.Random, header: bytearray) -> bytearray:
    begin, end = rng.choice([(0, 100), (124, 136), (124, 136), (156, 157), (156, 157), (157, 257), (345, 500)])
    size = end - begin
    values = [
        rng.choice(_KINDS) * size,
        b"%o" % rng.choice(NUMBERS),
        (rng.choice(NUMBERS) | 1 << 8 * max(size, 9) - 1).to_bytes(max(size, 9), "big"),  # as GNU tells large sizes
        rng.choice([b"\x80", b"\xff", b""]) + rng.randbytes(size),
        rng.choice([b"../../etc/x.png", b"/x.png", b"0.png", b"x.json", b"x.cls", b"\xff.png", b"./", b""]),
    ]
    header[begin:end] = rng.choice(values)[:size].ljust(size, b"\0")
    return header


# Entries of an index.


def forged_entries(rng: random.Random, entries: dict[str, bytes]) -> dict[str, bytes]:
    """Some changed, or left out."""
    entries = dict(entries)
    for name in rng.choices(list(entries), k=rng.choice([1, 1, 1, 2, 4])):
        if rng.random() < 0.05:
            entries.pop(name, None)
        elif name in entries:
            change = _forged_array if name.endswith(".npy") else forged_json if name.endswith(".json") else damaged
            entries[name] = change(rng, entries[name])
    return entries


def _value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has."""
    simple = [None, True, -1, 0.5, "", "x" * 300, "../../etc/passwd", "\x1b[2J", *NUMBERS, 10**30, float("nan")]
    if depth < 3 and rng.random() < 0.3:
        inner = [_value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {f"k{i}": item for i, item in enumerate(inner)}
    return rng.choice(simple)


def forged_json(rng: random.Random, data: bytes) -> bytes:
    """JSON with values of any kind here and there; now and then none at all."""
    try:
        facts = json.loads(data)
    except ValueError:  # it was changed before
        return damaged(rng, data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        holder = facts
        while holder:
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if isinstance(holder[key], (dict, list)) and holder[key] and rng.random() < 0.8:
                holder = holder[key]
                continue
            if rng.random() < 0.2:
                del holder[key]
            else:
                holder[key] = _value(rng)
            break
    text = json.dumps(facts).encode()
    return damaged(rng, text) if rng.random() < 0.1 else text


def _forged_array(rng: random.Random, data: bytes) -> bytes:
    """A `.npy` with another header, or other values, length or dtype."""
    if rng.random() < 0.3:
        return damaged(rng, data[:200]) + data[200:]
    try:
        array = np.load(io.BytesIO(data))
        file = io.BytesIO()
        np.save(file, rng.choice([_other_values, _other_values, _other_length, _other_dtype])(rng, array))
    except (ValueError, TypeError, OverflowError, EOFError, SyntaxError, MemoryError):  # it was changed before
        return damaged(rng, data)
    return file.getvalue()


def _other_values(rng: random.Random, array: Any) -> Any:
    array = array.copy()
    for _ in range(rng.choice([1, 1, 3]) if array.size else 0):
        other = array.reshape(-1)[rng.randrange(array.size)]  # as it may well be
        value = rng.choice([*NUMBERS, -1, -5, -(2**62), other, other])
        array.reshape(-1)[rng.randrange(array.size)] = np.array(value).astype(array.dtype)
    return array


def _other_length(rng: random.Random, array: Any) -> Any:
    return rng.choice([array[rng.randrange(len(array) + 1) :], array[::-1], np.concatenate([array] * 2)])


def _other_dtype(rng: random.Random, array: Any) -> Any:
    return array.astype(rng.choice(["<i4", ">i8", "<f8", "O", "S3", "<u2"]))
