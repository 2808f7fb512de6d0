"""`python -m tfzip`."""

from tfzip.cli import run

run()
