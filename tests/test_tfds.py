"""Exports as TensorFlow Datasets sees them, record by record what tfzip itself reads."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import readers
import tensorflow as tf
import tensorflow_datasets as tfds

import tfzip
from tfzip import dataset_info, storage
from tfzip.errors import NotAnExportError, UsageError
from tfzip.interop import tfds as interop

IN_ORDER = tfds.ReadConfig(interleave_cycle_length=1)


class Boxes(tf.Module):
    """As many boxes as the image's mean says, the classes counted from 1."""

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8)])
    def __call__(self, pixels):
        mean = tf.reduce_mean(tf.cast(pixels, tf.float32), axis=(1, 2, 3)) / 255
        scores = tf.sort(tf.stack([mean, mean * 1.5, mean * 2], axis=1), direction="DESCENDING")
        corners = tf.stack([scores / 4, scores / 3, scores / 2, scores], axis=2)
        classes = tf.broadcast_to([[1.0, 2.0, 1.0]], tf.shape(scores))
        return {"detection_boxes": corners, "detection_scores": scores, "detection_classes": classes}


class Raw(tf.Module):
    """Outputs of several types and shapes."""

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.uint8)])
    def __call__(self, pixels):
        flat = tf.cast(pixels[:, :, :2, 0], tf.float32)
        words = tf.strings.as_string(tf.cast(pixels[:, :3, 3, 0], tf.int64))
        return {"corner": flat, "sum": tf.reduce_sum(tf.cast(pixels, tf.int64), axis=(1, 2, 3)), "words": words}


KINDS = {
    "gzip": {"source_labels": "folder", "shards": 3},
    "plain": {"source_labels": "folder", "shards": 3, "compression": "none"},
    "tfx": {"source_labels": "folder", "shards": 2, "layout": "tfx"},
    "tfx, plain": {"shards": 2, "layout": "tfx", "compression": "none"},
    "multilabel": {"task": "multilabel", "scores": "probabilities", "threshold": 0.2, "compression": "none"},
    "detection": {"compression": "none", "min_score": 0.3, "model": Boxes()},
    "raw": {"compression": "none", "task": "raw", "model": Raw()},
    "no images": {"image": "none", "compression": "none"},
    "multilabel, named": {
        "task": "multilabel",
        "scores": "probabilities",
        "threshold": 0.2,
        "labels": list("abcdefghij"),
    },
    "detection, named": {"min_score": 0.3, "model": Boxes(), "labels": ["none", "dark", "light"]},
    "named with spaces": {"labels": ["a", "a ", *"bcdefghi"], "compression": "none"},
    "named twice": {"labels": ["a", "b", "b", *"defghij"], "compression": "none"},
    "named": {"labels": list("abcdefghij"), "compression": "none"},
    "selected": {"compression": "none"},
}


@pytest.fixture(scope="module")
def exports(digits, digits_model, tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("tfds"), {}
    for kind, asked in KINDS.items():
        options = {"limit": 120, "shuffle": 1, "quiet": True} | asked
        out = folder / kind.replace(", ", "_").replace(" ", "_")
        made[kind] = tfzip.export(str(digits[0]), options.pop("model", digits_model), str(out), **options)
    made["selected"] = tfzip.select(made["selected"], folder / "chosen", min_confidence=0.3, soft=True)
    return made


def same(ours, theirs):
    """Whether an example of `export.dataset()` and one of TFDS are equal, the image aside."""
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        if key != "image/encoded":
            np.testing.assert_array_equal(np.asarray(theirs[key]), value.numpy(), key)


def compared(export, dataset, rows=slice(None)):
    """Compare every record, or those of some rows; returns how many there were."""
    examples = list(tfds.as_numpy(dataset))
    pictures = iter(list(export)[rows]) if "image/encoded" in export.features else None
    for example, ours in zip(examples, list(export.dataset())[rows], strict=True):
        same(ours, example)
        if pictures is not None:
            _, filename, picture = next(pictures)
            assert filename == example["image/filename"].decode()
            np.testing.assert_array_equal(example["image/encoded"], picture)
    return len(examples)


@pytest.mark.parametrize("kind", KINDS)
def test_the_builder_gives_every_record(exports, kind):
    export = exports[kind]
    assert len({str(record.prediction) + str(record.outputs) for record in export.records()}) > 5
    dataset = interop.builder(export).as_dataset(split="train", read_config=IN_ORDER)
    assert dataset.cardinality() == len(export)
    assert compared(export, dataset) == len(export) > 0


@pytest.mark.parametrize("kind", [kind for kind, asked in KINDS.items() if asked.get("compression") == "none"])
def test_what_is_not_compressed_tfds_reads_by_itself(exports, kind):
    export = exports[kind]
    dataset = tfds.builder_from_directory(export.home).as_dataset(split="train", read_config=IN_ORDER)
    assert compared(export, dataset) == len(export) > 0


@pytest.mark.parametrize(
    ("split", "rows"),
    [
        ("train[:10%]", slice(0, 12)),
        ("train[7:50]", slice(7, 50)),
        ("train[50%:]", slice(60, 120)),
        ("train[-3:]", slice(117, 120)),
    ],
)
def test_slices_are_those_of_the_export(exports, split, rows):
    plain = tfds.builder_from_directory(exports["plain"].home)
    for kind, builder in (("gzip", interop.builder(exports["gzip"])), ("plain", plain)):
        assert len(exports[kind]) == 120
        dataset = builder.as_dataset(split=split, read_config=IN_ORDER)
        assert compared(exports[kind], dataset, rows) == len(range(120)[rows])


def test_several_slices_at_once(exports):
    export = exports["gzip"]
    parts = interop.builder(export).as_dataset(split=["train[:25%]", "train[25%:]"], read_config=IN_ORDER)
    assert [compared(export, *part) for part in zip(parts, (slice(30), slice(30, None)), strict=True)] == [30, 90]


def test_supervised_are_the_image_and_its_label(exports):
    for kind, key in (("gzip", "prediction/label"), ("selected", "image/class/label")):
        export = exports[kind]
        pairs = interop.builder(export).as_dataset(split="train", as_supervised=True, read_config=IN_ORDER)
        for (image, label), ours, (_, _, picture) in zip(tfds.as_numpy(pairs), export.dataset(), export, strict=True):
            np.testing.assert_array_equal(image, picture)
            assert label == ours[key].numpy()


def test_decoders(exports):
    builder = interop.builder(exports["gzip"])
    skipping = {"image/encoded": tfds.decode.SkipDecoding()}
    dataset = builder.as_dataset(split="train", decoders=skipping, read_config=IN_ORDER)
    for example, record in zip(tfds.as_numpy(dataset), exports["gzip"].records(), strict=True):
        assert example["image/encoded"] == record.encoded
    partly = tfds.decode.PartialDecoding({"image/filename", "prediction/label"})
    dataset = builder.as_dataset(split="train", decoders=partly, read_config=IN_ORDER)
    assert list(tfds.as_numpy(dataset)) == [
        {"image/filename": record.filename.encode(), "prediction/label": record.prediction.label}
        for record in exports["gzip"].records()
    ]
    made = tfds.decode.make_decoder(output_dtype=tf.int32)(lambda example, _: tf.strings.length(example))
    dataset = builder.as_dataset(split="train", decoders={"image/encoded": made()}, read_config=IN_ORDER)
    lengths = [example["image/encoded"] for example in tfds.as_numpy(dataset)]
    assert lengths == [len(record.encoded) for record in exports["gzip"].records()]


def test_shuffled_files_and_ids(exports):
    config = tfds.ReadConfig(shuffle_seed=3, add_tfds_id=True)
    dataset = interop.builder(exports["gzip"]).as_dataset(split="train", shuffle_files=True, read_config=config)
    examples = list(tfds.as_numpy(dataset))
    names = [example["image/filename"].decode() for example in examples]
    assert names != list(exports["gzip"].metadata["filename"])
    assert sorted(names) == sorted(exports["gzip"].metadata["filename"])
    assert len({example["tfds_id"] for example in examples}) == len(names)


@pytest.mark.parametrize("kind", ["gzip", "detection", "named twice"])
def test_shown_as_a_table_and_as_pictures(exports, kind):
    matplotlib.use("agg")
    builder = interop.builder(exports[kind])
    dataset = builder.as_dataset(split="train[:9]", read_config=IN_ORDER)
    table = tfds.as_dataframe(dataset, builder.info)
    assert [name.decode() for name in table["image/filename"]] == list(exports[kind].metadata["filename"][:9])
    assert table.current_style.to_html().count("<img") == 9
    figure = tfds.show_examples(dataset, builder.info)
    assert len(figure.axes) == 9
    assert figure.axes[0].images


def test_class_names(exports):
    named = interop.builder(exports["named"]).info.features["prediction/label"]
    assert named.names == list("abcdefghij")
    twice = interop.builder(exports["named twice"]).info.features["prediction/label"]
    assert twice.num_classes == 10
    truth = interop.builder(exports["gzip"]).info.features["truth/label"]
    assert truth.names == exports["gzip"].labels


@pytest.mark.parametrize(("reader", "kind"), [("TFDS", "gzip"), ("TFDS by itself", "plain")])
def test_the_code_in_the_readme(exports, reader, kind):
    code = readers.reading(reader).replace("labelled", exports[kind].path)
    dataset = eval(code, {"tfzip": tfzip, "tfds": tfds}).as_dataset(split="train", read_config=IN_ORDER)
    assert compared(exports[kind], dataset) == 120


@pytest.mark.slow
def test_the_script_in_the_readme(exports, tmp_path):
    """As a newcomer runs it: with nothing imported before."""
    tfzip.select(exports["gzip"], tmp_path / "pseudo", min_confidence=0.2, validation=0.3)
    (code,) = (piece for piece in readers.pieces() if "interop.tfds" in piece)
    code += "print(len(builder.as_dataset(split='train')), len(dataset), len(table), len(figure.axes))\n"
    shown = {"MPLBACKEND": "agg", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | shown, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    train, held = (len(tfzip.open(tmp_path / "pseudo" / split)) for split in ("train", "validation"))
    assert list(map(int, done.stdout.split())) == [train, round(train * 0.1), min(held, 9), 9]


def test_loaded_by_name(digits, digits_model, tmp_path):
    out = tmp_path / "numbers" / "1.0.0"
    export = tfzip.export(
        str(digits[0]), digits_model, str(out), name="numbers", limit=30, compression="none", quiet=True
    )
    dataset, info = tfds.load("numbers", data_dir=tmp_path, split="train", with_info=True, read_config=IN_ORDER)
    assert compared(export, dataset) == info.splits["train"].num_examples == 30


@pytest.mark.slow
def test_several_folders_are_one_data_set(exports, tmp_path):
    export = exports["plain"]
    chosen = tfzip.select(export, tmp_path / "chosen", min_confidence=0.2, validation=0.3)
    folders = [str(tmp_path / "chosen" / split) for split in ("train", "validation")]
    counts = {split: len(tfzip.open(folder)) for split, folder in zip(("train", "validation"), folders, strict=True)}
    assert min(counts.values()) > 0
    for builder in (
        tfds.builder_from_directories(folders),
        interop.builder(*folders),
        interop.builder(chosen, folders[1]),
    ):
        assert {name: split.num_examples for name, split in builder.info.splits.items()} == counts
        for name, folder in zip(counts, folders, strict=True):
            assert compared(tfzip.open(folder), builder.as_dataset(split=name, read_config=IN_ORDER)) == counts[name]
        both = builder.as_dataset(split="train+validation")
        assert len(list(both)) == sum(counts.values())


def test_all_splits_of_the_tfx_layout(exports, tmp_path):
    tfzip.select(exports["gzip"], tmp_path / "both", min_confidence=0.2, validation=0.3, layout="tfx")
    builder = interop.builder(tmp_path / "both")
    assert set(builder.info.splits) == {"train", "validation"}
    for split in ("train", "validation"):
        export = tfzip.open(tmp_path / "both", split)
        assert compared(export, builder.as_dataset(split=split, read_config=IN_ORDER)) == len(export) > 0


def test_compressed_and_not_together(exports):
    builder = interop.builder(exports["gzip"], exports["plain"])
    dataset = builder.as_dataset(split="train", read_config=IN_ORDER)
    names = [example["image/filename"].decode() for example in tfds.as_numpy(dataset)]
    assert names == [*exports["gzip"].metadata["filename"], *exports["plain"].metadata["filename"]]


def test_a_builder_survives_pickling(exports):
    builder = pickle.loads(pickle.dumps(interop.builder(exports["gzip"], exports["plain"])))
    assert compared(exports["gzip"], builder.as_dataset(split="train[:120]", read_config=IN_ORDER)) == 120
    assert compared(exports["plain"], builder.as_dataset(split="train[120:]", read_config=IN_ORDER)) == 120


def test_photographs_in_any_format(photographs, photographs_model, tmp_path):
    """Of which plain TFDS would make no picture: GIFs, here, among JPEGs and PNGs."""
    options = {"limit": 40, "shuffle": 2, "compression": "none", "quiet": True}
    export = tfzip.export(str(photographs), photographs_model, str(tmp_path / "out"), **options)
    assert "gif" in export.manifest["formats"]
    assert {record.format for record in export.records()} == set(export.manifest["formats"])
    assert compared(export, interop.builder(export).as_dataset(split="train", read_config=IN_ORDER)) == 40
    plain = tfds.builder_from_directory(export.path).as_dataset(split="train", read_config=IN_ORDER)
    for example, record in zip(tfds.as_numpy(plain), export.records(), strict=True):
        assert example["image/encoded"] == record.encoded


@pytest.mark.slow
def test_pictures_of_some_formats_behind_those_of_others(photographs, photographs_model, tmp_path):
    """TFDS asks the first export alone how to decode."""
    made = []
    for suffix in ("*.jpg", "*.gif"):
        out = str(tmp_path / suffix[2:])
        options = {"compression": "none", "limit": 9, "quiet": True}
        made.append(tfzip.export(f"{photographs}/**/{suffix}", photographs_model, out, **options))
    for first, second in (made, made[::-1]):
        dataset = interop.builder(first, second).as_dataset(split="train", read_config=IN_ORDER)
        assert compared(first, dataset.take(9)) == compared(second, dataset.skip(9)) == 9


def test_where_tfds_cannot_read(exports):
    ram = "ram://tfds"
    for name in sorted(os.listdir(exports["gzip"].path)):
        with open(os.path.join(exports["gzip"].path, name), "rb") as file:
            storage.write_whole(storage.join(ram, name), file.read())
    with pytest.raises(UsageError, match="TFDS reads no such path"):
        interop.builder(ram)


def test_features_that_a_tfrecord_brought(digits, digits_model, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "known.tfrecord")) as writer:
        for number, image in enumerate(sorted((digits[0] / "3").iterdir())[:20]):
            features = {
                "image/encoded": tf.train.Feature(bytes_list={"value": [image.read_bytes()]}),
                "image/class/label": tf.train.Feature(int64_list={"value": [990 + number]}),
                "weights": tf.train.Feature(float_list={"value": [0.5] * number}),
            }
            writer.write(tf.train.Example(features={"feature": features}).SerializeToString())
    options = {"compression": "none", "quiet": True}
    export = tfzip.export(f"tfrecord:{tmp_path}/known.tfrecord", digits_model, str(tmp_path / "out"), **options)
    for builder in (interop.builder(export), tfds.builder_from_directory(export.path)):
        assert not isinstance(builder.info.features["image/class/label"], tfds.features.ClassLabel)
        assert compared(export, builder.as_dataset(split="train", read_config=IN_ORDER)) == 20


def test_filenames_that_are_no_text(digits, digits_model, tmp_path):
    image = next((digits[0] / "1").iterdir()).read_bytes()
    for name in (b"caf\xe9.png", b"<b>.png", "café.png".encode()):
        with open(os.path.join(os.fsencode(tmp_path), b"images-" + name), "wb") as file:
            file.write(image)
    export = tfzip.export(str(tmp_path), digits_model, str(tmp_path / "out"), compression="none", quiet=True)
    for builder in (interop.builder(export), tfds.builder_from_directory(export.path)):
        found = [example["image/filename"] for example in tfds.as_numpy(builder.as_dataset(split="train"))]
        assert sorted(found) == sorted(name.encode("utf-8", "surrogateescape") for name in export.metadata["filename"])
        tfds.as_dataframe(builder.as_dataset(split="train"), builder.info).current_style.to_html()


def test_what_another_export_left_for_tfds_goes(digits, digits_model, tmp_path):
    out, options = str(tmp_path / "out"), {"limit": 20, "compression": "none", "quiet": True}
    tfzip.export(str(digits[0]), digits_model, out, source_labels="folder", **options)
    assert os.path.exists(f"{out}/truth.label.labels.txt")
    with open(f"{out}/notes.txt", "w") as file:
        file.write("mine")
    export = tfzip.export(str(digits[0]), Raw(), out, task="raw", overwrite=True, **options)
    left = {name for name in os.listdir(out) if ".tfrecord-" not in name}
    assert left == {"index.zip", "run.json", "dataset_info.json", "features.json", "notes.txt"}
    assert compared(export, tfds.builder_from_directory(out).as_dataset(split="train", read_config=IN_ORDER)) == 20


def test_verify_finds_what_would_mislead_tfds(exports, tmp_path):
    export = tfzip.open(shutil.copytree(exports["named"].path, tmp_path / "copy"))
    assert not tfzip.verify(export)
    names = tmp_path / "copy" / "prediction.label.labels.txt"
    names.write_text(names.read_text().replace("a\nb", "b\na"))
    (tmp_path / "copy" / "features.json").unlink()
    (tmp_path / "copy" / "truth.label.labels.txt").write_text("of another export")
    assert [line.partition(":")[0] for line in tfzip.verify(export)] == [
        "features.json", "prediction.label.labels.txt", "truth.label.labels.txt"
    ]  # fmt: skip


def test_without_tfds_nothing_is_begun(digits, digits_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UsageError, match="pip install -U tensorflow-datasets"):
        tfzip.export(str(digits[0]), digits_model, str(tmp_path / "out"), quiet=True, limit=20)
    assert not (tmp_path / "out").exists()


def test_only_files_that_are_known_are_written(exports):
    for export in exports.values():
        names = {name for name in os.listdir(export.home) if ".tfrecord-" not in name} - {"index.zip", "run.json"}
        assert names <= set(dataset_info.NAMES)
        assert {"dataset_info.json", "features.json"} <= names
        with open(os.path.join(export.home, "dataset_info.json")) as file:
            told = json.load(file)
        assert sum(map(int, told["splits"][0]["shardLengths"])) == len(export)


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ([], UsageError, "give an export"),
        (["plain", "raw"], UsageError, "differ in their features"),
        (["named", "named with spaces"], UsageError, "differ in their labels"),
        (["nothing"], NotAnExportError, "no such folder"),
    ],
)
def test_what_is_no_data_set(exports, given, error, told):
    with pytest.raises(error, match=told):
        interop.builder(*(exports.get(name, name) for name in given))
