"""Predictions made elsewhere: each image gets its own, whatever they come in; what does not fit is not joined."""

import csv
import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, features
from sources_made import SOURCES, WORDS, example, floats, ints, pictures_of, scores_of, texts, write_tar, write_tfrecord

import tfzip
from tfzip import cli, images
from tfzip.bounds import Bound
from tfzip.errors import SourceError, UsageError

COUNT = 24


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), COUNT)


@pytest.fixture(scope="module")
def scores(few, digits_model):
    return scores_of(few, digits_model)


@pytest.fixture
def export(few, tmp_path):
    """Exports with predictions into a folder that must not be there after an error."""

    def run(predictions, source=None, out="out", **options):
        source = str(few.folder) if source is None else source
        return tfzip.export(source, None, tmp_path / out, predictions=predictions, quiet=True, **options)

    return run


def refused(export, tmp_path, words, error=UsageError, *args, **options):
    """An export is refused, in these words and two lines at most, and leaves nothing."""
    with pytest.raises(error) as caught:
        export(*args, **options)
    for word in words:
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 2
    assert not (tmp_path / "out").exists()
    return caught.value


def npy(below, array):
    np.save(below / "given.npy", array)
    return below / "given.npy"


def table(below, rows, suffix=".csv"):
    """A table of dicts with the same keys."""
    path = below / f"given{suffix}"
    if suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def shuffled(rows):
    order = np.random.default_rng(2).permutation(len(rows))
    assert (order != np.arange(len(rows))).any()
    return [rows[i] for i in order]


def score_lists(names, scores):
    return [{"filename": name, "scores": row.tolist()} for name, row in zip(names, scores, strict=True)]


def score_columns(names, scores):
    columns = [dict(zip(WORDS, row.tolist(), strict=True)) for row in scores]
    return [{**row, "filename": name} for name, row in zip(names, columns, strict=True)]


def assert_predicted(export, names, scores, atol=1e-5):
    """These names, in this order, each with its scores and what follows from them."""
    records = export[:]
    assert [record.filename for record in records] == list(names)
    np.testing.assert_allclose([record.prediction.scores for record in records], scores, atol=atol)
    for record in records:
        assert record.prediction.label == record.prediction.scores.argmax()
        assert record.prediction.confidence == record.prediction.scores.max()
    assert export.failures == []
    assert tfzip.verify(export) == []


# Files of scores.


def odd_header(below, scores):
    """A header may be of any length, though NumPy fills it up."""
    file = io.BytesIO()
    np.save(file, scores.astype(np.float32))
    whole = file.getvalue()
    length = int.from_bytes(whole[8:10], "little")
    header = whole[10 : 10 + length].rstrip() + b" \n"
    header = header.replace(b" \n", b"  \n") if len(header) % 2 == 0 else header
    assert (10 + len(header)) % 4 in (1, 3)
    path = below / "odd.npy"
    path.write_bytes(whole[:8] + len(header).to_bytes(2, "little") + header + whole[10 + length :])
    np.testing.assert_array_equal(np.load(path), scores)
    return path


FILES = {
    **{
        f"npy {dtype}": lambda below, _, scores, dtype=dtype: npy(below, scores.astype(dtype))
        for dtype in ("<f4", "<f8", "<f2", ">f4", ">f8")
    },
    "npy in Fortran order": lambda below, _, scores: npy(below, np.asfortranarray(scores)),
    "npy of an odd header": lambda below, _, scores: odd_header(below, scores),
    "csv of columns": lambda below, few, scores: table(below, shuffled(score_columns(few.names, scores))),
    "jsonl of lists": lambda below, few, scores: table(below, shuffled(score_lists(few.names, scores)), ".jsonl"),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_same_scores_from_every_kind_of_file(few, scores, export, tmp_path, kind):
    path = FILES[kind](tmp_path, few, scores)
    made = export(path, batch_size=7)
    assert_predicted(made, few.names, scores, atol=1e-3 if kind == "npy <f2" else 1e-5)
    assert [record.encoded for record in made[:]] == few.encoded
    assert made.labels == (WORDS if "columns" in kind else [])
    if made.labels:
        assert [record.prediction.text for record in made[:]] == [WORDS[label] for label in scores.argmax(axis=1)]
    model = made.manifest["model"]
    assert (model["format"], model["name"]) == ("predictions", path.name)
    assert model["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits))


@pytest.mark.parametrize("shape", [(COUNT,), (COUNT, 1)], ids=str)
@pytest.mark.parametrize("logits", [False, True])
def test_one_score_an_image_is_the_second_class_of_two(few, export, tmp_path, shape, logits):
    given = np.random.default_rng(4).normal(0, 2, COUNT)
    positive = sigmoid(given)
    assert len(set((positive > 0.5).tolist())) == 2
    path = npy(tmp_path, (given if logits else positive).astype(np.float32).reshape(shape))
    made = export(path, labels=["no", "yes"], **({"scores": "logits"} if logits else {}))
    assert made.manifest["task"] == "binary"
    assert_predicted(made, few.names, np.stack([1 - positive, positive], axis=1))
    assert [record.prediction.text for record in made[:]] == ["yes" if p > 0.5 else "no" for p in positive]


def test_logits_of_several_classes_go_through_a_softmax(few, export, tmp_path):
    logits = np.random.default_rng(4).normal(0, 3, (COUNT, 5)).astype(np.float32)
    made = export(npy(tmp_path, logits), scores="logits")
    assert_predicted(made, few.names, softmax(logits))
    assert made.manifest["model"]["scores"] == "logits"


@pytest.mark.parametrize("logits", [False, True])
def test_of_multilabel_scores_those_from_the_threshold_on_count(export, tmp_path, logits):
    given = np.random.default_rng(4).normal(0, 2, (COUNT, 4)).astype(np.float32)
    wanted = sigmoid(given)
    chosen = [np.flatnonzero(row >= 0.7).tolist() for row in wanted]
    assert {0, 1, 2} <= {len(labels) for labels in chosen}
    options = {"labels": list("abcd"), "task": "multilabel", "threshold": 0.7}
    made = export(npy(tmp_path, given if logits else wanted), **options, **({"scores": "logits"} if logits else {}))
    for record, row, labels in zip(made[:], wanted, chosen, strict=True):
        np.testing.assert_allclose(record.prediction.scores, row, atol=1e-5)
        assert record.prediction.labels == labels
        assert record.prediction.texts == ["abcd"[label] for label in labels]
    assert tfzip.verify(made) == []


# Files of labels.


def labels_of(scores):
    labels = scores.argmax(axis=1)
    assert len(set(labels.tolist())) > 5
    return labels


@pytest.mark.parametrize("dtype", ["<i8", ">u2"])
def test_whole_numbers_are_labels_without_scores(few, scores, export, tmp_path, dtype):
    labels = labels_of(scores)
    made = export(npy(tmp_path, labels.astype(dtype)), labels=WORDS)
    assert not {"prediction/scores", "prediction/confidence"} & set(made.features)
    for record, name, label in zip(made[:], few.names, labels, strict=True):
        assert (record.filename, record.prediction.label, record.prediction.text) == (name, label, WORDS[label])
        assert record.prediction.scores is None
        assert record.prediction.confidence is None
    assert made.manifest["task"] == "multiclass"
    assert tfzip.verify(made) == []


SORTED = sorted(WORDS)
LABELLED = {
    "names": (("prediction",), {}, None),
    "names with a confidence": (("prediction", "confidence"), {}, None),
    "names, with the classes given": (("prediction",), {"labels": WORDS}, WORDS),
    "names in the column of labels": (("label",), {"labels": WORDS}, WORDS),
    "labels": (("number",), {}, []),
    "labels, with the classes given": (("number", "confidence"), {"labels": WORDS}, WORDS),
    "names and labels": (("prediction", "number"), {}, []),
}


@pytest.mark.parametrize(
    ("kind", "suffix"), [*((kind, ".csv") for kind in LABELLED), ("names", ".jsonl"), ("labels", ".jsonl")]
)
def test_a_table_tells_the_class_by_name_or_number(few, scores, export, tmp_path, kind, suffix):
    columns, options, names = LABELLED[kind]
    labels = labels_of(scores)
    texts = [WORDS[label] for label in labels]
    names = sorted(set(texts)) if names is None else names
    values = {
        "prediction": ("prediction", texts),
        "label": ("label", texts),
        "number": ("label", labels.tolist()),
        "confidence": ("confidence", scores.max(axis=1).tolist()),
    }
    chosen = dict(values[column] for column in columns)
    rows = [
        {"file_name": name, **{column: known[i] for column, known in chosen.items()}}
        for i, name in enumerate(few.names)
    ]
    made = export(table(tmp_path, shuffled(rows), suffix), **options)
    assert made.labels == names
    assert [record.filename for record in made[:]] == few.names
    for record, label, text, confidence in zip(made[:], labels, texts, scores.max(axis=1), strict=True):
        numbers = "number" in columns
        assert record.prediction.label == (label if numbers else names.index(text))
        assert record.prediction.text == (str(label) if numbers and not names and len(columns) == 1 else text)
        known = record.prediction.confidence
        assert known == pytest.approx(confidence, abs=1e-5) if "confidence" in columns else known is None
    assert tfzip.verify(made) == []


def test_a_name_that_is_no_class_has_no_label(few, scores, export, tmp_path):
    texts = [WORDS[label] for label in labels_of(scores)]
    rows = [{"filename": name, "prediction": text} for name, text in zip(few.names, texts, strict=True)]
    made = export(table(tmp_path, rows), labels=WORDS[:4])
    said = [(record.prediction.label, record.prediction.text) for record in made[:]]
    assert said == [(WORDS.index(text) if text in WORDS[:4] else -1, text) for text in texts]


# Sources.


KINDS = [
    "folder",
    "list",
    "tar.gz",
    "zip, deflated",
    "tfrecord",
    "tfrecord, shuffled",
    "export",
    "generator of dicts",
]


@pytest.mark.parametrize("form", ["array", "table"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_image_of_every_source_gets_its_own_prediction(few, scores, export, tmp_path, kind, form):
    case = SOURCES[kind](few, tmp_path)
    order = list(case.order or range(COUNT))
    if form == "array":
        path = npy(tmp_path, scores[order])
    else:
        path = table(tmp_path, shuffled(score_lists(few.names, scores)), ".jsonl")
    made = export(path, case.source(), batch_size=7, **case.options)
    names = [record.filename for record in made[:]]
    assert (names != list(case.names)) == ("shuffle" in case.options)
    assert sorted(names) == sorted(case.names)
    places = [few.names.index(name) for name in names]
    assert_predicted(made, names, scores[places])
    assert [record.encoded for record in made[:]] == [few.encoded[place] for place in places]
    if case.truths:
        truths = dict(zip(case.names, case.truths, strict=True))
        assert [tuple(record.truth) for record in made[:]] == [truths[name] for name in names]


@pytest.mark.parametrize("options", [{"shuffle": 3, "shards": 4}, {"limit": 10, "parallel": 1}], ids=str)
@pytest.mark.parametrize("form", ["array", "table"])
def test_order_and_number_of_records_mix_nothing_up(few, scores, export, tmp_path, form, options):
    path = npy(tmp_path, scores) if form == "array" else table(tmp_path, score_columns(few.names, scores))
    made = export(path, batch_size=5, **options)
    names = [record.filename for record in made[:]]
    wanted = few.names[: options.get("limit", COUNT)]
    assert (names != wanted) == ("shuffle" in options)
    assert sorted(names) == wanted
    assert_predicted(made, names, scores[[few.names.index(name) for name in names]])


@pytest.mark.parametrize("image", ["none", "png", "jpeg:90"])
def test_images_may_be_left_out_or_encoded_anew(few, scores, export, tmp_path, image):
    made = export(npy(tmp_path, scores), image=image)
    assert_predicted(made, few.names, scores)
    for record, pixels in zip(made[:], few.pixels, strict=True):
        assert (record.height, record.width) == pixels.shape[:2]
        if image == "png":
            np.testing.assert_array_equal(tf.io.decode_png(record.encoded), pixels)
        assert (record.encoded is None) == (image == "none")


def test_old_records_keep_every_feature_and_gain_a_prediction(few, scores, export, tmp_path):
    records = [
        example(
            image__encoded=texts(content),
            image__filename=texts(name.encode()),
            notes=texts(*[b"note %d" % k for k in range(i % 4)]),
            weights=floats(*[k / 4 for k in range(i % 3)]),
            counts=ints(*range(-1, i % 5 - 1)),
            always=floats(0.1, -i, float("inf")),
            fixed=texts(b"", b"\xff\0"),
        )
        for i, (name, content) in enumerate(zip(few.names, few.encoded, strict=True))
    ]
    made = export(npy(tmp_path, scores), write_tfrecord(tmp_path / "old", records))
    assert_predicted(made, few.names, scores)
    written = [record.numpy() for record in tf.data.TFRecordDataset(made.shards, "GZIP")]
    for old, new in zip(records, written, strict=True):
        assert new.startswith(old)
        features = tf.train.Example.FromString(new).features.feature
        for key, value in tf.train.Example.FromString(old).features.feature.items():
            assert features[key] == value
    assert made[7].extra["notes"].tolist() == [b"note 0", b"note 1", b"note 2"]


def test_names_that_are_not_utf_8_are_joined_by_their_bytes(few, scores, export, tmp_path):
    names = [b"caf\xe9 %d.png" % i for i in range(COUNT)]
    source = [(name, content) for name, content in zip(names, few.encoded, strict=True)]
    rows = [b"%s,%s" % (name, WORDS[label].encode()) for name, label in zip(names, labels_of(scores), strict=True)]
    (tmp_path / "given.csv").write_bytes(b"\n".join([b"filename,prediction", *shuffled(rows)]))
    made = export(tmp_path / "given.csv", source)
    assert [made[name].prediction.text for name in names] == [WORDS[label] for label in labels_of(scores)]


def test_the_command_line_takes_them_too(few, scores, tmp_path, capsys):
    arguments = ["export", str(few.folder), "--predictions", str(npy(tmp_path, scores)), "--out", str(tmp_path / "out")]
    assert cli.main(arguments) == 0
    assert f"{COUNT} records" in "".join(capsys.readouterr())
    assert_predicted(tfzip.open(tmp_path / "out"), few.names, scores)


# What does not fit.


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "tfrecord", "tfrecord, shuffled", "pairs"])
@pytest.mark.parametrize("more", [-1, 1])
def test_an_array_of_another_length_is_refused_with_both_numbers(few, scores, export, tmp_path, kind, more):
    case = SOURCES[kind](few, tmp_path)
    path = npy(tmp_path, np.resize(scores, (COUNT + more, 10)))
    words = [str(path), f"{COUNT + more} predictions", f"{COUNT} images"]
    refused(export, tmp_path, words, UsageError, path, case.source(), **case.options)


@pytest.mark.parametrize("batch", [7, 24])
@pytest.mark.parametrize("more", [-1, 1])
def test_of_a_stream_whose_end_only_the_end_tells_it_is_refused_there(few, scores, export, tmp_path, more, batch):
    path = npy(tmp_path, np.resize(scores, (COUNT + more, 10)))
    words = [f"{COUNT + more} predictions", "more images" if more < 0 else f"{COUNT} images"]
    source = SOURCES["generator of dicts"](few, tmp_path).source()
    refused(export, tmp_path, words, UsageError, path, source, batch_size=batch)


SOME = ["folder", "tar.gz", "tfrecord, shuffled", "generator of dicts"]
KINDS_AND_NUMBERS = [*((kind, 5) for kind in SOME), ("folder", 1), ("tfrecord", 1)]


@pytest.mark.parametrize(("kind", "missing"), KINDS_AND_NUMBERS)
def test_images_without_a_row_are_named(few, scores, export, tmp_path, kind, missing):
    case = SOURCES[kind](few, tmp_path)
    rows = score_lists(few.names, scores)
    path = table(tmp_path, rows[: COUNT - missing], ".jsonl")
    error = refused(export, tmp_path, [str(path)], UsageError, path, case.source(), **case.options)
    named = [name for name in few.names if name in str(error)]
    assert len(named) == min(missing, 3)
    assert set(named) <= set(few.names[-missing:])
    assert ("and 2 more" in str(error)) == (missing == 5)


@pytest.mark.parametrize(("kind", "left"), KINDS_AND_NUMBERS)
def test_rows_without_an_image_are_named(few, scores, export, tmp_path, kind, left):
    case = SOURCES[kind](few, tmp_path)
    names = [*few.names, *(f"gone/{i}.png" for i in range(left))]
    path = table(tmp_path, shuffled(score_lists(names, np.resize(scores, (len(names), 10)))), ".jsonl")
    words = ["gone/0.png, gone/1.png, gone/2.png and 2 more" if left == 5 else "gone/0.png"]
    refused(export, tmp_path, words, UsageError, path, case.source(), batch_size=7, **case.options)


@pytest.mark.parametrize("kind", SOME)
def test_if_allowed_images_without_a_row_fail_and_rows_without_an_image_are_left(few, scores, export, tmp_path, kind):
    case = SOURCES[kind](few, tmp_path)
    lacking = {few.names[0], few.names[9], few.names[-1]}
    rows = [row for row in score_lists(few.names, scores) if row["filename"] not in lacking]
    path = table(tmp_path, [*rows, {"filename": "gone.png", "scores": [0.1] * 10}], ".jsonl")
    made = export(path, case.source(), allow_partial=True, batch_size=7, **case.options)
    assert {(failure.filename, failure.stage) for failure in made.failures} == {(name, "predict") for name in lacking}
    assert all(path.name in failure.error for failure in made.failures)
    assert {record.filename for record in made[:]} == set(few.names) - lacking
    for record in made[:]:
        np.testing.assert_allclose(record.prediction.scores, scores[few.names.index(record.filename)], atol=1e-5)
    assert tfzip.verify(made) == []


def test_a_record_that_cannot_be_read_is_no_missing_prediction(few, scores, export, tmp_path):
    records = [
        example(image__encoded=texts(content), image__filename=texts(name.encode()))
        for name, content in zip(few.names, few.encoded, strict=True)
    ]
    records[7] = example(image__encoded=texts(few.encoded[7]))
    source = write_tfrecord(tmp_path / "old.tfrecord", records)
    made = export(table(tmp_path, score_lists(few.names, scores), ".jsonl"), source, batch_size=5)
    assert [failure.stage for failure in made.failures] == ["read"]
    assert [record.filename for record in made[:]] == few.names[:7] + few.names[8:]
    fewer = table(tmp_path, score_lists(few.names, scores)[1:], ".jsonl")
    refused(export, tmp_path / "other", [few.names[0]], UsageError, fewer, source, out="other/out")


@pytest.mark.parametrize(
    ("suffix", "column", "nothing"),
    [(".csv", "prediction", ""), (".csv", "label", ""), (".jsonl", "scores", None), (".jsonl", "prediction", None)],
)
def test_a_row_that_predicts_nothing_is_none(few, scores, export, tmp_path, suffix, column, nothing):
    labels = labels_of(scores).tolist()
    values = {"prediction": [WORDS[label] for label in labels], "label": labels, "scores": scores.tolist()}[column]
    rows = [{"filename": name, column: value} for name, value in zip(few.names, values, strict=True)]
    rows[5][column] = nothing
    path = table(tmp_path, rows, suffix)
    refused(export, tmp_path, [few.names[5]], UsageError, path)
    made = export(path, allow_partial=True)
    assert [failure.filename for failure in made.failures] == [few.names[5]]
    said = {"prediction": "text", "label": "label"}.get(column)
    for record in made[:]:
        i = few.names.index(record.filename)
        if said:
            assert getattr(record.prediction, said) == values[i]
        else:
            np.testing.assert_allclose(record.prediction.scores, scores[i], atol=1e-5)


@pytest.mark.parametrize("kind", ["folder", "generator of dicts"])
def test_rows_of_images_that_an_earlier_export_holds_are_no_left_overs(few, scores, export, tmp_path, kind):
    path = table(tmp_path, score_columns(few.names, scores))
    export(path, list(zip(few.names, few.encoded, strict=True))[:9], "earlier", allow_partial=True)
    case = SOURCES[kind](few, tmp_path)
    made = export(path, case.source(), skip_in=str(tmp_path / "earlier"), **case.options)
    assert_predicted(made, few.names[9:], scores[9:])


# Files that are no predictions.


class Trap:
    """What must not be unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def saved(array, **how):
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def zipped(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


def rows_of(few, make):
    return "".join(json.dumps({"filename": name, **make(i)}) + "\n" for i, name in enumerate(few.names)).encode()


HEADER = ",".join(["filename", *WORDS])


def csv_with(few, cell, header=HEADER):
    """A row an image, all certain of the first class; `cell` gives the second class's cell of each."""
    rows = [f"{name},1,{cell(i)}" + ",0" * 8 for i, name in enumerate(few.names)]
    return "\n".join([header, *rows]).encode()


BAD = {
    "no .npy": ("npy", lambda _: b"no array" * 20, SourceError, []),
    "empty": ("npy", lambda _: b"", SourceError, []),
    "cut short": ("npy", lambda _: saved(np.ones((COUNT, 3)))[:-1], SourceError, []),
    "cut short in its header": ("npy", lambda _: saved(np.ones((COUNT, 3)))[:30], SourceError, []),
    "objects": ("npy", lambda _: saved(np.array([Trap()] * COUNT), allow_pickle=True), SourceError, []),
    "several arrays": ("npy", lambda _: zipped(np.ones((COUNT, 3))), SourceError, []),
    "bool": ("npy", lambda _: saved(np.ones(COUNT, bool)), SourceError, ["bool", "24"]),
    "complex": ("npy", lambda _: saved(np.ones(COUNT, complex)), SourceError, ["complex128"]),
    "text": ("npy", lambda _: saved(np.array(["one"] * COUNT)), SourceError, []),
    "three dimensions": ("npy", lambda _: saved(np.ones((COUNT, 2, 1))), SourceError, ["24x2x1"]),
    "no dimension": ("npy", lambda _: saved(np.float32(0.5)), SourceError, []),
    "no scores": ("npy", lambda _: saved(np.ones((COUNT, 0))), SourceError, ["24x0"]),
    "no rows of scores": ("npy", lambda _: saved(np.ones((0, 3))), SourceError, ["0x3"]),
    "no labels": ("npy", lambda _: saved(np.ones(0, int)), UsageError, ["0 predictions"]),
    "labels [N, 2]": ("npy", lambda _: saved(np.ones((COUNT, 2), int)), SourceError, ["int64", "24x2"]),
    "scores above 1": ("npy", lambda _: saved(np.full((COUNT, 3), 1.5)), UsageError, ["0..1", "--scores logits"]),
    "scores below 0": ("npy", lambda _: saved(np.full(COUNT, -0.5)), UsageError, ["0..1", "--scores logits"]),
    "scores of no sum": ("npy", lambda _: saved(np.full((COUNT, 3), 0.5)), UsageError, ["add up", "--task multilabel"]),
    "an unknown suffix": ("txt", lambda _: b"filename,prediction\n", SourceError, [".npy, .csv or .jsonl"]),
    "an empty table": ("csv", lambda _: b"", SourceError, ["no rows"]),
    "an empty jsonl": ("jsonl", lambda _: b"\n\n", SourceError, ["no rows"]),
    "a table without rows": ("csv", lambda _: HEADER.encode(), SourceError, ["no rows"]),
    "no filenames": ("csv", lambda few: csv_with(few, lambda _: 0, "id," + ",".join(WORDS)), SourceError, ["id, zero"]),
    "a row without a filename": ("csv", lambda _: b"path,label\na.png,1\n,2\n", SourceError, ["line 3", "path"]),
    "two rows of one image": (
        "csv",
        lambda _: b"path,label\na.png,1\nb.png,1\na.png,2\n",
        SourceError,
        ["lines 2 and 4 both name a.png"],
    ),
    "a row that is too short": ("csv", lambda _: b"path,label\na.png\n", SourceError, ["line 2"]),
    "no prediction": ("csv", lambda _: b"path,note\na.png,good\n", SourceError, ["scores, prediction, label"]),
    "an empty cell": ("csv", lambda few: csv_with(few, lambda i: "" if i == 7 else 0), SourceError, ["one"]),
    "ragged lists": ("jsonl", lambda few: rows_of(few, lambda i: {"scores": [0.5] * (2 + i % 2)}), SourceError, []),
    "lists of text": ("jsonl", lambda few: rows_of(few, lambda _: {"scores": ["a", "b"]}), SourceError, []),
    "scores that are no lists": ("jsonl", lambda few: rows_of(few, lambda _: {"scores": 0.5}), SourceError, []),
    "no JSON": ("jsonl", lambda _: b"{filename: a.png}\n", SourceError, ["line 1"]),
    "no JSON object": ("jsonl", lambda _: b'{"filename": "a.png", "label": 1}\n[1]\n', SourceError, ["line 2"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_holds_no_predictions_is_told_by_name(few, export, tmp_path, name):
    suffix, make, error, words = BAD[name]
    path = tmp_path / f"given.{suffix}"
    path.write_bytes(make(few))
    caught = refused(export, tmp_path, [str(path), *words], error, path)
    if name == "an empty cell":
        assert few.names[7] in str(caught)


@pytest.mark.parametrize("suffix", ["npy", "csv", "jsonl"])
def test_a_file_that_is_not_there_is_told(export, tmp_path, suffix):
    path = tmp_path / f"nowhere.{suffix}"
    refused(export, tmp_path, [str(path), "no such file"], SourceError, path)


# Options.


IDLE = {
    "scale": "unit",
    "preprocess": "math:sqrt",
    "resize": "pad",
    "interpolation": "area",
    "image_size": "8x8",
    "signature": "serving_default",
    "output": "scores",
    "weights": "imagenet",
    "imports": ["math"],
    "trust_model": True,
    "alpha": "white",
    "exif_orientation": "apply",
    "threshold": 0.7,
    "min_score": 0.7,
    "devices": "cpu",
}


@pytest.mark.parametrize("option", IDLE)
def test_an_option_that_only_a_model_has_a_use_for_is_refused(scores, export, tmp_path, option):
    flag = "--import" if option == "imports" else "--" + option.replace("_", "-")
    words = [f"{flag} has no effect"]
    refused(export, tmp_path, words, UsageError, npy(tmp_path, scores), **{option: IDLE[option]})


@pytest.mark.parametrize("option", ["alpha", "exif_orientation"])
def test_what_is_encoded_anew_has_a_use_for_how_it_is_decoded(few, scores, export, tmp_path, option):
    made = export(npy(tmp_path, scores), image="jpeg:90", **{option: IDLE[option]})
    assert_predicted(made, few.names, scores)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"allow_partial": True}, ["--allow-partial", "given.npy", "a table"]),
        ({"skip_in": True}, ["--skip-in", "given.npy", "a table"]),
        ({"task": "binary"}, ["--task binary", "10 scores"]),
        ({"task": "detection"}, ["--task detection"]),
        ({"task": "raw"}, ["--task raw"]),
        ({"labels": ["a", "b"]}, ["2 labels", "10 classes"]),
    ],
    ids=str,
)
def test_an_option_that_an_array_of_scores_does_not_allow_is_refused(scores, export, tmp_path, options, words):
    path = npy(tmp_path, scores)
    if "skip_in" in options:
        export(path, out="earlier", limit=5)
        options = {"skip_in": str(tmp_path / "earlier")}
    refused(export, tmp_path, words, UsageError, path, **options)


@pytest.mark.parametrize("options", [{"scores": "logits"}, {"task": "multilabel"}, {"task": "binary"}], ids=str)
def test_labels_are_no_scores(scores, export, tmp_path, options):
    refused(export, tmp_path, ["--" + next(iter(options))], UsageError, npy(tmp_path, labels_of(scores)), **options)


def test_one_score_an_image_is_not_multilabel(scores, export, tmp_path):
    refused(export, tmp_path, ["--task", "1 score"], UsageError, npy(tmp_path, scores[:, 0]), task="multilabel")


def test_either_a_model_or_predictions_are_needed(few, scores, digits_model, tmp_path):
    source, out = str(few.folder), tmp_path / "out"
    with pytest.raises(UsageError, match="--model and --predictions"):
        tfzip.export(source, digits_model, out, predictions=npy(tmp_path, scores), quiet=True)
    with pytest.raises(UsageError, match="give a --model, or --predictions"):
        tfzip.export(source, None, out, quiet=True)
    with pytest.raises(UsageError, match="--allow-partial has no effect"):
        tfzip.export(source, digits_model, out, allow_partial=True, quiet=True)
    assert not out.exists()


def test_an_array_is_not_joined_to_a_source_of_which_something_was_rejected(few, scores, export, tmp_path):
    path = write_tar(tmp_path / "linked.tar", zip(few.names, few.encoded, strict=True))
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo("link.png")
        info.type, info.linkname = tarfile.SYMTYPE, few.names[3]
        tar.addfile(info)
    words = ["link.png", "give a table"]
    refused(export, tmp_path, words, UsageError, npy(tmp_path, np.resize(scores, (COUNT + 1, 10))), path)


# Sizes, of images that nothing decodes.


def picture(mode, kind, width=19, height=11, **how):
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(file, kind, **how)
    return file.getvalue()


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    return exif


def array_file():
    file = io.BytesIO()
    np.save(file, np.random.default_rng(1).integers(0, 256, (11, 19, 3)).astype(np.uint8))
    return file.getvalue()


PICTURES = {
    "rgb.jpg": lambda: picture("RGB", "JPEG"),
    "grey.jpg": lambda: picture("L", "JPEG"),
    "cmyk.jpg": lambda: picture("CMYK", "JPEG"),
    "progressive.jpg": lambda: picture("RGB", "JPEG", progressive=True),
    "subsampled.jpg": lambda: picture("RGB", "JPEG", subsampling=2, quality=40),
    "restarts.jpg": lambda: picture("RGB", "JPEG", restart_marker_blocks=1),
    "turned.jpg": lambda: picture("RGB", "JPEG", exif=turned()),
    "more behind.jpg": lambda: picture("RGB", "JPEG") + b"more",
    "large.jpg": lambda: picture("RGB", "JPEG", 700, 300),
    "one pixel.jpg": lambda: picture("L", "JPEG", 1, 1),
    "bits.png": lambda: picture("1", "PNG"),
    "grey.png": lambda: picture("L", "PNG"),
    "grey and alpha.png": lambda: picture("LA", "PNG"),
    "deep.png": lambda: picture("I;16", "PNG"),
    "palette.png": lambda: picture("P", "PNG"),
    "rgb.png": lambda: picture("RGB", "PNG"),
    "rgba.png": lambda: picture("RGBA", "PNG"),
    "turned.png": lambda: picture("RGB", "PNG", exif=turned()),
    "more behind.png": lambda: picture("RGB", "PNG") + b"more",
    "wide.png": lambda: picture("L", "PNG", 70_000, 1),
    "high.png": lambda: picture("L", "PNG", 1, 70_000),
    "palette.gif": lambda: picture("P", "GIF"),
    "rgb.bmp": lambda: picture("RGB", "BMP"),
    "rgba.bmp": lambda: picture("RGBA", "BMP"),
    "lossy.webp": lambda: picture("RGB", "WEBP"),
    "lossless.webp": lambda: picture("RGBA", "WEBP", lossless=True),
    "pixels.npy": array_file,
}
if not hasattr(tf.io, "decode_webp") or not features.check("webp"):  # TensorFlow 2.16
    PICTURES = {name: make for name, make in PICTURES.items() if not name.endswith("webp")}

FOREIGN = {
    "grey.bmp": lambda: picture("L", "BMP"),
    "bits.bmp": lambda: picture("1", "BMP"),
    "rgb.tiff": lambda: picture("RGB", "TIFF"),
}
"""What another library than TensorFlow reads."""

BROKEN = {
    "empty.png": lambda: b"",
    "empty.jpg": lambda: b"",
    "cut.jpg": lambda: picture("RGB", "JPEG", 200, 100)[:-400],
    "without its end.jpg": lambda: picture("RGB", "JPEG")[:-2],
    "only the ends.jpg": lambda: picture("RGB", "JPEG")[:3] + b"\xff\xd9",
    "cut.png": lambda: picture("RGB", "PNG", 200, 100)[:-400],
    "without its end.png": lambda: picture("RGB", "PNG")[:-12],
    "header.png": lambda: picture("RGB", "PNG")[:30],
    "only the ends.png": lambda: picture("RGB", "PNG")[:8] + picture("RGB", "PNG")[-12:],
    "cut.gif": lambda: picture("P", "GIF")[:20],
    "cut.bmp": lambda: picture("RGB", "BMP")[:-40],
    "cut.npy": lambda: array_file()[:-1],
    "words.jpg": lambda: b"no image at all",
}


def size_by_pillow(content):
    """Height and width; what Pillow does not know is NumPy's."""
    if content.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(content)).shape[:2]
    return Image.open(io.BytesIO(content)).size[::-1]


@pytest.fixture(scope="module")
def size():
    return tf.function(images.size, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.fixture(scope="module")
def usual_size():
    return tf.function(images.size_usual, input_signature=[tf.TensorSpec((), tf.string)])


@pytest.mark.parametrize("name", PICTURES)
def test_the_size_of_an_image_is_what_pillow_finds(name, size, usual_size):
    content = PICTURES[name]()
    height, width = size_by_pillow(content)
    assert height != width or name == "one pixel.jpg"
    assert size(content).numpy().tolist() == [height, width]
    assert images.size(tf.constant(content)).numpy().tolist() == [height, width]
    if content.startswith((b"\xff\xd8", b"\x89PNG")) and not name.startswith("more behind"):
        assert usual_size(content).numpy().tolist() == [height, width]
    else:
        with pytest.raises(tf.errors.InvalidArgumentError):
            usual_size(content)


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_whole_image_has_no_size(name, size, usual_size):
    for function in (size, usual_size):
        with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
            function(BROKEN[name]())


def test_too_large_an_image_has_no_size_in_either_way():
    content, bound = picture("RGB", "PNG", 200, 100), Bound(200 * 100 - 1)
    for function in (images.size, images.size_usual):
        traced = tf.function(
            lambda encoded, function=function: function(encoded, bound), [tf.TensorSpec((), tf.string)]
        )
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            traced(content)


@pytest.mark.parametrize("image", ["keep", "none"])
def test_images_that_are_not_decoded_have_their_size_and_broken_ones_fail_alone(export, tmp_path, image):
    whole = {name: make() for name, make in {**PICTURES, **FOREIGN}.items()}
    broken = {name: make() for name, make in BROKEN.items()}
    assert not set(whole) & set(broken)
    (tmp_path / "images").mkdir()
    for name, content in {**whole, **broken}.items():
        (tmp_path / "images" / name).write_bytes(content)
    names = sorted({**whole, **broken}, key=str.encode)
    path = table(tmp_path, [{"filename": name, "label": i} for i, name in enumerate(names)])
    made = export(path, str(tmp_path / "images"), batch_size=9, image=image)
    assert {(failure.filename, failure.stage) for failure in made.failures} == {(name, "decode") for name in broken}
    assert {record.filename for record in made[:]} == set(whole)
    for record in made[:]:
        assert (record.height, record.width) == tuple(size_by_pillow(whole[record.filename])), record.filename
        assert record.prediction.label == names.index(record.filename)
        assert record.encoded == (whole[record.filename] if image == "keep" else None)
    assert tfzip.verify(made) == []
