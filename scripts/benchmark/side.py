"""One side of one round, in a process of its own: `python -m benchmark.side`. Prints JSON; errors are tracebacks."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
import time
from importlib import metadata
from typing import Any

from benchmark.workloads import WORKLOADS


def run(workload: str, peer: str, function: str, folder: str, out: str) -> dict[str, Any]:
    """The seconds that a side takes once all is loaded, and the bytes that it leaves."""
    module = importlib.import_module(f"benchmark.peers.{peer}")
    timed = getattr(module, function)(WORKLOADS[workload].work(folder, out))
    started = time.time()
    began = timed()
    ended = time.time()
    if isinstance(began, float):
        started = max(started, began)
    return {"seconds": ended - started, "bytes": size(out), "versions": _versions(module.PACKAGES)}


def size(folder: str) -> int:
    """The bytes of all files below a folder; none if there is none."""
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(folder) for name in names)


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {"Python": platform.python_version(), **{name: metadata.version(name) for name in packages}}


def main(what: str, *arguments: str) -> None:
    """Either prepare a workload's folder, or run a side."""
    if what == "prepare":
        workload, folder, count = arguments
        WORKLOADS[workload].prepare(folder, int(count))
    else:
        print(json.dumps(run(what, *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
