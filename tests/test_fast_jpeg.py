"""A JPEG decoded no larger than its resize needs: of the right size, and only where that is asked for."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import tfzip
from tfzip import decode
from tfzip.errors import UsageError


def photograph(height, width):
    from sklearn.datasets import load_sample_image

    return Image.fromarray(load_sample_image("china.jpg")).resize((width, height), Image.Resampling.LANCZOS)


def encoded(image, kind="JPEG", **how):
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def decoded(image, size, **how):
    function = tf.function(lambda element: decode.decoder(size, 3, tf.float32, **how)(element), autograph=False)
    return function({"encoded": tf.constant(image)})


SIZES = [
    ((427, 640), (224, 224), 1),  # a half would be too low
    ((448, 640), (224, 224), 2),
    ((447, 640), (224, 224), 1),
    ((640, 449), (224, 224), 2),
    ((1000, 1500), (224, 224), 4),
    ((2000, 2400), (32, 32), 8),
    ((903, 1205), (100, 150), 8),
    ((30, 40), (224, 224), 1),
]
"""Height and width of a file and of the model's input, and the part that is decoded."""


@pytest.mark.parametrize(("file", "size", "part"), SIZES)
def test_the_smallest_part_that_will_do_is_decoded(file, size, part):
    image = encoded(photograph(*file), quality=92)
    element = decoded(image, size, fast_jpeg=True)
    smaller = tf.io.decode_jpeg(image, 3, ratio=part)
    np.testing.assert_array_equal(element["pixels"], tf.image.resize(smaller, size))
    assert (int(element["height"]), int(element["width"])) == file
    draft = Image.open(io.BytesIO(image))
    draft.draft("RGB", (file[1] // part, file[0] // part))
    assert draft.size == (smaller.shape[1], smaller.shape[0])
    apart = np.abs(np.asarray(draft, np.float32) - smaller.numpy().astype(np.float32))
    assert apart.mean() < 2, "Pillow, with a decoder of its own, has other pixels"


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("orientation", ["ignore", "apply"])
def test_it_looks_as_if_it_had_been_decoded_whole(resize, orientation):
    turned = Image.Exif()
    turned[0x0112] = 6
    image = encoded(photograph(900, 1300), quality=92, exif=turned)
    how = {"resize": resize, "exif_orientation": orientation, "interpolation": "area"}
    whole, fast = (decoded(image, (96, 128), fast_jpeg=fast, **how) for fast in (False, True))
    apart = np.abs(whole["pixels"] - fast["pixels"])
    assert 0 < apart.mean() < 8
    assert np.abs(whole["pixels"] - fast["pixels"][:, ::-1]).mean() > 20
    assert [int(fast[side]) for side in ("height", "width")] == [900, 1300]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP"])
def test_other_formats_are_decoded_as_ever(kind):
    image = encoded(photograph(300, 500), kind)
    whole, fast = (decoded(image, (32, 32), fast_jpeg=fast) for fast in (False, True))
    for name in ("pixels", "height", "width"):
        np.testing.assert_array_equal(whole[name], fast[name])


def test_a_jpeg_in_cmyk_is_decoded_too():
    image = encoded(photograph(300, 500).convert("CMYK"))
    whole, fast = (decoded(image, (32, 32), fast_jpeg=fast, interpolation="area") for fast in (False, True))
    assert np.abs(whole["pixels"] - fast["pixels"]).mean() < 8
    assert int(fast["width"]) == 500


@pytest.fixture
def photos(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(6):
        crop = photograph(900, 1300).crop((100 * number, 60 * number, 100 * number + 600, 60 * number + 500))
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(encoded(crop, quality=90))
    return str(tmp_path / "photos")


def test_an_export_says_so_and_is_verified_with_it(photos, photographs_model, tmp_path):
    fast, whole = (
        tfzip.export(photos, photographs_model, str(tmp_path / str(fast)), fast_jpeg=fast, quiet=True)
        for fast in (True, False)
    )
    assert fast.manifest["pixels"]["fast_jpeg"] is True
    assert whole.manifest["pixels"]["fast_jpeg"] is False
    assert not np.allclose(fast.metadata["scores"], whole.metadata["scores"], atol=1e-3)
    assert [record.encoded for record in fast[:]] == [record.encoded for record in whole[:]]
    for export in (fast, whole):
        assert tfzip.verify(export, model=photographs_model) == []


def test_with_an_image_that_is_stored_anew_it_is_refused(photos, photographs_model, tmp_path):
    with pytest.raises(UsageError, match="--fast-jpeg and --image png"):
        tfzip.export(photos, photographs_model, str(tmp_path / "out"), fast_jpeg=True, image="png", quiet=True)
