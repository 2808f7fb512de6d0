from __future__ import annotations

import functools
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from tfzip import evidence, predict, predictor
from tfzip.evidence import Scale

SHAPE = (12, 12, 3)
RAW, UNIT, SYMMETRIC = Scale("raw", "model"), Scale("unit", "model"), Scale("symmetric", "model")
IMAGENET_MEAN, IMAGENET_VARIANCE = [0.485, 0.456, 0.406], [0.229**2, 0.224**2, 0.225**2]


# Slope and offset.

JUDGED = [
    (1 / 255, 0, "raw"),
    (1 / 256, 0, "raw"),
    (1 / 127.5, -1, "raw"),
    (1 / 128, -1, "raw"),
    (1 / 255, -0.5, "raw"),
    (1 / 58.4, -123.7 / 58.4, "raw"),
    (1 / 64, -2, "raw"),
    (1, -127.5, "raw"),
    (1, -128, "raw"),
    (1, -117, "raw"),
    (2, -1, "unit"),
    (1 / 0.229, -0.485 / 0.229, "unit"),
    (4, -2, "unit"),
    (255, 0, "unit"),
    (255, -123.7, "unit"),
    (255, -127.5, "unit"),
    (0.5, 0.5, "symmetric"),
    (127.5, 127.5, "symmetric"),
    (128, 128, "symmetric"),
    (1, 0, None),
    (1, 1, None),
    (1, -1, None),
    (1, 0.5, None),
    (0.5, 0, None),
    (0, 0, None),
    (0, 1, None),
    (0, -1, None),
    (-1, 0, None),
    (-1 / 255, 0, None),
    (1 / 255, 100, None),
    (1 / 255, -100, None),
    (1e-6, 0, None),
    (30, 0, None),
    (float("nan"), 0, None),
    (1, float("nan"), None),
]


@pytest.mark.parametrize(("slope", "offset", "expected"), JUDGED)
def test_slope_and_offset_are_judged_by_what_networks_like(slope, offset, expected):
    assert evidence.judge(slope, offset) == expected


def test_pixels_made_larger_by_half_of_a_byte_are_not_called_0_to_1():
    # x * 127.5 makes the usual -127.5..127.5 of -1..1, and nothing that is centred of 0..1.
    assert evidence.judge(127.5, 0) != "unit"


# Models by what they do to the pixels before their first weights.


def body(x, activation="softmax"):
    """A small network with weights on which something depends."""
    x = layers.Conv2D(4, 3, activation="relu")(x)
    return layers.Dense(3, activation=activation)(layers.GlobalAveragePooling2D()(x))


def functional(prepare, shape=SHAPE, dtype="float32"):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, body(prepare(inputs)))


def sequential(*front, shape=SHAPE, dtype="float32"):
    return keras.Sequential(
        [
            keras.Input(shape, dtype=dtype),
            *front,
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def ramp(top):
    return np.random.default_rng(0).uniform(0, top, (64, *SHAPE)).astype(np.float32)


def adapted(top):
    layer = layers.Normalization()
    layer.adapt(ramp(top))
    return layer


def batch_normalized(top):
    """As a model that learned the statistics of its own pixels has it."""
    pixels = ramp(top)
    model = sequential(layers.BatchNormalization())
    layer = model.layers[0]
    layer.moving_mean.assign(pixels.mean((0, 1, 2)))
    layer.moving_variance.assign(pixels.var((0, 1, 2)))
    return model


def nested(front):
    backbone = sequential(layers.Conv2D(4, 1))
    return keras.Sequential([keras.Input(SHAPE), front, backbone, layers.Dense(2, activation="softmax")])


def nested_deep():
    inside = keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 127.5, -1), layers.Conv2D(4, 3)])
    middle = keras.Sequential([keras.Input(SHAPE), layers.RandomFlip(), inside])
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling2D()(middle(inputs))))


def two_branches(first, second):
    def prepare(x):
        return layers.concatenate([layers.Conv2D(2, 3)(first(x)), layers.Conv2D(2, 3)(second(x))])

    return functional(prepare)


def augmentation():
    return [
        layers.RandomFlip("horizontal"),
        layers.RandomRotation(0.1),
        layers.RandomZoom(0.1),
        layers.RandomContrast(0.2),
        layers.RandomBrightness(0.2),
        layers.RandomTranslation(0.1, 0.1),
    ]


def open_channels():
    """A model of grey pictures that repeats them."""
    return functional(lambda x: ops.repeat(x / 255.0, 3, axis=-1), shape=(12, 12, 1))


def per_channel(x):
    """keras.applications' `preprocess_input`, in the mode `torch`, as it is inlined."""
    return keras.applications.densenet.preprocess_input(x)


MODELS = {
    # name: what makes it, the scale that it shows
    "rescaling to 0..1": (lambda: sequential(layers.Rescaling(1 / 255)), RAW),
    "rescaling to -1..1": (lambda: sequential(layers.Rescaling(1 / 127.5, offset=-1)), RAW),
    "rescaling from 0..1 to -1..1": (lambda: sequential(layers.Rescaling(2.0, offset=-1.0)), UNIT),
    "rescaling from 0..1 to 0..255": (lambda: sequential(layers.Rescaling(255.0)), UNIT),
    "rescaling from -1..1 to 0..1": (lambda: sequential(layers.Rescaling(0.5, offset=0.5)), SYMMETRIC),
    "rescaling from -1..1 to 0..255": (lambda: sequential(layers.Rescaling(127.5, offset=127.5)), SYMMETRIC),
    "two rescalings": (lambda: sequential(layers.Rescaling(1 / 255), layers.Rescaling(2.0, -1.0)), RAW),
    "normalization of 0..255": (
        lambda: sequential(
            layers.Normalization(
                mean=[255 * mean for mean in IMAGENET_MEAN], variance=[255**2 * v for v in IMAGENET_VARIANCE]
            )
        ),
        RAW,
    ),
    "normalization of 0..1": (
        lambda: sequential(layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE)),
        UNIT,
    ),
    "normalization after rescaling": (
        lambda: sequential(
            layers.Rescaling(1 / 255), layers.Normalization(mean=IMAGENET_MEAN, variance=IMAGENET_VARIANCE)
        ),
        RAW,
    ),
    "normalization adapted to 0..255": (lambda: sequential(adapted(255)), RAW),
    "normalization adapted to 0..1": (lambda: sequential(adapted(1)), UNIT),
    "batch normalization of 0..255": (lambda: batch_normalized(255), RAW),
    "batch normalization of 0..1": (lambda: batch_normalized(1), UNIT),
    "augmentation, then rescaling": (lambda: sequential(*augmentation(), layers.Rescaling(1 / 255)), RAW),
    "rescaling, then augmentation": (lambda: sequential(layers.Rescaling(1 / 255), layers.RandomFlip()), RAW),
    "resizing, then rescaling": (lambda: sequential(layers.Resizing(8, 8), layers.Rescaling(1 / 255)), RAW),
    "rescaling, then resizing": (lambda: sequential(layers.Rescaling(2.0, -1.0), layers.Resizing(20, 20)), UNIT),
    "padding, then rescaling": (lambda: sequential(layers.ZeroPadding2D(3), layers.Rescaling(1 / 127.5, -1)), RAW),
    "rescaling, then padding": (lambda: sequential(layers.Rescaling(1 / 127.5, -1), layers.ZeroPadding2D(3)), RAW),
    "cropping, then rescaling": (lambda: sequential(layers.CenterCrop(8, 8), layers.Rescaling(1 / 255)), RAW),
    "rescaling, dense only": (
        lambda: keras.Sequential([keras.Input(SHAPE), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(3)]),
        RAW,
    ),
    "rescaling of grey": (lambda: sequential(layers.Rescaling(1 / 255), shape=(12, 12, 1)), RAW),
    "grey repeated": (open_channels, RAW),
    "channels first inside": (
        lambda: functional(lambda x: layers.Permute((2, 3, 1))(layers.Permute((3, 1, 2))(x) / 255.0)),
        RAW,
    ),
    "division written out": (lambda: functional(lambda x: x / 255.0), RAW),
    "arithmetic written out": (lambda: functional(lambda x: (x - 127.5) / 127.5), RAW),
    "arithmetic of 0..1": (lambda: functional(lambda x: ops.subtract(ops.multiply(x, 2.0), 1.0)), UNIT),
    "mean subtracted": (lambda: functional(lambda x: x - np.float32([123.68, 116.779, 103.939])), RAW),
    "preprocess_input of mobilenet": (lambda: functional(keras.applications.mobilenet_v2.preprocess_input), RAW),
    "preprocess_input of resnet": (lambda: functional(keras.applications.resnet.preprocess_input), RAW),
    "preprocess_input of densenet": (lambda: functional(per_channel), RAW),
    "cut off, then rescaled": (lambda: functional(lambda x: ops.clip(x, 0.0, 255.0) / 255.0), RAW),
    "nested, rescaling outside": (lambda: nested(layers.Rescaling(1 / 255)), RAW),
    "nested, rescaling inside": (nested_deep, RAW),
    "two branches of one scale": (
        lambda: two_branches(layers.Rescaling(1 / 255), layers.Rescaling(1 / 127.5, -1)),
        RAW,
    ),
    "bytes": (lambda: functional(lambda x: ops.cast(x, "float32"), dtype="uint8"), RAW),
    "half floats": (lambda: sequential(layers.Rescaling(1 / 255), dtype="float16"), RAW),
    "rescaled, then not linear": (lambda: functional(lambda x: ops.sqrt(x / 255.0)), RAW),
    "nothing": (lambda: sequential(), None),
    "nothing, nested": (lambda: nested(layers.RandomFlip()), None),
    "padding only": (lambda: sequential(layers.ZeroPadding2D(2)), None),
    "untouched batch normalization": (lambda: sequential(layers.BatchNormalization()), None),
    "root": (lambda: functional(lambda x: ops.sqrt(x) / 16.0), None),
    "square": (lambda: functional(lambda x: ops.square(x) / 255.0), None),
    "logarithm": (lambda: functional(lambda x: ops.log1p(x)), None),
    "cut off": (lambda: functional(lambda x: ops.clip(x, 0.0, 1.0) * 255.0), None),
    "each image by its own mean": (
        lambda: functional(
            lambda x: (x - ops.mean(x, axis=(1, 2, 3), keepdims=True)) / ops.std(x, axis=(1, 2, 3), keepdims=True)
        ),
        None,
    ),
    "two branches of different scales": (
        lambda: two_branches(layers.Rescaling(1 / 255), layers.Rescaling(2.0, -1.0)),
        None,
    ),
    "two branches, one with nothing": (
        lambda: two_branches(layers.Rescaling(1 / 255), layers.Activation("linear")),
        None,
    ),
    "a rescaling of unusual numbers": (lambda: sequential(layers.Rescaling(30.0)), None),
}


@functools.cache
def made(name):
    keras.utils.set_random_seed(1)
    return MODELS[name][0]()


def gathered(model, size=None) -> evidence.Evidence:
    ready = predictor.load(model, None, size)
    return evidence.gather(ready.function, ready.input.size)


def exported(model, folder) -> str:
    path = str(folder / "exported")
    model.export(path, verbose=False)
    return path


class Served(tf.Module):
    """Of the Keras model only the variables are kept: as a whole it could not be saved with seeds inside."""

    def __init__(self, model, shape, dtype="float32"):
        super().__init__()
        self.kept = [variable.value for variable in model.variables]
        spec = tf.TensorSpec((None, *shape), dtype, name="pixels")
        self.serve = tf.function(lambda pixels: {"scores": model(pixels, training=False)}, input_signature=[spec])


def saved_as_module(model, folder) -> str:
    path = str(folder / "module")
    module = Served(model, model.input_shape[1:], model.inputs[0].dtype)
    tf.saved_model.save(module, path, signatures=module.serve)
    return path


@pytest.mark.parametrize("name", MODELS)
def test_a_keras_model_shows_its_scale(name):
    assert gathered(made(name)).scale == MODELS[name][1]


# `Model.export` of Keras leaves random layers at work: such an export is refused.
AUGMENTING = {
    "augmentation, then rescaling", "rescaling, then augmentation", "nested, rescaling inside", "nothing, nested",
}  # fmt: skip
# Their arithmetic is in other models of the table too; saving takes its time.
ALIKE = {
    "two rescalings",
    "rescaling from 0..1 to 0..255",
    "rescaling from -1..1 to 0..1",
    "normalization adapted to 0..1",
    "batch normalization of 0..1",
    "rescaling, then padding",
    "division written out",
    "half floats",
    "arithmetic written out",
    "grey repeated",
    "rescaling, dense only",
    "cropping, then rescaling",
    "preprocess_input of mobilenet",
    "normalization after rescaling",
    "padding only",
    "untouched batch normalization",
    "square",
    "logarithm",
}
SAVED = [name for name in MODELS if name not in ALIKE]


@pytest.mark.parametrize("name", [name for name in SAVED if name not in AUGMENTING])
def test_an_export_of_keras_shows_the_same_scale(name, tmp_path):
    assert gathered(exported(made(name), tmp_path)).scale == MODELS[name][1]


@pytest.mark.parametrize("name", SAVED)
def test_a_module_with_a_signature_shows_the_same_scale(name, tmp_path):
    assert gathered(saved_as_module(made(name), tmp_path)).scale == MODELS[name][1]


class Plain(tf.Module):
    """TensorFlow without Keras, as other programs save their models."""

    def __init__(self, prepare):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal((3, 3, 3, 4), (1, 2)))
        self.mean = tf.Variable([123.675, 116.28, 103.53])
        self.prepare = prepare

    @tf.function(input_signature=[tf.TensorSpec((None, 12, 12, 3), name="image")])
    def serve(self, image):
        maps = tf.nn.conv2d(self.prepare(self, image), self.kernel, 2, "SAME")
        return {"scores": tf.nn.softmax(tf.reduce_mean(maps, (1, 2)))}


PLAIN = {
    "divided": (lambda _module, x: x / 255, RAW),
    "divided and moved": (lambda _module, x: x * (1 / 127.5) - 1.0, RAW),
    "a variable subtracted": (lambda module, x: (x - module.mean) / 58.0, RAW),
    "of 0..1": (lambda _module, x: 2.0 * x - 1.0, UNIT),
    "in a function of its own": (tf.function(lambda _module, x: x / 255), RAW),
    "moved into a byte and back": (lambda _module, x: tf.cast(tf.cast(x, tf.uint8), tf.float32) / 255, RAW),
    "resized": (lambda _module, x: tf.image.resize(x, (20, 20)) / 255, RAW),
    "padded": (lambda _module, x: tf.pad(x / 255, [(0, 0), (1, 1), (1, 1), (0, 0)]), RAW),
    "turned": (lambda _module, x: tf.reverse(x, [-1]) - module_mean(), RAW),
    "nothing": (lambda _module, x: x, None),
    "rooted": (lambda _module, x: tf.sqrt(x), None),
}


def module_mean():
    return tf.constant([103.939, 116.779, 123.68])


@pytest.mark.parametrize("name", PLAIN)
def test_a_module_without_keras_shows_its_scale(name, tmp_path):
    prepare, expected = PLAIN[name]
    module = Plain(prepare)
    tf.saved_model.save(module, str(tmp_path), signatures=module.serve)
    assert gathered(str(tmp_path)).scale == expected


def test_an_open_image_size_does_not_hide_the_scale():
    model = sequential(layers.Rescaling(1 / 255), shape=(None, None, 3))
    assert gathered(model, (20, 30)).scale == RAW


def test_a_model_in_mixed_precision_shows_its_scale():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = sequential(layers.Rescaling(1 / 255))
    finally:
        keras.config.set_dtype_policy("float32")
    assert gathered(model).scale == RAW


# The applications: what they want is what their own `preprocess_input` makes of raw pixels.

APPLICATIONS = {
    "MobileNet": (keras.applications.mobilenet, "application"),
    "MobileNetV2": (keras.applications.mobilenet_v2, "application"),
    "MobileNetV3Small": (keras.applications.mobilenet_v3, "model"),
    "EfficientNetB0": (keras.applications.efficientnet, "model"),
    "ResNet50": (keras.applications.resnet, "application"),
    "ResNet50V2": (keras.applications.resnet_v2, "application"),
    "DenseNet121": (keras.applications.densenet, "application"),
    "NASNetMobile": (keras.applications.nasnet, "application"),
    "VGG16": (keras.applications.vgg16, "application"),
}


def application(name, **arguments):
    make = getattr(keras.applications, name)
    return make(weights=None, include_top=False, pooling="avg", input_shape=(96, 96, 3), **arguments)


def assert_prepares_as(scale, preprocess_input):
    pixels = ramp(255)
    expected = preprocess_input(pixels.copy())
    found = predict.rescaler(scale, tf.float32)(tf.constant(pixels))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


LARGE = ("DenseNet121", "NASNetMobile", "ResNet50", "ResNet50V2")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in APPLICATIONS])
def test_an_application_shows_the_range_of_its_preprocess_input(name):
    module, origin = APPLICATIONS[name]
    scale = gathered(application(name)).scale
    keras.backend.clear_session()
    gc.collect()
    assert scale is not None
    assert scale.origin == origin
    assert_prepares_as(scale.name, module.preprocess_input)


def transfer(*front):
    backbone = keras.applications.MobileNet(
        weights=None, include_top=False, pooling="avg", input_shape=(32, 32, 3), alpha=0.25
    )
    return keras.Sequential([keras.Input((32, 32, 3)), *front, backbone, layers.Dense(2, activation="softmax")])


TRANSFERRED = {
    "on its own": ([], Scale("symmetric", "application")),
    "after augmentation": ([layers.RandomFlip(), layers.RandomRotation(0.1)], Scale("symmetric", "application")),
    "after rescaling": ([layers.Rescaling(1 / 127.5, offset=-1)], RAW),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "way"),
    [(name, "keras") for name in TRANSFERRED] + [("on its own", "export"), ("after augmentation", "module")],
)
def test_an_application_inside_another_model_is_known_too(name, way, tmp_path):
    front, expected = TRANSFERRED[name]
    model = transfer(*front)
    saved = {"keras": lambda m, _: m, "export": exported, "module": saved_as_module}[way](model, tmp_path)
    assert gathered(saved).scale == expected


def test_an_application_after_its_own_preprocess_input_wants_raw_pixels():
    inputs = keras.Input((32, 32, 3))
    x = keras.applications.mobilenet.preprocess_input(inputs)
    backbone = keras.applications.MobileNet(weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.25)
    assert gathered(keras.Model(inputs, backbone(x))).scale == RAW


def test_a_renamed_application_is_not_guessed():
    model = keras.applications.MobileNet(
        weights=None, include_top=False, input_shape=(32, 32, 3), alpha=0.25, name="mine"
    )
    assert gathered(model).scale is None


def test_a_model_that_only_sounds_like_an_application_is_not_taken_for_it():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, body(inputs), name="my_resnet50_for_birds")
    assert gathered(model).scale is None


# The outputs.


def ending(make):
    inputs = keras.Input(SHAPE)
    return keras.Model(inputs, make(layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))))


ENDINGS = {
    "softmax": (lambda x: layers.Dense(3, activation="softmax")(x), "softmax"),
    "softmax as a layer": (lambda x: layers.Softmax()(layers.Dense(3)(x)), "softmax"),
    "softmax as an activation": (lambda x: layers.Activation("softmax")(layers.Dense(3)(x)), "softmax"),
    "softmax as an operation": (lambda x: ops.softmax(layers.Dense(3)(x)), "softmax"),
    "softmax, reshaped": (lambda x: layers.Reshape((3,))(layers.Dense(3, activation="softmax")(x)), "softmax"),
    "softmax, cast": (lambda x: ops.cast(layers.Dense(3, activation="softmax")(x), "float16"), "softmax"),
    "softmax, dropped out": (lambda x: layers.Dropout(0.5)(layers.Dense(3, activation="softmax")(x)), "softmax"),
    "sigmoid": (lambda x: layers.Dense(1, activation="sigmoid")(x), "sigmoid"),
    "sigmoid of several": (lambda x: layers.Dense(5, activation="sigmoid")(x), "sigmoid"),
    "sigmoid, flat": (lambda x: ops.squeeze(layers.Dense(1, activation="sigmoid")(x), -1), "sigmoid"),
    "linear": (lambda x: layers.Dense(3)(x), "linear"),
    "linear without bias": (lambda x: layers.Dense(3, use_bias=False)(x), "linear"),
    "logarithm of softmax": (lambda x: layers.Dense(3, activation="log_softmax")(x), "linear"),
    "relu": (lambda x: layers.Dense(3, activation="relu")(x), None),
    "tanh": (lambda x: layers.Dense(3, activation="tanh")(x), None),
    "swish": (lambda x: layers.Dense(3, activation="silu")(x), None),
    "hard sigmoid": (lambda x: layers.Dense(3, activation="hard_sigmoid")(x), None),
    "softmax, doubled": (lambda x: 2.0 * layers.Dense(3, activation="softmax")(x), None),
    "mean of two softmaxes": (
        lambda x: layers.average([layers.Dense(3, activation="softmax")(x) for _ in range(2)]),
        None,
    ),
    "unit vectors": (lambda x: layers.UnitNormalization()(layers.Dense(3)(x)), None),
    "nothing": (lambda x: x, None),
}


@pytest.mark.parametrize("name", ENDINGS)
def test_the_activation_of_an_output_is_told(name):
    make, expected = ENDINGS[name]
    assert list(gathered(ending(make)).activations.values()) == [expected]


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "linear", "relu"])
def test_the_activation_is_told_of_a_saved_model_too(name, tmp_path):
    make, expected = ENDINGS[name]
    model = ending(make)
    for path in (exported(model, tmp_path), saved_as_module(model, tmp_path)):
        assert list(gathered(path).activations.values()) == [expected]


def test_the_sum_of_two_softmaxes_is_not_called_linear():
    model = ending(lambda x: layers.add([layers.Dense(3, activation="softmax")(x) for _ in range(2)]))
    assert list(gathered(model).activations.values()) == [None]


def many_outputs():
    return ending(
        lambda x: {
            "kind": layers.Dense(3, activation="softmax")(x),
            "attributes": layers.Dense(4, activation="sigmoid")(x),
            "age": layers.Dense(1)(x),
            "embedding": layers.UnitNormalization()(x),
            "zoom": layers.Dense(2, activation="relu")(x),
        }
    )


def test_each_of_several_outputs_has_its_own_activation(tmp_path):
    expected = {"kind": "softmax", "attributes": "sigmoid", "age": "linear", "embedding": None, "zoom": None}
    model = many_outputs()
    assert gathered(model).activations == expected
    assert gathered(exported(model, tmp_path)).activations == expected


def test_several_outputs_in_a_list_have_each_its_own_activation():
    model = ending(
        lambda x: [
            layers.Dense(3, activation="softmax", name="zebra")(x),
            layers.Dense(4, name="ant")(x),
            layers.Dense(2, activation="sigmoid", name="mouse")(x),
        ]
    )
    assert gathered(model).activations == {"zebra": "softmax", "ant": "linear", "mouse": "sigmoid"}


def test_a_graph_that_cannot_be_looked_at_shows_nothing():
    class Unreadable:
        def __init__(self):
            self.structured_outputs = {"a": None, "b": None}

        @property
        def graph(self):
            raise ValueError("no graph")

    assert evidence.gather(Unreadable(), (4, 4)) == evidence.Evidence(None, {"a": None, "b": None})


def test_looking_at_a_model_does_not_change_what_it_says():
    model = sequential(layers.Rescaling(1 / 255), layers.BatchNormalization())
    ready = predictor.load(model, None, None)
    pixels = tf.constant(ramp(255)[:5])
    before = next(iter(ready.function(pixels).values())).numpy()
    evidence.gather(ready.function, ready.input.size)
    np.testing.assert_array_equal(next(iter(ready.function(pixels).values())), before)
    assert np.ptp(before, axis=0).max() > 0
