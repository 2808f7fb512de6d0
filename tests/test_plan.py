from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tfzip
from tfzip import plan
from tfzip.plan import Plan

SEEDS = st.integers(0, 2**64)


def sized_bounds(sizes, shard_bytes, shard_records):
    return plan.sized_bounds(sizes.__getitem__, len(sizes), shard_bytes, shard_records)


def shard_sums(sizes, bounds):
    return [int(sizes[first:last].sum()) for first, last in pairwise(bounds)]


@st.composite
def limited_sizes(draw):
    shard_bytes = draw(st.integers(1, 10_000))
    sizes = draw(st.lists(st.integers(1, shard_bytes), min_size=1, max_size=200))
    return np.array(sizes, np.int64), shard_bytes, draw(st.integers(1, 50))


@given(st.integers(0, 300))
@settings(deadline=None, max_examples=50)
def test_without_a_seed_the_order_is_the_sources(items):
    assert plan.order(items, None, None).tolist() == list(range(items))


@given(st.integers(0, 300), SEEDS)
@settings(deadline=None, max_examples=100)
def test_a_shuffled_order_is_a_permutation_and_the_same_each_time(items, seed):
    order = plan.order(items, seed, None)

    assert sorted(order.tolist()) == list(range(items))
    assert plan.order(items, seed, None).tolist() == order.tolist()


def test_seeds_give_different_orders_and_seed_zero_is_a_seed():
    orders = {tuple(plan.order(100, seed, None).tolist()) for seed in [None, *range(20)]}

    assert len(orders) == 21


@given(st.integers(0, 100), st.none() | SEEDS, st.integers(1, 150))
@settings(deadline=None, max_examples=100)
def test_a_limit_takes_the_first_of_the_shuffled_order(items, seed, limit):
    assert plan.order(items, seed, limit).tolist() == plan.order(items, seed, None).tolist()[:limit]


def test_a_limit_after_a_shuffle_reaches_the_whole_source():
    assert plan.order(10_000, 1, 10).max() > 10


@given(st.integers(0, 1000), st.integers(1, 50))
@settings(deadline=None, max_examples=100)
def test_even_shards_hold_all_items_and_differ_by_one_at_most(items, shards):
    bounds = plan.even_bounds(items, shards)
    records = np.diff(bounds)

    assert len(bounds) == shards + 1
    assert bounds[0] == 0
    assert bounds[-1] == items
    assert records.min() >= 0
    assert records.max() - records.min() <= 1


def test_even_bounds_of_a_very_large_source_do_not_overflow():
    bounds = plan.even_bounds(10**12, 10**5)

    assert bounds[-1] == 10**12
    assert set(np.diff(bounds).tolist()) == {10**7}


@given(limited_sizes())
@settings(deadline=None, max_examples=300)
def test_sized_shards_cover_all_items_in_order_and_none_is_empty(case):
    sizes, shard_bytes, shard_records = case
    bounds = sized_bounds(sizes, shard_bytes, shard_records)

    assert bounds[0] == 0
    assert bounds[-1] == len(sizes)
    assert np.diff(bounds).min() >= 1


@given(limited_sizes())
@settings(deadline=None, max_examples=300)
def test_sized_shards_pass_the_byte_limit_by_one_item_at_most(case):
    sizes, shard_bytes, shard_records = case
    bounds = sized_bounds(sizes, shard_bytes, shard_records)

    assert max(shard_sums(sizes, bounds)) <= shard_bytes + sizes.max()


@given(limited_sizes())
@settings(deadline=None, max_examples=300)
def test_sized_shards_never_pass_the_record_limit(case):
    sizes, shard_bytes, shard_records = case
    bounds = sized_bounds(sizes, shard_bytes, shard_records)

    assert np.diff(bounds).max() <= shard_records


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 1000), st.integers(1, 50))
@settings(deadline=None, max_examples=300)
def test_items_of_one_size_go_into_as_few_shards_as_the_limits_allow(items, size, room, shard_records):
    shard_bytes = max(size, room)
    bounds = sized_bounds(np.full(items, size, np.int64), shard_bytes, shard_records)

    assert len(bounds) - 1 == max(-(-items * size // shard_bytes), -(-items // shard_records))


@given(limited_sizes())
@settings(deadline=None, max_examples=300)
def test_one_shard_is_enough_where_everything_fits_in_one(case):
    sizes, *_ = case

    assert sized_bounds(sizes, 2 * int(sizes.sum()), 2 * len(sizes)).tolist() == [0, len(sizes)]


def test_a_million_small_items_fill_shards_to_the_record_limit_exactly():
    bounds = sized_bounds(np.full(1_000_000, 500, np.int64), 128_000_000, 10_000)

    assert bounds.tolist() == list(range(0, 1_000_001, 10_000))


def test_large_items_fill_shards_by_bytes():
    bounds = sized_bounds(np.full(1000, 1_000_000, np.int64), 128_000_000, 10_000)

    assert len(bounds) - 1 == 8
    assert set(np.diff(bounds).tolist()) == {125}


@pytest.mark.parametrize("sizes", [[1000], [1000, 1000, 1000], [1, 1, 1000, 1, 1], [1000, 1], [1, 1000]])
def test_no_shard_is_empty_where_an_item_is_larger_than_a_shard(sizes):
    bounds = sized_bounds(np.array(sizes, np.int64), 100, 10)

    assert bounds[0] == 0
    assert bounds[-1] == len(sizes)
    assert np.diff(bounds).min() >= 1


def test_more_shards_than_an_index_can_list_are_refused_before_any_work(tmp_path):
    images, labels = np.zeros((100_000, 1, 1), np.uint8), tmp_path / "labels.npy"
    np.save(labels, np.zeros(len(images), np.int64))
    options = {"predictions": str(labels), "shard_records": 1, "quiet": True}
    with pytest.raises(tfzip.UsageError, match="100000 shards, 99999 can be: give a larger --shard-size"):
        tfzip.export(images, None, str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()
    assert tfzip.export(images, None, str(tmp_path / "out"), dry_run=True, limit=99_999, **options) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
@settings(deadline=None, max_examples=100)
def test_a_slots_shard_is_the_one_whose_bounds_hold_it(records):
    bounds = np.cumsum([0, *records])
    made = Plan(np.arange(bounds[-1]), bounds)

    assert made.shards == len(records)
    expected = [shard for shard, count in enumerate(records) for _ in range(count)]
    assert [made.shard_of(slot) for slot in range(bounds[-1])] == expected


@given(st.lists(st.integers(0, 40), min_size=1, max_size=10), st.integers(1, 50))
@settings(deadline=None, max_examples=200)
def test_batches_are_full_but_at_the_end_of_a_shard_which_they_never_cross(shards, size):
    bounds = np.cumsum([0, *shards])
    starts, stops = Plan(np.arange(bounds[-1]), bounds).batches(size)

    slots = [slot for start, stop in zip(starts, stops, strict=True) for slot in range(start, stop)]
    assert slots == list(range(bounds[-1]))  # each once, in order
    for start, stop in zip(starts, stops, strict=True):
        end = bounds[np.searchsorted(bounds, start, "right")]
        assert stop == min(start + size, end)
    for number, first in enumerate(starts):
        rest = Plan(np.arange(bounds[-1]), bounds).batches(size, int(first))
        np.testing.assert_array_equal(rest, (starts[number:], stops[number:]))


def test_bounds_are_the_same_however_many_sizes_are_held_at_a_time(monkeypatch):
    sizes = np.random.default_rng(1).integers(1, 300_000, 5000)
    whole = sized_bounds(sizes, 10_000_000, 100)
    assert len(whole) > 50
    for held in (1, 7, 4999, 5000):
        monkeypatch.setattr(plan, "_AT_ONCE", held)
        assert sized_bounds(sizes, 10_000_000, 100).tolist() == whole.tolist()
