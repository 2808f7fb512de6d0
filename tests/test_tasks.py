from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfzip import predict, predictor, record, tasks
from tfzip.errors import ModelError, UsageError
from tfzip.labels import ClassNames
from tfzip.record import FeatureSpec
from tfzip.tasks import Task

NAMES = ("ant", "bee", "cat", "dög")


# Models: their outputs are the very numbers that are given as pixels, so that a test can say anything through them.


class Module(tf.Module):
    def __init__(self, classes, function):
        super().__init__()
        spec = tf.TensorSpec((None, 1, classes, 1), name="pixels")
        self.serve = tf.function(lambda pixels: function(pixels[:, 0, :, 0]), input_signature=[spec])


@pytest.fixture(scope="module")
def speak(tmp_path_factory):
    """A predictor of some outputs, made of rows of numbers."""

    def make(classes, function):
        path = str(tmp_path_factory.mktemp("module"))
        module = Module(classes, function)
        tf.saved_model.save(module, path, signatures=module.serve)
        return predictor.load(path, None, None)

    return make


@pytest.fixture(scope="module")
def of_scores(speak):
    return {classes: speak(classes, lambda rows: {"scores": rows}) for classes in (1, 2, 3, 4)}


@pytest.fixture(scope="module")
def flat(speak):
    return speak(1, lambda rows: {"scores": rows[:, 0]})


def batch_of(rows):
    rows = np.asarray(rows, np.float32)
    return {
        "pixels": tf.constant(rows[:, None, :, None]),
        "slot": tf.range(100, 100 + len(rows), dtype=tf.int64),
        "filename": tf.constant([f"{row}.jpg" for row in range(len(rows))]),
    }


def said(ready, task, rows, prepare=lambda pixels: pixels) -> dict:
    """The prediction of each row, as NumPy; called by hand, and the same as within a dataset."""
    batch = batch_of(rows)
    function = predict.predicter(ready, prepare, task)
    by_hand = {name: to_numpy(tensor) for name, tensor in function(batch).items()}
    (mapped,) = tf.data.Dataset.from_tensors(batch).map(function)
    for name, tensor in mapped.items():
        assert as_lists(to_numpy(tensor)) == as_lists(by_hand[name]), name
    assert "pixels" not in by_hand
    assert by_hand.pop("slot").tolist() == list(range(100, 100 + len(rows)))
    assert by_hand.pop("filename").tolist() == [f"{row}.jpg".encode() for row in range(len(rows))]
    return by_hand


def to_numpy(tensor):
    return tensor if isinstance(tensor, tf.RaggedTensor) else tensor.numpy()


def as_lists(value):
    return value.to_list() if isinstance(value, tf.RaggedTensor) else np.asarray(value).astype("O").tolist().__repr__()


def softmax(rows):
    powers = np.exp(np.asarray(rows, np.float64) - np.max(rows, axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def sigmoid(rows):
    return 1 / (1 + np.exp(-np.asarray(rows, np.float64)))


def xlogx(values):
    return np.where(values > 0, values * np.log(np.where(values > 0, values, 1)), 0)


def texts_of(labels, names):
    return [(names[label] if names else str(label)).encode() for label in labels]


def assert_tells(found, scores, names):
    """Every tensor of a multiclass or binary prediction, against plain NumPy."""
    assert len({row.tobytes() for row in scores}) == len(scores), "the scores must differ from row to row"
    labels = scores.argmax(axis=1)
    ordered = np.sort(scores, axis=1)
    assert found[record.LABEL].tolist() == found["label"].tolist() == labels.tolist()
    assert found[record.TEXT].tolist() == found["text"].tolist() == texts_of(labels, names)
    np.testing.assert_allclose(found[record.SCORES], scores, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[record.CONFIDENCE], ordered[:, -1], rtol=1e-5)
    np.testing.assert_array_equal(found[record.CONFIDENCE], found["confidence"])
    np.testing.assert_allclose(found["margin"], ordered[:, -1] - ordered[:, -2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["entropy"], -xlogx(scores).sum(axis=1), rtol=1e-4, atol=1e-6)
    assert found["label"].dtype == found[record.LABEL].dtype == np.int64
    for name in ("confidence", "margin", "entropy", record.CONFIDENCE, record.SCORES):
        assert found[name].dtype == np.float32, name


# Multiclass.

LOGITS = np.float32(
    [[0.3, -1, 2, 0], [9, -9, 0.5, 1], [-3, -2, -1.5, -1.4], [0, 0, 0, 0.01], [-80, 40, 80, 0], [5, 5.5, -5, 1]]
)


@pytest.mark.parametrize("names", [(), NAMES], ids=["ids", "names"])
def test_multiclass_logits(of_scores, names):
    task = Task("multiclass", ("scores",), 4, logits=True, threshold=0.5, names=names)
    assert_tells(said(of_scores[4], task, LOGITS), softmax(LOGITS), names)


@pytest.mark.parametrize("names", [(), NAMES], ids=["ids", "names"])
def test_multiclass_probabilities(of_scores, names):
    task = Task("multiclass", ("scores",), 4, logits=False, threshold=0.5, names=names)
    scores = np.concatenate([softmax(LOGITS), np.eye(4)]).astype(np.float32)
    found = said(of_scores[4], task, scores)
    assert_tells(found, scores.astype(np.float64), names)
    np.testing.assert_array_equal(found[record.SCORES], scores)


def test_multiclass_of_a_tie_is_the_first_of_the_best(of_scores):
    task = Task("multiclass", ("scores",), 4, logits=False, threshold=0.5, names=NAMES)
    found = said(of_scores[4], task, [[0.1, 0.4, 0.4, 0.1], [0.25, 0.25, 0.25, 0.25]])
    assert found["label"].tolist() == [1, 0]
    assert found["text"].tolist() == [b"bee", b"ant"]
    assert found["margin"].tolist() == [0, 0]
    np.testing.assert_allclose(found["entropy"][1], np.log(4), rtol=1e-6)


def test_certainty_has_no_entropy_and_no_nan(of_scores):
    task = Task("multiclass", ("scores",), 3, logits=False, threshold=0.5, names=())
    found = said(of_scores[3], task, [[0, 0, 1], [1, 0, 0]])
    assert found["entropy"].tolist() == [0, 0]
    assert found["margin"].tolist() == [1, 1]


def test_multiclass_of_many_classes_has_every_name():
    names = tuple(f"class {i}" for i in range(1000))
    inputs = keras.Input((1, 1000, 1))
    ready = predictor.load(keras.Model(inputs, layers.Flatten()(inputs)), None, None)
    task = Task("multiclass", tuple(ready.outputs), 1000, logits=True, threshold=0.5, names=names)
    rows = np.random.default_rng(0).normal(0, 4, (7, 1000)).astype(np.float32)
    assert_tells(said(ready, task, rows), softmax(rows), names)


def test_each_row_of_a_batch_keeps_its_own_prediction(of_scores):
    task = Task("multiclass", ("scores",), 4, logits=True, threshold=0.5, names=NAMES)
    rows = np.random.default_rng(1).normal(0, 3, (20, 4)).astype(np.float32)
    together = said(of_scores[4], task, rows)
    assert len(set(together["label"].tolist())) == 4
    for i in range(0, len(rows), 3):
        alone = said(of_scores[4], task, rows[i : i + 1])
        assert alone["label"].tolist() == [together["label"][i]]
        np.testing.assert_allclose(alone["confidence"], together["confidence"][i : i + 1], rtol=1e-6)


def test_scores_of_half_precision_become_float32(speak):
    ready = speak(4, lambda rows: {"scores": tf.cast(rows, tf.float16)})
    task = Task("multiclass", ("scores",), 4, logits=True, threshold=0.5, names=NAMES)
    halves = LOGITS.astype(np.float16)
    assert_tells(said(ready, task, LOGITS), softmax(halves), NAMES)


def test_what_prepares_the_pixels_comes_before_the_model(of_scores):
    task = Task("multiclass", ("scores",), 4, logits=False, threshold=0.5, names=NAMES)
    scores = softmax(LOGITS).astype(np.float32)
    found = said(of_scores[4], task, scores, prepare=lambda pixels: tf.reverse(pixels, [2]))
    assert_tells(found, scores[:, ::-1].astype(np.float64), NAMES)


# Binary.

POSITIVE = np.float32([[0.9], [0.1], [0.500001], [0.0], [1.0], [0.3]])
BINARY_LOGITS = np.float32([[2.5], [-1], [0.001], [-30], [20], [-0.4]])


@pytest.mark.parametrize("names", [(), ("no", "yes")], ids=["ids", "names"])
@pytest.mark.parametrize("shape", ["[B]", "[B, 1]"])
def test_binary_probabilities(of_scores, flat, shape, names):
    ready = flat if shape == "[B]" else of_scores[1]
    task = Task("binary", ("scores",), 2, logits=False, threshold=0.5, names=names)
    positive = POSITIVE.astype(np.float64)
    assert_tells(said(ready, task, POSITIVE), np.concatenate([1 - positive, positive], axis=1), names)


@pytest.mark.parametrize("names", [(), ("no", "yes")], ids=["ids", "names"])
@pytest.mark.parametrize("shape", ["[B]", "[B, 1]"])
def test_binary_logits(of_scores, flat, shape, names):
    ready = flat if shape == "[B]" else of_scores[1]
    task = Task("binary", ("scores",), 2, logits=True, threshold=0.5, names=names)
    positive = sigmoid(BINARY_LOGITS)
    found = said(ready, task, BINARY_LOGITS)
    assert_tells(found, np.concatenate([1 - positive, positive], axis=1), names)
    assert found["label"].tolist() == [1, 0, 1, 0, 1, 0]


def test_binary_of_an_even_chance_is_the_first_class(flat):
    task = Task("binary", ("scores",), 2, logits=False, threshold=0.5, names=("no", "yes"))
    found = said(flat, task, [[0.5]])
    assert (found["label"].tolist(), found["text"].tolist(), found["confidence"].tolist()) == ([0], [b"no"], [0.5])


# Multilabel.

CHANCES = np.float32(
    [[0.9, 0.2, 0.7, 0.5], [0.1, 0.2, 0.3, 0.4], [1, 1, 1, 1], [0, 0, 0, 0], [0.49, 0.6, 0.51, 0.02], [0, 1, 0, 1]]
)


def assert_tells_labels(found, scores, names, threshold):
    assert len({row.tobytes() for row in scores}) == len(scores), "the scores must differ from row to row"
    chosen = [np.flatnonzero(row >= np.float32(threshold)).tolist() for row in scores]
    texts = [texts_of(labels, names) for labels in chosen]
    assert found[record.LABELS].to_list() == chosen
    assert found[record.TEXTS].to_list() == texts
    assert found["text"].tolist() == [b"|".join(row) for row in texts]
    assert found["label"].tolist() == [record.UNKNOWN] * len(scores)
    surest = np.maximum(scores, 1 - scores).min(axis=1)
    np.testing.assert_allclose(found[record.SCORES], scores, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found[record.CONFIDENCE], surest, rtol=1e-5)
    np.testing.assert_array_equal(found[record.CONFIDENCE], found["confidence"])
    least_margin = np.abs(scores - (1 - scores)).min(axis=1)
    np.testing.assert_allclose(found["margin"], least_margin, rtol=1e-4, atol=1e-6)
    entropy = -(xlogx(scores) + xlogx(1 - scores)).sum(axis=1)
    np.testing.assert_allclose(found["entropy"], entropy, rtol=1e-4, atol=1e-6)
    assert found[record.LABELS].dtype == tf.int64
    assert found["label"].dtype == np.int64
    for name in ("confidence", "margin", "entropy", record.CONFIDENCE, record.SCORES):
        assert found[name].dtype == np.float32, name


@pytest.mark.parametrize("threshold", [0, 0.3, 0.5, 0.7, 1])
@pytest.mark.parametrize("names", [(), NAMES], ids=["ids", "names"])
def test_multilabel_probabilities(of_scores, names, threshold):
    task = Task("multilabel", ("scores",), 4, logits=False, threshold=threshold, names=names)
    found = said(of_scores[4], task, CHANCES)
    assert_tells_labels(found, CHANCES.astype(np.float64), names, threshold)


@pytest.mark.parametrize("names", [(), NAMES], ids=["ids", "names"])
def test_multilabel_logits(of_scores, names):
    task = Task("multilabel", ("scores",), 4, logits=True, threshold=0.6, names=names)
    assert_tells_labels(said(of_scores[4], task, LOGITS), sigmoid(LOGITS), names, 0.6)


def test_a_chance_on_the_threshold_counts(of_scores):
    task = Task("multilabel", ("scores",), 4, logits=False, threshold=0.7, names=NAMES)
    found = said(of_scores[4], task, [[0.7, 0.69, 0.71, 0], [0, 0.7, 0.7, 0.7]])
    assert found[record.LABELS].to_list() == [[0, 2], [1, 2, 3]]
    assert found["text"].tolist() == [b"ant|cat", "bee|cat|dög".encode()]


def test_where_no_class_is_chosen_all_is_empty_and_still_in_place(of_scores):
    task = Task("multilabel", ("scores",), 4, logits=False, threshold=0.5, names=NAMES)
    found = said(of_scores[4], task, [[0, 0, 0, 0.2], [0.8, 0, 0, 0], [0.1, 0, 0, 0]])
    assert found[record.LABELS].to_list() == [[], [0], []]
    assert found[record.TEXTS].to_list() == [[], [b"ant"], []]
    assert found["text"].tolist() == [b"", b"ant", b""]
    np.testing.assert_allclose(found["confidence"], [0.8, 0.8, 0.9])
    nothing = said(of_scores[4], task, [[0, 0, 0, 0.1], [0, 0, 0, 0.2]])
    assert nothing[record.LABELS].to_list() == nothing[record.TEXTS].to_list() == [[], []]
    assert nothing["text"].tolist() == [b"", b""]


# Raw, and outputs beside the prediction.


def everything(rows):
    return {
        "half": tf.cast(rows, tf.float16),
        "double": tf.cast(rows, tf.float64) / 4,
        "small": tf.cast(rows * 10, tf.int8),
        "large": tf.cast(rows * 1e6, tf.int64) * 1_000_000,
        "positive": rows[:, 0] > 0.5,
        "name": tf.strings.as_string(rows),
        "box": tf.reshape(rows, (-1, 2, 1, 2)) + tf.constant([0.0, 1.0]),
        "map": tf.image.resize(rows[:, None, :, None], (3, 5)),
    }


@pytest.fixture(scope="module")
def of_everything(speak):
    return speak(4, everything)


RAW = Task("raw", (), 0, logits=False, threshold=0, names=())


def test_raw_keeps_every_output_as_the_model_gave_it(of_everything):
    rows = CHANCES[:5]
    expected = everything(tf.constant(rows))
    found = said(of_everything, RAW, rows)
    assert {name for name in found if name.startswith(record.OUTPUT)} == {record.OUTPUT + name for name in expected}
    for name, tensor in expected.items():
        np.testing.assert_array_equal(found[record.OUTPUT + name], tensor.numpy())
        assert found[record.OUTPUT + name].dtype == tensor.numpy().dtype


def test_raw_has_no_prediction(of_everything):
    found = said(of_everything, RAW, CHANCES)
    assert not any(name.startswith("prediction/") for name in found)
    assert found["label"].tolist() == [record.UNKNOWN] * len(CHANCES)
    assert found["text"].tolist() == [b""] * len(CHANCES)
    for name in ("confidence", "margin", "entropy"):
        assert found[name].dtype == np.float32
        assert np.isnan(found[name]).tolist() == [True] * len(CHANCES)


def test_the_features_of_outputs_are_their_types_and_shapes_without_the_batch(of_everything):
    assert tasks.output_features(of_everything, RAW) == {
        "output/half": FeatureSpec("float", (4,)),
        "output/double": FeatureSpec("float", (4,)),
        "output/small": FeatureSpec("int64", (4,)),
        "output/large": FeatureSpec("int64", (4,)),
        "output/positive": FeatureSpec("int64", ()),
        "output/name": FeatureSpec("bytes", (4,)),
        "output/box": FeatureSpec("float", (2, 1, 2)),
        "output/map": FeatureSpec("float", (3, 5, 1)),
    }


def test_an_output_whose_size_varies_has_a_feature_that_varies(speak):
    ready = speak(2, lambda rows: {"found": tf.tile(rows, [1, tf.cast(rows[0, 0], tf.int32)])})
    assert tasks.output_features(ready, RAW) == {"output/found": FeatureSpec("float", (None,))}


def test_an_output_that_no_feature_can_hold_is_told_by_name(speak):
    ready = speak(2, lambda rows: {"waves": tf.signal.fft(tf.cast(rows, tf.complex64)), "scores": rows})
    with pytest.raises(ModelError) as caught:
        tasks.output_features(ready, RAW)
    assert all(word in str(caught.value) for word in (ready.name, "waves", "complex64"))


def test_other_outputs_stand_beside_the_prediction(speak):
    ready = speak(4, lambda rows: {"scores": rows, "embedding": rows * 2, "boxes": tf.reshape(rows, (-1, 2, 2))})
    task = Task("multiclass", ("scores",), 4, logits=True, threshold=0.5, names=NAMES)
    assert set(tasks.output_features(ready, task)) == {"output/embedding", "output/boxes"}
    found = said(ready, task, LOGITS)
    assert_tells(found, softmax(LOGITS), NAMES)
    assert "output/scores" not in found
    np.testing.assert_array_equal(found["output/embedding"], LOGITS * 2)
    np.testing.assert_array_equal(found["output/boxes"], LOGITS.reshape(-1, 2, 2))


# Which task.


NO_NAMES = ClassNames(None)
SOME_NAMES = ClassNames(NAMES[:3])
TWO_NAMES = ClassNames(None, classes=[b"no", b"yes"])


def choose(ready, activation=None, *, names=NO_NAMES, activations=None, **asked):
    asked = {"task": "auto", "output": None, "scores": "auto", "threshold": 0.5, "min_score": 0.5} | asked
    activations = activations or dict.fromkeys(ready.outputs, activation)
    return tasks.choose_task(ready, activations, names=names, **asked)


AUTO = [
    # classes, activation, names: the task, the length of its scores, whether logits
    (3, "softmax", NO_NAMES, "multiclass", 3, False),
    (3, "softmax", SOME_NAMES, "multiclass", 3, False),
    (2, "softmax", TWO_NAMES, "multiclass", 2, False),
    (3, "linear", SOME_NAMES, "multiclass", 3, True),
    (3, "sigmoid", NO_NAMES, "multilabel", 3, False),
    (3, "sigmoid", SOME_NAMES, "multilabel", 3, False),
    (1, "sigmoid", NO_NAMES, "binary", 2, False),
    (1, "sigmoid", TWO_NAMES, "binary", 2, False),
    (1, "linear", TWO_NAMES, "binary", 2, True),
]


@pytest.mark.parametrize(("classes", "activation", "names", "task", "length", "logits"), AUTO)
def test_auto_knows_the_task_by_shape_activation_and_names(of_scores, classes, activation, names, task, length, logits):
    expected = Task(task, ("scores",), length, logits, 0.5, names.of(length))
    assert choose(of_scores[classes], activation, names=names) == expected


def test_auto_knows_the_same_of_an_output_without_a_class_axis(flat):
    assert choose(flat, "sigmoid") == Task("binary", ("scores",), 2, False, 0.5, ())
    assert choose(flat, "linear", names=TWO_NAMES) == Task("binary", ("scores",), 2, True, 0.5, ("no", "yes"))


EXPLICIT = [
    # classes, activation, asked: the length of the scores, whether logits
    (3, "softmax", {"task": "multiclass"}, 3, False),
    (3, "linear", {"task": "multiclass"}, 3, True),
    (3, "linear", {"task": "multilabel"}, 3, True),
    (3, "sigmoid", {"task": "multilabel", "threshold": 0.25}, 3, False),
    (3, "sigmoid", {"task": "multiclass"}, 3, False),
    (2, "linear", {"task": "multilabel"}, 2, True),
    (1, "linear", {"task": "binary"}, 2, True),
    (1, "sigmoid", {"task": "binary"}, 2, False),
    (3, None, {"task": "multiclass", "scores": "logits"}, 3, True),
    (3, None, {"task": "multilabel", "scores": "probabilities"}, 3, False),
    (1, None, {"task": "binary", "scores": "logits"}, 2, True),
    (3, "softmax", {"task": "multiclass", "scores": "logits"}, 3, True),
    (3, "linear", {"task": "multiclass", "scores": "probabilities"}, 3, False),
    (3, "softmax", {"task": "multiclass", "output": "scores"}, 3, False),
]


@pytest.mark.parametrize(("classes", "activation", "asked", "length", "logits"), EXPLICIT)
def test_what_is_asked_for_is_done(of_scores, classes, activation, asked, length, logits):
    expected = Task(asked["task"], ("scores",), length, logits, asked.get("threshold", 0.5), ())
    assert choose(of_scores[classes], activation, **asked) == expected


def test_raw_can_be_asked_of_any_model(of_scores, of_everything):
    for ready in (of_scores[3], of_everything):
        assert choose(ready, "softmax", task="raw", names=SOME_NAMES) == RAW


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: {"map": tf.reshape(rows, (-1, 2, 2))},
        lambda rows: {"text": tf.strings.as_string(rows)},
        lambda rows: {"ids": tf.cast(rows, tf.int32)},
        lambda rows: {"good": rows > 0},
        lambda rows: {"found": tf.boolean_mask(rows, rows[0] > 0, axis=1)},
    ],
    ids=["rank 3", "strings", "integers", "bools", "any length"],
)
def test_auto_takes_one_output_that_holds_no_scores_as_it_is(speak, function):
    ready = speak(4, function)
    assert choose(ready) == RAW
    with pytest.raises(UsageError) as caught:
        choose(ready, task="multiclass")
    assert all(word in str(caught.value) for word in (ready.name, next(iter(ready.outputs)), "multiclass"))


@pytest.fixture(scope="module")
def of_several(speak):
    def function(rows):
        return {"map": tf.reshape(rows, (-1, 2, 2)), "kind": rows[:, :3], "size": rows[:, 0]}

    return speak(4, function)


@pytest.fixture(scope="module")
def of_two(speak):
    return speak(4, lambda rows: {"kind": rows[:, :3], "colour": rows})


def test_of_several_outputs_the_only_one_of_rank_two_is_the_prediction(of_several):
    activations = {"map": None, "kind": "softmax", "size": "linear"}
    assert choose(of_several, activations=activations) == Task("multiclass", ("kind",), 3, False, 0.5, ())


def test_of_several_outputs_one_can_be_named(of_several, of_two):
    activations = {"map": None, "kind": "softmax", "size": "sigmoid"}
    assert choose(of_several, activations=activations, output="size") == Task("binary", ("size",), 2, False, 0.5, ())
    activations = {"kind": "softmax", "colour": "sigmoid"}
    expected = Task("multilabel", ("colour",), 4, False, 0.5, ())
    assert choose(of_two, activations=activations, output="colour") == expected


@pytest.mark.parametrize("task", ["auto", "multiclass", "binary", "multilabel"])
def test_of_several_outputs_alike_one_must_be_named(of_two, task):
    with pytest.raises(UsageError) as caught:
        choose(of_two, "softmax", task=task)
    assert all(word in str(caught.value) for word in (of_two.name, "--output", "kind", "colour", "--task raw"))


def test_an_output_that_is_not_there_is_told_with_those_that_are(of_two):
    with pytest.raises(UsageError) as caught:
        choose(of_two, "softmax", output="shape")
    assert all(word in str(caught.value) for word in (of_two.name, "shape", "kind", "colour"))


REFUSED = [
    # classes, activation, asked, what the message says
    (3, "linear", {}, ["--task", "multiclass", "multilabel", "raw"]),
    (3, None, {}, ["--task", "multiclass", "multilabel", "raw"]),
    (1, "linear", {}, ["--task", "binary", "raw"]),
    (1, None, {}, ["--task", "binary", "raw"]),
    (3, None, {"task": "multiclass"}, ["--scores", "probabilities", "logits"]),
    (3, None, {"task": "multilabel"}, ["--scores", "probabilities", "logits"]),
    (1, None, {"task": "binary"}, ["--scores", "probabilities", "logits"]),
    (3, "softmax", {"task": "binary"}, ["--task binary", "[batch, 1]"]),
    (1, "sigmoid", {"task": "multiclass"}, ["--task multiclass", "two classes"]),
    (1, "sigmoid", {"task": "multilabel"}, ["--task multilabel", "two classes"]),
]


@pytest.mark.parametrize(("classes", "activation", "asked", "words"), REFUSED)
def test_what_cannot_be_known_or_does_not_fit_is_refused_with_what_to_say(of_scores, classes, activation, asked, words):
    with pytest.raises(UsageError) as caught:
        choose(of_scores[classes], activation, **asked)
    for word in (of_scores[classes].name, "scores", *words):
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_names_that_are_not_as_many_as_the_classes_are_refused(of_scores):
    for activation, asked in [("softmax", {}), ("softmax", {"task": "multiclass"}), ("linear", {})]:
        with pytest.raises(UsageError, match=r"3 labels.*4 classes"):
            choose(of_scores[4], activation, names=SOME_NAMES, **asked)


def test_a_softmax_over_one_class_is_not_guessed(of_scores):
    # It is 1 whatever the picture: a mistake of whoever made the model.
    with pytest.raises(UsageError):
        choose(of_scores[1], "softmax")


def test_a_task_is_fixed_once_chosen(of_scores):
    task = choose(of_scores[3], "softmax")
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.threshold = 0.1


# The scales of pixels.

PIXELS = np.random.default_rng(5).uniform(0, 255, (3, 4, 5, 3)).astype(np.float32)
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALED = {
    "raw": PIXELS,
    "unit": PIXELS / 255,
    "symmetric": PIXELS / 255 * 2 - 1,
    "caffe": PIXELS[..., ::-1] - [103.939, 116.779, 123.68],
    "torch": (PIXELS / 255 - MEAN) / DEVIATION,
}


@pytest.mark.parametrize("scale", SCALED)
def test_pixels_are_scaled_as_the_name_says(scale):
    found = predict.rescaler(scale, tf.float32)(tf.constant(PIXELS))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, SCALED[scale], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", SCALED)
def test_pixels_of_half_precision_stay_so(scale):
    found = predict.rescaler(scale, tf.float16)(tf.constant(PIXELS, tf.float16))
    assert found.dtype == tf.float16
    np.testing.assert_allclose(found, SCALED[scale], rtol=1e-2, atol=0.15)


@pytest.mark.parametrize(
    ("scale", "preprocess_input"),
    [
        ("caffe", keras.applications.resnet.preprocess_input),
        ("torch", keras.applications.densenet.preprocess_input),
        ("symmetric", keras.applications.mobilenet_v2.preprocess_input),
    ],
)
def test_scales_of_applications_are_those_of_their_preprocess_input(scale, preprocess_input):
    found = predict.rescaler(scale, tf.float32)(tf.constant(PIXELS))
    np.testing.assert_allclose(found, preprocess_input(PIXELS.copy()), rtol=1e-5, atol=1e-4)


def test_bytes_stay_bytes_where_the_scale_is_raw():
    pixels = tf.constant(PIXELS.astype(np.uint8))
    found = predict.rescaler("raw", tf.uint8)(pixels)
    assert found.dtype == tf.uint8
    np.testing.assert_array_equal(found, PIXELS.astype(np.uint8))
