"""What planning and the index of a very large export take: of items that are made up, with no images.

    .venv/bin/python scripts/plan_simulation.py [--items N]

The names come in no order, as from a file system that keeps none; they are sorted, and handed out in shards, with and
without a shuffle. Then rows are made up for all shards, and the index is put together of them. Each step is a process
of its own, whose peak of memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np

CLASSES = 10
LARGEST = 400_000  # bytes of an image


def files(count: int) -> Iterator[tuple[bytes, int, int]]:
    """Names, sizes and times of files in 4,096 folders."""
    for number in range(count):
        drawn = number * 2654435761 % 2**32  # Knuth's: each once, far from its neighbours
        yield b"%03x/%08x-%08d.jpg" % (drawn >> 20, drawn, number), 1000 + drawn % LARGEST, 10**18 + number


def layout(out: str) -> Any:
    """Of the export in a folder."""
    from tfzip.layout import Layout

    os.makedirs(f"{out}/.tfzip", exist_ok=True)
    return Layout(out, "flat", "images", "train", "gzip")


def plan(out: str, count: int, shuffle: int | None) -> tuple[int, float, int]:
    """List and hand out: how many shards there are, the seconds that it took, and the megabytes."""
    from tfzip import spread
    from tfzip.options import Options
    from tfzip.sources import Listed, spooled

    started, options = time.perf_counter(), Options(shuffle=shuffle)
    found = spooled.spool(spooled.in_order(files(count)))
    source = Listed(
        kind="folder",
        name="photos",
        filenames=found.names,
        sizes=found.sizes,
        stamps=found.stamps,
        reader=lambda: lambda _: {},
        access={"root": "/photos/"},
    )
    listing = spread.hand_out(layout(out), source, spread.Order(source, options), options, CLASSES)
    return listing.shards, time.perf_counter() - started, peak()


def rows(out: str, shards: int) -> int:
    """Make up the rows of all shards; how many bytes they are."""
    from tfzip import checkpoint, index
    from tfzip.sources import pieces

    at = layout(out)
    for shard in range(shards):
        names = pieces.load(at.work_piece(shard))[pieces.NAMES]
        scores = np.random.default_rng(shard).dirichlet(np.ones(CLASSES), len(names)).astype(np.float32)
        columns = {name: np.zeros(len(names), dtype) for name, dtype in index.COLUMNS.items() if name != "shard"}
        columns |= {"label": scores.argmax(1), "confidence": scores.max(1), "scores": scores}
        columns |= {"offset": np.arange(len(names)) * 200_000, "slot": np.arange(len(names))}
        texts = {"filename": names, "prediction": [b"a class"] * len(names), "truth_text": [b""] * len(names)}
        failures = [("a broken image.jpg", "decode", "it is no image")] * 10
        notes = {"records": len(names), "bytes": 128_000_000, "sha256": "0" * 64, "slots": len(names) + 10}
        notes |= {"failures": failures, "formats": ["jpeg"]}
        checkpoint.save_shard(at, shard, notes, columns, texts)
    return sum(os.path.getsize(at.work_rows(shard)) for shard in range(shards))


def index_of(out: str, shards: int) -> tuple[int, float, int]:
    """Put the index together: its megabytes, the seconds that it took, and the megabytes of memory."""
    from tfzip import finish, index
    from tfzip.record import SCORES

    started, at = time.perf_counter(), layout(out)
    made = finish.Made.of((), at, shards)
    manifest = {"shards": [each._asdict() for each in made.shards], "features": {SCORES: {"shape": [CLASSES]}}}
    parts = [at.work_rows(shard) for shard in range(shards)]
    index.write_index(at.work_index, manifest, (), "", parts, finish.failures((), at, shards))
    return os.path.getsize(at.work_index) >> 20, time.perf_counter() - started, peak()


def peak() -> int:
    """The most megabytes that this process had; 0 where the system does not tell."""
    if not os.path.exists("/proc/self/status"):
        return 0
    with open("/proc/self/status") as file:
        found = re.search(r"VmHWM:\s*(\d+)", file.read())
    return int(found[1]) >> 10 if found else 0


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Measure all steps, and print what they take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000_000)
    count = parser.parse_args().items
    for shuffle in (1, None):
        with tempfile.TemporaryDirectory() as out:
            shards, seconds, megabytes = apart(plan, out, count, shuffle)
            how = "shuffled" if shuffle else "as they are"
            print(
                f"plan of {count:,} items, {how}: {shards:,} shards, {seconds:.0f} s, {megabytes} MB of memory at most"
            )
            if shuffle is None:
                size = apart(rows, out, shards)
                print(f"rows of {shards:,} shards, made up: {size >> 20} MB of disk")
                disk, seconds, megabytes = apart(index_of, out, shards)
                print(f"index of {count:,} rows: {disk} MB of disk, {seconds:.0f} s, {megabytes} MB of memory at most")


if __name__ == "__main__":
    main()
