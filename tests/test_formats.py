"""Odd files of every format through the whole export: their pixels are those that another decoder finds.

The model hands its input on, so that each record holds the pixels that the model got.
"""

import io
import re
import struct
import sys
import zlib
from typing import NamedTuple

import keras
import numpy as np
import pillow_jxl  # noqa: F401 - Pillow then writes JPEG XL
import pytest
import tensorflow as tf
from PIL import Image, ImageFile, ImageOps, features

import tfzip
from tfzip import exif, images
from tfzip.decode import decoder
from tfzip.extract import extract

try:
    import pillow_heif

    pillow_heif.register_heif_opener()
except ImportError:
    pillow_heif = None

HEIGHT, WIDTH = 12, 16
NO_WEBP = not hasattr(tf.io, "decode_webp")  # TensorFlow 2.16
NO_JXL = not hasattr(tf.io, "decode_jxl")


# The picture in all files.

ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([40 + 12 * COLUMNS, 230 - 14 * ROWS, 60 + 6 * (ROWS + COLUMNS)], axis=-1).astype(np.uint8)
ALPHA = (255 - 10 * ROWS - 5 * COLUMNS).astype(np.uint8)
RGBA = np.dstack([RGB, ALPHA])
GREY = (30 + 9 * ROWS + 7 * COLUMNS).astype(np.uint8)
INDICES = (ROWS // 3 * 4 + COLUMNS // 4).astype(np.uint8)  # 0 to 15
PALETTE = np.random.default_rng(5).integers(0, 256, (16, 3)).astype(np.uint8)
DEEP = np.random.default_rng(6).integers(0, 2**16, (HEIGHT, WIDTH, 4)).astype(np.uint16)
PICTURE = Image.fromarray(RGB)
OTHERS = [PICTURE.transpose(Image.Transpose.ROTATE_180), PICTURE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)]


def saved(image: Image.Image, kind: str, **how) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def png(samples: np.ndarray, depth: int, colour: int, *, interlaced: bool = False, chunks: tuple = ()) -> bytes:
    """Written by hand (PNG, W3C): Pillow does not write all depths, nor interlaced."""
    height, width, channels = samples.shape

    def packed(part: np.ndarray) -> bytes:
        if not part.size:
            return b""
        if depth == 16:
            rows = part.astype(">u2", order="C").view(np.uint8).reshape(len(part), -1)
        else:
            bits = np.unpackbits(part.astype(np.uint8).reshape(len(part), -1, 1), axis=2)[..., 8 - depth :]
            rows = np.packbits(bits.reshape(len(part), -1), axis=1)
        return b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    adam7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    passes = adam7 if interlaced else ((0, 0, 1, 1),)
    pixels = b"".join(packed(samples[top::down, left::right]) for top, left, down, right in passes)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    assert channels == {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def bmp(rows: list[bytes], bits: int, *, palette: bytes = b"", compression: int = 0, height: int = HEIGHT) -> bytes:
    """Rows from the bottom up, written by hand; a negative height turns them over."""
    data = b"".join(row + bytes(-len(row) % 4) if compression == 0 else row for row in rows)
    colours = len(palette) // 4
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, height, 1, bits, compression, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + palette + data


def run_lengths(row: np.ndarray) -> bytes:
    return b"".join(bytes([1, index]) for index in row) + b"\0\0"


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def ycck(**how) -> bytes:
    """A JPEG in CMYK whose colours went through YCbCr, as Photoshop writes it and Pillow does not."""
    inks = [ImageOps.invert(part) for part in ImageOps.invert(PICTURE).convert("YCbCr").split()]
    jpeg = saved(Image.merge("CMYK", [*inks, Image.new("L", PICTURE.size)]), "jpeg", **how)
    transform = jpeg.index(b"Adobe") + 11
    return jpeg[:transform] + b"\2" + jpeg[transform + 1 :]


class Odd(NamedTuple):
    encoded: bytes
    rgba: np.ndarray
    tolerance: int = 0
    format: str = ""


def opaque(rgb: np.ndarray) -> np.ndarray:
    rgb = np.broadcast_to(rgb.reshape(HEIGHT, WIDTH, -1), (HEIGHT, WIDTH, 3))
    return np.dstack([rgb, np.full((HEIGHT, WIDTH), 255, np.uint8)])


def by_pillow(encoded: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGBA"))


def png_files() -> dict[str, Odd]:
    files = {}
    palette = (b"PLTE", PALETTE.tobytes())
    transparency = np.arange(16, dtype=np.uint8)[::-1] * 17
    for interlaced in (False, True):
        kind = " interlaced" if interlaced else ""

        def add(name: str, rgba: np.ndarray, *how, chunks=(), tolerance=0, kind=kind, interlaced=interlaced) -> None:
            files[name + kind] = Odd(png(*how, interlaced=interlaced, chunks=chunks), rgba, tolerance, "png")

        for depth in (1, 2, 4, 8):
            most = 2**depth - 1
            samples = (GREY >> (8 - depth))[..., None]
            add(f"grey {depth}", opaque((samples * (255 // most)).astype(np.uint8)), samples, depth, 0)
            if depth < 8:
                indices = INDICES % (most + 1)
                few = (b"PLTE", PALETTE[: most + 1].tobytes())
                add(f"palette {depth}", opaque(PALETTE[indices]), indices[..., None], depth, 3, chunks=(few,))
        add("palette 8", opaque(PALETTE[INDICES]), INDICES[..., None], 8, 3, chunks=(palette,))
        shown = np.dstack([PALETTE[INDICES], transparency[INDICES]])
        clear = (b"tRNS", transparency.tobytes())
        add("palette with alpha", shown, INDICES[..., None], 8, 3, chunks=(palette, clear))
        add("rgb 8", opaque(RGB), RGB, 8, 2)
        add("rgba 8", RGBA, RGBA, 8, 6)
        grey_alpha = np.dstack([GREY, ALPHA])
        add("grey with alpha 8", np.dstack([GREY, GREY, GREY, ALPHA]), grey_alpha, 8, 4)
        eight = np.round(DEEP / 257).astype(np.uint8)
        add("grey 16", opaque(eight[..., :1]), DEEP[..., :1], 16, 0, tolerance=1)
        add("rgb 16", opaque(eight[..., :3]), DEEP[..., :3], 16, 2, tolerance=1)
        add("rgba 16", eight, DEEP, 16, 6, tolerance=1)
        deep_grey = np.dstack([eight[..., :1]] * 3 + [eight[..., 3:]])
        add("grey with alpha 16", deep_grey, DEEP[..., [0, 3]], 16, 4, tolerance=1)
    return files


def jpeg_files() -> dict[str, Odd]:
    fine = {"quality": 97, "subsampling": 0}
    thumbnail = exif_block(1, "<", thumbnail=saved(OTHERS[0].resize((8, 6)), "jpeg"))
    files = {
        "baseline": saved(PICTURE, "jpeg", **fine),
        "progressive": saved(PICTURE, "jpeg", progressive=True, **fine),
        "optimized": saved(PICTURE, "jpeg", optimize=True, **fine),
        "restarts": saved(PICTURE, "jpeg", restart_marker_blocks=1, **fine),
        "grey": saved(Image.fromarray(GREY), "jpeg", quality=97),
        "grey progressive": saved(Image.fromarray(GREY), "jpeg", quality=97, progressive=True),
        "rgb": saved(PICTURE, "jpeg", keep_rgb=True, quality=97),
        "cmyk": saved(PICTURE.convert("CMYK"), "jpeg", **fine),
        "ycck": ycck(**fine),
        "thumbnail": saved(PICTURE, "jpeg", exif=thumbnail, **fine),
    }
    return {name: Odd(encoded, by_pillow(encoded), 8, "jpeg") for name, encoded in files.items()}


def bmp_files() -> dict[str, Odd]:
    colours = np.dstack([PALETTE[:, None, ::-1], np.zeros((16, 1, 1), np.uint8)]).tobytes()
    upward = INDICES[::-1]
    five_bits = RGB[::-1].astype(int) >> 3
    fifteen = (five_bits[..., 0] << 10 | five_bits[..., 1] << 5 | five_bits[..., 2]).astype("<u2")
    blank = np.dstack([RGB[::-1, :, ::-1], np.zeros((HEIGHT, WIDTH, 1), np.uint8)])
    files = {
        "1": bmp([np.packbits(row % 2).tobytes() for row in upward], 1, palette=colours[:8]),
        "4": bmp([(row[::2] << 4 | row[1::2]).tobytes() for row in upward], 4, palette=colours),
        "8": bmp([row.tobytes() for row in upward], 8, palette=colours),
        "8 run lengths": bmp([*map(run_lengths, upward), b"\0\1"], 8, palette=colours, compression=1),
        "16": bmp([row.tobytes() for row in fifteen], 16),
        "24": bmp([row.tobytes() for row in RGB[::-1, :, ::-1]], 24),
        "24 top down": bmp([row.tobytes() for row in RGB[:, :, ::-1]], 24, height=-HEIGHT),
        "32": bmp([row.tobytes() for row in blank], 32),
        "grey": saved(Image.fromarray(GREY), "bmp"),
    }
    expected = {"1": PALETTE[INDICES % 2], "16": None, "grey": GREY, **dict.fromkeys(("24", "24 top down", "32"), RGB)}
    made = {}
    for name, encoded in files.items():
        rgb = expected.get(name, PALETTE[INDICES])
        made[name] = Odd(encoded, by_pillow(encoded) if rgb is None else opaque(rgb), 0, "bmp")
    return made


def animated(kind: str, mode: str = "RGB", **how) -> bytes:
    first = Image.fromarray(RGBA) if mode == "RGBA" else PICTURE
    others = [image.convert(mode) for image in OTHERS]
    return saved(first, kind, save_all=True, append_images=others, duration=50, **how)


def gif_and_webp_files() -> dict[str, Odd]:
    still, moving = saved(PICTURE, "gif"), animated("gif")
    lossy = saved(PICTURE, "webp", quality=95)
    see_through = saved(Image.fromarray(RGBA), "webp", quality=95, exact=True)
    whole = {"lossless": True, "exact": True}
    return {
        "gif/still": Odd(still, by_pillow(still), 0, "gif"),
        "gif/interlaced": Odd(saved(PICTURE, "gif", interlace=1), by_pillow(still), 0, "gif"),
        "gif/animated": Odd(moving, by_pillow(moving), 0, "gif"),
        "webp/lossy": Odd(lossy, by_pillow(lossy), 2, "webp"),
        "webp/lossy alpha": Odd(see_through, by_pillow(see_through), 2, "webp"),
        "webp/lossless": Odd(saved(PICTURE, "webp", **whole), opaque(RGB), 0, "webp"),
        "webp/lossless alpha": Odd(saved(Image.fromarray(RGBA), "webp", **whole), RGBA, 0, "webp"),
        "webp/animated": Odd(animated("webp", **whole), opaque(RGB), 0, "webp"),
        "webp/animated alpha": Odd(animated("webp", "RGBA", **whole), RGBA, 0, "webp"),
    }


def jxl_files() -> dict[str, Odd]:
    grey, see_through = Image.fromarray(GREY), Image.fromarray(RGBA)
    lossy = saved(PICTURE, "jxl", quality=95)
    return {
        "rgb": Odd(saved(PICTURE, "jxl", lossless=True), opaque(RGB), 0, "jxl"),
        "rgba": Odd(saved(see_through, "jxl", lossless=True), RGBA, 0, "jxl"),
        "grey": Odd(saved(grey, "jxl", lossless=True), opaque(GREY), 0, "jxl"),
        "boxes": Odd(saved(PICTURE, "jxl", lossless=True, use_container=True), opaque(RGB), 0, "jxl"),
        "lossy": Odd(lossy, by_pillow(lossy), 2, "jxl"),
    }


def npy_files() -> dict[str, Odd]:
    eight = np.round(DEEP / 257).astype(np.uint8)
    arrays = {
        "grey": (GREY, opaque(GREY)),
        "grey 1": (GREY[..., None], opaque(GREY)),
        "rgb": (RGB, opaque(RGB)),
        "rgba": (RGBA, RGBA),
        "uint16": (DEEP, eight),
        "uint16 big endian": (DEEP.astype(">u2"), eight),
        "float32": (RGB.astype(np.float32) + 0.25, opaque(RGB)),
        "float32 big endian": (RGB.astype(">f4"), opaque(RGB)),
        "float64 grey": (GREY.astype(np.float64), opaque(GREY)),
        "float64 big endian": (RGBA.astype(">f8"), RGBA),
        "black": (np.zeros((HEIGHT, WIDTH), np.float32), opaque(np.zeros_like(GREY))),
    }
    files = {name: Odd(npy(array), rgba, 0, "npy") for name, (array, rgba) in arrays.items()}
    file = io.BytesIO()
    np.lib.format.write_array(file, RGB, version=(2, 0))
    return {**files, "version 2": Odd(file.getvalue(), opaque(RGB), 0, "npy")}


def foreign_files() -> dict[str, Odd]:
    """Files that only Pillow reads: compared with what was put into them."""
    deep = Image.fromarray(DEEP[..., 0])
    eight = opaque(np.round(DEEP[..., :1] / 257).astype(np.uint8))
    palette = Image.fromarray(INDICES).convert("P")
    palette.putpalette(PALETTE.tobytes())
    cmyk = saved(PICTURE.convert("CMYK"), "tiff")
    files = {
        "tiff/rgb": Odd(saved(PICTURE, "tiff"), opaque(RGB), 0, "tiff"),
        "tiff/rgba": Odd(saved(Image.fromarray(RGBA), "tiff"), RGBA, 0, "tiff"),
        "tiff/compressed": Odd(saved(PICTURE, "tiff", compression="tiff_lzw"), opaque(RGB), 0, "tiff"),
        "tiff/grey": Odd(saved(Image.fromarray(GREY), "tiff"), opaque(GREY), 0, "tiff"),
        "tiff/grey 16": Odd(saved(deep, "tiff"), eight, 1, "tiff"),
        "tiff/palette": Odd(saved(palette, "tiff"), opaque(PALETTE[INDICES]), 0, "tiff"),
        "tiff/cmyk": Odd(cmyk, opaque(RGB), 1, "tiff"),
        "tiff/pages": Odd(animated("tiff"), opaque(RGB), 0, "tiff"),
        "tiff/big": Odd(saved(PICTURE, "tiff", big_tiff=True), opaque(RGB), 0, "tiff"),
    }
    if features.check("jpg_2000"):
        files["jp2/rgb"] = Odd(saved(PICTURE, "jpeg2000"), opaque(RGB), 1, "jp2")
        files["jp2/rgba"] = Odd(saved(Image.fromarray(RGBA), "jpeg2000"), RGBA, 1, "jp2")
        files["jp2/stream"] = Odd(saved(PICTURE, "jpeg2000", no_jp2=True), opaque(RGB), 1, "jp2")
    if features.check("avif"):
        files["avif/rgb"] = Odd(saved(PICTURE, "avif", quality=100, subsampling="4:4:4"), opaque(RGB), 5, "avif")
    if pillow_heif:
        files["heic/rgb"] = Odd(saved(PICTURE, "heif", quality=-1, chroma=444), opaque(RGB), 8, "heic")
    return files


def exif_block(orientation: int, order: str, thumbnail: bytes = b"") -> bytes:
    """EXIF with two tags before the orientation, in byte order `<` or `>`, and a thumbnail that has its own."""
    entries = [(0x010E, 2, 4, b"ab\0\0"), (0x0110, 2, 4, b"cd\0\0"), (0x0112, 3, 1, orientation)]
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        shown = value if isinstance(value, bytes) else struct.pack(f"{order}HH", value, 0)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + shown
    start = 8 + len(directory) + 4
    second = b""
    if thumbnail:
        second = struct.pack(f"{order}HHHIHH", 3, 0x0112, 3, 1, 6, 0)
        second += struct.pack(f"{order}HHIIHHIII", 0x0201, 4, 1, start + 42, 0x0202, 4, 1, len(thumbnail), 0)
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", 8)
    return b"Exif\0\0" + head + directory + struct.pack(f"{order}I", start if second else 0) + second + thumbnail


FILES: dict[str, Odd] = {
    **{f"png/{name}": odd for name, odd in png_files().items()},
    **{f"jpeg/{name}": odd for name, odd in jpeg_files().items()},
    **{f"bmp/{name}": odd for name, odd in bmp_files().items()},
    **gif_and_webp_files(),
    **({} if NO_JXL else {f"jxl/{name}": odd for name, odd in jxl_files().items()}),
    **{f"npy/{name}": odd for name, odd in npy_files().items()},
    **foreign_files(),
}
SUFFIX = ".bmp"  # a name tells nothing


# Exports of them all.


def identity(channels: int, height: int = HEIGHT, width: int = WIDTH) -> keras.Model:
    return keras.Sequential([keras.layers.Input((height, width, channels)), keras.layers.Flatten()])


def write(folder, files: dict[str, bytes]) -> None:
    for name, encoded in files.items():
        path = folder / f"{name}{SUFFIX}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write(folder, {name: odd.encoded for name, odd in FILES.items()})
    return folder


def exported(source, out, channels: int = 3, **options) -> tfzip.Export:
    return tfzip.export(str(source), identity(channels), str(out), task="raw", scale="raw", quiet=True, **options)


def pixels(record: tfzip.Record, channels: int = 3) -> np.ndarray:
    (found,) = record.outputs.values()
    return found.reshape(HEIGHT, WIDTH, channels)


@pytest.fixture(scope="module")
def exports(folder, tmp_path_factory):
    """By number of channels."""
    out = tmp_path_factory.mktemp("exports")
    return {channels: exported(folder, out / str(channels), channels) for channels in (1, 3, 4)}


def differences(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], more: int = 0) -> dict[str, float]:
    """Where two pictures differ by more than is allowed, and by how much."""
    assert found.keys() == expected.keys()
    off = {name: np.abs(found[name].astype(float) - expected[name]).max() for name in expected}
    return {name: most for name, most in off.items() if most > FILES[name].tolerance + more}


def records(export: tfzip.Export) -> dict[str, tfzip.Record]:
    assert export.failures == []
    return {record.filename.removesuffix(SUFFIX): record for record in export[:]}


def test_the_table_has_pictures_that_differ():
    assert len(FILES) > 60
    for name, odd in FILES.items():
        if name != "npy/black":
            assert np.ptp(odd.rgba[..., :3].astype(int)) > 60, name


def test_a_colour_model_gets_the_colours(exports):
    found = {name: pixels(record) for name, record in records(exports[3]).items()}
    assert differences(found, {name: odd.rgba[..., :3] for name, odd in FILES.items()}) == {}


def test_a_grey_model_gets_the_brightness(exports):
    found = {name: pixels(record, 1)[..., 0] for name, record in records(exports[1]).items()}
    weights = (0.299, 0.587, 0.114)  # ITU-R BT.601
    assert differences(found, {name: odd.rgba[..., :3] @ weights for name, odd in FILES.items()}, more=1) == {}


def test_a_model_of_four_channels_gets_alpha_and_opaque_images_are_opaque(exports):
    found = {name: pixels(record, 4) for name, record in records(exports[4]).items()}
    assert differences(found, {name: odd.rgba for name, odd in FILES.items()}) == {}


def test_a_record_tells_size_and_format_and_holds_the_file_itself(exports):
    for name, record in records(exports[3]).items():
        assert (record.height, record.width) == (HEIGHT, WIDTH), name
        assert record.format == FILES[name].format, name
        assert record.encoded == FILES[name].encoded, name


def test_a_loop_over_an_export_gives_the_pictures(exports):
    found = {filename.removesuffix(SUFFIX): image for _, filename, image in exports[3]}
    assert all(image.dtype == np.uint8 for image in found.values())
    assert differences(found, {name: odd.rgba[..., :3] for name, odd in FILES.items()}) == {}


@pytest.mark.parametrize(
    ("channels", "alpha"),
    [
        *((1, "white"), (3, "black"), (4, "white")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, "black"), (3, "white"), (4, "black"))),
    ],
)
def test_transparent_images_are_laid_on_a_background(folder, tmp_path, channels, alpha):
    found, background = {}, {"white": 255, "black": 0}[alpha]
    for name, record in records(exported(folder, tmp_path / "out", channels, alpha=alpha)).items():
        found[name] = pixels(record, channels)
    expected = {}
    for name, odd in FILES.items():
        ground = Image.new("RGBA", (WIDTH, HEIGHT), (background,) * 3 + (255,))
        laid = np.asarray(Image.alpha_composite(ground, Image.fromarray(odd.rgba)))
        grey = laid[..., :3] @ (0.299, 0.587, 0.114)
        expected[name] = {1: grey[..., None], 3: laid[..., :3], 4: laid}[channels]
    assert differences(found, expected, more=2) == {}


def test_encoded_anew_as_png_every_image_keeps_its_pixels(folder, tmp_path):
    stored = records(exported(folder, tmp_path / "out", image="png"))
    assert {record.format for record in stored.values()} == {"png"}
    found = {name: by_pillow(record.encoded) for name, record in stored.items() if "16" not in name}
    expected = {name: odd.rgba for name, odd in FILES.items() if "16" not in name}
    assert differences(found, expected) == {}


@pytest.mark.parametrize("kind", ["grey 16", "grey with alpha 16", "rgb 16", "rgba 16"])
def test_encoded_anew_as_png_sixteen_bits_stay_sixteen(kind):
    samples = {"grey 16": DEEP[..., :1], "grey with alpha 16": DEEP[..., [0, 3]], "rgb 16": DEEP[..., :3]}
    decode = decoder((HEIGHT, WIDTH), 3, tf.float32, reencode=("png", 0))
    for name in (kind, f"{kind} interlaced"):
        stored = decode({"encoded": tf.constant(FILES[f"png/{name}"].encoded)})["stored"]
        assert tf.strings.substr(stored, 24, 1) == b"\x10"
        np.testing.assert_array_equal(tf.io.decode_png(stored, dtype=tf.uint16), samples.get(kind, DEEP))


def test_a_tiff_of_sixteen_bits_becomes_a_png_of_sixteen(tmp_path):
    write(tmp_path / "in", {"deep": FILES["tiff/grey 16"].encoded})
    export = exported(tmp_path / "in", tmp_path / "out", image="png")
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(export[0].encoded))), DEEP[..., 0])


@pytest.mark.parametrize(("alpha", "channels"), [("drop", 3), ("white", 3), ("white", 1)])
def test_encoded_anew_as_jpeg_every_image_looks_as_before(folder, tmp_path, alpha, channels):
    smooth = [name for name in FILES if not re.search("16|palette|grey [124]|bmp/[148]", name)]
    stored = records(exported(folder, tmp_path / "out", channels, image="jpeg:98", alpha=alpha))
    assert {record.format for record in stored.values()} == {"jpeg"}
    for name in smooth:
        rgba = Image.fromarray(FILES[name].rgba)
        ground = Image.new("RGBA", rgba.size, "white")
        expected = Image.alpha_composite(ground, rgba) if alpha == "white" else rgba
        off = by_pillow(stored[name].encoded)[..., :3].astype(int) - np.asarray(expected)[..., :3]
        assert np.abs(off).mean() < 4, name


def test_what_is_extracted_opens_under_the_names_of_the_table(folder, tmp_path):
    export = exported(folder, tmp_path / "out", image="png")
    assert extract(export, str(tmp_path / "to")) == (len(FILES), [])
    for name, odd in FILES.items():
        found = Image.open(io.BytesIO((tmp_path / "to" / f"{name}{SUFFIX}").read_bytes()))
        assert (found.format, found.size) == ("PNG", (WIDTH, HEIGHT))
        if "16" not in name:
            assert np.abs(np.asarray(found.convert("RGBA")).astype(int) - odd.rgba).max() <= odd.tolerance, name


def test_an_array_is_extracted_as_the_file_it_was(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", RGB)
    extract(exported(tmp_path / "in", tmp_path / "out"), str(tmp_path / "to"))
    np.testing.assert_array_equal(np.load(tmp_path / "to" / "a.npy", allow_pickle=False), RGB)


# Orientation.

STORED = {
    # How a camera that was held so stores the upright picture.
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def held(orientation: int) -> Image.Image:
    method = STORED[orientation]
    return PICTURE if method is None else PICTURE.transpose(method)


def photo(orientation: int, order: str, kind: str = "jpeg", thumbnail: bytes = b"") -> bytes:
    how = {"quality": 97, "subsampling": 0} if kind == "jpeg" else {"lossless": True} if kind == "webp" else {}
    return saved(held(orientation), kind, exif=exif_block(orientation, order, thumbnail), **how)


def rotated() -> dict[str, bytes]:
    files = {
        f"{kind}{'<>'.index(order)}/{number}": photo(number, order, kind)
        for kind in ("jpeg", "png", "webp")
        for order in "<>"
        for number in STORED
    }
    jpeg, block = photo(6, ">"), exif_block(6, ">")
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block
    adobe = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    xmp = b"\xff\xe1" + struct.pack(">H", len(adobe) + 2) + adobe
    tail = saved(held(6), "png")
    chunk = struct.pack(">I", len(block) - 6) + b"eXIf" + block[6:] + struct.pack(">I", zlib.crc32(b"eXIf" + block[6:]))
    assert segment in jpeg
    return {
        **files,
        "thumbnail": photo(8, "<", thumbnail=saved(OTHERS[0].resize((8, 6)), "jpeg")),
        "behind xmp": jpeg.replace(segment, xmp + segment),
        "filled": jpeg.replace(segment, b"\xff\xff" + segment),
        "behind the pixels.png": tail[:-12] + chunk + tail[-12:],
        "tiff": saved(held(6), "tiff", tiffinfo={0x0112: 6}),
    }


ROTATED = rotated()


@pytest.fixture(scope="module")
def rotated_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rotated")
    write(folder, ROTATED)
    return folder


@pytest.mark.parametrize("name", ROTATED)
def test_the_table_of_rotated_photos_is_right(name):
    image = Image.open(io.BytesIO(ROTATED[name]))
    assert np.abs(np.asarray(ImageOps.exif_transpose(image)).astype(int) - RGB).max() <= 4


def test_each_photo_is_turned_as_its_camera_noted(rotated_folder, tmp_path):
    export = exported(rotated_folder, tmp_path / "out", exif_orientation="apply")
    assert len(export) == len(ROTATED)
    for name, record in records(export).items():
        assert np.abs(pixels(record) - RGB).max() <= 8, name
        stored = Image.open(io.BytesIO(ROTATED[name]))
        assert (record.width, record.height) == stored.size, name
        assert record.encoded == ROTATED[name], name


def test_the_orientation_is_ignored_if_not_asked_for(rotated_folder, tmp_path):
    export = exported(rotated_folder, tmp_path / "out")
    assert len(export) == len(ROTATED)
    turned = [name for name, record in records(export).items() if np.abs(pixels(record) - RGB).max() > 8]
    assert sorted(turned) == sorted(name for name in ROTATED if not name.endswith("/1") and name != "tiff")


@pytest.mark.parametrize("image", ["png", "jpeg:98"])
def test_encoded_anew_a_turned_photo_is_stored_upright(rotated_folder, tmp_path, image):
    export = exported(rotated_folder, tmp_path / "out", exif_orientation="apply", image=image)
    for name, record in records(export).items():
        stored = Image.open(io.BytesIO(record.encoded))
        assert 0x0112 not in stored.getexif()
        assert stored.size == (record.width, record.height) == (WIDTH, HEIGHT), name
        assert np.abs(np.asarray(stored).astype(int) - RGB).mean() < 4, name


def without(data: bytes, part: bytes, new: bytes) -> bytes:
    assert part in data
    return data.replace(part, new)


JPEG6 = photo(6, ">")
UNREADABLE = {
    "none": saved(held(6), "jpeg"),
    "zero": without(JPEG6, struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHIHH", 0x0112, 3, 1, 0, 0)),
    "nine": without(JPEG6, struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHIHH", 0x0112, 3, 1, 9, 0)),
    "another tag": without(JPEG6, struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHIHH", 0x0113, 3, 1, 6, 0)),
    "no byte order": without(JPEG6, b"Exif\0\0MM\0*", b"Exif\0\0XX\0*"),
    "no tiff": without(JPEG6, b"Exif\0\0MM\0*", b"Exif\0\0MM\0+"),
    "directory outside": without(JPEG6, b"MM\0*\0\0\0\x08", b"MM\0*\x7f\xff\xff\xff"),
    "directory at the end": without(JPEG6, b"MM\0*\0\0\0\x08", b"MM\0*" + struct.pack(">I", len(JPEG6) - 40)),
    "many entries": without(
        without(JPEG6, b"\0\0\0\x08\0\x03", b"\0\0\0\x08\xff\xff"), b"\x01\x12\0\x03", b"\x01\x13\0\x03"
    ),
    "gif": saved(held(6), "gif"),
    "npy": npy(np.asarray(held(6))),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_orientation_that_cannot_be_read_leaves_the_image_as_it_is(name):
    encoded = tf.constant(UNREADABLE[name])
    graph = tf.function(exif.orientation, input_signature=[tf.TensorSpec((), tf.string)])
    assert exif.orientation(encoded) == graph(encoded) == 1
    decode = decoder((WIDTH, HEIGHT), 3, tf.float32, exif_orientation="apply")
    decoded = images.decode(encoded, 3)
    np.testing.assert_array_equal(decode({"encoded": encoded})["pixels"], tf.cast(decoded, tf.float32))


@pytest.mark.parametrize("kind", ["jpeg", "png", *([] if NO_WEBP else ["webp"])])
def test_wherever_a_file_ends_its_orientation_is_read_or_is_none(kind):
    encoded = photo(6, ">", kind)
    graph = tf.function(exif.orientation, input_signature=[tf.TensorSpec((), tf.string)])
    found = [int(graph(tf.constant(encoded[:end]))) for end in range(len(encoded) + 1)]
    assert set(found) == {1, 6}
    assert found[-1] == 6


def operations(function) -> set[str]:
    traced = tf.function(function, autograph=False).get_concrete_function({"encoded": tf.TensorSpec((), tf.string)})
    definition = traced.graph.as_graph_def()
    nodes = [*definition.node, *(node for part in definition.library.function for node in part.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("exif_orientation", ["ignore", "apply"])
@pytest.mark.parametrize("reencode", [None, ("png", 0), ("jpeg", 90)])
def test_the_graph_calls_no_python_and_looks_for_no_orientation_unless_asked(exif_orientation, reencode):
    how = {"alpha": "white", "reencode": reencode, "exif_orientation": exif_orientation}
    found = operations(decoder((HEIGHT, WIDTH), 3, tf.float32, **how))
    assert "DecodeImage" in found
    assert not [name for name in found if "PyFunc" in name]
    assert ("Transpose" in found) == (exif_orientation == "apply")


def batch_size(pixels: tf.Tensor) -> tf.Tensor:
    """Of each image how many there are in its batch."""
    return tf.repeat(tf.cast(tf.shape(pixels), tf.float32)[:1], tf.shape(pixels)[0])[:, tf.newaxis]


@pytest.mark.parametrize("kind", ["gif/still", "bmp/24", "npy/rgb"])
def test_an_unusual_image_late_in_an_export_is_in_one_batch_with_its_neighbours(tmp_path, kind):
    usual = FILES["png/rgb 8"].encoded
    write(tmp_path / "in", {f"{number:02}": FILES[kind].encoded if number == 8 else usual for number in range(12)})
    how = {"task": "raw", "scale": "raw", "image_size": (8, 8), "batch_size": 5, "quiet": True}
    export = tfzip.export(str(tmp_path / "in"), batch_size, str(tmp_path / "out"), **how)
    assert [record.outputs["output"][0] for record in export[:]] == [5] * 10 + [2] * 2
    assert export.failures == []


# Sizes.


THIN = [(1, 1), (1, 2), (1, 4000), (4000, 1), (2, 3000)]
KINDS = ["jpeg", "png", "gif", "bmp", "npy", *([] if NO_WEBP else ["webp"])]


def white(size: tuple[int, int], kind: str) -> bytes:
    picture = np.full((*size, 3), 255, np.uint8)
    return npy(picture) if kind == "npy" else saved(Image.fromarray(picture), kind)


@pytest.mark.parametrize("size", THIN)
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("kind", KINDS)
def test_one_pixel_and_very_thin_images_are_images(size, resize, kind):
    decode = decoder((HEIGHT, WIDTH), 3, tf.float32, resize=resize)
    element = decode({"encoded": tf.constant(white(size, kind))})
    assert (element["height"], element["width"]) == size
    lit = element["pixels"].numpy().min(axis=2) > 250
    scale = min(HEIGHT / size[0], WIDTH / size[1])
    shown = [max(1, int(side * scale)) for side in size] if resize == "pad" else [HEIGHT, WIDTH]
    assert [lit.any(axis=1).sum(), lit.any(axis=0).sum()] == shown
    assert lit.sum() == shown[0] * shown[1]


@pytest.mark.parametrize("size", THIN)
def test_so_are_those_that_only_pillow_reads(tmp_path, size):
    write(tmp_path / "in", {"thin": white(size, "tiff")})
    (record,) = records(exported(tmp_path / "in", tmp_path / "out", resize="stretch")).values()
    assert (record.height, record.width) == size
    assert pixels(record).min() > 250


# Files that are no image: each fails, and says why.


def zero_sized(kind: str) -> bytes:
    if kind == "png":
        return png(np.zeros((0, 0, 3), np.uint8), 8, 2)
    if kind == "bmp":
        return bmp([], 24, height=0)
    encoded = bytearray(saved(PICTURE, kind))
    if kind == "gif":
        image = encoded.index(b",")
        encoded[6:10] = encoded[image + 5 : image + 9] = bytes(4)
    if kind == "jpeg":
        frame = encoded.index(b"\xff\xc0")
        encoded[frame + 5 : frame + 9] = bytes(4)
    return bytes(encoded)


RECORD = np.dtype([("r", "u1"), ("g", "u1")])
BAD = {
    "empty": (b"", "empty"),
    "text": (b"no image", "Unknown image file format"),
    "zero/png": (zero_sized("png"), "."),
    "zero/bmp": (zero_sized("bmp"), "."),
    "zero/gif": (zero_sized("gif"), "."),
    "zero/jpeg": (zero_sized("jpeg"), "."),
    "zero/npy": (npy(np.zeros((0, 5, 3), np.uint8)), r"shape is \(0, 5, 3\)"),
    **{f"head/{kind}": (saved(PICTURE, kind)[:size], ".") for kind, size in
       {"png": 33, "jpeg": 20, "gif": 13, "bmp": 54, "webp": 20, "tiff": 8}.items()},
    **{f"half/{kind}": (saved(Image.effect_noise((64, 64), 90), kind)[: 64 * 20], ".") for kind in
       ("png", "jpeg", "bmp", "webp", "tiff")},
    "npy/order": (npy(np.asfortranarray(RGB)), "not in C order"),
    "npy/integers": (npy(RGB.astype(np.int64)), "dtype is <i8, not uint8"),
    "npy/objects": (npy(np.array([[{}]], object)), r"dtype is \|O"),
    "npy/records": (npy(np.zeros((2, 2), RECORD)), "dtype is"),
    "npy/booleans": (npy(GREY > 100), r"dtype is \|b1"),
    "npy/complex": (npy(GREY.astype(complex)), "dtype is <c16"),
    "npy/number": (npy(np.uint8(3)), r"shape is \(\)"),
    "npy/row": (npy(GREY[0]), r"shape is \(16,\)"),
    "npy/two channels": (npy(RGBA[..., :2]), r"shape is \(12, 16, 2\)"),
    "npy/channels first": (npy(RGB.transpose(2, 0, 1).copy()), r"shape is \(3, 12, 16\)"),
    "npy/batch": (npy(RGB[None]), r"shape is \(1, 12, 16, 3\)"),
    "npy/unit": (npy(RGB / 255), "from 0 to 1"),
    "npy/symmetric": (npy(RGB / 127.5 - 1), "not all pixels are from 0 to 255"),
    "npy/not a number": (npy(np.where(GREY > 100, np.nan, GREY)), "not all pixels are from 0 to 255"),
    "npy/cut": (npy(RGB)[:-1], "575 bytes of pixels, not 576"),
    "npy/longer": (npy(RGB) + b"x", "577 bytes of pixels, not 576"),
    "npy/cut in its header": (npy(RGB)[:60], "ends within its header"),
    "tiff/floats": (saved(Image.fromarray(GREY.astype(np.float32)), "tiff"), "no range"),
    "tiff/noise": (b"II*\0" + np.random.default_rng(2).bytes(300), "tiff"),
    "heic/noise": (b"\0\0\0\x18ftypheic" + np.random.default_rng(2).bytes(300), "heic"),
    "jp2/noise": (b"\xff\x4f\xff\x51" + np.random.default_rng(2).bytes(300), "jp2"),
}  # fmt: skip


@pytest.mark.parametrize("channels", [3, *(pytest.param(channels, marks=pytest.mark.slow) for channels in (1, 4))])
def test_a_file_that_is_no_image_fails_with_its_reason(tmp_path, monkeypatch, channels):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as TFDS does once it has looked at an image
    write(tmp_path / "in", {"good": FILES["png/rgb 8"].encoded, **{name: bad for name, (bad, _) in BAD.items()}})
    export = exported(tmp_path / "in", tmp_path / "out", channels)
    assert [record.filename for record in export[:]] == [f"good{SUFFIX}"]
    failures = {failure.filename.removesuffix(SUFFIX): failure for failure in export.failures}
    assert failures.keys() == BAD.keys()
    for name, (_, reason) in BAD.items():
        assert failures[name].stage == "decode"
        assert re.search(reason, failures[name].error), (name, failures[name].error)
        assert "assertion" not in failures[name].error
        assert " at 0x" not in failures[name].error  # nothing that differs from run to run


FOREIGN = {"tiff": "tiff/rgb", "bmp": "bmp/8", "jp2": "jp2/rgb", "avif": "avif/rgb", "heic": "heic/rgb"}
FOREIGN = {kind: name for kind, name in FOREIGN.items() if name in FILES}


def test_without_pillow_a_format_that_tensorflow_lacks_fails_and_names_what_to_install(tmp_path, monkeypatch):
    files = {"good": FILES["png/rgb 8"].encoded, **{kind: FILES[name].encoded for kind, name in FOREIGN.items()}}
    write(tmp_path / "in", files)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    export = exported(tmp_path / "in", tmp_path / "out")
    assert len(export) == 1
    told = {failure.filename.removesuffix(SUFFIX): failure.error for failure in export.failures}
    assert told.keys() == FOREIGN.keys()
    for kind, error in told.items():
        assert error.startswith(f"{kind}: TensorFlow does not read it")
        assert "pip install 'tfzip[formats]'" in error


@pytest.mark.skipif(not NO_JXL, reason="this TensorFlow reads JPEG XL")
def test_a_jpeg_xl_fails_and_says_which_tensorflow_reads_it(tmp_path):
    write(tmp_path / "in", {"good": FILES["png/rgb 8"].encoded, "new": saved(PICTURE, "jxl")})
    export = exported(tmp_path / "in", tmp_path / "out")
    assert len(export) == 1
    (failure,) = export.failures
    assert failure.error == f"jxl: TensorFlow {tf.__version__} does not read it, 2.21 does: pip install -U tensorflow"


def test_without_pillow_a_loop_over_such_records_says_what_to_install(tmp_path, monkeypatch):
    write(tmp_path / "in", {"page": FILES["tiff/rgb"].encoded})
    export = exported(tmp_path / "in", tmp_path / "out")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(tfzip.DataError, match=r"page\.bmp: tiff: .*pip install 'tfzip\[formats\]'"):
        list(export)


def test_arrays_in_a_folder_count_as_images(tmp_path):
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "a.npy", RGB)
    np.save(tmp_path / "in" / "b.NPY.npy", RGB[::-1].copy())
    found = [pixels(record) for record in exported(tmp_path / "in", tmp_path / "out")[:]]
    np.testing.assert_array_equal(found, [RGB, RGB[::-1]])
