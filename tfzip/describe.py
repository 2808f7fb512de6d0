"""What made an export, and how, in words: for a terminal and for the report's page."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from tfzip.options import flag
from tfzip.read import Export
from tfzip.record import SCORES
from tfzip.rules import Rules

_SCALES = {
    "raw": "0..255",
    "unit": "0..1",
    "symmetric": "-1..1",
    "caffe": "BGR minus the ImageNet mean",
    "torch": "normalized by the ImageNet mean and deviation",
}
_ORIGINS = {
    "option": "as asked",
    "model": "as the model itself rescales them",
    "application": "as the model's name tells: --scale changes it",
    "preprocess": "then the function given",
}


def facts(export: Export) -> list[tuple[str, str]]:
    """Names and values of what was asked for, and what came of it."""
    said, counts = export.manifest, export.manifest["counts"]
    found = [
        ("dataset", f"{said['name']}, split {said['split']}"),
        ("records", f"{counts['records']} of {counts['images']} images"),
        ("model", model(export)),
        ("pixels", pixels(said)),
        ("task", task(export)),
        ("batches", f"of {said['batch_size']}, {said['parallel']} at a time"),
        ("images", f"{said['image']}: {', '.join(said['formats']) or 'as their decoder knows'}"),
        ("compression", said["compression"]),
        ("shuffled by", str(said["shuffle"])),
        ("limited to", str(said["limit"])),
        ("selected", selection(export)),
    ]
    return [(key, value) for key, value in found if value not in (None, "None")]


def size(count: int) -> str:
    """So many bytes: `999 bytes`, `1.23 kB`, `45.6 MB`."""
    if count < 1000:
        return f"{count} bytes"
    shown = tqdm.format_sizeof(count, "B", 1000)
    return f"{shown[:-2]} {shown[-2:]}"


def model(export: Export) -> str:
    """The model that made an export."""
    name, kind, sha256 = (export.manifest["model"][key] for key in ("name", "format", "sha256"))
    return f"{name} ({kind}" + (f", sha256 {sha256[:12]})" if sha256 else ")")


def pixels(facts: Mapping[str, Any]) -> str:
    """How images became the model's input, by the manifest."""
    made = facts["pixels"]
    if made is None:
        elsewhere = facts["model"]["takes"] == "predictions"
        return (
            "unused: predictions made elsewhere"
            if elsewhere
            else "as the model decodes them: it takes the images' bytes"
        )
    shape = f"{made['height']}x{made['width']}x{made['channels']}"
    return f"{shape} {made['scale']} ({_SCALES[made['scale']]}, {_ORIGINS[made['scale_from']]})"


def task(export: Export) -> str:
    """What the model did, and of how many classes."""
    facts = export.manifest
    classes = export.predicted[SCORES].shape if SCORES in export.predicted else ()
    if not classes:
        return facts["task"] + (f", boxes from {facts['min_score']} on" if facts["min_score"] is not None else "")
    named = {
        "none": "without names",
        "file": "names from the labels file",
        "model": "names from the model's files",
        "source": "names from the source",
    }
    origin = named.get(facts["labels"]["from"], "names as given")
    return f"{facts['task']}, {classes[0]} classes ({origin}), from {facts['model']['scores']}"


def selection(export: Export) -> str | None:
    """By which rules records were selected, and of what; None of an export of which nothing was left out."""
    if not (said := export.manifest.get("selection")):
        return None
    defaults = {field.name: field.default for field in dataclasses.fields(Rules)}
    rules = [f"{flag(name)} {value}" for name, value in said["rules"].items() if value != defaults.get(name)]
    origins = [f"{each['name']} ({each['records']} records)" for each in said["from"]]
    return f"{', '.join(rules) or 'all'}; from {', '.join(origins)}"
