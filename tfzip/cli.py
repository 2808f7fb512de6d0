"""The command line: arguments -> a command, its errors told in a line, its exit code."""

from __future__ import annotations

import argparse
import gc
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from tfzip import colour, interrupt, naming, process
from tfzip.arguments import parser
from tfzip.errors import TfzipError

_GO_ON = "the same command goes on after what is finished"


def run() -> NoReturn:
    """The command line: run a command, and end the process; 130 or 143 if it is stopped by a signal."""
    parsed = _parsed(None)
    interrupt.end_process(f"tfzip {parsed.command}: interrupted", _GO_ON if parsed.command == "export" else "")
    code = _run(parsed)
    if code and getattr(parsed, "engine", "local") != "local":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # threads of a runner that failed may never end
    if code:
        gc.collect()  # threads end with what an error holds, while there still is a Python
    sys.exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code: 0 done, 1 the data was at fault, 2 the call was."""
    return _run(_parsed(arguments))


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    if "" not in sys.path:
        sys.path.append("")  # the current folder, for --import and the like, as `python -m tfzip` has it
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show is no error
    given, runner_options = _split(sys.argv[1:] if arguments is None else arguments)
    parsed = parser().parse_args(given, argparse.Namespace(runner_options=runner_options))
    process.set_up(quiet=not parsed.debug)
    return parsed


def _split(given: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """What is for tfzip, and what comes after `--` for a runner of Beam, if an export is to run on it."""
    end = list(given).index("--") if "--" in given else len(given)
    ours = list(given[:end])
    asks = "--engine=beam" in ours or ["--engine", "beam"] in [ours[i : i + 2] for i in range(end)]
    return (ours, given[end + 1 :]) if asks else (given, ())


def _run(parsed: argparse.Namespace) -> int:
    try:
        from tfzip.commands import COMMANDS

        return COMMANDS[parsed.command](parsed) or 0
    except TfzipError as error:
        return _fail(parsed, str(error), error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read our output has read enough
        return 1
    except OSError as error:
        place = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return _fail(parsed, f"{place}{error.strerror or error}", 1)
    except Exception as error:
        return _fail(parsed, f"{type(error).__name__}: {error} (--debug shows where)", 1)


def _fail(parsed: argparse.Namespace, message: str, code: int) -> int:
    if parsed.debug:
        traceback.print_exc()
    shown = "\n".join(map(naming.printable, message.split("\n")))
    colour.complain(f"tfzip {parsed.command}", shown)
    return code


if __name__ == "__main__":
    run()
