"""A selection written as a training set: the chosen records of an export, with `image/class/*` added."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfzip import dataset_info, index, naming, record, run, schema, selection, storage
from tfzip.errors import CorruptError, OutputError, OutputExistsError, TfzipError, UsageError
from tfzip.layout import Layout
from tfzip.options import MOST_SHARDS, SHAPE, Options
from tfzip.read import Export
from tfzip.read import open as open_export
from tfzip.record import FeatureSpec, Shard
from tfzip.rules import VALIDATION, Rules
from tfzip.selection import Selection
from tfzip.version import __version__
from tfzip.write import ShardWriter

_BATCH = 256  # records between two looks at how large a shard has become
_BATCH_BYTES = 1 << 24  # of them, about: of large images fewer
_OURS = frozenset(record.class_features(0))
"""What is written here, whatever it was; other `image/class/*` of a TFRecord, as ImageNet's synset, stay."""


def select(export: Export, out: str | os.PathLike[str], **asked: Any) -> Export:
    """Write the records that rules choose as a training set in the same format, and open it.

    Each record gets `image/class/label`, `text`, `confidence` and `weight` (and `scores` with `soft`), which are what
    to train on; all else of it stays as it is. With `validation` there are two splits: `OUT/train` and
    `OUT/validation` (or `validation_split`), or both in OUT in the tfx layout; the one for training is opened.

    Args:
        export: of class scores.
        out: a folder, empty or new.
        asked: the fields of `Rules`, and `name`, `split`, `layout`, `shard_size`, `shard_records`, `compression` and
            `overwrite` as in `tfzip.export`, and `validation_split`; name and split are the export's if not given.

    Raises:
        UsageError: the rules do not fit the export, or choose nothing.
        OutputExistsError: OUT holds something else.
        OutputError: OUT cannot be written any more.
        CorruptError: a record of the export is damaged.
    """
    shape = {name: asked.pop(name) for name in (*SHAPE, "validation_split") if name in asked}
    try:
        rules = Rules(**asked)
    except TypeError as error:
        raise UsageError(f"select: {str(error).partition(') ')[2] or error}") from None
    return write(export, rules, selection.select_rows(export, rules), out, **shape)


def write(
    export: Export,
    rules: Rules,
    chosen: Selection,
    out: str | os.PathLike[str],
    validation_split: str = VALIDATION,
    **shape: Any,
) -> Export:
    """Write what was selected; returns and raises what `select` does."""
    settings = settled(export, **shape)
    check_validation_split(rules, validation_split)
    dataset_info.load()
    parts = _parts(rules, chosen, settings, os.fspath(out), validation_split)
    exports = [export, *(other if isinstance(other, Export) else open_export(other) for other in rules.others)]
    _check_apart(parts, exports)
    facts = _facts(exports, rules, chosen)
    again = validation_split if _is_half_done(parts, facts) else None
    for layout, _ in parts:
        layout.check_free(settings.overwrite or layout.split == again)
    for layout, places in parts:
        part = _Part(export, rules, chosen, places, settings, layout, facts)
        with layout.claimed(), _told(layout):
            if not _was_stopped_late(part):
                _check_free(layout, settings.overwrite or layout.split == again)
                layout.clear()
                _write_part(part)
    return open_export(parts[-1][0].out, settings.split)


def check_validation_split(rules: Rules, validation_split: str) -> None:
    """Raise UsageError if it can be no name of a split, or there is none to name."""
    naming.check_name("validation-split", validation_split)
    if validation_split != VALIDATION and not rules.validation:
        raise UsageError(f"--validation-split {validation_split} has no effect without --validation")


def settled(export: Export, **shape: Any) -> Options:
    """How a training set lies on disk, checked; what is not given stays as it is in the export."""
    given = {name: value for name, value in shape.items() if value is not None}
    return Options(**{name: export.manifest[name] for name in ("name", "split", "compression")} | given)


def _parts(
    rules: Rules, chosen: Selection, settings: Options, out: str, validation_split: str
) -> list[tuple[Layout, selection.Rows]]:
    """The folders to write, and which of the chosen go to each; what is for training comes last."""
    held, split = chosen.choice.validation, settings.split
    if not out:
        raise UsageError("--out is empty; give a folder")
    if not rules.validation:
        return [(_layout(settings, out, split), np.arange(len(held)))]
    if held.all() or not held.any():
        how, better = ("all", "smaller") if held.any() else ("none of the", "larger")
        raise UsageError(f"{how} {len(held)} that are selected are for validation; give a {better} --validation")
    if split == validation_split:
        raise UsageError(f"--split {split} and --validation: give the split for training another name")
    wanted = {validation_split: np.flatnonzero(held), split: np.flatnonzero(~held)}
    folders = _folders(settings.layout, out, list(wanted))
    return [(_layout(settings, folders[name], name), places) for name, places in wanted.items()]


def _folders(layout: str, out: str, splits: Sequence[str]) -> dict[str, str]:
    """Where each of two splits goes; OutputExistsError if anything else is there."""
    if layout == "tfx":  # which holds splits, and nothing beside them, by itself
        return dict.fromkeys(splits, out)
    if other := [name for name in storage.listdir(out) if name not in splits]:
        raise OutputExistsError(f"{out} holds {other[0]}, which is no split of this; give another folder")
    return {name: storage.join(out, name) for name in splits}


def _layout(settings: Options, folder: str, split: str) -> Layout:
    return Layout(folder, settings.layout, settings.name, split, settings.compression)


def _check_free(layout: Layout, overwrite: bool) -> None:
    layout.check_free(overwrite)
    if layout.has_finished_shards and not overwrite:
        raise OutputExistsError(f"{layout.out} holds an unfinished export; give another folder, or --overwrite it")


def _check_apart(parts: Sequence[tuple[Layout, selection.Rows]], exports: Sequence[Export]) -> None:
    """Nothing may be written in place of what is read."""
    read = {os.path.realpath(export._index.path) for export in exports}
    for layout, _ in parts:
        if os.path.realpath(layout.index) in read:
            raise UsageError(f"--out {layout.out}: that is what is selected from; give another folder")


def _is_half_done(parts: Sequence[tuple[Layout, selection.Rows]], facts: Mapping[str, Any]) -> bool:
    """Whether this very selection was stopped after the first of its two splits: that is written again then."""
    *before, (last, _) = parts
    if storage.exists(last.index) and not last.is_published:
        return False
    try:
        done = [index.Index(layout.index).manifest for layout, _ in before if storage.exists(layout.index)]
    except CorruptError:
        return False
    return any(manifest.get("selection") == _plain(facts) for manifest in done)


def _was_stopped_late(part: _Part) -> bool:
    """Whether this selection was stopped when all was written but not all was in its place; that is done now."""
    layout = part.layout
    if layout.is_published:
        is_this = _plan_at(layout.published_plan) == part.plan
        layout.tidy_up()
        return is_this
    if not layout.is_unfinished or _plan_at(layout.work_plan) != part.plan:
        return False
    try:
        manifest = index.Index(layout.work_index).manifest
    except CorruptError:  # as a loss of power may leave it
        return False
    layout.keep_for_tfds(manifest)
    if not storage.exists(layout.work_run):
        run.write(layout.work_run, time.time(), len(part.places))
    layout.publish([shard["file"] for shard in manifest["shards"]])
    return True


def _plan_at(path: str) -> Any:
    """The plan of what is not finished, whatever it was; None if it cannot be read."""
    try:
        with storage.open(path, "r") as file:
            return json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return None


def _plain(facts: Mapping[str, Any]) -> Any:
    """Facts as JSON gives them back."""
    return json.loads(json.dumps(facts))


@contextlib.contextmanager
def _told(layout: Layout) -> Iterator[None]:
    """What the disk refuses meanwhile becomes an OutputError."""
    try:
        yield
    except TfzipError:
        raise
    except OSError as error:
        raise OutputError(f"{layout.out} can no longer be written: {error.strerror or error}") from error


class _Part(NamedTuple):
    """One split to write: the places among the chosen that go there."""

    export: Export
    rules: Rules
    chosen: Selection
    places: selection.Rows
    settings: Options
    layout: Layout
    facts: Mapping[str, Any]

    @property
    def plan(self) -> Any:
        """All that it is told by: the rules, the exports, and how it is to lie on disk."""
        shape = {name: str(getattr(self.settings, name)) for name in SHAPE if name != "overwrite"}
        return _plain({"selection": self.facts, "shape": shape, "tfzip_version": __version__})

    @property
    def features(self) -> dict[str, FeatureSpec]:
        """Of each record: those that it had, and those that are added."""
        had = {key: spec for key, spec in self.export.features.items() if key not in _OURS}
        return had | record.class_features(len(self.chosen.offered) if self.rules.soft else None)

    @property
    def rows(self) -> selection.Rows:
        """The rows of the export."""
        return self.chosen.choice.rows[self.places]


def _write_part(part: _Part) -> None:
    started, layout, made = time.time(), part.layout, _shards(part)
    shards = [
        Shard(layout.shard_file(number, len(made)), writer.records, writer.bytes, writer.sha256)
        for number, writer in enumerate(made)
    ]
    facts, labels = _manifest(part, shards), part.export.labels
    described = schema.schema_text(part.features, labels, selected=True)
    rows = [layout.work_rows(number) for number in range(len(shards))]
    facts["tfds"] = layout.keep_for_tfds(facts)
    index.write_index(layout.work_index, facts, labels, described, rows, [])
    run.write(layout.work_run, started, len(part.places))
    storage.write_whole(layout.work_plan, json.dumps(part.plan).encode())  # from here on it can only be finished
    layout.publish([shard.file for shard in shards])


def _shards(part: _Part) -> list[ShardWriter]:
    """Write the records, shard by shard, and the rows of each."""
    settings, layout, begin = part.settings, part.layout, 0
    made: list[ShardWriter] = []
    batches = _batches(part)
    batch = next(batches, None)
    while batch is not None:
        if len(made) == MOST_SHARDS:
            raise UsageError(f"more than {MOST_SHARDS} shards: give a larger --shard-size or --shard-records")
        with ShardWriter(layout.work_shard(len(made)), settings.compression) as writer:
            texts: list[tuple[bytes, bytes, bytes]] = []
            size = 0
            while batch is not None and (not texts or _fits(len(texts), size, batch, settings)):
                writer.write(batch.serialized)
                texts += batch.texts
                size += sum(map(len, batch.serialized))
                batch = next(batches, None)
        _save_rows(part, len(made), begin, texts, writer)
        begin += len(texts)
        made.append(writer)
    return made


class _Batch(NamedTuple):
    """Some records, and of each its filename, its prediction's text and its truth's."""

    serialized: list[bytes]
    texts: list[tuple[bytes, bytes, bytes]]


def _fits(records: int, size: int, batch: _Batch, settings: Options) -> bool:
    more = sum(map(len, batch.serialized))
    return records + len(batch.texts) <= settings.shard_records and size + more <= settings.shard_bytes


def _batches(part: _Part) -> Iterator[_Batch]:
    """The records to write, in order."""
    told = part.export.manifest["shards"]
    usual = sum(shard["bytes"] for shard in told) // max(len(part.export), 1) + 1
    most = min(_BATCH_BYTES, part.settings.shard_bytes) // usual
    size = max(1, min(_BATCH, most, part.settings.shard_records))
    for begin in range(0, len(part.places), size):
        yield _batch(part, part.places[begin : begin + size])


def _batch(part: _Part, places: selection.Rows) -> _Batch:
    """Some of the chosen: the records, with what to train on."""
    chosen, export = part.chosen, part.export
    rows = chosen.choice.rows[places]
    columns = (chosen.label[places], chosen.confidence[places], chosen.choice.weight[places])
    soft: Sequence[Any] = [None] * len(rows) if chosen.scores is None else chosen.scores(rows).tolist()
    made = _Batch([], [])
    for row, serialized, *asked in zip(
        rows.tolist(),
        export.serialized_rows(rows.tolist()),
        *(column.tolist() for column in columns),
        soft,
        strict=True,
    ):
        example = record.example_of(serialized)
        features = example.features.feature
        texts = [_text(features, key) for key in (record.FILENAME, record.TEXT, record.TRUTH_TEXT)]
        export.check_filename(row, texts[0])
        _set_class(features, export.labels, *asked)
        made.serialized.append(example.SerializeToString(deterministic=True))
        made.texts.append((texts[0], texts[1], texts[2]))
    return made


def _text(features: Any, key: str) -> bytes:
    values = features[key].bytes_list.value if key in features else ()
    return values[0] if values else b""


def _set_class(
    features: Any, names: Sequence[str], label: int, confidence: float, weight: float, scores: list[float] | None
) -> None:
    """Say in a record what to train on, and nothing else that was said of that before."""
    for key in _OURS & set(features):
        del features[key]
    text = names[label] if label < len(names) else str(label)
    features[record.CLASS_LABEL].int64_list.value.append(label)
    features[record.CLASS_TEXT].bytes_list.value.append(text.encode())
    features[record.CLASS_CONFIDENCE].float_list.value.append(confidence)
    features[record.CLASS_WEIGHT].float_list.value.append(weight)
    if scores is not None:
        features[record.CLASS_SCORES].float_list.value.extend(scores)


def _save_rows(part: _Part, shard: int, begin: int, texts: Sequence[tuple[bytes, ...]], writer: ShardWriter) -> None:
    rows = part.rows[begin : begin + len(texts)]
    known = part.export._index
    named = [name for name in known.column_names if name not in record.Location._fields]
    columns = {name: known.column(name)[rows] for name in named}
    filenames, predictions, truths = zip(*texts, strict=True) if texts else ((), (), ())
    all_texts = {"filename": filenames, "prediction": predictions, "truth_text": truths}
    index.save_part(part.layout.work_rows(shard), columns | writer.locations, all_texts)


# What it says of itself.


def _manifest(part: _Part, shards: Sequence[Shard]) -> dict[str, Any]:
    """What it was of the export; but for counts, shards and features, and how it was selected."""
    settings, facts = part.settings, part.export.manifest
    nonfinite = int(part.export.metadata["nonfinite"][part.rows].sum())
    counts = {"images": len(part.places), "records": len(part.places), "failures": 0, "ignored": 0}
    return {
        **facts,
        "tfzip_version": __version__,
        "name": settings.name,
        "split": part.layout.split,
        "layout": settings.layout,
        "compression": settings.compression,
        "counts": {**counts, "nonfinite": nonfinite},
        "source": {"kind": "export", "labels": facts["source"]["labels"]},
        "shuffle": None,
        "limit": None,
        "features": {k: {"dtype": s.dtype, "shape": list(s.shape)} for k, s in sorted(part.features.items())},
        "shards": [shard._asdict() for shard in shards],
        "selection": part.facts,
    }


def _facts(exports: Sequence[Export], rules: Rules, chosen: Selection) -> dict[str, Any]:
    """The rules, and the exports that they were applied to."""
    fields = {f.name: getattr(rules, f.name) for f in dataclasses.fields(Rules) if f.name != "others"}
    if isinstance(fields["min_confidence"], Mapping):
        fields["min_confidence"] = {str(name): value for name, value in fields["min_confidence"].items()}
    return {
        "rules": fields,
        "from": [_origin(each) for each in exports],
        "calibration": chosen.temperature if rules.calibrate else None,
    }


def _origin(export: Export) -> dict[str, Any]:
    """An export, told so that it can be recognized: its index says all of its shards."""
    shards = json.dumps([shard["sha256"] for shard in export.manifest["shards"]])
    return {
        "name": export.manifest["name"],
        "split": export.split,
        "records": len(export),
        "model": export.manifest["model"]["sha256"],
        "sha256": hashlib.sha256(shards.encode()).hexdigest(),
    }
