"""What may be said of a model, where its class names come from, and what is said of models that will not do."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import cli, labels, predictor
from tfzip.errors import ModelError, UsageError

SHAPE = (8, 8, 1)  # that of the digits
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture
def run(digits, tmp_path):
    """Exports some digits."""

    def export(model, **options):
        return tfzip.export(
            str(digits[0]), model, str(tmp_path / "out"), **{"quiet": True, "limit": 60, "shuffle": 1, **options}
        )

    return export


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module that can be imported; its name."""
    written = []

    def write(source):
        name = f"written_{os.path.basename(tmp_path)}_{len(written)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        written.append(name)
        return name

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    for name in written:
        sys.modules.pop(name, None)


# Class names.


@pytest.fixture
def with_assets(digits_files, tmp_path):
    """A SavedModel with files among its assets."""
    import shutil

    path = tmp_path / "model"
    shutil.copytree(digits_files["saved_model"], path)

    def make(**files):
        for name, text in files.items():
            file = path / name.replace("__", "/").replace("_txt", ".txt").replace("assets_extra", "assets.extra")
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return make


def says(export):
    """Where its names come from, after a look at whether every prediction is called by them."""
    names = export.labels
    assert len({item.prediction.label for item in export[:]}) > 3
    for item in export[:]:
        assert item.prediction.text == (names[item.prediction.label] if names else str(item.prediction.label))
    return export.manifest["labels"]["from"], names


def test_names_given_count_before_the_models_before_the_sources(run, with_assets, tmp_path):
    mine = [name.upper() for name in NAMES]
    (tmp_path / "mine.txt").write_text("\n".join(mine))
    model = with_assets(assets_extra__labels_txt="\n".join(NAMES) + "\n")
    more = {"source_labels": "folder", "overwrite": True}
    assert says(run(model, labels=str(tmp_path / "mine.txt"), **more)) == ("file", mine)
    assert says(run(model, labels=mine, **more)) == ("option", mine)
    assert says(run(model, **more)) == ("model", NAMES)
    assert says(run(model, overwrite=True)) == ("model", NAMES)


def test_without_the_models_the_source_names_the_classes(run, digits_files):
    assert says(run(digits_files["saved_model"], source_labels="folder")) == ("source", list("0123456789"))
    assert says(run(digits_files["saved_model"], overwrite=True)) == ("none", [])


@pytest.mark.parametrize(
    "files",
    [
        {"assets__labels_txt": "\n".join(NAMES)},
        {"assets__vocabulary_txt": "\r\n".join(NAMES) + "\r\n"},
        {"assets__class_names_txt": "\ufeff" + "\n".join(NAMES)},
        {"assets_extra__labels_txt": "\n".join(NAMES), "assets__vocab_txt": "a\nb\n"},
    ],
    ids=str,
)
def test_names_among_a_saved_models_assets_are_found(files, run, with_assets):
    assert says(run(with_assets(**files))) == ("model", NAMES)


@pytest.mark.parametrize("files", [{"assets__labels_txt": "a\nb\n"}, {"assets__labels_txt": b"\xff\xfe\xfa"}], ids=str)
def test_assets_that_are_no_names_of_so_many_classes_are_left_alone(files, run, with_assets):
    assert says(run(with_assets(**files))) == ("none", [])


def test_names_of_ids_are_never_the_sources():
    found = labels.ClassNames(None, classes=[b"cats", b"dogs"])
    assert found.of_ids() == ()
    assert found.of(2) == found.any() == ("cats", "dogs")
    assert labels.ClassNames(None, ["a", "b", "c"], [b"cats", b"dogs"]).of_ids() == ("a", "b", "c")


# Custom code.

CUSTOM = """
    import keras

    class Tripled(keras.layers.Layer):
        def call(self, x):
            return x * 3

    def bent(x):
        return keras.ops.tanh(x) * 2
"""


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_custom_layers_and_functions_are_found_in_the_modules_to_import(suffix, run, module, tmp_path, digits):
    name = module(CUSTOM)
    custom = __import__(name)
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input(SHAPE),
            keras.layers.Rescaling(1 / 255),
            custom.Tripled(),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation=custom.bent, kernel_initializer="he_normal"),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )  # fmt: skip
    path = str(tmp_path / f"custom{suffix}")
    model.save(path)
    images = {f"{c}/{i:04d}.png": image for i, (image, c) in enumerate(zip(digits[1], digits[2], strict=True))}
    custom.Tripled.__module__ = "nowhere"  # nobody but tfzip is to find it
    export = run(path, imports=[name])
    expected = model(np.stack([images[item.filename] for item in export[:]]).astype(np.float32)).numpy()
    assert np.ptp(expected, axis=0).max() > 0.2
    np.testing.assert_allclose([item.prediction.scores for item in export[:]], expected, atol=1e-5)


def test_without_the_import_the_file_and_the_layer_are_named(run, module, tmp_path):
    name = module(CUSTOM)
    custom = __import__(name)
    path = str(tmp_path / "custom.h5")
    keras.Sequential([keras.Input(SHAPE), custom.Tripled(), keras.layers.Flatten()]).save(path)
    with pytest.raises(ModelError, match=r"custom\.h5.*Tripled"):
        run(path)


def test_the_command_imports_modules_in_turn(module, digits, digits_files, tmp_path, capsys):
    first, second = module("ORDER = ['first']"), module("")
    (tmp_path / f"{second}.py").write_text(f"import {first}\n{first}.ORDER.append('second')\n")
    arguments = ["export", str(digits[0]), "--model", digits_files["keras"], "--out", str(tmp_path / "out")]
    assert cli.main([*arguments, "--limit", "5", "--quiet", "--import", first, "--import", second]) == 0
    assert sys.modules[first].ORDER == ["first", "second"]
    assert cli.main([*arguments, "--overwrite", "--import", "no_such_module"]) == 2
    assert "--import no_such_module: ModuleNotFoundError" in capsys.readouterr().err


# Applications.


def prepared(images):
    """Encoded images as the application wants them."""
    decoded = [tf.io.decode_image(image, 3, expand_animations=False) for image in images]
    pixels = np.stack([tf.image.resize(image, (224, 224)) for image in decoded])
    return keras.applications.mobilenet_v2.preprocess_input(pixels)


@pytest.fixture(scope="module")
def mobilenet(photographs):
    """An application whose last weights are such that its scores differ from image to image."""
    keras.utils.set_random_seed(1)
    model = keras.applications.MobileNetV2(weights=None)
    some = sorted(path for path in photographs.rglob("*") if path.is_file())[::40]
    body = keras.Model(model.inputs, model.layers[-2].output)
    features = body([prepared([path.read_bytes() for path in some])]).numpy()
    kernel = np.random.default_rng(2).normal(0, 1, (features.shape[1], 1000))
    kernel *= 3 / np.std((features - features.mean(0)) @ kernel)
    model.layers[-1].set_weights([kernel, -features.mean(0) @ kernel])
    return model


@pytest.mark.parametrize("suffix", [".weights.h5", pytest.param(".h5", marks=pytest.mark.slow)])
def test_an_application_with_weights_of_a_file_knows_its_own_scale(suffix, mobilenet, photographs, tmp_path):
    path = str(tmp_path / f"mobilenet{suffix}")
    mobilenet.save_weights(path) if suffix == ".weights.h5" else mobilenet.save(path)
    export = tfzip.export(
        str(photographs), "keras:MobileNetV2", str(tmp_path / "out"), quiet=True, weights=path, limit=6, batch_size=2
    )
    assert (export.manifest["pixels"]["scale"], export.manifest["pixels"]["scale_from"]) == ("symmetric", "application")
    assert export.manifest["model"]["name"] == "keras:MobileNetV2"
    assert export.manifest["labels"]["from"] == "none"
    found = np.stack([item.prediction.scores for item in export[:]])
    expected = mobilenet(prepared([item.encoded for item in export[:]])).numpy()
    assert np.ptp(expected, axis=0).max() > 0.1, "the scores must differ from image to image"
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_the_same_weights_in_an_application_have_the_same_fingerprint(mobilenet, tmp_path):
    path = str(tmp_path / "mobilenet.weights.h5")
    mobilenet.save_weights(path)
    first, second = (predictor.load("keras:MobileNetV2", weights=path).fingerprint for _ in range(2))
    assert first == second  # though Keras numbers the layers of the second otherwise
    mobilenet.layers[-1].bias.assign_add(np.full(1000, 1e-3))
    mobilenet.save_weights(path)
    assert predictor.load("keras:MobileNetV2", weights=path).fingerprint != first


@pytest.mark.slow
def test_without_a_network_an_application_asks_for_its_weights(digits, tmp_path):
    environment = os.environ | {"KERAS_HOME": str(tmp_path), "https_proxy": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "tfzip", "export", str(digits[0]), "--model", "keras:MobileNetV2", "--out", "out"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "keras:MobileNetV2" in done.stderr
    assert "--weights" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


# Fingerprints of what has no file.

FUNCTIONS = """
    import tensorflow as tf

    kernel = tf.Variable(tf.reshape(tf.range(640.0), (64, 10)) / 640)
    shift = tf.constant([0.5])

    def function(pixels, factor=2.0):
        rows = tf.reshape(pixels / 255, (-1, 64))
        rows = tf.while_loop(lambda i, x: i < 2, lambda i, x: (i + 1, x * factor), (0, rows))[1]
        return tf.nn.softmax(tf.matmul(rows, kernel) + shift)

    def other(pixels):
        return function(pixels, 2.5)

    @tf.function
    def nested(pixels):
        return tf.function(function)(pixels)
"""


@pytest.mark.slow
def test_the_fingerprint_of_a_function_is_the_same_in_another_process(module, tmp_path):
    name = module(FUNCTIONS)
    code = f"""
import sys, tensorflow as tf
sys.path.insert(0, {str(tmp_path)!r})
from tfzip import predictor
tf.function(lambda x: x + 1)(1)  # so that TensorFlow counts its functions otherwise
for kind in ("nested", "function"):
    print(predictor.load("{name}:" + kind, None, (8, 8)).fingerprint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = [predictor.load(f"{name}:{kind}", None, (8, 8)).fingerprint for kind in ("function", "nested")]
    assert done.stdout.split() == here[::-1]


def test_another_function_or_other_values_have_another_fingerprint(module):
    name = module(FUNCTIONS)
    found = {predictor.load(f"{name}:{kind}", None, (8, 8)).fingerprint for kind in ("function", "other")}
    written = sys.modules[name]
    written.kernel.assign(written.kernel * 2)
    found.add(predictor.load(f"{name}:function", None, (8, 8)).fingerprint)
    written.shift = tf.constant([0.25])
    found.add(predictor.load(f"{name}:function", None, (8, 8)).fingerprint)
    assert len(found) == 4


# Models that will not do, by what is said of them.


def served(folder, function, shape, dtype=tf.string):
    module = tf.Module()
    spec = tf.TensorSpec(shape, dtype, name="tensor")
    module.serve = tf.function(lambda tensor: {"kind": function(tensor)}, input_signature=[spec])
    tf.saved_model.save(module, str(folder / "served"), signatures=module.serve)
    return str(folder / "served")


def parsing(folder, spec):
    def function(serialized):
        parsed = tf.io.parse_example(serialized, spec)
        return tf.strings.length(next(value for key, value in parsed.items() if value.dtype == tf.string))

    return served(folder, function, (None,))


STRING, NUMBER = tf.io.FixedLenFeature([], tf.string), tf.io.FixedLenFeature([], tf.int64)
ATTRIBUTES = """
    number = 5

    class Network:
        def __call__(self, pixels):
            return pixels

    def factory():
        return Network()

    def broken(pixels):
        raise RuntimeError("out of order")
"""
BAD = {
    # name: what makes the model, options, what the message names
    "no such module": (lambda _f, _m: "no_such_module:model", {}, ["no_such_module:model", "ModuleNotFoundError"]),
    "no such attribute": (lambda _f, m: f"{m(ATTRIBUTES)}:missing", {}, [":missing", "AttributeError"]),
    "no callable": (lambda _f, m: f"{m(ATTRIBUTES)}:number", {}, [":number", "callable"]),
    "a class": (lambda _f, m: f"{m(ATTRIBUTES)}:Network", {}, [":Network", "callable"]),
    "a factory": (lambda _f, m: f"{m(ATTRIBUTES)}:factory", {"image_size": "8x8"}, [":factory", "0 positional"]),
    "one that raises": (lambda _f, m: f"{m(ATTRIBUTES)}:broken", {"image_size": "8x8"}, [":broken", "out of order"]),
    "a module that raises": (lambda _f, m: f"{m('1 / 0')}:model", {}, [":model", "ZeroDivisionError"]),
    "an open size": (lambda _f, m: f"{m(ATTRIBUTES)}:broken", {}, [":broken", "--image-size"]),
    "no such application": (lambda _f, _m: "keras:ResNet5", {}, ["keras:ResNet5", "ResNet50"]),
    "no such weights": (
        lambda _f, _m: "keras:MobileNet", {"weights": "gone.weights.h5"}, ["--weights gone.weights.h5", "no such file"],
    ),
    "weights of another": (
        lambda _f, _m: "keras:MobileNet", {"weights": "WEIGHTS"}, ["keras:MobileNet", "other.weights.h5"],
    ),
    "weights of a file": (
        lambda _f, _m: "KERAS", {"weights": "some.h5"}, ["--weights", "some.h5", "keras:NAME", "digits.keras"],
    ),
    "a signature of a file": (lambda _f, _m: "KERAS", {"signature": "x"}, ["--signature 'x'", "digits.keras"]),
    "trust in a SavedModel": (lambda _f, _m: "SAVED", {"trust_model": True}, ["--trust-model", "digits_saved"]),
    "trust in an application": (lambda _f, _m: "keras:VGG16", {"trust_model": True}, ["--trust-model", "VGG16"]),
    "a threshold without effect": (
        lambda _f, _m: "KERAS", {"threshold": 0.7}, ["--threshold", "multilabel", "multiclass"],
    ),
    "a least score without effect": (
        lambda _f, _m: "KERAS", {"min_score": 0.7}, ["--min-score", "detection", "multiclass"],
    ),
    "scores without effect": (
        lambda _f, _m: "KERAS", {"task": "raw", "scores": "logits"}, ["--scores", "raw"],
    ),
    "an output without effect": (
        lambda _f, _m: "KERAS", {"task": "raw", "output": "anything"}, ["--output", "raw"],
    ),
    "one string": (lambda f, _m: served(f, tf.strings.length, ()), {}, ["served", "tensor", "[] string"]),
    "strings in a table": (
        lambda f, _m: served(f, lambda x: tf.strings.length(x[:, 0]), (None, 4)), {}, ["tensor", "[?, 4] string"],
    ),
    "examples of no image": (
        lambda f, _m: parsing(f, {"a": STRING, "b": STRING}), {}, ["served", "a (string)", "b (string)"],
    ),
    "examples of more": (
        lambda f, _m: parsing(f, {"jpeg": STRING, "height": NUMBER}), {}, ["served", "height", "jpeg"],
    ),
    "scale of bytes": (lambda f, _m: served(f, tf.strings.length, (None,)), {"scale": "unit"}, ["--scale", "tensor"]),
    "resize of bytes": (lambda f, _m: served(f, tf.strings.length, (None,)), {"resize": "pad"}, ["--resize", "tensor"]),
    "function of bytes": (
        lambda f, _m: served(f, tf.strings.length, (None,)), {"preprocess": "math:sqrt"}, ["--preprocess", "tensor"],
    ),
    "size of bytes": (
        lambda f, _m: served(f, tf.strings.length, (None,)), {"image_size": "8x8"}, ["--image-size", "tensor"],
    ),
    "a sparse output": (
        lambda _f, _m: lambda x: {"few": tf.sparse.from_dense(x)}, {"image_size": "8x8"}, ["few", "SparseTensor"],
    ),
    "an output of no tensor": (lambda _f, _m: lambda _x: {"what": object()}, {"image_size": "8x8"}, ["what", "object"]),
    "one number a batch": (lambda _f, _m: lambda x: {"all": tf.reduce_sum(x)}, {"image_size": "8x8"}, ["all", "batch"]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_will_not_do_is_told_by_file_or_tensor_in_two_lines(name, run, module, tmp_path, digits_files):
    make, options, words = BAD[name]
    if options.get("weights") == "WEIGHTS":
        path = str(tmp_path / "other.weights.h5")
        keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(3)]).save_weights(path)
        options = {"weights": path}
    model = make(tmp_path, module)
    model = {"KERAS": digits_files["keras"], "SAVED": digits_files["saved_model"]}.get(model, model) \
        if isinstance(model, str) else model  # fmt: skip
    with pytest.raises(UsageError) as caught:
        run(model, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) <= 2, message
    assert not (tmp_path / "out").exists()


def test_options_of_another_task_are_fine_where_they_are_at_their_defaults(run, digits_files):
    assert len(run(digits_files["keras"], threshold=0.5, min_score=0.5, scores="auto")) == 60


def test_a_file_of_keras_2_without_tf_keras_is_told_what_to_install(tmp_path, monkeypatch, run):
    tf_keras = pytest.importorskip("tf_keras")
    layers = tf_keras.layers
    old = tf_keras.Sequential([layers.Input(SHAPE), layers.ThresholdedReLU(), layers.Flatten()])  # Keras 3 has no such
    paths = [str(tmp_path / "old.keras"), str(tmp_path / "old.h5")]
    old.save(paths[0])
    with pytest.warns(UserWarning, match="HDF5"):
        old.save(paths[1])
    monkeypatch.setitem(sys.modules, "tf_keras", None)  # as Python marks what cannot be imported
    for path in paths:
        with pytest.raises(ModelError, match=r"pip install 'tf_keras==2\.\d+\.\*'$") as caught:
            run(path)
        assert path in str(caught.value)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
def test_code_in_a_file_of_keras_2_runs_only_if_trusted(suffix, tmp_path, run):
    tf_keras = pytest.importorskip("tf_keras")
    path = str(tmp_path / f"code{suffix}")
    layers = tf_keras.layers
    tf_keras.Sequential([layers.Input(SHAPE), layers.Lambda(lambda x: x * 3), layers.Flatten()]).save(path)
    with pytest.raises(ModelError, match=r"code\..*--trust-model"):
        run(path)
    assert predictor.load(path, trust=True).format in ("keras", "tf_keras")


def test_a_file_that_neither_keras_can_load_is_told(tmp_path, run):
    tf_keras = pytest.importorskip("tf_keras")

    class Unheard(tf_keras.layers.Layer):
        def call(self, x):
            return x

    path = str(tmp_path / "secret.keras")
    tf_keras.Sequential([tf_keras.layers.Input(SHAPE), Unheard()]).save(path)
    with pytest.raises(ModelError, match=r"secret\.keras.*Unheard"):
        run(path)


def test_a_dry_run_tells_of_a_model_that_takes_bytes(run, tmp_path, capsys):
    run(served(tmp_path, tf.strings.length, (None,)), dry_run=True)
    assert "the images' bytes" in capsys.readouterr().out
