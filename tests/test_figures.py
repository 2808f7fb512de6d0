"""What a report draws, as numbers: by hand, and against the plainest way to count them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tfzip import calibration, figures

CONFIDENCES = st.floats(0, 1, width=32) | st.sampled_from(np.float32(figures.THRESHOLDS).tolist()) | st.just(math.nan)


def test_thresholds_ascend_and_are_finer_where_models_are_sure():
    assert list(figures.THRESHOLDS) == sorted(set(figures.THRESHOLDS))
    assert {0.0, 0.5, 0.9, 0.99, 0.995, 0.999, 1.0} <= set(figures.THRESHOLDS)


@given(st.lists(st.tuples(CONFIDENCES, st.integers(0, 3))))
def test_passing_counts_of_each_class_what_is_no_less_than_each_threshold(pairs):
    confidence = np.array([pair[0] for pair in pairs], np.float32)
    classes = np.array([pair[1] for pair in pairs], np.int64)
    counted = figures.passing(confidence, classes, 4)
    for place, threshold in enumerate(np.float32(figures.THRESHOLDS)):
        kept = classes[confidence >= threshold]
        assert counted[:, place].tolist() == [np.count_nonzero(kept == label) for label in range(4)]


def test_passing_takes_what_shows_as_a_threshold_for_no_less():
    assert figures.passing(np.float32([0.7, 0.69999, math.nan, math.inf]), np.zeros(4, int), 1, [0.7]).tolist() == [[1]]


@given(st.lists(st.tuples(CONFIDENCES, st.integers(0, 2))))
def test_each_finite_confidence_is_in_one_bin_of_its_class(pairs):
    confidence = np.array([pair[0] for pair in pairs], np.float32)
    classes = np.array([pair[1] for pair in pairs], np.int64)
    counted = figures.histograms(confidence, classes, 3)
    assert counted.shape == (3, figures.BINS)
    kept = np.isfinite(confidence)
    assert counted.sum(axis=1).tolist() == [np.count_nonzero(kept & (classes == label)) for label in range(3)]


@pytest.mark.parametrize(
    ("confidence", "bin_"), [(0.0, 0), (0.0499, 0), (0.05, 1), (0.1, 2), (0.7, 14), (0.949, 18), (0.95, 19), (1.0, 19)]
)
def test_bins_hold_their_lower_edge_and_the_last_its_upper_one(confidence, bin_):
    counted = figures.histograms(np.float32([confidence]), np.zeros(1, np.int64), 1)
    assert np.flatnonzero(counted[0]).tolist() == [bin_]


def test_reliability_by_hand():
    confidence = np.float32([0.05, 0.06, 0.5, 0.95, 1.0, 0.96])
    right = np.array([False, True, True, True, True, False])
    low, middle, high = figures.reliability(confidence, right)
    assert (low.images, low.accuracy) == (2, 0.5)
    assert low.confidence == pytest.approx(0.055)
    assert middle == (1, 0.5, 1.0)
    assert (high.images, high.accuracy) == (3, pytest.approx(2 / 3))
    assert high.confidence == pytest.approx(0.97)


@given(arrays.arrays(np.float32, st.integers(1, 50), elements=st.floats(0, 1, width=32)), st.integers(0, 2**50))
def test_the_bins_of_reliability_are_those_of_the_calibration_error(confidence, bits):
    right = np.array([bits >> place & 1 for place in range(len(confidence))], bool)
    bins = figures.reliability(confidence, right)
    assert sum(each.images for each in bins) == len(confidence)
    error = sum(each.images * abs(each.confidence - each.accuracy) for each in bins) / len(confidence)
    assert error == pytest.approx(calibration.expected_calibration_error(confidence, right), abs=1e-6)


def test_reliability_of_nothing_is_nothing():
    assert figures.reliability(np.empty(0, np.float32), np.empty(0, bool)) == []


def test_a_distribution_by_hand():
    values = np.array([[0, 1, 2, 3], [4, math.nan, math.inf, -math.inf]], np.float32)
    found = figures.distribution(values)
    assert (found.values, found.nonfinite, found.mean) == (8, 3, 2)
    assert found.quartiles == [0, 1, 2, 3, 4]
    assert (len(found.edges), found.edges[0], found.edges[-1]) == (figures.BINS + 1, 0, 4)
    assert np.flatnonzero(found.counts).tolist() == [0, 5, 10, 15, 19]
    assert sum(found.counts) == 5


@pytest.mark.parametrize(
    ("values", "counts"),
    [([7, 7, 7], [3]), ([2**62, 2**62 + 1], [2]), ([math.nan], []), ([], []), ([3e38, -3e38], [1, *[0] * 18, 1])],
)
def test_a_distribution_of_values_that_have_no_width_or_very_much(values, counts):
    found = figures.distribution(np.array(values))
    assert found.counts == counts
    assert all(map(math.isfinite, found.quartiles))
