"""What policies choose: tables worked by hand, and what holds of any predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfzip import policy
from tfzip.policy import Policy, Predictions

NAN = float("nan")


def predictions(*rows) -> Predictions:
    """Rows of key, label, confidence (margin, entropy)."""
    columns = zip(*((*row, 0.5, 0.5)[:5] for row in rows), strict=True)
    dtypes = (np.uint64, np.int32, np.float32, np.float32, np.float32)
    return Predictions(*(np.array(column, dtype) for column, dtype in zip(columns, dtypes, strict=True)))


SIX = predictions(
    # key, label, confidence, margin, entropy
    (60, 0, 0.95, 0.90, 0.2),
    (50, 1, 0.80, 0.60, 0.5),
    (40, 0, 0.70, 0.40, 0.6),
    (30, 0, 0.95, 0.92, 0.1),
    (20, 1, 0.60, 0.20, 0.7),
    (10, 2, NAN, NAN, NAN),
)
"""Of three classes; the first and the fourth are equally sure."""

CHOSEN = {
    "all that are numbers": (Policy(), [0, 1, 2, 3, 4]),
    "a confidence": (Policy(min_confidence=0.7), [0, 1, 2, 3]),
    "a confidence for a class": (Policy(min_confidence={0: 0.9}), [0, 1, 3, 4]),
    "a margin": (Policy(min_margin=0.5), [0, 1, 3]),
    "an entropy": (Policy(max_entropy=0.5), [0, 1, 3]),
    "the surest of each class": (Policy(per_class=1), [1, 3]),  # of two alike that with the lower key
    "the surest two of each class": (Policy(per_class=2), [0, 1, 3, 4]),
    "the surest of all": (Policy(limit=2), [0, 3]),
    "the surest one of all": (Policy(limit=1), [3]),
    "nothing": (Policy(min_confidence=1), []),
    # Two of five are surer than 0.9, both of class 0; three are not: 0.9 * (2/3) / (2 - 2/3) = 0.45 of class 0, 0 of 1.
    "adaptive": (Policy(adaptive=0.9), [0, 1, 2, 3, 4]),
    # Three of five, two of them of class 0: two are not, so 0.75 of class 0, and 0.75 * (1/2) / (3/2) = 0.25 of 1.
    "adaptive, of more": (Policy(adaptive=0.75), [0, 1, 3, 4]),
    "all together": (Policy(min_confidence=0.65, per_class=2, limit=2, min_margin=0.5), [0, 3]),
}


@pytest.mark.parametrize("case", CHOSEN)
def test_what_is_chosen(case):
    asked, rows = CHOSEN[case]
    choice = policy.choose(SIX, asked, 3)
    assert choice.rows.tolist() == rows
    assert choice.weight.tolist() == [1] * len(rows)
    assert choice.validation.tolist() == [False] * len(rows)


def test_adaptive_thresholds_are_those_of_flexmatch():
    rows = [(n, label, confidence) for n, (label, confidence) in enumerate(
        [(0, 0.99)] * 4 + [(1, 0.99)] * 2 + [(1, 0.5)] + [(2, 0.99), (2, 0.5), (3, 0.5)]
    )]  # fmt: skip
    # Learned: 4, 2, 1, 0 of four classes; 3 are not. Status: 1, 1/2, 1/4, 0; x / (2 - x): 1, 1/3, 1/7, 0.
    found = policy.adaptive_thresholds(predictions(*rows), 0.95, 4)
    np.testing.assert_allclose(found, [0.95, 0.95 / 3, 0.95 / 7, 0])


def test_what_is_as_sure_as_the_class_learned_best_has_to_be_is_chosen():
    sure = predictions(*((n, 0, 0.7) for n in range(3)))
    assert policy.choose(sure, Policy(adaptive=0.7), 1).rows.tolist() == [0, 1, 2]


def test_balanced_weights_and_repeats():
    labels = [0, 0, 0, 0, 1, 1, 2]
    table = predictions(*((n, label, 0.9) for n, label in enumerate(labels)))
    assert policy.balanced_weights(table.label, None).tolist() == [1, 1, 1, 1, 2, 2, 4]
    assert policy.balanced_weights(table.label, 2).tolist() == [0.5, 0.5, 0.5, 0.5, 1, 1, 2]
    rows = policy.repeated(table.key, table.label, 3, seed=1)
    assert np.bincount(table.label[rows]).tolist() == [4, 3, 3]
    assert sorted(np.bincount(rows)[:6].tolist()) == [1, 1, 1, 1, 1, 2]


def test_sharpened_scores():
    scores = np.array([[0.5, 0.3, 0.2], [1, 0, 0]], np.float32)
    total = 0.25 + 0.09 + 0.04
    expected = [[0.25 / total, 0.09 / total, 0.04 / total], [1, 0, 0]]
    np.testing.assert_allclose(policy.sharpened(scores, 0.5), expected, rtol=1e-6)
    np.testing.assert_allclose(policy.sharpened(scores, 1), scores, rtol=1e-6)
    odd = np.array([[0, 0, 0], [-1, 3, 1], [-1, -2, -3]], np.float32)
    np.testing.assert_allclose(policy.sharpened(odd, 0.5), [[1 / 3] * 3, [0, 0.9, 0.1], [1 / 3] * 3], rtol=1e-6)
    assert policy.sharpened(scores, 1e-300).tolist() == [[1, 0, 0], [1, 0, 0]]


def test_what_scores_say():
    scores = np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25], [0.2, NAN, 0.8], [1, 0, 0]], np.float32)
    found = policy.of_scores(np.arange(4, dtype=np.uint64), scores)
    assert found.label.tolist() == [0, 1, -1, 0]
    assert policy.of_scores(np.zeros(1, np.uint64), np.float32([[-5, -2, -9]])).margin.tolist() == [3]
    np.testing.assert_allclose(found.confidence, [0.7, 0.5, NAN, 1], rtol=1e-6)
    np.testing.assert_allclose(found.margin, [0.5, 0.25, NAN, 1], rtol=1e-6)
    entropy = [-(0.7 * np.log(0.7) + 0.2 * np.log(0.2) + 0.1 * np.log(0.1)), 1.5 * np.log(2), NAN, 0]
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-6)


def test_what_several_models_say():
    one = predictions((1, 0, 0.9), (2, 1, 0.8), (3, 1, 0.7), (4, -1, NAN))
    other = predictions((1, 0, 0.6), (2, 0, 0.9), (3, 1, NAN), (4, -1, NAN))
    together = policy.agreed([one, other])
    assert together.label.tolist() == [0, -1, 1, -1]
    np.testing.assert_array_equal(together.confidence, np.float32([0.6, 0.8, NAN, NAN]))
    assert policy.choose(together, Policy(), 2).rows.tolist() == [0]
    scores = [np.array([[0.2, 0.8], [NAN, 0.5]], np.float32), np.array([[0.6, 0.4], [0.5, 0.5]], np.float32)]
    np.testing.assert_allclose(policy.mean(scores), [[0.4, 0.6], [NAN, 0.5]], rtol=1e-6)


# Whatever is predicted.

CLASSES = 4
CONFIDENCE = st.floats(0, 1, width=32) | st.sampled_from([NAN, float("inf"), -float("inf")])


@st.composite
def tables(draw):
    count = draw(st.integers(0, 60))
    keys = draw(hnp.arrays(np.uint64, count, unique=True))
    labels = draw(hnp.arrays(np.int32, count, elements=st.integers(-1, CLASSES - 1)))
    floats = [draw(hnp.arrays(np.float32, count, elements=CONFIDENCE)) for _ in range(3)]
    return Predictions(keys, labels, *floats)


SHARES = st.floats(0, 1)
POLICIES = st.builds(
    Policy,
    min_confidence=SHARES | st.dictionaries(st.integers(0, CLASSES - 1), SHARES),
    adaptive=st.none() | SHARES,
    min_margin=SHARES,
    max_entropy=st.none() | SHARES,
    per_class=st.none() | st.integers(1, 5),
    limit=st.none() | st.integers(1, 20),
    balance=st.booleans(),
    validation=SHARES,
    seed=st.integers(0, 2**70),
)


@settings(deadline=None, max_examples=300)
@given(tables(), POLICIES)
def test_what_holds_of_any_choice(table, asked):
    choice = policy.choose(table, asked, CLASSES)
    chosen = table.of(choice.rows)
    assert (np.diff(choice.rows) > 0).all()
    assert np.isfinite(chosen.confidence).all()
    assert (chosen.label >= 0).all()
    least = np.float32(
        [asked.min_confidence.get(c, 0) for c in range(CLASSES)]
        if isinstance(asked.min_confidence, dict)
        else [asked.min_confidence] * CLASSES
    )
    assert (chosen.confidence >= least[chosen.label]).all()
    assert asked.min_margin == 0 or (chosen.margin >= asked.min_margin).all()
    assert asked.max_entropy is None or (chosen.entropy <= asked.max_entropy).all()
    assert asked.per_class is None or np.bincount(chosen.label, minlength=1).max() <= asked.per_class
    assert asked.limit is None or len(choice.rows) <= asked.limit
    assert np.isfinite(choice.weight).all()
    if asked.balance and len(choice.rows):
        totals = np.bincount(chosen.label, choice.weight)
        np.testing.assert_allclose(totals[totals > 0], totals.max(), rtol=1e-5)
    assert choice.validation.all() or asked.validation < 1
    assert not choice.validation.any() or asked.validation > 0


@settings(deadline=None, max_examples=200)
@given(tables(), POLICIES, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_is_irrelevant(table, asked, random):
    order = np.array(random.sample(range(len(table.key)), len(table.key)), np.int64)

    def told(some):
        choice = policy.choose(some, asked, CLASSES)
        parts = (some.key[choice.rows], choice.weight, choice.validation)
        return {key: values for key, *values in zip(*(part.tolist() for part in parts), strict=True)}

    assert told(table.of(order)) == told(table) == told(table)


@settings(deadline=None, max_examples=100)
@given(tables(), st.integers(1, 9), st.integers(0, 2**64))
def test_repeats_fill_every_class_and_leave_none_out(table, count, seed):
    rows = policy.repeated(table.key, table.label, count, seed)
    assert set(rows.tolist()) == set(range(len(table.key)))
    for label in np.unique(table.label):
        times = np.bincount(rows[table.label[rows] == label])
        times = times[times > 0]
        assert times.sum() == max(count, len(times))
        assert times.max() - times.min() <= 1


def test_a_draw_is_a_share_and_another_with_each_seed():
    keys = np.random.default_rng(1).integers(0, 2**64, 20_000, np.uint64)
    some, others = (policy.drawn(keys, 0.25, seed) for seed in (1, 2))
    for drawn in (some, others):
        assert abs(drawn.mean() - 0.25) < 0.02
    assert abs((some & others).mean() - 0.0625) < 0.01
    np.testing.assert_array_equal(policy.drawn(keys[:100], 0.25, 1), some[:100])
    assert policy.drawn(keys, 1, 1).all()
