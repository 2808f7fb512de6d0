"""How a model is run is chosen on the model itself, kept by whoever goes on, and changes no prediction."""

import io
import json

import killed
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfzip
from tfzip import images, predictor, tuning
from tfzip.job import prepare
from tfzip.options import Options
from tfzip.sources import open_source


def as_bmp(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).convert("RGB").save(file, "bmp")
    return tf.constant(file.getvalue())


def run_of(out):
    return json.loads((out / "run.json").read_text())


def model_of(export):
    return export.manifest["model"]


def test_many_images_freeze_the_model_which_changes_no_prediction(digits, digits_model, tmp_path):
    folder, images, _ = digits
    assert len(images) >= tuning.WORTH_FREEZING
    export = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True)
    assert model_of(export)["frozen"]
    order = [int(name.rpartition("/")[2].partition(".")[0]) for name in export.metadata["filename"]]
    expected = digits_model.predict(images[order], verbose=0)
    assert len(np.unique(expected.round(4), axis=0)) > len(images) / 2
    np.testing.assert_allclose(export.metadata["scores"], expected, rtol=1e-4, atol=1e-5)
    assert (export.metadata["label"] == expected.argmax(axis=1)).all()


def test_few_images_leave_it_as_it_is(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), limit=60, quiet=True)
    assert not model_of(export)["frozen"]
    assert run_of(tmp_path / "out")["trials"] == []


class Cancelling(tf.Module):
    """Subtracts from what a convolution gives, scaled, that of one with scaled weights: nothing stays but rounding."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.weights = tf.Variable(rng.normal(size=(3, 3, 1, 8)), dtype=tf.float32)
        self.scales = tf.Variable(rng.uniform(0.5, 2, 8), dtype=tf.float32)
        self.scaled = self.weights.numpy() * self.scales.numpy()

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1))])
    def __call__(self, pixels):
        scaled_after = tf.nn.conv2d(pixels, self.weights, 1, "SAME") * self.scales
        rounding = scaled_after - tf.nn.conv2d(pixels, self.scaled, 1, "SAME")
        return tf.reduce_sum(rounding, (1, 2)) * 1e5


def test_a_model_that_freezing_would_change_is_left_as_it_is(digits, tmp_path):
    model = Cancelling()
    pixels = tf.constant(digits[1][:8].astype(np.float32))
    ready = predictor.load(model)
    apart = np.abs(predictor.freeze(ready).function(pixels)["output"] - model(pixels)).max()
    assert apart > 1, "TensorFlow no longer multiplies the factors first: another model is needed here"
    export = tfzip.export(
        str(digits[0]), model, str(tmp_path / "out"), scale="raw", task="raw", shards=1, limit=600, quiet=True
    )
    assert not model_of(export)["frozen"]


@pytest.fixture
def worth_it(monkeypatch):
    """As if every export took so long that trying things out pays."""
    monkeypatch.setattr(tuning, "WORTH_TUNING", 0.0)
    monkeypatch.setattr(tuning, "_SHARE", 1000.0)
    monkeypatch.setattr(tuning, "_TRIAL", 0.02)


@pytest.mark.usefixtures("worth_it")
def test_the_fastest_choice_is_taken_and_told(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True)
    trials = run_of(tmp_path / "out")["trials"]
    assert len(trials) >= 2
    assert all(trial["images_per_second"] > 0 for trial in trials)
    best = max(trial["images_per_second"] for trial in trials)
    choice = [export.manifest["batch_size"], export.manifest["parallel"]]
    (taken,) = [t for t in trials if [t["batch_size"], t["parallel"]] == choice]
    assert taken["images_per_second"] * tuning._BETTER**2 >= best


@pytest.mark.usefixtures("worth_it")
def test_for_lite_only_how_many_at_a_time_is_tried(digits, digits_model, tmp_path):
    export = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), runtime="lite", quiet=True)
    trials = run_of(tmp_path / "out")["trials"]
    assert {trial["runtime"] for trial in trials} == {"lite"}
    assert len({trial["batch_size"] for trial in trials}) == 1
    fastest = max(trials, key=lambda trial: trial["images_per_second"])
    (taken,) = [trial for trial in trials if trial["parallel"] == export.manifest["parallel"]]
    assert taken["images_per_second"] * tuning._BETTER >= fastest["images_per_second"]


@pytest.mark.usefixtures("worth_it")
def test_what_is_pinned_is_not_tried(digits, digits_model, tmp_path):
    pinned = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "a"), batch_size=7, parallel=3, quiet=True)
    assert (pinned.manifest["batch_size"], pinned.manifest["parallel"]) == (7, 3)
    assert run_of(tmp_path / "a")["trials"] == []
    one = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "b"), batch_size=7, quiet=True)
    assert one.manifest["batch_size"] == 7
    assert {t["batch_size"] for t in run_of(tmp_path / "b")["trials"]} == {7}


@pytest.mark.usefixtures("worth_it")
def test_a_trial_that_would_take_more_than_its_share_is_not_made(digits, digits_model, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "_SHARE", 1e-6)
    tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True)
    assert run_of(tmp_path / "out")["trials"] == []


@pytest.mark.parametrize("encode", [tf.io.encode_png, tf.io.encode_jpeg, as_bmp], ids=["png", "jpeg", "bmp"])
def test_freezing_is_judged_by_the_images_of_the_folder(digits, digits_model, tmp_path, encode):
    for number, pixels in enumerate(digits[1][:4]):
        (tmp_path / f"{number}.png").write_bytes(encode(pixels).numpy())
    options = Options(batch_size=4, shards=1)
    job = prepare(open_source(str(tmp_path), options), digits_model, options)
    decoded = [images.decode((tmp_path / f"{number}.png").read_bytes(), 1) for number in range(4)]
    np.testing.assert_array_equal(tuning._pixels(job), job.prepare(tf.cast(decoded, job.predictor.input.dtype)))


@pytest.mark.slow
@pytest.mark.usefixtures("worth_it")
def test_whoever_goes_on_keeps_the_choice(digits, digits_files, tmp_path):
    """The child chooses by its rule: here other batches would be taken, which its plan forbids."""
    options = {"shard_records": 200}
    killed_out, whole = tmp_path / "killed", tmp_path / "whole"
    process = killed.begun(str(digits[0]), digits_files["keras"], killed_out, options)
    while process.is_alive() and killed.finished(killed_out) < 2:
        pass
    process.kill()
    process.join()
    assert 2 <= killed.finished(killed_out) < 9
    went_on = tfzip.export(str(digits[0]), digits_files["keras"], str(killed_out), quiet=True, **options)
    assert run_of(killed_out)["trials"] == []
    chosen = {name: went_on.manifest[name] for name in ("batch_size", "parallel")}
    assert model_of(went_on)["frozen"]
    tfzip.export(str(digits[0]), digits_files["keras"], str(whole), quiet=True, **options, **chosen)
    assert killed.contents(killed_out) == killed.contents(whole)


@pytest.mark.usefixtures("worth_it")
def test_a_stream_of_unknown_length_is_frozen_and_not_tuned(digits, digits_model, tmp_path):
    items = ((f"{number:04d}", image) for number, image in enumerate(digits[1][:40]))
    export = tfzip.export(items, digits_model, str(tmp_path / "out"), quiet=True)
    assert model_of(export)["frozen"]
    assert run_of(tmp_path / "out")["trials"] == []


def test_broken_first_images_are_passed_by(digits, digits_model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, path in enumerate(sorted(digits[0].rglob("*.png"))[:510]):
        (folder / f"{number:03d}.png").write_bytes(b"no image" if number < 40 else path.read_bytes())
    export = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True)
    assert model_of(export)["frozen"]
    assert (len(export), len(export.failures)) == (470, 40)
    assert open_source(str(folder), Options()).filenames[0] == b"000.png"
