"""SIGINT and SIGTERM in a process of our own: the command line's."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

_MOMENT = 3.0
"""Seconds that the main thread has to stop."""

_SAID = b"tfzip: interrupted; the same command goes on after what is finished\n"


class Received:
    """The signal that came, if one did."""

    number = 0

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def handled() -> Iterator[Received]:
    """Make the first SIGINT or SIGTERM a KeyboardInterrupt in the main thread.

    That does not reach it while TensorFlow computes, and is lost where Python calls back from C. So if the process has
    not stopped after a moment, a thread ends it, and at a second signal at once: what is on the disk is always fit to
    go on from.
    """
    received = Received()
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield received
        return

    def stop(number: int, _: Any) -> None:
        if not received.number:
            received.number = number
            raise KeyboardInterrupt

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    watching = threading.Thread(target=_watch, args=(theirs,), daemon=True)
    watching.start()
    old_wakeup = signal.set_wakeup_fd(ours.fileno())
    old = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        ours.close()
        watching.join()
        theirs.close()


def _watch(signals: socket.socket) -> None:
    """End the process if it does not end by itself; each signal arrives as a byte, its number."""
    first = signals.recv(1)
    if first:
        select.select([signals], [], [], _MOMENT)
        with contextlib.suppress(BlockingIOError):
            signals.setblocking(False)
            if not signals.recv(1):
                return  # it is ending
        os.write(2, _SAID)
        os._exit(128 + first[0])
