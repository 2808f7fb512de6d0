"""Which records a report shows: by hand."""

import math

import numpy as np
import pytest

from tfzip import gallery

ROWS = np.array([10, 11, 12, 13, 14, 15])
CONFIDENCE = np.float32([0.5, 0.9, 0.95, 0.2, math.nan, 0.9])


def shown(**changes):
    asked = {"rows": ROWS, "confidence": CONFIDENCE, "threshold": 0.9, "each": 2, "seed": 0, **changes}
    return {title: rows.tolist() for title, rows in gallery.strips(**asked).items()}


def test_the_strips_of_a_class_by_hand():
    strips = shown()
    assert strips.pop("Drawn at random")
    assert strips == {
        "Most confident": [12, 11],
        "Least confident": [13, 10],
        "Around the threshold": [11, 15],
    }
    assert shown(threshold=0.4)["Around the threshold"] == [10, 13]


def test_a_class_with_fewer_records_than_a_strip_shows_them_all_but_those_that_are_not_numbers():
    strips = shown(each=9)
    assert strips["Most confident"] == [12, 11, 15, 10, 13]
    assert strips["Least confident"] == [13, 10, 11, 15, 12]
    assert strips["Drawn at random"] == ROWS.tolist()


@pytest.mark.parametrize("confidence", [None, np.full(6, math.nan, np.float32)])
def test_without_confidences_there_is_what_is_drawn(confidence):
    assert list(shown(confidence=confidence)) == ["Drawn at random"]


def test_what_is_drawn_is_of_the_seed():
    assert gallery.sample(10_000, 0).tolist() == gallery.sample(10_000, 0).tolist()
    assert gallery.sample(10_000, 0).tolist() != gallery.sample(10_000, 1).tolist()
    drawn = gallery.sample(10_000, 0)
    assert len(set(drawn.tolist())) == gallery.SAMPLE
    assert (np.diff(drawn) > 0).all()
    assert gallery.sample(3, 5).tolist() == [0, 1, 2]
    assert gallery.sample(0, 5).tolist() == []


def test_every_record_may_be_drawn():
    drawn = [row for seed in range(200) for row in gallery.sample(20, seed, 2).tolist()]
    assert set(drawn) == set(range(20))


@pytest.mark.parametrize("classes", [0, 1, 10, 14, 15, 16, 45, 46, 1000])
def test_however_many_classes_there_are_the_pictures_are_not_too_many(classes):
    shown, each = gallery.sizes(classes)
    assert shown <= classes
    assert 2 <= each <= 6
    assert shown * each * len(gallery.KINDS) <= 360
    assert shown == classes or classes > 45
