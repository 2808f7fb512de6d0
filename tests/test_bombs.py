"""An image that claims more pixels than are allowed is a failure, which costs nothing and harms no other."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import bombs
import numpy as np
import pillow_jxl  # noqa: F401 - Pillow then writes JPEG XL
import pytest
import tensorflow as tf
from PIL import Image, features

import tfzip
from tfzip import cli, headers, images
from tfzip.foreign import translate

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:
    pillow_heif = None

WEBP, JXL = hasattr(tf.io, "decode_webp"), hasattr(tf.io, "decode_jxl")  # TensorFlow 2.16 lacks both


def saved(height: int, width: int, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(file, kind)
    return file.getvalue()


MADE = {
    "png": bombs.png,
    "jpeg": bombs.jpeg,
    "progressive": lambda height, width: bombs.jpeg(height, width, progressive=True),
    "gif": bombs.gif,
    "webp": bombs.webp,
    "animated webp": lambda height, width: bombs.webp(height, width, frames=3),
    "tiff": bombs.tiff,
    **{kind: lambda height, width, kind=kind: saved(height, width, kind) for kind in ("bmp", "jxl")},
    **({"jp2": lambda height, width: saved(height, width, "jpeg2000")} if features.check("jpg_2000") else {}),
    **({"avif": lambda height, width: saved(height, width, "avif")} if features.check("avif") else {}),
    **({"heic": lambda height, width: saved(height, width, "heif")} if pillow_heif else {}),
    "npy": lambda height, width: bombs.npy(height, width),
}
"""Per kind, what makes a picture."""
LACKING = set() if JXL else {"jxl"}  # of these only the header is read

HEIGHT, WIDTH = 20, 30


def model(pixels: tf.Tensor) -> tf.Tensor:
    """Each image's brightness, as it is."""
    return tf.reduce_mean(pixels, axis=(1, 2, 3))[:, tf.newaxis]


def export(source, out, function=model, **options) -> tfzip.Export:
    settings = {"task": "raw", "scale": "raw", "image_size": (8, 8), "quiet": True, "batch_size": 64}
    return tfzip.export(str(source), function, str(out), **(settings | options))


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.png").write_bytes(content)  # a name tells nothing
    return folder


def reasons(export: tfzip.Export) -> dict[str, str]:
    assert {failure.stage for failure in export.failures} <= {"decode"}
    return {failure.filename.removesuffix(".png"): failure.error for failure in export.failures}


# The bound.


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Every kind, of the same size; and a smaller one."""
    files = {kind: make(HEIGHT, WIDTH) for kind, make in MADE.items()}
    return write(tmp_path_factory.mktemp("pictures") / "in", {**files, "small": bombs.png(5, 7)})


def test_an_image_of_as_many_pixels_as_are_allowed_is_decoded(pictures, tmp_path):
    made = export(pictures, tmp_path / "out", max_pixels=HEIGHT * WIDTH)
    assert reasons(made).keys() == LACKING
    sizes = {record.filename.removesuffix(".png"): (record.height, record.width) for record in made[:]}
    assert sizes == {**dict.fromkeys(MADE.keys() - LACKING, (HEIGHT, WIDTH)), "small": (5, 7)}


def test_an_image_of_one_pixel_more_is_a_failure_that_says_so_and_the_others_are_unharmed(pictures, tmp_path):
    made = export(pictures, tmp_path / "out", max_pixels=HEIGHT * WIDTH - 1)
    assert [record.filename for record in made[:]] == ["small.png"]
    alone = export(write(tmp_path / "in", {"small": bombs.png(5, 7)}), tmp_path / "alone")
    assert made[0].outputs == alone[0].outputs
    told = reasons(made)
    assert told.keys() == MADE.keys()
    for kind, reason in told.items():
        said = f"{HEIGHT}x{WIDTH} pixels are more than --max-pixels {HEIGHT * WIDTH - 1} allows"
        assert reason in (said, f"{kind}: {said}"), kind


@pytest.mark.parametrize(
    ("channels", "options"),
    [(1, {"image": "jpeg:90"}), (3, {"image": "png"}), (3, {"alpha": "white"}), (4, {})],
    ids=str,
)
def test_it_holds_whatever_is_made_of_the_image(pictures, tmp_path, channels, options):
    spec = tf.TensorSpec((None, 8, 8, channels))
    function = tf.function(model, input_signature=[spec], autograph=False)
    settings = {"image_size": None, "max_pixels": HEIGHT * WIDTH - 1, **options}
    made = export(pictures, tmp_path / "out", function, **settings)
    assert len(made) == 1
    assert reasons(made).keys() == MADE.keys()


@pytest.mark.parametrize("size", [(20_000, 3), (3, 20_000), (16_000, 1)])
@pytest.mark.parametrize("kind", ["png", "jpeg", "progressive", "gif"])
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_long_thin_image_is_no_large_one(kind, size, channels):
    encoded = MADE[kind](*size)
    expected = tf.io.decode_image(encoded, channels=0 if kind == "gif" else channels, expand_animations=False)
    if kind == "gif" and channels == 1:
        expected = expected[..., :1]
    found = tf.function(lambda encoded: images.decode(encoded, channels), autograph=False)(tf.constant(encoded))
    np.testing.assert_array_equal(found, expected)
    assert found.shape[:2] == size


# What headers claim.


@functools.cache
def graph(whole: bool):
    spec = [tf.TensorSpec((), tf.string)]
    return tf.function(lambda encoded: headers.claim(encoded, whole=whole), spec, autograph=False)


def claim(encoded: bytes, *, whole: bool = False) -> list[int]:
    """Height, width, frames and pixels in all; the same in a graph and by hand."""
    found = headers.claim(tf.constant(encoded), whole=whole).numpy().tolist()
    assert graph(whole)(tf.constant(encoded)).numpy().tolist() == found
    return found


@pytest.mark.parametrize("kind", [kind for kind in MADE if kind not in ("tiff", "jp2", "avif", "heic", "npy")])
def test_every_size_is_read_as_another_decoder_reads_it(kind):
    random = np.random.default_rng(1)
    most = 300 if kind in ("bmp", "jxl") else 3000
    for size in [(1, 1), (1, 256), (257, 1), (512, 513), *random.integers(1, most, (4, 2)).tolist()]:
        encoded = MADE[kind](*size)
        width, height = Image.open(io.BytesIO(encoded)).size
        assert claim(encoded) == [height, width, 1, height * width] == [*size, 1, size[0] * size[1]]


SIDES = [(8, 8), (256, 256), (9, 256), (512, 7), (513, 700), (8192, 2), (8193, 3), (2, 9000), (30, 40), (90, 160)]


@pytest.mark.parametrize("boxes", [False, True])
@pytest.mark.parametrize("size", SIDES)
def test_every_way_to_write_the_size_of_a_jpeg_xl_is_read(size, boxes):
    file = io.BytesIO()
    Image.new("L", size[::-1]).save(file, "jxl", lossless=True, effort=1, use_container=boxes)
    encoded = file.getvalue()
    assert claim(encoded)[:2] == [*size]
    if boxes:  # another box before the picture's, one of them with a size of 64 bits
        behind = encoded.index(b"ftyp") - 4 + 20
        long = (1).to_bytes(4, "big") + b"jbrd" + (24).to_bytes(8, "big") + b"jxlc\xff\x0a\0\0"
        short = (16).to_bytes(4, "big") + b"xml " + b"jxlc\xff\x0a\0\0"
        assert claim(encoded[:behind] + short + long + encoded[behind:])[:2] == [*size]


def in_parts(encoded: bytes, first: int) -> bytes:
    """A JPEG XL in boxes, of which the first part holds some bytes."""
    signature, kind = b"\0\0\0\x0cJXL \r\n\x87\n", b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
    parts = [(0).to_bytes(4, "big") + encoded[:first], (2**31 + 1).to_bytes(4, "big") + encoded[first:]]
    return signature + kind + b"".join((len(part) + 8).to_bytes(4, "big") + b"jxlp" + part for part in parts)


@pytest.mark.skipif(not JXL, reason="TensorFlow has no JPEG XL")
def test_a_jpeg_xl_whose_size_lies_in_two_parts_is_refused(tmp_path):
    whole = saved(HEIGHT, WIDTH, "jxl")
    files = {f"{first:02}": in_parts(whole, first) for first in (1, 2, 3, 13, 14, len(whole) - 2)}
    for encoded in files.values():
        assert tf.io.decode_image(encoded, expand_animations=False).shape[:2] == (HEIGHT, WIDTH)
    made = export(write(tmp_path / "in", files), tmp_path / "out")
    assert [record.filename for record in made[:]] == ["14.png", f"{len(whole) - 2:02}.png"]
    said = "its size cannot be read, and may be more than --max-pixels 180000000 allows"
    assert reasons(made) == dict.fromkeys(("01", "02", "03", "13"), said)


@pytest.mark.parametrize("block", [1, 2, 3, 100, 254, 255])
@pytest.mark.parametrize("frames", [1, 2, 25])
def test_all_frames_of_a_gif_count_however_they_are_cut(frames, block):
    encoded = bombs.gif(70, 90, frames=frames, block=block)
    assert getattr(Image.open(io.BytesIO(encoded)), "n_frames", 1) == frames
    assert claim(encoded) == [70, 90, frames, frames * 70 * 90]


def test_a_gif_is_as_large_as_its_largest_frames():
    tall, wide = bombs.gif(60, 2), bombs.gif(3, 50)
    frame = wide[wide.index(b"!\xf9") : -1]
    encoded = tall[:-1] + frame + b";"
    assert tf.io.decode_image(encoded, expand_animations=False).shape[:2] == (60, 50)
    assert claim(encoded) == [60, 50, 2, 60 * 50]
    assert claim(encoded, whole=True) == [60, 50, 2, 2 * 60 * 50]


def test_of_a_webp_the_first_frame_counts_unless_all_are_decoded():
    encoded = bombs.webp(40, 50, frames=7)
    assert claim(encoded) == [40, 50, 1, 2000]
    assert claim(encoded, whole=True) == [40, 50, 7, 14_000]
    assert claim(bombs.webp(40, 50), whole=True) == [40, 50, 1, 2000]


@pytest.mark.parametrize("kind", [kind for kind in MADE if kind not in ("tiff", "jp2", "avif", "heic")])
def test_wherever_a_file_ends_it_claims_no_more_or_cannot_be_read(kind):
    encoded = bombs.gif(HEIGHT, WIDTH, frames=2) if kind == "gif" else MADE[kind](HEIGHT, WIDTH)
    for end in range(min(len(encoded), 120)):
        try:
            height, width, _, pixels = claim(encoded[:end], whole=True)
        except tf.errors.InvalidArgumentError:
            assert kind in ("jpeg", "progressive")
            continue
        assert pixels == 2**62 or (height <= HEIGHT and width <= 256 and pixels <= 3 * HEIGHT * WIDTH)


FORGED = {
    "png": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + b"\xff" * 8,
    "bmp": bombs.bmp(60_000, 60_000),
    "bmp from the top": bombs.bmp(-60_000, 60_000),
    "npy": bombs.npy(60_000, 60_000),
    "jxl": bombs.jxl(2**20, 1),
    "jxl twice as wide": bombs.jxl(2**30, 7),
    "webp": bombs.webp(16_384, 16_384)[:26] + bytes(9),
}


def test_headers_that_are_forged_are_refused(tmp_path):
    """TensorFlow ends the process where a JPEG XL claims to be 2**31 pixels wide."""
    folder = write(tmp_path / "in", {**FORGED, "good": bombs.png(HEIGHT, WIDTH)})
    made = export(folder, tmp_path / "out")
    assert len(made) == 1
    told = reasons(made)
    assert told.keys() == FORGED.keys()
    assert all(reason.endswith("allows") for reason in told.values()), told


# Models that decode by themselves, and predictions made elsewhere.


@tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
def of_bytes(encoded: tf.Tensor) -> tf.Tensor:
    """How many bytes there are; a real one would decode them."""
    return tf.cast(tf.strings.length(encoded), tf.float32)[:, tf.newaxis]


def exported_bytes(source, out, **options) -> tfzip.Export:
    return tfzip.export(str(source), of_bytes, str(out), task="raw", quiet=True, **options)


def test_a_model_of_bytes_gets_none_of_an_image_that_claims_too_much(pictures, tmp_path):
    made = exported_bytes(pictures, tmp_path / "out", max_pixels=HEIGHT * WIDTH - 1)
    assert [record.filename for record in made[:]] == ["small.png"]
    assert reasons(made).keys() == MADE.keys()


@pytest.mark.skipif(not WEBP, reason="TensorFlow has no WebP")
@pytest.mark.parametrize("image", ["keep", pytest.param("png", marks=pytest.mark.slow)])
def test_for_a_model_of_bytes_all_frames_of_an_animation_count(tmp_path, image):
    files = {"webp": bombs.webp(40, 50, frames=7), "gif": bombs.gif(40, 50, frames=7), "still": bombs.webp(40, 50)}
    folder = write(tmp_path / "in", files)
    made = exported_bytes(folder, tmp_path / "out", max_pixels=13_999, image=image)
    assert [record.filename for record in made[:]] == ["still.png"]
    said = "40x50 pixels in 7 frames are more than --max-pixels 13999 allows"
    assert reasons(made) == {"webp": said, "gif": said}
    assert len(exported_bytes(folder, tmp_path / "more", max_pixels=14_000, image=image)) == 3
    pixels = export(folder, tmp_path / "pixels", max_pixels=13_999)
    assert reasons(pixels) == {"gif": said}  # of a WebP we decode one frame


def test_predictions_made_elsewhere_are_of_images_within_the_bound_too(pictures, tmp_path):
    names = sorted([*MADE, "small"])
    rows = "".join(f"{name}.png,1\n" for name in names)
    (tmp_path / "table.csv").write_text("filename,label\n" + rows)
    table, source = str(tmp_path / "table.csv"), str(pictures)
    made = tfzip.export(
        source, None, str(tmp_path / "out"), predictions=table, max_pixels=HEIGHT * WIDTH - 1, quiet=True
    )
    assert [record.filename for record in made[:]] == ["small.png"]
    assert reasons(made).keys() == MADE.keys()


# Reading.


@pytest.mark.parametrize("kind", ["png", "progressive", "gif", "tiff"])
def test_a_loop_over_an_export_decodes_no_image_that_claims_too_much(tmp_path, kind):
    folder = write(tmp_path / "in", {"a": bombs.png(2, 3), "b": MADE[kind](HEIGHT, WIDTH)})
    made = export(folder, tmp_path / "out")
    assert len(list(made)) == 2
    assert len(list(tfzip.open(made.path, max_pixels=HEIGHT * WIDTH))) == 2
    loop = iter(tfzip.open(made.path, max_pixels=HEIGHT * WIDTH - 1))
    assert next(loop)[1] == "a.png"
    said = rf"^b\.png: .*{HEIGHT}x{WIDTH} pixels are more than --max-pixels {HEIGHT * WIDTH - 1} allows$"
    with pytest.raises(tfzip.DataError, match=said):
        next(loop)


def test_a_loop_names_the_image_that_it_cannot_decode(tmp_path):
    whole = bombs.png(64, 64)
    cut = whole[:33] + whole[-12:]  # has its header and its end, and no more is looked at
    folder = write(tmp_path / "in", {"a": whole, "b": cut, "c": whole})
    (tmp_path / "table.csv").write_text("filename,label\na.png,0\nb.png,0\nc.png,0\n")
    made = tfzip.export(str(folder), None, str(tmp_path / "out"), predictions=str(tmp_path / "table.csv"), quiet=True)
    assert len(made) == 3
    loop = iter(made)
    assert next(loop)[1] == "a.png"
    with pytest.raises(tfzip.DataError, match=r"^b\.png: .*PNG"):
        next(loop)


# Pillow.


@pytest.mark.parametrize("most", [1, 299, 300])
def test_pillows_own_guard_neither_warns_nor_stops_and_is_left_as_it_was(most, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = translate(bombs.tiff(HEIGHT, WIDTH), HEIGHT * WIDTH)
        with pytest.raises(ValueError, match="pixels are more than --max-pixels 599 allows"):
            translate(bombs.tiff(HEIGHT, WIDTH), HEIGHT * WIDTH - 1)
    assert tf.io.decode_png(made).shape[:2] == (HEIGHT, WIDTH)
    assert most == Image.MAX_IMAGE_PIXELS


# What it costs.

SCRIPT = """
import sys, warnings
import bombs, tensorflow as tf, tfzip
from peaks import peak

warnings.simplefilter("error")

def model(pixels):
    return tf.reduce_mean(pixels, axis=(1, 2, 3))[:, tf.newaxis]

for name in ("without", "with"):
    how = {"task": "raw", "scale": "raw", "image_size": (8, 8), "quiet": True}
    made, megabytes = peak(lambda: tfzip.export(f"{sys.argv[1]}/{name}", model, f"{sys.argv[1]}/{name}.out", **how))
    outputs = [float(record.outputs["output"][0]) for record in made[:]]
    print(len(made), megabytes, outputs[-1], flush=True)
for failure in made.failures:
    print(failure.filename, failure.stage, failure.error, sep="|")
"""
BOMBS = {
    "png": (bombs.png, 20_000, 20_000),  # TensorFlow has a limit of its own: 2**29 pixels
    "larger png": (bombs.png, 30_000, 30_000),
    "jpeg": (bombs.jpeg, 20_000, 20_000),  # here of 2**29 samples
    "progressive jpeg": (MADE["progressive"], 20_000, 20_000),
    "gif": (bombs.gif, 20_000, 20_000),
    "gif of many frames": (lambda height, width: bombs.gif(height, width, frames=30), 6000, 6000),
    "bmp": (bombs.bmp, 30_000, 30_000),
    "npy": (bombs.npy, 30_000, 30_000),
    "tiff": (bombs.tiff, 30_000, 30_000),
    "webp": (bombs.webp, 16_000, 16_000),
    "animated webp": (MADE["animated webp"], 16_000, 16_000),
}


@pytest.mark.slow
def test_a_folder_full_of_bombs_costs_no_memory(tmp_path):
    good = {f"{number:02}": bombs.png(20 + number, 30) for number in range(40)}
    write(tmp_path / "without", good)
    made = {name: make(*size) for name, (make, *size) in BOMBS.items()}
    assert max(map(len, made.values())) < 2_000_000
    write(tmp_path / "with", {**good, **made})
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    without, with_bombs, *failures = done.stdout.splitlines()
    records, before, last = without.split()
    assert with_bombs.split()[::2] == [records, last] == ["40", last]
    assert int(with_bombs.split()[1]) - int(before) < 150  # MB
    told = {name: (stage, error) for name, stage, error in (line.split("|") for line in failures)}
    assert told.keys() == {f"{name}.png" for name in BOMBS}
    for name, (_, height, width) in BOMBS.items():
        stage, error = told[f"{name}.png"]
        assert stage == "decode"
        assert error.removeprefix("tiff: ").startswith(f"{height}x{width} pixels"), error
        assert error.endswith("are more than --max-pixels 180000000 allows"), error
    assert "bomb" not in done.stderr.lower()


def test_the_command_takes_it_and_tells_the_failure(pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    out = str(tmp_path / "out")
    how = ["--task", "raw", "--scale", "raw", "--image-size", "8x8", "--max-pixels", "35"]
    assert cli.main(["export", str(pictures), "--model", "test_bombs:model", "--out", out, *how]) == 0
    shown = capsys.readouterr().out
    assert f"{len(MADE)} failures" in shown
    assert f"decode: {HEIGHT}x{WIDTH} pixels are more than --max-pixels 35 allows" in shown
