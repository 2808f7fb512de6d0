"""What `tfzip select` wrote trains a model by plain `tf.data`; exported with it, the original truth judges it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import cli, demo

WITHOUT_TFZIP = """
import runpy, sys
sys.modules["tfzip"] = None  # whoever imports it now gets an ImportError
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Given(NamedTuple):
    """Images that a teacher never saw: in class folders, and as arrays."""

    folder: Path
    images: Any  # uint8 [N, height, width, 1]; that of FOLDER/CLASS/0007.png is the seventh
    classes: Any  # names [N]
    teacher: str


@pytest.fixture(scope="session")
def script(tmp_path_factory):
    """The README's own, in a folder of its own."""
    readme = Path(tfzip.__file__).parents[1] / "README.md"
    if not readme.exists():
        pytest.skip("the README is in a checkout only")
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL) if "argv" in block)
    path = tmp_path_factory.mktemp("script") / "train.py"
    path.write_text(block)
    return path


@pytest.fixture(scope="session")
def other_digits(digits, digits_files, tmp_path_factory):
    """The digits of scikit-learn, but for the 300 that trained the teacher."""
    folder = tmp_path_factory.mktemp("other_digits")
    images, classes = digits[1][300:], digits[2][300:].astype(str)
    demo.write_pngs(str(folder), images, classes)
    return Given(folder, images, classes, digits_files["keras"])


@pytest.fixture(scope="session")
def faces(tmp_path_factory):
    """The 200 photographs of scikit-image's LFW subset, 100 of them faces, but for 40 that train the teacher."""
    import keras

    (package,) = importlib.util.find_spec("skimage").submodule_search_locations
    images = np.round(np.load(Path(package) / "data" / "lfw_subset.npy") * 255).astype(np.uint8)[..., np.newaxis]
    labels = np.repeat([0, 1], 100)
    known = np.arange(200) % 5 == 0
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(32, activation="relu")]
    teacher = keras.Sequential([*layers, keras.layers.Dense(2, activation="softmax")])
    teacher.compile("adam", "sparse_categorical_crossentropy")
    teacher.fit(images[known], labels[known], epochs=40, batch_size=8, verbose=0)
    folder = tmp_path_factory.mktemp("faces")
    teacher.save(folder / "teacher.keras")
    others, classes = images[~known], np.array(["face", "other"])[labels[~known]]
    demo.write_pngs(str(folder / "images"), others, classes)
    return Given(folder / "images", others, classes, str(folder / "teacher.keras"))


def train(script, folder, classes, student):
    """Run the script where there is no tfzip."""
    command = [sys.executable, "-c", WITHOUT_TFZIP, str(script), folder, str(classes), student]
    done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def said_by_hand(student, images, names):
    """The classes that a model says of arrays, resized as a plain `tf.data` training resizes."""
    import keras

    pixels = tf.image.resize(np.repeat(images, 3, axis=3), (32, 32))
    return names[keras.models.load_model(student).predict(pixels, verbose=0).argmax(axis=1)]


def test_the_script_has_twenty_lines_and_runs_where_there_is_no_tfzip(script, tmp_path):
    lines = [line for line in script.read_text().splitlines() if line.strip()]
    assert 10 < len(lines) <= 20
    path = tmp_path / "with.py"
    path.write_text("import tfzip\n")
    done = subprocess.run([sys.executable, "-c", WITHOUT_TFZIP, str(path)], capture_output=True, text=True)
    assert "ModuleNotFoundError: import of tfzip" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("images", ["other_digits", "faces"])
def test_plain_tf_data_trains_a_student_that_the_truth_judges(images, script, tmp_path, capsys, request):
    given = request.getfixturevalue(images)
    names, student = np.unique(given.classes), str(tmp_path / "student.keras")
    out = {name: str(tmp_path / name) for name in ("labelled", "pseudo", "again")}
    labelled = tfzip.export(str(given.folder), given.teacher, out["labelled"], quiet=True, source_labels="folder")
    pseudo = tfzip.select(labelled, out["pseudo"], min_confidence=0.8, balance=True)
    assert 0.3 * len(labelled) < len(pseudo) < len(labelled) == len(given.images)

    train(script, out["pseudo"], len(names), student)
    assert cli.main(["export", out["pseudo"], "--model", student, "--out", out["again"], "--quiet"]) == 0

    again = tfzip.open(out["again"])
    rows = [int(Path(record.filename).stem) for record in again.records()]
    truth = given.classes[rows]
    assert [record.truth.text for record in again.records()] == truth.tolist()
    accuracy = np.mean(said_by_hand(student, given.images[rows], names) == truth)
    found = tfzip.evaluate(again)
    assert (found.images, found.accuracy) == (len(pseudo), accuracy)
    assert accuracy > 1 - 0.3 * (1 - 1 / len(names)), "far better than chance"
    assert cli.main(["inspect", out["again"]]) == 0
    assert re.search(rf"^  right +{accuracy:.1%}$", capsys.readouterr().out, re.MULTILINE)
