"""Small pictures of records: what they show, how large they are, and what is said where there can be none."""

from __future__ import annotations

import base64
import io
import os
import pickle
import re
import struct
import subprocess
import sys
import warnings
import zlib

import bombs
import numpy as np
import peaks
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, features
from sklearn.datasets import load_sample_images
from test_formats import FILES, exif_block

from tfzip.errors import UsageError
from tfzip.record import Prediction, Record
from tfzip.thumbnails import Thumbnail, check_installed, thumbnails

PHOTOGRAPH = Image.fromarray(load_sample_images().images[0])  # 640 by 427


def record(encoded: bytes | None) -> Record:
    return Record("a", encoded, "", 0, 0, "0", Prediction(), None, {}, {})


def made(encoded: bytes | None, **how) -> Thumbnail:
    (only,) = thumbnails([record(encoded)], **how)
    return only


def saved(picture: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def as_npy(array: np.ndarray, **how) -> bytes:
    file = io.BytesIO()
    np.save(file, array, **how)
    return file.getvalue()


def webp(shown: Thumbnail) -> bytes:
    head, _, data = shown.uri.partition(",")
    assert (head, shown.why) == ("data:image/webp;base64", "")
    return base64.b64decode(data, validate=True)


def opened(shown: Thumbnail) -> Image.Image:
    picture = Image.open(io.BytesIO(webp(shown)))
    assert (picture.format, picture.size) == ("WEBP", (shown.width, shown.height))
    return picture.convert("RGBA")


# What they show.


@pytest.mark.parametrize("name", FILES)
def test_a_tiny_picture_is_shown_as_tfzip_decodes_it(name):
    """To the pixel, where the format leaves no choice to its decoder."""
    odd = FILES[name]
    if odd.format == "jxl":
        assert made(odd.encoded).why == "jxl: Pillow does not read it"
    else:
        off = np.abs(np.asarray(opened(made(odd.encoded)), np.int32) - odd.rgba)
        assert off.max() <= odd.tolerance


def see_through(picture: Image.Image) -> Image.Image:
    """With alpha that falls from left to right."""
    picture = picture.copy()
    picture.putalpha(Image.linear_gradient("L").rotate(90).resize(picture.size))
    return picture


DEEP = np.asarray(PHOTOGRAPH.convert("L")).astype(np.uint16) * 257
LARGE = {
    "jpeg": (saved(PHOTOGRAPH, "jpeg", quality=95), PHOTOGRAPH),
    "jpeg of 2.5 MP": (saved(PHOTOGRAPH.resize((1920, 1281)), "jpeg"), PHOTOGRAPH),
    "jpeg progressive": (saved(PHOTOGRAPH, "jpeg", quality=95, progressive=True), PHOTOGRAPH),
    "jpeg grey": (saved(PHOTOGRAPH.convert("L"), "jpeg", quality=95), PHOTOGRAPH.convert("L")),
    "jpeg cmyk": (saved(PHOTOGRAPH.convert("CMYK"), "jpeg", quality=95), PHOTOGRAPH),
    "mpo": (saved(PHOTOGRAPH, "mpo", save_all=True, append_images=[PHOTOGRAPH.rotate(180)]), PHOTOGRAPH),
    **{
        f"png {mode}": (saved(PHOTOGRAPH.convert(mode), "png"), PHOTOGRAPH.convert(mode))
        for mode in ("1", "L", "P", "RGB")
    },
    "png RGBA": (saved(see_through(PHOTOGRAPH), "png"), see_through(PHOTOGRAPH)),
    "png LA": (saved(see_through(PHOTOGRAPH.convert("L")), "png"), see_through(PHOTOGRAPH.convert("L"))),
    "png P with alpha": (saved(see_through(PHOTOGRAPH).quantize(200), "png"), see_through(PHOTOGRAPH).quantize(200)),
    "png 16": (saved(Image.fromarray(DEEP), "png"), PHOTOGRAPH.convert("L")),
    "gif": (saved(PHOTOGRAPH, "gif"), PHOTOGRAPH),
    "bmp": (saved(PHOTOGRAPH, "bmp"), PHOTOGRAPH),
    "webp": (saved(see_through(PHOTOGRAPH), "webp"), see_through(PHOTOGRAPH)),
    "tiff": (saved(PHOTOGRAPH, "tiff", compression="tiff_lzw"), PHOTOGRAPH),
    "npy": (as_npy(np.asarray(see_through(PHOTOGRAPH))), see_through(PHOTOGRAPH)),
    "npy 16": (as_npy(DEEP[..., None].astype(">u2")), PHOTOGRAPH.convert("L")),
    "npy float": (as_npy(np.asarray(PHOTOGRAPH, np.float32)), PHOTOGRAPH),
    **({"jp2": (saved(PHOTOGRAPH, "jpeg2000"), PHOTOGRAPH)} if features.check("jpg_2000") else {}),
    **({"avif": (saved(PHOTOGRAPH, "avif", speed=10), PHOTOGRAPH)} if features.check("avif") else {}),
}


def on_white(picture: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", picture.size, "white")
    return np.asarray(Image.alpha_composite(white, picture).convert("RGB"), np.float64)


@pytest.mark.parametrize("name", LARGE)
def test_a_large_picture_is_shown_smaller(name):
    encoded, source = LARGE[name]
    found = opened(made(encoded))
    expected = source.convert("RGBA").resize((128, 85), Image.Resampling.LANCZOS)
    assert found.size == expected.size
    assert np.abs(on_white(found) - on_white(expected)).mean() < 8
    assert np.abs(np.asarray(found, np.float64) - expected)[..., 3].mean() < 2
    assert np.abs(on_white(found.rotate(180)) - on_white(expected)).mean() > 20  # so the figure above says something


# Row 0 and column 0 of what is stored are these sides of what is to be seen (CIPA DC-008, 4.6.4).
STORED = {
    1: lambda seen: seen,  # top, left
    2: lambda seen: seen[:, ::-1],  # top, right
    3: lambda seen: seen[::-1, ::-1],  # bottom, right
    4: lambda seen: seen[::-1],  # bottom, left
    5: lambda seen: seen.transpose(1, 0, 2),  # left, top
    6: lambda seen: seen[:, ::-1].transpose(1, 0, 2),  # right, top
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
    8: lambda seen: seen[::-1].transpose(1, 0, 2),  # left, bottom
}
CORNERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)


def corners(shown: Thumbnail) -> np.ndarray:
    """Red, green and blue in the four corners, as they are whatever a lossy format makes of them."""
    return (np.asarray(opened(shown))[[[1], [-2]], [1, -2], :3] > 127) * np.uint8(255)


@pytest.mark.parametrize(("height", "width"), [(20, 30), (400, 600)])
@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_picture_is_turned_if_asked(kind, height, width):
    seen = CORNERS.repeat(height // 2, 0).repeat(width // 2, 1)
    for orientation, store in STORED.items():
        stored = store(seen)
        encoded = saved(Image.fromarray(stored), kind, exif=exif_block(orientation, "<"))
        turned, left = made(encoded, oriented=True), made(encoded)
        np.testing.assert_array_equal(corners(turned), CORNERS, str(orientation))
        np.testing.assert_array_equal(corners(left), store(CORNERS), str(orientation))
        assert (turned.width > turned.height, left.width > left.height) == (True, orientation < 5)


def test_nothing_but_pixels_is_kept():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Author", "a secret")
    exif = Image.Exif()
    exif[0x010E] = "a secret"
    for size in ((40, 30), (400, 300)):
        picture = PHOTOGRAPH.resize(size)
        for encoded in (
            saved(picture, "jpeg", exif=exif, icc_profile=profile, comment="a secret"),
            saved(picture, "png", exif=exif, icc_profile=profile, pnginfo=notes),
            saved(picture, "webp", exif=exif, icc_profile=profile, xmp=b"<x>a secret</x>"),
        ):
            assert b"a secret" in encoded
            file = webp(made(encoded))
            assert file[12:16] in (b"VP8 ", b"VP8L")  # a picture alone, without the header that metadata need
            assert 20 + int.from_bytes(file[16:20], "little") + file[16] % 2 == len(file)


# How large they are.


@given(st.integers(1, 400), st.integers(1, 400), st.integers(1, 200))
def test_the_longest_side_is_no_longer_than_asked_and_the_shape_is_kept(width, height, side):
    shown = made(saved(Image.new("L", (width, height)), "png", compress_level=1), side=side)
    longest = max(width, height)
    assert max(shown.width, shown.height) == min(side, longest)
    for found, whole in ((shown.width, width), (shown.height, height)):
        assert found >= 1
        assert abs(found - whole * min(1, side / longest)) < 1
    assert opened(shown).size == (shown.width, shown.height)


def test_a_photograph_takes_few_bytes():
    assert len(webp(made(LARGE["jpeg"][0]))) < 4096


# Many of them.


def test_many_are_made_in_order_and_few_are_taken_ahead():
    sizes = [(1 + 13 * number % 700, 1 + 29 * number % 500) for number in range(60)]
    files = [saved(Image.new("RGB", size, (number, 0, 0)), "png") for number, size in enumerate(sizes)]
    files[10], files[20], files[30] = None, b"", files[30][:-20]
    taken = []

    def records():
        for number, encoded in enumerate(files):
            taken.append(number)
            yield record(encoded)

    found = thumbnails(records(), side=50)
    first = next(found)
    assert len(taken) < 20
    assert [first, *found] == [made(encoded, side=50) for encoded in files]


def test_pillow_and_the_warnings_are_as_they_were():
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    assert len(list(thumbnails([record(LARGE["png RGB"][0]), record(b"none")], max_pixels=7))) == 2
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


# Where there can be none.


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def with_chunk(png: bytes, name: bytes, data: bytes) -> bytes:
    """Behind the header of a PNG."""
    return png[:33] + chunk(name, data) + png[33:]


def wide_gif(disposal: int) -> bytes:
    """A small frame on a canvas that is as large as can be."""
    data = bytearray(bombs.gif(4, 4))
    data[6:10] = struct.pack("<HH", 65535, 65535)
    data[data.index(b"!\xf9\4") + 3] = disposal << 2
    return bytes(data)


def headed(header: str) -> bytes:
    """An npy of a header alone."""
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()


class Trap:
    def __reduce__(self):
        return os.mkdir, ("trap",)


TINY = saved(PHOTOGRAPH.resize((9, 7)), "png")
CLAIMED = "more than 180000000 pixels"
HOSTILE = {
    "no image": (None, "exported without images"),
    "no bytes": (b"", "no bytes"),
    "noise": (bytes(range(256)) * 9, "damaged, or of a kind that Pillow does not read"),
    "a program": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "damaged, or of a kind"),
    "another format": (saved(PHOTOGRAPH, "ppm"), "damaged, or of a kind"),
    "pixels without a range": (saved(PHOTOGRAPH.convert("F"), "tiff"), r"mode F\) have no range"),
    **{
        f"half of a {name}": (encoded[: len(encoded) // 2], "truncated|Truncated|damaged|broken|failed|decode")
        for name, (encoded, _) in LARGE.items()
        if name not in ("mpo", "npy", "npy 16", "npy float")
    },
    "png": (bombs.png(20_000, 20_000), CLAIMED),
    "jpeg": (bombs.jpeg(20_000, 20_000), CLAIMED),
    "gif": (bombs.gif(20_000, 20_000), CLAIMED),
    "gif canvas": (wide_gif(1), CLAIMED),
    "gif canvas to be cleared": (wide_gif(2), CLAIMED),
    "bmp": (bombs.bmp(60_000, 60_000), CLAIMED),
    "webp": (bombs.webp(16_383, 16_383), CLAIMED),
    "webp animated": (bombs.webp(16_383, 16_383, frames=3), CLAIMED),
    "tiff": (bombs.tiff(20_000, 20_000), CLAIMED),
    "npy": (bombs.npy(2**20, 2**20), CLAIMED),
    "npy cut": (bombs.npy(10_000, 10_000), "npy: not as many bytes as its shape says"),
    "npy pickled": (as_npy(np.array([[Trap()]], object), allow_pickle=True), "npy: an array of object"),
    "a pickle": (pickle.dumps(Trap()), "damaged, or of a kind"),
    "npy text": (as_npy(np.array([["a"]])), "npy: an array of <U1"),
    "npy a number": (as_npy(np.uint8(7)), "is no image"),
    "npy a row": (as_npy(np.zeros(5, np.uint8)), "is no image"),
    "npy too deep": (as_npy(np.zeros((2, 2, 2, 2), np.uint8)), "is no image"),
    "npy of Fortran": (as_npy(np.asfortranarray(np.zeros((3, 2), np.uint8))), "is no image"),
    "npy empty": (as_npy(np.zeros((0, 5), np.uint8)), "is no image"),
    "npy of less than none": (headed("{'descr': '|u1', 'fortran_order': False, 'shape': (-3, -3)}"), "is no image"),
    "npy no number": (as_npy(np.full((2, 2), np.nan)), "npy: not all pixels are from 0 to 255"),
    "npy too bright": (as_npy(np.full((2, 2), 256.0)), "npy: not all pixels are from 0 to 255"),
    "npy header": (headed("{'descr': __import__('os').mkdir('trap')}"), "npy: its header cannot be read"),
    "npy nested header": (headed("(" * 60_000), "npy: its header cannot be read"),
    "png text": (with_chunk(TINY, b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8), 9)), "too large"),
    "png profile": (with_chunk(TINY, b"iCCP", b"a\0\0" + zlib.compress(bytes(10**8), 9)), "too large"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_shown_is_told_in_a_short_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    encoded, why = HOSTILE[name]
    shown = made(encoded, oriented=True)
    assert shown == ("", 0, 0, shown.why)
    assert re.search(why, shown.why)
    assert len(shown.why) <= 120
    assert shown.why.isprintable()
    assert " at 0x" not in shown.why
    assert not os.listdir()  # nothing was called


def test_a_cut_file_is_told_though_the_process_reads_such(monkeypatch):
    """As TFDS lets it."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    encoded = LARGE["jpeg"][0]
    assert "truncated" in made(encoded[: len(encoded) // 2]).why
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_damaged_exif_leaves_a_picture_as_it_is():
    exif = exif_block(6, "<")
    for damaged in (exif[:20], b"Exif\0\0" + b"\xff" * 40, exif.replace(b"\3\0\1\0\0\0\6", b"\2\0\xff\xff\xff\xff\6")):
        shown = made(saved(PHOTOGRAPH, "jpeg", exif=damaged), oriented=True)
        assert (shown.width, shown.height) == (128, 85)


def test_a_claim_takes_no_memory(tmp_path):
    claims = [name for name, (_, why) in HOSTILE.items() if why in (CLAIMED, "too large") or "npy" in name]
    for name in claims:
        (tmp_path / name).write_bytes(HOSTILE[name][0])
    code = """
import sys
from pathlib import Path
from peaks import peak
from tfzip.record import Prediction, Record
from tfzip.thumbnails import thumbnails
for path in [Path(sys.argv[1], "npy"), *Path(sys.argv[1]).iterdir()]:
    record = Record("a", path.read_bytes(), "", 0, 0, "0", Prediction(), None, {}, {})
    print(path.name, peak(list, thumbnails([record]))[1], sep="\\t")
"""
    (_, usual), *others = peaks.run(code, tmp_path)
    assert len(others) == len(claims) > 10
    for name, megabytes in others:
        assert int(megabytes) < int(usual) + 40, name


def test_neither_tensorflow_nor_jinja_is_imported():
    code = f"""
import sys
from tfzip.record import Prediction, Record
from tfzip.thumbnails import check_installed, thumbnails
check_installed()
record = Record("a", {TINY!r}, "", 0, 0, "0", Prediction(), None, {{}}, {{}})
assert [bool(each.uri) for each in thumbnails([record])] == [True]
assert not {{"tensorflow", "jinja2"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pillow_the_pip_command_is_named(monkeypatch):
    check_installed()
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UsageError, match=r"pip install 'tfzip\[report\]'"):
        check_installed()
