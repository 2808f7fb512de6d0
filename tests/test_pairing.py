"""What is in the program already, paired one by one: `tfzip.zip`, `tfzip.write`, and items with labels as a source."""

import itertools
import re
import sys
from pathlib import Path

import numpy as np
import peaks
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from sources_made import WORDS, pictures_of, scores_of

import tfzip
from tfzip.errors import BrokenSourceError, DataError, SourceError, UsageError

COUNT = 24


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), COUNT)


@pytest.fixture(scope="module")
def scores(few, digits_model):
    return scores_of(few, digits_model)


@pytest.fixture
def write(tmp_path):
    """Writes into a folder that must not be there after an error."""

    def run(triples, **options):
        return tfzip.write(triples, tmp_path / "out", quiet=True, **options)

    return run


def refused(write, tmp_path, triples, words, error=UsageError, **options):
    """A write is refused, in these words and two lines at most, and leaves nothing."""
    with pytest.raises(error) as caught:
        write(triples, **options)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "out").exists()
    return caught.value


def assert_written(export, few, scores):
    """The digits in order, each with its own scores and pixels."""
    records = export[:]
    assert [record.filename for record in records] == few.names
    np.testing.assert_allclose([record.prediction.scores for record in records], scores, atol=1e-6)
    assert [record.prediction.label for record in records] == scores.argmax(axis=1).tolist()
    for record, pixels in zip(records, few.pixels, strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(record.encoded), pixels)
        assert (record.height, record.width) == pixels.shape[:2]
    assert export.failures == []
    assert tfzip.verify(export) == []


# In whatever they come.


PREDICTIONS = {
    "an array": lambda scores: scores,
    "an array of float64": lambda scores: scores.astype(np.float64),
    "an array of float16": lambda scores: scores.astype(np.float16),
    "a list of arrays": list,
    "a list of lists": lambda scores: scores.tolist(),
    "a generator": lambda scores: (row for row in scores),
    "a tensor": tf.constant,
}
NAMES = {
    "text": lambda few: few.names,
    "bytes": lambda few: [name.encode() for name in few.names],
    "paths": lambda few: [Path(name) for name in few.names],
    "an array of text": lambda few: np.array(few.names),
    "an array of bytes": lambda few: np.array([name.encode() for name in few.names]),
    "a generator": lambda few: (name for name in few.names),
    "a tensor": lambda few: tf.constant(few.names),
}
IMAGES = {
    "encoded": lambda few: few.encoded,
    "pixels": lambda few: few.pixels,
    "pixels in one array": lambda few: np.stack(few.pixels),
    "pixels without channels": lambda few: np.stack(few.pixels)[..., 0],
    "pixels as a tensor": lambda few: tf.constant(np.stack(few.pixels)),
    "encoded, as a tensor": lambda few: tf.constant(few.encoded),
    "paths as text": lambda few: [str(few.folder / name) for name in few.names],
    "paths": lambda few: [few.folder / name for name in few.names],
    "paths in an array": lambda few: np.array([str(few.folder / name) for name in few.names]),
    "a generator": lambda few: (few.folder / name for name in few.names),
    "some of each": lambda few: itertools.chain(few.encoded[:8], few.pixels[8:16], IMAGES["paths"](few)[16:]),
}
EACH = max(len(PREDICTIONS), len(NAMES), len(IMAGES))
FORMS = [
    *zip(*(itertools.islice(itertools.cycle(kinds), EACH) for kinds in (PREDICTIONS, NAMES, IMAGES)), strict=True),
    ("a generator", "a generator", "a generator"),
    ("a tensor", "a tensor", "pixels as a tensor"),
]


@pytest.mark.parametrize("form", FORMS, ids=", ".join)
def test_the_three_may_come_in_many_forms(few, scores, write, form):
    predictions, names, images = (
        make[kind](argument)
        for make, kind, argument in zip((PREDICTIONS, NAMES, IMAGES), form, (scores, few, few), strict=True)
    )
    exact = scores.astype(np.float16) if "16" in form[0] else scores
    assert_written(write(tfzip.zip(predictions, names, images), batch_size=7), few, exact)


def parts_of(values, size=7):
    return [values[start : start + size] for start in range(0, COUNT, size)]


BATCHES = {
    "arrays": lambda few, scores: zip(
        parts_of(scores), parts_of(np.array(few.names)), parts_of(np.stack(few.pixels)), strict=True
    ),
    "lists": lambda few, scores: zip(parts_of(list(scores)), parts_of(few.names), parts_of(few.encoded), strict=True),
    "tensors": lambda few, scores: tf.data.Dataset.from_tensor_slices((scores, few.names, few.encoded)).batch(7),
    "batches of three generators": lambda few, scores: tfzip.zip(
        (part for part in parts_of(scores)),
        (part for part in parts_of(few.names)),
        (part for part in parts_of(few.encoded)),
    ),
    "whole in one batch": lambda few, scores: [(scores, few.names, few.encoded)],
    "batches of nothing between": lambda few, scores: [
        ([], [], []),
        (scores[:9], few.names[:9], few.encoded[:9]),
        ([], [], []),
        (scores[9:], few.names[9:], few.encoded[9:]),
    ],
}


@pytest.mark.parametrize("kind", BATCHES)
def test_batches_are_taken_apart(few, scores, write, kind):
    assert_written(write(BATCHES[kind](few, scores)), few, scores)


@pytest.mark.parametrize("shape", [(9, 7), (9, 7, 1), (9, 7, 2), (9, 7, 3), (9, 7, 4), (1, 1), (300, 2, 3)], ids=str)
def test_pixels_of_every_shape_are_kept_without_loss(write, shape):
    pixels = np.random.default_rng(1).integers(0, 256, (6, *shape)).astype(np.uint8)
    export = write(tfzip.zip(range(6), "abcdef", pixels))
    for record, wanted in zip(export[:], pixels, strict=True):
        np.testing.assert_array_equal(tf.io.decode_png(record.encoded), wanted.reshape(*wanted.shape[:2], -1))
        assert (record.format, record.height, record.width) == ("png", *shape[:2])


def test_encoded_images_and_files_are_kept_byte_for_byte(few, scores, write):
    export = write(tfzip.zip(scores, few.names, [*few.encoded[:9], *IMAGES["paths"](few)[9:]]))
    assert [record.encoded for record in export[:]] == few.encoded


def test_only_metadata_may_be_kept(few, scores, write):
    export = write(tfzip.zip(scores, few.names, IMAGES["paths"](few)), image="none")
    assert [record.filename for record in export[:]] == few.names
    assert {record.encoded for record in export[:]} == {None}
    np.testing.assert_allclose([record.prediction.scores for record in export[:]], scores, atol=1e-6)


LABELS = {
    "int": lambda labels: labels.tolist(),
    "int64": lambda labels: labels,
    "text": lambda labels: [WORDS[label] for label in labels],
    "an array of text": lambda labels: np.array(WORDS)[labels],
}


@pytest.mark.parametrize("kind", LABELS)
def test_a_prediction_may_be_a_label_or_a_name(few, scores, write, kind):
    labels = scores.argmax(axis=1)
    export = write(tfzip.zip(LABELS[kind](labels), few.names, few.encoded), labels=WORDS)
    said = [(record.filename, record.prediction.label, record.prediction.text) for record in export[:]]
    assert said == [(name, label, WORDS[label]) for name, label in zip(few.names, labels, strict=True)]
    assert "prediction/scores" not in export.features
    assert tfzip.verify(export) == []


@pytest.mark.parametrize("logits", [False, True])
def test_one_score_is_the_second_class_of_two(few, write, logits):
    values = np.random.default_rng(5).normal(0, 2, COUNT)
    positive = 1 / (1 + np.exp(-values))
    assert len(set((positive > 0.5).tolist())) == 2
    options = {"scores": "logits"} if logits else {}
    export = write(tfzip.zip(values if logits else positive, few.names, few.encoded), **options)
    wanted = np.stack([1 - positive, positive], axis=1)
    np.testing.assert_allclose([record.prediction.scores for record in export[:]], wanted, atol=1e-6)


def test_options_are_those_of_an_export(few, scores, write):
    options = {"labels": WORDS, "compression": "none", "shard_records": 10, "batch_size": 5, "task": "multilabel"}
    export = write(tfzip.zip(scores, few.names, few.encoded), threshold=0.3, **options)
    assert [record.prediction.labels for record in export[:]] == [np.flatnonzero(row >= 0.3).tolist() for row in scores]
    assert [shard["records"] for shard in export.manifest["shards"]] == [10, 10, 4]
    assert export.labels == WORDS
    assert tfzip.verify(export) == []


# Strict lengths.


THREE = ("predictions", "filenames", "images")


def three(few, scores, lengths):
    whole = zip((scores, few.names, few.encoded), lengths, strict=True)
    return [list(values)[:length] for values, length in whole]


@pytest.mark.parametrize("short", THREE)
@pytest.mark.parametrize("length", [0, 23])
def test_one_of_the_three_that_ends_first_is_named(few, scores, write, tmp_path, short, length):
    parts = three(few, scores, [length if name == short else COUNT for name in THREE])
    longer = " and ".join(name for name in THREE if name != short)
    words = [f"the {short} end after {length}", f"more {longer}"]
    refused(write, tmp_path, tfzip.zip(*parts), words, batch_size=7)


@pytest.mark.parametrize("long", THREE)
def test_two_of_the_three_that_end_first_are_named(few, scores, write, tmp_path, long):
    parts = three(few, scores, [COUNT if name == long else COUNT - 1 for name in THREE])
    shorter = " and ".join(name for name in THREE if name != long)
    refused(write, tmp_path, tfzip.zip(*parts), [f"the {shorter} end after 23", f"more {long}"])


@pytest.mark.parametrize("batches", [tfzip.zip, lambda *parts: zip(*parts, strict=True)], ids=["zipped", "given"])
@pytest.mark.parametrize("short", range(3), ids=THREE)
def test_a_batch_of_which_one_part_is_short_is_named(few, scores, write, tmp_path, short, batches):
    parts = [parts_of(list(values)) for values in (scores, few.names, few.encoded)]
    number = 3 if batches is tfzip.zip else 0
    size = len(parts[short][number])
    parts[short][number] = parts[short][number][:-1]
    words = [f"the {THREE[short]} end after {size - 1} in batch {number}"]
    refused(write, tmp_path, batches(*parts), words)


@pytest.mark.parametrize("short", [0, 2], ids=THREE[::2])
def test_one_of_which_a_whole_batch_is_missing_is_named(few, scores, write, tmp_path, short):
    parts = [parts_of(list(values)) for values in (scores, few.names, few.encoded)]
    parts[short].pop()
    refused(write, tmp_path, tfzip.zip(*parts), [f"the {THREE[short]} end after 3"])


@given(st.tuples(*[st.integers(0, 6)] * 3) | st.integers(0, 6).map(lambda length: (length,) * 3))
def test_zip_gives_what_the_builtin_gives_or_raises(lengths):
    parts = [range(lengths[0]), [f"{i}.png" for i in range(lengths[1])], [b"%d" % i for i in range(lengths[2])]]
    if len(set(lengths)) == 1:
        assert list(tfzip.zip(*parts)) == list(zip(*parts, strict=True))
        return
    got = []
    with pytest.raises(UsageError, match=f"end after {min(lengths)}"):
        got.extend(tfzip.zip(*map(iter, parts)))
    assert got == list(zip(*parts, strict=False))


SIZES = st.lists(st.tuples(*[st.integers(0, 4)] * 3) | st.integers(0, 4).map(lambda size: (size,) * 3), max_size=5)


@given(SIZES)
def test_zip_takes_batches_apart_or_raises(sizes):
    batches = [
        ([0.5] * size[0], [f"{number}/{i}" for i in range(size[1])], [b"%d" % i for i in range(size[2])])
        for number, size in enumerate(sizes)
    ]
    parts = [list(part) for part in zip(*batches, strict=True)] or [[], [], []]
    bad = [number for number, size in enumerate(sizes) if len(set(size)) > 1]
    if bad:
        with pytest.raises(UsageError, match=f"in batch {bad[0]}"):
            list(tfzip.zip(*parts))
    else:
        wanted = [triple for batch in batches for triple in zip(*batch, strict=True)]
        assert list(tfzip.zip(*parts)) == wanted


def test_zip_takes_nothing_before_it_is_asked_for():
    taken = []

    def endless(kind):
        for number in itertools.count():
            taken.append(kind)
            yield {"prediction": 0.5, "filename": f"{number}", "image": b""}[kind]

    triples = tfzip.zip(endless("prediction"), endless("filename"), endless("image"))
    assert taken == []
    assert next(triples) == (0.5, "0", b"")
    assert sorted(taken) == ["filename", "image", "prediction"]


# What fails, alone or as a whole.


@pytest.mark.parametrize("bad", [0, 11])
def test_a_file_that_is_not_there_fails_alone(few, scores, write, bad):
    paths = IMAGES["paths"](few)
    paths[bad] = few.folder / "gone.png"
    export = write(tfzip.zip(scores, few.names, paths), batch_size=7)
    (failure,) = export.failures
    assert (failure.filename, failure.stage) == (few.names[bad], "read")
    assert "gone.png" in failure.error
    kept = [i for i in range(COUNT) if i != bad]
    assert [record.filename for record in export[:]] == [few.names[i] for i in kept]
    np.testing.assert_allclose([record.prediction.scores for record in export[:]], scores[kept], atol=1e-6)
    assert tfzip.verify(export) == []


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n"], ids=["nothing", "its beginning"])
def test_bytes_that_are_no_image_fail_alone(few, scores, write, content):
    export = write(tfzip.zip(scores, few.names, [*few.encoded[:5], content, *few.encoded[6:]]))
    assert [(failure.filename, failure.stage) for failure in export.failures] == [(few.names[5], "decode")]
    assert len(export) == COUNT - 1


def test_a_filename_that_came_before_fails(few, scores, write):
    names = [*few.names[:20], few.names[3], *few.names[21:23], few.names[22]]
    export = write(tfzip.zip(scores, names, few.encoded), batch_size=7)
    assert [failure.filename for failure in export.failures] == [few.names[3], few.names[22]]
    assert [record.filename for record in export[:]] == [*few.names[:20], *few.names[21:23]]
    np.testing.assert_allclose(export[few.names[3]].prediction.scores, scores[3], atol=1e-6)
    np.testing.assert_allclose(export[few.names[22]].prediction.scores, scores[22], atol=1e-6)


def test_nothing_that_gives_a_record_is_an_error(few, write, tmp_path):
    refused(write, tmp_path, tfzip.zip([1], ["a"], [few.folder / "gone.png"]), ["none of its 1 images"], DataError)


@pytest.mark.parametrize("triples", [list, lambda: iter(()), lambda: tfzip.zip([], [], [])])
def test_no_triples_at_all_are_an_error(write, tmp_path, triples):
    refused(write, tmp_path, triples(), ["no image"], SourceError)


@pytest.mark.parametrize(("items", "batched"), [(0, False), (1, True), (64, True), (150, False)])
def test_what_a_generator_raises_ends_the_write_with_its_error(few, write, tmp_path, items, batched):
    def broken():
        for number in range(items):
            triple = (0.5, f"{number}.png", few.encoded[0])
            yield tuple([part] for part in triple) if batched else triple
        raise ConnectionError("the camera is gone")

    error = refused(write, tmp_path, broken(), ["ConnectionError", "the camera is gone"], BrokenSourceError)
    assert isinstance(error.__cause__, ConnectionError)


def test_what_one_of_the_three_raises_ends_the_write_with_its_error(few, scores, write, tmp_path):
    def broken():
        yield from few.encoded[:10]
        raise ConnectionError("the camera is gone")

    triples = tfzip.zip(scores, few.names, broken())
    refused(write, tmp_path, triples, ["ConnectionError", "the camera is gone"], BrokenSourceError)


# What no item may be: at its place, what it has there, and what is said of it.

PREDICTED = {
    "a float after labels": (1, 0.5, ["label", "whole numbers"]),
    "text after labels": (1, "one", ["label", "whole numbers"]),
    "nothing after labels": (1, None, ["label"]),
    "a number after names": ("one", 1, ["text", "were text"]),
    "nothing after names": ("one", None, ["text"]),
    "text after scores": ([0.5, 0.5], "one", ["scores", "numbers"]),
    "nothing after scores": ([0.5, 0.5], None, ["scores"]),
    "more scores": ([0.5, 0.5], [0.2, 0.3, 0.5], ["scores", "[3]", "[2]"]),
    "several scores after one": (0.5, [0.5, 0.5], ["scores", "[2]", "[1]"]),
    "a score above 1": (0.5, 1.5, ["0..1", "--scores logits"]),
    "a score below 0": ([0.5, 0.5], [1.0, -0.5], ["0..1", "--scores logits"]),
}
PLACES = (1, 5, 70)


@pytest.mark.parametrize(("name", "place"), zip(PREDICTED, itertools.cycle(PLACES), strict=False))
def test_a_prediction_unlike_those_before_it_is_named(few, write, tmp_path, name, place):
    usual, bad, words = PREDICTED[name]
    triples = ((bad if i == place else usual, f"{i}.png", few.encoded[0]) for i in range(80))
    refused(write, tmp_path, triples, [f"item {place}", *words], batch_size=4)


@pytest.mark.parametrize("bad", [None, {"scores": [0.5]}, [[0.5, 0.5]], True, 1j], ids=str)
def test_what_is_no_prediction_is_told(few, write, tmp_path, bad):
    refused(write, tmp_path, [(bad, "a.png", few.encoded[0])], ["a prediction is", "give scores"])


@pytest.mark.parametrize("first", [[1.5, -0.5], [2.0], -3.0], ids=str)
def test_scores_that_are_no_probabilities_ask_what_they_are(few, write, tmp_path, first):
    triples = [(first, "a.png", few.encoded[0])]
    refused(write, tmp_path, triples, ["0..1", "--scores logits"])
    assert len(write(triples, scores="logits")) == 1


def test_scores_that_do_not_add_up_ask_for_the_task(few, write, tmp_path):
    triples = [([0.9, 0.8], "a.png", few.encoded[0])]
    refused(write, tmp_path, triples, ["add up to one", "--task multilabel"])
    assert write(triples, task="multilabel")[0].prediction.labels == [0, 1]


IMAGED = {
    "float64": np.zeros((8, 8)),
    "uint16": np.zeros((8, 8, 3), np.uint16),
    "one dimension": np.zeros(8, np.uint8),
    "five channels": np.zeros((8, 8, 5), np.uint8),
    "no rows": np.zeros((0, 8, 3), np.uint8),
    "None": None,
}


@pytest.mark.parametrize(("name", "place"), [*((name, 5) for name in IMAGED), ("None", 0)])
def test_an_image_that_is_none_is_named(few, write, tmp_path, name, place):
    triples = ((0.5, f"{i}.png", IMAGED[name] if i == place else few.encoded[0]) for i in range(8))
    refused(write, tmp_path, triples, [f"item {place}", "image"])


@pytest.mark.parametrize(
    ("bad", "place", "batched"),
    [(5, 0, False), (5, 5, True), (None, 0, True), (None, 5, False), (np.int64(3), 5, False)],
)
def test_a_filename_that_is_no_text_is_named(few, write, tmp_path, bad, place, batched):
    names = [bad if i == place else f"{i}.png" for i in range(8)]
    triples = tfzip.zip([0.5] * 8, names, few.encoded[:8])
    refused(
        write, tmp_path, [([0.5] * 8, names, few.encoded[:8])] if batched else triples, [f"item {place}", "filename"]
    )


@pytest.mark.parametrize("options", [{"scale": "unit"}, {"image_size": "8x8"}, {"allow_partial": True}], ids=str)
def test_an_option_of_models_or_of_files_of_predictions_is_refused(few, scores, write, tmp_path, options):
    flag = "--" + next(iter(options)).replace("_", "-")
    refused(write, tmp_path, tfzip.zip(scores, few.names, few.encoded), [f"{flag} has no effect"], **options)


@pytest.mark.parametrize("options", [{"shuffle": 1}, {"shards": 2}], ids=str)
def test_what_comes_one_by_one_is_in_no_other_order(few, scores, write, tmp_path, options):
    refused(write, tmp_path, tfzip.zip(scores, few.names, few.encoded), ["from its start to its end"], **options)


# Items as a source.


LATER = {
    "a label after none": (None, 3, ["item 5 has a label", "the first item has none"]),
    "text after numbers": (3, "three", ["item 5 is 'three'", "whole numbers"]),
    "a float after numbers": (3, 0.5, ["item 5 is 0.5", "whole numbers"]),
    "a number after text": ("three", 3, ["item 5 is 3", "were text"]),
    "several labels": (3, [3, 4], ["item 5"]),
}


@pytest.mark.parametrize(("name", "form"), zip(LATER, itertools.cycle(["dicts", "tuples"]), strict=False))
def test_a_label_unlike_the_first_is_named(few, digits_model, tmp_path, name, form):
    usual, bad, words = LATER[name]

    def items():
        for i, (filename, image) in enumerate(zip(few.names, few.encoded, strict=True)):
            label = bad if i == 5 else usual
            if form == "dicts":
                yield {"filename": filename, "image": image, "label": label}
            else:
                yield (filename, image) if label is None else (filename, image, label)

    with pytest.raises(UsageError) as caught:
        tfzip.export(items(), digits_model, tmp_path / "out", quiet=True)
    for word in words:
        assert re.search(re.escape(word), str(caught.value))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("texts", [False, True])
def test_an_item_may_have_no_label_where_the_first_has_one(few, digits_model, tmp_path, texts):
    labels = few.words if texts else few.classes
    known = [label if i % 3 == 0 else None for i, label in enumerate(labels)]
    source = list(zip(few.names, few.encoded, known, strict=True))
    export = tfzip.export(source, digits_model, tmp_path / "out", quiet=True, labels=WORDS)
    truths = [record.truth and record.truth[int(texts)] for record in export[:]]
    assert truths == known


# Memory.


MEMORY = """
import struct, sys, zlib
import tfzip
from peaks import peak

def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

def png(number):
    rows = b"".join(b"\\0" + (number * row).to_bytes(16, "little") for row in range(1, 17))
    header = struct.pack(">IIBBBBB", 16, 16, 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows, 1)), (b"IEND", b"")]
    return b"\\x89PNG\\r\\n\\x1a\\n" + b"".join(chunk(*part) for part in parts)

count = int(sys.argv[1])
predictions = ([number % 100 / 100, 1 - number % 100 / 100] for number in range(count))
names = (f"{number // 1000}/{number:08d}.png" for number in range(count))
triples = tfzip.zip(predictions, names, map(png, range(count)))
export, megabytes = peak(lambda: tfzip.write(triples, sys.argv[2], quiet=True))
assert len(export) == count
print(megabytes)
for number in (0, count // 3, count - 1):
    record = export[f"{number // 1000}/{number:08d}.png"]
    assert record.encoded == png(number)
    assert abs(record.prediction.scores[0] - number % 100 / 100) < 1e-6
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_ten_times_the_images_take_hardly_more_memory(tmp_path):
    megabytes = [int(peaks.run(MEMORY, count, tmp_path / str(count))[0][0]) for count in (10_000, 100_000)]
    assert megabytes[1] - megabytes[0] < 50
