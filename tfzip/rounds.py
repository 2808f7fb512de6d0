"""What a person sees of a selection, and of what changed between two exports, as text; and the same for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tfzip import naming
from tfzip.diff import Change, Diff
from tfzip.read import Export
from tfzip.selection import Selection
from tfzip.table import table
from tfzip.terminal import counted, json_number, size_of

_CLASSES_SHOWN = 20
_CHANGES_SHOWN = 20


def selected(export: Export, chosen: Selection, width: int | None = None) -> str:
    """What was selected, class by class: how many of how many, from which confidence on, at which weight.

    `width` is that of the terminal; None if it is not for one.
    """
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
    lines += table(rows, headed=True, width=width)
    lines += [f"  and {classes - len(order)} more classes"] if classes > len(order) else []
    return "\n".join(naming.printable(line).rstrip() for line in lines)


def written(made: Export, out: str, command: str) -> str:
    """Where a training set was written, and what to try next."""
    splits = made.path if made.path == out else f"{made.path}, and beside it what is for validation"
    named = f" --split {made.split}" if made.manifest["layout"] == "tfx" else ""
    held = f"{counted(len(made), 'record')} in {counted(len(made.shards), 'shard')}, {size_of(made)}"
    return f"{held}: {splits}\nnext: {command} inspect {made.path}{named}"


def _asked(taken: int, least: float, weight: float) -> list[str]:
    return [f"{least:.4g}", f"{weight:.4g}"] if taken else ["", ""]


def difference(diff: Diff, one: Export, other: Export, width: int | None = None) -> str:
    """What changed between two exports: counts, moves between classes, and the first images.

    `width` is that of the terminal; None if it is not for one.
    """
    changed, both = len(diff.changes), counted(diff.both, "image")
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
        lines += ["", "changes", *_first(table(moves[:_CHANGES_SHOWN], width=width), len(moves))]
        images = [_change_cells(change) for change in diff.changes[:_CHANGES_SHOWN]]
        lines += ["", "images", *_first(table(images), changed)]
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
        "confidences": [json_number(value) for value in change.confidences],
        "truth": change.truth,
    }
