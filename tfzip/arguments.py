"""The commands and their arguments: words and defaults alone, so that --help is there at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from tfzip import colour, options
from tfzip.defaults import MIN_CONFIDENCE, SAMPLE
from tfzip.options import SHAPE, Options, flag
from tfzip.rules import FITTED, VALIDATION, Rules
from tfzip.version import __version__


class _Help(argparse.HelpFormatter):
    """Leaves the line of an example whole, to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return indent + text if text.startswith("example:") else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """Tells a wrong call in a line, without the whole usage."""

    def error(self, message: str) -> NoReturn:
        colour.complain(self.prog, f"{message} (see {self.prog} --help)")
        self.exit(2)


def parser() -> argparse.ArgumentParser:
    """All commands and their options, also for shtab, which makes completions for shells of them."""
    made = _Parser(
        prog="tfzip",
        description="Run a TensorFlow model over many images; keep prediction, filename and image together.",
        epilog="tfzip COMMAND --help tells more.",
    )
    made.add_argument("--version", action="version", version=f"tfzip {__version__}")
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show TensorFlow's log, and a traceback of an error")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=_Parser)

    def command(name: str, text: str, example: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            epilog=f"example: {example}",
            formatter_class=_Help,
            parents=[common],
            allow_abbrev=False,
        )

    def reader(name: str, text: str, example: str) -> argparse.ArgumentParser:
        added = command(name, text, example)
        added.add_argument("out", metavar="OUT", help="a finished export")
        added.add_argument("--split", metavar="NAME", help="which split, where OUT holds several")
        return added

    _add_export(
        command(
            "export",
            "run a model over images, and write records of image, filename and prediction",
            "python -m tfzip export photos/ --model classifier.keras --out labelled/",
        )
    )
    inspect = reader(
        "inspect",
        "show counts, classes, confidence, how much is right where truth is known, shards and features",
        "python -m tfzip inspect labelled/",
    )
    inspect.add_argument("--json", action="store_true", help="for programs")
    _add_deep(reader("verify", "check every CRC, hash, filename and row", "python -m tfzip verify labelled/"))
    get = reader(
        "get", "show one record, or write its image", "python -m tfzip get labelled/ cats/1.jpg --image cat.jpg"
    )
    get.add_argument("filename", metavar="FILENAME", help="as metadata.csv has it")
    get.add_argument("--image", metavar="FILE", help="write the image there; - for standard output, without the rest")
    extracting = reader(
        "extract",
        "write the images back as files, beside metadata.csv",
        "python -m tfzip extract labelled/ --to images/",
    )
    extracting.add_argument("--to", metavar="DIR", required=True, help="an empty or missing folder")
    _add_select(
        command(
            "select",
            "choose predictions to train on, and write their records as a training set",
            "python -m tfzip select labelled/ --out pseudo/ --min-confidence 0.9 --per-class 1000",
        )
    )
    _add_diff(
        command(
            "diff",
            "tell what changed its label between two exports of the same images",
            "python -m tfzip diff labelled/ again/",
        )
    )
    _add_report(reader("report", "write a page of pictures and plots, report.html", "python -m tfzip report labelled/"))
    showing = command(
        "demo",
        "go round the whole loop on real digits: teacher, export, selection, students",
        "python -m tfzip demo",
    )
    showing.add_argument("--to", metavar="DIR", default="tfzip-demo", help="where to (default: tfzip-demo)")
    showing.add_argument(
        "--seeds", type=int, metavar="N", default=3, help="how often, each with other digits (default: 3)"
    )
    for added in commands.choices.values():
        _complete_paths(added)
    return made


_PATHS = {"SOURCE", "MODEL", "OUT", "OUT2", "FILE", "DIR"}


def _complete_paths(command: argparse.ArgumentParser) -> None:
    """Tell shtab which arguments are paths, as its `shtab.FILE` does, which only who makes completions has."""
    for action in command._actions:
        if action.metavar in _PATHS:
            action.complete = {"bash": "_shtab_compgen_files", "zsh": "_files", "tcsh": "f"}  # type: ignore[attr-defined]


def _add_deep(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--deep", action="store_true", help="then run some of its images through the model again")
    group = parser.add_argument_group("with --deep", "the model, and what the export was given with it")
    group.add_argument("--model", metavar="MODEL", help="the one that made the export")
    group.add_argument("--sample", type=int, metavar="N", help=f"how many images, spread evenly (default: {SAMPLE})")
    group.add_argument("--import", dest="imports", action="append", metavar="MODULE", help="a module to import first")
    group.add_argument("--weights", metavar="FILE", help="of keras:NAME")
    group.add_argument("--preprocess", metavar="MODULE:FUNCTION", help="the function that made the pixels")
    group.add_argument("--max-pixels", type=int, metavar="N", help="that an image may claim, if it was more than usual")
    group.add_argument(
        "--trust-model", action="store_true", default=None, help="let Keras load code from the model's file"
    )


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{parser.description} Images are the same by their filenames, classes by their names where "
        "both exports know names, else by their ids. The exit code is 0, whatever changed."
    )
    parser.add_argument("out", metavar="OUT", help="a finished export")
    parser.add_argument("other", metavar="OUT2", help="another, such as that of a later round")
    parser.add_argument("--split", metavar="NAME", help="which split of both, where one holds several")
    parser.add_argument("--json", action="store_true", help="for programs, with all images that changed")


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        f"{parser.description} It is one file that holds all it shows, for any browser, with no network: counts, "
        "confidences, what passes a threshold, what is wrong where truth is known, and pictures of each class."
    )
    parser.add_argument(
        "--to", metavar="FILE", help="the file to write; - for standard output (default: report.html in OUT)"
    )
    parser.add_argument(
        "--min-confidence", type=float, metavar="P", default=MIN_CONFIDENCE,
        help=f"the threshold at first, around which pictures are shown (default: {MIN_CONFIDENCE})",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="SEED", default=0, help="of the pictures drawn (default: 0)")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of images; a glob in quotes; a list (.txt) or table (.csv, .jsonl) of paths; an archive (.tar, "
        ".tar.gz, .zip); tfrecord:GLOB; tfds:NAME; or an export",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a .keras or .h5 file, a SavedModel folder, keras:NAME, or package.module:callable",
    )
    parser.add_argument("--out", required=True, metavar="OUT", help="an empty or missing folder")

    add, switch = _adder(Options)
    group = parser.add_argument_group("model")
    group.add_argument(
        "--import", dest="imports", action="append", metavar="MODULE",
        help="a module to import first, for custom layers and operations; repeatable",
    )  # fmt: skip
    add(group, "weights", "of keras:NAME (default: ImageNet's, which Keras downloads)", metavar="FILE")
    add(group, "predictions", "instead of a model: scores or labels in a .npy file, or a table", metavar="FILE")
    switch(group, "allow_partial", "images without a prediction in that table fail, others in it are left")
    add(group, "signature", "of a SavedModel (default: serving_default)", metavar="NAME")
    add(
        group,
        "output",
        "the output that the task is about (default: the only one, or the only one of rank 2); for detection "
        "boxes,scores,classes and perhaps their number",
        metavar="NAME",
    )
    add(group, "labels", "a text file, one class name a line, that of class 0 first", metavar="FILE")
    add(group, "task", "what the model does: " + ", ".join(options.TASKS), metavar="TASK")
    add(group, "threshold", "multilabel: classes from this score on", type=float, metavar="P")
    add(group, "min_score", "detection: boxes from this score on", type=float, metavar="P")
    add(group, "scores", "what the model gives: " + ", ".join(options.SCORES), metavar="KIND")
    switch(group, "trust_model", "let Keras load code from the model's file")

    group = parser.add_argument_group("pixels")
    add(
        group,
        "scale",
        "the pixels the model was trained on: raw 0..255, unit 0..1, symmetric -1..1, caffe, torch; auto only where "
        "the model itself shows it",
        metavar="SCALE",
    )
    add(
        group,
        "preprocess",
        "a function of your own instead: float batch 0..255 -> model input",
        metavar="MODULE:FUNCTION",
    )
    add(group, "resize", "to the model's size: " + ", ".join(options.RESIZES), metavar="HOW")
    add(group, "interpolation", "of the resize: " + ", ".join(options.INTERPOLATIONS), metavar="HOW")
    switch(
        group, "fast_jpeg", "decode a JPEG no larger than the resize needs: faster, of other pixels than a whole one"
    )
    add(group, "image_size", "where the model leaves it open", metavar="HxW")
    add(group, "exif_orientation", "turn each image as its camera noted: ignore, apply", metavar="HOW")
    add(
        group,
        "max_pixels",
        "an image whose header claims more, all frames of a GIF together, fails and is not decoded",
        type=int,
        metavar="N",
    )
    add(group, "alpha", "lay transparent images on a colour: " + ", ".join(options.ALPHAS), metavar="COLOUR")

    group = parser.add_argument_group("source")
    add(
        group,
        "source_labels",
        "where the source's own labels are: none, or folder (the first below SOURCE)",
        metavar="WHERE",
    )
    add(group, "skip_in", "only images that this export does not hold, by filename", metavar="OUT")
    add(group, "root", "lists, tables: the folder that paths are below (default: the list's)", metavar="DIR")
    add(group, "filename_column", "tables: the column of paths (default: the usual names)", metavar="NAME")
    add(group, "label_column", "tables: the column of labels (default: label, class or truth)", metavar="NAME")
    add(group, "image_key", "TFRecords, TFDS: the feature that holds the image", metavar="KEY")
    add(group, "filename_key", "TFRecords, TFDS: the feature that holds the filename", metavar="KEY")
    add(group, "truth_key", "TFRecords, TFDS: the feature that holds the label", metavar="KEY")
    add(group, "source_split", "TFDS: the split, as in train[:10%%] (default: all of them)", metavar="SPLIT")
    add(group, "shuffle", "put the images in an order drawn by this seed", type=int, metavar="SEED")
    add(group, "limit", "only the first N images (after the shuffle)", type=int, metavar="N")

    group = parser.add_argument_group("output")
    add(group, "name", "of the dataset", metavar="NAME")
    add(group, "split", "of the dataset", metavar="NAME")
    add(group, "layout", "flat, or tfx: shards alone in Split-SPLIT/", metavar="LAYOUT")
    add(group, "shards", "exactly so many (default: as the sizes below say)", type=int, metavar="N")
    add(group, "shard_size", "bytes in a shard, about", metavar="SIZE")
    add(group, "shard_records", "records in a shard at most, about", type=int, metavar="N")
    add(group, "compression", "of the shards: " + ", ".join(options.COMPRESSIONS), metavar="KIND")
    add(
        group,
        "image",
        "what a record holds of the image: keep (its bytes), jpeg:QUALITY, png, none",
        metavar="WHAT",
    )
    switch(group, "overwrite", "replace the export that is in OUT; an unfinished one of the same call goes on anyway")

    group = parser.add_argument_group("running")
    number = _number_or_auto
    add(
        group,
        "batch_size",
        "images in a batch; auto tries some on the model in a long export",
        type=number,
        metavar="N",
    )
    add(group, "parallel", "batches at a time; auto likewise, from one a CPU", type=number, metavar="N")
    add(
        group,
        "runtime",
        "what computes the model on CPUs: tensorflow, lite (TensorFlow Lite), or auto, the faster in a long export",
        metavar="WHAT",
    )
    add(group, "devices", "where the model runs: auto (GPUs, if there are any), cpu, or GPU:0,GPU:1", metavar="NAMES")
    add(
        group,
        "engine",
        "local: this process; beam: Apache Beam, whose options follow after -- (default there: --runner=FnApiRunner)",
        metavar="ENGINE",
    )
    add(group, "on_error", "quarantine: list an image that fails and go on; fail: stop", metavar="HOW")
    add(
        group,
        "on_nonfinite",
        "keep, and mark in the index, a prediction that holds NaN or infinity; quarantine: it is a failure; fail: stop",
        metavar="HOW",
    )
    add(group, "max_failures", "stop if more images fail: a number, or a percentage as in 5%%", metavar="N")
    switch(group, "report", "then write report.html, a page of pictures and plots, as `tfzip report` does")
    switch(group, "dry_run", "only say what would be done")
    switch(group, "quiet", "no progress, no summary")


def _add_select(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="OUT", help="a finished export of class scores")
    parser.add_argument("--source-split", metavar="SPLIT", help="which split, where OUT holds several")
    parser.add_argument("--out", required=True, metavar="OUT2", help="an empty or missing folder")
    add, switch = _adder(Rules)

    group = parser.add_argument_group("which", "all of these together; a NaN is never chosen")
    group.add_argument(
        "--min-confidence", action="append", default=[], metavar="P",
        help="the least confidence, 0 to 1; CLASS=P for one class; repeatable",
    )  # fmt: skip
    add(
        group,
        "adaptive",
        "a confidence for the class that is learned best, less for others, and next to none while most predictions "
        "are less sure: give --min-confidence too (FlexMatch)",
        type=float,
        metavar="P",
    )
    add(group, "min_margin", "the least difference of the two highest scores", type=float, metavar="P")
    add(group, "max_entropy", "the most entropy of the scores, in nats; 0 is sure", type=float, metavar="H")
    add(group, "per_class", "the surest K of each class", type=int, metavar="K")
    add(group, "limit", "the surest N of all", type=int, metavar="N")
    group.add_argument(
        "--with", dest="others", action="append", default=[], metavar="OUT",
        help="an export of the same images by another model, joined by filename; repeatable",
    )  # fmt: skip
    add(group, "combine", "several exports: mean (of scores), or agree (what all call the same)", metavar="HOW")
    switch(
        group,
        "calibrate",
        "fit a temperature to the scores where the truth is known (of a sample, if more "
        f"than {FITTED}), before all else",
    )

    group = parser.add_argument_group("as what")
    switch(group, "use_truth", "the truth is the label where it is known, and is sure")
    switch(group, "soft", "add the scores as soft labels")
    add(group, "temperature", "of soft labels: below 1 they become surer", type=float, metavar="T")
    switch(group, "balance", "weights by which all classes count alike (Noisy Student)")
    add(
        group,
        "validation",
        "a share, drawn by filename, for OUT2/validation beside OUT2/train",
        type=float,
        metavar="P",
    )
    group.add_argument(
        "--validation-split", default=VALIDATION, metavar="NAME",
        help="another name for that split, as TFX's eval (default: validation)",
    )  # fmt: skip
    add(group, "seed", "of that draw", type=int, metavar="SEED")

    group = parser.add_argument_group("output", "as in export; name, split, compression: as in OUT if not given")
    for name, metavar in zip(SHAPE[:-1], ("NAME", "SPLIT", "LAYOUT", "SIZE", "N", "KIND"), strict=True):
        number = int if name == "shard_records" else str
        group.add_argument(flag(name), dest=name, type=number, metavar=metavar, help=_SHAPED[name])
    group.add_argument("--overwrite", action="store_true", help="replace the export that is in OUT2")
    group.add_argument("--dry-run", action="store_true", help="only show how many of each class would be taken")


_SHAPED = {
    "name": "of the dataset",
    "split": "of the dataset",
    "layout": "flat, or tfx: shards alone in Split-SPLIT/ (default: flat)",
    "shard_size": f"bytes in a shard, about (default: {Options.shard_size})",
    "shard_records": f"records in a shard at most, about (default: {Options.shard_records})",
    "compression": "of the shards: " + ", ".join(options.COMPRESSIONS),
}


def _adder(defaults: Any) -> tuple[Callable[..., None], Callable[..., None]]:
    """Two functions that add an option that is a field: one with a value, and a switch."""

    def add(group: Any, name: str, text: str, **more: Any) -> None:
        default = getattr(defaults, name)
        if default is not None and default is not False:
            text += f" (default: {default})"
        group.add_argument(flag(name), dest=name, default=default, help=text, **more)

    def switch(group: Any, name: str, text: str) -> None:
        add(group, name, text, action="store_true")

    return add, switch


def _number_or_auto(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text
