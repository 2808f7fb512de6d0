"""Real images and trained models, made once a session."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import io
import shutil
from pathlib import Path

import numpy as np
import pytest


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the slow tests too")
    parser.addoption("--browser", action="store_true", help="run the tests in Chromium too")


def pytest_collection_modifyitems(config, items):
    for kind in ("slow", "browser"):
        if not config.getoption(f"--{kind}"):
            for item in items:
                if kind in item.keywords:
                    item.add_marker(pytest.mark.skip(reason=f"--{kind} runs it"))


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """All 1,797 real digits of scikit-learn as PNG files in class folders: the folder, images [N, 8, 8, 1], classes."""
    from sklearn.datasets import load_digits

    from tfzip import demo

    data = load_digits()
    images = np.round(data.images[..., np.newaxis] * (255 / 16)).astype(np.uint8)
    folder = tmp_path_factory.mktemp("digits")
    demo.write_pngs(str(folder), images, data.target)
    return folder, images, data.target


@pytest.fixture(scope="session")
def digits_model(digits):
    """The demo's network, trained on some of the digits."""
    import tensorflow as tf

    from tfzip import demo

    _, images, classes = digits
    known = tf.data.Dataset.from_tensor_slices((images[:300], classes[:300])).shuffle(300, 0)
    return demo.trained(known, seed=0, updates=300)


@pytest.fixture(scope="session")
def digits_files(digits_model, tmp_path_factory):
    """The same network as a `.keras` file and as a SavedModel folder."""
    folder = tmp_path_factory.mktemp("models")
    digits_model.save(folder / "digits.keras")
    digits_model.export(folder / "digits_saved", verbose=False)
    return {"keras": str(folder / "digits.keras"), "saved_model": str(folder / "digits_saved")}


def _photographs():
    """Crops of real photographs, of many sizes, shapes and files: the name's suffix, bytes."""
    from PIL import Image
    from skimage import data as skimage_data
    from sklearn.datasets import load_sample_images

    pictures = [Image.fromarray(picture) for picture in load_sample_images().images]
    pictures += [Image.open(Path(skimage_data.__file__).parent / name) for name in _SKIMAGE]
    savings = [
        (".jpg", "RGB", {"format": "JPEG", "quality": 90}),
        (".JPG", "RGB", {"format": "JPEG", "quality": 60, "progressive": True}),
        (".jpeg", "L", {"format": "JPEG", "quality": 95}),
        (".png", "RGB", {"format": "PNG"}),
        (".png", "RGBA", {"format": "PNG"}),
        (".png", "P", {"format": "PNG"}),
        (".gif", "P", {"format": "GIF"}),
        (".bmp", "RGB", {"format": "BMP"}),
    ]
    rng = np.random.default_rng(7)
    for number in range(320):
        picture = pictures[number % len(pictures)]
        width, height = (int(rng.integers(20, min(side, 300))) for side in picture.size)
        left, top = (
            int(rng.integers(0, have - want)) for have, want in zip(picture.size, (width, height), strict=True)
        )
        suffix, mode, how = savings[int(rng.integers(len(savings)))]
        file = io.BytesIO()
        picture.crop((left, top, left + width, top + height)).convert("RGB").convert(mode).save(file, **how)
        yield suffix, file.getvalue()


_SKIMAGE = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "hubble_deep_field.jpg")


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """A folder of 320 real photographs of different sizes and formats, in folders two deep."""
    folder = tmp_path_factory.mktemp("photographs")
    for number, (suffix, encoded) in enumerate(_photographs()):
        path = folder / f"album {number % 3}" / f"{number % 2}" / f"{number:03d}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)
    return folder


@pytest.fixture(scope="session")
def photographs_model():
    """A convolutional network with random weights, made large so that its scores differ widely between photographs."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    large = keras.initializers.RandomNormal(stddev=0.5, seed=3)
    return keras.Sequential(
        [
            layers.Input((48, 64, 3)),
            layers.Rescaling(1 / 127.5, -1),
            layers.Conv2D(8, 5, strides=3, activation="relu", kernel_initializer=large),
            layers.Conv2D(16, 3, strides=2, activation="tanh", kernel_initializer=large),
            layers.Flatten(),
            layers.Dense(7, activation="softmax", kernel_initializer=large),
        ]
    )


@pytest.fixture
def folder(photographs, photographs_model, tmp_path, monkeypatch):
    """A folder with `photos/` and `classifier.keras`, where the reader is."""
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(sorted(photographs.rglob("*.jpg"))[:24]):
        target = tmp_path / "photos" / ("cats", "dogs")[number % 2] / f"{number // 2}.jpg"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    photographs_model.save(tmp_path / "classifier.keras")
    shutil.copy(tmp_path / "classifier.keras", tmp_path / "better.keras")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def operations(dataset):
    """The types of all operations in a dataset's graph and in every function below it."""
    import tensorflow as tf

    serialized = tf.raw_ops.DatasetToGraphV2(input_dataset=dataset._variant_tensor, external_state_policy=1)
    graph = tf.compat.v1.GraphDef.FromString(serialized.numpy())
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes}
