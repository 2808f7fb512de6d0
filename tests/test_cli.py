"""The command line as a person uses it: real processes where the start matters, the same code in this one elsewhere."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import tfzip
from tfzip import cli, demo


@pytest.fixture(scope="module")
def out(digits, digits_files, tmp_path_factory):
    """An export made by the command line itself, in a process of its own."""
    folder = tmp_path_factory.mktemp("cli") / "out"
    command = ["export", str(digits[0]), "--model", digits_files["keras"], "--out", str(folder)]
    done = run(*command, "--source-labels", "folder", "--shards", "2")
    assert done.returncode == 0, done.stderr
    assert "1797 records in 2 shards" in done.stdout
    assert re.search(rf"^next: \S*python\S* -m tfzip inspect {folder}$", done.stdout, re.MULTILINE)
    assert "Traceback" not in done.stderr
    return folder


def run(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "tfzip", *arguments], capture_output=True, text=True, **more)


def test_inspect_shows_counts_classes_confidence_shards_and_features(out, capsys):
    assert cli.main(["inspect", str(out)]) == 0
    shown = capsys.readouterr().out
    for text in ("1797 of 1797", "digits.keras", "10 classes", "0.9-1.0", "00001-of-00002.gz", "prediction/scores"):
        assert text in shown
    assert all(line == line.rstrip() for line in shown.splitlines())


def test_inspect_for_programs_is_json_that_agrees_with_the_index(out, capsys):
    assert cli.main(["inspect", str(out), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    with tfzip.open(str(out)) as export:
        assert {c["label"]: c["records"] for c in facts["classes"]} == {
            label: int(np.sum(export.metadata["label"] == label)) for label in range(10)
        }
        assert facts["confidence_quartiles"][-1] == pytest.approx(float(export.metadata["confidence"].max()))
    assert facts["counts"]["records"] == 1797


def test_verify_says_that_all_is_right_and_what_is_not(out, tmp_path, capsys):
    import shutil

    assert cli.main(["verify", str(out)]) == 0
    assert "1797 records in 2 shards" in capsys.readouterr().out
    shutil.copytree(out, tmp_path / "copy")
    shard = tmp_path / "copy" / "images-train.tfrecord-00001-of-00002.gz"
    shard.write_bytes(shard.read_bytes()[:-7])
    assert cli.main(["verify", str(tmp_path / "copy")]) == 1
    assert "00001-of-00002.gz" in capsys.readouterr().out


def test_get_shows_a_record_and_gives_its_image(out, digits, tmp_path, capsysbinary):
    image = tmp_path / "digit.png"
    assert cli.main(["get", str(out), "7/0007.png", "--image", str(image)]) == 0
    facts = json.loads(capsysbinary.readouterr().out)
    assert facts["filename"] == "7/0007.png"
    assert facts["truth"] == {"label": 7, "text": "7"}
    assert facts["prediction"]["label"] == int(np.argmax(facts["prediction"]["scores"]))
    assert image.read_bytes() == (digits[0] / "7/0007.png").read_bytes()
    assert cli.main(["get", str(out), "7/0007.png", "--image", "-"]) == 0
    assert capsysbinary.readouterr().out == image.read_bytes()


def test_extract_gives_every_image_back(out, digits, tmp_path, capsys):
    assert cli.main(["extract", str(out), "--to", str(tmp_path / "to")]) == 0
    assert "1797 images" in capsys.readouterr().out
    for path in digits[0].rglob("*.png"):
        assert (tmp_path / "to" / path.relative_to(digits[0])).read_bytes() == path.read_bytes()
    assert (tmp_path / "to" / "metadata.csv").read_text().startswith("filename,prediction,")
    assert cli.main(["extract", str(out), "--to", str(tmp_path / "to")]) == 2
    assert "no empty folder" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_goes_in_and_out_through_the_command_line(digits, digits_files, tmp_path):
    folder = os.fsencode(tmp_path / "in")
    os.mkdir(folder)
    content = (digits[0] / "0/0000.png").read_bytes()
    with open(os.path.join(folder, b"caf\xe9.png"), "wb") as file:
        file.write(content)
    done = run("export", "in", "--model", digits_files["keras"], "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in (b"caf\xe9.png", b"caf%E9.png"):
        command = [sys.executable, "-m", "tfzip", "get", "out", name, "--image", "-"]
        assert subprocess.run(command, capture_output=True, cwd=tmp_path, check=True).stdout == content


D = "export D --model M.keras --out new"

BAD = {
    "no such folder": ("export nowhere --model M.keras --out new", "nowhere: no such"),
    "no images in it": ("export notes --model M.keras --out new", "none of its 1 files"),
    "an empty folder": ("export empty --model M.keras --out new", "it is empty"),
    "a glob without a match": ("export D/*.webp --model M.keras --out new", "no images"),
    "no such model": ("export D --model nowhere.keras --out new", "nowhere.keras: no such model"),
    "a model that is none": ("export D --model notes/a.txt --out new", "not a model"),
    "a damaged model": ("export D --model damaged.keras --out new", "Keras cannot load it"),
    "a model whose input is no image": ("export D --model flat.keras --out new", "no batch of images"),
    "no such signature": ("export D --model S --out new --signature x", "serving_default"),
    "no such output": (f"{D} --output x", "no output 'x'"),
    "an unknown option value": (f"{D} --resize squash", "--resize 'squash'"),
    "an unknown option": (f"{D} --colour x", "--colour"),
    "a batch of none": (f"{D} --batch-size 0", "--batch-size 0"),
    "a size that is none": (f"{D} --shard-size big", "--shard-size 'big'"),
    "labels of the wrong length": (f"{D} --labels three.txt", "3 labels"),
    "no such labels": (f"{D} --labels nowhere.txt", "nowhere.txt"),
    "OUT not empty": ("export D --model M.keras --out notes", "not empty"),
    "OUT a finished export": ("export D --model M.keras --out OUT", "finished export"),
    "OUT a file": ("export D --model M.keras --out three.txt", "is a file"),
    "scale not knowable": ("export D --model bare.keras --out new", "--scale raw"),
    "task not knowable": ("export D --model bare.keras --out new --scale unit", "--task"),
    "task that does not fit": (f"{D} --task binary", "--task binary"),
    "no function to preprocess": (f"{D} --preprocess os:nope", "os:nope"),
    "scale and preprocess": (f"{D} --preprocess os:path --scale raw", "--preprocess and"),
    "size of the image that the model fixes": (f"{D} --image-size 9x9", "8x8"),
    "a name that no file can have": (f"{D} --name a/b", "--name 'a/b'"),
    "labels of a source without folders": (
        "export D/0 --model M.keras --out new --source-labels folder",
        "no image of D/0 lies in a folder",
    ),
    "no OUT": ("export D --model M.keras --out=", "--out is empty"),
    "a signature of a Keras file": (f"{D} --signature x", "--signature 'x' is for SavedModels"),
    "more shards than a name can count": (f"{D} --shards 100000", "--shards 100000"),
    "shards of a number and a size": (f"{D} --shards 2 --shard-size 1MB", "--shards and --shard-size"),
    "shards of a number and a length": (f"{D} --shards 2 --shard-records 9", "--shards and --shard-records"),
    "a preprocess that gives what the model does not take": (f"{D} --preprocess builtins:len", "--preprocess"),
    "an image that cannot be written": ("get OUT 0/0000.png --image nowhere/x.png", "--image nowhere/x.png"),
    "a target that is no folder": ("extract OUT --to three.txt", "three.txt"),
    "nothing at all": ("", "COMMAND"),
    "no model": ("export D --out new", "--model"),
    "an unknown command": ("exprot", "exprot"),
    "no export to inspect": ("inspect notes", "no index.zip"),
    "no folder to verify": ("verify nowhere", "nowhere"),
    "no such record": ("get OUT nobody.png", "nobody.png"),
    "no such split": ("inspect OUT --split test", "'test'"),
}
"""What is wrong: the call, and what the answer must say."""


@pytest.fixture(scope="module")
def workshop(digits, digits_files, out, tmp_path_factory):
    """A folder with all that the bad calls name."""
    import keras

    folder = tmp_path_factory.mktemp("workshop")
    for name, target in (
        ("D", digits[0]),
        ("M.keras", digits_files["keras"]),
        ("S", digits_files["saved_model"]),
        ("OUT", out),
    ):
        (folder / name).symlink_to(target)
    (folder / "notes").mkdir()
    (folder / "empty").mkdir()
    (folder / "notes" / "a.txt").write_text("no image")
    (folder / "three.txt").write_text("a\nb\nc\n")
    (folder / "damaged.keras").write_bytes(b"PK\x03\x04 no")
    layers = keras.layers
    keras.Sequential([layers.Input((64,)), layers.Dense(10)]).save(folder / "flat.keras")
    keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10)]).save(folder / "bare.keras")
    return folder


@pytest.mark.parametrize("name", BAD)
def test_a_bad_call_gets_a_line_or_two_and_exit_code_2(workshop, name, capsys, monkeypatch):
    command, said = BAD[name]
    monkeypatch.chdir(workshop)
    before = sorted(os.listdir(workshop))
    try:
        code = cli.main(command.split())
    except SystemExit as exit_:  # argparse ends so
        code = exit_.code
    shown = capsys.readouterr()
    assert code == 2
    assert shown.out == ""
    assert said in shown.err
    assert len(shown.err.splitlines()) <= 2, shown.err
    assert shown.err.startswith("tfzip")
    assert "Traceback" not in shown.err
    assert sorted(os.listdir(workshop)) == before


def test_keras_on_another_backend_is_told(workshop):
    done = run(
        "export", "D", "--model", "M.keras", "--out", "new", cwd=workshop, env={**os.environ, "KERAS_BACKEND": "numpy"}
    )
    assert done.returncode == 2
    assert "KERAS_BACKEND=tensorflow" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_bad_data_is_exit_code_1(workshop, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(workshop)
    (tmp_path / "a.png").write_bytes(b"no image")
    assert cli.main(["export", str(tmp_path), "--model", "M.keras", "--out", "new"]) == 1
    assert "a.png: decode:" in capsys.readouterr().err


def test_debug_shows_where(workshop, capsys, monkeypatch):
    monkeypatch.chdir(workshop)
    assert cli.main(["inspect", "notes", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_names_that_the_terminal_cannot_show_are_escaped(workshop, digits, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "\u65e5\u672c.png").write_bytes((digits[0] / "0/0000.png").read_bytes())
    (tmp_path / "in" / "\u65e5.png").write_bytes(b"no image")
    command = [sys.executable, "-m", "tfzip", "export", str(tmp_path / "in"), "--model", "M.keras", "--out"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(
        [*command, str(tmp_path / "out")], cwd=workshop, env=environment, capture_output=True, encoding="cp1252"
    )
    assert done.returncode == 0, done.stderr
    assert "\\u65e5.png: decode:" in done.stdout


def test_quiet_says_nothing(workshop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(workshop)
    command = ["export", "D", "--model", "M.keras", "--out", str(tmp_path / "out"), "--limit", "20", "--quiet"]
    assert cli.main(command) == 0
    assert capsys.readouterr() == ("", "")


def test_the_summary_tells_of_failures_and_of_other_files(workshop, digits, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(workshop)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "good.png").write_bytes((digits[0] / "0/0000.png").read_bytes())
    (tmp_path / "in" / "bad.png").write_bytes(b"no image")
    (tmp_path / "in" / "notes.txt").write_text("x")
    assert cli.main(["export", str(tmp_path / "in"), "--model", "M.keras", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "1 record in 1 shard" in shown
    assert "bad.png: decode:" in shown
    assert "1 other file ignored" in shown


def heeding():
    """In a child: SIGINT is not ignored, as it is in what a shell runs in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_stops_at_once_and_says_how_to_go_on(workshop, digits, tmp_path, number, code):
    many, out = tmp_path / "many", tmp_path / "out"
    many.mkdir()
    content = (digits[0] / "0/0000.png").read_bytes()
    for name in range(20_000):
        (many / f"{name}.png").write_bytes(content)
    command = [
        "export",
        str(many),
        "--model",
        "M.keras",
        "--out",
        str(out),
        "--batch-size",
        "1",
        "--shard-records",
        "99",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfzip", *command], cwd=workshop, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )
    deadline = time.monotonic() + 120
    while not (out / ".tfzip" / "rows-00000.npz").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert re.fullmatch(
        "tfzip.*: interrupted; the same command goes on after what is finished", errors.splitlines()[-1]
    )
    assert sorted(path.name for path in out.iterdir()) == [".tfzip"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_stops_what_calls_python_from_the_graph(digits, tmp_path, number):
    (tmp_path / "calling.py").write_text(
        "import time, tensorflow as tf\n"
        "def slow(values):\n"
        "    time.sleep(0.1)\n"
        "    return values\n"
        "def model(batch):\n"
        "    sure = tf.numpy_function(slow, [tf.reduce_mean(batch, (1, 2))[:, 0] / 255], tf.float32)\n"
        "    sure = tf.ensure_shape(sure, (None,))\n"
        "    return tf.stack([sure, 1 - sure], 1)\n"
    )
    how = ["--image-size", "8x8", "--scale", "raw", "--task", "multiclass", "--scores", "probabilities"]
    how += ["--batch-size", "4", "--shard-records", "16"]
    command = ["export", str(digits[0]), "--model", "calling:model", "--out", "out", *how]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfzip", *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True, preexec_fn=heeding
    )
    while not (tmp_path / "out" / ".tfzip" / "rows-00001.npz").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "interrupted; the same command goes on" in errors.splitlines()[-1]


@pytest.mark.slow
def test_signals_that_are_ignored_or_others_stop_nothing(digits, tmp_path):
    (tmp_path / "ringing.py").write_text(
        "import os, signal, time, tensorflow as tf\n"
        "signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "def ring(values):\n"
        "    os.kill(os.getpid(), signal.SIGALRM)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    time.sleep(5)\n"
        "    return values\n"
        "def model(batch):\n"
        "    sure = tf.numpy_function(ring, [tf.reduce_mean(batch, (1, 2))[:, 0] / 255], tf.float32)\n"
        "    return tf.reshape(sure, (-1, 1))\n"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((digits[0] / "0/0000.png").read_bytes())
    command = f"{sys.executable} -m tfzip export in --model ringing:model --out out --image-size 8x8 --scale raw"
    shell = ["sh", "-c", f"trap '' INT; exec {command} --task binary --scores probabilities"]
    done = subprocess.run(shell, cwd=tmp_path, stderr=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, len(tfzip.open(tmp_path / "out"))) == (0, 1), done.stderr


@pytest.mark.slow
def test_a_second_signal_stops_what_computes_and_computes(digits, tmp_path):
    """A model that never comes back, in code that Python cannot interrupt."""
    (tmp_path / "endless.py").write_text(
        "import tensorflow as tf\n"
        "def model(batch):\n"
        "    count = tf.while_loop(lambda i, x: x < 2.0, lambda i, x: (i + 1, tf.reduce_max(batch) * 0), (0, 0.0))\n"
        "    return tf.ensure_shape(tf.nn.softmax(batch[:, 0, 0, :] + count[1]), (None, 3))\n"
    )
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes((digits[0] / "0/0000.png").read_bytes())
    command = ["export", "in", "--model", "endless:model", "--out", "out", "--image-size", "8x8", "--scale", "raw"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tfzip", *command, "--task", "multiclass", "--scores", "probabilities"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heeding,
    )
    while not (tmp_path / "out" / ".tfzip" / "plan.json").exists():
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in errors.splitlines()[-1]


@pytest.mark.parametrize("command", ["export", "inspect", "verify", "get", "extract", "select", "diff", "demo"])
def test_help_tells_every_option_with_its_default_and_an_example(command, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([command, "--help"])
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"python -m tfzip {command}" in shown
    if command == "export":
        for option, default in re.findall(r"--([a-z-]+) [A-Z:|a-z]+ [^-]*?\(default: ([^)]*)\)", shown):
            assert option
            assert default
        assert "--shard-size SIZE bytes in a shard, about (default: 128MB)" in shown


def test_every_option_of_the_command_is_an_option_of_the_call():
    import dataclasses

    from tfzip.options import Options

    parsed = cli.parser().parse_args(["export", "D", "--model", "M", "--out", "O"])
    for field in dataclasses.fields(Options):
        assert getattr(parsed, field.name) == field.default, field.name


@pytest.mark.slow
def test_the_demo_goes_round_the_loop_and_says_what_it_gains(tmp_path):
    done = run("demo", "--seeds", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracies = [float(found) for found in re.findall(r"([0-9.]+)%", re.search("seed 0: .*", done.stdout)[0])]
    assert len(accuracies) == 1 + len(demo.POLICIES)
    assert min(accuracies) > 60
    gains = [float(found) for found in re.findall(r"^  --.*  ([+-][0-9.]+)$", done.stdout, re.MULTILINE)]
    np.testing.assert_allclose(gains, np.array(accuracies[1:]) - accuracies[0], atol=0.11)
    commands = re.findall(r"^  (\S+ -m tfzip .*)$", done.stdout, re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    assert tfzip.verify(tfzip.open(tmp_path / "tfzip-demo" / "0" / "labelled")) == []
    assert run("demo", "--seeds", "0", cwd=tmp_path).returncode == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    assert run("demo", "--to", "mine", cwd=tmp_path).returncode == 2
    assert os.listdir(tmp_path / "mine") == ["precious"]
