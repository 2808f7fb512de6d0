"""Exports that are truncated, changed, swapped, half copied or made to harm: told, or as they were."""

import contextlib
import json
import os
import shutil
import signal
import sys

import forged
import numpy as np
import peaks
import pytest
import tensorflow as tf
from forged import NAMES, column, manifest, put

import tfzip
from tfzip import cli, entries, framing
from tfzip.extract import extract


@pytest.fixture(scope="module", params=["gzip", "none"])
def export(request, tmp_path_factory):
    return forged.make_export(tmp_path_factory.mktemp("whole") / "out", compression=request.param)


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    return forged.make_export(tmp_path_factory.mktemp("zipped") / "out")


@pytest.fixture
def copy(zipped, tmp_path):
    return forged.copied(zipped, tmp_path / "copy")


@contextlib.contextmanager
def no_hang(seconds=60):
    """Fails rather than wait for ever."""

    def stop(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def verdict(folder):
    """What opening or verifying says is wrong, if anything."""
    try:
        with tfzip.open(str(folder)) as opened:
            return tfzip.verify(opened)
    except tfzip.TfzipError as error:
        return [str(error)]


def check_each_record(folder, expected):
    """Every record is as it was written, or a CorruptError; a filename that was written is never said to be unknown."""
    try:
        opened = tfzip.open(str(folder))
    except tfzip.TfzipError:
        return
    with opened:
        for row, record in enumerate(expected):
            for key in (row, record[0]):
                with contextlib.suppress(tfzip.CorruptError):
                    assert forged.said(opened[key]) == record


# Every byte.


def stride(request, usual):
    return 1 if request.config.getoption("--slow", default=False) else usual


def test_a_changed_byte_is_found_by_verify_or_changes_nothing_at_all(export, tmp_path, request):
    """Harmless are run.json; in index.zip what deflate can write in two ways (the bits that fill up its last byte, a
    distance to another copy of the same text), and the version of zip needed to read an entry, if it becomes the other
    that there is. Nothing that reads can tell these apart.

    That it is all the same is told by everything that an export can say; and a record that is asked for is what was
    written, or a CorruptError, in any case.
    """
    whole, folder = forged.contents(export.path), forged.copied(export, tmp_path / "copy")
    with (folder / "index.zip").open("rb") as file:
        deflated = [entry for entry in entries.read_entries(file).values() if entry.method == entries.DEFLATED]
    unzipped = forged.entries(folder / "index.zip")
    is_zipped = export.manifest["compression"] == "gzip"  # elsewhere the index has been tried already
    tried = 0
    for name in sorted(name for name in os.listdir(folder) if is_zipped or ".tfrecord-" in name):
        data = (folder / name).read_bytes()
        for place in range(0, len(data), stride(request, 17)):
            changed = bytearray(data)
            changed[place] ^= 1 << (place % 8) if place % 3 else 0xFF
            (folder / name).write_bytes(changed)
            tried += 1
            if not verdict(folder):
                if name != "run.json":
                    assert name == "index.zip", (name, place)
                    assert any(entry.begin <= place < entry.end for entry in deflated), place
                    assert forged.entries(folder / name) == unzipped, place
                assert forged.contents(folder) == whole
            check_each_record(folder, whole[3])
        (folder / name).write_bytes(data)
    assert tried > 100
    assert verdict(folder) == []


def test_an_export_that_is_cut_anywhere_is_found(export, tmp_path, request):
    whole, folder = forged.contents(export.path), forged.copied(export, tmp_path / "copy")
    for name in sorted(set(os.listdir(folder)) - {"run.json"}):
        data = (folder / name).read_bytes()
        for end in range(0, len(data), stride(request, 61)):
            (folder / name).write_bytes(data[:end])
            found = verdict(folder)
            assert found, (name, end)
            assert all(name in line for line in found), found
            check_each_record(folder, whole[3])
        (folder / name).write_bytes(data)


def test_bytes_put_behind_or_before_are_found(copy):
    for name in sorted(set(os.listdir(copy)) - {"run.json"}):
        data = (copy / name).read_bytes()
        for longer in (data + b"\0", b"\0" + data, data + data):
            (copy / name).write_bytes(longer)
            assert verdict(copy), name
        (copy / name).write_bytes(data)


def looped(opened):
    """What a loop over an export gives, until it ends or raises; and what it raises."""
    seen = []
    try:
        for scores, name, image in opened:
            seen.append((scores.tolist(), name, image.tolist()))
    except tfzip.CorruptError as error:
        return seen, str(error)
    return seen, ""


def test_a_loop_over_damage_gives_what_was_written_and_then_an_error(export, tmp_path):
    (expected, _), folder, errors = looped(export), forged.copied(export, tmp_path / "copy"), 0
    assert len(expected) == len(NAMES)
    for shard in export.manifest["shards"][:2]:
        data = (folder / shard["file"]).read_bytes()
        for place in np.linspace(0, len(data) - 1, 3).astype(int):
            changed = bytearray(data)
            changed[place] ^= 0x10
            (folder / shard["file"]).write_bytes(changed)
            with tfzip.open(str(folder)) as opened, no_hang():
                seen, error = looped(opened)
            assert seen == expected[: len(seen)]
            assert shard["file"] in error if error else seen == expected
            errors += bool(error)
        (folder / shard["file"]).write_bytes(data)
    assert errors >= 4


# Half of it, or of another.


def shards_of(folder):
    return sorted(folder.glob("*.gz"))


def lose_a_shard(folder, _):
    shards_of(folder)[1].unlink()


def empty_a_shard(folder, _):
    shards_of(folder)[1].write_bytes(b"")


def make_a_shard_a_folder(folder, _):
    shard = shards_of(folder)[1]
    shard.unlink()
    shard.mkdir()


def make_a_shard_a_pipe(folder, _):
    shard = shards_of(folder)[1]
    shard.unlink()
    os.mkfifo(shard)


def swap_shards(folder, _):
    first, second, _ = shards_of(folder)
    first.rename(folder / "x")
    second.rename(first)
    (folder / "x").rename(second)


def take_the_index_of_another(folder, other):
    shutil.copy(other / "index.zip", folder)


def take_the_shards_of_another(folder, other):
    for shard in shards_of(other):
        shutil.copy(shard, folder)


MIXED = [
    lose_a_shard, empty_a_shard, make_a_shard_a_folder, make_a_shard_a_pipe, swap_shards, take_the_index_of_another,
    take_the_shards_of_another,
]  # fmt: skip


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """An export of other images and scores under the same names, in as many shards of as many records."""
    folder = tmp_path_factory.mktemp("other") / "out"
    rng = np.random.default_rng(6)
    scores = rng.dirichlet(np.ones(3), len(NAMES)).astype(np.float32)
    triples = zip(scores, NAMES, rng.integers(0, 256, (len(NAMES), 3, 5, 3), np.uint8), strict=True)
    tfzip.write(triples, str(folder), quiet=True, labels=["ant", "bee", "cat"], shard_records=3, batch_size=1)
    return folder


@pytest.mark.parametrize("mix", MIXED)
def test_an_export_of_which_a_part_is_gone_or_not_its_own_is_told(copy, other, tmp_path, mix):
    mix(copy, other)
    with no_hang():
        assert verdict(copy)
        with tfzip.open(str(copy)) as opened:
            with pytest.raises(tfzip.CorruptError):
                opened[:]
            with pytest.raises(tfzip.CorruptError):
                list(opened)
            with pytest.raises(tfzip.CorruptError):
                extract(opened, tmp_path / "to")
            with pytest.raises((tfzip.CorruptError, tf.errors.OpError)):
                list(opened.dataset())


@pytest.mark.parametrize("what", ["empty", "folder", "pipe", "dangling"])
def test_an_index_that_is_no_file_is_told(copy, what):
    index = copy / "index.zip"
    index.unlink()
    makers = {"folder": index.mkdir, "pipe": lambda: os.mkfifo(index), "empty": index.touch}
    makers.get(what, lambda: index.symlink_to("nowhere"))()
    with no_hang(), pytest.raises(tfzip.CorruptError, match=r"index\.zip"):
        tfzip.open(str(copy))


# Rebuilt, with every CRC right.


def facts(**change):
    """A change of manifest.json: values of its own."""
    return {"manifest": manifest(lambda told: told.update(change))}


def counts(**change):
    return {"manifest": manifest(lambda told: told["counts"].update(change))}


def shard_file(name):
    """A change of the first shard's file: a function of its name."""
    return {"manifest": manifest(lambda told: told["shards"][0].update(file=name(told["shards"][0]["file"])))}


def feature(key, **change):
    """A change of what the manifest says of a feature, which may be new."""
    return {"manifest": manifest(lambda told: told["features"].setdefault(key, {"dtype": "float"}).update(change))}


def many_rows(told):
    told["counts"].update(images=10**12 + 1, records=10**12)
    told["shards"][0].update(records=10**12 - 4)


def deep(levels):
    return b'{"format_version": 1, "x": ' + b"[" * levels + b"]" * levels + b"}"


def header(text):
    """A change of a `.npy` entry's header, of the same length."""

    def change(data):
        length = int.from_bytes(data[8:10], "little")
        return data[:10] + text.encode().ljust(length - 1)[: length - 1] + b"\n" + data[10 + length :]

    return change


def literal(descr="'<i4'", shape="(7,)"):
    return {"label": header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}")}


FORGED = {
    # What is forged: the changes; what the error says.
    "a shard above": (shard_file(lambda _: "../../etc/passwd"), "etc/passwd"),
    "a shard anywhere": (shard_file(lambda _: "/etc/passwd"), "/etc/passwd"),
    "a shard elsewhere": (shard_file(lambda name: "ram://x/" + name), "ram://"),
    "a shard of another number": (shard_file(lambda name: name.replace("00000", "00001")), "00000-of"),
    "shards out of order": ({"manifest": manifest(lambda told: told["shards"].reverse())}, "00000-of"),
    "no shards": (facts(shards=[]), "7 records"),
    "a name of folders": (facts(name="../x"), "name cannot be ../x"),
    "a split of folders": (facts(split="a/../../b", layout="tfx"), "split cannot be"),
    "no manifest": ({"manifest": None}, "manifest.json"),
    "a list": ({"manifest": b"[1, 2]"}, "no object"),
    "no JSON": ({"manifest": b"{"}, "no JSON"),
    "no UTF-8": ({"manifest": b'{"\xff": 1}'}, "manifest.json"),
    "deep JSON": ({"manifest": deep(50_000)}, "no JSON"),
    "wide JSON": ({"manifest": b"[" + b"[]," * 2_000_000 + b"[]]"}, "too many values"),
    "an endless number": ({"manifest": b'{"format_version": ' + b"9" * 1_000_000 + b"}"}, "manifest.json"),
    "no counts": (facts(counts=None), "counts cannot be None"),
    "counts as text": (counts(records="7"), "counts.records cannot be 7"),
    "counts below zero": (counts(failures=-1), "counts.failures cannot be -1"),
    "true for a count": (counts(ignored=True), "counts.ignored cannot be True"),
    "counts that do not add up": (counts(images=9), "9 images"),
    "a million million rows": ({"manifest": manifest(many_rows)}, "metadata.csv"),
    "a million million failures": (counts(images=10**12 + 7, failures=10**12), "failures.csv"),
    "classes without end": (feature("prediction/scores", shape=[10**12]), "prediction/scores"),
    "an odd kind": (feature("image/format", dtype="object"), "image/format"),
    "another kind": (feature("image/format", dtype="float"), "image/format"),
    "an odd shape": (feature("image/format", shape="[]"), "shape"),
    "many dimensions": (feature("x", shape=[1] * 99), "cannot have the shape"),
    "rows of nothing": (feature("x", shape=[None, 0]), "cannot have the shape"),
    "no features": (facts(features={}), "image/filename"),
    "labels that are none": (facts(labels={"names": "abc", "from": "file"}), "labels.names cannot be abc"),
    "pixels that are none": (facts(pixels={"scale": 1}), "pixels.height is missing"),
    "a threshold that is no number": (facts(threshold=float("nan")), "threshold cannot be nan"),
    "an unknown compression": (facts(compression="zstd"), "compression cannot be zstd"),
    "a billion rows": (literal(shape="(1000000000,)"), "columns/label.npy"),
    "rows below zero": (literal(shape="(-7,)"), "columns/label.npy"),
    "rows beyond counting": (literal(shape="(99999999999999999999999999,)"), "columns/label.npy"),
    "rows that overflow": (literal(shape="(4294967296, 4294967296)"), "columns/label.npy"),
    "a shape to calculate": (literal(shape="(7**7**7**7,)"), "columns/label.npy"),
    "a header of brackets": ({"label": header("(" * 90)}, "columns/label.npy"),
    "a structured dtype": (literal(descr="[('x', '<i4')]"), "columns/label.npy"),
    "objects": ({"label": column(lambda a: a.astype(object))}, "columns/label.npy"),
    "objects by the header": (literal(descr="'|O'"), "columns/label.npy"),
    "another dtype": ({"label": column(lambda a: a.astype(np.float32))}, "columns/label.npy"),
    "another byte order": ({"label": column(lambda a: a.astype(">i4"))}, "columns/label.npy"),
    "two dimensions": ({"label": column(lambda a: a.reshape(1, -1))}, "columns/label.npy"),
    "a shorter column": ({"offset": column(lambda a: a[:-1])}, "columns/offset.npy"),
    "a longer column": ({"truth": column(lambda a: np.append(a, a))}, "columns/truth.npy"),
    "a missing column": ({"size": None}, "columns/size.npy"),
    "no lookup": ({"hash": None}, "lookup/hash.npy"),
    "a short lookup": ({"row": column(lambda a: a[1:])}, "lookup/row.npy"),
    "scores of other classes": ({"scores": column(lambda a: a[:, :2])}, "columns/scores.npy"),
    "no table": ({"metadata": None}, "metadata.csv"),
}


def commands(folder, target, filename):
    """Every command that reads an export."""
    more = [["inspect"], ["inspect", "--json"], ["verify"], ["get", filename], ["extract", "--to", str(target)]]
    return [[command, str(folder), *rest] for command, *rest in more]


@pytest.mark.parametrize("case", FORGED)
def test_an_index_that_cannot_be_is_refused_at_once_by_every_command(copy, tmp_path, capsys, case):
    changes, said = FORGED[case]
    forged.rebuilt(copy, **changes)
    with no_hang(), pytest.raises(tfzip.CorruptError) as caught:
        tfzip.open(str(copy))
    assert said in str(caught.value)
    for command in commands(copy, tmp_path / "to", NAMES[0]):
        assert cli.main(command) == 1
        shown = capsys.readouterr()
        assert shown.out == ""
        assert said in shown.err
        assert len(shown.err.splitlines()) == 1
        assert len(shown.err) < 500


WRONG = {
    # Values that only reading can find wrong: the changes; what verify says.
    "offsets below zero": ({"offset": put(0, -5)}, "not where the index says"),
    "offsets beyond": ({"offset": put(0, 2**62)}, "not where the index says"),
    "sizes below zero": ({"size": put(0, -1)}, "not where the index says"),
    "sizes without end": ({"size": put(0, 2**63 - 1)}, "not where the index says"),
    "starts beyond": ({"start": put(0, 2**31 - 1)}, "not where the index says"),
    "starts below zero": ({"start": put(0, -7)}, "not where the index says"),
    "shards beyond": ({"shard": put(0, 2**31 - 1)}, "not where the index says"),
    "shards below zero": ({"shard": put(0, -1)}, "not where the index says"),
    "another record's place": ({"start": column(lambda a: a[[1, 0, *range(2, 7)]])}, "not where the index says"),
    "filenames that end below zero": ({"filename_end": put(0, -1)}, "filename_end"),
    "filenames that end beyond": ({"filename_end": put(-1, 2**62)}, "filename_end"),
    "filenames that go back": ({"filename_end": column(lambda a: a[::-1])}, "filename_end"),
    "other filenames": ({"filename": column(lambda a: a[::-1])}, "lookup"),
    "a lookup of other rows": ({"row": column(lambda a: a[::-1])}, "lookup"),
    "a lookup beyond": ({"row": put(0, 2**62)}, "lookup"),
    "a lookup that is not sorted": ({"hash": column(lambda a: a[::-1])}, "lookup"),
    "another label": ({"label": column(lambda a: (a + 1) % 3)}, "label"),
    "another confidence": ({"confidence": put(3, 0.999)}, "confidence"),
    "other scores": ({"scores": column(lambda a: a[::-1])}, "scores"),
    "another text": ({"metadata": lambda d: d.replace(b",bee,", b",cat,")}, "metadata.csv"),
    "another row of the table": ({"metadata": lambda d: d.replace(b"z.png", b"y.png")}, "metadata.csv"),
    "a table of fewer rows": ({"metadata": lambda d: d[: d[:-2].rindex(b"\r") + 2]}, "6 rows, not 7"),
    "a table of more rows": ({"metadata": lambda d: d + d[d[:-2].rindex(b"\n") + 1 :]}, "metadata.csv"),
    "a table of other columns": ({"metadata": lambda d: d[d.index(b"\n") + 1 :]}, "columns are not"),
    "more failures": ({"failures": lambda d: d + b"x,read,x\r\n"}, "failures.csv"),
    "other class names": ({"labels": b"bee\nant\ncat\n"}, "labels.txt"),
    "another margin": ({"margin": put(4, 0.5)}, "record 4: its margin"),
    "no margin": ({"margin": put(4, np.nan)}, "record 4: its margin"),
    "another entropy": ({"entropy": put(5, 0.5)}, "record 5: its entropy"),
    "entropies of others": ({"entropy": column(lambda a: a[::-1])}, "its entropy"),
    "no schema": ({"schema": b""}, "schema.pbtxt"),
    "a schema that is none": ({"schema": b"feature {"}, "schema.pbtxt"),
    "a deep schema": ({"schema": b"feature { struct_domain { " * 1000}, "schema.pbtxt"),
    "a schema of other types": ({"schema": lambda d: d.replace(b"FLOAT", b"INT")}, "schema.pbtxt"),
    "an unknown stage": ({"failures": lambda d: d.replace(b",decode,", b",guess,")}, "a stage guess"),
    "a record that failed": (
        {**facts(source={"kind": "folder", "labels": "none"}), "failures": lambda d: d.replace(b"broken", b"z")},
        "z.png is a record, and in failures.csv",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_an_index_that_lies_is_found_by_verify_and_gives_no_wrong_record(zipped, copy, capsys, case):
    changes, said = WRONG[case]
    forged.rebuilt(copy, **changes)
    with no_hang():
        assert any(said in line for line in verdict(copy)), verdict(copy)
        check_each_record(copy, forged.contents(zipped.path)[3])
        for command in commands(copy, copy / "to", NAMES[0]):
            assert cli.main(command) in (0, 1)
            assert "Error" not in capsys.readouterr().err  # none but ours, which are told without their names


def test_class_names_in_another_order_are_found(zipped, copy):
    forged.rebuilt(copy, **forged.renamed(zipped, ["bee", "cat", "ant"]))
    assert [line.partition(": record ")[2] for line in verdict(copy) if "and more" not in line] == [
        f"{row}: its text is not the name of its label" for row in range(7)
    ]


def test_a_schema_that_only_puts_it_otherwise_is_none_that_is_wrong(copy):
    """Some versions of protobuf escape what is not ASCII, or break lines elsewhere."""
    forged.rebuilt(copy, schema=lambda data: data.replace(b"\n  ", b" ").replace(b'"ant"', b'"\\141nt"'))
    assert verdict(copy) == []


@pytest.mark.parametrize("layout", ["flat", "tfx"])
def test_a_file_that_would_be_read_as_a_shard_is_found(tmp_path, layout):
    export = forged.make_export(tmp_path / "out", layout=layout)
    first = export.shards[0]
    stray = first.replace("00000-of-00003", "00003-of-00004")
    (tmp_path / "out" / "notes.txt").touch()
    assert tfzip.verify(export) == []
    shutil.copy(first, stray)
    assert tfzip.verify(export) == [
        f"{os.path.basename(stray)}: no shard of this export, but *.tfrecord-* finds it too"
    ]


def test_a_name_that_came_twice_is_a_record_and_a_failure_rightly(tmp_path):
    pixels, scores = np.zeros((4, 4, 3), np.uint8), np.array([0.25, 0.75], np.float32)
    export = tfzip.write(iter([(scores, "a.png", pixels)] * 2), str(tmp_path / "out"), quiet=True)
    assert [failure.filename for failure in export.failures] == ["a.png"]
    assert tfzip.verify(export) == []


def test_wrong_rows_of_a_long_shard_are_each_told_once_and_before_what_is_damaged(tmp_path):
    """More than are looked at together; the last records cannot be read."""
    count, wrong = 6000, [1, 3000, 4999]
    pixels, scores = np.zeros((1, 1, 3), np.uint8), np.array([0.25, 0.75], np.float32)
    triples = ((scores, f"{number}.png", pixels) for number in range(count))
    export = tfzip.write(triples, str(tmp_path / "out"), quiet=True, batch_size=128)
    (path,) = export.shards
    end = int(export.metadata["offset"][5500])
    with open(path, "r+b") as file:
        file.seek(end + 20)
        file.write(b"\0" * 20)
    forged.rebuilt(tmp_path / "out", label=column(lambda a: np.where(np.isin(np.arange(count), wrong), 0, a)))
    found = verdict(tmp_path / "out")
    said = [f"record {row}: its label is not the index's" for row in wrong]
    assert [line.partition(": ")[2] for line in found][: len(said)] == said
    assert f"the gzip member at {end} is damaged" in found[len(said)]


def test_rebuilding_an_index_as_it_was_harms_nothing(zipped, copy):
    forged.rebuilt(copy)
    assert verdict(copy) == []
    assert forged.contents(copy) == forged.contents(zipped.path)


def test_a_zip_that_hides_something_is_refused(copy):
    index = copy / "index.zip"
    whole = [*forged.entries(index).items()]
    labels = dict(whole)["columns/label.npy"]
    another_size = forged.Raw(labels, size=len(labels) + 1, method=0)
    for pairs in (
        [*whole, whole[0]],
        [*whole, ("x.npy", forged.Raw(b"x", method=99))],
        [(name, another_size if name == "columns/label.npy" else data) for name, data in whole],
        [*whole, *((f"{number}.txt", b"x") for number in range(2000))],
    ):
        forged.write_zip(index, pairs)
        with pytest.raises(tfzip.CorruptError, match=r"index\.zip"):
            tfzip.open(str(copy))
    forged.write_zip(index, whole)
    data = index.read_bytes()
    directory = data.index(b"PK\1\2")
    for hidden in (b"between" + data[directory:], data[directory:] + b"behind"):
        index.write_bytes(data[:directory] + hidden)
        with pytest.raises(tfzip.CorruptError, match=r"index\.zip"):
            tfzip.open(str(copy))


def test_nothing_of_an_export_is_ever_executed(copy, tmp_path):
    class Trap:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "trapped"),))

    for entry in ("label", "filename", "hash", "scores"):
        trap = column(lambda _: np.array([Trap()] * 7, object))
        forged.rebuilt(copy, **{entry: lambda data, trap=trap: trap(data) if b"|O" not in data else data})
        assert verdict(copy)
    assert not (tmp_path / "trapped").exists()


# What a terminal shows.


NASTY = "\x1b]0;owned\x07\x1b[2J\n0 failures\r\u202egnp.exe\x9b31m"


def test_no_output_acts_on_the_terminal(copy, tmp_path, capsys):
    def nasty(told):
        told["labels"]["names"] = [NASTY, "bee", "cat"]
        told["model"]["name"] = NASTY
        told["features"][NASTY] = {"dtype": "bytes", "shape": [None]}

    forged.rebuilt(
        copy,
        manifest=manifest(nasty),
        failures=lambda data: data.replace(b"broken.png", f'"{NASTY}"'.encode()),
        metadata=lambda data: data.replace(b"ant", f'"{NASTY}"'.encode()),
    )
    shard = shards_of(copy)[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    for command in [*commands(copy, tmp_path / "to", NASTY), *commands(copy, tmp_path / "to", NAMES[-1])]:
        cli.main(command)
        shown = capsys.readouterr()
        assert shown.out + shown.err
        for character in set(shown.out + shown.err) - {"\n"}:
            assert character.isprintable(), (command, character)


def test_the_json_of_a_record_says_what_is_in_it_and_acts_on_nothing(tmp_path, capsys):
    names = [f"{NASTY}.png", "日本.png", "🐈\x7f.png"]
    images = np.random.default_rng(1).integers(0, 256, (3, 2, 2, 3), np.uint8)
    tfzip.write(tfzip.zip(np.eye(3, dtype=np.float32), names, images), str(tmp_path / "out"), quiet=True)
    capsys.readouterr()
    for name in names:
        assert cli.main(["get", str(tmp_path / "out"), name]) == 0
        shown = capsys.readouterr().out
        assert json.loads(shown)["filename"] == name
        assert all(character.isprintable() or character == "\n" for character in shown)
        assert name in shown or not name.isprintable()


# Memory, in real processes.


_PEAKS = """
import sys
import tfzip
from peaks import peak
from tfzip import terminal
from tfzip.extract import extract

READINGS = [
    tfzip.verify,
    lambda export: export[:] and [],
    lambda export: export["b/1.png"] and [],
    lambda export: export.failures and [],
    lambda export: [export.metadata[name] for name in export.metadata] and [],
    lambda export: extract(export, export.path + "-extracted") and [],
    lambda export: terminal.inspection(export) and [],
]

def told(folder):
    told = []
    try:
        with tfzip.open(folder) as export:
            for read in READINGS:
                try:
                    told.append(bool(read(export)))
                except tfzip.TfzipError:
                    told.append(True)
    except tfzip.CorruptError:
        told.append(True)
    return told[0]

for folder in sys.argv[1:]:
    print(folder, *peak(told, folder), sep="\\t")
assert "tensorflow" not in sys.modules
"""


def stored(data):
    """Bytes as a deflate block that does not compress, and is not the last."""
    return b"\0" + len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little") + data


TEN = forged.Raw(forged.zeros(10), size=10 << 30)
INDEX_BOMBS = {
    "ten gigabytes of metadata": {"metadata": TEN},
    "ten gigabytes of manifest": {"manifest": TEN},
    "ten gigabytes of failures": {"failures": TEN},
    "ten gigabytes of labels": {"labels": TEN},
    "metadata that go on": {"metadata": forged.Raw(forged.zeros(2), size=30 << 20)},
    "a manifest that goes on": {"manifest": forged.Raw(forged.zeros(2), size=1000)},
    "labels that go on": {"labels": forged.Raw(forged.zeros(2), size=6)},
    "a manifest as large as may be": {"manifest": b"[" + b"{}," * 1_900_000 + b"{}]" + b" " * (25 << 20)},
    "a row of 30 MB": {"metadata": lambda data: data + b'"' + b"a," * (15 << 20)},
    "quotes without end": {"failures": lambda data: data[:22] + b'"' + b"\n" * (30 << 20)},
    "a billion rows": literal(shape="(1000000000,)"),
    "outside its shards": {"offset": put(0, 2**62), "size": put(1, 2**62), "start": put(2, 2**31 - 1)},
    "filenames that all are everything": {"filename_end": column(lambda a: np.where(np.arange(7) % 2, a[-1], 0))},
}
SHARD_BOMBS = {
    "a shard of zeros": forged.zeros(10),
    "a huge record": stored(forged.frame_header(2**60)) + forged.zeros(10),
    "a large record": stored(forged.frame_header(2**31)) + forged.zeros(10),
    "a record, and zeros": stored(forged.frame(b"x")) + forged.zeros(10),
}


def with_shard(folder, content):
    """Put another first shard into an export, of whose length the index knows."""
    first = shards_of(folder)[0]
    before, after = first.stat().st_size, len(content)
    first.write_bytes(content)
    size = manifest(lambda told: told["shards"][0].update(bytes=after))
    forged.rebuilt(folder, manifest=size, size=column(lambda a: np.where(a == before, after, a)))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_bombs_are_told_and_take_little_memory(zipped, tmp_path):
    folders = [str(tmp_path / name) for name in (*INDEX_BOMBS, *SHARD_BOMBS)]
    for name, changes in INDEX_BOMBS.items():
        forged.rebuilt(forged.copied(zipped, tmp_path / name), **changes)
    for name, deflate in SHARD_BOMBS.items():
        with_shard(forged.copied(zipped, tmp_path / name), forged.gzip_member(deflate))
    whole, *bombs = peaks.run(_PEAKS, forged.copied(zipped, tmp_path / "whole"), *folders)
    assert whole[1] == "False"
    assert [folder for folder, *_ in bombs] == folders
    for folder, told, megabytes in bombs:
        assert told == "True", folder
        assert int(megabytes) - int(whole[2]) < 150, folder


def test_a_forged_length_does_not_bring_down_a_loop(tmp_path):
    """TensorFlow's own reader makes room for what an uncompressed record claims before it looks, and dies of it."""
    export = forged.make_export(tmp_path / "out", compression="none")
    shard = sorted(tmp_path.joinpath("out").glob("*00001-of*"))[0]
    shard.write_bytes(forged.frame_header(2**40) + shard.read_bytes()[12:])
    with tfzip.open(export.path) as opened, pytest.raises(tfzip.CorruptError, match="00001-of"):
        list(opened)
    model = tf.function(lambda images: images[:, 0, 0, :])
    with pytest.raises(tfzip.CorruptError, match="00001-of"):
        tfzip.export(export.path, model, str(tmp_path / "again"), task="raw", scale="raw", image_size=(4, 4))


def test_a_record_that_is_no_example_is_told_by_a_loop_and_by_an_export(tmp_path):
    """TensorFlow puts such a record into its message, which then may be no text."""
    export = forged.make_export(tmp_path / "out", compression="none", shard_records=100)
    (shard,) = (tmp_path / "out").glob("*.tfrecord-*")
    content = shard.read_bytes()
    _, end = framing.unframe(content)
    shard.write_bytes(forged.frame(b"\x0a\xff\xffimage/encoded".ljust(end - framing.FRAME_OVERHEAD)) + content[end:])
    with tfzip.open(export.path) as opened, pytest.raises(tfzip.DataError, match="record 0") as caught:
        list(opened)
    assert "image/encoded" not in str(caught.value)
    model = tf.function(lambda images: images[:, 0, 0, :])
    with pytest.raises(tfzip.BrokenSourceError, match="parse") as caught:
        tfzip.export(export.path, model, str(tmp_path / "again"), task="raw", scale="raw", image_size=(4, 4))
    assert "image/encoded" not in str(caught.value)
