"""An export on Apache Beam is the local one, whoever did its shards, however often, and wherever it was stopped."""

import contextlib
import os
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import beam_made
import killed
import numpy as np
import pytest
import sources_made
import tensorflow as tf
from beam_made import KINDS, SOME, inodes, published, same_as

import tfzip
from tfzip import cli, spread, worker
from tfzip.errors import (
    DataError,
    ModelError,
    OutputExistsError,
    SourceError,
    TfzipError,
    TooManyFailuresError,
    UsageError,
)
from tfzip.layout import Layout
from tfzip.options import Options
from tfzip.sources import open_source

beam = pytest.importorskip("apache_beam", reason="Apache Beam is missing: pip install 'tfzip[beam]'")
from tfzip.interop import beam as engine  # noqa: E402 - once it is known to be there

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of Beam's own


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    return beam_made.pictures(digits, tmp_path_factory.mktemp("pictures") / "in")


@pytest.fixture(scope="module")
def model(digits_files):
    return digits_files["keras"]


@pytest.fixture(scope="module")
def local(folder, model, tmp_path_factory):
    """The folder of a local export, made once for each kind."""
    made = {}

    def export(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("local") / kind
            tfzip.export(str(folder), model, str(made[kind]), **KINDS[kind])
        return made[kind]

    return export


def begun(folder, model, out, shards, **options):
    """An export on Beam of which these shards are done, and then all is gone, as if killed; its work folder."""
    settings = Options(**options)
    layout = Layout(str(out), settings.layout, settings.name, settings.split, settings.compression)
    with layout.claimed():
        planned = spread.begin(layout, settings, open_source(str(folder), settings), model)
        for shard in shards:
            assert worker.do(planned.task, shard).records > 0
    return out / ".tfzip"


# The same bytes.


@pytest.mark.parametrize("kind", ["flat", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(KINDS)[1:])])
def test_an_export_on_beam_is_the_local_one(folder, model, local, tmp_path, kind):
    export = engine.export(str(folder), model, str(tmp_path / "out"), **KINDS[kind])
    assert export.run["engine"] == "beam"
    assert export.run["runner"] == "FnApiRunner"
    counts, counted = export.manifest["counts"], export.run["counters"]
    assert (counted["records"], counted["failures"]) == (counts["records"], counts["failures"])
    assert counted["shards"] == len(export.manifest["shards"])
    assert counted["bytes"] == sum(shard["bytes"] for shard in export.manifest["shards"])
    assert counted["milliseconds"] > 0
    assert same_as(tmp_path / "out", local(kind))


@pytest.mark.slow
def test_another_name_of_two_images_is_seen(folder, model, local, tmp_path):
    """The comparison of the other tests tells when two filenames are swapped."""
    swapped = beam_made.copied(folder, tmp_path / "in")
    one, other = sorted((swapped / "3").glob("????.png"))[:2]
    one.rename(swapped / "kept")
    other.rename(one)
    (swapped / "kept").rename(other)
    engine.export(str(swapped), model, str(tmp_path / "out"), **KINDS["flat"])
    assert not same_as(tmp_path / "out", local("flat"))


@pytest.mark.slow
def test_a_list_and_a_table_are_handed_out_too(folder, model, tmp_path):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    rows = [
        f"{name},{name[0]},{number},{number / 4},{'red' if number % 3 else ''}" for number, name in enumerate(names)
    ]
    (folder.parent / "list.txt").write_text("".join(f"in/{name}\n" for name in reversed(names)))
    (folder.parent / "table.csv").write_text(
        "\n".join(["path,label,number,share,colour", *rows, "/else/a.png,3,1,1,a"])
    )
    given = {"list.txt": {}, "table.csv": {"root": str(folder)}}
    for name, options in given.items():
        source, options = str(folder.parent / name), {**SOME, **options, "shuffle": 3}
        export = tfzip.export(source, model, str(tmp_path / name / "local"), **options)
        engine.export(source, model, str(tmp_path / name / "beam"), **options)
        assert same_as(tmp_path / name / "beam", tmp_path / name / "local")
    assert {"extra/number", "extra/share", "extra/colour", "truth/label"} <= set(export.features)
    assert "/else/a.png" in [failure.filename for failure in export.failures]


@pytest.mark.slow
def test_a_long_list_is_refused_as_a_short_one_is(folder, tmp_path):
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    (tmp_path / "elsewhere").mkdir()
    written = {
        "twice.txt": [*names, "", names[3]],
        "none.txt": [""],
        "shared.txt": [f"{folder}/{name}" for name in names],
        "outside.txt": [f"{folder}/{name}" for name in names] + [str(tmp_path / "elsewhere" / "a.png")],
    }
    for name, lines in written.items():
        (tmp_path / name).write_text("\ufeff" + "\r\n".join(lines))
    told = {}
    for name in written:
        for engine_name in ("local", "beam"):
            more = {"root": str(folder)} if name == "outside.txt" else {}
            options = Options(engine=engine_name, **more)
            try:
                source = open_source(str(tmp_path / name), options)
                found = list(source.filenames), list(source.sizes[:]), source.rejected, dict(source.state)
            except SourceError as error:
                found = str(error)
            told[name, engine_name] = found
        assert told[name, "beam"] == told[name, "local"]
    assert "lines 1 and 162 both name" in told["twice.txt", "beam"] or "lines 4 and" in told["twice.txt", "beam"]
    assert "names no images" in told["none.txt", "beam"]
    assert len(told["outside.txt", "beam"][2]) == 1


@pytest.fixture(scope="module")
def records(folder, tmp_path_factory):
    """The same images in TFRecord files, one with names of their own inside and one without; and gzipped."""
    at = tmp_path_factory.mktemp("records")
    paths = sorted(folder.rglob("*.png"))
    for kind in ("named", "nameless"):
        for file in range(3):
            examples = [
                sources_made.example(
                    image__encoded=sources_made.texts(path.read_bytes()),
                    number=sources_made.ints(number),
                    **({"image__filename": sources_made.texts(path.name.encode())} if kind == "named" else {}),
                )
                for number, path in enumerate(paths)
                if number % 3 == file
            ]
            sources_made.write_tfrecord(at / f"{kind}-{file}.tfrecord", examples)
    return at


@pytest.mark.slow
@pytest.mark.parametrize("more", [{"shards": 5, "shard_records": 10_000}, {"shuffle": 2}], ids=["shards", "shuffled"])
@pytest.mark.parametrize("kind", ["named", "nameless"])
def test_records_are_handed_out_too(records, model, tmp_path, kind, more):
    source, options = f"tfrecord:{records}/{kind}-*", {**SOME, **more}
    tfzip.export(source, model, str(tmp_path / "local"), **options)
    engine.export(source, model, str(tmp_path / "beam"), **options)
    assert same_as(tmp_path / "beam", tmp_path / "local")


@pytest.mark.slow
def test_records_without_a_plan_elsewhere_have_one_on_beam(records, model, tmp_path):
    """A local export reads them as a stream, whose shards close by the size of what is in them."""
    source = f"tfrecord:{records}/named-*"
    ours = engine.export(source, model, str(tmp_path / "beam"), **SOME)
    theirs = tfzip.export(source, model, str(tmp_path / "local"), **SOME)
    assert len(ours.manifest["shards"]) > 3
    assert tfzip.verify(ours) == []
    assert [record.filename for record in ours[:]] == [record.filename for record in theirs[:]]
    for one, other in zip(ours[:], theirs[:], strict=True):
        assert one.encoded == other.encoded
        assert one.prediction.label == other.prediction.label
        np.testing.assert_allclose(one.prediction.scores, other.prediction.scores, atol=1e-6)
    assert ours.failures == theirs.failures
    begun(source, model, tmp_path / "out", [0], engine="beam", **SOME)
    with pytest.raises(OutputExistsError, match="the source's plan was beam"):
        tfzip.export(source, model, str(tmp_path / "out"), **SOME)


@pytest.mark.slow
@pytest.mark.parametrize("split", [None, "test[10%:90%]"], ids=["all", "part"])
def test_ranges_of_tfds_are_handed_out(digits, model, tmp_path, split):
    made = sources_made.tfds(sources_made.pictures_of(digits, tmp_path / "in", 150), tmp_path)
    options = {**SOME, "source_split": split, "limit": 110}
    theirs = tfzip.export(made.source(), model, str(tmp_path / "local"), **options)
    work = begun(made.source(), model, tmp_path / "beam", [1], engine="beam", **options)
    kept = inodes(work)
    ours = engine.export(made.source(), model, str(tmp_path / "beam"), **options)
    assert kept == {1: published(tmp_path / "beam")[1]}
    assert len(ours.manifest["shards"]) == 4
    assert len({record.prediction.label for record in ours[:]}) > 5
    assert tfzip.verify(ours) == []
    for one, other in zip(ours[:], theirs[:], strict=True):
        assert (one.filename, one.encoded, one.truth) == (other.filename, other.encoded, other.truth)
        np.testing.assert_allclose(one.prediction.scores, other.prediction.scores, atol=1e-6)
    ids = [example["image/source_id"].numpy() for example in ours.dataset()]
    assert ids == [str(number).encode() for number in range(110)]
    with pytest.raises(UsageError, match="--shuffle"):
        engine.export(made.source(), model, str(tmp_path / "other"), shuffle=1, **options)


@pytest.mark.slow
def test_names_that_come_twice_in_different_shards_are_told(records, model, tmp_path):
    broken = sources_made.example(
        image__encoded=sources_made.texts(b"no image"), image__filename=sources_made.texts(b"x")
    )
    (tmp_path / "in").mkdir()
    for path in records.glob("named-*"):
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    good = next(iter(tf.data.TFRecordDataset([str(records / "named-0.tfrecord")]))).numpy()
    sources_made.write_tfrecord(tmp_path / "in" / "z.tfrecord", [broken, good])
    source = f"tfrecord:{tmp_path / 'in'}/*"
    with pytest.raises(DataError, match=r"named-0\.tfrecord.*z\.tfrecord both.*--engine local"):
        engine.export(source, model, str(tmp_path / "out"), **SOME)
    assert len(inodes(tmp_path / "out" / ".tfzip")) > 3
    export = tfzip.export(source, model, str(tmp_path / "out"), overwrite=True, **SOME)
    assert [failure.error for failure in export.failures if "has the name of" in failure.error]


@pytest.mark.slow
def test_it_is_a_part_of_a_pipeline(folder, model, local, tmp_path):
    from apache_beam.testing.util import assert_that, equal_to

    out = str(tmp_path / "out")
    for _ in range(2):  # what is finished stays as it is, were the pipeline run again
        with beam.Pipeline(runner="FnApiRunner") as pipeline:
            made = pipeline | engine.WriteExport(str(folder), model, out, **KINDS["flat"], overwrite=True)
            assert_that(made | beam.Map(lambda path: len(tfzip.open(path))), equal_to([150]))
        assert same_as(tmp_path / "out", local("flat"))


@pytest.mark.slow
def test_the_last_step_of_a_pipeline_may_be_done_twice(folder, model, local, tmp_path):
    settings = Options(**KINDS["flat"])
    layout = Layout(str(tmp_path / "out"), settings.layout, settings.name, settings.split, settings.compression)
    with layout.claimed():
        planned = spread.begin(layout, settings, open_source(str(folder), settings), model)
    for shard in planned.left:
        worker.do(planned.task, shard)
    ran = {"started": 1.0, "before": 0, "engine": "beam"}
    for _ in range(2):
        assert spread.end_elsewhere(planned.task, ran) == str(tmp_path / "out")
    assert same_as(tmp_path / "out", local("flat"))


@pytest.mark.slow
def test_the_command_line_takes_runner_options_after_two_dashes(folder, model, local, tmp_path, capsys):
    options = ["--batch-size", "4", "--parallel", "2", "--shard-records", "30", "--source-labels", "folder"]
    command = ["export", str(folder), "--model", model, "--out", str(tmp_path / "out"), "--engine", "beam", *options]
    assert cli.main([*command, "--", "--runner=FnApiRunner", "--direct_num_workers=1"]) == 0
    assert "by FnApiRunner: 6 shards, 150 records, 10 failures" in capsys.readouterr().out
    assert same_as(tmp_path / "out", local("flat"))
    assert cli.main([*command[:-1], "none", "--overwrite", "--", "--runner=NoSuchRunner"]) == 2
    assert "--runner=NoSuchRunner" in capsys.readouterr().err


# Stopped, and gone on with.


@pytest.mark.parametrize("kind", ["flat", pytest.param("shuffled", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "engines",
    ["beam then beam", *(pytest.param(two, marks=pytest.mark.slow) for two in ("beam then local", "local then beam"))],
)
def test_an_export_stopped_goes_on_on_either_engine(folder, model, local, tmp_path, engines, kind):
    out, (first, _, then) = tmp_path / "out", engines.split()
    if first == "beam":
        kept = inodes(begun(folder, model, out, [0, 1, 3], **KINDS[kind]))
        assert kept.keys() == {0, 1, 3}
    else:
        process = killed.begun(str(folder), model, out, {k: v for k, v in KINDS[kind].items() if k != "quiet"})
        while killed.finished(out) < 2:
            assert process.is_alive()
        process.kill()
        process.join()
        kept = inodes(out / ".tfzip")
    (engine.export if then == "beam" else tfzip.export)(str(folder), model, str(out), **KINDS[kind])
    whole = published(out)
    first_ones = kept if then == "beam" else {0, 1}  # one process alone goes on after the first shards without a gap
    assert [shard for shard in first_ones if whole[shard] != kept[shard]] == []
    assert same_as(out, local(kind))


@pytest.mark.slow
def test_one_process_that_fails_leaves_what_workers_finished(folder, model, local, tmp_path):
    out, options = tmp_path / "out", KINDS["flat"]
    kept = inodes(begun(folder, model, out, [1, 3], **options))
    assert kept.keys() == {1, 3}
    with pytest.raises(DataError, match="goes on after what is finished"):
        tfzip.export(str(folder), model, str(out), on_error="fail", **options)
    assert kept.items() <= inodes(out / ".tfzip").items()
    engine.export(str(folder), model, str(out), **options)
    assert {number: published(out)[number] for number in kept} == kept
    assert same_as(out, local("flat"))


@pytest.mark.slow
def test_images_that_changed_or_vanished_meanwhile_fail_on_beam_too(folder, model, tmp_path):
    outs = {}
    for then in ("local", "beam"):
        some = beam_made.copied(folder, tmp_path / then / "in")
        outs[then] = tmp_path / then / "out"
        begun(some, model, outs[then], [0], **KINDS["flat"])
        changed, gone = sorted(some.rglob("????.png"))[-2:]
        changed.write_bytes(changed.read_bytes() + b"more")
        gone.unlink()
        (some / "0" / "new.png").write_bytes((some / "0" / "0000.png").read_bytes())
        export = (engine.export if then == "beam" else tfzip.export)(str(some), model, str(outs[then]), **KINDS["flat"])
        reasons = {failure.filename: failure.error for failure in export.failures}
        assert reasons[f"9/{changed.name}"] == "it changed since the export was begun"
        assert reasons[f"9/{gone.name}"] == "it vanished since the export was begun"
        assert "0/new.png" not in export
    assert same_as(outs["beam"], outs["local"])


@pytest.mark.slow
def test_another_plan_is_refused_and_told(folder, model, tmp_path):
    kept = inodes(begun(folder, model, tmp_path / "out", [0], **KINDS["flat"]))
    with pytest.raises(OutputExistsError, match=r"--shuffle was not given, is 3"):
        engine.export(str(folder), model, str(tmp_path / "out"), **{**KINDS["flat"], "shuffle": 3})
    with pytest.raises(UsageError, match=r"--runner=NoSuchRunner"):
        engine.export(
            str(folder), model, str(tmp_path / "out"), runner_options=["--runner=NoSuchRunner"], **KINDS["flat"]
        )
    assert inodes(tmp_path / "out" / ".tfzip") == kept != {}
    export = engine.export(str(folder), model, str(tmp_path / "out"), **KINDS["flat"], overwrite=True)
    assert export.manifest["shuffle"] is None
    with pytest.raises(OutputExistsError, match="finished export"):
        engine.export(str(folder), model, str(tmp_path / "out"), **KINDS["flat"])


# Workers.


@pytest.mark.slow
def test_attempts_side_by_side_and_again_do_no_harm(folder, model, local, tmp_path):
    settings = Options(**KINDS["flat"])
    layout = Layout(str(tmp_path / "out"), settings.layout, settings.name, settings.split, settings.compression)
    with layout.claimed():
        planned = spread.begin(layout, settings, open_source(str(folder), settings), model)
        work, did = tmp_path / "out" / ".tfzip", []
        for shard in planned.left:
            attempts = [
                threading.Thread(target=lambda shard=shard: did.append(worker.do(planned.task, shard))) for _ in "ab"
            ]
            for attempt in attempts:
                attempt.start()
            for attempt in attempts:
                attempt.join()
        before = inodes(work)
        assert len(did) == 12
        assert all(worker.do(planned.task, shard).milliseconds == 0 for shard in planned.left)
        assert inodes(work) == before
        assert not [path for path in work.iterdir() if len(path.name) > 32]  # names of attempts
        spread.end(planned, {"started": 0.0, "before": 0})
    assert same_as(tmp_path / "out", local("flat"))


@pytest.mark.slow
def test_a_worker_with_another_model_stops_the_export_and_spoils_nothing(folder, model, local, tmp_path, digits_model):
    mine = tmp_path / "model.keras"
    mine.write_bytes(Path(model).read_bytes())
    options = {**KINDS["flat"]}
    layout = Layout(str(tmp_path / "out"), "flat", "images", "train", "gzip")
    with layout.claimed():
        planned = spread.begin(layout, Options(**options), open_source(str(folder), Options(**options)), str(mine))
        worker.do(planned.task, 2)
        other = tf.keras.models.clone_model(digits_model)
        other.save(mine)
        worker._Worker.kept = None  # as in another process
        assert worker.do(planned.task, 3).records == 0
        with pytest.raises(TfzipError, match="the model changed") as told:
            spread.end(planned, {"started": 0.0, "before": 0})
        assert not isinstance(told.value, UsageError)
    assert inodes(tmp_path / "out" / ".tfzip").keys() == {2}
    mine.write_bytes(Path(model).read_bytes())
    engine.export(str(folder), str(mine), str(tmp_path / "out"), **options)
    expected = tfzip.open(local("flat"))
    assert tfzip.open(tmp_path / "out").manifest["shards"] == expected.manifest["shards"]


@pytest.mark.slow
def test_a_worker_of_an_export_that_is_no_more_spoils_nothing(folder, model, local, tmp_path):
    settings = Options(**KINDS["flat"])
    layout = Layout(str(tmp_path / "out"), "flat", "images", "train", "gzip")
    with layout.claimed():
        old = spread.begin(layout, settings, open_source(str(folder), settings), model)
        worker.do(old.task, 0)
        layout.clear()
        new = spread.begin(layout, settings, open_source(str(folder), settings), model)
        with pytest.raises(TfzipError, match="another export has been begun there"):
            worker.do(old.task, 1)
        assert inodes(tmp_path / "out" / ".tfzip") == {}
        for shard in new.left:
            assert worker.do(new.task, shard).records > 0
        spread.end(new, {"started": 0.0, "before": 0})
    assert same_as(tmp_path / "out", local("flat"))


# What is not to be.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"), [(DataError, {"on_error": "fail"}), (TooManyFailuresError, {"max_failures": 1})]
)
def test_too_many_failures_end_it_as_they_do_locally(folder, model, tmp_path, kind, more):
    for name, export in (("local", tfzip.export), ("beam", engine.export)):
        with pytest.raises(kind, match=f"--{next(iter(more))}".replace("_", "-")):
            export(str(folder), model, str(tmp_path / name), **SOME, **more)
        assert not (tmp_path / name / "index.zip").exists()


class Counting(tf.Module):
    """A model that says how many images it has seen."""

    def __init__(self):
        self.seen = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 1], tf.float32)])
    def __call__(self, images):
        self.seen.assign_add(1.0)
        return tf.reduce_mean(images, [1, 2]) + self.seen


def test_what_cannot_be_handed_out_is_refused_with_the_reason(folder, model, digits_model, tmp_path):
    with tarfile.open(tmp_path / "images.tar.gz", "w:gz") as tar:
        tar.add(folder, "in")
    with tarfile.open(tmp_path / "images.tar", "w") as tar:
        tar.add(folder, "in")
    tf.saved_model.save(Counting(), str(tmp_path / "counting"))
    np.save(tmp_path / "scores.npy", np.zeros((160, 10), np.float32))
    source, out = str(folder), str(tmp_path / "out")
    refused = [
        (SourceError, "use --engine local", (str(tmp_path / "images.tar.gz"), model, out), {}),
        (SourceError, "use --engine local", (str(tmp_path / "images.tar"), model, out), {}),
        (SourceError, "give the path", ([("a.png", b"")], model, out), {}),
        (ModelError, "save it, and give its path", (source, digits_model, out), {}),
        (ModelError, "save it, and give its path", (source, lambda images: images, out), {}),
        (UsageError, "--predictions.*local", (source, None, out), {"predictions": str(tmp_path / "scores.npy")}),
        (UsageError, "package.module:function", (source, model, out), {"preprocess": lambda images: images}),
        (ModelError, "keeps state.*local", (source, str(tmp_path / "counting"), out), {"scale": "raw", "task": "raw"}),
    ]
    for kind, message, arguments, options in refused:
        with pytest.raises(kind, match=message):
            engine.export(*arguments, quiet=True, **options)
        assert not os.path.exists(out)
    with pytest.raises(UsageError, match=r"tfzip\.interop\.beam\.export"):
        tfzip.export(source, model, out, engine="beam")


def test_without_beam_the_pip_command_is_named(folder, model, tmp_path):
    code = "import sys, tfzip.cli; sys.modules['apache_beam'] = None\n"
    code += f"sys.exit(tfzip.cli.main(['export', {str(folder)!r}, '--model', {model!r}, '--engine', 'beam', "
    code += f"'--out', {str(tmp_path / 'out')!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'tfzip[beam]'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_compute_with_what_was_chosen(folder, model, tmp_path, monkeypatch):
    """TensorFlow Lite, which a worker that is not where the export was planned sets up by itself."""
    options = {**KINDS["flat"], "runtime": "lite"}
    tfzip.export(str(folder), model, str(tmp_path / "local"), **options)
    monkeypatch.setattr(worker, "at_hand", lambda *_: contextlib.nullcontext())
    export = engine.export(str(folder), model, str(tmp_path / "beam"), **options)
    assert export.manifest["model"]["lite"]
    assert same_as(tmp_path / "beam", tmp_path / "local")
