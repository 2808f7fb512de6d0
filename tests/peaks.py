"""How much memory something takes at its most, measured in a process of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path


def peak(function, *arguments):
    """What a function returns, and the most megabytes that the process had meanwhile.

    `getrusage` is of no use here: its peak never falls, and begins at that of the process which started this one.
    """
    Path("/proc/self/clear_refs").write_text("5")
    returned = function(*arguments)
    return returned, int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) >> 10


def run(code, *arguments, seconds=300):
    """The lines that a program prints; it may import this module. Each is split at its tabs."""
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=seconds, env=environment)
    return [line.split("\t") for line in done.stdout.splitlines()]
