"""Images, some of them broken, whose exports on Beam are compared with those of one process."""

import shutil

import killed
import numpy as np
import sources_made

import tfzip

SOME = {"batch_size": 4, "parallel": 2, "shard_records": 30, "quiet": True}
"""Of 160 images six shards."""

KINDS = {
    "flat": {**SOME, "source_labels": "folder"},
    "shuffled": {**SOME, "shuffle": 7, "limit": 130, "compression": "none", "shard_records": 25},
    "tfx": {**SOME, "layout": "tfx", "shards": 5, "shard_records": 10_000, "image": "png", "shuffle": 1},
}
"""Ways to export them."""


def pictures(digits, folder):
    """160 images: digits in class folders, of which some shards have broken ones; and a file that is none."""
    made = sources_made.pictures_of(digits, folder, 150)
    for number, name in enumerate(made.names[10:110:10]):
        broken = folder / name.replace(".png", ".broken.png")
        broken.write_bytes(b"" if number % 2 else made.encoded[number][:40])
    (folder / "notes.txt").write_text("no image")
    return folder


def same_as(one, other):
    """Whether two exports are, byte for byte, the same; whose predictions differ, so that mixing up two would show."""
    export = tfzip.open(one)
    scores = np.array([record.prediction.scores for record in export[:]])
    assert len(np.unique(scores.round(4), axis=0)) > len(export) * 3 / 4
    assert len({record.prediction.label for record in export[:]}) > 5
    assert len(export.manifest["shards"]) > 3
    assert len(export.failures) > 3
    assert tfzip.verify(export) == []
    ours, theirs = killed.contents(one), killed.contents(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if ours[name] != theirs[name]] == []


def inodes(work):
    """The shards that are finished in a work folder, and which files they are."""
    rows = {path.name.removeprefix("rows-").removesuffix(".npz") for path in work.glob("rows-*.npz")}
    return {int(number): (work / f"shard-{number}").stat().st_ino for number in rows}


def published(out):
    """Which files the shards of a finished export are, by number."""
    return {int(path.name.split("-")[-3]): path.stat().st_ino for path in out.rglob("*.tfrecord-*")}


def copied(folder, to):
    """Another folder of the same images, with their times."""
    shutil.copytree(folder, to)
    return to
