"""The report's page: what it says is what the index says, it needs nothing else, and no text on it is more than text.

What moves on it is tested in a browser: tests/test_report_browser.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import peaks
import pytest
import tensorflow as tf

import tfzip
from tfzip import cli, figures, gallery, naming
from tfzip.rules import Rules
from tfzip.selection import select_rows


class Page(HTMLParser):
    """What a page holds: its elements, the text of each with a class or an id, its data."""

    def __init__(self, path):
        super().__init__()
        self.html = Path(path).read_text(encoding="utf-8")
        self.elements, self._open, self.texts = [], [], {}
        self.feed(self.html)
        self.data = json.loads(self.texts["#data"][0], parse_constant=pytest.fail)  # a browser knows no NaN

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag not in ("meta", "link", "img", "input", "br"):
            names = [*(attributes.get("class") or "").split(), *(f"#{name}" for name in [attributes.get("id")] if name)]
            for name in names:
                self.texts.setdefault(name, []).append("")
            self._open.append((tag, names))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        for _, names in self._open:
            for name in names:
                self.texts[name][-1] += data

    def all(self, tag, **attributes):
        """The attributes of all elements of a kind."""
        wanted = attributes.items()
        return [found for name, found in self.elements if name == tag and wanted <= found.items()]


@pytest.fixture(scope="module")
def out(digits, digits_model, tmp_path_factory):
    """The digits, their truth known, with two that are broken."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(digits[0], folder / "digits")
    (folder / "digits" / "3" / "empty.png").touch()
    (folder / "digits" / "4" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tfzip.export(folder / "digits", digits_model, folder / "out", source_labels="folder", quiet=True)
    return folder / "out"


@pytest.fixture(scope="module")
def page(out):
    return Page(tfzip.report(out))


def test_its_counts_are_those_of_the_index(out, page):
    export = tfzip.open(out)
    label, truth = (export.metadata[name] for name in ("label", "truth"))
    confidence, numbers = export.metadata["confidence"], page.data["numbers"]
    rows = page.all("tr")
    order = [int(row["data-class"]) for row in rows if "data-class" in row]
    assert sorted(order) == sorted(set(label.tolist()))
    assert [int(row["data-records"]) for row in rows if "data-class" in row] == [
        np.count_nonzero(label == each) for each in order
    ]
    assert numbers["thresholds"] == list(figures.THRESHOLDS)
    for place, threshold in enumerate(np.float32(numbers["thresholds"])):
        kept = confidence >= threshold
        assert numbers["passing"][place] == np.count_nonzero(kept)
        assert [passing[place] for passing in numbers["class_passing"]] == [
            np.count_nonzero(kept & (label == each)) for each in order
        ]
        assert numbers["known_passing"][place] == np.count_nonzero(kept & (truth >= 0))
        assert numbers["right"][place] == np.count_nonzero(kept & (truth == label))
    assert sum(numbers["histogram"]) == len(export)
    assert [sum(counts) for counts in numbers["class_histogram"]] == [np.count_nonzero(label == each) for each in order]


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.9, 0.99, 0.999])
def test_what_passes_is_what_select_takes(out, page, threshold):
    export, numbers = tfzip.open(out), page.data["numbers"]
    place = numbers["thresholds"].index(threshold)
    chosen = select_rows(export, Rules(min_confidence=threshold))
    assert numbers["passing"][place] == len(chosen.choice.rows)
    classes = [int(row["data-class"]) for row in page.all("tr") if "data-class" in row]
    taken = np.bincount(chosen.label, minlength=10)
    assert [passing[place] for passing in numbers["class_passing"]] == taken[classes].tolist()


def test_truth_is_told_as_evaluate_has_it(out, page):
    found = tfzip.evaluate(tfzip.open(out))
    text = page.texts["lead"][0]
    assert f"{found.accuracy:.1%}" in text
    matrix = [int(cell) if cell.strip("·") else 0 for cell in re.findall(r"<td[^>]*>([^<]*)</td>", confusion(page))]
    assert np.array_equal(np.reshape(matrix, (10, 10)), found.confusion)
    assert sum(images for images, *_ in page.data["numbers"]["reliability"]) == found.images


def confusion(page):
    return re.search(r'<table id="confusion">.*?</table>', page.html, re.DOTALL)[0]


def test_every_picture_and_name_is_of_a_record_in_its_place(out, page):
    export = tfzip.open(out)
    cards = re.findall(r'<li class="card.*?</li>', page.html, re.DOTALL)
    sample = cards[-gallery.SAMPLE :]
    names = [re.search(r'class="filename"[^>]*>([^<]*)<', card)[1] for card in cards]
    assert len(names) == gallery.SAMPLE + 10 * 4 * 6
    expected = [export[row].filename for row in gallery.sample(len(export), 0).tolist()]
    assert names[-gallery.SAMPLE :] == expected
    for card, name in zip(cards, names, strict=True):
        record = export[name]
        assert f'<span dir="auto">{record.prediction.text}</span>' in card
        assert f"{record.prediction.confidence:.3f}" in card
        assert f'data-classes="{record.prediction.label}"' in card
        wrong = record.prediction.label != record.truth.label
        assert card.startswith(f'<li class="card{" wrong" if wrong else ""}"')
        assert ("✗ truth" in card, "✓ truth" in card) == (wrong, not wrong)
        assert 'src="data:image/webp;base64,' in card
    assert len(sample) == gallery.SAMPLE


def test_failures_are_told_by_stage_and_reason(page):
    (table,) = re.findall(r'<table id="failure-table">.*?</table>', page.html, re.DOTALL)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", table)
    rows = [cells[start : start + 4] for start in range(0, len(cells), 4)]
    assert {row[0] for row in rows} == {"decode"}
    assert [row[2] for row in rows] == ["1", "1"]
    assert {re.search(">([^<]*)</span>", row[3])[1] for row in rows} == {"3/empty.png", "4/cut.png"}


def test_reasons_that_differ_by_the_filename_alone_are_one(tmp_path, digits, digits_model):
    shutil.copytree(digits[0] / "0", tmp_path / "images")
    for number in range(5):
        (tmp_path / "images" / f"gone{number}.png").symlink_to("nowhere")
    tfzip.export(tmp_path / "images", digits_model, tmp_path / "out", quiet=True)
    page = Page(tfzip.report(tmp_path / "out"))
    (table,) = re.findall(r'<table id="failure-table">.*?</table>', page.html, re.DOTALL)
    assert re.findall(r"<td>([^<]*)</td>", table) == ["read", "5"]


def test_a_name_of_a_letter_is_no_part_of_a_word(tmp_path):
    images = [("e", b"no image"), ("m", b"none either"), ("0.png", tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)))]
    scores = np.eye(3, dtype=np.float32)
    told = tfzip.write(((row, *image) for row, image in zip(scores, images, strict=True)), tmp_path / "out", quiet=True)
    (reason,) = {failure.error for failure in told.failures}
    (table,) = re.findall(r'<table id="failure-table">.*?</table>', Page(tfzip.report(told)).html, re.DOTALL)
    assert reason in table
    assert re.findall(r"<td>([^<]*)</td>", table) == ["decode", "2"]


def test_classes_that_are_never_predicted_are_told(tmp_path):
    png = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
    truths, scores = ["a", "b", "b", "<c>"], np.tile(np.float32([0.75, 0.25, 0]), [4, 1])
    labels = ["a", "b", "<c>"]
    scored = tmp_path / "scores.npy"
    np.save(scored, scores)
    images = [(f"{n}.png", png, truth) for n, truth in enumerate(truths)]
    told = tfzip.export(images, None, tmp_path / "out", predictions=scored, labels=labels, quiet=True)
    page = Page(tfzip.report(told))
    (line,) = re.findall(r"<p>Never predicted: (.*?)\.</p>", page.html)
    assert re.sub("<.*?>", "", line) == "b (2 images), &lt;c&gt; (1 image)"


def test_it_asks_for_nothing_from_elsewhere(page):
    addresses = [found.get(name) for _, found in page.elements for name in ("src", "href", "action", "data", "srcset")]
    assert {re.match("data:|#", address)[0] for address in filter(None, addresses)} == {"data:", "#"}
    style = page.texts.get("style", [""])[0] + "".join(re.findall(r"<style>(.*?)</style>", page.html, re.DOTALL))
    assert "url(" not in style
    assert "@import" not in style
    assert "sourceMappingURL" not in page.html
    (policy,) = (found["content"] for found in page.all("meta", **{"http-equiv": "Content-Security-Policy"}))
    assert "default-src 'none'" in policy


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'onmouseover='alert(3)",
    "{{7*7}}{% raw %}",
    "</script><script>alert(4)</script>",
    "<!-- ",
    "&lt;b&gt;",
    "javascript:alert(5)",
    "‮gpj.exe",
    "a\x1b[31m\nb",
]


def test_text_is_only_text(tmp_path, digits_model):
    """Names of images, of classes, of the folder, of a run's facts, and truths: the page is built as of plain ones."""

    def made(name, texts):
        png = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
        labels = [text.replace("\n", " ") for text in texts]
        images = [(text, png, truth) for text, truth in zip(texts, [*labels[1:], labels[0]], strict=True)]
        tfzip.export(images, digits_model, tmp_path / name / "out", labels=labels, quiet=True)
        (tmp_path / name / "out" / "run.json").write_text(json.dumps(dict.fromkeys(texts, texts[0])))
        return Page(tfzip.report(tmp_path / name / "out"))

    page, plain = made(HOSTILE[0].replace("/", ""), HOSTILE), made("plain", [f"text {n}" for n in range(len(HOSTILE))])
    assert [(tag, *found) for tag, found in page.elements] == [(tag, *found) for tag, found in plain.elements]
    assert sorted(set(page.texts["filename"])) == sorted(map(naming.printable, HOSTILE))
    assert naming.printable(HOSTILE[0].replace("/", "")) in page.texts["#command"][0]


TASKS = {
    "multilabel": lambda images: tf.stack([tf.reduce_mean(images[..., c], [1, 2]) / 255 for c in range(3)], 1),
    "raw": lambda images: {"<b>": tf.reduce_mean(images, [1, 2]), "n": tf.range(tf.shape(images)[0])},
    "detection": lambda images: {
        "boxes": tf.tile([[[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.5, 0.5]]], [tf.shape(images)[0], 1, 1]),
        "scores": tf.tile([[0.6, 0.9]], [tf.shape(images)[0], 1]),
        "classes": tf.tile([[0, 2]], [tf.shape(images)[0], 1]),
    },
}


@pytest.fixture(scope="module")
def other(photographs, tmp_path_factory):
    """Exports of 60 photographs for each other task."""
    folder = tmp_path_factory.mktemp("tasks")
    asked = {"image_size": "32x32", "scale": "raw", "limit": 60, "quiet": True}
    more = {
        "multilabel": {"labels": list("rgb"), "scores": "probabilities"},
        "raw": {},
        "detection": {"labels": list("abc"), "output": "boxes,scores,classes"},
    }
    for task, model in TASKS.items():
        tfzip.export(photographs, model, folder / task, task=task, **asked, **more[task])
    return folder


def test_multilabel_counts_each_class_of_a_record(other):
    export, page = tfzip.open(other / "multilabel"), Page(tfzip.report(other / "multilabel"))
    scores, confidence = export.metadata["scores"], export.metadata["confidence"]
    rows = {int(row["data-class"]): place for place, row in enumerate(page.all("tr")) if "data-class" in row}
    order = sorted(rows, key=rows.get)
    assert order
    for place, threshold in enumerate(np.float32(page.data["numbers"]["thresholds"])):
        kept = (scores >= np.float32(0.5)) & (confidence >= threshold)[:, np.newaxis]
        assert [passing[place] for passing in page.data["numbers"]["class_passing"]] == kept.sum(axis=0)[order].tolist()
    assert not page.all("code", id="command")


def test_boxes_are_drawn_on_their_picture(other):
    page = Page(tfzip.report(other / "detection"))
    pictures, boxes = page.all("img"), page.all("rect")
    assert len(boxes) == 2 * len(pictures) > 0
    sides = [[float(box[name]) for name in ("y", "x", "height", "width")] for box in boxes[:2]]
    assert sides == [[0, 0, 0.5, 0.5], [0.25, 0.5, 0.5, 0.5]]  # the surest first
    assert page.all("svg")[0]["aria-label"] == "c 0.90, a 0.60"


def test_outputs_are_told_as_they_are_spread(other):
    export, page = tfzip.open(other / "raw"), Page(tfzip.report(other / "raw"))
    values = np.concatenate([record.outputs["<b>"] for record in export[:]])
    found = next(spread for spread in page.data["outputs"] if len(spread["counts"]) and spread["values"] == len(values))
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-5)
    assert sum(found["counts"]) == len(values)
    assert found["quartiles"] == pytest.approx(np.quantile(values, [0, 0.25, 0.5, 0.75, 1]))
    assert not page.all("select")


def test_outputs_that_are_not_numbers_are_counted(photographs, tmp_path):
    def model(images):
        some = tf.where(tf.range(tf.shape(images)[0]) % 2 == 0, np.float32(np.nan), tf.reduce_mean(images, [1, 2, 3]))
        return {"some": some, "none": some * np.nan}

    asked = {"task": "raw", "image_size": "32x32", "scale": "raw", "limit": 6, "batch_size": 2, "quiet": True}
    page = Page(tfzip.report(tfzip.export(photographs, model, tmp_path / "out", **asked)))
    none, some = page.data["outputs"]
    assert (none["nonfinite"], none["mean"], none["counts"]) == (6, None, [])
    assert (some["nonfinite"], sum(some["counts"])) == (3, 3)
    assert "no finite value among 6" in page.html
    assert "<dd>3 of 6</dd>" in page.html


@pytest.mark.parametrize("layout", ["flat", "tfx"])
def test_it_lies_beside_the_index_or_where_it_is_asked_for(layout, digits, digits_model, tmp_path, capsys):
    asked = {"layout": layout, "image": "none", "limit": 9, "quiet": True}
    export = tfzip.export(digits[0], digits_model, tmp_path / "out", **asked)
    home = tmp_path / "out" / ("" if layout == "flat" else "tfzip-train")
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == str(home / "report.html")
    assert not Page(home / "report.html").all("img")
    assert cli.main(["report", str(tmp_path / "out"), "--to", str(tmp_path / "page.html"), "--seed", "3"]) == 0
    assert Page(tmp_path / "page.html").data == Page(home / "report.html").data
    assert tfzip.verify(tfzip.open(tmp_path / "out")) == []
    assert len(export) == 9


def test_it_goes_to_standard_output_if_asked(other, tmp_path, monkeypatch, capsysbinary):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(other / "raw"), "--to", "-"]) == 0
    assert capsysbinary.readouterr().out == Path(tfzip.report(other / "raw", "page.html")).read_bytes()
    assert os.listdir() == ["page.html"]


def test_the_same_call_gives_the_same_page_and_another_seed_other_pictures(out, tmp_path):
    pages = [
        Path(tfzip.report(out, tmp_path / f"{n}.html", seed=seed)).read_bytes() for n, seed in enumerate([0, 0, 1])
    ]
    assert pages[0] == pages[1]
    names = [set(re.findall(rb'class="filename"[^>]*>([^<]*)<', page)) for page in pages]
    assert names[0] != names[2]


def test_min_confidence_is_where_the_threshold_stands_first(out, tmp_path):
    page = Page(tfzip.report(out, tmp_path / "page.html", min_confidence=0.123))
    (slider,) = page.all("input", id="threshold")
    assert page.data["numbers"]["thresholds"][int(slider["value"])] == 0.123
    (passing,) = page.texts["#passing-count"]
    assert int(passing.replace(",", "")) == np.count_nonzero(
        tfzip.open(out).metadata["confidence"] >= np.float32(0.123)
    )


@pytest.mark.parametrize(("most", "shown"), [(8 * 8, True), (8 * 8 - 1, False)])
def test_an_image_may_claim_as_many_pixels_as_the_export_was_opened_for(out, tmp_path, most, shown):
    with tfzip.open(out, max_pixels=most) as export:
        page = Page(tfzip.report(export, tmp_path / "page.html"))
    assert bool(page.all("img")) == shown
    assert ("more than 63 pixels" in page.html) == (not shown)


def test_export_writes_it_last_and_replaces_it(digits, digits_model, tmp_path):
    asked = {"limit": 5, "quiet": True}
    tfzip.export(digits[0], digits_model, tmp_path / "out", report=True, **asked)
    assert "5</b> of 5 images" in Page(tmp_path / "out" / "report.html").html
    tfzip.export(digits[0], digits_model, tmp_path / "out", overwrite=True, **asked)
    assert not (tmp_path / "out" / "report.html").exists(), "a report of what was replaced"


@pytest.mark.parametrize("layout", ["flat", "tfx"])
def test_export_says_where_the_report_is(layout, digits, digits_files, tmp_path, capsys):
    command = ["export", str(digits[0]), "--model", digits_files["keras"], "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--layout", layout, "--limit", "3", "--report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (path,) = [line.removeprefix("report: ") for line in lines if line.startswith("report: ")]
    assert Page(path).data["numbers"]["records"] == 3
    assert lines[-1].endswith(str(tmp_path / "out") + (" --split train" if layout == "tfx" else ""))


def test_a_report_that_cannot_be_written_leaves_the_export(digits, digits_model, digits_files, tmp_path, capsys):
    (tmp_path / "images").mkdir()
    shutil.copy(digits[0] / "0" / os.listdir(digits[0] / "0")[0], tmp_path / "images" / "0.png")
    command = ["export", str(tmp_path / "images"), "--model", digits_files["keras"], "--out", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.html").mkdir()
    (tmp_path / "out" / "report.html" / "in the way").touch()
    assert cli.main([*command, "--report"]) == 2  # not empty, and no export
    assert "not empty" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "images")]) == 2
    shutil.rmtree(tmp_path / "out")
    tfzip.export(tmp_path / "images", digits_model, tmp_path / "out", quiet=True)
    assert cli.main(["report", str(tmp_path / "out"), "--to", str(tmp_path / "missing" / "page.html")]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "missing/page.html" in error
    (tmp_path / "folder").mkdir()
    assert cli.main(["report", str(tmp_path / "out"), "--to", str(tmp_path / "folder")]) == 2
    assert not list(tmp_path.glob("*.part"))
    assert tfzip.verify(tfzip.open(tmp_path / "out")) == []


def test_an_export_whose_report_cannot_be_written_is_finished_and_says_how_to_get_one(
    digits, digits_model, digits_files, tmp_path, capsys
):
    asked = {"limit": 3, "layout": "tfx", "quiet": True}
    tfzip.export(digits[0], digits_model, tmp_path / "out", **asked)
    in_the_way = tmp_path / "out" / "tfzip-train" / "report.html.part"
    in_the_way.mkdir()
    command = ["export", str(digits[0]), "--model", digits_files["keras"], "--out", str(tmp_path / "out")]
    assert cli.main([*command, "--layout", "tfx", "--limit", "4", "--overwrite", "--report"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(tmp_path / "out" / "tfzip-train" / "report.html") in error
    assert len(tfzip.open(tmp_path / "out")) == 4
    assert in_the_way.is_dir()
    in_the_way.rmdir()
    (again,) = re.findall("`tfzip (.*)`", error)
    assert cli.main(again.split()) == 0
    assert Page(tmp_path / "out" / "tfzip-train" / "report.html").data["numbers"]["records"] == 4


_STOPPED = """
import os, signal, sys, time
from tfzip import cli
def stop(event, arguments):
    if event == "open" and str(arguments[0]).endswith("report.html"):  # the page's template
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)
signal.signal(signal.SIGINT, signal.default_int_handler)  # which may be ignored where tests run
sys.addaudithook(stop)
cli.run()
"""


@pytest.mark.slow
def test_an_export_that_is_stopped_while_its_page_is_made_is_finished_and_says_so(digits, digits_files, tmp_path):
    command = ["export", str(digits[0]), "--model", digits_files["keras"], "--out", str(tmp_path / "out")]
    command = [sys.executable, "-c", _STOPPED, *command, "--limit", "3", "--report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stderr.splitlines()[-1]
    assert done.returncode == 130
    assert said.startswith("tfzip export: interrupted; the export is finished, its report is not: ")
    assert not (tmp_path / "out" / "report.html").exists()
    (again,) = re.findall("`tfzip (.*)`", said)
    assert cli.main(again.split()) == 0
    assert Page(tmp_path / "out" / "report.html").data["numbers"]["records"] == 3


@pytest.mark.parametrize(("name", "library"), [("jinja2", "Jinja2"), ("PIL", "Pillow")])
def test_what_is_not_installed_is_told_before_any_work(name, library, digits, tmp_path):
    code = f"import sys; sys.modules[{name!r}] = None; from tfzip import cli; sys.exit(cli.main(sys.argv[1:]))"
    command = ["export", str(digits[0]), "--model", "missing.keras", "--out", str(tmp_path / "out"), "--report"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert library in done.stderr
    assert "pip install 'tfzip[report]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("threshold", ["-0.1", "1.1", "nan"])
def test_a_threshold_is_from_0_to_1(out, threshold, capsys):
    assert cli.main(["report", str(out), "--min-confidence", threshold]) == 2
    assert "--min-confidence" in capsys.readouterr().err


def test_a_seed_is_from_0_on(out, capsys):
    assert cli.main(["report", str(out), "--seed", "-1"]) == 2
    assert "--seed -1" in capsys.readouterr().err


def test_a_damaged_shard_is_told_and_no_page_is_left(out, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("report.html"))
    (shard,) = copy.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)
    assert cli.main(["report", str(copy)]) == 1
    assert shard.name in capsys.readouterr().err
    assert not (copy / "report.html").exists()


def test_exports_of_one_record_and_of_predictions_without_scores(digits, digits_model, tmp_path):
    page = Page(tfzip.report(tfzip.export(digits[0], digits_model, tmp_path / "one", limit=1, quiet=True)))
    assert page.data["numbers"]["records"] == 1
    png = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
    told = tfzip.write(((label, f"{n}.png", png) for n, label in enumerate("abcab")), tmp_path / "labels", quiet=True)
    page = Page(tfzip.report(told))
    assert page.data["numbers"] is None
    assert [row["data-records"] for row in page.all("tr") if "data-class" in row] == ["2", "2", "1"]


def test_what_is_not_a_number_passes_no_threshold_and_is_counted(tmp_path):
    png = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
    scores = np.float32([[np.nan, 0.5], [0.75, 0.25], [0.125, 0.875], [np.nan, np.nan]])
    triples = [(row, f"{number}.png", png) for number, row in enumerate(scores)]
    page = Page(tfzip.report(tfzip.write(triples, tmp_path / "out", scores="probabilities", quiet=True)))
    numbers = page.data["numbers"]
    assert (numbers["records"], numbers["nonfinite"], numbers["passing"][0]) == (4, 2, 2)
    assert [passing[0] for passing in numbers["class_passing"]] == [1, 1]


def test_what_passes_counts_predictions_of_a_name_that_is_no_label(tmp_path, digits):
    names = [path.relative_to(digits[0]).as_posix() for path in sorted(digits[0].rglob("*.png"))[:9]]
    rows = [f"{name},{('cat', 'dog', 'cow')[n % 3]},0.{n + 1}" for n, name in enumerate(names)]
    (tmp_path / "told.csv").write_text("\n".join(["filename,prediction,confidence", *rows]))
    asked = {"predictions": tmp_path / "told.csv", "labels": ["cat", "dog"], "allow_partial": True, "quiet": True}
    page = Page(tfzip.report(tfzip.export(digits[0], None, tmp_path / "out", **asked)))
    passing = page.data["numbers"]["passing"][page.data["numbers"]["thresholds"].index(0.5)]
    assert passing == sum(each[50] for each in page.data["numbers"]["class_passing"]) == 5


@pytest.mark.slow
def test_very_long_texts_are_cut_so_that_a_page_stays_small(tmp_path):
    """Names of classes, of images, and of thousands of classes of one image."""
    png = tf.io.encode_png(np.zeros((8, 8, 1), np.uint8)).numpy()
    rng = np.random.default_rng(0)
    labels = ["x" * 10_000, *(f"class number {n}" for n in range(4999))]
    triples = ((row, f"{'y' * 10_000}{n}.png", png) for n, row in enumerate(rng.random((200, 5000), np.float32)))
    told = tfzip.write(triples, tmp_path / "out", labels=labels, task="multilabel", scores="probabilities", quiet=True)
    path = tfzip.report(told)
    assert os.path.getsize(path) < 5_000_000
    page = Page(path)
    assert max(map(len, page.texts["filename"])) < 400
    shown = {row["data-class"] for row in page.all("tr") if "data-class" in row}
    cards = [set(card["data-classes"].split()) for card in page.all("li") if "data-classes" in card]
    assert cards
    assert all(card and card <= shown for card in cards), "what the filter of classes offers, and no more"


_MANY = """
import sys
from peaks import peak
import tfzip
path, megabytes = peak(tfzip.report, sys.argv[1])
print(path, megabytes, "tensorflow" in sys.modules, sep="\\t")
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are measured on Linux")
def test_many_records_take_little_memory_and_a_few_megabytes(tmp_path, digits):
    """200,000 records of a real image each, with its truth."""
    images = [path.read_bytes() for path in sorted(digits[0].rglob("*.png"))]
    rng = np.random.default_rng(0)

    def batches(records=200_000, size=1000):
        for start in range(0, records, size):
            scores = rng.dirichlet(np.full(10, 0.2), size).astype(np.float32)
            names = [f"{n % 100:02d}/{n:06d}.png" for n in range(start, start + size)]
            yield scores, names, [images[n % len(images)] for n in range(start, start + size)]

    tfzip.write(batches(), tmp_path / "out", labels=list("abcdefghij"), quiet=True)
    ((path, megabytes, tensorflow),) = peaks.run(_MANY, tmp_path / "out")
    assert int(megabytes) < 500
    assert tensorflow == "False"
    assert os.path.getsize(path) < 5_000_000
    assert Page(path).data["numbers"]["records"] == 200_000
