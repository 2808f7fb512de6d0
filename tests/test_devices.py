"""A model on devices of its own, fed by the graph, gives what it gives inside the graph. Here the devices are CPUs."""

import json
import os
import subprocess
import sys

import killed
import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import devices
from tfzip.errors import BrokenSourceError, UsageError
from tfzip.options import Options


@pytest.fixture(scope="module")
def photos(digits, tmp_path_factory):
    """Digits, and among them what fails: no images, and nothing at all for a whole batch."""
    folder = tmp_path_factory.mktemp("photos")
    for number, path in enumerate(sorted(digits[0].rglob("*.png"))[::3]):
        broken = number in (5, 17) or 64 <= number < 80
        (folder / f"{number:03d}.png").write_bytes(b"no image" if broken else path.read_bytes())
    return folder


ON_TWO = """
import sys, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfzip import cli
sys.exit(cli.main(sys.argv[1:]))
"""


def exported(photos, model, out, names, *more):
    """Export in a process that has two CPUs as devices, each operation on one thread, as the command line has it."""
    command = [
        "export",
        str(photos),
        "--model",
        model,
        "--out",
        str(out),
        "--batch-size",
        "16",
        "--shard-records",
        "150",
    ]
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO, *command, "--devices", names, *more],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("names", ["CPU:0", pytest.param("cpu:1,CPU:0", marks=pytest.mark.slow)])
def test_every_file_is_the_same_as_when_the_model_is_in_the_graph(photos, digits_files, tmp_path, names):
    inside, beside = tmp_path / "inside", tmp_path / "beside"
    said = [exported(photos, digits_files["keras"], out, on) for out, on in ((inside, "cpu"), (beside, names))]
    assert ["the model runs on" in text for text in said] == [False, True]
    assert killed.contents(beside) == killed.contents(inside)
    assert [json.loads((out / "run.json").read_text())["devices"] for out in (inside, beside)] == [
        [],
        names.upper().split(","),
    ]
    export = tfzip.open(str(beside))
    assert len(export.failures) == 18
    assert len(np.unique(export.metadata["scores"].round(4), axis=0)) > len(export) / 2


def test_a_model_that_keeps_state_gets_its_batches_in_order(photos, tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
        def __call__(self, pixels):
            before = self.count.assign_add(tf.cast(tf.shape(pixels)[0], tf.float32))
            return tf.stack([before + 0 * tf.reduce_sum(pixels, (1, 2, 3)), tf.reduce_sum(pixels, (1, 2, 3))], 1)

    options = {"scale": "raw", "task": "raw", "batch_size": 10, "quiet": True}
    exports = [
        tfzip.export(str(photos), Counting(), str(tmp_path / on), devices=on, **options) for on in ("cpu", "CPU:0")
    ]
    inside, beside = ([record.outputs["output"].tolist() for record in export[:]] for export in exports)
    assert len(set(map(tuple, inside))) > len(inside) / 2
    assert beside == inside


@pytest.mark.slow
def test_one_device_is_used_and_told_where_variables_keep_a_model_from_being_on_two(photos, tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
        def __call__(self, pixels):
            return tf.reduce_mean(pixels, (2, 3)) + self.count.assign_add(1.0)

    tf.saved_model.save(Counting(), str(tmp_path / "model"))
    model, out = str(tmp_path / "model"), tmp_path / "out"
    said = exported(photos, model, out, "CPU:0,CPU:1", "--scale", "raw", "--task", "raw")
    assert "the model runs on CPU:0\n" in said
    assert json.loads((out / "run.json").read_text())["devices"] == ["CPU:0"]


def test_a_source_that_breaks_ends_the_export_after_what_came_before(digits, digits_model, tmp_path):
    def items():
        for number, image in enumerate(digits[1][:500]):
            if number == 430:
                raise OSError("the disk is gone")
            yield f"{number:03d}", image

    options = {"batch_size": 20, "shard_records": 100, "quiet": True}
    for names in ("cpu", "CPU:0"):
        with pytest.raises(BrokenSourceError, match="the disk is gone"):
            tfzip.export(items(), digits_model, str(tmp_path / names), devices=names, **options)
    assert killed.finished(tmp_path / "CPU:0") == killed.finished(tmp_path / "cpu") > 2


@pytest.mark.slow
def test_a_model_that_fails_on_an_image_fails_on_that_alone(digits, tmp_path):
    class Picky(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
        def __call__(self, pixels):
            means = tf.reduce_mean(pixels, (1, 2, 3))
            with tf.control_dependencies([tf.debugging.assert_less(means, LIMIT)]):
                return tf.stack([means, 255 - means], 1)

    means = digits[1].mean(axis=(1, 2, 3))
    LIMIT = float(np.sort(means)[-40])  # noqa: N806 - it is fixed
    options = {"scale": "raw", "task": "raw", "limit": 510, "quiet": True}
    exports = [
        tfzip.export(str(digits[0]), Picky(), str(tmp_path / on), devices=on, **options) for on in ("cpu", "CPU:0")
    ]
    assert 2 < len(exports[0].failures) < 40
    assert killed.contents(tmp_path / "CPU:0") == killed.contents(tmp_path / "cpu")


@pytest.mark.parametrize("names", ["GPU:7", "gpu", "CPU:0,nowhere", "", "CPU:0,"])
def test_a_device_that_is_not_there_is_refused(photos, digits_model, tmp_path, names):
    with pytest.raises(UsageError, match=r"--devices .*CPU:0"):
        tfzip.export(str(photos), digits_model, str(tmp_path / "out"), devices=names, quiet=True)


def test_devices_are_given_as_a_text():
    with pytest.raises(UsageError, match="--devices"):
        Options(devices=["CPU:0"])


def test_without_a_gpu_the_model_stays_in_the_graph():
    if not tf.config.list_physical_devices("GPU"):
        assert devices.choose("auto") == ()
    assert devices.choose("cpu") == ()
    assert [devices.kind(names) for names in ((), ("CPU:1",), ("GPU:0", "GPU:1"))] == ["CPU", "CPU", "GPU"]
