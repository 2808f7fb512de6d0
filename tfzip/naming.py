"""Names: of shards (format and parse, inverses of each other), and of files that may not be UTF-8."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from tfzip.errors import UsageError

COMPRESSION_SUFFIX = {"gzip": ".gz", "none": ""}

_NAME = re.compile(r"_*[A-Za-z0-9]\w*", re.ASCII)  # TFDS takes none of underscores alone
_SHARD = re.compile(
    r"(?P<name>[A-Za-z0-9_]+)-(?P<split>[A-Za-z0-9_]+)\.tfrecord"
    r"-(?P<shard>[0-9]{5,})-of-(?P<shards>[0-9]{5,})(?P<suffix>(\.gz)?)"
)


_LONGEST = 300  # characters of a text that is shown among others


class ShardName(NamedTuple):
    """The parts of a shard's file name: `NAME-SPLIT.tfrecord-00000-of-00004.gz`."""

    name: str
    split: str
    shard: int
    shards: int
    compression: str

    def __str__(self) -> str:
        suffix = COMPRESSION_SUFFIX[self.compression]
        return f"{self.name}-{self.split}.tfrecord-{self.shard:05d}-of-{self.shards:05d}{suffix}"

    @classmethod
    def parse(cls, text: str) -> ShardName | None:
        """Read a shard's file name; None if it is not one."""
        match = _SHARD.fullmatch(text)
        if match is None:
            return None
        compression = "gzip" if match["suffix"] else "none"
        parsed = cls(match["name"], match["split"], int(match["shard"]), int(match["shards"]), compression)
        return parsed if str(parsed) == text and parsed.shard < parsed.shards else None


def check_name(option: str, value: str) -> str:
    """Return `value` if it can stand in a shard's file name, else raise UsageError naming the option."""
    if not _NAME.fullmatch(value):
        raise UsageError(f"--{option} {value!r}: use letters, digits and underscores, and not underscores alone")
    if option.endswith("split") and value == "all":
        raise UsageError(f"--{option} all: TFDS means every split by that; give another name")
    return value


def to_str(filename: bytes) -> str:
    """The filename as Python has it: UTF-8, other bytes kept as lone surrogates (PEP 383)."""
    return filename.decode("utf-8", "surrogateescape")


def to_bytes(filename: str) -> bytes:
    """Inverse of `to_str`."""
    return filename.encode("utf-8", "surrogateescape")


def to_text(filename: bytes) -> str:
    """The filename as text that any program can read: percent-escaped where it is not UTF-8."""
    try:
        return filename.decode("utf-8")
    except UnicodeDecodeError:
        return quote_from_bytes(filename, safe="/ ")


def shown(filename: str) -> str:
    """`to_text` of a name as Python has it."""
    return to_text(to_bytes(filename))


def from_text(text: str) -> bytes:
    """The filename that `to_text` may have escaped so; it is one, of two, for a name with a percent sign of its own."""
    return unquote_to_bytes(to_bytes(text))


def printable(text: str) -> str:
    """The text with whatever could act on a terminal escaped, ends of lines too."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def brief(text: str) -> str:
    """`printable`, cut where it is very long: a page or a table holds many of them."""
    return printable(text if len(text) <= _LONGEST else text[:_LONGEST] + "...")


def typed(filename: str) -> str:
    """The filename as `tfzip get` takes it: percent-escaped where it is not printable."""
    return filename if filename.isprintable() else quote_from_bytes(to_bytes(filename), safe="/ ")
