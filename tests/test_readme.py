"""What the README tells people to type works as it stands, on a folder like theirs."""

import re
import shlex
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import killed
import numpy as np
import pytest
import tensorflow as tf

import tfzip
from tfzip import cli

ROOT = Path(tfzip.__file__).parents[1]
# Keras says the one of every `tf.data.Dataset`, the other where it cannot tell the length.
AS_USUAL = pytest.mark.filterwarnings("ignore:.shuffle=True. was passed", "ignore:Your input ran out of data")


@pytest.fixture(scope="module")
def text():
    path = ROOT / "README.md"
    if not path.exists():
        pytest.skip("the README is in a checkout only")
    return path.read_text()


def script(text):
    """The `train.py` that it shows."""
    (found,) = (piece for piece in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "sys.argv" in piece)
    return found


@AS_USUAL
def test_every_command_works(text, folder, capsys, monkeypatch):
    commands = re.findall(r"^    python (-m tfzip .*?|train.py .*?)(?:  +#.*)?$", text, re.MULTILINE)
    assert [shlex.split(command.removeprefix("-m "))[:2][-1] for command in commands] == [
        "export", "inspect", "report", "get", "verify", "verify", "extract", "export", "diff",
        "select", "pseudo/", "export", "export",
    ]  # fmt: skip
    for command in commands:
        if "scores.npy" in command:
            np.save("scores.npy", [record.prediction.scores for record in tfzip.open("labelled/")[:]])
        if command.startswith("train.py"):
            monkeypatch.setattr(sys, "argv", shlex.split(command))
            exec(script(text), student := {})
            assert student["model"].optimizer.iterations > 0  # Keras takes a dataset of nothing
            continue
        assert cli.main(shlex.split(command)[2:]) == 0, capsys.readouterr().err
    rounds = [tfzip.open(out) for out in ("labelled/", "pseudo/", "round2/")]
    assert len(rounds[0]) == len(rounds[2]) >= len(rounds[1]) > 0
    assert rounds[2].manifest["model"]["name"] == "student.keras"
    scores = {record.filename: record.prediction.scores.tolist() for record in tfzip.open("labelled/")[:]}
    assert {record.filename: record.prediction.scores.tolist() for record in tfzip.open("joined/")[:]} == scores
    assert (folder / "cat.jpg").read_bytes() == (folder / "photos/cats/1.jpg").read_bytes()
    assert (folder / "images/dogs/3.jpg").read_bytes() == (folder / "photos/dogs/3.jpg").read_bytes()


@AS_USUAL
@pytest.mark.usefixtures("folder")
def test_every_piece_of_python_works(text, photographs_model):
    pieces = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    pieces.remove(script(text))  # which the commands run
    pieces = [piece for piece in pieces if not re.search(r"tfzip\.interop", piece)]  # which their own tests run
    assert len(pieces) == 6
    paths = sorted(Path("photos").rglob("*.jpg"))
    size = photographs_model.input_shape[1:3]
    images = np.stack([tf.image.resize(tf.io.decode_jpeg(path.read_bytes()), size) for path in paths]).astype(np.uint8)
    names = {"model": photographs_model, "tf": tf, "images": images, "paths": paths}
    names["filenames"] = [path.relative_to("photos").as_posix() for path in paths]
    names["labelled"] = tf.data.Dataset.from_tensor_slices((images.astype(np.float32), np.zeros(len(images), np.int64)))
    names["student"] = tf.keras.models.clone_model(photographs_model)
    names["student"].compile("sgd", "sparse_categorical_crossentropy")
    assert pieces[2].startswith("predictions =")
    for piece in (pieces[0], pieces[1], pieces[5]):
        exec(piece, names)
    assert len(names["export"]) == 24
    assert names["problems"] == []
    assert names["record"].filename == "cats/1.jpg"
    assert names["confident"].shape == (24,)
    assert sum(len(batch["image/filename"]) for batch in names["export"].dataset(batch_size=64)) == 24
    assert len(list(names["dataset"])) == 24
    assert len(names["chosen"]) == names["pseudo"].cardinality() > 0
    assert not np.array_equal(names["student"].get_weights()[0], photographs_model.get_weights()[0])
    assert isinstance(names["image"], np.ndarray)
    for piece, out in zip(pieces[2:5], ("all/", "metadata/", "batches/"), strict=True):
        exec(piece, names)
        scores = {record.filename: record.prediction.scores for record in tfzip.open(out)[:]}
        assert scores.keys() == set(names["filenames"])
        wanted = photographs_model.predict(images, verbose=0)
        np.testing.assert_allclose([scores[name] for name in names["filenames"]], wanted, atol=1e-5)
    assert not (set(tfzip.open("metadata/").features) & {"image/encoded"})


def beyond(text):
    """What it says of Beam."""
    return text.partition("## Beyond one machine")[2].partition("\n## ")[0]


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_commands_for_beam_work_on_a_cluster_of_dask_too(text):
    pytest.importorskip("apache_beam")
    pytest.importorskip("distributed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    commands = [line.strip().replace("8786", port) for line in re.findall(r"^    (.*)$", beyond(text), re.MULTILINE)]
    commands = [shlex.split(line) for line in commands if line.startswith(("tfzip ", "dask "))]
    assert [command[1] for command in commands] == ["export", "export", "scheduler", "worker", "export"]
    running = []
    try:
        for name, *arguments in commands:
            command = [sys.executable, "-m", name, *arguments]
            if name == "dask":
                running.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
            else:
                subprocess.run(command, check=True, timeout=300)
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
    outs = [Path(name) for name in ("here", "two", "cluster")]
    assert [tfzip.open(out).run["runner"] for out in outs] == ["FnApiRunner", "FnApiRunner", "DaskRunner"]
    assert len(tfzip.open("here")) == 24
    assert killed.contents(outs[0]) == killed.contents(outs[1]) == killed.contents(outs[2])


@pytest.mark.slow
@pytest.mark.usefixtures("folder")
def test_the_python_for_beam_works(text, capsys):
    pytest.importorskip("apache_beam")
    (piece,) = re.findall(r"```python\n(.*?)```", beyond(text), re.DOTALL)
    exec(piece, names := {})
    assert len(names["export"]) == 24
    assert capsys.readouterr().out.endswith("/piped\n")
    assert killed.contents(Path("piped")).keys() == killed.contents(Path("beamed")).keys()


RUNNERS = (
    "--runner --direct --dask --flink --spark --environment --project --region --temp --sdk --host --port --nworkers"
)
"""Options of Beam and Dask: those that follow `--`, and of Dask's own commands."""


def test_every_option_it_names_exists(text):
    command = [sys.executable, "-m", "tfzip"]
    helps = [
        subprocess.check_output([*command, name, "--help"], text=True)
        for name in ("export", "select", "report", "demo")
    ]
    tests = (ROOT / "scripts" / "test").read_text()
    known = " ".join([cli.parser().format_help(), *helps, tests, "--image --json --to --deep --nthreads", RUNNERS])
    for option in set(re.findall(r"(--[a-z][a-z-]+)", text)):
        assert option in known, option


def test_a_wheel_holds_the_package_and_its_schemas(tmp_path):
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("only a checkout can be built")
    pip = [sys.executable, "-m", "pip"]
    if subprocess.run([*pip, "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this environment has no pip")
    build = [*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("tfzip-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "tfzip/schemas/manifest.schema.json",
        "tfzip/schemas/metadata.schema.json",
        *(
            f"tfzip/page/{name}"
            for name in ("report.html", "report.css", "report.js", "chartist.umd.js", "chartist.LICENSE")
        ),
        "tfzip/sources/folder.py",
    } <= names
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tfzip").rglob("*.py")}
    assert modules <= names
    assert not {name for name in names if name.startswith(("tests", "scripts", "build"))}
