"""No record is lost in silence: sources that end too soon or too late, or change meanwhile, and models that fail."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from sources_made import SOURCES, example, pictures_of, texts, tfds, write_tar, write_tfrecord

import tfzip
from tfzip import framing
from tfzip.errors import BrokenSourceError

COUNT = 12
SCORES = {"task": "multiclass", "scores": "probabilities", "scale": "raw", "image_size": (8, 8)}
WEIGHTS = np.random.default_rng(4).normal(0, 0.01, (64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), COUNT)


def model(pixels):
    return tf.nn.softmax(tf.matmul(tf.reshape(pixels[..., :1], (-1, 64)), WEIGHTS))


def pairs_of(few):
    return list(zip(few.names, few.encoded, strict=True))


def ended(source, tmp_path, words, using=model, **options):
    """The export must end with an error of these words, and leave nothing."""
    with pytest.raises((BrokenSourceError, tfzip.CorruptError)) as caught:
        tfzip.export(source, using, str(tmp_path / "out"), quiet=True, batch_size=5, **SCORES, **options)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def rewritten(path, change):
    path.write_bytes(change(path.read_bytes()))


# Sources that give fewer or more than they said.


class Lying(list):
    """A list that says it holds more than it does, or fewer."""

    def __init__(self, items, more):
        super().__init__(items)
        self._more = more

    def __len__(self):
        return super().__len__() + self._more


@pytest.mark.parametrize(("more", "words"), [(1, "ended after 12 of its 13 images"), (-1, "gave 12 images, though")])
def test_an_iterable_that_does_not_give_what_it_said_is_broken(few, tmp_path, more, words):
    ended(Lying(pairs_of(few), more), tmp_path, ["the iterable", words])


@pytest.mark.parametrize(("more", "words"), [(1, "13 elements but contained only 12"), (-1, "11 elements but")])
def test_a_dataset_that_does_not_give_what_it_said_is_broken(few, tmp_path, more, words):
    dataset = tf.data.Dataset.from_tensor_slices({"image": few.encoded, "filename": few.names})
    ended(dataset.apply(tf.data.experimental.assert_cardinality(COUNT + more)), tmp_path, ["the dataset", words])


@pytest.mark.parametrize(
    ("kept", "words"),
    [(0, "ended after 1"), (9, ""), (None, "gave 24 images, though it said that it has 12")],
    ids=["to its last member", "into its last member", "doubled"],
)
def test_an_export_whose_shard_changes_is_a_broken_source(few, tmp_path, kept, words):
    large = [(name, content + bytes(20_000)) for name, content in pairs_of(few)]  # so that there are several members
    (shard,) = tfzip.export(large, model, str(tmp_path / "old"), quiet=True, **SCORES).shards
    with open(shard, "rb") as file:
        content = file.read()
        last = content.rindex(b"\x1f\x8b\x08\0\0\0\0\0")  # where its last gzip member begins
    assert last > 0

    def changing(pixels):  # a function is traced after its source was opened, and before that is read
        Path(shard).write_bytes(content * 2 if kept is None else content[: last + kept])
        return model(pixels)

    ended(str(tmp_path / "old"), tmp_path, [str(tmp_path / "old"), words], using=changing)
    ended(str(tmp_path / "old"), tmp_path, [shard, f"not of {len(content)} bytes"])


def test_an_export_without_its_shard_is_a_broken_source(few, tmp_path):
    (shard,) = tfzip.export(pairs_of(few), model, str(tmp_path / "old"), quiet=True, **SCORES).shards
    Path(shard).unlink()
    ended(str(tmp_path / "old"), tmp_path, [shard, "missing"])


@pytest.mark.parametrize("where", ["between records", "in a record"])
def test_a_prepared_data_set_that_is_cut_is_a_broken_source(few, tmp_path, where):
    case = tfds(few, tmp_path)
    (path,) = tmp_path.rglob("*.tfrecord*")
    with path.open("rb") as file:
        offset, size = list(framing.frame_headers(file))[-1]
    path.write_bytes(path.read_bytes()[: offset if where == "between records" else offset + size // 2])
    ended(case.source(), tmp_path, [case.source()], **case.options)


# Sources that change between their listing and their reading.


def records_of(few, count):
    return [example(image__encoded=texts(c), image__filename=texts(n.encode())) for n, c in pairs_of(few)[:count]]


CHANGING = {
    "tfrecord": lambda few, path, count: write_tfrecord(path / "x", records_of(few, count)),
    "tfrecord, compressed": lambda few, path, count: write_tfrecord(path / "x", records_of(few, count), "GZIP"),
    "tar.gz": lambda few, path, count: write_tar(path / "x.tar.gz", pairs_of(few)[:count], "w:gz"),
}


@pytest.mark.parametrize("count", [1, 8])
@pytest.mark.parametrize("kind", CHANGING)
def test_a_stream_that_is_shorter_than_when_it_was_listed_is_broken(few, tmp_path, kind, count):
    write = CHANGING[kind]
    source = write(few, tmp_path, COUNT)

    def shortening(pixels):
        write(few, tmp_path, count)
        return model(pixels)

    ended(source, tmp_path, [source], using=shortening)


LISTED = {
    "tar": (lambda few, path: write_tar(path / "x.tar", pairs_of(few)), "x.tar"),
    "tfrecord, shuffled": (lambda few, path: write_tfrecord(path / "x.tfrecord", records_of(few, COUNT)), "x.tfrecord"),
}


@pytest.mark.parametrize("kind", LISTED)
def test_what_was_listed_and_is_gone_fails_one_by_one(few, tmp_path, kind):
    write, name = LISTED[kind]
    source = write(few, tmp_path)
    kept = (tmp_path / name).read_bytes().index(few.encoded[8])

    def shortening(pixels):
        rewritten(tmp_path / name, lambda content: content[:kept])
        return model(pixels)

    options = {"shuffle": 2} if "shuffled" in kind else {}
    export = tfzip.export(source, shortening, str(tmp_path / "out"), quiet=True, batch_size=5, **SCORES, **options)
    assert sorted(record.filename for record in export[:]) == few.names[:8]
    assert len(export.failures) == 4
    assert {failure.stage for failure in export.failures} == {"read"}
    assert tfzip.verify(export) == []


# Models that fail on a batch, or once.


QUICK = ["csv", "tar.gz", "tfrecord, shuffled", "export", "dataset"]
SLOW = ["glob", "list", "tar", "several tars", "zip, deflated", "webdataset, compressed", "tfrecord"]
SLOW += ["tfrecord, compressed", "tfds", "array", "pairs", "triples"]
KINDS = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)]


def exported(few, tmp_path, kind, using):
    case = SOURCES[kind](few, tmp_path)
    options = {**SCORES, **case.options}
    options.pop("labels", None)
    export = tfzip.export(case.source(), using, str(tmp_path / "out"), quiet=True, batch_size=5, parallel=2, **options)
    assert tfzip.verify(export) == []
    return case, export


def assert_belongs_together(few, case, export, lost=()):
    """The records are those of the case but the lost, each with the scores of its own image."""
    order = list(case.order or range(COUNT))
    scores = dict(zip(case.names, model(np.stack(few.pixels).astype(np.float32)).numpy()[order], strict=True))
    assert len({row.tobytes() for row in scores.values()}) == COUNT
    assert sorted(record.filename for record in export[:]) == sorted(set(case.names) - set(lost))
    for record in export[:]:
        np.testing.assert_allclose(record.prediction.scores, scores[record.filename], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_that_the_model_fails_on_costs_one_record_of_any_source(few, tmp_path, kind):
    def fragile(pixels):
        healthy = tf.reduce_all(tf.reduce_any(pixels[..., :1] != few.pixels[7], axis=(1, 2, 3)))
        with tf.control_dependencies([tf.debugging.Assert(healthy, ["poisoned"])]):
            return model(tf.identity(pixels))

    case, export = exported(few, tmp_path, kind, fragile)
    poisoned = case.names[list(case.order or range(COUNT)).index(7)]
    assert [(failure.filename, failure.stage) for failure in export.failures] == [(poisoned, "predict")]
    assert_belongs_together(few, case, export, [poisoned])


@pytest.mark.parametrize("kind", ["tar.gz", "tfrecord, shuffled", "pairs"])
def test_a_fault_that_passes_costs_no_record_of_any_source(few, tmp_path, kind):
    faults = []

    def sometimes(pixels):
        if len(faults) < 2 and len(pixels) > 1:  # of one image it is only looked at
            faults.append(None)
            raise OSError("the weights are on a mount that went away")
        return np.asarray(model(pixels))

    def using(pixels):
        return tf.ensure_shape(tf.numpy_function(sometimes, [pixels], tf.float32), (None, 3))

    case, export = exported(few, tmp_path, kind, using)
    assert len(faults) == 2
    assert export.failures == []
    assert_belongs_together(few, case, export)


# A name that came before the export was stopped, and again after it went on.


@pytest.mark.slow
def test_a_name_that_a_stream_gave_before_it_was_stopped_is_known_when_it_goes_on(few, tmp_path):
    pairs = [(f"{number % 170}.png", few.encoded[number % COUNT]) for number in range(200)]

    def broken():
        yield from pairs[:150]
        raise ConnectionError("the camera is gone")

    options = {**SCORES, "quiet": True, "batch_size": 20, "shard_records": 40}
    whole = tfzip.export(iter(pairs), model, str(tmp_path / "whole"), **options)
    assert whole.failures[0] == ("0.png", "read", "item 170 has the name of item 0")
    assert len(whole.failures) == 30
    with pytest.raises(BrokenSourceError):
        tfzip.export(broken(), model, str(tmp_path / "out"), **options)
    assert (tmp_path / "out" / ".tfzip").exists()
    assert tfzip.export(iter(pairs), model, str(tmp_path / "out"), **options).failures == whole.failures


def test_a_name_that_shuffled_records_had_before_they_were_stopped_is_known_when_they_go_on(few, tmp_path):
    source = write_tfrecord(tmp_path / "x", records_of(few, COUNT) * 2)
    options = {**SCORES, "quiet": True, "batch_size": 3, "shard_records": 3, "shuffle": 0}
    whole = tfzip.export(source, model, str(tmp_path / "whole"), **options)
    assert len(whole.failures) == COUNT
    with pytest.raises(tfzip.TooManyFailuresError):
        tfzip.export(source, model, str(tmp_path / "out"), max_failures=5, **options)
    assert (tmp_path / "out" / ".tfzip").exists()
    assert tfzip.export(source, model, str(tmp_path / "out"), **options).failures == whole.failures
