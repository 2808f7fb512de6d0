"""State that a model writes, and random numbers that reach its outputs, as its graph shows them."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfzip import effects, predictor
from tfzip.errors import ModelError

SHAPE = (6, 5, 3)
PIXELS = np.random.default_rng(0).uniform(0, 255, (8, *SHAPE)).astype(np.float32)


def traced(function):
    return tf.function(function, input_signature=[tf.TensorSpec((None, *SHAPE))]).get_concrete_function()


def varies(function):
    """Whether the outputs of a function differ from call to call, tried a few times."""
    found = {np.asarray(tf.nest.flatten(function(tf.constant(PIXELS)))[0]).tobytes() for _ in range(6)}
    return len(found) > 1


variable = tf.Variable([3, 4])
generator = tf.random.Generator.from_seed(1)


def noisy_seeded_by_variable(x):
    variable.assign_add([1, 1])
    return x + tf.random.stateless_normal(tf.shape(x), variable)


def flipping(x):
    return tf.map_fn(tf.image.random_flip_left_right, x)


def behind_a_condition(x):
    return tf.cond(tf.reduce_mean(x) > 0, lambda: x + tf.random.normal(tf.shape(x)), lambda: x)


def picked(x):
    return tf.gather(x, tf.random.shuffle(tf.range(tf.shape(x)[0])))


RANDOM = {
    "uniform": lambda x: x * tf.random.uniform(tf.shape(x)),
    "normal": lambda x: x + tf.random.normal(tf.shape(x)),
    "dropout": lambda x: tf.nn.dropout(x, 0.5),
    "generator": lambda x: x + generator.normal(tf.shape(x)),
    "shuffle": picked,
    "categorical": lambda x: tf.random.categorical(tf.reshape(x, (tf.shape(x)[0], 90)) / 255, 1),
    "in a loop": flipping,
    "behind a condition of the pixels": behind_a_condition,
    "seeded by a variable": noisy_seeded_by_variable,
}

NOT_RANDOM = {
    "nothing": lambda x: x * 2,
    "dropout of nothing": lambda x: tf.nn.dropout(x, 0.0),
    "a constant seed": lambda x: x + tf.random.stateless_normal((6, 5, 3), [1, 2]),
    "a constant seed, of the old kind": lambda x: (
        x + tf.raw_ops.StatelessRandomNormal(shape=(6, 5, 3), seed=tf.constant([1, 2]))
    ),
    "not on the way to the output": lambda x: [x * 2, tf.random.normal((3,))][0],
    "switched off": lambda x: tf.cond(tf.constant(False), lambda: tf.nn.dropout(x, 0.5), lambda: x),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_numbers_on_the_way_to_the_output_are_found(name):
    function = traced(RANDOM[name])
    assert varies(function), "the function must be random"
    assert effects.random_operation(function)


@pytest.mark.parametrize("name", NOT_RANDOM)
def test_where_the_output_does_not_depend_on_them_none_are_found(name):
    function = traced(NOT_RANDOM[name])
    assert not varies(function)
    assert effects.random_operation(function) is None


def regularized(*front):
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            *front,
            layers.Rescaling(1 / 255),
            layers.GaussianNoise(1.0),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(4),
        ]
    )


def test_dropout_noise_and_augmentation_of_keras_are_off_where_tfzip_calls_the_model(tmp_path):
    model = regularized(layers.RandomFlip(), layers.RandomZoom(0.3))
    model.save(tmp_path / "model.keras")
    for given in (model, str(tmp_path / "model.keras")):
        assert not varies(predictor.load(given).function)


def test_dropout_in_a_saved_model_made_for_inference_is_not_refused(tmp_path):
    regularized().export(tmp_path / "model", verbose=False)
    ready = predictor.load(str(tmp_path / "model"))
    assert not varies(ready.function)
    assert not ready.stateful


def exported_with_augmentation(folder):
    regularized(layers.RandomFlip()).export(folder, verbose=False)


def called_in_training(folder):
    module = tf.Module()
    spec = [tf.TensorSpec((None, *SHAPE), name="photo")]
    module.serve = tf.function(lambda photo: tf.nn.dropout(tf.reduce_mean(photo, (1, 2)), 0.5), input_signature=spec)
    tf.saved_model.save(module, folder, signatures=module.serve)


@pytest.mark.parametrize("save", [exported_with_augmentation, called_in_training])
def test_a_saved_model_that_is_random_is_refused_with_where_and_what_to_do(save, tmp_path):
    path = str(tmp_path / "model")
    save(path)
    served = tf.saved_model.load(path).signatures["serving_default"]
    if not varies(lambda pixels: served(**dict.fromkeys(served.structured_input_signature[1], pixels))):
        pytest.skip("this Keras exports without augmentation")
    with pytest.raises(ModelError, match=r"model: .*random") as caught:
        predictor.load(path)
    assert "augmentation" in str(caught.value)
    assert "PartitionedCall" not in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize("control_flow_v2", [False, True], ids=["Switch", "If"])
def test_dropout_that_tensorflow_1_switches_off_is_not_refused(control_flow_v2, tmp_path):
    """As Keras saved for serving then: a placeholder that is False unless someone feeds it."""
    v1 = tf.compat.v1
    before = v1.control_flow_v2_enabled()
    (v1.enable_control_flow_v2 if control_flow_v2 else v1.disable_control_flow_v2)()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            pixels = v1.placeholder(tf.float32, (None, *SHAPE), "photo")
            learning = v1.placeholder_with_default(False, (), "keras_learning_phase")
            kernel = v1.get_variable("kernel", (6 * 5 * 3, 3), initializer=v1.glorot_uniform_initializer(1))
            flat = tf.reshape(pixels, (-1, 6 * 5 * 3))
            kept = v1.cond(learning, lambda: tf.nn.dropout(flat, 0.5), lambda: tf.identity(flat))
            scores = tf.nn.softmax(tf.matmul(kept, kernel) / 100)
            session.run(v1.global_variables_initializer())
            expected = session.run(scores, {pixels: PIXELS})
            v1.saved_model.simple_save(session, str(tmp_path / "old"), {"photo": pixels}, {"kind": scores})
    finally:
        (v1.enable_control_flow_v2 if before else v1.disable_control_flow_v2)()
    ready = predictor.load(str(tmp_path / "old"))
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(ready.function(tf.constant(PIXELS))["kind"], expected, rtol=1e-5)
    assert not ready.stateful


# State.

table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.int64, 0)
normalization = keras.layers.BatchNormalization()
normalization.build((None, *SHAPE))


def inserting(x):
    table.insert(tf.constant([1], tf.int64), tf.constant([2], tf.int64))
    return x


def in_a_branch(x):
    return tf.cond(tf.reduce_mean(x) > 0, lambda: x * tf.cast(variable.assign_add([1, 1])[0], tf.float32), lambda: x)


WRITING = {
    "a counter": lambda x: x + tf.cast(variable.assign_add([1, 1])[0], tf.float32),
    "beside the outputs": lambda x: [variable.assign([1, 1]), x][1],
    "in a branch": in_a_branch,
    "batch normalization in training": lambda x: normalization(x, training=True),
    "a table": inserting,
    "Python": lambda x: tf.ensure_shape(tf.py_function(lambda y: y, [x], tf.float32), x.shape),
}

READING = {
    "nothing": lambda x: x * 2,
    "a variable": lambda x: x * tf.cast(variable[0], tf.float32),
    "batch normalization": lambda x: normalization(x, training=False),
    "a table": lambda x: tf.cast(table.lookup(tf.cast(x, tf.int64)), tf.float32),
}


@pytest.mark.parametrize("name", WRITING)
def test_what_writes_state_is_found(name):
    assert effects.writes_state(traced(WRITING[name]))


@pytest.mark.parametrize("name", READING)
def test_what_only_reads_is_not(name):
    assert not effects.writes_state(traced(READING[name]))
