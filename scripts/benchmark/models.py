"""The models: they cost what trained ones cost, and their scores differ from image to image.

The batch normalizations of an untrained network do nothing, so an optimizer deletes them, and its scores are nearly
the same for every image; so all of that is drawn at random here.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def mobilenet() -> Any:
    """MobileNetV2 behind its rescaling, for 224x224 pixels, a thousand classes."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((224, 224, 3))
    network = keras.applications.MobileNetV2(weights=None)
    _as_if_trained(network)
    return keras.Model(pixels, network(keras.layers.Rescaling(1 / 127.5, -1)(pixels)))


def tiny() -> Any:
    """A small convolutional network for 32x32 pixels, ten classes."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    _as_if_trained(network)
    return network


def _as_if_trained(network: Any) -> None:
    from keras import layers

    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            size = layer.gamma.shape
            gamma, variance = rng.uniform(0.7, 1.5, size), rng.uniform(0.2, 1, size)
            layer.set_weights([gamma, rng.normal(0, 0.3, size), rng.normal(0, 0.3, size), variance])
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([rng.normal(0, 0.2, kernel.shape), bias])
