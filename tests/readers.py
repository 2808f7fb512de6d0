"""The README's Python, and its table of who reads an export: what it tells people to write."""

import re
from pathlib import Path

import pytest

import tfzip

README = Path(tfzip.__file__).parents[1] / "README.md"


def text():
    """All of the README."""
    if not README.exists():
        pytest.skip("the README is in a checkout only")
    return README.read_text()


def pieces():
    """Its pieces of Python."""
    return re.findall(r"```python\n(.*?)```", text(), re.DOTALL)


def table():
    """The code of each row, by the reader's name."""
    (lines,) = re.findall(r"^\| reader \|.*\n\|---.*\n((?:\|.*\n)+)", text(), re.MULTILINE)
    return dict(re.findall(r"^\| (.*?) \| `(.*?)` \|", lines, re.MULTILINE))


def reading(name):
    """The code of the reader of that name: an expression, or statements."""
    return table()[name]
