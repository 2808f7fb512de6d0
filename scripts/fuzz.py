"""Small exports changed at random, then read by all that reads exports; see `scripts/fuzz`.

Whatever is changed, nothing but tfzip's own errors may come of it, within a few seconds and in little memory; and no
record may be given that was not written. A case is told by the seed and its number: `--seed 1 --case 7` does it again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import tfzip
from tfzip import framing, terminal
from tfzip.extract import extract
from tfzip.record import parse_record

SECONDS = 20  # that a case may take
MEGABYTES = 300  # that it may take beyond those before it
CASES = 2000  # in one process
LOOP_EVERY = 25  # cases: a loop over an export builds a graph, which takes longer than all else
NUMBERS = [0, 1, 2, 7, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]


# Changes of bytes.


def place(rng: random.Random, data: bytes) -> int:
    """Somewhere in the data: often at its ends, where zips and shards keep what tells of the rest."""
    near = min(len(data), rng.choice([30, 100, 1000, len(data)]))
    return rng.choice([rng.randrange(near + 1), len(data) - rng.randrange(near + 1)])


def region(rng: random.Random, data: bytes) -> slice:
    """A few bytes of the data, or some hundreds."""
    begin = place(rng, data)
    return slice(begin, begin + rng.choice([1, 2, 4, 8, 30, 46, 64, rng.randrange(1, 500)]))


def flip(rng: random.Random, data: bytes) -> bytes:
    """Bits of a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        changed[min(place(rng, data), len(data) - 1)] ^= rng.choice([1 << rng.randrange(8), rng.randrange(1, 256)])
    return bytes(changed)


def cut(rng: random.Random, data: bytes) -> bytes:
    """The end is gone."""
    return data[: place(rng, data)]


def leave_out(rng: random.Random, data: bytes) -> bytes:
    """A part is gone."""
    gone = region(rng, data)
    return data[: gone.start] + data[gone.stop :]


def repeat(rng: random.Random, data: bytes) -> bytes:
    """A part comes again, and perhaps again and again."""
    again = region(rng, data)
    return data[: again.stop] + data[again] * rng.choice([1, 2, 100]) + data[again.stop :]


def insert(rng: random.Random, data: bytes) -> bytes:
    """Something comes between."""
    at = place(rng, data)
    return data[:at] + rng.randbytes(rng.choice([1, 8, 100])) + data[at:]


def number(rng: random.Random, data: bytes) -> bytes:
    """A number of the kind that overflows."""
    at, size = place(rng, data), rng.choice([2, 4, 8])
    value = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
    return data[:at] + value + data[at + size :]


def swap(rng: random.Random, data: bytes) -> bytes:
    """Two parts change places."""
    first, second = sorted((region(rng, data), region(rng, data)), key=lambda part: part.start)
    if first.stop > second.start:
        return data
    between = data[first.stop : second.start]
    return data[: first.start] + data[second] + between + data[first] + data[second.stop :]


BYTES: list[Callable[[random.Random, bytes], bytes]] = [
    flip, flip, flip, cut, leave_out, repeat, insert, number, number, swap,
]  # fmt: skip


def damaged(rng: random.Random, data: bytes) -> bytes:
    """The data with one change or a few."""
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        data = rng.choice(BYTES)(rng, data) if data else rng.randbytes(rng.randrange(9))
    return data


# Changes of an index, rebuilt with every CRC right.


def value(rng: random.Random, depth: int = 0) -> Any:
    """Any value that JSON has."""
    simple = [None, True, -1, 0.5, "", "x" * 300, "../../etc/passwd", "\x1b[2J", *NUMBERS, 10**30, float("nan")]
    if depth < 3 and rng.random() < 0.3:
        inner = [value(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {f"k{i}": item for i, item in enumerate(inner)}
    return rng.choice(simple)


def forged_json(rng: random.Random, data: bytes) -> bytes:
    """JSON with values of any kind here and there, or none."""
    facts = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        holder = facts
        while True:
            key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
            if not isinstance(holder[key], (dict, list)) or not holder[key] or rng.random() < 0.2:
                break
            holder = holder[key]
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = value(rng)
        if not facts:
            break
    return json.dumps(facts).encode()


def forged_array(rng: random.Random, data: bytes) -> bytes:
    """A `.npy` with another header, or other values, length or dtype."""
    if rng.random() < 0.3:
        return damaged(rng, data[:200]) + data[200:]
    array = np.load(io.BytesIO(data))
    kind = rng.randrange(5)
    if kind == 0 and array.size:
        flat, limits = array.reshape(-1), np.iinfo(array.dtype) if array.dtype.kind in "iu" else None
        for _ in range(rng.choice([1, 3])):
            any_number = rng.choice([*NUMBERS, -1, -5, -(2**62)])
            flat[rng.randrange(flat.size)] = np.clip(any_number, limits.min, limits.max) if limits else any_number
    elif kind == 1:
        array = array[rng.randrange(len(array) + 1) :]
    elif kind == 2:
        array = array[::-1]
    elif kind == 3:
        array = array.astype(rng.choice(["<i4", ">i8", "<f8", "O", "S3", "<u2"]))
    else:
        array = np.concatenate([array] * rng.choice([2, 3]))
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def rebuild(rng: random.Random, path: str) -> None:
    """Change some entries of an index, or leave them out."""
    with zipfile.ZipFile(path) as archive:
        entries = [(info, archive.read(info)) for info in archive.infolist()]
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        chosen = rng.randrange(len(entries))
        info, data = entries[chosen]
        if rng.random() < 0.05:
            del entries[chosen]
        elif info.filename == "manifest.json" and rng.random() < 0.9:
            entries[chosen] = info, forged_json(rng, data)
        elif info.filename.endswith(".npy"):
            with contextlib.suppress(ValueError, TypeError, OverflowError):  # of an entry that was changed before
                entries[chosen] = info, forged_array(rng, data)
        else:
            entries[chosen] = info, damaged(rng, data)
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)


# Cases.


class Whole:
    """An export as it was, and what it says."""

    def __init__(self, folder: str, **options: Any) -> None:
        rng = np.random.default_rng(1)
        names = [f"{number % 3}/{number}é.png" for number in range(9)]
        images = [rng.integers(0, 256, (3, 4, 3), np.uint8) for _ in names]
        scores = rng.dirichlet(np.ones(3), len(names)).astype(np.float32)
        triples = [*zip(scores, names, images, strict=True), (scores[0], "broken.png", b"no image")]
        options = {"labels": ["a", "b", "c"], "shard_records": 4, "batch_size": 1, **options}
        made = tfzip.write(iter(triples), folder, quiet=True, **options)
        assert made is not None
        self.folder, self.features = folder, made.features
        self.shards, self.compression = [shard["file"] for shard in made.manifest["shards"]], options["compression"]
        self.serialized = [data for block in made.serialized() for data in block]
        self.records = {record.filename: said(record) for record in made[:]}


def said(record: Any) -> tuple[Any, ...]:
    """A record as something that can be compared."""
    scores = None if record.prediction.scores is None else record.prediction.scores.tobytes()
    return record.filename, record.encoded, record.format, record.height, record.width, record.prediction[:3], scores


def change(rng: random.Random, folder: str, whole: Whole, other: Whole) -> bool:
    """Change a copy of an export; whether its shards may now hold records of another."""
    files = [*whole.shards, "index.zip", "index.zip", "index.zip"]
    for _ in range(rng.choice([1, 1, 1, 2])):
        kind = rng.random()
        if kind < 0.4 and os.path.exists(f"{folder}/index.zip"):
            with contextlib.suppress(zipfile.BadZipFile, OSError, ValueError):  # of one that was changed before
                rebuild(rng, f"{folder}/index.zip")
        elif kind < 0.9:
            path = f"{folder}/{rng.choice(files)}"
            with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
                data = file.read()
                with open(path, "wb") as changed:
                    changed.write(damaged(rng, data))
        elif kind < 0.93:
            with contextlib.suppress(FileNotFoundError):
                os.remove(f"{folder}/{rng.choice(files)}")
        else:
            shutil.copy(f"{other.folder}/{rng.choice([*other.shards, 'index.zip'])}", folder)
            return True
    return False


def readings(folder: str, loop: bool) -> Iterator[Callable[[Any], Any]]:
    """Everything that reads an export."""
    yield tfzip.verify
    yield lambda export: (len(export), export.labels, export.features, export.run, export.shards)
    yield lambda export: export.failures
    yield lambda export: [np.asarray(export.metadata[name]) for name in export.metadata]
    yield terminal.inspection
    yield lambda export: json.dumps(terminal.inspection_facts(export))
    yield lambda export: extract(export, tempfile.mkdtemp(dir=folder))
    if loop:
        yield list


def read_export(folder: str, whole: Whole, *, foreign: bool, loop: bool) -> None:
    """Read all there is to read; AssertionError if a record is given that was not written."""
    with contextlib.suppress(tfzip.TfzipError), tfzip.open(folder) as export:
        for read in readings(folder, loop):
            with contextlib.suppress(tfzip.TfzipError):
                read(export)
        for key in [*range(len(export)), *whole.records]:
            with contextlib.suppress(tfzip.TfzipError):
                record = export[key]
                if not foreign:
                    assert said(record) == whole.records.get(record.filename), f"wrong data of {key!r}"
                assert isinstance(key, int) or record.filename == key, f"another record than {key!r}"


def read_parts(rng: random.Random, whole: Whole) -> None:
    """Shards and records by themselves."""
    with open(f"{whole.folder}/{rng.choice(whole.shards)}", "rb") as file:
        data = damaged(rng, file.read())
    with contextlib.suppress(tfzip.CorruptError):
        for _, _, frames in framing.read_blocks(io.BytesIO(data), whole.compression):
            for _, record in framing.unframe_all(frames):
                assert record in whole.serialized, "a record that was not written"
    with contextlib.suppress(tfzip.CorruptError):
        parse_record(damaged(rng, rng.choice(whole.serialized)), whole.features)


def one_case(seed: int, number: int, work: str, wholes: list[Whole]) -> None:
    """Raise whatever is wrong."""
    rng = random.Random(f"{seed}/{number}")
    whole, other = rng.sample(wholes, 2)
    folder = f"{work}/case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole.folder, folder)
    foreign = change(rng, folder, whole, other)
    read_export(folder, whole, foreign=foreign, loop=number % LOOP_EVERY == 0)
    read_parts(rng, whole)


def work_on(seed: int, first: int, count: int) -> None:
    """In a process of its own: cases one after another; tells each as it begins, and what is wrong with it."""
    with tempfile.TemporaryDirectory() as work:
        settings = [("gzip", "flat"), ("none", "flat"), ("gzip", "flat")]
        wholes = [
            Whole(f"{work}/{i}", compression=compression, layout=layout, shuffle=None)
            for i, (compression, layout) in enumerate(settings)
        ]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(first, first + count):
            print("case", number, flush=True)
            try:
                one_case(seed, number, work, wholes)
            except Exception:
                print("found", json.dumps(traceback.format_exc()), flush=True)
            before, peak = peak, max(peak, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
            if peak - before > MEGABYTES << 10:
                print("found", json.dumps(f"it took {(peak - before) >> 10} MB"), flush=True)


def watch(seed: int, first: int, count: int, until: float) -> tuple[int, int]:
    """Run cases in another process till they are done or the time is up; how many, and what was wrong with how many."""
    command = [sys.executable, __file__, "--seed", str(seed), "--worker", str(first), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    case, found = first - 1, 0
    while time.monotonic() < until:
        ready, _, _ = select.select([process.stdout], [], [], SECONDS + (60 if case < first else 0))
        line = process.stdout.readline().decode() if ready else "found " + json.dumps(f"no end after {SECONDS} s")
        if not line:
            break
        kind, _, rest = line.partition(" ")
        if kind == "case":
            case = int(rest)
        elif kind == "found":
            found += 1
            print(f"\nseed {seed}, case {case}:\n{json.loads(rest)}", flush=True)
            if not ready:
                break
    process.kill() if process.poll() is None else None
    if process.wait() not in (0, -9):
        found += 1
        print(f"\nseed {seed}, case {case}: the process died ({process.returncode})", flush=True)
    return case - first + 1, found


def main() -> int:
    """Run cases for as long as asked; 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker or options.case is not None:
        work_on(options.seed, *(options.worker or (options.case, 1)))
        return 0
    until, done, found = time.monotonic() + 60 * options.minutes, 0, 0
    while time.monotonic() < until:
        more, wrong = watch(options.seed, done, CASES, until)
        done, found = done + max(more, 1), found + wrong
    print(f"seed {options.seed}: {done} cases in {options.minutes:g} minutes, {found} findings")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
