"""Which classes each record has: as the records themselves say it, of every task."""

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import terminal
from tfzip.classes import class_members

RECORDS = 40


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(2).integers(0, 256, (RECORDS, 4, 6, 3), np.uint8)


def pairs(export):
    """Record and class, by name, of all pairs."""
    found = class_members(export)
    assert found.rows.dtype == found.classes.dtype == np.int64
    named = [(row, found.names[place]) for row, place in zip(found.rows.tolist(), found.classes.tolist(), strict=True)]
    assert len(set(zip(found.rows.tolist(), found.classes.tolist(), strict=True))) == len(named)
    return named


def told(export):
    """The same by reading every record: a class once, ids that are none left out."""
    for row, record in enumerate(export.records()):
        said = record.prediction
        labels = [said.label] if said.labels is None else said.labels
        texts = [said.text] if said.labels is None else said.texts
        for label, text in dict(zip(labels, texts, strict=True)).items():
            if label is not None and label >= 0:
                yield row, label, text


def is_right(export):
    found, wanted = pairs(export), [(row, text) for row, _, text in told(export)]
    assert len(set(wanted)) > 10, "the records must tell something"
    assert sorted(found) == sorted(wanted)
    assert [row for row, _ in found] == sorted(row for row, _ in found)
    assert_shown(export)
    return class_members(export)


def assert_shown(export):
    """That `inspect` counts the same, most frequent first, and the records that have none."""
    wanted = Counter((label, text) for _, label, text in told(export))
    without = len(export) - len({row for row, *_ in told(export)})
    facts = terminal.inspection_facts(export)
    assert {(each["label"], each["text"]): each["records"] for each in facts["classes"]} == wanted
    assert facts["without_class"] == without
    shown = terminal.inspection(export).split("\nclasses\n")[1].split("\n\n")[0].splitlines()
    counts = [int(line.split()[-2]) for line in shown if line.endswith("#")]
    assert counts == [each["records"] for each in facts["classes"]][:20] == sorted(wanted.values(), reverse=True)[:20]
    assert [line for line in shown if "without a class" in line] == (
        [f"  {without} record{'s' * (without > 1)} without a class"] if without else []
    )


@pytest.mark.parametrize("classes", [2, 10, 300])
@pytest.mark.parametrize("named", [True, False])
def test_one_label_a_record(classes, named, images, tmp_path):
    scores = np.random.default_rng(1).dirichlet(np.ones(classes), RECORDS).astype(np.float32)
    scores[5] = np.nan
    labels = [f"class {label}" for label in range(classes)] if named else None
    rows = tfzip.zip(scores, [f"{row}.png" for row in range(RECORDS)], images)
    export = tfzip.write(rows, str(tmp_path / "out"), quiet=True, labels=labels, task="multiclass")
    found = is_right(export)
    np.testing.assert_array_equal(found.rows, np.flatnonzero(export.metadata["label"] >= 0))
    if named or classes <= 128:  # class i is the i-th
        np.testing.assert_array_equal(found.classes, export.metadata["label"][found.rows])
        assert len(found.names) == classes


def test_labels_without_scores_may_be_any_number(images, tmp_path):
    labels = np.random.default_rng(1).choice([3, 2**31 - 1, 70_000, 0], RECORDS)
    rows = tfzip.zip(labels, [f"{row}.png" for row in range(RECORDS)], images)
    assert is_right(tfzip.write(rows, str(tmp_path / "out"), quiet=True)).names == ["0", "3", "70000", "2147483647"]


@pytest.mark.parametrize("labels", [None, ["dog", "-1"], ["dog", "x", "dog"]])
def test_names_given_without_a_list_of_classes(labels, images, tmp_path):
    texts = np.random.default_rng(1).choice(["cat|dog", "-1", "dog", "7", "猫"], RECORDS).tolist()
    rows = tfzip.zip(texts, [f"{row}.png" for row in range(RECORDS)], images)
    found = class_members(export := tfzip.write(rows, str(tmp_path / "out"), quiet=True, labels=labels))
    assert [found.names[place] for place in found.classes] == texts == [item.prediction.text for item in export[:]]
    assert found.names[: len(labels or ())] == (labels or [])


SPLIT = [f"kind {number}" for number in range(150)]
HARD = {
    "names known": SPLIT,
    "no names": None,
    "names alike": ["crane", "crane", *SPLIT[2:]],
    "names with bars": ["kind 2|kind 3", "|", *SPLIT[2:]],
    "a name that is empty": ["", *SPLIT[1:]],
    "a name that is the id of no name": [*SPLIT[:-1], "7"],
}


@pytest.mark.parametrize(
    ("classes", "case"),
    [(5, "no names"), (5, "names with bars"), *(pytest.param(150, case, marks=pytest.mark.slow) for case in HARD)],
)
def test_several_labels_a_record(classes, case, images, tmp_path):
    """Up to 128 classes by the scores in the index, beyond by the texts or the records."""
    scores = np.random.default_rng(1).random((RECORDS, classes), np.float32)
    scores[3], scores[4, 0] = 0.1, np.nan
    scores[:, 1] = np.float32(0.9)  # which is the threshold: a class from it on
    labels = HARD[case] and HARD[case][:classes]
    rows = tfzip.zip(scores, [f"{row}.png" for row in range(RECORDS)], images)
    options = {"task": "multilabel", "threshold": 0.9, "scores": "probabilities", "labels": labels}
    found = is_right(tfzip.write(rows, str(tmp_path / "out"), quiet=True, **options))
    wanted = np.argwhere(scores >= np.float32(0.9)).tolist()
    if labels:
        assert np.stack(found[:2], axis=1).tolist() == wanted, "classes alike by name stay apart"


def boxes(pixels):
    """Five boxes, their scores and ids, by the image: the same ids come again, some have no name, some are none."""
    values = tf.cast(pixels, tf.float32)
    ids = tf.math.floormod(tf.reduce_sum(values, 3)[:, 1, :5], 9.0)
    ids = tf.where(ids == 8.0, float("nan"), ids)
    return {
        "detection_boxes": values[:, 0, :5, 0, None] / 255 * [0.1, 0.2, 0.3, 0.4],
        "detection_scores": values[:, 0, :5, 1] / 255,
        "detection_classes": ids,
    }


@pytest.mark.parametrize(
    "labels", [None, pytest.param(["a", "b", "c"], marks=pytest.mark.slow), ["a", "a|b", "b"], ["5", "b", "c"]], ids=str
)
def test_boxes(labels, images, tmp_path):
    export = tfzip.export(
        images, boxes, str(tmp_path / "out"), quiet=True, scale="raw", image_size=(4, 6), labels=labels
    )
    found = is_right(export)
    assert any(len(set(labels)) < len(labels) for labels in (record.prediction.labels for record in export[:]))
    assert any(-1 in record.prediction.labels for record in export[:])
    assert found.names[: len(labels or ())] == (labels or [])


def test_raw_outputs_have_no_classes(images, tmp_path):
    export = tfzip.export(
        images, lambda pixels: tf.reduce_mean(tf.cast(pixels, tf.float32), (1, 2)), str(tmp_path / "out"),
        quiet=True, scale="raw", image_size=(4, 6), task="raw",
    )  # fmt: skip
    assert pairs(export) == []
