"""`verify --deep`: what an export says is what its model says, and what a forger wrote is not."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
from forged import rebuilt, renamed
from PIL import Image
from sources_made import pictures_of

import tfzip
from tfzip import cli, deep, index, record
from tfzip.record import UNKNOWN
from tfzip.write import ShardWriter

COUNT = 30
SPEC = tf.TensorSpec((None, 8, 8, 1), tf.float32)
WEIGHTS = np.random.default_rng(1).normal(0, 0.004, (64, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    """A few digits; one of them in a format that TensorFlow lacks."""
    few = pictures_of(digits, tmp_path_factory.mktemp("few"), COUNT)
    Image.fromarray(few.pixels[7][..., 0]).save(few.folder / "a.tiff")
    return few


def dense(pixels):
    return tf.matmul(tf.reshape(pixels, (-1, 64)), WEIGHTS)


def centred(pixels):
    return (pixels - 100) / 2


def binary(pixels):
    return {"odd": tf.sigmoid(dense(pixels)[:, :1])}


def multilabel(pixels):
    return {"all": tf.sigmoid(dense(pixels)), "energy": tf.reduce_mean(pixels, (1, 2, 3))}


def logits(pixels):
    return dense(pixels)


def detection(pixels):
    brightest, places = tf.math.top_k(tf.reshape(pixels, (-1, 64)) / 255, 4)
    y, x = tf.cast(places // 8, tf.float32) / 8, tf.cast(places % 8, tf.float32) / 8
    scores = brightest * tf.sigmoid(dense(pixels)[:, :4])
    return {"corners": tf.stack([y, x, y + 0.125, x + 0.125], axis=2), "sure": scores, "which": places % 3}


def raw(pixels):
    flat = tf.reshape(pixels, (-1, 64))
    return {
        "features": dense(pixels) * 1e4,
        "brightest": tf.argmax(flat, 1),
        "said": tf.strings.as_string(flat[:, 2:5]),
    }


def halves(pixels):
    return tf.nn.softmax(tf.matmul(tf.reshape(pixels, (-1, 64)), tf.cast(WEIGHTS, tf.float16)))


def encoded(strings):
    decode = lambda string: tf.ensure_shape(tf.io.decode_png(string, 1), (8, 8, 1))  # noqa: E731
    return tf.nn.softmax(dense(tf.cast(tf.map_fn(decode, strings, tf.uint8), tf.float32)))


def taking(function, spec=SPEC):
    return tf.function(function, input_signature=[spec], autograph=False)


def cropping(pixels):
    return tf.nn.softmax(dense(pixels[:, 2:, 2:, :1]))


SCORES = {"task": "multiclass", "scores": "probabilities"}
LOGITS = {"task": "multiclass", "scores": "logits"}
BOXES = {"task": "detection", "output": "corners,sure,which", "min_score": 0.55, "labels": ["a", "b", "c"]}

MODELS = {
    # the model, options of the export, and those that are to be given again
    "multiclass": ("object", {"labels": [f"no. {i}" for i in range(10)], "shards": 2}, {}),
    "a file": ("keras", {"exif_orientation": "apply", "resize": "pad", "shuffle": 1}, {}),
    "a saved model": ("saved_model", {"compression": "none", "layout": "tfx"}, {}),
    "preprocess": (taking(logits), LOGITS, {"preprocess": centred}),
    "binary": (taking(binary), {"scale": "symmetric", "task": "binary", "scores": "probabilities"}, {}),
    "multilabel": (taking(multilabel), {"scale": "raw", "task": "multilabel", "threshold": 0.6, "output": "all"}, {}),
    "detection": (taking(detection), {"scale": "raw", **BOXES}, {}),
    "raw": (taking(raw), {"scale": "unit", "task": "raw"}, {}),
    "half precision": (taking(halves, tf.TensorSpec(SPEC.shape, tf.float16)), {"scale": "raw", **SCORES}, {}),
    "an open size": (cropping, {"scale": "raw", "image_size": (10, 10), **SCORES}, {}),
    "a fixed batch": (taking(logits, tf.TensorSpec((4, 8, 8, 1))), {"scale": "raw", "batch_size": 4, **LOGITS}, {}),
    "bytes": (taking(encoded, tf.TensorSpec([None], tf.string)), SCORES, {}),
}


@pytest.fixture(scope="module")
def made(few, digits_model, digits_files, tmp_path_factory):
    """Exports by each of the models, made when first asked for: the export, its model, what is to be given again."""
    exports = {}

    def make(name):
        if name not in exports:
            model, options, again = MODELS[name]
            if isinstance(model, str):
                model = {"object": digits_model, **digits_files}[model]
            out = str(tmp_path_factory.mktemp("made") / "out")
            options = {"batch_size": 8, **options, **again}
            exports[name] = tfzip.export(str(few.folder), model, out, quiet=True, **options), model, again
        return exports[name]

    return make


# Forging: everything that is written of a record is made to fit what it says.


def forged(export, out, change):
    """A copy of an export whose Examples something has changed, with all CRCs, hashes and tables right."""
    gzip = "GZIP" if export.manifest["compression"] == "gzip" else ""
    examples = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(export.shards, gzip)]
    change(examples)
    shutil.copytree(export.path, out)
    manifest = {**export.manifest, "shards": []}
    rest, parts = iter(examples), []
    for number, shard in enumerate(export.manifest["shards"]):
        taken = [next(rest) for _ in range(shard["records"])]
        with ShardWriter(str(out / shard["file"]), export.manifest["compression"]) as writer:
            writer.write([example.SerializeToString(deterministic=True) for example in taken])
        manifest["shards"].append({**shard, "bytes": writer.bytes, "sha256": writer.sha256})
        parts.append(str(out / f"part-{number}"))
        save_rows(parts[-1], taken, writer)
    (place,) = out.rglob("index.zip")
    schema = export._index.text("schema.pbtxt")
    index.write_index(str(place), manifest, export.labels, schema, parts, export.failures)
    return tfzip.open(out)


def save_rows(path, examples, writer):
    records = [record.parse_example(example.SerializeToString()) for example in examples]

    def column(key, other, dtype):
        return np.array([found.get(key, ("", [other]))[1][0] for found in records], dtype)

    def confidence(found):
        values = found.get(record.CONFIDENCE, found.get(record.DETECTED_SCORE, ("", [])))[1]
        return max(values, default=np.nan)

    def text(found):
        key = next((key for key in (record.TEXT, record.TEXTS, record.DETECTED_TEXT) if key in found), None)
        return b"|".join(found[key][1]) if key else b""

    columns = {
        "label": column(record.LABEL, UNKNOWN, np.int32),
        "truth": column(record.TRUTH_LABEL, UNKNOWN, np.int32),
        "confidence": np.array([confidence(found) for found in records], np.float32),
        **spread(records),
        "nonfinite": np.zeros(len(records), bool),
        **writer.locations,
    }
    if record.SCORES in records[0]:
        columns["scores"] = np.array([found[record.SCORES][1] for found in records], np.float32)
    filenames = [found[record.FILENAME][1][0] for found in records]
    texts = {"filename": filenames, "prediction": list(map(text, records)), "truth_text": [b""] * len(records)}
    index.save_part(path, columns, texts)


def spread(records):
    """Margin and entropy of each record's scores; NaN where it has none."""
    margin, entropy = np.full((2, len(records)), np.nan, np.float32)
    for row, found in enumerate(records):
        if record.SCORES in found:
            scores = np.array(found[record.SCORES][1])
            *_, second, first = np.sort(scores)
            each = [-p * np.log(p) for p in scores if p > 0]
            if record.LABELS in found:
                first, second = np.maximum(scores, 1 - scores).min(), 1 - np.maximum(scores, 1 - scores).min()
                each += [-p * np.log(p) for p in 1 - scores if p > 0]
            margin[row], entropy[row] = first - second, sum(each)
    return {"margin": margin, "entropy": entropy}


def predicted(example):
    keys = example.features.feature
    return [key for key in keys if key.startswith(("prediction/", "output/", "image/detection/"))]


def swapped(one, other):
    """Two records exchange all that the model said of them."""

    def change(examples):
        first, second = examples[one].features.feature, examples[other].features.feature
        for key in predicted(examples[one]):
            kept = tf.train.Feature.FromString(first[key].SerializeToString())
            first[key].CopyFrom(second[key])
            second[key].CopyFrom(kept)

    return change


def different(export):
    """Two records of which the model says something else."""
    records = export[:]

    def said(one):
        return repr((one.prediction, one.outputs))

    other = max(range(len(records)), key=lambda row: (said(records[row]) != said(records[0]), row == COUNT // 2))
    assert said(records[0]) != said(records[other])
    return 0, other


QUICK = ("a file", "binary")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in MODELS])
def test_two_predictions_that_were_swapped_are_seen_and_no_honest_one_is_doubted(made, tmp_path, name):
    export, model, again = made(name)
    assert len(export) == (COUNT if name == "bytes" else COUNT + 1)
    rows = different(export)
    forgery = forged(export, tmp_path / "forged", swapped(*rows))
    assert tfzip.verify(forgery) == []
    problems = tfzip.verify(forgery, model, **again)
    names = [export[row].filename for row in rows]
    assert sorted(problem.partition(": ")[0] for problem in problems) == sorted(names)
    assert all("is written, the model" in problem for problem in problems)


def test_a_copy_that_changes_nothing_is_no_forgery(made, tmp_path):
    export, model, _ = made("multiclass")
    copy = forged(export, tmp_path / "copy", list)
    assert tfzip.verify(copy, model) == []


def test_a_filename_that_two_records_have_is_seen_without_the_model(made, tmp_path):
    export, _, _ = made("multiclass")
    name = export[3].filename

    def change(examples):
        for other in (5, 20):
            examples[other].features.feature[record.FILENAME].bytes_list.value[:] = [name.encode()]

    assert tfzip.verify(forged(export, tmp_path / "forged", change)) == [
        f"index.zip: 3 records have the filename {name}"
    ]


@pytest.mark.parametrize("name", ["multiclass", "detection"])
def test_names_of_other_classes_are_seen_without_the_model(made, tmp_path, name):
    export, _, _ = made(name)
    shutil.copytree(export.path, tmp_path / "copy")
    rebuilt(tmp_path / "copy", **renamed(export, export.labels[::-1]))
    problems = tfzip.verify(tfzip.open(tmp_path / "copy"))
    assert any("its text is not the name of its label" in problem for problem in problems)


def test_every_part_of_a_prediction_is_compared(made, tmp_path):
    export, model, _ = made("multiclass")
    keys = [record.TEXT, record.LABEL, record.SCORES, record.CONFIDENCE]
    labels = [one.prediction.label for one in export[:]]
    others = [next(row for row in range(4, COUNT) if labels[row] != labels[forger]) for forger in range(4)]

    def change(examples):
        for row, (key, other) in enumerate(zip(keys, others, strict=True)):
            examples[row].features.feature[key].CopyFrom(examples[other].features.feature[key])

    problems = deep.differences(forged(export, tmp_path / "forged", change), model, COUNT + 1)
    for row, (key, problem) in enumerate(zip(keys, problems, strict=True)):
        assert problem.startswith(f"{export[row].filename}: {key.rpartition('/')[2]}")


def test_every_output_is_compared(made, tmp_path):
    export, model, _ = made("raw")
    forgeries = [("features", "float_list", 0.5), ("brightest", "int64_list", 64), ("said", "bytes_list", b"nothing")]

    def change(examples):
        for row, (key, kind, other) in enumerate(forgeries):
            getattr(examples[row].features.feature[f"output/{key}"], kind).value[-1] = other

    problems = tfzip.verify(forged(export, tmp_path / "forged", change), model)
    for row, ((key, _, _), problem) in enumerate(zip(forgeries, problems, strict=True)):
        assert problem.startswith(f"{export[row].filename}: output {key}")


@pytest.mark.parametrize(
    ("name", "least"), [("multiclass", 5e-5), pytest.param("half precision", 5e-3, marks=pytest.mark.slow)]
)
def test_low_bits_are_no_difference(made, tmp_path, name, least):
    export, model, _ = made(name)

    def change(examples):
        for row, by in ((5, least / 10), (6, least)):
            examples[row].features.feature[record.SCORES].float_list.value[3] += by

    (problem,) = tfzip.verify(forged(export, tmp_path / "forged", change), model)
    assert problem.startswith(f"{export[6].filename}: scores[3]")


def undecided(pixels):
    """Of every image the same: two classes alike, one on the threshold."""
    return tf.tile([[0.5, 0.5, 0.2]], (tf.shape(pixels)[0], 1))


@pytest.mark.slow
def test_what_a_rounding_decides_is_no_difference(few, tmp_path):
    options = {"scale": "raw", "quiet": True, "scores": "probabilities", "limit": 3}
    model = taking(undecided)
    alike = tfzip.export(str(few.folder), model, str(tmp_path / "alike"), task="multiclass", **options)
    on_threshold = tfzip.export(str(few.folder), model, str(tmp_path / "some"), task="multilabel", **options)

    def other(label):
        def change(examples):
            features = examples[1].features.feature
            features[record.LABEL].int64_list.value[:] = [label]
            features[record.TEXT].bytes_list.value[:] = [b"%d" % label]

        return change

    def without(examples):
        for key in (record.LABELS, record.TEXTS):
            values = examples[1].features.feature[key]
            del (values.int64_list if values.WhichOneof("kind") == "int64_list" else values.bytes_list).value[1:]

    assert tfzip.verify(forged(alike, tmp_path / "1", other(1)), model) == []
    assert len(tfzip.verify(forged(alike, tmp_path / "2", other(2)), model)) == 1
    assert on_threshold[1].prediction.labels == [0, 1]
    forgery = forged(on_threshold, tmp_path / "3", without)
    assert forgery[1].prediction.labels == [0]
    assert tfzip.verify(forgery, model) == []


def test_a_box_that_a_rounding_let_in_is_no_difference(made, tmp_path):
    export, model, _ = made("detection")
    one, other = [row for row, found in enumerate(export[:]) if found.prediction.labels][:2]

    def change(examples):
        for row, score in ((one, 0.55 + 5e-6), (other, 0.56)):
            features = examples[row].features.feature
            for key in predicted(examples[row]):
                values = getattr(features[key], features[key].WhichOneof("kind")).value
                values.append(score if key == record.DETECTED_SCORE else values[0])

    (problem,) = tfzip.verify(forged(export, tmp_path / "forged", change), model)
    assert problem.startswith(f"{export[other].filename}: texts")


# The sample.


def test_the_sample_is_spread_evenly_and_the_same_every_time(made, tmp_path):
    export, model, _ = made("multiclass")

    def change(examples):
        for example in examples:
            example.features.feature[record.TEXT].bytes_list.value[:] = [b"forged"]

    forgery = forged(export, tmp_path / "forged", change)
    names = [one.filename for one in export[:]]
    for sample in (4, 1000):
        told = [line.partition(":")[0] for line in deep.differences(forgery, model, sample)]
        rows = [names.index(name) for name in told]
        assert rows == [number * len(names) // len(rows) for number in range(min(sample, len(names)))]


# What cannot be done.


def test_another_model_is_refused_by_both_fingerprints(made, digits_files):
    export, _, _ = made("a file")
    other, _, _ = made("a saved model")
    with pytest.raises(tfzip.UsageError) as caught:
        tfzip.verify(export, digits_files["saved_model"])
    for said in ("digits_saved", *(one.manifest["model"]["sha256"][:12] for one in (export, other))):
        assert said in str(caught.value)


def test_a_model_that_takes_other_images_is_another_model_too(made, photographs_model):
    with pytest.raises(tfzip.UsageError, match="another model"):
        tfzip.verify(made("multiclass")[0], photographs_model)
    with pytest.raises(tfzip.UsageError, match="another model"):
        tfzip.verify(made("binary")[0], taking(multilabel))


def test_another_preprocess_is_seen_and_a_missing_one_asked_for(made):
    export, model, _ = made("preprocess")
    with pytest.raises(tfzip.UsageError, match=r"made with --preprocess test_deep:centred"):
        tfzip.verify(export, model)
    assert len(tfzip.verify(export, model, preprocess=lambda pixels: pixels / 3)) > COUNT / 2
    with pytest.raises(tfzip.UsageError, match=r"--preprocess: .* was made without"):
        tfzip.verify(made("binary")[0], made("binary")[1], preprocess=centred)


def test_images_may_claim_no_more_pixels_than_are_given(made):
    export, model, _ = made("multiclass")
    assert tfzip.verify(export, model, sample=2, max_pixels=64) == []
    problems = tfzip.verify(export, model, sample=2, max_pixels=63)
    assert len(problems) == 2
    for problem in problems:
        assert problem.endswith("8x8 pixels are more than --max-pixels 63 allows")


def test_what_is_named_in_an_export_is_not_imported(made, tmp_path, monkeypatch):
    export, model, _ = made("binary")
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    export.manifest["pixels"]["preprocess"] = "evil:function"
    try:
        with pytest.raises(tfzip.UsageError, match="evil:function"):
            tfzip.verify(export, model)
    finally:
        export.manifest["pixels"]["preprocess"] = None


@pytest.mark.parametrize(
    ("image", "said"), [("none", "no images"), ("jpeg:90", "other images"), ("png", "other images")]
)
def test_images_that_the_model_did_not_see_are_not_run_again(few, digits_model, tmp_path, image, said):
    export = tfzip.export(str(few.folder), digits_model, str(tmp_path / "out"), quiet=True, image=image, limit=3)
    with pytest.raises(tfzip.UsageError, match=f"--image {image}.*{said}"):
        tfzip.verify(export, digits_model)


def test_predictions_made_elsewhere_have_no_model(few, digits_model, tmp_path):
    scores = digits_model.predict(np.stack(few.pixels), verbose=0)
    export = tfzip.write(tfzip.zip(scores, few.names, few.encoded), str(tmp_path / "out"), quiet=True)
    with pytest.raises(tfzip.UsageError, match="no model"):
        tfzip.verify(export, digits_model)


@pytest.mark.parametrize(
    "given", [{"sample": 5}, {"preprocess": centred}, {"trust_model": True}], ids=lambda given: next(iter(given))
)
def test_what_is_for_a_model_is_refused_without_one(made, given):
    with pytest.raises(tfzip.UsageError, match=next(iter(given))):
        tfzip.verify(made("multiclass")[0], **given)


@pytest.mark.parametrize("sample", [0, -1, 2.5, True, "all"])
def test_a_sample_is_a_whole_number(made, sample):
    export, model, _ = made("multiclass")
    with pytest.raises(tfzip.UsageError, match="--sample"):
        tfzip.verify(export, model, sample=sample)


def test_what_is_damaged_is_told_before_anything_is_predicted(made, tmp_path):
    export, model, _ = made("multiclass")
    shutil.copytree(export.path, tmp_path / "copy")
    shard = tmp_path / "copy" / export.manifest["shards"][0]["file"]
    shard.write_bytes(shard.read_bytes()[:-9])
    damaged = tfzip.open(tmp_path / "copy")
    assert tfzip.verify(damaged, model) == tfzip.verify(damaged) != []


def test_a_model_with_state_is_said_to_have_it(few, tmp_path):
    class Counting(tf.Module):
        def __init__(self):
            super().__init__()
            self.seen = tf.Variable(0.0)

        @tf.function(input_signature=[SPEC])
        def __call__(self, pixels):
            return tf.nn.softmax(dense(pixels) * self.seen.assign_add(1.0))

    options = {"scale": "raw", "task": "multiclass", "scores": "probabilities"}
    export = tfzip.export(str(few.folder), Counting(), str(tmp_path / "out"), quiet=True, batch_size=4, **options)
    problems = tfzip.verify(export, Counting(), sample=5)
    assert problems
    assert all("keeps state" in problem for problem in problems)


# From a shell.


def test_the_command_says_what_it_found_by_its_exit_code(made, tmp_path, capsys):
    export, model, _ = made("a file")
    rows = different(export)
    forgery = forged(export, tmp_path / "forged", swapped(*rows))
    export_path, model = str(export.path), str(model)
    assert cli.main(["verify", export_path, "--deep", "--model", model, "--sample", "9"]) == 0
    assert "9 images predicted again" in capsys.readouterr().out
    assert cli.main(["verify", str(forgery.path)]) == 0
    assert "predicted" not in capsys.readouterr().out
    assert cli.main(["verify", str(forgery.path), "--deep", "--model", model]) == 1
    for line, (row, other) in zip(
        capsys.readouterr().out.splitlines(), (sorted(rows), sorted(rows)[::-1]), strict=True
    ):
        text, said = export[other].prediction.text, export[row].prediction.text
        assert line == f"{export[row].filename}: text {text} is written, the model says {said}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--deep"], "--deep needs --model"),
        (["--model", "M"], "--model has no effect without --deep"),
        (["--sample", "5"], "--sample has no effect without --deep"),
        (["--import", "json"], "--import has no effect without --deep"),
        (["--deep", "--model", "nowhere.keras"], "nowhere.keras: no such model"),
        (["--deep", "--model", "M", "--weights", "w.h5"], "--weights 'w.h5' is for keras:NAME"),
        (["--deep", "--model", "M", "--sample", "0"], "--sample 0"),
    ],
)
def test_a_wrong_call_is_told_in_a_line(made, arguments, said, capsys):
    export, model, _ = made("a file")
    assert cli.main(["verify", str(export.path), *(str(model) if word == "M" else word for word in arguments)]) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert len(shown.splitlines()) == 1
