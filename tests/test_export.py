"""The promise of the main job: image, filename and prediction belong together, whatever the options."""

import errno
import gc
import hashlib
import json
import os
import subprocess
import threading
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import operations

import tfzip
from tfzip import checkpoint, pipeline
from tfzip import shard as shards
from tfzip.job import prepare
from tfzip.options import Options
from tfzip.sources import open_source


def files_below(folder):
    """Every image file by its filename."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def predictions_by_hand(model, folder, filenames):
    """`model.predict` on each file alone, loaded as TensorFlow's own tutorials do."""
    height, width, channels = model.inputs[0].shape[1:]
    images = [
        tf.image.resize(
            tf.io.decode_image(tf.io.read_file(str(folder / name)), channels=channels, expand_animations=False),
            (height, width),
        )
        for name in filenames
    ]
    return dict(zip(filenames, model.predict(tf.stack(images), verbose=0), strict=True))


def assert_belongs_together(records, encoded, scores):
    """Every record's image and scores are those of its filename, and mixing up two would be seen."""
    assert sorted(record.filename for record in records) == sorted(encoded)
    table = np.array([scores[name] for name in sorted(scores)])
    assert np.ptp(table, axis=0).max() > 0.5, "the predictions must differ for this test to mean anything"
    assert len(np.unique(table.round(4), axis=0)) > 0.5 * len(table)
    for record in records:
        assert record.encoded == encoded[record.filename], record.filename
        np.testing.assert_allclose(record.prediction.scores, scores[record.filename], atol=1e-5)
        assert record.prediction.label == int(np.argmax(record.prediction.scores))


@pytest.fixture(scope="module")
def digits_by_hand(digits, digits_model):
    folder, _, _ = digits
    encoded = files_below(folder)
    return encoded, predictions_by_hand(digits_model, folder, sorted(encoded))


@pytest.mark.parametrize(
    "form", ["keras", *(pytest.param(form, marks=pytest.mark.slow) for form in ("saved_model", "object"))]
)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 1, "parallel": 1, "limit": 300},
        {"batch_size": 7, "parallel": 3, "shards": 4},
        {"batch_size": 64, "shuffle": 1, "compression": "none"},
        {"shuffle": 2, "shards": 3},
        {"shard_records": 250, "batch_size": 100, "compression": "none"},
        {"shard_size": "40kB", "parallel": 2},
    ],
    ids=str,
)
def test_every_digit_keeps_its_name_its_bytes_and_its_scores(
    digits, digits_model, digits_files, digits_by_hand, tmp_path, form, options
):
    folder, _, _ = digits
    model = digits_model if form == "object" else digits_files[form]
    export = tfzip.export(str(folder), model, str(tmp_path / "out"), quiet=True, **options)
    encoded, scores = digits_by_hand
    if "limit" in options:
        kept = sorted(encoded)[: options["limit"]]
        encoded, scores = {name: encoded[name] for name in kept}, {name: scores[name] for name in kept}
    assert_belongs_together(export[:], encoded, scores)
    assert tfzip.verify(export) == []
    if "shuffle" in options:
        assert [record.filename for record in export[:50]] != sorted(encoded)[:50]


@pytest.mark.parametrize("form", ["object", "saved_model"])
@pytest.mark.parametrize("options", [{}, {"batch_size": 5, "parallel": 4, "shards": 3, "shuffle": 4}], ids=str)
def test_every_photograph_keeps_its_name_its_bytes_and_its_scores(
    photographs, photographs_model, tmp_path, form, options
):
    model = photographs_model
    if form == "saved_model":
        model = str(tmp_path / "model")
        photographs_model.export(model, verbose=False)
    export = tfzip.export(str(photographs), model, str(tmp_path / "out"), quiet=True, **options)
    encoded = files_below(photographs)
    assert len(encoded) == 320
    assert_belongs_together(export[:], encoded, predictions_by_hand(photographs_model, photographs, sorted(encoded)))
    kinds = {record.format for record in export[:]}
    assert kinds == {"jpeg", "png", "gif", "bmp"}
    shapes = {(record.height, record.width) for record in export[:]}
    assert len(shapes) > 200


def test_two_swapped_filenames_would_be_seen(digits, digits_model, digits_by_hand, tmp_path):
    folder, _, _ = digits
    records = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True)[:]
    encoded, scores = digits_by_hand
    assert_belongs_together(records, encoded, scores)
    first, other = records[0], next(r for r in records if r.prediction.label != records[0].prediction.label)
    swapped = [
        record.__class__(
            **{
                **record.__dict__,
                "filename": {first.filename: other.filename, other.filename: first.filename}[record.filename],
            }
        )
        if record in (first, other)
        else record
        for record in (first, other, *records[1:50])
    ]
    with pytest.raises(AssertionError):
        assert_belongs_together(swapped, {r.filename: encoded[r.filename] for r in swapped}, scores)
    # The same with the bytes put right, so that only the predictions can tell.
    with pytest.raises(AssertionError, match=r"Not equal to tolerance"):
        assert_belongs_together(swapped[:2], {r.filename: r.encoded for r in swapped[:2]}, scores)


def test_iterating_gives_prediction_filename_and_image_of_one_file(digits, digits_model, digits_by_hand, tmp_path):
    folder, images, _ = digits
    export = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True, shuffle=5, shards=3)
    _, scores = digits_by_hand
    seen = []
    for prediction, filename, image in export:
        number = int(filename.partition("/")[2].removesuffix(".png"))
        assert image.dtype == np.uint8
        np.testing.assert_array_equal(image, np.broadcast_to(images[number], (8, 8, 3)))
        np.testing.assert_allclose(prediction, scores[filename], atol=1e-5)
        seen.append(filename)
    assert seen == [record.filename for record in export[:]]
    assert len(seen) == 1797


def said(export):
    """What each record of an export says, so that a difference shows where it is."""
    return [(record.filename, repr(record.prediction), hashlib.sha256(record.encoded).hexdigest()) for record in export]


def test_the_same_export_twice_has_the_same_bytes(photographs, photographs_model, tmp_path):
    exports, contents = [], []
    for name in ("one", "two"):
        out = tmp_path / name
        exports.append(
            tfzip.export(
                str(photographs), photographs_model, str(out), quiet=True, batch_size=4, parallel=2, shards=3, shuffle=9
            )
        )
        contents.append({path.name: path.read_bytes() for path in out.iterdir() if path.name != "run.json"})
    assert len(contents[0]) == 6
    assert said(exports[0][:]) == said(exports[1][:])
    assert [name for name, content in contents[0].items() if contents[1][name] != content] == []


@pytest.mark.slow
def test_how_many_batches_run_at_a_time_changes_no_byte_of_a_shard(photographs, photographs_model, tmp_path):
    exports = [
        tfzip.export(
            str(photographs),
            photographs_model,
            str(tmp_path / str(parallel)),
            quiet=True,
            batch_size=4,
            parallel=parallel,
        )
        for parallel in (1, 2, 5)
    ]
    assert said(exports[0][:]) == said(exports[1][:]) == said(exports[2][:])
    assert len({export.manifest["shards"][0]["sha256"] for export in exports}) == 1


@pytest.mark.slow
def test_a_fault_that_passes_changes_no_byte(photographs, photographs_model, tmp_path):
    faults = []

    def sometimes(batch):
        if len(faults) < 3 and batch[0, 0, 0, 0] > 0:  # not while it is being looked at
            faults.append(None)
            raise OSError("the weights are on a mount that went away")
        return photographs_model(batch, training=False).numpy()

    def model(batch):
        scores = tf.numpy_function(sometimes, [batch], tf.float32)
        return tf.ensure_shape(scores, (None, 7))

    digests = []
    for out in ("one", "two"):
        export = tfzip.export(
            str(photographs),
            model,
            str(tmp_path / out),
            quiet=True,
            batch_size=4,
            image_size=(48, 64),
            scale="raw",
            scores="probabilities",
            task="multiclass",
        )
        assert (export.failures, len(export)) == ([], 320)
        digests.append([shard["sha256"] for shard in export.manifest["shards"]])
        assert len(faults) == 3
    assert digests[0] == digests[1]


def prepared(source, model, **options):
    return prepare(open_source(source, Options(**options)), model, Options(**options))


def test_no_python_function_runs_inside_the_graph(photographs, photographs_model):
    job = prepared(photographs, photographs_model, image="jpeg:80", shuffle=1, source_labels="folder")
    dataset = pipeline.Stages(job, only_usual=True).dataset()
    assert "Conv2D" in operations(dataset)  # the walk reaches the model
    assert "DecodeImage" in operations(dataset)
    assert "EncodeProto" in operations(dataset)
    assert not {name for name in operations(dataset) if "PyFunc" in name}
    by_python = dataset.map(lambda items, _: tf.py_function(lambda value: value, [items["slot"]], tf.int64))
    assert "EagerPyFunc" in operations(by_python)  # and would see one


@pytest.mark.parametrize("shards", [3, 40])
def test_shards_without_a_record_are_written_too(digits, digits_model, tmp_path, shards):
    folder = tmp_path / "in"
    folder.mkdir()
    for number, path in enumerate(sorted(digits[0].rglob("*.png"))[:9]):
        (folder / f"{number}.png").write_bytes(b"" if 3 <= number < 6 else path.read_bytes())
    export = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True, shards=shards)
    assert [record.filename for record in export[:]] == ["0.png", "1.png", "2.png", "6.png", "7.png", "8.png"]
    assert [failure.filename for failure in export.failures] == ["3.png", "4.png", "5.png"]
    assert len(export.shards) == shards
    assert 0 in [shard["records"] for shard in export.manifest["shards"]]
    assert tfzip.verify(export) == []
    subprocess.run(["gzip", "-t", *export.shards], check=True)
    assert len(list(export)) == 6


@pytest.mark.parametrize("parallel", [1, 2, 3, 5])
def test_records_stay_in_order_where_whole_batches_fail(digits, digits_model, tmp_path, parallel):
    folder = tmp_path / "in"
    folder.mkdir()
    lost = np.random.default_rng(parallel).random((40, 1)) < 0.4  # batches of two
    lost = np.flatnonzero(np.broadcast_to(lost, (40, 2)))
    for number, path in enumerate(sorted(digits[0].rglob("*.png"))[:80]):
        (folder / f"{number:02}.png").write_bytes(b"" if number in lost else path.read_bytes())

    out = str(tmp_path / "out")
    export = tfzip.export(str(folder), digits_model, out, quiet=True, batch_size=2, parallel=parallel, shards=3)

    kept = [f"{number:02}.png" for number in range(80) if number not in lost]
    assert len(kept) < 60
    assert [record.filename for record in export[:]] == kept
    assert [failure.filename for failure in export.failures] == [f"{number:02}.png" for number in lost]
    assert tfzip.verify(export) == []


@pytest.fixture
def salted(digits, tmp_path):
    """A folder of good digits with everything that goes wrong in real ones; the good names and the bad."""
    source, _, _ = digits
    folder = tmp_path / "salted"
    folder.mkdir()
    good, bad = {}, {}
    for number, path in enumerate(sorted(source.rglob("*.png"))[::10]):
        name = f"{number % 4}/{path.name}".encode()
        good[name] = path.read_bytes()
    some = next(iter(good.values()))
    good[b"really a png.jpg"] = some
    good[b"0/caf\xe9 \xff.png"] = some  # not UTF-8
    good["0/été 猫.PNG".encode()] = some
    good[b'0/line\nbreak, "quoted".png'] = some
    rng = np.random.default_rng(0)
    for number in range(25):
        bad[b"1/empty %d.png" % number] = (b"", "decode")
        bad[b"2/random %d.jpg" % number] = (rng.bytes(500 + number), "decode")
        bad[b"3/truncated %d.png" % number] = (some[: 20 + number], "decode")
        bad[b"truncated-%d.jpg" % number] = (_jpeg(number)[: 200 + number], "decode")
    bad[b"not utf-8 \xe9\xff and random.jpg"] = (rng.bytes(99), "decode")
    bad[b"notes.tiff"] = (b"II*\0 no image that TensorFlow reads", "decode")
    for name, content in [*good.items(), *((name, content) for name, (content, _) in bad.items())]:
        path = os.path.join(os.fsencode(folder), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
    for number in range(5):
        name = f"dangling {number}.png"
        (folder / name).symlink_to("nowhere")
        bad[name.encode()] = (b"", "read")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "notes.txt").write_text("no image")
    return folder, good, bad


def _jpeg(seed):
    rng = np.random.default_rng(seed)
    return tf.io.encode_jpeg(rng.integers(0, 255, (40, 40, 3), np.uint8)).numpy()


@pytest.mark.parametrize("options", [{}, {"batch_size": 3, "shards": 5}, {"shuffle": 3, "shard_records": 9}], ids=str)
def test_bad_files_cost_one_line_each_and_no_good_one(salted, digits_model, tmp_path, options):
    folder, good, bad = salted
    export = tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True, **options)
    records = {record.filename.encode("utf-8", "surrogateescape"): record for record in export[:]}
    assert {name: record.encoded for name, record in records.items()} == good
    assert records[b"really a png.jpg"].format == "png"
    listed = {failure.filename: failure.stage for failure in export.failures}
    assert len(export.failures) == len(bad)
    for name, (_, stage) in bad.items():
        shown = name.decode() if b"\xff" not in name else "not%20utf-8%20%E9%FF%20and%20random.jpg".replace("%20", " ")
        assert listed[shown] == stage
    assert all(failure.error for failure in export.failures)
    counts = export.manifest["counts"]
    assert counts == {
        "images": len(good) + len(bad), "records": len(good), "failures": len(bad), "ignored": 2, "nonfinite": 0
    }  # fmt: skip
    assert tfzip.verify(export) == []
    # Those of the same bytes have the same scores, whoever failed beside them.
    same = [record.prediction.scores for name, record in records.items() if good[name] == good[b"really a png.jpg"]]
    assert len(same) == 5
    np.testing.assert_allclose(same, np.broadcast_to(same[0], np.shape(same)), atol=1e-5)


def test_a_batch_that_the_model_fails_on_is_done_again_one_by_one(digits, digits_model, tmp_path):
    folder, images, _ = digits
    poison = float(images[100].sum())
    sums = images.reshape(len(images), -1).sum(axis=1)
    assert (sums == poison).sum() < 50

    def fragile(pixels):
        healthy = tf.reduce_all(tf.reduce_sum(pixels, axis=(1, 2, 3)) != poison)
        with tf.control_dependencies([tf.debugging.Assert(healthy, ["poisoned"])]):
            return tf.identity(pixels)

    export = tfzip.export(
        str(folder), digits_model, str(tmp_path / "out"), quiet=True, batch_size=16, preprocess=fragile
    )
    poisoned = {f"{digits[2][number]}/{number:04d}.png" for number in np.flatnonzero(sums == poison)}
    assert {failure.filename for failure in export.failures} == poisoned
    assert {failure.stage for failure in export.failures} == {"predict"}
    assert len(export) == len(images) - len(poisoned)
    encoded = files_below(folder)
    expected = predictions_by_hand(digits_model, folder, sorted(set(encoded) - poisoned))
    assert_belongs_together(export[:], {name: encoded[name] for name in expected}, expected)


def test_an_item_that_fails_once_and_then_works_is_written_in_its_place(digits, digits_model, tmp_path, monkeypatch):
    folder, _, _ = digits
    paths = sorted(folder.rglob("*.png"))[::45]
    small = tmp_path / "small"
    small.mkdir()
    for path in paths:
        (small / path.name).write_bytes(path.read_bytes())
    late = small / paths[17].name
    late.write_bytes(b"")
    redo = pipeline.Stages.redo

    def repaired(stages, item):
        late.write_bytes(paths[17].read_bytes())  # a file that another program had not finished writing
        return redo(stages, item)

    monkeypatch.setattr(pipeline.Stages, "redo", repaired)
    export = tfzip.export(str(small), digits_model, str(tmp_path / "out"), quiet=True, batch_size=8)
    assert export.failures == []
    assert [record.filename for record in export[:]] == sorted(path.name for path in paths)
    assert tfzip.verify(export) == []
    encoded = files_below(small)
    assert_belongs_together(export[:], encoded, predictions_by_hand(digits_model, small, sorted(encoded)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"on_error": "fail"}, "1/empty"),
        ({"max_failures": 3}, "--max-failures is 3"),
        ({"max_failures": "1%"}, "--max-failures is 1%"),
    ],
    ids=str,
)
def test_too_many_failures_end_the_export_and_leave_nothing(salted, digits_model, tmp_path, options, said):
    folder, _, _ = salted
    with pytest.raises(tfzip.DataError, match=said):
        tfzip.export(str(folder), digits_model, str(tmp_path / "out"), quiet=True, **options)
    assert not (tmp_path / "out").exists()


def test_an_export_in_which_every_image_fails_is_an_error(digits_model, tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(5):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(tfzip.DataError, match=r"none of its 5 images gave a record; 0\.png: decode"):
        tfzip.export(str(tmp_path / "in"), digits_model, str(tmp_path / "out"), quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def plain(digits, digits_model, tmp_path_factory):
    """One export of the digits with their truth, for those who read it from outside."""
    out = tmp_path_factory.mktemp("plain") / "out"
    return tfzip.export(str(digits[0]), digits_model, str(out), quiet=True, source_labels="folder", shards=3), out


def test_plain_tensorflow_reads_every_shard(plain, digits):
    export, out = plain
    files = sorted(str(path) for path in out.glob("*.gz"))
    spec = {
        "image/encoded": tf.io.FixedLenFeature([], tf.string),
        "image/filename": tf.io.FixedLenFeature([], tf.string),
        "prediction/label": tf.io.FixedLenFeature([], tf.int64),
        "prediction/scores": tf.io.FixedLenFeature([10], tf.float32),
        "truth/label": tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = [tf.io.parse_single_example(r, spec) for r in tf.data.TFRecordDataset(files, "GZIP")]
    assert len(parsed) == 1797
    for example, record in zip(parsed, export[:], strict=True):
        name = example["image/filename"].numpy().decode()
        assert name == record.filename
        assert example["image/encoded"].numpy() == (digits[0] / name).read_bytes()
        np.testing.assert_array_equal(example["prediction/scores"], record.prediction.scores)
        assert int(example["truth/label"]) == int(name[0])


def test_records_are_the_deterministic_serialization_of_their_example(plain):
    _, out = plain
    for serialized in tf.data.TFRecordDataset(sorted(str(path) for path in out.glob("*.gz")), "GZIP").take(100):
        example = tf.train.Example.FromString(serialized.numpy())
        assert serialized.numpy() == example.SerializeToString(deterministic=True)
        assert set(example.features.feature) == {
            "image/encoded", "image/filename", "image/format", "image/height", "image/source_id", "image/width",
            "prediction/confidence", "prediction/label", "prediction/scores", "prediction/text",
            "truth/label", "truth/text",
        }  # fmt: skip


def test_gzip_accepts_the_shards(plain):
    _, out = plain
    files = sorted(out.glob("*.gz"))
    assert len(files) == 3
    subprocess.run(["gzip", "-t", *files], check=True)


def test_zipfile_csv_and_numpy_read_the_index(plain):
    import csv
    import io

    export, out = plain
    with zipfile.ZipFile(out / "index.zip") as archive:
        assert archive.testzip() is None
        rows = list(csv.DictReader(io.TextIOWrapper(archive.open("metadata.csv"), "utf-8")))
        columns = {
            name: np.load(archive.open(f"columns/{name}.npy")) for name in ("label", "confidence", "truth", "shard")
        }
        manifest = json.loads(archive.read("manifest.json"))
        assert archive.read("labels.txt").decode().split() == [str(label) for label in range(10)]
    assert len(rows) == 1797
    for number, (row, record) in enumerate(zip(rows, export[:], strict=True)):
        assert row["filename"] == record.filename
        assert row["prediction"] == row["label"] == str(record.prediction.label) == str(columns["label"][number])
        assert (
            np.float32(row["confidence"]) == np.float32(record.prediction.confidence) == columns["confidence"][number]
        )
        assert row["truth"] == record.filename[0] == str(columns["truth"][number])
        assert row["shard"] == str(columns["shard"][number])
    for shard in manifest["shards"]:
        content = (out / shard["file"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (shard["bytes"], shard["sha256"])


@pytest.mark.parametrize("image", ["keep", "jpeg:90", pytest.param("png", marks=pytest.mark.slow), "none"])
def test_a_record_holds_the_image_that_was_asked_for(photographs, photographs_model, tmp_path, image):
    export = tfzip.export(str(photographs), photographs_model, str(tmp_path / "out"), quiet=True, image=image, limit=60)
    kept = tfzip.export(str(photographs), photographs_model, str(tmp_path / "kept"), quiet=True, limit=60)
    formats = {record.format for record in export[:]}
    for record, other in zip(export[:], kept[:], strict=True):
        assert record.filename == other.filename
        np.testing.assert_allclose(record.prediction.scores, other.prediction.scores, atol=1e-5)
        assert (record.height, record.width) == (other.height, other.width)
        if image == "none":
            assert record.encoded is None
            assert record.format == other.format
        elif image == "keep":
            assert record.encoded == (photographs / record.filename).read_bytes()
        else:
            old, new = (tf.io.decode_image(r.encoded, 3, expand_animations=False).numpy() for r in (other, record))
            assert old.shape == new.shape
            difference = np.abs(old.astype(int) - new).mean()
            assert difference == 0 if image == "png" else 0 < difference < 30, (record.filename, difference)
    assert formats == ({"jpeg", "png", "gif", "bmp"} if image in ("keep", "none") else {image.partition(":")[0]})


def test_the_tfx_layout_leaves_nothing_but_shards_in_the_split_folder(digits, digits_model, tmp_path):
    folder, _, _ = digits
    out = tmp_path / "out"
    for split, limit in (("train", 200), ("eval", 100)):
        tfzip.export(str(folder), digits_model, str(out), quiet=True, layout="tfx", split=split, shards=2, limit=limit)
    assert sorted(path.name for path in out.iterdir()) == ["Split-eval", "Split-train", "tfzip-eval", "tfzip-train"]
    assert sorted(path.name for path in (out / "Split-eval").iterdir()) == [
        "images-eval.tfrecord-00000-of-00002.gz",
        "images-eval.tfrecord-00001-of-00002.gz",
    ]
    assert sorted(path.name for path in (out / "tfzip-eval").iterdir()) == [
        "dataset_info.json", "features.json", "index.zip", "run.json"
    ]  # fmt: skip
    assert [len(tfzip.open(str(out), split=split)) for split in ("train", "eval")] == [200, 100]
    assert tfzip.verify(tfzip.open(str(out), "eval")) == []
    with pytest.raises(tfzip.UsageError, match="eval, train"):
        tfzip.open(str(out))


def test_an_export_is_replaced_only_when_asked_and_only_when_the_new_one_is_whole(digits, digits_model, tmp_path):
    folder, _, _ = digits
    out = tmp_path / "out"
    tfzip.export(str(folder), digits_model, str(out), quiet=True, limit=50, shards=3)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(tfzip.OutputExistsError, match="--overwrite"):
        tfzip.export(str(folder), digits_model, str(out), quiet=True)
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.png").write_bytes(b"")
    with pytest.raises(tfzip.DataError):
        tfzip.export(str(bad), digits_model, str(out), quiet=True, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    (out / "mine.txt").write_text("not tfzip's")
    export = tfzip.export(str(folder), digits_model, str(out), quiet=True, overwrite=True, limit=80)
    assert len(export) == 80
    assert tfzip.verify(export) == []
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset_info.json", "features.json", "images-train.tfrecord-00000-of-00001.gz", "index.zip", "mine.txt",
        "run.json",
    ]  # fmt: skip


def test_a_folder_of_other_things_is_never_written_to(digits, digits_model, tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(tfzip.OutputExistsError):
            tfzip.export(str(digits[0]), digits_model, str(tmp_path), quiet=True, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_a_shard_that_cannot_be_finished_ends_the_export_and_leaves_no_file_open(
    digits, digits_model, tmp_path, monkeypatch
):
    written, write = threading.Semaphore(0), shards.write

    def write_and_tell(*given):
        finish = write(*given)
        written.release()
        return finish

    def fail(*_):
        assert written.acquire(timeout=60)
        assert written.acquire(timeout=60)  # the one after it is written, and waits to be finished
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shards, "write", write_and_tell)
    monkeypatch.setattr(checkpoint, "save_shard", fail)
    with pytest.raises(tfzip.OutputError, match="No space left"):
        tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), shards=3, quiet=True)
    gc.collect()  # a file that is still open would warn, which is an error here


def test_what_was_there_before_a_failed_export_is_there_after_it(digits_model, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    monkeypatch.chdir(tmp_path / "empty")
    for out in (str(tmp_path / "empty"), str(tmp_path / "link"), "."):
        with pytest.raises(tfzip.DataError, match=r"bad\.png"):
            tfzip.export(str(tmp_path / "in"), digits_model, out, quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "in", "link"]
    assert list((tmp_path / "empty").iterdir()) == []


def test_the_tfx_layout_goes_beside_splits_only(digits, digits_model, tmp_path):
    flat = tmp_path / "flat"
    tfzip.export(str(digits[0]), digits_model, str(flat), quiet=True, limit=5)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("x")
    for out in (flat, tmp_path / "other"):
        with pytest.raises(tfzip.OutputExistsError, match="no split in the tfx layout"):
            tfzip.export(str(digits[0]), digits_model, str(out), quiet=True, layout="tfx", overwrite=True)
    assert len(tfzip.open(flat)) == 5


def test_a_dry_run_tells_and_writes_nothing(digits, digits_model, tmp_path, capsys):
    assert tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), dry_run=True, shards=4) is None
    said = capsys.readouterr().out
    assert "1797 images" in said
    assert "00000-of-00004.gz" in said
    assert "multiclass, 10 classes" in said
    assert list(tmp_path.iterdir()) == []


def test_names_given_and_truth_that_is_not_among_them(digits, digits_model, tmp_path):
    labels = tmp_path / "labels.txt"
    names = ["zero", "one", "two", "three", "4", "5", "6", "7", "8", "nine"]
    labels.write_text("\n".join(names) + "\n")
    export = tfzip.export(
        str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True, labels=str(labels), source_labels="folder"
    )
    assert export.labels == names
    assert export.manifest["labels"]["from"] == "file"
    for record in export[:]:
        assert record.prediction.text == names[record.prediction.label]
        assert record.truth.text == record.filename[0]
        assert record.truth.label == (int(record.truth.text) if record.truth.text in "45678" else -1)


def test_works_where_tensorflow_keeps_files_in_memory(digits, digits_model, tmp_path):
    folder = f"ram://{tmp_path.name}/in"
    encoded = {name: data for number, (name, data) in enumerate(files_below(digits[0]).items()) if number % 20 == 0}
    for name, data in encoded.items():
        tf.io.gfile.makedirs(os.path.dirname(f"{folder}/{name}"))
        with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
            file.write(data)
    local = tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True)
    export = tfzip.export(folder, digits_model, f"ram://{tmp_path.name}/out", quiet=True, shards=2)
    assert {record.filename: record.encoded for record in export[:]} == encoded
    for record in export[:]:
        np.testing.assert_allclose(record.prediction.scores, local[record.filename].prediction.scores, atol=1e-5)
    assert tfzip.verify(export) == []
