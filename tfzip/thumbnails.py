"""Small pictures of records, for a page to show. Without TensorFlow, whose import takes seconds: Pillow makes them."""

from __future__ import annotations

import base64
import contextlib
import functools
import io
import itertools
import math
import os
import threading
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import pillow
from tfzip.defaults import MAX_PIXELS
from tfzip.errors import UsageError, reason
from tfzip.record import Record

_READ = ("JPEG", "MPO", "PNG", "GIF", "BMP", "WEBP", "TIFF", "AVIF", "HEIF", "JPEG2000")
"""What Pillow may take a file for. It knows far more formats, and calls other programs for some."""

_JPEG = ("JPEG", "MPO")
_NPY = b"\x93NUMPY"
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL ")
_HEIC = (b"ftyphe", b"ftypmif1", b"ftypmsf1")  # behind the size of the first box
_TINY = 64  # pixels of the longest side up to which none is changed
_QUALITY = 60
_LONGEST_WHY = 120
_ORIENTATION = 0x0112
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_WHITE = {"u1": 255, "u2": 65535, "f4": 255, "f8": 255}
_WORKERS = min(4, os.cpu_count() or 1)
_AHEAD = 4 * _WORKERS  # records
_LARGE, _LARGE_JPEG = 4_000_000, 32_000_000  # pixels
_ONE_LARGE = threading.Lock()


class Thumbnail(NamedTuple):
    """A small picture as a `data:` URI, and its size in pixels; or why there is none, in a short line."""

    uri: str
    width: int
    height: int
    why: str = ""


def check_installed() -> None:
    """UsageError if Pillow is missing."""
    try:
        import PIL  # noqa: F401 - only asked for
    except ImportError:
        raise UsageError("thumbnails are made by Pillow, which is missing: pip install 'tfzip[report]'") from None


def thumbnails(
    records: Iterable[Record], *, oriented: bool = False, max_pixels: int = MAX_PIXELS, side: int = 128
) -> Iterator[Thumbnail]:
    """Records' images as WebPs, in their order, made side by side; few records are taken ahead.

    Of an animation it is the first frame. Pixels are those of the image if that is tiny (up to 64 by 64), otherwise
    nearly so. Alpha is kept, metadata are not: a colour profile is not applied either, as no model sees it applied.

    Args:
        records: any; what is wrong with the image of one is told by `why`.
        oriented: turn them as the camera noted in EXIF.
        max_pixels: that an image may claim.
        side: of a thumbnail, in pixels; a smaller image stays as it is.
    """
    make = functools.partial(_made, oriented=oriented, side=side)
    records = iter(records)
    with ThreadPoolExecutor(_WORKERS) as pool:
        while some := list(itertools.islice(records, _AHEAD)):
            with _pillow(max_pixels):
                made = list(pool.map(make, some))
            yield from made


@contextlib.contextmanager
def _pillow(max_pixels: int) -> Iterator[None]:
    """Pillow that says nothing, and raises where more pixels are claimed; in all threads, as both are of the process.

    It asks itself whenever it learns of a size, which is before it makes room.
    """
    from PIL import Image

    Image.init()
    with pillow.guarded(max_pixels), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _made(record: Record, oriented: bool, side: int) -> Thumbnail:
    from PIL import Image, UnidentifiedImageError

    encoded = record.encoded
    if not encoded:
        return _none("exported without images" if encoded is None else "no bytes")
    try:
        image = _from_npy(encoded, side) if encoded.startswith(_NPY) else _from_file(encoded, oriented, side)
        return _as_webp(image)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return _none(f"more than {Image.MAX_IMAGE_PIXELS} pixels")
    except UnidentifiedImageError:  # its message has an address in memory
        return _none("damaged, or of a kind that Pillow does not read")
    except Exception as error:  # whatever a decoder raises at what is in the file
        return _none(reason(error))


def _none(why: str) -> Thumbnail:
    return Thumbnail("", 0, 0, why[:_LONGEST_WHY])


def _as_webp(image: Any) -> Thumbnail:
    file, lossless = io.BytesIO(), max(image.size) <= _TINY
    image.save(file, "webp", lossless=lossless, exact=lossless, quality=_QUALITY)
    return Thumbnail(f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}", *image.size)


def _from_file(encoded: bytes, oriented: bool, side: int) -> Any:
    with _open(encoded) as image:
        is_jpeg = image.format in _JPEG
        with _room(image.width * image.height, is_jpeg):
            # The decoder of JPEG itself makes a smaller picture where that is asked for before it is at work.
            small = _shrunk(image if is_jpeg else _eight_bits(image), side)
        small = _eight_bits(small)
        return _upright(small, image.info.get("exif", b"")) if oriented else small


def _open(encoded: bytes) -> Any:
    from PIL import Image

    if encoded.startswith(_JXL):
        raise ValueError("jxl: Pillow does not read it")
    if encoded.startswith(_HEIC, 4):
        try:
            pillow.register_heif()
        except ImportError:
            raise ValueError("heic: Pillow reads it with the help of pip install 'tfzip[formats]'") from None
    return Image.open(io.BytesIO(encoded), formats=[name for name in _READ if name in Image.OPEN])


def _room(pixels: int, is_jpeg: bool) -> contextlib.AbstractContextManager[Any]:
    """Memory for so many pixels: of large pictures one is made at a time."""
    return _ONE_LARGE if pixels > (_LARGE_JPEG if is_jpeg else _LARGE) else contextlib.nullcontext()


def _shrunk(image: Any, side: int) -> Any:
    from PIL import Image

    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    image.load()  # if that had nothing to do
    return image


def _eight_bits(image: Any) -> Any:
    """In mode L, RGB or RGBA. Of 16 bits the upper 8 count, as for TensorFlow."""
    from PIL import Image

    image = pillow.plain(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = "RGBA" if image.has_transparency_data else "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _upright(image: Any, exif: bytes) -> Any:
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        turn = _TURNS.get(tags.get(_ORIENTATION))
    except Exception:  # what cannot be read says nothing
        turn = None
    return image.transpose(Image.Transpose[turn]) if turn else image


def _from_npy(encoded: bytes, side: int) -> Any:
    """The arrays that `npy.decode` takes, and no others."""
    from PIL import Image

    file = io.BytesIO(encoded)
    shape, is_fortran, dtype = _npy_header(file)
    is_image = len(shape) > 1 and min(shape) > 0 and shape[2:] in ((), (1,), (3,), (4,))
    if is_fortran or not is_image or dtype.str[1:] not in _WHITE:
        raise ValueError(f"npy: an array of {dtype} and shape {shape} is no image")
    if math.prod(shape[:2]) > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError
    if math.prod(shape) * dtype.itemsize != len(encoded) - file.tell():
        raise ValueError("npy: not as many bytes as its shape says")
    with _room(math.prod(shape[:2]), False):
        pixels = np.frombuffer(encoded, dtype, offset=file.tell()).reshape(shape)
        return _shrunk(Image.fromarray(_in_range(pixels.squeeze(2) if shape[2:] == (1,) else pixels)), side)


def _npy_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """The array's shape, whether it is in the order of Fortran, its dtype; the file is then where its numbers begin."""
    try:
        is_first = np.lib.format.read_magic(file) == (1, 0)
        read = np.lib.format.read_array_header_1_0 if is_first else np.lib.format.read_array_header_2_0
        return read(file)
    except Exception:  # NumPy lets Python parse it, and what that says is about Python
        raise ValueError("npy: its header cannot be read") from None


def _in_range(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Numbers from 0 to white as those from 0 to 255; ValueError if floats are not in their range."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind == "f" and not (pixels.min() >= 0 and pixels.max() <= 255):
        raise ValueError("npy: not all pixels are from 0 to 255")
    return np.rint(pixels.astype(np.float32) * 255 / _WHITE[pixels.dtype.str[1:]]).astype(np.uint8)
