"""SIGINT and SIGTERM, kept out of TensorFlow.

Its C code calls Python in many places, and where that raises it may write past an array, or lose the exception: an
iterator's `next` does both. So nothing is raised there.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

_STOPPING = (signal.SIGINT, signal.SIGTERM)
_MOMENT = 3.0
"""Seconds for what is to be done at last."""

_at_last: list[Callable[[], None]] = []
_left: list[str] = []


def end_process(said: str, left: str = "") -> None:
    """Let SIGINT or SIGTERM, unless ignored, end this process from now on: a line `said`, then 130 or 143, at once.

    The line ends with what is `left`, if anything is; see `leaving`.

    For a process of our own: nothing is unwound, as after SIGKILL, since what is on the disk is fit to go on from at
    any moment. A thread does it: the main one handles no signal while TensorFlow computes.
    """
    _left.append(left)
    heard, ours = socket.socketpair()
    ours.setblocking(False)
    threading.Thread(target=_watch, args=(heard, ours, said), daemon=True).start()
    signal.set_wakeup_fd(ours.fileno(), warn_on_full_buffer=False)
    for number in _handled():
        signal.signal(number, lambda *_: None)
    if hasattr(os, "register_at_fork"):  # where processes fork
        os.register_at_fork(before=_hold_back, after_in_parent=_let_through, after_in_child=_leave)


def _handled() -> list[signal.Signals]:
    return [number for number in _STOPPING if signal.getsignal(number) != signal.SIG_IGN]


def _hold_back() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)


def _let_through() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)


def _leave() -> None:
    """In a child: what ends it is no signal to us."""
    signal.set_wakeup_fd(-1)
    for number in _handled():
        signal.signal(number, signal.SIG_DFL)
    _let_through()


def _watch(signals: socket.socket, _open: socket.socket, said: str) -> None:
    """Wait for a signal, which comes from the other end of a pair of sockets, and end the process."""
    number = _next(signals)
    line = "; ".join(filter(None, [said, _left[-1]])) + "\n"
    os.write(2, (f"\n{line}" if os.isatty(2) else line).encode())  # after a bar of progress
    doing = threading.Thread(target=_do_last, daemon=True)
    doing.start()
    deadline = time.monotonic() + _MOMENT
    while doing.is_alive() and time.monotonic() < deadline and not select.select([signals], [], [], 0.01)[0]:
        pass  # a second signal ends it too
    os._exit(128 + number)


def _next(signals: socket.socket) -> int:
    """The next signal that stops a process: each arrives as a byte, its number."""
    while (number := signals.recv(1)[0]) not in _STOPPING:
        pass
    return number


def _do_last() -> None:
    for call in _at_last:
        call()


@contextlib.contextmanager
def at_last(call: Callable[[], None]) -> Iterator[None]:
    """If a signal ends the process meanwhile, this is called before: by another thread."""
    _at_last.append(call)
    try:
        yield
    finally:
        _at_last.remove(call)


@contextlib.contextmanager
def leaving(left: str) -> Iterator[None]:
    """If a signal ends the process meanwhile, this printable text is said to be left, and not what else would be."""
    _left.append(left)
    try:
        yield
    finally:
        _left.remove(left)


@contextlib.contextmanager
def put_off() -> Iterator[None]:
    """Let Python's KeyboardInterrupt wait until the block is left; a second one does not.

    For a process that is not ours: around what works in TensorFlow for long.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came: list[int] = []

    def note(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt
