"""A model with constants in place of its variables gives what the model gives, or is left as it is."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tfzip import frozen, graph, predictor

PIXELS = np.random.default_rng(0).uniform(0, 255, (8, 32, 24, 3)).astype(np.float32)
WIDE = keras.initializers.RandomNormal(stddev=0.4, seed=1)


def settled(model):
    """A Keras model whose normalizations do something, as those of a trained one do."""
    rng = np.random.default_rng(2)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            count = layer.gamma.shape[0]
            layer.set_weights([rng.uniform(low, high, count) for low, high in [(0.5, 2), (-1, 1), (-1, 1), (0.2, 2)]])
    return model


def convolutional():
    pixels = keras.Input((32, 24, 3))
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    for depthwise in (False, True, False):
        kind = layers.DepthwiseConv2D if depthwise else layers.Conv2D
        x = kind(*(() if depthwise else (8,)), kernel_size=3, strides=2, use_bias=False)(x)
        x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(x))
    scores = layers.Dense(5, activation="softmax", kernel_initializer=WIDE, name="scores")(x)
    return settled(keras.Model(pixels, {"scores": scores, "features": x}))


class Module(tf.Module):
    """A callable with variables of its own: integers, halves, and ragged outputs."""

    def __init__(self):
        self.table = tf.Variable(np.arange(10, 266), dtype=tf.int64)
        self.weights = tf.Variable(np.random.default_rng(3).normal(size=(3, 4)), dtype=tf.float16)

    @tf.function(input_signature=[tf.TensorSpec((None, 32, 24, 3))])
    def __call__(self, pixels):
        means = tf.reduce_mean(pixels, (1, 2))
        ids = tf.gather(self.table.read_value(), tf.cast(means[:, 0], tf.int32))
        halves = tf.matmul(tf.cast(means / 255, tf.float16), self.weights)
        lists = tf.RaggedTensor.from_row_lengths(tf.range(36), tf.range(1, 9)[: tf.shape(pixels)[0]])
        return {"ids": ids, "halves": halves, "lists": lists, "names": tf.strings.as_string(ids)}


def saved(folder):
    convolutional().export(str(folder), verbose=False)
    return str(folder)


FREEZABLE = {
    "a Keras model": lambda _: convolutional(),
    "a SavedModel": saved,
    "a module": lambda _: Module(),
}


@pytest.mark.parametrize("made", FREEZABLE.values(), ids=FREEZABLE)
def test_a_frozen_model_gives_the_same(made, tmp_path):
    ready = predictor.load(made(tmp_path / "model"))
    fixed = predictor.freeze(ready)
    assert fixed.frozen
    assert not ready.frozen
    assert not fixed.function.captured_inputs
    assert fixed.outputs == ready.outputs
    expected, found = ready.function(tf.constant(PIXELS)), fixed.function(tf.constant(PIXELS))
    for name, output in expected.items():
        rows = {str(np.asarray(row).tolist()) for row in output}
        assert len(rows) > 3, name
        if isinstance(output, tf.RaggedTensor):
            assert found[name].to_list() == output.to_list()
        elif output.dtype.is_floating:
            np.testing.assert_allclose(
                found[name], output, rtol=2e-3 if output.dtype == tf.float16 else 1e-5, atol=1e-5
            )
        else:
            assert found[name].numpy().tolist() == output.numpy().tolist()


def looking_up():
    table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([0, 1, 2], [7, 8, 9]), -1)
    return lambda pixels: table.lookup(tf.cast(tf.reduce_mean(pixels, (1, 2, 3)), tf.int32) % 3)


def looping():
    steps = tf.Variable(np.float32(1.5))
    return lambda pixels: tf.while_loop(
        lambda x: tf.reduce_max(x) < 1000, lambda x: [x * steps + 1], [tf.reduce_mean(pixels, (1, 2))]
    )[0]


def counting():
    count = tf.Variable(0.0)
    return lambda pixels: tf.reduce_mean(pixels, (1, 2)) + count.assign_add(1)


UNFREEZABLE = {"a hash table": looking_up, "a variable in a loop": looping, "state": counting}


def traced(call):
    spec = [tf.TensorSpec((None, 32, 24, 3))]
    return tf.function(call, input_signature=spec)


@pytest.mark.parametrize("made", UNFREEZABLE.values(), ids=UNFREEZABLE)
def test_what_cannot_be_frozen_is_left_as_it_is(made):
    ready = predictor.load(traced(made()))
    assert predictor.freeze(ready) is ready


def test_a_model_of_strings_is_left_as_it_is():
    def call(encoded):
        return {"sizes": tf.cast(tf.strings.length(encoded), tf.float32)}

    ready = predictor.load(tf.function(call, input_signature=[tf.TensorSpec((None,), tf.string)]))
    assert predictor.freeze(ready) is ready


def test_without_the_private_step_of_tensorflow_the_model_is_left_as_it_is(monkeypatch):
    ready = predictor.load(convolutional())

    def missing(_):
        raise ImportError("it has moved")

    monkeypatch.setattr(graph, "inline", missing)
    assert predictor.freeze(ready) is ready


NAN = float("nan")
AGREEING = [
    ({"a": tf.constant([1.0, NAN])}, {"a": tf.constant([1.0, NAN])}, True),
    ({"a": tf.constant([0.5])}, {"a": tf.constant([0.500005])}, True),
    ({"a": tf.constant([0.5])}, {"a": tf.constant([0.50003])}, False),
    ({"a": tf.constant([1000.0])}, {"a": tf.constant([1000.005])}, True),
    ({"a": tf.constant([1000.0])}, {"a": tf.constant([1000.05])}, False),
    ({"a": tf.constant([NAN])}, {"a": tf.constant([0.0])}, False),
    ({"a": tf.constant([1])}, {"a": tf.constant([2])}, False),
    ({"a": tf.constant(["x"])}, {"a": tf.constant(["x"])}, True),
    ({"a": tf.constant(["x"])}, {"a": tf.constant(["y"])}, False),
    ({"a": tf.constant([[1.0]])}, {"a": tf.constant([[1.0], [1.0]])}, False),
    ({"a": tf.constant([1.0]), "b": tf.constant([1])}, {"a": tf.constant([1.0]), "b": tf.constant([0])}, False),
    ({"a": tf.ragged.constant([[1], [2, 3]])}, {"a": tf.ragged.constant([[1], [2, 3]])}, True),
    ({"a": tf.ragged.constant([[1], [2, 3]])}, {"a": tf.ragged.constant([[1, 2], [3]])}, False),
    ({"a": tf.constant([1.0], tf.bfloat16)}, {"a": tf.constant([1.0], tf.bfloat16)}, True),
    ({"a": tf.constant([1.0], tf.bfloat16)}, {"a": tf.constant([2.0], tf.bfloat16)}, False),
]


@pytest.mark.parametrize(("one", "other", "agreeing"), AGREEING)
def test_what_counts_as_the_same(one, other, agreeing):
    assert frozen.agree(one, other) is agreeing
    assert frozen.agree(other, one) is agreeing
