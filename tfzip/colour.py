"""Printing: in colours on a terminal that wants them, the very same text without them elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import sys
from typing import TextIO

_STYLES = {
    r"\A[^\n]+(?=\n)|(?<=\n\n)[^\n]+": "bold",  # what heads the text, or a part of it
    r"(?<=  )#+$": "green",  # bars
    r"^failures$|\b[1-9][0-9]* failures?\b|^.*\bnot a number\b.*$": "red",
}


def width() -> int | None:
    """The columns of the terminal that is printed to; None where that is a file or a program."""
    return shutil.get_terminal_size().columns if _is_terminal(sys.stdout) else None


def show(text: str) -> None:
    """Print a text of several lines to standard output."""
    if _is_coloured(sys.stdout):
        _paint(sys.stdout, text, _STYLES)
    else:
        print(text)


def complain(who: str, what: str) -> None:
    """Print `WHO: WHAT` to standard error."""
    if _is_coloured(sys.stderr):
        _paint(sys.stderr, f"{who}: {what}", {rf"\A{re.escape(who)}:": "bold red"})
    else:
        print(f"{who}: {what}", file=sys.stderr)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _is_coloured(stream: TextIO) -> bool:
    """Whether it is a terminal, and nobody asked for no colours: https://no-color.org."""
    return _is_terminal(stream) and not os.environ.get("NO_COLOR")


def _paint(stream: TextIO, text: str, styles: dict[str, str]) -> None:
    """Print with what some patterns match in some style; nothing in the text itself is taken for markup."""
    from rich.console import Console
    from rich.text import Text

    painted = Text(text)
    for pattern, style in styles.items():
        painted.highlight_regex(re.compile(pattern, re.MULTILINE), style)
    Console(file=stream).print(painted, soft_wrap=True)
