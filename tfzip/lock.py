"""One writer at a time in a folder: a lock that names its holder, and that no dead process keeps."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import threading
import time
from collections.abc import Iterator
from typing import Any

import filelock

from tfzip import interrupt, storage
from tfzip.errors import OutputExistsError

LOCK, HOLDER = "lock", "writer.json"
"""The files of a lock: one that the system locks, and one that tells who holds it."""

_BEAT = 30.0  # seconds between the signs of life of a holder elsewhere
_DEAD = 10 * _BEAT


@contextlib.contextmanager
def held(folder: str, out: str) -> Iterator[None]:
    """Hold the lock of a folder that exists; OutputExistsError, which names the holder and `out`, if another does.

    On a disk of this machine the system keeps the lock, and drops it with its process. Elsewhere the holder gives a
    sign of life now and then; one that has not for five minutes is taken for dead.
    """
    with _system_lock(folder, out) if storage.is_local(folder) else _signs_of_life(folder, out):
        yield


@contextlib.contextmanager
def _system_lock(folder: str, out: str) -> Iterator[None]:
    lock = filelock.FileLock(storage.join(folder, LOCK))
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise _in_use(out, _holder(folder)) from None
    try:
        _sign(folder)
        yield
    finally:
        # Removed while it is held: who waits for a file that is gone would hold it beside whoever makes a new one.
        _remove(folder, HOLDER, LOCK)
        lock.release()


@contextlib.contextmanager
def _signs_of_life(folder: str, out: str) -> Iterator[None]:
    holder = _holder(folder)
    if holder and _is_alive(holder):
        raise _in_use(out, holder)
    _sign(folder)
    done = threading.Event()
    beating = threading.Thread(target=_beat, args=(folder, done), daemon=True)
    beating.start()
    try:
        with interrupt.at_last(lambda: _remove(folder, HOLDER)):
            yield
    finally:
        done.set()
        beating.join()
        _remove(folder, HOLDER)


def _remove(folder: str, *names: str) -> None:
    with contextlib.suppress(OSError):  # of what went wrong before, this would tell nothing
        storage.remove([storage.join(folder, name) for name in names])


def _beat(folder: str, done: threading.Event) -> None:
    while not done.wait(_BEAT):
        with contextlib.suppress(OSError):  # the next may get through
            _sign(folder)


def _sign(folder: str) -> None:
    signed = {"host": platform.node(), "process": os.getpid(), "time": time.time()}
    with storage.open(storage.join(folder, HOLDER), "w") as file:
        file.write(json.dumps(signed))


def _holder(folder: str) -> dict[str, Any]:
    """Who holds the lock; empty if nobody says so."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        with storage.open(storage.join(folder, HOLDER), "r") as file:
            holder = json.loads(file.read())
        return {"host": str(holder["host"]), "process": int(holder["process"]), "time": float(holder["time"])}
    return {}


def _is_alive(holder: dict[str, Any]) -> bool:
    """By its last sign, unless it is seen to be gone: a container begun anew has the host and process of the last."""
    if holder["host"] == platform.node() and os.name == "posix":
        try:
            os.kill(holder["process"], 0)
        except ProcessLookupError:
            return False
        except OSError:  # another user's
            pass
    return time.time() - holder["time"] < _DEAD


def _in_use(out: str, holder: dict[str, Any]) -> OutputExistsError:
    who = f"process {holder['process']} on {holder['host']}" if holder else "another process"
    return OutputExistsError(f"{out}: {who} is writing there; wait for it, or give another folder")
