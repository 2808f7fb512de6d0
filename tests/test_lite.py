"""A model computed by TensorFlow Lite gives what TensorFlow gives, or is left to it."""

import gc
import weakref

import keras
import killed
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from test_frozen import PIXELS, Module, convolutional, saved
from test_tuning import Cancelling, model_of, run_of

import tfzip
from tfzip import lite, predictor, tuning
from tfzip.errors import UsageError

MODELS = {"a Keras model": lambda _: convolutional(), "a SavedModel": saved}


@pytest.mark.parametrize("made", MODELS.values(), ids=MODELS)
def test_any_batch_gives_the_same_by_name(made, tmp_path):
    ready = predictor.load(made(tmp_path / "model"))
    light = predictor.lighten(predictor.freeze(ready), parallel=2)
    assert (ready.lite, light.lite) == (False, True)
    assert light.outputs == ready.outputs
    expected = {name: output.numpy() for name, output in ready.function(tf.constant(PIXELS)).items()}
    assert {name: output.shape[1] for name, output in expected.items()} == {"features": 8, "scores": 5}
    assert all(len(np.unique(output.round(4), axis=0)) == len(PIXELS) for output in expected.values())
    for rows in (0, 1, 3, 8):
        found = light.function(tf.constant(PIXELS[:rows]))
        for name, output in expected.items():
            np.testing.assert_allclose(found[name], output[:rows], rtol=1e-5, atol=1e-5)


def test_what_comes_of_an_image_hangs_on_no_other(monkeypatch):
    """So the size of the batch moves no bit, nor do the black images that fill up what is computed together."""
    monkeypatch.setattr(lite, "_PIXELS_AT_ONCE", 4 * 32 * 24)
    light = predictor.lighten(predictor.freeze(predictor.load(convolutional())), parallel=1)
    together = light.function(tf.constant(PIXELS))["scores"].numpy()
    alone = np.concatenate([light.function(tf.constant(PIXELS[row : row + 1]))["scores"] for row in range(8)])
    assert len(np.unique(alone, axis=0)) == 8
    assert together.tobytes() == alone.tobytes()


def test_calls_at_the_same_time_do_not_mix():
    light = predictor.lighten(predictor.freeze(predictor.load(convolutional())), parallel=4)
    alone = [light.function(pixels[tf.newaxis])["scores"].numpy() for pixels in PIXELS]
    assert len({row.tobytes() for row in alone}) == 8
    batches = tf.data.Dataset.from_tensor_slices(np.tile(PIXELS, (25, 1, 1, 1))).batch(1)
    found = [scores.numpy() for scores in batches.map(lambda one: light.function(one)["scores"], 4)]
    assert b"".join(map(np.ndarray.tobytes, found)) == b"".join(map(np.ndarray.tobytes, alone * 25))


def halves():
    model = keras.Sequential([layers.Input((32, 24, 3), dtype="float16"), layers.Flatten(), layers.Dense(3)])
    return tf.function(lambda x: model(x), input_signature=[tf.TensorSpec((None, 32, 24, 3), tf.float16)])


def of_strings():
    def call(pixels):
        return {"names": tf.strings.as_string(tf.reduce_mean(pixels, (1, 2, 3)))}

    return tf.function(call, input_signature=[tf.TensorSpec((None, 32, 24, 3))])


def asserting():
    def call(pixels):
        tf.debugging.assert_less(tf.reduce_mean(pixels), 1e6, "too bright")
        return tf.reduce_mean(pixels, (1, 2))

    return tf.function(call, input_signature=[tf.TensorSpec((None, 32, 24, 3))])


UNFIT = {"ragged outputs": Module, "halves": halves, "strings": of_strings, "an assertion, which it drops": asserting}


@pytest.mark.parametrize("made", UNFIT.values(), ids=UNFIT)
def test_what_it_cannot_compute_is_left_to_tensorflow(made):
    ready = predictor.freeze(predictor.load(made()))
    assert ready.frozen
    assert predictor.lighten(ready, parallel=1) is ready


def test_without_lite_all_is_left_to_tensorflow(monkeypatch):
    monkeypatch.setattr(tf.lite, "Interpreter", None)  # as if it had left
    ready = predictor.freeze(predictor.load(convolutional()))
    assert predictor.lighten(ready, parallel=1) is ready


def test_it_keeps_nothing_once_it_is_gone():
    light = predictor.lighten(predictor.freeze(predictor.load(convolutional())), parallel=1)
    interpreters = weakref.ref(light.model[1])
    assert interpreters() is not None
    del light
    gc.collect()
    assert interpreters() is None


class Standardizing(tf.Module):
    """Of an image of one colour it makes NaN."""

    def __init__(self):
        self.weights = tf.Variable(np.random.default_rng(3).normal(size=(3, 3, 1, 4)), dtype=tf.float32)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
    def __call__(self, pixels):
        centred = pixels - tf.reduce_mean(pixels, (1, 2, 3), keepdims=True)
        scaled = centred / tf.math.reduce_std(pixels, (1, 2, 3), keepdims=True)
        return tf.nn.softmax(tf.reduce_mean(tf.nn.relu6(tf.nn.conv2d(scaled, self.weights, 1, "SAME")), (1, 2)))


def test_what_is_no_number_stays_none():
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 8, 8, 1)).astype(np.float32)
    pixels[2] = 7
    ready = predictor.freeze(predictor.load(Standardizing()))
    light = predictor.lighten(ready, parallel=1)
    expected, found = (each.function(tf.constant(pixels))["output"].numpy() for each in (ready, light))
    assert light.lite
    assert np.isnan(expected).any(axis=1).tolist() == [False, False, True, False]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# Exports.


def exported(digits, model, out, **options):
    return tfzip.export(str(digits[0]), model, str(out), quiet=True, **{"runtime": "lite", "limit": 300} | options)


def test_an_export_is_what_the_model_says(digits, digits_model, tmp_path):
    export = exported(digits, digits_model, tmp_path / "out", limit=None)
    assert model_of(export)["lite"]
    assert model_of(export)["frozen"]
    order = [int(name.rpartition("/")[2].partition(".")[0]) for name in export.metadata["filename"]]
    expected = digits_model.predict(digits[1][order], verbose=0)
    assert len(np.unique(expected.round(4), axis=0)) > len(order) / 2
    np.testing.assert_allclose(export.metadata["scores"], expected, rtol=1e-4, atol=1e-5)
    assert (export.metadata["label"] == expected.argmax(axis=1)).all()
    assert tfzip.verify(export, digits_model) == []


@pytest.mark.slow
def test_batches_and_how_many_run_at_a_time_move_no_bit(digits, digits_model, tmp_path):
    one = exported(digits, digits_model, tmp_path / "a", batch_size=7, parallel=1)
    other = exported(digits, digits_model, tmp_path / "b", batch_size=32, parallel=3)
    assert len(np.unique(one.metadata["scores"], axis=0)) > 250
    assert one.metadata["scores"].tobytes() == other.metadata["scores"].tobytes()
    assert [shard["sha256"] for shard in one.manifest["shards"]] == [s["sha256"] for s in other.manifest["shards"]]


def test_a_stream_keeps_to_its_shards(digits, digits_model, tmp_path):
    items = [(f"{number:04d}", image) for number, image in enumerate(digits[1][:100])]
    options = {"runtime": "lite", "shard_records": 20, "quiet": True}
    export = tfzip.export(items, digits_model, str(tmp_path / "out"), **options)
    assert model_of(export)["lite"]
    assert [shard["records"] for shard in export.manifest["shards"]] == [20] * 5


def test_a_gpu_is_not_for_it(digits, digits_model, tmp_path):
    with pytest.raises(UsageError, match=r"--runtime lite is for CPUs, .* add --devices cpu"):
        exported(digits, digits_model, tmp_path / "out", devices="CPU:0")


@pytest.mark.slow
def test_what_fails_fails_alone(digits, digits_model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted(digits[0].rglob("*.png"))[::44][:40]):
        (folder / f"{number:02d}.png").write_bytes(b"no image" if number % 9 == 4 else path.read_bytes())
    made = {
        runtime: tfzip.export(str(folder), digits_model, str(tmp_path / runtime), runtime=runtime, quiet=True)
        for runtime in ("lite", "tensorflow")
    }
    assert [export.manifest["model"]["lite"] for export in made.values()] == [True, False]
    assert len(made["lite"]) == 36
    assert made["lite"].failures == made["tensorflow"].failures
    scores = made["tensorflow"].metadata["scores"]
    assert len(np.unique(scores.round(4), axis=0)) > 30
    np.testing.assert_allclose(made["lite"].metadata["scores"], scores, rtol=1e-4, atol=1e-5)


@pytest.fixture
def worth_it(monkeypatch):
    """As if every export took so long that a conversion pays."""
    monkeypatch.setattr(tuning, "WORTH_CONVERTING", 0.0)
    monkeypatch.setattr(tuning, "_MODEL_A_SECOND", 1e12)
    monkeypatch.setattr(tuning, "_CLEARLY", 1000.0)
    monkeypatch.setattr(tuning, "_TRIAL", 0.02)


@pytest.mark.usefixtures("worth_it")
def test_the_faster_is_taken_and_told(digits, digits_model, tmp_path):
    export = exported(digits, digits_model, tmp_path / "out", runtime="auto", limit=600)
    *alone, usual, light = run_of(tmp_path / "out")["trials"]
    assert [(trial["runtime"], trial["parallel"]) for trial in alone] == [("tensorflow", 1), ("lite", 1)]
    assert (usual["runtime"], light["runtime"]) == ("tensorflow", "lite")
    taken = model_of(export)["lite"]
    assert taken == (light["images_per_second"] > tuning._BETTER * usual["images_per_second"])
    assert export.manifest["batch_size"] == (light if taken else usual)["batch_size"]


@pytest.mark.slow
@pytest.mark.usefixtures("worth_it")
def test_what_is_clearly_faster_by_itself_needs_no_other_trial(digits, digits_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_CLEARLY", 0.0)
    export = exported(digits, digits_model, tmp_path / "out", runtime="auto", limit=600)
    assert [trial["runtime"] for trial in run_of(tmp_path / "out")["trials"]] == ["tensorflow", "lite"]
    assert model_of(export)["lite"]


@pytest.mark.slow
@pytest.mark.usefixtures("worth_it")
def test_a_large_model_is_not_converted_for_a_short_export(digits, digits_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_MODEL_A_SECOND", 1e-9)
    export = exported(digits, digits_model, tmp_path / "out", runtime="auto", limit=600)
    assert not model_of(export)["lite"]
    assert run_of(tmp_path / "out")["trials"] == []


@pytest.mark.slow
@pytest.mark.usefixtures("worth_it")
def test_a_model_that_lite_would_change_is_left_to_tensorflow(digits, tmp_path):
    options = {"scale": "raw", "task": "raw", "limit": 600}
    export = exported(digits, Cancelling(), tmp_path / "out", runtime="auto", **options)
    assert not model_of(export)["lite"]
    assert run_of(tmp_path / "out")["trials"] == []
    with pytest.raises(UsageError, match=r"--runtime lite: .* leave it out"):
        exported(digits, Cancelling(), tmp_path / "lite", **options)
    assert not (tmp_path / "lite").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("worth_it")
def test_tensorflow_is_kept_where_it_is_asked_for(digits, digits_model, tmp_path):
    export = exported(digits, digits_model, tmp_path / "out", runtime="tensorflow", limit=600)
    assert model_of(export)["frozen"]
    assert not model_of(export)["lite"]
    assert run_of(tmp_path / "out")["trials"] == []


def test_it_has_no_effect_on_predictions_made_elsewhere(digits, tmp_path):
    np.save(tmp_path / "scores.npy", np.eye(10, dtype=np.float32)[np.arange(len(digits[1])) % 10])
    with pytest.raises(UsageError, match=r"--runtime has no effect here"):
        exported(digits, None, tmp_path / "out", limit=None, predictions=str(tmp_path / "scores.npy"))


@pytest.mark.slow
def test_whoever_goes_on_uses_what_was_used(digits, digits_files, tmp_path):
    """Without being told: the plan says it; what asks for another is refused."""
    options, stopped, whole = {"shard_records": 200}, tmp_path / "stopped", tmp_path / "whole"
    process = killed.begun(str(digits[0]), digits_files["keras"], stopped, {**options, "runtime": "lite"})
    while process.is_alive() and killed.finished(stopped) < 2:
        pass
    process.kill()
    process.join()
    assert 2 <= killed.finished(stopped) < 9
    asked = {"limit": None, **options}
    with pytest.raises(tfzip.OutputExistsError, match="TensorFlow Lite"):
        exported(digits, digits_files["keras"], stopped, runtime="tensorflow", **asked)
    went_on = exported(digits, digits_files["keras"], stopped, runtime="auto", **asked)
    assert model_of(went_on)["lite"]
    assert run_of(stopped)["trials"] == []
    exported(digits, digits_files["keras"], whole, **asked)
    assert killed.contents(stopped) == killed.contents(whole)
