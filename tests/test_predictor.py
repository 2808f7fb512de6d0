from __future__ import annotations

import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfzip import predictor
from tfzip.errors import ModelError

SHAPE = (10, 14, 3)


def classifier(seed=1, shape=SHAPE):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input(shape, name="photo")
    x = layers.Rescaling(1 / 255)(inputs)
    x = layers.RandomFlip()(x)
    x = layers.Conv2D(8, 3, kernel_initializer=keras.initializers.RandomNormal(stddev=1.0), activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.Dropout(0.5)(x)
    x = layers.GlobalAveragePooling2D()(x)
    kernel = keras.initializers.RandomNormal(stddev=2.0)
    return keras.Model(inputs, layers.Dense(4, activation="softmax", kernel_initializer=kernel, name="kind")(x))


class Served(tf.Module):
    def __init__(self, model):
        super().__init__()
        self.kept = [variable.value for variable in model.variables]
        spec = tf.TensorSpec((None, *SHAPE), name="photo")
        self.serve = tf.function(lambda photo: {"kind": model(photo, training=False)}, input_signature=[spec])
        self.double = tf.function(lambda photo: {"twice": 2 * model(photo, training=False)}, input_signature=[spec])


def save_module(model, path):
    module = Served(model)
    tf.saved_model.save(module, path, signatures={"serving_default": module.serve, "double": module.double})


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def pixels():
    random = np.random.default_rng(3)
    brightest = random.uniform(0, 255, (6, 1, 1, 3))  # of each image and colour, so that they differ as a whole
    return (random.uniform(0, 1, (6, *SHAPE)) * brightest).astype(np.float32)


@pytest.fixture(scope="module")
def scores(model, pixels):
    found = model(pixels, training=False).numpy()
    assert np.ptp(found, axis=0).max() > 0.1, "the scores must differ from image to image"
    assert len({row.tobytes() for row in found}) == len(found)
    return found


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    found = {name: str(folder / f"model{suffix}") for name, suffix in FORMATS.items()}
    model.save(found["keras"])
    model.save(found["h5"])
    archive = keras.export.ExportArchive()
    archive.track(model)
    spec = keras.InputSpec(shape=(None, *SHAPE), dtype="float32", name="photo")
    archive.add_endpoint("serving_default", lambda photo: model(photo, training=False), input_signature=[spec])
    archive.write_out(found["export"], verbose=False)
    save_module(model, found["module"])
    return found


FORMATS = {"keras": ".keras", "h5": ".h5", "export": "_exported", "module": "_module"}


def only(outputs):
    (output,) = outputs.values()
    return output


# What it says.


@pytest.mark.parametrize("name", FORMATS)
def test_a_saved_model_says_what_the_model_says_when_called_by_hand(name, files, pixels, scores):
    ready = predictor.load(files[name], None, None)
    np.testing.assert_array_equal(only(ready.function(tf.constant(pixels))), scores)


def test_a_model_object_says_what_it_says_when_called_by_hand(model, pixels, scores):
    ready = predictor.load(model, None, None)
    np.testing.assert_array_equal(only(ready.function(tf.constant(pixels))), scores)


def test_a_path_may_be_a_pathlib_path_and_end_in_a_slash(files, pixels, scores):
    for path in (pathlib.Path(files["keras"]), pathlib.Path(files["module"]), files["module"] + "/"):
        ready = predictor.load(path, None, None)
        assert ready.name == os.path.basename(os.fspath(path).rstrip("/"))
        np.testing.assert_array_equal(only(ready.function(tf.constant(pixels))), scores)


def test_an_image_gets_its_own_score_wherever_it_stands_in_a_batch(files, pixels, scores):
    ready = predictor.load(files["keras"], None, None)
    order = [4, 0, 5, 2]
    found = only(ready.function(tf.constant(pixels[order])))
    np.testing.assert_allclose(found, scores[order], rtol=1e-5)


def test_it_works_within_a_dataset(files, pixels, scores):
    for name in ("keras", "module"):
        ready = predictor.load(files[name], None, None)
        dataset = tf.data.Dataset.from_tensor_slices(pixels).batch(2).map(ready.function, 2)
        found = np.concatenate([only(batch) for batch in dataset.as_numpy_iterator()])
        np.testing.assert_allclose(found, scores, rtol=1e-5)


def test_a_signature_is_chosen_by_name(files, pixels, scores):
    ready = predictor.load(files["module"], "double", None)
    assert ready.signature == "double"
    assert list(ready.outputs) == ["twice"]
    np.testing.assert_allclose(only(ready.function(tf.constant(pixels))), 2 * scores, rtol=1e-6)
    assert predictor.load(files["module"], None, None).signature == "serving_default"


def test_dropout_and_augmentation_are_off(files, pixels):
    for name in FORMATS:
        ready = predictor.load(files[name], None, None)
        first, second = (only(ready.function(tf.constant(pixels))).numpy() for _ in range(2))
        np.testing.assert_array_equal(first, second)


# What it tells.


@pytest.mark.parametrize("name", FORMATS)
def test_it_tells_what_the_model_takes_and_gives(name, files):
    ready = predictor.load(files[name], None, None)
    assert ready.name == os.path.basename(files[name])
    assert ready.format == ("keras" if name in ("keras", "h5") else "saved_model")
    assert ready.signature == (None if name in ("keras", "h5") else "serving_default")
    assert ready.input.name == "photo"
    assert ready.input.size == SHAPE[:2]
    assert ready.input.channels == 3
    assert ready.input.dtype == tf.float32
    assert only(ready.outputs) == tf.TensorSpec((None, 4), tf.float32)


def test_outputs_are_named_by_layer_key_or_signature(files, model):
    assert list(predictor.load(model, None, None).outputs) == ["kind"]
    for name in ("keras", "h5", "module"):
        assert list(predictor.load(files[name], None, None).outputs) == ["kind"]


def headed(make, shape=SHAPE, **arguments):
    inputs = keras.Input(shape, **arguments)
    return keras.Model(inputs, make(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))))


def test_several_outputs_are_named_by_their_layers_or_keys(pixels):
    several = headed(lambda x: [layers.Dense(2, name="zebra")(x), layers.Dense(3, name="ant")(x)])
    ready = predictor.load(several, None, None)
    assert {name: spec.shape[1] for name, spec in ready.outputs.items()} == {"zebra": 2, "ant": 3}
    zebra, ant = several(pixels)
    found = ready.function(tf.constant(pixels))
    np.testing.assert_array_equal(found["zebra"], zebra)
    np.testing.assert_array_equal(found["ant"], ant)

    keyed = headed(lambda x: {"z/ebra": layers.Dense(2)(x), "ant": layers.Dense(3)(x)})
    ready = predictor.load(keyed, None, None)
    assert {name: spec.shape[1] for name, spec in ready.outputs.items()} == {"z/ebra": 2, "ant": 3}
    expected = keyed(pixels)
    found = ready.function(tf.constant(pixels))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


class TwoAtOnce(layers.Layer):
    def call(self, x):
        return x + 1, x - 1

    def compute_output_shape(self, shape):
        return shape, shape


def test_two_outputs_of_one_layer_both_have_a_name(pixels):
    several = headed(lambda x: list(TwoAtOnce(name="pair")(x)))
    ready = predictor.load(several, None, None)
    assert len(ready.outputs) == 2
    found = list(ready.function(tf.constant(pixels)).values())
    for output, expected in zip(found, several(pixels), strict=True):
        np.testing.assert_array_equal(output, expected)


@pytest.mark.parametrize("inputs", [lambda x: x, lambda x: [x], lambda x: {"photo": x}], ids=["alone", "list", "dict"])
def test_a_functional_model_may_hold_its_one_input_in_any_way(inputs, pixels):
    x = keras.Input(SHAPE, name="photo")
    some = keras.Model(inputs(x), layers.Dense(2)(layers.Flatten()(x)))
    expected = some(inputs(pixels)).numpy()
    ready = predictor.load(some, None, None)
    np.testing.assert_array_equal(only(ready.function(tf.constant(pixels))), expected)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_and_dtype_are_those_of_the_model(dtype, channels):
    inputs = keras.Input((6, 7, channels), dtype=dtype)
    x = layers.Rescaling(1 / 255)(inputs)
    ready = predictor.load(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), None, None)
    assert (ready.input.size, ready.input.channels, ready.input.dtype.name) == ((6, 7), channels, dtype)


def test_a_sequential_model_built_on_its_first_batch_takes_any_batch(pixels, tmp_path):
    some = keras.Sequential([layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(), layers.Dense(2)])
    expected = some(pixels).numpy()  # Keras notes the 6 images of this batch, but does not hold later ones to it
    some.save(tmp_path / "built.keras")
    for given in (some, str(tmp_path / "built.keras")):
        ready = predictor.load(given, None, None)
        np.testing.assert_allclose(only(ready.function(tf.constant(pixels[:4]))), expected[:4], rtol=1e-5)


def test_an_open_image_size_is_that_which_was_asked_for(tmp_path, pixels):
    some = classifier(shape=(None, None, 3))
    some.save(tmp_path / "open.keras")
    for given in (some, str(tmp_path / "open.keras")):
        ready = predictor.load(given, None, SHAPE[:2])
        assert ready.input.size == SHAPE[:2]
        np.testing.assert_array_equal(only(ready.function(tf.constant(pixels))), some(pixels, training=False))


def test_the_image_size_that_the_model_has_may_be_said_too(files):
    assert predictor.load(files["keras"], None, SHAPE[:2]).input.size == SHAPE[:2]
    assert predictor.load(files["module"], None, SHAPE[:2]).input.size == SHAPE[:2]


# Fingerprints.


def test_the_fingerprint_of_a_file_is_its_sha256(files):
    for name in ("keras", "h5"):
        with open(files[name], "rb") as file:
            expected = hashlib.sha256(file.read()).hexdigest()
        assert predictor.load(files[name], None, None).fingerprint == expected


def test_the_same_model_has_the_same_fingerprint_each_time(files, model):
    for given in (*files.values(), model):
        first, second = (predictor.load(given, None, None).fingerprint for _ in range(2))
        assert first == second
        assert len(bytes.fromhex(first)) == 32


def test_other_weights_have_another_fingerprint(tmp_path):
    found = set()
    for seed in (1, 2):
        some = classifier(seed)
        some.save(tmp_path / f"{seed}.keras")
        save_module(some, str(tmp_path / f"module{seed}"))
        found |= {
            predictor.load(given, None, None).fingerprint
            for given in (some, str(tmp_path / f"{seed}.keras"), str(tmp_path / f"module{seed}"))
        }
    assert len(found) == 6


def test_a_model_object_has_another_fingerprint_once_its_weights_change():
    some = classifier(5)
    before = predictor.load(some, None, None).fingerprint
    kernel = some.get_layer("kind").kernel
    kernel.assign(kernel + 1e-3)
    assert predictor.load(some, None, None).fingerprint != before


def test_a_model_object_has_another_fingerprint_with_another_architecture_of_the_same_weights():
    found = set()
    for activation in ("softmax", "sigmoid"):
        keras.utils.set_random_seed(1)
        some = keras.Sequential(
            [keras.Input(SHAPE), layers.Flatten(), layers.Dense(2, activation=activation, name="kind")], name="same"
        )
        found.add(predictor.load(some, None, None).fingerprint)
    assert len(found) == 2


def test_any_changed_byte_of_a_saved_model_changes_its_fingerprint(tmp_path, model):
    path = tmp_path / "module"
    save_module(model, str(path))
    before = predictor.load(str(path), None, None).fingerprint
    (path / "assets" / "labels.txt").write_text("cat\ndog\n")
    assert predictor.load(str(path), None, None).fingerprint != before


def test_a_saved_model_elsewhere_has_the_same_fingerprint(files, tmp_path):
    target = tmp_path / "copied"
    for folder, _, names in os.walk(files["module"]):
        below = target / os.path.relpath(folder, files["module"])
        below.mkdir(parents=True)
        for name in names:
            (below / name).write_bytes(pathlib.Path(folder, name).read_bytes())
    expected = predictor.load(files["module"], None, None).fingerprint
    assert predictor.load(str(target), None, None).fingerprint == expected


# Models that will not do.


def module_of(function, **specs):
    class Module(tf.Module):
        pass

    module = Module()
    module.serve = tf.function(
        function, input_signature=[tf.TensorSpec(*spec, name=name) for name, spec in specs.items()]
    )
    return module


def saved(module, folder) -> str:
    path = str(folder / "bad")
    tf.saved_model.save(module, path, signatures=module.serve)
    return path


def two_inputs(_folder):
    left, right = keras.Input(SHAPE, name="left"), keras.Input((5,), name="right")
    return keras.Model([left, right], layers.concatenate([layers.Flatten()(left), right]), name="twins")


def saved_with_two_inputs(folder):
    function = lambda left, right: {"sum": tf.reduce_sum(left, (1, 2)) + tf.reduce_sum(right, (1, 2))}  # noqa: E731
    return saved(module_of(function, left=((None, *SHAPE),), right=((None, *SHAPE),)), folder)


def of_rank_two(_folder):
    return keras.Sequential([keras.Input((20,), name="columns"), layers.Dense(2)], name="table")


def of_rank_five(_folder):
    return keras.Sequential([keras.Input((4, *SHAPE), name="frames"), layers.Flatten(), layers.Dense(2)], name="film")


def of_five_channels(_folder):
    return keras.Sequential([keras.Input((8, 8, 5), name="bands"), layers.Flatten(), layers.Dense(2)], name="satellite")


def of_whole_numbers(_folder):
    return keras.Sequential([keras.Input((8, 8, 3), dtype="int32", name="ints"), layers.Flatten()], name="whole")


def with_open_size(_folder):
    return keras.Sequential(
        [keras.Input((None, None, 3), name="anysize"), layers.GlobalMaxPooling2D(), layers.Dense(2)], name="open"
    )


def saved_with_open_size(folder):
    function = lambda anysize: {"sum": tf.reduce_sum(anysize, (1, 2))}  # noqa: E731
    return saved(module_of(function, anysize=((None, None, None, 3),)), folder)


def saved_of_rank_two(folder):
    return saved(module_of(lambda columns: {"sum": tf.reduce_sum(columns, 1)}, columns=((None, 20),)), folder)


def with_a_scalar_output(folder):
    return saved(module_of(lambda photo: {"total": tf.reduce_sum(photo)}, photo=((None, *SHAPE),)), folder)


def with_an_output_of_the_whole_batch(folder):
    function = lambda photo: {"sums": tf.reduce_sum(photo, (0, 1, 2))}  # noqa: E731
    return saved(module_of(function, photo=((None, *SHAPE),)), folder)


BAD_MODELS = {
    # what makes it: what the message names
    two_inputs: ("twins", "left", "right", "2 inputs"),
    saved_with_two_inputs: ("bad", "left", "right", "2 inputs"),
    of_rank_two: ("table", "columns", "[?, 20]"),
    of_rank_five: ("film", "frames", "[?, 4, 10, 14, 3]"),
    of_five_channels: ("satellite", "bands", "5 channels"),
    of_whole_numbers: ("whole", "ints", "int32"),
    with_open_size: ("open", "anysize", "--image-size"),
    saved_with_open_size: ("bad", "anysize", "--image-size"),
    saved_of_rank_two: ("bad", "columns", "[?, 20]"),
    with_a_scalar_output: ("bad", "total", "batch"),
    with_an_output_of_the_whole_batch: ("bad", "sums", "batch"),
}


@pytest.mark.parametrize(("make", "named"), BAD_MODELS.items(), ids=[make.__name__ for make in BAD_MODELS])
def test_a_model_that_does_not_take_a_batch_of_images_is_told_by_name_and_tensor(make, named, tmp_path):
    with pytest.raises(ModelError) as caught:
        predictor.load(make(tmp_path), None, None)
    assert all(word in str(caught.value) for word in named), str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("make", [of_rank_two, of_five_channels, with_open_size])
def test_the_same_is_told_of_the_same_model_in_a_file(make, tmp_path):
    path = str(tmp_path / "bad.keras")
    make(tmp_path).save(path)
    with pytest.raises(ModelError) as caught:
        predictor.load(path, None, None)
    assert all(word in str(caught.value) for word in ("bad.keras", *BAD_MODELS[make][1:])), str(caught.value)


def test_an_image_size_that_the_model_does_not_have_is_refused(files):
    for name in ("keras", "module"):
        with pytest.raises(ModelError, match=r"10x14.*--image-size"):
            predictor.load(files[name], None, (20, 20))


def test_an_image_size_that_the_model_cannot_work_on_is_refused():
    some = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(2, 9), layers.GlobalMaxPooling2D()], name="big"
    )
    with pytest.raises(ModelError, match="big") as caught:
        predictor.load(some, None, (4, 4))
    assert not str(caught.value).endswith("call()."), "where it happened is not yet what happened"


def test_a_signature_that_is_not_there_is_told_with_those_that_are(files):
    with pytest.raises(ModelError) as caught:
        predictor.load(files["module"], "predict", None)
    assert all(word in str(caught.value) for word in ("predict", "serving_default", "double", files["module"]))


def test_a_saved_model_without_signatures_is_refused(tmp_path):
    module = tf.Module()
    module.weight = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "silent"))
    with pytest.raises(ModelError, match=r"silent.*signature"):
        predictor.load(str(tmp_path / "silent"), None, None)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "saved_model", "model"])
def test_a_model_that_is_not_there_is_told_by_its_path(name, tmp_path):
    with pytest.raises(ModelError, match=name) as caught:
        predictor.load(str(tmp_path / name), None, None)
    assert "no such" in str(caught.value)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.hdf5", "model.onnx", "model.tflite", "model"])
def test_a_file_that_is_no_model_is_told_by_its_path(name, tmp_path):
    (tmp_path / name).write_bytes(b"this is no model")
    with pytest.raises(ModelError) as caught:
        predictor.load(str(tmp_path / name), None, None)
    assert str(tmp_path / name) in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="SavedModel"):
        predictor.load(str(tmp_path), None, None)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("name", ["keras", "h5"])
def test_a_truncated_file_is_told_by_its_path(name, share, files, tmp_path):
    whole = pathlib.Path(files[name]).read_bytes()
    path = tmp_path / os.path.basename(files[name])
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError) as caught:
        predictor.load(str(path), None, None)
    assert str(path) in str(caught.value)


def test_a_keras_file_without_weights_is_told_by_its_path(files, tmp_path):
    path = tmp_path / "hollow.keras"
    with zipfile.ZipFile(files["keras"]) as whole, zipfile.ZipFile(path, "w") as hollow:
        hollow.writestr("config.json", whole.read("config.json"))
        hollow.writestr("metadata.json", whole.read("metadata.json"))
    with pytest.raises(ModelError, match=r"hollow\.keras"):
        predictor.load(str(path), None, None)


@pytest.mark.parametrize("damage", [b"", b"this is no model"])
def test_a_damaged_saved_model_is_told_by_its_path(damage, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(damage)
    with pytest.raises(ModelError) as caught:
        predictor.load(str(tmp_path), None, None)
    assert str(tmp_path) in str(caught.value)


def test_a_saved_model_without_its_variables_is_told_by_its_path(tmp_path, model):
    save_module(model, str(tmp_path))
    for path in (tmp_path / "variables").iterdir():
        path.unlink()
    with pytest.raises(ModelError) as caught:
        predictor.load(str(tmp_path), None, None)
    assert str(tmp_path) in str(caught.value)


def test_an_unbuilt_sequential_model_is_told_how_to_be_built():
    some = keras.Sequential([layers.Flatten(), layers.Dense(2)], name="unbuilt")
    with pytest.raises(ModelError, match=r"unbuilt.*Input"):
        predictor.load(some, None, (8, 8))


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="subclassed")
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(keras.ops.mean(x, axis=(1, 2)))


@pytest.mark.parametrize("make", [Subclassed, lambda: keras.Sequential([layers.Flatten(), layers.Dense(2)])])
def test_a_model_is_not_told_to_do_what_does_not_help(make, pixels):
    some = make()
    with pytest.raises(ModelError, match=some.name) as before:
        predictor.load(some, None, SHAPE[:2])
    expected = some(pixels).numpy()
    if "call it once" in str(before.value):
        ready = predictor.load(some, None, SHAPE[:2])
        np.testing.assert_allclose(only(ready.function(tf.constant(pixels))), expected, rtol=1e-5)


@pytest.mark.parametrize("given", [42, None, [1, 2], object(), layers.Dense(2), np.zeros(3), b"model.keras"])
def test_what_is_no_model_is_told_by_its_type(given):
    with pytest.raises(ModelError, match=type(given).__name__):
        predictor.load(given, None, None)


def test_a_file_with_a_layer_that_keras_does_not_know_is_told_by_its_path(tmp_path):
    class Unheard(layers.Layer):  # a class within a function is found by no import
        def call(self, x):
            return x

    path = str(tmp_path / "secret.keras")
    keras.Sequential([keras.Input((4, 4, 3)), Unheard()]).save(path)
    with pytest.raises(ModelError, match=r"secret\.keras.*Unheard"):
        predictor.load(path, None, None)


def test_code_inside_a_file_runs_only_if_trusted(tmp_path, pixels):
    path = str(tmp_path / "code.keras")
    keras.Sequential(
        [keras.Input(SHAPE), layers.Lambda(lambda x: x * 3), layers.GlobalAveragePooling2D()], name="code"
    ).save(path)
    with pytest.raises(ModelError, match=r"code\.keras.*--trust-model"):
        predictor.load(path, None, None)
    ready = predictor.load(path, None, None, trust=True)
    np.testing.assert_allclose(only(ready.function(tf.constant(pixels))), 3 * pixels.mean((1, 2)), rtol=1e-4)


# Keras' NumPy backend borrows two functions of JAX, so without JAX it does not start; a stub is enough for it to.
STUB = """
import sys, unittest.mock
from importlib.machinery import ModuleSpec

class Stub:
    def find_spec(self, name, path, target=None):
        return ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "jax" else None

    def create_module(self, spec):
        return unittest.mock.MagicMock(__path__=[], __spec__=spec)

    def exec_module(self, module):
        pass

sys.meta_path.insert(0, Stub())
"""
LOAD = """
import sys
from tfzip import predictor
from tfzip.errors import ModelError

for given in sys.argv[1:]:
    if given == "object":
        import keras
        given = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten()])
    try:
        print("loaded:", sorted(predictor.load(given, None, None).outputs))
    except ModelError as error:
        print("told:", error)
"""


def load_elsewhere(given, backend, code=LOAD):
    """What is said of each of some models in a Python of its own, where Keras is to run on another backend."""
    environment = os.environ | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code, *given], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
    return done.stdout.splitlines()


@pytest.mark.slow
def test_keras_on_another_backend_is_told_what_to_set(files):
    told = load_elsewhere([files["keras"], files["h5"], "object"], "numpy", STUB + LOAD)
    assert len(told) == 3
    assert all(line.startswith("told:") and "numpy" in line for line in told)
    assert all("KERAS_BACKEND=tensorflow" in line for line in told)


@pytest.mark.slow
def test_keras_on_a_backend_that_is_not_installed_is_told_what_to_set(files):
    missing = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is None]
    if not missing:
        pytest.skip("every backend of Keras is installed here")
    (told,) = load_elsewhere([files["keras"]], missing[0])
    assert told.startswith("told:")
    assert "KERAS_BACKEND=tensorflow" in told


def test_a_saved_model_does_not_need_keras_on_tensorflow(files):
    assert load_elsewhere([files["module"], files["export"]], "jax") == ["loaded: ['kind']", "loaded: ['output_0']"]
