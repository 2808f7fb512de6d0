"""Every form of a model, through whole exports of real images."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfzip
from tfzip import cli, record, terminal
from tfzip.errors import UsageError

needs_tf_keras = pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="tf_keras is not installed")
SHAPE = (48, 64, 3)  # that of photographs_model
CLASSES = 7
BROKEN = "broken.png"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Crops of real photographs in the model's own size, so that no resize comes between: their folder, and pixels."""
    from sklearn.datasets import load_sample_images

    folder = tmp_path_factory.mktemp("crops")
    rng = np.random.default_rng(5)
    pictures = load_sample_images().images
    pixels = {}
    for number in range(23):
        picture = pictures[number % len(pictures)]
        top, left = (int(rng.integers(0, have - want)) for have, want in zip(picture.shape, SHAPE[:2], strict=False))
        crop = Image.fromarray(picture[top : top + SHAPE[0], left : left + SHAPE[1]])
        name = f"{number % 3}/{number:02d}" + (".jpg" if number % 2 else ".png")
        file = io.BytesIO()
        crop.save(file, "JPEG" if number % 2 else "PNG")
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(file.getvalue())
        pixels[name] = tf.io.decode_image(file.getvalue(), channels=3).numpy()
    return str(folder), pixels


@pytest.fixture(scope="module")
def and_broken(images, tmp_path_factory):
    """A folder of the same, and of a file that is broken."""
    folder = shutil.copytree(images[0], tmp_path_factory.mktemp("broken") / "crops")
    (folder / BROKEN).write_bytes(b"\x89PNG\r\n\x1a\nand no more")
    return str(folder)


@pytest.fixture(scope="module")
def scores(images, photographs_model):
    """The scores of each image, by calling the model by hand."""
    names, pixels = list(images[1]), np.stack(list(images[1].values())).astype(np.float32)
    found = photographs_model(pixels, training=False).numpy()
    assert np.ptp(found, axis=0).max() > 0.3, "the scores must differ from image to image"
    assert len({row.tobytes() for row in found}) == len(found)
    return dict(zip(names, found, strict=True))


# The forms: each makes of a Keras model and a folder what is given as the model, and further options.


def serve(model, folder, function, shape=(None, *SHAPE), dtype=tf.float32):
    """A SavedModel whose signature is a function of the one tensor `photo`, with the variables of a Keras model."""
    module = tf.Module()
    module.kept = [variable.value for variable in model.variables]
    spec = tf.TensorSpec(shape, dtype, name="photo")
    module.serve = tf.function(lambda photo: {"kind": function(photo)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "served"), signatures=module.serve)
    return str(folder / "served")


def keras_object(model, _folder):
    return model, {}


def keras_file(model, folder):
    model.save(folder / "model.keras")
    return str(folder / "model.keras"), {}


def keras_h5(model, folder):
    model.save(folder / "model.h5")
    return str(folder / "model.h5"), {}


def keras_export(model, folder):
    model.export(folder / "exported", verbose=False)
    return str(folder / "exported"), {}


def module_served(model, folder):
    return serve(model, folder, model), {}


class Hub(tf.Module):
    """As TF Hub's models are: no signature, an open image size, and a switch for training."""

    def __init__(self, model):
        super().__init__()
        self.kept = [variable.value for variable in model.variables]
        self.function = lambda images: model(tf.ensure_shape(images, (None, *SHAPE)), training=False)

    @tf.function
    def __call__(self, images, training=False):
        scores = self.function(images)
        return tf.random.uniform(tf.shape(scores)) if training else scores


def hub(model, folder):
    module = Hub(model)
    for training in (True, False):
        module.__call__.get_concrete_function(tf.TensorSpec((None, None, None, 3)), training=training)
    tf.saved_model.save(module, str(folder / "hub"))
    return str(folder / "hub"), {"image_size": SHAPE[:2], "task": "multiclass"}


def hub_loaded(model, folder):
    path, options = hub(model, folder)
    return tf.saved_model.load(path), options


def module_object(model, _folder):
    return Hub(model), {"image_size": SHAPE[:2]}


def python_function(model, _folder):
    return lambda pixels: model(pixels, training=False), {"image_size": SHAPE[:2]}


def tf_function(model, _folder):
    return tf.function(model, input_signature=[tf.TensorSpec((None, *SHAPE))]), {}


def concrete_function(model, _folder):
    return tf_function(model, None)[0].get_concrete_function(), {}


def signature_function(model, folder):
    loaded = tf.saved_model.load(serve(model, folder, model))
    served = loaded.signatures["serving_default"]
    served.kept = loaded  # a signature does not keep the variables alive
    return served, {}


def attribute(name, options):
    def make(model, folder):
        path, _ = keras_file(model, folder)
        (folder / "my_models.py").write_text(
            textwrap.dedent(f"""
                import keras
                network = keras.models.load_model({path!r}, compile=False)

                class Namespace:
                    @staticmethod
                    def classify(pixels):
                        return network(pixels, training=False)
            """)
        )
        return f"my_models:{name}", options

    return make


def legacy(model):
    """The same weights in Keras 2."""
    tf_keras = pytest.importorskip("tf_keras")
    old = tf_keras.Sequential(
        [
            tf_keras.layers.Input(SHAPE, name="photo"),
            tf_keras.layers.Rescaling(1 / 127.5, -1),
            tf_keras.layers.RandomFlip(),
            tf_keras.layers.Conv2D(8, 5, strides=3, activation="relu"),
            tf_keras.layers.ThresholdedReLU(theta=0.0),  # changes nothing here, and Keras 3 has no such layer
            tf_keras.layers.Conv2D(16, 3, strides=2, activation="tanh"),
            tf_keras.layers.Flatten(),
            tf_keras.layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    old.set_weights(model.get_weights())
    return old


def keras_2_object(model, _folder):
    return legacy(model), {}


def keras_2_file(model, folder):
    legacy(model).save(folder / "old.keras")
    return str(folder / "old.keras"), {}


def keras_2_h5(model, folder):
    with pytest.warns(UserWarning, match="HDF5"):
        legacy(model).save(folder / "old.h5")
    return str(folder / "old.h5"), {}


def keras_2_saved_model(model, folder):
    legacy(model).save(folder / "old")
    return str(folder / "old"), {}


def cast(dtype, out=tf.float32):
    def make(model, folder):
        return serve(model, folder, lambda photo: tf.cast(model(tf.cast(photo, tf.float32)), out), dtype=dtype), {
            "scale": "raw"
        }

    return make


def channels_first(model, folder):
    function = lambda photo: model(tf.transpose(photo, (0, 2, 3, 1)))  # noqa: E731
    return serve(model, folder, function, shape=(None, 3, *SHAPE[:2])), {}


def fixed_batch(model, folder):
    return serve(model, folder, model, shape=(5, *SHAPE)), {}


def batch_of_one(model, folder):
    return serve(model, folder, model, shape=(1, *SHAPE)), {}


def decoded(photo):
    def decode(encoded):
        pixels = tf.io.decode_image(encoded, channels=3, expand_animations=False)
        return tf.cast(tf.ensure_shape(pixels, SHAPE), tf.float32)

    return tf.map_fn(decode, photo, fn_output_signature=tf.TensorSpec(SHAPE))


def strings(shape):
    def make(model, folder):
        function = lambda photo: model(decoded(tf.reshape(photo, (-1,))))  # noqa: E731
        return serve(model, folder, function, shape=shape, dtype=tf.string), {}

    return make


def examples(spec, key, single=False):
    def make(model, folder):
        def parse(serialized):
            if single:
                one = lambda example: tf.io.parse_single_example(example, spec)[key]  # noqa: E731
                return tf.map_fn(one, serialized, fn_output_signature=tf.string)
            return tf.io.parse_example(serialized, spec)[key]

        return serve(model, folder, lambda photo: model(decoded(parse(photo))), shape=(None,), dtype=tf.string), {}

    return make


IMAGE = tf.io.FixedLenFeature([], tf.string)
OTHERS = {
    "image/height": tf.io.FixedLenFeature([], tf.int64, -1),
    "image/class/text": tf.io.FixedLenFeature([], tf.string, ""),
    "image/object/bbox/xmin": tf.io.VarLenFeature(tf.float32),
    "image/tags": tf.io.RaggedFeature(tf.string),
}
FORMS = {
    "Keras object": keras_object,
    "Keras file": keras_file,
    "Keras h5": keras_h5,
    "Keras export": keras_export,
    "tf.Module, served": module_served,
    "TF Hub": hub,
    "TF Hub, loaded": hub_loaded,
    "tf.Module": module_object,
    "Python function": python_function,
    "tf.function": tf_function,
    "concrete function": concrete_function,
    "signature of a SavedModel": signature_function,
    "module:model": attribute("network", {}),
    "module:Class.function": attribute("Namespace.classify", {"image_size": "48x64"}),
    "Keras 2 object": keras_2_object,
    "Keras 2 file": keras_2_file,
    "Keras 2 h5": keras_2_h5,
    "Keras 2 SavedModel": keras_2_saved_model,
    "float16 in and out": cast(tf.float16, tf.float16),
    "bfloat16 in": cast(tf.bfloat16),
    "float64 in": cast(tf.float64),
    "uint8 in": cast(tf.uint8),
    "channels first": channels_first,
    "fixed batch": fixed_batch,
    "batch of one": batch_of_one,
    "encoded": strings((None,)),
    "encoded, rank 2": strings((None, 1)),
    "encoded, fixed batch": strings((4,)),
    "examples": examples({record.ENCODED: IMAGE, **OTHERS}, record.ENCODED),
    "examples, another key": examples({"jpeg": IMAGE}, "jpeg"),
    "examples, parsed one by one": examples({"jpeg": IMAGE}, "jpeg", single=True),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_model_gives_the_same_scores(
    form, and_broken, scores, photographs_model, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_models", None)
    model, options = FORMS[form](photographs_model, tmp_path)
    options = {"quiet": True, "batch_size": "auto" if "batch" in form else 4, **options}
    export = tfzip.export(and_broken, model, str(tmp_path / "out"), **options)
    found = {export[row].filename: export[row].prediction for row in range(len(export))}
    assert found.keys() == scores.keys()
    tolerance = 1e-3 if "float16 in and out" in form else 1e-5
    for name, expected in scores.items():
        np.testing.assert_allclose(found[name].scores, expected, rtol=0, atol=tolerance, err_msg=name)
    assert [(failure.filename, failure.stage) for failure in export.failures] == [(BROKEN, "decode")]
    assert not tfzip.verify(export)


def test_the_last_batch_of_a_fixed_size_is_filled_up_and_the_filling_not_written(images, photographs_model, tmp_path):
    path, _ = fixed_batch(photographs_model, tmp_path)
    export = tfzip.export(images[0], path, str(tmp_path / "out"), quiet=True)
    assert len(images[1]) % 5, "the last batch must not be full"
    assert len(export) == len(images[1])
    assert export.manifest["batch_size"] == 5
    for wrong in (1, 4, 10):
        with pytest.raises(UsageError, match=rf"--batch-size {wrong}.*5"):
            tfzip.export(images[0], path, str(tmp_path / "other"), quiet=True, batch_size=wrong)


def test_where_a_batch_of_a_fixed_size_fails_its_images_are_done_one_by_one(
    images, and_broken, scores, photographs_model, tmp_path
):
    """One that the model itself refuses takes none of its batch along."""
    refused = "2/08.png"
    top = float(images[1][refused].astype(np.int64).sum())
    assert sum(top == float(pixels.astype(np.int64).sum()) for pixels in images[1].values()) == 1

    def function(photo):
        sums = tf.reduce_sum(tf.cast(photo, tf.float64), (1, 2, 3))
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(sums != top), ["too good"])]):
            return photographs_model(tf.identity(photo))

    path = serve(photographs_model, tmp_path, function, shape=(5, *SHAPE))
    export = tfzip.export(and_broken, path, str(tmp_path / "out"), quiet=True, scale="raw")
    assert {(f.filename, f.stage) for f in export.failures} == {(BROKEN, "decode"), (refused, "predict")}
    assert any("too good" in failure.error for failure in export.failures)
    found = {item.filename: item.prediction.scores for item in export[:]}
    assert found.keys() == scores.keys() - {refused}
    for name, values in found.items():
        np.testing.assert_allclose(values, scores[name], rtol=0, atol=1e-5)


# State and tables.


class Counting(tf.Module):
    """Says how many images it has seen before, and which batches they came in."""

    def __init__(self, keras_layer=None):
        super().__init__()
        self.seen = tf.Variable(0, dtype=tf.int64)
        self.layer = keras_layer

    @tf.function(input_signature=[tf.TensorSpec((None, *SHAPE), name="photo")])
    def serve(self, photo):
        first = self.seen.read_value()
        slow = tf.reduce_sum(tf.linalg.matmul(tf.ones((300, 300)), tf.ones((300, 300))))  # batches would overlap
        after = first + tf.cast(slow * 0, tf.int64) + tf.shape(photo, tf.int64)[0]
        self.seen.assign(after)
        return {"place": first + tf.range(tf.shape(photo, tf.int64)[0]), "mean": tf.reduce_mean(photo, (1, 2, 3))}


def test_a_model_with_state_is_given_its_batches_one_at_a_time_in_order(images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in images[1]:
        shutil.copy(os.path.join(images[0], name), folder / name.replace("/", "_"))
    module = Counting()
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    export = tfzip.export(
        str(folder), str(tmp_path / "model"), str(tmp_path / "out"), quiet=True, batch_size=2, parallel=4, scale="raw",
        task="raw",
    )  # fmt: skip
    assert [int(item.outputs["place"]) for item in export[:]] == list(range(len(images[1])))
    assert len({float(item.outputs["mean"]) for item in export[:]}) == len(images[1])


def test_a_model_with_hash_tables_says_the_names_that_it_looks_up(images, scores, photographs_model, tmp_path):
    """The design of many served classifiers: a table of assets between the scores and the output."""
    words = ["ape", "bee", "cat", "dog", "elk", "fox", "gnu"]
    (tmp_path / "labels.txt").write_text("\n".join(words))
    module = tf.Module()
    module.kept = [variable.value for variable in photographs_model.variables]
    module.asset = tf.saved_model.Asset(str(tmp_path / "labels.txt"))
    lines = tf.lookup.TextFileIndex
    module.table = tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            module.asset.asset_path, tf.int64, lines.LINE_NUMBER, tf.string, lines.WHOLE_LINE
        ),
        "nobody",
    )
    spec = [tf.TensorSpec((None, *SHAPE), name="photo")]

    def function(photo):
        found = photographs_model(photo)
        return {"kind": found, "word": module.table.lookup(tf.argmax(found, 1))}

    module.serve = tf.function(function, input_signature=spec)
    tf.saved_model.save(module, str(tmp_path / "model"), signatures=module.serve)
    export = tfzip.export(images[0], str(tmp_path / "model"), str(tmp_path / "out"), quiet=True, batch_size=4)
    expected = {name: words[row.argmax()] for name, row in scores.items()}
    assert len(set(expected.values())) > 2
    assert {item.filename: item.outputs["word"].item().decode() for item in export[:]} == expected
    assert {item.filename: item.prediction.text for item in export[:]} == expected, "the names are the model's own"
    assert export.manifest["labels"] == {"names": words, "from": "model"}


# Outputs: each as calling the model by hand gives it.


def everything(photo):
    bright = photo[..., 0] > 128
    counts = tf.cast(tf.reduce_sum(tf.cast(bright[:, :4, 0], tf.int32), 1), tf.int64)  # 0 to 4, of each image
    return {
        "embedding": tf.math.l2_normalize(tf.reduce_mean(photo, (1, 2)), 1),
        "mask": tf.cast(bright, tf.uint8),
        "masks": tf.cast(photo[:, ::8, ::8, :2], tf.float16),
        "text": tf.strings.as_string(photo[:, :2, 0, 0]),
        "ragged": tf.RaggedTensor.from_row_lengths(tf.range(tf.reduce_sum(counts)) * 7, counts),
        "deep": tf.RaggedTensor.from_row_lengths(
            tf.RaggedTensor.from_uniform_row_length(tf.cast(tf.range(2 * tf.reduce_sum(counts)), tf.float32), 2), counts
        ),
        "words": tf.RaggedTensor.from_row_lengths(tf.strings.as_string(tf.range(tf.reduce_sum(counts)) % 3), counts),
        "open": tf.tile(photo[:, :1, 0, :], [1, 3 + tf.size(photo[:0]), 1]),
        "score": tf.reduce_max(photo, (1, 2, 3)),
    }


def test_every_kind_of_output_is_what_the_model_gives_by_hand(images, tmp_path):
    folder, pixels = images
    export = tfzip.export(
        folder, everything, str(tmp_path / "out"), quiet=True, task="raw", scale="raw", image_size=SHAPE[:2],
        batch_size=1,  # since the ragged ones count through their batch
    )  # fmt: skip
    seen = set()
    for item in export[:]:
        by_hand = everything(tf.constant(pixels[item.filename][None], tf.float32))
        assert item.outputs.keys() == by_hand.keys()
        for name, value in by_hand.items():
            expected = value.merge_dims(1, -1)[0] if name == "deep" else value[0]
            np.testing.assert_array_equal(item.outputs[name].ravel(), np.ravel(expected), err_msg=name)
            if name not in ("deep", "ragged", "words"):
                assert item.outputs[name].shape == expected.shape, name
        seen.add(item.outputs["embedding"].tobytes())
    assert len(seen) == len(pixels)
    assert len({len(item.outputs["ragged"]) for item in export[:]}) > 1
    assert export.features["output/open"].shape == (None, 3)
    assert export.features["output/ragged"].shape == (None,)
    assert not tfzip.verify(export)
    for found, (prediction, filename, image) in zip(export[:], export, strict=True):
        assert filename == found.filename
        np.testing.assert_array_equal(image, pixels[filename])
        for name, value in found.outputs.items():
            np.testing.assert_array_equal(prediction[name], value, err_msg=name)
    batched = next(iter(export.dataset(batch_size=len(pixels))))
    for row, found in enumerate(export[:]):
        np.testing.assert_array_equal(batched["output/open"][row], found.outputs["open"])


def test_ragged_outputs_of_a_whole_batch_keep_their_rows_apart(images, tmp_path):
    def function(photo):
        lengths = tf.cast(photo[:, 0, 0, 0], tf.int64) % 5
        values = tf.repeat(tf.reduce_mean(photo, (1, 2, 3)), lengths)
        return {"means": tf.RaggedTensor.from_row_lengths(values, lengths)}

    folder, pixels = images
    export = tfzip.export(
        folder, function, str(tmp_path / "out"), quiet=True, scale="raw", image_size=SHAPE[:2], batch_size=8
    )
    assert export.manifest["task"] == "raw"
    for item in export[:]:
        image = pixels[item.filename].astype(np.float32)
        assert len(item.outputs["means"]) == int(image[0, 0, 0]) % 5
        np.testing.assert_allclose(item.outputs["means"], image.mean(), rtol=1e-5)
    assert len({len(item.outputs["means"]) for item in export[:]}) > 2


def test_an_output_that_does_not_have_a_row_an_image_fails_instead_of_being_mixed_up(images, tmp_path):
    function = lambda photo: {"halves": tf.reshape(photo, (-1, 24, 64, 3))[:, 0, 0]}  # noqa: E731
    with pytest.raises(tfzip.DataError, match=r"predict: .*halves.*row"):
        tfzip.export(
            images[0], function, str(tmp_path / "out"), quiet=True, scale="raw", image_size=SHAPE[:2], task="raw"
        )


# Detection.

COCO = ["background", "person", "bicycle", "car"]


def detections(photo, names=("detection_boxes", "detection_scores", "detection_classes", "num_detections")):
    """As the Object Detection API gives them: best first, filled up with zeros; one class has no name."""
    values = tf.cast(photo, tf.float32) / 255
    scores = tf.sort(values[:, 0, :6, 0], direction="DESCENDING")
    low, high = values[:, 1, :6, :2] / 2, 0.5 + values[:, 2, :6, :2] / 2
    number = tf.reduce_sum(tf.cast(scores > 0.3, tf.float32), 1)
    real = tf.sequence_mask(tf.cast(number, tf.int32), 6, tf.float32)
    found = (
        tf.concat([low, high], 2) * real[..., None],
        scores,
        tf.math.floormod(tf.floor(values[:, 3, :6, 0] * 255), 5),
        number,
    )
    return dict(zip(names, found, strict=False)) | {"embedding": tf.reduce_mean(values, (1, 2))}


def object_detection_api(folder):
    """A SavedModel as its exporter writes them: batches of one image of any size, in bytes."""
    module = tf.Module()
    spec = tf.TensorSpec((1, None, None, 3), tf.uint8, name="input_tensor")
    module.serve = tf.function(lambda input_tensor: detections(input_tensor), input_signature=[spec])
    tf.saved_model.save(module, str(folder / "detector"), signatures=module.serve)
    return str(folder / "detector")


def by_hand(image, min_score):
    found = {name: value.numpy()[0] for name, value in detections(image[None]).items()}
    keep = [i for i, score in enumerate(found["detection_scores"]) if score >= min_score]
    keep = [i for i in keep if i < int(found["num_detections"])]
    labels = [int(found["detection_classes"][i]) for i in keep]
    return {
        "boxes": found["detection_boxes"][keep],
        "scores": found["detection_scores"][keep],
        "labels": labels,
        "texts": [COCO[label] if label < len(COCO) else str(label) for label in labels],
    }


@pytest.fixture(scope="module", params=[None, 0.7, 0.0], ids=["default", "0.7", "0"])
def detected(request, images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("detected")
    (folder / "coco.txt").write_text("\n".join(COCO) + "\n")
    options = {} if request.param is None else {"min_score": request.param}
    export = tfzip.export(
        images[0], object_detection_api(folder), str(folder / "out"), quiet=True, image_size=SHAPE[:2],
        labels=str(folder / "coco.txt"), source_labels="folder", **options,
    )  # fmt: skip
    expected = {name: by_hand(pixels, 0.5 if request.param is None else request.param)
                for name, pixels in images[1].items()}  # fmt: skip
    counts = {len(boxes["labels"]) for boxes in expected.values()}
    assert len(counts) > 1, "the numbers of boxes must differ from image to image"
    assert any("4" in boxes["texts"] for boxes in expected.values()), "a class without a name must occur"
    return export, expected


def test_detections_are_those_by_hand(detected):
    export, expected = detected
    assert export.manifest["task"] == "detection"
    assert {item.filename for item in export[:]} == expected.keys()
    for item in export[:]:
        wanted, found = expected[item.filename], item.prediction
        np.testing.assert_array_equal(found.boxes, wanted["boxes"])
        np.testing.assert_array_equal(found.scores, wanted["scores"])
        assert (found.labels, found.texts) == (wanted["labels"], wanted["texts"])
        assert found.confidence == (max(wanted["scores"]) if wanted["labels"] else None)
        assert list(item.outputs) == ["embedding"]
    assert not tfzip.verify(export)


def test_detections_in_a_loop_are_the_same(detected):
    export, expected = detected
    for prediction, filename, _ in export:
        assert prediction.keys() == expected[filename].keys()
        for name, value in expected[filename].items():
            np.testing.assert_array_equal(prediction[name], value, err_msg=name)


def test_detections_are_under_the_keys_of_the_object_detection_api(detected):
    export, expected = detected
    keys = {f"image/detection/{name}" for name in ("label", "text", "score")}
    keys |= {f"image/detection/bbox/{side}" for side in ("ymin", "xmin", "ymax", "xmax")}
    for serialized in tf.data.TFRecordDataset(export.shards, "GZIP"):
        features = tf.train.Example.FromString(serialized.numpy()).features.feature
        assert keys <= set(features)
        boxes = expected[features["image/filename"].bytes_list.value[0].decode()]["boxes"]
        for column, side in enumerate(("ymin", "xmin", "ymax", "xmax")):
            found = features[f"image/detection/bbox/{side}"].float_list.value
            np.testing.assert_array_equal(np.array(found, np.float32), boxes[:, column])


def test_the_index_tells_the_names_and_the_highest_score(detected):
    export, expected = detected
    for row, name in zip(export._index.table("metadata.csv"), export.metadata["filename"], strict=True):
        wanted = expected[name]
        assert row["prediction"] == "|".join(wanted["texts"])
        assert row["label"] == ""
        assert row["confidence"] == (str(max(wanted["scores"])) if wanted["labels"] else "")
    for name, value in zip(export.metadata["filename"], export.metadata["confidence"], strict=True):
        assert np.isnan(value) == (not expected[name]["labels"])
    assert set(export.metadata["label"].tolist()) == {record.UNKNOWN}


def test_the_manifest_and_schema_of_detections_fit(detected):
    import jsonschema
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    export, _ = detected
    schema = json.loads((importlib.resources.files("tfzip.schemas") / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(export.manifest)
    assert export.manifest["min_score"] in (0.5, 0.7, 0)
    assert export.manifest["threshold"] is None
    assert export.labels == COCO
    assert export.manifest["model"]["output"].split(",") == [
        "detection_boxes", "detection_scores", "detection_classes", "num_detections"
    ]  # fmt: skip
    described = text_format.Parse(export._index.text("schema.pbtxt"), schema_pb2.Schema())
    assert {feature.name for feature in described.feature} == set(export.features)


def test_the_terminal_tells_of_detections(detected, capsys):
    export, expected = detected
    least = export.manifest["min_score"]
    for shown in (terminal.summary(export, "tfzip"), terminal.inspection(export)):
        assert f"detection, boxes from {least} on" in shown
        assert "truth" not in shown.split("features")[0], "folders are no classes of boxes"
    name = next(name for name, boxes in expected.items() if boxes["labels"])
    assert cli.main(["get", export.path, name]) == 0
    told = json.loads(capsys.readouterr().out)["prediction"]
    assert told["texts"] == expected[name]["texts"]
    np.testing.assert_allclose(told["boxes"], expected[name]["boxes"], rtol=1e-6)
    np.testing.assert_allclose(told["scores"], expected[name]["scores"], rtol=1e-6)


OWN = ("where", "sure", "what", "many")


@pytest.mark.parametrize(
    ("names", "task"), [(OWN, "detection"), (OWN[:3], "auto")], ids=["with their number", "without"]
)
def test_outputs_of_other_names_are_named_in_order(names, task, images, tmp_path):
    function = lambda photo: detections(photo, names)  # noqa: E731
    export = tfzip.export(
        images[0], function, str(tmp_path / "out"), quiet=True, scale="raw", image_size=SHAPE[:2], min_score=0.2,
        output=",".join(names), task=task, labels=COCO,
    )  # fmt: skip
    for item in export[:]:
        found = detections(images[1][item.filename][None])
        keep = found["detection_scores"].numpy()[0] >= 0.2
        if len(names) == 4:
            keep &= np.arange(6) < int(found["num_detections"][0])
        np.testing.assert_array_equal(item.prediction.boxes, found["detection_boxes"].numpy()[0][keep])
        np.testing.assert_array_equal(item.prediction.labels, found["detection_classes"].numpy()[0][keep])


def test_ragged_detections_are_those_by_hand(images, tmp_path):
    def function(photo):
        found = detections(photo)
        lengths = tf.cast(found["num_detections"], tf.int64)
        return {
            name: tf.RaggedTensor.from_tensor(found[f"detection_{name}"], lengths)
            for name in ("boxes", "scores", "classes")
        }

    export = tfzip.export(
        images[0], function, str(tmp_path / "out"), quiet=True, scale="raw", image_size=SHAPE[:2], batch_size=8,
        task="detection", output="boxes,scores,classes", labels=COCO,
    )  # fmt: skip
    for item in export[:]:
        wanted = by_hand(images[1][item.filename], 0.5)
        np.testing.assert_array_equal(item.prediction.boxes, wanted["boxes"])
        assert item.prediction.texts == wanted["texts"]


BAD_DETECTION = {
    "no such outputs": ({"output": "boxes,scores,classes"}, ["--output", "detection_boxes", "embedding"]),
    "too few": ({"output": "detection_boxes,detection_scores"}, ["--output", "in that order"]),
    "wrong order": (
        {"output": "detection_scores,detection_boxes,detection_classes"}, ["detection_scores", "(None, None, 4)"],
    ),
    "scores": ({"scores": "logits"}, ["--scores", "detection"]),
    "threshold": ({"threshold": 0.3}, ["--threshold", "multilabel", "detection"]),
    "crop": ({"resize": "crop"}, ["--resize crop", "stretch"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_DETECTION)
def test_what_does_not_fit_detection_is_told(name, images, tmp_path):
    options, words = BAD_DETECTION[name]
    with pytest.raises(UsageError) as caught:
        tfzip.export(
            images[0], detections, str(tmp_path / "out"), quiet=True, scale="raw", image_size=SHAPE[:2],
            **{"task": "detection", **options},
        )  # fmt: skip
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_a_classifier_asked_for_detection_is_told_what_detection_needs(images, photographs_model, tmp_path):
    with pytest.raises(UsageError, match=r"boxes, scores and classes") as caught:
        tfzip.export(images[0], photographs_model, str(tmp_path / "out"), quiet=True, task="detection")
    assert len(str(caught.value).splitlines()) <= 2


def test_a_model_that_takes_bytes_is_told_of_as_such(images, photographs_model, tmp_path):
    import jsonschema

    path, _ = FORMS["examples"](photographs_model, tmp_path)
    export = tfzip.export(images[0], path, str(tmp_path / "out"), quiet=True)
    schema = json.loads((importlib.resources.files("tfzip.schemas") / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(export.manifest)
    assert export.manifest["pixels"] is None
    assert (export.manifest["model"]["takes"], export.manifest["model"]["input"]) == ("example", "photo")
    for shown in (terminal.summary(export, "tfzip"), terminal.inspection(export)):
        assert "bytes" in shown
