"""What changed its label between two exports: by hand, against an oracle, and from round to round of a model."""

import json
import math
import subprocess
import sys
import tempfile

import forged
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from indexed import write_indexed
from sources_made import pictures_of

import tfzip
from tfzip import Change, Move, cli

NAN = float("nan")


def written(folder, rows, **options):
    """An export of rows (filename, label, confidence, truth)."""
    names, labels, confidences, truths = zip(*rows, strict=True)
    columns = {"label": labels, "confidence": np.float32(confidences), "truth": truths}
    return write_indexed(folder, [name.encode() for name in names], **columns, **options)


ONE = [
    # Labels of "ant", "bee", "cat"; the truth where it is known.
    ("a", 0, 0.5, 0),
    ("b", 1, 0.75, -1),
    ("c", 2, 0.5, 2),
    ("d", 0, 0.25, 1),
    ("e", 0, 0.5, 2),
    ("f", -1, NAN, 0),
    ("gone", 1, 0.5, 1),
]
OTHER = [
    # Labels of "cat", "dog", "ant".
    ("new", 0, 0.5, 0),
    ("f", 2, 0.5, -1),
    ("e", 0, 0.875, -1),
    ("d", 1, 0.5, -1),
    ("c", 2, 0.25, -1),
    ("b", 0, 0.5, 0),
    ("a", 2, 1.0, -1),
]


def test_by_name_a_table_worked_by_hand(tmp_path):
    one = written(tmp_path / "one", ONE, labels=["ant", "bee", "cat"])
    other = written(tmp_path / "other", OTHER, labels=["cat", "dog", "ant"], task="binary")
    found = tfzip.diff(one, other)
    assert (found.both, found.only_one, found.only_other, found.by_name) == (6, 1, 1, True)
    moves = [("ant", "cat"), ("ant", "dog"), ("bee", "cat"), ("cat", "ant"), (None, "ant")]
    assert sorted(found.moves, key=str) == sorted((Move(*move, 1) for move in moves), key=str)
    assert found.changes[:4] == [
        Change("b", "bee", "cat", (0.75, 0.5), "cat"),  # the truth as the other knows it
        Change("c", "cat", "ant", (0.5, 0.25), "cat"),
        Change("d", "ant", "dog", (0.25, 0.5), "bee"),
        Change("e", "ant", "cat", (0.5, 0.875), "cat"),
    ]
    last = found.changes[-1]
    assert last[:3] == ("f", None, "ant")
    assert math.isnan(last.confidences[0])
    assert len(found.changes) == 5
    assert (found.judged, found.righted, found.wronged) == (5, 3, 1)


def test_the_most_frequent_move_comes_first(tmp_path):
    before, after = [2, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 1]
    one, other = (
        written(tmp_path / name, [(str(i), label, 0.5, -1) for i, label in enumerate(labels)])
        for name, labels in (("one", before), ("other", after))
    )
    assert tfzip.diff(one, other).moves == [Move("0", "1", 2), Move("1", "0", 2), Move("2", "1", 1)]


@pytest.mark.parametrize("named", ["one", "other", "neither"])
def test_classes_that_not_both_have_names_for_are_compared_by_their_ids(tmp_path, named):
    one = written(tmp_path / "one", ONE, labels=["ant", "bee", "cat"] if named == "one" else ())
    other = written(tmp_path / "other", OTHER, labels=["ant", "bee", "cat"] if named == "other" else ())
    found = tfzip.diff(one, other)
    names = ["0", "1", "2"] if named == "neither" else ["ant", "bee", "cat"]
    assert not found.by_name
    assert [(c.filename, c.before, c.after, c.truth) for c in found.changes] == [
        ("a", names[0], names[2], names[0]),
        ("b", names[1], names[0], names[0]),
        ("d", names[0], names[1], names[1]),
        ("f", None, names[2], names[0]),
    ]
    assert (found.judged, found.righted, found.wronged) == (4, 2, 1)


def test_an_export_and_itself_differ_in_nothing(tmp_path):
    one = written(tmp_path / "one", ONE)
    found = tfzip.diff(one, one)
    assert (found.both, found.only_one, found.only_other, len(found.changes)) == (7, 0, 0, 0)
    assert found.moves == []
    assert list(found.changes) == []


ROW = st.tuples(st.integers(-1, 3), st.integers(-1, 3))
TABLE = st.dictionaries(st.text("abé/", min_size=1, max_size=3), ROW, max_size=12)
NAMES = st.permutations(["ant", "bee", "cat", "dog"]) | st.just([]) | st.just(["cat", "ant"])


def text_of(label, names):
    return None if label == -1 else names[label] if label < len(names) else str(label)


@settings(deadline=None, max_examples=60)
@given(TABLE, TABLE, NAMES, NAMES)
def test_the_same_is_found_as_one_by_one(table, other_table, names, other_names):
    table["both"] = other_table["both"] = (0, 0)
    both = [name for name in table if name in other_table]
    known = (names, other_names) if names and other_names else [names or other_names] * 2
    said, later = (
        {name: tuple(text_of(value, texts) for value in row) for name, row in rows.items()}
        for rows, texts in zip((table, other_table), known, strict=True)
    )
    changed = [name for name in both if said[name][0] != later[name][0]]
    truth = {name: later[name][1] if said[name][1] is None else said[name][1] for name in changed}
    with tempfile.TemporaryDirectory() as folder:
        one, other = (
            written(f"{folder}/{i}", [(name, row[0], 0.5, row[1]) for name, row in rows.items()], labels=labels)
            for i, (rows, labels) in enumerate(((table, names), (other_table, other_names)))
        )
        found = tfzip.diff(one, other)
        assert [(c.filename, c.before, c.after, c.truth) for c in found.changes] == [
            (name, said[name][0], later[name][0], truth[name]) for name in changed
        ]
    assert (found.both, found.only_one) == (len(both), len(table) - len(both))
    assert found.only_other == len(other_table) - len(both)
    assert found.judged == sum(text is not None for text in truth.values())
    assert found.righted == sum(text is not None and later[name][0] == text for name, text in truth.items())
    assert found.wronged == sum(text is not None and said[name][0] == text for name, text in truth.items())
    counted = {(move.before, move.after): move.images for move in found.moves}
    moves = [(said[name][0], later[name][0]) for name in changed]
    assert counted == {move: moves.count(move) for move in moves}


def test_classes_of_one_name_are_one_class(tmp_path):
    rows = [("a", 0, 0.5, -1), ("b", 1, 0.5, -1)]
    one = written(tmp_path / "one", rows, labels=["crane", "bee", "crane"])
    other = written(tmp_path / "other", [("a", 2, 0.5, -1), ("b", 2, 0.5, -1)], labels=["ant", "bee", "crane"])
    assert [change.filename for change in tfzip.diff(one, other).changes] == ["b"]
    nameless = written(tmp_path / "nameless", [("a", 2, 0.5, -1), ("b", 1, 0.5, -1)])
    assert [change[:3] for change in tfzip.diff(one, nameless).changes] == [("a", "crane", "crane")]


def test_a_loop_gives_every_change_and_each_can_be_asked_for(tmp_path):
    names = [f"{number}.png" for number in range(2500)]
    one, other = (
        written(tmp_path / str(label), [(name, label, number / 4096, -1) for number, name in enumerate(names)])
        for label in (0, 1)
    )
    changes = tfzip.diff(one, other).changes
    assert [change.filename for change in changes] == names
    assert changes[:] == list(changes)
    assert changes[1024] == changes[-1476] == Change("1024.png", "0", "1", (0.25, 0.25), None)
    for place in (2500, -2501):
        with pytest.raises(IndexError):
            changes[place]


# The command.


def called(capsys, *arguments):
    code = cli.main(["diff", *map(str, arguments)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_table_worked_by_hand_in_a_terminal_and_for_programs(tmp_path, capsys):
    written(tmp_path / "one", ONE, labels=["ant", "bee", "cat"])
    written(tmp_path / "other", OTHER, labels=["cat", "dog", "ant"])
    code, out, _ = called(capsys, tmp_path / "one", tmp_path / "other")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"6 images in both, 1 only in {tmp_path}/one, 1 only in {tmp_path}/other"
    assert lines[1].startswith("5 changed label (83.3%)")
    assert lines[1].endswith("by their names")
    assert lines[2] == "of 5 whose truth is known, 3 from wrong to right, 1 from right to wrong"
    assert {"bee -> cat 1", "(none) -> ant 1"} < set(lines)
    assert {"b bee 0.750 -> cat 0.500 truth cat", "f (none) -> ant 0.500 truth ant"} < set(lines)
    code, out, _ = called(capsys, tmp_path / "one", tmp_path / "other", "--json")
    facts = json.loads(out)
    assert (code, facts["both"], facts["changed"], facts["compared_by"]) == (0, 6, 5, "name")
    assert facts["truth"] == {"known": 5, "wrong_to_right": 3, "right_to_wrong": 1}
    assert {"from": None, "to": "ant", "images": 1} in facts["moves"]
    assert facts["images"][-1] == {
        "filename": "f", "from": None, "to": "ant", "confidences": [None, 0.5], "truth": "ant",
    }  # fmt: skip


def test_many_changes_are_shown_in_part_and_all_for_programs(tmp_path, capsys):
    for name, label in (("one", 0), ("other", 1)):
        written(tmp_path / name, [(f"{i}.png", i if label else 0, 0.5, -1) for i in range(31)])
    code, out, _ = called(capsys, tmp_path / "one", tmp_path / "other")
    assert code == 0
    assert "classes compared by their ids" in out
    assert "truth" not in out
    assert len([line for line in out.splitlines() if ".png" in line]) == 20
    assert out.count("and 10 more") == 2
    facts = json.loads(called(capsys, tmp_path / "one", tmp_path / "other", "--json")[1])
    assert [image["filename"] for image in facts["images"]] == [f"{i}.png" for i in range(1, 31)]


def test_nothing_changed_is_said_in_few_lines(tmp_path, capsys):
    written(tmp_path / "one", ONE)
    code, out, _ = called(capsys, tmp_path / "one", tmp_path / "one")
    assert (code, len(out.splitlines())) == (0, 2)
    assert "0 changed label (0.0%)" in out


def test_names_that_could_act_on_a_terminal_or_are_not_utf8_are_escaped(tmp_path, capsys):
    names = [b"\x1b[2J\n.png", b"caf\xe9.png"]
    for name, label in (("one", 0), ("other", 1)):
        write_indexed(tmp_path / name, names, label=[label] * 2, labels=["\x1b[31m", "b"])
    code, out, _ = called(capsys, tmp_path / "one", tmp_path / "other")
    assert code == 0
    assert all(line.isprintable() for line in out.split("\n"))
    assert "caf%E9.png" in out
    facts = json.loads(called(capsys, tmp_path / "one", tmp_path / "other", "--json")[1])
    assert facts["images"][0]["filename"] == names[0].decode()


@pytest.mark.parametrize("task", ["multilabel", "detection", "raw"])
def test_a_task_without_one_label_an_image_is_told(tmp_path, capsys, task):
    written(tmp_path / "one", ONE)
    written(tmp_path / "odd", ONE, task=task)
    for pair in (["one", "odd"], ["odd", "one"]):
        code, out, said = called(capsys, *(tmp_path / name for name in pair))
        assert (code, out) == (2, "")
        assert f"odd: its task is {task}" in said
        assert len(said.splitlines()) == 1


def test_exports_of_other_images_are_told(tmp_path, capsys):
    written(tmp_path / "one", ONE)
    written(tmp_path / "other", [("elsewhere/a", 0, 0.5, -1)])
    code, out, said = called(capsys, tmp_path / "one", tmp_path / "other")
    assert (code, out) == (2, "")
    assert f"{tmp_path}/one and {tmp_path}/other have no image in common" in said
    assert len(said.splitlines()) == 1


def test_a_damaged_index_is_exit_code_1(tmp_path, capsys):
    written(tmp_path / "one", ONE)
    written(tmp_path / "other", OTHER)
    forged.rebuilt(tmp_path / "other", row=forged.put(2, 99))
    code, out, said = called(capsys, tmp_path / "one", tmp_path / "other")
    assert (code, out) == (1, "")
    assert "the lookup is damaged" in said


# From round to round.


@pytest.fixture
def weak(digits_model):
    """The digits' network, which never sees an 8."""
    import keras

    model = keras.models.clone_model(digits_model)
    *weights, biases = digits_model.get_weights()
    model.set_weights([*weights, biases - 100 * np.eye(10, dtype=np.float32)[8]])
    return model


@pytest.mark.slow
def test_round_after_round_is_one_command_each(digits, digits_files, weak, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weak.save("weak.keras")
    few = pictures_of(digits, tmp_path / "in", 120)

    def export(source, model, out, *options):
        assert cli.main(["export", source, "--model", model, "--out", out, "--quiet", *options]) == 0
        opened = tfzip.open(out)
        assert tfzip.verify(opened) == []
        return opened

    first = export("in", "weak.keras", "first", "--source-labels", "folder")
    second = export("first", digits_files["keras"], "second")
    assert [record.filename for record in second[:]] == few.names
    assert [record.encoded for record in second[:]] == few.encoded
    assert [record.truth.label for record in second[:]] == few.classes

    command = [sys.executable, "-m", "tfzip", "diff", "first", "second", "--json"]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    before, after = first.metadata["label"], second.metadata["label"]
    changed = np.flatnonzero(before != after)
    assert len(changed) >= 10
    assert set(after[changed]) == {8}
    truth = np.array(few.classes)[changed]
    assert (facts["both"], facts["changed"]) == (120, len(changed))
    assert facts["truth"]["wrong_to_right"] == sum(truth == 8)
    assert facts["truth"]["right_to_wrong"] == sum(truth == before[changed])
    assert [image["filename"] for image in facts["images"]] == [few.names[row] for row in changed]
    for image, row in zip(facts["images"], changed, strict=True):
        says = [export[few.names[row]].prediction for export in (first, second)]
        assert [image["from"], image["to"]] == [said.text for said in says]
        assert image["confidences"] == pytest.approx([said.confidence for said in says])

    part = export("in", "weak.keras", "part", "--limit", "50")
    rest = export("second", digits_files["keras"], "rest", "--skip-in", "part")
    assert [record.filename for record in rest[:]] == few.names[50:]
    assert [record.truth.label for record in rest[:]] == few.classes[50:]
    found = tfzip.diff(second, rest)
    assert (found.both, found.only_one, len(found.changes)) == (70, 50, 0)
    assert called(capsys, "part", "rest")[0] == 2
    assert len(part) == 50
