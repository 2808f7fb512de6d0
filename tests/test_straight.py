"""A map that stays on one thread gives what `Dataset.map` gives, and is used for most images of most sources."""

import tarfile

import numpy as np
import pytest
import tensorflow as tf
from conftest import operations

from tfzip import pipeline, straight
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


def is_one_thread(stages):
    """Whether an export's graph reads and decodes without changing threads."""
    return straight.is_straight(traced(stages.read_and_decode, {"slot": tf.TensorSpec((), tf.int64)}))


@pytest.mark.parametrize("form", ["folder", "glob", "list", "tar", "given"])
def test_most_images_of_most_sources_are_read_and_decoded_on_one_thread(form, digits, digits_model, tmp_path):
    folder = digits[0] / "3"
    names = sorted(path.name for path in folder.glob("*.png"))
    (tmp_path / "list.txt").write_text("".join(f"{folder / name}\n" for name in names))
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in names:
            archive.add(folder / name, name)
    np.save(tmp_path / "labels.npy", np.arange(len(names)))
    source = {"glob": f"{folder}/*.png", "list": f"{tmp_path}/list.txt", "tar": f"{tmp_path}/x.tar"}.get(
        form, str(folder)
    )
    options = Options(quiet=True, predictions=f"{tmp_path}/labels.npy" if form == "given" else None)
    job = prepare(open_source(source, options), None if form == "given" else digits_model, options)
    usual = pipeline.Stages(job, only_usual=True)
    assert is_one_thread(usual)
    assert not is_one_thread(pipeline.Stages(job))
    assert ("DecodeImage" in operations(usual.dataset())) == (form != "given")
