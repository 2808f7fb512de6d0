"""The same real digits as every kind of source, and what an export of each must hold."""

import csv
import dataclasses
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import tfzip

WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Digits as files in class folders below a folder; the lists are in the order of the names."""

    folder: Path
    names: list[str]
    encoded: list[bytes]
    pixels: list[np.ndarray]
    classes: list[int]

    @property
    def words(self):
        return [WORDS[label] for label in self.classes]


def pictures_of(digits, folder, count):
    """So many of the digits, copied to a folder."""
    every, images, _ = digits
    paths = sorted(every.rglob("*.png"))
    paths = [paths[number] for number in np.linspace(0, len(paths) - 1, count).astype(int)]
    names = [path.relative_to(every).as_posix() for path in paths]
    encoded = [path.read_bytes() for path in paths]
    for name, content in zip(names, encoded, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    pixels = [images[int(path.stem)] for path in paths]
    return Pictures(folder, names, encoded, pixels, [int(name[0]) for name in names])


def scores_of(pictures, model):
    """What a model says of each picture; mixing up two would be seen."""
    table = model.predict(np.stack(pictures.pixels), verbose=0)
    assert len(np.unique(table.round(4), axis=0)) > len(pictures.names) * 3 / 4
    assert len(set(table.argmax(axis=1))) > 5
    return table


@dataclasses.dataclass(frozen=True)
class Case:
    """A source: `source` gives it, `names` are the filenames that it must have, in order, and `order` whose they are.

    `truths` are label and text of each, `extra` the values of each further column with its dtype.
    """

    source: Callable[[], Any]
    names: Sequence[str]
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    order: Sequence[int] | None = None
    truths: Sequence[tuple[int, str]] | None = None
    extra: Mapping[str, tuple[str, Sequence[Any]]] = dataclasses.field(default_factory=dict)
    pixels: bool = False


def numbered(count, split="train"):
    return [f"{split}/{number:08d}" for number in range(count)]


# Folders, lists, tables.


def folder(pictures, _):
    truths = [(label, str(label)) for label in pictures.classes]
    return Case(lambda: str(pictures.folder), pictures.names, {"source_labels": "folder"}, truths=truths)


def glob(pictures, _):
    return Case(lambda: f"{pictures.folder}/*/*.png", pictures.names)


def relative_list(pictures, _):
    path = pictures.folder / "relative.txt"
    path.write_text("\n".join(reversed(pictures.names)))
    order = list(range(len(pictures.names)))[::-1]
    return Case(lambda: str(path), [pictures.names[i] for i in order], order=order)


def absolute_list(pictures, below):
    path = below / "absolute.txt"
    path.write_text("".join(f"{pictures.folder}/{name}\n" for name in pictures.names))
    return Case(lambda: str(path), pictures.names)


def csv_table(pictures, below):
    path = below / "table.csv"
    numbers = list(range(len(pictures.names)))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["weight", "label", "path", "number", "note"])
        for i, name, word in zip(numbers, pictures.names, pictures.words, strict=True):
            writer.writerow([i / 8, word, name, i - 3, f'a "note", {i}\n猫'])
    return Case(
        lambda: str(path),
        pictures.names,
        {"root": str(pictures.folder), "labels": WORDS},
        truths=list(zip(pictures.classes, pictures.words, strict=True)),
        extra={
            "weight": ("float", [i / 8 for i in numbers]),
            "number": ("int64", [i - 3 for i in numbers]),
            "note": ("bytes", [f'a "note", {i}\n猫'.encode() for i in numbers]),
        },
    )


def jsonl_table(pictures, below):
    path = below / "table.jsonl"
    rows = zip(pictures.names, pictures.classes, strict=True)
    lines = [json.dumps({"image": name, "class": label, "box": [label, name]}) for name, label in rows]
    path.write_text("\n".join(lines))
    boxes = [f'[{label}, "{name}"]'.encode() for name, label in zip(pictures.names, pictures.classes, strict=True)]
    return Case(
        lambda: str(path),
        pictures.names,
        {"root": str(pictures.folder)},
        truths=[(label, str(label)) for label in pictures.classes],
        extra={"box": ("bytes", boxes)},
    )


# Archives.


def write_tar(path, files, mode="w"):
    """Write files, by their names, to a tar."""
    with tarfile.open(path, mode) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def _files(pictures):
    return list(zip(pictures.names, pictures.encoded, strict=True))


def tar(pictures, below):
    path = write_tar(below / "images.tar", [("notes.txt", b"no image"), *_files(pictures)])
    return Case(lambda: path, pictures.names)


def tar_gz(pictures, below):
    path = write_tar(below / "images.tar.gz", _files(pictures), "w:gz")
    return Case(lambda: path, pictures.names)


def several_tars(pictures, below):
    half = len(pictures.names) // 2
    write_tar(below / "part-0.tar", _files(pictures)[:half])
    write_tar(below / "part-1.tar", _files(pictures)[half:])
    return Case(lambda: f"{below}/part-*.tar", pictures.names)


def zip_of(compression):
    def make(pictures, below):
        path = below / f"images-{compression}.zip"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in _files(pictures):
                archive.writestr(name, content)
        return Case(lambda: str(path), pictures.names)

    return make


def webdataset(suffix):
    """Samples as WebDataset has them, in a tar or a compressed one."""

    def make(pictures, below):
        files = []
        for i, (name, content) in enumerate(_files(pictures)):
            key = name.removesuffix(".png")
            about = json.dumps({"number": i, "half": i / 2, "word": pictures.words[i]})
            files += [(f"{key}.cls", b"%d\n" % pictures.classes[i]), (name, content), (f"{key}.json", about.encode())]
        path = write_tar(below / f"samples{suffix}", files, "w:gz" if suffix.endswith("gz") else "w")
        numbers = range(len(pictures.names))
        return Case(
            lambda: path,
            pictures.names,
            truths=[(label, str(label)) for label in pictures.classes],
            extra={
                "number": ("int64", list(numbers)),
                "half": ("float", [i / 2 for i in numbers]),
                "word": ("bytes", [word.encode() for word in pictures.words]),
            },
        )

    return make


# TFRecords, TFDS, exports.


def ints(*values):
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))


def floats(*values):
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def texts(*values):
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**features):
    """A serialized Example; two underscores in a name stand for a slash."""
    named = {name.replace("__", "/"): value for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString(deterministic=True)


def write_tfrecord(path, records, compression=""):
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return f"tfrecord:{path}"


def tfrecord(compression="", files=1, **options):
    def make(pictures, below):
        records = [
            example(
                image__encoded=texts(content),
                image__filename=texts(name.encode()),
                image__class__label=ints(label),
                tags=texts(*[b"tag"] * (label % 3)),
            )
            for name, content, label in zip(pictures.names, pictures.encoded, pictures.classes, strict=True)
        ]
        parts = np.array_split(np.arange(len(records)), files)
        for number, part in enumerate(parts):
            write_tfrecord(below / f"old-{number}.tfrecord", [records[i] for i in part], compression)
        return Case(
            lambda: f"tfrecord:{below}/old-*.tfrecord",
            pictures.names,
            {"truth_key": "image/class/label", **options},
            truths=[(label, str(label)) for label in pictures.classes],
        )

    return make


def tfds(pictures, below):
    """A data set prepared by TFDS itself; its files have names of their own."""
    import tensorflow_datasets

    features = tensorflow_datasets.features
    numbers = range(len(pictures.names))
    items = [
        {
            "image": str(pictures.folder / name),
            "digit": pictures.classes[i],
            "about": {"number": i, "even": i % 2 == 0},
            "half": i / 2,
            "note": f"note {i}",
            "box": tensorflow_datasets.features.BBox(0.0, 0.0, 0.5, 1.0),
        }
        for i, name in enumerate(pictures.names)
    ]
    described = features.FeaturesDict(
        {
            "image": features.Image(shape=(8, 8, 1), encoding_format="png"),
            "digit": features.ClassLabel(names=WORDS),
            "about": {"number": features.Scalar(np.int32), "even": features.Scalar(np.bool_)},
            "half": features.Scalar(np.float64),
            "note": features.Text(),
            "box": features.BBoxFeature(),
        }
    )
    builder = tensorflow_datasets.dataset_builders.store_as_tfds_dataset(
        name="some_digits",
        version="1.0.0",
        features=described,
        split_datasets={"test": list(enumerate(items))},
        data_dir=str(below),
        disable_shuffling=True,
    )
    return Case(
        lambda: f"tfds:{builder.data_dir}",
        numbered(len(pictures.names), "test"),
        {"source_split": "test"},
        truths=list(zip(pictures.classes, pictures.words, strict=True)),
        extra={
            "about/number": ("int64", list(numbers)),
            "about/even": ("int64", [int(i % 2 == 0) for i in numbers]),
            "half": ("float", [i / 2 for i in numbers]),
            "note": ("bytes", [b"note %d" % i for i in numbers]),
        },
        pixels=True,  # TFDS encodes images anew
    )


def exported(compression):
    """An export by a model whose predictions the new export must not keep."""

    def make(pictures, below):
        import keras

        case, out = csv_table(pictures, below), str(below / "export")
        layers = [keras.layers.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dense(3, "softmax")]
        options = {"root": str(pictures.folder), "scale": "raw", "compression": compression}
        tfzip.export(case.source(), keras.Sequential(layers), out, quiet=True, **options)
        return dataclasses.replace(case, source=lambda: out, options={"labels": WORDS})

    return make


# From Python.


def _columns(pictures):
    return {"image": pictures.encoded, "filename": pictures.names, "label": pictures.classes}


def dataset(pictures, _):
    return Case(
        lambda: tf.data.Dataset.from_tensor_slices(_columns(pictures)),
        pictures.names,
        truths=[(label, str(label)) for label in pictures.classes],
    )


def dataset_of_pixels(pictures, _):
    columns = {"pixels": np.stack(pictures.pixels), "id": pictures.names, "word": pictures.words}
    return Case(
        lambda: tf.data.Dataset.from_tensor_slices(columns),
        pictures.names,
        {"image_key": "pixels", "filename_key": "id", "truth_key": "word", "labels": WORDS},
        truths=list(zip(pictures.classes, pictures.words, strict=True)),
        pixels=True,
    )


def dataset_without_names(pictures, _):
    columns = {"image": pictures.encoded}
    return Case(
        lambda: tf.data.Dataset.from_tensor_slices(columns), numbered(len(pictures.names), "eval"), {"split": "eval"}
    )


def pairs(pictures, _):
    return Case(lambda: _files(pictures), pictures.names)


def triples(pictures, _):
    return Case(
        lambda: list(zip(pictures.names, pictures.pixels, pictures.classes, strict=True)),
        pictures.names,
        truths=[(label, str(label)) for label in pictures.classes],
        pixels=True,
    )


def dicts(pictures, _):
    def items():
        paths = [str(pictures.folder / name) for name in pictures.names]
        for name, image, label in zip(pictures.names, paths, pictures.words, strict=True):
            yield {"label": label, "image": image, "filename": name}

    truths = list(zip(pictures.classes, pictures.words, strict=True))
    return Case(items, pictures.names, {"labels": WORDS}, truths=truths)


def array(pictures, _):
    return Case(lambda: np.stack(pictures.pixels), numbered(len(pictures.names)), pixels=True)


SOURCES = {
    "folder": folder,
    "glob": glob,
    "list": relative_list,
    "list of absolute paths": absolute_list,
    "csv": csv_table,
    "jsonl": jsonl_table,
    "tar": tar,
    "several tars": several_tars,
    "tar.gz": tar_gz,
    "zip, stored": zip_of(zipfile.ZIP_STORED),
    "zip, deflated": zip_of(zipfile.ZIP_DEFLATED),
    "webdataset": webdataset(".tar"),
    "webdataset, compressed": webdataset(".tgz"),
    "tfrecord": tfrecord(),
    "tfrecord, compressed": tfrecord("GZIP"),
    "tfrecord, several files": tfrecord(files=3),
    "tfrecord, shuffled": tfrecord(files=2, shuffle=1),
    "tfds": tfds,
    "export": exported("gzip"),
    "export, uncompressed": exported("none"),
    "dataset": dataset,
    "dataset of pixels": dataset_of_pixels,
    "dataset without names": dataset_without_names,
    "array": array,
    "pairs": pairs,
    "triples": triples,
    "generator of dicts": dicts,
}

ITERABLES = ("pairs", "triples", "generator of dicts")
