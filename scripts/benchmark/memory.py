"""The most memory that an export takes, of many small images and of ten times as many."""

from __future__ import annotations

import json
import re
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmark.measure import process
from benchmark.workloads import WORKLOADS


def peak() -> int:
    """The most megabytes that this process had; on Linux without those of the process that started it."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s*(\d+)", status.read_text())[0]) >> 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def measure(images: int, rounds: int) -> dict[str, Any]:
    """Peaks in megabytes of exports of so many images and of a tenth of them, and by how much they differ."""
    counts = (images // 10, images)
    with tempfile.TemporaryDirectory() as folder:
        process(sys.executable, "-m", "benchmark.side", "prepare", "tiny", folder, str(images))
        peaks = [[_peak(folder, count) for count in counts] for _ in range(rounds)]
    more = sorted(many - few for few, many in peaks)
    return {"images": counts, "megabytes": peaks, "median": statistics.median(more), "least": more[0], "most": more[-1]}


def show(result: dict[str, Any]) -> str:
    """Some lines for people."""
    few, many = (statistics.median(peaks) for peaks in zip(*result["megabytes"], strict=True))
    less, more = result["images"]
    return (
        f"peak memory of an export with the tiny CNN: {less} images {few:.0f} MB, {more} images {many:.0f} MB\n"
        f"more by {result['median']:.0f} MB ({result['least']:.0f} to {result['most']:.0f})"
    )


def _peak(folder: str, count: int) -> int:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        return json.loads(process(sys.executable, "-m", "benchmark.memory", folder, f"{work}/out", str(count)))


def main(folder: str, out: str, count: str) -> None:
    """In a process of its own: an export, and its peak."""
    from tfzip import process

    process.set_up(quiet=True)
    import tfzip

    work = WORKLOADS["tiny"].work(folder, out)
    tfzip.export(work.images, work.model, work.out, limit=int(count), quiet=True)
    print(peak())


if __name__ == "__main__":
    main(*sys.argv[1:])
