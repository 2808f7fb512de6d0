"""The version of tfzip."""

__version__ = "0.1.0"
