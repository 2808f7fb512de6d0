"""The README's table of who reads an export: what it tells people to write."""

import re
from pathlib import Path

import pytest

import tfzip

README = Path(tfzip.__file__).parents[1] / "README.md"


def table():
    """The code of each row, by the reader's name."""
    if not README.exists():
        pytest.skip("the README is in a checkout only")
    (lines,) = re.findall(r"^\| reader \|.*\n\|---.*\n((?:\|.*\n)+)", README.read_text(), re.MULTILINE)
    return dict(re.findall(r"^\| (.*?) \| `(.*?)` \|", lines, re.MULTILINE))


def reading(name):
    """The code of the reader of that name: an expression, or statements."""
    return table()[name]
