"""Calibration: numbers worked by hand, scikit-learn as the peer, and what holds of any scores."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from tfzip import UsageError
from tfzip.calibration import HIGHEST, LOWEST, expected_calibration_error, temperature


def softmax(logs):
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def cooled(scores, degrees):
    return softmax(np.log(np.maximum(scores, np.finfo(np.float32).tiny, dtype=np.float64)) / degrees)


# Expected calibration error.


def test_the_error_worked_by_hand():
    confidence = np.array([0, 0.5, 0.5, 0.75, 1], np.float32)
    right = np.array([False, True, False, True, False])
    # 0 and the halves lie below: a third is right, as they say. Above, a half of two is right, and they say 0.875.
    assert expected_calibration_error(confidence, right, bins=2) == pytest.approx(0.375 * 2 / 5)
    assert expected_calibration_error(confidence, right, bins=1) == pytest.approx(0.55 - 0.4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_edge_belongs_to_the_bin_below_it(dtype):
    edge = dtype(0.2)  # a little more than a fifth as float32
    apart = np.array([edge, np.nextafter(edge, dtype(1))])
    assert expected_calibration_error(apart, np.array([True, False]), bins=5) == pytest.approx(0.5)  # (0.8 + 0.2) / 2
    together = np.array([np.nextafter(edge, dtype(0)), edge])
    assert expected_calibration_error(together, np.array([True, False]), bins=5) == pytest.approx(0.3)


def test_of_nothing_the_error_is_not_a_number():
    assert math.isnan(expected_calibration_error(np.empty(0, np.float32), np.empty(0, bool)))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [10, 15])
def test_the_error_is_that_of_scikit_learns_curve(seed, bins):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(4, 1.5, 500)
    right = rng.random(500) < confidence**2
    share, said = calibration_curve(right, confidence, n_bins=bins)
    counts = np.histogram(confidence, bins, (0, 1))[0]
    wanted = np.average(abs(share - said), weights=counts[counts > 0])
    assert wanted > 0.05
    assert expected_calibration_error(confidence, right, bins) == pytest.approx(wanted, abs=1e-12)


PAIRS = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60)


@given(PAIRS, st.integers(1, 20), st.randoms())
@settings(deadline=None)
def test_what_holds_of_any_confidences(pairs, bins, random):
    confidence, right = (np.array(column) for column in zip(*pairs, strict=True))
    confidence = confidence.astype(np.float32)
    error = expected_calibration_error(confidence, right, bins)
    assert abs(right.mean() - confidence.mean(dtype=np.float64)) - 1e-9 <= error
    assert error <= abs(right - confidence.astype(np.float64)).mean() + 1e-9
    order = random.sample(range(len(pairs)), len(pairs))
    assert expected_calibration_error(confidence[order], right[order], bins) == pytest.approx(error, abs=1e-9)
    assert expected_calibration_error(right.astype(np.float32), right, bins) == 0


# Temperature.


def test_temperatures_worked_by_hand():
    # Of two classes at 0.9 to 0.1, three of four right: the log odds must fall from log 9 to log 3, its half.
    assert temperature(np.array([[0.9, 0.1]] * 4), np.array([0, 0, 0, 1])) == pytest.approx(2, rel=1e-6)
    # At 0.75 to 0.25, nine of ten right: from log 3 to log 9.
    assert temperature(np.array([[0.25, 0.75]] * 10), np.array([1] * 9 + [0])) == pytest.approx(0.5, rel=1e-6)
    # At what they are already: nothing changes.
    assert temperature(np.array([[0.75, 0.25]] * 4), np.array([0, 0, 0, 1])) == pytest.approx(1, rel=1e-6)


def test_where_every_temperature_is_too_mild_it_is_the_last_and_where_none_matters_1():
    scores = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], np.float32)
    assert temperature(scores, np.array([0, 2])) == pytest.approx(LOWEST)
    assert temperature(scores, np.array([2, 0])) == pytest.approx(HIGHEST)
    assert temperature(np.eye(3), np.arange(3)) == pytest.approx(LOWEST)
    assert temperature(np.eye(3), np.array([1, 2, 0])) == pytest.approx(HIGHEST)
    assert temperature(np.full((5, 4), 0.25, np.float32), np.arange(5) % 4) == 1


@pytest.mark.parametrize("sharpness", [0.3, 1, 4])
@pytest.mark.parametrize("classes", [2, 7])
def test_no_temperature_of_a_fine_grid_has_less_of_scikit_learns_log_loss(sharpness, classes):
    rng = np.random.default_rng(classes)
    logits = rng.normal(0, 2, (400, classes))
    truth = np.array([rng.choice(classes, p=row) for row in softmax(logits)])
    scores = softmax(logits * sharpness).astype(np.float32)

    def loss(degrees):
        return log_loss(truth, cooled(scores, degrees), labels=range(classes))

    found, grid = temperature(scores, truth), np.geomspace(LOWEST, HIGHEST, 600)
    losses = [loss(degrees) for degrees in grid]
    assert loss(found) <= min(losses)
    assert found == pytest.approx(grid[np.argmin(losses)], rel=0.011)  # the grid's own step
    assert max(losses) - min(losses) > 0.1


def test_the_temperature_that_scores_were_made_with_is_found_and_calibrates():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 5))
    truth = (rng.random((20_000, 1)) > softmax(logits).cumsum(axis=1)).sum(axis=1)
    scores = softmax(logits * 3).astype(np.float32)
    found = temperature(scores, truth)
    assert found == pytest.approx(3, rel=0.03)
    before, after = (
        expected_calibration_error(some.max(axis=1), some.argmax(axis=1) == truth)
        for some in (scores, cooled(scores, found))
    )
    assert before > 0.1
    assert after < 0.02


@st.composite
def labelled(draw):
    classes = draw(st.integers(2, 5))
    rows = draw(st.integers(1, 30))
    scores = draw(hnp.arrays(np.float32, (rows, classes), elements=st.floats(0, 1, width=32)))
    truth = draw(hnp.arrays(np.int32, rows, elements=st.integers(0, classes - 1)))
    return scores, truth


@given(labelled(), st.randoms())
@settings(deadline=None)
def test_what_holds_of_any_scores(rows, random):
    scores, truth = rows

    def loss(degrees):
        return -np.log(np.maximum(cooled(scores, degrees)[range(len(truth)), truth], 1e-300)).mean()

    found = temperature(scores, truth)
    assert LOWEST * 0.999 <= found <= HIGHEST * 1.001
    for other in (LOWEST, found * 0.98, found * 1.02, 1, HIGHEST):
        if LOWEST <= other <= HIGHEST:
            assert loss(found) <= loss(other) + 1e-9 * (1 + loss(other))
    order = random.sample(range(len(truth)), len(truth))
    assert loss(temperature(scores[order], truth[order])) == pytest.approx(loss(found), rel=1e-6, abs=1e-9)


def test_many_rows_are_taken_in_parts():
    rng = np.random.default_rng(1)
    scores, truth = softmax(rng.normal(0, 2, (300, 8))).astype(np.float32), rng.integers(0, 8, 300)
    assert temperature(np.tile(scores, (700, 1)), np.tile(truth, 700)) == pytest.approx(temperature(scores, truth))


@pytest.mark.parametrize(
    ("scores", "truth", "said"),
    [
        (np.empty((0, 3)), [], "one row at least"),
        ([[0.5, 0.5]], [-1], "one of the classes"),
        ([[0.5, 0.5]], [2], "one of the classes"),
        ([[0.5, 0.5], [math.nan, 0.5]], [0, 1], "finite"),
        ([[0.5, 0.5], [math.inf, 0.5]], [0, 1], "finite"),
        ([[0.5, 0.5], [0.5, math.inf]], [0, 1], "finite"),
    ],
)
def test_rows_that_nothing_can_be_fitted_to_are_refused(scores, truth, said):
    with pytest.raises(UsageError, match=said):
        temperature(np.array(scores), np.array(truth, np.int32))
