"""A file that is written, hashed and brought to the disk by threads: all of it is there, and every fault is told."""

import errno
import gc
import hashlib
import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfzip.sink import Sink

MEGABYTE = 1 << 20


@given(sizes=st.lists(st.integers(0, 3 * MEGABYTE), max_size=12), seed=st.integers(0, 99))
def test_the_file_holds_all_pieces_in_order_and_the_hash_is_its_own(sizes, seed, tmp_path_factory):
    path = tmp_path_factory.mktemp("sink") / "file"
    pieces = [random.Random(seed + number).randbytes(size) for number, size in enumerate(sizes)]

    sink = Sink(str(path))
    for piece in pieces:
        sink.write([piece[:5], memoryview(piece)[5:]])
    sink.close()

    assert path.read_bytes() == b"".join(pieces)
    assert sink.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def fill(path, megabytes):
    sink = Sink(path)
    try:
        for _ in range(megabytes):
            sink.write([bytes(MEGABYTE), b"more"])
        sink.write([b"a little"])
        raise RuntimeError("nothing was told so far")
    finally:
        sink.abandon()


def test_a_full_disk_is_told_while_more_is_written():
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        fill("/dev/full", megabytes=10)
    gc.collect()  # a file that is still open would warn, which is an error here


def test_what_cannot_be_brought_to_the_disk_is_told_while_more_is_written():
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        fill("/dev/null", megabytes=1000)  # it takes all, and cannot be synchronized


def test_a_full_disk_is_told_at_the_end_of_little():
    sink = Sink("/dev/full")
    sink.write([b"a few bytes"])
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        sink.close()


def test_a_fault_of_who_writes_leaves_the_file_as_far_as_it_has_come(tmp_path):
    path = str(tmp_path / "file")
    with pytest.raises(RuntimeError, match="nothing was told"):
        fill(path, megabytes=2)
    assert (tmp_path / "file").read_bytes() == (bytes(MEGABYTE) + b"more") * 2
    gc.collect()
