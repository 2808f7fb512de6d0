"""Exports and archives made to harm: whole ones with bytes changed, and parts rebuilt so that every CRC is right."""

import io
import json
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

import tfzip
from tfzip import framing, schema

NAMES = ["b/1.png", "a/0.png", "naïve café.png", "b/2.png", "a/10.png", "z.png", "c d/3.png"]


def make_export(folder, **options):
    """A small export of noise under NAMES, in three shards, and one image that failed."""
    rng = np.random.default_rng(5)
    images = [rng.integers(0, 256, (3, 4, 3), np.uint8) for _ in NAMES]
    scores = rng.dirichlet(np.ones(3), len(NAMES)).astype(np.float32)
    triples = [*zip(scores, NAMES, images, strict=True), (scores[0], "broken.png", b"no image")]
    options = {"labels": ["ant", "bee", "cat"], "shard_records": 3, "batch_size": 1, "parallel": 1, **options}
    return tfzip.write(iter(triples), str(folder), quiet=True, **options)


def copied(export, folder):
    """A copy of an export that may be damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(export.path, folder)
    return Path(folder)


def contents(path):
    """All that an export says: its manifest, failures, columns and records."""
    with tfzip.open(str(path)) as export:
        columns = {name: np.asarray(values).tolist() for name, values in export.metadata.items()}
        return export.manifest, export.failures, repr(columns), [said(record) for record in export[:]]


def said(record):
    """A record as something that can be compared."""
    prediction = record.prediction._replace(scores=None), record.prediction.scores.tolist()
    return record.filename, record.encoded, record.format, record.height, record.width, record.source_id, prediction


# The zip.


def entries(path):
    """The entries of a zip, by name."""
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


class Raw:
    """An entry's bytes as they are to lie in the zip, with whatever its headers claim of them."""

    def __init__(self, data, *, size=None, crc=0, method=zipfile.ZIP_DEFLATED):
        self.data, self.size, self.crc, self.method = data, len(data) if size is None else size, crc, method


def write_zip(path, content):
    """A zip as tfzip lays it out, of bytes or Raws by name (or pairs, for names that come twice)."""
    pairs = content.items() if isinstance(content, dict) else content
    body, directory = io.BytesIO(), io.BytesIO()
    for name, data in pairs:
        raw = data if isinstance(data, Raw) else _deflated(data)
        if not isinstance(data, Raw) and name.endswith(".npy"):
            raw = Raw(data, crc=zlib.crc32(data), method=zipfile.ZIP_STORED)
        small, long = min(raw.size, 0xFFFFFFFF), b""
        if small != raw.size:
            long = struct.pack("<2HQ", 1, 8, raw.size)
        local_long = struct.pack("<2H2Q", 1, 16, raw.size, len(raw.data)) if long else b""
        common = (45, 0, raw.method, 0, 33, raw.crc, len(raw.data), small)
        place = body.tell()
        body.write(struct.pack("<4s5H3L2H", b"PK\3\4", *common, len(name.encode()), len(local_long)))
        body.write(name.encode() + local_long + raw.data)
        central = struct.pack("<4s6H3L2H", b"PK\1\2", 0x32D, *common, len(name.encode()), len(long))
        directory.write(central + struct.pack("<3H2L", 0, 0, 0, 0o644 << 16, place) + name.encode() + long)
    size, begin = len(directory.getvalue()), body.tell()
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(pairs), len(pairs), size, begin, 0)
    Path(path).write_bytes(body.getvalue() + directory.getvalue() + end)


def _deflated(data):
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return Raw(packer.compress(data) + packer.flush(), size=len(data), crc=zlib.crc32(data))


def rebuilt(folder, **changes):
    """Replace entries of an export's index, all CRCs right: functions of what was there, bytes, or None to leave out.

    Keywords are the entries' names without folder and suffix.
    """
    path = next(Path(folder).rglob("index.zip"))
    content = {}
    for name, data in entries(path).items():
        change = changes.pop(name.rpartition("/")[2].partition(".")[0], data)
        data = change(data) if callable(change) else change
        if data is not None:
            content[name] = data
    assert not changes
    write_zip(path, content)


def manifest(change):
    """A change of manifest.json: what a function does to the dict."""

    def changed(data):
        facts = json.loads(data)
        return json.dumps(change(facts) or facts).encode()

    return changed


def column(change):
    """A change of a `.npy` entry: what a function does to the array."""

    def changed(data):
        array = np.load(io.BytesIO(data))
        file = io.BytesIO()
        changed = change(array)
        np.save(file, array if changed is None else changed)
        return file.getvalue()

    return changed


def renamed(export, names):
    """Changes of an index that give the classes other names, wherever it has them."""
    return {
        "manifest": manifest(lambda told: told["labels"].update(names=names)),
        "labels": "".join(f"{name}\n" for name in names).encode(),
        "schema": schema.schema_text(export.features, names).encode(),
    }


def put(row, value):
    """A change of one value of a column."""

    def change(array):
        array[row] = value

    return column(change)


# Shards.


def frame(record):
    """A record as the TFRecord frame that tfzip writes."""
    return b"".join(framing.frame(record))


def member(frames):
    """Frames as the gzip member that tfzip writes."""
    return b"".join(framing.deflate([frames]))


# Bombs.


def zeros(gigabytes):
    """Raw deflate that inflates to so many GiB of zeros, and is not finished: ten megabytes a ten GiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)) * int(64 * gigabytes)


def gzip_member(deflate):
    """A gzip member that holds raw deflate; without its end."""
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + deflate


def frame_header(length):
    """The header of a frame that claims a length, its CRC right."""
    data = length.to_bytes(8, "little")
    return data + framing.masked_crc(data).to_bytes(4, "little")
