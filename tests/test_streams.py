"""Streams, whose end only the end tells; and `skip_in`, which leaves out what an earlier export holds."""

import io
import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from sources_made import WORDS, example, pictures_of, texts, tfds, write_tar, write_tfrecord

import tfzip
from tfzip.errors import SourceError, UsageError
from tfzip.progress import Progress


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), 40)


@pytest.fixture
def export(digits_model, tmp_path):
    def run(source, out="out", **options):
        return tfzip.export(source, digits_model, str(tmp_path / out), quiet=True, **options)

    return run


def items(few, bad=()):
    """The digits one by one, those numbered `bad` without a picture."""
    for number, (name, content) in enumerate(zip(few.names, few.encoded, strict=True)):
        yield name, b"" if number in bad else content


@pytest.mark.parametrize(
    ("batch", "records", "shards"),
    [
        (5, 10, [10, 10, 10, 10]),
        (7, 10, [7, 7, 7, 7, 7, 5]),
        (50, 10, [40]),
        (4, 12, [12, 12, 12, 4]),
        (1, 39, [39, 1]),
    ],
)
def test_shards_of_a_stream_close_at_their_number_of_records(few, export, batch, records, shards):
    made = export(items(few), batch_size=batch, shard_records=records)
    assert [shard["records"] for shard in made.manifest["shards"]] == shards
    names = [f"images-train.tfrecord-{i:05d}-of-{len(shards):05d}.gz" for i in range(len(shards))]
    assert [shard["file"] for shard in made.manifest["shards"]] == names
    assert [record.filename for record in made[:]] == few.names
    assert tfzip.verify(made) == []


def test_shards_of_a_stream_close_before_they_are_too_large(few, export):
    made = export(items(few), batch_size=2, shard_size=3000, compression="none")
    sizes = [shard["bytes"] for shard in made.manifest["shards"]]
    assert len(sizes) > 3
    framing = 16 * 40
    assert max(sizes) <= 3000 + framing
    assert min(sizes[:-1]) > 3000 / 2
    assert [record.filename for record in made[:]] == few.names


@pytest.mark.parametrize("limit", [1, 6, 40, 100])
def test_a_limit_takes_the_first_of_a_stream(few, export, limit):
    made = export(items(few), limit=limit, batch_size=4)
    assert [record.filename for record in made[:]] == few.names[:limit]
    assert made.manifest["counts"]["images"] == min(limit, 40)


def test_a_limit_ends_a_stream_that_has_no_end(few, export):
    endless = ((f"{number}.png", few.encoded[number % 40]) for number in itertools.count())
    made = export(endless, limit=25, batch_size=10)
    assert [record.filename for record in made[:]] == [f"{number}.png" for number in range(25)]


@pytest.mark.parametrize(("allowed", "bad", "ends"), [("10%", 4, False), ("10%", 5, True), (3, 3, False), (3, 4, True)])
def test_a_share_of_failures_is_that_of_all_that_came(few, export, tmp_path, allowed, bad, ends):
    stream = items(few, bad=range(bad))  # the first batch has far more than a tenth
    if ends:
        with pytest.raises(tfzip.TooManyFailuresError, match=f"--max-failures is {allowed}"):
            export(stream, max_failures=allowed, batch_size=8)
        assert not (tmp_path / "out" / "index.zip").exists()
    else:
        made = export(stream, max_failures=allowed, batch_size=8)
        counts = {"images": 40, "records": 40 - bad, "failures": bad, "ignored": 0, "nonfinite": 0}
        assert made.manifest["counts"] == counts
        assert [failure.filename for failure in made.failures] == few.names[:bad]


@pytest.mark.parametrize("kind", ["tar.gz", "items", "dataset", "tfrecord"])
def test_a_stream_exported_twice_gives_the_same_bytes(few, export, tmp_path, kind):
    pairs = list(items(few))
    sources = {
        "tar.gz": lambda: write_tar(tmp_path / "x.tar.gz", pairs, "w:gz"),
        "items": lambda: items(few),
        "dataset": lambda: tf.data.Dataset.from_tensor_slices({"image": few.encoded, "filename": few.names}),
        "tfrecord": lambda: _tfrecord(few, tmp_path / "old"),
    }
    contents = []
    for out in ("one", "two"):
        export(sources[kind](), out, batch_size=4, parallel=2, shard_records=9)
        contents.append({p.name: p.read_bytes() for p in (tmp_path / out).iterdir() if p.name != "run.json"})
    assert sum(".tfrecord-" in name for name in contents[0]) == 5
    assert contents[0] == contents[1]


def _tfrecord(few, path):
    named = zip(few.names, few.encoded, strict=True)
    return write_tfrecord(path, [example(image__encoded=texts(c), image__filename=texts(n.encode())) for n, c in named])


def test_progress_without_a_total_says_how_many_are_done(monkeypatch):
    monkeypatch.setattr("tfzip.progress._LINE_EVERY", 0)
    said = io.StringIO()
    with Progress(None, file=said) as progress:
        progress.update(10, 1)
        progress.update(5, 0)
    first, second = said.getvalue().splitlines()
    assert re.fullmatch(r"10 images, [0-9]+ images/s, 1 failed", first)
    assert re.fullmatch(r"15 images, [0-9]+ images/s, 1 failed", second)


# What an earlier export holds.


@pytest.fixture(scope="module")
def earlier(few, digits_model, tmp_path_factory):
    """An export of every third picture."""
    out = str(tmp_path_factory.mktemp("earlier") / "out")
    named = list(items(few))[::3]
    tfzip.export(named, digits_model, out, quiet=True)
    return out


def skipping(few, tmp_path, kind):
    pairs = list(items(few))
    if kind == "list":
        rows = [f"{name},{number}" for number, name in enumerate(few.names)]
        (few.folder / "all.csv").write_text("\n".join(["path,number", *rows]))
        return str(few.folder / "all.csv")
    if kind == "tar.gz":
        return write_tar(tmp_path / "x.tar.gz", pairs, "w:gz")
    if kind == "tfrecord":
        return _tfrecord(few, tmp_path / "old")
    return {"folder": str(few.folder), "items": pairs}[kind]


@pytest.mark.parametrize("kind", ["folder", "list", "tar.gz", "tfrecord", "items", "export"])
def test_only_what_the_earlier_export_does_not_hold_is_done(few, export, earlier, tmp_path, kind):
    if kind == "export":
        export(str(few.folder), "whole")
    source = str(tmp_path / "whole") if kind == "export" else skipping(few, tmp_path, kind)
    made = export(source, skip_in=earlier, batch_size=4)
    left = [i for i in range(40) if i % 3]
    assert [record.filename for record in made[:]] == [few.names[i] for i in left]
    assert [record.encoded for record in made[:]] == [few.encoded[i] for i in left]
    whole = export(str(few.folder), "by hand")
    wanted = [whole[few.names[i]].prediction.scores for i in left]
    np.testing.assert_allclose([record.prediction.scores for record in made[:]], wanted, atol=1e-5)
    if kind == "list":
        assert [record.extra["number"] for record in made[:]] == left
    assert made.manifest["counts"]["images"] == len(left)
    assert tfzip.verify(made) == []


@pytest.mark.parametrize("options", [{"shuffle": 1}, {"shards": 3, "limit": 10}], ids=str)
def test_what_is_left_of_a_list_is_a_list(few, export, earlier, options):
    made = export(str(few.folder), skip_in=earlier, **options)
    names = [record.filename for record in made[:]]
    left = [name for i, name in enumerate(few.names) if i % 3]
    assert names != left if "shuffle" in options else names == left[:10]
    assert set(names) <= set(left)
    assert [record.encoded for record in made[:]] == [few.encoded[few.names.index(name)] for name in names]


def test_nothing_left_to_do_is_told(few, export, tmp_path):
    export(str(few.folder), "whole")
    with pytest.raises(SourceError, match=r"holds all of its 40 images \(--skip-in\)"):
        export(str(few.folder), skip_in=str(tmp_path / "whole"))
    with pytest.raises(SourceError, match=r"the iterable gave no image that .*whole does not hold \(--skip-in\)"):
        export(items(few), skip_in=str(tmp_path / "whole"))
    assert not (tmp_path / "out").exists()


def test_skipping_what_is_no_export_is_told(few, export, tmp_path):
    with pytest.raises(UsageError, match="nowhere"):
        export(str(few.folder), skip_in=str(tmp_path / "nowhere"))


def test_a_batch_is_no_larger_than_a_shard(few, export):
    made = export(items(few), shard_records=10)
    assert [shard["records"] for shard in made.manifest["shards"]] == [10, 10, 10, 10]


def test_truth_without_names_is_carried_from_export_to_export(few, export):
    labelled = list(zip(few.names, few.encoded, few.classes, strict=True))
    first = export(labelled, task="raw")
    assert len({record.truth.label for record in first[:]}) == 10
    second = export(first.path, out="second", task="raw")
    assert [record.truth for record in second[:]] == [record.truth for record in first[:]]


def test_classes_of_a_data_set_keep_their_names_where_the_model_has_them_in_another_order(few, export, tmp_path):
    case = tfds(few, tmp_path)
    made = export(case.source(), labels=WORDS[::-1], **case.options)
    truths = [(9 - label, word) for label, word in zip(few.classes, few.words, strict=True)]
    assert [tuple(record.truth) for record in made[:]] == truths


@pytest.mark.parametrize(
    ("element", "words"),
    [
        ({"image": [b"x", b"y"]}, ["image", "unbatch"]),
        ({"image": np.zeros((8, 8), np.uint8)}, ["image", "[H, W, C]"]),
        ({"image": np.zeros((2, 8, 8, 3), np.uint8)}, ["image", "unbatch"]),
        ({"image": np.zeros((8, 8, 3), np.float32)}, ["image", "float32", "uint8"]),
        ({"image": b"x", "filename": 5}, ["filename", "text"]),
        ({"image": b"x", "label": 0.7}, ["label", "whole numbers"]),
    ],
)
def test_a_dataset_of_something_else_is_told_what_to_give(export, element, words):
    dataset = tf.data.Dataset.from_tensors({key: tf.constant(value) for key, value in element.items()})
    with pytest.raises(UsageError) as caught:
        export(dataset)
    assert all(word in str(caught.value) for word in words), caught.value
