"""Damage small exports and archives at random, and read them by all that reads them.

Bits are flipped, parts cut, left out, repeated, inserted and swapped, numbers replaced by those that overflow; headers
of a tar, records of a shard and entries of an index are forged, with every checksum right. Then `open`, `verify`,
`inspect`, `get`, `extract`, a loop, and the listing and reading of an archive have to end, within seconds and in little
memory, with an error of tfzip's own or with what was written: any other error, a process that dies, and any record that
was not written are findings. What `verify` finds nothing wrong with must be whole. What no CRC guards (members of tars,
stored ones of zips) and records forged with theirs may be wrong; they too must end well.

A case is told by its seed and its number, and can be done again: --seed 1 --case 7.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import io
import itertools
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.append(str(Path(__file__).parent.parent / "tests"))

import forged
import numpy as np
import peaks
from damage import damaged, forged_entries, forged_tar

import tfzip
from tfzip import framing, terminal
from tfzip.extract import extract
from tfzip.options import Options
from tfzip.record import parse_record
from tfzip.sources import Listed, open_source

SECONDS = 30  # that a case may take
MEGABYTES = 300  # that a case may take
ADDRESSES = 2 << 30  # bytes that all cases of a process may map beyond what it had before them
CASES = 2000  # in one process
LOOP_EVERY = 25  # cases: a loop over an export builds a graph, which takes longer than all else


def main() -> int:
    """Run cases for as long as asked; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one of the seed")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work_on(options.seed, *options.worker)
        return 0
    if options.case is not None:
        return 1 if watch(options.seed, options.case, 1, time.monotonic() + 600)[1] else 0
    until, done, found = time.monotonic() + 60 * options.minutes, 0, 0
    while time.monotonic() < until:
        more, wrong = watch(options.seed, done, CASES, until)
        done, found = done + max(more, 1), found + wrong
    print(f"seed {options.seed}: {done} cases in {options.minutes:g} minutes, {found} findings")
    return 1 if found else 0


# Processes.


def watch(seed: int, first: int, count: int, until: float) -> tuple[int, int]:
    """Run cases in another process till they are done or the time is up: how many, and what was wrong with how many."""
    command = [sys.executable, __file__, "--seed", str(seed), "--worker", str(first), str(count)]
    quiet = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0, **quiet)
    assert process.stdout is not None
    case, findings, is_over = first - 1, [], False
    while not is_over and time.monotonic() < until:
        patience = SECONDS + (60 if case < first else 0)  # at first it makes what it is to damage
        if not select.select([process.stdout], [], [], patience)[0]:
            findings.append((case, f"no end after {patience} s"))
            break
        kind, _, rest = process.stdout.readline().decode().partition(" ")
        is_over = not kind
        case = int(rest) if kind == "case" else case
        findings += [(case, json.loads(rest))] if kind == "found" else []
    if not is_over:
        process.kill()
    if process.wait() and is_over:
        findings.append((case, f"the process died ({process.returncode})"))
    for number, finding in findings:
        print(f"\nseed {seed}, case {number}:\n{finding}", flush=True)
    return case - first + 1, len(findings)


def work_on(seed: int, first: int, count: int) -> None:
    """In a process of its own: cases one after another; tells each as it begins, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as work:
        wholes, archives = list(make_exports(work)), make_archives()
        for whole in wholes:
            forged.rebuilt(forged.copied(whole.export, f"{work}/case"))
            with tfzip.open(f"{work}/case") as export:
                assert tfzip.verify(export) == [], "rebuilt as it was, an index should be whole"
            read_export(f"{work}/case", whole, foreign=False, loop=True)
        for archive in archives:
            assert len(list(images_of(f"{work}/archive{archive.suffix}", archive.content))) >= 5
        resource.setrlimit(resource.RLIMIT_AS, (memory()[0] + ADDRESSES,) * 2)
        for number in range(first, first + count):
            print("case", number, flush=True)
            before = memory()[1]
            try:
                _, most = peaks.peak(one_case, random.Random(f"{seed}/{number}"), number, work, wholes, archives)
                if most - (before >> 20) > MEGABYTES:
                    print("found", json.dumps(f"it took {most - (before >> 20)} MB"), flush=True)
            except BaseException:
                print("found", json.dumps(traceback.format_exc()), flush=True)


def memory() -> tuple[int, int]:
    """Bytes that this process has mapped, and that are in memory."""
    mapped, resident, *_ = map(int, Path("/proc/self/statm").read_text().split())
    return mapped * resource.getpagesize(), resident * resource.getpagesize()


def one_case(rng: random.Random, number: int, work: str, wholes: list[Whole], archives: list[Archive]) -> None:
    """Raise whatever is wrong."""
    if number % 4 == 0:
        read_archive(rng, f"{work}/archive", rng.choice(archives))
        return
    whole, other = rng.sample(wholes, 2)
    folder = forged.copied(whole.export, f"{work}/case")
    foreign = change(rng, str(folder), whole, other)
    read_export(str(folder), whole, foreign=foreign, loop=number % LOOP_EVERY == 1)
    read_parts(rng, whole)


# Exports.


class Whole:
    """An export as it was, and what it says."""

    def __init__(self, made: Any) -> None:
        self.export, self.folder, self.features = made, made.path, made.features
        self.shards, self.compression = [s["file"] for s in made.manifest["shards"]], made.manifest["compression"]
        self.index = next(str(path.relative_to(made.path)) for path in Path(made.path).rglob("index.zip"))
        self.serialized = [data for block in made.serialized() for data in block]
        self.records = {record.filename: forged.said(record) for record in made[:]}
        self.looped = [looped(item) for item in made]


def make_exports(work: str) -> Iterator[Whole]:
    """Exports that differ in how they are written."""
    yield Whole(forged.make_export(f"{work}/gzip"))
    yield Whole(forged.make_export(f"{work}/none", compression="none", layout="tfx"))
    yield Whole(forged.make_export(f"{work}/multilabel", task="multilabel", threshold=0.2, shard_records=100))
    noise = np.random.default_rng(1).integers(0, 256, (3, 250, 300, 3), np.uint8)
    triples = [([0.25, 0.75], f"{number}.png", image) for number, image in enumerate(noise)]
    yield Whole(tfzip.write(iter(triples), f"{work}/large", shard_records=2, quiet=True))


def looped(item: Any) -> Any:
    """What a loop gives, as something that can be compared."""
    prediction, filename, image = item
    return np.asarray(prediction).tolist(), filename, None if image is None else (image.shape, image.tobytes())


def change(rng: random.Random, folder: str, whole: Whole, other: Whole) -> bool:
    """Change a copy of an export; whether its shards may now hold records of another."""
    files = [*whole.shards, *[whole.index] * 3]
    for _ in range(rng.choice([1, 1, 1, 2])):
        path, kind = f"{folder}/{rng.choice(files)}", rng.random()
        if kind < 0.4:
            path = f"{folder}/{whole.index}"
            with contextlib.suppress(Exception):  # zipfile cannot read what was changed before
                forged.write_zip(path, forged_entries(rng, forged.entries(path)))
        elif not os.path.exists(path):
            continue
        elif kind < 0.9:
            content = Path(path).read_bytes()
            Path(path).write_bytes(damaged(rng, content))
        elif kind < 0.93:
            os.remove(path)
        elif kind < 0.97 and whole.index not in path:
            with contextlib.suppress(tfzip.CorruptError, IndexError):  # it was changed before
                forge_record(rng, path, whole.compression)
            return True
        else:
            shutil.copy(f"{other.folder}/{rng.choice([*other.shards, other.index])}", path)
            return True
    return False


def forge_record(rng: random.Random, path: str, compression: str) -> None:
    """Change a record of a shard; every CRC is right."""
    records = [[data for _, data in framing.unframe_all(frames)] for frames in blocks_of(path, compression)]
    block = rng.choice(records)
    chosen = rng.randrange(len(block))
    block[chosen] = damaged(rng, block[chosen])
    written = [[piece for record in block for piece in framing.frame(record)] for block in records]
    blocks = map(framing.deflate, written) if compression == "gzip" else written
    Path(path).write_bytes(b"".join(itertools.chain.from_iterable(blocks)))


def blocks_of(path: str, compression: str) -> list[bytes]:
    """The frames of every block of a shard."""
    with open(path, "rb") as file:
        return [frames for _, _, frames in framing.read_blocks(file, compression)]


def readings(folder: str) -> Iterator[Callable[[Any], Any]]:
    """What else reads an export."""
    yield lambda export: (len(export), export.labels, export.features, export.run, export.shards)
    yield lambda export: export.failures
    yield lambda export: [np.asarray(export.metadata[name]) for name in export.metadata]
    yield terminal.inspection
    yield lambda export: json.dumps(terminal.inspection_facts(export))
    yield lambda export: extract(export, tempfile.mkdtemp(dir=folder))


def read_export(folder: str, whole: Whole, *, foreign: bool, loop: bool) -> None:
    """Read all there is to read; AssertionError if anything is given that was not written."""
    with contextlib.suppress(tfzip.TfzipError), tfzip.open(folder) as export:
        is_whole = not foreign and tfzip.verify(export) == []
        for read in readings(folder):
            with contextlib.suppress(tfzip.TfzipError):
                read(export)
        for key in [*range(len(export)), *whole.records]:
            try:
                record = export[key]
                assert foreign or forged.said(record) == whole.records.get(record.filename), f"wrong data of {key!r}"
                assert isinstance(key, int) or record.filename == key, f"another record than {key!r}"
            except tfzip.TfzipError:
                assert not is_whole, f"verify finds nothing, but {key!r} cannot be had"
        for item in export if loop else ():
            assert foreign or looped(item) in whole.looped, "a loop gives what was not written"


def read_parts(rng: random.Random, whole: Whole) -> None:
    """Shards and records by themselves."""
    data = damaged(rng, Path(f"{whole.folder}/{rng.choice(whole.shards)}").read_bytes())
    with contextlib.suppress(tfzip.CorruptError):
        list(framing.frame_headers(io.BytesIO(data)))
    with contextlib.suppress(tfzip.CorruptError):
        for _, _, frames in framing.read_blocks(io.BytesIO(data), whole.compression):
            for _, record in framing.unframe_all(frames):
                assert record in whole.serialized, "a record that was not written"
    with contextlib.suppress(tfzip.CorruptError):
        parse_record(damaged(rng, rng.choice(whole.serialized)), whole.features)


# Archives.


class Archive:
    """An archive as it was: its bytes, those of the tar inside, and the members that have a CRC."""

    def __init__(self, suffix: str, content: bytes, tar: bytes = b"", checked: dict[str, bytes] | None = None) -> None:
        self.suffix, self.content, self.tar, self.checked = suffix, content, tar, checked or {}

    def damaged(self, rng: random.Random) -> bytes:
        """Its bytes, changed: those of the file, those inside, or headers."""
        if not self.tar or rng.random() < 0.2:
            return damaged(rng, self.content)
        tar = forged_tar(rng, self.tar) if rng.random() < 0.8 else self.tar
        tar = damaged(rng, tar) if tar is self.tar or rng.random() < 0.3 else tar
        return gzip.compress(tar, 1) if self.suffix == ".tar.gz" else tar


def make_archives() -> list[Archive]:
    """Archives of each kind."""
    rng = np.random.default_rng(2)
    files = {f"{'käse/' * n**3}{n}.png": rng.bytes(300 * 4**n) for n in range(5)}  # the last is beyond 64 kB
    files |= {"0.cls": b"cat", "0.json": b'{"a": 1, "b": "x"}', "käse/1.json": b"{}", "readme": b"x" * 2000}
    gnu, pax = (tar_of(files, form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("stored.png", bytes(500), zipfile.ZIP_STORED)
        for name, data in files.items():
            archive.writestr(name, data)
    return [
        Archive(".zip", zipped.getvalue(), checked=files),
        Archive(".tar", gnu, gnu),
        Archive(".tar", pax, pax),
        Archive(".tar.gz", gzip.compress(gnu, 1), gnu),
        Archive(".tar.gz", gzip.compress(pax, 1), pax),
    ]


def tar_of(files: dict[str, bytes], form: int) -> bytes:
    """A tar of files, and of a link."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form, bufsize=512) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.LNKTYPE, "0.png"
        tar.addfile(link)
    return content.getvalue()


def read_archive(rng: random.Random, path: str, archive: Archive) -> None:
    """Damage an archive and read all its images; AssertionError if one that has a CRC is another."""
    with contextlib.suppress(tfzip.TfzipError):
        for filename, encoded in images_of(path + archive.suffix, archive.damaged(rng)):
            assert not archive.checked or filename == "stored.png" or archive.checked.get(filename) == encoded, (
                f"wrong data of {filename!r}"
            )


def images_of(path: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    """The images of an archive that can be read."""
    import tensorflow as tf

    Path(path).write_bytes(content)
    source = open_source(path, Options())
    if isinstance(source, Listed):
        read = tf.autograph.experimental.do_not_convert(source.reader())
        items = tf.data.Dataset.range(len(source.filenames)).map(read).ignore_errors()
    else:
        items = source.batches(1).unbatch()
    with contextlib.suppress(tf.errors.OpError):
        for item in items.as_numpy_iterator():
            yield item["filename"].decode("utf-8", "surrogateescape"), item["encoded"]


if __name__ == "__main__":
    sys.exit(main())
