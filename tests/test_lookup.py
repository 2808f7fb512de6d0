"""The lookup against a sort of all hashes at once."""

import io

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tfzip.lookup import Lookup

HASH = (
    st.integers(0, 3)
    | st.integers(2**63 - 2, 2**63 + 2)
    | st.integers(2**64 - 3, 2**64 - 1)
    | st.integers(0, 2**64 - 1)
)
PIECES = st.lists(st.lists(HASH, max_size=8), max_size=8)


@settings(deadline=None, max_examples=200)
@given(PIECES, st.integers(1, 12))
@example([], 1)
@example([[]], 1)
@example([[7] * 8, [7] * 8], 3)
def test_hashes_are_sorted_and_those_that_are_equal_by_row(pieces, run):
    everything = np.array([value for piece in pieces for value in piece], np.uint64)
    lookup = Lookup((np.array(piece, np.uint64) for piece in pieces), len(everything), io.BytesIO(), run)
    order = np.argsort(everything, kind="stable")

    for pieces_of, all_of in ((lookup.hashes(), everything[order]), (lookup.rows(), order)):
        together = np.concatenate([np.empty(0, all_of.dtype), *pieces_of])
        assert together.dtype == all_of.dtype
        np.testing.assert_array_equal(together, all_of)


@pytest.mark.parametrize("rows", [99, 1000, 10_000])
def test_no_more_are_held_than_a_run_and_what_is_left_to_chance(rows):
    hashes = np.random.default_rng(rows).integers(0, 2**64, rows, np.uint64)
    lookup = Lookup(np.array_split(hashes, 37), rows, io.BytesIO(), 100)

    assert max(map(len, lookup.hashes())) < 200
    assert max(map(len, lookup.rows())) < 200
