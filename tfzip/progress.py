"""How far an export is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

_LINE_EVERY = 5.0  # seconds


class Progress:
    """Counts images done and failed; use as a context manager.

    Args:
        total: images to do; None if only the end tells.
        quiet: say nothing.
        done: images that are done already.
        file: where to; standard error by default.
    """

    def __init__(self, total: int | None, *, quiet: bool = False, done: int = 0, file: TextIO | None = None) -> None:
        self._file = file or sys.stderr
        self._total, self._done, self._failed, self._before = total, done, 0, done
        self._lines = not quiet and not self._file.isatty()
        self._bar = tqdm(
            total=total,
            initial=done,
            unit="img",
            file=self._file,
            disable=quiet or self._lines,
            dynamic_ncols=True,
            mininterval=0.2,
        )
        self._started = self._last_line = time.monotonic()

    def update(self, done: int, failed: int) -> None:
        """Count images: `failed` of the `done` ones failed."""
        self._done += done
        self._failed += failed
        if failed:
            self._bar.set_postfix_str(f"{self._failed} failed", refresh=False)
        self._bar.update(done)
        if self._lines and time.monotonic() - self._last_line >= _LINE_EVERY:
            self._last_line = time.monotonic()
            self._file.write(self._line())
            self._file.flush()

    def _line(self) -> str:
        rate = (self._done - self._before) / max(time.monotonic() - self._started, 1e-9)
        failed = f", {self._failed} failed" if self._failed else ""
        if self._total is None:
            return f"{self._done} images, {rate:.0f} images/s{failed}\n"
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        return f"{self._done} of {self._total} images, {rate:.0f} images/s, {left} left{failed}\n"

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
