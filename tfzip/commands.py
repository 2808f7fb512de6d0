"""What each command does with its arguments; all that this takes is imported with it, once a command runs."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

import tfzip
from tfzip import colour, demo, describe, naming, options, rounds, storage, terminal
from tfzip.defaults import SAMPLE
from tfzip.extract import extract
from tfzip.options import SHAPE, Options
from tfzip.report import as_html
from tfzip.rules import OTHERS, Rules
from tfzip.select import check_validation_split, settled
from tfzip.select import write as write_selection
from tfzip.selection import select_rows

_RERUN = ("model", "sample", "imports", "weights", "preprocess", "trust_model", "max_pixels")


def _export(parsed: argparse.Namespace) -> None:
    chosen = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Options)}
    if parsed.engine == "beam":
        export = _beam().export(parsed.source, parsed.model, parsed.out, runner_options=parsed.runner_options, **chosen)
    else:
        export = tfzip.export(parsed.source, parsed.model, parsed.out, **chosen)
    if export is not None and not parsed.quiet:
        colour.show(terminal.summary(export, _called_as()))


def _beam() -> ModuleType:
    """The engine, which imports Beam."""
    try:
        return importlib.import_module("tfzip.interop.beam")
    except ImportError as error:
        raise tfzip.UsageError(str(error)) from None


def _inspect(parsed: argparse.Namespace) -> None:
    with tfzip.open(parsed.out, parsed.split) as export:
        if parsed.json:
            print(json.dumps(terminal.inspection_facts(export), indent=2))
        else:
            colour.show(terminal.inspection(export, colour.width()))


def _verify(parsed: argparse.Namespace) -> int:
    with tfzip.open(parsed.out, parsed.split) as export:
        asked = {name: value for name in _RERUN if (value := getattr(parsed, name)) is not None}
        if parsed.deep and parsed.model is None:
            raise tfzip.UsageError(f"--deep needs --model, that which made the export: {describe.model(export)}")
        if asked and not parsed.deep:
            raise tfzip.UsageError(f"{options.flag(next(iter(asked)))} has no effect without --deep")
        problems = tfzip.verify(export, **asked)
        for problem in problems:
            print(naming.printable(problem))
        if not problems:
            colour.show(terminal.verified(export, asked.get("sample", SAMPLE) if parsed.deep else 0))
    return 1 if problems else 0


def _get(parsed: argparse.Namespace) -> None:
    with tfzip.open(parsed.out, parsed.split) as export:
        record = export[naming.to_str(os.fsencode(parsed.filename))]
    if parsed.image is not None and record.encoded is None:
        raise tfzip.UsageError(f"{parsed.out} was exported with --image none: it holds no images")
    if parsed.image == "-":
        sys.stdout.buffer.write(record.encoded or b"")
        return
    if parsed.image is not None:
        try:
            with storage.open(parsed.image, "wb") as file:
                file.write(record.encoded or b"")
        except OSError as error:
            raise tfzip.UsageError(f"--image {parsed.image}: cannot write there ({error.strerror})") from None
    print(terminal.as_json(terminal.record_facts(record)))


def _extract(parsed: argparse.Namespace) -> None:
    with tfzip.open(parsed.out, parsed.split) as export:
        done = extract(export, parsed.to)
    print(f"{done.written} images and metadata.csv in {parsed.to}")
    if done.unwritten:
        raise tfzip.DataError(terminal.unwritten(done.unwritten, parsed.out))


def _select(parsed: argparse.Namespace) -> None:
    shape = {name: getattr(parsed, name) for name in SHAPE if getattr(parsed, name) is not None}
    asked = {field.name: getattr(parsed, field.name) for field in dataclasses.fields(Rules)}
    with tfzip.open(parsed.source, parsed.source_split) as export:
        rules = Rules(**{**asked, "min_confidence": _confidences(parsed.min_confidence)})
        settled(export, **shape)
        held = parsed.validation_split
        check_validation_split(rules, held)
        chosen = select_rows(export, rules)
        made = None if parsed.dry_run else write_selection(export, rules, chosen, parsed.out, held, **shape)
        colour.show(rounds.selected(export, chosen, colour.width()))
    colour.show("dry run: nothing was written" if made is None else rounds.written(made, parsed.out, _called_as()))


def _confidences(given: Sequence[str]) -> float | dict[str | int, float]:
    """What --min-confidence says: a number for all classes, CLASS=NUMBER for one."""
    each: dict[str | int, float] = {}
    for text in given:
        name, given_one, number = text.rpartition("=")
        try:
            each[name if given_one else OTHERS] = float(number)
        except ValueError:
            raise tfzip.UsageError(f"--min-confidence {text!r}: give a number from 0 to 1, or CLASS=NUMBER") from None
    return each if set(each) - {OTHERS} else each.get(OTHERS, 0.0)


def _report(parsed: argparse.Namespace) -> None:
    shown = {"min_confidence": parsed.min_confidence, "seed": parsed.seed}
    with tfzip.open(parsed.out, parsed.split) as export:
        if parsed.to == "-":
            sys.stdout.buffer.write(as_html(export, **shown).encode())
        else:
            print(naming.printable(tfzip.report(export, parsed.to, **shown)))


def _diff(parsed: argparse.Namespace) -> None:
    with tfzip.open(parsed.out, parsed.split) as one, tfzip.open(parsed.other, parsed.split) as other:
        found = tfzip.diff(one, other)
        if parsed.json:
            for line in rounds.difference_json(found, one, other):
                print(line)
        else:
            colour.show(rounds.difference(found, one, other, colour.width()))


def _demo(parsed: argparse.Namespace) -> None:
    if parsed.seeds < 1:
        raise tfzip.UsageError(f"--seeds {parsed.seeds}: give a number from 1 on")
    colour.show(demo.run(parsed.to, _called_as(), parsed.seeds))


def _called_as() -> str:
    """How tfzip was called, for the next command to try: the interpreter as the user can type it."""
    if os.path.basename(sys.argv[0]) in ("tfzip", "tfzip.exe"):
        return "tfzip"
    here = os.path.relpath(sys.executable)
    if shutil.which("python") == sys.executable:
        return "python -m tfzip"
    return f"{sys.executable if here.startswith('..') else here} -m tfzip"


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "export": _export,
    "inspect": _inspect,
    "verify": _verify,
    "get": _get,
    "extract": _extract,
    "select": _select,
    "report": _report,
    "diff": _diff,
    "demo": _demo,
}
"""By their names; they return an exit code, if it is not 0."""
