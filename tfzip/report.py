"""A finished export as one HTML page to look at: its index, and a few of its records as pictures."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfzip import describe, figures, gallery, naming, page, storage, thumbnails
from tfzip.cards import cards, records_of
from tfzip.classes import Members, class_members
from tfzip.defaults import MIN_CONFIDENCE
from tfzip.errors import OutputError, UsageError
from tfzip.evaluate import Evaluation, evaluate, lacks
from tfzip.layout import REPORT
from tfzip.read import Export
from tfzip.read import open as open_export
from tfzip.record import CONFIDENCE, OUTPUT, SCORES, Failure, FeatureSpec

_MOST_CLASSES = 1000  # rows of the table; the rest of them together in one
_MATRIX = 20  # classes in the confusion matrix
_CONFUSED, _MISSED = 10, 10
_SHARDS = 20
_REASONS, _DIFFERENT, _EXAMPLES = 20, 1000, 3
_OUTPUTS, _OUTPUT_BYTES, _OUTPUT_VALUES = 1000, 1 << 26, 4096

Rows = npt.NDArray[np.int64]


def report(
    export: Export | str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    min_confidence: float = MIN_CONFIDENCE,
    seed: int = 0,
) -> str:
    """Write a page about an export: counts, confidences, thresholds, mistakes, pictures, failures.

    It holds all that it shows, and asks for nothing from elsewhere; a few MB, whatever the export's size.

    Args:
        export: a finished one, or its path.
        to: the file to write; `report.html` beside the index if not given.
        min_confidence: at which the threshold stands first, and around which pictures are shown.
        seed: of the pictures that are drawn.

    Returns the file's path.

    Raises:
        UsageError: what makes pages or pictures is not installed, an argument is wrong, or `to` cannot be written.
        CorruptError: the index, or a record that is shown, is damaged.
        OutputError: the export's folder cannot be written.
    """
    if not isinstance(export, Export):
        with open_export(export) as opened:
            return report(opened, to, min_confidence=min_confidence, seed=seed)
    path = storage.join(export.home, REPORT) if to is None else os.fspath(to)
    html = as_html(export, min_confidence=min_confidence, seed=seed)
    try:
        storage.write_whole(path, html.encode())
    except OSError as error:
        told = f"{path}: the report cannot be written ({error.strerror or error})"
        raise (OutputError(told) if to is None else UsageError(f"--to {told}")) from None
    return path


def as_html(export: Export, *, min_confidence: float = MIN_CONFIDENCE, seed: int = 0) -> str:
    """The page that `report` writes; raises what that does."""
    check_installed()
    if not 0 <= min_confidence <= 1:
        raise UsageError(f"--min-confidence {min_confidence}: use a number from 0 to 1")
    if seed < 0:
        raise UsageError(f"--seed {seed}: use a number from 0 on")
    return page.render(_facts(export, min_confidence, seed))


def check_installed() -> None:
    """Raise UsageError that names the pip command if something is missing that a report is made with."""
    page.check_installed()
    thumbnails.check_installed()


class _Classes(NamedTuple):
    """The classes that are shown, the most frequent first: their numbers [K], and their records."""

    members: Members
    order: Rows

    @property
    def shown(self) -> Members:
        """The pairs of a record and one of these classes."""
        rows, numbers, names = self.members
        wanted = np.isin(numbers, self.order)
        return Members(rows[wanted], numbers[wanted], names)

    def name(self, number: int) -> str:
        return naming.brief(self.members.names[number])


def _facts(export: Export, min_confidence: float, seed: int) -> dict[str, Any]:
    """All that the page shows, as plain values; every text is one that is safe to show."""
    confidence = export.metadata["confidence"] if _is_sure(export) else None
    members = class_members(export)
    records = np.bincount(members.classes, minlength=len(members.names))
    order = np.argsort(-records, kind="stable")
    classes = _Classes(members, order[records[order] > 0][:_MOST_CLASSES])
    thresholds = sorted({*figures.THRESHOLDS, min_confidence})
    start = thresholds.index(min_confidence)
    evaluation = None if lacks(export) else evaluate(export)
    numbers = None if confidence is None else _numbers(export, confidence, classes, thresholds, evaluation)
    return {
        "title": naming.printable(export.path),
        "counts": export.manifest["counts"],
        "task": export.manifest["task"],
        "about": [(key, naming.brief(value)) for key, value in describe.facts(export)],
        "classes": _class_rows(classes, records, numbers, start, evaluation),
        "left_out": int((records > 0).sum()) - len(classes.order),
        "numbers": numbers,
        "start": start,
        "min_confidence": min_confidence,
        "command": _command(export),
        "truth": None if evaluation is None else _truth(evaluation, classes.members.names),
        "outputs": _outputs(export, seed),
        "seed": seed,
        **_pictures(export, classes, confidence, min_confidence, seed),
        "failures": _failures(export),
        "shards": export.manifest["shards"],
        "shards_shown": _SHARDS,
        "run": [(naming.brief(key), naming.brief(str(value))) for key, value in export.run.items()],
    }


def _command(export: Export) -> str | None:
    """How to select what passes, up to the threshold; None where nothing can be, or no path shown."""
    if export.manifest["task"] not in ("multiclass", "binary") or SCORES not in export.predicted:
        return None
    if not export.path.isprintable():
        return None
    split = f" --source-split {export.split}" if export.manifest["layout"] == "tfx" else ""
    return f"python -m tfzip select {shlex.quote(export.path)}{split} --out pseudo/ --min-confidence"


def _is_sure(export: Export) -> bool:
    """Whether there are confidences: scores were given, or a prediction came with one."""
    return CONFIDENCE in export.predicted or export.manifest["task"] == "detection"


# Numbers.


def _numbers(
    export: Export,
    confidence: npt.NDArray[np.float32],
    classes: _Classes,
    thresholds: Sequence[float],
    evaluation: Evaluation | None,
) -> dict[str, Any]:
    """What the page's script draws: every list is of thresholds or bins; those of single classes come by class."""
    rows, numbers, names = classes.members
    whole = np.zeros(len(confidence), np.int64)
    counted = confidence if export.manifest["task"] in ("multilabel", "detection") else _classed(confidence, rows)
    place = np.full(len(names), len(classes.order))
    place[classes.order] = np.arange(len(classes.order))
    of_class, count = (confidence[rows], place[numbers]), len(classes.order) + 1
    made = {
        "thresholds": thresholds,
        "records": len(confidence),
        "passing": figures.passing(counted, whole, 1, thresholds)[0].tolist(),
        "histogram": figures.histograms(confidence, whole, 1)[0].tolist(),
        "class_passing": figures.passing(*of_class, count, thresholds)[:-1].tolist(),
        "class_histogram": figures.histograms(*of_class, count)[:-1].tolist(),
        "nonfinite": int((~np.isfinite(confidence)).sum()),
    }
    return made | ({"known": None} if evaluation is None else _judged(export, thresholds))


def _classed(confidence: npt.NDArray[np.float32], rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The confidences of the records that are of a class, `rows`; NaN of others, as a policy has it."""
    found = np.full_like(confidence, np.nan)
    found[rows] = confidence[rows]
    return found


def _judged(export: Export, thresholds: Sequence[float]) -> dict[str, Any]:
    """How many records of known truth pass, and how many of these are right.

    A prediction that is none of the known classes is at no threshold, as `evaluate` has it.
    """
    columns = export.metadata
    known = np.flatnonzero(columns["truth"] >= 0)
    label, confidence = columns["label"][known], _classed(columns["confidence"], columns["label"] >= 0)[known]
    right = label == columns["truth"][known]
    passing = figures.passing(confidence, right.astype(np.int64), 2, thresholds)
    sure = np.isfinite(confidence)
    return {
        "known": len(known),
        "known_passing": passing.sum(axis=0).tolist(),
        "right": passing[1].tolist(),
        "reliability": [tuple(each) for each in figures.reliability(confidence[sure], right[sure])],
    }


def _class_rows(
    classes: _Classes,
    records: npt.NDArray[np.int64],
    numbers: Mapping[str, Any] | None,
    start: int,
    evaluation: Evaluation | None,
) -> list[dict[str, Any]]:
    """The rows of the table of classes."""
    shares = {} if evaluation is None else _shares(evaluation)
    return [
        {
            "number": int(number),
            "name": classes.name(number),
            "records": int(records[number]),
            "passing": numbers["class_passing"][place][start] if numbers else None,
            "judged": shares.get(int(number)),
        }
        for place, number in enumerate(classes.order)
    ]


def _shares(evaluation: Evaluation) -> dict[int, tuple[int, float, float]]:
    """Of each class the images that are of it, its precision and recall."""
    columns = (evaluation.labels, evaluation.truths, evaluation.precision, evaluation.recall)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return {label: (truths, precision, recall) for label, truths, precision, recall in rows}


def _truth(found: Evaluation, names: Sequence[str]) -> dict[str, Any]:
    """How good predictions are, and what is taken for what."""

    def name(label: int) -> str:
        return naming.brief(names[label]) if label < len(names) else str(label)

    return {
        "images": found.images,
        "accuracy": found.accuracy,
        "calibration_error": found.calibration_error,
        "unlabelled": found.unlabelled,
        "matrix": _matrix(found, name),
        "confused": [(name(truth), name(label), count) for truth, label, count in found.confused[:_CONFUSED].tolist()],
        **_never_predicted(found, name),
    }


def _never_predicted(found: Evaluation, name: Callable[[int], str]) -> dict[str, Any]:
    """The classes that images are of, and that no prediction names: no other table has a row of them."""
    missed = np.flatnonzero((found.truths > 0) & (found.predicted == 0))
    missed = missed[np.argsort(-found.truths[missed], kind="stable")]
    rows = zip(found.labels[missed[:_MISSED]].tolist(), found.truths[missed[:_MISSED]].tolist(), strict=True)
    return {"never": [(name(label), images) for label, images in rows], "never_more": len(missed[_MISSED:])}


def _matrix(found: Evaluation, name: Callable[[int], str]) -> dict[str, Any] | None:
    """The confusion matrix, of the classes with most images where there are very many."""
    if found.confusion is None:
        return None
    shown = np.sort(np.argsort(-(found.truths + found.predicted), kind="stable")[:_MATRIX])
    counts, truths = found.confusion[np.ix_(shown, shown)], found.truths[shown]
    return {
        "names": [name(label) for label in found.labels[shown].tolist()],
        "rows": [(row, total) for row, total in zip(counts.tolist(), truths.tolist(), strict=True)],
        "of": len(found.labels),
    }


def _outputs(export: Export, seed: int) -> list[dict[str, Any]]:
    """How the values of the model's outputs are spread, over records drawn at random; no more than memory holds."""
    specs = {key.removeprefix(OUTPUT): spec for key, spec in export.features.items() if key.startswith(OUTPUT)}
    if not specs or not len(export):
        return []
    rows = gallery.sample(len(export), seed, _OUTPUTS)
    fits = np.cumsum(export.metadata["size"][rows]) <= _OUTPUT_BYTES
    values: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in specs}
    taken = 0
    for _, record in records_of(export, rows[fits] if fits.any() else rows[:1]):
        taken += 1
        for name in specs:
            flat = record.outputs[name].ravel()
            values[name].append(flat[:: max(1, -(-len(flat) // _OUTPUT_VALUES))])
    return [_output(name, spec, taken, np.concatenate(values[name])) for name, spec in specs.items()]


def _output(name: str, spec: FeatureSpec, records: int, values: npt.NDArray[Any]) -> dict[str, Any]:
    shape = ", ".join("?" if size is None else str(size) for size in spec.shape)
    made = {"name": naming.brief(name), "what": f"{spec.dtype} [{shape}]", "records": records}
    if spec.dtype == "bytes":
        counted = Counter(naming.printable(naming.to_text(value)[:80]) for value in values)
        return {**made, "texts": counted.most_common(_EXAMPLES * 3), "different": len(counted), "spread": None}
    return {**made, "texts": None, "spread": figures.distribution(values)._asdict()}


# Pictures.


def _pictures(
    export: Export, classes: _Classes, confidence: npt.NDArray[np.float32] | None, min_confidence: float, seed: int
) -> dict[str, Any]:
    """The strips of each class, and the sample."""
    shown, each = gallery.sizes(len(classes.order))
    strips = {}
    for place, number in enumerate(classes.order[:shown].tolist()):
        rows = classes.members.rows[classes.members.classes == number]
        of_class = None if confidence is None else confidence[rows]
        strips[number] = gallery.strips(rows, of_class, min_confidence, each, seed + place)
    sample = gallery.sample(len(export), seed)
    wanted = np.unique(np.concatenate([sample, *(rows for kinds in strips.values() for rows in kinds.values())]))
    made = dict(zip(wanted.tolist(), cards(export, wanted, classes.shown), strict=True))
    return {
        "strips": [
            {
                "name": classes.name(number),
                "kinds": [(title, [made[row] for row in rows.tolist()]) for title, rows in kinds.items()],
            }
            for number, kinds in strips.items()
        ],
        "sample": [made[row] for row in sample.tolist()],
    }


# Failures.


def _failures(export: Export) -> dict[str, Any]:
    """Failures by stage and reason, the most frequent first, with the first few names of each."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[str]] = {}
    for failure in export.each_failure():
        key = (failure.stage, _reason(failure))
        if key not in counts and len(counts) >= _DIFFERENT:
            key = (failure.stage, "other reasons")
        counts[key] += 1
        if len(named := examples.setdefault(key, [])) < _EXAMPLES:
            named.append(naming.brief(naming.shown(failure.filename)))
    rows = [(*key, count, examples[key]) for key, count in counts.most_common(_REASONS)]
    return {"rows": rows, "more": len(counts) - len(rows)}


def _reason(failure: Failure) -> str:
    """The error without the name of the file, so that those of one kind are told together."""
    name = re.escape(naming.shown(failure.filename))
    return naming.brief(re.sub(rf"(?<!\w){name}(?!\w)", "FILE", failure.error) if name else failure.error)
