"""What every use of Pillow here needs: its guards lent for a while, and its kinds of pixels made plain."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

_GUARD = threading.Lock()  # Pillow has one for the whole process
_CONVERSIONS = {
    **{mode: mode for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B")},  # PNG has these
    **dict.fromkeys(("CMYK", "YCbCr", "LAB", "RGBX"), "RGB"),
    "La": "LA",
    "RGBa": "RGBA",
}
"""Per kind of pixels that Pillow gives, the plain one; kinds without a range of their own are not among them."""


@contextlib.contextmanager
def guarded(pixels: int | None) -> Iterator[None]:
    """Let Pillow's own guard against bombs warn of more pixels than these, or of none if None; refuse cut files.

    Otherwise both are the caller's: that guard warns of half of what is allowed here, and TFDS, once it has looked at
    an image, lets the whole process read cut files as if they were whole.
    """
    from PIL import Image, ImageFile

    with _GUARD:
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, pixels
        cut, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = most, cut


def register_heif() -> None:
    """Let Pillow read HEIC; raises ImportError."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def plain(image: Any) -> Any:
    """A picture in a mode that PNG has: its pixels are as they were; ValueError if they have no range of their own."""
    if image.mode in ("P", "PA"):
        return image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
    if image.mode not in _CONVERSIONS:
        raise ValueError(f"its pixels (Pillow's mode {image.mode}) have no range that tells black from white")
    mode = _CONVERSIONS[image.mode]
    return image if image.mode == mode else image.convert(mode)
