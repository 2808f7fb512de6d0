"""`export.pseudo_labels()`: what rules choose, as a dataset to train on."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import framing
from tfzip.errors import UsageError


@pytest.fixture(scope="module")
def labelled(digits, digits_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("labelled") / "out"
    return tfzip.export(
        str(digits[0]), digits_model, str(out), quiet=True, source_labels="folder", limit=400, shuffle=1,
        shard_records=90,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pixels(digits):
    """Each digit's pixels, by its filename."""
    _, images, classes = digits
    return {
        f"{label}/{number:04d}.png": image for number, (image, label) in enumerate(zip(images, classes, strict=True))
    }


def chosen_by_hand(export, pixels, least):
    records = [record for record in export.records() if record.prediction.confidence >= np.float32(least)]
    images = np.stack([pixels[record.filename] for record in records]).astype(np.float32)
    return images, np.array([record.prediction.label for record in records]), records


def arrays(dataset):
    return [np.array(column) for column in zip(*dataset.as_numpy_iterator(), strict=True)]


def test_it_is_what_is_chosen_in_the_order_of_the_export(labelled, pixels):
    expected, classes, records = chosen_by_hand(labelled, pixels, 0.9)
    images, labels, weights = arrays(labelled.pseudo_labels(min_confidence=0.9))
    assert len({image.tobytes() for image in images}) > 300
    np.testing.assert_array_equal(images, expected)
    assert labels.tolist() == classes.tolist()
    assert weights.tolist() == [1.0] * len(records)
    dataset = labelled.pseudo_labels(min_confidence=0.9, batch_size=32)
    assert int(labelled.pseudo_labels(min_confidence=0.9).cardinality()) == len(records)
    assert [spec.dtype for spec in dataset.element_spec] == [tf.float32, tf.int64, tf.float32]


@pytest.mark.slow
def test_fitted_with_it_a_model_gets_the_weights_it_gets_from_the_same_arrays(labelled, pixels):
    import keras

    def student():
        keras.utils.set_random_seed(4)
        layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
        model = keras.Sequential(layers)
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    images, classes, _ = chosen_by_hand(labelled, pixels, 0.8)
    by_hand, streamed = student(), student()
    by_hand.fit(images, classes, batch_size=32, epochs=3, shuffle=False, verbose=0)
    before = [weight.copy() for weight in student().get_weights()]
    streamed.fit(labelled.pseudo_labels(min_confidence=0.8, batch_size=32), epochs=3, shuffle=False, verbose=0)
    for start, one, other in zip(before, by_hand.get_weights(), streamed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert not np.array_equal(start, other)


def test_shuffled_each_image_keeps_its_label_and_each_epoch_has_another_order(labelled, pixels):
    said = {pixels[record.filename].tobytes(): record.prediction.label for record in labelled.records()}
    dataset = labelled.pseudo_labels(shuffle=3)
    epochs = [arrays(dataset) for _ in range(2)]
    for images, labels, _ in epochs:
        assert [said[image.astype(np.uint8).tobytes()] for image in images] == labels.tolist()
        assert len(images) == 400
    orders = [labels.tolist() for _, labels, _ in epochs]
    assert orders[0] != orders[1]
    assert orders[0] != arrays(labelled.pseudo_labels())[1].tolist()
    assert arrays(labelled.pseudo_labels(shuffle=3))[1].tolist() == orders[0], "the seed repeats it"


@pytest.mark.parametrize("asked", [{}, {"per_class": 20}, {"per_class": 60, "shuffle": 1}])
def test_balanced_every_class_comes_as_often_and_each_of_its_images_nearly_so(labelled, asked):
    least = {"min_confidence": 0.9}
    held = np.array(arrays(labelled.pseudo_labels(**least, **{**asked, "shuffle": None}))[1])
    images, labels, weights = arrays(labelled.pseudo_labels(balance=True, **least, **asked))
    wanted = asked.get("per_class", np.bincount(held).max())
    assert np.bincount(labels).tolist() == [wanted] * 10
    assert set(weights.tolist()) == {1.0}
    for label in range(10):
        times = Counter(image.tobytes() for image in images[labels == label]).values()
        assert max(times) - min(times) <= 1
        assert len(times) == (held == label).sum()


def test_a_record_that_is_not_where_the_index_says_is_no_label_for_another(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True, limit=9, compression="none")
    path = Path(export.shards[0])
    with path.open("rb") as file:
        frames = [frame for _, _, frame in framing.read_frames(file)]
    path.write_bytes(b"".join([*frames[:3], frames[4], frames[3], *frames[5:]]))
    dataset = tfzip.open(tmp_path / "out").pseudo_labels()
    assert len(list(dataset.take(3))) == 3
    with pytest.raises(tf.errors.InvalidArgumentError, match="the index and the record differ in the filename"):
        list(dataset)


def test_both_parts_are_all_that_is_chosen(labelled):
    parts = [arrays(labelled.pseudo_labels(validation=0.3, seed=1, part=part)) for part in ("train", "validation")]
    assert sum(len(images) for images, _, _ in parts) == 400
    seen = [{image.tobytes() for image in images} for images, _, _ in parts]
    assert len(seen[0] | seen[1]) == len({image.tobytes() for image in arrays(labelled.pseudo_labels())[0]})


def test_soft_labels_and_the_truth(labelled):
    _, labels, _ = arrays(labelled.pseudo_labels(soft=True, temperature=0.5))
    assert labels.shape == (400, 10)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-5)
    squares = np.asarray(labelled.metadata["scores"], np.float64) ** 2
    np.testing.assert_allclose(labels, squares / squares.sum(axis=1, keepdims=True), atol=1e-6)
    _, truths, _ = arrays(labelled.pseudo_labels(use_truth=True))
    assert truths.tolist() == labelled.metadata["truth"].tolist()


@pytest.mark.slow
def test_the_image_is_what_the_model_had(photographs, tmp_path):
    seen = []

    def model(batch):
        tf.numpy_function(lambda values: seen.append(values.copy()), [batch], [])
        sure = tf.reduce_mean(batch, (1, 2))
        return tf.nn.softmax(tf.ensure_shape(sure * 7, (None, 3)))

    export = tfzip.export(
        str(photographs), model, str(tmp_path / "out"), quiet=True, image_size=(24, 32), scale="symmetric",
        resize="crop", task="multiclass", scores="probabilities", batch_size=1, parallel=1,
    )  # fmt: skip
    images, _, _ = arrays(export.pseudo_labels())
    expected = {batch.tobytes() for batch in seen}
    assert all(image[np.newaxis].tobytes() in expected for image in images)
    assert len(images) == 320
    assert images.min() < -0.5 < 0.5 < images.max()
    raw, _, _ = arrays(export.pseudo_labels(scale="raw", image_size=(8, 8)))
    assert raw.shape == (320, 8, 8, 3)
    assert raw.max() > 100


@pytest.mark.slow
def test_mixed_with_labelled_images_at_a_ratio(labelled, pixels):
    held = {pixels[record.filename].tobytes() for record in labelled.records()}
    others = {image.tobytes(): (image, name) for name, image in pixels.items() if image.tobytes() not in held}
    images, names = zip(*list(others.values())[:100], strict=True)
    truths = {image.astype(np.float32).tobytes(): int(name[0]) for image, name in zip(images, names, strict=True)}
    known = tf.data.Dataset.from_tensor_slices((np.stack(images), [int(name[0]) for name in names]))
    pseudo = labelled.pseudo_labels()
    mixed = tfzip.mix(known, pseudo, 0.25, seed=5)
    assert mixed.element_spec == pseudo.element_spec
    drawn = arrays(mixed)
    of_known = [(truths.get(image.tobytes()), label, weight) for image, label, weight in zip(*drawn, strict=True)]
    assert all((label, weight) == (truth, 1) for truth, label, weight in of_known if truth is not None)
    of_pseudo = [label for truth, label, _ in of_known if truth is None]
    assert of_pseudo == labelled.metadata["label"].tolist()
    assert 0.2 < len(of_pseudo) / len(of_known) < 0.3
    assert arrays(tfzip.mix(known, pseudo, 0.25, seed=5))[1].tolist() == drawn[1].tolist()
    soft = arrays(tfzip.mix(known, labelled.pseudo_labels(soft=True), seed=5))
    assert {len(label) for label in soft[1]} == {10}
    assert len(arrays(tfzip.mix(known, pseudo, 1))[0]) == 400


WRONG = {
    "an option that is none": ({"min_confidenze": 1}, "unexpected keyword argument 'min_confidenze'"),
    "a scale that is none": ({"scale": "unti"}, "scale 'unti': use raw, unit, symmetric, caffe, torch"),
    "a batch of none": ({"batch_size": 0}, "batch_size 0: give a whole number from 1 on"),
    "a batch in text": ({"batch_size": "32"}, "batch_size '32': give a whole number from 1 on"),
    "no seed": ({"shuffle": True}, "shuffle True: give a seed, a whole number from 0 on"),
    "a size in text": ({"image_size": "8x8"}, "image_size '8x8': give (height, width)"),
    "a size of none": ({"image_size": (8, 0)}, "image_size (8, 0): give (height, width)"),
    "text for a number": ({"min_confidence": "0.9"}, "--min-confidence '0.9': give a number from 0 to 1"),
    "a part": ({"part": "test"}, "part 'test': use train or validation"),
    "nothing for validation": ({"part": "validation"}, "none of the 400 selected is for validation"),
    "nothing chosen": ({"min_margin": 1}, "nothing is selected"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_asked_is_told_in_a_line(labelled, case):
    asked, said = WRONG[case]
    with pytest.raises(UsageError) as raised:
        labelled.pseudo_labels(**asked)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_exports_without_images_or_sizes_are_told(digits, digits_model, tmp_path):
    bare = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "bare"), quiet=True, limit=9, image="none")
    with pytest.raises(UsageError, match="it holds no images"):
        bare.pseudo_labels()

    def pixels_of_its_own(batch):
        return batch

    own = tfzip.export(
        str(digits[0]), digits_model, str(tmp_path / "own"), quiet=True, limit=9, preprocess=pixels_of_its_own
    )
    with pytest.raises(UsageError, match=r"its pixels were made by .*pixels_of_its_own; give scale='raw'"):
        own.pseudo_labels()
    assert arrays(own.pseudo_labels(scale="raw"))[0].shape == (9, 8, 8, 1)


def test_sets_that_do_not_fit_are_told(labelled):
    pseudo = labelled.pseudo_labels()
    wide = tf.data.Dataset.from_tensors((np.zeros((9, 9, 1)), 3))
    with pytest.raises(
        UsageError, match=r"the labelled dataset gives \(9, 9, 1\) where the pseudo-labels give \(8, 8, 1\)"
    ):
        tfzip.mix(wide, pseudo)
    with pytest.raises(UsageError, match="share 0: give a number above 0, at most 1"):
        tfzip.mix(wide, pseudo, 0)
    with pytest.raises(UsageError, match=r"share '0\.5': give a number above 0, at most 1"):
        tfzip.mix(wide, pseudo, "0.5")
    with pytest.raises(UsageError, match="the pseudo-labels come in batches: batch what is mixed instead"):
        tfzip.mix(wide, labelled.pseudo_labels(batch_size=8))
    with pytest.raises(UsageError, match="the labelled dataset is empty"):
        tfzip.mix(wide.take(0), pseudo)


def test_labels_of_any_type_are_mixed_with_soft_ones(labelled):
    soft = labelled.pseudo_labels(soft=True)
    for dtype in (np.uint8, np.int16, np.float32):
        known = tf.data.Dataset.from_tensors((np.zeros((8, 8, 1)), dtype(3)))
        _, labels, _ = next(iter(tfzip.mix(known, soft, 1e-9, seed=1).as_numpy_iterator()))
        assert labels.tolist() == np.eye(10)[3].tolist()
