"""TFRecords that exist already: they gain a prediction, and keep every feature that they had."""

import itertools
import re

import numpy as np
import pytest
import tensorflow as tf
from sources_made import example, floats, ints, pictures_of, texts, write_tfrecord

import tfzip
from tfzip import terminal
from tfzip.record import BOXES, DETECTED_SCORE, LABEL, TEXT, Prediction, prediction_features


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few"), 24)


def parsed(serialized):
    """The features of a serialized Example: kind and values by key."""
    features = tf.train.Example.FromString(serialized).features.feature
    kinds = {key: feature.WhichOneof("kind") for key, feature in features.items()}
    return {key: (kind, list(getattr(features[key], kind).value)) for key, kind in kinds.items()}


def records_of(export):
    compression = "GZIP" if export.manifest["compression"] == "gzip" else ""
    return [record.numpy() for record in tf.data.TFRecordDataset(export.shards, compression)]


def old_records(few, **more):
    """Examples with features of every kind, of no value, one and several; `more` are functions of the number."""
    return [
        example(
            image__encoded=texts(content),
            image__filename=texts(few.names[i].encode()),
            notes=texts(*[b"note %d" % k for k in range(i % 4)]),
            weights=floats(*[k / 4 for k in range(i % 3)]),
            counts=ints(*range(-1, i % 5 - 1)),
            one=ints(i),
            always=floats(0.1, -i, float("inf")),
            fixed=texts(b"", b"\xff\0"),
            **{key: value(i) for key, value in more.items()},
        )
        for i, content in enumerate(few.encoded)
    ]


@pytest.fixture
def exported(digits_model, tmp_path):
    def run(records, model=digits_model, **options):
        source = write_tfrecord(tmp_path / "old.tfrecord", records)
        return tfzip.export(source, model, str(tmp_path / "out"), quiet=True, batch_size=5, **options)

    return run


# Features of the names that predictions have, of another model.


def same(value):
    """The same in every record."""
    return lambda _: value


EARLIER = {
    "scores that vary": {"prediction__scores": lambda i: floats(*[0.5] * i)},
    "scores": {"prediction__scores": same(floats(0.25, 0.75)), "prediction__confidence": same(floats(0.75))},
    "numbers for scores": {"prediction__scores": lambda i: ints(i, 2)},
    "a label": {"prediction__label": lambda i: ints(i), "prediction__text": same(texts(b"old"))},
    "labels": {"prediction__labels": lambda i: ints(*range(i)), "prediction__texts": lambda i: texts(*[b"old"] * i)},
    "boxes": {
        "image__detection__label": lambda i: ints(*range(i)),
        "image__detection__text": lambda i: texts(*[b"old"] * i),
        **{key.replace("/", "__"): lambda i: floats(*[0.1] * i) for key in (*BOXES, DETECTED_SCORE)},
    },
}


USUAL = [("raw", "scores that vary"), ("raw", "labels"), ("raw", "boxes"), ("labels", "scores"), ("labels", "boxes")]


@pytest.mark.parametrize(
    ("task", "earlier"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (case not in USUAL))
        for case in itertools.product(["raw", "labels"], EARLIER)
    ],
)
def test_an_earlier_prediction_is_kept_or_replaced_and_not_taken_for_the_new_one(
    few, exported, tmp_path, task, earlier
):
    more, table = EARLIER[earlier], tmp_path / "labels.csv"
    table.write_text("filename,prediction\n" + "".join(f"{name},new\n" for name in few.names))
    options = {"task": "raw", "scale": "raw"} if task == "raw" else {"predictions": str(table), "model": None}
    export = exported(old_records(few, **more), **options)
    assert tfzip.verify(export) == []
    assert {name for name in export.metadata if name == "scores"} == set()
    for said, name, _ in export:
        assert set(said) == ({"output"} if task == "raw" else set()), name
    label = None if task == "raw" else 0
    for made in export[:]:
        assert made.prediction == Prediction(label=label, text=label if label is None else "new")
    keys = {key.replace("__", "/") for key in more}
    kept = keys if task == "raw" else keys - {*prediction_features("multiclass", 0)}
    assert keys & set(export.features) == kept | (keys & {LABEL, TEXT})
    for i, data in enumerate(records_of(export)):
        old, new = parsed(old_records(few, **more)[i]), parsed(data)
        assert {key: new[key] for key in kept} == {key: old[key] for key in kept}
    terminal.inspection(export)


@pytest.fixture(scope="module")
def scores(few, digits_model, tmp_path_factory):
    out = tmp_path_factory.mktemp("folder") / "out"
    export = tfzip.export(str(few.folder), digits_model, str(out), quiet=True)
    table = np.array([export[name].prediction.scores for name in few.names])
    assert len(np.unique(table.round(4), axis=0)) > 20
    return table


def assert_kept(export, records, replaced=(), left_out=()):
    """Every old feature but those replaced is in the new records, equal."""
    for old, new in zip(map(parsed, records), map(parsed, records_of(export)), strict=True):
        for key, value in old.items():
            if key in left_out:
                assert key not in new
            elif key not in replaced:
                assert new[key] == value, key
    assert tfzip.verify(export) == []


def assert_predicted(export, few, scores):
    assert [record.filename for record in export[:]] == few.names
    np.testing.assert_allclose([record.prediction.scores for record in export[:]], scores, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"compression": "none"}, {"image": "keep", "shards": 3}], ids=str)
def test_every_old_feature_is_kept_and_the_old_bytes_come_first(few, exported, scores, options):
    records = old_records(few)
    export = exported(records, **options)
    assert_kept(export, records)
    assert_predicted(export, few, scores)
    for old, new in zip(records, records_of(export), strict=True):
        assert new.startswith(old)
        assert new.count(b"\x89PNG") == 1
    record = export[7]
    assert list(record.extra["notes"]) == [b"note 0", b"note 1", b"note 2"]
    assert record.extra["weights"].tolist() == [0.0]
    assert record.extra["counts"].tolist() == [-1, 0]


def test_the_dataset_of_an_export_parses_what_was_carried(few, exported):
    export = exported(old_records(few))
    for i, element in enumerate(export.dataset()):
        assert element["counts"].numpy().tolist() == list(range(-1, i % 5 - 1))
        assert element["fixed"].numpy().tolist() == [b"", b"\xff\0"]
        assert element["image/filename"].numpy().decode() == few.names[i]


REPLACED = {
    "a prediction of the same type": {"prediction__label": lambda i: ints(i + 1000)},
    "a prediction of another type": {"prediction__label": lambda i: texts(b"%d" % i)},
    "scores of another length": {"prediction__scores": lambda i: floats(*[0.5] * (i % 3))},
    "a size that is text": {"image__height": lambda _: texts(b"tall"), "image__width": lambda _: floats(8, 8)},
    "a format of several": {"image__format": lambda i: texts(*[b"x"] * (i % 3))},
    "a truth": {"truth__label": lambda i: floats(i)},
}


@pytest.mark.parametrize("case", REPLACED)
def test_what_tfzip_writes_replaces_a_feature_of_that_name_and_no_other(few, exported, scores, case):
    records = old_records(few, label=lambda i: ints(i % 10), **REPLACED[case])
    options = {"truth_key": "label"} if case == "a truth" else {}
    replaced = {key.replace("__", "/") for key in REPLACED[case]}
    export = exported(records, **options)
    assert_kept(export, records, replaced)
    assert_predicted(export, few, scores)
    for i, record in enumerate(export[:]):
        assert record.prediction.label == int(np.argmax(scores[i]))
        if case.startswith("a size"):
            assert (record.height, record.width, record.format) == (8, 8, "png")
        if options:
            assert tuple(record.truth) == (i % 10, str(i % 10))


@pytest.mark.parametrize("image", ["none", "png", "jpeg:90"])
@pytest.mark.parametrize("key", ["image/encoded", "jpg"])
def test_an_image_that_is_not_kept_is_not_in_the_record(few, exported, scores, image, key):
    records = old_records(few)
    if key == "jpg":
        records = [record.replace(b"image/encoded", b"image/different") for record in records]
        records = [
            example(jpg=texts(content), image__filename=texts(name.encode()), one=ints(1))
            for name, content in zip(few.names, few.encoded, strict=True)
        ]
    export = exported(records, image=image, image_key=key)
    assert_kept(export, records, replaced={"image/encoded"} - {"jpg"}, left_out={key} if image == "none" else {"jpg"})
    assert_predicted(export, few, scores)
    for i, record in enumerate(export[:]):
        if image == "none":
            assert record.encoded is None
        elif image == "png":
            np.testing.assert_array_equal(tf.io.decode_png(record.encoded), few.pixels[i])
        assert record.format == ("jpeg" if image == "jpeg:90" else "png")


def test_an_image_under_another_key_is_stored_once_and_read_from_there(few, exported, scores):
    records = [
        example(jpg=texts(content), id=texts(name.encode()), cls=ints(label))
        for name, content, label in zip(few.names, few.encoded, few.classes, strict=True)
    ]
    export = exported(records, image_key="jpg", filename_key="id", truth_key="cls")
    assert export.image_key == "jpg"
    assert_kept(export, records)
    assert_predicted(export, few, scores)
    for serialized, content, record in zip(records_of(export), few.encoded, export[:], strict=True):
        assert serialized.count(content) == 1
        assert "image/encoded" not in parsed(serialized)
        assert record.encoded == content
    assert [record.truth.label for record in export[:]] == few.classes
    for (prediction, filename, image), name, pixels, wanted in zip(export, few.names, few.pixels, scores, strict=True):
        assert filename == name
        np.testing.assert_allclose(prediction, wanted, atol=1e-5)
        np.testing.assert_array_equal(image, np.broadcast_to(pixels, (8, 8, 3)))


def test_the_truth_may_be_text(few, exported):
    records = old_records(few, class__name=lambda i: texts(few.words[i].encode()))
    export = exported(records, truth_key="class/name", labels=sorted(set(few.words)))
    assert [tuple(record.truth) for record in export[:]] == [
        (sorted(set(few.words)).index(word), word) for word in few.words
    ]


@pytest.mark.parametrize("options", [{}, {"shuffle": 3}, {"split": "test", "shards": 2}], ids=str)
def test_records_without_a_filename_are_numbered_by_their_place(few, exported, options):
    records = [example(image__encoded=texts(content), one=ints(i)) for i, content in enumerate(few.encoded)]
    export = exported(records, **options)
    numbers = [int(record.extra["one"][0]) for record in export[:]]
    assert (numbers != list(range(24))) == ("shuffle" in options)
    assert sorted(numbers) == list(range(24))
    for record, number in zip(export[:], numbers, strict=True):
        assert record.filename == f"{options.get('split', 'train')}/{number:08d}"
        assert record.encoded == few.encoded[number]
        assert record.source_id == str(number)


def test_a_filename_feature_that_is_not_asked_for_is_kept_where_another_names_the_records(few, exported):
    records = old_records(few, id=lambda i: texts(b"id %d" % i))
    export = exported(records, filename_key="id")
    assert [record.filename for record in export[:]] == [f"id {i}" for i in range(24)]
    assert_kept(export, records, replaced={"image/filename"})


@pytest.mark.parametrize("options", [{}, {"shuffle": 1}, {"shards": 3}], ids=str)
def test_several_files_and_a_shuffle_mix_nothing_up(few, digits_model, scores, tmp_path, options):
    records = old_records(few)
    for number, part in enumerate(np.array_split(np.arange(24), 5)):
        write_tfrecord(tmp_path / f"old-{number}", [records[i] for i in part])
    write_tfrecord(tmp_path / "old-9", [])
    export = tfzip.export(f"tfrecord:{tmp_path}/old-*", digits_model, str(tmp_path / "out"), quiet=True, **options)
    by_name = dict(zip(few.names, zip(records, scores, strict=True), strict=True))
    assert {record.filename for record in export[:]} == set(by_name)
    for serialized, record in zip(records_of(export), export[:], strict=True):
        old, wanted = by_name[record.filename]
        assert serialized.startswith(old)
        np.testing.assert_allclose(record.prediction.scores, wanted, atol=1e-5)


def test_files_compressed_and_not_go_together(few, digits_model, tmp_path):
    records = old_records(few)
    write_tfrecord(tmp_path / "old-0", records[:10])
    write_tfrecord(tmp_path / "old-1", records[10:], "GZIP")
    export = tfzip.export(f"tfrecord:{tmp_path}/old-*", digits_model, str(tmp_path / "out"), quiet=True)
    assert_kept(export, records)
    assert [record.filename for record in export[:]] == few.names


@pytest.mark.parametrize("options", [{}, {"shuffle": 1}, {"image": "png"}], ids=str)
def test_a_record_that_lacks_its_image_fails_alone(few, exported, options):
    records = old_records(few)
    records[5] = example(image__filename=texts(few.names[5].encode()))
    export = exported(records, **options)
    assert [failure.filename for failure in export.failures] == [few.names[5]]
    assert {record.filename for record in export[:]} == set(few.names) - {few.names[5]}
    assert tfzip.verify(export) == []


def test_a_record_without_truth_has_none(few, exported):
    records = [old + example(cls=ints(few.classes[i])) if i % 3 else old for i, old in enumerate(old_records(few))]
    export = exported(records, truth_key="cls")
    assert_kept(export, records)
    truths = [record.truth and record.truth.label for record in export[:]]
    assert truths == [label if i % 3 else None for i, label in enumerate(few.classes)]


LATE = {
    "no filename": lambda content, _: example(image__encoded=texts(content), image__height=ints(8)),
    "no height": lambda content, name: example(image__encoded=texts(content), image__filename=texts(name)),
    "two heights": lambda content, name: example(
        image__encoded=texts(content), image__filename=texts(name), image__height=ints(8, 8)
    ),
}


@pytest.mark.parametrize("late", LATE)
def test_a_later_record_unlike_the_first_hundred_is_never_written_as_if_it_were_like_them(few, exported, late):
    records = [
        example(image__encoded=texts(few.encoded[i % 24]), image__filename=texts(b"%d" % i), image__height=ints(8))
        for i in range(120)
    ]
    records[110] = LATE[late](few.encoded[0], b"110")
    export = exported(records)
    (failure,) = export.failures
    assert (failure.filename, failure.stage) == ("train/00000110", "read")
    assert re.search("image/(filename|height)", failure.error)
    assert [record.filename for record in export[:]] == [str(i) for i in range(120) if i != 110]


@pytest.mark.parametrize("missing", ["first", "last"])
def test_a_feature_that_only_some_records_have_is_kept_in_those(few, exported, missing):
    lacks = range(12) if missing == "first" else range(12, 24)
    records = old_records(few)
    extended = [
        record if i in lacks else record + example(rare=ints(i, i), rarer=texts(b"x"))
        for i, record in enumerate(records)
    ]
    export = exported(extended)
    for i, (old, new) in enumerate(zip(map(parsed, extended), map(parsed, records_of(export)), strict=True)):
        assert {key: new.get(key) for key in old} == old, i
    assert tfzip.verify(export) == []
    assert export[0 if missing == "last" else 23].extra["rare"].tolist() == [0 if missing == "last" else 23] * 2


@pytest.mark.parametrize("image", ["png", "none"])
def test_a_feature_that_would_be_lost_is_told(few, exported, image):
    records = [
        example(image__encoded=texts(few.encoded[i % 24]), image__filename=texts(b"%d" % i), old=ints(i))
        for i in range(120)
    ]
    records[110] += example(late=ints(3))
    export = exported(records, image=image)
    (failure,) = export.failures
    assert (failure.filename, failure.stage) == ("110", "encode")
    assert "late" in failure.error
    assert_kept(export, records[:110] + records[111:], replaced=["image/encoded"] if image == "png" else [],
                left_out=["image/encoded"] if image == "none" else [])  # fmt: skip


def test_what_is_encoded_anew_has_the_format_and_size_of_that(few, exported):
    records = [
        old + example(image__format=texts(b"png"), image__height=ints(8), image__width=ints(8))
        for old in old_records(few)
    ]
    export = exported(records, image="jpeg:90")
    assert {record.format for record in export[:]} == {"jpeg"}
    assert all(record.encoded[:3] == b"\xff\xd8\xff" for record in export[:])


def test_the_truth_that_was_asked_for_counts_before_one_that_was_there(few, exported):
    old = example(truth__label=ints(0), truth__text=texts(b"zero"))
    records = [record + old + example(cls=ints(few.classes[i])) for i, record in enumerate(old_records(few))]
    export = exported(records, truth_key="cls")
    assert [record.truth.label for record in export[:]] == few.classes
    assert tfzip.verify(export) == []


def test_a_record_without_a_filename_fails_alone_where_others_are_skipped_too(few, digits_model, tmp_path):
    first = write_tfrecord(tmp_path / "first.tfrecord", old_records(few)[:3])
    done = tfzip.export(first, digits_model, str(tmp_path / "done"), quiet=True)
    records = old_records(few)
    nameless = example(image__encoded=texts(few.encoded[0]), one=ints(1))
    source = write_tfrecord(tmp_path / "old.tfrecord", [*records, nameless])
    export = tfzip.export(source, digits_model, str(tmp_path / "out"), quiet=True, skip_in=done.path)
    assert [record.filename for record in export[:]] == few.names[3:]
    assert [failure.stage for failure in export.failures] == ["read"]


@pytest.mark.parametrize("kept", [("truth__label", "truth__text"), ("truth__label",), ("truth__text",)], ids=str)
def test_a_truth_as_tfzip_writes_it_is_the_truth_without_being_asked_for(few, exported, kept):
    values = {"truth__label": lambda i: ints(few.classes[i]), "truth__text": lambda i: texts(few.words[i].encode())}
    records = old_records(few, **{key: values[key] for key in kept})
    export = exported(records, labels=sorted(set(few.words)) if "truth__text" in kept else None)
    if "truth__text" in kept:
        assert [record.truth.text for record in export[:]] == few.words
    else:
        assert [record.truth.label for record in export[:]] == few.classes
    assert export.metadata["truth"].tolist() == [record.truth.label for record in export[:]]
    assert tfzip.verify(export) == []
