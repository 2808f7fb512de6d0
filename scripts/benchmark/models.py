"""The models: they cost what trained ones cost, and their scores differ from image to image.

The batch normalizations of an untrained network do nothing, so an optimizer deletes them, and its scores are nearly
the same for every image; so theirs and the last layer's weights are drawn at random here, and kept from dying out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmark import images


def mobilenet() -> Any:
    """MobileNetV2 behind its rescaling, for 224x224 pixels, a thousand classes."""
    import keras

    keras.utils.set_random_seed(0)
    pixels = keras.Input((224, 224, 3))
    network = keras.applications.MobileNetV2(weights=None)
    some = np.stack([*images.crops(224, 224, 32)]).astype(np.float32)
    _as_if_trained(network, some / 127.5 - 1)
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


def _as_if_trained(network: Any, pixels: Any = None) -> None:
    """Draw the weights anew where untrained ones do nothing; take statistics of images, so that no channel dies out."""
    from keras import layers

    rng = np.random.default_rng(0)
    norms = [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]
    for norm in norms:
        norm.gamma.assign(rng.uniform(0.7, 1.5, norm.gamma.shape))
        norm.beta.assign(rng.normal(0, 0.3, norm.beta.shape))
        norm.momentum = 0  # of what was before
    if norms:
        network(pixels, training=True)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([rng.normal(0, 0.2, kernel.shape), bias])
