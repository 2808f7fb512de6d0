"""Predictions against truth: a table worked by hand, scikit-learn as the peer, and real digits through an export."""

import json
import math
import shutil

import numpy as np
import pytest
from forged import column, make_export, put, rebuilt
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

import tfzip
from tfzip import calibration, cli
from tfzip.evaluate import THRESHOLDS, compare
from tfzip.record import UNKNOWN

NAN = math.nan

TABLE = [  # truth, label, confidence
    (0, 0, 0.995),
    (0, 0, 0.90),
    (0, 1, 0.65),
    (0, 0, 0.55),
    (1, 1, 0.97),
    (1, 0, 0.70),
    (1, 0, 0.45),
    (2, 1, 0.85),
    (2, UNKNOWN, NAN),
    (1, 1, NAN),  # a class without a confidence
]


def columns(rows):
    """Truth, label and confidence, as the index has them."""
    return [np.array(values, dtype) for values, dtype in zip(zip(*rows, strict=True), "iif", strict=True)]


def test_the_table_worked_by_hand():
    found = compare(*columns(TABLE), classes=4)
    assert (found.images, found.unlabelled, found.accuracy) == (10, 1, 0.5)
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert found.truths.tolist() == [4, 4, 2, 0]
    assert found.predicted.tolist() == [5, 4, 0, 0]
    assert found.right.tolist() == [3, 2, 0, 0]
    np.testing.assert_array_equal(found.precision, [0.6, 0.5, NAN, NAN])
    np.testing.assert_array_equal(found.recall, [0.75, 0.5, 0, NAN])
    assert found.confusion.tolist() == [[3, 1, 0, 0], [2, 2, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert found.confused.tolist() == [[1, 0, 2], [0, 1, 1], [2, 1, 1]]
    assert found.thresholds == [
        (0.0, 8, 0.8, 4 / 8),
        (0.5, 7, 0.7, 4 / 7),
        (0.6, 6, 0.6, 3 / 6),
        (0.7, 5, 0.5, 3 / 5),  # the 0.70 too, though as float32 it is less than 0.7
        (0.8, 4, 0.4, 3 / 4),
        (0.9, 3, 0.3, 3 / 3),
        (0.95, 2, 0.2, 2 / 2),
        (0.99, 1, 0.1, 1 / 1),
    ]
    # In bins of a fifteenth, those of 0.97 and 0.995 are together, and every other alone.
    gaps = [0.995 + 0.97 - 2, 0.90 - 1, 0.65, 0.55 - 1, 0.70, 0.45, 0.85]
    assert found.calibration_error == pytest.approx(sum(map(abs, gaps)) / 8)


ROWS = st.integers(2, 6).flatmap(
    lambda classes: st.lists(
        st.tuples(
            st.integers(0, classes - 1),
            st.integers(UNKNOWN, classes - 1),
            st.one_of(st.just(NAN), st.floats(0, 1, width=32)),
        ),
        min_size=1,
        max_size=60,
    )
)


@given(ROWS)
@settings(deadline=None)
def test_every_number_is_scikit_learns(rows):
    truth, label, confidence = columns(rows)
    found = compare(truth, label, confidence, classes=6)
    labels = range(6)
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, label))
    precision, recall, _, support = metrics.precision_recall_fscore_support(
        truth, label, labels=labels, zero_division=NAN
    )
    np.testing.assert_allclose(found.precision, precision)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_array_equal(found.truths, support)
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(truth, label, labels=labels))
    for threshold, images, coverage, accuracy in found.thresholds:
        kept = (confidence >= np.float32(threshold)) & (label >= 0)
        assert images == kept.sum()
        assert coverage == pytest.approx(kept.mean())
        expected = metrics.accuracy_score(truth[kept], label[kept]) if kept.any() else NAN
        assert accuracy == pytest.approx(expected, nan_ok=True)


@given(ROWS, st.randoms())
@settings(deadline=None)
def test_what_holds_of_any_predictions(rows, random):
    truth, label, confidence = columns(rows)
    found = compare(truth, label, confidence)
    assert found.labels.tolist() == sorted({*truth.tolist(), *label[label >= 0].tolist()})
    assert found.truths.sum() == found.images == len(rows)
    assert found.predicted.sum() == found.confusion.sum() == found.images - found.unlabelled
    assert found.right.sum() == found.confusion.trace() == round(found.accuracy * found.images)
    assert found.confused[:, 2].sum() == found.images - found.unlabelled - found.right.sum()
    assert sorted(found.confused[:, 2].tolist(), reverse=True) == found.confused[:, 2].tolist()
    covered = [row.coverage for row in found.thresholds]
    assert covered == sorted(covered, reverse=True)
    assert bool(covered) == any(math.isfinite(sure) and said >= 0 for _, said, sure in rows)
    again = compare(*columns(random.sample(rows, len(rows))))
    np.testing.assert_array_equal(again.confusion, found.confusion)
    np.testing.assert_allclose(again.thresholds, found.thresholds)
    assert again.calibration_error == pytest.approx(found.calibration_error, nan_ok=True, abs=1e-9)


def test_labels_far_apart_and_very_many_classes_cost_what_occurs():
    most = np.iinfo(np.int32).max
    found = compare(*columns([(3, most, 0.5), (most, most, 0.75), (most, 3, 0.5)]))
    assert found.labels.tolist() == [3, most]
    assert found.confusion.tolist() == [[0, 1], [1, 1]]
    assert found.confused.tolist() == [[3, most, 1], [most, 3, 1]]
    truth = np.arange(5000, dtype=np.int32)
    many = compare(truth, np.where(truth < 4000, truth, 7), np.full(5000, 0.5, np.float32))
    assert many.confusion is None
    assert many.accuracy == 0.8
    assert len(many.confused) == 1000
    assert many.precision[7] == 1 / 1001


# Through exports.


@pytest.fixture(scope="module")
def scores(digits):
    """What a logistic regression, fitted to some of the digits, says of all; of three of them that it is NaN."""
    _, images, classes = digits
    pixels = images.reshape(len(images), -1) / 255
    said = LogisticRegression(C=1, max_iter=1000).fit(pixels[:100], classes[:100]).predict_proba(pixels)
    said[[5, 700, 1700], 4] = NAN
    return said.astype(np.float32)


@pytest.fixture(scope="module")
def out(digits, scores, tmp_path_factory):
    """An export of those predictions, with the truth that the folders tell."""
    folder = tmp_path_factory.mktemp("evaluated")
    names = sorted(path.relative_to(digits[0]).as_posix() for path in digits[0].rglob("*.png"))
    ordered = scores[[int(name.partition("/")[2].removesuffix(".png")) for name in names]]
    np.save(folder / "scores.npy", ordered)
    made = tfzip.export(
        str(digits[0]), None, str(folder / "out"), predictions=str(folder / "scores.npy"), task="multiclass",
        scores="probabilities", source_labels="folder", quiet=True,
    )  # fmt: skip
    made.close()
    return folder / "out"


def test_real_digits_are_evaluated_as_scikit_learn_does_from_their_records(out, digits, scores):
    with tfzip.open(out) as export:
        found, records = tfzip.evaluate(export), export[:]
    truth = np.array([record.truth.label for record in records])
    label = np.array([record.prediction.label for record in records])
    assert found.images == 1797
    assert found.unlabelled == 3
    assert found.accuracy == pytest.approx(metrics.accuracy_score(truth, label))
    assert 0.7 < found.accuracy < 0.99
    np.testing.assert_array_equal(found.confusion, metrics.confusion_matrix(truth, label, labels=range(10)))
    finite = np.isfinite(scores).all(axis=1)
    right = scores[finite].argmax(axis=1) == digits[2][finite]
    error = calibration.expected_calibration_error(scores[finite].max(axis=1), right)
    assert error > 0.05  # it is not sure enough
    assert found.calibration_error == pytest.approx(error, abs=1e-6)


def test_no_record_is_read(out, tmp_path):
    shutil.copytree(out, tmp_path / "bare", ignore=shutil.ignore_patterns("*.tfrecord-*"))
    with tfzip.open(out) as whole, tfzip.open(tmp_path / "bare") as bare:
        np.testing.assert_equal(vars(tfzip.evaluate(bare)), vars(tfzip.evaluate(whole)))


def test_images_of_unknown_truth_do_not_count(out, tmp_path):
    shutil.copytree(out, tmp_path / "some")
    with tfzip.open(out) as export:
        rows = np.flatnonzero(export.metadata["label"] != export.metadata["truth"])
        assert len(rows) > 10
    rebuilt(tmp_path / "some", truth=put(rows, UNKNOWN))
    with tfzip.open(tmp_path / "some") as export:
        found = tfzip.evaluate(export)
    assert (found.images, found.accuracy, found.unlabelled) == (1797 - len(rows), 1, 0)
    assert found.confused.shape == (0, 3)


def test_labels_without_confidences_have_no_thresholds(digits, tmp_path):
    said = {"3/0003.png": "3", "4/0004.png": "4", "5/0005.png": "6", "6/0006.png": "no digit"}
    for name in said:
        (tmp_path / "in" / name[0]).mkdir(parents=True)
        shutil.copy(digits[0] / name, tmp_path / "in" / name)
    (tmp_path / "said.csv").write_text(
        "filename,prediction\n" + "".join(f"{row[0]},{row[1]}\n" for row in said.items())
    )
    options = {"predictions": str(tmp_path / "said.csv"), "labels": list("0123456789"), "source_labels": "folder"}
    with tfzip.export(str(tmp_path / "in"), None, str(tmp_path / "out"), quiet=True, **options) as export:
        found = tfzip.evaluate(export)
    assert (found.images, found.accuracy, found.unlabelled, found.thresholds) == (4, 0.5, 1, [])
    assert math.isnan(found.calibration_error)
    assert found.recall[[3, 4, 5, 6]].tolist() == [1, 1, 0, 0]
    assert found.confused.tolist() == [[5, 6, 1]]


LACKING = {
    "no truth": ({}, "--source-labels folder"),
    "several labels an image": ({"task": "multilabel"}, "its task is multilabel"),
}


@pytest.mark.parametrize("case", LACKING)
def test_what_cannot_be_compared_is_told_in_a_line_and_not_shown(case, tmp_path, capsys):
    options, said = LACKING[case]
    with make_export(tmp_path / "out", **options) as export, pytest.raises(tfzip.UsageError, match=said) as told:
        tfzip.evaluate(export)
    assert "\n" not in str(told.value)
    assert str(tmp_path / "out") in str(told.value)
    assert cli.main(["inspect", str(tmp_path / "out")]) == 0
    assert "against the truth" not in capsys.readouterr().out
    assert cli.main(["inspect", str(tmp_path / "out"), "--json"]) == 0
    assert "evaluation" not in json.loads(capsys.readouterr().out)


def test_truths_that_are_all_unknown_are_no_truth(out, tmp_path):
    shutil.copytree(out, tmp_path / "none")
    rebuilt(tmp_path / "none", truth=column(lambda truth: np.full_like(truth, UNKNOWN)))
    with tfzip.open(tmp_path / "none") as export, pytest.raises(tfzip.UsageError, match="no image has a truth"):
        tfzip.evaluate(export)


# In a terminal.


def test_inspect_shows_how_good_they_are(out, capsys):
    with tfzip.open(out) as export:
        found = tfzip.evaluate(export)
    assert cli.main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    for line in (
        "images with a truth 1797 of 1797",
        f"right {found.accuracy:.1%}",
        "predicted as no class 3",
        f"expected calibration error {found.calibration_error:.4f}",
        f"from 0.90 {found.thresholds[5].coverage:.1%} of the images {found.thresholds[5].accuracy:.1%} right",
        f"8 {found.precision[8]:.1%} precision {found.recall[8]:.1%} recall {found.truths[8]} images",
        "{} taken for {} {} images".format(*found.confused[0]),
    ):
        assert line in lines, shown
    start = lines.index("classes with most mistakes")
    mistakes = (found.truths + found.predicted - 2 * found.right)[[int(line[0]) for line in lines[start + 1 :][:10]]]
    assert mistakes.tolist() == sorted(mistakes.tolist(), reverse=True)


def test_inspect_for_programs_has_all_of_it(out, capsys):
    with tfzip.open(out) as export:
        found = tfzip.evaluate(export)
    assert cli.main(["inspect", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["evaluation"]
    for key in ("images", "unlabelled", "accuracy", "calibration_error"):
        assert facts[key] == getattr(found, key)
    thresholds = [[NAN if value is None else value for value in row.values()] for row in facts["thresholds"]]
    np.testing.assert_array_equal(thresholds, found.thresholds)
    assert [row["confidence"] for row in facts["thresholds"]] == list(THRESHOLDS)
    table = np.diag([row["right"] for row in facts["classes"]])
    for pair in facts["confused"]:
        table[pair["truth"], pair["predicted"]] = pair["images"]
    assert table.tolist() == found.confusion.tolist()
    assert [row["recall"] for row in facts["classes"]] == found.recall.tolist()
    assert [row["text"] for row in facts["classes"]] == list("0123456789")
