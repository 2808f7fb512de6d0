"""The main job on real data: handwritten digits, a model trained on some of them, the others exported."""

from __future__ import annotations

import os
import shutil
from typing import Any

import numpy as np

from tfzip import terminal
from tfzip.errors import OutputExistsError, UsageError
from tfzip.export import export

_TRAINING = 300
_EPOCHS = 30
_MARK = "made-by-tfzip-demo.txt"


def run(folder: str, command: str) -> str:
    """Write digits, model and export below `folder`; return what to say about them; `command` is how tfzip was called.

    The data are the 1,797 digits, 8 by 8 pixels, that scikit-learn ships (E. Alpaydin and C. Kaynak, Optical
    Recognition of Handwritten Digits, UCI Machine Learning Repository, 1998). The first 300 train a small convolutional
    network; the other 1,497 are exported, their true class known from their folder.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise UsageError("the demo's digits come with scikit-learn: pip install 'tfzip[demo]'") from None
    _claim(folder)
    digits = load_digits()
    pixels = np.round(digits.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    images, model, out = (os.path.join(folder, name) for name in ("digits", "digits.keras", "labelled"))
    print(f"{len(pixels) - _TRAINING} digits as PNG files: {images}/", flush=True)
    write_pngs(images, pixels[_TRAINING:], digits.target[_TRAINING:])
    print(f"training a small network on {_TRAINING} others: {model}", flush=True)
    train(pixels[:_TRAINING], digits.target[:_TRAINING]).save(model)
    print(f"\n$ {command} export {images} --model {model} --out {out} --source-labels folder", flush=True)
    finished = export(images, model, out, source_labels="folder")
    assert finished is not None  # not a dry run
    right = float(np.mean(finished.metadata["label"] == finished.metadata["truth"]))
    look = [
        "",
        f"{right:.1%} of the predictions are the true class. Now look at:",
        f"  {command} get {out} {finished[0].filename}",
        f"  {command} verify {out}",
        f"  unzip -p {out}/index.zip metadata.csv | head",
    ]
    return "\n".join([terminal.summary(finished, command), *look])


def _claim(folder: str) -> None:
    """Make the folder, or empty it if an earlier demo made it."""
    mark = os.path.join(folder, _MARK)
    if os.path.exists(mark):
        shutil.rmtree(folder)
    elif os.path.exists(folder) and (not os.path.isdir(folder) or os.listdir(folder)):
        raise OutputExistsError(f"{folder} exists and was not made by the demo; give another with --to")
    os.makedirs(folder, exist_ok=True)
    with open(mark, "w", encoding="utf-8") as file:
        file.write("This folder was made by `tfzip demo`, which empties it when it runs again.\n")


def write_pngs(folder: str, images: Any, classes: Any) -> None:
    """Write images [N, height, width, 1] of uint8 as `folder/CLASS/NNNN.png`."""
    import tensorflow as tf

    for number, (image, label) in enumerate(zip(images, classes, strict=True)):
        os.makedirs(os.path.join(folder, str(label)), exist_ok=True)
        with open(os.path.join(folder, str(label), f"{number:04d}.png"), "wb") as file:
            file.write(tf.io.encode_png(image).numpy())


def train(images: Any, classes: Any) -> Any:
    """A small Keras classifier of images [N, height, width, 1] in 0..255, trained in a few seconds."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input(images.shape[1:]),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, padding="same", activation="relu"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images, classes, epochs=_EPOCHS, batch_size=32, verbose=0)
    return model
