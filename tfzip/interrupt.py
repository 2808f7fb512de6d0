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

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_MOMENT = 3.0
"""Seconds that the main thread has to stop."""


class Received:
    """The signal that came, if one did."""

    number = 0

    @property
    def exit_code(self) -> int:
        """As shells have it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.number or signal.SIGINT)


@contextlib.contextmanager
def handled(said: str = "interrupted") -> Iterator[Received]:
    """Make the first SIGINT or SIGTERM a KeyboardInterrupt in the main thread; one that is ignored stays so.

    That does not reach it while TensorFlow computes, and is lost where Python calls back from C. So if the process has
    not stopped after a moment, a thread says what is to be `said` and ends it, and at a second signal at once: what is
    on the disk is always fit to go on from.
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
    watching = threading.Thread(target=_watch, args=(theirs, said), daemon=True)
    watching.start()
    old_wakeup = signal.set_wakeup_fd(ours.fileno())
    ours_to_handle = [number for number in _STOPPING if signal.getsignal(number) != signal.SIG_IGN]
    old = {number: signal.signal(number, stop) for number in ours_to_handle}
    try:
        yield received
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(old_wakeup)
        ours.close()
        watching.join()
        theirs.close()


def _watch(signals: socket.socket, said: str) -> None:
    """End the process if it does not end by itself; each signal arrives as a byte, its number."""
    if first := _next(signals):
        ready, _, _ = select.select([signals], [], [], _MOMENT)
        if ready and not _next(signals):
            return  # it is ending
        os.write(2, f"tfzip: {said}\n".encode())
        os._exit(128 + first)


def _next(signals: socket.socket) -> int:
    """The next signal that stops a process; 0 if the socket was closed, since none is waited for any more."""
    while received := signals.recv(1):
        if received[0] in _STOPPING:
            return received[0]
    return 0
