"""An export that was stopped, by whatever, goes on and ends as if it had not been."""

import functools
import io
import itertools
import json
import os
import random
import shutil
import signal
import tarfile
import time

import killed
import numpy as np
import pytest
import tensorflow as tf
from sources_made import example, texts, write_tfrecord

import tfzip
from tfzip.errors import BrokenSourceError, OutputExistsError

SHARDS = {"batch_size": 4, "parallel": 2, "shuffle": 5, "shard_records": 40, "source_labels": "folder"}
"""Of the 1,797 digits, 45 shards."""

FEW = {"batch_size": 8, "parallel": 2, "limit": 90, "shard_records": 30}


@pytest.fixture(scope="module")
def model(digits_files):
    return digits_files["keras"]


@pytest.fixture(scope="module")
def undisturbed(digits, model, tmp_path_factory):
    """The files of an export of the digits that nobody stops."""

    @functools.cache
    def files(**options):
        out = tmp_path_factory.mktemp("undisturbed") / "out"
        tfzip.export(str(digits[0]), model, str(out), quiet=True, **options)
        return killed.contents(out)

    return files


def stopped(source, model, out, options, shards):
    """Export in a process, and kill it as soon as so many shards are done."""
    process = killed.begun(source, model, out, options)
    deadline = time.monotonic() + 120
    while killed.finished(out) < shards:
        assert process.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert killed.finished(out) >= shards


@pytest.mark.slow
@pytest.mark.parametrize(("kills", "shard_records"), [(4, 40), (30, 6)], ids=["4", "30"])
def test_killed_at_random_moments_it_ends_as_undisturbed(digits, model, undisturbed, tmp_path, kills, shard_records):
    options = {**SHARDS, "shard_records": shard_records}
    out, expected = tmp_path / "out", undisturbed(**options)
    codes = killed.until_done(str(digits[0]), model, out, options, random.Random(kills), kills)
    assert codes[:-1] == [-signal.SIGKILL] * (len(codes) - 1)
    assert len(codes) > kills / 2  # a machine may be so fast that it ends before
    assert codes[-1] == 0
    assert killed.contents(out) == expected
    assert sum(".tfrecord-" in name for name in expected) == 1800 // shard_records


@pytest.mark.parametrize(
    ("number", "in_library"),
    [(signal.SIGTERM, False), pytest.param(signal.SIGINT, False, marks=pytest.mark.slow), (signal.SIGINT, True)],
)
def test_stopped_by_a_signal_it_goes_on(digits, model, undisturbed, tmp_path, number, in_library):
    out, expected = tmp_path / "out", undisturbed(**SHARDS)
    how = {"number": number, "in_library": in_library}
    codes = killed.until_done(str(digits[0]), model, out, SHARDS, random.Random(number), 3, **how)
    assert set(codes[:-1]) <= {128 + number}
    assert codes[-1] == 0
    assert killed.contents(out) == expected


def test_the_interrupt_of_a_call_tells_how_to_go_on(digits, model, tmp_path):
    out = tmp_path / "out"
    process = killed.begun(str(digits[0]), model, out, SHARDS, in_library=True)
    while killed.finished(out) < 2:
        assert process.is_alive()
        time.sleep(0.001)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert (tmp_path / "out.said").read_text() == "interrupted; the same command goes on after what is finished"


@pytest.mark.slow
def test_stopped_before_a_shard_is_finished_it_may_become_another(digits, model, tmp_path):
    out = tmp_path / "out"
    for dies_at in itertools.count():
        assert killed.ended(str(digits[0]), model, out, FEW, dies_at=dies_at)[0] == -signal.SIGKILL
        if (out / ".tfzip" / "shard-00000").exists():
            break
    assert not killed.finished(out)
    export = tfzip.export(str(digits[0]), model, str(out), quiet=True, **FEW, shuffle=1)
    assert len(export) == 90
    assert export.manifest["shuffle"] == 1


@pytest.mark.parametrize("step", [41, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "more",
    [{}, *(pytest.param(more, marks=pytest.mark.slow) for more in ({"layout": "tfx"}, {"overwrite": True}))],
    ids=["flat", "tfx", "overwrite"],
)
def test_killed_before_any_change_to_a_file_it_goes_on(digits, model, undisturbed, tmp_path, more, step):
    """Each change in turn: nothing half done is ever under a final name, and the end is the same."""
    expected = undisturbed(**FEW, **more)
    for dies_at in itertools.count(0, step):
        out = tmp_path / str(dies_at)
        if "overwrite" in more:
            tfzip.export(str(digits[0]), model, str(out), quiet=True, limit=50, shards=2)
        code, _ = killed.ended(str(digits[0]), model, out, {**FEW, **more}, dies_at=dies_at)
        assert code in (0, -signal.SIGKILL)
        for path in out.rglob("index.zip"):
            if ".tfzip" not in path.parts:
                assert tfzip.verify(tfzip.open(out)) == []
        if code == 0:
            break
        is_left = any((out / ".tfzip" / name).exists() for name in ("plan.json", "published.json"))
        is_left |= any(out.glob("tfzip-*/.tfzip/p*.json"))
        again, said = killed.ended(str(digits[0]), model, out, {**FEW, **more})
        assert again == 0 or ("holds a finished export" in said and not is_left)
        assert killed.contents(out) == expected
    assert dies_at > 30


class Counting(tf.Module):
    """A model that says how many images it has seen."""

    def __init__(self):
        self.seen = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 1), tf.float32)], autograph=False)
    def __call__(self, batch):
        places = self.seen.assign_add(tf.cast(tf.shape(batch)[0], tf.float32)) - tf.range(
            tf.cast(tf.shape(batch)[0], tf.float32)
        )
        return tf.stack([1 / places, 1 - 1 / places], 1)


@pytest.mark.slow
def test_a_model_that_keeps_state_begins_anew(digits, tmp_path):
    saved, out = str(tmp_path / "saved"), tmp_path / "out"
    tf.saved_model.save(Counting(), saved)
    options = {**SHARDS, "scale": "raw", "task": "multiclass", "scores": "probabilities"}
    stopped(str(digits[0]), saved, out, options, 3)
    assert killed.ended(str(digits[0]), saved, out, options) == (0, "")
    with tfzip.open(out) as export:
        first = export.metadata["scores"][:, 0]
    np.testing.assert_allclose(np.sort(1 / first), np.arange(1, 1798), rtol=1e-4)


@pytest.mark.slow
def test_200_000_images_in_flat_memory_though_stopped_twice(digits, model, tmp_path):
    paths = sorted(digits[0].rglob("*.png"))[::113]
    peaks = {}
    for count in (20_000, 200_000):
        folder, out = tmp_path / str(count), tmp_path / f"out {count}"
        for number in range(count):
            (folder / f"{number // 1000:03d}").mkdir(parents=True, exist_ok=True)
            os.link(paths[number % len(paths)], folder / f"{number // 1000:03d}" / f"{number:06d}.png")
        if count > 20_000:
            stopped(str(folder), model, out, {}, 5)
            stopped(str(folder), model, out, {}, 12)
        assert killed.ended(str(folder), model, out, {}) == (0, "")
        peaks[count] = int((tmp_path / f"out {count}.peak").read_text()) // 1024
        with tfzip.open(out) as export:
            assert len(export) == count
            labels = export.metadata["label"]
            assert len(set(labels.tolist())) > 3
            assert np.array_equal(labels, np.resize(labels[: len(paths)], count))
    assert peaks[200_000] - peaks[20_000] < 200, peaks  # MiB; names and rows of 180,000 images


# Streams.


def tar_gz(pictures, path):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in pictures:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return str(path)


def records(pictures, path):
    made = [example(image__encoded=texts(content), image__filename=texts(name.encode())) for name, content in pictures]
    write_tfrecord(path, made)
    return f"tfrecord:{path}"


class Items:
    """An iterable of (filename, image), for another process."""

    def __init__(self, pictures):
        self._pictures = pictures

    def __call__(self):
        yield from self._pictures


class Triples(Items):
    """An iterable of (prediction, filename, image); so slow that there is something to stop."""

    def __call__(self):
        for number, (name, content) in enumerate(self._pictures):
            time.sleep(0.002)
            yield np.eye(10, dtype=np.float32)[number % 10] * 0.9 + 0.01, name, content


STREAMS = {
    "tar.gz": lambda pictures, folder: tar_gz(pictures, folder / "in.tar.gz"),
    "tfrecord": lambda pictures, folder: records(pictures, folder / "in.tfrecord"),
    "items": lambda pictures, _: Items(pictures),
    "triples": lambda pictures, _: Triples(pictures),
}


@pytest.fixture(scope="module")
def pictures(digits):
    """Names and bytes of some digits, one of them broken."""
    paths = sorted(digits[0].rglob("*.png"))
    found = [(str(path.relative_to(digits[0])), path.read_bytes()) for path in paths[::3]]
    found[7] = ("broken.png", b"\x89PNG\r\n\x1a\nno more")
    return found


@pytest.mark.parametrize("kind", ["tar.gz", *(pytest.param(k, marks=pytest.mark.slow) for k in [*STREAMS][1:])])
def test_a_stream_is_read_again_up_to_where_it_was(pictures, model, tmp_path, kind):
    source = STREAMS[kind](pictures, tmp_path)
    used = None if kind == "triples" else model
    options = {"batch_size": 4, "parallel": 2, "shard_records": 48}
    assert killed.ended(source, used, tmp_path / "undisturbed", options)[0] == 0
    out = tmp_path / "out"
    stopped(source, used, out, options, 2)
    assert killed.until_done(source, used, out, options, random.Random(3), 2)[-1] == 0
    assert killed.contents(out) == killed.contents(tmp_path / "undisturbed")
    with tfzip.open(out) as export:
        assert [failure.filename for failure in export.failures] == ["broken.png"]
        assert len(export) == len(pictures) - 1


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 50])
def test_a_stream_that_gives_something_else_is_refused(pictures, model, tmp_path, place):
    out, options = tmp_path / "out", {"batch_size": 4, "shard_records": 48}
    stopped(Items(pictures), model, out, options, 2)
    before = killed.contents(out)
    other = list(pictures)
    other[place] = (pictures[place][0], pictures[place + 1][1])
    with pytest.raises(BrokenSourceError, match=f"image {place} is not the one"):
        tfzip.export(iter(other), model, str(out), quiet=True, **options)
    with pytest.raises(BrokenSourceError, match="ended after 60 images; it gave"):
        tfzip.export(iter(pictures[:60]), model, str(out), quiet=True, **options)
    assert before.items() <= killed.contents(out).items()
    tfzip.export(iter(pictures), model, str(out), quiet=True, **options)
    assert killed.is_done(out)


@pytest.mark.slow
def test_a_stream_that_has_grown_after_its_end_is_refused(pictures, model, tmp_path):
    options = {"batch_size": 4, "shard_records": 8}
    for dies_at in itertools.count(5):  # until all shards are done, and no more
        out = tmp_path / f"out{dies_at}"
        killed.ended(Items(pictures[:10]), model, out, options, dies_at=dies_at)
        if killed.finished(out) == 2:
            break
    for more in (1, 9):
        with pytest.raises(BrokenSourceError, match="ended after 10 images before; now it gives more"):
            tfzip.export(iter(pictures[: 10 + more]), model, str(out), quiet=True, **options)
    assert len(tfzip.export(iter(pictures[:10]), model, str(out), quiet=True, **options)) == 9


# What changed meanwhile.


@pytest.mark.slow
def test_items_that_changed_or_vanished_fail_and_new_ones_stay_out(digits, model, tmp_path, capsys):
    folder = shutil.copytree(digits[0], tmp_path / "in")
    out = tmp_path / "out"
    stopped(str(folder), model, out, SHARDS, 10)
    order = np.random.Generator(np.random.PCG64(5)).permutation(1797)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.png"))
    last = [names[place] for place in order[-3:]]
    (folder / last[0]).unlink()
    (folder / last[1]).write_bytes((folder / last[2]).read_bytes())
    (folder / "0" / "new.png").write_bytes((folder / last[2]).read_bytes())
    done = killed.finished(out)
    export = tfzip.export(str(folder), model, str(out), **SHARDS)
    said = f"going on after {done} finished shards; 1 images that have come since stay out"
    assert said in capsys.readouterr().err.splitlines()
    failures = {failure.filename: (failure.stage, failure.error) for failure in export.failures}
    assert failures == {
        last[0]: ("read", "it vanished since the export was begun"),
        last[1]: ("read", "it changed since the export was begun"),
    }
    held = {record.filename: record for record in export[:]}
    assert set(held) == set(names) - set(last[:2])
    assert all(held[name].encoded == (folder / name).read_bytes() for name in held)
    assert [int(held[names[place]].source_id) for place in order[-10:-3]] == order[-10:-3].tolist()
    assert tfzip.verify(export) == []


@pytest.mark.slow
def test_another_call_is_refused_with_its_differences(digits, digits_files, model, tmp_path):
    out = tmp_path / "out"
    stopped(str(digits[0]), model, out, SHARDS, 2)
    before = killed.contents(out)
    for change, said in [
        ({"batch_size": 8}, ["--batch-size was 4, is 8"]),
        ({"shuffle": 6, "image": "none"}, ["--shuffle was 5, is 6", "--image was keep, is none"]),
        ({"limit": 1000}, ["--limit was not given, is 1000"]),
        ({"name": "other"}, ["--name was images, is other"]),
        ({"labels": list("abcdefghij")}, ["the class names changed"]),
    ]:
        with pytest.raises(OutputExistsError) as raised:
            tfzip.export(str(digits[0]), model, str(out), quiet=True, **{**SHARDS, **change})
        assert all(part in str(raised.value) for part in said)
    with pytest.raises(OutputExistsError, match="the model changed"):
        tfzip.export(str(digits[0]), digits_files["saved_model"], str(out), quiet=True, **SHARDS)
    assert killed.contents(out) == before
    free = {"on_error": "fail", "max_failures": 3, "parallel": "auto", "overwrite": True}
    assert len(tfzip.export(str(digits[0]), model, str(out), quiet=True, **{**SHARDS, **free})) == 1797


@pytest.mark.slow
def test_another_folder_or_table_is_refused(digits, model, tmp_path):
    out, how = tmp_path / "out", {**FEW, "limit": None}
    stopped(str(digits[0]), model, out, how, 2)
    other = shutil.copytree(digits[0], tmp_path / "in")
    with pytest.raises(OutputExistsError, match="the source's place"):
        tfzip.export(str(other), model, str(out), quiet=True, **how)
    assert len(tfzip.export(os.path.relpath(digits[0]), model, str(out), quiet=True, **how)) == 1797

    table, out = tmp_path / "table.csv", tmp_path / "tabled"
    rows = [f"{path},{path.parent.name}\n" for path in sorted(other.rglob("*.png"))]
    table.write_text("path,label\n" + "".join(rows))
    stopped(str(table), model, out, how, 2)
    table.write_text("path,label\n" + "".join(rows).replace(",5\n", ",6\n"))
    with pytest.raises(OutputExistsError, match="the source's table was"):
        tfzip.export(str(table), model, str(out), quiet=True, **how)
    table.write_text("path,label\n" + "".join(rows))  # what it says counts, not when it was written
    assert len(tfzip.export(str(table), model, str(out), quiet=True, **how)) == 1797


@pytest.mark.parametrize("name", ["plan.json", "items.npz", "rows-00001.npz"])
@pytest.mark.parametrize("damage", ["cut", "nothing", "flipped"])
def test_a_work_file_that_is_damaged_is_told_or_made_again(digits, model, undisturbed, tmp_path, name, damage):
    out, how = tmp_path / "out", FEW
    stopped(str(digits[0]), model, out, how, 2)
    path = out / ".tfzip" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes({"cut": data[:-9], "nothing": b"", "flipped": data}[damage])
    if name != "rows-00001.npz" and (name, damage) != ("plan.json", "flipped"):  # which may only be another plan
        with pytest.raises(
            tfzip.CorruptError, match=f"{name} is damaged: --overwrite begins the unfinished export anew"
        ):
            tfzip.export(str(digits[0]), model, str(out), quiet=True, **how)
    tfzip.export(str(digits[0]), model, str(out), quiet=True, overwrite=name != "rows-00001.npz", **how)
    assert killed.contents(out) == undisturbed(**how)


def test_overwrite_replaces_an_unfinished_export_of_another_kind(digits, model, undisturbed, tmp_path):
    out = tmp_path / "out"
    stopped(str(digits[0]), model, out, SHARDS, 2)
    tfzip.export(str(digits[0]), model, str(out), quiet=True, overwrite=True, **FEW)
    assert killed.contents(out) == undisturbed(**FEW)


def test_what_auto_chose_is_kept(digits, model, tmp_path):
    out, options = tmp_path / "out", {"shard_records": 40}
    stopped(str(digits[0]), model, out, options, 2)
    plan = json.loads((out / ".tfzip" / "plan.json").read_text())
    plan["batch_size"], plan["parallel"] = 8, 3  # as a machine with other cores might have
    (out / ".tfzip" / "plan.json").write_text(json.dumps(plan))
    made = tfzip.export(str(digits[0]), model, str(out), quiet=True, **options).manifest
    assert (made["batch_size"], made["parallel"]) == (8, 3)


# One writer.


def test_a_second_writer_is_refused_and_names_the_first(digits, model, tmp_path):
    out = tmp_path / "out"
    process = killed.begun(str(digits[0]), model, out, SHARDS)
    while not killed.finished(out):
        time.sleep(0.001)
    with pytest.raises(OutputExistsError, match=rf"process {process.pid} on {os.uname().nodename} is writing there"):
        tfzip.export(str(digits[0]), model, str(out), quiet=True, overwrite=True, **SHARDS)
    process.join()
    assert process.exitcode == 0
    assert len(tfzip.open(out)) == 1797


@pytest.mark.parametrize(
    ("holder", "is_refused"),
    [
        ({"host": os.uname().nodename, "process": os.getppid(), "silent": 200}, True),
        ({"host": os.uname().nodename, "process": os.getppid(), "silent": 400}, False),
        ({"host": os.uname().nodename, "process": 2**22 + 1, "time": 2**33}, False),  # above Linux' highest
        ({"host": "elsewhere", "process": 1, "silent": 200}, True),
        ({"host": "elsewhere", "process": 1, "silent": 400}, False),
        ({"host": "elsewhere"}, False),
    ],
    ids=["alive", "silent, or begun anew", "dead", "elsewhere", "silent elsewhere", "damaged"],
)
def test_where_no_system_locks_the_holder_gives_signs_of_life(digits, model, holder, is_refused, request):
    out = f"ram://{request.node.name}"
    tf.io.gfile.makedirs(f"{out}/.tfzip")
    with tf.io.gfile.GFile(f"{out}/.tfzip/writer.json", "w") as file:
        file.write(json.dumps({"time": time.time() - holder.get("silent", 0), **holder}))
    if is_refused:
        with pytest.raises(OutputExistsError, match=f"process {holder['process']} on {holder['host']} is writing"):
            tfzip.export(str(digits[0]), model, out, quiet=True, limit=5)
    else:
        assert len(tfzip.export(str(digits[0]), model, out, quiet=True, limit=5)) == 5


# The disk.


@pytest.mark.parametrize("largest", [10_000, 100_000])
def test_a_disk_that_fills_leaves_nothing_half_done(digits, model, undisturbed, tmp_path, largest):
    """A limit on the size of files: the smaller one takes not even a shard, the larger one no index."""
    out = tmp_path / "out"
    options = {**SHARDS, "shard_records": 150}
    code, said = killed.ended(str(digits[0]), model, out, options, largest_file=largest)
    assert code == 1
    assert said.startswith(f"OutputError: {out} can no longer be written: File too large")
    assert len(said.splitlines()) == 1
    assert out.exists() == (largest == 100_000)
    assert not (out / "index.zip").exists()
    assert killed.ended(str(digits[0]), model, out, options)[0] == 0
    assert killed.contents(out) == undisturbed(**options)


def test_a_folder_that_goes_away_is_told_of(digits, model, tmp_path):
    out = tmp_path / "out"
    process = killed.begun(str(digits[0]), model, out, SHARDS)
    while not killed.finished(out):
        time.sleep(0.001)
    shutil.rmtree(out, ignore_errors=True)
    process.join()
    assert process.exitcode == 1
    assert f"OutputError: {out} can no longer be written" in (tmp_path / "out.said").read_text()


@pytest.mark.slow
def test_elsewhere_than_on_a_disk_it_goes_on_too(pictures, model):
    def broken():
        yield from pictures[:200]
        raise ConnectionError("the camera is gone")

    options = {"batch_size": 4, "shard_records": 48, "quiet": True}
    for out in ("ram://undisturbed", "ram://stopped"):
        if out == "ram://stopped":
            with pytest.raises(BrokenSourceError, match="camera is gone\nThe same command goes on"):
                tfzip.export(broken(), model, out, **options)
            assert tf.io.gfile.exists(f"{out}/.tfzip/rows-00001.npz")
            assert not tf.io.gfile.exists(f"{out}/index.zip")
        tfzip.export(iter(pictures), model, out, **options)
    names = tf.io.gfile.listdir("ram://undisturbed")
    assert sorted(names) == sorted(tf.io.gfile.listdir("ram://stopped"))
    for name in set(names) - {"run.json"}:
        files = [tf.io.gfile.GFile(f"{out}/{name}", "rb") for out in ("ram://undisturbed", "ram://stopped")]
        assert files[0].read() == files[1].read(), name
