import struct
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfzip import record
from tfzip.errors import CorruptError
from tfzip.record import FeatureSpec


def feature(values):
    """A feature of the kind that its values are of: bytes, int or float; None for a feature of no kind."""
    if values is None:
        return tf.train.Feature()
    if isinstance(values[0], bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
    if isinstance(values[0], int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def example(features):
    made = tf.train.Example(
        features=tf.train.Features(feature={key: feature(values) for key, values in features.items()})
    )
    return made.SerializeToString()


COMMON = {
    record.ENCODED: [b"\xff\xd8\xff image"],
    record.FILENAME: [b"cats/1.jpg"],
    record.FORMAT: [b"jpeg"],
    record.SOURCE_ID: [b"17"],
    record.HEIGHT: [480],
    record.WIDTH: [640],
}
MULTICLASS = {
    **COMMON,
    record.LABEL: [1],
    record.TEXT: ["Kätzchen".encode()],
    record.CONFIDENCE: [0.75],
    record.SCORES: [0.25, 0.75],
    record.TRUTH_LABEL: [0],
    record.TRUTH_TEXT: [b"dog"],
}
MULTICLASS_SPECS = {
    **record.image_features(images=True, truth=True),
    **record.prediction_features("multiclass", 2),
}
MULTILABEL = {
    **COMMON,
    record.LABELS: [0, 2],
    record.TEXTS: [b"sky", b"sea"],
    record.CONFIDENCE: [0.5],
    record.SCORES: [0.5, 0.25, 1.0],
}
MULTILABEL_SPECS = {
    **record.image_features(images=True, truth=False),
    **record.prediction_features("multilabel", 3),
}
RAW = {**COMMON, "output/boxes": [1.0, 2.0, 3.0, 4.0], "output/ids": [5, -6, 7], "output/names": [b"a", b"\xff"]}
RAW_SPECS = {
    **record.image_features(images=True, truth=False),
    "output/boxes": FeatureSpec("float", (2, 2)),
    "output/ids": FeatureSpec("int64", (None,)),
    "output/names": FeatureSpec("bytes", (2, 1)),
}

FEATURE_VALUES = st.one_of(
    st.lists(st.binary(max_size=20), min_size=1, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    st.none(),
)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=20), FEATURE_VALUES, max_size=6))
def test_an_example_of_tensorflow_parses_into_its_features(features):
    parsed = record.parse_example(example(features))

    kinds = {bytes: "bytes", float: "float", int: "int64"}
    assert {key: values for key, (_, values) in parsed.items()} == {key: v or [] for key, v in features.items()}
    for key, values in features.items():
        if values:
            assert parsed[key][0] == kinds[type(values[0])]


def test_empty_lists_of_every_kind_are_empty():
    made = tf.train.Example()
    made.features.feature["bytes"].bytes_list.SetInParent()
    made.features.feature["floats"].float_list.SetInParent()
    made.features.feature["ints"].int64_list.SetInParent()
    made.features.feature["none"].SetInParent()

    parsed = record.parse_example(made.SerializeToString())

    assert parsed == {"bytes": ("bytes", []), "floats": ("float", []), "ints": ("int64", []), "none": ("", [])}


def test_an_example_with_nothing_in_it_has_no_features():
    assert record.parse_example(b"") == {}
    assert record.parse_example(tf.train.Example().SerializeToString()) == {}


def test_two_examples_end_to_end_are_one_with_the_features_of_both():
    joined = example({"a": [1], "b": [b"old"]}) + example({"b": [b"new"], "c": [0.5]})

    assert record.parse_example(joined) == {
        "a": ("int64", [1]),
        "b": ("bytes", [b"new"]),
        "c": ("float", [0.5]),
    }


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"not an example",
        b"\x0a\x05\x0a",
        example(MULTICLASS)[:-1],
        b"\x0a\x06\x0a\x04\x0a\x02\xff\xfe",  # a key that is not UTF-8
    ],
)
def test_what_is_no_example_is_corrupt(data):
    with pytest.raises(CorruptError):
        record.parse_example(data)
    with pytest.raises(CorruptError):
        record.parse_record(data, MULTICLASS_SPECS)


def test_an_example_cut_off_anywhere_is_corrupt_or_lacks_features():
    whole = example(MULTICLASS)

    for end in range(len(whole)):
        with pytest.raises(CorruptError):
            record.parse_record(whole[:end], MULTICLASS_SPECS)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_never_another_error(data):
    with pytest.raises(CorruptError):
        record.parse_record(data, MULTICLASS_SPECS)


def test_a_multiclass_record_holds_what_its_features_say():
    parsed = record.parse_record(example(MULTICLASS), MULTICLASS_SPECS)

    assert (parsed.filename, parsed.encoded, parsed.format) == ("cats/1.jpg", b"\xff\xd8\xff image", "jpeg")
    assert (parsed.height, parsed.width, parsed.source_id) == (480, 640, "17")
    assert (parsed.prediction.label, parsed.prediction.text, parsed.prediction.confidence) == (1, "Kätzchen", 0.75)
    assert parsed.prediction.scores.dtype == np.float32
    assert parsed.prediction.scores.tolist() == [0.25, 0.75]
    assert (parsed.prediction.labels, parsed.prediction.texts) == (None, None)
    assert parsed.truth == record.Truth(0, "dog")
    assert parsed.outputs == {}


def test_a_multilabel_record_holds_what_its_features_say():
    parsed = record.parse_record(example(MULTILABEL), MULTILABEL_SPECS)

    assert (parsed.prediction.labels, parsed.prediction.texts) == ([0, 2], ["sky", "sea"])
    assert (parsed.prediction.label, parsed.prediction.text) == (None, None)
    assert parsed.prediction.scores.tolist() == [0.5, 0.25, 1.0]
    assert parsed.truth is None


def test_a_multilabel_record_without_labels_has_none_of_them():
    made = tf.train.Example.FromString(example({**MULTILABEL, record.LABELS: None, record.TEXTS: None}))
    made.features.feature[record.LABELS].int64_list.SetInParent()
    made.features.feature[record.TEXTS].bytes_list.SetInParent()

    parsed = record.parse_record(made.SerializeToString(), MULTILABEL_SPECS)

    assert (parsed.prediction.labels, parsed.prediction.texts) == ([], [])


def test_a_raw_record_holds_outputs_in_their_own_shapes():
    parsed = record.parse_record(example(RAW), RAW_SPECS)

    assert parsed.outputs.keys() == {"boxes", "ids", "names"}
    assert parsed.outputs["boxes"].dtype == np.float32
    assert parsed.outputs["boxes"].tolist() == [[1, 2], [3, 4]]
    assert parsed.outputs["ids"].dtype == np.int64
    assert parsed.outputs["ids"].tolist() == [5, -6, 7]
    assert parsed.outputs["names"].tolist() == [[b"a"], [b"\xff"]]
    assert parsed.prediction == record.Prediction()


def test_a_record_without_its_image_has_none():
    features = {key: values for key, values in MULTICLASS.items() if key != record.ENCODED}
    specs = {key: spec for key, spec in MULTICLASS_SPECS.items() if key != record.ENCODED}

    assert record.parse_record(example(features), specs).encoded is None


def test_a_filename_that_is_not_utf_8_keeps_its_bytes():
    parsed = record.parse_record(example({**MULTICLASS, record.FILENAME: [b"caf\xe9.jpg"]}), MULTICLASS_SPECS)

    assert parsed.filename == "caf\udce9.jpg"


@pytest.mark.parametrize(
    ("label", "text", "truth"),
    [
        (-1, b"", None),
        (-1, b"wolf", record.Truth(-1, "wolf")),
        (0, b"", record.Truth(0, "")),
        (3, b"cat", record.Truth(3, "cat")),
    ],
)
def test_truth_is_there_where_the_source_knew_any(label, text, truth):
    features = {**MULTICLASS, record.TRUTH_LABEL: [label], record.TRUTH_TEXT: [text]}

    assert record.parse_record(example(features), MULTICLASS_SPECS).truth == truth


def test_features_beyond_the_declared_are_left_alone():
    parsed = record.parse_record(example({**MULTICLASS, "mine/own": [b"x"], "a": None}), MULTICLASS_SPECS)

    assert parsed.filename == "cats/1.jpg"


@pytest.mark.parametrize("key", sorted(MULTICLASS))
def test_a_missing_feature_is_corrupt_and_named(key):
    features = {name: values for name, values in MULTICLASS.items() if name != key}

    with pytest.raises(CorruptError, match=key):
        record.parse_record(example(features), MULTICLASS_SPECS)


@pytest.mark.parametrize("key", ["output/boxes", "output/ids", "output/names", record.HEIGHT])
def test_a_missing_feature_of_a_raw_record_is_corrupt_and_named(key):
    features = {name: values for name, values in RAW.items() if name != key}

    with pytest.raises(CorruptError, match=key):
        record.parse_record(example(features), RAW_SPECS)


@pytest.mark.parametrize("key", sorted(MULTICLASS.keys() - {record.SCORES}))
@pytest.mark.parametrize("count", [0, 2])
def test_a_single_value_that_is_none_or_two_is_corrupt_and_named(key, count):
    features = {**MULTICLASS, key: MULTICLASS[key] * count or None}

    with pytest.raises(CorruptError, match=key):
        record.parse_record(example(features), MULTICLASS_SPECS)


OTHER_KIND = {bytes: [3], int: [b"3"], float: [b"0.5"]}


@pytest.mark.parametrize("key", sorted(MULTICLASS.keys() - {record.SCORES}))
def test_a_feature_of_another_type_is_corrupt_and_named(key):
    features = {**MULTICLASS, key: OTHER_KIND[type(MULTICLASS[key][0])]}

    with pytest.raises(CorruptError, match=key):
        record.parse_record(example(features), MULTICLASS_SPECS)


@pytest.mark.parametrize(
    ("key", "values"),
    [(record.LABELS, [0.5, 1.5]), (record.LABELS, [b"0", b"2"]), (record.TEXTS, [1, 2]), (record.SCORES, [b"1"] * 3)],
)
def test_a_list_of_another_type_is_corrupt_and_named(key, values):
    with pytest.raises(CorruptError, match=key):
        record.parse_record(example({**MULTILABEL, key: values}), MULTILABEL_SPECS)


@pytest.mark.parametrize("scores", [[0.5], [0.2, 0.3, 0.5], None])
def test_scores_of_another_length_are_corrupt_and_named(scores):
    with pytest.raises(CorruptError, match=record.SCORES):
        record.parse_record(example({**MULTICLASS, record.SCORES: scores}), MULTICLASS_SPECS)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("output/boxes", [1.0, 2.0, 3.0]),
        ("output/boxes", None),
        ("output/boxes", [1, 2, 3, 4]),
        ("output/boxes", [b"1"] * 4),
        ("output/ids", [1.5]),
        ("output/ids", [b"1"]),
        ("output/names", [b"a"]),
        ("output/names", [1, 2]),
    ],
)
def test_an_output_of_another_type_or_shape_is_corrupt_and_named(key, values):
    with pytest.raises(CorruptError, match=key):
        record.parse_record(example({**RAW, key: values}), RAW_SPECS)


def test_floats_are_read_to_the_last_bit():
    value = struct.unpack("<f", bytes.fromhex("cdcccc3d"))[0]  # the float32 next to 0.1
    features = {**MULTICLASS, record.SCORES: [value, 1e-45]}

    scores = record.parse_record(example(features), MULTICLASS_SPECS).prediction.scores

    assert scores.tobytes().hex() == "cdcccc3d01000000"


def test_an_example_is_parsed_without_tensorflow():
    code = f"""
import sys
from tfzip import record
assert record.parse_example(bytes.fromhex("{example({"a": [1]}).hex()}")) == {{"a": ("int64", [1])}}
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


DETECTION = {
    **COMMON,
    **{key: [0.125 * side, 0.25 * side] for side, key in enumerate(record.BOXES)},
    record.DETECTED_LABEL: [3, 90],
    record.DETECTED_TEXT: [b"car", b"90"],
    record.DETECTED_SCORE: [0.5, 0.75],
    "output/rows": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
}
DETECTION_SPECS = {
    **record.image_features(images=True, truth=False),
    **record.prediction_features("detection", 0),
    "output/rows": FeatureSpec("float", (None, 3)),
}


def test_a_record_of_detections_tells_them_box_by_box():
    parsed = record.parse_record(example(DETECTION), DETECTION_SPECS)
    prediction = parsed.prediction
    assert (prediction.labels, prediction.texts, prediction.confidence) == ([3, 90], ["car", "90"], 0.75)
    np.testing.assert_array_equal(prediction.scores, [0.5, 0.75])
    np.testing.assert_array_equal(prediction.boxes, [[0, 0.125, 0.25, 0.375], [0, 0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(parsed.outputs["rows"], [[1, 2, 3], [4, 5, 6]])


def test_a_record_without_detections_has_no_confidence():
    lists = {record.DETECTED_LABEL: "int64_list", record.DETECTED_TEXT: "bytes_list"}
    made = tf.train.Example.FromString(example(COMMON | {"output/rows": [1.0, 2.0, 3.0]}))
    for key in (*record.BOXES, record.DETECTED_SCORE, *lists):
        getattr(made.features.feature[key], lists.get(key, "float_list")).SetInParent()
    prediction = record.parse_record(made.SerializeToString(), DETECTION_SPECS).prediction
    assert (prediction.labels, prediction.texts, prediction.confidence) == ([], [], None)
    assert (prediction.boxes.shape, prediction.scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    ("key", "values"),
    [(record.BOXES[2], [0.5]), (record.DETECTED_TEXT, [b"a", b"b", b"c"]), (record.DETECTED_SCORE, [0.5])],
)
def test_detections_whose_features_are_not_equally_long_are_damaged(key, values):
    with pytest.raises(CorruptError, match="equally long"):
        record.parse_record(example(DETECTION | {key: values}), DETECTION_SPECS)


def test_values_that_do_not_make_whole_rows_are_damaged():
    with pytest.raises(CorruptError, match=r"output/rows holds 4 values, no multiple of 3"):
        record.parse_record(example(DETECTION | {"output/rows": [1.0, 2.0, 3.0, 4.0]}), DETECTION_SPECS)
