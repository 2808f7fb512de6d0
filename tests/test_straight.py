"""A map that stays on one thread gives what `Dataset.map` gives, and is used for most images of most sources."""

import io
import itertools
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import operations
from PIL import Image

import tfzip
from tfzip import pipeline, straight, unusual
from tfzip.job import prepare
from tfzip.options import Options
from tfzip.sources import open_source

NUMBERS = tf.data.Dataset.range(6).map(lambda number: {"slot": number, "name": tf.strings.as_string(number)})
TABLE = tf.constant([3, 1, 4, 1, 5, 9], tf.int64)


@tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
def called(number):
    return number * 7


STRAIGHT = {
    "plain": lambda item: {"z": item["slot"] + 1, "a": item["name"], "m": tf.cast(item["slot"], tf.float32)},
    "of a tensor outside": lambda item: {**item, "slot": tf.gather(TABLE, item["slot"])},
    "failing": lambda item: {"slot": tf.gather(TABLE, 2 * item["slot"])},
    "of open shape": lambda item: {"row": tf.range(item["slot"])},
    "in Python": lambda item: {"slot": tf.py_function(lambda number: number + 1, [item["slot"]], tf.int64)},
}
WINDING = {
    "branch": lambda item: {"slot": tf.cond(item["slot"] > 2, lambda: item["slot"], lambda: -item["slot"])},
    "branches": lambda item: {"slot": tf.switch_case(tf.cast(item["slot"], tf.int32), [lambda: 1, lambda: 2])},
    "loop": lambda item: {
        "slot": tf.while_loop(lambda i: i < item["slot"], lambda i: i + 2, [tf.constant(0, tf.int64)])[0]
    },
    "call": lambda item: {"slot": called(item["slot"])},
    "call that fails": lambda item: {"slot": tf.gather(TABLE, 2 * called(item["slot"]))},
}


def traced(function, spec):
    return tf.function(function, input_signature=[spec], autograph=False).get_concrete_function()


@pytest.mark.parametrize("name", [*STRAIGHT, *WINDING])
def test_it_gives_what_the_map_of_tensorflow_gives(name):
    function = {**STRAIGHT, **WINDING}[name]
    ours, theirs = straight.mapped(NUMBERS, function), NUMBERS.map(function)
    assert ours.element_spec == theirs.element_spec
    assert straight.is_straight(traced(function, NUMBERS.element_spec)) == (name in STRAIGHT)
    found, expected = (list(dataset.ignore_errors().as_numpy_iterator()) for dataset in (ours, theirs))
    assert len(found) == len(expected) == (3 if name == "failing" else 1 if "fails" in name else 6)
    for mine, other in zip(found, expected, strict=True):
        assert mine.keys() == other.keys()
        for key, value in mine.items():
            np.testing.assert_array_equal(value, other[key])


def test_the_pool_of_threads_is_left_out_only_where_it_can_be():
    def uses_pool(function):
        serialized = tf.raw_ops.DatasetToGraphV2(
            input_dataset=tf.data.experimental.to_variant(straight.mapped(tf.data.Dataset.range(3), function))
        )
        (node,) = (n for n in tf.compat.v1.GraphDef.FromString(serialized.numpy()).node if n.op == "MapDataset")
        return node.attr["use_inter_op_parallelism"].b

    assert not uses_pool(lambda number: {"number": number + 1})
    assert uses_pool(lambda number: {"number": called(number)})


def is_one_thread(function, spec):
    """Whether an export's graph does this to each item without changing threads."""
    item = {name: tf.TensorSpec(batch.shape[1:], batch.dtype) for name, batch in spec.items()}
    return straight.is_straight(traced(function, item))


def sources(folder, tmp_path):
    """The digits of a folder in many forms."""
    names = sorted(path.name for path in folder.glob("*.png"))
    images = {name: (folder / name).read_bytes() for name in names}
    (tmp_path / "list.txt").write_text("".join(f"{folder / name}\n" for name in names))
    with tarfile.open(tmp_path / "x.tar", "w") as archive, tarfile.open(tmp_path / "x.tar.gz", "w:gz") as gzipped:
        for name in names:
            archive.add(folder / name, name)
            gzipped.add(folder / name, name)
    with tf.io.TFRecordWriter(f"{tmp_path}/x.tfrecord") as writer:
        for name, image in images.items():
            keys = {"image/encoded": image, "image/filename": name.encode()}
            features = {k: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for k, v in keys.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    columns = {"image": list(images.values()), "filename": names}
    return {
        "folder": str(folder),
        "glob": f"{folder}/*.png",
        "list": f"{tmp_path}/list.txt",
        "tar": f"{tmp_path}/x.tar",
        "gzipped tar": f"{tmp_path}/x.tar.gz",
        "TFRecords": f"tfrecord:{tmp_path}/x.tfrecord",
        "dataset": tf.data.Dataset.from_tensor_slices(columns),
        "bytes": iter(images.items()),
        "paths": ((name, folder / name) for name in names),
        "given": str(folder),
    }


FORMS = ["folder", "glob", "list", "tar", "gzipped tar", "TFRecords", "dataset", "bytes", "paths", "given"]


@pytest.mark.parametrize("form", FORMS)
def test_most_images_of_every_source_are_read_and_decoded_on_one_thread(form, digits, digits_model, tmp_path):
    source = sources(digits[0] / "3", tmp_path)[form]
    np.save(tmp_path / "labels.npy", np.arange(len(list((digits[0] / "3").glob("*.png")))))
    options = Options(quiet=True, predictions=f"{tmp_path}/labels.npy" if form == "given" else None)
    job = prepare(open_source(source, options), None if form == "given" else digits_model, options)
    stages = pipeline.Stages(job, only_usual=True)
    dataset = stages.dataset()
    items, _ = dataset.element_spec
    assert is_one_thread(stages.read_and_decode_usual, items)
    assert not is_one_thread(stages.read_and_decode, items)
    assert ("DecodeImage" in operations(dataset)) == (form != "given")


@pytest.fixture
def odd():
    """Images, each of a grey of its own, of which every third is unusual: a GIF, a BMP, a NumPy array; one is large."""
    images = {}
    for number in range(24):
        height, width = (300, 400) if number == 12 else (20, 30)
        picture, file = Image.fromarray(np.full((height, width, 3), 10 * number, np.uint8)), io.BytesIO()
        if number % 9 == 6:
            np.save(file, np.asarray(picture))
        else:
            picture.save(file, {0: "GIF", 3: "BMP"}.get(number % 9, "PNG" if number % 2 else "JPEG"))
        images[f"{number:02}.jpg"] = file.getvalue()
    assert len(images["12.jpg"]) > pipeline._SMALL
    return images


@pytest.fixture
def built(monkeypatch):
    """What is built, from now on, for images that few have."""
    found, build = [], unusual._built.__wrapped__
    monkeypatch.setattr(unusual, "_built", lambda **how: found.append(how) or build(**how))
    return found


def mean_colour(pixels):
    return tf.reduce_mean(pixels, (1, 2))


def exported(source, out):
    how = {"task": "raw", "scale": "raw", "image_size": (16, 16), "batch_size": 8, "quiet": True}
    return tfzip.export(source, mean_colour, str(out), **how)


GIVEN = {"bytes": [True], "paths": [False], "bytes and paths": [True, False], "paths and bytes": [False, True]}


@pytest.mark.parametrize("form", [*GIVEN, "dataset"])
def test_unusual_images_of_streams_come_in_their_place(form, odd, built, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name, image in odd.items():
        (folder / name).write_bytes(image)
    as_bytes = itertools.cycle(GIVEN.get(form, [True]))  # only the first item tells which most are
    source = ((name, odd[name] if next(as_bytes) else folder / name) for name in odd)
    if form == "dataset":
        source = tf.data.Dataset.from_tensor_slices({"filename": list(odd), "image": list(odd.values())})
    export = exported(source, tmp_path / "out")
    expected = exported(str(folder), tmp_path / "from the folder")
    assert export.failures == []
    assert [record.filename for record in export[:]] == list(odd)
    for number, (mine, other) in enumerate(zip(export[:], expected[:], strict=True)):
        np.testing.assert_allclose(mine.outputs["output"], 10 * number, atol=2)  # of a JPEG about that
        assert mine.encoded == other.encoded == odd[mine.filename]
        np.testing.assert_array_equal(mine.outputs["output"], other.outputs["output"])
    assert len(built) > 0


def test_what_only_unusual_images_need_is_built_for_them_alone(odd, built, tmp_path):
    usual = {name: image for name, image in odd.items() if int(name[:2]) % 3}
    assert len(exported(iter(usual.items()), tmp_path / "usual")) == 16
    assert built == []
    assert len(exported(iter(odd.items()), tmp_path / "all")) == 24
    assert len(built) > 0


def test_one_image_of_another_kind_is_no_news_on_standard_error(odd, tmp_path, capfd):
    (tmp_path / "in").mkdir()
    for name, image in {**odd, "25.jpg": b"no image"}.items():
        (tmp_path / "in" / name).write_bytes(image)
    for number, source in enumerate([f"{tmp_path}/in", iter([*odd.items(), ("25.jpg", b"no image")])]):
        export = exported(source, tmp_path / f"{number}")
        assert [failure.filename for failure in export.failures] == ["25.jpg"]
    assert "JPEG" not in capfd.readouterr().err  # as libjpeg calls what is none
