"""What a person sees in a terminal: summaries and tables, as text."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from tfzip import naming, scorecard
from tfzip.diff import Change, Diff
from tfzip.options import flag
from tfzip.read import Export
from tfzip.record import CONFIDENCE, LABEL, SCORES, TRUTH_LABEL, UNKNOWN, Record
from tfzip.selection import Rules, Selection

_BAR = 30
_CLASSES_SHOWN = 20
_FAILURES_SHOWN = 5
_CHANGES_SHOWN = 20


def summary(export: Export, command: str) -> str:
    """What an export gave, in a few lines, and what to try next; `command` is how tfzip was called."""
    facts, counts = export.manifest, export.manifest["counts"]
    size = f"{_count(len(facts['shards']), 'shard')}, {_size(export)}"
    lines = [f"{_count(counts['records'], 'record')} in {size}: {export.path}"]
    if counts["failures"]:
        lines.append(f"{_count(counts['failures'], 'failure')}, listed in index.zip (failures.csv):")
        lines += [f"  {line}" for line in _failure_lines(export)]
    if counts["ignored"]:
        lines.append(f"{_count(counts['ignored'], 'other file')} ignored")
    lines.append(f"pixels {_pixels(facts)}; task {_task(export)}")
    if unnamed := _truths_without_class(export):
        lines.append(
            f"{_count(unnamed, 'record')} with a truth that is none of the model's known classes (--labels names them)"
        )
    lines += _nonfinite_lines(export)
    if run := export.run:
        lines.append(f"{run['seconds']:.1f} s, {run['images_per_second']:.0f} images/s")
    lines.append(f"next: {command} inspect {export.path}")
    return "\n".join(map(naming.printable, lines))


def inspection(export: Export) -> str:
    """Counts, model, classes, confidence, what is right, shards and features of an export."""
    facts, counts = export.manifest, export.manifest["counts"]
    lines = [
        f"{export.path}: {facts['name']}, split {facts['split']}",
        f"records   {counts['records']} of {counts['images']} images, {_count(counts['failures'], 'failure')}",
        f"model     {model(export)}",
        f"pixels    {_pixels(facts)}",
        f"task      {_task(export)}",
        f"batches   of {facts['batch_size']}, {facts['parallel']} at a time",
        *_selection_lines(export),
    ]
    if LABEL in export.predicted:
        lines += ["", "classes", *_class_lines(export)]
    if CONFIDENCE in export.predicted:
        lines += ["", "confidence", *_histogram(export.metadata["confidence"])]
    for title, rows in scorecard.tables(export):
        lines += ["", title, *_table(rows)]
    lines += [
        "",
        "shards",
        *_table([[s["file"], f"{s['records']} records", f"{s['bytes']} bytes"] for s in facts["shards"]]),
    ]
    lines += ["", "features", *_table([[key, *_feature(spec)] for key, spec in facts["features"].items()])]
    if odd := _nonfinite_lines(export):
        lines += ["", *odd]
    if counts["failures"]:
        lines += ["", "failures", *_failure_lines(export)]
    return "\n".join(naming.printable(line).rstrip() for line in lines)


def model(export: Export) -> str:
    """The model that made an export."""
    name, kind, sha256 = (export.manifest["model"][key] for key in ("name", "format", "sha256"))
    return f"{name} ({kind}" + (f", sha256 {sha256[:12]})" if sha256 else ")")


def inspection_facts(export: Export) -> dict[str, Any]:
    """The same for programs: plain values for JSON."""
    facts = {"path": export.path, **export.manifest, "failures": [_failure_facts(f) for f in export.failures]}
    if LABEL in export.predicted:
        facts["classes"] = [{"label": label, "text": text, "records": n} for label, text, n in _classes(export)]
    if CONFIDENCE in export.predicted and len(export):
        with np.errstate(invalid="ignore"):
            quantiles = np.quantile(export.metadata["confidence"], [0, 0.25, 0.5, 0.75, 1])
        facts["confidence_quartiles"] = [_number(value) for value in quantiles]
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
    return _number(value) if isinstance(value, float) else value


def _number(value: float) -> float | None:
    """The number, in as few digits as a float32 needs; None for NaN and infinity."""
    return float(str(np.float32(value))) if math.isfinite(value) else None


def verified(export: Export, again: int = 0) -> str:
    """What `verify` says of an export in which nothing is wrong; so many images, or all, were predicted `again`."""
    counted = f"{_count(len(export), 'record')} in {_count(len(export.shards), 'shard')}"
    line = f"{counted}: every CRC, hash and filename is right, and every record is where the index says"
    same = f"\n{_count(min(again, len(export)), 'image')} predicted again: the model says what is written"
    return line + same if again else line


def selected(export: Export, chosen: Selection) -> str:
    """What was selected, class by class: how many of how many, from which confidence on, at which weight."""
    labels, classes = chosen.label, len(chosen.offered)
    taken = np.bincount(labels, minlength=classes)
    least, weight = np.full(classes, np.inf), np.ones(classes)
    np.minimum.at(least, labels, chosen.confidence)
    weight[labels] = chosen.choice.weight
    order = np.argsort(-taken, kind="stable")[:_CLASSES_SHOWN]
    names = dict(enumerate(export.labels))
    rows = [["class", "offered", "selected", "confidence from", "weight"]]
    rows += [
        [names.get(c, str(c)), str(chosen.offered[c]), str(taken[c]), *_asked(taken[c], least[c], weight[c])]
        for c in order.tolist()
        if chosen.offered[c] or taken[c]
    ]
    held = int(chosen.choice.validation.sum())
    lines = [f"{len(labels)} of {chosen.offered.sum()} selected" + (f", {held} of them for validation" if held else "")]
    truth = export.metadata["truth"][chosen.choice.rows]
    if known := int((truth >= 0).sum()):
        lines.append(f"{(labels == truth)[truth >= 0].mean():.1%} of the {known} whose truth is known are right")
    if chosen.temperature != 1:
        lines.append(f"calibrated with the temperature {chosen.temperature:.4g}")
    lines += _table(rows) + ([f"  and {classes - len(order)} more classes"] if classes > len(order) else [])
    return "\n".join(naming.printable(line).rstrip() for line in lines)


def written(made: Export, out: str, command: str) -> str:
    """Where a training set was written, and what to try next."""
    splits = made.path if made.path == out else f"{made.path}, and beside it what is for validation"
    named = f" --split {made.split}" if made.manifest["layout"] == "tfx" else ""
    counted = f"{_count(len(made), 'record')} in {_count(len(made.shards), 'shard')}, {_size(made)}: {splits}"
    return f"{counted}\nnext: {command} inspect {made.path}{named}"


def _asked(taken: int, least: float, weight: float) -> list[str]:
    return [f"{least:.4g}", f"{weight:.4g}"] if taken else ["", ""]


def difference(diff: Diff, one: Export, other: Export) -> str:
    """What changed between two exports: counts, moves between classes, and the first images."""
    changed, both = len(diff.changes), _count(diff.both, "image")
    compared = "names" if diff.by_name else "ids, as not both exports know names"
    lines = [
        f"{both} in both, {diff.only_one} only in {one.path}, {diff.only_other} only in {other.path}",
        f"{changed} changed label ({changed / diff.both:.1%}); classes compared by their {compared}",
    ]
    if diff.judged:
        judged = f"{diff.righted} from wrong to right, {diff.wronged} from right to wrong"
        lines.append(f"of {diff.judged} whose truth is known, {judged}")
    if changed:
        moves = [[_class(move.before), "->", _class(move.after), str(move.images)] for move in diff.moves]
        lines += ["", "changes", *_first(_table(moves[:_CHANGES_SHOWN]), len(moves))]
        images = [_change_cells(change) for change in diff.changes[:_CHANGES_SHOWN]]
        lines += ["", "images", *_first(_table(images), changed)]
    return "\n".join(naming.printable(line).rstrip() for line in lines)


def _first(lines: list[str], count: int) -> list[str]:
    """Lines, and how many more there are."""
    return lines + ([f"  and {count - len(lines)} more (--json lists all)"] if count > len(lines) else [])


def _change_cells(change: Change) -> list[str]:
    before, after = (f"{value:.3f}" if value == value else "" for value in change.confidences)
    truth = "" if change.truth is None else f"truth {change.truth}"
    return [naming.shown(change.filename), _class(change.before), before, "->", _class(change.after), after, truth]


def _class(text: str | None) -> str:
    return "(none)" if text is None else text


def difference_json(diff: Diff, one: Export, other: Export) -> Iterator[str]:
    """The same for programs, as the lines of a JSON object: every image that changed is one."""
    facts = {
        "one": one.path,
        "other": other.path,
        "both": diff.both,
        "only_one": diff.only_one,
        "only_other": diff.only_other,
        "changed": len(diff.changes),
        "compared_by": "name" if diff.by_name else "id",
        "truth": {"known": diff.judged, "wrong_to_right": diff.righted, "right_to_wrong": diff.wronged},
        "moves": [{"from": move.before, "to": move.after, "images": move.images} for move in diff.moves],
    }
    yield json.dumps(facts, indent=2).removesuffix("\n}") + ","
    yield '  "images": ['
    last = len(diff.changes) - 1
    for number, change in enumerate(diff.changes):
        yield "    " + json.dumps(_change_facts(change)) + ("," if number < last else "")
    yield "  ]\n}"


def _change_facts(change: Change) -> dict[str, Any]:
    return {
        "filename": naming.shown(change.filename),
        "from": change.before,
        "to": change.after,
        "confidences": [_number(value) for value in change.confidences],
        "truth": change.truth,
    }


def _selection_lines(export: Export) -> list[str]:
    """By which rules records were selected, and of what; nothing of what was not selected."""
    if not (said := export.manifest.get("selection")):
        return []
    defaults = {field.name: field.default for field in dataclasses.fields(Rules)}
    rules = [f"{flag(name)} {value}" for name, value in said["rules"].items() if value != defaults.get(name)]
    origins = [f"{each['name']} ({each['records']} records)" for each in said["from"]]
    return [f"selected  {', '.join(rules) or 'all'}; from {', '.join(origins)}"]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(export: Export) -> str:
    size = sum(shard["bytes"] for shard in export.manifest["shards"])
    return f"{size} bytes" if size < 1000 else tqdm.format_sizeof(size, "B", 1000)


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


def _pixels(facts: Mapping[str, Any]) -> str:
    pixels = facts["pixels"]
    if pixels is None:
        made = facts["model"]["takes"] == "predictions"
        return "unused: predictions made elsewhere" if made else "as the model decodes them: it takes the images' bytes"
    shape = f"{pixels['height']}x{pixels['width']}x{pixels['channels']}"
    return f"{shape} {pixels['scale']} ({_SCALES[pixels['scale']]}, {_ORIGINS[pixels['scale_from']]})"


def _task(export: Export) -> str:
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


def _truths_without_class(export: Export) -> int:
    if TRUTH_LABEL not in export.features or export.manifest["task"] == "detection":  # whose classes are of boxes
        return 0
    rows = zip(export.each_row(), export.metadata["truth"].tolist(), strict=True)
    return sum(1 for row, label in rows if row["truth"] and label == UNKNOWN)


def _classes(export: Export) -> list[tuple[int, str, int]]:
    """Label, name and number of records, most frequent first."""
    counted = Counter(export.metadata["label"].tolist())
    counted.pop(UNKNOWN, None)
    names = dict(enumerate(export.labels))
    return [(label, names.get(label, str(label)), n) for label, n in counted.most_common()]


def _class_lines(export: Export) -> list[str]:
    classes = _classes(export)
    most = classes[0][2] if classes else 1
    lines = _table([[text, str(n), _bar(n / most)] for _, text, n in classes[:_CLASSES_SHOWN]])
    if len(classes) > _CLASSES_SHOWN:
        lines.append(f"  and {len(classes) - _CLASSES_SHOWN} more classes")
    return lines


def _histogram(values: Any) -> list[str]:
    finite = values[np.isfinite(values)]
    counts, edges = np.histogram(finite, bins=10, range=(0, 1))
    most = max(counts.max(initial=0), 1)
    rows = [
        [f"{low:.1f}-{high:.1f}", str(n), _bar(n / most)]
        for low, high, n in zip(edges, edges[1:], counts, strict=False)
    ]
    first = next((i for i, n in enumerate(counts) if n), 0)
    return _table(rows[first:]) + ([f"  {len(values) - len(finite)} not a number"] if len(finite) < len(values) else [])


def _bar(share: float) -> str:
    return "#" * max(round(share * _BAR), 1 if share else 0)


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
    first = f"{_count(count, 'prediction')} not a number: NaN or infinity is in it (nonfinite in metadata.csv)"
    return [first, *(f"  {line}" for line in lines)]


def unwritten(found: Sequence[tuple[str, str]], out: str) -> str:
    """Which images `extract` could not write, and how to get them."""
    lines = [f"  {naming.typed(name)}: {reason}" for name, reason in found[:_FAILURES_SHOWN]]
    lines += [f"  and {len(found) - len(lines)} more"] if len(found) > len(lines) else []
    first = f"{_count(len(found), 'image')} not written, as no file there can have the name:"
    return "\n".join([first, *lines, f"`tfzip get {out} FILENAME --image FILE` writes one under another name"])


def as_json(facts: Mapping[str, Any]) -> str:
    """Facts as JSON for people: whatever could act on a terminal is escaped, other letters are not."""
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def _table(rows: list[list[str]]) -> list[str]:
    """Rows with their columns aligned: text to the left, numbers to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  "
        + "  ".join(
            c.rjust(w) if c[:1].isdigit() and i else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
