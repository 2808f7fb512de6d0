"""Everything on another file system than the disk: TensorFlow's `ram://`, which lives in this process."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf
from sources_made import SOURCES, pictures_of, write_tar

import tfzip
from tfzip import cli, storage

COUNT = 14
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def few(digits, tmp_path_factory):
    return pictures_of(digits, tmp_path_factory.mktemp("few") / "in", COUNT)


@pytest.fixture
def ram():
    """A folder there; none has a name with which another begins: ram:// takes that for inside."""
    return f"ram://elsewhere-{next(NUMBERS):04d}"


def put(path, content):
    storage.makedirs(path.rpartition("/")[0])
    with storage.open(path, "wb") as file:
        file.write(content)
    return path


def lift(local, remote, places=()):
    """Copy a folder there; lists and tables in it name the places there."""
    for path in local.rglob("*"):
        if path.is_file():
            listing = path.suffix in (".txt", ".csv", ".jsonl")
            content = moved(path.read_text(), places).encode() if listing else path.read_bytes()
            put(f"{remote}/{path.relative_to(local).as_posix()}", content)
    return remote


def moved(value, places):
    for local, remote in dict(places).items():
        value = value.replace(local, remote) if isinstance(value, str) else value
    return value


def bytes_of(out):
    """Every file of an export but run.json, from wherever it lies."""
    if storage.is_local(out):
        paths = [f"{folder}/{name}" for folder, _, names in tf.io.gfile.walk(out) for name in names]
    else:
        paths = list(storage.walk(out))
    return {path.removeprefix(out): tf.io.read_file(path).numpy() for path in paths if not path.endswith("run.json")}


QUICK = ["folder", "csv", "tar.gz", "export"]
SLOW = ["glob", "list", "list of absolute paths", "jsonl", "tar", "several tars", "zip, stored", "zip, deflated"]
SLOW += ["webdataset", "webdataset, compressed", "tfrecord", "tfrecord, compressed", "tfrecord, several files"]
SLOW += ["tfrecord, shuffled", "export, uncompressed"]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_source_elsewhere_exported_to_elsewhere_gives_the_same_bytes(digits, digits_model, tmp_path, ram, name):
    below = tmp_path / "source"
    below.mkdir()
    case = SOURCES[name](pictures_of(digits, tmp_path / "in", COUNT), below)
    options = {"shard_records": 6, "batch_size": 4, **case.options}
    tfzip.export(case.source(), digits_model, str(tmp_path / "out"), quiet=True, **options)

    places = {str(below): f"{ram}/source", str(tmp_path / "in"): f"{ram}/in"}
    lift(below, f"{ram}/source", places)
    lift(tmp_path / "in", f"{ram}/in", places)
    source = moved(case.source(), places)
    options = {key: moved(value, places) for key, value in options.items()}
    export = tfzip.export(source, digits_model, f"{ram}/out", quiet=True, **options)

    assert tfzip.verify(export) == []
    assert len(export) == COUNT
    assert bytes_of(f"{ram}/out") == bytes_of(str(tmp_path / "out"))
    assert len(bytes_of(f"{ram}/out")) >= 3


# An export there is read like any other.


@pytest.fixture(scope="module")
def both(few, digits_model, tmp_path_factory):
    """The same export here and there."""
    folder, ram = tmp_path_factory.mktemp("both"), f"ram://elsewhere-{next(NUMBERS):04d}"
    lift(few.folder, f"{ram}/in")
    options = {"quiet": True, "shards": 2, "source_labels": "folder"}
    here = tfzip.export(str(few.folder), digits_model, str(folder / "out"), **options)
    return here, tfzip.export(f"{ram}/in", digits_model, f"{ram}/out", **options), ram


def test_an_export_elsewhere_is_read_like_one_here(both, few):
    here, there, _ = both
    with tfzip.open(there.path) as export:
        assert repr(export[:]) == repr(here[:])
        assert export[few.names[3]].encoded == few.encoded[3]
        assert few.names[5] in export
        assert "nothing" not in export
        assert export.manifest == here.manifest
        for name, column in here.metadata.items():
            np.testing.assert_array_equal(export.metadata[name], column)
        for one, other in zip(export, here, strict=True):
            np.testing.assert_array_equal(one[0], other[0])
            np.testing.assert_array_equal(one[2], other[2])
        assert sum(len(batch["image/filename"]) for batch in export.dataset(4)) == COUNT
        assert export.run["tfzip"] == tfzip.__version__
        assert tfzip.verify(export) == []


def test_every_command_works_there(both, few, digits_files, tmp_path, capsys):
    _, there, ram = both
    out, image = there.path, f"{ram}/one.png"
    assert cli.main(["inspect", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["records"] == COUNT
    assert cli.main(["verify", out]) == 0
    assert cli.main(["get", out, few.names[2], "--image", image]) == 0
    assert tf.io.read_file(image).numpy() == few.encoded[2]
    for to in (f"{ram}/images", str(tmp_path / "images")):
        assert cli.main(["extract", out, "--to", to]) == 0
        assert [tf.io.read_file(f"{to}/{name}").numpy() for name in few.names] == few.encoded
        assert tf.io.gfile.exists(f"{to}/metadata.csv")
    again = ["export", f"{ram}/in", "--model", digits_files["keras"], "--out", f"{ram}/again", "--quiet"]
    assert cli.main(again) == 0
    assert cli.main(["verify", f"{ram}/again", "--deep", "--model", digits_files["keras"]]) == 0


# What else an export is given.


@pytest.fixture(scope="module")
def given(both, digits_model, tmp_path_factory):
    """Models, names and predictions, there."""
    folder, ram = tmp_path_factory.mktemp("given"), both[2]
    digits_model.save(folder / "digits.h5")
    digits_model.save(folder / "digits.keras")
    digits_model.export(folder / "saved", verbose=False)
    (folder / "names.txt").write_text("\n".join(f"no. {i}" for i in range(10)))
    np.save(folder / "scores.npy", [record.prediction.scores for record in both[0][:]])
    rows = [f"{record.filename},{record.prediction.label}" for record in both[0][:]]
    (folder / "labels.csv").write_text("\n".join(["filename,label", *rows]))
    return lift(folder, f"{ram}/given")


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("digits.keras", {"layout": "tfx", "split": "eval"}),
        ("digits.h5", {"compression": "none"}),
        pytest.param("saved", {"labels": "names.txt", "image": "none"}, marks=pytest.mark.slow),
        pytest.param(None, {"predictions": "scores.npy"}, marks=pytest.mark.slow),
        (None, {"predictions": "labels.csv"}),
    ],
)
def test_models_names_and_predictions_may_lie_there(both, given, few, ram, model, options):
    here, _, source = both
    options = {key: f"{given}/{value}" if "." in value else value for key, value in options.items()}
    model = model and f"{given}/{model}"
    export = tfzip.export(f"{source}/in", model, f"{ram}/out", quiet=True, **options)
    assert [record.filename for record in export[:]] == few.names
    assert [record.prediction.label for record in export[:]] == [record.prediction.label for record in here[:]]
    assert tfzip.verify(export) == []
    if "labels" in options:
        assert export[0].prediction.text == f"no. {export[0].prediction.label}"
    if "layout" in options:
        assert storage.listdir(f"{ram}/out") == ["Split-eval", "tfzip-eval"]


def test_what_an_export_there_holds_is_skipped_and_it_is_replaced_only_when_asked(both, digits_model, few, ram):
    source = f"{both[2]}/in"
    tfzip.export(source, digits_model, f"{ram}/out", quiet=True, limit=5)
    rest = tfzip.export(source, digits_model, f"{ram}/rest", quiet=True, skip_in=f"{ram}/out")
    assert [record.filename for record in rest[:]] == few.names[5:]
    with pytest.raises(tfzip.OutputExistsError, match="--overwrite"):
        tfzip.export(source, digits_model, f"{ram}/out", quiet=True)
    whole = tfzip.export(source, digits_model, f"{ram}/out", quiet=True, overwrite=True, shards=3)
    assert len(whole) == COUNT
    assert tfzip.verify(whole) == []
    assert [name for name in storage.listdir(f"{ram}/out") if "tfrecord" not in name] == [
        "dataset_info.json", "features.json", "index.zip", "run.json"
    ]  # fmt: skip


def test_an_export_there_that_was_stopped_goes_on(digits_model, few, ram):
    pairs = [(f"{number}.png", few.encoded[number % COUNT]) for number in range(200)]

    def broken():
        yield from pairs[:150]
        raise ConnectionError("the camera is gone")

    options = {"quiet": True, "batch_size": 20, "shard_records": 40}
    tfzip.export(iter(pairs), digits_model, f"{ram}/whole", **options)
    with pytest.raises(tfzip.BrokenSourceError, match="goes on"):
        tfzip.export(broken(), digits_model, f"{ram}/out", **options)
    with pytest.raises(tfzip.NotAnExportError):
        tfzip.open(f"{ram}/out")
    tfzip.export(iter(pairs), digits_model, f"{ram}/out", **options)
    assert bytes_of(f"{ram}/out") == bytes_of(f"{ram}/whole")


def test_a_large_archive_elsewhere_is_not_held_in_memory_but_copied(few, digits_model, tmp_path, ram, monkeypatch):
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    path = write_tar(tmp_path / "x.tar", [("video.mp4", bytes(3 << 20)), *zip(few.names, few.encoded, strict=True)])
    with open(path, "rb") as file:
        put(f"{ram}/x.tar", file.read())
    copies = []

    def looking(pixels):
        copies.extend(path.stat().st_size for path in (tmp_path / "copies").iterdir())
        return digits_model(pixels, training=False)

    options = {"scale": "raw", "task": "multiclass", "scores": "probabilities", "image_size": (8, 8), "quiet": True}
    model = tf.function(looking, input_signature=[tf.TensorSpec((None, 8, 8, 1))], autograph=False)
    with tfzip.export(f"{ram}/x.tar", model, f"{ram}/out", **options | {"image_size": None}) as export:
        assert len(export) == COUNT
    assert copies == [(tmp_path / "x.tar").stat().st_size]
    del export
    assert list((tmp_path / "copies").iterdir()) == []


# Patterns there mean what they mean here.

NAMES = ["a.png", "b.jpg", ".hidden.png", "x/c.png", "x/y/d.png", "x/.z/e.png", "x/[1].png", "käse/f.png"]


@pytest.mark.parametrize(
    "pattern", ["*.png", "**/*.png", "x/**", "**/*.jpg", "*/*.png", "x/[cd].png", ".*.png", "k*se/*", "x/[1].png", "**"]
)
def test_a_pattern_there_finds_what_it_finds_here(tmp_path, pattern):
    from tfzip.options import Options
    from tfzip.sources import open_source

    for name in NAMES:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"x")
    there = lift(tmp_path, f"ram://elsewhere-{next(NUMBERS):04d}")
    here = open_source(f"{tmp_path}/{pattern}", Options())
    found = open_source(f"{there}/{pattern}", Options())
    assert found.filenames == here.filenames
    assert len(here.filenames) > 0


def test_a_list_there_may_take_detours(few, digits_model, ram):
    lift(few.folder, f"{ram}/in")
    put(f"{ram}/lists/all.txt", "\n".join(f"../nowhere/../in/./{name}" for name in few.names).encode())
    export = tfzip.export(f"{ram}/lists/all.txt", digits_model, f"{ram}/out", quiet=True)
    assert [record.filename for record in export[:]] == few.names


# What goes wrong there is told in a line, too.


@pytest.fixture(scope="module")
def spoiled(both):
    ram = f"ram://elsewhere-{next(NUMBERS):04d}"
    for name in ("bad.tar", "bad.zip", "bad.tar.gz", "bad.tfrecord", "bad.npy", "bad.keras", "bad.h5", "notes/a.txt"):
        put(f"{ram}/{name}", b"\x1f\x8b no such thing" * 9)
    put(f"{ram}/list.txt", b"gone.png\n")
    for out in ("cut index", "no shard", "cut shard"):
        for name, content in bytes_of(both[1].path).items():
            if out == "cut " + ("shard" if "00000-of" in name else "index" if "index" in name else ""):
                content = content[:-40]
            if out != "no shard" or "00000-of" not in name:
                put(f"{ram}/{out}{name}", content)
    return ram


WRONG = {
    # what is called with R for the folder there, the exit code, what is said
    "no folder": ("export R/none", 2, ["R/none: no such"]),
    "no match": ("export R/*.gif", 2, ["R/*.gif: no images"]),
    "no list": ("export R/none/list.txt", 2, ["R/none/list.txt: no such"]),
    "no archive": ("export R/none.tar", 2, ["R/none.tar: no such"]),
    "no TFRecord": ("export tfrecord:R/none*", 2, ["tfrecord:R/none*: no such"]),
    "no images": ("export R/notes", 2, ["R/notes: no images"]),
    "nothing of a list": ("export R/list.txt", 1, ["R/list.txt", "gone.png: read", "No such file"]),
    "a bad tar": ("export R/bad.tar", 1, ["R/bad.tar", "damaged or cut short"]),
    "a bad tar.gz": ("export R/bad.tar.gz", 1, ["R/bad.tar.gz", "damaged or cut short"]),
    "a bad zip": ("export R/bad.zip", 1, ["R/bad.zip", "damaged or cut short"]),
    "a bad TFRecord": ("export tfrecord:R/bad.tfrecord", 1, ["R/bad.tfrecord", "damaged or cut short"]),
    "no model": ("export I --model R/none.keras", 2, ["R/none.keras: no such model"]),
    "a bad model": ("export I --model R/bad.keras", 2, ["R/bad.keras: Keras cannot load it"]),
    "a bad old model": ("export I --model R/bad.h5", 2, ["R/bad.h5: Keras cannot load it"]),
    "no labels": ("export I --labels R/none.txt", 2, ["R/none.txt: cannot read labels"]),
    "a bad array": ("export I --predictions R/bad.npy", 2, ["R/bad.npy: not a .npy"]),
    "no predictions": ("export I --predictions R/none.csv", 2, ["R/none.csv: no such file"]),
    "nothing to skip": ("export I --skip-in R/none", 2, ["R/none: no such folder"]),
    "an export without a shard": ("export R/no%20shard", 1, ["R/no shard", "No such file"]),
    "an export cut short": ("export R/cut%20shard", 1, ["R/cut shard"]),
    "an OUT in use": ("export I --out R/notes", 2, ["R/notes is not empty"]),
    "an OUT that is a file": ("export I --out R/list.txt", 2, ["R/list.txt is a file"]),
    "an unknown source": ("export nowhere://a/b", 2, ["nowhere://a/b: TensorFlow reaches no nowhere://"]),
    "an unknown OUT": ("export I --out nowhere://a", 2, ["nowhere://a: TensorFlow reaches no nowhere://"]),
    "no export": ("inspect R/none", 2, ["R/none: no such folder"]),
    "no index": ("inspect R/notes", 2, ["R/notes does not hold a finished export"]),
    "a cut index": ("inspect R/cut%20index", 1, ["R/cut index/index.zip", "damaged"]),
    "a shard that is gone": ("verify R/no%20shard", 1, ["00000-of-00002.gz", "No such file"]),
    "a shard cut short": ("verify R/cut%20shard", 1, ["00000-of-00002.gz: "]),
    "a record that is gone": ("get R/no%20shard 0/0000.png", 1, ["R/no shard", "No such file"]),
    "an image where none can be": ("get O 0/0000.png --image R/notes", 2, ["--image R/notes: cannot write there"]),
    "images where some are": ("extract O --to R/notes", 2, ["'R/notes' is no empty folder"]),
    "images that are gone": ("extract R/no%20shard --to R/to", 1, ["R/no shard", "No such file"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_there_is_told_in_a_line_that_names_it(spoiled, both, digits_files, capsys, name):
    call, code, words = WRONG[name]
    places = {"I": f"{both[2]}/in", "O": both[1].path}
    arguments = [places.get(word, word).replace("R/", spoiled + "/").replace("%20", " ") for word in call.split()]
    if arguments[0] == "export":
        given = {"--model": digits_files["keras"], "--out": f"{spoiled}/new"}
        arguments += [w for flag, value in given.items() for w in (flag, value) if flag not in arguments]
        if "--predictions" in arguments:
            del arguments[(place := arguments.index("--model")) : place + 2]
    assert cli.main(arguments) == code
    shown = capsys.readouterr()
    told = shown.err if shown.err else shown.out
    for word in words:
        assert word.replace("R/", spoiled + "/") in told
    assert len(told.splitlines()) <= (4 if call.startswith("verify") else 2)
    assert not storage.exists(f"{spoiled}/new")
