"""run.json: when, where, how fast and with what an export was made; no part of what is the same each time."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfzip import storage
from tfzip.version import __version__


def write(
    path: str,
    started: float,
    images: int,
    trials: Sequence[Mapping[str, Any]] = (),
    devices: Sequence[str] = (),
    **versions: str,
) -> None:
    """Write it at the end of a run that began at a time, in seconds since 1970, and did so many images.

    `trials` are what was tried out before, to find the best way to run the model; it ran on the `devices`, on
    the CPU if there are none.
    """
    seconds = time.time() - started
    run = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(seconds, 3),
        "images_per_second": round(images / seconds, 1),
        "trials": list(trials),
        "devices": list(devices),
        "host": platform.node(),
        "python": platform.python_version(),
        **versions,
        "tfzip": __version__,
    }
    with storage.open(path, "w") as file:
        file.write(json.dumps(run, indent=2) + "\n")
