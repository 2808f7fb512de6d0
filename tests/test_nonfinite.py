"""Predictions that hold NaN or infinity: counted and marked, failed or refused, as asked; and no other is touched."""

import csv
import functools
import io
import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from forged import column, manifest, rebuilt
from PIL import Image

import tfzip
from tfzip import cli
from tfzip.record import UNKNOWN

COUNT, BATCH = 12, 5
ODD = (3, 4, 11)
SPEC = [tf.TensorSpec((None, 8, 8, 1), tf.float32)]
NAN, INFINITE = float("nan"), float("inf")
SAID = "its prediction is not a number: it holds NaN or infinity"


def name(number: int) -> str:
    return f"{number:02}.png"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of one grey each: ten times their number."""
    folder = tmp_path_factory.mktemp("greys")
    for number in range(COUNT):
        Image.new("L", (8, 8), 10 * number).save(folder / name(number))
    return folder


def taking(function):
    return tf.function(function, input_signature=SPEC, autograph=False)


def number_of(pixels):
    """Of each image its number, [B, 1]."""
    return tf.reduce_mean(pixels, (1, 2)) / 10


def where_odd(pixels, values, otherwise):
    odd = tf.reduce_any(tf.abs(number_of(pixels) - np.array(ODD, np.float32)) < 0.5, axis=1)
    odd = tf.reshape(odd, (-1, *[1] * (otherwise.shape.rank - 1)))
    return tf.where(odd, tf.constant(values, otherwise.dtype), otherwise)


def scores(pixels):
    """Three scores that grow with the number."""
    return tf.nn.softmax(number_of(pixels) * np.array([[0.1, 0.2, 0.3]], np.float32))


def only(values):
    """A model of one output, which for some images is these values."""
    return lambda pixels: where_odd(pixels, values, scores(pixels))


def boxes(pixels):
    count = tf.shape(pixels)[0]
    return {
        "boxes": tf.tile([[[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.6, 0.6]]], (count, 1, 1)),
        "sure": tf.tile([[0.9, 0.7]], (count, 1)),
        "which": tf.tile([[1.0, 2.0]], (count, 1)),
        "number": tf.fill((count,), 2.0),
    }


def detecting(output, values):
    def model(pixels):
        outputs = boxes(pixels)
        return outputs | {output: where_odd(pixels, values, outputs[output])}

    return model


PROBABILITIES = {"task": "multiclass", "scores": "probabilities"}
LOGITS = {"task": "multiclass", "scores": "logits"}
DETECTION = {"task": "detection", "output": "boxes,sure,which,number"}
MODELS = {
    "a score of several": (only([0.2, NAN, 0.3]), PROBABILITIES),
    "the first score": (only([NAN, 0.2, 0.3]), PROBABILITIES),
    "all scores": (only([NAN] * 3), PROBABILITIES),
    "an infinite score": (only([0.2, 0.1, INFINITE]), PROBABILITIES),
    "a logit": (only([1, 2, NAN]), LOGITS),
    "an infinite logit": (only([1, 2, INFINITE]), LOGITS),
    "binary": (lambda pixels: where_odd(pixels, NAN, scores(pixels)[:, :1]), {"task": "binary", "scores": "logits"}),
    "multilabel": (only([0.9, NAN, 0.1]), {"task": "multilabel", "scores": "probabilities"}),
    "a corner": (detecting("boxes", NAN), DETECTION),
    "a box's score": (detecting("sure", [0.9, NAN]), DETECTION),
    "a box's infinite score": (detecting("sure", [INFINITE, 0.9]), DETECTION),
    "a box's class": (detecting("which", [NAN, 1]), DETECTION),
    "the number of boxes": (detecting("number", NAN), DETECTION),
    "raw": (only([1, -INFINITE, 2]), {"task": "raw"}),
    "another output": (
        lambda pixels: {"sure": scores(pixels), "what": where_odd(pixels, NAN, tf.reshape(pixels, (-1, 4, 16)))},
        {**PROBABILITIES, "output": "sure"},
    ),
    "too large for a float32": (
        lambda pixels: where_odd(pixels, 1e300, tf.cast(scores(pixels), tf.float64)),
        {"task": "raw"},
    ),
}
"""Per case: a model that gives some images an odd prediction, and how it is to be read."""
FINITE = {
    "a logit that rules a class out": (only([1, 2, -INFINITE]), LOGITS),
    "a box that is none": (detecting("sure", [0.9, -INFINITE]), DETECTION),
    "the class of a box that is none": (
        lambda pixels: detecting("sure", [0.9, 0.1])(pixels) | {"which": detecting("which", [1, NAN])(pixels)["which"]},
        DETECTION,
    ),
}


def exported(source, model, out, **options):
    settings = {"scale": "raw", "batch_size": BATCH, "quiet": True, **options}
    return tfzip.export(str(source), taking(model) if callable(model) else model, str(out), **settings)


def serialized(export) -> dict[str, bytes]:
    return dict(zip(export.metadata["filename"].tolist(), itertools.chain(*export.serialized()), strict=True))


def odd_names(export) -> list[str]:
    return export.metadata["filename"][export.metadata["nonfinite"]].tolist()


def table(export) -> list[dict[str, str]]:
    with zipfile.ZipFile(f"{export.path}/index.zip") as archive:
        return list(csv.DictReader(io.StringIO(archive.read("metadata.csv").decode(), newline="")))


NAMES = [name(number) for number in range(COUNT)]
ODD_NAMES = [name(number) for number in ODD]


# What they are, and what becomes of them.


MANY = ["the first score", "an infinite score", "an infinite logit", "a box's infinite score", "a box's class"]
CASES = [pytest.param(case, marks=[pytest.mark.slow] * (case in MANY)) for case in MODELS]


@pytest.fixture(scope="module")
def kept(folder, tmp_path_factory):
    """Exports by case, made when first asked for, with what is odd kept."""

    @functools.cache
    def made(case):
        model, options = MODELS[case]
        return exported(folder, model, tmp_path_factory.mktemp("kept") / "out", **options)

    return made


@pytest.mark.parametrize("case", CASES)
def test_kept_they_are_written_counted_and_marked(kept, case):
    export, (_, options) = kept(case), MODELS[case]
    assert [record.filename for record in export[:]] == NAMES
    assert odd_names(export) == ODD_NAMES
    assert [row["filename"] for row in table(export) if row["nonfinite"] == "1"] == ODD_NAMES
    assert {row["nonfinite"] for row in table(export)} == {"", "1"}
    assert export.manifest["counts"]["nonfinite"] == len(ODD)
    assert tfzip.verify(export) == []
    for record in export[:]:
        prediction = record.prediction
        values = [prediction.confidence, prediction.scores, prediction.boxes, *record.outputs.values()]
        finite = all(np.isfinite(value).all() for value in values if value is not None)
        assert finite == (record.filename not in ODD_NAMES)
        if options["task"] in ("multiclass", "binary") and case != "another output":
            assert (prediction.label == UNKNOWN) == (prediction.text == "") == (not finite)
            assert np.isnan(prediction.confidence) == (not finite)


@pytest.mark.parametrize("case", CASES)
def test_in_quarantine_they_are_failures_and_the_others_are_what_they_were(kept, folder, tmp_path, case):
    model, options = MODELS[case]
    export = exported(folder, model, tmp_path / "out", on_nonfinite="quarantine", **options)
    assert export.failures == [(name, "predict", SAID) for name in ODD_NAMES]
    assert export.manifest["counts"] | {"records": 9, "failures": 3, "nonfinite": 0} == export.manifest["counts"]
    others = {name: record for name, record in serialized(kept(case)).items() if name not in ODD_NAMES}
    assert serialized(export) == others
    assert tfzip.verify(export) == []


@pytest.mark.parametrize("case", FINITE)
def test_what_is_written_of_these_is_finite(folder, tmp_path, case):
    model, options = FINITE[case]
    assert odd_names(exported(folder, model, tmp_path / "out", on_nonfinite="fail", **options)) == []


def test_they_change_no_bit_of_those_that_were_in_a_batch_with_them(kept, folder, tmp_path):
    sane = serialized(exported(folder, scores, tmp_path / "sane", **PROBABILITIES))
    export = serialized(kept("all scores"))
    assert {name for name in NAMES if export[name] != sane[name]} == set(ODD_NAMES)


def test_to_fail_ends_the_export_and_names_the_first(folder, tmp_path):
    model, options = MODELS["all scores"]
    with pytest.raises(tfzip.DataError, match=rf"^03\.png: {SAID} \(--on-nonfinite keep or quarantine goes on\)$"):
        exported(folder, model, tmp_path / "out", on_nonfinite="fail", **options)
    assert not (tmp_path / "out").exists()
    assert len(exported(folder, scores, tmp_path / "out", on_nonfinite="fail", **options)) == COUNT


def test_failures_in_quarantine_count_as_others_do(folder, tmp_path):
    model, options = MODELS["all scores"]
    how = {**options, "on_nonfinite": "quarantine"}
    with pytest.raises(tfzip.TooManyFailuresError, match=r"3 failed, --max-failures is 2; 11\.png: predict: its pred"):
        exported(folder, model, tmp_path / "out", max_failures=2, shard_records=COUNT, **how)
    with pytest.raises(tfzip.DataError, match=r"^03\.png: predict: its prediction is not a number"):
        exported(folder, model, tmp_path / "other", on_error="fail", **how)


def test_in_a_stream_too(folder, tmp_path):
    model, options = MODELS["all scores"]
    items = [(name, (folder / name).read_bytes()) for name in NAMES]
    taken = taking(model)
    made = tfzip.export(iter(items), taken, str(tmp_path / "out"), scale="raw", batch_size=BATCH, quiet=True, **options)
    assert odd_names(made) == ODD_NAMES


# Going on.


def test_after_it_failed_it_goes_on_with_them_kept_or_in_quarantine(folder, tmp_path):
    model, options = MODELS["all scores"]
    how = {**options, "shard_records": 3}
    for choice in ("keep", "quarantine"):
        out = tmp_path / choice
        with pytest.raises(tfzip.DataError, match="The same command goes on after what is finished"):
            exported(folder, model, out, on_nonfinite="fail", **how)
        first = next(out.rglob("shard-00000")).stat().st_ino
        export = exported(folder, model, out, on_nonfinite=choice, **how)
        other = exported(folder, model, tmp_path / f"undisturbed {choice}", on_nonfinite=choice, **how)
        assert Path(export.shards[0]).stat().st_ino == first  # it was not written again
        for file in ("index.zip", *(shard["file"] for shard in export.manifest["shards"])):
            assert (out / file).read_bytes() == (tmp_path / f"undisturbed {choice}" / file).read_bytes()
        other.close()


@pytest.mark.slow
def test_what_was_kept_is_not_put_in_quarantine_afterwards(folder, tmp_path):
    model, options = MODELS["all scores"]
    how = {**options, "shard_records": 1}

    def failing(pixels):
        tf.debugging.assert_less(number_of(pixels), 9.0)
        return model(pixels)

    for choice, other in (("keep", "quarantine"), ("quarantine", "keep"), ("keep", "fail")):
        out = tmp_path / f"{choice} {other}"
        with pytest.raises(tfzip.TooManyFailuresError):
            exported(folder, failing, out, on_nonfinite=choice, max_failures=2, **how)
        with pytest.raises(tfzip.OutputExistsError, match=f"--on-nonfinite was {choice}, is {other}"):
            exported(folder, failing, out, on_nonfinite=other, **how)


# Predictions made elsewhere.


def test_scores_made_elsewhere(folder, tmp_path):
    made = np.tile(np.float32([[0.2, 0.3, 0.5]]), (COUNT, 1))
    made[list(ODD)] = [0.2, NAN, 0.5]
    np.save(tmp_path / "scores.npy", made)
    export = tfzip.export(
        str(folder), None, str(tmp_path / "out"), predictions=str(tmp_path / "scores.npy"), quiet=True
    )
    assert odd_names(export) == ODD_NAMES
    assert tfzip.verify(export) == []


@pytest.mark.parametrize("value", ["nan", "inf", ""])
def test_a_confidence_made_elsewhere(folder, tmp_path, value):
    rows = [f"{name(n)},cat,{value if n in ODD else 0.5}\n" for n in range(COUNT)]
    (tmp_path / "table.csv").write_text("filename,prediction,confidence\n" + "".join(rows))
    given = str(tmp_path / "table.csv")
    export = tfzip.export(str(folder), None, str(tmp_path / "out"), predictions=given, quiet=True)
    assert odd_names(export) == ODD_NAMES
    assert {record.prediction.text for record in export[:]} == {"cat"}
    assert tfzip.verify(export) == []


# What a user sees.


def test_the_command_tells_of_them(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    out, how = str(tmp_path / "out"), ["--task", "raw", "--scale", "raw", "--image-size", "8x8"]
    assert cli.main(["export", str(folder), "--model", "test_nonfinite:few_odd", "--out", out, *how]) == 0
    told = ["3 predictions not a number: NaN or infinity is in it (nonfinite in metadata.csv)", *ODD_NAMES]
    assert lines_after(capsys.readouterr().out, told[0], 4) == told
    assert cli.main(["inspect", out]) == 0
    assert lines_after(capsys.readouterr().out, told[0], 4) == told
    assert cli.main(["inspect", out, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["nonfinite"] == len(ODD)
    other = str(tmp_path / "other")
    how += ["--on-nonfinite", "fail"]
    assert cli.main(["export", str(folder), "--model", "test_nonfinite:few_odd", "--out", other, *how]) == 1
    assert f"03.png: {SAID}" in capsys.readouterr().err


def few_odd(pixels):
    return where_odd(tf.reduce_mean(pixels, axis=3, keepdims=True), [NAN] * 3, scores(pixels[..., :1]))


def lines_after(text: str, first: str, count: int) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return lines[lines.index(first) :][:count]


@pytest.mark.parametrize("change", ["marked", "not marked"])
def test_verify_sees_a_mark_that_is_forged(folder, tmp_path, change):
    model, options = MODELS["all scores"]
    export = exported(folder, model if change == "not marked" else scores, tmp_path / "out", **options)
    marks = np.zeros(COUNT, bool)
    marks[5] = change == "marked"

    def count(facts):
        facts["counts"]["nonfinite"] = int(marks.sum())

    rebuilt(export.path, nonfinite=column(lambda _: marks), manifest=manifest(count))
    problems = tfzip.verify(tfzip.open(export.path))
    assert any("its nonfinite is not the index's" in problem for problem in problems), problems
