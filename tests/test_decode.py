from __future__ import annotations

import functools
import io
import os

import keras
import numpy as np
import pytest
import skimage.data
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_image

from tfzip import images
from tfzip.bounds import Bound
from tfzip.decode import decoder

SIZE = (32, 48)
COLOUR_MODES = {1: "grayscale", 3: "rgb"}
RESIZE_ARGUMENTS = {
    "stretch": {},
    "crop": {"crop_to_aspect_ratio": True},
    "pad": {"pad_to_aspect_ratio": True},
}
INTERPOLATIONS = ["bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5", "gaussian", "mitchellcubic"]
# Keras crops with its own resize, which knows only these.
CROP_INTERPOLATIONS = ["bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5"]
RESIZINGS = [
    *(("stretch", interpolation) for interpolation in INTERPOLATIONS),
    *(("pad", interpolation) for interpolation in INTERPOLATIONS),
    *(("crop", interpolation) for interpolation in CROP_INTERPOLATIONS),
]


def photograph() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()).crop((40, 0, 391, 203))


def save(image: Image.Image, path, **arguments) -> None:
    image.save(path, **arguments)


def write_photographs(folder) -> None:
    """Names end as `keras.utils.image_dataset_from_directory` wants them; TensorFlow decodes by content."""
    photo, grey = photograph(), photograph().convert("L")
    transparent = photo.convert("RGBA")
    transparent.putalpha(Image.fromarray(skimage.data.camera()).crop((0, 0, *photo.size)))
    save(photo, folder / "baseline.jpg", quality=90)
    save(photo, folder / "progressive.jpg", quality=90, progressive=True)
    save(photo, folder / "all_samples.jpg", quality=90, subsampling=0)
    save(grey, folder / "grey.jpg", quality=90)
    save(photo, folder / "colour.png")
    save(grey, folder / "grey.png")
    save(photo.convert("1"), folder / "black_and_white.png")
    save(photo.quantize(64), folder / "palette.png")
    save(transparent.quantize(64), folder / "palette_transparent.png")
    save(transparent, folder / "rgba.png")
    save(transparent.convert("LA"), folder / "grey_alpha.png")
    save(Image.fromarray(np.asarray(grey).astype(np.uint16) * 251 + 77), folder / "sixteen_bits.png")
    save(Image.fromarray(load_sample_image("china.jpg")), folder / "china.jpg")
    save(Image.fromarray(load_sample_image("flower.jpg")).rotate(90, expand=True), folder / "flower_upright.png")
    save(Image.fromarray(skimage.data.chelsea()), folder / "chelsea.jpg", progressive=True)


WEBP = ["lossy_webp.png", "lossless_webp.png"] if hasattr(tf.io, "decode_webp") else []  # TensorFlow 2.16 has none


def write_photographs_without_grey(folder) -> None:
    """Formats whose decoders in TensorFlow give colours only."""
    photo = photograph()
    save(photo, folder / "still_gif.gif")
    save(photo, folder / "animated_gif.gif", save_all=True, append_images=[photo.rotate(180), photo.rotate(90)])
    save(photo, folder / "colour_bmp.bmp")
    for name in WEBP:
        save(photo, folder / name, format="webp", quality=80, lossless="lossless" in name)
    save(photo.convert("CMYK"), folder / "cmyk.jpg", quality=90)


ODD_SIZES = [(1, 1), (2, 1), (1, 2), (3, 2), (701, 2), (2, 701), (31, 47), (48, 32), (33, 49), (640, 97), (97, 640)]


def write_odd_sizes(folder) -> None:
    photo = photograph()
    for width, height in ODD_SIZES:
        save(photo.resize((width, height)), folder / f"{width}x{height}.png")


class Photographs:
    """A folder of pictures, and what Keras makes of them."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.names = sorted(os.listdir(folder))
        self.encoded = {name: (folder / name).read_bytes() for name in self.names}

    @functools.cache  # noqa: B019 - lives as long as the session
    def keras(self, resize: str, interpolation: str, channels: int, size: tuple[int, int] = SIZE) -> dict:
        dataset = keras.utils.image_dataset_from_directory(
            self.folder,
            labels=None,
            color_mode=COLOUR_MODES[channels],
            batch_size=None,
            image_size=size,
            shuffle=False,
            interpolation=interpolation,
            verbose=False,
            **RESIZE_ARGUMENTS[resize],
        )
        assert [os.path.basename(path) for path in dataset.file_paths] == self.names
        return dict(zip(self.names, dataset.as_numpy_iterator(), strict=True))

    def eager(self, decode) -> dict:
        return {name: decode({"encoded": tf.constant(data)}) for name, data in self.encoded.items()}

    def mapped(self, decode) -> dict:
        dataset = tf.data.Dataset.from_tensor_slices({"encoded": list(self.encoded.values())})
        return dict(zip(self.names, dataset.map(decode, 2, deterministic=True).as_numpy_iterator(), strict=True))


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    write_photographs(folder)
    return Photographs(folder)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("coloured")
    write_photographs_without_grey(folder)
    return Photographs(folder)


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    write_odd_sizes(folder)
    return Photographs(folder)


def different(found: dict, expected: dict) -> list[str]:
    assert found.keys() == expected.keys()
    return [name for name in expected if not np.array_equal(found[name]["pixels"], expected[name])]


def read(encoded: bytes, mode: str = "RGB") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(encoded)).convert(mode))


@pytest.mark.parametrize(
    ("resize", "interpolation", "channels"),
    [(*way, 3) for way in RESIZINGS] + [(*way, 1) for way in RESIZINGS if way[1] in ("bilinear", "nearest", "bicubic")],
)
def test_pixels_are_those_of_keras(photographs, resize, interpolation, channels):
    expected = photographs.keras(resize, interpolation, channels)
    decode = decoder(SIZE, channels, tf.float32, resize=resize, interpolation=interpolation)
    assert different(photographs.mapped(decode), expected) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("resize", RESIZE_ARGUMENTS)
def test_called_by_hand_it_gives_the_pixels_of_keras_too(photographs, resize, channels):
    expected = photographs.keras(resize, "bilinear", channels)
    assert different(photographs.eager(decoder(SIZE, channels, tf.float32, resize=resize)), expected) == []


@pytest.mark.parametrize(("resize", "interpolation"), [way for way in RESIZINGS if way[1] != "mitchellcubic"])
def test_pixels_of_formats_that_have_no_grey_are_those_of_keras_in_colour(coloured, resize, interpolation):
    expected = coloured.keras(resize, interpolation, 3)
    decode = decoder(SIZE, 3, tf.float32, resize=resize, interpolation=interpolation)
    assert different(coloured.mapped(decode), expected) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(32, 48), (7, 3), (64, 64), (1, 1)])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
def test_pixels_of_odd_sizes_are_those_of_keras(odd, resize, size, channels):
    expected = odd.keras(resize, "bilinear", channels, size)
    decode = decoder(size, channels, tf.float32, resize=resize)
    assert different(odd.mapped(decode), expected) == []


def test_padded_pixels_of_odd_sizes_are_those_of_keras_where_keras_can(odd):
    decode = decoder(SIZE, 3, tf.float32, resize="pad")
    for name, encoded in odd.encoded.items():
        image = tf.io.decode_image(encoded, channels=3)
        try:
            expected = tf.image.resize_with_pad(image, *SIZE)
        except tf.errors.InvalidArgumentError:  # it rounds a very thin picture to no pixels at all
            continue
        np.testing.assert_array_equal(decode({"encoded": encoded})["pixels"], expected, err_msg=name)


@pytest.mark.parametrize("target", [(7, 3), (224, 224), (96, 128)])
def test_crop_takes_the_same_box_as_keras_for_every_size(tmp_path, target):
    rows, columns = np.mgrid[:400, :400]
    plane = np.stack([rows % 256, columns % 256, (rows + columns) % 256], axis=-1).astype(np.uint8)
    height, width = target
    sizes = [(side, max(1, side * width // height)) for side in range(1, 170)]
    sizes += [(max(1, side * height // width), side) for side in range(1, 170)]
    sizes = sorted({(h, w) for h, w in sizes if h <= 400 and w <= 400})
    for h, w in sizes:
        save(Image.fromarray(plane[:h, :w]), tmp_path / f"{h}x{w}.bmp")
    pictures = Photographs(tmp_path)
    expected = pictures.keras("crop", "nearest", 3, target)
    found = pictures.mapped(decoder(target, 3, tf.float32, resize="crop", interpolation="nearest"))
    assert different(found, expected) == []


def test_pixels_differ_from_picture_to_picture_and_with_each_way_to_resize(photographs):
    ways = [
        photographs.mapped(decoder(SIZE, 3, tf.float32, resize=resize))["china.jpg"]["pixels"]
        for resize in ("stretch", "crop", "pad")
    ]
    assert all(not np.array_equal(a, b) for a, b in [ways[:2], ways[1:], ways[::2]])
    pixels = photographs.mapped(decoder(SIZE, 3, tf.float32))
    assert not np.array_equal(pixels["china.jpg"]["pixels"], pixels["chelsea.jpg"]["pixels"])


def test_padding_is_black_and_as_wide_as_the_aspect_ratio_asks():
    white = np.full((20, 40, 3), 255, np.uint8)
    encoded = tf.io.encode_png(white)
    pixels = decoder((40, 40), 3, tf.float32, resize="pad")({"encoded": encoded})["pixels"].numpy()
    np.testing.assert_array_equal(pixels[10:30], 255)
    np.testing.assert_array_equal(pixels[:10], 0)
    np.testing.assert_array_equal(pixels[30:], 0)


def test_an_image_of_the_models_own_size_keeps_its_pixels(photographs):
    encoded = photographs.encoded["colour.png"]
    pixels = decoder((203, 351), 3, tf.float32)({"encoded": encoded})["pixels"]
    assert pixels.dtype == tf.float32
    np.testing.assert_array_equal(pixels, np.asarray(photograph()))


@pytest.mark.parametrize("name", ["animated_gif.gif", "still_gif.gif"])
def test_of_an_animation_the_first_frame_counts(coloured, name):
    encoded = coloured.encoded[name]
    found = decoder((203, 351), 3, tf.float32)({"encoded": encoded})["pixels"]
    np.testing.assert_array_equal(found, read(encoded))
    last = Image.open(io.BytesIO(encoded))
    last.seek(getattr(last, "n_frames", 1) - 1)
    assert name == "still_gif.gif" or not np.array_equal(found, np.asarray(last.convert("RGB")))


@pytest.mark.parametrize("name", ["still_gif.gif", "animated_gif.gif", "colour_bmp.bmp", *WEBP])
def test_grey_is_made_from_the_colours_where_the_format_has_none(coloured, name):
    encoded = coloured.encoded[name]
    found = decoder((203, 351), 1, tf.float32)({"encoded": encoded})["pixels"].numpy()[..., 0]
    expected = read(encoded).astype(np.float64) @ (0.299, 0.587, 0.114)  # ITU-R BT.601
    np.testing.assert_allclose(found, expected, atol=3 if "lossy" in name else 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_grey_or_colour_is_what_the_model_takes_whatever_the_file_has(photographs, channels):
    for name, element in photographs.mapped(decoder(SIZE, channels, tf.float32)).items():
        assert element["pixels"].shape == (*SIZE, channels), name


def test_a_model_of_four_channels_gets_alpha_too(photographs):
    encoded = photographs.encoded["rgba.png"]
    pixels = decoder((203, 351), 4, tf.float32)({"encoded": encoded})["pixels"]
    np.testing.assert_array_equal(pixels, read(encoded, "RGBA"))
    opaque = decoder((203, 351), 4, tf.float32)({"encoded": photographs.encoded["colour.png"]})["pixels"]
    np.testing.assert_array_equal(opaque[..., 3], 255)


def test_height_and_width_are_those_of_the_image_as_it_was(photographs, coloured, odd):
    for pictures in (photographs, coloured, odd):
        for resize in ("stretch", "crop"):
            for name, element in pictures.mapped(decoder(SIZE, 3, tf.float32, resize=resize)).items():
                size = Image.open(io.BytesIO(pictures.encoded[name])).size
                assert (element["width"], element["height"]) == size, name
                assert element["height"].dtype == element["width"].dtype == np.int64


def test_the_original_bytes_and_all_else_pass_through(photographs):
    encoded = photographs.encoded["baseline.jpg"]
    element = {"encoded": tf.constant(encoded), "slot": tf.constant(7), "filename": tf.constant(b"a\nb\xff.jpg")}
    before = dict(element)
    found = decoder(SIZE, 3, tf.float32)(element)
    assert element == before
    assert found.keys() - element.keys() == {"pixels", "height", "width"}
    assert all(found[key] is element[key] for key in element)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos3", "nearest"])
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_a_model_of_bytes_gets_rounded_pixels(photographs, resize, interpolation):
    expected = photographs.keras(resize, interpolation, 3)
    found = photographs.mapped(decoder(SIZE, 3, tf.uint8, resize=resize, interpolation=interpolation))
    for name in photographs.names:
        assert found[name]["pixels"].dtype == np.uint8
        np.testing.assert_array_equal(found[name]["pixels"], np.clip(np.rint(expected[name]), 0, 255), err_msg=name)


def test_pixels_outside_of_a_byte_are_cut_off_and_do_not_wrap_around():
    checks = np.kron(np.indices((6, 6)).sum(0) % 2, np.ones((4, 4)))[..., None].astype(np.uint8) * 255
    encoded = tf.io.encode_png(checks)
    exact = decoder((50, 50), 1, tf.float32, interpolation="lanczos3")({"encoded": encoded})["pixels"].numpy()
    assert exact.min() < -1
    assert exact.max() > 256
    bytes_ = decoder((50, 50), 1, tf.uint8, interpolation="lanczos3")({"encoded": encoded})["pixels"].numpy()
    assert set(bytes_[exact < 0]) == {0}
    assert set(bytes_[exact > 255]) == {255}


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16, tf.float64])
def test_a_model_of_another_float_gets_that_float(photographs, dtype):
    expected = photographs.keras("stretch", "bilinear", 3)
    found = photographs.eager(decoder(SIZE, 3, dtype))
    for name in photographs.names:
        assert found[name]["pixels"].dtype == dtype
        np.testing.assert_array_equal(found[name]["pixels"], expected[name].astype(dtype.as_numpy_dtype))


def test_nothing_is_encoded_anew_unless_asked(photographs):
    assert all("stored" not in element for element in photographs.mapped(decoder(SIZE, 3, tf.float32)).values())


LOSSLESS = ["colour.png", "grey.png", "palette.png", "black_and_white.png", "rgba.png", "flower_upright.png"]


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_encoded_anew_as_png_an_image_keeps_size_and_pixels(photographs, coloured, odd, channels):
    decode = decoder(SIZE, channels, tf.float32, reencode=("png", 0))
    for pictures in (photographs, odd):
        for name, element in pictures.mapped(decode).items():
            stored = Image.open(io.BytesIO(element["stored"]))
            assert stored.format == "PNG"
            assert stored.size == Image.open(io.BytesIO(pictures.encoded[name])).size
            original = tf.io.decode_image(pictures.encoded[name], expand_animations=False)
            np.testing.assert_array_equal(tf.io.decode_png(element["stored"]), original, err_msg=name)
            if name in LOSSLESS:
                found = np.asarray(stored.convert("RGBA"))
                np.testing.assert_array_equal(found, read(pictures.encoded[name], "RGBA"), err_msg=name)
    for name in ("still_gif.gif", "animated_gif.gif", "colour_bmp.bmp", *WEBP[1:]):
        stored = decode({"encoded": coloured.encoded[name]})["stored"].numpy()
        np.testing.assert_array_equal(read(stored), read(coloured.encoded[name]), err_msg=name)


@pytest.mark.parametrize("quality", [100, 60])
def test_encoded_anew_as_jpeg_an_image_keeps_its_size_and_looks(photographs, coloured, quality):
    decode = decoder(SIZE, 3, tf.float32, reencode=("jpeg", quality))
    for pictures in (photographs, coloured):
        for name, element in pictures.mapped(decode).items():
            stored = Image.open(io.BytesIO(element["stored"]))
            assert stored.format == "JPEG"
            assert stored.size == Image.open(io.BytesIO(pictures.encoded[name])).size
            original = tf.io.decode_image(pictures.encoded[name], channels=3, expand_animations=False).numpy()
            off = np.abs(np.asarray(stored.convert("RGB")).astype(int) - original).mean()
            assert off < (4 if quality == 100 else 10), name


def test_the_quality_of_jpeg_counts(photographs):
    sizes = []
    for quality in (10, 50, 95):
        decode = decoder(SIZE, 3, tf.float32, reencode=("jpeg", quality))
        sizes.append(len(decode({"encoded": photographs.encoded["china.jpg"]})["stored"].numpy()))
    assert sizes[0] < sizes[1] < sizes[2]


def test_pixels_come_from_the_original_also_where_the_image_is_encoded_anew(photographs):
    decode = decoder(SIZE, 3, tf.float32, reencode=("jpeg", 10))
    assert different(photographs.mapped(decode), photographs.keras("stretch", "bilinear", 3)) == []


def part_of(name: str, share: float) -> bytes:
    file = io.BytesIO()
    photograph().save(file, format=name)
    return file.getvalue()[: int(len(file.getvalue()) * share)]


def tiff() -> bytes:
    file = io.BytesIO()
    photograph().save(file, format="tiff")
    return file.getvalue()


BAD = {
    "nothing": b"",
    "text": b"this is no image, whatever its name says",
    "zeros": bytes(1000),
    "html": b"<!DOCTYPE html><title>404 Not Found</title>",
    "tiff": tiff(),
    "start of jpeg": part_of("jpeg", 0.01),
    "half a jpeg": part_of("jpeg", 0.5),
    "start of png": part_of("png", 0.0005),
    "half a png": part_of("png", 0.5),
    "start of gif": part_of("gif", 0.0005),
    "start of bmp": part_of("bmp", 0.0001),
    "half a bmp": part_of("bmp", 0.5),
    "start of webp": part_of("webp", 0.002),
    "half a webp": part_of("webp", 0.5),
    "signature of jpeg": b"\xff\xd8\xff",
    "signature of png": b"\x89PNG\r\n\x1a\n",
    "noise after a signature": b"\xff\xd8\xff\xe0" + np.random.default_rng(1).bytes(500),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("encoded", BAD.values(), ids=BAD.keys())
def test_bytes_that_are_no_whole_image_raise(encoded, channels):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decoder(SIZE, channels, tf.float32)({"encoded": tf.constant(encoded)})


def test_one_bad_image_in_a_dataset_does_not_harm_its_neighbours(photographs):
    good = photographs.encoded["china.jpg"]
    dataset = tf.data.Dataset.from_tensor_slices({"encoded": [good, b"bad", good], "slot": [0, 1, 2]})
    found = list(dataset.map(decoder(SIZE, 3, tf.float32), 2).ignore_errors().as_numpy_iterator())
    assert [element["slot"] for element in found] == [0, 2]
    expected = photographs.keras("stretch", "bilinear", 3)["china.jpg"]
    assert all(np.array_equal(element["pixels"], expected) for element in found)


@pytest.mark.parametrize("decode", [images.decode_usual, images.decode], ids=["usual", "any"])
def test_a_jpeg_of_more_than_a_mebibyte_is_decoded_whole(decode):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1000, 3), np.uint8)
    encoded = tf.io.encode_jpeg(noise, quality=100)
    assert len(encoded.numpy()) > 1 << 20
    np.testing.assert_array_equal(decode(encoded, 3), tf.io.decode_jpeg(encoded))


SMALL = Bound(300 * 300)  # photographs have more pixels, and the odd sizes fewer


@pytest.mark.parametrize("bound", [images.USUAL, SMALL], ids=["any", "small"])
@pytest.mark.parametrize("alpha", ["drop", "white"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_decodes_usual_images_gives_the_same_or_leaves_one_out(photographs, coloured, odd, channels, alpha, bound):
    """In a graph, where it is used; what is left out is never a JPEG or PNG that needs nothing more."""
    files = {**photographs.encoded, **coloured.encoded, **odd.encoded, **BAD}
    spec = [tf.TensorSpec((), tf.string)]
    usual = tf.function(lambda encoded: images.decode_usual(encoded, channels, alpha, bound), spec)
    left = set()
    for name, encoded in files.items():
        try:
            pixels = usual(encoded)
        except tf.errors.InvalidArgumentError:
            left.add(name)
        else:
            np.testing.assert_array_equal(pixels, images.decode(tf.constant(encoded), channels, alpha, bound))
    assert BAD.keys() <= left
    if bound is SMALL:
        assert photographs.encoded.keys() <= left
        assert channels == 4 or alpha == "white" or "31x47.png" not in left
    elif channels < 4:
        plain = {*photographs.encoded} if alpha == "drop" else {n for n in photographs.encoded if n.endswith("jpg")}
        assert not plain & left
