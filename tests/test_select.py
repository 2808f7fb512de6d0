"""`tfzip select`: the records that rules choose, as a training set in the same format."""

import importlib.resources
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import warnings

import forged
import jsonschema
import killed
import numpy as np
import pytest
import tensorflow as tf
from sources_made import example, ints, texts, write_tfrecord

import tfzip
from tfzip import cli, selection
from tfzip.errors import CorruptError, OutputExistsError, UsageError
from tfzip.layout import Layout
from tfzip.read import Export
from tfzip.rules import Rules


@pytest.fixture(scope="module")
def labelled(digits, digits_files, tmp_path_factory):
    """An export of digits with their truth, in several shards."""
    out = tmp_path_factory.mktemp("labelled") / "out"
    return tfzip.export(
        str(digits[0]), digits_files["keras"], str(out), quiet=True, source_labels="folder", limit=400, shuffle=1,
        shard_records=90,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wide(digits, tmp_path_factory):
    """Two exports of the same images with scores of more classes than an index has room for, in another order."""
    rng, names = np.random.default_rng(0), []
    folder = tmp_path_factory.mktemp("wide")
    (folder / "in").mkdir()
    for number in range(40):
        (folder / "in" / f"{number}.png").write_bytes((digits[0] / "0" / "0000.png").read_bytes())
        names.append(f"{number}.png")
    made = []
    for place in range(2):
        scores = rng.dirichlet(np.full(200, 0.05), len(names)).astype(np.float32)
        table = folder / f"{place}.csv"
        rows = [",".join(["filename", *(f"score_{c}" for c in range(200))])]
        rows += [",".join([name, *map(str, each)]) for name, each in zip(names, scores, strict=True)]
        table.write_text("\n".join(rows) + "\n")
        made.append((scores, table))
    return folder, names, made


def features_of(export, row):
    return tf.train.Example.FromString(next(export.serialized_rows([row]))).features.feature


def test_the_records_stay_what_they_were_but_for_what_to_train_on(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", min_confidence=0.9, per_class=20)
    assert tfzip.verify(chosen) == []
    assert 100 < len(chosen) <= 200
    assert max(np.bincount(chosen.metadata["label"])) == 20
    before = {record.filename: record for record in labelled.records()}
    order = [record.filename for record in labelled.records()]
    assert [order.index(record.filename) for record in chosen.records()] == sorted(
        order.index(record.filename) for record in chosen.records()
    )
    for row, record in enumerate(chosen.records()):
        old = before[record.filename]
        assert (record.encoded, record.truth, record.source_id) == (old.encoded, old.truth, old.source_id)
        assert record.prediction.label == old.prediction.label
        assert np.array_equal(record.prediction.scores, old.prediction.scores)
        assert record.target == (old.prediction.label, old.prediction.text, old.prediction.confidence, 1.0, None)
        assert chosen.metadata["confidence"][row] == old.prediction.confidence >= np.float32(0.9)
        assert old.target is None
    features = features_of(chosen, 3)
    assert list(features["image/class/label"].int64_list.value) == [chosen[3].target.label]
    serialized = next(chosen.serialized_rows([3]))
    assert tf.train.Example.FromString(serialized).SerializeToString(deterministic=True) == serialized


def test_the_manifest_tells_the_rules_and_the_export(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", min_confidence={"3": 0.5, "*": 0.9}, limit=50, name="sure")
    schema = json.loads((importlib.resources.files("tfzip.schemas") / "manifest.schema.json").read_text())
    jsonschema.validate(chosen.manifest, schema)
    said = chosen.manifest["selection"]
    assert said["rules"]["min_confidence"] == {"3": 0.5, "*": 0.9}
    assert said["rules"]["limit"] == 50
    assert said["from"][0]["records"] == 400
    assert said["from"][0]["model"] == labelled.manifest["model"]["sha256"]
    assert chosen.manifest["name"] == "sure"
    assert chosen.manifest["model"] == labelled.manifest["model"]


def test_the_same_call_gives_the_same_bytes(labelled, tmp_path):
    for place in ("a", "b"):
        tfzip.select(labelled, tmp_path / place, min_confidence=0.8, soft=True, temperature=0.5, shard_records=60)
    assert killed.contents(tmp_path / "a") == killed.contents(tmp_path / "b")
    assert len(tfzip.open(tmp_path / "a").shards) > 2


def test_soft_labels_are_sharpened(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", soft=True, temperature=0.5)
    for record in list(chosen.records())[:50]:
        squares = record.prediction.scores.astype(np.float64) ** 2
        np.testing.assert_allclose(record.target.scores, squares / squares.sum(), atol=1e-6)
    plain = tfzip.select(labelled, tmp_path / "plain", soft=True)
    assert all(np.array_equal(r.target.scores, r.prediction.scores) for r in plain.records())


def test_with_the_truth_the_truth_is_the_label(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", use_truth=True, soft=True, min_confidence=0.999)
    assert len(chosen) == 400
    for record in chosen.records():
        assert record.target.label == record.truth.label
        assert record.target.text == record.truth.text
        assert record.target.confidence == 1
        assert record.target.scores.tolist() == np.eye(10)[record.truth.label].tolist()
        assert record.prediction.label == record.prediction.scores.argmax()
    assert any(record.target.label != record.prediction.label for record in chosen.records())


def test_balance_weighs_and_repeats_no_filename(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", min_confidence=0.99, per_class=30, balance=True)
    records = list(chosen.records())
    weights = np.zeros(10)
    for record in records:
        weights[record.target.label] += record.target.weight
    counts = np.bincount([record.target.label for record in records], minlength=10)
    np.testing.assert_allclose(weights[counts > 0], 30, rtol=1e-6)
    assert len({record.filename for record in records}) == len(records)


@pytest.mark.parametrize(("layout", "split"), [("flat", "validation"), ("tfx", "validation"), ("tfx", "eval")])
def test_a_share_is_for_validation(labelled, tmp_path, layout, split):
    out, named = tmp_path / "out", {} if split == "validation" else {"validation_split": split}
    train = tfzip.select(labelled, out, validation=0.25, seed=7, layout=layout, **named)
    held = tfzip.open(out, split) if layout == "tfx" else tfzip.open(out / split)
    names = [{record.filename for record in export.records()} for export in (train, held)]
    assert (train.split, held.split) == ("train", split)
    assert names[0] | names[1] == {record.filename for record in labelled.records()}
    assert not names[0] & names[1]
    assert 60 < len(names[1]) < 140
    other = tfzip.select(labelled, tmp_path / "fewer", validation=0.25, seed=7, min_confidence=0.9)
    assert {record.filename for record in other.records()} <= names[0], "the draw is of each filename alone"
    for export in (train, held):
        assert tfzip.verify(export) == []


def write_wide(wide, place, out, **options):
    folder, _, made = wide
    scores, table = made[place]
    return scores, tfzip.export(str(folder / "in"), None, str(out), predictions=str(table), quiet=True, **options)


def test_the_mean_of_several_models_of_many_classes(wide, tmp_path):
    one, first = write_wide(wide, 0, tmp_path / "one")
    two, second = write_wide(wide, 1, tmp_path / "two", shuffle=3)
    assert "scores" not in first.metadata
    chosen = tfzip.select(first, tmp_path / "out", others=[second], soft=True)
    mean = (one.astype(np.float64) + two) / 2
    at = {name: row for row, name in enumerate(wide[1])}
    assert len(chosen) == 40
    for record in chosen.records():
        expected = mean[at[record.filename]]
        np.testing.assert_allclose(record.target.scores, expected, atol=1e-6)
        assert record.target.label == expected.argmax()
        np.testing.assert_allclose(record.target.confidence, expected.max(), atol=1e-6)
    assert any(record.target.label != record.prediction.label for record in chosen.records())
    few = tfzip.select(first, tmp_path / "few", others=[str(tmp_path / "two")], combine="agree")
    agreed = one.argmax(1) == two.argmax(1)
    assert {record.filename for record in few.records()} == {wide[1][row] for row in np.flatnonzero(agreed)}


def test_only_what_all_exports_hold_is_chosen(labelled, digits, digits_files, tmp_path):
    part = tfzip.export(
        str(digits[0]), digits_files["keras"], str(tmp_path / "part"), quiet=True, limit=300, shuffle=1,
        source_labels="folder",
    )  # fmt: skip
    chosen = tfzip.select(labelled, tmp_path / "out", others=[part])
    assert [r.filename for r in chosen.records()] == [r.filename for r in labelled[:300]]


def test_calibrated_scores_are_less_sure_where_the_model_is_too_sure(labelled, tmp_path):
    chosen = tfzip.select(labelled, tmp_path / "out", calibrate=True)
    temperature = chosen.manifest["selection"]["calibration"]
    truth, scores = labelled.metadata["truth"], np.asarray(labelled.metadata["scores"], np.float64)

    def loss(t):
        logits = np.log(np.maximum(scores, 1e-30)) / t
        return -(logits[np.arange(len(truth)), truth] - np.log(np.exp(logits).sum(1))).mean()

    assert loss(temperature) <= min(loss(1), loss(temperature * 1.1), loss(temperature / 1.1))
    record = chosen[0]
    powers = record.prediction.scores.astype(np.float64) ** (1 / temperature)
    np.testing.assert_allclose(record.target.confidence, (powers / powers.sum()).max(), rtol=1e-4)


def test_a_temperature_of_a_sample_is_about_that_of_all(labelled, monkeypatch):
    of_all = selection.select_rows(labelled, Rules(calibrate=True)).temperature
    monkeypatch.setattr(selection, "FITTED", 300)
    of_some = selection.select_rows(labelled, Rules(calibrate=True)).temperature
    assert of_some != of_all
    assert 0.7 < of_some / of_all < 1.4


WRONG = {
    "a confidence above one": ({"min_confidence": 1.5}, "--min-confidence 1.5: give a number from 0 to 1"),
    "a confidence below zero": ({"min_confidence": {"3": -0.1}}, "--min-confidence -0.1: give a number from 0 to 1"),
    "not a number": ({"min_confidence": float("nan")}, "--min-confidence nan: give a number from 0 to 1"),
    "an unknown class": ({"min_confidence": {"cat": 0.5}}, "has no class 'cat'; it has 0, 1, 2, 3, 4, ..."),
    "a class beyond": ({"min_confidence": {10: 0.5}}, "has no class 10; it has 0, 1,"),
    "none of a class": ({"per_class": 0}, "--per-class 0: give a whole number from 1 on"),
    "half an image": ({"limit": 0.5}, "--limit 0.5: give a whole number from 1 on"),
    "a margin": ({"min_margin": 2}, "--min-margin 2: give a number from 0 to 1"),
    "an entropy": ({"max_entropy": -1}, "--max-entropy -1: give a number from 0 on, in nats"),
    "a temperature": ({"soft": True, "temperature": 0}, "--temperature 0: give a number above 0"),
    "a temperature of hard labels": ({"temperature": 0.5}, "--temperature has no effect without --soft"),
    "combining one": ({"combine": "agree"}, "--combine has no effect without --with"),
    "a way to combine": ({"combine": "vote", "others": ["x"]}, "--combine vote: give mean or agree"),
    "nothing chosen": ({"min_margin": 1}, "nothing is selected of 400 predictions, the surest has a confidence of"),
    "an option that is none": ({"min_confidenze": 1}, "unexpected keyword argument 'min_confidenze'"),
    "one path for a list": ({"others": "a"}, "--with a: give a list of exports"),
    "validation of none": ({"validation": 1e-9}, "none of the 400 that are selected are for validation"),
    "validation of all": ({"validation": 1}, "all 400 that are selected are for validation"),
    "one name for two": ({"validation": 0.5, "validation_split": "train"}, "give the split for training another name"),
    "a name of nothing": ({"validation_split": "eval"}, "--validation-split eval has no effect without --validation"),
    "a name that is none": ({"validation": 0.5, "validation_split": "a/b"}, "--validation-split 'a/b': use letters"),
}


ODD = {
    "text for a number": ({"min_confidence": "0.9"}, "--min-confidence '0.9': give a number from 0 to 1"),
    "nothing for a number": ({"min_margin": None}, "--min-margin None: give a number from 0 to 1"),
    "truth for a number": ({"per_class": True}, "--per-class True: give a whole number from 1 on"),
    "text of a class": ({"min_confidence": {3: "1"}}, "--min-confidence '1': give a number from 0 to 1"),
    "endless": ({"limit": float("inf")}, "--limit inf: give a whole number from 1 on"),
    "beyond all": ({"per_class": 10**30}, f"--per-class {10**30}: give a whole number from 1 on"),
    "a seed": ({"seed": "1"}, "--seed '1': give a whole number from 0 on"),
    "text for a switch": ({"balance": "no"}, "--balance 'no': it is True or False"),
    "no others": ({"others": None}, "--with None: give a list of exports"),
    "others of numbers": ({"others": [5]}, "--with 5: give exports, or their paths"),
    "a name that is long": ({"min_confidence": {"9" * 5000: 0.5}}, "has no class '999"),
    "two of a class": ({"min_confidence": {"3": 0.5, 3: 0.6}}, "0.5 and 0.6 are both for the class 3"),
    "a way to lie on disk": ({"layout": "deep"}, "--layout 'deep'"),
}


@pytest.mark.parametrize("case", [*WRONG, *ODD])
def test_what_cannot_be_asked_is_told_in_a_line(labelled, tmp_path, case):
    asked, said = (WRONG | ODD)[case]
    with pytest.raises(UsageError) as raised:
        tfzip.select(labelled, tmp_path / "out", **asked)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_numbers_of_numpy_are_numbers(labelled, tmp_path):
    asked = {
        "min_confidence": {np.int64(3): np.float32(0.75), "*": np.float64(0.5)}, "per_class": np.int32(9),
        "seed": np.uint64(4), "balance": np.True_, "max_entropy": np.float32(1), "limit": np.int64(50),
    }  # fmt: skip
    chosen = tfzip.select(labelled, tmp_path / "out", **asked)
    assert chosen.manifest["selection"]["rules"]["min_confidence"] == {"3": 0.75, "*": 0.5}
    assert max(np.bincount(chosen.metadata["label"])) == 9


def test_one_export_is_no_list_of_them(labelled, tmp_path):
    with pytest.raises(UsageError, match="give a list of exports"):
        tfzip.select(labelled, tmp_path / "out", others=labelled)


def test_nothing_is_written_over_what_it_is_selected_from(labelled, tmp_path):
    shutil.copytree(labelled.path, tmp_path / "copy")
    before = killed.contents(tmp_path / "copy")
    with Export(tmp_path / "copy") as export:
        (tmp_path / "link").symlink_to(tmp_path / "copy")
        for out in ("copy", "link"):
            with pytest.raises(UsageError, match="that is what is selected from"):
                tfzip.select(export, tmp_path / out, limit=3, overwrite=True)
        with pytest.raises(OutputExistsError, match="which is no split of this"):
            tfzip.select(labelled, tmp_path / "copy", validation=0.5)
    assert killed.contents(tmp_path / "copy") == before


# Odd and hostile exports.


def forged_export(folder, **changes):
    forged.make_export(folder, **changes.pop("options", {}))
    forged.rebuilt(folder, **changes)
    return tfzip.open(folder)


def test_a_label_beyond_the_classes_is_damage(tmp_path):
    export = forged_export(tmp_path / "export", label=forged.put(1, 7))
    with pytest.raises(CorruptError, match="the index holds the label 7, of 3 classes"):
        tfzip.select(export, tmp_path / "out")


def test_an_index_or_a_record_that_lacks_scores_is_damage(tmp_path):
    export = forged_export(tmp_path / "export", scores=None)
    with pytest.raises(CorruptError, match=r"the index lacks columns/scores\.npy"):
        tfzip.select(export, tmp_path / "out")
    many = forged.manifest(lambda told: told["features"]["prediction/scores"].update(shape=[200]))
    export = forged_export(tmp_path / "many", scores=None, manifest=many)
    with pytest.raises(CorruptError, match="record 0: it has 3 scores, of 200 classes"):
        tfzip.select(export, tmp_path / "out", soft=True)
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_no_text_is_damage(tmp_path):
    names = forged.manifest(lambda told: told["labels"].update(names=["\ud800", "bee", "cat"]))
    with pytest.raises(CorruptError, match=r"labels\.names\.0 cannot be"):
        forged_export(tmp_path / "export", manifest=names)


def test_a_truth_beyond_the_classes_is_none(tmp_path):
    export = forged_export(tmp_path / "export", truth=forged.column(lambda array: array.__setitem__([0, 1], [2, 7])))
    first, second = tfzip.select(export, tmp_path / "out", use_truth=True)[:2]
    assert (first.target.label, second.target.label) == (2, export[1].prediction.label)
    assert second.prediction.label != 2


def test_scores_that_are_no_probabilities_give_no_nan(tmp_path):
    odd = [[np.nan, 0, 1], [-3, -2, -9], [0, 0, 0], [np.inf, 0, 0], [1e-45, 3e38, 7], [0.9, 0.9, 0.2], [0.1, 0, 0]]
    scores = forged.column(lambda _: np.array(odd, np.float32))
    export = forged_export(tmp_path / "export", scores=scores, truth=forged.column(lambda a: a * 0 + 1))
    for asked in [{"temperature": 1e-300}, {"temperature": 1e300}, {"calibrate": True}, {"use_truth": True}]:
        rules = Rules(soft=True, **asked)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            chosen = selection.select_rows(export, rules)
            soft = chosen.scores(chosen.choice.rows)
        finite = np.isfinite(odd).all(axis=1)[chosen.choice.rows] | rules.use_truth
        assert np.isfinite(soft[finite]).all()
        if not rules.use_truth:
            np.testing.assert_allclose(soft[finite].sum(axis=1), 1, rtol=1e-5)


def test_classes_of_one_name_and_names_that_are_numbers(tmp_path):
    export = forged_export(tmp_path / "export", **forged.renamed(forged.make_export(tmp_path / "a"), ["2", "bee", "2"]))
    found = {}
    for name in ("2", 2, 0):
        found[name] = set(selection.select_rows(export, Rules(min_confidence={name: 1.0})).label.tolist())
    assert found == {"2": {1}, 2: {0, 1}, 0: {1, 2}}
    chosen = tfzip.select(export, tmp_path / "out")
    assert [record.target.text for record in chosen.records()] == [
        export.labels[record.target.label] for record in chosen.records()
    ]


def test_labels_given_without_scores_are_told(tmp_path):
    triples = [(label, f"{label}.png", np.zeros((2, 2, 3), np.uint8)) for label in (0, 1, 2)]
    export = tfzip.write(iter(triples), str(tmp_path / "export"), quiet=True)
    with pytest.raises(UsageError, match="holds labels without the scores of each class"):
        tfzip.select(export, tmp_path / "out")


def test_of_two_classes(tmp_path):
    rng = np.random.default_rng(1)
    triples = [(score, f"{n}.png", np.zeros((2, 2, 3), np.uint8)) for n, score in enumerate(rng.random(20))]
    export = tfzip.write(iter(triples), str(tmp_path / "export"), quiet=True, task="binary", scores="probabilities")
    chosen = tfzip.select(export, tmp_path / "out", per_class=3, balance=True, soft=True, temperature=0.5)
    assert np.bincount([record.target.label for record in chosen.records()]).tolist() == [3, 3]
    assert {record.target.scores.shape for record in chosen.records()} == {(2,)}


def test_large_images_make_no_larger_shards_than_asked(tmp_path):
    rng = np.random.default_rng(2)
    noise = [rng.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(30)]
    triples = [(np.float32([0.9, 0.1]), f"{n}.png", image) for n, image in enumerate(noise)]
    export = tfzip.write(iter(triples), str(tmp_path / "export"), quiet=True, labels=["a", "b"])
    chosen = tfzip.select(export, tmp_path / "out", shard_size="20KB")
    assert max(shard["bytes"] for shard in chosen.manifest["shards"]) < 22_000


def test_exports_that_do_not_fit_are_told(labelled, wide, digits, digits_files, tmp_path):
    _, other = write_wide(wide, 0, tmp_path / "wide")
    with pytest.raises(UsageError, match="its classes are not those of"):
        tfzip.select(labelled, tmp_path / "out", others=[other])
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "else.png").write_bytes((digits[0] / "0/0000.png").read_bytes())
    apart = tfzip.export(str(tmp_path / "in"), digits_files["keras"], str(tmp_path / "apart"), quiet=True)
    apart_named = tfzip.export(
        str(tmp_path / "in"), digits_files["keras"], str(tmp_path / "named"), quiet=True, labels=labelled.labels
    )
    with pytest.raises(UsageError, match=r"out.*and.*named have no images in common"):
        tfzip.select(labelled, tmp_path / "out", others=[apart_named])
    raw = tfzip.export(str(tmp_path / "in"), digits_files["keras"], str(tmp_path / "raw"), quiet=True, task="raw")
    with pytest.raises(UsageError, match="the task is raw; only multiclass and binary predictions can be selected"):
        tfzip.select(raw, tmp_path / "out")
    with pytest.raises(UsageError, match=r"--calibrate: .* knows the truth of no image; export with"):
        tfzip.select(apart, tmp_path / "out", calibrate=True)


def test_what_is_in_the_way_stays(labelled, tmp_path):
    out = tmp_path / "out"
    tfzip.select(labelled, out, limit=5)
    before = killed.contents(out)
    with pytest.raises(OutputExistsError):
        tfzip.select(labelled, out, limit=6)
    assert killed.contents(out) == before
    assert len(tfzip.select(labelled, out, limit=6, overwrite=True)) == 6
    assert len(list(out.glob("*.gz"))) == 1


def test_an_unfinished_export_is_not_taken_for_free(labelled, digits, digits_files, tmp_path):
    out = tmp_path / "out"
    process = killed.begun(str(digits[0]), digits_files["keras"], out, {"batch_size": 4, "shard_records": 40})
    while not killed.finished(out):
        assert process.is_alive()
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    before = killed.contents(out)
    with pytest.raises(OutputExistsError, match="holds an unfinished export"):
        tfzip.select(labelled, out)
    assert killed.contents(out) == before


def test_a_damaged_record_ends_it_and_leaves_nothing(labelled, tmp_path):
    shutil.copytree(labelled.path, tmp_path / "copy")
    shard = next((tmp_path / "copy").glob("*-00002-*.gz"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with Export(tmp_path / "copy") as export, pytest.raises(CorruptError, match=re.escape(shard.name)):
        tfzip.select(export, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_selected_again_what_was_said_before_is_gone(labelled, tmp_path):
    soft = tfzip.select(labelled, tmp_path / "soft", soft=True)
    again = tfzip.select(soft, tmp_path / "again", limit=10)
    assert "image/class/scores" not in again.features
    assert "image/class/scores" not in features_of(again, 0)
    assert all(record.target.scores is None for record in again.records())


# Killed, and two at once.

ASKED = {"min_confidence": 0.8, "soft": True, "limit": 40, "shard_records": 30}


def select_dying(path, out, asked, dies_at):
    """In a process of its own: select, and die before the so manieth change to files."""
    killed.die_at(dies_at)
    tfzip.select(tfzip.open(path), out, **asked)
    os._exit(0)


@pytest.mark.parametrize("step", [17, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "more", [pytest.param({}, marks=pytest.mark.slow), {"validation": 0.3}, {"validation": 0.3, "layout": "tfx"}]
)
def test_killed_anywhere_the_same_command_gives_the_same(labelled, tmp_path, more, step):
    asked = ASKED | more
    tfzip.select(labelled, tmp_path / "whole", **asked)
    expected, codes = killed.contents(tmp_path / "whole"), []
    for operation in itertools.count(step // 2, step):
        out = tmp_path / str(operation)
        process = killed.METHOD.Process(target=select_dying, args=(labelled.path, str(out), asked, operation))
        process.start()
        process.join(60)
        codes.append(process.exitcode)
        if codes[-1] == 0:
            break
        if killed.contents(out) != expected:
            tfzip.select(labelled, out, **asked)
        assert killed.contents(out) == expected, f"killed before change {operation}"
    assert set(codes) == {0, -signal.SIGKILL}


def test_two_at_once_do_not_meet(labelled, tmp_path):
    out = tmp_path / "out"
    told = pytest.raises(OutputExistsError, match=f"process {os.getpid()} on .* is writing there")
    with Layout(str(out), "flat", "images", "train", "gzip").claimed(), told:
        tfzip.select(labelled, out)
    tfzip.select(labelled, out)


def test_what_else_a_tfrecord_says_of_the_class_stays(digits, digits_files, tmp_path):
    image = (digits[0] / "3/0003.png").read_bytes()
    said = {"image/encoded": texts(image), "image/filename": texts(b"a.png"), "image/class/label": ints(7)}
    said |= {"image/class/synset": texts(b"n01440764"), "image/class/text": texts(b"seven")}
    source = write_tfrecord(tmp_path / "in.tfrecord", [example(**said)])
    export = tfzip.export(source, digits_files["keras"], str(tmp_path / "out"), quiet=True)
    chosen = tfzip.select(export, tmp_path / "chosen")
    assert "image/class/synset" in chosen.features
    features = features_of(chosen, 0)
    assert features["image/class/synset"].bytes_list.value == [b"n01440764"]
    assert features["image/class/label"].int64_list.value == [chosen[0].prediction.label]
    assert tfzip.verify(chosen) == []


# The command.


def run(*arguments, cwd):
    return subprocess.run([sys.executable, "-m", "tfzip", *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_command_says_how_many_of_each_class(labelled, tmp_path):
    asked = ["--min-confidence", "0.9", "--min-confidence", "3=0.99", "--per-class", "25", "--balance"]
    dry = run("select", labelled.path, "--out", "out", *asked, "--dry-run", cwd=tmp_path)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not (tmp_path / "out").exists()
    done = run("select", labelled.path, "--out", "out", *asked, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    made = tfzip.open(tmp_path / "out")
    total, right, *_, written, last = done.stdout.splitlines()
    assert total == f"{len(made)} of 400 selected"
    truths = np.mean(made.metadata["label"] == made.metadata["truth"])
    assert right == f"{truths:.1%} of the {len(made)} whose truth is known are right"
    assert written.startswith(f"{len(made)} records in 1 shard, ")
    assert last.endswith("inspect out")
    rows = {line.split()[0]: line.split()[1:] for line in dry.stdout.splitlines()[3:13]}
    labels, offered = (np.bincount(export.metadata["label"], minlength=10) for export in (made, labelled))
    assert {name: (int(row[0]), int(row[1])) for name, row in rows.items()} == {
        str(c): (offered[c], labels[c]) for c in range(10)
    }
    assert float(rows["3"][2]) >= 0.99


def test_the_command_tells_a_wrong_call_in_a_line(labelled, tmp_path):
    for asked, said in [
        (["--min-confidence", "sure"], "--min-confidence 'sure': give a number from 0 to 1, or CLASS=NUMBER"),
        (["--min-confidence", "cat=0.5"], "has no class 'cat'"),
        (["--with", "nowhere"], "nowhere"),
        (["--layout", "deep"], "--layout 'deep'"),
        (["--validation", "0.2", "--validation-split", "train"], "give the split for training another name"),
    ]:
        done = run("select", labelled.path, "--out", "out", *asked, cwd=tmp_path)
        assert done.returncode == 2
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_selecting_does_not_import_tensorflow(labelled, tmp_path):
    code = f"""
import sys
from tfzip import cli
assert cli.main(["select", {labelled.path!r}, "--out", {str(tmp_path / "out")!r}, "--soft"]) == 0
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_every_option_of_the_command_is_an_option_of_the_call():
    import dataclasses

    parsed = cli.parser().parse_args(["select", "OUT", "--out", "OUT2"])
    for field in dataclasses.fields(Rules):
        given = getattr(parsed, field.name)
        expected = [] if field.name in ("min_confidence", "others") else field.default
        assert given == expected, field.name
