"""tfzip against its peers, and against what the machine can do: every figure is a ratio of runs made side by side.

Each side of each round is a process of its own, timed from when its model is loaded. The rounds take turns, after one
that does not count. A column tells how many times as fast tfzip is as the side of that row: the median of the rounds,
and the least and the most. A peer that cannot be installed or fails is told with the reason.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from typing import Any

from benchmark import measure, memory, policies, table
from benchmark.workloads import TITLES, WORKLOADS


def main() -> None:
    """Measure what is asked for; print tables."""
    options = _options()
    if options.list:
        print(_listed())
        return
    model = _processor()
    print(f"{os.cpu_count()} CPUs, {platform.machine()}{model and ', '}{model}; {platform.system()}", flush=True)
    results = {name: MEASURED[name](options) for name in options.only}
    if options.json:
        machine = {
            "cpus": os.cpu_count(),
            "machine": platform.machine(),
            "processor": model,
            "system": platform.system(),
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"machine": machine, **results}, file, indent=2)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="that count, of each side")
    parser.add_argument("--images", type=int, default=1000, help="unit of how many each workload has, see its table")
    parser.add_argument("--small", type=int, default=100_000, help="thumbnails of the peak memory; and a tenth of them")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the index that policies choose from")
    names = ", ".join(MEASURED)
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=[*MEASURED], metavar="WORKLOAD", help=names)
    beam = [name for name in MEASURED if name.startswith("beam")]
    parser.add_argument(
        "--beam", action="store_const", dest="only", const=beam, help=f"the same as --only {' '.join(beam)}"
    )
    peers = sorted({side.peer for workload in WORKLOADS.values() for side in workload.sides})
    parser.add_argument("--peers", nargs="+", choices=peers, metavar="PEER", help="only these beside tfzip; see --list")
    parser.add_argument("--json", metavar="FILE", help="the results, for programs")
    parser.add_argument("--list", action="store_true", help="what is measured, against whom, without measuring it")
    return parser.parse_args()


def _listed() -> str:
    lines = []
    for name, title in TITLES.items():
        lines += [f"{name}: {title}", *(f"    {side.peer:12} {side.name}" for side in WORKLOADS[name].sides)]
    return "\n".join([*lines, "memory: the peak of many small images", "policies: tfzip select over a large index"])


def _measured(name: str) -> Callable[[argparse.Namespace], dict[str, Any]]:
    def run(options: argparse.Namespace) -> dict[str, Any]:
        sides = [side for side in WORKLOADS[name].sides if side.own or not options.peers or side.peer in options.peers]
        result = measure.measure(name, options.images, options.rounds, sides)
        print(f"\n{table.show(TITLES[name], result)}\n{table.versions(result)}", flush=True)
        return result

    return run


def _memory(options: argparse.Namespace) -> dict[str, Any]:
    result = memory.measure(options.small, options.rounds)
    print(f"\n{memory.show(result)}", flush=True)
    return result


def _policies(options: argparse.Namespace) -> dict[str, Any]:
    print()
    return policies.measure(options.rows, options.rounds)


def _processor() -> str:
    """What Linux calls it; empty elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.partition(": ")[2].strip() for line in file if line.startswith("model name")), "")
    except OSError:
        return ""


MEASURED = {**{name: _measured(name) for name in WORKLOADS}, "memory": _memory, "policies": _policies}

if __name__ == "__main__":
    main()
