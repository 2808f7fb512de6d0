"""What a person sees of an export and of a record in a terminal, as text; and the same for programs."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfzip import describe, naming, scorecard, storage
from tfzip.classes import class_members, known_names
from tfzip.layout import REPORT
from tfzip.read import Export
from tfzip.record import CONFIDENCE, TRUTH_LABEL, UNKNOWN, Record, is_detection
from tfzip.table import chart, table

_CLASSES_SHOWN = 20
_SHARDS_SHOWN = 20
_FAILURES_SHOWN = 5
_LONGEST_ID = 20


def summary(export: Export, command: str) -> str:
    """What an export gave, in a few lines, and what to try next; `command` is how tfzip was called."""
    facts, counts = export.manifest, export.manifest["counts"]
    size = f"{counted(len(facts['shards']), 'shard')}, {size_of(export)}"
    lines = [f"{counted(counts['records'], 'record')} in {size}: {export.path}"]
    if counts["failures"]:
        lines.append(f"{counted(counts['failures'], 'failure')}, listed in index.zip (failures.csv):")
        lines += [f"  {line}" for line in _failure_lines(export)]
    if counts["ignored"]:
        lines.append(f"{counted(counts['ignored'], 'other file')} ignored")
    lines.append(f"pixels {describe.pixels(facts)}; task {describe.task(export)}")
    if unnamed := _truths_without_class(export):
        lines.append(
            f"{counted(unnamed, 'record')} with a truth that is none of the model's known classes (--labels names them)"
        )
    lines += _nonfinite_lines(export)
    if run := export.run:
        lines.append(f"{run['seconds']:.1f} s, {run['images_per_second']:.0f} images/s")
        lines += _runner_lines(run)
    if storage.isfile(page := storage.join(export.home, REPORT)):
        lines.append(f"report: {page}")
    split = f" --split {export.split}" if facts["layout"] == "tfx" else ""
    lines.append(f"next: {command} inspect {export.path}{split}")
    return "\n".join(map(naming.printable, lines))


def _runner_lines(run: Mapping[str, Any]) -> list[str]:
    """What workers counted, where a runner had some, and tells."""
    if "runner" not in run:
        return []
    if not (counters := run["counters"]):
        return [f"by {run['runner']}, which counts nothing"]
    things = ", ".join(counted(counters[f"{thing}s"], thing) for thing in ("shard", "record", "failure"))
    work = f"{describe.size(counters['bytes'])}, {counters['milliseconds'] / 1000:.1f} s of work"
    return [f"by {run['runner']}: {things}, {work}"]


def inspection(export: Export, width: int | None = None) -> str:
    """Counts, model, classes, confidence, what is right, shards and features of an export.

    `width` is that of the terminal; None if it is not for one.
    """
    facts, counts = export.manifest, export.manifest["counts"]
    lines = [
        f"{export.path}: {facts['name']}, split {facts['split']}",
        f"records   {counts['records']} of {counts['images']} images, {counted(counts['failures'], 'failure')}",
        f"model     {describe.model(export)}",
        f"pixels    {describe.pixels(facts)}",
        f"task      {describe.task(export)}",
        f"batches   of {facts['batch_size']}, {facts['parallel']} at a time",
        *([f"selected  {selected}"] if (selected := describe.selection(export)) else []),
    ]
    if export.predicted:
        lines += ["", "classes", *_class_lines(export, width)]
    if CONFIDENCE in export.predicted:
        lines += ["", "confidence", *_histogram(export, width)]
    elif is_detection(export.predicted):
        lines += ["", "confidence of the surest box", *_histogram(export, width)]
    for title, rows in scorecard.tables(export):
        lines += ["", title, *table(rows, width=width)]
    lines += ["", "shards", *_shard_lines(facts["shards"])]
    lines += ["", "features", *table([[key, *_feature(spec)] for key, spec in facts["features"].items()])]
    if odd := _nonfinite_lines(export):
        lines += ["", *odd]
    if counts["failures"]:
        lines += ["", "failures", *_failure_lines(export)]
    return "\n".join(naming.printable(line).rstrip() for line in lines)


def inspection_facts(export: Export) -> dict[str, Any]:
    """The same for programs: plain values for JSON."""
    facts = {"path": export.path, **export.manifest, "failures": [_failure_facts(f) for f in export.failures]}
    if export.predicted:
        classes, without = _classes(export)
        facts["classes"] = [{"label": label, "text": text, "records": count} for label, text, count in classes]
        facts["without_class"] = without
    if CONFIDENCE in export.predicted and len(export):
        with np.errstate(invalid="ignore"):
            quantiles = np.quantile(export.metadata["confidence"], [0, 0.25, 0.5, 0.75, 1])
        facts["confidence_quartiles"] = [json_number(value) for value in quantiles]
    if evaluation := scorecard.facts(export):
        facts["evaluation"] = evaluation
    return facts


def record_facts(record: Record) -> dict[str, Any]:
    """A record without its image, as plain values for JSON."""
    facts = {
        "filename": naming.shown(record.filename),
        "format": record.format,
        "height": record.height,
        "width": record.width,
        "source_id": record.source_id,
        "prediction": {key: _plain(value) for key, value in record.prediction._asdict().items() if value is not None},
    }
    if record.truth is not None:
        facts["truth"] = record.truth._asdict()
    if record.target is not None:
        facts["target"] = {key: _plain(value) for key, value in record.target._asdict().items() if value is not None}
    if record.outputs:
        facts["outputs"] = {name: _plain(value) for name, value in record.outputs.items()}
    if record.extra:
        facts["extra"] = {name: _plain(value) for name, value in record.extra.items()}
    return facts


def _plain(value: Any) -> Any:
    """NumPy values, bytes and what JSON has no number for, as JSON has them."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return naming.to_text(value)
    return json_number(value) if isinstance(value, float) else value


def verified(export: Export, again: int = 0) -> str:
    """What `verify` says of an export in which nothing is wrong; so many images, or all, were predicted `again`."""
    held = f"{counted(len(export), 'record')} in {counted(len(export.shards), 'shard')}"
    line = f"{held}: every CRC, hash and filename is right, and every record is where the index says"
    same = f"\n{counted(min(again, len(export)), 'image')} predicted again: the model says what is written"
    return line + same if again else line


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def size_of(export: Export) -> str:
    """The bytes of all shards."""
    return describe.size(sum(shard["bytes"] for shard in export.manifest["shards"]))


def json_number(value: float) -> float | None:
    """The value, in as few digits as a float32 needs; None for NaN and infinity."""
    return float(str(np.float32(value))) if math.isfinite(value) else None


def _truths_without_class(export: Export) -> int:
    if TRUTH_LABEL not in export.features or export.manifest["task"] == "detection":  # whose classes are of boxes
        return 0
    rows = zip(export.each_row(), export.metadata["truth"].tolist(), strict=True)
    return sum(1 for row, label in rows if row["truth"] and label == UNKNOWN)


def _classes(export: Export) -> tuple[list[tuple[int | None, str, int]], int]:
    """Label, name and number of records of the classes that occur, most frequent first; and records without a class."""
    rows, classes, names = class_members(export)
    counts, known = np.bincount(classes, minlength=len(names)), len(known_names(export))
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)].tolist()
    found = [(place if place < known else _id(names[place]), names[place], int(counts[place])) for place in order]
    return found, len(export) - len(np.unique(rows))


def _id(text: str) -> int | None:
    """The label that stands for a class without a name; None if it is a name that has no label."""
    return int(text) if text.isdecimal() and len(text) < _LONGEST_ID else None


def _class_lines(export: Export, width: int | None) -> list[str]:
    classes, without = _classes(export)
    lines = chart([(text, count) for _, text, count in classes[:_CLASSES_SHOWN]], width)
    if len(classes) > _CLASSES_SHOWN:
        lines.append(f"  and {len(classes) - _CLASSES_SHOWN} more classes")
    return lines + ([f"  {counted(without, 'record')} without a class"] if without else [])


def _histogram(export: Export, width: int | None) -> list[str]:
    """How many confidences are in each tenth; without those below the least."""
    values = export.metadata["confidence"]
    inside = values[(values >= 0) & (values <= 1)]
    counts, edges = np.histogram(inside, bins=10, range=(0, 1))
    first = int(np.argmax(counts > 0))
    names = [f"{low:.1f}-{high:.1f}" for low, high in itertools.pairwise(edges)]
    lines = chart([*zip(names, counts.tolist(), strict=True)][first:], width)
    if (odd := int(np.count_nonzero(~np.isfinite(values)))) and not is_detection(export.predicted):
        lines.append(f"  {odd} not a number")
    if outside := int(np.count_nonzero(np.isfinite(values))) - len(inside):
        lines.append(f"  {outside} outside 0 to 1")
    return lines


def _shard_lines(shards: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [[s["file"], f"{s['records']} records", f"{s['bytes']} bytes"] for s in shards[:_SHARDS_SHOWN]]
    more = len(shards) - _SHARDS_SHOWN
    return table(rows) + ([f"  and {more} more shards (--json lists all)"] if more > 0 else [])


def _feature(spec: Any) -> tuple[str, str]:
    return spec["dtype"], "[" + ", ".join("?" if n is None else str(n) for n in spec["shape"]) + "]"


def _failure_facts(failure: Any) -> dict[str, str]:
    return {"filename": naming.shown(failure.filename), "stage": failure.stage, "error": failure.error}


def _failure_lines(export: Export) -> list[str]:
    shown = itertools.islice(export.each_failure(), _FAILURES_SHOWN)
    lines = [f"{naming.shown(f.filename)}: {f.stage}: {f.error}" for f in shown]
    more = export.manifest["counts"]["failures"] - len(lines)
    return lines + ([f"and {more} more"] if more else [])


def _nonfinite_lines(export: Export) -> list[str]:
    """How many predictions are not finite, and of which images."""
    count = export.manifest["counts"]["nonfinite"]
    if not count:
        return []
    rows = itertools.islice(np.flatnonzero(export.metadata["nonfinite"]).tolist(), _FAILURES_SHOWN)
    lines = [naming.shown(naming.to_str(export._index.filename(row))) for row in rows]
    lines += [f"and {count - len(lines)} more"] if count > len(lines) else []
    first = f"{counted(count, 'prediction')} not a number: NaN or infinity is in it (nonfinite in metadata.csv)"
    return [first, *(f"  {line}" for line in lines)]


def unwritten(found: Sequence[tuple[str, str]], out: str) -> str:
    """Which images `extract` could not write, and how to get them."""
    lines = [f"  {naming.typed(name)}: {reason}" for name, reason in found[:_FAILURES_SHOWN]]
    lines += [f"  and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
    first = f"{counted(len(found), 'image')} not written, as no file there can have the name:"
    return "\n".join([first, *lines, f"`tfzip get {out} FILENAME --image FILE` writes one under another name"])


def as_json(facts: Mapping[str, Any]) -> str:
    """Facts as JSON for people: whatever could act on a terminal is escaped, other letters are not."""
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
