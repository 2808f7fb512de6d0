"""Sides run in turn, each in a fresh process; the ratios of what they take."""

from __future__ import annotations

import importlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from benchmark.side import size
from benchmark.workloads import WORKLOADS, Side

SCRIPTS = os.path.dirname(os.path.dirname(__file__))
LONGEST = 3600  # seconds, for one side of one round


class FailedError(Exception):
    """A side that could not be measured; the text is the reason, in a line."""


def measure(name: str, photographs: int, rounds: int, sides: Sequence[Side]) -> dict[str, Any]:
    """Measure a workload: a round that does not count, then the rounds; sides that fail leave with their reason."""
    workload = WORKLOADS[name]
    count = photographs * workload.times
    results: dict[str, Any] = {side.name: {"own": side.own, "seconds": []} for side in sides}
    with tempfile.TemporaryDirectory() as folder:
        process(sys.executable, "-m", "benchmark.side", "prepare", name, folder, str(count))
        least = size(workload.work(folder, "").images)
        for number in range(rounds + 1):
            for side in sides:
                result = results[side.name]
                if "failed" in result:
                    continue
                _tell(f"{name}: round {number}, {side.name}")
                try:
                    told = _run(name, side, folder)
                    if side.writes and told["bytes"] < 0.9 * least:  # gzip takes a little off
                        raise FailedError(f"it wrote {told['bytes']} bytes, of images of {least}")
                except FailedError as error:
                    result["failed"] = str(error)
                    continue
                seconds = told.pop("seconds")
                if number:  # after the round that does not count
                    result["seconds"].append(seconds)
                result |= told
    _tell("")
    return {"images": count, "image_bytes": least, "unit": workload.unit, "sides": _compared(results, count)}


def _tell(text: str) -> None:
    """What goes on, in a line that is gone with the next, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text}\033[K", end="", file=sys.stderr, flush=True)


def _run(name: str, side: Side, folder: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=folder) as work:
        out = os.path.join(work, "out")
        python = _python(side.peer)
        return json.loads(process(python, "-m", "benchmark.side", name, side.peer, side.function, folder, out))


def _python(peer: str) -> str:
    """The Python that a peer runs on; its environment is made, where it needs one."""
    environment = getattr(importlib.import_module(f"benchmark.peers.{peer}"), "ENVIRONMENT", None)
    if environment is None:
        return sys.executable
    process(os.path.join(SCRIPTS, "setup"), *environment)
    return os.path.join(SCRIPTS, "..", ".venv" + environment[0].removeprefix("-"), "bin", "python")


def process(*command: str) -> str:
    """The last line that a command prints, to which `benchmark` can be imported; its last error, if it fails."""
    path = os.pathsep.join(filter(None, [SCRIPTS, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise FailedError(f"it took more than {LONGEST} seconds") from None
    if done.returncode < 0:
        raise FailedError(f"{signal.Signals(-done.returncode).name} ended it")
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FailedError(_reason(lines))
    return (done.stdout.strip().splitlines() or [""])[-1]


def _reason(lines: Sequence[str]) -> str:
    """The last line of a traceback that begins one, or the last of all."""
    told = [line for line in lines if line[:1].strip() and "Error" in line.partition(":")[0]]
    return (told or lines)[-1][:300]


def _compared(results: dict[str, Any], count: int) -> dict[str, Any]:
    """The results with rates, and for each of tfzip's own sides the ratio: how many times as fast it is."""
    own = {result["own"]: result for result in results.values() if result["own"]}
    for result in results.values():
        if "failed" in result:
            continue
        result["rate"] = count / statistics.median(result["seconds"])
        result["ratios"] = {
            name: _ratio(result["seconds"], ours["seconds"])
            for name, ours in own.items()
            if "failed" not in ours and ours is not result
        }
    return results


def _ratio(theirs: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    rounds = [their / our for their, our in zip(theirs, ours, strict=True)]
    return {"median": statistics.median(rounds), "least": min(rounds), "most": max(rounds), "rounds": rounds}
