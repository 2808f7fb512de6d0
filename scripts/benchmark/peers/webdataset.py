"""WebDataset's tars, without compression.

As https://github.com/webdataset/webdataset shows `ShardWriter`: samples as dicts, encoded by the ends of their keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from benchmark.work import Work

PACKAGES = ("webdataset",)


def write(work: Work) -> Callable[[], None]:
    """Three members an image: its bytes, its class, its scores."""
    import webdataset

    def run() -> None:
        os.mkdir(work.out)
        with webdataset.ShardWriter(os.path.join(work.out, "images-%06d.tar"), verbose=0) as writer:
            for name, encoded, scores in work.samples():
                key = os.path.splitext(name)[0]
                writer.write({"__key__": key, "jpg": encoded, "cls": int(scores.argmax()), "npy": scores})

    return run
